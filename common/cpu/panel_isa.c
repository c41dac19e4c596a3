/*
 * The inner loops of panel.h. Meson compiles this file once per instruction set, with
 * LW_PANEL_TABLE and LW_PANEL_ISA naming the result; as in vec.c nothing outside may be inlined
 * into here except static functions. Vectors are those of gcc and clang.
 */
#include "common/cpu/panel.h"

#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define ROWS  12
#elif defined(__AVX2__)
#define LANES 8
#define ROWS  6
#else
#define LANES 4
#define ROWS  4
#endif
#define WIDTH (2 * LANES)

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef uint32_t bits __attribute__((vector_size(LANES * 4)));
/* In memory: as aligned as an item. */
typedef float stored __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint32_t stored_bits __attribute__((vector_size(LANES * 4), aligned(2), may_alias));

INLINE vec load(const float *p)
{
    return *(const stored *)p;
}

INLINE void store(float *p, vec v)
{
    *(stored *)p = v;
}

/* ---- packing ---- */

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef SHUFFLE
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (bits){ __VA_ARGS__ })
#endif

/* Exchange the blocks of d x d items beside the diagonal of all blocks of 2d x 2d. */
#define EXCHANGE(t, d, low, high)                                                                  \
    UNROLL                                                                                         \
    for (int i = 0; i < LANES; i++) {                                                              \
        if (!(i & (d))) {                                                                          \
            bits a_ = t[i], b_ = t[i + (d)];                                                       \
                                                                                                   \
            t[i] = SHUFFLE(a_, b_, low);                                                           \
            t[i + (d)] = SHUFFLE(a_, b_, high);                                                    \
        }                                                                                          \
    }
#define LIST(...) __VA_ARGS__

INLINE void transpose(bits *t)
{
#if LANES == 16
    EXCHANGE(t, 8, LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
             LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
    EXCHANGE(t, 4, LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
             LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
    EXCHANGE(t, 2, LIST(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
             LIST(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
    EXCHANGE(t, 1, LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
             LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#elif LANES == 8
    EXCHANGE(t, 4, LIST(0, 1, 2, 3, 8, 9, 10, 11), LIST(4, 5, 6, 7, 12, 13, 14, 15))
    EXCHANGE(t, 2, LIST(0, 1, 8, 9, 4, 5, 12, 13), LIST(2, 3, 10, 11, 6, 7, 14, 15))
    EXCHANGE(t, 1, LIST(0, 8, 2, 10, 4, 12, 6, 14), LIST(1, 9, 3, 11, 5, 13, 7, 15))
#else
    EXCHANGE(t, 2, LIST(0, 1, 4, 5), LIST(2, 3, 6, 7))
    EXCHANGE(t, 1, LIST(0, 4, 2, 6), LIST(1, 5, 3, 7))
#endif
}

INLINE bits widen_bf16(bits v)
{
    return v << 16;
}

/* As in vec.c: the exponent is moved to f32's place and its bias corrected by a multiplication,
 * which makes subnormals right too; infinities and NaN get the largest exponent. */
INLINE bits widen_f16(bits v)
{
    bits sign = (v & 0x8000) << 16, rest = (v & 0x7fff) << 13;
    vec number = (vec)rest * 0x1p112f;

    return (bits)number | ((bits)(rest >= 0x0f800000u) & 0x7f800000u) | sign;
}

/* One item of any dtype. */
INLINE float item(const void *w, lw_dtype dtype, int64_t i)
{
    uint32_t u = 0;
    uint16_t h;
    bits v;
    float f;

    if (dtype == LW_F32)
        return ((const float *)w)[i];
    memcpy(&h, (const uint16_t *)w + i, sizeof(h));
    v = (bits){ 0 } + h;
    v = dtype == LW_BF16 ? widen_bf16(v) : widen_f16(v);
    u = v[0];
    memcpy(&f, &u, sizeof(f));
    return f;
}

/* LANES rows: blocks of LANES words, which are one item or two, are transposed in registers. */
INLINE void pack_lanes(float *u, const char *w, lw_dtype dtype, size_t stride_bytes, int64_t n)
{
    const int64_t per_word = dtype == LW_F32 ? 1 : 2, size = 4 / per_word;
    int64_t k = 0;

    for (; k + LANES * per_word <= n; k += LANES * per_word) {
        bits t[LANES];

        UNROLL
        for (int i = 0; i < LANES; i++)
            t[i] = *(const stored_bits *)(w + (size_t)i * stride_bytes + (size_t)(k * size));
        transpose(t);
        UNROLL
        for (int i = 0; i < LANES; i++) {
            float *to = u + (k + i * per_word) * WIDTH;

            if (dtype == LW_F32) {
                store(to, (vec)t[i]);
            } else if (dtype == LW_BF16) {
                store(to, (vec)widen_bf16(t[i]));
                store(to + WIDTH, (vec)(t[i] & 0xffff0000u));
            } else {
                store(to, (vec)widen_f16(t[i] & 0xffff));
                store(to + WIDTH, (vec)widen_f16(t[i] >> 16));
            }
        }
    }
    for (; k < n; k++) {
        for (int i = 0; i < LANES; i++)
            u[k * WIDTH + i] = item(w + (size_t)i * stride_bytes, dtype, k);
    }
}

/* Few rows, at the edge of a matrix. */
static void pack_some(float *u, const char *w, lw_dtype dtype, size_t stride_bytes, int64_t n_rows,
                      int64_t n)
{
    for (int64_t k = 0; k < n; k++) {
        for (int64_t i = 0; i < WIDTH; i++)
            u[k * WIDTH + i] = i < n_rows ? item(w + (size_t)i * stride_bytes, dtype, k) : 0;
    }
}

static void isa_pack(float *u, const void *w, lw_dtype dtype, int64_t stride, int64_t n_rows,
                     int64_t n)
{
    size_t stride_bytes = (size_t)stride * (dtype == LW_F32 ? 4 : 2);
    const char *second = (const char *)w + LANES * stride_bytes;

    if (n_rows < WIDTH) {
        pack_some(u, w, dtype, stride_bytes, n_rows, n);
    } else if (dtype == LW_F32) {
        pack_lanes(u, w, LW_F32, stride_bytes, n);
        pack_lanes(u + LANES, second, LW_F32, stride_bytes, n);
    } else if (dtype == LW_BF16) {
        pack_lanes(u, w, LW_BF16, stride_bytes, n);
        pack_lanes(u + LANES, second, LW_BF16, stride_bytes, n);
    } else {
        pack_lanes(u, w, LW_F16, stride_bytes, n);
        pack_lanes(u + LANES, second, LW_F16, stride_bytes, n);
    }
}

/* ---- products ---- */

INLINE void product_rows(float *y, int64_t ldy, const float *x, int64_t ldx, const float *u,
                         int64_t n, bool accumulate, const int rows)
{
    vec s[ROWS][2];

    UNROLL
    for (int r = 0; r < rows; r++)
        s[r][0] = s[r][1] = (vec){ 0 };
    for (int64_t k = 0; k < n; k++, u += WIDTH) {
        vec u0 = load(u), u1 = load(u + LANES);

        UNROLL
        for (int r = 0; r < rows; r++) {
            s[r][0] += x[r * ldx + k] * u0;
            s[r][1] += x[r * ldx + k] * u1;
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        float *to = y + r * ldy;

        store(to, accumulate ? load(to) + s[r][0] : s[r][0]);
        store(to + LANES, accumulate ? load(to + LANES) + s[r][1] : s[r][1]);
    }
}

#define CASE(rows)                                                                                 \
    case rows:                                                                                     \
        product_rows(y, ldy, x, ldx, u, n, accumulate, rows);                                      \
        break

static void product_last(float *y, int64_t ldy, const float *x, int64_t ldx, const float *u,
                         int64_t n_rows, int64_t n, bool accumulate)
{
    switch (n_rows) {
        CASE(1);
        CASE(2);
        CASE(3);
#if ROWS > 4
        CASE(4);
        CASE(5);
#endif
#if ROWS > 6
        CASE(6);
        CASE(7);
        CASE(8);
        CASE(9);
        CASE(10);
        CASE(11);
#endif
    }
}

static void product_full(float *y, int64_t ldy, const float *x, int64_t ldx, const float *u,
                         int64_t n, bool accumulate)
{
    product_rows(y, ldy, x, ldx, u, n, accumulate, ROWS);
}

static void isa_product(float *y, int64_t ldy, const float *x, int64_t ldx, const float *u,
                        int64_t n_rows, int64_t n, bool accumulate)
{
    int64_t i = 0;

    for (; i + ROWS <= n_rows; i += ROWS)
        product_full(y + i * ldy, ldy, x + i * ldx, ldx, u, n, accumulate);
    product_last(y + i * ldy, ldy, x + i * ldx, ldx, u, n_rows - i, n, accumulate);
}

const lw_panel_isa LW_PANEL_TABLE = {
    .name = LW_PANEL_ISA,
    .rows = ROWS,
    .width = WIDTH,
    .pack = isa_pack,
    .product = isa_product,
};
