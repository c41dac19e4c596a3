#ifndef LW_VAE_TILES_H
#define LW_VAE_TILES_H

#include "common/arena.h"
#include "common/tensor.h"

/*
 * Tiled processing of pictures that are too large for the memory at hand, as diffusers'
 * AutoencoderKL does it: tiles overlap by a quarter, each is processed alone, and overlaps are
 * blended linearly with the *already blended* tile above and then to the left. The result differs a
 * little from the untiled one everywhere, because norms and attention see one tile only.
 */

/** How a picture is cut. x is what goes in, y what comes out; y = x * scale_up / scale_down. */
typedef struct lw_tiles {
    int64_t x_side;   /* of a tile */
    int64_t x_stride; /* from one tile to the next */
    int64_t y_blend;  /* rows and columns that are blended */
    int64_t y_keep;   /* of each tile, except the last of a row or column: what is written */
    int64_t scale_up, scale_down;
} lw_tiles;

/** Tiles of `side` latents (a multiple of 4) for decoding to pictures `downscale` times as large.
 */
lw_tiles lw_tiles_decode(int64_t side, int64_t downscale);
/** The same for encoding pictures to latents. */
lw_tiles lw_tiles_encode(int64_t side, int64_t downscale);

/** True when an input of h x w is larger than one tile, so that cutting it makes a difference. */
bool lw_tiles_needed(const lw_tiles *t, int64_t h, int64_t w);
/** Number of tiles of an input of h x w. */
int64_t lw_tiles_count(const lw_tiles *t, int64_t h, int64_t w);
/** Memory that lw_tiles_run takes from its arena, besides what fn takes. */
size_t lw_tiles_bytes(const lw_tiles *t, int64_t h, int64_t w, int64_t c_in, int64_t c_out);

/** Process one tile: y [h', w', c_out] from x [h, w, c_in], both packed f32. */
typedef lw_status lw_tile_fn(void *arg, lw_tensor *y, const lw_tensor *x, lw_err *err);

/**
 * y [h * up / down, w * up / down, c_out] = fn over the tiles of x [h, w, c_in], blended. Packed
 * f32. The order is row by row from the top left. Errors: LW_E_NOMEM, and those of fn.
 */
LW_MUST_USE lw_status lw_tiles_run(const lw_tiles *t, lw_tensor *y, const lw_tensor *x,
                                   lw_tile_fn *fn, void *arg, lw_arena *scratch, lw_err *err);

#endif
