#include "vae-svc/service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/backend.h"
#include "common/model.h"
#include "common/rng.h"
#include "common/size.h"
#include "proto/packet.h"
#include "vae-svc/autoencoder.h"
#include "vae-svc/tiles.h"

/*
 * The decoder service: requests checked, memory planned before any work, pictures done one after
 * the other, each exactly or in tiles. The networks are in autoencoder.c.
 */

#define MAX_PICTURES 64
#define MAX_STEPS    65535               /* of a progress message */
#define MAX_PIXELS   65536               /* on a side, as in the protocol's fields */
#define KEEP_BYTES   ((size_t)512 << 20) /* scratch kept between requests; more is given back */
#define MIN_TILE     8                   /* smallest tile worth advising */
#define MIB          1048576.0

typedef struct vae_service {
    lw_backend backend;
    lw_vae *vae;
    lw_arena scratch;
    char model_id[256], digest[65];
} vae_service;

/* ---- load, info, unload ---------------------------------------------------------------------- */

static void unload(void *self)
{
    vae_service *s = self;

    if (s == NULL)
        return;
    lw_vae_destroy(&s->vae);
    lw_backend_close(&s->backend);
    lw_arena_deinit(&s->scratch);
    free(s);
}

static lw_status load_parts(vae_service *s, const lw_service_config *c, lw_err *err)
{
    lw_keep keep = LW_KEEP_AUTO;

    if (c->model == NULL || c->model[0] == '\0')
        return lw_fail(err, LW_E_INVALID, "--model: give a model folder or a VAE file");
    LW_TRY(lw_keep_parse(c->weights, &keep, err));
    LW_TRY(lw_backend_open(&s->backend, c->device, c->precision, c->threads, c->memory_mb, err));
    LW_TRY(lw_vae_create(c->model, keep, &s->backend.k, &s->vae, err));
    lw_model_id(c->model, s->model_id, sizeof(s->model_id));
    return lw_vae_digest(s->vae, s->digest, err);
}

static lw_status load(const lw_service_config *c, void **ret_self, lw_err *err)
{
    vae_service *s = calloc(1, sizeof(*s));
    lw_status status;

    if (s == NULL)
        return lw_fail(err, LW_E_NOMEM, "no memory for the service");
    lw_arena_init(&s->scratch, "scratch", 0);
    status = load_parts(s, c, err);
    if (status != LW_OK) {
        unload(s);
        return status;
    }
    *ret_self = s;
    return LW_OK;
}

static void info(void *self, lw_contract *ret)
{
    const vae_service *s = self;
    const lw_vae_config *c = lw_vae_get_config(s->vae);

    lw_contract_set(ret, model_id, s->model_id);
    lw_contract_set(ret, weights_digest, s->digest);
    lw_contract_set(ret, backend, s->backend.k.name);
    lw_contract_set(ret, precision, "f32");
    lw_contract_set(ret, latent_channels, (uint64_t)c->latent_channels);
    lw_contract_set(ret, downscale, (uint64_t)lw_vae_downscale(c));
    lw_contract_set(ret, scaling_factor, c->scaling_factor);
    lw_contract_set(ret, shift_factor, c->shift_factor);
}

/* ---- a pass: one picture through one network, whole or in tiles -------------------------------
 */

typedef struct pass {
    vae_service *s;
    lw_task *task;
    bool encode;
    int64_t n;             /* pictures */
    int64_t x_h, x_w, x_c; /* what the network takes */
    int64_t y_h, y_w, y_c; /* what it gives */
    int64_t tile;          /* latents on a side; 0 = untiled */
    lw_tiles tiles;
    uint64_t steps, n_steps; /* blocks of all tiles and pictures */
} pass;

static size_t f32_bytes(int64_t a, int64_t b, int64_t c)
{
    return lw_size_align((size_t)(a * b * c) * sizeof(float), 64);
}

static lw_tiles tiles_of(const pass *p, int64_t tile)
{
    int64_t downscale = lw_vae_downscale(lw_vae_get_config(p->s->vae));

    return p->encode ? lw_tiles_encode(tile, downscale) : lw_tiles_decode(tile, downscale);
}

/** Memory of one picture: what goes in (twice: as received and by channel), what comes out, and
 * the network's own. n_blocks is set when not NULL. */
static size_t pass_bytes(const pass *p, int64_t tile, int *ret_n_blocks)
{
    int64_t h = p->x_h, w = p->x_w;
    size_t bytes = 2 * f32_bytes(p->x_h, p->x_w, p->x_c) + f32_bytes(p->y_h, p->y_w, p->y_c);
    lw_vae_plan plan;

    if (tile > 0) {
        lw_tiles t = tiles_of(p, tile);

        bytes += lw_tiles_bytes(&t, h, w, p->x_c, p->y_c);
        h = h < t.x_side ? h : t.x_side;
        w = w < t.x_side ? w : t.x_side;
    }
    plan = p->encode ? lw_vae_plan_encode(p->s->vae, h, w) : lw_vae_plan_decode(p->s->vae, h, w);
    if (ret_n_blocks != NULL)
        *ret_n_blocks = plan.n_blocks;
    return bytes + plan.bytes;
}

static lw_status too_large(const pass *p, size_t whole, size_t budget, lw_err *err)
{
    const lw_vae_config *c = lw_vae_get_config(p->s->vae);
    int64_t downscale = lw_vae_downscale(c), fits;
    int64_t side = p->x_h > p->x_w ? p->x_h : p->x_w;
    char tiled[64] = "", advice[64] = "";

    fits = (p->encode ? side / downscale : side) - 1;
    if (fits > c->tile)
        fits = c->tile;
    for (fits -= fits % 4; fits >= MIN_TILE && pass_bytes(p, fits, NULL) > budget;)
        fits -= 4;
    if (fits >= MIN_TILE)
        snprintf(advice, sizeof(advice), ", or ask for tile %lld", (long long)fits);
    if (p->tile > 0)
        snprintf(tiled, sizeof(tiled), " (in tiles of %lld latents %.1f MiB)", (long long)p->tile,
                 (double)pass_bytes(p, p->tile, NULL) / MIB);
    return lw_fail(err, LW_E_TOO_LARGE,
                   "%s %lldx%lld pixels needs %.1f MiB%s, and the budget of a request is %.1f MiB; "
                   "raise --memory-mb%s",
                   p->encode ? "encoding" : "decoding", (long long)(p->encode ? p->x_w : p->y_w),
                   (long long)(p->encode ? p->x_h : p->y_h), (double)whole / MIB, tiled,
                   (double)budget / MIB, advice);
}

/**
 * Whole when it fits and no tile was asked for; else in tiles, of the side that was asked for or of
 * diffusers' own. Errors: LW_E_INVALID (tile), LW_E_TOO_LARGE.
 */
static lw_status plan(pass *p, lw_err *err)
{
    const lw_msg *m = p->task->msg;
    size_t budget = lw_backend_budget(&p->s->backend);
    int64_t asked = (int64_t)lw_msg_get(m, tile, 0), tile;
    int n_blocks = 0;
    size_t whole = pass_bytes(p, 0, &n_blocks);

    if (asked % 4 != 0)
        return lw_fail(
            err, LW_E_INVALID,
            "tile %lld: a tile's side must be a multiple of 4 latents, because a quarter "
            "of it overlaps the next",
            (long long)asked);
    p->n_steps = (uint64_t)p->n * (uint64_t)n_blocks;
    if (asked == 0 && whole <= budget)
        return LW_OK;

    tile = asked > 0 ? asked : lw_vae_get_config(p->s->vae)->tile / 4 * 4;
    if (tile > 0) {
        p->tiles = tiles_of(p, tile);
        if (lw_tiles_needed(&p->tiles, p->x_h, p->x_w)) {
            p->tile = tile;
            p->n_steps *= (uint64_t)lw_tiles_count(&p->tiles, p->x_h, p->x_w);
        }
    }
    if ((p->tile > 0 ? pass_bytes(p, p->tile, NULL) : whole) > budget)
        return too_large(p, whole, budget, err);
    if (p->tile > 0)
        lw_msg_set(p->task->result, tile, (uint64_t)p->tile);
    return LW_OK;
}

/** Progress at every block, which also tells the hub's watchdog that the task moves. Many pictures
 * in many tiles make more steps than the field holds; they are then counted in larger units. */
static bool block_done(void *arg, int block, int n_blocks)
{
    pass *p = arg;
    uint64_t unit = (p->n_steps + MAX_STEPS - 1) / MAX_STEPS;

    (void)block;
    (void)n_blocks;
    p->steps++;
    lw_task_progress(p->task, p->steps / unit, p->n_steps / unit, 0);
    return !lw_task_cancelled(p->task);
}

static lw_status run_network(void *arg, lw_tensor *y, const lw_tensor *x, lw_err *err)
{
    pass *p = arg;
    lw_vae_watch watch = { block_done, p };

    return p->encode ? lw_vae_encode(p->s->vae, &p->s->scratch, y, x, &watch, err)
                     : lw_vae_decode(p->s->vae, &p->s->scratch, y, x, &watch, err);
}

/** y = network(x), which must come out finite. */
static lw_status run_pass(pass *p, lw_tensor *y, const lw_tensor *x, lw_err *err)
{
    if (lw_task_cancelled(p->task))
        return lw_fail(err, LW_E_CANCELLED, "cancelled before it began");
    if (p->tile > 0)
        LW_TRY(lw_tiles_run(&p->tiles, y, x, run_network, p, &p->s->scratch, err));
    else
        LW_TRY(run_network(p, y, x, err));
    if (!lw_tensor_all_finite(y))
        return lw_fail(err, LW_E_INTERNAL,
                       "the %s gave NaN or infinity; the weights or the %s are out of range",
                       p->encode ? "encoder" : "decoder", p->encode ? "picture" : "latents");
    return LW_OK;
}

/* ---- decode: latents -> picture ----------------------------------------------------------------
 */

/** The request's tensor, of the rank and dtype that the op takes. */
static lw_status input(const lw_msg *m, const char *name, bool is_u8, const lw_tensor **ret,
                       lw_err *err)
{
    const lw_msg_tensor *mt = lw_msg_tensor_find(m, name);
    char text[128];

    if (mt == NULL)
        return lw_fail(err, LW_E_INVALID, "%s: the request has no tensor of that name", name);
    if (mt->t.rank != 4 || (is_u8 ? mt->t.dtype != LW_U8 : !lw_dtype_is_float(mt->t.dtype)))
        return lw_fail(err, LW_E_SHAPE, "%s: expected %s, got %s", name,
                       is_u8 ? "uint8 [n, height, width, 3]" : "a float type [n, channels, h, w]",
                       lw_tensor_describe(&mt->t, text, sizeof(text)));
    if (mt->t.shape[0] < 1 || mt->t.shape[0] > MAX_PICTURES)
        return lw_fail(err, LW_E_SHAPE, "%s: %lld pictures; expected 1 to %d", name,
                       (long long)mt->t.shape[0], MAX_PICTURES);
    *ret = &mt->t;
    return LW_OK;
}

/** A result larger than a frame could not be sent: say so before computing it. */
static lw_status check_result(const char *name, lw_dtype dtype, const int64_t *shape, lw_err *err)
{
    size_t bytes;

    LW_TRY(lw_shape_bytes(dtype, 4, shape, &bytes, err));
    if (bytes > LW_MAX_FRAME_BYTES)
        return lw_fail(err, LW_E_TOO_LARGE,
                       "%s: the result would be %.1f MiB, and a message carries at most %.1f; ask "
                       "for fewer or smaller pictures",
                       name, (double)bytes / MIB, (double)LW_MAX_FRAME_BYTES / MIB);
    return LW_OK;
}

static lw_status alloc3(lw_arena *a, int64_t d0, int64_t d1, int64_t d2, lw_tensor *ret,
                        lw_err *err)
{
    return lw_tensor_alloc(a, LW_F32, 3, (int64_t[]){ d0, d1, d2 }, ret, err);
}

/** Picture i of [n, ...] as a tensor of rank 3. */
static lw_tensor picture_of(const lw_tensor *t, int64_t i)
{
    size_t count = (size_t)(t->shape[1] * t->shape[2] * t->shape[3]);

    return lw_tensor_nd((char *)t->data + (size_t)i * count * lw_dtype_size(t->dtype), t->dtype, 3,
                        t->shape + 1);
}

static lw_status decode_one(pass *p, lw_tensor *rgb, const lw_tensor *latents, lw_err *err)
{
    const lw_vae_config *c = lw_vae_get_config(p->s->vae);
    lw_kernels *k = &p->s->backend.k;
    lw_arena *a = &p->s->scratch;
    lw_tensor z, x, y;

    LW_TRY(alloc3(a, p->x_c, p->x_h, p->x_w, &z, err));
    LW_TRY(alloc3(a, p->x_h, p->x_w, p->x_c, &x, err));
    LW_TRY(alloc3(a, p->y_h, p->y_w, p->y_c, &y, err));
    if (!lw_dtype_convert(z.data, LW_F32, latents->data, latents->dtype,
                          (size_t)lw_tensor_count(latents)))
        return lw_fail(err, LW_E_SHAPE, LW_T_LATENTS ": %s cannot be widened",
                       lw_dtype_name(latents->dtype));
    if (!lw_tensor_all_finite(&z))
        return lw_fail(err, LW_E_INVALID, LW_T_LATENTS ": NaN or infinity in them");
    k->nchw_to_nhwc(k, &x, &z, (float)c->scaling_factor, (float)c->shift_factor);
    LW_TRY(run_pass(p, &y, &x, err));
    k->to_rgb8(k, rgb, &y);
    return lw_kernels_check(k, err);
}

static lw_status decode(vae_service *s, lw_task *t, lw_err *err)
{
    const lw_vae_config *c = lw_vae_get_config(s->vae);
    int64_t downscale = lw_vae_downscale(c), shape[4];
    pass p = { .s = s, .task = t };
    const lw_tensor *in = NULL;
    lw_tensor out;

    LW_TRY(input(t->msg, LW_T_LATENTS, false, &in, err));
    if (in->shape[1] != c->latent_channels)
        return lw_fail(err, LW_E_SHAPE,
                       LW_T_LATENTS ": %lld channels, and this decoder takes %lld; is the denoiser "
                                    "of another model?",
                       (long long)in->shape[1], (long long)c->latent_channels);
    if (in->shape[2] < 1 || in->shape[3] < 1 || in->shape[2] > MAX_PIXELS / downscale ||
        in->shape[3] > MAX_PIXELS / downscale)
        return lw_fail(err, LW_E_SHAPE, LW_T_LATENTS ": %lldx%lld; sides must be 1 to %lld",
                       (long long)in->shape[3], (long long)in->shape[2],
                       (long long)(MAX_PIXELS / downscale));
    p.n = shape[0] = in->shape[0];
    p.x_h = in->shape[2];
    p.x_w = in->shape[3];
    p.x_c = c->latent_channels;
    p.y_h = shape[1] = p.x_h * downscale;
    p.y_w = shape[2] = p.x_w * downscale;
    p.y_c = shape[3] = 3;
    LW_TRY(check_result(LW_T_IMAGE, LW_U8, shape, err));
    LW_TRY(plan(&p, err));
    LW_TRY(lw_tensor_alloc(t->arena, LW_U8, 4, shape, &out, err));
    for (int64_t i = 0; i < p.n; i++) {
        lw_tensor rgb = picture_of(&out, i), latents = picture_of(in, i);

        lw_task_picture(t, (uint64_t)i);
        lw_arena_reset(&s->scratch);
        LW_TRY(decode_one(&p, &rgb, &latents, err));
    }
    return lw_msg_tensor_add(t->result, LW_T_IMAGE, &out, NULL, err);
}

/* ---- encode_image: picture -> latents ----------------------------------------------------------
 */

static lw_status encode_one(pass *p, lw_tensor *latents, const lw_tensor *rgb, int64_t i,
                            lw_err *err)
{
    const lw_msg *m = p->task->msg;
    lw_kernels *k = &p->s->backend.k;
    lw_arena *a = &p->s->scratch;
    lw_tensor x, y, noise = { 0 };

    LW_TRY(alloc3(a, p->x_h, p->x_w, p->x_c, &x, err));
    LW_TRY(alloc3(a, p->y_h, p->y_w, p->y_c, &y, err));
    k->from_rgb8(k, &x, rgb);
    LW_TRY(run_pass(p, &y, &x, err));
    if (lw_msg_has(m, seed)) {
        lw_rng rng;

        LW_TRY(alloc3(a, p->y_c / 2, p->y_h, p->y_w, &noise, err));
        lw_rng_seed(&rng, m->seed + (uint64_t)i);
        lw_rng_normal(&rng, lw_f32(&noise), (size_t)lw_tensor_count(&noise));
    }
    lw_vae_posterior(p->s->vae, latents, &y, lw_msg_has(m, seed) ? &noise : NULL);
    if (!lw_tensor_all_finite(latents))
        return lw_fail(err, LW_E_INTERNAL, "a sample of the encoder's posterior is not finite");
    return lw_kernels_check(k, err);
}

static lw_status encode_image(vae_service *s, lw_task *t, lw_err *err)
{
    const lw_vae_config *c = lw_vae_get_config(s->vae);
    int64_t downscale = lw_vae_downscale(c), shape[4];
    pass p = { .s = s, .task = t, .encode = true };
    const lw_tensor *in = NULL;
    lw_tensor out;

    LW_TRY(input(t->msg, LW_T_IMAGE, true, &in, err));
    if (in->shape[3] != 3)
        return lw_fail(err, LW_E_SHAPE, LW_T_IMAGE ": %lld channels; expected 3 (RGB)",
                       (long long)in->shape[3]);
    for (int i = 1; i <= 2; i++)
        if (in->shape[i] < 1 || in->shape[i] > MAX_PIXELS || in->shape[i] % downscale != 0)
            return lw_fail(err, LW_E_SHAPE,
                           LW_T_IMAGE ": %lldx%lld; sides must be multiples of %lld, up to %d",
                           (long long)in->shape[2], (long long)in->shape[1], (long long)downscale,
                           MAX_PIXELS);
    LW_TRY(lw_vae_load_encoder(s->vae, err));
    p.n = shape[0] = in->shape[0];
    p.x_h = in->shape[1];
    p.x_w = in->shape[2];
    p.x_c = 3;
    p.y_h = shape[2] = p.x_h / downscale;
    p.y_w = shape[3] = p.x_w / downscale;
    p.y_c = 2 * c->latent_channels;
    shape[1] = c->latent_channels;
    LW_TRY(check_result(LW_T_LATENTS, LW_F32, shape, err));
    LW_TRY(plan(&p, err));
    LW_TRY(lw_tensor_alloc(t->arena, LW_F32, 4, shape, &out, err));
    for (int64_t i = 0; i < p.n; i++) {
        lw_tensor latents = picture_of(&out, i), rgb = picture_of(in, i);

        lw_task_picture(t, (uint64_t)i);
        lw_arena_reset(&s->scratch);
        LW_TRY(encode_one(&p, &latents, &rgb, i, err));
    }
    return lw_msg_tensor_add(t->result, LW_T_LATENTS, &out, NULL, err);
}

static lw_status handle(void *self, lw_task *t, lw_err *err)
{
    vae_service *s = self;
    lw_op op = lw_msg_get(t->msg, op, LW_OP_NONE);
    lw_status status;

    if (op == LW_OP_DECODE)
        status = decode(s, t, err);
    else if (op == LW_OP_ENCODE_IMAGE)
        status = encode_image(s, t, err);
    else
        status = lw_fail(err, LW_E_INVALID, "op '%s': a decoder does decode and encode_image",
                         lw_op_name(op));
    lw_arena_reset(&s->scratch);
    /* A large picture's buffers would otherwise stay with a process that may idle beside a denoiser
     * in need of memory. */
    if (s->scratch.reserved_bytes > KEEP_BYTES)
        lw_arena_deinit(&s->scratch);
    return status;
}

const lw_service lw_vae_service = {
    .role = LW_ROLE_DECODER,
    .program = "vae-svc",
    .about = "Turns latents into pictures, and pictures into latents (AutoencoderKL).",
    .load = load,
    .info = info,
    .handle = handle,
    .unload = unload,
};
