#ifndef LW_DIT_MODEL_H
#define LW_DIT_MODEL_H

#include "common/kernels.h"
#include "dit-svc/config.h"

/* The parts of an S3-DiT in memory; filled by load.c, used by s3dit.c. Vectors are f32, matrices as
 * the file stores them. Letters: D model width, F feed-forward width, A adaLN width. */

typedef struct lw_dit_block {
    lw_tensor attention_norm1, attention_norm2, ffn_norm1, ffn_norm2; /* [D] */
    lw_tensor norm_q, norm_k;                                         /* [D/H] */
    lw_linear to_q, to_k, to_v, to_out;                               /* [D, D] */
    lw_linear w1, w3, w2;                                             /* [F, D], [F, D], [D, F] */
    lw_linear adaln; /* [4D, A]: scale, gate of attention, scale, gate of the network after it;
                        absent in the context refiner */
} lw_dit_block;

struct lw_dit {
    lw_dit_config config;
    lw_dit_layout layout;
    lw_kernels *k;
    lw_weights *weights;
    lw_arena arena; /* process lifetime */

    lw_tensor x_pad_token, cap_pad_token; /* [D] */
    lw_linear x_embedder;                 /* [D, p*p*C] */
    lw_tensor cap_norm;                   /* [cap_dim] */
    lw_linear cap_embedder;               /* [D, cap_dim] */
    lw_linear t_mlp0, t_mlp2;             /* [t_hidden, t_freq], [A, t_hidden] */
    lw_linear final_adaln, final_linear;  /* [D, A], [p*p*C, D] */
    lw_dit_block *noise_refiner, *context_refiner, *layers;
};

#endif
