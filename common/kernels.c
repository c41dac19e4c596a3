/* Choice of a back end, and the sticky failure. The operations are in common/cpu/. */
#include "common/kernels.h"

#include <stdlib.h>
#include <string.h>

#include "common/cpu/cpu.h"
#include "common/cpu/vec.h"

void lw_kernels_init_ref(lw_kernels *k, lw_pool *pool)
{
    memset(k, 0, sizeof(*k));
    lw_cpu_state_create(k, pool);
    lw_cpu_add_ref(k);
    lw_cpu_add_ref_image(k);
}

lw_status lw_kernels_init_cpu(lw_kernels *k, lw_pool *pool, lw_err *err)
{
    const char *name = getenv("LATENTWIRE_BACKEND");
    bool asked = name && name[0], want_ref = asked && strcmp(name, "ref") == 0;
    lw_err why_not = { 0 };
    lw_status st;

    if (asked && !want_ref && strcmp(name, "onednn") != 0)
        return lw_fail(err, LW_E_INVALID, "LATENTWIRE_BACKEND: expected ref or onednn, got %s",
                       name);
    if (lw_isa_unknown())
        return lw_fail(err, LW_E_INVALID,
                       "LATENTWIRE_ISA: expected baseline, avx2, avxvnni or avx512, got %s",
                       lw_isa_unknown());
    lw_kernels_init_ref(k, pool);
    st = lw_kernels_check(k, err);
    if (st != LW_OK || want_ref)
        return st;
    lw_cpu_add_native(k, lw_vec_best());
    st = lw_cpu_add_onednn(k, &why_not);
    if (st == LW_OK)
        return LW_OK;
    lw_kernels_deinit(k);
    if (asked || st != LW_E_UNIMPLEMENTED)
        return lw_fail(err, st, "%s", why_not.text);
    lw_kernels_init_ref(k, pool);
    return lw_kernels_check(k, err);
}

void lw_kernels_deinit(lw_kernels *k)
{
    if (k->deinit)
        k->deinit(k);
    memset(k, 0, sizeof(*k));
}

lw_status lw_kernels_check(lw_kernels *k, lw_err *err)
{
    lw_status failed = k->failed;

    k->failed = LW_OK;
    if (failed == LW_OK)
        return LW_OK;
    return lw_fail(err, failed, "back end %s: not enough scratch memory (%zu bytes held)", k->name,
                   lw_kernels_scratch_bytes(k));
}

const char *lw_precision_name(lw_precision p)
{
    static const char *const names[] = { "auto", "f32", "int8" };

    return names[p];
}

size_t lw_kernels_scratch_bytes(const lw_kernels *k)
{
    return k->scratch_bytes ? k->scratch_bytes(k) : 0;
}
