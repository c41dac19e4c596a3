#ifndef LW_ORCHESTRATE_PICTURE_H
#define LW_ORCHESTRATE_PICTURE_H

#include <stdint.h>

#include "common/arena.h"
#include "common/buf.h"

/*
 * A PNG from anywhere, taken as a picture of latentwire: the two texts that it should carry, and
 * its pixels. It is not trusted. The file is read once, into bounded memory; nothing in it is
 * inflated but the pixels, and those to no more than their size needs.
 */

typedef struct lw_picture {
    const char *label; /* name of the file, for messages */
    lw_buf file;       /* all of its bytes */
    int width, height;
    const char *manifest;   /* text "latentwire"; NULL: it has none */
    const char *parameters; /* text "parameters"; NULL: it has none */
} lw_picture;

/**
 * Read a file, or standard input for "-". The texts lie in `a`; lw_picture_deinit afterwards, also
 * after a failure. Errors: those of lw_file_read, LW_E_FORMAT (no PNG, or a damaged one),
 * LW_E_TOO_LARGE (the file, a text or a side), LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_picture_read(const char *path, lw_arena *a, lw_picture *ret, lw_err *err);
/** The same over bytes in memory, which are copied. */
LW_MUST_USE lw_status lw_picture_parse(const uint8_t *data, size_t size_bytes, const char *label,
                                       lw_arena *a, lw_picture *ret, lw_err *err);
/** Safe on a zeroed picture. */
void lw_picture_deinit(lw_picture *p);

/** Its pixels, [height, width, 3] uint8 in `a`. Errors: LW_E_FORMAT, LW_E_TOO_LARGE, LW_E_NOMEM. */
LW_MUST_USE lw_status lw_picture_pixels(const lw_picture *p, lw_arena *a, const uint8_t **ret,
                                        lw_err *err);

/** How two pictures differ. */
typedef struct lw_difference {
    int largest;                 /* of any channel of any pixel, 0 to 255 */
    uint64_t n_pixels, n_differ; /* a pixel differs when one of its channels does */
    double psnr_db;              /* over all channels, for a peak of 255; infinite when equal */
} lw_difference;

/** Compare n_pixels RGB pixels, at least one. */
lw_difference lw_pixels_compare(const uint8_t *a, const uint8_t *b, uint64_t n_pixels);

#endif
