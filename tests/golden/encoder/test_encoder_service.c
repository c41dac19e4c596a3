/* The encoder service from a request to its result, without sockets: prompts of the pipeline
 * against what diffusers made of them, options, limits and errors. */

#include "encoder-svc/service.h"

#include <math.h>
#include <sodium.h>

#include "common/safetensors.h"

#include "encoder-svc/files.h"

#include "tests/golden/encoder/tiny.h"
#include "tests/golden/encoder/util.h"

#define MODEL "spec/pipeline_tiny/model"
#define DIM   48

static lw_arena arena;
static void *service;

static lw_status try_load(const char *model, const char *tokenizer, int threads, int memory_mb,
                          void **ret, lw_err *err)
{
    const lw_service_config c = {
        .model = model, .tokenizer = tokenizer, .threads = threads, .memory_mb = memory_mb
    };

    return lw_encoder_service.load(&c, ret, err);
}

static int setup(void **state)
{
    lw_err err;
    lw_status st = try_load(data_path(MODEL), NULL, 2, 0, &service, &err);

    (void)state;
    setenv("LATENTWIRE_DATA_DIR", source_path(""), 1);
    lw_arena_init(&arena, "request", 0);
    if (st != LW_OK)
        fprintf(stderr, "%s\n", err.text);
    return st == LW_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    lw_encoder_service.unload(service);
    lw_arena_deinit(&arena);
    return 0;
}

static lw_msg *request(const char *prompt)
{
    static lw_msg m;

    lw_msg_init(&m, LW_MSG_TASK, (const uint8_t *)"0123456789abcdef");
    lw_msg_set(&m, op, LW_OP_ENCODE);
    if (prompt)
        lw_msg_set(&m, prompt, prompt);
    return &m;
}

static const lw_msg *run(void *self, const lw_msg *m)
{
    static lw_msg result;
    lw_err err;

    lw_arena_reset(&arena);
    assert_ok(lw_service_call(&lw_encoder_service, self, m, &arena, &result, &err), &err);
    return &result;
}

static void check_fails(void *self, const lw_msg *m, lw_status code, const char *names)
{
    static lw_msg result;
    lw_err err;

    lw_arena_reset(&arena);
    assert_error(lw_service_call(&lw_encoder_service, self, m, &arena, &result, &err), &err, code,
                 names);
}

static const lw_tensor *tensor(const lw_msg *m, const char *name)
{
    const lw_msg_tensor *t = lw_msg_tensor_find(m, name);

    if (!t)
        fail_msg("the result has no %s", name);
    return &t->t;
}

/* ---- the pipeline's own prompts ----------------------------------------------------------------
 */

static void check_ids(const lw_msg *result, const json_t *expected)
{
    const lw_tensor *t = tensor(result, LW_T_TOKEN_IDS);

    assert_int_equal(t->dtype, LW_I32);
    assert_int_equal(t->shape[0], json_array_size(expected));
    assert_int_equal(result->n_tokens, json_array_size(expected));
    for (size_t i = 0; i < json_array_size(expected); i++)
        assert_int_equal(((int32_t *)t->data)[i], json_integer_value(json_array_get(expected, i)));
}

static void check_rows(const lw_msg *result, const lw_tensor *expected)
{
    const lw_tensor *t = tensor(result, LW_T_PROMPT_EMBEDS);
    const float *got = lw_f32(t), *e = lw_f32(expected);
    const int64_t n = t->shape[0] * DIM;
    double sum = 0, squares = 0, worst = 0;

    assert_int_equal(t->dtype, LW_F32);
    assert_int_equal(t->shape[0], expected->shape[0]);
    assert_int_equal(t->shape[1], DIM);
    for (int64_t i = 0; i < n; i++)
        sum += e[i];
    for (int64_t i = 0; i < n; i++) {
        squares += (e[i] - sum / (double)n) * (e[i] - sum / (double)n);
        worst = fmax(worst, fabs((double)got[i] - e[i]));
    }
    worst /= sqrt(squares / (double)n);
    print_message("           largest error %.1e of std (bound 1e-04)\n", worst);
    assert_true(worst <= 1e-4);
}

static void check_digest(const lw_msg *result, const char *text)
{
    uint8_t hash[32];
    char hex[65];

    crypto_generichash(hash, sizeof hash, (const uint8_t *)text, strlen(text), NULL, 0);
    sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
    assert_string_equal(result->text_digest, hex);
}

static const char *str(const json_t *c, const char *key)
{
    return json_string_value(json_object_get(c, key));
}

static void check_prompt(void *self, const char *prompt, const json_t *ids, const lw_tensor *rows,
                         const char *same_as_before, char **ret_bits)
{
    const lw_msg *result = run(self, request(prompt));
    size_t bytes = lw_tensor_bytes(rows);

    assert_false(result->truncated);
    check_ids(result, ids);
    check_rows(result, rows);
    if (same_as_before)
        assert_memory_equal(tensor(result, LW_T_PROMPT_EMBEDS)->data, same_as_before, bytes);
    *ret_bits = realloc(*ret_bits, bytes);
    assert_non_null(*ret_bits);
    memcpy(*ret_bits, tensor(result, LW_T_PROMPT_EMBEDS)->data, bytes);
}

/* The prompts of diffusers' two cases, on the reference and on this build's best back end; one and
 * two threads give the same bits. */
static void check_pipeline_case(const json_t *cases, const char *name, const char *backend)
{
    const json_t *c = json_object_get(cases, name);
    char path[64], *positive = NULL, *negative = NULL;
    lw_st_file *f = NULL;
    lw_err err;

    snprintf(path, sizeof path, "spec/pipeline_tiny/%s/tensors.safetensors", name);
    assert_ok(lw_st_open(data_path(path), &f, &err), &err);
    for (int threads = 1; threads <= 2; threads++) {
        void *self = NULL;

        setenv("LATENTWIRE_BACKEND", backend, 1);
        assert_ok(try_load(data_path(MODEL), NULL, threads, 0, &self, &err), &err);
        check_prompt(self, str(c, "prompt"), json_object_get(c, "token_ids"),
                     &lw_st_find(f, "prompt_embeds")->t, positive, &positive);
        check_digest(run(self, request(str(c, "prompt"))), str(c, "formatted_prompt"));
        if (str(c, "negative_prompt"))
            check_prompt(self, str(c, "negative_prompt"), json_object_get(c, "negative_token_ids"),
                         &lw_st_find(f, "negative_prompt_embeds")->t, negative, &negative);
        lw_encoder_service.unload(self);
    }
    unsetenv("LATENTWIRE_BACKEND");
    free(positive);
    free(negative);
    lw_st_close(&f);
}

static bool has_onednn(void)
{
    tiny_backend b;
    bool same, has;

    tiny_backend_open(tiny_n_backends() - 1, &b, &same);
    has = strstr(b.k.name, "onednn") != NULL;
    tiny_backend_close(&b);
    return has;
}

static void test_pipeline_prompts(void **state)
{
    json_t *root = load_json(data_path("spec/pipeline_tiny/cases.json"));
    const json_t *cases = json_object_get(root, "cases");
    const char *const backends[] = { "ref", "onednn" };

    (void)state;
    for (size_t i = 0; i < (has_onednn() ? 2 : 1); i++) {
        check_pipeline_case(cases, "a", backends[i]);
        check_pipeline_case(cases, "b", backends[i]);
    }
    json_decref(root);
}

/* ---- what a request can say --------------------------------------------------------------------
 */

static void test_text_fields(void **state)
{
    lw_msg *m;

    (void)state;
    m = request("p");
    lw_msg_set(m, system_prompt, "s");
    lw_msg_set(m, thinking, "t");
    lw_msg_set(m, assistant, "a");
    check_digest(run(service, m),
                 "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\np<|im_end|>\n<|im_start|>"
                 "assistant\n<think>\nt\n</think>\n\na<|im_end|>");
    m = request("");
    lw_msg_set(m, think_block, true);
    check_digest(run(service, m), "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
                                  "<think>\n\n</think>\n\n");
    m = request("<|im_start|>x");
    lw_msg_set(m, raw, true);
    check_digest(run(service, m), "<|im_start|>x");
    assert_int_equal(run(service, m)->n_tokens, 2);
}

/* All states, counted from both ends; the default is the last but one. */
static void test_layers(void **state)
{
    float by_default[3 * DIM], positive[3 * DIM];
    lw_msg *m = request("abc");

    (void)state;
    lw_msg_set(m, raw, true);
    memcpy(by_default, lw_f32(tensor(run(service, m), LW_T_PROMPT_EMBEDS)), sizeof by_default);
    for (int64_t layer = 0; layer <= 3; layer++) {
        lw_msg_set(m, layer, layer);
        memcpy(positive, lw_f32(tensor(run(service, m), LW_T_PROMPT_EMBEDS)), sizeof positive);
        lw_msg_set(m, layer, layer - 4);
        assert_memory_equal(positive, lw_f32(tensor(run(service, m), LW_T_PROMPT_EMBEDS)),
                            sizeof positive);
        assert_int_equal(memcmp(positive, by_default, sizeof positive) == 0, layer == 2);
    }
    lw_msg_set(m, layer, 4);
    check_fails(service, m, LW_E_INVALID, "layer 4");
    lw_msg_set(m, layer, -5);
    check_fails(service, m, LW_E_INVALID, "layer -5");
    lw_msg_set(m, layer, INT64_MIN);
    check_fails(service, m, LW_E_INVALID, "layer -9223372036854775808");
}

static char *long_prompt(size_t n)
{
    char *text = malloc(n + 1);

    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        text[i] = "lantern 7 "[i % 10];
    text[n] = '\0';
    return text;
}

/* The cut is on the right, so that the rows before it stay what they were. */
static void test_truncation(void **state)
{
    char *text = long_prompt(8000);
    lw_msg *m = request(text);
    const lw_msg *result = run(service, m);
    int32_t ids[512];
    float rows[40 * DIM];

    (void)state;
    assert_int_equal(result->n_tokens, 512);
    assert_true(result->truncated);
    memcpy(ids, tensor(result, LW_T_TOKEN_IDS)->data, sizeof ids);
    memcpy(rows, tensor(result, LW_T_PROMPT_EMBEDS)->data, sizeof rows);
    lw_msg_set(m, max_tokens, 40);
    result = run(service, m);
    assert_int_equal(result->n_tokens, 40);
    assert_true(result->truncated);
    assert_memory_equal(ids, tensor(result, LW_T_TOKEN_IDS)->data, 40 * sizeof *ids);
    for (int i = 0; i < 40 * DIM; i++)
        assert_true(fabsf(rows[i] - lw_f32(tensor(result, LW_T_PROMPT_EMBEDS))[i]) < 1e-4f);
    lw_msg_set(m, max_tokens, LW_ENCODER_MAX_TOKENS);
    assert_true(run(service, m)->n_tokens > 512);
    assert_false(run(service, m)->truncated);
    /* A prompt of exactly max_tokens tokens is not cut. */
    m = request("abc");
    lw_msg_set(m, raw, true);
    lw_msg_set(m, max_tokens, 3);
    assert_false(run(service, m)->truncated);
    lw_msg_set(m, max_tokens, 2);
    assert_true(run(service, m)->truncated);
    free(text);
}

static void test_bad_requests(void **state)
{
    char *megabyte = long_prompt((size_t)1 << 20);
    lw_msg *m;

    (void)state;
    check_fails(service, request(NULL), LW_E_INVALID, "prompt");
    check_fails(service, request("caf\xc3"), LW_E_INVALID, "not valid UTF-8");
    check_fails(service, request(megabyte), LW_E_TOO_LARGE, "formatted prompt");
    m = request("x");
    lw_msg_set(m, op, LW_OP_DENOISE);
    check_fails(service, m, LW_E_UNIMPLEMENTED, "does not denoise");
    m = request("x");
    lw_msg_set(m, max_tokens, 0);
    check_fails(service, m, LW_E_INVALID, "max_tokens 0");
    lw_msg_set(m, max_tokens, LW_ENCODER_MAX_TOKENS + 1);
    check_fails(service, m, LW_E_INVALID, "max_tokens 4097");
    m = request("");
    lw_msg_set(m, raw, true);
    check_fails(service, m, LW_E_INVALID, "raw prompt must not be empty");
    m = request("x");
    lw_msg_set(m, raw, true);
    lw_msg_set(m, system_prompt, "s");
    check_fails(service, m, LW_E_INVALID, "system_prompt");
    m = request("x");
    lw_msg_set(m, raw, true);
    lw_msg_set(m, think_block, true);
    check_fails(service, m, LW_E_INVALID, "think_block");
    free(megabyte);
    /* The service is as good as before. */
    assert_int_equal(run(service, request("x"))->n_tokens > 0, true);
}

static void test_memory_budget(void **state)
{
    char *text = long_prompt(20000);
    lw_msg *m = request(text);
    void *small = NULL;
    lw_err err;

    (void)state;
    assert_ok(try_load(data_path(MODEL), NULL, 1, 1, &small, &err), &err);
    lw_msg_set(m, max_tokens, LW_ENCODER_MAX_TOKENS);
    check_fails(small, m, LW_E_TOO_LARGE, "budget of a request is 1.0 MiB");
    lw_msg_set(m, max_tokens, 100);
    assert_int_equal(run(small, m)->n_tokens, 100);
    lw_encoder_service.unload(small);
    free(text);
}

/* ---- start -------------------------------------------------------------------------------------
 */

static void test_contract(void **state)
{
    lw_contract c = { 0 };

    (void)state;
    lw_encoder_service.info(service, &c);
    assert_string_equal(c.model_id, "model");
    assert_int_equal(strlen(c.weights_digest), 64);
    assert_int_equal(strlen(c.tokenizer_digest), 64);
    assert_int_equal(c.dim, DIM);
    assert_int_equal(c.blocks, 2);
    assert_true(lw_contract_has(&c, normed));
    assert_false(c.normed);
    assert_string_equal(c.scale, "raw");
    assert_string_equal(c.precision, "f32");
    assert_int_equal(c.max_tokens, 512);
    assert_true(strlen(c.backend) > 0);
}

/* The same weights as pipeline folder, text_encoder folder, or one file with a tokenizer named. */
static void test_ways_to_name_a_model(void **state)
{
    const char *const ways[][2] = {
        { MODEL "/", NULL },
        { MODEL "/text_encoder", NULL },
        { MODEL "/text_encoder/model.safetensors", MODEL "/tokenizer" },
    };
    float expected[3 * DIM];
    lw_msg *m = request("abc");

    (void)state;
    lw_msg_set(m, raw, true);
    memcpy(expected, lw_f32(tensor(run(service, m), LW_T_PROMPT_EMBEDS)), sizeof expected);
    for (size_t i = 0; i < LW_ARRAY_LEN(ways); i++) {
        void *self = NULL;
        lw_err err;

        assert_ok(try_load(data_path(ways[i][0]), ways[i][1] ? data_path(ways[i][1]) : NULL, 1, 0,
                           &self, &err),
                  &err);
        assert_memory_equal(expected, lw_f32(tensor(run(self, m), LW_T_PROMPT_EMBEDS)),
                            sizeof expected);
        lw_encoder_service.unload(self);
    }
}

static void test_shipped_tokenizer(void **state)
{
    lw_encoder_files files;
    lw_err err;
    void *self = NULL;
    char expected[1100];

    (void)state;
    snprintf(expected, sizeof expected, "%s/models/qwen3-tokenizer", source_path(""));
    assert_ok(
        lw_encoder_find(data_path(MODEL "/text_encoder/model.safetensors"), NULL, &files, &err),
        &err);
    assert_string_equal(files.tokenizer, expected);
    /* That tokenizer has more ids than the tiny model has rows. */
    assert_error(
        try_load(data_path(MODEL "/text_encoder/model.safetensors"), NULL, 1, 0, &self, &err), &err,
        LW_E_PRECONDITION, "--tokenizer");
}

static void test_bad_start(void **state)
{
    const char *folder = tiny_folder_make();
    lw_service_config c = { .model = data_path(MODEL), .device = "cuda:0" };
    void *self = NULL;
    lw_err err;

    (void)state;
    assert_error(lw_encoder_service.load(&c, &self, &err), &err, LW_E_UNIMPLEMENTED, "cuda:0");
    c = (lw_service_config){ .model = data_path(MODEL), .weights = "int3" };
    assert_error(lw_encoder_service.load(&c, &self, &err), &err, LW_E_INVALID, "int3");
    assert_error(try_load(NULL, NULL, 1, 0, &self, &err), &err, LW_E_INVALID, "--model");
    assert_error(try_load("/nonexistent/model", NULL, 1, 0, &self, &err), &err, LW_E_NOT_FOUND,
                 "/nonexistent/model");
    assert_error(try_load(data_path(MODEL), "/nonexistent", 1, 0, &self, &err), &err,
                 LW_E_NOT_FOUND, "--tokenizer /nonexistent");
    assert_error(try_load(folder, NULL, 1, 0, &self, &err), &err, LW_E_NOT_FOUND, folder);
    assert_null(self);
    tiny_folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipeline_prompts),
        cmocka_unit_test(test_text_fields),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_memory_budget),
        cmocka_unit_test(test_contract),
        cmocka_unit_test(test_ways_to_name_a_model),
        cmocka_unit_test(test_shipped_tokenizer),
        cmocka_unit_test(test_bad_start),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
