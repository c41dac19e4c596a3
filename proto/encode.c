/*
 * Message -> packet. The form is canonical: v, type, id, the fields in table order, tensors;
 * shortest integers, float64. It is what Python's msgpack.packb makes of the same dict, so golden
 * bytes are shared. A sender is held to the limits that a receiver will apply.
 */
#include <math.h>
#include <msgpack.h>
#include <string.h>

#include "common/buf.h"
#include "common/utf8.h"

#include "proto/fields.h"
#include "proto/packet.h"

typedef struct encoder {
    msgpack_packer pk;
    lw_buf buf; /* bounded and sticky: looked at once, at the end */
    const char *where;
    lw_err *err;
} encoder;

static int write_buf(void *buf, const char *data, size_t n)
{
    lw_buf_put(buf, data, n);
    return 0;
}

static void pack_str(encoder *e, const char *s, size_t n)
{
    msgpack_pack_str(&e->pk, n);
    msgpack_pack_str_body(&e->pk, s, n);
}

static void pack_key(encoder *e, const char *s)
{
    pack_str(e, s, strlen(s));
}

/* Error texts may quote bytes of any origin (file names, what a peer sent); they must still
 * arrive. */
static void pack_error_text(encoder *e, const char *s, size_t max)
{
    char text[LW_ERR_TEXT_BYTES];
    size_t n = strnlen(s, max < sizeof(text) ? max : sizeof(text));
    size_t out = 0;

    while (out < n) {
        size_t len = lw_utf8_len(s + out, n - out);

        if (len == 0) {
            text[out++] = '?';
            continue;
        }
        memcpy(text + out, s + out, len);
        out += len;
    }
    pack_str(e, text, n);
}

static lw_status encode_s(encoder *e, const lw_field_info *f, const char *s)
{
    size_t n;

    if (!s)
        return lw_fail(e->err, LW_E_INVALID, "%s: %s is set to no string", e->where, f->name);
    if (strcmp(f->name, "message") == 0) {
        pack_error_text(e, s, f->max_u);
        return LW_OK;
    }
    n = strlen(s);
    if (n > f->max_u)
        return lw_fail(e->err, LW_E_TOO_LARGE, "%s has %zu bytes, the limit is %llu", f->name, n,
                       (unsigned long long)f->max_u);
    if (!lw_utf8_valid(s, n))
        return lw_fail(e->err, LW_E_INVALID, "%s is not valid UTF-8", f->name);
    pack_str(e, s, n);
    return LW_OK;
}

static lw_status encode_f(encoder *e, const lw_field_info *f, double v)
{
    if (!isfinite(v) || fabs(v) > f->max_f)
        return lw_fail(e->err, LW_E_INVALID, "%s is %g, must be finite and within %g", f->name, v,
                       f->max_f);
    msgpack_pack_double(&e->pk, v);
    return LW_OK;
}

static lw_status encode_fs(encoder *e, const lw_field_info *f, const lw_f64s *v)
{
    if (v->n > f->max_u)
        return lw_fail(e->err, LW_E_TOO_LARGE, "%s has %u values, the limit is %llu", f->name, v->n,
                       (unsigned long long)f->max_u);
    msgpack_pack_array(&e->pk, v->n);
    for (uint32_t i = 0; i < v->n; i++) {
        if (!isfinite(v->v[i]))
            return lw_fail(e->err, LW_E_INVALID, "%s[%u] is not finite", f->name, i);
        msgpack_pack_double(&e->pk, v->v[i]);
    }
    return LW_OK;
}

static lw_status encode_enum(encoder *e, const lw_field_info *f, const char *name)
{
    if (strcmp(name, "?") == 0)
        return lw_fail(e->err, LW_E_INVALID, "%s: %s is set to no value", e->where, f->name);
    pack_key(e, name);
    return LW_OK;
}

static lw_status encode_record(encoder *e, const lw_record *r);

static size_t record_count(const lw_record *r)
{
    size_t n = 0;

    for (int i = 0; i < r->n_fields; i++)
        n += lw_record_has(r, i);
    return n;
}

static lw_status encode_map(encoder *e, const lw_record *r)
{
    msgpack_pack_map(&e->pk, record_count(r));
    return encode_record(e, r);
}

static lw_status encode_stages(encoder *e, const lw_stages *s)
{
    size_t n = 0;

    for (int op = 1; op < LW_N_OPS; op++)
        n += s->by_op[op].has != 0;
    msgpack_pack_map(&e->pk, n);
    for (int op = 1; op < LW_N_OPS; op++) {
        lw_record r = lw_record_of_stage(&s->by_op[op]);

        if (s->by_op[op].has == 0)
            continue;
        pack_key(e, lw_op_name((lw_op)op));
        LW_TRY(encode_map(e, &r));
    }
    return LW_OK;
}

static lw_status encode_field(encoder *e, const lw_field_info *f, const lw_record *r)
{
    switch (f->kind) {
    case LW_KIND_U:
        if (*LW_FIELD_PTR(r, f, uint64_t) > f->max_u)
            return lw_fail(e->err, LW_E_INVALID, "%s is %llu, the limit is %llu", f->name,
                           (unsigned long long)*LW_FIELD_PTR(r, f, uint64_t),
                           (unsigned long long)f->max_u);
        msgpack_pack_uint64(&e->pk, *LW_FIELD_PTR(r, f, uint64_t));
        return LW_OK;
    case LW_KIND_I: {
        int64_t v = *LW_FIELD_PTR(r, f, int64_t);

        if (v > (int64_t)f->max_u || v < -(int64_t)f->max_u)
            return lw_fail(e->err, LW_E_INVALID, "%s is %lld, outside -%llu..%llu", f->name,
                           (long long)v, (unsigned long long)f->max_u,
                           (unsigned long long)f->max_u);
        msgpack_pack_int64(&e->pk, v);
        return LW_OK;
    }
    case LW_KIND_F:
        return encode_f(e, f, *LW_FIELD_PTR(r, f, double));
    case LW_KIND_B:
        if (*LW_FIELD_PTR(r, f, bool))
            msgpack_pack_true(&e->pk);
        else
            msgpack_pack_false(&e->pk);
        return LW_OK;
    case LW_KIND_S:
        return encode_s(e, f, *LW_FIELD_PTR(r, f, const char *));
    case LW_KIND_ID:
        msgpack_pack_bin(&e->pk, 16);
        msgpack_pack_bin_body(&e->pk, LW_FIELD_PTR(r, f, uint8_t), 16);
        return LW_OK;
    case LW_KIND_FS:
        return encode_fs(e, f, LW_FIELD_PTR(r, f, lw_f64s));
    case LW_KIND_ROLE:
        return encode_enum(e, f, lw_role_name(*LW_FIELD_PTR(r, f, lw_role)));
    case LW_KIND_OP:
        return encode_enum(e, f, lw_op_name(*LW_FIELD_PTR(r, f, lw_op)));
    case LW_KIND_ART:
        return encode_enum(e, f, lw_artefact_name(*LW_FIELD_PTR(r, f, lw_artefact)));
    case LW_KIND_STATUS:
        return encode_enum(e, f, lw_status_name(*LW_FIELD_PTR(r, f, lw_status)));
    case LW_KIND_CONTRACT: {
        lw_record c = lw_record_of_contract(LW_FIELD_PTR(r, f, lw_contract));

        return encode_map(e, &c);
    }
    case LW_KIND_STAGES:
        return encode_stages(e, LW_FIELD_PTR(r, f, lw_stages));
    }
    return LW_E_INTERNAL;
}

static lw_status encode_record(encoder *e, const lw_record *r)
{
    for (int i = 0; i < r->n_fields; i++) {
        if (!lw_record_has(r, i))
            continue;
        pack_key(e, r->fields[i].name);
        LW_TRY(encode_field(e, &r->fields[i], r));
    }
    return LW_OK;
}

/* The triple into the header; the bytes beside it, or into a frame of their own. */
static lw_status encode_tensor(encoder *e, const lw_msg_tensor *mt, lw_packet *p)
{
    const lw_tensor *t = &mt->t;
    size_t n_bytes;

    if (lw_shape_bytes(t->dtype, t->rank, t->shape, &n_bytes, e->err) != LW_OK)
        return lw_err_prefix(e->err, LW_E_SHAPE, "tensor %s", mt->name);
    if (mt->frame ? lw_frame_size(mt->frame) != n_bytes : !lw_tensor_is_contiguous(t))
        return lw_fail(e->err, LW_E_SHAPE, "tensor %s: %s", mt->name,
                       mt->frame ? "its frame has another size than its shape"
                                 : "only a packed tensor can be sent");
    if (n_bytes > LW_MAX_FRAME_BYTES)
        return lw_fail(e->err, LW_E_TOO_LARGE, "tensor %s has %zu bytes, a frame holds at most %u",
                       mt->name, n_bytes, LW_MAX_FRAME_BYTES);

    pack_key(e, mt->name);
    msgpack_pack_array(&e->pk, 3);
    pack_key(e, lw_dtype_name(t->dtype));
    msgpack_pack_array(&e->pk, (size_t)t->rank);
    for (int i = 0; i < t->rank; i++)
        msgpack_pack_int64(&e->pk, t->shape[i]);
    if (!mt->frame && n_bytes < LW_INLINE_BYTES) {
        msgpack_pack_ext(&e->pk, n_bytes, LW_EXT_TENSOR);
        msgpack_pack_ext_body(&e->pk, t->data, n_bytes);
        return LW_OK;
    }
    p->frames[p->n_frames] = mt->frame ? lw_frame_ref(mt->frame) : lw_frame_copy(t->data, n_bytes);
    if (!p->frames[p->n_frames])
        return lw_fail(e->err, LW_E_NOMEM, "no memory for tensor %s (%zu bytes)", mt->name,
                       n_bytes);
    msgpack_pack_int(&e->pk, p->n_frames);
    p->n_frames++;
    return LW_OK;
}

static lw_status encode_header(encoder *e, const lw_msg *m, lw_packet *p)
{
    lw_record r = lw_record_of_msg(m);

    LW_TRY(lw_msg_check_layout(m, e->err));
    msgpack_pack_map(&e->pk, 2 + m->has_id + record_count(&r) + (m->n_tensors > 0));
    pack_key(e, "v");
    msgpack_pack_int(&e->pk, LW_WIRE_MAJOR);
    pack_key(e, "type");
    pack_key(e, lw_msg_type_name(m->type));
    if (m->has_id) {
        pack_key(e, "id");
        msgpack_pack_bin(&e->pk, sizeof(m->id));
        msgpack_pack_bin_body(&e->pk, m->id, sizeof(m->id));
    }
    LW_TRY(encode_record(e, &r));
    if (m->n_tensors > 0) {
        pack_key(e, "tensors");
        msgpack_pack_map(&e->pk, (size_t)m->n_tensors);
        for (int i = 0; i < m->n_tensors; i++)
            LW_TRY(encode_tensor(e, &m->tensors[i], p));
    }
    if (e->buf.failed)
        return lw_fail(e->err, LW_E_TOO_LARGE, "%s: the header is above the limit of %u bytes",
                       e->where, LW_MAX_HEADER_BYTES);
    if (lw_packet_bytes(p) + e->buf.len > LW_MAX_MESSAGE_BYTES)
        return lw_fail(e->err, LW_E_TOO_LARGE, "%s: %zu bytes in all, the limit is %u", e->where,
                       lw_packet_bytes(p) + e->buf.len, LW_MAX_MESSAGE_BYTES);
    return LW_OK;
}

lw_status lw_msg_encode(const lw_msg *m, lw_packet *ret, lw_err *err)
{
    encoder e = { .where = lw_msg_type_name(m->type), .err = err };
    lw_packet p = { .n_frames = 1 };
    lw_status status;

    if (m->type <= LW_MSG_NONE || m->type >= LW_N_MSG_TYPES)
        return lw_fail(err, LW_E_INVALID, "a message without a type cannot be sent");
    lw_buf_init(&e.buf, LW_MAX_HEADER_BYTES);
    msgpack_packer_init(&e.pk, &e.buf, write_buf);
    status = encode_header(&e, m, &p);
    if (status == LW_OK) {
        p.frames[0] = lw_frame_copy(e.buf.data, e.buf.len);
        if (!p.frames[0])
            status = lw_fail(err, LW_E_NOMEM, "no memory for a header of %zu bytes", e.buf.len);
    }
    lw_buf_deinit(&e.buf);
    if (status != LW_OK) {
        lw_packet_clear(&p);
        return status;
    }
    *ret = p;
    return LW_OK;
}
