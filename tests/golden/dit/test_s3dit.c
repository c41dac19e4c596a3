/*
 * The denoiser's network and schedule against diffusers: schedules bit for bit, positions and time
 * features, every model of tests/data/dit and the first-generation vectors, on every back end and
 * with several numbers of threads.
 */
#include "tests/golden/dit/fixture.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cpu/int8.h"
#include "dit-svc/s3dit.h"
#include "dit-svc/sampler.h"

static const char *const backends[] = { "ref", "onednn" };

static lw_dit *open_model(const char *dir, vt_backend *b)
{
    lw_err err = { 0 };
    lw_dit *m = NULL;

    vt_ok(lw_dit_create(dir, LW_KEEP_STORED, &b->k, &m, &err), &err);
    return m;
}

/** One evaluation; the result lies in `a`. */
static float *evaluate(lw_dit *m, lw_arena *a, lw_tensor *z, const lw_tensor *caption, float t)
{
    const lw_dit_config *c = lw_dit_get_config(m);
    lw_dit_shape s = { .h = z->shape[1], .w = z->shape[2], .n_steps = 1 };
    lw_tensor captions[LW_DIT_N_CAPTIONS] = { { 0 } }, out;
    lw_dit_run *run = NULL;
    lw_err err = { 0 };
    size_t before;

    s.n_caption[LW_DIT_POSITIVE] = caption->shape[0];
    vt_ok(lw_tensor_alloc(a, LW_F32, 2, caption->shape, &captions[0], &err), &err);
    memcpy(captions[0].data, caption->data, lw_tensor_bytes(caption));
    vt_ok(lw_tensor_alloc(a, LW_F32, 3, z->shape, &out, &err), &err);
    before = a->used_bytes;
    vt_ok(lw_dit_begin(m, a, &s, &t, captions, NULL, &run, &err), &err);
    /* The plan is what admission relies on: never less than what is taken, and not far more. */
    assert_true(a->used_bytes - before <= lw_dit_run_bytes(m, &s));
    assert_true(a->used_bytes - before >= lw_dit_run_bytes(m, &s) / 2);
    before = a->used_bytes;
    vt_ok(lw_dit_forward(run, 0, LW_DIT_POSITIVE, z, &out, NULL, &err), &err);
    assert_int_equal(a->used_bytes, before); /* a step allocates nothing */
    assert_int_equal(c->channels, z->shape[0]);
    return lw_f32(&out);
}

static void test_schedules(void **state)
{
    lw_st_file *f = NULL;
    lw_err err = { 0 };
    int n = 0;

    (void)state;
    vt_ok(lw_st_open(vt_data("dit/vectors.safetensors"), &f, &err), &err);
    for (size_t i = 0; i < f->n_entries; i++) {
        int shift, steps;
        lw_schedule s;
        float v;

        if (sscanf(f->entries[i].name, "schedule.%d.%d", &shift, &steps) == 2) {
            vt_ok(lw_schedule_make(steps, shift, &s, &err), &err);
            for (int k = 0; k <= steps; k++) {
                memcpy(&v, (char *)f->entries[i].t.data + (size_t)k * sizeof(v), sizeof(v));
                if (v != s.sigma[k])
                    fail_msg("shift %d, %d steps: sigma %d is %a, expected %a", shift, steps, k,
                             (double)s.sigma[k], (double)v);
            }
            n++;
        } else if (sscanf(f->entries[i].name, "time.%d.%d", &shift, &steps) == 2) {
            vt_ok(lw_schedule_make(steps, shift, &s, &err), &err);
            for (int k = 0; k < steps; k++) {
                memcpy(&v, (char *)f->entries[i].t.data + (size_t)k * sizeof(v), sizeof(v));
                if (v != s.t[k])
                    fail_msg("shift %d, %d steps: t %d is %a, expected %a", shift, steps, k,
                             (double)s.t[k], (double)v);
            }
            n++;
        }
    }
    lw_st_close(&f);
    assert_int_equal(n, 2 * 2 * 52);
    vt_fails(lw_schedule_make(0, 3, &(lw_schedule){ 0 }, &err), LW_E_INVALID, "steps 0", &err);
    vt_fails(lw_schedule_make(257, 3, &(lw_schedule){ 0 }, &err), LW_E_INVALID, "steps 257", &err);
    vt_fails(lw_schedule_make(8, NAN, &(lw_schedule){ 0 }, &err), LW_E_INVALID, "shift", &err);
    vt_fails(lw_schedule_make(8, 1e300, &(lw_schedule){ 0 }, &err), LW_E_INVALID, "shift", &err);
}

static void test_given_schedule(void **state)
{
    static const struct {
        double sigmas[3];
        size_t n;
        const char *part;
    } wrong[] = {
        { { 1 }, 1, "1 values" },
        { { 0 }, LW_MAX_STEPS + 2, "258 values" },
        { { 1, 0.5, 0.5 }, 3, "sigmas[2] is 0.5" },
        { { 0.5, 0.7, 0 }, 3, "sigmas[1] is 0.7" },
        { { 1.5, 0.5, 0 }, 3, "sigmas[0] is 1.5" },
        { { 1, 0.5, -0.1 }, 3, "sigmas[2] is -0.1" },
        { { 1, NAN, 0 }, 3, "sigmas[1] is nan" },
    };
    lw_schedule made, given;
    lw_err err = { 0 };
    double sigmas[21];

    (void)state;
    vt_ok(lw_schedule_make(20, 6, &made, &err), &err);
    for (int i = 0; i <= 20; i++)
        sigmas[i] = (double)made.sigma[i];
    vt_ok(lw_schedule_given(sigmas, 21, &given, &err), &err);
    assert_int_equal(given.n_steps, 20);
    assert_memory_equal(given.sigma, made.sigma, 21 * sizeof(float));
    assert_memory_equal(given.t, made.t, 20 * sizeof(float));
    for (size_t i = 0; i < LW_ARRAY_LEN(wrong); i++)
        vt_fails(lw_schedule_given(wrong[i].sigmas, wrong[i].n, &given, &err), LW_E_INVALID,
                 wrong[i].part, &err);
}

static void test_guidance(void **state)
{
    float pos[3] = { 1, 2, 2 }, neg[3] = { 0, 2, 1 }, x[2] = { 1, -1 }, out[2] = { 2, 4 };
    lw_guidance g = { .scale = 2, .normalization = 0, .truncation = 0.1 };

    (void)state;
    lw_guide(&g, pos, neg, 3); /* pos + 2 (pos - neg) = 3, 2, 4: norm sqrt(29) */
    assert_true(pos[0] == 3 && pos[1] == 2 && pos[2] == 4);
    pos[0] = 1, pos[1] = 2, pos[2] = 2; /* norm 3 */
    g.normalization = 1;
    lw_guide(&g, pos, neg, 3);
    assert_true(fabsf(sqrtf(pos[0] * pos[0] + pos[1] * pos[1] + pos[2] * pos[2]) - 3) < 1e-6f);
    /* f32 0.1 widened is above 0.1, so truncation at 0.1 cuts the step whose t is "0.1". */
    assert_false(lw_guidance_active(&g, 0.1f));
    g.truncation = 0.7;
    assert_true(lw_guidance_active(&g, 0.699999988f));
    g.scale = 0;
    assert_false(lw_guidance_active(&g, 0));
    lw_euler_step(x, out, 2, 0.5f, 0.25f); /* x + (-0.25) * -out */
    assert_true(x[0] == 1.5f && x[1] == 0);
}

static void expect_near(double got, double want, double within)
{
    if (!(fabs(got - want) <= within))
        fail_msg("%.9g, expected %.9g", got, want);
}

static void test_positions_and_time(void **state)
{
    /* Values of the model's own code, with the axes and widths of Z-Image. */
    lw_dit_config c = {
        .axes_dims = { 32, 48, 48 }, .rope_theta = 256, .t_scale = 1000, .t_freq = 256
    };
    float cos_row[64], sin_row[64], e[256];

    (void)state;
    lw_dit_rope_row(&c, (int64_t[]){ 33, 63, 0 }, cos_row, sin_row);
    expect_near(cos_row[0], -0.01327675, 1e-6);
    expect_near(sin_row[0], 0.9999119, 1e-6);
    expect_near(cos_row[1], -0.2254654, 1e-6);
    expect_near(sin_row[1], -0.9742512, 1e-6);
    expect_near(cos_row[16 + 1], 0.965783, 1e-6);
    expect_near(sin_row[16 + 1], -0.2593514, 1e-6);
    expect_near(cos_row[16 + 23], 0.9523157, 1e-6);
    expect_near(sin_row[16 + 23], 0.3051145, 1e-6);
    expect_near(cos_row[40], 1, 0);
    lw_dit_time_features(&c, 0.0454545915f, e);
    expect_near(e[0], 0.09834442, 1e-6);
    expect_near(e[1], -0.1124913, 1e-6);
    expect_near(e[2], -0.09201441, 1e-6);
    expect_near(e[64], 0.8984605, 1e-6);
    expect_near(e[127], 0.9999881, 1e-6);
    expect_near(e[128], 0.9951524, 1e-6);
    expect_near(e[129], -0.9936527, 1e-6);
    expect_near(e[192], 0.4390544, 1e-6);
    expect_near(e[255], 0.004884565, 1e-6);
    lw_dit_time_features(&c, 0.699999988f, e);
    expect_near(e[0], -0.8391043, 1e-6);
    expect_near(e[1], -0.4618004, 1e-6);
    expect_near(e[128], 0.5439705, 1e-6);
    expect_near(e[129], -0.8869839, 1e-6);
    expect_near(e[255], 0.07515161, 1e-6);
    lw_dit_time_features(&c, 0, e);
    for (int j = 0; j < 128; j++) {
        expect_near(e[j], 1, 0);
        expect_near(e[128 + j], 0, 0);
    }
}

/** The official code's vectors (first generation). */
static void test_official(void **state)
{
    json_t *spec = vt_load_json(vt_data("spec/transformer_tiny.json")), *c, *groups;
    const char *dir = vt_new_dir();
    size_t i;

    (void)state;
    json_object_set_new(spec, "tag0", json_integer(0));
    dt_write_model(spec, dir, &(dt_model){ 0 });
    for (size_t b = 0; b < LW_ARRAY_LEN(backends); b++) {
        vt_backend back;

        if (!vt_backend_open(&back, backends[b], 2))
            continue;
        lw_dit *m = open_model(dir, &back);

        for (int group = 0; group < 2; group++) {
            groups = json_object_get(spec, group == 0 ? "cases" : "cases2");
            json_array_foreach(groups, i, c)
            {
                int64_t zs[3] = { 4, 6, 10 }, cs[2] = { 5, 24 };
                uint64_t ztag = 9001, ctag = 9002;
                json_t *want = json_object_get(c, "output");
                float expected[4 * 8 * 16], *got;
                lw_arena a;

                if (group == 1) {
                    vt_ints(c, "latent_shape", zs, 3);
                    cs[0] = vt_int(c, "caption_tokens");
                    ztag = (uint64_t)vt_int(c, "latent_tag");
                    ctag = (uint64_t)vt_int(c, "caption_tag");
                }
                lw_arena_init(&a, "test", 0);
                lw_tensor z = vt_values(&a, 3, zs, ztag, 3), cap = vt_values(&a, 2, cs, ctag, 4);

                assert_int_equal(json_array_size(want), lw_tensor_count(&z));
                for (size_t k = 0; k < json_array_size(want); k++)
                    expected[k] = (float)json_number_value(json_array_get(want, k));
                got = evaluate(m, &a, &z, &cap, (float)json_number_value(json_object_get(c, "t")));
                vt_check("official", got, expected, lw_tensor_count(&z), VT_BOUND);
                lw_arena_deinit(&a);
            }
        }
        lw_dit_destroy(&m);
        vt_backend_close(&back);
    }
    json_decref(spec);
}

/** What becomes of the results of run_models. ROUGHLY: against diffusers, as near as 8 bits are. */
typedef enum after { CHECK, SAVE, SAME_BITS, NEAR, ROUGHLY } after;
/** Arithmetic of the blocks: f32; packed when loaded; packed in the file. */
typedef enum form { F32, PACKED_NOW, CONVERTED } form;

#define INT8_BOUND                                                                                 \
    0.1 /* largest error seen 0.084: these models are small, and their sums short                  \
         */

static float store[65536]; /* of the last SAVE */

/** Every sample of every model of tests/data/dit, alone. CHECK: against diffusers; SAME_BITS, NEAR:
 * against the results of the last SAVE. */
static void run_models_in(form kind, const char *backend, int threads, const dt_model *layout,
                          after then)
{
    static const char *dir;
    json_t *doc = vt_load_json(vt_data("dit/cases.json")), *spec, *samples, *s;
    lw_st_file *f = NULL;
    lw_err err = { 0 };
    vt_backend back;
    size_t i, j, k, at = 0;

    if (!vt_backend_open(&back, backend, threads)) {
        print_message("skipped: this build has no %s\n", backend);
        json_decref(doc);
        return;
    }
    if (dir == NULL)
        dir = vt_new_dir();
    vt_ok(lw_st_open(vt_data("dit/vectors.safetensors"), &f, &err), &err);
    json_array_foreach(json_object_get(doc, "models"), i, spec)
    {
        /* One model tells about types of weights; the others take longer. */
        if (layout->dtype != LW_DTYPE_NONE && i > 0)
            continue;
        /* Without config.json the axes are Z-Image's proportion; only "wide" has it. */
        if (layout->no_config &&
            strcmp(json_string_value(json_object_get(spec, "name")), "wide") != 0)
            continue;
        dt_write_model(spec, dir, layout);
        if (kind == CONVERTED) {
            char file[PATH_MAX];

            snprintf(file, sizeof(file), "%s/model.safetensors", dir);
            vt_ok(lw_dit_convert(dir, file, back.pool, NULL, &err), &err);
        }
        back.k.precision = kind == PACKED_NOW ? LW_PRECISION_INT8 : LW_PRECISION_AUTO;
        lw_dit *m = open_model(dir, &back);
        assert_int_equal(lw_dit_is_int8(m), kind != F32);
        int64_t C = lw_dit_get_config(m)->channels, cap_dim = lw_dit_get_config(m)->cap_dim;

        json_array_foreach(json_object_get(spec, "cases"), j, samples)
        {
            json_array_foreach(samples, k, s)
            {
                const char *name = json_string_value(json_object_get(s, "output"));
                uint64_t tag = (uint64_t)vt_int(s, "tag");
                lw_arena a;

                lw_arena_init(&a, "test", 0);
                lw_tensor z =
                    vt_values(&a, 3, (int64_t[]){ C, vt_int(s, "h"), vt_int(s, "w") }, tag, 3);
                lw_tensor cap_rows =
                    vt_values(&a, 2, (int64_t[]){ vt_int(s, "caption_rows"), cap_dim }, tag + 1, 4);
                float *got = evaluate(m, &a, &z, &cap_rows,
                                      (float)json_number_value(json_object_get(s, "t")));
                size_t n = (size_t)lw_tensor_count(&z);

                assert_true(at + n <= LW_ARRAY_LEN(store));
                if (then == CHECK)
                    vt_check(name, got, lw_f32(&lw_st_find(f, name)->t), (int64_t)n, VT_BOUND);
                else if (then == ROUGHLY)
                    vt_check(name, got, lw_f32(&lw_st_find(f, name)->t), (int64_t)n, INT8_BOUND);
                else if (then == NEAR)
                    vt_check(name, got, store + at, (int64_t)n, VT_BOUND);
                else if (then == SAME_BITS)
                    assert_memory_equal(store + at, got, n * sizeof(*got));
                else
                    memcpy(store + at, got, n * sizeof(*got));
                at += n;
                lw_arena_deinit(&a);
            }
        }
        lw_dit_destroy(&m);
    }
    lw_st_close(&f);
    vt_backend_close(&back);
    json_decref(doc);
}

static void run_models(const char *backend, int threads, const dt_model *layout, after then)
{
    run_models_in(F32, backend, threads, layout, then);
}

/** 8 bits: near the exact result, and the same bits however they came about. */
static void test_int8(void **state)
{
    const dt_model hf = { 0 }, single = { .single = true };

    (void)state;
    for (size_t b = 0; b < LW_ARRAY_LEN(backends); b++) {
        memset(store, 0, sizeof(store));
        run_models_in(PACKED_NOW, backends[b], 2, &hf, ROUGHLY);
        run_models_in(PACKED_NOW, backends[b], 1, &hf, SAVE);
        run_models_in(PACKED_NOW, backends[b], 3, &hf, SAME_BITS);
        run_models_in(PACKED_NOW, backends[b], 7, &hf, SAME_BITS);
        run_models_in(PACKED_NOW, backends[b], 2, &single, SAME_BITS);
        run_models_in(CONVERTED, backends[b], 2, &hf, SAME_BITS);
        run_models_in(CONVERTED, backends[b], 2, &single, SAME_BITS);
    }
    run_models_in(CONVERTED, "ref", 2, &(dt_model){ .single = true, .no_config = true }, ROUGHLY);
    run_models_in(CONVERTED, "ref", 2, &(dt_model){ .dtype = LW_F8_E4M3, .single = true }, SAVE);
    run_models_in(PACKED_NOW, "ref", 2, &(dt_model){ .dtype = LW_F8_E4M3, .single = true },
                  SAME_BITS);
}

/** A converted file that is damaged, of another model, or asked for in f32. */
static void test_int8_refused(void **state)
{
    json_t *doc = vt_load_json(vt_data("dit/cases.json"));
    json_t *spec = json_array_get(json_object_get(doc, "models"), 0);
    const char *dir = vt_new_dir(), *name = "layers.1.feed_forward.w2.weight";
    char file[PATH_MAX], good[PATH_MAX];
    lw_dit *m = NULL;
    lw_err err = { 0 };
    vt_backend back;

    (void)state;
    assert_true(vt_backend_open(&back, "ref", 2));
    snprintf(file, sizeof(file), "%s/model.safetensors", dir);
    snprintf(good, sizeof(good), "%s/good.safetensors", vt_new_dir());
    dt_write_model(spec, dir, &(dt_model){ 0 });
    vt_ok(lw_dit_convert(dir, good, back.pool, NULL, &err), &err);
    vt_ok(lw_dit_convert(dir, file, back.pool, NULL, &err), &err);
    vt_fails(lw_dit_convert(dir, file, back.pool, NULL, &err), LW_E_PRECONDITION, "packed already",
             &err);
    back.k.precision = LW_PRECISION_F32;
    vt_fails(lw_dit_create(dir, LW_KEEP_STORED, &back.k, &m, &err), LW_E_PRECONDITION,
             "cannot be computed in f32", &err);
    back.k.precision = LW_PRECISION_AUTO;
    for (size_t at = 0; at < sizeof(lw_int8_header); at += 8) {
        lw_st_file *f = NULL;
        lw_st_entry copy[512];
        uint8_t *bytes;
        size_t n;

        vt_ok(lw_st_open(good, &f, &err), &err);
        n = f->n_entries;
        assert_true(n <= LW_ARRAY_LEN(copy));
        memcpy(copy, f->entries, n * sizeof(*copy));
        for (size_t i = 0; i < n; i++) {
            if (strcmp(copy[i].name, name) != 0)
                continue;
            bytes = malloc(lw_tensor_bytes(&copy[i].t));
            assert_non_null(bytes);
            memcpy(bytes, copy[i].t.data, lw_tensor_bytes(&copy[i].t));
            bytes[at] ^= 1;
            copy[i].t.data = bytes;
        }
        vt_ok(lw_st_write(file, copy, n, NULL, 0, &err), &err);
        if (lw_dit_create(dir, LW_KEEP_STORED, &back.k, &m, &err) == LW_OK)
            fail_msg("byte %zu of a packed header was changed, and nobody saw it", at);
        if (!strstr(err.text, name))
            fail_msg("byte %zu: %s", at, err.text);
        for (size_t i = 0; i < n; i++)
            if (strcmp(copy[i].name, name) == 0)
                free(copy[i].t.data);
        lw_st_close(&f);
    }
    vt_backend_close(&back);
    json_decref(doc);
}

static void test_models(void **state)
{
    (void)state;
    for (size_t b = 0; b < LW_ARRAY_LEN(backends); b++)
        run_models(backends[b], 2, &(dt_model){ 0 }, CHECK);
}

static void test_threads_and_layouts_same_bits(void **state)
{
    (void)state;
    for (size_t b = 0; b < LW_ARRAY_LEN(backends); b++) {
        memset(store, 0, sizeof(store));
        run_models(backends[b], 1, &(dt_model){ 0 }, SAVE);
        for (int threads = 2; threads <= 7; threads += threads == 3 ? 4 : 1)
            run_models(backends[b], threads, &(dt_model){ 0 }, SAME_BITS);
        run_models(backends[b], 2, &(dt_model){ .single = true }, SAME_BITS);
        run_models(backends[b], 2,
                   &(dt_model){ .single = true, .prefix = "model.diffusion_model." }, SAME_BITS);
    }
}

static void test_without_config(void **state)
{
    (void)state;
    run_models("ref", 2, &(dt_model){ .single = true, .no_config = true }, CHECK);
}

/** Matrices of a narrow type mean just the numbers that they hold. */
static void test_narrow_weights(void **state)
{
    static const lw_dtype dtypes[] = { LW_BF16, LW_F16, LW_F8_E4M3 };

    (void)state;
    for (size_t b = 0; b < LW_ARRAY_LEN(backends); b++)
        for (size_t i = 0; i < LW_ARRAY_LEN(dtypes); i++) {
            run_models(backends[b], 2, &(dt_model){ .dtype = dtypes[i], .widened = true }, SAVE);
            run_models(backends[b], 2, &(dt_model){ .dtype = dtypes[i] }, NEAR);
            run_models(backends[b], 2, &(dt_model){ .dtype = dtypes[i], .single = true }, NEAR);
        }
}

static bool stop_after(void *arg)
{
    int *left = arg;

    return --*left >= 0;
}

static void test_limits_and_cancel(void **state)
{
    json_t *doc = vt_load_json(vt_data("dit/cases.json"));
    json_t *spec = json_array_get(json_object_get(doc, "models"), 0);
    const char *dir = vt_new_dir();
    lw_dit_shape s = { .h = 8, .w = 8, .n_caption = { 5, 0 }, .n_steps = 1 };
    lw_tensor captions[LW_DIT_N_CAPTIONS] = { { 0 } }, z, out;
    lw_dit_run *run = NULL;
    lw_err err = { 0 };
    vt_backend back;
    lw_arena a;
    float t = 0;

    (void)state;
    assert_true(vt_backend_open(&back, "ref", 2));
    dt_write_model(spec, dir, &(dt_model){ 0 });
    lw_dit *m = open_model(dir, &back);

    lw_arena_init(&a, "test", 0);
    captions[0] = vt_values(&a, 2, (int64_t[]){ 5, 40 }, 1, 1);
    s.h = 7;
    vt_fails(lw_dit_begin(m, &a, &s, &t, captions, NULL, &run, &err), LW_E_SHAPE, "8x7", &err);
    s.h = 2 * 513;
    vt_fails(lw_dit_begin(m, &a, &s, &t, captions, NULL, &run, &err), LW_E_SHAPE, "at most", &err);
    s.h = 8;
    s.n_caption[0] = 0;
    vt_fails(lw_dit_begin(m, &a, &s, &t, captions, NULL, &run, &err), LW_E_SHAPE, "rows", &err);
    captions[0] = vt_values(&a, 2, (int64_t[]){ 1505, 40 }, 1, 1);
    s.n_caption[0] = 1505;
    vt_fails(lw_dit_begin(m, &a, &s, &t, captions, NULL, &run, &err), LW_E_SHAPE, "1 to 1504",
             &err);
    captions[0] = vt_values(&a, 2, (int64_t[]){ 5, 39 }, 1, 1);
    s.n_caption[0] = 5;
    vt_fails(lw_dit_begin(m, &a, &s, &t, captions, NULL, &run, &err), LW_E_SHAPE, "rows of 40",
             &err);

    /* One refiner of the caption, then one of the image and two layers: stop before each. */
    z = vt_values(&a, 3, (int64_t[]){ 16, 8, 8 }, 3, 1);
    out = vt_values(&a, 3, (int64_t[]){ 16, 8, 8 }, 3, 1);
    for (int blocks = 0; blocks < 4; blocks++) {
        int left = blocks;
        lw_dit_watch watch = { stop_after, &left };
        lw_status st;

        captions[0] = vt_values(&a, 2, (int64_t[]){ 5, 40 }, 1, 1);
        st = lw_dit_begin(m, &a, &s, &t, captions, &watch, &run, &err);
        if (blocks == 0) {
            assert_int_equal(st, LW_E_CANCELLED);
            continue;
        }
        assert_int_equal(st, LW_OK);
        assert_int_equal(lw_dit_forward(run, 0, 0, &z, &out, &watch, &err), LW_E_CANCELLED);
    }
    lw_arena_deinit(&a);
    lw_dit_destroy(&m);
    vt_backend_close(&back);
    json_decref(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_given_schedule),
        cmocka_unit_test(test_guidance),
        cmocka_unit_test(test_positions_and_time),
        cmocka_unit_test(test_official),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_int8),
        cmocka_unit_test(test_int8_refused),
        cmocka_unit_test(test_threads_and_layouts_same_bits),
        cmocka_unit_test(test_without_config),
        cmocka_unit_test(test_narrow_weights),
        cmocka_unit_test(test_limits_and_cancel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
