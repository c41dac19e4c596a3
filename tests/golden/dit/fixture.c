#include "tests/golden/dit/fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPREAD    3.0
#define FP8_SCALE 0.0117f

/** The single-file name of a diffusers name, apart from the service's own table. */
static void single_name(const char *hf, char *ret, size_t size)
{
    char head[64];
    int i;

    if (sscanf(hf, "all_x_embedder.2-1.%63s", head) == 1)
        snprintf(ret, size, "x_embedder.%s", head);
    else if (sscanf(hf, "all_final_layer.2-1.%63s", head) == 1)
        snprintf(ret, size, "final_layer.%s", head);
    else if (sscanf(hf, "%63[a-z_].%d.attention.to_out.0.weight", head, &i) == 2 &&
             strstr(hf, "to_out") != NULL)
        snprintf(ret, size, "%s.%d.attention.out.weight", head, i);
    else if (strstr(hf, "attention.norm_") != NULL && sscanf(hf, "%63[a-z_].%d.", head, &i) == 2)
        snprintf(ret, size, "%s.%d.attention.%c_norm.weight", head, i,
                 strstr(hf, "attention.norm_")[15]);
    else
        snprintf(ret, size, "%s", hf);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static lw_tensor make_tensor(lw_arena *a, const json_t *shapes, const char *name, uint64_t tag)
{
    lw_err err = { 0 };
    int64_t shape[4];
    int rank = vt_ints(shapes, name, shape, 4);
    size_t len = strlen(name);
    bool gain = len > 6 && strcmp(name + len - 6, "weight") == 0;
    lw_tensor t;
    double fan = 1;

    vt_ok(lw_tensor_alloc(a, LW_F32, rank, shape, &t, &err), &err);
    for (int i = 1; i < rank; i++)
        fan *= (double)shape[i];
    for (int64_t k = 0; k < lw_tensor_count(&t); k++) {
        double v = (double)vt_value(tag, (uint64_t)k);

        if (strstr(name, "pad_token") == NULL)
            v = rank > 1 ? v * SPREAD / sqrt(fan) : gain ? 1 + 0.4 * v : 0.2 * v;
        lw_f32(&t)[k] = (float)v;
    }
    return t;
}

static bool is_matrix(const lw_tensor *t)
{
    return t->rank == 2 && t->shape[0] > 1;
}

/** t with the items of another type; float8 in units of FP8_SCALE. */
static lw_tensor converted(lw_arena *a, const lw_tensor *t, const dt_model *m)
{
    lw_err err = { 0 };
    size_t n = (size_t)lw_tensor_count(t);
    float scale = m->dtype == LW_F8_E4M3 ? FP8_SCALE : 1;
    lw_tensor r;

    if (m->dtype == LW_DTYPE_NONE || !is_matrix(t))
        return *t;
    for (size_t k = 0; k < n; k++)
        lw_f32(t)[k] /= scale;
    vt_ok(lw_tensor_alloc(a, m->dtype, t->rank, t->shape, &r, &err), &err);
    assert_true(lw_dtype_convert(r.data, m->dtype, t->data, LW_F32, n));
    if (!m->widened)
        return r;
    assert_true(lw_dtype_convert(t->data, LW_F32, r.data, m->dtype, n));
    for (size_t k = 0; k < n; k++)
        lw_f32(t)[k] *= scale;
    return *t;
}

/** Put k and v of a block behind its q: one tensor [3D, D] named attention.qkv.weight. */
static lw_tensor join_qkv(lw_arena *a, const lw_tensor part[3])
{
    lw_err err = { 0 };
    int64_t shape[2] = { 3 * part[0].shape[0], part[0].shape[1] };
    lw_tensor r;

    vt_ok(lw_tensor_alloc(a, part[0].dtype, 2, shape, &r, &err), &err);
    for (size_t i = 0; i < 3; i++)
        memcpy((char *)r.data + i * lw_tensor_bytes(&part[i]), part[i].data,
               lw_tensor_bytes(&part[i]));
    return r;
}

void dt_write_model(const json_t *spec, const char *dir, const dt_model *m)
{
    static const char *const qkv[3] = { "attention.to_q.weight", "attention.to_k.weight",
                                        "attention.to_v.weight" };
    json_t *shapes = json_object_get(spec, "tensor_shapes"), *value;
    size_t n = json_object_size(shapes), i = 0, n_entries = 0;
    const char **names = calloc(n, sizeof(*names)), *key;
    lw_st_entry *entries = calloc(2 * n, sizeof(*entries)); /* a scale for each, at most */
    static float scale = FP8_SCALE;
    lw_arena a;
    lw_err err = { 0 };
    char path[512], stored[160];
    lw_tensor part[3], t;

    lw_arena_init(&a, "model", 0);
    json_object_foreach(shapes, key, value) names[i++] = key;
    qsort(names, n, sizeof(*names), by_name);
    for (i = 0; i < n; i++) {
        const char *leaf = strstr(names[i], "attention.to_");

        if (m->drop != NULL && strstr(names[i], m->drop) != NULL)
            continue;
        t = make_tensor(&a, shapes, names[i], (uint64_t)vt_int(spec, "tag0") + i);
        t = converted(&a, &t, m);
        snprintf(stored, sizeof(stored), "%s", names[i]);
        if (m->single) {
            single_name(names[i], stored, sizeof(stored));
            if (strstr(names[i], "pad_token") != NULL)
                t = lw_tensor_1d(t.data, t.dtype, lw_tensor_count(&t));
            /* Sorted order has k, out, q, v; the joined tensor is complete at v. */
            for (int p = 0; leaf != NULL && p < 3; p++)
                if (strcmp(leaf, qkv[p]) == 0)
                    part[p] = t;
            if (leaf != NULL && strstr(leaf, "to_out") == NULL) {
                if (strcmp(leaf, qkv[2]) != 0)
                    continue;
                t = join_qkv(&a, part);
                snprintf(stored, sizeof(stored), "%.*sattention.qkv.weight", (int)(leaf - names[i]),
                         names[i]);
            }
        }
        if (m->reshape != NULL && strcmp(m->reshape, names[i]) == 0)
            t = lw_tensor_1d(t.data, t.dtype, lw_tensor_count(&t));
        entries[n_entries].name =
            lw_arena_printf(&a, &err, "%s%s", m->prefix != NULL ? m->prefix : "", stored);
        assert_non_null(entries[n_entries].name);
        entries[n_entries++].t = t;
        if (t.dtype == LW_F8_E4M3) {
            const char *name = entries[n_entries - 1].name;

            entries[n_entries].name = lw_arena_printf(
                &a, &err, "%.*s.scale_weight", (int)(strlen(name) - strlen(".weight")), name);
            entries[n_entries++].t = lw_tensor_1d(&scale, LW_F32, 1);
        }
    }
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    vt_ok(lw_st_write(path, entries, n_entries, NULL, 0, &err), &err);
    if (m->no_config) {
        snprintf(path, sizeof(path), "%s/config.json", dir);
        (void)remove(path); /* of the model that was here before */
    } else {
        vt_write_config(dir, json_object_get(spec, "config"));
    }
    lw_arena_deinit(&a);
    free(names);
    free(entries);
}
