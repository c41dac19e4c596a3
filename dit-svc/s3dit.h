#ifndef LW_DIT_S3DIT_H
#define LW_DIT_S3DIT_H

#include "common/kernels.h"
#include "dit-svc/config.h"

/*
 * S3-DiT, the denoiser of Z-Image. Source: ZImageTransformer2DModel of diffusers; docs/numerics.md
 * lists what is easily mistaken.
 */

typedef struct lw_dit lw_dit;

/**
 * Load a model: a Hugging Face model folder (its transformer/ inside), that folder itself, or a
 * single file in the diffusers or the original layout. Matrices are kept as `keep` says; k must
 * outlive the model. Errors: those of lw_weights_open, lw_dit_config_load and the getters of
 * common/weights.h.
 */
LW_MUST_USE lw_status lw_dit_create(const char *path, lw_keep keep, lw_kernels *k, lw_dit **ret,
                                    lw_err *err);
void lw_dit_destroy(lw_dit **m);
const lw_dit_config *lw_dit_get_config(const lw_dit *m);
/** True when layers run in 8 bits: the file has them packed, or k->precision asked for it. */
bool lw_dit_is_int8(const lw_dit *m);
/** Which matrices of a file are the large ones (lw_bulk_parts of common/linears.h). */
int lw_dit_bulk_parts(const char *name);
/** Write the weights of `model`, a path as for lw_dit_create, to `out` packed in 8 bits; see
 * lw_convert. */
LW_MUST_USE lw_status lw_dit_convert(const char *model, const char *out, lw_pool *pool,
                                     void (*progress)(size_t done, size_t total), lw_err *err);
/** Fingerprint of the weights, see lw_weights_digest. */
LW_MUST_USE lw_status lw_dit_digest(const lw_dit *m, char ret_hex[65], lw_err *err);

/** The captions of a run: what is asked for, and what guidance steers away from. */
enum { LW_DIT_POSITIVE, LW_DIT_NEGATIVE, LW_DIT_N_CAPTIONS };

/** Rows and columns of latents (even), rows of each caption (0 = absent), number of steps. */
typedef struct lw_dit_shape {
    int64_t h, w;
    int64_t n_caption[LW_DIT_N_CAPTIONS];
    int n_steps;
} lw_dit_shape;

/** Called between blocks; false stops the pass with LW_E_CANCELLED. NULL: never stops. */
typedef struct lw_dit_watch {
    bool (*keep_going)(void *arg);
    void *arg;
} lw_dit_watch;

/** What every step of one request shares: refined captions, modulation of each step, rotations,
 * buffers. */
typedef struct lw_dit_run lw_dit_run;

/** Bytes that lw_dit_begin will take from its arena. The shape's numbers are within the limits
 * below. */
size_t lw_dit_run_bytes(const lw_dit *m, const lw_dit_shape *s);

/**
 * Prepare a run. t [n_steps]: the network's time at each step. captions: [n, cap_dim] f32, finite;
 * they are overwritten. All memory comes from `a`, and no later call allocates.
 * Errors: LW_E_SHAPE (latents odd, too large; caption empty, too long or of another width; naming
 * the numbers), LW_E_NOMEM, LW_E_CANCELLED.
 */
LW_MUST_USE lw_status lw_dit_begin(lw_dit *m, lw_arena *a, const lw_dit_shape *s, const float *t,
                                   const lw_tensor captions[LW_DIT_N_CAPTIONS],
                                   const lw_dit_watch *watch, lw_dit_run **ret, lw_err *err);

/**
 * One evaluation: out [C, h, w] f32 = network(z [C, h, w] f32, t[step], caption), about clean -
 * noise, not negated. Errors: LW_E_CANCELLED, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_dit_forward(lw_dit_run *r, int step, int caption, const lw_tensor *z,
                                     lw_tensor *out, const lw_dit_watch *watch, lw_err *err);

/** cos and sin [dim/2] of positions (text, row, column), for tests. */
void lw_dit_rope_row(const lw_dit_config *c, const int64_t pos[3], float *cos_row, float *sin_row);
/** The sinusoid of a time, [t_freq], for tests. */
void lw_dit_time_features(const lw_dit_config *c, float t, float *ret);

#endif
