/*
 * Paths. The same program runs from an installation and from a build tree, so what comes with the
 * project is found from the place of the executable; nothing is compiled in.
 */

#include "encoder-svc/files.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/model.h"

#define SHIPPED "models/qwen3-tokenizer"

/* dir + middle + name; false (and an empty text) when it does not fit. */
static bool join(char ret[PATH_MAX], const char *dir, const char *middle, const char *name)
{
    int n = snprintf(ret, PATH_MAX, "%s%s%s", dir, middle, name);

    if (n < 0 || n >= PATH_MAX)
        ret[0] = '\0';
    return ret[0] != '\0';
}

static bool is_folder(const char *path)
{
    struct stat sb;

    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

static bool holds_tokenizer(const char *folder)
{
    static const char *const names[] = { "tokenizer.json", "vocab.json" };
    char path[PATH_MAX];

    for (size_t i = 0; i < LW_ARRAY_LEN(names); i++)
        if (join(path, folder, "/", names[i]) && access(path, F_OK) == 0)
            return true;
    return false;
}

static bool exe_folder(char ret[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", ret, PATH_MAX - 1);
    char *slash;

    if (n <= 0)
        return false;
    ret[n] = '\0';
    slash = strrchr(ret, '/');
    if (slash)
        *slash = '\0';
    return slash != NULL;
}

/* The tokenizer that comes with the project. */
static lw_status find_shipped(const char *model, char ret[PATH_MAX], lw_err *err)
{
    static const char *const places[] = {
        "/../share/latentwire/" SHIPPED,    /* bin */
        "/../../share/latentwire/" SHIPPED, /* libexec/latentwire */
        "/../../" SHIPPED,                  /* build folder in the source tree */
        "/../../../" SHIPPED,               /* the same, one deeper: build/release */
    };
    const char *data = getenv("LATENTWIRE_DATA_DIR");
    char exe[PATH_MAX];

    if (data && *data && join(ret, data, "/", SHIPPED) && holds_tokenizer(ret))
        return LW_OK;
    if (!exe_folder(exe))
        return lw_fail(err, LW_E_IO, "cannot read /proc/self/exe; is /proc mounted?");
    for (size_t i = 0; i < LW_ARRAY_LEN(places); i++)
        if (join(ret, exe, "", places[i]) && holds_tokenizer(ret))
            return LW_OK;
    return lw_fail(err, LW_E_NOT_FOUND,
                   "%s comes without a tokenizer, and the one of the project was not found ($"
                   "LATENTWIRE_DATA_DIR/" SHIPPED ", or around %.300s); name one with --tokenizer",
                   model, exe);
}

static lw_status find_tokenizer(const char *model, const char *weights, char ret[PATH_MAX],
                                lw_err *err)
{
    if (is_folder(weights)) {
        if (join(ret, model, "/", "tokenizer") && holds_tokenizer(ret))
            return LW_OK;
        if (join(ret, weights, "", "") && holds_tokenizer(ret))
            return LW_OK;
        if (join(ret, weights, "/../", "tokenizer") && holds_tokenizer(ret))
            return LW_OK;
    }
    return find_shipped(model, ret, err);
}

lw_status lw_encoder_find(const char *model, const char *tokenizer, lw_encoder_files *ret,
                          lw_err *err)
{
    static const char *const inside[] = { "text_encoder", "text_encoders",
                                          "split_files/text_encoders", NULL };

    if (!model || !*model)
        return lw_fail(err, LW_E_INVALID, "--model: give a model folder or a text encoder file");
    if (access(model, F_OK) != 0)
        return lw_fail(err, LW_E_NOT_FOUND, "--model %s: no such file or folder", model);
    LW_TRY(lw_model_part(model, inside, ret->weights, sizeof(ret->weights), err));
    if (!tokenizer || !*tokenizer)
        return find_tokenizer(model, ret->weights, ret->tokenizer, err);
    if (!join(ret->tokenizer, tokenizer, "", "") || !holds_tokenizer(tokenizer))
        return lw_fail(err, LW_E_NOT_FOUND,
                       "--tokenizer %.300s: holds neither tokenizer.json nor vocab.json",
                       tokenizer);
    return LW_OK;
}
