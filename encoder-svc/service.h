#ifndef LW_ENCODER_SERVICE_H
#define LW_ENCODER_SERVICE_H

#include "proto/service.h"

#define LW_ENCODER_DEFAULT_TOKENS 512  /* max_sequence_length of the reference pipeline */
#define LW_ENCODER_MAX_TOKENS     4096 /* largest max_tokens of a request */
#define LW_ENCODER_DEFAULT_LAYER  (-2) /* hidden_states[-2] */

/** The encoder service: op encode, from a prompt to rows of embeddings, and op tokenize, from a
 * prompt to its tokens. */
extern const lw_service lw_encoder_service;

#endif
