#ifndef LW_COMMON_UTF8_H
#define LW_COMMON_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/**
 * Length (1-4) of the well-formed UTF-8 sequence at the start of s, or 0 when the n bytes do not
 * start with one. Overlong forms, surrogates and values above U+10FFFF are not well-formed
 * (Unicode 15, table 3-7). n must be at least 1.
 */
size_t lw_utf8_len(const char *s, size_t n);

/** True when all n bytes are well-formed UTF-8. */
bool lw_utf8_valid(const char *s, size_t n);

/** n less the bytes of a sequence that s[0..n) starts but does not finish, as after a cut. */
size_t lw_utf8_trim(const char *s, size_t n);

#endif
