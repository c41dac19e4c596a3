/* Finding and reading the files of a tokenizer folder; tokenizer_build.c makes the tokenizer. */

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/json.h"

#include "encoder-svc/tokenizer.h"

#define MAX_MERGES_TXT_BYTES (64u * 1024 * 1024)

static const char *path_in(lw_arena *a, const char *folder, const char *name, lw_err *err)
{
    return lw_arena_printf(a, err, "%s/%s", folder, name);
}

/* A JSON file that may be missing: *ret NULL then. */
static lw_status load_optional(lw_arena *a, const char *folder, const char *name, json_t **ret,
                               lw_err *err)
{
    const char *path = path_in(a, folder, name, err);
    struct stat sb;

    *ret = NULL;
    if (!path)
        return LW_E_NOMEM;
    if (stat(path, &sb) != 0 && errno == ENOENT)
        return LW_OK;
    return lw_json_load(path, ret, err);
}

static lw_status load_sources(lw_arena *a, lw_tokenizer_source *src, char **merges, lw_err *err)
{
    const char *folder = src->label, *path = path_in(a, folder, "merges.txt", err);
    struct stat sb;
    int has_merges = path && stat(path, &sb) == 0;

    if (!path)
        return LW_E_NOMEM;
    if (has_merges) {
        LW_TRY(load_optional(a, folder, "vocab.json", &src->vocab, err));
        LW_TRY(load_optional(a, folder, "tokenizer_config.json", &src->config, err));
        LW_TRY(load_optional(a, folder, "added_tokens.json", &src->added, err));
    }
    if (src->vocab && (src->added || json_object_get(src->config, "added_tokens_decoder"))) {
        LW_TRY(lw_file_read(path, MAX_MERGES_TXT_BYTES, merges, &src->merges_len, err));
        src->merges = *merges;
        return LW_OK;
    }
    /* Without a list of added tokens, tokenizer.json is the only one to know them. */
    LW_TRY(load_optional(a, folder, "tokenizer.json", &src->whole, err));
    if (!src->whole)
        return lw_fail(err, LW_E_NOT_FOUND,
                       "%s: no tokenizer (looked for tokenizer.json, and for vocab.json with "
                       "merges.txt and tokenizer_config.json or added_tokens.json)",
                       folder);
    return LW_OK;
}

lw_status lw_tokenizer_load(const char *folder, lw_tokenizer **ret, lw_err *err)
{
    lw_tokenizer_source src = { .label = folder };
    lw_arena tmp;
    char *merges = NULL;
    lw_status st;

    lw_arena_init(&tmp, "tokenizer paths", 0);
    st = load_sources(&tmp, &src, &merges, err);
    if (st == LW_OK)
        st = lw_tokenizer_build(&src, ret, err);
    free(merges);
    json_decref(src.whole);
    json_decref(src.vocab);
    json_decref(src.config);
    json_decref(src.added);
    lw_arena_deinit(&tmp);
    return st;
}
