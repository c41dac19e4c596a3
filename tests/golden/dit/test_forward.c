/*
 * How the forward pass is put together: the order of features in a token, what pads do, that the
 * order of the joined sequence does not matter, and the recorded walks of diffusers' pipeline one
 * evaluation at a time.
 */
#include "tests/golden/dit/fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dit-svc/model.h"
#include "dit-svc/s3dit.h"
#include "dit-svc/sampler.h"

static const char *const backends[] = { "ref", "onednn" };

static lw_tensor zeros(lw_arena *a, int rank, const int64_t *shape)
{
    lw_err err = { 0 };
    lw_tensor t;

    vt_ok(lw_tensor_alloc(a, LW_F32, rank, shape, &t, &err), &err);
    memset(t.data, 0, lw_tensor_bytes(&t));
    return t;
}

/** The model "axes" of tests/data/dit: two layers, one refiner, 4 heads of 24, 16 channels. */
static lw_dit *open_axes(vt_backend *b)
{
    json_t *doc = vt_load_json(vt_data("dit/cases.json"));
    const char *dir = vt_new_dir();
    lw_err err = { 0 };
    lw_dit *m = NULL;

    dt_write_model(json_array_get(json_object_get(doc, "models"), 0), dir, &(dt_model){ 0 });
    vt_ok(lw_dit_create(dir, LW_KEEP_STORED, &b->k, &m, &err), &err);
    json_decref(doc);
    return m;
}

static void test_token_order(void **state)
{
    enum { C = 3, H = 6, W = 4, P = 2 };
    float z[C * H * W], tokens[C * H * W], back[C * H * W];
    lw_tensor tz = lw_tensor_nd(z, LW_F32, 3, (int64_t[]){ C, H, W });
    lw_tensor tb = lw_tensor_nd(back, LW_F32, 3, (int64_t[]){ C, H, W });
    lw_tensor tt = lw_tensor_2d(tokens, LW_F32, (H / P) * (W / P), P * P * C);

    (void)state;
    for (size_t n = 0; n < LW_ARRAY_LEN(backends); n++) {
        vt_backend b;

        if (!vt_backend_open(&b, backends[n], 2))
            continue;
        for (int i = 0; i < C * H * W; i++)
            z[i] = (float)i;
        b.k.patchify(&b.k, &tt, &tz, P);
        for (int h = 0; h < H; h++)
            for (int w = 0; w < W; w++)
                for (int c = 0; c < C; c++) {
                    int token = h / P * (W / P) + w / P, feature = (h % P * P + w % P) * C + c;

                    assert_true(tokens[token * P * P * C + feature] == z[(c * H + h) * W + w]);
                }
        memset(back, 0, sizeof(back));
        b.k.unpatchify(&b.k, &tb, &tt, P);
        assert_memory_equal(back, z, sizeof(z));
        vt_backend_close(&b);
    }
}

/** One evaluation at t = 0.4 of the model with deterministic inputs. */
static lw_tensor evaluate(lw_dit *m, lw_arena *a, int64_t h, int64_t w, int64_t rows)
{
    const lw_dit_config *c = lw_dit_get_config(m);
    lw_dit_shape s = { .h = h, .w = w, .n_caption = { rows, 0 }, .n_steps = 1 };
    lw_tensor captions[LW_DIT_N_CAPTIONS] = { { 0 } };
    lw_tensor z = vt_values(a, 3, (int64_t[]){ c->channels, h, w }, 70, 3);
    lw_tensor out = zeros(a, 3, z.shape);
    lw_dit_run *run = NULL;
    lw_err err = { 0 };
    float t = 0.4f;

    captions[0] = vt_values(a, 2, (int64_t[]){ rows, c->cap_dim }, 71, 4);
    vt_ok(lw_dit_begin(m, a, &s, &t, captions, NULL, &run, &err), &err);
    vt_ok(lw_dit_forward(run, 0, LW_DIT_POSITIVE, &z, &out, NULL, &err), &err);
    return out;
}

/** Whether the output depends on a pad token: 32 tokens have no pads, 33 have 31. */
static void check_pad(lw_dit *m, lw_tensor *token, int64_t h, int64_t w, int64_t rows, bool depends)
{
    int64_t D = lw_tensor_count(token);
    lw_arena a;
    lw_tensor before, after;

    lw_arena_init(&a, "test", 0);
    before = evaluate(m, &a, h, w, rows);
    for (int64_t i = 0; i < D; i++)
        lw_f32(token)[i] = -lw_f32(token)[i];
    after = evaluate(m, &a, h, w, rows);
    for (int64_t i = 0; i < D; i++)
        lw_f32(token)[i] = -lw_f32(token)[i];
    if (depends)
        assert_memory_not_equal(before.data, after.data, lw_tensor_bytes(&before));
    else
        assert_memory_equal(before.data, after.data, lw_tensor_bytes(&before));
    lw_arena_deinit(&a);
}

static void test_pads(void **state)
{
    vt_backend b;

    (void)state;
    assert_true(vt_backend_open(&b, "ref", 2));
    lw_dit *m = open_axes(&b);

    check_pad(m, &m->cap_pad_token, 8, 8, 32, false);
    check_pad(m, &m->cap_pad_token, 8, 8, 33, true);
    check_pad(m, &m->cap_pad_token, 8, 8, 31, true);
    check_pad(m, &m->cap_pad_token, 8, 8, 64, false);
    check_pad(m, &m->x_pad_token, 8, 16, 5, false); /* 4 x 8 tokens */
    check_pad(m, &m->x_pad_token, 6, 22, 5, true);  /* 3 x 11 */
    check_pad(m, &m->x_pad_token, 2, 2, 32, true);
    lw_dit_destroy(&m);
    vt_backend_close(&b);
}

/* ---- the joined sequence, the other way round ------------------------------------------------ */

/** A block over x [L, D] as the paper has it; mod [4D] or NULL; work in `a`. */
static void plain_block(lw_dit *m, lw_arena *a, const lw_dit_block *b, lw_tensor *x,
                        const lw_tensor *cos_t, const lw_tensor *sin_t, const lw_tensor *mod)
{
    const lw_dit_config *c = &m->config;
    lw_kernels *k = m->k;
    int64_t L = x->shape[0], D = c->dim, wide[2] = { L, c->ffn };
    lw_tensor y = zeros(a, 2, x->shape), q = zeros(a, 2, x->shape), key = zeros(a, 2, x->shape);
    lw_tensor v = zeros(a, 2, x->shape), gate = zeros(a, 2, wide), up = zeros(a, 2, wide), part[4];

    for (int i = 0; mod != NULL && i < 4; i++)
        part[i] = lw_tensor_1d(lw_f32(mod) + i * D, LW_F32, D);
    k->rmsnorm(k, &y, x, &b->attention_norm1, c->norm_eps, mod != NULL ? &part[0] : NULL);
    k->linear(k, &q, &y, &b->to_q);
    k->linear(k, &key, &y, &b->to_k);
    k->linear(k, &v, &y, &b->to_v);
    k->qk_norm_rope(k, &q, c->heads, &b->norm_q, c->norm_eps, cos_t, sin_t, LW_ROPE_INTERLEAVED);
    k->qk_norm_rope(k, &key, c->heads, &b->norm_k, c->norm_eps, cos_t, sin_t, LW_ROPE_INTERLEAVED);
    k->attention(k, &y, &q, &key, &v, c->heads, c->heads, 1 / sqrtf((float)c->head_dim), false);
    k->linear(k, &q, &y, &b->to_out);
    k->add_rmsnorm(k, x, &q, &b->attention_norm2, c->norm_eps, mod != NULL ? &part[1] : NULL);
    k->rmsnorm(k, &y, x, &b->ffn_norm1, c->norm_eps, mod != NULL ? &part[2] : NULL);
    k->linear(k, &gate, &y, &b->w1);
    k->linear(k, &up, &y, &b->w3);
    k->swiglu(k, &gate, &gate, &up);
    k->linear(k, &y, &gate, &b->w2);
    k->add_rmsnorm(k, x, &y, &b->ffn_norm2, c->norm_eps, mod != NULL ? &part[3] : NULL);
}

static lw_tensor modulation_of(lw_dit *m, lw_arena *a, const lw_linear *lin, const lw_tensor *emb)
{
    lw_tensor mod = zeros(a, 2, (int64_t[]){ 1, lin->w.shape[0] });

    m->k->linear(m->k, &mod, emb, lin);
    return mod;
}

/** The network with [caption; image] instead of [image; caption], at t. No outside source; only
 * the order of rows differs from s3dit.c. */
static lw_tensor caption_first(lw_dit *m, lw_arena *a, const lw_tensor *z, const lw_tensor *cap,
                               float t)
{
    const lw_dit_config *c = &m->config;
    lw_kernels *k = m->k;
    int64_t D = c->dim, n = cap->shape[0], Tw = z->shape[2] / 2, T = z->shape[1] / 2 * Tw;
    int64_t Lx = (T + 31) / 32 * 32, Lc = (n + 31) / 32 * 32;
    lw_tensor x = zeros(a, 2, (int64_t[]){ Lc + Lx, D });
    lw_tensor cos_t = zeros(a, 2, (int64_t[]){ Lc + Lx, c->head_dim / 2 });
    lw_tensor sin_t = zeros(a, 2, (int64_t[]){ Lc + Lx, c->head_dim / 2 });
    lw_tensor e = zeros(a, 2, (int64_t[]){ 1, c->t_freq }), emb, mod, out = zeros(a, 3, z->shape);
    lw_tensor hidden = zeros(a, 2, (int64_t[]){ 1, c->t_hidden });
    lw_tensor tokens = zeros(a, 2, (int64_t[]){ T, 4 * c->channels });
    lw_tensor normed = zeros(a, 2, cap->shape), read = zeros(a, 2, (int64_t[]){ T, D });
    lw_tensor caption = lw_tensor_rows(&x, 0, Lc), image = lw_tensor_rows(&x, Lc, Lx);
    lw_tensor picture = lw_tensor_rows(&image, 0, T), said = lw_tensor_rows(&caption, 0, n);
    lw_tensor cap_pads = lw_tensor_rows(&caption, n, Lc - n);
    lw_tensor image_pads = lw_tensor_rows(&image, T, Lx - T);
    lw_tensor cap_cos = lw_tensor_rows(&cos_t, 0, Lc), cap_sin = lw_tensor_rows(&sin_t, 0, Lc);
    lw_tensor im_cos = lw_tensor_rows(&cos_t, Lc, Lx), im_sin = lw_tensor_rows(&sin_t, Lc, Lx);

    for (int64_t i = 0; i < Lc + Lx; i++) {
        int64_t pos[3] = { i + 1, 0, 0 }, j = i - Lc;

        if (j >= T)
            pos[0] = 0;
        else if (j >= 0)
            pos[0] = Lc + 1, pos[1] = j / Tw, pos[2] = j % Tw;
        lw_dit_rope_row(c, pos, lw_f32(&cos_t) + i * cos_t.stride0,
                        lw_f32(&sin_t) + i * sin_t.stride0);
    }
    lw_dit_time_features(c, t, lw_f32(&e));
    k->linear(k, &hidden, &e, &m->t_mlp0);
    k->silu(k, &hidden, &hidden);
    emb = modulation_of(m, a, &m->t_mlp2, &hidden);

    k->rmsnorm(k, &normed, cap, &m->cap_norm, c->norm_eps, NULL);
    k->linear(k, &said, &normed, &m->cap_embedder);
    k->fill_rows(k, &cap_pads, &m->cap_pad_token);
    k->patchify(k, &tokens, z, 2);
    k->linear(k, &picture, &tokens, &m->x_embedder);
    k->fill_rows(k, &image_pads, &m->x_pad_token);
    for (int i = 0; i < c->n_refiner; i++) {
        plain_block(m, a, &m->context_refiner[i], &caption, &cap_cos, &cap_sin, NULL);
        mod = modulation_of(m, a, &m->noise_refiner[i].adaln, &emb);
        plain_block(m, a, &m->noise_refiner[i], &image, &im_cos, &im_sin, &mod);
    }
    for (int i = 0; i < c->n_layers; i++) {
        mod = modulation_of(m, a, &m->layers[i].adaln, &emb);
        plain_block(m, a, &m->layers[i], &x, &cos_t, &sin_t, &mod);
    }
    k->silu(k, &emb, &emb);
    mod = modulation_of(m, a, &m->final_adaln, &emb);
    mod = lw_tensor_1d(mod.data, LW_F32, D);
    k->layernorm(k, &read, &picture, 1e-6f, &mod);
    k->linear(k, &tokens, &read, &m->final_linear);
    k->unpatchify(k, &out, &tokens, 2);
    return out;
}

static void test_join_order(void **state)
{
    vt_backend b;
    lw_arena a;

    (void)state;
    assert_true(vt_backend_open(&b, "ref", 2));
    lw_dit *m = open_axes(&b);

    lw_arena_init(&a, "test", 0);
    for (int64_t rows = 5; rows <= 69; rows += 32) {
        lw_tensor got = evaluate(m, &a, 6, 10, rows);
        lw_tensor z = vt_values(&a, 3, (int64_t[]){ 16, 6, 10 }, 70, 3);
        lw_tensor cap = vt_values(&a, 2, (int64_t[]){ rows, 40 }, 71, 4);
        lw_tensor other = caption_first(m, &a, &z, &cap, 0.4f);

        vt_check("caption first", lw_f32(&other), lw_f32(&got), lw_tensor_count(&got), VT_BOUND);
    }
    lw_arena_deinit(&a);
    lw_dit_destroy(&m);
    vt_backend_close(&b);
}

/* ---- recorded walks -------------------------------------------------------------------------- */

static const float *recorded(const lw_st_file *f, const char *fmt, int i)
{
    char name[64];
    const lw_st_entry *e;

    snprintf(name, sizeof(name), fmt, i);
    e = lw_st_find(f, name);
    if (e == NULL)
        fail_msg("no %s in the recording", name);
    return e->t.data;
}

/** Every evaluation and step of a recording, each from the recorded state before it. */
static void walk(const char *backend, const char *name, double w, double normalization)
{
    lw_guidance g = { .scale = w, .normalization = normalization, .truncation = 1 };
    lw_tensor captions[LW_DIT_N_CAPTIONS] = { { 0 } }, z, out[LW_DIT_N_CAPTIONS];
    const lw_st_entry *e[LW_DIT_N_CAPTIONS], *initial;
    lw_dit_shape s = { 0 };
    lw_st_file *f = NULL;
    lw_dit_run *run = NULL;
    lw_schedule sched;
    lw_err err = { 0 };
    vt_backend b;
    lw_dit *m = NULL;
    char path[64];
    lw_arena a;
    int64_t n;
    size_t arena_bytes = 0, scratch_bytes = 0;

    if (!vt_backend_open(&b, backend, 2)) {
        print_message("skipped: this build has no %s\n", backend);
        return;
    }
    lw_arena_init(&a, "test", 0);
    snprintf(path, sizeof(path), "spec/pipeline_tiny/%s/tensors.safetensors", name);
    vt_ok(lw_st_open(vt_data(path), &f, &err), &err);
    vt_ok(lw_dit_create(vt_data("spec/pipeline_tiny/model"), LW_KEEP_STORED, &b.k, &m, &err), &err);
    initial = lw_st_find(f, "initial_latents");
    s.h = initial->t.shape[2];
    s.w = initial->t.shape[3];
    s.n_steps = (int)lw_st_find(f, "timesteps")->t.shape[0];
    vt_ok(lw_schedule_make(s.n_steps, 3, &sched, &err), &err);
    assert_memory_equal(sched.sigma, recorded(f, "sigmas", 0),
                        (size_t)(s.n_steps + 1) * sizeof(float));
    e[LW_DIT_POSITIVE] = lw_st_find(f, "prompt_embeds");
    e[LW_DIT_NEGATIVE] = w > 0 ? lw_st_find(f, "negative_prompt_embeds") : NULL;
    z = zeros(&a, 3, initial->t.shape + 1);
    n = lw_tensor_count(&z);
    for (int i = 0; i < LW_DIT_N_CAPTIONS; i++) {
        out[i] = zeros(&a, 3, z.shape);
        if (e[i] == NULL)
            continue;
        s.n_caption[i] = e[i]->t.shape[0];
        captions[i] = zeros(&a, 2, e[i]->t.shape);
        memcpy(captions[i].data, e[i]->t.data, lw_tensor_bytes(&captions[i]));
    }
    vt_ok(lw_dit_begin(m, &a, &s, sched.t, captions, NULL, &run, &err), &err);

    for (int i = 0; i < s.n_steps; i++) {
        const float *want = recorded(f, "model_output_step_%d", i);

        memcpy(z.data,
               i == 0 ? initial->t.data : (const void *)recorded(f, "latents_after_step_%d", i - 1),
               lw_tensor_bytes(&z));
        for (int c = 0; c < LW_DIT_N_CAPTIONS; c++) {
            if (e[c] == NULL)
                continue;
            vt_ok(lw_dit_forward(run, i, c, &z, &out[c], NULL, &err), &err);
            vt_check(c == LW_DIT_POSITIVE ? "model output" : "negative model output",
                     lw_f32(&out[c]), want + c * n, n, VT_BOUND);
        }
        if (lw_guidance_active(&g, sched.t[i]))
            lw_guide(&g, lw_f32(&out[0]), lw_f32(&out[1]), n);
        lw_euler_step(lw_f32(&z), lw_f32(&out[0]), n, sched.sigma[i], sched.sigma[i + 1]);
        vt_check("latents after the step", lw_f32(&z),
                 i + 1 < s.n_steps ? recorded(f, "latents_after_step_%d", i)
                                   : recorded(f, "final_latents", 0),
                 n, VT_BOUND);
        if (i == 0) {
            arena_bytes = a.reserved_bytes;
            scratch_bytes = lw_kernels_scratch_bytes(&b.k);
        }
        /* The first step takes all the memory that the run needs. */
        assert_int_equal(a.reserved_bytes, arena_bytes);
        assert_int_equal(lw_kernels_scratch_bytes(&b.k), scratch_bytes);
    }
    lw_dit_destroy(&m);
    lw_st_close(&f);
    lw_arena_deinit(&a);
    vt_backend_close(&b);
}

static void test_recorded_steps(void **state)
{
    json_t *doc = vt_load_json(vt_data("spec/pipeline_tiny/cases.json")), *c;
    const char *name;

    (void)state;
    json_object_foreach(json_object_get(doc, "cases"), name, c)
    {
        const json_t *norm = json_object_get(c, "cfg_normalization");

        /* Truncation is off in both. */
        assert_true(json_number_value(json_object_get(c, "cfg_truncation")) == 1);
        for (size_t b = 0; b < LW_ARRAY_LEN(backends); b++)
            walk(backends[b], name, json_number_value(json_object_get(c, "guidance_scale")),
                 json_is_true(norm) ? 1 : json_number_value(norm));
    }
    json_decref(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_token_order),
        cmocka_unit_test(test_pads),
        cmocka_unit_test(test_join_order),
        cmocka_unit_test(test_recorded_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
