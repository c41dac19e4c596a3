/*
 * One run of a verb: one hub, one terminal, one user who may lose patience. All waiting is one poll
 * on the hub's socket and a signalfd, so that nothing (a worker that dies while it loads, Ctrl-C, a
 * hub that falls silent) is noticed late.
 */

#include "orchestrate/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/json.h"
#include "orchestrate/run_impl.h"

#define FRONTEND_NAME   "frontend.sock" /* the socket of a hub in the runtime folder */
#define CONNECT_MS      5000
#define RECONNECT_MS    10000 /* a hub that is restarted is back by then */
#define STATUS_EVERY_MS 10
#define WATCH_MS        20
#define STOP_GRACE_MS   2000
#define TICK_MS         250

/* ---- signals ---- */

static lw_status take_signals(lw_run *s, lw_err *err)
{
    sigset_t mask;

    sigemptyset(&mask);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGHUP);
    sigaddset(&mask, SIGCHLD);
    signal(SIGCHLD, SIG_DFL); /* ignoring it may be inherited, and would reap our children */
    signal(SIGPIPE, SIG_IGN); /* `latentwire ... | head` must still stop its workers */
    if (sigprocmask(SIG_BLOCK, &mask, &s->old_mask))
        return lw_fail(err, LW_E_IO, "cannot block signals: %s", strerror(errno));
    s->mask_set = true;
    s->signal_fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
    if (s->signal_fd < 0)
        return lw_fail(err, LW_E_IO, "cannot make a signalfd: %s", strerror(errno));
    return LW_OK;
}

static void read_signals(lw_run *s)
{
    struct signalfd_siginfo info;

    while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info))
        if (info.ssi_signo != SIGCHLD)
            s->interrupts++;
}

lw_status lw_run_wait(lw_run *s, int64_t timeout_ms, bool starting, lw_client_event *ret,
                      lw_err *err)
{
    lw_status st;

    if (s->progress.on && timeout_ms > TICK_MS)
        timeout_ms = TICK_MS;
    if (s->settings->watch_memory && timeout_ms > WATCH_MS)
        timeout_ms = WATCH_MS;
    st = lw_client_wait(s->client, s->signal_fd, timeout_ms, ret, err);
    if (st == LW_OK && ret->fd_readable)
        read_signals(s);
    lw_progress_tick(&s->progress);
    /* Also when the wait failed: a dead hub is told better by how it died than by its silence. */
    if (s->cluster) {
        lw_err death = { 0 };

        if (s->settings->watch_memory)
            lw_cluster_look(s->cluster);
        if (lw_cluster_check(s->cluster, starting, &death) != LW_OK)
            return lw_fail(err, death.code, "%s", death.text);
    }
    return st;
}

/* ---- finding a hub ---- */

/* True when the socket file of an ipc endpoint has somebody listening. */
static bool is_live(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd;
    bool live;

    if (strlen(path) >= sizeof(addr.sun_path))
        return false;
    memcpy(addr.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    live = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
    close(fd);
    return live;
}

/* A model that the user typed, rather than one that the environment has for every command. */
static bool typed(const char *option, const char *variable)
{
    return option && option != getenv(variable);
}

lw_status lw_find_hub(const char *named, char *ret_endpoint, size_t ret_bytes, bool *ret_found,
                      lw_err *err)
{
    char runtime[PATH_MAX], path[PATH_MAX + 16];

    *ret_found = true;
    if (named && named[0]) {
        snprintf(ret_endpoint, ret_bytes, "%s", named);
        return LW_OK;
    }
    LW_TRY(lw_runtime_dir(runtime, sizeof(runtime), err));
    snprintf(path, sizeof(path), "%s/" FRONTEND_NAME, runtime);
    *ret_found = is_live(path);
    snprintf(ret_endpoint, ret_bytes, "ipc://%s", path);
    return LW_OK;
}

static lw_status choose_hub(lw_run *s, bool *ret_found, lw_err *err)
{
    const lw_settings *o = s->settings;
    const bool model_typed = typed(o->model, "LATENTWIRE_MODEL") ||
                             typed(o->encoder, "LATENTWIRE_ENCODER") ||
                             typed(o->dit, "LATENTWIRE_DIT") || typed(o->vae, "LATENTWIRE_VAE");

    *ret_found = false;
    if (typed(o->hub, "LATENTWIRE_HUB") && model_typed)
        return lw_fail(err, LW_E_INVALID,
                       "--hub and a model exclude each other: the workers of %s have their own "
                       "model; leave one of them out",
                       o->hub);
    if (model_typed)
        return LW_OK;
    return lw_find_hub(o->hub, s->endpoint, sizeof(s->endpoint), ret_found, err);
}

/* Somebody else's workers are as they are: say so rather than ignore what was asked. */
static void note_ignored(const lw_run *s)
{
    const lw_settings *o = s->settings;
    const char *ignored = typed(o->threads, "LATENTWIRE_THREADS")       ? "--threads"
                          : typed(o->workers, "LATENTWIRE_WORKERS")     ? "--workers"
                          : typed(o->device, "LATENTWIRE_DEVICE")       ? "--device"
                          : typed(o->precision, "LATENTWIRE_PRECISION") ? "--precision"
                                                                        : NULL;

    if (ignored && !o->quiet)
        fprintf(stderr,
                "latentwire: note: %s has no effect on the workers of the hub at %s; with --model "
                "a private cluster is started\n",
                ignored, s->endpoint);
}

static lw_status start_private(lw_run *s, unsigned roles, lw_err *err)
{
    const lw_settings *o = s->settings;
    const lw_model_options models = {
        .model = o->model, .encoder = o->encoder, .dit = o->dit, .vae = o->vae
    };
    lw_cluster_params p = { .model = &s->model,
                            .tokenizer = o->tokenizer,
                            .weights = o->weights,
                            .memory_mb = o->memory_mb,
                            .start_timeout_ms = o->start_timeout * 1000,
                            .log_level = o->log_level };
    lw_arena words;
    lw_status st;

    LW_TRY(lw_locate_model(&models, roles, &s->model, err));
    LW_TRY(lw_parse_stage_ints("threads", o->threads, 0, 1024, p.threads, err));
    LW_TRY(lw_parse_stage_ints("workers", o->workers, 1, LW_MAX_WORKERS, p.workers, err));
    lw_arena_init(&words, "options", 0);
    st = lw_parse_stage_words("device", o->device, &words, p.device, err);
    if (st == LW_OK)
        st = lw_parse_stage_words("precision", o->precision, &words, p.precision, err);
    /* Said of all stages it means those that have a choice. */
    if (o->precision && !strchr(o->precision, '='))
        p.precision[LW_ROLE_DECODER] = NULL;
    if (st == LW_OK)
        st = lw_cluster_start(&p, &s->cluster, err);
    lw_arena_deinit(&words);
    if (st == LW_OK)
        snprintf(s->endpoint, sizeof(s->endpoint), "%s", lw_cluster_endpoint(s->cluster));
    return st;
}

/* ---- ready? ---- */

/*
 * Take the number of usable workers of each role from a hub's report, and the name of the model
 * that its denoiser has.
 */
/* A hub's model is somewhere else; its denoiser says what pictures it is made for, or 0. */
static void read_defaults(lw_run *s, const json_t *denoiser)
{
    const json_int_t width = json_integer_value(json_object_get(denoiser, "width"));
    const json_int_t height = json_integer_value(json_object_get(denoiser, "height"));
    const json_int_t steps = json_integer_value(json_object_get(denoiser, "steps"));

    if (width > 0 && width <= 65536 && height > 0 && height <= 65536) {
        s->model.width = (int)width;
        s->model.height = (int)height;
        s->model.states_size = true;
    }
    if (steps > 0 && steps <= 256)
        s->model.steps = (int)steps;
}

static lw_status read_report(lw_run *s, const char *report, lw_err *err)
{
    json_error_t why;
    json_t *r = json_loads(report, JSON_REJECT_DUPLICATES, &why);
    const json_t *roles = json_object_get(r, "roles"), *workers = json_object_get(r, "workers"), *w;
    size_t i;

    if (!json_is_object(roles)) {
        json_decref(r);
        return lw_fail(err, LW_E_FORMAT, "the report of the hub at %s does not name its workers",
                       s->endpoint);
    }
    for (int k = LW_ROLE_NONE + 1; k < LW_N_ROLES; k++) {
        const json_t *role = json_object_get(roles, lw_role_name((lw_role)k));

        s->workers[k] = (int)json_integer_value(json_object_get(role, "usable"));
        if (s->cluster && s->ready_ms[k] == 0 && s->workers[k] > 0 &&
            s->workers[k] >= lw_cluster_workers(s->cluster, (lw_role)k))
            s->ready_ms[k] = (double)(lw_now_ms() - s->opened_ms);
    }
    json_array_foreach(workers, i, w)
    {
        const char *role = json_string_value(json_object_get(w, "role"));

        if (role && !strcmp(role, lw_role_name(LW_ROLE_DENOISER)))
            read_defaults(s, w);
    }
    json_decref(s->report);
    s->report = r;
    return LW_OK;
}

static bool has_roles(const lw_run *s, unsigned roles)
{
    for (int k = LW_ROLE_NONE + 1; k < LW_N_ROLES; k++) {
        int wanted = s->cluster ? lw_cluster_workers(s->cluster, (lw_role)k) : 1;

        if ((roles & 1u << k) && s->workers[k] < wanted)
            return false;
    }
    return true;
}

static lw_status not_ready(const lw_run *s, unsigned roles, lw_err *err)
{
    if (s->cluster)
        return lw_fail(err, LW_E_DEADLINE,
                       "the model was not loaded within %lld s (--start-timeout)",
                       (long long)s->settings->start_timeout);
    if (!lw_client_connected(s->client))
        return lw_fail(
            err, LW_E_UNAVAILABLE,
            "no hub answers at %s; start one with `latentwire hub`, or leave --hub out to "
            "use a private one",
            s->endpoint);
    for (int k = LW_ROLE_NONE + 1; k < LW_N_ROLES; k++)
        if ((roles & 1u << k) && s->workers[k] == 0)
            return lw_fail(err, LW_E_UNAVAILABLE,
                           "the hub at %s has no %s; start one with `%s-svc --model DIR --hub "
                           "BACKEND` (latentwire status shows who is there)",
                           s->endpoint, lw_role_name((lw_role)k),
                           k == LW_ROLE_ENCODER    ? "encoder"
                           : k == LW_ROLE_DENOISER ? "dit"
                                                   : "vae");
    return lw_fail(err, LW_E_DEADLINE, "the hub at %s does not report its state", s->endpoint);
}

/* Wait until the hub answers and has workers of every role. A hub that is not ours gets a few
 * seconds: a worker may just be coming back. */
static lw_status await_ready(lw_run *s, unsigned roles, lw_err *err)
{
    const int64_t deadline =
        lw_now_ms() + (s->cluster ? s->settings->start_timeout * 1000 : CONNECT_MS);
    int64_t asked_ms = 0;
    bool waiting = false;

    for (;;) {
        int64_t now = lw_now_ms();
        lw_client_event ev;

        if (s->interrupts)
            return lw_fail(err, LW_E_CANCELLED, "interrupted while %s",
                           s->cluster ? "the model was loading" : "connecting to the hub");
        if (now >= deadline)
            return not_ready(s, roles, err);
        if (lw_client_connected(s->client) && !waiting && now - asked_ms >= STATUS_EVERY_MS) {
            lw_msg ask;

            lw_msg_init(&ask, LW_MSG_STATUS, NULL);
            LW_TRY(lw_client_send(s->client, &ask, err));
            asked_ms = now;
            waiting = true;
        }
        lw_progress_update(&s->progress, s->cluster ? "loading the model" : "connecting", 0, 0);
        LW_TRY(lw_run_wait(s, STATUS_EVERY_MS, true, &ev, err));
        if (!ev.msg || ev.msg->type != LW_MSG_STATUS || !lw_msg_has(ev.msg, report))
            continue;
        waiting = false;
        LW_TRY(read_report(s, ev.msg->report, err));
        if (has_roles(s, roles)) {
            s->start_ms = (double)(lw_now_ms() - s->opened_ms);
            return LW_OK;
        }
    }
}

lw_status lw_run_open(const lw_settings *settings, unsigned roles, lw_run **ret, lw_err *err)
{
    lw_run *s = calloc(1, sizeof(*s));
    lw_client_params cp = { .reconnect_ms = RECONNECT_MS,
                            .net = { .key_dir = settings->keys,
                                     .key_name = settings->key_name,
                                     .insecure_loopback = settings->insecure_loopback } };
    bool found = false;
    lw_status st;

    if (!s)
        return lw_fail(err, LW_E_NOMEM, "no memory for a run");
    s->settings = settings;
    s->signal_fd = -1;
    s->opened_ms = lw_now_ms();
    s->preview.path = settings->preview;
    lw_progress_init(&s->progress, settings->quiet);
    st = choose_hub(s, &found, err);
    if (st == LW_OK)
        st = take_signals(s, err);
    if (st == LW_OK && !found)
        st = start_private(s, roles, err);
    if (st == LW_OK && found) {
        note_ignored(s);
        s->model = (lw_model_choice){ .width = LW_DEFAULT_SIDE,
                                      .height = LW_DEFAULT_SIDE,
                                      .steps = LW_DEFAULT_STEPS };
    }
    cp.endpoint = s->endpoint;
    if (st == LW_OK)
        st = lw_client_create(&cp, &s->client, err);
    if (st == LW_OK)
        st = await_ready(s, roles, err);
    lw_progress_clear(&s->progress);
    if (st != LW_OK) {
        lw_run_close(&s);
        return st;
    }
    *ret = s;
    return LW_OK;
}

void lw_run_close(lw_run **ps)
{
    lw_run *s = *ps;

    if (!s)
        return;
    *ps = NULL;
    lw_progress_clear(&s->progress);
    lw_client_destroy(&s->client);
    lw_cluster_stop(&s->cluster, s->interrupts ? 0 : STOP_GRACE_MS);
    if (s->signal_fd >= 0) {
        read_signals(s); /* a Ctrl-C that came during the tidying up has been obeyed */
        close(s->signal_fd);
    }
    if (s->mask_set)
        sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
    json_decref(s->report);
    free(s);
}

const lw_model_choice *lw_run_model(const lw_run *s)
{
    return &s->model;
}

int lw_run_workers(const lw_run *s, lw_role role)
{
    return s->workers[role];
}

const json_t *lw_run_report(const lw_run *s)
{
    return s->report;
}

const char *lw_run_hub(const lw_run *s)
{
    return s->cluster ? "private" : s->endpoint;
}

size_t lw_run_max_tensor_bytes(const lw_run *s)
{
    return lw_client_max_frame_bytes(s->client);
}

double lw_run_start_ms(const lw_run *s)
{
    return s->start_ms;
}

double lw_run_ready_ms(const lw_run *s, lw_role role)
{
    return s->ready_ms[role];
}

lw_procmem lw_run_memory(lw_run *s, lw_role role)
{
    if (!s->cluster || !s->settings->watch_memory)
        return (lw_procmem){ 0 };
    lw_cluster_look(s->cluster);
    return lw_cluster_memory(s->cluster, role);
}
