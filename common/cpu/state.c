/* State and scratch memory of the CPU back ends; see cpu.h. */
#include "common/cpu/cpu.h"
#include "common/cpu/int8.h"
#include "common/size.h"

#include <stdlib.h>

#define SCRATCH_ALIGN 64

void lw_cpu_state_create(lw_kernels *k, lw_pool *pool)
{
    lw_cpu *cpu = calloc(1, sizeof(*cpu));
    int n_threads = lw_pool_threads(pool);

    k->pool = pool;
    k->impl = NULL;
    if (cpu)
        cpu->thread_scratch = calloc((size_t)n_threads, sizeof(*cpu->thread_scratch));
    if (!cpu || !cpu->thread_scratch) {
        free(cpu);
        k->failed = LW_E_NOMEM;
        return;
    }
    cpu->n_threads = n_threads;
    cpu->int8 = &lw_int8_baseline;
    k->impl = cpu;
}

void lw_cpu_state_destroy(lw_kernels *k)
{
    lw_cpu *cpu = k->impl;

    if (!cpu)
        return;
    for (int i = 0; i < cpu->n_threads; i++)
        free(cpu->thread_scratch[i]);
    free(cpu->thread_scratch);
    free(cpu->shared_scratch);
    free(cpu);
    k->impl = NULL;
}

static char *scratch_alloc(lw_cpu *cpu, size_t bytes)
{
    cpu->n_allocs++;
    return bytes == SIZE_MAX ? NULL : aligned_alloc(SCRATCH_ALIGN, bytes);
}

bool lw_cpu_reserve(lw_kernels *k, size_t bytes)
{
    lw_cpu *cpu = k->impl;

    if (cpu && bytes <= cpu->thread_bytes)
        return true;
    bytes = lw_size_align(bytes, SCRATCH_ALIGN);
    for (int i = 0; cpu && i < cpu->n_threads; i++) {
        /* Freed first, so that the peak is the new size; nobody keeps scratch across operations. */
        free(cpu->thread_scratch[i]);
        cpu->thread_scratch[i] = scratch_alloc(cpu, bytes);
        if (!cpu->thread_scratch[i]) {
            cpu->thread_bytes = 0;
            k->failed = LW_E_NOMEM;
            return false;
        }
    }
    if (!cpu) {
        k->failed = LW_E_NOMEM;
        return false;
    }
    cpu->thread_bytes = bytes;
    return true;
}

void *lw_cpu_scratch(const lw_kernels *k, int thread)
{
    const lw_cpu *cpu = k->impl;

    return cpu->thread_scratch[thread];
}

void *lw_cpu_shared(lw_kernels *k, size_t bytes)
{
    lw_cpu *cpu = k->impl;

    if (!cpu) {
        k->failed = LW_E_NOMEM;
        return NULL;
    }
    if (bytes > cpu->shared_bytes) {
        bytes = lw_size_align(bytes, SCRATCH_ALIGN);
        free(cpu->shared_scratch);
        cpu->shared_bytes = 0;
        cpu->shared_scratch = scratch_alloc(cpu, bytes);
        if (!cpu->shared_scratch) {
            k->failed = LW_E_NOMEM;
            return NULL;
        }
        cpu->shared_bytes = bytes;
    }
    return cpu->shared_scratch;
}
