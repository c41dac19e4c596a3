/* Hidden states of Qwen3 against transformers, on every CPU back end of this build and with several
 * numbers of threads, which must give the same bits. */

#include "encoder-svc/qwen3.h"

#include <math.h>

#include "tests/golden/encoder/tiny.h"
#include "tests/golden/encoder/util.h"

/* Largest error allowed, in standard deviations of the state: the bound of the project's issue. The
 * reference itself differs from a run in f64 by 4e-6 to 8e-6. */
#define BOUND 1e-4

static lw_arena arena;
static double worst; /* of a test, for its report */

static int setup(void **state)
{
    (void)state;
    lw_arena_init(&arena, "test", 0);
    worst = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (worst > 0)
        print_message("           largest error %.1e of std (bound %.0e)\n", worst, BOUND);
    lw_arena_deinit(&arena);
    return 0;
}

static lw_tensor matrix(int64_t rows, int64_t cols)
{
    lw_tensor t;
    lw_err err;

    assert_ok(lw_tensor_alloc(&arena, LW_F32, 2, (const int64_t[]){ rows, cols }, &t, &err), &err);
    return t;
}

static double deviation(const float *x, int64_t n)
{
    double sum = 0, squares = 0;

    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    sum /= (double)n;
    for (int64_t i = 0; i < n; i++)
        squares += (x[i] - sum) * (x[i] - sum);
    return sqrt(squares / (double)n);
}

static void check_close(const float *got, const float *expected, int64_t n, double std,
                        const char *what)
{
    for (int64_t i = 0; i < n; i++) {
        double off = fabs((double)got[i] - expected[i]) / std;

        if (!(off <= BOUND))
            fail_msg("%s: item %lld is %.9g, expected %.9g (%.1e of std, bound %.0e)", what,
                     (long long)i, got[i], expected[i], off, BOUND);
        worst = off > worst ? off : worst;
    }
}

static lw_qwen3 *open_model(const char *path, lw_keep keep, tiny_backend *b)
{
    lw_qwen3 *m = NULL;
    lw_err err;

    assert_ok(lw_qwen3_load(path, keep, &b->k, &m, &err), &err);
    return m;
}

static lw_tensor forward(lw_qwen3 *m, const int32_t *ids, int64_t n, int64_t state)
{
    lw_tensor x = matrix(n, lw_qwen3_get_config(m)->d_model);
    lw_err err;

    assert_ok(lw_qwen3_forward(m, ids, n, state, NULL, NULL, &x, &err), &err);
    return x;
}

static const lw_tensor *find(const lw_st_file *f, const char *fmt, int n)
{
    char name[64];
    const lw_st_entry *e;

    snprintf(name, sizeof name, fmt, n);
    e = lw_st_find(f, name);
    if (!e)
        fail_msg("no tensor %s in %s", name, f->path);
    return &e->t;
}

static lw_st_file *open_tensors(const char *path)
{
    lw_st_file *f = NULL;
    lw_err err;

    assert_ok(lw_st_open(path, &f, &err), &err);
    return f;
}

/* ---- transformers 5.12, the tiny model of the spec ---------------------------------------------
 */

static const int spec_lengths[] = { 1, 7, 33, 130 };
#define SPEC_STATES 5
#define SPEC_D      80

static void test_spec_states(void **state)
{
    lw_st_file *f = open_tensors(data_path("spec/qwen3_tiny/hidden_states.safetensors"));
    lw_tensor before[4][SPEC_STATES];

    (void)state;
    for (int i = 0; i < tiny_n_backends(); i++) {
        tiny_backend b;
        bool same;
        lw_qwen3 *m;

        tiny_backend_open(i, &b, &same);
        m = open_model(data_path("spec/qwen3_tiny"), LW_KEEP_STORED, &b);
        for (int l = 0; l < 4; l++) {
            const int64_t n = spec_lengths[l], count = n * SPEC_D;
            const lw_tensor *ids = find(f, "token_ids_%d", (int)n);
            const lw_tensor *expected = find(f, "hidden_states_%d", (int)n);

            for (int64_t s = 0; s < SPEC_STATES; s++) {
                lw_tensor x = forward(m, ids->data, n, s);
                const float *e = lw_f32(expected) + s * count;

                check_close(lw_f32(&x), e, count, deviation(e, count), b.k.name);
                if (same)
                    assert_memory_equal(x.data, before[l][s].data, lw_tensor_bytes(&x));
                before[l][s] = x;
            }
        }
        lw_qwen3_destroy(&m);
        tiny_backend_close(&b);
    }
    lw_st_close(&f);
}

/* ---- transformers 5.23, odd sizes --------------------------------------------------------------
 */

static void make_ids(int64_t n, int64_t vocab, int32_t *ret)
{
    for (int64_t k = 0; k < n; k++)
        ret[k] =
            (int32_t)floor((tiny_value((uint32_t)(9100 + n), (uint32_t)k) + 0.5) * (double)vocab);
}

/* Rows that are stored, and the product of every row with w. */
static void check_state(const lw_tensor *x, const lw_st_file *f, int64_t s)
{
    const int n = (int)x->shape[0];
    const int64_t D = x->shape[1];
    const lw_tensor *rows = find(f, "rows_%d", n), *expected = find(f, "state_%d", n);
    const int64_t n_rows = rows->shape[0];
    const float std = lw_f32(find(f, "std_%d", n))[s];
    const float *proj = lw_f32(find(f, "proj_%d", n)) + s * n;
    double sum_w = 0;

    for (int64_t r = 0; r < n_rows; r++)
        check_close(lw_f32(x) + ((int32_t *)rows->data)[r] * D,
                    lw_f32(expected) + (s * n_rows + r) * D, D, std, "row");
    for (int64_t j = 0; j < D; j++)
        sum_w += fabs(tiny_value(77, (uint32_t)j));
    for (int64_t i = 0; i < n; i++) {
        double dot = 0;

        for (int64_t j = 0; j < D; j++)
            dot += lw_f32(x)[i * D + j] * tiny_value(77, (uint32_t)j);
        if (!(fabs(dot - proj[i]) <= BOUND * std * sum_w))
            fail_msg("row %lld times w is %.9g, expected %.9g", (long long)i, dot, proj[i]);
    }
}

static void check_config(const char *name, const json_t *config, int backend)
{
    char file[128], path[256];
    const char *folder = tiny_folder_make();
    const int64_t vocab = json_integer_value(json_object_get(config, "vocab_size"));
    static const int lengths[] = { 1, 2, 17, 77, 300, 700 };
    int32_t ids[700];
    lw_st_file *f;
    tiny_backend b;
    lw_qwen3 *m;
    bool same;

    snprintf(file, sizeof file, "qwen3/%s.safetensors", name);
    f = open_tensors(data_path(file));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    tiny_write(config, path, &(tiny_options){ 0 });
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(json_dump_file(config, path, 0), 0);

    tiny_backend_open(backend, &b, &same);
    m = open_model(folder, LW_KEEP_STORED, &b);
    for (size_t l = 0; l < LW_ARRAY_LEN(lengths); l++) {
        make_ids(lengths[l], vocab, ids);
        for (int64_t s = 0; s <= lw_qwen3_get_config(m)->n_layers; s++) {
            lw_arena_mark mark = lw_arena_mark_get(&arena);
            lw_tensor x = forward(m, ids, lengths[l], s);

            check_state(&x, f, s);
            lw_arena_release(&arena, mark);
        }
    }
    lw_qwen3_destroy(&m);
    tiny_backend_close(&b);
    lw_st_close(&f);
    tiny_folder_remove(folder);
}

static void test_odd_configs(void **state)
{
    json_t *root = load_json(data_path("qwen3/cases.json"));
    const char *name;
    json_t *c;
    int n = 0;

    (void)state;
    json_object_foreach(json_object_get(root, "cases"), name, c)
    {
        check_config(name, json_object_get(c, "config"), 0);
        check_config(name, json_object_get(c, "config"), 3);
        n++;
    }
    assert_int_equal(n, 4);
    json_decref(root);
}

/* ---- how the weights come ----------------------------------------------------------------------
 */

typedef struct fixture {
    char folder[64], file[96], config_file[96];
    json_t *cases, *config;
    tiny_backend b;
} fixture;

static void fixture_open(fixture *x, const tiny_options *o)
{
    bool same;

    snprintf(x->folder, sizeof x->folder, "%s", tiny_folder_make());
    snprintf(x->file, sizeof x->file, "%s/model.safetensors", x->folder);
    snprintf(x->config_file, sizeof x->config_file, "%s/config.json", x->folder);
    x->cases = load_json(data_path("qwen3/cases.json"));
    x->config =
        json_object_get(json_object_get(json_object_get(x->cases, "cases"), "grouped"), "config");
    tiny_write(x->config, x->file, o);
    assert_int_equal(json_dump_file(x->config, x->config_file, 0), 0);
    tiny_backend_open(3, &x->b, &same);
}

static void fixture_close(fixture *x)
{
    tiny_backend_close(&x->b);
    json_decref(x->cases);
    tiny_folder_remove(x->folder);
}

/* One file, no config.json, names without "model.": dimensions come from the tensors. */
static void test_single_file(void **state)
{
    lw_st_file *f = open_tensors(data_path("qwen3/grouped.safetensors"));
    int32_t ids[17];

    (void)state;
    for (int prefix = 0; prefix < 2; prefix++) {
        fixture x;
        lw_qwen3 *m;

        fixture_open(&x, &(tiny_options){ .no_prefix = prefix });
        assert_int_equal(remove(x.config_file), 0);
        m = open_model(x.file, LW_KEEP_AUTO, &x.b);
        assert_int_equal(lw_qwen3_get_config(m)->n_layers, 2);
        assert_int_equal(lw_qwen3_get_config(m)->n_heads, 6);
        assert_int_equal(lw_qwen3_get_config(m)->n_kv_heads, 2);
        make_ids(17, 97, ids);
        for (int64_t s = 0; s <= 2; s++) {
            lw_tensor y = forward(m, ids, 17, s);

            check_state(&y, f, s);
        }
        lw_qwen3_destroy(&m);
        fixture_close(&x);
    }
    lw_st_close(&f);
}

/* A config.json beside a single file says what the tensors cannot; that of another model is passed
 * over. */
static void test_config_beside_file(void **state)
{
    lw_st_file *odd = open_tensors(data_path("qwen3/one_kv.safetensors"));
    lw_st_file *usual = open_tensors(data_path("qwen3/grouped.safetensors"));
    int32_t ids[77];
    lw_tensor y;
    fixture x;
    lw_qwen3 *m;

    (void)state;
    fixture_open(&x, &(tiny_options){ 0 });
    assert_int_equal(json_dump_file(json_object_get(x.cases, "tags"), x.config_file, 0), 0);
    m = open_model(x.file, LW_KEEP_STORED, &x.b);
    make_ids(77, 97, ids);
    y = forward(m, ids, 77, 2);
    check_state(&y, usual, 2);
    lw_qwen3_destroy(&m);

    x.config = json_object_get(json_object_get(json_object_get(x.cases, "cases"), "one_kv"),
                               "config"); /* another base and another eps */
    tiny_write(x.config, x.file, &(tiny_options){ 0 });
    assert_int_equal(json_dump_file(x.config, x.config_file, 0), 0);
    m = open_model(x.file, LW_KEEP_STORED, &x.b);
    make_ids(77, 131, ids);
    y = forward(m, ids, 77, 4);
    check_state(&y, odd, 4);
    lw_qwen3_destroy(&m);
    fixture_close(&x);
    lw_st_close(&odd);
    lw_st_close(&usual);
}

/* bf16 and f16 matrices give what the same values give in f32. */
static void test_half_weights(void **state)
{
    static const lw_dtype dtypes[] = { LW_BF16, LW_F16 };
    int32_t ids[77];
    lw_tensor expected;
    fixture x;
    lw_qwen3 *m;

    (void)state;
    make_ids(77, 97, ids);
    fixture_open(&x, &(tiny_options){ .round_bf16 = true });
    m = open_model(x.folder, LW_KEEP_STORED, &x.b);
    expected = forward(m, ids, 77, 2);
    assert_false(lw_qwen3_is_rounded(m));
    lw_qwen3_destroy(&m);
    for (size_t i = 0; i < LW_ARRAY_LEN(dtypes); i++) {
        lw_tensor y;

        tiny_write(x.config, x.file, &(tiny_options){ .round_bf16 = true, .dtype = dtypes[i] });
        m = open_model(x.folder, LW_KEEP_STORED, &x.b);
        y = forward(m, ids, 77, 2);
        check_close(lw_f32(&y), lw_f32(&expected), 77 * 36, deviation(lw_f32(&expected), 77 * 36),
                    lw_dtype_name(dtypes[i]));
        lw_qwen3_destroy(&m);
    }
    /* f32 in the file, bf16 in memory: the same as rounding beforehand, and it is said. */
    tiny_write(x.config, x.file, &(tiny_options){ 0 });
    m = open_model(x.folder, LW_KEEP_BF16, &x.b);
    assert_true(lw_qwen3_is_rounded(m));
    {
        lw_tensor y = forward(m, ids, 77, 2);

        check_close(lw_f32(&y), lw_f32(&expected), 77 * 36, deviation(lw_f32(&expected), 77 * 36),
                    "rounded");
    }
    lw_qwen3_destroy(&m);
    fixture_close(&x);
}

/* hidden_states[-2] needs neither the last layer nor the final norm; a request for more names what
 * is missing, and asking again and again holds no more memory. */
static void test_last_layer_is_lazy(void **state)
{
    lw_st_file *f = open_tensors(data_path("qwen3/grouped.safetensors"));
    int32_t ids[17];
    fixture x;
    lw_qwen3 *m;
    lw_tensor y;
    lw_err err;

    (void)state;
    make_ids(17, 97, ids);
    fixture_open(&x, &(tiny_options){ .without = "layers.1.mlp.down_proj" });
    m = open_model(x.folder, LW_KEEP_STORED, &x.b);
    y = forward(m, ids, 17, 1);
    check_state(&y, f, 1);
    for (int i = 0; i < 3; i++)
        assert_error(lw_qwen3_forward(m, ids, 17, 2, NULL, NULL, &y, &err), &err, LW_E_NOT_FOUND,
                     "model.layers.1.mlp.down_proj.weight");
    y = forward(m, ids, 17, 1);
    check_state(&y, f, 1);
    lw_qwen3_destroy(&m);

    tiny_write(x.config, x.file, &(tiny_options){ .without = "model.norm" });
    m = open_model(x.folder, LW_KEEP_STORED, &x.b);
    lw_qwen3_destroy(&m);
    fixture_close(&x);
    lw_st_close(&f);
}

/* ---- what is refused ---------------------------------------------------------------------------
 */

static void test_damaged_weights(void **state)
{
    static const struct {
        tiny_options o;
        lw_status code;
        const char *names;
    } cases[] = {
        { { .without = "embed_tokens" }, LW_E_NOT_FOUND, "embed_tokens.weight" },
        { { .without = "layers.0.self_attn.q_norm" },
          LW_E_NOT_FOUND,
          "model.layers.0.self_attn.q_norm.weight" },
        { { .without = "layers.0.mlp.up_proj" },
          LW_E_NOT_FOUND,
          "model.layers.0.mlp.up_proj.weight" },
        { { .short_by_one = "layers.0.self_attn.o_proj" },
          LW_E_SHAPE,
          "model.layers.0.self_attn.o_proj.weight" },
        { { .short_by_one = "embed_tokens" }, LW_E_SHAPE, "model.embed_tokens.weight" },
        { { .short_by_one = "layers.0.input_layernorm" },
          LW_E_SHAPE,
          "model.layers.0.input_layernorm.weight" },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        lw_qwen3 *m = NULL;
        lw_err err;
        fixture x;

        fixture_open(&x, &cases[i].o);
        assert_error(lw_qwen3_load(x.folder, LW_KEEP_STORED, &x.b.k, &m, &err), &err, cases[i].code,
                     cases[i].names);
        assert_null(m);
        fixture_close(&x);
    }
}

static void test_damaged_single_file(void **state)
{
    static const struct {
        tiny_options o;
        lw_status code;
        const char *names;
    } cases[] = {
        { { .without = "embed_tokens" }, LW_E_NOT_FOUND, "is it a Qwen3 text encoder?" },
        { { .without = "layers.0.self_attn.k_proj" },
          LW_E_NOT_FOUND,
          "model.layers.0.self_attn.k_proj.weight" },
        { { .without = "layers.0.input_layernorm" },
          LW_E_NOT_FOUND,
          "model.layers.0.input_layernorm.weight" },
        { { .short_by_one = "layers.0.self_attn.q_norm" }, LW_E_SHAPE, "no groups of heads of 7" },
        { { .short_by_one = "layers.0.self_attn.k_proj" }, LW_E_SHAPE, "k_proj 15" },
        { { .short_by_one = "layers.0.mlp.gate_proj" },
          LW_E_SHAPE,
          "model.layers.0.mlp.up_proj.weight" },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        lw_qwen3 *m = NULL;
        lw_err err;
        fixture x;

        fixture_open(&x, &cases[i].o);
        assert_int_equal(remove(x.config_file), 0);
        assert_error(lw_qwen3_load(x.file, LW_KEEP_STORED, &x.b.k, &m, &err), &err, cases[i].code,
                     cases[i].names);
        assert_null(m);
        fixture_close(&x);
    }
}

static void test_bad_config(void **state)
{
    static const struct {
        const char *key, *json;
        lw_status code;
        const char *names;
    } cases[] = {
        { "model_type", "\"qwen3_moe\"", LW_E_UNIMPLEMENTED, "qwen3_moe" },
        { "hidden_act", "\"gelu\"", LW_E_UNIMPLEMENTED, "gelu" },
        { "attention_bias", "true", LW_E_UNIMPLEMENTED, "attention_bias" },
        { "use_sliding_window", "true", LW_E_UNIMPLEMENTED, "sliding-window" },
        { "layer_types", "[\"full_attention\", \"sliding_attention\"]", LW_E_UNIMPLEMENTED,
          "sliding-window" },
        { "rope_scaling", "{\"type\": \"yarn\"}", LW_E_UNIMPLEMENTED, "rope_scaling" },
        { "rope_parameters", "{\"rope_type\": \"yarn\"}", LW_E_UNIMPLEMENTED, "yarn" },
        { "rope_parameters", "{\"rope_theta\": -3}", LW_E_FORMAT, "rope_theta" },
        { "rope_parameters", "{\"rope_theta\": \"x\"}", LW_E_FORMAT, "rope_theta" },
        { "num_hidden_layers", "0", LW_E_FORMAT, "num_hidden_layers" },
        { "num_hidden_layers", "1000000000", LW_E_FORMAT, "num_hidden_layers" },
        { "hidden_size", "null", LW_E_FORMAT, "hidden_size" },
        { "hidden_size", "-36", LW_E_FORMAT, "hidden_size" },
        { "hidden_size", "9223372036854775807", LW_E_FORMAT, "hidden_size" },
        { "hidden_size", "37", LW_E_SHAPE, "model.embed_tokens.weight" },
        { "head_dim", "7", LW_E_FORMAT, "head_dim 7" },
        { "head_dim", "1048576", LW_E_FORMAT, "head_dim" },
        { "num_key_value_heads", "4", LW_E_FORMAT, "cannot share 4" },
        { "num_key_value_heads", "7", LW_E_FORMAT, "num_key_value_heads" },
        { "rms_norm_eps", "2.0", LW_E_FORMAT, "rms_norm_eps" },
        { "vocab_size", "98", LW_E_SHAPE, "model.embed_tokens.weight" },
        { "num_hidden_layers", "1", LW_E_FORMAT, "has layer 1" },
        { "num_hidden_layers", "3", LW_OK, NULL }, /* the last one is not read */
        { "num_hidden_layers", "4", LW_E_NOT_FOUND, "model.layers.2." },
    };
    fixture x;

    (void)state;
    fixture_open(&x, &(tiny_options){ 0 });
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        json_t *c = json_deep_copy(x.config);
        lw_qwen3 *m = NULL;
        lw_err err;
        lw_status st;

        json_object_set_new(c, cases[i].key, json_loads(cases[i].json, JSON_DECODE_ANY, NULL));
        assert_int_equal(json_dump_file(c, x.config_file, 0), 0);
        st = lw_qwen3_load(x.folder, LW_KEEP_STORED, &x.b.k, &m, &err);
        if (cases[i].code == LW_OK)
            assert_ok(st, &err);
        else
            assert_error(st, &err, cases[i].code, cases[i].names);
        lw_qwen3_destroy(&m);
        json_decref(c);
    }
    fixture_close(&x);
}

static bool stop_at_second(void *arg, int64_t layer, int64_t n_layers)
{
    assert_int_equal(n_layers, 2);
    (*(int *)arg)++;
    return layer < 1;
}

static void test_bad_requests(void **state)
{
    int32_t ids[3] = { 1, 2, 97 };
    int calls = 0;
    fixture x;
    lw_qwen3 *m;
    lw_tensor y;
    lw_err err;

    (void)state;
    fixture_open(&x, &(tiny_options){ 0 });
    m = open_model(x.folder, LW_KEEP_STORED, &x.b);
    y = matrix(3, 36);
    assert_error(lw_qwen3_forward(m, ids, 3, 1, NULL, NULL, &y, &err), &err, LW_E_PRECONDITION,
                 "token 2 has id 97");
    ids[2] = -1;
    assert_error(lw_qwen3_forward(m, ids, 3, 1, NULL, NULL, &y, &err), &err, LW_E_PRECONDITION,
                 "token 2 has id -1");
    ids[2] = 96;
    assert_error(lw_qwen3_forward(m, ids, 3, 3, NULL, NULL, &y, &err), &err, LW_E_INVALID,
                 "hidden state 3");
    assert_error(lw_qwen3_forward(m, ids, 3, -1, NULL, NULL, &y, &err), &err, LW_E_INVALID,
                 "hidden state -1");
    assert_error(lw_qwen3_forward(m, ids, 0, 1, NULL, NULL, &y, &err), &err, LW_E_INVALID,
                 "no tokens");
    assert_error(lw_qwen3_forward(m, ids, 3, 2, stop_at_second, &calls, &y, &err), &err,
                 LW_E_CANCELLED, "layer 1");
    assert_int_equal(calls, 2);
    lw_qwen3_destroy(&m);
    fixture_close(&x);
}

/* NaN in the weights is found where it first shows, not in the picture. */
static void test_not_finite(void **state)
{
    static const struct {
        const char *poison, *names;
    } cases[] = { { "layers.0.mlp.down_proj", "hidden state 1" },
                  { "layers.1.self_attn.o_proj", "hidden state 2" },
                  { "norm.weight", "hidden state 2" },
                  { "embed_tokens", "hidden state 0" } };
    const int32_t ids[3] = { 0, 1, 2 };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        fixture x;
        lw_qwen3 *m;
        lw_tensor y = matrix(3, 36);
        lw_err err;

        fixture_open(&x, &(tiny_options){ .poison = cases[i].poison });
        m = open_model(x.folder, LW_KEEP_STORED, &x.b);
        assert_error(lw_qwen3_forward(m, ids, 3, 2, NULL, NULL, &y, &err), &err, LW_E_INTERNAL,
                     cases[i].names);
        lw_qwen3_destroy(&m);
        fixture_close(&x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_spec_states, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_configs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_single_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_config_beside_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_half_weights, setup, teardown),
        cmocka_unit_test_setup_teardown(test_last_layer_is_lazy, setup, teardown),
        cmocka_unit_test(test_damaged_weights),
        cmocka_unit_test(test_damaged_single_file),
        cmocka_unit_test(test_bad_config),
        cmocka_unit_test_setup_teardown(test_bad_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_finite, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
