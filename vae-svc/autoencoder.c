#include "vae-svc/autoencoder.h"

#include <math.h>
#include <string.h>

#include "common/size.h"
#include "vae-svc/model.h"

/*
 * The forward passes. Activations are [h, w, C] and live in one block of memory: X, the picture so
 * far, at the low end, and what an operation needs besides at the high end. Rows of X may lie
 * apart: where a resnet halves the channels, its middle H and its result share the memory of what
 * it read, row by row, so that a decoder needs little more than its largest activation:
 *
 *     | X row 0 | H row 0 | X row 1 | H row 1 | ...                  free                  | T |
 *
 * Norms and upsampling happen where a convolution reads, so they take no memory at all.
 *
 * The same functions run twice: first without a kernel table, when they only record how much memory
 * is live at a time and how many blocks there are (the plan), then for real.
 */

#define GROUP_NORM_EPS 1e-6f /* AutoencoderKL's own; not the 1e-5 of torch's GroupNorm */
/* Strips have a multiple of 4 rows, the height of a Winograd tile, so they give the bits of the
 * whole. */
#define STRIP_ROW_STEP 4

typedef struct walk {
    lw_kernels *k; /* NULL: plan only */
    int groups;
    int64_t strip_positions;
    float *memory;
    int64_t total;   /* items of memory */
    int64_t need;    /* most items live so far */
    int64_t h, w, c; /* X */
    int64_t stride;  /* of the rows of X, in items */
    int64_t widest;  /* most channels so far */
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

/** So many items are live at the low and the high end. */
static void hold(walk *s, int64_t low, int64_t high)
{
    if (padded(low) + padded(high) > s->need)
        s->need = padded(low) + padded(high);
}

static float *high_end(const walk *s, int64_t items)
{
    return s->memory + s->total - padded(items);
}

/** An image [h, w, c] in memory; row strides of 0 mean packed. */
static lw_tensor image_at(float *data, int64_t h, int64_t w, int64_t c, int64_t stride)
{
    lw_tensor t = lw_tensor_nd(data, LW_F32, 3, (int64_t[]){ h, w, c });

    if (stride > 0)
        t.stride0 = stride;
    return t;
}

static lw_tensor current(const walk *s)
{
    return image_at(s->memory, s->h, s->w, s->c, s->stride);
}

/** X is now packed, of that shape. */
static void becomes(walk *s, int64_t h, int64_t w, int64_t c)
{
    s->h = h;
    s->w = w;
    s->c = c;
    s->stride = w * c;
    if (c > s->widest)
        s->widest = c;
}

static void copy_rows(lw_tensor *y, const lw_tensor *x)
{
    size_t bytes = (size_t)(x->shape[1] * x->shape[2]) * sizeof(float);

    for (int64_t i = 0; i < x->shape[0]; i++)
        memmove(lw_f32(y) + i * y->stride0, lw_f32(x) + i * x->stride0, bytes);
}

/** Rows [first, end). */
static lw_tensor rows_of(const lw_tensor *t, int64_t first, int64_t end)
{
    return image_at(lw_f32(t) + first * t->stride0, end - first, t->shape[1], t->shape[2],
                    t->stride0);
}

/* ---- pieces ---------------------------------------------------------------------------------- */

/** y = conv(x) + residual; of silu(norm(x)) where `factors` [3, c_in] are given. */
static void conv(walk *s, lw_tensor *y, const lw_tensor *x, const lw_vae_conv *c,
                 const lw_tensor *factors, const lw_tensor *residual)
{
    lw_conv2d op = c->op;

    if (factors != NULL)
        op.norm = *factors;
    s->k->conv2d(s->k, y, x, &op, residual);
}

/** Factors of the norm of x, in the walk's own memory for them. */
static lw_tensor factors_of(walk *s, const lw_tensor *x, const lw_vae_norm *n)
{
    lw_tensor f = lw_tensor_2d(s->memory + s->total, LW_F32, 3, x->shape[2]);

    s->k->group_factors(s->k, &f, x, &n->w, &n->b, s->groups, GROUP_NORM_EPS);
    return f;
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

/** Rows of a strip of a picture [h, w]. */
static int64_t strip_rows(const walk *s, int64_t h, int64_t w)
{
    int64_t rows = s->strip_positions / w / STRIP_ROW_STEP * STRIP_ROW_STEP;

    if (rows == 0)
        rows = STRIP_ROW_STEP;
    return rows < h ? rows : h;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/** h = conv1(silu(norm1(x))); x = x + conv2(silu(norm2(h))), of as many channels. */
static void resnet_same(walk *s, const lw_vae_resnet *r)
{
    bool beside = s->stride >= 2 * s->w * s->c; /* H fits between the rows of X */
    int64_t n = s->h * s->w * s->c;
    lw_tensor x, h, f;

    hold(s, s->h * s->stride, beside ? 0 : n);
    if (s->k == NULL)
        return;
    x = current(s);
    h = beside ? image_at(s->memory + s->w * s->c, s->h, s->w, s->c, s->stride)
               : image_at(high_end(s, n), s->h, s->w, s->c, 0);
    f = factors_of(s, &x, &r->norm1);
    conv(s, &h, &x, &r->conv1, &f, NULL);
    f = factors_of(s, &h, &r->norm2);
    conv(s, &x, &h, &r->conv2, &f, &x);
}

/**
 * The shortcut and conv1 of a resnet with at most half the channels, over what they read: strip by
 * strip, from a copy of its rows and their neighbours. The row above was overwritten by the strip
 * before; it is kept from its copy.
 */
static void halve_in_place(walk *s, const lw_vae_resnet *r, lw_tensor *x, lw_tensor *h,
                           const lw_tensor *from, const lw_tensor *factors)
{
    int64_t rows = strip_rows(s, s->h, s->w), n_copy = (rows + 2) * s->w * from->shape[2];
    lw_tensor copy = image_at(high_end(s, n_copy), rows + 2, s->w, from->shape[2], 0);

    for (int64_t i = 0; i < s->h; i += rows) {
        int64_t end = i + rows < s->h ? i + rows : s->h, last = end < s->h ? end + 1 : end;
        lw_tensor fresh = rows_of(from, i, last), to = rows_of(&copy, 1, 1 + last - i);
        lw_tensor strip = rows_of(&copy, 1, 1 + end - i), seen = to;
        lw_tensor x_strip = rows_of(x, i, end), h_strip = rows_of(h, i, end);
        lw_tensor kept = rows_of(&copy, end - i, end - i + 1), above = rows_of(&copy, 0, 1);
        lw_vae_conv conv1 = r->conv1;

        copy_rows(&to, &fresh);
        if (i > 0) {
            seen = rows_of(&copy, 0, 1 + last - i);
            conv1.op.pad_top = 0;
        }
        conv(s, &x_strip, &strip, &r->shortcut, NULL, NULL);
        conv(s, &h_strip, &seen, &conv1, factors, NULL);
        copy_rows(&above, &kept);
    }
}

static void resnet_halving(walk *s, const lw_vae_resnet *r)
{
    int64_t rows = strip_rows(s, s->h, s->w), c_out = r->conv1.c_out;
    lw_tensor from, x, h, f;

    hold(s, s->h * s->stride, (rows + 2) * s->w * s->c);
    if (s->k != NULL) {
        from = current(s);
        x = image_at(s->memory, s->h, s->w, c_out, s->stride);
        h = image_at(s->memory + s->w * c_out, s->h, s->w, c_out, s->stride);
        f = factors_of(s, &from, &r->norm1);
        halve_in_place(s, r, &x, &h, &from, &f);
        f = factors_of(s, &h, &r->norm2);
        conv(s, &x, &h, &r->conv2, &f, &x);
    }
    s->c = c_out;
}

/** With another number of channels: x = shortcut(x) + conv2(silu(norm2(h))). */
static void resnet_changing(walk *s, const lw_vae_resnet *r)
{
    int64_t n = s->h * s->w * r->conv1.c_out;
    lw_tensor x, t, h, f;

    hold(s, s->h * s->stride, 2 * padded(n));
    hold(s, n, n);
    if (s->k != NULL) {
        x = current(s);
        t = image_at(high_end(s, n), s->h, s->w, r->conv1.c_out, 0);
        h = image_at(high_end(s, 2 * padded(n)), s->h, s->w, r->conv1.c_out, 0);
        f = factors_of(s, &x, &r->norm1);
        conv(s, &h, &x, &r->conv1, &f, NULL);
        conv(s, &t, &x, &r->shortcut, NULL, NULL);
        f = factors_of(s, &h, &r->norm2);
        conv(s, &t, &h, &r->conv2, &f, &t);
    }
    becomes(s, s->h, s->w, r->conv1.c_out);
    if (s->k != NULL) {
        x = current(s);
        copy_rows(&x, &t);
    }
}

static void resnet(walk *s, const lw_vae_resnet *r)
{
    if (!r->has_shortcut)
        resnet_same(s, r);
    else if (s->stride >= 2 * s->w * r->conv1.c_out)
        resnet_halving(s, r);
    else
        resnet_changing(s, r);
}

/** x = x + out(softmax(q k^T / sqrt(C)) v), one head over all positions; q, k, v from norm(x). */
static void attention(walk *s, const lw_vae_attention *a)
{
    int64_t n = s->h * s->w, c = s->c;
    lw_tensor image, normed, x, t, y, qkv, q, k, v, f;
    lw_kernels *ops = s->k;

    hold(s, n * c, padded(n * c) + padded(3 * n * c));
    if (ops == NULL) /* columns of a tensor without memory have no address */
        return;
    image = current(s);
    x = lw_tensor_2d(s->memory, LW_F32, n, c);
    t = lw_tensor_2d(high_end(s, n * c), LW_F32, n, c);
    normed = image_at(lw_f32(&t), s->h, s->w, c, 0);
    qkv = lw_tensor_2d(high_end(s, padded(n * c) + padded(3 * n * c)), LW_F32, n, 3 * c);
    y = lw_tensor_2d(qkv.data, LW_F32, n, c);
    q = lw_tensor_cols(&qkv, 0, c);
    k = lw_tensor_cols(&qkv, c, c);
    v = lw_tensor_cols(&qkv, 2 * c, c);

    f = factors_of(s, &image, &a->norm);
    ops->channel_affine(ops, &normed, &image, &f);
    ops->linear(ops, &q, &t, &a->q);
    ops->linear(ops, &k, &t, &a->k);
    ops->linear(ops, &v, &t, &a->v);
    ops->attention(ops, &t, &q, &k, &v, 1, 1, 1.0f / sqrtf((float)c), false);
    ops->linear(ops, &y, &t, &a->out);
    ops->add(ops, &x, &y);
}

/**
 * Each position becomes 2x2, then a 3x3 convolution. The input lies at the high end and may reach
 * into what is written: strips are written from the top, and what they overwrite was read.
 */
static void upsample(walk *s, const lw_vae_conv *c)
{
    int64_t in_row = s->w * s->c, out_row = 2 * s->w * c->c_out, n = s->h * in_row;
    int64_t H = 2 * s->h, rows = strip_rows(s, H, 2 * s->w);
    lw_tensor x, t, y;

    hold(s, s->h * s->stride, n); /* while it is moved there */
    for (int64_t i = 0; i < H; i += rows) {
        int64_t end = i + rows < H ? i + rows : H, first = i > 0 ? i / 2 - 1 : 0;

        hold(s, end * out_row, padded(n) - first * in_row);
    }
    if (s->k != NULL) {
        x = current(s);
        t = image_at(high_end(s, n), s->h, s->w, s->c, 0);
        copy_rows(&t, &x);
    }
    becomes(s, H, 2 * s->w, c->c_out);
    for (int64_t i = 0; s->k != NULL && i < H; i += rows) {
        int64_t end = i + rows < H ? i + rows : H, first = i > 0 ? i / 2 - 1 : 0;
        int64_t last = end / 2 + 1 < H / 2 ? end / 2 + 1 : H / 2;
        lw_vae_conv strip = *c;

        strip.op.upsample = true;
        strip.op.pad_top = (int)(c->op.pad_top - i + 2 * first);
        x = current(s);
        y = rows_of(&x, i, end);
        x = rows_of(&t, first, last);
        conv(s, &y, &x, &strip, NULL, NULL);
    }
}

/** A 3x3 convolution of stride 2; its padding is right and bottom only. */
static void downsample(walk *s, const lw_vae_conv *c)
{
    int64_t n = s->h / 2 * (s->w / 2) * c->c_out;
    lw_tensor x, t;

    hold(s, s->h * s->stride, n);
    if (s->k != NULL) {
        x = current(s);
        t = image_at(high_end(s, n), s->h / 2, s->w / 2, c->c_out, 0);
        conv(s, &t, &x, c, NULL, NULL);
    }
    becomes(s, s->h / 2, s->w / 2, c->c_out);
    if (s->k != NULL) {
        x = current(s);
        copy_rows(&x, &t);
    }
}

static bool mid_block(walk *s, const lw_vae_half *net)
{
    resnet(s, &net->mid[0]);
    if (block_done(s))
        return false;
    if (net->has_attention) {
        attention(s, &net->attention);
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

    hold(s, n * net->conv_in.c_out, before != NULL ? n * before->c_out : 0);
    becomes(s, s->h, s->w, net->conv_in.c_out);
    if (s->k == NULL)
        return;
    y = current(s);
    if (before != NULL) {
        t = image_at(high_end(s, n * before->c_out), s->h, s->w, before->c_out, 0);
        conv(s, &t, x, before, NULL, NULL);
        x = &t;
    }
    conv(s, &y, x, &net->conv_in, NULL, NULL);
}

/** y = conv_out(silu(norm_out(X))), through the 1x1 convolution last where there is one. */
static void output(walk *s, const lw_vae_half *net, lw_tensor *y, const lw_vae_conv *after)
{
    int64_t n = s->h * s->w * net->conv_out.c_out;
    lw_tensor x, t, f;

    hold(s, s->h * s->stride, after != NULL ? n : 0);
    if (s->k == NULL)
        return;
    x = current(s);
    f = factors_of(s, &x, &net->norm_out);
    if (after != NULL) {
        t = image_at(high_end(s, n), s->h, s->w, net->conv_out.c_out, 0);
        conv(s, &t, &x, &net->conv_out, &f, NULL);
        conv(s, y, &t, after, NULL, NULL);
    } else {
        conv(s, y, &x, &net->conv_out, &f, NULL);
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
    walk s = { .groups = v->config.groups, .strip_positions = v->strip_positions, .h = h, .w = w };
    lw_tensor nothing = { 0 };

    fn(&s, net, &nothing, &nothing);
    return s;
}

/* The factors of a norm lie behind the rest. */
static lw_vae_plan plan_of(const walk *s)
{
    int64_t items = s->need + padded(3 * s->widest);

    return (lw_vae_plan){ .bytes = (size_t)items * sizeof(float), .n_blocks = s->blocks_done };
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
               .strip_positions = v->strip_positions,
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
