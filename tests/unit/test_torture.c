/*
 * Every allocation fails once. The linker sends the allocations of our code here (--wrap) and
 * jansson takes its own from here, so that each call can be repeated with the first, the second,
 * the n-th allocation failing until it succeeds. In between: the right error, nothing leaked (the
 * sanitizer's build looks), nothing crashed.
 */

#include "tests/unit/unit.h"

#include <jansson.h>
#include <sys/stat.h>

#include "common/buf.h"
#include "common/file.h"
#include "common/frontmatter.h"
#include "common/json.h"
#include "common/weights.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
char *__wrap_strdup(const char *s);

static long fail_at = -1; /* how many allocations still succeed; -1: all */

static bool fails(void)
{
    if (fail_at < 0)
        return false;
    return fail_at-- == 0;
}

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return fails() ? NULL : __real_aligned_alloc(align, n);
}

char *__wrap_strdup(const char *s)
{
    return fails() ? NULL : __real_strdup(s);
}

typedef lw_status attempt_fn(lw_err *err);

/* How many allocations fail before the call comes through. */
static void torture(attempt_fn *attempt, int at_least)
{
    for (int n = 0;; n++) {
        lw_err err = { 0 };
        lw_status status;
        bool failed;

        assert_in_range(n, 0, 2000);
        fail_at = n;
        status = attempt(&err);
        failed = fail_at < 0;
        fail_at = -1;
        if (!failed) {
            assert_ok(status, &err);
            assert_in_range(n, at_least, 2000);
            return;
        }
        /* An allocator may have a second try in hand (a smaller block), so success is allowed. */
        if (status == LW_OK)
            continue;
        assert_int_equal(status, err.code);
        assert_true(strlen(err.text) > 0);
        if (status == LW_E_FORMAT) /* jansson tells some failed allocations as bad syntax */
            assert_contains(err.text, "line 1, column");
        else
            assert_int_equal(status, LW_E_NOMEM);
    }
}

static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                             "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                             "\"b\":{\"dtype\":\"BF16\",\"shape\":[1,3],\"data_offsets\":[8,14]}}";

static lw_status open_memory(lw_err *err)
{
    static uint8_t image[8 + sizeof(header) - 1 + 14];
    lw_st_file *f = NULL;
    lw_status status;

    image[0] = sizeof(header) - 1;
    memcpy(image + 8, header, sizeof(header) - 1);
    status = lw_st_open_memory(image, sizeof(image), "torture", &f, err);
    lw_st_close(&f);
    return status;
}

static lw_status write_file(lw_err *err)
{
    float v[6] = { 0 };
    const lw_st_entry entries[] = { { "a", lw_tensor_1d(v, LW_F32, 6) },
                                    { "b.weight", lw_tensor_2d(v, LW_BF16, 2, 3) } };
    const lw_st_meta meta[] = { { "k", "v" }, { "l", "w" } };

    return lw_st_write(unit_tmp("torture.safetensors"), entries, 2, meta, 2, err);
}

static lw_status open_weights(lw_err *err)
{
    lw_weights *w = NULL;
    lw_tensor t;
    lw_status status;
    lw_arena a;

    lw_arena_init(&a, "torture", 0);
    status = lw_weights_open_for(unit_tmp("model"), LW_KEEP_BF16, 1, &w, err);
    if (status == LW_OK)
        status = lw_weights_vector(w, &a, "a", 6, &t, err);
    if (status == LW_OK)
        status = lw_weights_matrix(w, &a, "b.weight", 2, (int64_t[]){ 2, 3 }, &t, err);
    lw_arena_deinit(&a);
    lw_weights_close(&w);
    return status;
}

static lw_status read_json(lw_err *err)
{
    json_t *root = NULL;
    lw_status status = lw_json_load(unit_tmp("model/model.safetensors.index.json"), &root, err);

    json_decref(root);
    return status;
}

static lw_status read_front_matter(lw_err *err)
{
    static const char text[] = "---\na: b\nlist: [c, d]\nmap:\n  e: f\n---\n\nBody.\n";
    lw_frontmatter f;
    lw_status status;
    lw_arena a;

    lw_arena_init(&a, "torture", 0);
    status = lw_frontmatter_parse(text, sizeof(text) - 1, "torture", &a, &f, err);
    lw_arena_deinit(&a);
    return status;
}

static lw_status fill_arena(lw_err *err)
{
    lw_status status = LW_OK;
    lw_arena a;

    lw_arena_init(&a, "torture", 0);
    for (int i = 0; i < 20 && status == LW_OK; i++)
        if (lw_arena_alloc(&a, (size_t)i * 60000, err) == NULL ||
            lw_arena_printf(&a, err, "text %d", i) == NULL)
            status = LW_E_NOMEM;
    if (status != LW_OK) { /* an arena that was refused memory is still an arena */
        lw_arena_reset(&a);
        if (lw_arena_alloc(&a, 10, NULL) == NULL && a.first != NULL)
            fail_msg("a block was lost");
    }
    lw_arena_deinit(&a);
    return status;
}

static lw_status fill_buffer(lw_err *err)
{
    lw_status status = LW_OK;
    lw_buf b;

    lw_buf_init(&b, 100000);
    for (int i = 0; i < 1000; i++)
        lw_buf_printf(&b, "line %d\n", i);
    if (b.failed)
        status = lw_fail(err, LW_E_NOMEM, "sticky");
    else
        assert_int_equal(strlen(lw_buf_cstr(&b)), b.len);
    lw_buf_deinit(&b);
    return status;
}

static void safetensors_reader(void **state)
{
    (void)state;
    torture(open_memory, 20);
}

static void safetensors_writer(void **state)
{
    int before = unit_count_files();

    (void)state;
    torture(write_file, 10);
    assert_int_equal(unit_count_files(), before + 1); /* no temporary files stay behind */
}

static void json(void **state)
{
    (void)state;
    torture(read_json, 5);
}

static void front_matter(void **state)
{
    (void)state;
    torture(read_front_matter, 1);
}

static void weights(void **state)
{
    (void)state;
    torture(open_weights, 30);
}

static void arenas(void **state)
{
    (void)state;
    torture(fill_arena, 5);
}

static void buffers(void **state)
{
    (void)state;
    torture(fill_buffer, 5);
}

static int make_model(void **state)
{
    static const char index[] = "{\"weight_map\":{\"a\":\"w.safetensors\","
                                "\"b.weight\":\"w.safetensors\"}}";
    float v[6] = { 0 };
    const lw_st_entry entries[] = { { "a", lw_tensor_1d(v, LW_F32, 6) },
                                    { "b.weight", lw_tensor_2d(v, LW_F32, 2, 3) } };

    (void)state;
    json_set_alloc_funcs(__wrap_malloc, free);
    if (mkdir(unit_tmp("model"), 0700) != 0)
        return -1;
    unit_write("model/model.safetensors.index.json", index, strlen(index));
    return lw_st_write(unit_tmp("model/w.safetensors"), entries, 2, NULL, 0, NULL) == LW_OK ? 0
                                                                                            : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arenas),       cmocka_unit_test(buffers),
        cmocka_unit_test(json),         cmocka_unit_test(safetensors_reader),
        cmocka_unit_test(weights),      cmocka_unit_test(safetensors_writer),
        cmocka_unit_test(front_matter),
    };

    return cmocka_run_group_tests(tests, make_model, NULL);
}
