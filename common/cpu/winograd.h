#ifndef LW_COMMON_CPU_WINOGRAD_H
#define LW_COMMON_CPU_WINOGRAD_H

/*
 * 3x3 convolutions of stride 1 with a quarter of the multiplications: Winograd's F(4x4, 3x3). A
 * tile of 6x6 pixels d gives 4x4 pixels y,
 *
 *     y = A^T [ sum over channels of (G g G^T) * (B^T d B) ] A
 *
 * where * multiplies item by item, so that the sums over channels are 36 matrix products. The
 * interpolation points are 0, +-1/sqrt 2, +-sqrt 2 and infinity: with them the f32 error is 1.7
 * times that of a direct sum (the customary 0, +-1, +-2: 3.6 times; rms, 256 channels).
 *
 * Source of the method: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cpu/cpu.h"

#define LW_WINO_IN     6 /* pixels a side that a tile reads ... */
#define LW_WINO_OUT    4 /* ... and writes */
#define LW_WINO_PLACES (LW_WINO_IN * LW_WINO_IN)

/* Channels must come in such multiples; the most of all instruction sets. */
#define LW_WINO_IN_STEP  16
#define LW_WINO_OUT_STEP 32

/** The inner loops of one instruction set (winograd_isa.c). */
typedef struct lw_wino_isa {
    const char *name;
    int panel; /* output channels beside each other in transformed filters: width of panel.h */
    /**
     * Filters of `panel` outputs, g [9][n_in][panel] f32, into u [n_in][panel] of each of the 36
     * places, `place` floats apart.
     */
    void (*filters)(float *u, int64_t place, const float *g, int64_t n_in);
    /** The pixels of a tile, [n_in] floats each, into v [n_in] of each place. */
    void (*input)(float *v, int64_t place, const float *const px[LW_WINO_PLACES], int64_t n_in);
    /**
     * m [n_out] of each place into 4x4 pixels [n_out], plus b [n_out] and the residual's pixels; b
     * and pr[0] may be NULL. Nothing is written where py[i] is NULL, and pr[i] is not read.
     */
    void (*output)(float *const py[LW_WINO_OUT * LW_WINO_OUT],
                   const float *const pr[LW_WINO_OUT * LW_WINO_OUT], const float *m, int64_t place,
                   const float *b, int64_t n_out);
} lw_wino_isa;

/** 3x3, stride 1, and channels in the multiples above. */
bool lw_cpu_winograd_fits(const lw_conv2d *c);
/**
 * As lw_kernels.conv2d, of convolutions that fit. Nothing is prepared: the filters are transformed
 * in every call, which takes about as long as 16 tiles, since in transformed form they are four
 * times (of bf16: eight times) as large.
 */
void lw_cpu_winograd(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_conv2d *c,
                     const lw_tensor *residual);

extern const lw_wino_isa lw_wino_baseline;
#ifdef LW_HAVE_X86_LEVELS
extern const lw_wino_isa lw_wino_avx2;
extern const lw_wino_isa lw_wino_avx512;
#endif

#endif
