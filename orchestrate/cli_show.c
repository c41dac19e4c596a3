/*
 * `latentwire show`: what a picture was made from. The file comes from anybody: what is printed for
 * people holds no control characters, and a value of an unexpected kind is shown as the JSON it is.
 */

#include <errno.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/opt.h"
#include "common/utf8.h"
#include "orchestrate/cli.h"
#include "orchestrate/manifest.h"
#include "orchestrate/picture.h"
#include "proto/schema.h"

#define LABEL_WIDTH 18 /* columns of the names on the left */

typedef struct show_options {
    bool json, parameters;
} show_options;

static const lw_opt options[] = {
    { .name = "json",
      .kind = LW_OPT_FLAG,
      .offset = offsetof(show_options, json),
      .help = "print the manifest as it stands in the file" },
    { .name = "parameters",
      .kind = LW_OPT_FLAG,
      .offset = offsetof(show_options, parameters),
      .help = "print the text \"parameters\", which other programs read" },
    LW_OPT_END
};

/* Keys of a manifest in the order in which people want to know them; the others come behind. */
static const struct {
    const char *key, *name;
} order[] = {
    { "prompt", "prompt" },
    { "negative_prompt", "negative prompt" },
    { "system_prompt", "system prompt" },
    { "thinking", "thinking" },
    { "assistant", "assistant" },
    { "think_block", "think block" },
    { "raw", "raw" },
    { "messages", "messages" },
    { "blend_prompt", "blend prompt" },
    { "blend_share", "blend share" },
    { "weighting", "weighting" },
    { "template", "template" },
    { "template_digest", "template digest" },
    { "variables", "variables" },
    { "seed", "seed" },
    { "width", "width" },
    { "height", "height" },
    { "steps", "steps" },
    { "guidance", "guidance" },
    { "cfg_normalization", "cfg normalization" },
    { "cfg_truncation", "cfg truncation" },
    { "shift", "shift" },
    { "sigmas", "sigmas" },
    { "tile", "tile" },
    { "layer", "layer" },
    { "layer_blend", "layer blend" },
    { "noise", "noise" },
    { "noise_seed", "noise seed" },
    { "keep", "keep" },
    { "long_prompt", "long prompt" },
    { "max_tokens", "max tokens" },
    { "n_tokens", "tokens" },
    { "n_rows", "rows" },
    { "row_loss", "row loss" },
    { "truncated", "truncated" },
    { "token_ids", "token ids" },
    { "token_ids_digest", "token ids digest" },
    { "text_digest", "text digest" },
    { "stages", NULL }, /* a line each */
    { "version", "latentwire" },
    { "manifest", "manifest" },
};

/* ---- text of strangers ---- */

/* Print UTF-8 so that no terminal obeys it; lines after the first are indented. */
static void print_clean(const char *text, int indent)
{
    const size_t n = strlen(text);

    for (size_t i = 0; i < n;) {
        const size_t len = lw_utf8_len(text + i, n - i);
        const unsigned char c = (unsigned char)text[i];
        /* U+0080..U+009F are control characters as well. */
        const bool control =
            c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)text[i + 1] < 0xa0);

        if (c == '\n')
            printf("\n%*s", indent, "");
        else if (len == 0 || control)
            putchar('?');
        else
            fwrite(text + i, 1, len, stdout);
        i += len ? len : 1;
    }
}

static void print_line(const char *name, const char *text)
{
    const int pad = LABEL_WIDTH - (int)strnlen(name, LABEL_WIDTH - 1);

    print_clean(name, 0);
    printf("%*s", pad, "");
    print_clean(text, LABEL_WIDTH);
    putchar('\n');
}

/* ---- for people ---- */

static lw_status no_memory(lw_err *err)
{
    return lw_fail(err, LW_E_NOMEM, "no memory to show a manifest");
}

static lw_status print_value(const char *name, const json_t *v, lw_err *err)
{
    char *text;

    if (json_is_string(v)) {
        print_line(name, json_string_value(v));
        return LW_OK;
    }
    text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (!text)
        return no_memory(err);
    print_line(name, text);
    free(text);
    return LW_OK;
}

/* "encode   Z-Image-Turbo, weights 0123456789ab, onednn 2.6.3, f32", a line each. */
static lw_status print_stage(const char *name, const json_t *stage, lw_err *err)
{
    static const char *const fields[] = { "model_id", "weights_digest", "backend", "precision" };
    lw_buf line;
    lw_status s;

    if (!json_is_object(stage))
        return print_value(name, stage, err);
    lw_buf_init(&line, LW_MAX_MANIFEST);
    for (size_t i = 0; i < LW_ARRAY_LEN(fields); i++) {
        const char *text = json_string_value(json_object_get(stage, fields[i]));
        const bool digest = !strcmp(fields[i], "weights_digest");

        if (text)
            lw_buf_printf(&line, digest ? "%s%s%.12s" : "%s%s%s", line.len ? ", " : "",
                          digest ? "weights " : "", text);
    }
    s = line.failed ? no_memory(err) : LW_OK;
    if (s == LW_OK)
        print_line(name, lw_buf_cstr(&line));
    lw_buf_deinit(&line);
    return s;
}

static lw_status print_stages(const json_t *stages, lw_err *err)
{
    const json_t *stage;
    const char *name;

    if (!json_is_object(stages))
        return print_value("stages", stages, err);
    for (int op = LW_OP_NONE + 1; op < LW_N_OPS; op++)
        if (json_object_get(stages, lw_op_name((lw_op)op)))
            LW_TRY(print_stage(lw_op_name((lw_op)op),
                               json_object_get(stages, lw_op_name((lw_op)op)), err));
    json_object_foreach((json_t *)stages, name, stage)
    {
        if (lw_op_from_name(name, strlen(name)) == LW_OP_NONE)
            LW_TRY(print_value(name, stage, err));
    }
    return LW_OK;
}

static bool is_ordered(const char *key)
{
    for (size_t i = 0; i < LW_ARRAY_LEN(order); i++)
        if (!strcmp(order[i].key, key))
            return true;
    return false;
}

static lw_status print_manifest(const json_t *m, lw_err *err)
{
    const json_t *v;
    const char *key;

    for (size_t i = 0; i < LW_ARRAY_LEN(order); i++) {
        v = json_object_get(m, order[i].key);
        if (v)
            LW_TRY(order[i].name ? print_value(order[i].name, v, err) : print_stages(v, err));
    }
    json_object_foreach((json_t *)m, key, v)
    {
        if (!is_ordered(key))
            LW_TRY(print_value(key, v, err));
    }
    return LW_OK;
}

/* ---- the verb ---- */

static lw_status show_manifest(const lw_picture *p, bool verbatim, lw_err *err)
{
    const char *text = p->manifest;
    json_error_t why;
    json_t *m;
    lw_status s = LW_OK;

    if (!text)
        return lw_fail(err, LW_E_NOT_FOUND,
                       "%s has no text \"" LW_MANIFEST_KEY "\": it was not made by latentwire, or "
                       "its texts were removed%s",
                       p->label, p->parameters ? "; --parameters shows what it has" : "");
    m = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(m))
        s = lw_fail(err, LW_E_FORMAT, "%s: its manifest is not a JSON object", p->label);
    else if (verbatim)
        puts(text);
    else
        s = print_manifest(m, err);
    json_decref(m);
    return s;
}

static lw_status show_parameters(const lw_picture *p, lw_err *err)
{
    if (!p->parameters)
        return lw_fail(err, LW_E_NOT_FOUND, "%s has no text \"parameters\"", p->label);
    if (isatty(STDOUT_FILENO)) {
        print_clean(p->parameters, 0);
        putchar('\n');
    } else {
        puts(p->parameters);
    }
    return LW_OK;
}

lw_status lw_cli_show(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    show_options o = { 0 };
    const char *args[2];
    bool help = false;
    lw_picture p = { 0 };
    lw_arena arena;
    lw_status s;
    int n = 0;

    lw_opt_describe("latentwire show [OPTION]... PICTURE.png",
                    "Print what a picture was made from (\"-\" reads it from standard input).");
    LW_TRY(lw_opt_parse(options, argc, argv, &o, args, LW_ARRAY_LEN(args), &n, &help, err));
    if (help)
        return LW_OK;
    cli->json = o.json;
    if (n != 1)
        return lw_fail(err, LW_E_INVALID, "show takes one picture, not %d", n);
    if (o.json && o.parameters)
        return lw_fail(err, LW_E_INVALID, "--json and --parameters are two texts; ask for one");
    lw_arena_init(&arena, "show", 0);
    s = lw_picture_read(args[0], &arena, &p, err);
    if (s == LW_OK)
        s = o.parameters ? show_parameters(&p, err) : show_manifest(&p, o.json, err);
    lw_picture_deinit(&p);
    lw_arena_deinit(&arena);
    if (s == LW_OK && fflush(stdout))
        s = lw_fail(err, LW_E_IO, "cannot write to standard output: %s", strerror(errno));
    return s;
}
