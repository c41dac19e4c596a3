#ifndef LW_COMMON_BACKEND_H
#define LW_COMMON_BACKEND_H

#include "common/kernels.h"
#include "common/weights.h"

/**
 * What a service computes with: threads, an operation table, and the memory that one request may
 * take. Opened once at start from the options that all services share.
 */
typedef struct lw_backend {
    lw_pool *pool;
    lw_kernels k;
    size_t memory_bytes; /* as given; 0 = half of what is free when a request comes */
} lw_backend;

/**
 * device: "cpu" or NULL. precision: "auto", "f32", "int8" or NULL (auto). threads: 0 = all cores.
 * memory_mb: 0 = see memory_bytes. The kernels are tried on small numbers (lw_kernels_try) before
 * they are used. On failure nothing is left open. Errors: LW_E_UNIMPLEMENTED (device),
 * LW_E_INVALID, LW_E_NOMEM, LW_E_INTERNAL (a kernel computes wrong numbers on this machine).
 */
LW_MUST_USE lw_status lw_backend_open(lw_backend *b, const char *device, const char *precision,
                                      int64_t threads, int64_t memory_mb, lw_err *err);
/** Safe on a zeroed or closed back end. */
void lw_backend_close(lw_backend *b);
/** Bytes that a request may take now. */
size_t lw_backend_budget(const lw_backend *b);

/** "auto", "stored" or "bf16" (NULL = auto). Errors: LW_E_INVALID. */
LW_MUST_USE lw_status lw_keep_parse(const char *text, lw_keep *ret, lw_err *err);

#endif
