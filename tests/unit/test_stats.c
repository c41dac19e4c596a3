/* The median, against numbers worked out by hand. */
#include <math.h>

#include "common/stats.h"
#include "tests/unit/unit.h"

static double median3(double a, double b, double c)
{
    double v[] = { a, b, c };

    return lw_median(v, 3);
}

static void odd_counts_have_a_middle(void **state)
{
    double one[] = { 7 }, five[] = { 9, -1, 4, 4, 100 };

    (void)state;
    assert_true(lw_median(one, 1) == 7);
    assert_true(lw_median(five, 5) == 4);
    assert_true(median3(1, 2, 3) == 2 && median3(3, 1, 2) == 2 && median3(2, 3, 1) == 2);
}

static void even_counts_take_the_mean_of_two(void **state)
{
    double two[] = { 3, 1 }, four[] = { 10, 0.5, 1.5, -8 };

    (void)state;
    assert_true(lw_median(two, 2) == 2);
    assert_true(lw_median(four, 4) == 1);
}

static void values_are_sorted(void **state)
{
    double v[] = { 3, 1, 2 };

    (void)state;
    (void)lw_median(v, 3);
    assert_true(v[0] == 1 && v[1] == 2 && v[2] == 3);
}

static void one_stray_value_changes_little(void **state)
{
    double v[] = { 5, 5.1, 4.9, 1e9, 5 };

    (void)state;
    assert_true(lw_median(v, 5) == 5);
}

static void nothing_has_none(void **state)
{
    (void)state;
    assert_true(isnan(lw_median(NULL, 0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_counts_have_a_middle),
        cmocka_unit_test(even_counts_take_the_mean_of_two),
        cmocka_unit_test(values_are_sorted),
        cmocka_unit_test(one_stray_value_changes_little),
        cmocka_unit_test(nothing_has_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
