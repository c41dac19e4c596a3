/* Clients that are many, that ask for too much, do not read, or are gone; and a hub that has to go.
 */

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/failure/fleet.h"

#define MIB 1048576

static const char *const fast[] = { "--heartbeat-ms=200", "--heartbeat-misses=10", NULL };

/* Its answer to job `id` within some jobs' answers; -1: not one of them. */
static int index_of(const lw_msg *jobs, int n, const lw_msg *m)
{
    for (int i = 0; i < n; i++)
        if (!memcmp(jobs[i].id, m->id, 16))
            return i;
    return -1;
}

#define CLIENTS    4
#define JOBS       5 /* of each */
#define ALL_JOBS   (CLIENTS * JOBS)
#define MAX_ROUNDS 100000

static void test_many_jobs_at_once(void **state)
{
    static const char *const slow[] = { "LATENTWIRE_FAKE_STEP_MS=2", NULL };
    lw_msg jobs[ALL_JOBS];
    lw_kept right[ALL_JOBS], got;
    int n_done = 0, done[ALL_JOBS] = { 0 };
    lw_client *c[CLIENTS];
    lw_err err = { 0 };
    fleet f;

    (void)state;
    fleet_start(&f, false, NULL);
    fleet_trio(&f, 2, slow);
    c[0] = fleet_client(&f);
    for (int i = 0; i < ALL_JOBS; i++) { /* one after another, */
        jobs[i] = fleet_job(i % 3 ? "a cat" : "a dog", (uint64_t)i, 1 + i % 2, 3);
        if (i % 4 == 3) {
            lw_msg_set(&jobs[i], guidance, 2);
            lw_msg_set(&jobs[i], negative_prompt, "rain");
        }
        fleet_picture(c[0], &jobs[i], &right[i]);
        lw_client_new_id(jobs[i].id);
    }
    for (int i = 1; i < CLIENTS; i++)
        c[i] = fleet_client(&f);
    for (int i = 0; i < ALL_JOBS; i++) /* and all together. */
        assert_ok(lw_client_send(c[i % CLIENTS], &jobs[i], &err), &err);
    for (int round = 0; n_done < ALL_JOBS && round < MAX_ROUNDS; round++) {
        lw_client_event ev;
        int i;

        assert_ok(lw_client_wait(c[round % CLIENTS], -1, 1, &ev, &err), &err);
        if (!ev.msg || ev.msg->type == LW_MSG_PROGRESS || ev.msg->type == LW_MSG_ACCEPTED)
            continue;
        assert_int_equal(ev.msg->type, LW_MSG_RESULT);
        i = index_of(jobs, ALL_JOBS, ev.msg);
        assert_int_equal(i % CLIENTS, round % CLIENTS);
        assert_int_equal(done[i]++, 0);
        assert_ok(lw_kept_take(&got, ev.msg, &err), &err);
        assert_same_picture(&right[i], &got);
        lw_kept_drop(&got);
        n_done++;
    }
    assert_int_equal(n_done, ALL_JOBS);
    fleet_await(&f, "n_jobs", 0);
    for (int i = 0; i < ALL_JOBS; i++)
        lw_kept_drop(&right[i]);
    for (int i = 0; i < CLIENTS; i++)
        lw_client_destroy(&c[i]);
    fleet_stop(&f);
}

/* Far more than the budget: each gets one answer, and the hub does not grow. */
static void test_flood(void **state)
{
    enum { N = 1500 };
    static const char *const small[] = { "--budget-mb=8", "--client-mb=8", NULL };
    static lw_msg jobs[N];
    static int finals[N];
    int n_results = 0, n_refused = 0, n_sent = 0;
    const int64_t deadline = lw_now_ms() + 60000;
    lw_err err = { 0 };
    size_t before;
    lw_client *c;
    fleet f;

    (void)state;
    fleet_start(&f, false, small);
    fleet_trio(&f, 1, NULL);
    c = fleet_client(&f);
    before = fleet_hub_rss(&f);
    while (n_results + n_refused < N && lw_now_ms() < deadline) {
        lw_client_event ev;
        lw_status st;
        int i;

        if (n_sent < N) {
            jobs[n_sent] = fleet_job("a cat", (uint64_t)n_sent, 1, 1);
            lw_msg_set(&jobs[n_sent], width, 256);
            lw_msg_set(&jobs[n_sent], height, 256);
            st = lw_client_send(c, &jobs[n_sent], &err);
            n_sent += st == LW_OK;
            if (st != LW_OK)
                assert_int_equal(st, LW_E_EXHAUSTED); /* our own queue; read first */
        }
        assert_ok(lw_client_wait(c, -1, n_sent < N ? 0 : 100, &ev, &err), &err);
        if (!ev.msg || (ev.msg->type != LW_MSG_RESULT && ev.msg->type != LW_MSG_ERROR))
            continue;
        i = index_of(jobs, n_sent, ev.msg);
        assert_true(i >= 0);
        assert_int_equal(finals[i]++, 0);
        if (ev.msg->type == LW_MSG_ERROR && ev.msg->code != LW_E_EXHAUSTED)
            fail_msg("job %d of %d: %s", i, n_sent, ev.msg->message);
        n_results += ev.msg->type == LW_MSG_RESULT;
        n_refused += ev.msg->type == LW_MSG_ERROR;
    }
    assert_int_equal(n_results + n_refused, N);
    assert_true(n_results > 0);
    assert_true(n_refused > 0);
    /* The budget, the cache, and what an allocator keeps. */
    assert_in_range(fleet_hub_rss(&f), 0, before + 24 * MIB);
    fleet_await(&f, "budget.reserved_bytes", 0);
    lw_client_destroy(&c);
    fleet_stop(&f);
}

/* It submits and lives, but never reads. Its results wait within its own budget. */
static void test_client_that_does_not_read(void **state)
{
    static const char *const small[] = { "--client-mb=16", "--heartbeat-misses=20", NULL };
    lw_client *good;
    lw_net *net;
    lw_sock *bad;
    size_t before;
    fleet f;

    (void)state;
    fleet_start(&f, false, small);
    fleet_trio(&f, 2, NULL);
    good = fleet_client(&f);
    bad = fleet_raw_client(&f, &net);
    before = fleet_hub_rss(&f);
    for (int i = 0; i < 60; i++) {
        lw_msg job = fleet_job("greedy", (uint64_t)i, 1, 1), beat;
        lw_kept got;

        lw_msg_set(&job, width, 1024);
        lw_msg_set(&job, height, 1024);
        (void)!lw_sock_send_msg(bad, NULL, &job, NULL);
        lw_msg_init(&beat, LW_MSG_HEARTBEAT, NULL);
        (void)!lw_sock_send_msg(bad, NULL, &beat, NULL);
        if (i % 6 == 0) {
            job = fleet_job("a cat", (uint64_t)i, 1, 1);
            fleet_picture(good, &job, &got); /* is not hindered */
            lw_kept_drop(&got);
        }
        usleep(10000);
    }
    assert_in_range(fleet_number(&f, "budget.reserved_bytes"), 1, 16 * MIB);
    assert_true(fleet_number(&f, "counters.jobs_refused") > 20);
    assert_in_range(fleet_hub_rss(&f), 0, before + 48 * MIB);
    lw_net_destroy(&net, 0);
    fleet_await(&f, "budget.reserved_bytes", 0);
    lw_client_destroy(&good);
    fleet_stop(&f);
}

static void test_client_that_vanishes(void **state)
{
    static const char *const slow[] = { "LATENTWIRE_FAKE_STEP_MS=50", NULL };
    lw_msg job = fleet_job("a cat", 1, 4, 200);
    lw_net *net;
    lw_sock *s;
    fleet f;

    (void)state;
    fleet_start(&f, false, fast);
    fleet_trio(&f, 2, slow);
    s = fleet_raw_client(&f, &net);
    assert_int_equal(lw_sock_send_msg(s, NULL, &job, NULL), LW_OK);
    fleet_await(&f, "roles.denoiser.running", 2);
    lw_net_destroy(&net, 0); /* no BYE */
    fleet_await(&f, "n_jobs", 0);
    fleet_await(&f, "roles.denoiser.running", 0); /* within a step, not after 200 of them */
    assert_int_equal(fleet_number(&f, "counters.jobs_cancelled"), 1);
    assert_int_equal(fleet_number(&f, "counters.clients_lost"), 1);
    fleet_stop(&f);
}

static void test_cancel_stops_the_worker(void **state)
{
    static const char *const slow[] = { "LATENTWIRE_FAKE_STEP_MS=100", NULL };
    lw_msg job = fleet_job("a cat", 1, 1, 200), cancel;
    lw_err err = { 0 };
    const lw_msg *m;
    int64_t start;
    lw_client *c;
    fleet f;

    (void)state;
    fleet_start(&f, false, NULL);
    fleet_trio(&f, 1, slow);
    c = fleet_client(&f);
    assert_ok(lw_client_send(c, &job, &err), &err);
    fleet_await(&f, "roles.denoiser.running", 1);
    lw_msg_init(&cancel, LW_MSG_CANCEL, job.id);
    start = lw_now_ms();
    assert_ok(lw_client_send(c, &cancel, &err), &err);
    do
        m = fleet_answer(c);
    while (m->type == LW_MSG_ACCEPTED);
    assert_int_equal(m->type, LW_MSG_CANCELLED);
    assert_memory_equal(m->id, job.id, 16);
    fleet_await(&f, "roles.denoiser.running", 0);
    assert_in_range(lw_now_ms() - start, 0, 3000);
    lw_client_destroy(&c);
    fleet_stop(&f);
}

/* More connections than the hub takes: those that are in are not disturbed. */
static void test_too_many_clients(void **state)
{
    static const char *const few[] = { "--max-sessions=4", "--heartbeat-misses=20", NULL };
    lw_msg job = fleet_job("a cat", 1, 1, 1);
    lw_client *c, *rest[8] = { 0 };
    lw_kept got;
    int refused = 0;
    fleet f;

    (void)state;
    fleet_start(&f, false, few);
    fleet_trio(&f, 1, NULL);
    c = fleet_client(&f);
    for (int i = 0; i < 8; i++) {
        const lw_client_params one = { .endpoint = f.frontend };
        lw_err err = { 0 };

        assert_ok(lw_client_create(&one, &rest[i], &err), &err);
        if (lw_client_connect(rest[i], 2000, &err) != LW_OK) {
            assert_int_equal(err.code, LW_E_EXHAUSTED);
            assert_contains(err.text, "4 clients");
            refused++;
        }
    }
    assert_int_equal(refused, 5);
    fleet_picture(c, &job, &got);
    lw_kept_drop(&got);
    for (int i = 0; i < 8; i++)
        lw_client_destroy(&rest[i]);
    lw_client_destroy(&c);
    fleet_stop(&f);
}

/* ---- the hub's own end ---- */

static void test_sigterm_lets_jobs_finish(void **state)
{
    static const char *const slow[] = { "LATENTWIRE_FAKE_STEP_MS=100", NULL };
    lw_msg job = fleet_job("a cat", 1, 1, 5);
    char path[160];
    lw_err err = { 0 };
    lw_client *c;
    int status;
    fleet f;

    (void)state;
    fleet_start(&f, false, NULL);
    fleet_trio(&f, 1, slow);
    c = fleet_client(&f);
    assert_ok(lw_client_send(c, &job, &err), &err);
    assert_int_equal(fleet_answer(c)->type, LW_MSG_ACCEPTED);
    kill(f.hub, SIGTERM);
    assert_int_equal(fleet_answer(c)->type, LW_MSG_RESULT);
    status = fleet_reap(&f, f.hub);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int i = 0; i < f.n_pids; i++) { /* the workers were told to leave, and did */
        status = fleet_reap(&f, f.pids[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    snprintf(path, sizeof(path), "%s/f", f.dir);
    assert_int_not_equal(access(path, F_OK), 0);
    lw_client_destroy(&c);
    fleet_stop(&f);
}

static void test_drain_time_is_over(void **state)
{
    static const char *const brief[] = { "--drain-ms=300", NULL };
    static const char *const slow[] = { "LATENTWIRE_FAKE_STEP_MS=100", NULL };
    lw_msg job = fleet_job("a cat", 1, 1, 200);
    lw_err err = { 0 };
    const lw_msg *m;
    lw_client *c;
    int status;
    fleet f;

    (void)state;
    fleet_start(&f, false, brief);
    fleet_trio(&f, 1, slow);
    c = fleet_client(&f);
    assert_ok(lw_client_send(c, &job, &err), &err);
    assert_int_equal(fleet_answer(c)->type, LW_MSG_ACCEPTED);
    kill(f.hub, SIGTERM);
    m = fleet_answer(c);
    assert_int_equal(m->type, LW_MSG_ERROR);
    assert_int_equal(m->code, LW_E_UNAVAILABLE);
    status = fleet_reap(&f, f.hub);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    lw_client_destroy(&c);
    fleet_stop(&f);
}

static void test_second_signal(void **state)
{
    static const char *const slow[] = { "LATENTWIRE_FAKE_STEP_MS=100", NULL };
    lw_msg job = fleet_job("a cat", 1, 1, 200);
    lw_err err = { 0 };
    int64_t start;
    lw_client *c;
    int status;
    fleet f;

    (void)state;
    fleet_start(&f, false, NULL);
    fleet_trio(&f, 1, slow);
    c = fleet_client(&f);
    assert_ok(lw_client_send(c, &job, &err), &err);
    assert_int_equal(fleet_answer(c)->type, LW_MSG_ACCEPTED);
    start = lw_now_ms();
    kill(f.hub, SIGINT);
    usleep(200000);
    assert_int_equal(waitpid(f.hub, NULL, WNOHANG), 0);
    kill(f.hub, SIGINT);
    status = fleet_reap(&f, f.hub);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), lw_status_exit(LW_E_CANCELLED));
    assert_in_range(lw_now_ms() - start, 0, 2000);
    lw_client_destroy(&c);
    fleet_stop(&f);
}

/* kill -9 of the hub: the sockets it leaves behind are no obstacle, the workers come back. */
static void test_hub_is_replaced(void **state)
{
    lw_msg job = fleet_job("a cat", 1, 1, 3);
    lw_kept a, b;
    lw_client *c;
    fleet f;

    (void)state;
    fleet_start(&f, false, fast);
    fleet_trio(&f, 1, NULL);
    c = fleet_client(&f);
    fleet_picture(c, &job, &a);
    kill(f.hub, SIGKILL);
    fleet_reap(&f, f.hub);
    fleet_restart_hub(&f, fast);
    fleet_await_workers(&f, 3);
    lw_client_destroy(&c);
    c = fleet_client(&f);
    lw_client_new_id(job.id);
    fleet_picture(c, &job, &b);
    assert_same_picture(&a, &b);
    lw_kept_drop(&a);
    lw_kept_drop(&b);
    lw_client_destroy(&c);
    fleet_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_jobs_at_once),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_client_that_does_not_read),
        cmocka_unit_test(test_client_that_vanishes),
        cmocka_unit_test(test_cancel_stops_the_worker),
        cmocka_unit_test(test_too_many_clients),
        cmocka_unit_test(test_sigterm_lets_jobs_finish),
        cmocka_unit_test(test_drain_time_is_over),
        cmocka_unit_test(test_second_signal),
        cmocka_unit_test(test_hub_is_replaced),
    };

    fleet_deadline(170);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
