/*
 * Number formats. Every conversion works on bit patterns with integer arithmetic and selects
 * instead of branches, so that the bulk loops vectorise and no result depends on the rounding mode
 * or on flush-to-zero settings of the process. Checked against PyTorch code by code
 * (tests/unit/test_dtype.c).
 */

#include "common/dtype.h"

#include <math.h>

static const struct {
    const char *wire, *st;
    size_t size;
} dtypes[LW_N_DTYPES] = {
#define DTYPE_ROW(sym, wire, st, bytes) [LW_##sym] = { wire, st, bytes },
    LW_DTYPE_TABLE(DTYPE_ROW)
#undef DTYPE_ROW
};

static bool known(lw_dtype d)
{
    return d > LW_DTYPE_NONE && d < LW_N_DTYPES;
}

size_t lw_dtype_size(lw_dtype d)
{
    return known(d) ? dtypes[d].size : 0;
}

const char *lw_dtype_name(lw_dtype d)
{
    return known(d) ? dtypes[d].wire : "none";
}

const char *lw_dtype_st_name(lw_dtype d)
{
    return known(d) ? dtypes[d].st : "NONE";
}

lw_dtype lw_dtype_from_name(const char *s, size_t len)
{
    for (int d = LW_DTYPE_NONE + 1; d < LW_N_DTYPES; d++)
        if (strlen(dtypes[d].wire) == len && memcmp(dtypes[d].wire, s, len) == 0)
            return (lw_dtype)d;
    return LW_DTYPE_NONE;
}

lw_dtype lw_dtype_from_st_name(const char *s, size_t len)
{
    for (int d = LW_DTYPE_NONE + 1; d < LW_N_DTYPES; d++)
        if (strlen(dtypes[d].st) == len && memcmp(dtypes[d].st, s, len) == 0)
            return (lw_dtype)d;
    return LW_DTYPE_NONE;
}

bool lw_dtype_is_float(lw_dtype d)
{
    return d >= LW_F32 && d <= LW_F8_E5M2;
}

static inline uint32_t bits_of(float v)
{
    uint32_t u;

    memcpy(&u, &v, sizeof(u));
    return u;
}

static inline float float_of(uint32_t u)
{
    float v;

    memcpy(&v, &u, sizeof(v));
    return v;
}

static inline float from_bf16(uint16_t v)
{
    return float_of((uint32_t)v << 16);
}

static inline uint16_t to_bf16(float v)
{
    uint32_t u = bits_of(v);
    uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    uint32_t nan = (u >> 16) | 0x40; /* quiet, sign and upper payload kept */

    return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

static inline float from_f16(uint16_t v)
{
    uint32_t sign = (uint32_t)(v & 0x8000) << 16;
    uint32_t magnitude = (uint32_t)(v & 0x7fff) << 13;
    uint32_t normal = magnitude + ((127u - 15) << 23);
    uint32_t special = magnitude | 0x7f800000;
    /* 2^-14 + mantissa 2^-24 is exact, so the difference is too. */
    uint32_t subnormal = bits_of(float_of(0x38800000 + magnitude) - 0x1p-14f);
    uint32_t u = (v & 0x7c00) == 0x7c00 ? special : (v & 0x7c00) == 0 ? subnormal : normal;

    return float_of(u | sign);
}

/*
 * Round f32 to a small float with `mantissa` bits and the given exponent bias. Above the smallest
 * normal number the discarded bits are rounded as integers, where a carry runs into the exponent as
 * it should; below it an addition of a number whose last bit has the weight of the smallest
 * subnormal lets the adder round. Values from `overflow_from` on (as f32 bits) become `overflow`.
 */
static inline uint32_t round_small(uint32_t a, int mantissa, int bias, uint32_t overflow_from,
                                   uint32_t overflow, uint32_t nan)
{
    int drop = 23 - mantissa;
    uint32_t smallest_normal = (uint32_t)(127 - bias + 1) << 23;
    float align = float_of((uint32_t)(127 - bias + 1 + drop) << 23);
    uint32_t half = (1u << (drop - 1)) - 1;
    uint32_t normal = (a - ((uint32_t)(127 - bias) << 23) + half + ((a >> drop) & 1)) >> drop;
    uint32_t subnormal = bits_of(float_of(a) + align) - bits_of(align);
    uint32_t finite = a < smallest_normal ? subnormal : normal;

    return a > 0x7f800000 ? nan : a >= overflow_from ? overflow : finite;
}

static inline uint16_t to_f16(float v)
{
    uint32_t u = bits_of(v), a = u & 0x7fffffff;
    uint32_t nan = 0x7e00 | ((a >> 13) & 0x3ff);

    return (uint16_t)((u >> 16 & 0x8000) | round_small(a, 10, 15, 0x47800000, 0x7c00, nan));
}

static inline uint8_t to_e4m3(float v)
{
    uint32_t u = bits_of(v);

    /* From the largest number, 448, on everything becomes it. */
    return (uint8_t)((u >> 24 & 0x80) | round_small(u & 0x7fffffff, 3, 7, 0x43e00000, 0x7e, 0x7f));
}

static inline uint8_t to_e5m2(float v)
{
    uint32_t u = bits_of(v);

    return (uint8_t)((u >> 24 & 0x80) | round_small(u & 0x7fffffff, 2, 15, 0x47800000, 0x7c, 0x7f));
}

static inline float from_e4m3(uint8_t v)
{
    uint32_t sign = (uint32_t)(v & 0x80) << 24;
    uint32_t magnitude = (uint32_t)(v & 0x7f) << 20;
    uint32_t normal = magnitude + ((127u - 7) << 23);
    uint32_t subnormal = bits_of((float)(v & 7) * 0x1p-9f);
    uint32_t u = (v & 0x7f) == 0x7f ? 0x7fc00000 : (v & 0x78) == 0 ? subnormal : normal;

    return float_of(u | sign);
}

static inline float from_e5m2(uint8_t v)
{
    return from_f16((uint16_t)(v << 8)); /* the upper half of an f16 */
}

float lw_f32_from_bf16(uint16_t v)
{
    return from_bf16(v);
}

float lw_f32_from_f16(uint16_t v)
{
    return from_f16(v);
}

float lw_f32_from_e4m3(uint8_t v)
{
    return from_e4m3(v);
}

float lw_f32_from_e5m2(uint8_t v)
{
    return from_e5m2(v);
}

uint16_t lw_bf16_from_f32(float v)
{
    return to_bf16(v);
}

uint16_t lw_f16_from_f32(float v)
{
    return to_f16(v);
}

uint8_t lw_e4m3_from_f32(float v)
{
    return to_e4m3(v);
}

uint8_t lw_e5m2_from_f32(float v)
{
    return to_e5m2(v);
}

static inline int8_t to_i8(float v)
{
    float r = rintf(v); /* to nearest, ties to even: the default rounding mode is never changed */

    return (int8_t)(r >= 127 ? 127 : r <= -128 ? -128 : r == r ? r : 0);
}

/* One loop for each pair. Items are moved by memcpy because wire frames and file views are not
 * aligned; compilers turn that into plain unaligned vector loads. */
#define CONVERT_LOOP(name, dst_t, src_t, expr)                                                     \
    static void name(uint8_t *restrict dst, const uint8_t *restrict src, size_t n)                 \
    {                                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            src_t v;                                                                               \
            dst_t r;                                                                               \
                                                                                                   \
            memcpy(&v, src + i * sizeof(v), sizeof(v));                                            \
            r = (expr);                                                                            \
            memcpy(dst + i * sizeof(r), &r, sizeof(r));                                            \
        }                                                                                          \
    }

CONVERT_LOOP(f32_from_f16, float, uint16_t, from_f16(v))
CONVERT_LOOP(f32_from_bf16, float, uint16_t, from_bf16(v))
CONVERT_LOOP(f32_from_e4m3, float, uint8_t, from_e4m3(v))
CONVERT_LOOP(f32_from_e5m2, float, uint8_t, from_e5m2(v))
CONVERT_LOOP(f32_from_i8, float, int8_t, (float)v)
CONVERT_LOOP(f32_from_u8, float, uint8_t, (float)v)
CONVERT_LOOP(f32_from_i32, float, int32_t, (float)v)
CONVERT_LOOP(f32_from_i64, float, int64_t, (float)v)
CONVERT_LOOP(f16_from_f32, uint16_t, float, to_f16(v))
CONVERT_LOOP(bf16_from_f32, uint16_t, float, to_bf16(v))
CONVERT_LOOP(e4m3_from_f32, uint8_t, float, to_e4m3(v))
CONVERT_LOOP(e5m2_from_f32, uint8_t, float, to_e5m2(v))
CONVERT_LOOP(i8_from_f32, int8_t, float, to_i8(v))

typedef void convert_fn(uint8_t *restrict dst, const uint8_t *restrict src, size_t n);

static convert_fn *const to_f32[LW_N_DTYPES] = {
    [LW_F16] = f32_from_f16,      [LW_BF16] = f32_from_bf16, [LW_F8_E4M3] = f32_from_e4m3,
    [LW_F8_E5M2] = f32_from_e5m2, [LW_I8] = f32_from_i8,     [LW_U8] = f32_from_u8,
    [LW_I32] = f32_from_i32,      [LW_I64] = f32_from_i64,
};

static convert_fn *const from_f32[LW_N_DTYPES] = {
    [LW_F16] = f16_from_f32,      [LW_BF16] = bf16_from_f32, [LW_F8_E4M3] = e4m3_from_f32,
    [LW_F8_E5M2] = e5m2_from_f32, [LW_I8] = i8_from_f32,
};

bool lw_dtype_convert(void *dst, lw_dtype dst_type, const void *src, lw_dtype src_type, size_t n)
{
    convert_fn *fn = NULL;

    if (!known(dst_type) || !known(src_type))
        return false;
    if (n == 0 && dst_type == src_type)
        return true;
    if (dst_type == src_type) {
        memcpy(dst, src, n * lw_dtype_size(dst_type));
        return true;
    }
    if (dst_type == LW_F32)
        fn = to_f32[src_type];
    else if (src_type == LW_F32)
        fn = from_f32[dst_type];
    if (fn == NULL)
        return false;
    fn(dst, src, n);
    return true;
}
