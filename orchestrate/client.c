/*
 * The client's end of the wire. A hub that stops answering must never leave a user staring at a
 * frozen bar: every wait ends, and three silent heartbeat intervals are an error.
 */

#include "orchestrate/client.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/clock.h"
#include "lw_version.h"

/* The hub's own values come with WELCOME; these hold until then. */
#define HELLO_RETRY_MS 250
#define DEFAULT_HB_MS  1000
#define DEFAULT_MISSES 3
#define STOPPED_MS     1000 /* no poll comes back so late of itself */
#define MSG_ARENA_BYTES                                                                            \
    ((size_t)4 * 1024 * 1024) /* decoded strings; tensors stay in the packet                       \
                               */

struct lw_client {
    lw_net *net;
    lw_sock *sock;
    char *endpoint;
    lw_net_params net_params;
    int64_t reconnect_ms;
    char name[64];
    uint8_t instance[16];
    bool connected;
    int n_sessions;
    int64_t lost_ms; /* since when the connection is lost; 0 = it is not */
    char why_lost[256];
    int64_t hb_ms, hb_misses;
    int64_t last_heard_ms, last_sent_ms, last_hello_ms;
    int64_t stopped_ms; /* how long this process did not run, by Ctrl-Z for example */
    size_t max_frame_bytes;
    lw_packet packet; /* of the message last returned */
    lw_arena arena;
    lw_msg msg;
};

void lw_client_new_id(uint8_t ret_id[16])
{
    /* getrandom of up to 256 bytes is never interrupted and never short once the pool is ready. */
    if (getrandom(ret_id, 16, 0) != 16)
        abort();
}

lw_status lw_client_create(const lw_client_params *p, lw_client **ret, lw_err *err)
{
    lw_client *c = calloc(1, sizeof(*c));
    char host[40];
    lw_status s;

    if (!c)
        return lw_fail(err, LW_E_NOMEM, "no memory for a connection to the hub");
    lw_arena_init(&c->arena, "client message", MSG_ARENA_BYTES);
    lw_client_new_id(c->instance);
    if (gethostname(host, sizeof(host)))
        host[0] = 0;
    host[sizeof(host) - 1] = 0;
    snprintf(c->name, sizeof(c->name), "%s:client:%ld", host, (long)getpid());
    c->hb_ms = DEFAULT_HB_MS;
    c->hb_misses = DEFAULT_MISSES;
    c->max_frame_bytes = LW_MAX_FRAME_BYTES;
    c->last_hello_ms = INT64_MIN / 2;
    c->net_params = p->net;
    c->reconnect_ms = p->reconnect_ms;
    c->endpoint = strdup(p->endpoint);
    s = c->endpoint ? lw_net_create(&c->net, err) : lw_fail(err, LW_E_NOMEM, "no memory");
    if (s == LW_OK)
        s = lw_sock_connect(c->net, c->endpoint, &p->net, &c->sock, err);
    if (s != LW_OK) {
        lw_client_destroy(&c);
        return s;
    }
    *ret = c;
    return LW_OK;
}

void lw_client_destroy(lw_client **pc)
{
    lw_client *c = *pc;

    if (!c)
        return;
    *pc = NULL;
    if (c->connected) {
        lw_msg bye;

        lw_msg_init(&bye, LW_MSG_BYE, NULL);
        lw_msg_set(&bye, reason, "done");
        (void)!lw_sock_send_msg(c->sock, NULL, &bye, NULL);
    }
    lw_packet_clear(&c->packet);
    lw_sock_close(&c->sock);
    lw_net_destroy(&c->net, 100);
    lw_arena_deinit(&c->arena);
    free(c->endpoint);
    free(c);
}

bool lw_client_connected(const lw_client *c)
{
    return c->connected;
}

int lw_client_sessions(const lw_client *c)
{
    return c->n_sessions;
}

size_t lw_client_max_frame_bytes(const lw_client *c)
{
    return c->max_frame_bytes;
}

lw_status lw_client_send(lw_client *c, const lw_msg *m, lw_err *err)
{
    if (!c->sock || (!c->connected && m->type != LW_MSG_HELLO))
        return lw_fail(err, LW_E_UNAVAILABLE, "there is no connection to the hub at %s",
                       c->endpoint);
    LW_TRY(lw_sock_send_msg(c->sock, NULL, m, err));
    c->last_sent_ms = lw_now_ms();
    return LW_OK;
}

/* HELLO until the hub answers: the socket refuses to queue before it is connected, and a hub that
 * has just started may have missed the first one. Refusals are expected and not errors. */
static void say_hello(lw_client *c, int64_t now)
{
    lw_msg m;

    lw_msg_init(&m, LW_MSG_HELLO, NULL);
    lw_msg_set(&m, minor_min, LW_WIRE_MINOR_MIN);
    lw_msg_set(&m, minor_max, LW_WIRE_MINOR_MAX);
    lw_msg_set(&m, role, LW_ROLE_CLIENT);
    memcpy(m.instance, c->instance, sizeof(m.instance));
    lw_msg_mark(&m, instance);
    lw_msg_set(&m, name, c->name);
    lw_msg_set(&m, build, "latentwire " LW_VERSION);
    if (lw_client_send(c, &m, NULL) == LW_OK)
        c->last_hello_ms = now;
}

static lw_status say_heartbeat(lw_client *c, lw_err *err)
{
    lw_msg m;
    lw_status s;

    lw_msg_init(&m, LW_MSG_HEARTBEAT, NULL);
    s = lw_client_send(c, &m, err);
    /* A full or vanished queue is told apart by the hub's silence, which has its own message. */
    return s == LW_E_EXHAUSTED || s == LW_E_UNAVAILABLE ? LW_OK : s;
}

/*
 * The session is over, whoever is to blame. A new socket, because to the hub the old one is a peer
 * that is gone; the same instance, by which a hub that still has our jobs knows us.
 */
static LW_PRINTF(3, 4) lw_status lose(lw_client *c, lw_err *err, const char *fmt, ...)
{
    va_list ap;

    if (c->lost_ms == 0) {
        c->lost_ms = lw_now_ms();
        va_start(ap, fmt);
        vsnprintf(c->why_lost, sizeof(c->why_lost), fmt, ap);
        va_end(ap);
    }
    c->connected = false;
    if (c->reconnect_ms == 0 || lw_now_ms() - c->lost_ms >= c->reconnect_ms)
        return lw_fail(err, LW_E_UNAVAILABLE, "%s%s", c->why_lost,
                       c->reconnect_ms ? ", and it did not come back" : "");
    lw_sock_close(&c->sock);
    return lw_sock_connect(c->net, c->endpoint, &c->net_params, &c->sock, err);
}

/* A hub that is gone or wants no part of us is known at once; only one that hangs is not. */
static lw_status check_link(lw_client *c, int64_t now, lw_err *err)
{
    switch (lw_sock_link(c->sock)) {
    case LW_LINK_REFUSED:
        if (c->lost_ms > 0)
            break; /* a hub that is just going or coming; there is a deadline */
        return lw_fail(err, LW_E_UNAUTHENTICATED,
                       "the hub at %s refused the connection: is the key of --key-name in its "
                       "authorized/client folder, and are both sides with keys or both without?",
                       c->endpoint);
    case LW_LINK_LOST:
        return lose(c, err, "the connection to the hub at %s broke", c->endpoint);
    default:
        break;
    }
    if (c->lost_ms > 0 && now - c->lost_ms >= c->reconnect_ms)
        return lose(c, err, "the hub at %s is lost", c->endpoint);
    if (!c->connected || now - c->last_heard_ms < c->hb_ms * c->hb_misses)
        return LW_OK;
    if (c->stopped_ms > 0)
        return lose(c, err, "this command was stopped for %lld ms, and the hub at %s gave it up",
                    (long long)c->stopped_ms, c->endpoint);
    return lose(c, err, "the hub at %s has not answered for %lld ms", c->endpoint,
                (long long)(now - c->last_heard_ms));
}

/* Session messages end here. *ret_mine: it was one. */
static lw_status handle_session(lw_client *c, bool *ret_mine, lw_err *err)
{
    const lw_msg *m = &c->msg;

    *ret_mine = true;
    switch (m->type) {
    case LW_MSG_WELCOME:
        c->n_sessions += !c->connected;
        c->connected = true;
        c->lost_ms = c->stopped_ms = 0;
        c->hb_ms = (int64_t)lw_msg_get(m, hb_ms, DEFAULT_HB_MS);
        c->hb_misses = (int64_t)lw_msg_get(m, hb_misses, DEFAULT_MISSES);
        if (c->hb_ms < 10)
            c->hb_ms = 10;
        if (c->hb_misses < 1)
            c->hb_misses = 1;
        if (lw_msg_has(m, max_frame_bytes) && m->max_frame_bytes < c->max_frame_bytes)
            c->max_frame_bytes = (size_t)m->max_frame_bytes;
        return LW_OK;
    case LW_MSG_HEARTBEAT:
        return LW_OK;
    case LW_MSG_BYE:
        return lose(c, err, "the hub at %s closed the connection: %s", c->endpoint,
                    lw_msg_get(m, reason, "no reason given"));
    case LW_MSG_ERROR:
        if (m->has_id)
            break;
        return lw_fail(err, lw_msg_get(m, code, LW_E_INTERNAL), "the hub at %s says: %s",
                       c->endpoint, lw_msg_get(m, message, "no message"));
    default:
        break;
    }
    *ret_mine = false;
    return LW_OK;
}

/* Take messages until there is one for the caller, or none. */
static lw_status take(lw_client *c, lw_client_event *ret, lw_err *err)
{
    for (;;) {
        bool got = false, mine;

        lw_packet_clear(&c->packet);
        lw_arena_reset(&c->arena);
        LW_TRY(lw_sock_recv(c->sock, NULL, &c->packet, &got, err));
        if (!got)
            return LW_OK;
        c->last_heard_ms = lw_now_ms();
        if (lw_msg_decode(&c->packet, &c->arena, &c->msg, err) != LW_OK)
            return lw_err_prefix(err, err ? err->code : LW_E_FORMAT,
                                 "a message of the hub at %s is damaged", c->endpoint);
        LW_TRY(handle_session(c, &mine, err));
        if (!mine) {
            ret->msg = &c->msg;
            return LW_OK;
        }
    }
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

lw_status lw_client_wait(lw_client *c, int fd, int64_t timeout_ms, lw_client_event *ret,
                         lw_err *err)
{
    const int64_t deadline = lw_now_ms() + timeout_ms;
    const bool was_connected = c->connected;
    const int n_sessions = c->n_sessions;

    *ret = (lw_client_event){ 0 };
    for (;;) {
        lw_poll_item items[2] = { { .fd = -1 }, { .fd = fd } };
        int64_t now = lw_now_ms(), wake = deadline;

        if (!c->connected && now - c->last_hello_ms >= HELLO_RETRY_MS)
            say_hello(c, now);
        if (c->connected && now - c->last_sent_ms >= c->hb_ms) {
            LW_TRY(say_heartbeat(c, err));
            c->last_sent_ms = now; /* also when the queue refused it: try again next time */
        }
        if (c->sock)
            LW_TRY(take(c, ret, err));
        now = lw_now_ms();
        if (!c->sock)
            return lw_fail(err, LW_E_UNAVAILABLE, "%s", c->why_lost);
        if (!ret->msg) /* what arrived before the end is still read */
            LW_TRY(check_link(c, now, err));
        items[0].sock = c->sock; /* which may be a new one */

        if (!c->connected)
            wake = earlier(wake, now + 20); /* hello may become possible at any moment */
        else
            wake = earlier(wake, earlier(c->last_sent_ms + c->hb_ms,
                                         c->last_heard_ms + c->hb_ms * c->hb_misses));
        if (ret->msg || wake < now)
            wake = now;
        (void)lw_poll(items, fd >= 0 ? 2 : 1, wake - now);
        if (lw_now_ms() - wake > STOPPED_MS)
            c->stopped_ms = lw_now_ms() - wake;
        ret->fd_readable = fd >= 0 && items[1].readable;
        if (ret->msg || ret->fd_readable)
            return LW_OK;
        if (c->connected != was_connected || c->n_sessions != n_sessions)
            return LW_OK;
        if (!items[0].readable && lw_now_ms() >= deadline)
            return LW_OK;
    }
}

lw_status lw_client_connect(lw_client *c, int64_t timeout_ms, lw_err *err)
{
    const int64_t deadline = lw_now_ms() + timeout_ms;

    while (!c->connected) {
        lw_client_event ev;
        int64_t left = deadline - lw_now_ms();

        if (left <= 0)
            return lw_fail(err, LW_E_UNAVAILABLE,
                           "no hub answers at %s; start one with `latentwire hub`, or leave --hub "
                           "out to use a private one",
                           c->endpoint);
        LW_TRY(lw_client_wait(c, -1, left < 50 ? left : 50, &ev, err));
    }
    return LW_OK;
}

lw_status lw_client_status(lw_client *c, int64_t timeout_ms, lw_arena *a, const char **ret_report,
                           lw_err *err)
{
    const int64_t deadline = lw_now_ms() + timeout_ms;
    lw_msg ask;

    lw_msg_init(&ask, LW_MSG_STATUS, NULL);
    LW_TRY(lw_client_send(c, &ask, err));
    for (;;) {
        lw_client_event ev;
        int64_t left = deadline - lw_now_ms();

        if (left <= 0)
            return lw_fail(err, LW_E_DEADLINE, "the hub at %s did not report its state in %lld ms",
                           c->endpoint, (long long)timeout_ms);
        LW_TRY(lw_client_wait(c, -1, left, &ev, err));
        if (ev.msg && ev.msg->type == LW_MSG_STATUS && lw_msg_has(ev.msg, report)) {
            char *copy = lw_arena_strndup(a, ev.msg->report, strlen(ev.msg->report), err);

            if (!copy)
                return LW_E_NOMEM;
            *ret_report = copy;
            return LW_OK;
        }
    }
}
