/* One case of bench.h after the other: memory, random numbers, runs in turn with the ceiling. */
#include <stdlib.h>
#include <string.h>

#include "common/bench.h"
#include "common/clock.h"
#include "common/cpu/ceiling.h"
#include "common/cpu/int8.h"
#include "common/cpu/vec.h"
#include "common/kernels.h"
#include "common/rng.h"
#include "common/stats.h"

#define D(...) ((const int64_t[]){ __VA_ARGS__ })

/* A case is run at least so often and for so long, each run with a ceiling of an eighth of its time
 * before and after it. */
#define MIN_RUNS     5
#define MAX_RUNS     200
#define CASE_NS      500000000
#define CEILING_PART 8

#define N_NUMBERS  4099 /* random ones, repeated: a prime, so that rows differ */
#define N_GROUPS   32   /* of channels, in the decoder's norms */
#define KV_SHARE   4    /* query heads to a head of keys and values, in the encoder */
#define EPS        1e-6f
#define MAX_INPUTS 3

struct lw_bench {
    lw_pool *pool;
    lw_kernels k;
    float numbers[N_NUMBERS];
};

/* A case with its memory. What the tensors are is between set_ and run_ of an operation. */
typedef struct subject {
    lw_bench *bench;
    const lw_bench_case *c;
    lw_arena arena;
    lw_tensor x[MAX_INPUTS], y;
    lw_linear linear;
    lw_conv2d conv;
    lw_int8_rows rows;
    void *rows_memory;
    const void *from; /* of the memory ceilings: what is read, and where a copy goes */
    void *to;
    size_t bytes;
} subject;

lw_status lw_bench_open(int threads, lw_bench **ret, lw_err *err)
{
    lw_bench *b = calloc(1, sizeof(*b));
    lw_rng rng;
    lw_status s;

    if (!b)
        return lw_fail(err, LW_E_NOMEM, "no memory for a measurement");
    lw_rng_seed(&rng, 1);
    lw_rng_normal(&rng, b->numbers, N_NUMBERS);
    s = lw_pool_create(threads, &b->pool, err);
    if (s == LW_OK)
        s = lw_kernels_init_cpu(&b->k, b->pool, err);
    if (s != LW_OK) {
        lw_pool_destroy(&b->pool);
        free(b);
        return s;
    }
    *ret = b;
    return LW_OK;
}

void lw_bench_close(lw_bench **pb)
{
    lw_bench *b = *pb;

    if (!b)
        return;
    *pb = NULL;
    lw_kernels_deinit(&b->k);
    lw_pool_destroy(&b->pool);
    free(b);
}

int lw_bench_threads(const lw_bench *b)
{
    return lw_pool_threads(b->pool);
}

const char *lw_bench_backend(const lw_bench *b)
{
    return b->k.name;
}

const char *lw_bench_isa_f32(void)
{
    return lw_vec_best()->isa;
}

const char *lw_bench_isa_int8(void)
{
    return lw_int8_best()->name;
}

/* ---- memory ---- */

/* A tensor of random numbers with this standard deviation. */
static lw_status made(subject *s, lw_dtype dtype, int rank, const int64_t *shape, float scale,
                      lw_tensor *ret, lw_err *err)
{
    float numbers[N_NUMBERS];
    size_t count, size = lw_dtype_size(dtype);

    for (int i = 0; i < N_NUMBERS; i++)
        numbers[i] = scale * s->bench->numbers[i];
    LW_TRY(lw_tensor_alloc(&s->arena, dtype, rank, shape, ret, err));
    count = (size_t)lw_tensor_count(ret);
    for (size_t i = 0; i < count; i += N_NUMBERS)
        lw_dtype_convert((char *)ret->data + i * size, dtype, numbers, LW_F32,
                         count - i < N_NUMBERS ? count - i : N_NUMBERS);
    return LW_OK;
}

static lw_status matrix(subject *s, int64_t rows, int64_t cols, lw_tensor *ret, lw_err *err)
{
    return made(s, LW_F32, 2, D(rows, cols), 1, ret, err);
}

static lw_status vector(subject *s, int64_t n, lw_tensor *ret, lw_err *err)
{
    return made(s, LW_F32, 1, D(n), 1, ret, err);
}

static lw_status picture(subject *s, int64_t side, int64_t channels, lw_tensor *ret, lw_err *err)
{
    return made(s, LW_F32, 3, D(side, side, channels), 1, ret, err);
}

/* What is copied as the ceiling: half as much as the operation reads and writes. */
static lw_status set_copy(subject *s, lw_err *err)
{
    int64_t n = (int64_t)(lw_bench_work(s->c) / 2 / sizeof(float));
    lw_tensor from, to;

    LW_TRY(vector(s, n, &from, err));
    LW_TRY(vector(s, n, &to, err));
    s->from = from.data;
    s->to = to.data;
    s->bytes = (size_t)n * sizeof(float);
    return LW_OK;
}

/* ---- operations ---- */

static lw_status set_weights(subject *s, bool int8, int64_t out, int64_t in, lw_err *err)
{
    lw_kernels *k = &s->bench->k;

    s->linear.bulk = int8;
    k->precision = int8 ? LW_PRECISION_INT8 : LW_PRECISION_F32;
    LW_TRY(made(s, LW_BF16, 2, D(out, in), 0.02f, &s->linear.w, err));
    return k->linear_prepare(k, &s->linear, &s->arena, err);
}

static lw_status set_linear(subject *s, lw_err *err)
{
    const lw_bench_case *c = s->c;

    LW_TRY(matrix(s, c->n, c->a, &s->x[0], err));
    LW_TRY(matrix(s, c->n, c->b, &s->y, err));
    LW_TRY(set_weights(s, c->op == LW_BENCH_LINEAR_INT8, c->b, c->a, err));
    s->from = s->linear.packed ? s->linear.packed : s->linear.w.data;
    s->bytes = s->linear.packed ? lw_int8_packed_bytes(c->b, c->a) : lw_tensor_bytes(&s->linear.w);
    return LW_OK;
}

static void run_linear(subject *s)
{
    s->bench->k.linear(&s->bench->k, &s->y, &s->x[0], &s->linear);
}

static int64_t kv_heads(const lw_bench_case *c)
{
    return c->op == LW_BENCH_ATTENTION_CAUSAL ? c->a / KV_SHARE : c->a;
}

static lw_status set_attention(subject *s, lw_err *err)
{
    const lw_bench_case *c = s->c;

    LW_TRY(matrix(s, c->n, c->a * c->b, &s->x[0], err));
    LW_TRY(matrix(s, c->n, kv_heads(c) * c->b, &s->x[1], err));
    LW_TRY(matrix(s, c->n, kv_heads(c) * c->b, &s->x[2], err));
    return matrix(s, c->n, c->a * c->b, &s->y, err);
}

static void run_attention(subject *s)
{
    const lw_bench_case *c = s->c;

    s->bench->k.attention(&s->bench->k, &s->y, &s->x[0], &s->x[1], &s->x[2], (int)c->a,
                          (int)kv_heads(c), 0.09f, c->op == LW_BENCH_ATTENTION_CAUSAL);
}

static lw_status set_conv(subject *s, lw_err *err)
{
    const lw_bench_case *c = s->c;
    lw_kernels *k = &s->bench->k;

    s->conv = (lw_conv2d){
        .k = 3, .stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1
    };
    LW_TRY(picture(s, c->n, c->a, &s->x[0], err));
    LW_TRY(picture(s, c->n, c->b, &s->y, err));
    LW_TRY(vector(s, c->b, &s->conv.b, err));
    LW_TRY(made(s, LW_F32, 4, D(c->b, 3, 3, c->a), 0.02f, &s->conv.w, err));
    return k->conv2d_prepare(k, &s->conv, &s->arena, err);
}

static void run_conv(subject *s)
{
    s->bench->k.conv2d(&s->bench->k, &s->y, &s->x[0], &s->conv, NULL);
}

static lw_status set_group_factors(subject *s, lw_err *err)
{
    LW_TRY(picture(s, s->c->n, s->c->a, &s->x[0], err));
    s->from = s->x[0].data;
    s->bytes = lw_tensor_bytes(&s->x[0]);
    LW_TRY(matrix(s, 3, s->c->a, &s->y, err));
    LW_TRY(vector(s, s->c->a, &s->x[1], err));
    return vector(s, s->c->a, &s->x[2], err);
}

static void run_group_factors(subject *s)
{
    s->bench->k.group_factors(&s->bench->k, &s->y, &s->x[0], &s->x[1], &s->x[2], N_GROUPS, EPS);
}

/* Rows in, rows out, a factor for each column. */
static lw_status set_rows(subject *s, lw_err *err)
{
    LW_TRY(matrix(s, s->c->n, s->c->a, &s->x[0], err));
    LW_TRY(matrix(s, s->c->n, s->c->a, &s->y, err));
    LW_TRY(vector(s, s->c->a, &s->x[1], err));
    return set_copy(s, err);
}

static void run_rmsnorm(subject *s)
{
    s->bench->k.rmsnorm(&s->bench->k, &s->y, &s->x[0], &s->x[1], EPS, &s->x[1]);
}

static void run_add_rmsnorm(subject *s)
{
    s->bench->k.add_rmsnorm(&s->bench->k, &s->y, &s->x[0], &s->x[1], EPS, &s->x[1]);
}

static void run_layernorm(subject *s)
{
    s->bench->k.layernorm(&s->bench->k, &s->y, &s->x[0], EPS, &s->x[1]);
}

static lw_status set_rope(subject *s, lw_err *err)
{
    const lw_bench_case *c = s->c;

    LW_TRY(matrix(s, c->n, c->a * c->b, &s->y, err));
    LW_TRY(vector(s, c->b, &s->x[0], err));
    LW_TRY(matrix(s, c->n, c->b / 2, &s->x[1], err));
    LW_TRY(matrix(s, c->n, c->b / 2, &s->x[2], err));
    return set_copy(s, err);
}

static void run_rope(subject *s)
{
    s->bench->k.qk_norm_rope(&s->bench->k, &s->y, (int)s->c->a, &s->x[0], EPS, &s->x[1], &s->x[2],
                             LW_ROPE_INTERLEAVED);
}

static lw_status set_swiglu(subject *s, lw_err *err)
{
    LW_TRY(matrix(s, s->c->n, s->c->a, &s->x[0], err));
    LW_TRY(matrix(s, s->c->n, s->c->a, &s->x[1], err));
    LW_TRY(matrix(s, s->c->n, s->c->a, &s->y, err));
    return set_copy(s, err);
}

static void run_swiglu(subject *s)
{
    s->bench->k.swiglu(&s->bench->k, &s->y, &s->x[0], &s->x[1]);
}

static lw_status set_int8_rows(subject *s, lw_err *err)
{
    size_t bytes = lw_int8_rows_bytes(s->c->n, s->c->a, lw_pool_threads(s->bench->pool));

    LW_TRY(matrix(s, s->c->n, s->c->a, &s->x[0], err));
    LW_TRY(set_weights(s, true, LW_INT8_PANEL, s->c->a, err));
    s->rows_memory = lw_arena_alloc(&s->arena, bytes, err);
    return s->rows_memory ? set_copy(s, err) : LW_E_NOMEM;
}

static void run_int8_rows(subject *s)
{
    lw_int8_quantise(lw_int8_best(), s->bench->pool, &s->rows, s->rows_memory, &s->x[0],
                     s->linear.packed);
}

static const struct {
    lw_status (*set)(subject *s, lw_err *err);
    void (*run)(subject *s);
} ops[LW_N_BENCH_OPS] = {
    [LW_BENCH_LINEAR] = { set_linear, run_linear },
    [LW_BENCH_LINEAR_INT8] = { set_linear, run_linear },
    [LW_BENCH_ATTENTION] = { set_attention, run_attention },
    [LW_BENCH_ATTENTION_CAUSAL] = { set_attention, run_attention },
    [LW_BENCH_CONV2D] = { set_conv, run_conv },
    [LW_BENCH_GROUP_FACTORS] = { set_group_factors, run_group_factors },
    [LW_BENCH_RMSNORM] = { set_rows, run_rmsnorm },
    [LW_BENCH_ADD_RMSNORM] = { set_rows, run_add_rmsnorm },
    [LW_BENCH_LAYERNORM] = { set_rows, run_layernorm },
    [LW_BENCH_QK_NORM_ROPE] = { set_rope, run_rope },
    [LW_BENCH_SWIGLU] = { set_swiglu, run_swiglu },
    [LW_BENCH_INT8_ROWS] = { set_int8_rows, run_int8_rows },
};

/* ---- measuring ---- */

static double burst(const subject *s)
{
    switch (lw_bench_bound_of(s->c)) {
    case LW_BENCH_MULTIPLY_ADD:
        return lw_ceiling_multiply_adds(s->bench->pool);
    case LW_BENCH_DOT_PRODUCT:
        return lw_ceiling_dot_products(s->bench->pool);
    case LW_BENCH_READ:
        return lw_ceiling_read(s->bench->pool, s->from, s->bytes);
    default:
        return lw_ceiling_copy(s->bench->pool, s->to, s->from, s->bytes);
    }
}

/* The mean of as many bursts as take a part of what a run takes: who holds up the one for a while
 * holds up the other. */
static double measure_ceiling(const subject *s, int64_t run_ns)
{
    int64_t begin = lw_now_ns();
    double sum = 0;
    int n = 0;

    do {
        sum += burst(s);
        n++;
    } while (lw_now_ns() - begin < run_ns / CEILING_PART);
    return sum / n;
}

/* The first run is not counted: it takes scratch memory, and a library makes its code. */
static void measure(subject *s, lw_bench_result *ret)
{
    double ms[MAX_RUNS], ceilings[MAX_RUNS + 1];
    int64_t begin = lw_now_ns(), run_ns;
    int n = 0;

    ops[s->c->op].run(s);
    run_ns = lw_now_ns() - begin;
    (void)burst(s);
    begin = lw_now_ns();
    ceilings[0] = measure_ceiling(s, run_ns);
    while (n < MAX_RUNS && (n < MIN_RUNS || lw_now_ns() - begin < CASE_NS)) {
        int64_t start = lw_now_ns();

        ops[s->c->op].run(s);
        run_ns = lw_now_ns() - start;
        ms[n] = (double)run_ns / 1e6;
        ceilings[++n] = measure_ceiling(s, run_ns);
    }
    ret->n_runs = n;
    ret->median_ms = lw_median(ms, (size_t)n);
    ret->min_ms = ms[0]; /* sorted now */
    ret->rate = lw_bench_work(s->c) / ret->median_ms / 1e6;
    ret->ceiling = lw_median(ceilings, (size_t)n + 1);
}

lw_status lw_bench_run(lw_bench *b, const lw_bench_case *c, lw_bench_result *ret, lw_err *err)
{
    subject s = { .bench = b, .c = c };
    lw_status st;

    lw_arena_init(&s.arena, "measurement", 0);
    st = ops[c->op].set(&s, err);
    if (st == LW_OK) {
        measure(&s, ret);
        st = lw_kernels_check(&b->k, err);
    }
    lw_arena_deinit(&s.arena);
    return st;
}
