/* Shapes and views. */

#include "tests/unit/unit.h"

#include <math.h>

#include "common/tensor.h"

static void shapes_are_checked(void **state)
{
    lw_err err = { 0 };
    size_t bytes = 99;
    int64_t nine[9] = { 1, 1, 1, 1, 1, 1, 1, 1, 1 };

    (void)state;
    assert_int_equal(lw_shape_bytes(LW_F32, 0, NULL, &bytes, &err), LW_OK);
    assert_int_equal(bytes, 4);
    assert_int_equal(lw_shape_bytes(LW_BF16, 2, (int64_t[]){ 3, 5 }, &bytes, &err), LW_OK);
    assert_int_equal(bytes, 30);
    assert_int_equal(lw_shape_bytes(LW_F32, 2, (int64_t[]){ 0, 5 }, &bytes, &err), LW_OK);
    assert_int_equal(bytes, 0);
    assert_int_equal(lw_shape_bytes(LW_F32, 8, nine, &bytes, &err), LW_OK);
    bytes = 99;
    assert_int_equal(lw_shape_bytes(LW_F32, 9, nine, &bytes, &err), LW_E_SHAPE);
    assert_int_equal(lw_shape_bytes(LW_F32, -1, nine, &bytes, &err), LW_E_SHAPE);
    assert_int_equal(lw_shape_bytes(LW_F32, 2, (int64_t[]){ 3, -1 }, &bytes, &err), LW_E_SHAPE);
    assert_contains(err.text, "dimension 1");
    assert_int_equal(lw_shape_bytes(LW_F32, 2, (int64_t[]){ 1LL << 32, 1LL << 32 }, &bytes, NULL),
                     LW_E_SHAPE);
    assert_int_equal(lw_shape_bytes(LW_I8, 1, (int64_t[]){ INT64_MAX }, &bytes, NULL), LW_OK);
    assert_int_equal(lw_shape_bytes(LW_F16, 1, (int64_t[]){ INT64_MAX }, &bytes, NULL), LW_E_SHAPE);
    bytes = 99;
    /* A zero must not hide an overflow of the other dimensions. */
    assert_int_equal(
        lw_shape_bytes(LW_F32, 3, (int64_t[]){ INT64_MAX, INT64_MAX, 0 }, &bytes, NULL),
        LW_E_SHAPE);
    assert_int_equal(lw_shape_bytes(LW_DTYPE_NONE, 0, NULL, &bytes, NULL), LW_E_SHAPE);
    assert_int_equal(bytes, 99);
}

static void views_share_memory(void **state)
{
    float m[4][6];
    lw_tensor t, rows, cols, both;

    (void)state;
    for (int i = 0; i < 24; i++)
        m[i / 6][i % 6] = (float)i;
    t = lw_tensor_2d(m, LW_F32, 4, 6);
    assert_true(lw_tensor_is_contiguous(&t));
    assert_int_equal(lw_tensor_count(&t), 24);
    assert_int_equal(lw_tensor_bytes(&t), 96);
    rows = lw_tensor_rows(&t, 1, 2);
    assert_true(lw_tensor_is_contiguous(&rows));
    assert_true(lw_f32(&rows)[0] == 6);
    cols = lw_tensor_cols(&t, 2, 3);
    assert_false(lw_tensor_is_contiguous(&cols));
    assert_int_equal(lw_tensor_bytes(&cols), 48);
    both = lw_tensor_rows(&cols, 3, 1);
    assert_true(lw_f32(&both)[0] == 20);
    assert_true(lw_tensor_is_contiguous(&both)); /* one row */
    assert_int_equal(both.shape[1], 3);
}

static void describe_fits_the_buffer(void **state)
{
    lw_tensor t = lw_tensor_2d(NULL, LW_BF16, 77, 2560);
    char text[64];

    (void)state;
    assert_string_equal(lw_tensor_describe(&t, text, sizeof(text)), "bfloat16 [77, 2560]");
    for (size_t n = 1; n < 24; n++) {
        char small[25];

        memset(small, 'x', sizeof(small));
        lw_tensor_describe(&t, small, n);
        assert_true(strlen(small) < n);
        assert_memory_equal(small, text, strlen(small) < strlen(text) ? strlen(small) : 0);
        assert_int_equal(small[n], 'x');
    }
    t = lw_tensor_nd(NULL, LW_F32, 0, NULL);
    assert_string_equal(lw_tensor_describe(&t, text, sizeof(text)), "float32 []");
    assert_false(lw_tensor_present(&(lw_tensor){ 0 }));
    assert_true(lw_tensor_present(&t));
}

static void finite_looks_at_every_item_of_the_view(void **state)
{
    float m[3][5] = { { 0 } };
    uint16_t h[6] = { 0 };
    lw_tensor whole = lw_tensor_2d(m, LW_F32, 3, 5), part = lw_tensor_cols(&whole, 0, 4);
    lw_tensor f16 = lw_tensor_1d(h, LW_F16, 6), bf16 = lw_tensor_1d(h, LW_BF16, 6);
    lw_tensor none = lw_tensor_2d(m, LW_F32, 0, 5), i8 = lw_tensor_1d(m, LW_I8, 4);

    (void)state;
    assert_true(lw_tensor_all_finite(&whole));
    m[2][4] = INFINITY;
    assert_false(lw_tensor_all_finite(&whole));
    assert_true(lw_tensor_all_finite(&part)); /* the column is outside */
    m[2][3] = NAN;
    assert_false(lw_tensor_all_finite(&part));
    m[0][0] = -INFINITY;
    assert_true(lw_tensor_all_finite(&none));
    assert_true(lw_tensor_all_finite(&i8));
    assert_true(lw_tensor_all_finite(&f16));
    h[5] = 0x7c00;
    assert_false(lw_tensor_all_finite(&f16));
    assert_true(lw_tensor_all_finite(&bf16)); /* 0x7c00 is a large bf16 */
    h[5] = 0xff80;
    assert_false(lw_tensor_all_finite(&bf16));
}

static void allocation_reports(void **state)
{
    lw_err err = { 0 };
    lw_tensor t = { 0 };
    lw_arena a;

    (void)state;
    lw_arena_init(&a, "test", 1 << 20);
    assert_ok(lw_tensor_alloc(&a, LW_F32, 2, (int64_t[]){ 7, 9 }, &t, &err), &err);
    assert_int_equal((uintptr_t)t.data % 64, 0);
    assert_int_equal(t.stride0, 9);
    t.rank = 5;
    assert_int_equal(lw_tensor_alloc(&a, LW_F32, 1, (int64_t[]){ 1 << 20 }, &t, &err), LW_E_NOMEM);
    assert_int_equal(t.rank, 5); /* untouched on failure */
    lw_arena_deinit(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_are_checked),
        cmocka_unit_test(views_share_memory),
        cmocka_unit_test(describe_fits_the_buffer),
        cmocka_unit_test(finite_looks_at_every_item_of_the_view),
        cmocka_unit_test(allocation_reports),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
