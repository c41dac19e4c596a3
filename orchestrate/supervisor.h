#ifndef LW_ORCHESTRATE_SUPERVISOR_H
#define LW_ORCHESTRATE_SUPERVISOR_H

#include "orchestrate/locate.h"
#include "orchestrate/procmem.h"

/*
 * A private cluster: one hub and the workers a job needs, as children of this process, talking over
 * ipc in a 0700 folder of their own. They die with their parent, however it dies; their output goes
 * to files in that folder, from which the reason of a failure is told; the folder goes when the
 * cluster stops. Thread rule: the thread that starts it; start it before any other thread exists.
 */

#define LW_MAX_WORKERS 16 /* of one role */

typedef struct lw_cluster_params {
    const lw_model_choice *model;      /* roles without a path are not started */
    int workers[LW_N_ROLES];           /* how many of each; 0 counts as 1 */
    int threads[LW_N_ROLES];           /* 0: the cores shared out evenly among a role's workers */
    const char *device[LW_N_ROLES];    /* NULL: "cpu" */
    const char *precision[LW_N_ROLES]; /* NULL: "auto" */
    const char *tokenizer;             /* of the encoder; NULL: the model's own, else Qwen3's */
    const char *weights;               /* auto | stored | bf16; NULL: auto */
    int64_t memory_mb;                 /* 0: the worker decides */
    int64_t start_timeout_ms;          /* how long loading may take, also after a worker's death */
    const char *log_level;             /* NULL: "info" */
} lw_cluster_params;

typedef struct lw_cluster lw_cluster;

/**
 * Make the folder, start hub and workers; does not wait until they are ready (the hub's STATUS
 * tells). On failure nothing is left behind. Errors: LW_E_NOT_FOUND (programs), LW_E_IO,
 * LW_E_NOMEM, and those of lw_runtime_dir.
 */
LW_MUST_USE lw_status lw_cluster_start(const lw_cluster_params *p, lw_cluster **ret, lw_err *err);

/**
 * Stop everything: SIGTERM, grace_ms to obey, SIGKILL; wait for every child; remove the folder.
 * NULL-safe.
 */
void lw_cluster_stop(lw_cluster **c, int64_t grace_ms);

/** Endpoint for clients. */
const char *lw_cluster_endpoint(const lw_cluster *c);
/** How many workers of a role were started. */
int lw_cluster_workers(const lw_cluster *c, lw_role role);

/** Look at the memory of all workers now; what is between two looks is not seen. */
void lw_cluster_look(lw_cluster *c);
/** The most that a worker of a role has had at one of the looks. */
lw_procmem lw_cluster_memory(const lw_cluster *c, lw_role role);

/**
 * See whether the children live; call it after SIGCHLD and now and then. While `starting`, any
 * death is an error. Later, a worker that was killed by a signal is started again (at most twice
 * each): the hub gives its task to another meanwhile. A worker that exits with an error, or a dead
 * hub, is an error that carries what the child said and its code.
 */
LW_MUST_USE lw_status lw_cluster_check(lw_cluster *c, bool starting, lw_err *err);

#endif
