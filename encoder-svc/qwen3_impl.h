#ifndef LW_ENCODER_QWEN3_IMPL_H
#define LW_ENCODER_QWEN3_IMPL_H

/* What qwen3.c (the forward pass) and qwen3_load.c (config and tensors) share. */

#include "encoder-svc/qwen3.h"

typedef struct lw_qwen3_layer {
    lw_tensor input_norm, post_norm; /* [D] */
    lw_tensor q_norm, k_norm;        /* [d] */
    lw_linear q, k, v, o;            /* [H*d, D], [KV*d, D] twice, [D, H*d] */
    lw_linear gate, up, down;        /* [F, D] twice, [D, F] */
} lw_qwen3_layer;

struct lw_qwen3 {
    lw_qwen3_config c;
    lw_kernels *k;
    lw_weights *weights;
    const char *prefix; /* "model." or "" */
    lw_arena arena;     /* weights that are not views of the file */
    lw_arena scratch;   /* activations of one pass; kept for the next */
    lw_tensor embed;    /* [vocab, D] */
    lw_qwen3_layer *layers;
    int64_t n_ready;      /* layers [0, n_ready) are prepared */
    lw_tensor final_norm; /* [D]; absent until it is asked for */
};

/** Prepare what hidden state `state` needs; qwen3_load.c. */
LW_MUST_USE lw_status lw_qwen3_prepare(lw_qwen3 *m, int64_t state, lw_err *err);

#endif
