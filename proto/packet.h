#ifndef LW_PROTO_PACKET_H
#define LW_PROTO_PACKET_H

#include "proto/schema.h"

/*
 * A packet is one multipart message in memory: the header frame and the tensor frames. Frames are
 * reference counted, so the hub forwards and keeps tensors without copying or looking inside.
 */

typedef void lw_frame_free_fn(void *data, void *hint);

/** Frame with a copy of the bytes. NULL when memory runs out. */
lw_frame *lw_frame_copy(const void *data, size_t size_bytes);
/**
 * Frame over memory that the frame now owns; free_fn runs once, on any thread, when the last
 * reference and the last send are done. NULL (and free_fn not run) when memory runs out.
 */
lw_frame *lw_frame_wrap(void *data, size_t size_bytes, lw_frame_free_fn *free_fn, void *hint);
lw_frame *lw_frame_ref(lw_frame *f);
/** NULL-safe; sets *f to NULL. */
void lw_frame_unref(lw_frame **f);
const void *lw_frame_data(const lw_frame *f);
size_t lw_frame_size(const lw_frame *f);

typedef struct lw_packet {
    lw_frame *frames[1 + LW_MAX_TENSORS]; /* [0] is the header */
    int n_frames;
} lw_packet;

/** Drop all references. Safe on a zeroed packet. */
void lw_packet_clear(lw_packet *p);
/** Bytes of all frames together. */
size_t lw_packet_bytes(const lw_packet *p);

/**
 * Walk a header without allocating: one map with unique string keys, depth, item count, string
 * lengths, declared counts against the bytes left, exact end. Must pass before msgpack-c sees a
 * byte. Errors: LW_E_FORMAT, LW_E_TOO_LARGE.
 */
LW_MUST_USE lw_status lw_prescan(const uint8_t *data, size_t size_bytes, lw_err *err);

/**
 * Packet -> message. Strings, contract strings and sigmas are copied into `a`; tensors stay views
 * of the packet, which must outlive the message. Checks: version, known type, field kinds and
 * limits, required fields of the type, tensor triples (dtype known, rank, product(shape) x item
 * size == frame bytes, every frame used exactly once). Unknown keys are ignored. *ret is undefined
 * after a failure, except type and id when the header got that far. Errors: LW_E_FORMAT,
 * LW_E_TOO_LARGE, LW_E_SHAPE, LW_E_INVALID, LW_E_UNIMPLEMENTED (version or type).
 */
LW_MUST_USE lw_status lw_msg_decode(const lw_packet *p, lw_arena *a, lw_msg *ret, lw_err *err);

/** Message -> packet. Errors: LW_E_TOO_LARGE (header over the limit), LW_E_NOMEM, LW_E_INVALID. */
LW_MUST_USE lw_status lw_msg_encode(const lw_msg *m, lw_packet *ret, lw_err *err);

/** Copy a received tensor into `a`, aligned; as f32 when it is a float type and to_f32 is set. */
LW_MUST_USE lw_status lw_msg_tensor_copy(const lw_msg_tensor *mt, lw_arena *a, bool to_f32,
                                         lw_tensor *ret, lw_err *err);

#endif
