#ifndef LW_PROTO_FIELDS_H
#define LW_PROTO_FIELDS_H

#include "proto/schema.h"

/*
 * The field tables of schema.h as data, for the two walkers decode.c and encode.c. Internal to
 * proto.
 */

typedef enum lw_field_kind {
    LW_KIND_U,
    LW_KIND_I,
    LW_KIND_F,
    LW_KIND_B,
    LW_KIND_S,
    LW_KIND_ID,
    LW_KIND_FS,
    LW_KIND_ROLE,
    LW_KIND_OP,
    LW_KIND_ART,
    LW_KIND_STATUS,
    LW_KIND_CONTRACT,
    LW_KIND_STAGES
} lw_field_kind;

typedef struct lw_field_info {
    const char *name;
    lw_field_kind kind;
    size_t offset;  /* of the member in its struct */
    uint64_t max_u; /* largest value or length, where that is a whole number */
    double max_f;   /* the same for LW_KIND_F */
} lw_field_info;

/** A struct of fields as the walkers see it: its table, its memory, its "has" bits. */
typedef struct lw_record {
    const lw_field_info *fields;
    int n_fields;
    char *base;
    uint64_t *has;
} lw_record;

/* The encoder only reads through a record; the decoder made the struct itself. */
lw_record lw_record_of_msg(const lw_msg *m);
lw_record lw_record_of_contract(const lw_contract *c);
lw_record lw_record_of_stage(const lw_stage_info *s);

static inline bool lw_record_has(const lw_record *r, int i)
{
    return r->has[i / 64] >> (i % 64) & 1;
}

#define LW_FIELD_PTR(r, f, type) ((type *)(void *)((r)->base + (f)->offset))

/** Refuse a message that lacks what LW_MSG_LAYOUT and LW_MSG_NEEDS_ID demand of its type. */
LW_MUST_USE lw_status lw_msg_check_layout(const lw_msg *m, lw_err *err);

#endif
