#ifndef LW_ENCODER_MESSAGES_H
#define LW_ENCODER_MESSAGES_H

#include "common/arena.h"

#include "encoder-svc/chat.h"

#define LW_MESSAGES_MAX 256

/**
 * The earlier turns of a conversation: a JSON array of {"role", "content"}, role one of system,
 * user, assistant, tool; of an assistant also "reasoning_content" or "thinking" (the same thing),
 * which may be null. Other keys are refused, because what they say would be lost. Everything is
 * copied into `a`. Errors: LW_E_INVALID naming the message ("messages[2]") and what is wrong;
 * LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_messages_parse(const char *json, lw_arena *a, lw_chat_message **ret,
                                        size_t *ret_n, lw_err *err);

#endif
