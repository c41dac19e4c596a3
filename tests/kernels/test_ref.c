/*
 * The reference itself, against values worked out by hand, and the choice of a back end. Whole
 * models are compared with other people's code in tests/golden; here each formula stands alone.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/kernels.h"

static lw_kernels k;

static int setup(void **state)
{
    (void)state;
    lw_kernels_init_ref(&k, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lw_kernels_deinit(&k);
    return 0;
}

static lw_tensor mat(const float *data, int64_t rows, int64_t cols)
{
    return lw_tensor_2d((void *)(uintptr_t)data, LW_F32, rows, cols);
}

static lw_tensor vec(const float *data, int64_t n)
{
    return lw_tensor_1d((void *)(uintptr_t)data, LW_F32, n);
}

static lw_tensor image(const float *data, int64_t h, int64_t w, int64_t C)
{
    return lw_tensor_nd((void *)(uintptr_t)data, LW_F32, 3, (const int64_t[]){ h, w, C });
}

static void expect(const float *got, const double *want, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!(fabs((double)got[i] - want[i]) <= 1e-6 * (1 + fabs(want[i]))))
            fail_msg("item %zu is %.9g, expected %.9g", i, (double)got[i], want[i]);
    }
}

static void test_linear(void **state)
{
    static const float x[] = { 1, 2, 3, -1, 0, 1 }, w[] = { 1, 0, 0, 1, 1, 1 }, b[] = { 10, 20 };
    static const double want[] = { 11, 26, 9, 20 };
    float y[4];
    lw_linear lin = { .w = mat(w, 2, 3), .b = vec(b, 2) };
    lw_tensor ty = mat(y, 2, 2), tx = mat(x, 2, 3);

    (void)state;
    k.linear(&k, &ty, &tx, &lin);
    expect(y, want, 4);
}

static void test_rmsnorm(void **state)
{
    /* mean square of (3, 4) is 12.5; eps 12.5 makes it 25 */
    static const float x[] = { 3, 4 }, w[] = { 1, 2 }, scale[] = { 0, 1 };
    static const double plain[] = { 0.6, 1.6 }, scaled[] = { 0.6, 3.2 };
    float y[2];
    lw_tensor ty = mat(y, 1, 2), tx = mat(x, 1, 2), tw = vec(w, 2), ts = vec(scale, 2);

    (void)state;
    k.rmsnorm(&k, &ty, &tx, &tw, 12.5f, NULL);
    expect(y, plain, 2);
    k.rmsnorm(&k, &ty, &tx, &tw, 12.5f, &ts);
    expect(y, scaled, 2);
}

static void test_layernorm(void **state)
{
    /* mean 3, biased variance 4 */
    static const float x[] = { 1, 5, 1, 5 }, scale[] = { 0, 0, 1, 1 };
    static const double want[] = { -1, 1, -2, 2 };
    float y[4];
    lw_tensor ty = mat(y, 1, 4), tx = mat(x, 1, 4), ts = vec(scale, 4);

    (void)state;
    k.layernorm(&k, &ty, &tx, 0, &ts);
    expect(y, want, 4);
}

static void test_add_rmsnorm(void **state)
{
    static const float y[] = { 3, 4 }, w[] = { 1, 2 }, gate[] = { 0, 100 };
    static const double plain[] = { 100.6, 201.6 }, gated[] = { 100.6, 203.2 };
    float x[] = { 100, 200 };
    lw_tensor tx = mat(x, 1, 2), ty = mat(y, 1, 2), tw = vec(w, 2), tg = vec(gate, 2);

    (void)state;
    k.add_rmsnorm(&k, &tx, &ty, &tw, 12.5f, NULL);
    expect(x, plain, 2);
    k.add_rmsnorm(&k, &tx, &ty, &tw, 12.5f, &tg);
    expect(x, gated, 2);
}

static void test_qk_norm_rope(void **state)
{
    /* a quarter turn: (a, b) -> (-b, a); mean square 1, so the norm changes nothing */
    static const float cos0[] = { 0, 1 }, sin0[] = { 1, 0 }, w[] = { 1, 1, 1, 1 };
    static const double inter[] = { 1, 1, -1, 1 }, half[] = { 1, 1, 1, 1 };
    float q[] = { 1, -1, -1, 1 };
    lw_tensor tq = mat(q, 1, 4), tw = vec(w, 4), tc = mat(cos0, 1, 2), ts = mat(sin0, 1, 2);

    (void)state;
    k.qk_norm_rope(&k, &tq, 1, &tw, 0, &tc, &ts, LW_ROPE_INTERLEAVED);
    expect(q, inter, 4);
    /* pairs (0, 2), of which (1, -1) turns to (1, 1), and (1, 3), which stays */
    k.qk_norm_rope(&k, &tq, 1, &tw, 0, &tc, &ts, LW_ROPE_HALF_SPLIT);
    expect(q, half, 4);
}

static void test_attention(void **state)
{
    /* two query heads share one key head; scores 0 and ln 3 weigh the values 1 : 3 */
    static const float q[] = { 1, 0, 0, 1, 2, 0, 0, 3 }, v[] = { 4, 8, 8, 0 };
    static const double full[] = { 7, 2, 6, 4, 7.6, 0.8, 6, 4 },
                        causal[] = { 4, 8, 4, 8, 7.6, 0.8, 6, 4 };
    float key[] = { 0, 0, 0, 0 }, o[8];
    lw_tensor to = mat(o, 2, 4), tq = mat(q, 2, 4), tk = mat(key, 2, 2), tv = mat(v, 2, 2);

    (void)state;
    key[2] = logf(3.0f) / 0.5f;
    k.attention(&k, &to, &tq, &tk, &tv, 2, 1, 0.5f, false);
    expect(o, full, 8);
    k.attention(&k, &to, &tq, &tk, &tv, 2, 1, 0.5f, true);
    expect(o, causal, 8);
}

static void test_activations(void **state)
{
    static const float gate[] = { 0, 1, -1 }, up[] = { 5, 2, 2 };
    static const double want[] = { 0, 1.4621171572600098, -0.5378828427399903 };
    static const double plain[] = { 0, 0.7310585786300049, -0.2689414213699951 };
    float y[3];
    lw_tensor ty = mat(y, 1, 3), tg = mat(gate, 1, 3), tu = mat(up, 1, 3);

    (void)state;
    k.swiglu(&k, &ty, &tg, &tu);
    expect(y, want, 3);
    k.silu(&k, &ty, &tg);
    expect(y, plain, 3);
    k.add(&k, &ty, &tg);
    assert_true(y[1] == (float)plain[1] + 1);
}

static void test_rows_and_patches(void **state)
{
    static const float v[] = { 7, 8 };
    /* two channels of 2 x 4, patches of 2: row in patch, column in patch, channel fastest */
    static const float z[] = { 0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17 };
    static const double want[] = { 0, 10, 1, 11, 4, 14, 5, 15, 2, 12, 3, 13, 6, 16, 7, 17 };
    static const double filled[] = { 7, 8, 7, 8 }, looked_up[] = { 2.5, -1, 1, 0.5 };
    uint16_t table[] = { 0x3f80, 0x3f00, 0x4020, 0xbf80 }; /* bf16: 1 0.5 / 2.5 -1 */
    static const int32_t ids[] = { 1, 0 };
    float y[16], back[16];
    lw_tensor rows = mat(y, 2, 2), tv = vec(v, 2), tokens = mat(y, 2, 8), tz = image(z, 2, 2, 4);
    lw_tensor tback = image(back, 2, 2, 4), tt = lw_tensor_2d(table, LW_BF16, 2, 2);

    (void)state;
    k.fill_rows(&k, &rows, &tv);
    expect(y, filled, 4);
    k.embed(&k, &rows, &tt, ids);
    expect(y, looked_up, 4);
    k.patchify(&k, &tokens, &tz, 2);
    expect(y, want, 16);
    k.unpatchify(&k, &tback, &tokens, 2);
    assert_memory_equal(back, z, sizeof(z));
}

static void test_conv2d(void **state)
{
    /* 3 x 3 picture of one channel; the kernel takes the right neighbour plus ten times the lower
     */
    static const float x[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    static const float w[] = { 0, 0, 0, 0, 0, 1, 0, 10, 0 }, b[] = { 0.5f };
    static const double same[] = { 42.5, 53.5, 60.5, 75.5, 86.5, 90.5, 8.5, 9.5, 0.5 };
    /* stride 2 without padding: one window, added to itself the second time */
    static const double strided[] = { 86.5 }, summed[] = { 173 };
    float y[9];
    lw_conv2d c = { .w = lw_tensor_nd((void *)(uintptr_t)w, LW_F32, 4,
                                      (const int64_t[]){ 1, 3, 3, 1 }),
                    .b = vec(b, 1),
                    .k = 3,
                    .stride = 1,
                    .pad_top = 1,
                    .pad_left = 1,
                    .pad_bottom = 1,
                    .pad_right = 1 };
    lw_tensor tx = image(x, 3, 3, 1), ty = image(y, 3, 3, 1), t1 = image(y, 1, 1, 1);

    (void)state;
    k.conv2d(&k, &ty, &tx, &c, NULL);
    expect(y, same, 9);
    c.stride = 2;
    c.pad_top = c.pad_left = 0;
    c.pad_bottom = c.pad_right = 0;
    k.conv2d(&k, &t1, &tx, &c, NULL);
    expect(y, strided, 1);
    k.conv2d(&k, &t1, &tx, &c, &t1);
    expect(y, summed, 1);
}

static void test_conv2d_of_a_doubled_picture(void **state)
{
    /* the right neighbour: 1 2 of one row become 1 1 2 2, twice; then without the first of them */
    static const float x[] = { 1, 2 }, w[] = { 0, 0, 0, 0, 0, 1, 0, 0, 0 };
    static const double right[] = { 1, 2, 2, 0, 1, 2, 2, 0 };
    float y[8];
    lw_conv2d c = { .w = lw_tensor_nd((void *)(uintptr_t)w, LW_F32, 4,
                                      (const int64_t[]){ 1, 3, 3, 1 }),
                    .upsample = true,
                    .k = 3,
                    .stride = 1,
                    .pad_top = 1,
                    .pad_left = 1,
                    .pad_bottom = 1,
                    .pad_right = 1 };
    lw_tensor tx = image(x, 1, 2, 1), ty = image(y, 2, 4, 1), one = image(y, 1, 4, 1);

    (void)state;
    k.conv2d(&k, &ty, &tx, &c, NULL);
    expect(y, right, 8);
    c.pad_top = 0;
    memset(y, 0, sizeof(y));
    k.conv2d(&k, &one, &tx, &c, NULL);
    expect(y, right, 4);
}

static void test_conv2d_one_sided_padding(void **state)
{
    /* the encoder's downsampling: 4 x 4, stride 2, one row below and one column to the right */
    static const float w[] = { 0, 0, 0, 0, 0, 0, 0, 0, 1 };
    static const double want[] = { 10, 0, 0, 0 };
    float x[16], y[4];
    lw_conv2d c = { .w = lw_tensor_nd((void *)(uintptr_t)w, LW_F32, 4,
                                      (const int64_t[]){ 1, 3, 3, 1 }),
                    .k = 3,
                    .stride = 2,
                    .pad_bottom = 1,
                    .pad_right = 1 };
    lw_tensor tx = image(x, 4, 4, 1), ty = image(y, 2, 2, 1);

    (void)state;
    for (int i = 0; i < 16; i++)
        x[i] = (float)i;
    k.conv2d(&k, &ty, &tx, &c, NULL);
    expect(y, want, 4);
}

static void test_group_norm(void **state)
{
    /* two positions, two groups of two channels: (1 3 / 1 3) and (0 0 / 4 4) */
    static const float x[] = { 1, 3, 0, 0, 1, 3, 4, 4 }, w[] = { 1, 1, 1, 2 }, b[] = { 0, 0, 0, 1 };
    static const double plain[] = { -1, 1, -1, -1, -1, 1, 1, 3 };
    static const float same[] = { 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1 };
    float y[8], factors[12];
    double acted[8];
    lw_tensor tx = image(x, 1, 2, 4), ty = image(y, 1, 2, 4), tw = vec(w, 4), tb = vec(b, 4);
    lw_tensor f = lw_tensor_2d(factors, LW_F32, 3, 4);
    /* every channel as it is */
    lw_conv2d c = { .w = lw_tensor_nd((void *)(uintptr_t)same, LW_F32, 4,
                                      (const int64_t[]){ 4, 1, 1, 4 }),
                    .norm = f,
                    .k = 1,
                    .stride = 1 };

    (void)state;
    k.group_factors(&k, &f, &tx, &tw, &tb, 2, 0);
    k.channel_affine(&k, &ty, &tx, &f);
    expect(y, plain, 8);
    for (int i = 0; i < 8; i++)
        acted[i] = plain[i] / (1 + exp(-plain[i]));
    k.conv2d(&k, &ty, &tx, &c, NULL);
    expect(y, acted, 8);
}

static void test_layouts(void **state)
{
    static const float x[] = { 1, 2, 3, 4 }; /* [C 2, 1, 2] */
    static const double nhwc[] = { 2.5, 3.5, 3, 4 };
    float y[4];
    lw_tensor tx = image(x, 2, 1, 2), ty = image(y, 1, 2, 2);
    float back[4];
    lw_tensor tback = image(back, 2, 1, 2);

    (void)state;
    k.nchw_to_nhwc(&k, &ty, &tx, 2, 2);
    expect(y, nhwc, 4);
    k.nhwc_to_nchw(&k, &tback, &ty, 2, 2);
    assert_memory_equal(back, x, sizeof(back));
}

static void test_pixels(void **state)
{
    /* -1 and 1 are the ends, beyond is clamped; 0 is 127.5, which rounds to the even 128 */
    static const float x[] = { -1, 1, 0, -3, 3, 0.5f };
    static const uint8_t want[] = { 0, 255, 128, 0, 255, 191 };
    uint8_t rgb[6];
    float back[6];
    lw_tensor tx = image(x, 1, 2, 3), tb = image(back, 1, 2, 3);
    lw_tensor tr = lw_tensor_nd(rgb, LW_U8, 3, (const int64_t[]){ 1, 2, 3 });

    (void)state;
    k.to_rgb8(&k, &tr, &tx);
    assert_memory_equal(rgb, want, sizeof(want));
    k.from_rgb8(&k, &tb, &tr);
    assert_true(back[0] == -1 && back[1] == 1);
    assert_true(fabsf(back[2] - (2 * (128.0f / 255) - 1)) < 1e-7f);
}

static void test_choice_of_back_end(void **state)
{
    lw_kernels c;
    lw_err err = { 0 };

    (void)state;
    assert_int_equal(setenv("LATENTWIRE_BACKEND", "ref", 1), 0);
    assert_int_equal(lw_kernels_init_cpu(&c, NULL, &err), LW_OK);
    assert_string_equal(c.name, "ref");
    lw_kernels_deinit(&c);
    lw_kernels_deinit(&c);
    assert_int_equal(setenv("LATENTWIRE_BACKEND", "fast", 1), 0);
    assert_int_equal(lw_kernels_init_cpu(&c, NULL, &err), LW_E_INVALID);
    assert_non_null(strstr(err.text, "LATENTWIRE_BACKEND"));
    assert_non_null(strstr(err.text, "fast"));
    err = (lw_err){ 0 };
    assert_int_equal(setenv("LATENTWIRE_BACKEND", "onednn", 1), 0);
#ifdef LW_TEST_ONEDNN
    assert_int_equal(lw_kernels_init_cpu(&c, NULL, &err), LW_OK);
    assert_int_equal(strncmp(c.name, "onednn ", 7), 0);
    lw_kernels_deinit(&c);
#else
    assert_int_equal(lw_kernels_init_cpu(&c, NULL, &err), LW_E_UNIMPLEMENTED);
    assert_non_null(strstr(err.text, "libdnnl-dev"));
    err = (lw_err){ 0 };
#endif
    assert_int_equal(unsetenv("LATENTWIRE_BACKEND"), 0);
    assert_int_equal(lw_kernels_init_cpu(&c, NULL, &err), LW_OK);
    assert_int_equal(err.code, LW_OK);
    assert_int_equal(lw_kernels_check(&c, &err), LW_OK);
    lw_kernels_deinit(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_layernorm),
        cmocka_unit_test(test_add_rmsnorm),
        cmocka_unit_test(test_qk_norm_rope),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_rows_and_patches),
        cmocka_unit_test(test_conv2d),
        cmocka_unit_test(test_conv2d_one_sided_padding),
        cmocka_unit_test(test_conv2d_of_a_doubled_picture),
        cmocka_unit_test(test_group_norm),
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_pixels),
        cmocka_unit_test(test_choice_of_back_end),
    };

    return cmocka_run_group_tests(tests, setup, teardown) ? 1 : 0;
}
