#ifndef LW_COMMON_LINEARS_H
#define LW_COMMON_LINEARS_H

#include "common/kernels.h"
#include "common/weights.h"

/*
 * Linear layers from a file of weights, whether they are stored as matrices or packed in 8 bits;
 * and the conversion from one to the other. In a converted file a packed layer of name NAME is a
 * tensor NAME of bytes, U8 [n], in the form of common/cpu/int8.h; layers that are stored as rows of
 * one matrix (q|k|v) follow each other in it. Such a tensor is used where it is mapped.
 */

/** Metadata key of a converted file; its value is "int8". */
#define LW_CONVERTED_KEY "latentwire_packed"

/**
 * Load lin->w (lin->bulk and lin->b are the caller's) as [out, in] and prepare it. Errors: those of
 * lw_weights_matrix; LW_E_PRECONDITION when k->precision is f32 and the file has the layer packed;
 * LW_E_FORMAT, LW_E_SHAPE for damaged or other packed weights.
 */
LW_MUST_USE lw_status lw_linear_load(lw_kernels *k, lw_weights *w, lw_arena *a, const char *name,
                                     int64_t out, int64_t in, lw_linear *lin, lw_err *err);
/** The same for rows [begin, begin + n) of a stored [rows, in]. Packed, they are one of rows / n
 * equal parts. */
LW_MUST_USE lw_status lw_linear_load_rows(lw_kernels *k, lw_weights *w, lw_arena *a,
                                          const char *name, int64_t rows, int64_t in, int64_t begin,
                                          int64_t n, lw_linear *lin, lw_err *err);

/**
 * Shape of a stored matrix, also of a packed one (of all its parts together), which is checked.
 * False when there is no such tensor or it is neither.
 */
bool lw_linear_shape(const lw_weights *w, const char *name, int64_t ret[2]);

/** True when the file holds packed layers. */
bool lw_weights_are_packed(const lw_weights *w);

/** Into how many parts the layers of a stored matrix are packed: 0 = it stays as it is. */
typedef int lw_bulk_parts(const char *name);

/**
 * Write the weights at `path` to `out` with the layers that `parts` names packed in 8 bits, the
 * others as they are stored (float8 as f32). Atomic; takes memory for one tensor. `progress`
 * (NULL: none) hears how many tensors of how many are written. Errors: those of lw_weights_open,
 * lw_int8_pack and lw_st_write; LW_E_PRECONDITION when the file is converted already.
 */
LW_MUST_USE lw_status lw_convert(const char *path, const char *out, lw_bulk_parts *parts,
                                 lw_pool *pool, void (*progress)(size_t done, size_t total),
                                 lw_err *err);

#endif
