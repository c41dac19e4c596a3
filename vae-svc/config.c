#include "vae-svc/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"

/*
 * The configuration of the autoencoder: from config.json, or from the tensors of a file that has
 * none. Either way the result is checked here, so that the forward pass can trust it.
 */

#define MAX_CHANNELS     16384
#define MAX_LATENT       4096 /* of the protocol's contract */
#define MAX_LAYERS       16
#define DEFAULT_GROUPS   32
#define FLUX_SCALING     0.3611
#define FLUX_SHIFT       0.1159
#define FLUX_SAMPLE_SIZE 1024

static lw_status check(const lw_vae_config *c, const char *path, lw_err *err)
{
    if (!(c->scaling_factor > 0) || !isfinite(c->scaling_factor) || !isfinite(c->shift_factor))
        return lw_fail(
            err, LW_E_FORMAT,
            "%s: scaling_factor %g and shift_factor %g must be finite, the first above 0", path,
            c->scaling_factor, c->shift_factor);
    for (int b = 0; b < c->n_blocks; b++)
        if (c->channels[b] % c->groups != 0)
            return lw_fail(err, LW_E_FORMAT,
                           "%s: %lld channels (block %d) do not divide into norm_num_groups %d",
                           path, (long long)c->channels[b], b, c->groups);
    return LW_OK;
}

/** LW_E_UNIMPLEMENTED unless every string of the array equals `want`; a missing key is fine. */
static lw_status only_kind(const json_t *o, const char *path, const char *key, const char *want,
                           lw_err *err)
{
    const json_t *arr = json_object_get(o, key);
    const char *kind;
    size_t i;
    json_t *item;

    json_array_foreach(arr, i, item)
    {
        kind = json_string_value(item);
        if (kind == NULL || strcmp(kind, want) != 0)
            return lw_fail(err, LW_E_UNIMPLEMENTED, "%s: %s has '%s'; only %s is offered", path,
                           key, kind != NULL ? kind : "(not a string)", want);
    }
    return LW_OK;
}

/** Keys that would change the arithmetic in ways that this decoder does not have. */
static lw_status check_kind(const json_t *o, const char *path, lw_err *err)
{
    static const char *const statistics[] = { "latents_mean", "latents_std" };
    const char *cls = lw_json_str(o, path, "_class_name", "AutoencoderKL", err);
    const char *act = lw_json_str(o, path, "act_fn", "silu", err);

    if (err->code != LW_OK)
        return err->code;
    if (strcmp(cls, "AutoencoderKL") != 0)
        return lw_fail(err, LW_E_UNIMPLEMENTED,
                       "%s: _class_name is '%s'; this service decodes with AutoencoderKL (the vae "
                       "folder of the model)",
                       path, cls);
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return lw_fail(err, LW_E_UNIMPLEMENTED, "%s: act_fn is '%s'; only silu is offered", path,
                       act);
    for (size_t i = 0; i < LW_ARRAY_LEN(statistics); i++) {
        const json_t *v = json_object_get(o, statistics[i]);

        if (v != NULL && !json_is_null(v))
            return lw_fail(err, LW_E_UNIMPLEMENTED,
                           "%s: %s is set; latents with statistics per channel are not offered",
                           path, statistics[i]);
    }
    LW_TRY(only_kind(o, path, "down_block_types", "DownEncoderBlock2D", err));
    return only_kind(o, path, "up_block_types", "UpDecoderBlock2D", err);
}

static lw_status read_fields(const json_t *o, const char *path, lw_vae_config *c, lw_err *err)
{
    int64_t in, out, sample;

    in = lw_json_int(o, path, "in_channels", 1, MAX_CHANNELS, true, 3, err);
    out = lw_json_int(o, path, "out_channels", 1, MAX_CHANNELS, true, 3, err);
    c->n_blocks = lw_json_int_array(o, path, "block_out_channels", 1, MAX_CHANNELS, c->channels,
                                    LW_VAE_MAX_BLOCKS, err);
    c->layers_per_block =
        (int)lw_json_int(o, path, "layers_per_block", 1, MAX_LAYERS, true, 1, err);
    c->latent_channels = lw_json_int(o, path, "latent_channels", 1, MAX_LATENT, false, 0, err);
    c->groups =
        (int)lw_json_int(o, path, "norm_num_groups", 1, MAX_CHANNELS, true, DEFAULT_GROUPS, err);
    c->scaling_factor = lw_json_num(o, path, "scaling_factor", false, 0, err);
    /* Autoencoders before FLUX have no shift; diffusers writes null for them. */
    if (json_is_null(json_object_get(o, "shift_factor")))
        c->shift_factor = 0;
    else
        c->shift_factor = lw_json_num(o, path, "shift_factor", true, 0, err);
    sample = lw_json_int(o, path, "sample_size", 1, 65536, true, FLUX_SAMPLE_SIZE, err);
    c->quant_conv = lw_json_bool(o, path, "use_quant_conv", true, err);
    c->post_quant_conv = lw_json_bool(o, path, "use_post_quant_conv", true, err);
    c->mid_attention = lw_json_bool(o, path, "mid_block_add_attention", true, err);
    if (err->code != LW_OK)
        return err->code;
    if (c->n_blocks < 1)
        return lw_fail(err, LW_E_FORMAT, "%s: block_out_channels is empty", path);
    if (in != 3 || out != 3)
        return lw_fail(err, LW_E_UNIMPLEMENTED,
                       "%s: in_channels %lld, out_channels %lld; only pictures of 3 are offered",
                       path, (long long)in, (long long)out);
    c->tile = sample / lw_vae_downscale(c);
    return LW_OK;
}

lw_status lw_vae_config_load(const char *path, lw_vae_config *ret, lw_err *err)
{
    lw_err local = { 0 }; /* the getters are sticky: start from a clean one */
    lw_vae_config c = { 0 };
    json_t *o = NULL;
    lw_status s;

    s = lw_json_load(path, &o, &local);
    if (s == LW_OK && !json_is_object(o))
        s = lw_fail(&local, LW_E_FORMAT, "%s: expected a JSON object", path);
    if (s == LW_OK)
        s = check_kind(o, path, &local);
    if (s == LW_OK)
        s = read_fields(o, path, &c, &local);
    if (s == LW_OK)
        s = check(&c, path, &local);
    json_decref(o);
    if (s == LW_OK)
        *ret = c;
    else if (err != NULL)
        *err = local;
    return s;
}

/** Stored shape of a convolution kernel given by its diffusers name, or NULL. */
static const lw_tensor *kernel(const lw_weights *w, lw_vae_layout layout, int n_blocks,
                               const char *name)
{
    char stored[LW_VAE_NAME_BYTES];
    const lw_tensor *t;

    if (!lw_vae_stored_name(layout, n_blocks, name, stored, sizeof(stored)))
        return NULL;
    t = lw_weights_find(w, stored);
    return t != NULL && t->rank == 4 ? t : NULL;
}

/** First kernel of resnet r of decoder block b (0 = at latent size), or NULL. */
static const lw_tensor *up_kernel(const lw_weights *w, lw_vae_layout layout, int n_blocks, int b,
                                  int r)
{
    char name[LW_VAE_NAME_BYTES];

    snprintf(name, sizeof(name), "decoder.up_blocks.%d.resnets.%d.conv1.weight", b, r);
    return kernel(w, layout, n_blocks, name);
}

lw_status lw_vae_config_infer(const lw_weights *w, lw_vae_layout layout, lw_vae_config *ret,
                              lw_err *err)
{
    const char *path = lw_weights_path(w);
    const lw_tensor *conv_in = kernel(w, layout, 1, "decoder.conv_in.weight");
    lw_vae_config c = { .groups = DEFAULT_GROUPS,
                        .scaling_factor = FLUX_SCALING,
                        .shift_factor = FLUX_SHIFT };
    int n = 0, layers = 0;

    /* Block n-1 of a decoder of n blocks is the last one, whichever end a layout counts from. */
    while (n < LW_VAE_MAX_BLOCKS && up_kernel(w, layout, n + 1, layout == LW_VAE_BFL ? 0 : n, 0))
        n++;
    while (layers <= MAX_LAYERS && n > 0 && up_kernel(w, layout, n, 0, layers))
        layers++;
    if (conv_in == NULL || n == 0 || layers < 2)
        return lw_fail(
            err, LW_E_FORMAT,
            "%s: no decoder of an AutoencoderKL in it (looked for decoder.conv_in.weight "
            "and %s); give a VAE file such as ae.safetensors",
            path,
            layout == LW_VAE_BFL ? "decoder.up.0.block.1.conv1.weight"
                                 : "decoder.up_blocks.0.resnets.1.conv1.weight");
    c.n_blocks = n;
    c.layers_per_block = layers - 1;
    c.latent_channels = conv_in->shape[1];
    for (int b = 0; b < n; b++) {
        const lw_tensor *t = up_kernel(w, layout, n, n - 1 - b, 0);

        if (t == NULL || t->shape[0] < 1 || t->shape[0] > MAX_CHANNELS)
            return lw_fail(err, LW_E_FORMAT, "%s: decoder block %d has no usable first kernel",
                           path, n - 1 - b);
        c.channels[b] = t->shape[0];
    }
    if (c.latent_channels < 1 || c.latent_channels > MAX_LATENT)
        return lw_fail(err, LW_E_FORMAT,
                       "%s: decoder.conv_in.weight takes %lld channels; expected 1 to %d", path,
                       (long long)c.latent_channels, MAX_LATENT);
    c.quant_conv = kernel(w, layout, n, "quant_conv.weight") != NULL;
    c.post_quant_conv = kernel(w, layout, n, "post_quant_conv.weight") != NULL;
    c.mid_attention = lw_vae_has(w, layout, n, "decoder.mid_block.attentions.0.to_q.weight");
    c.tile = FLUX_SAMPLE_SIZE / lw_vae_downscale(&c);
    LW_TRY(check(&c, path, err));
    *ret = c;
    return LW_OK;
}
