/*
 * Making a tokenizer from its files. They come from a model folder that somebody downloaded, so
 * every id, text and count is checked, and what would silently give other ids (another kind of
 * tokenizer, a merge list cut short) is refused.
 */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "common/utf8.h"

#include "encoder-svc/tokenizer_impl.h"

#define N_SYMBOLS 324

typedef struct loader {
    lw_tokenizer *t;
    const char *label;
    json_t *vocab;
    lw_added_token *added; /* as collected, unsorted */
    int32_t n_added;
    uint8_t *made; /* per id: 1 = nothing to ask for, or a merge makes it */
    char *text;    /* room left for the texts of the vocabulary */
    size_t n_text; /* bytes of all vocabulary entries */
    crypto_generichash_state digest;
    lw_err *err;
} loader;

static void digest_u32(loader *l, uint32_t v)
{
    const uint8_t b[4] = { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) };

    crypto_generichash_update(&l->digest, b, sizeof b);
}

static void digest_token(loader *l, int32_t id, const char *text, uint32_t len)
{
    digest_u32(l, (uint32_t)id);
    digest_u32(l, len);
    crypto_generichash_update(&l->digest, (const uint8_t *)text, len);
}

/* ---- what kind of tokenizer ------------------------------------------------------------------ */

/* The regular expression of the first Split step in a pre_tokenizer, or NULL. */
static const char *split_pattern(const json_t *pre)
{
    const json_t *list = json_object_get(pre, "pretokenizers");
    const json_t *step = json_is_array(list) ? json_array_get(list, 0) : pre;

    return json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex"));
}

static lw_status check_whole(loader *l, const json_t *root)
{
    const json_t *model = json_object_get(root, "model");
    const char *kind = json_string_value(json_object_get(model, "type"));
    const char *form =
        json_string_value(json_object_get(json_object_get(root, "normalizer"), "type"));
    const char *pattern = split_pattern(json_object_get(root, "pre_tokenizer"));

    if (!json_is_object(model))
        return lw_fail(l->err, LW_E_FORMAT, "%s: no `model`; is it a tokenizer.json?", l->label);
    if (!kind || strcmp(kind, "BPE") != 0)
        return lw_fail(l->err, LW_E_UNIMPLEMENTED, "%s: model type is %s, expected BPE", l->label,
                       kind ? kind : "missing");
    if (json_is_true(json_object_get(model, "byte_fallback")) ||
        json_is_true(json_object_get(model, "ignore_merges")))
        return lw_fail(l->err, LW_E_UNIMPLEMENTED,
                       "%s: byte_fallback and ignore_merges are not offered; expected a Qwen3 "
                       "tokenizer",
                       l->label);
    if (!form || strcmp(form, "NFC") != 0)
        return lw_fail(l->err, LW_E_UNIMPLEMENTED, "%s: normalizer is %s, expected NFC", l->label,
                       form ? form : "missing");
    if (!pattern || strcmp(pattern, LW_TOKENIZER_PATTERN) != 0)
        return lw_fail(l->err, LW_E_UNIMPLEMENTED,
                       "%s: the splitting pattern is not that of Qwen3 (found %.80s)", l->label,
                       pattern ? pattern : "none");
    return LW_OK;
}

/* vocab.json and merges.txt do not say how text is split; the class in the config does. */
static lw_status check_config(loader *l, const json_t *config)
{
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));

    if (class && strcmp(class, "Qwen2Tokenizer") != 0 && strcmp(class, "Qwen2TokenizerFast") != 0)
        return lw_fail(
            l->err, LW_E_UNIMPLEMENTED,
            "%s/tokenizer_config.json: tokenizer_class is %.60s, expected Qwen2Tokenizer "
            "(the class of Qwen3)",
            l->label, class);
    return LW_OK;
}

/* ---- vocabulary ------------------------------------------------------------------------------ */

/*
 * A vocabulary entry in byte symbols -> bytes, in the tokenizer's arena. An entry with any other
 * character (an added token that was written into the vocabulary) is kept as it is: no word of
 * bytes can become it.
 */
static lw_status store_entry(loader *l, const int16_t *byte_of, const char *key, size_t n,
                             int32_t id)
{
    char *text = l->text;
    size_t len = 0, n_symbols = 0;

    for (size_t i = 0; i < n; n_symbols++) {
        size_t step = lw_utf8_len(key + i, n - i);
        int32_t c = step == 1   ? key[i]
                    : step == 2 ? (key[i] & 0x1f) << 6 | (key[i + 1] & 0x3f)
                                : N_SYMBOLS;

        if (step == 0)
            return lw_fail(l->err, LW_E_FORMAT, "%s: entry %" PRId32 " is not UTF-8", l->label, id);
        if (c >= N_SYMBOLS || byte_of[c] < 0) {
            memcpy(text, key, n);
            len = n;
            l->made[id] = 1;
            break;
        }
        text[len++] = (char)byte_of[c];
        i += step;
    }
    if (n_symbols == 1 && len == 1) {
        l->t->bpe.byte_ids[(uint8_t)text[0]] = id;
        l->made[id] = 1;
    }
    text[len] = '\0'; /* for messages */
    l->text += len + 1;
    l->t->tokens[id] = (lw_token){ .text = text, .len = (uint32_t)len };
    return LW_OK;
}

static lw_status check_entry(loader *l, const char *key, size_t n, const json_t *value,
                             int32_t *ret_id)
{
    json_int_t id = json_integer_value(value);

    if (!json_is_integer(value) || id < 0 || id >= LW_TOKENIZER_MAX_IDS)
        return lw_fail(l->err, LW_E_FORMAT, "%s: id of '%.40s' is not a number from 0 to %d",
                       l->label, key, LW_TOKENIZER_MAX_IDS - 1);
    if (n == 0 || n > LW_TOKENIZER_MAX_TOKEN_BYTES)
        return lw_fail(l->err, LW_E_FORMAT, "%s: entry %" PRId64 " has %zu bytes, expected 1 to %d",
                       l->label, (int64_t)id, n, LW_TOKENIZER_MAX_TOKEN_BYTES);
    *ret_id = (int32_t)id;
    return LW_OK;
}

/* Largest id of vocabulary and added tokens, plus one. */
static lw_status count_ids(loader *l)
{
    const char *key;
    json_t *value;
    int32_t id = 0;

    if (!json_is_object(l->vocab) || json_object_size(l->vocab) == 0)
        return lw_fail(l->err, LW_E_FORMAT, "%s: the vocabulary is not an object with entries",
                       l->label);
    if (json_object_size(l->vocab) > LW_TOKENIZER_MAX_IDS)
        return lw_fail(l->err, LW_E_TOO_LARGE, "%s: %zu vocabulary entries, at most %d are allowed",
                       l->label, json_object_size(l->vocab), LW_TOKENIZER_MAX_IDS);
    json_object_foreach(l->vocab, key, value)
    {
        LW_TRY(check_entry(l, key, strlen(key), value, &id));
        l->n_text += strlen(key) + 1;
        if (id >= l->t->n_ids)
            l->t->n_ids = id + 1;
    }
    for (int32_t i = 0; i < l->n_added; i++)
        if (l->added[i].id >= l->t->n_ids)
            l->t->n_ids = l->added[i].id + 1;
    return LW_OK;
}

static lw_status read_vocab(loader *l)
{
    int16_t byte_of[N_SYMBOLS];
    const char *key;
    json_t *value;
    int32_t id = 0;

    for (int32_t c = 0; c < N_SYMBOLS; c++)
        byte_of[c] = (int16_t)lw_bpe_byte_of_symbol(c);
    for (int b = 0; b < 256; b++)
        l->t->bpe.byte_ids[b] = -1;
    json_object_foreach(l->vocab, key, value)
    {
        LW_TRY(check_entry(l, key, strlen(key), value, &id));
        if (l->t->tokens[id].text)
            return lw_fail(l->err, LW_E_FORMAT, "%s: two entries have id %" PRId32, l->label, id);
        LW_TRY(store_entry(l, byte_of, key, strlen(key), id));
    }
    for (int b = 0; b < 256; b++)
        if (l->t->bpe.byte_ids[b] < 0)
            return lw_fail(
                l->err, LW_E_FORMAT,
                "%s: the vocabulary has no symbol for byte 0x%02x; expected a byte-level "
                "vocabulary",
                l->label, (unsigned)b);
    for (id = 0; id < l->t->n_ids; id++)
        if (l->t->tokens[id].text)
            digest_token(l, id, l->t->tokens[id].text, l->t->tokens[id].len);
    return LW_OK;
}

/* ---- merges ---------------------------------------------------------------------------------- */

static lw_status add_merge(loader *l, const char *left, size_t n_left, const char *right,
                           size_t n_right, int32_t rank)
{
    char both[2 * LW_TOKENIZER_MAX_TOKEN_BYTES];
    const json_t *ids[3];
    int32_t id[3];

    if (n_left == 0 || n_right == 0 || n_left > LW_TOKENIZER_MAX_TOKEN_BYTES ||
        n_right > LW_TOKENIZER_MAX_TOKEN_BYTES)
        return lw_fail(l->err, LW_E_FORMAT,
                       "%s: merge %" PRId32 " is not two symbols of 1 to %d bytes", l->label, rank,
                       LW_TOKENIZER_MAX_TOKEN_BYTES);
    memcpy(both, left, n_left);
    memcpy(both + n_left, right, n_right);
    ids[0] = json_object_getn(l->vocab, both, n_left);
    ids[1] = json_object_getn(l->vocab, both + n_left, n_right);
    ids[2] = json_object_getn(l->vocab, both, n_left + n_right);
    for (int i = 0; i < 3; i++) {
        const char *part = i == 1 ? both + n_left : both;
        size_t n = i == 0 ? n_left : i == 1 ? n_right : n_left + n_right;

        if (!ids[i])
            return lw_fail(l->err, LW_E_FORMAT,
                           "%s: merge %" PRId32 ": '%.*s' is not in the vocabulary; are the two of "
                           "one model?",
                           l->label, rank, (int)lw_utf8_trim(part, n < 60 ? n : 60), part);
        id[i] = (int32_t)json_integer_value(ids[i]);
        digest_u32(l, (uint32_t)id[i]);
    }
    lw_bpe_add(&l->t->bpe, id[0], id[1], rank, id[2]);
    l->made[id[2]] = 1;
    return LW_OK;
}

static lw_status init_merges(loader *l, size_t n_merges)
{
    int32_t byte_ids[256];

    if (n_merges > LW_TOKENIZER_MAX_IDS)
        return lw_fail(l->err, LW_E_TOO_LARGE, "%s: %zu merges, at most %d are allowed", l->label,
                       n_merges, LW_TOKENIZER_MAX_IDS);
    memcpy(byte_ids, l->t->bpe.byte_ids, sizeof byte_ids);
    LW_TRY(lw_bpe_init(&l->t->bpe, &l->t->arena, (uint32_t)n_merges, l->err));
    memcpy(l->t->bpe.byte_ids, byte_ids, sizeof byte_ids);
    return LW_OK;
}

/* "left right" without a line end. */
static lw_status add_merge_line(loader *l, const char *line, size_t n, int32_t rank)
{
    const char *gap = memchr(line, ' ', n);
    size_t n_left = gap ? (size_t)(gap - line) : n, n_right = gap ? n - n_left - 1 : 0;

    if (gap && memchr(gap + 1, ' ', n_right))
        n_right = 0; /* three parts: refused like one */
    return add_merge(l, line, n_left, gap ? gap + 1 : line, n_right, rank);
}

static lw_status read_merges_text(loader *l, const char *text, size_t n)
{
    const char *end = text + n, *next;
    size_t n_lines = 1;
    int32_t rank = 0;

    for (size_t i = 0; i < n; i++)
        n_lines += text[i] == '\n';
    LW_TRY(init_merges(l, n_lines));
    for (const char *line = text; line < end; line = next) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t len = (size_t)((stop ? stop : end) - line);

        next = stop ? stop + 1 : end;
        if (len > 0 && line[len - 1] == '\r')
            len--;
        if (len == 0 || (line == text && len > 8 && memcmp(line, "#version", 8) == 0))
            continue;
        LW_TRY(add_merge_line(l, line, len, rank++));
    }
    return LW_OK;
}

static lw_status read_merges_json(loader *l, const json_t *list)
{
    size_t n = json_array_size(list);

    if (!json_is_array(list))
        return lw_fail(l->err, LW_E_FORMAT, "%s: `merges` is not a list", l->label);
    LW_TRY(init_merges(l, n));
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(list, i);
        const json_t *left = json_array_get(m, 0), *right = json_array_get(m, 1);

        if (json_is_string(m))
            LW_TRY(add_merge_line(l, json_string_value(m), json_string_length(m), (int32_t)i));
        else if (json_array_size(m) == 2 && json_is_string(left) && json_is_string(right))
            LW_TRY(add_merge(l, json_string_value(left), json_string_length(left),
                             json_string_value(right), json_string_length(right), (int32_t)i));
        else
            return lw_fail(l->err, LW_E_FORMAT, "%s: merge %zu is not a pair of texts", l->label,
                           i);
    }
    return LW_OK;
}

/* ---- added tokens ---------------------------------------------------------------------------- */

static lw_status collect(loader *l, const char *text, size_t n, int64_t id)
{
    if (n == 0 || n > LW_TOKENIZER_MAX_TOKEN_BYTES || id < 0 || id >= LW_TOKENIZER_MAX_IDS)
        return lw_fail(l->err, LW_E_FORMAT,
                       "%s: added token %" PRId64
                       " ('%.40s') needs a text of 1 to %d bytes and an id "
                       "from 0 to %d",
                       l->label, id, text, LW_TOKENIZER_MAX_TOKEN_BYTES, LW_TOKENIZER_MAX_IDS - 1);
    for (int32_t i = 0; i < l->n_added; i++) {
        int same_text = l->added[i].len == n && memcmp(l->added[i].text, text, n) == 0;

        if (same_text && l->added[i].id == id)
            return LW_OK; /* said in two files */
        if (same_text || l->added[i].id == id)
            return lw_fail(l->err, LW_E_FORMAT,
                           "%s: added tokens '%.40s' (%" PRId32 ") and '%.40s' (%" PRId64
                           ") contradict each other",
                           l->label, l->added[i].text, l->added[i].id, text, id);
    }
    if (l->n_added == LW_TOKENIZER_MAX_ADDED)
        return lw_fail(l->err, LW_E_TOO_LARGE, "%s: more than %d added tokens", l->label,
                       LW_TOKENIZER_MAX_ADDED);
    l->added[l->n_added].text = lw_arena_strndup(&l->t->arena, text, n, l->err);
    if (!l->added[l->n_added].text)
        return LW_E_NOMEM;
    l->added[l->n_added].len = (uint32_t)n;
    l->added[l->n_added++].id = (int32_t)id;
    return LW_OK;
}

/* One entry of tokenizer.json's added_tokens or of tokenizer_config.json's added_tokens_decoder. */
static lw_status collect_entry(loader *l, const json_t *entry, int64_t id)
{
    static const char *const flags[] = { "lstrip", "rstrip", "single_word", "normalized" };
    const json_t *content = json_object_get(entry, "content");

    if (!json_is_string(content))
        return lw_fail(l->err, LW_E_FORMAT, "%s: added token %" PRId64 " has no `content`",
                       l->label, id);
    for (size_t i = 0; i < LW_ARRAY_LEN(flags); i++)
        if (json_is_true(json_object_get(entry, flags[i])))
            return lw_fail(l->err, LW_E_UNIMPLEMENTED,
                           "%s: added token '%.40s' has %s set, which no Qwen3 token has", l->label,
                           json_string_value(content), flags[i]);
    return collect(l, json_string_value(content), json_string_length(content), id);
}

static lw_status collect_list(loader *l, const json_t *list)
{
    size_t i;
    const json_t *entry;

    json_array_foreach(list, i, entry)
    {
        const json_t *id = json_object_get(entry, "id");

        LW_TRY(collect_entry(l, entry, json_is_integer(id) ? json_integer_value(id) : -1));
    }
    return LW_OK;
}

static lw_status collect_decoder(loader *l, json_t *decoder)
{
    const char *key;
    json_t *entry;

    json_object_foreach(decoder, key, entry)
    {
        char *end;
        long id = strtol(key, &end, 10);

        LW_TRY(collect_entry(l, entry, end == key || *end ? -1 : id));
    }
    return LW_OK;
}

static lw_status collect_map(loader *l, json_t *map)
{
    const char *key;
    json_t *id;

    json_object_foreach(map, key, id)
        LW_TRY(collect(l, key, strlen(key), json_is_integer(id) ? json_integer_value(id) : -1));
    return LW_OK;
}

static int by_id(const void *pa, const void *pb)
{
    const lw_added_token *a = pa, *b = pb;

    return (a->id > b->id) - (a->id < b->id);
}

static int by_first_byte_longest(const void *pa, const void *pb)
{
    const lw_added_token *a = pa, *b = pb;
    int byte_a = (uint8_t)a->text[0], byte_b = (uint8_t)b->text[0];

    if (byte_a != byte_b)
        return byte_a - byte_b;
    if (a->len != b->len)
        return a->len > b->len ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

/* Enter the collected tokens into the id table and index them. */
static lw_status place_added(loader *l)
{
    lw_tokenizer *t = l->t;

    qsort(l->added, (size_t)l->n_added, sizeof *l->added, by_id);
    for (int32_t i = 0; i < l->n_added; i++) {
        const lw_added_token *a = &l->added[i];
        lw_token *slot = &t->tokens[a->id];

        if (slot->text && (slot->len != a->len || memcmp(slot->text, a->text, a->len) != 0))
            return lw_fail(l->err, LW_E_FORMAT,
                           "%s: added token '%.40s' has the id %" PRId32
                           " of the vocabulary entry '%.40s'",
                           l->label, a->text, a->id, slot->text);
        *slot = (lw_token){ .text = a->text, .len = a->len };
        l->made[a->id] = 1;
        digest_token(l, a->id, a->text, a->len);
    }
    qsort(l->added, (size_t)l->n_added, sizeof *l->added, by_first_byte_longest);
    t->added = l->added;
    t->n_added = l->n_added;
    for (int c = 0, i = 0; c <= 256; c++) {
        while (i < t->n_added && (uint8_t)t->added[i].text[0] < c)
            i++;
        t->added_start[c] = c == 256 ? t->n_added : i;
    }
    return LW_OK;
}

/* Every entry longer than a byte is the product of a merge, or it could never come out: a sure sign
 * of a merge list that was cut short. */
static lw_status check_made(loader *l)
{
    int32_t n = 0, first = -1;

    for (int32_t id = 0; id < l->t->n_ids; id++)
        if (l->t->tokens[id].text && !l->made[id]) {
            first = first < 0 ? id : first;
            n++;
        }
    if (n > 0)
        return lw_fail(l->err, LW_E_FORMAT,
                       "%s: %" PRId32 " vocabulary entries (the first is '%.40s', %" PRId32
                       ") are made by no merge; are the merges cut short?",
                       l->label, n, l->t->tokens[first].text, first);
    return LW_OK;
}

/* ---- putting it together --------------------------------------------------------------------- */

static lw_status build(loader *l, const lw_tokenizer_source *src)
{
    lw_tokenizer *t = l->t;
    const json_t *model = json_object_get(src->whole, "model");
    uint8_t hash[32];

    l->added = lw_arena_calloc(&t->arena, LW_TOKENIZER_MAX_ADDED, sizeof *l->added, l->err);
    if (!l->added)
        return LW_E_NOMEM;
    if (src->whole) {
        LW_TRY(check_whole(l, src->whole));
        LW_TRY(collect_list(l, json_object_get(src->whole, "added_tokens")));
        l->vocab = json_object_get(model, "vocab");
    } else {
        LW_TRY(check_config(l, src->config));
        LW_TRY(collect_decoder(l, json_object_get(src->config, "added_tokens_decoder")));
        LW_TRY(collect_map(l, src->added));
        l->vocab = src->vocab;
    }
    LW_TRY(count_ids(l));
    t->tokens = lw_arena_calloc(&t->arena, (size_t)t->n_ids, sizeof *t->tokens, l->err);
    l->made = lw_arena_calloc(&t->arena, (size_t)t->n_ids, 1, l->err);
    l->text = lw_arena_alloc(&t->arena, l->n_text, l->err);
    if (!t->tokens || !l->made || !l->text)
        return LW_E_NOMEM;
    LW_TRY(read_vocab(l));
    if (src->whole)
        LW_TRY(read_merges_json(l, json_object_get(model, "merges")));
    else
        LW_TRY(read_merges_text(l, src->merges, src->merges_len));
    LW_TRY(place_added(l));
    LW_TRY(check_made(l));
    crypto_generichash_final(&l->digest, hash, sizeof hash);
    sodium_bin2hex(t->digest, sizeof t->digest, hash, sizeof hash);
    return lw_tokenizer_compile(t, l->err);
}

lw_status lw_tokenizer_build(const lw_tokenizer_source *src, lw_tokenizer **ret, lw_err *err)
{
    lw_arena arena;
    loader l = { .label = src->label, .err = err };
    lw_status st;

    if (sodium_init() < 0)
        return lw_fail(err, LW_E_INTERNAL, "libsodium cannot start");
    lw_arena_init(&arena, "tokenizer", 0);
    l.t = lw_arena_calloc(&arena, 1, sizeof *l.t, err);
    if (!l.t) {
        lw_arena_deinit(&arena);
        return LW_E_NOMEM;
    }
    l.t->arena = arena;
    crypto_generichash_init(&l.digest, NULL, 0, 32);
    st = build(&l, src);
    if (st != LW_OK) {
        lw_tokenizer_destroy(&l.t);
        return st;
    }
    *ret = l.t;
    return LW_OK;
}
