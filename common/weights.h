#ifndef LW_COMMON_WEIGHTS_H
#define LW_COMMON_WEIGHTS_H

#include "common/safetensors.h"

/*
 * The weights of one model: one safetensors file, or a folder with an index
 * (model.safetensors.index.json, diffusion_pytorch_model.safetensors.index.json), or a folder with
 * a single .safetensors file. Names are looked up as they are in the file after stripping a known
 * prefix ("model.diffusion_model.", "first_stage_model.", "vae."), and the typed getters turn a
 * stored tensor into what a model needs, naming the tensor, what was found, and what was expected
 * when it does not fit.
 */

/** Thread rule: one thread at a time. */
typedef struct lw_weights lw_weights;

/** What a matrix of a model is kept as in memory. Vectors (norms, biases) are always f32. */
typedef enum lw_keep {
    LW_KEEP_AUTO = 0, /* as stored when f32/bf16/f16; but f32 is rounded to bf16 when all matrices
                         together would take more than half of the machine's memory */
    LW_KEEP_STORED,   /* as stored: zero-copy views where the dtype is f32, bf16 or f16 */
    LW_KEEP_BF16      /* round f32 to bf16 (nearest even), as the reference's bf16 run does */
} lw_keep;

/**
 * Open the weights at `path`: a folder, a .safetensors file, or an .index.json file. Shards named
 * by an index must be plain file names in the same folder, and every name it lists must be in its
 * shard.
 * Errors: those of lw_st_open; LW_E_FORMAT for a damaged index; LW_E_NOT_FOUND when the folder
 * holds no weights (the message lists what was looked for).
 */
LW_MUST_USE lw_status lw_weights_open(const char *path, lw_keep keep, lw_weights **ret,
                                      lw_err *err);
/** The same with the machine's memory given, on which LW_KEEP_AUTO decides (tests, planning). */
LW_MUST_USE lw_status lw_weights_open_for(const char *path, lw_keep keep, uint64_t memory_bytes,
                                          lw_weights **ret, lw_err *err);
/** Views handed out by the getters end here. */
void lw_weights_close(lw_weights **w);
/** True when f32 matrices are rounded to bf16, by request or because memory is short. */
bool lw_weights_rounds_f32(const lw_weights *w);

/** Stored tensor by name, or NULL. Never reads the data. */
const lw_tensor *lw_weights_find(const lw_weights *w, const char *name);
/** Printf form of the same, for names with indices. */
const lw_tensor *lw_weights_findf(const lw_weights *w, const char *fmt, ...) LW_PRINTF(2, 3);
/** The same, counted as read: for what is used as it is stored. */
const lw_tensor *lw_weights_stored(lw_weights *w, const char *name);
/** All stored names in byte order, i below the total of lw_weights_usage. */
const char *lw_weights_name(const lw_weights *w, size_t i);
/** The pages of a view that was handed out are not needed for now. Does nothing to a copy. */
void lw_weights_drop(const lw_weights *w, const lw_tensor *view);
/** Path as given to open, for messages. */
const char *lw_weights_path(const lw_weights *w);
/** How many of the stored tensors were read by a getter, and how many there are. */
void lw_weights_usage(const lw_weights *w, size_t *ret_used, size_t *ret_total);

/**
 * A vector of n items as f32, copied into `a`. A stored [1, n] or [n] is accepted (pad tokens come
 * both ways). Errors: LW_E_NOT_FOUND or LW_E_SHAPE, naming the tensor and what to do; LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_weights_vector(lw_weights *w, lw_arena *a, const char *name, int64_t n,
                                        lw_tensor *ret, lw_err *err);

/**
 * A matrix (or convolution kernel) of the given shape: f32, bf16 or f16 as `keep` says. A view of
 * the mapping where the stored dtype can be used as it is and is aligned to its item, else
 * converted into `a`. float8 is dequantised with the scale stored beside it (X.scale_weight or
 * X.weight_scale for X.weight: scalar, [out] or [out, 1]) to bf16, or to f32 under
 * LW_KEEP_STORED; without a scale its values are used as they are. Stored [o, i, 1, 1] is accepted
 * for [o, i] and the other way round. Errors as lw_weights_vector, and LW_E_UNIMPLEMENTED for a
 * scale of another form (block-wise).
 */
LW_MUST_USE lw_status lw_weights_matrix(lw_weights *w, lw_arena *a, const char *name, int rank,
                                        const int64_t *shape, lw_tensor *ret, lw_err *err);

/** As lw_weights_matrix, of rows [begin, begin + n) of a stored [rows, cols] (fused q|k|v). */
LW_MUST_USE lw_status lw_weights_rows(lw_weights *w, lw_arena *a, const char *name, int64_t rows,
                                      int64_t cols, int64_t begin, int64_t n, lw_tensor *ret,
                                      lw_err *err);

/**
 * Fingerprint of the model: BLAKE2b-256 over every tensor's name (without prefix), dtype, shape and
 * its first and last 4 KiB of data, in name order, as 64 hex digits and a zero. It tells models
 * apart and is cheap on 20 GB of weights; it is not a proof that every byte is unchanged.
 */
LW_MUST_USE lw_status lw_weights_digest(const lw_weights *w, char ret_hex[65], lw_err *err);

#endif
