/* The thread pool: every item exactly once, sums in order, many short runs, creation and end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/pool.h"

#define MAX_ITEMS 2000

typedef struct counts {
    int n_threads;
    atomic_int taken[MAX_ITEMS];
    int plain[MAX_ITEMS]; /* no atomics: the pool itself must order these writes before its return
                           */
} counts;

static void count_item(void *arg, int thread, int64_t item)
{
    counts *c = arg;

    if (thread < 0 || thread >= c->n_threads)
        abort();
    atomic_fetch_add(&c->taken[item], 1);
    c->plain[item] = (int)item + 1;
}

static void check_run(lw_pool *p, int n_threads, int64_t n_items)
{
    static counts c;

    memset(&c, 0, sizeof(c));
    c.n_threads = n_threads;
    lw_pool_run(p, n_items, count_item, &c);
    for (int64_t i = 0; i < MAX_ITEMS; i++) {
        assert_int_equal(atomic_load(&c.taken[i]), i < n_items ? 1 : 0);
        assert_int_equal(c.plain[i], i < n_items ? i + 1 : 0);
    }
}

static void test_every_item_once(void **state)
{
    static const int64_t sizes[] = { 0, 1, 2, 3, 7, 64, 1999 };

    (void)state;
    for (int t = 1; t <= 9; t += 2) {
        lw_pool *p = NULL;

        assert_int_equal(lw_pool_create(t, &p, NULL), LW_OK);
        assert_int_equal(lw_pool_threads(p), t);
        for (size_t i = 0; i < LW_ARRAY_LEN(sizes); i++)
            check_run(p, t, sizes[i]);
        lw_pool_destroy(&p);
        assert_null(p);
    }
}

static void add_item(void *arg, int thread, int64_t item)
{
    (void)thread;
    atomic_fetch_add_explicit((atomic_llong *)arg, item, memory_order_relaxed);
}

/* Short runs back to back: a late thread must never take an item of the next run. */
static void test_many_short_runs(void **state)
{
    lw_pool *p = NULL;

    (void)state;
    assert_int_equal(lw_pool_create(4, &p, NULL), LW_OK);
    for (int64_t i = 0; i < 20000; i++) {
        atomic_llong sum = 0;
        int64_t n = i % 9;

        lw_pool_run(p, n, add_item, &sum);
        assert_int_equal(sum, n * (n - 1) / 2);
    }
    lw_pool_destroy(&p);
}

static void test_create_and_destroy(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        lw_pool *p = NULL;
        atomic_llong sum = 0;

        assert_int_equal(lw_pool_create(i % 5 + 1, &p, NULL), LW_OK);
        if (i % 2)
            lw_pool_run(p, 10, add_item, &sum);
        lw_pool_destroy(&p);
        lw_pool_destroy(&p);
    }
}

static void test_bad_thread_counts(void **state)
{
    static const int bad[] = { -1, 100000 };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(bad); i++) {
        lw_pool *p = NULL;
        lw_err err = { 0 };

        assert_int_equal(lw_pool_create(bad[i], &p, &err), LW_E_INVALID);
        assert_null(p);
        assert_non_null(strstr(err.text, "threads"));
    }
}

static void test_default_and_null(void **state)
{
    lw_pool *p = NULL;
    atomic_llong sum = 0;

    (void)state;
    assert_int_equal(lw_pool_create(0, &p, NULL), LW_OK);
    assert_true(lw_pool_threads(p) >= 1);
    lw_pool_destroy(&p);
    assert_int_equal(lw_pool_threads(NULL), 1);
    lw_pool_run(NULL, 5, add_item, &sum);
    assert_int_equal(sum, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_item_once),    cmocka_unit_test(test_many_short_runs),
        cmocka_unit_test(test_create_and_destroy), cmocka_unit_test(test_bad_thread_counts),
        cmocka_unit_test(test_default_and_null),
    };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
