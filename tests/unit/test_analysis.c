/* Embeddings compared: reading files of anybody, pairing rows, measures worked out by hand. */

#include "tests/unit/unit.h"

#include <math.h>

#include "common/png.h"
#include "common/safetensors.h"
#include "orchestrate/analysis/analysis.h"
#include "orchestrate/analysis/pictures.h"
#include "orchestrate/analysis/plots.h"

static lw_arena arena;

static int set_up(void **state)
{
    (void)state;
    lw_arena_init(&arena, "test", 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    lw_arena_deinit(&arena);
    return 0;
}

/* A file with one tensor; ids as JSON ("[1,2]") or NULL. */
static const char *file_with(const char *name, const char *tensor, const float *x, int64_t rows,
                             int64_t dim, const char *ids)
{
    const char *path = unit_tmp(name);
    const lw_st_entry entry = { tensor, lw_tensor_2d((void *)x, LW_F32, rows, dim) };
    char manifest[512];
    const lw_st_meta meta = { "latentwire", manifest };
    lw_err err = { 0 };

    snprintf(manifest, sizeof(manifest), "{\"prompt\":\"a <cat>\\u001b\",\"token_ids\":%s}", ids);
    assert_ok(lw_st_write(path, &entry, 1, &meta, ids ? 1 : 0, &err), &err);
    return path;
}

static lw_embedding embeds_with(const char *name, const float *x, int64_t rows, int64_t dim,
                                const char *ids)
{
    lw_embedding e;
    lw_err err = { 0 };

    assert_ok(lw_embedding_read(file_with(name, "prompt_embeds", x, rows, dim, ids), NULL, &arena,
                                &e, &err),
              &err);
    return e;
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12 * (1 + fabs(want))))
        fail_msg("%.17g, not %.17g", got, want);
}

/* ---- reading ---- */

static void a_tensor_is_chosen_or_the_choice_is_told(void **state)
{
    const float x[4] = { 1, 2, 3, 4 };
    const int64_t batch[3] = { 1, 2, 2 }, flat[1] = { 4 };
    const lw_st_entry two[] = { { "a", lw_tensor_2d((void *)x, LW_F32, 2, 2) },
                                { "b", lw_tensor_nd((void *)x, LW_F32, 3, batch) },
                                { "c", lw_tensor_nd((void *)x, LW_F32, 1, flat) } };
    const char *path = unit_tmp("two.safetensors"), *none = unit_tmp("none.safetensors");
    lw_embedding e;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_st_write(path, two, 3, NULL, 0, &err), &err);
    assert_int_equal(lw_embedding_read(path, NULL, &arena, &e, &err), LW_E_SHAPE);
    assert_contains(err.text, "\"a\" and \"b\"");
    assert_ok(lw_embedding_read(path, "b", &arena, &e, &err), &err);
    assert_int_equal(e.rows, 2);
    assert_int_equal(e.dim, 2);
    assert_true(e.x[3] == 4.0f);
    assert_int_equal(lw_embedding_read(path, "c", &arena, &e, &err), LW_E_SHAPE);
    assert_contains(err.text, "[4]");
    assert_int_equal(lw_embedding_read(path, "d", &arena, &e, &err), LW_E_NOT_FOUND);
    assert_ok(lw_st_write(none, two + 2, 1, NULL, 0, &err), &err);
    assert_int_equal(lw_embedding_read(none, NULL, &arena, &e, &err), LW_E_SHAPE);
    assert_contains(err.text, "none of its 1 tensors");
}

static void half_precision_is_read(void **state)
{
    const uint16_t bf16[4] = { 0x3f80, 0xc000, 0x4040, 0x0000 };
    const lw_st_entry entry = { "x", lw_tensor_2d((void *)bf16, LW_BF16, 2, 2) };
    const char *path = unit_tmp("bf16.safetensors");
    lw_embedding e;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_st_write(path, &entry, 1, NULL, 0, &err), &err);
    assert_ok(lw_embedding_read(path, NULL, &arena, &e, &err), &err);
    assert_true(e.x[0] == 1.0f && e.x[1] == -2.0f && e.x[2] == 3.0f && e.x[3] == 0.0f);
    assert_string_equal(e.dtype, "bfloat16");
}

static void empty_and_large_are_refused(void **state)
{
    const float x[1] = { 1 };
    float *many = calloc(LW_EMBEDDING_MAX_ROWS + 1, sizeof(*many));
    lw_embedding e;
    lw_err err = { 0 };

    (void)state;
    assert_int_equal(lw_embedding_read(file_with("e", "x", x, 0, 8, NULL), NULL, &arena, &e, &err),
                     LW_E_SHAPE);
    assert_contains(err.text, "empty");
    assert_int_equal(
        lw_embedding_read(file_with("m", "x", many, LW_EMBEDDING_MAX_ROWS + 1, 1, NULL), NULL,
                          &arena, &e, &err),
        LW_E_TOO_LARGE);
    assert_contains(err.text, "2049");
    free(many);
}

static void rows_that_are_not_finite_are_left_out(void **state)
{
    const float x[] = { 1, 0, (float)NAN, 5, 3, 4, 7, (float)INFINITY };
    const float y[] = { 1, 0, 2, 2, 6, 8, 1, 1 };
    const float none[] = { (float)NAN, 1 };
    lw_embedding a = embeds_with("a", x, 4, 2, NULL), b = embeds_with("b", y, 4, 2, NULL), e;
    lw_embedding_stats s;
    lw_embedding_pair p;
    lw_pca pca;
    lw_err err = { 0 };

    (void)state;
    assert_int_equal(a.n_finite, 2);
    assert_ok(lw_embedding_measure(&a, 10, &arena, &s, &err), &err);
    near(s.mean, 2); /* of 1 0 3 4 */
    near(s.max, 4);
    near(s.norm_max, 5);
    assert_ok(lw_embedding_compare(&a, &b, LW_ALIGN_START, &arena, &p, &err), &err);
    assert_int_equal(p.n, 2);
    assert_int_equal(p.rows[1].a, 2);
    near(p.max_abs, 4);
    near(p.mean_abs, 7.0 / 4);
    assert_ok(lw_embedding_pca((lw_embedding[]){ a, b }, 2, &arena, &pca, &err), &err);
    assert_int_equal(pca.n, 6);
    assert_int_equal(
        lw_embedding_read(file_with("n", "x", none, 1, 2, NULL), NULL, &arena, &e, &err),
        LW_E_SHAPE);
    assert_contains(err.text, "every row");
}

static void a_manifest_of_anybody_is_no_error(void **state)
{
    static const char *const ids[] = { "[1]",
                                       "[1,\"x\"]",
                                       "7",
                                       "[1,2,3]",
                                       "{}",
                                       "[1,2",
                                       "[1,2],\"keep\":\"prompt\"",
                                       "[1,2],\"long_prompt\":\"pool\"" };
    const float x[] = { 1, 2, 3, 4 };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(ids); i++)
        assert_null(embeds_with("f", x, 2, 2, ids[i]).ids);
    assert_int_equal(embeds_with("f", x, 2, 2, "[8,9]").ids[1], 9);
    assert_int_equal(embeds_with("f", x, 2, 2, "[8,9],\"keep\":\"all\"").ids[1], 9);
    assert_string_equal(embeds_with("f", x, 2, 2, "[8,9]").prompt, "a <cat>\x1b");
}

/* ---- pairing ---- */

static void check_pairs(const lw_embedding *a, const lw_embedding *b, lw_align align,
                        const char *want)
{
    char got[256] = "";
    lw_embedding_pair p;
    lw_err err = { 0 };

    assert_ok(lw_embedding_compare(a, b, align, &arena, &p, &err), &err);
    for (int64_t k = 0; k < p.n; k++)
        snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%d-%d", k ? " " : "",
                 (int)p.rows[k].a, (int)p.rows[k].b);
    assert_string_equal(got, want);
}

static void rows_are_paired(void **state)
{
    const float x[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    const lw_embedding a = embeds_with("a", x, 5, 1, "[1,2,3,4,5]");
    const lw_embedding b = embeds_with("b", x, 7, 1, "[1,9,2,9,3,4,7]");
    const lw_embedding c = embeds_with("c", x, 5, 1, "[5,4,3,2,1]");
    const lw_embedding bare = embeds_with("d", x, 7, 1, NULL);
    const lw_embedding other = embeds_with("e", x, 2, 1, "[50,60]");
    lw_embedding_pair p;
    lw_err err = { 0 };

    (void)state;
    check_pairs(&a, &b, LW_ALIGN_START, "0-0 1-1 2-2 3-3 4-4");
    check_pairs(&a, &b, LW_ALIGN_END, "0-2 1-3 2-4 3-5 4-6");
    check_pairs(&b, &a, LW_ALIGN_END, "2-0 3-1 4-2 5-3 6-4");
    check_pairs(&a, &b, LW_ALIGN_TOKENS, "0-0 1-2 2-4 3-5");
    check_pairs(&a, &b, LW_ALIGN_AUTO, "0-0 1-2 2-4 3-5");
    check_pairs(&a, &c, LW_ALIGN_AUTO, "0-0 1-1 2-2 3-3 4-4"); /* as many rows: by position */
    check_pairs(&a, &bare, LW_ALIGN_AUTO, "0-0 1-1 2-2 3-3 4-4");
    assert_int_equal(lw_embedding_compare(&a, &bare, LW_ALIGN_TOKENS, &arena, &p, &err),
                     LW_E_INVALID);
    assert_contains(err.text, bare.path);
    assert_int_equal(lw_embedding_compare(&a, &other, LW_ALIGN_AUTO, &arena, &p, &err), LW_E_SHAPE);
    assert_contains(err.text, "no pair of rows");
}

static void other_dimensions_are_named(void **state)
{
    const float x[6] = { 1, 2, 3, 4, 5, 6 };
    const lw_embedding a = embeds_with("a", x, 2, 2, NULL), b = embeds_with("b", x, 2, 3, NULL);
    lw_embedding_pair p;
    lw_err err = { 0 };

    (void)state;
    assert_int_equal(lw_embedding_compare(&a, &b, LW_ALIGN_AUTO, &arena, &p, &err), LW_E_SHAPE);
    assert_contains(err.text, "has 2 dimensions");
    assert_contains(err.text, " 3:");
}

/* ---- measures ---- */

static void by_hand(void **state)
{
    const float x[] = { 3, 4, 0, 0 }, y[] = { 4, 3, 0, 2 };
    const lw_embedding a = embeds_with("a", x, 2, 2, NULL), b = embeds_with("b", y, 2, 2, NULL);
    lw_embedding_pair p;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_embedding_compare(&a, &b, LW_ALIGN_AUTO, &arena, &p, &err), &err);
    near(p.rows[0].cosine, 24.0 / 25);
    near(p.rows[0].norm_a, 5);
    assert_true(isnan(p.rows[1].cosine)); /* a row of zeros has no direction */
    near(p.cosine_mean, 24.0 / 25);
    assert_int_equal(p.cosine_min_pair, 0);
    near(p.mean_abs, 1);
    near(p.rms_abs, sqrt(6.0 / 4));
    near(p.max_abs, 2);
    assert_int_equal(p.max_pair, 1);
    assert_int_equal(p.rows[1].max_dim, 1);
    near(p.relative_frobenius, sqrt(6.0) / 5);
    /* mean rows (1.5, 2) and (2, 2.5) */
    near(p.pooled_cosine, 8 / (2.5 * sqrt(10.25)));
    near(p.cka, 1); /* two points are a line whatever they are */
}

static void alignment_by_hand(void **state)
{
    const float x[] = { 0, 1, 2 }, y[] = { 0, 1, 5 };
    const lw_embedding a = embeds_with("a", x, 3, 1, NULL), b = embeds_with("b", y, 3, 1, NULL);
    lw_embedding_pair p;
    lw_err err = { 0 };

    (void)state;
    /* Of one dimension it is the square of the correlation: less their means -1 0 1, -2 -1 3. */
    assert_ok(lw_embedding_compare(&a, &b, LW_ALIGN_AUTO, &arena, &p, &err), &err);
    near(p.cka, 25.0 / 28);
}

static void alignment_is_blind_to_scale_and_rotation(void **state)
{
    const float x[] = { 1, 2, -1, 0.5f, 3, -2, 0, 1 };
    float y[8];
    lw_embedding a = embeds_with("a", x, 4, 2, NULL), b;
    lw_embedding_pair p;
    lw_err err = { 0 };

    (void)state;
    for (int i = 0; i < 4; i++) { /* a quarter turn, three times as large, moved */
        y[2 * i] = -3 * x[2 * i + 1] + 7;
        y[2 * i + 1] = 3 * x[2 * i] - 5;
    }
    b = embeds_with("b", y, 4, 2, NULL);
    assert_ok(lw_embedding_compare(&a, &b, LW_ALIGN_AUTO, &arena, &p, &err), &err);
    near(p.cka, 1);
    assert_true(p.cosine_mean < 0.9);
    assert_ok(lw_embedding_compare(&a, &a, LW_ALIGN_AUTO, &arena, &p, &err), &err);
    near(p.cka, 1);
    assert_true(p.max_abs == 0.0 && p.relative_frobenius == 0.0);
}

/* 40 rows of 16 small numbers, with dimension 5 three hundred times as large. */
static lw_embedding with_outlier(const char *name, float phase)
{
    float x[40 * 16];

    for (int i = 0; i < 40; i++)
        for (int d = 0; d < 16; d++)
            x[i * 16 + d] = sinf(phase + (float)(i * (d + 2)) * 0.7f) * (d == 5 ? 300.0f : 1.0f);
    return embeds_with(name, x, 40, 16, NULL);
}

static void outliers_are_found_and_left_out(void **state)
{
    lw_embedding a = with_outlier("a", 0), b = with_outlier("b", 1);
    const char *paths[] = { unit_tmp("a1"), unit_tmp("b1") };
    lw_analysis_options how = { .times = 10, .drop_outliers = true };
    lw_analysis *an = calloc(1, sizeof(*an));
    lw_embedding_stats s;
    json_t *json = NULL;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_embedding_measure(&a, 10, &arena, &s, &err), &err);
    assert_int_equal(s.n_outliers, 1);
    assert_int_equal(s.ranked[0], 5);
    assert_true(s.outlier_share > 0.99 && s.outlier_share < 1);
    assert_ok(lw_embedding_measure(&a, 1000, &arena, &s, &err), &err);
    assert_int_equal(s.n_outliers, 0);

    paths[0] = file_with("a1", "x", a.x, 40, 16, NULL);
    paths[1] = file_with("b1", "x", b.x, 40, 16, NULL);
    assert_ok(lw_analysis_make(paths, 2, &how, &arena, an, &err), &err);
    assert_int_equal(an->n_dropped, 1);
    assert_int_equal(an->files[1].dim, 15);
    assert_true(an->files[0].x[15 + 5] == a.x[16 + 6]); /* row 1: dimension 6 has moved up */
    assert_int_equal(an->files[0].of[5], 6);
    assert_true(an->stats[0].max <= 1);
    assert_ok(lw_analysis_json(an, &json, &err), &err);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(json, "dropped_dims"), 0)),
                     5);
    json_decref(json);
    free(an);
}

static void components_by_hand(void **state)
{
    /* Along (1, -2, 2) / 3 by -3 0 3, across it along (2, 2, 1) / 3 by 0.3 -0.6 0.3; moved. */
    const double t[3] = { -3, 0, 3 }, u[3] = { 0.3, -0.6, 0.3 };
    const double along[3] = { 1 / 3.0, -2 / 3.0, 2 / 3.0 },
                 across[3] = { 2 / 3.0, 2 / 3.0, 1 / 3.0 };
    float x[9];
    lw_embedding e;
    lw_pca p;
    lw_err err = { 0 };

    (void)state;
    for (int i = 0; i < 3; i++)
        for (int d = 0; d < 3; d++)
            x[i * 3 + d] = (float)(10 + t[i] * along[d] + u[i] * across[d]);
    e = embeds_with("a", x, 3, 3, NULL);
    assert_ok(lw_embedding_pca(&e, 1, &arena, &p, &err), &err);
    assert_true(p.converged);
    assert_true(fabs(p.share[0] - 6 / 6.18) < 1e-6 && fabs(p.share[1] - 0.18 / 6.18) < 1e-6);
    for (int d = 0; d < 3; d++) {
        /* -2/3 and 2/3 are as large; which of them is positive is up to rounding. */
        const double sign = p.axis[0][2] > 0 ? 1 : -1;

        assert_true(fabs(p.axis[0][d] - sign * along[d]) < 1e-6);
        assert_true(fabs(p.axis[1][d] - across[d]) < 1e-5);
        assert_true(fabs(p.points[d].at[0] - sign * t[d]) < 1e-5);
        assert_true(fabs(p.points[d].at[1] - u[d]) < 1e-5);
    }
}

static void components_of_what_has_none(void **state)
{
    const float same[] = { 0.1f, 7, 0.1f, 7, 0.1f, 7 }, line[] = { 1, 1, 2, 2, 3, 3 };
    lw_embedding e = embeds_with("a", same, 3, 2, NULL);
    lw_pca p;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_embedding_pca(&e, 1, &arena, &p, &err), &err);
    assert_true(isnan(p.share[0]));
    assert_true(p.points[2].at[0] == 0.0 && p.points[2].row == 2);
    e = embeds_with("a", line, 3, 2, NULL);
    assert_ok(lw_embedding_pca(&e, 1, &arena, &p, &err), &err);
    near(p.share[0], 1);
    assert_true(p.converged && fabs(p.share[1]) < 1e-12);
    near(p.points[2].at[0], sqrt(2.0));
    e = embeds_with("a", line, 1, 2, NULL);
    assert_ok(lw_embedding_pca(&e, 1, &arena, &p, &err), &err);
    assert_true(isnan(p.share[0]));
}

/* ---- telling ---- */

static void tokens_get_their_texts(void **state)
{
    static const char vocab[] = "{\"\xc4\xa0red\":8,\"\xc4\x8a\":9,\"\xc3\xa9\":10,"
                                "\"\xc3\x83\xc2\xa9\":11,\"x\":\"y\"}";
    static const char config[] =
        "{\"added_tokens_decoder\":{\"12\":{\"content\":\"<|im_start|>\"},\"13\":7}}";
    const float x[8] = { 1, 2, 3, 4, 5, 6 };
    lw_embedding e = embeds_with("a", x, 6, 1, "[8,9,10,11,12,13]");
    char folder[512];
    lw_err err = { 0 };

    (void)state;
    unit_write("tokenizer_config.json", config, strlen(config));
    snprintf(folder, sizeof(folder), "%s", unit_write("vocab.json", vocab, strlen(vocab)));
    *strrchr(folder, '/') = '\0';
    assert_ok(lw_embedding_name_tokens(folder, &e, 1, &arena, &err), &err);
    assert_string_equal(e.texts[0], " red");
    assert_string_equal(e.texts[1], "\\n");
    assert_string_equal(e.texts[2], "?"); /* half a character */
    assert_string_equal(e.texts[3], "\xc3\xa9");
    assert_string_equal(e.texts[4], "<|im_start|>");
    assert_string_equal(e.texts[5], "");
    unit_write("vocab.json", "[]", 2);
    assert_int_equal(lw_embedding_name_tokens(folder, &e, 1, &arena, &err), LW_E_FORMAT);
    assert_int_equal(lw_embedding_name_tokens("/nowhere", &e, 1, &arena, &err), LW_E_NOT_FOUND);
}

static char *slurp(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);

    assert_non_null(f);
    assert_true(fread(text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return text;
}

static void a_page_and_plots(void **state)
{
    const float x[] = { 1, 2, 3, 4 }, y[] = { 2, 1, 4, (float)NAN };
    const char *paths[] = { file_with("a<b>", "prompt_embeds", x, 2, 2, "[1,2]"),
                            file_with("c", "prompt_embeds", y, 2, 2, "[1,3]") };
    static const char *const plots[] = { "pca", "dimensions", "cosine-B", "difference-B" };
    lw_analysis *an = calloc(1, sizeof(*an));
    const char *page = unit_tmp("page.html");
    char *text, *data, folder[512], file[600];
    FILE *table = tmpfile();
    json_t *json = NULL;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_analysis_make(paths, 2, &(lw_analysis_options){ .times = 10 }, &arena, an, &err),
              &err);
    assert_ok(lw_analysis_json(an, &json, &err), &err);
    assert_ok(lw_analysis_page(an, json, page, &err), &err);
    text = slurp(page);
    assert_contains(text, "a &lt;cat&gt;");
    assert_contains(text, "a&lt;b&gt;");
    assert_contains(text, "src=\"data:image/png;base64,");
    assert_null(strstr(text, "<cat>"));
    data = strstr(text, "id=\"data\">");
    assert_non_null(data);
    free(text);

    snprintf(folder, sizeof(folder), "%s", unit_tmp("plots"));
    assert_ok(lw_analysis_plots(an, folder, &err), &err);
    for (size_t i = 0; i < LW_ARRAY_LEN(plots); i++) {
        uint8_t *rgb;
        int width, height;

        snprintf(file, sizeof(file), "%s/%s.png", folder, plots[i]);
        assert_ok(lw_png_read(file, &arena, &rgb, &width, &height, &err), &err);
        assert_true(width > 100 && height > 60);
        remove(file);
    }
    remove(folder);
    assert_int_equal(lw_analysis_plots(an, page, &err) == LW_OK, 0); /* a file is no folder */

    lw_analysis_print(an, table);
    rewind(table);
    text = calloc(1, 1 << 16);
    assert_true(fread(text, 1, (1 << 16) - 1, table) > 0);
    assert_contains(text, "1 of its rows have a NaN");
    assert_contains(text, "\"a <cat>?\""); /* no escape reaches a terminal */
    free(text);
    fclose(table);
    json_decref(json);
    free(an);
}

static void heat_maps_have_the_right_colours(void **state)
{
    const float x[] = { 1, 0, 0, 1, -1, 0 };
    const lw_embedding a = embeds_with("a", x, 3, 2, NULL);
    lw_canvas c = { 0 };
    int n_low = 0, n_high = 0;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_plot_cosines(&a, &a, 'A', 'A', &c, &err), &err);
    for (int i = 0; i < c.width * (c.height - 30); i++) { /* above the legend */
        const uint8_t *p = c.rgb + 3 * i;
        const lw_colour v = (lw_colour)p[0] << 16 | (lw_colour)p[1] << 8 | p[2];

        n_low += v == lw_colour_scale(0);
        n_high += v == lw_colour_scale(1);
    }
    assert_int_equal(n_high, 3 * 18 * 18); /* the diagonal: cosine 1 */
    assert_int_equal(n_low, 2 * 18 * 18);  /* rows 0 and 2 are opposite: cosine -1 */
    lw_canvas_deinit(&c);
}

/* ---- pictures ---- */

static const char *picture_with(const char *name, int width, int height, uint8_t first)
{
    uint8_t rgb[12 * 12 * 3];
    const char *path = unit_tmp(name);
    lw_err err = { 0 };

    memset(rgb, 100, sizeof(rgb));
    rgb[0] = first;
    assert_ok(lw_png_write(path, rgb, width, height, NULL, 0, &err), &err);
    return path;
}

static void pictures_of_one_size(void **state)
{
    const char *paths[] = { picture_with("a.png", 12, 12, 100), picture_with("b.png", 12, 12, 151),
                            picture_with("c.png", 12, 11, 100) };
    const char *out = unit_tmp("d.png"), *page = unit_tmp("p.html");
    lw_pictures *p = calloc(1, sizeof(*p));
    lw_err err = { 0 };
    json_t *json = NULL;
    int width, height;
    char *text;
    uint8_t *rgb;

    (void)state;
    assert_int_equal(lw_pictures_make(paths, 3, 0, &arena, p, &err), LW_E_SHAPE);
    assert_contains(err.text, "12 x 12");
    assert_contains(err.text, "12 x 11");
    assert_ok(lw_pictures_make(paths, 2, 0, &arena, p, &err), &err);
    near(p->gain, 5);
    assert_int_equal(p->pairs[1].n_differ, 1);
    assert_ok(lw_pictures_difference(p, 1, out, &err), &err);
    assert_ok(lw_png_read(out, &arena, &rgb, &width, &height, &err), &err);
    assert_int_equal(rgb[0] << 16 | rgb[1] << 8 | rgb[2], lw_colour_scale(1));
    assert_int_equal(rgb[3] << 16 | rgb[4] << 8 | rgb[5], lw_colour_scale(0));
    assert_ok(lw_pictures_json(p, &json, &err), &err);
    assert_ok(lw_pictures_page(p, json, page, &err), &err);
    text = slurp(page);
    assert_contains(text, "id=\"difference-B\"");
    free(text);
    json_decref(json);
    assert_ok(lw_pictures_make(paths, 2, 2.5, &arena, p, &err), &err);
    near(p->gain, 2.5);
    free(p);
}

static void a_picture_that_claims_gigabytes_is_refused(void **state)
{
    uint8_t head[33] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0, 0,    0, 13, 'I',
                         'H',  'D', 'R', 0,   0,    0x40, 0,    0,    0, 0x40, 0, 8,  2 };
    const char *paths[2];
    lw_pictures *p = calloc(1, sizeof(*p));
    lw_err err = { 0 };

    (void)state;
    paths[0] = paths[1] = unit_write("big.png", head, sizeof(head));
    assert_int_equal(lw_pictures_make(paths, 2, 0, &arena, p, &err), LW_E_TOO_LARGE);
    assert_contains(err.text, "16384 x 16384");
    paths[0] = paths[1] = unit_write("cut.png", head, 12);
    assert_int_equal(lw_pictures_make(paths, 2, 0, &arena, p, &err), LW_E_FORMAT);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tensor_is_chosen_or_the_choice_is_told),
        cmocka_unit_test(half_precision_is_read),
        cmocka_unit_test(empty_and_large_are_refused),
        cmocka_unit_test(rows_that_are_not_finite_are_left_out),
        cmocka_unit_test(a_manifest_of_anybody_is_no_error),
        cmocka_unit_test(rows_are_paired),
        cmocka_unit_test(other_dimensions_are_named),
        cmocka_unit_test(by_hand),
        cmocka_unit_test(alignment_by_hand),
        cmocka_unit_test(alignment_is_blind_to_scale_and_rotation),
        cmocka_unit_test(outliers_are_found_and_left_out),
        cmocka_unit_test(components_by_hand),
        cmocka_unit_test(components_of_what_has_none),
        cmocka_unit_test(tokens_get_their_texts),
        cmocka_unit_test(a_page_and_plots),
        cmocka_unit_test(heat_maps_have_the_right_colours),
        cmocka_unit_test(pictures_of_one_size),
        cmocka_unit_test(a_picture_that_claims_gigabytes_is_refused),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
