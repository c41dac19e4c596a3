/*
 * The kernels tried at start. Libraries have shipped kernels that are wrong on some processors, and
 * a picture that is a little wrong looks like a poor model. Small random numbers, compared with
 * f64.
 */
#include "common/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/cpu/int8.h"
#include "common/rng.h"

/* Odd sizes: whole registers, a tail, more than one panel, more rows than a tile. */
#define ROWS 13
#define IN   200
#define OUT  99
#define HEAD 32
#define SIDE 6

typedef struct trial {
    lw_kernels *k;
    lw_arena a;
    uint64_t n_made; /* a seed for each tensor */
    lw_err *err;
    lw_status status; /* sticky */
} trial;

static lw_tensor made(trial *t, lw_dtype dtype, int64_t rows, int64_t cols, double scale)
{
    lw_tensor wide = { 0 }, ret = { 0 };
    int64_t shape[2] = { rows, cols };
    lw_rng r;

    if (t->status == LW_OK)
        t->status = lw_tensor_alloc(&t->a, LW_F32, 2, shape, &wide, t->err);
    if (t->status == LW_OK)
        t->status = lw_tensor_alloc(&t->a, dtype, 2, shape, &ret, t->err);
    if (t->status != LW_OK)
        return ret;
    lw_rng_seed(&r, ++t->n_made);
    for (int64_t i = 0; i < rows * cols; i++)
        lw_f32(&wide)[i] = (float)(scale * ((double)lw_rng_u32(&r) / 0x1p31 - 1.0));
    lw_dtype_convert(ret.data, dtype, wide.data, LW_F32, (size_t)(rows * cols));
    return ret;
}

static double at(const lw_tensor *t, int64_t i, int64_t j)
{
    float v;

    lw_dtype_convert(&v, LW_F32,
                     (const char *)t->data + (size_t)(i * t->stride0 + j) * lw_dtype_size(t->dtype),
                     t->dtype, 1);
    return (double)v;
}

/* Collects |found - right| against the largest |right|. */
typedef struct error {
    double largest, scale;
} error;

static void compare(error *e, float found, double right)
{
    double d = fabs((double)found - right);

    if (!isnan(e->largest) && !(d <= e->largest)) /* once NaN, always */
        e->largest = d;
    e->scale = fmax(e->scale, fabs(right));
}

static void judge(trial *t, const char *what, const error *e, double bound)
{
    if (t->status != LW_OK)
        return;
    t->status = lw_kernels_check(t->k, t->err);
    if (t->status == LW_OK && !(e->largest <= bound * e->scale))
        t->status =
            lw_fail(t->err, LW_E_INTERNAL,
                    "back end %s: %s is wrong on this machine (error %.3g, expected at most "
                    "%.3g); LATENTWIRE_ISA=avx2 or LATENTWIRE_BACKEND=ref may work, and "
                    "please report it with the model of the processor",
                    t->k->name, what, e->largest / e->scale, bound);
}

static void try_linear(trial *t, const char *what, lw_dtype dtype, int64_t rows, bool int8,
                       double bound)
{
    lw_tensor x = made(t, LW_F32, rows, IN, 1), y = made(t, LW_F32, rows, OUT, 1);
    lw_precision before = t->k->precision;
    lw_linear lin = { .w = made(t, dtype, OUT, IN, 1), .bulk = int8 };
    error e = { 0 };

    if (t->status != LW_OK)
        return;
    t->k->precision = int8 ? LW_PRECISION_INT8 : LW_PRECISION_F32;
    t->status = t->k->linear_prepare(t->k, &lin, &t->a, t->err);
    t->k->precision = before;
    if (t->status != LW_OK)
        return;
    t->k->linear(t->k, &y, &x, &lin);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t o = 0; o < OUT; o++) {
            double sum = 0;

            for (int64_t j = 0; j < IN; j++)
                sum += at(&x, i, j) * at(&lin.w, o, j);
            compare(&e, lw_f32(&y)[i * OUT + o], sum);
        }
    judge(t, what, &e, bound);
}

static void try_attention(trial *t)
{
    lw_tensor q = made(t, LW_F32, ROWS, 2 * HEAD, 2), k = made(t, LW_F32, ROWS, 2 * HEAD, 2);
    lw_tensor v = made(t, LW_F32, ROWS, 2 * HEAD, 1), o = made(t, LW_F32, ROWS, 2 * HEAD, 1);
    double p[ROWS];
    error e = { 0 };

    if (t->status != LW_OK)
        return;
    t->k->attention(t->k, &o, &q, &k, &v, 2, 2, 0.25f, false);
    for (int64_t i = 0; i < ROWS; i++)
        for (int64_t h = 0; h < 2; h++) {
            double sum = 0;

            for (int64_t m = 0; m < ROWS; m++) {
                double s = 0;

                for (int64_t d = h * HEAD; d < (h + 1) * HEAD; d++)
                    s += at(&q, i, d) * at(&k, m, d);
                sum += p[m] = exp(0.25 * s);
            }
            for (int64_t d = h * HEAD; d < (h + 1) * HEAD; d++) {
                double right = 0;

                for (int64_t m = 0; m < ROWS; m++)
                    right += p[m] / sum * at(&v, m, d);
                compare(&e, lw_f32(&o)[i * 2 * HEAD + d], right);
            }
        }
    judge(t, "attention", &e, 1e-5);
}

static void try_rmsnorm(trial *t)
{
    lw_tensor x = made(t, LW_F32, ROWS, IN, 3), y = made(t, LW_F32, ROWS, IN, 1);
    lw_tensor w = made(t, LW_F32, 1, IN, 1);
    error e = { 0 };

    if (t->status != LW_OK)
        return;
    w = lw_tensor_1d(w.data, LW_F32, IN);
    t->k->rmsnorm(t->k, &y, &x, &w, 1e-5f, NULL);
    for (int64_t i = 0; i < ROWS; i++) {
        double sum = 0;

        for (int64_t j = 0; j < IN; j++)
            sum += at(&x, i, j) * at(&x, i, j);
        for (int64_t j = 0; j < IN; j++)
            compare(&e, lw_f32(&y)[i * IN + j],
                    at(&x, i, j) / sqrt(sum / IN + 1e-5) * (double)lw_f32(&w)[j]);
    }
    judge(t, "rmsnorm", &e, 1e-5);
}

static void try_swiglu(trial *t)
{
    lw_tensor g = made(t, LW_F32, ROWS, IN, 8), u = made(t, LW_F32, ROWS, IN, 1);
    lw_tensor y = made(t, LW_F32, ROWS, IN, 1);
    error e = { 0 };

    if (t->status != LW_OK)
        return;
    t->k->swiglu(t->k, &y, &g, &u);
    for (int64_t i = 0; i < ROWS; i++)
        for (int64_t j = 0; j < IN; j++)
            compare(&e, lw_f32(&y)[i * IN + j],
                    at(&g, i, j) / (1 + exp(-at(&g, i, j))) * at(&u, i, j));
    judge(t, "silu", &e, 1e-5);
}

/* 3x3 and padded, 16 channels to O. */
static void try_conv2d(trial *t, const char *name, int64_t O)
{
    enum { C = 16 };
    lw_tensor x = made(t, LW_F32, SIDE * SIDE, C, 1), y = made(t, LW_F32, SIDE * SIDE, O, 1);
    lw_tensor w = made(t, LW_F32, O, 9 * C, 1), b = made(t, LW_F32, 1, O, 1);
    const int64_t xs[] = { SIDE, SIDE, C }, ys[] = { SIDE, SIDE, O }, ws[] = { O, 3, 3, C };
    lw_conv2d conv = {
        .k = 3, .stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1
    };
    error e = { 0 };

    if (t->status != LW_OK)
        return;
    x = lw_tensor_nd(x.data, LW_F32, 3, xs);
    y = lw_tensor_nd(y.data, LW_F32, 3, ys);
    conv.w = lw_tensor_nd(w.data, LW_F32, 4, ws);
    conv.b = lw_tensor_1d(b.data, LW_F32, O);
    t->status = t->k->conv2d_prepare(t->k, &conv, &t->a, t->err);
    if (t->status != LW_OK)
        return;
    t->k->conv2d(t->k, &y, &x, &conv, NULL);
    for (int64_t i = 0; i < SIDE * SIDE * O; i++) {
        int64_t o = i % O, col = i / O % SIDE, row = i / O / SIDE;
        double sum = (double)lw_f32(&b)[o];

        for (int64_t j = 0; j < 9 * C; j++) {
            int64_t r = row + j / C / 3 - 1, c = col + j / C % 3 - 1;

            if (r >= 0 && r < SIDE && c >= 0 && c < SIDE)
                sum += (double)lw_f32(&x)[(r * SIDE + c) * C + j % C] *
                       (double)lw_f32(&w)[o * 9 * C + j];
        }
        compare(&e, lw_f32(&y)[i], sum);
    }
    judge(t, name, &e, 1e-5);
}

lw_status lw_kernels_try(lw_kernels *k, lw_err *err)
{
    trial t = { .k = k, .err = err };

    lw_arena_init(&t.a, "kernels on trial", 0);
    try_linear(&t, "a product in f32", LW_F32, ROWS, false, 1e-5);
    try_linear(&t, "a product with bf16 weights", LW_BF16, ROWS, false, 1e-5);
    try_linear(&t, "a product of one row", LW_BF16, 1, false, 1e-5);
    try_linear(&t, "a product in int8", LW_BF16, ROWS, true, 0.02);
    try_attention(&t);
    try_rmsnorm(&t);
    try_swiglu(&t);
    try_conv2d(&t, "conv2d", 24);
    try_conv2d(&t, "conv2d by Winograd", 32); /* where there is one */
    lw_arena_deinit(&t.a);
    return t.status;
}
