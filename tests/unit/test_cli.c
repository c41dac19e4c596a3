/* The parts of the command line that need no hub: options, names of outputs, manifest, time left.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/png.h"
#include "lw_version.h"
#include "orchestrate/locate.h"
#include "orchestrate/manifest.h"
#include "orchestrate/output.h"
#include "orchestrate/preview.h"
#include "orchestrate/progress.h"
#include "orchestrate/settings.h"

static void test_size(void **state)
{
    static const char *const bad[] = {
        "",     "x",    "16x",    "x16",      "16x16x16", "-16x16", "16 x16",
        "0x16", "8x16", "100x96", "16x16385", "1e3x16",   "0x",     "99999999999999999999x16"
    };
    int w = 0, h = 0;

    (void)state;
    assert_int_equal(lw_parse_size("1024x768", &w, &h, NULL), LW_OK);
    assert_int_equal(w, 1024);
    assert_int_equal(h, 768);
    assert_int_equal(lw_parse_size("512", &w, &h, NULL), LW_OK);
    assert_int_equal(w, 512);
    assert_int_equal(h, 512);
    for (size_t i = 0; i < LW_ARRAY_LEN(bad); i++) {
        lw_err err = { 0 };

        assert_int_equal(lw_parse_size(bad[i], &w, &h, &err), LW_E_INVALID);
        assert_non_null(strstr(err.text, "--size"));
    }
}

static void test_size_suggests(void **state)
{
    lw_err err = { 0 };
    int w, h;

    (void)state;
    assert_int_equal(lw_parse_size("1000x770", &w, &h, &err), LW_E_INVALID);
    assert_non_null(strstr(err.text, "1008x768"));
}

static void test_seed(void **state)
{
    uint64_t a = 0, b = 0;

    (void)state;
    assert_int_equal(lw_parse_seed("9223372036854775807", &a, NULL), LW_OK);
    assert_true(a == INT64_MAX);
    assert_int_equal(lw_parse_seed("9223372036854775808", &a, NULL), LW_E_INVALID);
    assert_int_equal(lw_parse_seed("-1", &a, NULL), LW_E_INVALID);
    assert_int_equal(lw_parse_seed("1.5", &a, NULL), LW_E_INVALID);
    assert_int_equal(lw_parse_seed("", &a, NULL), LW_E_INVALID);
    /* Random ones fit 32 bits, which is all that PyTorch's generator takes. */
    assert_int_equal(lw_parse_seed(NULL, &a, NULL), LW_OK);
    assert_int_equal(lw_parse_seed(NULL, &b, NULL), LW_OK);
    assert_true(a <= UINT32_MAX && b <= UINT32_MAX);
}

static void test_stage_lists(void **state)
{
    static const char *const bad[] = { "x",   "dit=",    "dit=0", "dit=17", "clip=1",
                                       "1,2", "dit=1,2", "=3",    ",",      "dit=1,,vae=1" };
    int n[LW_N_ROLES] = { 0 };
    const char *words[LW_N_ROLES] = { 0 };
    lw_arena a;

    (void)state;
    assert_int_equal(lw_parse_stage_ints("workers", "3", 1, 16, n, NULL), LW_OK);
    assert_int_equal(n[LW_ROLE_ENCODER], 3);
    assert_int_equal(n[LW_ROLE_DENOISER], 3);
    assert_int_equal(lw_parse_stage_ints("workers", "dit=2,vae=1", 1, 16, n, NULL), LW_OK);
    assert_int_equal(n[LW_ROLE_ENCODER], 3);
    assert_int_equal(n[LW_ROLE_DENOISER], 2);
    assert_int_equal(n[LW_ROLE_DECODER], 1);
    assert_int_equal(lw_parse_stage_ints("workers", NULL, 1, 16, n, NULL), LW_OK);
    for (size_t i = 0; i < LW_ARRAY_LEN(bad); i++) {
        lw_err err = { 0 };

        if (lw_parse_stage_ints("workers", bad[i], 1, 16, n, &err) != LW_E_INVALID)
            fail_msg("--workers %s was taken", bad[i]);
        assert_non_null(strstr(err.text, "--workers"));
    }
    lw_arena_init(&a, "test", 0);
    assert_int_equal(lw_parse_stage_words("device", "dit=cpu,encoder=cuda:1", &a, words, NULL),
                     LW_OK);
    assert_string_equal(words[LW_ROLE_DENOISER], "cpu");
    assert_string_equal(words[LW_ROLE_ENCODER], "cuda:1");
    assert_null(words[LW_ROLE_DECODER]);
    lw_arena_deinit(&a);
}

static void test_prompt_checked(void **state)
{
    lw_settings s = { .layer = -2, .max_tokens = 512 };
    char *huge = malloc(40000);
    lw_err err = { 0 };
    lw_msg m;

    (void)state;
    assert_non_null(huge);
    memset(huge, 'a', 39999);
    huge[39999] = 0;
    lw_msg_init(&m, LW_MSG_SUBMIT, NULL);
    assert_int_equal(lw_settings_prompt(&s, "caf\xc3\xa9", &m, &err), LW_OK);
    assert_int_equal(lw_settings_prompt(&s, "caf\xe9", &m, &err), LW_E_INVALID);
    assert_int_equal(lw_settings_prompt(&s, huge, &m, &err), LW_E_TOO_LARGE);
    s.negative = "\xff";
    assert_int_equal(lw_settings_prompt(&s, "a", &m, &err), LW_E_INVALID);
    assert_non_null(strstr(err.text, "--negative"));
    free(huge);
}

static void test_output_names(void **state)
{
    static const struct {
        const char *pattern;
        uint64_t count, index;
        const char *want;
    } cases[] = {
        { "out.png", 1, 0, "out.png" },      { "out.png", 3, 0, "out-1.png" },
        { "out.png", 3, 2, "out-3.png" },    { "a.b/out", 2, 1, "a.b/out-2" },
        { "out-%d.png", 1, 0, "out-1.png" }, { "out-%04d.png", 12, 9, "out-0010.png" },
        { "100%.png", 2, 0, "100%-1.png" },  { "%s%d%n.png", 2, 1, "%s2%n.png" },
        { ".hidden", 2, 0, ".hidden-1" },    { "-", 1, 0, "-" },
    };
    char path[PATH_MAX];

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        const lw_output o = { .pattern = cases[i].pattern, .count = cases[i].count };

        assert_int_equal(lw_output_path(&o, cases[i].index, 7, path, NULL), LW_OK);
        assert_string_equal(path, cases[i].want);
    }
}

static void test_output_folder(void **state)
{
    char dir[] = "/tmp/lw-test-XXXXXX", path[PATH_MAX], want[PATH_MAX];
    lw_output o = { .pattern = dir, .count = 2 };
    FILE *f;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(lw_output_check(&o, NULL), LW_OK);
    assert_int_equal(lw_output_path(&o, 0, 42, path, NULL), LW_OK);
    snprintf(want, sizeof(want), "%s/latentwire-42.png", dir);
    assert_string_equal(path, want);
    f = fopen(path, "w"); /* what exists is not overwritten */
    assert_non_null(f);
    fclose(f);
    assert_int_equal(lw_output_path(&o, 0, 42, path, NULL), LW_OK);
    snprintf(want, sizeof(want), "%s/latentwire-42-2.png", dir);
    assert_string_equal(path, want);
    snprintf(want, sizeof(want), "%s/latentwire-42.png", dir);
    unlink(want);
    rmdir(dir);
}

static void test_output_checked(void **state)
{
    static const struct {
        const char *pattern;
        uint64_t count;
        lw_status want;
    } cases[] = {
        { NULL, 4, LW_OK },
        { "-", 1, LW_OK },
        { "-", 2, LW_E_INVALID },
        { "x.jpg", 1, LW_E_INVALID },
        { "x.safetensors", 1, LW_E_INVALID },
        { "no/such/folder/x.png", 1, LW_E_NOT_FOUND },
        { "", 1, LW_E_INVALID },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        const lw_output o = { .pattern = cases[i].pattern, .count = cases[i].count };

        assert_int_equal(lw_output_check(&o, NULL), cases[i].want);
    }
}

/* A request and its result, as they go into a manifest. */
static void fill(lw_msg *submit, lw_msg *result, const double *sigmas)
{
    lw_stage_info *s = &result->stages.by_op[LW_OP_DENOISE];

    lw_msg_init(submit, LW_MSG_SUBMIT, NULL);
    lw_msg_set(submit, prompt, "a \"red\" circle,\n\xe7\xba\xa2");
    lw_msg_set(submit, width, 64);
    lw_msg_set(submit, height, 32);
    lw_msg_set(submit, steps, 2);
    lw_msg_set(submit, seed, 41);
    lw_msg_set(submit, n, 2);
    lw_msg_set(submit, guidance, 4.5);
    lw_msg_set(submit, negative_prompt, "blur");
    lw_msg_init(result, LW_MSG_RESULT, NULL);
    lw_msg_set(result, n_tokens, 12);
    lw_msg_set(result, t_ms, 123.0);
    lw_msg_set(result, sigmas, ((lw_f64s){ .v = sigmas, .n = 3 }));
    lw_stage_set(s, model_id, "Z-Image: Turbo");
    lw_stage_set(s, backend, "ref");
    lw_stage_set(s, worker, "dit-svc-1");
    lw_stage_set(s, t_ms, 99.0);
    lw_stage_set(s, cached, false);
    lw_msg_mark(result, stages);
}

static void test_manifest(void **state)
{
    static const double sigmas[] = { 1, 0.75, 0 };
    json_t *m = lw_manifest_new(), *second, *back = NULL;
    lw_msg submit, result;
    char *text, *again, *parameters;

    (void)state;
    fill(&submit, &result, sigmas);
    assert_non_null(m);
    assert_int_equal(lw_manifest_add(m, &submit, &result, NULL), LW_OK);
    text = lw_manifest_text(m);
    assert_non_null(text);
    /* What decides the pixels is there; what does not is not. */
    assert_non_null(strstr(text, "\"seed\":41"));
    assert_non_null(strstr(text, "\"sigmas\":[1.0,0.75,0.0]"));
    assert_non_null(
        strstr(text, "\"denoise\":{\"backend\":\"ref\",\"model_id\":\"Z-Image: Turbo\"}"));
    assert_null(strstr(text, "dit-svc-1"));
    assert_null(strstr(text, "99"));
    assert_null(strstr(text, "123"));
    assert_null(strstr(text, "\"n\":"));

    second = lw_manifest_picture(m, 1);
    again = lw_manifest_text(second);
    assert_non_null(strstr(again, "\"seed\":42"));
    free(again);
    again = lw_manifest_text(m); /* the first is as it was */
    assert_string_equal(again, text);
    free(again);

    /* Through a file and back. */
    assert_int_equal(lw_manifest_parse(text, "f", &back, NULL), LW_OK);
    again = lw_manifest_text(back);
    assert_string_equal(again, text);
    free(again);

    parameters = lw_manifest_parameters(m);
    assert_string_equal(
        parameters, "a \"red\" circle,\n\xe7\xba\xa2\nNegative prompt: blur\nSteps: 2, Sampler: "
                    "Euler, CFG scale: 5.5, Seed: 41, Size: 64x32, Model: \"Z-Image: Turbo\", "
                    "Version: latentwire " LW_VERSION);
    free(parameters);
    free(text);
    json_decref(m);
    json_decref(second);
    json_decref(back);
}

static void test_manifest_untrusted(void **state)
{
    static const char *const bad[] = { "", "[]", "{", "{\"seed\":1,\"seed\":2}", "nonsense", "7" };
    json_t *m = NULL;
    char *text;

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(bad); i++) {
        lw_err err = { 0 };

        assert_int_equal(lw_manifest_parse(bad[i], "file.safetensors", &m, &err), LW_E_FORMAT);
        assert_non_null(strstr(err.text, "file.safetensors"));
        assert_null(m);
    }
    /* Keys that are not known, or of another kind, are left out. */
    assert_int_equal(
        lw_manifest_parse("{\"seed\":\"x\",\"evil\":1,\"steps\":3,\"stages\":{\"decode\":"
                          "{\"backend\":1,\"model_id\":\"m\"},\"x\":{}},\"sigmas\":[1,"
                          "\"a\"]}",
                          "f", &m, NULL),
        LW_OK);
    text = lw_manifest_text(m);
    assert_string_equal(text,
                        "{\"manifest\":1,\"stages\":{\"decode\":{\"model_id\":\"m\"}},\"steps\":3,"
                        "\"version\":\"" LW_VERSION "\"}");
    free(text);
    json_decref(m);
}

static lw_status count_files(void *arg, uint64_t index, uint64_t seed, const char *path,
                             lw_err *err)
{
    (void)err;
    assert_int_equal(seed, 41 + index);
    assert_int_equal(access(path, R_OK), 0);
    (*(int *)arg)++;
    return LW_OK;
}

static void test_pictures(void **state)
{
    static const double sigmas[] = { 1, 0.75, 0 };
    uint8_t rgb[2][32][64][3], want[2][32][64][3];
    lw_kept_pictures *kept = NULL;
    const int64_t shape[4] = { 2, 32, 64, 3 };
    lw_tensor t = lw_tensor_nd(rgb, LW_U8, 4, shape);
    char dir[] = "/tmp/lw-test-XXXXXX", pattern[64], path[80];
    lw_output o = { .pattern = pattern, .count = 2 };
    json_t *m = lw_manifest_new();
    lw_msg submit, result;
    lw_arena a;
    int n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(rgb); i++)
        ((uint8_t *)rgb)[i] = (uint8_t)(i * 7);
    assert_non_null(mkdtemp(dir));
    snprintf(pattern, sizeof(pattern), "%s/p%%d.png", dir);
    fill(&submit, &result, sigmas);
    assert_int_equal(lw_manifest_add(m, &submit, &result, NULL), LW_OK);
    lw_arena_init(&a, "test", 0);
    assert_int_equal(lw_output_keep(&kept, &a, &result, m, 0, NULL), LW_E_SHAPE);
    assert_int_equal(lw_msg_tensor_add(&result, LW_T_IMAGE, &t, NULL, NULL), LW_OK);
    assert_int_equal(lw_output_keep(&kept, &a, &result, m, 0, NULL), LW_OK);
    memcpy(want, rgb, sizeof(want));
    memset(rgb, 0, sizeof(rgb)); /* the message is gone by then */
    assert_int_equal(lw_output_write(&o, kept, count_files, &n, NULL), LW_OK);
    lw_output_drop(&kept);
    assert_int_equal(n, 2);
    for (int i = 0; i < 2; i++) {
        lw_png_text *texts;
        uint8_t *back;
        int w, h, n_texts;

        snprintf(path, sizeof(path), "%s/p%d.png", dir, i + 1);
        assert_int_equal(lw_png_read(path, &a, &back, &w, &h, NULL), LW_OK);
        assert_int_equal(w, 64);
        assert_int_equal(h, 32);
        assert_memory_equal(back, want[i], sizeof(want[i]));
        assert_int_equal(lw_png_read_texts(path, &a, &texts, &n_texts, NULL), LW_OK);
        assert_int_equal(n_texts, 2);
        assert_string_equal(texts[0].keyword, "parameters");
        assert_string_equal(texts[1].keyword, "latentwire");
        assert_non_null(strstr(texts[0].text, i ? "Seed: 42" : "Seed: 41"));
        unlink(path);
    }
    rmdir(dir);
    lw_arena_deinit(&a);
    json_decref(m);
}

static void test_preview_shrinks(void **state)
{
    float z[2][5][4];
    lw_msg_tensor mt = { .name = "latents" };
    lw_arena a;
    lw_tensor small;

    (void)state;
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < 5; i++)
            for (int j = 0; j < 4; j++)
                z[c][i][j] = (float)(100 * c + 10 * i + j);
    mt.t = lw_tensor_nd(z, LW_F32, 4, (int64_t[]){ 1, 2, 5, 4 });
    lw_arena_init(&a, "test", 0);
    assert_int_equal(lw_preview_shrink(&mt, 32, &a, &small, NULL), LW_OK);
    assert_memory_equal(small.data, z, sizeof(z));
    /* 5 rows and 4 columns to at most 2: boxes of 2, the last row is cut. */
    assert_int_equal(lw_preview_shrink(&mt, 2, &a, &small, NULL), LW_OK);
    assert_int_equal(small.shape[0], 1);
    assert_int_equal(small.shape[1], 2);
    assert_int_equal(small.shape[2], 2);
    assert_int_equal(small.shape[3], 2);
    assert_float_equal(lw_f32(&small)[0], 5.5, 0);
    assert_float_equal(lw_f32(&small)[3], 27.5, 0);
    assert_float_equal(lw_f32(&small)[7], 127.5, 0);
    mt.t = lw_tensor_nd(z, LW_F32, 4, (int64_t[]){ 2, 1, 5, 4 });
    assert_int_equal(lw_preview_shrink(&mt, 2, &a, &small, NULL), LW_E_SHAPE);
    /* Longer than wide beyond measure: never less than a row. */
    mt.t = lw_tensor_nd(z, LW_F32, 3, (int64_t[]){ 1, 1, 40 });
    assert_int_equal(lw_preview_shrink(&mt, 4, &a, &small, NULL), LW_OK);
    assert_int_equal(small.shape[2], 1);
    assert_int_equal(small.shape[3], 4);
    lw_arena_deinit(&a);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[PATH_MAX];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void test_model_defaults(void **state)
{
    static const struct {
        const char *index;
        lw_status want;
        int width, height, steps;
    } cases[] = {
        { "{}", LW_OK, 1024, 1024, 8 },
        { "{\"latentwire\": {\"size\": [128, 64], \"steps\": 4}}", LW_OK, 128, 64, 4 },
        { "{\"latentwire\": {\"steps\": 4}}", LW_OK, 1024, 1024, 4 },
        { "{\"latentwire\": {\"size\": [128]}}", LW_E_FORMAT, 0, 0, 0 },
        { "{\"latentwire\": {\"size\": [128, 0]}}", LW_E_FORMAT, 0, 0, 0 },
        { "{\"latentwire\": {\"steps\": \"many\"}}", LW_E_FORMAT, 0, 0, 0 },
        { "{", LW_E_FORMAT, 0, 0, 0 },
    };
    const unsigned all = 1u << LW_ROLE_ENCODER | 1u << LW_ROLE_DENOISER | 1u << LW_ROLE_DECODER;
    char dir[] = "/tmp/lw-test-XXXXXX", file[64], index[64];
    lw_model_options o = { .model = dir };
    lw_model_choice c;
    lw_err err = { 0 };

    (void)state;
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        write_file(dir, "model_index.json", cases[i].index);
        assert_int_equal(lw_locate_model(&o, all, &c, &err), cases[i].want);
        if (cases[i].want != LW_OK)
            continue;
        assert_int_equal(c.width, cases[i].width);
        assert_int_equal(c.height, cases[i].height);
        assert_int_equal(c.steps, cases[i].steps);
        assert_string_equal(c.path[LW_ROLE_ENCODER], dir);
    }
    /* One part from elsewhere; a part that is missing names its option. */
    write_file(dir, "model_index.json", "{}");
    write_file(dir, "vae.safetensors", "");
    snprintf(file, sizeof(file), "%s/vae.safetensors", dir);
    snprintf(index, sizeof(index), "%s/model_index.json", dir);
    o.vae = file;
    assert_int_equal(lw_locate_model(&o, all, &c, &err), LW_OK);
    assert_string_equal(c.path[LW_ROLE_DECODER], file);
    assert_string_equal(c.path[LW_ROLE_DENOISER], dir);
    o = (lw_model_options){ .vae = file };
    assert_int_equal(lw_locate_model(&o, 1u << LW_ROLE_DECODER, &c, &err), LW_OK);
    assert_int_equal(lw_locate_model(&o, all, &c, &err), LW_E_NOT_FOUND);
    assert_non_null(strstr(err.text, "--encoder"));
    o = (lw_model_options){ .model = "/no/such/model" };
    assert_int_equal(lw_locate_model(&o, all, &c, &err), LW_E_NOT_FOUND);
    assert_non_null(strstr(err.text, "/no/such/model"));
    unlink(file);
    unlink(index);
    rmdir(dir);
}

static void test_time_left(void **state)
{
    (void)state;
    /* Nothing can be said before a step has been measured. */
    assert_int_equal(lw_progress_left_ms(0, 1000, 0, 8, 5000), -1);
    assert_int_equal(lw_progress_left_ms(1, 1000, 1, 8, 5000), -1);
    /* Two steps in 2 s after the first: 5 left take 5 s. */
    assert_int_equal(lw_progress_left_ms(1, 1000, 3, 8, 3000), 5000);
    assert_int_equal(lw_progress_left_ms(1, 1000, 8, 8, 8000), 0);
    assert_int_equal(lw_progress_left_ms(1, 1000, 9, 8, 8000), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_size),           cmocka_unit_test(test_size_suggests),
        cmocka_unit_test(test_seed),           cmocka_unit_test(test_stage_lists),
        cmocka_unit_test(test_prompt_checked), cmocka_unit_test(test_output_names),
        cmocka_unit_test(test_output_folder),  cmocka_unit_test(test_output_checked),
        cmocka_unit_test(test_manifest),       cmocka_unit_test(test_manifest_untrusted),
        cmocka_unit_test(test_pictures),       cmocka_unit_test(test_preview_shrinks),
        cmocka_unit_test(test_model_defaults), cmocka_unit_test(test_time_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
