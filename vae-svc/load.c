#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/backend.h"
#include "common/model.h"
#include "common/size.h"
#include "vae-svc/model.h"

/*
 * From tensors in a file to the structs of model.h. Names are written as diffusers writes them and
 * translated where the file has the other layout. Convolution kernels are stored [out, in, k, k];
 * the kernels want [out, k, k, in].
 */

typedef struct loader {
    lw_vae *v;
    lw_arena tmp; /* a stored matrix or kernel that is not usable in place */
    lw_err *err;
    lw_status status; /* sticky: after a failure the rest does nothing */
} loader;

/* ---- tensors --------------------------------------------------------------------------------- */

/** A name, or part of one, from its pieces; an error in l->status when it does not fit. */
static LW_PRINTF(3, 4) void name_of(loader *l, char ret[LW_VAE_NAME_BYTES], const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(ret, LW_VAE_NAME_BYTES, fmt, ap);
    va_end(ap);
    if ((n < 0 || n >= LW_VAE_NAME_BYTES) && l->status == LW_OK)
        l->status = lw_fail(l->err, LW_E_INTERNAL, "the name %s... does not fit", ret);
}

/** Stored name of PREFIX.leaf, or an error in l->status. */
static bool stored_name(loader *l, const char *prefix, const char *leaf,
                        char ret[LW_VAE_NAME_BYTES])
{
    char name[LW_VAE_NAME_BYTES];

    name_of(l, name, "%s.%s", prefix, leaf);
    if (l->status == LW_OK &&
        !lw_vae_stored_name(l->v->layout, l->v->config.n_blocks, name, ret, LW_VAE_NAME_BYTES))
        l->status = lw_fail(l->err, LW_E_INTERNAL, "the stored name of %s does not fit", name);
    return l->status == LW_OK;
}

static void load_vector(loader *l, const char *prefix, const char *leaf, int64_t n, lw_tensor *ret)
{
    char name[LW_VAE_NAME_BYTES];

    if (l->status != LW_OK || !stored_name(l, prefix, leaf, name))
        return;
    l->status = lw_weights_vector(l->v->weights, &l->v->arena, name, n, ret, l->err);
}

typedef struct transpose {
    const lw_tensor *src;
    lw_tensor *dst;
} transpose;

/** One output channel: [in, k, k] -> [k, k, in], as it is stored. */
static void transpose_item(void *arg, int thread, int64_t o)
{
    const transpose *t = arg;
    size_t item = lw_dtype_size(t->src->dtype), at = 0;
    int64_t in = t->src->shape[1], kk = t->src->shape[2] * t->src->shape[3];
    const char *src = (const char *)t->src->data + (size_t)(o * in * kk) * item;
    char *dst = (char *)t->dst->data + (size_t)(o * in * kk) * item;

    (void)thread;
    for (int64_t p = 0; p < kk; p++) {
        for (int64_t i = 0; i < in; i++, at += item)
            memcpy(dst + at, src + (size_t)(i * kk + p) * item, item);
    }
}

static void load_conv(loader *l, const char *prefix, int k, int64_t c_in, int64_t c_out,
                      lw_vae_conv *ret)
{
    int64_t stored[4] = { c_out, c_in, k, k }, shape[4] = { c_out, k, k, c_in };
    char name[LW_VAE_NAME_BYTES];
    lw_arena_mark mark;
    lw_tensor src = { 0 };

    ret->c_in = c_in;
    ret->c_out = c_out;
    ret->op.k = k;
    ret->op.stride = 1;
    ret->op.pad_top = ret->op.pad_left = ret->op.pad_bottom = ret->op.pad_right = k / 2;
    load_vector(l, prefix, "bias", c_out, &ret->op.b);
    if (l->status != LW_OK || !stored_name(l, prefix, "weight", name))
        return;
    mark = lw_arena_mark_get(&l->tmp);
    l->status = lw_weights_matrix(l->v->weights, &l->tmp, name, 4, stored, &src, l->err);
    if (l->status == LW_OK)
        l->status = lw_tensor_alloc(&l->v->arena, src.dtype, 4, shape, &ret->op.w, l->err);
    if (l->status == LW_OK) {
        transpose t = { &src, &ret->op.w };

        lw_pool_run(l->v->k->pool, c_out, transpose_item, &t);
    }
    lw_arena_release(&l->tmp, mark);
}

/** Hand a complete convolution to the back end; after stride and padding are final. */
static void prepare_conv(loader *l, lw_vae_conv *c)
{
    if (l->status == LW_OK)
        l->status = l->v->k->conv2d_prepare(l->v->k, &c->op, &l->v->arena, l->err);
}

static void load_conv_same(loader *l, const char *prefix, int k, int64_t c_in, int64_t c_out,
                           lw_vae_conv *ret)
{
    load_conv(l, prefix, k, c_in, c_out, ret);
    prepare_conv(l, ret);
}

static void load_linear(loader *l, const char *prefix, const char *leaf, int64_t c, lw_linear *ret)
{
    int64_t shape[2] = { c, c };
    char path[LW_VAE_NAME_BYTES], name[LW_VAE_NAME_BYTES];
    lw_arena_mark mark;
    lw_tensor src = { 0 };

    name_of(l, path, "%s.%s", prefix, leaf);
    load_vector(l, path, "bias", c, &ret->b);
    if (l->status != LW_OK || !stored_name(l, path, "weight", name))
        return;
    mark = lw_arena_mark_get(&l->tmp);
    l->status = lw_weights_matrix(l->v->weights, &l->tmp, name, 2, shape, &src, l->err);
    if (l->status == LW_OK)
        l->status = lw_tensor_alloc(&l->v->arena, LW_F32, 2, shape, &ret->w, l->err);
    if (l->status == LW_OK)
        (void)lw_dtype_convert(ret->w.data, LW_F32, src.data, src.dtype, (size_t)(c * c));
    lw_arena_release(&l->tmp, mark);
    if (l->status == LW_OK)
        l->status = l->v->k->linear_prepare(l->v->k, ret, &l->v->arena, l->err);
}

static void load_norm(loader *l, const char *prefix, const char *leaf, int64_t c, lw_vae_norm *ret)
{
    char path[LW_VAE_NAME_BYTES];

    name_of(l, path, "%s.%s", prefix, leaf);
    load_vector(l, path, "weight", c, &ret->w);
    load_vector(l, path, "bias", c, &ret->b);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static void load_resnet(loader *l, const char *prefix, int64_t c_in, int64_t c_out,
                        lw_vae_resnet *ret)
{
    char path[LW_VAE_NAME_BYTES];

    load_norm(l, prefix, "norm1", c_in, &ret->norm1);
    name_of(l, path, "%s.conv1", prefix);
    load_conv_same(l, path, 3, c_in, c_out, &ret->conv1);
    load_norm(l, prefix, "norm2", c_out, &ret->norm2);
    name_of(l, path, "%s.conv2", prefix);
    load_conv_same(l, path, 3, c_out, c_out, &ret->conv2);
    ret->has_shortcut = c_in != c_out;
    if (ret->has_shortcut) {
        name_of(l, path, "%s.conv_shortcut", prefix);
        load_conv_same(l, path, 1, c_in, c_out, &ret->shortcut);
    }
}

static void load_mid(loader *l, const char *half, int64_t c, lw_vae_half *net)
{
    char path[LW_VAE_NAME_BYTES];

    for (int i = 0; i < 2; i++) {
        name_of(l, path, "%s.mid_block.resnets.%d", half, i);
        load_resnet(l, path, c, c, &net->mid[i]);
    }
    net->has_attention = l->v->config.mid_attention;
    if (!net->has_attention)
        return;
    name_of(l, path, "%s.mid_block.attentions.0", half);
    load_norm(l, path, "group_norm", c, &net->attention.norm);
    load_linear(l, path, "to_q", c, &net->attention.q);
    load_linear(l, path, "to_k", c, &net->attention.k);
    load_linear(l, path, "to_v", c, &net->attention.v);
    load_linear(l, path, "to_out.0", c, &net->attention.out);
}

/** The resnets of "<half>.<kind>.<b>". */
static void load_resnets(loader *l, const char *blocks, int b, int n, int64_t c_in, int64_t c_out,
                         lw_vae_block *ret)
{
    char path[LW_VAE_NAME_BYTES];

    if (l->status != LW_OK)
        return;
    ret->resnets = lw_arena_calloc(&l->v->arena, (size_t)n, sizeof(*ret->resnets), l->err);
    if (ret->resnets == NULL) {
        l->status = LW_E_NOMEM;
        return;
    }
    ret->n_resnets = n;
    for (int r = 0; r < n; r++) {
        name_of(l, path, "%s.%d.resnets.%d", blocks, b, r);
        load_resnet(l, path, r == 0 ? c_in : c_out, c_out, &ret->resnets[r]);
    }
}

static void load_decoder(loader *l)
{
    const lw_vae_config *c = &l->v->config;
    lw_vae_half *net = &l->v->decoder;
    int64_t C = c->channels[c->n_blocks - 1], L = c->latent_channels;
    char path[LW_VAE_NAME_BYTES];

    net->has_quant = c->post_quant_conv;
    if (net->has_quant)
        load_conv_same(l, "post_quant_conv", 1, L, L, &net->quant);
    load_conv_same(l, "decoder.conv_in", 3, L, C, &net->conv_in);
    load_mid(l, "decoder", C, net);
    net->n_blocks = c->n_blocks;
    for (int b = 0; b < c->n_blocks; b++) {
        lw_vae_block *up = &net->blocks[b];
        int64_t c_out = c->channels[c->n_blocks - 1 - b];

        load_resnets(l, "decoder.up_blocks", b, c->layers_per_block + 1, C, c_out, up);
        up->has_resample = b + 1 < c->n_blocks;
        if (up->has_resample) {
            name_of(l, path, "decoder.up_blocks.%d.upsamplers.0.conv", b);
            load_conv_same(l, path, 3, c_out, c_out, &up->resample);
        }
        C = c_out;
    }
    load_norm(l, "decoder", "conv_norm_out", C, &net->norm_out);
    load_conv_same(l, "decoder.conv_out", 3, C, 3, &net->conv_out);
}

static void load_encoder(loader *l)
{
    const lw_vae_config *c = &l->v->config;
    lw_vae_half *net = &l->v->encoder;
    int64_t C = c->channels[0], L = c->latent_channels;
    char path[LW_VAE_NAME_BYTES];

    load_conv_same(l, "encoder.conv_in", 3, 3, C, &net->conv_in);
    net->n_blocks = c->n_blocks;
    for (int b = 0; b < c->n_blocks; b++) {
        lw_vae_block *down = &net->blocks[b];
        int64_t c_out = c->channels[b];

        load_resnets(l, "encoder.down_blocks", b, c->layers_per_block, C, c_out, down);
        down->has_resample = b + 1 < c->n_blocks;
        if (down->has_resample) {
            name_of(l, path, "encoder.down_blocks.%d.downsamplers.0.conv", b);
            load_conv(l, path, 3, c_out, c_out, &down->resample);
            down->resample.op.stride = 2;
            down->resample.op.pad_top = down->resample.op.pad_left = 0;
            prepare_conv(l, &down->resample);
        }
        C = c_out;
    }
    load_mid(l, "encoder", C, net);
    load_norm(l, "encoder", "conv_norm_out", C, &net->norm_out);
    load_conv_same(l, "encoder.conv_out", 3, C, 2 * L, &net->conv_out);
    net->has_quant = c->quant_conv;
    if (net->has_quant)
        load_conv_same(l, "quant_conv", 1, 2 * L, 2 * L, &net->quant);
}

/* ---- files ----------------------------------------------------------------------------------- */

static lw_status read_config(lw_vae *v, const char *path, lw_err *err)
{
    char config[PATH_MAX];
    bool is_folder;
    lw_status s;

    LW_TRY(lw_model_config(path, config, sizeof(config), &is_folder, err));
    if (config[0] != '\0') {
        s = lw_vae_config_load(config, &v->config, err);
        /* A single file may lie among other models' files: their config.json is not its own. */
        if (s != LW_E_UNIMPLEMENTED || is_folder)
            return s;
        if (err != NULL)
            *err = (lw_err){ 0 };
    }
    return lw_vae_config_infer(v->weights, v->layout, &v->config, err);
}

static lw_status load_half(lw_vae *v, void (*half)(loader *l), lw_err *err)
{
    loader l = { .v = v, .err = err };

    lw_arena_init(&l.tmp, "load", 0);
    half(&l);
    lw_arena_deinit(&l.tmp);
    return l.status;
}

static lw_status load(lw_vae *v, const char *model, lw_keep keep, lw_err *err)
{
    static const char *const inside[] = { "vae", "split_files/vae", NULL };
    char path[PATH_MAX];

    LW_TRY(lw_model_part(model, inside, path, sizeof(path), err));
    LW_TRY(lw_weights_open(path, keep, &v->weights, err));
    LW_TRY(lw_vae_layout_detect(v->weights, &v->layout, err));
    LW_TRY(read_config(v, path, err));
    return load_half(v, load_decoder, err);
}

lw_status lw_vae_create(const char *path, lw_keep keep, lw_kernels *k, lw_vae **ret, lw_err *err)
{
    lw_vae *v = calloc(1, sizeof(*v));
    lw_status s;

    if (v == NULL)
        return lw_fail(err, LW_E_NOMEM, "no memory for a model");
    v->k = k;
    v->strip_positions = LW_VAE_STRIP_POSITIONS;
    lw_arena_init(&v->arena, "process", 0);
    /* The autoencoder is small next to the other models, so "auto" never has to round. */
    s = load(v, path, keep == LW_KEEP_AUTO ? LW_KEEP_STORED : keep, err);
    if (s != LW_OK) {
        lw_vae_destroy(&v);
        return s;
    }
    *ret = v;
    return LW_OK;
}

void lw_vae_destroy(lw_vae **v)
{
    if (*v == NULL)
        return;
    lw_weights_close(&(*v)->weights);
    lw_arena_deinit(&(*v)->arena);
    free(*v);
    *v = NULL;
}

lw_status lw_vae_load_encoder(lw_vae *v, lw_err *err)
{
    if (!v->encoder_tried) {
        v->encoder_tried = true;
        (void)load_half(v, load_encoder, &v->encoder_err);
    }
    /* A file without an encoder stays one: the same answer each time, and no second try. */
    if (v->encoder_err.code != LW_OK && err != NULL)
        *err = v->encoder_err;
    return v->encoder_err.code;
}

const lw_vae_config *lw_vae_get_config(const lw_vae *v)
{
    return &v->config;
}

lw_status lw_vae_digest(const lw_vae *v, char ret_hex[65], lw_err *err)
{
    return lw_weights_digest(v->weights, ret_hex, err);
}
