/* Prompt weighting and conversations as they come from outside: tables of what is taken, and of
 * what is refused with its place. */

#include "encoder-svc/messages.h"
#include "encoder-svc/weighting.h"

#include <math.h>

#include "tests/golden/encoder/util.h"

static lw_arena arena;

static int setup(void **state)
{
    (void)state;
    lw_arena_init(&arena, "text", 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lw_arena_deinit(&arena);
    return 0;
}

/* ---- weighting ---- */

/* Weights as runs: "aa=1 bb=1.3". */
static void test_weighting(void **state)
{
    static const struct {
        const char *in, *text;
        const char *part; /* of the text, first time */
        double weight;
        double other; /* of everything else */
    } rows[] = {
        { "", "", NULL, 1, 1 },
        { "a red circle", "a red circle", NULL, 1, 1 },
        { "a (red:1.3) circle", "a red circle", "red", 1.3, 1 },
        { "(red:0)", "red", "red", 0, 1 },
        { "(red:10)", "red", "red", 10, 1 },
        { "(red:.5)", "red", "red", 0.5, 1 },
        { "(red:2.)", "red", "red", 2, 1 },
        { "(red: 1.5 )", "red", "red", 1.5, 1 },
        { "(a red car:1.2)", "a red car", "a red car", 1.2, 1 },
        { "((red:2) car:1.5)", "red car", "red", 3, 1.5 },
        { "(((x:2):2):2)", "x", "x", 8, 1 },
        { "\\(red:1.3\\)", "(red:1.3)", NULL, 1, 1 },
        { "(a \\(b\\):2)", "a (b)", "a (b)", 2, 1 },
        { "a\\\\b", "a\\b", NULL, 1, 1 },
        { "a\\nb", "a\\nb", NULL, 1, 1 },
        { "a\\", "a\\", NULL, 1, 1 },
        { "time 12:30", "time 12:30", NULL, 1, 1 },
        { "(at 12:30 sharp:1.5)", "at 12:30 sharp", "at 12:30 sharp", 1.5, 1 },
        { "(ratio 1:2:1.5)", "ratio 1:2", "ratio 1:2", 1.5, 1 },
        { "(:1.5)x", "x", NULL, 1, 1 },
        { "(\xe6\xa8\xb9:1.5)\xc3\xa9", "\xe6\xa8\xb9\xc3\xa9", "\xe6\xa8\xb9", 1.5, 1 },
        { "[red:1.3] {x}", "[red:1.3] {x}", NULL, 1, 1 },
        { "(a:1.1)(b:1.1)", "ab", "ab", 1.1, 1 },
        { "(\n:2)", "\n", "\n", 2, 1 },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(rows); i++) {
        lw_weighted_text w;
        lw_err err;
        const char *part;

        assert_ok(lw_weighting_parse(rows[i].in, &arena, &w, &err), &err);
        assert_string_equal(w.text, rows[i].text);
        assert_int_equal(w.len, strlen(rows[i].text));
        part = rows[i].part ? strstr(w.text, rows[i].part) : NULL;
        for (size_t k = 0; k < w.len; k++) {
            const bool in = part && w.text + k >= part && w.text + k < part + strlen(rows[i].part);

            if (fabs((double)w.weights[k] - (in ? rows[i].weight : rows[i].other)) > 1e-6)
                fail_msg("\"%s\": byte %zu has the weight %g", rows[i].in, k, (double)w.weights[k]);
        }
    }
}

static void test_bad_weighting(void **state)
{
    static const struct {
        const char *in, *names;
    } rows[] = {
        { "a (red circle",
          "character 3 of the prompt, \"(red circle\": the bracket is not closed" },
        { "a (red) circle",
          "character 3 of the prompt, \"(red) circle\": the bracket has no weight" },
        { "a red) circle", "character 6 of the prompt, \") circle\": nothing is open" },
        { "(red:1.3))", "character 10" },
        { "((red:1.3)", "character 1 of" },
        { "(red:11)", "the weight is above 10" },
        { "(red:99999999999999999999)", "above 10" },
        { "(red:-1)", "the bracket has no weight" },
        { "(red:nan)", "the bracket has no weight" },
        { "(red:1e1)", "the bracket has no weight" },
        { "(red:)", "the bracket has no weight" },
        { "(red:.)", "the bracket has no weight" },
        { "(red:1.2.3)", "the bracket has no weight" },
        { "\xe6\xa8\xb9\xe6\xa8\xb9(x", "character 3 of" },
        { "(((((((((((((((((x", "more than 16 brackets" },
        { "(red:1.3", "the bracket is not closed" },
        { "(red\\):1.3", "the bracket is not closed" },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(rows); i++) {
        lw_weighted_text w;
        lw_err err;

        assert_error(lw_weighting_parse(rows[i].in, &arena, &w, &err), &err, LW_E_INVALID,
                     rows[i].names);
        assert_non_null(strstr(err.text, "weighting"));
    }
}

/* ---- messages ---- */

static void test_messages(void **state)
{
    lw_chat_message *m;
    size_t n;
    lw_err err;

    (void)state;
    assert_ok(lw_messages_parse("[]", &arena, &m, &n, &err), &err);
    assert_int_equal(n, 0);
    assert_ok(lw_messages_parse(
                  "[{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": "
                  "\"u\\n\\u00e9\"}, {\"content\": \"a\", \"role\": \"assistant\", "
                  "\"reasoning_content\": \"r\"}, {\"role\": \"assistant\", \"content\": \"\", "
                  "\"thinking\": \"t\", \"reasoning_content\": null}, {\"role\": \"tool\", "
                  "\"content\": \"7\"}]",
                  &arena, &m, &n, &err),
              &err);
    assert_int_equal(n, 5);
    assert_string_equal(m[0].role, "system");
    assert_string_equal(m[1].content, "u\n\xc3\xa9");
    assert_null(m[1].reasoning);
    assert_string_equal(m[2].reasoning, "r");
    assert_string_equal(m[3].reasoning, "t");
    assert_string_equal(m[3].content, "");
    assert_string_equal(m[4].role, "tool");
}

static void test_bad_messages(void **state)
{
#define USER "{\"role\": \"user\", \"content\": \"x\"}"
    static const struct {
        const char *in, *names;
    } rows[] = {
        { "", "not JSON" },
        { "[" USER, "not JSON (line 1, column" },
        { "[" USER "] x", "not JSON" },
        { "{}", "expected a JSON array" },
        { "\"x\"", "not JSON" },
        { "[1]", "messages[0] is not an object" },
        { "[" USER ", null]", "messages[1] is not an object" },
        { "[{}]", "messages[0]: the role is missing" },
        { "[" USER ", {\"role\": \"bot\", \"content\": \"x\"}]",
          "messages[1]: the role is \"bot\"; expected system, user, assistant or tool" },
        { "[{\"role\": 1, \"content\": \"x\"}]", "messages[0]: the role is missing or no text" },
        { "[{\"role\": \"user\"}]", "messages[0]: \"content\" is missing" },
        { "[{\"role\": \"user\", \"content\": [\"x\"]}]",
          "messages[0]: \"content\" is not a text" },
        { "[{\"role\": \"user\", \"content\": null}]", "messages[0]: \"content\" is not a text" },
        { "[" USER "," USER ",{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": []}]",
          "messages[2]: \"tool_calls\" is not supported" },
        { "[{\"role\": \"user\", \"content\": \"x\", \"thinking\": \"t\"}]",
          "messages[0]: \"thinking\" belongs to an assistant" },
        { "[{\"role\": \"assistant\", \"content\": \"x\", \"thinking\": \"t\", "
          "\"reasoning_content\": \"r\"}]",
          "messages[0] has both" },
        { "[{\"role\": \"user\", \"role\": \"user\", \"content\": \"x\"}]", "not JSON" },
        { "[{\"role\": \"user\", \"content\": \"a\\u0000b\"}]", "not JSON" },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(rows); i++) {
        lw_chat_message *m;
        size_t n;
        lw_err err;

        assert_error(lw_messages_parse(rows[i].in, &arena, &m, &n, &err), &err, LW_E_INVALID,
                     rows[i].names);
    }
}

static void test_many_messages(void **state)
{
    static char text[(LW_MESSAGES_MAX + 1) * sizeof USER + 16];
    lw_chat_message *m;
    size_t n;
    lw_err err;

    (void)state;
    for (int extra = 0; extra <= 1; extra++) {
        strcpy(text, "[");
        for (int i = 0; i < LW_MESSAGES_MAX + extra; i++)
            strcat(strcat(text, i ? "," : ""), USER);
        strcat(text, "]");
        if (extra)
            assert_error(lw_messages_parse(text, &arena, &m, &n, &err), &err, LW_E_INVALID,
                         "257 of them; at most 256");
        else
            assert_ok(lw_messages_parse(text, &arena, &m, &n, &err), &err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weighting),     cmocka_unit_test(test_bad_weighting),
        cmocka_unit_test(test_messages),      cmocka_unit_test(test_bad_messages),
        cmocka_unit_test(test_many_messages),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
