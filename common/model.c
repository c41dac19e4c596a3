#include "common/model.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"

lw_status lw_model_part(const char *path, const char *const *folders, char *ret, size_t ret_bytes,
                        lw_err *err)
{
    struct stat st;

    for (; *folders != NULL; folders++) {
        int n = snprintf(ret, ret_bytes, "%s/%s", path, *folders);

        if (n < 0 || (size_t)n >= ret_bytes)
            return lw_fail(err, LW_E_INVALID, "--model: the path %.80s... is too long", path);
        if (stat(ret, &st) == 0 && S_ISDIR(st.st_mode))
            return LW_OK;
    }
    snprintf(ret, ret_bytes, "%s", path);
    return LW_OK;
}

bool lw_model_names(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

lw_status lw_model_config(const char *path, char *ret, size_t ret_bytes, bool *ret_is_folder,
                          lw_err *err)
{
    const char *slash = strrchr(path, '/');
    struct stat st;
    bool is_folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    int n = is_folder ? snprintf(ret, ret_bytes, "%s/config.json", path)
            : slash   ? snprintf(ret, ret_bytes, "%.*s/config.json", (int)(slash - path), path)
                      : snprintf(ret, ret_bytes, "config.json");

    if (n < 0 || (size_t)n >= ret_bytes)
        return lw_fail(err, LW_E_INVALID, "--model: the path %.80s... is too long", path);
    if (!lw_model_names(ret))
        ret[0] = '\0';
    *ret_is_folder = is_folder;
    return LW_OK;
}

/* The getters are sticky: the first thing wrong stays in `err`. */
static void read_defaults(const json_t *own, const char *path, lw_picture_defaults *ret,
                          lw_err *err)
{
    int64_t size[2];

    if (json_object_get(own, "size")) {
        int n = lw_json_int_array(own, path, "size", 16, 16384, size, 2, err);

        if (err->code == LW_OK && n != 2)
            (void)lw_fail(err, LW_E_FORMAT, "%s: latentwire.size has %d numbers, not 2", path, n);
        if (err->code == LW_OK) {
            ret->width = (int)size[0];
            ret->height = (int)size[1];
        }
    }
    ret->steps = (int)lw_json_int(own, path, "steps", 1, 256, true, 0, err);
}

lw_status lw_model_defaults(const char *path, lw_picture_defaults *ret, lw_err *err)
{
    lw_err local = { 0 };
    char file[4096];
    json_t *index = NULL, *own;

    *ret = (lw_picture_defaults){ 0 };
    if (snprintf(file, sizeof(file), "%s/model_index.json", path) >= (int)sizeof(file) ||
        !lw_model_names(file))
        return LW_OK;
    LW_TRY(lw_json_load(file, &index, err));
    own = json_object_get(index, "latentwire");
    if (own)
        read_defaults(own, file, ret, &local);
    json_decref(index);
    return local.code == LW_OK ? LW_OK : lw_fail(err, local.code, "%s", local.text);
}

void lw_model_id(const char *path, char *ret, size_t ret_bytes)
{
    size_t n = strlen(path), begin;

    while (n > 1 && path[n - 1] == '/')
        n--;
    for (begin = n; begin > 0 && path[begin - 1] != '/'; begin--)
        ;
    snprintf(ret, ret_bytes, "%.*s", (int)(n - begin), path + begin);
}
