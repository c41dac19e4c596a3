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
 * device: "cpu" or NULL. threads: 0 = all cores. memory_mb: 0 = see memory_bytes.
 * On failure nothing is left open. Errors: LW_E_UNIMPLEMENTED (device), LW_E_INVALID, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_backend_open(lw_backend *b, const char *device, int64_t threads,
                                      int64_t memory_mb, lw_err *err);
/** Safe on a zeroed or closed back end. */
void lw_backend_close(lw_backend *b);
/** Bytes that a request may take now. */
size_t lw_backend_budget(const lw_backend *b);

/** "auto", "stored" or "bf16" (NULL = auto). Errors: LW_E_INVALID. */
LW_MUST_USE lw_status lw_keep_parse(const char *text, lw_keep *ret, lw_err *err);

/**
 * Where one part of a model is: the first of `folders` (NULL at the end) that exists inside the
 * folder `path`, else `path` itself. So one --model serves all services with the folder as
 * published (transformer/), as ComfyUI has it (diffusion_models/), or a single file.
 * Errors: LW_E_INVALID (a path too long).
 */
LW_MUST_USE lw_status lw_model_part(const char *path, const char *const *folders, char *ret,
                                    size_t ret_bytes, lw_err *err);

/**
 * True when the folder holds an entry of that name, a broken link too: what a model names but lost
 * must fail when it is opened, and not be taken for something that the model never had.
 */
bool lw_model_names(const char *path);

/**
 * The config.json of a part: in the folder `path`, or beside the file `path`, where it may be that
 * of a neighbour. ret: "" when there is none. Errors: LW_E_INVALID (a path too long).
 */
LW_MUST_USE lw_status lw_model_config(const char *path, char *ret, size_t ret_bytes,
                                      bool *ret_is_folder, lw_err *err);

/** Last part of a path, without slashes at its end: what a model is called. */
void lw_model_id(const char *path, char *ret, size_t ret_bytes);

#endif
