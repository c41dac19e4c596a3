#ifndef LW_ENCODER_TOKENIZER_H
#define LW_ENCODER_TOKENIZER_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"

/**
 * The byte-level BPE tokenizer of Qwen3, with the vocabulary of the model's own files. Text goes
 * through: added tokens cut out of the raw text (leftmost, longest), NFC, the published splitting
 * pattern, bytes, merges. Source: transformers' tokenization_qwen2.py and the published
 * tokenizer.json (docs/numerics.md, "From prompt to embedding").
 *
 * Thread rule: read-only after loading; any number of threads may encode at once.
 */
typedef struct lw_tokenizer lw_tokenizer;

#define LW_TOKENIZER_MAX_IDS         (1 << 20) /* vocabulary and added tokens; also merges */
#define LW_TOKENIZER_MAX_TOKEN_BYTES 1024      /* of one token, as written in the file */
#define LW_TOKENIZER_MAX_ADDED       4096      /* added tokens */
#define LW_TOKENIZER_MAX_TEXT_BYTES  (4u * 1024 * 1024) /* of a text to encode */

/** The splitting pattern as published; a tokenizer.json with another one is refused. */
extern const char LW_TOKENIZER_PATTERN[];

/**
 * Token ids of a text; memory of the arena that was given. begins[i] is the byte of the text where
 * token i begins; begins[n] is the text's length. They never fall. Where NFC changed the text they
 * are exact at ASCII characters, and between two of them as near as bytes can be told.
 */
typedef struct lw_token_ids {
    int32_t *ids;
    uint32_t *begins; /* [n + 1] */
    size_t n;
} lw_token_ids;

/**
 * Read a tokenizer folder: `vocab.json` + `merges.txt` with the added tokens of
 * `tokenizer_config.json` and `added_tokens.json`, or else `tokenizer.json` (which is five times
 * slower to read). Everything in the files is checked. Errors: LW_E_NOT_FOUND (no such files),
 * LW_E_FORMAT (damaged, naming file, place and what is wrong), LW_E_UNIMPLEMENTED (another kind of
 * tokenizer), LW_E_TOO_LARGE, LW_E_IO, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_tokenizer_load(const char *folder, lw_tokenizer **ret, lw_err *err);
/** NULL-safe; sets *t to NULL. */
void lw_tokenizer_destroy(lw_tokenizer **t);

/** The parsed files that a tokenizer is made from: `whole`, or `vocab` and `merges`. All borrowed.
 */
typedef struct lw_tokenizer_source {
    const char *label;  /* folder, for messages */
    json_t *whole;      /* tokenizer.json; when set, the rest is ignored */
    json_t *vocab;      /* vocab.json */
    const char *merges; /* merges.txt */
    size_t merges_len;
    json_t *config; /* tokenizer_config.json, or NULL */
    json_t *added;  /* added_tokens.json, or NULL */
} lw_tokenizer_source;

/** Make a tokenizer from parsed files; what lw_tokenizer_load does after reading. */
LW_MUST_USE lw_status lw_tokenizer_build(const lw_tokenizer_source *src, lw_tokenizer **ret,
                                         lw_err *err);

/**
 * Ids of a text of n bytes (which may hold zeros); nothing is put before or after it. Errors:
 * LW_E_INVALID (not UTF-8; the message names the byte), LW_E_TOO_LARGE, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_tokenizer_encode(const lw_tokenizer *t, const char *text, size_t n,
                                          lw_arena *a, lw_token_ids *ret, lw_err *err);

/** The bytes that a token stands for, or NULL for an id that is not in the files. A token may be a
 * part of a character. Concatenated over the ids of a text this gives its NFC form. */
const char *lw_tokenizer_token(const lw_tokenizer *t, int32_t id, size_t *ret_len);
/** Id of an added token such as "<|im_end|>", or -1. */
int32_t lw_tokenizer_added_id(const lw_tokenizer *t, const char *text);
/** Largest id of any token, plus one. */
int32_t lw_tokenizer_n_ids(const lw_tokenizer *t);
/** BLAKE2b-256 over vocabulary, merges and added tokens, 64 hex digits: equal digests mean equal
 * ids for every text. It does not depend on which of the files they came from. */
const char *lw_tokenizer_digest(const lw_tokenizer *t);

#endif
