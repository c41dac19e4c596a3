/*
 * Linear layers: y = x W^T + b with W kept as it is stored.
 *
 * The output is cut into pieces of PANELS panels of columns by up to ROW_BLOCK rows. A piece widens
 * its part of W into panels, one block of K_BLOCK inner items at a time, in its thread's scratch,
 * and multiplies there; so an f32 copy of the weights never exists. The cut depends on the shape
 * only.
 */
#include <string.h>

#include "common/cpu/cpu.h"
#include "common/cpu/panel.h"
#include "common/cpu/vec.h"

/* A block of the panels stays in the second-level cache, one of a few rows of x in the first. */
#define PANELS    4
#define K_BLOCK   384
#define ROW_BLOCK 1024
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

size_t lw_cpu_panel_bytes(const lw_cpu *cpu, const lw_tensor *w, int64_t width)
{
    const lw_panel_isa *isa = cpu->panel;
    int64_t wide = lw_ceil_div(width, isa->width) * isa->width,
            len = lw_min64(w->shape[1], K_BLOCK);

    /* panels, rows of x, and the sums of a panel that goes beyond the matrix */
    return (size_t)((wide + isa->rows) * len + isa->rows * isa->width) * sizeof(float);
}

/* Columns [0, width) of a panel that is wider than what is left of y. */
static void product_edge(const lw_panel_isa *isa, float *y, int64_t ldy, const float *x,
                         int64_t ldx, const float *u, int64_t n, int64_t len, int64_t width,
                         bool accumulate, float *edge)
{
    isa->product(edge, isa->width, x, ldx, u, n, len, false);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < width; j++)
            y[i * ldy + j] = edge[i * isa->width + j] + (accumulate ? y[i * ldy + j] : 0);
    }
}

void lw_cpu_panel_product(const lw_cpu *cpu, int64_t n, const float *x, int64_t ldx,
                          const lw_tensor *w, int64_t o, int64_t width, bool accumulate, float *y,
                          int64_t ldy, float *scratch)
{
    const lw_panel_isa *isa = cpu->panel;
    int64_t n_in = w->shape[1], wide = isa->width;
    size_t item = lw_dtype_size(w->dtype);
    float *xi = scratch + lw_ceil_div(width, wide) * wide * lw_min64(n_in, K_BLOCK);
    float *edge = xi + isa->rows * lw_min64(n_in, K_BLOCK);

    for (int64_t begin = 0; begin < n_in; begin += K_BLOCK) {
        int64_t len = lw_min64(K_BLOCK, n_in - begin);
        bool add = accumulate || begin > 0;

        for (int64_t p = 0; p < width; p += wide)
            isa->pack(scratch + p * len, (const char *)lw_row_any(w, o + p) + (size_t)begin * item,
                      w->dtype, w->stride0, lw_min64(wide, width - p), len);
        for (int64_t i = 0; i < n; i += isa->rows) {
            int64_t rows = lw_min64(isa->rows, n - i);

            /* Rows far apart may fall on each other in the cache; of a copy they do not. */
            for (int64_t r = 0; r < rows; r++)
                memcpy(xi + r * len, x + (i + r) * ldx + begin, (size_t)len * sizeof(*xi));
            for (int64_t p = 0; p < width; p += wide) {
                if (width - p >= wide)
                    isa->product(y + i * ldy + p, ldy, xi, len, scratch + p * len, rows, len, add);
                else
                    product_edge(isa, y + i * ldy + p, ldy, xi, len, scratch + p * len, rows, len,
                                 width - p, add, edge);
            }
        }
    }
}

static void product_piece(void *arg, int thread, int64_t piece)
{
    const linear_args *a = arg;
    const lw_cpu *cpu = a->k->impl;
    int64_t o = piece / a->n_row_blocks * a->panel, width = lw_min64(a->panel, a->n_out - o);
    int64_t i0 = piece % a->n_row_blocks * a->rows, n = lw_min64(a->rows, a->n - i0);
    int64_t ldy = a->y->stride0;
    float *y = lw_row(a->y, i0) + o;

    for (int64_t i = 0; a->residual && a->residual->data != a->y->data && i < n; i++)
        memcpy(y + i * ldy, lw_row(a->residual, i0 + i) + o, (size_t)width * sizeof(*y));
    lw_cpu_panel_product(cpu, n, lw_row(a->x, i0), a->x->stride0, a->w, o, width,
                         a->residual != NULL, y, ldy, lw_cpu_scratch(a->k, thread));
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
    a.panel = PANELS * cpu->panel->width;
    a.n_row_blocks = lw_ceil_div(a.n, ROW_BLOCK);
    a.rows = lw_ceil_div(lw_ceil_div(a.n, a.n_row_blocks), cpu->panel->rows) * cpu->panel->rows;
    a.n_row_blocks = lw_ceil_div(a.n, a.rows);
    if (lw_cpu_reserve(k, lw_cpu_panel_bytes(cpu, w, a.panel)))
        lw_pool_run(k->pool, lw_ceil_div(a.n_out, a.panel) * a.n_row_blocks, product_piece, &a);
}

static void native_linear(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_linear *lin)
{
    if (lin->packed)
        lw_cpu_int8_linears(k, 1, &y, x, &lin);
    else
        lw_cpu_linear(k, y, x, &lin->w, lw_tensor_present(&lin->b) ? lw_f32(&lin->b) : NULL, NULL);
}

void lw_cpu_add_linear(lw_kernels *k)
{
    k->linear = native_linear;
}
