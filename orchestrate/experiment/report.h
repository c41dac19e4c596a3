#ifndef LW_ORCHESTRATE_EXPERIMENT_REPORT_H
#define LW_ORCHESTRATE_EXPERIMENT_REPORT_H

#include <stddef.h>

#include "common/err.h"

/*
 * The report of an experiment: one HTML page with its pictures, its data, its style sheet and its
 * script in it, which opens without a server.
 *
 * How the page is put together (report.c writes it, report.js brings it to life):
 *
 *     <header>                     title, question, description: readable without the script
 *     <main id="report">           empty; the script builds all that follows in it
 *     <template id="pictures">     an <img data-id=CELL src="data:..."> for every picture, once;
 * being in a template, none is decoded before the script shows it <script id="results"> JSON:
 * results.json as it is, with a key "page" added: "made_by"     [{op, model_id, weights_digest,
 * backend, precision, cells}] from the manifests of the pictures "versions"    [text] of
 * latentwire, from the same "bytes"       of all pictures as they lie in cells/ "embedded"    bytes
 * of those that the page holds "thumbnail"   longest side of the embedded pictures when they are
 *                                                  smaller ones, else 0
 *                                    "csv"         results.csv, or null
 *     <script>                     report.js, the only one that the page's policy lets run
 *
 * A picture that cannot be read is shown as a failed cell with the reason.
 */

/** More than this in pictures, and the page carries smaller ones and links to cells/. */
#define LW_REPORT_MAX_PICTURES ((size_t)64 << 20)

/**
 * Make DIR/report.html from DIR/results.json, DIR/results.csv (when it is there) and the pictures
 * in DIR/cells. Errors: those of lw_outcome_load and lw_outfile_open, LW_E_IO, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_experiment_report(const char *dir, lw_err *err);

/** The same with another limit on the embedded pictures, in bytes. */
LW_MUST_USE lw_status lw_experiment_report_within(const char *dir, size_t max_picture_bytes,
                                                  lw_err *err);

#endif
