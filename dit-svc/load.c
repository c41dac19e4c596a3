#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/backend.h"
#include "common/linears.h"
#include "common/model.h"
#include "dit-svc/model.h"
#include "dit-svc/s3dit.h"

/*
 * From tensors in a file to the structs of model.h. Names below are diffusers'; where the file has
 * the single-file layout the few that differ are translated, and to_q, to_k, to_v are row ranges of
 * attention.qkv.
 */

#define NAME_BYTES 128

typedef struct loader {
    lw_dit *m;
    lw_err *err;
    lw_status status; /* sticky: after a failure the rest does nothing */
} loader;

/* ---- names ----------------------------------------------------------------------------------- */

/** diffusers' name of the module -> the single file's. */
static const char *const single_names[][2] = {
    { "all_x_embedder.2-1", "x_embedder" },     { "all_final_layer.2-1", "final_layer" },
    { "attention.to_out.0", "attention.out" },  { "attention.norm_q", "attention.q_norm" },
    { "attention.norm_k", "attention.k_norm" },
};

/** The stored name of prefix + leaf. */
static void stored_name(const loader *l, const char *prefix, const char *leaf, char ret[NAME_BYTES])
{
    char name[NAME_BYTES];
    const char *at;

    snprintf(name, sizeof(name), "%s%s", prefix, leaf);
    for (size_t i = 0; l->m->layout == LW_DIT_SINGLE && i < LW_ARRAY_LEN(single_names); i++) {
        at = strstr(name, single_names[i][0]);
        if (at != NULL) {
            snprintf(ret, NAME_BYTES, "%.*s%s%s", (int)(at - name), name, single_names[i][1],
                     at + strlen(single_names[i][0]));
            return;
        }
    }
    memcpy(ret, name, sizeof(name));
}

/* ---- tensors --------------------------------------------------------------------------------- */

static void vector(loader *l, const char *prefix, const char *leaf, int64_t n, lw_tensor *ret)
{
    char name[NAME_BYTES];

    stored_name(l, prefix, leaf, name);
    if (l->status == LW_OK)
        l->status = lw_weights_vector(l->m->weights, &l->m->arena, name, n, ret, l->err);
}

/* The matrices of the blocks; q|k|v of the single-file layout are three layers. */
int lw_dit_bulk_parts(const char *name)
{
    static const char *const leaves[] = {
        "attention.to_q",     "attention.to_k",  "attention.to_v",
        "attention.to_out.0", "attention.out",   "attention.qkv",
        "feed_forward.w1",    "feed_forward.w2", "feed_forward.w3"
    };
    size_t n = strlen(name), tail = strlen(".weight");

    for (size_t i = 0; i < LW_ARRAY_LEN(leaves); i++) {
        size_t m = strlen(leaves[i]);

        if (n > m + tail + 1 && strcmp(name + n - tail, ".weight") == 0 &&
            name[n - tail - m - 1] == '.' && strncmp(name + n - tail - m, leaves[i], m) == 0)
            return strcmp(leaves[i], "attention.qkv") == 0 ? 3 : 1;
    }
    return 0;
}

static void linear(loader *l, const char *prefix, const char *leaf, int64_t out, int64_t in,
                   bool bias, lw_linear *ret)
{
    char module[NAME_BYTES], name[NAME_BYTES];

    snprintf(module, sizeof(module), "%s%s", prefix, leaf);
    if (bias)
        vector(l, module, ".bias", out, &ret->b);
    stored_name(l, module, ".weight", name);
    ret->bulk = lw_dit_bulk_parts(name) > 0;
    if (l->status == LW_OK)
        l->status =
            lw_linear_load(l->m->k, l->m->weights, &l->m->arena, name, out, in, ret, l->err);
}

/** Rows of the joined q, k, v. */
static void qkv_part(loader *l, const char *prefix, int part, lw_linear *ret)
{
    int64_t D = l->m->config.dim;
    char name[2 * NAME_BYTES];

    snprintf(name, sizeof(name), "%sattention.qkv.weight", prefix);
    ret->bulk = true;
    if (l->status == LW_OK)
        l->status = lw_linear_load_rows(l->m->k, l->m->weights, &l->m->arena, name, 3 * D, D,
                                        part * D, D, ret, l->err);
}

static void load_block(loader *l, const char *prefix, bool modulated, lw_dit_block *b)
{
    const lw_dit_config *c = &l->m->config;
    int64_t D = c->dim;

    if (l->m->layout == LW_DIT_SINGLE) {
        qkv_part(l, prefix, 0, &b->to_q);
        qkv_part(l, prefix, 1, &b->to_k);
        qkv_part(l, prefix, 2, &b->to_v);
    } else {
        linear(l, prefix, "attention.to_q", D, D, false, &b->to_q);
        linear(l, prefix, "attention.to_k", D, D, false, &b->to_k);
        linear(l, prefix, "attention.to_v", D, D, false, &b->to_v);
    }
    linear(l, prefix, "attention.to_out.0", D, D, false, &b->to_out);
    vector(l, prefix, "attention.norm_q.weight", c->head_dim, &b->norm_q);
    vector(l, prefix, "attention.norm_k.weight", c->head_dim, &b->norm_k);
    linear(l, prefix, "feed_forward.w1", c->ffn, D, false, &b->w1);
    linear(l, prefix, "feed_forward.w3", c->ffn, D, false, &b->w3);
    linear(l, prefix, "feed_forward.w2", D, c->ffn, false, &b->w2);
    vector(l, prefix, "attention_norm1.weight", D, &b->attention_norm1);
    vector(l, prefix, "attention_norm2.weight", D, &b->attention_norm2);
    vector(l, prefix, "ffn_norm1.weight", D, &b->ffn_norm1);
    vector(l, prefix, "ffn_norm2.weight", D, &b->ffn_norm2);
    if (modulated)
        linear(l, prefix, "adaLN_modulation.0", 4 * D, c->adaln, true, &b->adaln);
}

static lw_dit_block *load_blocks(loader *l, const char *kind, int n, bool modulated)
{
    lw_dit_block *blocks;
    char prefix[NAME_BYTES];

    if (l->status != LW_OK)
        return NULL;
    blocks = lw_arena_calloc(&l->m->arena, (size_t)n, sizeof(*blocks), l->err);
    if (blocks == NULL)
        l->status = LW_E_NOMEM;
    for (int i = 0; blocks != NULL && i < n; i++) {
        snprintf(prefix, sizeof(prefix), "%s.%d.", kind, i);
        load_block(l, prefix, modulated, &blocks[i]);
    }
    return blocks;
}

static lw_status load_model(lw_dit *m, lw_err *err)
{
    loader l = { .m = m, .err = err };
    const lw_dit_config *c = &m->config;
    int64_t D = c->dim, token = (int64_t)c->patch * c->patch * c->channels;

    vector(&l, "", "x_pad_token", D, &m->x_pad_token);
    vector(&l, "", "cap_pad_token", D, &m->cap_pad_token);
    linear(&l, "", "all_x_embedder.2-1", D, token, true, &m->x_embedder);
    vector(&l, "", "cap_embedder.0.weight", c->cap_dim, &m->cap_norm);
    linear(&l, "", "cap_embedder.1", D, c->cap_dim, true, &m->cap_embedder);
    linear(&l, "", "t_embedder.mlp.0", c->t_hidden, c->t_freq, true, &m->t_mlp0);
    linear(&l, "", "t_embedder.mlp.2", c->adaln, c->t_hidden, true, &m->t_mlp2);
    m->noise_refiner = load_blocks(&l, "noise_refiner", c->n_refiner, true);
    m->context_refiner = load_blocks(&l, "context_refiner", c->n_refiner, false);
    m->layers = load_blocks(&l, "layers", c->n_layers, true);
    linear(&l, "", "all_final_layer.2-1.adaLN_modulation.1", D, c->adaln, true, &m->final_adaln);
    linear(&l, "", "all_final_layer.2-1.linear", token, D, true, &m->final_linear);
    return l.status;
}

/* ---- files ----------------------------------------------------------------------------------- */

static const char *const inside[] = { "transformer", "diffusion_models",
                                      "split_files/diffusion_models", NULL };

lw_status lw_dit_convert(const char *model, const char *out, lw_pool *pool,
                         void (*progress)(size_t done, size_t total), lw_err *err)
{
    char path[PATH_MAX];

    LW_TRY(lw_model_part(model, inside, path, sizeof(path), err));
    return lw_convert(path, out, lw_dit_bulk_parts, pool, progress, err);
}

static lw_status open_files(lw_dit *m, const char *model, lw_keep keep, lw_err *err)
{
    char path[PATH_MAX], config[PATH_MAX];
    bool is_folder;

    LW_TRY(lw_model_part(model, inside, path, sizeof(path), err));
    LW_TRY(lw_model_config(path, config, sizeof(config), &is_folder, err));
    LW_TRY(lw_weights_open(path, keep, &m->weights, err));
    LW_TRY(lw_dit_layout_detect(m->weights, &m->layout, err));
    return lw_dit_config_load(is_folder && config[0] != '\0' ? config : NULL, m->weights, m->layout,
                              &m->config, err);
}

lw_status lw_dit_create(const char *path, lw_keep keep, lw_kernels *k, lw_dit **ret, lw_err *err)
{
    lw_dit *m = calloc(1, sizeof(*m));
    lw_status s;

    if (m == NULL)
        return lw_fail(err, LW_E_NOMEM, "no memory for a model");
    m->k = k;
    lw_arena_init(&m->arena, "process", 0);
    s = open_files(m, path, keep, err);
    if (s == LW_OK)
        s = load_model(m, err);
    if (s != LW_OK) {
        lw_dit_destroy(&m);
        return s;
    }
    *ret = m;
    return LW_OK;
}

void lw_dit_destroy(lw_dit **m)
{
    if (*m == NULL)
        return;
    lw_weights_close(&(*m)->weights);
    lw_arena_deinit(&(*m)->arena);
    free(*m);
    *m = NULL;
}

const lw_dit_config *lw_dit_get_config(const lw_dit *m)
{
    return &m->config;
}

bool lw_dit_is_int8(const lw_dit *m)
{
    return m->layers[0].w1.packed != NULL;
}

lw_status lw_dit_digest(const lw_dit *m, char ret_hex[65], lw_err *err)
{
    return lw_weights_digest(m->weights, ret_hex, err);
}
