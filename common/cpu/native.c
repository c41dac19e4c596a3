/*
 * Our own vectorised operations: what lies between matrix products and convolutions. Each cuts its
 * rows into pieces by a rule that knows only the shape, and calls the inner loops of vec.h.
 */
#include <math.h>
#include <string.h>

#include "common/cpu/cpu.h"
#include "common/cpu/int8.h"
#include "common/cpu/panel.h"
#include "common/cpu/vec.h"
#include "common/cpu/winograd.h"

/* Items of one piece: about 64 KiB of f32, so that a piece outweighs the cost of handing it out. */
#define PIECE_ITEMS 16384

typedef struct rows_args {
    const lw_vec *vec;
    int64_t n, d, rows_per_piece;
    lw_tensor *y;
    const lw_tensor *a, *b;
    const float *m; /* one factor per column */
    double eps;
} rows_args;

static rows_args rows_begin(const lw_kernels *k, lw_tensor *y)
{
    const lw_cpu *cpu = k->impl;
    rows_args r = { .vec = cpu->vec, .n = lw_rows(y), .d = lw_cols(y), .y = y };

    r.rows_per_piece = r.d < PIECE_ITEMS ? PIECE_ITEMS / (r.d > 0 ? r.d : 1) : 1;
    return r;
}

static void rows_run(lw_kernels *k, rows_args *r, lw_pool_fn *fn)
{
    lw_pool_run(k->pool, lw_ceil_div(r->n, r->rows_per_piece), fn, r);
}

/* for (i over the rows of this piece) */
#define EACH_ROW(r, piece, i)                                                                      \
    for (int64_t i = (piece) * (r)->rows_per_piece,                                                \
                 end_##i = lw_min64((r)->n, i + (r)->rows_per_piece);                              \
         i < end_##i; i++)

static float rms_factor(const lw_vec *vec, const float *x, int64_t d, double eps)
{
    return (float)(1.0 / sqrt(vec->sum_sq(x, d) / (double)d + eps));
}

static void rmsnorm_piece(void *arg, int thread, int64_t piece)
{
    const rows_args *r = arg;

    (void)thread;
    EACH_ROW(r, piece, i)
    {
        const float *x = lw_row(r->a, i);

        r->vec->norm_scale(lw_row(r->y, i), x, rms_factor(r->vec, x, r->d, r->eps), r->m, r->d);
    }
}

static void native_rmsnorm(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_tensor *w,
                           float eps, const lw_tensor *scale)
{
    rows_args r = rows_begin(k, y);

    r.a = x;
    r.eps = (double)eps;
    r.m = lw_f32(w);
    if (scale) {
        float *m = lw_cpu_shared(k, (size_t)r.d * sizeof(*m));

        if (!m)
            return;
        for (int64_t j = 0; j < r.d; j++)
            m[j] = lw_f32(w)[j] * (1.0f + lw_f32(scale)[j]);
        r.m = m;
    }
    rows_run(k, &r, rmsnorm_piece);
}

static void layernorm_piece(void *arg, int thread, int64_t piece)
{
    const rows_args *r = arg;

    (void)thread;
    EACH_ROW(r, piece, i)
    {
        const float *x = lw_row(r->a, i);
        double d = (double)r->d, mean = r->vec->sum(x, r->d) / d, rest, var;
        float mean32 = (float)mean;

        /* Deviations are taken from the rounded mean; what rounding lost is put back. */
        rest = mean - (double)mean32;
        var = fmax(r->vec->sum_sq_dev(x, r->d, mean32) / d - rest * rest, 0);
        r->vec->norm_center(lw_row(r->y, i), x, mean32, (float)rest,
                            (float)(1.0 / sqrt(var + r->eps)), r->m, r->d);
    }
}

static void native_layernorm(lw_kernels *k, lw_tensor *y, const lw_tensor *x, float eps,
                             const lw_tensor *scale)
{
    rows_args r = rows_begin(k, y);
    float *m = lw_cpu_shared(k, (size_t)r.d * sizeof(*m));

    if (!m)
        return;
    for (int64_t j = 0; j < r.d; j++)
        m[j] = 1.0f + lw_f32(scale)[j];
    r.a = x;
    r.m = m;
    r.eps = (double)eps;
    rows_run(k, &r, layernorm_piece);
}

static void add_rmsnorm_piece(void *arg, int thread, int64_t piece)
{
    const rows_args *r = arg;

    (void)thread;
    EACH_ROW(r, piece, i)
    {
        const float *x = lw_row(r->a, i);

        r->vec->norm_add(lw_row(r->y, i), x, rms_factor(r->vec, x, r->d, r->eps), r->m, r->d);
    }
}

static void native_add_rmsnorm(lw_kernels *k, lw_tensor *x, const lw_tensor *y, const lw_tensor *w,
                               float eps, const lw_tensor *gate)
{
    rows_args r = rows_begin(k, x);

    r.a = y;
    r.eps = (double)eps;
    r.m = lw_f32(w);
    if (gate) {
        float *m = lw_cpu_shared(k, (size_t)r.d * sizeof(*m));

        if (!m)
            return;
        for (int64_t j = 0; j < r.d; j++)
            m[j] = (float)tanh((double)lw_f32(gate)[j]) * lw_f32(w)[j];
        r.m = m;
    }
    rows_run(k, &r, add_rmsnorm_piece);
}

static void add_piece(void *arg, int thread, int64_t piece)
{
    const rows_args *r = arg;

    (void)thread;
    EACH_ROW(r, piece, i)
    {
        r->vec->add(lw_row(r->y, i), lw_row(r->a, i), r->d);
    }
}

static void native_add(lw_kernels *k, lw_tensor *x, const lw_tensor *y)
{
    rows_args r = rows_begin(k, x);

    r.a = y;
    rows_run(k, &r, add_piece);
}

static void swiglu_piece(void *arg, int thread, int64_t piece)
{
    const rows_args *r = arg;

    (void)thread;
    EACH_ROW(r, piece, i)
    {
        r->vec->swiglu(lw_row(r->y, i), lw_row(r->a, i), lw_row(r->b, i), r->d);
    }
}

static void native_swiglu(lw_kernels *k, lw_tensor *y, const lw_tensor *gate, const lw_tensor *up)
{
    rows_args r = rows_begin(k, y);

    r.a = gate;
    r.b = up;
    rows_run(k, &r, swiglu_piece);
}

static void silu_piece(void *arg, int thread, int64_t piece)
{
    const rows_args *r = arg;

    (void)thread;
    EACH_ROW(r, piece, i)
    {
        r->vec->silu(lw_row(r->y, i), lw_row(r->a, i), r->d);
    }
}

static void native_silu(lw_kernels *k, lw_tensor *y, const lw_tensor *x)
{
    rows_args r = rows_begin(k, y);

    r.a = x;
    rows_run(k, &r, silu_piece);
}

typedef struct rope_args {
    rows_args rows;
    int heads;
    const float *w;
    const lw_tensor *cos, *sin;
    lw_rope_pairing pairing;
} rope_args;

static void rope_piece(void *arg, int thread, int64_t piece)
{
    const rope_args *a = arg;
    const rows_args *r = &a->rows;
    int64_t D = r->d / a->heads;

    (void)thread;
    EACH_ROW(r, piece, i)
    {
        const float *c = lw_row(a->cos, i), *s = lw_row(a->sin, i);

        for (int h = 0; h < a->heads; h++) {
            float *x = lw_row(r->y, i) + h * D, f = rms_factor(r->vec, x, D, r->eps);

            if (a->pairing == LW_ROPE_INTERLEAVED)
                r->vec->rope_interleaved(x, f, a->w, c, s, D);
            else
                r->vec->rope_half_split(x, f, a->w, c, s, D);
        }
    }
}

static void native_qk_norm_rope(lw_kernels *k, lw_tensor *q, int heads, const lw_tensor *w,
                                float eps, const lw_tensor *cos, const lw_tensor *sin,
                                lw_rope_pairing pairing)
{
    rope_args a = { rows_begin(k, q), heads, lw_f32(w), cos, sin, pairing };

    a.rows.eps = (double)eps;
    rows_run(k, &a.rows, rope_piece);
}

/*
 * Group norm: f64 sums per channel of every chunk of positions, chunks added in their order, then
 * one pass that applies the norm. Blocks within a chunk stay in the first-level cache.
 */
#define CHUNK_POSITIONS 1024
#define BLOCK_ITEMS     8192

typedef struct group_args {
    const lw_vec *vec;
    const lw_tensor *x;
    double *sums; /* [chunks][2][C] */
} group_args;

static void group_sums_chunk(void *arg, int thread, int64_t chunk)
{
    const group_args *g = arg;
    int64_t W = g->x->shape[1], C = g->x->shape[2], n_pos = g->x->shape[0] * W, n;
    int64_t begin = chunk * CHUNK_POSITIONS, end = lw_min64(n_pos, begin + CHUNK_POSITIONS);
    int64_t block = C < BLOCK_ITEMS ? BLOCK_ITEMS / C : 1;
    double *sum = g->sums + chunk * 2 * C, *sum_sq = sum + C;

    (void)thread;
    memset(sum, 0, (size_t)(2 * C) * sizeof(*sum));
    for (int64_t i = begin; i < end; i += n) {
        n = lw_min64(lw_min64(block, end - i), W - i % W);
        g->vec->channel_sums(sum, sum_sq, lw_row(g->x, i / W) + i % W * C, n, C);
    }
}

/* The factors of the channels of a group, from the sums of all chunks. */
static void group_factors(const group_args *g, float *f, int64_t begin, int64_t n_channels,
                          double eps, const float *w, const float *b)
{
    int64_t C = g->x->shape[2], n_pos = g->x->shape[0] * g->x->shape[1];
    double sum = 0, sum_sq = 0, n = (double)(n_pos * n_channels), mean, r;

    for (int64_t i = 0; i < lw_ceil_div(n_pos, CHUNK_POSITIONS); i++) {
        const double *s = g->sums + i * 2 * C + begin;

        for (int64_t c = 0; c < n_channels; c++) {
            sum += s[c];
            sum_sq += s[C + c];
        }
    }
    mean = sum / n;
    r = 1.0 / sqrt(fmax(sum_sq / n - mean * mean, 0) + eps);
    for (int64_t c = begin; c < begin + n_channels; c++)
        lw_cpu_group_factor(f, C, c, mean, r * (double)w[c], (double)b[c]);
}

static void native_group_factors(lw_kernels *k, lw_tensor *f, const lw_tensor *x,
                                 const lw_tensor *w, const lw_tensor *b, int groups, float eps)
{
    const lw_cpu *cpu = k->impl;
    int64_t C = x->shape[2], n_chunks = lw_ceil_div(x->shape[0] * x->shape[1], CHUNK_POSITIONS);
    group_args g = { cpu->vec, x, lw_cpu_shared(k, (size_t)(n_chunks * 2 * C) * sizeof(double)) };

    if (!g.sums)
        return;
    lw_pool_run(k->pool, n_chunks, group_sums_chunk, &g);
    for (int i = 0; i < groups; i++)
        group_factors(&g, lw_f32(f), i * (C / groups), C / groups, (double)eps, lw_f32(w),
                      lw_f32(b));
}

typedef struct affine_args {
    const lw_vec *vec;
    lw_tensor *y;
    const lw_tensor *x, *f;
} affine_args;

static void affine_row(void *arg, int thread, int64_t i)
{
    const affine_args *a = arg;
    int64_t C = a->x->shape[2];
    const float *f = lw_f32(a->f);

    (void)thread;
    a->vec->channel_affine(lw_row(a->y, i), lw_row(a->x, i), f, f + C, f + 2 * C, a->x->shape[1], C,
                           false);
}

static void native_channel_affine(lw_kernels *k, lw_tensor *y, const lw_tensor *x,
                                  const lw_tensor *f)
{
    const lw_cpu *cpu = k->impl;
    affine_args a = { cpu->vec, y, x, f };

    lw_pool_run(k->pool, x->shape[0], affine_row, &a);
}

static void native_conv2d(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_conv2d *c,
                          const lw_tensor *residual)
{
    if (lw_cpu_winograd_fits(c))
        lw_cpu_winograd(k, y, x, c, residual);
    else
        lw_cpu_ref_conv2d(k, y, x, c, residual);
}

void lw_cpu_add_native(lw_kernels *k, const lw_vec *vec)
{
    lw_cpu *cpu = k->impl;

    if (!cpu)
        return;
    cpu->vec = vec;
    cpu->panel = &lw_panel_baseline;
    cpu->wino = &lw_wino_baseline;
#ifdef LW_HAVE_X86_LEVELS
    if (vec != &lw_vec_baseline) {
        cpu->panel = vec == &lw_vec_avx512 ? &lw_panel_avx512 : &lw_panel_avx2;
        cpu->wino = vec == &lw_vec_avx512 ? &lw_wino_avx512 : &lw_wino_avx2;
    }
#endif
    cpu->int8 = lw_int8_best();
    k->name = vec->isa;
    lw_cpu_add_linear(k);
    k->rmsnorm = native_rmsnorm;
    k->layernorm = native_layernorm;
    k->add_rmsnorm = native_add_rmsnorm;
    k->add = native_add;
    k->qk_norm_rope = native_qk_norm_rope;
    k->swiglu = native_swiglu;
    k->silu = native_silu;
    k->group_factors = native_group_factors;
    k->channel_affine = native_channel_affine;
    k->conv2d = native_conv2d;
}
