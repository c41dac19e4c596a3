/*
 * Prompt weighting and conversations of anybody. The first byte chooses the parser; the rest is cut
 * at a zero byte, as on the wire, and is not always UTF-8.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"

#include "encoder-svc/messages.h"
#include "encoder-svc/weighting.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was read, written so that nothing in it is markup, must be read as itself. */
static void check_again(const lw_weighted_text *w, lw_arena *a)
{
    lw_weighted_text again;
    lw_buf escaped;
    lw_err err;

    lw_buf_init(&escaped, 2 * w->len + 16);
    for (size_t i = 0; i < w->len; i++) {
        if (strchr("()\\", w->text[i]))
            lw_buf_putc(&escaped, '\\');
        lw_buf_putc(&escaped, w->text[i]);
    }
    if (lw_weighting_parse(lw_buf_cstr(&escaped), a, &again, &err) != LW_OK ||
        again.len != w->len || memcmp(again.text, w->text, w->len) != 0)
        abort();
    for (size_t i = 0; i < again.len; i++)
        if (again.weights[i] != 1)
            abort();
    lw_buf_deinit(&escaped);
}

static void try_weighting(const char *text, lw_arena *a)
{
    lw_weighted_text w;
    lw_err err;

    if (lw_weighting_parse(text, a, &w, &err) != LW_OK) {
        if (!err.text[0])
            abort();
        return;
    }
    if (w.len > strlen(text) || strlen(w.text) != w.len)
        abort();
    for (size_t i = 0; i < w.len; i++)
        if (!(w.weights[i] >= 0 && w.weights[i] <= 1e17f)) /* 10 to the 16th and rounding */
            abort();
    check_again(&w, a);
}

static void try_messages(const char *text, lw_arena *a)
{
    lw_chat_message *m;
    size_t n;
    lw_err err;
    lw_buf out;

    if (lw_messages_parse(text, a, &m, &n, &err) != LW_OK) {
        if (!err.text[0])
            abort();
        return;
    }
    lw_buf_init(&out, 4 * strlen(text) + 128 * (n + 1));
    lw_chat_format(&(lw_chat_prompt){ .prompt = "x", .turns = m, .n_turns = n }, &out, NULL);
    if (out.failed)
        abort();
    lw_buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lw_arena arena;
    char *text;

    if (size == 0)
        return 0;
    text = malloc(size);
    if (!text)
        abort();
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    lw_arena_init(&arena, "text", 0);
    if (data[0] == 'w')
        try_weighting(text, &arena);
    else
        try_messages(text, &arena);
    lw_arena_deinit(&arena);
    free(text);
    return 0;
}
