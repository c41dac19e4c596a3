#ifndef LW_COMMON_PNG_H
#define LW_COMMON_PNG_H

#include <stdint.h>

#include "common/arena.h"

/** A text chunk: tEXt when the text is Latin-1 plain ASCII, else iTXt (UTF-8). Keyword 1-79 bytes.
 */
typedef struct lw_png_text {
    const char *keyword, *text;
} lw_png_text;

/**
 * Write rgb ([height, width, 3] uint8, rows top to bottom) as a PNG with text chunks before the
 * picture data. The same input gives the same bytes. Written to a temporary name and renamed; path
 * "-" writes to standard output. Errors: LW_E_IO, LW_E_DENIED, LW_E_INVALID, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_png_write(const char *path, const uint8_t *rgb, int width, int height,
                                   const lw_png_text *texts, int n_texts, lw_err *err);

/**
 * Read an 8-bit picture as RGB (PNG or JPEG through stb_image), at most 16384 on a side. The pixels
 * lie in `a`. Errors: LW_E_NOT_FOUND, LW_E_FORMAT, LW_E_TOO_LARGE, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_png_read(const char *path, lw_arena *a, uint8_t **ret_rgb, int *ret_width,
                                  int *ret_height, lw_err *err);

/** Text chunks (tEXt, iTXt uncompressed) of a PNG file, copied into `a`. CRCs are checked. */
LW_MUST_USE lw_status lw_png_read_texts(const char *path, lw_arena *a, lw_png_text **ret_texts,
                                        int *ret_n_texts, lw_err *err);

#endif
