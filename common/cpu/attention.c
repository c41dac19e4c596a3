/*
 * Attention by blocks: a piece is one head and one block of queries. Scores of the block against
 * all keys it may see go to the thread's scratch, softmax runs on each row, and the second product
 * writes the output in place. Heads are read where they lie, with the row stride of q, k and v. The
 * block is chosen so that its scores stay in bounded memory however many keys there are.
 */
#include <string.h>

#include "common/cpu/cpu.h"
#include "common/cpu/onednn.h"
#include "common/cpu/vec.h"

#define SCORES_BYTES (8u << 20)
#define MIN_BLOCK    16
#define MAX_BLOCK    512
/* A causal block computes the square around the diagonal in full, so it is kept small. */
#define MAX_BLOCK_CAUSAL 128

typedef struct attention_args {
    lw_kernels *k;
    const lw_vec *vec;
    lw_tensor *o;
    const lw_tensor *q, *key, *v;
    int64_t n, m, D, heads_per_kv, block, n_blocks;
    float scale;
    bool causal;
} attention_args;

static void attention_piece(void *arg, int thread, int64_t piece)
{
    const attention_args *a = arg;
    int64_t h = piece / a->n_blocks, i0 = piece % a->n_blocks * a->block;
    int64_t n = lw_min64(a->block, a->n - i0), kv = h / a->heads_per_kv * a->D;
    int64_t n_keys = a->causal ? i0 + n : a->m;
    float *scores = lw_cpu_scratch(a->k, thread), *sums = scores + a->block * a->m;
    float *o = lw_row(a->o, i0) + h * a->D;

    if (!lw_onednn_sgemm(n, n_keys, a->D, lw_row(a->q, i0) + h * a->D, a->q->stride0,
                         lw_row(a->key, 0) + kv, a->key->stride0, true, 0, scores, n_keys)) {
        lw_cpu_fail(a->k);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float *p = scores + i * n_keys;
        int64_t n_seen = a->causal ? i0 + i + 1 : n_keys;

        sums[i] = a->vec->softmax_exp(p, a->scale, n_seen);
        memset(p + n_seen, 0, (size_t)(n_keys - n_seen) * sizeof(*p));
    }
    if (!lw_onednn_sgemm(n, a->D, n_keys, scores, n_keys, lw_row(a->v, 0) + kv, a->v->stride0,
                         false, 0, o, a->o->stride0)) {
        lw_cpu_fail(a->k);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        a->vec->scale(o + i * a->o->stride0, 1.0f / sums[i], a->D);
}

static void onednn_attention(lw_kernels *k, lw_tensor *o, const lw_tensor *q, const lw_tensor *key,
                             const lw_tensor *v, int heads, int kv_heads, float scale, bool causal)
{
    const lw_cpu *cpu = k->impl;
    attention_args a = { .k = k,
                         .vec = cpu->vec,
                         .o = o,
                         .q = q,
                         .key = key,
                         .v = v,
                         .n = lw_rows(q),
                         .m = lw_rows(key),
                         .D = lw_cols(q) / heads,
                         .heads_per_kv = heads / kv_heads,
                         .scale = scale,
                         .causal = causal };
    int64_t fit = SCORES_BYTES / (int64_t)sizeof(float) / a.m / MIN_BLOCK * MIN_BLOCK;

    a.block = lw_min64(fit, causal ? MAX_BLOCK_CAUSAL : MAX_BLOCK);
    a.block = lw_min64(a.block < MIN_BLOCK ? MIN_BLOCK : a.block, a.n);
    a.n_blocks = lw_ceil_div(a.n, a.block);
    if (lw_cpu_reserve(k, (size_t)(a.block * (a.m + 1)) * sizeof(float)))
        lw_pool_run(k->pool, heads * a.n_blocks, attention_piece, &a);
}

void lw_cpu_add_attention(lw_kernels *k)
{
    k->attention = onednn_attention;
}
