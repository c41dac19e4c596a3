#ifndef LW_TESTS_UNIT_PROTO_MINIHUB_H
#define LW_TESTS_UNIT_PROTO_MINIHUB_H

#include <sys/types.h>

#include "proto/transport.h"

/*
 * A hub made of a few functions, and the program latentwire-fakesvc as a real process in front of
 * it. Every expectation has a deadline; what comes in between and is not asked for (heartbeats,
 * progress) is skipped and counted.
 */

#define MINIHUB_SOON_MS 10000

typedef struct minihub {
    char endpoint[256];
    lw_net *net;
    lw_sock *sock;
    lw_arena arena;
    lw_peer peer; /* of the last message */
    lw_packet packet;
    lw_msg msg; /* the last message; valid until the next */
    uint64_t epoch, hb_ms, hb_misses;
    bool mute; /* send no heartbeats */
    int64_t next_hb_ms;
    int n_skipped[LW_N_MSG_TYPES];
} minihub;

void minihub_open(minihub *h, const char *name);
/** Unbind as a hub does that dies: nothing is said to the worker. */
void minihub_vanish(minihub *h);
/** Bind the same endpoint again. */
void minihub_return(minihub *h);
void minihub_close(minihub *h);

/** Wait for a message of that type; fails the test after MINIHUB_SOON_MS. */
const lw_msg *minihub_expect(minihub *h, lw_msg_type type);
/** Take messages for that long; fails when one of that type comes. */
void minihub_expect_none(minihub *h, lw_msg_type type, int64_t ms);
/** HELLO, WELCOME, CREDIT 1. */
void minihub_welcome(minihub *h);
/** WELCOME, CREDIT 1: the HELLO was taken already. */
void minihub_greet(minihub *h);
void minihub_send(minihub *h, const lw_msg *m);
void minihub_send_raw(minihub *h, const void *header, size_t n);

/** Start latentwire-fakesvc ROLE --hub ENDPOINT with extra options (NULL-terminated) and
 * environment
 * ("NAME=value", NULL-terminated). */
pid_t fakesvc_start(const minihub *h, const char *role, const char *const *options,
                    const char *const *env);
/** Wait for its end: the exit code, or 128 + signal. Fails the test when it does not end. */
int fakesvc_wait(pid_t pid);
/** What minihub_* and a failed test leave behind. */
void fakesvc_kill_all(void);

#endif
