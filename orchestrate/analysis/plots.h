#ifndef LW_ORCHESTRATE_ANALYSIS_PLOTS_H
#define LW_ORCHESTRATE_ANALYSIS_PLOTS_H

#include "orchestrate/analysis/compare.h"
#include "orchestrate/canvas.h"

/*
 * Measures as pictures. Files are named by letters, A for the first. Each function makes a canvas,
 * which the caller gives back; errors: LW_E_NOMEM.
 */

/** Cosine of every row of `a` (downwards) with every row of `b` (across); NaN is grey. */
LW_MUST_USE lw_status lw_plot_cosines(const lw_embedding *a, const lw_embedding *b, char name_a,
                                      char name_b, lw_canvas *ret, lw_err *err);

/** Mean absolute difference of each pair (downwards) over groups of at least `dim / 128`
 * neighbouring dimensions (across). The brightest colour is for the 99th percentile and above, so
 * that one dimension does not darken the rest. */
LW_MUST_USE lw_status lw_plot_differences(const lw_embedding *a, const lw_embedding *b,
                                          const lw_embedding_pair *pair, char name_a, char name_b,
                                          lw_canvas *ret, lw_err *err);

/** Rows of all files on the plane of the first two components. */
LW_MUST_USE lw_status lw_plot_pca(const lw_embedding *files, int n_files, const lw_pca *pca,
                                  lw_canvas *ret, lw_err *err);

/** Standard deviation of each dimension, a line a file, on a logarithmic axis; of dimensions that
 * share a pixel, the largest. */
LW_MUST_USE lw_status lw_plot_dimensions(const lw_embedding *files, const lw_embedding_stats *stats,
                                         int n_files, lw_canvas *ret, lw_err *err);

/** Largest difference of the channels of each pixel of two pictures [height, width, 3], times
 * `gain`, by the colour scale. */
LW_MUST_USE lw_status lw_plot_pixels(const uint8_t *a, const uint8_t *b, int width, int height,
                                     double gain, lw_canvas *ret, lw_err *err);

#endif
