/*
 * The writer of safetensors files. Data is laid out by alignment, largest first, then by name:
 * every tensor is aligned to its items although nothing lies between two tensors, so a reader can
 * use the mapping as it is. Bytes in multiples of 64 (packed weights) are aligned to 64, and come
 * first. The same input gives the same bytes.
 */

#include "common/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/size.h"
#include "common/utf8.h"

typedef struct item {
    const lw_st_entry *e;
    uint64_t begin, end;
} item;

static int by_name(const void *pa, const void *pb)
{
    return strcmp(((const item *)pa)->e->name, ((const item *)pb)->e->name);
}

static size_t alignment(const lw_tensor *t)
{
    bool packed = t->dtype == LW_U8 && t->rank == 1 && t->shape[0] > 0 && t->shape[0] % 64 == 0;

    return packed ? 64 : lw_dtype_size(t->dtype);
}

static int by_layout(const void *pa, const void *pb)
{
    size_t a = alignment(&((const item *)pa)->e->t), b = alignment(&((const item *)pb)->e->t);

    return a != b ? (a > b ? -1 : 1) : by_name(pa, pb);
}

/* Give every tensor its place; items end sorted by name. */
static lw_status lay_out(item *items, size_t n, const char *path, lw_err *err)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        const char *fault = lw_st_name_fault(items[i].e->name);

        if (fault)
            return lw_fail(err, LW_E_INVALID, "%s: \"%.80s\": %s", path, items[i].e->name, fault);
    }
    qsort(items, n, sizeof(*items), by_layout);
    for (size_t i = 0; i < n; i++) {
        const lw_tensor *t = &items[i].e->t;
        size_t bytes;

        if (lw_shape_bytes(t->dtype, t->rank, t->shape, &bytes, err) != LW_OK ||
            !lw_size_add(at, bytes, &bytes) || bytes > INT64_MAX)
            return lw_fail(err, LW_E_INVALID, "%s: tensor \"%s\" is absent or too large", path,
                           items[i].e->name);
        items[i].begin = at;
        items[i].end = at = bytes;
    }
    qsort(items, n, sizeof(*items), by_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(items[i - 1].e->name, items[i].e->name) == 0)
            return lw_fail(err, LW_E_INVALID, "%s: tensor \"%s\" is given twice", path,
                           items[i].e->name);
    return LW_OK;
}

static lw_status check_metadata(const lw_st_meta *metadata, size_t n, const char *path, lw_err *err)
{
    for (size_t i = 0; i < n; i++)
        if (!lw_utf8_valid(metadata[i].key, strlen(metadata[i].key)) ||
            !lw_utf8_valid(metadata[i].value, strlen(metadata[i].value)))
            return lw_fail(err, LW_E_INVALID, "%s: metadata \"%.80s\" is not UTF-8", path,
                           metadata[i].key);
    return LW_OK;
}

static json_t *entry_json(const item *it)
{
    const lw_tensor *t = &it->e->t;
    json_t *shape = json_array();

    for (int i = 0; i < t->rank; i++)
        json_array_append_new(shape, json_integer(t->shape[i]));
    if (json_array_size(shape) != (size_t)t->rank) { /* memory ran out on the way */
        json_decref(shape);
        return NULL;
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", lw_dtype_st_name(t->dtype), "shape", shape,
                     "data_offsets", (json_int_t)it->begin, (json_int_t)it->end);
}

/* The JSON text, or NULL when memory is short. free() it. */
static char *header_text(const item *items, size_t n, const lw_st_meta *metadata, size_t n_metadata)
{
    json_t *root = json_object(), *meta = n_metadata ? json_object() : NULL;
    bool ok = root && (meta || n_metadata == 0);
    char *text = NULL;

    for (size_t i = 0; ok && i < n_metadata; i++)
        ok = json_object_set_new(meta, metadata[i].key, json_string(metadata[i].value)) == 0;
    if (ok && meta)
        ok = json_object_set(root, "__metadata__", meta) == 0;
    for (size_t i = 0; ok && i < n; i++)
        ok = json_object_set_new(root, items[i].e->name, entry_json(&items[i])) == 0;
    if (ok)
        text = json_dumps(root, JSON_COMPACT);
    json_decref(meta);
    json_decref(root);
    return text;
}

/* So that the data begins at a multiple of `align`, 8 or more. */
static void write_header(lw_outfile *o, const char *text, size_t align)
{
    size_t len = strlen(text), padded = lw_size_align(8 + len, align) - 8;
    uint8_t prefix[8];
    char spaces[64];

    memset(spaces, ' ', sizeof(spaces));

    for (int i = 0; i < 8; i++)
        prefix[i] = (uint8_t)((uint64_t)padded >> (8 * i));
    lw_outfile_write(o, prefix, sizeof(prefix));
    lw_outfile_write(o, text, len);
    lw_outfile_write(o, spaces, padded - len);
}

/* A tensor that is made now, in memory that lives until it is written. */
static lw_status write_made(lw_outfile *o, const item *it, const lw_st_entry *entries,
                            lw_st_make *make, void *arg, lw_err *err)
{
    size_t bytes = it->end - it->begin;
    void *data = aligned_alloc(64, lw_size_align(bytes ? bytes : 1, 64));
    lw_status status;

    if (data == NULL)
        return lw_fail_errno(err, ENOMEM, it->e->name);
    status = make(arg, (size_t)(it->e - entries), data, err);
    if (status == LW_OK)
        lw_outfile_write(o, data, bytes);
    free(data);
    return status;
}

static void write_tensor(lw_outfile *o, const lw_tensor *t)
{
    if (lw_tensor_is_contiguous(t)) {
        lw_outfile_write(o, t->data, lw_tensor_bytes(t));
        return;
    }
    for (int64_t r = 0; r < t->shape[0]; r++) {
        lw_tensor row = lw_tensor_rows(t, r, 1);

        lw_outfile_write(o, row.data, lw_tensor_bytes(&row));
    }
}

lw_status lw_st_write(const char *path, const lw_st_entry *entries, size_t n_entries,
                      const lw_st_meta *metadata, size_t n_metadata, lw_err *err)
{
    return lw_st_write_made(path, entries, n_entries, metadata, n_metadata, NULL, NULL, err);
}

lw_status lw_st_write_made(const char *path, const lw_st_entry *entries, size_t n_entries,
                           const lw_st_meta *metadata, size_t n_metadata, lw_st_make *make,
                           void *arg, lw_err *err)
{
    item *items = calloc(n_entries ? n_entries : 1, sizeof(*items));
    char *text = NULL;
    lw_outfile out = { 0 };
    lw_status status;

    if (items == NULL)
        return lw_fail_errno(err, ENOMEM, path);
    for (size_t i = 0; i < n_entries; i++)
        items[i].e = &entries[i];
    status = check_metadata(metadata, n_metadata, path, err);
    if (status == LW_OK)
        status = lay_out(items, n_entries, path, err);
    if (status != LW_OK)
        goto out;
    text = header_text(items, n_entries, metadata, n_metadata);
    if (text == NULL) {
        status = lw_fail_errno(err, ENOMEM, path);
        goto out;
    }
    if (strlen(text) > LW_ST_MAX_HEADER_BYTES) {
        status = lw_fail(err, LW_E_INVALID, "%s: a header of %zu bytes is more than readers take",
                         path, strlen(text));
        goto out;
    }
    status = lw_outfile_open(&out, path, err);
    if (status != LW_OK)
        goto out;
    qsort(items, n_entries, sizeof(*items), by_layout);
    write_header(&out, text, n_entries && alignment(&items[0].e->t) == 64 ? 64 : 8);
    for (size_t i = 0; i < n_entries && status == LW_OK; i++) {
        if (make != NULL && items[i].e->t.data == NULL)
            status = write_made(&out, &items[i], entries, make, arg, err);
        else
            write_tensor(&out, &items[i].e->t);
    }
    if (status == LW_OK)
        status = lw_outfile_commit(&out, err);
    else
        lw_outfile_abort(&out);
out:
    free(text);
    free(items);
    return status;
}
