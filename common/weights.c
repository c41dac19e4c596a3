/*
 * Finding the weights of a model: which files a path stands for, and one sorted table of all their
 * tensors. Nothing here reads tensor data except the digest.
 */

#include "common/weights_impl.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/json.h"

#define MAX_SHARDS   1024
#define DIGEST_BYTES 4096 /* from each end of a tensor */

static const char *const index_names[] = { "model.safetensors.index.json",
                                           "diffusion_pytorch_model.safetensors.index.json" };
static const char *const single_names[] = { "model.safetensors",
                                            "diffusion_pytorch_model.safetensors" };
static const char *const prefixes[] = { "model.diffusion_model.", "first_stage_model.", "vae." };

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);

    return n >= m && strcmp(s + n - m, tail) == 0;
}

static const char *strip_prefix(const char *name)
{
    for (size_t i = 0; i < LW_ARRAY_LEN(prefixes); i++) {
        size_t n = strlen(prefixes[i]);

        if (strncmp(name, prefixes[i], n) == 0 && name[n])
            return name + n;
    }
    return name;
}

static lw_status no_memory(const lw_weights *w, lw_err *err)
{
    return lw_fail_errno(err, ENOMEM, w->path);
}

static int compare(const void *a, const void *b)
{
    return strcmp(((const lw_weights_entry *)a)->name, ((const lw_weights_entry *)b)->name);
}

static lw_status sort_entries(lw_weights *w, lw_err *err)
{
    if (w->n_entries == 0)
        return lw_fail(err, LW_E_FORMAT, "%s: holds no tensors", w->path);
    qsort(w->entries, w->n_entries, sizeof(*w->entries), compare);
    for (size_t i = 1; i < w->n_entries; i++)
        if (strcmp(w->entries[i - 1].name, w->entries[i].name) == 0)
            return lw_fail(err, LW_E_FORMAT,
                           "%s: \"%s\" and \"%s\" are the same tensor; it holds two models",
                           w->path, w->entries[i - 1].stored->name, w->entries[i].stored->name);
    return LW_OK;
}

/* path/name, or just name beside an index file; NULL when memory is short. */
static char *join(const char *dir, const char *name)
{
    char *s;

    return asprintf(&s, "%s/%s", dir, name) < 0 ? NULL : s;
}

static lw_status add_file(lw_weights *w, const char *path, lw_st_file **ret, lw_err *err)
{
    lw_st_file **files = realloc(w->files, (w->n_files + 1) * sizeof(*files));

    if (files == NULL)
        return no_memory(w, err);
    w->files = files;
    LW_TRY(lw_st_open(path, &files[w->n_files], err));
    *ret = files[w->n_files++];
    return LW_OK;
}

static lw_status open_single(lw_weights *w, const char *path, lw_err *err)
{
    lw_st_file *f = NULL;

    LW_TRY(add_file(w, path, &f, err));
    w->entries = calloc(f->n_entries ? f->n_entries : 1, sizeof(*w->entries));
    if (w->entries == NULL)
        return no_memory(w, err);
    w->n_entries = f->n_entries;
    for (size_t i = 0; i < f->n_entries; i++)
        w->entries[i] = (lw_weights_entry){ .name = strip_prefix(f->entries[i].name),
                                            .stored = &f->entries[i] };
    return LW_OK;
}

/* An index comes from the network: a name in it must not lead out of its folder. */
static bool is_plain_name(const char *s)
{
    return *s && strchr(s, '/') == NULL && strcmp(s, ".") != 0 && strcmp(s, "..") != 0;
}

static lw_status shard_of(lw_weights *w, const char *index, const char *dir, const char *shard,
                          const json_t *opened, lw_st_file **ret, lw_err *err)
{
    const json_t *known = json_object_get(opened, shard);
    lw_status status;
    char *path;

    if (known) {
        *ret = w->files[json_integer_value(known)];
        return LW_OK;
    }
    if (!is_plain_name(shard))
        return lw_fail(err, LW_E_FORMAT,
                       "%s: \"%.120s\" must be a plain file name in the same folder", index, shard);
    if (w->n_files == MAX_SHARDS)
        return lw_fail(err, LW_E_FORMAT, "%s: names more than %d files", index, MAX_SHARDS);
    path = join(dir, shard);
    if (path == NULL)
        return no_memory(w, err);
    status = add_file(w, path, ret, err);
    free(path);
    if (status != LW_OK)
        return lw_err_prefix(err, status, "a file named by %s", index);
    return LW_OK;
}

static lw_status read_index(lw_weights *w, const char *index, const char *dir, json_t *map,
                            json_t *opened, lw_err *err)
{
    const char *name;
    json_t *shard;

    if (!json_is_object(map))
        return lw_fail(err, LW_E_FORMAT, "%s: \"weight_map\" is missing or no object", index);
    w->entries = calloc(json_object_size(map) + 1, sizeof(*w->entries));
    if (w->entries == NULL)
        return no_memory(w, err);
    json_object_foreach(map, name, shard)
    {
        lw_weights_entry *e = &w->entries[w->n_entries];
        size_t n_before = w->n_files;
        lw_st_file *f = NULL;

        if (!json_is_string(shard))
            return lw_fail(err, LW_E_FORMAT, "%s: the file of \"%.120s\" is no text", index, name);
        LW_TRY(shard_of(w, index, dir, json_string_value(shard), opened, &f, err));
        if (w->n_files > n_before && json_object_set_new(opened, json_string_value(shard),
                                                         json_integer((json_int_t)n_before)) != 0)
            return no_memory(w, err);
        e->stored = lw_st_find(f, name);
        if (e->stored == NULL)
            return lw_fail(err, LW_E_NOT_FOUND,
                           "%s: tensor \"%.200s\" is not in it, although %s says so; fetch both "
                           "files again",
                           f->path, name, index);
        e->name = strip_prefix(e->stored->name);
        w->n_entries++;
    }
    return LW_OK;
}

static lw_status open_index(lw_weights *w, const char *index, lw_err *err)
{
    const char *slash = strrchr(index, '/');
    char *dir = slash ? strndup(index, (size_t)(slash - index)) : strdup(".");
    json_t *root = NULL, *opened = json_object();
    lw_status status = dir && opened ? lw_json_load(index, &root, err) : no_memory(w, err);

    if (status == LW_OK)
        status = read_index(w, index, dir, json_object_get(root, "weight_map"), opened, err);
    json_decref(opened);
    json_decref(root);
    free(dir);
    return status;
}

/* The first of `names` that is a file in the folder, as a path of its own; NULL when none is. */
static char *first_present(const char *dir, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char *path = join(dir, names[i]);

        if (path && access(path, F_OK) == 0)
            return path;
        free(path);
    }
    return NULL;
}

/* The only .safetensors file of a folder. */
static lw_status only_file(const lw_weights *w, char **ret, lw_err *err)
{
    DIR *dir = opendir(w->path);
    char *found = NULL;
    struct dirent *d;
    int n = 0;

    if (dir == NULL)
        return lw_fail_errno(err, errno, w->path);
    while ((d = readdir(dir)) != NULL) {
        if (!ends_with(d->d_name, ".safetensors"))
            continue;
        if (n++ == 0)
            found = join(w->path, d->d_name);
    }
    closedir(dir);
    if (n == 1 && found == NULL)
        return no_memory(w, err);
    if (n == 1) {
        *ret = found;
        return LW_OK;
    }
    free(found);
    if (n > 1)
        return lw_fail(err, LW_E_NOT_FOUND,
                       "%s: holds %d .safetensors files and no index; name the file itself",
                       w->path, n);
    return lw_fail(err, LW_E_NOT_FOUND,
                   "%s: holds no weights; looked for %s, %s and a .safetensors file", w->path,
                   index_names[0], index_names[1]);
}

static lw_status open_folder(lw_weights *w, lw_err *err)
{
    char *path = first_present(w->path, index_names, LW_ARRAY_LEN(index_names));
    lw_status status;

    if (path) {
        status = open_index(w, path, err);
        free(path);
        return status;
    }
    path = first_present(w->path, single_names, LW_ARRAY_LEN(single_names));
    if (path == NULL)
        LW_TRY(only_file(w, &path, err));
    status = open_single(w, path, err);
    free(path);
    return status;
}

static lw_status open_path(lw_weights *w, lw_err *err)
{
    struct stat st;

    if (stat(w->path, &st) != 0)
        return lw_fail_errno(err, errno, w->path);
    if (S_ISDIR(st.st_mode))
        return open_folder(w, err);
    if (ends_with(w->path, ".index.json"))
        return open_index(w, w->path, err);
    return open_single(w, w->path, err);
}

static bool decide_rounding(const lw_weights *w, uint64_t memory_bytes)
{
    uint64_t f32_bytes = 0;

    if (w->keep != LW_KEEP_AUTO)
        return w->keep == LW_KEEP_BF16;
    for (size_t i = 0; i < w->n_entries; i++) {
        const lw_tensor *t = &w->entries[i].stored->t;

        if (t->dtype == LW_F32 && t->rank >= 2)
            f32_bytes += lw_tensor_bytes(t);
    }
    return f32_bytes > memory_bytes / 2;
}

lw_status lw_weights_open_for(const char *path, lw_keep keep, uint64_t memory_bytes,
                              lw_weights **ret, lw_err *err)
{
    lw_weights *w = calloc(1, sizeof(*w));
    lw_status status;

    if (w == NULL)
        return lw_fail_errno(err, ENOMEM, path);
    w->keep = keep;
    w->path = strdup(path);
    status = w->path ? open_path(w, err) : lw_fail_errno(err, ENOMEM, path);
    if (status == LW_OK)
        status = sort_entries(w, err);
    if (status != LW_OK) {
        lw_weights_close(&w);
        return status;
    }
    w->round_f32 = decide_rounding(w, memory_bytes);
    *ret = w;
    return LW_OK;
}

lw_status lw_weights_open(const char *path, lw_keep keep, lw_weights **ret, lw_err *err)
{
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t memory =
        pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : UINT64_MAX;

    return lw_weights_open_for(path, keep, memory, ret, err);
}

void lw_weights_close(lw_weights **w)
{
    if (*w == NULL)
        return;
    for (size_t i = 0; i < (*w)->n_files; i++)
        lw_st_close(&(*w)->files[i]);
    free((*w)->files);
    free((*w)->entries);
    free((*w)->path);
    free(*w);
    *w = NULL;
}

lw_weights_entry *lw_weights_entry_find(const lw_weights *w, const char *name)
{
    const lw_weights_entry key = { .name = name };

    return bsearch(&key, w->entries, w->n_entries, sizeof(key), compare);
}

const lw_tensor *lw_weights_find(const lw_weights *w, const char *name)
{
    const lw_weights_entry *e = lw_weights_entry_find(w, name);

    return e ? &e->stored->t : NULL;
}

const lw_tensor *lw_weights_findf(const lw_weights *w, const char *fmt, ...)
{
    char name[LW_ST_MAX_NAME_BYTES + 1];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(name, sizeof(name), fmt, ap);
    va_end(ap);
    return n >= 0 && (size_t)n < sizeof(name) ? lw_weights_find(w, name) : NULL;
}

const char *lw_weights_path(const lw_weights *w)
{
    return w->path;
}

bool lw_weights_rounds_f32(const lw_weights *w)
{
    return w->round_f32;
}

void lw_weights_usage(const lw_weights *w, size_t *ret_used, size_t *ret_total)
{
    size_t used = 0;

    for (size_t i = 0; i < w->n_entries; i++)
        used += w->entries[i].used;
    *ret_used = used;
    *ret_total = w->n_entries;
}

static void hash_u64(crypto_generichash_state *h, uint64_t v)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(v >> (8 * i));
    crypto_generichash_update(h, bytes, sizeof(bytes));
}

/* Texts with their zero byte, numbers as 8 little-endian bytes: no two models share an encoding. */
static void hash_tensor(crypto_generichash_state *h, const char *name, const lw_tensor *t)
{
    const char *dtype = lw_dtype_st_name(t->dtype);
    const uint8_t *data = t->data;
    size_t bytes = lw_tensor_bytes(t);

    crypto_generichash_update(h, (const uint8_t *)name, strlen(name) + 1);
    crypto_generichash_update(h, (const uint8_t *)dtype, strlen(dtype) + 1);
    hash_u64(h, (uint64_t)t->rank);
    for (int i = 0; i < t->rank; i++)
        hash_u64(h, (uint64_t)t->shape[i]);
    if (bytes <= 2 * DIGEST_BYTES) {
        crypto_generichash_update(h, data, bytes);
        return;
    }
    crypto_generichash_update(h, data, DIGEST_BYTES);
    crypto_generichash_update(h, data + bytes - DIGEST_BYTES, DIGEST_BYTES);
}

lw_status lw_weights_digest(const lw_weights *w, char ret_hex[65], lw_err *err)
{
    uint8_t digest[32];
    crypto_generichash_state h;

    if (sodium_init() < 0)
        return lw_fail(err, LW_E_INTERNAL, "libsodium cannot be initialised");
    crypto_generichash_init(&h, NULL, 0, sizeof(digest));
    for (size_t i = 0; i < w->n_entries; i++)
        hash_tensor(&h, w->entries[i].name, &w->entries[i].stored->t);
    crypto_generichash_final(&h, digest, sizeof(digest));
    sodium_bin2hex(ret_hex, 65, digest, sizeof(digest));
    return LW_OK;
}
