#ifndef LW_TESTS_DIT_FIXTURE_H
#define LW_TESTS_DIT_FIXTURE_H

#include "tests/golden/vae/fixture.h"

/** How a denoiser is written. */
typedef struct dt_model {
    bool single;         /* single-file layout: joined q, k, v; pad tokens as [D] */
    const char *prefix;  /* before every name; NULL = none */
    bool no_config;      /* no config.json */
    lw_dtype dtype;      /* of the matrices; LW_DTYPE_NONE = f32; float8 with a scale beside it */
    bool widened;        /* the values that dtype holds, stored as f32 */
    const char *drop;    /* leave out the tensors whose diffusers name contains this */
    const char *reshape; /* give this tensor another shape of as many items */
} dt_model;

/**
 * Write the model of a case (config, tensor_shapes, tag0) as dir/model.safetensors and
 * dir/config.json, with weights by the deterministic value rule (spread 3, as the makers of the
 * vectors have it), in the place of the model that is there.
 */
void dt_write_model(const json_t *spec, const char *dir, const dt_model *m);

#endif
