/* Which tables of inner loops this machine can run. Compiled without any ISA flag. */
#include "common/cpu/vec.h"

#include <stdlib.h>
#include <string.h>

static const char *const isa_names[LW_N_ISAS] = { "baseline", "avx2", "avxvnni", "avx512" };

/* LW_N_ISAS when the value is unknown, the highest when there is none. */
static lw_isa parse_cap(const char *text)
{
    lw_isa i = LW_ISA_BASELINE;

    if (!text || !text[0])
        return LW_ISA_AVX512;
    while (i < LW_N_ISAS && strcmp(text, isa_names[i]) != 0)
        i++;
    return i;
}

lw_isa lw_isa_cap(void)
{
    lw_isa i = parse_cap(getenv("LATENTWIRE_ISA"));

    return i < LW_N_ISAS ? i : LW_ISA_AVX512;
}

const char *lw_isa_unknown(void)
{
    const char *text = getenv("LATENTWIRE_ISA");

    return parse_cap(text) < LW_N_ISAS ? NULL : text;
}

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
    if (lw_isa_cap() < LW_ISA_AVX2 || !__builtin_cpu_supports("avx2") ||
        !__builtin_cpu_supports("fma") || !has_f16c())
        return 1;
    if (lw_isa_cap() < LW_ISA_AVX512 || !__builtin_cpu_supports("avx512f") ||
        !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl"))
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
