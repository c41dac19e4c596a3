/* The folder of an experiment, read back. */

#include "orchestrate/experiment/outcome.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"

#define FILE_NAME    "results.json"
#define MAX_ID_BYTES 64

static const char *string_at(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* ---- checks ---- */

static lw_status check_axis(const lw_outcome *o, size_t i, lw_err *err)
{
    const json_t *axis = json_array_get(o->axes, i), *values = json_object_get(axis, "values");
    const char *name = string_at(axis, "name");

    if (!name || !*name)
        return lw_fail(err, LW_E_FORMAT, "%s/" FILE_NAME ": axes[%zu] has no name", o->dir, i);
    for (size_t k = 0; k < i; k++)
        if (!strcmp(lw_outcome_axis_name(o, k), name))
            return lw_fail(err, LW_E_FORMAT, "%s/" FILE_NAME ": there are two axes \"%.60s\"",
                           o->dir, name);
    if (json_array_size(values) == 0)
        return lw_fail(err, LW_E_FORMAT, "%s/" FILE_NAME ": axis \"%.60s\" has no values", o->dir,
                       name);
    for (size_t k = 0; k < json_array_size(values); k++)
        if (!json_is_string(json_array_get(values, k)))
            return lw_fail(err, LW_E_FORMAT,
                           "%s/" FILE_NAME ": value %zu of axis \"%.60s\" is not a string", o->dir,
                           k, name);
    return LW_OK;
}

/* The id becomes part of a file's name. */
static bool good_id(const char *id)
{
    const size_t n = id ? strlen(id) : 0;

    return n > 0 && n <= MAX_ID_BYTES && strspn(id, "0123456789abcdef") == n;
}

static bool good_status(const char *status)
{
    return status &&
           (!strcmp(status, "done") || !strcmp(status, "failed") || !strcmp(status, "missing"));
}

static lw_status check_cell(const lw_outcome *o, size_t i, lw_err *err)
{
    const json_t *cell = json_array_get(o->cells, i), *at = json_object_get(cell, "at");
    const char *id = string_at(cell, "id"), *status = string_at(cell, "status"),
               *file = string_at(cell, "file");
    char expected[MAX_ID_BYTES + 16];

    if (!good_id(id))
        return lw_fail(err, LW_E_FORMAT,
                       "%s/" FILE_NAME ": cells[%zu]: id is \"%.60s\", expected hexadecimal digits",
                       o->dir, i, id ? id : "");
    if (!good_status(status))
        return lw_fail(err, LW_E_FORMAT,
                       "%s/" FILE_NAME ": cell %s: status is \"%.60s\", expected done, failed or "
                       "missing",
                       o->dir, id, status ? status : "");
    snprintf(expected, sizeof(expected), "cells/%s.png", id);
    if (file && strcmp(file, expected) != 0)
        return lw_fail(err, LW_E_FORMAT,
                       "%s/" FILE_NAME ": cell %s: file is \"%.60s\", expected \"%s\"", o->dir, id,
                       file, expected);
    for (size_t k = 0; k < json_array_size(o->axes); k++)
        if (lw_outcome_at(o, cell, k) == lw_outcome_n_values(o, k))
            return lw_fail(err, LW_E_FORMAT,
                           "%s/" FILE_NAME ": cell %s: \"%.60s\" is not a value of axis \"%.60s\"",
                           o->dir, id,
                           string_at(at, lw_outcome_axis_name(o, k))
                               ? string_at(at, lw_outcome_axis_name(o, k))
                               : "",
                           lw_outcome_axis_name(o, k));
    return LW_OK;
}

static lw_status check(lw_outcome *o, lw_err *err)
{
    if (json_integer_value(json_object_get(o->root, "latentwire_experiment")) != 1)
        return lw_fail(err, LW_E_FORMAT,
                       "%s/" FILE_NAME ": no results of an experiment in format 1 (key "
                       "latentwire_experiment)",
                       o->dir);
    o->name = string_at(o->root, "name");
    o->title = string_at(o->root, "title");
    o->axes = json_object_get(o->root, "axes");
    o->cells = json_object_get(o->root, "cells");
    if (!o->name || !*o->name)
        return lw_fail(err, LW_E_FORMAT, "%s/" FILE_NAME ": no name", o->dir);
    if (!o->title || !*o->title)
        o->title = o->name;
    if (json_array_size(o->axes) == 0 || json_array_size(o->axes) > LW_OUTCOME_MAX_AXES)
        return lw_fail(err, LW_E_FORMAT, "%s/" FILE_NAME ": %zu axes, expected 1 to %d", o->dir,
                       json_array_size(o->axes), LW_OUTCOME_MAX_AXES);
    if (!json_is_array(o->cells))
        return lw_fail(err, LW_E_FORMAT, "%s/" FILE_NAME ": no list of cells", o->dir);
    for (size_t i = 0; i < json_array_size(o->axes); i++)
        LW_TRY(check_axis(o, i, err));
    for (size_t i = 0; i < json_array_size(o->cells); i++)
        LW_TRY(check_cell(o, i, err));
    return LW_OK;
}

/* ---- reading ---- */

lw_status lw_outcome_load(const char *dir, lw_outcome *ret, lw_err *err)
{
    char path[4096];
    lw_status s;

    *ret = (lw_outcome){ .dir = dir };
    if (snprintf(path, sizeof(path), "%s/" FILE_NAME, dir) >= (int)sizeof(path))
        return lw_fail(err, LW_E_INVALID, "the folder's name is too long: %.60s...", dir);
    LW_TRY(lw_json_load(path, &ret->root, err));
    s = check(ret, err);
    if (s != LW_OK)
        lw_outcome_deinit(ret);
    return s;
}

void lw_outcome_deinit(lw_outcome *o)
{
    json_decref(o->root);
    *o = (lw_outcome){ 0 };
}

const char *lw_outcome_axis_name(const lw_outcome *o, size_t axis)
{
    return string_at(json_array_get(o->axes, axis), "name");
}

const char *lw_outcome_axis_title(const lw_outcome *o, size_t axis)
{
    const char *title = string_at(json_array_get(o->axes, axis), "title");

    return title && *title ? title : lw_outcome_axis_name(o, axis);
}

size_t lw_outcome_n_values(const lw_outcome *o, size_t axis)
{
    return json_array_size(json_object_get(json_array_get(o->axes, axis), "values"));
}

const char *lw_outcome_value(const lw_outcome *o, size_t axis, size_t value)
{
    const json_t *values = json_object_get(json_array_get(o->axes, axis), "values");

    return json_string_value(json_array_get(values, value));
}

size_t lw_outcome_at(const lw_outcome *o, const json_t *cell, size_t axis)
{
    const size_t n = lw_outcome_n_values(o, axis);
    const char *label = string_at(json_object_get(cell, "at"), lw_outcome_axis_name(o, axis));
    size_t i = 0;

    while (i < n && !(label && !strcmp(lw_outcome_value(o, axis, i), label)))
        i++;
    return i;
}

bool lw_outcome_done(const json_t *cell)
{
    return !strcmp(string_at(cell, "status"), "done");
}

lw_status lw_outcome_picture(const lw_outcome *o, const json_t *cell, lw_arena *a, lw_picture *ret,
                             const uint8_t **ret_rgb, lw_err *err)
{
    char *path = NULL;
    size_t n = strlen(o->dir) + MAX_ID_BYTES + 16;

    *ret = (lw_picture){ 0 };
    path = lw_arena_alloc(a, n, err);
    if (!path)
        return LW_E_NOMEM;
    snprintf(path, n, "%s/cells/%s.png", o->dir, string_at(cell, "id"));
    LW_TRY(lw_picture_read(path, a, ret, err));
    return lw_picture_pixels(ret, a, ret_rgb, err);
}
