/*
 * The forward pass. Letters: n tokens, D width of the residual stream, H query heads, KV key/value
 * heads, d head size, F inner width. Source: transformers' modeling_qwen3.py; the details that are
 * easily mistaken are in docs/numerics.md.
 */

#include "encoder-svc/qwen3.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/size.h"

#include "encoder-svc/qwen3_impl.h"

/* Activations kept for the next pass; more is given back. */
#define KEEP_BYTES ((size_t)256 << 20)

/* Activations of one pass; f32. */
typedef struct pass {
    int64_t n;
    const int64_t *states; /* what the caller wants, and where: rets[i] = states[i] */
    int n_states;
    int64_t deepest; /* of them */
    lw_tensor *rets;
    lw_tensor x;        /* [n, D]  residual stream: the caller's deepest result */
    lw_tensor a;        /* [n, D]  normed input of a branch, then its output */
    lw_tensor q, o;     /* [n, H*d] */
    lw_tensor k, v;     /* [n, KV*d] */
    lw_tensor gate, up; /* [n, F] */
    lw_tensor cos, sin; /* [n, d/2] */
} pass;

static lw_status matrix(lw_arena *a, int64_t rows, int64_t cols, lw_tensor *ret, lw_err *err)
{
    return lw_tensor_alloc(a, LW_F32, 2, (const int64_t[]){ rows, cols }, ret, err);
}

static lw_status alloc_pass(lw_qwen3 *m, pass *p, lw_err *err)
{
    const lw_qwen3_config *c = &m->c;
    lw_arena *a = &m->scratch;

    LW_TRY(matrix(a, p->n, c->d_model, &p->a, err));
    LW_TRY(matrix(a, p->n, c->n_heads * c->head_dim, &p->q, err));
    LW_TRY(matrix(a, p->n, c->n_heads * c->head_dim, &p->o, err));
    LW_TRY(matrix(a, p->n, c->n_kv_heads * c->head_dim, &p->k, err));
    LW_TRY(matrix(a, p->n, c->n_kv_heads * c->head_dim, &p->v, err));
    LW_TRY(matrix(a, p->n, c->d_ff, &p->gate, err));
    LW_TRY(matrix(a, p->n, c->d_ff, &p->up, err));
    LW_TRY(matrix(a, p->n, c->head_dim / 2, &p->cos, err));
    return matrix(a, p->n, c->head_dim / 2, &p->sin, err);
}

size_t lw_qwen3_scratch_bytes(const lw_qwen3 *m, int64_t n)
{
    const lw_qwen3_config *c = &m->c;
    size_t per_token = (size_t)(c->d_model + 2 * c->n_heads * c->head_dim +
                                2 * c->n_kv_heads * c->head_dim + 2 * c->d_ff + c->head_dim);
    size_t bytes;

    /* Each of the nine tensors begins on a multiple of 64. */
    if (!lw_size_mul(per_token * sizeof(float), (size_t)n, &bytes))
        return SIZE_MAX;
    return bytes + 9 * 64;
}

/*
 * Angle of token t and pair j: t * theta^(-2j/d). The frequency and the angle are rounded to f32
 * where the reference rounds them; cosine and sine are then exact to half a unit.
 */
static void fill_rope(const lw_qwen3_config *c, pass *p)
{
    const int64_t half = c->head_dim / 2;

    for (int64_t j = 0; j < half; j++) {
        float exponent = (float)(2 * j) / (float)c->head_dim;
        float inv_freq = 1.0f / (float)pow(c->rope_theta, exponent);

        for (int64_t t = 0; t < p->n; t++) {
            float angle = (float)t * inv_freq;

            lw_f32(&p->cos)[t * half + j] = (float)cos((double)angle);
            lw_f32(&p->sin)[t * half + j] = (float)sin((double)angle);
        }
    }
}

/* x += Wo attention(rope(norm(Wq a)), rope(norm(Wk a)), Wv a),  a = norm(x). */
static void attention(lw_qwen3 *m, const lw_qwen3_layer *l, pass *p)
{
    const lw_qwen3_config *c = &m->c;
    const int H = (int)c->n_heads, KV = (int)c->n_kv_heads;
    const float scale = (float)(1 / sqrt((double)c->head_dim));
    lw_kernels *k = m->k;

    k->rmsnorm(k, &p->a, &p->x, &l->input_norm, c->eps, NULL);
    k->linears(k, 3, (lw_tensor *[]){ &p->q, &p->k, &p->v }, &p->a,
               (const lw_linear *[]){ &l->q, &l->k, &l->v });
    k->qk_norm_rope(k, &p->q, H, &l->q_norm, c->eps, &p->cos, &p->sin, LW_ROPE_HALF_SPLIT);
    k->qk_norm_rope(k, &p->k, KV, &l->k_norm, c->eps, &p->cos, &p->sin, LW_ROPE_HALF_SPLIT);
    k->attention(k, &p->o, &p->q, &p->k, &p->v, H, KV, scale, true);
    k->linear(k, &p->a, &p->o, &l->o);
    k->add(k, &p->x, &p->a);
}

/* x += Wdown (silu(Wgate b) * Wup b),  b = norm(x). */
static void feed_forward(lw_qwen3 *m, const lw_qwen3_layer *l, pass *p)
{
    lw_kernels *k = m->k;

    k->rmsnorm(k, &p->a, &p->x, &l->post_norm, m->c.eps, NULL);
    k->linears(k, 2, (lw_tensor *[]){ &p->gate, &p->up }, &p->a,
               (const lw_linear *[]){ &l->gate, &l->up });
    k->swiglu(k, &p->gate, &p->gate, &p->up);
    k->linear(k, &p->a, &p->gate, &l->down);
    k->add(k, &p->x, &p->a);
}

static lw_status check_request(const lw_qwen3 *m, const int32_t *ids, int64_t n,
                               const int64_t *states, int n_states, lw_err *err)
{
    if (n_states < 1 || n_states > LW_QWEN3_MAX_STATES)
        return lw_fail(err, LW_E_INVALID, "%d hidden states: expected 1 to %d", n_states,
                       LW_QWEN3_MAX_STATES);
    for (int i = 0; i < n_states; i++)
        if (states[i] < 0 || states[i] > m->c.n_layers)
            return lw_fail(err, LW_E_INVALID,
                           "hidden state %" PRId64 ": this model has 0 to %" PRId64, states[i],
                           m->c.n_layers);
    if (n < 1)
        return lw_fail(err, LW_E_INVALID, "no tokens to encode");
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= m->c.vocab)
            return lw_fail(err, LW_E_PRECONDITION,
                           "token %" PRId64 " has id %" PRId32 ", but the model knows %" PRId64
                           " ids; use the tokenizer that belongs to it",
                           i, ids[i], m->c.vocab);
    return LW_OK;
}

static lw_status check_finite(const lw_qwen3 *m, const lw_tensor *x, int64_t state, lw_err *err)
{
    if (lw_tensor_all_finite(x))
        return LW_OK;
    return lw_fail(err, LW_E_INTERNAL,
                   "%s: NaN or infinity in hidden state %" PRId64
                   "; the weights are damaged or out "
                   "of range",
                   lw_weights_path(m->weights), state);
}

/* Copy the state that the stream has reached to those who asked for it. */
static void hand_out(const pass *p, int64_t state)
{
    for (int i = 0; i < p->n_states; i++)
        if (p->states[i] == state && p->rets[i].data != p->x.data)
            memcpy(p->rets[i].data, p->x.data, lw_tensor_bytes(&p->x));
}

static lw_status run(lw_qwen3 *m, const int32_t *ids, lw_qwen3_step_fn *step, void *arg, pass *p,
                     lw_err *err)
{
    lw_kernels *k = m->k;

    LW_TRY(alloc_pass(m, p, err));
    fill_rope(&m->c, p);
    k->embed(k, &p->x, &m->embed, ids);
    LW_TRY(check_finite(m, &p->x, 0, err));
    for (int64_t i = 0; i < p->deepest; i++) {
        hand_out(p, i);
        if (step && !step(arg, i, p->deepest))
            return lw_fail(err, LW_E_CANCELLED, "cancelled before layer %" PRId64, i);
        attention(m, &m->layers[i], p);
        feed_forward(m, &m->layers[i], p);
        LW_TRY(lw_kernels_check(k, err));
        LW_TRY(check_finite(m, &p->x, i + 1, err));
    }
    if (p->deepest == m->c.n_layers)
        k->rmsnorm(k, &p->x, &p->x, &m->final_norm, m->c.eps, NULL);
    LW_TRY(lw_kernels_check(k, err));
    LW_TRY(check_finite(m, &p->x, p->deepest, err));
    hand_out(p, p->deepest);
    return LW_OK;
}

lw_status lw_qwen3_forward_states(lw_qwen3 *m, const int32_t *ids, int64_t n, const int64_t *states,
                                  int n_states, lw_qwen3_step_fn *step, void *arg, lw_tensor *rets,
                                  lw_err *err)
{
    pass p = { .n = n, .states = states, .n_states = n_states, .rets = rets };
    lw_status st;

    LW_TRY(check_request(m, ids, n, states, n_states, err));
    for (int i = 0; i < n_states; i++)
        if (i == 0 || states[i] > p.deepest) {
            p.deepest = states[i];
            p.x = rets[i];
        }
    LW_TRY(lw_qwen3_prepare(m, p.deepest, err));
    st = run(m, ids, step, arg, &p, err);
    lw_arena_reset(&m->scratch);
    if (m->scratch.reserved_bytes > KEEP_BYTES)
        lw_arena_deinit(&m->scratch);
    return st;
}

lw_status lw_qwen3_forward(lw_qwen3 *m, const int32_t *ids, int64_t n, int64_t state,
                           lw_qwen3_step_fn *step, void *arg, lw_tensor *ret, lw_err *err)
{
    return lw_qwen3_forward_states(m, ids, n, &state, 1, step, arg, ret, err);
}
