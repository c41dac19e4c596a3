#ifndef LW_TESTS_UNIT_PROTO_FILL_H
#define LW_TESTS_UNIT_PROTO_FILL_H

#include "proto/packet.h"

/*
 * Messages with every field of their type, made from the tables of schema.h, for round trips and
 * for the golden bytes. The same input gives the same message, always.
 */

/** Every field that the layout gives to `type`, or only the required ones. Memory from `a`. */
void fill_msg(lw_msg *m, lw_msg_type type, bool required_only, lw_arena *a);
/** A [2, 3] tensor holding 1..6 in that dtype, in static memory. */
lw_tensor fill_tensor(lw_dtype dtype);
/** Number of fields in `type`'s layout that the message has. */
int fill_count(const lw_msg *m);

/** Golden files: u32 number of frames, then u32 length and bytes of each (little-endian). */
bool fill_write(const char *path, const lw_packet *p);
bool fill_read(const char *path, lw_packet *ret);
/** True when both packets have the same frames. */
bool fill_same(const lw_packet *a, const lw_packet *b);

#endif
