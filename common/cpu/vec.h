#ifndef LW_COMMON_CPU_VEC_H
#define LW_COMMON_CPU_VEC_H

/*
 * Inner loops over one row, compiled once per instruction set from the same source (vec.c): the
 * compiler vectorises them, and the best table that the machine can run is picked at start.
 *
 * Rules: n >= 0; pointers need the alignment of their type only; y may be x where both are given
 * and have the same item index; otherwise nothing overlaps. A result depends on the instruction set
 * in its last bits, never on the thread or on the address.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/dtype.h"

typedef struct lw_vec {
    const char *isa; /* "baseline", "avx2", "avx512" */

    /** y [n] f32 = w [n] stored as f32, bf16 or f16. Exact. */
    void (*widen)(float *y, const void *w, lw_dtype dtype, int64_t n);

    /** y [n_rows] = W x + b: W [n_rows, n] of `dtype`, rows `stride` items apart; b or NULL. */
    void (*gemv)(float *y, const void *w, lw_dtype dtype, int64_t stride, int64_t n_rows,
                 const float *x, int64_t n, const float *b);

    /** Sum of x^2, and of (x - mean)^2: blocks in f32, added in f64. Sum of x, in f64. */
    double (*sum_sq)(const float *x, int64_t n);
    double (*sum_sq_dev)(const float *x, int64_t n, float mean);
    double (*sum)(const float *x, int64_t n);

    /** y = x * r * m. */
    void (*norm_scale)(float *y, const float *x, float r, const float *m, int64_t n);
    /** y = (x - mean - rest) * r * m: a mean in two parts, so that none of it is lost. */
    void (*norm_center)(float *y, const float *x, float mean, float rest, float r, const float *m,
                        int64_t n);
    /** y += x * r * m; y += x. */
    void (*norm_add)(float *y, const float *x, float r, const float *m, int64_t n);
    void (*add)(float *y, const float *x, int64_t n);
    /** y *= s. */
    void (*scale)(float *y, float s, int64_t n);

    /** One head x [d], in place: x * r * w, then pairs rotated by c, s [d/2]. */
    void (*rope_interleaved)(float *x, float r, const float *w, const float *c, const float *s,
                             int64_t d);
    void (*rope_half_split)(float *x, float r, const float *w, const float *c, const float *s,
                            int64_t d);

    /** p = exp(scale * p - max(scale * p)), scale > 0; returns the sum of p. n >= 1. */
    float (*softmax_exp)(float *p, float scale, int64_t n);

    /** y = silu(x); y = silu(gate) * up. */
    void (*silu)(float *y, const float *x, int64_t n);
    void (*swiglu)(float *y, const float *gate, const float *up, int64_t n);

    /**
     * Per channel c: sum[c] += x[.., c], sum_sq[c] += x[.., c]^2 over n_pos positions of C
     * channels.
     */
    void (*channel_sums)(double *sum, double *sum_sq, const float *x, int64_t n_pos, int64_t C);
    /** y = (x - mean[c]) * a[c] + b[c], then silu if asked, over n_pos positions of C channels. */
    void (*channel_affine)(float *y, const float *x, const float *mean, const float *a,
                           const float *b, int64_t n_pos, int64_t C, bool silu);

    /**
     * For measurements (ceiling.h): `turns` rounds of multiply-adds that wait for nothing, as wide
     * as the widest registers. Returns the number of floating-point operations, two each.
     */
    double (*multiply_adds)(int64_t turns);
    /** For measurements: reads p [n]; the bits of all of them, or'ed. */
    uint32_t (*read)(const uint32_t *p, int64_t n);
} lw_vec;

/**
 * The highest instruction set that may be used: LATENTWIRE_ISA=baseline|avx2|avxvnni|avx512, for
 * tests and for machines on which a newer one computes wrong numbers. Another value means none;
 * lw_kernels_init_cpu refuses it.
 */
typedef enum lw_isa {
    LW_ISA_BASELINE,
    LW_ISA_AVX2,
    LW_ISA_AVXVNNI,
    LW_ISA_AVX512,
    LW_N_ISAS
} lw_isa;
lw_isa lw_isa_cap(void);
/** The value of LATENTWIRE_ISA if it is none of the above, else NULL. */
const char *lw_isa_unknown(void);

/** Number of tables that this machine can and may run, baseline first; lw_vec_level(i) gives one.
 */
int lw_vec_levels(void);
const lw_vec *lw_vec_level(int i);
/** The last of them. */
const lw_vec *lw_vec_best(void);

extern const lw_vec lw_vec_baseline;
#ifdef LW_HAVE_X86_LEVELS
extern const lw_vec lw_vec_avx2;
extern const lw_vec lw_vec_avx512;
#endif

#endif
