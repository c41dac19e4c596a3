#ifndef LW_ORCHESTRATE_EXPERIMENT_GRID_H
#define LW_ORCHESTRATE_EXPERIMENT_GRID_H

#include <jansson.h>

#include "orchestrate/job.h"

/*
 * An experiment as its YAML file declares it (docs/experiments.md): settings that hold for all
 * pictures, and axes whose values are combined into cells. Prompts and seeds are axes too. The file
 * is not trusted: common/yaml.h bounds it, and what is not known is refused at its line.
 */

#define LW_GRID_MAX_CELLS       4096
#define LW_GRID_MAX_AXES        16
#define LW_GRID_MAX_FILE_BYTES  (256u * 1024)
#define LW_GRID_MAX_LABEL_BYTES 64
#define LW_GRID_ID_CHARS        16

/** An option of `generate` by its long name, "prompt" or "seed", and its value as text. */
typedef struct lw_grid_setting {
    const char *name, *text;
    int line;
} lw_grid_setting;

typedef struct lw_grid_value {
    const char *label; /* no other value of the axis has it */
    lw_grid_setting *settings;
    int n, line;
} lw_grid_value;

typedef struct lw_grid_axis {
    const char *name, *title; /* title: NULL when there is none */
    lw_grid_value *values;
    int n, line;
} lw_grid_axis;

typedef struct lw_grid {
    const char *path;
    const char *name, *title, *description, *question; /* title: the name when there is none */
    lw_grid_value base;                                /* of all cells */
    lw_grid_axis axes[LW_GRID_MAX_AXES];               /* in order; then "prompt", then "seed" */
    int n_axes;
    int baseline[LW_GRID_MAX_AXES]; /* a value of each axis, -1: whichever the cell has */
    bool has_baseline;
    int n_cells;
    const char *text; /* of the file */
    size_t n_text;
} lw_grid;

/** One cell, ready to be asked for. */
typedef struct lw_grid_cell {
    char id[LW_GRID_ID_CHARS + 1]; /* of BLAKE2b-256 of `settings` as text with sorted keys */
    int at[LW_GRID_MAX_AXES];      /* a value of each axis */
    json_t *settings;              /* owned */
    lw_picture_job job;
} lw_grid_cell;

/**
 * Read a file. `set` has "option=value" texts that replace the file's settings. Everything lies in
 * `a`. Errors: those of lw_file_read and lw_yaml_parse; LW_E_FORMAT with "path:line: reason",
 * LW_E_INVALID (a text of `set`).
 */
LW_MUST_USE lw_status lw_grid_load(const char *path, const lw_opt_list *set, lw_arena *a,
                                   lw_grid *ret, lw_err *err);

/** Which value of each axis cell i has: the last axis varies fastest. */
void lw_grid_at(const lw_grid *g, int i, int at[LW_GRID_MAX_AXES]);
/** The cell with these values. */
int lw_grid_index(const lw_grid *g, const int at[LW_GRID_MAX_AXES]);
/** "think=on, prompt=red-circle, seed=1", in `a`; NULL: no memory. */
const char *lw_grid_describe(const lw_grid *g, const int at[LW_GRID_MAX_AXES], lw_arena *a,
                             lw_err *err);

/**
 * Make all cells, and check them as far as that goes without a model. `templates` is the folder of
 * templates or NULL. lw_grid_drop_cells afterwards. Errors: LW_E_INVALID and those of
 * lw_picture_job_check, with the cell's values in front; LW_E_FORMAT (two cells with the same
 * settings).
 */
LW_MUST_USE lw_status lw_grid_expand(const lw_grid *g, const char *templates, lw_arena *a,
                                     lw_grid_cell **ret, lw_err *err);
void lw_grid_drop_cells(lw_grid_cell *cells, int n);

#endif
