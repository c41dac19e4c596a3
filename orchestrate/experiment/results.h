#ifndef LW_ORCHESTRATE_EXPERIMENT_RESULTS_H
#define LW_ORCHESTRATE_EXPERIMENT_RESULTS_H

#include "common/buf.h"
#include "orchestrate/experiment/grid.h"
#include "orchestrate/measure.h"

/* results.json and results.csv of an experiment (docs/experiments.md has the keys). */

/** The results of a grid none of whose cells is made. json_decref() it; NULL: no memory. */
json_t *lw_results_new(const lw_grid *g, const lw_grid_cell *cells);
/** DIR/results.json of an earlier run, or NULL. json_decref() it. */
json_t *lw_results_old(const char *dir);
/** Seconds that the cell of that id took in them; 0 when they do not say. */
double lw_results_seconds(const json_t *results, const char *id);
/** Add what compares a cell with its baseline. Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_results_set_pair(json_t *measures, const lw_pair_measures *m, lw_err *err);
/** A line of names, then one a cell: id, status, the axes, the settings, what was measured, error.
 * A full buffer shows in out->failed. */
void lw_results_csv(const json_t *results, lw_buf *out);

#endif
