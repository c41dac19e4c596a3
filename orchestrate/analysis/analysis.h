#ifndef LW_ORCHESTRATE_ANALYSIS_ANALYSIS_H
#define LW_ORCHESTRATE_ANALYSIS_ANALYSIS_H

#include <jansson.h>
#include <stdio.h>

#include "orchestrate/analysis/compare.h"

/*
 * Several files of embeddings with all that is measured of them, and the forms in which that is
 * told: a table for people, JSON for programs, pictures, a page. Files are named by letters, A for
 * the first; every other one is compared with A.
 */

#define LW_ANALYSIS_MAX_FILES 16

typedef struct lw_analysis_options {
    const char *tensor;    /* NULL: lw_embedding_read chooses */
    const char *tokenizer; /* folder; NULL: tokens have no texts */
    lw_align align;
    double times;       /* a dimension stands out above so many times the median deviation */
    bool drop_outliers; /* leave those of any file out of everything */
} lw_analysis_options;

typedef struct lw_analysis {
    lw_analysis_options options;
    int n_files;
    lw_embedding files[LW_ANALYSIS_MAX_FILES];
    lw_embedding_stats stats[LW_ANALYSIS_MAX_FILES];
    lw_embedding_pair
        pairs[LW_ANALYSIS_MAX_FILES]; /* [i]: file i against file 0; [0] is not used */
    lw_pca pca;
    int64_t *dropped; /* dimensions of the files that were left out */
    int64_t n_dropped;
} lw_analysis;

/** Read and measure 2 to LW_ANALYSIS_MAX_FILES files; everything lies in `a`. Errors: those of
 * compare.h and embeds.h. */
LW_MUST_USE lw_status lw_analysis_make(const char *const *paths, int n_files,
                                       const lw_analysis_options *options, lw_arena *a,
                                       lw_analysis *ret, lw_err *err);

/** The table. */
void lw_analysis_print(const lw_analysis *an, FILE *out);

/** Everything, as docs/analysis.md lists it; json_decref() it. NaN becomes null. Errors:
 * LW_E_NOMEM. */
LW_MUST_USE lw_status lw_analysis_json(const lw_analysis *an, json_t **ret, lw_err *err);

/** Write pca.png, dimensions.png and, for each file B, C..., cosine-B.png and difference-B.png into
 * a folder, which is made if need be. Errors: LW_E_IO, LW_E_DENIED, LW_E_NOT_FOUND, LW_E_NOMEM. */
LW_MUST_USE lw_status lw_analysis_plots(const lw_analysis *an, const char *folder, lw_err *err);

/** Write a page that stands in one file: tables, plots, and the JSON as its element "data". Errors:
 * those of lw_outfile_open and lw_outfile_commit, LW_E_TOO_LARGE, LW_E_NOMEM. */
LW_MUST_USE lw_status lw_analysis_page(const lw_analysis *an, const json_t *json, const char *path,
                                       lw_err *err);

/** Text of strangers so that no terminal obeys it, in at most max_bytes (0: all). */
void lw_print_clean(FILE *out, const char *text, size_t max_bytes);

#endif
