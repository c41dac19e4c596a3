#ifndef LW_COMMON_CPU_CEILING_H
#define LW_COMMON_CPU_CEILING_H

/*
 * What the processor can do at best with the instructions that may be used (vec.h, int8.h), on all
 * threads of a pool at once, for measurements. Each call is one short burst of some milliseconds,
 * cut into pieces as the operations are, and timed from outside: a thread that other programs hold
 * up costs the ceiling what it costs an operation.
 */

#include <stddef.h>
#include <stdint.h>

#include "common/pool.h"

/** f32 multiply-adds in registers, GFLOP/s; two operations each. */
double lw_ceiling_multiply_adds(lw_pool *pool);
/** 8-bit dot products in registers, GOP/s; two operations a product. 0: no instruction for them. */
double lw_ceiling_dot_products(lw_pool *pool);
/** Reading p [bytes] once, GB/s (1e9 bytes). p: a multiple of 4 bytes. */
double lw_ceiling_read(lw_pool *pool, const void *p, size_t bytes);
/** Copying src [bytes] to dst, GB/s of what is read and written, that is twice `bytes`. */
double lw_ceiling_copy(lw_pool *pool, void *dst, const void *src, size_t bytes);

#endif
