/*
 * The jobs of a run: submit, show how far they are, take the answers, obey Ctrl-C, and begin again
 * where a lost connection left them.
 */

#include <string.h>

#include "common/clock.h"
#include "orchestrate/run_impl.h"

#define CANCEL_WAIT_MS 3000

static lw_job *job_of(lw_job *jobs, int n, const lw_msg *m)
{
    for (int i = 0; m->has_id && i < n; i++)
        if (!memcmp(jobs[i].submit->id, m->id, sizeof(m->id)))
            return &jobs[i];
    return NULL;
}

static int unfinished(const lw_job *jobs, int n)
{
    int left = 0;

    for (int i = 0; i < n; i++)
        left += !jobs[i].finished;
    return left;
}

static void cancel_all(lw_run *s, const lw_job *jobs, int n, const char *reason)
{
    for (int i = 0; i < n; i++) {
        lw_msg m;

        if (jobs[i].finished)
            continue;
        lw_msg_init(&m, LW_MSG_CANCEL, jobs[i].submit->id);
        lw_msg_set(&m, reason, reason);
        (void)!lw_client_send(s->client, &m, NULL); /* a hub that is gone needs no cancel */
    }
}

static void show_jobs(lw_run *s, const lw_job *jobs, int n)
{
    const uint64_t done = (uint64_t)(n - unfinished(jobs, n));

    lw_progress_update(&s->progress, "pictures", s->jobs_before + done,
                       s->jobs_before + (uint64_t)n);
}

/* What the hub says went wrong with a job. */
static lw_status job_failed(const lw_job *job, const lw_msg *m, lw_err *err)
{
    lw_err why = { 0 };

    (void)!lw_fail(&why, lw_msg_get(m, code, LW_E_INTERNAL), "%s",
                   lw_msg_get(m, message, "the hub gave no reason"));
    return job->on_failure ? job->on_failure(job->arg, &why, err)
                           : lw_fail(err, why.code, "%s", why.text);
}

static void show_progress(lw_run *s, lw_job *jobs, int n, lw_job *job, const lw_msg *m)
{
    uint64_t done = 0, total = 0;

    if (s->window) {
        show_jobs(s, jobs, n);
        return;
    }
    if (lw_msg_get(m, op, LW_OP_NONE) != LW_OP_DENOISE) {
        lw_progress_update(&s->progress,
                           m->op == LW_OP_ENCODE     ? "reading the prompt"
                           : m->op == LW_OP_TOKENIZE ? "reading the prompt"
                           : m->op == LW_OP_DECODE   ? "decoding"
                                                     : "encoding the picture",
                           lw_msg_get(m, step, 0), lw_msg_get(m, total, 0));
        return;
    }
    /* Pictures of one job may be in work at several denoisers at once. */
    if (lw_msg_get(m, picture, 0) < LW_MAX_PICTURES)
        job->steps_done[m->picture] = (uint16_t)lw_msg_get(m, step, 0);
    for (int i = 0; i < n; i++) {
        for (int k = 0; !jobs[i].finished && k < LW_MAX_PICTURES; k++)
            done += jobs[i].steps_done[k];
        done += jobs[i].finished ? jobs[i].steps_total : 0;
        total += jobs[i].steps_total;
    }
    lw_progress_update(&s->progress, "denoising", done < total ? done : total, total);
}

/* One message about a job. */
static lw_status handle(lw_run *s, lw_job *jobs, int n, const lw_msg *m, lw_err *err)
{
    lw_job *job = job_of(jobs, n, m);

    if (lw_preview_answer(&s->preview, m) || !job || job->finished)
        return LW_OK;
    switch (m->type) {
    case LW_MSG_PROGRESS:
        if (job->on_progress)
            job->on_progress(job->arg, m);
        show_progress(s, jobs, n, job, m);
        return LW_OK;
    case LW_MSG_PREVIEW:
        lw_preview_show(&s->preview, s->client, m);
        return LW_OK;
    case LW_MSG_RESULT:
        job->finished = true;
        if (s->window)
            show_jobs(s, jobs, n);
        else
            lw_progress_clear(&s->progress);
        return job->on_result(job->arg, job->submit, m, err);
    case LW_MSG_ERROR:
        job->finished = true;
        return job_failed(job, m, err);
    case LW_MSG_CANCELLED:
        job->finished = true;
        return lw_fail(err, LW_E_CANCELLED, "the job was cancelled");
    default:
        return LW_OK; /* ACCEPTED, and what later versions may tell */
    }
}

/* After Ctrl-C: the hub frees its workers for others before we go. */
static void drain_cancelled(lw_run *s, lw_job *jobs, int n)
{
    const int64_t deadline = lw_now_ms() + CANCEL_WAIT_MS;

    cancel_all(s, jobs, n, "cancelled by the user");
    if (s->cluster)
        return; /* private workers are stopped in a moment anyway */
    while (unfinished(jobs, n) && s->interrupts < 2 && lw_now_ms() < deadline) {
        lw_client_event ev;
        lw_job *job;

        if (lw_run_wait(s, deadline - lw_now_ms(), false, &ev, NULL) != LW_OK)
            return;
        job = ev.msg ? job_of(jobs, n, ev.msg) : NULL;
        if (job && (ev.msg->type == LW_MSG_RESULT || ev.msg->type == LW_MSG_ERROR ||
                    ev.msg->type == LW_MSG_CANCELLED))
            job->finished = true;
    }
}

/*
 * Submit what this session of the hub does not know yet: all jobs at first, the unfinished ones
 * when a lost connection is back. *ret_all false: the queue was full, try again soon.
 */
static lw_status submit(lw_run *s, lw_job *jobs, int n, bool *ret_all, lw_err *err)
{
    const int session = lw_client_sessions(s->client);
    int there = 0;

    *ret_all = true;
    for (int i = 0; i < n; i++)
        there += !jobs[i].finished && jobs[i].session == session;
    for (int i = 0; lw_client_connected(s->client) && i < n; i++) {
        lw_status st = LW_OK;

        if (jobs[i].finished || jobs[i].session == session)
            continue;
        if (s->window && there++ == s->window)
            break;
        st = lw_client_send(s->client, jobs[i].submit, err);
        if (st == LW_OK)
            jobs[i].session = session;
        else if (st == LW_E_EXHAUSTED)
            *ret_all = false;
        else
            return st;
    }
    if (!lw_client_connected(s->client))
        lw_progress_update(&s->progress, "connection lost, trying again", 0, 0);
    return LW_OK;
}

void lw_run_set_window(lw_run *s, int most, uint64_t before)
{
    s->window = most;
    s->jobs_before = before;
}

lw_status lw_run_jobs(lw_run *s, lw_job *jobs, int n, lw_err *err)
{
    lw_status st = LW_OK;

    for (int i = 0; i < n; i++) {
        lw_msg *m = jobs[i].submit;

        lw_client_new_id(m->id);
        m->has_id = true;
        jobs[i].finished = false;
        jobs[i].session = 0;
        memset(jobs[i].steps_done, 0, sizeof(jobs[i].steps_done));
        jobs[i].steps_total = lw_msg_get(m, steps, 0) * lw_msg_get(m, n, 1);
    }
    while (st == LW_OK && unfinished(jobs, n)) {
        lw_client_event ev;
        bool all;

        if (s->interrupts) {
            drain_cancelled(s, jobs, n);
            st = lw_fail(err, LW_E_CANCELLED, "cancelled");
            break;
        }
        st = submit(s, jobs, n, &all, err);
        if (st == LW_OK) /* short while lost: the end of that is no event */
            st =
                lw_run_wait(s, all && lw_client_connected(s->client) ? 60000 : 50, false, &ev, err);
        if (st == LW_OK && ev.msg)
            st = handle(s, jobs, n, ev.msg, err);
    }
    if (st != LW_OK && st != LW_E_CANCELLED)
        cancel_all(s, jobs, n, "another job of the command failed");
    lw_progress_clear(&s->progress);
    return st;
}
