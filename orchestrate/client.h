#ifndef LW_ORCHESTRATE_CLIENT_H
#define LW_ORCHESTRATE_CLIENT_H

#include "proto/transport.h"

/*
 * The client's end of the wire: one connection to a hub, with the handshake, heartbeats both ways
 * and the hub's silence taken care of. It knows messages, not verbs: what is submitted and what is
 * done with the answers is the caller's. Thread rule: one thread.
 */

typedef struct lw_client lw_client;

typedef struct lw_client_params {
    const char *endpoint; /* the hub's frontend: "ipc://..." or "tcp://..." */
    lw_net_params net;    /* its strings are borrowed and outlive the client */
    int64_t reconnect_ms; /* how long to try again after a lost connection; 0 = not at all */
} lw_client_params;

/** What lw_client_wait came back with; both may be set, neither after a timeout. */
typedef struct lw_client_event {
    const lw_msg *msg; /* from the hub; valid until the next call on this client */
    bool fd_readable;
} lw_client_event;

/**
 * Open the connection and begin the handshake; does not wait for the hub. The endpoint is copied.
 * Errors: those of lw_sock_connect.
 */
LW_MUST_USE lw_status lw_client_create(const lw_client_params *p, lw_client **ret, lw_err *err);
/** Says BYE when connected, then closes. NULL-safe. */
void lw_client_destroy(lw_client **c);

/** True while there is a session: the hub has answered the handshake, and is not lost. */
bool lw_client_connected(const lw_client *c);
/**
 * How many sessions there have been. When it has grown, the connection was lost and is back: submit
 * every job that has no final answer again, with its id. A hub that still has it goes on with it; a
 * new one starts it.
 */
int lw_client_sessions(const lw_client *c);
/** Largest message and frame that the hub said it takes. */
size_t lw_client_max_frame_bytes(const lw_client *c);

/**
 * Wait up to timeout_ms for a message of the hub, for `fd` to be readable (-1: no fd), or for the
 * session to begin or end. Session
 * messages (WELCOME, HEARTBEAT) are handled inside and not returned; a damaged message of the hub
 * is an error. Errors: LW_E_UNAVAILABLE when a connected hub is lost (its connection breaks, it
 * falls silent, or it says BYE) and does not come back within reconnect_ms, what the hub said when
 * it refused the handshake, and those of lw_msg_decode.
 */
LW_MUST_USE lw_status lw_client_wait(lw_client *c, int fd, int64_t timeout_ms, lw_client_event *ret,
                                     lw_err *err);

/** Send a message; needs lw_client_connected. Errors: LW_E_UNAVAILABLE, LW_E_EXHAUSTED (the hub
 * does not read), LW_E_TOO_LARGE, LW_E_NOMEM. */
LW_MUST_USE lw_status lw_client_send(lw_client *c, const lw_msg *m, lw_err *err);

/** A new random id for a job. */
void lw_client_new_id(uint8_t ret_id[16]);

/**
 * Connect to the hub within timeout_ms, or say that none answers at this endpoint. For verbs that
 * have nothing else to watch.
 */
LW_MUST_USE lw_status lw_client_connect(lw_client *c, int64_t timeout_ms, lw_err *err);

/** Ask for the cluster's state; the text lies in `a`. Needs lw_client_connected. */
LW_MUST_USE lw_status lw_client_status(lw_client *c, int64_t timeout_ms, lw_arena *a,
                                       const char **ret_report, lw_err *err);

#endif
