#ifndef LW_TESTS_KERNELS_HARNESS_H
#define LW_TESTS_KERNELS_HARNESS_H

/*
 * The frame of the kernel tests. A case is a function of a seed: it draws shapes and inputs, runs
 * one operation on whatever back end it is given, and returns the output. Run again with the same
 * seed on another back end it makes the same inputs, so outputs can be compared. Every buffer that
 * an operation writes lies between sentinels, and gaps between the rows of a view are sentinels
 * too.
 */

#include <stddef.h>

#include "common/kernels.h"

typedef struct kt_rng {
    uint64_t s;
} kt_rng;

uint64_t kt_u64(kt_rng *r);
/** Integer in [lo, hi]. */
int64_t kt_int(kt_rng *r, int64_t lo, int64_t hi);
/** Roughly normal, standard deviation 1. */
float kt_normal(kt_rng *r);

#define KT_MAX_BUFFERS 16

/** One run of one operation. Buffers are freed by kt_run_end. */
typedef struct kt_run {
    lw_kernels *k;
    kt_rng rng;
    lw_arena arena; /* for *_prepare */
    struct {
        char *base;
        size_t bytes;
        lw_tensor view;
        bool guarded;
    } buf[KT_MAX_BUFFERS];
    int n_buf;
    char shape[160]; /* what was drawn, for messages */
} kt_run;

void kt_run_begin(kt_run *r, lw_kernels *k, uint64_t seed);
/** Frees buffers; returns false when a sentinel was touched. */
bool kt_run_end(kt_run *r);

/** Random values of any float dtype; row stride is the width plus a random gap when `strided`. */
lw_tensor kt_input(kt_run *r, lw_dtype dtype, int rank, const int64_t *shape, float mean, float sd,
                   bool strided);
lw_tensor kt_vector(kt_run *r, int64_t n, float mean, float sd);
/** An output: NaN inside (so an item that is not written is seen), sentinels around. */
lw_tensor kt_output(kt_run *r, lw_dtype dtype, int rank, const int64_t *shape, bool strided);
/** An output that starts with random values, for operations in place. */
lw_tensor kt_inout(kt_run *r, int rank, const int64_t *shape, float mean, float sd, bool strided);

/** One operation under test. */
typedef struct kt_op {
    const char *name;
    /** Draws a case, runs it, and returns the view of the output (still owned by the run). */
    lw_tensor (*run)(kt_run *r);
    /* |got - want| <= bound * (|want| + rms(want)) for every item; 0: the same bits. */
    double bound;
    const char *reason;
    int n_cases;
    size_t slot; /* offset of the operation in lw_kernels */
} kt_op;

extern const kt_op kt_ops[];
extern const int kt_n_ops;

#endif
