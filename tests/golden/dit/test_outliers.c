/*
 * 8 bits in a denoiser that has outliers. Networks of this kind carry a few channels that are
 * hundreds of times the rest; random weights make none. Here they are planted wherever something
 * enters a layer that runs in 8 bits: in the weights of the two norms, in the values that attention
 * passes on, in the hidden features of the feed-forward network. What a planted channel is read
 * with is scaled back, wholly or by half (in the logarithm). What 8 bits do to a block and to a
 * step is then measured with rotation, with balance (common/cpu/int8.h), with both and with
 * neither.
 *
 * The model is made in memory and runs through dit-svc/s3dit.c. The operation table is wrapped to
 * see what enters the layers and what leaves a block.
 */
#include "tests/golden/dit/fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cpu/int8.h"
#include "common/rng.h"
#include "dit-svc/model.h"
#include "dit-svc/s3dit.h"

/* Widths are multiples of the largest block of the rotation, as those of the real model. */
enum { D = 512, HEADS = 8, F = 1536, CAP = 64, A = 64, T_FREQ = 64, T_HIDDEN = 128, TOKEN = 64 };
enum { SIDE = 10, CAPTION = 20 };
/* Blocks in the order in which they run: the caption's refiner, the picture's, the layer. */
enum { CONTEXT, NOISE, LAYER, N_BLOCKS };
static const char *const block_names[] = { "caption's refiner", "picture's refiner", "layer" };
/* The kinds of layers that run in 8 bits, by their input. */
enum { QKV, OUT, W13, W2, N_KINDS, ALL = (1 << N_KINDS) - 1 };
static const char *const kind_names[] = { "q|k|v", "output", "w1|w3", "w2" };
/* How they are computed. */
typedef enum form { PLAIN, ROTATED, BALANCED, BOTH, N_FORMS, F32 = N_FORMS } form;

/* Planted channels of D, and features of F: how many times the rest. */
typedef struct planted {
    int channel;
    float times;
} planted;
static const planted planted_d[] = { { 13, 100 }, { 300, 500 }, { 301, 200 }, { 500, 300 } };
static const planted planted_f[] = {
    { 5, 300 }, { 6, 150 }, { 777, 500 }, { 1300, 100 }, { 1535, 250 }
};
/* How far back a planted channel is scaled where it is read: its weights times times^-back. With 1
 * the function of the network is what it is without outliers. */
typedef enum plan { NONE, WHOLLY, HALF, N_PLANS } plan;
static const double plan_back[] = { 0, 1, 0.5 };
static const char *const plan_names[] = { "no outliers", "outliers, read with weights as small",
                                          "outliers, read with weights half as small" };

typedef struct model {
    vt_backend back;
    lw_dit dit;
    lw_arena arena; /* of the tensors */
    lw_rng rng;
    lw_dit_block blocks[N_BLOCKS];
    void *packed[N_BLOCKS][7][N_FORMS]; /* by layer */
} model;

/* ---- the model ------------------------------------------------------------------------------- */

static lw_tensor normal(model *m, int64_t rows, int64_t cols, double mean, double sd)
{
    int64_t shape[2] = { rows, cols };
    lw_err err = { 0 };
    lw_tensor t;

    vt_ok(lw_tensor_alloc(&m->arena, LW_F32, 2, shape, &t, &err), &err);
    lw_rng_normal(&m->rng, lw_f32(&t), (size_t)(rows * cols));
    for (int64_t i = 0; i < rows * cols; i++)
        lw_f32(&t)[i] = (float)(mean + sd * (double)lw_f32(&t)[i]);
    return rows == 1 ? lw_tensor_1d(t.data, LW_F32, cols) : t;
}

static lw_linear layer(model *m, int64_t out, int64_t in, bool bias, bool bulk)
{
    lw_linear l = { .w = normal(m, out, in, 0, 1 / sqrt((double)in)), .bulk = bulk };

    if (bias)
        l.b = normal(m, 1, out, 0, 0.1);
    return l;
}

static lw_dit_block block(model *m, bool modulated)
{
    lw_dit_block b = { 0 };

    b.attention_norm1 = normal(m, 1, D, 1, 0.2);
    b.attention_norm2 = normal(m, 1, D, 1, 0.2);
    b.ffn_norm1 = normal(m, 1, D, 1, 0.2);
    b.ffn_norm2 = normal(m, 1, D, 1, 0.2);
    b.norm_q = normal(m, 1, D / HEADS, 1, 0.2);
    b.norm_k = normal(m, 1, D / HEADS, 1, 0.2);
    b.to_q = layer(m, D, D, false, true);
    b.to_k = layer(m, D, D, false, true);
    b.to_v = layer(m, D, D, false, true);
    b.to_out = layer(m, D, D, false, true);
    b.w1 = layer(m, F, D, false, true);
    b.w3 = layer(m, F, D, false, true);
    b.w2 = layer(m, D, F, false, true);
    if (modulated)
        b.adaln = layer(m, 4 * D, A, true, false);
    return b;
}

static void scale_column(const lw_linear *l, int64_t i, float by)
{
    for (int64_t o = 0; o < l->w.shape[0]; o++)
        lw_f32(&l->w)[o * l->w.stride0 + i] *= by;
}

static void scale_row(const lw_linear *l, int64_t o, float by)
{
    for (int64_t i = 0; i < l->w.shape[1]; i++)
        lw_f32(&l->w)[o * l->w.stride0 + i] *= by;
}

/** Make channels large where they are made, and small again where they are read. */
static void plant(const lw_dit_block *b, double back)
{
    for (size_t i = 0; i < LW_ARRAY_LEN(planted_d); i++) {
        const lw_linear *const readers[] = { &b->to_q, &b->to_k, &b->to_v,
                                             &b->w1,   &b->w3,   &b->to_out };
        int c = planted_d[i].channel;
        float times = planted_d[i].times;

        lw_f32(&b->attention_norm1)[c] *= times;
        lw_f32(&b->ffn_norm1)[c] *= times;
        for (size_t l = 0; l < LW_ARRAY_LEN(readers); l++)
            scale_column(readers[l], c, (float)pow((double)times, -back));
        scale_row(&b->to_v, c, times); /* attention passes it on to to_out */
    }
    for (size_t i = 0; i < LW_ARRAY_LEN(planted_f); i++) {
        scale_row(&b->w3, planted_f[i].channel, planted_f[i].times);
        scale_column(&b->w2, planted_f[i].channel, (float)pow((double)planted_f[i].times, -back));
    }
}

/** The seven layers of a block with their kinds. */
static int layers_of(lw_dit_block *b, lw_linear *ret[7], int ret_kind[7])
{
    lw_linear *const all[] = { &b->to_q, &b->to_k, &b->to_v, &b->to_out, &b->w1, &b->w3, &b->w2 };
    static const int kinds[] = { QKV, QKV, QKV, OUT, W13, W13, W2 };

    memcpy(ret, all, sizeof(all));
    memcpy(ret_kind, kinds, sizeof(kinds));
    return 7;
}

/** The same weights for any number of threads, but for what is planted. */
static model *model_new(int threads, plan p)
{
    model *m = calloc(1, sizeof(*m));
    lw_dit *d;

    assert_non_null(m);
    assert_true(vt_backend_open(&m->back, "", threads));
    lw_arena_init(&m->arena, "model", 0);
    lw_rng_seed(&m->rng, 20);
    d = &m->dit;
    d->k = &m->back.k;
    d->config = (lw_dit_config){ .dim = D,
                                 .n_layers = 1,
                                 .n_refiner = 1,
                                 .heads = HEADS,
                                 .head_dim = D / HEADS,
                                 .cap_dim = CAP,
                                 .channels = TOKEN / 4,
                                 .patch = 2,
                                 .axes_dims = { 16, 24, 24 },
                                 .axes_lens = { 1536, 512, 512 },
                                 .rope_theta = 256,
                                 .t_scale = 1000,
                                 .norm_eps = 1e-5f,
                                 .ffn = F,
                                 .adaln = A,
                                 .t_freq = T_FREQ,
                                 .t_hidden = T_HIDDEN };
    d->x_pad_token = normal(m, 1, D, 0, 1);
    d->cap_pad_token = normal(m, 1, D, 0, 1);
    d->x_embedder = layer(m, D, TOKEN, true, false);
    d->cap_norm = normal(m, 1, CAP, 1, 0.2);
    d->cap_embedder = layer(m, D, CAP, true, false);
    d->t_mlp0 = layer(m, T_HIDDEN, T_FREQ, true, false);
    d->t_mlp2 = layer(m, A, T_HIDDEN, true, false);
    d->final_adaln = layer(m, D, A, true, false);
    d->final_linear = layer(m, TOKEN, D, true, false);
    for (int i = 0; i < N_BLOCKS; i++) {
        lw_linear *layers[7];
        int kinds[7], n = layers_of(&m->blocks[i], layers, kinds);

        m->blocks[i] = block(m, i != CONTEXT);
        if (p != NONE)
            plant(&m->blocks[i], plan_back[p]);
        for (int l = 0; l < n; l++)
            for (form f = PLAIN; f < N_FORMS; f++) {
                const lw_tensor *w = &layers[l]->w;
                size_t bytes = lw_int8_packed_bytes(w->shape[0], w->shape[1]);
                lw_int8_form how = lw_int8_usual(w->shape[1]);
                void *packed = lw_arena_alloc(&m->arena, bytes, NULL);

                assert_non_null(packed);
                assert_int_equal(lw_int8_block(w->shape[1]), 256);
                how.block = f & ROTATED ? how.block : 0;
                how.balanced = f & BALANCED;
                assert_int_equal(lw_int8_pack(packed, w, how, m->back.pool, NULL), LW_OK);
                m->packed[i][l][f] = packed;
            }
    }
    d->context_refiner = &m->blocks[CONTEXT];
    d->noise_refiner = &m->blocks[NOISE];
    d->layers = &m->blocks[LAYER];
    return m;
}

static void model_free(model *m)
{
    vt_backend_close(&m->back);
    lw_arena_deinit(&m->arena);
    free(m);
}

/** Layers of these kinds of block i, or of every block when i < 0, are computed so; others in f32.
 */
static void set_form(model *m, int i, unsigned kinds, form f)
{
    for (int b = 0; b < N_BLOCKS; b++) {
        lw_linear *layers[7];
        int kind[7], n = layers_of(&m->blocks[b], layers, kind);

        for (int l = 0; l < n; l++) {
            bool now = f != F32 && (i < 0 || i == b) && (kinds >> kind[l] & 1);

            layers[l]->packed = now ? m->packed[b][l][f] : NULL;
        }
    }
}

/* ---- what the operations see ----------------------------------------------------------------- */

/* The table's own, and what was seen; one model runs at a time. */
static struct {
    lw_kernels table;
    int n_halves, n_inputs;
    lw_tensor x[2 * N_BLOCKS][2]; /* the stream before and after each half of a block */
    double peak[N_KINDS];         /* of the inputs: smallest ratio of a block */
    lw_arena arena;
} seen;

static lw_tensor copy_of(const lw_tensor *x)
{
    lw_err err = { 0 };
    lw_tensor t;

    vt_ok(lw_tensor_alloc(&seen.arena, LW_F32, 2, x->shape, &t, &err), &err);
    memcpy(t.data, x->data, lw_tensor_bytes(x));
    return t;
}

static void see_half(lw_kernels *k, lw_tensor *x, const lw_tensor *y, const lw_tensor *w, float eps,
                     const lw_tensor *gate)
{
    int i = seen.n_halves++;

    assert_true(i < 2 * N_BLOCKS);
    seen.x[i][0] = copy_of(x);
    seen.table.add_rmsnorm(k, x, y, w, eps, gate);
    seen.x[i][1] = copy_of(x);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/** The largest channel (rms over the rows) as a multiple of the median one. */
static double peak_of(const lw_tensor *x)
{
    static double rms[F];
    int64_t n = x->shape[1];

    for (int64_t i = 0; i < n; i++) {
        rms[i] = 0;
        for (int64_t r = 0; r < x->shape[0]; r++) {
            double v = (double)lw_f32(x)[r * x->stride0 + i];

            rms[i] += v * v;
        }
    }
    qsort(rms, (size_t)n, sizeof(*rms), by_size);
    return sqrt(rms[n - 1] / rms[n / 2]);
}

static void see_input(const lw_tensor *x, const lw_linear *lin)
{
    int kind = seen.n_inputs % N_KINDS;
    double peak;

    if (!lin->bulk)
        return;
    seen.n_inputs++;
    peak = peak_of(x);
    if (seen.n_inputs <= N_KINDS || peak < seen.peak[kind])
        seen.peak[kind] = peak;
}

static void see_linear(lw_kernels *k, lw_tensor *y, const lw_tensor *x, const lw_linear *lin)
{
    see_input(x, lin);
    seen.table.linear(k, y, x, lin);
}

static void see_linears(lw_kernels *k, int n, lw_tensor *const y[], const lw_tensor *x,
                        const lw_linear *const lin[])
{
    /* Back ends may compute them one by one through the table. */
    see_input(x, lin[0]);
    k->linear = seen.table.linear;
    seen.table.linears(k, n, y, x, lin);
    k->linear = see_linear;
}

/** One step at t = 0.4; all that is returned and seen lasts until forget(). */
static lw_tensor step(model *m)
{
    lw_dit_shape s = { .h = SIDE, .w = SIDE, .n_caption = { CAPTION, 0 }, .n_steps = 1 };
    lw_tensor captions[LW_DIT_N_CAPTIONS] = { { 0 } }, z, out;
    lw_kernels *k = &m->back.k;
    lw_dit_run *run = NULL;
    lw_err err = { 0 };
    float t = 0.4f;

    if (seen.arena.reserved_bytes == 0)
        lw_arena_init(&seen.arena, "seen", 0);
    seen.table = *k;
    seen.n_halves = seen.n_inputs = 0;
    k->add_rmsnorm = see_half;
    k->linear = see_linear;
    k->linears = see_linears;
    captions[0] = vt_values(&seen.arena, 2, (int64_t[]){ CAPTION, CAP }, 71, 4);
    z = vt_values(&seen.arena, 3, (int64_t[]){ TOKEN / 4, SIDE, SIDE }, 70, 3);
    out = vt_values(&seen.arena, 3, z.shape, 70, 3);
    vt_ok(lw_dit_begin(&m->dit, &seen.arena, &s, &t, captions, NULL, &run, &err), &err);
    vt_ok(lw_dit_forward(run, 0, LW_DIT_POSITIVE, &z, &out, NULL, &err), &err);
    *k = seen.table;
    assert_int_equal(seen.n_halves, 2 * N_BLOCKS);
    assert_int_equal(seen.n_inputs, N_KINDS * N_BLOCKS);
    return out;
}

static void forget(void)
{
    lw_arena_deinit(&seen.arena);
}

/* ---- errors ---------------------------------------------------------------------------------- */

/** rms of a - b; b NULL: of a. */
static double rms(const lw_tensor *a, const lw_tensor *b)
{
    double sum = 0;

    for (int64_t i = 0; i < lw_tensor_count(a); i++) {
        double d = (double)lw_f32(a)[i] - (b != NULL ? (double)lw_f32(b)[i] : 0);

        sum += d * d;
    }
    return sqrt(sum / (double)lw_tensor_count(a));
}

/* Relative errors against f32: rms of the difference by rms of what is right. */
typedef struct errors {
    double block[N_BLOCKS]; /* of what it adds to the stream; what enters it is exact */
    double kind[N_KINDS];   /* the same of LAYER with one kind of its layers in 8 bits */
    double step;            /* of the output, everything in 8 bits */
} errors;

static void measure(model *m, errors ret[N_FORMS])
{
    lw_tensor exact[N_BLOCKS][2], out, got;

    set_form(m, -1, ALL, F32);
    out = step(m);
    for (int b = 0; b < N_BLOCKS; b++) {
        exact[b][0] = seen.x[2 * b][0];
        exact[b][1] = seen.x[2 * b + 1][1];
    }
    for (form f = PLAIN; f < N_FORMS; f++) {
        for (int b = 0; b < N_BLOCKS; b++)
            for (int kind = b == LAYER ? 0 : N_KINDS; kind <= N_KINDS; kind++) {
                const lw_tensor *x = exact[b];

                set_form(m, b, kind < N_KINDS ? 1u << kind : ALL, f);
                (void)step(m);
                assert_memory_equal(seen.x[2 * b][0].data, x[0].data, lw_tensor_bytes(&x[0]));
                *(kind < N_KINDS ? &ret[f].kind[kind] : &ret[f].block[b]) =
                    rms(&seen.x[2 * b + 1][1], &x[1]) / rms(&x[1], &x[0]);
            }
        set_form(m, -1, ALL, f);
        got = step(m);
        ret[f].step = rms(&got, &out) / rms(&out, NULL);
    }
    forget();
}

static void show(const char *what, const errors e[N_FORMS], size_t offset)
{
    print_message("    %-18s", what);
    for (form f = PLAIN; f < N_FORMS; f++)
        print_message("  %.4f", *(const double *)((const char *)&e[f] + offset));
    print_message("\n");
}

static void show_all(plan p, const errors e[N_FORMS])
{
    char what[64];

    print_message("  %s; largest channel by the median one:", plan_names[p]);
    for (int kind = 0; kind < N_KINDS; kind++)
        print_message(" %s %.0f", kind_names[kind], seen.peak[kind]);
    print_message("\n                       neither  rotated balanced both\n");
    for (size_t b = 0; b < N_BLOCKS; b++)
        show(block_names[b], e, offsetof(errors, block) + b * sizeof(double));
    for (size_t kind = 0; kind < N_KINDS; kind++) {
        snprintf(what, sizeof(what), "of it, %s", kind_names[kind]);
        show(what, e, offsetof(errors, kind) + kind * sizeof(double));
    }
    show("step", e, offsetof(errors, step));
}

static void check_share(const char *what, double got, double of, double share)
{
    if (!(got <= of * share))
        fail_msg("%s: error %.4f is %.3f of %.4f, more than %.3f", what, got, got / of, of, share);
}

static void test_outliers(void **state)
{
    (void)state;
    for (plan p = NONE; p < N_PLANS; p++) {
        model *m = model_new(2, p);
        errors e[N_FORMS];

        measure(m, e);
        show_all(p, e);
        if (p == NONE) {
            /* What is done against outliers costs nothing where there are none. */
            for (int b = 0; b < N_BLOCKS; b++)
                check_share(block_names[b], e[BOTH].block[b], e[PLAIN].block[b], 1.05);
            check_share("step", e[BOTH].step, 0.04, 1);
        }
        for (int kind = 0; kind < N_KINDS && p != NONE; kind++)
            assert_true(seen.peak[kind] >= 100); /* the outliers are where they should be */
        for (int b = 0; b < N_BLOCKS && p != NONE; b++) {
            const char *name = block_names[b];

            check_share(name, e[BOTH].block[b], e[PLAIN].block[b], 0.1);
            /* Neither would do without the other. */
            check_share(name, e[BOTH].block[b], e[BALANCED].block[b], 1.0 / 3);
            check_share(name, e[BOTH].block[b], e[ROTATED].block[b], 1.0 / 3);
        }
        if (p != NONE)
            check_share("step", e[BOTH].step, e[PLAIN].step, 0.1);
        model_free(m);
    }
}

/** Widths of the real kind are cut into many pieces; their bits must not depend on who computes
 * which. */
static void test_threads(void **state)
{
    static const int counts[] = { 1, 2, 3, 7 };
    static const form forms[] = { F32, BOTH };
    lw_tensor first[LW_ARRAY_LEN(forms)][N_BLOCKS + 1];

    (void)state;
    for (size_t t = 0; t < LW_ARRAY_LEN(counts); t++) {
        model *m = model_new(counts[t], WHOLLY);

        for (size_t f = 0; f < LW_ARRAY_LEN(forms); f++) {
            lw_tensor now[N_BLOCKS + 1];

            set_form(m, -1, ALL, forms[f]);
            now[N_BLOCKS] = step(m);
            for (int b = 0; b < N_BLOCKS; b++)
                now[b] = seen.x[2 * b + 1][1];
            for (int i = 0; i <= N_BLOCKS; i++) {
                if (t == 0)
                    first[f][i] = now[i];
                else if (memcmp(first[f][i].data, now[i].data, lw_tensor_bytes(&now[i])) != 0)
                    fail_msg("%s: %s differs with %d threads", forms[f] == F32 ? "f32" : "int8",
                             i < N_BLOCKS ? block_names[i] : "the step", counts[t]);
            }
        }
        model_free(m);
    }
    assert_memory_not_equal(first[0][N_BLOCKS].data, first[1][N_BLOCKS].data,
                            lw_tensor_bytes(&first[0][N_BLOCKS]));
    forget();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outliers),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
