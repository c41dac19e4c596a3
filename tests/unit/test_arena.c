/* Arenas and byte buffers: alignment, limits, marks, reuse of blocks. */

#include "tests/unit/unit.h"

#include "common/arena.h"
#include "common/buf.h"
#include "common/size.h"

static void memory_is_aligned_and_distinct(void **state)
{
    lw_err err = { 0 };
    uint8_t *p[200];
    lw_arena a;

    (void)state;
    lw_arena_init(&a, "test", 0);
    for (int i = 0; i < 200; i++) {
        p[i] = lw_arena_alloc(&a, (size_t)i * 37, &err);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 64, 0);
        memset(p[i], i, (size_t)i * 37);
    }
    for (int i = 0; i < 200; i++)
        for (int j = 0; j < i * 37; j++)
            assert_int_equal(p[i][j], i);
    assert_true(a.used_bytes <= a.reserved_bytes);
    assert_int_equal(a.used_bytes, a.peak_bytes);
    lw_arena_deinit(&a);
    assert_int_equal(a.reserved_bytes, 0);
    lw_arena_deinit(&a); /* twice is harmless */
}

static void zero_bytes_give_a_unique_pointer(void **state)
{
    lw_err err = { 0 };
    lw_arena a;
    void *p, *q;

    (void)state;
    lw_arena_init(&a, "test", 0);
    p = lw_arena_alloc(&a, 0, &err);
    q = lw_arena_alloc(&a, 0, &err);
    assert_non_null(p);
    assert_non_null(q);
    assert_ptr_not_equal(p, q);
    lw_arena_deinit(&a);
}

static void the_limit_is_an_error_and_not_the_end(void **state)
{
    lw_err err = { 0 };
    lw_arena a;

    (void)state;
    lw_arena_init(&a, "request", 1 << 20);
    assert_null(lw_arena_alloc(&a, (1 << 20) + 1, &err));
    assert_int_equal(err.code, LW_E_NOMEM);
    assert_contains(err.text, "request memory: 1.0 MiB more");
    assert_non_null(lw_arena_alloc(&a, 1000, &err));
    assert_null(lw_arena_alloc(&a, 1 << 20, NULL));
    assert_non_null(lw_arena_alloc(&a, 1000, &err));
    assert_true(a.reserved_bytes <= 1 << 20);
    /* Sizes near SIZE_MAX must not wrap. */
    assert_null(lw_arena_alloc(&a, SIZE_MAX, &err));
    assert_null(lw_arena_alloc(&a, SIZE_MAX - 63, &err));
    assert_null(lw_arena_alloc(&a, SIZE_MAX - 64, &err));
    assert_null(lw_arena_calloc(&a, SIZE_MAX / 2, 3, &err));
    assert_null(lw_arena_strndup(&a, "x", SIZE_MAX, &err));
    lw_arena_deinit(&a);

    lw_arena_init(&a, "unlimited", 0);
    assert_null(lw_arena_alloc(&a, SIZE_MAX - 4096, &err));
    assert_null(lw_arena_alloc(&a, SIZE_MAX / 2, &err));
    assert_int_equal(err.code, LW_E_NOMEM);
    assert_int_equal(a.reserved_bytes, 0);
    lw_arena_deinit(&a);
}

/* Reset keeps blocks, but an empty block must not stand in the way of a larger one. */
static void the_limit_counts_only_what_is_needed(void **state)
{
    const size_t mib = 1 << 20;
    lw_err err = { 0 };
    lw_arena a;

    (void)state;
    lw_arena_init(&a, "request", 10 * mib);
    assert_non_null(lw_arena_alloc(&a, 6 * mib, &err));
    lw_arena_reset(&a);
    assert_int_equal(a.used_bytes, 0);
    assert_true(a.reserved_bytes >= 6 * mib);
    assert_non_null(lw_arena_alloc(&a, 8 * mib, &err));
    assert_true(a.reserved_bytes <= 10 * mib);
    assert_null(lw_arena_alloc(&a, 6 * mib, &err));
    lw_arena_deinit(&a);
}

static void reset_reuses_blocks(void **state)
{
    lw_err err = { 0 };
    lw_arena a;
    size_t reserved;

    (void)state;
    lw_arena_init(&a, "test", 0);
    for (int i = 0; i < 50; i++)
        assert_non_null(lw_arena_alloc(&a, 100000, &err));
    reserved = a.reserved_bytes;
    for (int round = 0; round < 20; round++) {
        lw_arena_reset(&a);
        for (int i = 0; i < 50; i++) {
            uint8_t *p = lw_arena_alloc(&a, 100000, &err);

            assert_non_null(p);
            memset(p, round, 100000);
        }
    }
    assert_int_equal(a.reserved_bytes, reserved);
    lw_arena_deinit(&a);
}

static void marks_nest(void **state)
{
    lw_err err = { 0 };
    lw_arena_mark outer, inner, empty;
    uint8_t *keep, *first;
    lw_arena a;

    (void)state;
    lw_arena_init(&a, "scratch", 0);
    empty = lw_arena_mark_get(&a);
    keep = lw_arena_alloc(&a, 100, &err);
    memset(keep, 7, 100);
    outer = lw_arena_mark_get(&a);
    first = lw_arena_alloc(&a, 100, &err);
    inner = lw_arena_mark_get(&a);
    for (int i = 0; i < 30; i++)
        assert_non_null(lw_arena_alloc(&a, 50000, &err));
    lw_arena_release(&a, inner);
    assert_non_null(lw_arena_alloc(&a, 5 << 20, &err));
    lw_arena_release(&a, outer);
    assert_ptr_equal(lw_arena_alloc(&a, 100, &err), first);
    for (int i = 0; i < 100; i++)
        assert_int_equal(keep[i], 7);
    lw_arena_release(&a, empty);
    assert_int_equal(a.used_bytes, 0);
    assert_ptr_equal(lw_arena_alloc(&a, 100, &err), keep);
    lw_arena_deinit(&a);
}

/* A seeded walk of allocations, marks and releases with every byte checked. */
static void random_use_keeps_contents(void **state)
{
    enum { MAX_LIVE = 64, N_MARKS = 8 };
    struct {
        uint8_t *p;
        size_t n;
        uint8_t fill;
    } live[MAX_LIVE];
    struct {
        lw_arena_mark mark;
        int n_live;
    } marks[N_MARKS];
    int n_live = 0, n_marks = 0;
    uint32_t x = 12345;
    lw_arena a;

    (void)state;
    lw_arena_init(&a, "walk", 3 << 20);
    for (int step = 0; step < 4000; step++) {
        x = x * 1664525 + 1013904223;
        if (x >> 28 < 10 && n_live < MAX_LIVE) {
            size_t n = (x >> 8) % ((x >> 27) & 1 ? 300 : 300000);
            uint8_t *p = lw_arena_alloc(&a, n, NULL);

            if (p == NULL)
                continue;
            memset(p, step & 255, n);
            live[n_live].p = p;
            live[n_live].n = n;
            live[n_live++].fill = step & 255;
        } else if (x >> 28 < 13 && n_marks < N_MARKS) {
            marks[n_marks].mark = lw_arena_mark_get(&a);
            marks[n_marks++].n_live = n_live;
        } else if (n_marks) {
            n_marks = (int)((x >> 8) % (uint32_t)n_marks);
            n_live = marks[n_marks].n_live;
            lw_arena_release(&a, marks[n_marks].mark);
        } else {
            n_live = 0;
            lw_arena_reset(&a);
        }
        assert_true(a.reserved_bytes <= 3 << 20);
        for (int i = 0; i < n_live; i++)
            for (size_t j = 0; j < live[i].n; j += 61)
                if (live[i].p[j] != live[i].fill)
                    fail_msg("step %d: allocation %d was overwritten", step, i);
    }
    lw_arena_deinit(&a);
}

static void texts(void **state)
{
    lw_err err = { 0 };
    uint8_t *zero;
    lw_arena a;

    (void)state;
    lw_arena_init(&a, "test", 0);
    assert_string_equal(lw_arena_strndup(&a, "hello", 3, &err), "hel");
    assert_string_equal(lw_arena_strndup(&a, "", 0, &err), "");
    assert_string_equal(lw_arena_printf(&a, &err, "%s-%d", "x", 12), "x-12");
    zero = lw_arena_calloc(&a, 100, 3, &err);
    for (int i = 0; i < 300; i++)
        assert_int_equal(zero[i], 0);
    lw_arena_deinit(&a);
}

static void buffers_have_a_maximum(void **state)
{
    lw_buf b;

    (void)state;
    lw_buf_init(&b, 1000);
    assert_string_equal(lw_buf_cstr(&b), "");
    for (int i = 0; i < 1000; i++)
        lw_buf_putc(&b, (char)('a' + i % 26));
    assert_false(b.failed);
    assert_int_equal(b.len, 1000);
    assert_int_equal(strlen(lw_buf_cstr(&b)), 1000);
    lw_buf_putc(&b, 'x');
    assert_true(b.failed);
    lw_buf_puts(&b, "more"); /* sticky */
    assert_string_equal(lw_buf_cstr(&b), "");
    lw_buf_clear(&b);
    assert_false(b.failed);
    lw_buf_printf(&b, "%d and %s", 5, "six");
    lw_buf_puts(&b, "!");
    assert_string_equal(lw_buf_cstr(&b), "5 and six!");
    lw_buf_put(&b, "x", SIZE_MAX);
    assert_true(b.failed);
    lw_buf_deinit(&b);
    assert_null(b.data);

    lw_buf_init(&b, 0);
    assert_string_equal(lw_buf_cstr(&b), "");
    assert_false(b.failed);
    lw_buf_putc(&b, 'x');
    assert_true(b.failed);
    lw_buf_deinit(&b);
}

static void sizes_are_checked(void **state)
{
    size_t r = 5;

    (void)state;
    assert_false(lw_size_mul(SIZE_MAX, 2, &r));
    assert_false(lw_size_add(SIZE_MAX, 1, &r));
    assert_int_equal(r, 5);
    assert_true(lw_size_mul(SIZE_MAX, 1, &r));
    assert_true(r == SIZE_MAX);
    assert_true(lw_size_add(2, 3, &r));
    assert_int_equal(r, 5);
    assert_int_equal(lw_size_align(0, 64), 0);
    assert_int_equal(lw_size_align(1, 64), 64);
    assert_int_equal(lw_size_align(64, 64), 64);
    assert_true(lw_size_align(SIZE_MAX - 3, 64) == SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_aligned_and_distinct),
        cmocka_unit_test(zero_bytes_give_a_unique_pointer),
        cmocka_unit_test(the_limit_is_an_error_and_not_the_end),
        cmocka_unit_test(the_limit_counts_only_what_is_needed),
        cmocka_unit_test(reset_reuses_blocks),
        cmocka_unit_test(marks_nest),
        cmocka_unit_test(random_use_keeps_contents),
        cmocka_unit_test(texts),
        cmocka_unit_test(buffers_have_a_maximum),
        cmocka_unit_test(sizes_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
