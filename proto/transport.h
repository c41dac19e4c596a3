#ifndef LW_PROTO_TRANSPORT_H
#define LW_PROTO_TRANSPORT_H

#include "proto/packet.h"

/*
 * Sockets. transport.c is the only file that includes zmq.h. Every socket has a maximum frame size,
 * bounded queues, keep-alive, a handshake deadline and no lingering surprise. A socket belongs to
 * one thread.
 */

typedef struct lw_net lw_net;   /* the process's ZeroMQ context */
typedef struct lw_sock lw_sock; /* one socket */

#define LW_PEER_BYTES 255
/** Who a ROUTER received from, or sends to. */
typedef struct lw_peer {
    uint8_t len;
    uint8_t id[LW_PEER_BYTES];
} lw_peer;

/** Zero is: ipc, or loopback tcp with insecure_loopback. */
typedef struct lw_net_params {
    const char *key_dir;    /* CURVE keys as `latentwire keys` lays them out; NULL = no CURVE */
    bool insecure_loopback; /* allow tcp://127.0.0.1 and [::1] without keys */
    const char
        *key_name; /* which own key pair in key_dir; NULL = "hub" when binding, else "client" */
} lw_net_params;

LW_MUST_USE lw_status lw_net_create(lw_net **ret, lw_err *err);
/** Closes all sockets without waiting for unsent data beyond linger_ms. */
void lw_net_destroy(lw_net **n, int linger_ms);

/**
 * ROUTER bound to an endpoint (hub). ipc: the folder must be private (0700, ours) and a stale
 * socket file is replaced, a live one refused. tcp: needs key_dir, or insecure_loopback with a
 * loopback address. `roles` is a bit set (1 << lw_role) of the roles whose keys are let in.
 * Errors: LW_E_DENIED, LW_E_INVALID, LW_E_IO, LW_E_UNAVAILABLE (address in use).
 */
LW_MUST_USE lw_status lw_sock_bind(lw_net *n, const char *endpoint, unsigned roles,
                                   const lw_net_params *params, lw_sock **ret, lw_err *err);
/** DEALER connected to a hub; reconnects by itself. Same rules for tcp. */
LW_MUST_USE lw_status lw_sock_connect(lw_net *n, const char *endpoint, const lw_net_params *params,
                                      lw_sock **ret, lw_err *err);
void lw_sock_close(lw_sock **s);
/** The bound address with wildcards resolved. */
const char *lw_sock_endpoint(const lw_sock *s);

/**
 * Take one message, without waiting. *ret_got false when there is none. A message with too many
 * frames or bytes is drained and counted, and gives LW_E_TOO_LARGE with *ret_peer set. peer may be
 * NULL on a DEALER.
 */
LW_MUST_USE lw_status lw_sock_recv(lw_sock *s, lw_peer *ret_peer, lw_packet *ret, bool *ret_got,
                                   lw_err *err);
/**
 * Queue one message, without waiting; the packet is consumed on success only (frames are shared,
 * not copied). LW_E_UNAVAILABLE: peer gone. LW_E_EXHAUSTED: its queue is full.
 */
LW_MUST_USE lw_status lw_sock_send(lw_sock *s, const lw_peer *peer, lw_packet *p, lw_err *err);

/** Encode and send in one step. */
LW_MUST_USE lw_status lw_sock_send_msg(lw_sock *s, const lw_peer *peer, const lw_msg *m,
                                       lw_err *err);

typedef struct lw_poll_item {
    lw_sock *sock; /* or NULL: fd */
    int fd;
    bool readable; /* result */
} lw_poll_item;

/** Wait until an item is readable or timeout_ms (-1 = for ever) is over. Returns how many are. */
int lw_poll(lw_poll_item *items, int n, int64_t timeout_ms);

/** True when the last message a ROUTER took came from a key allowed as `role` (always without
 * CURVE). */
bool lw_sock_role_allowed(const lw_sock *s, lw_role role);

/** Write a new key pair NAME.public and NAME.secret (0600) into dir. Errors: LW_E_IO, LW_E_DENIED.
 */
LW_MUST_USE lw_status lw_keys_generate(const char *dir, const char *name, lw_err *err);

/**
 * Default runtime folder: $LATENTWIRE_RUNTIME_DIR, else $XDG_RUNTIME_DIR/latentwire, else
 * /tmp/latentwire-UID. Created 0700; refused when it belongs to somebody else or is open to others.
 */
LW_MUST_USE lw_status lw_runtime_dir(char *ret, size_t ret_bytes, lw_err *err);

#endif
