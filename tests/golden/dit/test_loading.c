/*
 * Files that are not a Z-Image transformer, or not a whole one, and configurations that do not fit
 * theirs: each is refused with the name of what is wrong.
 */
#include "tests/golden/dit/fixture.h"

#include <stdio.h>
#include <string.h>

#include "dit-svc/s3dit.h"

static json_t *model_spec(json_t *doc, const char *name)
{
    json_t *spec;
    size_t i;

    json_array_foreach(json_object_get(doc, "models"), i, spec)
    {
        if (strcmp(json_string_value(json_object_get(spec, "name")), name) == 0)
            return spec;
    }
    fail_msg("no model '%s'", name);
    return NULL;
}

static void refuse(const char *path, lw_status want, const char *part)
{
    vt_backend back;
    lw_dit *m = NULL;
    lw_err err = { 0 };

    assert_true(vt_backend_open(&back, "ref", 1));
    vt_fails(lw_dit_create(path, LW_KEEP_STORED, &back.k, &m, &err), want, part, &err);
    assert_null(m);
    vt_backend_close(&back);
}

static void test_damaged_files(void **state)
{
    static const struct {
        const char *model;
        dt_model m;
        lw_status want;
        const char *part;
    } cases[] = {
        { "axes",
          { .drop = "layers.1.feed_forward.w2" },
          LW_E_NOT_FOUND,
          "layers.1.feed_forward.w2.weight" },
        { "axes", { .drop = "cap_pad_token" }, LW_E_NOT_FOUND, "cap_pad_token" },
        { "axes",
          { .reshape = "layers.0.attention.to_k.weight" },
          LW_E_SHAPE,
          "layers.0.attention.to_k" },
        { "axes", { .drop = "layers.0.adaLN" }, LW_E_FORMAT, "layers.0.adaLN_modulation.0.weight" },
        { "axes", { .drop = "layers.0.attention." }, LW_E_FORMAT, "no Z-Image transformer" },
        { "axes", { .drop = "t_embedder.mlp.0" }, LW_E_FORMAT, "t_embedder.mlp.0.weight" },
        /* A block that lost a norm is not taken for the end of the model. */
        { "wide",
          { .drop = "layers.0.attention_norm1", .no_config = true },
          LW_E_NOT_FOUND,
          "layers.0.attention_norm1.weight" },
        { "wide",
          { .drop = "noise_refiner.0.ffn_norm1", .no_config = true, .single = true },
          LW_E_NOT_FOUND,
          "noise_refiner.0.ffn_norm1.weight" },
        /* 24 channels a head do not divide in Z-Image's proportion of axes. */
        { "axes", { .no_config = true }, LW_E_FORMAT, "axes_dims[1] is odd" },
    };
    json_t *doc = vt_load_json(vt_data("dit/cases.json"));
    const char *dir = vt_new_dir();

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        dt_write_model(model_spec(doc, cases[i].model), dir, &cases[i].m);
        refuse(dir, cases[i].want, cases[i].part);
    }
    json_decref(doc);
}

/** Load with one key of the configuration changed. Takes `value`. */
static void refuse_config(const char *dir, const json_t *spec, const char *key, json_t *value,
                          lw_status want, const char *part)
{
    json_t *config = json_deep_copy(json_object_get(spec, "config"));

    assert_int_equal(json_object_set_new(config, key, value), 0);
    vt_write_config(dir, config);
    refuse(dir, want, part);
    json_decref(config);
}

static void test_configs(void **state)
{
    json_t *doc = vt_load_json(vt_data("dit/cases.json")), *spec = model_spec(doc, "axes");
    const char *dir = vt_new_dir();

    (void)state;
    dt_write_model(spec, dir, &(dt_model){ 0 });
    refuse_config(dir, spec, "axes_dims", json_pack("[iii]", 8, 8, 6), LW_E_FORMAT, "sum to 22");
    refuse_config(dir, spec, "axes_dims", json_pack("[ii]", 8, 16), LW_E_FORMAT, "axes_dims");
    refuse_config(dir, spec, "axes_dims", json_pack("[iii]", 9, 9, 6), LW_E_FORMAT, "odd");
    refuse_config(dir, spec, "axes_lens", json_pack("[iii]", 32, 512, 512), LW_E_FORMAT, "room");
    refuse_config(dir, spec, "n_heads", json_integer(5), LW_E_UNIMPLEMENTED, "n_kv_heads");
    refuse_config(dir, spec, "n_layers", json_integer(1), LW_E_FORMAT, "layers.1");
    refuse_config(dir, spec, "n_layers", json_integer(3), LW_E_NOT_FOUND, "layers.2.");
    refuse_config(dir, spec, "n_layers", json_integer(0), LW_E_FORMAT, "n_layers");
    refuse_config(dir, spec, "n_refiner_layers", json_integer(0), LW_E_FORMAT, "refiner.0");
    refuse_config(dir, spec, "in_channels", json_integer(4), LW_E_SHAPE, "all_x_embedder.2-1");
    refuse_config(dir, spec, "cap_feat_dim", json_integer(41), LW_E_SHAPE, "cap_embedder.0");
    refuse_config(dir, spec, "norm_eps", json_real(0), LW_E_FORMAT, "norm_eps");
    refuse_config(dir, spec, "qk_norm", json_false(), LW_E_UNIMPLEMENTED, "qk_norm");
    refuse_config(dir, spec, "dim", json_string("96"), LW_E_FORMAT, "dim");
    refuse_config(dir, spec, "siglip_feat_dim", json_integer(1152), LW_E_UNIMPLEMENTED, "Omni");
    refuse_config(dir, spec, "_class_name", json_string("FluxTransformer2DModel"),
                  LW_E_UNIMPLEMENTED, "FluxTransformer2DModel");
    json_decref(doc);
}

/** Write a file that holds nothing but small tensors of these names. */
static void write_names(const char *path, const lw_st_entry *names, size_t n)
{
    lw_err err = { 0 };

    vt_ok(lw_st_write(path, names, n, NULL, 0, &err), &err);
}

static void test_other_models(void **state)
{
    static float items[2304];
    const lw_tensor t = lw_tensor_2d(items, LW_F32, 1, 2304);
    const lw_st_entry lumina[] = { { "cap_embedder.1.weight", t },
                                   { "layers.0.adaLN_modulation.1.weight", t },
                                   { "layers.0.attention.qkv.weight", t } };
    const lw_st_entry omni[] = { { "layers.0.adaLN_modulation.0.weight", t },
                                 { "layers.0.attention.to_q.weight", t },
                                 { "siglip_embedder.1.weight", t } };
    const lw_st_entry encoder[] = { { "model.layers.0.self_attn.q_proj.weight", t } };
    const char *dir = vt_new_dir();
    char path[512];

    (void)state;
    snprintf(path, sizeof(path), "%s/other.safetensors", dir);
    write_names(path, lumina, LW_ARRAY_LEN(lumina));
    refuse(path, LW_E_FORMAT, "Lumina 2");
    write_names(path, omni, LW_ARRAY_LEN(omni));
    refuse(path, LW_E_UNIMPLEMENTED, "Omni");
    write_names(path, encoder, LW_ARRAY_LEN(encoder));
    refuse(path, LW_E_FORMAT, "give the transformer folder");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_configs),
        cmocka_unit_test(test_other_models),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
