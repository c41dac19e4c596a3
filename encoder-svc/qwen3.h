#ifndef LW_ENCODER_QWEN3_H
#define LW_ENCODER_QWEN3_H

#include <stdbool.h>
#include <stdint.h>

#include "common/kernels.h"
#include "common/weights.h"

/**
 * The Qwen3 text model as an encoder: token ids in, the residual stream after any layer out.
 * Numbers are those of transformers' Qwen3Model (modeling_qwen3.py) with attention over all earlier
 * tokens; hidden states are counted as in its `hidden_states`: 0 is the embeddings, k the output of
 * the k-th layer, and n_layers the output of the last layer *after* the final norm. The published
 * pipeline takes hidden_states[-2], so the last layer and the final norm are read only when
 * somebody asks for them.
 *
 * Thread rule: one thread at a time.
 */
typedef struct lw_qwen3 lw_qwen3;

/** Dimensions and constants, from config.json or from the tensors. */
typedef struct lw_qwen3_config {
    int64_t n_layers;
    int64_t d_model;    /* D: width of the residual stream */
    int64_t n_heads;    /* H: query heads */
    int64_t n_kv_heads; /* KV: key and value heads; H is a multiple */
    int64_t head_dim;   /* d: even; H * d need not be D */
    int64_t d_ff;       /* F: inner width of the feed-forward part */
    int64_t vocab;      /* rows of the embedding table */
    double rope_theta;
    float eps;
} lw_qwen3_config;

/**
 * Open a Hugging Face folder (config.json and weights) or a single .safetensors file (ComfyUI's
 * qwen_3_4b.safetensors; names with or without "model." in front; without a Qwen3's config.json
 * beside it dimensions are taken from the tensors, base 1e6 and eps 1e-6). Prepares the layers up
 * to hidden state n_layers - 1. `k` must outlive the model. Errors: LW_E_NOT_FOUND, LW_E_SHAPE,
 * LW_E_FORMAT, naming file and tensor; LW_E_UNIMPLEMENTED (a relative of Qwen3 that computes
 * something else); LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_qwen3_load(const char *path, lw_keep keep, lw_kernels *k, lw_qwen3 **ret,
                                    lw_err *err);
/** NULL-safe; sets *m to NULL. */
void lw_qwen3_destroy(lw_qwen3 **m);

const lw_qwen3_config *lw_qwen3_get_config(const lw_qwen3 *m);
/** True when matrices stored as f32 were rounded to bf16, which changes the result. */
bool lw_qwen3_is_rounded(const lw_qwen3 *m);
/** True when layers run in 8 bits: the file has them packed, or k->precision asked for it. */
bool lw_qwen3_is_int8(const lw_qwen3 *m);
/** Which matrices of a file are the large ones (lw_bulk_parts of common/linears.h). */
int lw_qwen3_bulk_parts(const char *name);
/** Fingerprint of the weights (lw_weights_digest). */
LW_MUST_USE lw_status lw_qwen3_digest(const lw_qwen3 *m, char ret_hex[65], lw_err *err);

/** Bytes of activations that n tokens need, without the result and the back end's own scratch. */
size_t lw_qwen3_scratch_bytes(const lw_qwen3 *m, int64_t n);

/** Called before each layer; false stops the pass with LW_E_CANCELLED. */
typedef bool lw_qwen3_step_fn(void *arg, int64_t layer, int64_t n_layers);

/** Most hidden states of one pass. */
#define LW_QWEN3_MAX_STATES 16

/**
 * ret [n, D] f32 = hidden state `state` (0 .. n_layers) of n >= 1 token ids. A pass for a deeper
 * state than any before prepares the missing layers first. step may be NULL. Errors:
 * LW_E_INVALID (state), LW_E_PRECONDITION (an id beyond the embedding table), LW_E_CANCELLED,
 * LW_E_INTERNAL (NaN or infinity, naming the layer), LW_E_NOMEM, and those of loading.
 */
LW_MUST_USE lw_status lw_qwen3_forward(lw_qwen3 *m, const int32_t *ids, int64_t n, int64_t state,
                                       lw_qwen3_step_fn *step, void *arg, lw_tensor *ret,
                                       lw_err *err);

/**
 * Several hidden states of one pass: rets[i] [n, D] f32 = states[i], 1 to LW_QWEN3_MAX_STATES of
 * them in any order, each with the bits that lw_qwen3_forward gives. The tensors do not overlap.
 * Errors as there.
 */
LW_MUST_USE lw_status lw_qwen3_forward_states(lw_qwen3 *m, const int32_t *ids, int64_t n,
                                              const int64_t *states, int n_states,
                                              lw_qwen3_step_fn *step, void *arg, lw_tensor *rets,
                                              lw_err *err);

#endif
