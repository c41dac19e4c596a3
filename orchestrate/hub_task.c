/*
 * Tasks: waiting in the queue of their role, given to a worker that has a free slot, given to
 * another when that one fails.
 */

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "orchestrate/hub_state.h"

/* ---- making and unmaking ---- */

static void enqueue(lw_hub *h, lw_hub_task *t, bool front)
{
    const lw_role role = lw_op_role(t->op);
    lw_queue_lane *lane = &t->job->client->lanes[role];

    t->queued_ms = h->now_ms;
    (front ? lw_queue_push_front : lw_queue_push)(&h->queues[role], lane, &t->item);
}

lw_hub_task *lw_hub_task_new(lw_hub *h, lw_hub_job *j, lw_op op, int text, int first, int count)
{
    lw_hub_task *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    t->job = j;
    t->op = op;
    t->text = text;
    t->first = first;
    t->count = count;
    t->next = j->tasks;
    j->tasks = t;
    enqueue(h, t, false);
    return t;
}

void lw_hub_task_detach(lw_hub_task *t)
{
    lw_hub_session *s = t->worker;

    for (int i = 0; s && i < s->n_tasks; i++)
        if (s->tasks[i] == t) {
            memmove(&s->tasks[i], &s->tasks[i + 1],
                    (size_t)(s->n_tasks - i - 1) * sizeof(s->tasks[0]));
            s->n_tasks--;
            break;
        }
    t->worker = NULL;
}

static void leave_job(lw_hub_task *t)
{
    lw_hub_task **link;

    if (!t->job)
        return;
    for (link = &t->job->tasks; *link != t; link = &(*link)->next)
        ;
    *link = t->next;
    t->next = NULL;
    t->job = NULL;
}

void lw_hub_task_free(lw_hub *h, lw_hub_task *t)
{
    lw_hub_task_detach(t);
    lw_queue_remove(&h->queues[lw_op_role(t->op)], &t->item);
    leave_job(t);
    lw_held_drop(&t->checkpoint);
    free(t);
}

void lw_hub_task_abandon(lw_hub *h, lw_hub_task *t)
{
    lw_msg m;

    if (!t->worker) {
        lw_hub_task_free(h, t);
        return;
    }
    leave_job(t);
    lw_held_drop(&t->checkpoint);
    lw_msg_init(&m, LW_MSG_CANCEL, t->id);
    (void)!lw_hub_send(h, t->worker, &m); /* not delivered: the worker computes in vain */
}

/* ---- another try ---- */

void lw_hub_task_retry(lw_hub *h, lw_hub_task *t, bool death, const lw_err *why)
{
    const lw_hub_session *s = t->worker;
    lw_hub_job *j = t->job;
    lw_err err = *why;

    lw_hub_task_detach(t);
    if (!j) {
        lw_hub_task_free(h, t);
        return;
    }
    t->deaths += death;
    if (t->deaths >= LW_HUB_MAX_DEATHS) {
        lw_fail(&err, LW_E_UNAVAILABLE,
                "%d workers were lost over this task, so it is not given to another; the last: %s",
                t->deaths, why->text);
    } else if (t->attempt == LW_HUB_MAX_RETRIES) {
        lw_fail(&err, why->code, "tried %d times; the last: %s", t->attempt + 1, why->text);
    } else {
        t->excluded[t->n_excluded++] = s->epoch;
        t->attempt++;
        h->count.retries++;
        lw_log(LW_WARN, "task is tried again", LW_KV_REQ("job", j->id),
               LW_KV_STR("op", lw_op_name(t->op)), LW_KV_INT("attempt", t->attempt),
               LW_KV_INT("from_step", (int64_t)t->checkpoint_step), LW_KV_STR("why", why->text));
        enqueue(h, t, true);
        return;
    }
    lw_hub_job_fail(h, j, &err, t, s->name); /* frees t */
}

/* ---- the message ---- */

double lw_hub_task_cost(const lw_hub_task *t)
{
    double pixels = t->job ? (double)t->job->width * t->job->height : 0;

    return t->op == LW_OP_ENCODE || t->op == LW_OP_TOKENIZE || pixels < 65536 ? 1 : pixels / 65536;
}

#define COPY(m)                                                                                    \
    if (lw_msg_has(r, m))                                                                          \
    lw_msg_set(ret, m, r->m)

/* What is done to the rows of the prompt is no business of the negative one. */
static void describe_prompt_only(const lw_hub_job *j, lw_msg *ret)
{
    const lw_msg *r = &j->request.msg;

    COPY(weighting);
    COPY(blend_prompt);
    COPY(blend_share);
    if (lw_msg_get(r, noise, 0) == 0)
        return;
    COPY(noise);
    lw_msg_set(ret, noise_seed, lw_msg_get(r, noise_seed, j->seed));
}

static void describe_text(const lw_hub_job *j, int text, lw_msg *ret)
{
    const lw_msg *r = &j->request.msg;
    const bool negative = text == LW_NEGATIVE;

    lw_msg_set(ret, prompt,
               negative ? lw_msg_get(r, negative_prompt, "") : lw_msg_get(r, prompt, ""));
    COPY(system_prompt);
    COPY(thinking);
    COPY(assistant);
    COPY(think_block);
    COPY(layer);
    COPY(max_tokens);
    COPY(messages);
    COPY(layer_blend);
    COPY(long_prompt);
    if (!negative)
        describe_prompt_only(j, ret);
    /* Nothing would be left of an empty text. */
    if (lw_msg_has(r, keep) && (!negative || ret->prompt[0] || strcmp(r->keep, "prompt") != 0))
        lw_msg_set(ret, keep, r->keep);
    /* An empty negative text goes through the template even when the prompt is given raw: a text
     * of no tokens means nothing to an encoder. */
    if (lw_msg_has(r, raw) && (!negative || ret->prompt[0]))
        lw_msg_set(ret, raw, r->raw);
}

static lw_status describe_denoise(const lw_hub *h, const lw_hub_task *t, lw_msg *ret, lw_err *err)
{
    const lw_hub_job *j = t->job;
    const lw_msg *r = &j->request.msg;

    lw_msg_set(ret, width, (uint64_t)j->width);
    lw_msg_set(ret, height, (uint64_t)j->height);
    lw_msg_set(ret, steps, (uint64_t)j->steps);
    lw_msg_set(ret, seed, j->seed + (uint64_t)t->first);
    lw_msg_set(ret, n, (uint64_t)t->count);
    lw_msg_set(ret, guidance, j->guidance);
    COPY(cfg_normalization);
    COPY(cfg_truncation);
    COPY(shift);
    COPY(sigmas);
    COPY(preview_every);
    if (t->count == 1 && h->p.checkpoint_every > 0)
        lw_msg_set(ret, checkpoint_every, (uint64_t)h->p.checkpoint_every);
    LW_TRY(lw_held_add(&j->embeds[LW_POSITIVE].rows, ret, LW_T_PROMPT_EMBEDS, err));
    if (j->guidance > 0)
        LW_TRY(lw_held_add(&j->embeds[LW_NEGATIVE].rows, ret, LW_T_NEGATIVE_EMBEDS, err));
    if (t->checkpoint_step) {
        lw_msg_set(ret, start_step, t->checkpoint_step);
        LW_TRY(lw_held_add(&t->checkpoint, ret, LW_T_LATENTS, err));
    }
    return LW_OK;
}

lw_status lw_hub_task_message(const lw_hub *h, const lw_hub_task *t, lw_msg *ret, lw_err *err)
{
    const lw_hub_job *j = t->job;
    const lw_msg *r = &j->request.msg;

    lw_msg_init(ret, LW_MSG_TASK, t->id);
    lw_msg_set(ret, op, t->op);
    lw_msg_set(ret, attempt, (uint64_t)t->attempt);
    switch (t->op) {
    case LW_OP_ENCODE:
    case LW_OP_TOKENIZE:
        describe_text(j, t->text, ret);
        return LW_OK;
    case LW_OP_DENOISE:
        return describe_denoise(h, t, ret, err);
    case LW_OP_DECODE:
        lw_msg_set(ret, width, (uint64_t)j->width);
        lw_msg_set(ret, height, (uint64_t)j->height);
        COPY(tile);
        return lw_held_add(&j->pictures[t->first].latents, ret, LW_T_LATENTS, err);
    default:
        COPY(tile);
        return lw_held_add(&j->pictures[t->first].image, ret, LW_T_IMAGE, err);
    }
}

/* ---- giving out ---- */

static bool excludes(const lw_hub_task *t, const lw_hub_session *s)
{
    for (int i = 0; i < t->n_excluded; i++)
        if (t->excluded[i] == s->epoch)
            return true;
    return false;
}

static int free_slots(const lw_hub_session *s)
{
    int n = s->slots - s->n_tasks;

    return n < s->credits ? n : s->credits;
}

/*
 * The least loaded worker, the one idle for longest among equals. A worker that failed the task
 * before is taken only when there is no other, busy or not.
 */
static lw_hub_session *pick_worker(const lw_hub *h, const lw_hub_task *t)
{
    const lw_role role = lw_op_role(t->op);
    lw_hub_session *best = NULL;
    bool others = false;

    for (int i = 0; i < h->n_sessions[LW_BACKEND]; i++) {
        const lw_hub_session *s = h->sessions[LW_BACKEND][i];

        others = others || (s->role == role && lw_hub_worker_usable(s) && !excludes(t, s));
    }
    for (int i = 0; i < h->n_sessions[LW_BACKEND]; i++) {
        lw_hub_session *s = h->sessions[LW_BACKEND][i];

        if (s->role != role || !lw_hub_worker_usable(s) || free_slots(s) <= 0 ||
            (others && excludes(t, s)))
            continue;
        if (!best || s->n_tasks < best->n_tasks ||
            (s->n_tasks == best->n_tasks && s->last_used < best->last_used))
            best = s;
    }
    return best;
}

/*
 * Embeddings are large and made much faster than they are used up: no new text is encoded while
 * enough of them wait for the denoisers. What is asked for as embeddings leaves at once.
 */
static bool denoisers_keep_up(const lw_hub *h, const lw_hub_task *t)
{
    int slots = 0, coming = 0;

    if (t->job->to == LW_ARTEFACT_EMBEDS)
        return true;
    for (int i = 0; i < h->n_sessions[LW_BACKEND]; i++) {
        const lw_hub_session *s = h->sessions[LW_BACKEND][i];

        if (s->role == LW_ROLE_DENOISER && lw_hub_worker_usable(s))
            slots += s->slots;
        if (s->role == LW_ROLE_ENCODER)
            coming += s->n_tasks;
    }
    return (int)h->queues[LW_ROLE_DENOISER].n + coming < 2 * slots + 2;
}

typedef struct choice {
    const lw_hub *h;
    lw_hub_session *worker;
} choice;

static bool can_go(const lw_queue_item *item, void *arg)
{
    const lw_hub_task *t = (const lw_hub_task *)item;
    choice *c = arg;

    if (t->op == LW_OP_ENCODE && !denoisers_keep_up(c->h, t))
        return false;
    c->worker = pick_worker(c->h, t);
    return c->worker != NULL;
}

/* Inputs were checked against the workers there were at SUBMIT; others may have come since. */
static lw_status check_fit(const lw_hub_task *t, const lw_hub_session *s, lw_err *err)
{
    const lw_hub_job *j = t->job;
    const lw_held *rows = &j->embeds[LW_POSITIVE].rows;
    const lw_held *latents = t->op == LW_OP_DECODE ? &j->pictures[t->first].latents : NULL;

    if (t->op == LW_OP_DENOISE && rows->t.shape[1] != (int64_t)s->contract.cap_dim)
        return lw_fail(err, LW_E_PRECONDITION,
                       "the embeddings have dim %lld, the denoiser takes cap_dim %llu",
                       (long long)rows->t.shape[1], (unsigned long long)s->contract.cap_dim);
    if (latents && latents->t.shape[1] != (int64_t)s->contract.latent_channels)
        return lw_fail(
            err, LW_E_PRECONDITION, "the latents have %lld channels, the decoder takes %llu",
            (long long)latents->t.shape[1], (unsigned long long)s->contract.latent_channels);
    return LW_OK;
}

/* The same text may have been encoded for another job since this task was queued. */
static bool found_in_cache(lw_hub *h, lw_hub_task *t, const lw_hub_session *s, const lw_msg *m)
{
    lw_hub_job *j = t->job;
    lw_embedding_key key = lw_embedding_key_of(&s->contract, m);

    if (!lw_embedding_cache_get(h->cache, &key, &j->embeds[t->text]))
        return false;
    lw_hub_task_free(h, t);
    lw_hub_job_text_done(h, j);
    return true;
}

static void give(lw_hub *h, lw_hub_task *t, lw_hub_session *s)
{
    lw_err err = { 0 };
    lw_status st;
    lw_msg m;

    h->io.random(h->io.ctx, t->id, sizeof(t->id));
    st = check_fit(t, s, &err);
    if (st == LW_OK)
        st = lw_hub_task_message(h, t, &m, &err);
    if (st != LW_OK) {
        lw_hub_job_fail(h, t->job, &err, t, ""); /* frees t */
        return;
    }
    if (t->op == LW_OP_ENCODE && found_in_cache(h, t, s, &m))
        return;
    st = lw_hub_send(h, s, &m);
    if (st == LW_E_EXHAUSTED)
        s->credits = 0; /* its queue is full, whatever it said; the next CREDIT tells */
    if (st == LW_E_EXHAUSTED || st == LW_E_UNAVAILABLE) {
        enqueue(h, t, true);
        return;
    }
    if (st != LW_OK) {
        lw_fail(&err, st, "the task cannot be sent to %s", s->name);
        lw_hub_job_fail(h, t->job, &err, t, s->name);
        return;
    }
    h->count.tasks_sent++;
    t->worker = s;
    t->sent_ms = t->moved_ms = h->now_ms;
    t->step = t->checkpoint_step;
    t->idle_beats = 0;
    s->tasks[s->n_tasks++] = t;
    s->last_used = ++h->serial;
}

void lw_hub_dispatch(lw_hub *h)
{
    static const lw_role roles[] = { LW_ROLE_DECODER, LW_ROLE_DENOISER, LW_ROLE_ENCODER };

    for (size_t i = 0; i < LW_ARRAY_LEN(roles); i++) {
        choice c = { .h = h };
        lw_queue_item *item;

        while ((item = lw_queue_take(&h->queues[roles[i]], can_go, &c)))
            give(h, (lw_hub_task *)item, c.worker);
    }
}
