#ifndef LW_COMMON_BUF_H
#define LW_COMMON_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/**
 * Growing byte buffer with a maximum that is set when it is made, so that no unbounded buffer can
 * exist. Errors are sticky: append freely, then look at `failed` once. Owns its memory (malloc).
 */
typedef struct lw_buf {
    uint8_t *data;
    size_t len, cap, max_bytes;
    bool failed; /* the maximum was hit or memory ran out; contents are then incomplete */
} lw_buf;

void lw_buf_init(lw_buf *b, size_t max_bytes);
void lw_buf_deinit(lw_buf *b);
void lw_buf_clear(lw_buf *b);
void lw_buf_put(lw_buf *b, const void *data, size_t n);
void lw_buf_putc(lw_buf *b, char c);
void lw_buf_puts(lw_buf *b, const char *s);
void lw_buf_printf(lw_buf *b, const char *fmt, ...) LW_PRINTF(2, 3);
/** Zero-terminate (the terminator is not counted in len) and return the text; "" when failed. */
const char *lw_buf_cstr(lw_buf *b);

#endif
