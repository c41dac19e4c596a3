/*
 * Workers that are killed, stopped, hang, fail or do not fit. In each case the job is answered
 * once, and if it is a picture, it is the picture of the undisturbed run.
 */

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/failure/fleet.h"

#define STEPS 4

/*
 * A broken connection is noticed within a heartbeat of 200 ms. Silence alone is given two seconds,
 * because a machine that runs many tests at once is slow, not dead.
 */
static const char *const fast[] = { "--heartbeat-ms=200", "--heartbeat-misses=10",
                                    "--stuck-ms=1500", NULL };

static void undisturbed(lw_kept *ret, int n)
{
    lw_msg job = fleet_job("a cat", 5, n, STEPS);
    lw_client *c;
    fleet f;

    fleet_start(&f, false, fast);
    fleet_trio(&f, 1, NULL);
    c = fleet_client(&f);
    fleet_picture(c, &job, ret);
    assert_int_equal(fleet_number(&f, "counters.retries"), 0);
    lw_client_destroy(&c);
    fleet_stop(&f);
}

/* Each worker kills itself with SIGKILL once, at each place it can. */
static void test_killed_at_every_step(void **state)
{
    static const struct {
        const char *role;
        int at;
    } places[] = { { "encoder", 1 },  { "denoiser", 1 }, { "denoiser", 2 },
                   { "denoiser", 3 }, { "denoiser", 4 }, { "decoder", 1 } };
    static const char *const roles[] = { "encoder", "denoiser", "decoder" };
    lw_kept right;

    (void)state;
    undisturbed(&right, 1);
    for (size_t i = 0; i < LW_ARRAY_LEN(places); i++) {
        lw_msg job = fleet_job("a cat", 5, 1, STEPS);
        char at[64], once[128];
        const char *const env[] = { at, once, NULL };
        lw_kept got;
        lw_client *c;
        fleet f;

        fleet_start(&f, false, fast);
        snprintf(at, sizeof(at), "LATENTWIRE_FAKE_CRASH_AT=%d", places[i].at);
        snprintf(once, sizeof(once), "LATENTWIRE_FAKE_ONCE=%s/once", f.dir);
        for (size_t k = 0; k < LW_ARRAY_LEN(roles); k++) {
            bool crashes = !strcmp(roles[k], places[i].role);

            fleet_worker(&f, roles[k], roles[k], crashes ? env : NULL);
            if (crashes)
                fleet_worker(&f, roles[k], "second", env);
        }
        fleet_await_workers(&f, 4);
        c = fleet_client(&f);
        fleet_picture(c, &job, &got);
        assert_same_picture(&right, &got);
        assert_int_equal(fleet_number(&f, "counters.retries"), 1);
        lw_kept_drop(&got);
        lw_client_destroy(&c);
        fleet_stop(&f);
    }
    lw_kept_drop(&right);
}

/* Killed from outside at moments that nobody chose, again and again, and replaced. */
static void test_killed_at_any_time(void **state)
{
    static const char *const slow[] = { "LATENTWIRE_FAKE_STEP_MS=10", NULL };
    pid_t dits[3];
    lw_kept right;
    uint32_t r = 12345;
    fleet f;

    (void)state;
    undisturbed(&right, 4);
    fleet_start(&f, false, fast);
    fleet_trio(&f, 3, slow);
    memcpy(dits, &f.pids[2], sizeof(dits));
    for (int i = 0; i < 10; i++) {
        lw_msg job = fleet_job("a cat", 5, 4, STEPS);
        lw_client *c = fleet_client(&f);
        lw_err err = { 0 };
        const lw_msg *m;
        pid_t *victim;
        lw_kept got;

        assert_ok(lw_client_send(c, &job, &err), &err);
        r = r * 1664525 + 1013904223;
        usleep((r >> 16) % 80000);
        victim = &dits[(r >> 8) % 3];
        kill(*victim, SIGKILL);
        fleet_reap(&f, *victim);
        *victim = fleet_worker(&f, "denoiser", "new", slow);
        do
            m = fleet_answer(c);
        while (m->type == LW_MSG_ACCEPTED);
        if (m->type != LW_MSG_RESULT)
            fail_msg("run %d: %s", i, lw_msg_get(m, message, ""));
        assert_ok(lw_kept_take(&got, m, &err), &err);
        assert_same_picture(&right, &got);
        lw_kept_drop(&got);
        lw_client_destroy(&c);
        fleet_await_workers(&f, 5);
    }
    assert_int_equal(fleet_number(&f, "counters.jobs_done"), 10);
    fleet_stop(&f);
    lw_kept_drop(&right);
}

/* SIGSTOP: connected, but silent. Then it comes back and is of use again. */
static void test_stopped_worker(void **state)
{
    static const char *const slow[] = { "LATENTWIRE_FAKE_STEP_MS=100", NULL };
    lw_msg job = fleet_job("a cat", 5, 1, STEPS);
    lw_kept right, got;
    lw_err err = { 0 };
    lw_client *c;
    pid_t dit;
    fleet f;

    (void)state;
    undisturbed(&right, 1);
    fleet_start(&f, false, fast);
    fleet_trio(&f, 1, slow);
    dit = f.pids[2];
    c = fleet_client(&f);
    assert_ok(lw_client_send(c, &job, &err), &err);
    fleet_await_progress(c, LW_OP_DENOISE);
    kill(dit, SIGSTOP);
    fleet_worker(&f, "denoiser", "second", NULL);
    assert_ok(lw_kept_take(&got, fleet_answer(c), &err), &err);
    assert_int_equal(got.msg.type, LW_MSG_RESULT);
    assert_same_picture(&right, &got);
    assert_int_equal(fleet_number(&f, "counters.workers_lost"), 1);
    kill(dit, SIGCONT);
    fleet_await_workers(&f, 4);
    lw_kept_drop(&got);
    lw_client_destroy(&c);
    fleet_stop(&f);
    lw_kept_drop(&right);
}

/* The model loop hangs while heartbeats go on: only the age of the step shows it. */
static void test_hanging_worker_is_found_stuck(void **state)
{
    lw_msg job = fleet_job("a cat", 5, 1, STEPS);
    const char *env[] = { "LATENTWIRE_FAKE_HANG_AT=2", NULL, NULL };
    char once[128];
    lw_kept right, got;
    lw_client *c;
    fleet f;

    (void)state;
    undisturbed(&right, 1);
    fleet_start(&f, false, fast);
    snprintf(once, sizeof(once), "LATENTWIRE_FAKE_ONCE=%s/once", f.dir);
    env[1] = once;
    fleet_trio(&f, 2, env);
    c = fleet_client(&f);
    fleet_picture(c, &job, &got);
    assert_same_picture(&right, &got);
    assert_int_equal(fleet_number(&f, "counters.workers_stuck"), 1);
    assert_int_equal(fleet_number(&f, "counters.workers_lost"), 0);
    assert_int_equal(fleet_number(&f, "roles.denoiser.usable"), 1);
    lw_kept_drop(&got);
    lw_client_destroy(&c);
    fleet_stop(&f);
    lw_kept_drop(&right);
}

static void expect_error(fleet *f, lw_status code, const char *part)
{
    lw_msg job = fleet_job("a cat", 5, 1, STEPS);
    lw_client *c = fleet_client(f);
    lw_err err = { 0 };
    const lw_msg *m;

    assert_ok(lw_client_send(c, &job, &err), &err);
    do
        m = fleet_answer(c);
    while (m->type == LW_MSG_ACCEPTED);
    if (m->type != LW_MSG_ERROR)
        fail_msg("got %s", lw_msg_type_name(m->type));
    if (m->code != code || !strstr(m->message, part))
        fail_msg("got %s \"%s\", expected %s with \"%s\"", lw_status_name(m->code), m->message,
                 lw_status_name(code), part);
    lw_client_destroy(&c);
}

static void test_poisonous_task_kills_two_and_no_more(void **state)
{
    static const char *const env[] = { "LATENTWIRE_FAKE_CRASH_AT=2", NULL };
    int alive = 0;
    fleet f;

    (void)state;
    fleet_start(&f, false, fast);
    fleet_trio(&f, 4, env);
    expect_error(&f, LW_E_UNAVAILABLE, "2 workers were lost");
    for (int i = 2; i < 6; i++)
        alive += waitpid(f.pids[i], NULL, WNOHANG) == 0;
    assert_int_equal(alive, 2);
    for (int i = 2; i < 6; i++)
        if (kill(f.pids[i], 0))
            f.pids[i] = 0;
    fleet_stop(&f);
}

static void test_errors_of_workers(void **state)
{
    static const char *const broken[] = { "LATENTWIRE_FAKE_ERROR_AT=3", NULL };
    static const char *const full[] = { "LATENTWIRE_FAKE_ERROR_AT=3",
                                        "LATENTWIRE_FAKE_ERROR=out_of_memory", NULL };
    fleet f;

    (void)state;
    fleet_start(&f, false, fast);
    fleet_trio(&f, 2, broken);
    expect_error(&f, LW_E_INTERNAL, "told to fail at step 3");
    assert_int_equal(fleet_number(&f, "counters.retries"), 0);
    fleet_stop(&f);

    fleet_start(&f, false, fast);
    fleet_trio(&f, 2, full);
    expect_error(&f, LW_E_NOMEM, "tried 3 times");
    assert_int_equal(fleet_number(&f, "counters.retries"), 2);
    fleet_stop(&f);
}

static void test_worker_that_does_not_fit(void **state)
{
    static const char *const wide[] = { "LATENTWIRE_FAKE_DIM=32", NULL };
    static const char *const wait[] = { "--heartbeat-ms=200", "--wait-ms=1500", NULL };
    int status;
    pid_t pid;
    fleet f;

    (void)state;
    fleet_start(&f, false, wait);
    fleet_worker(&f, "encoder", "encoder", NULL);
    fleet_worker(&f, "decoder", "vae", NULL);
    fleet_await_workers(&f, 2);
    pid = fleet_worker(&f, "denoiser", "wide", wide);
    status = fleet_reap(&f, pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), lw_status_exit(LW_E_PRECONDITION));
    assert_int_equal(fleet_number(&f, "counters.workers_refused"), 1);
    /* And a job that needs one says what is missing instead of waiting for ever. */
    expect_error(&f, LW_E_UNAVAILABLE, "no denoiser");
    fleet_stop(&f);
}

/* SIGTERM to a worker: it ends what it has begun, and its leaving costs nobody a retry. */
static void test_worker_drains(void **state)
{
    static const char *const slow[] = { "LATENTWIRE_FAKE_STEP_MS=100", NULL };
    lw_msg job = fleet_job("a cat", 5, 1, 10);
    lw_err err = { 0 };
    lw_client *c;
    int status;
    fleet f;

    (void)state;
    fleet_start(&f, false, NULL);
    fleet_trio(&f, 1, slow);
    c = fleet_client(&f);
    assert_ok(lw_client_send(c, &job, &err), &err);
    fleet_await_progress(c, LW_OP_DENOISE);
    kill(f.pids[2], SIGTERM);
    assert_int_equal(fleet_answer(c)->type, LW_MSG_RESULT);
    status = fleet_reap(&f, f.pids[2]);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(fleet_number(&f, "counters.retries"), 0);
    assert_int_equal(fleet_number(&f, "counters.workers_lost"), 0);
    lw_client_destroy(&c);
    fleet_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_at_every_step),
        cmocka_unit_test(test_killed_at_any_time),
        cmocka_unit_test(test_stopped_worker),
        cmocka_unit_test(test_hanging_worker_is_found_stuck),
        cmocka_unit_test(test_poisonous_task_kills_two_and_no_more),
        cmocka_unit_test(test_errors_of_workers),
        cmocka_unit_test(test_worker_that_does_not_fit),
        cmocka_unit_test(test_worker_drains),
    };

    fleet_deadline(170);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
