/* The measures as a table for people. */

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "orchestrate/analysis/analysis.h"

#define MAX_LINES    48 /* rows of a table of tokens; more are in JSON and on the page */
#define MAX_OUTLIERS 6
#define MAX_PROMPT   100

void lw_print_clean(FILE *out, const char *text, size_t max_bytes)
{
    const size_t all = strlen(text);
    const size_t n = max_bytes && all > max_bytes ? lw_utf8_trim(text, max_bytes) : all;

    for (size_t i = 0; i < n;) {
        const size_t len = lw_utf8_len(text + i, n - i);
        const unsigned char c = (unsigned char)text[i];

        if (len == 0 || c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)text[i + 1] < 0xa0))
            fputc(c == '\n' || c == '\t' ? ' ' : '?', out);
        else
            fwrite(text + i, 1, len, out);
        i += len ? len : 1;
    }
    if (n < all)
        fputs("...", out);
}

/* "%.4g" with the width of a column, "-" for what is not defined. */
static void print_number(FILE *out, double v)
{
    if (isnan(v))
        fprintf(out, " %10s", "-");
    else
        fprintf(out, " %10.4g", v);
}

/* The same with as many digits as a cosine close to 1 needs. */
static void print_cosine(FILE *out, double v)
{
    if (isnan(v))
        fprintf(out, " %10s", "-");
    else
        fprintf(out, " %10.6f", v);
}

static void print_files(const lw_analysis *an, FILE *out)
{
    for (int f = 0; f < an->n_files; f++) {
        const lw_embedding *e = &an->files[f];

        fprintf(out, "%c  ", 'A' + f);
        lw_print_clean(out, e->path, 0);
        fputs("  ", out);
        lw_print_clean(out, e->tensor, MAX_PROMPT);
        fprintf(out, " %s [%" PRId64 ", %" PRId64 "]", e->dtype, e->rows, e->dim);
        if (e->prompt) {
            fputs("  \"", out);
            lw_print_clean(out, e->prompt, MAX_PROMPT);
            fputc('"', out);
        }
        fputc('\n', out);
        if (e->n_finite < e->rows)
            fprintf(out, "   %" PRId64 " of its rows have a NaN or an infinity and are left out\n",
                    e->rows - e->n_finite);
    }
    if (an->n_dropped)
        fprintf(out, "%" PRId64 " outlier dimensions are left out of everything below\n",
                an->n_dropped);
}

static void print_stats(const lw_analysis *an, FILE *out)
{
    fprintf(out, "\n  %10s %10s %10s %10s %10s %10s %10s\n", "mean", "std", "min", "max",
            "norm mean", "norm min", "norm max");
    for (int f = 0; f < an->n_files; f++) {
        const lw_embedding_stats *s = &an->stats[f];
        const double columns[] = { s->mean,      s->std,      s->min,     s->max,
                                   s->norm_mean, s->norm_min, s->norm_max };

        fprintf(out, "%c ", 'A' + f);
        for (size_t i = 0; i < LW_ARRAY_LEN(columns); i++)
            print_number(out, columns[i]);
        fputc('\n', out);
    }
    fprintf(out, "\nDimensions whose standard deviation is above %g times the median:\n",
            an->options.times);
    for (int f = 0; f < an->n_files; f++) {
        const lw_embedding_stats *s = &an->stats[f];

        fprintf(out, "%c  %" PRId64, 'A' + f, s->n_outliers);
        if (s->n_outliers)
            fprintf(out, ", which hold %.1f %% of all squares:", 100 * s->outlier_share);
        for (int64_t k = 0; k < s->n_outliers && k < MAX_OUTLIERS; k++) {
            const int64_t d = s->ranked[k];

            fprintf(out, "%s %" PRId64 " (std %.4g, %.0f times, largest %.4g)", k ? "," : "",
                    an->files[f].of[d], s->dim_std[d], s->dim_std[d] / s->std_median,
                    s->dim_max[d]);
        }
        fputs(s->n_outliers > MAX_OUTLIERS ? "...\n" : "\n", out);
    }
}

/* The pairs that a table has room for: all, or those with the lowest cosines. */
static int by_rising(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double cosine_or_low(const lw_row_pair *r)
{
    return isnan(r->cosine) ? -2 : r->cosine;
}

static double highest_shown(const lw_embedding_pair *p)
{
    double *all = p->n > MAX_LINES ? malloc((size_t)p->n * sizeof(*all)) : NULL, at = 2;

    for (int64_t k = 0; all && k < p->n; k++)
        all[k] = cosine_or_low(&p->rows[k]);
    if (all) {
        qsort(all, (size_t)p->n, sizeof(*all), by_rising);
        at = all[MAX_LINES - 1];
    }
    free(all);
    return at;
}

static void print_rows(const lw_embedding *a, const lw_embedding_pair *p, char name, FILE *out)
{
    const double limit = highest_shown(p);
    int64_t n = 0;

    if (p->n > MAX_LINES)
        fprintf(out, "   the %d pairs with the lowest cosines:\n", MAX_LINES);
    fprintf(out, "   %6s %6s %10s %10s %10s %10s %5s  %s\n", "row A",
            (char[]){ 'r', 'o', 'w', ' ', name, 0 }, "cosine", "norm A",
            (char[]){ 'n', 'o', 'r', 'm', ' ', name, 0 }, "largest", "dim", a->ids ? "token" : "");
    for (int64_t k = 0; k < p->n && n < MAX_LINES; k++) {
        const lw_row_pair *r = &p->rows[k];

        if (cosine_or_low(r) > limit)
            continue;
        n++;
        fprintf(out, "   %6" PRId64 " %6" PRId64, r->a, r->b);
        print_cosine(out, r->cosine);
        print_number(out, r->norm_a);
        print_number(out, r->norm_b);
        print_number(out, r->max_abs);
        fprintf(out, " %5" PRId64, a->of[r->max_dim]);
        if (a->ids)
            fprintf(out, "  %" PRId64 " ", a->ids[r->a]);
        if (a->texts)
            lw_print_clean(out, a->texts[r->a], 0);
        fputc('\n', out);
    }
}

static void print_pair(const lw_analysis *an, int f, FILE *out)
{
    const lw_embedding_pair *p = &an->pairs[f];
    const lw_row_pair *largest = &p->rows[p->max_pair];

    fprintf(out, "\nA and %c: %" PRId64 " pairs of rows, %s\n", 'A' + f, p->n,
            lw_align_about(p->align));
    fputs("   cosine             ", out);
    print_cosine(out, p->cosine_mean);
    fputs(" mean,", out);
    print_cosine(out, p->cosine_min);
    fputs(" lowest", out);
    if (p->cosine_min_pair >= 0)
        fprintf(out, " (row %" PRId64 ")", p->rows[p->cosine_min_pair].a);
    fputs("\n   cosine of mean rows", out);
    print_cosine(out, p->pooled_cosine);
    fputs("\n   kernel alignment   ", out);
    print_cosine(out, p->cka);
    fputs("\n   difference         ", out);
    print_number(out, p->mean_abs);
    fputs(" mean,", out);
    print_number(out, p->max_abs);
    fprintf(out, " largest (row %" PRId64 ", dimension %" PRId64 ")\n", largest->a,
            an->files[0].of[largest->max_dim]);
    fputs("   relative Frobenius ", out);
    print_number(out, p->relative_frobenius);
    fputs("\n\n", out);
    print_rows(&an->files[0], p, (char)('A' + f), out);
}

void lw_analysis_print(const lw_analysis *an, FILE *out)
{
    print_files(an, out);
    print_stats(an, out);
    for (int f = 1; f < an->n_files; f++)
        print_pair(an, f, out);
    if (isnan(an->pca.share[0]))
        fprintf(out, "\nAll %" PRId64 " rows are the same: they have no principal components\n",
                an->pca.n);
    else
        fprintf(out,
                "\nPrincipal components of %" PRId64 " rows: the first two have %.1f %% and "
                "%.1f %% of the variance%s\n",
                an->pca.n, 100 * an->pca.share[0], 100 * an->pca.share[1],
                an->pca.converged ? "" : " (roughly: others are nearly as large)");
}
