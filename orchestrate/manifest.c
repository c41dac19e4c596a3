/* The manifest of a picture. */

#include "orchestrate/manifest.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "lw_version.h"

/* Members of a request, by what json_t they become. The list is what "known keys" means. */
/* clang-format off */
#define REQUEST_KEYS(U, I, F, B, S)                                                                \
    S(prompt)                                                                                      \
    S(negative_prompt) S(system_prompt) S(thinking) S(assistant) B(think_block) B(raw) I(layer)    \
        U(max_tokens) U(width) U(height) U(steps) U(seed) F(guidance) F(cfg_normalization)         \
            F(cfg_truncation) F(shift) U(tile) S(messages) S(long_prompt) B(weighting) F(noise)    \
                U(noise_seed) S(keep) S(blend_prompt) F(blend_share)
/* clang-format on */
#define RESULT_KEYS(U, F, B, S) U(n_tokens) U(n_rows) F(row_loss) B(truncated) S(text_digest)

#define DIGEST_BYTES 32

json_t *lw_manifest_new(void)
{
    return json_pack("{s:i, s:s}", "manifest", LW_MANIFEST_VERSION, "version", LW_VERSION);
}

/* ---- reading ---- */

static bool copy_key(json_t *to, const json_t *from, const char *key, bool type_ok)
{
    json_t *v = json_object_get(from, key);

    return !v || !type_ok || json_object_set(to, key, v) == 0;
}

static json_t *known_stages(const json_t *from)
{
    static const char *const fields[] = { "model_id", "weights_digest", "backend", "precision" };
    json_t *to = json_object();
    bool ok = to != NULL;

    for (int op = LW_OP_NONE + 1; ok && op < LW_N_OPS; op++) {
        const json_t *stage = json_object_get(from, lw_op_name((lw_op)op));
        json_t *copy = json_is_object(stage) ? json_object() : NULL;

        if (!json_is_object(stage))
            continue;
        ok = copy != NULL;
        for (size_t i = 0; ok && i < LW_ARRAY_LEN(fields); i++)
            ok =
                copy_key(copy, stage, fields[i], json_is_string(json_object_get(stage, fields[i])));
        ok = ok && json_object_set(to, lw_op_name((lw_op)op), copy) == 0;
        json_decref(copy);
    }
    if (ok)
        return to;
    json_decref(to);
    return NULL;
}

static bool all_numbers(const json_t *array)
{
    if (!json_is_array(array) || json_array_size(array) > LW_MAX_SIGMAS)
        return false;
    for (size_t i = 0; i < json_array_size(array); i++)
        if (!json_is_number(json_array_get(array, i)))
            return false;
    return true;
}

static bool all_texts(const json_t *object)
{
    const char *key;
    json_t *v;

    if (!json_is_object(object) || json_object_size(object) > LW_MANIFEST_MAX_VARIABLES)
        return false;
    json_object_foreach((json_t *)object, key, v)
    {
        if (!json_is_string(v))
            return false;
    }
    return true;
}

static bool all_ids(const json_t *array)
{
    if (!json_is_array(array) || json_array_size(array) > LW_MANIFEST_MAX_IDS)
        return false;
    for (size_t i = 0; i < json_array_size(array); i++)
        if (!json_is_integer(json_array_get(array, i)))
            return false;
    return true;
}

static bool copy_known(json_t *to, const json_t *from)
{
    bool ok = true;

#define KEY(m, check) ok = ok && copy_key(to, from, #m, check(json_object_get(from, #m)));
#define KEY_U(m)      KEY(m, json_is_integer)
#define KEY_I(m)      KEY(m, json_is_integer)
#define KEY_F(m)      KEY(m, json_is_number)
#define KEY_B(m)      KEY(m, json_is_boolean)
#define KEY_S(m)      KEY(m, json_is_string)
    REQUEST_KEYS(KEY_U, KEY_I, KEY_F, KEY_B, KEY_S)
    RESULT_KEYS(KEY_U, KEY_F, KEY_B, KEY_S)
    KEY_S(template)
    KEY_S(template_digest)
#undef KEY_U
#undef KEY_I
#undef KEY_F
#undef KEY_B
#undef KEY_S
    KEY(sigmas, all_numbers)
    KEY(layer_blend, all_numbers)
    KEY(variables, all_texts)
    KEY(token_ids, all_ids)
    KEY(token_ids_digest, json_is_string)
#undef KEY
    if (ok && json_is_object(json_object_get(from, "stages"))) {
        json_t *stages = known_stages(json_object_get(from, "stages"));

        ok = stages && json_object_set_new(to, "stages", stages) == 0;
    }
    return ok;
}

lw_status lw_manifest_parse(const char *text, const char *path, json_t **ret, lw_err *err)
{
    json_t *m = lw_manifest_new(), *from = NULL;
    json_error_t why;

    if (!m)
        return lw_fail(err, LW_E_NOMEM, "no memory for a manifest");
    if (text) {
        size_t len = strlen(text);

        from = len <= LW_MAX_MANIFEST ? json_loadb(text, len, JSON_REJECT_DUPLICATES, &why) : NULL;
        if (!json_is_object(from)) {
            json_decref(from);
            json_decref(m);
            return lw_fail(err, LW_E_FORMAT,
                           "%s: the \"" LW_MANIFEST_KEY "\" entry of the metadata is not a JSON "
                           "object of at most %u bytes; write the file again, or remove the entry",
                           path, LW_MAX_MANIFEST);
        }
        if (!copy_known(m, from)) {
            json_decref(from);
            json_decref(m);
            return lw_fail(err, LW_E_NOMEM, "no memory for the manifest of %s", path);
        }
        json_decref(from);
    }
    *ret = m;
    return LW_OK;
}

/* ---- writing ---- */

static bool set_stage(json_t *stages, lw_op op, const lw_stage_info *s)
{
    json_t *o = json_object();
    bool ok = o != NULL;

#define FIELD(m)                                                                                   \
    if (ok && (s->has >> LW_SF_##m & 1))                                                           \
        ok = json_object_set_new(o, #m, json_string(s->m)) == 0;
    FIELD(model_id)
    FIELD(weights_digest)
    FIELD(backend)
    FIELD(precision)
#undef FIELD
    ok = ok && json_object_set(stages, lw_op_name(op), o) == 0;
    json_decref(o);
    return ok;
}

static bool set_stages(json_t *m, const lw_stages *s)
{
    json_t *stages = json_object_get(m, "stages");

    if (!stages) {
        stages = json_object();
        if (json_object_set_new(m, "stages", stages)) /* also when stages is NULL */
            return false;
    }
    for (int op = LW_OP_NONE + 1; op < LW_N_OPS; op++)
        if (s->by_op[op].has && !set_stage(stages, (lw_op)op, &s->by_op[op]))
            return false;
    return true;
}

static bool set_list(json_t *m, const char *key, const lw_f64s *list)
{
    json_t *a = json_array();

    for (uint32_t i = 0; a && i < list->n; i++)
        if (json_array_append_new(a, json_real(list->v[i]))) {
            json_decref(a);
            return false;
        }
    return json_object_set_new(m, key, a) == 0;
}

/* BLAKE2b-256 of the ids as little-endian int32. */
static bool set_ids_digest(json_t *m, const uint8_t *ids, size_t bytes)
{
    uint8_t digest[DIGEST_BYTES];
    char hex[2 * DIGEST_BYTES + 1];

    if (sodium_init() < 0)
        return false;
    crypto_generichash(digest, sizeof(digest), ids, bytes, NULL, 0);
    sodium_bin2hex(hex, sizeof(hex), digest, sizeof(digest));
    return json_object_set_new(m, "token_ids_digest", json_string(hex)) == 0;
}

/* The tokens that were encoded: as they are up to LW_MANIFEST_MAX_IDS, else their digest. */
static bool set_token_ids(json_t *m, const lw_msg_tensor *mt)
{
    const uint8_t *ids = mt->t.data; /* at no particular alignment */
    json_t *a;

    if (mt->t.dtype != LW_I32 || mt->t.rank != 1)
        return true; /* not ours: a result says what it likes */
    json_object_del(m, "token_ids");
    json_object_del(m, "token_ids_digest");
    if (mt->t.shape[0] > LW_MANIFEST_MAX_IDS)
        return set_ids_digest(m, ids, lw_tensor_bytes(&mt->t));
    a = json_array();
    for (int64_t i = 0; a && i < mt->t.shape[0]; i++) {
        int32_t id;

        memcpy(&id, ids + (size_t)i * sizeof(id), sizeof(id));
        if (json_array_append_new(a, json_integer(id))) {
            json_decref(a);
            return false;
        }
    }
    return json_object_set_new(m, "token_ids", a) == 0;
}

lw_status lw_manifest_add(json_t *m, const lw_msg *submit, const lw_msg *result, lw_err *err)
{
    bool ok = true;

#define SET(msg, key, make)                                                                        \
    if (ok && lw_msg_has(msg, key))                                                                \
        ok = json_object_set_new(m, #key, make) == 0;
#define SET_U(key) SET(submit, key, json_integer((json_int_t)submit->key))
#define SET_I(key) SET(submit, key, json_integer((json_int_t)submit->key))
#define SET_F(key) SET(submit, key, json_real(submit->key))
#define SET_B(key) SET(submit, key, json_boolean(submit->key))
#define SET_S(key) SET(submit, key, json_string(submit->key))
    REQUEST_KEYS(SET_U, SET_I, SET_F, SET_B, SET_S)
#undef SET_U
#undef SET_I
#undef SET_F
#undef SET_B
#undef SET_S
#define SET_U(key) SET(result, key, json_integer((json_int_t)result->key))
#define SET_F(key) SET(result, key, json_real(result->key))
#define SET_B(key) SET(result, key, json_boolean(result->key))
#define SET_S(key) SET(result, key, json_string(result->key))
    RESULT_KEYS(SET_U, SET_F, SET_B, SET_S)
#undef SET_U
#undef SET_F
#undef SET_B
#undef SET_S
#undef SET
    if (ok && lw_msg_tensor_find(result, LW_T_TOKEN_IDS))
        ok = set_token_ids(m, lw_msg_tensor_find(result, LW_T_TOKEN_IDS));
    if (ok && lw_msg_has(result, sigmas))
        ok = set_list(m, "sigmas", &result->sigmas);
    if (ok && lw_msg_has(submit, layer_blend))
        ok = set_list(m, "layer_blend", &submit->layer_blend);
    if (ok && lw_msg_has(result, stages))
        ok = set_stages(m, &result->stages);
    return ok ? LW_OK
              : lw_fail(err, LW_E_NOMEM, "no memory for the manifest (or text that is not UTF-8)");
}

lw_status lw_manifest_set_template(json_t *m, const char *name, const char *digest, lw_err *err)
{
    if (json_object_set_new(m, "template", json_string(name)) ||
        json_object_set_new(m, "template_digest", json_string(digest)))
        return lw_fail(err, LW_E_NOMEM, "no memory for the manifest");
    return LW_OK;
}

lw_status lw_manifest_set_variables(json_t *m, const lw_opt_list *variables, lw_err *err)
{
    json_t *o = json_object();
    bool ok = o != NULL;

    for (int i = 0; ok && i < variables->n; i++) {
        const char *item = variables->items[i], *eq = strchr(item, '=');
        char name[256];

        if (!eq || (size_t)(eq - item) >= sizeof(name))
            continue; /* the template has said so */
        memcpy(name, item, (size_t)(eq - item));
        name[eq - item] = '\0';
        ok = json_object_set_new(o, name, json_string(eq + 1)) == 0;
    }
    ok = ok && (variables->n == 0 || json_object_set(m, "variables", o) == 0);
    json_decref(o);
    return ok ? LW_OK : lw_fail(err, LW_E_NOMEM, "no memory for the manifest");
}

json_t *lw_manifest_picture(const json_t *m, uint64_t index)
{
    json_t *copy = json_copy((json_t *)m); /* shallow: only the seed is replaced */
    const json_t *seed = json_object_get(m, "seed");
    uint64_t own = (uint64_t)json_integer_value(seed) + index;

    if (copy && seed && json_object_set_new(copy, "seed", json_integer((json_int_t)own))) {
        json_decref(copy);
        return NULL;
    }
    return copy;
}

char *lw_manifest_text(const json_t *m)
{
    return json_dumps(m, JSON_COMPACT | JSON_SORT_KEYS);
}

/* ---- the text of other tools ---- */

/* A value with a comma, colon or line feed is quoted as a JSON string, as those tools do. */
static void put_value(lw_buf *b, const char *value)
{
    if (strpbrk(value, ",:\"\n")) {
        json_t *s = json_string(value);
        char *quoted = s ? json_dumps(s, JSON_ENCODE_ANY) : NULL;

        lw_buf_puts(b, quoted ? quoted : "");
        free(quoted);
        json_decref(s);
    } else {
        lw_buf_puts(b, value);
    }
}

static const char *text_of(const json_t *m, const char *key)
{
    const char *s = json_string_value(json_object_get(m, key));

    return s ? s : "";
}

char *lw_manifest_parameters(const json_t *m)
{
    const json_t *denoise = json_object_get(json_object_get(m, "stages"), "denoise");
    const char *model = json_string_value(json_object_get(denoise, "model_id"));
    lw_buf b;
    char *out;

    lw_buf_init(&b, 4u * LW_MAX_MANIFEST);
    lw_buf_printf(&b, "%s\n", text_of(m, "prompt"));
    if (text_of(m, "negative_prompt")[0])
        lw_buf_printf(&b, "Negative prompt: %s\n", text_of(m, "negative_prompt"));
    lw_buf_printf(&b, "Steps: %" JSON_INTEGER_FORMAT ", Sampler: Euler",
                  json_integer_value(json_object_get(m, "steps")));
    /* Their scale of 1 is our guidance of 0. */
    lw_buf_printf(&b, ", CFG scale: %.9g", json_number_value(json_object_get(m, "guidance")) + 1.0);
    lw_buf_printf(&b, ", Seed: %llu",
                  (unsigned long long)json_integer_value(json_object_get(m, "seed")));
    lw_buf_printf(&b, ", Size: %" JSON_INTEGER_FORMAT "x%" JSON_INTEGER_FORMAT,
                  json_integer_value(json_object_get(m, "width")),
                  json_integer_value(json_object_get(m, "height")));
    if (model) {
        lw_buf_puts(&b, ", Model: ");
        put_value(&b, model);
    }
    lw_buf_puts(&b, ", Version: latentwire " LW_VERSION);
    out = b.failed ? NULL : strdup(lw_buf_cstr(&b));
    lw_buf_deinit(&b);
    return out;
}
