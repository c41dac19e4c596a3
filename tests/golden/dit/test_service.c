/*
 * The denoiser service without sockets: the whole walk of diffusers' ZImagePipeline from embeddings
 * to latents, batches, resuming, several threads, and requests that must be refused.
 */
#include "tests/golden/dit/fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    refuse(self, WITH(guidance, -1), LW_E_INVALID, "guidance");
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
        cmocka_unit_test(test_pipeline),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_contract),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
