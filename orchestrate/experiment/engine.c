/* An experiment at work: cells become pictures, and pictures results. */

#include "orchestrate/experiment/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "lw_version.h"
#include "orchestrate/experiment/report.h"
#include "orchestrate/experiment/results.h"
#include "orchestrate/experiment/sheet.h"
#include "orchestrate/manifest.h"
#include "orchestrate/measure.h"
#include "orchestrate/output.h"
#include "orchestrate/picture.h"
#include "orchestrate/recipe.h"
#include "orchestrate/run.h"

#define ROLES        (1u << LW_ROLE_ENCODER | 1u << LW_ROLE_DENOISER | 1u << LW_ROLE_DECODER)
#define MAX_WINDOW   16
#define SAVE_MS      2000 /* results.json is written again at most so often */
#define TELL_MS      5000 /* progress where there is no terminal */
#define DIGEST_BYTES 32

typedef struct engine engine;

/* A cell that is to be made. */
typedef struct order {
    engine *e;
    int cell;
    lw_msg submit;
} order;

struct engine {
    const lw_grid *g;
    lw_grid_cell *cells;
    const lw_experiment_params *p;
    lw_experiment_counts *counts;
    lw_run *run;
    json_t *results; /* the whole of results.json */
    lw_arena arena, scratch;
    int lock_fd, to_make;
    int64_t start_ms, saved_ms, told_ms;
};

static lw_status no_memory(lw_err *err)
{
    return lw_fail(err, LW_E_NOMEM, "no memory for the results of an experiment");
}

static json_t *entry(const engine *e, int cell)
{
    return json_array_get(json_object_get(e->results, "cells"), (size_t)cell);
}

static const char *cell_path(engine *e, int cell, lw_err *err)
{
    return lw_arena_printf(&e->scratch, err, "%s/cells/%s.png", e->p->dir, e->cells[cell].id);
}

/* ---- the folder ---- */

static lw_status make_folder(const char *path, lw_err *err)
{
    char part[PATH_MAX];

    if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
        return lw_fail(err, LW_E_INVALID, "the name of the folder is too long");
    for (char *c = part + 1;; c++) {
        const char was = *c;

        if (was && was != '/')
            continue;
        *c = 0;
        if (mkdir(part, 0777) && errno != EEXIST)
            return lw_fail_errno(err, errno, part);
        *c = was;
        if (!was)
            return LW_OK;
    }
}

static lw_status save(const char *dir, const char *name, const void *data, size_t n, lw_err *err)
{
    char path[PATH_MAX];
    lw_outfile f = { 0 };

    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
        return lw_fail(err, LW_E_INVALID, "the name of the folder is too long");
    LW_TRY(lw_outfile_open(&f, path, err));
    lw_outfile_write(&f, data, n);
    return lw_outfile_commit(&f, err);
}

/* One run at a time: two would make every cell twice. */
static lw_status open_folder(engine *e, lw_err *err)
{
    const char *cells = lw_arena_printf(&e->arena, err, "%s/cells", e->p->dir);

    if (!cells)
        return LW_E_NOMEM;
    LW_TRY(make_folder(cells, err));
    e->lock_fd = open(e->p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (e->lock_fd < 0)
        return lw_fail_errno(err, errno, e->p->dir);
    if (flock(e->lock_fd, LOCK_EX | LOCK_NB))
        return lw_fail(err, LW_E_PRECONDITION, "another run is at work in %s", e->p->dir);
    return save(e->p->dir, "experiment.yaml", e->g->text, e->g->n_text, err);
}

/* ---- results ---- */

static lw_status save_results(engine *e, lw_err *err)
{
    char *text = json_dumps(e->results, JSON_INDENT(1));
    lw_status s = text ? save(e->p->dir, "results.json", text, strlen(text), err) : no_memory(err);

    free(text);
    e->saved_ms = lw_now_ms();
    return s;
}

static bool digest_of(const uint8_t *data, size_t n, char ret[2 * DIGEST_BYTES + 1])
{
    uint8_t digest[DIGEST_BYTES];

    if (sodium_init() < 0)
        return false;
    crypto_generichash(digest, sizeof(digest), data, n, NULL, 0);
    sodium_bin2hex(ret, 2 * DIGEST_BYTES + 1, digest, sizeof(digest));
    return true;
}

/* What can be said of a picture that is there. */
static lw_status note_done(engine *e, int cell, const json_t *manifest, const uint8_t *rgb,
                           int width, int height, double seconds, lw_err *err)
{
    const lw_picture_measures m = lw_measure_picture(rgb, width, height);
    char digest[2 * DIGEST_BYTES + 1] = "";
    json_t *o = entry(e, cell), *more;
    bool ok;

    digest_of(rgb, (size_t)width * (size_t)height * 3, digest);
    more = json_pack("{s:s, s:o, s:i, s:i, s:s, s:f, s:{s:f, s:f, s:f, s:f}}", "status", "done",
                     "file", json_sprintf("cells/%s.png", e->cells[cell].id), "width", width,
                     "height", height, "pixels_digest", digest, "seconds", seconds, "measures",
                     "luminance", m.luminance, "contrast", m.contrast, "colourfulness",
                     m.colourfulness, "sharpness", m.sharpness);
    ok = more && json_object_update(o, more) == 0;
    json_decref(more);
    for (int i = 0; ok && i < 2; i++) {
        static const char *const keys[] = { "n_tokens", "text_digest" };
        json_t *v = json_object_get(manifest, keys[i]);

        ok = !v || json_object_set(o, keys[i], v) == 0;
    }
    json_object_del(o, "error");
    return ok ? LW_OK : no_memory(err);
}

static lw_status start_results(engine *e, lw_err *err)
{
    e->results = lw_results_new(e->g, e->cells);
    return e->results ? LW_OK : no_memory(err);
}

/* ---- what is there ---- */

/* Keys of a manifest that say what came of the request, and not what was asked. */
static bool is_outcome(const char *key)
{
    static const char *const keys[] = { "manifest",    "version",   "stages",          "sigmas",
                                        "n_tokens",    "n_rows",    "row_loss",        "truncated",
                                        "text_digest", "token_ids", "token_ids_digest" };

    for (size_t i = 0; i < LW_ARRAY_LEN(keys); i++)
        if (!strcmp(key, keys[i]))
            return true;
    return false;
}

static bool has_all(const json_t *a, const json_t *b)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)a, key, v)
    {
        const json_t *other = json_object_get(b, key);

        if (is_outcome(key))
            continue;
        if (json_is_number(v) && json_is_number(other)
                ? json_number_value(v) != json_number_value(other)
                : !json_equal(v, other))
            return false;
    }
    return true;
}

/* The stages compute as they would now. */
static bool same_stages(const engine *e, const json_t *manifest)
{
    json_t *now = lw_recipe_stages(lw_run_report(e->run)), *stage;
    bool same = now && lw_recipe_weights(manifest, now, "", NULL) == LW_OK;
    const char *op;

    json_object_foreach(now, op, stage)
    {
        const char *was = json_string_value(json_object_get(
                       json_object_get(json_object_get(manifest, "stages"), op), "precision")),
                   *is = json_string_value(json_object_get(stage, "precision"));

        same = same && (!was || !is || !strcmp(was, is));
    }
    json_decref(now);
    return same;
}

/* Take the picture of a cell if it is whole and of this request. No picture is no error. */
static lw_status find_cell(engine *e, order *o, const json_t *old, bool *ret_found, lw_err *err)
{
    const char *path = cell_path(e, o->cell, err);
    const lw_picture_job *job = &e->cells[o->cell].job;
    json_t *manifest = NULL, *expected = NULL;
    const uint8_t *rgb;
    lw_picture p = { 0 };
    lw_status s = LW_OK;

    *ret_found = false;
    if (!path)
        return LW_E_NOMEM;
    if (access(path, F_OK) == 0 && lw_picture_read(path, &e->scratch, &p, NULL) == LW_OK &&
        p.manifest && lw_recipe_read(p.manifest, path, &manifest, NULL) == LW_OK) {
        s = lw_picture_job_manifest(job, &o->submit, NULL, &expected, err);
        *ret_found = s == LW_OK && p.width == job->width && p.height == job->height &&
                     has_all(expected, manifest) && has_all(manifest, expected) &&
                     same_stages(e, manifest) &&
                     lw_picture_pixels(&p, &e->scratch, &rgb, NULL) == LW_OK;
    }
    if (*ret_found)
        s = note_done(e, o->cell, manifest, rgb, p.width, p.height,
                      lw_results_seconds(old, e->cells[o->cell].id), err);
    json_decref(manifest);
    json_decref(expected);
    lw_picture_deinit(&p);
    return s;
}

/* ---- making ---- */

static void tell(engine *e)
{
    const int done = e->counts->made + e->counts->failed, all = e->counts->cells;
    const int64_t now = lw_now_ms();
    const int left = e->to_make - done;

    if (e->p->place->quiet || isatty(STDERR_FILENO) == 1 ||
        (now - e->told_ms < TELL_MS && left > 0))
        return;
    e->told_ms = now;
    fprintf(stderr, "latentwire: %d of %d cells", e->counts->found + done, all);
    if (done && left)
        fprintf(stderr, ", %lld s left", (long long)((now - e->start_ms) / done * left / 1000));
    fputc('\n', stderr);
}

static lw_status cell_ended(engine *e, lw_err *err)
{
    tell(e);
    return lw_now_ms() - e->saved_ms >= SAVE_MS ? save_results(e, err) : LW_OK;
}

static lw_status note_failed(engine *e, int cell, const lw_err *why, lw_err *err)
{
    json_t *o = entry(e, cell);

    if (!e->counts->failed++) {
        e->counts->first_code = why->code;
        snprintf(e->counts->first_error, sizeof(e->counts->first_error), "%s", why->text);
    }
    if (json_object_set_new(o, "status", json_string("failed")) ||
        json_object_set_new(o, "error", json_string(why->text)))
        return no_memory(err);
    return cell_ended(e, err);
}

static lw_status on_failure(void *arg, const lw_err *why, lw_err *err)
{
    order *o = arg;

    return note_failed(o->e, o->cell, why, err);
}

static double seconds_of(const lw_msg *result)
{
    double ms = 0;

    for (int op = 0; lw_msg_has(result, stages) && op < LW_N_OPS; op++)
        if (result->stages.by_op[op].has)
            ms += (double)result->stages.by_op[op].t_ms;
    return ms / 1000;
}

static lw_status write_cell(engine *e, int cell, const uint8_t *rgb, int width, int height,
                            const json_t *manifest, lw_err *err)
{
    const char *path = cell_path(e, cell, err);
    lw_status s = path ? LW_OK : LW_E_NOMEM;
    lw_buf png;

    lw_buf_init(&png, LW_MAX_PICTURE_FILE);
    if (s == LW_OK)
        s = lw_output_encode(&png, rgb, width, height, manifest, err);
    if (s == LW_OK)
        s = lw_output_save(path, &png, err);
    lw_buf_deinit(&png);
    return s;
}

static lw_status on_image(void *arg, const lw_msg *submit, const lw_msg *result, lw_err *err)
{
    order *o = arg;
    engine *e = o->e;
    const lw_msg_tensor *mt = lw_msg_tensor_find(result, LW_T_IMAGE);
    const lw_picture_job *job = &e->cells[o->cell].job;
    const lw_arena_mark mark = lw_arena_mark_get(&e->scratch);
    json_t *manifest = NULL;
    lw_err why = { 0 };
    lw_status s;

    if (!mt || mt->t.dtype != LW_U8 || mt->t.rank != 4 || mt->t.shape[0] != 1 ||
        mt->t.shape[1] != job->height || mt->t.shape[2] != job->width || mt->t.shape[3] != 3) {
        (void)!lw_fail(&why, LW_E_SHAPE, "the result has no picture of %dx%d", job->width,
                       job->height);
        return note_failed(e, o->cell, &why, err);
    }
    s = lw_picture_job_manifest(job, submit, result, &manifest, err);
    if (s == LW_OK)
        s = write_cell(e, o->cell, mt->t.data, job->width, job->height, manifest, err);
    if (s == LW_OK)
        s = note_done(e, o->cell, manifest, mt->t.data, job->width, job->height, seconds_of(result),
                      err);
    json_decref(manifest);
    lw_arena_release(&e->scratch, mark);
    e->counts->made += s == LW_OK;
    return s == LW_OK ? cell_ended(e, err) : s;
}

/* A job that no message can carry is refused by the hub, and so a failed cell as any other. */
static lw_status make_cells(engine *e, lw_err *err)
{
    const int n = e->g->n_cells, window = 2 + 2 * lw_run_workers(e->run, LW_ROLE_DENOISER);
    order *orders = lw_arena_calloc(&e->arena, (size_t)n, sizeof(*orders), err);
    lw_job *jobs = lw_arena_calloc(&e->arena, (size_t)n, sizeof(*jobs), err);
    json_t *old = lw_results_old(e->p->dir);
    int to_make = 0;
    lw_status s = orders && jobs ? LW_OK : LW_E_NOMEM;

    for (int i = 0; s == LW_OK && i < n; i++) {
        const lw_arena_mark mark = lw_arena_mark_get(&e->scratch);
        order *o = &orders[i];
        bool found = false;

        *o = (order){ .e = e, .cell = i };
        lw_picture_job_size(&e->cells[i].job, lw_run_model(e->run));
        s = lw_picture_job_submit(&e->cells[i].job, 0, 1, &o->submit, err);
        if (s == LW_OK)
            s = find_cell(e, o, old, &found, err);
        lw_arena_release(&e->scratch, mark);
        e->counts->found += found;
        if (!found && (e->p->limit == 0 || to_make < e->p->limit))
            jobs[to_make++] = (lw_job){
                .submit = &o->submit, .on_result = on_image, .on_failure = on_failure, .arg = o
            };
    }
    json_decref(old);
    LW_TRY(s);
    e->to_make = to_make;
    e->start_ms = lw_now_ms();
    tell(e);
    LW_TRY(save_results(e, err));
    if (to_make == 0)
        return LW_OK;
    lw_run_set_window(e->run, window < MAX_WINDOW ? window : MAX_WINDOW,
                      (uint64_t)e->counts->found);
    return lw_run_jobs(e->run, jobs, to_make, err);
}

/* ---- against the baseline ---- */

static bool is_done(const engine *e, int cell)
{
    const char *status = json_string_value(json_object_get(entry(e, cell), "status"));

    return status && !strcmp(status, "done");
}

static lw_status measure_pair(engine *e, int cell, int base, lw_err *err)
{
    const int cells[] = { cell, base };
    lw_picture p[2] = { 0 };
    const uint8_t *rgb[2];
    lw_pair_measures m;
    lw_status s = LW_OK;

    for (int i = 0; s == LW_OK && i < 2; i++) {
        const char *path = cell_path(e, cells[i], err);

        s = path ? lw_picture_read(path, &e->scratch, &p[i], err) : LW_E_NOMEM;
        if (s == LW_OK)
            s = lw_picture_pixels(&p[i], &e->scratch, &rgb[i], err);
    }
    if (s == LW_OK && p[0].width == p[1].width && p[0].height == p[1].height) {
        s = lw_measure_pair(rgb[1], rgb[0], p[0].width, p[0].height, &m, err);
        if (s == LW_OK)
            s = lw_results_set_pair(json_object_get(entry(e, cell), "measures"), &m, err);
    }
    lw_picture_deinit(&p[0]);
    lw_picture_deinit(&p[1]);
    return s;
}

static lw_status measure_all(engine *e, lw_err *err)
{
    for (int i = 0; e->g->has_baseline && i < e->g->n_cells; i++) {
        const lw_arena_mark mark = lw_arena_mark_get(&e->scratch);
        int at[LW_GRID_MAX_AXES], base;

        memcpy(at, e->cells[i].at, sizeof(at));
        for (int k = 0; k < e->g->n_axes; k++)
            at[k] = e->g->baseline[k] < 0 ? at[k] : e->g->baseline[k];
        base = lw_grid_index(e->g, at);
        if (base != i && is_done(e, i) && is_done(e, base))
            LW_TRY(measure_pair(e, i, base, err));
        lw_arena_release(&e->scratch, mark);
    }
    return LW_OK;
}

static lw_status write_all(engine *e, lw_err *err)
{
    lw_status s;
    lw_buf csv;

    LW_TRY(measure_all(e, err));
    LW_TRY(save_results(e, err));
    lw_buf_init(&csv, (size_t)64 << 20);
    lw_results_csv(e->results, &csv);
    s = csv.failed ? no_memory(err) : save(e->p->dir, "results.csv", csv.data, csv.len, err);
    lw_buf_deinit(&csv);
    return s;
}

lw_status lw_experiment_run(const lw_grid *g, lw_grid_cell *cells, const lw_experiment_params *p,
                            lw_experiment_counts *ret, lw_err *err)
{
    engine e = { .g = g, .cells = cells, .p = p, .counts = ret, .lock_fd = -1 };
    lw_status s, written = LW_OK;
    lw_err why = { 0 };

    *ret = (lw_experiment_counts){ .cells = g->n_cells };
    lw_arena_init(&e.arena, "experiment", 0);
    lw_arena_init(&e.scratch, "pictures", 0);
    s = open_folder(&e, err);
    if (s == LW_OK)
        s = start_results(&e, err);
    if (s == LW_OK)
        s = lw_run_open(p->place, ROLES, &e.run, err);
    if (s == LW_OK) {
        s = make_cells(&e, err);
        lw_run_close(&e.run); /* measuring takes time, and a hub wants an answer now and then */
        written = write_all(&e, &why);
        if (s == LW_OK && written == LW_OK)
            written = lw_experiment_sheet(p->dir, &why);
        if (s == LW_OK && written == LW_OK)
            written = lw_experiment_report(p->dir, &why);
        if (s == LW_OK && written != LW_OK)
            s = lw_fail(err, written, "%s", why.text);
    }
    json_decref(e.results);
    lw_arena_deinit(&e.arena);
    lw_arena_deinit(&e.scratch);
    if (e.lock_fd >= 0)
        close(e.lock_fd);
    return s;
}
