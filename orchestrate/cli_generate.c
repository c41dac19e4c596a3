/*
 * `latentwire generate`: a prompt becomes pictures. All pictures are one job, which the hub spreads
 * over its denoisers; only when the answer would not fit a message are there more. Picture i has
 * seed + i and the same bytes however it came about.
 */

#include <stdlib.h>
#include <string.h>

#include "orchestrate/cli.h"
#include "orchestrate/job.h"
#include "orchestrate/output.h"
#include "orchestrate/report.h"

#define ROLES (1u << LW_ROLE_ENCODER | 1u << LW_ROLE_DENOISER | 1u << LW_ROLE_DECODER)

#define MAX_PROMPTS 256 /* of a file: all pictures are kept until the end */

static const lw_opt options[] = { LW_OPTS_PROMPT,   LW_OPTS_PROMPTS,
                                  LW_OPTS_TEMPLATE, LW_OPTS_SAMPLING,
                                  LW_OPTS_TILE,     LW_OPTS_OUTPUT("PNG file, pattern or folder"),
                                  LW_OPTS_PREVIEW,  LW_OPTS_MODEL,
                                  LW_OPTS_CLUSTER,  LW_OPT_END };

/* One run of the verb. */
typedef struct generate {
    lw_picture_job job;
    const char *const *prompts; /* of --prompts, cleaned; else the one of the job */
    size_t n_prompts;
    lw_output output;
    lw_run *run;
    lw_report report;
    json_t *manifest; /* of the first picture */
    lw_arena arena;   /* prompt text, jobs */
    lw_kept_pictures *kept;
} generate;

/* One job of a run: pictures [first, first + n) of a prompt, whose first is number `base` of all.
 */
typedef struct part {
    generate *g;
    uint64_t base, first, n;
    lw_msg submit;
} part;

static lw_status on_written(void *arg, uint64_t index, uint64_t seed, const char *path, lw_err *err)
{
    generate *g = arg;

    return lw_report_file(&g->report, index, path, true, seed, err);
}

static lw_status on_image(void *arg, const lw_msg *submit, const lw_msg *result, lw_err *err)
{
    part *p = arg;
    json_t *own = NULL;
    lw_status s = lw_picture_job_manifest(&p->g->job, submit, result, &own, err);

    if (s == LW_OK)
        s = lw_output_keep(&p->g->kept, &p->g->arena, result, own, p->base + p->first, err);
    if (s == LW_OK)
        s = lw_report_result(&p->g->report, result, err);
    if (s == LW_OK && p->base + p->first == 0)
        p->g->manifest = json_incref(own);
    json_decref(own);
    return s;
}

static lw_status set_job(const generate *g, const part *p, lw_msg *m, lw_err *err)
{
    LW_TRY(lw_picture_job_submit(&g->job, p->first, p->n, m, err));
    if (g->job.opt.preview)
        lw_msg_set(m, preview_every, (uint64_t)g->job.opt.preview_every);
    return LW_OK;
}

/* How many jobs the pictures need so that each answer fits a message. */
static lw_status count_parts(const generate *g, uint64_t *ret, lw_err *err)
{
    const uint64_t count = (uint64_t)g->job.opt.count;
    const uint64_t picture = (uint64_t)g->job.width * (uint64_t)g->job.height * 3;
    const uint64_t most = lw_run_max_tensor_bytes(g->run) / picture;

    if (most == 0)
        return lw_fail(err, LW_E_TOO_LARGE,
                       "--size: a picture of %dx%d has %llu bytes; a message carries at most %zu",
                       g->job.width, g->job.height, (unsigned long long)picture,
                       lw_run_max_tensor_bytes(g->run));
    *ret = lw_settings_noise_varies(&g->job.opt) ? count : (count + most - 1) / most;
    return LW_OK;
}

static lw_status run_parts(generate *g, uint64_t base, uint64_t n_parts, lw_err *err)
{
    const uint64_t count = (uint64_t)g->job.opt.count;
    part *parts = lw_arena_calloc(&g->arena, n_parts, sizeof(*parts), err);
    lw_job *jobs = lw_arena_calloc(&g->arena, n_parts, sizeof(*jobs), err);

    if (!parts || !jobs)
        return LW_E_NOMEM;
    for (uint64_t i = 0; i < n_parts; i++) {
        part *p = &parts[i];

        p->g = g;
        p->base = base;
        p->first = count * i / n_parts;
        p->n = count * (i + 1) / n_parts - p->first;
        LW_TRY(set_job(g, p, &p->submit, err));
        jobs[i] = (lw_job){ .submit = &p->submit, .on_result = on_image, .arg = p };
    }
    return lw_run_jobs(g->run, jobs, (int)n_parts, err);
}

static lw_status run(generate *g, lw_err *err)
{
    uint64_t parts = 1;

    LW_TRY(lw_run_open(&g->job.opt, ROLES, &g->run, err));
    lw_picture_job_size(&g->job, lw_run_model(g->run));
    LW_TRY(count_parts(g, &parts, err));
    for (size_t i = 0; i < g->n_prompts; i++) {
        g->job.prompt = g->prompts[i];
        LW_TRY(run_parts(g, i * (uint64_t)g->job.opt.count, parts, err));
    }
    return LW_OK;
}

/* What was finished before something failed is not thrown away. */
static lw_status run_and_write(generate *g, lw_err *err)
{
    lw_status s = run(g, err), written;
    lw_err why = { 0 };

    written = lw_output_write(&g->output, g->kept, on_written, g, &why);
    if (written == LW_OK && (s == LW_OK || g->kept))
        written =
            lw_report_print(&g->report, g->job.opt.json && s == LW_OK, g->manifest, g->run, &why);
    return s == LW_OK && written != LW_OK ? lw_fail(err, written, "%s", why.text) : s;
}

/* The prompts of a file, or the one that was given. */
static lw_status read_prompts(generate *g, const char *prompt, lw_err *err)
{
    const char *const *lines = NULL;
    const char **list;

    g->n_prompts = 1;
    if (g->job.opt.prompts)
        LW_TRY(lw_read_prompts(g->job.opt.prompts, &g->arena, &lines, &g->n_prompts, err));
    if (g->n_prompts > MAX_PROMPTS)
        return lw_fail(err, LW_E_INVALID, "%s has %zu prompts; at most %d are taken at once",
                       g->job.opt.prompts, g->n_prompts, MAX_PROMPTS);
    list = lw_arena_calloc(&g->arena, g->n_prompts, sizeof(*list), err);
    if (!list)
        return LW_E_NOMEM;
    LW_TRY(lw_picture_job_check(&g->job, lines ? lines[0] : prompt, &g->arena, err));
    list[0] = g->job.prompt;
    for (size_t i = 1; i < g->n_prompts; i++) {
        list[i] = lw_settings_clean(&g->job.opt, lines[i], &g->arena, err);
        if (!list[i])
            return LW_E_NOMEM;
    }
    g->prompts = list;
    return LW_OK;
}

/* Everything that can be wrong with the command line, before anything is started. */
static lw_status check(generate *g, const char *prompt, lw_err *err)
{
    const lw_settings *opt = &g->job.opt;

    LW_TRY(read_prompts(g, prompt, err));
    g->output = (lw_output){ .pattern = opt->output,
                             .count = (uint64_t)opt->count * (uint64_t)g->n_prompts };
    LW_TRY(lw_output_check(&g->output, err));
    if (opt->json && opt->output && !strcmp(opt->output, "-"))
        return lw_fail(err, LW_E_INVALID, "--json and -o - both want standard output");
    return opt->preview ? lw_output_check_file(opt->preview, err) : LW_OK;
}

lw_status lw_cli_generate(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    generate g = { .job.opt = { .think = -1, .guidance = -1 } };
    const char *args[2];
    int n_args = 0;
    bool help = false;
    lw_status s;

    args[0] = NULL;
    lw_opt_describe("latentwire generate [OPTION]... [PROMPT]",
                    "Make pictures from a prompt (\"-\" reads it from standard input) and print "
                    "their paths.");
    LW_TRY(lw_opt_parse(options, argc, argv, &g.job.opt, args, LW_ARRAY_LEN(args), &n_args, &help,
                        err));
    if (help)
        return LW_OK;
    cli->json = g.job.opt.json;
    if (n_args == 1 && g.job.opt.prompts)
        return lw_fail(err, LW_E_INVALID,
                       "--prompts and a prompt on the command line exclude each other");
    if (n_args != 1 && !(n_args == 0 && (g.job.opt.messages || g.job.opt.prompts)))
        return lw_fail(err, LW_E_INVALID, "generate takes one prompt, not %d; put it in quotes",
                       n_args);
    lw_arena_init(&g.arena, "generate", 0);
    s = check(&g, args[0], err);
    if (s == LW_OK)
        s = lw_report_init(&g.report, err);
    if (s == LW_OK)
        s = run_and_write(&g, err);
    lw_run_close(&g.run);
    lw_output_drop(&g.kept);
    json_decref(g.manifest);
    lw_report_deinit(&g.report);
    lw_arena_deinit(&g.arena);
    return s;
}
