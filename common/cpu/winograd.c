/* The cut of the work of winograd.h; the inner loops are in winograd_isa.c. */
#include "common/cpu/winograd.h"

#include <string.h>

#include "common/cpu/panel.h"
#include "common/cpu/vec.h"
#include "common/size.h"

/* Tiles of a piece of work: 36 rows each of transformed pixels and of sums stay in the caches. */
#define TILES 48

typedef struct wino_args {
    lw_kernels *k;
    const lw_wino_isa *isa;
    lw_tensor *y;
    const lw_tensor *x, *residual;
    const lw_conv2d *c;
    int64_t n_in, n_out;
    int64_t tiles_x, n_tiles, tiles; /* in a row, in all, in a piece */
    float *u;                        /* [36][n_out / panel][n_in][panel] */
    float *nothing;                  /* [n_in] zeros, what lies beside the picture */
} wino_args;

bool lw_cpu_winograd_fits(const lw_conv2d *c)
{
    return c->k == 3 && c->stride == 1 && c->w.shape[3] % LW_WINO_IN_STEP == 0 &&
           c->w.shape[0] % LW_WINO_OUT_STEP == 0;
}

/* ---- filters ---- */

/* A panel of w [n_out, 3, 3, n_in] as g [9][n_in][panel], in f32. */
static void gather_filters(const wino_args *a, float *g, float *row, int64_t first)
{
    const lw_vec *vec = ((const lw_cpu *)a->k->impl)->vec;
    size_t item = lw_dtype_size(a->c->w.dtype);
    int64_t n = 9 * a->n_in;

    for (int o = 0; o < a->isa->panel; o++) {
        vec->widen(row, (const char *)a->c->w.data + (size_t)((first + o) * n) * item,
                   a->c->w.dtype, n);
        for (int64_t i = 0; i < n; i++)
            g[i * a->isa->panel + o] = row[i];
    }
}

static void filters_piece(void *arg, int thread, int64_t piece)
{
    const wino_args *a = arg;
    int64_t panel = a->isa->panel, n_g = 9 * a->n_in * panel;
    float *g = lw_cpu_scratch(a->k, thread);

    gather_filters(a, g, g + n_g, piece * panel);
    a->isa->filters(a->u + piece * a->n_in * panel, a->n_in * a->n_out, g, a->n_in);
}

/* ---- pixels ---- */

/* Where pixels are read from: x itself, or a normed copy of a part of it. */
typedef struct window {
    const float *data;
    int64_t first_row, first_col, stride; /* of rows, in floats */
} window;

static int scale_bits(const wino_args *a)
{
    return a->c->upsample ? 1 : 0;
}

/* Where tile t begins, in y. */
static void tile_at(const wino_args *a, int64_t t, int64_t *row, int64_t *col)
{
    *row = t / a->tiles_x * LW_WINO_OUT;
    *col = t % a->tiles_x * LW_WINO_OUT;
}

/* The part of x that output positions [at, at + n) of one side see, in positions of x. */
static void seen(int64_t at, int64_t n, int pad, int bits, int64_t size, int64_t *begin,
                 int64_t *end)
{
    int64_t first = at - pad, last = at - pad + n + LW_WINO_IN - LW_WINO_OUT - 1;

    *begin = lw_min64(first < 0 ? 0 : first >> bits, size);
    *end = last < 0 ? 0 : lw_min64((last >> bits) + 1, size);
}

/* What n tiles from t on, of one row of tiles, read: normed, into `copy`. */
static window norm_window(const wino_args *a, float *copy, int64_t t, int64_t n)
{
    const lw_vec *vec = ((const lw_cpu *)a->k->impl)->vec;
    const float *f = lw_f32(&a->c->norm);
    int64_t row, col, r0, r1, c0, c1, C = a->n_in;
    window w = { .data = copy };

    tile_at(a, t, &row, &col);
    seen(row, LW_WINO_OUT, a->c->pad_top, scale_bits(a), a->x->shape[0], &r0, &r1);
    seen(col, n * LW_WINO_OUT, a->c->pad_left, scale_bits(a), a->x->shape[1], &c0, &c1);
    w.first_row = r0;
    w.first_col = c0;
    w.stride = c1 > c0 ? (c1 - c0) * C : 0;
    for (int64_t r = r0; r < r1 && c0 < c1; r++)
        vec->channel_affine(copy + (r - r0) * w.stride, lw_row(a->x, r) + c0 * C, f, f + C,
                            f + 2 * C, c1 - c0, C, true);
    return w;
}

static void read_tile(const wino_args *a, float *v, int64_t place, int64_t t, const window *w)
{
    const float *px[LW_WINO_PLACES];
    int bits = scale_bits(a);
    int64_t row, col, H = a->x->shape[0], W = a->x->shape[1];

    tile_at(a, t, &row, &col);
    for (int p = 0; p < LW_WINO_PLACES; p++) {
        int64_t i = row - a->c->pad_top + p / LW_WINO_IN, j = col - a->c->pad_left + p % LW_WINO_IN;
        bool inside = i >= 0 && i >> bits < H && j >= 0 && j >> bits < W;

        px[p] = inside ? w->data + ((i >> bits) - w->first_row) * w->stride +
                             ((j >> bits) - w->first_col) * a->n_in
                       : a->nothing;
    }
    a->isa->input(v, place, px, a->n_in);
}

/* Transformed pixels of n tiles from `first` on; one row of tiles after the other. */
static void read_tiles(const wino_args *a, float *v, int64_t place, int64_t first, int64_t n,
                       float *copy)
{
    window w = { .data = lw_f32(a->x), .stride = a->x->stride0 };
    int64_t done = 0, many;

    for (; done < n; done += many) {
        many = lw_min64(n - done, a->tiles_x - (first + done) % a->tiles_x);
        if (lw_tensor_present(&a->c->norm))
            w = norm_window(a, copy, first + done, many);
        for (int64_t t = done; t < done + many; t++)
            read_tile(a, v + t * a->n_in, place, first + t, &w);
    }
}

static void write_tile(const wino_args *a, const float *m, int64_t place, int64_t t)
{
    float *py[LW_WINO_OUT * LW_WINO_OUT];
    const float *pr[LW_WINO_OUT * LW_WINO_OUT];
    int64_t row, col, H = a->y->shape[0], W = a->y->shape[1];

    tile_at(a, t, &row, &col);
    for (int p = 0; p < LW_WINO_OUT * LW_WINO_OUT; p++) {
        int64_t i = row + p / LW_WINO_OUT, j = col + p % LW_WINO_OUT;
        bool inside = i < H && j < W;

        py[p] = inside ? lw_row(a->y, i) + j * a->n_out : NULL;
        pr[p] = inside && a->residual ? lw_row(a->residual, i) + j * a->n_out : NULL;
    }
    a->isa->output(py, pr, m, place, lw_tensor_present(&a->c->b) ? lw_f32(&a->c->b) : NULL,
                   a->n_out);
}

/* Scratch: transformed pixels [36][n][n_in], sums [36][n][n_out], normed pixels. */
static void tiles_piece(void *arg, int thread, int64_t piece)
{
    const wino_args *a = arg;
    const lw_panel_isa *panel = ((const lw_cpu *)a->k->impl)->panel;
    int64_t first = piece * a->tiles, n = lw_min64(a->tiles, a->n_tiles - first);
    int64_t v_place = n * a->n_in, m_place = n * a->n_out;
    float *v = lw_cpu_scratch(a->k, thread), *m = v + LW_WINO_PLACES * v_place;

    read_tiles(a, v, v_place, first, n, m + LW_WINO_PLACES * m_place);
    for (int p = 0; p < LW_WINO_PLACES; p++) {
        const float *u = a->u + p * a->n_in * a->n_out;

        for (int64_t o = 0; o < a->n_out; o += panel->width)
            panel->product(m + p * m_place + o, a->n_out, v + p * v_place, a->n_in, u + o * a->n_in,
                           n, a->n_in, false);
    }
    for (int64_t t = 0; t < n; t++)
        write_tile(a, m + t * a->n_out, m_place, first + t);
}

/* ---- the whole ---- */

static size_t scratch_bytes(const wino_args *a)
{
    int64_t filters = 9 * a->n_in * (a->isa->panel + 1);
    int64_t pixels = LW_WINO_PLACES * a->tiles * (a->n_in + a->n_out);

    if (lw_tensor_present(&a->c->norm))
        pixels += LW_WINO_IN * (a->tiles * LW_WINO_OUT + LW_WINO_IN - LW_WINO_OUT) * a->n_in;
    return (size_t)(filters > pixels ? filters : pixels) * sizeof(float);
}

void lw_cpu_winograd(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_conv2d *c,
                     const lw_tensor *residual)
{
    const lw_cpu *cpu = k->impl;
    wino_args a = { .k = k,
                    .isa = cpu->wino,
                    .y = y,
                    .x = x,
                    .residual = residual,
                    .c = c,
                    .n_in = c->w.shape[3],
                    .n_out = c->w.shape[0],
                    .tiles_x = lw_ceil_div(y->shape[1], LW_WINO_OUT) };
    int64_t n_u = LW_WINO_PLACES * a.n_in * a.n_out, n_pieces;

    a.n_tiles = a.tiles_x * lw_ceil_div(y->shape[0], LW_WINO_OUT);
    /* About equal shares for the threads, of whole products. Every tile is computed alike, wherever
     * the cut is. */
    n_pieces = lw_ceil_div(lw_ceil_div(a.n_tiles, TILES), cpu->n_threads) * cpu->n_threads;
    a.tiles = lw_ceil_div(lw_ceil_div(a.n_tiles, n_pieces), cpu->panel->rows) * cpu->panel->rows;
    a.u = lw_cpu_shared(k, (size_t)(n_u + a.n_in) * sizeof(float));
    if (!a.u || !lw_cpu_reserve(k, scratch_bytes(&a)))
        return;
    a.nothing = a.u + n_u;
    memset(a.nothing, 0, (size_t)a.n_in * sizeof(float));
    lw_pool_run(k->pool, a.n_out / a.isa->panel, filters_piece, &a);
    lw_pool_run(k->pool, lw_ceil_div(a.n_tiles, a.tiles), tiles_piece, &a);
}
