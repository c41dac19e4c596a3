#ifndef LW_ORCHESTRATE_EMBEDDING_CACHE_H
#define LW_ORCHESTRATE_EMBEDDING_CACHE_H

#include "orchestrate/hub_keep.h"

/*
 * What encoders made of texts, so that the same prompt is not encoded twice. The key covers all
 * that the rows depend on: the encoder's weights, tokenizer, back end and precision, every text
 * field, the layers, the token limit and what is done to the rows. Bounded in bytes; the least
 * recently used go first. Thread rule: one thread.
 */

/** What an encoder made of one text. */
typedef struct lw_embeds {
    lw_held rows;                             /* [tokens, dim] */
    lw_held ids;                              /* [tokens] int32; may be absent */
    uint64_t n_tokens, n_text_tokens, n_rows; /* the last two 0: not said */
    bool truncated, reduced;
    double row_loss; /* when reduced */
    char text_digest[65], cut_text[161];
    lw_kept_stage stage;
} lw_embeds;

void lw_embeds_drop(lw_embeds *e);
/** References to the same tensors; dst is overwritten. */
void lw_embeds_copy(lw_embeds *dst, const lw_embeds *src);

typedef struct lw_embedding_key {
    uint8_t digest[32];
} lw_embedding_key;

/** The key of what the encoder `c` makes of `task` (a TASK of op encode). */
lw_embedding_key lw_embedding_key_of(const lw_contract *c, const lw_msg *task);

typedef struct lw_embedding_cache lw_embedding_cache;

typedef struct lw_embedding_cache_stats {
    size_t bytes, limit_bytes, entries;
    uint64_t hits;
    uint64_t misses; /* texts that had to be encoded, that is, calls of put */
} lw_embedding_cache_stats;

/** limit_bytes 0: a cache that keeps nothing. Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_embedding_cache_create(size_t limit_bytes, lw_embedding_cache **ret,
                                                lw_err *err);
/** NULL-safe. */
void lw_embedding_cache_destroy(lw_embedding_cache **c);
/** On a hit *ret holds references (lw_embeds_drop) and `stage.cached` is set. */
bool lw_embedding_cache_get(lw_embedding_cache *c, const lw_embedding_key *key, lw_embeds *ret);
/** Keep references. What does not fit (too large, no memory) is not kept; that is no error. */
void lw_embedding_cache_put(lw_embedding_cache *c, const lw_embedding_key *key, const lw_embeds *e);
void lw_embedding_cache_stats_get(const lw_embedding_cache *c, lw_embedding_cache_stats *ret);

#endif
