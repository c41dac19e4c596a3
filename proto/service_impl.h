#ifndef LW_PROTO_SERVICE_IMPL_H
#define LW_PROTO_SERVICE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "proto/service.h"
#include "proto/transport.h"

/*
 * What the two threads of a service share. Ownership of the task box changes hands with `state`:
 * while LW_WORKER_IDLE it belongs to io, while LW_WORKER_BUSY to the worker, and io takes it back
 * from LW_WORKER_DONE. Everything else is behind `lock`, or atomic.
 */

typedef enum lw_worker_state {
    LW_WORKER_LOADING,
    LW_WORKER_FAILED, /* load failed; `error` says why; the thread is over */
    LW_WORKER_IDLE,
    LW_WORKER_BUSY,
    LW_WORKER_DONE /* `answer` is ready */
} lw_worker_state;

/** Latest progress; a newer one replaces it before it was sent. */
typedef struct lw_progress {
    bool pending;
    uint64_t step, total, picture;
    double sigma, t_ms;
} lw_progress;

typedef struct lw_worker {
    const lw_service *service;
    const lw_service_config *config;
    const char *name;
    pthread_t thread;
    int event_fd; /* worker -> io */
    int64_t step_delay_ms;

    pthread_mutex_t lock;
    pthread_cond_t wake; /* io -> worker: a task, or stop */
    lw_worker_state state;
    bool stop;
    lw_progress progress;
    lw_packet checkpoint, preview; /* encoded; n_frames 0 = none */

    atomic_bool cancel;
    atomic_bool sending; /* io takes progress; false while no session would hear it */
    atomic_int_least64_t moved_ms;
    atomic_uint_least64_t step;

    /* The task box. */
    lw_arena arena;
    lw_packet packet; /* keeps the request's frames */
    lw_msg request;
    int64_t started_ns;
    uint64_t picture;
    lw_packet answer;
    bool was_cancelled; /* handle() stopped because of `cancel` */

    void *self;           /* the service's model */
    lw_contract contract; /* set before LW_WORKER_IDLE is first seen */
    lw_err error;         /* of load */
    int64_t load_ms;
} lw_worker;

/** Start the thread, which loads the model. Signals must be blocked already. */
LW_MUST_USE lw_status lw_worker_start(lw_worker *w, const lw_service *s, const lw_service_config *c,
                                      const char *name, lw_err *err);
lw_worker_state lw_worker_look(lw_worker *w);
/** Hand the filled task box over. */
void lw_worker_give(lw_worker *w);
/** Take the answer (moved into *ret) and the box back from LW_WORKER_DONE. */
void lw_worker_take(lw_worker *w, lw_packet *ret);
/** End the thread (it unloads) and free what is left. A worker that is busy is waited for. */
void lw_worker_stop(lw_worker *w);

/** How the io loop ended. */
typedef struct lw_session_end {
    int exit_code;
    bool worker_hangs; /* the worker did not return from its task: do not wait for its thread */
} lw_session_end;

/** Serve until a signal or the hub ends it. signal_fd delivers SIGTERM and SIGINT. */
lw_session_end lw_session_run(lw_worker *w, const char *endpoint, int signal_fd);

#endif
