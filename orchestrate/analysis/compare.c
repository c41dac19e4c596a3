/* Measures of embeddings: one file, and one against another. */

#include "orchestrate/analysis/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrate/analysis/dot.h"

double lw_row_cosine(const float *a, const float *b, int64_t dim)
{
    const double norms = sqrt(lw_dot_f32(a, a, dim)) * sqrt(lw_dot_f32(b, b, dim));

    return norms > 0 ? lw_dot_f32(a, b, dim) / norms : (double)NAN;
}

/* ---- one file ---- */

/* Dimensions by falling standard deviation; of equal ones the first comes first. */
static const double *sort_by;

static int by_falling_std(const void *a, const void *b)
{
    const int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;

    if (sort_by[i] != sort_by[j])
        return sort_by[i] > sort_by[j] ? -1 : 1;
    return i < j ? -1 : i > j;
}

static void measure_dims(const lw_embedding *e, lw_embedding_stats *s)
{
    const double n = (double)e->n_finite;

    for (int64_t i = 0; i < e->rows; i++) {
        const float *x = e->x + i * e->dim;

        for (int64_t d = 0; e->finite[i] && d < e->dim; d++) {
            s->dim_mean[d] += (double)x[d] / n;
            s->dim_max[d] = fmax(s->dim_max[d], fabs((double)x[d]));
        }
    }
    for (int64_t i = 0; i < e->rows; i++) {
        const float *x = e->x + i * e->dim;

        for (int64_t d = 0; e->finite[i] && d < e->dim; d++) {
            const double off = (double)x[d] - s->dim_mean[d];

            s->dim_std[d] += off * off;
        }
    }
    for (int64_t d = 0; d < e->dim; d++)
        s->dim_std[d] = sqrt(s->dim_std[d] / n);
}

static void rank_dims(const lw_embedding *e, double times, lw_embedding_stats *s)
{
    double all = 0, held = 0;

    for (int64_t d = 0; d < e->dim; d++)
        s->ranked[d] = d;
    sort_by = s->dim_std;
    qsort(s->ranked, (size_t)e->dim, sizeof(*s->ranked), by_falling_std);
    s->std_median =
        (s->dim_std[s->ranked[(e->dim - 1) / 2]] + s->dim_std[s->ranked[e->dim / 2]]) / 2;
    /* Where most dimensions do not vary at all, none stands out by varying. */
    while (s->std_median > 0 && s->n_outliers < e->dim &&
           s->dim_std[s->ranked[s->n_outliers]] > times * s->std_median)
        s->n_outliers++;
    for (int64_t k = 0; k < e->dim; k++) {
        const double m = s->dim_mean[s->ranked[k]], std = s->dim_std[s->ranked[k]];

        all += m * m + std * std;
        held += k < s->n_outliers ? m * m + std * std : 0;
    }
    s->outlier_share = all > 0 ? held / all : (double)NAN;
}

lw_status lw_embedding_measure(const lw_embedding *e, double times, lw_arena *a,
                               lw_embedding_stats *ret, lw_err *err)
{
    const size_t dim = (size_t)e->dim;
    lw_embedding_stats s = { .min = (double)INFINITY,
                             .max = -(double)INFINITY,
                             .norm_min = (double)INFINITY };

    s.dim_mean = lw_arena_calloc(a, dim, sizeof(double), err);
    s.dim_std = lw_arena_calloc(a, dim, sizeof(double), err);
    s.dim_max = lw_arena_calloc(a, dim, sizeof(double), err);
    s.ranked = lw_arena_calloc(a, dim, sizeof(*s.ranked), err);
    if (!s.dim_mean || !s.dim_std || !s.dim_max || !s.ranked)
        return LW_E_NOMEM;
    measure_dims(e, &s);
    for (int64_t d = 0; d < e->dim; d++)
        s.mean += s.dim_mean[d] / (double)e->dim;
    for (int64_t i = 0; i < e->rows; i++) {
        const float *x = e->x + i * e->dim;
        double norm;

        if (!e->finite[i])
            continue;
        norm = sqrt(lw_dot_f32(x, x, e->dim));
        s.norm_mean += norm / (double)e->n_finite;
        s.norm_min = fmin(s.norm_min, norm);
        s.norm_max = fmax(s.norm_max, norm);
        for (int64_t d = 0; d < e->dim; d++) {
            const double off = (double)x[d] - s.mean;

            s.std += off * off;
            s.min = fmin(s.min, (double)x[d]);
            s.max = fmax(s.max, (double)x[d]);
        }
    }
    s.std = sqrt(s.std / ((double)e->n_finite * (double)e->dim));
    rank_dims(e, times, &s);
    *ret = s;
    return LW_OK;
}

/* ---- which row with which ---- */

const char *lw_align_name(lw_align align)
{
    static const char *const names[] = { "auto", "start", "end", "tokens" };

    return (size_t)align < LW_ARRAY_LEN(names) ? names[align] : "";
}

const char *lw_align_about(lw_align align)
{
    static const char *const texts[] = { "", "by position from the first row",
                                         "by position from the last row", "by equal tokens" };

    return (size_t)align < LW_ARRAY_LEN(texts) ? texts[align] : "";
}

static void add_pair(const lw_embedding *a, const lw_embedding *b, int64_t i, int64_t j,
                     lw_embedding_pair *p)
{
    if (a->finite[i] && b->finite[j])
        p->rows[p->n++] = (lw_row_pair){ .a = i, .b = j };
}

/* Length of the longest common subsequence of what follows each pair of rows, then along it. */
static lw_status pair_tokens(const lw_embedding *a, const lw_embedding *b, lw_embedding_pair *p,
                             lw_err *err)
{
    const int64_t m = b->rows + 1;
    uint16_t *longest = calloc((size_t)(a->rows + 1) * (size_t)m, sizeof(*longest));

    if (!longest)
        return lw_fail(err, LW_E_NOMEM, "no memory to pair %lld tokens with %lld",
                       (long long)a->rows, (long long)b->rows);
    for (int64_t i = a->rows - 1; i >= 0; i--)
        for (int64_t j = b->rows - 1; j >= 0; j--) {
            const uint16_t down = longest[(i + 1) * m + j], right = longest[i * m + j + 1];

            longest[i * m + j] = a->ids[i] == b->ids[j]
                                     ? (uint16_t)(longest[(i + 1) * m + j + 1] + 1)
                                     : (down > right ? down : right);
        }
    for (int64_t i = 0, j = 0; i < a->rows && j < b->rows;) {
        if (a->ids[i] == b->ids[j])
            add_pair(a, b, i++, j++, p);
        else if (longest[(i + 1) * m + j] >= longest[i * m + j + 1])
            i++;
        else
            j++;
    }
    free(longest);
    return LW_OK;
}

static lw_status pair_rows(const lw_embedding *a, const lw_embedding *b, lw_align align,
                           lw_arena *arena, lw_embedding_pair *p, lw_err *err)
{
    const int64_t n = a->rows < b->rows ? a->rows : b->rows;

    p->rows = lw_arena_calloc(arena, (size_t)n, sizeof(*p->rows), err);
    if (!p->rows)
        return LW_E_NOMEM;
    if (align == LW_ALIGN_AUTO)
        align = a->rows != b->rows && a->ids && b->ids ? LW_ALIGN_TOKENS : LW_ALIGN_START;
    p->align = align;
    if (align == LW_ALIGN_TOKENS) {
        if (!a->ids || !b->ids)
            return lw_fail(err, LW_E_INVALID,
                           "%s does not say which token each row is, so rows cannot be paired by "
                           "token; pair them by position, --align start or end",
                           a->ids ? b->path : a->path);
        LW_TRY(pair_tokens(a, b, p, err));
    } else {
        for (int64_t i = 0; i < n; i++)
            add_pair(a, b, align == LW_ALIGN_END ? a->rows - n + i : i,
                     align == LW_ALIGN_END ? b->rows - n + i : i, p);
    }
    if (p->n == 0)
        return lw_fail(err, LW_E_SHAPE,
                       "%s and %s have no pair of rows to compare: no common token, or a NaN or an "
                       "infinity in one row of each pair",
                       a->path, b->path);
    return LW_OK;
}

/* ---- two files ---- */

static const float *row_of(const lw_embedding *e, int64_t i)
{
    return e->x + i * e->dim;
}

/* Differences, norms and cosine of each pair, and what they are together. */
static void measure_pairs(const lw_embedding *a, const lw_embedding *b, lw_embedding_pair *p)
{
    double sum_abs = 0, sum_squares = 0, squares_a = 0, cosines = 0;
    int64_t n_cosines = 0;

    p->cosine_min = (double)NAN;
    p->cosine_min_pair = -1;
    for (int64_t k = 0; k < p->n; k++) {
        lw_row_pair *r = &p->rows[k];
        const float *x = row_of(a, r->a), *y = row_of(b, r->b);
        double total = 0;

        r->norm_a = sqrt(lw_dot_f32(x, x, a->dim));
        r->norm_b = sqrt(lw_dot_f32(y, y, a->dim));
        r->cosine = lw_row_cosine(x, y, a->dim);
        for (int64_t d = 0; d < a->dim; d++) {
            const double off = fabs((double)y[d] - (double)x[d]);

            total += off;
            sum_squares += off * off;
            if (off > r->max_abs) {
                r->max_abs = off;
                r->max_dim = d;
            }
        }
        r->mean_abs = total / (double)a->dim;
        sum_abs += total;
        squares_a += r->norm_a * r->norm_a;
        if (k == 0 || r->max_abs > p->max_abs) {
            p->max_abs = r->max_abs;
            p->max_pair = k;
        }
        if (isnan(r->cosine))
            continue;
        cosines += r->cosine;
        n_cosines++;
        if (!(p->cosine_min <= r->cosine)) {
            p->cosine_min = r->cosine;
            p->cosine_min_pair = k;
        }
    }
    p->cosine_mean = n_cosines ? cosines / (double)n_cosines : (double)NAN;
    p->mean_abs = sum_abs / ((double)p->n * (double)a->dim);
    p->rms_abs = sqrt(sum_squares / ((double)p->n * (double)a->dim));
    p->relative_frobenius = squares_a > 0 ? sqrt(sum_squares) / sqrt(squares_a) : (double)NAN;
}

/* The mean of the finite rows of a file. */
static void mean_row(const lw_embedding *e, double *to)
{
    memset(to, 0, (size_t)e->dim * sizeof(*to));
    for (int64_t i = 0; i < e->rows; i++)
        for (int64_t d = 0; e->finite[i] && d < e->dim; d++)
            to[d] += (double)row_of(e, i)[d] / (double)e->n_finite;
}

static lw_status measure_pooled(const lw_embedding *a, const lw_embedding *b, lw_embedding_pair *p,
                                lw_err *err)
{
    double *m = calloc((size_t)a->dim * 2, sizeof(*m)), norms;

    if (!m)
        return lw_fail(err, LW_E_NOMEM, "no memory for the mean of %lld dimensions",
                       (long long)a->dim);
    mean_row(a, m);
    mean_row(b, m + a->dim);
    norms = sqrt(lw_dot(m, m, a->dim)) * sqrt(lw_dot(m + a->dim, m + a->dim, a->dim));
    p->pooled_cosine = norms > 0 ? lw_dot(m, m + a->dim, a->dim) / norms : (double)NAN;
    free(m);
    return LW_OK;
}

/* The paired rows of one side, each column less its mean: [n, dim]. */
static void centre(const lw_embedding *e, const lw_embedding_pair *p, bool second, double *to)
{
    for (int64_t d = 0; d < e->dim; d++) {
        double mean = 0;

        for (int64_t k = 0; k < p->n; k++)
            mean += (double)row_of(e, second ? p->rows[k].b : p->rows[k].a)[d];
        mean /= (double)p->n;
        for (int64_t k = 0; k < p->n; k++)
            to[k * e->dim + d] = (double)row_of(e, second ? p->rows[k].b : p->rows[k].a)[d] - mean;
    }
}

/*
 * By the kernels K = X X' and L = Y Y', which are as large as there are pairs: |Y'X|^2 is the sum
 * of K L, |X'X| the norm of K. No matrix is kept.
 */
static lw_status measure_cka(const lw_embedding *a, const lw_embedding *b, lw_embedding_pair *p,
                             lw_err *err)
{
    const size_t n = (size_t)p->n * (size_t)a->dim;
    double *x = calloc(n * 2, sizeof(*x)), *y = x + n;
    double kl = 0, kk = 0, ll = 0;

    if (!x)
        return lw_fail(err, LW_E_NOMEM, "no memory to align %lld rows of %lld", (long long)p->n,
                       (long long)a->dim);
    centre(a, p, false, x);
    centre(b, p, true, y);
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t j = 0; j <= i; j++) {
            const double k = lw_dot(x + i * a->dim, x + j * a->dim, a->dim);
            const double l = lw_dot(y + i * a->dim, y + j * a->dim, a->dim);
            const double w = i == j ? 1 : 2; /* both halves */

            kl += w * k * l;
            kk += w * k * k;
            ll += w * l * l;
        }
    p->cka = kk > 0 && ll > 0 ? kl / (sqrt(kk) * sqrt(ll)) : (double)NAN;
    free(x);
    return LW_OK;
}

lw_status lw_embedding_compare(const lw_embedding *a, const lw_embedding *b, lw_align align,
                               lw_arena *arena, lw_embedding_pair *ret, lw_err *err)
{
    lw_embedding_pair p = { 0 };

    if (a->dim != b->dim)
        return lw_fail(err, LW_E_SHAPE,
                       "%s has %lld dimensions and %s %lld: they are of different encoders, and "
                       "no dimension of one means one of the other",
                       a->path, (long long)a->dim, b->path, (long long)b->dim);
    LW_TRY(pair_rows(a, b, align, arena, &p, err));
    measure_pairs(a, b, &p);
    LW_TRY(measure_pooled(a, b, &p, err));
    LW_TRY(measure_cka(a, b, &p, err));
    *ret = p;
    return LW_OK;
}
