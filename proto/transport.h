#ifndef LW_PROTO_TRANSPORT_H
#define LW_PROTO_TRANSPORT_H

#include "proto/packet.h"

/*
 * Sockets. ZeroMQ is seen here and in the files that share transport_impl.h, nowhere else. Every
 * socket has a maximum frame size, bounded queues, keep-alive, a handshake deadline and no
 * lingering surprise. A net and its sockets belong to one thread.
 *
 * What a queue holds: up to 64 messages to send per peer (frames are shared, and credits and byte
 * budgets bound what is in them), up to 8 received ones per peer (frames are the peer's choice).
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
    const char *key_dir;    /* CURVE keys for tcp (see below); NULL = no CURVE */
    bool insecure_loopback; /* allow tcp://127.0.0.1 and [::1] without keys */
    const char
        *key_name; /* which own key pair in key_dir; NULL = "hub" when binding, else "client" */
} lw_net_params;

LW_MUST_USE lw_status lw_net_create(lw_net **ret, lw_err *err);
/** Closes all sockets that are still open, waiting for unsent data no longer than linger_ms (one
 * second for sockets closed before). NULL-safe. */
void lw_net_destroy(lw_net **n, int linger_ms);

/**
 * ROUTER bound to an endpoint (hub). ipc: the folder must be private (0700, ours) and a stale
 * socket file is replaced, a live one refused. tcp: needs key_dir, or insecure_loopback with a
 * loopback address. `roles` is a bit set (1 << lw_role) of the roles whose keys are let in.
 * Errors: LW_E_DENIED, LW_E_INVALID, LW_E_IO, LW_E_UNAVAILABLE (address in use).
 */
LW_MUST_USE lw_status lw_sock_bind(lw_net *n, const char *endpoint, unsigned roles,
                                   const lw_net_params *params, lw_sock **ret, lw_err *err);
/**
 * DEALER connecting to a hub, for as long as it takes; lw_sock_link tells how it stands. Nothing is
 * queued before the connection stands. Same rules for ipc folders and tcp; an ipc folder that does
 * not exist yet is waited for. Errors: LW_E_DENIED, LW_E_INVALID, LW_E_IO, LW_E_NOT_FOUND (keys).
 */
LW_MUST_USE lw_status lw_sock_connect(lw_net *n, const char *endpoint, const lw_net_params *params,
                                      lw_sock **ret, lw_err *err);
/** What is queued is still sent for up to a second, in the background. NULL-safe. */
void lw_sock_close(lw_sock **s);
/** The bound address with wildcards resolved. */
const char *lw_sock_endpoint(const lw_sock *s);

/** State of a DEALER's connection. */
typedef enum lw_link {
    LW_LINK_CONNECTING,
    LW_LINK_UP,
    LW_LINK_REFUSED, /* the hub does not accept our key, or is no hub. Close it; try again later */
    LW_LINK_LOST     /* was up and broke: for the hub we are gone. Close it, connect anew */
} lw_link;
lw_link lw_sock_link(lw_sock *s);

/**
 * Take one message, without waiting. *ret_got false when there is none. A message with too many
 * frames or bytes is drained and counted, and gives LW_E_TOO_LARGE with *ret_peer set. peer may be
 * NULL on a DEALER.
 */
LW_MUST_USE lw_status lw_sock_recv(lw_sock *s, lw_peer *ret_peer, lw_packet *ret, bool *ret_got,
                                   lw_err *err);
/** Messages refused so far for their size. */
uint64_t lw_sock_n_refused(const lw_sock *s);
/**
 * Queue one message, without waiting; the packet is consumed on success only (frames are shared,
 * not copied). LW_E_UNAVAILABLE: a ROUTER's peer is gone. LW_E_EXHAUSTED: its queue is full; on a
 * DEALER also that the connection does not stand (see lw_sock_link).
 */
LW_MUST_USE lw_status lw_sock_send(lw_sock *s, const lw_peer *peer, lw_packet *p, lw_err *err);

/** Encode and send in one step. */
LW_MUST_USE lw_status lw_sock_send_msg(lw_sock *s, const lw_peer *peer, const lw_msg *m,
                                       lw_err *err);

typedef struct lw_poll_item {
    lw_sock *sock; /* or NULL: fd */
    int fd;
    bool readable;   /* result */
    bool want_write; /* a socket: also wait until it takes a message */
    bool writable;   /* result */
} lw_poll_item;

#define LW_MAX_POLL 32

/**
 * Wait until an item is readable (or writable, where wanted) or timeout_ms (-1 = for ever) is over.
 * Also returns when the link of a DEALER changed or a signal handler ran. Returns how many items
 * are ready; n is at most LW_MAX_POLL.
 */
int lw_poll(lw_poll_item *items, int n, int64_t timeout_ms);

/** True when the last message a ROUTER took came from a key allowed as `role` (always without
 * CURVE). */
bool lw_sock_role_allowed(const lw_sock *s, lw_role role);

/*
 * Keys live in one folder: NAME.public and NAME.secret (Z85 text; the secret with mode 0600) are a
 * pair. The hub's folder has the pair "hub" and, in authorized/ROLE/, the public keys of those who
 * may connect in that role (encoder, denoiser, decoder, client); it is read at every handshake, so
 * a key added or removed counts for the next connection. A peer's folder has its own pair and
 * hub.public.
 */

/** Write a new pair into dir (made 0700 when missing). Errors: LW_E_IO, LW_E_DENIED (exists
 * already), LW_E_INVALID (name). */
LW_MUST_USE lw_status lw_keys_generate(const char *dir, const char *name, lw_err *err);
/** Copy NAME.public into authorized/ROLE/. Errors: LW_E_IO, LW_E_NOT_FOUND, LW_E_FORMAT,
 * LW_E_INVALID. */
LW_MUST_USE lw_status lw_keys_authorize(const char *dir, const char *name, lw_role role,
                                        lw_err *err);

/**
 * Default runtime folder: $LATENTWIRE_RUNTIME_DIR, else $XDG_RUNTIME_DIR/latentwire, else
 * /tmp/latentwire-UID. Created 0700; refused when it belongs to somebody else or is open to others.
 */
LW_MUST_USE lw_status lw_runtime_dir(char *ret, size_t ret_bytes, lw_err *err);

#endif
