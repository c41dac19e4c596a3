/*
 * Error texts. They quote names from files and messages that may be hostile, and end up on a
 * terminal, in a log line, in JSON and on the wire; so a text is always one line of well-formed
 * UTF-8 without control characters, whatever was formatted into it.
 */

#include "common/err.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/utf8.h"

/* Copy n bytes of src as a clean line; dst has LW_ERR_TEXT_BYTES. */
static void copy_clean(char *dst, const char *src, size_t n)
{
    size_t out = 0;

    for (size_t i = 0; i < n;) {
        size_t len = lw_utf8_len(src + i, n - i);
        unsigned char c = (unsigned char)src[i];
        /* U+0080..U+009F are control characters too, and some terminals obey them. */
        bool control = c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)src[i + 1] < 0xa0);

        if (len == 0 || control) {
            dst[out++] = '?';
            i += len ? len : 1;
            continue;
        }
        memcpy(dst + out, src + i, len);
        out += len;
        i += len;
    }
    dst[out] = '\0';
}

static size_t format(char *buf, size_t size, const char *fmt, va_list ap)
{
    int n = vsnprintf(buf, size, fmt, ap);

    if (n < 0) {
        buf[0] = '\0';
        return 0;
    }
    return (size_t)n < size ? (size_t)n : lw_utf8_trim(buf, size - 1);
}

lw_status lw_fail(lw_err *err, lw_status code, const char *fmt, ...)
{
    char text[LW_ERR_TEXT_BYTES]; /* an argument may point into err->text */
    va_list ap;
    size_t n;

    if (err == NULL)
        return code;
    va_start(ap, fmt);
    n = format(text, sizeof(text), fmt, ap);
    va_end(ap);
    copy_clean(err->text, text, n);
    err->code = code;
    return code;
}

lw_status lw_err_prefix(lw_err *err, lw_status code, const char *fmt, ...)
{
    char text[2 * LW_ERR_TEXT_BYTES];
    va_list ap;
    size_t n, len;

    if (err == NULL)
        return code;
    va_start(ap, fmt);
    n = format(text, LW_ERR_TEXT_BYTES, fmt, ap);
    va_end(ap);
    text[n++] = ':';
    text[n++] = ' ';
    len = strnlen(err->text, LW_ERR_TEXT_BYTES - 1);
    memcpy(text + n, err->text, len);
    n += len;
    if (n > LW_ERR_TEXT_BYTES - 1)
        n = lw_utf8_trim(text, LW_ERR_TEXT_BYTES - 1);
    copy_clean(err->text, text, n);
    return err->code;
}
