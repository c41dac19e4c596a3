#ifndef LW_COMMON_PNG_H
#define LW_COMMON_PNG_H

#include <stdint.h>

#include "common/arena.h"
#include "common/buf.h"

#define LW_PNG_MAX_SIDE  16384
#define LW_PNG_MAX_TEXTS 1024

/**
 * A text chunk: tEXt when the text is printable ASCII and line feeds, else iTXt (UTF-8). The
 * keyword has 1 to 79 printable ASCII characters without a space at either end.
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

/** The same into memory. `out` is appended to; its maximum is the limit (LW_E_TOO_LARGE). */
LW_MUST_USE lw_status lw_png_encode(lw_buf *out, const uint8_t *rgb, int width, int height,
                                    const lw_png_text *texts, int n_texts, lw_err *err);

/**
 * Read an 8-bit picture as RGB (PNG or JPEG through stb_image), at most LW_PNG_MAX_SIDE on a side.
 * The pixels lie in `a`. Errors: LW_E_NOT_FOUND, LW_E_FORMAT, LW_E_TOO_LARGE, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_png_read(const char *path, lw_arena *a, uint8_t **ret_rgb, int *ret_width,
                                  int *ret_height, lw_err *err);

/** The same over bytes in memory; label stands for the file in messages. What a PNG inflates to is
 * bounded by the size that its head names. */
LW_MUST_USE lw_status lw_png_parse(const uint8_t *data, size_t size_bytes, const char *label,
                                   lw_arena *a, uint8_t **ret_rgb, int *ret_width, int *ret_height,
                                   lw_err *err);

/**
 * Width and height of a PNG in memory, without decoding it. Errors: LW_E_FORMAT (no PNG, or one
 * with an alpha channel, which lw_png_write does not make), LW_E_TOO_LARGE (a side).
 */
LW_MUST_USE lw_status lw_png_size(const uint8_t *data, size_t size_bytes, const char *label,
                                  int *ret_width, int *ret_height, lw_err *err);

/**
 * The text of the one chunk with that keyword, as UTF-8 in `a`; *ret is NULL when there is none.
 * Other text chunks are passed over, whatever is in them; nothing is inflated. Errors: LW_E_FORMAT
 * (a damaged PNG; that text twice, compressed, or no text), LW_E_TOO_LARGE (more than max_bytes in
 * the file), LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_png_find_text(const uint8_t *data, size_t size_bytes, const char *label,
                                       const char *keyword, size_t max_bytes, lw_arena *a,
                                       const char **ret, lw_err *err);

/**
 * Text chunks (tEXt, iTXt uncompressed) of a PNG file as UTF-8, in file order, copied into `a`.
 * CRCs are checked. Errors: those of lw_file_read, LW_E_FORMAT, LW_E_TOO_LARGE (more than
 * LW_PNG_MAX_TEXTS), LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_png_read_texts(const char *path, lw_arena *a, lw_png_text **ret_texts,
                                        int *ret_n_texts, lw_err *err);
/** The same over bytes in memory; label stands for the file in messages. */
LW_MUST_USE lw_status lw_png_parse_texts(const uint8_t *data, size_t size_bytes, const char *label,
                                         lw_arena *a, lw_png_text **ret_texts, int *ret_n_texts,
                                         lw_err *err);

#endif
