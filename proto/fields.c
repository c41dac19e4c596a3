/*
 * The field tables of schema.h turned into data.
 */
#include "proto/fields.h"

#include <stddef.h>

#define FIELD_OF(type, kind, m, max)                                                               \
    { #m, LW_KIND_##kind, offsetof(type, m), (uint64_t)(max), (double)(max) },
#define MSG_FIELD(kind, m, max, doc)      FIELD_OF(lw_msg, kind, m, max)
#define CONTRACT_FIELD(kind, m, max, doc) FIELD_OF(lw_contract, kind, m, max)
#define STAGE_FIELD(kind, m, max, doc)    FIELD_OF(lw_stage_info, kind, m, max)

static const lw_field_info msg_fields[] = { LW_MSG_FIELDS(MSG_FIELD) };
static const lw_field_info contract_fields[] = { LW_CONTRACT_FIELDS(CONTRACT_FIELD) };
static const lw_field_info stage_fields[] = { LW_STAGE_FIELDS(STAGE_FIELD) };

lw_record lw_record_of_msg(const lw_msg *m)
{
    return (lw_record){ msg_fields, LW_N_FIELDS, (char *)m, (uint64_t *)m->has };
}

lw_record lw_record_of_contract(const lw_contract *c)
{
    return (lw_record){ contract_fields, LW_N_CONTRACT_FIELDS, (char *)c, (uint64_t *)&c->has };
}

lw_record lw_record_of_stage(const lw_stage_info *s)
{
    return (lw_record){ stage_fields, LW_N_STAGE_FIELDS, (char *)s, (uint64_t *)&s->has };
}

static bool needs_id(lw_msg_type type)
{
    switch (type) {
#define NEEDS_ID_CASE(t) case LW_MSG_##t:
        LW_MSG_NEEDS_ID(NEEDS_ID_CASE)
        return true;
    default:
        return false;
    }
}

lw_status lw_msg_check_layout(const lw_msg *m, lw_err *err)
{
    static const struct {
        lw_msg_type type;
        char need;
        lw_field field;
    } rows[] = {
#define LAYOUT_ROW(type, need, m) { LW_MSG_##type, #need[0], LW_F_##m },
        LW_MSG_LAYOUT(LAYOUT_ROW)
    };

    if (needs_id(m->type) && !m->has_id)
        return lw_fail(err, LW_E_INVALID, "%s: id is missing", lw_msg_type_name(m->type));
    for (size_t i = 0; i < LW_ARRAY_LEN(rows); i++) {
        lw_field f = rows[i].field;

        if (rows[i].type == m->type && rows[i].need == 'R' && !(m->has[f / 64] >> (f % 64) & 1))
            return lw_fail(err, LW_E_INVALID, "%s: %s is missing", lw_msg_type_name(m->type),
                           msg_fields[f].name);
    }
    return LW_OK;
}
