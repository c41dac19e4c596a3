/*
 * The autoencoder against diffusers' AutoencoderKL, on every back end of this build: whole, tiled,
 * in both layouts of tensor names, with any number of threads; and what it says to files that do
 * not fit.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/golden/vae/fixture.h"
#include "vae-svc/autoencoder.h"
#include "vae-svc/model.h"
#include "vae-svc/tiles.h"

static const char *const backends[] = { "ref", "onednn" };

static json_t *vectors; /* cases.json */
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

static const lw_tensor *vector(const char *name, const char *what)
{
    char full[128];
    const lw_st_entry *e;

    snprintf(full, sizeof(full), "%s.%s", name, what);
    e = lw_st_find(expected, full);
    if (e == NULL)
        fail_msg("no vector '%s'", full);
    return &e->t;
}

static lw_vae *open_model(const char *path, lw_kernels *k)
{
    lw_vae *v = NULL;
    lw_err err = { 0 };

    vt_ok(lw_vae_create(path, LW_KEEP_AUTO, k, &v, &err), &err);
    return v;
}

static lw_tensor image3(lw_arena *a, int64_t h, int64_t w, int64_t c)
{
    lw_tensor t = { 0 };
    lw_err err = { 0 };

    vt_ok(lw_tensor_alloc(a, LW_F32, 3, (int64_t[]){ h, w, c }, &t, &err), &err);
    return t;
}

/** Picture i of [n, ...]. */
static lw_tensor picture_of(const lw_tensor *t, int64_t i)
{
    size_t count = (size_t)(lw_tensor_count(t) / t->shape[0]);

    return lw_tensor_nd((char *)t->data + (size_t)i * count * lw_dtype_size(t->dtype), t->dtype, 3,
                        t->shape + 1);
}

/* ---- passes over one picture, giving [C, h, w] as the vectors are ------------------------------
 */

typedef struct job {
    lw_vae *v;
    lw_kernels *k;
    lw_arena scratch;
    bool encode;
} job;

static lw_status one_tile(void *arg, lw_tensor *y, const lw_tensor *x, lw_err *err)
{
    job *j = arg;

    return j->encode ? lw_vae_encode(j->v, &j->scratch, y, x, NULL, err)
                     : lw_vae_decode(j->v, &j->scratch, y, x, NULL, err);
}

static lw_tensor run_nchw(job *j, lw_arena *a, const lw_tensor *x, int64_t y_h, int64_t y_w,
                          int64_t y_c, int64_t side)
{
    int64_t downscale = lw_vae_downscale(lw_vae_get_config(j->v));
    lw_tensor y = image3(a, y_h, y_w, y_c), out = image3(a, y_c, y_h, y_w);
    lw_tiles t = j->encode ? lw_tiles_encode(side, downscale) : lw_tiles_decode(side, downscale);
    lw_err err = { 0 };

    if (side > 0) {
        assert_true(lw_tiles_needed(&t, x->shape[0], x->shape[1]));
        vt_ok(lw_tiles_run(&t, &y, x, one_tile, j, a, &err), &err);
    } else {
        vt_ok(one_tile(j, &y, x, &err), &err);
    }
    j->k->nhwc_to_nchw(j->k, &out, &y, 0, 1);
    return out;
}

static lw_tensor decode_nchw(job *j, lw_arena *a, const lw_tensor *latents, int64_t side)
{
    const lw_vae_config *c = lw_vae_get_config(j->v);
    int64_t h = latents->shape[1], w = latents->shape[2], d = lw_vae_downscale(c);
    lw_tensor z = image3(a, h, w, latents->shape[0]);

    j->encode = false;
    j->k->nchw_to_nhwc(j->k, &z, latents, (float)c->scaling_factor, (float)c->shift_factor);
    return run_nchw(j, a, &z, h * d, w * d, 3, side);
}

static lw_tensor encode_nchw(job *j, lw_arena *a, const lw_tensor *rgb, int64_t side)
{
    const lw_vae_config *c = lw_vae_get_config(j->v);
    int64_t h = rgb->shape[0], w = rgb->shape[1], d = lw_vae_downscale(c);
    lw_tensor x = image3(a, h, w, 3);
    lw_err err = { 0 };

    j->encode = true;
    vt_ok(lw_vae_load_encoder(j->v, &err), &err);
    j->k->from_rgb8(j->k, &x, rgb);
    return run_nchw(j, a, &x, h / d, w / d, 2 * c->latent_channels, side);
}

/* ---- against the reference ------------------------------------------------------------------- */

static void check_case(const json_t *c, vt_backend *b, const char *backend)
{
    const char *name = json_string_value(json_object_get(c, "name")), *dir = vt_new_dir();
    const json_t *in = json_object_get(c, "latents"), *pic = json_object_get(c, "image");
    int64_t latent_shape[4], image_shape[4], sides[8] = { 0 };
    int n_sides = 1 + vt_ints(c, "tiles", sides + 1, 7);
    job j = { .k = &b->k };
    lw_arena a;
    lw_tensor latents, rgb;

    vt_write_model(c, dir, &(vt_model){ 0 });
    j.v = open_model(dir, &b->k);
    lw_arena_init(&a, "test", 0);
    lw_arena_init(&j.scratch, "scratch", 0);
    vt_ints(in, "shape", latent_shape, 4);
    vt_ints(pic, "shape", image_shape, 4);
    latents = vt_values(&a, 4, latent_shape, (uint64_t)vt_int(in, "tag"), 4);
    rgb = vt_picture(&a, image_shape, (uint64_t)vt_int(pic, "tag"));

    for (int s = 0; s < n_sides; s++) {
        char tag[16] = "", what[32], label[64];
        const lw_tensor *decoded, *moments;

        if (sides[s] > 0)
            snprintf(tag, sizeof(tag), "tile%d.", (int)sides[s]);
        snprintf(what, sizeof(what), "%sdecoded", tag);
        decoded = vector(name, what);
        snprintf(what, sizeof(what), "%smoments", tag);
        moments = vector(name, what);
        for (int64_t i = 0; i < latent_shape[0]; i++) {
            lw_tensor x = picture_of(&latents, i), p = picture_of(&rgb, i), want, got;

            got = decode_nchw(&j, &a, &x, sides[s]);
            want = picture_of(decoded, i);
            snprintf(label, sizeof(label), "%s %s %sdecoded", backend, name, tag);
            vt_check(label, lw_f32(&got), lw_f32(&want), lw_tensor_count(&got), VT_BOUND);
            got = encode_nchw(&j, &a, &p, sides[s]);
            want = picture_of(moments, i);
            snprintf(label, sizeof(label), "%s %s %smoments", backend, name, tag);
            vt_check(label, lw_f32(&got), lw_f32(&want), lw_tensor_count(&got), VT_BOUND);
        }
    }
    lw_arena_deinit(&a);
    lw_arena_deinit(&j.scratch);
    lw_vae_destroy(&j.v);
}

static void against_diffusers(void **state)
{
    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(backends); i++) {
        json_t *cases = json_object_get(vectors, "cases"), *c;
        vt_backend b;
        size_t n;

        if (!vt_backend_open(&b, backends[i], 2)) {
            print_message("%s: not in this build\n", backends[i]);
            continue;
        }
        json_array_foreach(cases, n, c) check_case(c, &b, backends[i]);
        vt_backend_close(&b);
    }
}

static void floats(const json_t *spec, const char *key, lw_arena *a, lw_tensor *ret)
{
    const json_t *arr = json_object_get(spec, key), *v;
    size_t i;

    *ret = image3(a, 1, 1, (int64_t)json_array_size(arr));
    json_array_foreach(arr, i, v) lw_f32(ret)[i] = (float)json_number_value(v);
}

/** The vectors of the model authors' own code; in and out without scaling. */
static void against_authors_code(void **state)
{
    json_t *spec = vt_load_json(vt_data("spec/vae_tiny.json"));
    const char *dir = vt_new_dir();

    (void)state;
    vt_write_model(spec, dir, &(vt_model){ 0 });
    for (size_t i = 0; i < LW_ARRAY_LEN(backends); i++) {
        vt_backend b;
        job j = { 0 };
        lw_arena a;
        lw_err err = { 0 };
        lw_tensor z, x, want, got, in;
        char label[64];

        if (!vt_backend_open(&b, backends[i], 1))
            continue;
        lw_arena_init(&a, "test", 0);
        lw_arena_init(&j.scratch, "scratch", 0);
        j.k = &b.k;
        j.v = open_model(dir, &b.k);

        z = vt_values(&a, 3, (int64_t[]){ 4, 3, 5 }, 9101, 4);
        in = image3(&a, 3, 5, 4);
        b.k.nchw_to_nhwc(&b.k, &in, &z, 1, 0);
        got = run_nchw(&j, &a, &in, 12, 20, 3, 0);
        floats(spec, "decoder_output", &a, &want);
        snprintf(label, sizeof(label), "%s authors' decoder", backends[i]);
        vt_check(label, lw_f32(&got), lw_f32(&want), 720, VT_BOUND);

        x = vt_values(&a, 3, (int64_t[]){ 3, 12, 20 }, 9102, 2);
        in = image3(&a, 12, 20, 3);
        b.k.nchw_to_nhwc(&b.k, &in, &x, 1, 0);
        j.encode = true;
        vt_ok(lw_vae_load_encoder(j.v, &err), &err);
        got = run_nchw(&j, &a, &in, 3, 5, 8, 0);
        floats(spec, "encoder_output", &a, &want);
        snprintf(label, sizeof(label), "%s authors' encoder", backends[i]);
        vt_check(label, lw_f32(&got), lw_f32(&want), 120, VT_BOUND);

        lw_arena_deinit(&a);
        lw_arena_deinit(&j.scratch);
        lw_vae_destroy(&j.v);
        vt_backend_close(&b);
    }
    json_decref(spec);
}

/* ---- same bits ------------------------------------------------------------------------------- */

/** Decoded picture of 5x7 latents and encoded moments of a picture, one after the other. */
static float *fingerprint(const char *path, const char *backend, int threads, lw_keep keep,
                          size_t *ret_bytes)
{
    vt_backend b;
    job j = { 0 };
    lw_arena a;
    lw_tensor x, y, m, rgb;
    lw_err err = { 0 };
    const lw_vae_config *c;
    size_t n_y, n_m;
    float *out;

    if (!vt_backend_open(&b, backend, threads))
        return NULL;
    lw_arena_init(&a, "test", 0);
    lw_arena_init(&j.scratch, "scratch", 0);
    j.k = &b.k;
    vt_ok(lw_vae_create(path, keep, &b.k, &j.v, &err), &err);
    c = lw_vae_get_config(j.v);
    x = vt_values(&a, 3, (int64_t[]){ c->latent_channels, 5, 7 }, 77, 4);
    y = decode_nchw(&j, &a, &x, 0);
    rgb = vt_picture(&a, (int64_t[]){ 1, 3 * lw_vae_downscale(c), 5 * lw_vae_downscale(c), 3 }, 78);
    rgb = picture_of(&rgb, 0);
    m = encode_nchw(&j, &a, &rgb, 0);
    n_y = lw_tensor_bytes(&y);
    n_m = lw_tensor_bytes(&m);
    out = malloc(n_y + n_m);
    assert_non_null(out);
    memcpy(out, y.data, n_y);
    memcpy((char *)out + n_y, m.data, n_m);
    *ret_bytes = n_y + n_m;
    lw_arena_deinit(&a);
    lw_arena_deinit(&j.scratch);
    lw_vae_destroy(&j.v);
    vt_backend_close(&b);
    return out;
}

static void same_bits(const char *path_a, int threads_a, const char *path_b, int threads_b)
{
    for (size_t i = 0; i < LW_ARRAY_LEN(backends); i++) {
        size_t n = 0, m = 0;
        float *a = fingerprint(path_a, backends[i], threads_a, LW_KEEP_AUTO, &n);
        float *b = fingerprint(path_b, backends[i], threads_b, LW_KEEP_AUTO, &m);

        if (a != NULL) {
            assert_int_equal(n, m);
            assert_memory_equal(a, b, n);
        }
        free(a);
        free(b);
    }
}

static void threads_do_not_matter(void **state)
{
    const char *dir = vt_new_dir();

    (void)state;
    vt_write_model(case_named("flux"), dir, &(vt_model){ 0 });
    same_bits(dir, 1, dir, 2);
    same_bits(dir, 1, dir, 3);
}

static void layouts_are_the_same_model(void **state)
{
    static const vt_model forms[] = { { .bfl = true },
                                      { .bfl = true, .prefix = "first_stage_model." },
                                      { .prefix = "vae." } };
    static const char *const names[] = { "flux", "quant" };

    (void)state;
    for (size_t c = 0; c < LW_ARRAY_LEN(names); c++) {
        const char *plain = vt_new_dir();

        vt_write_model(case_named(names[c]), plain, &(vt_model){ 0 });
        for (size_t i = 0; i < LW_ARRAY_LEN(forms); i++) {
            const char *other = vt_new_dir();

            vt_write_model(case_named(names[c]), other, &forms[i]);
            same_bits(plain, 1, other, 1);
        }
    }
}

static const char *mkmodel;

static void make_tiny(const char *dir, const char *layout)
{
    char command[1024];

    snprintf(command, sizeof(command), "'%s' tiny '%s' --parts vae --layout %s 2>/dev/null",
             mkmodel, dir, layout);
    assert_int_equal(system(command), 0);
}

/** Decoded in strips of 4 rows, over what they read, and in one piece. */
static void strips_and_whole(const char *path, const char *backend)
{
    lw_tensor z, strips, whole;
    size_t bytes;
    vt_backend b;
    lw_arena a;
    lw_vae *v;
    lw_err err = { 0 };

    if (!vt_backend_open(&b, backend, 2))
        return;
    v = open_model(path, &b.k);
    lw_arena_init(&a, "test", 0);
    z = vt_values(&a, 3, (int64_t[]){ 7, 5, 16 }, 5, 1);
    strips = image3(&a, 56, 40, 3);
    whole = image3(&a, 56, 40, 3);
    bytes = lw_vae_plan_decode(v, 7, 5).bytes;
    vt_ok(lw_vae_decode(v, &a, &whole, &z, NULL, &err), &err);
    v->strip_positions = 4 * 40;
    assert_true(lw_vae_plan_decode(v, 7, 5).bytes <= bytes);
    vt_ok(lw_vae_decode(v, &a, &strips, &z, NULL, &err), &err);
    assert_memory_equal(strips.data, whole.data, lw_tensor_bytes(&whole));
    lw_vae_destroy(&v);
    lw_arena_deinit(&a);
    vt_backend_close(&b);
}

static void strips_do_not_matter(void **state)
{
    const char *few = vt_new_dir(), *many = vt_new_dir();

    (void)state;
    vt_write_model(case_named("flux"), few,
                   &(vt_model){ 0 }); /* 24 to 8 channels: any back end's */
    make_tiny(many, "hf");            /* 64 to 32: Winograd's */
    for (size_t i = 0; i < LW_ARRAY_LEN(backends); i++) {
        strips_and_whole(few, backends[i]);
        strips_and_whole(many, backends[i]);
    }
}

/** A single file without config.json is understood from its shapes, wherever it lies. */
static void single_files_need_no_config(void **state)
{
    const char *hf = vt_new_dir(), *comfy = vt_new_dir();
    char file[160], vae[128];
    json_t *foreign = json_pack("{s:s, s:i}", "_class_name", "ZImageTransformer2DModel", "dim", 96);

    (void)state;
    make_tiny(hf, "hf");
    make_tiny(comfy, "comfy");
    snprintf(vae, sizeof(vae), "%s/vae", comfy);
    snprintf(file, sizeof(file), "%s/ae.safetensors", vae);
    same_bits(hf, 1, comfy, 1);
    same_bits(hf, 1, vae, 1);
    same_bits(hf, 1, file, 1);
    vt_write_config(vae, foreign);
    same_bits(hf, 1, file, 1);
    json_decref(foreign);
}

/** A bf16 file, and an f32 file that --weights bf16 rounds, are one model. */
static void weights_round_once(void **state)
{
    const char *f32 = vt_new_dir(), *bf16 = vt_new_dir();

    (void)state;
    /* --weights bf16 rounds matrices only; the vectors of this model lose nothing. */
    vt_write_model(case_named("odd"), f32, &(vt_model){ .bf16_vectors = true });
    vt_write_model(case_named("odd"), bf16, &(vt_model){ .dtype = LW_BF16 });
    for (size_t i = 0; i < LW_ARRAY_LEN(backends); i++) {
        size_t n = 0, m = 0, k = 0;
        float *stored = fingerprint(bf16, backends[i], 1, LW_KEEP_STORED, &n);
        float *rounded = fingerprint(f32, backends[i], 1, LW_KEEP_BF16, &m);
        float *exact = fingerprint(f32, backends[i], 1, LW_KEEP_STORED, &k);

        if (stored != NULL) {
            assert_int_equal(n, m);
            assert_memory_equal(stored, rounded, n);
            assert_memory_not_equal(stored, exact, n);
        }
        free(stored);
        free(rounded);
        free(exact);
    }
}

/* ---- plans, watching ------------------------------------------------------------------------- */

typedef struct watcher {
    int calls, n_blocks, stop_after;
} watcher;

static bool watch_block(void *arg, int block, int n_blocks)
{
    watcher *w = arg;

    assert_int_equal(block, ++w->calls);
    w->n_blocks = n_blocks;
    return block != w->stop_after;
}

/* Under AddressSanitizer an arena leaves a gap behind each allocation. */
#if defined(__SANITIZE_ADDRESS__)
#define ARENA_GAPS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_GAPS 1
#endif
#endif

/** The arena's peak is what the plan said. */
static void check_peak(const lw_arena *a, size_t bytes)
{
#ifdef ARENA_GAPS
    assert_in_range(a->peak_bytes, bytes, bytes + 4096);
#else
    assert_int_equal(a->peak_bytes, bytes);
#endif
}

static void plan_is_exact_and_pass_stops(void **state)
{
    const char *dir = vt_new_dir();
    vt_backend b;
    lw_vae *v;
    lw_arena a, scratch;
    lw_tensor z, y, m;
    lw_err err = { 0 };
    watcher w = { 0 };
    lw_vae_watch watch = { watch_block, &w };
    lw_vae_plan plan;

    (void)state;
    vt_write_model(case_named("flux"), dir, &(vt_model){ 0 });
    assert_true(vt_backend_open(&b, "ref", 1));
    v = open_model(dir, &b.k);
    lw_arena_init(&a, "test", 0);
    lw_arena_init(&scratch, "scratch", 0);
    z = vt_values(&a, 3, (int64_t[]){ 3, 2, 16 }, 5, 1);
    y = image3(&a, 24, 16, 3);

    /* 1 + 3 in the middle + 4 x 3 resnets + 3 upsamplings + 1 */
    plan = lw_vae_plan_decode(v, 3, 2);
    assert_int_equal(plan.n_blocks, 20);
    vt_ok(lw_vae_decode(v, &scratch, &y, &z, &watch, &err), &err);
    assert_int_equal(w.calls, 20);
    assert_int_equal(w.n_blocks, 20);
    check_peak(&scratch, plan.bytes);
    assert_int_equal(scratch.used_bytes, 0);

    /* The most that is live at a time: in the last block's first resnet 16 channels at full size
     * and a copy of them with a row more above and below; and behind it the factors of a norm of
     * 24 channels, in whole cache lines. */
    assert_int_equal(plan.bytes, sizeof(float) * ((24 + 26) * 16 * 16 + 80));

    for (int stop = 1; stop <= 20; stop++) {
        w = (watcher){ .stop_after = stop };
        err = (lw_err){ 0 };
        vt_fails(lw_vae_decode(v, &scratch, &y, &z, &watch, &err), LW_E_CANCELLED, "cancelled",
                 &err);
        assert_int_equal(w.calls, stop);
        assert_int_equal(scratch.used_bytes, 0);
    }

    vt_ok(lw_vae_load_encoder(v, &err), &err);
    lw_arena_deinit(&scratch);
    scratch.peak_bytes = 0;
    m = image3(&a, 3, 2, 32);
    w = (watcher){ 0 };
    plan = lw_vae_plan_encode(v, 24, 16);
    assert_int_equal(plan.n_blocks, 1 + 4 * 2 + 3 + 3 + 1);
    vt_ok(lw_vae_encode(v, &scratch, &m, &y, &watch, &err), &err);
    assert_int_equal(w.calls, plan.n_blocks);
    check_peak(&scratch, plan.bytes);

    lw_arena_deinit(&scratch);
    lw_arena_init(&scratch, "scratch", 4096);
    vt_fails(lw_vae_decode(v, &scratch, &y, &z, NULL, &err), LW_E_NOMEM, "scratch", &err);
    lw_arena_deinit(&scratch);
    lw_arena_deinit(&a);
    lw_vae_destroy(&v);
    vt_backend_close(&b);
}

/* ---- files that do not fit ------------------------------------------------------------------- */

static vt_backend ref;

static void refuses(const char *path, lw_status want, const char *part)
{
    lw_vae *v = NULL;
    lw_err err = { 0 };

    vt_fails(lw_vae_create(path, LW_KEEP_AUTO, &ref.k, &v, &err), want, part, &err);
    assert_null(v);
}

static void hostile_weights(void **state)
{
    static const struct {
        vt_model m;
        lw_status want;
        const char *part;
    } files[] = {
        { { .drop = "decoder.up_blocks.1.resnets.0.conv2.weight" },
          LW_E_NOT_FOUND,
          "decoder.up_blocks.1.resnets.0.conv2.weight" },
        { { .bfl = true, .drop = "decoder.up_blocks.1.resnets.0.conv2.weight" },
          LW_E_NOT_FOUND,
          "decoder.up.0.block.0.conv2.weight" },
        { { .reshape = "decoder.mid_block.attentions.0.to_q.weight" },
          LW_E_SHAPE,
          "decoder.mid_block.attentions.0.to_q.weight" },
        { { .reshape = "decoder.conv_in.weight" }, LW_E_SHAPE, "decoder.conv_in.weight" },
        { { .drop = "decoder." }, LW_E_FORMAT, "decoder" },
        { { .no_config = true, .drop = "conv_in" }, LW_E_FORMAT, "decoder.conv_in.weight" },
        { { .no_config = true, .drop = "up_blocks" }, LW_E_FORMAT, "up_blocks" },
        /* 12 channels do not divide into the 32 groups that are assumed without a config. */
        { { .no_config = true }, LW_E_FORMAT, "groups" },
    };
    char path[128];

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(files); i++) {
        const char *dir = vt_new_dir();

        vt_write_model(case_named("odd"), dir, &files[i].m);
        refuses(dir, files[i].want, files[i].part);
    }
    refuses(vt_new_dir(), LW_E_NOT_FOUND, "safetensors");
    snprintf(path, sizeof(path), "%s/nothing.safetensors", vt_new_dir());
    refuses(path, LW_E_NOT_FOUND, "nothing.safetensors");
}

/** Every length of a truncated file is an error, none a crash. */
static void truncated_weights(void **state)
{
    const char *dir = vt_new_dir();
    char path[128];
    FILE *f;
    long n;

    (void)state;
    vt_write_model(case_named("odd"), dir, &(vt_model){ 0 });
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    n = ftell(f);
    fclose(f);
    for (int i = 1; i <= 20; i++) {
        assert_int_equal(truncate(path, n - i * (n / 20)), 0);
        refuses(dir, LW_E_FORMAT, "model.safetensors");
    }
}

static void hostile_config(void **state)
{
    static const struct {
        const char *key, *value;
        lw_status want;
    } edits[] = {
        { "_class_name", "\"AutoencoderKLWan\"", LW_E_UNIMPLEMENTED },
        { "act_fn", "\"gelu\"", LW_E_UNIMPLEMENTED },
        { "latents_mean", "[0.5, 0.5]", LW_E_UNIMPLEMENTED },
        { "down_block_types", "[\"AttnDownEncoderBlock2D\"]", LW_E_UNIMPLEMENTED },
        { "out_channels", "4", LW_E_UNIMPLEMENTED },
        { "block_out_channels", "[]", LW_E_FORMAT },
        { "block_out_channels", "[12, -20]", LW_E_FORMAT },
        { "block_out_channels", "[8,8,8,8,8,8,8,8,8]", LW_E_FORMAT },
        { "block_out_channels", "\"12\"", LW_E_FORMAT },
        { "norm_num_groups", "5", LW_E_FORMAT },
        { "norm_num_groups", "0", LW_E_FORMAT },
        { "layers_per_block", "1000000", LW_E_FORMAT },
        { "latent_channels", "0", LW_E_FORMAT },
        { "latent_channels", "6", LW_E_SHAPE },
        { "layers_per_block", "2", LW_E_NOT_FOUND },
        { "scaling_factor", "0", LW_E_FORMAT },
        { "scaling_factor", "\"one\"", LW_E_FORMAT },
        { "use_post_quant_conv", "true", LW_E_NOT_FOUND },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(edits); i++) {
        const json_t *c = case_named("odd");
        json_t *config = json_deep_copy(json_object_get(c, "config")), *value;
        const char *dir = vt_new_dir();
        lw_vae *v = NULL;
        lw_err err = { 0 };
        lw_status s;

        value = json_loads(edits[i].value, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        json_object_set_new(config, edits[i].key, value);
        vt_write_model(c, dir, &(vt_model){ 0 });
        vt_write_config(dir, config);
        s = lw_vae_create(dir, LW_KEEP_AUTO, &ref.k, &v, &err);
        print_message("%s = %s: %s: %s\n", edits[i].key, edits[i].value, lw_status_name(s),
                      err.text);
        assert_int_equal(s, edits[i].want);
        assert_null(v);
        json_decref(config);
    }
}

/** A file without an encoder decodes; asking it to encode is an error, again and again. */
static void decoder_alone(void **state)
{
    const char *dir = vt_new_dir();
    lw_err err = { 0 };
    lw_vae *v;

    (void)state;
    vt_write_model(case_named("odd"), dir, &(vt_model){ .drop = "encoder." });
    v = open_model(dir, &ref.k);
    for (int i = 0; i < 2; i++)
        vt_fails(lw_vae_load_encoder(v, &err), LW_E_NOT_FOUND, "encoder.conv_in", &err);
    lw_vae_destroy(&v);
}

static int open_ref(void **state)
{
    (void)state;
    return vt_backend_open(&ref, "ref", 1) ? 0 : -1;
}

static int close_ref(void **state)
{
    (void)state;
    vt_backend_close(&ref);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_diffusers),
        cmocka_unit_test(against_authors_code),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(strips_do_not_matter),
        cmocka_unit_test(layouts_are_the_same_model),
        cmocka_unit_test(single_files_need_no_config),
        cmocka_unit_test(weights_round_once),
        cmocka_unit_test(plan_is_exact_and_pass_stops),
        cmocka_unit_test_setup_teardown(hostile_weights, open_ref, close_ref),
        cmocka_unit_test_setup_teardown(truncated_weights, open_ref, close_ref),
        cmocka_unit_test_setup_teardown(hostile_config, open_ref, close_ref),
        cmocka_unit_test_setup_teardown(decoder_alone, open_ref, close_ref),
    };

    if (argc != 2) {
        fprintf(stderr, "usage: %s LATENTWIRE-MKMODEL\n", argv[0]);
        return 2;
    }
    mkmodel = argv[1];
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
