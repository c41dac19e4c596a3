/*
 * Times of the 8-bit integer linear layer at the sizes of the real models, beside ceilings that
 * are measured in the same run:
 *
 *     bench_int8 [--threads=N] [--level=NAME] [--rows=N] [--in=K] [--out=N] [--ms=TIME] [--7bit]
 *
 * "product" multiplies rows that are quantised already, "all" balances, rotates and quantises them
 * too. Each
 * is the best of what fits into --ms milliseconds (100), since other work may share the machine.
 * The ceilings are bests too, taken before and after.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/cpu/cpu.h"
#include "common/cpu/int8.h"
#include "common/size.h"
#include "tests/kernels/harness.h"

#define D(...) ((const int64_t[]){ __VA_ARGS__ })

#define PEAK_TURNS  100000
#define PEAK_RUNS   8
#define MAX_THREADS 64

typedef double peak_fn(void);

#ifdef __x86_64__
/* Twelve independent chains; `one` is an instruction, or several, for chain c in register r. */
#define TWELVE(one)                                                                                \
    one("0") one("1") one("2") one("3") one("4") one("5") one("6") one("7") one("8") one("9")      \
        one("10") one("11")

#define PEAK(name, one, ops)                                                                       \
    static double name(void)                                                                       \
    {                                                                                              \
        int64_t n = PEAK_TURNS, t0 = lw_now_ns();                                                  \
                                                                                                   \
        __asm__ volatile("vzeroall\n1:\n" TWELVE(one) "dec %0\njnz 1b\nvzeroupper"                 \
                         : "+r"(n)                                                                 \
                         :                                                                         \
                         : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",   \
                           "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");  \
        return 12.0 * (ops)*PEAK_TURNS / (double)(lw_now_ns() - t0);                               \
    }

#define FMA_512(r)  "vfmadd231ps %%zmm14, %%zmm15, %%zmm" r "\n"
#define FMA_256(r)  "vfmadd231ps %%ymm14, %%ymm15, %%ymm" r "\n"
#define VNNI_512(r) "vpdpbusd %%zmm14, %%zmm15, %%zmm" r "\n"
#define VNNI_256(r) "%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm" r "\n"
#define MADD_256(r)                                                                                \
    "vpmaddubsw %%ymm14, %%ymm15, %%ymm12\n"                                                       \
    "vpmaddwd %%ymm12, %%ymm15, %%ymm13\n"                                                         \
    "vpaddd %%ymm13, %%ymm" r ", %%ymm" r "\n"

PEAK(f32_512, FMA_512, 32)
PEAK(f32_256, FMA_256, 16)
PEAK(int8_512, VNNI_512, 128)
PEAK(int8_256, MADD_256, 64)
#ifdef LW_HAVE_AVXVNNI
PEAK(int8_vex, VNNI_256, 64)
#endif

static void peaks_of(const lw_int8_isa *isa, peak_fn **f32, peak_fn **int8)
{
    *f32 = *int8 = NULL;
    if (strcmp(isa->name, "avx512vnni") == 0) {
        *f32 = f32_512;
        *int8 = int8_512;
    } else if (strcmp(isa->name, "avx2") == 0) {
        *f32 = f32_256;
        *int8 = int8_256;
    }
#ifdef LW_HAVE_AVXVNNI
    if (strcmp(isa->name, "avxvnni") == 0) {
        *f32 = f32_256;
        *int8 = int8_vex;
    }
#endif
}
#else
static void peaks_of(const lw_int8_isa *isa, peak_fn **f32, peak_fn **int8)
{
    (void)isa;
    *f32 = *int8 = NULL;
}
#endif

typedef struct peak {
    peak_fn *fn;
    double best[MAX_THREADS];
} peak;

static void peak_item(void *arg, int thread, int64_t item)
{
    peak *p = arg;
    double rate = p->fn();

    (void)thread;
    if (rate > p->best[item])
        p->best[item] = rate;
}

/* Sum over the threads of the best that each has shown so far; 0 when unknown. */
static double measure_peak(peak *p, lw_pool *pool)
{
    double sum = 0;

    for (int i = 0; p->fn && i < PEAK_RUNS; i++)
        lw_pool_run(pool, lw_pool_threads(pool), peak_item, p);
    for (int i = 0; i < lw_pool_threads(pool); i++)
        sum += p->best[i];
    return sum;
}

typedef struct bench {
    const lw_int8_isa *isa;
    lw_pool *pool;
    lw_int8_bits bits;
    int64_t ms;
    peak f32, int8;
} bench;

#define TIME_BEST(ret_ms, call)                                                                    \
    do {                                                                                           \
        int64_t start_ = lw_now_ns(), best_ = INT64_MAX;                                           \
        for (int n_ = 0; n_ < 3 || lw_now_ns() - start_ < b->ms * 1000000; n_++) {                 \
            int64_t t_ = lw_now_ns();                                                              \
            call;                                                                                  \
            t_ = lw_now_ns() - t_;                                                                 \
            best_ = t_ < best_ ? t_ : best_;                                                       \
        }                                                                                          \
        (ret_ms) = (double)best_ / 1e6;                                                            \
    } while (0)

static void *memory(size_t bytes)
{
    void *p = bytes == SIZE_MAX ? NULL : aligned_alloc(LW_INT8_ALIGN, lw_size_align(bytes, 64));

    if (!p) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    return p;
}

static void bench_shape(bench *b, int64_t n, int64_t in, int64_t out)
{
    int threads = lw_pool_threads(b->pool);
    lw_int8_form form = lw_int8_usual(in);
    void *packed = memory(lw_int8_packed_bytes(out, in));
    void *mem = memory(lw_int8_rows_bytes(n, in, threads));
    float *w = memory((size_t)(out * in) * sizeof(*w)), *x = memory((size_t)(n * in) * sizeof(*x));
    float *y = memory((size_t)(n * out) * sizeof(*y));
    lw_tensor tw = lw_tensor_nd(w, LW_F32, 2, D(out, in)),
              tx = lw_tensor_nd(x, LW_F32, 2, D(n, in));
    lw_tensor ty = lw_tensor_nd(y, LW_F32, 2, D(n, out));
    double ops = 2e-6 * (double)n * (double)in * (double)out, product_ms, all_ms, plain_ms, pack_ms,
           top;
    lw_int8_rows rows;
    kt_rng rng = { 1 };

    for (int64_t i = 0; i < n * in; i++)
        x[i] = kt_normal(&rng);
    for (int64_t i = 0; i < out * in; i++)
        w[i] = (float)(int)(i * 2654435761u % 255) - 127;
    pack_ms = (double)lw_now_ns() / 1e6;
    form.bits = b->bits;
    if (lw_int8_pack(packed, &tw, form, b->pool, NULL) != LW_OK)
        exit(1);
    pack_ms = (double)lw_now_ns() / 1e6 - pack_ms;
    free(w);
    lw_int8_quantise(b->isa, b->pool, &rows, mem, &tx, packed);
    TIME_BEST(product_ms, lw_int8_product(b->isa, b->pool, &ty, &rows, packed, NULL));
    TIME_BEST(all_ms, (lw_int8_quantise(b->isa, b->pool, &rows, mem, &tx, packed),
                       lw_int8_product(b->isa, b->pool, &ty, &rows, packed, NULL)));
    TIME_BEST(plain_ms, lw_int8_quantise(b->isa, b->pool, &rows, mem, &tx, packed));
    top = measure_peak(&b->int8, b->pool);
    printf("n %4d  %5d -> %5d  product %8.3f ms %7.1f GOP/s %5.1f %%  all %8.3f ms %7.1f GOP/s "
           "%5.1f %%  quantise %6.3f ms  pack %4.0f ms\n",
           (int)n, (int)in, (int)out, product_ms, ops / product_ms,
           top > 0 ? 100 * ops / product_ms / top : 0, all_ms, ops / all_ms,
           top > 0 ? 100 * ops / all_ms / top : 0, plain_ms, pack_ms);
    fflush(stdout);
    free(packed);
    free(mem);
    free(x);
    free(y);
}

static int64_t option(const char *arg, const char *name, int64_t value)
{
    size_t n = strlen(name);

    return strncmp(arg, name, n) == 0 ? strtoll(arg + n, NULL, 10) : value;
}

int main(int argc, char **argv)
{
    static const int64_t shapes[][2] = { { 3840, 3840 },  { 3840, 10240 }, { 10240, 3840 },
                                         { 3840, 20480 }, { 2560, 9728 },  { 2560, 4096 } };
    static const int64_t counts[] = { 67, 352, 1120 };
    static bench b;
    int64_t threads = 1, n = 0, in = 0, out = 0;
    lw_err err = { 0 };

    b = (bench){ .isa = lw_int8_best(), .bits = LW_INT8_8BIT, .ms = 100 };
    for (int i = 1; i < argc; i++) {
        threads = option(argv[i], "--threads=", threads);
        n = option(argv[i], "--rows=", n);
        in = option(argv[i], "--in=", in);
        out = option(argv[i], "--out=", out);
        b.ms = option(argv[i], "--ms=", b.ms);
        if (strcmp(argv[i], "--7bit") == 0)
            b.bits = LW_INT8_7BIT;
        for (int l = 0; strncmp(argv[i], "--level=", 8) == 0 && l < lw_int8_levels(); l++)
            if (strcmp(argv[i] + 8, lw_int8_level(l)->name) == 0)
                b.isa = lw_int8_level(l);
    }
    if (threads < 1 || threads > MAX_THREADS || n < 0 || in < 0 || in > LW_INT8_MAX_IN || out < 0 ||
        lw_pool_create((int)threads, &b.pool, &err) != LW_OK) {
        fprintf(stderr, "bench_int8: see the head of bench_int8.c\n");
        return 2;
    }
    peaks_of(b.isa, &b.f32.fn, &b.int8.fn);
    measure_peak(&b.int8, b.pool);
    printf("%s, %d threads, %d-bit weights\n", b.isa->name, (int)threads,
           b.bits == LW_INT8_8BIT ? 8 : 7);
    if (n > 0 && in > 0 && out > 0)
        bench_shape(&b, n, in, out);
    for (size_t c = 0; (n == 0 || in == 0 || out == 0) && c < LW_ARRAY_LEN(counts); c++)
        for (size_t s = 0; s < LW_ARRAY_LEN(shapes); s++)
            if ((n == 0 || n == counts[c]) && (in == 0 || in == shapes[s][0]) &&
                (out == 0 || out == shapes[s][1]))
                bench_shape(&b, counts[c], shapes[s][0], shapes[s][1]);
    printf("ceilings: int8 %.1f GOP/s, f32 multiply-add %.1f GFLOP/s\n",
           measure_peak(&b.int8, b.pool), measure_peak(&b.f32, b.pool));
    lw_pool_destroy(&b.pool);
    return 0;
}
