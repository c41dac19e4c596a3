/*
 * Our own vectorised operations: what lies between matrix products and convolutions. Each cuts its
 * rows into pieces by a rule that knows only the shape, and calls the inner loops of vec.h.
 */
#include <math.h>
#include <string.h>

#include "common/cpu/cpu.h"
#include "common/cpu/int8.h"
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
    const float *x;
    float *y;
    int64_t n_pos, C;
    double *sums;        /* [chunks][2][C] */
    float *mean, *a, *b; /* per channel */
    bool silu;
} group_args;

static void group_sums_chunk(void *arg, int thread, int64_t chunk)
{
    const group_args *g = arg;
    int64_t begin = chunk * CHUNK_POSITIONS, end = lw_min64(g->n_pos, begin + CHUNK_POSITIONS);
    int64_t block = g->C < BLOCK_ITEMS ? BLOCK_ITEMS / g->C : 1;
    double *sum = g->sums + chunk * 2 * g->C, *sum_sq = sum + g->C;

    (void)thread;
    memset(sum, 0, (size_t)(2 * g->C) * sizeof(*sum));
    for (int64_t i = begin; i < end; i += block)
        g->vec->channel_sums(sum, sum_sq, g->x + i * g->C, lw_min64(block, end - i), g->C);
}

static void group_apply_chunk(void *arg, int thread, int64_t chunk)
{
    const group_args *g = arg;
    int64_t begin = chunk * CHUNK_POSITIONS, n = lw_min64(g->n_pos - begin, CHUNK_POSITIONS);

    (void)thread;
    g->vec->channel_affine(g->y + begin * g->C, g->x + begin * g->C, g->mean, g->a, g->b, n, g->C,
                           g->silu);
}

/* The factors of group `index` from the sums of all chunks. The mean is taken off in f32 before the
 * multiplication and what f32 lost of it is put into b, so a large mean costs no accuracy. */
static void group_factors(const group_args *g, int64_t n_chunks, int64_t index, int64_t per_group,
                          double eps, const float *w, const float *bias)
{
    int64_t begin = index * per_group;
    double sum = 0, sum_sq = 0, n = (double)(g->n_pos * per_group), mean, var, r;

    for (int64_t i = 0; i < n_chunks; i++) {
        const double *s = g->sums + i * 2 * g->C + begin;

        for (int64_t c = 0; c < per_group; c++) {
            sum += s[c];
            sum_sq += s[g->C + c];
        }
    }
    mean = sum / n;
    var = fmax(sum_sq / n - mean * mean, 0);
    r = 1.0 / sqrt(var + eps);
    for (int64_t c = begin; c < begin + per_group; c++) {
        g->mean[c] = (float)mean;
        g->a[c] = (float)(r * (double)w[c]);
        g->b[c] = (float)((double)bias[c] - (mean - (double)g->mean[c]) * r * (double)w[c]);
    }
}

static void native_group_norm(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_tensor *w,
                              const lw_tensor *b, int groups, float eps, bool silu)
{
    const lw_cpu *cpu = k->impl;
    int64_t C = x->shape[2], n_pos = x->shape[0] * x->shape[1];
    int64_t n_chunks = lw_ceil_div(n_pos, CHUNK_POSITIONS);
    size_t sums_bytes = (size_t)(n_chunks * 2 * C) * sizeof(double);
    double *sums = lw_cpu_shared(k, sums_bytes + (size_t)(3 * C) * sizeof(float));
    float *factors = sums ? (float *)(sums + n_chunks * 2 * C) : NULL;
    group_args g = { cpu->vec, lw_f32(x), lw_f32(y), n_pos, C, sums, factors, NULL, NULL, silu };

    if (!sums)
        return;
    g.a = factors + C;
    g.b = factors + 2 * C;
    lw_pool_run(k->pool, n_chunks, group_sums_chunk, &g);
    for (int i = 0; i < groups; i++)
        group_factors(&g, n_chunks, i, C / groups, (double)eps, lw_f32(w), lw_f32(b));
    lw_pool_run(k->pool, n_chunks, group_apply_chunk, &g);
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
    cpu->int8 = lw_int8_best();
    k->name = vec->isa;
    k->rmsnorm = native_rmsnorm;
    k->layernorm = native_layernorm;
    k->add_rmsnorm = native_add_rmsnorm;
    k->add = native_add;
    k->qk_norm_rope = native_qk_norm_rope;
    k->swiglu = native_swiglu;
    k->silu = native_silu;
    k->group_norm = native_group_norm;
    k->conv2d = native_conv2d;
}
