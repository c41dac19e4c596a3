#ifndef LW_ENCODER_CONTROLS_H
#define LW_ENCODER_CONTROLS_H

#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"

/*
 * What can be done to rows of embeddings between the text encoder and the denoiser: pure functions
 * over f32 rows [n, d], row after row, without a model, so that any encoder can use them. Sums are
 * in f64 and in one order, whatever the number of threads. docs/numerics.md has the formulas, and
 * the order in which encoder-svc applies them.
 */

/** What becomes of rows beyond a limit. */
typedef enum lw_reduction {
    LW_REDUCE_NONE,        /* "truncate": tokens are cut before the network runs */
    LW_REDUCE_INTERPOLATE, /* linear along the rows */
    LW_REDUCE_POOL,        /* adaptive average */
    LW_REDUCE_ATTENTION    /* "attention_pool": the same, weighted by likeness to the mean row */
} lw_reduction;

/** The wire's name; -1 when it is none. */
int lw_reduction_from_name(const char *name);
/** "truncate", "interpolate", "pool", "attention_pool". */
const char *lw_reduction_name(lw_reduction r);

/** out[i] = sum over k of weights[k] states[k][i], for `count` values. out may be one of them. */
void lw_rows_sum(float *out, const float *const *states, const double *weights, int n_states,
                 size_t count);

/**
 * row_i = mean + w_i (row_i - mean), where mean is that of the n rows. A weight of exactly 1 leaves
 * the bits of its row. `scratch` [d].
 */
void lw_rows_weigh(float *rows, int64_t n, int64_t d, const float *weights, double *scratch);

/**
 * row_i += amount rms_i g_i: g from lw_rng_normal with `seed`, in the order of the rows, and rms_i
 * the root of the mean square of row_i - mean over its d values. A single row has no deviation and
 * stays; amount 0 leaves all bits. Errors: LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_rows_noise(float *rows, int64_t n, int64_t d, double amount, uint64_t seed,
                                    lw_arena *a, lw_err *err);

/**
 * out [m, d] from rows [n, d], n and m at least 1, also when m > n; the two do not overlap. NONE is
 * INTERPOLATE. For m = n INTERPOLATE and POOL give the same rows. `a`: for scratch.
 * Errors: LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_rows_resample(float *out, int64_t m, const float *rows, int64_t n,
                                       int64_t d, lw_reduction how, lw_arena *a, lw_err *err);

/**
 * Share of the variance of rows [n, d] that reduced [m, d] does not hold any more: the squared
 * distance between the rows and the reduced ones interpolated back to n, over that between the
 * rows and their mean; at most 1, and 0 when all rows are equal. `scratch` [d].
 */
double lw_rows_loss(const float *rows, int64_t n, const float *reduced, int64_t m, int64_t d,
                    double *scratch);

/** rows = (1 - share) rows + share other, for `count` values; share 0 leaves all bits. */
void lw_rows_blend(float *rows, const float *other, double share, size_t count);

#endif
