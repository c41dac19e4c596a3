#include "vae-svc/autoencoder.h"

#include <math.h>

#include "common/size.h"
#include "vae-svc/model.h"

/*
 * The forward passes. Activations are [h, w, C] and live in one block of memory: X, the picture so
 * far, at one end, and from the other end T, a temporary copy, and H, the middle of a resnet,
 * beside it. Where a result is made in T, the ends change their roles.
 *
 *     | X            |         free         | H        | T        |
 *
 * The same functions run twice: first without a kernel table, when they only record how much memory
 * is live at a time and how many blocks there are (the plan), then for real.
 */

#define GROUP_NORM_EPS 1e-6f /* AutoencoderKL's own; not the 1e-5 of torch's GroupNorm */

typedef enum place { X, T, H, N_PLACES } place;

typedef struct walk {
    lw_kernels *k; /* NULL: plan only */
    int groups;
    float *memory;
    int64_t total;          /* items of memory */
    int64_t need;           /* most items live so far */
    int64_t live[N_PLACES]; /* items held by the current operation */
    bool flipped;           /* X is at the high end */
    int64_t h, w;           /* of X */
    const lw_vae_watch *watch;
    int blocks_done, n_blocks;
    bool stopped;
} walk;

/* ---- memory ---------------------------------------------------------------------------------- */

/** Items of a tensor, in whole cache lines. */
static int64_t padded(int64_t items)
{
    return (int64_t)lw_size_align((size_t)items, 64 / sizeof(float));
}

/** Begin an operation that holds tensors of so many items; X counts at its largest. */
static void hold(walk *s, int64_t x, int64_t t, int64_t h)
{
    s->live[X] = padded(x);
    s->live[T] = padded(t);
    s->live[H] = padded(h);
    if (s->live[X] + s->live[T] + s->live[H] > s->need)
        s->need = s->live[X] + s->live[T] + s->live[H];
}

/** Where a tensor of that size lies; NULL while planning. */
static float *at(const walk *s, place p, int64_t items)
{
    int64_t low = p == H ? s->live[T] : 0; /* from the end that it starts at */

    if (s->memory == NULL)
        return NULL;
    return (p == X) == s->flipped ? s->memory + s->total - low - padded(items) : s->memory + low;
}

/** The tensor in a place as an image [h, w, c]. */
static lw_tensor act(const walk *s, place p, int64_t h, int64_t w, int64_t c)
{
    return lw_tensor_nd(at(s, p, h * w * c), LW_F32, 3, (int64_t[]){ h, w, c });
}

/** The same as rows of positions, [h * w, c]. */
static lw_tensor rows(const walk *s, place p, int64_t c)
{
    return lw_tensor_2d(at(s, p, s->h * s->w * c), LW_F32, s->h * s->w, c);
}

/** T becomes X. */
static void flip(walk *s)
{
    s->flipped = !s->flipped;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static void conv(walk *s, lw_tensor *y, const lw_tensor *x, const lw_vae_conv *c,
                 const lw_tensor *residual)
{
    if (s->k != NULL)
        s->k->conv2d(s->k, y, x, &c->op, residual);
}

static void group_norm(walk *s, lw_tensor *y, const lw_tensor *x, const lw_vae_norm *n, bool silu)
{
    if (s->k != NULL)
        s->k->group_norm(s->k, y, x, &n->w, &n->b, s->groups, GROUP_NORM_EPS, silu);
}

/** Count the block, tell the watcher; true when the pass has to stop. */
static bool block_done(walk *s)
{
    s->blocks_done++;
    if (s->k != NULL && s->watch != NULL && s->watch->block != NULL &&
        !s->watch->block(s->watch->arg, s->blocks_done, s->n_blocks))
        s->stopped = true;
    return s->stopped;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/** h = conv1(silu(norm1(x))); h = conv2(silu(norm2(h))); x = h + shortcut(x) */
static void resnet(walk *s, const lw_vae_resnet *r)
{
    int64_t n = s->h * s->w, c_in = r->conv1.c_in, c_out = r->conv1.c_out;
    lw_tensor x, t, h;

    hold(s, n * c_in, n * (r->has_shortcut ? c_out : c_in), n * c_out);
    x = act(s, X, s->h, s->w, c_in);
    t = act(s, T, s->h, s->w, r->has_shortcut ? c_out : c_in);
    h = act(s, H, s->h, s->w, c_out);
    if (r->has_shortcut) {
        /* The shortcut first: then x itself is free to be normed in place. */
        conv(s, &t, &x, &r->shortcut, NULL);
        group_norm(s, &x, &x, &r->norm1, true);
        conv(s, &h, &x, &r->conv1, NULL);
        group_norm(s, &h, &h, &r->norm2, true);
        conv(s, &t, &h, &r->conv2, &t);
        flip(s);
    } else {
        group_norm(s, &t, &x, &r->norm1, true);
        conv(s, &h, &t, &r->conv1, NULL);
        group_norm(s, &h, &h, &r->norm2, true);
        conv(s, &x, &h, &r->conv2, &x);
    }
}

/** x = x + out(softmax(q k^T / sqrt(C)) v), one head over all positions; q, k, v from norm(x). */
static void attention(walk *s, const lw_vae_attention *a, int64_t c)
{
    int64_t n = s->h * s->w;
    lw_tensor image, normed, x, t, y, qkv, q, k, v;
    lw_kernels *ops = s->k;

    hold(s, n * c, n * c, 3 * n * c);
    if (ops == NULL) /* columns of a tensor without memory have no address */
        return;
    image = act(s, X, s->h, s->w, c);
    normed = act(s, T, s->h, s->w, c);
    x = rows(s, X, c);
    t = rows(s, T, c);
    qkv = rows(s, H, 3 * c);
    y = lw_tensor_2d(qkv.data, LW_F32, n, c);
    q = lw_tensor_cols(&qkv, 0, c);
    k = lw_tensor_cols(&qkv, c, c);
    v = lw_tensor_cols(&qkv, 2 * c, c);

    group_norm(s, &normed, &image, &a->norm, false);
    ops->linear(ops, &q, &t, &a->q);
    ops->linear(ops, &k, &t, &a->k);
    ops->linear(ops, &v, &t, &a->v);
    ops->attention(ops, &t, &q, &k, &v, 1, 1, 1.0f / sqrtf((float)c), false);
    ops->linear(ops, &y, &t, &a->out);
    ops->add(ops, &x, &y);
}

/** Each position becomes 2x2, then a 3x3 convolution. */
static void upsample(walk *s, const lw_vae_conv *c)
{
    int64_t n = 4 * s->h * s->w;
    lw_tensor x, t;

    hold(s, n * c->c_out > n / 4 * c->c_in ? n * c->c_out : n / 4 * c->c_in, n * c->c_in, 0);
    x = act(s, X, s->h, s->w, c->c_in);
    t = act(s, T, 2 * s->h, 2 * s->w, c->c_in);
    if (s->k != NULL)
        s->k->upsample2x(s->k, &t, &x);
    s->h *= 2;
    s->w *= 2;
    x = act(s, X, s->h, s->w, c->c_out);
    conv(s, &x, &t, c, NULL);
}

/** A 3x3 convolution of stride 2; its padding is right and bottom only. */
static void downsample(walk *s, const lw_vae_conv *c)
{
    lw_tensor x, t;

    hold(s, s->h * s->w * c->c_in, s->h / 2 * (s->w / 2) * c->c_out, 0);
    x = act(s, X, s->h, s->w, c->c_in);
    s->h /= 2;
    s->w /= 2;
    t = act(s, T, s->h, s->w, c->c_out);
    conv(s, &t, &x, c, NULL);
    flip(s);
}

static bool mid_block(walk *s, const lw_vae_half *net)
{
    resnet(s, &net->mid[0]);
    if (block_done(s))
        return false;
    if (net->has_attention) {
        attention(s, &net->attention, net->mid[0].conv2.c_out);
        if (block_done(s))
            return false;
    }
    resnet(s, &net->mid[1]);
    return !block_done(s);
}

/** X = conv_in(x), through the 1x1 convolution first where the model has one on this side. */
static void input(walk *s, const lw_vae_half *net, const lw_tensor *x, const lw_vae_conv *before)
{
    int64_t n = s->h * s->w;
    lw_tensor y, t;

    hold(s, n * net->conv_in.c_out, before != NULL ? n * before->c_out : 0, 0);
    y = act(s, X, s->h, s->w, net->conv_in.c_out);
    if (before != NULL) {
        t = act(s, T, s->h, s->w, before->c_out);
        conv(s, &t, x, before, NULL);
        x = &t;
    }
    conv(s, &y, x, &net->conv_in, NULL);
}

/** y = conv_out(silu(norm_out(X))), through the 1x1 convolution last where there is one. */
static void output(walk *s, const lw_vae_half *net, lw_tensor *y, const lw_vae_conv *after)
{
    int64_t n = s->h * s->w;
    lw_tensor x, t;

    hold(s, n * net->conv_out.c_in, after != NULL ? n * after->c_in : 0, 0);
    x = act(s, X, s->h, s->w, net->conv_out.c_in);
    group_norm(s, &x, &x, &net->norm_out, true);
    if (after != NULL) {
        t = act(s, T, s->h, s->w, after->c_in);
        conv(s, &t, &x, &net->conv_out, NULL);
        conv(s, y, &t, after, NULL);
    } else {
        conv(s, y, &x, &net->conv_out, NULL);
    }
}

/* ---- networks -------------------------------------------------------------------------------- */

/** conv_in, middle, then up: resnets and an upsampling a block, the last block without. */
static void decoder(walk *s, const lw_vae_half *net, lw_tensor *image, const lw_tensor *z)
{
    input(s, net, z, net->has_quant ? &net->quant : NULL);
    if (block_done(s) || !mid_block(s, net))
        return;
    for (int b = 0; b < net->n_blocks; b++) {
        const lw_vae_block *up = &net->blocks[b];

        for (int r = 0; r < up->n_resnets; r++) {
            resnet(s, &up->resnets[r]);
            if (block_done(s))
                return;
        }
        if (up->has_resample) {
            upsample(s, &up->resample);
            if (block_done(s))
                return;
        }
    }
    output(s, net, image, NULL);
    (void)block_done(s);
}

/** conv_in, then down: resnets and a downsampling a block, the last block without; middle. */
static void encoder(walk *s, const lw_vae_half *net, lw_tensor *moments, const lw_tensor *image)
{
    input(s, net, image, NULL);
    if (block_done(s))
        return;
    for (int b = 0; b < net->n_blocks; b++) {
        const lw_vae_block *down = &net->blocks[b];

        for (int r = 0; r < down->n_resnets; r++) {
            resnet(s, &down->resnets[r]);
            if (block_done(s))
                return;
        }
        if (down->has_resample) {
            downsample(s, &down->resample);
            if (block_done(s))
                return;
        }
    }
    if (!mid_block(s, net))
        return;
    output(s, net, moments, net->has_quant ? &net->quant : NULL);
    (void)block_done(s);
}

typedef void network_fn(walk *s, const lw_vae_half *net, lw_tensor *y, const lw_tensor *x);

static walk plan(const lw_vae *v, const lw_vae_half *net, network_fn *fn, int64_t h, int64_t w)
{
    walk s = { .groups = v->config.groups, .h = h, .w = w };
    lw_tensor nothing = { 0 };

    fn(&s, net, &nothing, &nothing);
    return s;
}

static lw_vae_plan plan_of(const walk *s)
{
    return (lw_vae_plan){ .bytes = (size_t)s->need * sizeof(float), .n_blocks = s->blocks_done };
}

lw_vae_plan lw_vae_plan_decode(const lw_vae *v, int64_t h, int64_t w)
{
    walk s = plan(v, &v->decoder, decoder, h, w);

    return plan_of(&s);
}

lw_vae_plan lw_vae_plan_encode(const lw_vae *v, int64_t h, int64_t w)
{
    walk s = plan(v, &v->encoder, encoder, h, w);

    return plan_of(&s);
}

static lw_status run(lw_vae *v, const lw_vae_half *net, network_fn *fn, lw_arena *scratch,
                     lw_tensor *y, const lw_tensor *x, const lw_vae_watch *watch, lw_err *err)
{
    walk planned = plan(v, net, fn, x->shape[0], x->shape[1]);
    walk s = { .k = v->k,
               .groups = v->config.groups,
               .total = planned.need,
               .h = x->shape[0],
               .w = x->shape[1],
               .watch = watch,
               .n_blocks = planned.blocks_done };
    lw_arena_mark mark = lw_arena_mark_get(scratch);
    lw_status status;

    s.memory = lw_arena_alloc(scratch, plan_of(&planned).bytes, err);
    if (s.memory == NULL)
        return LW_E_NOMEM;
    fn(&s, net, y, x);
    status = lw_kernels_check(v->k, err);
    if (s.stopped)
        status = lw_fail(err, LW_E_CANCELLED, "cancelled after block %d of %d", s.blocks_done,
                         s.n_blocks);
    lw_arena_release(scratch, mark);
    return status;
}

lw_status lw_vae_decode(lw_vae *v, lw_arena *scratch, lw_tensor *image, const lw_tensor *z,
                        const lw_vae_watch *watch, lw_err *err)
{
    return run(v, &v->decoder, decoder, scratch, image, z, watch, err);
}

lw_status lw_vae_encode(lw_vae *v, lw_arena *scratch, lw_tensor *moments, const lw_tensor *image,
                        const lw_vae_watch *watch, lw_err *err)
{
    return run(v, &v->encoder, encoder, scratch, moments, image, watch, err);
}

void lw_vae_posterior(const lw_vae *v, lw_tensor *z, const lw_tensor *moments,
                      const lw_tensor *noise)
{
    int64_t n = moments->shape[0] * moments->shape[1], C = v->config.latent_channels;
    const float *m = lw_f32(moments), *e = noise != NULL ? lw_f32(noise) : NULL;
    float shift = (float)v->config.shift_factor, scale = (float)v->config.scaling_factor;

    for (int64_t c = 0; c < C; c++)
        for (int64_t i = 0; i < n; i++) {
            float x = m[i * 2 * C + c];

            if (e != NULL) {
                float logvar = fminf(fmaxf(m[i * 2 * C + C + c], -30.0f), 20.0f);

                x += expf(0.5f * logvar) * e[c * n + i];
            }
            lw_f32(z)[c * n + i] = (x - shift) * scale;
        }
}
