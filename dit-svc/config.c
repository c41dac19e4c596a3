#include "dit-svc/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/linears.h"

/*
 * The configuration of the denoiser: from config.json, or from the tensors of a file that has none.
 * Either way the result is checked here, so that the forward pass can trust it.
 */

#define MAX_WIDTH 65536

lw_status lw_dit_layout_detect(const lw_weights *w, lw_dit_layout *ret, lw_err *err)
{
    const lw_tensor *cap = lw_weights_find(w, "cap_embedder.1.weight");

    if (lw_weights_find(w, "layers.0.attention.to_q.weight") != NULL)
        *ret = LW_DIT_DIFFUSERS;
    else if (lw_weights_find(w, "layers.0.attention.qkv.weight") != NULL)
        *ret = LW_DIT_SINGLE;
    else
        return lw_fail(
            err, LW_E_FORMAT,
            "%s: no Z-Image transformer in it (looked for layers.0.attention.to_q.weight "
            "and layers.0.attention.qkv.weight); give the transformer folder or a "
            "diffusion model file",
            lw_weights_path(w));
    if (lw_weights_find(w, "siglip_embedder.1.weight") != NULL)
        return lw_fail(err, LW_E_UNIMPLEMENTED,
                       "%s: siglip_embedder is in it; the Omni variant is not offered",
                       lw_weights_path(w));
    if (lw_weights_find(w, "layers.0.adaLN_modulation.0.weight") == NULL)
        return lw_fail(err, LW_E_FORMAT, "%s: layers.0.adaLN_modulation.0.weight is missing%s",
                       lw_weights_path(w),
                       cap != NULL && cap->rank == 2 && cap->shape[1] == 2304
                           ? "; this is a Lumina 2 model, which is not offered"
                           : "; is it another model?");
    return LW_OK;
}

static lw_status check(const lw_dit_config *c, const char *path, lw_err *err)
{
    int64_t sum = c->axes_dims[0] + c->axes_dims[1] + c->axes_dims[2];

    if (c->heads < 1 || c->dim != c->heads * c->head_dim || c->head_dim % 2 != 0)
        return lw_fail(err, LW_E_FORMAT,
                       "%s: dim %lld does not divide into %d heads of an even size", path,
                       (long long)c->dim, c->heads);
    if (sum != c->head_dim)
        return lw_fail(err, LW_E_FORMAT, "%s: axes_dims sum to %lld; expected the head size %lld",
                       path, (long long)sum, (long long)c->head_dim);
    for (int i = 0; i < 3; i++)
        if (c->axes_dims[i] % 2 != 0)
            return lw_fail(err, LW_E_FORMAT, "%s: axes_dims[%d] is odd", path, i);
    if (lw_dit_max_caption(c) < LW_DIT_SEQ_MULTI)
        return lw_fail(err, LW_E_FORMAT, "%s: axes_lens[0] %lld leaves no room for a caption", path,
                       (long long)c->axes_lens[0]);
    if (c->t_freq % 2 != 0)
        return lw_fail(err, LW_E_FORMAT, "%s: t_embedder.mlp.0.weight takes an odd width %lld",
                       path, (long long)c->t_freq);
    if (!(c->norm_eps > 0) || !(c->rope_theta > 0) || !isfinite(c->rope_theta) ||
        !isfinite(c->t_scale))
        return lw_fail(err, LW_E_FORMAT,
                       "%s: norm_eps %g, rope_theta %g and t_scale %g must be finite and above 0",
                       path, (double)c->norm_eps, c->rope_theta, c->t_scale);
    return LW_OK;
}

static lw_status read_fields(const json_t *o, const char *path, lw_dit_config *c, lw_err *err)
{
    const char *cls = lw_json_str(o, path, "_class_name", "ZImageTransformer2DModel", err);
    int64_t patch[1] = { 2 }, f_patch[1] = { 1 }, kv;

    c->dim = lw_json_int(o, path, "dim", 2, MAX_WIDTH, false, 0, err);
    c->n_layers = (int)lw_json_int(o, path, "n_layers", 1, LW_DIT_MAX_LAYERS, false, 0, err);
    c->n_refiner =
        (int)lw_json_int(o, path, "n_refiner_layers", 0, LW_DIT_MAX_LAYERS, false, 0, err);
    c->heads = (int)lw_json_int(o, path, "n_heads", 1, MAX_WIDTH, false, 0, err);
    kv = lw_json_int(o, path, "n_kv_heads", 1, MAX_WIDTH, true, c->heads, err);
    c->cap_dim = lw_json_int(o, path, "cap_feat_dim", 1, MAX_WIDTH, false, 0, err);
    c->channels = lw_json_int(o, path, "in_channels", 1, 4096, false, 0, err);
    c->norm_eps = (float)lw_json_num(o, path, "norm_eps", true, 1e-5, err);
    c->rope_theta = lw_json_num(o, path, "rope_theta", true, 256.0, err);
    c->t_scale = lw_json_num(o, path, "t_scale", true, 1000.0, err);
    if (json_object_get(o, "all_patch_size") != NULL)
        (void)lw_json_int_array(o, path, "all_patch_size", 1, 64, patch, 1, err);
    if (json_object_get(o, "all_f_patch_size") != NULL)
        (void)lw_json_int_array(o, path, "all_f_patch_size", 1, 1, f_patch, 1, err);
    c->patch = (int)patch[0];
    if (lw_json_int_array(o, path, "axes_dims", 2, MAX_WIDTH, c->axes_dims, 3, err) != 3 ||
        lw_json_int_array(o, path, "axes_lens", 1, 1 << 20, c->axes_lens, 3, err) != 3)
        return err->code != LW_OK ? err->code
                                  : lw_fail(err, LW_E_FORMAT,
                                            "%s: axes_dims and axes_lens need three numbers", path);
    if (err->code != LW_OK)
        return err->code;
    if (strcmp(cls, "ZImageTransformer2DModel") != 0)
        return lw_fail(err, LW_E_UNIMPLEMENTED,
                       "%s: _class_name is '%s'; this service runs ZImageTransformer2DModel (the "
                       "transformer folder of the model)",
                       path, cls);
    if (kv != c->heads)
        return lw_fail(err, LW_E_UNIMPLEMENTED,
                       "%s: n_kv_heads %lld differs from n_heads %d; grouped heads are not offered",
                       path, (long long)kv, c->heads);
    if (!lw_json_bool(o, path, "qk_norm", true, err))
        return lw_fail(err, LW_E_UNIMPLEMENTED, "%s: qk_norm false is not offered", path);
    if (!json_is_null(json_object_get(o, "siglip_feat_dim")) &&
        json_object_get(o, "siglip_feat_dim") != NULL)
        return lw_fail(err, LW_E_UNIMPLEMENTED,
                       "%s: siglip_feat_dim is set; the Omni variant is not offered", path);
    c->head_dim = c->dim / c->heads;
    return LW_OK;
}

/** A tensor of the file whose shape is asked for; rank must match. */
static const lw_tensor *shape_of(const lw_weights *w, const char *name, int rank, lw_err *err)
{
    const lw_tensor *t = lw_weights_find(w, name);
    char text[128];

    if (err->code != LW_OK)
        return NULL;
    if (t == NULL)
        (void)lw_fail(err, LW_E_FORMAT, "%s: %s is missing; is the file complete?",
                      lw_weights_path(w), name);
    else if (t->rank != rank || t->shape[0] < 1 || t->shape[0] > MAX_WIDTH * 4 ||
             t->shape[rank - 1] < 1 || t->shape[rank - 1] > MAX_WIDTH * 4)
        (void)lw_fail(err, LW_E_FORMAT, "%s: %s is %s; expected rank %d", lw_weights_path(w), name,
                      lw_tensor_describe(t, text, sizeof(text)), rank);
    return err->code == LW_OK ? t : NULL;
}

/** One more than the highest block of that kind of which the file holds anything that is looked
 * for; so a block that has lost a tensor is still counted, and the loader names what is missing. */
static int count_blocks(const lw_weights *w, const char *kind)
{
    static const char *const leaves[] = { "attention_norm1", "ffn_norm2", "attention.qkv",
                                          "attention.to_q", "feed_forward.w1" };
    int n = 0;

    for (int i = 0; i < LW_DIT_MAX_LAYERS; i++)
        for (size_t leaf = 0; leaf < LW_ARRAY_LEN(leaves); leaf++)
            if (lw_weights_findf(w, "%s.%d.%s.weight", kind, i, leaves[leaf]) != NULL)
                n = i + 1;
    return n;
}

/** A configuration that knows fewer blocks than the file has would run half a model in silence. */
static void check_blocks(const lw_dit_config *c, const lw_weights *w, const char *config_path,
                         lw_err *err)
{
    static const char *const kinds[] = { "layers", "noise_refiner", "context_refiner" };

    for (size_t i = 0; i < LW_ARRAY_LEN(kinds) && err->code == LW_OK; i++) {
        int want = i == 0 ? c->n_layers : c->n_refiner, found = count_blocks(w, kinds[i]);

        if (found > want)
            (void)lw_fail(err, LW_E_FORMAT,
                          "%s: %s is %d, but %s has %s.%d; are they of the same model?",
                          config_path, i == 0 ? "n_layers" : "n_refiner_layers", want,
                          lw_weights_path(w), kinds[i], found - 1);
    }
}

static void infer(const lw_weights *w, lw_dit_layout layout, lw_dit_config *c, lw_err *err)
{
    bool single = layout == LW_DIT_SINGLE;
    const lw_tensor *x =
        shape_of(w, single ? "x_embedder.weight" : "all_x_embedder.2-1.weight", 2, err);
    const lw_tensor *norm = shape_of(
        w, single ? "layers.0.attention.q_norm.weight" : "layers.0.attention.norm_q.weight", 1,
        err);
    const lw_tensor *cap = shape_of(w, "cap_embedder.1.weight", 2, err);

    if (err->code != LW_OK)
        return;
    c->dim = x->shape[0];
    c->patch = 2;
    c->channels = x->shape[1] / (c->patch * c->patch);
    c->head_dim = norm->shape[0];
    c->heads = (int)(c->dim / c->head_dim);
    c->cap_dim = cap->shape[1];
    c->n_layers = count_blocks(w, "layers");
    c->n_refiner = count_blocks(w, "noise_refiner");
    c->axes_dims[0] = c->head_dim / 4;
    c->axes_dims[1] = c->axes_dims[2] = (c->head_dim - c->axes_dims[0]) / 2;
    c->axes_lens[0] = 1536;
    c->axes_lens[1] = c->axes_lens[2] = 512;
    c->rope_theta = 256.0;
    c->norm_eps = 1e-5f;
    c->t_scale = 1000.0;
}

lw_status lw_dit_config_load(const char *config_path, const lw_weights *w, lw_dit_layout layout,
                             lw_dit_config *ret, lw_err *err)
{
    lw_err local = { 0 }; /* the getters are sticky: start from a clean one */
    lw_dit_config c = { 0 };
    const lw_tensor *t0, *t2;
    int64_t w1[2];
    json_t *o = NULL;

    if (config_path == NULL)
        infer(w, layout, &c, &local);
    else if (lw_json_load(config_path, &o, &local) == LW_OK)
        (void)(json_is_object(o)
                   ? read_fields(o, config_path, &c, &local)
                   : lw_fail(&local, LW_E_FORMAT, "%s: expected a JSON object", config_path));
    if (local.code == LW_OK && !lw_linear_shape(w, "layers.0.feed_forward.w1.weight", w1))
        (void)lw_fail(&local, LW_E_FORMAT,
                      "%s: layers.0.feed_forward.w1.weight is missing or no "
                      "matrix; is the file complete?",
                      lw_weights_path(w));
    t0 = shape_of(w, "t_embedder.mlp.0.weight", 2, &local);
    t2 = shape_of(w, "t_embedder.mlp.2.weight", 2, &local);
    if (local.code == LW_OK)
        check_blocks(&c, w, config_path != NULL ? config_path : lw_weights_path(w), &local);
    if (local.code == LW_OK) {
        c.ffn = w1[0];
        c.t_freq = t0->shape[1];
        c.t_hidden = t0->shape[0];
        c.adaln = t2->shape[0];
        (void)check(&c, config_path != NULL ? config_path : lw_weights_path(w), &local);
    }
    json_decref(o);
    if (local.code == LW_OK)
        *ret = c;
    else if (err != NULL)
        *err = local;
    return local.code;
}
