/* Names and files of pictures. */

#include "orchestrate/output.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/png.h"
#include "orchestrate/manifest.h"

#define MAX_SUFFIX 9999

static bool is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The one "%d" or "%04d" of a name; 0 digits = no padding. NULL when there is none. */
static const char *find_number(const char *pattern, size_t *ret_len, int *ret_digits)
{
    for (const char *p = strchr(pattern, '%'); p; p = strchr(p + 1, '%')) {
        const char *q = p + 1;
        int digits = 0;

        if (*q == '0' && isdigit((unsigned char)q[1])) {
            digits = q[1] - '0';
            q += 2;
        }
        if (*q == 'd') {
            *ret_len = (size_t)(q + 1 - p);
            *ret_digits = digits;
            return p;
        }
    }
    return NULL;
}

/* Length of a path without the extension of its last part. */
static size_t stem_length(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');

    return dot && dot != name ? (size_t)(dot - path) : strlen(path);
}

lw_status lw_output_check_file(const char *path, lw_err *err)
{
    const char *slash = strrchr(path, '/');
    char dir[PATH_MAX] = ".";

    if (strlen(path) >= sizeof(dir) || path[0] == 0)
        return lw_fail(err, LW_E_INVALID, "--output: the name is %s",
                       path[0] ? "too long" : "empty");
    if (slash == path)
        snprintf(dir, sizeof(dir), "/");
    else if (slash)
        snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
    if (!is_dir(dir))
        return lw_fail(err, LW_E_NOT_FOUND, "--output: there is no folder %s", dir);
    if (access(dir, W_OK))
        return lw_fail(err, LW_E_DENIED, "--output: cannot write into %s: %s", dir,
                       strerror(errno));
    return LW_OK;
}

lw_status lw_output_check(const lw_output *o, lw_err *err)
{
    static const char *const others[] = {
        ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".safetensors"
    };
    size_t stem;

    if (!o->pattern)
        return lw_output_check_file("x", err);
    if (!strcmp(o->pattern, "-")) {
        if (o->count > 1)
            return lw_fail(err, LW_E_INVALID,
                           "--output: standard output takes one picture, not %llu",
                           (unsigned long long)o->count);
        return LW_OK;
    }
    if (is_dir(o->pattern)) {
        if (access(o->pattern, W_OK))
            return lw_fail(err, LW_E_DENIED, "--output: cannot write into %s: %s", o->pattern,
                           strerror(errno));
        return LW_OK;
    }
    stem = stem_length(o->pattern);
    for (size_t i = 0; i < LW_ARRAY_LEN(others); i++)
        if (!strcasecmp(o->pattern + stem, others[i]))
            return lw_fail(err, LW_E_INVALID,
                           "--output: %s: pictures are written as PNG; name it %.*s.png",
                           o->pattern, (int)stem, o->pattern);
    return lw_output_check_file(o->pattern, err);
}

/* A name after the seed that no file has yet. */
static int free_name(const char *dir, uint64_t seed, char ret[PATH_MAX])
{
    for (int k = 1; k <= MAX_SUFFIX; k++) {
        char suffix[16] = "";
        int n;

        if (k > 1)
            snprintf(suffix, sizeof(suffix), "-%d", k);
        n = snprintf(ret, PATH_MAX, "%s%slatentwire-%llu%s.png", dir ? dir : "", dir ? "/" : "",
                     (unsigned long long)seed, suffix);
        if (n >= PATH_MAX || access(ret, F_OK))
            return n;
    }
    return -1;
}

lw_status lw_output_path(const lw_output *o, uint64_t index, uint64_t seed, char ret[PATH_MAX],
                         lw_err *err)
{
    const char *number;
    size_t len;
    int digits, n;

    if (!o->pattern || is_dir(o->pattern)) {
        n = free_name(o->pattern, seed, ret);
        if (n < 0)
            return lw_fail(err, LW_E_IO,
                           "there are %d files latentwire-%llu*.png already; name the "
                           "output with -o",
                           MAX_SUFFIX, (unsigned long long)seed);
    } else if ((number = find_number(o->pattern, &len, &digits))) {
        n = snprintf(ret, PATH_MAX, "%.*s%0*llu%s", (int)(number - o->pattern), o->pattern, digits,
                     (unsigned long long)index + 1, number + len);
    } else if (o->count > 1) {
        size_t stem = stem_length(o->pattern);

        n = snprintf(ret, PATH_MAX, "%.*s-%llu%s", (int)stem, o->pattern,
                     (unsigned long long)index + 1, o->pattern + stem);
    } else {
        n = snprintf(ret, PATH_MAX, "%s", o->pattern);
    }
    if (n < 0 || n >= PATH_MAX)
        return lw_fail(err, LW_E_INVALID, "--output: the name of picture %llu is too long",
                       (unsigned long long)index + 1);
    return LW_OK;
}

lw_status lw_output_encode(lw_buf *out, const uint8_t *rgb, int width, int height,
                           const json_t *manifest, lw_err *err)
{
    char *text = lw_manifest_text(manifest), *parameters = lw_manifest_parameters(manifest);
    const lw_png_text texts[] = { { "parameters", parameters }, { LW_MANIFEST_KEY, text } };
    lw_status s;

    if (text && parameters)
        s = lw_png_encode(out, rgb, width, height, texts, LW_ARRAY_LEN(texts), err);
    else
        s = lw_fail(err, LW_E_NOMEM, "no memory for the manifest of a picture");
    free(text);
    free(parameters);
    return s;
}

lw_status lw_output_save(const char *path, const lw_buf *png, lw_err *err)
{
    lw_outfile file = { 0 };

    LW_TRY(lw_outfile_open(&file, path, err));
    lw_outfile_write(&file, png->data, png->len);
    return lw_outfile_commit(&file, err);
}

static lw_status write_one(const char *path, const uint8_t *rgb, int width, int height,
                           const json_t *manifest, lw_err *err)
{
    lw_status s;
    lw_buf png;

    lw_buf_init(&png, LW_MAX_PICTURE_FILE);
    s = lw_output_encode(&png, rgb, width, height, manifest, err);
    if (s == LW_OK)
        s = lw_output_save(path, &png, err);
    lw_buf_deinit(&png);
    return s;
}

lw_status lw_output_keep(lw_kept_pictures **list, lw_arena *a, const lw_msg *result,
                         const json_t *manifest, uint64_t first, lw_err *err)
{
    const lw_msg_tensor *mt = lw_msg_tensor_find(result, LW_T_IMAGE);
    const int64_t *shape = mt ? mt->t.shape : NULL;
    lw_kept_pictures *k;

    if (!mt || mt->t.dtype != LW_U8 || mt->t.rank != 4 || shape[3] != 3 || shape[1] < 1 ||
        shape[2] < 1 || shape[1] > 65536 || shape[2] > 65536) {
        char found[128] = "none";

        if (mt)
            lw_tensor_describe(&mt->t, found, sizeof(found));
        return lw_fail(err, LW_E_SHAPE,
                       "the result has no picture: expected a tensor \"image\" uint8 [n, H, W, 3], "
                       "got %s",
                       found);
    }
    k = lw_arena_calloc(a, 1, sizeof(*k), err);
    if (!k)
        return LW_E_NOMEM;
    *k = (lw_kept_pictures){ .next = *list, .t = mt->t, .first = first };
    *list = k;
    k->frame =
        mt->frame ? lw_frame_ref(mt->frame) : lw_frame_copy(mt->t.data, lw_tensor_bytes(&mt->t));
    k->manifest = json_copy((json_t *)manifest);
    if (!k->frame || !k->manifest ||
        json_object_set_new(k->manifest, "width", json_integer(shape[2])) ||
        json_object_set_new(k->manifest, "height", json_integer(shape[1])))
        return lw_fail(err, LW_E_NOMEM, "no memory for the pictures");
    k->t.data = (void *)lw_frame_data(k->frame);
    return LW_OK;
}

static lw_status write_kept(const lw_output *o, const lw_kept_pictures *k, lw_output_fn *on_written,
                            void *arg, lw_err *err)
{
    const int height = (int)k->t.shape[1], width = (int)k->t.shape[2];
    const size_t bytes = (size_t)height * (size_t)width * 3;

    for (int64_t i = 0; i < k->t.shape[0]; i++) {
        json_t *own = lw_manifest_picture(k->manifest, (uint64_t)i);
        uint64_t seed = (uint64_t)json_integer_value(json_object_get(own, "seed"));
        char path[PATH_MAX];
        lw_status s = own ? lw_output_path(o, k->first + (uint64_t)i, seed, path, err)
                          : lw_fail(err, LW_E_NOMEM, "no memory for the manifest");

        if (s == LW_OK)
            s = write_one(path, (const uint8_t *)k->t.data + (size_t)i * bytes, width, height, own,
                          err);
        json_decref(own);
        if (s == LW_OK)
            s = on_written(arg, k->first + (uint64_t)i, seed, path, err);
        if (s != LW_OK)
            return s;
    }
    return LW_OK;
}

lw_status lw_output_write(const lw_output *o, const lw_kept_pictures *list,
                          lw_output_fn *on_written, void *arg, lw_err *err)
{
    for (const lw_kept_pictures *k = list; k; k = k->next)
        if (k->frame && k->manifest)
            LW_TRY(write_kept(o, k, on_written, arg, err));
    return LW_OK;
}

void lw_output_drop(lw_kept_pictures **list)
{
    for (lw_kept_pictures *k = *list; k; k = k->next) {
        lw_frame_unref(&k->frame);
        json_decref(k->manifest);
        k->manifest = NULL;
    }
    *list = NULL;
}
