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
 * One large activation would leave the rest of its row with few steps, so both sides may first be
 * rotated by the same orthonormal matrix, which leaves the products as they are and spreads such
 * a value over a block of neighbours: the Walsh-Hadamard transform of blocks of `block` items (a
 * power of two), the same idea as in QuaRot (arXiv 2404.00456). The weights are rotated when they
 * are packed, the activations when they are quantised.
 *
 * Every result here has the same bits on every instruction set and with any number of threads:
 * sums are integers, and what is done in f32 is done in the same order everywhere.
 *
 * The packed form, which may be written to a file and mapped (its length and every offset follow
 * from out and in alone; numbers are little-endian):
 *
 *     header   64 bytes, lw_int8_header
 *     panel 0  outputs 0 .. 31
 *     panel 1  outputs 32 .. 63
 *     ...      ceil(out / 32) panels, each of 256 + 32 k bytes, k = in rounded up to 64
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

#define LW_INT8_VERSION 1
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
    uint32_t q_max; /* lw_int8_bits */
    uint32_t block; /* of the rotation; 0 = none */
    uint32_t zero;
    int64_t out, in;
    uint64_t bytes; /* of the whole */
    uint64_t hash;  /* FNV-1a of the bytes before it */
    uint64_t zero2;
} lw_int8_header;

/** The largest power of two up to LW_INT8_BLOCK that divides `in`; 0 (no rotation) when odd. */
int lw_int8_block(int64_t in);
/** Bytes of the packed form; 0 when there is none: out < 1, in < 1 or in > LW_INT8_MAX_IN. */
size_t lw_int8_packed_bytes(int64_t out, int64_t in);
/**
 * Pack w [out, in] (f32, bf16 or f16; rows may be strided) into dst, which has
 * lw_int8_packed_bytes() and is 64-byte aligned. block: 0 or lw_int8_block(in). The bytes are a
 * function of the arguments, not of machine or pool (NULL allowed). Takes 4 * in bytes a thread
 * while it runs. Errors: LW_E_INVALID (block), LW_E_SHAPE, LW_E_FORMAT (a weight is not finite),
 * LW_E_NOMEM; dst is undefined then.
 */
LW_MUST_USE lw_status lw_int8_pack(void *dst, const lw_tensor *w, int block, lw_int8_bits bits,
                                   lw_pool *pool, lw_err *err);
/**
 * Is this the header of packed weights [out, in] whose `bytes` bytes are all here? What lies behind
 * the header is not looked at: any bytes there are weights. Errors: LW_E_FORMAT, LW_E_SHAPE,
 * LW_E_PRECONDITION (another version), LW_E_INVALID (p is not aligned).
 */
LW_MUST_USE lw_status lw_int8_check(const void *p, size_t bytes, int64_t out, int64_t in,
                                    lw_err *err);
/** One weight of a packed matrix as a number, rotated as it is: scale * q. For tests and tools. */
float lw_int8_weight(const void *packed, int64_t o, int64_t i);

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
 * one with the rows that are left. May be multiplied with several matrices of the same `in` and
 * block.
 */
typedef struct lw_int8_rows {
    int64_t n, in;
    int block;
    uint8_t *u;
    float *scale; /* [n] sx; NaN for a row that has a value that is not finite */
    float *work;  /* a row for each thread */
} lw_int8_rows;

/** Memory for lw_int8_rows of a pool of so many threads; SIZE_MAX when too large. */
size_t lw_int8_rows_bytes(int64_t n, int64_t in, int n_threads);
/**
 * Quantise x [n, in] f32 (rows may be strided) after rotation by `block`. mem: 64-byte aligned, of
 * lw_int8_rows_bytes(n, in, threads of the pool), in use as long as *ret is. A row whose values are
 * all below 2^-100 counts as zero.
 */
void lw_int8_quantise(const lw_int8_isa *isa, lw_pool *pool, lw_int8_rows *ret, void *mem,
                      const lw_tensor *x, int block);
/**
 * y [n, out] f32 (rows may be strided) = rows times packed weights, which passed lw_int8_check or
 * come from lw_int8_pack and have the `in` and block of the rows. b [out] or NULL.
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
