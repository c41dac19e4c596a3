#ifndef LW_COMMON_RNG_H
#define LW_COMMON_RNG_H

#include <stddef.h>
#include <stdint.h>

/**
 * PyTorch's CPU generator (MT19937), so that a seed gives the same noise as the reference:
 * torch.Generator("cpu").manual_seed(seed), then torch.randn(shape). Only the low 32 bits of the
 * seed count, as in PyTorch.
 */
typedef struct lw_rng {
    uint32_t mt[624];
    int index;
} lw_rng;

void lw_rng_seed(lw_rng *r, uint64_t seed);
/** Next 32 random bits. */
uint32_t lw_rng_u32(lw_rng *r);

/**
 * n standard normal values, bit layout and order of torch.randn for n >= 16: uniforms of 24 bits,
 * then Box-Muller on groups of 16 (pairs j, j + 8), and the last 16 redone when n is not a multiple
 * of 16. For n < 16 PyTorch uses another routine; here the first n of a group of 16 are given
 * (the pipeline never asks for fewer than 64). Within 1e-6 of
 * PyTorch's vector code (measured: 4.8e-7).
 */
void lw_rng_normal(lw_rng *r, float *ret, size_t n);

#endif
