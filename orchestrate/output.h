#ifndef LW_ORCHESTRATE_OUTPUT_H
#define LW_ORCHESTRATE_OUTPUT_H

#include <jansson.h>
#include <limits.h>

#include "common/buf.h"
#include "proto/packet.h"

/*
 * Where pictures go. "-o out.png" is that file; of several pictures, number k goes to "out-k.png",
 * or wherever "%d" (or "%04d") stands in the name; a folder, or no -o at all, gets files named
 * after the seed that overwrite nothing; "-" is standard output, for one picture.
 */

typedef struct lw_output {
    const char *pattern; /* of -o, or NULL */
    uint64_t count;      /* pictures in all */
} lw_output;

/**
 * Check the pattern and that its folder can be written to, before hours are spent on the picture.
 * Errors: LW_E_INVALID, LW_E_NOT_FOUND, LW_E_DENIED.
 */
LW_MUST_USE lw_status lw_output_check(const lw_output *o, lw_err *err);

/** Same for a file that is not a picture: only its folder. */
LW_MUST_USE lw_status lw_output_check_file(const char *path, lw_err *err);

/** Path of picture `index` (from 0), made with `seed`. Errors: LW_E_INVALID (too long), LW_E_IO. */
LW_MUST_USE lw_status lw_output_path(const lw_output *o, uint64_t index, uint64_t seed,
                                     char ret[PATH_MAX], lw_err *err);

/* A result is one frame at most, and a PNG of it hardly larger. */
#define LW_MAX_PICTURE_FILE (2u * LW_MAX_FRAME_BYTES)

/** A result that waits to be written. */
typedef struct lw_kept_pictures {
    struct lw_kept_pictures *next;
    lw_frame *frame; /* holds the bytes of t */
    lw_tensor t;     /* image [n, H, W, 3] uint8 */
    json_t *manifest;
    uint64_t first; /* its first picture is this one of the output */
} lw_kept_pictures;

/**
 * Keep the pictures of a result, by reference, with the manifest of the first of them (borrowed; it
 * gets their size). Compressing a large picture takes seconds, and a client that is silent for so
 * long is dead for its hub: so all are written when the hub is no longer needed. Nodes lie in `a`.
 * Errors: LW_E_SHAPE when the result has no pictures, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_output_keep(lw_kept_pictures **list, lw_arena *a, const lw_msg *result,
                                     const json_t *manifest, uint64_t first, lw_err *err);

/**
 * Append the PNG of one picture to `out`, the manifest in its text chunks. Errors: those of
 * lw_png_encode.
 */
LW_MUST_USE lw_status lw_output_encode(lw_buf *out, const uint8_t *rgb, int width, int height,
                                       const json_t *manifest, lw_err *err);
/** Write what lw_output_encode made. Errors: those of lw_outfile_open and lw_outfile_commit. */
LW_MUST_USE lw_status lw_output_save(const char *path, const lw_buf *png, lw_err *err);

/** Write all that was kept as PNGs; `on_written` is told each path. Errors: those of
 * lw_output_encode and lw_output_save. */
typedef lw_status lw_output_fn(void *arg, uint64_t index, uint64_t seed, const char *path,
                               lw_err *err);
LW_MUST_USE lw_status lw_output_write(const lw_output *o, const lw_kept_pictures *list,
                                      lw_output_fn *on_written, void *arg, lw_err *err);
/** Let go of what was kept. */
void lw_output_drop(lw_kept_pictures **list);

#endif
