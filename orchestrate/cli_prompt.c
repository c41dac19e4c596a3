/*
 * `latentwire prompt`: what becomes of a prompt before a network sees it. The encoder formats and
 * cuts it into tokens (op tokenize), so what is shown is what would be encoded.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "common/utf8.h"
#include "orchestrate/cli.h"
#include "orchestrate/run.h"
#include "orchestrate/template_use.h"

#define REFERENCE_TOKENS 512  /* where the reference pipeline cuts */
#define MODEL_TOKENS     1504 /* rows that Z-Image's denoiser takes at most */

static const lw_opt options[] = { LW_OPTS_PROMPT,
                                  LW_OPTS_PROMPTS,
                                  LW_OPTS_TEMPLATE,
                                  { .name = "json",
                                    .kind = LW_OPT_FLAG,
                                    .offset = LW_SET(json),
                                    .help = "print a JSON object, one a prompt" },
                                  { .name = "quiet",
                                    .letter = 'q',
                                    .kind = LW_OPT_FLAG,
                                    .offset = LW_SET(quiet),
                                    .help = "the text alone, without its tokens" },
                                  LW_OPTS_MODEL,
                                  LW_OPTS_CLUSTER,
                                  LW_OPT_END };

/* One run of the verb. */
typedef struct prompt_run {
    lw_settings opt;
    const char *const *prompts; /* cleaned */
    size_t n;
    lw_run *run;
    lw_arena arena;
} prompt_run;

/* One prompt's answer; points into the message. */
typedef struct shown {
    const prompt_run *g;
    const char *prompt;
    const lw_msg *result;
    const char *text; /* n_text bytes */
    size_t n_text, n;
    const uint8_t *ids, *lengths, *weights, *kept; /* at no alignment; the last two may be NULL */
} shown;

/* One token. */
typedef struct token {
    int32_t id, bytes;
    float weight;
    bool kept;        /* by --keep */
    bool cut;         /* by --max-tokens */
    const char *text; /* `bytes` bytes: perhaps only a part of a character */
} token;

/* ---- the answer ---- */

static lw_status part(const lw_msg *m, const char *name, lw_dtype dtype, size_t n, bool needed,
                      const uint8_t **ret, lw_err *err)
{
    const lw_msg_tensor *mt = lw_msg_tensor_find(m, name);

    *ret = NULL;
    if (!mt && !needed)
        return LW_OK;
    if (!mt || mt->t.dtype != dtype || mt->t.rank != 1 || (n && (size_t)mt->t.shape[0] != n))
        return lw_fail(err, LW_E_INTERNAL, "the encoder's answer has no usable tensor %s", name);
    *ret = mt->t.data;
    return LW_OK;
}

/* The lengths must add up to the text, so that no token points outside it. */
static lw_status check_lengths(const shown *s, lw_err *err)
{
    size_t at = 0;

    for (size_t i = 0; i < s->n; i++) {
        int32_t length;

        memcpy(&length, s->lengths + 4 * i, 4);
        if (length < 0 || (size_t)length > s->n_text - at)
            return lw_fail(err, LW_E_INTERNAL, "the encoder's tokens do not fit its text");
        at += (size_t)length;
    }
    return LW_OK;
}

static lw_status read_answer(const lw_msg *result, shown *s, lw_err *err)
{
    const lw_msg_tensor *ids = lw_msg_tensor_find(result, LW_T_TOKEN_IDS);
    const lw_msg_tensor *text = lw_msg_tensor_find(result, LW_T_TEXT);
    const uint8_t *bytes;

    s->result = result;
    s->n = ids && ids->t.rank == 1 ? (size_t)ids->t.shape[0] : 0;
    LW_TRY(part(result, LW_T_TOKEN_IDS, LW_I32, s->n, true, &s->ids, err));
    LW_TRY(part(result, LW_T_TOKEN_BYTES, LW_I32, s->n, true, &s->lengths, err));
    LW_TRY(part(result, LW_T_TOKEN_WEIGHTS, LW_F32, s->n, false, &s->weights, err));
    LW_TRY(part(result, LW_T_TOKEN_KEPT, LW_U8, s->n, false, &s->kept, err));
    LW_TRY(part(result, LW_T_TEXT, LW_U8, 0, true, &bytes, err));
    s->text = (const char *)bytes;
    s->n_text = (size_t)text->t.shape[0];
    if (!lw_utf8_valid(s->text, s->n_text))
        return lw_fail(err, LW_E_INTERNAL, "the encoder's text is not UTF-8");
    return check_lengths(s, err);
}

static bool reduces(const shown *s)
{
    return s->g->opt.long_prompt && strcmp(s->g->opt.long_prompt, "truncate") != 0;
}

/* Token i, which begins at *at; moves *at behind it. */
static token token_at(const shown *s, size_t i, size_t *at)
{
    token t = { .weight = 1, .kept = true, .text = s->text + *at };

    memcpy(&t.id, s->ids + 4 * i, 4);
    memcpy(&t.bytes, s->lengths + 4 * i, 4);
    if (s->weights)
        memcpy(&t.weight, s->weights + 4 * i, 4);
    if (s->kept)
        t.kept = s->kept[i] != 0;
    t.cut = !reduces(s) && i >= (size_t)s->g->opt.max_tokens;
    *at += (size_t)t.bytes;
    return t;
}

/* Tokens whose rows go on, before a reduction. */
static size_t count_rows(const shown *s)
{
    size_t n = 0, at = 0;

    for (size_t i = 0; i < s->n; i++) {
        const token t = token_at(s, i, &at);

        n += t.kept && !t.cut;
    }
    return n;
}

/* ---- for people ---- */

/* A token on one line, so that no terminal obeys it. */
static void print_token(const token *t)
{
    putchar('"');
    for (int32_t i = 0; i < t->bytes;) {
        const unsigned char c = (unsigned char)t->text[i];
        size_t len = lw_utf8_len(t->text + i, (size_t)(t->bytes - i));

        if (len == 2 && c == 0xc2 && (unsigned char)t->text[i + 1] < 0xa0)
            len = 0; /* U+0080..U+009F are control characters as well */
        if (c == '\n')
            fputs("\\n", stdout);
        else if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (len == 0 || c < 0x20 || c == 0x7f)
            printf("\\x%02x", c);
        else
            fwrite(t->text + i, 1, len, stdout);
        i += len ? (int32_t)len : 1;
    }
    putchar('"');
}

static void print_tokens(const shown *s)
{
    size_t at = 0;

    for (size_t i = 0; i < s->n; i++) {
        const token t = token_at(s, i, &at);

        printf("%6zu %7d  ", i, (int)t.id);
        print_token(&t);
        if (t.weight != 1)
            printf("  weight %g", (double)t.weight);
        if (!t.kept)
            fputs("  not kept", stdout);
        if (t.cut)
            fputs("  cut", stdout);
        putchar('\n');
    }
}

static void print_text(const shown *s)
{
    for (size_t i = 0; i < s->n_text;) {
        const size_t len = lw_utf8_len(s->text + i, s->n_text - i);
        const unsigned char c = (unsigned char)s->text[i];
        const bool control = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ||
                             (c == 0xc2 && (unsigned char)s->text[i + 1] < 0xa0);

        if (control)
            putchar('?');
        else
            fwrite(s->text + i, 1, len, stdout);
        i += len;
    }
    if (s->n_text == 0 || s->text[s->n_text - 1] != '\n')
        putchar('\n');
}

static void print_counts(const shown *s)
{
    const size_t rows = count_rows(s), most = (size_t)s->g->opt.max_tokens;

    printf("%zu tokens; --max-tokens %zu, the reference pipeline cuts at %d, Z-Image's denoiser "
           "takes %d\n",
           s->n, most, REFERENCE_TOKENS, MODEL_TOKENS);
    if (s->n > most && !reduces(s))
        printf("cut: %zu tokens\n", s->n - most);
    if (reduces(s) && rows > most)
        printf("reduced: %zu rows to %zu (%s)\n", rows, most, s->g->opt.long_prompt);
    if (s->kept)
        printf("kept: %zu rows (--keep %s)\n", rows, s->g->opt.keep);
    if ((rows < most ? rows : most) > MODEL_TOKENS)
        printf("too many: the denoiser refuses more than %d rows\n", MODEL_TOKENS);
}

static void warn_of_cut(const shown *s)
{
    const char *cut = lw_msg_get(s->result, cut_text, "");

    if (!lw_msg_get(s->result, truncated, false))
        return;
    fprintf(stderr,
            "latentwire: warning: the prompt has %zu tokens, %lld are kept (--max-tokens); "
            "cut from: ",
            s->n, (long long)s->g->opt.max_tokens);
    for (; *cut; cut++)
        fputc((unsigned char)*cut < 0x20 || *cut == 0x7f ? ' ' : *cut, stderr);
    fputc('\n', stderr);
}

/* ---- for programs ---- */

/* "text" only when the token is whole characters. */
static json_t *json_of_token(const shown *s, const token *t)
{
    json_t *o =
        json_pack("{s:i, s:i, s:b}", "id", (int)t->id, "bytes", (int)t->bytes, "cut", t->cut);
    const size_t n = (size_t)t->bytes;
    bool ok = o != NULL;

    if (ok && lw_utf8_valid(t->text, n))
        ok = json_object_set_new(o, "text", json_stringn(t->text, n)) == 0;
    if (ok && s->weights)
        ok = json_object_set_new(o, "weight", json_real((double)t->weight)) == 0;
    if (ok && s->kept)
        ok = json_object_set_new(o, "kept", json_boolean(t->kept)) == 0;
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

static json_t *json_of_tokens(const shown *s)
{
    json_t *all = json_array();
    size_t at = 0;

    for (size_t i = 0; all && i < s->n; i++) {
        const token t = token_at(s, i, &at);

        if (json_array_append_new(all, json_of_token(s, &t))) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

static lw_status print_json(const shown *s, lw_err *err)
{
    const lw_msg *r = s->result;
    const size_t rows = count_rows(s), most = (size_t)s->g->opt.max_tokens;
    json_t *o = json_pack(
        "{s:s, s:s%, s:s, s:I, s:I, s:i, s:i, s:I, s:b, s:s, s:o}", "prompt", s->prompt, "text",
        s->text, s->n_text, "text_digest", lw_msg_get(r, text_digest, ""), "n_tokens",
        (json_int_t)s->n, "max_tokens", (json_int_t)most, "reference_tokens", REFERENCE_TOKENS,
        "model_tokens", MODEL_TOKENS, "n_rows", (json_int_t)(rows < most ? rows : most),
        "truncated", lw_msg_get(r, truncated, false), "cut_text", lw_msg_get(r, cut_text, ""),
        "tokens", json_of_tokens(s));
    int failed;

    if (!o)
        return lw_fail(err, LW_E_NOMEM, "no memory for the answer");
    failed = json_dumpf(o, stdout, JSON_COMPACT | JSON_SORT_KEYS) || putchar('\n') == EOF;
    json_decref(o);
    return failed ? lw_fail(err, LW_E_IO, "cannot write to standard output: %s", strerror(errno))
                  : LW_OK;
}

/* ---- the verb ---- */

static lw_status on_tokens(void *arg, const lw_msg *submit, const lw_msg *result, lw_err *err)
{
    shown s = { .g = arg, .prompt = submit->prompt };

    LW_TRY(read_answer(result, &s, err));
    warn_of_cut(&s);
    if (s.g->opt.json)
        return print_json(&s, err);
    print_text(&s);
    if (s.g->opt.quiet)
        return LW_OK;
    putchar('\n');
    print_counts(&s);
    print_tokens(&s);
    return LW_OK;
}

/* One after the other, so that the answers come in the order of the prompts. */
static lw_status show_all(prompt_run *g, lw_err *err)
{
    for (size_t i = 0; i < g->n; i++) {
        lw_msg submit;
        lw_job job = { .submit = &submit, .on_result = on_tokens, .arg = g };

        lw_msg_init(&submit, LW_MSG_SUBMIT, NULL);
        lw_msg_set(&submit, from, LW_ARTEFACT_PROMPT);
        lw_msg_set(&submit, to, LW_ARTEFACT_TOKEN_IDS);
        LW_TRY(lw_settings_prompt(&g->opt, g->prompts[i], &submit, err));
        if (i > 0 && !g->opt.json)
            putchar('\n');
        LW_TRY(lw_run_jobs(g->run, &job, 1, err));
    }
    return LW_OK;
}

static lw_status read_prompts(prompt_run *g, const char *arg, lw_err *err)
{
    const char *const *lines = NULL;
    const char **list;

    g->n = 1;
    if (g->opt.prompts)
        LW_TRY(lw_read_prompts(g->opt.prompts, &g->arena, &lines, &g->n, err));
    list = lw_arena_calloc(&g->arena, g->n, sizeof(*list), err);
    if (!list)
        return LW_E_NOMEM;
    LW_TRY(lw_settings_resolve(&g->opt, lines ? lines[0] : arg, &g->arena, &list[0], err));
    for (size_t i = 1; i < g->n; i++) {
        list[i] = lw_settings_clean(&g->opt, lines[i], &g->arena, err);
        if (!list[i])
            return LW_E_NOMEM;
    }
    g->prompts = list;
    return LW_OK;
}

static lw_status work(prompt_run *g, const char *arg, lw_err *err)
{
    lw_rendered template;
    lw_msg trial;

    LW_TRY(lw_template_apply(&g->opt, &g->arena, &template, err));
    LW_TRY(read_prompts(g, arg, err));
    lw_msg_init(&trial, LW_MSG_SUBMIT, NULL);
    LW_TRY(lw_settings_prompt(&g->opt, g->prompts[0], &trial, err));
    LW_TRY(lw_run_open(&g->opt, 1u << LW_ROLE_ENCODER, &g->run, err));
    return show_all(g, err);
}

lw_status lw_cli_prompt(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    prompt_run g = { .opt = { .think = -1, .guidance = -1 } };
    const char *args[2] = { NULL, NULL };
    int n = 0;
    bool help = false;
    lw_status s;

    lw_opt_describe("latentwire prompt [OPTION]... [PROMPT]",
                    "Show what becomes of a prompt: the formatted text, its tokens, and what would "
                    "be cut.");
    LW_TRY(lw_opt_parse(options, argc, argv, &g.opt, args, LW_ARRAY_LEN(args), &n, &help, err));
    if (help)
        return LW_OK;
    cli->json = g.opt.json;
    if (n > 1 || (n == 1 && g.opt.prompts) || (n == 0 && !g.opt.prompts && !g.opt.messages))
        return lw_fail(err, LW_E_INVALID,
                       "prompt takes one prompt in quotes (or --prompts FILE, or --messages FILE)");
    lw_arena_init(&g.arena, "prompt", 0);
    s = work(&g, args[0], err);
    lw_run_close(&g.run);
    lw_arena_deinit(&g.arena);
    if (s == LW_OK && fflush(stdout))
        s = lw_fail(err, LW_E_IO, "cannot write to standard output: %s", strerror(errno));
    return s;
}
