#ifndef LW_ORCHESTRATE_ANALYSIS_COMPARE_H
#define LW_ORCHESTRATE_ANALYSIS_COMPARE_H

#include "orchestrate/analysis/embeds.h"

/*
 * What can be said of embeddings: of one file, of one against another, and of all together. All
 * sums are in double; rows with a NaN or an infinity are in none. Variances are population
 * variances. NaN stands for what is not defined. Checked against NumPy (tests/unit/
 * test_analysis.c, tests/interop/test_compare.py).
 */

/* ---- one file ---- */

typedef struct lw_embedding_stats {
    double mean, std, min, max;           /* of all numbers */
    double norm_mean, norm_min, norm_max; /* of the rows' Euclidean norms */
    double *dim_mean, *dim_std, *dim_max; /* [dim]; the last is the largest magnitude */
    double std_median;                    /* of dim_std */
    int64_t n_outliers;                   /* dimensions with dim_std > times * std_median */
    int64_t *ranked;                      /* [dim] dimensions by falling dim_std: outliers first */
    double outlier_share;                 /* of the sum of all squares that those hold */
} lw_embedding_stats;

/** Look at one file; arrays lie in `a`. Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_embedding_measure(const lw_embedding *e, double times, lw_arena *a,
                                           lw_embedding_stats *ret, lw_err *err);

/* ---- two files ---- */

/** Which row of one file is compared with which of the other. */
typedef enum lw_align {
    LW_ALIGN_AUTO,  /* START for as many rows in both; else TOKENS when both have ids; else START */
    LW_ALIGN_START, /* by position from the first row */
    LW_ALIGN_END,   /* by position from the last row */
    LW_ALIGN_TOKENS, /* the longest common subsequence of the token ids, as diff does */
} lw_align;

typedef struct lw_row_pair {
    int64_t a, b; /* rows */
    double cosine, norm_a, norm_b;
    double mean_abs, max_abs; /* of the differences b - a */
    int64_t max_dim;          /* where the largest is */
} lw_row_pair;

typedef struct lw_embedding_pair {
    lw_align align;    /* what AUTO became */
    int64_t n;         /* pairs */
    lw_row_pair *rows; /* [n] by rising row */
    double cosine_mean, cosine_min;
    int64_t cosine_min_pair; /* -1 when no cosine is defined */
    double pooled_cosine;    /* of the mean rows, all finite rows of each file */
    double cka;              /* linear centred kernel alignment of the paired rows (Kornblith et al.
                                2019): |Y'X|^2 / (|X'X| |Y'Y|), Frobenius norms, each column of
                                X and Y less its mean */
    double mean_abs, rms_abs; /* of all differences */
    double max_abs;
    int64_t max_pair;          /* where the largest is: pair and, in rows[], dimension */
    double relative_frobenius; /* |B - A| / |A| over the paired rows */
} lw_embedding_pair;

/**
 * Compare two files of the same dim. Errors: LW_E_SHAPE (another dim, both named; no pair of finite
 * rows), LW_E_INVALID (TOKENS, and a file has no ids), LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_embedding_compare(const lw_embedding *a, const lw_embedding *b,
                                           lw_align align, lw_arena *arena, lw_embedding_pair *ret,
                                           lw_err *err);

/** Cosine of two rows [dim]; NaN when one is all zero. */
double lw_row_cosine(const float *a, const float *b, int64_t dim);

/** "start", "end"...; "" for a value outside. */
const char *lw_align_name(lw_align align);
/** The same in words: "by position from the first row"... */
const char *lw_align_about(lw_align align);

/* ---- all files ---- */

/** A row as a point of the plane that shows most. */
typedef struct lw_pca_point {
    int file;
    int64_t row;
    double at[2];
} lw_pca_point;

typedef struct lw_pca {
    int64_t n;            /* points: finite rows of all files */
    lw_pca_point *points; /* [n] by file and row */
    double share[2];      /* of the total variance; NaN when there is none */
    double *axis[2];      /* [dim] unit vectors whose component of largest magnitude is positive */
    bool converged;       /* else two components are nearly as large, and the axes are rough */
} lw_pca;

/**
 * Principal components of all finite rows of all files, which have the same dim. Found by subspace
 * iteration over the rows, so a covariance matrix is never made. Errors: LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_embedding_pca(const lw_embedding *files, int n_files, lw_arena *a,
                                       lw_pca *ret, lw_err *err);

#endif
