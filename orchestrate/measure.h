#ifndef LW_ORCHESTRATE_MEASURE_H
#define LW_ORCHESTRATE_MEASURE_H

#include <stdint.h>

#include "common/err.h"

/*
 * Measures of pictures, and of one picture against another, over RGB pixels [height, width, 3].
 * Each is checked against NumPy or scikit-image (tests/unit/test_measure.c, tests/interop).
 * Luminance is Y = 0.299 R + 0.587 G + 0.114 B of the stored values, 0..255. All sums are exact or
 * in double.
 */

/** What can be said of one picture. */
typedef struct lw_picture_measures {
    double luminance;     /* mean of Y / 255, 0..1 */
    double contrast;      /* standard deviation of Y / 255 over all pixels, 0..0.5 */
    double colourfulness; /* of 0..255, by Hasler and Suesstrunk 2003 (their M3): with
                             rg = R - G and yb = (R + G) / 2 - B,
                             sqrt(var rg + var yb) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2) */
    double sharpness; /* variance of the Laplacian of Y (up + down + left + right - 4 centre), the
                         outermost pixels left out; 0 when a side is below 3 */
} lw_picture_measures;

lw_picture_measures lw_measure_picture(const uint8_t *rgb, int width, int height);

/** One picture against another of the same size. */
typedef struct lw_pair_measures {
    double psnr_db;    /* peak 255, over all channels; infinite when equal */
    double ssim;       /* Wang et al. 2004 on Y: 11x11 Gaussian window, sigma 1.5, population
                          covariance, mean over the windows that lie inside; as
                          skimage.metrics.structural_similarity with gaussian_weights=True,
                          use_sample_covariance=False, data_range=255. NaN when a side is below
                          11. */
    double mean_abs;   /* mean absolute difference over all channels, of 255 */
    int largest;       /* of any channel, 0..255 */
    uint64_t n_pixels; /* of each picture */
    uint64_t n_differ; /* pixels with a channel that differs */
} lw_pair_measures;

/** Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_measure_pair(const uint8_t *a, const uint8_t *b, int width, int height,
                                      lw_pair_measures *ret, lw_err *err);

#endif
