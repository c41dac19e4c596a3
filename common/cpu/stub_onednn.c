/* A build without oneDNN. */
#include "common/cpu/cpu.h"

lw_status lw_cpu_add_onednn(lw_kernels *k, lw_err *err)
{
    (void)k;
    return lw_fail(err, LW_E_UNIMPLEMENTED,
                   "this build has no oneDNN; install libdnnl-dev and build again, or set "
                   "LATENTWIRE_BACKEND=ref");
}
