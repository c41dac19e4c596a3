/*
 * Texts of tokens from a tokenizer's files. Byte-level vocabularies write each byte of a token as
 * one printable character, as GPT-2 did: those that are no printable Latin-1 are moved to U+0100
 * and above.
 */

#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/utf8.h"
#include "orchestrate/analysis/embeds.h"

/* The byte that a character of a vocabulary stands for, or -1. */
static int byte_of(unsigned code)
{
    unsigned moved = 0x100;

    if ((code >= '!' && code <= '~') || (code >= 0xa1 && code <= 0xac) ||
        (code >= 0xae && code <= 0xff))
        return (int)code;
    for (unsigned b = 0; b < 256; b++) {
        if ((b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae)
            continue;
        if (moved++ == code)
            return (int)b;
    }
    return -1;
}

/* As much of a token's text as there is room for; a line feed becomes "\n". */
static void put_text(const char *token, bool byte_level, char to[LW_EMBEDDING_TEXT])
{
    size_t n = 0;

    for (const char *p = token; *p && n + 2 < LW_EMBEDDING_TEXT;) {
        const size_t bytes = lw_utf8_len(p, strnlen(p, 4));
        int b = (unsigned char)*p;

        if (byte_level && bytes == 2)
            b = byte_of(((unsigned)b & 0x1f) << 6 | ((unsigned)p[1] & 0x3f));
        if (!byte_level && bytes > 1 && n + bytes < LW_EMBEDDING_TEXT) {
            memcpy(to + n, p, bytes);
            n += bytes;
        } else if (b == '\n') {
            to[n++] = '\\';
            to[n++] = 'n';
        } else {
            to[n++] = b < 0 || (b > 0 && b < ' ') || bytes > 2 ? '?' : (char)b;
        }
        p += bytes ? bytes : 1;
    }
    to[n] = '\0';
    /* A token may be a part of a character; what is no text is shown as such. */
    for (size_t i = 0; i < n;) {
        const size_t bytes = lw_utf8_len(to + i, n - i);

        if (!bytes)
            to[i] = '?';
        i += bytes ? bytes : 1;
    }
}

static void put_token(lw_embedding *files, int n_files, int64_t id, const char *token,
                      bool byte_level)
{
    for (int f = 0; f < n_files; f++)
        for (int64_t i = 0; files[f].ids && i < files[f].rows; i++)
            if (files[f].ids[i] == id)
                put_text(token, byte_level, ((char(*)[LW_EMBEDDING_TEXT])files[f].texts)[i]);
}

/* Every id that is asked for, once: a vocabulary is long and a prompt short. */
static bool is_wanted(const lw_embedding *files, int n_files, int64_t id)
{
    for (int f = 0; f < n_files; f++)
        for (int64_t i = 0; files[f].ids && i < files[f].rows; i++)
            if (files[f].ids[i] == id)
                return true;
    return false;
}

static lw_status load(const char *folder, const char *name, json_t **ret, lw_err *err)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", folder, name) >= sizeof(path))
        return lw_fail(err, LW_E_INVALID, "%s: the name is too long", folder);
    return lw_json_load(path, ret, err);
}

static bool exists(const char *folder, const char *name)
{
    char path[PATH_MAX];
    struct stat st;

    return (size_t)snprintf(path, sizeof(path), "%s/%s", folder, name) < sizeof(path) &&
           stat(path, &st) == 0;
}

static lw_status name_plain(const char *folder, lw_embedding *files, int n_files, lw_err *err)
{
    const bool plain = exists(folder, "vocab.json");
    const json_t *vocab, *id;
    const char *token;
    json_t *root = NULL;
    lw_status s = LW_OK;

    LW_TRY(load(folder, plain ? "vocab.json" : "tokenizer.json", &root, err));
    vocab = plain ? root : json_object_get(json_object_get(root, "model"), "vocab");
    if (!json_is_object(vocab))
        s = lw_fail(err, LW_E_FORMAT, "%s/%s holds no vocabulary, an object of tokens and ids",
                    folder, plain ? "vocab.json" : "tokenizer.json");
    json_object_foreach((json_t *)vocab, token, id)
    {
        if (json_is_integer(id) && is_wanted(files, n_files, json_integer_value(id)))
            put_token(files, n_files, json_integer_value(id), token, true);
    }
    json_decref(root);
    return s;
}

/* <|im_start|> and its like; without the file there are none. */
static lw_status name_added(const char *folder, lw_embedding *files, int n_files, lw_err *err)
{
    const json_t *token;
    const char *id;
    json_t *root = NULL;

    if (!exists(folder, "tokenizer_config.json"))
        return LW_OK;
    LW_TRY(load(folder, "tokenizer_config.json", &root, err));
    json_object_foreach(json_object_get(root, "added_tokens_decoder"), id, token)
    {
        const char *text = json_string_value(json_object_get(token, "content"));

        if (text)
            put_token(files, n_files, strtoll(id, NULL, 10), text, false);
    }
    json_decref(root);
    return LW_OK;
}

lw_status lw_embedding_name_tokens(const char *folder, lw_embedding *files, int n_files,
                                   lw_arena *a, lw_err *err)
{
    for (int f = 0; f < n_files; f++) {
        if (!files[f].ids)
            continue;
        files[f].texts = lw_arena_calloc(a, (size_t)files[f].rows, LW_EMBEDDING_TEXT, err);
        if (!files[f].texts)
            return LW_E_NOMEM;
    }
    LW_TRY(name_plain(folder, files, n_files, err));
    return name_added(folder, files, n_files, err);
}
