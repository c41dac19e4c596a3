/*
 * A worker without a model: the real service loop around arithmetic that is deterministic in the
 * request, so that tests of hub, client and failures know every byte and can stop it anywhere.
 *
 *     latentwire-fakesvc encoder|denoiser|decoder [options of a service]
 *
 * The environment says what goes wrong:
 *     LATENTWIRE_FAKE_STEP_MS=N     a step takes N ms (cancel is still seen at once)
 *     LATENTWIRE_FAKE_CRASH_AT=K    SIGKILL oneself before step K is reported
 *     LATENTWIRE_FAKE_HANG_AT=K     never return from step K, not even when cancelled
 *     LATENTWIRE_FAKE_ERROR_AT=K    fail at step K with LATENTWIRE_FAKE_ERROR (default "internal")
 *     LATENTWIRE_FAKE_ONCE=FILE     do it only if FILE does not exist, and create it
 *     LATENTWIRE_FAKE_DIM=N         width of embeddings (default 16), to make stages not fit
 * Encoding and decoding are one step each.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

#include "proto/packet.h"
#include "proto/service.h"

#define DIM      16
#define CHANNELS 16
#define DOWN     8

typedef struct fake {
    lw_role role;
    uint64_t dim;
    int64_t step_ms, crash_at, hang_at, error_at;
    lw_status error;
    const char *once;
} fake;

static int64_t env_int(const char *name, int64_t dflt)
{
    const char *s = getenv(name);

    return s ? strtoll(s, NULL, 10) : dflt;
}

/* FNV-1a: the tests recompute it in other languages. */
static uint64_t hash(const void *data, size_t n, uint64_t h)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}
#define HASH_START UINT64_C(0xcbf29ce484222325)

/* A value in [-1, 1) with 16 bits, exact in every float type that tests compare. */
static float value(uint64_t seed, uint64_t i)
{
    uint64_t key[2] = { seed, i };

    return (float)((int)(hash(key, sizeof(key), HASH_START) >> 48) - 32768) / 32768.0f;
}

/* ---- misbehaviour ---- */

static bool first_time(const fake *f)
{
    int fd;

    if (!f->once)
        return true;
    fd = open(f->once, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static lw_status work(const fake *f, lw_task *t, int64_t step, lw_err *err)
{
    int64_t end = lw_now_ms() + f->step_ms;

    while (lw_now_ms() < end && !lw_task_cancelled(t))
        usleep(1000);
    if (step == f->crash_at && first_time(f))
        raise(SIGKILL);
    if (step == f->hang_at && first_time(f))
        for (;;)
            pause();
    if (step == f->error_at && first_time(f))
        return lw_fail(err, f->error, "told to fail at step %lld", (long long)step);
    if (lw_task_cancelled(t))
        return lw_fail(err, LW_E_CANCELLED, "cancelled at step %lld", (long long)step);
    return LW_OK;
}

/* ---- the three roles ---- */

static lw_status encode(const fake *f, lw_task *t, lw_err *err)
{
    const char *prompt = lw_msg_get(t->msg, prompt, "");
    int64_t most = (int64_t)lw_msg_get(t->msg, max_tokens, 512);
    int64_t n = (int64_t)strlen(prompt) + 1, shape[2];
    uint64_t seed = hash(prompt, strlen(prompt), HASH_START);
    lw_tensor rows, ids;

    shape[0] = n < most ? n : most;
    shape[1] = (int64_t)f->dim;
    LW_TRY(work(f, t, 1, err));
    LW_TRY(lw_tensor_alloc(t->arena, LW_F32, 2, shape, &rows, err));
    LW_TRY(lw_tensor_alloc(t->arena, LW_I32, 1, shape, &ids, err));
    for (int64_t i = 0; i < shape[0] * shape[1]; i++)
        lw_f32(&rows)[i] = value(seed, (uint64_t)i);
    for (int64_t i = 0; i < shape[0]; i++)
        ((int32_t *)ids.data)[i] = (unsigned char)prompt[i];
    lw_msg_set(t->result, n_tokens, (uint64_t)shape[0]);
    lw_msg_set(t->result, truncated, n > most);
    LW_TRY(lw_msg_tensor_add(t->result, LW_T_PROMPT_EMBEDS, &rows, NULL, err));
    LW_TRY(lw_msg_tensor_add(t->result, LW_T_TOKEN_IDS, &ids, NULL, err));
    lw_task_progress(t, 1, 1, 0);
    return LW_OK;
}

static uint64_t hash_tensor(const lw_msg *m, const char *name, uint64_t h)
{
    const lw_msg_tensor *mt = lw_msg_tensor_find(m, name);

    return mt ? hash(mt->t.data, lw_tensor_bytes(&mt->t), h) : h;
}

static lw_status start_latents(lw_task *t, lw_tensor *x, lw_err *err)
{
    const lw_msg_tensor *given = lw_msg_tensor_find(t->msg, LW_T_LATENTS);
    int64_t each = lw_tensor_count(x) / x->shape[0];

    if (!given) {
        for (int64_t i = 0; i < lw_tensor_count(x); i++)
            lw_f32(x)[i] =
                value(lw_msg_get(t->msg, seed, 0) + (uint64_t)(i / each), (uint64_t)(i % each));
        return LW_OK;
    }
    if (given->t.dtype != LW_F32 || lw_tensor_count(&given->t) != lw_tensor_count(x))
        return lw_fail(err, LW_E_SHAPE, "latents do not fit the size asked for");
    memcpy(x->data, given->t.data, lw_tensor_bytes(x));
    return LW_OK;
}

static lw_status denoise(const fake *f, lw_task *t, lw_err *err)
{
    const lw_msg *m = t->msg;
    int64_t n = (int64_t)lw_msg_get(m, n, 1), steps = (int64_t)lw_msg_get(m, steps, 8);
    int64_t first = (int64_t)lw_msg_get(m, start_step, 0);
    int64_t preview_every = (int64_t)lw_msg_get(m, preview_every, 0);
    int64_t checkpoint_every = (int64_t)lw_msg_get(m, checkpoint_every, 0);
    int64_t shape[4] = { n, CHANNELS, (int64_t)lw_msg_get(m, height, 64) / DOWN,
                         (int64_t)lw_msg_get(m, width, 64) / DOWN };
    int64_t each = shape[1] * shape[2] * shape[3];
    uint64_t text =
        hash_tensor(m, LW_T_NEGATIVE_EMBEDS, hash_tensor(m, LW_T_PROMPT_EMBEDS, HASH_START));
    lw_tensor x;

    if (!lw_msg_tensor_find(m, LW_T_PROMPT_EMBEDS))
        return lw_fail(err, LW_E_INVALID, "prompt_embeds are missing");
    LW_TRY(lw_tensor_alloc(t->arena, LW_F32, 4, shape, &x, err));
    LW_TRY(start_latents(t, &x, err));
    for (int64_t i = 0; i < n; i++) {
        float *v = lw_f32(&x) + i * each;
        lw_tensor one = lw_tensor_nd(v, LW_F32, 3, shape + 1);

        lw_task_picture(t, (uint64_t)i);
        for (int64_t step = first + 1; step <= steps; step++) {
            LW_TRY(work(f, t, step, err));
            for (int64_t j = 0; j < each; j++)
                v[j] = 0.5f * v[j] + 0.5f * value(text + (uint64_t)step, (uint64_t)j);
            if (checkpoint_every > 0 && n == 1 && step < steps && step % checkpoint_every == 0)
                lw_task_checkpoint(t, (uint64_t)step, &one);
            if (preview_every > 0 && step < steps && step % preview_every == 0)
                lw_task_preview(t, (uint64_t)step, &one);
            lw_task_progress(t, (uint64_t)step, (uint64_t)steps,
                             1.0 - (double)step / (double)steps);
        }
    }
    lw_msg_set(t->result, seed, lw_msg_get(m, seed, 0));
    return lw_msg_tensor_add(t->result, LW_T_LATENTS, &x, NULL, err);
}

static lw_status decode(const fake *f, lw_task *t, lw_err *err)
{
    const lw_msg_tensor *in = lw_msg_tensor_find(t->msg, LW_T_LATENTS);
    int64_t shape[4];
    lw_tensor z, image;

    if (!in || in->t.rank != 4 || in->t.shape[1] < 3)
        return lw_fail(err, LW_E_SHAPE, "latents [n, C, h, w] are missing");
    LW_TRY(work(f, t, 1, err));
    LW_TRY(lw_msg_tensor_copy(in, t->arena, true, &z, err));
    shape[0] = z.shape[0];
    shape[1] = z.shape[2] * DOWN;
    shape[2] = z.shape[3] * DOWN;
    shape[3] = 3;
    LW_TRY(lw_tensor_alloc(t->arena, LW_U8, 4, shape, &image, err));
    for (int64_t i = 0, at = 0; i < shape[0]; i++)
        for (int64_t y = 0; y < shape[1]; y++)
            for (int64_t x = 0; x < shape[2]; x++)
                for (int64_t c = 0; c < 3; c++) {
                    int64_t k = ((i * z.shape[1] + c) * z.shape[2] + y / DOWN) * z.shape[3];

                    ((uint8_t *)image.data)[at++] =
                        (uint8_t)(127.5f + 127.0f * lw_f32(&z)[k + x / DOWN]);
                }
    lw_task_progress(t, 1, 1, 0);
    return lw_msg_tensor_add(t->result, LW_T_IMAGE, &image, NULL, err);
}

static lw_status encode_image(const fake *f, lw_task *t, lw_err *err)
{
    const lw_msg_tensor *in = lw_msg_tensor_find(t->msg, LW_T_IMAGE);
    int64_t shape[4];
    lw_tensor z;

    if (!in || in->t.rank != 4 || in->t.dtype != LW_U8)
        return lw_fail(err, LW_E_SHAPE, "image [n, H, W, 3] uint8 is missing");
    LW_TRY(work(f, t, 1, err));
    shape[0] = in->t.shape[0];
    shape[1] = CHANNELS;
    shape[2] = in->t.shape[1] / DOWN;
    shape[3] = in->t.shape[2] / DOWN;
    LW_TRY(lw_tensor_alloc(t->arena, LW_F32, 4, shape, &z, err));
    for (int64_t i = 0; i < lw_tensor_count(&z); i++)
        lw_f32(&z)[i] = value(hash(in->t.data, lw_tensor_bytes(&in->t), HASH_START), (uint64_t)i);
    return lw_msg_tensor_add(t->result, LW_T_LATENTS, &z, NULL, err);
}

static lw_status handle(void *self, lw_task *t, lw_err *err)
{
    switch (t->msg->op) {
    case LW_OP_ENCODE:
        return encode(self, t, err);
    case LW_OP_DENOISE:
        return denoise(self, t, err);
    case LW_OP_DECODE:
        return decode(self, t, err);
    default:
        return encode_image(self, t, err);
    }
}

/* ---- the service ---- */

static fake the_fake;

static lw_status load(const lw_service_config *c, void **ret_self, lw_err *err)
{
    const char *error = getenv("LATENTWIRE_FAKE_ERROR");
    fake *f = &the_fake;

    (void)c;
    (void)err;
    f->dim = (uint64_t)env_int("LATENTWIRE_FAKE_DIM", DIM);
    f->step_ms = env_int("LATENTWIRE_FAKE_STEP_MS", 0);
    f->crash_at = env_int("LATENTWIRE_FAKE_CRASH_AT", -1);
    f->hang_at = env_int("LATENTWIRE_FAKE_HANG_AT", -1);
    f->error_at = env_int("LATENTWIRE_FAKE_ERROR_AT", -1);
    f->error = error ? lw_status_from_name(error, strlen(error)) : LW_E_INTERNAL;
    f->once = getenv("LATENTWIRE_FAKE_ONCE");
    *ret_self = f;
    return LW_OK;
}

static void info(void *self, lw_contract *ret)
{
    const fake *f = self;

    lw_contract_set(ret, model_id, "fake");
    lw_contract_set(ret, weights_digest, "00");
    lw_contract_set(ret, backend, "fake");
    lw_contract_set(ret, precision, "f32");
    switch (f->role) {
    case LW_ROLE_ENCODER:
        lw_contract_set(ret, dim, f->dim);
        lw_contract_set(ret, blocks, 35);
        lw_contract_set(ret, normed, false);
        lw_contract_set(ret, scale, "raw");
        lw_contract_set(ret, tokenizer_digest, "00");
        lw_contract_set(ret, max_tokens, 512);
        break;
    case LW_ROLE_DENOISER:
        lw_contract_set(ret, cap_dim, f->dim);
        lw_contract_set(ret, latent_channels, CHANNELS);
        lw_contract_set(ret, patch, 2);
        lw_contract_set(ret, shift, 3.0);
        lw_contract_set(ret, max_tokens, 512);
        break;
    default:
        lw_contract_set(ret, latent_channels, CHANNELS);
        lw_contract_set(ret, downscale, DOWN);
        lw_contract_set(ret, scaling_factor, 0.3611);
        lw_contract_set(ret, shift_factor, 0.1159);
        break;
    }
}

static void unload(void *self)
{
    (void)self;
}

int main(int argc, char **argv)
{
    lw_service s = { .program = "latentwire-fakesvc",
                     .about = "A worker without a model, for tests.",
                     .load = load,
                     .info = info,
                     .handle = handle,
                     .unload = unload };

    if (argc > 1)
        s.role = lw_role_from_name(argv[1], strlen(argv[1]));
    if (s.role == LW_ROLE_NONE || s.role == LW_ROLE_CLIENT) {
        fprintf(stderr, "usage: latentwire-fakesvc encoder|denoiser|decoder [OPTION]...\n");
        return 2;
    }
    the_fake.role = s.role;
    setenv("LATENTWIRE_MODEL", "fake", 0);
    return lw_service_main(&s, argc - 1, argv + 1);
}
