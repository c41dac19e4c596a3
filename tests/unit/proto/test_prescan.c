/* What the gate before msgpack-c lets through, and that hostile headers cost no memory. */

#include "tests/unit/unit.h"

#include "proto/packet.h"

typedef struct bytes {
    uint8_t p[LW_MAX_HEADER_BYTES + 64];
    size_t n;
} bytes;

static void put(bytes *b, const void *data, size_t n)
{
    assert_true(b->n + n <= sizeof(b->p));
    memcpy(b->p + b->n, data, n);
    b->n += n;
}

static void put_byte(bytes *b, unsigned v)
{
    uint8_t c = (uint8_t)v;

    put(b, &c, 1);
}

#define SCAN(literal) scan(literal, sizeof(literal) - 1)

static lw_status scan(const char *p, size_t n)
{
    lw_err err = { 0 };
    /* An exact copy on the heap, so that a sanitizer sees one byte too many. */
    uint8_t *copy = malloc(n ? n : 1);
    lw_status s;

    memcpy(copy, p, n);
    s = lw_prescan(copy, n, &err);
    free(copy);
    assert_int_equal(s, err.code);
    return s;
}

static void accepts_every_form(void **state)
{
    (void)state;
    assert_int_equal(SCAN("\x80"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\x01"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xc0"), LW_OK);
    assert_int_equal(SCAN("\x82\xa1v\xc2\xa1w\xc3"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xff"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xcc\x01"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xcd\x01\x02"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xce\x01\x02\x03\x04"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xcf\x01\x02\x03\x04\x05\x06\x07\x08"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xd0\x01"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xd1\x01\x02"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xd2\x01\x02\x03\x04"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xd3\x01\x02\x03\x04\x05\x06\x07\x08"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xca\x01\x02\x03\x04"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xcb\x01\x02\x03\x04\x05\x06\x07\x08"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xc4\x02\xff\x00"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xc5\x00\x02zz"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xc6\x00\x00\x00\x02zz"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xd9\x02zz"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xda\x00\x02zz"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xdb\x00\x00\x00\x02zz"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xd4\x03z"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xd5\x03zz"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xd6\x03zzzz"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xd7\x03zzzzzzzz"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xd8\x03zzzzzzzzzzzzzzzz"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xc7\x02\x03zz"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xc8\x00\x02\x03zz"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xc9\x00\x00\x00\x02\x03zz"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\x92\x01\x02"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xdc\x00\x02\x01\x02"), LW_OK);
    assert_int_equal(SCAN("\x81\xa1v\xdd\x00\x00\x00\x02\x01\x02"), LW_OK);
    assert_int_equal(SCAN("\xde\x00\x01\xa1v\x01"), LW_OK);
    assert_int_equal(SCAN("\xdf\x00\x00\x00\x01\xa1v\x01"), LW_OK);
}

static void refuses_what_is_not_one_map(void **state)
{
    (void)state;
    assert_int_equal(SCAN(""), LW_E_FORMAT);
    assert_int_equal(SCAN("\x01"), LW_E_FORMAT);
    assert_int_equal(SCAN("\x90"), LW_E_FORMAT);
    assert_int_equal(SCAN("\xa1v"), LW_E_FORMAT);
    assert_int_equal(SCAN("\xc1"), LW_E_FORMAT);
    assert_int_equal(SCAN("\x81\xa1v\xc1"), LW_E_FORMAT);
    assert_int_equal(SCAN("\x80\x00"), LW_E_FORMAT);             /* bytes after the end */
    assert_int_equal(SCAN("\x81\x01\x01"), LW_E_FORMAT);         /* key is no string */
    assert_int_equal(SCAN("\x81\xc4\x01v\x01"), LW_E_FORMAT);    /* key is bin */
    assert_int_equal(SCAN("\x81\xa1\xff\x01"), LW_E_FORMAT);     /* not UTF-8 */
    assert_int_equal(SCAN("\x81\xa2\xc0\x80\x01"), LW_E_FORMAT); /* overlong NUL */
    assert_int_equal(SCAN("\x81\xa1v\xa1\xff"), LW_E_FORMAT);
}

static void refuses_duplicate_keys_in_any_map(void **state)
{
    (void)state;
    assert_int_equal(SCAN("\x82\xa1v\x01\xa1v\x02"), LW_E_FORMAT);
    assert_int_equal(SCAN("\x82\xa1v\x01\xd9\x01v\x02"), LW_E_FORMAT); /* other encoding */
    assert_int_equal(SCAN("\x81\xa1m\x82\xa1v\x01\xa1v\x02"), LW_E_FORMAT);
    assert_int_equal(SCAN("\x82\xa1m\x81\xa1v\x01\xa1m\x02"), LW_E_FORMAT);
    /* The same key in different maps is fine, before, inside and after. */
    assert_int_equal(SCAN("\x82\xa1v\x81\xa1v\x81\xa1v\x01\xa1w\x81\xa1v\x01"), LW_OK);
}

static void every_cut_is_noticed(void **state)
{
    static const char whole[] = "\x83\xa1v\x01\xa1"
                                "f\xcb\x01\x02\x03\x04\x05\x06\x07\x08\xa7tensors\x81\xa1x\x93\xa7"
                                "float32\x91\x03\xc7\x0c\x03zzzzzzzzzzzz";

    (void)state;
    assert_int_equal(SCAN(whole), LW_OK);
    for (size_t n = 0; n < sizeof(whole) - 1; n++)
        assert_int_equal(scan(whole, n), LW_E_FORMAT);
}

static void depth_has_a_limit(void **state)
{
    bytes b = { .n = 0 };

    (void)state;
    put(&b, "\x81\xa1k", 3);
    for (int i = 0; i < LW_MAX_HEADER_DEPTH - 2; i++)
        put_byte(&b, 0x91);
    put_byte(&b, 0x90);
    assert_int_equal(scan((char *)b.p, b.n), LW_OK);
    b.p[b.n - 1] = 0x91;
    put_byte(&b, 0x90);
    assert_int_equal(scan((char *)b.p, b.n), LW_E_TOO_LARGE);
}

static void item_count_has_a_limit(void **state)
{
    bytes b = { .n = 0 };
    unsigned n = LW_MAX_HEADER_ITEMS - 3; /* besides the map, the key and the array */

    (void)state;
    put(&b, "\x81\xa1k\xdc", 4);
    put_byte(&b, n >> 8);
    put_byte(&b, n & 255);
    for (unsigned i = 0; i < n; i++)
        put_byte(&b, 1);
    assert_int_equal(scan((char *)b.p, b.n), LW_OK);
    b.p[4] = (uint8_t)((n + 1) >> 8);
    b.p[5] = (uint8_t)((n + 1) & 255);
    put_byte(&b, 1);
    assert_int_equal(scan((char *)b.p, b.n), LW_E_TOO_LARGE);
}

/* 512 keys, the most that fit the item limit, in one map. */
static void many_keys_fit(void **state)
{
    unsigned n = (LW_MAX_HEADER_ITEMS - 1) / 2;
    bytes b = { .n = 0 };
    char key[8];

    (void)state;
    put_byte(&b, 0xde);
    put_byte(&b, n >> 8);
    put_byte(&b, n & 255);
    for (unsigned i = 0; i < n; i++) {
        snprintf(key, sizeof(key), "\xa4%04u", i);
        put(&b, key, 5);
        put_byte(&b, 1);
    }
    assert_int_equal(scan((char *)b.p, b.n), LW_OK);
    memcpy(b.p + b.n - 5, "0000", 4);
    assert_int_equal(scan((char *)b.p, b.n), LW_E_FORMAT);
}

static void size_has_a_limit(void **state)
{
    static bytes b;
    unsigned n = LW_MAX_HEADER_BYTES - 3 - 5;

    (void)state;
    b.n = 0;
    put(&b, "\x81\xa1k\xdb", 4);
    put_byte(&b, n >> 24);
    put_byte(&b, n >> 16 & 255);
    put_byte(&b, n >> 8 & 255);
    put_byte(&b, n & 255);
    memset(b.p + b.n, 'a', n);
    b.n += n;
    assert_int_equal(b.n, LW_MAX_HEADER_BYTES);
    assert_int_equal(scan((char *)b.p, b.n), LW_OK);
    assert_int_equal(scan((char *)b.p, b.n + 1), LW_E_TOO_LARGE);
}

static long vm_peak_kb(void)
{
    long kb = -1;
    char line[128];
    FILE *f = fopen("/proc/self/status", "r");

    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "VmPeak: %ld", &kb) == 1)
            break;
    if (f)
        fclose(f);
    return kb;
}

/* Counts that msgpack-c would reserve gigabytes for before it reads an element. */
static void bombs_cost_no_memory(void **state)
{
    static const struct {
        const char *p;
        size_t n;
    } bombs[] = {
#define BOMB(s) { s, sizeof(s) - 1 }
        BOMB("\x91\xdd\x10\x00\x00\x00"),
        BOMB("\x81\xa1k\xdd\x10\x00\x00\x00"),
        BOMB("\x81\xa1k\xdd\xff\xff\xff\xff"),
        BOMB("\xdf\x10\x00\x00\x00"),
        BOMB("\xdf\xff\xff\xff\xff"),
        BOMB("\x81\xa1k\xdf\x80\x00\x00\x00"),
        BOMB("\x81\xa1k\xdb\xff\xff\xff\xff"),
        BOMB("\x81\xa1k\xc6\xff\xff\xff\xff"),
        BOMB("\x81\xa1k\xc9\xff\xff\xff\xff\x03"),
        BOMB("\x81\xa1k\xdd\x00\x01\x00\x00\xdd\x00\x01\x00\x00\xdd\x00\x01\x00\x00"),
    };
    long before = vm_peak_kb();

    (void)state;
    assert_true(before > 0);
    for (size_t i = 0; i < LW_ARRAY_LEN(bombs); i++) {
        lw_packet p = { .n_frames = 1, .frames = { lw_frame_copy(bombs[i].p, bombs[i].n) } };
        lw_arena a;
        lw_err err = { 0 };
        lw_msg m;

        lw_arena_init(&a, "test", 0);
        assert_non_null(p.frames[0]);
        assert_int_equal(lw_msg_decode(&p, &a, &m, &err), LW_E_FORMAT);
        lw_arena_deinit(&a);
        lw_packet_clear(&p);
    }
    assert_in_range(vm_peak_kb() - before, 0, 1024);
}

/* Nested array headers, each claiming as much as the bytes allow. */
static void nested_bombs_cost_no_memory(void **state)
{
    long before = vm_peak_kb();
    static bytes b;

    (void)state;
    b.n = 0;
    put(&b, "\x81\xa1k", 3);
    for (int i = 0; i < 100; i++)
        put(&b, "\xdd\x00\x00\x03\x00", 5);
    while (b.n < LW_MAX_HEADER_BYTES)
        put_byte(&b, 1);
    assert_int_not_equal(scan((char *)b.p, b.n), LW_OK);
    assert_in_range(vm_peak_kb() - before, 0, 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_every_form),
        cmocka_unit_test(refuses_what_is_not_one_map),
        cmocka_unit_test(refuses_duplicate_keys_in_any_map),
        cmocka_unit_test(every_cut_is_noticed),
        cmocka_unit_test(depth_has_a_limit),
        cmocka_unit_test(item_count_has_a_limit),
        cmocka_unit_test(many_keys_fit),
        cmocka_unit_test(size_has_a_limit),
        cmocka_unit_test(bombs_cost_no_memory),
        cmocka_unit_test(nested_bombs_cost_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
