/*
 * Packet -> message. The pre-scan has run before msgpack-c sees a header, so what is left is to
 * judge meaning: known names, kinds, limits, and tensors against their frames. What a kind of field
 * may hold is decided here once; the fields themselves come from the tables of schema.h.
 */
#include <math.h>
#include <msgpack.h>
#include <string.h>

#include "proto/fields.h"
#include "proto/packet.h"

typedef struct decoder {
    const lw_packet *packet;
    lw_arena *arena;
    const char *where; /* "task", "hello: contract", for messages */
    lw_err *err;
} decoder;

static const char *object_kind_name(const msgpack_object *o)
{
    switch (o->type) {
    case MSGPACK_OBJECT_NIL:
        return "nil";
    case MSGPACK_OBJECT_BOOLEAN:
        return "a bool";
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return "an integer";
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return "a float";
    case MSGPACK_OBJECT_STR:
        return "a string";
    case MSGPACK_OBJECT_BIN:
        return "bytes";
    case MSGPACK_OBJECT_EXT:
        return "an ext";
    case MSGPACK_OBJECT_ARRAY:
        return "an array";
    case MSGPACK_OBJECT_MAP:
        return "a map";
    }
    return "unknown";
}

static lw_status wrong_kind(const decoder *d, const char *name, const msgpack_object *o,
                            const char *expected)
{
    return lw_fail(d->err, LW_E_FORMAT, "%s: %s is %s, expected %s", d->where, name,
                   object_kind_name(o), expected);
}

static bool str_is(const msgpack_object *o, const char *s)
{
    return o->type == MSGPACK_OBJECT_STR && o->via.str.size == strlen(s) &&
           memcmp(o->via.str.ptr, s, o->via.str.size) == 0;
}

static const msgpack_object *map_find(const msgpack_object *map, const char *name)
{
    for (uint32_t i = 0; i < map->via.map.size; i++)
        if (str_is(&map->via.map.ptr[i].key, name))
            return &map->via.map.ptr[i].val;
    return NULL;
}

/* Integers of any encoding are numbers too, for writers in languages that do not tell 1 from 1.0.
 */
static bool as_number(const msgpack_object *o, double *ret)
{
    switch (o->type) {
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        *ret = o->via.f64;
        return true;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        *ret = (double)o->via.u64;
        return true;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        *ret = (double)o->via.i64;
        return true;
    default:
        return false;
    }
}

static lw_status decode_u(const decoder *d, const lw_field_info *f, const msgpack_object *o,
                          uint64_t *ret)
{
    if (o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        return lw_fail(d->err, LW_E_INVALID, "%s: %s is %lld, must not be negative", d->where,
                       f->name, (long long)o->via.i64);
    if (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
        return wrong_kind(d, f->name, o, "an integer");
    if (o->via.u64 > f->max_u)
        return lw_fail(d->err, LW_E_INVALID, "%s: %s is %llu, the limit is %llu", d->where, f->name,
                       (unsigned long long)o->via.u64, (unsigned long long)f->max_u);
    *ret = o->via.u64;
    return LW_OK;
}

static lw_status decode_i(const decoder *d, const lw_field_info *f, const msgpack_object *o,
                          int64_t *ret)
{
    if (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER && o->type != MSGPACK_OBJECT_NEGATIVE_INTEGER)
        return wrong_kind(d, f->name, o, "an integer");
    if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? o->via.u64 > f->max_u
                                                   : o->via.i64 < -(int64_t)f->max_u)
        return lw_fail(d->err, LW_E_INVALID, "%s: %s is outside -%llu..%llu", d->where, f->name,
                       (unsigned long long)f->max_u, (unsigned long long)f->max_u);
    *ret = o->via.i64;
    return LW_OK;
}

static lw_status decode_f(const decoder *d, const lw_field_info *f, const msgpack_object *o,
                          double *ret)
{
    double v;

    if (!as_number(o, &v))
        return wrong_kind(d, f->name, o, "a number");
    if (!isfinite(v) || fabs(v) > f->max_f)
        return lw_fail(d->err, LW_E_INVALID, "%s: %s is %g, must be finite and within %g", d->where,
                       f->name, v, f->max_f);
    *ret = v;
    return LW_OK;
}

static lw_status decode_s(const decoder *d, const lw_field_info *f, const msgpack_object *o,
                          const char **ret)
{
    if (o->type != MSGPACK_OBJECT_STR)
        return wrong_kind(d, f->name, o, "a string");
    if (o->via.str.size > f->max_u)
        return lw_fail(d->err, LW_E_TOO_LARGE, "%s: %s has %u bytes, the limit is %llu", d->where,
                       f->name, o->via.str.size, (unsigned long long)f->max_u);
    if (memchr(o->via.str.ptr, 0, o->via.str.size))
        return lw_fail(d->err, LW_E_FORMAT, "%s: %s contains a NUL character", d->where, f->name);
    *ret = lw_arena_strndup(d->arena, o->via.str.ptr, o->via.str.size, d->err);
    return *ret ? LW_OK : LW_E_NOMEM;
}

static lw_status decode_id(const decoder *d, const char *name, const msgpack_object *o,
                           uint8_t ret[16])
{
    if (o->type != MSGPACK_OBJECT_BIN || o->via.bin.size != 16)
        return lw_fail(d->err, LW_E_FORMAT, "%s: %s must be 16 bytes (msgpack bin)", d->where,
                       name);
    memcpy(ret, o->via.bin.ptr, 16);
    return LW_OK;
}

static lw_status decode_fs(const decoder *d, const lw_field_info *f, const msgpack_object *o,
                           lw_f64s *ret)
{
    double *v;

    if (o->type != MSGPACK_OBJECT_ARRAY)
        return wrong_kind(d, f->name, o, "an array of numbers");
    if (o->via.array.size > f->max_u)
        return lw_fail(d->err, LW_E_TOO_LARGE, "%s: %s has %u values, the limit is %llu", d->where,
                       f->name, o->via.array.size, (unsigned long long)f->max_u);
    v = lw_arena_alloc(d->arena, o->via.array.size * sizeof(*v), d->err);
    if (!v)
        return LW_E_NOMEM;
    for (uint32_t i = 0; i < o->via.array.size; i++)
        if (!as_number(&o->via.array.ptr[i], &v[i]) || !isfinite(v[i]))
            return lw_fail(d->err, LW_E_INVALID, "%s: %s[%u] is not a finite number", d->where,
                           f->name, i);
    *ret = (lw_f64s){ v, o->via.array.size };
    return LW_OK;
}

/* An enumeration travels by name. A status that we do not know is an error all the same, so it
 * decodes as "internal"; any other unknown name is refused. */
static lw_status decode_enum(const decoder *d, const lw_field_info *f, const msgpack_object *o,
                             void *ret)
{
    const char *s;
    size_t n;
    bool known;

    if (o->type != MSGPACK_OBJECT_STR)
        return wrong_kind(d, f->name, o, "a name");
    s = o->via.str.ptr;
    n = o->via.str.size;
    switch (f->kind) {
    case LW_KIND_ROLE:
        known = (*(lw_role *)ret = lw_role_from_name(s, n)) != LW_ROLE_NONE;
        break;
    case LW_KIND_OP:
        known = (*(lw_op *)ret = lw_op_from_name(s, n)) != LW_OP_NONE;
        break;
    case LW_KIND_ART:
        known = (*(lw_artefact *)ret = lw_artefact_from_name(s, n)) != LW_ARTEFACT_NONE;
        break;
    default:
        *(lw_status *)ret = lw_status_from_name(s, n);
        known = true;
        break;
    }
    if (!known)
        return lw_fail(d->err, LW_E_INVALID, "%s: %s \"%.*s\" is not known", d->where, f->name,
                       n > 64 ? 64 : (int)n, s);
    return LW_OK;
}

static lw_status decode_record(const decoder *d, const msgpack_object *map, const lw_record *r);

static lw_status decode_contract(const decoder *d, const msgpack_object *o, lw_contract *ret)
{
    decoder sub = *d;
    lw_record r = lw_record_of_contract(ret);

    if (o->type != MSGPACK_OBJECT_MAP)
        return wrong_kind(d, "contract", o, "a map");
    sub.where = "contract";
    return decode_record(&sub, o, &r);
}

static lw_status decode_stages(const decoder *d, const msgpack_object *o, lw_stages *ret)
{
    decoder sub = *d;

    if (o->type != MSGPACK_OBJECT_MAP)
        return wrong_kind(d, "stages", o, "a map");
    for (uint32_t i = 0; i < o->via.map.size; i++) {
        const msgpack_object *key = &o->via.map.ptr[i].key, *val = &o->via.map.ptr[i].val;
        lw_op op = lw_op_from_name(key->via.str.ptr, key->via.str.size);
        lw_record r = lw_record_of_stage(&ret->by_op[op]);

        if (op == LW_OP_NONE)
            continue;
        sub.where = lw_op_name(op);
        if (val->type != MSGPACK_OBJECT_MAP)
            return wrong_kind(&sub, "stage", val, "a map");
        LW_TRY(decode_record(&sub, val, &r));
    }
    return LW_OK;
}

static lw_status decode_field(const decoder *d, const lw_field_info *f, const msgpack_object *o,
                              const lw_record *r)
{
    switch (f->kind) {
    case LW_KIND_U:
        return decode_u(d, f, o, LW_FIELD_PTR(r, f, uint64_t));
    case LW_KIND_I:
        return decode_i(d, f, o, LW_FIELD_PTR(r, f, int64_t));
    case LW_KIND_F:
        return decode_f(d, f, o, LW_FIELD_PTR(r, f, double));
    case LW_KIND_B:
        if (o->type != MSGPACK_OBJECT_BOOLEAN)
            return wrong_kind(d, f->name, o, "a bool");
        *LW_FIELD_PTR(r, f, bool) = o->via.boolean;
        return LW_OK;
    case LW_KIND_S:
        return decode_s(d, f, o, LW_FIELD_PTR(r, f, const char *));
    case LW_KIND_ID:
        return decode_id(d, f->name, o, LW_FIELD_PTR(r, f, uint8_t));
    case LW_KIND_FS:
        return decode_fs(d, f, o, LW_FIELD_PTR(r, f, lw_f64s));
    case LW_KIND_ROLE:
    case LW_KIND_OP:
    case LW_KIND_ART:
    case LW_KIND_STATUS:
        return decode_enum(d, f, o, LW_FIELD_PTR(r, f, void));
    case LW_KIND_CONTRACT:
        return decode_contract(d, o, LW_FIELD_PTR(r, f, lw_contract));
    case LW_KIND_STAGES:
        return decode_stages(d, o, LW_FIELD_PTR(r, f, lw_stages));
    }
    return LW_E_INTERNAL;
}

static int field_find(const lw_record *r, const msgpack_object *key)
{
    for (int i = 0; i < r->n_fields; i++)
        if (str_is(key, r->fields[i].name))
            return i;
    return -1;
}

/* Known keys into the record; others are ignored, and nil is the same as absent. */
static lw_status decode_record(const decoder *d, const msgpack_object *map, const lw_record *r)
{
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object *val = &map->via.map.ptr[i].val;
        int f = field_find(r, &map->via.map.ptr[i].key);

        if (f < 0 || val->type == MSGPACK_OBJECT_NIL)
            continue;
        LW_TRY(decode_field(d, &r->fields[f], val, r));
        r->has[f / 64] |= UINT64_C(1) << (f % 64);
    }
    return LW_OK;
}

static lw_status decode_shape(const decoder *d, const char *name, const msgpack_object *o,
                              lw_tensor *t)
{
    if (o->type != MSGPACK_OBJECT_ARRAY)
        return wrong_kind(d, name, o, "a shape (array of integers)");
    if (o->via.array.size > LW_MAX_RANK)
        return lw_fail(d->err, LW_E_SHAPE, "%s: %s has %u axes, the limit is %d", d->where, name,
                       o->via.array.size, LW_MAX_RANK);
    t->rank = (int)o->via.array.size;
    for (int i = 0; i < t->rank; i++) {
        const msgpack_object *dim = &o->via.array.ptr[i];

        if (dim->type != MSGPACK_OBJECT_POSITIVE_INTEGER || dim->via.u64 > INT64_MAX)
            return lw_fail(d->err, LW_E_SHAPE, "%s: %s: axis %d of the shape is not a size",
                           d->where, name, i);
        t->shape[i] = (int64_t)dim->via.u64;
    }
    return LW_OK;
}

/* Where the bytes are: a frame that no other tensor uses, or inside the header. */
static lw_status decode_ref(const decoder *d, const char *name, const msgpack_object *ref,
                            uint32_t *frames_used, lw_msg_tensor *mt, size_t *ret_bytes)
{
    if (ref->type == MSGPACK_OBJECT_EXT && ref->via.ext.type == LW_EXT_TENSOR) {
        mt->t.data = (void *)ref->via.ext.ptr;
        *ret_bytes = ref->via.ext.size;
        return LW_OK;
    }
    if (ref->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
        return wrong_kind(d, name, ref, "a frame index or ext type 3");
    if (ref->via.u64 == 0 || ref->via.u64 >= (uint64_t)d->packet->n_frames)
        return lw_fail(d->err, LW_E_FORMAT, "%s: %s: frame %llu does not exist, the message has %d",
                       d->where, name, (unsigned long long)ref->via.u64, d->packet->n_frames - 1);
    if (*frames_used >> ref->via.u64 & 1)
        return lw_fail(d->err, LW_E_FORMAT, "%s: %s: frame %llu is used twice", d->where, name,
                       (unsigned long long)ref->via.u64);
    *frames_used |= UINT32_C(1) << ref->via.u64;
    mt->frame = d->packet->frames[ref->via.u64];
    mt->t.data = (void *)lw_frame_data(mt->frame);
    *ret_bytes = lw_frame_size(mt->frame);
    return LW_OK;
}

static lw_status decode_tensor(const decoder *d, const msgpack_object_kv *kv, uint32_t *frames_used,
                               lw_msg_tensor *mt)
{
    const msgpack_object *triple = &kv->val;
    const msgpack_object *dtype;
    size_t have_bytes = 0, need_bytes;

    if (!lw_tensor_name_valid(kv->key.via.str.ptr, kv->key.via.str.size))
        return lw_fail(d->err, LW_E_INVALID,
                       "%s: a tensor's name needs 1 to %d characters of [A-Za-z0-9_.-]", d->where,
                       LW_MAX_TENSOR_NAME - 1);
    *mt = (lw_msg_tensor){ 0 };
    memcpy(mt->name, kv->key.via.str.ptr, kv->key.via.str.size);
    if (triple->type != MSGPACK_OBJECT_ARRAY || triple->via.array.size != 3)
        return lw_fail(d->err, LW_E_FORMAT, "%s: %s must be [dtype, shape, ref]", d->where,
                       mt->name);

    dtype = &triple->via.array.ptr[0];
    if (dtype->type != MSGPACK_OBJECT_STR)
        return wrong_kind(d, mt->name, dtype, "a dtype name");
    mt->t.dtype = lw_dtype_from_name(dtype->via.str.ptr, dtype->via.str.size);
    if (mt->t.dtype == LW_DTYPE_NONE)
        return lw_fail(d->err, LW_E_INVALID, "%s: %s: dtype \"%.*s\" is not known", d->where,
                       mt->name, dtype->via.str.size > 32 ? 32 : (int)dtype->via.str.size,
                       dtype->via.str.ptr);
    LW_TRY(decode_shape(d, mt->name, &triple->via.array.ptr[1], &mt->t));
    if (lw_shape_bytes(mt->t.dtype, mt->t.rank, mt->t.shape, &need_bytes, d->err) != LW_OK)
        return lw_err_prefix(d->err, LW_E_SHAPE, "%s: %s", d->where, mt->name);
    LW_TRY(decode_ref(d, mt->name, &triple->via.array.ptr[2], frames_used, mt, &have_bytes));
    if (have_bytes != need_bytes)
        return lw_fail(d->err, LW_E_SHAPE, "%s: %s has %zu bytes, its shape and dtype need %zu",
                       d->where, mt->name, have_bytes, need_bytes);
    mt->t = lw_tensor_nd(mt->t.data, mt->t.dtype, mt->t.rank, mt->t.shape);
    return LW_OK;
}

static lw_status decode_tensors(const decoder *d, const msgpack_object *map, lw_msg *m)
{
    uint32_t frames_used = 1; /* the header */

    if (map && map->type != MSGPACK_OBJECT_NIL) {
        if (map->type != MSGPACK_OBJECT_MAP)
            return wrong_kind(d, "tensors", map, "a map");
        if (map->via.map.size > LW_MAX_TENSORS)
            return lw_fail(d->err, LW_E_TOO_LARGE, "%s: %u tensors, the limit is %d", d->where,
                           map->via.map.size, LW_MAX_TENSORS);
        for (uint32_t i = 0; i < map->via.map.size; i++) {
            LW_TRY(decode_tensor(d, &map->via.map.ptr[i], &frames_used, &m->tensors[i]));
            m->n_tensors++;
        }
    }
    for (int i = 1; i < d->packet->n_frames; i++)
        if (!(frames_used >> i & 1))
            return lw_fail(d->err, LW_E_FORMAT, "%s: frame %d belongs to no tensor", d->where, i);
    return LW_OK;
}

/* v, type and id come first in meaning, wherever they stand in the map: an answer needs them even
 * when the rest is refused. */
static lw_status decode_envelope(const decoder *d, const msgpack_object *map, lw_msg *m)
{
    const msgpack_object *v = map_find(map, "v"), *type = map_find(map, "type");
    const msgpack_object *id = map_find(map, "id");

    if (id && id->type == MSGPACK_OBJECT_BIN && id->via.bin.size == sizeof(m->id)) {
        memcpy(m->id, id->via.bin.ptr, sizeof(m->id));
        m->has_id = true;
    }
    if (!v || v->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
        return lw_fail(d->err, LW_E_FORMAT, "header has no protocol version (integer `v`)");
    if (v->via.u64 != LW_WIRE_MAJOR)
        return lw_fail(d->err, LW_E_UNIMPLEMENTED, "protocol version %llu, this program speaks %d",
                       (unsigned long long)v->via.u64, LW_WIRE_MAJOR);
    if (!type || type->type != MSGPACK_OBJECT_STR)
        return lw_fail(d->err, LW_E_FORMAT, "header has no message type (string `type`)");
    m->type = lw_msg_type_from_name(type->via.str.ptr, type->via.str.size);
    if (m->type == LW_MSG_NONE)
        return lw_fail(d->err, LW_E_UNIMPLEMENTED, "message type \"%.*s\" is not known",
                       type->via.str.size > 64 ? 64 : (int)type->via.str.size, type->via.str.ptr);
    if (id && id->type != MSGPACK_OBJECT_NIL && !m->has_id)
        return lw_fail(d->err, LW_E_FORMAT, "%s: id must be 16 bytes (msgpack bin)",
                       lw_msg_type_name(m->type));
    return LW_OK;
}

static lw_status decode_map(decoder *d, const msgpack_object *map, lw_msg *m)
{
    lw_record r = lw_record_of_msg(m);

    LW_TRY(decode_envelope(d, map, m));
    d->where = lw_msg_type_name(m->type);
    LW_TRY(decode_record(d, map, &r));
    LW_TRY(decode_tensors(d, map_find(map, "tensors"), m));
    return lw_msg_check_layout(m, d->err);
}

lw_status lw_msg_decode(const lw_packet *p, lw_arena *a, lw_msg *ret, lw_err *err)
{
    decoder d = { .packet = p, .arena = a, .where = "header", .err = err };
    const char *data;
    size_t size, offset = 0;
    msgpack_zone zone;
    msgpack_object root;
    lw_status status;

    lw_msg_init(ret, LW_MSG_NONE, NULL);
    if (p->n_frames < 1 || p->n_frames > 1 + LW_MAX_TENSORS)
        return lw_fail(err, LW_E_FORMAT, "a message has 1 to %d frames, this one %d",
                       1 + LW_MAX_TENSORS, p->n_frames);
    data = lw_frame_data(p->frames[0]);
    size = lw_frame_size(p->frames[0]);
    LW_TRY(lw_prescan((const uint8_t *)data, size, err));

    if (!msgpack_zone_init(&zone, MSGPACK_ZONE_CHUNK_SIZE))
        return lw_fail(err, LW_E_NOMEM, "no memory to decode a message");
    if (msgpack_unpack(data, size, &offset, &zone, &root) != MSGPACK_UNPACK_SUCCESS)
        status = lw_fail(err, LW_E_NOMEM, "no memory to decode a header of %zu bytes", size);
    else
        status = decode_map(&d, &root, ret);
    msgpack_zone_destroy(&zone);
    return status;
}

lw_status lw_msg_tensor_copy(const lw_msg_tensor *mt, lw_arena *a, bool to_f32, lw_tensor *ret,
                             lw_err *err)
{
    const lw_tensor *t = &mt->t;
    lw_dtype dtype = to_f32 && lw_dtype_is_float(t->dtype) ? LW_F32 : t->dtype;
    lw_tensor copy;

    LW_TRY(lw_tensor_alloc(a, dtype, t->rank, t->shape, &copy, err));
    if (!lw_dtype_convert(copy.data, dtype, t->data, t->dtype, (size_t)lw_tensor_count(t)))
        return lw_fail(err, LW_E_INTERNAL, "%s: no conversion from %s to %s", mt->name,
                       lw_dtype_name(t->dtype), lw_dtype_name(dtype));
    *ret = copy;
    return LW_OK;
}
