/*
 * The reference back end: every operation as its formula reads, sums in f64, one rounding to f32 at
 * the end. It is what the other back ends are compared with, and what a build without oneDNN runs
 * on. Work is split by output rows; a row is computed by one thread from start to end.
 *
 * This file holds the operations on rows of tokens; ref_image.c those on pictures.
 */
#include "common/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* Eight sums side by side, added in a fixed order: the same value on every machine, and a loop that
 * the compiler can vectorise without being allowed to reorder anything. */
static double dot(const float *a, const float *b, int64_t n)
{
    double s[8] = { 0 };
    int64_t i = 0;

    for (; i + 8 <= n; i += 8) {
        for (int j = 0; j < 8; j++)
            s[j] += (double)a[i + j] * (double)b[i + j];
    }
    for (; i < n; i++)
        s[i % 8] += (double)a[i] * (double)b[i];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

typedef struct linear_args {
    const lw_kernels *k;
    lw_tensor *y;
    const lw_tensor *x;
    const lw_linear *lin;
} linear_args;

/* One output column for all rows, so that a stored weight row is widened once. */
static void linear_column(void *arg, int thread, int64_t o)
{
    const linear_args *l = arg;
    const lw_tensor *w = &l->lin->w;
    int64_t n = lw_rows(l->x), n_in = w->shape[1];
    float *wide = lw_cpu_scratch(l->k, thread);
    double bias = lw_tensor_present(&l->lin->b) ? (double)lw_f32(&l->lin->b)[o] : 0;

    lw_dtype_convert(wide, LW_F32, lw_row_any(w, o), w->dtype, (size_t)n_in);
    for (int64_t i = 0; i < n; i++)
        lw_row(l->y, i)[o] = (float)(dot(lw_row(l->x, i), wide, n_in) + bias);
}

static void ref_linear(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_linear *lin)
{
    linear_args l = { k, y, x, lin };

    if (lin->packed)
        lw_cpu_int8_linears(k, 1, &y, x, &lin);
    else if (lw_cpu_reserve(k, (size_t)lin->w.shape[1] * sizeof(float)))
        lw_pool_run(k->pool, lin->w.shape[0], linear_column, &l);
}

typedef struct norm_args {
    lw_tensor *y;
    const lw_tensor *x, *w, *scale;
    double eps;
} norm_args;

static double rms_factor(const float *x, int64_t d, double eps)
{
    return 1.0 / sqrt(dot(x, x, d) / (double)d + eps);
}

static void rmsnorm_row(void *arg, int thread, int64_t i)
{
    const norm_args *a = arg;
    int64_t d = lw_cols(a->x);
    const float *x = lw_row(a->x, i);
    float *y = lw_row(a->y, i);
    double r = rms_factor(x, d, a->eps);

    (void)thread;
    for (int64_t j = 0; j < d; j++) {
        double m = a->scale ? 1.0 + (double)lw_f32(a->scale)[j] : 1.0;

        y[j] = (float)((double)x[j] * r * (double)lw_f32(a->w)[j] * m);
    }
}

static void ref_rmsnorm(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_tensor *w,
                        float eps, const lw_tensor *scale)
{
    norm_args a = { y, x, w, scale, (double)eps };

    lw_pool_run(k->pool, lw_rows(x), rmsnorm_row, &a);
}

static void layernorm_row(void *arg, int thread, int64_t i)
{
    const norm_args *a = arg;
    int64_t d = lw_cols(a->x);
    const float *x = lw_row(a->x, i);
    float *y = lw_row(a->y, i);
    double sum = 0, sum_sq = 0, mean, r;

    (void)thread;
    for (int64_t j = 0; j < d; j++)
        sum += (double)x[j];
    mean = sum / (double)d;
    for (int64_t j = 0; j < d; j++)
        sum_sq += ((double)x[j] - mean) * ((double)x[j] - mean);
    r = 1.0 / sqrt(sum_sq / (double)d + a->eps);
    for (int64_t j = 0; j < d; j++)
        y[j] = (float)(((double)x[j] - mean) * r * (1.0 + (double)lw_f32(a->scale)[j]));
}

static void ref_layernorm(lw_kernels *k, lw_tensor *y, const lw_tensor *x, float eps,
                          const lw_tensor *scale)
{
    norm_args a = { y, x, NULL, scale, (double)eps };

    lw_pool_run(k->pool, lw_rows(x), layernorm_row, &a);
}

/* Here x is the branch's output, y the residual stream, scale the gate. */
static void add_rmsnorm_row(void *arg, int thread, int64_t i)
{
    const norm_args *a = arg;
    int64_t d = lw_cols(a->x);
    const float *x = lw_row(a->x, i);
    float *y = lw_row(a->y, i);
    double r = rms_factor(x, d, a->eps);

    (void)thread;
    for (int64_t j = 0; j < d; j++) {
        double g = a->scale ? tanh((double)lw_f32(a->scale)[j]) : 1.0;

        y[j] = (float)((double)y[j] + g * (double)x[j] * r * (double)lw_f32(a->w)[j]);
    }
}

static void ref_add_rmsnorm(lw_kernels *k, lw_tensor *x, const lw_tensor *y, const lw_tensor *w,
                            float eps, const lw_tensor *gate)
{
    norm_args a = { x, y, w, gate, (double)eps };

    lw_pool_run(k->pool, lw_rows(x), add_rmsnorm_row, &a);
}

typedef struct pair_args {
    lw_tensor *y;
    const lw_tensor *a, *b;
} pair_args;

static void add_row(void *arg, int thread, int64_t i)
{
    const pair_args *p = arg;
    int64_t d = lw_cols(p->y);

    (void)thread;
    for (int64_t j = 0; j < d; j++)
        lw_row(p->y, i)[j] += lw_row(p->a, i)[j];
}

static void ref_add(lw_kernels *k, lw_tensor *x, const lw_tensor *y)
{
    pair_args p = { x, y, NULL };

    lw_pool_run(k->pool, lw_rows(x), add_row, &p);
}

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

static void swiglu_row(void *arg, int thread, int64_t i)
{
    const pair_args *p = arg;
    int64_t d = lw_cols(p->y);

    (void)thread;
    for (int64_t j = 0; j < d; j++)
        lw_row(p->y, i)[j] = (float)(silu((double)lw_row(p->a, i)[j]) * (double)lw_row(p->b, i)[j]);
}

static void ref_swiglu(lw_kernels *k, lw_tensor *y, const lw_tensor *gate, const lw_tensor *up)
{
    pair_args p = { y, gate, up };

    lw_pool_run(k->pool, lw_rows(y), swiglu_row, &p);
}

static void silu_row(void *arg, int thread, int64_t i)
{
    const pair_args *p = arg;
    int64_t d = lw_cols(p->y);

    (void)thread;
    for (int64_t j = 0; j < d; j++)
        lw_row(p->y, i)[j] = (float)silu((double)lw_row(p->a, i)[j]);
}

static void ref_silu(lw_kernels *k, lw_tensor *y, const lw_tensor *x)
{
    pair_args p = { y, x, NULL };

    lw_pool_run(k->pool, lw_rows(y), silu_row, &p);
}

typedef struct rope_args {
    lw_tensor *q;
    int heads;
    const lw_tensor *w, *cos, *sin;
    double eps;
    lw_rope_pairing pairing;
} rope_args;

static void qk_norm_rope_row(void *arg, int thread, int64_t i)
{
    const rope_args *a = arg;
    int64_t D = lw_cols(a->q) / a->heads;
    const float *w = lw_f32(a->w), *c = lw_row(a->cos, i), *s = lw_row(a->sin, i);

    (void)thread;
    for (int h = 0; h < a->heads; h++) {
        float *x = lw_row(a->q, i) + h * D;
        double r = rms_factor(x, D, a->eps);

        for (int64_t p = 0; p < D / 2; p++) {
            bool inter = a->pairing == LW_ROPE_INTERLEAVED;
            int64_t first = inter ? 2 * p : p, second = inter ? 2 * p + 1 : p + D / 2;
            double x0 = (double)x[first] * r * (double)w[first];
            double x1 = (double)x[second] * r * (double)w[second];

            x[first] = (float)(x0 * (double)c[p] - x1 * (double)s[p]);
            x[second] = (float)(x0 * (double)s[p] + x1 * (double)c[p]);
        }
    }
}

static void ref_qk_norm_rope(lw_kernels *k, lw_tensor *q, int heads, const lw_tensor *w, float eps,
                             const lw_tensor *cos, const lw_tensor *sin, lw_rope_pairing pairing)
{
    rope_args a = { q, heads, w, cos, sin, (double)eps, pairing };

    lw_pool_run(k->pool, lw_rows(q), qk_norm_rope_row, &a);
}

typedef struct attention_args {
    const lw_kernels *k;
    lw_tensor *o;
    const lw_tensor *q, *key, *v;
    int heads, kv_heads;
    double scale;
    bool causal;
} attention_args;

/* All heads of one query row. Scratch: m probabilities, then D sums. */
static void attention_row(void *arg, int thread, int64_t i)
{
    const attention_args *a = arg;
    int64_t D = lw_cols(a->q) / a->heads, m = lw_rows(a->key);
    int64_t n_seen = a->causal ? i + 1 : m;
    double *p = lw_cpu_scratch(a->k, thread), *sum = p + m;

    for (int h = 0; h < a->heads; h++) {
        int64_t kv = h / (a->heads / a->kv_heads) * D;
        const float *q = lw_row(a->q, i) + h * D;
        double top = -INFINITY, total = 0;

        for (int64_t j = 0; j < n_seen; j++) {
            p[j] = dot(q, lw_row(a->key, j) + kv, D) * a->scale;
            top = fmax(top, p[j]);
        }
        memset(sum, 0, (size_t)D * sizeof(*sum));
        for (int64_t j = 0; j < n_seen; j++) {
            const float *v = lw_row(a->v, j) + kv;
            double e = exp(p[j] - top);

            total += e;
            for (int64_t c = 0; c < D; c++)
                sum[c] += e * (double)v[c];
        }
        for (int64_t c = 0; c < D; c++)
            lw_row(a->o, i)[h * D + c] = (float)(sum[c] / total);
    }
}

static void ref_attention(lw_kernels *k, lw_tensor *o, const lw_tensor *q, const lw_tensor *key,
                          const lw_tensor *v, int heads, int kv_heads, float scale, bool causal)
{
    attention_args a = { k, o, q, key, v, heads, kv_heads, (double)scale, causal };
    int64_t D = lw_cols(q) / heads;

    if (lw_cpu_reserve(k, (size_t)(lw_rows(key) + D) * sizeof(double)))
        lw_pool_run(k->pool, lw_rows(q), attention_row, &a);
}

static void ref_embed(lw_kernels *k, lw_tensor *y, const lw_tensor *table, const int32_t *ids)
{
    (void)k;
    for (int64_t i = 0; i < lw_rows(y); i++)
        lw_dtype_convert(lw_row(y, i), LW_F32, lw_row_any(table, ids[i]), table->dtype,
                         (size_t)table->shape[1]);
}

static void ref_fill_rows(lw_kernels *k, lw_tensor *y, const lw_tensor *v)
{
    (void)k;
    for (int64_t i = 0; i < lw_rows(y); i++)
        memcpy(lw_row(y, i), v->data, (size_t)lw_cols(y) * sizeof(float));
}

static void ref_deinit(lw_kernels *k)
{
    lw_cpu_state_destroy(k);
}

static size_t ref_scratch_bytes(const lw_kernels *k)
{
    const lw_cpu *cpu = k->impl;

    return cpu ? (size_t)cpu->n_threads * cpu->thread_bytes + cpu->shared_bytes : 0;
}

void lw_cpu_add_ref(lw_kernels *k)
{
    k->name = "ref";
    k->linear_prepare = lw_cpu_linear_prepare;
    k->linears = lw_cpu_linears;
    k->linear = ref_linear;
    k->rmsnorm = ref_rmsnorm;
    k->layernorm = ref_layernorm;
    k->add_rmsnorm = ref_add_rmsnorm;
    k->add = ref_add;
    k->qk_norm_rope = ref_qk_norm_rope;
    k->attention = ref_attention;
    k->swiglu = ref_swiglu;
    k->silu = ref_silu;
    k->embed = ref_embed;
    k->fill_rows = ref_fill_rows;
    k->deinit = ref_deinit;
    k->scratch_bytes = ref_scratch_bytes;
}
