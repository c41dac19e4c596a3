/*
 * Times of the operations at the sizes of the real models, beside the machine's measured ceiling of
 * f32 multiply-adds. Bests of several runs, since other processes share the machine.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/cpu/cpu.h"
#include "common/cpu/vec.h"
#ifdef LW_TEST_ONEDNN
#include "common/cpu/onednn.h"
#endif
#include "tests/kernels/harness.h"

#define D(...) ((const int64_t[]){ __VA_ARGS__ })

typedef struct bench {
    lw_kernels *k;
    const char *filter;
    double ceiling; /* GFLOP/s of all threads */
} bench;

/* Fourteen chains of multiply-adds as wide as the widest registers of the level. */
#define CHAINS     14
#define PEAK_TURNS 3000000

#define PEAK_FN(name, attr, width)                                                                 \
    attr static double name(void)                                                                  \
    {                                                                                              \
        typedef float vec __attribute__((vector_size((width)*4)));                                 \
        vec acc[CHAINS], a = { 0 }, b = { 0 };                                                     \
        int64_t t0;                                                                                \
        float sink = 0;                                                                            \
                                                                                                   \
        for (int i = 0; i < CHAINS; i++)                                                           \
            acc[i] = a + (float)i;                                                                 \
        a += 0.999f;                                                                               \
        b += 1e-3f;                                                                                \
        t0 = lw_now_ns();                                                                          \
        for (int n = 0; n < PEAK_TURNS; n++) {                                                     \
            _Pragma("GCC unroll 14") for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * a + b;     \
        }                                                                                          \
        t0 = lw_now_ns() - t0;                                                                     \
        for (int i = 0; i < CHAINS; i++)                                                           \
            sink += acc[i][0];                                                                     \
        return sink == 42.0f ? 0 : 2.0 * (width)*CHAINS * PEAK_TURNS / (double)t0;                 \
    }

#ifdef __x86_64__
PEAK_FN(peak_avx512, __attribute__((target("avx512f,fma"))), 16)
PEAK_FN(peak_avx2, __attribute__((target("avx2,fma"))), 8)
#endif
PEAK_FN(peak_baseline, , 4)

typedef struct peak_args {
    double (*fn)(void);
    double best[64];
} peak_args;

static void peak_item(void *arg, int thread, int64_t item)
{
    peak_args *p = arg;
    double gflops = p->fn();

    (void)thread;
    if (gflops > p->best[item])
        p->best[item] = gflops;
}

static double measure_ceiling(lw_pool *pool)
{
    peak_args p = { peak_baseline, { 0 } };
    int n = lw_pool_threads(pool) < 64 ? lw_pool_threads(pool) : 64;
    double sum = 0;

#ifdef __x86_64__
    if (strcmp(lw_vec_best()->isa, "avx512") == 0)
        p.fn = peak_avx512;
    else if (strcmp(lw_vec_best()->isa, "avx2") == 0)
        p.fn = peak_avx2;
#endif
    for (int i = 0; i < 5; i++)
        lw_pool_run(pool, n, peak_item, &p);
    for (int i = 0; i < n; i++)
        sum += p.best[i];
    return sum;
}

/* Best of at least 3 runs and about half a second. */
#define TIME_BEST(ret_ms, call)                                                                    \
    do {                                                                                           \
        int64_t start_ = lw_now_ns(), best_ = INT64_MAX;                                           \
        for (int n_ = 0; n_ < 3 || lw_now_ns() - start_ < 500000000; n_++) {                       \
            int64_t t_ = lw_now_ns();                                                              \
            call;                                                                                  \
            t_ = lw_now_ns() - t_;                                                                 \
            best_ = t_ < best_ ? t_ : best_;                                                       \
        }                                                                                          \
        (ret_ms) = (double)best_ / 1e6;                                                            \
    } while (0)

static bool wanted(const bench *b, const char *op)
{
    return !b->filter || strcmp(b->filter, op) == 0;
}

static void report(const bench *b, const char *op, const char *shape, double flop, double ms)
{
    double gflops = flop / ms / 1e6;

    printf("%-14s %-44s %9.3f ms", op, shape, ms);
    if (flop > 0)
        printf("  %7.1f GFLOP/s  %3.0f %%", gflops, 100 * gflops / b->ceiling);
    putchar('\n');
    fflush(stdout);
}

static void bench_linear(const bench *b, lw_dtype dtype, int64_t n, int64_t n_in, int64_t n_out)
{
    kt_run r;
    lw_linear lin = { 0 };
    lw_tensor x, y;
    char shape[64];
    double ms;

    if (!wanted(b, "linear"))
        return;
    kt_run_begin(&r, b->k, 1);
    x = kt_input(&r, LW_F32, 2, D(n, n_in), 0, 1, false);
    lin.w = kt_input(&r, dtype, 2, D(n_out, n_in), 0, 0.02f, false);
    y = kt_output(&r, LW_F32, 2, D(n, n_out), false);
    snprintf(shape, sizeof(shape), "n %d K %d N %d %s", (int)n, (int)n_in, (int)n_out,
             lw_dtype_name(dtype));
    TIME_BEST(ms, b->k->linear(b->k, &y, &x, &lin));
    report(b, "linear", shape, 2.0 * (double)n * (double)n_in * (double)n_out, ms);
    kt_run_end(&r);
}

#ifdef LW_TEST_ONEDNN
typedef struct gemm_args {
    const float *x, *w;
    float *y;
    int64_t n, n_in, n_out, part;
} gemm_args;

static void gemm_item(void *arg, int thread, int64_t item)
{
    const gemm_args *g = arg;
    int64_t o = item * g->part;

    (void)thread;
    if (!lw_onednn_sgemm(g->n, g->part, g->n_in, g->x, g->n_in, g->w + o * g->n_in, g->n_in, true,
                         0, g->y + o, g->n_out))
        abort();
}

/* The library alone, f32 weights, one call per thread: what our linear is measured against. */
static void bench_sgemm(const bench *b, int64_t n, int64_t n_in, int64_t n_out)
{
    kt_run r;
    lw_tensor x, w, y;
    gemm_args g;
    char shape[64];
    double ms;

    if (!wanted(b, "linear"))
        return;
    kt_run_begin(&r, b->k, 1);
    x = kt_input(&r, LW_F32, 2, D(n, n_in), 0, 1, false);
    w = kt_input(&r, LW_F32, 2, D(n_out, n_in), 0, 0.02f, false);
    y = kt_output(&r, LW_F32, 2, D(n, n_out), false);
    g = (gemm_args){
        lw_f32(&x), lw_f32(&w), lw_f32(&y), n, n_in, n_out, n_out / lw_pool_threads(b->k->pool)
    };
    snprintf(shape, sizeof(shape), "n %d K %d N %d float32, one sgemm a thread", (int)n, (int)n_in,
             (int)n_out);
    TIME_BEST(ms, lw_pool_run(b->k->pool, lw_pool_threads(b->k->pool), gemm_item, &g));
    report(b, "(sgemm)", shape, 2.0 * (double)n * (double)n_in * (double)n_out, ms);
    kt_run_end(&r);
}
#endif

static void bench_attention(const bench *b, int64_t L, int heads, int64_t D_head, bool causal)
{
    int64_t d = heads * D_head;
    kt_run r;
    lw_tensor q, key, v, o;
    char shape[64];
    double ms;

    if (!wanted(b, "attention"))
        return;
    kt_run_begin(&r, b->k, 1);
    q = kt_input(&r, LW_F32, 2, D(L, d), 0, 1, false);
    key = kt_input(&r, LW_F32, 2, D(L, d), 0, 1, false);
    v = kt_input(&r, LW_F32, 2, D(L, d), 0, 1, false);
    o = kt_output(&r, LW_F32, 2, D(L, d), false);
    snprintf(shape, sizeof(shape), "L %d H %d D %d%s", (int)L, heads, (int)D_head,
             causal ? " causal" : "");
    TIME_BEST(ms, b->k->attention(b->k, &o, &q, &key, &v, heads, heads, 0.09f, causal));
    report(b, "attention", shape, (causal ? 2.0 : 4.0) * (double)(L * L) * (double)d, ms);
    kt_run_end(&r);
}

static void bench_conv(const bench *b, int64_t size, int64_t c_in, int64_t c_out)
{
    lw_conv2d c = {
        .k = 3, .stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1
    };
    kt_run r;
    lw_tensor x, y;
    char shape[64];
    double ms;

    if (!wanted(b, "conv2d"))
        return;
    kt_run_begin(&r, b->k, 1);
    x = kt_input(&r, LW_F32, 3, D(size, size, c_in), 0, 1, false);
    c.w = kt_input(&r, LW_F32, 4, D(c_out, 3, 3, c_in), 0, 0.02f, false);
    c.b = kt_vector(&r, c_out, 0, 1);
    y = kt_output(&r, LW_F32, 3, D(size, size, c_out), false);
    snprintf(shape, sizeof(shape), "%d x %d, %d -> %d, 3 x 3", (int)size, (int)size, (int)c_in,
             (int)c_out);
    if (b->k->conv2d_prepare(b->k, &c, &r.arena, NULL) == LW_OK) {
        TIME_BEST(ms, b->k->conv2d(b->k, &y, &x, &c, NULL));
        report(b, "conv2d", shape, 18.0 * (double)(size * size) * (double)(c_in * c_out), ms);
    }
    kt_run_end(&r);
}

static void bench_group_factors(const bench *b, int64_t size, int64_t C)
{
    kt_run r;
    lw_tensor x, f, w, bias;
    char shape[64];
    double ms;

    if (!wanted(b, "group_factors"))
        return;
    kt_run_begin(&r, b->k, 1);
    x = kt_input(&r, LW_F32, 3, D(size, size, C), 0, 1, false);
    f = kt_output(&r, LW_F32, 2, D(3, C), false);
    w = kt_vector(&r, C, 1, 0.1f);
    bias = kt_vector(&r, C, 0, 0.1f);
    snprintf(shape, sizeof(shape), "%d x %d x %d", (int)size, (int)size, (int)C);
    TIME_BEST(ms, b->k->group_factors(b->k, &f, &x, &w, &bias, 32, 1e-6f));
    report(b, "group_factors", shape, 0, ms);
    kt_run_end(&r);
}

static void bench_rows(const bench *b, int64_t n, int64_t d, int64_t ff, int heads)
{
    kt_run r;
    lw_tensor x, y, w, wd, c, s, g, u;
    char shape[64];
    double ms;

    kt_run_begin(&r, b->k, 1);
    x = kt_inout(&r, 2, D(n, d), 0, 1, false);
    y = kt_output(&r, LW_F32, 2, D(n, d), false);
    w = kt_vector(&r, d, 1, 0.1f);
    wd = kt_vector(&r, d / heads, 1, 0.1f);
    c = kt_input(&r, LW_F32, 2, D(n, d / heads / 2), 0, 0.5f, false);
    s = kt_input(&r, LW_F32, 2, D(n, d / heads / 2), 0, 0.5f, false);
    g = kt_inout(&r, 2, D(n, ff), 0, 1, false);
    u = kt_inout(&r, 2, D(n, ff), 0, 1, false);
    snprintf(shape, sizeof(shape), "n %d d %d", (int)n, (int)d);
    if (wanted(b, "rmsnorm")) {
        TIME_BEST(ms, b->k->rmsnorm(b->k, &y, &x, &w, 1e-5f, &w));
        report(b, "rmsnorm", shape, 0, ms);
    }
    if (wanted(b, "add_rmsnorm")) {
        TIME_BEST(ms, b->k->add_rmsnorm(b->k, &y, &x, &w, 1e-5f, &w));
        report(b, "add_rmsnorm", shape, 0, ms);
    }
    if (wanted(b, "qk_norm_rope")) {
        TIME_BEST(ms, b->k->qk_norm_rope(b->k, &x, heads, &wd, 1e-5f, &c, &s, LW_ROPE_INTERLEAVED));
        report(b, "qk_norm_rope", shape, 0, ms);
    }
    snprintf(shape, sizeof(shape), "n %d d %d", (int)n, (int)ff);
    if (wanted(b, "swiglu")) {
        TIME_BEST(ms, b->k->swiglu(b->k, &g, &g, &u));
        report(b, "swiglu", shape, 0, ms);
    }
    kt_run_end(&r);
}

int kt_bench(const char *filter, int n_threads)
{
    lw_pool *pool = NULL;
    lw_kernels k;
    lw_err err = { 0 };
    bench b = { .k = &k, .filter = filter };

    if (lw_pool_create(n_threads, &pool, &err) != LW_OK ||
        lw_kernels_init_cpu(&k, pool, &err) != LW_OK) {
        fprintf(stderr, "%s\n", err.text);
        lw_pool_destroy(&pool);
        return 1;
    }
    b.ceiling = measure_ceiling(pool);
    printf("%s, %d threads, f32 multiply-add ceiling %.1f GFLOP/s\n", k.name, lw_pool_threads(pool),
           b.ceiling);
    bench_linear(&b, LW_BF16, 1, 256, 15360);
    bench_linear(&b, LW_BF16, 1, 3840, 3840);
    bench_linear(&b, LW_BF16, 32, 3840, 3840);
#ifdef LW_TEST_ONEDNN
    bench_sgemm(&b, 352, 3840, 10240);
#endif
    bench_linear(&b, LW_BF16, 352, 3840, 10240);
    bench_linear(&b, LW_F16, 352, 3840, 10240);
    bench_linear(&b, LW_F32, 352, 3840, 10240);
    bench_linear(&b, LW_BF16, 352, 3840, 3840);
    bench_linear(&b, LW_BF16, 352, 10240, 3840);
    bench_linear(&b, LW_BF16, 1088, 3840, 3840);
    bench_attention(&b, 352, 30, 128, false);
    bench_attention(&b, 1088, 30, 128, false);
    bench_attention(&b, 4160, 30, 128, false);
    bench_attention(&b, 512, 32, 128, true);
    bench_attention(&b, 4096, 1, 512, false);
    bench_conv(&b, 32, 512, 512);
    bench_conv(&b, 64, 512, 512);
    bench_conv(&b, 128, 512, 512);
    bench_conv(&b, 256, 256, 256);
    bench_conv(&b, 512, 128, 128);
    bench_conv(&b, 512, 128, 3);
    bench_conv(&b, 64, 16, 512);
    bench_conv(&b, 512, 3, 128);
    bench_group_factors(&b, 64, 512);
    bench_group_factors(&b, 512, 128);
    bench_rows(&b, 352, 3840, 10240, 30);
    bench_rows(&b, 4160, 3840, 10240, 30);
    lw_kernels_deinit(&k);
    lw_pool_destroy(&pool);
    return 0;
}
