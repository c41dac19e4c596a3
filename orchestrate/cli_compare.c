/*
 * `latentwire compare`: embeddings or pictures, the others against the first. What is compared is
 * seen from the files themselves.
 */

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/file.h"
#include "common/opt.h"
#include "orchestrate/analysis/analysis.h"
#include "orchestrate/analysis/pictures.h"
#include "orchestrate/cli.h"
#include "orchestrate/output.h"

typedef struct compare_options {
    const char *tensor, *tokenizer, *align, *html, *plots, *diff;
    double outliers, gain;
    bool drop_outliers, json;
} compare_options;

#define AT(field) offsetof(compare_options, field)

static const lw_opt options[] = {
    { .name = "html",
      .kind = LW_OPT_STR,
      .offset = AT(html),
      .value = "FILE",
      .help = "write a page with tables and pictures that stands in one file" },
    { .name = "plots",
      .kind = LW_OPT_STR,
      .offset = AT(plots),
      .value = "DIR",
      .help = "embeddings: write the plots as PNG files into this folder" },
    { .name = "align",
      .kind = LW_OPT_CHOICE,
      .offset = AT(align),
      .choices = "auto|start|end|tokens",
      .help = "embeddings: pair rows by position from the first or the last, or by equal tokens "
              "(default: start for as many rows, else tokens where they are known)" },
    { .name = "tensor",
      .kind = LW_OPT_STR,
      .offset = AT(tensor),
      .value = "NAME",
      .help = "embeddings: compare this tensor (default: prompt_embeds, or the only one)" },
    { .name = "tokenizer",
      .kind = LW_OPT_STR,
      .offset = AT(tokenizer),
      .value = "DIR",
      .help = "embeddings: name tokens by the vocabulary in this folder" },
    { .name = "outliers",
      .kind = LW_OPT_DOUBLE,
      .offset = AT(outliers),
      .dflt = "10",
      .min = 1,
      .max = 1e6,
      .value = "K",
      .help = "embeddings: a dimension stands out above K times the median deviation" },
    { .name = "drop-outliers",
      .kind = LW_OPT_FLAG,
      .offset = AT(drop_outliers),
      .help = "embeddings: leave such dimensions, of any file, out of everything" },
    { .name = "diff",
      .kind = LW_OPT_STR,
      .offset = AT(diff),
      .value = "FILE",
      .help =
          "pictures: write where they differ as a PNG file; of more than two FILE-1, FILE-2..." },
    { .name = "gain",
      .kind = LW_OPT_DOUBLE,
      .offset = AT(gain),
      .max = 255,
      .value = "G",
      .help = "pictures: multiply differences by this in --diff and --html (default: so that the "
              "largest is brightest)" },
    { .name = "json",
      .kind = LW_OPT_FLAG,
      .offset = AT(json),
      .help = "print everything as one object" },
    LW_OPT_END
};

/* ---- what is it? ---- */

/* The first bytes tell: PNG's signature, or the length of a header that is JSON. */
static lw_status look(const char *path, bool *ret_picture, lw_err *err)
{
    static const uint8_t png[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
    uint8_t head[9] = { 0 };
    FILE *f = fopen(path, "rb");
    size_t n;

    if (!f)
        return lw_fail_errno(err, errno, path);
    errno = 0;
    n = fread(head, 1, sizeof(head), f);
    if (ferror(f)) {
        const int cause = errno;

        fclose(f);
        return lw_fail_errno(err, cause, path);
    }
    fclose(f);
    *ret_picture = n >= sizeof(png) && !memcmp(head, png, sizeof(png));
    if (!*ret_picture && (n < sizeof(head) || head[8] != '{'))
        return lw_fail(err, LW_E_FORMAT, "%s is neither a PNG picture nor a safetensors file",
                       path);
    return LW_OK;
}

static lw_status look_at_all(const char *const *paths, int n, bool *ret_pictures, lw_err *err)
{
    for (int i = 0; i < n; i++) {
        bool picture;

        LW_TRY(look(paths[i], &picture, err));
        if (i == 0)
            *ret_pictures = picture;
        else if (picture != *ret_pictures)
            return lw_fail(err, LW_E_INVALID,
                           "%s is %s and %s is %s; pictures are compared with pictures, "
                           "embeddings with embeddings",
                           paths[0], *ret_pictures ? "a picture" : "a safetensors file", paths[i],
                           picture ? "a picture" : "a safetensors file");
    }
    return LW_OK;
}

/* An option for the other kind would do nothing; say so before it is missed. */
static lw_status check_options(const compare_options *o, bool pictures, lw_err *err)
{
    const struct {
        const char *name;
        bool given, for_pictures;
    } all[] = {
        { "plots", o->plots != NULL, false },
        { "align", o->align != NULL, false },
        { "tensor", o->tensor != NULL, false },
        { "tokenizer", o->tokenizer != NULL, false },
        { "drop-outliers", o->drop_outliers, false },
        { "diff", o->diff != NULL, true },
        { "gain", o->gain > 0, true },
    };

    for (size_t i = 0; i < LW_ARRAY_LEN(all); i++)
        if (all[i].given && all[i].for_pictures != pictures)
            return lw_fail(err, LW_E_INVALID, "--%s is for %s, and these are %s", all[i].name,
                           pictures ? "embeddings" : "pictures",
                           pictures ? "pictures" : "embeddings");
    if (o->html)
        LW_TRY(lw_output_check_file(o->html, err));
    return LW_OK;
}

/* ---- the two kinds ---- */

static lw_status print_json(json_t *o, lw_err *err)
{
    const int failed = json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));

    putchar('\n');
    return failed ? lw_fail(err, LW_E_IO, "cannot write to standard output") : LW_OK;
}

/* Paths come last in the table, so that they are found. */
static void print_path(const compare_options *o, const char *path)
{
    if (!o->json)
        printf("%s\n", path);
}

static lw_align align_of(const char *name)
{
    for (int i = LW_ALIGN_AUTO; name && i <= LW_ALIGN_TOKENS; i++)
        if (!strcmp(name, lw_align_name((lw_align)i)))
            return (lw_align)i;
    return LW_ALIGN_AUTO;
}

static lw_status tell_embeddings(const compare_options *o, const lw_analysis *an, json_t *json,
                                 lw_err *err)
{
    if (o->plots)
        LW_TRY(lw_analysis_plots(an, o->plots, err));
    if (o->html)
        LW_TRY(lw_analysis_page(an, json, o->html, err));
    if (o->json)
        return print_json(json, err);
    lw_analysis_print(an, stdout);
    if (o->plots || o->html)
        putchar('\n');
    if (o->plots)
        print_path(o, o->plots);
    if (o->html)
        print_path(o, o->html);
    return LW_OK;
}

static lw_status compare_embeddings(const compare_options *o, const char *const *paths, int n,
                                    lw_arena *a, lw_err *err)
{
    const lw_analysis_options how = { .tensor = o->tensor,
                                      .tokenizer = o->tokenizer,
                                      .align = align_of(o->align),
                                      .times = o->outliers,
                                      .drop_outliers = o->drop_outliers };
    lw_analysis *an = lw_arena_calloc(a, 1, sizeof(*an), err);
    json_t *json = NULL;
    lw_status s;

    if (!an)
        return LW_E_NOMEM;
    LW_TRY(lw_analysis_make(paths, n, &how, a, an, err));
    LW_TRY(lw_analysis_json(an, &json, err));
    s = tell_embeddings(o, an, json, err);
    json_decref(json);
    return s;
}

static lw_status write_differences(const compare_options *o, const lw_pictures *p, lw_err *err)
{
    const lw_output out = { .pattern = o->diff, .count = (uint64_t)p->n_files - 1 };
    char path[PATH_MAX];

    LW_TRY(lw_output_check(&out, err));
    for (int f = 1; f < p->n_files; f++) {
        LW_TRY(lw_output_path(&out, (uint64_t)f - 1, 0, path, err));
        LW_TRY(lw_pictures_difference(p, f, path, err));
        print_path(o, path);
    }
    return LW_OK;
}

static lw_status tell_pictures(const compare_options *o, const lw_pictures *p, json_t *json,
                               lw_err *err)
{
    if (!o->json)
        lw_pictures_print(p, stdout);
    if (!o->json && (o->diff || o->html))
        printf("\ndifferences are shown times %.6g\n", p->gain);
    if (o->diff)
        LW_TRY(write_differences(o, p, err));
    if (o->html) {
        LW_TRY(lw_pictures_page(p, json, o->html, err));
        print_path(o, o->html);
    }
    return o->json ? print_json(json, err) : LW_OK;
}

static lw_status compare_pictures(const compare_options *o, const char *const *paths, int n,
                                  lw_arena *a, lw_err *err)
{
    lw_pictures *p = lw_arena_calloc(a, 1, sizeof(*p), err);
    json_t *json = NULL;
    lw_status s;

    if (!p)
        return LW_E_NOMEM;
    if (o->diff && !strcmp(o->diff, "-"))
        return lw_fail(err, LW_E_INVALID,
                       "--diff: standard output is for the measures; name a file");
    LW_TRY(lw_pictures_make(paths, n, o->gain, a, p, err));
    LW_TRY(lw_pictures_json(p, &json, err));
    s = tell_pictures(o, p, json, err);
    json_decref(json);
    return s;
}

/* ---- the verb ---- */

lw_status lw_cli_compare(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    compare_options o = { 0 };
    const char *args[LW_ANALYSIS_MAX_FILES + 1];
    bool help = false, pictures = false;
    lw_arena arena;
    lw_status s;
    int n = 0;

    lw_opt_describe("latentwire compare [OPTION]... FILE FILE...",
                    "Compare embeddings (safetensors) or pictures (PNG), all with the first.");
    LW_TRY(lw_opt_parse(options, argc, argv, &o, args, LW_ARRAY_LEN(args), &n, &help, err));
    if (help)
        return LW_OK;
    cli->json = o.json;
    if (n < 2 || n > LW_ANALYSIS_MAX_FILES)
        return lw_fail(err, LW_E_INVALID, "compare takes 2 to %d files, not %d",
                       LW_ANALYSIS_MAX_FILES, n);
    LW_TRY(look_at_all(args, n, &pictures, err));
    LW_TRY(check_options(&o, pictures, err));
    lw_arena_init(&arena, "compare", 0);
    s = pictures ? compare_pictures(&o, args, n, &arena, err)
                 : compare_embeddings(&o, args, n, &arena, err);
    lw_arena_deinit(&arena);
    if (s == LW_OK && fflush(stdout))
        s = lw_fail(err, LW_E_IO, "cannot write to standard output: %s", strerror(errno));
    return s;
}
