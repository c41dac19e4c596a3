#ifndef LW_ENCODER_BPE_H
#define LW_ENCODER_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/buf.h"

/*
 * Byte-pair merging of one word. Ids come from the vocabulary of the model; a word starts as one id
 * a byte, and neighbours are merged in order of rank until no pair is in the table.
 */

/** One row of the merge table; id < 0 is a free slot. */
typedef struct lw_bpe_merge {
    int32_t left, right; /* ids of the pair */
    int32_t rank;        /* position in the list of merges; lower goes first */
    int32_t id;          /* what the pair becomes */
} lw_bpe_merge;

/** Merge table (open addressing). Read-only after loading, so any number of threads may use it. */
typedef struct lw_bpe {
    int32_t byte_ids[256]; /* id of the symbol of each byte */
    lw_bpe_merge *slots;
    uint32_t mask; /* number of slots - 1 */
    uint64_t salt; /* random, so that no file can be made whose pairs collide */
    uint32_t n_merges;
} lw_bpe;

/** Empty table with room for max_merges pairs, in `a`. byte_ids are the caller's to fill. Errors:
 * LW_E_NOMEM. */
LW_MUST_USE lw_status lw_bpe_init(lw_bpe *b, lw_arena *a, uint32_t max_merges, lw_err *err);

/** Add a pair; ids are not negative. A pair added again takes the later rank, as in the reference
 * library. The caller adds at most max_merges pairs. */
void lw_bpe_add(lw_bpe *b, int32_t left, int32_t right, int32_t rank, int32_t id);

/**
 * Append the ids (int32) of one word of n >= 1 bytes (below 2^30) to `ids`. Takes about n log n
 * steps, whatever the word. `scratch` is marked and released. Errors: LW_E_NOMEM; a full `ids` is
 * its own sticky state.
 */
LW_MUST_USE lw_status lw_bpe_encode(const lw_bpe *b, const char *word, size_t n, lw_arena *scratch,
                                    lw_buf *ids, lw_err *err);

/**
 * Code point (0 to 323) that stands for a byte in vocabulary and merges: printable bytes stand for
 * themselves, the other 68 follow from U+0100 in order. Source: GPT-2's bytes_to_unicode.
 */
int32_t lw_bpe_symbol_of_byte(uint8_t byte);
/** The byte of a symbol, or -1. */
int lw_bpe_byte_of_symbol(int32_t codepoint);

#endif
