/* Events in, consequences out. Each public entry records what it was told and then settles. */

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "orchestrate/hub_state.h"

#define MIB           ((size_t)1024 * 1024)
#define RETRY_SEND_MS 20
#define GAP_FACTOR    2
#define LOG_WINDOW_MS 1000
#define LOG_LINES     10

/* ---- life ---- */

static lw_status fill_params(lw_hub_params *p, lw_err *err)
{
#define DEFAULT(m, v)                                                                              \
    if (!p->m)                                                                                     \
    p->m = (v)
    DEFAULT(hb_ms, 1000);
    DEFAULT(hb_misses, 3);
    DEFAULT(wait_ms, 60000);
    DEFAULT(drain_ms, 30000);
    DEFAULT(budget_bytes, 512 * MIB);
    DEFAULT(client_bytes, p->budget_bytes / 2);
    DEFAULT(cache_bytes, 64 * MIB);
    DEFAULT(max_jobs, 1024);
    DEFAULT(max_sessions, 256);
    DEFAULT(batch, 1);
    DEFAULT(checkpoint_every, 1);
#undef DEFAULT
    if (p->no_cache)
        p->cache_bytes = 0;
    if (p->hb_ms < 10 || p->hb_misses < 1 || p->stuck_ms < 0 || p->wait_ms < 0 || p->drain_ms < 0)
        return lw_fail(err, LW_E_INVALID, "a time of the hub is out of range");
    if (p->max_jobs < 1 || p->max_sessions < 1 || p->batch < 1 || p->batch > 64)
        return lw_fail(err, LW_E_INVALID, "a limit of the hub is out of range");
    if (p->client_bytes > p->budget_bytes)
        p->client_bytes = p->budget_bytes;
    return LW_OK;
}

lw_status lw_hub_create(const lw_hub_params *p, const lw_hub_io *io, int64_t now_ms, lw_hub **ret,
                        lw_err *err)
{
    lw_hub *h = calloc(1, sizeof(*h));
    lw_status st = LW_OK;

    if (!h)
        return lw_fail(err, LW_E_NOMEM, "no memory for the hub");
    h->p = *p;
    h->io = *io;
    h->now_ms = h->started_ms = h->tick_ms = h->beat_ms = now_ms;
    h->jobs_end = &h->jobs;
    for (int role = 0; role < LW_N_ROLES; role++)
        h->role_seen_ms[role] = now_ms;
    /* A CREDIT for the hub that was here before must not count in this one. */
    h->io.random(h->io.ctx, &h->next_epoch, sizeof(h->next_epoch));
    h->next_epoch = (h->next_epoch >> 16) + 1;
    st = fill_params(&h->p, err);
    for (int side = LW_FRONTEND; st == LW_OK && side <= LW_BACKEND; side++) {
        h->sessions[side] = calloc((size_t)h->p.max_sessions, sizeof(*h->sessions[side]));
        if (!h->sessions[side])
            st = lw_fail(err, LW_E_NOMEM, "no memory for the hub's sessions");
    }
    if (st == LW_OK)
        st = lw_embedding_cache_create(h->p.cache_bytes, &h->cache, err);
    if (st != LW_OK) {
        lw_hub_destroy(&h);
        return st;
    }
    *ret = h;
    return LW_OK;
}

static lw_status send_nothing(void *ctx, lw_hub_side side, const lw_peer *peer, const lw_msg *m,
                              lw_err *err)
{
    (void)ctx, (void)side, (void)peer, (void)m;
    return lw_fail(err, LW_E_EXHAUSTED, "the hub is closed");
}

static void free_tasks(lw_hub *h, lw_hub_session *s)
{
    while (s->n_tasks)
        lw_hub_task_free(h, s->tasks[0]);
}

void lw_hub_destroy(lw_hub **ph)
{
    lw_hub *h = *ph;

    if (!h)
        return;
    *ph = NULL;
    h->io.send = send_nothing;
    while (h->jobs)
        lw_hub_job_free(h, h->jobs);
    for (int side = LW_FRONTEND; side <= LW_BACKEND; side++) {
        while (h->n_sessions[side]) {
            free_tasks(h, h->sessions[side][0]);
            lw_hub_session_free(h, h->sessions[side][0]);
        }
        free(h->sessions[side]);
    }
    lw_embedding_cache_destroy(&h->cache);
    free(h);
}

/* ---- consequences ---- */

/* Sessions that are gone: tasks of a worker go back into the queue, jobs of a client end. */
static bool bury(lw_hub *h)
{
    bool any = false;

    for (int side = LW_FRONTEND; side <= LW_BACKEND; side++)
        for (int i = h->n_sessions[side] - 1; i >= 0; i--) {
            lw_hub_session *s = h->sessions[side][i];

            if (!s->gone)
                continue;
            any = true;
            lw_hub_worker_tasks_return(h, s);
            for (lw_hub_job *j = h->jobs, *next; j; j = next) {
                next = j->next;
                if (j->client != s)
                    continue;
                lw_hub_job_cancel(h, j, "its client left");
                lw_hub_job_free(h, j);
            }
            lw_hub_session_free(h, s);
        }
    return any;
}

/* True when something could not be sent yet. */
static bool deliver(lw_hub *h)
{
    bool left = false;

    for (int i = 0; i < h->n_sessions[LW_FRONTEND]; i++)
        left |= lw_hub_refusals_flush(h, h->sessions[LW_FRONTEND][i]);
    for (lw_hub_job *j = h->jobs, *next; j; j = next) {
        next = j->next;
        left |= lw_hub_job_flush(h, j);
        if (lw_hub_job_over(j))
            lw_hub_job_free(h, j);
    }
    return left;
}

static bool settle(lw_hub *h)
{
    bool left;

    do {
        lw_hub_dispatch(h);
        left = deliver(h);
    } while (bury(h));
    return left;
}

void lw_hub_settle(lw_hub *h)
{
    (void)settle(h);
}

/* ---- messages ---- */

/* A log that anybody can fill is a disk that anybody can fill. */
bool lw_hub_may_log(lw_hub *h)
{
    if (h->now_ms - h->log_window_ms >= LOG_WINDOW_MS) {
        if (h->log_left_out)
            lw_log(LW_WARN, "lines left out", LW_KV_INT("lines", h->log_left_out));
        h->log_window_ms = h->now_ms;
        h->log_lines = h->log_left_out = 0;
    }
    if (h->log_lines == LOG_LINES) {
        h->log_left_out++;
        return false;
    }
    h->log_lines++;
    return true;
}

static void from_stranger(lw_hub *h, lw_hub_side side, const lw_peer *peer, const lw_msg *m)
{
    lw_err err = { 0 };
    lw_msg answer;

    h->count.unexpected++;
    if (m->type == LW_MSG_SUBMIT || m->type == LW_MSG_STATUS) {
        lw_fail(&err, LW_E_PRECONDITION, "say HELLO before %s", lw_msg_type_name(m->type));
        lw_msg_error(&answer, m->has_id ? m->id : NULL, &err);
    } else if (m->type == LW_MSG_HEARTBEAT || m->type == LW_MSG_CREDIT) {
        /* It believes to have a session; it has been silent for too long, or the hub is new. */
        lw_msg_init(&answer, LW_MSG_BYE, NULL);
        lw_msg_set(&answer, reason, "the hub does not know you; say HELLO again");
    } else {
        return;
    }
    (void)!h->io.send(h->io.ctx, side, peer, &answer, NULL);
}

static void say_status(lw_hub *h, lw_hub_session *s, const lw_msg *m)
{
    char *text = lw_hub_report(h, h->now_ms);
    lw_err err = { 0 };
    lw_msg answer;

    if (!text) {
        lw_fail(&err, LW_E_NOMEM, "the hub has no memory for a report");
        lw_hub_refuse(h, s, m->has_id ? m->id : NULL, &err);
        return;
    }
    lw_msg_init(&answer, LW_MSG_STATUS, m->has_id ? m->id : NULL);
    lw_msg_set(&answer, report, text);
    (void)!lw_hub_send(h, s, &answer); /* who does not get it asks again */
    free(text);
}

static void from_client(lw_hub *h, lw_hub_session *s, const lw_msg *m)
{
    lw_hub_job *j;

    switch (m->type) {
    case LW_MSG_HEARTBEAT:
        break;
    case LW_MSG_SUBMIT:
        lw_hub_submit(h, s, m);
        break;
    case LW_MSG_CANCEL:
        /* A job that is not known has been answered; that answer stands. */
        j = lw_hub_job_find(h, m->id);
        if (j && j->client == s)
            lw_hub_job_cancel(h, j, lw_msg_get(m, reason, "cancelled by the client"));
        break;
    case LW_MSG_STATUS:
        say_status(h, s, m);
        break;
    case LW_MSG_BYE:
        s->said_bye = true;
        lw_hub_session_lose(h, s, lw_msg_get(m, reason, "it said goodbye"));
        break;
    default:
        h->count.unexpected++;
        break;
    }
}

static void from_worker(lw_hub *h, lw_hub_session *s, const lw_msg *m)
{
    switch (m->type) {
    case LW_MSG_CREDIT:
        lw_hub_worker_credit(h, s, m);
        break;
    case LW_MSG_HEARTBEAT:
        lw_hub_worker_heartbeat(h, s, m);
        break;
    case LW_MSG_PROGRESS:
    case LW_MSG_PREVIEW:
    case LW_MSG_RESULT:
    case LW_MSG_ERROR:
    case LW_MSG_CANCELLED:
        lw_hub_worker_answer(h, s, m);
        break;
    case LW_MSG_BYE:
        s->said_bye = true;
        lw_hub_session_lose(h, s, lw_msg_get(m, reason, "it said goodbye"));
        break;
    default:
        h->count.unexpected++;
        break;
    }
}

void lw_hub_receive(lw_hub *h, lw_hub_side side, const lw_peer *peer, const lw_msg *m,
                    int64_t now_ms)
{
    lw_hub_session *s = lw_hub_session_find(h, side, peer);

    h->now_ms = now_ms;
    if (s)
        s->heard_ms = now_ms;
    if (m->type == LW_MSG_HELLO)
        lw_hub_hello(h, side, peer, m);
    else if (!s)
        from_stranger(h, side, peer, m);
    else if (side == LW_FRONTEND)
        from_client(h, s, m);
    else
        from_worker(h, s, m);
    lw_hub_settle(h);
}

void lw_hub_malformed(lw_hub *h, lw_hub_side side, const lw_peer *peer, const lw_msg *m,
                      const lw_err *why, int64_t now_ms)
{
    lw_hub_session *s = lw_hub_session_find(h, side, peer);
    /* A job with a value out of range is a user's mistake, not a broken program. */
    const bool mistake = m->type == LW_MSG_SUBMIT && m->has_id && why->code != LW_E_FORMAT;

    h->now_ms = now_ms;
    h->count.malformed++;
    if (lw_hub_may_log(h))
        lw_log(LW_WARN, "malformed message", LW_KV_STR("from", s ? s->name : "a stranger"),
               LW_KV_STR("type", lw_msg_type_name(m->type)), LW_KV_STR("why", why->text));
    if (s) {
        s->heard_ms = now_ms;
        lw_hub_refuse(h, s, m->has_id ? m->id : NULL, why);
        if (side == LW_BACKEND)
            lw_hub_worker_garbled(h, s, m, why);
        if (!mistake && ++s->malformed >= LW_HUB_MAX_MALFORMED)
            lw_hub_session_lose(h, s, "it sent too many malformed messages");
    }
    lw_hub_settle(h);
}

/* ---- time ---- */

/*
 * When the hub itself did not run (stopped, or the machine overloaded), nobody was silent: nobody
 * was listened to.
 */
static void forgive_gap(lw_hub *h, int64_t gap_ms)
{
    for (int side = LW_FRONTEND; side <= LW_BACKEND; side++)
        for (int i = 0; i < h->n_sessions[side]; i++)
            h->sessions[side][i]->heard_ms += gap_ms;
    for (int role = 0; role < LW_N_ROLES; role++)
        h->role_seen_ms[role] += gap_ms;
}

int64_t lw_hub_tick(lw_hub *h, int64_t now_ms)
{
    const int64_t gap = now_ms - h->tick_ms;
    const int64_t next = h->p.hb_ms / 4 > 0 ? h->p.hb_ms / 4 : 1;

    if (gap > GAP_FACTOR * h->p.hb_ms)
        forgive_gap(h, gap);
    h->now_ms = h->tick_ms = now_ms;
    lw_hub_sessions_tick(h);
    lw_hub_jobs_tick(h);
    if (h->draining && now_ms >= h->drain_deadline_ms)
        for (lw_hub_job *j = h->jobs; j; j = j->next) {
            lw_err err = { 0 };

            lw_fail(&err, LW_E_UNAVAILABLE, "the hub is shutting down");
            lw_hub_job_fail(h, j, &err, NULL, NULL);
        }
    return settle(h) && next > RETRY_SEND_MS ? RETRY_SEND_MS : next;
}

/* ---- shutdown ---- */

void lw_hub_drain(lw_hub *h, int64_t now_ms)
{
    if (h->draining)
        return;
    h->now_ms = now_ms;
    h->draining = true;
    h->drain_deadline_ms = now_ms + h->p.drain_ms;
    lw_log(LW_INFO, "draining", LW_KV_INT("jobs", h->n_jobs));
}

bool lw_hub_drained(const lw_hub *h)
{
    return h->draining && !h->jobs;
}

void lw_hub_goodbye(lw_hub *h)
{
    for (int side = LW_FRONTEND; side <= LW_BACKEND; side++)
        for (int i = 0; i < h->n_sessions[side]; i++) {
            const bool leave = side == LW_BACKEND && !h->p.keep_workers;
            lw_msg m;

            lw_msg_init(&m, leave ? LW_MSG_DRAIN : LW_MSG_BYE, NULL);
            lw_msg_set(&m, reason, "the hub is shutting down");
            (void)!lw_hub_send(h, h->sessions[side][i], &m);
        }
}

int lw_hub_sessions(const lw_hub *h, lw_hub_side side)
{
    return h->n_sessions[side];
}

const lw_hub_counters *lw_hub_counters_get(const lw_hub *h)
{
    return &h->count;
}
