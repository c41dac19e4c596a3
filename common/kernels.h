#ifndef LW_COMMON_KERNELS_H
#define LW_COMMON_KERNELS_H

#include "common/pool.h"
#include "common/tensor.h"

/*
 * The operation table: the coarse operations that the three models are written in. A model file
 * calls these and nothing else on tensor data, so it runs on every back end. The reference back end
 * ("ref", common/cpu/ref.c) is plain and obviously right; the others start from it and replace what
 * they do better.
 *
 * Rules for every operation:
 *  - activations are f32 host tensors here (a CUDA back end uses its own dtype and device);
 * matrices are f32, bf16 or f16; vectors (norm weights, biases, modulation) are f32.
 *  - shapes and dtypes were checked by the caller when the model was loaded or the request was
 *    admitted: operations return void. A back end that runs out of scratch memory records it in
 *    `failed` (sticky) and the model asks lw_kernels_check() once at the end of its forward pass.
 *  - y may equal x where the comment says "in place allowed"; otherwise outputs overlap nothing.
 *  - the same inputs give the same bits for any number of threads.
 *  - row strides (lw_tensor.stride0) of activations are honoured in operations on rows [n, d] and
 * in conv2d and group_factors; other pictures are packed. One operation at a time: the table
 * belongs to one thread.
 *
 * Letters: n rows (tokens), d model width, H heads, D head size, C channels, h/w height and width.
 * Images are NHWC with N = 1: [h, w, C].
 */

typedef struct lw_kernels lw_kernels;

/** Arithmetic of the large products: those of lw_linear.bulk. Everything else is f32. */
typedef enum lw_precision {
    LW_PRECISION_AUTO = 0, /* as the weights are stored: int8 when they are packed, else f32 */
    LW_PRECISION_F32,      /* f32 sums of f32 activations; bf16 and f16 weights are widened */
    LW_PRECISION_INT8 /* weights in 8 bits by output, activations in 8 bits by row, both balanced
                         and rotated (common/cpu/int8.h) */
} lw_precision;

/** y = x W^T + b. `w` [out, in] (rows may be strided), `b` [out] or absent. */
typedef struct lw_linear {
    lw_tensor w, b;
    bool bulk; /* one of the many that take the time; may run in 8 bits */
    const void
        *packed; /* the weights in the form of common/cpu/int8.h; w has only its shape then */
} lw_linear;

/**
 * 2-D convolution. `w` [C_out, k, k, C_in] f32/bf16/f16 (NHWC kernels: the loader transposes the
 * stored [C_out, C_in, k, k]), `b` [C_out]. Padding may differ by side (the encoder's stride-2
 * convolutions pad right and bottom only); a negative one leaves out rows or columns.
 *
 * On the way in, x may be normed and doubled in size, so that neither is ever a picture of its own:
 * with `norm` [3, C_in] of group_factors it is silu((x - norm[0]) * norm[1] + norm[2]) that is
 * convolved (padding stays zero), and with `upsample` every position of x counts as 2x2.
 */
typedef struct lw_conv2d {
    lw_tensor w, b;
    lw_tensor norm;
    bool upsample;
    int k, stride;
    int pad_top, pad_left, pad_bottom, pad_right;
    void *packed;
} lw_conv2d;

/** How channels of a head are paired by the rotation. */
typedef enum lw_rope_pairing {
    LW_ROPE_INTERLEAVED, /* (2p, 2p+1): the image transformer */
    LW_ROPE_HALF_SPLIT   /* (p, p + D/2): Qwen3 */
} lw_rope_pairing;

struct lw_kernels {
    const char *name; /* "ref", "onednn 2.6.3 avx512", ... for logs and manifests */
    lw_pool *pool;
    void *impl;             /* the back end's state */
    lw_precision precision; /* of the bulk layers; set it before weights are prepared */
    lw_status failed;       /* sticky; see lw_kernels_check */

    /** Prepare weights for this back end (pack, upload). Memory from `a`, lifetime of `a`. Packed
     * ones are taken as they are; a bulk layer under LW_PRECISION_INT8 is packed, and its w is not
     * used any more. */
    lw_status (*linear_prepare)(lw_kernels *k, lw_linear *lin, lw_arena *a, lw_err *err);
    lw_status (*conv2d_prepare)(lw_kernels *k, lw_conv2d *conv, lw_arena *a, lw_err *err);

    /** y [n, out] = x [n, in] W^T + b. x and y may be column views (row stride > width). */
    void (*linear)(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_linear *lin);
    /** y[i] = x W_i^T + b_i: several layers of one input, for which what they share is done once.
     * The same bits as one after the other. */
    void (*linears)(lw_kernels *k, int n, lw_tensor *const y[], const lw_tensor *x,
                    const lw_linear *const lin[]);

    /**
     * y = x / sqrt(mean(x^2) + eps) * w * (1 + scale), rows of [n, d]; w [d]; scale [d] or NULL.
     * In place allowed. Source: transformer spec 3.8, Qwen3RMSNorm.
     */
    void (*rmsnorm)(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_tensor *w, float eps,
                    const lw_tensor *scale);

    /**
     * y = (x - mean) / sqrt(var + eps) * (1 + scale), rows of [n, d], biased variance; scale [d].
     * In place allowed. Source: final layer of S3-DiT.
     */
    void (*layernorm)(lw_kernels *k, lw_tensor *y, const lw_tensor *x, float eps,
                      const lw_tensor *scale);

    /**
     * x += g * rmsnorm(y; w, eps), g = tanh(gate) per channel, or 1 when gate is NULL. x, y [n, d];
     * w, gate [d]. y is not changed. Source: sandwich norm of S3-DiT.
     */
    void (*add_rmsnorm)(lw_kernels *k, lw_tensor *x, const lw_tensor *y, const lw_tensor *w,
                        float eps, const lw_tensor *gate);

    /** x += y, same shape. */
    void (*add)(lw_kernels *k, lw_tensor *x, const lw_tensor *y);

    /**
     * In place on q [n, H*D] (row stride may be larger): per head rmsnorm with w [D], then rotation
     * by cos/sin [n, D/2] f32. Source: spec 3.5 (interleaved), Qwen3 (half split).
     */
    void (*qk_norm_rope)(lw_kernels *k, lw_tensor *q, int heads, const lw_tensor *w, float eps,
                         const lw_tensor *cos, const lw_tensor *sin, lw_rope_pairing pairing);

    /**
     * o [n, H*D] = softmax(scale * q k^T) v per head; q [n, H*D], k and v [m, KV*D]; query head h
     * uses kv head h / (H/KV). causal: row i sees keys 0..i (needs n == m). Views with row strides
     * allowed.
     */
    void (*attention)(lw_kernels *k, lw_tensor *o, const lw_tensor *q, const lw_tensor *key,
                      const lw_tensor *v, int heads, int kv_heads, float scale, bool causal);

    /** y = silu(gate) * up, all [n, d]; y may be gate or up. silu(x) = x / (1 + exp(-x)). */
    void (*swiglu)(lw_kernels *k, lw_tensor *y, const lw_tensor *gate, const lw_tensor *up);

    /** y = silu(x), any shape; in place allowed. */
    void (*silu)(lw_kernels *k, lw_tensor *y, const lw_tensor *x);

    /** y [n, d] f32 = rows ids[i] of table [vocab, d] (f32, bf16, f16). ids are in range. */
    void (*embed)(lw_kernels *k, lw_tensor *y, const lw_tensor *table, const int32_t *ids);

    /** Every row of y [n, d] = v [d]. (Pad tokens.) */
    void (*fill_rows)(lw_kernels *k, lw_tensor *y, const lw_tensor *v);

    /**
     * tokens [Th*Tw, p*p*C] from latent z [C, H, W] (NCHW as on the wire): row in patch, column in
     * patch, channel fastest; and back. Source: transformer spec 3.2.
     */
    void (*patchify)(lw_kernels *k, lw_tensor *tokens, const lw_tensor *z, int patch);
    void (*unpatchify)(lw_kernels *k, lw_tensor *z, const lw_tensor *tokens, int patch);

    /**
     * y [ho, wo, C_out] = conv(x [h, w, C_in]) + b (+ residual [ho, wo, C_out] when not NULL; the
     * residual may be y itself). ho = (h + pad_top + pad_bottom - k) / stride + 1, with h doubled
     * by `upsample`.
     */
    void (*conv2d)(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_conv2d *conv,
                   const lw_tensor *residual);

    /**
     * f [3, C] such that (x - f[0]) * f[1] + f[2] = groupnorm(x) * w + b for x [h, w, C]: `groups`
     * groups of neighbouring channels, biased variance over group and positions. Sums in f64 or
     * compensated f32. Source: diffusers' AutoencoderKL.
     */
    void (*group_factors)(lw_kernels *k, lw_tensor *f, const lw_tensor *x, const lw_tensor *w,
                          const lw_tensor *b, int groups, float eps);
    /** y = (x - f[0]) * f[1] + f[2], x [h, w, C], f [3, C]. In place allowed. */
    void (*channel_affine)(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_tensor *f);

    /**
     * NCHW [C, h, w] <-> NHWC [h, w, C] with the latent scaling on the way: towards NHWC
     * y = x / div + add (the decoder divides first, then adds), back y = (x - sub) * mul.
     */
    void (*nchw_to_nhwc)(lw_kernels *k, lw_tensor *y, const lw_tensor *x, float div, float add);
    void (*nhwc_to_nchw)(lw_kernels *k, lw_tensor *y, const lw_tensor *x, float sub, float mul);

    /** rgb [h, w, 3] uint8 = round_half_even(clamp(x * 0.5 + 0.5, 0, 1) * 255), x [h, w, 3] f32. */
    void (*to_rgb8)(lw_kernels *k, lw_tensor *rgb, const lw_tensor *x);
    /** x [h, w, 3] f32 = 2 * (rgb / 255) - 1. */
    void (*from_rgb8)(lw_kernels *k, lw_tensor *x, const lw_tensor *rgb);

    /** Bytes of scratch and caches held now; they only grow, up to what the largest request needs.
     */
    size_t (*scratch_bytes)(const lw_kernels *k);
    /** Free impl; the pool stays the caller's. */
    void (*deinit)(lw_kernels *k);
};

/** The plain reference. Always available. pool NULL: single-threaded. */
void lw_kernels_init_ref(lw_kernels *k, lw_pool *pool);
/**
 * The best CPU back end of this build on this machine: oneDNN when built with it, else ref.
 * LATENTWIRE_BACKEND=ref|onednn overrides. Errors: LW_E_NOMEM, LW_E_INVALID (unknown name),
 * LW_E_UNIMPLEMENTED (asked for one that this build lacks).
 */
LW_MUST_USE lw_status lw_kernels_init_cpu(lw_kernels *k, lw_pool *pool, lw_err *err);
void lw_kernels_deinit(lw_kernels *k);
/** Memory that the back end holds for itself, for reports; weights made by *_prepare not counted.
 */
size_t lw_kernels_scratch_bytes(const lw_kernels *k);
/**
 * Try the operations that differ between machines (products in f32, bf16 and int8, attention,
 * norms, convolution) on a few small random numbers against f64; some milliseconds. Libraries have
 * shipped kernels that are wrong on some processors. Errors: LW_E_INTERNAL, naming the operation
 * and by how much it is wrong, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_kernels_try(lw_kernels *k, lw_err *err);
/** "f32", "int8"; "auto". */
const char *lw_precision_name(lw_precision p);

/** LW_OK, or the sticky failure of an operation since the last check, which it clears. */
LW_MUST_USE lw_status lw_kernels_check(lw_kernels *k, lw_err *err);

#endif
