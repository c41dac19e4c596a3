/* From a manifest back to a request. */

#include "orchestrate/recipe.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrate/manifest.h"

#define MAX_TEXT   32768 /* bytes; of a request, as on the wire */
#define MAX_NAME   256   /* of a model, a back end */
#define MAX_DIGEST 64
#define MAX_SIDE   16384
#define MIN_SIDE   16

typedef enum kind { TEXT, WHOLE, NUMBER, SWITCH } kind;

/*
 * What a value must be: of a text at most `max` bytes, of a number [min, max]. A seed is any 64
 * bits: past 2^63 JSON has it as a negative number.
 */
static const struct {
    const char *key;
    kind kind;
    double min, max;
} fields[] = {
    { "version", TEXT, 0, MAX_NAME },
    { "template", TEXT, 0, MAX_NAME },
    { "template_digest", TEXT, 0, MAX_DIGEST },
    { "prompt", TEXT, 0, MAX_TEXT },
    { "negative_prompt", TEXT, 0, MAX_TEXT },
    { "system_prompt", TEXT, 0, MAX_TEXT },
    { "thinking", TEXT, 0, MAX_TEXT },
    { "assistant", TEXT, 0, MAX_TEXT },
    { "think_block", SWITCH, 0, 0 },
    { "raw", SWITCH, 0, 0 },
    { "layer", WHOLE, -1024, 1024 },
    { "max_tokens", WHOLE, 1, 65536 },
    { "messages", TEXT, 0, MAX_TEXT },
    { "long_prompt", TEXT, 0, 16 },
    { "weighting", SWITCH, 0, 0 },
    { "noise", NUMBER, 0, 100 },
    { "noise_seed", WHOLE, -0x1p63, 0x1p63 },
    { "keep", TEXT, 0, 16 },
    { "blend_prompt", TEXT, 0, MAX_TEXT },
    { "blend_share", NUMBER, 0, 1 },
    { "n_rows", WHOLE, 0, 65536 },
    { "row_loss", NUMBER, 0, 1 },
    { "n_tokens", WHOLE, 0, 65536 },
    { "truncated", SWITCH, 0, 0 },
    { "text_digest", TEXT, 0, MAX_DIGEST },
    { "token_ids_digest", TEXT, 0, MAX_DIGEST },
    { "width", WHOLE, MIN_SIDE, MAX_SIDE },
    { "height", WHOLE, MIN_SIDE, MAX_SIDE },
    { "steps", WHOLE, 1, 256 },
    { "seed", WHOLE, -0x1p63, 0x1p63 },
    { "guidance", NUMBER, 0, 1000 },
    { "cfg_normalization", NUMBER, 0, 1000 },
    { "cfg_truncation", NUMBER, -1000, 1000 },
    { "shift", NUMBER, 0, 1000000 },
    { "tile", WHOLE, 0, 65536 },
};

static const lw_op stages[] = { LW_OP_ENCODE, LW_OP_DENOISE, LW_OP_DECODE };
static const char *const stage_fields[] = { "model_id", "weights_digest", "backend", "precision" };

static const json_t *stage_of(const json_t *all, lw_op op)
{
    return json_object_get(all, lw_op_name(op));
}

static const char *text_of(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

/* ---- checking ---- */

static lw_status bad_value(const char *label, const char *key, const char *expected, lw_err *err)
{
    return lw_fail(err, LW_E_FORMAT, "%s: its manifest is damaged: \"%s\" is not %s", label, key,
                   expected);
}

static lw_status check_text(const json_t *v, const char *label, const char *key, size_t max,
                            lw_err *err)
{
    char expected[64];

    if (json_is_string(v) && json_string_length(v) <= max)
        return LW_OK;
    snprintf(expected, sizeof(expected), "a text of at most %zu bytes", max);
    return bad_value(label, key, expected, err);
}

static lw_status check_number(const json_t *v, const char *label, const char *key, bool whole,
                              double min, double max, lw_err *err)
{
    char expected[96];

    if ((whole ? json_is_integer(v) : json_is_number(v)) && json_number_value(v) >= min &&
        json_number_value(v) <= max)
        return LW_OK;
    snprintf(expected, sizeof(expected), "a %snumber from %g to %g", whole ? "whole " : "", min,
             max);
    return bad_value(label, key, expected, err);
}

static lw_status check_fields(const json_t *m, const char *label, lw_err *err)
{
    for (size_t i = 0; i < LW_ARRAY_LEN(fields); i++) {
        const char *key = fields[i].key;
        const json_t *v = json_object_get(m, key);

        if (!v)
            continue;
        if (fields[i].kind == TEXT)
            LW_TRY(check_text(v, label, key, (size_t)fields[i].max, err));
        else if (fields[i].kind == SWITCH && !json_is_boolean(v))
            return bad_value(label, key, "true or false", err);
        else if (fields[i].kind == WHOLE || fields[i].kind == NUMBER)
            LW_TRY(check_number(v, label, key, fields[i].kind == WHOLE, fields[i].min,
                                fields[i].max, err));
    }
    return LW_OK;
}

/* An array of 0 to `most` numbers, when it is there. */
static lw_status check_array(const json_t *m, const char *label, const char *key, bool whole,
                             double min, double max, size_t most, lw_err *err)
{
    const json_t *a = json_object_get(m, key), *v;
    size_t i;

    if (!a)
        return LW_OK;
    if (!json_is_array(a) || json_array_size(a) > most)
        return bad_value(label, key, "a list of numbers of a sensible length", err);
    json_array_foreach(a, i, v)
    {
        LW_TRY(check_number(v, label, key, whole, min, max, err));
    }
    return LW_OK;
}

static lw_status check_variables(const json_t *m, const char *label, lw_err *err)
{
    const json_t *all = json_object_get(m, "variables");
    const char *key;
    json_t *v;

    if (all && (!json_is_object(all) || json_object_size(all) > LW_MANIFEST_MAX_VARIABLES))
        return bad_value(label, "variables", "an object of at most 32 texts", err);
    json_object_foreach((json_t *)all, key, v)
    {
        LW_TRY(check_text(v, label, "variables", MAX_TEXT, err));
    }
    return LW_OK;
}

static lw_status check_stages(const json_t *m, const char *label, lw_err *err)
{
    const json_t *all = json_object_get(m, "stages");

    if (all && !json_is_object(all))
        return bad_value(label, "stages", "an object", err);
    for (int op = LW_OP_NONE + 1; op < LW_N_OPS; op++) {
        const json_t *stage = stage_of(all, (lw_op)op);

        if (stage && !json_is_object(stage))
            return bad_value(label, lw_op_name((lw_op)op), "an object", err);
        for (size_t i = 0; stage && i < LW_ARRAY_LEN(stage_fields); i++)
            if (json_object_get(stage, stage_fields[i]))
                LW_TRY(check_text(json_object_get(stage, stage_fields[i]), label, stage_fields[i],
                                  MAX_NAME, err));
    }
    return LW_OK;
}

/* What holds between the values. */
static lw_status check_whole(const json_t *m, const char *label, lw_err *err)
{
    const json_int_t width = json_integer_value(json_object_get(m, "width"));
    const json_int_t height = json_integer_value(json_object_get(m, "height"));
    const json_t *sigmas = json_object_get(m, "sigmas"), *steps = json_object_get(m, "steps");

    if (width * height * 3 > (json_int_t)LW_MAX_FRAME_BYTES)
        return lw_fail(err, LW_E_TOO_LARGE,
                       "%s: its manifest asks for %lld x %lld pixels, which no hub can send", label,
                       (long long)width, (long long)height);
    if (sigmas && (json_array_size(sigmas) < 2 ||
                   (steps && json_integer_value(steps) + 1 != (json_int_t)json_array_size(sigmas))))
        return bad_value(label, "sigmas", "one number more than there are steps", err);
    return LW_OK;
}

static lw_status check(const json_t *m, const char *label, lw_err *err)
{
    const json_t *format = json_object_get(m, "manifest");

    if (!json_is_integer(format) || json_integer_value(format) < 1)
        return bad_value(label, "manifest", "the number of a format", err);
    if (json_integer_value(format) > LW_MANIFEST_VERSION)
        return lw_fail(err, LW_E_PRECONDITION,
                       "%s: its manifest has format %lld, and this version reads up to %d; use a "
                       "later latentwire",
                       label, (long long)json_integer_value(format), LW_MANIFEST_VERSION);
    LW_TRY(check_fields(m, label, err));
    LW_TRY(check_array(m, label, "sigmas", false, 0, 1, LW_MAX_SIGMAS, err));
    LW_TRY(check_array(m, label, "token_ids", true, 0, INT32_MAX, LW_MANIFEST_MAX_IDS, err));
    LW_TRY(check_array(m, label, "layer_blend", false, -1024, 1024, 2 * LW_MAX_BLEND, err));
    LW_TRY(check_variables(m, label, err));
    LW_TRY(check_stages(m, label, err));
    return check_whole(m, label, err);
}

lw_status lw_recipe_read(const char *text, const char *label, json_t **ret, lw_err *err)
{
    const size_t len = strlen(text);
    json_error_t why = { 0 };
    json_t *m = NULL;
    lw_status s;

    if (len > LW_MAX_MANIFEST)
        return lw_fail(err, LW_E_FORMAT, "%s: its manifest has %zu bytes, at most %u are read",
                       label, len, LW_MAX_MANIFEST);
    m = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(m)) {
        s = lw_fail(err, LW_E_FORMAT, "%s: its manifest is not a JSON object%s%s", label,
                    m ? "" : ": ", m ? "" : why.text);
        json_decref(m);
        return s;
    }
    s = check(m, label, err);
    if (s == LW_OK)
        *ret = m;
    else
        json_decref(m);
    return s;
}

/* ---- the request ---- */

static lw_status check_origin(const json_t *m, const char *label, lw_err *err)
{
    const json_t *all = json_object_get(m, "stages");
    const char *given = stage_of(all, LW_OP_ENCODE_IMAGE) ? "a picture"
                        : !stage_of(all, LW_OP_DENOISE)   ? "given latents"
                        : !stage_of(all, LW_OP_ENCODE)    ? "given embeddings"
                                                          : NULL;

    if (!stage_of(all, LW_OP_DECODE))
        return lw_fail(err, LW_E_PRECONDITION,
                       "%s: its manifest does not say what decoded it (\"stages\")", label);
    if (given)
        return lw_fail(err, LW_E_PRECONDITION,
                       "%s: made from %s, which its file does not hold, and not from a prompt",
                       label, given);
    return LW_OK;
}

static lw_status check_complete(const json_t *m, const char *label, lw_err *err)
{
    static const char *const needed[] = { "prompt", "seed", "width", "height" };
    char missing[128] = "";
    size_t n = 0;

    for (size_t i = 0; i < LW_ARRAY_LEN(needed); i++)
        if (!json_object_get(m, needed[i]))
            n += (size_t)snprintf(missing + n, sizeof(missing) - n, "%s%s", n ? ", " : "",
                                  needed[i]);
    if (!json_object_get(m, "steps") && !json_object_get(m, "sigmas"))
        n += (size_t)snprintf(missing + n, sizeof(missing) - n, "%ssteps", n ? ", " : "");
    if (n)
        return lw_fail(err, LW_E_PRECONDITION, "%s: its manifest lacks what is needed: %s", label,
                       missing);
    return LW_OK;
}

/* A list that check_array has checked. */
static lw_f64s copy_list(const json_t *list, double *to)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        to[i] = json_number_value(json_array_get(list, i));
    return (lw_f64s){ .v = to, .n = (uint32_t)json_array_size(list) };
}

lw_status lw_recipe_submit(const json_t *m, const char *label, lw_recipe_numbers *numbers,
                           lw_msg *ret, lw_err *err)
{
    const json_t *v, *blend = json_object_get(m, "layer_blend"),
                     *levels = json_object_get(m, "sigmas");

    LW_TRY(check_origin(m, label, err));
    LW_TRY(check_complete(m, label, err));
    lw_msg_init(ret, LW_MSG_SUBMIT, NULL);
    lw_msg_set(ret, from, LW_ARTEFACT_PROMPT);
    lw_msg_set(ret, to, LW_ARTEFACT_IMAGE);
    lw_msg_set(ret, n, 1);
#define SET(key, value)                                                                            \
    if ((v = json_object_get(m, #key)) != NULL)                                                    \
        lw_msg_set(ret, key, value);
#define SET_TEXT(key)   SET(key, json_string_value(v))
#define SET_WHOLE(key)  SET(key, (uint64_t)json_integer_value(v))
#define SET_NUMBER(key) SET(key, json_number_value(v))
#define SET_SWITCH(key) SET(key, json_is_true(v))
    SET_TEXT(prompt)
    SET_TEXT(negative_prompt)
    SET_TEXT(system_prompt)
    SET_TEXT(thinking)
    SET_TEXT(assistant)
    SET_SWITCH(think_block)
    SET_SWITCH(raw)
    SET(layer, json_integer_value(v))
    SET_WHOLE(max_tokens)
    SET_WHOLE(width)
    SET_WHOLE(height)
    SET_WHOLE(steps)
    SET_WHOLE(seed)
    SET_NUMBER(guidance)
    SET_NUMBER(cfg_normalization)
    SET_NUMBER(cfg_truncation)
    SET_NUMBER(shift)
    SET_WHOLE(tile)
    SET_TEXT(messages)
    SET_TEXT(long_prompt)
    SET_SWITCH(weighting)
    SET_NUMBER(noise)
    SET_WHOLE(noise_seed)
    SET_TEXT(keep)
    SET_TEXT(blend_prompt)
    SET_NUMBER(blend_share)
#undef SET_TEXT
#undef SET_WHOLE
#undef SET_NUMBER
#undef SET_SWITCH
#undef SET
    if (blend)
        lw_msg_set(ret, layer_blend, copy_list(blend, numbers->layer_blend));
    if (levels) /* the levels themselves: the schedule of the model may be another by now */
        lw_msg_set(ret, sigmas, copy_list(levels, numbers->sigmas));
    return LW_OK;
}

/* ---- what has changed ---- */

lw_status lw_note(json_t *notes, lw_err *err, const char *fmt, ...)
{
    char text[LW_ERR_TEXT_BYTES];
    lw_err clean = { 0 };
    va_list ap;

    va_start(ap, fmt);
    (void)!vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    (void)lw_fail(&clean, LW_E_MISMATCH, "%s", text);
    if (json_array_append_new(notes, json_string(clean.text)))
        return lw_fail(err, LW_E_NOMEM, "no memory for a note");
    return LW_OK;
}

/* A worker of the report as a stage of a manifest; NULL: no memory. */
static json_t *stage_of_worker(const json_t *w)
{
    static const char *const in_report[] = { "model", "weights_digest", "backend", "precision" };
    json_t *stage = json_object();

    for (size_t i = 0; stage && i < LW_ARRAY_LEN(in_report); i++) {
        const char *text = text_of(w, in_report[i]);

        if (text && text[0] && json_object_set_new(stage, stage_fields[i], json_string(text))) {
            json_decref(stage);
            stage = NULL;
        }
    }
    return stage;
}

/* The first worker of a role that stays, or NULL. */
static const json_t *find_worker(const json_t *report, lw_role wanted)
{
    const json_t *workers = json_object_get(report, "workers");

    for (size_t i = 0; i < json_array_size(workers); i++) {
        const json_t *w = json_array_get(workers, i);
        const char *role = text_of(w, "role"), *state = text_of(w, "state");

        if (role && !strcmp(role, lw_role_name(wanted)) && (!state || strcmp(state, "draining")))
            return w;
    }
    return NULL;
}

json_t *lw_recipe_stages(const json_t *report)
{
    json_t *ret = json_object();

    for (size_t k = 0; ret && k < LW_ARRAY_LEN(stages); k++) {
        const json_t *w = find_worker(report, lw_op_role(stages[k]));

        if (w && json_object_set_new(ret, lw_op_name(stages[k]), stage_of_worker(w))) {
            json_decref(ret);
            ret = NULL;
        }
    }
    return ret;
}

/* True when both say what they have, and it is not the same. */
static bool differ(const json_t *was, const json_t *is, const char *key)
{
    const char *a = text_of(was, key), *b = text_of(is, key);

    return a && b && a[0] && b[0] && strcmp(a, b);
}

static const char *name_of(const json_t *stage)
{
    const char *name = text_of(stage, "model_id");

    return name ? name : "?";
}

lw_status lw_recipe_weights(const json_t *recipe, const json_t *now, const char *label, lw_err *err)
{
    const json_t *then = json_object_get(recipe, "stages");
    char text[LW_ERR_TEXT_BYTES] = "";
    size_t n = 0;

    for (size_t k = 0; k < LW_ARRAY_LEN(stages); k++) {
        const json_t *was = stage_of(then, stages[k]), *is = stage_of(now, stages[k]);

        if (!differ(was, is, "weights_digest") || n >= sizeof(text) / 2)
            continue;
        n += (size_t)snprintf(text + n, sizeof(text) - n,
                              "%s%s: made with the weights %.12s (%.64s), here are %.12s (%.64s)",
                              n ? "; " : "", lw_op_name(stages[k]), text_of(was, "weights_digest"),
                              name_of(was), text_of(is, "weights_digest"), name_of(is));
    }
    if (n)
        return lw_fail(err, LW_E_PRECONDITION, "%.200s: %s", label, text);
    return LW_OK;
}

static lw_status compare_stage(const json_t *was, const json_t *is, lw_op op, json_t *notes,
                               lw_err *err)
{
    static const struct {
        const char *key, *what;
    } names[] = { { "weights_digest", "weights" },
                  { "model_id", "name of the model" },
                  { "backend", "back end" },
                  { "precision", "precision" } };

    for (size_t i = 0; i < LW_ARRAY_LEN(names); i++)
        if (differ(was, is, names[i].key))
            LW_TRY(lw_note(notes, err, "%s: the %s was \"%.80s\" and is \"%.80s\"", lw_op_name(op),
                           names[i].what, text_of(was, names[i].key), text_of(is, names[i].key)));
    return LW_OK;
}

/* Only when both have it: what an older version did not write is no change. */
static bool changed(const json_t *was, const json_t *is, const char *key)
{
    const json_t *a = json_object_get(was, key), *b = json_object_get(is, key);

    return a && b && !json_equal(a, b);
}

lw_status lw_recipe_compare(const json_t *recipe, const json_t *made, json_t *notes, lw_err *err)
{
    const json_t *then = json_object_get(recipe, "stages");
    const json_t *now = json_object_get(made, "stages");

    for (size_t k = 0; k < LW_ARRAY_LEN(stages); k++)
        LW_TRY(compare_stage(stage_of(then, stages[k]), stage_of(now, stages[k]), stages[k], notes,
                             err));
    if (changed(recipe, made, "version"))
        LW_TRY(lw_note(notes, err, "the program was latentwire %.64s and is %.64s",
                       text_of(recipe, "version"), text_of(made, "version")));
    if (changed(recipe, made, "text_digest"))
        LW_TRY(lw_note(notes, err,
                       "the prompt is put into other words around it than it was "
                       "(text_digest)"));
    if (changed(recipe, made, "token_ids") || changed(recipe, made, "token_ids_digest") ||
        changed(recipe, made, "n_tokens"))
        LW_TRY(lw_note(notes, err, "the text is cut into other tokens than it was (token_ids)"));
    if (changed(recipe, made, "sigmas"))
        LW_TRY(lw_note(notes, err, "the noise levels are others than they were (sigmas)"));
    return LW_OK;
}
