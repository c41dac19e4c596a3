#include "common/cpu/ceiling.h"

#include <string.h>

#include "common/clock.h"
#include "common/cpu/cpu.h"
#include "common/cpu/int8.h"
#include "common/cpu/vec.h"

#define PIECES      16 /* for each thread */
#define TURNS       50000
#define PIECE_BYTES ((int64_t)64 << 10)

typedef struct burst {
    double (*fn)(int64_t turns);
    double work; /* of one piece */
} burst;

static void burst_piece(void *arg, int thread, int64_t piece)
{
    burst *b = arg;
    double work = b->fn(TURNS);

    (void)thread;
    if (piece == 0)
        b->work = work;
}

/* Operations a nanosecond are 1e9 a second. */
static double run_burst(lw_pool *pool, double (*fn)(int64_t turns))
{
    burst b = { .fn = fn };
    int64_t n = (int64_t)PIECES * lw_pool_threads(pool), start = lw_now_ns();

    lw_pool_run(pool, n, burst_piece, &b);
    return b.work * (double)n / (double)(lw_now_ns() - start);
}

double lw_ceiling_multiply_adds(lw_pool *pool)
{
    return run_burst(pool, lw_vec_best()->multiply_adds);
}

double lw_ceiling_dot_products(lw_pool *pool)
{
    const lw_int8_isa *isa = lw_int8_best();

    return isa->dot_products ? run_burst(pool, isa->dot_products) : 0;
}

typedef struct memory {
    const char *src;
    char *dst;
    int64_t bytes;
    const lw_vec *vec;
    uint32_t bits; /* of all that was read, so that it is */
} memory;

static void read_piece(void *arg, int thread, int64_t piece)
{
    memory *m = arg;
    int64_t at = piece * PIECE_BYTES, n = lw_min64(PIECE_BYTES, m->bytes - at);
    uint32_t bits = m->vec->read((const uint32_t *)(const void *)(m->src + at), n / 4);

    (void)thread;
    __atomic_fetch_or(&m->bits, bits, __ATOMIC_RELAXED);
}

static void copy_piece(void *arg, int thread, int64_t piece)
{
    const memory *m = arg;
    int64_t at = piece * PIECE_BYTES;

    (void)thread;
    memcpy(m->dst + at, m->src + at, (size_t)lw_min64(PIECE_BYTES, m->bytes - at));
}

static double run_memory(lw_pool *pool, memory *m, lw_pool_fn *fn, double passes)
{
    int64_t start = lw_now_ns();

    lw_pool_run(pool, lw_ceil_div(m->bytes, PIECE_BYTES), fn, m);
    return passes * (double)m->bytes / (double)(lw_now_ns() - start);
}

double lw_ceiling_read(lw_pool *pool, const void *p, size_t bytes)
{
    memory m = { .src = p, .bytes = (int64_t)bytes, .vec = lw_vec_best() };

    return run_memory(pool, &m, read_piece, 1);
}

double lw_ceiling_copy(lw_pool *pool, void *dst, const void *src, size_t bytes)
{
    memory m = { .src = src, .dst = dst, .bytes = (int64_t)bytes };

    return run_memory(pool, &m, copy_piece, 2);
}
