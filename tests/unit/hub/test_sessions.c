/* Who may join, what may be asked, who gets a turn, and what STATUS tells. */

#include <jansson.h>
#include <math.h>

#include "tests/unit/hub/world.h"

static void test_hello(void **state)
{
    const lw_hub_params p = { .hb_ms = 500, .hb_misses = 4 };
    const lw_kept *k;
    uint64_t epoch;
    peer *a;
    world w;

    (void)state;
    world_init(&w, &p);
    a = world_peer(&w, LW_ROLE_DENOISER, "a");
    world_hello(&w, a);
    k = mail_expect(a, LW_MSG_WELCOME);
    assert_int_equal(k->msg.hb_ms, 500);
    assert_int_equal(k->msg.hb_misses, 4);
    assert_int_equal(k->msg.max_frame_bytes, LW_MAX_FRAME_BYTES);
    assert_int_equal(k->msg.minor, 0);
    epoch = k->msg.epoch;
    world_hello(&w, a);
    k = mail_expect(a, LW_MSG_WELCOME);
    assert_true(k->msg.epoch > epoch); /* a new generation */
    assert_int_equal(lw_hub_sessions(w.hub, LW_BACKEND), 1);
    world_deinit(&w);
}

static void test_stale_credit_does_not_count(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_EMBEDS);
    peer *encoder, *client;
    world w;

    (void)state;
    world_init(&w, NULL);
    encoder = world_peer(&w, LW_ROLE_ENCODER, "e");
    world_hello(&w, encoder);
    mail_expect(encoder, LW_MSG_WELCOME);
    encoder->epoch = 1; /* of some other session */
    world_credit(&w, encoder, 1);
    world_beat(&w, encoder);
    client = world_client(&w, "client");
    world_send(&w, client, &m);
    mail_none(encoder);
    world_deinit(&w);
}

static void refused(world *w, peer *p, lw_status code, const char *part)
{
    const lw_kept *k;

    world_hello(w, p);
    k = mail_expect(p, LW_MSG_ERROR);
    assert_false(k->msg.has_id);
    assert_int_equal(k->msg.code, code);
    assert_contains(k->msg.message, part);
}

static void test_contracts_must_fit(void **state)
{
    peer *p;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    p = world_peer(&w, LW_ROLE_DENOISER, "p");
    p->contract.cap_dim = 2560;
    refused(&w, p, LW_E_PRECONDITION, "cap_dim 2560, those already connected have 8");
    p = world_peer(&w, LW_ROLE_DENOISER, "p");
    lw_contract_set(&p->contract, weights_digest, "other");
    refused(&w, p, LW_E_PRECONDITION, "weights_digest \"other\", those already");
    p = world_peer(&w, LW_ROLE_DECODER, "p");
    p->contract.has &= ~(UINT64_C(1) << LW_CF_downscale);
    refused(&w, p, LW_E_PRECONDITION, "lacks `downscale`");
    p = world_peer(&w, LW_ROLE_DECODER, "p");
    lw_contract_set(&p->contract, shift_factor, 0.5); /* the others do not say theirs */
    world_join(&w, p);
    assert_int_equal(lw_hub_counters_get(w.hub)->workers_refused, 3);
    world_deinit(&w);

    /* Across stages, whoever comes first. */
    world_init(&w, NULL);
    t.encoder = world_worker(&w, LW_ROLE_ENCODER, "e");
    p = world_peer(&w, LW_ROLE_DENOISER, "p");
    p->contract.cap_dim = 128;
    refused(&w, p, LW_E_PRECONDITION, "cap_dim 128, but the encoder of toy has dim 8");
    world_worker(&w, LW_ROLE_DECODER, "v");
    p->contract.cap_dim = 8;
    p->contract.latent_channels = 16;
    refused(&w, p, LW_E_PRECONDITION, "latent_channels 16, but the decoder of toy has");
    /* When the one that defined the role is gone, another model may come. */
    t.encoder->silent = true;
    world_wait(&w, 3500);
    p->contract.cap_dim = 128;
    p->contract.latent_channels = CHANNELS;
    world_join(&w, p);
    p = world_peer(&w, LW_ROLE_ENCODER, "e2");
    refused(&w, p, LW_E_PRECONDITION, "dim 8, but the denoiser of toy has cap_dim 128");
    world_deinit(&w);
}

static void test_wrong_doors(void **state)
{
    lw_msg m;
    peer *p;
    world w;

    (void)state;
    world_init(&w, NULL);
    p = world_peer(&w, LW_ROLE_CLIENT, "p");
    p->side = LW_BACKEND;
    refused(&w, p, LW_E_PRECONDITION, "role client connects to the frontend");
    p = world_peer(&w, LW_ROLE_ENCODER, "p");
    p->side = LW_FRONTEND;
    refused(&w, p, LW_E_PRECONDITION, "role encoder connects to the backend");

    p = world_peer(&w, LW_ROLE_CLIENT, "p");
    lw_msg_init(&m, LW_MSG_HELLO, NULL);
    lw_msg_set(&m, minor_min, LW_WIRE_MINOR_MAX + 1);
    lw_msg_set(&m, minor_max, LW_WIRE_MINOR_MAX + 5);
    lw_msg_set(&m, role, LW_ROLE_CLIENT);
    world_send(&w, p, &m);
    assert_contains(mail_expect(p, LW_MSG_ERROR)->msg.message, "speaks wire version 1.0 to 1.0");
    lw_msg_set(&m, minor_min, 0); /* a newer peer that still knows ours */
    world_send(&w, p, &m);
    assert_int_equal(mail_expect(p, LW_MSG_WELCOME)->msg.minor, LW_WIRE_MINOR_MAX);
    world_deinit(&w);
}

static bool encoders_only(void *ctx, lw_hub_side side, lw_role role)
{
    (void)ctx, (void)side;
    return role == LW_ROLE_ENCODER;
}

static lw_status note_code(void *ctx, lw_hub_side side, const lw_peer *to, const lw_msg *m,
                           lw_err *err)
{
    (void)side, (void)to, (void)err;
    *(lw_status *)ctx = m->type == LW_MSG_ERROR ? m->code : LW_OK;
    return LW_OK;
}

static void no_random(void *ctx, void *buf, size_t n)
{
    (void)ctx;
    memset(buf, 0, n);
}

static void test_keys_decide_roles(void **state)
{
    lw_status code = LW_E_INTERNAL;
    const lw_hub_io io = {
        .ctx = &code, .send = note_code, .role_allowed = encoders_only, .random = no_random
    };
    const lw_peer id = { .len = 1, .id = "x" };
    const lw_hub_params p = { 0 };
    lw_err err = { 0 };
    lw_hub *hub;
    lw_msg m;

    (void)state;
    assert_ok(lw_hub_create(&p, &io, 0, &hub, &err), &err);
    lw_msg_init(&m, LW_MSG_HELLO, NULL);
    lw_msg_set(&m, role, LW_ROLE_DENOISER);
    lw_contract_set(&m.contract, cap_dim, 8);
    lw_contract_set(&m.contract, latent_channels, 4);
    lw_hub_receive(hub, LW_BACKEND, &id, &m, 0);
    assert_int_equal(code, LW_E_DENIED);
    lw_msg_set(&m, role, LW_ROLE_ENCODER);
    lw_contract_set(&m.contract, dim, 8);
    lw_hub_receive(hub, LW_BACKEND, &id, &m, 0);
    assert_int_equal(code, LW_OK);
    lw_hub_destroy(&hub);
}

static void test_session_limit(void **state)
{
    const lw_hub_params p = { .max_sessions = 2 };
    peer *a, *c;
    world w;

    (void)state;
    world_init(&w, &p);
    a = world_client(&w, "a");
    world_client(&w, "b");
    c = world_peer(&w, LW_ROLE_CLIENT, "c");
    refused(&w, c, LW_E_EXHAUSTED, "2 clients");
    a->silent = true;
    world_wait(&w, 3500);
    world_join(&w, c);
    world_deinit(&w);
}

static void test_strangers(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_IMAGE);
    const lw_kept *k;
    peer *c, *e;
    world w;

    (void)state;
    world_init(&w, NULL);
    c = world_peer(&w, LW_ROLE_CLIENT, "c");
    world_send(&w, c, &m);
    k = mail_expect(c, LW_MSG_ERROR);
    assert_memory_equal(k->msg.id, m.id, 16);
    assert_contains(k->msg.message, "HELLO");
    e = world_peer(&w, LW_ROLE_ENCODER, "e");
    world_beat(&w, e);
    mail_expect(e, LW_MSG_BYE);
    lw_msg_init(&m, LW_MSG_RESULT, job_id(1));
    world_send(&w, e, &m);
    mail_none(e);
    assert_int_equal(lw_hub_counters_get(w.hub)->unexpected, 3);
    world_deinit(&w);
}

static void test_malformed_messages(void **state)
{
    lw_msg nothing = { 0 }, submit = job_prompt(1, LW_ARTEFACT_IMAGE);
    lw_err why = { 0 };
    const lw_kept *k;
    peer *c;
    world w;

    (void)state;
    world_init(&w, NULL);
    c = world_client(&w, "c");
    /* A value out of range in a job is an answer to that job, as often as one likes. */
    lw_fail(&why, LW_E_INVALID, "steps is 1000");
    for (int i = 0; i < 10; i++) {
        lw_hub_malformed(w.hub, LW_FRONTEND, &c->id, &submit, &why, w.now);
        k = mail_expect(c, LW_MSG_ERROR);
        assert_memory_equal(k->msg.id, submit.id, 16);
        assert_int_equal(k->msg.code, LW_E_INVALID);
    }
    /* Garbage ends the session the third time; until HELLO nothing is answered to it. */
    lw_fail(&why, LW_E_FORMAT, "not msgpack");
    for (int i = 0; i < 3; i++)
        lw_hub_malformed(w.hub, LW_FRONTEND, &c->id, &nothing, &why, w.now);
    assert_int_equal(mail_count(c, LW_MSG_ERROR, NULL), 13);
    assert_int_equal(lw_hub_sessions(w.hub, LW_FRONTEND), 0);
    lw_hub_malformed(w.hub, LW_FRONTEND, &c->id, &nothing, &why, w.now);
    assert_int_equal(mail_count(c, LW_MSG_ERROR, NULL), 13);
    c->n_read = c->n_mail;
    world_join(&w, c);
    assert_int_equal(lw_hub_counters_get(w.hub)->malformed, 14);
    world_deinit(&w);
}

/* ---- what may be asked ---- */

static void refuse(world *w, peer *client, lw_msg *m, lw_status code, const char *part)
{
    const lw_kept *k;

    world_send(w, client, m);
    k = mail_expect(client, LW_MSG_ERROR);
    assert_memory_equal(k->msg.id, m->id, 16);
    if (k->msg.code != code || !strstr(k->msg.message, part))
        fail_msg("got %s: \"%s\", expected %s with \"%s\"", lw_status_name(k->msg.code),
                 k->msg.message, lw_status_name(code), part);
    mail_none(client);
}

static void test_refusals(void **state)
{
    float rows[4 * 9] = { 0 };
    uint8_t bytes[16 * 16 * 3] = { 0 };
    const int64_t image_shape[4] = { 1, 16, 16, 3 }, latent_shape[4] = { 1, 5, 2, 2 };
    lw_tensor wide = lw_tensor_2d(rows, LW_F32, 4, 9), right = lw_tensor_2d(rows, LW_F32, 4, DIM);
    lw_tensor ints = lw_tensor_2d(rows, LW_I32, 4, DIM), none = lw_tensor_2d(rows, LW_F32, 0, DIM);
    lw_tensor image = lw_tensor_nd(bytes, LW_U8, 4, image_shape);
    lw_tensor latents = lw_tensor_nd(rows, LW_F32, 4, latent_shape);
    double sigmas[3] = { 1, 0.5, 0 };
    peer *c;
    lw_msg m;
    world w;

    (void)state;
    world_init(&w, NULL);
    world_trio(&w);
    c = world_client(&w, "c");
#define TRY(code, part, ...)                                                                       \
    m = job_prompt(1, LW_ARTEFACT_IMAGE);                                                          \
    __VA_ARGS__;                                                                                   \
    refuse(&w, c, &m, code, part)
#define SET(f, v)    lw_msg_set(&m, f, v)
#define ADD(name, t) assert_int_equal(lw_msg_tensor_add(&m, name, t, NULL, NULL), LW_OK)

    TRY(LW_E_INVALID, "cannot go from image to image", SET(from, LW_ARTEFACT_IMAGE));
    TRY(LW_E_INVALID, "cannot go from latents to prompt_embeds", SET(from, LW_ARTEFACT_LATENTS),
        SET(to, LW_ARTEFACT_EMBEDS));
    TRY(LW_E_INVALID, "cannot go from prompt to prompt", SET(to, LW_ARTEFACT_PROMPT));
    TRY(LW_E_INVALID, "width is 40; it must be a multiple of 16, for example 48", SET(width, 40));
    TRY(LW_E_INVALID, "height is 0", SET(height, 0));
    TRY(LW_E_INVALID, "steps is 0", SET(steps, 0));
    TRY(LW_E_INVALID, "n is 0", SET(n, 0));
    TRY(LW_E_INVALID, "guidance is -1", SET(guidance, -1));
    TRY(LW_E_INVALID, "max_tokens is 0", SET(max_tokens, 0));
    TRY(LW_E_INVALID, "sigmas has 3 values; 4 steps need 5",
        SET(sigmas, ((lw_f64s){ .v = sigmas, .n = 3 })));
    TRY(LW_E_INVALID, "start_step", SET(start_step, 1));
    TRY(LW_E_TOO_LARGE, "MiB in one answer, the limit is 64 MiB", SET(width, 65520),
        SET(height, 65520), SET(n, 64));
    TRY(LW_E_TOO_LARGE, "ask for fewer", SET(width, 1024), SET(height, 1024), SET(n, 22));
    TRY(LW_E_INVALID, "no use for a tensor image", ADD(LW_T_IMAGE, &image));

    TRY(LW_E_INVALID, "needs the tensor prompt_embeds", SET(from, LW_ARTEFACT_EMBEDS));
    TRY(LW_E_SHAPE, "float32 [4, 9], but the denoiser takes rows of 8",
        SET(from, LW_ARTEFACT_EMBEDS), ADD(LW_T_PROMPT_EMBEDS, &wide));
    TRY(LW_E_SHAPE, "expected a float type", SET(from, LW_ARTEFACT_EMBEDS),
        ADD(LW_T_PROMPT_EMBEDS, &ints));
    TRY(LW_E_SHAPE, "no axis may be empty", SET(from, LW_ARTEFACT_EMBEDS),
        ADD(LW_T_PROMPT_EMBEDS, &none));
    TRY(LW_E_INVALID, "needs the tensor negative_prompt_embeds, or a negative_prompt",
        SET(from, LW_ARTEFACT_EMBEDS), SET(guidance, 2), ADD(LW_T_PROMPT_EMBEDS, &right));
    TRY(LW_E_SHAPE, "negative_prompt_embeds is float32 [4, 9]", SET(from, LW_ARTEFACT_EMBEDS),
        SET(guidance, 2), ADD(LW_T_PROMPT_EMBEDS, &right), ADD(LW_T_NEGATIVE_EMBEDS, &wide));
    TRY(LW_E_SHAPE, "expected 4 channels", SET(from, LW_ARTEFACT_LATENTS),
        ADD(LW_T_LATENTS, &latents));
    TRY(LW_E_INVALID, "no use for a tensor latents", SET(from, LW_ARTEFACT_EMBEDS),
        ADD(LW_T_PROMPT_EMBEDS, &right), ADD(LW_T_LATENTS, &latents));

    m = job_prompt(1, LW_ARTEFACT_IMAGE);
    m.has[LW_F_prompt / 64] &= ~(UINT64_C(1) << (LW_F_prompt % 64));
    refuse(&w, c, &m, LW_E_INVALID, "needs the field prompt");
    assert_int_equal(lw_hub_counters_get(w.hub)->jobs_refused, 23);
    assert_int_equal(lw_hub_counters_get(w.hub)->tasks_sent, 0);

    /* Guidance with embeddings and a negative text: that text alone is encoded. */
    m = job_prompt(2, LW_ARTEFACT_LATENTS);
    SET(from, LW_ARTEFACT_EMBEDS);
    SET(guidance, 2);
    SET(negative_prompt, "");
    ADD(LW_T_PROMPT_EMBEDS, &right);
    world_send(&w, c, &m);
    mail_expect(c, LW_MSG_ACCEPTED);
    assert_string_equal(work_one(&w, w.peers[0])->msg.prompt, "");
    work_all(&w);
    mail_expect(c, LW_MSG_RESULT);
    world_deinit(&w);
}

static void test_budgets(void **state)
{
    const lw_hub_params p = { .budget_bytes = 3000000, .client_bytes = 2000000 };
    int accepted[2] = { 0 };
    peer *c[2], *encoder;
    world w;

    (void)state;
    world_init(&w, &p);
    encoder = world_worker(&w, LW_ROLE_ENCODER, "e");
    world_credit(&w, encoder, 0);
    c[0] = world_client(&w, "a");
    c[1] = world_client(&w, "b");
    for (int i = 0; i < 40; i++) {
        lw_msg m = job_prompt(i, LW_ARTEFACT_IMAGE);
        peer *who = c[i >= 20];
        const lw_kept *k;

        lw_msg_set(&m, width, 256);
        lw_msg_set(&m, height, 256);
        world_send(&w, who, &m);
        k = mail_next(who);
        if (k->msg.type == LW_MSG_ACCEPTED) {
            accepted[i >= 20]++;
            continue;
        }
        assert_int_equal(k->msg.code, LW_E_EXHAUSTED);
        assert_true(k->msg.retryable);
        assert_contains(k->msg.message,
                        i >= 20 ? "but other jobs have" : "the client's other jobs");
    }
    /* A job of 256 x 256: picture 192 KiB, latents 2 x 64 KiB, and some. */
    assert_in_range(accepted[0], 4, 8);
    assert_in_range(accepted[1], 2, accepted[0] - 1);
    for (int i = 0; i < 40; i++) {
        lw_msg m;

        lw_msg_init(&m, LW_MSG_CANCEL, job_id(i));
        world_send(&w, c[i >= 20], &m);
    }
    for (int i = 0; i < accepted[0]; i++) { /* and there is room again, for the client too */
        lw_msg m = job_prompt(50 + i, LW_ARTEFACT_IMAGE);

        lw_msg_set(&m, width, 256);
        lw_msg_set(&m, height, 256);
        c[0]->n_read = c[0]->n_mail;
        world_send(&w, c[0], &m);
        mail_expect(c[0], LW_MSG_ACCEPTED);
    }
    { /* One that could never fit says so, and that trying again is no use. */
        lw_msg m = job_prompt(99, LW_ARTEFACT_IMAGE);
        const lw_kept *k;

        lw_msg_set(&m, width, 1024);
        lw_msg_set(&m, height, 1024);
        world_send(&w, c[0], &m);
        k = mail_find(c[0], LW_MSG_ERROR);
        assert_int_equal(k->msg.code, LW_E_TOO_LARGE);
        assert_false(k->msg.retryable);
    }
    world_deinit(&w);
}

static void test_unread_results_count(void **state)
{
    const lw_hub_params p = { .client_bytes = 1000000 };
    peer *c;
    int refused_at = 0;
    world w;

    (void)state;
    world_init(&w, &p);
    world_trio(&w);
    c = world_client(&w, "c");
    c->hoards = true;
    for (int i = 1; i <= 20 && !refused_at; i++) {
        lw_msg m = job_prompt(i, LW_ARTEFACT_IMAGE);

        lw_msg_set(&m, width, 256);
        lw_msg_set(&m, height, 256);
        world_send(&w, c, &m);
        work_all(&w);
        if (mail_count(c, LW_MSG_ERROR, NULL))
            refused_at = i;
    }
    /* All jobs were answered, but their pictures still lie in the hub's memory. */
    assert_in_range(refused_at, 2, 5);
    for (int i = 0; i < c->n_mail; i++)
        lw_kept_drop(&c->mail[i]);
    c->n_mail = c->n_read = 0;
    world_wait(&w, 250);
    {
        char *report = lw_hub_report(w.hub, w.now);

        assert_contains(report, "\"reserved_bytes\":0");
        free(report);
    }
    world_deinit(&w);
}

static void test_job_limit(void **state)
{
    const lw_hub_params p = { .max_jobs = 3 };
    peer *c;
    lw_msg m;
    world w;

    (void)state;
    world_init(&w, &p);
    c = world_client(&w, "c");
    for (int i = 0; i < 3; i++) {
        m = job_prompt(i, LW_ARTEFACT_IMAGE);
        world_send(&w, c, &m);
        assert_int_equal(mail_expect(c, LW_MSG_ACCEPTED)->msg.queue_pos, i);
    }
    m = job_prompt(3, LW_ARTEFACT_IMAGE);
    refuse(&w, c, &m, LW_E_EXHAUSTED, "3 jobs");
    world_deinit(&w);
}

static void test_submit_twice(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_EMBEDS);
    peer *a, *b;
    world w;

    (void)state;
    world_init(&w, NULL);
    a = world_client(&w, "a");
    b = world_client(&w, "b");
    world_send(&w, a, &m);
    world_send(&w, a, &m);
    mail_expect(a, LW_MSG_ACCEPTED);
    mail_expect(a, LW_MSG_ACCEPTED);
    refuse(&w, b, &m, LW_E_INVALID, "in use");
    lw_msg_init(&m, LW_MSG_CANCEL, job_id(1));
    world_send(&w, b, &m); /* not b's job */
    world_worker(&w, LW_ROLE_ENCODER, "e");
    work_all(&w);
    mail_expect(a, LW_MSG_RESULT);
    mail_none(a);
    mail_none(b);
    world_deinit(&w);
}

static void test_clients_take_turns(void **state)
{
    peer *a, *b, *denoiser;
    lw_msg m;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    denoiser = t.denoiser;
    a = world_client(&w, "a");
    b = world_client(&w, "b");
    m = job_prompt(1, LW_ARTEFACT_LATENTS);
    lw_msg_set(&m, n, 30);
    lw_msg_set(&m, seed, 100);
    world_send(&w, a, &m);
    work_one(&w, t.encoder);
    m = job_prompt(2, LW_ARTEFACT_LATENTS);
    lw_msg_set(&m, n, 2);
    lw_msg_set(&m, seed, 200);
    world_send(&w, b, &m);
    assert_int_equal(work_one(&w, denoiser)->msg.seed, 100);
    assert_int_equal(work_one(&w, denoiser)->msg.seed, 101); /* b came behind it in the line */
    assert_int_equal(work_one(&w, denoiser)->msg.seed, 200);
    assert_int_equal(work_one(&w, denoiser)->msg.seed, 102);
    assert_int_equal(work_one(&w, denoiser)->msg.seed, 201);
    mail_find(b, LW_MSG_RESULT);
    mail_none(b);
    world_deinit(&w);
}

static void test_idle_workers_get_the_work(void **state)
{
    peer *c, *first, *second;
    lw_msg m;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    first = world_peer(&w, LW_ROLE_DENOISER, "first");
    first->slots = 4;
    world_join(&w, first);
    second = t.denoiser;
    c = world_client(&w, "c");
    m = job_prompt(1, LW_ARTEFACT_LATENTS);
    lw_msg_set(&m, n, 8);
    world_send(&w, c, &m);
    work_one(&w, t.encoder);
    /* One slot and four: one task and four, not four and nothing. */
    assert_int_equal(mail_count(second, LW_MSG_TASK, NULL), 1);
    assert_int_equal(mail_count(first, LW_MSG_TASK, NULL), 4);
    world_deinit(&w);
}

static void test_least_loaded_worker_is_next(void **state)
{
    peer *c, *a, *b;
    lw_msg m;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t.encoder = world_worker(&w, LW_ROLE_ENCODER, "encoder");
    a = world_peer(&w, LW_ROLE_DENOISER, "a");
    b = world_peer(&w, LW_ROLE_DENOISER, "b");
    a->slots = b->slots = 8;
    world_join(&w, a);
    world_join(&w, b);
    c = world_client(&w, "c");
    m = job_prompt(1, LW_ARTEFACT_LATENTS);
    lw_msg_set(&m, n, 3);
    world_send(&w, c, &m);
    work_one(&w, t.encoder); /* two for a, one for b */
    assert_int_equal(mail_count(a, LW_MSG_TASK, NULL), 2);
    work_one(&w, b);
    m = job_prompt(2, LW_ARTEFACT_LATENTS);
    lw_msg_set(&m, n, 2);
    world_send(&w, c, &m); /* taking turns would give one to each */
    assert_int_equal(mail_count(a, LW_MSG_TASK, NULL), 2);
    assert_int_equal(mail_count(b, LW_MSG_TASK, NULL), 3);
    world_deinit(&w);
}

static void test_report(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_IMAGE), ask;
    json_t *r, *worker, *job;
    json_error_t why;
    const lw_kept *k;
    peer *c;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    c = world_client(&w, "c \"quoted\" \xc3\xa9");
    lw_msg_set(&m, n, 2);
    world_send(&w, c, &m);
    work_one(&w, t.encoder);
    work_progress(&w, t.denoiser, work_take(t.denoiser), 3, false);
    lw_msg_init(&ask, LW_MSG_STATUS, NULL);
    world_send(&w, c, &ask);
    k = mail_find(c, LW_MSG_STATUS);
    r = json_loads(k->msg.report, JSON_REJECT_DUPLICATES, &why);
    assert_non_null(r);
    assert_int_equal(json_array_size(json_object_get(r, "workers")), 3);
    worker = json_array_get(json_object_get(r, "workers"), 1);
    assert_string_equal(json_string_value(json_object_get(worker, "role")), "denoiser");
    assert_string_equal(json_string_value(json_object_get(worker, "state")), "busy");
    assert_string_equal(json_string_value(json_object_get(worker, "model")), "toy");
    job = json_array_get(json_object_get(r, "jobs"), 0);
    assert_string_equal(json_string_value(json_object_get(job, "state")), "running");
    assert_string_equal(json_string_value(json_object_get(job, "stage")), "denoise");
    assert_string_equal(json_string_value(json_object_get(job, "client")), "c \"quoted\" \xc3\xa9");
    assert_int_equal(json_integer_value(json_object_get(job, "step")), 3);
    assert_null(strstr(k->msg.report, "a red circle"));
    json_decref(r);
    world_deinit(&w);
}

/* Names as long as they may be, of characters that JSON has to escape: still one message. */
static void test_report_is_bounded(void **state)
{
    char hostile[65], model[257];
    char *report;
    world w;

    (void)state;
    memset(hostile, 1, 64);
    memset(model, 2, 256);
    hostile[64] = model[256] = 0;
    world_init(&w, NULL);
    for (int i = 0; i < 60; i++) {
        peer *p = world_peer(&w, LW_ROLE_ENCODER, "x");
        lw_msg m;

        lw_msg_init(&m, LW_MSG_HELLO, NULL);
        lw_msg_set(&m, role, LW_ROLE_ENCODER);
        lw_msg_set(&m, name, hostile);
        memcpy(m.instance, p->instance, 16);
        lw_contract_set(&p->contract, model_id, model);
        m.contract = p->contract;
        world_send(&w, p, &m);
    }
    report = lw_hub_report(w.hub, w.now);
    assert_non_null(report);
    assert_in_range(strlen(report), 1000, 60000);
    assert_contains(report, "\"n_workers\":60");
    free(report);
    world_deinit(&w);
}

static void test_client_that_never_reads_is_shown_out(void **state)
{
    peer *c;
    world w;

    (void)state;
    world_init(&w, NULL);
    c = world_client(&w, "c");
    c->link = LW_E_EXHAUSTED;
    for (int i = 0; i < 1024; i++) {
        lw_msg m = job_prompt(i, LW_ARTEFACT_IMAGE);

        lw_msg_set(&m, width, 1);
        world_send(&w, c, &m);
    }
    assert_int_equal(lw_hub_sessions(w.hub, LW_FRONTEND), 1);
    c->link = LW_OK; /* late, but not too late: nothing is lost */
    for (int i = 0; i < 4; i++) {
        world_wait(&w, 250);
        for (; c->n_read < c->n_mail; c->n_read++)
            assert_int_equal(c->mail[c->n_read].msg.type, LW_MSG_ERROR);
    }
    c->link = LW_E_EXHAUSTED;
    for (int i = 0; i < 1025; i++) {
        lw_msg m = job_prompt(i, LW_ARTEFACT_IMAGE);

        lw_msg_set(&m, width, 1);
        world_send(&w, c, &m);
    }
    assert_int_equal(lw_hub_sessions(w.hub, LW_FRONTEND), 0);
    assert_int_equal(lw_hub_counters_get(w.hub)->clients_lost, 1);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello),
        cmocka_unit_test(test_stale_credit_does_not_count),
        cmocka_unit_test(test_contracts_must_fit),
        cmocka_unit_test(test_wrong_doors),
        cmocka_unit_test(test_keys_decide_roles),
        cmocka_unit_test(test_session_limit),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_malformed_messages),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_budgets),
        cmocka_unit_test(test_unread_results_count),
        cmocka_unit_test(test_job_limit),
        cmocka_unit_test(test_submit_twice),
        cmocka_unit_test(test_clients_take_turns),
        cmocka_unit_test(test_idle_workers_get_the_work),
        cmocka_unit_test(test_least_loaded_worker_is_next),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_report_is_bounded),
        cmocka_unit_test(test_client_that_never_reads_is_shown_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
