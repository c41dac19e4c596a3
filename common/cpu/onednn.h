#ifndef LW_COMMON_CPU_ONEDNN_H
#define LW_COMMON_CPU_ONEDNN_H

/*
 * The little that we ask of oneDNN, in our own terms: no other file of the project includes its
 * header, so another major version of its API is a matter of onednn.c. Every call below runs on the
 * calling thread alone; splitting work is the pool's business.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

typedef struct lw_onednn lw_onednn;
typedef struct lw_onednn_conv lw_onednn_conv;       /* a convolution of one shape, ready to run */
typedef struct lw_onednn_weights lw_onednn_weights; /* filters in the library's own layout */

/** Errors: LW_E_NOMEM, LW_E_UNIMPLEMENTED (the library refuses this machine). */
LW_MUST_USE lw_status lw_onednn_create(int n_threads, lw_onednn **ret, lw_err *err);
void lw_onednn_destroy(lw_onednn **d);
/** "onednn 2.6.3 avx512_core_bf16" into buf. */
void lw_onednn_name(char *buf, size_t buf_bytes);

/**
 * C [m, n] = A [m, k] op(B) + beta C, all f32 row-major with row strides; op(B) is B [k, n], or the
 * transpose of B [n, k]. False when the library ran out of memory; C is then undefined.
 */
LW_MUST_USE bool lw_onednn_sgemm(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda,
                                 const float *b, int64_t ldb, bool b_transposed, float beta,
                                 float *c, int64_t ldc);

/** Shape of a convolution: x [h, w, c_in] to y [ho, wo, c_out], filters k x k. */
typedef struct lw_onednn_shape {
    int64_t h, w, c_in, ho, wo, c_out;
    int k, stride, pad_top, pad_left, pad_bottom, pad_right;
    bool bias;
    bool accumulate; /* y += instead of y = */
} lw_onednn_shape;

/**
 * Put filters w [c_out, k, k, c_in] f32 into the layout that the library wants for convolutions of
 * this kind, going by the sizes of `s`. lw_onednn_weights_bytes says how much memory that takes, 0
 * when the library has no fast convolution for it; the caller allocates and passes `mem`, 64-byte
 * aligned. False when the library failed.
 */
size_t lw_onednn_weights_bytes(lw_onednn *d, const lw_onednn_shape *s);
LW_MUST_USE bool lw_onednn_weights_pack(lw_onednn *d, const lw_onednn_shape *s, const float *w,
                                        void *mem, lw_onednn_weights **ret);

/**
 * The convolution of shape `s` with filters laid out as `w`, from a cache of bounded size; NULL
 * when the library has no fast one. `out_of_memory` tells a failure apart from that. Valid until
 * the next call of this function that finds the cache full. Caller's thread only.
 */
const lw_onednn_conv *lw_onednn_conv_get(lw_onednn *d, const lw_onednn_shape *s,
                                         const lw_onednn_weights *w, bool *out_of_memory);
size_t lw_onednn_conv_scratch_bytes(const lw_onednn_conv *c);
/** b: [c_out] when the shape says bias. False when the library ran out of memory. */
LW_MUST_USE bool lw_onednn_conv_run(const lw_onednn *d, const lw_onednn_conv *c, int thread,
                                    const lw_onednn_weights *w, const float *b, const float *x,
                                    float *y, void *scratch);

#endif
