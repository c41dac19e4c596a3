#ifndef LW_TESTS_UNIT_HUB_WORLD_H
#define LW_TESTS_UNIT_HUB_WORLD_H

#include "orchestrate/hub_core.h"
#include "orchestrate/hub_keep.h"
#include "tests/unit/unit.h"

/*
 * A hub with nothing around it: peers are structs, time is a number, messages go from struct to
 * struct. What a peer was sent is kept in its mailbox in order. Workers compute something simple
 * that depends on all their inputs, so that a test can tell a right picture from a wrong one.
 */

/* The world's model. A picture of 32 x 16 has latents [4, 2, 4]. */
#define DIM      8
#define CHANNELS 4
#define DOWN     8
#define WIDTH    32
#define HEIGHT   16
#define STEPS    4

#define MAX_MAIL  1100
#define MAX_PEERS 64

typedef struct peer {
    lw_hub_side side;
    lw_role role;
    lw_peer id;
    uint8_t instance[16];
    char name[32];
    lw_contract contract;
    int slots;
    uint64_t epoch; /* of the last WELCOME */
    bool silent;    /* sends no heartbeats in world_wait */
    lw_status link; /* what sending to it gives; LW_OK, LW_E_EXHAUSTED, LW_E_UNAVAILABLE */
    bool hoards;    /* does not read: its mailbox keeps the hub's frames, not copies of them */
    lw_kept mail[MAX_MAIL];
    int n_mail, n_read;
    /* worker: what its heartbeats say */
    bool busy;
    uint8_t in_flight[16];
    uint64_t step_age_ms;
} peer;

typedef struct world {
    lw_hub *hub;
    int64_t now;
    peer *peers[MAX_PEERS];
    int n_peers;
    uint64_t random;
} world;

/** p NULL: defaults with heartbeats of 1000 ms. */
void world_init(world *w, const lw_hub_params *p);
void world_deinit(world *w);

/** A peer that has not said HELLO. */
peer *world_peer(world *w, lw_role role, const char *name);
/** HELLO, and WELCOME read; a worker then gives credit for all its slots. */
void world_join(world *w, peer *p);
peer *world_client(world *w, const char *name);
peer *world_worker(world *w, lw_role role, const char *name);
/** One worker of each kind. */
typedef struct trio {
    peer *encoder, *denoiser, *decoder;
} trio;
trio world_trio(world *w);

/** HELLO alone. */
void world_hello(world *w, peer *p);
void world_send(world *w, peer *p, const lw_msg *m);
/** CREDIT with this count. */
void world_credit(world *w, peer *p, int credits);
/** One HEARTBEAT as the peer's fields say. */
void world_beat(world *w, peer *p);
/** Let time pass in steps of 250 ms; peers that are not silent send heartbeats each second. */
void world_wait(world *w, int64_t ms);

/** The next message of a mailbox that is no HEARTBEAT; NULL: none. Valid until the world ends. */
const lw_kept *mail_next(peer *p);
/** It must be of this type. */
const lw_kept *mail_expect(peer *p, lw_msg_type type);
/** The next of this type; others before it are passed over. Fails when there is none. */
const lw_kept *mail_find(peer *p, lw_msg_type type);
/** How many messages of a type the peer ever got about a job or task (id NULL: any). */
int mail_count(const peer *p, lw_msg_type type, const uint8_t *id);
/** Nothing but heartbeats is unread. */
void mail_none(peer *p);

/** A job id from a number. */
const uint8_t *job_id(int n);
/** A SUBMIT from prompt of the usual size; the caller changes what it wants. */
lw_msg job_prompt(int n, lw_artefact to);

/** The worker takes its next TASK (must be there) and answers with the right result. */
const lw_kept *work_one(world *w, peer *worker);
/** The same in two halves. */
const lw_kept *work_take(peer *worker);
void work_answer(world *w, peer *worker, const lw_kept *task);
void work_error(world *w, peer *worker, const lw_kept *task, lw_status code, bool retryable);
void work_progress(world *w, peer *worker, const lw_kept *task, uint64_t step, bool checkpoint);
/** All workers work until no task is unread. */
void work_all(world *w);

/** What the first value of picture i of a job made by work_* must be. */
uint8_t right_pixel(const char *prompt, const char *negative, uint64_t seed);

#endif
