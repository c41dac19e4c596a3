/*
 * PyTorch's CPU noise. The generator is the Mersenne Twister of Matsumoto and Nishimura (2002) with
 * its plain integer seeding; how PyTorch turns its words into normal values is described in
 * docs/numerics.md, "Noise".
 */

#include "common/rng.h"

#include <math.h>

#define N_STATE 624
#define PERIOD  397

void lw_rng_seed(lw_rng *r, uint64_t seed)
{
    r->mt[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < N_STATE; i++)
        r->mt[i] = 1812433253u * (r->mt[i - 1] ^ (r->mt[i - 1] >> 30)) + i;
    r->index = N_STATE;
}

static void twist(lw_rng *r)
{
    for (int i = 0; i < N_STATE; i++) {
        uint32_t y = (r->mt[i] & 0x80000000u) | (r->mt[(i + 1) % N_STATE] & 0x7fffffffu);

        r->mt[i] = r->mt[(i + PERIOD) % N_STATE] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    r->index = 0;
}

uint32_t lw_rng_u32(lw_rng *r)
{
    uint32_t y;

    if (r->index >= N_STATE)
        twist(r);
    y = r->mt[r->index++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/*
 * Box-Muller over one group of 16 uniforms in [0, 1), in place. PyTorch rounds to f32 after every
 * operation; the angle's rounding alone moves a value by up to 1.6e-6, so computing the whole in
 * f64 is farther from it than rounding where it rounds: at most 4.8e-7 over 2^20 values of four
 * seeds. Each function is taken in f64 and rounded, because the result then hardly depends on the
 * code that a C library picks for a CPU type: a last-bit difference in f64 reaches f32 about once
 * in 10^8 values.
 */
static void normal16(float *v)
{
    const float two_pi = 6.283185307179586f;

    for (int j = 0; j < 8; j++) {
        float radius = sqrtf(-2.0f * (float)log(1.0 - (double)v[j])); /* 1 - v is exact */
        float angle = two_pi * v[j + 8];

        v[j] = radius * (float)cos((double)angle);
        v[j + 8] = radius * (float)sin((double)angle);
    }
}

static void uniform(lw_rng *r, float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v[i] = (float)(lw_rng_u32(r) & 0xffffff) * 0x1p-24f;
}

void lw_rng_normal(lw_rng *r, float *ret, size_t n)
{
    float group[16];

    if (n < 16) {
        uniform(r, group, 16);
        normal16(group);
        for (size_t i = 0; i < n; i++)
            ret[i] = group[i];
        return;
    }
    uniform(r, ret, n);
    for (size_t i = 0; i + 16 <= n; i += 16)
        normal16(ret + i);
    if (n % 16) {
        uniform(r, ret + n - 16, 16);
        normal16(ret + n - 16);
    }
}
