/* The report of an experiment: the page is written part by part, so that only one picture is in
 * memory at a time. */

#include "orchestrate/experiment/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/png.h"
#include "orchestrate/canvas.h"
#include "orchestrate/embedded.h"
#include "orchestrate/experiment/outcome.h"
#include "orchestrate/html.h"
#include "orchestrate/manifest.h"

#define MAX_PART     ((size_t)1 << 30) /* one part of the page: a picture, or all data */
#define MAX_CSV      ((size_t)64 << 20)
#define MIN_SIDE     16
#define DEFAULT_SIDE 1024
/* A smaller picture has fewer bytes, but more for each pixel: what is smooth shrinks to detail. */
#define DENSER 1.5

typedef struct page {
    lw_outcome outcome;
    lw_outfile file;
    lw_buf part;
    lw_arena scratch; /* of one picture */
    json_t *made_by, *versions;
    size_t stored_bytes, embedded_bytes;
    int side; /* longest side of the embedded pictures; 0: as they are */
} page;

static void flush(page *p)
{
    lw_outfile_write(&p->file, p->part.data, p->part.len);
    lw_buf_clear(&p->part);
}

/* ---- who made the pictures ---- */

/* Count one more cell for an entry with the same members, or append it. Takes over `entry`. */
static bool count_entry(json_t *list, json_t *entry)
{
    json_t *known;
    size_t i;

    json_array_foreach(list, i, known)
    {
        const json_int_t n = json_integer_value(json_object_get(known, "cells"));

        json_object_set(entry, "cells", json_object_get(known, "cells"));
        if (json_equal(known, entry)) {
            json_decref(entry);
            return json_object_set_new(known, "cells", json_integer(n + 1)) == 0;
        }
    }
    return json_object_set_new(entry, "cells", json_integer(1)) == 0 &&
           json_array_append_new(list, entry) == 0;
}

static bool add_stages(page *p, const json_t *manifest)
{
    json_t *version = json_object_get(manifest, "version"), *stage, *known;
    const char *op;
    bool ok = true, new_version = json_is_string(version);
    size_t i;

    json_array_foreach(p->versions, i, known) new_version =
        new_version && !json_equal(known, version);
    if (new_version)
        ok = json_array_append(p->versions, version) == 0;
    json_object_foreach(json_object_get(manifest, "stages"), op, stage)
    {
        json_t *entry = json_deep_copy(stage);

        ok = ok && entry && json_object_set_new(entry, "op", json_string(op)) == 0 &&
             count_entry(p->made_by, entry);
    }
    return ok;
}

/* A picture of somebody else, or with a manifest that cannot be read, says nothing. */
static lw_status read_manifest(page *p, const lw_picture *picture, lw_err *err)
{
    json_t *manifest = NULL;
    lw_err ignored = { 0 };
    bool ok;

    if (!picture->manifest ||
        lw_manifest_parse(picture->manifest, picture->label, &manifest, &ignored) != LW_OK)
        return LW_OK;
    /* lw_manifest_parse states our own version; the text has that of the maker. */
    json_object_del(manifest, "version");
    {
        json_t *as_written = json_loads(picture->manifest, 0, NULL);

        if (json_is_string(json_object_get(as_written, "version")))
            json_object_set(manifest, "version", json_object_get(as_written, "version"));
        json_decref(as_written);
    }
    ok = add_stages(p, manifest);
    json_decref(manifest);
    return ok ? LW_OK : lw_fail(err, LW_E_NOMEM, "no memory for the stages of an experiment");
}

/* ---- pictures ---- */

/* How small the pictures have to be to fit the limit; 0: they do. */
static int side_within(const lw_outcome *o, size_t max_bytes, size_t *ret_stored)
{
    size_t stored = 0, i;
    int largest = 0;
    double side;
    json_t *cell;

    json_array_foreach(o->cells, i, cell)
    {
        const json_int_t w = json_integer_value(json_object_get(cell, "width")),
                         h = json_integer_value(json_object_get(cell, "height"));
        const json_int_t longest = w > h ? w : h;
        char path[4096];
        struct stat st;

        if (!lw_outcome_done(cell))
            continue;
        snprintf(path, sizeof(path), "%s/cells/%s.png", o->dir,
                 json_string_value(json_object_get(cell, "id")));
        if (stat(path, &st) == 0 && S_ISREG(st.st_mode))
            stored += (size_t)st.st_size;
        if (longest > largest && longest <= LW_PNG_MAX_SIDE)
            largest = (int)longest;
    }
    *ret_stored = stored;
    if (stored <= max_bytes)
        return 0;
    side = (largest ? largest : DEFAULT_SIDE) * sqrt((double)max_bytes / ((double)stored * DENSER));
    return side < MIN_SIDE ? MIN_SIDE : (int)side;
}

/* The picture with its longest side as given, as a PNG without texts. */
static lw_status shrink(const uint8_t *rgb, int width, int height, int side, lw_buf *ret,
                        lw_err *err)
{
    const int longest = width > height ? width : height;
    const int w = (int)((int64_t)width * side / longest),
              h = (int)((int64_t)height * side / longest);
    lw_canvas canvas = { 0 };
    lw_status s = lw_canvas_init(&canvas, w > 0 ? w : 1, h > 0 ? h : 1, 0, err);

    if (s == LW_OK) {
        lw_canvas_picture(&canvas, 0, 0, canvas.width, canvas.height, rgb, width, height);
        s = lw_png_encode(ret, canvas.rgb, canvas.width, canvas.height, NULL, 0, err);
    }
    lw_canvas_deinit(&canvas);
    return s;
}

static lw_status put_picture(page *p, const json_t *cell, const lw_picture *picture,
                             const uint8_t *rgb, lw_err *err)
{
    const bool as_it_is = p->side == 0 || (picture->width <= p->side && picture->height <= p->side);
    lw_buf small;
    lw_status s = LW_OK;

    lw_buf_init(&small, MAX_PART);
    if (!as_it_is)
        s = shrink(rgb, picture->width, picture->height, p->side, &small, err);
    if (s == LW_OK) {
        const lw_buf *png = as_it_is ? &picture->file : &small;

        lw_buf_puts(&p->part, "<img alt=\"\" data-id=\"");
        lw_html_text(&p->part, json_string_value(json_object_get(cell, "id")));
        lw_buf_puts(&p->part, "\" src=\"");
        lw_html_png(&p->part, png->data, png->len);
        lw_buf_puts(&p->part, "\">\n");
        p->embedded_bytes += png->len;
    }
    lw_buf_deinit(&small);
    return s;
}

/* A cell that says it is done: its picture, or why it has none. */
static lw_status put_cell(page *p, json_t *cell, lw_err *err)
{
    lw_picture picture;
    const uint8_t *rgb = NULL;
    lw_err why = { 0 };
    lw_status s;

    lw_arena_reset(&p->scratch);
    s = lw_outcome_picture(&p->outcome, cell, &p->scratch, &picture, &rgb, &why);
    if (s == LW_OK) {
        s = read_manifest(p, &picture, err);
        if (s == LW_OK)
            s = put_picture(p, cell, &picture, rgb, err);
        if (s == LW_OK && (json_object_set_new(cell, "width", json_integer(picture.width)) != 0 ||
                           json_object_set_new(cell, "height", json_integer(picture.height)) != 0))
            s = lw_fail(err, LW_E_NOMEM, "no memory for the report");
    } else if (json_object_set_new(cell, "status", json_string("failed")) != 0 ||
               json_object_set_new(cell, "error", json_string(why.text)) != 0) {
        s = lw_fail(err, LW_E_NOMEM, "no memory for the report");
    } else {
        s = LW_OK;
    }
    lw_picture_deinit(&picture);
    flush(p);
    return s;
}

/* ---- the page ---- */

static void put_head(page *p)
{
    static const struct {
        const char *key, *before, *after;
    } parts[] = {
        { "question", "<p class=\"question\">", "</p>\n" },
        { "description", "<p class=\"description\">", "</p>\n" },
    };
    lw_buf *out = &p->part;

    lw_html_begin_page(out, p->outcome.title,
                       &(lw_html_page){ .css = lw_embedded_report_css,
                                        .script = lw_embedded_report_js,
                                        .files = p->side != 0 });
    lw_buf_puts(out, "<header>\n<h1>");
    lw_html_text(out, p->outcome.title);
    lw_buf_puts(out, "</h1>\n");
    for (size_t i = 0; i < LW_ARRAY_LEN(parts); i++) {
        const char *text = json_string_value(json_object_get(p->outcome.root, parts[i].key));

        if (!text || !*text)
            continue;
        lw_buf_puts(out, parts[i].before);
        lw_html_text(out, text);
        lw_buf_puts(out, parts[i].after);
    }
    lw_buf_puts(out, "</header>\n<noscript><p>This report shows its pictures with a script that it "
                     "carries, and the browser does not run it. The folder of the experiment has "
                     "the same in contact.png, results.csv and cells/.</p></noscript>\n"
                     "<main id=\"report\"></main>\n<template id=\"pictures\">\n");
    flush(p);
}

/* results.csv as a string, null when there is none or it is no text. */
static json_t *read_csv(const char *dir)
{
    char path[4096], *text = NULL;
    size_t n = 0;
    json_t *csv = NULL;
    lw_err ignored = { 0 };

    snprintf(path, sizeof(path), "%s/results.csv", dir);
    if (lw_file_read(path, MAX_CSV, &text, &n, &ignored) == LW_OK)
        csv = json_stringn(text, n);
    free(text);
    return csv ? csv : json_null();
}

static lw_status put_data(page *p, lw_err *err)
{
    json_t *about =
        json_pack("{s:O, s:O, s:I, s:I, s:i, s:o}", "made_by", p->made_by, "versions", p->versions,
                  "bytes", (json_int_t)p->stored_bytes, "embedded", (json_int_t)p->embedded_bytes,
                  "thumbnail", p->side, "csv", read_csv(p->outcome.dir));

    if (!about || json_object_set_new(p->outcome.root, "page", about) != 0)
        return lw_fail(err, LW_E_NOMEM, "no memory for the report");
    lw_buf_puts(&p->part, "</template>\n");
    lw_html_json(&p->part, "results", p->outcome.root);
    lw_html_script(&p->part, lw_embedded_report_js);
    lw_html_end(&p->part);
    return LW_OK;
}

static lw_status write_page(page *p, lw_err *err)
{
    json_t *cell;
    size_t i;

    put_head(p);
    json_array_foreach(p->outcome.cells, i, cell) if (lw_outcome_done(cell))
        LW_TRY(put_cell(p, cell, err));
    LW_TRY(put_data(p, err));
    if (p->part.failed)
        return lw_fail(err, LW_E_NOMEM, "no memory for the report of %s", p->outcome.dir);
    flush(p);
    return lw_outfile_commit(&p->file, err);
}

lw_status lw_experiment_report_within(const char *dir, size_t max_picture_bytes, lw_err *err)
{
    page p = { 0 };
    char path[4096];
    lw_status s;

    LW_TRY(lw_outcome_load(dir, &p.outcome, err));
    lw_buf_init(&p.part, MAX_PART);
    lw_arena_init(&p.scratch, "report", 0);
    p.side = side_within(&p.outcome, max_picture_bytes, &p.stored_bytes);
    p.made_by = json_array();
    p.versions = json_array();
    snprintf(path, sizeof(path), "%s/report.html", dir);
    s = lw_outfile_open(&p.file, path, err);
    if (s == LW_OK) {
        s = write_page(&p, err);
        if (s != LW_OK)
            lw_outfile_abort(&p.file);
    }
    json_decref(p.made_by);
    json_decref(p.versions);
    lw_arena_deinit(&p.scratch);
    lw_buf_deinit(&p.part);
    lw_outcome_deinit(&p.outcome);
    return s;
}

lw_status lw_experiment_report(const char *dir, lw_err *err)
{
    return lw_experiment_report_within(dir, LW_REPORT_MAX_PICTURES, err);
}
