/*
 * The inner loops of int8.h. Meson compiles this file once per instruction set, with LW_INT8_TABLE
 * and LW_INT8_ISA naming the result; without flags it is the plain reference. No contraction here:
 * every level must give the same bits.
 *
 * As in vec.c, nothing outside may be inlined into here except static functions.
 */
#include "common/cpu/int8.h"

#include <math.h>
#include <string.h>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#define ABS_BITS 0x7fffffff

/* Rotation: radix 4 where two stages work on whole registers, then the stages inside a register,
 * where each item meets its partner: partner + item below, partner - item above. */

#if defined(__AVX512F__)
#define LANES 16
typedef __m512 vf;
typedef __m512i vi;
#define vf_load        _mm512_load_ps
#define vf_store       _mm512_store_ps
#define vf_add         _mm512_add_ps
#define vf_sub         _mm512_sub_ps
#define vf_mul         _mm512_mul_ps
#define vf_set1        _mm512_set1_ps
#define vi_zero        _mm512_setzero_si512
#define vi_max         _mm512_max_epi32
#define vf_abs_bits(x) _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(ABS_BITS))
/* a + x * (+1 or -1) rounds once, as a + x and a - x do */
#define vf_meet(x, a, up) _mm512_fmadd_ps(x, _mm512_mask_blend_ps(up, vf_set1(1), vf_set1(-1)), a)

static inline vf inner_stages(vf x, int block)
{
    if (block > 8)
        x = vf_meet(x, _mm512_shuffle_f32x4(x, x, 0x4e), 0xff00);
    if (block > 4)
        x = vf_meet(x, _mm512_shuffle_f32x4(x, x, 0xb1), 0xf0f0);
    if (block > 2)
        x = vf_meet(x, _mm512_permute_ps(x, 0x4e), 0xcccc);
    if (block > 1)
        x = vf_meet(x, _mm512_permute_ps(x, 0xb1), 0xaaaa);
    return x;
}
#elif defined(__AVX2__)
#define LANES             8
typedef __m256 vf;
typedef __m256i vi;
#define vf_load           _mm256_load_ps
#define vf_store          _mm256_store_ps
#define vf_add            _mm256_add_ps
#define vf_sub            _mm256_sub_ps
#define vf_mul            _mm256_mul_ps
#define vf_set1           _mm256_set1_ps
#define vi_zero           _mm256_setzero_si256
#define vi_max            _mm256_max_epi32
#define vf_abs_bits(x)    _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(ABS_BITS))
#define vf_meet(x, a, up) _mm256_fmadd_ps(x, _mm256_blend_ps(vf_set1(1), vf_set1(-1), up), a)

static inline vf inner_stages(vf x, int block)
{
    if (block > 4)
        x = vf_meet(x, _mm256_permute2f128_ps(x, x, 0x01), 0xf0);
    if (block > 2)
        x = vf_meet(x, _mm256_permute_ps(x, 0x4e), 0xcc);
    if (block > 1)
        x = vf_meet(x, _mm256_permute_ps(x, 0xb1), 0xaa);
    return x;
}
#endif

#ifdef LANES
/* Stages of distances h and h / 2 over the whole row. */
static void radix4(float *x, int64_t k, int64_t h)
{
    int64_t q = h / 2;

    for (int64_t i = 0; i < k; i += 2 * h) {
        for (float *p = x + i; p < x + i + q; p += LANES) {
            vf a = vf_load(p), b = vf_load(p + q), c = vf_load(p + h), d = vf_load(p + h + q);
            vf ac = vf_add(a, c), bd = vf_add(b, d), a_c = vf_sub(a, c), b_d = vf_sub(b, d);

            vf_store(p, vf_add(ac, bd));
            vf_store(p + q, vf_sub(ac, bd));
            vf_store(p + h, vf_add(a_c, b_d));
            vf_store(p + h + q, vf_sub(a_c, b_d));
        }
    }
}

static void radix2(float *x, int64_t k, int64_t h)
{
    for (int64_t i = 0; i < k; i += 2 * h) {
        for (float *p = x + i; p < x + i + h; p += LANES) {
            vf a = vf_load(p), b = vf_load(p + h);

            vf_store(p, vf_add(a, b));
            vf_store(p + h, vf_sub(a, b));
        }
    }
}

static uint32_t isa_rotate(float *x, int64_t k, int block)
{
    vf norm = vf_set1(block > 1 ? 1.0f / sqrtf((float)block) : 1.0f);
    int32_t top[LANES], max = 0;
    vi m = vi_zero();
    int64_t h = block / 2;

    for (; h / 2 >= LANES; h /= 4)
        radix4(x, k, h);
    if (h >= LANES)
        radix2(x, k, h);
    for (float *p = x; p < x + k; p += LANES) {
        vf v = vf_mul(inner_stages(vf_load(p), block), norm);

        m = vi_max(m, vf_abs_bits(v));
        vf_store(p, v);
    }
    memcpy(top, &m, sizeof(top));
    for (int i = 0; i < LANES; i++)
        max = top[i] > max ? top[i] : max;
    return (uint32_t)max;
}
#else
static uint32_t isa_rotate(float *x, int64_t k, int block)
{
    float norm = block > 1 ? 1.0f / sqrtf((float)block) : 1.0f;
    uint32_t max = 0;

    for (int64_t h = block / 2; h > 0; h /= 2) {
        for (int64_t i = 0; i < k; i++) {
            if (i & h)
                continue;
            float a = x[i], b = x[i + h];

            x[i] = a + b;
            x[i + h] = a - b;
        }
    }
    for (int64_t i = 0; i < k; i++) {
        uint32_t bits;

        x[i] *= norm;
        memcpy(&bits, &x[i], sizeof(bits));
        bits &= ABS_BITS;
        max = bits > max ? bits : max;
    }
    return max;
}
#endif

/* 16 items make four groups. */
static void isa_quantise(uint8_t *u, int64_t stride, const float *x, int64_t k, float inv)
{
    for (int64_t i = 0; i < k; i += 16, u += 16 * stride) {
        uint8_t v[16];

#if defined(__AVX512F__)
        __m512i r = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(x + i), _mm512_set1_ps(inv)));

        r = _mm512_add_epi32(r, _mm512_set1_epi32(128));
        _mm_storeu_si128((__m128i *)v, _mm512_cvtepi32_epi8(r));
#elif defined(__AVX2__)
        __m256 by = _mm256_set1_ps(inv);
        __m256i lo = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_load_ps(x + i), by));
        __m256i hi = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_load_ps(x + i + 8), by));
        __m256i r = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);

        r = _mm256_add_epi16(r, _mm256_set1_epi16(128));
        _mm_storeu_si128((__m128i *)v, _mm_packus_epi16(_mm256_castsi256_si128(r),
                                                        _mm256_extracti128_si256(r, 1)));
#else
        for (int j = 0; j < 16; j++)
            v[j] = (uint8_t)(lrintf(x[i + j] * inv) + 128);
#endif
        for (int g = 0; g < 4; g++)
            memcpy(u + g * 4 * stride, v + g * 4, 4);
    }
}

/*
 * The product. Sums of a tile stay in registers over all of k. Left to themselves gcc 12 and clang
 * 14 spill them, so the instruction is written as assembly with a register operand; the rest is for
 * the compiler. `rows` is a constant where these are inlined.
 */
#ifdef LANES
#define INLINE static inline __attribute__((always_inline))
/* Whole: an array stays in registers only when every index is a constant. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 12")
#endif

INLINE int32_t load4(const uint8_t *p)
{
    int32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}
#endif

#if defined(__AVX512VNNI__)

INLINE void dot_rows(int32_t *sums, const lw_int8_tile *t, const int rows)
{
    __m512i s[LW_INT8_TILE][2];
    const uint8_t *u = t->u;
    const int8_t *q = t->q, *end = q + t->groups * LW_INT8_PANEL * 4;
    const char *next = t->next;

    UNROLL
    for (int r = 0; r < rows; r++)
        s[r][0] = s[r][1] = _mm512_setzero_si512();
    for (; q < end; q += LW_INT8_PANEL * 4, u += 4 * rows, next += t->step) {
        __m512i q0 = _mm512_load_si512(q), q1 = _mm512_load_si512(q + 64);

        __builtin_prefetch(next, 0, 2);
        UNROLL
        for (int r = 0; r < rows; r++) {
            __m512i a = _mm512_set1_epi32(load4(u + 4 * r));

            __asm__("vpdpbusd %2, %1, %0" : "+v"(s[r][0]) : "v"(a), "v"(q0));
            __asm__("vpdpbusd %2, %1, %0" : "+v"(s[r][1]) : "v"(a), "v"(q1));
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        _mm512_store_si512(sums + r * LW_INT8_PANEL, s[r][0]);
        _mm512_store_si512(sums + r * LW_INT8_PANEL + 16, s[r][1]);
    }
}

#define CASE(n)                                                                                    \
    case n:                                                                                        \
        dot_rows(sums, t, n);                                                                      \
        break

static void isa_dot(int32_t *sums, const lw_int8_tile *t)
{
    switch (t->rows) {
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
        CASE(5);
        CASE(6);
        CASE(7);
        CASE(8);
        CASE(9);
        CASE(10);
        CASE(11);
    default:
        dot_rows(sums, t, LW_INT8_TILE);
    }
}

#elif defined(__AVX2__)

/* Half a panel by 6 rows fills 12 of 16 registers with sums. */
#define STRIP 6

/*
 * Without VNNI the instruction for bytes adds pairs in 16 bits, which saturates: 2 * 255 * 64 is
 * the most that fits. With larger weights ("wide") both sides are widened to 16 bits, even and odd
 * items apart, and the instruction for those adds pairs in 32.
 */
typedef struct operand {
    __m256i even, odd; /* not wide: all in `even` */
} operand;

INLINE operand operand_q(const int8_t *p, bool wide)
{
    __m256i q = _mm256_load_si256((const __m256i *)p);

    if (!wide)
        return (operand){ .even = q };
    return (operand){ _mm256_srai_epi16(_mm256_slli_epi16(q, 8), 8), _mm256_srai_epi16(q, 8) };
}

INLINE operand operand_u(const uint8_t *p, bool wide)
{
    __m256i u = _mm256_set1_epi32(load4(p));

    if (!wide)
        return (operand){ .even = u };
    return (operand){ _mm256_and_si256(u, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(u, 8) };
}

/* s + u q^T of four bytes each. */
INLINE __m256i dot4(__m256i s, operand u, operand q, bool wide)
{
#ifdef LW_INT8_VNNI256
    (void)wide;
    __asm__(LW_INT8_VNNI256 " %2, %1, %0" : "+x"(s) : "x"(u.even), "x"(q.even));
    return s;
#else
    const __m256i ones = _mm256_set1_epi16(1);

    if (!wide)
        return _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(u.even, q.even), ones));
    s = _mm256_add_epi32(s, _mm256_madd_epi16(u.even, q.even));
    return _mm256_add_epi32(s, _mm256_madd_epi16(u.odd, q.odd));
#endif
}

INLINE void dot_strip(int32_t *sums, const lw_int8_tile *t, int first, int half, const int rows,
                      const bool wide)
{
    __m256i s[STRIP][2];
    const uint8_t *u = t->u + 4 * first;
    const int8_t *q = t->q + half * 64, *end = q + t->groups * LW_INT8_PANEL * 4;
    /* a tile is several strips: the first one gives the hints */
    bool hint = first == 0 && half == 0;
    const char *next = hint ? t->next : (const char *)t->u;
    int64_t step = hint ? t->step : 0, u_step = 4 * t->rows;

    UNROLL
    for (int r = 0; r < rows; r++)
        s[r][0] = s[r][1] = _mm256_setzero_si256();
    for (; q < end; q += LW_INT8_PANEL * 4, u += u_step, next += step) {
        operand q0 = operand_q(q, wide), q1 = operand_q(q + 32, wide);

        __builtin_prefetch(next, 0, 2);
        UNROLL
        for (int r = 0; r < rows; r++) {
            operand a = operand_u(u + 4 * r, wide);

            s[r][0] = dot4(s[r][0], a, q0, wide);
            s[r][1] = dot4(s[r][1], a, q1, wide);
        }
    }
    sums += first * LW_INT8_PANEL + half * 16;
    UNROLL
    for (int r = 0; r < rows; r++) {
        _mm256_store_si256((__m256i *)(sums + r * LW_INT8_PANEL), s[r][0]);
        _mm256_store_si256((__m256i *)(sums + r * LW_INT8_PANEL + 8), s[r][1]);
    }
}

INLINE void dot_tile(int32_t *sums, const lw_int8_tile *t, const bool wide)
{
    for (int half = 0; half < 2; half++) {
        int r = 0;

        for (; r + STRIP <= t->rows; r += STRIP)
            dot_strip(sums, t, r, half, STRIP, wide);
        for (; r + 2 <= t->rows; r += 2)
            dot_strip(sums, t, r, half, 2, wide);
        if (r < t->rows)
            dot_strip(sums, t, r, half, 1, wide);
    }
}

static void isa_dot(int32_t *sums, const lw_int8_tile *t)
{
#ifndef LW_INT8_VNNI256
    if (t->wide) {
        dot_tile(sums, t, true);
        return;
    }
#endif
    dot_tile(sums, t, false);
}

#else

static void isa_dot(int32_t *sums, const lw_int8_tile *t)
{
    for (int r = 0; r < t->rows; r++) {
        for (int o = 0; o < LW_INT8_PANEL; o++) {
            int32_t s = 0;

            for (int64_t g = 0; g < t->groups; g++) {
                for (int j = 0; j < 4; j++)
                    s += t->u[(g * t->rows + r) * 4 + j] * t->q[(g * LW_INT8_PANEL + o) * 4 + j];
            }
            sums[r * LW_INT8_PANEL + o] = s;
        }
    }
}

#endif

static void isa_finish(float *y, const int32_t *sums, const int32_t *offset, const float *scale,
                       float sx, const float *b, int64_t n)
{
    if (b) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = (float)(sums[i] + offset[i]) * scale[i] * sx + b[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = (float)(sums[i] + offset[i]) * scale[i] * sx;
    }
}

#ifdef LANES
/* As many chains as hide the latency of one; without VNNI only its last instruction waits. */
#if defined(__AVX512VNNI__) || defined(LW_INT8_VNNI256)
#define CHAINS 12
#else
#define CHAINS 6
#endif

/* s + u q^T of four bytes each, as in isa_dot. */
INLINE vi dot_chain(vi s, vi u, vi q)
{
#if defined(__AVX512VNNI__)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(s) : "v"(u), "v"(q));
    return s;
#else
    return dot4(s, (operand){ .even = u }, (operand){ .even = q }, false);
#endif
}

static double isa_dot_products(int64_t turns)
{
    vi sum[CHAINS], u = vi_zero(), q = vi_zero(), all = vi_zero();

    __asm__("" : "+x"(q)); /* for all that the compiler knows, no zeros */
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        sum[i] = vi_zero();
    for (int64_t n = 0; n < turns; n++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++) {
            __asm__ volatile("" : "+x"(u)); /* and each time others */
            sum[i] = dot_chain(sum[i], u, q);
        }
    }
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        all |= sum[i];
    return all[0] ? 0 : 8.0 * LANES * CHAINS * (double)turns;
}
#endif

const lw_int8_isa LW_INT8_TABLE = {
    .name = LW_INT8_ISA,
    .rotate = isa_rotate,
    .quantise = isa_quantise,
    .dot = isa_dot,
    .finish = isa_finish,
#ifdef LANES
    .dot_products = isa_dot_products,
#endif
};
