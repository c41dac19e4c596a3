#include "dit-svc/service.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/backend.h"
#include "common/json.h"
#include "common/log.h"
#include "common/model.h"
#include "common/rng.h"
#include "dit-svc/s3dit.h"
#include "dit-svc/sampler.h"
#include "proto/packet.h"

/*
 * The denoiser service: a request is checked and its memory planned before any work, then each
 * picture walks down the schedule by itself, so that a batch has the bits of its pictures alone.
 * The network is in s3dit.c, the arithmetic around it in sampler.c.
 */

#define DEFAULT_STEPS 8 /* Z-Image-Turbo */
#define DEFAULT_SHIFT 3.0
#define SCHEDULER     "FlowMatchEulerDiscreteScheduler"
#define MAX_PICTURES  64
#define MAX_GUIDANCE  1000.0
#define DOWNSCALE     8                   /* picture pixels per latent pixel: three halvings */
#define KEEP_BYTES    ((size_t)256 << 20) /* memory kept between requests; more is given back */
#define MIB           1048576.0

typedef struct dit_service {
    lw_backend backend;
    lw_dit *dit;
    double shift;
    lw_picture_defaults usual;
    lw_arena scratch;
    char model_id[256], digest[65];
} dit_service;

/** A request, checked. */
typedef struct job {
    dit_service *s;
    lw_task *task;
    lw_dit_shape shape;
    lw_schedule schedule;
    lw_guidance guidance;
    const lw_tensor *embeds[LW_DIT_N_CAPTIONS]; /* as received */
    const lw_tensor *latents;                   /* given initial state, or NULL */
    int64_t n, n_items;                         /* pictures, items of one picture's latents */
    uint64_t seed;
    int start;
    uint64_t preview_every, checkpoint_every;
} job;

/* ---- load, info, unload ---------------------------------------------------------------------- */

static void unload(void *self)
{
    dit_service *s = self;

    if (s == NULL)
        return;
    lw_dit_destroy(&s->dit);
    lw_backend_close(&s->backend);
    lw_arena_deinit(&s->scratch);
    free(s);
}

/** The shift of a scheduler configuration; refuses what would make another schedule of it. */
static void read_shift(const json_t *o, const char *path, double *ret, lw_err *err)
{
    static const char *const switches[] = { "use_dynamic_shifting",   "use_karras_sigmas",
                                            "use_exponential_sigmas", "use_beta_sigmas",
                                            "invert_sigmas",          "stochastic_sampling" };
    const char *cls = lw_json_str(o, path, "_class_name", SCHEDULER, err);
    lw_schedule probe;

    if (err->code == LW_OK && strcmp(cls, SCHEDULER) != 0)
        (void)lw_fail(err, LW_E_UNIMPLEMENTED,
                      "%s: _class_name is '%s'; only " SCHEDULER " is offered", path, cls);
    for (size_t i = 0; i < LW_ARRAY_LEN(switches); i++)
        if (lw_json_bool(o, path, switches[i], false, err))
            (void)lw_fail(err, LW_E_UNIMPLEMENTED,
                          "%s: %s is true; only the plain schedule with a fixed shift is offered",
                          path, switches[i]);
    if (lw_json_num(o, path, "num_train_timesteps", true, 1000, err) != 1000)
        (void)lw_fail(err, LW_E_UNIMPLEMENTED, "%s: num_train_timesteps is not 1000", path);
    if (lw_json_num(o, path, "shift_terminal", true, 0, err) != 0)
        (void)lw_fail(err, LW_E_UNIMPLEMENTED, "%s: shift_terminal is set, which is not offered",
                      path);
    *ret = lw_json_num(o, path, "shift", true, DEFAULT_SHIFT, err);
    if (err->code == LW_OK && lw_schedule_make(1, *ret, &probe, err) != LW_OK)
        (void)lw_fail(err, LW_E_FORMAT, "%s: shift %g is out of range", path, *ret);
}

/** The scheduler's shift, from the model folder when it has one. */
static lw_status read_scheduler(dit_service *s, const char *model, lw_err *err)
{
    lw_err local = { 0 }; /* the getters are sticky: start from a clean one */
    char path[4096];
    json_t *o = NULL;

    s->shift = DEFAULT_SHIFT;
    if (snprintf(path, sizeof(path), "%s/scheduler/scheduler_config.json", model) >=
            (int)sizeof(path) ||
        !lw_model_names(path))
        return LW_OK;
    if (lw_json_load(path, &o, &local) == LW_OK && !json_is_object(o))
        (void)lw_fail(&local, LW_E_FORMAT, "%s: expected a JSON object", path);
    if (local.code == LW_OK)
        read_shift(o, path, &s->shift, &local);
    json_decref(o);
    if (local.code != LW_OK && err != NULL)
        *err = local;
    return local.code;
}

static lw_status load_parts(dit_service *s, const lw_service_config *c, lw_err *err)
{
    lw_keep keep;

    if (c->model == NULL || c->model[0] == '\0')
        return lw_fail(err, LW_E_INVALID, "--model: give a model folder or a denoiser file");
    LW_TRY(lw_keep_parse(c->weights, &keep, err));
    LW_TRY(lw_backend_open(&s->backend, c->device, c->precision, c->threads, c->memory_mb, err));
    LW_TRY(lw_dit_create(c->model, keep, &s->backend.k, &s->dit, err));
    LW_TRY(read_scheduler(s, c->model, err));
    LW_TRY(lw_model_defaults(c->model, &s->usual, err));
    lw_model_id(c->model, s->model_id, sizeof(s->model_id));
    return lw_dit_digest(s->dit, s->digest, err);
}

static lw_status load(const lw_service_config *c, void **ret_self, lw_err *err)
{
    dit_service *s = calloc(1, sizeof(*s));
    lw_status status;

    if (s == NULL)
        return lw_fail(err, LW_E_NOMEM, "no memory for the service");
    lw_arena_init(&s->scratch, "request", 0);
    status = load_parts(s, c, err);
    if (status != LW_OK) {
        unload(s);
        return status;
    }
    *ret_self = s;
    return LW_OK;
}

/* Every tenth of the way. */
static void converted(size_t done, size_t total)
{
    if (done * 10 / total == (done - 1) * 10 / total)
        return;
    lw_log(LW_INFO, "converting", LW_KV_INT("tensor", done), LW_KV_INT("of", total));
}

static lw_status convert(const lw_service_config *c, lw_err *err)
{
    lw_backend b;
    lw_status s;

    LW_TRY(lw_backend_open(&b, c->device, "int8", c->threads, c->memory_mb, err));
    s = lw_dit_convert(c->model, c->convert, b.pool, converted, err);
    lw_backend_close(&b);
    return s;
}

static void info(void *self, lw_contract *ret)
{
    const dit_service *s = self;
    const lw_dit_config *c = lw_dit_get_config(s->dit);

    lw_contract_set(ret, model_id, s->model_id);
    lw_contract_set(ret, weights_digest, s->digest);
    lw_contract_set(ret, backend, s->backend.k.name);
    lw_contract_set(ret, precision, lw_dit_is_int8(s->dit) ? "int8" : "f32");
    lw_contract_set(ret, cap_dim, (uint64_t)c->cap_dim);
    lw_contract_set(ret, max_tokens, (uint64_t)lw_dit_max_caption(c));
    lw_contract_set(ret, latent_channels, (uint64_t)c->channels);
    lw_contract_set(ret, patch, (uint64_t)c->patch);
    lw_contract_set(ret, shift, s->shift);
    if (s->usual.width) {
        lw_contract_set(ret, width, (uint64_t)s->usual.width);
        lw_contract_set(ret, height, (uint64_t)s->usual.height);
    }
    if (s->usual.steps)
        lw_contract_set(ret, steps, (uint64_t)s->usual.steps);
}

/* ---- the request ----------------------------------------------------------------------------- */

static lw_status read_sizes(job *j, const lw_msg *m, lw_err *err)
{
    const lw_dit_config *c = lw_dit_get_config(j->s->dit);
    uint64_t multiple = (uint64_t)(DOWNSCALE * c->patch);
    uint64_t width = lw_msg_get(m, width, 0), height = lw_msg_get(m, height, 0);
    uint64_t n = lw_msg_get(m, n, 1);

    if (!lw_msg_has(m, width) || !lw_msg_has(m, height))
        return lw_fail(err, LW_E_INVALID, "width and height: the request has none");
    if (width < multiple || height < multiple || width % multiple != 0 || height % multiple != 0 ||
        width > LW_DIT_MAX_SIDE || height > LW_DIT_MAX_SIDE)
        return lw_fail(err, LW_E_INVALID,
                       "size %llux%llu: expected multiples of %llu from %llu to %d",
                       (unsigned long long)width, (unsigned long long)height,
                       (unsigned long long)multiple, (unsigned long long)multiple, LW_DIT_MAX_SIDE);
    j->shape.w = (int64_t)width / DOWNSCALE;
    j->shape.h = (int64_t)height / DOWNSCALE;
    j->n_items = c->channels * j->shape.h * j->shape.w;
    if (n < 1 || n > MAX_PICTURES)
        return lw_fail(err, LW_E_INVALID, "n %llu: expected 1 to %d pictures",
                       (unsigned long long)n, MAX_PICTURES);
    j->n = (int64_t)n;
    if ((uint64_t)j->n * (uint64_t)j->n_items * sizeof(float) > LW_MAX_FRAME_BYTES)
        return lw_fail(err, LW_E_TOO_LARGE,
                       "the latents would be %.1f MiB, and a message carries at most %.1f; ask for "
                       "fewer or smaller pictures",
                       (double)j->n * (double)j->n_items * sizeof(float) / MIB,
                       (double)LW_MAX_FRAME_BYTES / MIB);
    return LW_OK;
}

/** The levels as given, else those that the number of steps and the shift make. */
static lw_status read_schedule(job *j, const lw_msg *m, lw_err *err)
{
    uint64_t steps = lw_msg_get(m, steps, DEFAULT_STEPS);

    if (!lw_msg_has(m, sigmas)) {
        if (steps > LW_MAX_STEPS) /* before it is narrowed */
            steps = LW_MAX_STEPS + 1;
        return lw_schedule_make((int64_t)steps, lw_msg_get(m, shift, j->s->shift), &j->schedule,
                                err);
    }
    if (lw_msg_has(m, steps) && steps + 1 != m->sigmas.n)
        return lw_fail(err, LW_E_INVALID, "sigmas: %u values for %llu steps; expected one more",
                       m->sigmas.n, (unsigned long long)steps);
    return lw_schedule_given(m->sigmas.v, m->sigmas.n, &j->schedule, err);
}

static lw_status read_settings(job *j, const lw_msg *m, lw_err *err)
{
    uint64_t start = lw_msg_get(m, start_step, 0);

    LW_TRY(read_schedule(j, m, err));
    j->shape.n_steps = j->schedule.n_steps;
    j->seed = lw_msg_get(m, seed, 0);
    j->preview_every = lw_msg_get(m, preview_every, 0);
    j->checkpoint_every = lw_msg_get(m, checkpoint_every, 0);
    j->guidance = (lw_guidance){ .scale = lw_msg_get(m, guidance, 0.0),
                                 .normalization = lw_msg_get(m, cfg_normalization, 0.0),
                                 .truncation = lw_msg_get(m, cfg_truncation, 1.0) };
    if (!(j->guidance.scale >= 0 && j->guidance.scale <= MAX_GUIDANCE) ||
        !(j->guidance.normalization >= 0 && j->guidance.normalization <= MAX_GUIDANCE) ||
        !isfinite(j->guidance.truncation))
        return lw_fail(err, LW_E_INVALID,
                       "guidance %g, cfg_normalization %g, cfg_truncation %g: expected numbers, "
                       "the first two from 0 to %g",
                       j->guidance.scale, j->guidance.normalization, j->guidance.truncation,
                       MAX_GUIDANCE);
    if (start >= (uint64_t)j->schedule.n_steps)
        return lw_fail(err, LW_E_INVALID, "start_step %llu: the run has %d steps",
                       (unsigned long long)start, j->schedule.n_steps);
    j->start = (int)start;
    return LW_OK;
}

static lw_status read_tensors(job *j, const lw_msg *m, lw_err *err)
{
    static const char *const names[LW_DIT_N_CAPTIONS] = { LW_T_PROMPT_EMBEDS,
                                                          LW_T_NEGATIVE_EMBEDS };
    const lw_dit_config *c = lw_dit_get_config(j->s->dit);
    const lw_msg_tensor *mt;
    char text[128];

    for (int i = 0; i < LW_DIT_N_CAPTIONS; i++) {
        if (i == LW_DIT_NEGATIVE && !(j->guidance.scale > 0))
            continue;
        mt = lw_msg_tensor_find(m, names[i]);
        if (mt == NULL)
            return lw_fail(err, LW_E_INVALID, "%s: the request has no tensor of that name%s",
                           names[i], i == LW_DIT_NEGATIVE ? ", which guidance needs" : "");
        if (mt->t.rank != 2 || !lw_dtype_is_float(mt->t.dtype))
            return lw_fail(err, LW_E_SHAPE, "%s: expected a float type [tokens, %lld], got %s",
                           names[i], (long long)c->cap_dim,
                           lw_tensor_describe(&mt->t, text, sizeof(text)));
        j->embeds[i] = &mt->t;
        j->shape.n_caption[i] = mt->t.shape[0];
    }
    mt = lw_msg_tensor_find(m, LW_T_LATENTS);
    if (mt == NULL)
        return j->start == 0 ? LW_OK
                             : lw_fail(err, LW_E_INVALID,
                                       "start_step %d: the request has no latents", j->start);
    if (mt->t.rank != 4 || !lw_dtype_is_float(mt->t.dtype) || mt->t.shape[0] != j->n ||
        mt->t.shape[1] != c->channels || mt->t.shape[2] != j->shape.h ||
        mt->t.shape[3] != j->shape.w)
        return lw_fail(err, LW_E_SHAPE,
                       LW_T_LATENTS ": expected a float type [%lld, %lld, %lld, %lld], got %s",
                       (long long)j->n, (long long)c->channels, (long long)j->shape.h,
                       (long long)j->shape.w, lw_tensor_describe(&mt->t, text, sizeof(text)));
    j->latents = &mt->t;
    return LW_OK;
}

/** What the request takes: the run, captions as f32, network outputs, and all pictures. */
static lw_status check_memory(const job *j, lw_err *err)
{
    const lw_dit_config *c = lw_dit_get_config(j->s->dit);
    size_t bytes, budget = lw_backend_budget(&j->s->backend);
    int64_t max = lw_dit_max_caption(c);

    for (int i = 0; i < LW_DIT_N_CAPTIONS; i++)
        if (j->shape.n_caption[i] > max)
            return lw_fail(err, LW_E_SHAPE, "the embedding has %lld rows; expected 1 to %lld",
                           (long long)j->shape.n_caption[i], (long long)max);
    bytes = lw_dit_run_bytes(j->s->dit, &j->shape) +
            (size_t)(j->shape.n_caption[0] + j->shape.n_caption[1]) * (size_t)c->cap_dim *
                sizeof(float) +
            (size_t)(j->n + 2) * (size_t)j->n_items * sizeof(float);
    if (bytes > budget)
        return lw_fail(err, LW_E_TOO_LARGE,
                       "denoising %lldx%lld pixels needs %.1f MiB, and the budget of a request is "
                       "%.1f MiB; ask for a smaller picture or raise --memory-mb",
                       (long long)j->shape.w * DOWNSCALE, (long long)j->shape.h * DOWNSCALE,
                       (double)bytes / MIB, (double)budget / MIB);
    return LW_OK;
}

/* ---- the walk down the schedule -------------------------------------------------------------- */

static bool keep_going(void *arg)
{
    return !lw_task_cancelled(arg);
}

static lw_status widen(const lw_tensor *src, lw_tensor *dst, const char *what, lw_err *err)
{
    if (!lw_dtype_convert(dst->data, LW_F32, src->data, src->dtype, (size_t)lw_tensor_count(src)))
        return lw_fail(err, LW_E_SHAPE, "%s: %s cannot be widened", what,
                       lw_dtype_name(src->dtype));
    if (!lw_tensor_all_finite(dst))
        return lw_fail(err, LW_E_INVALID, "%s: NaN or infinity in them", what);
    return LW_OK;
}

static lw_status begin(job *j, const lw_dit_watch *watch, lw_dit_run **ret, lw_err *err)
{
    lw_tensor captions[LW_DIT_N_CAPTIONS] = { { 0 } };

    for (int i = 0; i < LW_DIT_N_CAPTIONS; i++) {
        if (j->embeds[i] == NULL)
            continue;
        LW_TRY(lw_tensor_alloc(&j->s->scratch, LW_F32, 2, j->embeds[i]->shape, &captions[i], err));
        LW_TRY(widen(j->embeds[i], &captions[i], "the embeddings", err));
    }
    return lw_dit_begin(j->s->dit, &j->s->scratch, &j->shape, j->schedule.t, captions, watch, ret,
                        err);
}

/** The state before the first step: given, or the noise of seed + i. */
static lw_status initial(const job *j, int64_t i, lw_tensor *x, lw_err *err)
{
    lw_rng rng;

    if (j->latents != NULL) {
        lw_tensor one = *x;

        one.dtype = j->latents->dtype;
        one.data =
            (char *)j->latents->data + (size_t)(i * j->n_items) * lw_dtype_size(j->latents->dtype);
        return widen(&one, x, "the latents", err);
    }
    lw_rng_seed(&rng, j->seed + (uint64_t)i);
    lw_rng_normal(&rng, lw_f32(x), (size_t)j->n_items);
    return LW_OK;
}

static void report(const job *j, int step, const lw_tensor *x, lw_tensor *out)
{
    uint64_t done = (uint64_t)step + 1, total = (uint64_t)j->schedule.n_steps;

    if (j->checkpoint_every > 0 && j->n == 1 && done % j->checkpoint_every == 0 && done < total)
        lw_task_checkpoint(j->task, done, x);
    if (j->preview_every > 0 && done % j->preview_every == 0 && done < total)
        lw_task_preview(j->task, done, out);
    lw_task_progress(j->task, done, total, (double)j->schedule.sigma[done]);
}

/** x [C, h, w] from noise to the picture's latents. out and neg are room for network outputs. */
static lw_status denoise_one(const job *j, lw_dit_run *run, lw_tensor *x, lw_tensor *out,
                             lw_tensor *neg, const lw_dit_watch *watch, lw_err *err)
{
    const lw_schedule *s = &j->schedule;

    for (int i = j->start; i < s->n_steps; i++) {
        bool preview = j->preview_every > 0 && (uint64_t)(i + 1) % j->preview_every == 0;

        LW_TRY(lw_dit_forward(run, i, LW_DIT_POSITIVE, x, out, watch, err));
        if (lw_guidance_active(&j->guidance, s->t[i])) {
            LW_TRY(lw_dit_forward(run, i, LW_DIT_NEGATIVE, x, neg, watch, err));
            lw_guide(&j->guidance, lw_f32(out), lw_f32(neg), j->n_items);
        }
        if (preview)
            lw_predict_x0(lw_f32(neg), lw_f32(x), lw_f32(out), j->n_items, s->sigma[i]);
        lw_euler_step(lw_f32(x), lw_f32(out), j->n_items, s->sigma[i], s->sigma[i + 1]);
        if (!lw_tensor_all_finite(x))
            return lw_fail(err, LW_E_INTERNAL,
                           "step %d of %d gave NaN or infinity; the weights or the embeddings are "
                           "out of range",
                           i + 1, s->n_steps);
        report(j, i, x, neg);
    }
    return LW_OK;
}

static lw_status denoise(job *j, lw_err *err)
{
    const lw_dit_config *c = lw_dit_get_config(j->s->dit);
    lw_dit_watch watch = { keep_going, j->task };
    int64_t shape[4] = { j->n, c->channels, j->shape.h, j->shape.w };
    lw_tensor result, out, neg;
    lw_dit_run *run = NULL;
    double *sigmas;

    LW_TRY(lw_tensor_alloc(j->task->arena, LW_F32, 4, shape, &result, err));
    sigmas = lw_arena_calloc(j->task->arena, (size_t)j->schedule.n_steps + 1, sizeof(*sigmas), err);
    if (sigmas == NULL)
        return LW_E_NOMEM;
    LW_TRY(lw_tensor_alloc(&j->s->scratch, LW_F32, 3, shape + 1, &out, err));
    LW_TRY(lw_tensor_alloc(&j->s->scratch, LW_F32, 3, shape + 1, &neg, err));
    LW_TRY(begin(j, &watch, &run, err));
    for (int64_t i = 0; i < j->n; i++) {
        lw_tensor x = lw_tensor_nd(lw_f32(&result) + i * j->n_items, LW_F32, 3, shape + 1);

        lw_task_picture(j->task, (uint64_t)i);
        LW_TRY(initial(j, i, &x, err));
        LW_TRY(denoise_one(j, run, &x, &out, &neg, &watch, err));
    }
    for (int i = 0; i <= j->schedule.n_steps; i++)
        sigmas[i] = (double)j->schedule.sigma[i];
    lw_msg_set(j->task->result, seed, j->seed);
    lw_msg_set(j->task->result, sigmas,
               ((lw_f64s){ .v = sigmas, .n = (uint32_t)j->schedule.n_steps + 1 }));
    return lw_msg_tensor_add(j->task->result, LW_T_LATENTS, &result, NULL, err);
}

static lw_status handle(void *self, lw_task *t, lw_err *err)
{
    dit_service *s = self;
    job j = { .s = s, .task = t };
    lw_status status;

    LW_TRY(read_sizes(&j, t->msg, err));
    LW_TRY(read_settings(&j, t->msg, err));
    LW_TRY(read_tensors(&j, t->msg, err));
    LW_TRY(check_memory(&j, err));
    lw_arena_reset(&s->scratch);
    status = denoise(&j, err);
    if (s->scratch.reserved_bytes > KEEP_BYTES)
        lw_arena_deinit(&s->scratch);
    return status;
}

const lw_service lw_dit_service = {
    .role = LW_ROLE_DENOISER,
    .program = "dit-svc",
    .about = "Denoiser: embeddings in, latents out (S3-DiT of Z-Image).",
    .load = load,
    .convert = convert,
    .info = info,
    .handle = handle,
    .unload = unload,
};
