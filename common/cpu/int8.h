#ifndef LW_COMMON_CPU_INT8_H
#define LW_COMMON_CPU_INT8_H

/*
 * Linear layers in 8-bit integers: y [n, out] = x [n, in] W^T + b with x and y in f32.
 *
 * Weights are quantised once, a row (output) at a time: w = sw[o] * q, q in -127..127. Activations
 * are quantised as they come, a row (token) at a time: x = sx[i] * (u - 128), u in 1..255. The sums
 * of u * q are exact in 32 bits, and
 *
 *     y[i, o] = (sum_k u[i, k] q[o, k]  -  128 sum_k q[o, k]) * sw[o] * sx[i] + b[o].
 *
 * One large activation would leave the rest of its row with few steps, and whatever a weight that
 * meets it was rounded by is multiplied by it. Two things are done first, to the weights when they
 * are packed and to the activations when they are quantised; both leave the products as they are:
 *
 *  - balance: channel k of the activations times r[k], column k of the weights by r[k], where r[k]
 *    is the root of the column's rms. A channel that is large because its readers have small
 *    weights comes nearer to the others on both sides. The rms of a row of x times that of a row of
 *    w, which the error grows with, is least at sqrt(|w_k| / |x_k|) (as in SmoothQuant, arXiv
 *    2211.10438); with |x| unknown, as it is here, r is half way between what is best when all |x|
 *    are alike (this root) and when |x| |w| are (|w| itself).
 *  - rotation by the same orthonormal matrix, which spreads a large value over a block of
 *    neighbours: the Walsh-Hadamard transform of blocks of `block` items (a power of two), the same
 *    idea as in QuaRot (arXiv 2404.00456).
 *
 * Every result here has the same bits on every instruction set and with any number of threads:
 * sums are integers, and what is done in f32 is done in the same order everywhere.
 *
 * The packed form, which may be written to a file and mapped (its length and every offset follow
 * from out and in alone; numbers are little-endian):
 *
 *     header   64 bytes, lw_int8_header
 *     balance  f32 r[k], k = in rounded up to 64; 1 from `in` on
 *     panel 0  outputs 0 .. 31
 *     panel 1  outputs 32 .. 63
 *     ...      ceil(out / 32) panels, each of 256 + 32 k bytes
 *
 *     panel    f32 scale[32]       sw; 0 for outputs from `out` on
 *              s32 offset[32]      -128 * sum_k q
 *              s8  q[k / 4][32][4] inner items in groups of 4, zero from `in` on:
 *
 *                  group 0:  o0 k0..3 | o1 k0..3 | o2 k0..3 | ... | o31 k0..3    128 bytes
 *                  group 1:  o0 k4..7 | o1 k4..7 | ...
 *
 * Two 64-byte registers hold a group; a register of four repeated bytes u[i, 4g .. 4g+3] times one
 * of them adds to 16 sums with one instruction. Everything begins at a multiple of 64 bytes.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/pool.h"
#include "common/tensor.h"

#define LW_INT8_VERSION 2
#define LW_INT8_PANEL   32 /* outputs of a panel */
#define LW_INT8_TILE    12 /* rows of activations that are multiplied at a time */
#define LW_INT8_ALIGN   64
#define LW_INT8_BLOCK   256   /* the largest block of the rotation */
#define LW_INT8_MAX_IN  65536 /* 65536 * 255 * 127 is below 2^31 */

/** Largest |q|: 127, or 64, with which the AVX2 level without VNNI is twice as fast. */
typedef enum lw_int8_bits { LW_INT8_8BIT = 127, LW_INT8_7BIT = 64 } lw_int8_bits;

typedef struct lw_int8_header {
    char magic[8]; /* "LWINT8W" */
    uint32_t version;
    uint32_t q_max;    /* lw_int8_bits */
    uint32_t block;    /* of the rotation; 0 = none */
    uint32_t balanced; /* 0: every r is 1 */
    int64_t out, in;
    uint64_t bytes; /* of the whole */
    uint64_t hash;  /* FNV-1a of the bytes before it */
    uint64_t zero;
} lw_int8_header;

/** What may be chosen when weights are packed. */
typedef struct lw_int8_form {
    int block; /* of the rotation: 0 or lw_int8_block(in) */
    lw_int8_bits bits;
    bool balanced;
} lw_int8_form;

/** The largest power of two up to LW_INT8_BLOCK that divides `in`; 0 (no rotation) when odd. */
int lw_int8_block(int64_t in);
/** What models are packed with: rotated, 8 bits, balanced. The others are for tests. */
lw_int8_form lw_int8_usual(int64_t in);
/** Bytes of the packed form; 0 when there is none: out < 1, in < 1 or in > LW_INT8_MAX_IN. */
size_t lw_int8_packed_bytes(int64_t out, int64_t in);
/**
 * Pack w [out, in] (f32, bf16 or f16; rows may be strided) into dst, which has
 * lw_int8_packed_bytes() and is 64-byte aligned. The bytes are a function of w and form, not of
 * machine or pool (NULL allowed). Takes 4 * in bytes a thread while it runs. Errors: LW_E_INVALID
 * (block), LW_E_SHAPE, LW_E_FORMAT (a weight is not finite), LW_E_NOMEM; dst is undefined then.
 */
LW_MUST_USE lw_status lw_int8_pack(void *dst, const lw_tensor *w, lw_int8_form form, lw_pool *pool,
                                   lw_err *err);
/**
 * Is this the header of packed weights [out, in] whose `bytes` bytes are all here? What lies behind
 * the header is not looked at: any bytes there are weights. Errors: LW_E_FORMAT, LW_E_SHAPE,
 * LW_E_PRECONDITION (another version), LW_E_INVALID (p is not aligned).
 */
LW_MUST_USE lw_status lw_int8_check(const void *p, size_t bytes, int64_t out, int64_t in,
                                    lw_err *err);
/** One weight of a packed matrix as a number, balanced and rotated: scale * q. For tests. */
float lw_int8_weight(const void *packed, int64_t o, int64_t i);
/** The r[k] of packed weights. */
const float *lw_int8_balance(const void *packed);
/** Whether rows that were quantised for one of two packed matrices serve the other. */
bool lw_int8_alike(const void *a, const void *b);

/** A product of up to LW_INT8_TILE rows with a panel. */
typedef struct lw_int8_tile {
    const uint8_t *u; /* [groups][rows][4] */
    const int8_t *q;  /* [groups][LW_INT8_PANEL][4] */
    int64_t groups;
    int rows;
    bool wide;        /* |q| may exceed LW_INT8_7BIT */
    const char *next; /* what will be read soon: one hint to the cache a group, from here ... */
    int64_t step;     /* ... in steps of so many bytes */
} lw_int8_tile;

/** The inner loops of one instruction set (int8_isa.c). All levels give the same bits. */
typedef struct lw_int8_isa {
    const char *name; /* "baseline", "avx2", "avxvnni", "avx512vnni" */
    /**
     * x [k] in place: blocks of `block` items (0 or a power of two up to LW_INT8_BLOCK) times the
     * Hadamard matrix over sqrt(block). Stages go from distance block/2 down to 1. k is a multiple
     * of 64, x is 64-byte aligned. Returns the bits of the largest |x|, which order as numbers do
     * and put infinity and NaN on top.
     */
    uint32_t (*rotate)(float *x, int64_t k, int block);
    /** u = round_half_even(x * inv) + 128 into every `stride`-th group of 4 bytes. */
    void (*quantise)(uint8_t *u, int64_t stride, const float *x, int64_t k, float inv);
    /** sums [rows][LW_INT8_PANEL] = u q^T, 64-byte aligned. */
    void (*dot)(int32_t *sums, const lw_int8_tile *t);
    /** y [n] = (sums + offset) * scale * sx + b, in that order; b may be NULL. */
    void (*finish)(float *y, const int32_t *sums, const int32_t *offset, const float *scale,
                   float sx, const float *b, int64_t n);
    /**
     * For measurements (ceiling.h): `turns` rounds of the instructions that `dot` is made of, which
     * wait for nothing. Returns the number of integer operations, two a product. NULL: this level
     * has no such instruction.
     */
    double (*dot_products)(int64_t turns);
} lw_int8_isa;

/** Number of levels that this machine can run, baseline (the plain reference) first. */
int lw_int8_levels(void);
const lw_int8_isa *lw_int8_level(int i);
/** The last of them. */
const lw_int8_isa *lw_int8_best(void);

/**
 * Quantised activations [n, in]: tiles of LW_INT8_TILE rows, each [k / 4][rows][4] bytes, the last
 * one with the rows that are left. May be multiplied with matrices that are alike (lw_int8_alike).
 */
typedef struct lw_int8_rows {
    int64_t n, in;
    const void *packed; /* what they were quantised for */
    uint8_t *u;
    float *scale; /* [n] sx; NaN for a row that has a value that is not finite */
    float *work;  /* a row for each thread */
} lw_int8_rows;

/** Memory for lw_int8_rows of a pool of so many threads; SIZE_MAX when too large. */
size_t lw_int8_rows_bytes(int64_t n, int64_t in, int n_threads);
/**
 * Quantise x [n, in] f32 (rows may be strided), balanced and rotated as `packed` is. mem: 64-byte
 * aligned, of lw_int8_rows_bytes(n, in, threads of the pool); it and packed are in use as long as
 * *ret is. A row whose values are all below 2^-100 counts as zero.
 */
void lw_int8_quantise(const lw_int8_isa *isa, lw_pool *pool, lw_int8_rows *ret, void *mem,
                      const lw_tensor *x, const void *packed);
/**
 * y [n, out] f32 (rows may be strided) = rows times packed weights, which passed lw_int8_check or
 * come from lw_int8_pack and are like those of the rows. b [out] or NULL.
 */
void lw_int8_product(const lw_int8_isa *isa, lw_pool *pool, lw_tensor *y, const lw_int8_rows *rows,
                     const void *packed, const float *b);

extern const lw_int8_isa lw_int8_baseline;
#ifdef LW_HAVE_X86_LEVELS
extern const lw_int8_isa lw_int8_avx2;
extern const lw_int8_isa lw_int8_avx512vnni;
#ifdef LW_HAVE_AVXVNNI
extern const lw_int8_isa lw_int8_avxvnni;
#endif
#endif

#endif
