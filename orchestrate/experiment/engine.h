#ifndef LW_ORCHESTRATE_EXPERIMENT_ENGINE_H
#define LW_ORCHESTRATE_EXPERIMENT_ENGINE_H

#include "orchestrate/experiment/grid.h"

/*
 * Runs an experiment into a folder (docs/experiments.md): each cell becomes a picture in cells/,
 * once. What is whole in there and was made by the same request with the same weights is not made
 * again, so a run that was stopped, by whatever, goes on where it was. All files are written
 * atomically.
 */

typedef struct lw_experiment_params {
    const lw_settings *place; /* where the jobs run; quiet, json, templates */
    const char *dir;          /* is made when it is not there */
    int64_t limit;            /* cells to make in this run; 0: all */
} lw_experiment_params;

typedef struct lw_experiment_counts {
    int cells, found, made, failed; /* found: were there already */
    lw_status first_code;           /* why the first failed cell failed */
    char first_error[LW_ERR_TEXT_BYTES];
} lw_experiment_counts;

/**
 * Make what is missing, then write results.json, results.csv, contact.png and report.html. Cells
 * that fail are recorded and counted, and are no error. Errors: those of lw_run_open and
 * lw_run_jobs (LW_E_CANCELLED after Ctrl-C: the folder can be continued), LW_E_PRECONDITION
 * (another run is at work in the folder), LW_E_IO, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_experiment_run(const lw_grid *g, lw_grid_cell *cells,
                                        const lw_experiment_params *p, lw_experiment_counts *ret,
                                        lw_err *err);

#endif
