#include "tests/unit/proto/minihub.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

#include "tests/unit/unit.h"

#define MAX_CHILDREN 64

static pid_t children[MAX_CHILDREN];
static int n_children;

/* ---- the hub ---- */

static void bind_it(minihub *h)
{
    const lw_net_params none = { 0 };
    lw_err err = { 0 };

    assert_ok(lw_net_create(&h->net, &err), &err);
    assert_ok(lw_sock_bind(h->net, h->endpoint, ~0u, &none, &h->sock, &err), &err);
}

void minihub_open(minihub *h, const char *name)
{
    memset(h, 0, sizeof(*h));
    snprintf(h->endpoint, sizeof(h->endpoint), "ipc://%s", unit_tmp(name));
    h->epoch = 100;
    h->hb_ms = 100;
    h->hb_misses = 5;
    lw_arena_init(&h->arena, "minihub", 0);
    bind_it(h);
}

void minihub_vanish(minihub *h)
{
    lw_sock_close(&h->sock);
    lw_net_destroy(&h->net, 0);
}

void minihub_return(minihub *h)
{
    h->peer.len = 0;
    bind_it(h);
}

void minihub_close(minihub *h)
{
    lw_packet_clear(&h->packet);
    lw_arena_deinit(&h->arena);
    minihub_vanish(h);
}

void minihub_send(minihub *h, const lw_msg *m)
{
    lw_err err = { 0 };

    assert_ok(lw_sock_send_msg(h->sock, &h->peer, m, &err), &err);
}

void minihub_send_raw(minihub *h, const void *header, size_t n)
{
    lw_packet p = { .n_frames = 1, .frames = { lw_frame_copy(header, n) } };
    lw_err err = { 0 };

    assert_ok(lw_sock_send(h->sock, &h->peer, &p, &err), &err);
}

static void beat(minihub *h)
{
    lw_msg m;

    if (h->mute || h->peer.len == 0 || lw_now_ms() < h->next_hb_ms)
        return;
    h->next_hb_ms = lw_now_ms() + (int64_t)h->hb_ms;
    lw_msg_init(&m, LW_MSG_HEARTBEAT, NULL);
    lw_msg_set(&m, epoch, h->epoch);
    (void)!lw_sock_send_msg(h->sock, &h->peer, &m, NULL); /* it may be gone */
}

/* True when a message came, which is then in h->msg. */
static bool turn(minihub *h)
{
    lw_poll_item it = { .sock = h->sock };
    lw_err err = { 0 };
    bool got = false;

    beat(h);
    lw_poll(&it, 1, 20);
    lw_packet_clear(&h->packet);
    lw_arena_reset(&h->arena);
    assert_ok(lw_sock_recv(h->sock, &h->peer, &h->packet, &got, &err), &err);
    if (got)
        assert_ok(lw_msg_decode(&h->packet, &h->arena, &h->msg, &err), &err);
    return got;
}

const lw_msg *minihub_expect(minihub *h, lw_msg_type type)
{
    int64_t end = lw_now_ms() + MINIHUB_SOON_MS;

    while (lw_now_ms() < end) {
        if (!turn(h))
            continue;
        if (h->msg.type == type)
            return &h->msg;
        h->n_skipped[h->msg.type]++;
        if (h->msg.type == LW_MSG_ERROR)
            fail_msg("waiting for %s: error %s: %s", lw_msg_type_name(type),
                     lw_status_name(h->msg.code), h->msg.message);
    }
    fail_msg("no %s came", lw_msg_type_name(type));
    return NULL;
}

void minihub_expect_none(minihub *h, lw_msg_type type, int64_t ms)
{
    int64_t end = lw_now_ms() + ms;

    while (lw_now_ms() < end)
        if (turn(h) && h->msg.type == type)
            fail_msg("an unwanted %s came", lw_msg_type_name(type));
}

void minihub_welcome(minihub *h)
{
    minihub_expect(h, LW_MSG_HELLO);
    minihub_greet(h);
}

void minihub_greet(minihub *h)
{
    const lw_msg *m;
    lw_msg w;

    lw_msg_init(&w, LW_MSG_WELCOME, NULL);
    lw_msg_set(&w, minor, 0);
    lw_msg_set(&w, epoch, h->epoch);
    lw_msg_set(&w, hb_ms, h->hb_ms);
    lw_msg_set(&w, hb_misses, h->hb_misses);
    minihub_send(h, &w);
    do
        m = minihub_expect(h, LW_MSG_CREDIT);
    while (m->credits != 1);
    assert_int_equal(m->epoch, h->epoch);
}

/* ---- the service ---- */

pid_t fakesvc_start(const minihub *h, const char *role, const char *const *options,
                    const char *const *env)
{
    const char *root = getenv("LW_BUILD_ROOT");
    const char *argv[32] = { NULL };
    char *envp[256];
    char path[4096];
    int n = 0, n_env = 0;
    pid_t pid;

    assert_non_null(root);
    snprintf(path, sizeof(path), "%s/tests/interop/latentwire-fakesvc", root);
    argv[n++] = path;
    argv[n++] = role;
    argv[n++] = "--hub";
    argv[n++] = h->endpoint;
    for (; options && *options && n < 30; options++)
        argv[n++] = *options;
    for (char **e = environ; *e && n_env < 200; e++)
        envp[n_env++] = *e;
    for (; env && *env && n_env < 255; env++)
        envp[n_env++] = (char *)*env;
    envp[n_env] = NULL;
    assert_int_equal(posix_spawn(&pid, path, NULL, NULL, (char **)argv, envp), 0);
    assert_true(n_children < MAX_CHILDREN);
    children[n_children++] = pid;
    return pid;
}

int fakesvc_wait(pid_t pid)
{
    int64_t end = lw_now_ms() + MINIHUB_SOON_MS;
    int status = 0;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (lw_now_ms() > end)
            fail_msg("the service does not end");
        usleep(2000);
    }
    for (int i = 0; i < n_children; i++)
        if (children[i] == pid)
            children[i] = children[--n_children];
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void fakesvc_kill_all(void)
{
    while (n_children > 0) {
        pid_t pid = children[--n_children];

        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
}
