/* The service loop as a real process, against a hub made of a few functions. */

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

#include "tests/unit/proto/minihub.h"
#include "tests/unit/unit.h"

static minihub hub;

static int setup(void **state)
{
    static int n;
    char name[32];

    (void)state;
    snprintf(name, sizeof(name), "hub%d.sock", n++);
    minihub_open(&hub, name);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fakesvc_kill_all();
    minihub_close(&hub);
    return 0;
}

#define OPTIONS(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define ENV(...)     ((const char *const[]){ __VA_ARGS__, NULL })
#define SLOW         "LATENTWIRE_FAKE_STEP_MS=100"

static float embeds[5 * 16];

/* A denoising task of 32x32 pixels; its first id byte is `key`. */
static void send_denoise(uint8_t key, uint64_t steps)
{
    const uint8_t id[16] = { key };
    lw_tensor t = lw_tensor_2d(embeds, LW_F32, 5, 16);
    lw_err err = { 0 };
    lw_msg m;

    lw_msg_init(&m, LW_MSG_TASK, id);
    lw_msg_set(&m, op, LW_OP_DENOISE);
    lw_msg_set(&m, attempt, 3);
    lw_msg_set(&m, width, 32);
    lw_msg_set(&m, height, 32);
    lw_msg_set(&m, steps, steps);
    lw_msg_set(&m, seed, 7);
    assert_ok(lw_msg_tensor_add(&m, LW_T_PROMPT_EMBEDS, &t, NULL, &err), &err);
    minihub_send(&hub, &m);
}

static void send_cancel(uint8_t key)
{
    const uint8_t id[16] = { key };
    lw_msg m;

    lw_msg_init(&m, LW_MSG_CANCEL, id);
    minihub_send(&hub, &m);
}

static void send_drain(void)
{
    lw_msg m;

    lw_msg_init(&m, LW_MSG_DRAIN, NULL);
    minihub_send(&hub, &m);
}

static void expect_credit(uint64_t n)
{
    while (minihub_expect(&hub, LW_MSG_CREDIT)->credits != n)
        ;
}

/* Progress of at least that step, so the task is in the middle. */
static void expect_step(uint64_t step)
{
    while (minihub_expect(&hub, LW_MSG_PROGRESS)->step < step)
        ;
}

static const lw_msg *expect_result(uint8_t key)
{
    const lw_msg *m = minihub_expect(&hub, LW_MSG_RESULT);

    assert_int_equal(m->id[0], key);
    return m;
}

/* ---- the session ---- */

static void the_handshake_says_what_it_is(void **state)
{
    const lw_msg *m;

    (void)state;
    fakesvc_start(&hub, "encoder", OPTIONS("--name", "enc"), NULL);
    m = minihub_expect(&hub, LW_MSG_HELLO);
    assert_int_equal(m->role, LW_ROLE_ENCODER);
    assert_string_equal(m->name, "enc");
    assert_int_equal(m->slots, 1);
    assert_int_equal(m->contract.dim, 16);
    assert_string_equal(m->contract.backend, "fake");
    assert_contains(m->build, "latentwire ");
}

static void heartbeats_tell_the_state(void **state)
{
    const lw_msg *m;

    (void)state;
    fakesvc_start(&hub, "denoiser", NULL, ENV("LATENTWIRE_FAKE_STEP_MS=400"));
    minihub_welcome(&hub);
    m = minihub_expect(&hub, LW_MSG_HEARTBEAT);
    assert_string_equal(m->state, "idle");
    assert_int_equal(m->credits, 1);
    assert_int_equal(m->epoch, hub.epoch);
    assert_false(lw_msg_has(m, in_flight));
    assert_true(m->rss_bytes > 100000);
    send_denoise(9, 1);
    do
        m = minihub_expect(&hub, LW_MSG_HEARTBEAT);
    while (!lw_msg_has(m, in_flight));
    assert_string_equal(m->state, "busy");
    assert_int_equal(m->credits, 0);
    assert_int_equal(m->in_flight[0], 9);
    assert_true(lw_msg_has(m, step_age_ms));
    expect_result(9);
    expect_credit(1);
}

static void a_hub_that_starts_later_is_found(void **state)
{
    (void)state;
    minihub_vanish(&hub);
    fakesvc_start(&hub, "decoder", NULL, NULL);
    usleep(300000);
    minihub_return(&hub);
    minihub_welcome(&hub);
}

/* The hub process dies: connections break. Another takes its place. */
static void a_new_hub_gets_no_old_results(void **state)
{
    uint8_t instance[16];
    int64_t start;

    (void)state;
    fakesvc_start(&hub, "denoiser", NULL, ENV(SLOW));
    memcpy(instance, minihub_expect(&hub, LW_MSG_HELLO)->instance, sizeof(instance));
    minihub_vanish(&hub); /* before WELCOME */
    minihub_return(&hub);
    minihub_welcome(&hub);
    send_denoise(1, 100);
    expect_step(2);
    minihub_vanish(&hub);
    usleep(100000);
    start = lw_now_ms();
    minihub_return(&hub);
    hub.epoch++;
    assert_memory_equal(minihub_expect(&hub, LW_MSG_HELLO)->instance, instance, sizeof(instance));
    minihub_greet(&hub); /* credit 1: the old task was given up */
    assert_in_range(lw_now_ms() - start, 0, 3000);
    assert_int_equal(hub.n_skipped[LW_MSG_RESULT], 0);
    assert_int_equal(hub.n_skipped[LW_MSG_CANCELLED], 0);
    send_denoise(2, 2);
    expect_result(2);
}

/* The same session after a broken connection: the task goes on, its result is wanted. */
static void the_same_epoch_gets_the_result(void **state)
{
    (void)state;
    fakesvc_start(&hub, "denoiser", NULL, ENV(SLOW));
    minihub_welcome(&hub);
    send_denoise(1, 8);
    expect_step(2);
    minihub_vanish(&hub);
    minihub_return(&hub);
    minihub_expect(&hub, LW_MSG_HELLO);
    minihub_greet(&hub);
    assert_int_equal(hub.n_skipped[LW_MSG_RESULT], 1); /* came before the credit, as it must */
}

/* The connection stands but nothing is heard: a hub that hangs. */
static void a_silent_hub_is_left(void **state)
{
    lw_peer before;

    (void)state;
    fakesvc_start(&hub, "encoder", NULL, NULL);
    minihub_welcome(&hub);
    before = hub.peer;
    hub.mute = true;
    minihub_expect(&hub, LW_MSG_HELLO);
    assert_false(before.len == hub.peer.len && memcmp(before.id, hub.peer.id, before.len) == 0);
}

static void no_welcome_means_another_try(void **state)
{
    lw_msg m;

    (void)state;
    fakesvc_start(&hub, "encoder", NULL, NULL);
    minihub_expect(&hub, LW_MSG_HELLO);
    lw_msg_init(&m, LW_MSG_BYE, NULL); /* "not now" */
    minihub_send(&hub, &m);
    minihub_welcome(&hub);
}

static void a_refusal_for_good_ends_the_program(void **state)
{
    pid_t pid = fakesvc_start(&hub, "encoder", NULL, NULL);
    lw_err err = { 0 };
    lw_msg m;

    (void)state;
    minihub_expect(&hub, LW_MSG_HELLO);
    lw_fail(&err, LW_E_PRECONDITION, "dim 16 does not fit the denoiser's 2560");
    lw_msg_error(&m, NULL, &err);
    minihub_send(&hub, &m);
    assert_int_equal(fakesvc_wait(pid), lw_status_exit(LW_E_PRECONDITION));
}

static void a_refusal_for_now_does_not(void **state)
{
    lw_err err = { 0 };
    lw_msg m;

    (void)state;
    fakesvc_start(&hub, "encoder", NULL, NULL);
    minihub_expect(&hub, LW_MSG_HELLO);
    lw_fail(&err, LW_E_EXHAUSTED, "too many workers");
    lw_msg_error(&m, NULL, &err);
    minihub_send(&hub, &m);
    minihub_welcome(&hub);
}

/* ---- tasks ---- */

static void a_task_is_answered(void **state)
{
    float first[16 * 16 * 4];
    const lw_msg *m;
    const lw_msg_tensor *t;

    (void)state;
    fakesvc_start(&hub, "denoiser", OPTIONS("--name", "dit"), NULL);
    minihub_welcome(&hub);
    for (int again = 0; again < 2; again++) {
        send_denoise((uint8_t)(1 + again), 4);
        m = minihub_expect(&hub, LW_MSG_PROGRESS);
        assert_int_equal(m->op, LW_OP_DENOISE);
        assert_int_equal(m->attempt, 3);
        assert_int_equal(m->total, 4);
        m = expect_result((uint8_t)(1 + again));
        assert_int_equal(m->op, LW_OP_DENOISE);
        assert_int_equal(m->attempt, 3);
        assert_string_equal(m->worker, "dit");
        assert_true(lw_msg_has(m, t_ms));
        t = lw_msg_tensor_find(m, LW_T_LATENTS);
        assert_non_null(t);
        assert_int_equal(t->t.rank, 4);
        assert_int_equal(lw_tensor_bytes(&t->t), 1 * 16 * 4 * 4 * 4);
        if (again)
            assert_memory_equal(t->t.data, first, lw_tensor_bytes(&t->t));
        else
            memcpy(first, t->t.data, lw_tensor_bytes(&t->t));
        expect_credit(1);
    }
}

/* The last progress before the result is the last step, however fast the steps were. */
static void progress_is_coalesced_not_lost(void **state)
{
    uint64_t last = 0;
    int n = 0;

    (void)state;
    fakesvc_start(&hub, "denoiser", NULL, NULL);
    minihub_welcome(&hub);
    send_denoise(1, 200);
    while (last < 200) {
        const lw_msg *m = minihub_expect(&hub, LW_MSG_PROGRESS);

        assert_true(m->step > last);
        last = m->step;
        n++;
    }
    expect_result(1);
    assert_in_range(n, 1, 200);
    assert_int_equal(hub.n_skipped[LW_MSG_RESULT], 0);
}

static void a_checkpoint_resumes_to_the_same_bits(void **state)
{
    const uint8_t id[16] = { 5 };
    static float state_at[16 * 4 * 4], whole[16 * 4 * 4];
    lw_tensor e = lw_tensor_2d(embeds, LW_F32, 5, 16), x;
    int64_t shape[4] = { 1, 16, 4, 4 };
    uint64_t step = 0;
    lw_err err = { 0 };
    lw_msg m;
    const lw_msg *r;

    (void)state;
    fakesvc_start(&hub, "denoiser", NULL, ENV("LATENTWIRE_FAKE_STEP_MS=10"));
    minihub_welcome(&hub);
    lw_msg_init(&m, LW_MSG_TASK, id);
    lw_msg_set(&m, op, LW_OP_DENOISE);
    lw_msg_set(&m, width, 32);
    lw_msg_set(&m, height, 32);
    lw_msg_set(&m, steps, 6);
    lw_msg_set(&m, seed, 7);
    lw_msg_set(&m, checkpoint_every, 2);
    assert_ok(lw_msg_tensor_add(&m, LW_T_PROMPT_EMBEDS, &e, NULL, &err), &err);
    minihub_send(&hub, &m);
    while (step == 0) {
        const lw_msg *p = minihub_expect(&hub, LW_MSG_PROGRESS);
        const lw_msg_tensor *t = lw_msg_tensor_find(p, LW_T_LATENTS);

        if (!t)
            continue;
        step = p->start_step;
        assert_int_equal(t->t.rank, 4);
        assert_int_equal(t->t.shape[0], 1);
        memcpy(state_at, t->t.data, sizeof(state_at));
    }
    assert_int_equal(step % 2, 0);
    r = expect_result(5);
    memcpy(whole, lw_msg_tensor_find(r, LW_T_LATENTS)->t.data, sizeof(whole));
    expect_credit(1);

    x = lw_tensor_nd(state_at, LW_F32, 4, shape);
    assert_ok(lw_msg_tensor_add(&m, LW_T_LATENTS, &x, NULL, &err), &err);
    lw_msg_set(&m, start_step, step);
    minihub_send(&hub, &m);
    r = expect_result(5);
    assert_memory_equal(lw_msg_tensor_find(r, LW_T_LATENTS)->t.data, whole, sizeof(whole));
}

static void previews_are_sent(void **state)
{
    const uint8_t id[16] = { 5 };
    lw_tensor e = lw_tensor_2d(embeds, LW_F32, 5, 16);
    lw_err err = { 0 };
    lw_msg m;
    const lw_msg *p;

    (void)state;
    fakesvc_start(&hub, "denoiser", NULL, ENV("LATENTWIRE_FAKE_STEP_MS=20"));
    minihub_welcome(&hub);
    lw_msg_init(&m, LW_MSG_TASK, id);
    lw_msg_set(&m, op, LW_OP_DENOISE);
    lw_msg_set(&m, width, 32);
    lw_msg_set(&m, height, 32);
    lw_msg_set(&m, steps, 4);
    lw_msg_set(&m, preview_every, 1);
    assert_ok(lw_msg_tensor_add(&m, LW_T_PROMPT_EMBEDS, &e, NULL, &err), &err);
    minihub_send(&hub, &m);
    p = minihub_expect(&hub, LW_MSG_PREVIEW);
    assert_int_equal(p->step, 1);
    assert_int_equal(p->id[0], 5);
    assert_int_equal(lw_msg_tensor_find(p, LW_T_LATENTS)->t.rank, 4);
    expect_result(5);
}

static void cancel_stops_within_a_step(void **state)
{
    const lw_msg *m;
    int64_t start;

    (void)state;
    fakesvc_start(&hub, "denoiser", NULL, ENV("LATENTWIRE_FAKE_STEP_MS=1000"));
    minihub_welcome(&hub);
    send_denoise(1, 100);
    usleep(50000);
    send_cancel(77); /* of another task: nothing happens */
    start = lw_now_ms();
    send_cancel(1);
    m = minihub_expect(&hub, LW_MSG_CANCELLED);
    assert_in_range(lw_now_ms() - start, 0, 900);
    assert_int_equal(m->id[0], 1);
    assert_int_equal(m->op, LW_OP_DENOISE);
    expect_credit(1);
    send_cancel(1); /* again: idempotent */
    send_denoise(2, 1);
    expect_result(2); /* the next task is not affected */
}

static void failures_are_told(void **state)
{
    const lw_msg *m;

    (void)state;
    fakesvc_start(&hub, "denoiser", OPTIONS("--name", "dit"),
                  ENV("LATENTWIRE_FAKE_ERROR_AT=2", "LATENTWIRE_FAKE_ERROR=out_of_memory"));
    minihub_welcome(&hub);
    send_denoise(1, 4);
    m = minihub_expect(&hub, LW_MSG_ERROR);
    assert_int_equal(m->id[0], 1);
    assert_int_equal(m->code, LW_E_NOMEM);
    assert_true(m->retryable);
    assert_int_equal(m->op, LW_OP_DENOISE);
    assert_int_equal(m->attempt, 3);
    assert_string_equal(m->worker, "dit");
    assert_contains(m->message, "told to fail at step 2");
    expect_credit(1);
    send_denoise(2, 1);
    expect_result(2);
}

static void a_second_task_is_refused(void **state)
{
    const lw_msg *m;

    (void)state;
    fakesvc_start(&hub, "denoiser", NULL, ENV(SLOW));
    minihub_welcome(&hub);
    send_denoise(1, 10);
    send_denoise(2, 10);
    m = minihub_expect(&hub, LW_MSG_ERROR);
    assert_int_equal(m->id[0], 2);
    assert_int_equal(m->code, LW_E_EXHAUSTED);
    assert_true(m->retryable);
    expect_result(1);
}

static void the_wrong_op_is_refused(void **state)
{
    const lw_msg *m;

    (void)state;
    fakesvc_start(&hub, "encoder", NULL, NULL);
    minihub_welcome(&hub);
    send_denoise(1, 10);
    m = minihub_expect(&hub, LW_MSG_ERROR);
    assert_int_equal(m->code, LW_E_UNIMPLEMENTED);
    assert_false(m->retryable);
    expect_credit(1);
}

/* ---- garbage ---- */

static void garbage_is_survived(void **state)
{
    static const struct {
        const char *p;
        size_t n;
    } garbage[] = {
#define BYTES(s) { s, sizeof(s) - 1 }
        BYTES(""),
        BYTES("\xc1"),
        BYTES("not msgpack at all"),
        BYTES("\x91\xdd\x10\x00\x00\x00"),
        BYTES("\x82\xa1v\x01\xa4type\xa4sing"),
        BYTES("\x82\xa1v\x09\xa4type\xa4task"),
        BYTES("\x82\xa1v\x01\xa4type\xa4task"),
        BYTES("\x83\xa1v\x01\xa4type\xa4task\xa2op\xa6"
              "encode"),
        BYTES("\x83\xa1v\x01\xa4type\xa6result\xa2op\x01"),
    };
    lw_packet many = { 0 };
    lw_err err = { 0 };

    (void)state;
    fakesvc_start(&hub, "denoiser", NULL, NULL);
    minihub_welcome(&hub);
    for (size_t i = 0; i < LW_ARRAY_LEN(garbage); i++)
        minihub_send_raw(&hub, garbage[i].p, garbage[i].n);
    for (int i = 0; i < 1 + LW_MAX_TENSORS; i++) /* frames that no tensor names */
        many.frames[many.n_frames++] = lw_frame_copy("x", 1);
    assert_ok(lw_sock_send(hub.sock, &hub.peer, &many, &err), &err);
    send_denoise(1, 2);
    expect_result(1);
    expect_credit(1);
}

/* A task that cannot be read is answered when its id can. */
static void a_malformed_task_is_answered(void **state)
{
    static const char header[] = "\x84\xa1v\x01\xa4type\xa4task\xa2id\xc4\x10"
                                 "0123456789abcdef\xa5width\xcd\xff\xff";
    const lw_msg *m;

    (void)state;
    fakesvc_start(&hub, "denoiser", NULL, NULL);
    minihub_welcome(&hub);
    minihub_send_raw(&hub, header, sizeof(header) - 1);
    m = minihub_expect(&hub, LW_MSG_ERROR);
    assert_memory_equal(m->id, "0123456789abcdef", 16);
    assert_int_equal(m->code, LW_E_INVALID);
    assert_contains(m->message, "op is missing");
    send_denoise(1, 1);
    expect_result(1);
}

/* ---- the end ---- */

static void drain_when_idle(void **state)
{
    pid_t pid = fakesvc_start(&hub, "decoder", NULL, NULL);

    (void)state;
    minihub_welcome(&hub);
    send_drain();
    assert_string_equal(minihub_expect(&hub, LW_MSG_BYE)->reason, "drained");
    assert_int_equal(fakesvc_wait(pid), 0);
}

static void drain_finishes_the_task(void **state)
{
    pid_t pid = fakesvc_start(&hub, "denoiser", NULL, ENV(SLOW));
    const lw_msg *m;

    (void)state;
    minihub_welcome(&hub);
    send_denoise(1, 5);
    expect_step(1);
    send_drain();
    do
        m = minihub_expect(&hub, LW_MSG_HEARTBEAT);
    while (strcmp(m->state, "draining") != 0);
    assert_int_equal(m->credits, 0);
    send_denoise(2, 5);
    do
        m = minihub_expect(&hub, LW_MSG_ERROR);
    while (m->id[0] != 2);
    assert_int_equal(m->code, LW_E_UNAVAILABLE);
    expect_result(1);
    minihub_expect(&hub, LW_MSG_BYE);
    assert_int_equal(fakesvc_wait(pid), 0);
}

static void sigterm_drains(void **state)
{
    pid_t pid = fakesvc_start(&hub, "denoiser", NULL, ENV(SLOW));

    (void)state;
    minihub_welcome(&hub);
    send_denoise(1, 5);
    expect_step(1);
    kill(pid, SIGTERM);
    expect_result(1);
    minihub_expect(&hub, LW_MSG_BYE);
    assert_int_equal(fakesvc_wait(pid), 0);
}

/* The time is over: the task goes back to the hub as one that may be tried again. */
static void sigterm_cancels_after_a_while(void **state)
{
    pid_t pid = fakesvc_start(&hub, "denoiser", OPTIONS("--drain-s", "0"), ENV(SLOW));
    const lw_msg *m;

    (void)state;
    minihub_welcome(&hub);
    send_denoise(1, 200);
    expect_step(1);
    kill(pid, SIGINT);
    m = minihub_expect(&hub, LW_MSG_ERROR);
    assert_int_equal(m->id[0], 1);
    assert_int_equal(m->code, LW_E_UNAVAILABLE);
    assert_true(m->retryable);
    minihub_expect(&hub, LW_MSG_BYE);
    assert_int_equal(fakesvc_wait(pid), 0);
}

static void a_second_signal_ends_at_once(void **state)
{
    pid_t pid = fakesvc_start(&hub, "denoiser", NULL, ENV("LATENTWIRE_FAKE_HANG_AT=1"));
    const lw_msg *m;
    uint64_t age = 0;

    (void)state;
    minihub_welcome(&hub);
    send_denoise(1, 5);
    do /* hangs now, and is heard all the same */
        m = minihub_expect(&hub, LW_MSG_HEARTBEAT);
    while (!lw_msg_has(m, in_flight));
    for (int i = 0; i < 2; i++) { /* the step does not move, and its age says so */
        m = minihub_expect(&hub, LW_MSG_HEARTBEAT);
        assert_true(m->step_age_ms > age);
        age = m->step_age_ms;
    }
    kill(pid, SIGTERM);
    do
        m = minihub_expect(&hub, LW_MSG_HEARTBEAT);
    while (strcmp(m->state, "draining") != 0);
    kill(pid, SIGTERM);
    assert_int_equal(fakesvc_wait(pid), 128 + SIGTERM);
}

static void a_task_that_hangs_does_not_keep_it(void **state)
{
    pid_t pid = fakesvc_start(&hub, "denoiser", OPTIONS("--drain-s", "0"),
                              ENV("LATENTWIRE_FAKE_HANG_AT=1"));
    const lw_msg *m;

    (void)state;
    minihub_welcome(&hub);
    send_denoise(1, 5);
    do
        m = minihub_expect(&hub, LW_MSG_HEARTBEAT);
    while (!lw_msg_has(m, in_flight));
    kill(pid, SIGTERM);
    assert_string_equal(minihub_expect(&hub, LW_MSG_BYE)->reason, "killed");
    assert_int_equal(fakesvc_wait(pid), 1);
}

static void sigterm_without_a_hub(void **state)
{
    pid_t pid;

    (void)state;
    minihub_vanish(&hub);
    pid = fakesvc_start(&hub, "encoder", NULL, NULL);
    usleep(200000);
    kill(pid, SIGTERM);
    assert_int_equal(fakesvc_wait(pid), 0);
    minihub_return(&hub);
}

/* sh starts a service, tells its pid and is killed: the service must go too. */
static void it_dies_with_its_parent(void **state)
{
    const char *root = getenv("LW_BUILD_ROOT");
    char shell[] = "sh", flag[] = "-c", command[1024];
    char *argv[] = { shell, flag, command, NULL };
    lw_peer worker;
    pid_t sh;
    lw_status s = LW_OK;

    (void)state;
    snprintf(command, sizeof(command),
             "%s/tests/interop/latentwire-fakesvc encoder --hub %s --die-with-parent & wait", root,
             hub.endpoint);
    assert_int_equal(posix_spawn(&sh, "/bin/sh", NULL, NULL, argv, environ), 0);
    minihub_welcome(&hub);
    worker = hub.peer;
    kill(sh, SIGKILL);
    waitpid(sh, NULL, 0);
    for (int64_t end = lw_now_ms() + 3000; s != LW_E_UNAVAILABLE && lw_now_ms() < end;) {
        lw_msg m;

        minihub_expect_none(&hub, LW_MSG_HELLO, 50);
        lw_msg_init(&m, LW_MSG_HEARTBEAT, NULL);
        s = lw_sock_send_msg(hub.sock, &worker, &m, NULL);
    }
    assert_int_equal(s, LW_E_UNAVAILABLE); /* its connection is gone */
}

/* ---- options ---- */

static void bad_options_end_with_their_code(void **state)
{
    (void)state;
    assert_int_equal(
        fakesvc_wait(fakesvc_start(&hub, "encoder", OPTIONS("--device", "cuda:0"), NULL)),
        lw_status_exit(LW_E_UNIMPLEMENTED));
    assert_int_equal(
        fakesvc_wait(fakesvc_start(&hub, "encoder", OPTIONS("--device", "toaster"), NULL)),
        lw_status_exit(LW_E_INVALID));
    assert_int_equal(
        fakesvc_wait(fakesvc_start(&hub, "encoder", OPTIONS("--hub", "tcp://127.0.0.1:1"), NULL)),
        lw_status_exit(LW_E_DENIED));
    assert_int_equal(fakesvc_wait(fakesvc_start(&hub, "encoder", OPTIONS("--nonsense"), NULL)),
                     lw_status_exit(LW_E_INVALID));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(the_handshake_says_what_it_is),
        T(heartbeats_tell_the_state),
        T(a_hub_that_starts_later_is_found),
        T(a_new_hub_gets_no_old_results),
        T(the_same_epoch_gets_the_result),
        T(a_silent_hub_is_left),
        T(no_welcome_means_another_try),
        T(a_refusal_for_good_ends_the_program),
        T(a_refusal_for_now_does_not),
        T(a_task_is_answered),
        T(progress_is_coalesced_not_lost),
        T(a_checkpoint_resumes_to_the_same_bits),
        T(previews_are_sent),
        T(cancel_stops_within_a_step),
        T(failures_are_told),
        T(a_second_task_is_refused),
        T(the_wrong_op_is_refused),
        T(garbage_is_survived),
        T(a_malformed_task_is_answered),
        T(drain_when_idle),
        T(drain_finishes_the_task),
        T(sigterm_drains),
        T(sigterm_cancels_after_a_while),
        T(a_second_signal_ends_at_once),
        T(a_task_that_hangs_does_not_keep_it),
        T(sigterm_without_a_hub),
        T(it_dies_with_its_parent),
        T(bad_options_end_with_their_code),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
