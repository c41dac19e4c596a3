#ifndef LW_TESTS_GOLDEN_ENCODER_TINY_H
#define LW_TESTS_GOLDEN_ENCODER_TINY_H

/* Tiny Qwen3 models made from the value rule, as tests/tools/make_qwen3_vectors.py makes them, and
 * the back ends that every comparison runs on. */

#include <jansson.h>

#include "common/kernels.h"
#include "common/safetensors.h"

/** value(tag, k) of tests/data/spec/README.md. */
double tiny_value(uint32_t tag, uint32_t k);

/** How a model is written. Zero is: f32 with the "model." prefix. */
typedef struct tiny_options {
    lw_dtype dtype;           /* of the matrices; 0 = f32 */
    bool round_bf16;          /* f32 values that bf16 holds exactly */
    bool no_prefix;           /* "layers.0..." */
    const char *without;      /* leave out tensors whose name contains this */
    const char *poison;       /* the first item of tensors whose name starts so is NaN */
    const char *short_by_one; /* the first axis of these tensors is one too small */
} tiny_options;

/** Write model.safetensors of a configuration (keys as in config.json) to `path`. */
void tiny_write(const json_t *config, const char *path, const tiny_options *o);

/** One back end of this build with a number of threads. */
typedef struct tiny_backend {
    lw_pool *pool;
    lw_kernels k;
} tiny_backend;

/** Number of combinations of back end and threads; tiny_backend_open takes 0 .. n-1. The same back
 * end comes with its thread counts one after the other. */
int tiny_n_backends(void);
/** *ret_same_as_before: only the number of threads differs from combination i - 1. */
void tiny_backend_open(int i, tiny_backend *ret, bool *ret_same_as_before);
void tiny_backend_close(tiny_backend *b);

/** A new empty folder; the text lives until the next call. tiny_folder_remove also removes the
 * files in it. */
const char *tiny_folder_make(void);
void tiny_folder_remove(const char *folder);

#endif
