#ifndef LW_VAE_CONFIG_H
#define LW_VAE_CONFIG_H

#include "common/weights.h"
#include "vae-svc/names.h"

#define LW_VAE_MAX_BLOCKS 8

/**
 * What an AutoencoderKL is, as in diffusers' vae/config.json. Pictures have 3 channels; blocks are
 * counted from the picture's side, so channels[0] is the width at full size and each further block
 * halves the picture.
 */
typedef struct lw_vae_config {
    int n_blocks;
    int64_t channels[LW_VAE_MAX_BLOCKS]; /* block_out_channels */
    int layers_per_block;                /* resnets of an encoder block; the decoder has one more */
    int64_t latent_channels;
    int groups;            /* norm_num_groups */
    double scaling_factor; /* decode z = x / scaling_factor + shift_factor */
    double shift_factor;
    int64_t tile;         /* latents on a side of a tile: sample_size / downscale */
    bool quant_conv;      /* a 1x1 convolution after the encoder */
    bool post_quant_conv; /* a 1x1 convolution before the decoder */
    bool mid_attention;
} lw_vae_config;

/** Picture pixels per latent pixel. */
static inline int64_t lw_vae_downscale(const lw_vae_config *c)
{
    return INT64_C(1) << (c->n_blocks - 1);
}

/**
 * Read a config.json. Errors: those of lw_json_load; LW_E_FORMAT or LW_E_INVALID for a key of the
 * wrong type or range; LW_E_UNIMPLEMENTED for an autoencoder of another kind (latent statistics,
 * other blocks, other activation), naming the key.
 */
LW_MUST_USE lw_status lw_vae_config_load(const char *path, lw_vae_config *ret, lw_err *err);

/**
 * Work the configuration out from the shapes of the decoder's tensors, for single files that come
 * without one. What shapes do not tell is FLUX.1's, which Z-Image uses: 32 groups, scaling 0.3611,
 * shift 0.1159, pictures of 1024. Errors: LW_E_FORMAT, naming the tensor that is missing or odd.
 */
LW_MUST_USE lw_status lw_vae_config_infer(const lw_weights *w, lw_vae_layout layout,
                                          lw_vae_config *ret, lw_err *err);

#endif
