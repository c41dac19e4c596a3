/* Sockets over ipc and tcp, with and without keys; peers that misbehave. */

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"

#include "proto/transport.h"

#include "tests/unit/unit.h"

#define SOON_MS 5000

static lw_net *hub_net, *peer_net;
static lw_sock *hub, *peer;

static int setup(void **state)
{
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_net_create(&hub_net, &err), &err);
    assert_ok(lw_net_create(&peer_net, &err), &err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lw_sock_close(&hub);
    lw_sock_close(&peer);
    lw_net_destroy(&hub_net, 0);
    lw_net_destroy(&peer_net, 0);
    return 0;
}

/* An ipc endpoint in the test's own folder; a new one each time. */
static const char *ipc(void)
{
    static char endpoint[256];
    static int n;
    char name[32];

    snprintf(name, sizeof(name), "%d.sock", n++);
    snprintf(endpoint, sizeof(endpoint), "ipc://%s", unit_tmp(name));
    return endpoint;
}

static lw_packet one_frame(const char *text)
{
    return (lw_packet){ .n_frames = 1, .frames = { lw_frame_copy(text, strlen(text)) } };
}

static void send_soon(lw_sock *s, const lw_peer *to, lw_packet *p)
{
    int64_t end = lw_now_ms() + SOON_MS;
    lw_err err = { 0 };

    while (lw_sock_send(s, to, p, &err) != LW_OK) {
        lw_poll_item it = { .sock = s, .want_write = true };

        if (lw_now_ms() > end)
            fail_msg("not sent: %s", err.text);
        lw_poll(&it, 1, 100);
    }
    assert_int_equal(p->n_frames, 0);
}

/* The next message, or the error that took its place. */
static lw_status recv_soon(lw_sock *s, lw_peer *from, lw_packet *p, lw_err *err)
{
    int64_t end = lw_now_ms() + SOON_MS;
    bool got = false;

    while (lw_now_ms() < end) {
        lw_poll_item it = { .sock = s };

        LW_TRY(lw_sock_recv(s, from, p, &got, err));
        if (got)
            return LW_OK;
        lw_poll(&it, 1, 100);
    }
    return lw_fail(err, LW_E_DEADLINE, "nothing came");
}

static void assert_text(const lw_packet *p, const char *text)
{
    assert_int_equal(p->n_frames, 1);
    assert_int_equal(lw_frame_size(p->frames[0]), strlen(text));
    assert_memory_equal(lw_frame_data(p->frames[0]), text, strlen(text));
}

/* A word there and a word back. */
static void exchange(lw_peer *ret_peer)
{
    lw_err err = { 0 };
    lw_packet p = one_frame("hello"), q;
    lw_peer from;

    send_soon(peer, NULL, &p);
    assert_ok(recv_soon(hub, &from, &q, &err), &err);
    assert_text(&q, "hello");
    send_soon(hub, &from, &q);
    assert_ok(recv_soon(peer, NULL, &q, &err), &err);
    assert_text(&q, "hello");
    lw_packet_clear(&q);
    assert_int_equal(lw_sock_link(peer), LW_LINK_UP);
    if (ret_peer)
        *ret_peer = from;
}

static void join(const char *endpoint, const lw_net_params *params)
{
    lw_err err = { 0 };

    assert_ok(lw_sock_bind(hub_net, endpoint, ~0u, params, &hub, &err), &err);
    assert_ok(lw_sock_connect(peer_net, lw_sock_endpoint(hub), params, &peer, &err), &err);
}

/* ---- the ordinary ---- */

static void ipc_carries_messages(void **state)
{
    const lw_net_params none = { 0 };
    struct stat st;

    (void)state;
    join(ipc(), &none);
    exchange(NULL);
    assert_true(lw_sock_role_allowed(hub, LW_ROLE_ENCODER)); /* without keys, any */
    assert_int_equal(stat(lw_sock_endpoint(hub) + 6, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void loopback_tcp_carries_messages(void **state)
{
    const lw_net_params loopback = { .insecure_loopback = true };

    (void)state;
    join("tcp://127.0.0.1:*", &loopback);
    assert_contains(lw_sock_endpoint(hub), "tcp://127.0.0.1:");
    exchange(NULL);
}

static void loopback_tcp6_carries_messages(void **state)
{
    const lw_net_params loopback = { .insecure_loopback = true };
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    bool have = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;

    (void)state;
    if (fd >= 0)
        close(fd);
    if (!have)
        skip(); /* a machine without IPv6 */
    join("tcp://[::1]:*", &loopback);
    exchange(NULL);
}

static void a_message_is_encoded_and_sent(void **state)
{
    const lw_net_params none = { 0 };
    const uint8_t id[16] = { 7 };
    float big[1000] = { 1 };
    lw_tensor t = lw_tensor_1d(big, LW_F32, 1000);
    lw_err err = { 0 };
    lw_arena a;
    lw_msg m, r;
    lw_packet p;
    lw_peer from;

    (void)state;
    join(ipc(), &none);
    exchange(NULL);
    lw_msg_init(&m, LW_MSG_RESULT, id);
    assert_ok(lw_msg_tensor_add(&m, LW_T_LATENTS, &t, NULL, &err), &err);
    assert_ok(lw_sock_send_msg(peer, NULL, &m, &err), &err);
    assert_ok(recv_soon(hub, &from, &p, &err), &err);
    lw_arena_init(&a, "test", 0);
    assert_ok(lw_msg_decode(&p, &a, &r, &err), &err);
    assert_memory_equal(lw_msg_tensor_find(&r, LW_T_LATENTS)->t.data, big, sizeof(big));
    lw_packet_clear(&p);
    lw_arena_deinit(&a);
}

static void poll_waits_for_descriptors_too(void **state)
{
    const lw_net_params none = { 0 };
    int fds[2];
    lw_poll_item items[2] = { { 0 } };
    int64_t start = lw_now_ms();

    (void)state;
    join(ipc(), &none);
    exchange(NULL);
    assert_int_equal(pipe(fds), 0);
    items[0].sock = hub;
    items[1].fd = fds[0];
    assert_int_equal(lw_poll(items, 2, 30), 0);
    assert_in_range(lw_now_ms() - start, 25, SOON_MS);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(lw_poll(items, 2, SOON_MS), 1);
    assert_true(items[1].readable && !items[0].readable);
    close(fds[0]);
    close(fds[1]);
}

/* ---- frames ---- */

static atomic_int freed;

static void on_free(void *data, void *hint)
{
    (void)hint;
    free(data);
    atomic_fetch_add(&freed, 1);
}

/* Sent to several peers, kept, and forwarded: one memory, freed once. */
static void frames_are_shared_not_copied(void **state)
{
    const lw_net_params none = { 0 };
    const size_t n = 1 << 20;
    uint8_t *memory = malloc(n);
    lw_frame *kept;
    lw_packet p = { .n_frames = 1 };
    lw_peer from;
    lw_err err = { 0 };

    (void)state;
    memset(memory, 0x5a, n);
    join(ipc(), &none);
    exchange(&from);
    kept = lw_frame_wrap(memory, n, on_free, NULL);
    for (int i = 0; i < 3; i++) {
        p = (lw_packet){ .n_frames = 1, .frames = { lw_frame_ref(kept) } };
        send_soon(hub, &from, &p);
    }
    for (int i = 0; i < 3; i++) {
        assert_ok(recv_soon(peer, NULL, &p, &err), &err);
        assert_int_equal(lw_frame_size(p.frames[0]), n);
        assert_int_equal(((const uint8_t *)lw_frame_data(p.frames[0]))[n - 1], 0x5a);
        lw_packet_clear(&p);
    }
    assert_int_equal(atomic_load(&freed), 0);
    assert_ptr_equal(lw_frame_data(kept), memory);
    lw_frame_unref(&kept);
    for (int64_t end = lw_now_ms() + SOON_MS; !atomic_load(&freed) && lw_now_ms() < end;)
        usleep(1000);
    assert_int_equal(atomic_load(&freed), 1);
}

/* ---- peers that misbehave, through plain libzmq ---- */

static void *raw_dealer(void *ctx, const char *endpoint)
{
    void *s = zmq_socket(ctx, ZMQ_DEALER);
    int linger = 0;

    assert_non_null(s);
    zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof(linger));
    assert_int_equal(zmq_connect(s, endpoint), 0);
    return s;
}

static void too_many_frames_are_drained(void **state)
{
    const lw_net_params none = { 0 };
    void *ctx = zmq_ctx_new(), *raw;
    lw_err err = { 0 };
    lw_packet p;
    lw_peer from = { 0 };

    (void)state;
    join(ipc(), &none);
    raw = raw_dealer(ctx, lw_sock_endpoint(hub));
    for (int i = 0; i < 2 + LW_MAX_TENSORS; i++)
        zmq_send(raw, "f", 1, i < 1 + LW_MAX_TENSORS ? ZMQ_SNDMORE : 0);
    zmq_send(raw, "next", 4, 0);
    assert_int_equal(recv_soon(hub, &from, &p, &err), LW_E_TOO_LARGE);
    assert_true(from.len > 0);
    assert_int_equal(lw_sock_n_refused(hub), 1);
    assert_ok(recv_soon(hub, &from, &p, &err), &err);
    assert_text(&p, "next");
    lw_packet_clear(&p);
    zmq_close(raw);
    zmq_ctx_term(ctx);
}

static void too_many_bytes_are_drained(void **state)
{
    const lw_net_params none = { 0 };
    const size_t n = 48u << 20; /* three of these are above the limit of a message */
    void *ctx = zmq_ctx_new(), *raw;
    uint8_t *memory = calloc(1, n);
    lw_err err = { 0 };
    lw_packet p;
    lw_peer from;

    (void)state;
    join(ipc(), &none);
    raw = raw_dealer(ctx, lw_sock_endpoint(hub));
    for (int i = 0; i < 3; i++)
        zmq_send(raw, memory, n, i < 2 ? ZMQ_SNDMORE : 0);
    zmq_send(raw, "next", 4, 0);
    assert_int_equal(recv_soon(hub, &from, &p, &err), LW_E_TOO_LARGE);
    assert_ok(recv_soon(hub, &from, &p, &err), &err);
    assert_text(&p, "next");
    lw_packet_clear(&p);
    zmq_close(raw);
    zmq_ctx_term(ctx);
    free(memory);
}

static long resident_kb(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (f && fscanf(f, "%*d %ld", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static int raw_unix(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

/* A frame header that claims 2^62 bytes, after a proper ZMTP handshake. */
static void a_huge_claim_costs_no_memory(void **state)
{
    static const uint8_t greeting[64] = { 0xff, 0,    0, 0, 0,   0,   0,   0,
                                          1,    0x7f, 3, 0, 'N', 'U', 'L', 'L' };
    static const uint8_t ready[] = "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06"
                                   "DEALER";
    static const uint8_t word[] = { 0x00, 1, 'w' };
    static const uint8_t claim[] = { 0x02, 0x40, 0, 0, 0, 0, 0, 0, 0, 'x' };
    const lw_net_params none = { 0 };
    uint8_t reply[256];
    lw_err err = { 0 };
    lw_packet p;
    lw_peer from;
    size_t have = 0;
    ssize_t n;
    int fd;
    long before;
    struct timeval wait = { .tv_sec = SOON_MS / 1000 };

    (void)state;
    join(ipc(), &none);
    exchange(NULL);
    before = resident_kb();
    fd = raw_unix(lw_sock_endpoint(hub) + 6);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    assert_int_equal(write(fd, greeting, sizeof(greeting)), sizeof(greeting));
    assert_int_equal(write(fd, ready, sizeof(ready) - 1), sizeof(ready) - 1);
    do { /* its greeting and READY come first */
        n = read(fd, reply + have, sizeof(reply) - have);
        assert_true(n > 0);
        have += (size_t)n;
    } while (!memmem(reply, have, "ROUTER", 6));
    assert_int_equal(write(fd, word, sizeof(word)), sizeof(word));
    assert_ok(recv_soon(hub, &from, &p, &err), &err); /* so far it is a proper peer */
    assert_text(&p, "w");
    lw_packet_clear(&p);
    assert_int_equal(write(fd, claim, sizeof(claim)), sizeof(claim));
    do /* the hub hangs up */
        n = read(fd, reply, sizeof(reply));
    while (n > 0);
    assert_true(n == 0 || errno == ECONNRESET);
    close(fd);
    assert_in_range(resident_kb() - before + 8192, 0, 16384);
    exchange(NULL); /* others are not affected */
}

static void a_slow_handshake_is_cut(void **state)
{
    const lw_net_params none = { 0 };
    int64_t start = lw_now_ms();
    struct timeval wait = { .tv_sec = SOON_MS / 1000 };
    uint8_t reply[256];
    ssize_t n;
    int fd;

    (void)state;
    join(ipc(), &none);
    fd = raw_unix(lw_sock_endpoint(hub) + 6);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    assert_int_equal(write(fd, "\xff", 1), 1);
    do
        n = read(fd, reply, sizeof(reply));
    while (n > 0);
    assert_true(n == 0 || errno == ECONNRESET);
    assert_in_range(lw_now_ms() - start, 1000, 4000);
    close(fd);
    exchange(NULL);
}

static void a_full_queue_and_a_gone_peer_are_told(void **state)
{
    const lw_net_params none = { 0 };
    lw_err err = { 0 };
    lw_peer from, nobody = { .len = 5, .id = "\0zzzz" };
    lw_packet p;
    lw_status s = LW_OK;
    int sent = 0;
    char *big = calloc(1, 1 << 20);

    (void)state;
    join(ipc(), &none);
    exchange(&from);
    p = one_frame("x");
    assert_int_equal(lw_sock_send(hub, &nobody, &p, &err), LW_E_UNAVAILABLE);
    assert_int_equal(p.n_frames, 1); /* not consumed */
    lw_packet_clear(&p);

    /* The peer does not read: its queue, the kernel's and ours fill up, then we are told. */
    while (s == LW_OK && sent < 1000) {
        p = (lw_packet){ .n_frames = 1, .frames = { lw_frame_copy(big, 1 << 20) } };
        s = lw_sock_send(hub, &from, &p, &err);
        sent += s == LW_OK;
        lw_packet_clear(&p);
    }
    assert_int_equal(s, LW_E_EXHAUSTED);
    assert_in_range(sent, 8, 200);

    lw_sock_close(&peer);
    lw_net_destroy(&peer_net, 0);
    for (int64_t end = lw_now_ms() + SOON_MS; s != LW_E_UNAVAILABLE && lw_now_ms() < end;) {
        bool got;
        lw_peer scrap;

        /* libzmq learns of the end when it is asked for messages, as a hub always does. */
        assert_ok(lw_sock_recv(hub, &scrap, &p, &got, &err), &err);
        assert_false(got);
        p = one_frame("x");
        s = lw_sock_send(hub, &from, &p, &err);
        lw_packet_clear(&p);
        usleep(1000);
    }
    assert_int_equal(s, LW_E_UNAVAILABLE);
    free(big);
}

static void a_lost_hub_is_noticed_at_once(void **state)
{
    const lw_net_params none = { 0 };
    lw_err err = { 0 };
    lw_packet p = one_frame("x");
    int64_t start;
    lw_poll_item it = { 0 };

    (void)state;
    join(ipc(), &none);
    exchange(NULL);
    lw_sock_close(&hub);
    start = lw_now_ms();
    it.sock = peer;
    while (lw_sock_link(peer) != LW_LINK_LOST && lw_now_ms() - start < SOON_MS)
        lw_poll(&it, 1, SOON_MS);
    assert_int_equal(lw_sock_link(peer), LW_LINK_LOST);
    assert_in_range(lw_now_ms() - start, 0, 1000);
    /* Nothing is kept for whoever may bind here next. */
    assert_int_equal(lw_sock_send(peer, NULL, &p, &err), LW_E_EXHAUSTED);
    lw_packet_clear(&p);
}

static void connecting_before_the_hub_is_up(void **state)
{
    const lw_net_params none = { 0 };
    const char *endpoint = ipc();
    lw_err err = { 0 };
    lw_packet p = one_frame("x");

    (void)state;
    assert_ok(lw_sock_connect(peer_net, endpoint, &none, &peer, &err), &err);
    assert_int_equal(lw_sock_link(peer), LW_LINK_CONNECTING);
    assert_int_equal(lw_sock_send(peer, NULL, &p, &err), LW_E_EXHAUSTED);
    lw_packet_clear(&p);
    assert_ok(lw_sock_bind(hub_net, endpoint, ~0u, &none, &hub, &err), &err);
    exchange(NULL);
}

/* ---- ipc folders and stale sockets ---- */

static void assert_bind_fails(const char *endpoint, lw_status expected, const char *text)
{
    const lw_net_params none = { 0 };
    lw_err err = { 0 };

    assert_int_equal(lw_sock_bind(hub_net, endpoint, ~0u, &none, &hub, &err), expected);
    assert_contains(err.text, text);
    assert_null(hub);
}

static void ipc_needs_a_private_folder(void **state)
{
    char folder[512], endpoint[1024], link[512];
    const lw_net_params none = { 0 };
    lw_err err = { 0 };

    (void)state;
    snprintf(folder, sizeof(folder), "%s", unit_tmp("open"));
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(chmod(folder, 0750), 0);
    snprintf(endpoint, sizeof(endpoint), "ipc://%s/s", folder);
    assert_bind_fails(endpoint, LW_E_DENIED, "chmod 700");
    assert_int_equal(lw_sock_connect(peer_net, endpoint, &none, &peer, &err), LW_E_DENIED);
    assert_int_equal(chmod(folder, 0700), 0);
    snprintf(link, sizeof(link), "%s", unit_tmp("link"));
    assert_int_equal(symlink(folder, link), 0);
    snprintf(endpoint, sizeof(endpoint), "ipc://%s/s", link);
    assert_bind_fails(endpoint, LW_E_DENIED, "links are not followed");
    snprintf(endpoint, sizeof(endpoint), "ipc://%s/none/s", folder);
    assert_bind_fails(endpoint, LW_E_NOT_FOUND, "none");
    /* Connecting may come first. */
    assert_ok(lw_sock_connect(peer_net, endpoint, &none, &peer, &err), &err);
    snprintf(endpoint, sizeof(endpoint), "ipc:///%0120d", 1);
    assert_bind_fails(endpoint, LW_E_INVALID, "107");
    assert_bind_fails("ipc://", LW_E_INVALID, "path");
    assert_bind_fails("ipc://@abstract", LW_E_INVALID, "path");
    assert_bind_fails("ipc://*", LW_E_INVALID, "path");
    assert_bind_fails("inproc://x", LW_E_INVALID, "tcp://HOST:PORT");
    assert_bind_fails("nonsense", LW_E_INVALID, "ipc://PATH");
}

static void a_live_socket_is_not_replaced(void **state)
{
    const lw_net_params none = { 0 };
    const char *endpoint = ipc();
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    lw_sock *first = NULL;
    lw_err err = { 0 };
    int fd;

    (void)state;
    assert_ok(lw_sock_bind(peer_net, endpoint, ~0u, &none, &first, &err), &err);
    assert_bind_fails(endpoint, LW_E_UNAVAILABLE, "another process is bound here");
    lw_sock_close(&first);
    assert_int_equal(access(endpoint + 6, F_OK), -1);

    /* A program that does not lock. */
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "%.100s", endpoint + 6);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_bind_fails(endpoint, LW_E_UNAVAILABLE, "another process");
    assert_int_equal(access(endpoint + 6, F_OK), 0);
    close(fd); /* killed: the file stays, nobody answers */
    assert_ok(lw_sock_bind(hub_net, endpoint, ~0u, &none, &hub, &err), &err);
    assert_ok(lw_sock_connect(peer_net, endpoint, &none, &peer, &err), &err);
    exchange(NULL);
}

static void what_is_no_socket_is_not_removed(void **state)
{
    char endpoint[512];
    const char *path = unit_write("precious", "data", 4);

    (void)state;
    snprintf(endpoint, sizeof(endpoint), "ipc://%s", path);
    assert_bind_fails(endpoint, LW_E_INVALID, "not a socket");
    assert_int_equal(access(path, F_OK), 0);
}

static void nothing_is_left_behind(void **state)
{
    const lw_net_params none = { 0 };
    int before = unit_count_files();

    (void)state;
    join(ipc(), &none);
    exchange(NULL);
    assert_int_equal(unit_count_files(), before + 2); /* socket and lock */
    lw_sock_close(&hub);
    assert_int_equal(unit_count_files(), before);
}

static void the_runtime_folder_is_private(void **state)
{
    char dir[512];
    lw_err err = { 0 };
    struct stat st;

    (void)state;
    setenv("LATENTWIRE_RUNTIME_DIR", unit_tmp("rt"), 1);
    assert_ok(lw_runtime_dir(dir, sizeof(dir), &err), &err);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_ok(lw_runtime_dir(dir, sizeof(dir), &err), &err); /* exists already */
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(lw_runtime_dir(dir, sizeof(dir), &err), LW_E_DENIED);
    assert_int_equal(lw_runtime_dir(dir, 4, &err), LW_E_INVALID);
    setenv("LATENTWIRE_RUNTIME_DIR", "/proc/nothing/here", 1);
    assert_int_not_equal(lw_runtime_dir(dir, sizeof(dir), &err), LW_OK);
    unsetenv("LATENTWIRE_RUNTIME_DIR");
    setenv("XDG_RUNTIME_DIR", unit_tmp("xdg"), 1);
    assert_int_equal(mkdir(unit_tmp("xdg"), 0700), 0);
    assert_ok(lw_runtime_dir(dir, sizeof(dir), &err), &err);
    assert_contains(dir, "/xdg/latentwire");
    unsetenv("XDG_RUNTIME_DIR");
}

/* ---- tcp and keys ---- */

static void tcp_without_keys_is_refused(void **state)
{
    static const char *const endpoints[] = { "tcp://*:*",        "tcp://0.0.0.0:*",
                                             "tcp://10.0.0.1:1", "tcp://localhost:1",
                                             "tcp://[::]:*",     "tcp://[fe80::1]:1",
                                             "tcp://127.0.0.1",  "tcp://",
                                             "tcp://128.0.0.1:1" };
    const lw_net_params none = { 0 }, loopback = { .insecure_loopback = true };
    lw_err err = { 0 };

    (void)state;
    assert_bind_fails("tcp://127.0.0.1:*", LW_E_DENIED, "--keys");
    for (size_t i = 0; i < LW_ARRAY_LEN(endpoints); i++) {
        if (lw_sock_bind(hub_net, endpoints[i], ~0u, &loopback, &hub, &err) != LW_E_DENIED)
            fail_msg("bound %s", endpoints[i]);
        assert_int_equal(lw_sock_connect(peer_net, endpoints[i], &loopback, &peer, &err),
                         LW_E_DENIED);
        assert_int_equal(lw_sock_connect(peer_net, endpoints[i], &none, &peer, &err), LW_E_DENIED);
    }
}

static const char *make_keys(const char *name)
{
    static char dir[512];
    lw_err err = { 0 };

    snprintf(dir, sizeof(dir), "%s", unit_tmp(name));
    assert_ok(lw_keys_generate(dir, "hub", &err), &err);
    assert_ok(lw_keys_generate(dir, "client", &err), &err);
    assert_ok(lw_keys_generate(dir, "worker", &err), &err);
    assert_ok(lw_keys_authorize(dir, "client", LW_ROLE_CLIENT, &err), &err);
    assert_ok(lw_keys_authorize(dir, "worker", LW_ROLE_ENCODER, &err), &err);
    return dir;
}

static void keys_open_their_roles_only(void **state)
{
    const char *dir = make_keys("keys");
    const lw_net_params client = { .key_dir = dir },
                        worker = { .key_dir = dir, .key_name = "worker" };
    const unsigned workers = 1u << LW_ROLE_ENCODER | 1u << LW_ROLE_DENOISER;
    lw_err err = { 0 };
    lw_packet p;
    lw_peer from;
    int64_t start = lw_now_ms();

    (void)state;
    assert_ok(lw_sock_bind(hub_net, "tcp://127.0.0.1:*", workers, &client, &hub, &err), &err);
    assert_ok(lw_sock_connect(peer_net, lw_sock_endpoint(hub), &worker, &peer, &err), &err);
    p = one_frame("hello");
    send_soon(peer, NULL, &p);
    assert_ok(recv_soon(hub, &from, &p, &err), &err);
    assert_true(lw_sock_role_allowed(hub, LW_ROLE_ENCODER));
    assert_false(lw_sock_role_allowed(hub, LW_ROLE_DENOISER)); /* let in here, but not this key */
    assert_false(lw_sock_role_allowed(hub, LW_ROLE_CLIENT));
    lw_packet_clear(&p);
    lw_sock_close(&peer);

    /* A client's key does not open the workers' door. */
    assert_ok(lw_sock_connect(peer_net, lw_sock_endpoint(hub), &client, &peer, &err), &err);
    while (lw_sock_link(peer) != LW_LINK_REFUSED && lw_now_ms() - start < 2 * SOON_MS) {
        lw_poll_item it = { .sock = peer };

        lw_poll(&it, 1, 100);
    }
    assert_int_equal(lw_sock_link(peer), LW_LINK_REFUSED);

    /* Authorised now, and let in by the next handshake. */
    assert_ok(lw_keys_authorize(dir, "client", LW_ROLE_DENOISER, &err), &err);
    lw_sock_close(&peer);
    assert_ok(lw_sock_connect(peer_net, lw_sock_endpoint(hub), &client, &peer, &err), &err);
    p = one_frame("hello");
    send_soon(peer, NULL, &p);
    assert_ok(recv_soon(hub, &from, &p, &err), &err);
    assert_true(lw_sock_role_allowed(hub, LW_ROLE_DENOISER));
    assert_false(lw_sock_role_allowed(hub, LW_ROLE_CLIENT));
    lw_packet_clear(&p);
}

static void strangers_are_kept_out(void **state)
{
    const char *dir = make_keys("keys2");
    char other[512];
    const lw_net_params ours = { .key_dir = dir };
    lw_net_params theirs = { .key_dir = other };
    void *ctx = zmq_ctx_new(), *raw;
    lw_err err = { 0 };
    lw_packet p;
    lw_peer from;
    bool got = true;
    int64_t end;

    (void)state;
    snprintf(other, sizeof(other), "%s", unit_tmp("keys3"));
    assert_ok(lw_keys_generate(other, "hub", &err), &err); /* another hub's public key */
    assert_ok(lw_keys_generate(other, "client", &err), &err);
    assert_ok(lw_sock_bind(hub_net, "tcp://127.0.0.1:*", ~0u, &ours, &hub, &err), &err);
    assert_ok(lw_sock_connect(peer_net, lw_sock_endpoint(hub), &theirs, &peer, &err), &err);
    raw = raw_dealer(ctx, lw_sock_endpoint(hub)); /* no CURVE at all */
    zmq_send(raw, "let me in", 9, 0);
    end = lw_now_ms() + 700;
    while (lw_now_ms() < end) {
        lw_poll_item it = { .sock = hub };

        lw_poll(&it, 1, 50);
        assert_ok(lw_sock_recv(hub, &from, &p, &got, &err), &err);
        assert_false(got);
        assert_int_not_equal(lw_sock_link(peer), LW_LINK_UP);
    }
    zmq_close(raw);
    zmq_ctx_term(ctx);
}

static void key_files_are_checked(void **state)
{
    const char *dir = make_keys("keys4");
    char path[600];
    const lw_net_params params = { .key_dir = dir },
                        missing = { .key_dir = dir, .key_name = "nobody" };
    const lw_net_params evil = { .key_dir = dir, .key_name = "../keys4/client" };
    struct stat st;
    lw_err err = { 0 };
    FILE *f;

    (void)state;
    assert_int_equal(lw_keys_generate(dir, "client", &err), LW_E_DENIED); /* never overwritten */
    assert_int_equal(lw_keys_generate(dir, "a/b", &err), LW_E_INVALID);
    assert_int_equal(lw_keys_generate(dir, "", &err), LW_E_INVALID);
    assert_int_equal(lw_keys_authorize(dir, "nobody", LW_ROLE_CLIENT, &err), LW_E_NOT_FOUND);
    assert_int_equal(lw_keys_authorize(dir, "client", LW_ROLE_NONE, &err), LW_E_INVALID);
    snprintf(path, sizeof(path), "%s/client.secret", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(lw_sock_connect(peer_net, "tcp://127.0.0.1:1", &missing, &peer, &err),
                     LW_E_NOT_FOUND);
    assert_contains(err.text, "nobody.secret");
    assert_int_equal(lw_sock_connect(peer_net, "tcp://127.0.0.1:1", &evil, &peer, &err),
                     LW_E_INVALID);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(lw_sock_connect(peer_net, "tcp://127.0.0.1:1", &params, &peer, &err),
                     LW_E_DENIED);
    assert_contains(err.text, "chmod 600");
    assert_int_equal(chmod(path, 0600), 0);
    f = fopen(path, "w");
    fputs("short\n", f);
    fclose(f);
    assert_int_equal(lw_sock_connect(peer_net, "tcp://127.0.0.1:1", &params, &peer, &err),
                     LW_E_FORMAT);
    assert_contains(err.text, "40 Z85 characters");
    assert_null(peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(ipc_carries_messages),
        T(loopback_tcp_carries_messages),
        T(loopback_tcp6_carries_messages),
        T(a_message_is_encoded_and_sent),
        T(poll_waits_for_descriptors_too),
        T(frames_are_shared_not_copied),
        T(too_many_frames_are_drained),
        T(too_many_bytes_are_drained),
        T(a_huge_claim_costs_no_memory),
        T(a_slow_handshake_is_cut),
        T(a_full_queue_and_a_gone_peer_are_told),
        T(a_lost_hub_is_noticed_at_once),
        T(connecting_before_the_hub_is_up),
        T(ipc_needs_a_private_folder),
        T(a_live_socket_is_not_replaced),
        T(what_is_no_socket_is_not_removed),
        T(nothing_is_left_behind),
        T(the_runtime_folder_is_private),
        T(tcp_without_keys_is_refused),
        T(keys_open_their_roles_only),
        T(strangers_are_kept_out),
        T(key_files_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
