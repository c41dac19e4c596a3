/*
 * The gate before msgpack-c. A msgpack array or map header of five bytes may claim 2^32 elements,
 * and msgpack-c reserves memory for them before it reads one; it also accepts duplicate keys and
 * trailing bytes. This walk allocates nothing, touches every byte at most twice, and lets through
 * only what cannot hurt: bounded depth, bounded item count, every length within the frame.
 */
#include <string.h>

#include "common/utf8.h"

#include "proto/packet.h"

typedef enum kind { NIL, BOOL, INT, FLOAT, STR, BIN, EXT, ARRAY, MAP } kind;

/* One value as its head describes it. For ARRAY and MAP, n counts elements or pairs. */
typedef struct head {
    kind kind;
    uint32_t n;    /* bytes of STR, BIN and EXT; elements of ARRAY; pairs of MAP */
    size_t offset; /* of the first byte after the head */
} head;

typedef struct key {
    uint32_t offset, len;
} key;

typedef struct walk {
    const uint8_t *p;
    size_t size;
    size_t at;
    unsigned n_items;
    int depth;
    struct {
        bool is_map;
        bool want_key;
        uint32_t left;      /* values still to come; a pair is two */
        unsigned first_key; /* of this map in keys[] */
    } level[LW_MAX_HEADER_DEPTH];
    /* Keys of the maps that are open. A key and its value are two items, so this cannot overflow.
     */
    key keys[LW_MAX_HEADER_ITEMS / 2 + 1];
    unsigned n_keys;
    lw_err *err;
} walk;

static uint64_t big_endian(const uint8_t *p, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

static lw_status truncated(const walk *w)
{
    return lw_fail(w->err, LW_E_FORMAT, "header ends inside a value at byte %zu of %zu", w->at,
                   w->size);
}

/* Heads that carry a length of n_len bytes after the first byte. */
static lw_status read_length(walk *w, kind k, size_t n_len, head *ret)
{
    if (w->size - w->at - 1 < n_len)
        return truncated(w);
    ret->kind = k;
    ret->n = (uint32_t)big_endian(w->p + w->at + 1, n_len);
    ret->offset = w->at + 1 + n_len;
    if (k == EXT) {
        if (ret->offset == w->size)
            return truncated(w);
        ret->offset++; /* the ext type */
    }
    return LW_OK;
}

/* Values whose size follows from the first byte. */
static lw_status read_fixed(walk *w, kind k, size_t n_bytes, head *ret)
{
    if (w->size - w->at - 1 < n_bytes)
        return truncated(w);
    *ret = (head){ .kind = k, .offset = w->at + 1 + n_bytes };
    return LW_OK;
}

static lw_status read_head(walk *w, head *ret)
{
    uint8_t b;

    if (w->at >= w->size)
        return truncated(w);
    b = w->p[w->at];
    if (b <= 0x7f || b >= 0xe0)
        return read_fixed(w, INT, 0, ret);
    *ret = (head){ .offset = w->at + 1 };
    if (b <= 0x8f) {
        ret->kind = MAP;
        ret->n = b & 0x0f;
        return LW_OK;
    }
    if (b <= 0x9f) {
        ret->kind = ARRAY;
        ret->n = b & 0x0f;
        return LW_OK;
    }
    if (b <= 0xbf) {
        ret->kind = STR;
        ret->n = b & 0x1f;
        return LW_OK;
    }
    switch (b) {
    case 0xc0:
        return read_fixed(w, NIL, 0, ret);
    case 0xc2:
    case 0xc3:
        return read_fixed(w, BOOL, 0, ret);
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return read_length(w, BIN, (size_t)1 << (b - 0xc4), ret);
    case 0xc7:
    case 0xc8:
    case 0xc9:
        return read_length(w, EXT, (size_t)1 << (b - 0xc7), ret);
    case 0xca:
        return read_fixed(w, FLOAT, 4, ret);
    case 0xcb:
        return read_fixed(w, FLOAT, 8, ret);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        return read_fixed(w, INT, (size_t)1 << (b - 0xcc), ret);
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return read_fixed(w, INT, (size_t)1 << (b - 0xd0), ret);
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        return read_fixed(w, EXT, 1 + ((size_t)1 << (b - 0xd4)), ret);
    case 0xd9:
    case 0xda:
    case 0xdb:
        return read_length(w, STR, (size_t)1 << (b - 0xd9), ret);
    case 0xdc:
    case 0xdd:
        return read_length(w, ARRAY, (size_t)2 << (b - 0xdc), ret);
    case 0xde:
    case 0xdf:
        return read_length(w, MAP, (size_t)2 << (b - 0xde), ret);
    default: /* 0xc1 is never msgpack */
        return lw_fail(w->err, LW_E_FORMAT, "header byte %zu is 0x%02x, which is not msgpack",
                       w->at, b);
    }
}

static lw_status open_container(walk *w, const head *h)
{
    uint64_t left = h->kind == MAP ? (uint64_t)h->n * 2 : h->n;

    if (w->depth == LW_MAX_HEADER_DEPTH)
        return lw_fail(w->err, LW_E_TOO_LARGE, "header nests deeper than %d containers",
                       LW_MAX_HEADER_DEPTH);
    /* Every value takes at least one byte, so a count above the bytes left is a lie. */
    if (left > w->size - h->offset)
        return lw_fail(w->err, LW_E_FORMAT,
                       "header claims %llu values at byte %zu where %zu bytes are left",
                       (unsigned long long)left, w->at, w->size - h->offset);
    if (left > LW_MAX_HEADER_ITEMS - w->n_items)
        return lw_fail(w->err, LW_E_TOO_LARGE, "header holds more than %d values",
                       LW_MAX_HEADER_ITEMS);
    w->level[w->depth].is_map = h->kind == MAP;
    w->level[w->depth].want_key = h->kind == MAP;
    w->level[w->depth].left = (uint32_t)left;
    w->level[w->depth].first_key = w->n_keys;
    w->depth++;
    return LW_OK;
}

static lw_status take_key(walk *w, const head *h, unsigned first_key)
{
    if (h->kind != STR)
        return lw_fail(w->err, LW_E_FORMAT, "header: map key at byte %zu is not a string", w->at);
    for (unsigned i = first_key; i < w->n_keys; i++)
        if (w->keys[i].len == h->n && memcmp(w->p + w->keys[i].offset, w->p + h->offset, h->n) == 0)
            return lw_fail(w->err, LW_E_FORMAT, "header: key \"%.*s\" appears twice in a map",
                           h->n > 64 ? 64 : (int)h->n, (const char *)w->p + h->offset);
    w->keys[w->n_keys++] = (key){ (uint32_t)h->offset, h->n };
    return LW_OK;
}

/* One value; its children, when it has any, are walked by the following calls. */
static lw_status step(walk *w)
{
    head h = { 0 };

    LW_TRY(read_head(w, &h));
    if (++w->n_items > LW_MAX_HEADER_ITEMS)
        return lw_fail(w->err, LW_E_TOO_LARGE, "header holds more than %d values",
                       LW_MAX_HEADER_ITEMS);
    if (h.kind == STR || h.kind == BIN || h.kind == EXT) {
        if (h.n > w->size - h.offset)
            return truncated(w);
        if (h.kind == STR && !lw_utf8_valid((const char *)w->p + h.offset, h.n))
            return lw_fail(w->err, LW_E_FORMAT, "header: string at byte %zu is not UTF-8", w->at);
    }

    if (w->depth == 0 && h.kind != MAP)
        return lw_fail(w->err, LW_E_FORMAT, "header is not a msgpack map");
    if (w->depth > 0) {
        int d = w->depth - 1;

        w->level[d].left--;
        if (w->level[d].is_map) {
            if (w->level[d].want_key)
                LW_TRY(take_key(w, &h, w->level[d].first_key));
            w->level[d].want_key = !w->level[d].want_key;
        }
    }

    if (h.kind == ARRAY || h.kind == MAP) {
        LW_TRY(open_container(w, &h));
        w->at = h.offset;
    } else {
        w->at = h.offset + (h.kind == STR || h.kind == BIN || h.kind == EXT ? h.n : 0);
    }
    while (w->depth > 0 && w->level[w->depth - 1].left == 0) {
        w->depth--;
        w->n_keys = w->level[w->depth].first_key;
    }
    return LW_OK;
}

lw_status lw_prescan(const uint8_t *data, size_t size_bytes, lw_err *err)
{
    walk w = { .p = data, .size = size_bytes, .err = err };

    if (size_bytes > LW_MAX_HEADER_BYTES)
        return lw_fail(err, LW_E_TOO_LARGE, "header of %zu bytes is above the limit of %u",
                       size_bytes, LW_MAX_HEADER_BYTES);
    if (size_bytes == 0)
        return lw_fail(err, LW_E_FORMAT, "header is empty");
    do
        LW_TRY(step(&w));
    while (w.depth > 0);
    if (w.at != size_bytes)
        return lw_fail(err, LW_E_FORMAT, "header has %zu bytes after its end", size_bytes - w.at);
    return LW_OK;
}
