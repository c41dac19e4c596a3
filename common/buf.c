/* A byte buffer that grows by doubling up to its maximum. */

#include "common/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BYTES 256

void lw_buf_init(lw_buf *b, size_t max_bytes)
{
    *b = (lw_buf){ .max_bytes = max_bytes };
}

void lw_buf_deinit(lw_buf *b)
{
    free(b->data);
    *b = (lw_buf){ .max_bytes = b->max_bytes };
}

void lw_buf_clear(lw_buf *b)
{
    b->len = 0;
    b->failed = false;
}

/* Room for n more content bytes and a terminator; the terminator does not count as content. */
static bool reserve(lw_buf *b, size_t n)
{
    size_t cap = b->cap ? b->cap : FIRST_BYTES;
    uint8_t *data;

    if (b->failed)
        return false;
    if (n > b->max_bytes - b->len || b->max_bytes == SIZE_MAX) {
        b->failed = true;
        return false;
    }
    if (b->len + n < b->cap)
        return true;
    while (cap <= b->len + n)
        cap = cap > SIZE_MAX / 2 ? SIZE_MAX : cap * 2;
    if (cap > b->max_bytes + 1)
        cap = b->max_bytes + 1;
    data = realloc(b->data, cap);
    if (data == NULL) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->cap = cap;
    return true;
}

void lw_buf_put(lw_buf *b, const void *data, size_t n)
{
    if (!reserve(b, n) || n == 0)
        return;
    memcpy(b->data + b->len, data, n);
    b->len += n;
}

void lw_buf_putc(lw_buf *b, char c)
{
    lw_buf_put(b, &c, 1);
}

void lw_buf_puts(lw_buf *b, const char *s)
{
    lw_buf_put(b, s, strlen(s));
}

void lw_buf_printf(lw_buf *b, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->failed = true;
        return;
    }
    if (!reserve(b, (size_t)n))
        return;
    va_start(ap, fmt);
    vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
}

const char *lw_buf_cstr(lw_buf *b)
{
    if (!reserve(b, 0))
        return "";
    b->data[b->len] = '\0';
    return (const char *)b->data;
}
