/*
 * The decoder service without sockets: requests in, results out, as the hub would see them.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/png.h"
#include "proto/packet.h"
#include "tests/golden/vae/fixture.h"
#include "vae-svc/service.h"

static json_t *vectors;
static lw_st_file *expected;

static int set_up(void **state)
{
    lw_err err = { 0 };

    (void)state;
    vectors = vt_load_json(vt_data("vae/cases.json"));
    vt_ok(lw_st_open(vt_data("vae/vectors.safetensors"), &expected, &err), &err);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    json_decref(vectors);
    lw_st_close(&expected);
    return 0;
}

static const lw_tensor *stored(const lw_st_file *f, const char *name)
{
    const lw_st_entry *e = lw_st_find(f, name);

    if (e == NULL)
        fail_msg("no tensor '%s'", name);
    return &e->t;
}

static const json_t *case_named(const char *name)
{
    json_t *cases = json_object_get(vectors, "cases"), *c;
    size_t i;

    json_array_foreach(cases, i, c)
    {
        if (strcmp(json_string_value(json_object_get(c, "name")), name) == 0)
            return c;
    }
    fail_msg("no case '%s'", name);
    return NULL;
}

static const json_t *case_at(size_t i)
{
    return json_array_get(json_object_get(vectors, "cases"), i);
}

static lw_tensor case_latents(const json_t *c, lw_arena *a)
{
    const json_t *in = json_object_get(c, "latents");
    int64_t shape[4];

    vt_ints(in, "shape", shape, 4);
    return vt_values(a, 4, shape, (uint64_t)vt_int(in, "tag"), 4);
}

static lw_tensor case_image(const json_t *c, lw_arena *a)
{
    const json_t *in = json_object_get(c, "image");
    int64_t shape[4];

    vt_ints(in, "shape", shape, 4);
    return vt_picture(a, shape, (uint64_t)vt_int(in, "tag"));
}

/** Pictures [begin, begin + n). */
static lw_tensor pictures(const lw_tensor *t, int64_t begin, int64_t n)
{
    lw_tensor r = *t;
    size_t one = lw_tensor_bytes(t) / (size_t)t->shape[0];

    r.data = (char *)t->data + (size_t)begin * one;
    r.shape[0] = n;
    return r;
}

/* ---- a service under test -------------------------------------------------------------------- */

typedef struct peer {
    void *self;
    lw_arena arena; /* of the last request */
    lw_msg request, result;
} peer;

static void start_at(peer *p, const char *path, int64_t memory_mb, int64_t threads)
{
    lw_service_config c = { .model = path,
                            .device = "cpu",
                            .weights = "auto",
                            .threads = threads,
                            .memory_mb = memory_mb };
    lw_err err = { 0 };

    *p = (peer){ 0 };
    lw_arena_init(&p->arena, "request", 0);
    vt_ok(lw_vae_service.load(&c, &p->self, &err), &err);
}

static void start(peer *p, const json_t *spec)
{
    const char *dir = vt_new_dir();

    vt_write_model(spec, dir, &(vt_model){ 0 });
    start_at(p, dir, 0, 1);
}

static void stop(peer *p)
{
    lw_vae_service.unload(p->self);
    lw_arena_deinit(&p->arena);
}

static void ask(peer *p, lw_op op)
{
    static const uint8_t id[16] = { 1 };

    lw_msg_init(&p->request, LW_MSG_TASK, id);
    lw_msg_set(&p->request, op, op);
}

static void with_tensor(peer *p, const char *name, const lw_tensor *t)
{
    lw_err err = { 0 };

    vt_ok(lw_msg_tensor_add(&p->request, name, t, NULL, &err), &err);
}

static lw_status call(peer *p, lw_err *err)
{
    lw_arena_reset(&p->arena);
    lw_msg_init(&p->result, LW_MSG_RESULT, NULL);
    *err = (lw_err){ 0 };
    return lw_service_call(&lw_vae_service, p->self, &p->request, &p->arena, &p->result, err);
}

static lw_tensor answer(peer *p, const char *name)
{
    lw_err err = { 0 };
    const lw_msg_tensor *t;

    vt_ok(call(p, &err), &err);
    t = lw_msg_tensor_find(&p->result, name);
    if (t == NULL)
        fail_msg("no tensor '%s' in the result", name);
    return t->t;
}

/** Bytes differ by at most one level, and few of them at all. */
static void check_pixels(const char *what, const lw_tensor *got, const uint8_t *want)
{
    int64_t n = lw_tensor_count(got), differ = 0;
    const uint8_t *g = got->data;

    for (int64_t i = 0; i < n; i++) {
        if (abs((int)g[i] - (int)want[i]) > 1)
            fail_msg("%s: byte %lld is %d, expected %d", what, (long long)i, g[i], want[i]);
        differ += g[i] != want[i];
    }
    print_message("%-24s %lld of %lld bytes differ\n", what, (long long)differ, (long long)n);
    /* Errors of 1e-5 of a level's range move a byte only when it lies that close to a tie. */
    if (differ * 1000 > n)
        fail_msg("%s: %lld of %lld bytes differ", what, (long long)differ, (long long)n);
}

/* ---- what it computes ------------------------------------------------------------------------ */

/** Case by case: all pictures at once, with the tiles that the case names. */
static void decodes_as_diffusers(void **state)
{
    (void)state;
    for (size_t i = 0; i < json_array_size(json_object_get(vectors, "cases")); i++) {
        const json_t *c = case_at(i);
        const char *name = json_string_value(json_object_get(c, "name"));
        int64_t sides[8] = { 0 };
        int n = 1 + vt_ints(c, "tiles", sides + 1, 7);
        peer p;
        lw_arena a;
        lw_tensor latents, image;

        start(&p, c);
        lw_arena_init(&a, "test", 0);
        latents = case_latents(c, &a);
        for (int s = 0; s < n; s++) {
            char what[64];

            ask(&p, LW_OP_DECODE);
            with_tensor(&p, LW_T_LATENTS, &latents);
            if (sides[s] > 0)
                lw_msg_set(&p.request, tile, (uint64_t)sides[s]);
            image = answer(&p, LW_T_IMAGE);
            assert_int_equal(image.dtype, LW_U8);
            assert_int_equal(image.rank, 4);
            assert_int_equal(lw_msg_get(&p.result, tile, 0), sides[s]);
            if (sides[s] > 0)
                snprintf(what, sizeof(what), "%s.tile%d.rgb", name, (int)sides[s]);
            else
                snprintf(what, sizeof(what), "%s.rgb", name);
            assert_memory_equal(image.shape, stored(expected, what)->shape, 4 * sizeof(int64_t));
            check_pixels(what, &image, stored(expected, what)->data);
        }
        stop(&p);
        lw_arena_deinit(&a);
    }
}

static void encodes_as_diffusers(void **state)
{
    (void)state;
    for (size_t i = 0; i < json_array_size(json_object_get(vectors, "cases")); i++) {
        const json_t *c = case_at(i);
        const char *name = json_string_value(json_object_get(c, "name"));
        int64_t sides[8] = { 0 };
        int n = 1 + vt_ints(c, "tiles", sides + 1, 7);
        peer p;
        lw_arena a;
        lw_tensor image, latents;

        start(&p, c);
        lw_arena_init(&a, "test", 0);
        image = case_image(c, &a);
        for (int s = 0; s < 2 * n; s++) {
            bool sampled = s % 2 != 0;
            int64_t side = sides[s / 2];
            char what[64], tag[16] = "";

            ask(&p, LW_OP_ENCODE_IMAGE);
            with_tensor(&p, LW_T_IMAGE, &image);
            if (side > 0) {
                lw_msg_set(&p.request, tile, (uint64_t)side);
                snprintf(tag, sizeof(tag), "tile%d.", (int)side);
            }
            if (sampled)
                lw_msg_set(&p.request, seed, (uint64_t)vt_int(c, "seed"));
            latents = answer(&p, LW_T_LATENTS);
            snprintf(what, sizeof(what), "%s.%s%s", name, tag, sampled ? "sampled" : "mode");
            assert_int_equal(latents.dtype, LW_F32);
            assert_memory_equal(latents.shape, stored(expected, what)->shape, 4 * sizeof(int64_t));
            vt_check(what, lw_f32(&latents), stored(expected, what)->data,
                     lw_tensor_count(&latents), VT_BOUND);
        }
        stop(&p);
        lw_arena_deinit(&a);
    }
}

/** Final latents of whole pipelines become the pictures that diffusers wrote. */
static void finishes_pipelines(void **state)
{
    static const char *const cases[] = { "a", "b" };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        char path[128];
        lw_st_file *f = NULL;
        lw_err err = { 0 };
        peer p;
        lw_tensor image;
        uint8_t *rgb;
        int w, h;
        lw_arena a;

        lw_arena_init(&a, "test", 0);
        snprintf(path, sizeof(path), "spec/pipeline_tiny/%s/tensors.safetensors", cases[i]);
        vt_ok(lw_st_open(vt_data(path), &f, &err), &err);
        snprintf(path, sizeof(path), "spec/pipeline_tiny/%s/expected.png", cases[i]);
        vt_ok(lw_png_read(vt_data(path), &a, &rgb, &w, &h, &err), &err);
        start_at(&p, vt_data("spec/pipeline_tiny/model"), 0, 2);
        ask(&p, LW_OP_DECODE);
        with_tensor(&p, LW_T_LATENTS, stored(f, "final_latents"));
        image = answer(&p, LW_T_IMAGE);
        assert_int_equal(image.shape[1], h);
        assert_int_equal(image.shape[2], w);
        check_pixels(cases[i], &image, rgb);
        stop(&p);
        lw_st_close(&f);
        lw_arena_deinit(&a);
    }
}

/** A picture is the same bytes alone, in a batch, and with more threads. */
static void batch_and_threads_do_not_matter(void **state)
{
    const json_t *c = case_named("flux");
    const char *dir = vt_new_dir();
    peer one, three;
    lw_arena a;
    lw_tensor latents, both, alone, single;

    (void)state;
    vt_write_model(c, dir, &(vt_model){ 0 });
    start_at(&one, dir, 0, 1);
    start_at(&three, dir, 0, 3);
    lw_arena_init(&a, "test", 0);
    latents = case_latents(c, &a);
    ask(&one, LW_OP_DECODE);
    with_tensor(&one, LW_T_LATENTS, &latents);
    both = answer(&one, LW_T_IMAGE);
    for (int64_t i = 0; i < 2; i++) {
        single = pictures(&latents, i, 1);
        ask(&three, LW_OP_DECODE);
        with_tensor(&three, LW_T_LATENTS, &single);
        alone = answer(&three, LW_T_IMAGE);
        single = pictures(&both, i, 1);
        assert_memory_equal(alone.data, single.data, lw_tensor_bytes(&alone));
    }
    stop(&one);
    stop(&three);
    lw_arena_deinit(&a);
}

/** Latents of other float types, and at odd addresses, as they come off the wire. */
static void takes_any_float(void **state)
{
    static const lw_dtype types[] = { LW_F32, LW_F16, LW_BF16, LW_F8_E5M2, LW_F8_E4M3 };
    peer p;
    lw_arena a;
    lw_tensor latents;

    (void)state;
    start(&p, case_named("odd"));
    lw_arena_init(&a, "test", 0);
    latents = case_latents(case_named("odd"), &a);
    for (size_t i = 0; i < LW_ARRAY_LEN(types); i++) {
        size_t n = (size_t)lw_tensor_count(&latents), bytes = n * lw_dtype_size(types[i]);
        char *odd = malloc(bytes + 1);
        lw_tensor given = latents, wide = latents, image;
        lw_err err = { 0 };
        uint8_t *want;

        assert_non_null(odd);
        given.data = odd + 1;
        given.dtype = types[i];
        assert_true(lw_dtype_convert(given.data, types[i], latents.data, LW_F32, n));
        vt_ok(lw_tensor_alloc(&a, LW_F32, 4, latents.shape, &wide, &err), &err);
        assert_true(lw_dtype_convert(wide.data, LW_F32, given.data, types[i], n));

        ask(&p, LW_OP_DECODE);
        with_tensor(&p, LW_T_LATENTS, &wide);
        image = answer(&p, LW_T_IMAGE);
        want = malloc(lw_tensor_bytes(&image));
        assert_non_null(want);
        memcpy(want, image.data, lw_tensor_bytes(&image));
        ask(&p, LW_OP_DECODE);
        with_tensor(&p, LW_T_LATENTS, &given);
        image = answer(&p, LW_T_IMAGE);
        assert_memory_equal(image.data, want, lw_tensor_bytes(&image));
        free(want);
        free(odd);
    }
    stop(&p);
    lw_arena_deinit(&a);
}

static void says_what_it_is(void **state)
{
    peer p;
    lw_contract c = { 0 };

    (void)state;
    start_at(&p, vt_data("spec/pipeline_tiny/model"), 0, 1);
    lw_vae_service.info(p.self, &c);
    assert_string_equal(c.model_id, "model");
    assert_int_equal(strlen(c.weights_digest), 64);
    assert_non_null(c.backend);
    assert_string_equal(c.precision, "f32");
    assert_int_equal(c.latent_channels, 16);
    assert_int_equal(c.downscale, 8);
    assert_true(c.scaling_factor == 0.52 && c.shift_factor == 0.07);
    assert_true(lw_contract_has(&c, shift_factor) && !lw_contract_has(&c, dim));
    stop(&p);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/** A service whose default tile is `sample_size` pixels, with a budget. */
static void start_small(peer *p, int64_t sample_size, int64_t memory_mb)
{
    const json_t *c = case_named("tiled");
    json_t *config = json_deep_copy(json_object_get(c, "config"));
    const char *dir = vt_new_dir();

    vt_write_model(c, dir, &(vt_model){ 0 });
    json_object_set_new(config, "sample_size", json_integer(sample_size));
    vt_write_config(dir, config);
    json_decref(config);
    start_at(p, dir, memory_mb, 1);
}

static void tiles_when_memory_is_short(void **state)
{
    peer roomy, tight;
    lw_arena a;
    lw_tensor latents, want, got;

    (void)state;
    lw_arena_init(&a, "test", 0);
    latents = vt_values(&a, 4, (int64_t[]){ 1, 4, 60, 40 }, 31, 4);

    /* Whole: three times 240 x 160 x 8 floats, and the rest. In tiles of 16: about 1 MiB. */
    start_small(&roomy, 64, 6);
    start_small(&tight, 64, 2);
    ask(&tight, LW_OP_DECODE);
    with_tensor(&tight, LW_T_LATENTS, &latents);
    got = answer(&tight, LW_T_IMAGE);
    assert_int_equal(lw_msg_get(&tight.result, tile, 0), 16);

    ask(&roomy, LW_OP_DECODE);
    with_tensor(&roomy, LW_T_LATENTS, &latents);
    want = answer(&roomy, LW_T_IMAGE);
    assert_false(lw_msg_has(&roomy.result, tile));
    assert_memory_not_equal(got.data, want.data, lw_tensor_bytes(&got));

    lw_msg_set(&roomy.request, tile, 16);
    want = answer(&roomy, LW_T_IMAGE);
    assert_memory_equal(got.data, want.data, lw_tensor_bytes(&got));

    /* A picture that is no larger than the tile asked for is done whole, as in diffusers. */
    lw_msg_set(&roomy.request, tile, 60);
    want = answer(&roomy, LW_T_IMAGE);
    assert_false(lw_msg_has(&roomy.result, tile));
    stop(&roomy);
    stop(&tight);
    lw_arena_deinit(&a);
}

static void refuses_what_does_not_fit(void **state)
{
    peer p;
    lw_arena a;
    lw_tensor latents;
    lw_err err = { 0 };
    const char *advice;
    int tile = 0;

    (void)state;
    lw_arena_init(&a, "test", 0);
    latents = vt_values(&a, 4, (int64_t[]){ 1, 4, 60, 40 }, 31, 4);

    /* The default tile is larger than the picture: no way out but another tile, which it names. */
    start_small(&p, 1024, 2);
    ask(&p, LW_OP_DECODE);
    with_tensor(&p, LW_T_LATENTS, &latents);
    vt_fails(call(&p, &err), LW_E_TOO_LARGE, "the budget of a request is 2.0 MiB", &err);
    print_message("%s\n", err.text);
    advice = strstr(err.text, "ask for tile ");
    assert_non_null(advice);
    assert_int_equal(sscanf(advice, "ask for tile %d", &tile), 1);
    lw_msg_set(&p.request, tile, (uint64_t)tile + 4);
    vt_fails(call(&p, &err), LW_E_TOO_LARGE, "in tiles of", &err);
    lw_msg_set(&p.request, tile, (uint64_t)tile);
    (void)answer(&p, LW_T_IMAGE);

    /* The picture alone is beyond the budget: there is no tile to advise. */
    latents = vt_values(&a, 4, (int64_t[]){ 1, 4, 200, 200 }, 31, 4);
    ask(&p, LW_OP_DECODE);
    with_tensor(&p, LW_T_LATENTS, &latents);
    vt_fails(call(&p, &err), LW_E_TOO_LARGE, "raise --memory-mb", &err);
    assert_null(strstr(err.text, "tile"));

    /* A result that no message can carry. */
    latents = vt_values(&a, 4, (int64_t[]){ 24, 4, 250, 250 }, 31, 4);
    ask(&p, LW_OP_DECODE);
    with_tensor(&p, LW_T_LATENTS, &latents);
    vt_fails(call(&p, &err), LW_E_TOO_LARGE, "a message carries at most", &err);
    stop(&p);
    lw_arena_deinit(&a);
}

/* ---- requests that make no sense ---------------------------------------------------------------
 */

static void refuses(peer *p, const char *name, lw_dtype dtype, int rank, const int64_t *shape,
                    lw_status want, const char *part)
{
    static char zeros[65536];
    lw_tensor t = { .data = zeros, .dtype = dtype, .rank = rank };
    lw_err err = { 0 };

    memcpy(t.shape, shape, (size_t)rank * sizeof(*shape));
    t.stride0 = 1;
    for (int i = 1; i < rank; i++)
        t.stride0 *= shape[i];
    ask(p, strcmp(name, LW_T_IMAGE) == 0 ? LW_OP_ENCODE_IMAGE : LW_OP_DECODE);
    with_tensor(p, name, &t);
    vt_fails(call(p, &err), want, part, &err);
    print_message("%s\n", err.text);
}

static void hostile_requests(void **state)
{
    peer p;
    lw_arena a;
    lw_tensor latents, good;
    lw_err err = { 0 };

    (void)state;
    start(&p, case_named("odd"));
    lw_arena_init(&a, "test", 0);
    refuses(&p, LW_T_LATENTS, LW_F32, 3, (int64_t[]){ 5, 4, 4 }, LW_E_SHAPE, "latents");
    refuses(&p, LW_T_LATENTS, LW_I32, 4, (int64_t[]){ 1, 5, 4, 4 }, LW_E_SHAPE, "int32");
    refuses(&p, LW_T_LATENTS, LW_F32, 4, (int64_t[]){ 1, 16, 4, 4 }, LW_E_SHAPE, "16 channels");
    refuses(&p, LW_T_LATENTS, LW_F32, 4, (int64_t[]){ 0, 5, 4, 4 }, LW_E_SHAPE, "0 pictures");
    refuses(&p, LW_T_LATENTS, LW_F32, 4, (int64_t[]){ 65, 5, 4, 4 }, LW_E_SHAPE, "65 pictures");
    refuses(&p, LW_T_LATENTS, LW_F32, 4, (int64_t[]){ 1, 5, 0, 4 }, LW_E_SHAPE, "latents: 4x0");
    refuses(&p, LW_T_LATENTS, LW_F32, 4, (int64_t[]){ 1, 5, 1, 40000 }, LW_E_SHAPE, "40000x1");
    refuses(&p, LW_T_IMAGE, LW_F32, 4, (int64_t[]){ 1, 4, 4, 3 }, LW_E_SHAPE, "uint8");
    refuses(&p, LW_T_IMAGE, LW_U8, 4, (int64_t[]){ 1, 4, 4, 4 }, LW_E_SHAPE, "4 channels");
    refuses(&p, LW_T_IMAGE, LW_U8, 4, (int64_t[]){ 1, 4, 5, 3 }, LW_E_SHAPE, "multiples of 2");
    refuses(&p, LW_T_IMAGE, LW_U8, 4, (int64_t[]){ 1, 0, 4, 3 }, LW_E_SHAPE, "multiples of 2");

    ask(&p, LW_OP_DECODE);
    vt_fails(call(&p, &err), LW_E_INVALID, "latents: the request has no tensor", &err);
    ask(&p, LW_OP_DENOISE);
    vt_fails(call(&p, &err), LW_E_UNIMPLEMENTED, "denoise", &err);

    good = case_latents(case_named("odd"), &a);
    ask(&p, LW_OP_DECODE);
    with_tensor(&p, LW_T_LATENTS, &good);
    lw_msg_set(&p.request, tile, 6);
    vt_fails(call(&p, &err), LW_E_INVALID, "multiple of 4", &err);

    latents = case_latents(case_named("odd"), &a);
    lw_f32(&latents)[7] = NAN;
    ask(&p, LW_OP_DECODE);
    with_tensor(&p, LW_T_LATENTS, &latents);
    vt_fails(call(&p, &err), LW_E_INVALID, "NaN", &err);
    lw_f32(&latents)[7] = 3e38f; /* finite, but not after the division */
    vt_fails(call(&p, &err), LW_E_INTERNAL, "NaN", &err);

    /* After all that, it still decodes. */
    ask(&p, LW_OP_DECODE);
    with_tensor(&p, LW_T_LATENTS, &good);
    latents = answer(&p, LW_T_IMAGE);
    check_pixels("after the refusals", &latents, stored(expected, "odd.rgb")->data);
    stop(&p);
    lw_arena_deinit(&a);
}

static void nan_in_the_weights(void **state)
{
    const json_t *c = case_named("odd");
    const char *dir = vt_new_dir();
    peer p;
    lw_arena a;
    lw_tensor latents;
    lw_err err = { 0 };

    (void)state;
    vt_write_model(c, dir, &(vt_model){ .spoil = "decoder.up_blocks.0.resnets.1.conv1.weight" });
    start_at(&p, dir, 0, 1);
    lw_arena_init(&a, "test", 0);
    latents = case_latents(c, &a);
    ask(&p, LW_OP_DECODE);
    with_tensor(&p, LW_T_LATENTS, &latents);
    vt_fails(call(&p, &err), LW_E_INTERNAL, "NaN", &err);
    stop(&p);
    lw_arena_deinit(&a);
}

static void bad_options(void **state)
{
    static const struct {
        lw_service_config c;
        lw_status want;
        const char *part;
    } starts[] = {
        { { .model = "" }, LW_E_INVALID, "--model" },
        { { .device = "cuda:0" }, LW_E_UNIMPLEMENTED, "cuda:0" },
        { { .weights = "int3" }, LW_E_INVALID, "int3" },
        { { .model = "/nonexistent/model" }, LW_E_NOT_FOUND, "/nonexistent/model" },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(starts); i++) {
        lw_service_config c = starts[i].c;
        void *self = NULL;
        lw_err err = { 0 };

        if (c.model == NULL)
            c.model = vt_data("spec/pipeline_tiny/model");
        vt_fails(lw_vae_service.load(&c, &self, &err), starts[i].want, starts[i].part, &err);
        assert_null(self);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_as_diffusers),
        cmocka_unit_test(encodes_as_diffusers),
        cmocka_unit_test(finishes_pipelines),
        cmocka_unit_test(batch_and_threads_do_not_matter),
        cmocka_unit_test(takes_any_float),
        cmocka_unit_test(says_what_it_is),
        cmocka_unit_test(tiles_when_memory_is_short),
        cmocka_unit_test(refuses_what_does_not_fit),
        cmocka_unit_test(hostile_requests),
        cmocka_unit_test(nan_in_the_weights),
        cmocka_unit_test(bad_options),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
