/* The status table, error texts, UTF-8 checks. */

#include "tests/unit/unit.h"

#include "common/utf8.h"

static void names_go_both_ways(void **state)
{
    (void)state;
    for (int i = 0; i < LW_N_STATUS; i++) {
        const char *name = lw_status_name((lw_status)i);

        assert_int_equal(lw_status_from_name(name, strlen(name)), i);
        assert_int_equal(lw_status_from_name(name, strlen(name) - 1), LW_E_INTERNAL);
        assert_true(strlen(lw_status_text((lw_status)i)) > 0);
    }
    assert_int_equal(lw_status_from_name("", 0), LW_E_INTERNAL);
    assert_string_equal(lw_status_name((lw_status)999), "internal");
    assert_string_equal(lw_status_name((lw_status)-1), "internal");
}

static void exit_codes_are_distinct(void **state)
{
    (void)state;
    for (int i = 0; i < LW_N_STATUS; i++) {
        int code = lw_status_exit((lw_status)i);

        assert_in_range(code, 0, 127); /* 128 and above are signals */
        assert_int_equal(code == 0, i == LW_OK);
        assert_int_not_equal(code, 1); /* what a crashed script gives */
        for (int j = 0; j < i; j++)
            assert_int_not_equal(code, lw_status_exit((lw_status)j));
        assert_in_range(lw_status_http((lw_status)i), 200, 599);
    }
}

static void fail_records_code_and_text(void **state)
{
    lw_err err = { 0 };

    (void)state;
    assert_int_equal(lw_fail(&err, LW_E_SHAPE, "%s: %d", "x", 7), LW_E_SHAPE);
    assert_int_equal(err.code, LW_E_SHAPE);
    assert_string_equal(err.text, "x: 7");
    assert_int_equal(lw_fail(NULL, LW_E_IO, "unseen"), LW_E_IO);
    /* An error may quote itself. */
    lw_fail(&err, LW_E_IO, "again: %s", err.text);
    assert_string_equal(err.text, "again: x: 7");
}

static void prefix_keeps_the_code(void **state)
{
    lw_err err = { 0 };

    (void)state;
    lw_fail(&err, LW_E_NOT_FOUND, "no such file");
    assert_int_equal(lw_err_prefix(&err, LW_E_IO, "model %d", 3), LW_E_NOT_FOUND);
    assert_string_equal(err.text, "model 3: no such file");
    assert_int_equal(lw_err_prefix(NULL, LW_E_IO, "x"), LW_E_IO);
}

static void texts_are_one_clean_line(void **state)
{
    lw_err err = { 0 };

    (void)state;
    lw_fail(&err, LW_E_IO, "%s", "a\nb\x1b[2Jc\x7f\xff\xc3(\xc2\x9b-\xc3\xa9-\xe2\x82\xac");
    assert_string_equal(err.text, "a?b?[2Jc??"
                                  "?(?-\xc3\xa9-\xe2\x82\xac");
}

static void long_texts_are_cut_at_a_character(void **state)
{
    char text[2 * LW_ERR_TEXT_BYTES];
    lw_err err = { 0 };

    (void)state;
    /* One odd byte in front, so that the limit falls inside a two-byte character in one case. */
    for (int lead = 0; lead < 2; lead++) {
        memset(text, 'x', (size_t)lead);
        for (size_t i = (size_t)lead; i + 2 < sizeof(text); i += 2)
            memcpy(text + i, "\xc3\xa9", 3);
        lw_fail(&err, LW_E_IO, "%s", text);
        assert_true(lw_utf8_valid(err.text, strlen(err.text)));
        assert_in_range(strlen(err.text), LW_ERR_TEXT_BYTES - 3, LW_ERR_TEXT_BYTES - 1);
        assert_null(strchr(err.text, '?'));
        lw_err_prefix(&err, LW_E_IO, "p");
        assert_true(lw_utf8_valid(err.text, strlen(err.text)));
        assert_null(strchr(err.text, '?'));
        assert_memory_equal(err.text, "p: ", 3);
        lw_err_prefix(&err, LW_E_IO, "%s", text); /* a prefix longer than the room */
        assert_true(strlen(err.text) < LW_ERR_TEXT_BYTES);
    }
}

static void utf8_follows_the_standard(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } cases[] = {
        { "a", 1 },
        { "\x7f", 1 },
        { "\x80", 0 },
        { "\xc1\xbf", 0 }, /* overlong */
        { "\xc2\x80", 2 },
        { "\xdf\xbf", 2 },
        { "\xc3", 0 },         /* cut */
        { "\xe0\x9f\xbf", 0 }, /* overlong */
        { "\xe0\xa0\x80", 3 },
        { "\xed\x9f\xbf", 3 },
        { "\xed\xa0\x80", 0 }, /* surrogate */
        { "\xef\xbf\xbf", 3 },
        { "\xe2\x82", 0 },
        { "\xf0\x8f\xbf\xbf", 0 }, /* overlong */
        { "\xf0\x90\x80\x80", 4 },
        { "\xf4\x8f\xbf\xbf", 4 },
        { "\xf4\x90\x80\x80", 0 }, /* above U+10FFFF */
        { "\xf5\x80\x80\x80", 0 },
        { "\xf0\x90\x80", 0 },
        { "\xff", 0 },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        size_t n = strlen(cases[i].text);

        assert_int_equal(lw_utf8_len(cases[i].text, n), cases[i].len);
        assert_int_equal(lw_utf8_valid(cases[i].text, n), cases[i].len == n);
    }
    assert_true(lw_utf8_valid("", 0));
    assert_int_equal(lw_utf8_trim("ab\xc3", 3), 2);
    assert_int_equal(lw_utf8_trim("ab\xc3\xa9", 4), 4);
    assert_int_equal(lw_utf8_trim("\xf0\x9f\x8e", 3), 0);
    assert_int_equal(lw_utf8_trim("abc", 3), 3);
    assert_int_equal(lw_utf8_trim("", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_go_both_ways),
        cmocka_unit_test(exit_codes_are_distinct),
        cmocka_unit_test(fail_records_code_and_text),
        cmocka_unit_test(prefix_keeps_the_code),
        cmocka_unit_test(texts_are_one_clean_line),
        cmocka_unit_test(long_texts_are_cut_at_a_character),
        cmocka_unit_test(utf8_follows_the_standard),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
