/* Jobs that do not go well: workers that die, hang, fail or lie, and clients that leave. */

#include "tests/unit/hub/world.h"

static const lw_hub_counters *counters(const world *w)
{
    return lw_hub_counters_get(w->hub);
}

/* A world with a client whose job 1 is being denoised by `*ret_busy`. */
static const lw_kept *start_denoising(world *w, peer **ret_client, peer **ret_busy, trio *t)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_IMAGE);

    *t = world_trio(w);
    *ret_client = world_client(w, "client");
    world_send(w, *ret_client, &m);
    work_one(w, t->encoder);
    *ret_busy = t->denoiser;
    mail_expect(*ret_client, LW_MSG_ACCEPTED);
    return work_take(t->denoiser);
}

static void assert_right(const lw_kept *result)
{
    const lw_held *image = lw_kept_find(result, LW_T_IMAGE);

    assert_non_null(image);
    assert_int_equal(*(const uint8_t *)image->t.data, right_pixel("a red circle", NULL, 7));
}

static void test_dead_worker(void **state)
{
    peer *client, *busy, *second;
    const lw_kept *task, *again;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    busy->silent = true; /* before its first heartbeat, and another worker is there */
    second = world_worker(&w, LW_ROLE_DENOISER, "second");
    work_progress(&w, busy, task, 2, true);
    world_wait(&w, 2000);
    assert_int_equal(mail_count(second, LW_MSG_TASK, NULL), 0);
    world_wait(&w, 1500);
    again = work_take(second);
    assert_memory_not_equal(again->msg.id, task->msg.id, 16);
    assert_int_equal(again->msg.attempt, 1);
    assert_int_equal(again->msg.seed, 7);
    assert_int_equal(again->msg.start_step, 2); /* from the checkpoint */
    assert_true(lw_f32(&lw_kept_find(again, LW_T_LATENTS)->t)[0] == 2);
    assert_int_equal(counters(&w)->workers_lost, 1);
    /* The dead one was only slow: its answer comes to nothing, and it is told to begin anew. */
    work_answer(&w, busy, task);
    mail_find(busy, LW_MSG_BYE);
    work_answer(&w, second, again);
    work_all(&w);
    assert_right(mail_find(client, LW_MSG_RESULT));
    assert_int_equal(mail_count(client, LW_MSG_RESULT, NULL), 1);
    assert_int_equal(counters(&w)->retries, 1);
    world_deinit(&w);
}

static void test_vanished_connection_is_noticed_at_once(void **state)
{
    peer *client, *busy, *second;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    start_denoising(&w, &client, &busy, &t);
    second = world_worker(&w, LW_ROLE_DENOISER, "second");
    busy->silent = true;
    busy->link = LW_E_UNAVAILABLE;
    world_wait(&w, 1000); /* the next heartbeat of the hub */
    work_one(&w, second);
    work_all(&w);
    assert_right(mail_find(client, LW_MSG_RESULT));
    world_deinit(&w);
}

static void test_goodbye_is_no_crime(void **state)
{
    peer *client, *busy;
    trio t;
    world w;
    lw_msg bye;

    (void)state;
    world_init(&w, NULL);
    start_denoising(&w, &client, &busy, &t);
    lw_msg_init(&bye, LW_MSG_BYE, NULL);
    for (int i = 0; i < 2; i++) { /* leaves in the middle of the task, comes again */
        world_send(&w, busy, &bye);
        busy->busy = false;
        busy->instance[5]++;
        world_join(&w, busy);
        work_take(busy);
    }
    assert_int_equal(counters(&w)->workers_lost, 0);
    assert_int_equal(counters(&w)->retries, 2);
    world_send(&w, busy, &bye); /* three times is enough */
    assert_contains(mail_find(client, LW_MSG_ERROR)->msg.message, "tried 3 times");
    world_deinit(&w);
}

static void test_poison(void **state)
{
    peer *client, *busy, *workers[3];
    const lw_kept *k;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    start_denoising(&w, &client, &busy, &t);
    for (int i = 0; i < 3; i++)
        workers[i] = world_worker(&w, LW_ROLE_DENOISER, "another");
    for (int i = 0; i < 2; i++) {
        busy->silent = true;
        world_wait(&w, 3500);
        for (int n = 0; i == 0 && n < 3; n++)
            if (workers[n]->n_read < workers[n]->n_mail)
                work_take(busy = workers[n]);
    }
    k = mail_find(client, LW_MSG_ERROR);
    assert_int_equal(k->msg.code, LW_E_UNAVAILABLE);
    assert_contains(k->msg.message, "2 workers were lost");
    assert_int_equal(k->msg.op, LW_OP_DENOISE);
    assert_true(k->msg.retryable);
    assert_int_equal(counters(&w)->workers_lost, 2); /* and no third */
    assert_int_equal(counters(&w)->jobs_failed, 1);
    world_deinit(&w);
}

static void test_retryable_errors(void **state)
{
    peer *client, *busy, *second;
    const lw_kept *task, *k;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    work_error(&w, busy, task, LW_E_NOMEM, true); /* alone: the same one tries again */
    task = work_take(busy);
    second = world_worker(&w, LW_ROLE_DENOISER, "second");
    work_error(&w, busy, task, LW_E_NOMEM, true);
    mail_none(busy); /* now there is another, so it must be the other */
    task = work_take(second);
    assert_int_equal(task->msg.attempt, 2);
    work_error(&w, second, task, LW_E_NOMEM, true);
    k = mail_find(client, LW_MSG_ERROR);
    assert_int_equal(k->msg.code, LW_E_NOMEM);
    assert_string_equal(k->msg.worker, "second");
    assert_contains(k->msg.message, "tried 3 times; the last: told to fail");
    assert_int_equal(mail_count(client, LW_MSG_ERROR, NULL), 1);
    world_deinit(&w);
}

/* The one that failed is free, and it is its turn; still another one gets the task. */
static void test_who_failed_is_not_asked_again(void **state)
{
    lw_msg m = job_prompt(2, LW_ARTEFACT_LATENTS);
    peer *client, *busy, *second;
    const lw_kept *task;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    second = world_worker(&w, LW_ROLE_DENOISER, "second");
    world_send(&w, client, &m);
    work_one(&w, second); /* used later than `busy` */
    work_error(&w, busy, task, LW_E_NOMEM, true);
    mail_none(busy);
    work_one(&w, second);
    work_all(&w);
    mail_find(client, LW_MSG_RESULT); /* of job 2 */
    assert_right(mail_find(client, LW_MSG_RESULT));
    world_deinit(&w);
}

/* A worker whose connection broke in the middle is not counted as killed by its task. */
static void test_reconnecting_worker_starts_over(void **state)
{
    peer *client, *busy;
    const lw_kept *task, *again;
    uint64_t epoch;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    epoch = busy->epoch;
    for (int i = 0; i < 2; i++) {
        busy->id.id[3]++; /* a new connection, the same process */
        busy->busy = false;
        world_join(&w, busy);
        again = work_take(busy);
    }
    assert_true(busy->epoch > epoch);
    assert_int_equal(lw_hub_sessions(w.hub, LW_BACKEND), 3);
    assert_int_equal(counters(&w)->workers_lost, 0);
    work_answer(&w, busy, task); /* of the first session */
    assert_int_equal(mail_count(client, LW_MSG_RESULT, NULL), 0);
    work_answer(&w, busy, again);
    work_all(&w);
    assert_right(mail_find(client, LW_MSG_RESULT));
    world_deinit(&w);
}

/* "I am leaving", "I am full": the same task must not bounce until it has had its chances. */
static void test_worker_that_takes_nothing(void **state)
{
    peer *client, *busy, *second;
    const lw_kept *task;
    lw_msg m;
    lw_err err = { 0 };
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    lw_fail(&err, LW_E_UNAVAILABLE, "the worker is leaving");
    lw_msg_error(&m, task->msg.id, &err);
    world_send(&w, busy, &m);
    busy->silent = true;
    world_wait(&w, 1000);
    mail_none(busy);
    second = world_worker(&w, LW_ROLE_DENOISER, "second");
    work_one(&w, second);
    work_all(&w);
    assert_right(mail_find(client, LW_MSG_RESULT));
    world_deinit(&w);
}

static void test_final_errors(void **state)
{
    peer *client, *busy;
    const lw_kept *task, *k;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    work_error(&w, busy, task, LW_E_INTERNAL, false);
    k = mail_expect(client, LW_MSG_ERROR);
    assert_memory_equal(k->msg.id, job_id(1), 16);
    assert_int_equal(k->msg.code, LW_E_INTERNAL);
    assert_int_equal(k->msg.op, LW_OP_DENOISE);
    assert_string_equal(k->msg.worker, "denoiser");
    assert_string_equal(k->msg.message, "told to fail");
    assert_false(k->msg.retryable);
    mail_none(busy);
    work_answer(&w, busy, task); /* an answer after the error */
    mail_none(client);
    assert_int_equal(counters(&w)->late_dropped, 1);
    world_deinit(&w);
}

static void test_one_bad_picture_ends_the_job(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_IMAGE);
    peer *client, *second;
    const lw_kept *a, *b;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    second = world_worker(&w, LW_ROLE_DENOISER, "second");
    client = world_client(&w, "client");
    lw_msg_set(&m, n, 4);
    world_send(&w, client, &m);
    work_one(&w, t.encoder);
    a = work_take(t.denoiser);
    b = work_take(second);
    work_error(&w, t.denoiser, a, LW_E_INTERNAL, false);
    assert_memory_equal(mail_find(second, LW_MSG_CANCEL)->msg.id, b->msg.id, 16);
    mail_find(client, LW_MSG_ERROR);
    work_answer(&w, second, b); /* did not see the CANCEL in time */
    work_all(&w);
    assert_int_equal(mail_count(client, LW_MSG_ERROR, NULL), 1);
    assert_int_equal(mail_count(client, LW_MSG_RESULT, NULL), 0);
    assert_int_equal(counters(&w)->tasks_sent, 3);
    world_deinit(&w);
}

static void test_wrong_results(void **state)
{
    float wrong[2] = { 0 };
    const int64_t shape[4] = { 1, 1, 1, 2 };
    lw_tensor t4 = lw_tensor_nd(wrong, LW_F32, 4, shape);
    peer *client, *busy;
    const lw_kept *task, *k;
    lw_msg m;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    lw_msg_init(&m, LW_MSG_RESULT, task->msg.id);
    assert_int_equal(lw_msg_tensor_add(&m, LW_T_LATENTS, &t4, NULL, NULL), LW_OK);
    world_send(&w, busy, &m);
    k = mail_expect(client, LW_MSG_ERROR);
    assert_int_equal(k->msg.code, LW_E_INTERNAL);
    assert_contains(k->msg.message, "latents = float32 [1, 1, 1, 2], expected");

    m = job_prompt(2, LW_ARTEFACT_EMBEDS);
    lw_msg_set(&m, prompt, "something new");
    world_send(&w, client, &m);
    task = work_take(t.encoder);
    lw_msg_init(&m, LW_MSG_RESULT, task->msg.id);
    world_send(&w, t.encoder, &m);
    assert_contains(mail_find(client, LW_MSG_ERROR)->msg.message, "lacks the tensor prompt_embeds");
    world_deinit(&w);
}

static void test_garbled_answer(void **state)
{
    peer *client, *busy;
    const lw_kept *task;
    lw_msg m;
    lw_err why = { 0 };
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    lw_msg_init(&m, LW_MSG_RESULT, task->msg.id);
    lw_fail(&why, LW_E_FORMAT, "a frame is missing");
    for (int i = 0; i < 3; i++) {
        lw_hub_malformed(w.hub, LW_BACKEND, &busy->id, &m, &why, w.now);
        busy->busy = false;
        world_credit(&w, busy, 1);
        if (i < 2) {
            task = work_take(busy);
            memcpy(m.id, task->msg.id, sizeof(m.id));
        }
    }
    assert_contains(mail_find(client, LW_MSG_ERROR)->msg.message, "a frame is missing");
    assert_int_equal(lw_hub_sessions(w.hub, LW_BACKEND), 2); /* and the third time it is out */
    world_deinit(&w);
}

static void test_stuck_worker(void **state)
{
    const lw_hub_params p = { .stuck_ms = 5000 };
    peer *client, *busy, *second;
    const lw_kept *task;
    lw_msg m = job_prompt(2, LW_ARTEFACT_LATENTS);
    trio t;
    world w;

    (void)state;
    world_init(&w, &p);
    task = start_denoising(&w, &client, &busy, &t);
    second = world_worker(&w, LW_ROLE_DENOISER, "second");
    busy->step_age_ms = 4900;
    world_beat(&w, busy);
    mail_none(second);
    busy->step_age_ms = 5100;
    world_beat(&w, busy);
    assert_int_equal(counters(&w)->workers_stuck, 1);
    assert_memory_equal(mail_find(busy, LW_MSG_CANCEL)->msg.id, task->msg.id, 16);
    work_one(&w, second);
    work_all(&w);
    assert_right(mail_find(client, LW_MSG_RESULT));

    /* It is given nothing, though it says it could, until it is seen idle. */
    world_send(&w, client, &m);
    work_all(&w);
    world_credit(&w, busy, 1);
    lw_msg_init(&m, LW_MSG_SUBMIT, NULL);
    m = job_prompt(3, LW_ARTEFACT_LATENTS);
    lw_msg_set(&m, n, 3);
    world_send(&w, client, &m);
    mail_none(busy);
    work_answer(&w, busy, task); /* late */
    assert_int_equal(counters(&w)->late_dropped, 1);
    mail_none(busy);
    world_beat(&w, busy);
    work_take(busy);
    world_deinit(&w);
}

static void test_slow_is_not_stuck(void **state)
{
    peer *client, *busy;
    const lw_kept *task;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    /* Nothing is known of this machine yet: the first step may take minutes. */
    busy->step_age_ms = 300000;
    world_beat(&w, busy);
    assert_int_equal(counters(&w)->workers_stuck, 0);
    /* A step took 100 s: ten times that is still no reason. */
    w.now += 100000;
    for (int i = 0; i < w.n_peers; i++)
        world_beat(&w, w.peers[i]);
    work_progress(&w, busy, task, 1, false);
    busy->step_age_ms = 990000;
    world_beat(&w, busy);
    assert_int_equal(counters(&w)->workers_stuck, 0);
    busy->step_age_ms = 1010000;
    world_beat(&w, busy);
    assert_int_equal(counters(&w)->workers_stuck, 1);
    world_deinit(&w);
}

static void test_task_lost_on_the_way(void **state)
{
    peer *client, *busy;
    const lw_kept *task;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    busy->busy = false; /* it never saw it, and says so with each heartbeat */
    world_wait(&w, 2000);
    assert_int_equal(counters(&w)->lost_tasks, 0);
    world_wait(&w, 3000);
    assert_int_equal(counters(&w)->lost_tasks, 1);
    assert_memory_not_equal(work_one(&w, busy)->msg.id, task->msg.id, 16);
    work_all(&w);
    assert_right(mail_find(client, LW_MSG_RESULT));
    world_deinit(&w);
}

static void test_full_queue_of_a_worker(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_EMBEDS);
    peer *client;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    client = world_client(&w, "client");
    t.encoder->link = LW_E_EXHAUSTED;
    world_send(&w, client, &m);
    t.encoder->link = LW_OK;
    world_wait(&w, 500);
    mail_none(t.encoder); /* its credit was taken back, */
    world_credit(&w, t.encoder, 1);
    assert_int_equal(work_one(&w, t.encoder)->msg.attempt, 0); /* and this is no second try */
    mail_find(client, LW_MSG_RESULT);
    world_deinit(&w);
}

static void test_cancel_everywhere(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_IMAGE), cancel;
    peer *client;
    const lw_kept *task, *k;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    t = world_trio(&w);
    client = world_client(&w, "client");
    for (int stage = 0; stage < 4; stage++) {
        peer *workers[] = { NULL, t.encoder, t.denoiser, t.decoder };
        char prompt[16];

        m = job_prompt(stage, LW_ARTEFACT_IMAGE);
        snprintf(prompt, sizeof(prompt), "prompt %d", stage);
        lw_msg_set(&m, prompt, prompt);
        if (stage == 0)
            world_credit(&w, t.encoder, 0);
        world_send(&w, client, &m);
        mail_expect(client, LW_MSG_ACCEPTED);
        if (stage > 1)
            work_one(&w, t.encoder);
        if (stage > 2)
            work_one(&w, t.denoiser);
        task = stage ? work_take(workers[stage]) : NULL;
        lw_msg_init(&cancel, LW_MSG_CANCEL, job_id(stage));
        lw_msg_set(&cancel, reason, "enough");
        world_send(&w, client, &cancel);
        world_send(&w, client, &cancel); /* idempotent */
        k = mail_expect(client, LW_MSG_CANCELLED);
        assert_memory_equal(k->msg.id, job_id(stage), 16);
        assert_string_equal(k->msg.reason, "enough");
        mail_none(client);
        if (!task) {
            world_credit(&w, t.encoder, 1);
            mail_none(t.encoder);
            continue;
        }
        assert_memory_equal(mail_expect(workers[stage], LW_MSG_CANCEL)->msg.id, task->msg.id, 16);
        mail_none(workers[stage]);
        lw_msg_init(&cancel, LW_MSG_CANCELLED, task->msg.id);
        world_send(&w, workers[stage], &cancel);
        workers[stage]->busy = false;
        world_credit(&w, workers[stage], 1);
    }
    mail_none(client);
    assert_int_equal(counters(&w)->jobs_cancelled, 4);
    /* All slots are free again. */
    m = job_prompt(9, LW_ARTEFACT_IMAGE);
    world_send(&w, client, &m);
    work_all(&w);
    assert_right(mail_find(client, LW_MSG_RESULT));
    world_deinit(&w);
}

/* Cancelled at random moments, thousands of times: no slot, job or byte is lost. */
static void test_cancels_leak_nothing(void **state)
{
    peer *client;
    world w;
    uint32_t r = 1;

    (void)state;
    world_init(&w, NULL);
    world_trio(&w);
    client = world_client(&w, "client");
    for (int i = 0; i < 2000; i++) {
        lw_msg m = job_prompt(i, LW_ARTEFACT_IMAGE), cancel;
        char prompt[16];

        snprintf(prompt, sizeof(prompt), "prompt %d", i);
        lw_msg_set(&m, prompt, prompt);
        lw_msg_set(&m, n, 2);
        world_send(&w, client, &m);
        r = r * 1664525 + 1013904223;
        for (uint32_t k = 0; k < (r >> 28) % 7; k++) /* some work is done */
            for (int p = 0; p < 3; p++)
                if (w.peers[p]->n_read < w.peers[p]->n_mail) {
                    const lw_kept *mail = mail_next(w.peers[p]);

                    if (mail->msg.type == LW_MSG_TASK)
                        work_answer(&w, w.peers[p], mail);
                }
        lw_msg_init(&cancel, LW_MSG_CANCEL, job_id(i));
        world_send(&w, client, &cancel);
        for (int p = 0; p < 3; p++) /* workers answer what they have, or give it up */
            while (w.peers[p]->n_read < w.peers[p]->n_mail) {
                const lw_kept *mail = mail_next(w.peers[p]);

                if (mail->msg.type != LW_MSG_TASK)
                    continue;
                lw_msg_init(&cancel, LW_MSG_CANCELLED, mail->msg.id);
                world_send(&w, w.peers[p], &cancel);
                world_credit(&w, w.peers[p], 1);
            }
        for (int p = 0; p < 4; p++) {
            for (int k = 0; k < w.peers[p]->n_mail; k++)
                lw_kept_drop(&w.peers[p]->mail[k]);
            w.peers[p]->n_mail = w.peers[p]->n_read = 0;
        }
    }
    assert_int_equal(counters(&w)->jobs_accepted, 2000);
    assert_int_equal(counters(&w)->jobs_done + counters(&w)->jobs_cancelled, 2000);
    assert_true(counters(&w)->jobs_cancelled > 100);
    for (int p = 0; p < 3; p++)
        world_credit(&w, w.peers[p], 1);
    {
        lw_msg m = job_prompt(3000, LW_ARTEFACT_IMAGE);
        char *report;

        world_send(&w, client, &m);
        work_all(&w);
        assert_right(mail_find(client, LW_MSG_RESULT));
        report = lw_hub_report(w.hub, w.now);
        assert_contains(report, "\"n_jobs\":0");
        assert_contains(report, "\"reserved_bytes\":0");
        free(report);
    }
    world_deinit(&w);
}

static void test_client_vanishes(void **state)
{
    peer *client, *busy, *other;
    const lw_kept *task;
    char *report;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    other = world_client(&w, "other");
    client->silent = true;
    world_wait(&w, 3500);
    assert_memory_equal(mail_find(busy, LW_MSG_CANCEL)->msg.id, task->msg.id, 16);
    assert_int_equal(counters(&w)->clients_lost, 1);
    report = lw_hub_report(w.hub, w.now);
    assert_contains(report, "\"n_jobs\":0");
    assert_contains(report, "\"reserved_bytes\":0");
    free(report);
    mail_none(other);
    world_deinit(&w);
}

static void test_client_comes_back(void **state)
{
    lw_msg m = job_prompt(1, LW_ARTEFACT_IMAGE);
    peer *client, *busy, *back;
    const lw_kept *task;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    client->link = LW_E_UNAVAILABLE; /* its connection breaks; */
    client->silent = true;
    world_wait(&w, 1500);
    work_answer(&w, busy, task);
    work_all(&w); /* the picture is ready, but there is nobody */
    back = world_peer(&w, LW_ROLE_CLIENT, "client");
    memcpy(back->instance, client->instance, sizeof(back->instance));
    world_hello(&w, back);
    mail_expect(back, LW_MSG_WELCOME);
    world_send(&w, back, &m); /* the same job again */
    world_wait(&w, 250);
    assert_right(mail_find(back, LW_MSG_RESULT));
    assert_int_equal(mail_count(back, LW_MSG_RESULT, NULL), 1);
    assert_int_equal(counters(&w)->jobs_cancelled, 0);
    world_deinit(&w);
}

static void test_slow_client_gets_its_answers(void **state)
{
    peer *client, *busy;
    const lw_kept *task, *k;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    client->link = LW_E_EXHAUSTED;
    for (uint64_t step = 1; step <= 3; step++)
        work_progress(&w, busy, task, step, false);
    client->link = LW_OK;
    world_wait(&w, 250);
    k = mail_expect(client, LW_MSG_PROGRESS); /* only the newest */
    assert_int_equal(k->msg.step, 3);
    mail_none(client);
    client->link = LW_E_EXHAUSTED;
    work_answer(&w, busy, task);
    work_all(&w);
    world_wait(&w, 5000);
    client->link = LW_OK;
    world_wait(&w, 250);
    assert_right(mail_expect(client, LW_MSG_RESULT));
    world_wait(&w, 1000);
    assert_int_equal(mail_count(client, LW_MSG_RESULT, NULL), 1);
    world_deinit(&w);
}

static void test_missing_role(void **state)
{
    const lw_hub_params p = { .wait_ms = 10000 };
    lw_msg m = job_prompt(1, LW_ARTEFACT_IMAGE);
    peer *client, *encoder;
    const lw_kept *k;
    char *report;
    world w;

    (void)state;
    world_init(&w, &p);
    encoder = world_worker(&w, LW_ROLE_ENCODER, "encoder");
    world_worker(&w, LW_ROLE_DECODER, "decoder");
    client = world_client(&w, "client");
    world_send(&w, client, &m);
    work_one(&w, encoder);
    report = lw_hub_report(w.hub, w.now);
    assert_contains(report, "\"waiting_for\":[\"denoiser\"]");
    free(report);
    world_wait(&w, 9000);
    mail_expect(client, LW_MSG_ACCEPTED);
    mail_none(client);
    world_wait(&w, 1500);
    k = mail_expect(client, LW_MSG_ERROR);
    assert_int_equal(k->msg.code, LW_E_UNAVAILABLE);
    assert_contains(k->msg.message, "no denoiser");
    assert_contains(k->msg.message, "dit-svc");

    m = job_prompt(2, LW_ARTEFACT_IMAGE); /* one that comes in time is used */
    world_send(&w, client, &m);
    world_wait(&w, 5000);
    world_worker(&w, LW_ROLE_DENOISER, "denoiser");
    work_all(&w);
    assert_right(mail_find(client, LW_MSG_RESULT));
    world_deinit(&w);
}

static void test_hub_that_was_stopped_blames_nobody(void **state)
{
    peer *client, *busy;
    const lw_kept *task;
    trio t;
    world w;

    (void)state;
    world_init(&w, NULL);
    task = start_denoising(&w, &client, &busy, &t);
    lw_hub_tick(w.hub, w.now);
    w.now += 60000; /* SIGSTOP, SIGCONT */
    lw_hub_tick(w.hub, w.now);
    assert_int_equal(lw_hub_sessions(w.hub, LW_BACKEND), 3);
    assert_int_equal(lw_hub_sessions(w.hub, LW_FRONTEND), 1);
    work_answer(&w, busy, task);
    work_all(&w);
    assert_right(mail_find(client, LW_MSG_RESULT));
    world_deinit(&w);
}

static void test_drain(void **state)
{
    const lw_hub_params p = { .drain_ms = 5000 };
    lw_msg m = job_prompt(2, LW_ARTEFACT_IMAGE);
    peer *client, *busy, *late;
    const lw_kept *task, *k;
    trio t;
    world w;

    (void)state;
    world_init(&w, &p);
    task = start_denoising(&w, &client, &busy, &t);
    lw_hub_drain(w.hub, w.now);
    assert_false(lw_hub_drained(w.hub));
    world_send(&w, client, &m);
    k = mail_expect(client, LW_MSG_ERROR);
    assert_memory_equal(k->msg.id, job_id(2), 16);
    assert_int_equal(k->msg.code, LW_E_UNAVAILABLE);
    late = world_peer(&w, LW_ROLE_CLIENT, "late");
    world_hello(&w, late);
    assert_int_equal(mail_expect(late, LW_MSG_ERROR)->msg.code, LW_E_UNAVAILABLE);
    work_answer(&w, busy, task); /* what runs may finish */
    work_all(&w);
    assert_right(mail_expect(client, LW_MSG_RESULT));
    assert_true(lw_hub_drained(w.hub));
    lw_hub_goodbye(w.hub);
    mail_expect(client, LW_MSG_BYE);
    mail_find(busy, LW_MSG_DRAIN);
    world_deinit(&w);
}

/* An answer that was decided stands, even if it could not be delivered in time. */
static void test_drain_does_not_change_an_answer(void **state)
{
    const lw_hub_params p = { .drain_ms = 5000 };
    peer *client, *busy;
    const lw_kept *task;
    trio t;
    world w;

    (void)state;
    world_init(&w, &p);
    task = start_denoising(&w, &client, &busy, &t);
    client->link = LW_E_EXHAUSTED;
    work_answer(&w, busy, task);
    work_all(&w);
    lw_hub_drain(w.hub, w.now);
    world_wait(&w, 6000);
    client->link = LW_OK;
    world_wait(&w, 250);
    assert_right(mail_expect(client, LW_MSG_RESULT));
    mail_none(client);
    assert_true(lw_hub_drained(w.hub));
    world_deinit(&w);
}

static void test_drain_does_not_wait_for_ever(void **state)
{
    const lw_hub_params p = { .drain_ms = 5000, .keep_workers = true };
    peer *client, *busy;
    const lw_kept *k;
    trio t;
    world w;

    (void)state;
    world_init(&w, &p);
    start_denoising(&w, &client, &busy, &t);
    lw_hub_drain(w.hub, w.now);
    world_wait(&w, 4000);
    mail_none(client);
    world_wait(&w, 1500);
    k = mail_expect(client, LW_MSG_ERROR);
    assert_int_equal(k->msg.code, LW_E_UNAVAILABLE);
    assert_contains(k->msg.message, "shutting down");
    assert_true(lw_hub_drained(w.hub));
    lw_hub_goodbye(w.hub);
    mail_find(busy, LW_MSG_CANCEL);
    mail_expect(busy, LW_MSG_BYE);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dead_worker),
        cmocka_unit_test(test_vanished_connection_is_noticed_at_once),
        cmocka_unit_test(test_goodbye_is_no_crime),
        cmocka_unit_test(test_poison),
        cmocka_unit_test(test_retryable_errors),
        cmocka_unit_test(test_who_failed_is_not_asked_again),
        cmocka_unit_test(test_reconnecting_worker_starts_over),
        cmocka_unit_test(test_worker_that_takes_nothing),
        cmocka_unit_test(test_final_errors),
        cmocka_unit_test(test_one_bad_picture_ends_the_job),
        cmocka_unit_test(test_wrong_results),
        cmocka_unit_test(test_garbled_answer),
        cmocka_unit_test(test_stuck_worker),
        cmocka_unit_test(test_slow_is_not_stuck),
        cmocka_unit_test(test_task_lost_on_the_way),
        cmocka_unit_test(test_full_queue_of_a_worker),
        cmocka_unit_test(test_cancel_everywhere),
        cmocka_unit_test(test_cancels_leak_nothing),
        cmocka_unit_test(test_client_vanishes),
        cmocka_unit_test(test_client_comes_back),
        cmocka_unit_test(test_slow_client_gets_its_answers),
        cmocka_unit_test(test_missing_role),
        cmocka_unit_test(test_hub_that_was_stopped_blames_nobody),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drain_does_not_change_an_answer),
        cmocka_unit_test(test_drain_does_not_wait_for_ever),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
