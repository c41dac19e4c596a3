#include "tests/tools/mkmodel.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The tensors of the three models, written down from their descriptions and apart from the
 * services' own code, so that a model made here tests that code. Values: matrices have a spread of
 * 1/sqrt(inputs), so that activations keep their size from layer to layer; norm gains are near one,
 * biases small, pad tokens and the embedding table of size one.
 */

#define GAIN_SPREAD  0.2f
#define BIAS_SPREAD  0.1f
#define MODULE_BYTES (MK_NAME_BYTES - 16)

int64_t mk_count(const mk_tensor *t)
{
    int64_t n = 1;

    for (int i = 0; i < t->rank; i++)
        n *= t->shape[i];
    return n;
}

static mk_tensor *add(mk_list *l, int rank, const int64_t *shape, float mean, float spread)
{
    mk_tensor *t;

    if (l->n == l->cap) {
        size_t cap = l->cap > 0 ? 2 * l->cap : 256;
        mk_tensor *v = realloc(l->v, cap * sizeof(*v));

        if (v == NULL) {
            l->failed = true;
            return NULL;
        }
        l->v = v;
        l->cap = cap;
    }
    t = &l->v[l->n++];
    *t = (mk_tensor){ .n_parts = 1, .rank = rank, .mean = mean, .spread = spread };
    memcpy(t->shape, shape, (size_t)rank * sizeof(*shape));
    return t;
}

static LW_PRINTF(2, 3) void name(mk_tensor *t, const char *fmt, ...)
{
    va_list ap;

    if (t == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(t->name, sizeof(t->name), fmt, ap);
    va_end(ap);
    memcpy(t->part[0], t->name, sizeof(t->name));
}

/** The name in the single file, where it differs from the one that the values come from. */
static LW_PRINTF(2, 3) void rename_tensor(mk_tensor *t, const char *fmt, ...)
{
    va_list ap;

    if (t == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(t->name, sizeof(t->name), fmt, ap);
    va_end(ap);
}

static mk_tensor *gain(mk_list *l, int64_t n)
{
    return add(l, 1, &n, 1, GAIN_SPREAD);
}

static mk_tensor *bias(mk_list *l, int64_t n)
{
    return add(l, 1, &n, 0, BIAS_SPREAD);
}

static mk_tensor *matrix(mk_list *l, int64_t out, int64_t in)
{
    return add(l, 2, (int64_t[]){ out, in }, 0, 1.0f / sqrtf((float)in));
}

/* ---- text encoder ---------------------------------------------------------------------------- */

void mk_list_text(mk_list *l, const mk_text *m)
{
    int64_t q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;

    name(add(l, 2, (int64_t[]){ m->vocab, m->hidden }, 0, 1), "model.embed_tokens.weight");
    for (int i = 0; i < (int)m->layers; i++) {
        name(matrix(l, q, m->hidden), "model.layers.%d.self_attn.q_proj.weight", i);
        name(matrix(l, kv, m->hidden), "model.layers.%d.self_attn.k_proj.weight", i);
        name(matrix(l, kv, m->hidden), "model.layers.%d.self_attn.v_proj.weight", i);
        name(matrix(l, m->hidden, q), "model.layers.%d.self_attn.o_proj.weight", i);
        name(gain(l, m->head_dim), "model.layers.%d.self_attn.q_norm.weight", i);
        name(gain(l, m->head_dim), "model.layers.%d.self_attn.k_norm.weight", i);
        name(matrix(l, m->ffn, m->hidden), "model.layers.%d.mlp.gate_proj.weight", i);
        name(matrix(l, m->ffn, m->hidden), "model.layers.%d.mlp.up_proj.weight", i);
        name(matrix(l, m->hidden, m->ffn), "model.layers.%d.mlp.down_proj.weight", i);
        name(gain(l, m->hidden), "model.layers.%d.input_layernorm.weight", i);
        name(gain(l, m->hidden), "model.layers.%d.post_attention_layernorm.weight", i);
    }
    name(gain(l, m->hidden), "model.norm.weight");
}

/* ---- image transformer ----------------------------------------------------------------------- */

/** q, k, v apart, or one above the other in one tensor. */
static void qkv(mk_list *l, const char *prefix, int64_t D, bool single_file)
{
    static const char *const which[MK_MAX_PARTS] = { "to_q", "to_k", "to_v" };
    mk_tensor *t = NULL;

    if (single_file) {
        t = matrix(l, 3 * D, D);
        rename_tensor(t, "%sattention.qkv.weight", prefix);
        if (t != NULL)
            t->n_parts = MK_MAX_PARTS;
    }
    for (int i = 0; i < MK_MAX_PARTS; i++) {
        if (!single_file)
            name(matrix(l, D, D), "%sattention.%s.weight", prefix, which[i]);
        else if (t != NULL)
            snprintf(t->part[i], sizeof(t->part[i]), "%sattention.%s.weight", prefix, which[i]);
    }
}

static void dit_block(mk_list *l, const char *prefix, const mk_dit *m, bool modulated, bool single)
{
    static const char *const norms[] = { "attention_norm1", "ffn_norm1", "attention_norm2",
                                         "ffn_norm2" };
    int64_t D = m->dim, F = (int64_t)((double)D / 3.0 * 8.0), A = D < 256 ? D : 256;
    mk_tensor *t;

    for (int i = 0; i < 2; i++) {
        t = gain(l, D / m->heads);
        name(t, "%sattention.norm_%c.weight", prefix, "qk"[i]);
        if (single)
            rename_tensor(t, "%sattention.%c_norm.weight", prefix, "qk"[i]);
    }
    qkv(l, prefix, D, single);
    t = matrix(l, D, D);
    name(t, "%sattention.to_out.0.weight", prefix);
    if (single)
        rename_tensor(t, "%sattention.out.weight", prefix);
    name(matrix(l, F, D), "%sfeed_forward.w1.weight", prefix);
    name(matrix(l, D, F), "%sfeed_forward.w2.weight", prefix);
    name(matrix(l, F, D), "%sfeed_forward.w3.weight", prefix);
    for (size_t i = 0; i < LW_ARRAY_LEN(norms); i++)
        name(gain(l, D), "%s%s.weight", prefix, norms[i]);
    if (modulated) {
        name(matrix(l, 4 * D, A), "%sadaLN_modulation.0.weight", prefix);
        name(bias(l, 4 * D), "%sadaLN_modulation.0.bias", prefix);
    }
}

static void dit_blocks(mk_list *l, const char *kind, int64_t n, const mk_dit *m, bool modulated,
                       bool single)
{
    char prefix[48];

    for (int i = 0; i < (int)n; i++) {
        snprintf(prefix, sizeof(prefix), "%s.%d.", kind, i);
        dit_block(l, prefix, m, modulated, single);
    }
}

/** A Linear with bias whose module has another name in the single file. */
static void linear(mk_list *l, int64_t out, int64_t in, const char *hf, const char *single)
{
    mk_tensor *t = matrix(l, out, in);

    name(t, "%s.weight", hf);
    rename_tensor(t, "%s.weight", single);
    t = bias(l, out);
    name(t, "%s.bias", hf);
    rename_tensor(t, "%s.bias", single);
}

void mk_list_dit(mk_list *l, const mk_dit *m, bool single_file)
{
    static const char *const hf[] = { "all_x_embedder.2-1", "all_final_layer.2-1.linear",
                                      "all_final_layer.2-1.adaLN_modulation.1" };
    static const char *const sf[] = { "x_embedder", "final_layer.linear",
                                      "final_layer.adaLN_modulation.1" };
    const char *const *names = single_file ? sf : hf;
    int64_t D = m->dim, A = D < 256 ? D : 256, patch = 2 * 2 * MK_LATENT;

    name(add(l, 2, (int64_t[]){ 1, D }, 0, 1), "x_pad_token");
    name(add(l, 2, (int64_t[]){ 1, D }, 0, 1), "cap_pad_token");
    linear(l, D, patch, hf[0], names[0]);
    linear(l, patch, D, hf[1], names[1]);
    linear(l, D, A, hf[2], names[2]);
    dit_blocks(l, "noise_refiner", m->refiners, m, true, single_file);
    dit_blocks(l, "context_refiner", m->refiners, m, false, single_file);
    linear(l, 1024, 256, "t_embedder.mlp.0", "t_embedder.mlp.0");
    linear(l, A, 1024, "t_embedder.mlp.2", "t_embedder.mlp.2");
    name(gain(l, m->cap_dim), "cap_embedder.0.weight");
    linear(l, D, m->cap_dim, "cap_embedder.1", "cap_embedder.1");
    dit_blocks(l, "layers", m->layers, m, true, single_file);
}

/* ---- autoencoder ----------------------------------------------------------------------------- */

/** One module of the autoencoder: its name in either layout. */
typedef struct module {
    char hf[MODULE_BYTES], bfl[MODULE_BYTES];
} module;

static void append(char name[MODULE_BYTES], const char *part)
{
    size_t n = strlen(name);

    snprintf(name + n, MODULE_BYTES - n, ".%s", part);
}

/** The module `leaf` of m; `bfl` where the other layout calls it differently. */
static module child(const module *m, const char *bfl, const char *leaf)
{
    module c = *m;

    append(c.hf, leaf);
    append(c.bfl, bfl != NULL ? bfl : leaf);
    return c;
}

/** A numbered one, such as down_blocks.0.resnets.1 and down.0.block.1. */
static module numbered(const module *m, const char *bfl, const char *hf, int bfl_b, int hf_b, int r)
{
    char bfl_name[40], hf_name[40];

    snprintf(bfl_name, sizeof(bfl_name), bfl, bfl_b, r);
    snprintf(hf_name, sizeof(hf_name), hf, hf_b, r);
    return child(m, bfl_name, hf_name);
}

static void both(mk_tensor *t, const module *m, bool single, const char *what)
{
    name(t, "%s.%s", m->hf, what);
    if (single)
        rename_tensor(t, "%s.%s", m->bfl, what);
}

static void norm(mk_list *l, module m, int64_t c, bool single)
{
    both(gain(l, c), &m, single, "weight");
    both(bias(l, c), &m, single, "bias");
}

static void conv(mk_list *l, module m, int64_t out, int64_t in, int64_t k, bool single)
{
    both(add(l, 4, (int64_t[]){ out, in, k, k }, 0, 1.0f / sqrtf((float)(in * k * k))), &m, single,
         "weight");
    both(bias(l, out), &m, single, "bias");
}

/** A projection of the attention: a matrix, or the same numbers as a 1x1 convolution. */
static void projection(mk_list *l, module m, int64_t c, bool single)
{
    both(add(l, single ? 4 : 2, (int64_t[]){ c, c, 1, 1 }, 0, 1.0f / sqrtf((float)c)), &m, single,
         "weight");
    both(bias(l, c), &m, single, "bias");
}

static void resnet(mk_list *l, module m, int64_t in, int64_t out, bool single)
{
    norm(l, child(&m, NULL, "norm1"), in, single);
    conv(l, child(&m, NULL, "conv1"), out, in, 3, single);
    norm(l, child(&m, NULL, "norm2"), out, single);
    conv(l, child(&m, NULL, "conv2"), out, out, 3, single);
    if (in != out)
        conv(l, child(&m, "nin_shortcut", "conv_shortcut"), out, in, 1, single);
}

static void middle(mk_list *l, const module *half, int64_t c, bool single)
{
    module a = child(half, "mid.attn_1", "mid_block.attentions.0");

    resnet(l, child(half, "mid.block_1", "mid_block.resnets.0"), c, c, single);
    norm(l, child(&a, "norm", "group_norm"), c, single);
    projection(l, child(&a, "q", "to_q"), c, single);
    projection(l, child(&a, "k", "to_k"), c, single);
    projection(l, child(&a, "v", "to_v"), c, single);
    projection(l, child(&a, "proj_out", "to_out.0"), c, single);
    resnet(l, child(half, "mid.block_2", "mid_block.resnets.1"), c, c, single);
}

static void vae_encoder(mk_list *l, const mk_vae *m, bool single)
{
    module half = { "encoder", "encoder" };
    int64_t c = m->channels[0];

    conv(l, child(&half, NULL, "conv_in"), c, 3, 3, single);
    for (int b = 0; b < 4; b++) {
        for (int r = 0; r < (int)m->layers; r++) {
            resnet(l, numbered(&half, "down.%d.block.%d", "down_blocks.%d.resnets.%d", b, b, r), c,
                   m->channels[b], single);
            c = m->channels[b];
        }
        if (b < 3)
            conv(l,
                 numbered(&half, "down.%d.downsample.conv", "down_blocks.%d.downsamplers.%d.conv",
                          b, b, 0),
                 c, c, 3, single);
    }
    middle(l, &half, c, single);
    norm(l, child(&half, "norm_out", "conv_norm_out"), c, single);
    conv(l, child(&half, NULL, "conv_out"), 2 * MK_LATENT, c, 3, single);
}

static void vae_decoder(mk_list *l, const mk_vae *m, bool single)
{
    module half = { "decoder", "decoder" };
    int64_t c = m->channels[3];

    conv(l, child(&half, NULL, "conv_in"), c, MK_LATENT, 3, single);
    middle(l, &half, c, single);
    for (int b = 0; b < 4; b++) {
        int64_t out = m->channels[3 - b];

        for (int r = 0; r < (int)m->layers + 1; r++) {
            resnet(l, numbered(&half, "up.%d.block.%d", "up_blocks.%d.resnets.%d", 3 - b, b, r), c,
                   out, single);
            c = out;
        }
        if (b < 3)
            conv(l,
                 numbered(&half, "up.%d.upsample.conv", "up_blocks.%d.upsamplers.%d.conv", 3 - b, b,
                          0),
                 c, c, 3, single);
    }
    norm(l, child(&half, "norm_out", "conv_norm_out"), c, single);
    conv(l, child(&half, NULL, "conv_out"), 3, c, 3, single);
}

void mk_list_vae(mk_list *l, const mk_vae *m, bool single_file)
{
    vae_encoder(l, m, single_file);
    vae_decoder(l, m, single_file);
}
