#ifndef LW_COMMON_CPU_CPU_H
#define LW_COMMON_CPU_CPU_H

/*
 * What the CPU back ends share: their state behind lw_kernels.impl, scratch memory, and helpers to
 * read tensor views. Internal to common/cpu, common/kernels.c and the kernel tests.
 */

#include "common/kernels.h"

typedef struct lw_onednn lw_onednn;       /* onednn.c alone knows it */
typedef struct lw_vec lw_vec;             /* vec.h */
typedef struct lw_int8_isa lw_int8_isa;   /* int8.h */
typedef struct lw_panel_isa lw_panel_isa; /* panel.h */
typedef struct lw_wino_isa lw_wino_isa;   /* winograd.h */

/**
 * State of a CPU back end. Scratch only grows: after the first request of a shape, the second one
 * allocates nothing. It is reserved on the caller's thread before work is handed to the pool, so a
 * piece of work never allocates and never fails.
 */
typedef struct lw_cpu {
    int n_threads;
    char **thread_scratch; /* one buffer per thread of the pool, all thread_bytes long */
    size_t thread_bytes;
    char *shared_scratch; /* one buffer for the whole operation */
    size_t shared_bytes;
    size_t n_allocs; /* how often the back end asked the system for memory; tests watch it */
    const lw_vec *vec;
    const lw_int8_isa *int8;
    const lw_panel_isa *panel;
    const lw_wino_isa *wino;
    lw_onednn *dnn;
    char name[64];
} lw_cpu;

/** Allocate the state for `pool`. On failure k->impl is NULL and k->failed is set. */
void lw_cpu_state_create(lw_kernels *k, lw_pool *pool);
void lw_cpu_state_destroy(lw_kernels *k);

/**
 * Make sure that every thread has `bytes` of scratch (contents undefined, 64-byte aligned). False,
 * with k->failed set, when the system refuses.
 */
LW_MUST_USE bool lw_cpu_reserve(lw_kernels *k, size_t bytes);
/** The scratch of one thread, after lw_cpu_reserve. */
void *lw_cpu_scratch(const lw_kernels *k, int thread);
/** One buffer of `bytes` for the whole operation, or NULL with k->failed set. */
LW_MUST_USE void *lw_cpu_shared(lw_kernels *k, size_t bytes);

/** Record a failure of memory from any thread of the pool. */
static inline void lw_cpu_fail(lw_kernels *k)
{
    __atomic_store_n(&k->failed, LW_E_NOMEM, __ATOMIC_RELAXED);
}

/* Tables of operations, each in its own file; a later one replaces what it does better. */
void lw_cpu_add_ref(lw_kernels *k);
void lw_cpu_add_ref_image(lw_kernels *k);
/** Our own vectorised operations, with the given inner loops. */
void lw_cpu_add_native(lw_kernels *k, const lw_vec *vec);
/** Matrix products and convolutions through oneDNN, on top of the native table. */
LW_MUST_USE lw_status lw_cpu_add_onednn(lw_kernels *k, lw_err *err);
void lw_cpu_add_linear(lw_kernels *k);
void lw_cpu_add_attention(lw_kernels *k);
void lw_cpu_add_conv(lw_kernels *k);

/** lw_kernels.conv2d of the plain reference. */
void lw_cpu_ref_conv2d(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_conv2d *conv,
                       const lw_tensor *residual);

/**
 * y [n, width] = (or += when `accumulate`) x [n, n_in] times rows [o, o + width) of w [n_out,
 * n_in], on the calling thread. w is widened through `scratch` of lw_cpu_panel_bytes(cpu, w,
 * width).
 */
void lw_cpu_panel_product(const lw_cpu *cpu, int64_t n, const float *x, int64_t ldx,
                          const lw_tensor *w, int64_t o, int64_t width, bool accumulate, float *y,
                          int64_t ldy, float *scratch);
size_t lw_cpu_panel_bytes(const lw_cpu *cpu, const lw_tensor *w, int64_t width);

/** y = x w^T + b + residual; b and residual may be NULL, residual may be y. As lw_kernels.linear.
 */
void lw_cpu_linear(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_tensor *w,
                   const float *b, const lw_tensor *residual);

/** y[i] = x W_i^T + b_i of packed layers with the same inputs: x is quantised once. */
void lw_cpu_int8_linears(lw_kernels *k, int n, lw_tensor *const y[], const lw_tensor *x,
                         const lw_linear *const lin[]);
/** lw_kernels.linear_prepare and .linears of the CPU back ends. */
LW_MUST_USE lw_status lw_cpu_linear_prepare(lw_kernels *k, lw_linear *lin, lw_arena *a,
                                            lw_err *err);
void lw_cpu_linears(lw_kernels *k, int n, lw_tensor *const y[], const lw_tensor *x,
                    const lw_linear *const lin[]);

/**
 * Column c of the factors [3, C] of a group norm: (x - f[0]) * f[1] + f[2] is (x - mean) * a + b.
 * The mean is taken off in f32 before the multiplication, and what f32 lost of it is put into f[2],
 * so that a large mean costs no accuracy.
 */
static inline void lw_cpu_group_factor(float *f, int64_t C, int64_t c, double mean, double a,
                                       double b)
{
    f[c] = (float)mean;
    f[C + c] = (float)a;
    f[2 * C + c] = (float)(b - (mean - (double)f[c]) * a);
}

/** A vector counts as one row; a tensor of rank 2 or more has shape[0] rows. */
static inline int64_t lw_rows(const lw_tensor *t)
{
    return t->rank < 2 ? 1 : t->shape[0];
}

static inline int64_t lw_cols(const lw_tensor *t)
{
    int64_t n = 1;

    for (int i = t->rank < 2 ? 0 : 1; i < t->rank; i++)
        n *= t->shape[i];
    return n;
}

static inline float *lw_row(const lw_tensor *t, int64_t i)
{
    return (float *)t->data + i * t->stride0;
}

/** Row i of a matrix of any dtype. */
static inline const void *lw_row_any(const lw_tensor *t, int64_t i)
{
    return (const char *)t->data + (size_t)(i * t->stride0) * lw_dtype_size(t->dtype);
}

static inline int64_t lw_min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t lw_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

#endif
