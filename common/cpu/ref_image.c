/* The reference back end, continued: operations on pictures and latents. See ref.c. */
#include "common/cpu/cpu.h"

#include <math.h>
#include <string.h>

static void ref_patchify(lw_kernels *k, lw_tensor *tokens, const lw_tensor *z, int patch)
{
    int64_t C = z->shape[0], Th = z->shape[1] / patch, Tw = z->shape[2] / patch;

    (void)k;
    for (int64_t t = 0; t < Th * Tw; t++) {
        float *out = lw_row(tokens, t);

        for (int64_t r = 0; r < patch; r++) {
            for (int64_t q = 0; q < patch; q++) {
                int64_t at = (t / Tw * patch + r) * z->shape[2] + t % Tw * patch + q;

                for (int64_t c = 0; c < C; c++)
                    *out++ = lw_row(z, c)[at];
            }
        }
    }
}

static void ref_unpatchify(lw_kernels *k, lw_tensor *z, const lw_tensor *tokens, int patch)
{
    int64_t C = z->shape[0], Th = z->shape[1] / patch, Tw = z->shape[2] / patch;

    (void)k;
    for (int64_t t = 0; t < Th * Tw; t++) {
        const float *in = lw_row(tokens, t);

        for (int64_t r = 0; r < patch; r++) {
            for (int64_t q = 0; q < patch; q++) {
                int64_t at = (t / Tw * patch + r) * z->shape[2] + t % Tw * patch + q;

                for (int64_t c = 0; c < C; c++)
                    lw_row(z, c)[at] = *in++;
            }
        }
    }
}

static lw_status ref_conv2d_prepare(lw_kernels *k, lw_conv2d *conv, lw_arena *a, lw_err *err)
{
    (void)k;
    (void)a;
    (void)err;
    conv->packed = NULL;
    return LW_OK;
}

typedef struct conv_args {
    const lw_kernels *k;
    lw_tensor *y;
    const lw_tensor *x, *residual;
    const lw_conv2d *conv;
} conv_args;

/* Sum over the kernel's window at (row, col) of the input; outside the picture is zero. */
static double window_sum(const conv_args *a, const float *w, int64_t row, int64_t col)
{
    int64_t times = a->conv->upsample ? 2 : 1, C = a->x->shape[2], k = a->conv->k;
    int64_t H = times * a->x->shape[0], W = times * a->x->shape[1];
    double sum = 0;

    for (int64_t r = 0; r < k; r++) {
        for (int64_t q = 0; q < k; q++) {
            int64_t iy = row + r, ix = col + q;
            const float *in, *wk = w + (r * k + q) * C;

            if (iy < 0 || iy >= H || ix < 0 || ix >= W)
                continue;
            in = lw_row(a->x, iy / times) + ix / times * C;
            for (int64_t c = 0; c < C; c++)
                sum += (double)in[c] * (double)wk[c];
        }
    }
    return sum;
}

/* One row of the output. A filter is widened once for the row. */
static void conv_row(void *arg, int thread, int64_t oy)
{
    const conv_args *a = arg;
    const lw_conv2d *cv = a->conv;
    int64_t Wo = a->y->shape[1], Co = a->y->shape[2];
    int64_t n_w = (int64_t)cv->k * cv->k * a->x->shape[2];
    float *w = lw_cpu_scratch(a->k, thread);

    for (int64_t o = 0; o < Co; o++) {
        double bias = lw_tensor_present(&cv->b) ? (double)lw_f32(&cv->b)[o] : 0;

        lw_dtype_convert(w, LW_F32, lw_row_any(&cv->w, o), cv->w.dtype, (size_t)n_w);
        for (int64_t ox = 0; ox < Wo; ox++) {
            double sum =
                window_sum(a, w, oy * cv->stride - cv->pad_top, ox * cv->stride - cv->pad_left);
            double res = a->residual ? (double)lw_row(a->residual, oy)[ox * Co + o] : 0;

            lw_row(a->y, oy)[ox * Co + o] = (float)(sum + bias + res);
        }
    }
}

typedef struct affine_args {
    lw_tensor *y;
    const lw_tensor *x, *f;
    bool silu;
} affine_args;

static void affine_row(void *arg, int thread, int64_t i)
{
    const affine_args *a = arg;
    int64_t C = a->x->shape[2], n = a->x->shape[1] * C;
    const float *x = lw_row(a->x, i), *f = lw_f32(a->f);

    (void)thread;
    for (int64_t j = 0; j < n; j++) {
        int64_t c = j % C;
        double v = ((double)x[j] - (double)f[c]) * (double)f[C + c] + (double)f[2 * C + c];

        lw_row(a->y, i)[j] = (float)(a->silu ? v / (1.0 + exp(-v)) : v);
    }
}

static void ref_channel_affine(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_tensor *f)
{
    affine_args a = { y, x, f, false };

    lw_pool_run(k->pool, x->shape[0], affine_row, &a);
}

void lw_cpu_ref_conv2d(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_conv2d *conv,
                       const lw_tensor *residual)
{
    size_t n_w = (size_t)conv->k * (size_t)conv->k * (size_t)x->shape[2];
    conv_args a = { k, y, x, residual, conv };
    lw_tensor normed = *x;

    if (lw_tensor_present(&conv->norm)) {
        affine_args f = { &normed, x, &conv->norm, true };

        normed = lw_tensor_nd(NULL, LW_F32, 3, x->shape);
        normed.data = lw_cpu_shared(k, (size_t)lw_tensor_count(&normed) * sizeof(float));
        if (!normed.data)
            return;
        lw_pool_run(k->pool, x->shape[0], affine_row, &f);
        a.x = &normed;
    }
    if (lw_cpu_reserve(k, n_w * sizeof(float)))
        lw_pool_run(k->pool, y->shape[0], conv_row, &a);
}

typedef struct group_args {
    lw_tensor *f;
    const lw_tensor *x, *w, *b;
    int groups;
    double eps;
} group_args;

static void group_factors_group(void *arg, int thread, int64_t g)
{
    const group_args *a = arg;
    int64_t H = a->x->shape[0], W = a->x->shape[1], C = a->x->shape[2];
    int64_t n = C / a->groups, begin = g * n;
    double sum = 0, sum_sq = 0, mean, r;

    (void)thread;
    for (int64_t i = 0; i < H * W; i++) {
        const float *x = lw_row(a->x, i / W) + i % W * C + begin;

        for (int64_t c = 0; c < n; c++)
            sum += (double)x[c];
    }
    mean = sum / (double)(H * W * n);
    for (int64_t i = 0; i < H * W; i++) {
        const float *x = lw_row(a->x, i / W) + i % W * C + begin;

        for (int64_t c = 0; c < n; c++)
            sum_sq += ((double)x[c] - mean) * ((double)x[c] - mean);
    }
    r = 1.0 / sqrt(sum_sq / (double)(H * W * n) + a->eps);
    for (int64_t c = begin; c < begin + n; c++)
        lw_cpu_group_factor(lw_f32(a->f), C, c, mean, r * (double)lw_f32(a->w)[c],
                            (double)lw_f32(a->b)[c]);
}

static void ref_group_factors(lw_kernels *k, lw_tensor *f, const lw_tensor *x, const lw_tensor *w,
                              const lw_tensor *b, int groups, float eps)
{
    group_args a = { f, x, w, b, groups, (double)eps };

    lw_pool_run(k->pool, groups, group_factors_group, &a);
}

typedef struct image_args {
    lw_tensor *y;
    const lw_tensor *x;
    float first, second;
} image_args;

/* The scaling below and the pixel conversions are in f32, operation by operation, as the reference
 * pipeline does them: they must agree bit for bit, not just closely. */

static void to_nhwc_row(void *arg, int thread, int64_t i)
{
    const image_args *a = arg;
    int64_t W = a->y->shape[1], C = a->y->shape[2];

    (void)thread;
    for (int64_t j = 0; j < W; j++) {
        for (int64_t c = 0; c < C; c++)
            lw_row(a->y, i)[j * C + c] = lw_row(a->x, c)[i * W + j] / a->first + a->second;
    }
}

static void ref_nchw_to_nhwc(lw_kernels *k, lw_tensor *y, const lw_tensor *x, float div, float add)
{
    image_args a = { y, x, div, add };

    lw_pool_run(k->pool, y->shape[0], to_nhwc_row, &a);
}

static void to_nchw_row(void *arg, int thread, int64_t i)
{
    const image_args *a = arg;
    int64_t W = a->x->shape[1], C = a->x->shape[2];

    (void)thread;
    for (int64_t c = 0; c < C; c++) {
        for (int64_t j = 0; j < W; j++)
            lw_row(a->y, c)[i * W + j] = (lw_row(a->x, i)[j * C + c] - a->first) * a->second;
    }
}

static void ref_nhwc_to_nchw(lw_kernels *k, lw_tensor *y, const lw_tensor *x, float sub, float mul)
{
    image_args a = { y, x, sub, mul };

    lw_pool_run(k->pool, x->shape[0], to_nchw_row, &a);
}

static void to_rgb8_row(void *arg, int thread, int64_t i)
{
    const image_args *a = arg;
    const float *x = lw_row(a->x, i);
    uint8_t *rgb = (uint8_t *)a->y->data + i * a->y->stride0;

    (void)thread;
    for (int64_t j = 0; j < a->x->shape[1] * 3; j++) {
        float v = fminf(fmaxf(x[j] * 0.5f + 0.5f, 0.0f), 1.0f);

        rgb[j] = (uint8_t)rintf(v * 255.0f);
    }
}

static void ref_to_rgb8(lw_kernels *k, lw_tensor *rgb, const lw_tensor *x)
{
    image_args a = { .y = rgb, .x = x };

    lw_pool_run(k->pool, x->shape[0], to_rgb8_row, &a);
}

static void from_rgb8_row(void *arg, int thread, int64_t i)
{
    const image_args *a = arg;
    const uint8_t *rgb = (const uint8_t *)a->x->data + i * a->x->stride0;

    (void)thread;
    for (int64_t j = 0; j < a->x->shape[1] * 3; j++)
        lw_row(a->y, i)[j] = 2.0f * ((float)rgb[j] / 255.0f) - 1.0f;
}

static void ref_from_rgb8(lw_kernels *k, lw_tensor *x, const lw_tensor *rgb)
{
    image_args a = { .y = x, .x = rgb };

    lw_pool_run(k->pool, x->shape[0], from_rgb8_row, &a);
}

void lw_cpu_add_ref_image(lw_kernels *k)
{
    k->patchify = ref_patchify;
    k->unpatchify = ref_unpatchify;
    k->conv2d_prepare = ref_conv2d_prepare;
    k->conv2d = lw_cpu_ref_conv2d;
    k->group_factors = ref_group_factors;
    k->channel_affine = ref_channel_affine;
    k->nchw_to_nhwc = ref_nchw_to_nhwc;
    k->nhwc_to_nchw = ref_nhwc_to_nchw;
    k->to_rgb8 = ref_to_rgb8;
    k->from_rgb8 = ref_from_rgb8;
}
