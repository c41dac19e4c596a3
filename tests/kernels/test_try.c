/* The trial at start: right kernels pass it on every back end and level, wrong ones are named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/kernels.h"

static lw_kernels real; /* the table that `k` was made from */

static void off_by_a_hair(lw_tensor *y)
{
    for (int64_t i = 0; i < y->shape[0]; i++)
        ((float *)y->data)[i * y->stride0] *= 1.001f;
}

static void wrong_linear(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_linear *lin)
{
    real.linear(k, y, x, lin);
    if (!lin->packed)
        off_by_a_hair(y);
}

/* As a kernel that mistakes s8 for u8 would be. */
static void wrong_int8(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_linear *lin)
{
    real.linear(k, y, x, lin);
    for (int64_t i = 0; lin->packed && i < y->shape[0]; i++)
        ((float *)y->data)[i * y->stride0 + 7] += 10.0f;
}

static void wrong_attention(lw_kernels *k, lw_tensor *o, const lw_tensor *q, const lw_tensor *key,
                            const lw_tensor *v, int heads, int kv_heads, float scale, bool causal)
{
    real.attention(k, o, q, key, v, heads, kv_heads, scale, causal);
    off_by_a_hair(o);
}

static void wrong_rmsnorm(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_tensor *w,
                          float eps, const lw_tensor *scale)
{
    real.rmsnorm(k, y, x, w, eps, scale);
    ((float *)y->data)[3] = NAN;
}

static void wrong_conv2d(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_conv2d *conv,
                         const lw_tensor *residual)
{
    real.conv2d(k, y, x, conv, residual);
    ((float *)y->data)[0] += 0.01f;
}

static void wrong_swiglu(lw_kernels *k, lw_tensor *y, const lw_tensor *gate, const lw_tensor *up)
{
    real.swiglu(k, y, gate, up);
    off_by_a_hair(y);
}

static void refused(lw_kernels *k, const char *what)
{
    lw_err err = { 0 };

    assert_int_equal(lw_kernels_try(k, &err), LW_E_INTERNAL);
    if (!strstr(err.text, what))
        fail_msg("expected \"%s\" in: %s", what, err.text);
    *k = real;
}

static void try_all(const char *backend, const char *cap, int threads)
{
    lw_pool *pool = NULL;
    lw_kernels k;
    lw_err err = { 0 };

    assert_int_equal(setenv("LATENTWIRE_BACKEND", backend, 1), 0);
    assert_int_equal(setenv("LATENTWIRE_ISA", cap, 1), 0);
    assert_int_equal(lw_pool_create(threads, &pool, NULL), LW_OK);
    if (lw_kernels_init_cpu(&k, pool, &err) != LW_OK) {
        print_message("%s: %s\n", backend, err.text);
        lw_pool_destroy(&pool);
        return;
    }
    if (lw_kernels_try(&k, &err) != LW_OK)
        fail_msg("%s, %s: %s", k.name, cap, err.text);
    print_message("%s, LATENTWIRE_ISA=%s\n", k.name, cap);
    if (strcmp(backend, "onednn") == 0 && strcmp(cap, "baseline") == 0)
        assert_non_null(strstr(k.name, "sse41"));
    if (strcmp(cap, "avx512") != 0)
        assert_null(strstr(k.name, "avx512"));
    real = k;
    k.linear = wrong_linear;
    refused(&k, "a product in f32");
    k.linear = wrong_int8;
    refused(&k, "a product in int8");
    k.attention = wrong_attention;
    refused(&k, "attention");
    k.rmsnorm = wrong_rmsnorm;
    refused(&k, "rmsnorm");
    k.swiglu = wrong_swiglu;
    refused(&k, "silu");
    k.conv2d = wrong_conv2d;
    refused(&k, "conv2d");
    assert_int_equal(lw_kernels_try(&k, &err), LW_OK);
    lw_kernels_deinit(&k);
    lw_pool_destroy(&pool);
}

static const char *isa; /* of this process: oneDNN chooses once */

static void test_try(void **state)
{
    (void)state;
    try_all("ref", isa, 2);
    try_all("onednn", isa, 2);
}

static void test_unknown_isa(void **state)
{
    lw_kernels k;
    lw_err err = { 0 };

    (void)state;
    assert_int_equal(setenv("LATENTWIRE_ISA", "mmx", 1), 0);
    assert_int_equal(lw_kernels_init_cpu(&k, NULL, &err), LW_E_INVALID);
    assert_non_null(strstr(err.text, "mmx"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_try),
                                        cmocka_unit_test(test_unknown_isa) };

    isa = argc > 1 ? argv[1] : "avx512";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
