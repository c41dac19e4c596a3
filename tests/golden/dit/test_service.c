/*
 * The denoiser service without sockets: the whole walk of diffusers' ZImagePipeline from embeddings
 * to latents, batches, resuming, several threads, and requests that must be refused.
 */
#include "tests/golden/dit/fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/rng.h"
#include "dit-svc/s3dit.h"
#include "dit-svc/sampler.h"
#include "dit-svc/service.h"

#define MODEL "spec/pipeline_tiny/model"

static void *open_service(const char *backend, int threads, int64_t memory_mb)
{
    lw_service_config c = { .model = vt_data(MODEL), .threads = threads, .memory_mb = memory_mb };
    lw_err err = { 0 };
    void *self = NULL;

    if (backend[0] != 0)
        setenv("LATENTWIRE_BACKEND", backend, 1);
    vt_ok(lw_dit_service.load(&c, &self, &err), &err);
    unsetenv("LATENTWIRE_BACKEND");
    return self;
}

/** The request of a case of cases.json; its tensors come from f. */
static lw_msg request_of(const json_t *c, const lw_st_file *f)
{
    const json_t *norm = json_object_get(c, "cfg_normalization");
    lw_err err = { 0 };
    lw_msg m;

    lw_msg_init(&m, LW_MSG_TASK, NULL);
    lw_msg_set(&m, op, LW_OP_DENOISE);
    lw_msg_set(&m, width, (uint64_t)vt_int(c, "width"));
    lw_msg_set(&m, height, (uint64_t)vt_int(c, "height"));
    lw_msg_set(&m, steps, (uint64_t)vt_int(c, "num_inference_steps"));
    lw_msg_set(&m, seed, (uint64_t)vt_int(c, "seed"));
    lw_msg_set(&m, guidance, json_number_value(json_object_get(c, "guidance_scale")));
    lw_msg_set(&m, cfg_normalization, json_is_number(norm) ? json_number_value(norm) : 0.0);
    lw_msg_set(&m, cfg_truncation, json_number_value(json_object_get(c, "cfg_truncation")));
    vt_ok(lw_msg_tensor_add(&m, LW_T_PROMPT_EMBEDS, &lw_st_find(f, "prompt_embeds")->t, NULL, &err),
          &err);
    if (lw_st_find(f, "negative_prompt_embeds") != NULL)
        vt_ok(lw_msg_tensor_add(&m, LW_T_NEGATIVE_EMBEDS,
                                &lw_st_find(f, "negative_prompt_embeds")->t, NULL, &err),
              &err);
    return m;
}

static lw_tensor call(void *self, const lw_msg *request, lw_arena *a)
{
    const lw_msg_tensor *mt;
    lw_err err = { 0 };
    static lw_msg result;

    vt_ok(lw_service_call(&lw_dit_service, self, request, a, &result, &err), &err);
    mt = lw_msg_tensor_find(&result, LW_T_LATENTS);
    assert_non_null(mt);
    assert_int_equal(result.sigmas.n, lw_msg_get(request, steps, 8) + 1);
    return mt->t;
}

/** Copy of t one byte past an aligned address, as a frame may lie. */
static lw_tensor odd_address(lw_arena *a, const lw_tensor *t)
{
    lw_err err = { 0 };
    char *p = lw_arena_alloc(a, lw_tensor_bytes(t) + 1, &err);

    assert_non_null(p);
    memcpy(p + 1, t->data, lw_tensor_bytes(t));
    return lw_tensor_nd(p + 1, t->dtype, t->rank, t->shape);
}

static json_t *open_case(const char *name, lw_st_file **ret_f, json_t **ret_doc)
{
    char path[128];
    lw_err err = { 0 };

    *ret_doc = vt_load_json(vt_data("spec/pipeline_tiny/cases.json"));
    snprintf(path, sizeof(path), "spec/pipeline_tiny/%s/tensors.safetensors", name);
    vt_ok(lw_st_open(vt_data(path), ret_f, &err), &err);
    return json_object_get(json_object_get(*ret_doc, "cases"), name);
}

static void test_pipeline(void **state)
{
    static const char *const names[] = { "a", "b" }, *const backends[] = { "ref", "onednn" };

    (void)state;
    for (size_t n = 0; n < 4; n++) {
        json_t *doc, *c;
        lw_st_file *f = NULL;
        vt_backend probe;
        lw_arena a;

        if (!vt_backend_open(&probe, backends[n / 2], 1))
            continue;
        vt_backend_close(&probe);
        c = open_case(names[n % 2], &f, &doc);
        void *self = open_service(backends[n / 2], 2, 0);
        lw_msg m = request_of(c, f);

        lw_arena_init(&a, "test", 0);
        lw_tensor got = call(self, &m, &a);

        vt_check("final latents", lw_f32(&got), lw_f32(&lw_st_find(f, "final_latents")->t),
                 lw_tensor_count(&got), VT_BOUND);

        /* The latents after a step are those that a run of the whole schedule resumes from. */
        lw_msg_set(&m, start_step, 2);
        vt_ok(lw_msg_tensor_add(&m, LW_T_LATENTS, &lw_st_find(f, "latents_after_step_1")->t, NULL,
                                &(lw_err){ 0 }),
              &(lw_err){ 0 });
        got = call(self, &m, &a);
        vt_check("resumed at step 2", lw_f32(&got), lw_f32(&lw_st_find(f, "final_latents")->t),
                 lw_tensor_count(&got), VT_BOUND);
        lw_arena_deinit(&a);
        lw_dit_service.unload(self);
        lw_st_close(&f);
        json_decref(doc);
    }
}

static void test_same_bits(void **state)
{
    json_t *doc, *c;
    lw_st_file *f = NULL;
    lw_arena a;
    lw_tensor one[3], batch, resumed;
    size_t bytes;
    void *self;

    (void)state;
    c = open_case("b", &f, &doc);
    lw_arena_init(&a, "test", 0);
    lw_msg m = request_of(c, f), r;

    /* Alone with seeds s, s+1, s+2 and different numbers of threads; then as one batch. */
    for (int i = 0; i < 3; i++) {
        self = open_service("", i + 1, 0);
        lw_msg_set(&m, seed, UINT64_C(7) + (uint64_t)i);
        one[i] = call(self, &m, &a);
        lw_dit_service.unload(self);
    }
    self = open_service("", 2, 0);
    lw_msg_set(&m, seed, 7);
    lw_msg_set(&m, n, 3);
    batch = call(self, &m, &a);
    bytes = lw_tensor_bytes(&one[0]);
    assert_int_equal(lw_tensor_bytes(&batch), 3 * bytes);
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal((char *)batch.data + i * bytes, one[i].data, bytes);
    assert_memory_not_equal(one[0].data, one[1].data, bytes);

    /* A run given its own noise as latents is the same run. */
    r = request_of(c, f);
    vt_ok(lw_msg_tensor_add(&r, LW_T_LATENTS, &lw_st_find(f, "initial_latents")->t, NULL,
                            &(lw_err){ 0 }),
          &(lw_err){ 0 });
    resumed = call(self, &r, &a);
    vt_check("own noise", lw_f32(&resumed), lw_f32(&one[0]), lw_tensor_count(&one[0]), VT_BOUND);
    lw_dit_service.unload(self);
    lw_arena_deinit(&a);
    lw_st_close(&f);
    json_decref(doc);
}

/** The state [1, C, h, w] of case a after `steps` of its 8 steps, with the parts of the service. */
static lw_tensor state_after(const char *backend, const lw_st_file *f, int steps, lw_arena *a)
{
    const lw_tensor *rows = &lw_st_find(f, "prompt_embeds")->t;
    lw_dit_shape s = { .h = 8, .w = 12, .n_caption = { rows->shape[0], 0 }, .n_steps = 8 };
    lw_tensor captions[LW_DIT_N_CAPTIONS] = { { 0 } }, x, out;
    int64_t shape[4] = { 1, 16, 8, 12 }, n = 16 * 8 * 12;
    lw_dit *m = NULL;
    lw_dit_run *run = NULL;
    lw_schedule sched;
    lw_err err = { 0 };
    vt_backend b;
    lw_rng rng;

    assert_true(vt_backend_open(&b, backend, 1));
    vt_ok(lw_dit_create(vt_data(MODEL), LW_KEEP_AUTO, &b.k, &m, &err), &err);
    vt_ok(lw_schedule_make(8, 3, &sched, &err), &err);
    vt_ok(lw_tensor_alloc(a, LW_F32, 2, rows->shape, &captions[0], &err), &err);
    memcpy(captions[0].data, rows->data, lw_tensor_bytes(rows));
    vt_ok(lw_tensor_alloc(a, LW_F32, 3, shape + 1, &x, &err), &err);
    vt_ok(lw_tensor_alloc(a, LW_F32, 3, shape + 1, &out, &err), &err);
    lw_rng_seed(&rng, 42);
    lw_rng_normal(&rng, lw_f32(&x), (size_t)n);
    vt_ok(lw_dit_begin(m, a, &s, sched.t, captions, NULL, &run, &err), &err);
    for (int i = 0; i < steps; i++) {
        vt_ok(lw_dit_forward(run, i, LW_DIT_POSITIVE, &x, &out, NULL, &err), &err);
        lw_euler_step(lw_f32(&x), lw_f32(&out), n, sched.sigma[i], sched.sigma[i + 1]);
    }
    lw_dit_destroy(&m);
    vt_backend_close(&b);
    return lw_tensor_nd(x.data, LW_F32, 4, shape);
}

/** A walk taken up on the way ends in the bits of the whole one. */
static void test_resume_same_bits(void **state)
{
    static const char *const backends[] = { "ref", "onednn" };
    double sigmas[9];
    json_t *doc, *c;
    lw_st_file *f = NULL;
    const float *recorded;

    (void)state;
    c = open_case("a", &f, &doc);
    recorded = lw_st_find(f, "sigmas")->t.data;
    for (int i = 0; i < 9; i++)
        sigmas[i] = (double)recorded[i];
    for (size_t n = 0; n < LW_ARRAY_LEN(backends); n++) {
        lw_msg whole = request_of(c, f), m;
        lw_tensor full, given, half, rest;
        vt_backend probe;
        lw_arena a;
        void *self;

        if (!vt_backend_open(&probe, backends[n], 1))
            continue;
        vt_backend_close(&probe);
        lw_arena_init(&a, "test", 0);
        self = open_service(backends[n], 2, 0);
        full = call(self, &whole, &a);

        /* The levels of the schedule, given, are the schedule. */
        m = whole;
        lw_msg_set(&m, sigmas, ((lw_f64s){ .v = sigmas, .n = 9 }));
        given = call(self, &m, &a);
        assert_memory_equal(given.data, full.data, lw_tensor_bytes(&full));

        /* The first three levels end in the state after three steps. */
        lw_msg_set(&m, steps, 3);
        lw_msg_set(&m, sigmas, ((lw_f64s){ .v = sigmas, .n = 4 }));
        given = call(self, &m, &a);
        half = state_after(backends[n], f, 3, &a);
        vt_check("three levels", lw_f32(&given), lw_f32(&half), lw_tensor_count(&half), VT_BOUND);

        /* The other five, from a message whose bytes lie anyhow. */
        m = whole;
        lw_msg_set(&m, start_step, 3);
        half = odd_address(&a, &half);
        vt_ok(lw_msg_tensor_add(&m, LW_T_LATENTS, &half, NULL, &(lw_err){ 0 }), &(lw_err){ 0 });
        rest = call(self, &m, &a);
        assert_memory_equal(rest.data, full.data, lw_tensor_bytes(&full));
        lw_dit_service.unload(self);
        lw_arena_deinit(&a);
    }
    lw_st_close(&f);
    json_decref(doc);
}

/** Embeddings in a narrow type, at any address, mean the numbers that they hold. */
static void test_embedding_types(void **state)
{
    static const lw_dtype dtypes[] = { LW_F32, LW_F16, LW_BF16 };
    json_t *doc, *c;
    lw_st_file *f = NULL;
    lw_tensor narrow, wide, want, got;
    lw_err err = { 0 };
    void *self = open_service("", 2, 0);
    lw_arena a;

    (void)state;
    c = open_case("b", &f, &doc);
    lw_arena_init(&a, "test", 0);
    for (size_t i = 0; i < LW_ARRAY_LEN(dtypes); i++) {
        lw_msg m = request_of(c, f);

        for (int k = 0; k < m.n_tensors; k++) {
            lw_tensor *t = &m.tensors[k].t;
            size_t n = (size_t)lw_tensor_count(t);

            vt_ok(lw_tensor_alloc(&a, dtypes[i], 2, t->shape, &narrow, &err), &err);
            vt_ok(lw_tensor_alloc(&a, LW_F32, 2, t->shape, &wide, &err), &err);
            assert_true(lw_dtype_convert(narrow.data, dtypes[i], t->data, LW_F32, n));
            assert_true(lw_dtype_convert(wide.data, LW_F32, narrow.data, dtypes[i], n));
            *t = wide;
        }
        want = call(self, &m, &a);
        for (int k = 0; k < m.n_tensors; k++) {
            lw_tensor *t = &m.tensors[k].t;

            vt_ok(lw_tensor_alloc(&a, dtypes[i], 2, t->shape, &narrow, &err), &err);
            assert_true(lw_dtype_convert(narrow.data, dtypes[i], t->data, LW_F32,
                                         (size_t)lw_tensor_count(t)));
            *t = odd_address(&a, &narrow);
        }
        got = call(self, &m, &a);
        assert_memory_equal(got.data, want.data, lw_tensor_bytes(&want));
    }
    lw_dit_service.unload(self);
    lw_arena_deinit(&a);
    lw_st_close(&f);
    json_decref(doc);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/** What scheduler_config.json may say. */
static void test_scheduler_config(void **state)
{
    static const struct {
        const char *text, *part; /* part NULL: loads */
        double shift;
    } cases[] = {
        { "{\"shift\": 6.0, \"num_train_timesteps\": 1000, \"shift_terminal\": null}", NULL, 6 },
        { "{}", NULL, 3 },
        { "{\"use_dynamic_shifting\": true}", "use_dynamic_shifting is true", 0 },
        { "{\"use_karras_sigmas\": true}", "use_karras_sigmas", 0 },
        { "{\"num_train_timesteps\": 500}", "num_train_timesteps", 0 },
        { "{\"shift_terminal\": 0.1}", "shift_terminal", 0 },
        { "{\"shift\": -1}", "shift -1", 0 },
        { "{\"shift\": \"3\"}", "shift", 0 },
        { "[]", "object", 0 },
        { "{", "scheduler_config.json", 0 },
        { "{\"_class_name\": \"DDIMScheduler\"}", "DDIMScheduler", 0 },
    };
    json_t *doc = vt_load_json(vt_data("dit/cases.json"));
    const char *dir = vt_new_dir();
    lw_service_config config = { .model = dir, .threads = 1 };
    char path[512];

    (void)state;
    snprintf(path, sizeof(path), "%s/transformer", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    dt_write_model(json_array_get(json_object_get(doc, "models"), 0), path, &(dt_model){ 0 });
    snprintf(path, sizeof(path), "%s/scheduler", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/scheduler/scheduler_config.json", dir);
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        lw_err err = { 0 };
        void *self = NULL;
        lw_status s;

        write_text(path, cases[i].text);
        s = lw_dit_service.load(&config, &self, &err);
        if (cases[i].part == NULL) {
            lw_contract contract = { 0 };

            vt_ok(s, &err);
            lw_dit_service.info(self, &contract);
            assert_true(contract.shift == cases[i].shift);
            lw_dit_service.unload(self);
        } else if (s == LW_OK || strstr(err.text, cases[i].part) == NULL) {
            fail_msg("%s: expected '%s', got %s: %s", cases[i].text, cases[i].part,
                     lw_status_name(s), err.text);
        }
    }
    json_decref(doc);
}

static void refuse(void *self, const lw_msg *m, lw_status want, const char *part)
{
    static lw_msg result;
    lw_err err = { 0 };
    lw_arena a;

    lw_arena_init(&a, "test", 0);
    vt_fails(lw_service_call(&lw_dit_service, self, m, &a, &result, &err), want, part, &err);
    lw_arena_deinit(&a);
}

static void test_refusals(void **state)
{
    json_t *doc, *c;
    lw_st_file *f = NULL;
    float rows[5 * 48] = { 0 };
    static float huge[16 * 10 * 8];
    lw_tensor t;
    void *self = open_service("", 2, 0), *small;

    (void)state;
    c = open_case("b", &f, &doc);
    lw_msg good = request_of(c, f), m;

#define WITH(field, value) (m = good, lw_msg_set(&m, field, value), &m)
    refuse(self, WITH(op, LW_OP_ENCODE), LW_E_UNIMPLEMENTED, "encode");
    refuse(self, WITH(width, 65), LW_E_INVALID, "multiples of 16");
    refuse(self, WITH(width, 0), LW_E_INVALID, "multiples of 16");
    refuse(self, WITH(height, 8208), LW_E_INVALID, "8192");
    refuse(self, WITH(n, 65), LW_E_INVALID, "n 65");
    refuse(self, WITH(steps, 0), LW_E_INVALID, "steps 0");
    refuse(self, WITH(steps, 257), LW_E_INVALID, "steps 257");
    refuse(self, WITH(shift, 0), LW_E_INVALID, "shift");
    refuse(self, WITH(start_step, 1), LW_E_INVALID, "no latents");
    refuse(self, WITH(start_step, 9), LW_E_INVALID, "start_step 9");
    refuse(self, WITH(start_step, UINT64_C(1) << 32), LW_E_INVALID, "start_step 4294967296");
    refuse(self, WITH(start_step, UINT64_C(1) << 31), LW_E_INVALID, "start_step 2147483648");
    refuse(self, WITH(steps, UINT64_MAX), LW_E_INVALID, "steps");
    refuse(self, WITH(n, UINT64_MAX), LW_E_INVALID, "n 18446744073709551615");
    refuse(self, WITH(width, UINT64_MAX - 15), LW_E_INVALID, "8192");
    refuse(self, WITH(sigmas, ((lw_f64s){ .v = (double[]){ 1, 0 }, .n = 2 })), LW_E_INVALID,
           "2 values for 4 steps");
    refuse(self, WITH(sigmas, ((lw_f64s){ .v = (double[]){ 1, 0.5, 0.5, 0.2, 0 }, .n = 5 })),
           LW_E_INVALID, "sigmas[2]");
    refuse(self, WITH(guidance, -1), LW_E_INVALID, "guidance");
    refuse(self, WITH(guidance, INFINITY), LW_E_INVALID, "guidance");
    refuse(self, WITH(cfg_normalization, NAN), LW_E_INVALID, "cfg_normalization");
    refuse(self, WITH(cfg_truncation, NAN), LW_E_INVALID, "cfg_truncation");
    m = good;
    m.n_tensors = 1;
    refuse(self, &m, LW_E_INVALID, "negative_prompt_embeds");
    m.n_tensors = 0;
    refuse(self, &m, LW_E_INVALID, "prompt_embeds");

    lw_msg_set(&good, guidance, 0);
    good.n_tensors = 1;
    m = good;
    m.tensors[0].t = lw_tensor_2d(rows, LW_F32, 5, 47);
    refuse(self, &m, LW_E_SHAPE, "rows of 48");
    m.tensors[0].t = lw_tensor_2d(rows, LW_F32, 0, 48);
    refuse(self, &m, LW_E_SHAPE, "0 rows");
    m.tensors[0].t = lw_tensor_2d(rows, LW_F32, 1505, 48); /* refused before it is read */
    refuse(self, &m, LW_E_SHAPE, "1505 rows");
    m.tensors[0].t = lw_tensor_2d(rows, LW_I32, 5, 48);
    refuse(self, &m, LW_E_SHAPE, "float");
    rows[17] = NAN;
    m.tensors[0].t = lw_tensor_2d(rows, LW_F32, 5, 48);
    refuse(self, &m, LW_E_INVALID, "NaN");
    t = lw_tensor_nd(rows, LW_F32, 4, (int64_t[]){ 1, 16, 10, 9 });
    m = good;
    vt_ok(lw_msg_tensor_add(&m, LW_T_LATENTS, &t, NULL, &(lw_err){ 0 }), &(lw_err){ 0 });
    refuse(self, &m, LW_E_SHAPE, "[1, 16, 10, 8]");

    /* Finite at first, infinite inside the network: the step says so. */
    for (size_t i = 0; i < LW_ARRAY_LEN(huge); i++)
        huge[i] = 3e38f;
    t = lw_tensor_nd(huge, LW_F32, 4, (int64_t[]){ 1, 16, 10, 8 });
    m = good;
    vt_ok(lw_msg_tensor_add(&m, LW_T_LATENTS, &t, NULL, &(lw_err){ 0 }), &(lw_err){ 0 });
    refuse(self, &m, LW_E_INTERNAL, "step 1 of 4");
    huge[7] = INFINITY;
    refuse(self, &m, LW_E_INVALID, "the latents");

    /* 512x512 with this tiny model takes a few MiB; a budget of one says so before work. */
    small = open_service("", 1, 1);
    lw_msg_set(&good, width, 512);
    lw_msg_set(&good, height, 512);
    refuse(small, &good, LW_E_TOO_LARGE, "budget of a request is 1.0 MiB");
    lw_dit_service.unload(small);
    lw_dit_service.unload(self);
    lw_st_close(&f);
    json_decref(doc);
#undef WITH
}

static void test_contract(void **state)
{
    void *self = open_service("ref", 1, 0);
    lw_contract c = { 0 };

    (void)state;
    lw_dit_service.info(self, &c);
    assert_string_equal(c.model_id, "model");
    assert_int_equal(strlen(c.weights_digest), 64);
    assert_string_equal(c.backend, "ref");
    assert_int_equal(c.cap_dim, 48);
    assert_int_equal(c.max_tokens, 1504);
    assert_int_equal(c.latent_channels, 16);
    assert_int_equal(c.patch, 2);
    assert_true(c.shift == 3.0);
    lw_dit_service.unload(self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipeline),         cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_resume_same_bits), cmocka_unit_test(test_embedding_types),
        cmocka_unit_test(test_scheduler_config), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_contract),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
