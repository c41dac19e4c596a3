/*
 * The reader of safetensors files.
 *
 *     0        8                8 + N                        end
 *     | u64 N  | JSON, N bytes  | tensor | tensor | ... tensor |
 *
 * Every offset in the JSON counts from 8 + N. The order of checks matters: lengths before they are
 * used as pointers, the size of the JSON tree before it is built, shapes before they are
 * multiplied, and the tiling of the data area last, when every single range is known to be sane.
 */

#include "common/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/json.h"
#include "common/utf8.h"

/* A tensor costs about 4 + rank commas, so this is far above what LW_ST_MAX_TENSORS need and keeps
 * the JSON tree below some 100 MB whatever the header holds. */
#define MAX_COMMAS (LW_ST_MAX_TENSORS * 16)
#define MAX_DEPTH  3 /* file, tensor, shape */

typedef struct range {
    uint64_t begin, end;
    const char *name;
} range;

static lw_status bad(const lw_st_file *f, lw_err *err, const char *what)
{
    return lw_fail(err, LW_E_FORMAT, "%s: not a sound safetensors file: %s", f->path, what);
}

/* Count what jansson would have to allocate, without allocating. */
static lw_status prescan(const lw_st_file *f, const uint8_t *s, size_t n, lw_err *err)
{
    size_t commas = 0;
    int depth = 0;
    bool in_string = false;

    if (n == 0 || s[0] != '{')
        return bad(f, err, "the header does not start with '{'");
    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            if (s[i] == '\\')
                i++;
            else if (s[i] == '"')
                in_string = false;
        } else if (s[i] == '"') {
            in_string = true;
        } else if (s[i] == ',') {
            commas++;
        } else if (s[i] == '{' || s[i] == '[') {
            if (++depth > MAX_DEPTH)
                return bad(f, err, "the header is nested too deeply");
        } else if (s[i] == '}' || s[i] == ']') {
            depth--;
        }
    }
    if (commas > MAX_COMMAS)
        return bad(f, err, "the header lists more values than any model has");
    return LW_OK;
}

/* Names are shown to people and compared as C strings. */
const char *lw_st_name_fault(const char *name)
{
    size_t n = strlen(name);

    if (n == 0)
        return "a tensor has an empty name";
    if (n > LW_ST_MAX_NAME_BYTES)
        return "a tensor's name is too long";
    if (strcmp(name, "__metadata__") == 0)
        return "a tensor is named like the metadata";
    if (!lw_utf8_valid(name, n))
        return "a tensor's name is not UTF-8";
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return "a tensor's name holds control characters";
    return NULL;
}

static lw_status parse_dtype(const lw_st_file *f, const char *name, const json_t *info,
                             lw_dtype *ret, lw_err *err)
{
    /* The types of the format that the models here have no use for. */
    static const char *const others[] = { "BOOL", "I16",     "U16", "U32",     "U64",    "F64",
                                          "C64",  "F8_E8M0", "F4",  "F6_E2M3", "F6_E3M2" };
    const json_t *v = json_object_get(info, "dtype");
    const char *s = json_string_value(v);
    lw_dtype d;

    if (s == NULL)
        return lw_fail(err, LW_E_FORMAT, "%s: tensor \"%s\": no dtype", f->path, name);
    d = lw_dtype_from_st_name(s, strlen(s));
    if (d == LW_DTYPE_NONE) {
        for (size_t i = 0; i < LW_ARRAY_LEN(others); i++)
            if (strcmp(s, others[i]) == 0)
                return lw_fail(err, LW_E_UNIMPLEMENTED,
                               "%s: tensor \"%s\": dtype %s cannot be used; convert it to F32 or "
                               "BF16",
                               f->path, name, s);
        return lw_fail(err, LW_E_FORMAT, "%s: tensor \"%s\": unknown dtype \"%.32s\"", f->path,
                       name, s);
    }
    *ret = d;
    return LW_OK;
}

static lw_status parse_shape(const lw_st_file *f, const char *name, const json_t *info,
                             lw_dtype dtype, lw_tensor *ret, uint64_t *ret_bytes, lw_err *err)
{
    const json_t *v = json_object_get(info, "shape");
    int64_t shape[LW_MAX_RANK];
    size_t rank = json_array_size(v), bytes = 0;
    lw_status status;

    if (!json_is_array(v))
        return lw_fail(err, LW_E_FORMAT, "%s: tensor \"%s\": no shape", f->path, name);
    if (rank > LW_MAX_RANK)
        return lw_fail(err, LW_E_FORMAT, "%s: tensor \"%s\": %zu dimensions, at most %d are read",
                       f->path, name, rank, LW_MAX_RANK);
    for (size_t i = 0; i < rank; i++) {
        const json_t *dim = json_array_get(v, i);

        if (!json_is_integer(dim))
            return lw_fail(err, LW_E_FORMAT, "%s: tensor \"%s\": dimension %zu is no integer",
                           f->path, name, i);
        shape[i] = json_integer_value(dim);
    }
    status = lw_shape_bytes(dtype, (int)rank, shape, &bytes, err);
    if (status != LW_OK) {
        lw_err_prefix(err, status, "%s: tensor \"%s\"", f->path, name);
        if (err)
            err->code = LW_E_FORMAT;
        return LW_E_FORMAT;
    }
    *ret = lw_tensor_nd(NULL, dtype, (int)rank, shape);
    *ret_bytes = bytes;
    return LW_OK;
}

static lw_status parse_range(const lw_st_file *f, const char *name, const json_t *info,
                             uint64_t bytes, uint64_t data_bytes, range *ret, lw_err *err)
{
    const json_t *v = json_object_get(info, "data_offsets");
    const json_t *begin = json_array_get(v, 0), *end = json_array_get(v, 1);
    int64_t b, e;

    if (json_array_size(v) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return lw_fail(err, LW_E_FORMAT, "%s: tensor \"%s\": data_offsets are not two integers",
                       f->path, name);
    b = json_integer_value(begin);
    e = json_integer_value(end);
    if (b < 0 || e < b || (uint64_t)e > data_bytes)
        return lw_fail(err, LW_E_FORMAT,
                       "%s: tensor \"%s\": data_offsets [%" PRId64 ", %" PRId64
                       "] lie outside the %" PRIu64
                       " bytes of data; is the file complete (download cut short)?",
                       f->path, name, b, e, data_bytes);
    if ((uint64_t)(e - b) != bytes)
        return lw_fail(err, LW_E_FORMAT,
                       "%s: tensor \"%s\": data_offsets hold %" PRId64
                       " bytes, its dtype and shape need %" PRIu64,
                       f->path, name, e - b, bytes);
    *ret = (range){ (uint64_t)b, (uint64_t)e, name };
    return LW_OK;
}

static int compare_ranges(const void *pa, const void *pb)
{
    const range *a = pa, *b = pb;

    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    return a->end < b->end ? -1 : a->end > b->end;
}

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const lw_st_entry *)a)->name, ((const lw_st_entry *)b)->name);
}

/* The format says that tensors tile the data area; anything else could hide or share bytes. */
static lw_status check_tiling(const lw_st_file *f, range *ranges, size_t n, uint64_t data_bytes,
                              lw_err *err)
{
    uint64_t at = 0;

    qsort(ranges, n, sizeof(*ranges), compare_ranges);
    for (size_t i = 0; i < n; i++) {
        if (ranges[i].begin < at)
            return lw_fail(err, LW_E_FORMAT, "%s: tensors \"%s\" and \"%s\" overlap", f->path,
                           ranges[i - 1].name, ranges[i].name);
        if (ranges[i].begin > at)
            return lw_fail(err, LW_E_FORMAT,
                           "%s: %" PRIu64 " bytes before tensor \"%s\" belong to no tensor",
                           f->path, ranges[i].begin - at, ranges[i].name);
        at = ranges[i].end;
    }
    if (at != data_bytes)
        return lw_fail(err, LW_E_FORMAT, "%s: %" PRIu64 " bytes at its end belong to no tensor",
                       f->path, data_bytes - at);
    return LW_OK;
}

static lw_status parse_metadata(lw_st_file *f, json_t *obj, lw_err *err)
{
    const char *key;
    json_t *value;

    if (!json_is_object(obj))
        return bad(f, err, "__metadata__ is not an object");
    f->metadata = lw_arena_calloc(&f->arena, json_object_size(obj), sizeof(*f->metadata), err);
    if (f->metadata == NULL)
        return LW_E_NOMEM;
    json_object_foreach(obj, key, value)
    {
        lw_st_meta *m = &f->metadata[f->n_metadata];

        if (!json_is_string(value))
            return bad(f, err, "__metadata__ holds a value that is no text");
        m->key = lw_arena_strndup(&f->arena, key, strlen(key), err);
        m->value =
            lw_arena_strndup(&f->arena, json_string_value(value), json_string_length(value), err);
        if (m->key == NULL || m->value == NULL)
            return LW_E_NOMEM;
        f->n_metadata++;
    }
    return LW_OK;
}

static lw_status parse_entries(lw_st_file *f, json_t *root, uint8_t *data, uint64_t data_bytes,
                               lw_err *err)
{
    size_t n = json_object_size(root);
    lw_arena_mark mark;
    const char *key;
    range *ranges;
    json_t *info;

    if (n > LW_ST_MAX_TENSORS)
        return bad(f, err, "it lists more tensors than any model has");
    f->entries = lw_arena_calloc(&f->arena, n, sizeof(*f->entries), err);
    if (f->entries == NULL)
        return LW_E_NOMEM;
    json_object_foreach(root, key, info)
    {
        lw_st_entry *e = &f->entries[f->n_entries];
        const char *fault;

        if (strcmp(key, "__metadata__") == 0) {
            LW_TRY(parse_metadata(f, info, err));
            continue;
        }
        fault = lw_st_name_fault(key);
        if (fault)
            return bad(f, err, fault);
        e->name = lw_arena_strndup(&f->arena, key, strlen(key), err);
        if (e->name == NULL)
            return LW_E_NOMEM;
        f->n_entries++;
    }
    qsort(f->entries, f->n_entries, sizeof(*f->entries), compare_entries);

    mark = lw_arena_mark_get(&f->arena);
    ranges = lw_arena_calloc(&f->arena, f->n_entries, sizeof(*ranges), err);
    if (ranges == NULL)
        return LW_E_NOMEM;
    for (size_t i = 0; i < f->n_entries; i++) {
        lw_st_entry *e = &f->entries[i];
        lw_dtype dtype = LW_DTYPE_NONE;
        uint64_t bytes = 0;

        info = json_object_get(root, e->name);
        if (!json_is_object(info))
            return lw_fail(err, LW_E_FORMAT, "%s: tensor \"%s\" is not described by an object",
                           f->path, e->name);
        LW_TRY(parse_dtype(f, e->name, info, &dtype, err));
        LW_TRY(parse_shape(f, e->name, info, dtype, &e->t, &bytes, err));
        LW_TRY(parse_range(f, e->name, info, bytes, data_bytes, &ranges[i], err));
        e->t.data = data + ranges[i].begin;
    }
    LW_TRY(check_tiling(f, ranges, f->n_entries, data_bytes, err));
    lw_arena_release(&f->arena, mark);
    return LW_OK;
}

static lw_status parse(lw_st_file *f, uint8_t *bytes, size_t size, lw_err *err)
{
    uint64_t header = 0;
    json_t *root = NULL;
    const char *label;
    lw_status status;

    if (size < 8)
        return lw_fail(err, LW_E_FORMAT, "%s: %zu bytes are too few for a safetensors file",
                       f->path, size);
    for (int i = 7; i >= 0; i--)
        header = header << 8 | bytes[i];
    if (header > LW_ST_MAX_HEADER_BYTES)
        return lw_fail(err, LW_E_FORMAT,
                       "%s: not a safetensors file: it would have a header of %" PRIu64
                       " bytes (at most %u are read)",
                       f->path, header, LW_ST_MAX_HEADER_BYTES);
    if (header > size - 8)
        return lw_fail(err, LW_E_FORMAT,
                       "%s: the header needs %" PRIu64 " bytes and the file ends after %zu; is it "
                       "complete (download cut short)?",
                       f->path, header, size - 8);
    LW_TRY(prescan(f, bytes + 8, (size_t)header, err));
    label = lw_arena_printf(&f->arena, err, "%s: header", f->path);
    if (label == NULL)
        return LW_E_NOMEM;
    LW_TRY(lw_json_parse((const char *)bytes + 8, (size_t)header, label, &root, err));
    status = json_is_object(root)
                 ? parse_entries(f, root, bytes + 8 + header, size - 8 - header, err)
                 : bad(f, err, "the header is not an object");
    json_decref(root);
    return status;
}

static lw_status file_new(const char *path, lw_st_file **ret, lw_err *err)
{
    lw_st_file *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return lw_fail_errno(err, ENOMEM, path);
    lw_arena_init(&f->arena, "safetensors header", 0);
    f->path = lw_arena_strndup(&f->arena, path, strlen(path), err);
    if (f->path == NULL) {
        lw_st_close(&f);
        return LW_E_NOMEM;
    }
    *ret = f;
    return LW_OK;
}

static lw_status map_file(lw_st_file *f, lw_err *err)
{
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), cause = 0;
    struct stat st;

    if (fd < 0)
        return lw_fail_errno(err, errno, f->path);
    if (fstat(fd, &st) != 0) {
        cause = errno;
    } else if (!S_ISREG(st.st_mode)) {
        close(fd);
        return lw_fail(err, LW_E_FORMAT, "%s: expected a safetensors file, found %s", f->path,
                       S_ISDIR(st.st_mode) ? "a folder" : "a special file");
    } else if (st.st_size > 0) {
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);

        if (map == MAP_FAILED) {
            cause = errno;
        } else {
            f->map = map;
            f->map_bytes = (size_t)st.st_size;
        }
    }
    close(fd);
    return cause ? lw_fail_errno(err, cause, f->path) : LW_OK;
}

lw_status lw_st_open(const char *path, lw_st_file **ret, lw_err *err)
{
    lw_st_file *f = NULL;
    lw_status status;

    LW_TRY(file_new(path, &f, err));
    status = map_file(f, err);
    if (status == LW_OK)
        status = parse(f, f->map, f->map_bytes, err);
    if (status != LW_OK) {
        lw_st_close(&f);
        return status;
    }
    *ret = f;
    return LW_OK;
}

lw_status lw_st_open_memory(const void *data, size_t size_bytes, const char *label,
                            lw_st_file **ret, lw_err *err)
{
    lw_st_file *f = NULL;
    lw_status status;

    LW_TRY(file_new(label, &f, err));
    /* Tensors are plain `void *` views; nothing writes through those of a file. */
    status = parse(f, (uint8_t *)(uintptr_t)data, size_bytes, err);
    if (status != LW_OK) {
        lw_st_close(&f);
        return status;
    }
    *ret = f;
    return LW_OK;
}

void lw_st_close(lw_st_file **f)
{
    if (*f == NULL)
        return;
    if ((*f)->map)
        munmap((*f)->map, (*f)->map_bytes);
    lw_arena_deinit(&(*f)->arena);
    free(*f);
    *f = NULL;
}

const lw_st_entry *lw_st_find(const lw_st_file *f, const char *name)
{
    const lw_st_entry key = { .name = name };

    if (f->n_entries == 0)
        return NULL;
    return bsearch(&key, f->entries, f->n_entries, sizeof(key), compare_entries);
}

const char *lw_st_metadata(const lw_st_file *f, const char *key)
{
    for (size_t i = 0; i < f->n_metadata; i++)
        if (strcmp(f->metadata[i].key, key) == 0)
            return f->metadata[i].value;
    return NULL;
}
