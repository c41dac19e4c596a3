#ifndef LW_ENCODER_CHAT_H
#define LW_ENCODER_CHAT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

/*
 * From what a user says to the text that is tokenized. Nothing is trimmed or escaped: user text
 * that holds "<|im_end|>" or "<think>" becomes those tokens, as in the reference pipeline.
 */

/** One message of a conversation. Strings are borrowed. */
typedef struct lw_chat_message {
    const char *role;      /* "system", "user", "assistant" or "tool"; any other renders nothing */
    const char *content;   /* NULL (in JSON: not a string) counts as empty */
    const char *reasoning; /* reasoning_content, or NULL: look for <think> in the content */
} lw_chat_message;

/** Zero is: the plain conversation. */
typedef struct lw_chat_options {
    bool add_generation_prompt; /* end with "<|im_start|>assistant\n" */
    bool no_thinking; /* and then an empty think block (the template's enable_thinking=False,
                         which is the one that *adds* something) */
} lw_chat_options;

/**
 * Append the rendering of a message list by the published Qwen3 template (without tools). Failure
 * is the buffer's sticky state. Source: chat_template in the shipped tokenizer_config.json.
 */
void lw_chat_render(const lw_chat_message *messages, size_t n, const lw_chat_options *options,
                    lw_buf *out);

/** What a request can say. NULL and "" are the same everywhere. */
typedef struct lw_chat_prompt {
    const char *prompt;
    const char *system_prompt;
    const char *thinking;         /* inside the think block */
    const char *assistant;        /* start of the answer; closes the message */
    bool think_block;             /* write a think block even when `thinking` is empty */
    const lw_chat_message *turns; /* earlier turns of the conversation; borrowed */
    size_t n_turns;
} lw_chat_prompt;

/** Where the parts of a formatted prompt lie: bytes of what was appended. */
typedef struct lw_chat_spans {
    size_t turn; /* the user's last message with its opening tag; before it are system
                    block and earlier turns */
    size_t content, content_end; /* the prompt itself */
} lw_chat_spans;

/**
 * Append the text for one request. With only `prompt` it is the reference pipeline's string:
 * "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n". The rest is an extension:
 *
 *     [<|im_start|>system\n{system_prompt}<|im_end|>\n]
 *     [{turns, as lw_chat_render has them}]
 *     <|im_start|>user\n{prompt}<|im_end|>\n
 *     <|im_start|>assistant\n
 *     [<think>\n{thinking}\n</think>\n\n]
 *     [{assistant}<|im_end|>]
 *
 * ret_spans may be NULL; it means nothing when the buffer has failed.
 */
void lw_chat_format(const lw_chat_prompt *p, lw_buf *out, lw_chat_spans *ret_spans);

#endif
