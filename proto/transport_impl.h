#ifndef LW_PROTO_TRANSPORT_IMPL_H
#define LW_PROTO_TRANSPORT_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <zmq.h>

#include "proto/transport.h"

/*
 * What the parts of the transport share: frame.c (memory of frames), ipc.c (private folders, stale
 * sockets), auth.c (keys, the ZAP handler) and transport.c (sockets). Only these four include this
 * header, and so only these four see zmq.h.
 */

/* frame.c */

/** A frame around a message just received; takes the content of *msg over, also on failure. */
lw_frame *lw_frame_take(zmq_msg_t *msg);
/** *ret becomes a message that shares the frame's bytes. */
LW_MUST_USE bool lw_frame_share(lw_frame *f, zmq_msg_t *ret);

/* ipc.c */

/** Refuse a path that is too long or whose folder is not private. `folder_may_lack`: a folder that
 * does not exist yet is fine (connecting before the hub starts). */
LW_MUST_USE lw_status lw_ipc_check(const char *path, bool folder_may_lack, lw_err *err);
/** Lock PATH.lock, refuse a live socket at PATH, remove a stale one. *ret_fd is the lock. */
LW_MUST_USE lw_status lw_ipc_claim(const char *path, int *ret_fd, lw_err *err);
/** Remove the socket file and the lock; the socket no longer listens. */
void lw_ipc_release(const char *path, int fd);

/* auth.c */

#define LW_KEY_TEXT 41 /* Z85 of 32 bytes and a zero */

typedef struct lw_zap lw_zap;

/**
 * Give a socket its side of CURVE. Binding: the pair `key_name` (default "hub") and the ZAP domain
 * that lets in keys of `roles`. Connecting: the pair `key_name` (default "client") and the hub's
 * public key.
 */
LW_MUST_USE lw_status lw_auth_setup(void *sock, bool binding, unsigned roles,
                                    const lw_net_params *p, lw_err *err);
/** Start the handler that decides about keys, for all sockets of a context. */
LW_MUST_USE lw_status lw_zap_start(void *ctx, const char *key_dir, lw_zap **ret, lw_err *err);
/** Wait for the handler's end; zmq_ctx_shutdown has been called. */
void lw_zap_join(lw_zap **z);
/** The folder it reads. */
const char *lw_zap_key_dir(const lw_zap *z);
/** Roles that the sender of a message was let in for; all bits without CURVE. */
unsigned lw_auth_roles_of(zmq_msg_t *msg);

#endif
