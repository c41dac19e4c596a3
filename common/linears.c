/* Linear layers from files: views, packed views, or packed now; see linears.h. */
#include "common/linears.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/cpu/int8.h"

/* ---- loading --------------------------------------------------------------------------------- */

/* Packed layers, or NULL when `t` is something else. */
static const lw_int8_header *packed_header(const lw_tensor *t)
{
    bool bytes = t && t->dtype == LW_U8 && t->rank == 1;

    return bytes && t->shape[0] >= (int64_t)sizeof(lw_int8_header) ? t->data : NULL;
}

bool lw_linear_shape(const lw_weights *w, const char *name, int64_t ret[2])
{
    const lw_tensor *t = lw_weights_find(w, name);
    const lw_int8_header *stored = packed_header(t);
    lw_int8_header h;
    size_t bytes;

    if (t && t->rank == 2) {
        ret[0] = t->shape[0];
        ret[1] = t->shape[1];
        return true;
    }
    if (!stored)
        return false;
    memcpy(&h, stored, sizeof(h)); /* its place may be no multiple of anything */
    bytes = lw_int8_packed_bytes(h.out, h.in);
    if (bytes == 0 || (size_t)t->shape[0] % bytes != 0)
        return false;
    ret[0] = h.out * (int64_t)((size_t)t->shape[0] / bytes);
    ret[1] = h.in;
    return true;
}

bool lw_weights_are_packed(const lw_weights *w)
{
    size_t used, total;

    lw_weights_usage(w, &used, &total);
    for (size_t i = 0; i < total; i++)
        if (packed_header(lw_weights_find(w, lw_weights_name(w, i))))
            return true;
    return false;
}

static lw_status view_packed(const lw_kernels *k, const lw_weights *w, const lw_tensor *t,
                             const char *name, int64_t rows, int64_t in, int64_t begin, int64_t n,
                             lw_linear *lin, lw_err *err)
{
    size_t bytes = lw_int8_packed_bytes(n, in), parts = (size_t)(rows / n);
    const char *data = (const char *)t->data + (size_t)(begin / n) * bytes;
    lw_status st;

    if (k->precision == LW_PRECISION_F32)
        return lw_fail(err, LW_E_PRECONDITION,
                       "%s: tensor \"%s\" is packed in 8 bits, so it cannot be computed in f32; "
                       "give the model that it was converted from, or --precision int8",
                       lw_weights_path(w), name);
    if (begin % n != 0 || rows % n != 0 || (size_t)t->shape[0] != parts * bytes)
        return lw_fail(err, LW_E_SHAPE,
                       "%s: tensor \"%s\" has %" PRId64 " bytes; %zu packed layers of [%" PRId64
                       ", %" PRId64 "] have %zu; is it of another model?",
                       lw_weights_path(w), name, t->shape[0], parts, n, in, parts * bytes);
    st = lw_int8_check(data, bytes, n, in, err);
    if (st != LW_OK)
        return lw_err_prefix(err, st, "%s: tensor \"%s\"", lw_weights_path(w), name);
    lin->packed = data;
    return LW_OK;
}

lw_status lw_linear_load_rows(lw_kernels *k, lw_weights *w, lw_arena *a, const char *name,
                              int64_t rows, int64_t in, int64_t begin, int64_t n, lw_linear *lin,
                              lw_err *err)
{
    bool pack = lin->bulk && k->precision == LW_PRECISION_INT8;
    lw_arena copy;
    lw_status st;

    lin->packed = NULL;
    if (packed_header(lw_weights_find(w, name))) {
        lin->w = lw_tensor_2d(NULL, LW_U8, n, in);
        LW_TRY(view_packed(k, w, lw_weights_stored(w, name), name, rows, in, begin, n, lin, err));
        return k->linear_prepare(k, lin, a, err);
    }
    if (!pack) {
        LW_TRY(lw_weights_rows(w, a, name, rows, in, begin, n, &lin->w, err));
        return k->linear_prepare(k, lin, a, err);
    }
    lw_arena_init(&copy, "weights to pack", 0);
    st = lw_weights_rows(w, &copy, name, rows, in, begin, n, &lin->w, err);
    if (st == LW_OK)
        st = k->linear_prepare(k, lin, a, err);
    if (st == LW_OK)
        lw_weights_drop(w, &lin->w);
    else
        (void)lw_err_prefix(err, st, "%s: tensor \"%s\"", lw_weights_path(w), name);
    lin->w = lw_tensor_2d(NULL, lin->w.dtype, n, in);
    lw_arena_deinit(&copy);
    return st;
}

lw_status lw_linear_load(lw_kernels *k, lw_weights *w, lw_arena *a, const char *name, int64_t out,
                         int64_t in, lw_linear *lin, lw_err *err)
{
    return lw_linear_load_rows(k, w, a, name, out, in, 0, out, lin, err);
}

/* ---- conversion ------------------------------------------------------------------------------ */

typedef struct converter {
    lw_weights *w;
    lw_pool *pool;
    lw_bulk_parts *parts;
    lw_st_entry *entries;
    size_t n, n_made, done; /* entries; of these to be made; made so far */
    void (*progress)(size_t done, size_t total);
} converter;

/* Scales of float8 matrices: what they scale is written without them. */
static bool is_scale(const lw_weights *w, const char *name)
{
    static const char *const tails[] = { "scale_weight", "weight_scale" };
    size_t n = strlen(name);
    char other[LW_ST_MAX_NAME_BYTES + 1];

    for (size_t i = 0; i < LW_ARRAY_LEN(tails); i++) {
        size_t m = strlen(tails[i]);
        const lw_tensor *t;

        if (n < m || n >= sizeof(other) || strcmp(name + n - m, tails[i]) != 0)
            continue;
        memcpy(other, name, n - m);
        memcpy(other + n - m, "weight", sizeof("weight"));
        t = lw_weights_find(w, other);
        if (t && (t->dtype == LW_F8_E4M3 || t->dtype == LW_F8_E5M2))
            return true;
    }
    return false;
}

/* What becomes of a stored tensor: data NULL means that it is made while the file is written. */
static lw_status plan(converter *c, const char *name, lw_err *err)
{
    const lw_tensor *t = lw_weights_find(c->w, name);
    int parts = t->rank == 2 && lw_dtype_is_float(t->dtype) ? c->parts(name) : 0;
    lw_st_entry *e = &c->entries[c->n];

    if (packed_header(t))
        return lw_fail(err, LW_E_PRECONDITION, "%s: \"%s\" is packed already; it was converted",
                       lw_weights_path(c->w), name);
    if (is_scale(c->w, name))
        return LW_OK;
    *e = (lw_st_entry){ .name = name, .t = *t };
    if (parts > 0) {
        size_t bytes =
            t->shape[0] % parts != 0 ? 0 : lw_int8_packed_bytes(t->shape[0] / parts, t->shape[1]);

        if (bytes == 0)
            return lw_fail(err, LW_E_SHAPE, "%s: \"%s\" cannot be packed in %d parts",
                           lw_weights_path(c->w), name, parts);
        e->t = lw_tensor_1d(NULL, LW_U8, (int64_t)bytes * parts);
    } else if (t->dtype == LW_F8_E4M3 || t->dtype == LW_F8_E5M2) {
        e->t = lw_tensor_nd(NULL, LW_F32, t->rank, t->shape);
    }
    c->n_made += e->t.data == NULL;
    c->n++;
    return LW_OK;
}

static lw_status pack_parts(const converter *c, const lw_tensor *w, int64_t parts, char *dst,
                            lw_err *err)
{
    int64_t n = w->shape[0] / parts, in = w->shape[1];
    size_t bytes = lw_int8_packed_bytes(n, in);

    for (int64_t i = 0; i < parts; i++) {
        lw_tensor part = lw_tensor_rows(w, i * n, n);

        LW_TRY(lw_int8_pack(dst + (size_t)i * bytes, &part, lw_int8_usual(in), c->pool, err));
    }
    return LW_OK;
}

static lw_status make(void *arg, size_t index, void *data, lw_err *err)
{
    converter *c = arg;
    const lw_st_entry *e = &c->entries[index];
    const lw_tensor *stored = lw_weights_find(c->w, e->name);
    lw_arena a;
    lw_tensor m;
    lw_status st;

    lw_arena_init(&a, "a tensor to convert", 0);
    st = lw_weights_matrix(c->w, &a, e->name, stored->rank, stored->shape, &m, err);
    if (st == LW_OK && e->t.dtype == LW_U8)
        st = pack_parts(c, &m, c->parts(e->name), data, err);
    else if (st == LW_OK)
        memcpy(data, m.data, lw_tensor_bytes(&m));
    if (st == LW_OK)
        lw_weights_drop(c->w, &m);
    else
        (void)lw_err_prefix(err, st, "%s: tensor \"%s\"", lw_weights_path(c->w), e->name);
    lw_arena_deinit(&a);
    if (c->progress)
        c->progress(++c->done, c->n_made);
    return st;
}

static lw_status convert(converter *c, const char *out, lw_err *err)
{
    const lw_st_meta meta[] = { { "format", "pt" }, { LW_CONVERTED_KEY, "int8" } };
    size_t used, total;

    lw_weights_usage(c->w, &used, &total);
    c->entries = calloc(total, sizeof(*c->entries));
    if (!c->entries)
        return lw_fail(err, LW_E_NOMEM, "no memory for the names of %zu tensors", total);
    for (size_t i = 0; i < total; i++)
        LW_TRY(plan(c, lw_weights_name(c->w, i), err));
    return lw_st_write_made(out, c->entries, c->n, meta, LW_ARRAY_LEN(meta), make, c, err);
}

lw_status lw_convert(const char *path, const char *out, lw_bulk_parts *parts, lw_pool *pool,
                     void (*progress)(size_t done, size_t total), lw_err *err)
{
    converter c = { .pool = pool, .parts = parts, .progress = progress };
    lw_status st;

    LW_TRY(lw_weights_open(path, LW_KEEP_STORED, &c.w, err));
    st = convert(&c, out, err);
    free(c.entries);
    lw_weights_close(&c.w);
    return st;
}
