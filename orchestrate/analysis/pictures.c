/* Pictures against each other: reading, measures, difference pictures, a page. */

#include "orchestrate/analysis/pictures.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "common/file.h"
#include "common/png.h"
#include "orchestrate/analysis/analysis.h"
#include "orchestrate/analysis/page.h"
#include "orchestrate/analysis/plots.h"
#include "orchestrate/output.h"

/* ---- reading ---- */

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The head of a PNG names its sides at byte 16; what they would take is known before it is read. */
static lw_status check_size(const uint8_t *data, size_t n, const char *path, lw_err *err)
{
    const uint64_t width = n >= 24 ? big_endian(data + 16) : 0;
    const uint64_t height = n >= 24 ? big_endian(data + 20) : 0;

    if (width > LW_PNG_MAX_SIDE || height > LW_PNG_MAX_SIDE ||
        width * height * 3 > LW_MAX_FRAME_BYTES)
        return lw_fail(err, LW_E_TOO_LARGE,
                       "%s: %" PRIu64 " x %" PRIu64 " pixels; at most %u MiB of them are read",
                       path, width, height, LW_MAX_FRAME_BYTES >> 20);
    return LW_OK;
}

static lw_status read_picture(const char *path, lw_arena *a, const uint8_t **ret, int *ret_width,
                              int *ret_height, lw_err *err)
{
    char *data = NULL;
    uint8_t *rgb = NULL;
    size_t n = 0;
    lw_status s;

    LW_TRY(lw_file_read(path, LW_MAX_PICTURE_FILE, &data, &n, err));
    s = check_size((const uint8_t *)data, n, path, err);
    if (s == LW_OK)
        s = lw_png_parse((const uint8_t *)data, n, path, a, &rgb, ret_width, ret_height, err);
    free(data);
    *ret = rgb;
    return s;
}

lw_status lw_pictures_make(const char *const *paths, int n_files, double gain, lw_arena *a,
                           lw_pictures *ret, lw_err *err)
{
    int largest = 0;

    *ret = (lw_pictures){ .n_files = n_files };
    for (int f = 0; f < n_files; f++) {
        int width = 0, height = 0;

        ret->paths[f] = paths[f];
        LW_TRY(read_picture(paths[f], a, &ret->rgb[f], &width, &height, err));
        if (f == 0) {
            ret->width = width;
            ret->height = height;
        } else if (width != ret->width || height != ret->height) {
            return lw_fail(err, LW_E_SHAPE,
                           "%s is %d x %d and %s is %d x %d; only pictures of one size can be "
                           "compared",
                           paths[0], ret->width, ret->height, paths[f], width, height);
        }
        ret->each[f] = lw_measure_picture(ret->rgb[f], width, height);
        if (f == 0)
            continue;
        LW_TRY(lw_measure_pair(ret->rgb[0], ret->rgb[f], width, height, &ret->pairs[f], err));
        largest = ret->pairs[f].largest > largest ? ret->pairs[f].largest : largest;
    }
    ret->gain = gain > 0 ? gain : largest ? 255.0 / largest : 1;
    return LW_OK;
}

/* ---- telling ---- */

void lw_pictures_print(const lw_pictures *p, FILE *out)
{
    fprintf(out, "%d x %d pixels\n\n   %10s %10s %13s %10s  file\n", p->width, p->height,
            "luminance", "contrast", "colourfulness", "sharpness");
    for (int f = 0; f < p->n_files; f++) {
        const lw_picture_measures *m = &p->each[f];

        fprintf(out, "%c  %10.4f %10.4f %13.2f %10.2f  ", 'A' + f, m->luminance, m->contrast,
                m->colourfulness, m->sharpness);
        lw_print_clean(out, p->paths[f], 0);
        fputc('\n', out);
    }
    fprintf(out, "\nagainst A:\n   %10s %10s %10s %10s  pixels that differ\n", "PSNR dB", "SSIM",
            "mean diff", "largest");
    for (int f = 1; f < p->n_files; f++) {
        const lw_pair_measures *m = &p->pairs[f];

        fprintf(out, "%c  ", 'A' + f);
        if (isinf(m->psnr_db))
            fprintf(out, "%10s", "equal");
        else
            fprintf(out, "%10.3f", m->psnr_db);
        if (isnan(m->ssim))
            fprintf(out, " %10s", "-");
        else
            fprintf(out, " %10.6f", m->ssim);
        fprintf(out, " %10.4f %10d  %" PRIu64 " of %" PRIu64 " (%.2f %%)\n", m->mean_abs,
                m->largest, m->n_differ, m->n_pixels,
                100 * (double)m->n_differ / (double)m->n_pixels);
    }
}

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

lw_status lw_pictures_json(const lw_pictures *p, json_t **ret, lw_err *err)
{
    json_t *files = json_array(), *pairs = json_array(), *o;

    for (int f = 0; f < p->n_files; f++) {
        const char letter[] = { (char)('A' + f), '\0' };
        const lw_picture_measures *m = &p->each[f];
        const lw_pair_measures *d = &p->pairs[f];
        json_t *path = json_string(p->paths[f]);

        json_array_append_new(
            files, json_pack("{s:s, s:o, s:i, s:i, s:f, s:f, s:f, s:f}", "name", letter, "path",
                             path ? path : json_null(), "width", p->width, "height", p->height,
                             "luminance", m->luminance, "contrast", m->contrast, "colourfulness",
                             m->colourfulness, "sharpness", m->sharpness));
        if (f == 0)
            continue;
        json_array_append_new(pairs, json_pack("{s:s, s:s, s:o, s:o, s:f, s:i, s:I, s:I}", "a", "A",
                                               "b", letter, "psnr_db", number(d->psnr_db), "ssim",
                                               number(d->ssim), "mean_abs", d->mean_abs, "largest",
                                               d->largest, "pixels", (json_int_t)d->n_pixels,
                                               "pixels_differ", (json_int_t)d->n_differ));
    }
    o = json_pack("{s:s, s:f, s:o, s:o}", "kind", "pictures", "gain", p->gain, "files", files,
                  "pairs", pairs);
    if (!o)
        return lw_fail(err, LW_E_NOMEM, "no memory for the measures as JSON");
    *ret = o;
    return LW_OK;
}

lw_status lw_pictures_difference(const lw_pictures *p, int file, const char *path, lw_err *err)
{
    char about[96];
    lw_canvas c = { 0 };
    lw_status s = lw_plot_pixels(p->rgb[0], p->rgb[file], p->width, p->height, p->gain, &c, err);

    snprintf(about, sizeof(about), "Largest difference of a channel, times %.6g", p->gain);
    if (s == LW_OK)
        s = lw_canvas_write(&c, path, "Title", about, err);
    lw_canvas_deinit(&c);
    return s;
}

/* ---- the page ---- */

static void put_tables(lw_buf *b, const lw_pictures *p)
{
    lw_buf_puts(b,
                "<table><tr><th></th><th class=\"t\">file</th><th>luminance</th>"
                "<th>contrast</th><th>colourfulness</th><th>sharpness</th><th>PSNR dB</th>"
                "<th>SSIM</th><th>mean difference</th><th>largest</th><th>pixels that differ</th>"
                "</tr>\n");
    for (int f = 0; f < p->n_files; f++) {
        const lw_picture_measures *m = &p->each[f];
        const lw_pair_measures *d = &p->pairs[f];

        lw_buf_printf(b, "<tr><th>%c</th><td class=\"t\">", 'A' + f);
        lw_html_text(b, p->paths[f]);
        lw_buf_puts(b, "</td>");
        lw_page_number(b, m->luminance);
        lw_page_number(b, m->contrast);
        lw_page_number(b, m->colourfulness);
        lw_page_number(b, m->sharpness);
        if (f > 0) {
            if (isinf(d->psnr_db))
                lw_buf_puts(b, "<td>equal</td>");
            else
                lw_page_number(b, d->psnr_db);
            lw_page_number(b, d->ssim);
            lw_page_number(b, d->mean_abs);
            lw_buf_printf(b, "<td>%d</td><td>%" PRIu64 "</td>", d->largest, d->n_differ);
        } else {
            lw_buf_puts(b, "<td></td><td></td><td></td><td></td><td></td>");
        }
        lw_buf_puts(b, "</tr>\n");
    }
    lw_buf_puts(b, "</table>\n");
}

lw_status lw_pictures_page(const lw_pictures *p, const json_t *json, const char *path, lw_err *err)
{
    char id[32], about[64];
    lw_status s = LW_OK;
    lw_buf b;

    lw_page_begin(&b, "Pictures compared");
    put_tables(&b, p);
    for (int f = 0; f < p->n_files && s == LW_OK; f++) {
        lw_canvas c = { p->width, p->height, (uint8_t *)p->rgb[f] };

        snprintf(id, sizeof(id), "picture-%c", 'A' + f);
        snprintf(about, sizeof(about), "%c", 'A' + f);
        s = lw_page_plot(&b, id, about, &c, err);
    }
    lw_buf_printf(&b,
                  "<h2>Differences from A</h2>\n<p>Largest difference of a channel, times %.6g; "
                  "dark is 0, yellow 255.</p>\n",
                  p->gain);
    for (int f = 1; f < p->n_files && s == LW_OK; f++) {
        lw_canvas c = { 0 };

        snprintf(id, sizeof(id), "difference-%c", 'A' + f);
        snprintf(about, sizeof(about), "A and %c", 'A' + f);
        s = lw_plot_pixels(p->rgb[0], p->rgb[f], p->width, p->height, p->gain, &c, err);
        if (s == LW_OK)
            s = lw_page_plot(&b, id, about, &c, err);
        lw_canvas_deinit(&c);
    }
    return lw_page_end(&b, json, path, s, err);
}
