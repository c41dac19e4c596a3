/*
 * `latentwire experiment`: a grid of pictures from a YAML file. run makes it, check looks at the
 * file alone, list says what there is, report makes the pages of a folder again, compare sets two
 * folders against each other.
 */

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "orchestrate/cli.h"
#include "orchestrate/experiment/engine.h"
#include "orchestrate/experiment/outcome.h"
#include "orchestrate/experiment/report.h"
#include "orchestrate/experiment/sheet.h"
#include "orchestrate/measure.h"

#define MAX_FILES 256

typedef struct experiment_options {
    lw_settings run;
    lw_opt_list set;
    bool dry_run;
    int64_t limit;
} experiment_options;

/* clang-format off */
static const lw_opt run_options[] = {
    { .name = "output", .letter = 'o', .kind = LW_OPT_STR, .offset = LW_SET(output), .value = "DIR",
      .help = "folder of the results (default: experiments/NAME)" },
    { .name = "set", .kind = LW_OPT_LIST, .offset = offsetof(experiment_options, set),
      .value = "OPTION=VALUE", .help = "an option of generate, instead of what the file's settings say" },
    { .name = "limit", .kind = LW_OPT_INT, .offset = offsetof(experiment_options, limit), .min = 0,
      .max = LW_GRID_MAX_CELLS, .value = "N", .help = "make at most N cells in this run; 0 = all" },
    { .name = "dry-run", .kind = LW_OPT_FLAG, .offset = offsetof(experiment_options, dry_run),
      .help = "list the cells and make none" },
    { .name = "templates", .kind = LW_OPT_STR, .offset = LW_SET(templates), .value = "DIR",
      .help = "folder of templates (default: those of the project)" },
    { .name = "json", .kind = LW_OPT_FLAG, .offset = LW_SET(json),
      .help = "print one JSON object instead of the report's path" },
    { .name = "quiet", .letter = 'q', .kind = LW_OPT_FLAG, .offset = LW_SET(quiet),
      .help = "no progress" },
    LW_OPTS_MODEL, LW_OPTS_CLUSTER, LW_OPT_END
};

static const lw_opt other_options[] = {
    { .name = "json", .kind = LW_OPT_FLAG, .offset = LW_SET(json), .help = "print JSON" },
    { .name = "templates", .kind = LW_OPT_STR, .offset = LW_SET(templates), .value = "DIR",
      .help = "folder of templates (default: those of the project)" },
    LW_OPT_END
};
/* clang-format on */

static lw_status no_memory(lw_err *err)
{
    return lw_fail(err, LW_E_NOMEM, "no memory for an experiment");
}

static lw_status print_json(json_t *o, lw_err *err)
{
    const bool ok = o && json_dumpf(o, stdout, JSON_INDENT(1)) == 0;

    putchar('\n');
    json_decref(o);
    return ok ? LW_OK : no_memory(err);
}

/* ---- run ---- */

static lw_status print_cells(const lw_grid *g, const lw_grid_cell *cells, lw_arena *a, lw_err *err)
{
    for (int i = 0; i < g->n_cells; i++) {
        const char *text = lw_grid_describe(g, cells[i].at, a, err);

        if (!text)
            return LW_E_NOMEM;
        printf("%s  %s\n", cells[i].id, text);
    }
    printf("%d cells\n", g->n_cells);
    return LW_OK;
}

static lw_status print_run(const lw_grid *g, const char *dir, bool json,
                           const lw_experiment_counts *c, lw_err *err)
{
    if (json)
        return print_json(json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:i}", "name", g->name, "dir",
                                    dir, "report", "report.html", "cells", c->cells, "found",
                                    c->found, "made", c->made, "failed", c->failed),
                          err);
    printf("%s/report.html\n", dir);
    return LW_OK;
}

static lw_status run_grid(const lw_grid *g, lw_grid_cell *cells, const experiment_options *o,
                          lw_arena *a, lw_err *err)
{
    const char *dir =
        o->run.output ? o->run.output : lw_arena_printf(a, err, "experiments/%s", g->name);
    lw_experiment_params p = { .place = &o->run, .dir = dir, .limit = o->limit };
    lw_experiment_counts c;
    lw_err why = { 0 };
    lw_status s;

    if (!dir)
        return LW_E_NOMEM;
    if (o->dry_run)
        return print_cells(g, cells, a, err);
    s = lw_experiment_run(g, cells, &p, &c, &why);
    if (s != LW_OK)
        return lw_fail(err, s, "%s (%d of %d cells are done; the same command goes on)", why.text,
                       c.found + c.made, c.cells);
    if (!o->run.quiet)
        fprintf(stderr, "latentwire: %d cells: %d made, %d were there, %d failed, %d left\n",
                c.cells, c.made, c.found, c.failed, c.cells - c.made - c.found - c.failed);
    if (c.failed)
        return lw_fail(err, c.first_code,
                       "%d of %d cells failed, the first: %s; see %s/report.html", c.failed,
                       c.cells, c.first_error, dir);
    return print_run(g, dir, o->run.json, &c, err);
}

/* A file, or the name of one that ships with the project. */
static lw_status find_file(const char *what, char ret[PATH_MAX], lw_err *err)
{
    char dir[PATH_MAX];

    if (access(what, F_OK) == 0 || strchr(what, '/') || strstr(what, ".yaml")) {
        if (snprintf(ret, PATH_MAX, "%s", what) >= PATH_MAX)
            return lw_fail(err, LW_E_INVALID, "%s: the path is too long", what);
        return LW_OK;
    }
    LW_TRY(lw_locate_experiments(dir, err));
    if (snprintf(ret, PATH_MAX, "%s/%s.yaml", dir, what) >= PATH_MAX || access(ret, F_OK) != 0)
        return lw_fail(err, LW_E_NOT_FOUND,
                       "%s: neither a file nor the name of an experiment; `latentwire experiment "
                       "list` has the names",
                       what);
    return LW_OK;
}

static lw_status run_file(const char *what, experiment_options *o, lw_err *err)
{
    char path[PATH_MAX];
    lw_grid_cell *cells = NULL;
    lw_arena a;
    lw_grid g = { 0 };
    lw_status s;

    LW_TRY(find_file(what, path, err));
    lw_arena_init(&a, "experiment", 0);
    s = lw_grid_load(path, &o->set, &a, &g, err);
    if (s == LW_OK)
        s = lw_grid_expand(&g, o->run.templates, &a, &cells, err);
    if (s == LW_OK)
        s = run_grid(&g, cells, o, &a, err);
    lw_grid_drop_cells(cells, cells ? g.n_cells : 0);
    lw_arena_deinit(&a);
    return s;
}

static lw_status verb_run(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    experiment_options o = { .run = { .think = -1, .guidance = -1 } };
    const char *path;
    bool help = false;
    int n = 0;

    lw_opt_describe("latentwire experiment run [OPTION]... FILE|NAME",
                    "Make every picture of an experiment once, then its table, contact sheet and "
                    "report. What is there already is not made again.");
    LW_TRY(lw_opt_parse(run_options, argc, argv, &o, &path, 1, &n, &help, err));
    if (help)
        return LW_OK;
    cli->json = o.run.json;
    if (n != 1)
        return lw_fail(err, LW_E_INVALID, "experiment run takes one file or name");
    return run_file(path, &o, err);
}

/* ---- check ---- */

static lw_status check_file(const char *path, const char *templates, lw_err *err)
{
    lw_grid_cell *cells = NULL;
    lw_arena a;
    lw_grid g = { 0 };
    lw_status s;

    lw_arena_init(&a, "experiment", 0);
    s = lw_grid_load(path, NULL, &a, &g, err);
    if (s == LW_OK)
        s = lw_grid_expand(&g, templates, &a, &cells, err);
    if (s == LW_OK)
        printf("%s: %d cells\n", path, g.n_cells);
    lw_grid_drop_cells(cells, cells ? g.n_cells : 0);
    lw_arena_deinit(&a);
    return s;
}

static lw_status verb_check(lw_cli *cli, const lw_settings *o, const char **args, int n,
                            lw_err *err)
{
    int bad = 0;

    (void)cli;
    if (n == 0)
        return lw_fail(err, LW_E_INVALID, "experiment check takes files");
    for (int i = 0; i < n; i++) {
        lw_err why = { 0 };

        if (check_file(args[i], o->templates, &why) == LW_OK)
            continue;
        fprintf(stderr, "%s\n", why.text);
        bad++;
    }
    return bad ? lw_fail(err, LW_E_FORMAT, "%d of %d experiments cannot be run", bad, n) : LW_OK;
}

/* ---- list ---- */

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool is_experiment(const char *name)
{
    const size_t n = strlen(name);

    return n > 5 && !strcmp(name + n - 5, ".yaml") && strcmp(name, "prompts.yaml") != 0;
}

static void list_file(const char *path)
{
    lw_err why = { 0 };
    lw_arena a;
    lw_grid g;

    lw_arena_init(&a, "experiment", 0);
    if (lw_grid_load(path, NULL, &a, &g, &why) == LW_OK)
        printf("%-34s %4d cells  %s\n", g.name, g.n_cells, g.title);
    else
        printf("%s\n", why.text);
    lw_arena_deinit(&a);
}

static void list_folder(const char *dir)
{
    lw_outcome o = { 0 };
    int done = 0;

    if (lw_outcome_load(dir, &o, NULL) == LW_OK) {
        for (size_t i = 0; i < json_array_size(o.cells); i++)
            done += lw_outcome_done(json_array_get(o.cells, i));
        printf("%-34s %4d of %zu cells done  %s\n", dir, done, json_array_size(o.cells), o.title);
    }
    lw_outcome_deinit(&o);
}

static lw_status list_dir(const char *dir, lw_err *err)
{
    struct dirent **names = NULL;
    int n = scandir(dir, &names, NULL, by_name);

    if (n < 0)
        return lw_fail(err, LW_E_NOT_FOUND, "there is no folder %s", dir);
    list_folder(dir);
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];

        if (names[i]->d_name[0] != '.' &&
            snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name) < (int)sizeof(path)) {
            if (is_experiment(names[i]->d_name) && strcmp(names[i]->d_name, "experiment.yaml") != 0)
                list_file(path);
            else if (names[i]->d_type == DT_DIR)
                list_folder(path);
        }
        free(names[i]);
    }
    free(names);
    return LW_OK;
}

static lw_status verb_list(lw_cli *cli, const lw_settings *o, const char **args, int n, lw_err *err)
{
    char dir[PATH_MAX];

    (void)cli;
    (void)o;
    if (n > 1)
        return lw_fail(err, LW_E_INVALID, "experiment list takes one folder");
    if (n == 1)
        return list_dir(args[0], err);
    LW_TRY(lw_locate_experiments(dir, err));
    LW_TRY(list_dir(dir, err));
    return access("experiments", F_OK) == 0 ? list_dir("experiments", err) : LW_OK;
}

/* ---- report ---- */

static lw_status verb_report(lw_cli *cli, const lw_settings *o, const char **args, int n,
                             lw_err *err)
{
    (void)cli;
    (void)o;
    if (n != 1)
        return lw_fail(err, LW_E_INVALID, "experiment report takes one folder of results");
    LW_TRY(lw_experiment_sheet(args[0], err));
    LW_TRY(lw_experiment_report(args[0], err));
    printf("%s/report.html\n", args[0]);
    return LW_OK;
}

/* ---- compare ---- */

typedef struct pairing {
    int equal, different, unpaired;
    double worst_psnr, sum_ssim;
    int n_ssim;
} pairing;

/* Axes by their names, so that their order may differ. */
static const json_t *find_at(const lw_outcome *o, const json_t *at)
{
    for (size_t i = 0; i < json_array_size(o->cells); i++) {
        const json_t *c = json_array_get(o->cells, i);

        if (json_equal(json_object_get(c, "at"), at))
            return c;
    }
    return NULL;
}

/* Options that the two cells have not alike, as texts. */
static json_t *setting_changes(const json_t *a, const json_t *b)
{
    json_t *list = json_object(), *v;
    const char *key;

    json_object_foreach((json_t *)a, key, v)
    {
        json_t *other = json_object_get(b, key);

        if (!json_equal(v, other))
            json_object_set_new(list, key,
                                json_pack("[O, O?]", v, other)); /* null: it is not set */
    }
    json_object_foreach((json_t *)b, key, v)
    {
        if (!json_object_get(a, key))
            json_object_set_new(list, key, json_pack("[n, O]", v));
    }
    return list;
}

static lw_status measure(const lw_outcome *a, const lw_outcome *b, const json_t *x, const json_t *y,
                         json_t *row, pairing *p, lw_err *err)
{
    lw_picture pa = { 0 }, pb = { 0 };
    const uint8_t *ra, *rb;
    lw_pair_measures m;
    lw_arena mem;
    lw_status s;

    lw_arena_init(&mem, "compare", 0);
    s = lw_outcome_picture(a, x, &mem, &pa, &ra, err);
    if (s == LW_OK)
        s = lw_outcome_picture(b, y, &mem, &pb, &rb, err);
    if (s == LW_OK && (pa.width != pb.width || pa.height != pb.height)) {
        json_object_set_new(row, "result", json_string("another size"));
        p->different++;
    } else if (s == LW_OK) {
        s = lw_measure_pair(ra, rb, pa.width, pa.height, &m, err);
        if (s == LW_OK) {
            const bool equal = m.n_differ == 0;

            p->equal += equal;
            p->different += !equal;
            if (!equal && m.psnr_db < p->worst_psnr)
                p->worst_psnr = m.psnr_db;
            if (isfinite(m.ssim)) {
                p->sum_ssim += m.ssim;
                p->n_ssim++;
            }
            json_object_set_new(row, "result", json_string(equal ? "equal" : "different"));
            json_object_set_new(row, "psnr_db",
                                isfinite(m.psnr_db) ? json_real(m.psnr_db) : json_null());
            json_object_set_new(row, "ssim", isfinite(m.ssim) ? json_real(m.ssim) : json_null());
        }
    }
    lw_picture_deinit(&pa);
    lw_picture_deinit(&pb);
    lw_arena_deinit(&mem);
    return s;
}

static lw_status compare_cells(const lw_outcome *a, const lw_outcome *b, json_t *rows, pairing *p,
                               lw_err *err)
{
    for (size_t i = 0; i < json_array_size(a->cells); i++) {
        const json_t *x = json_array_get(a->cells, i);
        const json_t *y = find_at(b, json_object_get(x, "at"));
        json_t *row;

        if (!y || !lw_outcome_done(x) || !lw_outcome_done(y)) {
            p->unpaired++;
            continue;
        }
        row = json_pack(
            "{s:O, s:o}", "at", json_object_get(x, "at"), "settings",
            setting_changes(json_object_get(x, "settings"), json_object_get(y, "settings")));
        if (json_array_append_new(rows, row))
            return no_memory(err);
        LW_TRY(measure(a, b, x, y, row, p, err));
    }
    return LW_OK;
}

static void print_row(const json_t *row)
{
    const char *key;
    json_t *v;
    bool first = true;

    printf("%-9s", json_string_value(json_object_get(row, "result")));
    if (json_is_real(json_object_get(row, "psnr_db")))
        printf("  PSNR %5.2f dB", json_real_value(json_object_get(row, "psnr_db")));
    if (json_is_real(json_object_get(row, "ssim")))
        printf("  SSIM %.4f", json_real_value(json_object_get(row, "ssim")));
    json_object_foreach(json_object_get(row, "at"), key, v)
    {
        printf("%s%s=%s", first ? "  " : ", ", key, json_string_value(v));
        first = false;
    }
    json_object_foreach(json_object_get(row, "settings"), key, v)
    {
        char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);

        printf("  (%s %s)", key, text ? text : "");
        free(text);
    }
    putchar('\n');
}

static lw_status print_compare(json_t *rows, const pairing *p, bool json, lw_err *err)
{
    const json_t *row;
    size_t i;

    if (json)
        return print_json(
            json_pack("{s:O, s:i, s:i, s:i, s:o, s:o}", "cells", rows, "equal", p->equal,
                      "different", p->different, "unpaired", p->unpaired, "worst_psnr_db",
                      isfinite(p->worst_psnr) ? json_real(p->worst_psnr) : json_null(), "mean_ssim",
                      p->n_ssim ? json_real(p->sum_ssim / p->n_ssim) : json_null()),
            err);
    json_array_foreach(rows, i, row)
    {
        print_row(row);
    }
    printf("%d equal, %d different, %d without a partner", p->equal, p->different, p->unpaired);
    if (isfinite(p->worst_psnr))
        printf("; lowest PSNR %.2f dB", p->worst_psnr);
    if (p->n_ssim)
        printf("; mean SSIM %.4f", p->sum_ssim / p->n_ssim);
    putchar('\n');
    return LW_OK;
}

static lw_status verb_compare(lw_cli *cli, const lw_settings *o, const char **args, int n,
                              lw_err *err)
{
    lw_outcome a = { 0 }, b = { 0 };
    pairing p = { .worst_psnr = INFINITY };
    json_t *rows = json_array();
    lw_status s;

    cli->json = o->json;
    if (n != 2) {
        json_decref(rows);
        return lw_fail(err, LW_E_INVALID, "experiment compare takes two folders of results");
    }
    s = rows ? lw_outcome_load(args[0], &a, err) : no_memory(err);
    if (s == LW_OK)
        s = lw_outcome_load(args[1], &b, err);
    if (s == LW_OK)
        s = compare_cells(&a, &b, rows, &p, err);
    if (s == LW_OK && p.equal + p.different == 0)
        s = lw_fail(err, LW_E_PRECONDITION,
                    "%s and %s have no cells with the same values of the same axes", args[0],
                    args[1]);
    if (s == LW_OK)
        s = print_compare(rows, &p, o->json, err);
    json_decref(rows);
    lw_outcome_deinit(&a);
    lw_outcome_deinit(&b);
    return s;
}

/* ---- which ---- */

typedef lw_status action_fn(lw_cli *cli, const lw_settings *o, const char **args, int n,
                            lw_err *err);

static const struct {
    const char *name, *usage, *about;
    action_fn *run;
} actions[] = {
    { "check", "latentwire experiment check FILE...",
      "Say whether the files can be run, without a model.", verb_check },
    { "list", "latentwire experiment list [DIR]",
      "List the project's experiments and the results in ./experiments, or what is in a folder.",
      verb_list },
    { "report", "latentwire experiment report DIR",
      "Make contact sheet and report of a folder of results again.", verb_report },
    { "compare", "latentwire experiment compare A B",
      "Compare the pictures of two folders of results, cell by cell.", verb_compare },
};

static lw_status help_all(void)
{
    puts("Usage: latentwire experiment run [OPTION]... FILE");
    for (size_t i = 0; i < LW_ARRAY_LEN(actions); i++)
        printf("       %s\n", actions[i].usage);
    puts("\nGrids of pictures from a YAML file; docs/experiments.md has its keys.\n"
         "`latentwire experiment run --help` lists the options.");
    return LW_OK;
}

lw_status lw_cli_experiment(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    const char *name = argc > 1 ? argv[1] : "";
    const char *args[MAX_FILES];
    lw_settings o = { 0 };
    bool help = false;
    int n = 0;

    if (!strcmp(name, "--help") || !strcmp(name, "-h"))
        return help_all();
    if (!strcmp(name, "run"))
        return verb_run(cli, argc - 1, argv + 1, err);
    for (size_t i = 0; i < LW_ARRAY_LEN(actions); i++) {
        if (strcmp(name, actions[i].name) != 0)
            continue;
        lw_opt_describe(actions[i].usage, actions[i].about);
        LW_TRY(
            lw_opt_parse(other_options, argc - 1, argv + 1, &o, args, MAX_FILES, &n, &help, err));
        return help ? LW_OK : actions[i].run(cli, &o, args, n, err);
    }
    return lw_fail(err, LW_E_INVALID,
                   "experiment: say what to do: run, check, list, report or compare");
}
