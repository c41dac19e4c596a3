/*
 * What 8 bits do to each step of the demo model, whose weights are trained: the network's output
 * against that of f32 from the same latents, and how far the latents have moved apart when either
 * precision walks the whole schedule by itself. Relative errors, rms of the difference by rms of
 * what f32 gives, over a few prompts and seeds. docs/numerics.md states the table that this prints.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"
#include "dit-svc/s3dit.h"
#include "dit-svc/sampler.h"
#include "encoder-svc/service.h"

enum { STEPS = 8, SIDE = 16, N_SEEDS = 4, MAX_ITEMS = 16 * SIDE * SIDE };

static const char *const prompts[] = {
    "a red circle",
    "a large green star below a small red circle",
    "a small yellow heart on a black background",
    "a blue square to the left of an orange triangle",
};

#define ok(expr)                                                                                   \
    do {                                                                                           \
        lw_err err_ = { 0 }, *err = &err_;                                                         \
        lw_status s_ = (expr);                                                                     \
        if (s_ != LW_OK)                                                                           \
            fail_msg("%s: %s: %s", #expr, lw_status_name(s_), err_.text);                          \
    } while (0)

/* Largest relative errors; half as much again as was seen (1.38 %, 1.57 % and 0.78 %). */
#define OUTPUT_BOUND    0.021
#define LATENTS_BOUND   0.024
#define EMBEDDING_BOUND 0.012

static char model_path[4096];

typedef struct network {
    lw_pool *pool;
    lw_kernels k;
    lw_dit *m;
} network;

static void network_open(network *n, lw_precision precision)
{
    *n = (network){ 0 };
    ok(lw_pool_create(2, &n->pool, err));
    ok(lw_kernels_init_cpu(&n->k, n->pool, err));
    n->k.precision = precision;
    ok(lw_dit_create(model_path, LW_KEEP_STORED, &n->k, &n->m, err));
    assert_int_equal(lw_dit_is_int8(n->m), precision == LW_PRECISION_INT8);
}

static void network_close(network *n)
{
    lw_dit_destroy(&n->m);
    lw_kernels_deinit(&n->k);
    lw_pool_destroy(&n->pool);
}

/** The embedding of a prompt, in f32 or 8 bits, in `a`. */
static lw_tensor embed(const char *precision, const char *prompt, lw_arena *a)
{
    lw_service_config c = { .model = model_path, .threads = 2, .precision = precision };
    static lw_msg request, result;
    const lw_msg_tensor *t;
    void *self = NULL;
    lw_arena work;
    lw_tensor ret;

    lw_arena_init(&work, "encode", 0);
    ok(lw_encoder_service.load(&c, &self, err));
    lw_msg_init(&request, LW_MSG_TASK, (const uint8_t *)"0123456789abcdef");
    lw_msg_set(&request, op, LW_OP_ENCODE);
    lw_msg_set(&request, prompt, prompt);
    ok(lw_service_call(&lw_encoder_service, self, &request, &work, &result, err));
    t = lw_msg_tensor_find(&result, LW_T_PROMPT_EMBEDS);
    assert_non_null(t);
    ok(lw_tensor_alloc(a, LW_F32, 2, t->t.shape, &ret, err));
    memcpy(ret.data, t->t.data, lw_tensor_bytes(&ret));
    lw_encoder_service.unload(self);
    lw_arena_deinit(&work);
    return ret;
}

static lw_dit_run *begin(network *n, lw_arena *a, const lw_tensor *embedding, const float *t)
{
    lw_dit_shape s = { .h = SIDE, .w = SIDE, .n_steps = STEPS };
    lw_tensor captions[LW_DIT_N_CAPTIONS] = { { 0 } };
    lw_dit_run *run = NULL;

    s.n_caption[LW_DIT_POSITIVE] = embedding->shape[0];
    ok(lw_tensor_alloc(a, LW_F32, 2, embedding->shape, &captions[0], err));
    memcpy(captions[0].data, embedding->data, lw_tensor_bytes(embedding));
    ok(lw_dit_begin(n->m, a, &s, t, captions, NULL, &run, err));
    return run;
}

static lw_tensor latents(float *data)
{
    return lw_tensor_nd(data, LW_F32, 3, (int64_t[]){ 16, SIDE, SIDE });
}

static void forward(lw_dit_run *run, int step, float *x, float *out)
{
    lw_tensor tx = latents(x), ty = latents(out);

    ok(lw_dit_forward(run, step, LW_DIT_POSITIVE, &tx, &ty, NULL, err));
}

/** rms of got - want by rms of want. */
static double relative(const float *got, const float *want, int64_t n)
{
    double off = 0, size = 0;

    for (int64_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];

        off += d * d;
        size += (double)want[i] * (double)want[i];
    }
    return sqrt(off / size);
}

/** Over all runs: sum and largest. */
typedef struct spread {
    double sum, max;
} spread;

static void add(spread *s, double v)
{
    s->sum += v;
    s->max = v > s->max ? v : s->max;
}

static void test_steps(void **state)
{
    static float x[MAX_ITEMS], x8[MAX_ITEMS], out[MAX_ITEMS], out8[MAX_ITEMS];
    int n_runs = (int)LW_ARRAY_LEN(prompts) * N_SEEDS;
    spread output[STEPS] = { 0 }, walk[STEPS] = { 0 }, rows = { 0 };
    network exact, narrow;
    lw_schedule sched;

    (void)state;
    network_open(&exact, LW_PRECISION_F32);
    network_open(&narrow, LW_PRECISION_INT8);
    ok(lw_schedule_make(STEPS, 3, &sched, err));
    for (size_t p = 0; p < LW_ARRAY_LEN(prompts); p++) {
        lw_arena a;

        lw_arena_init(&a, "test", 0);
        lw_tensor embedding = embed("f32", prompts[p], &a), other = embed("int8", prompts[p], &a);
        lw_dit_run *run = begin(&exact, &a, &embedding, sched.t);
        lw_dit_run *run8 = begin(&narrow, &a, &embedding, sched.t);

        add(&rows, relative(lw_f32(&other), lw_f32(&embedding), lw_tensor_count(&embedding)));
        for (int seed = 0; seed < N_SEEDS; seed++) {
            lw_rng rng;

            lw_rng_seed(&rng, (uint64_t)seed);
            lw_rng_normal(&rng, x, MAX_ITEMS);
            memcpy(x8, x, sizeof(x8));
            for (int i = 0; i < STEPS; i++) {
                forward(run, i, x, out);
                forward(run8, i, x, out8);
                add(&output[i], relative(out8, out, MAX_ITEMS));
                forward(run8, i, x8, out8);
                lw_euler_step(x, out, MAX_ITEMS, sched.sigma[i], sched.sigma[i + 1]);
                lw_euler_step(x8, out8, MAX_ITEMS, sched.sigma[i], sched.sigma[i + 1]);
                add(&walk[i], relative(x8, x, MAX_ITEMS));
            }
        }
        lw_arena_deinit(&a);
    }
    print_message("    embedding %.2f %%, at most %.2f %%\n",
                  100 * rows.sum / (double)LW_ARRAY_LEN(prompts), 100 * rows.max);
    assert_true(rows.sum > 0 && rows.max < EMBEDDING_BOUND);
    for (int i = 0; i < STEPS; i++) {
        print_message(
            "    step %d: output %.2f %%, at most %.2f %%; latents %.2f %%, at most %.2f %%\n",
            i + 1, 100 * output[i].sum / n_runs, 100 * output[i].max, 100 * walk[i].sum / n_runs,
            100 * walk[i].max);
        assert_true(output[i].sum > 0 && output[i].max < OUTPUT_BOUND);
        assert_true(walk[i].max < LATENTS_BOUND);
    }
    network_close(&exact);
    network_close(&narrow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),
    };
    const char *given = getenv("LW_DEMO_MODEL"), *root = getenv("LW_SOURCE_ROOT");

    snprintf(model_path, sizeof(model_path), "%s%s",
             given  ? given
             : root ? root
                    : ".",
             given ? "" : "/models/demo");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
