/*
 * Convolutions on strips of output rows. In NHWC a strip with its halo is a contiguous part of the
 * picture, so each strip is a convolution of its own, with padding above only for the first and
 * below only for the last; a picture of any height needs at most four different shapes. Where the
 * library has no fast convolution (very few channels), the strip is unrolled into a matrix of
 * windows and multiplied. A 1 x 1 convolution is a linear layer.
 */
#include <string.h>

#include "common/cpu/cpu.h"
#include "common/cpu/onednn.h"
#include "common/cpu/vec.h"
#include "common/cpu/winograd.h"
#include "common/size.h"

/* Rows of a strip: enough positions that reading the filters is small beside using them. */
#define STRIP_ROWS      4
#define STRIP_POSITIONS 128
/* Filters are laid out for a strip of a middling picture; should another size want another layout,
 * it takes the slow path. */
#define NOMINAL_WIDTH 64
/* Matrix of windows of the slow path: at most this many bytes, but one position at least. */
#define WINDOWS_BYTES (1u << 20)

static bool is_linear(const lw_conv2d *c)
{
    return c->k == 1 && c->stride == 1 && !c->pad_top && !c->pad_left && !c->pad_bottom &&
           !c->pad_right && !c->upsample && !lw_tensor_present(&c->norm);
}

static const float *bias_of(const lw_conv2d *c)
{
    return lw_tensor_present(&c->b) ? lw_f32(&c->b) : NULL;
}

/* Output rows [row, row + n_rows) of a picture [h, w], with the padding that this strip sees. */
static lw_onednn_shape strip_shape(const lw_conv2d *c, int64_t h, int64_t w, int64_t wo,
                                   int64_t row, int64_t n_rows, bool accumulate,
                                   int64_t *ret_first_row)
{
    int64_t first = row * c->stride - c->pad_top;
    int64_t end = (row + n_rows - 1) * c->stride - c->pad_top + c->k;
    int64_t top = first < 0 ? -first : 0, bottom = end > h ? end - h : 0;

    *ret_first_row = first + top;
    return (lw_onednn_shape){ .h = end - first - top - bottom,
                              .w = w,
                              .c_in = c->w.shape[3],
                              .ho = n_rows,
                              .wo = wo,
                              .c_out = c->w.shape[0],
                              .k = c->k,
                              .stride = c->stride,
                              .pad_top = (int)top,
                              .pad_left = c->pad_left,
                              .pad_bottom = (int)bottom,
                              .pad_right = c->pad_right,
                              .bias = lw_tensor_present(&c->b),
                              .accumulate = accumulate };
}

/* The layout of the filters goes into the arena; stored ones are widened to f32 only on the way. */
static lw_status onednn_conv2d_prepare(lw_kernels *k, lw_conv2d *c, lw_arena *a, lw_err *err)
{
    lw_cpu *cpu = k->impl;
    int64_t wo = (NOMINAL_WIDTH + c->pad_left + c->pad_right - c->k) / c->stride + 1, first;
    int64_t n = lw_tensor_count(&c->w);
    lw_onednn_shape s =
        strip_shape(c, NOMINAL_WIDTH, NOMINAL_WIDTH, wo, STRIP_ROWS, STRIP_ROWS, false, &first);
    size_t bytes = is_linear(c) ? 0 : lw_onednn_weights_bytes(cpu->dnn, &s);
    const float *plain = c->w.data;
    lw_onednn_weights *packed;
    lw_arena_mark mark;
    void *mem;

    c->packed = NULL;
    if (bytes == 0 || lw_cpu_winograd_fits(c))
        return LW_OK;
    mem = lw_arena_alloc(a, bytes, err);
    if (!mem)
        return LW_E_NOMEM;
    mark = lw_arena_mark_get(a);
    if (c->w.dtype != LW_F32) {
        float *wide = lw_arena_calloc(a, (size_t)n, sizeof(*wide), err);

        if (!wide)
            return LW_E_NOMEM;
        cpu->vec->widen(wide, c->w.data, c->w.dtype, n);
        plain = wide;
    }
    if (!lw_onednn_weights_pack(cpu->dnn, &s, plain, mem, &packed))
        return lw_fail(err, LW_E_NOMEM, "oneDNN could not lay out filters of %zu bytes", bytes);
    lw_arena_release(a, mark);
    c->packed = packed;
    return LW_OK;
}

typedef struct strip {
    const lw_onednn_conv *conv;
    int64_t first_row, n_rows; /* of what is convolved */
} strip;

typedef struct conv_args {
    lw_kernels *k;
    lw_tensor *y;
    const lw_tensor *x, *residual;
    const lw_conv2d *c;
    lw_tensor w; /* filters as a matrix */
    const strip *strips;
    int64_t rows;         /* output rows of a strip */
    int64_t window_block; /* positions unrolled at a time */
    size_t scratch_bytes; /* of the library, a thread; after it, rows of x as they are convolved */
} conv_args;

/* Height and width of what is convolved. */
static int64_t seen_size(const conv_args *a, int side)
{
    return a->x->shape[side] * (a->c->upsample ? 2 : 1);
}

/*
 * Rows [first, end) of what is convolved, one behind the other: x itself where that is all there is
 * to it, else normed and doubled in `copy`.
 */
static const float *seen_rows(const conv_args *a, int64_t first, int64_t end, float *copy)
{
    const lw_vec *vec = ((const lw_cpu *)a->k->impl)->vec;
    int64_t W = a->x->shape[1], C = a->x->shape[2], times = a->c->upsample ? 2 : 1;
    bool normed = lw_tensor_present(&a->c->norm);
    const float *f = normed ? lw_f32(&a->c->norm) : NULL;

    if (!normed && times == 1 && a->x->stride0 == W * C)
        return lw_row(a->x, first);
    for (int64_t r = first; r < end; r++) {
        float *to = copy + (r - first) * times * W * C;

        if (normed)
            vec->channel_affine(to, lw_row(a->x, r / times), f, f + C, f + 2 * C, W, C, true);
        else
            memcpy(to, lw_row(a->x, r / times), (size_t)(W * C) * sizeof(float));
        for (int64_t j = W - 1; times == 2 && j >= 0; j--) {
            memmove(to + (2 * j + 1) * C, to + j * C, (size_t)C * sizeof(float));
            memmove(to + 2 * j * C, to + j * C, (size_t)C * sizeof(float));
        }
    }
    return copy;
}

/* Bytes of a copy of n such rows. */
static size_t seen_bytes(const conv_args *a, int64_t n)
{
    return (size_t)(n * seen_size(a, 1) * a->x->shape[2]) * sizeof(float);
}

/* Output rows start from the residual when there is one elsewhere. */
static void copy_residual(const conv_args *a, int64_t row, int64_t n_rows)
{
    size_t row_bytes = (size_t)lw_cols(a->y) * sizeof(float);

    if (!a->residual || a->residual->data == a->y->data)
        return;
    for (int64_t i = row; i < row + n_rows; i++)
        memcpy(lw_row(a->y, i), lw_row(a->residual, i), row_bytes);
}

static void strip_piece(void *arg, int thread, int64_t piece)
{
    const conv_args *a = arg;
    const lw_cpu *cpu = a->k->impl;
    const strip *s = &a->strips[piece];
    char *scratch = lw_cpu_scratch(a->k, thread);
    int64_t row = piece * a->rows;
    const float *x = seen_rows(a, s->first_row, s->first_row + s->n_rows,
                               (float *)(void *)(scratch + a->scratch_bytes));

    copy_residual(a, row, lw_min64(a->rows, a->y->shape[0] - row));
    if (!lw_onednn_conv_run(cpu->dnn, s->conv, thread, a->c->packed, bias_of(a->c), x,
                            lw_row(a->y, row), scratch))
        lw_cpu_fail(a->k);
}

/* Find the convolution of every strip. False when one of them has no fast one, or on failure. */
static bool strips_prepare(conv_args *a, int64_t n_strips, strip *strips)
{
    const lw_cpu *cpu = a->k->impl;
    int64_t most_rows = 0;

    for (int64_t i = 0; i < n_strips; i++) {
        int64_t row = i * a->rows, n_rows = lw_min64(a->rows, a->y->shape[0] - row);
        bool out_of_memory;
        lw_onednn_shape s = strip_shape(a->c, seen_size(a, 0), seen_size(a, 1), a->y->shape[1], row,
                                        n_rows, a->residual != NULL, &strips[i].first_row);

        strips[i].n_rows = s.h;
        most_rows = s.h > most_rows ? s.h : most_rows;
        strips[i].conv = lw_onednn_conv_get(cpu->dnn, &s, a->c->packed, &out_of_memory);
        if (out_of_memory)
            a->k->failed = LW_E_NOMEM;
        if (!strips[i].conv)
            return false;
        if (lw_onednn_conv_scratch_bytes(strips[i].conv) > a->scratch_bytes)
            a->scratch_bytes = lw_onednn_conv_scratch_bytes(strips[i].conv);
    }
    a->strips = strips;
    a->scratch_bytes = lw_size_align(a->scratch_bytes, 64);
    return lw_cpu_reserve(a->k, a->scratch_bytes + seen_bytes(a, most_rows));
}

/*
 * One row of the window matrix: what the kernel sees at position ox of an output row, zeros
 * outside. rows: those of what is convolved from first_row to end_row.
 */
static void window_fill(const conv_args *a, float *out, int64_t oy, int64_t ox, const float *rows,
                        int64_t first_row, int64_t end_row)
{
    int64_t W = seen_size(a, 1), C = a->x->shape[2], n = a->c->k * C;
    int64_t ix = ox * a->c->stride - a->c->pad_left;
    int64_t skip = ix < 0 ? -ix : 0, past = ix + a->c->k > W ? ix + a->c->k - W : 0;

    for (int r = 0; r < a->c->k; r++, out += n) {
        int64_t iy = oy * a->c->stride - a->c->pad_top + r;
        bool inside = iy >= first_row && iy < end_row;

        if (skip || past || !inside)
            memset(out, 0, (size_t)n * sizeof(*out));
        if (inside && skip + past < a->c->k)
            memcpy(out + skip * C, rows + ((iy - first_row) * W + ix + skip) * C,
                   (size_t)((a->c->k - skip - past) * C) * sizeof(*out));
    }
}

/* One output row by way of the window matrix. Scratch: a panel of filters, the windows, rows. */
static void window_piece(void *arg, int thread, int64_t oy)
{
    const conv_args *a = arg;
    const lw_cpu *cpu = a->k->impl;
    const float *b = bias_of(a->c);
    int64_t n_w = a->w.shape[1], c_out = a->w.shape[0], wo = a->y->shape[1];
    float *panel = lw_cpu_scratch(a->k, thread);
    float *windows = panel + lw_cpu_panel_bytes(cpu, &a->w, c_out) / sizeof(float);
    int64_t top = oy * a->c->stride - a->c->pad_top, H = seen_size(a, 0);
    int64_t first_row = top < 0 ? 0 : lw_min64(top, H), end_row = lw_min64(top + a->c->k, H);
    const float *rows = seen_rows(a, first_row, end_row, windows + a->window_block * n_w);

    copy_residual(a, oy, 1);
    for (int64_t ox = 0; ox < wo; ox += a->window_block) {
        int64_t n = lw_min64(a->window_block, wo - ox);
        float *y = lw_row(a->y, oy) + ox * c_out;

        for (int64_t i = 0; i < n; i++)
            window_fill(a, windows + i * n_w, oy, ox + i, rows, first_row, end_row);
        lw_cpu_panel_product(cpu, n, windows, n_w, &a->w, 0, c_out, a->residual != NULL, y, c_out,
                             panel);
        for (int64_t i = 0; b && i < n; i++)
            cpu->vec->add(y + i * c_out, b, c_out);
    }
}

static void conv_by_windows(conv_args *a)
{
    int64_t n_w = a->w.shape[1], fit = WINDOWS_BYTES / (int64_t)sizeof(float) / n_w;
    size_t bytes;

    a->window_block = lw_min64(fit > 0 ? fit : 1, a->y->shape[1]);
    bytes = lw_cpu_panel_bytes(a->k->impl, &a->w, a->w.shape[0]) +
            (size_t)(a->window_block * n_w) * sizeof(float) + seen_bytes(a, a->c->k);
    if (lw_cpu_reserve(a->k, bytes))
        lw_pool_run(a->k->pool, a->y->shape[0], window_piece, a);
}

/* A 1 x 1 convolution: all positions at once, or row by row where rows do not follow each other. */
static void linear_rows(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_tensor *w,
                        const float *b, const lw_tensor *residual)
{
    int64_t W = x->shape[1], c_in = w->shape[1], c_out = w->shape[0];
    bool packed = x->stride0 == W * c_in && y->stride0 == W * c_out &&
                  (!residual || residual->stride0 == W * c_out);
    int64_t n = packed ? x->shape[0] : 1;

    for (int64_t i = 0; i < x->shape[0]; i += n) {
        lw_tensor to = lw_tensor_2d(lw_row(y, i), LW_F32, n * W, c_out);
        lw_tensor from = lw_tensor_2d(lw_row(x, i), LW_F32, n * W, c_in), sum = to;

        if (residual)
            sum.data = lw_row(residual, i);
        lw_cpu_linear(k, &to, &from, w, b, residual ? &sum : NULL);
    }
}

static void onednn_conv2d(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_conv2d *c,
                          const lw_tensor *residual)
{
    int64_t n_w = (int64_t)c->k * c->k * c->w.shape[3], c_out = c->w.shape[0];
    conv_args a = { .k = k,
                    .y = y,
                    .x = x,
                    .residual = residual,
                    .c = c,
                    .w = lw_tensor_2d(c->w.data, c->w.dtype, c_out, n_w) };
    int64_t n_strips;
    strip *strips;

    if (lw_cpu_winograd_fits(c)) {
        lw_cpu_winograd(k, y, x, c, residual);
        return;
    }
    if (is_linear(c)) {
        linear_rows(k, y, x, &a.w, bias_of(c), residual);
        return;
    }
    a.rows = lw_ceil_div(STRIP_POSITIONS, y->shape[1]);
    if (a.rows < STRIP_ROWS)
        a.rows = STRIP_ROWS;
    if (y->stride0 != y->shape[1] * c_out) /* the library writes rows behind each other */
        a.rows = 1;
    n_strips = lw_ceil_div(y->shape[0], a.rows);
    strips = lw_cpu_shared(k, (size_t)n_strips * sizeof(*strips));
    if (!strips)
        return;
    if (c->packed && strips_prepare(&a, n_strips, strips))
        lw_pool_run(k->pool, n_strips, strip_piece, &a);
    else if (k->failed == LW_OK)
        conv_by_windows(&a);
}

void lw_cpu_add_conv(lw_kernels *k)
{
    k->conv2d_prepare = onednn_conv2d_prepare;
    k->conv2d = onednn_conv2d;
}
