#ifndef LW_VAE_NAMES_H
#define LW_VAE_NAMES_H

#include "common/weights.h"

#define LW_VAE_NAME_BYTES 160

/** The two ways in which the tensors of this autoencoder are named. */
typedef enum lw_vae_layout {
    LW_VAE_DIFFUSERS, /* vae/diffusion_pytorch_model.safetensors */
    LW_VAE_BFL        /* ae.safetensors as Black Forest Labs published it; ComfyUI's files */
} lw_vae_layout;

/**
 * Which layout a file has, by the norm before the decoder's last convolution, which the two name
 * differently. Errors: LW_E_FORMAT when neither name is there.
 */
LW_MUST_USE lw_status lw_vae_layout_detect(const lw_weights *w, lw_vae_layout *ret, lw_err *err);

/**
 * Stored name of a tensor given by its diffusers name. n_blocks is needed because the BFL layout
 * counts the decoder's blocks from the other end. False when it does not fit in ret.
 */
bool lw_vae_stored_name(lw_vae_layout layout, int n_blocks, const char *name, char *ret,
                        size_t ret_bytes);

/** True when the file has the tensor of that diffusers name. */
bool lw_vae_has(const lw_weights *w, lw_vae_layout layout, int n_blocks, const char *name);

#endif
