#ifndef LW_ORCHESTRATE_ANALYSIS_PICTURES_H
#define LW_ORCHESTRATE_ANALYSIS_PICTURES_H

#include <jansson.h>
#include <stdio.h>

#include "common/arena.h"
#include "orchestrate/measure.h"

/* Pictures of one size, the others against the first. Named by letters, as in analysis.h. */

#define LW_PICTURES_MAX_FILES 16

typedef struct lw_pictures {
    int n_files, width, height;
    const char *paths[LW_PICTURES_MAX_FILES];
    const uint8_t *rgb[LW_PICTURES_MAX_FILES]; /* [height, width, 3] */
    lw_picture_measures each[LW_PICTURES_MAX_FILES];
    lw_pair_measures pairs[LW_PICTURES_MAX_FILES]; /* [i]: picture i against 0; [0] is not used */
    double
        gain; /* of difference pictures: what the largest channel's difference is multiplied by */
} lw_pictures;

/**
 * Read and measure 2 to LW_PICTURES_MAX_FILES PNG files; pixels lie in `a`. gain 0: so that the
 * largest difference of all has the brightest colour. Errors: those of lw_file_read, LW_E_FORMAT,
 * LW_E_TOO_LARGE (more than LW_MAX_FRAME_BYTES of pixels), LW_E_SHAPE (sizes differ; both are
 * named), LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_pictures_make(const char *const *paths, int n_files, double gain,
                                       lw_arena *a, lw_pictures *ret, lw_err *err);

void lw_pictures_print(const lw_pictures *p, FILE *out);
/** json_decref() it. Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_pictures_json(const lw_pictures *p, json_t **ret, lw_err *err);
/** Write the difference of picture `file` and the first. Errors: as lw_png_write. */
LW_MUST_USE lw_status lw_pictures_difference(const lw_pictures *p, int file, const char *path,
                                             lw_err *err);
/** Write a page with the pictures, their differences and measures. Errors: as lw_analysis_page. */
LW_MUST_USE lw_status lw_pictures_page(const lw_pictures *p, const json_t *json, const char *path,
                                       lw_err *err);

#endif
