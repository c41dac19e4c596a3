/*
 * Peers that do not speak the protocol, or speak it to do harm: at the level of messages (damaged
 * headers, missing frames), of ZeroMQ (claims of 2^62 bytes) and of bytes (noise, connections that
 * never say a word). Each time a well-behaved client gets its picture meanwhile, and the hub's
 * memory stays where it was.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/failure/fleet.h"

#define MIB   1048576
#define SLACK (24 * MIB)

static uint32_t noise_state = 1;

static uint8_t noise(void)
{
    noise_state = noise_state * 1664525 + 1013904223;
    return (uint8_t)(noise_state >> 24);
}

static void still_well(fleet *f, size_t rss_before)
{
    lw_msg job = fleet_job("a cat", 1, 2, 2);
    lw_client *c = fleet_client(f);
    lw_kept got;

    fleet_picture(c, &job, &got);
    lw_kept_drop(&got);
    lw_client_destroy(&c);
    assert_in_range(fleet_hub_rss(f), 0, rss_before + SLACK);
}

/* ---- messages ---- */

/* Send frames as they are; NULL ends the list. */
static void send_raw(lw_sock *s, const void *header, size_t header_bytes, int n_frames,
                     size_t frame_bytes)
{
    lw_packet p = { 0 };
    const int64_t deadline = lw_now_ms() + DEADLINE_MS;

    p.frames[p.n_frames++] = lw_frame_copy(header, header_bytes);
    for (int i = 0; i < n_frames; i++) {
        uint8_t *data = calloc(1, frame_bytes ? frame_bytes : 1);

        p.frames[p.n_frames++] = lw_frame_copy(data, frame_bytes);
        free(data);
    }
    while (lw_sock_send(s, NULL, &p, NULL) != LW_OK && lw_now_ms() < deadline)
        usleep(1000);
    lw_packet_clear(&p);
}

/* A peer that is thrown out after three of them says HELLO again, as a stubborn one would. */
static void send_bad(fleet *f, const void *header, size_t header_bytes, int n_frames,
                     size_t frame_bytes)
{
    lw_net *net;
    lw_sock *s = fleet_raw_client(f, &net);

    for (int i = 0; i < 4; i++)
        send_raw(s, header, header_bytes, n_frames, frame_bytes);
    lw_net_destroy(&net, 1000);
}

static void test_damaged_messages(void **state)
{
    /* The bombs of msgpack-c 4.0.0: a few bytes that make it ask for gigabytes. */
    static const uint8_t bomb_array[] = { 0x91, 0xdd, 0x10, 0, 0, 0 };
    static const uint8_t bomb_map[] = { 0x81, 0xa1, 'v', 0xdf, 0x10, 0, 0, 0 };
    static const uint8_t no_map[] = { 0x93, 1, 2, 3 };
    static const uint8_t twice[] = { 0x82, 0xa1, 'v', 1, 0xa1, 'v', 1 };
    static const uint8_t trailing[] = { 0x81, 0xa1, 'v', 1, 0xc0 };
    /* {"v":1,"type":"submit","id":16 bytes,"from":"latents","to":"image","tensors":{"latents":
     * ["float32",[1,16,8,8],1]}}, but the frame is not there, or not of that size. */
    static const uint8_t claims[] =
        "\x86\xa1v\x01\xa4type\xa6submit\xa2id\xc4\x10"
        "0123456789abcdef\xa4"
        "from\xa7latents\xa2to\xa5image\xa7tensors\x81\xa7latents\x93\xa7"
        "float32\x94\x01\x10\x08\x08\x01";
    /* The same with [2^31, 2^31, 2^31, 1], a product beyond 64 bits. */
    static const uint8_t overflow[] =
        "\x86\xa1v\x01\xa4type\xa6submit\xa2id\xc4\x10"
        "0123456789abcdef\xa4"
        "from\xa7latents\xa2to\xa5image\xa7tensors\x81\xa7latents\x93\xa7"
        "float32\x94\xce\x80\0\0\0\xce\x80\0\0\0\xce\x80\0\0\0\x01\x01";
    uint8_t deep[4096], text[4096];
    size_t before;
    fleet f;

    (void)state;
    memset(deep, 0x91, sizeof(deep));
    fleet_start(&f, false, NULL);
    fleet_trio(&f, 1, NULL);
    still_well(&f, fleet_hub_rss(&f));
    before = fleet_hub_rss(&f);
    send_bad(&f, bomb_array, sizeof(bomb_array), 0, 0);
    send_bad(&f, bomb_map, sizeof(bomb_map), 0, 0);
    send_bad(&f, no_map, sizeof(no_map), 0, 0);
    send_bad(&f, twice, sizeof(twice), 0, 0);
    send_bad(&f, trailing, sizeof(trailing), 0, 0);
    send_bad(&f, deep, sizeof(deep), 0, 0);
    send_bad(&f, "", 0, 0, 0);
    send_bad(&f, claims, sizeof(claims) - 1, 0, 0);               /* no frame */
    send_bad(&f, claims, sizeof(claims) - 1, 1, 100);             /* too short */
    send_bad(&f, claims, sizeof(claims) - 1, 2, 16 * 8 * 8 * 4);  /* one too many */
    send_bad(&f, claims, sizeof(claims) - 1, 16, 16 * 8 * 8 * 4); /* fifteen too many */
    send_bad(&f, overflow, sizeof(overflow) - 1, 1, 16);
    for (int i = 0; i < 50; i++) {
        for (size_t k = 0; k < sizeof(text); k++)
            text[k] = noise();
        text[0] = (uint8_t)(0x80 | (i % 16)); /* at least it begins as a map */
        send_bad(&f, text, (size_t)(i + 1) * 60, i % 3, 64);
    }
    assert_true(fleet_number(&f, "counters.malformed") >= 100);
    assert_int_equal(fleet_number(&f, "n_workers"), 3);
    still_well(&f, before);
    fleet_stop(&f);
}

/* Every single bit of a good message turned over, one after another, on the workers' side. */
static void test_flipped_bits(void **state)
{
    const lw_net_params p = { 0 };
    lw_packet good = { 0 };
    lw_err err = { 0 };
    lw_sock *s;
    lw_net *net;
    lw_msg m;
    size_t n, before;
    fleet f;

    (void)state;
    fleet_start(&f, false, NULL);
    fleet_trio(&f, 1, NULL);
    before = fleet_hub_rss(&f);
    lw_msg_init(&m, LW_MSG_HEARTBEAT, NULL);
    lw_msg_set(&m, epoch, 7);
    lw_msg_set(&m, credits, 64);
    lw_msg_set(&m, state, "busy");
    lw_msg_mark(&m, in_flight);
    lw_msg_set(&m, step_age_ms, 1);
    assert_ok(lw_msg_encode(&m, &good, &err), &err);
    n = lw_frame_size(good.frames[0]);
    assert_ok(lw_net_create(&net, &err), &err);
    assert_ok(lw_sock_connect(net, f.backend, &p, &s, &err), &err);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        uint8_t header[512];

        memcpy(header, lw_frame_data(good.frames[0]), n);
        header[bit / 8] ^= (uint8_t)(1u << bit % 8);
        send_raw(s, header, n, 0, 0);
    }
    lw_packet_clear(&good);
    lw_net_destroy(&net, 1000);
    assert_int_equal(fleet_number(&f, "n_workers"), 3);
    still_well(&f, before);
    fleet_stop(&f);
}

/* ---- bytes ---- */

static int connect_to(const char *endpoint)
{
    struct sockaddr_in a = { .sin_family = AF_INET };
    const char *colon = strrchr(endpoint, ':');
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval patience = { .tv_sec = 2 };

    assert_true(fd >= 0);
    a.sin_port = htons((uint16_t)atoi(colon + 1));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return fd;
}

static void put(int fd, const void *data, size_t n)
{
    (void)!send(fd, data, n, MSG_NOSIGNAL); /* the hub may have hung up, and that is right */
}

static void get(int fd, size_t n)
{
    uint8_t scrap[256];

    while (n) {
        ssize_t r = recv(fd, scrap, n < sizeof(scrap) ? n : sizeof(scrap), 0);

        if (r <= 0)
            return;
        n -= (size_t)r;
    }
}

/* ZMTP 3.0, RFC 23: greeting and READY as a DEALER, so that what follows is taken for messages. */
static void shake_hands(int fd)
{
    uint8_t greeting[64] = { 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'N', 'U', 'L', 'L' };
    static const uint8_t ready[] = "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06"
                                   "DEALER";

    put(fd, greeting, sizeof(greeting));
    get(fd, sizeof(greeting));
    put(fd, ready, sizeof(ready) - 1);
    get(fd, 30);
}

static void test_raw_bytes(void **state)
{
    static const char *const options[] = { "--max-sessions=64", NULL };
    enum { IDLE = 40 };
    int64_t malformed;
    int idle[IDLE];
    size_t before;
    fleet f;

    (void)state;
    fleet_start(&f, true, options);
    fleet_trio(&f, 1, NULL);
    still_well(&f, fleet_hub_rss(&f));
    before = fleet_hub_rss(&f);

    for (int i = 0; i < 20; i++) { /* noise, and what a browser would say */
        uint8_t bytes[2048];
        int fd = connect_to(i % 2 ? f.frontend : f.backend);

        for (size_t k = 0; k < sizeof(bytes); k++)
            bytes[k] = noise();
        if (i % 4 == 0)
            memcpy(bytes, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
        put(fd, bytes, sizeof(bytes));
        close(fd);
    }
    for (int i = 0; i < IDLE; i++) /* say nothing, or half a greeting, and stay */
    {
        idle[i] = connect_to(f.frontend);
        if (i % 2)
            put(idle[i], "\xff\0\0\0", 4);
    }
    /* Some of the noise was understood as messages of the oldest ZeroMQ. */
    malformed = fleet_number(&f, "counters.malformed");
    for (int i = 0; i < 3; i++) { /* the handshake works: a frame of one byte is a bad message */
        int fd = connect_to(f.frontend);

        shake_hands(fd);
        put(fd, "\0\1x", 3);
        fleet_await(&f, "counters.malformed", ++malformed);
        close(fd);
    }
    for (int i = 0; i < 10; i++) { /* frames of 2^62 bytes, of 4 GiB, and more than is allowed */
        static const uint8_t sizes[3][9] = { { 0x02, 0x40, 0, 0, 0, 0, 0, 0, 0 },
                                             { 0x02, 0, 0, 0, 1, 0, 0, 0, 0 },
                                             { 0x03, 0, 0, 0, 0, 0x04, 0, 0, 1 } };
        int fd = connect_to(i % 2 ? f.frontend : f.backend);

        shake_hands(fd);
        put(fd, sizes[i % 3], sizeof(sizes[0]));
        put(fd, "some bytes", 10);
        get(fd, 1);
        close(fd);
    }
    for (int i = 0; i < 5; i++) { /* 64 MiB are announced and never come */
        static const uint8_t large[] = { 0x02, 0, 0, 0, 0, 0x04, 0, 0, 0 };
        int fd = connect_to(f.frontend);

        shake_hands(fd);
        put(fd, large, sizeof(large));
        close(fd);
    }
    still_well(&f, before);
    for (int i = 0; i < IDLE; i++)
        close(idle[i]);
    assert_int_equal(fleet_number(&f, "n_workers"), 3);
    assert_int_equal(fleet_number(&f, "counters.malformed"), malformed);
    fleet_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged_messages),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_raw_bytes),
    };

    fleet_deadline(170);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
