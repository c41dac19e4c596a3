/* Fairness between clients, order within one, and work that comes back. */

#include "orchestrate/queue.h"
#include "tests/unit/unit.h"

typedef struct thing {
    lw_queue_item item;
    int n;
} thing;

static bool any(const lw_queue_item *item, void *arg)
{
    (void)item, (void)arg;
    return true;
}

static bool odd(const lw_queue_item *item, void *arg)
{
    (void)arg;
    return ((const thing *)item)->n % 2;
}

static int take(lw_queue *q, lw_queue_fits *fits)
{
    lw_queue_item *it = lw_queue_take(q, fits, NULL);

    return it ? ((thing *)it)->n : -1;
}

static void test_round_robin(void **state)
{
    lw_queue q = { 0 };
    lw_queue_lane a = { 0 }, b = { 0 };
    thing t[6] = { { .n = 0 }, { .n = 1 }, { .n = 2 }, { .n = 3 }, { .n = 4 }, { .n = 5 } };
    const int expected[] = { 0, 4, 1, 5, 2, 3, -1 };

    (void)state;
    for (int i = 0; i < 4; i++)
        lw_queue_push(&q, &a, &t[i].item);
    lw_queue_push(&q, &b, &t[4].item);
    lw_queue_push(&q, &b, &t[5].item);
    assert_int_equal(q.n, 6);
    for (size_t i = 0; i < LW_ARRAY_LEN(expected); i++)
        assert_int_equal(take(&q, any), expected[i]);
    assert_int_equal(q.n, 0);
    assert_null(q.first);
}

static void test_front_goes_first(void **state)
{
    lw_queue q = { 0 };
    lw_queue_lane a = { 0 }, b = { 0 };
    thing t[3] = { { .n = 0 }, { .n = 1 }, { .n = 2 } };

    (void)state;
    lw_queue_push(&q, &a, &t[0].item);
    lw_queue_push(&q, &b, &t[1].item);
    lw_queue_push_front(&q, &b, &t[2].item);
    assert_int_equal(take(&q, any), 2);
    assert_int_equal(take(&q, any), 0);
    assert_int_equal(take(&q, any), 1);
}

static void test_passes_over_what_does_not_fit(void **state)
{
    lw_queue q = { 0 };
    lw_queue_lane a = { 0 }, b = { 0 };
    thing t[4] = { { .n = 0 }, { .n = 1 }, { .n = 2 }, { .n = 4 } };

    (void)state;
    lw_queue_push(&q, &a, &t[2].item);
    lw_queue_push(&q, &b, &t[0].item);
    lw_queue_push(&q, &b, &t[1].item);
    assert_int_equal(take(&q, odd), 1);
    assert_int_equal(take(&q, odd), -1);
    assert_int_equal(q.n, 2);
}

static void test_remove_and_walk(void **state)
{
    lw_queue q = { 0 };
    lw_queue_lane a = { 0 }, b = { 0 };
    thing t[4] = { { .n = 0 }, { .n = 1 }, { .n = 2 }, { .n = 3 } };
    int seen = 0;

    (void)state;
    lw_queue_push(&q, &a, &t[0].item);
    lw_queue_push(&q, &b, &t[1].item);
    lw_queue_push(&q, &a, &t[2].item);
    lw_queue_push(&q, &a, &t[3].item);
    lw_queue_remove(&q, &t[2].item);
    lw_queue_remove(&q, &t[2].item); /* again: nothing */
    lw_queue_remove(&q, &t[1].item);
    assert_int_equal(q.n, 2);
    for (lw_queue_item *it = NULL; (it = lw_queue_next(&q, it));)
        seen = seen * 10 + ((thing *)it)->n;
    assert_int_equal(seen, 3);
    lw_queue_remove(&q, &t[0].item);
    lw_queue_remove(&q, &t[3].item);
    assert_int_equal(take(&q, any), -1);
    assert_null(q.first);
    assert_null(q.last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_robin),
        cmocka_unit_test(test_front_goes_first),
        cmocka_unit_test(test_passes_over_what_does_not_fit),
        cmocka_unit_test(test_remove_and_walk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
