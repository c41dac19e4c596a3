/*
 * The inner loops of vec.h. Meson compiles this file once per instruction set, with LW_VEC_TABLE
 * and LW_VEC_ISA naming the result. Plain C that gcc and clang vectorise: `omp simd` permits the
 * reordering of a sum where it is meant, and nowhere else. This file alone is compiled with
 * contraction (a * b + c as one instruction where the machine has it).
 *
 * Nothing here may be called from another file but through the table, and nothing outside may be
 * inlined into here except static functions: a shared inline function compiled with wide
 * instructions could be the copy that the linker keeps for everyone.
 */
#include "common/cpu/vec.h"

#include <math.h>
#include <string.h>

#ifdef __F16C__
#include <immintrin.h>
#endif

/* Sums run in f32 over this many items, then in f64: the error stays that of a short sum. */
#define SUM_BLOCK 256
/* One 512-bit register, or two or four narrower ones. */
#define LANES 16

static inline float f32_from_bits(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline uint32_t bits_of_f32(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    return u;
}

static inline float widen_bf16(uint16_t v)
{
    return f32_from_bits((uint32_t)v << 16);
}

/* Exponent moved to f32's place and its bias corrected by an exact multiplication, which makes
 * subnormals right too; infinities and NaN get the largest exponent. */
static inline float widen_f16(uint16_t v)
{
    uint32_t sign = (uint32_t)(v & 0x8000) << 16, rest = (uint32_t)(v & 0x7fff) << 13;
    float f = f32_from_bits(rest) * 0x1p112f;
    uint32_t special = rest >= 0x0f800000u ? 0x7f800000u : 0;

    return f32_from_bits(bits_of_f32(f) | special | sign);
}

static void widen_f16_row(float *y, const uint16_t *w, int64_t n)
{
    int64_t i = 0;

#ifdef __F16C__
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(w + i))));
#endif
#pragma omp simd
    for (int64_t j = i; j < n; j++)
        y[j] = widen_f16(w[j]);
}

static void vec_widen(float *y, const void *w, lw_dtype dtype, int64_t n)
{
    const uint16_t *h = w;

    switch (dtype) {
    case LW_F32:
        memcpy(y, w, (size_t)n * sizeof(*y));
        break;
    case LW_BF16:
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = widen_bf16(h[i]);
        break;
    case LW_F16:
        widen_f16_row(y, h, n);
        break;
    default: /* the loader lets no other matrix through */
        break;
    }
}

/* Four rows of W share the loads of x and give four independent chains of additions. */
static void dot4_f32(float *y, const float *w, int64_t stride, const float *x, int64_t n)
{
    const float *w1 = w + stride, *w2 = w1 + stride, *w3 = w2 + stride;
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)

    for (int64_t i = 0; i < n; i++) {
        s0 += x[i] * w[i];
        s1 += x[i] * w1[i];
        s2 += x[i] * w2[i];
        s3 += x[i] * w3[i];
    }
    y[0] = s0;
    y[1] = s1;
    y[2] = s2;
    y[3] = s3;
}

static float dot1_f32(const float *w, const float *x, int64_t n)
{
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++)
        s += x[i] * w[i];
    return s;
}

static void dot4_bf16(float *y, const uint16_t *w, int64_t stride, const float *x, int64_t n)
{
    const uint16_t *w1 = w + stride, *w2 = w1 + stride, *w3 = w2 + stride;
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)

    for (int64_t i = 0; i < n; i++) {
        s0 += x[i] * widen_bf16(w[i]);
        s1 += x[i] * widen_bf16(w1[i]);
        s2 += x[i] * widen_bf16(w2[i]);
        s3 += x[i] * widen_bf16(w3[i]);
    }
    y[0] = s0;
    y[1] = s1;
    y[2] = s2;
    y[3] = s3;
}

static float dot1_bf16(const uint16_t *w, const float *x, int64_t n)
{
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++)
        s += x[i] * widen_bf16(w[i]);
    return s;
}

/* f16 goes through a small buffer, since only the intrinsic widens it quickly. */
static float dot1_f16(const uint16_t *w, const float *x, int64_t n)
{
    float wide[SUM_BLOCK], s = 0;

    for (int64_t i = 0; i < n; i += SUM_BLOCK) {
        int64_t len = n - i < SUM_BLOCK ? n - i : SUM_BLOCK;

        widen_f16_row(wide, w + i, len);
        s += dot1_f32(wide, x + i, len);
    }
    return s;
}

static void vec_gemv(float *y, const void *w, lw_dtype dtype, int64_t stride, int64_t n_rows,
                     const float *x, int64_t n, const float *b)
{
    const float *wf = w;
    const uint16_t *wh = w;
    int64_t o = 0;

    if (dtype == LW_F32) {
        for (; o + 4 <= n_rows; o += 4)
            dot4_f32(y + o, wf + o * stride, stride, x, n);
        for (; o < n_rows; o++)
            y[o] = dot1_f32(wf + o * stride, x, n);
    } else if (dtype == LW_BF16) {
        for (; o + 4 <= n_rows; o += 4)
            dot4_bf16(y + o, wh + o * stride, stride, x, n);
        for (; o < n_rows; o++)
            y[o] = dot1_bf16(wh + o * stride, x, n);
    } else {
        for (; o < n_rows; o++)
            y[o] = dot1_f16(wh + o * stride, x, n);
    }
    for (o = 0; b && o < n_rows; o++)
        y[o] += b[o];
}

static double vec_sum_sq(const float *x, int64_t n)
{
    double total = 0;

    for (int64_t i = 0; i < n; i += SUM_BLOCK) {
        int64_t end = n - i < SUM_BLOCK ? n : i + SUM_BLOCK;
        float s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t j = i; j < end; j++)
            s += x[j] * x[j];
        total += (double)s;
    }
    return total;
}

static double vec_sum(const float *x, int64_t n)
{
    double total = 0;

#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; i++)
        total += (double)x[i];
    return total;
}

static double vec_sum_sq_dev(const float *x, int64_t n, float mean)
{
    double total = 0;

    for (int64_t i = 0; i < n; i += SUM_BLOCK) {
        int64_t end = n - i < SUM_BLOCK ? n : i + SUM_BLOCK;
        float s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t j = i; j < end; j++)
            s += (x[j] - mean) * (x[j] - mean);
        total += (double)s;
    }
    return total;
}

static void vec_norm_scale(float *y, const float *x, float r, const float *m, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * r * m[i];
}

static void vec_norm_center(float *y, const float *x, float mean, float rest, float r,
                            const float *m, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - mean - rest) * r * m[i];
}

static void vec_norm_add(float *y, const float *x, float r, const float *m, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i] * r * m[i];
}

static void vec_add(float *y, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void vec_scale(float *y, float s, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] *= s;
}

static void vec_rope_interleaved(float *x, float r, const float *w, const float *c, const float *s,
                                 int64_t d)
{
#pragma omp simd
    for (int64_t p = 0; p < d / 2; p++) {
        float x0 = x[2 * p] * r * w[2 * p], x1 = x[2 * p + 1] * r * w[2 * p + 1];

        x[2 * p] = x0 * c[p] - x1 * s[p];
        x[2 * p + 1] = x0 * s[p] + x1 * c[p];
    }
}

static void vec_rope_half_split(float *x, float r, const float *w, const float *c, const float *s,
                                int64_t d)
{
    int64_t half = d / 2;
#pragma omp simd

    for (int64_t p = 0; p < half; p++) {
        float x0 = x[p] * r * w[p], x1 = x[p + half] * r * w[p + half];

        x[p] = x0 * c[p] - x1 * s[p];
        x[p + half] = x0 * s[p] + x1 * c[p];
    }
}

/*
 * e^x, at most 1.1 ulp off for results that are normal numbers; overflow gives infinity, underflow
 * goes through the subnormals to 0, NaN stays NaN.
 *
 * x = n ln 2 + r with n whole and |r| <= ln 2 / 2. ln 2 is cut so that n * LN2_HI is exact. e^r is
 * its Taylor polynomial of degree 7: the first term left out, r^8 / 8!, is below 6e-9. 2^n is
 * applied as two factors, so that neither leaves the range of exponents.
 */
static inline float exp_f32(float x)
{
    const float LOG2_E = 1.44269504f, ROUND = 0x1.8p23f;
    const float LN2_HI = 0x1.63p-1f, LN2_LO = -0x1.bd0106p-13f;
    float hi = x > 89.0f ? 89.0f : x;
    float in = hi < -104.0f ? -104.0f : hi;
    float shifted = in * LOG2_E + ROUND, n = shifted - ROUND;
    float r = (in - n * LN2_HI) - n * LN2_LO;
    int32_t e = (int32_t)(bits_of_f32(shifted) - bits_of_f32(ROUND));
    int32_t e1 = e >> 1, e2 = e - e1;
    float p = 1.0f / 5040;

    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = (p * r) * r + r;
    p += 1.0f;
    return p * f32_from_bits((uint32_t)(e1 + 127) << 23) *
           f32_from_bits((uint32_t)(e2 + 127) << 23);
}

/* Lanes by hand: compilers do not vectorise a maximum unless NaN is ruled out, and it is not. */
static float row_max(const float *p, int64_t n)
{
    float lane[LANES], top = p[0];
    int64_t i = 0;

    for (int j = 0; j < LANES; j++)
        lane[j] = top;
    for (; i + LANES <= n; i += LANES) {
#pragma omp simd
        for (int j = 0; j < LANES; j++)
            lane[j] = p[i + j] > lane[j] ? p[i + j] : lane[j];
    }
    for (; i < n; i++)
        top = p[i] > top ? p[i] : top;
    for (int j = 0; j < LANES; j++)
        top = lane[j] > top ? lane[j] : top;
    return top;
}

static float vec_softmax_exp(float *p, float scale, int64_t n)
{
    float top = row_max(p, n), total = 0;

    for (int64_t i = 0; i < n; i += SUM_BLOCK) {
        int64_t end = n - i < SUM_BLOCK ? n : i + SUM_BLOCK;
        float s = 0;

#pragma omp simd
        for (int64_t j = i; j < end; j++)
            p[j] = exp_f32((p[j] - top) * scale);
#pragma omp simd reduction(+ : s)
        for (int64_t j = i; j < end; j++)
            s += p[j];
        total += s;
    }
    return total;
}

static inline float silu_f32(float x)
{
    return x / (1.0f + exp_f32(-x));
}

static void vec_silu(float *y, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = silu_f32(x[i]);
}

static void vec_swiglu(float *y, const float *gate, const float *up, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = silu_f32(gate[i]) * up[i];
}

/* Tiles of channels whose f64 sums stay in registers while the positions go by. */
#define TILE 16

static void vec_channel_sums(double *sum, double *sum_sq, const float *x, int64_t n_pos, int64_t C)
{
    int64_t c = 0;

    for (; c + TILE <= C; c += TILE) {
        double s[TILE] = { 0 }, q[TILE] = { 0 };

        for (int64_t i = 0; i < n_pos; i++) {
            const float *row = x + i * C + c;
#pragma omp simd

            for (int j = 0; j < TILE; j++) {
                double v = (double)row[j];

                s[j] += v;
                q[j] += v * v;
            }
        }
        for (int j = 0; j < TILE; j++) {
            sum[c + j] += s[j];
            sum_sq[c + j] += q[j];
        }
    }
    for (; c < C; c++) {
        double s = 0, q = 0;

        for (int64_t i = 0; i < n_pos; i++) {
            double v = (double)x[i * C + c];

            s += v;
            q += v * v;
        }
        sum[c] += s;
        sum_sq[c] += q;
    }
}

static void vec_channel_affine(float *y, const float *x, const float *mean, const float *a,
                               const float *b, int64_t n_pos, int64_t C, bool silu)
{
    for (int64_t i = 0; i < n_pos; i++) {
        const float *in = x + i * C;
        float *out = y + i * C;

        if (silu) {
#pragma omp simd
            for (int64_t c = 0; c < C; c++)
                out[c] = silu_f32((in[c] - mean[c]) * a[c] + b[c]);
        } else {
#pragma omp simd
            for (int64_t c = 0; c < C; c++)
                out[c] = (in[c] - mean[c]) * a[c] + b[c];
        }
    }
}

/* The widest register, and as many chains of multiply-adds as hide the latency of one. */
#if defined(__AVX512F__)
#define WIDE 16
#elif defined(__AVX2__)
#define WIDE 8
#else
#define WIDE 4
#endif
#define CHAINS 12
typedef float wide __attribute__((vector_size(WIDE * sizeof(float))));

/* Whole: an array stays in registers only when every index is a constant. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 12")
#endif

static double vec_multiply_adds(int64_t turns)
{
    wide sum[CHAINS], a = { 0 }, b = { 0 };
    float all = 0;

    a += 0.999f;
    b += 1e-3f;
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        sum[i] = a + (float)i;
    for (int64_t n = 0; n < turns; n++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++)
            sum[i] = sum[i] * a + b;
    }
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        all += sum[i][0];
    /* never so small, but the compiler does not know: the sums are needed */
    return all < 0 ? 0 : 2.0 * WIDE * CHAINS * (double)turns;
}

static uint32_t vec_read(const uint32_t *p, int64_t n)
{
    uint32_t bits = 0;

#pragma omp simd reduction(| : bits)
    for (int64_t i = 0; i < n; i++)
        bits |= p[i];
    return bits;
}

const lw_vec LW_VEC_TABLE = {
    .isa = LW_VEC_ISA,
    .widen = vec_widen,
    .gemv = vec_gemv,
    .sum_sq = vec_sum_sq,
    .sum = vec_sum,
    .sum_sq_dev = vec_sum_sq_dev,
    .norm_scale = vec_norm_scale,
    .norm_center = vec_norm_center,
    .norm_add = vec_norm_add,
    .add = vec_add,
    .scale = vec_scale,
    .rope_interleaved = vec_rope_interleaved,
    .rope_half_split = vec_rope_half_split,
    .softmax_exp = vec_softmax_exp,
    .silu = vec_silu,
    .swiglu = vec_swiglu,
    .channel_sums = vec_channel_sums,
    .channel_affine = vec_channel_affine,
    .multiply_adds = vec_multiply_adds,
    .read = vec_read,
};
