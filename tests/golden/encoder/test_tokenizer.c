/* The tokenizer against ids from the tokenizers library and its own properties; hostile text. */

#include "encoder-svc/tokenizer.h"

#include <utf8proc.h>

#include "common/buf.h"
#include "common/clock.h"

#include "tests/golden/encoder/util.h"

static lw_tokenizer *qwen3; /* the shipped files */
static lw_arena arena;

static int setup(void **state)
{
    lw_err err;
    lw_status st = lw_tokenizer_load(source_path("models/qwen3-tokenizer"), &qwen3, &err);

    (void)state;
    lw_arena_init(&arena, "test", 0);
    if (st != LW_OK)
        fprintf(stderr, "%s\n", err.text);
    return st == LW_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    lw_tokenizer_destroy(&qwen3);
    lw_arena_deinit(&arena);
    return 0;
}

static lw_token_ids encode(const lw_tokenizer *t, const char *text, size_t n)
{
    lw_token_ids ids;
    lw_err err;
    lw_status st = lw_tokenizer_encode(t, text, n, &arena, &ids, &err);

    assert_ok(st, &err);
    return ids;
}

static void check_ids(const char *text, lw_token_ids got, const json_t *expected)
{
    bool same = got.n == json_array_size(expected);

    for (size_t k = 0; same && k < got.n; k++)
        same = got.ids[k] == json_integer_value(json_array_get(expected, k));
    if (!same) {
        print_error("text '%s'\ngot     ", text);
        for (size_t k = 0; k < got.n; k++)
            print_error(" %d", got.ids[k]);
        print_error("\nexpected");
        for (size_t k = 0; k < json_array_size(expected); k++)
            print_error(" %d", (int)json_integer_value(json_array_get(expected, k)));
        fail_msg("other ids");
    }
}

static size_t check_cases(const json_t *cases)
{
    const json_t *c;
    size_t i;

    json_array_foreach(cases, i, c)
    {
        const json_t *text = json_object_get(c, "text");

        check_ids(json_string_value(text),
                  encode(qwen3, json_string_value(text), json_string_length(text)),
                  json_object_get(c, "ids"));
        lw_arena_reset(&arena);
    }
    return json_array_size(cases);
}

static void test_reference_cases(void **state)
{
    json_t *first = load_json(data_path("spec/tokenizer.json"));
    json_t *second = load_json(data_path("spec/tokenizer_cases.json"));

    (void)state;
    assert_int_equal(check_cases(first), 40);
    assert_int_equal(check_cases(json_object_get(second, "cases")), 319);
    json_decref(first);
    json_decref(second);
}

static void append_nfc(lw_buf *out, const char *text, size_t n)
{
    utf8proc_uint8_t *nfc = NULL;
    utf8proc_ssize_t len = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &nfc,
                                        (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));

    assert_true(len >= 0);
    lw_buf_put(out, nfc, (size_t)len);
    free(nfc);
}

/* The tokens of a text without added tokens, put together, are its NFC form. */
static void check_round_trip(const char *text, size_t n)
{
    lw_token_ids ids = encode(qwen3, text, n);
    lw_buf got, expected;

    lw_buf_init(&got, 64 << 20);
    lw_buf_init(&expected, 64 << 20);
    for (size_t i = 0; i < ids.n; i++) {
        size_t len = 0;
        const char *token = lw_tokenizer_token(qwen3, ids.ids[i], &len);

        assert_non_null(token);
        lw_buf_put(&got, token, len);
    }
    append_nfc(&expected, text, n);
    assert_int_equal(got.len, expected.len);
    assert_memory_equal(got.data, expected.data, got.len);
    lw_buf_deinit(&got);
    lw_buf_deinit(&expected);
    lw_arena_reset(&arena);
}

/* Every code point, in context: nothing is lost and nothing is added. */
static void test_every_code_point(void **state)
{
    lw_buf text;

    (void)state;
    lw_buf_init(&text, 64 << 20);
    for (int32_t c = 1; c <= 0x10ffff; c++) {
        uint8_t utf8[4];

        if (c >= 0xd800 && c <= 0xdfff)
            continue;
        lw_buf_put(&text, utf8, (size_t)utf8proc_encode_char(c, utf8));
        if (c % 7 == 0)
            lw_buf_puts(&text, "a\xcc\x81 ");
        if (text.len > 200000 || c == 0x10ffff) {
            check_round_trip((const char *)text.data, text.len);
            lw_buf_clear(&text);
        }
    }
    lw_buf_deinit(&text);
}

/* Scripts, marks, spaces and symbols at random from a fixed seed. */
static void test_random_mixtures(void **state)
{
    static const int32_t starts[] = { 0x20,   0x41,   0x61,   0x30,    0xa0,    0xc0,   0x300,
                                      0x320,  0x391,  0x5d0,  0x900,   0x1100,  0x1161, 0x2000,
                                      0x3040, 0x4e00, 0xac00, 0x1f300, 0x1d165, 9,      0x1e00 };
    uint32_t seed = 12345;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        char text[256];
        size_t n = 0;

        for (int k = 0; k < 40; k++) {
            seed = seed * 1664525 + 1013904223;
            n += (size_t)utf8proc_encode_char(starts[(seed >> 8) % LW_ARRAY_LEN(starts)] +
                                                  (int32_t)(seed >> 24) % 26,
                                              (utf8proc_uint8_t *)text + n);
        }
        check_round_trip(text, n);
    }
}

/* U+180E is white space for PCRE2's \s but not for the reference; U+0085 and U+3000 are for both.
 * Ids from tokenizers 0.23 with the published tokenizer.json. */
static void test_white_space_list(void **state)
{
    static const struct {
        const char *text;
        int32_t ids[6];
        size_t n;
    } cases[] = {
        { "  \xe1\xa0\x8ex", { 220, 86089, 254, 236, 87 }, 5 },
        { " \xe1\xa0\x8e\n", { 86089, 254, 236, 198 }, 4 },
        { "  \xc2\x85 \xe3\x80\x80x", { 256, 126, 227, 220, 22441, 87 }, 6 },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        lw_token_ids ids = encode(qwen3, cases[i].text, strlen(cases[i].text));

        assert_int_equal(ids.n, cases[i].n);
        assert_memory_equal(ids.ids, cases[i].ids, cases[i].n * sizeof(int32_t));
    }
}

/* A zero byte is a character like others. */
static void test_zero_byte(void **state)
{
    lw_token_ids ids = encode(qwen3, "a\0b", 3);

    (void)state;
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.ids[1], 188); /* the byte's own symbol, U+0100, in vocab.json */
}

/* The longest of several added tokens that start at the same place wins, the leftmost goes first.
 */
static void test_added_tokens(void **state)
{
    json_t *root = load_json(data_path("spec/pipeline_tiny/model/tokenizer/tokenizer.json"));
    json_t *added = json_object_get(root, "added_tokens");
    const lw_tokenizer_source src = { .label = "changed", .whole = root };
    lw_tokenizer *t = NULL;
    lw_err err;
    lw_token_ids ids;

    (void)state;
    json_array_append_new(added, json_pack("{s:i, s:s}", "id", 605, "content", "<th"));
    json_array_append_new(added, json_pack("{s:i, s:s}", "id", 606, "content", "<think>>"));
    json_array_append_new(added, json_pack("{s:i, s:s}", "id", 607, "content", "ink"));
    assert_ok(lw_tokenizer_build(&src, &t, &err), &err);
    json_decref(root);
    ids = encode(t, "<think>><think><thinkink", 24);
    assert_int_equal(ids.n, 5);
    assert_int_equal(ids.ids[0], 606);
    assert_int_equal(ids.ids[1], 603);
    assert_int_equal(ids.ids[2], 605);
    assert_int_equal(ids.ids[3], 607);
    assert_int_equal(ids.ids[4], 607);
    assert_int_equal(lw_tokenizer_n_ids(t), 608);
    assert_int_equal(lw_tokenizer_added_id(t, "<think>>"), 606);
    assert_int_equal(lw_tokenizer_added_id(t, "<think>>>"), -1);
    lw_tokenizer_destroy(&t);
    assert_null(t);
}

static void test_shipped_added_tokens(void **state)
{
    size_t n = 0;

    (void)state;
    assert_int_equal(lw_tokenizer_n_ids(qwen3), 151669);
    assert_int_equal(lw_tokenizer_added_id(qwen3, "<|im_start|>"), 151644);
    assert_int_equal(lw_tokenizer_added_id(qwen3, "</think>"), 151668);
    assert_memory_equal(lw_tokenizer_token(qwen3, 151645, &n), "<|im_end|>", 10);
    assert_int_equal(n, 10);
    assert_null(lw_tokenizer_token(qwen3, 151669, &n));
    assert_null(lw_tokenizer_token(qwen3, -1, &n));
}

static void test_not_utf8(void **state)
{
    static const struct {
        const char *text;
        size_t n;
        const char *names;
    } cases[] = {
        { "ab\xff", 3, "byte 2 (0xff)" },        { "\xc0\xaf", 2, "byte 0 (0xc0)" },
        { "x\xed\xa0\x80", 4, "byte 1 (0xed)" }, { "\xf4\x90\x80\x80", 4, "byte 0" },
        { "caf\xc3", 4, "byte 3 (0xc3)" },       { "<think>\x80", 8, "byte 7 (0x80)" },
        { "\xe4\xb8", 2, "byte 0 (0xe4)" },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        lw_err err;
        lw_token_ids ids;

        assert_error(lw_tokenizer_encode(qwen3, cases[i].text, cases[i].n, &arena, &ids, &err),
                     &err, LW_E_INVALID, cases[i].names);
    }
}

#define LONG_BYTES ((size_t)1 << 20)

/* A megabyte that is made to be slow. The quadratic ways take minutes to hours on these; the limit
 * is generous for a loaded machine with sanitizers. */
static void check_long(const char *unit, const char *end)
{
    char *text = malloc(LONG_BYTES);
    size_t unit_len = strlen(unit), n = 0;
    int64_t start = lw_now_ms();
    lw_token_ids ids = { 0 };
    lw_arena fresh; /* a release costs as much as the arena is large under AddressSanitizer */
    lw_status st;
    lw_err err;

    assert_non_null(text);
    while (n + unit_len + strlen(end) <= LONG_BYTES) {
        memcpy(text + n, unit, unit_len);
        n += unit_len;
    }
    memcpy(text + n, end, strlen(end));
    n += strlen(end);
    lw_arena_init(&fresh, "long text", (size_t)128 << 20);
    st = lw_tokenizer_encode(qwen3, text, n, &fresh, &ids, &err);
    lw_arena_deinit(&fresh);
    free(text);
    assert_ok(st, &err);
    assert_true(ids.n > 0);
    assert_true(lw_now_ms() - start < 20000);
}

static void test_long_text(void **state)
{
    (void)state;
    check_long("a", "");
    check_long("ab", "1");
    check_long(" ", "x");
    check_long("\n", "x");
    check_long(" \n", "x");
    check_long("\t", "");
    check_long("!", "");
    check_long("<", "");
    check_long("<|im_start|", "");
    check_long("<think>", "");
    check_long("7", "");
    check_long("\xe7\x8c\xab", "");
    check_long("\xcc\x81\xcc\xa3", "");         /* marks out of canonical order */
    check_long("\xcc\xa3\xcc\x81", "a");        /* marks in order */
    check_long("\xe1\x84\x80\xe1\x85\xa1", ""); /* Hangul jamo, all composed */
}

static void test_too_long(void **state)
{
    size_t n = LW_TOKENIZER_MAX_TEXT_BYTES + 1;
    char *text = malloc(n);
    lw_err err;
    lw_token_ids ids;

    (void)state;
    assert_non_null(text);
    memset(text, 'a', n);
    assert_error(lw_tokenizer_encode(qwen3, text, n, &arena, &ids, &err), &err, LW_E_TOO_LARGE,
                 "4194305 bytes");
    free(text);
}

/* Memory is bounded by the arena that the caller gave. */
static void test_arena_limit(void **state)
{
    char text[4096];
    lw_arena small;
    lw_err err;
    lw_token_ids ids;

    (void)state;
    memset(text, 'a', sizeof text);
    lw_arena_init(&small, "small", 16384);
    assert_int_equal(lw_tokenizer_encode(qwen3, text, sizeof text, &small, &ids, &err), LW_E_NOMEM);
    lw_arena_deinit(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_cases),
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_random_mixtures),
        cmocka_unit_test(test_white_space_list),
        cmocka_unit_test(test_zero_byte),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_shipped_added_tokens),
        cmocka_unit_test(test_not_utf8),
        cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_arena_limit),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
