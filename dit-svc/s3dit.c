#include "dit-svc/s3dit.h"

#include <math.h>
#include <string.h>

#include "common/size.h"
#include "dit-svc/model.h"

/*
 * The forward pass. What does not change from step to step is computed once in lw_dit_begin: the
 * refined caption, the modulation of every block at every step, the rotations. A step is then:
 * embed the image, refine it, join it with the caption, run the main layers, read the image rows
 * out.
 *
 * Shapes: T image tokens padded to Lx, n caption tokens padded to Lc, both multiples of 32;
 * D model width, H heads, F feed-forward width, A adaLN width, C latent channels, p patch.
 */

#define FINAL_NORM_EPS 1e-6f /* of the final LayerNorm; the RMSNorms have config.norm_eps */
#define MAX_PERIOD     10000.0

/** The scale and gate of a block's two halves at one step; all absent without modulation. */
typedef struct modulation {
    const lw_tensor *s1, *g1, *s2, *g2; /* [D] */
} modulation;

struct lw_dit_run {
    lw_dit *m;
    int64_t h, w, T, Lx; /* latents, image tokens */
    int64_t Lc[LW_DIT_N_CAPTIONS];
    int n_steps;
    lw_tensor caption[LW_DIT_N_CAPTIONS];                     /* refined, [Lc, D] */
    lw_tensor cos[LW_DIT_N_CAPTIONS], sin[LW_DIT_N_CAPTIONS]; /* [Lx + Lc, D/H/2], image first */
    lw_tensor *mod;      /* per modulated block [n_steps, 4D]: noise refiner, then layers */
    lw_tensor mod_final; /* [n_steps, D] */
    /* buffers of a pass, for L = Lx + max Lc rows */
    lw_tensor x, a;   /* [L, D] the residual stream; what a branch reads and writes */
    lw_tensor qkv;    /* [L, 3D] and */
    lw_tensor ffn;    /* [L, 2F], over the same memory: they are never alive together */
    lw_tensor tokens; /* [T, p*p*C] */
};

/* ---- positions and time ---------------------------------------------------------------------- */

void lw_dit_rope_row(const lw_dit_config *c, const int64_t pos[3], float *cos_row, float *sin_row)
{
    int p = 0;

    for (int axis = 0; axis < 3; axis++) {
        int64_t d = c->axes_dims[axis];

        for (int64_t j = 0; j < d / 2; j++, p++) {
            double omega = 1.0 / pow(c->rope_theta, (double)(2 * j) / (double)d);
            float angle = (float)((double)pos[axis] * omega);

            cos_row[p] = (float)cos((double)angle);
            sin_row[p] = (float)sin((double)angle);
        }
    }
}

/** Rotations of the joined sequence; Lc sets the image's place on the text axis. */
static void fill_rope(const lw_dit_run *r, int64_t Lc, lw_tensor *cos_t, lw_tensor *sin_t)
{
    int64_t half = r->m->config.head_dim / 2, Tw = r->w / r->m->config.patch;

    for (int64_t i = 0; i < r->Lx + Lc; i++) {
        int64_t pos[3] = { 0, 0, 0 }; /* image pads stay at the origin */

        if (i >= r->Lx) {
            pos[0] = 1 + i - r->Lx; /* caption, pads too */
        } else if (i < r->T) {
            pos[0] = Lc + 1;
            pos[1] = i / Tw;
            pos[2] = i % Tw;
        }
        lw_dit_rope_row(&r->m->config, pos, lw_f32(cos_t) + i * half, lw_f32(sin_t) + i * half);
    }
}

void lw_dit_time_features(const lw_dit_config *c, float t, float *ret)
{
    int64_t half = c->t_freq / 2;
    float tau = t * (float)c->t_scale;

    for (int64_t j = 0; j < half; j++) {
        float f = (float)exp((double)((float)-log(MAX_PERIOD) * (float)j / (float)half));
        float angle = tau * f;

        ret[j] = (float)cos((double)angle);
        ret[half + j] = (float)sin((double)angle);
    }
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/** x += gate * norm2(Attention(norm1(x) * (1 + scale))), over the rows of x. */
static void attention(lw_dit_run *r, const lw_dit_block *b, lw_tensor *x, const lw_tensor *cos_t,
                      const lw_tensor *sin_t, const modulation *mod)
{
    const lw_dit_config *c = &r->m->config;
    lw_kernels *k = r->m->k;
    int64_t L = x->shape[0], D = c->dim;
    lw_tensor a = lw_tensor_rows(&r->a, 0, L), qkv = lw_tensor_rows(&r->qkv, 0, L);
    lw_tensor q = lw_tensor_cols(&qkv, 0, D), key = lw_tensor_cols(&qkv, D, D),
              v = lw_tensor_cols(&qkv, 2 * D, D);

    k->rmsnorm(k, &a, x, &b->attention_norm1, c->norm_eps, mod->s1);
    k->linears(k, 3, (lw_tensor *[]){ &q, &key, &v }, &a,
               (const lw_linear *[]){ &b->to_q, &b->to_k, &b->to_v });
    k->qk_norm_rope(k, &q, c->heads, &b->norm_q, c->norm_eps, cos_t, sin_t, LW_ROPE_INTERLEAVED);
    k->qk_norm_rope(k, &key, c->heads, &b->norm_k, c->norm_eps, cos_t, sin_t, LW_ROPE_INTERLEAVED);
    k->attention(k, &a, &q, &key, &v, c->heads, c->heads, 1.0f / sqrtf((float)c->head_dim), false);
    k->linear(k, &q, &a, &b->to_out);
    k->add_rmsnorm(k, x, &q, &b->attention_norm2, c->norm_eps, mod->g1);
}

/** x += gate * norm2(W2(silu(W1 y) * W3 y)), y = norm1(x) * (1 + scale). */
static void feed_forward(lw_dit_run *r, const lw_dit_block *b, lw_tensor *x, const modulation *mod)
{
    const lw_dit_config *c = &r->m->config;
    lw_kernels *k = r->m->k;
    int64_t L = x->shape[0];
    lw_tensor a = lw_tensor_rows(&r->a, 0, L), ffn = lw_tensor_rows(&r->ffn, 0, L);
    lw_tensor gate = lw_tensor_cols(&ffn, 0, c->ffn), up = lw_tensor_cols(&ffn, c->ffn, c->ffn);

    k->rmsnorm(k, &a, x, &b->ffn_norm1, c->norm_eps, mod->s2);
    k->linears(k, 2, (lw_tensor *[]){ &gate, &up }, &a, (const lw_linear *[]){ &b->w1, &b->w3 });
    k->swiglu(k, &gate, &gate, &up);
    k->linear(k, &a, &gate, &b->w2);
    k->add_rmsnorm(k, x, &a, &b->ffn_norm2, c->norm_eps, mod->g2);
}

/** Row `step` of a table [n_steps, parts * n], part i, as [n]. */
static lw_tensor table_part(const lw_tensor *table, int step, int i, int64_t n)
{
    return lw_tensor_1d(lw_f32(table) + step * table->stride0 + i * n, LW_F32, n);
}

/** One block; step < 0: without modulation. */
static lw_status run_block(lw_dit_run *r, const lw_dit_block *b, lw_tensor *x,
                           const lw_tensor *cos_t, const lw_tensor *sin_t, const lw_tensor *table,
                           int step, const lw_dit_watch *watch, lw_err *err)
{
    int64_t D = r->m->config.dim;
    modulation mod = { 0 };
    lw_tensor part[4];

    if (watch != NULL && watch->keep_going != NULL && !watch->keep_going(watch->arg))
        return lw_fail(err, LW_E_CANCELLED, "cancelled between blocks");
    if (table != NULL) {
        for (int i = 0; i < 4; i++)
            part[i] = table_part(table, step, i, D);
        mod = (modulation){ &part[0], &part[1], &part[2], &part[3] };
    }
    attention(r, b, x, cos_t, sin_t, &mod);
    feed_forward(r, b, x, &mod);
    return LW_OK;
}

/* ---- once a request -------------------------------------------------------------------------- */

static int64_t padded(int64_t n)
{
    return (n + LW_DIT_SEQ_MULTI - 1) / LW_DIT_SEQ_MULTI * LW_DIT_SEQ_MULTI;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static lw_status check_shape(const lw_dit_config *c, const lw_dit_shape *s,
                             const lw_tensor captions[LW_DIT_N_CAPTIONS], lw_err *err)
{
    int64_t p = c->patch, max = lw_dit_max_caption(c);
    char text[128];

    if (s->h < p || s->w < p || s->h % p != 0 || s->w % p != 0)
        return lw_fail(err, LW_E_SHAPE, "latents %lldx%lld: sides must be multiples of %lld",
                       (long long)s->w, (long long)s->h, (long long)p);
    if (s->h / p > c->axes_lens[1] || s->w / p > c->axes_lens[2])
        return lw_fail(err, LW_E_SHAPE, "latents %lldx%lld: at most %lldx%lld for this model",
                       (long long)s->w, (long long)s->h, (long long)(c->axes_lens[2] * p),
                       (long long)(c->axes_lens[1] * p));
    for (int i = 0; i < LW_DIT_N_CAPTIONS; i++) {
        if (i == LW_DIT_NEGATIVE && s->n_caption[i] == 0)
            continue;
        if (captions[i].rank != 2 || captions[i].shape[1] != c->cap_dim)
            return lw_fail(err, LW_E_SHAPE,
                           "the embedding is %s; this denoiser takes rows of %lld; is the encoder "
                           "of another model?",
                           lw_tensor_describe(&captions[i], text, sizeof(text)),
                           (long long)c->cap_dim);
        if (s->n_caption[i] < 1 || s->n_caption[i] > max || captions[i].shape[0] != s->n_caption[i])
            return lw_fail(err, LW_E_SHAPE, "the embedding has %lld rows; expected 1 to %lld",
                           (long long)captions[i].shape[0], (long long)max);
    }
    return LW_OK;
}

/** Takes tensors from an arena, or, without one, only counts what they would take. */
typedef struct taker {
    lw_arena *a;
    size_t bytes;
    lw_status status;
    lw_err *err;
} taker;

static void take(taker *t, int64_t rows, int64_t cols, lw_tensor *ret)
{
    t->bytes += lw_size_align((size_t)(rows * cols) * sizeof(float), 64);
    if (t->a != NULL && t->status == LW_OK)
        t->status = lw_tensor_alloc(t->a, LW_F32, 2, (int64_t[]){ rows, cols }, ret, t->err);
}

/** All memory of a run; the numbers of r are set. */
static void take_all(taker *t, lw_dit_run *r, const lw_dit_config *c)
{
    int64_t D = c->dim, F = c->ffn, half = c->head_dim / 2;
    int64_t L = r->Lx + max64(r->Lc[LW_DIT_POSITIVE], r->Lc[LW_DIT_NEGATIVE]);
    int64_t wide = max64(3 * D, 2 * F);
    lw_tensor work = { 0 };

    for (int i = 0; i < LW_DIT_N_CAPTIONS; i++) {
        if (r->Lc[i] == 0)
            continue;
        take(t, r->Lc[i], D, &r->caption[i]);
        take(t, r->Lx + r->Lc[i], half, &r->cos[i]);
        take(t, r->Lx + r->Lc[i], half, &r->sin[i]);
    }
    for (int i = 0; i < c->n_refiner + c->n_layers; i++)
        take(t, r->n_steps, 4 * D, r->mod != NULL ? &r->mod[i] : &work);
    take(t, r->n_steps, D, &r->mod_final);
    take(t, L, D, &r->x);
    take(t, L, D, &r->a);
    take(t, L, wide, &work);
    take(t, r->T, (int64_t)c->patch * c->patch * c->channels, &r->tokens);
    r->qkv = lw_tensor_2d(work.data, LW_F32, L, 3 * D);
    r->ffn = lw_tensor_2d(work.data, LW_F32, L, 2 * F);
}

static lw_dit_run run_of(const lw_dit_config *c, const lw_dit_shape *s)
{
    int64_t p = c->patch;
    lw_dit_run r = { .h = s->h, .w = s->w, .n_steps = s->n_steps };

    r.T = (s->h / p) * (s->w / p);
    r.Lx = padded(r.T);
    for (int i = 0; i < LW_DIT_N_CAPTIONS; i++)
        r.Lc[i] = padded(s->n_caption[i]);
    return r;
}

size_t lw_dit_run_bytes(const lw_dit *m, const lw_dit_shape *s)
{
    const lw_dit_config *c = &m->config;
    lw_dit_run r = run_of(c, s);
    taker t = { 0 };

    take_all(&t, &r, c);
    /* The time's path through its MLP is temporary, on top. */
    return t.bytes + sizeof(r) + 4096 + (size_t)(c->n_refiner + c->n_layers) * sizeof(lw_tensor) +
           (size_t)s->n_steps * (size_t)(c->t_freq + c->t_hidden + 2 * c->adaln) * sizeof(float);
}

/** Modulation of every block at every step: m = Wm c + bm, c = MLP(sinusoid(t)). */
static lw_status fill_modulation(lw_dit_run *r, lw_arena *a, const float *t, lw_err *err)
{
    lw_dit *m = r->m;
    const lw_dit_config *c = &m->config;
    lw_kernels *k = m->k;
    lw_arena_mark mark = lw_arena_mark_get(a);
    lw_tensor e, hidden, emb, act;
    taker tk = { .a = a, .err = err };

    take(&tk, r->n_steps, c->t_freq, &e);
    take(&tk, r->n_steps, c->t_hidden, &hidden);
    take(&tk, r->n_steps, c->adaln, &emb);
    take(&tk, r->n_steps, c->adaln, &act);
    LW_TRY(tk.status);
    for (int i = 0; i < r->n_steps; i++)
        lw_dit_time_features(c, t[i], lw_f32(&e) + i * c->t_freq);
    k->linear(k, &hidden, &e, &m->t_mlp0);
    k->silu(k, &hidden, &hidden);
    k->linear(k, &emb, &hidden, &m->t_mlp2);
    /* The blocks take the embedding as it is; only the final layer passes it through SiLU. */
    for (int i = 0; i < c->n_refiner; i++)
        k->linear(k, &r->mod[i], &emb, &m->noise_refiner[i].adaln);
    for (int i = 0; i < c->n_layers; i++)
        k->linear(k, &r->mod[c->n_refiner + i], &emb, &m->layers[i].adaln);
    k->silu(k, &act, &emb);
    k->linear(k, &r->mod_final, &act, &m->final_adaln);
    lw_arena_release(a, mark);
    return LW_OK;
}

/** Rows [n, L) of x are the pad token. */
static void pad_rows(lw_kernels *k, const lw_tensor *x, int64_t n, int64_t L,
                     const lw_tensor *token)
{
    lw_tensor rows = lw_tensor_rows(x, n, L - n);

    if (L > n)
        k->fill_rows(k, &rows, token);
}

/** caption [Lc, D] = refine(pad(Wc norm(cap))); independent of time. */
static lw_status refine_caption(lw_dit_run *r, int which, const lw_tensor *cap,
                                const lw_dit_watch *watch, lw_err *err)
{
    lw_dit *m = r->m;
    lw_kernels *k = m->k;
    int64_t n = cap->shape[0], Lc = r->Lc[which];
    lw_tensor *y = &r->caption[which], rows = lw_tensor_rows(y, 0, n);
    lw_tensor cos_t = lw_tensor_rows(&r->cos[which], r->Lx, Lc);
    lw_tensor sin_t = lw_tensor_rows(&r->sin[which], r->Lx, Lc);
    lw_tensor normed = *cap; /* the caller's copy, in place */

    k->rmsnorm(k, &normed, cap, &m->cap_norm, m->config.norm_eps, NULL);
    k->linear(k, &rows, &normed, &m->cap_embedder);
    pad_rows(k, y, n, Lc, &m->cap_pad_token);
    for (int i = 0; i < m->config.n_refiner; i++)
        LW_TRY(run_block(r, &m->context_refiner[i], y, &cos_t, &sin_t, NULL, -1, watch, err));
    return LW_OK;
}

lw_status lw_dit_begin(lw_dit *m, lw_arena *a, const lw_dit_shape *s, const float *t,
                       const lw_tensor captions[LW_DIT_N_CAPTIONS], const lw_dit_watch *watch,
                       lw_dit_run **ret, lw_err *err)
{
    const lw_dit_config *c = &m->config;
    taker tk = { .a = a, .err = err };
    lw_dit_run *r;

    LW_TRY(check_shape(c, s, captions, err));
    r = lw_arena_calloc(a, 1, sizeof(*r), err);
    if (r == NULL)
        return LW_E_NOMEM;
    *r = run_of(c, s);
    r->m = m;
    r->mod = lw_arena_calloc(a, (size_t)(c->n_refiner + c->n_layers), sizeof(*r->mod), err);
    if (r->mod == NULL)
        return LW_E_NOMEM;
    take_all(&tk, r, c);
    LW_TRY(tk.status);
    LW_TRY(fill_modulation(r, a, t, err));
    for (int i = 0; i < LW_DIT_N_CAPTIONS; i++) {
        if (r->Lc[i] == 0)
            continue;
        fill_rope(r, r->Lc[i], &r->cos[i], &r->sin[i]);
        LW_TRY(refine_caption(r, i, &captions[i], watch, err));
    }
    LW_TRY(lw_kernels_check(m->k, err));
    *ret = r;
    return LW_OK;
}

/* ---- each step ------------------------------------------------------------------------------- */

lw_status lw_dit_forward(lw_dit_run *r, int step, int caption, const lw_tensor *z, lw_tensor *out,
                         const lw_dit_watch *watch, lw_err *err)
{
    lw_dit *m = r->m;
    const lw_dit_config *c = &m->config;
    lw_kernels *k = m->k;
    int64_t D = c->dim, L = r->Lx + r->Lc[caption];
    const lw_tensor *cos_t = &r->cos[caption], *sin_t = &r->sin[caption];
    lw_tensor image_cos = lw_tensor_rows(cos_t, 0, r->Lx),
              image_sin = lw_tensor_rows(sin_t, 0, r->Lx);
    lw_tensor x = lw_tensor_rows(&r->x, 0, L), image = lw_tensor_rows(&x, 0, r->Lx);
    lw_tensor picture = lw_tensor_rows(&x, 0, r->T), normed = lw_tensor_rows(&r->a, 0, r->T);
    lw_tensor scale = table_part(&r->mod_final, step, 0, D);

    /* image: embed, pad, refine */
    k->patchify(k, &r->tokens, z, c->patch);
    k->linear(k, &picture, &r->tokens, &m->x_embedder);
    pad_rows(k, &x, r->T, r->Lx, &m->x_pad_token);
    for (int i = 0; i < c->n_refiner; i++)
        LW_TRY(run_block(r, &m->noise_refiner[i], &image, &image_cos, &image_sin, &r->mod[i], step,
                         watch, err));

    /* [image; caption] through the main layers */
    memcpy(lw_f32(&x) + r->Lx * D, r->caption[caption].data, lw_tensor_bytes(&r->caption[caption]));
    for (int i = 0; i < c->n_layers; i++)
        LW_TRY(run_block(r, &m->layers[i], &x, cos_t, sin_t, &r->mod[c->n_refiner + i], step, watch,
                         err));

    /* read the picture's rows out */
    k->layernorm(k, &normed, &picture, FINAL_NORM_EPS, &scale);
    k->linear(k, &r->tokens, &normed, &m->final_linear);
    k->unpatchify(k, out, &r->tokens, c->patch);
    return lw_kernels_check(k, err);
}
