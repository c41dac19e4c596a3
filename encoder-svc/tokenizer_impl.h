#ifndef LW_ENCODER_TOKENIZER_IMPL_H
#define LW_ENCODER_TOKENIZER_IMPL_H

/* What tokenizer.c (using) and tokenizer_build.c (making) share; nobody else includes it. */

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "encoder-svc/bpe.h"
#include "encoder-svc/tokenizer.h"

typedef struct lw_token {
    const char *text; /* bytes; NULL = no such id */
    uint32_t len;
} lw_token;

typedef struct lw_added_token {
    const char *text;
    uint32_t len;
    int32_t id;
} lw_added_token;

struct lw_tokenizer {
    lw_arena arena; /* everything below */
    lw_bpe bpe;
    lw_token *tokens; /* [n_ids] */
    int32_t n_ids;
    lw_added_token *added; /* by first byte, then longest first */
    int32_t n_added;
    int32_t
        added_start[257]; /* added tokens of first byte c: [added_start[c], added_start[c + 1]) */
    pcre2_code *pattern;
    pcre2_match_context *limits;
    char digest[65];
};

/** Compile the splitting pattern; tokenizer.c. */
LW_MUST_USE lw_status lw_tokenizer_compile(lw_tokenizer *t, lw_err *err);

#endif
