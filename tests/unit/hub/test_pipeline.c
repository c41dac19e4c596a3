/* Jobs that go well: every way in and out, what workers are told, what clients are told. */

#include <math.h>

#include "tests/unit/hub/world.h"

static void assert_image(const lw_kept *result, int n, const char *prompt, const char *negative,
                         uint64_t seed)
{
    const lw_held *image = lw_kept_find(result, LW_T_IMAGE);

    assert_non_null(image);
    assert_int_equal(image->t.dtype, LW_U8);
    assert_int_equal(image->t.rank, 4);
    assert_int_equal(image->t.shape[0], n);
    assert_int_equal(image->t.shape[1], HEIGHT);
    assert_int_equal(image->t.shape[2], WIDTH);
    for (int i = 0; i < n; i++)
        assert_int_equal(((const uint8_t *)image->t.data)[i * WIDTH * HEIGHT * 3],
                         right_pixel(prompt, negative, seed + (uint64_t)i));
}

/* What a request leaves open is the model's to say, wherever the request comes from. */
static void test_size_of_the_model(void **state)
{
    lw_msg m;
    const lw_kept *task;
    peer *client, *denoiser, *encoder;
    world w;

    (void)state;
    world_init(&w, NULL);
    encoder = world_worker(&w, LW_ROLE_ENCODER, "encoder");
    denoiser = world_peer(&w, LW_ROLE_DENOISER, "denoiser");
    lw_contract_set(&denoiser->contract, width, 48);
    lw_contract_set(&denoiser->contract, height, 32);
    lw_contract_set(&denoiser->contract, steps, 3);
    world_join(&w, denoiser);
    client = world_client(&w, "client");
    lw_msg_init(&m, LW_MSG_SUBMIT, job_id(1));
    lw_msg_set(&m, from, LW_ARTEFACT_PROMPT);
    lw_msg_set(&m, to, LW_ARTEFACT_LATENTS);
    lw_msg_set(&m, prompt, "a red circle");
    world_send(&w, client, &m);
    (void)mail_expect(client, LW_MSG_ACCEPTED);
    (void)work_one(&w, encoder);
    task = work_take(denoiser);
    assert_int_equal(task->msg.width, 48);
    assert_int_equal(task->msg.height, 32);
    assert_int_equal(task->msg.steps, 3);
    world_deinit(&w);
}

static void test_prompt_to_image(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_IMAGE);
    const lw_kept *k, *task;
    peer *client;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    client = world_client(&w, "client");
    lw_msg_set(&m, system_prompt, "you paint");
    lw_msg_set(&m, layer, -3);
    world_send(&w, client, &m);
    k = mail_expect(client, LW_MSG_ACCEPTED);
    assert_int_equal(k->msg.queue_pos, 0);
    assert_int_equal(k->msg.seed, 7);

    task = work_one(&w, t.encoder);
    assert_int_equal(task->msg.op, LW_OP_ENCODE);
    assert_string_equal(task->msg.prompt, "a red circle");
    assert_string_equal(task->msg.system_prompt, "you paint");
    assert_int_equal(task->msg.layer, -3);
    assert_int_equal(task->n_tensors, 0);

    task = work_take(t.denoiser);
    assert_int_equal(task->msg.op, LW_OP_DENOISE);
    assert_int_equal(task->msg.width, WIDTH);
    assert_int_equal(task->msg.steps, STEPS);
    assert_int_equal(task->msg.seed, 7);
    assert_int_equal(task->msg.n, 1);
    assert_int_equal(task->msg.checkpoint_every, 1);
    assert_false(lw_msg_has(&task->msg, start_step));
    assert_int_equal(task->n_tensors, 1);
    work_progress(&w, t.denoiser, task, 2, false);
    k = mail_expect(client, LW_MSG_PROGRESS);
    assert_int_equal(k->msg.op, LW_OP_DENOISE);
    assert_int_equal(k->msg.step, 2);
    assert_int_equal(k->msg.total, STEPS);
    assert_string_equal(k->msg.worker, "denoiser");
    work_progress(&w, t.denoiser, task, 2, true);
    mail_none(client); /* checkpoints are the hub's own business */
    work_answer(&w, t.denoiser, task);

    task = work_one(&w, t.decoder);
    assert_int_equal(task->msg.op, LW_OP_DECODE);

    k = mail_expect(client, LW_MSG_RESULT);
    assert_memory_equal(k->msg.id, job_id(1), 16);
    assert_int_equal(k->msg.to, LW_ARTEFACT_IMAGE);
    assert_int_equal(k->msg.width, WIDTH);
    assert_int_equal(k->msg.n, 1);
    assert_int_equal(k->msg.seed, 7);
    assert_int_equal(k->msg.steps, STEPS);
    assert_int_equal(k->msg.sigmas.n, STEPS + 1);
    assert_int_equal(k->msg.n_tokens, strlen("a red circle") + 1);
    assert_false(k->msg.truncated);
    assert_string_equal(k->msg.text_digest, "d1");
    assert_image(k, 1, "a red circle", NULL, 7);
    assert_non_null(lw_kept_find(k, LW_T_TOKEN_IDS));
    assert_int_equal(k->n_tensors, 2);
    mail_none(client);
    assert_int_equal(lw_hub_counters_get(w.hub)->jobs_done, 1);
    world_deinit(&w);
}

/* The result says who did each stage; lw_kept drops that, so it is read as it is sent. */
static lw_stages last_stages;

static lw_status spy(void *ctx, lw_hub_side side, const lw_peer *to, const lw_msg *m, lw_err *err)
{
    (void)ctx, (void)side, (void)to, (void)err;
    if (m->type == LW_MSG_RESULT) {
        last_stages = m->stages;
        assert_true(lw_msg_has(m, stages));
        assert_string_equal(m->stages.by_op[LW_OP_ENCODE].worker, "enc");
        assert_string_equal(m->stages.by_op[LW_OP_ENCODE].model_id, "toy");
        assert_string_equal(m->stages.by_op[LW_OP_ENCODE].weights_digest, "encoder");
        assert_string_equal(m->stages.by_op[LW_OP_ENCODE].backend, "ref");
    }
    return LW_OK;
}

static void no_random(void *ctx, void *buf, size_t n)
{
    (void)ctx;
    memset(buf, 3, n);
}

static void test_result_names_the_stages(void **state)
{
    const lw_hub_io io = { .send = spy, .random = no_random };
    const lw_hub_params p = { 0 };
    const lw_peer enc = { .len = 1, .id = "e" }, cli = { .len = 1, .id = "c" };
    float row[DIM] = { 0 };
    lw_tensor rows = lw_tensor_2d(row, LW_F32, 1, DIM);
    lw_hub *hub;
    lw_err err = { 0 };
    lw_msg m;

    (void)state;
    assert_ok(lw_hub_create(&p, &io, 0, &hub, &err), &err);
    lw_msg_init(&m, LW_MSG_HELLO, NULL);
    lw_msg_set(&m, role, LW_ROLE_CLIENT);
    lw_hub_receive(hub, LW_FRONTEND, &cli, &m, 0);
    lw_msg_set(&m, role, LW_ROLE_ENCODER);
    lw_msg_set(&m, name, "enc");
    m.instance[0] = 1;
    lw_contract_set(&m.contract, dim, DIM);
    lw_contract_set(&m.contract, model_id, "toy");
    lw_contract_set(&m.contract, weights_digest, "encoder");
    lw_contract_set(&m.contract, backend, "ref");
    lw_hub_receive(hub, LW_BACKEND, &enc, &m, 0);
    lw_msg_init(&m, LW_MSG_HEARTBEAT, NULL);
    lw_msg_set(&m, credits, 1);
    lw_hub_receive(hub, LW_BACKEND, &enc, &m, 0);
    m = job_prompt(1, LW_ARTEFACT_EMBEDS);
    lw_hub_receive(hub, LW_FRONTEND, &cli, &m, 0);
    lw_msg_init(&m, LW_MSG_RESULT, (const uint8_t *)"\3\3\3\3\3\3\3\3\3\3\3\3\3\3\3\3");
    lw_msg_set(&m, t_ms, 12.5);
    assert_ok(lw_msg_tensor_add(&m, LW_T_PROMPT_EMBEDS, &rows, NULL, &err), &err);
    lw_hub_receive(hub, LW_BACKEND, &enc, &m, 0);
    assert_int_equal(lw_hub_counters_get(hub)->jobs_done, 1);
    assert_true(last_stages.by_op[LW_OP_ENCODE].t_ms == 12.5);
    assert_false(last_stages.by_op[LW_OP_ENCODE].cached);
    assert_true(last_stages.by_op[LW_OP_DENOISE].has == 0);

    m = job_prompt(2, LW_ARTEFACT_EMBEDS); /* the same text again */
    lw_hub_receive(hub, LW_FRONTEND, &cli, &m, 0);
    assert_int_equal(lw_hub_counters_get(hub)->jobs_done, 2);
    assert_true(last_stages.by_op[LW_OP_ENCODE].cached);
    lw_hub_destroy(&hub);
}

static void test_early_exits(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_EMBEDS);
    const lw_kept *k;
    peer *client;
    world w;

    (void)state;
    world_init(&w, NULL);
    world_trio(&w);
    client = world_client(&w, "client");
    world_send(&w, client, &m);
    work_all(&w);
    mail_expect(client, LW_MSG_ACCEPTED);
    k = mail_expect(client, LW_MSG_RESULT);
    assert_non_null(lw_kept_find(k, LW_T_PROMPT_EMBEDS));
    assert_non_null(lw_kept_find(k, LW_T_TOKEN_IDS));
    assert_int_equal(k->n_tensors, 2);
    assert_false(lw_msg_has(&k->msg, seed));
    assert_int_equal(lw_hub_counters_get(w.hub)->tasks_sent, 1);

    m = job_prompt(2, LW_ARTEFACT_LATENTS);
    world_send(&w, client, &m);
    work_all(&w);
    mail_expect(client, LW_MSG_ACCEPTED);
    k = mail_expect(client, LW_MSG_RESULT);
    assert_int_equal(lw_kept_find(k, LW_T_LATENTS)->t.shape[1], CHANNELS);
    assert_null(lw_kept_find(k, LW_T_IMAGE));
    world_deinit(&w);
}

static void test_late_entries(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_EMBEDS), n;
    const lw_kept *embeds, *latents, *k;
    const lw_held *h;
    peer *client;
    world w;

    (void)state;
    world_init(&w, NULL);
    world_trio(&w);
    client = world_client(&w, "client");
    world_send(&w, client, &m);
    work_all(&w);
    embeds = mail_find(client, LW_MSG_RESULT);

    m = job_prompt(2, LW_ARTEFACT_LATENTS);
    lw_msg_set(&m, from, LW_ARTEFACT_EMBEDS);
    lw_msg_set(&m, n, 3);
    h = lw_kept_find(embeds, LW_T_PROMPT_EMBEDS);
    assert_ok(lw_held_add(h, &m, LW_T_PROMPT_EMBEDS, NULL), (lw_err *)&(lw_err){ 0 });
    world_send(&w, client, &m);
    work_all(&w);
    latents = mail_find(client, LW_MSG_RESULT);
    assert_int_equal(lw_kept_find(latents, LW_T_LATENTS)->t.shape[0], 3);
    assert_false(lw_msg_has(&latents->msg, n_tokens));

    lw_msg_init(&n, LW_MSG_SUBMIT, job_id(3));
    lw_msg_set(&n, from, LW_ARTEFACT_LATENTS);
    lw_msg_set(&n, to, LW_ARTEFACT_IMAGE);
    h = lw_kept_find(latents, LW_T_LATENTS);
    assert_ok(lw_held_add(h, &n, LW_T_LATENTS, NULL), (lw_err *)&(lw_err){ 0 });
    world_send(&w, client, &n);
    work_all(&w);
    k = mail_find(client, LW_MSG_RESULT);
    assert_image(k, 3, "a red circle", NULL, 7);
    assert_false(lw_msg_has(&k->msg, seed));

    lw_msg_init(&n, LW_MSG_SUBMIT, job_id(4)); /* and back */
    lw_msg_set(&n, from, LW_ARTEFACT_IMAGE);
    lw_msg_set(&n, to, LW_ARTEFACT_LATENTS);
    h = lw_kept_find(k, LW_T_IMAGE);
    assert_ok(lw_held_add(h, &n, LW_T_IMAGE, NULL), (lw_err *)&(lw_err){ 0 });
    world_send(&w, client, &n);
    work_all(&w);
    k = mail_find(client, LW_MSG_RESULT);
    h = lw_kept_find(k, LW_T_LATENTS);
    assert_int_equal(h->t.shape[0], 3);
    assert_int_equal(h->t.shape[3], WIDTH / DOWN);
    assert_true(lw_f32(&h->t)[0] == right_pixel("a red circle", NULL, 7));
    world_deinit(&w);
}

static void test_guidance_encodes_both_texts(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_IMAGE);
    const lw_kept *k;
    peer *client;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    client = world_client(&w, "client");
    lw_msg_set(&m, guidance, 4);
    lw_msg_set(&m, negative_prompt, "blurry");
    lw_msg_set(&m, raw, true);
    world_send(&w, client, &m);
    k = work_one(&w, t.encoder);
    assert_string_equal(k->msg.prompt, "a red circle");
    k = work_one(&w, t.encoder);
    assert_string_equal(k->msg.prompt, "blurry");
    assert_true(k->msg.raw);
    assert_false(lw_msg_has(&k->msg, negative_prompt));
    k = work_one(&w, t.denoiser);
    assert_true(k->msg.guidance == 4);
    assert_non_null(lw_kept_find(k, LW_T_NEGATIVE_EMBEDS));
    work_all(&w);
    k = mail_find(client, LW_MSG_RESULT);
    assert_image(k, 1, "a red circle", "blurry", 7);
    assert_int_equal(k->msg.n_tokens, strlen("a red circle") + 1); /* of the positive text */

    /* Without a text the negative branch is the empty one, through the template. */
    m = job_prompt(2, LW_ARTEFACT_EMBEDS);
    lw_msg_set(&m, guidance, 4);
    lw_msg_set(&m, raw, true);
    world_send(&w, client, &m);
    k = work_one(&w, t.encoder); /* the positive text is in the cache */
    assert_string_equal(k->msg.prompt, "");
    assert_false(lw_msg_get(&k->msg, raw, false));
    k = mail_find(client, LW_MSG_RESULT);
    assert_non_null(lw_kept_find(k, LW_T_NEGATIVE_EMBEDS));
    assert_non_null(lw_kept_find(k, LW_T_PROMPT_EMBEDS));
    world_deinit(&w);
}

static void test_pictures_are_spread(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_IMAGE);
    peer *client, *denoiser[3];
    const lw_kept *k;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    denoiser[0] = t.denoiser;
    denoiser[1] = world_worker(&w, LW_ROLE_DENOISER, "second");
    denoiser[2] = world_worker(&w, LW_ROLE_DENOISER, "third");
    client = world_client(&w, "client");
    lw_msg_set(&m, n, 5);
    world_send(&w, client, &m);
    work_one(&w, t.encoder);
    for (int i = 2; i >= 0; i--) { /* answered in the wrong order */
        k = work_take(denoiser[i]);
        assert_int_equal(k->msg.n, 1);
        work_answer(&w, denoiser[i], k);
    }
    work_all(&w);
    k = mail_find(client, LW_MSG_RESULT);
    assert_image(k, 5, "a red circle", NULL, 7);
    assert_int_equal(mail_count(client, LW_MSG_RESULT, NULL), 1);
    world_deinit(&w);
}

static void test_batches(void **state)
{
    const lw_hub_params p = { .batch = 2 };
    lw_msg m = job_prompt(1, LW_ARTEFACT_IMAGE);
    const uint64_t counts[] = { 2, 2, 1 };
    peer *client;
    const lw_kept *k;
    trio t;
    world w;

    (void)state;
    world_init(&w, &p);
    t = world_trio(&w);
    client = world_client(&w, "client");
    lw_msg_set(&m, n, 5);
    world_send(&w, client, &m);
    work_one(&w, t.encoder);
    for (uint64_t i = 0; i < 3; i++) {
        k = work_one(&w, t.denoiser);
        assert_int_equal(k->msg.n, counts[i]);
        assert_int_equal(k->msg.seed, 7 + 2 * i);
    }
    work_all(&w);
    assert_image(mail_find(client, LW_MSG_RESULT), 5, "a red circle", NULL, 7);
    world_deinit(&w);
}

static void test_random_seed_is_told(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_LATENTS);
    uint64_t seed;
    peer *client;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    client = world_client(&w, "client");
    m.has[LW_F_seed / 64] &= ~(UINT64_C(1) << (LW_F_seed % 64));
    world_send(&w, client, &m);
    seed = mail_expect(client, LW_MSG_ACCEPTED)->msg.seed;
    assert_int_not_equal(seed, 7); /* what the field holds that is not set */
    assert_int_not_equal(seed, 0);
    work_one(&w, t.encoder);
    assert_int_equal(work_one(&w, t.denoiser)->msg.seed, seed);
    assert_int_equal(mail_expect(client, LW_MSG_RESULT)->msg.seed, seed);
    world_deinit(&w);
}

static void test_same_prompt_is_encoded_once(void **state)
{
    peer *client;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    client = world_client(&w, "client");
    for (int i = 1; i <= 6; i++) { /* all submitted before the first is encoded */
        lw_msg m = job_prompt(i, LW_ARTEFACT_IMAGE);

        lw_msg_set(&m, seed, (uint64_t)i);
        world_send(&w, client, &m);
    }
    work_all(&w);
    assert_int_equal(mail_count(t.encoder, LW_MSG_TASK, NULL), 1);
    for (int i = 1; i <= 6; i++)
        assert_image(mail_find(client, LW_MSG_RESULT), 1, "a red circle", NULL, (uint64_t)i);
    world_deinit(&w);
}

static void test_encoder_does_not_run_ahead(void **state)
{
    peer *client;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    client = world_client(&w, "client");
    for (int i = 1; i <= 20; i++) {
        char prompt[16];
        lw_msg m = job_prompt(i, LW_ARTEFACT_IMAGE);

        snprintf(prompt, sizeof(prompt), "prompt %d", i);
        lw_msg_set(&m, prompt, prompt);
        world_send(&w, client, &m);
    }
    for (int i = 0; i < 20 && t.encoder->n_read < t.encoder->n_mail; i++)
        work_one(&w, t.encoder);
    /* One denoiser: one task with it, and 2 x 1 + 2 waiting. */
    assert_int_equal(mail_count(t.encoder, LW_MSG_TASK, NULL), 5);
    work_all(&w);
    assert_int_equal(mail_count(client, LW_MSG_RESULT, NULL), 20);
    world_deinit(&w);
}

static void test_preview_passes_through(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_IMAGE), preview;
    uint8_t rgb[12] = { 9 };
    const int64_t shape[3] = { 2, 2, 3 };
    lw_tensor picture = lw_tensor_nd(rgb, LW_U8, 3, shape);
    const lw_kept *task, *k;
    peer *client;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    client = world_client(&w, "client");
    lw_msg_set(&m, preview_every, 2);
    world_send(&w, client, &m);
    work_one(&w, t.encoder);
    task = work_take(t.denoiser);
    assert_int_equal(task->msg.preview_every, 2);
    mail_find(client, LW_MSG_ACCEPTED);

    lw_msg_init(&preview, LW_MSG_PREVIEW, task->msg.id);
    lw_msg_set(&preview, step, 2);
    assert_int_equal(lw_msg_tensor_add(&preview, LW_T_PREVIEW, &picture, NULL, NULL), LW_OK);
    world_send(&w, t.denoiser, &preview);
    k = mail_expect(client, LW_MSG_PREVIEW);
    assert_memory_equal(k->msg.id, job_id(1), 16);
    assert_int_equal(k->msg.step, 2);
    assert_int_equal(*(const uint8_t *)lw_kept_find(k, LW_T_PREVIEW)->t.data, 9);

    /* A client that does not read gets no second one while the first is on its way. */
    client->hoards = true;
    for (int i = 0; i < 5; i++)
        world_send(&w, t.denoiser, &preview);
    assert_int_equal(mail_count(client, LW_MSG_PREVIEW, NULL), 2);
    work_answer(&w, t.denoiser, task);
    client->hoards = false;
    work_all(&w);
    mail_find(client, LW_MSG_RESULT);
    world_deinit(&w);
}

/* The text and its tokens come back without a row; nothing else is made for it. */
static void test_prompt_to_tokens(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_TOKEN_IDS);
    const lw_kept *task, *result;
    peer *client;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    client = world_client(&w, "client");
    lw_msg_set(&m, messages, "[]");
    lw_msg_set(&m, keep, "prompt");
    lw_msg_set(&m, guidance, 2); /* no negative text is shown */
    lw_msg_set(&m, n, 4);
    world_send(&w, client, &m);
    (void)mail_expect(client, LW_MSG_ACCEPTED);
    task = work_one(&w, t.encoder);
    assert_int_equal(task->msg.op, LW_OP_TOKENIZE);
    assert_string_equal(task->msg.messages, "[]");
    assert_string_equal(task->msg.keep, "prompt");
    result = mail_expect(client, LW_MSG_RESULT);
    assert_int_equal(result->msg.to, LW_ARTEFACT_TOKEN_IDS);
    assert_int_equal(result->msg.n_tokens, strlen("a red circle"));
    assert_int_equal(result->msg.n_text_tokens, strlen("a red circle"));
    assert_string_equal(result->msg.text_digest, "d2");
    assert_int_equal(result->n_tensors, 2);
    assert_memory_equal(lw_kept_find(result, LW_T_TEXT)->t.data, "a red circle",
                        strlen("a red circle"));
    mail_none(t.encoder);
    mail_none(t.denoiser);
    /* It is neither a stage on the way to something, nor one to come from. */
    m = job_prompt(2, LW_ARTEFACT_TOKEN_IDS);
    lw_msg_set(&m, from, LW_ARTEFACT_EMBEDS);
    world_send(&w, client, &m);
    assert_contains(mail_expect(client, LW_MSG_ERROR)->msg.message, "cannot go from prompt_embeds");
    m = job_prompt(3, LW_ARTEFACT_IMAGE);
    lw_msg_set(&m, from, LW_ARTEFACT_TOKEN_IDS);
    world_send(&w, client, &m);
    assert_contains(mail_expect(client, LW_MSG_ERROR)->msg.message, "cannot go from token_ids");
    world_deinit(&w);
}

/* What is done to the rows of the prompt is not done to those of the negative text. */
static void test_controls_of_both_texts(void **state)
{
    static const double blend[] = { -2, 1, -3, 1 };
    lw_msg m = job_prompt(1, LW_ARTEFACT_IMAGE);
    const lw_kept *task[2];
    peer *client;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    client = world_client(&w, "client");
    lw_msg_set(&m, guidance, 2);
    lw_msg_set(&m, negative_prompt, "blurry");
    lw_msg_set(&m, messages, "[]");
    lw_msg_set(&m, layer_blend, ((lw_f64s){ .v = blend, .n = 4 }));
    lw_msg_set(&m, long_prompt, "pool");
    lw_msg_set(&m, weighting, true);
    lw_msg_set(&m, noise, 0.5);
    lw_msg_set(&m, keep, "prompt");
    lw_msg_set(&m, blend_prompt, "b");
    lw_msg_set(&m, blend_share, 0.25);
    world_send(&w, client, &m);
    for (int i = 0; i < 2; i++) {
        const lw_msg *k;

        task[i] = work_one(&w, t.encoder);
        k = &task[i]->msg;
        assert_string_equal(k->messages, "[]");
        assert_int_equal(k->layer_blend.n, 4);
        assert_true(k->layer_blend.v[2] == -3);
        assert_string_equal(k->long_prompt, "pool");
        assert_string_equal(k->keep, "prompt");
        assert_int_equal(lw_msg_has(k, weighting), i == 0);
        assert_int_equal(lw_msg_has(k, noise), i == 0);
        assert_int_equal(lw_msg_has(k, blend_prompt), i == 0);
        assert_int_equal(lw_msg_has(k, blend_share), i == 0);
    }
    assert_int_equal(task[0]->msg.noise_seed, 7); /* the job's seed, when it says no other */
    /* Of an empty text `keep prompt` would leave nothing. */
    m = job_prompt(2, LW_ARTEFACT_IMAGE);
    lw_msg_set(&m, guidance, 2);
    lw_msg_set(&m, keep, "prompt");
    world_send(&w, client, &m);
    task[0] = work_one(&w, t.encoder);
    assert_true(lw_msg_has(&task[0]->msg, keep));
    task[1] = work_one(&w, t.encoder);
    assert_string_equal(task[1]->msg.prompt, "");
    assert_false(lw_msg_has(&task[1]->msg, keep));
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt_to_image),
        cmocka_unit_test(test_prompt_to_tokens),
        cmocka_unit_test(test_controls_of_both_texts),
        cmocka_unit_test(test_size_of_the_model),
        cmocka_unit_test(test_result_names_the_stages),
        cmocka_unit_test(test_early_exits),
        cmocka_unit_test(test_late_entries),
        cmocka_unit_test(test_guidance_encodes_both_texts),
        cmocka_unit_test(test_pictures_are_spread),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_random_seed_is_told),
        cmocka_unit_test(test_same_prompt_is_encoded_once),
        cmocka_unit_test(test_encoder_does_not_run_ahead),
        cmocka_unit_test(test_preview_passes_through),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
