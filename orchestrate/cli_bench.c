/*
 * `latentwire bench`: how fast this machine is, for the operations that the models are made of and
 * for the three stages with a model. docs/performance.md explains every number.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "orchestrate/bench/bench.h"
#include "orchestrate/cli.h"

#define AT(m) offsetof(lw_bench_ops, m)

static const lw_opt ops_options[] = {
    { .name = "filter",
      .kind = LW_OPT_STR,
      .offset = AT(filter),
      .value = "TEXT",
      .help = "only operations with this in name or size: \"linear\", \"conv2d\", \"352 tokens\"" },
    { .name = "precision",
      .kind = LW_OPT_CHOICE,
      .offset = AT(precision),
      .dflt = "all",
      .choices = "f32|int8|all",
      .value = "P",
      .help = "arithmetic of the linear layers" },
    { .name = "threads",
      .kind = LW_OPT_INT,
      .offset = AT(threads),
      .dflt = "0",
      .min = 0,
      .max = 1024,
      .value = "N",
      .help = "threads; 0 = all cores" },
    { .name = "json",
      .kind = LW_OPT_FLAG,
      .offset = AT(json),
      .help = "print one JSON object instead of a table" },
    LW_OPT_END
};

#undef AT
#define AT(m) offsetof(lw_bench_stages, m)

/* The groups of settings.h are for a lw_settings. */
_Static_assert(AT(opt) == 0, "the options of a run are found at the beginning");

static const lw_opt stages_options[] = {
    { .name = "size",
      .letter = 's',
      .kind = LW_OPT_LIST,
      .offset = AT(sizes),
      .value = "WxH",
      .help = "picture size, multiples of 16 (default: the model's)" },
    { .name = "steps",
      .kind = LW_OPT_INT,
      .offset = AT(steps),
      .min = 2,
      .max = 256,
      .value = "N",
      .help = "denoising steps (default: the model's)" },
    { .name = "prompt",
      .kind = LW_OPT_STR,
      .offset = AT(prompt),
      .value = "TEXT",
      .help = "what is drawn; each picture adds a number, so that none was encoded before "
              "(default: a short prompt)" },
    { .name = "repeat",
      .kind = LW_OPT_INT,
      .offset = AT(repeat),
      .dflt = "3",
      .min = 1,
      .max = 1000,
      .value = "N",
      .help = "pictures of each size" },
    { .name = "precision",
      .kind = LW_OPT_LIST,
      .offset = AT(precisions),
      .value = "P",
      .help = "arithmetic, as for generate: \"f32\", \"int8\", \"dit=int8\"" },
    { .name = "json",
      .kind = LW_OPT_FLAG,
      .offset = LW_SET(json),
      .help = "print one JSON object instead of tables" },
    { .name = "quiet",
      .letter = 'q',
      .kind = LW_OPT_FLAG,
      .offset = LW_SET(quiet),
      .help = "no progress bar" },
    LW_OPTS_MODEL,
    LW_OPTS_HUB,
    LW_OPTS_WORKER,
    LW_OPT_END
};

static lw_status bench_ops(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    lw_bench_ops o = { 0 };
    bool help = false;
    int n = 0;

    lw_opt_describe("latentwire bench ops [OPTION]...",
                    "Time every operation at the sizes of the real model, each beside what this "
                    "machine can do at best, measured in turn with it.");
    LW_TRY(lw_opt_parse(ops_options, argc, argv, &o, NULL, 0, &n, &help, err));
    if (help)
        return LW_OK;
    cli->json = o.json;
    return lw_bench_ops_run(&o, err);
}

static lw_status bench_stages(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    lw_bench_stages b = { 0 };
    json_t *report = NULL;
    bool help = false;
    int n = 0;

    lw_opt_describe("latentwire bench stages [OPTION]...",
                    "Time encoder, denoiser and decoder with a model, and what memory they take.");
    LW_TRY(lw_opt_parse(stages_options, argc, argv, &b, NULL, 0, &n, &help, err));
    if (help)
        return LW_OK;
    cli->json = b.opt.json;
    LW_TRY(lw_bench_stages_run(&b, &report, err));
    if (!b.opt.json)
        lw_bench_stages_print(report);
    else if (json_dumpf(report, stdout, JSON_INDENT(1)) == 0)
        putchar('\n');
    json_decref(report);
    return LW_OK;
}

lw_status lw_cli_bench(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    const char *what = argc > 1 ? argv[1] : "";
    lw_status s;

    if (!strcmp(what, "--help") || !strcmp(what, "-h")) {
        puts("Usage: latentwire bench ops [OPTION]...       the operations by themselves\n"
             "       latentwire bench stages [OPTION]...    the three stages with a model\n\n"
             "How fast this machine is; docs/performance.md explains the numbers. `latentwire "
             "bench\nops --help` lists the options.");
        return LW_OK;
    }
    if (!strcmp(what, "ops"))
        s = bench_ops(cli, argc - 1, argv + 1, err);
    else if (!strcmp(what, "stages"))
        s = bench_stages(cli, argc - 1, argv + 1, err);
    else
        return lw_fail(err, LW_E_INVALID, "bench: say what to measure: ops or stages");
    if (s == LW_OK && (fflush(stdout) || ferror(stdout)))
        return lw_fail(err, LW_E_IO, "cannot write to standard output: %s", strerror(errno));
    return s;
}
