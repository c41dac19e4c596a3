/* Number formats against PyTorch's vectors and against their definitions, code by code. */

#include "tests/unit/unit.h"

#include <math.h>

#include "common/safetensors.h"

static uint32_t bits(float v)
{
    uint32_t u;

    memcpy(&u, &v, sizeof(u));
    return u;
}

static float of_bits(uint32_t u)
{
    float v;

    memcpy(&v, &u, sizeof(v));
    return v;
}

static const lw_tensor *vector(const lw_st_file *f, const char *name)
{
    const lw_st_entry *e = lw_st_find(f, name);

    if (e == NULL)
        fail_msg("no vector %s", name);
    return &e->t;
}

static lw_st_file *open_vectors(void)
{
    lw_st_file *f = NULL;
    lw_err err = { 0 };

    assert_ok(lw_st_open(unit_data("common/dtype.safetensors"), &f, &err), &err);
    return f;
}

/* The value of a code of a small float format, from the definition of such formats. */
static double value_of(unsigned code, int exponent_bits, int mantissa_bits, int bias)
{
    int sign = code >> (exponent_bits + mantissa_bits) & 1;
    int exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1);
    int mantissa = code & ((1 << mantissa_bits) - 1);
    double v = exponent == 0
                   ? ldexp(mantissa, 1 - bias - mantissa_bits)
                   : ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);

    return sign ? -v : v;
}

static void every_f16_code(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 65536; c++) {
        float v = lw_f32_from_f16((uint16_t)c);

        if ((c & 0x7c00) == 0x7c00) {
            assert_true((c & 0x3ff) ? isnan(v) : isinf(v));
            assert_int_equal(signbit(v) != 0, c >> 15);
            if (isnan(v))
                assert_true(isnan(lw_f32_from_f16(lw_f16_from_f32(v))));
            else
                assert_int_equal(lw_f16_from_f32(v), c);
            continue;
        }
        if ((double)v != value_of(c, 5, 10, 15) || lw_f16_from_f32(v) != c)
            fail_msg("f16 %04x gave %a", c, (double)v);
    }
}

static void every_bf16_code(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 65536; c++) {
        float v = lw_f32_from_bf16((uint16_t)c);

        assert_int_equal(bits(v), c << 16);
        if (isnan(v))
            assert_true(isnan(lw_f32_from_bf16(lw_bf16_from_f32(v))));
        else
            assert_int_equal(lw_bf16_from_f32(v), c);
    }
}

static void every_f8_code(void **state)
{
    lw_st_file *f = open_vectors();
    const float *e4m3 = lw_f32(vector(f, "from_e4m3")), *e5m2 = lw_f32(vector(f, "from_e5m2"));

    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        float v = lw_f32_from_e4m3((uint8_t)c), w = lw_f32_from_e5m2((uint8_t)c);

        if ((c & 0x7f) == 0x7f) {
            assert_true(isnan(v) && isnan(e4m3[c]));
            assert_int_equal(lw_e4m3_from_f32(v), c);
        } else {
            assert_true((double)v == value_of(c, 4, 3, 7));
            assert_int_equal(bits(v), bits(e4m3[c]));
            assert_int_equal(lw_e4m3_from_f32(v), c);
        }
        if ((c & 0x7c) == 0x7c && (c & 3)) {
            assert_true(isnan(w) && isnan(e5m2[c]));
            assert_true(isnan(lw_f32_from_e5m2(lw_e5m2_from_f32(w))));
        } else {
            assert_int_equal(bits(w), bits(e5m2[c]));
            assert_int_equal(lw_e5m2_from_f32(w), c);
        }
    }
    lw_st_close(&f);
}

/* Between two neighbouring codes, the middle goes to the even one, and just beside it to the
 * nearer. */
static void ties_go_to_even(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 0x7bff; c++) {
        double lo = value_of(c, 5, 10, 15), hi = value_of(c + 1, 5, 10, 15);
        float middle = (float)((lo + hi) / 2);

        assert_int_equal(lw_f16_from_f32(middle), c + (c & 1));
        assert_int_equal(lw_f16_from_f32(nextafterf(middle, 0)), c);
        assert_int_equal(lw_f16_from_f32(-nextafterf(middle, INFINITY)), 0x8000 | (c + 1));
    }
    for (unsigned c = 0; c < 0x7f7f; c += 3) {
        float middle = of_bits(c << 16 | 0x8000);

        assert_int_equal(lw_bf16_from_f32(middle), c + (c & 1));
        assert_int_equal(lw_bf16_from_f32(of_bits(c << 16 | 0x7fff)), c);
        assert_int_equal(lw_bf16_from_f32(of_bits(c << 16 | 0x8001)), c + 1);
    }
    for (unsigned c = 0; c < 0x7e; c++) {
        float middle = (float)((value_of(c, 4, 3, 7) + value_of(c + 1, 4, 3, 7)) / 2);

        assert_int_equal(lw_e4m3_from_f32(middle), c + (c & 1));
        assert_int_equal(lw_e4m3_from_f32(nextafterf(middle, 0)), c);
        assert_int_equal(lw_e4m3_from_f32(nextafterf(middle, INFINITY)), c + 1);
    }
    for (unsigned c = 0; c < 0x7b; c++) {
        float middle = (float)((value_of(c, 5, 2, 15) + value_of(c + 1, 5, 2, 15)) / 2);

        assert_int_equal(lw_e5m2_from_f32(middle), c + (c & 1));
        assert_int_equal(lw_e5m2_from_f32(nextafterf(middle, 0)), c);
        assert_int_equal(lw_e5m2_from_f32(nextafterf(middle, INFINITY)), c + 1);
    }
}

static void from_f32_as_pytorch_does(void **state)
{
    static const struct {
        const char *name;
        lw_dtype dtype;
    } kinds[] = {
        { "bf16", LW_BF16 }, { "f16", LW_F16 }, { "f8_e4m3", LW_F8_E4M3 }, { "f8_e5m2", LW_F8_E5M2 }
    };
    lw_st_file *f = open_vectors();
    const lw_tensor *src = vector(f, "f32");
    size_t n = (size_t)lw_tensor_count(src);
    float *want = calloc(n, 4), *back = calloc(n, 4);
    uint8_t *got = calloc(n, 2);

    (void)state;
    assert_true(n > 1000);
    for (size_t k = 0; k < LW_ARRAY_LEN(kinds); k++) {
        const lw_tensor *t = vector(f, kinds[k].name);
        size_t size = lw_dtype_size(kinds[k].dtype);

        assert_int_equal(t->dtype, kinds[k].dtype);
        assert_true(lw_dtype_convert(got, kinds[k].dtype, src->data, LW_F32, n));
        assert_true(lw_dtype_convert(want, LW_F32, t->data, t->dtype, n));
        assert_true(lw_dtype_convert(back, LW_F32, got, t->dtype, n));
        for (size_t i = 0; i < n; i++) {
            bool same = isnan(want[i])
                            ? isnan(back[i])
                            : memcmp(got + i * size, (char *)t->data + i * size, size) == 0;

            if (!same)
                fail_msg("%s: f32 %08x became %a, PyTorch says %a", kinds[k].name,
                         ((uint32_t *)src->data)[i], (double)back[i], (double)want[i]);
        }
    }
    free(want);
    free(back);
    free(got);
    lw_st_close(&f);
}

/* Bulk loops (vectorised, unaligned) give what the scalar functions give. */
static void bulk_equals_scalar(void **state)
{
    enum { N = 1003 };
    static uint8_t raw[4 * N + 1], out[4 * N + 3];
    uint32_t x = 99;

    (void)state;
    for (size_t i = 0; i < sizeof(raw); i++)
        raw[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
    lw_dtype_convert(out + 3, LW_F16, raw + 1, LW_F32, N);
    for (int i = 0; i < N; i++) {
        uint16_t got;
        float v;

        memcpy(&v, raw + 1 + 4 * i, 4);
        memcpy(&got, out + 3 + 2 * i, 2);
        assert_int_equal(got, lw_f16_from_f32(v));
    }
    lw_dtype_convert(out + 1, LW_F32, raw + 1, LW_BF16, N);
    for (int i = 0; i < N; i++) {
        uint16_t c;
        float got;

        memcpy(&c, raw + 1 + 2 * i, 2);
        memcpy(&got, out + 1 + 4 * i, 4);
        assert_int_equal(bits(got), bits(lw_f32_from_bf16(c)));
    }
}

static void integers_by_value(void **state)
{
    static const float to_int[] = { 0.5f,   1.5f,    -0.5f, -1.5f,    126.5f,    127.4f,
                                    200.0f, -128.5f, -1e9f, INFINITY, -INFINITY, NAN };
    static const int8_t want[] = { 0, 2, 0, -2, 126, 127, 127, -128, -128, 127, -128, 0 };
    int64_t i64[] = { -5, 1LL << 40 };
    int32_t i32[] = { -5, 1 << 30 };
    int8_t i8[LW_ARRAY_LEN(want)];
    uint8_t u8[] = { 0, 255 };
    float f[2];

    (void)state;
    assert_true(lw_dtype_convert(i8, LW_I8, to_int, LW_F32, LW_ARRAY_LEN(to_int)));
    assert_memory_equal(i8, want, sizeof(want));
    assert_true(lw_dtype_convert(f, LW_F32, i64, LW_I64, 2));
    assert_true(f[0] == -5 && f[1] == 0x1p40f);
    assert_true(lw_dtype_convert(f, LW_F32, i32, LW_I32, 2));
    assert_true(f[0] == -5 && f[1] == 0x1p30f);
    assert_true(lw_dtype_convert(f, LW_F32, u8, LW_U8, 2));
    assert_true(f[0] == 0 && f[1] == 255);
    assert_true(lw_dtype_convert(f, LW_F32, i8, LW_I8, 2));
    assert_true(f[0] == 0 && f[1] == 2);
}

static void table(void **state)
{
    float one = 1, out = 7;

    (void)state;
    for (int d = LW_DTYPE_NONE + 1; d < LW_N_DTYPES; d++) {
        const char *wire = lw_dtype_name((lw_dtype)d), *st = lw_dtype_st_name((lw_dtype)d);

        assert_int_equal(lw_dtype_from_name(wire, strlen(wire)), d);
        assert_int_equal(lw_dtype_from_st_name(st, strlen(st)), d);
        assert_in_range(lw_dtype_size((lw_dtype)d), 1, 8);
        assert_true(lw_dtype_convert(&out, (lw_dtype)d, &one, (lw_dtype)d, 0));
    }
    assert_int_equal(lw_dtype_from_name("float", 5), LW_DTYPE_NONE);
    assert_int_equal(lw_dtype_from_name("float32", 6), LW_DTYPE_NONE);
    assert_int_equal(lw_dtype_size(LW_DTYPE_NONE), 0);
    assert_int_equal(lw_dtype_size((lw_dtype)77), 0);
    assert_true(lw_dtype_is_float(LW_F8_E5M2));
    assert_false(lw_dtype_is_float(LW_I8));
    assert_false(lw_dtype_is_float(LW_DTYPE_NONE));
    assert_false(lw_dtype_convert(&out, LW_I64, &one, LW_F32, 1));
    assert_false(lw_dtype_convert(&out, LW_BF16, &one, LW_F16, 1));
    assert_false(lw_dtype_convert(&out, LW_F32, &one, LW_DTYPE_NONE, 1));
    assert_true(out == 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(every_f16_code),
        cmocka_unit_test(every_bf16_code),
        cmocka_unit_test(every_f8_code),
        cmocka_unit_test(ties_go_to_even),
        cmocka_unit_test(from_f32_as_pytorch_does),
        cmocka_unit_test(bulk_equals_scalar),
        cmocka_unit_test(integers_by_value),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
