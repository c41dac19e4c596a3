#ifndef LW_ORCHESTRATE_HUB_STATE_H
#define LW_ORCHESTRATE_HUB_STATE_H

#include "orchestrate/embedding_cache.h"
#include "orchestrate/hub_core.h"
#include "orchestrate/queue.h"

/*
 * What the hub's own files share; nobody else includes this. Who owns what:
 *
 *     hub -> sessions (workers, clients) -> tasks that a worker was given and has not answered
 *         -> jobs -> tasks, queued or given to a worker
 *
 * A task whose job has ended while a worker still holds it has no job (`job == NULL`); the worker's
 * slot stays taken until the worker answers, and the answer is thrown away.
 *
 * Nothing is freed while an event is being handled: a session that is lost is marked `gone`, a job
 * that has ended has `final` set. lw_hub_settle(), at the end of each event, draws the
 * consequences: tasks of lost workers are queued again, queued tasks are given out, answers are
 * sent.
 */

#define LW_HUB_MAX_SLOTS      64 /* of a worker; as in the schema */
#define LW_HUB_MAX_RETRIES    2
#define LW_HUB_MAX_DEATHS     2 /* workers lost over one task; a third is not risked */
#define LW_HUB_MAX_MALFORMED  3
#define LW_HUB_MAX_REFUSALS   1024 /* errors waiting for a client that does not read */
#define LW_HUB_DEFAULT_SIDE   1024
#define LW_HUB_DEFAULT_STEPS  8
#define LW_HUB_DEFAULT_TOKENS 512

typedef struct lw_hub_session lw_hub_session;
typedef struct lw_hub_job lw_hub_job;
typedef struct lw_hub_task lw_hub_task;

/* The two texts of a job. */
enum { LW_POSITIVE, LW_NEGATIVE, LW_N_TEXTS };

/** One piece of work for one worker. */
struct lw_hub_task {
    lw_queue_item item; /* first member: a queue item is its task */
    lw_hub_task *next;  /* of the same job */
    lw_hub_job *job;    /* NULL: nobody waits for it any more */
    lw_op op;
    int text;         /* of encode */
    int first, count; /* pictures of the others */
    int attempt, deaths;
    uint64_t excluded[LW_HUB_MAX_RETRIES + 1]; /* epochs of workers that failed it */
    int n_excluded;
    int64_t queued_ms;
    /* while a worker has it */
    lw_hub_session *worker;
    uint8_t id[16]; /* new for each attempt, so that a late answer finds nothing */
    int64_t sent_ms, moved_ms;
    uint64_t step;
    int idle_beats; /* heartbeats of the worker that know nothing of it */
    /* denoise: where a retry goes on */
    lw_held checkpoint;
    uint64_t checkpoint_step;
};

/** A message that only the newest of its kind matters of. */
typedef struct lw_hub_mail {
    bool waiting;
    lw_msg_type type;
    lw_op op;
    uint64_t step, total, picture, attempt;
    double sigma, t_ms;
    bool has_sigma, has_t_ms;
    char worker[65];
    /* PREVIEW only */
    char tensor_name[LW_MAX_TENSOR_NAME];
    lw_held tensor;
    lw_delivery *delivery; /* of the one before; the next waits for it */
} lw_hub_mail;

typedef struct lw_hub_picture {
    lw_held image;   /* input of encode_image, output of decode */
    lw_held latents; /* until decoded */
    bool done;       /* is at the job's `to` */
} lw_hub_picture;

struct lw_hub_job {
    lw_hub_job *next;
    lw_hub_session *client;
    uint8_t id[16];
    lw_kept request;
    lw_artefact from, to;
    int n, width, height, steps;
    uint64_t seed;
    double guidance;
    size_t reserved_bytes;
    int64_t accepted_ms;
    lw_hub_task *tasks;
    /* what is done */
    lw_embeds embeds[LW_N_TEXTS];
    bool needs[LW_N_TEXTS];
    lw_hub_picture *pictures; /* n */
    int n_done;
    lw_kept_stage stages[LW_N_OPS];
    double sigmas[LW_MAX_SIGMAS];
    uint32_t n_sigmas;
    /* for the client */
    bool welcome_waiting; /* ACCEPTED could not be sent yet */
    uint64_t queue_pos;
    lw_hub_mail progress, preview;
    lw_op last_op;
    uint64_t last_step, last_total;
    /* the final answer: NONE, RESULT, ERROR or CANCELLED; set once */
    lw_msg_type final;
    bool answered;         /* sent, or nobody to send it to */
    lw_delivery *delivery; /* of a RESULT; the job and its budget last until it has left */
    lw_held out_latents, out_image;
    lw_kept out_tokens; /* the encoder's answer to tokenize */
    lw_err err;
    bool err_retryable;
    lw_op err_op;
    int err_attempt;
    char err_worker[65];
    char reason[257];
};

/** Whether the job ends in latents or pictures, not with the text. */
static inline bool lw_hub_job_draws(const lw_hub_job *j)
{
    return j->to == LW_ARTEFACT_LATENTS || j->to == LW_ARTEFACT_IMAGE;
}

/** An error for a client that could not be sent yet: for a job that was never accepted. */
typedef struct lw_hub_refusal {
    struct lw_hub_refusal *next;
    uint8_t id[16];
    lw_status code;
    char text[]; /* a client may have many of them: no longer than it is */
} lw_hub_refusal;

struct lw_hub_session {
    lw_hub_side side;
    lw_peer peer;
    lw_role role;
    uint8_t instance[16];
    char name[65];
    uint64_t epoch;
    int64_t heard_ms;
    int malformed;
    bool gone;         /* to be removed by lw_hub_settle */
    bool said_bye;     /* gone in good order */
    char gone_why[96]; /* for messages */
    /* client */
    bool unreachable; /* its connection is lost; it may come back until it counts as silent */
    size_t reserved_bytes;
    lw_queue_lane lanes[LW_N_ROLES];
    lw_hub_refusal *refusals;
    int n_refusals;
    /* worker */
    lw_contract contract;
    void *contract_text;
    int slots, credits;
    lw_hub_task *tasks[LW_HUB_MAX_SLOTS]; /* in the order they were sent */
    int n_tasks;
    bool has_in_flight, draining, stuck;
    uint8_t in_flight[16];
    uint64_t step_age_ms, rss_bytes, tasks_done;
    uint64_t last_used;
};

struct lw_hub {
    lw_hub_params p; /* defaults filled in */
    lw_hub_io io;
    int64_t now_ms, started_ms, tick_ms, beat_ms;
    uint64_t next_epoch, serial;
    lw_hub_session **sessions[2];
    int n_sessions[2];
    lw_hub_job *jobs, **jobs_end; /* in the order they came */
    int n_jobs;
    size_t reserved_bytes;
    lw_queue queues[LW_N_ROLES];
    int64_t role_seen_ms[LW_N_ROLES]; /* when a usable worker was last there */
    double longest_ms[LW_N_OPS];      /* longest step per unit of lw_hub_task_cost */
    lw_embedding_cache *cache;
    lw_hub_counters count;
    bool draining;
    int64_t drain_deadline_ms;
    int64_t log_window_ms; /* see lw_hub_may_log */
    int log_lines, log_left_out;
};

/* hub_core.c */

/** Draw the consequences of what happened; see above. */
void lw_hub_settle(lw_hub *h);
/** Whether to log a line that a peer can cause at will: not more than a few in a second. */
bool lw_hub_may_log(lw_hub *h);

/* hub_session.c */

lw_hub_session *lw_hub_session_find(lw_hub *h, lw_hub_side side, const lw_peer *peer);
void lw_hub_hello(lw_hub *h, lw_hub_side side, const lw_peer *peer, const lw_msg *m);
/** Mark as gone; NULL-safe and only the first time. */
void lw_hub_session_lose(lw_hub *h, lw_hub_session *s, const char *why);
void lw_hub_session_free(lw_hub *h, lw_hub_session *s);
/** Send; a worker that cannot be reached is lost, a client may come back. */
lw_status lw_hub_send(lw_hub *h, lw_hub_session *s, const lw_msg *m);
/** An error about one job or task that does not exist as such, or (id NULL) about the session. */
void lw_hub_refuse(lw_hub *h, lw_hub_session *s, const uint8_t *id, const lw_err *err);
/** Try again to deliver refusals. True when some are left. */
bool lw_hub_refusals_flush(lw_hub *h, lw_hub_session *s);
/** Heartbeats out, silent peers gone. */
void lw_hub_sessions_tick(lw_hub *h);
/** False: gone, draining or stuck; gets no task. */
bool lw_hub_worker_usable(const lw_hub_session *s);

/* hub_worker.c */

/** CREDIT and HEARTBEAT of a worker. */
void lw_hub_worker_credit(lw_hub *h, lw_hub_session *s, const lw_msg *m);
void lw_hub_worker_heartbeat(lw_hub *h, lw_hub_session *s, const lw_msg *m);
/** PROGRESS, PREVIEW, RESULT, ERROR, CANCELLED of a worker. */
void lw_hub_worker_answer(lw_hub *h, lw_hub_session *s, const lw_msg *m);
/** An answer of a worker that could not be decoded. */
void lw_hub_worker_garbled(lw_hub *h, lw_hub_session *s, const lw_msg *m, const lw_err *why);
/** Queue again what a lost worker had. */
void lw_hub_worker_tasks_return(lw_hub *h, lw_hub_session *s);

/* hub_contract.c */

/** The contract of a role: that of any worker there is, they agree. NULL: no worker. */
const lw_contract *lw_hub_contract(const lw_hub *h, lw_role role);
/** Whether a worker fits those that are there. Errors: LW_E_PRECONDITION, naming both values. */
LW_MUST_USE lw_status lw_hub_contract_check(const lw_hub *h, lw_role role, const lw_contract *c,
                                            lw_err *err);

/* hub_submit.c */

void lw_hub_submit(lw_hub *h, lw_hub_session *client, const lw_msg *m);

/* hub_job.c */

lw_hub_job *lw_hub_job_find(lw_hub *h, const uint8_t *id);
/** Begin with what the request brought. */
void lw_hub_job_start(lw_hub *h, lw_hub_job *j);
/** The results of one stage have come; go on. */
void lw_hub_job_text_done(lw_hub *h, lw_hub_job *j);
void lw_hub_job_tokens_done(lw_hub *h, lw_hub_job *j);
void lw_hub_job_latents_done(lw_hub *h, lw_hub_job *j, int picture);
void lw_hub_job_image_done(lw_hub *h, lw_hub_job *j, int picture);
/** End the job with an error. `t` and `worker`, where it arose, may be NULL. */
void lw_hub_job_fail(lw_hub *h, lw_hub_job *j, const lw_err *err, const lw_hub_task *t,
                     const char *worker);
void lw_hub_job_cancel(lw_hub *h, lw_hub_job *j, const char *reason);
void lw_hub_job_free(lw_hub *h, lw_hub_job *j);
/** Fail the jobs that have waited too long for a role that nobody has. */
void lw_hub_jobs_tick(lw_hub *h);
/** Roles that the job still needs, as bits 1 << role. */
unsigned lw_hub_job_roles(const lw_hub_job *j);
bool lw_hub_job_running(const lw_hub_job *j);

/* hub_task.c */

/** A new task at the end of its client's queue. NULL: no memory. */
lw_hub_task *lw_hub_task_new(lw_hub *h, lw_hub_job *j, lw_op op, int text, int first, int count);
/** Take it out of its job, its queue, and free it. */
void lw_hub_task_free(lw_hub *h, lw_hub_task *t);
/** Nobody waits for it any more: out of the queue, or a CANCEL to the worker that has it. */
void lw_hub_task_abandon(lw_hub *h, lw_hub_task *t);
/** Remove it from its worker's list. */
void lw_hub_task_detach(lw_hub_task *t);
/** Take it from its worker and queue it again elsewhere, or fail its job when it had its chances.
 * death: the worker was lost over it. */
void lw_hub_task_retry(lw_hub *h, lw_hub_task *t, bool death, const lw_err *why);
/** Give queued tasks to workers. */
void lw_hub_dispatch(lw_hub *h);
/** The task as the worker will see it; borrows from the job. */
LW_MUST_USE lw_status lw_hub_task_message(const lw_hub *h, const lw_hub_task *t, lw_msg *ret,
                                          lw_err *err);
/** Relative size of a task: 1 for a text or 256 x 256 pixels. */
double lw_hub_task_cost(const lw_hub_task *t);

/* hub_answer.c */

/** Send what waits for the job's client; true when something is left to send. */
bool lw_hub_job_flush(lw_hub *h, lw_hub_job *j);
/** The final answer has been given and has left; the job may go. */
bool lw_hub_job_over(const lw_hub_job *j);
/** Forward PROGRESS or PREVIEW; a slow client gets only the newest. */
void lw_hub_job_mail(lw_hub *h, lw_hub_job *j, const lw_hub_task *t, const lw_msg *m);

#endif
