/*
 * Text -> ids. Any bytes: either they are no UTF-8 and refused, or the tokens put together give the
 * NFC form of the text back, for a text in which no added token occurs.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "common/buf.h"
#include "common/utf8.h"

#include "encoder-svc/bpe.h"
#include "encoder-svc/nfc.h"
#include "encoder-svc/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Merges that overlap in every way that the algorithm has to get right. */
static const char merges[] =
    "a a\naa a\naa aa\na b\nb a\nab a\nĠ a\nĠ Ġ\nĠĠ Ġ\nĠa b\nĊ Ċ\nÌ ģ\nÌ £\nÃ ©\nå ¥\n";

static void die(const char *what, const lw_err *err)
{
    fprintf(stderr, "fuzz_tokenizer: %s: %s\n", what, err ? err->text : "");
    abort();
}

static json_t *make_vocab(void)
{
    json_t *vocab = json_object();
    int id = 0;

    for (int b = 0; b < 256; b++) {
        utf8proc_uint8_t key[5] = { 0 };

        utf8proc_encode_char(lw_bpe_symbol_of_byte((uint8_t)b), key);
        json_object_set_new(vocab, (char *)key, json_integer(id++));
    }
    for (const char *line = merges; *line; line = strchr(line, '\n') + 1) {
        const char *gap = strchr(line, ' '), *end = strchr(line, '\n');
        char key[64];

        snprintf(key, sizeof key, "%.*s%.*s", (int)(gap - line), line, (int)(end - gap - 1),
                 gap + 1);
        if (!json_object_get(vocab, key))
            json_object_set_new(vocab, key, json_integer(id++));
    }
    return vocab;
}

static lw_tokenizer *make_tokenizer(const char *added)
{
    lw_tokenizer_source src = { .label = "fuzz",
                                .vocab = make_vocab(),
                                .merges = merges,
                                .merges_len = sizeof merges - 1,
                                .added = json_loads(added, 0, NULL) };
    lw_tokenizer *t = NULL;
    lw_err err;

    if (lw_tokenizer_build(&src, &t, &err) != LW_OK)
        die("the tokenizer", &err);
    json_decref(src.vocab);
    json_decref(src.added);
    return t;
}

static void check_tokens(const lw_tokenizer *t, const lw_token_ids *ids, const char *expected,
                         size_t n)
{
    size_t at = 0;

    for (size_t i = 0; i < ids->n; i++) {
        size_t len = 0;
        const char *token = lw_tokenizer_token(t, ids->ids[i], &len);

        if (!token || len > n - at || memcmp(token, expected + at, len) != 0)
            die("the tokens are not the text", NULL);
        at += len;
    }
    if (at != n)
        die("the tokens end before the text", NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lw_tokenizer *plain, *with_added;
    static lw_arena arena;
    const bool valid = lw_utf8_valid((const char *)data, size);
    lw_token_ids ids;
    const char *nfc;
    size_t n_nfc;
    lw_err err;
    lw_status st;

    if (!plain) {
        plain = make_tokenizer("{}");
        with_added = make_tokenizer("{\"<a>\": 900, \"<a>>\": 901, \"<\": 902, \" b\": 903}");
        lw_arena_init(&arena, "fuzz", (size_t)256 << 20);
    }
    lw_arena_reset(&arena);
    st = lw_tokenizer_encode(plain, (const char *)data, size, &arena, &ids, &err);
    if (st != (valid ? LW_OK : LW_E_INVALID))
        die("a wrong answer", st == LW_OK ? NULL : &err);
    if (!valid)
        return 0;
    if (lw_nfc((const char *)data, size, &arena, &nfc, &n_nfc, &err) != LW_OK)
        die("NFC", &err);
    check_tokens(plain, &ids, nfc, n_nfc);
    if (lw_tokenizer_encode(with_added, (const char *)data, size, &arena, &ids, &err) != LW_OK)
        die("with added tokens", &err);
    return 0;
}
