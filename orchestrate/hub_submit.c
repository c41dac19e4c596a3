/*
 * SUBMIT: everything that can be known to be wrong with a request is said here, before any work is
 * done for it; and what it may come to need is reserved, so that a job that was accepted does not
 * fail for want of room later.
 */

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "orchestrate/hub_state.h"

#define MIB 1048576.0

/* What the models that are there say of themselves, or what is usual. */
typedef struct shapes {
    int64_t dim, channels, downscale, multiple, max_rows;
    uint64_t width, height, steps; /* of a request that does not say */
    bool dim_known, channels_known;
} shapes;

static shapes find_shapes(const lw_hub *h)
{
    const lw_contract *enc = lw_hub_contract(h, LW_ROLE_ENCODER);
    const lw_contract *dit = lw_hub_contract(h, LW_ROLE_DENOISER);
    const lw_contract *vae = lw_hub_contract(h, LW_ROLE_DECODER);
    shapes s = { .dim = 2560,
                 .channels = 16,
                 .downscale = 8,
                 .max_rows = 65536,
                 .width = LW_HUB_DEFAULT_SIDE,
                 .height = LW_HUB_DEFAULT_SIDE,
                 .steps = LW_HUB_DEFAULT_STEPS };
    int64_t patch = 2;

    if (dit || enc) {
        s.dim = (int64_t)(dit ? dit->cap_dim : enc->dim);
        s.dim_known = true;
    }
    if (dit || vae) {
        s.channels = (int64_t)(dit ? dit->latent_channels : vae->latent_channels);
        s.channels_known = true;
    }
    if (vae)
        s.downscale = (int64_t)vae->downscale;
    if (dit && lw_contract_has(dit, patch) && dit->patch)
        patch = (int64_t)dit->patch;
    if (dit && lw_contract_has(dit, max_tokens) && dit->max_tokens)
        s.max_rows = (int64_t)dit->max_tokens;
    if (dit && lw_contract_has(dit, width) && lw_contract_has(dit, height)) {
        s.width = dit->width;
        s.height = dit->height;
    }
    if (dit && lw_contract_has(dit, steps))
        s.steps = dit->steps;
    s.multiple = s.downscale * patch;
    return s;
}

/* ---- what may be asked ---- */

static lw_status check_route(const lw_msg *m, lw_err *err)
{
    const bool forward = m->from < m->to && m->from != LW_ARTEFACT_NONE &&
                         (m->to != LW_ARTEFACT_TOKEN_IDS || m->from == LW_ARTEFACT_PROMPT);
    const bool backward = m->from == LW_ARTEFACT_IMAGE && m->to == LW_ARTEFACT_LATENTS;

    if (forward || backward)
        return LW_OK;
    return lw_fail(err, LW_E_INVALID,
                   "a job cannot go from %s to %s; it goes forward along prompt, prompt_embeds, "
                   "latents, image, from image to latents, or from prompt to token_ids",
                   lw_artefact_name(m->from), lw_artefact_name(m->to));
}

static lw_status check_text(const lw_msg *m, lw_err *err)
{
    if (m->from == LW_ARTEFACT_PROMPT && !lw_msg_has(m, prompt))
        return lw_fail(err, LW_E_INVALID, "a job from prompt needs the field prompt");
    if (lw_msg_has(m, max_tokens) && m->max_tokens == 0)
        return lw_fail(err, LW_E_INVALID, "max_tokens is 0; it must be at least 1");
    return LW_OK;
}

/* The tensor that a job must bring: name, dtype class and rank. */
static lw_status need_tensor(const lw_msg *m, const char *name, int rank, bool image,
                             const lw_msg_tensor **ret, lw_err *err)
{
    const lw_msg_tensor *mt = lw_msg_tensor_find(m, name);
    char is[128];

    if (!mt)
        return lw_fail(err, LW_E_INVALID, "a job from %s needs the tensor %s",
                       lw_artefact_name(m->from), name);
    if (mt->t.rank != rank || (image ? mt->t.dtype != LW_U8 : !lw_dtype_is_float(mt->t.dtype)))
        return lw_fail(err, LW_E_SHAPE, "%s is %s, expected %s with %d axes", name,
                       lw_tensor_describe(&mt->t, is, sizeof(is)), image ? "uint8" : "a float type",
                       rank);
    for (int i = 0; i < rank; i++)
        if (mt->t.shape[i] < 1)
            return lw_fail(err, LW_E_SHAPE, "%s is %s: no axis may be empty", name,
                           lw_tensor_describe(&mt->t, is, sizeof(is)));
    *ret = mt;
    return LW_OK;
}

static lw_status check_rows(const lw_msg *m, const char *name, const shapes *s, lw_err *err)
{
    const lw_msg_tensor *mt = NULL;
    char is[128];

    LW_TRY(need_tensor(m, name, 2, false, &mt, err));
    if (s->dim_known && mt->t.shape[1] != s->dim)
        return lw_fail(err, LW_E_SHAPE,
                       "%s is %s, but the denoiser takes rows of %lld; do the embeddings come from "
                       "another model?",
                       name, lw_tensor_describe(&mt->t, is, sizeof(is)), (long long)s->dim);
    if (mt->t.shape[0] > s->max_rows)
        return lw_fail(err, LW_E_SHAPE, "%s has %lld rows, the denoiser takes at most %lld", name,
                       (long long)mt->t.shape[0], (long long)s->max_rows);
    return LW_OK;
}

static lw_status check_size(const lw_hub_job *j, const shapes *s, lw_err *err)
{
    const int64_t side[2] = { j->width, j->height };
    size_t bytes;

    for (int i = 0; i < 2; i++)
        if (side[i] < s->multiple || side[i] % s->multiple)
            return lw_fail(err, LW_E_INVALID,
                           "%s is %lld; it must be a multiple of %lld, for example %lld",
                           i ? "height" : "width", (long long)side[i], (long long)s->multiple,
                           (long long)(side[i] / s->multiple + 1) * s->multiple);
    /* 65536 x 65536 x 3 x 64 fits in 64 bits; so does everything smaller. */
    bytes = (size_t)j->width * (size_t)j->height * 3 * (size_t)j->n;
    if (j->to == LW_ARTEFACT_LATENTS)
        bytes = (size_t)(j->width / s->downscale) * (size_t)(j->height / s->downscale) *
                (size_t)s->channels * 4 * (size_t)j->n;
    if (bytes > LW_MAX_FRAME_BYTES)
        return lw_fail(
            err, LW_E_TOO_LARGE,
            "%d pictures of %d x %d are %.1f MiB in one answer, the limit is %.0f MiB; ask "
            "for fewer in one job, or smaller ones",
            j->n, j->width, j->height, (double)bytes / MIB, LW_MAX_FRAME_BYTES / MIB);
    return LW_OK;
}

static lw_status check_sampling(const lw_msg *m, const lw_hub_job *j, lw_err *err)
{
    if (j->steps < 1)
        return lw_fail(err, LW_E_INVALID, "steps is 0; it must be at least 1");
    if (lw_msg_has(m, sigmas) && m->sigmas.n != (uint32_t)j->steps + 1)
        return lw_fail(err, LW_E_INVALID, "sigmas has %u values; %d steps need %d", m->sigmas.n,
                       j->steps, j->steps + 1);
    if (j->guidance < 0)
        return lw_fail(err, LW_E_INVALID, "guidance is %g; it must not be negative", j->guidance);
    if (lw_msg_has(m, start_step))
        return lw_fail(err, LW_E_INVALID, "start_step is for the hub's own retries");
    return LW_OK;
}

/* A tensor that the route has no use for is a misunderstanding that should come to light. */
static lw_status check_no_more(const lw_msg *m, const lw_hub_job *j, lw_err *err)
{
    for (int i = 0; i < m->n_tensors; i++) {
        const char *name = m->tensors[i].name;
        bool used = (j->from == LW_ARTEFACT_LATENTS && !strcmp(name, LW_T_LATENTS)) ||
                    (j->from == LW_ARTEFACT_IMAGE && !strcmp(name, LW_T_IMAGE)) ||
                    (j->from == LW_ARTEFACT_EMBEDS &&
                     (!strcmp(name, LW_T_PROMPT_EMBEDS) || !strcmp(name, LW_T_NEGATIVE_EMBEDS)));

        if (!used)
            return lw_fail(err, LW_E_INVALID, "a job from %s has no use for a tensor %s",
                           lw_artefact_name(j->from), name);
    }
    return LW_OK;
}

static lw_status read_texts(lw_hub_job *j, const lw_msg *m, const shapes *s, lw_err *err)
{
    const bool guided = j->guidance > 0;
    const bool given = lw_msg_tensor_find(m, LW_T_NEGATIVE_EMBEDS) != NULL;

    LW_TRY(check_text(m, err));
    j->needs[LW_POSITIVE] = j->from == LW_ARTEFACT_PROMPT;
    j->needs[LW_NEGATIVE] = guided && !given && j->to != LW_ARTEFACT_TOKEN_IDS;
    if (j->to == LW_ARTEFACT_EMBEDS && lw_msg_has(m, negative_prompt))
        j->needs[LW_NEGATIVE] = true;
    if (j->from == LW_ARTEFACT_PROMPT)
        return LW_OK;
    LW_TRY(check_rows(m, LW_T_PROMPT_EMBEDS, s, err));
    if (given)
        return check_rows(m, LW_T_NEGATIVE_EMBEDS, s, err);
    if (guided && !lw_msg_has(m, negative_prompt))
        return lw_fail(err, LW_E_INVALID,
                       "guidance %g needs the tensor %s, or a negative_prompt to encode (it may be "
                       "empty)",
                       j->guidance, LW_T_NEGATIVE_EMBEDS);
    return LW_OK;
}

static lw_status read_pictures(lw_hub_job *j, const lw_msg *m, const shapes *s, lw_err *err)
{
    const bool image = j->from == LW_ARTEFACT_IMAGE;
    const char *name = image ? LW_T_IMAGE : LW_T_LATENTS;
    const lw_msg_tensor *mt = NULL;
    int64_t scale = image ? 1 : s->downscale;
    int first = image ? 1 : 2;
    char is[128];

    LW_TRY(need_tensor(m, name, 4, image, &mt, err));
    if (image ? mt->t.shape[3] != 3 : s->channels_known && mt->t.shape[1] != s->channels)
        return lw_fail(err, LW_E_SHAPE, "%s is %s, expected %lld channels", name,
                       lw_tensor_describe(&mt->t, is, sizeof(is)),
                       (long long)(image ? 3 : s->channels));
    if (mt->t.shape[0] > 64 || mt->t.shape[first] > 65536 / scale ||
        mt->t.shape[first + 1] > 65536 / scale)
        return lw_fail(err, LW_E_TOO_LARGE, "%s is %s; at most 64 pictures of 65536 x 65536 pixels",
                       name, lw_tensor_describe(&mt->t, is, sizeof(is)));
    j->n = (int)mt->t.shape[0];
    j->height = (int)(mt->t.shape[first] * scale);
    j->width = (int)(mt->t.shape[first + 1] * scale);
    return LW_OK;
}

/* Fill the job from the request, or say what is wrong with it. */
static lw_status read_request(const lw_hub *h, const lw_msg *m, lw_hub_job *j, lw_err *err)
{
    shapes s = find_shapes(h);

    LW_TRY(check_route(m, err));
    j->from = m->from;
    j->to = m->to;
    j->n = lw_hub_job_draws(j) ? (int)lw_msg_get(m, n, 1) : 1;
    j->width = (int)lw_msg_get(m, width, s.width);
    j->height = (int)lw_msg_get(m, height, s.height);
    j->steps =
        (int)lw_msg_get(m, steps, lw_msg_has(m, sigmas) && m->sigmas.n ? m->sigmas.n - 1 : s.steps);
    j->guidance = lw_msg_get(m, guidance, 0);
    if (j->n < 1)
        return lw_fail(err, LW_E_INVALID, "n is 0; it must be at least 1");
    LW_TRY(check_no_more(m, j, err));
    if (j->from == LW_ARTEFACT_PROMPT || j->from == LW_ARTEFACT_EMBEDS) {
        LW_TRY(check_sampling(m, j, err));
        LW_TRY(read_texts(j, m, &s, err));
        if (!lw_hub_job_draws(j))
            return LW_OK;
    } else {
        LW_TRY(read_pictures(j, m, &s, err));
        s.multiple = s.downscale; /* no denoiser is involved */
    }
    return check_size(j, &s, err);
}

/* ---- what it needs ---- */

static size_t text_length(const lw_msg *m, const char *prompt)
{
    return strlen(prompt) + strlen(lw_msg_get(m, system_prompt, "")) +
           strlen(lw_msg_get(m, messages, "")) + strlen(lw_msg_get(m, thinking, "")) +
           strlen(lw_msg_get(m, assistant, ""));
}

/* No token is shorter than a byte, and the chat template adds some tokens of its own. */
static size_t rows_bytes(const lw_msg *m, const char *prompt, const shapes *s)
{
    size_t tokens = text_length(m, prompt) + 64;
    size_t limit = (size_t)lw_msg_get(m, max_tokens, LW_HUB_DEFAULT_TOKENS);

    return (tokens < limit ? tokens : limit) * ((size_t)s->dim * 4 + 4);
}

/* Most that the hub will hold of a job at any time: the request, and the result of every stage. */
static size_t bytes_needed(const lw_hub *h, const lw_hub_job *j, const lw_msg *m)
{
    const shapes s = find_shapes(h);
    const size_t n = (size_t)j->n;
    size_t bytes = sizeof(*j) + n * sizeof(*j->pictures) + lw_kept_bytes(m);

    if (j->to == LW_ARTEFACT_TOKEN_IDS) /* the text; of each token id, length, weight, kept */
        return bytes + (text_length(m, lw_msg_get(m, prompt, "")) + 16384) * (1 + 4 + 4 + 4 + 1);
    if (j->needs[LW_POSITIVE])
        bytes += rows_bytes(m, lw_msg_get(m, prompt, ""), &s);
    if (j->needs[LW_NEGATIVE])
        bytes += rows_bytes(m, lw_msg_get(m, negative_prompt, ""), &s);
    if (j->to == LW_ARTEFACT_EMBEDS)
        return bytes;
    /* Latents, and beside them a checkpoint or the joined answer. */
    bytes += 2 * n * 4 * (size_t)s.channels * (size_t)(j->width / s.downscale) *
             (size_t)(j->height / s.downscale);
    if (j->to == LW_ARTEFACT_IMAGE || j->from == LW_ARTEFACT_IMAGE)
        bytes += (n > 1 ? 2 : 1) * n * 3 * (size_t)j->width * (size_t)j->height;
    return bytes;
}

static lw_status reserve(lw_hub *h, lw_hub_session *client, lw_hub_job *j, const lw_msg *m,
                         lw_err *err)
{
    const size_t need = bytes_needed(h, j, m);

    if (need > h->p.client_bytes)
        return lw_fail(err, LW_E_TOO_LARGE,
                       "the job may need %.1f MiB in the hub, one client may have %.0f MiB "
                       "(hub --client-mb)",
                       (double)need / MIB, (double)h->p.client_bytes / MIB);
    if (need > h->p.client_bytes - client->reserved_bytes)
        return lw_fail(
            err, LW_E_EXHAUSTED,
            "the job may need %.1f MiB in the hub, but the client's other jobs have %.1f "
            "of its %.0f MiB; try again when one is done",
            (double)need / MIB, (double)client->reserved_bytes / MIB,
            (double)h->p.client_bytes / MIB);
    if (need > h->p.budget_bytes - h->reserved_bytes)
        return lw_fail(err, LW_E_EXHAUSTED,
                       "the job may need %.1f MiB in the hub, but other jobs have %.1f of its %.0f "
                       "MiB; try again later",
                       (double)need / MIB, (double)h->reserved_bytes / MIB,
                       (double)h->p.budget_bytes / MIB);
    if (h->n_jobs >= h->p.max_jobs)
        return lw_fail(err, LW_E_EXHAUSTED,
                       "the hub has %d jobs and takes no more; try again later", h->n_jobs);
    j->reserved_bytes = need;
    return LW_OK;
}

/* ---- entering ---- */

static uint64_t new_seed(lw_hub *h)
{
    uint32_t seed;

    h->io.random(h->io.ctx, &seed, sizeof(seed)); /* the generator's seeds have 32 bits */
    return seed;
}

static uint64_t jobs_ahead(const lw_hub *h)
{
    uint64_t n = 0;

    for (const lw_hub_job *j = h->jobs; j; j = j->next)
        n += !j->final;
    return n;
}

static lw_status accept(lw_hub *h, lw_hub_session *client, const lw_msg *m, lw_hub_job **ret,
                        lw_err *err)
{
    lw_hub_job *j = calloc(1, sizeof(*j));
    lw_status st = LW_OK;

    if (!j)
        return lw_fail(err, LW_E_NOMEM, "the hub has no memory for another job");
    if (h->draining)
        st = lw_fail(err, LW_E_UNAVAILABLE, "the hub is shutting down");
    if (st == LW_OK)
        st = read_request(h, m, j, err);
    if (st == LW_OK)
        st = reserve(h, client, j, m, err);
    if (st == LW_OK && !(j->pictures = calloc((size_t)j->n, sizeof(*j->pictures))))
        st = lw_fail(err, LW_E_NOMEM, "the hub has no memory for another job");
    if (st == LW_OK)
        st = lw_kept_take(&j->request, m, err);
    if (st != LW_OK) {
        free(j->pictures);
        free(j);
        return st;
    }
    memcpy(j->id, m->id, sizeof(j->id));
    j->client = client;
    j->seed = lw_msg_has(m, seed) ? m->seed : new_seed(h);
    j->accepted_ms = h->now_ms;
    j->queue_pos = jobs_ahead(h);
    j->welcome_waiting = true;
    client->reserved_bytes += j->reserved_bytes;
    h->reserved_bytes += j->reserved_bytes;
    *h->jobs_end = j;
    h->jobs_end = &j->next;
    h->n_jobs++;
    *ret = j;
    return LW_OK;
}

void lw_hub_submit(lw_hub *h, lw_hub_session *client, const lw_msg *m)
{
    lw_hub_job *j = lw_hub_job_find(h, m->id);
    lw_err err = { 0 };

    if (j && j->client == client && j->answered) { /* the answer did not reach it */
        lw_hub_job_free(h, j);
        j = NULL;
    }
    if (j && j->client == client) { /* it lost its connection, but not its job */
        j->welcome_waiting = true;
        return;
    }
    if (j)
        lw_fail(&err, LW_E_INVALID, "this job id is in use");
    else if (accept(h, client, m, &j, &err) == LW_OK) {
        h->count.jobs_accepted++;
        lw_log(LW_INFO, "job accepted", LW_KV_REQ("job", j->id), LW_KV_STR("client", client->name),
               LW_KV_STR("from", lw_artefact_name(j->from)),
               LW_KV_STR("to", lw_artefact_name(j->to)), LW_KV_INT("pictures", j->n),
               LW_KV_INT("width", j->width), LW_KV_INT("height", j->height),
               LW_KV_INT("ahead", (int64_t)j->queue_pos));
        lw_hub_job_start(h, j);
        return;
    }
    h->count.jobs_refused++;
    if (lw_hub_may_log(h))
        lw_log(LW_INFO, "job refused", LW_KV_REQ("job", m->id), LW_KV_STR("client", client->name),
               LW_KV_STR("why", err.text));
    lw_hub_refuse(h, client, m->id, &err);
}
