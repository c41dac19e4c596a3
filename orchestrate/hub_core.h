#ifndef LW_ORCHESTRATE_HUB_CORE_H
#define LW_ORCHESTRATE_HUB_CORE_H

#include "orchestrate/hub.h"

/*
 * The hub as a state machine: messages and time go in, messages come out through `send`. It opens
 * nothing, waits for nothing and reads no clock. Times are milliseconds that never go back.
 *
 *     SUBMIT -> job -> tasks in queues, one queue a role -> TASK to a worker -> RESULT -> next
 * stage
 *                                                                            -> final answer
 *
 * What is promised: a job gets exactly one final answer (RESULT, ERROR or CANCELLED) while its
 * client lives; memory is bounded by the parameters whatever peers do; an answer for a task that is
 * no longer a worker's changes nothing. Thread rule: one thread.
 */

typedef struct lw_hub lw_hub;

typedef enum lw_hub_side { LW_FRONTEND, LW_BACKEND } lw_hub_side;

/** The world outside. */
typedef struct lw_hub_io {
    void *ctx;
    /** Queue a message to a peer without waiting. LW_E_UNAVAILABLE: the peer is gone.
     * LW_E_EXHAUSTED: not now. The message is only valid during the call. */
    lw_status (*send)(void *ctx, lw_hub_side side, const lw_peer *peer, const lw_msg *m,
                      lw_err *err);
    /** Whether the sender of the message being received may be a `role`. NULL: always. */
    bool (*role_allowed)(void *ctx, lw_hub_side side, lw_role role);
    /** Unpredictable bytes: task ids, seeds. */
    void (*random)(void *ctx, void *buf, size_t n);
} lw_hub_io;

/** Counters since the start, for STATUS and tests. */
typedef struct lw_hub_counters {
    uint64_t jobs_accepted, jobs_refused, jobs_done, jobs_failed, jobs_cancelled;
    uint64_t tasks_sent, retries, late_dropped, lost_tasks;
    uint64_t workers_lost, workers_stuck, workers_refused, clients_lost;
    uint64_t malformed, unexpected, previews_dropped;
} lw_hub_counters;

/** Copies p and io. Errors: LW_E_INVALID, LW_E_NOMEM. */
LW_MUST_USE lw_status lw_hub_create(const lw_hub_params *p, const lw_hub_io *io, int64_t now_ms,
                                    lw_hub **ret, lw_err *err);
/** NULL-safe. Sends nothing. */
void lw_hub_destroy(lw_hub **h);

/** A message that was decoded. Tensors are kept by reference to their frames. */
void lw_hub_receive(lw_hub *h, lw_hub_side side, const lw_peer *peer, const lw_msg *m,
                    int64_t now_ms);
/**
 * A message that was not. `m`: type and id where the header got that far, else zero. `why` goes
 * back to the sender if it is known; three of them end its session.
 */
void lw_hub_malformed(lw_hub *h, lw_hub_side side, const lw_peer *peer, const lw_msg *m,
                      const lw_err *why, int64_t now_ms);
/** Timers. Returns in how many milliseconds the next call is due; more often is fine. */
int64_t lw_hub_tick(lw_hub *h, int64_t now_ms);

/** Stop accepting jobs; those that are still there after the drain time end with an error. */
void lw_hub_drain(lw_hub *h, int64_t now_ms);
/** Draining and all jobs have been answered: say goodbye to everybody. */
bool lw_hub_drained(const lw_hub *h);
void lw_hub_goodbye(lw_hub *h);
/** Sessions of workers and clients now. */
int lw_hub_sessions(const lw_hub *h, lw_hub_side side);

const lw_hub_counters *lw_hub_counters_get(const lw_hub *h);
/**
 * The state as a JSON text of at most the length that a STATUS may carry; the caller frees it. NULL
 * when memory runs out. Form: docs/operations.md.
 */
char *lw_hub_report(lw_hub *h, int64_t now_ms);

#endif
