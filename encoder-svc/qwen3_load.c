/*
 * Config and tensors of a Qwen3 model. A layer is prepared (and its pages read) when a request
 * first needs it, so hidden_states[-2] never touches the last layer.
 */

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/backend.h"
#include "common/json.h"
#include "common/linears.h"
#include "common/model.h"

#include "encoder-svc/qwen3_impl.h"

#define NAME_BYTES  128
#define MAX_LAYERS  1024
#define MAX_WIDTH   (1 << 20) /* of any dimension but the vocabulary */
#define MAX_VOCAB   (1 << 24)
#define ROPE_THETA  1e6 /* of every published Qwen3 model; single files do not say */
#define DEFAULT_EPS 1e-6

/* ---- config.json ----------------------------------------------------------------------------- */

/* Settings with which a relative of Qwen3 would compute something else. */
static lw_status check_kind(const json_t *j, const char *path, lw_err *err)
{
    lw_err e = { 0 };
    const char *type = lw_json_str(j, path, "model_type", "qwen3", &e);
    const char *act = lw_json_str(j, path, "hidden_act", "silu", &e);
    bool bias = lw_json_bool(j, path, "attention_bias", false, &e);
    bool window = lw_json_bool(j, path, "use_sliding_window", false, &e);
    const json_t *scaling = json_object_get(j, "rope_scaling"), *layer_type;
    size_t i;

    if (e.code != LW_OK)
        return lw_fail(err, e.code, "%s", e.text);
    if (strcmp(type, "qwen3") != 0)
        return lw_fail(err, LW_E_UNIMPLEMENTED, "%s: model_type is \"%.60s\", expected \"qwen3\"",
                       path, type);
    if (strcmp(act, "silu") != 0)
        return lw_fail(err, LW_E_UNIMPLEMENTED, "%s: hidden_act is \"%.60s\", expected \"silu\"",
                       path, act);
    if (bias)
        return lw_fail(err, LW_E_UNIMPLEMENTED, "%s: attention_bias is set, which is not offered",
                       path);
    json_array_foreach(json_object_get(j, "layer_types"), i, layer_type)
    {
        const char *s = json_string_value(layer_type);

        window |= !s || strcmp(s, "full_attention") != 0;
    }
    if (window)
        return lw_fail(err, LW_E_UNIMPLEMENTED, "%s: sliding-window attention is not offered",
                       path);
    if (scaling && !json_is_null(scaling))
        return lw_fail(err, LW_E_UNIMPLEMENTED, "%s: rope_scaling is set, which is not offered",
                       path);
    return LW_OK;
}

/* transformers 5 writes {"rope_parameters": {"rope_theta", "rope_type"}}, older ones "rope_theta".
 */
static lw_status read_theta(const json_t *j, const char *path, lw_qwen3_config *c, lw_err *err)
{
    const json_t *rope = json_object_get(j, "rope_parameters");
    const json_t *from = json_is_object(rope) ? rope : j;
    lw_err e = { 0 };
    const char *type = lw_json_str(from, path, "rope_type", "default", &e);

    c->rope_theta = lw_json_num(from, path, "rope_theta", true, ROPE_THETA, &e);
    if (e.code != LW_OK)
        return lw_fail(err, e.code, "%s", e.text);
    if (strcmp(type, "default") != 0)
        return lw_fail(err, LW_E_UNIMPLEMENTED, "%s: rope_type is \"%.60s\", expected \"default\"",
                       path, type);
    if (!(c->rope_theta > 1 && c->rope_theta < 1e12))
        return lw_fail(err, LW_E_FORMAT, "%s: \"rope_theta\" is %g, expected more than 1", path,
                       c->rope_theta);
    return LW_OK;
}

static lw_status read_config(const json_t *j, const char *path, lw_qwen3_config *c, lw_err *err)
{
    lw_err e = { 0 };

    LW_TRY(check_kind(j, path, err));
    LW_TRY(read_theta(j, path, c, err));
    c->n_layers = lw_json_int(j, path, "num_hidden_layers", 1, MAX_LAYERS, false, 0, &e);
    c->d_model = lw_json_int(j, path, "hidden_size", 1, MAX_WIDTH, false, 0, &e);
    c->n_heads = lw_json_int(j, path, "num_attention_heads", 1, MAX_WIDTH, false, 0, &e);
    c->n_kv_heads =
        lw_json_int(j, path, "num_key_value_heads", 1, c->n_heads, true, c->n_heads, &e);
    c->head_dim = lw_json_int(j, path, "head_dim", 2, MAX_WIDTH, true,
                              c->n_heads ? c->d_model / c->n_heads : 0, &e);
    c->d_ff = lw_json_int(j, path, "intermediate_size", 1, MAX_WIDTH, false, 0, &e);
    c->vocab = lw_json_int(j, path, "vocab_size", 1, MAX_VOCAB, false, 0, &e);
    c->eps = (float)lw_json_num(j, path, "rms_norm_eps", true, DEFAULT_EPS, &e);
    if (e.code != LW_OK)
        return lw_fail(err, e.code, "%s", e.text);
    if (c->head_dim < 2 || c->head_dim % 2 != 0 || c->n_heads * c->head_dim > MAX_WIDTH)
        return lw_fail(err, LW_E_FORMAT,
                       "%s: head_dim %" PRId64 " must be even, and %" PRId64 " heads of it at most "
                       "%d wide",
                       path, c->head_dim, c->n_heads, MAX_WIDTH);
    if (c->n_heads % c->n_kv_heads != 0)
        return lw_fail(err, LW_E_FORMAT,
                       "%s: %" PRId64 " query heads cannot share %" PRId64
                       " key/value heads evenly",
                       path, c->n_heads, c->n_kv_heads);
    if (!(c->eps >= 0 && c->eps < 1))
        return lw_fail(err, LW_E_FORMAT, "%s: \"rms_norm_eps\" is %g, expected 0 to 1", path,
                       (double)c->eps);
    return LW_OK;
}

/* ---- dimensions from the tensors ------------------------------------------------------------- */

/* Rows of a matrix, which may be packed. */
static lw_status rows_of(const lw_qwen3 *m, const char *name, int64_t *ret, lw_err *err)
{
    char full[NAME_BYTES];
    int64_t shape[2];

    snprintf(full, sizeof full, "%s%s", m->prefix, name);
    if (!lw_linear_shape(m->weights, full, shape) || shape[0] < 1 || shape[0] > MAX_WIDTH)
        return lw_fail(err, LW_E_NOT_FOUND,
                       "%s: tensor %s is missing or no matrix; is it a Qwen3 text encoder?",
                       lw_weights_path(m->weights), full);
    *ret = shape[0];
    return LW_OK;
}

/* Items of axis `axis` of a tensor that must be there with this rank. */
static lw_status dim_of(const lw_qwen3 *m, const char *name, int rank, int axis, int64_t *ret,
                        lw_err *err)
{
    const lw_tensor *t = lw_weights_findf(m->weights, "%s%s", m->prefix, name);
    char text[128];

    if (!t)
        return lw_fail(err, LW_E_NOT_FOUND,
                       "%s: tensor %s%s is missing; is it a Qwen3 text encoder?",
                       lw_weights_path(m->weights), m->prefix, name);
    if (t->rank != rank || t->shape[axis] < 1 || t->shape[axis] > MAX_VOCAB)
        return lw_fail(err, LW_E_SHAPE, "%s: tensor %s%s is %s, expected %d dimensions",
                       lw_weights_path(m->weights), m->prefix, name,
                       lw_tensor_describe(t, text, sizeof text), rank);
    *ret = t->shape[axis];
    return LW_OK;
}

/* One more than the highest layer that the file holds a part of, so a layer that lost a tensor is
 * still counted, and its loading names what is missing. */
static int64_t count_layers(const lw_qwen3 *m)
{
    static const char *const leaves[] = { "input_layernorm", "self_attn.q_proj", "mlp.down_proj" };
    int64_t n = 0;

    for (int64_t i = 0; i < MAX_LAYERS; i++)
        for (size_t leaf = 0; leaf < LW_ARRAY_LEN(leaves); leaf++)
            if (lw_weights_findf(m->weights, "%slayers.%" PRId64 ".%s.weight", m->prefix, i,
                                 leaves[leaf]))
                n = i + 1;
    return n;
}

/* A configuration of fewer layers than the file has would run part of a model in silence. */
static lw_status check_layers(const lw_qwen3 *m, const char *config, lw_err *err)
{
    int64_t n = count_layers(m);

    if (n <= m->c.n_layers)
        return LW_OK;
    return lw_fail(err, LW_E_FORMAT,
                   "%s: num_hidden_layers is %" PRId64 ", but %s has layer %" PRId64
                   "; are they of the same model?",
                   config, m->c.n_layers, lw_weights_path(m->weights), n - 1);
}

static lw_status infer_config(lw_qwen3 *m, lw_err *err)
{
    lw_qwen3_config *c = &m->c;
    int64_t q = 0, kv = 0;

    LW_TRY(dim_of(m, "embed_tokens.weight", 2, 0, &c->vocab, err));
    LW_TRY(dim_of(m, "embed_tokens.weight", 2, 1, &c->d_model, err));
    LW_TRY(dim_of(m, "layers.0.self_attn.q_norm.weight", 1, 0, &c->head_dim, err));
    LW_TRY(rows_of(m, "layers.0.self_attn.q_proj.weight", &q, err));
    LW_TRY(rows_of(m, "layers.0.self_attn.k_proj.weight", &kv, err));
    LW_TRY(rows_of(m, "layers.0.mlp.gate_proj.weight", &c->d_ff, err));
    c->n_heads = q / c->head_dim;
    c->n_kv_heads = kv / c->head_dim;
    if (c->head_dim % 2 != 0 || q % c->head_dim != 0 || kv % c->head_dim != 0 ||
        c->n_kv_heads < 1 || c->n_heads % c->n_kv_heads != 0)
        return lw_fail(err, LW_E_SHAPE,
                       "%s: q_proj has %" PRId64 " rows and k_proj %" PRId64
                       ", which are no groups of heads of %" PRId64 " (q_norm)",
                       lw_weights_path(m->weights), q, kv, c->head_dim);
    c->n_layers = count_layers(m);
    c->rope_theta = ROPE_THETA;
    c->eps = (float)DEFAULT_EPS;
    return LW_OK;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static const char *layer_name(const lw_qwen3 *m, int64_t layer, const char *leaf, char *buf)
{
    snprintf(buf, NAME_BYTES, "%slayers.%" PRId64 ".%s.weight", m->prefix, layer, leaf);
    return buf;
}

static lw_status load_norm(lw_qwen3 *m, int64_t layer, const char *leaf, int64_t n, lw_tensor *ret,
                           lw_err *err)
{
    char name[NAME_BYTES];

    return lw_weights_vector(m->weights, &m->arena, layer_name(m, layer, leaf, name), n, ret, err);
}

int lw_qwen3_bulk_parts(const char *name)
{
    const char *at = strstr(name, "layers.");

    return at && (strstr(at, ".self_attn.") || strstr(at, ".mlp.")) && strstr(at, "_proj.weight");
}

static lw_status load_linear(lw_qwen3 *m, int64_t layer, const char *leaf, int64_t out, int64_t in,
                             lw_linear *ret, lw_err *err)
{
    char name[NAME_BYTES];

    layer_name(m, layer, leaf, name);
    ret->bulk = lw_qwen3_bulk_parts(name) > 0;
    return lw_linear_load(m->k, m->weights, &m->arena, name, out, in, ret, err);
}

static lw_status load_layer(lw_qwen3 *m, int64_t i, lw_err *err)
{
    const lw_qwen3_config *c = &m->c;
    const int64_t D = c->d_model, d = c->head_dim, F = c->d_ff;
    const int64_t Hd = c->n_heads * d, KVd = c->n_kv_heads * d;
    lw_qwen3_layer *l = &m->layers[i];

    LW_TRY(load_norm(m, i, "input_layernorm", D, &l->input_norm, err));
    LW_TRY(load_linear(m, i, "self_attn.q_proj", Hd, D, &l->q, err));
    LW_TRY(load_linear(m, i, "self_attn.k_proj", KVd, D, &l->k, err));
    LW_TRY(load_linear(m, i, "self_attn.v_proj", KVd, D, &l->v, err));
    LW_TRY(load_norm(m, i, "self_attn.q_norm", d, &l->q_norm, err));
    LW_TRY(load_norm(m, i, "self_attn.k_norm", d, &l->k_norm, err));
    LW_TRY(load_linear(m, i, "self_attn.o_proj", D, Hd, &l->o, err));
    LW_TRY(load_norm(m, i, "post_attention_layernorm", D, &l->post_norm, err));
    LW_TRY(load_linear(m, i, "mlp.gate_proj", F, D, &l->gate, err));
    LW_TRY(load_linear(m, i, "mlp.up_proj", F, D, &l->up, err));
    return load_linear(m, i, "mlp.down_proj", D, F, &l->down, err);
}

lw_status lw_qwen3_prepare(lw_qwen3 *m, int64_t state, lw_err *err)
{
    char name[NAME_BYTES];

    for (; m->n_ready < state; m->n_ready++) {
        lw_arena_mark mark = lw_arena_mark_get(&m->arena);
        lw_status st = load_layer(m, m->n_ready, err);

        /* A request for a layer that cannot be loaded may come again and again. */
        if (st != LW_OK) {
            lw_arena_release(&m->arena, mark);
            return st;
        }
    }
    if (state < m->c.n_layers || lw_tensor_present(&m->final_norm))
        return LW_OK;
    snprintf(name, sizeof name, "%snorm.weight", m->prefix);
    return lw_weights_vector(m->weights, &m->arena, name, m->c.d_model, &m->final_norm, err);
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Without a config.json (ComfyUI's files have none) the tensors tell. Beside a single file one
 * counts when it is a Qwen3's: it may be that of a neighbour. */
static lw_status open_config(lw_qwen3 *m, const char *path, lw_err *err)
{
    char config[PATH_MAX];
    json_t *j = NULL;
    bool is_folder;
    const char *type;
    lw_status st;

    LW_TRY(lw_model_config(path, config, sizeof config, &is_folder, err));
    if (config[0] == '\0')
        return infer_config(m, err);
    LW_TRY(lw_json_load(config, &j, err));
    type = json_string_value(json_object_get(j, "model_type"));
    if (!is_folder && (!type || strcmp(type, "qwen3") != 0))
        st = infer_config(m, err);
    else if (!json_is_object(j))
        st = lw_fail(err, LW_E_FORMAT, "%s: not a JSON object", config);
    else
        st = read_config(j, config, &m->c, err);
    json_decref(j);
    return st == LW_OK ? check_layers(m, config, err) : st;
}

static lw_status load(lw_qwen3 *m, const char *path, lw_keep keep, lw_err *err)
{
    char name[NAME_BYTES];

    LW_TRY(lw_weights_open(path, keep, &m->weights, err));
    m->prefix = lw_weights_find(m->weights, "model.embed_tokens.weight") ? "model." : "";
    LW_TRY(open_config(m, path, err));
    m->layers = lw_arena_calloc(&m->arena, (size_t)m->c.n_layers, sizeof *m->layers, err);
    if (!m->layers)
        return LW_E_NOMEM;
    snprintf(name, sizeof name, "%sembed_tokens.weight", m->prefix);
    LW_TRY(lw_weights_matrix(m->weights, &m->arena, name, 2,
                             (const int64_t[]){ m->c.vocab, m->c.d_model }, &m->embed, err));
    return lw_qwen3_prepare(m, m->c.n_layers - 1, err);
}

lw_status lw_qwen3_load(const char *path, lw_keep keep, lw_kernels *k, lw_qwen3 **ret, lw_err *err)
{
    lw_qwen3 *m = calloc(1, sizeof *m);
    lw_status st;

    if (!m)
        return lw_fail(err, LW_E_NOMEM, "no memory for the text encoder");
    m->k = k;
    lw_arena_init(&m->arena, "text encoder weights", 0);
    lw_arena_init(&m->scratch, "text encoder activations", 0);
    st = load(m, path, keep, err);
    if (st != LW_OK) {
        lw_qwen3_destroy(&m);
        return st;
    }
    *ret = m;
    return LW_OK;
}

void lw_qwen3_destroy(lw_qwen3 **m)
{
    if (!m || !*m)
        return;
    lw_weights_close(&(*m)->weights);
    lw_arena_deinit(&(*m)->arena);
    lw_arena_deinit(&(*m)->scratch);
    free(*m);
    *m = NULL;
}

const lw_qwen3_config *lw_qwen3_get_config(const lw_qwen3 *m)
{
    return &m->c;
}

bool lw_qwen3_is_int8(const lw_qwen3 *m)
{
    return m->n_ready > 0 && m->layers[0].q.packed != NULL;
}

bool lw_qwen3_is_rounded(const lw_qwen3 *m)
{
    const lw_tensor *stored = lw_weights_findf(m->weights, "%sembed_tokens.weight", m->prefix);

    return stored && stored->dtype == LW_F32 && lw_weights_rounds_f32(m->weights);
}

lw_status lw_qwen3_digest(const lw_qwen3 *m, char ret_hex[65], lw_err *err)
{
    return lw_weights_digest(m->weights, ret_hex, err);
}
