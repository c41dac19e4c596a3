#ifndef LW_COMMON_DTYPE_H
#define LW_COMMON_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* X(symbol, wire name (torch's), safetensors name, bytes per item) */
#define LW_DTYPE_TABLE(X)                                                                          \
    X(F32, "float32", "F32", 4)                                                                    \
    X(F16, "float16", "F16", 2)                                                                    \
    X(BF16, "bfloat16", "BF16", 2)                                                                 \
    X(F8_E4M3, "float8_e4m3fn", "F8_E4M3", 1)                                                      \
    X(F8_E5M2, "float8_e5m2", "F8_E5M2", 1)                                                        \
    X(I8, "int8", "I8", 1)                                                                         \
    X(U8, "uint8", "U8", 1)                                                                        \
    X(I32, "int32", "I32", 4)                                                                      \
    X(I64, "int64", "I64", 8)

typedef enum lw_dtype {
    LW_DTYPE_NONE = 0,
#define LW_DTYPE_ENUM(sym, wire, st, bytes) LW_##sym,
    LW_DTYPE_TABLE(LW_DTYPE_ENUM)
#undef LW_DTYPE_ENUM
        LW_N_DTYPES
} lw_dtype;

/** Bytes of one item; 0 for a value outside the table. */
size_t lw_dtype_size(lw_dtype d);
/** torch's name ("bfloat16"), as on the wire. */
const char *lw_dtype_name(lw_dtype d);
/** safetensors' name ("BF16"). */
const char *lw_dtype_st_name(lw_dtype d);
/** The dtype of a wire name / a safetensors name; LW_DTYPE_NONE when unknown. */
lw_dtype lw_dtype_from_name(const char *s, size_t len);
lw_dtype lw_dtype_from_st_name(const char *s, size_t len);
/** True for the floating-point types. */
bool lw_dtype_is_float(lw_dtype d);

/*
 * Scalar conversions. To f32 they are exact. From f32 they round to nearest, ties to even, as
 * PyTorch's `.to(dtype)` does (2.15 on CPUs): bf16, f16 and float8_e5m2 overflow to infinity;
 * float8_e4m3fn has no infinity and saturates at 448, infinities too (older PyTorch gave NaN
 * there). NaN stays NaN.
 */
float lw_f32_from_bf16(uint16_t v);
float lw_f32_from_f16(uint16_t v);
float lw_f32_from_e4m3(uint8_t v);
float lw_f32_from_e5m2(uint8_t v);
uint16_t lw_bf16_from_f32(float v);
uint16_t lw_f16_from_f32(float v);
uint8_t lw_e4m3_from_f32(float v);
uint8_t lw_e5m2_from_f32(float v);

/**
 * Convert n items. src and dst need no alignment; they do not overlap. Supported: any dtype to f32
 * (integers by value), f32 to any float dtype or to int8 (round to even, saturating), and a dtype
 * to itself. Returns false for any other pair, touching nothing.
 */
bool lw_dtype_convert(void *dst, lw_dtype dst_type, const void *src, lw_dtype src_type, size_t n);

#endif
