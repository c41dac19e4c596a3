#ifndef LW_ORCHESTRATE_REPORT_H
#define LW_ORCHESTRATE_REPORT_H

#include <jansson.h>

#include "orchestrate/run.h"

/*
 * What a verb prints when it is done: the files, one a line; or with --json one object that also
 * has the settings, who did what, and the times. Paths are kept in the order of the pictures, not
 * of their arrival.
 */
typedef struct lw_report {
    json_t *files; /* array of {"path", "seed"}, indexed by picture */
    json_t *stages;
    double t_ms[LW_N_OPS];
    int64_t start_ms;
    char warned_digest[65]; /* of the text whose loss was told */
} lw_report;

LW_MUST_USE lw_status lw_report_init(lw_report *r, lw_err *err);
void lw_report_deinit(lw_report *r);

/** Take times and stages from a result; a warning says what was lost of a long prompt. */
LW_MUST_USE lw_status lw_report_result(lw_report *r, const lw_msg *result, lw_err *err);

/** File `index` was written. has_seed false: it is not a picture. */
LW_MUST_USE lw_status lw_report_file(lw_report *r, uint64_t index, const char *path, bool has_seed,
                                     uint64_t seed, lw_err *err);

/**
 * Print to standard output. `manifest` gives the settings of the object. Paths named "-" are not
 * printed: standard output holds the picture. Errors: LW_E_IO, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_report_print(const lw_report *r, bool json, const json_t *manifest,
                                      const lw_run *run, lw_err *err);

#endif
