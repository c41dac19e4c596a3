/* From a picture back to its request: manifests of anybody, what is missing, what has changed. */

#include "tests/unit/unit.h"

#include <math.h>

#include <jansson.h>

#include "common/png.h"
#include "orchestrate/manifest.h"
#include "orchestrate/picture.h"
#include "orchestrate/recipe.h"

#define STAGE "{\"model_id\":\"tiny\",\"weights_digest\":\"0123456789abcdef\",\"backend\":\"ref\"}"
#define GOOD                                                                                       \
    "{\"manifest\":1,\"version\":\"0.1.0\",\"prompt\":\"a cat\",\"negative_prompt\":\"dog\","      \
    "\"think_block\":true,\"layer\":-3,\"max_tokens\":77,\"n_tokens\":2,\"token_ids\":[5,6],"      \
    "\"width\":32,\"height\":16,\"steps\":2,\"seed\":9,\"guidance\":1.5,\"cfg_normalization\":0."  \
    "5,"                                                                                           \
    "\"cfg_truncation\":0.75,\"shift\":3.0,\"sigmas\":[1.0,0.25,0.0],\"tile\":8,"                  \
    "\"text_digest\":\"aa\",\"stages\":{\"encode\":" STAGE ",\"denoise\":" STAGE                   \
    ",\"decode\":" STAGE "}}"

/* GOOD with one key set to other JSON; NULL takes it away. */
static char *with(const char *key, const char *json)
{
    json_t *m = json_loads(GOOD, 0, NULL);
    char *text;

    assert_non_null(m);
    if (json)
        assert_int_equal(json_object_set_new(m, key, json_loads(json, JSON_DECODE_ANY, NULL)), 0);
    else
        json_object_del(m, key);
    text = json_dumps(m, JSON_COMPACT);
    assert_non_null(text);
    json_decref(m);
    return text;
}

static json_t *recipe_of(const char *text)
{
    json_t *m = NULL;
    lw_err err = { 0 };

    assert_ok(lw_recipe_read(text, "p.png", &m, &err), &err);
    return m;
}

static json_t *recipe_with(const char *key, const char *json)
{
    char *text = with(key, json);
    json_t *m = recipe_of(text);

    free(text);
    return m;
}

static void a_recipe_is_the_request_again(void **state)
{
    lw_recipe_numbers numbers;
    json_t *r = recipe_of(GOOD);
    lw_err err = { 0 };
    lw_msg m;

    (void)state;
    assert_ok(lw_recipe_submit(r, "p.png", &numbers, &m, &err), &err);
    assert_int_equal(m.type, LW_MSG_SUBMIT);
    assert_int_equal(m.from, LW_ARTEFACT_PROMPT);
    assert_int_equal(m.to, LW_ARTEFACT_IMAGE);
    assert_string_equal(m.prompt, "a cat");
    assert_string_equal(m.negative_prompt, "dog");
    assert_true(m.think_block);
    assert_int_equal(m.layer, -3);
    assert_int_equal(m.max_tokens, 77);
    assert_int_equal(m.width, 32);
    assert_int_equal(m.height, 16);
    assert_int_equal(m.steps, 2);
    assert_int_equal(m.seed, 9);
    assert_int_equal(m.n, 1);
    assert_true(m.guidance == 1.5 && m.cfg_normalization == 0.5 && m.cfg_truncation == 0.75);
    assert_true(m.shift == 3.0);
    assert_int_equal(m.tile, 8);
    assert_int_equal(m.sigmas.n, 3);
    assert_true(m.sigmas.v[1] == 0.25);
    /* What the manifest does not say, the request does not say. */
    assert_false(lw_msg_has(&m, raw));
    assert_false(lw_msg_has(&m, system_prompt));
    json_decref(r);
    /* Past 2^63 a seed is a negative number in JSON. */
    r = recipe_with("seed", "-1");
    assert_ok(lw_recipe_submit(r, "p.png", &numbers, &m, &err), &err);
    assert_true(m.seed == UINT64_MAX);
    json_decref(r);
}

static void controls_are_in_the_request(void **state)
{
    char *text = with("layer_blend", "[-2,0.75,-6,0.25]");
    json_t *r = json_loads(text, 0, NULL);
    lw_recipe_numbers numbers;
    lw_err err = { 0 };
    lw_msg m;

    (void)state;
    free(text);
    json_object_del(r, "layer");
    json_object_set_new(r, "messages", json_string("[]"));
    json_object_set_new(r, "long_prompt", json_string("pool"));
    json_object_set_new(r, "weighting", json_true());
    json_object_set_new(r, "noise", json_real(0.5));
    json_object_set_new(r, "noise_seed", json_integer(11));
    json_object_set_new(r, "keep", json_string("prompt"));
    json_object_set_new(r, "blend_prompt", json_string("a dog"));
    json_object_set_new(r, "blend_share", json_real(0.25));
    json_object_set_new(r, "variables", json_pack("{s:s}", "subject", "cat"));
    text = json_dumps(r, 0);
    json_decref(r);
    r = recipe_of(text);
    free(text);
    assert_ok(lw_recipe_submit(r, "p.png", &numbers, &m, &err), &err);
    assert_false(lw_msg_has(&m, layer));
    assert_int_equal(m.layer_blend.n, 4);
    assert_true(m.layer_blend.v[2] == -6 && m.layer_blend.v[3] == 0.25);
    assert_string_equal(m.messages, "[]");
    assert_string_equal(m.long_prompt, "pool");
    assert_true(m.weighting);
    assert_true(m.noise == 0.5 && m.noise_seed == 11);
    assert_string_equal(m.keep, "prompt");
    assert_string_equal(m.blend_prompt, "a dog");
    assert_true(m.blend_share == 0.25);
    json_decref(r);
}

static void wrong_values_are_named(void **state)
{
    static const struct {
        const char *key, *json;
        lw_status want;
    } cases[] = {
        { "seed", "\"7\"", LW_E_FORMAT },
        { "seed", "1.5", LW_E_FORMAT },
        { "prompt", "7", LW_E_FORMAT },
        { "think_block", "1", LW_E_FORMAT },
        { "layer", "2000", LW_E_FORMAT },
        { "steps", "0", LW_E_FORMAT },
        { "steps", "257", LW_E_FORMAT },
        { "guidance", "-1", LW_E_FORMAT },
        { "guidance", "[]", LW_E_FORMAT },
        { "width", "8", LW_E_FORMAT },
        { "width", "16400", LW_E_FORMAT },
        { "sigmas", "[1]", LW_E_FORMAT },
        { "sigmas", "[1,0]", LW_E_FORMAT },
        { "sigmas", "[2,1,0]", LW_E_FORMAT },
        { "sigmas", "[1,\"a\",0]", LW_E_FORMAT },
        { "sigmas", "{}", LW_E_FORMAT },
        { "token_ids", "[-1]", LW_E_FORMAT },
        { "token_ids", "[0.5]", LW_E_FORMAT },
        { "stages", "[]", LW_E_FORMAT },
        { "layer_blend", "7", LW_E_FORMAT },
        { "layer_blend", "[\"a\"]", LW_E_FORMAT },
        { "layer_blend", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", LW_E_FORMAT },
        { "noise", "-1", LW_E_FORMAT },
        { "blend_share", "2", LW_E_FORMAT },
        { "keep", "7", LW_E_FORMAT },
        { "messages", "[]", LW_E_FORMAT },
        { "variables", "[]", LW_E_FORMAT },
        { "variables", "{\"a\":1}", LW_E_FORMAT },
        { "none", "7", LW_OK }, /* of a later version: passed over */
        { "manifest", "\"1\"", LW_E_FORMAT },
        { "manifest", "0", LW_E_FORMAT },
        { "manifest", NULL, LW_E_FORMAT },
        { "manifest", "2", LW_E_PRECONDITION },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        char *text = with(cases[i].key, cases[i].json);
        json_t *m = NULL;
        lw_err err = { 0 };
        const lw_status got = lw_recipe_read(text, "p.png", &m, &err);

        if (got != cases[i].want)
            fail_msg("%s = %s: %s", cases[i].key, cases[i].json, lw_status_name(got));
        if (got != LW_OK) {
            assert_null(m);
            assert_contains(err.text, "p.png");
            assert_contains(err.text, got == LW_E_FORMAT ? cases[i].key : "later latentwire");
        }
        json_decref(m);
        free(text);
    }
}

static void texts_that_are_no_manifest(void **state)
{
    static const char *const bad[] = { "",
                                       "{",
                                       "[]",
                                       "7",
                                       "a picture",
                                       "{\"manifest\":1,\"manifest\":1}",
                                       "{\"manifest\":1,\"prompt\":\"\xff\"}",
                                       "{\"manifest\":1,\"prompt\":\"a\\u0000\"}",
                                       "{\"manifest\":1,\"guidance\":1e999}" };
    char *huge = malloc(LW_MAX_MANIFEST + 2);
    json_t *m = NULL;
    lw_err err = { 0 };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(bad); i++) {
        assert_int_equal(lw_recipe_read(bad[i], "p.png", &m, &err), LW_E_FORMAT);
        assert_contains(err.text, "p.png");
        assert_null(m);
    }
    assert_non_null(huge);
    memset(huge, ' ', LW_MAX_MANIFEST + 1);
    huge[LW_MAX_MANIFEST + 1] = '\0';
    assert_int_equal(lw_recipe_read(huge, "p.png", &m, &err), LW_E_FORMAT);
    assert_contains(err.text, "at most");
    free(huge);
}

static void pictures_that_no_hub_sends(void **state)
{
    char *text = with("width", "16384");
    json_t *wide = json_loads(text, 0, NULL), *m = NULL;
    lw_err err = { 0 };

    (void)state;
    free(text);
    assert_non_null(wide);
    json_object_set_new(wide, "height", json_integer(16384));
    text = json_dumps(wide, 0);
    assert_int_equal(lw_recipe_read(text, "p.png", &m, &err), LW_E_TOO_LARGE);
    assert_contains(err.text, "16384 x 16384");
    free(text);
    json_decref(wide);
}

static void what_is_missing_is_named(void **state)
{
    static const struct {
        const char *key, *json, *want;
    } cases[] = {
        { "prompt", NULL, "lacks what is needed: prompt" },
        { "seed", NULL, "seed" },
        { "width", NULL, "width" },
        { "height", NULL, "height" },
        { "stages", NULL, "stages" },
        { "stages", "{}", "stages" },
        { "stages", "{\"decode\":{}}", "given latents" },
        { "stages", "{\"denoise\":{},\"decode\":{}}", "given embeddings" },
        { "stages", "{\"encode_image\":{},\"decode\":{}}", "a picture" },
    };
    lw_recipe_numbers numbers;
    json_t *bare;
    lw_err err = { 0 };
    lw_msg m;

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        json_t *r = recipe_with(cases[i].key, cases[i].json);

        assert_int_equal(lw_recipe_submit(r, "p.png", &numbers, &m, &err), LW_E_PRECONDITION);
        assert_contains(err.text, cases[i].want);
        json_decref(r);
    }
    /* Everything that is missing at once; the steps follow from the levels. */
    bare = recipe_of("{\"manifest\":1,\"stages\":{\"encode\":{},\"denoise\":{},\"decode\":{}}}");
    assert_int_equal(lw_recipe_submit(bare, "p.png", &numbers, &m, &err), LW_E_PRECONDITION);
    assert_contains(err.text, "prompt, seed, width, height, steps");
    json_decref(bare);
    bare = recipe_with("steps", NULL);
    assert_ok(lw_recipe_submit(bare, "p.png", &numbers, &m, &err), &err);
    assert_int_equal(m.sigmas.n, 3);
    json_decref(bare);
}

static void other_weights_are_named(void **state)
{
    static const char report[] =
        "{\"workers\":["
        "{\"role\":\"denoiser\",\"state\":\"draining\",\"weights_digest\":\"old\"},"
        "{\"role\":\"denoiser\",\"state\":\"idle\",\"model\":\"big\",\"weights_digest\":\"ffff\"},"
        "{\"role\":\"encoder\",\"state\":\"busy\",\"model\":\"tiny\","
        "\"weights_digest\":\"0123456789abcdef\",\"backend\":\"ref\",\"precision\":\"\"},"
        "{\"role\":\"painter\"},7]}";
    json_t *r = recipe_of(GOOD), *state_of_hub = json_loads(report, 0, NULL), *now;
    lw_err err = { 0 };

    (void)state;
    now = lw_recipe_stages(state_of_hub);
    assert_non_null(now);
    assert_int_equal(json_object_size(now), 2); /* nobody decodes */
    assert_null(json_object_get(json_object_get(now, "encode"), "precision"));
    assert_int_equal(lw_recipe_weights(r, now, "p.png", &err), LW_E_PRECONDITION);
    assert_contains(err.text, "denoise: made with the weights 0123456789ab (tiny), here are ffff "
                              "(big)");
    assert_null(strstr(err.text, "encode"));
    json_object_del(now, "denoise");
    assert_ok(lw_recipe_weights(r, now, "p.png", &err), &err);
    json_decref(now);
    json_decref(state_of_hub);
    json_decref(r);
}

static void what_has_changed_is_noted(void **state)
{
    static const struct {
        const char *key, *json, *want;
    } cases[] = {
        { "version", "\"9.9.9\"", "latentwire 0.1.0 and is 9.9.9" },
        { "text_digest", "\"bb\"", "text_digest" },
        { "token_ids", "[5,7]", "token_ids" },
        { "sigmas", "[1.0,0.5,0.0]", "sigmas" },
        { "stages", "{\"decode\":{\"backend\":\"onednn\"}}",
          "decode: the back end was \"ref\" and is \"onednn\"" },
    };
    json_t *r = recipe_of(GOOD), *notes = json_array(), *older;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_recipe_compare(r, r, notes, &err), &err);
    assert_int_equal(json_array_size(notes), 0);
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        json_t *made = recipe_with(cases[i].key, cases[i].json);

        json_array_clear(notes);
        assert_ok(lw_recipe_compare(r, made, notes, &err), &err);
        assert_int_equal(json_array_size(notes), 1);
        assert_contains(json_string_value(json_array_get(notes, 0)), cases[i].want);
        json_decref(made);
    }
    /* A key that the older of the two does not have is no change. */
    older = recipe_with("token_ids", NULL);
    json_array_clear(notes);
    assert_ok(lw_recipe_compare(older, r, notes, &err), &err);
    assert_int_equal(json_array_size(notes), 0);
    json_decref(older);
    json_decref(notes);
    json_decref(r);
}

static void pixels_are_counted(void **state)
{
    uint8_t a[4][3] = { { 0, 0, 0 }, { 10, 20, 30 }, { 255, 255, 255 }, { 1, 2, 3 } }, b[4][3];
    lw_difference d;

    (void)state;
    memcpy(b, a, sizeof(b));
    d = lw_pixels_compare(a[0], b[0], 4);
    assert_int_equal(d.n_differ, 0);
    assert_int_equal(d.largest, 0);
    assert_true(isinf(d.psnr_db));
    b[1][0] = 13;
    b[1][2] = 26; /* the same pixel */
    b[2][1] = 250;
    d = lw_pixels_compare(a[0], b[0], 4);
    assert_int_equal(d.n_pixels, 4);
    assert_int_equal(d.n_differ, 2);
    assert_int_equal(d.largest, 5);
    /* Mean square (9 + 16 + 25) / 12: 10 log10(255^2 / (50 / 12)) = 41.93 dB. */
    assert_true(fabs(d.psnr_db - 41.93) < 0.01);
    memset(a, 0, sizeof(a));
    memset(b, 255, sizeof(b));
    assert_true(lw_pixels_compare(a[0], b[0], 4).psnr_db == 0);
}

static const uint8_t rgb[2 * 3 * 3] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };

/* A PNG of 3 x 2 with these texts, in `out`. */
static void make_png(lw_buf *out, const lw_png_text *texts, int n)
{
    lw_err err = { 0 };

    lw_buf_init(out, 1 << 20);
    assert_ok(lw_png_encode(out, rgb, 3, 2, texts, n, &err), &err);
}

static void a_picture_is_taken_apart(void **state)
{
    static const lw_png_text texts[] = { { "parameters", "a cat\nSteps: 2" },
                                         { "Comment", "\xc3\xa9" },
                                         { "latentwire", "{\"prompt\":\"\xe7\xba\xa2\"}" } };
    const uint8_t *pixels = NULL;
    lw_picture p = { 0 };
    lw_err err = { 0 };
    lw_arena a;
    lw_buf png;

    (void)state;
    lw_arena_init(&a, "test", 1 << 20);
    make_png(&png, texts, 3);
    assert_ok(lw_picture_read(unit_write("p.png", png.data, png.len), &a, &p, &err), &err);
    assert_int_equal(p.width, 3);
    assert_int_equal(p.height, 2);
    assert_string_equal(p.manifest, texts[2].text);
    assert_string_equal(p.parameters, texts[0].text);
    assert_int_equal(p.file.len, png.len);
    assert_memory_equal(p.file.data, png.data, png.len);
    assert_ok(lw_picture_pixels(&p, &a, &pixels, &err), &err);
    assert_memory_equal(pixels, rgb, sizeof(rgb));
    lw_picture_deinit(&p);
    lw_buf_deinit(&png);

    make_png(&png, texts, 2); /* somebody else's */
    assert_ok(lw_picture_parse(png.data, png.len, "x", &a, &p, &err), &err);
    assert_null(p.manifest);
    assert_non_null(p.parameters);
    lw_picture_deinit(&p);
    for (size_t cut = 0; cut < png.len; cut += 7) {
        assert_int_equal(lw_picture_parse(png.data, cut, "x", &a, &p, &err), LW_E_FORMAT);
        assert_contains(err.text, "x");
        lw_picture_deinit(&p);
    }
    lw_buf_deinit(&png);

    assert_int_equal(lw_picture_read(unit_tmp("none.png"), &a, &p, &err), LW_E_NOT_FOUND);
    lw_picture_deinit(&p);
    lw_arena_deinit(&a);
}

/* What an encoder says of a prompt of n tokens, in a manifest. */
static json_t *manifest_of_ids(const int32_t *ids, int64_t n)
{
    const lw_tensor t = lw_tensor_nd((void *)ids, LW_I32, 1, &n);
    json_t *m = lw_manifest_new();
    lw_msg submit, result;
    lw_err err = { 0 };

    assert_non_null(m);
    lw_msg_init(&submit, LW_MSG_SUBMIT, NULL);
    lw_msg_init(&result, LW_MSG_RESULT, NULL);
    assert_ok(lw_msg_tensor_add(&result, LW_T_TOKEN_IDS, &t, NULL, &err), &err);
    assert_ok(lw_manifest_add(m, &submit, &result, &err), &err);
    return m;
}

static void tokens_are_listed_or_digested(void **state)
{
    int32_t ids[LW_MANIFEST_MAX_IDS + 1];
    json_t *m, *back = NULL, *other;
    lw_err err = { 0 };
    char *text;

    (void)state;
    for (int i = 0; i <= LW_MANIFEST_MAX_IDS; i++)
        ids[i] = i * 3;
    m = manifest_of_ids(ids, LW_MANIFEST_MAX_IDS);
    assert_int_equal(json_array_size(json_object_get(m, "token_ids")), LW_MANIFEST_MAX_IDS);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(m, "token_ids"), 2)), 6);
    assert_null(json_object_get(m, "token_ids_digest"));
    json_decref(m);

    m = manifest_of_ids(ids, LW_MANIFEST_MAX_IDS + 1);
    assert_null(json_object_get(m, "token_ids"));
    assert_int_equal(json_string_length(json_object_get(m, "token_ids_digest")), 64);
    text = lw_manifest_text(m);
    assert_ok(lw_manifest_parse(text, "f", &back, &err), &err);
    assert_true(json_equal(m, back));
    ids[7]++;
    other = manifest_of_ids(ids, LW_MANIFEST_MAX_IDS + 1);
    assert_false(json_equal(m, other));
    free(text);
    json_decref(m);
    json_decref(back);
    json_decref(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recipe_is_the_request_again),
        cmocka_unit_test(controls_are_in_the_request),
        cmocka_unit_test(wrong_values_are_named),
        cmocka_unit_test(texts_that_are_no_manifest),
        cmocka_unit_test(pictures_that_no_hub_sends),
        cmocka_unit_test(what_is_missing_is_named),
        cmocka_unit_test(other_weights_are_named),
        cmocka_unit_test(what_has_changed_is_noted),
        cmocka_unit_test(pixels_are_counted),
        cmocka_unit_test(a_picture_is_taken_apart),
        cmocka_unit_test(tokens_are_listed_or_digested),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
