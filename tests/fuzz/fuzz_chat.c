/*
 * Chat formatting of any fields. The input is cut at zero bytes: the first byte of a part chooses
 * the role of a message, the rest is its content; the same parts are fields of a request.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "encoder-svc/chat.h"

#define MAX_PARTS 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(lw_buf *out, size_t size)
{
    /* Each message adds less than 128 bytes around its content, and no content is written twice. */
    if (out->failed || out->len > size + (MAX_PARTS + 1) * 128)
        abort();
    lw_buf_clear(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const roles[] = { "system", "user", "assistant", "tool", "other" };
    lw_chat_message m[MAX_PARTS];
    char *text = malloc(size + 1), *part = text;
    size_t n = 0;
    lw_buf out;

    if (!text)
        abort();
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    while (n < MAX_PARTS && part < text + size) {
        uint8_t kind = (uint8_t)*part++;

        m[n++] = (lw_chat_message){ .role = roles[kind % 5],
                                    .content = kind & 0x80 ? NULL : part,
                                    .reasoning = kind & 0x40 ? part : NULL };
        part += strlen(part) + 1;
    }
    lw_buf_init(&out, 2 * size + 8192);
    for (int flags = 0; flags < 4; flags++) {
        lw_chat_render(
            m, n,
            &(lw_chat_options){ .add_generation_prompt = flags & 1, .no_thinking = flags & 2 },
            &out);
        check(&out, 2 * size);
    }
    lw_chat_format(&(lw_chat_prompt){ .prompt = n > 0 ? m[0].content : NULL,
                                      .system_prompt = n > 1 ? m[1].content : NULL,
                                      .thinking = n > 2 ? m[2].content : NULL,
                                      .assistant = n > 3 ? m[3].content : NULL,
                                      .think_block = size & 1 },
                   &out, NULL);
    check(&out, size);
    lw_buf_deinit(&out);
    free(text);
    return 0;
}
