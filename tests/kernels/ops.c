/*
 * One case per operation of the table, with the bound that each back end is held to against the
 * reference (f64 sums, one rounding).
 */
#include <math.h>
#include <stdio.h>

#include "tests/kernels/harness.h"

#define D1(...)       ((const int64_t[]){ __VA_ARGS__ })
#define SHAPE(r, ...) snprintf((r)->shape, sizeof((r)->shape), __VA_ARGS__)

static lw_dtype any_weight_dtype(kt_run *r)
{
    static const lw_dtype types[] = { LW_F32, LW_BF16, LW_F16 };

    return types[kt_int(&r->rng, 0, 2)];
}

/* Mostly small and odd; now and then past a block of the implementation. */
static int64_t odd_size(kt_run *r, int64_t usual, int64_t rare)
{
    return kt_int(&r->rng, 1, kt_int(&r->rng, 0, 7) ? usual : rare);
}

static bool coin(kt_run *r)
{
    return kt_u64(&r->rng) & 1;
}

static lw_tensor run_linear(kt_run *r)
{
    int64_t n = odd_size(r, 40, 1100), n_in, n_out;
    lw_dtype dtype = any_weight_dtype(r);
    bool bias = coin(r);
    lw_linear lin = { 0 };
    lw_tensor x, y;

    n_in = odd_size(r, 130, n > 100 ? 200 : 5300);
    n_out = odd_size(r, 250, n_in > 200 || n > 100 ? 400 : 4900);
    SHAPE(r, "n %d in %d out %d %s%s", (int)n, (int)n_in, (int)n_out, lw_dtype_name(dtype),
          bias ? " bias" : "");
    x = kt_input(r, LW_F32, 2, D1(n, n_in), 0, 1, true);
    lin.w = kt_input(r, dtype, 2, D1(n_out, n_in), 0, 0.1f, true);
    if (bias)
        lin.b = kt_vector(r, n_out, 0, 1);
    y = kt_output(r, LW_F32, 2, D1(n, n_out), true);
    if (r->k->linear_prepare(r->k, &lin, &r->arena, NULL) == LW_OK)
        r->k->linear(r->k, &y, &x, &lin);
    return y;
}

/* Up to three layers of one input, each into columns of the result; packed ones where `int8`. */
static lw_tensor linears(kt_run *r, bool int8)
{
    int64_t n = odd_size(r, 40, 300), n_in = odd_size(r, 150, 700), out[3], total = 0;
    int n_lin = (int)kt_int(&r->rng, 1, 3);
    lw_precision before = r->k->precision;
    lw_linear lin[3] = { 0 };
    lw_tensor x, y, views[3];
    const lw_linear *layers[3];
    lw_tensor *outs[3];

    for (int i = 0; i < n_lin; i++)
        total += out[i] = odd_size(r, 120, 400);
    SHAPE(r, "n %d in %d layers %d", (int)n, (int)n_in, n_lin);
    x = kt_input(r, LW_F32, 2, D1(n, n_in), 0, 1, true);
    y = kt_output(r, LW_F32, 2, D1(n, total), true);
    r->k->precision = LW_PRECISION_INT8;
    for (int64_t i = 0, at = 0; i < n_lin; at += out[i++]) {
        lin[i].w = kt_input(r, any_weight_dtype(r), 2, D1(out[i], n_in), 0, 0.1f, true);
        if (coin(r))
            lin[i].b = kt_vector(r, out[i], 0, 1);
        lin[i].bulk = int8;
        if (r->k->linear_prepare(r->k, &lin[i], &r->arena, NULL) != LW_OK)
            return y;
        views[i] = lw_tensor_cols(&y, at, out[i]);
        outs[i] = &views[i];
        layers[i] = &lin[i];
    }
    r->k->precision = before;
    r->k->linears(r->k, n_lin, outs, &x, layers);
    return y;
}

static lw_tensor run_linears(kt_run *r)
{
    return linears(r, false);
}

static lw_tensor run_linears_int8(kt_run *r)
{
    return linears(r, true);
}

static lw_tensor run_rmsnorm(kt_run *r)
{
    int64_t n = odd_size(r, 20, 60), d = odd_size(r, 300, 4000);
    bool scaled = coin(r), in_place = coin(r);
    lw_tensor x = kt_inout(r, 2, D1(n, d), 0.3f, 2, true), w = kt_vector(r, d, 1, 0.3f);
    lw_tensor scale = kt_vector(r, d, 0, 0.5f), y = x;

    SHAPE(r, "n %d d %d%s%s", (int)n, (int)d, scaled ? " scale" : "", in_place ? " in place" : "");
    if (!in_place)
        y = kt_output(r, LW_F32, 2, D1(n, d), true);
    r->k->rmsnorm(r->k, &y, &x, &w, 1e-5f, scaled ? &scale : NULL);
    return y;
}

static lw_tensor run_layernorm(kt_run *r)
{
    int64_t n = odd_size(r, 20, 60), d = 1 + odd_size(r, 300, 4000);
    bool in_place = coin(r);
    float sd = coin(r) ? 1.5f : 0.01f; /* a mean far off the deviation too */
    lw_tensor x = kt_inout(r, 2, D1(n, d), 0.7f, sd, true), scale = kt_vector(r, d, 0, 0.5f);
    lw_tensor y = x;

    SHAPE(r, "n %d d %d%s", (int)n, (int)d, in_place ? " in place" : "");
    if (!in_place)
        y = kt_output(r, LW_F32, 2, D1(n, d), true);
    r->k->layernorm(r->k, &y, &x, 1e-6f, &scale);
    return y;
}

static lw_tensor run_add_rmsnorm(kt_run *r)
{
    int64_t n = odd_size(r, 20, 60), d = odd_size(r, 300, 4000);
    bool gated = coin(r);
    lw_tensor x = kt_inout(r, 2, D1(n, d), 0, 1, true);
    lw_tensor y = kt_input(r, LW_F32, 2, D1(n, d), 0, 3, true), w = kt_vector(r, d, 1, 0.3f);
    lw_tensor gate = kt_vector(r, d, 0, 1);

    SHAPE(r, "n %d d %d%s", (int)n, (int)d, gated ? " gate" : "");
    r->k->add_rmsnorm(r->k, &x, &y, &w, 1e-5f, gated ? &gate : NULL);
    return x;
}

static lw_tensor run_add(kt_run *r)
{
    int64_t n = odd_size(r, 20, 60), d = odd_size(r, 300, 20000);
    lw_tensor x = kt_inout(r, 2, D1(n, d), 0, 1, true);
    lw_tensor y = kt_input(r, LW_F32, 2, D1(n, d), 0, 1, true);

    SHAPE(r, "n %d d %d", (int)n, (int)d);
    r->k->add(r->k, &x, &y);
    return x;
}

static lw_tensor run_qk_norm_rope(kt_run *r)
{
    int64_t n = odd_size(r, 20, 200), D = 2 * odd_size(r, 40, 64);
    int heads = (int)kt_int(&r->rng, 1, 9);
    lw_rope_pairing pairing = coin(r) ? LW_ROPE_INTERLEAVED : LW_ROPE_HALF_SPLIT;
    lw_tensor q = kt_inout(r, 2, D1(n, heads * D), 0, 2, true), w = kt_vector(r, D, 1, 0.3f);
    lw_tensor c = kt_input(r, LW_F32, 2, D1(n, D / 2), 0, 0.5f, true);
    lw_tensor s = kt_input(r, LW_F32, 2, D1(n, D / 2), 0, 0.5f, true);

    SHAPE(r, "n %d heads %d D %d %s", (int)n, heads, (int)D,
          pairing == LW_ROPE_INTERLEAVED ? "interleaved" : "half split");
    r->k->qk_norm_rope(r->k, &q, heads, &w, 1e-5f, &c, &s, pairing);
    return q;
}

static lw_tensor run_attention(kt_run *r)
{
    int64_t n = odd_size(r, 50, 530), D = odd_size(r, 64, 130);
    bool causal = coin(r);
    int64_t m = causal ? n : odd_size(r, 60, 700);
    int kv = (int)kt_int(&r->rng, 1, 3), heads = kv * (int)kt_int(&r->rng, 1, 4);
    lw_tensor q = kt_input(r, LW_F32, 2, D1(n, heads * D), 0, 1, true);
    lw_tensor key = kt_input(r, LW_F32, 2, D1(m, kv * D), 0, 1, true);
    lw_tensor v = kt_input(r, LW_F32, 2, D1(m, kv * D), 0, 1, true);
    lw_tensor o = kt_output(r, LW_F32, 2, D1(n, heads * D), true);

    SHAPE(r, "n %d m %d heads %d kv %d D %d%s", (int)n, (int)m, heads, kv, (int)D,
          causal ? " causal" : "");
    r->k->attention(r->k, &o, &q, &key, &v, heads, kv, 2.0f / sqrtf((float)D), causal);
    return o;
}

static lw_tensor run_swiglu(kt_run *r)
{
    int64_t n = odd_size(r, 20, 60), d = odd_size(r, 300, 20000);
    int64_t place = kt_int(&r->rng, 0, 2);
    lw_tensor gate = kt_inout(r, 2, D1(n, d), 0, 4, true),
              up = kt_inout(r, 2, D1(n, d), 0, 1, true);
    lw_tensor y = place == 0 ? gate : up;

    SHAPE(r, "n %d d %d y %s", (int)n, (int)d,
          place == 0   ? "gate"
          : place == 1 ? "up"
                       : "elsewhere");
    if (place == 2)
        y = kt_output(r, LW_F32, 2, D1(n, d), true);
    r->k->swiglu(r->k, &y, &gate, &up);
    return y;
}

static lw_tensor run_silu(kt_run *r)
{
    int64_t shape[3] = { odd_size(r, 20, 200), odd_size(r, 20, 60), odd_size(r, 20, 60) };
    int rank = (int)kt_int(&r->rng, 1, 3);
    bool in_place = coin(r);
    lw_tensor x = kt_inout(r, rank, shape, 0, 8, true), y = x;

    SHAPE(r, "rank %d, %d x ...%s", rank, (int)shape[0], in_place ? " in place" : "");
    if (!in_place)
        y = kt_output(r, LW_F32, rank, shape, true);
    r->k->silu(r->k, &y, &x);
    return y;
}

static lw_tensor run_embed(kt_run *r)
{
    int64_t n = odd_size(r, 20, 60), d = odd_size(r, 100, 2600), vocab = odd_size(r, 50, 90);
    lw_dtype dtype = any_weight_dtype(r);
    lw_tensor table = kt_input(r, dtype, 2, D1(vocab, d), 0, 1, false);
    lw_tensor y = kt_output(r, LW_F32, 2, D1(n, d), true);
    int32_t ids[90];

    SHAPE(r, "n %d d %d vocab %d %s", (int)n, (int)d, (int)vocab, lw_dtype_name(dtype));
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)kt_int(&r->rng, 0, vocab - 1);
    r->k->embed(r->k, &y, &table, ids);
    return y;
}

static lw_tensor run_fill_rows(kt_run *r)
{
    int64_t n = odd_size(r, 20, 60), d = odd_size(r, 100, 2600);
    lw_tensor v = kt_vector(r, d, 0, 1), y = kt_output(r, LW_F32, 2, D1(n, d), true);

    SHAPE(r, "n %d d %d", (int)n, (int)d);
    r->k->fill_rows(r->k, &y, &v);
    return y;
}

static lw_tensor run_patchify(kt_run *r)
{
    int64_t p = kt_int(&r->rng, 1, 3), C = odd_size(r, 16, 20), th = odd_size(r, 9, 20);
    int64_t tw = odd_size(r, 9, 20);
    lw_tensor z = kt_input(r, LW_F32, 3, D1(C, th * p, tw * p), 0, 1, false);
    lw_tensor tokens = kt_output(r, LW_F32, 2, D1(th * tw, p * p * C), true);

    SHAPE(r, "patch %d C %d tokens %d x %d", (int)p, (int)C, (int)th, (int)tw);
    r->k->patchify(r->k, &tokens, &z, (int)p);
    return tokens;
}

static lw_tensor run_unpatchify(kt_run *r)
{
    int64_t p = kt_int(&r->rng, 1, 3), C = odd_size(r, 16, 20), th = odd_size(r, 9, 20);
    int64_t tw = odd_size(r, 9, 20);
    lw_tensor tokens = kt_input(r, LW_F32, 2, D1(th * tw, p * p * C), 0, 1, true);
    lw_tensor z = kt_output(r, LW_F32, 3, D1(C, th * p, tw * p), false);

    SHAPE(r, "patch %d C %d tokens %d x %d", (int)p, (int)C, (int)th, (int)tw);
    r->k->unpatchify(r->k, &z, &tokens, (int)p);
    return z;
}

static lw_tensor run_conv2d(kt_run *r)
{
    static const int64_t channels[] = { 1, 3, 4, 16, 20, 32, 48, 64, 128 };
    int64_t c_in = channels[kt_int(&r->rng, 0, 8)], c_out = channels[kt_int(&r->rng, 0, 8)];
    int64_t k = kt_int(&r->rng, 0, 3) ? 3 : 1, h = odd_size(r, 12, 40), w = odd_size(r, 12, 70);
    int64_t residual_at = kt_int(&r->rng, 0, 2), times, ho, wo;
    bool normed = kt_int(&r->rng, 0, 2) == 0, apart = kt_int(&r->rng, 0, 2) == 0;
    lw_dtype dtype = any_weight_dtype(r);
    lw_conv2d c = { .k = (int)k,
                    .stride = kt_int(&r->rng, 0, 2) ? 1 : 2,
                    .upsample = kt_int(&r->rng, 0, 2) == 0 };
    lw_tensor x, y, residual;

    /* As the model does: symmetric, or below and to the right only, or none; or a strip of it. */
    if (k == 3 && kt_int(&r->rng, 0, 3))
        c.pad_bottom = c.pad_right = 1;
    if (c.pad_bottom && kt_int(&r->rng, 0, 3))
        c.pad_top = c.pad_left = 1;
    if (k == 3 && kt_int(&r->rng, 0, 3) == 0)
        c.pad_top = -1;
    h += k + 1;
    w += k;
    times = c.upsample ? 2 : 1;
    ho = (times * h + c.pad_top + c.pad_bottom - k) / c.stride + 1;
    wo = (times * w + c.pad_left + c.pad_right - k) / c.stride + 1;
    SHAPE(r, "%d x %d%s%s, %d -> %d, k %d stride %d pad %d %d %s residual %d%s", (int)h, (int)w,
          c.upsample ? " doubled" : "", normed ? " normed" : "", (int)c_in, (int)c_out, (int)k,
          c.stride, c.pad_top, c.pad_bottom, lw_dtype_name(dtype), (int)residual_at,
          apart ? ", rows apart" : "");
    x = kt_input(r, LW_F32, 3, D1(h, w, c_in), 0, 1, apart);
    c.w = kt_input(r, dtype, 4, D1(c_out, k, k, c_in), 0, 0.1f, false);
    if (coin(r))
        c.b = kt_vector(r, c_out, 0, 1);
    if (normed)
        c.norm = kt_input(r, LW_F32, 2, D1(3, c_in), 0.5f, 1, false);
    residual = kt_inout(r, 3, D1(ho, wo, c_out), 0, 1, apart);
    y = residual_at == 1 ? residual : kt_output(r, LW_F32, 3, D1(ho, wo, c_out), apart);
    if (r->k->conv2d_prepare(r->k, &c, &r->arena, NULL) == LW_OK)
        r->k->conv2d(r->k, &y, &x, &c, residual_at ? &residual : NULL);
    return y;
}

/* The norm itself, since its factors may be split in different ways. */
static lw_tensor run_group_factors(kt_run *r)
{
    int64_t per_group = odd_size(r, 6, 16), h = odd_size(r, 12, 70), w = odd_size(r, 12, 70);
    int groups = (int)kt_int(&r->rng, 1, 32);
    int64_t C = groups * per_group;
    bool in_place = coin(r), far_mean = kt_int(&r->rng, 0, 3) == 0;
    lw_tensor x = kt_inout(r, 3, D1(h, w, C), far_mean ? 30 : 0.4f, 2, false), y = x;
    lw_tensor wt = kt_vector(r, C, 1, 0.3f), b = kt_vector(r, C, 0, 0.5f);
    lw_tensor f = kt_input(r, LW_F32, 2, D1(3, C), 0, 1, false);

    SHAPE(r, "%d x %d x %d groups %d%s%s", (int)h, (int)w, (int)C, groups,
          in_place ? " in place" : "", far_mean ? " mean 30" : "");
    if (!in_place)
        y = kt_output(r, LW_F32, 3, D1(h, w, C), false);
    r->k->group_factors(r->k, &f, &x, &wt, &b, groups, 1e-6f);
    r->k->channel_affine(r->k, &y, &x, &f);
    return y;
}

static lw_tensor run_nchw_to_nhwc(kt_run *r)
{
    int64_t h = odd_size(r, 12, 40), w = odd_size(r, 12, 40), C = odd_size(r, 16, 40);
    lw_tensor x = kt_input(r, LW_F32, 3, D1(C, h, w), 0, 1, false);
    lw_tensor y = kt_output(r, LW_F32, 3, D1(h, w, C), false);

    SHAPE(r, "%d x %d x %d", (int)C, (int)h, (int)w);
    r->k->nchw_to_nhwc(r->k, &y, &x, 0.3611f, 0.1159f);
    return y;
}

static lw_tensor run_nhwc_to_nchw(kt_run *r)
{
    int64_t h = odd_size(r, 12, 40), w = odd_size(r, 12, 40), C = odd_size(r, 16, 40);
    lw_tensor x = kt_input(r, LW_F32, 3, D1(h, w, C), 0, 1, false);
    lw_tensor y = kt_output(r, LW_F32, 3, D1(C, h, w), false);

    SHAPE(r, "%d x %d x %d", (int)h, (int)w, (int)C);
    r->k->nhwc_to_nchw(r->k, &y, &x, 0.1159f, 0.3611f);
    return y;
}

static lw_tensor run_to_rgb8(kt_run *r)
{
    int64_t h = odd_size(r, 12, 40), w = odd_size(r, 12, 40);
    lw_tensor x = kt_input(r, LW_F32, 3, D1(h, w, 3), 0, 0.7f, false);
    lw_tensor rgb = kt_output(r, LW_U8, 3, D1(h, w, 3), false);

    SHAPE(r, "%d x %d", (int)h, (int)w);
    r->k->to_rgb8(r->k, &rgb, &x);
    return rgb;
}

static lw_tensor run_from_rgb8(kt_run *r)
{
    int64_t h = odd_size(r, 12, 40), w = odd_size(r, 12, 40);
    lw_tensor rgb = kt_output(r, LW_U8, 3, D1(h, w, 3), false);
    lw_tensor x = kt_output(r, LW_F32, 3, D1(h, w, 3), false);

    SHAPE(r, "%d x %d", (int)h, (int)w);
    for (int64_t i = 0; i < h * w * 3; i++)
        ((uint8_t *)rgb.data)[i] = (uint8_t)kt_u64(&r->rng);
    r->k->from_rgb8(r->k, &x, &rgb);
    return x;
}

#define F32_EPS 6e-8

/*
 * The only place where a tolerance is written down. Where sums are long the error of an item is a
 * random walk, and a bound must hold for the largest of some 10^8 items: it is about twice the
 * largest error seen in 10^7, and a small part of the worst case (n additions: n / 2 times 6e-8).
 */
const kt_op kt_ops[] = {
    { "linear", run_linear, 70 * F32_EPS, "f32 sums of up to 5300 terms in blocks", 24,
      offsetof(lw_kernels, linear) },
    { "linears", run_linears, 70 * F32_EPS, "as linear", 24, offsetof(lw_kernels, linear) },
    /* Other inner loops come with the other vector operations. */
    { "linears in int8", run_linears_int8, 0, "integer sums, f32 in the same order", 24,
      offsetof(lw_kernels, rmsnorm) },
    { "rmsnorm", run_rmsnorm, 10 * F32_EPS, "f32 sum of squares, three roundings", 30,
      offsetof(lw_kernels, rmsnorm) },
    { "layernorm", run_layernorm, 10 * F32_EPS, "f32 sum of squares; mean in two parts", 30,
      offsetof(lw_kernels, layernorm) },
    { "add_rmsnorm", run_add_rmsnorm, 16 * F32_EPS, "as rmsnorm; the sum may cancel", 30,
      offsetof(lw_kernels, add_rmsnorm) },
    { "add", run_add, 0, "one addition", 15, offsetof(lw_kernels, add) },
    { "qk_norm_rope", run_qk_norm_rope, 12 * F32_EPS, "norm, two products and a sum", 30,
      offsetof(lw_kernels, qk_norm_rope) },
    { "attention", run_attention, 250 * F32_EPS,
      "scores up to 10 from f32 sums: their absolute error is a relative one of the weights", 20,
      offsetof(lw_kernels, attention) },
    { "swiglu", run_swiglu, 8 * F32_EPS, "exp to 2 ulp, quotient, product", 20,
      offsetof(lw_kernels, swiglu) },
    { "silu", run_silu, 6 * F32_EPS, "exp to 2 ulp, quotient", 20, offsetof(lw_kernels, silu) },
    { "embed", run_embed, 0, "widening is exact", 15, offsetof(lw_kernels, embed) },
    { "fill_rows", run_fill_rows, 0, "a copy", 10, offsetof(lw_kernels, fill_rows) },
    { "patchify", run_patchify, 0, "a permutation", 15, offsetof(lw_kernels, patchify) },
    { "unpatchify", run_unpatchify, 0, "a permutation", 15, offsetof(lw_kernels, unpatchify) },
    { "conv2d", run_conv2d, 400 * F32_EPS,
      "up to 1152 f32 additions one after the other, 160; Winograd's transforms make it 2.5 times",
      50, offsetof(lw_kernels, conv2d) },
    { "group_factors", run_group_factors, 10 * F32_EPS, "f64 sums; factors rounded to f32", 30,
      offsetof(lw_kernels, group_factors) },
    { "nchw_to_nhwc", run_nchw_to_nhwc, 0, "the reference's own f32 operations", 10,
      offsetof(lw_kernels, nchw_to_nhwc) },
    { "nhwc_to_nchw", run_nhwc_to_nchw, 0, "the reference's own f32 operations", 10,
      offsetof(lw_kernels, nhwc_to_nchw) },
    { "to_rgb8", run_to_rgb8, 0, "the reference's own f32 operations", 10,
      offsetof(lw_kernels, to_rgb8) },
    { "from_rgb8", run_from_rgb8, 0, "the reference's own f32 operations", 10,
      offsetof(lw_kernels, from_rgb8) },
};
const int kt_n_ops = (int)LW_ARRAY_LEN(kt_ops);
