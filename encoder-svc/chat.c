#include "encoder-svc/chat.h"

#include <string.h>

#include "common/err.h"

typedef struct span {
    const char *s;
    size_t n;
} span;

static span span_of(const char *s)
{
    return (span){ s ? s : "", s ? strlen(s) : 0 };
}

static span trim_front(span a)
{
    while (a.n > 0 && a.s[0] == '\n') {
        a.s++;
        a.n--;
    }
    return a;
}

static span trim_back(span a)
{
    while (a.n > 0 && a.s[a.n - 1] == '\n')
        a.n--;
    return a;
}

/* What stands before the first / after the last `mark`; the whole when there is none. */
static span before_first(span a, const char *mark)
{
    const char *at = memmem(a.s, a.n, mark, strlen(mark));

    return at ? (span){ a.s, (size_t)(at - a.s) } : a;
}

static span after_last(span a, const char *mark)
{
    const size_t n_mark = strlen(mark);
    const char *at;

    while ((at = memmem(a.s, a.n, mark, n_mark)) != NULL)
        a = (span){ at + n_mark, a.n - (size_t)(at - a.s) - n_mark };
    return a;
}

static bool is_role(const lw_chat_message *m, const char *role)
{
    return m->role && strcmp(m->role, role) == 0;
}

static bool starts_with(span a, const char *s)
{
    return a.n >= strlen(s) && memcmp(a.s, s, strlen(s)) == 0;
}

static bool ends_with(span a, const char *s)
{
    return a.n >= strlen(s) && memcmp(a.s + a.n - strlen(s), s, strlen(s)) == 0;
}

/* Whether a message is by a person; a tool's answer is a user message too. */
static bool is_query(const lw_chat_message *m)
{
    span c = span_of(m->content);

    return is_role(m, "user") && m->content &&
           !(starts_with(c, "<tool_response>") && ends_with(c, "</tool_response>"));
}

/* Index of the last message by a person; n - 1 when there is none, so that no assistant message
 * comes after it. */
static size_t last_query(const lw_chat_message *m, size_t n)
{
    for (size_t i = n; i-- > 0;)
        if (is_query(&m[i]))
            return i;
    return n - 1;
}

static void put(lw_buf *out, span a)
{
    lw_buf_put(out, a.s, a.n);
}

static void open_message(lw_buf *out, const char *role)
{
    lw_buf_puts(out, "<|im_start|>");
    lw_buf_puts(out, role);
    lw_buf_puts(out, "\n");
}

static void put_think_block(lw_buf *out, span thinking)
{
    lw_buf_puts(out, "<think>\n");
    put(out, thinking);
    lw_buf_puts(out, "\n</think>\n\n");
}

static void render_assistant(const lw_chat_message *m, bool after_query, bool is_last, lw_buf *out)
{
    span content = span_of(m->content), reasoning = span_of(m->reasoning);

    if (!m->reasoning && memmem(content.s, content.n, "</think>", strlen("</think>"))) {
        reasoning = trim_back(before_first(content, "</think>"));
        reasoning = trim_front(after_last(reasoning, "<think>"));
        content = trim_front(after_last(content, "</think>"));
    }
    open_message(out, "assistant");
    if (after_query && (is_last || reasoning.n > 0)) {
        put_think_block(out, trim_back(trim_front(reasoning)));
        content = trim_front(content);
    }
    put(out, content);
    lw_buf_puts(out, "<|im_end|>\n");
}

/* Neighbouring tool answers share one user message. */
static void render_tool(const lw_chat_message *m, size_t i, size_t n, lw_buf *out)
{
    if (i == 0 || !is_role(&m[i - 1], "tool"))
        lw_buf_puts(out, "<|im_start|>user");
    lw_buf_puts(out, "\n<tool_response>\n");
    put(out, span_of(m[i].content));
    lw_buf_puts(out, "\n</tool_response>");
    if (i + 1 == n || !is_role(&m[i + 1], "tool"))
        lw_buf_puts(out, "<|im_end|>\n");
}

/* Messages before the generation prompt; `query`: index of the last one by a person. */
static void render_messages(const lw_chat_message *messages, size_t n, size_t query, lw_buf *out)
{
    for (size_t i = 0; i < n; i++) {
        const lw_chat_message *m = &messages[i];

        if (is_role(m, "user") || is_role(m, "system")) {
            open_message(out, m->role);
            put(out, span_of(m->content));
            lw_buf_puts(out, "<|im_end|>\n");
        } else if (is_role(m, "assistant")) {
            render_assistant(m, i > query, i + 1 == n, out);
        } else if (is_role(m, "tool")) {
            render_tool(messages, i, n, out);
        }
    }
}

void lw_chat_render(const lw_chat_message *messages, size_t n, const lw_chat_options *options,
                    lw_buf *out)
{
    render_messages(messages, n, n > 0 ? last_query(messages, n) : 0, out);
    if (options->add_generation_prompt) {
        open_message(out, "assistant");
        if (options->no_thinking)
            put_think_block(out, span_of(NULL));
    }
}

/*
 * The turns are rendered as a part of the list that goes on with the prompt: the prompt is the last
 * query, so no turn is the last message or comes after it. Only a prompt that looks like a tool's
 * answer is none; then the last query is one of the turns.
 */
static void render_turns(const lw_chat_prompt *p, lw_buf *out)
{
    const lw_chat_message prompt = { .role = "user", .content = p->prompt ? p->prompt : "" };
    const size_t n = p->n_turns;
    size_t query = n;

    if (n > 0 && !is_query(&prompt)) {
        while (query > 0 && !is_query(&p->turns[query - 1]))
            query--;
        /* With the prompt the list has n + 1 messages, so "none" is n. */
        query = query > 0 ? query - 1 : n;
    }
    for (size_t i = 0; i < n; i++) {
        const lw_chat_message *m = &p->turns[i];

        if (is_role(m, "assistant"))
            render_assistant(m, i > query, false, out);
        else if (is_role(m, "tool"))
            render_tool(p->turns, i, n, out);
        else
            render_messages(m, 1, 0, out);
    }
}

void lw_chat_format(const lw_chat_prompt *p, lw_buf *out, lw_chat_spans *ret_spans)
{
    const lw_chat_message system = { .role = "system", .content = p->system_prompt };
    const span thinking = span_of(p->thinking), assistant = span_of(p->assistant);
    const size_t begin = out->len;
    lw_chat_spans at;

    if (p->system_prompt && *p->system_prompt)
        render_messages(&system, 1, 0, out);
    render_turns(p, out);
    at.turn = out->len - begin;
    open_message(out, "user");
    at.content = out->len - begin;
    put(out, span_of(p->prompt));
    at.content_end = out->len - begin;
    lw_buf_puts(out, "<|im_end|>\n");
    open_message(out, "assistant");
    if (thinking.n > 0 || p->think_block)
        put_think_block(out, thinking);
    if (assistant.n > 0) {
        put(out, assistant);
        lw_buf_puts(out, "<|im_end|>");
    }
    if (ret_spans)
        *ret_spans = at;
}
