#include "tests/tools/mkmodel.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/file.h"

/*
 * Values and files. Nothing larger than one piece of a tensor is ever in memory, so a checkpoint
 * of any size can be written. Headers are laid out byte for byte as the safetensors library does.
 */

#define PIECE_ITEMS  ((int64_t)1 << 16) /* made by one thread at a time */
#define BATCH_PIECES 64                 /* in memory at a time: 16 MiB of f32 */
#define HEADER_MAX   ((size_t)16 << 20)

/* ---- values ---------------------------------------------------------------------------------- */

/** FNV-1a of a name, mixed with the seed: the key of a tensor's values. */
static uint64_t key_of(const char *name, uint64_t seed)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325) ^ (seed * UINT64_C(0x9e3779b97f4a7c15));

    for (; *name != '\0'; name++)
        h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return h;
}

/** SplitMix64's output function. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/**
 * Value i of a tensor, close to normal: the sum of four 16-bit uniforms, which has variance 1/3
 * after division by 2^16. Rounded to bf16, so that files of either dtype hold the same model.
 */
static uint16_t value(uint64_t key, uint64_t i, float mean, float spread)
{
    uint64_t r = mix(key + i * UINT64_C(0x9e3779b97f4a7c15));
    int32_t sum = (int32_t)((r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48));
    float normal = (float)(sum - 131070) * (1.7320508f / 65536.0f);

    return lw_bf16_from_f32(mean + spread * normal);
}

typedef struct batch {
    const mk_tensor *t;
    uint64_t keys[MK_MAX_PARTS];
    int64_t begin, end, part_items; /* of the tensor */
    lw_dtype dtype;
    uint8_t *out;
} batch;

static void make_piece(void *arg, int thread, int64_t piece)
{
    const batch *b = arg;
    int64_t i = b->begin + piece * PIECE_ITEMS,
            end = i + PIECE_ITEMS < b->end ? i + PIECE_ITEMS : b->end;

    (void)thread;
    for (int64_t at = i - b->begin; i < end; i++, at++) {
        int64_t part = i / b->part_items;
        uint16_t v =
            value(b->keys[part], (uint64_t)(i - part * b->part_items), b->t->mean, b->t->spread);

        if (b->dtype == LW_BF16) {
            memcpy(b->out + 2 * at, &v, 2);
        } else {
            float f = lw_f32_from_bf16(v);

            memcpy(b->out + 4 * at, &f, 4);
        }
    }
}

static void write_values(lw_outfile *o, const mk_tensor *t, lw_dtype dtype, uint8_t *buf,
                         const mk_params *p)
{
    int64_t n = mk_count(t);
    batch b = { .t = t, .dtype = dtype, .out = buf, .part_items = n / t->n_parts };

    for (int i = 0; i < t->n_parts; i++)
        b.keys[i] = key_of(t->part[i], p->seed);
    for (b.begin = 0; b.begin < n; b.begin = b.end) {
        int64_t pieces;

        b.end = n - b.begin < BATCH_PIECES * PIECE_ITEMS ? n : b.begin + BATCH_PIECES * PIECE_ITEMS;
        pieces = (b.end - b.begin + PIECE_ITEMS - 1) / PIECE_ITEMS;
        lw_pool_run(p->pool, pieces, make_piece, &b);
        lw_outfile_write(o, buf, (size_t)(b.end - b.begin) * lw_dtype_size(dtype));
    }
}

/* ---- one file -------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const mk_tensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/** The header; returns the bytes of data that it promises. */
static int64_t put_header(lw_buf *h, const mk_tensor *const *t, size_t n, lw_dtype dtype, bool hf)
{
    int64_t at = 0;

    lw_buf_puts(h, hf ? "{\"__metadata__\":{\"format\":\"pt\"}" : "{");
    for (size_t i = 0; i < n; i++) {
        int64_t end = at + mk_count(t[i]) * (int64_t)lw_dtype_size(dtype);

        lw_buf_printf(h, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i > 0 || hf ? "," : "",
                      t[i]->name, lw_dtype_st_name(dtype));
        for (int d = 0; d < t[i]->rank; d++)
            lw_buf_printf(h, "%s%" PRId64, d > 0 ? "," : "", t[i]->shape[d]);
        lw_buf_printf(h, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", at, end);
        at = end;
    }
    lw_buf_putc(h, '}');
    while (h->len % 8 != 0 && !h->failed)
        lw_buf_putc(h, ' ');
    return at;
}

/** Data that is a hole in the file: skip it and write the last byte. */
static void write_hole(lw_outfile *o, int64_t header_bytes, int64_t data_bytes)
{
    static const uint8_t zero;

    if (data_bytes > 0 && o->failed == 0 &&
        lseek(o->fd, (off_t)(header_bytes + data_bytes - 1), SEEK_SET) >= 0)
        lw_outfile_write(o, &zero, 1);
}

lw_status mk_write_file(const char *path, const mk_tensor *t, size_t n, lw_dtype dtype, bool hf,
                        const mk_params *p, lw_err *err)
{
    const mk_tensor **sorted = malloc(n * sizeof(*sorted));
    uint8_t *buf = malloc((size_t)(BATCH_PIECES * PIECE_ITEMS) * sizeof(float));
    uint8_t length[8];
    lw_outfile o = { 0 };
    lw_buf header;
    lw_status s = LW_OK;
    int64_t data_bytes;

    lw_buf_init(&header, HEADER_MAX);
    if (sorted == NULL || buf == NULL) {
        s = lw_fail(err, LW_E_NOMEM, "%s: no memory to write it", path);
        goto out;
    }
    for (size_t i = 0; i < n; i++)
        sorted[i] = &t[i];
    qsort(sorted, n, sizeof(*sorted), by_name);
    data_bytes = put_header(&header, sorted, n, dtype, hf);
    if (header.failed) {
        s = lw_fail(err, LW_E_NOMEM, "%s: no memory for the header", path);
        goto out;
    }
    s = lw_outfile_open(&o, path, err);
    if (s != LW_OK)
        goto out;
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)header.len >> (8 * i));
    lw_outfile_write(&o, length, sizeof(length));
    lw_outfile_write(&o, header.data, header.len);
    if (p->sparse)
        write_hole(&o, 8 + (int64_t)header.len, data_bytes);
    else
        for (size_t i = 0; i < n && o.failed == 0; i++)
            write_values(&o, sorted[i], dtype, buf, p);
    s = lw_outfile_commit(&o, err);
    if (s == LW_OK)
        fprintf(stderr, "%s: %zu tensors, %" PRId64 " bytes\n", path, n,
                8 + (int64_t)header.len + data_bytes);
out:
    lw_outfile_abort(&o);
    lw_buf_deinit(&header);
    free(buf);
    free(sorted);
    return s;
}

/* ---- shards ---------------------------------------------------------------------------------- */

static int64_t bytes_of(const mk_tensor *t, lw_dtype dtype)
{
    return mk_count(t) * (int64_t)lw_dtype_size(dtype);
}

/** Index of the first tensor of the shard after the one that begins at `begin`. */
static size_t shard_end(const mk_list *l, size_t begin, lw_dtype dtype, int64_t max_bytes)
{
    int64_t sum = 0;
    size_t i = begin;

    while (i < l->n && (i == begin || sum + bytes_of(&l->v[i], dtype) <= max_bytes))
        sum += bytes_of(&l->v[i++], dtype);
    return i;
}

typedef struct index_entry {
    const char *name;
    int shard;
} index_entry;

static int by_entry(const void *a, const void *b)
{
    return strcmp(((const index_entry *)a)->name, ((const index_entry *)b)->name);
}

static lw_status write_index(const char *dir, const char *stem, index_entry *e, size_t n,
                             int n_shards, int64_t total, lw_err *err)
{
    char path[4096];
    lw_outfile o = { 0 };
    lw_buf b;
    lw_status s;

    lw_buf_init(&b, HEADER_MAX);
    qsort(e, n, sizeof(*e), by_entry);
    lw_buf_printf(&b, "{\n  \"metadata\": {\n    \"total_size\": %" PRId64 "\n  },\n", total);
    lw_buf_puts(&b, "  \"weight_map\": {\n");
    for (size_t i = 0; i < n; i++)
        lw_buf_printf(&b, "    \"%s\": \"%s-%05d-of-%05d.safetensors\"%s\n", e[i].name, stem,
                      e[i].shard + 1, n_shards, i + 1 < n ? "," : "");
    lw_buf_puts(&b, "  }\n}\n");
    snprintf(path, sizeof(path), "%s/%s.safetensors.index.json", dir, stem);
    s = b.failed ? lw_fail(err, LW_E_NOMEM, "%s: no memory for the index", path)
                 : lw_outfile_open(&o, path, err);
    if (s == LW_OK) {
        lw_outfile_write(&o, b.data, b.len);
        s = lw_outfile_commit(&o, err);
    }
    lw_buf_deinit(&b);
    return s;
}

lw_status mk_write_shards(const char *dir, const char *stem, const mk_list *l, lw_dtype dtype,
                          int64_t max_bytes, const mk_params *p, lw_err *err)
{
    index_entry *e;
    char path[4096];
    int n_shards = 0, shard = 0;
    int64_t total = 0;
    lw_status s = LW_OK;

    for (size_t i = 0; i < l->n; i = shard_end(l, i, dtype, max_bytes))
        n_shards++;
    if (n_shards == 1) {
        snprintf(path, sizeof(path), "%s/%s.safetensors", dir, stem);
        return mk_write_file(path, l->v, l->n, dtype, true, p, err);
    }
    e = calloc(l->n, sizeof(*e));
    if (e == NULL)
        return lw_fail(err, LW_E_NOMEM, "no memory for an index of %zu tensors", l->n);
    for (size_t i = 0, end; i < l->n && s == LW_OK; i = end, shard++) {
        end = shard_end(l, i, dtype, max_bytes);
        for (size_t j = i; j < end; j++) {
            e[j] = (index_entry){ l->v[j].name, shard };
            total += bytes_of(&l->v[j], dtype);
        }
        snprintf(path, sizeof(path), "%s/%s-%05d-of-%05d.safetensors", dir, stem, shard + 1,
                 n_shards);
        s = mk_write_file(path, l->v + i, end - i, dtype, true, p, err);
    }
    if (s == LW_OK)
        s = write_index(dir, stem, e, l->n, n_shards, total, err);
    free(e);
    return s;
}
