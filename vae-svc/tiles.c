#include "vae-svc/tiles.h"

#include <string.h>

#include "common/size.h"

/*
 * Only what later tiles need of a finished one is kept: its last y_blend rows for the tile below
 * and its last y_blend columns for the tile to the right. Source: tiled_decode and _tiled_encode of
 * diffusers' autoencoder_kl.py.
 */

lw_tiles lw_tiles_decode(int64_t side, int64_t downscale)
{
    return (lw_tiles){ .x_side = side,
                       .x_stride = side / 4 * 3,
                       .y_blend = side / 4 * downscale,
                       .y_keep = side / 4 * 3 * downscale,
                       .scale_up = downscale,
                       .scale_down = 1 };
}

lw_tiles lw_tiles_encode(int64_t side, int64_t downscale)
{
    return (lw_tiles){ .x_side = side * downscale,
                       .x_stride = side / 4 * 3 * downscale,
                       .y_blend = side / 4,
                       .y_keep = side / 4 * 3,
                       .scale_up = 1,
                       .scale_down = downscale };
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t scaled(const lw_tiles *t, int64_t x)
{
    return x * t->scale_up / t->scale_down;
}

/** Tiles along a side of x items. */
static int64_t along(const lw_tiles *t, int64_t x)
{
    return (x + t->x_stride - 1) / t->x_stride;
}

bool lw_tiles_needed(const lw_tiles *t, int64_t h, int64_t w)
{
    return h > t->x_side || w > t->x_side;
}

int64_t lw_tiles_count(const lw_tiles *t, int64_t h, int64_t w)
{
    return along(t, h) * along(t, w);
}

/** Everything lw_tiles_run needs, in items; one place for its size and its making. */
typedef struct sizes {
    size_t x, y, above_one, above, left;
} sizes;

static sizes sizes_of(const lw_tiles *t, int64_t h, int64_t w, int64_t c_in, int64_t c_out)
{
    int64_t th = min64(t->x_side, h), tw = min64(t->x_side, w);
    sizes s = { .x = (size_t)(th * tw * c_in),
                .y = (size_t)(scaled(t, th) * scaled(t, tw) * c_out),
                .above_one = (size_t)(t->y_blend * scaled(t, tw) * c_out),
                .left = (size_t)(scaled(t, th) * t->y_blend * c_out) };

    s.above = s.above_one * (size_t)along(t, w);
    return s;
}

static size_t bytes_of(size_t items)
{
    return lw_size_align(items * sizeof(float), 64);
}

size_t lw_tiles_bytes(const lw_tiles *t, int64_t h, int64_t w, int64_t c_in, int64_t c_out)
{
    sizes s = sizes_of(t, h, w, c_in, c_out);

    return bytes_of(s.x) + bytes_of(s.y) + bytes_of(s.above) + bytes_of(s.left);
}

/** dst[i] = a[i] * (1 - at/n) + dst[i] * (at/n); the weights are f64 rounded to f32, as in torch.
 */
static void blend(float *dst, const float *a, int64_t at, int64_t n, int64_t items)
{
    double r = (double)at / (double)n;
    float keep = (float)(1.0 - r), mine = (float)r;

    for (int64_t i = 0; i < items; i++)
        dst[i] = a[i] * keep + dst[i] * mine;
}

/** Blend the top of y [h, w, c] with the last rows of the tile above, [n, w, c]. */
static void blend_above(lw_tensor *y, const float *above, int64_t n)
{
    int64_t row = y->shape[1] * y->shape[2], extent = min64(n, y->shape[0]);

    for (int64_t i = 0; i < extent; i++)
        blend(lw_f32(y) + i * row, above + (n - extent + i) * row, i, extent, row);
}

/** Blend the left of y [h, w, c] with the last columns of the tile before it, [h, n, c]. */
static void blend_left(lw_tensor *y, const float *left, int64_t n)
{
    int64_t c = y->shape[2], w = y->shape[1], extent = min64(n, w);

    for (int64_t i = 0; i < y->shape[0]; i++)
        for (int64_t j = 0; j < extent; j++)
            blend(lw_f32(y) + (i * w + j) * c, left + (i * n + n - extent + j) * c, j, extent, c);
}

/** Copy the block of `h` rows and `w` columns at (row, col) of src to (to_row, to_col) of dst. */
static void copy_block(lw_tensor *dst, int64_t to_row, int64_t to_col, const lw_tensor *src,
                       int64_t row, int64_t col, int64_t h, int64_t w)
{
    int64_t c = src->shape[2];

    for (int64_t i = 0; i < h; i++)
        memcpy(lw_f32(dst) + ((to_row + i) * dst->shape[1] + to_col) * c,
               lw_f32(src) + ((row + i) * src->shape[1] + col) * c,
               (size_t)(w * c) * sizeof(float));
}

lw_status lw_tiles_run(const lw_tiles *t, lw_tensor *y, const lw_tensor *x, lw_tile_fn *fn,
                       void *arg, lw_arena *scratch, lw_err *err)
{
    int64_t h = x->shape[0], w = x->shape[1], c_in = x->shape[2], c_out = y->shape[2];
    sizes size = sizes_of(t, h, w, c_in, c_out);
    lw_arena_mark mark = lw_arena_mark_get(scratch);
    float *xs = lw_arena_alloc(scratch, bytes_of(size.x), err);
    float *ys = xs != NULL ? lw_arena_alloc(scratch, bytes_of(size.y), err) : NULL;
    float *above = ys != NULL ? lw_arena_alloc(scratch, bytes_of(size.above), err) : NULL;
    float *left = above != NULL ? lw_arena_alloc(scratch, bytes_of(size.left), err) : NULL;
    int64_t above_rows = 0, left_cols = 0;
    lw_status s = left != NULL ? LW_OK : LW_E_NOMEM;

    for (int64_t r = 0; r < along(t, h) && s == LW_OK; r++) {
        int64_t th = min64(t->x_side, h - r * t->x_stride), yh = scaled(t, th);

        for (int64_t q = 0; q < along(t, w) && s == LW_OK; q++) {
            int64_t tw = min64(t->x_side, w - q * t->x_stride), yw = scaled(t, tw);
            lw_tensor xt = lw_tensor_nd(xs, LW_F32, 3, (int64_t[]){ th, tw, c_in });
            lw_tensor yt = lw_tensor_nd(ys, LW_F32, 3, (int64_t[]){ yh, yw, c_out });
            float *edge = above + (size_t)q * size.above_one;
            lw_tensor edge_t, left_t;

            copy_block(&xt, 0, 0, x, r * t->x_stride, q * t->x_stride, th, tw);
            s = fn(arg, &yt, &xt, err);
            if (s != LW_OK)
                break;
            if (r > 0)
                blend_above(&yt, edge, above_rows);
            if (q > 0)
                blend_left(&yt, left, left_cols);
            copy_block(y, r * t->y_keep, q * t->y_keep, &yt, 0, 0, min64(t->y_keep, yh),
                       min64(t->y_keep, yw));

            /* The edges for the neighbours; `above_rows` is of the row before until this one ends.
             */
            edge_t = lw_tensor_nd(edge, LW_F32, 3, (int64_t[]){ min64(t->y_blend, yh), yw, c_out });
            copy_block(&edge_t, 0, 0, &yt, yh - edge_t.shape[0], 0, edge_t.shape[0], yw);
            left_cols = min64(t->y_blend, yw);
            left_t = lw_tensor_nd(left, LW_F32, 3, (int64_t[]){ yh, left_cols, c_out });
            copy_block(&left_t, 0, 0, &yt, 0, yw - left_cols, yh, left_cols);
        }
        above_rows = min64(t->y_blend, yh);
    }
    lw_arena_release(scratch, mark);
    return s;
}
