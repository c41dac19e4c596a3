#ifndef LW_COMMON_CPU_PANEL_H
#define LW_COMMON_CPU_PANEL_H

/*
 * Matrix products in f32, in pieces that stay in the caches: rows times a panel, which is a few
 * columns beside each other and is as wide as two registers. Linear layers widen their weights into
 * panels (linear.c), convolutions transform their filters into them (winograd.c).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/dtype.h"

/* Panels are so wide at most; their widths divide this. */
#define LW_PANEL_MAX 32

/** The inner loops of one instruction set (panel_isa.c). */
typedef struct lw_panel_isa {
    const char *name;
    int rows;  /* of which the sums with a panel fill the registers */
    int width; /* of a panel */
    /**
     * u [n][width] f32 = items [0, n) of rows [0, n_rows) of w (f32, bf16 or f16; rows `stride`
     * items apart), transposed; zeros beyond n_rows, which is at most `width`.
     */
    void (*pack)(float *u, const void *w, lw_dtype dtype, int64_t stride, int64_t n_rows,
                 int64_t n);
    /**
     * y [n_rows, width] = (or +=) x [n_rows, n] u; rows ldy and ldx items apart. Each sum of n
     * products is one chain of f32 additions, added to y at its end.
     */
    void (*product)(float *y, int64_t ldy, const float *x, int64_t ldx, const float *u,
                    int64_t n_rows, int64_t n, bool accumulate);
} lw_panel_isa;

extern const lw_panel_isa lw_panel_baseline;
#ifdef LW_HAVE_X86_LEVELS
extern const lw_panel_isa lw_panel_avx2;
extern const lw_panel_isa lw_panel_avx512;
#endif

#endif
