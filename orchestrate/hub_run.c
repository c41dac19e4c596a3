/*
 * The hub with sockets: two ROUTERs, one signalfd, one thread. A burst on one socket does not keep
 * the other, or the timers, waiting for more than BURST messages.
 */

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrate/hub_core.h"

#define BURST          64
#define HEADER_BYTES   ((size_t)4 * 1024 * 1024) /* strings of one decoded message */
#define GOODBYE_MS     1000
#define LINGER_MS      500
#define WORKER_ROLES   (1u << LW_ROLE_ENCODER | 1u << LW_ROLE_DENOISER | 1u << LW_ROLE_DECODER)
#define ENDPOINT_BYTES (PATH_MAX + 32)

typedef struct server {
    lw_net *net;
    lw_sock *socks[2]; /* by lw_hub_side */
    lw_hub *hub;
    lw_arena arena;
    int signal_fd;
    int signals; /* how many have come */
} server;

/* ---- the world outside the state machine ---- */

static lw_status send_message(void *ctx, lw_hub_side side, const lw_peer *peer, const lw_msg *m,
                              lw_err *err)
{
    server *s = ctx;

    return lw_sock_send_msg(s->socks[side], peer, m, err);
}

static bool role_allowed(void *ctx, lw_hub_side side, lw_role role)
{
    const server *s = ctx;

    return lw_sock_role_allowed(s->socks[side], role);
}

static void random_bytes(void *ctx, void *buf, size_t n)
{
    uint8_t *p = buf;

    (void)ctx;
    while (n) {
        ssize_t got = getrandom(p, n, 0);

        if (got > 0) {
            p += got;
            n -= (size_t)got;
        }
    }
}

/* ---- messages ---- */

static void handle_packet(server *s, lw_hub_side side, const lw_peer *peer, const lw_packet *p)
{
    lw_msg m = { 0 };
    lw_err err = { 0 };

    lw_arena_reset(&s->arena);
    if (lw_msg_decode(p, &s->arena, &m, &err) == LW_OK)
        lw_hub_receive(s->hub, side, peer, &m, lw_now_ms());
    else
        lw_hub_malformed(s->hub, side, peer, &m, &err, lw_now_ms());
}

/* True when there may be more. */
static bool take(server *s, lw_hub_side side)
{
    lw_packet p = { 0 };
    lw_peer peer = { 0 };
    lw_err err = { 0 };
    bool got = false;
    lw_status st = lw_sock_recv(s->socks[side], &peer, &p, &got, &err);

    if (st == LW_OK && !got)
        return false;
    if (st == LW_OK) {
        handle_packet(s, side, &peer, &p);
    } else if (peer.len) {
        lw_hub_malformed(s->hub, side, &peer, &(lw_msg){ 0 }, &err, lw_now_ms());
    } else {
        lw_log(LW_ERROR, "cannot receive", LW_KV_STR("error", err.text));
        return false;
    }
    lw_packet_clear(&p);
    return true;
}

static void take_all(server *s)
{
    bool more[2] = { true, true };

    for (int i = 0; i < BURST && (more[0] || more[1]); i++)
        for (int side = LW_FRONTEND; side <= LW_BACKEND; side++)
            if (more[side])
                more[side] = take(s, (lw_hub_side)side);
}

/* ---- signals ---- */

static lw_status take_signals(server *s, lw_err *err)
{
    sigset_t mask;

    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGHUP);
    /* Before the first thread of libzmq: it inherits the mask. */
    if (sigprocmask(SIG_BLOCK, &mask, NULL))
        return lw_fail(err, LW_E_IO, "cannot block signals: %s", strerror(errno));
    s->signal_fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
    if (s->signal_fd < 0)
        return lw_fail(err, LW_E_IO, "cannot make a signalfd: %s", strerror(errno));
    return LW_OK;
}

static void read_signals(server *s)
{
    struct signalfd_siginfo info;

    while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        s->signals++;
        lw_hub_drain(s->hub, lw_now_ms());
    }
}

/* ---- the loop ---- */

static void wait_for_events(server *s, int64_t timeout_ms)
{
    lw_poll_item items[] = { { .sock = s->socks[LW_FRONTEND] },
                             { .sock = s->socks[LW_BACKEND] },
                             { .fd = s->signal_fd } };

    (void)lw_poll(items, LW_ARRAY_LEN(items), timeout_ms);
}

static void serve(server *s)
{
    int64_t next = 0;

    while (s->signals < 2 && !lw_hub_drained(s->hub)) {
        wait_for_events(s, next);
        read_signals(s);
        take_all(s);
        next = lw_hub_tick(s->hub, lw_now_ms());
    }
}

/* Workers answer DRAIN with BYE; who does not is not waited for long. */
static void say_goodbye(server *s)
{
    const int64_t deadline = lw_now_ms() + GOODBYE_MS;

    lw_hub_goodbye(s->hub);
    while (s->signals < 2 && lw_hub_sessions(s->hub, LW_BACKEND) > 0 && lw_now_ms() < deadline) {
        wait_for_events(s, 20);
        read_signals(s);
        take_all(s);
    }
}

static lw_status default_endpoint(const char *given, const char *name, char *ret, lw_err *err)
{
    char dir[PATH_MAX];

    if (given && given[0]) {
        if (strlen(given) >= ENDPOINT_BYTES)
            return lw_fail(err, LW_E_INVALID, "the endpoint of the %s is too long", name);
        snprintf(ret, ENDPOINT_BYTES, "%s", given);
        return LW_OK;
    }
    LW_TRY(lw_runtime_dir(dir, sizeof(dir), err));
    snprintf(ret, ENDPOINT_BYTES, "ipc://%s/%s.sock", dir, name);
    return LW_OK;
}

static lw_status start(server *s, const lw_hub_params *p, lw_err *err)
{
    const lw_hub_io io = {
        .ctx = s, .send = send_message, .role_allowed = role_allowed, .random = random_bytes
    };
    char frontend[ENDPOINT_BYTES], backend[ENDPOINT_BYTES];

    LW_TRY(default_endpoint(p->frontend, "frontend", frontend, err));
    LW_TRY(default_endpoint(p->backend, "backend", backend, err));
    LW_TRY(take_signals(s, err));
    LW_TRY(lw_net_create(&s->net, err));
    /* The backend first: who finds the frontend open finds a hub that takes workers. */
    LW_TRY(lw_sock_bind(s->net, backend, WORKER_ROLES, &p->net, &s->socks[LW_BACKEND], err));
    LW_TRY(
        lw_sock_bind(s->net, frontend, 1u << LW_ROLE_CLIENT, &p->net, &s->socks[LW_FRONTEND], err));
    LW_TRY(lw_hub_create(p, &io, lw_now_ms(), &s->hub, err));
    lw_log(LW_INFO, "hub is listening",
           LW_KV_STR("frontend", lw_sock_endpoint(s->socks[LW_FRONTEND])),
           LW_KV_STR("backend", lw_sock_endpoint(s->socks[LW_BACKEND])));
    return LW_OK;
}

lw_status lw_hub_run(const lw_hub_params *p, lw_err *err)
{
    server s = { .signal_fd = -1 };
    lw_status st;

    lw_arena_init(&s.arena, "hub message", HEADER_BYTES);
    st = start(&s, p, err);
    if (st == LW_OK) {
        serve(&s);
        say_goodbye(&s);
        lw_log(LW_INFO, "hub stops", LW_KV_INT("jobs_done", lw_hub_counters_get(s.hub)->jobs_done));
        if (s.signals >= 2)
            st = lw_fail(err, LW_E_CANCELLED, "stopped by a second signal");
    }
    lw_hub_destroy(&s.hub);
    lw_sock_close(&s.socks[LW_FRONTEND]);
    lw_sock_close(&s.socks[LW_BACKEND]);
    lw_net_destroy(&s.net, s.signals < 2 ? LINGER_MS : 0);
    if (s.signal_fd >= 0)
        close(s.signal_fd);
    lw_arena_deinit(&s.arena);
    return st;
}
