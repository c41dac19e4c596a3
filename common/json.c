/* Reading configuration files through jansson, with messages that say where and what. */

#include "common/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/file.h"

lw_status lw_json_parse(const char *text, size_t len, const char *label, json_t **ret, lw_err *err)
{
    json_error_t cause;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &cause);

    if (root == NULL &&
        cause.text[0] == '\0') /* how jansson tells most of its failed allocations */
        return lw_fail(err, LW_E_NOMEM, "%s: no memory to parse %zu bytes of JSON", label, len);
    if (root == NULL)
        return lw_fail(err, LW_E_FORMAT, "%s: line %d, column %d: %s", label, cause.line,
                       cause.column, cause.text);
    *ret = root;
    return LW_OK;
}

lw_status lw_json_load(const char *path, json_t **ret, lw_err *err)
{
    lw_status status;
    char *text = NULL;
    size_t len = 0;

    LW_TRY(lw_file_read(path, LW_JSON_MAX_FILE_BYTES, &text, &len, err));
    status = lw_json_parse(text, len, path, ret, err);
    free(text);
    return status;
}

static bool failed(const lw_err *err)
{
    return err && err->code != LW_OK;
}

/* What a value is, short enough for a message. */
static const char *describe(const json_t *v, char *buf, size_t size)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        snprintf(buf, size, "an array of %zu", json_array_size(v));
        return buf;
    case JSON_STRING:
        snprintf(buf, size, "\"%.40s\"%s", json_string_value(v),
                 json_string_length(v) > 40 ? "..." : "");
        return buf;
    case JSON_INTEGER:
        snprintf(buf, size, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        return buf;
    case JSON_REAL:
        snprintf(buf, size, "%g", json_real_value(v));
        return buf;
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    default:
        return "null";
    }
}

static void wrong(lw_err *err, const char *path, const char *key, const json_t *v,
                  const char *expected)
{
    char found[64];

    lw_fail(err, LW_E_FORMAT, "%s: \"%s\": expected %s, found %s", path, key, expected,
            describe(v, found, sizeof(found)));
}

static void missing(lw_err *err, const char *path, const char *key, const char *expected)
{
    lw_fail(err, LW_E_FORMAT, "%s: \"%s\" is missing; expected %s", path, key, expected);
}

static void int_range_text(char *buf, size_t size, int64_t min, int64_t max)
{
    snprintf(buf, size, "an integer from %" PRId64 " to %" PRId64, min, max);
}

/* The value of a key; null counts as missing, as in the configuration files of transformers. */
static const json_t *lookup(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);

    return v && !json_is_null(v) ? v : NULL;
}

static bool int_in_range(const json_t *v, int64_t min, int64_t max)
{
    return json_is_integer(v) && json_integer_value(v) >= min && json_integer_value(v) <= max;
}

int64_t lw_json_int(const json_t *obj, const char *path, const char *key, int64_t min, int64_t max,
                    bool has_default, int64_t dflt, lw_err *err)
{
    const json_t *v;
    char expected[80];

    if (failed(err))
        return dflt;
    v = lookup(obj, key);
    int_range_text(expected, sizeof(expected), min, max);
    if (v && int_in_range(v, min, max))
        return json_integer_value(v);
    if (v)
        wrong(err, path, key, v, expected);
    else if (!has_default)
        missing(err, path, key, expected);
    return dflt;
}

double lw_json_num(const json_t *obj, const char *path, const char *key, bool has_default,
                   double dflt, lw_err *err)
{
    const json_t *v;

    if (failed(err))
        return dflt;
    v = lookup(obj, key);
    if (v && json_is_number(v))
        return json_number_value(v);
    if (v)
        wrong(err, path, key, v, "a number");
    else if (!has_default)
        missing(err, path, key, "a number");
    return dflt;
}

bool lw_json_bool(const json_t *obj, const char *path, const char *key, bool dflt, lw_err *err)
{
    const json_t *v;

    if (failed(err))
        return dflt;
    v = lookup(obj, key);
    if (v && json_is_boolean(v))
        return json_is_true(v);
    if (v)
        wrong(err, path, key, v, "true or false");
    return dflt;
}

const char *lw_json_str(const json_t *obj, const char *path, const char *key, const char *dflt,
                        lw_err *err)
{
    const json_t *v;

    if (failed(err))
        return dflt;
    v = lookup(obj, key);
    if (v && json_is_string(v))
        return json_string_value(v);
    if (v)
        wrong(err, path, key, v, "a text");
    return dflt;
}

int lw_json_int_array(const json_t *obj, const char *path, const char *key, int64_t min,
                      int64_t max, int64_t *ret, int cap, lw_err *err)
{
    const json_t *v;
    char expected[128], range[80];
    int n;

    if (failed(err))
        return 0;
    v = lookup(obj, key);
    int_range_text(range, sizeof(range), min, max);
    snprintf(expected, sizeof(expected), "an array of at most %d, each %s", cap, range);
    if (v == NULL || !json_is_array(v) || json_array_size(v) > (size_t)cap) {
        if (v)
            wrong(err, path, key, v, expected);
        else
            missing(err, path, key, expected);
        return 0;
    }
    n = (int)json_array_size(v);
    for (int i = 0; i < n; i++) {
        const json_t *item = json_array_get(v, (size_t)i);

        if (!int_in_range(item, min, max)) {
            wrong(err, path, key, item, expected);
            return 0;
        }
        ret[i] = json_integer_value(item);
    }
    return n;
}
