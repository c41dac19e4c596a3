/*
 * Sockets: a ROUTER where the hub binds, a DEALER where everybody else connects. All waiting is in
 * lw_poll; sending and receiving never block.
 */
#include "proto/transport.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/transport_impl.h"

#define SEND_QUEUE   64
#define RECV_QUEUE   8
#define LINGER_MS    1000
#define HANDSHAKE_MS 2000
/* libzmq's own heartbeat finds hosts that vanished. It is slower than the protocol's on purpose: a
 * PONG waits behind the frame that is being sent, and a large one may take seconds on a thin line.
 */
#define ZMTP_PING_MS   5000
#define ZMTP_DEAD_MS   20000
#define RECONNECT_MS   100
#define RECONNECT_MAX  2000
#define ENDPOINT_BYTES 512

struct lw_net {
    void *ctx;
    lw_zap *zap;
    lw_sock *socks;
    unsigned n_monitors;
};

struct lw_sock {
    lw_net *net;
    lw_sock *next;
    void *sock;
    void *monitor; /* PAIR that tells of a DEALER's connection; NULL on a ROUTER */
    lw_link link;
    bool is_router, has_keys;
    unsigned sender_roles; /* of the last message taken */
    uint64_t n_refused;
    int ipc_lock; /* -1 when not bound to ipc */
    const char *ipc_path;
    char endpoint[ENDPOINT_BYTES];
};

/* ---- contexts ---- */

lw_status lw_net_create(lw_net **ret, lw_err *err)
{
    lw_net *n = calloc(1, sizeof(*n));

    if (!n)
        return lw_fail(err, LW_E_NOMEM, "no memory for a ZeroMQ context");
    n->ctx = zmq_ctx_new();
    if (!n->ctx) {
        free(n);
        return lw_fail(err, LW_E_NOMEM, "no memory for a ZeroMQ context");
    }
    /* Encrypting bulk data keeps one I/O thread busy; the second keeps heartbeats going. */
    zmq_ctx_set(n->ctx, ZMQ_IO_THREADS, 2);
    *ret = n;
    return LW_OK;
}

void lw_net_destroy(lw_net **n, int linger_ms)
{
    lw_net *net = *n;

    if (!net)
        return;
    while (net->socks) {
        lw_sock *s = net->socks;

        zmq_setsockopt(s->sock, ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
        lw_sock_close(&s);
    }
    zmq_ctx_shutdown(net->ctx);
    lw_zap_join(&net->zap);
    while (zmq_ctx_term(net->ctx) != 0 && errno == EINTR)
        ;
    free(net);
    *n = NULL;
}

/* ---- making sockets ---- */

typedef struct option {
    int name, value;
} option;

static lw_status set_options(void *sock, const option *o, size_t n, lw_err *err)
{
    for (size_t i = 0; i < n; i++)
        if (zmq_setsockopt(sock, o[i].name, &o[i].value, sizeof(o[i].value)) != 0)
            return lw_fail(err, LW_E_INTERNAL, "socket option %d = %d: %s", o[i].name, o[i].value,
                           zmq_strerror(errno));
    return LW_OK;
}

/* An IPv4 address is kept as one: with IPV6 set, libzmq would report it as [::ffff:...]. */
static bool is_ipv4(const char *endpoint)
{
    unsigned char scrap[sizeof(struct in_addr)];
    const char *colon = strrchr(endpoint, ':');
    char host[64];

    if (strncmp(endpoint, "tcp://", 6) != 0 || colon < endpoint + 6)
        return false;
    snprintf(host, sizeof(host), "%.*s", (int)(colon - endpoint) - 6, endpoint + 6);
    return inet_pton(AF_INET, host, scrap) == 1;
}

static lw_status set_common(void *sock, bool is_router, const char *endpoint, lw_err *err)
{
    static const option both[] = {
        { ZMQ_SNDHWM, SEND_QUEUE },          { ZMQ_RCVHWM, RECV_QUEUE },
        { ZMQ_LINGER, LINGER_MS },           { ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS },
        { ZMQ_HEARTBEAT_IVL, ZMTP_PING_MS }, { ZMQ_HEARTBEAT_TIMEOUT, ZMTP_DEAD_MS },
        { ZMQ_HEARTBEAT_TTL, ZMTP_DEAD_MS }, { ZMQ_TCP_KEEPALIVE, 1 },
        { ZMQ_TCP_KEEPALIVE_IDLE, 30 },      { ZMQ_TCP_KEEPALIVE_INTVL, 10 },
        { ZMQ_TCP_KEEPALIVE_CNT, 3 },
    };
    /* Without MANDATORY a ROUTER drops what it cannot deliver and says nothing; with HANDOVER a
     * second peer could take over a first one's identity. */
    static const option router[] = { { ZMQ_ROUTER_MANDATORY, 1 }, { ZMQ_ROUTER_HANDOVER, 0 } };
    /* IMMEDIATE: nothing is queued for a connection that does not stand, so a new hub never
     * receives what was meant for its predecessor. */
    static const option dealer[] = { { ZMQ_IMMEDIATE, 1 },
                                     { ZMQ_RECONNECT_IVL, RECONNECT_MS },
                                     { ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX } };
    const option ipv6 = { ZMQ_IPV6, !is_ipv4(endpoint) };
    int64_t max_bytes = LW_MAX_FRAME_BYTES;

    LW_TRY(set_options(sock, &ipv6, 1, err));
    LW_TRY(set_options(sock, both, LW_ARRAY_LEN(both), err));
    LW_TRY(is_router ? set_options(sock, router, LW_ARRAY_LEN(router), err)
                     : set_options(sock, dealer, LW_ARRAY_LEN(dealer), err));
    /* libzmq allocates what a frame header claims as soon as it has read it; this is the bound. */
    if (zmq_setsockopt(sock, ZMQ_MAXMSGSIZE, &max_bytes, sizeof(max_bytes)) != 0)
        return lw_fail(err, LW_E_INTERNAL, "socket option MAXMSGSIZE: %s", zmq_strerror(errno));
    return LW_OK;
}

static const char *path_of_ipc(const char *endpoint)
{
    return strncmp(endpoint, "ipc://", 6) == 0 ? endpoint + 6 : NULL;
}

/* A numeric loopback address, so that no resolver decides what "insecure loopback" means. */
static bool is_loopback(const char *endpoint)
{
    const char *host = endpoint + strlen("tcp://"), *colon = strrchr(host, ':');
    size_t n = colon ? (size_t)(colon - host) : 0;
    char text[64];
    struct in_addr v4;
    struct in6_addr v6;

    if (n == 0 || n >= sizeof(text))
        return false;
    if (host[0] == '[' && host[n - 1] == ']') {
        snprintf(text, sizeof(text), "%.*s", (int)n - 2, host + 1);
        return inet_pton(AF_INET6, text, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
    }
    snprintf(text, sizeof(text), "%.*s", (int)n, host);
    return inet_pton(AF_INET, text, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

/* Whether this endpoint may be used with these params, before a socket exists. */
static lw_status admit(const char *endpoint, bool binding, const lw_net_params *p, bool *ret_keys,
                       lw_err *err)
{
    const char *path = path_of_ipc(endpoint);

    *ret_keys = false;
    if (strlen(endpoint) >= ENDPOINT_BYTES)
        return lw_fail(err, LW_E_INVALID, "endpoint of %zu bytes is too long", strlen(endpoint));
    if (path)
        return lw_ipc_check(path, !binding, err);
    if (strncmp(endpoint, "tcp://", 6) != 0)
        return lw_fail(err, LW_E_INVALID, "endpoint \"%s\": expected ipc://PATH or tcp://HOST:PORT",
                       endpoint);
    if (p->key_dir) {
        *ret_keys = true;
        return LW_OK;
    }
    if (p->insecure_loopback && is_loopback(endpoint))
        return LW_OK;
    return lw_fail(err, LW_E_DENIED,
                   p->insecure_loopback
                       ? "%s: without keys only tcp://127.x.x.x:PORT and tcp://[::1]:PORT"
                       : "%s: tcp needs keys (--keys DIR), or --insecure-loopback on one machine",
                   endpoint);
}

static lw_status sock_new(lw_net *n, bool is_router, const char *endpoint, bool has_keys,
                          lw_sock **ret, lw_err *err)
{
    lw_sock *s = calloc(1, sizeof(*s));

    if (!s)
        return lw_fail(err, LW_E_NOMEM, "no memory for a socket");
    s->net = n;
    s->is_router = is_router;
    s->has_keys = has_keys;
    s->ipc_lock = -1;
    snprintf(s->endpoint, sizeof(s->endpoint), "%s", endpoint);
    s->sock = zmq_socket(n->ctx, is_router ? ZMQ_ROUTER : ZMQ_DEALER);
    if (!s->sock) {
        free(s);
        return lw_fail(err, LW_E_IO, "no socket for %s: %s", endpoint, zmq_strerror(errno));
    }
    s->next = n->socks;
    n->socks = s;
    *ret = s;
    return set_common(s->sock, is_router, endpoint, err);
}

static lw_status start_handler(lw_net *n, const char *key_dir, lw_err *err)
{
    if (!n->zap)
        return lw_zap_start(n->ctx, key_dir, &n->zap, err);
    if (strcmp(lw_zap_key_dir(n->zap), key_dir) != 0)
        return lw_fail(err, LW_E_INVALID, "one process reads keys from one folder: %s or %s",
                       lw_zap_key_dir(n->zap), key_dir);
    return LW_OK;
}

static lw_status bind_errno(const char *endpoint, lw_err *err)
{
    switch (errno) {
    case EADDRINUSE:
        return lw_fail(err, LW_E_UNAVAILABLE, "%s: another process is bound here", endpoint);
    case EACCES:
        return lw_fail(err, LW_E_DENIED, "%s: %s", endpoint, zmq_strerror(errno));
    case EINVAL:
    case ENODEV:
    case EADDRNOTAVAIL:
        return lw_fail(err, LW_E_INVALID, "%s: not an address of this machine", endpoint);
    default:
        return lw_fail(err, LW_E_IO, "%s: %s", endpoint, zmq_strerror(errno));
    }
}

static lw_status bind_sock(lw_sock *s, unsigned roles, const lw_net_params *p, lw_err *err)
{
    size_t n = sizeof(s->endpoint);
    const char *path = path_of_ipc(s->endpoint);

    if (s->has_keys) {
        LW_TRY(start_handler(s->net, p->key_dir, err));
        LW_TRY(lw_auth_setup(s->sock, true, roles, p, err));
    }
    if (path) {
        LW_TRY(lw_ipc_claim(path, &s->ipc_lock, err));
        s->ipc_path = path;
    }
    if (zmq_bind(s->sock, s->endpoint) != 0)
        return bind_errno(s->endpoint, err);
    if (path)
        (void)chmod(path, 0600);
    else
        zmq_getsockopt(s->sock, ZMQ_LAST_ENDPOINT, s->endpoint, &n);
    return LW_OK;
}

lw_status lw_sock_bind(lw_net *n, const char *endpoint, unsigned roles, const lw_net_params *params,
                       lw_sock **ret, lw_err *err)
{
    lw_sock *s = NULL;
    lw_status status;
    bool keys;

    LW_TRY(admit(endpoint, true, params, &keys, err));
    status = sock_new(n, true, endpoint, keys, &s, err);
    if (status == LW_OK)
        status = bind_sock(s, roles, params, err);
    if (status != LW_OK) {
        lw_sock_close(&s);
        return status;
    }
    *ret = s;
    return LW_OK;
}

static lw_status watch_link(lw_sock *s, lw_err *err)
{
    const int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                       ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    char name[64];

    snprintf(name, sizeof(name), "inproc://link-%u", s->net->n_monitors++);
    if (zmq_socket_monitor(s->sock, name, events) != 0)
        return lw_fail(err, LW_E_IO, "%s: no monitor: %s", s->endpoint, zmq_strerror(errno));
    s->monitor = zmq_socket(s->net->ctx, ZMQ_PAIR);
    if (!s->monitor || zmq_connect(s->monitor, name) != 0)
        return lw_fail(err, LW_E_IO, "%s: no monitor: %s", s->endpoint, zmq_strerror(errno));
    return LW_OK;
}

static lw_status connect_sock(lw_sock *s, const lw_net_params *p, lw_err *err)
{
    if (s->has_keys)
        LW_TRY(lw_auth_setup(s->sock, false, 0, p, err));
    LW_TRY(watch_link(s, err));
    if (zmq_connect(s->sock, s->endpoint) != 0)
        return lw_fail(err, errno == EINVAL ? LW_E_INVALID : LW_E_IO, "%s: %s", s->endpoint,
                       zmq_strerror(errno));
    return LW_OK;
}

lw_status lw_sock_connect(lw_net *n, const char *endpoint, const lw_net_params *params,
                          lw_sock **ret, lw_err *err)
{
    lw_sock *s = NULL;
    lw_status status;
    bool keys;

    LW_TRY(admit(endpoint, false, params, &keys, err));
    status = sock_new(n, false, endpoint, keys, &s, err);
    if (status == LW_OK)
        status = connect_sock(s, params, err);
    if (status != LW_OK) {
        lw_sock_close(&s);
        return status;
    }
    *ret = s;
    return LW_OK;
}

void lw_sock_close(lw_sock **s)
{
    lw_sock *sock = *s;

    *s = NULL;
    if (!sock)
        return;
    for (lw_sock **at = &sock->net->socks; *at; at = &(*at)->next)
        if (*at == sock) {
            *at = sock->next;
            break;
        }
    if (sock->monitor) {
        zmq_socket_monitor(sock->sock, NULL, 0);
        zmq_close(sock->monitor);
    }
    if (sock->ipc_lock >= 0)
        zmq_unbind(sock->sock, sock->endpoint);
    zmq_close(sock->sock);
    if (sock->ipc_lock >= 0)
        lw_ipc_release(sock->ipc_path, sock->ipc_lock);
    free(sock);
}

const char *lw_sock_endpoint(const lw_sock *s)
{
    return s->endpoint;
}

/* ---- the state of a connection ---- */

static void link_event(lw_sock *s, uint16_t event)
{
    if (s->link == LW_LINK_LOST)
        return;
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        s->link = LW_LINK_UP;
        break;
    case ZMQ_EVENT_DISCONNECTED:
        if (s->link == LW_LINK_UP)
            s->link = LW_LINK_LOST;
        break;
    default:
        s->link = LW_LINK_REFUSED;
        break;
    }
}

static void read_monitor(lw_sock *s)
{
    uint8_t event[6];
    uint16_t kind;

    while (s->monitor && zmq_recv(s->monitor, event, sizeof(event), ZMQ_DONTWAIT) >= 2) {
        memcpy(&kind, event, sizeof(kind));
        zmq_recv(s->monitor, NULL, 0, ZMQ_DONTWAIT); /* the address */
        link_event(s, kind);
    }
}

lw_link lw_sock_link(lw_sock *s)
{
    read_monitor(s);
    return s->link;
}

/* ---- messages ---- */

static bool has_more(zmq_msg_t *m)
{
    return zmq_msg_more(m) != 0;
}

/* libzmq delivers multipart messages whole: after the first part the others are there. */
static void drain(lw_sock *s)
{
    zmq_msg_t part;
    bool more = true;

    while (more) {
        zmq_msg_init(&part);
        more = zmq_msg_recv(&part, s->sock, ZMQ_DONTWAIT) >= 0 && has_more(&part);
        zmq_msg_close(&part);
    }
}

static lw_status refuse(lw_sock *s, bool more, lw_packet *p, lw_status code, const char *what,
                        lw_err *err)
{
    if (more)
        drain(s);
    lw_packet_clear(p);
    s->n_refused++;
    return lw_fail(err, code, "message refused: %s", what);
}

static lw_status recv_frames(lw_sock *s, lw_packet *ret, lw_err *err)
{
    lw_packet p = { 0 };
    size_t bytes = 0;
    bool more = true;

    while (more) {
        zmq_msg_t part;

        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, s->sock, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&part);
            return refuse(s, false, &p, LW_E_IO, zmq_strerror(errno), err);
        }
        more = has_more(&part);
        bytes += zmq_msg_size(&part);
        if (s->has_keys)
            s->sender_roles = lw_auth_roles_of(&part);
        if (p.n_frames == 1 + LW_MAX_TENSORS || bytes > LW_MAX_MESSAGE_BYTES) {
            zmq_msg_close(&part);
            return refuse(s, more, &p, LW_E_TOO_LARGE,
                          bytes > LW_MAX_MESSAGE_BYTES ? "more bytes than a message may have"
                                                       : "more frames than a message may have",
                          err);
        }
        p.frames[p.n_frames] = lw_frame_take(&part);
        if (!p.frames[p.n_frames])
            return refuse(s, more, &p, LW_E_NOMEM, "no memory", err);
        p.n_frames++;
    }
    *ret = p;
    return LW_OK;
}

lw_status lw_sock_recv(lw_sock *s, lw_peer *ret_peer, lw_packet *ret, bool *ret_got, lw_err *err)
{
    int events = 0;
    size_t n_events = sizeof(events);

    *ret_got = false;
    if (zmq_getsockopt(s->sock, ZMQ_EVENTS, &events, &n_events) != 0)
        return lw_fail(err, LW_E_UNAVAILABLE, "%s: %s", s->endpoint, zmq_strerror(errno));
    if (!(events & ZMQ_POLLIN))
        return LW_OK;
    s->sender_roles = 0;
    if (s->is_router) {
        lw_peer from;
        int n = zmq_recv(s->sock, from.id, sizeof(from.id), ZMQ_DONTWAIT);

        if (n < 0)
            return errno == EAGAIN || errno == EINTR
                       ? LW_OK
                       : lw_fail(err, LW_E_UNAVAILABLE, "%s: %s", s->endpoint, zmq_strerror(errno));
        from.len = (uint8_t)n; /* libzmq's identities have at most 255 bytes */
        if (ret_peer)
            *ret_peer = from;
    }
    LW_TRY(recv_frames(s, ret, err));
    *ret_got = true;
    return LW_OK;
}

uint64_t lw_sock_n_refused(const lw_sock *s)
{
    return s->n_refused;
}

static lw_status send_errno(const lw_sock *s, lw_err *err)
{
    if (errno == EAGAIN)
        return lw_fail(err, LW_E_EXHAUSTED, "%s: the peer takes nothing now", s->endpoint);
    if (errno == EHOSTUNREACH)
        return lw_fail(err, LW_E_UNAVAILABLE, "%s: the peer is gone", s->endpoint);
    return lw_fail(err, LW_E_UNAVAILABLE, "%s: %s", s->endpoint, zmq_strerror(errno));
}

lw_status lw_sock_send(lw_sock *s, const lw_peer *peer, lw_packet *p, lw_err *err)
{
    zmq_msg_t part;

    /* The monitor may know of a lost connection before the socket does, which would still take the
     * message, for nobody. */
    if (s->link == LW_LINK_LOST || s->link == LW_LINK_REFUSED)
        return lw_fail(err, LW_E_EXHAUSTED, "the connection to %s is lost", s->endpoint);
    if (s->is_router && zmq_send(s->sock, peer->id, peer->len, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0)
        return send_errno(s, err);
    for (int i = 0; i < p->n_frames; i++) {
        int flags = ZMQ_DONTWAIT | (i + 1 < p->n_frames ? ZMQ_SNDMORE : 0);

        if (!lw_frame_share(p->frames[i], &part) || zmq_msg_send(&part, s->sock, flags) < 0) {
            lw_status status = send_errno(s, err);

            zmq_msg_close(&part);
            return status;
        }
    }
    lw_packet_clear(p);
    return LW_OK;
}

lw_status lw_sock_send_msg(lw_sock *s, const lw_peer *peer, const lw_msg *m, lw_err *err)
{
    lw_packet p;
    lw_status status;

    LW_TRY(lw_msg_encode(m, &p, err));
    status = lw_sock_send(s, peer, &p, err);
    if (status != LW_OK)
        lw_packet_clear(&p);
    return status;
}

bool lw_sock_role_allowed(const lw_sock *s, lw_role role)
{
    return !s->has_keys || (s->sender_roles >> role & 1) != 0;
}

/* ---- waiting ---- */

int lw_poll(lw_poll_item *items, int n, int64_t timeout_ms)
{
    zmq_pollitem_t z[2 * LW_MAX_POLL] = { 0 };
    int n_z = n, n_ready = 0;

    assert(n <= LW_MAX_POLL);
    for (int i = 0; i < n; i++) {
        const lw_poll_item *it = &items[i];

        z[i].socket = it->sock ? it->sock->sock : NULL;
        z[i].fd = it->sock ? 0 : it->fd;
        z[i].events = (short)(ZMQ_POLLIN | (it->want_write ? ZMQ_POLLOUT : 0));
        if (it->sock && it->sock->monitor)
            z[n_z++] = (zmq_pollitem_t){ .socket = it->sock->monitor, .events = ZMQ_POLLIN };
    }
    if (zmq_poll(z, n_z, timeout_ms < 0 ? -1 : (long)timeout_ms) < 0)
        for (int i = 0; i < n; i++)
            z[i].revents = 0;
    for (int i = 0; i < n; i++) {
        items[i].readable = (z[i].revents & (ZMQ_POLLIN | ZMQ_POLLERR)) != 0;
        items[i].writable = (z[i].revents & ZMQ_POLLOUT) != 0;
        n_ready += items[i].readable || items[i].writable;
        if (items[i].sock)
            read_monitor(items[i].sock);
    }
    return n_ready;
}
