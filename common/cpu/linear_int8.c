/*
 * Linear layers in 8 bits behind the operation table: when weights are packed, and what layers of
 * one input share. The arithmetic is in int8.c.
 */
#include "common/cpu/cpu.h"
#include "common/cpu/int8.h"

void lw_cpu_int8_linears(lw_kernels *k, int n, lw_tensor *const y[], const lw_tensor *x,
                         const lw_linear *const lin[])
{
    const lw_cpu *cpu = k->impl;
    const lw_int8_header *h = lin[0]->packed;
    size_t bytes = lw_int8_rows_bytes(lw_rows(x), h->in, lw_pool_threads(k->pool));
    void *mem = lw_cpu_shared(k, bytes);
    lw_int8_rows rows;

    if (!mem)
        return;
    lw_int8_quantise(cpu->int8, k->pool, &rows, mem, x, h);
    for (int i = 0; i < n; i++)
        lw_int8_product(cpu->int8, k->pool, y[i], &rows, lin[i]->packed,
                        lw_tensor_present(&lin[i]->b) ? lw_f32(&lin[i]->b) : NULL);
}

static bool same_rows(const lw_linear *a, const lw_linear *b)
{
    return a->packed && b->packed && lw_int8_alike(a->packed, b->packed);
}

void lw_cpu_linears(lw_kernels *k, int n, lw_tensor *const y[], const lw_tensor *x,
                    const lw_linear *const lin[])
{
    for (int i = 0, many; i < n; i += many) {
        for (many = 1; i + many < n && same_rows(lin[i], lin[i + many]);)
            many++;
        if (lin[i]->packed)
            lw_cpu_int8_linears(k, many, y + i, x, lin + i);
        else
            for (int j = i; j < i + many; j++)
                k->linear(k, y[j], x, lin[j]);
    }
}

lw_status lw_cpu_linear_prepare(lw_kernels *k, lw_linear *lin, lw_arena *a, lw_err *err)
{
    int64_t out = lin->w.shape[0], in = lin->w.shape[1];
    size_t bytes = lw_int8_packed_bytes(out, in);
    void *packed;

    if (lin->packed || !lin->bulk || k->precision != LW_PRECISION_INT8 || bytes == 0)
        return LW_OK;
    packed = lw_arena_alloc(a, bytes, err);
    if (!packed)
        return LW_E_NOMEM;
    LW_TRY(lw_int8_pack(packed, &lin->w, lw_int8_usual(in), k->pool, err));
    lin->packed = packed;
    return LW_OK;
}
