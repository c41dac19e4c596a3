#include "tests/golden/encoder/tiny.h"

#include <dirent.h>
#include <math.h>
#include <unistd.h>

#include "tests/golden/encoder/util.h"

#define TAG_WEIGHTS 7000
#define MAX_TENSORS 128

double tiny_value(uint32_t tag, uint32_t k)
{
    uint32_t u = k * UINT32_C(2654435761) + tag * UINT32_C(40503) + UINT32_C(12345);

    u ^= u >> 15;
    u *= UINT32_C(2246822519);
    u ^= u >> 13;
    return (u >> 8) / 16777216.0 - 0.5;
}

/* ---- models ---------------------------------------------------------------------------------- */

typedef struct shape {
    char name[96]; /* without prefix */
    int rank;
    int64_t dims[2];
} shape;

typedef struct list {
    shape s[MAX_TENSORS];
    int n;
} list;

static void add(list *l, int64_t rows, int64_t cols, const char *name)
{
    shape *s = &l->s[l->n++];

    assert_true(l->n <= MAX_TENSORS);
    snprintf(s->name, sizeof s->name, "%s", name);
    s->rank = cols ? 2 : 1;
    s->dims[0] = rows;
    s->dims[1] = cols;
}

static void add_layer(list *l, int64_t i, int64_t rows, int64_t cols, const char *leaf)
{
    char name[96];

    snprintf(name, sizeof name, "layers.%d.%s.weight", (int)i, leaf);
    add(l, rows, cols, name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const shape *)a)->name, ((const shape *)b)->name);
}

static int64_t key(const json_t *config, const char *name)
{
    return json_integer_value(json_object_get(config, name));
}

static void list_tensors(const json_t *c, list *l)
{
    const int64_t D = key(c, "hidden_size"), F = key(c, "intermediate_size");
    const int64_t d = key(c, "head_dim"), Hd = d * key(c, "num_attention_heads");
    const int64_t KVd = d * key(c, "num_key_value_heads");

    l->n = 0;
    add(l, key(c, "vocab_size"), D, "embed_tokens.weight");
    add(l, D, 0, "norm.weight");
    for (int64_t i = 0; i < key(c, "num_hidden_layers"); i++) {
        add_layer(l, i, D, 0, "input_layernorm");
        add_layer(l, i, D, 0, "post_attention_layernorm");
        add_layer(l, i, Hd, D, "self_attn.q_proj");
        add_layer(l, i, KVd, D, "self_attn.k_proj");
        add_layer(l, i, KVd, D, "self_attn.v_proj");
        add_layer(l, i, D, Hd, "self_attn.o_proj");
        add_layer(l, i, d, 0, "self_attn.q_norm");
        add_layer(l, i, d, 0, "self_attn.k_norm");
        add_layer(l, i, F, D, "mlp.gate_proj");
        add_layer(l, i, F, D, "mlp.up_proj");
        add_layer(l, i, D, F, "mlp.down_proj");
    }
    qsort(l->s, (size_t)l->n, sizeof l->s[0], by_name);
}

static lw_tensor make_tensor(const shape *s, uint32_t tag, const tiny_options *o, lw_arena *a)
{
    const bool is_matrix = s->rank == 2;
    const lw_dtype dtype = is_matrix && o->dtype ? o->dtype : LW_F32;
    lw_tensor f32, out;
    lw_err err;

    assert_ok(lw_tensor_alloc(a, LW_F32, s->rank, s->dims, &f32, &err), &err);
    assert_ok(lw_tensor_alloc(a, dtype, s->rank, s->dims, &out, &err), &err);
    for (uint32_t k = 0; k < lw_tensor_count(&f32); k++) {
        double v = tiny_value(tag, k);
        float x = (float)(is_matrix ? v * 3.0 / sqrt((double)s->dims[1]) : 1 + 0.4 * v);

        lw_f32(&f32)[k] = is_matrix && o->round_bf16 ? lw_f32_from_bf16(lw_bf16_from_f32(x)) : x;
    }
    if (o->poison && strncmp(s->name, o->poison, strlen(o->poison)) == 0)
        lw_f32(&f32)[0] = NAN;
    assert_true(lw_dtype_convert(out.data, dtype, f32.data, LW_F32, (size_t)lw_tensor_count(&f32)));
    if (o->short_by_one && strstr(s->name, o->short_by_one))
        out.shape[0]--;
    return out;
}

void tiny_write(const json_t *config, const char *path, const tiny_options *o)
{
    lw_st_entry entries[MAX_TENSORS];
    size_t n = 0;
    lw_arena a;
    lw_err err;
    list *l = malloc(sizeof *l);

    assert_non_null(l);
    list_tensors(config, l);
    lw_arena_init(&a, "tiny model", 0);
    for (int i = 0; i < l->n; i++) {
        if (o->without && strstr(l->s[i].name, o->without))
            continue;
        entries[n].name =
            lw_arena_printf(&a, &err, "%s%s", o->no_prefix ? "" : "model.", l->s[i].name);
        assert_non_null(entries[n].name);
        entries[n++].t = make_tensor(&l->s[i], TAG_WEIGHTS + (uint32_t)i, o, &a);
    }
    assert_ok(lw_st_write(path, entries, n, NULL, 0, &err), &err);
    lw_arena_deinit(&a);
    free(l);
}

/* ---- back ends ------------------------------------------------------------------------------- */

static const struct {
    bool best; /* lw_kernels_init_cpu instead of the reference */
    int threads;
} combinations[] = { { false, 1 }, { false, 2 }, { true, 1 }, { true, 2 }, { true, 3 } };

int tiny_n_backends(void)
{
    return (int)LW_ARRAY_LEN(combinations);
}

void tiny_backend_open(int i, tiny_backend *ret, bool *ret_same_as_before)
{
    lw_err err;

    assert_ok(lw_pool_create(combinations[i].threads, &ret->pool, &err), &err);
    if (combinations[i].best)
        assert_ok(lw_kernels_init_cpu(&ret->k, ret->pool, &err), &err);
    else
        lw_kernels_init_ref(&ret->k, ret->pool);
    *ret_same_as_before = i > 0 && combinations[i].best == combinations[i - 1].best;
}

void tiny_backend_close(tiny_backend *b)
{
    lw_kernels_deinit(&b->k);
    lw_pool_destroy(&b->pool);
}

/* ---- folders --------------------------------------------------------------------------------- */

const char *tiny_folder_make(void)
{
    static char folder[64];

    snprintf(folder, sizeof folder, "/tmp/lw-encoder-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

void tiny_folder_remove(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    char path[512];

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            remove(path);
    }
    closedir(d);
    assert_int_equal(rmdir(folder), 0);
}
