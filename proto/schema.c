/*
 * Names of the protocol's enumerations, and the small functions that fill and search a message.
 */
#include "proto/schema.h"

#include <string.h>

#define NAME_OF(sym, wire)          wire,
#define MSG_NAME_OF(sym, wire, dir) wire,

static const char *const msg_type_names[LW_N_MSG_TYPES] = { "?", LW_MSG_TABLE(MSG_NAME_OF) };
static const char *const role_names[LW_N_ROLES] = { "?", LW_ROLE_TABLE(NAME_OF) };
static const char *const op_names[LW_N_OPS] = { "?", LW_OP_TABLE(NAME_OF) };
static const char *const artefact_names[LW_N_ARTEFACTS] = { "?", LW_ARTEFACT_TABLE(NAME_OF) };

static const char *name_at(const char *const *names, int n, int i)
{
    return i > 0 && i < n ? names[i] : "?";
}

/* Index 0 is the "none" of every enumeration, so it is also the answer to an unknown name. */
static int index_of(const char *const *names, int n, const char *s, size_t len)
{
    for (int i = 1; i < n; i++)
        if (strlen(names[i]) == len && memcmp(names[i], s, len) == 0)
            return i;
    return 0;
}

const char *lw_msg_type_name(lw_msg_type t)
{
    return name_at(msg_type_names, LW_N_MSG_TYPES, (int)t);
}

const char *lw_role_name(lw_role r)
{
    return name_at(role_names, LW_N_ROLES, (int)r);
}

const char *lw_op_name(lw_op o)
{
    return name_at(op_names, LW_N_OPS, (int)o);
}

const char *lw_artefact_name(lw_artefact a)
{
    return name_at(artefact_names, LW_N_ARTEFACTS, (int)a);
}

lw_msg_type lw_msg_type_from_name(const char *s, size_t len)
{
    return (lw_msg_type)index_of(msg_type_names, LW_N_MSG_TYPES, s, len);
}

lw_role lw_role_from_name(const char *s, size_t len)
{
    return (lw_role)index_of(role_names, LW_N_ROLES, s, len);
}

lw_op lw_op_from_name(const char *s, size_t len)
{
    return (lw_op)index_of(op_names, LW_N_OPS, s, len);
}

lw_artefact lw_artefact_from_name(const char *s, size_t len)
{
    return (lw_artefact)index_of(artefact_names, LW_N_ARTEFACTS, s, len);
}

lw_role lw_op_role(lw_op o)
{
    switch (o) {
    case LW_OP_ENCODE:
    case LW_OP_TOKENIZE:
        return LW_ROLE_ENCODER;
    case LW_OP_DENOISE:
        return LW_ROLE_DENOISER;
    case LW_OP_DECODE:
    case LW_OP_ENCODE_IMAGE:
        return LW_ROLE_DECODER;
    case LW_OP_NONE:
    case LW_N_OPS:
        break;
    }
    return LW_ROLE_NONE;
}

void lw_msg_init(lw_msg *m, lw_msg_type type, const uint8_t *id)
{
    memset(m, 0, sizeof(*m));
    m->type = type;
    if (id) {
        m->has_id = true;
        memcpy(m->id, id, sizeof(m->id));
    }
}

const lw_msg_tensor *lw_msg_tensor_find(const lw_msg *m, const char *name)
{
    for (int i = 0; i < m->n_tensors; i++)
        if (strcmp(m->tensors[i].name, name) == 0)
            return &m->tensors[i];
    return NULL;
}

bool lw_tensor_name_valid(const char *s, size_t len)
{
    if (len == 0 || len >= LW_MAX_TENSOR_NAME)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = s[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            c != '_' && c != '.' && c != '-')
            return false;
    }
    return true;
}

lw_status lw_msg_tensor_add(lw_msg *m, const char *name, const lw_tensor *t, lw_frame *frame,
                            lw_err *err)
{
    lw_msg_tensor *mt;

    if (m->n_tensors == LW_MAX_TENSORS)
        return lw_fail(err, LW_E_TOO_LARGE, "tensor %s: a message holds at most %d tensors", name,
                       LW_MAX_TENSORS);
    if (!lw_tensor_name_valid(name, strlen(name)))
        return lw_fail(err, LW_E_INVALID,
                       "tensor name \"%.60s\": needs 1 to %d characters of [A-Za-z0-9_.-]", name,
                       LW_MAX_TENSOR_NAME - 1);
    if (lw_msg_tensor_find(m, name))
        return lw_fail(err, LW_E_INVALID, "tensor %s: already in the message", name);

    mt = &m->tensors[m->n_tensors++];
    memcpy(mt->name, name, strlen(name) + 1);
    mt->t = *t;
    mt->frame = frame;
    return LW_OK;
}

void lw_msg_error(lw_msg *m, const uint8_t *id, const lw_err *err)
{
    lw_msg_init(m, LW_MSG_ERROR, id);
    lw_msg_set(m, code, err->code);
    lw_msg_set(m, message, err->text);
    lw_msg_set(m, retryable, lw_status_retryable(err->code) != 0);
}
