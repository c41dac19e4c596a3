/* Which tables of inner loops this machine can run. Compiled without any ISA flag. */
#include "common/cpu/vec.h"

#ifdef LW_HAVE_X86_LEVELS
#include <cpuid.h>

/* clang's __builtin_cpu_supports does not know this one. */
static bool has_f16c(void)
{
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

static int supported_levels(void)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c())
        return 1;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return 2;
    return 3;
}

static const lw_vec *const levels[] = { &lw_vec_baseline, &lw_vec_avx2, &lw_vec_avx512 };
#else
static int supported_levels(void)
{
    return 1;
}

static const lw_vec *const levels[] = { &lw_vec_baseline };
#endif

int lw_vec_levels(void)
{
    return supported_levels();
}

const lw_vec *lw_vec_level(int i)
{
    return levels[i];
}

const lw_vec *lw_vec_best(void)
{
    return levels[supported_levels() - 1];
}
