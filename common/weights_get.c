/*
 * The typed getters: what is stored becomes what a model multiplies with, or an error that names
 * the tensor, what was found, what was expected and what to do.
 */

#include "common/weights_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK 1024 /* items widened at a time while converting; a few KiB of stack */

static void expected_text(char *buf, size_t size, int rank, const int64_t *shape)
{
    /* Only the shape: any dtype that the getters read will do. */
    lw_tensor t = lw_tensor_nd(NULL, LW_F32, rank, shape);
    char text[160];

    lw_tensor_describe(&t, text, sizeof(text));
    snprintf(buf, size, "%s", strchr(text, '['));
}

static lw_status find(lw_weights *w, const char *name, int rank, const int64_t *shape,
                      lw_weights_entry **ret, lw_err *err)
{
    lw_weights_entry *e = lw_weights_entry_find(w, name);
    char expected[160];

    if (e == NULL) {
        expected_text(expected, sizeof(expected), rank, shape);
        return lw_fail(
            err, LW_E_NOT_FOUND,
            "%s: tensor \"%s\" %s is missing; the file is incomplete or of another model", w->path,
            name, expected);
    }
    *ret = e;
    return LW_OK;
}

static lw_status misfit(const lw_weights *w, const char *name, const lw_tensor *t, int rank,
                        const int64_t *shape, const char *hint, lw_err *err)
{
    char expected[160], found[160];

    expected_text(expected, sizeof(expected), rank, shape);
    lw_tensor_describe(t, found, sizeof(found));
    return lw_fail(err, LW_E_SHAPE, "%s: tensor \"%s\": expected %s, found %s; %s", w->path, name,
                   expected, found, hint);
}

static const char other_model[] = "does config.json belong to these weights?";
static const char other_dtype[] = "convert it to F32, F16 or BF16";

/* Equal up to the two trailing ones that tell a 1x1 convolution from a matrix. */
static bool same_matrix(const lw_tensor *t, int rank, const int64_t *shape)
{
    int common = t->rank < rank ? t->rank : rank;

    if (t->rank != rank && !(common == 2 && (t->rank == 4 || rank == 4)))
        return false;
    for (int i = 0; i < common; i++)
        if (t->shape[i] != shape[i])
            return false;
    for (int i = common; i < rank; i++)
        if (shape[i] != 1)
            return false;
    for (int i = common; i < t->rank; i++)
        if (t->shape[i] != 1)
            return false;
    return true;
}

static bool is_vector(const lw_tensor *t, int64_t n)
{
    return (t->rank == 1 && t->shape[0] == n) ||
           (t->rank == 2 && t->shape[0] == 1 && t->shape[1] == n);
}

/*
 * Tell the kernel about whole pages of a mapping. A converted tensor's pages are not needed again:
 * without this, loading 24 GB of f32 to 12 GB of bf16 would show 36 GB of resident memory. A view
 * will be read soon, and in order.
 */
static void advise(const void *data, size_t bytes, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data;
    uintptr_t end = begin + bytes;

    if (advice == MADV_DONTNEED) { /* the pages at both ends belong to the neighbours too */
        begin = (begin + page - 1) & ~(page - 1);
        end &= ~(page - 1);
    } else {
        begin &= ~(page - 1);
    }
    if (begin < end)
        (void)madvise((void *)begin, end - begin, advice);
}

/* The scale stored beside a float8 tensor: one number, or one a row. */
typedef struct scale {
    const lw_tensor *t; /* NULL: none */
    bool per_row;
} scale;

static lw_status find_scale(lw_weights *w, const char *name, int64_t rows, scale *ret, lw_err *err)
{
    static const char *const tails[] = { "scale_weight", "weight_scale" };
    static const char weight[] = "weight";
    size_t n = strlen(name), m = strlen(weight);
    lw_weights_entry *e = NULL;
    char other[LW_ST_MAX_NAME_BYTES + 16], found[160];
    const lw_tensor *t;
    int64_t count;

    *ret = (scale){ 0 };
    if (n < m || strcmp(name + n - m, weight) != 0)
        return LW_OK;
    for (size_t i = 0; i < LW_ARRAY_LEN(tails) && e == NULL; i++) {
        snprintf(other, sizeof(other), "%.*s%s", (int)(n - m), name, tails[i]);
        e = lw_weights_entry_find(w, other);
    }
    if (e == NULL)
        return LW_OK;
    t = &e->stored->t;
    count = lw_tensor_count(t);
    if (!(t->dtype == LW_F32 || t->dtype == LW_F16 || t->dtype == LW_BF16) || t->rank > 2 ||
        !(count == 1 || (count == rows && t->shape[0] == rows)))
        return lw_fail(err, LW_E_UNIMPLEMENTED,
                       "%s: tensor \"%s\": a float8 scale of the form %s cannot be used; expected "
                       "one number or one a row (%" PRId64 ")",
                       w->path, other, lw_tensor_describe(t, found, sizeof(found)), rows);
    if (!lw_tensor_all_finite(t))
        return lw_fail(err, LW_E_FORMAT, "%s: tensor \"%s\" holds NaN or infinity", w->path, other);
    e->used = true;
    *ret = (scale){ .t = t, .per_row = count > 1 };
    return LW_OK;
}

static float scale_of_row(const scale *s, int64_t row)
{
    const char *data;
    float v;

    if (s->t == NULL)
        return 1.0f;
    data = (const char *)s->t->data + (s->per_row ? row : 0) * (int64_t)lw_dtype_size(s->t->dtype);
    lw_dtype_convert(&v, LW_F32, data, s->t->dtype, 1);
    return v;
}

/* dst = round(src * scale), row by row through a small f32 buffer. */
static void dequantise(const lw_tensor *dst, const lw_tensor *src, int64_t first_row,
                       const scale *s)
{
    int64_t rows = src->shape[0], cols = rows ? lw_tensor_count(src) / rows : 0;
    size_t out_size = lw_dtype_size(dst->dtype);

    for (int64_t r = 0; r < rows; r++) {
        float k = scale_of_row(s, first_row + r), wide[CHUNK];

        for (int64_t c = 0; c < cols; c += CHUNK) {
            size_t n = (size_t)(cols - c < CHUNK ? cols - c : CHUNK);
            int64_t at = r * cols + c;

            lw_dtype_convert(wide, LW_F32, (const char *)src->data + at, src->dtype, n);
            for (size_t i = 0; i < n; i++)
                wide[i] *= k;
            lw_dtype_convert((char *)dst->data + (size_t)at * out_size, dst->dtype, wide, LW_F32,
                             n);
        }
    }
}

static bool is_aligned(const lw_tensor *t)
{
    return (uintptr_t)t->data % lw_dtype_size(t->dtype) == 0;
}

/* `src`: the stored rows as a packed tensor of the wanted shape, of which the first is first_row of
 * `stored_rows`. */
static lw_status as_operand(lw_weights *w, lw_arena *a, lw_weights_entry *e, const char *name,
                            const lw_tensor *src, int64_t first_row, int64_t stored_rows,
                            lw_tensor *ret, lw_err *err)
{
    size_t bytes = lw_tensor_bytes(src), n = (size_t)lw_tensor_count(src);
    bool fp8 = src->dtype == LW_F8_E4M3 || src->dtype == LW_F8_E5M2;
    lw_dtype dtype = src->dtype;
    scale s = { 0 };
    lw_tensor dst;

    if (fp8)
        dtype = w->keep == LW_KEEP_STORED ? LW_F32 : LW_BF16;
    else if (src->dtype == LW_F32 && w->round_f32)
        dtype = LW_BF16;
    else if (src->dtype != LW_F32 && src->dtype != LW_F16 && src->dtype != LW_BF16)
        return misfit(w, name, &e->stored->t, src->rank, src->shape, other_dtype, err);

    if (dtype == src->dtype && is_aligned(src)) {
        advise(src->data, bytes, MADV_WILLNEED);
        e->used = true;
        *ret = *src;
        return LW_OK;
    }
    if (fp8)
        LW_TRY(find_scale(w, name, stored_rows, &s, err));
    LW_TRY(lw_tensor_alloc(a, dtype, src->rank, src->shape, &dst, err));
    if (fp8)
        dequantise(&dst, src, first_row, &s);
    else
        lw_dtype_convert(dst.data, dtype, src->data, src->dtype, n);
    advise(src->data, bytes, MADV_DONTNEED);
    e->used = true;
    *ret = dst;
    return LW_OK;
}

lw_status lw_weights_vector(lw_weights *w, lw_arena *a, const char *name, int64_t n, lw_tensor *ret,
                            lw_err *err)
{
    lw_weights_entry *e = NULL;
    const lw_tensor *t;
    lw_tensor v;

    LW_TRY(find(w, name, 1, &n, &e, err));
    t = &e->stored->t;
    if (!is_vector(t, n))
        return misfit(w, name, t, 1, &n, other_model, err);
    if (!lw_dtype_is_float(t->dtype))
        return misfit(w, name, t, 1, &n, other_dtype, err);
    LW_TRY(lw_tensor_alloc(a, LW_F32, 1, &n, &v, err));
    lw_dtype_convert(v.data, LW_F32, t->data, t->dtype, (size_t)n);
    e->used = true;
    *ret = v;
    return LW_OK;
}

lw_status lw_weights_matrix(lw_weights *w, lw_arena *a, const char *name, int rank,
                            const int64_t *shape, lw_tensor *ret, lw_err *err)
{
    lw_weights_entry *e = NULL;
    lw_tensor src;

    LW_TRY(find(w, name, rank, shape, &e, err));
    if (!same_matrix(&e->stored->t, rank, shape))
        return misfit(w, name, &e->stored->t, rank, shape, other_model, err);
    src = lw_tensor_nd(e->stored->t.data, e->stored->t.dtype, rank, shape);
    return as_operand(w, a, e, name, &src, 0, rank ? shape[0] : 1, ret, err);
}

lw_status lw_weights_rows(lw_weights *w, lw_arena *a, const char *name, int64_t rows, int64_t cols,
                          int64_t begin, int64_t n, lw_tensor *ret, lw_err *err)
{
    const int64_t shape[2] = { rows, cols };
    lw_weights_entry *e = NULL;
    lw_tensor whole, part;

    LW_TRY(find(w, name, 2, shape, &e, err));
    if (!same_matrix(&e->stored->t, 2, shape))
        return misfit(w, name, &e->stored->t, 2, shape, other_model, err);
    if (begin < 0 || n < 0 || begin > rows - n)
        return lw_fail(err, LW_E_SHAPE,
                       "%s: tensor \"%s\": rows %" PRId64 " to %" PRId64 " of %" PRId64, w->path,
                       name, begin, begin + n, rows);
    whole = lw_tensor_nd(e->stored->t.data, e->stored->t.dtype, 2, shape);
    part = lw_tensor_rows(&whole, begin, n);
    return as_operand(w, a, e, name, &part, begin, rows, ret, err);
}

const lw_tensor *lw_weights_stored(lw_weights *w, const char *name)
{
    lw_weights_entry *e = lw_weights_entry_find(w, name);

    if (e == NULL)
        return NULL;
    e->used = true;
    advise(e->stored->t.data, lw_tensor_bytes(&e->stored->t), MADV_WILLNEED);
    return &e->stored->t;
}

const char *lw_weights_name(const lw_weights *w, size_t i)
{
    return w->entries[i].name;
}

void lw_weights_drop(const lw_weights *w, const lw_tensor *view)
{
    for (size_t i = 0; i < w->n_files; i++) {
        const char *map = w->files[i]->map, *p = view->data;

        if (map != NULL && p >= map && p < map + w->files[i]->map_bytes)
            advise(p, lw_tensor_bytes(view), MADV_DONTNEED);
    }
}
