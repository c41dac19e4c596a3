#ifndef LW_VAE_MODEL_H
#define LW_VAE_MODEL_H

#include "vae-svc/autoencoder.h"

/*
 * The weights in memory, shaped as the network is; shared by load.c, which fills it, and
 * autoencoder.c, which walks it.
 */

/** Group norm over c channels. */
typedef struct lw_vae_norm {
    lw_tensor w, b;
} lw_vae_norm;

/** A convolution and the channels it takes and gives. */
typedef struct lw_vae_conv {
    lw_conv2d op;
    int64_t c_in, c_out;
} lw_vae_conv;

typedef struct lw_vae_resnet {
    lw_vae_norm norm1, norm2;
    lw_vae_conv conv1, conv2;
    lw_vae_conv shortcut; /* 1x1, only where the channel count changes */
    bool has_shortcut;
} lw_vae_resnet;

typedef struct lw_vae_attention {
    lw_vae_norm norm;
    lw_linear q, k, v, out;
} lw_vae_attention;

/** A run of resnets at one size; all but the last block of a half then change the size. */
typedef struct lw_vae_block {
    lw_vae_resnet *resnets;
    int n_resnets;
    lw_vae_conv resample;
    bool has_resample;
} lw_vae_block;

/** The decoder or the encoder: the same parts in another order. */
typedef struct lw_vae_half {
    lw_vae_conv conv_in, conv_out;
    lw_vae_resnet mid[2];
    lw_vae_attention attention;
    bool has_attention;
    lw_vae_block blocks[LW_VAE_MAX_BLOCKS];
    int n_blocks;
    lw_vae_norm norm_out;
    lw_vae_conv quant; /* 1x1 on the latent side, where the model has one */
    bool has_quant;
} lw_vae_half;

/* Output positions of a strip, where a convolution writes over what it reads: enough that the
 * filters, transformed anew for each, do not count. */
#define LW_VAE_STRIP_POSITIONS 32768

struct lw_vae {
    lw_vae_config config;
    int64_t strip_positions; /* LW_VAE_STRIP_POSITIONS; results do not depend on it */
    lw_kernels *k;
    lw_weights *weights;
    lw_vae_layout layout;
    lw_arena arena; /* the weights as the kernels want them */
    lw_vae_half decoder, encoder;
    bool encoder_tried; /* loading it was tried, and this is what came of it */
    lw_err encoder_err;
};

#endif
