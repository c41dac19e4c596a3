#ifndef LW_TESTS_GOLDEN_ENCODER_UTIL_H
#define LW_TESTS_GOLDEN_ENCODER_UTIL_H

/* What the encoder's tests share. */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>
#include <jansson.h>

#include "common/err.h"

/* Path below tests/data or below the source root, in a static ring of buffers. */
static inline const char *path_below(const char *variable, const char *name)
{
    static char ring[8][1024];
    static int next;
    const char *root = getenv(variable);
    char *path = ring[next++ % 8];

    if (!root)
        fail_msg("%s is not set; run through `meson test`", variable);
    snprintf(path, sizeof ring[0], "%s/%s", root, name);
    return path;
}

static inline const char *data_path(const char *name)
{
    return path_below("LW_TEST_DATA", name);
}

static inline const char *source_path(const char *name)
{
    return path_below("LW_SOURCE_ROOT", name);
}

static inline json_t *load_json(const char *path)
{
    json_error_t e;
    json_t *j = json_load_file(path, JSON_ALLOW_NUL, &e);

    if (!j)
        fail_msg("%s:%d: %s", path, e.line, e.text);
    return j;
}

/* Fail the test with the error's text unless st is LW_OK. */
#define assert_ok(st, err)                                                                         \
    do {                                                                                           \
        if ((st) != LW_OK)                                                                         \
            fail_msg("%s: %s", lw_status_name(st), (err)->text);                                   \
    } while (0)

/* The call failed with this code, and its message names what it should. */
static inline void assert_error(lw_status st, const lw_err *err, lw_status code, const char *names)
{
    if (st != code || err->code != code || !strstr(err->text, names))
        fail_msg("expected %s naming '%s', got %s: %s", lw_status_name(code), names,
                 lw_status_name(st), st == LW_OK ? "" : err->text);
}

#endif
