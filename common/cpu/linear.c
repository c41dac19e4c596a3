/*
 * Linear layers: y = x W^T + b with W kept as it is stored.
 *
 * The output is cut into pieces of `panel` columns by up to ROW_BLOCK rows. A piece widens its
 * panel of W to f32, one block of K_BLOCK inner items at a time, into its thread's scratch, and
 * multiplies there; so an f32 copy of the weights never exists. The cut depends on the shape only.
 */
#include <string.h>

#include "common/cpu/cpu.h"
#include "common/cpu/onednn.h"
#include "common/cpu/vec.h"

/* Multiples of 48, the width of the library's f32 tile. Wider is faster (the rows of x are packed
 * anew for every panel) as long as there are enough pieces for the threads. */
#define PANEL      192
#define PANEL_WIDE 384
#define WIDE_FROM  4800
#define ROW_BLOCK  1024
#define ROW_ALIGN  8
/* The library's own block of the inner dimension: a widened block of a panel fits the second-level
 * cache, and adding to y block by block costs no more than it does inside the library. */
#define K_BLOCK 384
/* Up to here the weights are read once per row, which beats a product of so few rows. */
#define GEMV_ROWS  3
#define GEMV_PANEL 64

typedef struct linear_args {
    lw_kernels *k;
    const lw_vec *vec;
    lw_tensor *y;
    const lw_tensor *x, *w, *residual;
    const float *b;
    int64_t n, n_in, n_out, panel, rows, n_row_blocks;
} linear_args;

static void gemv_piece(void *arg, int thread, int64_t piece)
{
    const linear_args *a = arg;
    int64_t o = piece * a->panel, width = lw_min64(a->panel, a->n_out - o);
    float sums[GEMV_PANEL];

    (void)thread;
    for (int64_t i = 0; i < a->n; i++) {
        float *y = lw_row(a->y, i) + o;

        a->vec->gemv(sums, lw_row_any(a->w, o), a->w->dtype, a->w->stride0, width, lw_row(a->x, i),
                     a->n_in, a->b ? a->b + o : NULL);
        if (a->residual)
            a->vec->add(sums, lw_row(a->residual, i) + o, width);
        memcpy(y, sums, (size_t)width * sizeof(*y));
    }
}

size_t lw_cpu_panel_bytes(const lw_tensor *w, int64_t width)
{
    if (w->dtype == LW_F32)
        return 0;
    return (size_t)(width * lw_min64(w->shape[1], K_BLOCK)) * sizeof(float);
}

bool lw_cpu_panel_product(const lw_vec *vec, int64_t n, const float *x, int64_t ldx,
                          const lw_tensor *w, int64_t o, int64_t width, bool accumulate, float *y,
                          int64_t ldy, float *scratch)
{
    int64_t n_in = w->shape[1];
    size_t item = lw_dtype_size(w->dtype);

    if (w->dtype == LW_F32)
        return lw_onednn_sgemm(n, width, n_in, x, ldx, lw_row(w, o), w->stride0, true,
                               accumulate ? 1.0f : 0.0f, y, ldy);
    for (int64_t begin = 0; begin < n_in; begin += K_BLOCK) {
        int64_t len = lw_min64(K_BLOCK, n_in - begin);

        for (int64_t r = 0; r < width; r++)
            vec->widen(scratch + r * len, (const char *)lw_row_any(w, o + r) + (size_t)begin * item,
                       w->dtype, len);
        if (!lw_onednn_sgemm(n, width, len, x + begin, ldx, scratch, len, true,
                             begin > 0 || accumulate ? 1.0f : 0.0f, y, ldy))
            return false;
    }
    return true;
}

static void product_piece(void *arg, int thread, int64_t piece)
{
    const linear_args *a = arg;
    int64_t o = piece / a->n_row_blocks * a->panel, width = lw_min64(a->panel, a->n_out - o);
    int64_t i0 = piece % a->n_row_blocks * a->rows, n = lw_min64(a->rows, a->n - i0);
    int64_t ldy = a->y->stride0;
    float *y = lw_row(a->y, i0) + o;

    for (int64_t i = 0; a->residual && a->residual->data != a->y->data && i < n; i++)
        memcpy(y + i * ldy, lw_row(a->residual, i0 + i) + o, (size_t)width * sizeof(*y));
    if (!lw_cpu_panel_product(a->vec, n, lw_row(a->x, i0), a->x->stride0, a->w, o, width,
                              a->residual != NULL, y, ldy, lw_cpu_scratch(a->k, thread)))
        lw_cpu_fail(a->k);
    for (int64_t i = 0; a->b && i < n; i++)
        a->vec->add(y + i * ldy, a->b + o, width);
}

void lw_cpu_linear(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_tensor *w,
                   const float *b, const lw_tensor *residual)
{
    const lw_cpu *cpu = k->impl;
    linear_args a = { .k = k,
                      .vec = cpu->vec,
                      .y = y,
                      .x = x,
                      .w = w,
                      .residual = residual,
                      .b = b,
                      .n = lw_rows(x),
                      .n_in = w->shape[1],
                      .n_out = w->shape[0] };

    if (a.n <= GEMV_ROWS) {
        a.panel = GEMV_PANEL;
        lw_pool_run(k->pool, lw_ceil_div(a.n_out, a.panel), gemv_piece, &a);
        return;
    }
    a.panel = a.n_out >= WIDE_FROM ? PANEL_WIDE : PANEL;
    a.n_row_blocks = lw_ceil_div(a.n, ROW_BLOCK);
    a.rows = lw_ceil_div(lw_ceil_div(a.n, a.n_row_blocks), ROW_ALIGN) * ROW_ALIGN;
    a.n_row_blocks = lw_ceil_div(a.n, a.rows);
    if (lw_cpu_reserve(k, lw_cpu_panel_bytes(w, a.panel)))
        lw_pool_run(k->pool, lw_ceil_div(a.n_out, a.panel) * a.n_row_blocks, product_piece, &a);
}

static void onednn_linear(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_linear *lin)
{
    if (lin->packed)
        lw_cpu_int8_linears(k, 1, &y, x, &lin);
    else
        lw_cpu_linear(k, y, x, &lin->w, lw_tensor_present(&lin->b) ? lw_f32(&lin->b) : NULL, NULL);
}

void lw_cpu_add_linear(lw_kernels *k)
{
    k->linear = onednn_linear;
}
