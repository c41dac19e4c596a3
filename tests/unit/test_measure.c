/* Measures of pictures against NumPy, SciPy and scikit-image (tests/tools/make_measure_vectors.py).
 */

#include "tests/unit/unit.h"

#include <jansson.h>
#include <math.h>

#include "common/png.h"
#include "orchestrate/measure.h"

/* Both sides use double; only the order of the sums differs. */
#define BOUND 1e-9

static json_t *expected;
static lw_arena arena;

static int load(void **state)
{
    (void)state;
    lw_arena_init(&arena, "test", 0);
    expected = json_load_file(unit_data("measure/measures.json"), 0, NULL);
    return expected ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    json_decref(expected);
    lw_arena_deinit(&arena);
    return 0;
}

static const uint8_t *picture(const char *name, int *ret_width, int *ret_height)
{
    lw_err err = { 0 };
    char path[64];
    uint8_t *rgb;

    snprintf(path, sizeof(path), "measure/%s.png", name);
    assert_ok(lw_png_read(unit_data(path), &arena, &rgb, ret_width, ret_height, &err), &err);
    return rgb;
}

static void check(const char *of, const char *what, double got, const json_t *want)
{
    const double v = json_is_null(want) ? (double)NAN : json_number_value(want);

    assert_non_null(want);
    if (isnan(v) ? !isnan(got) : !(fabs(got - v) <= BOUND * (1 + fabs(v))))
        fail_msg("%s of %s: %.17g, not %.17g", what, of, got, v);
}

static void of_one_picture(void **state)
{
    const char *name;
    const json_t *want;
    int n = 0;

    (void)state;
    json_object_foreach(json_object_get(expected, "pictures"), name, want)
    {
        int width, height;
        const uint8_t *rgb = picture(name, &width, &height);
        const lw_picture_measures m = lw_measure_picture(rgb, width, height);

        check(name, "luminance", m.luminance, json_object_get(want, "luminance"));
        check(name, "contrast", m.contrast, json_object_get(want, "contrast"));
        check(name, "colourfulness", m.colourfulness, json_object_get(want, "colourfulness"));
        check(name, "sharpness", m.sharpness, json_object_get(want, "sharpness"));
        n++;
    }
    assert_int_equal(n, 9);
}

static void of_two_pictures(void **state)
{
    const char *names;
    const json_t *want;
    int n = 0;

    (void)state;
    json_object_foreach(json_object_get(expected, "pairs"), names, want)
    {
        char first[32], second[32];
        int width, height, width_b, height_b;
        lw_pair_measures m, back;
        const uint8_t *a, *b;
        lw_err err = { 0 };

        assert_int_equal(sscanf(names, "%31s %31s", first, second), 2);
        a = picture(first, &width, &height);
        b = picture(second, &width_b, &height_b);
        assert_int_equal(width, width_b);
        assert_int_equal(height, height_b);
        assert_ok(lw_measure_pair(a, b, width, height, &m, &err), &err);
        if (json_is_null(json_object_get(want, "psnr_db")))
            assert_true(isinf(m.psnr_db) && m.psnr_db > 0);
        else
            check(names, "PSNR", m.psnr_db, json_object_get(want, "psnr_db"));
        check(names, "SSIM", m.ssim, json_object_get(want, "ssim"));
        check(names, "mean difference", m.mean_abs, json_object_get(want, "mean_abs"));
        assert_int_equal(m.largest, json_integer_value(json_object_get(want, "largest")));
        assert_int_equal(m.n_differ, json_integer_value(json_object_get(want, "n_differ")));
        assert_int_equal(m.n_pixels, width * height);
        /* It does not matter which is the first. */
        assert_ok(lw_measure_pair(b, a, width, height, &back, &err), &err);
        assert_memory_equal(&m.psnr_db, &back.psnr_db, sizeof(double));
        if (!isnan(m.ssim))
            assert_true(fabs(m.ssim - back.ssim) < BOUND);
        n++;
    }
    assert_int_equal(n, 9);
}

static void the_same_picture_is_exactly_one(void **state)
{
    int width, height;
    const uint8_t *rgb = picture("random", &width, &height);
    lw_pair_measures m;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_measure_pair(rgb, rgb, width, height, &m, &err), &err);
    assert_true(m.ssim == 1.0 && isinf(m.psnr_db) && m.mean_abs == 0.0);
    assert_int_equal(m.largest, 0);
    assert_int_equal(m.n_differ, 0);
}

static void a_flat_picture_has_no_contrast(void **state)
{
    int width, height;
    const uint8_t *rgb = picture("flat", &width, &height);
    const lw_picture_measures m = lw_measure_picture(rgb, width, height);

    (void)state;
    assert_true(m.contrast == 0.0 && m.sharpness == 0.0 && m.colourfulness == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_one_picture),
        cmocka_unit_test(of_two_pictures),
        cmocka_unit_test(the_same_picture_is_exactly_one),
        cmocka_unit_test(a_flat_picture_has_no_contrast),
    };

    return cmocka_run_group_tests(tests, load, unload);
}
