/*
 * The pipeline of a job. Each picture goes its own way: it is decoded as soon as its latents are
 * there, while others are still being denoised.
 *
 *     prompt --encode--> embeds --denoise--> latents --decode--> image
 *       |                                       ^--encode_image--'
 *       '--tokenize--> token_ids
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "orchestrate/hub_state.h"

lw_hub_job *lw_hub_job_find(lw_hub *h, const uint8_t *id)
{
    lw_hub_job *j = h->jobs;

    while (j && memcmp(j->id, id, sizeof(j->id)))
        j = j->next;
    return j;
}

/* ---- the end ---- */

/* The final answer is decided once; whatever arrives later finds no task to belong to. */
static void end(lw_hub *h, lw_hub_job *j, lw_msg_type final)
{
    j->final = final;
    j->progress.waiting = false;
    j->preview.waiting = false;
    lw_held_drop(&j->preview.tensor);
    while (j->tasks)
        lw_hub_task_abandon(h, j->tasks);
    for (int i = 0; i < j->n; i++) {
        lw_held_drop(&j->pictures[i].image);
        lw_held_drop(&j->pictures[i].latents);
    }
    if (final != LW_MSG_RESULT || j->to != LW_ARTEFACT_EMBEDS) {
        lw_held_drop(&j->embeds[LW_POSITIVE].rows);
        lw_held_drop(&j->embeds[LW_NEGATIVE].rows);
    }
    h->count.jobs_done += final == LW_MSG_RESULT;
    h->count.jobs_failed += final == LW_MSG_ERROR;
    h->count.jobs_cancelled += final == LW_MSG_CANCELLED;
    lw_log(final == LW_MSG_ERROR ? LW_WARN : LW_INFO, "job ended", LW_KV_REQ("job", j->id),
           LW_KV_STR("answer", lw_msg_type_name(final)), LW_KV_STR("client", j->client->name),
           LW_KV_INT("pictures", j->n_done), LW_KV_INT("ms", h->now_ms - j->accepted_ms),
           LW_KV_STR("why", final == LW_MSG_ERROR ? j->err.text : j->reason));
}

void lw_hub_job_fail(lw_hub *h, lw_hub_job *j, const lw_err *err, const lw_hub_task *t,
                     const char *worker)
{
    if (j->final)
        return;
    j->err = *err;
    j->err_retryable = lw_status_retryable(err->code) != 0;
    if (t) {
        j->err_op = t->op;
        j->err_attempt = t->attempt;
    }
    snprintf(j->err_worker, sizeof(j->err_worker), "%s", worker ? worker : "");
    end(h, j, LW_MSG_ERROR);
}

void lw_hub_job_cancel(lw_hub *h, lw_hub_job *j, const char *reason)
{
    if (j->final)
        return;
    snprintf(j->reason, sizeof(j->reason), "%s", reason);
    end(h, j, LW_MSG_CANCELLED);
}

static void fail_nomem(lw_hub *h, lw_hub_job *j)
{
    lw_err err = { 0 };

    lw_fail(&err, LW_E_NOMEM, "the hub ran out of memory for this job");
    lw_hub_job_fail(h, j, &err, NULL, NULL);
}

static void finish(lw_hub *h, lw_hub_job *j)
{
    lw_status st = LW_OK;
    lw_err err = { 0 };

    if (j->to == LW_ARTEFACT_LATENTS)
        st = lw_held_join(&j->out_latents, &j->pictures[0].latents, sizeof(j->pictures[0]), j->n,
                          &err);
    if (j->to == LW_ARTEFACT_IMAGE)
        st = lw_held_join(&j->out_image, &j->pictures[0].image, sizeof(j->pictures[0]), j->n, &err);
    if (st == LW_OK)
        end(h, j, LW_MSG_RESULT);
    else
        lw_hub_job_fail(h, j, &err, NULL, NULL);
}

void lw_hub_job_free(lw_hub *h, lw_hub_job *j)
{
    lw_hub_job **link = &h->jobs;

    while (*link != j)
        link = &(*link)->next;
    *link = j->next;
    if (h->jobs_end == &j->next)
        h->jobs_end = link;
    h->n_jobs--;
    h->reserved_bytes -= j->reserved_bytes;
    j->client->reserved_bytes -= j->reserved_bytes;
    while (j->tasks)
        lw_hub_task_abandon(h, j->tasks);
    for (int i = 0; j->pictures && i < j->n; i++) {
        lw_held_drop(&j->pictures[i].image);
        lw_held_drop(&j->pictures[i].latents);
    }
    for (int i = 0; i < LW_N_TEXTS; i++)
        lw_embeds_drop(&j->embeds[i]);
    lw_held_drop(&j->out_latents);
    lw_held_drop(&j->out_image);
    lw_kept_drop(&j->out_tokens);
    lw_held_drop(&j->preview.tensor);
    lw_delivery_drop(&j->preview.delivery);
    lw_delivery_drop(&j->delivery);
    lw_kept_drop(&j->request);
    free(j->pictures);
    free(j);
}

/* ---- stage by stage ---- */

static void denoise(lw_hub *h, lw_hub_job *j)
{
    for (int i = 0; i < j->n && !j->final; i += h->p.batch) {
        int count = j->n - i < h->p.batch ? j->n - i : h->p.batch;

        if (!lw_hub_task_new(h, j, LW_OP_DENOISE, 0, i, count))
            fail_nomem(h, j);
    }
}

void lw_hub_job_text_done(lw_hub *h, lw_hub_job *j)
{
    const lw_embeds *shown = &j->embeds[j->needs[LW_POSITIVE] ? LW_POSITIVE : LW_NEGATIVE];

    for (int i = 0; i < LW_N_TEXTS; i++)
        if (j->needs[i] && !lw_held_present(&j->embeds[i].rows))
            return;
    if (shown->stage.ran)
        j->stages[LW_OP_ENCODE] = shown->stage;
    if (j->to == LW_ARTEFACT_EMBEDS)
        finish(h, j);
    else
        denoise(h, j);
}

void lw_hub_job_tokens_done(lw_hub *h, lw_hub_job *j)
{
    finish(h, j);
}

static void picture_done(lw_hub *h, lw_hub_job *j, int picture)
{
    if (j->pictures[picture].done)
        return;
    j->pictures[picture].done = true;
    if (++j->n_done == j->n)
        finish(h, j);
}

void lw_hub_job_latents_done(lw_hub *h, lw_hub_job *j, int picture)
{
    if (j->to == LW_ARTEFACT_LATENTS) {
        lw_held_drop(&j->pictures[picture].image);
        picture_done(h, j, picture);
    } else if (!lw_hub_task_new(h, j, LW_OP_DECODE, 0, picture, 1)) {
        fail_nomem(h, j);
    }
}

void lw_hub_job_image_done(lw_hub *h, lw_hub_job *j, int picture)
{
    lw_held_drop(&j->pictures[picture].latents);
    picture_done(h, j, picture);
}

/* ---- the beginning ---- */

/* Ask for what encoders like those that are here made of the text before. */
static bool known_text(lw_hub *h, lw_hub_job *j, int text)
{
    lw_hub_task like = { .job = j, .op = LW_OP_ENCODE, .text = text };
    lw_msg m;

    if (lw_hub_task_message(h, &like, &m, NULL) != LW_OK)
        return false;
    for (int i = 0; i < h->n_sessions[LW_BACKEND]; i++) {
        const lw_hub_session *s = h->sessions[LW_BACKEND][i];
        lw_embedding_key key;

        if (s->role != LW_ROLE_ENCODER || s->gone)
            continue;
        key = lw_embedding_key_of(&s->contract, &m);
        if (lw_embedding_cache_get(h->cache, &key, &j->embeds[text]))
            return true;
    }
    return false;
}

static void start_tokens(lw_hub *h, lw_hub_job *j)
{
    if (!lw_hub_task_new(h, j, LW_OP_TOKENIZE, LW_POSITIVE, 0, 0))
        fail_nomem(h, j);
}

static void start_texts(lw_hub *h, lw_hub_job *j)
{
    static const char *const names[] = { LW_T_PROMPT_EMBEDS, LW_T_NEGATIVE_EMBEDS };
    bool encoding = false;

    for (int i = 0; i < LW_N_TEXTS; i++) {
        const lw_held *given = lw_kept_find(&j->request, names[i]);

        if (given)
            lw_held_copy(&j->embeds[i].rows, given);
        if (!j->needs[i] || known_text(h, j, i))
            continue;
        encoding = true;
        if (!lw_hub_task_new(h, j, LW_OP_ENCODE, i, 0, 0)) {
            fail_nomem(h, j);
            return;
        }
    }
    if (!encoding)
        lw_hub_job_text_done(h, j);
}

static void start_pictures(lw_hub *h, lw_hub_job *j)
{
    const bool image = j->from == LW_ARTEFACT_IMAGE;
    const lw_held *given = lw_kept_find(&j->request, image ? LW_T_IMAGE : LW_T_LATENTS);

    for (int i = 0; i < j->n && !j->final; i++) {
        lw_hub_picture *p = &j->pictures[i];

        if (lw_held_item(image ? &p->image : &p->latents, given, i, NULL) != LW_OK ||
            !lw_hub_task_new(h, j, image ? LW_OP_ENCODE_IMAGE : LW_OP_DECODE, 0, i, 1))
            fail_nomem(h, j);
    }
}

void lw_hub_job_start(lw_hub *h, lw_hub_job *j)
{
    if (j->to == LW_ARTEFACT_TOKEN_IDS)
        start_tokens(h, j);
    else if (j->from == LW_ARTEFACT_PROMPT || j->from == LW_ARTEFACT_EMBEDS)
        start_texts(h, j);
    else
        start_pictures(h, j);
    for (int i = 0; i < j->request.n_tensors; i++)
        lw_held_drop(&j->request.tensors[i].held);
    j->request.n_tensors = 0;
}

/* ---- waiting ---- */

bool lw_hub_job_running(const lw_hub_job *j)
{
    for (const lw_hub_task *t = j->tasks; t; t = t->next)
        if (t->worker)
            return true;
    return false;
}

unsigned lw_hub_job_roles(const lw_hub_job *j)
{
    const bool texts = j->from == LW_ARTEFACT_PROMPT || j->from == LW_ARTEFACT_EMBEDS;
    unsigned roles = 0;

    for (int i = 0; i < LW_N_TEXTS; i++)
        if (j->needs[i] && !lw_held_present(&j->embeds[i].rows))
            roles |= 1u << LW_ROLE_ENCODER;
    for (int i = 0; lw_hub_job_draws(j) && i < j->n; i++) {
        const lw_hub_picture *p = &j->pictures[i];

        if (p->done)
            continue;
        if (texts && !lw_held_present(&p->latents))
            roles |= 1u << LW_ROLE_DENOISER;
        if (!texts || j->to == LW_ARTEFACT_IMAGE)
            roles |= 1u << LW_ROLE_DECODER;
    }
    return roles;
}

static const char *program_of(lw_role role)
{
    return role == LW_ROLE_ENCODER    ? "encoder-svc"
           : role == LW_ROLE_DENOISER ? "dit-svc"
                                      : "vae-svc";
}

static void fail_unserved(lw_hub *h, lw_hub_job *j)
{
    const unsigned roles = lw_hub_job_roles(j);

    for (int role = LW_ROLE_ENCODER; role <= LW_ROLE_DECODER; role++) {
        int64_t since =
            h->role_seen_ms[role] > j->accepted_ms ? h->role_seen_ms[role] : j->accepted_ms;
        lw_err err = { 0 };

        if (!(roles & 1u << role) || h->now_ms - since < h->p.wait_ms)
            continue;
        lw_fail(&err, LW_E_UNAVAILABLE,
                "no %s has been there for %lld s; start one: %s --model DIR --hub BACKEND",
                lw_role_name((lw_role)role), (long long)((h->now_ms - since) / 1000),
                program_of((lw_role)role));
        lw_hub_job_fail(h, j, &err, NULL, NULL);
        return;
    }
}

/* A job that computes is left alone: the missing worker may be back when it is needed. */
void lw_hub_jobs_tick(lw_hub *h)
{
    for (int i = 0; i < h->n_sessions[LW_BACKEND]; i++) {
        const lw_hub_session *s = h->sessions[LW_BACKEND][i];

        if (lw_hub_worker_usable(s))
            h->role_seen_ms[s->role] = h->now_ms;
    }
    for (lw_hub_job *j = h->jobs; j; j = j->next)
        if (!j->final && !lw_hub_job_running(j))
            fail_unserved(h, j);
}
