/*
 * The io side of a service: one session with a hub after the other. A session begins with HELLO and
 * WELCOME and ends when the connection breaks, the hub falls silent or says BYE; then a new socket
 * (so a new identity) is tried with growing pauses. What a task produced under one session's epoch
 * is never sent under another's: that hub has given the task to somebody else.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "lw_version.h"

#include "proto/service_impl.h"

#define WELCOME_MS      5000
#define BACKOFF_MIN_MS  250
#define BACKOFF_MAX_MS  8000
#define PATIENCE_MS     3000 /* without a hub before a warning */
#define HANG_MS         5000 /* after a hard cancel */
#define IO_ARENA_BYTES  (4u * LW_MAX_HEADER_BYTES)
#define MESSAGES_A_TURN 16

typedef enum phase {
    WAITING,    /* no socket until retry_at */
    CONNECTING, /* HELLO goes out as soon as the connection stands */
    GREETING,   /* HELLO sent, WELCOME awaited */
    UP
} phase;

typedef struct session {
    lw_worker *w;
    const char *endpoint;
    lw_net_params params;
    int signal_fd;
    lw_net *net;
    lw_sock *sock;
    lw_arena arena; /* of the message being looked at */
    uint8_t instance[16];

    phase phase;
    int64_t deadline_ms; /* WAITING: try again; CONNECTING: warn; GREETING: give up */
    int64_t backoff_ms;
    uint64_t epoch;
    int64_t hb_ms, silence_ms, heard_ms, next_hb_ms;

    bool running;         /* the task box is with the worker */
    bool credit_due;      /* the hub has not heard what we can take */
    lw_progress progress; /* both wait to be sent, in this order */
    lw_packet answer;
    uint64_t task_epoch; /* session that the running task, or the answer, belongs to */
    uint8_t task_id[16];

    bool draining, aborted;
    int64_t drain_until_ms; /* 0 = as long as it takes */
    int64_t hang_at_ms;     /* 0 = not cancelled hard */
    int n_signals;
    uint64_t n_malformed;
    bool done;
    lw_session_end end;
} session;

static bool busy(const session *s)
{
    return s->running || s->answer.n_frames > 0;
}

/* ---- leaving a session ---- */

/* A quarter of jitter either way, so that a hub's return is not met by all workers at once. */
static int64_t jittered(int64_t ms)
{
    uint16_t r = 0;

    (void)!getrandom(&r, sizeof(r), 0);
    return ms * 3 / 4 + ms * r / 2 / UINT16_MAX;
}

static void drop_mailboxes(session *s)
{
    lw_packet checkpoint, preview;

    pthread_mutex_lock(&s->w->lock);
    checkpoint = s->w->checkpoint;
    preview = s->w->preview;
    s->w->checkpoint.n_frames = s->w->preview.n_frames = 0;
    s->w->progress.pending = s->progress.pending = false;
    pthread_mutex_unlock(&s->w->lock);
    lw_packet_clear(&checkpoint);
    lw_packet_clear(&preview);
}

static void lose(session *s, const char *why)
{
    if (s->phase == UP)
        lw_log(LW_WARN, "hub lost", LW_KV_STR("why", why), LW_KV_INT("epoch", (int64_t)s->epoch),
               LW_KV_INT("busy", busy(s)));
    atomic_store(&s->w->sending, false);
    drop_mailboxes(s);
    lw_sock_close(&s->sock);
    s->phase = WAITING;
    s->deadline_ms = lw_now_ms() + jittered(s->backoff_ms);
    s->backoff_ms = s->backoff_ms * 2 < BACKOFF_MAX_MS ? s->backoff_ms * 2 : BACKOFF_MAX_MS;
}

static void finish(session *s, int exit_code)
{
    s->done = true;
    s->end.exit_code = exit_code;
}

/* ---- what we say ---- */

static lw_status say(session *s, const lw_msg *m)
{
    return lw_sock_send_msg(s->sock, NULL, m, NULL);
}

static lw_status say_hello(session *s)
{
    lw_msg m;

    lw_msg_init(&m, LW_MSG_HELLO, NULL);
    lw_msg_set(&m, minor_min, LW_WIRE_MINOR_MIN);
    lw_msg_set(&m, minor_max, LW_WIRE_MINOR_MAX);
    lw_msg_set(&m, role, s->w->service->role);
    memcpy(m.instance, s->instance, sizeof(m.instance));
    lw_msg_mark(&m, instance);
    lw_msg_set(&m, name, s->w->name);
    lw_msg_set(&m, build, "latentwire " LW_VERSION);
    lw_msg_set(&m, slots, 1);
    lw_msg_set(&m, max_frame_bytes, LW_MAX_FRAME_BYTES);
    lw_msg_set(&m, max_message_bytes, LW_MAX_MESSAGE_BYTES);
    m.contract = s->w->contract;
    lw_msg_mark(&m, contract);
    return say(s, &m);
}

static uint64_t credits(const session *s)
{
    return !s->draining && !busy(s);
}

static lw_status say_credit(session *s)
{
    lw_msg m;

    lw_msg_init(&m, LW_MSG_CREDIT, NULL);
    lw_msg_set(&m, epoch, s->epoch);
    lw_msg_set(&m, credits, credits(s));
    return say(s, &m);
}

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (f) {
        if (fscanf(f, "%*u %llu", &pages) != 1)
            pages = 0;
        fclose(f);
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void say_heartbeat(session *s, int64_t now)
{
    lw_msg m;

    lw_msg_init(&m, LW_MSG_HEARTBEAT, NULL);
    lw_msg_set(&m, epoch, s->epoch);
    lw_msg_set(&m, state, s->draining ? "draining" : busy(s) ? "busy" : "idle");
    lw_msg_set(&m, credits, credits(s));
    if (busy(s)) {
        memcpy(m.in_flight, s->task_id, sizeof(m.in_flight));
        lw_msg_mark(&m, in_flight);
        lw_msg_set(&m, step, atomic_load(&s->w->step));
        lw_msg_set(&m, step_age_ms, (uint64_t)(now - atomic_load(&s->w->moved_ms)));
    }
    lw_msg_set(&m, rss_bytes, resident_bytes());
    (void)say(s, &m); /* a queue that is full says "alive" already */
}

static void say_error(session *s, const uint8_t *id, lw_status code, const char *text)
{
    lw_err err = { .code = code };
    lw_msg m;

    snprintf(err.text, sizeof(err.text), "%s", text);
    lw_msg_error(&m, id, &err);
    lw_msg_set(&m, worker, s->w->name);
    (void)say(s, &m);
}

static void say_bye(session *s, const char *reason)
{
    lw_msg m;

    if (s->phase != UP)
        return;
    lw_msg_init(&m, LW_MSG_BYE, NULL);
    lw_msg_set(&m, reason, reason);
    (void)say(s, &m);
}

/* Kept until the queue takes it, or something newer replaces it: the last step is always told. */
static void send_progress(session *s)
{
    const lw_msg *request = &s->w->request;
    lw_msg m;

    if (!s->progress.pending)
        return;
    lw_msg_init(&m, LW_MSG_PROGRESS, s->task_id);
    lw_msg_set(&m, op, request->op);
    lw_msg_set(&m, attempt, lw_msg_get(request, attempt, 0));
    lw_msg_set(&m, step, s->progress.step);
    lw_msg_set(&m, total, s->progress.total);
    lw_msg_set(&m, picture, s->progress.picture);
    lw_msg_set(&m, sigma, s->progress.sigma);
    lw_msg_set(&m, t_ms, s->progress.t_ms);
    s->progress.pending = say(s, &m) == LW_E_EXHAUSTED;
}

/* Checkpoints and previews that the queue does not take are dropped; newer ones follow. */
static void send_mailboxes(session *s)
{
    lw_worker *w = s->w;
    lw_packet checkpoint, preview;

    pthread_mutex_lock(&w->lock);
    if (w->progress.pending)
        s->progress = w->progress;
    checkpoint = w->checkpoint;
    preview = w->preview;
    w->progress.pending = false;
    w->checkpoint.n_frames = w->preview.n_frames = 0;
    pthread_mutex_unlock(&w->lock);

    if (checkpoint.n_frames > 0)
        (void)!lw_sock_send(s->sock, NULL, &checkpoint, NULL);
    send_progress(s);
    if (preview.n_frames > 0)
        (void)!lw_sock_send(s->sock, NULL, &preview, NULL);
    lw_packet_clear(&checkpoint);
    lw_packet_clear(&preview);
}

/* Progress before the answer, the answer before the credit it frees. */
static void send_due(session *s)
{
    if (s->phase != UP)
        return;
    if (s->task_epoch != s->epoch) /* a task of an earlier session */
        lw_packet_clear(&s->answer);
    else if (s->running)
        send_mailboxes(s);
    send_progress(s);
    if (s->progress.pending)
        return;
    if (s->answer.n_frames > 0 && lw_sock_send(s->sock, NULL, &s->answer, NULL) != LW_OK)
        return;
    if (s->credit_due && say_credit(s) == LW_OK)
        s->credit_due = false;
}

/* ---- the worker's end of a task ---- */

static void take_answer(session *s)
{
    lw_packet p;
    bool interrupted = s->aborted && s->w->was_cancelled;

    if (s->phase == UP && s->task_epoch == s->epoch)
        send_mailboxes(s);
    else
        drop_mailboxes(s);
    lw_worker_take(s->w, &p);
    s->running = false;
    s->credit_due = true;
    if (interrupted) {
        /* Nobody asked for this cancel: the hub shall give the task to another worker. */
        lw_packet_clear(&p);
        s->progress.pending = false;
        if (s->phase == UP && s->task_epoch == s->epoch)
            say_error(s, s->task_id, LW_E_UNAVAILABLE, "the worker was told to stop");
        return;
    }
    s->answer = p;
}

static void read_event(session *s)
{
    uint64_t n;

    (void)!read(s->w->event_fd, &n, sizeof(n));
    if (s->running && lw_worker_look(s->w) == LW_WORKER_DONE)
        take_answer(s);
}

static void cancel_running(session *s)
{
    if (s->running)
        atomic_store_explicit(&s->w->cancel, true, memory_order_release);
}

/* ---- what the hub says ---- */

static void on_welcome(session *s, const lw_msg *m, int64_t now)
{
    if (s->phase != GREETING)
        return;
    if ((int64_t)m->minor < LW_WIRE_MINOR_MIN || (int64_t)m->minor > LW_WIRE_MINOR_MAX) {
        lose(s, "the hub chose a minor version that we do not speak");
        return;
    }
    s->phase = UP;
    s->epoch = m->epoch;
    s->hb_ms = m->hb_ms > 0 ? (int64_t)m->hb_ms : 1000;
    s->silence_ms = s->hb_ms * (m->hb_misses > 0 ? (int64_t)m->hb_misses : 1);
    s->next_hb_ms = now + s->hb_ms;
    s->backoff_ms = BACKOFF_MIN_MS;
    s->credit_due = true;
    atomic_store(&s->w->sending, true);
    lw_log(LW_INFO, "joined the hub", LW_KV_INT("epoch", (int64_t)s->epoch),
           LW_KV_STR("hub", lw_msg_get(m, build, "unknown")));
    if (s->task_epoch != s->epoch)
        cancel_running(s); /* its answer would be dropped */
}

/* The message is decoded again into the arena that lives as long as the task. */
static void on_task(session *s, const lw_msg *m, lw_packet *packet)
{
    lw_worker *w = s->w;
    lw_err err = { 0 };

    if (s->phase != UP)
        return;
    if (s->draining || busy(s)) {
        say_error(s, m->id, s->draining ? LW_E_UNAVAILABLE : LW_E_EXHAUSTED,
                  s->draining ? "the worker is leaving" : "the worker holds a task already");
        return;
    }
    if (lw_msg_decode(packet, &w->arena, &w->request, &err) != LW_OK) {
        lw_arena_reset(&w->arena);
        say_error(s, m->id, err.code, err.text);
        return;
    }
    w->packet = *packet;
    packet->n_frames = 0;
    memcpy(s->task_id, m->id, sizeof(s->task_id));
    s->task_epoch = s->epoch;
    s->running = true;
    lw_log(LW_DEBUG, "task", LW_KV_REQ("task", m->id), LW_KV_STR("op", lw_op_name(m->op)),
           LW_KV_INT("attempt", (int64_t)lw_msg_get(m, attempt, 0)));
    lw_worker_give(w);
}

/* An error that names no task is about us. What another try cannot mend ends the program: the
 * supervisor, or the person who started it, has to know. */
static void on_error(session *s, const lw_msg *m)
{
    bool retryable = lw_msg_get(m, retryable, lw_status_retryable(m->code) != 0);

    if (m->has_id)
        return;
    lw_log(s->phase == GREETING && !retryable ? LW_ERROR : LW_WARN, "the hub refuses us",
           LW_KV_STR("code", lw_status_name(m->code)), LW_KV_STR("error", m->message));
    if (s->phase == GREETING && !retryable)
        finish(s, lw_status_exit(m->code));
    else
        lose(s, "refused");
}

static void start_drain(session *s, int64_t until_ms, const char *reason)
{
    if (!s->draining)
        lw_log(LW_INFO, "draining", LW_KV_STR("reason", reason), LW_KV_INT("busy", busy(s)));
    s->draining = true;
    s->credit_due = true;
    if (until_ms > 0)
        s->drain_until_ms = until_ms;
}

static void on_message(session *s, const lw_msg *m, lw_packet *packet, int64_t now)
{
    switch (m->type) {
    case LW_MSG_WELCOME:
        on_welcome(s, m, now);
        break;
    case LW_MSG_TASK:
        on_task(s, m, packet);
        break;
    case LW_MSG_CANCEL:
        if (s->running && memcmp(m->id, s->task_id, sizeof(s->task_id)) == 0)
            cancel_running(s);
        break;
    case LW_MSG_DRAIN:
        start_drain(s, 0, lw_msg_get(m, reason, "the hub asks"));
        break;
    case LW_MSG_BYE:
        lose(s, lw_msg_get(m, reason, "the hub left"));
        break;
    case LW_MSG_ERROR:
        on_error(s, m);
        break;
    default: /* HEARTBEAT: being heard is all; the rest is not for workers */
        break;
    }
}

static void on_malformed(session *s, const lw_msg *m, const lw_err *err)
{
    s->n_malformed++;
    lw_log(LW_WARN, "malformed message", LW_KV_STR("type", lw_msg_type_name(m->type)),
           LW_KV_STR("error", err->text), LW_KV_INT("count", (int64_t)s->n_malformed));
    if (s->phase == UP && m->type == LW_MSG_TASK && m->has_id)
        say_error(s, m->id, err->code, err->text);
}

static void read_socket(session *s, int64_t now)
{
    for (int i = 0; i < MESSAGES_A_TURN && s->sock && !s->done; i++) {
        lw_packet p = { 0 };
        lw_msg m = { 0 };
        lw_err err = { 0 };
        bool got = false;
        lw_status status = lw_sock_recv(s->sock, NULL, &p, &got, &err);

        if (status == LW_OK && !got)
            return;
        s->heard_ms = now;
        if (status == LW_OK)
            status = lw_msg_decode(&p, &s->arena, &m, &err);
        if (status == LW_OK)
            on_message(s, &m, &p, now);
        else
            on_malformed(s, &m, &err);
        lw_packet_clear(&p);
        lw_arena_reset(&s->arena);
    }
}

/* ---- time and signals ---- */

static void open_socket(session *s, int64_t now)
{
    lw_err err = { 0 };

    if (lw_sock_connect(s->net, s->endpoint, &s->params, &s->sock, &err) != LW_OK) {
        lw_log(LW_ERROR, "cannot connect", LW_KV_STR("error", err.text));
        finish(s, lw_status_exit(err.code));
        return;
    }
    s->phase = CONNECTING;
    s->deadline_ms = now + PATIENCE_MS;
}

static void tick_connecting(session *s, int64_t now)
{
    if (say_hello(s) == LW_OK) {
        s->phase = GREETING;
        s->deadline_ms = now + WELCOME_MS;
        s->heard_ms = now;
    } else if (lw_sock_link(s->sock) == LW_LINK_REFUSED) {
        lw_log(LW_WARN, "the hub does not accept our key, or is no hub; will try again",
               LW_KV_STR("hub", s->endpoint));
        lose(s, "refused");
    } else if (now >= s->deadline_ms) {
        lw_log(LW_WARN, "no hub answers; still trying", LW_KV_STR("hub", s->endpoint));
        s->deadline_ms = INT64_MAX;
    }
}

static void tick_session(session *s, int64_t now)
{
    if (s->phase == WAITING && now >= s->deadline_ms)
        open_socket(s, now);
    if (s->phase != WAITING && s->sock && lw_sock_link(s->sock) == LW_LINK_LOST) {
        lose(s, "the connection broke");
        return;
    }
    if (s->phase == CONNECTING)
        tick_connecting(s, now);
    else if (s->phase == GREETING && now >= s->deadline_ms)
        lose(s, "no welcome");
    else if (s->phase == UP && now - s->heard_ms > s->silence_ms)
        lose(s, "the hub is silent");
    else if (s->phase == UP && now >= s->next_hb_ms) {
        s->next_hb_ms = now + s->hb_ms;
        say_heartbeat(s, now);
    }
}

static void tick_drain(session *s, int64_t now)
{
    bool can_deliver = s->phase == UP;
    /* Without a hub nobody will ever take the answer: a signal then ends the task at once. */
    bool over = s->drain_until_ms > 0 && (now >= s->drain_until_ms || !can_deliver);

    if (!s->draining)
        return;
    if (!s->running && (s->answer.n_frames == 0 || !can_deliver)) {
        say_bye(s, "drained");
        finish(s, 0);
    } else if (over && !s->aborted) {
        lw_log_text(LW_WARN, can_deliver ? "the time to drain is over, cancelling"
                                         : "draining without a hub, cancelling");
        s->aborted = true;
        s->hang_at_ms = now + HANG_MS;
        cancel_running(s);
    } else if (s->hang_at_ms > 0 && now >= s->hang_at_ms) {
        lw_log_text(LW_ERROR, "the task does not stop, leaving without it");
        say_bye(s, "killed");
        s->end.worker_hangs = s->running;
        finish(s, 1);
    }
}

static void read_signal(session *s, int64_t now)
{
    struct signalfd_siginfo info;
    int64_t patience = s->w->config->drain_s * 1000;

    if (read(s->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    if (++s->n_signals > 1)
        _exit(128 + (int)info.ssi_signo);
    start_drain(s, now + (patience > 0 ? patience : 1),
                info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t next_timer(const session *s)
{
    int64_t t = INT64_MAX;

    if (s->phase == UP)
        t = earlier(s->next_hb_ms, s->heard_ms + s->silence_ms + 1);
    else
        t = s->deadline_ms;
    if (s->drain_until_ms > 0 && !s->aborted)
        t = earlier(t, s->drain_until_ms);
    if (s->hang_at_ms > 0)
        t = earlier(t, s->hang_at_ms);
    return t;
}

static void turn(session *s)
{
    lw_poll_item items[3] = { { .fd = s->w->event_fd }, { .fd = s->signal_fd } };
    int n = s->sock ? 3 : 2;
    int64_t now = lw_now_ms(), timer = next_timer(s);

    items[2].sock = s->sock;
    items[2].want_write =
        s->phase == CONNECTING || (s->phase == UP && (s->answer.n_frames > 0 || s->credit_due));
    (void)lw_poll(items, n, timer == INT64_MAX ? -1 : timer > now ? timer - now : 0);
    now = lw_now_ms();
    if (items[1].readable)
        read_signal(s, now);
    if (items[0].readable)
        read_event(s);
    if (s->sock)
        read_socket(s, now);
}

lw_session_end lw_session_run(lw_worker *w, const char *endpoint, int signal_fd)
{
    const lw_service_config *c = w->config;
    session s = { .w = w,
                  .endpoint = endpoint,
                  .params = { .key_dir = c->keys,
                              .insecure_loopback = c->insecure_loopback,
                              .key_name = c->key_name },
                  .signal_fd = signal_fd,
                  .backoff_ms = BACKOFF_MIN_MS };
    lw_err err = { 0 };

    if (lw_net_create(&s.net, &err) != LW_OK ||
        getrandom(s.instance, sizeof(s.instance), 0) != (ssize_t)sizeof(s.instance)) {
        lw_log(LW_ERROR, "cannot start", LW_KV_STR("error", err.text));
        lw_net_destroy(&s.net, 0);
        return (lw_session_end){ .exit_code = 1 };
    }
    lw_arena_init(&s.arena, "message", IO_ARENA_BYTES);
    while (!s.done) {
        int64_t now = lw_now_ms();

        tick_session(&s, now);
        if (!s.done)
            send_due(&s);
        if (!s.done)
            tick_drain(&s, now);
        if (!s.done)
            turn(&s);
    }
    cancel_running(&s);
    lw_packet_clear(&s.answer);
    lw_sock_close(&s.sock);
    lw_net_destroy(&s.net, 0);
    lw_arena_deinit(&s.arena);
    return s.end;
}
