#ifndef LW_COMMON_ARENA_H
#define LW_COMMON_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

/**
 * Memory of one lifetime. The project knows three: the *process* (weights, indices), the
 * *request* (text, embeddings, latents; reset when it ends) and *scratch* (marked and released
 * inside one step). Blocks are taken from the system on demand, kept across resets, and never
 * exceed the limit, so that a too large request is an error and not a killed process.
 * Thread rule: one thread at a time.
 */
typedef struct lw_arena_block lw_arena_block;

typedef struct lw_arena {
    lw_arena_block *first, *cur; /* chain of blocks; cur is the one being filled */
    size_t limit_bytes;          /* 0 = no limit */
    size_t reserved_bytes;       /* taken from the system */
    size_t used_bytes, peak_bytes;
    const char *name; /* for messages: "process", "request", "scratch" */
} lw_arena;

typedef struct lw_arena_mark {
    lw_arena_block *block;
    size_t block_used, used_bytes;
} lw_arena_mark;

/** Prepare an empty arena; allocates nothing yet. name must outlive it. limit_bytes 0: none. */
void lw_arena_init(lw_arena *a, const char *name, size_t limit_bytes);
/** Give all blocks back. Safe on a zeroed arena. */
void lw_arena_deinit(lw_arena *a);
/** Forget everything allocated; keeps the blocks for the next use. */
void lw_arena_reset(lw_arena *a);

/**
 * size_bytes of uninitialised memory aligned to 64 bytes, or NULL with err set to LW_E_NOMEM when
 * the limit or the system refuses. size_bytes 0 gives a valid unique pointer.
 */
LW_MUST_USE void *lw_arena_alloc(lw_arena *a, size_t size_bytes, lw_err *err);
/** As lw_arena_alloc, count * size_bytes with overflow check, zero filled. */
LW_MUST_USE void *lw_arena_calloc(lw_arena *a, size_t count, size_t size_bytes, lw_err *err);
/** Zero-terminated copy of n bytes. */
LW_MUST_USE char *lw_arena_strndup(lw_arena *a, const char *s, size_t n, lw_err *err);
/** Formatted string in the arena. */
LW_MUST_USE char *lw_arena_printf(lw_arena *a, lw_err *err, const char *fmt, ...) LW_PRINTF(3, 4);

/** Remember the fill level; lw_arena_release returns to it. Marks nest. */
lw_arena_mark lw_arena_mark_get(const lw_arena *a);
void lw_arena_release(lw_arena *a, lw_arena_mark m);

#endif
