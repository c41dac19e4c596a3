/* Results of an experiment as JSON and CSV. */

#include "orchestrate/experiment/results.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "lw_version.h"

static json_t *axis_json(const lw_grid_axis *axis)
{
    json_t *o = json_pack("{s:s, s:[]}", "name", axis->name, "values");

    for (int i = 0; o && i < axis->n; i++)
        json_array_append_new(json_object_get(o, "values"), json_string(axis->values[i].label));
    if (o && axis->title)
        json_object_set_new(o, "title", json_string(axis->title));
    return o;
}

static json_t *cell_json(const lw_grid *g, const lw_grid_cell *c)
{
    json_t *o = json_pack("{s:s, s:{}, s:O, s:s}", "id", c->id, "at", "settings", c->settings,
                          "status", "missing");

    for (int k = 0; o && k < g->n_axes; k++)
        json_object_set_new(json_object_get(o, "at"), g->axes[k].name,
                            json_string(g->axes[k].values[c->at[k]].label));
    return o;
}

json_t *lw_results_new(const lw_grid *g, const lw_grid_cell *cells)
{
    json_t *r = json_pack(
        "{s:i, s:s, s:s, s:s, s:s, s:s, s:[], s:n, s:[]}", "latentwire_experiment", 1, "name",
        g->name, "title", g->title, "description", g->description ? g->description : "", "question",
        g->question ? g->question : "", "version", LW_VERSION, "axes", "baseline", "cells");
    bool ok = r != NULL;

    for (int i = 0; ok && i < g->n_axes; i++)
        ok = json_array_append_new(json_object_get(r, "axes"), axis_json(&g->axes[i])) == 0;
    if (ok && g->has_baseline)
        ok = json_object_set_new(r, "baseline", json_object()) == 0;
    for (int i = 0; ok && i < g->n_axes; i++)
        if (g->baseline[i] >= 0)
            ok = json_object_set_new(json_object_get(r, "baseline"), g->axes[i].name,
                                     json_string(g->axes[i].values[g->baseline[i]].label)) == 0;
    for (int i = 0; ok && i < g->n_cells; i++)
        ok = json_array_append_new(json_object_get(r, "cells"), cell_json(g, &cells[i])) == 0;
    if (ok)
        return r;
    json_decref(r);
    return NULL;
}

json_t *lw_results_old(const char *dir)
{
    char path[PATH_MAX];
    json_t *r = NULL;

    if (snprintf(path, sizeof(path), "%s/results.json", dir) < (int)sizeof(path) &&
        lw_json_load(path, &r, NULL) == LW_OK)
        return r;
    return NULL;
}

double lw_results_seconds(const json_t *results, const char *id)
{
    const json_t *cells = json_object_get(results, "cells"), *c;
    size_t i;

    json_array_foreach(cells, i, c)
    {
        const char *other = json_string_value(json_object_get(c, "id"));

        if (other && !strcmp(other, id))
            return json_number_value(json_object_get(c, "seconds"));
    }
    return 0;
}

/* JSON has no infinity and no NaN: null. */
static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

lw_status lw_results_set_pair(json_t *measures, const lw_pair_measures *m, lw_err *err)
{
    if (json_object_set_new(measures, "psnr_db", number(m->psnr_db)) ||
        json_object_set_new(measures, "ssim", number(m->ssim)) ||
        json_object_set_new(measures, "mean_abs", number(m->mean_abs)))
        return lw_fail(err, LW_E_NOMEM, "no memory for the results of an experiment");
    return LW_OK;
}

/* ---- CSV ---- */

static void csv_text(lw_buf *out, const char *text)
{
    const bool quote = strpbrk(text, ",\"\n") != NULL;

    if (quote)
        lw_buf_putc(out, '"');
    for (const char *c = text; *c; c++) {
        if (*c == '"')
            lw_buf_putc(out, '"');
        lw_buf_putc(out, *c);
    }
    if (quote)
        lw_buf_putc(out, '"');
}

static void csv_value(lw_buf *out, const json_t *v)
{
    if (json_is_string(v))
        csv_text(out, json_string_value(v));
    else if (json_is_integer(v))
        lw_buf_printf(out, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        lw_buf_printf(out, "%.9g", json_real_value(v));
    else if (json_is_boolean(v))
        lw_buf_puts(out, json_is_true(v) ? "true" : "false");
    else if (json_is_array(v)) {
        char text[4096] = "";

        for (size_t i = 0, n = 0; i < json_array_size(v) && n < sizeof(text); i++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", i ? "; " : "",
                                  json_string_value(json_array_get(v, i)));
        csv_text(out, text);
    }
}

/* All options that a cell sets, in the order of their first use. */
static json_t *setting_names(const json_t *cells)
{
    json_t *names = json_object(), *c, *v;
    const char *key;
    size_t i;

    json_array_foreach(cells, i, c)
    {
        json_object_foreach(json_object_get(c, "settings"), key, v)
        {
            json_object_set_new(names, key, json_true());
        }
    }
    return names;
}

static void csv_row(lw_buf *out, const json_t *axes, const json_t *names, const json_t *cell)
{
    static const char *const plain[] = { "width",       "height",        "n_tokens",
                                         "text_digest", "pixels_digest", "seconds" };
    static const char *const measures[] = { "luminance", "contrast", "colourfulness", "sharpness",
                                            "psnr_db",   "ssim",     "mean_abs" };
    const json_t *axis;
    const char *key;
    size_t i;
    json_t *v;

#define CELL(head, object, name)                                                                   \
    do {                                                                                           \
        lw_buf_putc(out, ',');                                                                     \
        if (cell)                                                                                  \
            csv_value(out, json_object_get(object, name));                                         \
        else                                                                                       \
            lw_buf_puts(out, head);                                                                \
        if (!cell)                                                                                 \
            csv_text(out, name);                                                                   \
    } while (0)
    if (cell)
        csv_value(out, json_object_get(cell, "id"));
    else
        lw_buf_puts(out, "id");
    CELL("", cell, "status");
    json_array_foreach(axes, i, axis)
    {
        CELL("at.", json_object_get(cell, "at"), json_string_value(json_object_get(axis, "name")));
    }
    json_object_foreach((json_t *)names, key, v)
    {
        CELL("set.", json_object_get(cell, "settings"), key);
    }
    for (i = 0; i < LW_ARRAY_LEN(plain); i++)
        CELL("", cell, plain[i]);
    for (i = 0; i < LW_ARRAY_LEN(measures); i++)
        CELL("", json_object_get(cell, "measures"), measures[i]);
    CELL("", cell, "error");
#undef CELL
    lw_buf_putc(out, '\n');
}

void lw_results_csv(const json_t *results, lw_buf *out)
{
    const json_t *cells = json_object_get(results, "cells"), *c;
    json_t *names = setting_names(cells);
    size_t i;

    csv_row(out, json_object_get(results, "axes"), names, NULL);
    json_array_foreach(cells, i, c)
    {
        csv_row(out, json_object_get(results, "axes"), names, c);
    }
    json_decref(names);
}
