#include "tests/unit/proto/fill.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/fields.h"

static const struct {
    lw_msg_type type;
    char need;
    lw_field field;
} rows[] = {
#define ROW(type, need, m) { LW_MSG_##type, #need[0], LW_F_##m },
    LW_MSG_LAYOUT(ROW)
};

static void *must(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

/* Limits and the values around the borders of msgpack's encodings, in turn. */
static uint64_t number(int i, uint64_t max)
{
    static const uint64_t borders[] = { 0,     1,     127,        128,        255,       256,
                                        65535, 65536, 4294967295, 4294967296, UINT64_MAX };
    uint64_t v = borders[i % (int)LW_ARRAY_LEN(borders)];

    return v > max ? max : v;
}

static void fill_field(const lw_record *r, int i, lw_arena *a);

static void fill_record(const lw_record *r, lw_arena *a)
{
    for (int i = 0; i < r->n_fields; i++)
        fill_field(r, i, a);
}

static void fill_stages(lw_stages *s, lw_arena *a)
{
    for (int op = 1; op < LW_N_OPS; op++) {
        lw_record r = lw_record_of_stage(&s->by_op[op]);

        fill_record(&r, a);
    }
}

static lw_f64s some_sigmas(lw_arena *a)
{
    double *v = must(lw_arena_alloc(a, 4 * sizeof(*v), NULL));

    v[0] = 1;
    v[1] = 0.9;
    v[2] = 1.0 / 3;
    v[3] = 0;
    return (lw_f64s){ v, 4 };
}

static void fill_field(const lw_record *r, int i, lw_arena *a)
{
    const lw_field_info *f = &r->fields[i];

    switch (f->kind) {
    case LW_KIND_U:
        *LW_FIELD_PTR(r, f, uint64_t) = number(i, f->max_u);
        break;
    case LW_KIND_I:
        *LW_FIELD_PTR(r, f, int64_t) = -2;
        break;
    case LW_KIND_F:
        *LW_FIELD_PTR(r, f, double) = i % 2 || f->max_f < 3 ? 0.3611 : 3;
        break;
    case LW_KIND_B:
        *LW_FIELD_PTR(r, f, bool) = i % 2;
        break;
    case LW_KIND_S:
        /* More than 31 bytes where that fits, and more than one byte a character. */
        *LW_FIELD_PTR(r, f, const char *) = must(lw_arena_printf(
            a, NULL, f->max_u >= 64 ? "%s: na\xc3\xafve \xe6\xa8\xb9 %031d" : "%.12s", f->name, i));
        break;
    case LW_KIND_ID:
        for (int k = 0; k < 16; k++)
            LW_FIELD_PTR(r, f, uint8_t)[k] = (uint8_t)(0xf0 + k);
        break;
    case LW_KIND_FS:
        *LW_FIELD_PTR(r, f, lw_f64s) = some_sigmas(a);
        break;
    case LW_KIND_ROLE:
        *LW_FIELD_PTR(r, f, lw_role) = LW_ROLE_DENOISER;
        break;
    case LW_KIND_OP:
        *LW_FIELD_PTR(r, f, lw_op) = LW_OP_ENCODE_IMAGE;
        break;
    case LW_KIND_ART:
        *LW_FIELD_PTR(r, f, lw_artefact) =
            strcmp(f->name, "from") == 0 ? LW_ARTEFACT_PROMPT : LW_ARTEFACT_IMAGE;
        break;
    case LW_KIND_STATUS:
        *LW_FIELD_PTR(r, f, lw_status) = LW_E_PRECONDITION;
        break;
    case LW_KIND_CONTRACT: {
        lw_record c = lw_record_of_contract(LW_FIELD_PTR(r, f, lw_contract));

        fill_record(&c, a);
        break;
    }
    case LW_KIND_STAGES:
        fill_stages(LW_FIELD_PTR(r, f, lw_stages), a);
        break;
    }
    r->has[i / 64] |= UINT64_C(1) << (i % 64);
}

void fill_msg(lw_msg *m, lw_msg_type type, bool required_only, lw_arena *a)
{
    static const uint8_t id[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    lw_record r = lw_record_of_msg(m);
    bool needs_id = type == LW_MSG_ERROR && !required_only;

#define ID_OF(t) needs_id = needs_id || type == LW_MSG_##t;
    LW_MSG_NEEDS_ID(ID_OF)
    lw_msg_init(m, type, needs_id ? id : NULL);
    for (size_t i = 0; i < LW_ARRAY_LEN(rows); i++)
        if (rows[i].type == type && (rows[i].need == 'R' || !required_only))
            fill_field(&r, (int)rows[i].field, a);
}

lw_tensor fill_tensor(lw_dtype dtype)
{
    static uint8_t memory[LW_N_DTYPES][6 * 8];
    const float values[6] = { 1, 2, 3, 4, 5, 6 };
    uint8_t *p = memory[dtype];

    switch (dtype) {
    case LW_U8:
        for (int i = 0; i < 6; i++)
            p[i] = (uint8_t)(i + 1);
        break;
    case LW_I32:
        for (int i = 0; i < 6; i++)
            p[4 * i] = (uint8_t)(i + 1);
        break;
    case LW_I64:
        for (int i = 0; i < 6; i++)
            p[8 * i] = (uint8_t)(i + 1);
        break;
    default:
        if (!lw_dtype_convert(p, dtype, values, LW_F32, 6))
            abort();
    }
    return lw_tensor_2d(p, dtype, 2, 3);
}

int fill_count(const lw_msg *m)
{
    lw_record r = lw_record_of_msg(m);
    int n = 0;

    for (size_t i = 0; i < LW_ARRAY_LEN(rows); i++)
        n += rows[i].type == m->type && lw_record_has(&r, (int)rows[i].field);
    return n;
}

static bool put_u32(FILE *f, size_t v)
{
    uint8_t b[4] = { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) };

    return fwrite(b, 1, 4, f) == 4;
}

static bool get_u32(FILE *f, uint32_t *ret)
{
    uint8_t b[4];

    if (fread(b, 1, 4, f) != 4)
        return false;
    *ret = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    return true;
}

bool fill_write(const char *path, const lw_packet *p)
{
    FILE *f = fopen(path, "wb");
    bool ok = f && put_u32(f, (size_t)p->n_frames);

    for (int i = 0; ok && i < p->n_frames; i++) {
        size_t n = lw_frame_size(p->frames[i]);

        ok = put_u32(f, n) && fwrite(lw_frame_data(p->frames[i]), 1, n, f) == n;
    }
    return f && fclose(f) == 0 && ok;
}

bool fill_read(const char *path, lw_packet *ret)
{
    static uint8_t bytes[1 << 20];
    FILE *f = fopen(path, "rb");
    uint32_t n_frames = 0, n;
    bool ok = f && get_u32(f, &n_frames) && n_frames >= 1 && n_frames <= 1 + LW_MAX_TENSORS;

    ret->n_frames = 0;
    for (uint32_t i = 0; ok && i < n_frames; i++) {
        ok = get_u32(f, &n) && n <= sizeof(bytes) && fread(bytes, 1, n, f) == n;
        if (ok)
            ret->frames[ret->n_frames++] = must(lw_frame_copy(bytes, n));
    }
    ok = ok && fgetc(f) == EOF;
    if (f)
        fclose(f);
    return ok;
}

bool fill_same(const lw_packet *a, const lw_packet *b)
{
    if (a->n_frames != b->n_frames)
        return false;
    for (int i = 0; i < a->n_frames; i++)
        if (lw_frame_size(a->frames[i]) != lw_frame_size(b->frames[i]) ||
            memcmp(lw_frame_data(a->frames[i]), lw_frame_data(b->frames[i]),
                   lw_frame_size(a->frames[i])) != 0)
            return false;
    return true;
}
