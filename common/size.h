#ifndef LW_COMMON_SIZE_H
#define LW_COMMON_SIZE_H

/* Overflow-checked size arithmetic. Every size that comes from a file, a message or a command
 * line goes through these before it is used. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** *ret = a * b; false (and *ret untouched) when the product does not fit. */
static inline bool lw_size_mul(size_t a, size_t b, size_t *ret)
{
    size_t r;

    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *ret = r;
    return true;
}

/** *ret = a + b; false (and *ret untouched) when the sum does not fit. */
static inline bool lw_size_add(size_t a, size_t b, size_t *ret)
{
    size_t r;

    if (__builtin_add_overflow(a, b, &r))
        return false;
    *ret = r;
    return true;
}

/** Smallest multiple of align (a power of two) that is >= n; SIZE_MAX when there is none. */
static inline size_t lw_size_align(size_t n, size_t align)
{
    return n > SIZE_MAX - (align - 1) ? SIZE_MAX : (n + align - 1) & ~(align - 1);
}

#endif
