/* Weights of a model: which files a path stands for, and what the getters make of them. */

#include "tests/unit/unit.h"

#include <math.h>
#include <sys/stat.h>

#include "common/weights.h"

#define LARGE_MEMORY UINT64_MAX

static lw_arena arena;

static int reset_arena(void **state)
{
    (void)state;
    lw_arena_deinit(&arena);
    lw_arena_init(&arena, "test", 0);
    return 0;
}

/* A folder of its own for a case; returns its path. */
static const char *folder(const char *name)
{
    const char *path = unit_tmp(name);

    assert_int_equal(mkdir(path, 0700), 0);
    return path;
}

static void write_tensors(const char *name, const lw_st_entry *entries, size_t n)
{
    lw_err err = { 0 };

    assert_ok(lw_st_write(unit_tmp(name), entries, n, NULL, 0, &err), &err);
}

static void write_text(const char *name, const char *text)
{
    unit_write(name, text, strlen(text));
}

static lw_weights *open_ok(const char *path, lw_keep keep)
{
    lw_weights *w = NULL;
    lw_err err = { 0 };

    assert_ok(lw_weights_open_for(path, keep, LARGE_MEMORY, &w, &err), &err);
    return w;
}

static void assert_open_fails(const char *path, lw_status want, const char *text)
{
    lw_weights *w = NULL;
    lw_err err = { 0 };
    lw_status status = lw_weights_open(path, LW_KEEP_AUTO, &w, &err);

    if (status != want || strstr(err.text, text) == NULL)
        fail_msg("%s: got %s \"%s\", expected %s \"%s\"", path, lw_status_name(status), err.text,
                 lw_status_name(want), text);
    assert_null(w);
}

static float f32s[12] = { 1, -2, 3.25f, 4, 5, 6, 7, 8, 9, 10, 11, 12.3456789f };
static uint16_t bf16s[6] = { 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0 };

static void a_folder_with_an_index(void **state)
{
    const char *dir = folder("index");
    const lw_st_entry one[] = { { "a.weight", lw_tensor_2d(f32s, LW_F32, 3, 4) },
                                { "extra", lw_tensor_1d(f32s, LW_F32, 2) } };
    const lw_st_entry two[] = { { "b.weight", lw_tensor_2d(bf16s, LW_BF16, 2, 3) } };
    size_t used, total;
    lw_weights *w;

    (void)state;
    write_tensors("index/m-1.safetensors", one, 2);
    write_tensors("index/m-2.safetensors", two, 1);
    write_text("index/model.safetensors.index.json",
               "{\"metadata\":{\"total_size\":1},\"weight_map\":{\"a.weight\":\"m-1.safetensors\","
               "\"b.weight\":\"m-2.safetensors\"}}");
    w = open_ok(dir, LW_KEEP_STORED);
    assert_string_equal(lw_weights_path(w), dir);
    assert_non_null(lw_weights_find(w, "a.weight"));
    assert_non_null(lw_weights_findf(w, "%c.weight", 'b'));
    assert_null(lw_weights_find(w, "extra")); /* the index does not name it */
    lw_weights_usage(w, &used, &total);
    assert_int_equal(used, 0);
    assert_int_equal(total, 2);
    lw_weights_close(&w);
    assert_null(w);
    lw_weights_close(&w);
    /* The index itself, and with a slash at the end of the folder. */
    w = open_ok(unit_tmp("index/model.safetensors.index.json"), LW_KEEP_STORED);
    lw_weights_close(&w);
    w = open_ok(unit_tmp("index/"), LW_KEEP_STORED);
    lw_weights_close(&w);
}

static void an_index_may_not_lead_astray(void **state)
{
    static const char name[] = "bad/diffusion_pytorch_model.safetensors.index.json";
    const lw_st_entry t[] = { { "a", lw_tensor_1d(f32s, LW_F32, 2) } };
    const char *dir = folder("bad");

    (void)state;
    write_tensors("outside.safetensors", t, 1);
    write_tensors("bad/m.safetensors", t, 1);
    write_text(name, "{\"weight_map\":{\"a\":\"../outside.safetensors\"}}");
    assert_open_fails(dir, LW_E_FORMAT, "plain file name");
    write_text(name, "{\"weight_map\":{\"a\":\"/etc/passwd\"}}");
    assert_open_fails(dir, LW_E_FORMAT, "plain file name");
    write_text(name, "{\"weight_map\":{\"a\":\"..\"}}");
    assert_open_fails(dir, LW_E_FORMAT, "plain file name");
    write_text(name, "{\"weight_map\":{\"a\":\"\"}}");
    assert_open_fails(dir, LW_E_FORMAT, "plain file name");
    write_text(name, "{\"weight_map\":{\"a\":7}}");
    assert_open_fails(dir, LW_E_FORMAT, "no text");
    write_text(name, "{\"weight_map\":[]}");
    assert_open_fails(dir, LW_E_FORMAT, "weight_map");
    write_text(name, "{}");
    assert_open_fails(dir, LW_E_FORMAT, "weight_map");
    write_text(name, "[1]");
    assert_open_fails(dir, LW_E_FORMAT, "weight_map");
    write_text(name, "{\"weight_map\":{}}");
    assert_open_fails(dir, LW_E_FORMAT, "no tensors");
    write_text(name, "{\"weight_map\":{\"a\":\"gone.safetensors\"}}");
    assert_open_fails(dir, LW_E_NOT_FOUND, "gone.safetensors");
    write_text(name, "{\"weight_map\":{\"b\":\"m.safetensors\"}}");
    assert_open_fails(dir, LW_E_NOT_FOUND, "tensor \"b\" is not in it");
    write_text(name, "{\"weight_map\":{\"a\":\"m.safetensors\",\"a\":\"m.safetensors\"}}");
    assert_open_fails(dir, LW_E_FORMAT, "duplicate");
    write_text(name, "not json");
    assert_open_fails(dir, LW_E_FORMAT, "line 1");
    write_text("bad/m.safetensors", "damaged");
    write_text(name, "{\"weight_map\":{\"a\":\"m.safetensors\"}}");
    assert_open_fails(dir, LW_E_FORMAT, "too few");
}

static void single_files(void **state)
{
    const lw_st_entry t[] = { { "a", lw_tensor_1d(f32s, LW_F32, 2) } };
    const char *dir = folder("single");
    lw_weights *w;

    (void)state;
    assert_open_fails(dir, LW_E_NOT_FOUND, "looked for model.safetensors.index.json");
    write_tensors("single/any.safetensors", t, 1);
    w = open_ok(dir, LW_KEEP_STORED);
    lw_weights_close(&w);
    w = open_ok(unit_tmp("single/any.safetensors"), LW_KEEP_STORED);
    lw_weights_close(&w);
    write_tensors("single/other.safetensors", t, 1);
    assert_open_fails(dir, LW_E_NOT_FOUND, "2 .safetensors files");
    write_tensors("single/model.safetensors", t, 1); /* the usual name decides */
    w = open_ok(dir, LW_KEEP_STORED);
    lw_weights_close(&w);
    assert_open_fails(unit_tmp("nowhere"), LW_E_NOT_FOUND, "nowhere");
    write_tensors("single/model.safetensors", NULL, 0);
    assert_open_fails(dir, LW_E_FORMAT, "no tensors");
}

static void known_prefixes_are_stripped(void **state)
{
    const lw_st_entry t[] = { { "model.diffusion_model.x", lw_tensor_1d(f32s, LW_F32, 1) },
                              { "first_stage_model.y", lw_tensor_1d(f32s + 1, LW_F32, 1) },
                              { "vae.", lw_tensor_1d(f32s + 2, LW_F32, 1) },
                              { "model.layers.0", lw_tensor_1d(f32s + 3, LW_F32, 1) },
                              { "x", lw_tensor_1d(f32s, LW_F32, 1) } };
    lw_weights *w;

    (void)state;
    write_tensors("prefix.safetensors", t, 4);
    w = open_ok(unit_tmp("prefix.safetensors"), LW_KEEP_STORED);
    assert_non_null(lw_weights_find(w, "x"));
    assert_non_null(lw_weights_find(w, "y"));
    assert_non_null(lw_weights_find(w, "vae."));
    assert_non_null(lw_weights_find(w, "model.layers.0"));
    assert_null(lw_weights_find(w, "layers.0"));
    lw_weights_close(&w);
    write_tensors("both.safetensors", t, 5);
    assert_open_fails(unit_tmp("both.safetensors"), LW_E_FORMAT, "are the same tensor");
}

static void vectors_are_f32_copies(void **state)
{
    const lw_st_entry t[] = { { "norm", lw_tensor_1d(bf16s, LW_BF16, 6) },
                              { "pad", lw_tensor_2d(f32s, LW_F32, 1, 4) },
                              { "wide", lw_tensor_2d(f32s, LW_F32, 2, 4) },
                              { "count", lw_tensor_1d(f32s, LW_I32, 4) } };
    lw_err err = { 0 };
    size_t used, total;
    lw_weights *w;
    lw_tensor v;

    (void)state;
    write_tensors("vectors.safetensors", t, LW_ARRAY_LEN(t));
    w = open_ok(unit_tmp("vectors.safetensors"), LW_KEEP_BF16);
    assert_ok(lw_weights_vector(w, &arena, "norm", 6, &v, &err), &err);
    assert_int_equal(v.dtype, LW_F32);
    assert_int_equal(v.rank, 1);
    for (int i = 0; i < 6; i++)
        assert_true(lw_f32(&v)[i] == (float)(i + 1));
    assert_ok(lw_weights_vector(w, &arena, "pad", 4, &v, &err), &err);
    assert_memory_equal(v.data, f32s, 16); /* vectors stay f32 under LW_KEEP_BF16 */
    assert_int_equal(lw_weights_vector(w, &arena, "norm", 5, &v, &err), LW_E_SHAPE);
    assert_contains(err.text, "tensor \"norm\": expected [5], found bfloat16 [6]");
    assert_int_equal(lw_weights_vector(w, &arena, "wide", 8, &v, &err), LW_E_SHAPE);
    assert_int_equal(lw_weights_vector(w, &arena, "count", 4, &v, &err), LW_E_SHAPE);
    assert_contains(err.text, "int32");
    assert_int_equal(lw_weights_vector(w, &arena, "layers.0.norm", 5, &v, &err), LW_E_NOT_FOUND);
    assert_contains(err.text, "\"layers.0.norm\" [5] is missing");
    assert_contains(err.text, "vectors.safetensors");
    lw_weights_usage(w, &used, &total);
    assert_int_equal(used, 2);
    assert_int_equal(total, 4);
    lw_weights_close(&w);
}

static void matrices_are_views_where_they_can_be(void **state)
{
    const lw_st_entry t[] = { { "f32", lw_tensor_2d(f32s, LW_F32, 3, 4) },
                              { "bf16", lw_tensor_2d(bf16s, LW_BF16, 2, 3) },
                              { "conv", lw_tensor_nd(f32s, LW_F32, 4, (int64_t[]){ 3, 2, 1, 1 }) },
                              { "i8", lw_tensor_2d(bf16s, LW_I8, 3, 4) } };
    lw_err err = { 0 };
    lw_tensor m;
    lw_weights *w;
    char *stored;

    (void)state;
    write_tensors("m.safetensors", t, LW_ARRAY_LEN(t));
    w = open_ok(unit_tmp("m.safetensors"), LW_KEEP_STORED);
    assert_ok(lw_weights_matrix(w, &arena, "f32", 2, (int64_t[]){ 3, 4 }, &m, &err), &err);
    assert_ptr_equal(m.data, lw_weights_find(w, "f32")->data);
    assert_int_equal(m.dtype, LW_F32);
    assert_ok(lw_weights_matrix(w, &arena, "bf16", 2, (int64_t[]){ 2, 3 }, &m, &err), &err);
    assert_ptr_equal(m.data, lw_weights_find(w, "bf16")->data);
    assert_int_equal(arena.used_bytes, 0);
    /* 1x1 convolutions and matrices stand for one another. */
    assert_ok(lw_weights_matrix(w, &arena, "conv", 2, (int64_t[]){ 3, 2 }, &m, &err), &err);
    assert_int_equal(m.rank, 2);
    assert_ok(lw_weights_matrix(w, &arena, "f32", 4, (int64_t[]){ 3, 4, 1, 1 }, &m, &err), &err);
    assert_int_equal(m.rank, 4);
    assert_int_equal(lw_weights_matrix(w, &arena, "f32", 4, (int64_t[]){ 3, 4, 1, 2 }, &m, &err),
                     LW_E_SHAPE);
    assert_int_equal(lw_weights_matrix(w, &arena, "f32", 2, (int64_t[]){ 4, 3 }, &m, &err),
                     LW_E_SHAPE);
    assert_contains(err.text, "expected [4, 3], found float32 [3, 4]");
    assert_int_equal(lw_weights_matrix(w, &arena, "f32", 3, (int64_t[]){ 3, 4, 1 }, &m, &err),
                     LW_E_SHAPE);
    assert_int_equal(lw_weights_matrix(w, &arena, "i8", 2, (int64_t[]){ 3, 4 }, &m, &err),
                     LW_E_SHAPE);
    assert_contains(err.text, "int8");
    /* Rows of a fused matrix. */
    assert_ok(lw_weights_rows(w, &arena, "f32", 3, 4, 1, 2, &m, &err), &err);
    assert_int_equal(m.shape[0], 2);
    stored = lw_weights_find(w, "f32")->data;
    assert_ptr_equal(m.data, stored + 16);
    assert_int_equal(lw_weights_rows(w, &arena, "f32", 3, 4, 2, 2, &m, &err), LW_E_SHAPE);
    assert_int_equal(lw_weights_rows(w, &arena, "f32", 3, 4, -1, 2, &m, &err), LW_E_SHAPE);
    assert_int_equal(lw_weights_rows(w, &arena, "f32", 3, 4, 0, INT64_MAX, &m, &err), LW_E_SHAPE);
    assert_int_equal(lw_weights_rows(w, &arena, "f32", 2, 4, 0, 1, &m, &err), LW_E_SHAPE);
    lw_weights_close(&w);

    w = open_ok(unit_tmp("m.safetensors"), LW_KEEP_BF16);
    assert_true(lw_weights_rounds_f32(w));
    assert_ok(lw_weights_matrix(w, &arena, "f32", 2, (int64_t[]){ 3, 4 }, &m, &err), &err);
    assert_int_equal(m.dtype, LW_BF16);
    for (int i = 0; i < 12; i++)
        assert_int_equal(((uint16_t *)m.data)[i], lw_bf16_from_f32(f32s[i]));
    assert_ok(lw_weights_rows(w, &arena, "f32", 3, 4, 2, 1, &m, &err), &err);
    assert_int_equal(((uint16_t *)m.data)[3], lw_bf16_from_f32(f32s[11]));
    lw_weights_close(&w);
}

/* A header of a length that puts the data on an odd address. */
static void misaligned_views_are_copied(void **state)
{
    static const char header[] =
        "{\"m\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}";
    uint8_t bytes[8 + sizeof(header) - 1 + 1 + 16] = { sizeof(header) };
    lw_err err = { 0 };
    lw_weights *w;
    lw_tensor m;

    (void)state;
    memcpy(bytes + 8, header, sizeof(header) - 1);
    bytes[8 + sizeof(header) - 1] = ' ';
    memcpy(bytes + 8 + sizeof(header), f32s, 16);
    unit_write("odd.safetensors", bytes, sizeof(bytes));
    w = open_ok(unit_tmp("odd.safetensors"), LW_KEEP_STORED);
    if ((uintptr_t)lw_weights_find(w, "m")->data % 4 == 0)
        fail_msg("the test's header has become aligned");
    assert_ok(lw_weights_matrix(w, &arena, "m", 2, (int64_t[]){ 2, 2 }, &m, &err), &err);
    assert_int_equal((uintptr_t)m.data % 64, 0);
    assert_memory_equal(m.data, f32s, 16);
    lw_weights_close(&w);
}

static void automatic_rounding_looks_at_the_memory(void **state)
{
    const lw_st_entry t[] = { { "m", lw_tensor_2d(f32s, LW_F32, 3, 4) },
                              { "v", lw_tensor_1d(f32s, LW_F32, 12) } };
    lw_err err = { 0 };
    lw_weights *w = NULL;

    (void)state;
    write_tensors("auto.safetensors", t, 2); /* 48 bytes of matrices */
    assert_ok(lw_weights_open_for(unit_tmp("auto.safetensors"), LW_KEEP_AUTO, 96, &w, &err), &err);
    assert_false(lw_weights_rounds_f32(w));
    lw_weights_close(&w);
    assert_ok(lw_weights_open_for(unit_tmp("auto.safetensors"), LW_KEEP_AUTO, 95, &w, &err), &err);
    assert_true(lw_weights_rounds_f32(w));
    lw_weights_close(&w);
    assert_ok(lw_weights_open_for(unit_tmp("auto.safetensors"), LW_KEEP_STORED, 1, &w, &err), &err);
    assert_false(lw_weights_rounds_f32(w));
    lw_weights_close(&w);
}

static void float8_is_dequantised(void **state)
{
    enum { ROWS = 3, COLS = 1500 }; /* wider than the conversion's buffer */
    static uint8_t codes[ROWS * COLS];
    float scalar = 0.5f, rows[ROWS] = { 2, 0.25f, -3 }, blocks[4] = { 1, 1, 1, 1 }, nan = NAN;
    lw_tensor m = lw_tensor_2d(codes, LW_F8_E4M3, ROWS, COLS);
    const lw_st_entry t[] = {
        { "plain.weight", m },
        { "old.weight", m },
        { "old.scale_weight", lw_tensor_nd(&scalar, LW_F32, 0, NULL) },
        { "new.weight", m },
        { "new.weight_scale", lw_tensor_2d(rows, LW_F32, ROWS, 1) },
        { "e5m2.weight", lw_tensor_2d(codes, LW_F8_E5M2, ROWS, COLS) },
        { "e5m2.weight_scale", lw_tensor_1d(rows, LW_F32, ROWS) },
        { "block.weight", m },
        { "block.weight_scale", lw_tensor_2d(blocks, LW_F32, 2, 2) },
        { "nan.weight", m },
        { "nan.weight_scale", lw_tensor_1d(&nan, LW_F32, 1) },
    };
    const int64_t shape[2] = { ROWS, COLS };
    lw_err err = { 0 };
    lw_weights *w;
    lw_tensor r;

    (void)state;
    for (size_t i = 0; i < sizeof(codes); i++)
        codes[i] = (uint8_t)(i * 37 % 127);
    write_tensors("fp8.safetensors", t, LW_ARRAY_LEN(t));
    w = open_ok(unit_tmp("fp8.safetensors"), LW_KEEP_STORED);
    assert_ok(lw_weights_matrix(w, &arena, "plain.weight", 2, shape, &r, &err), &err);
    assert_int_equal(r.dtype, LW_F32);
    for (int i = 0; i < ROWS * COLS; i++)
        assert_true(lw_f32(&r)[i] == lw_f32_from_e4m3(codes[i]));
    assert_ok(lw_weights_matrix(w, &arena, "old.weight", 2, shape, &r, &err), &err);
    for (int i = 0; i < ROWS * COLS; i++)
        assert_true(lw_f32(&r)[i] == 0.5f * lw_f32_from_e4m3(codes[i]));
    assert_ok(lw_weights_matrix(w, &arena, "new.weight", 2, shape, &r, &err), &err);
    for (int i = 0; i < ROWS * COLS; i++)
        assert_true(lw_f32(&r)[i] == rows[i / COLS] * lw_f32_from_e4m3(codes[i]));
    assert_ok(lw_weights_rows(w, &arena, "new.weight", ROWS, COLS, 1, 2, &r, &err), &err);
    for (int i = 0; i < 2 * COLS; i++)
        assert_true(lw_f32(&r)[i] == rows[1 + i / COLS] * lw_f32_from_e4m3(codes[COLS + i]));
    assert_int_equal(lw_weights_matrix(w, &arena, "block.weight", 2, shape, &r, &err),
                     LW_E_UNIMPLEMENTED);
    assert_contains(err.text, "\"block.weight_scale\"");
    assert_int_equal(lw_weights_matrix(w, &arena, "nan.weight", 2, shape, &r, &err), LW_E_FORMAT);
    lw_weights_close(&w);

    w = open_ok(unit_tmp("fp8.safetensors"), LW_KEEP_AUTO);
    assert_ok(lw_weights_matrix(w, &arena, "e5m2.weight", 2, shape, &r, &err), &err);
    assert_int_equal(r.dtype, LW_BF16);
    for (int i = 0; i < ROWS * COLS; i++) {
        uint16_t want = lw_bf16_from_f32(rows[i / COLS] * lw_f32_from_e5m2(codes[i]));

        if ((codes[i] & 0x7f) <= 0x7c)
            assert_int_equal(((uint16_t *)r.data)[i], want);
    }
    lw_weights_close(&w);
}

static void digests_tell_models_apart(void **state)
{
    static float big[4096]; /* 16 KiB: both ends and a middle */
    lw_st_entry t[] = { { "a", lw_tensor_2d(big, LW_F32, 64, 64) },
                        { "b", lw_tensor_1d(f32s, LW_F32, 4) } };
    char first[65], other[65];
    lw_err err = { 0 };
    lw_weights *w;

#define DIGEST(into)                                                                               \
    write_tensors("d.safetensors", t, 2);                                                          \
    w = open_ok(unit_tmp("d.safetensors"), LW_KEEP_AUTO);                                          \
    assert_ok(lw_weights_digest(w, into, &err), &err);                                             \
    lw_weights_close(&w)

    (void)state;
    DIGEST(first);
    assert_int_equal(strspn(first, "0123456789abcdef"), 64);
    DIGEST(other);
    assert_string_equal(first, other);
    big[0] = 1;
    DIGEST(other);
    assert_string_not_equal(first, other);
    big[0] = 0;
    big[4095] = 1;
    DIGEST(other);
    assert_string_not_equal(first, other);
    big[4095] = 0;
    big[2048] = 1; /* the middle is not read; the header says so */
    DIGEST(other);
    assert_string_equal(first, other);
    big[2048] = 0;
    t[0].t = lw_tensor_2d(big, LW_F32, 32, 128);
    DIGEST(other);
    assert_string_not_equal(first, other);
    t[0].t = lw_tensor_2d(big, LW_I32, 64, 64);
    DIGEST(other);
    assert_string_not_equal(first, other);
    t[0].t = lw_tensor_2d(big, LW_F32, 64, 64);
    t[0].name = "model.diffusion_model.a"; /* the same model under its prefix */
    DIGEST(other);
    assert_string_equal(first, other);
    t[0].name = "c";
    DIGEST(other);
    assert_string_not_equal(first, other);
#undef DIGEST
}

static int free_arena(void **state)
{
    (void)state;
    lw_arena_deinit(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_folder_with_an_index, reset_arena),
        cmocka_unit_test_setup(an_index_may_not_lead_astray, reset_arena),
        cmocka_unit_test_setup(single_files, reset_arena),
        cmocka_unit_test_setup(known_prefixes_are_stripped, reset_arena),
        cmocka_unit_test_setup(vectors_are_f32_copies, reset_arena),
        cmocka_unit_test_setup(matrices_are_views_where_they_can_be, reset_arena),
        cmocka_unit_test_setup(misaligned_views_are_copied, reset_arena),
        cmocka_unit_test_setup(automatic_rounding_looks_at_the_memory, reset_arena),
        cmocka_unit_test_setup(float8_is_dequantised, reset_arena),
        cmocka_unit_test_setup(digests_tell_models_apart, reset_arena),
    };

    return cmocka_run_group_tests(tests, NULL, free_arena);
}
