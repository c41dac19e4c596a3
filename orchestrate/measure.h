#ifndef LW_ORCHESTRATE_MEASURE_H
#define LW_ORCHESTRATE_MEASURE_H

#include <stdint.h>

#include "common/err.h"

/*
 * Measures of pictures, and of one picture against another, over RGB pixels [height, width, 3].
 * Each is checked against NumPy or scikit-image (tests/unit/test_measure.c, tests/interop).
 */

/** What can be said of one picture. */
typedef struct lw_picture_measures {
    double luminance;    /* mean of 0.299 R + 0.587 G + 0.114 B, 0..1 */
    double contrast;     /* its standard deviation, 0..1 */
    double colourfulness; /* Hasler and Suesstrunk 2003, over 0..255 */
    double sharpness;    /* variance of the 3x3 Laplacian of the luminance (0..255), borders left out */
} lw_picture_measures;

lw_picture_measures lw_measure_picture(const uint8_t *rgb, int width, int height);

/** One picture against another of the same size. */
typedef struct lw_pair_measures {
    double psnr_db;  /* peak 255, over all channels; infinite when equal */
    double ssim;     /* Wang et al. 2004 on luminance: 11x11 Gaussian window, sigma 1.5, population
                        covariance, mean over the inside; as skimage.metrics.structural_similarity
                        with gaussian_weights, use_sample_covariance False, data_range 255. NaN when
                        a side is below 11. */
    double mean_abs; /* mean absolute difference, of 255 */
    int largest;     /* of any channel, 0..255 */
} lw_pair_measures;

/** Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_measure_pair(const uint8_t *a, const uint8_t *b, int width, int height,
                                      lw_pair_measures *ret, lw_err *err);

#endif
