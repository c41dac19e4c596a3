#include "encoder-svc/tokenizer.h"

#include <string.h>

#include "common/buf.h"
#include "common/utf8.h"

#include "encoder-svc/nfc.h"
#include "encoder-svc/tokenizer_impl.h"

const char LW_TOKENIZER_PATTERN[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
                                    "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
                                    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/*
 * The same pattern for PCRE2, with white space written out: PCRE2's \s also takes U+180E, which is
 * a format character since Unicode 6.3 and no white space for the reference.
 */
#define WHITE                                                                                      \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
static const char PATTERN[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
                              "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
                              "|\\p{N}"
                              "| ?[^" WHITE "\\p{L}\\p{N}]+[\\r\\n]*"
                              "|[" WHITE "]*[\\r\\n]+"
                              "|[" WHITE "]+(?![^" WHITE "])"
                              "|[" WHITE "]+";

/* A match backtracks at most once over its own white space, so the work is linear in the text; this
 * only keeps a defect from running for ever. */
#define MATCH_LIMIT (64u * LW_TOKENIZER_MAX_TEXT_BYTES)

lw_status lw_tokenizer_compile(lw_tokenizer *t, lw_err *err)
{
    int code;
    PCRE2_SIZE at;

    /* Anchored: each match begins where the last one ended. */
    t->pattern = pcre2_compile((PCRE2_SPTR)PATTERN, sizeof PATTERN - 1,
                               PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &code, &at, NULL);
    if (!t->pattern) {
        char text[128] = "";

        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        return lw_fail(err, LW_E_INTERNAL, "splitting pattern, at %zu: %s", (size_t)at, text);
    }
    t->limits = pcre2_match_context_create(NULL);
    if (!t->limits)
        return lw_fail(err, LW_E_NOMEM, "no memory for the splitting pattern");
    pcre2_set_match_limit(t->limits, MATCH_LIMIT);
    /* Without the just-in-time compiler (some hardened systems) matching is slower, not different.
     */
    (void)pcre2_jit_compile(t->pattern, PCRE2_JIT_COMPLETE);
    return LW_OK;
}

void lw_tokenizer_destroy(lw_tokenizer **t)
{
    lw_arena arena;

    if (!t || !*t)
        return;
    pcre2_code_free((*t)->pattern);
    pcre2_match_context_free((*t)->limits);
    arena = (*t)->arena; /* the tokenizer itself lies in it */
    lw_arena_deinit(&arena);
    *t = NULL;
}

/* The longest added token at the start of s, or NULL. */
static const lw_added_token *added_at(const lw_tokenizer *t, const char *s, size_t n)
{
    uint8_t c = (uint8_t)s[0];

    for (int32_t i = t->added_start[c]; i < t->added_start[c + 1]; i++)
        if (t->added[i].len <= n && memcmp(t->added[i].text, s, t->added[i].len) == 0)
            return &t->added[i];
    return NULL;
}

/* End of the word that starts at `begin`. */
static lw_status next_word(const lw_tokenizer *t, const char *s, size_t n, size_t begin,
                           pcre2_match_data *md, size_t *ret_end, lw_err *err)
{
    int rc = pcre2_match(t->pattern, (PCRE2_SPTR)s, n, begin, PCRE2_NO_UTF_CHECK, md, t->limits);

    /* The compiled form has a small stack; the interpreter takes what it needs from the heap. */
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(t->pattern, (PCRE2_SPTR)s, n, begin, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, md,
                         t->limits);
    if (rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT)
        return lw_fail(err, LW_E_TOO_LARGE,
                       "the text cannot be split into words within the limits");
    if (rc == PCRE2_ERROR_NOMEMORY)
        return lw_fail(err, LW_E_NOMEM, "no memory to split the text into words");
    *ret_end = rc > 0 ? pcre2_get_ovector_pointer(md)[1] : begin;
    if (*ret_end <= begin)
        return lw_fail(err, LW_E_INTERNAL, "no word at byte %zu (PCRE2 code %d)", begin, rc);
    return LW_OK;
}

/* What is collected of a text. */
typedef struct found {
    lw_buf ids;    /* int32 */
    lw_buf begins; /* uint32 */
} found;

/*
 * From bytes of a normalised piece back to those of the piece. NFC never joins an ASCII character
 * with what comes before it, so the piece is walked in parts that begin with one; each part becomes
 * the same normalised text by itself.
 */
typedef struct nfc_walk {
    const char *text;
    size_t n;
    size_t begin, end;         /* part of the text */
    size_t out_begin, out_end; /* the same normalised */
    lw_arena *scratch;
} nfc_walk;

static lw_status walk_to(nfc_walk *w, size_t out, lw_err *err)
{
    while (out >= w->out_end && w->end < w->n) {
        const lw_arena_mark mark = lw_arena_mark_get(w->scratch);
        const char *s;
        size_t n;

        w->begin = w->end++;
        w->out_begin = w->out_end;
        while (w->end < w->n && (w->text[w->end] & 0x80))
            w->end++;
        LW_TRY(lw_nfc(w->text + w->begin, w->end - w->begin, w->scratch, &s, &n, err));
        lw_arena_release(w->scratch, mark);
        w->out_end += n;
    }
    return LW_OK;
}

/* The byte of the piece that a byte of its normalised text comes from. */
static size_t source_of(const nfc_walk *w, size_t out)
{
    const size_t in = w->begin + (out - w->out_begin);

    return in < w->end ? in : w->end;
}

/* Where the tokens from `first` on begin, which are those of a piece. */
static lw_status note_begins(const lw_tokenizer *t, const char *text, size_t len, bool changed,
                             size_t base, size_t first, lw_arena *scratch, found *f, lw_err *err)
{
    nfc_walk w = { .text = text, .n = len, .scratch = scratch };
    const size_t n = f->ids.len / sizeof(int32_t);
    size_t out = 0;

    for (size_t i = first; i < n && !f->ids.failed; i++) {
        uint32_t begin;
        int32_t id;

        if (changed)
            LW_TRY(walk_to(&w, out, err));
        begin = (uint32_t)(base + (changed ? source_of(&w, out) : out));
        lw_buf_put(&f->begins, &begin, sizeof begin);
        memcpy(&id, f->ids.data + i * sizeof id, sizeof id);
        out += t->tokens[id].len;
    }
    return LW_OK;
}

/* Text between added tokens: normalise, split, merge. */
static lw_status encode_piece(const lw_tokenizer *t, const char *text, size_t len, size_t base,
                              pcre2_match_data *md, lw_arena *scratch, found *f, lw_err *err)
{
    const size_t first = f->ids.len / sizeof(int32_t);
    const char *s;
    size_t n;

    LW_TRY(lw_nfc(text, len, scratch, &s, &n, err));
    for (size_t begin = 0, end = 0; begin < n; begin = end) {
        LW_TRY(next_word(t, s, n, begin, md, &end, err));
        LW_TRY(lw_bpe_encode(&t->bpe, s + begin, end - begin, scratch, &f->ids, err));
    }
    return note_begins(t, text, len, s != text, base, first, scratch, f, err);
}

static lw_status encode_all(const lw_tokenizer *t, const char *text, size_t n, pcre2_match_data *md,
                            lw_arena *scratch, found *f, lw_err *err)
{
    size_t begin = 0; /* of the piece that is not an added token */

    for (size_t i = 0; i <= n; i++) {
        const lw_added_token *added = i < n ? added_at(t, text + i, n - i) : NULL;
        lw_arena_mark mark = lw_arena_mark_get(scratch);
        const uint32_t at = (uint32_t)i;

        if (!added && i < n)
            continue;
        LW_TRY(encode_piece(t, text + begin, i - begin, begin, md, scratch, f, err));
        lw_arena_release(scratch, mark);
        lw_buf_put(&f->begins, &at, sizeof at); /* of the added token, or the end */
        if (!added)
            break;
        lw_buf_put(&f->ids, &added->id, sizeof added->id);
        begin = i + added->len;
        i = begin - 1;
    }
    return LW_OK;
}

static lw_status take_found(found *f, size_t n, lw_arena *a, lw_token_ids *ret, lw_err *err)
{
    if (f->ids.failed || f->begins.failed)
        return lw_fail(err, LW_E_NOMEM, "no memory for the ids of a text of %zu bytes", n);
    ret->n = f->ids.len / sizeof(int32_t);
    ret->ids = lw_arena_alloc(a, f->ids.len, err);
    ret->begins = lw_arena_alloc(a, f->begins.len, err);
    if (!ret->ids || !ret->begins)
        return LW_E_NOMEM;
    if (f->ids.len)
        memcpy(ret->ids, f->ids.data, f->ids.len);
    memcpy(ret->begins, f->begins.data, f->begins.len);
    return LW_OK;
}

lw_status lw_tokenizer_encode(const lw_tokenizer *t, const char *text, size_t n, lw_arena *a,
                              lw_token_ids *ret, lw_err *err)
{
    pcre2_match_data *md;
    lw_status st;
    found f;

    if (n > LW_TOKENIZER_MAX_TEXT_BYTES)
        return lw_fail(err, LW_E_TOO_LARGE, "the text has %zu bytes, at most %u are allowed", n,
                       LW_TOKENIZER_MAX_TEXT_BYTES);
    for (size_t i = 0, len; i < n; i += len) {
        len = lw_utf8_len(text + i, n - i);
        if (len == 0)
            return lw_fail(err, LW_E_INVALID, "the text is not valid UTF-8 at byte %zu (0x%02x)", i,
                           (uint8_t)text[i]);
    }
    md = pcre2_match_data_create(1, NULL);
    if (!md)
        return lw_fail(err, LW_E_NOMEM, "no memory to split the text into words");
    /* One id a byte at most, and NFC makes no text longer than three times. */
    lw_buf_init(&f.ids, 3 * n * sizeof(int32_t) + 64);
    lw_buf_init(&f.begins, 3 * n * sizeof(uint32_t) + 64);
    st = encode_all(t, text, n, md, a, &f, err);
    if (st == LW_OK)
        st = take_found(&f, n, a, ret, err);
    lw_buf_deinit(&f.ids);
    lw_buf_deinit(&f.begins);
    pcre2_match_data_free(md);
    return st;
}

const char *lw_tokenizer_token(const lw_tokenizer *t, int32_t id, size_t *ret_len)
{
    if (id < 0 || id >= t->n_ids || !t->tokens[id].text)
        return NULL;
    *ret_len = t->tokens[id].len;
    return t->tokens[id].text;
}

int32_t lw_tokenizer_added_id(const lw_tokenizer *t, const char *text)
{
    size_t n = strlen(text);

    for (int32_t i = 0; i < t->n_added; i++)
        if (t->added[i].len == n && memcmp(t->added[i].text, text, n) == 0)
            return t->added[i].id;
    return -1;
}

int32_t lw_tokenizer_n_ids(const lw_tokenizer *t)
{
    return t->n_ids;
}

const char *lw_tokenizer_digest(const lw_tokenizer *t)
{
    return t->digest;
}
