/*
 * `latentwire replay`: is this the picture that its manifest makes? What can be known to be in the
 * way is said before work begins: a manifest that lacks something, a template that has changed,
 * other weights by the hub's report. The picture is then made as any other, and compared pixel by
 * pixel and byte by byte.
 */

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "orchestrate/cli.h"
#include "orchestrate/manifest.h"
#include "orchestrate/output.h"
#include "orchestrate/picture.h"
#include "orchestrate/recipe.h"
#include "orchestrate/run.h"
#include "orchestrate/template_use.h"

#define ROLES (1u << LW_ROLE_ENCODER | 1u << LW_ROLE_DENOISER | 1u << LW_ROLE_DECODER)

typedef struct replay_options {
    lw_settings run; /* the first member: its options keep their offsets */
    bool force;
} replay_options;

static const lw_opt options[] = { LW_OPTS_OUTPUT("write the new picture to this PNG file"),
                                  { .name = "force",
                                    .kind = LW_OPT_FLAG,
                                    .offset = offsetof(replay_options, force),
                                    .help = "go on with other weights, or another template, than "
                                            "it was made with" },
                                  { .name = "templates",
                                    .kind = LW_OPT_STR,
                                    .offset = LW_SET(templates),
                                    .value = "DIR",
                                    .help = "folder of templates (default: those of the project)" },
                                  LW_OPTS_MODEL,
                                  LW_OPTS_CLUSTER,
                                  LW_OPT_END };

/* One run of the verb. */
typedef struct replay {
    replay_options opt;
    lw_picture old;
    json_t *recipe; /* its manifest, checked */
    const uint8_t *old_rgb;
    lw_recipe_numbers numbers; /* of the recipe, for the request */
    lw_msg submit;
    lw_run *run;
    json_t *made; /* manifest of the new picture */
    lw_buf png;   /* the new picture as a file */
    lw_difference difference;
    bool same_bytes;
    json_t *notes;         /* array of texts: what is not as it was */
    char output[PATH_MAX]; /* where the new picture went; "" = nowhere */
    lw_arena arena;
} replay;

/* ---- before work begins ---- */

/* The picture that is to be checked must not be the one that is written over. */
static lw_status check_output(const replay *r, const char *input, lw_err *err)
{
    const char *output = r->opt.run.output;
    struct stat a, b;

    if (!output)
        return LW_OK;
    if (!strcmp(output, "-"))
        return lw_fail(err, LW_E_INVALID,
                       "--output: standard output is for what replay found; name a file");
    if (stat(input, &a) == 0 && stat(output, &b) == 0 && a.st_dev == b.st_dev &&
        a.st_ino == b.st_ino)
        return lw_fail(err, LW_E_INVALID, "--output: %s is the picture that is to be checked",
                       output);
    return lw_output_check(&(lw_output){ .pattern = output, .count = 1 }, err);
}

static lw_status read_recipe(replay *r, lw_err *err)
{
    const lw_picture *p = &r->old;

    if (!p->manifest)
        return lw_fail(err, LW_E_PRECONDITION,
                       "%s has no text \"" LW_MANIFEST_KEY "\": it was not made by latentwire, or "
                       "its texts were removed",
                       p->label);
    LW_TRY(lw_recipe_read(p->manifest, p->label, &r->recipe, err));
    LW_TRY(lw_recipe_submit(r->recipe, p->label, &r->numbers, &r->submit, err));
    if (r->submit.width != (uint64_t)p->width || r->submit.height != (uint64_t)p->height)
        return lw_fail(err, LW_E_PRECONDITION,
                       "%s is %d x %d, and its manifest speaks of %llu x %llu; was it cut or "
                       "scaled?",
                       p->label, p->width, p->height, (unsigned long long)r->submit.width,
                       (unsigned long long)r->submit.height);
    return LW_OK;
}

static bool has_variables(const lw_templates *all, const lw_template *t)
{
    const lw_template *chain[LW_TEMPLATE_MAX_DEPTH], *at;
    int n = 0;

    if (lw_template_chain(all, t, chain, &n, &at, NULL) != LW_OK)
        return false;
    while (n > 0)
        if (chain[--n]->variables)
            return true;
    return false;
}

/* What a template that is here gives, against what it gave. */
static lw_status compare_template(replay *r, const lw_templates *all, const lw_template *t,
                                  const char *name, const char *digest, lw_err *err)
{
    const json_t *given = json_object_get(r->recipe, "variables");
    lw_template_value values[LW_MANIFEST_MAX_VARIABLES];
    lw_rendered now = { 0 };
    lw_err why = { 0 };
    const char *key;
    json_t *v;
    int n = 0;

    json_object_foreach((json_t *)given, key, v)
    {
        values[n++] = (lw_template_value){ .name = key, .text = json_string_value(v) };
    }
    if (lw_template_render(all, t, values, n, &r->arena, &now, &why) != LW_OK)
        return lw_note(r->notes, err, "the template \"%.64s\" is damaged: %s", name, why.text);
    if (!strcmp(now.digest, digest))
        return LW_OK;
    if (!given && has_variables(all, t))
        return lw_note(r->notes, err,
                       "the template \"%.64s\" gives something else: it has changed, or had other "
                       "values for its variables",
                       name);
    if (r->opt.force)
        return lw_note(r->notes, err, "the template \"%.64s\" has changed", name);
    return lw_fail(err, LW_E_PRECONDITION,
                   "%s: the template \"%.64s\" has changed: it gave %.12s and gives %.12s; --force "
                   "goes on with the texts that the file has",
                   r->old.label, name, digest, now.digest);
}

/*
 * A picture has the texts of its template, so one that is not here is not missed. The name comes
 * from the file: it is looked up among the templates, and never opened as a path.
 */
static lw_status check_template(replay *r, lw_err *err)
{
    const char *name = json_string_value(json_object_get(r->recipe, "template"));
    const char *digest = json_string_value(json_object_get(r->recipe, "template_digest"));
    const lw_template *t = NULL;
    lw_templates *all = NULL;
    lw_status s;

    if (!name || !digest)
        return LW_OK;
    if (lw_template_is_path(name) ||
        lw_template_open(r->opt.run.templates, name, &all, &t, NULL) != LW_OK)
        return lw_note(r->notes, err, "the template \"%.64s\" is not here", name);
    s = compare_template(r, all, t, name, digest, err);
    lw_templates_destroy(&all);
    return s;
}

static lw_status check_weights(replay *r, lw_err *err)
{
    json_t *now = lw_recipe_stages(lw_run_report(r->run));
    lw_err why = { 0 };
    lw_status s;

    if (!now)
        return lw_fail(err, LW_E_NOMEM, "no memory to compare weights");
    s = lw_recipe_weights(r->recipe, now, r->old.label, &why);
    json_decref(now);
    if (s == LW_OK || r->opt.force) /* then a note about the new picture says so */
        return LW_OK;
    return lw_fail(err, s, "%s; --force goes on anyway", why.text);
}

/* ---- the new picture ---- */

static lw_status compare(replay *r, const uint8_t *rgb, lw_err *err)
{
    const int width = r->old.width, height = r->old.height;

    r->difference = lw_pixels_compare(r->old_rgb, rgb, (uint64_t)width * (uint64_t)height);
    LW_TRY(lw_output_encode(&r->png, rgb, width, height, r->made, err));
    r->same_bytes =
        r->png.len == r->old.file.len && !memcmp(r->png.data, r->old.file.data, r->png.len);
    return lw_recipe_compare(r->recipe, r->made, r->notes, err);
}

static lw_status on_image(void *arg, const lw_msg *submit, const lw_msg *result, lw_err *err)
{
    replay *r = arg;
    const lw_msg_tensor *mt = lw_msg_tensor_find(result, LW_T_IMAGE);
    const int64_t want[4] = { 1, r->old.height, r->old.width, 3 };

    if (!mt || mt->t.dtype != LW_U8 || mt->t.rank != 4 ||
        memcmp(mt->t.shape, want, sizeof(want)) != 0)
        return lw_fail(err, LW_E_SHAPE, "the result has no picture of %d x %d", r->old.width,
                       r->old.height);
    LW_TRY(lw_manifest_add(r->made, submit, result, err));
    return compare(r, mt->t.data, err);
}

static lw_status save(replay *r, lw_err *err)
{
    const lw_output o = { .pattern = r->opt.run.output, .count = 1 };

    if (!o.pattern)
        return LW_OK;
    LW_TRY(lw_output_path(&o, 0, r->submit.seed, r->output, err));
    return lw_output_save(r->output, &r->png, err);
}

static lw_status work(replay *r, const char *path, lw_err *err)
{
    lw_job job = { .submit = &r->submit, .on_result = on_image, .arg = r };

    LW_TRY(check_output(r, path, err));
    LW_TRY(lw_picture_read(path, &r->arena, &r->old, err));
    LW_TRY(read_recipe(r, err));
    LW_TRY(lw_picture_pixels(&r->old, &r->arena, &r->old_rgb, err));
    LW_TRY(check_template(r, err));
    /* What the hub does not say anew is kept: the template. */
    LW_TRY(lw_manifest_parse(r->old.manifest, r->old.label, &r->made, err));
    LW_TRY(lw_run_open(&r->opt.run, ROLES, &r->run, err));
    LW_TRY(check_weights(r, err));
    LW_TRY(lw_run_jobs(r->run, &job, 1, err));
    return save(r, err);
}

/* ---- the answer ---- */

static lw_status print_text(const replay *r, lw_status s, const lw_err *why)
{
    const lw_difference *d = &r->difference;
    const json_t *note;
    lw_err name = { 0 }; /* a clean line */
    size_t i;

    (void)lw_fail(&name, s, "%s", r->old.label);
    if (s == LW_E_PRECONDITION)
        printf("impossible: %s\n", why->text);
    else if (s == LW_E_MISMATCH)
        printf("different: %s: by %d of 255 at most, %llu of %llu pixels, PSNR %.2f dB\n",
               name.text, d->largest, (unsigned long long)d->n_differ,
               (unsigned long long)d->n_pixels, d->psnr_db);
    else
        printf("equal: %s: %llu pixels%s\n", name.text, (unsigned long long)d->n_pixels,
               r->same_bytes ? ", and every byte of the file" : "; the bytes of the files differ");
    json_array_foreach(r->notes, i, note)
    {
        printf("  %s\n", json_string_value(note));
    }
    if (r->output[0])
        printf("  written to %s\n", r->output);
    return fflush(stdout) ? LW_E_IO : LW_OK;
}

static lw_status print_json(const replay *r, lw_status s, const lw_err *why)
{
    const lw_difference *d = &r->difference;
    lw_err name = { 0 };
    json_t *o;
    int failed;

    (void)lw_fail(&name, s, "%s", r->old.label);
    if (s == LW_E_PRECONDITION)
        o = json_pack("{s:s, s:s, s:s}", "result", "impossible", "picture", name.text, "reason",
                      why->text);
    else
        o = json_pack("{s:s, s:s, s:b, s:i, s:I, s:I, s:o, s:O, s:s}", "result",
                      s == LW_E_MISMATCH ? "different" : "equal", "picture", name.text,
                      "same_bytes", r->same_bytes, "largest", d->largest, "pixels",
                      (json_int_t)d->n_pixels, "pixels_differ", (json_int_t)d->n_differ, "psnr_db",
                      isfinite(d->psnr_db) ? json_real(d->psnr_db) : json_null(), "notes", r->notes,
                      "hub", lw_run_hub(r->run));
    /* A path that is not UTF-8 cannot stand in JSON, but it can be read. */
    if (o && r->output[0])
        json_object_set_new(o, "output", json_stringn_nocheck(r->output, strlen(r->output)));
    failed = !o || json_dumpf(o, stdout, JSON_COMPACT | JSON_SORT_KEYS) || putchar('\n') == EOF;
    json_decref(o);
    return failed || fflush(stdout) ? LW_E_IO : LW_OK;
}

/* The three answers; what else went wrong is an error like any other. */
static lw_status answer(replay *r, lw_cli *cli, lw_status s, lw_err *err)
{
    lw_status printed;

    if (s == LW_OK && r->difference.n_differ)
        s = lw_fail(err, LW_E_MISMATCH, "the picture is another than the one in the file");
    else if (s != LW_OK && s != LW_E_PRECONDITION)
        return s;
    printed = r->opt.run.json ? print_json(r, s, err) : print_text(r, s, err);
    if (printed != LW_OK)
        return lw_fail(err, printed, "cannot write to standard output: %s", strerror(errno));
    cli->told = true;
    return s;
}

lw_status lw_cli_replay(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    replay r = { 0 };
    const char *args[2];
    bool help = false;
    lw_status s;
    int n = 0;

    lw_opt_describe("latentwire replay [OPTION]... PICTURE.png",
                    "Make a picture again from what its file says, and compare: equal, different "
                    "or impossible.");
    LW_TRY(lw_opt_parse(options, argc, argv, &r.opt, args, LW_ARRAY_LEN(args), &n, &help, err));
    if (help)
        return LW_OK;
    cli->json = r.opt.run.json;
    if (n != 1)
        return lw_fail(err, LW_E_INVALID, "replay takes one picture, not %d", n);
    lw_arena_init(&r.arena, "replay", 0);
    lw_buf_init(&r.png, LW_MAX_PICTURE_FILE);
    r.notes = json_array();
    s = r.notes ? work(&r, args[0], err) : lw_fail(err, LW_E_NOMEM, "no memory for a replay");
    s = answer(&r, cli, s, err);
    lw_run_close(&r.run);
    lw_picture_deinit(&r.old);
    lw_buf_deinit(&r.png);
    json_decref(r.notes);
    json_decref(r.recipe);
    json_decref(r.made);
    lw_arena_deinit(&r.arena);
    return s;
}
