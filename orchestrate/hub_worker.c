/*
 * What workers say. Two things are judged here that a heartbeat alone does not show: a worker that
 * answers but whose task does not move (stuck), and a worker that knows nothing of a task it was
 * given (lost on the way).
 */

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "orchestrate/hub_state.h"

/* Without a step to go by, patience is long: on few cores the first step of a large picture takes
 * minutes, and a worker declared stuck by mistake costs more than one found out late. */
#define STUCK_FLOOR_MS   30000
#define STUCK_UNKNOWN_MS 600000
#define STUCK_FACTOR     10

static lw_hub_task *find_task(lw_hub_session *s, const uint8_t id[16])
{
    for (int i = 0; i < s->n_tasks; i++)
        if (!memcmp(s->tasks[i]->id, id, 16))
            return s->tasks[i];
    return NULL;
}

/* ---- state ---- */

/* Said of an earlier session of the same worker: nothing in it can be trusted. */
static bool stale(const lw_hub_session *s, const lw_msg *m)
{
    return lw_msg_has(m, epoch) && m->epoch != s->epoch;
}

void lw_hub_worker_credit(lw_hub *h, lw_hub_session *s, const lw_msg *m)
{
    (void)h;
    if (!stale(s, m))
        s->credits = (int)lw_msg_get(m, credits, 0);
}

/* t NULL: it works on something that an earlier session gave it. */
static double stuck_limit_ms(const lw_hub *h, const lw_hub_task *t)
{
    double limit;

    if (h->p.stuck_ms > 0)
        return (double)h->p.stuck_ms;
    if (!t || h->longest_ms[t->op] <= 0)
        return STUCK_UNKNOWN_MS;
    limit = STUCK_FACTOR * h->longest_ms[t->op] * lw_hub_task_cost(t);
    return limit > STUCK_FLOOR_MS ? limit : STUCK_FLOOR_MS;
}

/* Its tasks go elsewhere; it gets none until a heartbeat shows it idle again. */
static void declare_stuck(lw_hub *h, lw_hub_session *s, const lw_hub_task *stuck)
{
    lw_err why = { 0 };
    lw_msg m;

    h->count.workers_stuck++;
    s->stuck = true;
    lw_log(LW_WARN, "worker stuck", LW_KV_STR("worker", s->name),
           LW_KV_STR("op", stuck ? lw_op_name(stuck->op) : ""),
           LW_KV_INT("step_age_ms", (int64_t)s->step_age_ms));
    lw_fail(&why, LW_E_UNAVAILABLE, "%s did not move for %llu ms", s->name,
            (unsigned long long)s->step_age_ms);
    lw_msg_init(&m, LW_MSG_CANCEL, s->in_flight);
    lw_msg_set(&m, reason, "stuck");
    (void)!lw_hub_send(h, s, &m);
    while (s->n_tasks) {
        lw_hub_task *t = s->tasks[s->n_tasks - 1];

        lw_hub_task_retry(h, t, t == stuck, &why);
    }
}

/* A task that an idle worker does not mention for some heartbeats never reached it, or its answer
 * never reached us. */
static void look_for_lost_tasks(lw_hub *h, lw_hub_session *s)
{
    for (int i = s->n_tasks - 1; i >= 0; i--) {
        lw_hub_task *t = s->tasks[i];
        lw_err why = { 0 };

        if (h->now_ms - t->sent_ms < h->p.hb_ms || ++t->idle_beats < h->p.hb_misses)
            continue;
        h->count.lost_tasks++;
        lw_fail(&why, LW_E_UNAVAILABLE, "a task given to %s was lost", s->name);
        lw_hub_task_retry(h, t, false, &why);
    }
}

void lw_hub_worker_heartbeat(lw_hub *h, lw_hub_session *s, const lw_msg *m)
{
    const char *state = lw_msg_get(m, state, "");
    const bool idle = !strcmp(state, "idle") && !lw_msg_has(m, in_flight);
    lw_hub_task *t = NULL;

    if (stale(s, m))
        return;
    if (lw_msg_has(m, credits))
        s->credits = (int)m->credits;
    s->draining = s->draining || !strcmp(state, "draining");
    s->step_age_ms = lw_msg_get(m, step_age_ms, 0);
    s->rss_bytes = lw_msg_get(m, rss_bytes, s->rss_bytes);
    s->has_in_flight = lw_msg_has(m, in_flight);
    if (s->has_in_flight) {
        memcpy(s->in_flight, m->in_flight, sizeof(s->in_flight));
        t = find_task(s, s->in_flight);
    }
    if (t)
        t->idle_beats = 0;
    if (idle && s->stuck) {
        s->stuck = false;
        lw_log(LW_INFO, "worker moves again", LW_KV_STR("worker", s->name));
    }
    if (idle)
        look_for_lost_tasks(h, s);
    else if (s->has_in_flight && !s->stuck && (double)s->step_age_ms > stuck_limit_ms(h, t))
        declare_stuck(h, s, t);
}

/* ---- progress ---- */

/* How long a step takes, so that "stuck" can be told from "slow". */
static void learn_step(lw_hub *h, lw_hub_task *t, uint64_t step)
{
    const uint64_t steps = step > t->step ? step - t->step : 1; /* else the next picture began */
    const double each = (double)(h->now_ms - t->moved_ms) / (double)steps / lw_hub_task_cost(t);

    if (each > h->longest_ms[t->op])
        h->longest_ms[t->op] = each;
    t->step = step;
    t->moved_ms = h->now_ms;
}

static bool latents_fit(const lw_hub *h, const lw_hub_task *t, const lw_tensor *l)
{
    const lw_contract *dit = lw_hub_contract(h, LW_ROLE_DENOISER);
    const lw_contract *vae = lw_hub_contract(h, LW_ROLE_DECODER);
    const int64_t channels = dit   ? (int64_t)dit->latent_channels
                             : vae ? (int64_t)vae->latent_channels
                                   : 0;
    int64_t down;

    if (!lw_dtype_is_float(l->dtype) || l->rank != 4 || l->shape[0] != t->count ||
        l->shape[1] < 1 || (channels && l->shape[1] != channels) || l->shape[2] < 1)
        return false;
    /* Without a decoder nobody says how much smaller latents are, but both sides must agree. */
    down = vae ? (int64_t)vae->downscale : t->job->height / l->shape[2];
    return l->shape[2] * down == t->job->height && l->shape[3] * down == t->job->width;
}

static void save_checkpoint(lw_hub *h, lw_hub_task *t, const lw_msg *m, const lw_msg_tensor *mt)
{
    const uint64_t step = lw_msg_get(m, start_step, lw_msg_get(m, step, 0));

    if (t->op != LW_OP_DENOISE || t->count != 1 || step == 0 || step >= (uint64_t)t->job->steps ||
        step <= t->checkpoint_step || !latents_fit(h, t, &mt->t))
        return;
    if (lw_held_take(&t->checkpoint, mt, NULL) == LW_OK) /* else a retry begins earlier */
        t->checkpoint_step = step;
}

static void take_progress(lw_hub *h, lw_hub_task *t, const lw_msg *m)
{
    const lw_msg_tensor *latents = lw_msg_tensor_find(m, LW_T_LATENTS);
    const uint64_t step = lw_msg_get(m, step, 0);

    if (!t->job)
        return;
    if (step != t->step)
        learn_step(h, t, step);
    if (latents)
        save_checkpoint(h, t, m, latents);
    if (!latents || lw_msg_has(m, total)) /* else it was for the hub alone */
        lw_hub_job_mail(h, t->job, t, m);
}

/* ---- results ---- */

static lw_status misfit(const lw_msg_tensor *mt, const char *name, const char *expected,
                        lw_err *err)
{
    char is[128];

    if (!mt)
        return lw_fail(err, LW_E_INTERNAL, "the result lacks the tensor %s (%s)", name, expected);
    return lw_fail(err, LW_E_INTERNAL, "the result has %s = %s, expected %s", name,
                   lw_tensor_describe(&mt->t, is, sizeof(is)), expected);
}

static lw_status take_encode(lw_hub *h, lw_hub_session *s, lw_hub_task *t, const lw_msg *m,
                             lw_err *err)
{
    const lw_msg_tensor *rows = lw_msg_tensor_find(m, LW_T_PROMPT_EMBEDS);
    const lw_msg_tensor *ids = lw_msg_tensor_find(m, LW_T_TOKEN_IDS);
    lw_embeds *e = &t->job->embeds[t->text];
    lw_embedding_key key;
    lw_msg task;

    if (!rows || !lw_dtype_is_float(rows->t.dtype) || rows->t.rank != 2 || rows->t.shape[0] < 1 ||
        rows->t.shape[1] != (int64_t)s->contract.dim) {
        char expected[64];

        snprintf(expected, sizeof(expected), "a float type [tokens, %llu]",
                 (unsigned long long)s->contract.dim);
        return misfit(rows, LW_T_PROMPT_EMBEDS, expected, err);
    }
    LW_TRY(lw_held_take(&e->rows, rows, err));
    if (ids)
        LW_TRY(lw_held_take(&e->ids, ids, err));
    e->n_tokens = lw_msg_get(m, n_tokens, (uint64_t)rows->t.shape[0]);
    e->truncated = lw_msg_get(m, truncated, false);
    e->n_text_tokens = lw_msg_get(m, n_text_tokens, 0);
    e->n_rows = lw_msg_get(m, n_rows, 0);
    e->reduced = lw_msg_has(m, row_loss);
    e->row_loss = lw_msg_get(m, row_loss, 0);
    snprintf(e->text_digest, sizeof(e->text_digest), "%s", lw_msg_get(m, text_digest, ""));
    snprintf(e->cut_text, sizeof(e->cut_text), "%s", lw_msg_get(m, cut_text, ""));
    lw_kept_stage_add(&e->stage, &s->contract, s->name, lw_msg_get(m, t_ms, 0));
    LW_TRY(lw_hub_task_message(h, t, &task, err));
    key = lw_embedding_key_of(&s->contract, &task);
    lw_embedding_cache_put(h->cache, &key, e);
    return LW_OK;
}

static bool is_1d(const lw_msg_tensor *mt, lw_dtype dtype)
{
    return mt && mt->t.dtype == dtype && mt->t.rank == 1;
}

/* Whatever the worker says of the tokens, within the room that the job has. */
static lw_status take_tokens(lw_hub_task *t, const lw_msg *m, lw_err *err)
{
    const lw_msg_tensor *ids = lw_msg_tensor_find(m, LW_T_TOKEN_IDS);
    const lw_msg_tensor *text = lw_msg_tensor_find(m, LW_T_TEXT);

    if (!is_1d(ids, LW_I32))
        return misfit(ids, LW_T_TOKEN_IDS, "int32 [tokens]", err);
    if (!is_1d(text, LW_U8))
        return misfit(text, LW_T_TEXT, "uint8 [bytes]", err);
    if (lw_kept_bytes(m) > t->job->reserved_bytes)
        return lw_fail(err, LW_E_INTERNAL, "the result has %zu bytes, more than its text can give",
                       lw_kept_bytes(m));
    return lw_kept_take(&t->job->out_tokens, m, err);
}

static lw_status take_latents(lw_hub *h, lw_hub_task *t, const lw_msg *m, lw_err *err)
{
    const lw_msg_tensor *mt = lw_msg_tensor_find(m, LW_T_LATENTS);
    lw_hub_job *j = t->job;
    lw_held all = { 0 };
    lw_status st = LW_OK;
    char expected[96];

    snprintf(expected, sizeof(expected), "a float type [%d, channels, H, W] of %d x %d pixels",
             t->count, j->width, j->height);
    if (!mt || !latents_fit(h, t, &mt->t))
        return misfit(mt, LW_T_LATENTS, expected, err);
    LW_TRY(lw_held_take(&all, mt, err));
    for (int i = 0; i < t->count && st == LW_OK; i++)
        st = lw_held_item(&j->pictures[t->first + i].latents, &all, i, err);
    lw_held_drop(&all);
    if (st == LW_OK && lw_msg_has(m, sigmas) && m->sigmas.n <= LW_MAX_SIGMAS) {
        memcpy(j->sigmas, m->sigmas.v, m->sigmas.n * sizeof(double));
        j->n_sigmas = m->sigmas.n;
    }
    return st;
}

static lw_status take_image(lw_hub_task *t, const lw_msg *m, lw_err *err)
{
    const lw_msg_tensor *mt = lw_msg_tensor_find(m, LW_T_IMAGE);
    const lw_hub_job *j = t->job;
    char expected[64];

    snprintf(expected, sizeof(expected), "uint8 [1, %d, %d, 3]", j->height, j->width);
    if (!mt || mt->t.dtype != LW_U8 || mt->t.rank != 4 || mt->t.shape[0] != 1 ||
        mt->t.shape[1] != j->height || mt->t.shape[2] != j->width || mt->t.shape[3] != 3)
        return misfit(mt, LW_T_IMAGE, expected, err);
    return lw_held_take(&j->pictures[t->first].image, mt, err);
}

static void take_result(lw_hub *h, lw_hub_session *s, lw_hub_task *t, const lw_msg *m)
{
    lw_hub_job *j = t->job;
    const lw_op op = t->op;
    const int first = t->first, count = t->count;
    lw_err err = { 0 };
    lw_status st;

    s->tasks_done++;
    if (!j) {
        h->count.late_dropped++;
        lw_hub_task_free(h, t);
        return;
    }
    learn_step(h, t, t->step + 1); /* from the last step to the answer */
    st = op == LW_OP_ENCODE     ? take_encode(h, s, t, m, &err)
         : op == LW_OP_TOKENIZE ? take_tokens(t, m, &err)
         : op == LW_OP_DECODE   ? take_image(t, m, &err)
                                : take_latents(h, t, m, &err);
    lw_hub_task_detach(t);
    if (st != LW_OK) {
        lw_hub_job_fail(h, j, &err, t, s->name); /* frees t */
        return;
    }
    if (op != LW_OP_ENCODE)
        lw_kept_stage_add(&j->stages[op], &s->contract, s->name, lw_msg_get(m, t_ms, 0));
    lw_hub_task_free(h, t);
    if (op == LW_OP_ENCODE)
        lw_hub_job_text_done(h, j);
    else if (op == LW_OP_TOKENIZE)
        lw_hub_job_tokens_done(h, j);
    for (int i = first; op != LW_OP_ENCODE && i < first + count && !j->final; i++)
        if (op == LW_OP_DECODE)
            lw_hub_job_image_done(h, j, i);
        else
            lw_hub_job_latents_done(h, j, i);
}

static void take_error(lw_hub *h, lw_hub_session *s, lw_hub_task *t, const lw_msg *m)
{
    lw_err err = { 0 };

    lw_fail(&err, lw_msg_get(m, code, LW_E_INTERNAL), "%s", lw_msg_get(m, message, "no message"));
    if (err.code == LW_OK)
        err.code = LW_E_INTERNAL;
    if (err.code == LW_E_UNAVAILABLE || err.code == LW_E_EXHAUSTED)
        s->credits = 0; /* it takes nothing now; its next CREDIT or HEARTBEAT tells */
    if (!t->job) {
        lw_hub_task_free(h, t);
    } else if (lw_msg_get(m, retryable, lw_status_retryable(err.code))) {
        lw_hub_task_retry(h, t, false, &err);
    } else {
        lw_hub_task_detach(t);
        lw_hub_job_fail(h, t->job, &err, t, s->name); /* frees t */
    }
}

static void take_cancelled(lw_hub *h, lw_hub_session *s, lw_hub_task *t)
{
    lw_err why = { 0 };

    if (!t->job) {
        lw_hub_task_free(h, t);
        return;
    }
    lw_fail(&why, LW_E_UNAVAILABLE, "%s gave the task up", s->name);
    lw_hub_task_retry(h, t, false, &why);
}

void lw_hub_worker_answer(lw_hub *h, lw_hub_session *s, const lw_msg *m)
{
    lw_hub_task *t = m->has_id ? find_task(s, m->id) : NULL;

    if (!t) {
        h->count.late_dropped += m->has_id;
        if (m->type == LW_MSG_ERROR && !m->has_id && lw_hub_may_log(h))
            lw_log(LW_WARN, "a worker complains", LW_KV_STR("worker", s->name),
                   LW_KV_STR("message", lw_msg_get(m, message, "")));
        return;
    }
    t->idle_beats = 0;
    switch (m->type) {
    case LW_MSG_PROGRESS:
        take_progress(h, t, m);
        break;
    case LW_MSG_PREVIEW:
        if (t->job)
            lw_hub_job_mail(h, t->job, t, m);
        break;
    case LW_MSG_RESULT:
        take_result(h, s, t, m);
        break;
    case LW_MSG_ERROR:
        take_error(h, s, t, m);
        break;
    case LW_MSG_CANCELLED:
        take_cancelled(h, s, t);
        break;
    default:
        break;
    }
}

void lw_hub_worker_garbled(lw_hub *h, lw_hub_session *s, const lw_msg *m, const lw_err *why)
{
    lw_hub_task *t = m->has_id ? find_task(s, m->id) : NULL;
    lw_err err = { 0 };

    if (!t || (m->type != LW_MSG_RESULT && m->type != LW_MSG_ERROR && m->type != LW_MSG_CANCELLED))
        return;
    if (!t->job) {
        lw_hub_task_free(h, t);
        return;
    }
    lw_fail(&err, LW_E_INTERNAL, "%s answered with a damaged message: %s", s->name, why->text);
    lw_hub_task_retry(h, t, false, &err);
}

/* ---- the end of a worker ---- */

void lw_hub_worker_tasks_return(lw_hub *h, lw_hub_session *s)
{
    lw_hub_task *running = s->has_in_flight ? find_task(s, s->in_flight) : NULL;
    lw_err why = { 0 };

    /* A heartbeat may not have told yet which one it works on; then it is the oldest. */
    if (!running && s->n_tasks)
        running = s->tasks[0];
    lw_fail(&why, LW_E_UNAVAILABLE, "%s was lost: %s", s->name, s->gone_why);
    while (s->n_tasks) {
        lw_hub_task *t = s->tasks[s->n_tasks - 1]; /* the last first: they queue up in front */

        lw_hub_task_retry(h, t, !s->said_bye && t == running, &why);
    }
}
