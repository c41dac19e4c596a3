/* Messages <-> packets: round trips of every type, field kinds and limits, tensors. */

#include <math.h>
#include <msgpack.h>

#include "tests/unit/proto/fill.h"
#include "tests/unit/unit.h"

static lw_arena arena;

static int setup(void **state)
{
    (void)state;
    lw_arena_init(&arena, "test", 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lw_arena_deinit(&arena);
    return 0;
}

/* ---- headers written by hand, as another language would ---- */

typedef struct writer {
    msgpack_sbuffer buf;
    msgpack_packer pk;
    lw_packet frames; /* [0] is filled by finish */
} writer;

static void str(writer *w, const char *s)
{
    msgpack_pack_str(&w->pk, strlen(s));
    msgpack_pack_str_body(&w->pk, s, strlen(s));
}

/* A map of n keys that begins with v and type. */
static writer *begin(const char *type, unsigned n)
{
    static writer w;

    memset(&w, 0, sizeof(w));
    msgpack_sbuffer_init(&w.buf);
    msgpack_packer_init(&w.pk, &w.buf, msgpack_sbuffer_write);
    w.frames.n_frames = 1;
    msgpack_pack_map(&w.pk, n);
    str(&w, "v");
    msgpack_pack_int(&w.pk, 1);
    str(&w, "type");
    str(&w, type);
    return &w;
}

static void id(writer *w)
{
    str(w, "id");
    msgpack_pack_bin(&w->pk, 16);
    msgpack_pack_bin_body(&w->pk, "0123456789abcdef", 16);
}

static void frame(writer *w, const void *data, size_t n)
{
    w->frames.frames[w->frames.n_frames++] = lw_frame_copy(data, n);
}

/* Decode what was written; the message's views die here. */
static lw_status finish(writer *w, lw_msg *m, lw_err *err)
{
    static lw_packet last;
    lw_status s;

    lw_packet_clear(&last);
    w->frames.frames[0] = lw_frame_copy(w->buf.data, w->buf.size);
    msgpack_sbuffer_destroy(&w->buf);
    last = w->frames;
    memset(err, 0, sizeof(*err));
    s = lw_msg_decode(&last, &arena, m, err);
    assert_int_equal(s, err->code);
    if (s != LW_OK) /* nothing may point into it */
        lw_packet_clear(&last);
    return s;
}

/* ---- round trips ---- */

static void check_round_trip(const lw_msg *m)
{
    lw_packet first, again;
    lw_msg back;
    lw_err err = { 0 };

    assert_ok(lw_msg_encode(m, &first, &err), &err);
    assert_ok(lw_msg_decode(&first, &arena, &back, &err), &err);
    assert_int_equal(back.type, m->type);
    assert_int_equal(back.has_id, m->has_id);
    assert_memory_equal(back.has, m->has, sizeof(m->has));
    assert_ok(lw_msg_encode(&back, &again, &err), &err);
    assert_true(fill_same(&first, &again));
    lw_packet_clear(&first);
    lw_packet_clear(&again);
}

static void every_type_round_trips(void **state)
{
    (void)state;
    for (int type = 1; type < LW_N_MSG_TYPES; type++)
        for (int required_only = 0; required_only < 2; required_only++) {
            lw_msg m;

            fill_msg(&m, (lw_msg_type)type, required_only, &arena);
            check_round_trip(&m);
        }
}

static void values_survive(void **state)
{
    const uint8_t key[16] = "0123456789abcde";
    const double sigmas[] = { 1, 0.5, 0.1, 0 };
    lw_packet p;
    lw_msg m, r;
    lw_err err = { 0 };

    (void)state;
    lw_msg_init(&m, LW_MSG_RESULT, key);
    lw_msg_set(&m, op, LW_OP_DECODE);
    lw_msg_set(&m, to, LW_ARTEFACT_LATENTS);
    lw_msg_set(&m, seed, UINT64_MAX);
    lw_msg_set(&m, layer, -36);
    lw_msg_set(&m, guidance, 0.1);
    lw_msg_set(&m, truncated, true);
    lw_msg_set(&m, prompt, "ein Baum: \xe6\xa8\xb9");
    lw_msg_set(&m, code, LW_E_DEADLINE);
    lw_msg_set(&m, sigmas, ((lw_f64s){ sigmas, 4 }));
    memcpy(m.instance, key, sizeof(key));
    lw_msg_mark(&m, instance);
    lw_contract_set(&m.contract, dim, 2560);
    lw_contract_set(&m.contract, scale, "raw");
    lw_contract_set(&m.contract, normed, false);
    lw_msg_mark(&m, contract);
    lw_stage_set(&m.stages.by_op[LW_OP_DENOISE], worker, "w1");
    lw_stage_set(&m.stages.by_op[LW_OP_DENOISE], t_ms, 12.5);
    lw_msg_mark(&m, stages);
    assert_ok(lw_msg_encode(&m, &p, &err), &err);
    assert_ok(lw_msg_decode(&p, &arena, &r, &err), &err);
    lw_packet_clear(&p); /* strings and numbers were copied */

    assert_memory_equal(r.id, key, 16);
    assert_int_equal(r.op, LW_OP_DECODE);
    assert_int_equal(r.to, LW_ARTEFACT_LATENTS);
    assert_true(r.seed == UINT64_MAX);
    assert_int_equal(r.layer, -36);
    assert_true(r.guidance == 0.1);
    assert_true(r.truncated);
    assert_string_equal(r.prompt, m.prompt);
    assert_int_equal(r.code, LW_E_DEADLINE);
    assert_int_equal(r.sigmas.n, 4);
    assert_memory_equal(r.sigmas.v, sigmas, sizeof(sigmas));
    assert_memory_equal(r.instance, key, 16);
    assert_int_equal(r.contract.dim, 2560);
    assert_string_equal(r.contract.scale, "raw");
    assert_true(lw_contract_has(&r.contract, normed) && !r.contract.normed);
    assert_false(lw_contract_has(&r.contract, patch));
    assert_string_equal(r.stages.by_op[LW_OP_DENOISE].worker, "w1");
    assert_true(r.stages.by_op[LW_OP_DENOISE].t_ms == 12.5);
    assert_true(r.stages.by_op[LW_OP_ENCODE].has == 0);
    assert_false(lw_msg_has(&r, width));
    assert_int_equal(lw_msg_get(&r, width, 77), 77);
}

/* ---- what other languages may write ---- */

static void any_order_any_integer_form_nil_and_unknown_keys(void **state)
{
    writer *w = begin("task", 9);
    lw_msg m;
    lw_err err;

    (void)state;
    str(w, "width");
    msgpack_pack_fix_uint64(&w->pk, 512);
    str(w, "layer");
    msgpack_pack_fix_int64(&w->pk, -2);
    str(w, "guidance");
    msgpack_pack_int(&w->pk, 4); /* an integer where a float is meant */
    str(w, "op");
    str(w, "denoise");
    str(w, "of the future");
    msgpack_pack_map(&w->pk, 1);
    str(w, "deep");
    msgpack_pack_nil(&w->pk);
    str(w, "height");
    msgpack_pack_nil(&w->pk); /* as good as absent */
    id(w);
    assert_ok(finish(w, &m, &err), &err);
    assert_int_equal(m.width, 512);
    assert_int_equal(m.layer, -2);
    assert_true(m.guidance == 4.0);
    assert_int_equal(m.op, LW_OP_DENOISE);
    assert_false(lw_msg_has(&m, height));
    assert_memory_equal(m.id, "0123456789abcdef", 16);
}

static void float32_is_a_float(void **state)
{
    writer *w = begin("progress", 4);
    lw_msg m;
    lw_err err;

    (void)state;
    id(w);
    str(w, "sigma");
    msgpack_pack_float(&w->pk, 0.25f);
    assert_ok(finish(w, &m, &err), &err);
    assert_true(m.sigma == 0.25);
}

/* ---- envelope ---- */

static void version_and_type_are_needed(void **state)
{
    static const struct {
        const char *header;
        size_t n;
        lw_status expected;
        const char *text;
    } cases[] = {
#define HEADER(s) s, sizeof(s) - 1
        { HEADER("\x80"), LW_E_FORMAT, "version" },
        { HEADER("\x81\xa4type\xa3"
                 "bye"),
          LW_E_FORMAT, "version" },
        { HEADER("\x82\xa1v\xa1"
                 "1\xa4type\xa3"
                 "bye"),
          LW_E_FORMAT, "version" },
        { HEADER("\x82\xa1v\x02\xa4type\xa3"
                 "bye"),
          LW_E_UNIMPLEMENTED, "version 2" },
        { HEADER("\x81\xa1v\x01"), LW_E_FORMAT, "type" },
        { HEADER("\x82\xa1v\x01\xa4type\x05"), LW_E_FORMAT, "type" },
        { HEADER("\x82\xa1v\x01\xa4type\xa5greet"), LW_E_UNIMPLEMENTED, "greet" },
        { HEADER("\x82\xa1v\x01\xa4type\xa1?"), LW_E_UNIMPLEMENTED, "?" },
        { HEADER("\x82\xa1v\x01\xa4type\xa3"
                 "bye"),
          LW_OK, "" },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        lw_packet p = { .n_frames = 1, .frames = { lw_frame_copy(cases[i].header, cases[i].n) } };
        lw_err err = { 0 };
        lw_msg m;

        assert_int_equal(lw_msg_decode(&p, &arena, &m, &err), cases[i].expected);
        assert_contains(err.text, cases[i].text);
        lw_packet_clear(&p);
    }
}

/* So that a refused task can be answered. */
static void type_and_id_are_known_after_a_failure(void **state)
{
    writer *w = begin("task", 4);
    lw_msg m;
    lw_err err;

    (void)state;
    str(w, "width");
    str(w, "wide");
    id(w);
    assert_int_equal(finish(w, &m, &err), LW_E_FORMAT);
    assert_int_equal(m.type, LW_MSG_TASK);
    assert_true(m.has_id);
    assert_memory_equal(m.id, "0123456789abcdef", 16);
    assert_contains(err.text, "task: width is a string, expected an integer");
}

static void required_fields_are_required(void **state)
{
    const uint8_t key[16] = { 0 };
    lw_packet p;
    lw_msg m;
    lw_err err = { 0 };

    (void)state;
    lw_msg_init(&m, LW_MSG_TASK, key);
    assert_int_equal(lw_msg_encode(&m, &p, &err), LW_E_INVALID);
    assert_string_equal(err.text, "task: op is missing");
    lw_msg_init(&m, LW_MSG_TASK, NULL);
    lw_msg_set(&m, op, LW_OP_ENCODE);
    assert_int_equal(lw_msg_encode(&m, &p, &err), LW_E_INVALID);
    assert_string_equal(err.text, "task: id is missing");

    for (int type = 1; type < LW_N_MSG_TYPES; type++) {
        int n;

        fill_msg(&m, (lw_msg_type)type, true, &arena);
        n = fill_count(&m);
        for (int f = 0; f < LW_N_FIELDS && n > 0; f++) {
            uint64_t bit = UINT64_C(1) << (f % 64);

            if (!(m.has[f / 64] & bit))
                continue;
            m.has[f / 64] &= ~bit;
            assert_int_equal(lw_msg_encode(&m, &p, &err), LW_E_INVALID);
            assert_contains(err.text, "is missing");
            m.has[f / 64] |= bit;
        }
    }

    /* The receiver checks too, not only the sender. */
    assert_int_equal(finish(begin("error", 2), &m, &err), LW_E_INVALID);
    assert_string_equal(err.text, "error: code is missing");
}

static void the_layout_names_a_field_once(void **state)
{
    static const struct {
        int type, field;
    } rows[] = {
#define ROW(type, need, m) { LW_MSG_##type, LW_F_##m },
        LW_MSG_LAYOUT(ROW)
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(rows); i++)
        for (size_t j = 0; j < i; j++)
            if (rows[i].type == rows[j].type && rows[i].field == rows[j].field)
                fail_msg("row %zu repeats row %zu", i, j);
}

/* ---- kinds and limits ---- */

typedef void value_fn(writer *w);

static void v_minus(writer *w)
{
    msgpack_pack_int(&w->pk, -1);
}
static void v_half(writer *w)
{
    msgpack_pack_double(&w->pk, 0.5);
}
static void v_true(writer *w)
{
    msgpack_pack_true(&w->pk);
}
static void v_big(writer *w)
{
    msgpack_pack_uint64(&w->pk, 65537);
}
static void v_nan(writer *w)
{
    msgpack_pack_double(&w->pk, NAN);
}
static void v_inf(writer *w)
{
    msgpack_pack_double(&w->pk, INFINITY);
}
static void v_1e9(writer *w)
{
    msgpack_pack_double(&w->pk, 1e9);
}
static void v_text(writer *w)
{
    str(w, "text");
}
static void v_nul(writer *w)
{
    msgpack_pack_str(&w->pk, 3);
    msgpack_pack_str_body(&w->pk, "a\0b", 3);
}
static void v_long(writer *w)
{
    char s[300];

    memset(s, 'x', sizeof(s));
    msgpack_pack_str(&w->pk, sizeof(s));
    msgpack_pack_str_body(&w->pk, s, sizeof(s));
}
static void v_bin15(writer *w)
{
    msgpack_pack_bin(&w->pk, 15);
    msgpack_pack_bin_body(&w->pk, "0123456789abcde", 15);
}
static void v_array(writer *w)
{
    msgpack_pack_array(&w->pk, 2);
    msgpack_pack_int(&w->pk, 1);
    str(w, "two");
}
static void v_258(writer *w)
{
    msgpack_pack_array(&w->pk, 258);
    for (int i = 0; i < 258; i++)
        msgpack_pack_int(&w->pk, 0);
}
static void v_nan_array(writer *w)
{
    msgpack_pack_array(&w->pk, 1);
    v_nan(w);
}
static void v_deep(writer *w)
{
    msgpack_pack_map(&w->pk, 1);
    str(w, "dim");
    v_text(w);
}
static void v_stage(writer *w)
{
    msgpack_pack_map(&w->pk, 1);
    str(w, "decode");
    v_half(w);
}

static void kinds_and_limits_are_checked(void **state)
{
    static const struct {
        const char *key;
        value_fn *value;
        lw_status expected;
        const char *text;
    } cases[] = {
        { "width", v_minus, LW_E_INVALID, "progress: width is -1, must not be negative" },
        { "width", v_half, LW_E_FORMAT, "progress: width is a float, expected an integer" },
        { "width", v_true, LW_E_FORMAT, "a bool" },
        { "width", v_big, LW_E_INVALID, "width is 65537, the limit is 65536" },
        { "layer", v_big, LW_E_INVALID, "layer is outside -1024..1024" },
        { "layer", v_half, LW_E_FORMAT, "an integer" },
        { "sigma", v_nan, LW_E_INVALID, "must be finite" },
        { "sigma", v_inf, LW_E_INVALID, "must be finite" },
        { "sigma", v_1e9, LW_E_INVALID, "within 1e+06" },
        { "sigma", v_text, LW_E_FORMAT, "a number" },
        { "raw", v_big, LW_E_FORMAT, "a bool" },
        { "worker", v_half, LW_E_FORMAT, "a string" },
        { "worker", v_long, LW_E_TOO_LARGE, "worker has 300 bytes, the limit is 64" },
        { "worker", v_nul, LW_E_FORMAT, "NUL" },
        { "in_flight", v_bin15, LW_E_FORMAT, "16 bytes" },
        { "in_flight", v_text, LW_E_FORMAT, "16 bytes" },
        { "sigmas", v_text, LW_E_FORMAT, "an array of numbers" },
        { "sigmas", v_array, LW_E_INVALID, "sigmas[1]" },
        { "sigmas", v_nan_array, LW_E_INVALID, "sigmas[0]" },
        { "sigmas", v_258, LW_E_TOO_LARGE, "258" },
        { "op", v_text, LW_E_INVALID, "op \"text\" is not known" },
        { "op", v_big, LW_E_FORMAT, "a name" },
        { "role", v_text, LW_E_INVALID, "role" },
        { "from", v_text, LW_E_INVALID, "from" },
        { "contract", v_text, LW_E_FORMAT, "a map" },
        { "contract", v_deep, LW_E_FORMAT, "contract: dim is a string" },
        { "stages", v_big, LW_E_FORMAT, "a map" },
        { "stages", v_stage, LW_E_FORMAT, "decode: stage" },
        { "tensors", v_text, LW_E_FORMAT, "tensors is a string, expected a map" },
        { "code", v_text, LW_OK, "" }, /* a code of the future is an error all the same */
        { "layer", v_minus, LW_OK, "" },
        { "sigma", v_half, LW_OK, "" },
    };
    lw_msg m;
    lw_err err;

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        writer *w = begin("progress", 4);

        id(w);
        str(w, cases[i].key);
        cases[i].value(w);
        if (finish(w, &m, &err) != cases[i].expected)
            fail_msg("%s: %s", cases[i].key, err.text);
        assert_contains(err.text, cases[i].text);
    }
    assert_int_equal(lw_status_from_name("text", 4), LW_E_INTERNAL);
}

static void a_sender_is_held_to_the_limits(void **state)
{
    static char long_prompt[32770];
    const double bad[] = { NAN };
    const uint8_t key[16] = { 0 };
    lw_packet p;
    lw_msg m;
    lw_err err = { 0 };

    (void)state;
#define REFUSED(m_type, member, value, expected)                                                   \
    do {                                                                                           \
        fill_msg(&m, LW_MSG_##m_type, true, &arena);                                               \
        lw_msg_set(&m, member, value);                                                             \
        assert_int_equal(lw_msg_encode(&m, &p, &err), expected);                                   \
        assert_contains(err.text, #member);                                                        \
    } while (0)
    memset(long_prompt, 'x', sizeof(long_prompt) - 1);
    REFUSED(TASK, width, 65537, LW_E_INVALID);
    REFUSED(TASK, layer, -1025, LW_E_INVALID);
    REFUSED(TASK, guidance, NAN, LW_E_INVALID);
    REFUSED(TASK, guidance, 1001, LW_E_INVALID);
    REFUSED(TASK, prompt, long_prompt, LW_E_TOO_LARGE);
    REFUSED(TASK, prompt, "\xff", LW_E_INVALID);
    REFUSED(TASK, prompt, NULL, LW_E_INVALID);
    REFUSED(TASK, op, LW_OP_NONE, LW_E_INVALID);
    REFUSED(TASK, op, (lw_op)99, LW_E_INVALID);
    REFUSED(TASK, sigmas, ((lw_f64s){ bad, 1 }), LW_E_INVALID);
    REFUSED(TASK, sigmas, ((lw_f64s){ bad, 258 }), LW_E_TOO_LARGE);

    /* Two fields within their limits, but a header above its own. */
    long_prompt[32768] = '\0';
    fill_msg(&m, LW_MSG_TASK, true, &arena);
    lw_msg_set(&m, prompt, long_prompt);
    lw_msg_set(&m, negative_prompt, long_prompt);
    assert_int_equal(lw_msg_encode(&m, &p, &err), LW_E_TOO_LARGE);
    assert_contains(err.text, "header");

    lw_msg_init(&m, LW_MSG_NONE, key);
    assert_int_equal(lw_msg_encode(&m, &p, &err), LW_E_INVALID);
}

/* An error about unprintable bytes must still arrive. */
static void error_texts_are_made_presentable(void **state)
{
    lw_err sent = { 0 }, err = { 0 };
    lw_packet p;
    lw_msg m, r;

    (void)state;
    lw_fail(&sent, LW_E_NOT_FOUND, "caf\xe9/na\xc3\xafve: no such file");
    lw_msg_error(&m, NULL, &sent);
    assert_ok(lw_msg_encode(&m, &p, &err), &err);
    assert_ok(lw_msg_decode(&p, &arena, &r, &err), &err);
    assert_string_equal(r.message, "caf?/na\xc3\xafve: no such file");
    assert_int_equal(r.code, LW_E_NOT_FOUND);
    assert_false(r.retryable);
    assert_false(r.has_id);
    lw_packet_clear(&p);
}

/* ---- tensors ---- */

static void dtypes_and_both_homes_round_trip(void **state)
{
    (void)state;
    for (int d = 1; d < LW_N_DTYPES; d++) {
        lw_tensor t = fill_tensor((lw_dtype)d);
        lw_frame *f = lw_frame_copy(t.data, lw_tensor_bytes(&t));
        lw_err err = { 0 };
        lw_packet p;
        lw_msg m, r;

        fill_msg(&m, LW_MSG_RESULT, true, &arena);
        assert_ok(lw_msg_tensor_add(&m, "inside", &t, NULL, &err), &err);
        assert_ok(lw_msg_tensor_add(&m, "outside", &t, f, &err), &err);
        assert_ok(lw_msg_encode(&m, &p, &err), &err);
        lw_frame_unref(&f);
        assert_int_equal(p.n_frames, 2);
        assert_ok(lw_msg_decode(&p, &arena, &r, &err), &err);
        assert_int_equal(r.n_tensors, 2);
        for (int i = 0; i < 2; i++) {
            const lw_msg_tensor *mt = lw_msg_tensor_find(&r, i ? "outside" : "inside");
            lw_tensor copy;

            assert_non_null(mt);
            assert_true(i ? mt->frame == p.frames[1] : mt->frame == NULL);
            assert_int_equal(mt->t.dtype, d);
            assert_int_equal(mt->t.rank, 2);
            assert_int_equal(mt->t.shape[0], 2);
            assert_int_equal(mt->t.shape[1], 3);
            assert_memory_equal(mt->t.data, t.data, lw_tensor_bytes(&t));
            assert_ok(lw_msg_tensor_copy(mt, &arena, true, &copy, &err), &err);
            assert_true((uintptr_t)copy.data % 64 == 0);
            if (lw_dtype_is_float((lw_dtype)d))
                assert_true(copy.dtype == LW_F32 && lw_f32(&copy)[5] == 6);
            else
                assert_memory_equal(copy.data, t.data, lw_tensor_bytes(&t));
        }
        assert_null(lw_msg_tensor_find(&r, "other"));
        check_round_trip(&r);
        lw_packet_clear(&p);
    }
}

/* The bytes that docs/protocol.md shows. */
static void the_documented_bytes(void **state)
{
    static const uint8_t inline_triple[] = { 0xa1, 'x',  0x93, 0xa8, 'b',  'f',  'l',  'o',
                                             'a',  't',  '1',  '6',  0x92, 0x02, 0x03, 0xc7,
                                             0x0c, 0x03, 0x80, 0x3f, 0x00, 0x40, 0x40, 0x40,
                                             0x80, 0x40, 0xa0, 0x40, 0xc0, 0x40 };
    static const uint8_t outside_triple[] = { 0xa1, 'x', 0x93, 0xa8, 'b',  'f',  'l',  'o',
                                              'a',  't', '1',  '6',  0x92, 0x02, 0x03, 0x01 };
    lw_tensor t = fill_tensor(LW_BF16);
    lw_frame *f = lw_frame_copy(t.data, 12);
    lw_err err = { 0 };
    lw_packet p;
    lw_msg m;

    (void)state;
    fill_msg(&m, LW_MSG_RESULT, true, &arena);
    assert_ok(lw_msg_tensor_add(&m, "x", &t, NULL, &err), &err);
    assert_ok(lw_msg_encode(&m, &p, &err), &err);
    assert_non_null(memmem(lw_frame_data(p.frames[0]), lw_frame_size(p.frames[0]), inline_triple,
                           sizeof(inline_triple)));
    lw_packet_clear(&p);
    m.tensors[0].frame = f;
    assert_ok(lw_msg_encode(&m, &p, &err), &err);
    assert_non_null(memmem(lw_frame_data(p.frames[0]), lw_frame_size(p.frames[0]), outside_triple,
                           sizeof(outside_triple)));
    assert_memory_equal(lw_frame_data(p.frames[1]), inline_triple + 18, 12);
    lw_packet_clear(&p);
    lw_frame_unref(&f);
}

static void large_tensors_get_a_frame(void **state)
{
    float v[64] = { 0 };
    lw_tensor small = lw_tensor_1d(v, LW_F32, 63), large = lw_tensor_1d(v, LW_F32, 64);
    int64_t scalar_shape[1] = { 0 };
    lw_tensor scalar = lw_tensor_nd(v, LW_F32, 0, scalar_shape),
              none = lw_tensor_2d(v, LW_F32, 0, 9);
    lw_err err = { 0 };
    lw_packet p;
    lw_msg m, r;

    (void)state;
    v[63] = 5;
    fill_msg(&m, LW_MSG_RESULT, true, &arena);
    assert_ok(lw_msg_tensor_add(&m, "small", &small, NULL, &err), &err);
    assert_ok(lw_msg_tensor_add(&m, "large", &large, NULL, &err), &err);
    assert_ok(lw_msg_tensor_add(&m, "scalar", &scalar, NULL, &err), &err);
    assert_ok(lw_msg_tensor_add(&m, "none", &none, NULL, &err), &err);
    assert_ok(lw_msg_encode(&m, &p, &err), &err);
    assert_int_equal(p.n_frames, 2);
    assert_int_equal(lw_frame_size(p.frames[1]), 256);
    assert_ok(lw_msg_decode(&p, &arena, &r, &err), &err);
    assert_int_equal(lw_msg_tensor_find(&r, "scalar")->t.rank, 0);
    assert_int_equal(lw_tensor_count(&lw_msg_tensor_find(&r, "none")->t), 0);
    check_round_trip(&r);
    lw_packet_clear(&p);
}

/* One tensor "x" as given, and the frames. */
typedef struct triple {
    const char *dtype;
    int64_t dims[10];
    int n_dims;
    int ref; /* frame; 0 = inline */
    int n_frames;
    size_t frame_bytes;
} triple;

static lw_status decode_triple(const triple *c, lw_err *err)
{
    static const uint8_t zeros[4096];
    writer *w = begin("bye", 3);
    lw_msg m;

    str(w, "tensors");
    msgpack_pack_map(&w->pk, 1);
    str(w, "x");
    msgpack_pack_array(&w->pk, 3);
    str(w, c->dtype);
    msgpack_pack_array(&w->pk, (size_t)c->n_dims);
    for (int i = 0; i < c->n_dims; i++)
        msgpack_pack_int64(&w->pk, c->dims[i]);
    if (c->ref) {
        msgpack_pack_int(&w->pk, c->ref);
    } else {
        msgpack_pack_ext(&w->pk, c->frame_bytes, LW_EXT_TENSOR);
        msgpack_pack_ext_body(&w->pk, zeros, c->frame_bytes);
    }
    for (int i = 0; i < c->n_frames; i++)
        frame(w, zeros, c->frame_bytes);
    return finish(w, &m, err);
}

static void lying_tensors_are_refused(void **state)
{
    static const struct {
        triple t;
        lw_status expected;
        const char *text;
    } cases[] = {
        { { "float32", { 2, 3 }, 2, 1, 1, 24 }, LW_OK, "" },
        { { "float32", { 2, 3 }, 2, 0, 0, 24 }, LW_OK, "" },
        { { "float32", { 20, 20 }, 2, 0, 0, 1600 }, LW_OK, "" }, /* inline at any size */
        { { "float32", { 0 }, 1, 1, 1, 0 }, LW_OK, "" },
        { { "float32", { 2, 3 }, 2, 1, 1, 23 }, LW_E_SHAPE, "x has 23 bytes" },
        { { "float32", { 2, 3 }, 2, 1, 1, 25 }, LW_E_SHAPE, "need 24" },
        { { "float32", { 2, 3 }, 2, 0, 0, 12 }, LW_E_SHAPE, "need 24" },
        { { "float32", { 2, 3 }, 2, 2, 1, 24 }, LW_E_FORMAT, "frame 2 does not exist" },
        { { "float32", { 2, 3 }, 2, -1, 1, 24 }, LW_E_FORMAT, "frame index" },
        { { "float32", { 2, 3 }, 2, 1, 2, 24 }, LW_E_FORMAT, "frame 2 belongs to no tensor" },
        { { "float64", { 2, 3 }, 2, 1, 1, 48 }, LW_E_INVALID, "dtype \"float64\"" },
        { { "object", { 1 }, 1, 1, 1, 8 }, LW_E_INVALID, "dtype" },
        { { "float32", { -1 }, 1, 1, 1, 4 }, LW_E_SHAPE, "axis 0" },
        { { "float32", { 1, 1, 1, 1, 1, 1, 1, 1 }, 8, 1, 1, 4 }, LW_OK, "" },
        { { "float32", { 1, 1, 1, 1, 1, 1, 1, 1, 1 }, 9, 1, 1, 4 }, LW_E_SHAPE, "9 axes" },
        /* 4 GiB x 4 GiB x 4 bytes wraps to 0 in 64 bits */
        { { "float32", { 4294967296, 4294967296 }, 2, 1, 1, 0 }, LW_E_SHAPE, "x" },
        { { "float32", { INT64_MAX, 2 }, 2, 1, 1, 8 }, LW_E_SHAPE, "x" },
        { { "int8", { INT64_MAX }, 1, 1, 1, 8 }, LW_E_SHAPE, "x" },
    };
    lw_err err;

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        if (decode_triple(&cases[i].t, &err) != cases[i].expected)
            fail_msg("case %zu: %s: \"%s\"", i, lw_status_name(err.code), err.text);
        assert_contains(err.text, cases[i].text);
    }
}

static void a_frame_is_used_once(void **state)
{
    writer *w = begin("bye", 3);
    lw_msg m;
    lw_err err;

    (void)state;
    str(w, "tensors");
    msgpack_pack_map(&w->pk, 2);
    for (int i = 0; i < 2; i++) {
        str(w, i ? "b" : "a");
        msgpack_pack_array(&w->pk, 3);
        str(w, "int8");
        msgpack_pack_array(&w->pk, 1);
        msgpack_pack_int(&w->pk, 4);
        msgpack_pack_int(&w->pk, 1);
    }
    frame(w, "1234", 4);
    assert_int_equal(finish(w, &m, &err), LW_E_FORMAT);
    assert_contains(err.text, "frame 1 is used twice");
}

static void malformed_triples_are_refused(void **state)
{
    lw_msg m;
    lw_err err;

    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        writer *w = begin("bye", 3);

        str(w, "tensors");
        msgpack_pack_map(&w->pk, 1);
        str(w, kind == 0 ? "" : kind == 1 ? "a b" : "x");
        msgpack_pack_array(&w->pk, kind == 2 ? 2 : 3);
        if (kind == 3)
            msgpack_pack_int(&w->pk, 1);
        else
            str(w, "int8");
        if (kind == 4)
            str(w, "shape");
        else
            msgpack_pack_array(&w->pk, 0);
        if (kind == 5) {
            msgpack_pack_ext(&w->pk, 1, 32); /* a kind of reference that was not agreed on */
            msgpack_pack_ext_body(&w->pk, "1", 1);
        } else if (kind != 2) {
            msgpack_pack_ext(&w->pk, 1, LW_EXT_TENSOR);
            msgpack_pack_ext_body(&w->pk, "1", 1);
        }
        assert_int_equal(finish(w, &m, &err), kind < 2 ? LW_E_INVALID : LW_E_FORMAT);
    }
}

static void too_many_tensors(void **state)
{
    uint8_t v[1] = { 0 };
    lw_tensor t = lw_tensor_1d(v, LW_U8, 1);
    lw_err err = { 0 };
    lw_msg m;
    char name[LW_MAX_TENSOR_NAME + 1];
    writer *w = begin("bye", 3);

    (void)state;
    fill_msg(&m, LW_MSG_RESULT, true, &arena);
    for (int i = 0; i < LW_MAX_TENSORS; i++) {
        snprintf(name, sizeof(name), "t%d", i);
        assert_ok(lw_msg_tensor_add(&m, name, &t, NULL, &err), &err);
    }
    assert_int_equal(lw_msg_tensor_add(&m, "more", &t, NULL, &err), LW_E_TOO_LARGE);
    m.n_tensors = 1;
    assert_int_equal(lw_msg_tensor_add(&m, "t0", &t, NULL, &err), LW_E_INVALID);
    assert_int_equal(lw_msg_tensor_add(&m, "", &t, NULL, &err), LW_E_INVALID);
    assert_int_equal(lw_msg_tensor_add(&m, "a/b", &t, NULL, &err), LW_E_INVALID);
    memset(name, 'n', sizeof(name) - 1);
    name[LW_MAX_TENSOR_NAME] = '\0';
    assert_int_equal(lw_msg_tensor_add(&m, name, &t, NULL, &err), LW_E_INVALID);

    str(w, "tensors");
    msgpack_pack_map(&w->pk, LW_MAX_TENSORS + 1);
    for (int i = 0; i <= LW_MAX_TENSORS; i++) {
        snprintf(name, sizeof(name), "t%d", i);
        str(w, name);
        msgpack_pack_array(&w->pk, 3);
        str(w, "int8");
        msgpack_pack_array(&w->pk, 0);
        msgpack_pack_ext(&w->pk, 1, LW_EXT_TENSOR);
        msgpack_pack_ext_body(&w->pk, "1", 1);
    }
    assert_int_equal(finish(w, &m, &err), LW_E_TOO_LARGE);
}

static void what_cannot_be_sent_is_said(void **state)
{
    float v[12];
    lw_tensor whole = lw_tensor_2d(v, LW_F32, 3, 4), column = lw_tensor_cols(&whole, 1, 2);
    lw_frame *f = lw_frame_copy(v, 8);
    lw_err err = { 0 };
    lw_packet p;
    lw_msg m;

    (void)state;
    fill_msg(&m, LW_MSG_RESULT, true, &arena);
    assert_ok(lw_msg_tensor_add(&m, "x", &column, NULL, &err), &err);
    assert_int_equal(lw_msg_encode(&m, &p, &err), LW_E_SHAPE);
    m.tensors[0].t = whole;
    m.tensors[0].frame = f;
    assert_int_equal(lw_msg_encode(&m, &p, &err), LW_E_SHAPE);
    assert_contains(err.text, "its frame has another size");
    m.tensors[0].frame = NULL;
    m.tensors[0].t.shape[0] = m.tensors[0].t.shape[1] = 65536;
    assert_int_not_equal(lw_msg_encode(&m, &p, &err), LW_OK);
    lw_frame_unref(&f);
}

/* ---- names ---- */

static void names_go_both_ways(void **state)
{
    (void)state;
#define BOTH(kind, count)                                                                          \
    for (int i = 1; i < count; i++) {                                                              \
        const char *s = kind##_name((kind)i);                                                      \
        assert_int_equal(kind##_from_name(s, strlen(s)), i);                                       \
        assert_int_equal(kind##_from_name(s, strlen(s) - 1), 0);                                   \
    }                                                                                              \
    assert_string_equal(kind##_name((kind)0), "?");                                                \
    assert_string_equal(kind##_name((kind)count), "?");                                            \
    assert_int_equal(kind##_from_name("?", 1), 0)
    BOTH(lw_msg_type, LW_N_MSG_TYPES);
    BOTH(lw_role, LW_N_ROLES);
    BOTH(lw_op, LW_N_OPS);
    BOTH(lw_artefact, LW_N_ARTEFACTS);
    assert_int_equal(lw_op_role(LW_OP_ENCODE), LW_ROLE_ENCODER);
    assert_int_equal(lw_op_role(LW_OP_DENOISE), LW_ROLE_DENOISER);
    assert_int_equal(lw_op_role(LW_OP_DECODE), LW_ROLE_DECODER);
    assert_int_equal(lw_op_role(LW_OP_ENCODE_IMAGE), LW_ROLE_DECODER);
    assert_int_equal(lw_op_role(LW_OP_NONE), LW_ROLE_NONE);
}

/* ---- frames ---- */

static int freed;

static void count_free(void *data, void *hint)
{
    (void)data;
    *(int *)hint += 1;
}

static void frames_are_freed_once(void **state)
{
    static char memory[100];
    lw_frame *f = lw_frame_wrap(memory, sizeof(memory), count_free, &freed), *g;

    (void)state;
    assert_non_null(f);
    assert_ptr_equal(lw_frame_data(f), memory);
    assert_int_equal(lw_frame_size(f), sizeof(memory));
    g = lw_frame_ref(f);
    lw_frame_unref(&f);
    assert_null(f);
    assert_int_equal(freed, 0);
    lw_frame_unref(&g);
    assert_int_equal(freed, 1);
    lw_frame_unref(&g); /* NULL is fine */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(every_type_round_trips),
        T(values_survive),
        T(any_order_any_integer_form_nil_and_unknown_keys),
        T(float32_is_a_float),
        T(version_and_type_are_needed),
        T(type_and_id_are_known_after_a_failure),
        T(required_fields_are_required),
        T(the_layout_names_a_field_once),
        T(kinds_and_limits_are_checked),
        T(a_sender_is_held_to_the_limits),
        T(error_texts_are_made_presentable),
        T(dtypes_and_both_homes_round_trip),
        T(the_documented_bytes),
        T(large_tensors_get_a_frame),
        T(lying_tensors_are_refused),
        T(a_frame_is_used_once),
        T(malformed_triples_are_refused),
        T(too_many_tensors),
        T(what_cannot_be_sent_is_said),
        T(names_go_both_ways),
        T(frames_are_freed_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
