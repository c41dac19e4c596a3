#ifndef LW_ORCHESTRATE_BENCH_BENCH_H
#define LW_ORCHESTRATE_BENCH_BENCH_H

#include <jansson.h>

#include "orchestrate/settings.h"

/*
 * `latentwire bench`: the speed of the operations by themselves, and of the three stages with a
 * model. Each measurement is one JSON document whose keys carry the units; tables are made of it.
 */

/** Which operations to measure. */
typedef struct lw_bench_ops {
    const char *filter;    /* part of "OPERATION SHAPE"; NULL: all */
    const char *precision; /* of the linear layers: "f32", "int8" or "all" */
    int64_t threads;       /* 0: all cores */
    bool json;             /* one document at the end, else a row as soon as it is measured */
} lw_bench_ops;

/** Measure and print. Errors: LW_E_INVALID (the filter leaves nothing), LW_E_IO, those of
 * lw_bench_open and lw_bench_run. */
LW_MUST_USE lw_status lw_bench_ops_run(const lw_bench_ops *o, lw_err *err);

/** One measurement of the stages. Zero and empty is the default everywhere. */
typedef struct lw_bench_stages {
    lw_settings opt;        /* which model, where, how; precision is of `precisions` */
    lw_opt_list sizes;      /* "WxH"; none: the model's own */
    lw_opt_list precisions; /* as --precision of `generate`, one after the other; none: auto */
    const char *prompt;     /* a number is added; NULL: a short one */
    int64_t steps;          /* at least 2, since the first is told apart; 0: the model's */
    int64_t repeat;         /* pictures of each size and precision, at least 1 */
} lw_bench_stages;

/**
 * What was measured where: "bench" (`what`), version, build, cpu, cores. NULL: no memory. The
 * caller adds to it, and owns it.
 */
json_t *lw_bench_about(const char *what);
/** The same in a sentence, on standard output. */
void lw_bench_print_about(const json_t *about);

/** Start the services for each precision and draw; docs/performance.md explains the document.
 * Errors: those of lw_parse_size, lw_run_open and lw_run_jobs; LW_E_INVALID (a precision for
 * somebody else's hub). json_decref() it. */
LW_MUST_USE lw_status lw_bench_stages_run(const lw_bench_stages *b, json_t **ret, lw_err *err);
/** Two tables on standard output: times by size, and the services. */
void lw_bench_stages_print(const json_t *report);

/** A column of a Markdown table. */
typedef struct lw_md_column {
    const char *title;
    int width; /* of the text at least; below 0: aligned left */
} lw_md_column;

/** The two lines at the head of a table. */
void lw_md_head(const lw_md_column *columns, size_t n);
/** The cells of a row in order, then the end of the line. What cannot stand in a cell is blanked;
 * a number has three digits that count, or is a whole one; NaN is "-". */
void lw_md_text(const lw_md_column *column, const char *text);
void lw_md_number(const lw_md_column *column, double v);
void lw_md_whole(const lw_md_column *column, double v);
void lw_md_end(void);

#endif
