/* The plots of an analysis as files, and pages that stand in one file. */

#include "orchestrate/analysis/page.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/png.h"
#include "orchestrate/analysis/analysis.h"
#include "orchestrate/analysis/plots.h"

#define MAX_PLOT ((size_t)256 << 20)
#define MAX_PAGE ((size_t)512 << 20)

/* ---- any page ---- */

static const char css[] =
    "table{border-collapse:collapse;margin:.6rem 0}"
    "th,td{padding:.15rem .6rem;text-align:right;font-variant-numeric:tabular-nums;"
    "white-space:nowrap}"
    "th{border-bottom:1px solid var(--line);font-weight:600}"
    "td.t,th.t{text-align:left;font-family:var(--mono)}"
    "body{max-width:76rem;margin:1.5rem auto;padding:0 1rem}"
    "figure{display:inline-block;margin:.5rem 1rem .5rem 0;vertical-align:top}"
    "figure img{max-width:100%;background:#fff}"
    "details{margin:.5rem 0}";

void lw_page_begin(lw_buf *b, const char *title)
{
    const lw_html_page page = { .css = css };

    lw_buf_init(b, MAX_PAGE);
    lw_html_begin_page(b, title, &page);
    lw_buf_puts(b, "<h1>");
    lw_html_text(b, title);
    lw_buf_puts(b, "</h1>\n");
}

void lw_page_number(lw_buf *b, double v)
{
    if (isnan(v))
        lw_buf_puts(b, "<td>-</td>");
    else
        lw_buf_printf(b, "<td>%.5g</td>", v);
}

lw_status lw_page_plot(lw_buf *b, const char *id, const char *about, const lw_canvas *c,
                       lw_err *err)
{
    lw_status s;
    lw_buf png;

    lw_buf_init(&png, MAX_PLOT);
    s = lw_png_encode(&png, c->rgb, c->width, c->height, NULL, 0, err);
    if (s == LW_OK) {
        lw_buf_printf(b, "<figure><img id=\"%s\" width=\"%d\" height=\"%d\" alt=\"", id, c->width,
                      c->height);
        lw_html_text(b, about);
        lw_buf_puts(b, "\" src=\"");
        lw_html_png(b, png.data, png.len);
        lw_buf_puts(b, "\"><figcaption>");
        lw_html_text(b, about);
        lw_buf_puts(b, "</figcaption></figure>\n");
    }
    lw_buf_deinit(&png);
    return s;
}

static lw_status save(const lw_buf *b, const char *path, lw_err *err)
{
    lw_outfile o = { 0 };

    if (b->failed)
        return lw_fail(err, LW_E_TOO_LARGE, "%s: the page has more than %zu MiB, or memory is full",
                       path, MAX_PAGE >> 20);
    LW_TRY(lw_outfile_open(&o, path, err));
    lw_outfile_write(&o, b->data, b->len);
    return lw_outfile_commit(&o, err);
}

lw_status lw_page_end(lw_buf *b, const json_t *json, const char *path, lw_status s, lw_err *err)
{
    lw_html_json(b, "data", json);
    lw_html_end(b);
    if (s == LW_OK)
        s = save(b, path, err);
    lw_buf_deinit(b);
    return s;
}

/* ---- plots ---- */

/* Every plot in turn, with its name as a file and in words. */
typedef lw_status plot_fn(void *arg, const char *name, const char *about, const lw_canvas *c,
                          lw_err *err);

static lw_status show(lw_status made, lw_canvas *c, const char *name, const char *about,
                      plot_fn *fn, void *arg, lw_err *err)
{
    if (made == LW_OK)
        made = fn(arg, name, about, c, err);
    lw_canvas_deinit(c);
    return made;
}

static lw_status each_plot(const lw_analysis *an, plot_fn *fn, void *arg, lw_err *err)
{
    lw_canvas c = { 0 };
    lw_status s;

    s = lw_plot_pca(an->files, an->n_files, &an->pca, &c, err);
    LW_TRY(show(s, &c, "pca", "Rows of all files on the plane of the first two components", fn, arg,
                err));
    s = lw_plot_dimensions(an->files, an->stats, an->n_files, &c, err);
    LW_TRY(show(s, &c, "dimensions", "Standard deviation of each dimension", fn, arg, err));
    for (int f = 1; f < an->n_files; f++) {
        const char other = (char)('A' + f);
        char name[32], about[64];

        snprintf(name, sizeof(name), "cosine-%c", other);
        snprintf(about, sizeof(about), "Cosines of the rows of A and %c", other);
        s = lw_plot_cosines(&an->files[0], &an->files[f], 'A', other, &c, err);
        LW_TRY(show(s, &c, name, about, fn, arg, err));
        snprintf(name, sizeof(name), "difference-%c", other);
        snprintf(about, sizeof(about), "Absolute differences of A and %c", other);
        s = lw_plot_differences(&an->files[0], &an->files[f], &an->pairs[f], 'A', other, &c, err);
        LW_TRY(show(s, &c, name, about, fn, arg, err));
    }
    return LW_OK;
}

static lw_status plot_to_file(void *arg, const char *name, const char *about, const lw_canvas *c,
                              lw_err *err)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof(path), "%s/%s.png", (const char *)arg, name) >= sizeof(path))
        return lw_fail(err, LW_E_INVALID, "%s: the name is too long", (const char *)arg);
    return lw_canvas_write(c, path, "Title", about, err);
}

lw_status lw_analysis_plots(const lw_analysis *an, const char *folder, lw_err *err)
{
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return lw_fail_errno(err, errno, folder);
    return each_plot(an, plot_to_file, (void *)folder, err);
}

/* ---- the page of embeddings ---- */

static void put_files(lw_buf *b, const lw_analysis *an)
{
    lw_buf_puts(b, "<table><tr><th></th><th class=\"t\">file</th><th>rows</th><th>dimensions</th>"
                   "<th>mean</th><th>std</th><th>min</th><th>max</th><th>norm</th>"
                   "<th>left out</th></tr>\n");
    for (int f = 0; f < an->n_files; f++) {
        const lw_embedding *e = &an->files[f];
        const lw_embedding_stats *s = &an->stats[f];

        lw_buf_printf(b, "<tr><th>%c</th><td class=\"t\">", 'A' + f);
        lw_html_text(b, e->path);
        if (e->prompt) {
            lw_buf_puts(b, "<br>");
            lw_html_text(b, e->prompt);
        }
        lw_buf_printf(b, "</td><td>%" PRId64 "</td><td>%" PRId64 "</td>", e->rows, e->dim);
        lw_page_number(b, s->mean);
        lw_page_number(b, s->std);
        lw_page_number(b, s->min);
        lw_page_number(b, s->max);
        lw_page_number(b, s->norm_mean);
        lw_buf_printf(b, "<td>%" PRId64 "</td></tr>\n", e->rows - e->n_finite);
    }
    lw_buf_puts(b, "</table>\n");
    if (an->n_dropped)
        lw_buf_printf(b, "<p>%" PRId64 " outlier dimensions are left out of everything.</p>\n",
                      an->n_dropped);
}

static void put_outliers(lw_buf *b, const lw_analysis *an)
{
    lw_buf_printf(b,
                  "<h2>Outlier dimensions</h2>\n<p>Those whose standard deviation over the rows is "
                  "above %g times the median of all.</p>\n<table><tr><th></th><th>dimension</th>"
                  "<th>std</th><th>times the median</th><th>mean</th><th>largest</th></tr>\n",
                  an->options.times);
    for (int f = 0; f < an->n_files; f++) {
        const lw_embedding_stats *s = &an->stats[f];

        if (s->n_outliers == 0)
            lw_buf_printf(b, "<tr><th>%c</th><td>none</td></tr>\n", 'A' + f);
        for (int64_t k = 0; k < s->n_outliers && k < 50; k++) {
            const int64_t d = s->ranked[k];

            lw_buf_printf(b, "<tr><th>%c</th><td>%" PRId64 "</td>", 'A' + f, an->files[f].of[d]);
            lw_page_number(b, s->dim_std[d]);
            lw_page_number(b, s->dim_std[d] / s->std_median);
            lw_page_number(b, s->dim_mean[d]);
            lw_page_number(b, s->dim_max[d]);
            lw_buf_puts(b, "</tr>\n");
        }
    }
    lw_buf_puts(b, "</table>\n");
}

static void put_pair(lw_buf *b, const lw_analysis *an, int f)
{
    const lw_embedding_pair *p = &an->pairs[f];
    const lw_embedding *a = &an->files[0];

    lw_buf_printf(b,
                  "<h2>A and %c</h2>\n<p>%" PRId64 " pairs of rows, %s.</p>\n<table><tr><th>mean "
                  "cosine</th><th>lowest</th><th>cosine of mean rows</th><th>kernel alignment</th>"
                  "<th>mean difference</th><th>largest</th><th>relative Frobenius</th></tr>\n<tr>",
                  'A' + f, p->n, lw_align_about(p->align));
    lw_page_number(b, p->cosine_mean);
    lw_page_number(b, p->cosine_min);
    lw_page_number(b, p->pooled_cosine);
    lw_page_number(b, p->cka);
    lw_page_number(b, p->mean_abs);
    lw_page_number(b, p->max_abs);
    lw_page_number(b, p->relative_frobenius);
    lw_buf_printf(
        b,
        "</tr></table>\n<details><summary>Row by row</summary>\n<table><tr><th>row "
        "A</th><th>row %c</th><th class=\"t\">token</th><th>cosine</th><th>norm A</th>"
        "<th>norm %c</th><th>mean difference</th><th>largest</th><th>dimension</th></tr>\n",
        'A' + f, 'A' + f);
    for (int64_t k = 0; k < p->n; k++) {
        const lw_row_pair *r = &p->rows[k];

        lw_buf_printf(b, "<tr><td>%" PRId64 "</td><td>%" PRId64 "</td><td class=\"t\">", r->a,
                      r->b);
        if (a->ids)
            lw_buf_printf(b, "%" PRId64 " ", a->ids[r->a]);
        lw_html_text(b, a->texts ? a->texts[r->a] : "");
        lw_buf_puts(b, "</td>");
        lw_page_number(b, r->cosine);
        lw_page_number(b, r->norm_a);
        lw_page_number(b, r->norm_b);
        lw_page_number(b, r->mean_abs);
        lw_page_number(b, r->max_abs);
        lw_buf_printf(b, "<td>%" PRId64 "</td></tr>\n", a->of[r->max_dim]);
    }
    lw_buf_puts(b, "</table></details>\n");
}

static lw_status plot_to_page(void *arg, const char *name, const char *about, const lw_canvas *c,
                              lw_err *err)
{
    return lw_page_plot(arg, name, about, c, err);
}

lw_status lw_analysis_page(const lw_analysis *an, const json_t *json, const char *path, lw_err *err)
{
    lw_status s;
    lw_buf b;

    lw_page_begin(&b, "Embeddings compared");
    put_files(&b, an);
    for (int f = 1; f < an->n_files; f++)
        put_pair(&b, an, f);
    lw_buf_puts(&b, "<h2>Plots</h2>\n");
    s = each_plot(an, plot_to_page, &b, err);
    put_outliers(&b, an);
    return lw_page_end(&b, json, path, s, err);
}
