/* What a verb prints when it is done. */

#include "orchestrate/report.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"

static lw_status no_memory(lw_err *err)
{
    return lw_fail(err, LW_E_NOMEM, "no memory for the report");
}

lw_status lw_report_init(lw_report *r, lw_err *err)
{
    *r = (lw_report){ .files = json_array(), .stages = json_object(), .start_ms = lw_now_ms() };
    if (r->files && r->stages)
        return LW_OK;
    lw_report_deinit(r);
    return no_memory(err);
}

void lw_report_deinit(lw_report *r)
{
    json_decref(r->files);
    json_decref(r->stages);
    *r = (lw_report){ 0 };
}

/* Text of a stranger in one line. */
static void print_excerpt(const char *text)
{
    for (const char *c = text; *c; c++)
        fputc((unsigned char)*c < 0x20 || *c == 0x7f ? ' ' : *c, stderr);
}

static void warn_of_loss(const lw_msg *result)
{
    const unsigned long long all = lw_msg_get(result, n_text_tokens, result->n_tokens);
    const unsigned long long rows = lw_msg_get(result, n_rows, result->n_tokens);

    if (lw_msg_get(result, truncated, false)) {
        fprintf(stderr,
                "latentwire: warning: the prompt has %llu tokens, %llu are kept "
                "(--max-tokens)",
                all, (unsigned long long)result->n_tokens);
        if (lw_msg_has(result, cut_text)) {
            fputs("; cut from: ", stderr);
            print_excerpt(result->cut_text);
        }
        fputc('\n', stderr);
    }
    if (lw_msg_has(result, row_loss))
        fprintf(stderr,
                "latentwire: warning: the prompt has %llu tokens, reduced to %llu rows "
                "(--long-prompt); %.1f %% of the rows' variance is lost\n",
                all, rows, 100 * result->row_loss);
}

/* Once, however many results say it. */
static void report_loss(lw_report *r, const lw_msg *result)
{
    const bool lost = lw_msg_get(result, truncated, false) || lw_msg_has(result, row_loss);
    const char *digest = lw_msg_get(result, text_digest, "");

    if (!lost || !strcmp(r->warned_digest, digest))
        return;
    snprintf(r->warned_digest, sizeof(r->warned_digest), "%s", digest);
    warn_of_loss(result);
}

lw_status lw_report_result(lw_report *r, const lw_msg *result, lw_err *err)
{
    report_loss(r, result);
    if (!lw_msg_has(result, stages))
        return LW_OK;
    for (int op = LW_OP_NONE + 1; op < LW_N_OPS; op++) {
        const lw_stage_info *s = &result->stages.by_op[op];
        json_t *o;

        if (!s->has)
            continue;
        r->t_ms[op] += s->t_ms;
        o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b}", "model_id", s->model_id ? s->model_id : "",
                      "weights_digest", s->weights_digest ? s->weights_digest : "", "backend",
                      s->backend ? s->backend : "", "precision", s->precision ? s->precision : "",
                      "worker", s->worker ? s->worker : "", "cached", s->cached);
        if (json_object_set_new(r->stages, lw_op_name((lw_op)op), o))
            return no_memory(err);
    }
    return LW_OK;
}

lw_status lw_report_file(lw_report *r, uint64_t index, const char *path, bool has_seed,
                         uint64_t seed, lw_err *err)
{
    json_t *o = json_object();
    bool ok = o != NULL;

    /* A path that is not UTF-8 cannot stand in JSON; its line on standard output is still right. */
    ok = ok && json_object_set_new(o, "path", json_stringn_nocheck(path, strlen(path))) == 0;
    ok = ok && (!has_seed || json_object_set_new(o, "seed", json_integer((json_int_t)seed)) == 0);
    while (ok && json_array_size(r->files) <= index)
        ok = json_array_append_new(r->files, json_null()) == 0;
    if (ok && json_array_set(r->files, (size_t)index, o) == 0) {
        json_decref(o);
        return LW_OK;
    }
    json_decref(o);
    return no_memory(err);
}

static bool fill_times(const lw_report *r, const lw_run *run, json_t *root)
{
    json_t *t = json_object();
    bool ok = t != NULL;

    ok = ok && json_object_set_new(t, "start", json_real(run ? lw_run_start_ms(run) : 0)) == 0;
    for (int op = LW_OP_NONE + 1; ok && op < LW_N_OPS; op++)
        if (json_object_get(r->stages, lw_op_name((lw_op)op)))
            ok = json_object_set_new(t, lw_op_name((lw_op)op), json_real(r->t_ms[op])) == 0;
    ok = ok && json_object_set_new(t, "total", json_real((double)(lw_now_ms() - r->start_ms))) == 0;
    ok = ok && json_object_set(root, "timings_ms", t) == 0;
    json_decref(t);
    return ok;
}

static lw_status print_json(const lw_report *r, const json_t *manifest, const lw_run *run,
                            lw_err *err)
{
    json_t *root = json_deep_copy(manifest);
    bool ok = root != NULL;
    int failed;

    ok = ok && json_object_del(root, "manifest") == 0;
    ok = ok && json_object_set(root, "files", r->files) == 0;
    ok = ok && json_object_set(root, "stages", r->stages) == 0;
    ok = ok && fill_times(r, run, root);
    ok = ok && json_object_set_new(root, "hub", json_string(run ? lw_run_hub(run) : "none")) == 0;
    if (!ok) {
        json_decref(root);
        return no_memory(err);
    }
    failed = json_dumpf(root, stdout, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(root);
    if (failed || putchar('\n') == EOF || fflush(stdout))
        return lw_fail(err, LW_E_IO, "cannot write to standard output: %s", strerror(errno));
    return LW_OK;
}

lw_status lw_report_print(const lw_report *r, bool json, const json_t *manifest, const lw_run *run,
                          lw_err *err)
{
    const json_t *file;
    size_t i;

    if (json)
        return print_json(r, manifest, run, err);
    json_array_foreach(r->files, i, file)
    {
        const char *path = json_string_value(json_object_get(file, "path"));

        if (path && strcmp(path, "-"))
            puts(path);
    }
    if (fflush(stdout))
        return lw_fail(err, LW_E_IO, "cannot write to standard output: %s", strerror(errno));
    return LW_OK;
}
