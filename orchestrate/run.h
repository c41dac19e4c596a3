#ifndef LW_ORCHESTRATE_RUN_H
#define LW_ORCHESTRATE_RUN_H

#include <jansson.h>

#include "orchestrate/client.h"
#include "orchestrate/locate.h"
#include "orchestrate/procmem.h"
#include "orchestrate/settings.h"

/*
 * From "a verb wants a job done" to its answer: find a hub or start a private cluster, submit,
 * show progress, obey Ctrl-C, and leave nothing behind. Thread rule: the main thread, once at a
 * time (it takes over SIGINT, SIGTERM, SIGHUP and SIGCHLD while it is open).
 */

#define LW_MAX_PICTURES 64 /* of one job: the wire's limit of `n` */

typedef struct lw_run lw_run;

/** One request and where its answer goes. */
typedef struct lw_job {
    lw_msg *submit; /* type SUBMIT; lw_run_jobs gives it its id */
    /** The job's result; the message is valid during the call. A failure fails the job. */
    lw_status (*on_result)(void *arg, const lw_msg *submit, const lw_msg *result, lw_err *err);
    /** When set, a failure of the job is told here and the others go on; an error that it returns
     * fails the run. */
    lw_status (*on_failure)(void *arg, const lw_err *why, lw_err *err);
    /** When set, hears what a worker tells of its progress; some of it may be lost on the way. */
    void (*on_progress)(void *arg, const lw_msg *progress);
    void *arg;
    /* Set by lw_run_jobs. */
    bool finished;
    int session;                          /* in which it was submitted; 0 = not yet */
    uint16_t steps_done[LW_MAX_PICTURES]; /* of each picture, for the bar */
    uint64_t steps_total;                 /* of all pictures */
} lw_job;

/**
 * The hub that a command without a model of its own talks to: `named` when set, else the one that
 * listens in the runtime folder. *ret_found false: there is none. Errors: those of lw_runtime_dir.
 */
LW_MUST_USE lw_status lw_find_hub(const char *named, char *ret_endpoint, size_t ret_bytes,
                                  bool *ret_found, lw_err *err);

/**
 * Get a hub that has workers of all `roles` (1 << lw_role): the one named by --hub, else one that
 * runs in the runtime folder, else a private cluster with the model of the settings. Naming a model
 * on the command line asks for a private cluster, because a running hub has its own.
 * On failure nothing is left behind. Errors: those of lw_locate_model and lw_cluster_start;
 * LW_E_UNAVAILABLE (no hub at --hub, or it lacks a role), LW_E_CANCELLED (Ctrl-C), LW_E_DEADLINE,
 * and what a worker said when it could not load.
 */
LW_MUST_USE lw_status lw_run_open(const lw_settings *s, unsigned roles, lw_run **ret, lw_err *err);

/** Close the connection, stop the private cluster, give the signals back. NULL-safe. */
void lw_run_close(lw_run **s);

/** The model's defaults for size and steps. */
const lw_model_choice *lw_run_model(const lw_run *s);
/** Workers of a role that the hub had when the run was opened. */
int lw_run_workers(const lw_run *s, lw_role role);
/** What the hub said of itself when the run was opened (docs/operations.md); lives as long as the
 * run. */
const json_t *lw_run_report(const lw_run *s);
/** Endpoint of the hub, or "private". */
const char *lw_run_hub(const lw_run *s);
/** Most bytes that one tensor of a request or result may have. */
size_t lw_run_max_tensor_bytes(const lw_run *s);
/** Milliseconds it took to get a hub and workers that are ready. */
double lw_run_start_ms(const lw_run *s);
/** Milliseconds from the start of a private cluster until it had all workers of a role, seen within
 * 10; 0 for somebody else's hub. */
double lw_run_ready_ms(const lw_run *s, lw_role role);
/** Memory of the private workers of a role up to now, with watch_memory of the settings; else and
 * for somebody else's hub zero. */
lw_procmem lw_run_memory(lw_run *s, lw_role role);

/** From now on at most `most` jobs are with the hub at once (0: all), and what is shown of progress
 * counts jobs, of which `before` were done already. */
void lw_run_set_window(lw_run *s, int most, uint64_t before);

/**
 * Submit the jobs and wait for all answers. A lost connection is taken up again, and the jobs with
 * it, if the hub comes back within some seconds. The first Ctrl-C cancels them and waits a little
 * for the hub to agree; the second gives up at once. When one job fails that
 * has no on_failure, the others are cancelled.
 * Errors: that of the job, LW_E_CANCELLED, LW_E_UNAVAILABLE, what a private worker died of.
 */
LW_MUST_USE lw_status lw_run_jobs(lw_run *s, lw_job *jobs, int n_jobs, lw_err *err);

#endif
