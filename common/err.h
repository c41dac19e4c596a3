#ifndef LW_COMMON_ERR_H
#define LW_COMMON_ERR_H

#include "common/status.h"

#define LW_MUST_USE       __attribute__((warn_unused_result))
#define LW_PRINTF(f, a)   __attribute__((format(printf, f, a)))
#define LW_UNUSED         __attribute__((unused))
#define LW_ARRAY_LEN(a)   (sizeof(a) / sizeof((a)[0]))
#define LW_ERR_TEXT_BYTES 1024

/**
 * What went wrong, for people: a code and one line that names the thing, what it was, what it
 * should be, and what to do. Held by the caller, usually on its stack; zero is "no error".
 * Thread rule: one thread at a time.
 */
typedef struct lw_err {
    lw_status code;
    char text[LW_ERR_TEXT_BYTES];
} lw_err;

/**
 * Record a failure and return its code, so that `return lw_fail(err, ...)` reads as one step.
 * err may be NULL. Text beyond LW_ERR_TEXT_BYTES is cut at a character boundary.
 */
lw_status lw_fail(lw_err *err, lw_status code, const char *fmt, ...) LW_PRINTF(3, 4);

/** Put "prefix: " before the text of an error already recorded; err may be NULL. Returns its code
 * (or `code` when err is NULL), so it can end a function. */
lw_status lw_err_prefix(lw_err *err, lw_status code, const char *fmt, ...) LW_PRINTF(3, 4);

/** Return the status of `expr` from the enclosing function unless it is LW_OK. */
#define LW_TRY(expr)                                                                               \
    do {                                                                                           \
        lw_status lw_try_status_ = (expr);                                                         \
        if (lw_try_status_ != LW_OK)                                                               \
            return lw_try_status_;                                                                 \
    } while (0)

#endif
