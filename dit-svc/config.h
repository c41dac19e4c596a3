#ifndef LW_DIT_CONFIG_H
#define LW_DIT_CONFIG_H

#include "common/weights.h"

#define LW_DIT_MAX_LAYERS 512
#define LW_DIT_MAX_SIDE   8192 /* pixels; the reference's tables hold 512 tokens on a side */
#define LW_DIT_SEQ_MULTI  32   /* image and caption are padded to multiples of this */

/** What an S3-DiT is, as in diffusers' transformer/config.json of Z-Image. */
typedef struct lw_dit_config {
    int64_t dim; /* D */
    int n_layers, n_refiner;
    int heads;            /* H; plain multi-head attention */
    int64_t head_dim;     /* D / H */
    int64_t cap_dim;      /* width of a caption row */
    int64_t channels;     /* of the latents */
    int patch;            /* latent pixels on a side of a token */
    int64_t axes_dims[3]; /* head channels rotated by text position, row, column */
    int64_t axes_lens[3]; /* positions that the reference's tables hold */
    double rope_theta, t_scale;
    float norm_eps;
    /* from the tensors */
    int64_t ffn;      /* hidden width of the feed-forward network */
    int64_t adaln;    /* width of the time embedding */
    int64_t t_freq;   /* width of its sinusoid */
    int64_t t_hidden; /* middle of its MLP */
} lw_dit_config;

/** Most caption rows: padded caption positions 1..Lc, and the image's at Lc + 1, fit the table. */
static inline int64_t lw_dit_max_caption(const lw_dit_config *c)
{
    return (c->axes_lens[0] - 2) / LW_DIT_SEQ_MULTI * LW_DIT_SEQ_MULTI;
}

/** How tensors are named and joined in the file. */
typedef enum lw_dit_layout {
    LW_DIT_DIFFUSERS, /* to_q, to_k, to_v apart; all_x_embedder.2-1 */
    LW_DIT_SINGLE     /* attention.qkv joined; x_embedder (ComfyUI, original) */
} lw_dit_layout;

/** Which layout, from the names. Errors: LW_E_FORMAT when it is no such model. */
LW_MUST_USE lw_status lw_dit_layout_detect(const lw_weights *w, lw_dit_layout *ret, lw_err *err);

/**
 * The configuration from a config.json, or, with config_path NULL, worked out from the tensors'
 * shapes with Z-Image's values for what shapes do not tell (rope_theta 256, eps 1e-5, t_scale 1000,
 * axes in the proportion 1 : 1.5 : 1.5, tables of 1536, 512, 512). Widths that only tensors tell
 * are read either way. Errors: those of lw_json_load; LW_E_FORMAT, LW_E_UNIMPLEMENTED naming the
 * key or tensor.
 */
LW_MUST_USE lw_status lw_dit_config_load(const char *config_path, const lw_weights *w,
                                         lw_dit_layout layout, lw_dit_config *ret, lw_err *err);

#endif
