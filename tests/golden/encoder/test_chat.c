/* The chat template against 100 message lists that transformers rendered, and the richer format. */

#include "encoder-svc/chat.h"

#include "tests/golden/encoder/util.h"

#define MAX_MESSAGES 32

static void test_template_cases(void **state)
{
    json_t *root = load_json(data_path("spec/chat_template.json"));
    const json_t *cases = json_object_get(root, "cases"), *c;
    size_t i;

    (void)state;
    assert_int_equal(json_array_size(cases), 100);
    json_array_foreach(cases, i, c)
    {
        const json_t *list = json_object_get(c, "messages"), *m;
        const char *expected = json_string_value(json_object_get(c, "expected"));
        lw_chat_message messages[MAX_MESSAGES];
        lw_chat_options options = {
            .add_generation_prompt = json_is_true(json_object_get(c, "add_generation_prompt")),
            /* null is "not given", which is not false. */
            .no_thinking = json_is_false(json_object_get(c, "enable_thinking")),
        };
        lw_buf out;
        size_t k;

        assert_true(json_array_size(list) <= MAX_MESSAGES);
        json_array_foreach(list, k, m) messages[k] = (lw_chat_message){
            .role = json_string_value(json_object_get(m, "role")),
            .content = json_string_value(json_object_get(m, "content")),
            .reasoning = json_string_value(json_object_get(m, "reasoning_content")),
        };
        lw_buf_init(&out, 1 << 20);
        lw_chat_render(messages, json_array_size(list), &options, &out);
        assert_false(out.failed);
        if (strcmp(lw_buf_cstr(&out), expected) != 0)
            fail_msg("case %zu:\nexpected %s\ngot      %s", i, expected, lw_buf_cstr(&out));
        lw_buf_deinit(&out);
    }
    json_decref(root);
}

/* Roles and tool answers are not among the 100 cases; the expected texts follow from the template.
 */
static void test_template_tools(void **state)
{
    const lw_chat_message m[] = {
        { .role = "user", .content = "u" },           { .role = "assistant", .content = "a" },
        { .role = "tool", .content = "t1" },          { .role = "tool", .content = "t2" },
        { .role = "stranger", .content = "ignored" }, { .role = "assistant", .content = NULL },
    };
    lw_buf out;

    (void)state;
    lw_buf_init(&out, 4096);
    lw_chat_render(m, 6, &(lw_chat_options){ 0 }, &out);
    assert_string_equal(lw_buf_cstr(&out),
                        "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
                        "<|im_start|>user\n<tool_response>\nt1\n</tool_response>\n"
                        "<tool_response>\nt2\n</tool_response><|im_end|>\n"
                        "<|im_start|>assistant\n<think>\n\n</think>\n\n<|im_end|>\n");
    lw_buf_deinit(&out);
}

static void check_format(const lw_chat_prompt *p, const char *expected)
{
    lw_buf out;

    lw_buf_init(&out, 4096);
    lw_chat_format(p, &out, NULL);
    assert_false(out.failed);
    assert_string_equal(lw_buf_cstr(&out), expected);
    lw_buf_deinit(&out);
}

static void test_format(void **state)
{
    (void)state;
    check_format(&(lw_chat_prompt){ .prompt = " a cat\n" },
                 "<|im_start|>user\n a cat\n<|im_end|>\n<|im_start|>assistant\n");
    check_format(&(lw_chat_prompt){ 0 }, "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n");
    check_format(&(lw_chat_prompt){ .prompt = "", .system_prompt = "", .thinking = "" },
                 "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n");
    check_format(&(lw_chat_prompt){ .prompt = "p", .think_block = true },
                 "<|im_start|>user\np<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
    check_format(
        &(lw_chat_prompt){ .prompt = "p", .thinking = "\nt\n" },
        "<|im_start|>user\np<|im_end|>\n<|im_start|>assistant\n<think>\n\nt\n\n</think>\n\n");
    check_format(&(lw_chat_prompt){ .prompt = "p", .assistant = "a" },
                 "<|im_start|>user\np<|im_end|>\n<|im_start|>assistant\na<|im_end|>");
    check_format(&(lw_chat_prompt){ .system_prompt = "You are a painter.",
                                    .prompt = "a cat",
                                    .thinking = "soft light",
                                    .assistant = "A fluffy cat." },
                 "<|im_start|>system\nYou are a painter.<|im_end|>\n<|im_start|>user\na cat"
                 "<|im_end|>\n<|im_start|>assistant\n<think>\nsoft light\n</think>\n\n"
                 "A fluffy cat.<|im_end|>");
}

/* A full buffer is reported, never overrun. */
static void test_format_too_long(void **state)
{
    lw_buf out;

    (void)state;
    lw_buf_init(&out, 40);
    lw_chat_format(&(lw_chat_prompt){ .prompt = "somewhat longer than the space left" }, &out,
                   NULL);
    assert_true(out.failed);
    lw_buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_template_cases),
        cmocka_unit_test(test_template_tools),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_format_too_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
