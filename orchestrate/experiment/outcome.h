#ifndef LW_ORCHESTRATE_EXPERIMENT_OUTCOME_H
#define LW_ORCHESTRATE_EXPERIMENT_OUTCOME_H

#include <jansson.h>

#include "common/arena.h"
#include "orchestrate/picture.h"

/*
 * The folder of an experiment that has run, as the report and the contact sheet read it:
 * results.json (docs/experiments.md has its keys) and the pictures in cells/. Nothing in it is
 * trusted: a cell that does not fit the axes is an error, and the only files that a cell can name
 * are those in cells/.
 */

typedef struct lw_outcome {
    const char *dir;
    json_t *root; /* owned; the rest points into it */
    json_t *axes, *cells;
    const char *name, *title; /* title: the name when there is none */
} lw_outcome;

#define LW_OUTCOME_MAX_AXES 16

/**
 * Read and check DIR/results.json; dir must outlive it. lw_outcome_deinit afterwards. Errors: those
 * of lw_json_load; LW_E_FORMAT, which names the key.
 */
LW_MUST_USE lw_status lw_outcome_load(const char *dir, lw_outcome *ret, lw_err *err);
/** Safe on a zeroed outcome. */
void lw_outcome_deinit(lw_outcome *o);

/** Name of an axis, the title that people read (the name when there is none), its number of values
 * and one of them. */
const char *lw_outcome_axis_name(const lw_outcome *o, size_t axis);
const char *lw_outcome_axis_title(const lw_outcome *o, size_t axis);
size_t lw_outcome_n_values(const lw_outcome *o, size_t axis);
const char *lw_outcome_value(const lw_outcome *o, size_t axis, size_t value);
/** Which value of an axis a cell has. */
size_t lw_outcome_at(const lw_outcome *o, const json_t *cell, size_t axis);

/** True when the cell says that it has a picture. */
bool lw_outcome_done(const json_t *cell);
/** Read the picture of such a cell and its pixels ([height, width, 3], in `a`); lw_picture_deinit
 * afterwards, also after a failure. Errors: those of lw_picture_read and lw_picture_pixels. */
LW_MUST_USE lw_status lw_outcome_picture(const lw_outcome *o, const json_t *cell, lw_arena *a,
                                         lw_picture *ret, const uint8_t **ret_rgb, lw_err *err);

#endif
