#ifndef LW_ORCHESTRATE_EXPERIMENT_SHEET_H
#define LW_ORCHESTRATE_EXPERIMENT_SHEET_H

#include "common/err.h"

/**
 * Make DIR/contact.png from DIR/results.json and the pictures in DIR/cells: a row for each value of
 * the first axis, a column for each of the second, a block for each combination of the others; a
 * single axis lies in one row. Labels stand at the sides, cells without a picture say why. Cells
 * shrink until the sheet is at most LW_PNG_MAX_SIDE on a side. The PNG has a text
 * "latentwire_experiment" with the experiment's name. Errors: those of lw_outcome_load and
 * lw_canvas_write; LW_E_TOO_LARGE (so many cells that they cannot be told apart any more).
 */
LW_MUST_USE lw_status lw_experiment_sheet(const char *dir, lw_err *err);

#endif
