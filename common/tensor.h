#ifndef LW_COMMON_TENSOR_H
#define LW_COMMON_TENSOR_H

#include <stdint.h>

#include "common/arena.h"
#include "common/dtype.h"

#define LW_MAX_RANK 8

typedef enum lw_device_kind { LW_HOST = 0, LW_CUDA = 1 } lw_device_kind;

/**
 * A view of numbers that somebody else owns: pointer, dtype, shape, and row stride. Rows (the last
 * axis) are always contiguous; all axes but the first are packed; the first axis may have a larger
 * stride, so that a column block of a matrix ([n, 3D] seen as q, k, v) is a view too.
 * A zeroed tensor is "absent".
 */
typedef struct lw_tensor {
    void *data;
    lw_dtype dtype;
    lw_device_kind device;
    int rank;
    int64_t shape[LW_MAX_RANK];
    int64_t stride0; /* items from one index of axis 0 to the next */
} lw_tensor;

/** Number of items: product of the shape (1 for rank 0). The shape was checked when it was made. */
int64_t lw_tensor_count(const lw_tensor *t);
/** Bytes of a packed tensor of this shape. */
size_t lw_tensor_bytes(const lw_tensor *t);
/** True when axis 0 is packed too. */
bool lw_tensor_is_contiguous(const lw_tensor *t);
static inline bool lw_tensor_present(const lw_tensor *t)
{
    return t->dtype != LW_DTYPE_NONE;
}

/**
 * Checked number of bytes of a shape: every dimension >= 0, rank <= LW_MAX_RANK, no overflow.
 * Errors: LW_E_SHAPE. err may be NULL.
 */
LW_MUST_USE lw_status lw_shape_bytes(lw_dtype dtype, int rank, const int64_t *shape,
                                     size_t *ret_bytes, lw_err *err);

/** View of existing memory as a packed matrix [rows, cols] or vector [n]; no checks. */
lw_tensor lw_tensor_2d(void *data, lw_dtype dtype, int64_t rows, int64_t cols);
lw_tensor lw_tensor_1d(void *data, lw_dtype dtype, int64_t n);
/** View of existing memory as a packed tensor of any rank. */
lw_tensor lw_tensor_nd(void *data, lw_dtype dtype, int rank, const int64_t *shape);

/** Allocate a packed tensor in an arena (uninitialised). Errors: LW_E_SHAPE, LW_E_NOMEM. */
LW_MUST_USE lw_status lw_tensor_alloc(lw_arena *a, lw_dtype dtype, int rank, const int64_t *shape,
                                      lw_tensor *ret, lw_err *err);

/** Rows [begin, begin + n) of axis 0, as a view. */
lw_tensor lw_tensor_rows(const lw_tensor *t, int64_t begin, int64_t n);
/** Columns [begin, begin + n) of a rank-2 tensor, as a view with the row stride kept. */
lw_tensor lw_tensor_cols(const lw_tensor *t, int64_t begin, int64_t n);

/** Text such as "bfloat16 [77, 2560]" into buf; returns buf. */
const char *lw_tensor_describe(const lw_tensor *t, char *buf, size_t buf_bytes);

/** True when every item of an f32/f16/bf16 tensor is finite; other dtypes give true. */
bool lw_tensor_all_finite(const lw_tensor *t);

static inline float *lw_f32(const lw_tensor *t)
{
    return (float *)t->data;
}

#endif
