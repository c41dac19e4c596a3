#ifndef LW_TESTS_VAE_FIXTURE_H
#define LW_TESTS_VAE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "common/kernels.h"
#include "common/safetensors.h"

/*
 * Models and inputs of the autoencoder's tests, made from the deterministic value rule of
 * tests/data/spec/README.md and written to a folder of the test's own.
 */

/** Item k of the array with that tag, in [-0.5, 0.5). */
float vt_value(uint64_t tag, uint64_t k);
/** Tensor of values times scale, in the arena. */
lw_tensor vt_values(lw_arena *a, int rank, const int64_t *shape, uint64_t tag, float scale);
/** Picture bytes of the vectors: floor((value + 0.5) * 256). */
lw_tensor vt_picture(lw_arena *a, const int64_t *shape, uint64_t tag);

/** Path of a file of the test data. */
const char *vt_data(const char *name);
/** New folder under the system's temporary one; removed at exit with what is in it. */
const char *vt_new_dir(void);

/** How a model is written. */
typedef struct vt_model {
    bool bfl;            /* names of ae.safetensors, attention weights as 1x1 convolutions */
    const char *prefix;  /* before every name; NULL = none */
    bool no_config;      /* no config.json */
    lw_dtype dtype;      /* of the weights; LW_DTYPE_NONE = f32 */
    bool bf16_vectors;   /* round norms and biases to bf16, whatever the dtype */
    const char *drop;    /* leave out the tensors whose diffusers name contains this */
    const char *reshape; /* give this tensor another shape of as many items */
    const char *spoil;   /* put a NaN into this tensor */
} vt_model;

/** Write the model of a case (config, tensor_shapes, tag0) into dir, as "model.safetensors". */
void vt_write_model(const json_t *spec, const char *dir, const vt_model *m);
/** Write dir/config.json. */
void vt_write_config(const char *dir, const json_t *config);

json_t *vt_load_json(const char *path);
/** Integer at o[key]. */
int64_t vt_int(const json_t *o, const char *key);
/** Array of integers at o[key]. */
int vt_ints(const json_t *o, const char *key, int64_t *ret, int cap);

/** Largest |a - b| over n items divided by the standard deviation of b; fails beyond the bound. */
void vt_check(const char *what, const float *a, const float *b, int64_t n, double bound);

/** Back ends that this build has: "ref", "onednn". Sets up k with a pool of its own. */
typedef struct vt_backend {
    lw_pool *pool;
    lw_kernels k;
} vt_backend;
bool vt_backend_open(vt_backend *b, const char *name, int threads);
void vt_backend_close(vt_backend *b);

/* f32 accuracy of a whole model: 1e-4 of the output's standard deviation (docs/numerics.md). */
#define VT_BOUND 1e-4

#define vt_ok(expr, err)                                                                           \
    do {                                                                                           \
        lw_status vt_s_ = (expr);                                                                  \
        if (vt_s_ != LW_OK)                                                                        \
            fail_msg("%s: %s: %s", #expr, lw_status_name(vt_s_), (err)->text);                     \
    } while (0)

/** The call fails with that code and its text holds `part`. */
#define vt_fails(expr, want, part, err)                                                            \
    do {                                                                                           \
        lw_status vt_s_ = (expr);                                                                  \
        if (vt_s_ != (want) || strstr((err)->text, part) == NULL)                                  \
            fail_msg("%s: expected %s with '%s', got %s: %s", #expr, lw_status_name(want), part,   \
                     lw_status_name(vt_s_), (err)->text);                                          \
    } while (0)

#endif
