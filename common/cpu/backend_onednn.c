/* Assembles the oneDNN back end: reference, native operations on top, library products on top. */
#include "common/cpu/cpu.h"
#include "common/cpu/onednn.h"
#include "common/cpu/vec.h"

static void onednn_deinit(lw_kernels *k)
{
    lw_cpu *cpu = k->impl;

    if (cpu)
        lw_onednn_destroy(&cpu->dnn);
    lw_cpu_state_destroy(k);
}

lw_status lw_cpu_add_onednn(lw_kernels *k, lw_err *err)
{
    lw_cpu *cpu = k->impl;

    if (!cpu)
        return lw_fail(err, LW_E_NOMEM, "no memory for the state of the back end");
    LW_TRY(lw_onednn_create(cpu->n_threads, &cpu->dnn, err));
    lw_cpu_add_attention(k);
    lw_cpu_add_conv(k);
    lw_onednn_name(cpu->name, sizeof(cpu->name));
    k->name = cpu->name;
    k->deinit = onednn_deinit;
    return LW_OK;
}
