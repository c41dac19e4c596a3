/* Measures as pictures: heat maps, points and lines on a canvas. */

#include "orchestrate/analysis/plots.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define PAPER  0xffffffu
#define INK    0x202428u
#define MUTED  0x8a939bu
#define FRAME  0xc8ced3u
#define MARGIN 12
#define LINE   15  /* height of a line of text */
#define CHAR   6   /* width of a letter */
#define SIDE   512 /* what the larger side of a heat map is about */
#define GROUPS 128

/* Colours that stay apart for most eyes (Okabe and Ito), then again. */
static lw_colour file_colour(int file)
{
    static const lw_colour colours[] = { 0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7,
                                         0xe69f00, 0x56b4e9, 0x000000, 0xb0a000 };

    return colours[file % (int)LW_ARRAY_LEN(colours)];
}

static void text(lw_canvas *c, int x, int y, const char *s, lw_colour colour)
{
    lw_canvas_text(c, x, y, s, 1, colour, 0, 0);
}

/* The same, ending at x. */
static void text_left_of(lw_canvas *c, int x, int y, const char *s, lw_colour colour)
{
    text(c, x - lw_canvas_text_width(s, 1), y, s, colour);
}

/* ---- heat maps ---- */

typedef struct heat {
    const char *title, *down, *across; /* what it shows, and what the axes are */
    const double *v;                   /* [rows, cols] */
    int64_t rows, cols;
    double low, high;             /* ends of the colour scale */
    const char *low_is, *high_is; /* the same as texts */
    int64_t across_step;          /* columns of the axis count so many each */
    const lw_embedding *labels;   /* texts of rows downwards, through row_of; may be NULL */
    const lw_row_pair *pairs;     /* row k is row pairs[k].a; NULL: row k */
} heat;

static int64_t row_of(const heat *h, int64_t k)
{
    return h->pairs ? h->pairs[k].a : k;
}

/* So many rows or columns from one number of an axis to the next: 1, 2, 5, 10... */
static int64_t label_step(int pixels_each, int pixels_needed)
{
    static const int64_t steps[] = { 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000 };

    for (size_t i = 0; i < LW_ARRAY_LEN(steps); i++)
        if (steps[i] * pixels_each >= pixels_needed)
            return steps[i];
    return 2000;
}

static int cell_size(int64_t n, int most)
{
    const int64_t size = SIDE / n;

    return size < 1 ? 1 : size > most ? most : (int)size;
}

static void draw_axes(lw_canvas *c, const heat *h, int x, int y, int cell_w, int cell_h)
{
    const int64_t down = label_step(cell_h, LINE);
    const int64_t across = label_step(cell_w, 7 * CHAR);
    char s[64];

    text(c, x, y - 2 * LINE, h->across, MUTED);
    text(c, MARGIN, y - LINE, h->down, MUTED);
    for (int64_t i = 0; i < h->rows; i += down) {
        const int64_t row = row_of(h, i);
        const char *label = h->labels && h->labels->texts ? h->labels->texts[row] : "";

        snprintf(s, sizeof(s), "%s %lld", label, (long long)row);
        text_left_of(c, x - 4, y + (int)i * cell_h + cell_h / 2 - 7, s, INK);
    }
    for (int64_t i = 0; i < h->cols; i += across) {
        snprintf(s, sizeof(s), "%lld", (long long)(i * h->across_step));
        text(c, x + (int)i * cell_w, y - LINE, s, INK);
    }
}

static void draw_legend(lw_canvas *c, const heat *h, int x, int y)
{
    const int width = 160, at = x + lw_canvas_text_width(h->low_is, 1) + 6;

    text(c, x, y, h->low_is, INK);
    for (int i = 0; i < width; i++)
        lw_canvas_fill(c, at + i, y + 1, 1, 11, lw_colour_scale((double)i / (width - 1)));
    text(c, at + width + 6, y, h->high_is, INK);
}

static int at_least(int a, int b)
{
    return a > b ? a : b;
}

static lw_status draw_heat(const heat *h, lw_canvas *ret, lw_err *err)
{
    const int cell_w = cell_size(h->cols, h->across_step > 1 ? 8 : 18);
    const int cell_h = cell_size(h->rows, 18);
    const int map_w = (int)h->cols * cell_w, map_h = (int)h->rows * cell_h;
    const int x = MARGIN + (h->labels && h->labels->texts ? 20 : 6) * CHAR;
    const int y = MARGIN + 3 * LINE + 6;
    const int legend =
        172 + lw_canvas_text_width(h->low_is, 1) + lw_canvas_text_width(h->high_is, 1);
    int width = at_least(x + at_least(map_w, legend), MARGIN + lw_canvas_text_width(h->title, 1));
    const double range = h->high - h->low;

    width = at_least(width, x + lw_canvas_text_width(h->across, 1)) + MARGIN;
    LW_TRY(lw_canvas_init(ret, width, y + map_h + LINE + 2 * MARGIN, PAPER, err));
    text(ret, MARGIN, MARGIN, h->title, INK);
    for (int64_t i = 0; i < h->rows; i++)
        for (int64_t j = 0; j < h->cols; j++) {
            const double v = h->v[i * h->cols + j];

            lw_canvas_fill(ret, x + (int)j * cell_w, y + (int)i * cell_h, cell_w, cell_h,
                           lw_colour_scale(range > 0 ? (v - h->low) / range : v - h->low + 0.5));
        }
    draw_axes(ret, h, x, y, cell_w, cell_h);
    draw_legend(ret, h, x, y + map_h + MARGIN);
    return LW_OK;
}

static double *new_values(int64_t rows, int64_t cols, lw_err *err)
{
    double *v = calloc((size_t)rows * (size_t)cols, sizeof(*v));

    if (!v)
        lw_fail(err, LW_E_NOMEM, "no memory for a heat map of %lld x %lld", (long long)rows,
                (long long)cols);
    return v;
}

lw_status lw_plot_cosines(const lw_embedding *a, const lw_embedding *b, char name_a, char name_b,
                          lw_canvas *ret, lw_err *err)
{
    char title[96], down[32], across[32], low[32], high[32];
    heat h = { .title = title,
               .down = down,
               .across = across,
               .rows = a->rows,
               .cols = b->rows,
               .low = (double)INFINITY,
               .high = -(double)INFINITY,
               .low_is = low,
               .high_is = high,
               .across_step = 1,
               .labels = a };
    double *v = new_values(a->rows, b->rows, err);
    lw_status s;

    if (!v)
        return LW_E_NOMEM;
    h.v = v;
    for (int64_t i = 0; i < a->rows; i++)
        for (int64_t j = 0; j < b->rows; j++) {
            double *at = &v[i * b->rows + j];

            *at = a->finite[i] && b->finite[j]
                      ? lw_row_cosine(a->x + i * a->dim, b->x + j * b->dim, a->dim)
                      : (double)NAN;
            h.low = *at < h.low ? *at : h.low;
            h.high = *at > h.high ? *at : h.high;
        }
    snprintf(title, sizeof(title), "Cosine of the rows of %c with those of %c", name_a, name_b);
    snprintf(down, sizeof(down), "row of %c", name_a);
    snprintf(across, sizeof(across), "row of %c", name_b);
    snprintf(low, sizeof(low), "%.4g", h.low);
    snprintf(high, sizeof(high), "%.4g", h.high);
    s = draw_heat(&h, ret, err);
    free(v);
    return s;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* The value that one of a hundred is above. */
static double percentile_99(const double *v, int64_t n)
{
    double *sorted = malloc((size_t)n * sizeof(*sorted)), at;

    if (!sorted)
        return (double)NAN;
    for (int64_t i = 0; i < n; i++)
        sorted[i] = v[i];
    qsort(sorted, (size_t)n, sizeof(*sorted), by_size);
    at = sorted[(n - 1) * 99 / 100];
    free(sorted);
    return at;
}

lw_status lw_plot_differences(const lw_embedding *a, const lw_embedding *b,
                              const lw_embedding_pair *pair, char name_a, char name_b,
                              lw_canvas *ret, lw_err *err)
{
    const int64_t size = (a->dim + GROUPS - 1) / GROUPS, groups = (a->dim + size - 1) / size;
    char title[96], down[32], across[48], high[64];
    heat h = { .title = title,
               .down = down,
               .across = across,
               .rows = pair->n,
               .cols = groups,
               .low_is = "0",
               .high_is = high,
               .across_step = size,
               .labels = a,
               .pairs = pair->rows };
    double *v = new_values(pair->n, groups, err);
    lw_status s;

    if (!v)
        return LW_E_NOMEM;
    h.v = v;
    for (int64_t k = 0; k < pair->n; k++) {
        const float *x = a->x + pair->rows[k].a * a->dim, *y = b->x + pair->rows[k].b * b->dim;

        for (int64_t g = 0; g < groups; g++) {
            const int64_t end = (g + 1) * size < a->dim ? (g + 1) * size : a->dim;
            double sum = 0;

            for (int64_t d = g * size; d < end; d++)
                sum += fabs((double)y[d] - (double)x[d]);
            v[k * groups + g] = sum / (double)(end - g * size);
        }
    }
    h.high = percentile_99(v, pair->n * groups);
    snprintf(title, sizeof(title), "Absolute difference of %c and %c", name_a, name_b);
    snprintf(down, sizeof(down), "row of %c", name_a);
    if (size > 1)
        snprintf(across, sizeof(across), "dimension, %lld in one", (long long)size);
    else
        snprintf(across, sizeof(across), "dimension");
    snprintf(high, sizeof(high), "%.4g and above (99th percentile)", h.high);
    s = draw_heat(&h, ret, err);
    free(v);
    return s;
}

/* ---- points and lines ---- */

/* A letter and a colour for each file, in a row. */
static void draw_names(lw_canvas *c, int x, int y, int n_files)
{
    for (int f = 0; f < n_files; f++) {
        const char name[] = { (char)('A' + f), '\0' };

        lw_canvas_fill(c, x + f * 30, y + 2, 9, 9, file_colour(f));
        text(c, x + f * 30 + 13, y, name, INK);
    }
}

static void draw_frame(lw_canvas *c, int x, int y, int width, int height)
{
    lw_canvas_line(c, x, y, x + width, y, FRAME);
    lw_canvas_line(c, x, y + height, x + width, y + height, FRAME);
    lw_canvas_line(c, x, y, x, y + height, FRAME);
    lw_canvas_line(c, x + width, y, x + width, y + height, FRAME);
}

static void extent(const lw_pca *p, int axis, double *ret_low, double *ret_high)
{
    double low = p->points[0].at[axis], high = low, room;

    for (int64_t i = 1; i < p->n; i++) {
        low = fmin(low, p->points[i].at[axis]);
        high = fmax(high, p->points[i].at[axis]);
    }
    room = high > low ? (high - low) * 0.05 : 1;
    *ret_low = low - room;
    *ret_high = high + room;
}

lw_status lw_plot_pca(const lw_embedding *files, int n_files, const lw_pca *pca, lw_canvas *ret,
                      lw_err *err)
{
    const int x = MARGIN + 10 * CHAR, y = MARGIN + 2 * LINE, side = 440;
    const bool with_numbers = pca->n <= 64;
    double low[2], high[2];
    char s[96];

    LW_TRY(lw_canvas_init(ret, x + side + 90, y + side + 3 * LINE, PAPER, err));
    text(ret, MARGIN, MARGIN, "Principal components of all rows", INK);
    draw_names(ret, x, MARGIN + LINE, n_files);
    draw_frame(ret, x, y, side, side);
    for (int j = 0; j < 2; j++)
        extent(pca, j, &low[j], &high[j]);
    if (low[0] < 0 && high[0] > 0) {
        const int zero = (int)((0 - low[0]) / (high[0] - low[0]) * side);

        lw_canvas_line(ret, x + zero, y, x + zero, y + side, FRAME);
    }
    if (low[1] < 0 && high[1] > 0) {
        const int zero = (int)((0 - low[1]) / (high[1] - low[1]) * side);

        lw_canvas_line(ret, x, y + side - zero, x + side, y + side - zero, FRAME);
    }
    for (int64_t i = 0; i < pca->n; i++) {
        const lw_pca_point *p = &pca->points[i];
        const int px = x + (int)((p->at[0] - low[0]) / (high[0] - low[0]) * side);
        const int py = y + side - (int)((p->at[1] - low[1]) / (high[1] - low[1]) * side);
        /* Later files are drawn over earlier ones, and smaller. */
        const int half = n_files - 1 - p->file < 2 ? 2 + n_files - 1 - p->file : 4;
        const char *label = files[p->file].texts ? files[p->file].texts[p->row] : NULL;

        lw_canvas_fill(ret, px - half, py - half, 2 * half + 1, 2 * half + 1, file_colour(p->file));
        snprintf(s, sizeof(s), "%.10s", label ? label : "");
        if (!label)
            snprintf(s, sizeof(s), "%lld", (long long)p->row);
        if (with_numbers)
            text(ret, px + 5, py - 7, s, file_colour(p->file));
    }
    snprintf(s, sizeof(s), "component 1: %.1f %% of the variance", 100 * pca->share[0]);
    text(ret, x, y + side + 6 + LINE, s, MUTED);
    snprintf(s, sizeof(s), "component 2 (upwards): %.1f %%", 100 * pca->share[1]);
    text(ret, x + 42 * CHAR, y + side + 6 + LINE, s, MUTED);
    for (int end = 0; end < 2; end++) {
        snprintf(s, sizeof(s), "%.3g", end ? high[0] : low[0]);
        if (end)
            text_left_of(ret, x + side, y + side + 4, s, INK);
        else
            text(ret, x, y + side + 4, s, INK);
        snprintf(s, sizeof(s), "%.3g", end ? high[1] : low[1]);
        text_left_of(ret, x - 4, end ? y : y + side - LINE, s, INK);
    }
    return LW_OK;
}

/* The largest deviation of the dimensions that share pixel column `col` of `width`. */
static double column_std(const lw_embedding *e, const lw_embedding_stats *s, int col, int width)
{
    const int64_t from = col * e->dim / width;
    int64_t to = (col + 1) * e->dim / width;
    double largest;

    to = to > from ? to : from + 1;
    largest = s->dim_std[from];
    for (int64_t d = from; d < to; d++)
        largest = fmax(largest, s->dim_std[d]);
    return largest;
}

lw_status lw_plot_dimensions(const lw_embedding *files, const lw_embedding_stats *stats,
                             int n_files, lw_canvas *ret, lw_err *err)
{
    const int x = MARGIN + 8 * CHAR, y = MARGIN + 2 * LINE, width = 600, height = 260;
    double low = (double)INFINITY, high = 0;
    int first, last;
    char s[64];

    for (int f = 0; f < n_files; f++)
        for (int64_t d = 0; d < files[f].dim; d++) {
            high = fmax(high, stats[f].dim_std[d]);
            if (stats[f].dim_std[d] > 0)
                low = fmin(low, stats[f].dim_std[d]);
        }
    first = high > 0 ? (int)floor(log10(fmax(low, high * 1e-6))) : 0;
    last = high > 0 ? (int)ceil(log10(high)) : 1;
    last = last > first ? last : first + 1;
    LW_TRY(lw_canvas_init(ret, x + width + 2 * MARGIN, y + height + 3 * LINE, PAPER, err));
    text(ret, MARGIN, MARGIN, "Standard deviation of each dimension over the rows", INK);
    draw_names(ret, x, MARGIN + LINE, n_files);
    draw_frame(ret, x, y, width, height);
    for (int e = first; e <= last; e++) {
        const int at = y + height - (e - first) * height / (last - first);

        lw_canvas_line(ret, x, at, x + width, at, FRAME);
        snprintf(s, sizeof(s), "1e%d", e);
        text_left_of(ret, x - 4, at - 7, s, INK);
    }
    for (int f = 0; f < n_files; f++) {
        int before = 0;

        for (int col = 0; col < width; col++) {
            const double v = column_std(&files[f], &stats[f], col, width);
            const double t = v > 0 ? (log10(v) - first) / (last - first) : 0;
            const int at = y + height - (int)(fmax(t, 0) * height);

            lw_canvas_line(ret, x + (col ? col - 1 : 0), col ? before : at, x + col, at,
                           file_colour(f));
            before = at;
        }
    }
    text(ret, x, y + height + 4, "0", INK);
    snprintf(s, sizeof(s), "dimension %lld", (long long)files[0].of[files[0].dim - 1]);
    text_left_of(ret, x + width, y + height + 4, s, INK);
    return LW_OK;
}

/* ---- pictures ---- */

lw_status lw_plot_pixels(const uint8_t *a, const uint8_t *b, int width, int height, double gain,
                         lw_canvas *ret, lw_err *err)
{
    LW_TRY(lw_canvas_init(ret, width, height, 0, err));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const size_t at = ((size_t)y * (size_t)width + (size_t)x) * 3;
            int largest = 0;

            for (size_t ch = 0; ch < 3; ch++) {
                const int off = abs(a[at + ch] - b[at + ch]);

                largest = off > largest ? off : largest;
            }
            lw_canvas_fill(ret, x, y, 1, 1, lw_colour_scale(largest * gain / 255));
        }
    return LW_OK;
}
