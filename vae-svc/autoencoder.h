#ifndef LW_VAE_AUTOENCODER_H
#define LW_VAE_AUTOENCODER_H

#include "common/kernels.h"
#include "common/weights.h"
#include "vae-svc/config.h"

/*
 * AutoencoderKL (the FLUX.1 autoencoder that Z-Image uses): latents to picture and back, written
 * against the operation table. Pictures and latents are [h, w, C] f32 here; the picture is in
 * [-1, 1] and not clamped. Source: docs/numerics.md; the reference is diffusers' AutoencoderKL.
 * Thread rule: one thread at a time.
 */
typedef struct lw_vae lw_vae;

/**
 * Load a model: `path` is a Hugging Face model folder (its vae/ is used), the vae folder itself, or
 * one safetensors file in either naming. config.json beside the weights is used when it is there.
 * Only the decoder is loaded; the encoder follows with lw_vae_load_encoder. Weights are kept as f32
 * (after rounding to bf16 when keep says so). `k` must outlive the model. Errors: those of
 * lw_weights_open and lw_vae_config_load; LW_E_NOT_FOUND or LW_E_SHAPE naming a tensor.
 */
LW_MUST_USE lw_status lw_vae_create(const char *path, lw_keep keep, lw_kernels *k, lw_vae **ret,
                                    lw_err *err);
/** NULL-safe; sets *v to NULL. */
void lw_vae_destroy(lw_vae **v);

const lw_vae_config *lw_vae_get_config(const lw_vae *v);
/** Fingerprint of the weights (see lw_weights_digest). */
LW_MUST_USE lw_status lw_vae_digest(const lw_vae *v, char ret_hex[65], lw_err *err);

/** Load the encoder unless it is loaded. Needed before the encode functions. Errors as create. */
LW_MUST_USE lw_status lw_vae_load_encoder(lw_vae *v, lw_err *err);

/** What a forward pass takes: bytes of activations, and blocks (for progress). */
typedef struct lw_vae_plan {
    size_t bytes;
    int n_blocks;
} lw_vae_plan;

/** Of decoding h x w latents. Computed by walking the network without computing; exact. */
lw_vae_plan lw_vae_plan_decode(const lw_vae *v, int64_t h, int64_t w);
/** Of encoding a picture of h x w pixels. */
lw_vae_plan lw_vae_plan_encode(const lw_vae *v, int64_t h, int64_t w);

/** Called after each block; returns false to stop the pass with LW_E_CANCELLED. */
typedef bool lw_vae_block_fn(void *arg, int block, int n_blocks);

/** block NULL: nobody watches. */
typedef struct lw_vae_watch {
    lw_vae_block_fn *block;
    void *arg;
} lw_vae_watch;

/**
 * image [h * downscale, w * downscale, 3] = decoder(z [h, w, latent_channels]), z already divided
 * and shifted. Takes lw_vae_plan_decode().bytes from scratch and gives them back. Errors:
 * LW_E_NOMEM, LW_E_CANCELLED.
 */
LW_MUST_USE lw_status lw_vae_decode(lw_vae *v, lw_arena *scratch, lw_tensor *image,
                                    const lw_tensor *z, const lw_vae_watch *watch, lw_err *err);

/**
 * moments [h / downscale, w / downscale, 2 * latent_channels] = encoder(image [h, w, 3]): means,
 * then logarithms of variances. h and w are multiples of the downscale. Errors as lw_vae_decode.
 */
LW_MUST_USE lw_status lw_vae_encode(lw_vae *v, lw_arena *scratch, lw_tensor *moments,
                                    const lw_tensor *image, const lw_vae_watch *watch, lw_err *err);

/**
 * z [C, h, w] = the latent that the moments [h, w, 2C] stand for, shifted and scaled for the
 * denoiser: mean, plus standard deviation times noise [C, h, w] unless noise is NULL. The log
 * variance is clamped to [-30, 20]. Source: DiagonalGaussianDistribution of diffusers.
 */
void lw_vae_posterior(const lw_vae *v, lw_tensor *z, const lw_tensor *moments,
                      const lw_tensor *noise);

#endif
