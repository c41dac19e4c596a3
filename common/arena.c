/*
 * Arenas: a chain of blocks that is filled front to back.
 *
 *     first -> [full] -> [full] -> cur [part full] -> [empty] -> [empty]
 *
 * Blocks behind `cur` are always empty, whatever their `used` field says, and only the first block
 * can be both current and empty. Both rules together let a mark be two numbers and let blocks that
 * are too small for a new request be given back when the limit is near.
 */

#include "common/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/size.h"

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif

/* Under AddressSanitizer what is not allocated is poisoned, and a gap between two allocations
 * makes a run over the end of one visible. */
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define ARENA_POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define ARENA_UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#define ARENA_GAP            64
#else
#define ARENA_POISON(p, n)   ((void)(p), (void)(n))
#define ARENA_UNPOISON(p, n) ((void)(p), (void)(n))
#define ARENA_GAP            0
#endif

#define ARENA_ALIGN     64
#define MIN_BLOCK_BYTES ((size_t)64 * 1024)
#define MAX_STEP_BYTES  ((size_t)16 * 1024 * 1024)
#define HUGE_PAGE_BYTES ((size_t)2 * 1024 * 1024)

struct lw_arena_block {
    lw_arena_block *next;
    size_t size, used;
    _Alignas(ARENA_ALIGN) uint8_t data[];
};

static size_t free_bytes(const lw_arena_block *b)
{
    return b->size - b->used;
}

static void block_free(lw_arena *a, lw_arena_block *b)
{
    a->reserved_bytes -= b->size;
    ARENA_UNPOISON(b->data, b->size);
    free(b);
}

static lw_arena_block *block_new(lw_arena *a, size_t size_bytes)
{
    /* Large blocks hold weights and activations: whole huge pages save most page faults and TLB
     * misses. It is advice; a system that ignores it loses nothing. */
    bool huge = size_bytes >= 4 * HUGE_PAGE_BYTES;
    size_t total = size_bytes, header = sizeof(lw_arena_block);
    lw_arena_block *b;

    if (!lw_size_add(total, header, &total) ||
        (total = lw_size_align(total, huge ? HUGE_PAGE_BYTES : ARENA_ALIGN)) == SIZE_MAX)
        return NULL;
    b = aligned_alloc(huge ? HUGE_PAGE_BYTES : ARENA_ALIGN, total);
    if (b == NULL)
        return NULL;
    if (huge)
        (void)madvise(b, total, MADV_HUGEPAGE);
    *b = (lw_arena_block){ .size = size_bytes };
    a->reserved_bytes += size_bytes;
    ARENA_POISON(b->data, b->size);
    return b;
}

void lw_arena_init(lw_arena *a, const char *name, size_t limit_bytes)
{
    *a = (lw_arena){ .name = name, .limit_bytes = limit_bytes };
}

void lw_arena_deinit(lw_arena *a)
{
    for (lw_arena_block *b = a->first, *next; b; b = next) {
        next = b->next;
        block_free(a, b);
    }
    *a = (lw_arena){ .name = a->name, .limit_bytes = a->limit_bytes };
}

void lw_arena_reset(lw_arena *a)
{
    lw_arena_release(a, (lw_arena_mark){ 0 });
}

lw_arena_mark lw_arena_mark_get(const lw_arena *a)
{
    /* An empty first block may be replaced by a larger one, so a mark at the very start names no
     * block at all. */
    if (a->cur == NULL || a->cur->used == 0)
        return (lw_arena_mark){ 0 };
    return (
        lw_arena_mark){ .block = a->cur, .block_used = a->cur->used, .used_bytes = a->used_bytes };
}

void lw_arena_release(lw_arena *a, lw_arena_mark m)
{
    a->cur = m.block ? m.block : a->first;
    a->used_bytes = m.used_bytes;
    if (a->cur == NULL)
        return;
    a->cur->used = m.block_used;
    ARENA_POISON(a->cur->data + a->cur->used, free_bytes(a->cur));
    for (lw_arena_block *b = a->cur->next; b; b = b->next)
        ARENA_POISON(b->data, b->size);
}

/* The link behind the last block in use: blocks from here on are empty. */
static lw_arena_block **empty_link(lw_arena *a)
{
    return a->cur == NULL || a->cur->used == 0 ? &a->first : &a->cur->next;
}

static void free_empty_blocks(lw_arena *a)
{
    lw_arena_block **link = empty_link(a), *b = *link;

    if (link == &a->first)
        a->cur = NULL;
    *link = NULL;
    for (lw_arena_block *next; b; b = next) {
        next = b->next;
        block_free(a, b);
    }
}

/* An empty block of at least need bytes, unlinked from the chain, or NULL. */
static lw_arena_block *take_empty_block(lw_arena *a, size_t need)
{
    for (lw_arena_block **link = empty_link(a); *link; link = &(*link)->next) {
        lw_arena_block *b = *link;

        if (b->size >= need) {
            *link = b->next;
            return b;
        }
    }
    return NULL;
}

static lw_arena_block *grow(lw_arena *a, size_t need)
{
    size_t step = a->reserved_bytes / 2; /* few blocks for many small allocations */
    lw_arena_block *b;

    step = step < MIN_BLOCK_BYTES ? MIN_BLOCK_BYTES : step > MAX_STEP_BYTES ? MAX_STEP_BYTES : step;
    if (a->limit_bytes) {
        if (need > a->limit_bytes - a->reserved_bytes)
            free_empty_blocks(a);
        if (need > a->limit_bytes - a->reserved_bytes)
            return NULL;
        if (step > a->limit_bytes - a->reserved_bytes)
            step = a->limit_bytes - a->reserved_bytes;
    }
    b = block_new(a, need > step ? need : step);
    return b ? b : block_new(a, need);
}

void *lw_arena_alloc(lw_arena *a, size_t size_bytes, lw_err *err)
{
    size_t need = lw_size_align(size_bytes ? size_bytes : 1, ARENA_ALIGN);
    lw_arena_block *b = a->cur;
    uint8_t *p;

    if (!lw_size_add(need, ARENA_GAP, &need) || need > PTRDIFF_MAX)
        goto refuse; /* no object can be that large */
    if (b == NULL || free_bytes(b) < need) {
        lw_arena_block **link;

        b = take_empty_block(a, need);
        if (b == NULL)
            b = grow(a, need);
        if (b == NULL)
            goto refuse;
        link = empty_link(a);
        b->next = *link;
        b->used = 0;
        *link = b;
        a->cur = b;
    }
    p = b->data + b->used;
    b->used += need;
    a->used_bytes += need;
    if (a->used_bytes > a->peak_bytes)
        a->peak_bytes = a->used_bytes;
    ARENA_UNPOISON(p, size_bytes ? size_bytes : 1);
    return p;
refuse:
    if (a->limit_bytes)
        lw_fail(err, LW_E_NOMEM,
                "%s memory: %.1f MiB more do not fit in the limit of %.1f MiB (%.1f MiB in use)",
                a->name ? a->name : "arena", (double)size_bytes / 1048576,
                (double)a->limit_bytes / 1048576, (double)a->used_bytes / 1048576);
    else
        lw_fail(err, LW_E_NOMEM, "%s memory: the system has no %.1f MiB more (%.1f MiB in use)",
                a->name ? a->name : "arena", (double)size_bytes / 1048576,
                (double)a->used_bytes / 1048576);
    return NULL;
}

void *lw_arena_calloc(lw_arena *a, size_t count, size_t size_bytes, lw_err *err)
{
    size_t total;
    void *p;

    if (!lw_size_mul(count, size_bytes, &total)) {
        lw_fail(err, LW_E_NOMEM, "%s memory: %zu items of %zu bytes are more than can be addressed",
                a->name ? a->name : "arena", count, size_bytes);
        return NULL;
    }
    p = lw_arena_alloc(a, total, err);
    return p ? memset(p, 0, total) : NULL;
}

char *lw_arena_strndup(lw_arena *a, const char *s, size_t n, lw_err *err)
{
    char *p;

    if (n == SIZE_MAX) {
        lw_fail(err, LW_E_NOMEM, "%s memory: text too long", a->name ? a->name : "arena");
        return NULL;
    }
    p = lw_arena_alloc(a, n + 1, err);
    if (p == NULL)
        return NULL;
    if (n)
        memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

char *lw_arena_printf(lw_arena *a, lw_err *err, const char *fmt, ...)
{
    va_list ap;
    char *p;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        lw_fail(err, LW_E_INTERNAL, "cannot format a text");
        return NULL;
    }
    p = lw_arena_alloc(a, (size_t)n + 1, err);
    if (p == NULL)
        return NULL;
    va_start(ap, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return p;
}
