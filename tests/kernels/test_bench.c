/*
 * The measurement of operations: how much work each case is, worked out by hand; and that small
 * cases are run and give numbers. How large the numbers are is not asserted.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/bench.h"
#include "common/cpu/ceiling.h"
#include "common/cpu/int8.h"
#include "common/cpu/vec.h"

static double work(lw_bench_op op, int64_t n, int64_t a, int64_t b)
{
    const lw_bench_case c = { op, n, a, b };

    return lw_bench_work(&c);
}

static void assert_work(double found, double right)
{
    if (found != right)
        fail_msg("%.1f, expected %.1f", found, right);
}

static void test_products(void **state)
{
    (void)state;
    /* 352 x 3840 x 10240 products of two operations */
    assert_work(work(LW_BENCH_LINEAR, 352, 3840, 10240), 27682406400.0);
    assert_work(work(LW_BENCH_LINEAR_INT8, 352, 3840, 10240), 27682406400.0);
    assert_work(work(LW_BENCH_LINEAR, 3, 5, 7), 210);
    /* 2 tokens, one head of 3: q k^T has 2 x 2 x 3 products, p v as many */
    assert_work(work(LW_BENCH_ATTENTION, 2, 1, 3), 48);
    assert_work(work(LW_BENCH_ATTENTION, 4160, 30, 128), 265814016000.0);
    /* causal: pairs (0,0), (1,0), (1,1) */
    assert_work(work(LW_BENCH_ATTENTION_CAUSAL, 2, 1, 3), 36);
    /* 9 products for each of 4 x 4 positions, 2 inputs and 5 outputs */
    assert_work(work(LW_BENCH_CONV2D, 4, 2, 5), 2880);
    assert_work(work(LW_BENCH_CONV2D, 64, 512, 512), 19327352832.0);
}

static void test_bytes(void **state)
{
    (void)state;
    /* one token reads the weights: 16-bit ones, or 120 panels of 256 + 32 x 3840, 3840 factors and
     * a header */
    assert_work(work(LW_BENCH_LINEAR, 1, 3840, 3840), 29491200);
    assert_work(work(LW_BENCH_LINEAR_INT8, 1, 3840, 3840), 14791744);
    assert_work(work(LW_BENCH_GROUP_FACTORS, 2, 32, 0), 2 * 2 * 32 * 4);
    assert_work(work(LW_BENCH_RMSNORM, 2, 10, 0), 160);
    assert_work(work(LW_BENCH_LAYERNORM, 2, 10, 0), 160);
    assert_work(work(LW_BENCH_ADD_RMSNORM, 2, 10, 0), 240);
    assert_work(work(LW_BENCH_SWIGLU, 2, 10, 0), 240);
    /* 2 rows of 3 heads of 4 read and written; 2 cosines and 2 sines a row */
    assert_work(work(LW_BENCH_QK_NORM_ROPE, 2, 3, 4), 192 + 32);
    assert_work(work(LW_BENCH_INT8_ROWS, 2, 64, 0), 640);
}

static void test_cases(void **state)
{
    size_t n, n_linear = 0, n_int8 = 0;
    const lw_bench_case *c = lw_bench_cases(&n);
    char a[96], b[96];

    (void)state;
    for (size_t i = 0; i < n; i++) {
        assert_true(lw_bench_work(&c[i]) > 0);
        assert_true(strlen(lw_bench_name(c[i].op)) > 0);
        n_linear += lw_bench_is_f32_linear(&c[i]);
        n_int8 += c[i].op == LW_BENCH_LINEAR_INT8;
        for (size_t k = 0; k < i; k++)
            assert_false(c[i].op == c[k].op && !strcmp(lw_bench_shape(&c[i], a, sizeof(a)),
                                                       lw_bench_shape(&c[k], b, sizeof(b))));
    }
    assert_int_equal(n_linear, 20);
    assert_int_equal(n_int8, 20);
}

static void test_bounds(void **state)
{
    static const lw_bench_case one = { LW_BENCH_LINEAR_INT8, 1, 64, 64 },
                               some = { LW_BENCH_LINEAR_INT8, 32, 64, 64 },
                               conv = { LW_BENCH_CONV2D, 8, 32, 32 },
                               rows = { LW_BENCH_SWIGLU, 8, 32, 0 };

    (void)state;
    assert_int_equal(lw_bench_bound_of(&one), LW_BENCH_READ);
    assert_int_equal(lw_bench_bound_of(&some), LW_BENCH_DOT_PRODUCT);
    assert_int_equal(lw_bench_bound_of(&conv), LW_BENCH_MULTIPLY_ADD);
    assert_int_equal(lw_bench_bound_of(&rows), LW_BENCH_COPY);
}

static void test_runs(void **state)
{
    static const lw_bench_case small[LW_N_BENCH_OPS] = {
        { LW_BENCH_LINEAR, 8, 64, 96 },    { LW_BENCH_LINEAR_INT8, 8, 64, 96 },
        { LW_BENCH_ATTENTION, 24, 4, 32 }, { LW_BENCH_ATTENTION_CAUSAL, 24, 4, 32 },
        { LW_BENCH_CONV2D, 8, 32, 32 },    { LW_BENCH_GROUP_FACTORS, 8, 64, 0 },
        { LW_BENCH_RMSNORM, 8, 64, 0 },    { LW_BENCH_ADD_RMSNORM, 8, 64, 0 },
        { LW_BENCH_LAYERNORM, 8, 64, 0 },  { LW_BENCH_QK_NORM_ROPE, 8, 4, 32 },
        { LW_BENCH_SWIGLU, 8, 64, 0 },     { LW_BENCH_INT8_ROWS, 8, 64, 0 },
    };
    lw_err err = { 0 };
    lw_bench *b = NULL;

    (void)state;
    assert_int_equal(lw_bench_open(2, &b, &err), LW_OK);
    assert_int_equal(lw_bench_threads(b), 2);
    for (int i = 0; i < LW_N_BENCH_OPS; i++) {
        lw_bench_result r = { 0 };

        assert_int_equal(small[i].op, i);
        if (lw_bench_run(b, &small[i], &r, &err) != LW_OK)
            fail_msg("%s: %s", lw_bench_name(small[i].op), err.text);
        assert_true(r.n_runs >= 5 && r.min_ms > 0 && r.median_ms >= r.min_ms);
        assert_true(isfinite(r.rate) && r.rate > 0);
        assert_true(isfinite(r.ceiling) && r.ceiling >= 0);
        if (lw_bench_bound_of(&small[i]) != LW_BENCH_DOT_PRODUCT)
            assert_true(r.ceiling > 0);
    }
    lw_bench_close(&b);
    assert_null(b);
}

/* Operations are counted by turns; every item is read, also the last. */
static void test_levels(void **state)
{
    uint32_t items[37] = { 0 };

    (void)state;
    for (int i = 0; i < lw_vec_levels(); i++) {
        const lw_vec *vec = lw_vec_level(i);

        assert_true(vec->multiply_adds(1) >= 2 * 4);
        assert_work(vec->multiply_adds(30), 30 * vec->multiply_adds(1));
        for (int k = 0; k < 37; k++) {
            memset(items, 0, sizeof(items));
            items[k] = 1u << (k % 32);
            assert_int_equal(vec->read(items, 37), 1u << (k % 32));
        }
    }
    for (int i = 0; i < lw_int8_levels(); i++) {
        const lw_int8_isa *isa = lw_int8_level(i);

        if (isa->dot_products)
            assert_work(isa->dot_products(30), 30 * isa->dot_products(1));
    }
}

/* All bytes are copied, and none beyond. */
static void test_ceilings(void **state)
{
    static char from[200004], to[200004];
    lw_pool *pool = NULL;

    (void)state;
    assert_int_equal(lw_pool_create(2, &pool, NULL), LW_OK);
    assert_true(lw_ceiling_multiply_adds(pool) > 0);
    assert_true(lw_ceiling_dot_products(pool) > 0 || lw_int8_best()->dot_products == NULL);
    memset(from, 1, sizeof(from));
    memset(to, 2, sizeof(to));
    assert_true(lw_ceiling_read(pool, from, sizeof(from)) > 0);
    assert_true(lw_ceiling_copy(pool, to, from, 200000) > 0);
    assert_memory_equal(from, to, 200000);
    assert_int_equal(to[200000], 2);
    lw_pool_destroy(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products), cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_cases),    cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_runs),     cmocka_unit_test(test_levels),
        cmocka_unit_test(test_ceilings),
    };

    return cmocka_run_group_tests_name("bench", tests, NULL, NULL);
}
