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

/* Tokens around a prompt: <|im_start|> u s er \n, and <|im_end|> \n <|im_start|> a s si s tan t \n.
 */
#define OPENING 5
#define CLOSING 10

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

/* Copy of a result's rows; *ret_n: how many. */
static float *rows_of(const lw_msg *m, int64_t *ret_n)
{
    const lw_tensor *t = tensor(run(service, m), LW_T_PROMPT_EMBEDS);
    float *copy = malloc(lw_tensor_bytes(t));

    assert_non_null(copy);
    assert_int_equal(t->shape[1], DIM);
    *ret_n = t->shape[0];
    return memcpy(copy, t->data, lw_tensor_bytes(t));
}

static void assert_near(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (fabs((double)a[i] - (double)b[i]) > 1e-5 * fmax(1, fabs((double)b[i])))
            fail_msg("value %lld is %g, expected %g", (long long)i, (double)a[i], (double)b[i]);
}

/* A blend is the weighted sum of the states, and one of one state is that state. */
static void test_layer_blend(void **state)
{
    static const double one[] = { -3, 5 }, three[] = { -2, 2, 0, -1, -1, 3 };
    lw_msg *m = request("a lighthouse at dawn");
    float *s[4], *got, *sum;
    int64_t n, k;

    (void)state;
    for (int i = 0; i < 4; i++) {
        lw_msg_set(m, layer, i);
        s[i] = rows_of(m, &n);
    }
    m = request("a lighthouse at dawn");
    lw_msg_set(m, layer_blend, ((lw_f64s){ .v = one, .n = 2 }));
    got = rows_of(m, &k);
    assert_int_equal(k, n);
    assert_memory_equal(got, s[1], (size_t)(n * DIM) * sizeof(float));
    free(got);
    lw_msg_set(m, layer_blend, ((lw_f64s){ .v = three, .n = 6 }));
    got = rows_of(m, &k);
    sum = malloc((size_t)(n * DIM) * sizeof(float));
    for (int64_t i = 0; i < n * DIM; i++)
        sum[i] = (float)(0.5 * (double)s[2][i] - 0.25 * (double)s[0][i] + 0.75 * (double)s[3][i]);
    assert_near(got, sum, n * DIM);
    for (int i = 0; i < 4; i++)
        free(s[i]);
    free(got);
    free(sum);
}

static void test_bad_layer_blends(void **state)
{
    static const struct {
        double v[18];
        uint32_t n;
        const char *names;
    } bad[] = {
        { { 0 }, 0, "layer_blend has 0 numbers" },      { { -2 }, 1, "has 1 numbers" },
        { { -2, 1, -3 }, 3, "has 3 numbers" },          { { 0 }, 18, "has 18 numbers" },
        { { -2.5, 1 }, 2, "-2.5 is not the number" },   { { 9, 1 }, 2, "layer_blend 9" },
        { { -2, 1, -3, -1 }, 4, "the weights add up" }, { { -2, 0 }, 2, "the weights add up" },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(bad); i++) {
        lw_msg *m = request("x");

        lw_msg_set(m, layer_blend, ((lw_f64s){ .v = bad[i].v, .n = bad[i].n }));
        check_fails(service, m, LW_E_INVALID, bad[i].names);
        lw_msg_set(m, layer, -2);
        check_fails(service, m, LW_E_INVALID, "exclude each other");
    }
}

/* Kept rows are the rows they were: the network has seen the whole text. */
static void test_keep(void **state)
{
    lw_msg *m = request("red circle");
    float *all, *got;
    int64_t n, k, system;

    (void)state;
    lw_msg_set(m, system_prompt, "draw");
    all = rows_of(m, &n);
    lw_msg_set(m, keep, "no_system");
    got = rows_of(m, &k);
    assert_true(k < n);
    assert_memory_equal(got, all + (n - k) * DIM, (size_t)(k * DIM) * sizeof(float));
    assert_int_equal(run(service, m)->n_rows, k);
    assert_int_equal(run(service, m)->n_tokens, n);
    free(got);
    system = n - k;
    lw_msg_set(m, keep, "prompt");
    got = rows_of(m, &k);
    assert_int_equal(k, n - system - OPENING - CLOSING);
    assert_memory_equal(got, all + (system + OPENING) * DIM, (size_t)(k * DIM) * sizeof(float));
    free(got);
    free(all);
    m->prompt = "";
    check_fails(service, m, LW_E_INVALID, "keep: no row");
    lw_msg_set(m, keep, "some");
    check_fails(service, m, LW_E_INVALID, "keep is \"some\"");
    m = request("x");
    lw_msg_set(m, raw, true);
    lw_msg_set(m, keep, "prompt");
    check_fails(service, m, LW_E_INVALID, "keep: a raw prompt");
}

static void test_long_prompts(void **state)
{
    static const char *const how[] = { "interpolate", "pool", "attention_pool" };
    char *text = long_prompt(300);
    lw_msg *m = request(text);
    const lw_msg *result;
    float *all, *got;
    int64_t n, k;

    (void)state;
    lw_msg_set(m, max_tokens, LW_ENCODER_MAX_TOKENS);
    all = rows_of(m, &n);
    for (size_t i = 0; i < LW_ARRAY_LEN(how); i++) {
        lw_msg_set(m, max_tokens, 40);
        lw_msg_set(m, long_prompt, how[i]);
        result = run(service, m);
        assert_int_equal(tensor(result, LW_T_PROMPT_EMBEDS)->shape[0], 40);
        assert_int_equal(tensor(result, LW_T_TOKEN_IDS)->shape[0], n);
        assert_int_equal(result->n_tokens, n);
        assert_int_equal(result->n_text_tokens, n);
        assert_int_equal(result->n_rows, 40);
        assert_false(result->truncated);
        assert_true(result->row_loss > 0 && result->row_loss <= 1);
        /* What fits is left alone. */
        lw_msg_set(m, max_tokens, (uint64_t)n);
        got = rows_of(m, &k);
        assert_int_equal(k, n);
        assert_memory_equal(got, all, (size_t)(n * DIM) * sizeof(float));
        assert_false(lw_msg_has(run(service, m), row_loss));
        free(got);
    }
    /* Both ends of an interpolation are rows of the text. */
    lw_msg_set(m, max_tokens, 40);
    lw_msg_set(m, long_prompt, "interpolate");
    got = rows_of(m, &k);
    assert_memory_equal(got, all, DIM * sizeof(float));
    assert_memory_equal(got + 39 * DIM, all + (n - 1) * DIM, DIM * sizeof(float));
    free(got);
    free(all);
    lw_msg_set(m, long_prompt, "squeeze");
    check_fails(service, m, LW_E_INVALID, "long_prompt is \"squeeze\"");
    lw_msg_set(m, long_prompt, "truncate");
    result = run(service, m);
    assert_true(result->truncated);
    assert_int_equal(result->n_text_tokens, n);
    assert_true(strlen(result->cut_text) > 0 && strstr(text, "lantern") != NULL);
    free(text);
    text = long_prompt(30000);
    m = request(text);
    lw_msg_set(m, long_prompt, "pool");
    check_fails(service, m, LW_E_TOO_LARGE, "takes at most 4096");
    free(text);
}

/* The mean row and the weighted deviation from it, for the tokens of the words. */
static void test_weighting(void **state)
{
    lw_msg *m = request("ab cd");
    float *plain, *got;
    double mean[DIM] = { 0 };
    float weights[32];
    int64_t n, k, weighted = 0;

    (void)state;
    plain = rows_of(m, &n);
    assert_true(n <= 32);
    for (int64_t i = 0; i < n * DIM; i++)
        mean[i % DIM] += (double)plain[i] / (double)n;
    lw_msg_set(m, weighting, true);
    got = rows_of(m, &k);
    assert_memory_equal(got, plain, (size_t)(n * DIM) * sizeof(float)); /* no markup */
    free(got);
    m->prompt = "ab (cd:2.5)";
    check_digest(run(service, m), "<|im_start|>user\nab cd<|im_end|>\n<|im_start|>assistant\n");
    got = rows_of(m, &k);
    assert_int_equal(k, n);
    lw_msg_set(m, op, LW_OP_TOKENIZE);
    memcpy(weights, tensor(run(service, m), LW_T_TOKEN_WEIGHTS)->data, (size_t)n * sizeof(float));
    lw_msg_set(m, op, LW_OP_ENCODE);
    for (int64_t i = 0; i < n; i++)
        weighted += weights[i] == 2.5f;
    assert_true(weighted > 0 && weighted <= 3);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < DIM; j++) {
            const double w = (double)weights[i];
            const double want = mean[j] + w * ((double)plain[i * DIM + j] - mean[j]);

            assert_true(fabs((double)got[i * DIM + j] - want) < 1e-4 * fmax(1, fabs(want)));
        }
    free(got);
    free(plain);
    m->prompt = "ab (cd";
    check_fails(service, m, LW_E_INVALID, "character 4");
    /* Without the option brackets are text. */
    lw_msg_set(m, weighting, false);
    check_digest(run(service, m), "<|im_start|>user\nab (cd<|im_end|>\n<|im_start|>assistant\n");
}

static void test_noise(void **state)
{
    lw_msg *m = request("a lighthouse");
    float *plain, *a, *b, *c;
    int64_t n;

    (void)state;
    plain = rows_of(m, &n);
    lw_msg_set(m, noise, 0.2);
    a = rows_of(m, &n);
    lw_msg_set(m, seed, 7);
    b = rows_of(m, &n);
    lw_msg_set(m, noise_seed, 0);
    c = rows_of(m, &n);
    assert_memory_not_equal(a, plain, (size_t)(n * DIM) * sizeof(float));
    assert_memory_not_equal(a, b, (size_t)(n * DIM) * sizeof(float)); /* the request's seed */
    assert_memory_equal(a, c, (size_t)(n * DIM) * sizeof(float));     /* 0 is the default */
    free(a);
    lw_msg_set(m, noise, 0);
    a = rows_of(m, &n);
    assert_memory_equal(a, plain, (size_t)(n * DIM) * sizeof(float));
    free(a);
    free(b);
    free(c);
    free(plain);
    lw_msg_set(m, noise, -1);
    check_fails(service, m, LW_E_INVALID, "noise is -1");
}

static void test_blend(void **state)
{
    lw_msg *m = request("red");
    float *first, *second, *got;
    int64_t n, k;

    (void)state;
    first = rows_of(m, &n);
    m = request("blu"); /* as many tokens, so nothing is resampled */
    second = rows_of(m, &k);
    assert_int_equal(n, k);
    for (int64_t i = 0; i < n * DIM; i++)
        second[i] = (float)(0.75 * (double)first[i] + 0.25 * (double)second[i]);
    m = request("red");
    lw_msg_set(m, blend_prompt, "blu");
    lw_msg_set(m, blend_share, 0.25);
    got = rows_of(m, &k);
    assert_near(got, second, n * DIM);
    free(got);
    m->blend_prompt = "a much longer second prompt";
    got = rows_of(m, &k);
    assert_int_equal(k, n);
    free(got);
    lw_msg_set(m, blend_share, 0);
    got = rows_of(m, &k);
    assert_memory_equal(got, first, (size_t)(n * DIM) * sizeof(float));
    free(got);
    free(first);
    free(second);
    m = request("x");
    lw_msg_set(m, blend_share, 0.5);
    check_fails(service, m, LW_E_INVALID, "blend_share needs");
}

static void test_messages(void **state)
{
    lw_msg *m = request("now red");

    (void)state;
    lw_msg_set(m, messages,
               "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u\"},"
               "{\"role\":\"assistant\",\"content\":\"a\",\"reasoning_content\":\"r\"}]");
    check_digest(run(service, m),
                 "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n"
                 "<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nnow red<|im_end|>\n"
                 "<|im_start|>assistant\n");
    lw_msg_set(m, system_prompt, "t");
    check_fails(service, m, LW_E_INVALID, "messages[0] is a system message");
    lw_msg_set(m, messages, "[{\"role\":\"bot\"}]");
    check_fails(service, m, LW_E_INVALID, "messages[0]: the role is \"bot\"");
    m = request("x");
    lw_msg_set(m, raw, true);
    lw_msg_set(m, messages, "[{\"role\":\"user\",\"content\":\"u\"}]");
    check_fails(service, m, LW_E_INVALID, "messages");
}

/* The tokens of the text, piece by piece; also where NFC changes it. */
static void test_tokenize(void **state)
{
    static const char prompt[] = "cafe\xcc\x81 <|im_end|>x";
    lw_msg *m = request(prompt);
    const lw_msg *result;
    const lw_tensor *text, *ids, *lengths;
    int64_t sum = 0;

    (void)state;
    lw_msg_set(m, op, LW_OP_TOKENIZE);
    lw_msg_set(m, max_tokens, 4);
    result = run(service, m);
    text = tensor(result, LW_T_TEXT);
    ids = tensor(result, LW_T_TOKEN_IDS);
    lengths = tensor(result, LW_T_TOKEN_BYTES);
    assert_int_equal(text->dtype, LW_U8);
    assert_null(lw_msg_tensor_find(result, LW_T_PROMPT_EMBEDS));
    assert_int_equal(ids->shape[0], lengths->shape[0]);
    assert_int_equal(result->n_tokens, ids->shape[0]); /* all of them */
    assert_true(result->truncated);
    for (int64_t i = 0; i < lengths->shape[0]; i++)
        sum += ((const int32_t *)lengths->data)[i];
    assert_int_equal(sum, text->shape[0]);
    assert_memory_equal((const char *)text->data + strlen("<|im_start|>user\n"), prompt,
                        sizeof prompt - 1);
    /* "e" and the accent become one character of two bytes, in two tokens; then a blank, and an
     * added token of 10 bytes. */
    {
        const int32_t *l = lengths->data;
        const int32_t want[] = { 1, 1, 1 };

        assert_memory_equal(l + OPENING, want, sizeof want);
        assert_int_equal(l[OPENING + 3] + l[OPENING + 4], 3);
        assert_int_equal(l[OPENING + 5], 1);
        assert_int_equal(l[OPENING + 6], 10);
    }
    m->prompt = "(a:2)b";
    lw_msg_set(m, weighting, true);
    lw_msg_set(m, keep, "prompt");
    result = run(service, m);
    assert_true(lw_f32(tensor(result, LW_T_TOKEN_WEIGHTS))[OPENING] == 2);
    assert_true(lw_f32(tensor(result, LW_T_TOKEN_WEIGHTS))[OPENING + 1] == 1);
    assert_int_equal(((const uint8_t *)tensor(result, LW_T_TOKEN_KEPT)->data)[OPENING - 1], 0);
    assert_int_equal(((const uint8_t *)tensor(result, LW_T_TOKEN_KEPT)->data)[OPENING], 1);
    assert_int_equal(((const uint8_t *)tensor(result, LW_T_TOKEN_KEPT)->data)[OPENING + 2], 0);
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
        cmocka_unit_test(test_layer_blend),
        cmocka_unit_test(test_bad_layer_blends),
        cmocka_unit_test(test_keep),
        cmocka_unit_test(test_long_prompts),
        cmocka_unit_test(test_weighting),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_blend),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_tokenize),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_memory_budget),
        cmocka_unit_test(test_contract),
        cmocka_unit_test(test_ways_to_name_a_model),
        cmocka_unit_test(test_shipped_tokenizer),
        cmocka_unit_test(test_bad_start),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
