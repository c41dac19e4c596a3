/*
 * Merging with a linked list of symbols and a heap of candidate pairs. The plain way (scan all
 * pairs, merge the best, again) is quadratic, and a word can be as long as the prompt: a megabyte
 * of one letter would take hours. Entries of the heap are not removed when a neighbour changes;
 * they are checked when they come up.
 */

#include "encoder-svc/bpe.h"

#include <string.h>

#include <sodium.h>

typedef struct bpe_symbol {
    int32_t id; /* -1: absorbed by its left neighbour */
    int32_t prev, next;
} bpe_symbol;

/* Candidates as rank << 32 | position of the left symbol: the smallest number is the lowest rank,
 * and the leftmost of equals. */
typedef struct bpe_heap {
    uint64_t *v;
    size_t n;
} bpe_heap;

static void heap_push(bpe_heap *h, uint64_t x)
{
    size_t i = h->n++;

    while (i > 0 && h->v[(i - 1) / 2] > x) {
        h->v[i] = h->v[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h->v[i] = x;
}

static uint64_t heap_pop(bpe_heap *h)
{
    uint64_t top = h->v[0], x = h->v[--h->n];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= h->n)
            break;
        if (child + 1 < h->n && h->v[child + 1] < h->v[child])
            child++;
        if (h->v[child] >= x)
            break;
        h->v[i] = h->v[child];
        i = child;
    }
    h->v[i] = x;
    return top;
}

/* Finaliser of MurmurHash3 over the salted pair. */
static uint32_t slot_of(const lw_bpe *b, int32_t left, int32_t right)
{
    uint64_t x = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) ^ b->salt;

    x = (x ^ (x >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    x = (x ^ (x >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return (uint32_t)(x ^ (x >> 33)) & b->mask;
}

/* The slot of the pair, or the free one where it belongs. */
static lw_bpe_merge *find(const lw_bpe *b, int32_t left, int32_t right)
{
    uint32_t i = slot_of(b, left, right);

    while (b->slots[i].id >= 0 && (b->slots[i].left != left || b->slots[i].right != right))
        i = (i + 1) & b->mask;
    return &b->slots[i];
}

lw_status lw_bpe_init(lw_bpe *b, lw_arena *a, uint32_t max_merges, lw_err *err)
{
    size_t n_slots = 16;

    while (n_slots < (size_t)max_merges * 2)
        n_slots *= 2;
    memset(b, 0, sizeof *b);
    b->slots = lw_arena_calloc(a, n_slots, sizeof *b->slots, err);
    if (!b->slots)
        return LW_E_NOMEM;
    for (size_t i = 0; i < n_slots; i++)
        b->slots[i].id = -1;
    b->mask = (uint32_t)(n_slots - 1);
    randombytes_buf(&b->salt, sizeof b->salt);
    return LW_OK;
}

void lw_bpe_add(lw_bpe *b, int32_t left, int32_t right, int32_t rank, int32_t id)
{
    lw_bpe_merge *m = find(b, left, right);

    if (m->id < 0)
        b->n_merges++;
    *m = (lw_bpe_merge){ .left = left, .right = right, .rank = rank, .id = id };
}

static void offer(const lw_bpe *b, bpe_heap *h, const bpe_symbol *s, int32_t pos)
{
    const lw_bpe_merge *m;

    if (pos < 0 || s[pos].next < 0)
        return;
    m = find(b, s[pos].id, s[s[pos].next].id);
    if (m->id >= 0)
        heap_push(h, (uint64_t)m->rank << 32 | (uint32_t)pos);
}

lw_status lw_bpe_encode(const lw_bpe *b, const char *word, size_t n, lw_arena *scratch, lw_buf *ids,
                        lw_err *err)
{
    lw_arena_mark mark = lw_arena_mark_get(scratch);
    bpe_symbol *s = lw_arena_alloc(scratch, n * sizeof *s, err);
    /* One candidate a pair at the start, and at most two more for each of the n - 1 merges. */
    bpe_heap h = { .v = lw_arena_alloc(scratch, 3 * n * sizeof *h.v, err) };

    if (!s || !h.v) {
        lw_arena_release(scratch, mark);
        return LW_E_NOMEM;
    }
    for (size_t i = 0; i < n; i++)
        s[i] = (bpe_symbol){ .id = b->byte_ids[(uint8_t)word[i]],
                             .prev = (int32_t)i - 1,
                             .next = i + 1 < n ? (int32_t)i + 1 : -1 };
    for (size_t i = 0; i + 1 < n; i++)
        offer(b, &h, s, (int32_t)i);

    while (h.n > 0) {
        uint64_t top = heap_pop(&h);
        int32_t pos = (int32_t)(top & UINT32_MAX), next = s[pos].next;
        const lw_bpe_merge *m;

        if (s[pos].id < 0 || next < 0)
            continue;
        m = find(b, s[pos].id, s[next].id);
        if (m->id < 0 || (uint64_t)m->rank != top >> 32)
            continue; /* a neighbour changed since this was offered */
        s[pos].id = m->id;
        s[pos].next = s[next].next;
        s[next].id = -1;
        if (s[pos].next >= 0)
            s[s[pos].next].prev = pos;
        offer(b, &h, s, s[pos].prev);
        offer(b, &h, s, pos);
    }
    for (int32_t i = 0; i >= 0; i = s[i].next)
        lw_buf_put(ids, &s[i].id, sizeof s[i].id);
    lw_arena_release(scratch, mark);
    return LW_OK;
}

static int is_printable(int32_t c)
{
    return (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff);
}

int32_t lw_bpe_symbol_of_byte(uint8_t byte)
{
    int32_t n = 0;

    if (is_printable(byte))
        return byte;
    for (int32_t c = 0; c < byte; c++)
        n += !is_printable(c);
    return 0x100 + n;
}

int lw_bpe_byte_of_symbol(int32_t codepoint)
{
    int32_t n = 0x100;

    if (codepoint < 0x100)
        return codepoint >= 0 && is_printable(codepoint) ? codepoint : -1;
    for (int32_t c = 0; c < 0x100; c++)
        if (!is_printable(c) && n++ == codepoint)
            return c;
    return -1;
}
