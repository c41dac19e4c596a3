#ifndef LW_TESTS_UNIT_UNIT_H
#define LW_TESTS_UNIT_UNIT_H

/* What most unit tests want: cmocka, a folder of their own for files, bytes in and out of them. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/err.h"

/** Fail with the error's text when a call that must succeed did not. */
#define assert_ok(call, err)                                                                       \
    do {                                                                                           \
        lw_status unit_status_ = (call);                                                           \
        if (unit_status_ != LW_OK)                                                                 \
            fail_msg("%s: %s: %s", #call, lw_status_name(unit_status_), (err)->text);              \
    } while (0)

/** Fail unless `text` holds `part`. */
#define assert_contains(text, part)                                                                \
    do {                                                                                           \
        if (strstr((text), (part)) == NULL)                                                        \
            fail_msg("\"%s\" does not hold \"%s\"", (text), (part));                               \
    } while (0)

/** A path under tests/data; valid until the next call. */
const char *unit_data(const char *name);
/** The path of `name` in this test's own temporary folder, which is removed when the program ends.
 * One of 8 buffers in turn. */
const char *unit_tmp(const char *name);
/** Write a file into the temporary folder; returns its path as unit_tmp. */
const char *unit_write(const char *name, const void *data, size_t n);
/** Number of files in the temporary folder. */
int unit_count_files(void);

#endif
