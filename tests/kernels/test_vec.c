/* The inner loops of each instruction set by themselves: exactness, accuracy, special values. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/cpu/vec.h"
#include "tests/kernels/harness.h"

#define N_ALL_16_BIT 65536

/* Every 16-bit pattern, bit for bit; NaN need only stay NaN. */
static void check_widen(const lw_vec *vec, lw_dtype dtype, float (*exact)(uint16_t))
{
    static uint16_t in[N_ALL_16_BIT];
    static float out[N_ALL_16_BIT];

    for (int i = 0; i < N_ALL_16_BIT; i++)
        in[i] = (uint16_t)i;
    for (int len = N_ALL_16_BIT; len > N_ALL_16_BIT - 3; len--) { /* whole vectors and tails */
        memset(out, 0, sizeof(out));
        vec->widen(out, in, dtype, len);
        for (int i = 0; i < len; i++) {
            float want = exact((uint16_t)i);

            if (isnan(want) ? !isnan(out[i]) : memcmp(&want, &out[i], sizeof(want)) != 0)
                fail_msg("%s: %s 0x%04x widened to %g, expected %g", vec->isa, lw_dtype_name(dtype),
                         (unsigned)i, (double)out[i], (double)want);
        }
    }
}

static void test_widen(void **state)
{
    static const float in[5] = { 1, -0.0f, INFINITY, 3e-45f, 7 };
    float out[5];

    (void)state;
    for (int l = 0; l < lw_vec_levels(); l++) {
        check_widen(lw_vec_level(l), LW_BF16, lw_f32_from_bf16);
        check_widen(lw_vec_level(l), LW_F16, lw_f32_from_f16);
        lw_vec_level(l)->widen(out, in, LW_F32, 5);
        assert_memory_equal(in, out, sizeof(in));
    }
}

/* Distance in units of the last place of the exact value, which must be a normal number. */
static double ulps(float got, double want)
{
    int e;

    frexp(want, &e);
    return fabs((double)got - want) / ldexp(1.0, e - 24);
}

#define EXP_POINTS 200000

/* softmax_exp over [0, x...] is exp(x) item by item. */
static void test_exp_accuracy(void **state)
{
    float *x = malloc((EXP_POINTS + 1) * sizeof(*x));

    (void)state;
    assert_non_null(x);
    for (int l = 0; l < lw_vec_levels(); l++) {
        const lw_vec *vec = lw_vec_level(l);
        double worst = 0, sum = 0;
        float got_sum;

        x[0] = 0;
        for (int i = 1; i <= EXP_POINTS; i++)
            x[i] = -87.0f * (float)i / EXP_POINTS;
        got_sum = vec->softmax_exp(x, 1.0f, EXP_POINTS + 1);
        assert_true(x[0] == 1.0f);
        for (int i = 0; i <= EXP_POINTS; i++) {
            double want = exp((double)(i ? -87.0f * (float)i / EXP_POINTS : 0));

            sum += want;
            worst = fmax(worst, ulps(x[i], want));
        }
        print_message("    %s: exp within %.3f ulp\n", vec->isa, worst);
        assert_true(worst <= 1.1);
        assert_true(fabs((double)got_sum - sum) < 1e-6 * sum);
    }
    free(x);
}

static void test_exp_special_values(void **state)
{
    (void)state;
    for (int l = 0; l < lw_vec_levels(); l++) {
        const lw_vec *vec = lw_vec_level(l);
        float under[40], inf[2] = { -INFINITY, 5 }, nan[3] = { 1, NAN, 2 }, one[1] = { -1e30f };

        /* Below the normal numbers the result is a subnormal, then zero; never garbage. */
        under[0] = 0;
        for (int i = 1; i < 40; i++)
            under[i] = -86.5f - (float)i;
        vec->softmax_exp(under, 1.0f, 40);
        for (int i = 1; i < 40; i++) {
            double want = exp(-86.5 - i);

            assert_true(fabs((double)under[i] - want) <= 0x1p-149 + want * 1e-6);
        }
        vec->softmax_exp(inf, 1.0f, 2);
        assert_true(inf[0] == 0 && inf[1] == 1);
        assert_true(vec->softmax_exp(one, 3.0f, 1) == 1.0f);
        assert_true(isnan(vec->softmax_exp(nan, 1.0f, 3)));
    }
}

static void test_silu_special_values(void **state)
{
    static const float in[] = { 0, -0.0f, 100, -100, 1e30f, -1e30f, INFINITY, NAN, -88, 88 };
    float out[LW_ARRAY_LEN(in)];

    (void)state;
    for (int l = 0; l < lw_vec_levels(); l++) {
        lw_vec_level(l)->silu(out, in, (int64_t)LW_ARRAY_LEN(in));
        assert_true(out[0] == 0 && out[1] == 0);
        assert_true(out[2] == 100 && out[4] == 1e30f && isinf(out[6]) && isnan(out[7]));
        assert_true(fabsf(out[3]) < 1e-40f && out[5] == 0);
        assert_true(fabsf(out[8]) < 1e-35f && out[9] == 88);
    }
}

/* Matrix times vector against f64, every dtype, rows and lengths around the unrolling. */
static void test_gemv(void **state)
{
    static const lw_dtype types[] = { LW_F32, LW_BF16, LW_F16 };

    (void)state;
    for (int l = 0; l < lw_vec_levels(); l++) {
        for (size_t t = 0; t < LW_ARRAY_LEN(types); t++) {
            for (int64_t n = 1; n < 600; n += 37) {
                int64_t rows = 1 + n % 11, shape[2] = { rows, n };
                kt_run r;
                lw_tensor w, x, b;
                float y[12];

                kt_run_begin(&r, NULL, (uint64_t)n);
                w = kt_input(&r, types[t], 2, shape, 0, 1, true);
                x = kt_vector(&r, n, 0, 1);
                b = kt_vector(&r, rows, 0, 1);
                y[rows] = 77;
                lw_vec_level(l)->gemv(y, w.data, types[t], w.stride0, rows, lw_f32(&x), n,
                                      n % 2 ? lw_f32(&b) : NULL);
                assert_true(y[rows] == 77);
                for (int64_t o = 0; o < rows; o++) {
                    double want = n % 2 ? (double)lw_f32(&b)[o] : 0, size = 1;

                    for (int64_t i = 0; i < n; i++) {
                        const char *at = (const char *)w.data +
                                         (size_t)(o * w.stride0 + i) * lw_dtype_size(types[t]);
                        float v;

                        assert_true(lw_dtype_convert(&v, LW_F32, at, types[t], 1));
                        want += (double)v * (double)lw_f32(&x)[i];
                        size += fabs((double)v * (double)lw_f32(&x)[i]);
                    }
                    /* n roundings at most, each of half an ulp of the sum so far */
                    assert_true(fabs((double)y[o] - want) < 1e-6 * size);
                }
                assert_true(kt_run_end(&r));
            }
        }
    }
}

/* A NaN in the input reaches the output of every norm, so that a broken model is noticed. */
static void test_nan_is_kept(void **state)
{
    float x[20], m[20], y[20];

    (void)state;
    for (int l = 0; l < lw_vec_levels(); l++) {
        const lw_vec *vec = lw_vec_level(l);

        for (int i = 0; i < 20; i++)
            x[i] = m[i] = 1;
        x[13] = NAN;
        assert_true(isnan(vec->sum_sq(x, 20)) && isnan(vec->sum(x, 20)));
        assert_true(isnan(vec->sum_sq_dev(x, 20, 0)));
        vec->norm_scale(y, x, 1, m, 20);
        assert_true(isnan(y[13]) && y[12] == 1);
        vec->norm_center(y, x, 0, 0, 1, m, 20);
        assert_true(isnan(y[13]) && y[12] == 1);
        vec->swiglu(y, x, m, 20);
        assert_true(isnan(y[13]) && !isnan(y[12]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_widen),
        cmocka_unit_test(test_exp_accuracy),
        cmocka_unit_test(test_exp_special_values),
        cmocka_unit_test(test_silu_special_values),
        cmocka_unit_test(test_gemv),
        cmocka_unit_test(test_nan_is_kept),
    };

    printf("levels up to %s\n", lw_vec_best()->isa);
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
