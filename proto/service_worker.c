/*
 * The model's thread: load, then one task after another. It never touches a socket; what it has to
 * say goes into mailboxes that io empties, and a full mailbox never makes it wait.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

#include "proto/service_impl.h"

static void notify(lw_worker *w)
{
    uint64_t one = 1;

    /* EAGAIN means that io has a wake-up pending already. */
    (void)!write(w->event_fd, &one, sizeof(one));
}

static void set_state(lw_worker *w, lw_worker_state s)
{
    pthread_mutex_lock(&w->lock);
    w->state = s;
    pthread_mutex_unlock(&w->lock);
    notify(w);
}

/* Of the task, finer than a millisecond: a step of a tiny model takes less. */
static double elapsed_ms(const lw_worker *w)
{
    return (double)(lw_now_ns() - w->started_ns) / 1e6;
}

/* ---- what a task may call ---- */

bool lw_task_cancelled(const lw_task *t)
{
    lw_worker *w = t->impl;

    if (!w)
        return false;
    /* Whoever asks is alive: a step of minutes asks between blocks, so it is not taken for stuck.
     */
    atomic_store_explicit(&w->moved_ms, lw_now_ms(), memory_order_relaxed);
    return atomic_load_explicit(&w->cancel, memory_order_acquire);
}

/* In slices, so that a test's delay does not outlast a cancel. */
static void test_delay(const lw_task *t, int64_t ms)
{
    int64_t end = lw_now_ms() + ms;

    while (ms > 0 && lw_now_ms() < end && !lw_task_cancelled(t))
        usleep(1000);
}

void lw_task_progress(lw_task *t, uint64_t step, uint64_t total, double sigma)
{
    lw_worker *w = t->impl;
    int64_t now = lw_now_ms();

    if (!w)
        return;
    atomic_store(&w->moved_ms, now);
    atomic_store(&w->step, step);
    pthread_mutex_lock(&w->lock);
    w->progress = (lw_progress){ true, step, total, w->picture, sigma, elapsed_ms(w) };
    pthread_mutex_unlock(&w->lock);
    notify(w);
    test_delay(t, w->step_delay_ms);
}

void lw_task_picture(lw_task *t, uint64_t picture)
{
    lw_worker *w = t->impl;

    if (w)
        w->picture = picture;
}

/* A tensor called `latents` has four axes on the wire, whatever the caller's loop is over. */
static lw_tensor with_batch_axis(const lw_tensor *t)
{
    int64_t shape[4] = { 1, t->shape[0], t->shape[1], t->shape[2] };

    return t->rank == 3 && lw_dtype_is_float(t->dtype) ? lw_tensor_nd(t->data, t->dtype, 4, shape)
                                                       : *t;
}

/* A message about the task, with one tensor. Nobody waits for these: what cannot be made is
 * dropped, and the result tells the rest. */
static bool encode_side(lw_worker *w, lw_msg_type type, uint64_t step, const char *name,
                        const lw_tensor *tensor, lw_packet *ret)
{
    const lw_msg *request = &w->request;
    lw_tensor t = with_batch_axis(tensor);
    lw_err err = { 0 };
    lw_msg m;

    lw_msg_init(&m, type, request->id);
    lw_msg_set(&m, op, request->op);
    lw_msg_set(&m, attempt, lw_msg_get(request, attempt, 0));
    lw_msg_set(&m, picture, w->picture);
    lw_msg_set(&m, step, step);
    if (type == LW_MSG_PROGRESS)
        lw_msg_set(&m, start_step, step);
    if (lw_msg_tensor_add(&m, name, &t, NULL, &err) == LW_OK &&
        lw_msg_encode(&m, ret, &err) == LW_OK)
        return true;
    lw_log(LW_WARN, "cannot be sent", LW_KV_STR("type", lw_msg_type_name(type)),
           LW_KV_STR("error", err.text));
    return false;
}

void lw_task_preview(lw_task *t, uint64_t step, const lw_tensor *preview)
{
    lw_worker *w = t->impl;
    const char *name = lw_dtype_is_float(preview->dtype) ? LW_T_LATENTS : LW_T_PREVIEW;
    lw_packet p = { 0 };
    bool full;

    if (!w || !atomic_load(&w->sending))
        return;
    pthread_mutex_lock(&w->lock);
    full = w->preview.n_frames > 0;
    pthread_mutex_unlock(&w->lock);
    if (full || !encode_side(w, LW_MSG_PREVIEW, step, name, preview, &p))
        return;
    pthread_mutex_lock(&w->lock);
    w->preview = p; /* only this thread fills it, so it is still empty */
    pthread_mutex_unlock(&w->lock);
    notify(w);
}

void lw_task_checkpoint(lw_task *t, uint64_t step, const lw_tensor *latents)
{
    lw_worker *w = t->impl;
    lw_packet p = { 0 }, old;

    if (!w || !atomic_load(&w->sending) ||
        !encode_side(w, LW_MSG_PROGRESS, step, LW_T_LATENTS, latents, &p))
        return;
    pthread_mutex_lock(&w->lock);
    old = w->checkpoint;
    w->checkpoint = p;
    pthread_mutex_unlock(&w->lock);
    lw_packet_clear(&old);
    notify(w);
}

/* ---- one task ---- */

static lw_status check_request(const lw_service *s, const lw_msg *request, lw_err *err)
{
    if (lw_op_role(request->op) != s->role)
        return lw_fail(err, LW_E_UNIMPLEMENTED, "%s does not %s", s->program,
                       lw_op_name(request->op));
    return LW_OK;
}

static lw_status call(const lw_service *s, void *self, lw_task *t, lw_err *err)
{
    lw_status status;

    LW_TRY(check_request(s, t->msg, err));
    status = s->handle(self, t, err);
    if (status != LW_OK && err->code == LW_OK)
        lw_fail(err, status, "%s failed: %s", lw_op_name(t->msg->op), lw_status_text(status));
    return status;
}

static void about_request(lw_msg *m, const lw_worker *w)
{
    lw_msg_set(m, op, w->request.op);
    lw_msg_set(m, attempt, lw_msg_get(&w->request, attempt, 0));
    lw_msg_set(m, worker, w->name);
}

/* The answer in order of preference: the result; else what went wrong. Encoding copies the
 * tensors, so the request's arena is free again afterwards. */
static void encode_answer(lw_worker *w, lw_msg *result, lw_err *err)
{
    lw_msg m;

    if (err->code == LW_OK) {
        about_request(result, w);
        if (!lw_msg_has(result, t_ms))
            lw_msg_set(result, t_ms, elapsed_ms(w));
        if (lw_msg_encode(result, &w->answer, err) == LW_OK)
            return;
        lw_err_prefix(err, err->code, "the result cannot be sent");
    }
    if (err->code == LW_E_CANCELLED) {
        lw_msg_init(&m, LW_MSG_CANCELLED, w->request.id);
        lw_msg_set(&m, step, atomic_load(&w->step));
    } else {
        lw_msg_error(&m, w->request.id, err);
    }
    about_request(&m, w);
    if (lw_msg_encode(&m, &w->answer, NULL) != LW_OK)
        lw_log_text(LW_ERROR, "no memory for an answer; the hub will ask again");
}

static void run_task(lw_worker *w)
{
    lw_msg result;
    lw_err err = { 0 };
    lw_task t = { .msg = &w->request, .arena = &w->arena, .result = &result, .impl = w };

    lw_msg_init(&result, LW_MSG_RESULT, w->request.id);
    w->picture = 0;
    if (call(w->service, w->self, &t, &err) == LW_OK && lw_task_cancelled(&t))
        lw_fail(&err, LW_E_CANCELLED, "cancelled as it finished");
    w->was_cancelled = err.code == LW_E_CANCELLED;
    if (err.code != LW_OK && err.code != LW_E_CANCELLED)
        lw_log(LW_WARN, "task failed", LW_KV_REQ("task", w->request.id),
               LW_KV_STR("op", lw_op_name(w->request.op)),
               LW_KV_STR("code", lw_status_name(err.code)), LW_KV_STR("error", err.text));
    encode_answer(w, &result, &err);
}

/* ---- the thread ---- */

static bool load(lw_worker *w)
{
    int64_t start = lw_now_ms();
    lw_status status = w->service->load(w->config, &w->self, &w->error);

    if (status != LW_OK) {
        if (w->error.code == LW_OK)
            lw_fail(&w->error, status, "the model cannot be loaded");
        set_state(w, LW_WORKER_FAILED);
        return false;
    }
    w->service->info(w->self, &w->contract);
    w->load_ms = lw_now_ms() - start;
    set_state(w, LW_WORKER_IDLE);
    return true;
}

static void *worker_main(void *arg)
{
    lw_worker *w = arg;

    if (!load(w))
        return NULL;
    for (;;) {
        bool stop;

        pthread_mutex_lock(&w->lock);
        while (w->state != LW_WORKER_BUSY && !w->stop)
            pthread_cond_wait(&w->wake, &w->lock);
        stop = w->stop;
        pthread_mutex_unlock(&w->lock);
        if (stop)
            break;
        run_task(w);
        set_state(w, LW_WORKER_DONE);
    }
    w->service->unload(w->self);
    return NULL;
}

static int64_t delay_from_environment(void)
{
    const char *s = getenv("LATENTWIRE_TEST_STEP_DELAY_MS");

    return s ? strtoll(s, NULL, 10) : 0;
}

lw_status lw_worker_start(lw_worker *w, const lw_service *s, const lw_service_config *c,
                          const char *name, lw_err *err)
{
    memset(w, 0, sizeof(*w));
    w->service = s;
    w->config = c;
    w->name = name;
    w->step_delay_ms = delay_from_environment();
    w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->event_fd < 0)
        return lw_fail(err, LW_E_IO, "eventfd: %s", strerror(errno));
    lw_arena_init(&w->arena, "request", 0);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    if (pthread_create(&w->thread, NULL, worker_main, w) != 0) {
        close(w->event_fd);
        return lw_fail(err, LW_E_IO, "the worker thread cannot start");
    }
    return LW_OK;
}

lw_worker_state lw_worker_look(lw_worker *w)
{
    lw_worker_state s;

    pthread_mutex_lock(&w->lock);
    s = w->state;
    pthread_mutex_unlock(&w->lock);
    return s;
}

void lw_worker_give(lw_worker *w)
{
    atomic_store(&w->cancel, false);
    atomic_store(&w->step, 0);
    w->started_ns = lw_now_ns();
    atomic_store(&w->moved_ms, lw_now_ms());
    pthread_mutex_lock(&w->lock);
    w->progress.pending = false;
    w->state = LW_WORKER_BUSY;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

void lw_worker_take(lw_worker *w, lw_packet *ret)
{
    *ret = w->answer;
    w->answer.n_frames = 0;
    lw_packet_clear(&w->packet);
    lw_arena_reset(&w->arena);
    pthread_mutex_lock(&w->lock);
    w->state = LW_WORKER_IDLE;
    pthread_mutex_unlock(&w->lock);
}

void lw_worker_stop(lw_worker *w)
{
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    lw_packet_clear(&w->checkpoint);
    lw_packet_clear(&w->preview);
    lw_packet_clear(&w->answer);
    lw_packet_clear(&w->packet);
    lw_arena_deinit(&w->arena);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->wake);
    close(w->event_fd);
}

lw_status lw_service_call(const lw_service *s, void *self, const lw_msg *request, lw_arena *arena,
                          lw_msg *ret_result, lw_err *err)
{
    lw_err local = { 0 };
    lw_err *e = err ? err : &local;
    lw_task t = { .msg = request, .arena = arena, .result = ret_result };

    lw_msg_init(ret_result, LW_MSG_RESULT, request->id);
    return call(s, self, &t, e);
}
