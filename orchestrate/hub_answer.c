/*
 * What a job's client gets to see. ACCEPTED and the final answer are sent until they are delivered
 * or the client is gone; of progress and previews a client that does not keep up gets the newest.
 */

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "orchestrate/hub_state.h"

/* ---- progress and previews ---- */

void lw_hub_job_mail(lw_hub *h, lw_hub_job *j, const lw_hub_task *t, const lw_msg *m)
{
    const bool preview = m->type == LW_MSG_PREVIEW;
    lw_hub_mail *mail = preview ? &j->preview : &j->progress;

    if (preview) {
        if (m->n_tensors != 1 || lw_held_take(&mail->tensor, &m->tensors[0], NULL) != LW_OK)
            return;
        h->count.previews_dropped += mail->waiting;
        memcpy(mail->tensor_name, m->tensors[0].name, sizeof(mail->tensor_name));
    }
    mail->waiting = true;
    mail->type = m->type;
    mail->op = t->op;
    mail->attempt = (uint64_t)t->attempt;
    mail->picture = (uint64_t)t->first + lw_msg_get(m, picture, 0);
    mail->step = lw_msg_get(m, step, 0);
    mail->total = lw_msg_get(m, total, 0);
    mail->has_sigma = lw_msg_has(m, sigma);
    mail->sigma = lw_msg_get(m, sigma, 0);
    mail->has_t_ms = lw_msg_has(m, t_ms);
    mail->t_ms = lw_msg_get(m, t_ms, 0);
    snprintf(mail->worker, sizeof(mail->worker), "%s", t->worker ? t->worker->name : "");
    if (!preview) {
        j->last_op = t->op;
        j->last_step = mail->step;
        j->last_total = mail->total;
    }
}

static void describe_mail(const lw_hub_job *j, const lw_hub_mail *mail, lw_msg *m)
{
    lw_msg_init(m, mail->type, j->id);
    lw_msg_set(m, op, mail->op);
    lw_msg_set(m, attempt, mail->attempt);
    lw_msg_set(m, picture, mail->picture);
    lw_msg_set(m, step, mail->step);
    if (mail->total)
        lw_msg_set(m, total, mail->total);
    if (mail->type != LW_MSG_PROGRESS)
        return;
    lw_msg_set(m, worker, mail->worker);
    if (mail->has_sigma)
        lw_msg_set(m, sigma, mail->sigma);
    if (mail->has_t_ms)
        lw_msg_set(m, t_ms, mail->t_ms);
}

/* True when it is delivered, or can never be. */
static bool send_progress(lw_hub *h, lw_hub_job *j)
{
    lw_msg m;

    if (!j->progress.waiting)
        return true;
    describe_mail(j, &j->progress, &m);
    if (lw_hub_send(h, j->client, &m) == LW_E_EXHAUSTED)
        return false;
    j->progress.waiting = false;
    return true;
}

static bool send_preview(lw_hub *h, lw_hub_job *j)
{
    lw_hub_mail *mail = &j->preview;
    lw_status st = LW_E_NOMEM;
    lw_msg m;

    if (!mail->waiting)
        return true;
    if (mail->delivery && !lw_delivery_done(mail->delivery))
        return false;
    if (!mail->delivery)
        mail->delivery = lw_delivery_new();
    if (mail->delivery)
        st = lw_held_track(&mail->tensor, mail->delivery, NULL);
    describe_mail(j, mail, &m);
    if (st == LW_OK)
        st = lw_held_add(&mail->tensor, &m, mail->tensor_name, NULL);
    if (st == LW_OK)
        st = lw_hub_send(h, j->client, &m);
    h->count.previews_dropped += st != LW_OK;
    mail->waiting = false;
    lw_held_drop(&mail->tensor);
    return true;
}

/* ---- final answers ---- */

/* What the encoder said of the prompt. */
static lw_status describe_text(const lw_embeds *text, lw_msg *m, lw_err *err)
{
    lw_msg_set(m, n_tokens, text->n_tokens);
    lw_msg_set(m, truncated, text->truncated);
    lw_msg_set(m, text_digest, text->text_digest);
    if (text->n_text_tokens)
        lw_msg_set(m, n_text_tokens, text->n_text_tokens);
    if (text->n_rows)
        lw_msg_set(m, n_rows, text->n_rows);
    if (text->reduced)
        lw_msg_set(m, row_loss, text->row_loss);
    if (text->cut_text[0])
        lw_msg_set(m, cut_text, text->cut_text);
    return lw_held_present(&text->ids) ? lw_held_add(&text->ids, m, LW_T_TOKEN_IDS, err) : LW_OK;
}

static lw_status describe_tokens(const lw_kept *tokens, lw_msg *m, lw_err *err)
{
    const lw_msg *r = &tokens->msg;

    if (lw_msg_has(r, n_tokens))
        lw_msg_set(m, n_tokens, r->n_tokens);
    if (lw_msg_has(r, n_text_tokens))
        lw_msg_set(m, n_text_tokens, r->n_text_tokens);
    if (lw_msg_has(r, truncated))
        lw_msg_set(m, truncated, r->truncated);
    if (lw_msg_has(r, text_digest))
        lw_msg_set(m, text_digest, r->text_digest);
    if (lw_msg_has(r, cut_text))
        lw_msg_set(m, cut_text, r->cut_text);
    for (int i = 0; i < tokens->n_tensors; i++)
        LW_TRY(lw_held_add(&tokens->tensors[i].held, m, tokens->tensors[i].name, err));
    return LW_OK;
}

static lw_status describe_result(const lw_hub *h, const lw_hub_job *j, lw_msg *m, lw_err *err)
{
    const lw_msg *r = &j->request.msg;
    const lw_embeds *text = &j->embeds[LW_POSITIVE];
    const bool denoised =
        lw_hub_job_draws(j) && (j->from == LW_ARTEFACT_PROMPT || j->from == LW_ARTEFACT_EMBEDS);

    lw_msg_set(m, to, j->to);
    lw_msg_set(m, t_ms, (double)(h->now_ms - j->accepted_ms));
    if (lw_hub_job_draws(j)) {
        lw_msg_set(m, width, (uint64_t)j->width);
        lw_msg_set(m, height, (uint64_t)j->height);
        lw_msg_set(m, n, (uint64_t)j->n);
    }
    if (denoised) {
        lw_msg_set(m, steps, (uint64_t)j->steps);
        lw_msg_set(m, seed, j->seed);
        lw_msg_set(m, guidance, j->guidance);
        if (lw_msg_has(r, shift))
            lw_msg_set(m, shift, r->shift);
        if (j->n_sigmas)
            lw_msg_set(m, sigmas, ((lw_f64s){ .v = j->sigmas, .n = j->n_sigmas }));
    }
    if (j->to == LW_ARTEFACT_TOKEN_IDS)
        LW_TRY(describe_tokens(&j->out_tokens, m, err));
    else if (j->needs[LW_POSITIVE])
        LW_TRY(describe_text(text, m, err));
    for (int op = LW_OP_NONE + 1; op < LW_N_OPS; op++)
        lw_kept_stage_get(&j->stages[op], &m->stages.by_op[op]);
    lw_msg_mark(m, stages);
    if (j->to == LW_ARTEFACT_IMAGE)
        return lw_held_add(&j->out_image, m, LW_T_IMAGE, err);
    if (j->to == LW_ARTEFACT_LATENTS)
        return lw_held_add(&j->out_latents, m, LW_T_LATENTS, err);
    if (lw_held_present(&text->rows))
        LW_TRY(lw_held_add(&text->rows, m, LW_T_PROMPT_EMBEDS, err));
    if (lw_held_present(&j->embeds[LW_NEGATIVE].rows))
        LW_TRY(lw_held_add(&j->embeds[LW_NEGATIVE].rows, m, LW_T_NEGATIVE_EMBEDS, err));
    return LW_OK;
}

static void describe_error(const lw_hub_job *j, lw_msg *m)
{
    lw_msg_error(m, j->id, &j->err);
    lw_msg_set(m, retryable, j->err_retryable);
    if (j->err_op)
        lw_msg_set(m, op, j->err_op);
    if (j->err_attempt)
        lw_msg_set(m, attempt, (uint64_t)j->err_attempt);
    if (j->err_worker[0])
        lw_msg_set(m, worker, j->err_worker);
}

/* The tensors of a result are part of the job's budget until they have left. */
static lw_status track_result(lw_hub_job *j, lw_err *err)
{
    lw_held *parts[] = { &j->out_image, &j->out_latents, &j->embeds[LW_POSITIVE].rows,
                         &j->embeds[LW_NEGATIVE].rows };

    if (j->delivery)
        return LW_OK;
    j->delivery = lw_delivery_new();
    if (!j->delivery)
        return lw_fail(err, LW_E_NOMEM, "no memory to send the result");
    for (size_t i = 0; i < LW_ARRAY_LEN(parts); i++)
        if (lw_held_present(parts[i]))
            LW_TRY(lw_held_track(parts[i], j->delivery, err));
    for (int i = 0; i < j->out_tokens.n_tensors; i++)
        LW_TRY(lw_held_track(&j->out_tokens.tensors[i].held, j->delivery, err));
    return LW_OK;
}

static void drop_outputs(lw_hub_job *j)
{
    lw_held_drop(&j->out_image);
    lw_held_drop(&j->out_latents);
    lw_held_drop(&j->embeds[LW_POSITIVE].rows);
    lw_held_drop(&j->embeds[LW_NEGATIVE].rows);
    lw_kept_drop(&j->out_tokens);
}

/* True when it is sent, or can never be. */
static bool send_final(lw_hub *h, lw_hub_job *j)
{
    lw_err err = { 0 };
    lw_status st = LW_OK;
    lw_msg m;

    lw_msg_init(&m, j->final, j->id);
    if (j->final == LW_MSG_RESULT) {
        st = track_result(j, &err);
        if (st == LW_OK)
            st = describe_result(h, j, &m, &err);
    } else if (j->final == LW_MSG_ERROR) {
        describe_error(j, &m);
    } else {
        lw_msg_set(&m, reason, j->reason);
        if (j->last_op) {
            lw_msg_set(&m, op, j->last_op);
            lw_msg_set(&m, step, j->last_step);
        }
    }
    if (st == LW_OK)
        st = lw_hub_send(h, j->client, &m);
    if (st == LW_E_EXHAUSTED || st == LW_E_UNAVAILABLE)
        return false;
    if (st != LW_OK && j->final == LW_MSG_RESULT) {
        /* The result cannot be put into a message: that is an answer too. */
        lw_fail(&j->err, st, "the result cannot be sent%s%s", err.text[0] ? ": " : "", err.text);
        j->final = LW_MSG_ERROR;
        return false;
    }
    drop_outputs(j);
    return true;
}

bool lw_hub_job_over(const lw_hub_job *j)
{
    return j->answered && (!j->delivery || lw_delivery_done(j->delivery));
}

bool lw_hub_job_flush(lw_hub *h, lw_hub_job *j)
{
    bool left;

    if (j->welcome_waiting) {
        lw_msg m;

        lw_msg_init(&m, LW_MSG_ACCEPTED, j->id);
        lw_msg_set(&m, queue_pos, j->queue_pos);
        lw_msg_set(&m, seed, j->seed);
        if (lw_hub_send(h, j->client, &m) == LW_E_EXHAUSTED)
            return true;
        j->welcome_waiting = false;
    }
    if (!j->final) {
        left = !send_progress(h, j);
        return !send_preview(h, j) || left;
    }
    if (!j->answered)
        j->answered = send_final(h, j);
    return !lw_hub_job_over(j);
}
