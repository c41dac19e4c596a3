/*
 * The three stages measured as a user meets them: the services of a private cluster draw pictures,
 * and tell how long each stage and each step took. The first picture after the start has one step
 * and counts for the start alone.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/bench.h"
#include "common/clock.h"
#include "common/stats.h"
#include "orchestrate/bench/bench.h"
#include "orchestrate/run.h"

#define ROLES        (1u << LW_ROLE_ENCODER | 1u << LW_ROLE_DENOISER | 1u << LW_ROLE_DECODER)
#define SEED         1
#define MIN_STEPS    2
#define PROMPT_BYTES 4096

static const struct {
    lw_role role;
    lw_op op;
    const char *program, *ms_key;
} stages[] = {
    { LW_ROLE_ENCODER, LW_OP_ENCODE, "encoder-svc", "encode_ms" },
    { LW_ROLE_DENOISER, LW_OP_DENOISE, "dit-svc", "denoise_ms" },
    { LW_ROLE_DECODER, LW_OP_DECODE, "vae-svc", "decode_ms" },
};

/* One precision. */
typedef struct measurement {
    const lw_bench_stages *b;
    lw_settings opt;
    lw_run *run;
    int threads[LW_N_ROLES];
    uint64_t first_number, n_pictures; /* a prompt has a number, so that none was encoded before */
    double first_ms[LW_N_ROLES];       /* the first work of each service */
    json_t *workers[LW_N_ROLES];       /* who they are */
} measurement;

/* One picture, as its answer and its progress tell. */
typedef struct picture {
    measurement *m;
    json_t *samples; /* arrays of numbers by key; NULL: of the start */
    uint64_t last_step, n_tokens;
    double last_ms;
    bool no_memory;
} picture;

static lw_status no_memory(lw_err *err)
{
    return lw_fail(err, LW_E_NOMEM, "no memory for a measurement");
}

/* ---- one picture ---- */

static void add_sample(picture *p, const char *key, double ms)
{
    json_t *list = json_object_get(p->samples, key);

    if (!list && json_object_set_new(p->samples, key, json_array()) == 0)
        list = json_object_get(p->samples, key);
    if (json_array_append_new(list, json_real(ms)))
        p->no_memory = true;
}

/* Progress that was lost on the way leaves the mean of the steps between. */
static void on_progress(void *arg, const lw_msg *m)
{
    picture *p = arg;
    const uint64_t step = lw_msg_get(m, step, 0);
    const double ms = lw_msg_get(m, t_ms, 0);

    if (!p->samples || lw_msg_get(m, op, LW_OP_NONE) != LW_OP_DENOISE || !lw_msg_has(m, t_ms) ||
        step <= p->last_step)
        return;
    if (step == 1)
        add_sample(p, "denoise_first_step_ms", ms);
    else if (p->last_step > 0)
        add_sample(p, "denoise_step_ms", (ms - p->last_ms) / (double)(step - p->last_step));
    p->last_step = step;
    p->last_ms = ms;
}

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

static lw_status on_result(void *arg, const lw_msg *submit, const lw_msg *result, lw_err *err)
{
    picture *p = arg;
    measurement *m = p->m;

    (void)submit;
    for (size_t i = 0; i < LW_ARRAY_LEN(stages); i++) {
        const lw_stage_info *s = &result->stages.by_op[stages[i].op];
        const lw_role role = stages[i].role;

        if (!lw_msg_has(result, stages) || !s->has)
            return lw_fail(err, LW_E_FORMAT, "the hub at %s does not say how long `%s` took",
                           lw_run_hub(m->run), lw_op_name(stages[i].op));
        if (p->samples)
            add_sample(p, stages[i].ms_key, s->t_ms);
        else
            m->first_ms[role] = s->t_ms;
        json_decref(m->workers[role]);
        m->workers[role] =
            json_pack("{s:s, s:s, s:s, s:s, s:s}", "service", stages[i].program, "model_id",
                      or_empty(s->model_id), "weights_digest", or_empty(s->weights_digest),
                      "backend", or_empty(s->backend), "precision", or_empty(s->precision));
        if (!m->workers[role])
            return no_memory(err);
    }
    p->n_tokens = lw_msg_get(result, n_tokens, 0);
    return LW_OK;
}

/* samples NULL: only what it says of the start. */
static lw_status draw(measurement *m, int width, int height, int steps, json_t *samples,
                      uint64_t *ret_n_tokens, lw_err *err)
{
    picture p = { .m = m, .samples = samples };
    char prompt[PROMPT_BYTES];
    lw_msg submit;
    lw_job job = {
        .submit = &submit, .on_result = on_result, .on_progress = on_progress, .arg = &p
    };
    int64_t start;

    if (snprintf(prompt, sizeof(prompt), "%s, number %06llu",
                 m->b->prompt ? m->b->prompt : "a red circle on a blue background",
                 (unsigned long long)(m->first_number + m->n_pictures++) % 1000000) >=
        (int)sizeof(prompt))
        return lw_fail(err, LW_E_INVALID, "--prompt is longer than %d bytes", (int)sizeof(prompt));
    lw_msg_init(&submit, LW_MSG_SUBMIT, NULL);
    lw_msg_set(&submit, from, LW_ARTEFACT_PROMPT);
    lw_msg_set(&submit, to, LW_ARTEFACT_IMAGE);
    lw_msg_set(&submit, prompt, prompt);
    lw_msg_set(&submit, width, (uint64_t)width);
    lw_msg_set(&submit, height, (uint64_t)height);
    lw_msg_set(&submit, steps, (uint64_t)steps);
    lw_msg_set(&submit, seed, SEED);
    start = lw_now_ns();
    LW_TRY(lw_run_jobs(m->run, &job, 1, err));
    if (samples)
        add_sample(&p, "picture_ms", (double)(lw_now_ns() - start) / 1e6);
    *ret_n_tokens = p.n_tokens;
    return p.no_memory ? no_memory(err) : LW_OK;
}

/* ---- one size ---- */

/* The median of a list of numbers; null when there are none. */
static json_t *median(const json_t *list)
{
    const size_t n = json_array_size(list);
    double *v = n ? malloc(n * sizeof(*v)) : NULL;
    json_t *ret = NULL;

    for (size_t i = 0; v && i < n; i++)
        v[i] = json_real_value(json_array_get(list, i));
    if (n == 0)
        ret = json_null();
    else if (v)
        ret = json_real(lw_median(v, n));
    free(v);
    return ret;
}

static json_t *describe_size(const json_t *samples, int width, int height, int steps,
                             uint64_t n_tokens)
{
    static const char *const keys[] = { "encode_ms",       "denoise_first_step_ms",
                                        "denoise_step_ms", "denoise_ms",
                                        "decode_ms",       "picture_ms" };
    json_t *o = json_pack("{s:i, s:i, s:i, s:I, s:O}", "width", width, "height", height, "steps",
                          steps, "n_tokens", (json_int_t)n_tokens, "samples", samples);

    for (size_t i = 0; i < LW_ARRAY_LEN(keys); i++)
        if (json_object_set_new(o, keys[i], median(json_object_get(samples, keys[i])))) {
            json_decref(o);
            return NULL;
        }
    return o;
}

static lw_status measure_size(measurement *m, int width, int height, json_t *sizes, lw_err *err)
{
    const lw_model_choice *model = lw_run_model(m->run);
    const int usual = model->steps < MIN_STEPS ? MIN_STEPS : model->steps;
    const int steps = m->b->steps ? (int)m->b->steps : usual;
    json_t *samples = json_object();
    uint64_t n_tokens = 0;
    lw_status s = samples ? LW_OK : no_memory(err);

    for (int64_t i = 0; s == LW_OK && i < m->b->repeat; i++)
        s = draw(m, width, height, steps, samples, &n_tokens, err);
    if (s == LW_OK &&
        json_array_append_new(sizes, describe_size(samples, width, height, steps, n_tokens)))
        s = no_memory(err);
    json_decref(samples);
    return s;
}

/* ---- the services ---- */

static json_t *ms_or_null(double ms)
{
    return ms > 0 ? json_real(ms) : json_null();
}

static json_t *number_or_null(uint64_t n)
{
    return n ? json_integer((json_int_t)n) : json_null();
}

/* What is not ours to look at is null. */
static bool add_private(measurement *m, lw_role role, json_t *o)
{
    const double ready_ms = lw_run_ready_ms(m->run, role);
    const bool own = ready_ms > 0;
    const lw_procmem memory = lw_run_memory(m->run, role);
    char part[PATH_MAX];
    uint64_t bytes = 0;

    if (own && lw_locate_part(lw_run_model(m->run)->path[role], role, part, NULL) == LW_OK)
        bytes = lw_weights_file_bytes(part);
    return json_object_update_missing_new(
               o, json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "threads",
                            number_or_null(own ? (uint64_t)m->threads[role] : 0), "weights_bytes",
                            number_or_null(bytes), "start_to_ready_ms", ms_or_null(ready_ms),
                            "first_result_ms", json_real(m->first_ms[role]), "start_to_first_ms",
                            ms_or_null(own ? ready_ms + m->first_ms[role] : 0),
                            "peak_resident_bytes", number_or_null(memory.peak_bytes),
                            "peak_own_bytes", number_or_null(memory.own_peak_bytes))) == 0;
}

static lw_status describe_services(measurement *m, json_t *services, lw_err *err)
{
    for (size_t i = 0; i < LW_ARRAY_LEN(stages); i++) {
        json_t *o = m->workers[stages[i].role];

        if (!add_private(m, stages[i].role, o) || json_array_append(services, o))
            return no_memory(err);
    }
    return LW_OK;
}

/* ---- one precision ---- */

static lw_status measure_sizes(measurement *m, json_t *sizes, lw_err *err)
{
    const lw_model_choice *model = lw_run_model(m->run);
    const int n = m->b->sizes.n ? m->b->sizes.n : 1;
    uint64_t n_tokens;

    for (int i = 0; i < n; i++) {
        int width = model->width, height = model->height;

        if (m->b->sizes.n)
            LW_TRY(lw_parse_size(m->b->sizes.items[i], &width, &height, err));
        if (i == 0)
            LW_TRY(draw(m, width, height, 1, NULL, &n_tokens, err));
        LW_TRY(measure_size(m, width, height, sizes, err));
    }
    return LW_OK;
}

/* A hub of somebody else has seen other measurements, and remembers their prompts. */
static lw_status open_run(measurement *m, lw_err *err)
{
    LW_TRY(lw_run_open(&m->opt, ROLES, &m->run, err));
    if (strcmp(lw_run_hub(m->run), "private") == 0)
        return LW_OK;
    if (m->b->precisions.n)
        return lw_fail(err, LW_E_INVALID,
                       "--precision: the workers of the hub at %s compute as they were started; "
                       "leave it out, or measure a private cluster with --model",
                       lw_run_hub(m->run));
    return lw_parse_seed(NULL, &m->first_number, err);
}

static lw_status measure(measurement *m, json_t *runs, lw_err *err)
{
    json_t *sizes = json_array(), *services = json_array();
    lw_status s = sizes && services ? LW_OK : no_memory(err);

    if (s == LW_OK)
        s = open_run(m, err);
    if (s == LW_OK)
        s = measure_sizes(m, sizes, err);
    if (s == LW_OK)
        s = describe_services(m, services, err);
    if (s == LW_OK &&
        json_array_append_new(runs,
                              json_pack("{s:s, s:s, s:O, s:O}", "precision",
                                        m->opt.precision ? m->opt.precision : "auto", "hub",
                                        lw_run_hub(m->run), "sizes", sizes, "services", services)))
        s = no_memory(err);
    lw_run_close(&m->run);
    for (int i = 0; i < LW_N_ROLES; i++)
        json_decref(m->workers[i]);
    json_decref(sizes);
    json_decref(services);
    return s;
}

/* ---- all of them ---- */

/* What can be wrong with the options, before anything is started. */
static lw_status check(const lw_bench_stages *b, int cores, int threads[LW_N_ROLES], lw_err *err)
{
    int width, height;

    for (int i = 0; i < b->sizes.n; i++)
        LW_TRY(lw_parse_size(b->sizes.items[i], &width, &height, err));
    LW_TRY(lw_parse_stage_ints("threads", b->opt.threads, 0, 1024, threads, err));
    for (int i = 0; i < LW_N_ROLES; i++)
        if (threads[i] == 0)
            threads[i] = cores;
    return LW_OK;
}

static lw_status measure_all(const lw_bench_stages *b, json_t *report, lw_err *err)
{
    const int cores = (int)json_integer_value(json_object_get(report, "cores"));
    const int n = b->precisions.n ? b->precisions.n : 1;
    json_t *runs = json_object_get(report, "runs");
    int threads[LW_N_ROLES] = { 0 };

    LW_TRY(check(b, cores, threads, err));
    for (int i = 0; i < n; i++) {
        measurement m = { .b = b, .opt = b->opt };

        memcpy(m.threads, threads, sizeof(threads));
        m.opt.precision = b->precisions.n ? b->precisions.items[i] : NULL;
        m.opt.watch_memory = true;
        LW_TRY(measure(&m, runs, err));
    }
    return LW_OK;
}

lw_status lw_bench_stages_run(const lw_bench_stages *b, json_t **ret, lw_err *err)
{
    json_t *report = lw_bench_about("stages");
    lw_status s = LW_OK;

    if (json_object_update_new(
            report, json_pack("{s:s, s:s, s:I, s:[]}", "isa_f32", lw_bench_isa_f32(), "isa_int8",
                              lw_bench_isa_int8(), "repeat", (json_int_t)b->repeat, "runs")))
        s = no_memory(err);
    if (s == LW_OK)
        s = measure_all(b, report, err);
    if (s == LW_OK)
        *ret = report;
    else
        json_decref(report);
    return s;
}
