#include "tests/golden/vae/fixture.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DIRS  128
#define PATH_SIZE 512

float vt_value(uint64_t tag, uint64_t k)
{
    uint32_t u = (uint32_t)(k * 2654435761u + tag * 40503u + 12345u);

    u ^= u >> 15;
    u *= 2246822519u;
    u ^= u >> 13;
    return (float)((double)(u >> 8) / 16777216.0 - 0.5);
}

lw_tensor vt_values(lw_arena *a, int rank, const int64_t *shape, uint64_t tag, float scale)
{
    lw_err err = { 0 };
    lw_tensor t;

    vt_ok(lw_tensor_alloc(a, LW_F32, rank, shape, &t, &err), &err);
    for (int64_t k = 0; k < lw_tensor_count(&t); k++)
        lw_f32(&t)[k] = (float)((double)vt_value(tag, (uint64_t)k) * (double)scale);
    return t;
}

lw_tensor vt_picture(lw_arena *a, const int64_t *shape, uint64_t tag)
{
    lw_err err = { 0 };
    lw_tensor t;

    vt_ok(lw_tensor_alloc(a, LW_U8, 4, shape, &t, &err), &err);
    for (int64_t k = 0; k < lw_tensor_count(&t); k++)
        ((uint8_t *)t.data)[k] = (uint8_t)floor(((double)vt_value(tag, (uint64_t)k) + 0.5) * 256.0);
    return t;
}

/* ---- files ----------------------------------------------------------------------------------- */

const char *vt_data(const char *name)
{
    static char path[4][PATH_SIZE];
    static int next;
    const char *root = getenv("LW_TEST_DATA");
    char *p = path[next++ % 4];

    if (root == NULL)
        fail_msg("LW_TEST_DATA is not set; run through meson test");
    snprintf(p, PATH_SIZE, "%s/%s", root, name);
    return p;
}

static char dirs[MAX_DIRS][64];
static int n_dirs;

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void remove_dirs(void)
{
    for (int i = 0; i < n_dirs; i++)
        nftw(dirs[i], remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

const char *vt_new_dir(void)
{
    if (n_dirs == 0)
        atexit(remove_dirs);
    assert_in_range(n_dirs, 0, MAX_DIRS - 1);
    strcpy(dirs[n_dirs], "/tmp/latentwire-vae-XXXXXX");
    assert_non_null(mkdtemp(dirs[n_dirs]));
    return dirs[n_dirs++];
}

json_t *vt_load_json(const char *path)
{
    json_error_t e;
    json_t *j = json_load_file(path, 0, &e);

    if (j == NULL)
        fail_msg("%s: line %d: %s", path, e.line, e.text);
    return j;
}

int64_t vt_int(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_integer(v))
        fail_msg("no integer '%s'", key);
    return json_integer_value(v);
}

int vt_ints(const json_t *o, const char *key, int64_t *ret, int cap)
{
    const json_t *arr = json_object_get(o, key), *v;
    size_t i;

    if (!json_is_array(arr) || json_array_size(arr) > (size_t)cap)
        fail_msg("no array '%s' of at most %d", key, cap);
    json_array_foreach(arr, i, v) ret[i] = json_integer_value(v);
    return (int)json_array_size(arr);
}

/* ---- models ---------------------------------------------------------------------------------- */

/** The BFL name of a diffusers name, apart from the service's own table. */
static void bfl_name(const char *hf, int n_blocks, char *ret, size_t size)
{
    static const char *const leaves[][2] = { { "group_norm", "norm" },
                                             { "to_q", "q" },
                                             { "to_k", "k" },
                                             { "to_v", "v" },
                                             { "to_out.0", "proj_out" },
                                             { "conv_shortcut", "nin_shortcut" } };
    char half[16], kind[8], rest[64];
    int b, r;

    if (sscanf(hf, "%15[a-z].%7[a-z]_blocks.%d.resnets.%d.%63s", half, kind, &b, &r, rest) == 5)
        snprintf(ret, size, "%s.%s.%d.block.%d.%s", half, kind,
                 kind[0] == 'u' ? n_blocks - 1 - b : b, r, rest);
    else if (sscanf(hf, "%15[a-z].%7[a-z]_blocks.%d.%*[a-z].0.conv.%63s", half, kind, &b, rest) ==
             4)
        snprintf(ret, size, "%s.%s.%d.%ssample.conv.%s", half, kind,
                 kind[0] == 'u' ? n_blocks - 1 - b : b, kind, rest);
    else if (sscanf(hf, "%15[a-z].mid_block.resnets.%d.%63s", half, &r, rest) == 3)
        snprintf(ret, size, "%s.mid.block_%d.%s", half, r + 1, rest);
    else if (sscanf(hf, "%15[a-z].mid_block.attentions.0.%63s", half, rest) == 2)
        snprintf(ret, size, "%s.mid.attn_1.%s", half, rest);
    else if (sscanf(hf, "%15[a-z].conv_norm_out.%63s", half, rest) == 2)
        snprintf(ret, size, "%s.norm_out.%s", half, rest);
    else
        snprintf(ret, size, "%s", hf);
    for (size_t i = 0; i < LW_ARRAY_LEN(leaves); i++) {
        char *at = strstr(ret, leaves[i][0]);
        size_t n = strlen(leaves[i][0]);

        if (at != NULL && at[-1] == '.' && at[n] == '.') {
            snprintf(rest, sizeof(rest), "%s%s", leaves[i][1], at + n);
            snprintf(at, size - (size_t)(at - ret), "%s", rest);
            break;
        }
    }
}

static void fill(lw_tensor *t, const char *name, uint64_t tag)
{
    size_t len = strlen(name);
    bool gain = len > 6 && strcmp(name + len - 6, "weight") == 0;
    double fan = 1;

    for (int i = 1; i < t->rank; i++)
        fan *= (double)t->shape[i];
    for (int64_t k = 0; k < lw_tensor_count(t); k++) {
        double v = (double)vt_value(tag, (uint64_t)k);

        lw_f32(t)[k] = (float)(t->rank > 1 ? v * 2.5 / sqrt(fan) : gain ? 1 + 0.4 * v : 0.2 * v);
    }
}

static lw_tensor make_tensor(lw_arena *a, const json_t *shapes, const char *name, uint64_t tag,
                             const vt_model *m)
{
    lw_err err = { 0 };
    lw_tensor t = { 0 }, stored;
    int64_t shape[4];
    int rank = vt_ints(shapes, name, shape, 4);

    vt_ok(lw_tensor_alloc(a, LW_F32, rank, shape, &t, &err), &err);
    fill(&t, name, tag);
    for (int64_t i = 0; m->bf16_vectors && rank == 1 && i < shape[0]; i++)
        lw_f32(&t)[i] = lw_f32_from_bf16(lw_bf16_from_f32(lw_f32(&t)[i]));
    if (m->spoil != NULL && strcmp(m->spoil, name) == 0)
        lw_f32(&t)[0] = NAN;
    if (m->bfl && strstr(name, "attentions") != NULL && rank == 2) {
        shape[2] = shape[3] = 1;
        rank = 4;
    }
    if (m->reshape != NULL && strcmp(m->reshape, name) == 0) {
        shape[0] = lw_tensor_count(&t);
        rank = 1;
    }
    vt_ok(lw_tensor_alloc(a, m->dtype != LW_DTYPE_NONE ? m->dtype : LW_F32, rank, shape, &stored,
                          &err),
          &err);
    assert_true(
        lw_dtype_convert(stored.data, stored.dtype, t.data, LW_F32, (size_t)lw_tensor_count(&t)));
    return stored;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void vt_write_config(const char *dir, const json_t *config)
{
    char path[PATH_SIZE];

    snprintf(path, sizeof(path), "%s/config.json", dir);
    assert_int_equal(json_dump_file(config, path, JSON_INDENT(2)), 0);
}

void vt_write_model(const json_t *spec, const char *dir, const vt_model *m)
{
    json_t *shapes = json_object_get(spec, "tensor_shapes"), *value;
    const json_t *config = json_object_get(spec, "config");
    size_t n = json_object_size(shapes), i = 0, n_entries = 0;
    const char **names = calloc(n, sizeof(*names)), *key;
    lw_st_entry *entries = calloc(n, sizeof(*entries));
    int n_blocks = (int)json_array_size(json_object_get(config, "block_out_channels"));
    lw_arena a;
    lw_err err = { 0 };
    char path[PATH_SIZE], stored[128];

    lw_arena_init(&a, "model", 0);
    json_object_foreach(shapes, key, value) names[i++] = key;
    qsort(names, n, sizeof(*names), by_name);
    for (i = 0; i < n; i++) {
        if (m->drop != NULL && strstr(names[i], m->drop) != NULL)
            continue;
        if (m->bfl)
            bfl_name(names[i], n_blocks, stored, sizeof(stored));
        else
            snprintf(stored, sizeof(stored), "%s", names[i]);
        entries[n_entries].name =
            lw_arena_printf(&a, &err, "%s%s", m->prefix != NULL ? m->prefix : "", stored);
        assert_non_null(entries[n_entries].name);
        entries[n_entries++].t =
            make_tensor(&a, shapes, names[i], (uint64_t)vt_int(spec, "tag0") + i, m);
    }
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    vt_ok(lw_st_write(path, entries, n_entries, NULL, 0, &err), &err);
    if (!m->no_config)
        vt_write_config(dir, config);
    lw_arena_deinit(&a);
    free(names);
    free(entries);
}

/* ---- comparing ------------------------------------------------------------------------------- */

void vt_check(const char *what, const float *a, const float *b, int64_t n, double bound)
{
    double sum = 0, sum_sq = 0, worst = 0, std;
    int64_t at = 0;

    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);

        sum += (double)b[i];
        sum_sq += (double)b[i] * (double)b[i];
        if (!(d <= worst)) { /* NaN too */
            worst = d;
            at = i;
        }
    }
    std = sqrt(sum_sq / (double)n - sum / (double)n * (sum / (double)n));
    print_message("%-28s max error %.2e of std %.3f (%.1e of it)\n", what, worst, std, worst / std);
    if (!(worst <= bound * std))
        fail_msg("%s: item %lld is %.9g, expected %.9g: off by %.3e, allowed %.3e", what,
                 (long long)at, (double)a[at], (double)b[at], worst, bound * std);
}

bool vt_backend_open(vt_backend *b, const char *name, int threads)
{
    lw_err err = { 0 };
    lw_status s;

    *b = (vt_backend){ 0 };
    vt_ok(lw_pool_create(threads, &b->pool, &err), &err);
    setenv("LATENTWIRE_BACKEND", name, 1);
    s = lw_kernels_init_cpu(&b->k, b->pool, &err);
    unsetenv("LATENTWIRE_BACKEND");
    if (s == LW_E_UNIMPLEMENTED) {
        lw_pool_destroy(&b->pool);
        return false;
    }
    vt_ok(s, &err);
    return true;
}

void vt_backend_close(vt_backend *b)
{
    lw_kernels_deinit(&b->k);
    lw_pool_destroy(&b->pool);
}
