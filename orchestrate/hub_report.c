/*
 * STATUS: the hub's state as JSON. It must fit one message whatever there is, so the lists are cut
 * and their true lengths stand beside them. No prompts: a status page is for everybody.
 */

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lw_version.h"
#include "orchestrate/hub_state.h"

#define REPORT_BYTES 60000 /* as in the schema */
#define LIST_MAX     48

static const char *hex_id(const uint8_t id[16], char ret[33])
{
    for (int i = 0; i < 16; i++)
        snprintf(ret + 2 * i, 3, "%02x", id[i]);
    return ret;
}

static json_t *number(uint64_t v)
{
    return json_integer((json_int_t)(v > INT64_MAX ? INT64_MAX : v));
}

static const char *text(const char *s)
{
    return s ? s : "";
}

static const char *worker_state(const lw_hub_session *s)
{
    return s->stuck ? "stuck" : s->draining ? "draining" : s->n_tasks ? "busy" : "idle";
}

static json_t *describe_worker(const lw_hub_session *s)
{
    const lw_contract *c = &s->contract;

    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:i, s:i, s:i, s:o, s:o, s:o}", "name",
        s->name, "role", lw_role_name(s->role), "state", worker_state(s), "model",
        text(c->model_id), "weights_digest", text(c->weights_digest), "backend", text(c->backend),
        "precision", text(c->precision), "width", number(c->width), "height", number(c->height),
        "steps", number(c->steps), "slots", s->slots, "credits", s->credits, "tasks", s->n_tasks,
        "tasks_done", number(s->tasks_done), "step_age_ms", number(s->step_age_ms), "rss_bytes",
        number(s->rss_bytes));
}

static json_t *describe_job(const lw_hub *h, const lw_hub_job *j)
{
    char id[33];
    const char *state = j->final ? "answering" : lw_hub_job_running(j) ? "running" : "queued";

    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:s, s:o, s:o, s:I}", "id",
                     hex_id(j->id, id), "client", j->client->name, "state", state, "from",
                     lw_artefact_name(j->from), "to", lw_artefact_name(j->to), "pictures", j->n,
                     "pictures_done", j->n_done, "stage", j->last_op ? lw_op_name(j->last_op) : "",
                     "step", number(j->last_step), "total", number(j->last_total), "age_ms",
                     (json_int_t)(h->now_ms - j->accepted_ms));
}

/* Per role: workers, tasks waiting and given out; and the roles that jobs wait for in vain. */
static bool describe_roles(const lw_hub *h, json_t *root)
{
    json_t *roles = json_object(), *missing = json_array();
    unsigned needed = 0;
    bool ok = roles && missing;

    for (const lw_hub_job *j = h->jobs; j; j = j->next)
        needed |= j->final ? 0 : lw_hub_job_roles(j);
    for (int role = LW_ROLE_ENCODER; ok && role <= LW_ROLE_DECODER; role++) {
        int workers = 0, usable = 0, running = 0;

        for (int i = 0; i < h->n_sessions[LW_BACKEND]; i++) {
            const lw_hub_session *s = h->sessions[LW_BACKEND][i];

            if (s->role != (lw_role)role)
                continue;
            workers++;
            usable += lw_hub_worker_usable(s);
            running += s->n_tasks;
        }
        ok = json_object_set_new(roles, lw_role_name((lw_role)role),
                                 json_pack("{s:i, s:i, s:I, s:i}", "workers", workers, "usable",
                                           usable, "queued", (json_int_t)h->queues[role].n,
                                           "running", running)) == 0;
        if (ok && !usable && needed & 1u << role)
            ok = json_array_append_new(missing, json_string(lw_role_name((lw_role)role))) == 0;
    }
    ok = ok && json_object_set(root, "roles", roles) == 0;
    ok = ok && json_object_set(root, "waiting_for", missing) == 0;
    json_decref(roles);
    json_decref(missing);
    return ok;
}

static bool describe_lists(const lw_hub *h, json_t *root, int max)
{
    json_t *workers = json_array(), *jobs = json_array();
    bool ok = workers && jobs;
    int n = 0;

    for (int i = 0; ok && i < h->n_sessions[LW_BACKEND] && i < max; i++)
        ok = json_array_append_new(workers, describe_worker(h->sessions[LW_BACKEND][i])) == 0;
    for (const lw_hub_job *j = h->jobs; ok && j && n < max; j = j->next, n++)
        ok = json_array_append_new(jobs, describe_job(h, j)) == 0;
    ok = ok && json_object_set(root, "workers", workers) == 0;
    ok = ok && json_object_set(root, "jobs", jobs) == 0;
    json_decref(workers);
    json_decref(jobs);
    return ok;
}

static bool describe_numbers(const lw_hub *h, json_t *root)
{
    const lw_hub_counters *c = &h->count;
    lw_embedding_cache_stats cache;
    json_t *counters = json_object();
    bool ok = counters != NULL;

#define COUNTER(m) ok = ok && json_object_set_new(counters, #m, number(c->m)) == 0
    COUNTER(jobs_accepted);
    COUNTER(jobs_refused);
    COUNTER(jobs_done);
    COUNTER(jobs_failed);
    COUNTER(jobs_cancelled);
    COUNTER(tasks_sent);
    COUNTER(retries);
    COUNTER(late_dropped);
    COUNTER(lost_tasks);
    COUNTER(workers_lost);
    COUNTER(workers_stuck);
    COUNTER(workers_refused);
    COUNTER(clients_lost);
    COUNTER(malformed);
    COUNTER(unexpected);
    COUNTER(previews_dropped);
#undef COUNTER
    lw_embedding_cache_stats_get(h->cache, &cache);
    ok = ok && json_object_set(root, "counters", counters) == 0;
    ok = ok &&
         json_object_set_new(root, "cache",
                             json_pack("{s:o, s:o, s:o, s:o, s:o}", "bytes", number(cache.bytes),
                                       "limit_bytes", number(cache.limit_bytes), "entries",
                                       number(cache.entries), "hits", number(cache.hits), "misses",
                                       number(cache.misses))) == 0;
    ok = ok && json_object_set_new(root, "budget",
                                   json_pack("{s:o, s:o, s:o}", "reserved_bytes",
                                             number(h->reserved_bytes), "limit_bytes",
                                             number(h->p.budget_bytes), "client_limit_bytes",
                                             number(h->p.client_bytes))) == 0;
    json_decref(counters);
    return ok;
}

static char *report(const lw_hub *h, int max)
{
    json_t *root = json_pack("{s:s, s:I, s:b, s:i, s:i, s:i}", "version", LW_VERSION, "uptime_ms",
                             (json_int_t)(h->now_ms - h->started_ms), "draining", h->draining,
                             "n_clients", h->n_sessions[LW_FRONTEND], "n_workers",
                             h->n_sessions[LW_BACKEND], "n_jobs", h->n_jobs);
    char *ret = NULL;

    if (root && describe_roles(h, root) && describe_lists(h, root, max) &&
        describe_numbers(h, root))
        ret = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return ret;
}

char *lw_hub_report(lw_hub *h, int64_t now_ms)
{
    char *ret = NULL;

    h->now_ms = now_ms;
    /* Names of the greatest length and all of it to be escaped: then fewer of them. */
    for (int max = LIST_MAX; !ret || strlen(ret) > REPORT_BYTES; max /= 2) {
        free(ret);
        ret = report(h, max);
        if (!ret)
            return NULL;
    }
    return ret;
}
