#ifndef LW_COMMON_BENCH_H
#define LW_COMMON_BENCH_H

/*
 * How fast this machine runs the operations that the models are made of, at the sizes of the real
 * model, each beside what the machine can do at best. The machine may be shared, so that ceiling is
 * measured in turn with the operation, before and after every run of it, and both are told by their
 * medians.
 *
 * Plain numbers go in and come out: a caller needs to know nothing of kernels.
 * Thread rule: one thread at a time.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

typedef enum lw_bench_op {
    LW_BENCH_LINEAR,      /* bf16 weights, f32 arithmetic */
    LW_BENCH_LINEAR_INT8, /* packed weights; the rotation and rounding of its rows counts too */
    LW_BENCH_ATTENTION,
    LW_BENCH_ATTENTION_CAUSAL, /* the encoder's: a quarter as many heads of keys and values */
    LW_BENCH_CONV2D,           /* 3 x 3 with f32 weights */
    LW_BENCH_GROUP_FACTORS,
    LW_BENCH_RMSNORM,
    LW_BENCH_ADD_RMSNORM,
    LW_BENCH_LAYERNORM,
    LW_BENCH_QK_NORM_ROPE,
    LW_BENCH_SWIGLU,
    LW_BENCH_INT8_ROWS, /* what LINEAR_INT8 does to its rows before the product */
    LW_N_BENCH_OPS
} lw_bench_op;

/** One operation at one size. */
typedef struct lw_bench_case {
    lw_bench_op op;
    int64_t n; /* tokens; height and width of a picture */
    int64_t a; /* inputs, heads, channels, or the width of a row */
    int64_t b; /* outputs, width of a head, or output channels; 0: none */
} lw_bench_case;

/** What bounds an operation; its rates are GFLOP/s, GOP/s, GB/s and GB/s (1e9 a second). */
typedef enum lw_bench_bound {
    LW_BENCH_MULTIPLY_ADD, /* f32 multiply-adds in registers */
    LW_BENCH_DOT_PRODUCT,  /* 8-bit dot products in registers */
    LW_BENCH_READ,         /* reading memory: a product with one row reads all weights once */
    LW_BENCH_COPY          /* reading and writing memory */
} lw_bench_bound;

typedef struct lw_bench_result {
    int n_runs;
    double median_ms, min_ms;
    double rate;    /* lw_bench_work / median_ms, in the unit of the bound */
    double ceiling; /* median, the same unit; 0: not known (no instruction for it) */
} lw_bench_result;

/** The cases that are measured, in the order of a report. */
const lw_bench_case *lw_bench_cases(size_t *ret_n);

/** "linear int8"; "352 tokens, 3840 -> 10240" into buf, which it returns. */
const char *lw_bench_name(lw_bench_op op);
const char *lw_bench_shape(const lw_bench_case *c, char *buf, size_t buf_bytes);
/** The layers that lw_precision chooses between. */
bool lw_bench_is_f32_linear(const lw_bench_case *c);
bool lw_bench_is_int8_linear(const lw_bench_case *c);

lw_bench_bound lw_bench_bound_of(const lw_bench_case *c);
/**
 * What a case takes, by what bounds it: floating-point or integer operations, two a product, of the
 * textbook algorithm (a convolution that saves multiplications may pass its ceiling); or the bytes
 * that must be read and written, each once.
 */
double lw_bench_work(const lw_bench_case *c);

typedef struct lw_bench lw_bench;

/** threads 0: all cores. Errors: those of lw_pool_create and lw_kernels_init_cpu. */
LW_MUST_USE lw_status lw_bench_open(int threads, lw_bench **ret, lw_err *err);
/** NULL-safe. */
void lw_bench_close(lw_bench **b);
int lw_bench_threads(const lw_bench *b);
/** "onednn 2.6.3 avx512_core_bf16"; lives as long as `b`. */
const char *lw_bench_backend(const lw_bench *b);

/** Instructions that our own loops use here, f32 and 8-bit: "avx512", "avx512vnni". Static. */
const char *lw_bench_isa_f32(void);
const char *lw_bench_isa_int8(void);

/**
 * Run a case at least five times and for about half a second, on random numbers in memory of its
 * own. Errors: LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_bench_run(lw_bench *b, const lw_bench_case *c, lw_bench_result *ret,
                                   lw_err *err);

#endif
