/* Shapes and views. */

#include "common/tensor.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/size.h"

int64_t lw_tensor_count(const lw_tensor *t)
{
    int64_t n = 1;

    for (int i = 0; i < t->rank; i++)
        n *= t->shape[i];
    return n;
}

size_t lw_tensor_bytes(const lw_tensor *t)
{
    return (size_t)lw_tensor_count(t) * lw_dtype_size(t->dtype);
}

/* Items of one index of axis 0. */
static int64_t row_items(const lw_tensor *t)
{
    int64_t n = 1;

    for (int i = 1; i < t->rank; i++)
        n *= t->shape[i];
    return n;
}

bool lw_tensor_is_contiguous(const lw_tensor *t)
{
    return t->rank == 0 || t->shape[0] <= 1 || t->stride0 == row_items(t);
}

lw_status lw_shape_bytes(lw_dtype dtype, int rank, const int64_t *shape, size_t *ret_bytes,
                         lw_err *err)
{
    size_t bytes = lw_dtype_size(dtype);
    bool zero = false;

    if (bytes == 0)
        return lw_fail(err, LW_E_SHAPE, "dtype number %d is unknown", (int)dtype);
    if (rank < 0 || rank > LW_MAX_RANK)
        return lw_fail(err, LW_E_SHAPE, "rank %d is outside 0 to %d", rank, LW_MAX_RANK);
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0)
            return lw_fail(err, LW_E_SHAPE, "dimension %d is negative: %" PRId64, i, shape[i]);
        zero = zero || shape[i] == 0;
    }
    /* Checked even beside a zero, because callers multiply the other dimensions on their own. The
     * product of items must fit in int64_t, in which shapes are counted. */
    for (int i = 0; i < rank; i++)
        if (shape[i] && (!lw_size_mul(bytes, (size_t)shape[i], &bytes) || bytes > INT64_MAX))
            return lw_fail(err, LW_E_SHAPE, "the shape holds more bytes than can be addressed");
    *ret_bytes = zero ? 0 : bytes;
    return LW_OK;
}

lw_tensor lw_tensor_nd(void *data, lw_dtype dtype, int rank, const int64_t *shape)
{
    lw_tensor t = { .data = data, .dtype = dtype, .rank = rank };

    for (int i = 0; i < rank; i++)
        t.shape[i] = shape[i];
    t.stride0 = row_items(&t);
    return t;
}

lw_tensor lw_tensor_2d(void *data, lw_dtype dtype, int64_t rows, int64_t cols)
{
    return lw_tensor_nd(data, dtype, 2, (const int64_t[]){ rows, cols });
}

lw_tensor lw_tensor_1d(void *data, lw_dtype dtype, int64_t n)
{
    return lw_tensor_nd(data, dtype, 1, &n);
}

lw_status lw_tensor_alloc(lw_arena *a, lw_dtype dtype, int rank, const int64_t *shape,
                          lw_tensor *ret, lw_err *err)
{
    size_t bytes;
    void *data;

    LW_TRY(lw_shape_bytes(dtype, rank, shape, &bytes, err));
    data = lw_arena_alloc(a, bytes, err);
    if (data == NULL)
        return LW_E_NOMEM;
    *ret = lw_tensor_nd(data, dtype, rank, shape);
    return LW_OK;
}

lw_tensor lw_tensor_rows(const lw_tensor *t, int64_t begin, int64_t n)
{
    lw_tensor v = *t;

    v.data = (char *)t->data + (size_t)(begin * t->stride0) * lw_dtype_size(t->dtype);
    v.shape[0] = n;
    return v;
}

lw_tensor lw_tensor_cols(const lw_tensor *t, int64_t begin, int64_t n)
{
    lw_tensor v = *t;

    v.data = (char *)t->data + (size_t)begin * lw_dtype_size(t->dtype);
    v.shape[1] = n;
    return v;
}

const char *lw_tensor_describe(const lw_tensor *t, char *buf, size_t buf_bytes)
{
    size_t len;
    int n;

    if (buf_bytes == 0)
        return buf;
    n = snprintf(buf, buf_bytes, "%s [", lw_dtype_name(t->dtype));
    len = n < 0 ? 0 : (size_t)n;
    for (int i = 0; i < t->rank && len < buf_bytes; i++) {
        n = snprintf(buf + len, buf_bytes - len, "%s%" PRId64, i ? ", " : "", t->shape[i]);
        len += n < 0 ? 0 : (size_t)n;
    }
    if (len < buf_bytes)
        snprintf(buf + len, buf_bytes - len, "]");
    return buf;
}

/* The exponent is all ones exactly in infinities and NaN. */
static bool finite32(const uint8_t *p, int64_t n)
{
    uint32_t bad = 0;

    for (int64_t i = 0; i < n; i++) {
        uint32_t u;

        memcpy(&u, p + i * 4, sizeof(u));
        bad |= (u & 0x7f800000) == 0x7f800000;
    }
    return !bad;
}

static bool finite16(const uint8_t *p, int64_t n, uint16_t exponent)
{
    uint16_t bad = 0;

    for (int64_t i = 0; i < n; i++) {
        uint16_t u;

        memcpy(&u, p + i * 2, sizeof(u));
        bad |= (u & exponent) == exponent;
    }
    return !bad;
}

bool lw_tensor_all_finite(const lw_tensor *t)
{
    int64_t rows = t->rank ? t->shape[0] : 1, items = row_items(t);

    if (lw_tensor_is_contiguous(t)) {
        items *= rows;
        rows = items ? 1 : 0;
    }
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *p =
            (const uint8_t *)t->data + (size_t)(r * t->stride0) * lw_dtype_size(t->dtype);
        bool ok = t->dtype == LW_F32    ? finite32(p, items)
                  : t->dtype == LW_F16  ? finite16(p, items, 0x7c00)
                  : t->dtype == LW_BF16 ? finite16(p, items, 0x7f80)
                                        : true;

        if (!ok)
            return false;
    }
    return true;
}
