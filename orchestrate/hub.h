#ifndef LW_ORCHESTRATE_HUB_H
#define LW_ORCHESTRATE_HUB_H

#include "proto/transport.h"

/*
 * The hub: the one process that everybody connects to. Clients SUBMIT jobs to its frontend; workers
 * take tasks from its backend. It owns what has state: queues, the pipeline of a job, retries, byte
 * budgets, the embedding cache. docs/operations.md tells how to run it.
 *
 * In files: hub_run.c has the sockets and signals; everything else is a state machine without them
 * (hub_core.h), so that it can be tested with a fake clock.
 */

/** Zero is the default, everywhere. */
typedef struct lw_hub_params {
    const char *frontend, *backend; /* NULL: ipc://RUNTIME/frontend.sock and .../backend.sock */
    lw_net_params net;
    int64_t hb_ms;       /* heartbeat interval; 0 = 1000 */
    int64_t hb_misses;   /* silent intervals after which a peer is dead; 0 = 3 */
    int64_t stuck_ms;    /* a task that has not moved for so long is stuck; 0 = by experience */
    int64_t wait_ms;     /* how long a job waits for a role that no worker has; 0 = 60000 */
    int64_t drain_ms;    /* how long jobs may finish after SIGTERM; 0 = 30000 */
    size_t budget_bytes; /* all jobs together; 0 = 512 MiB */
    size_t client_bytes; /* the jobs of one client; 0 = half of budget_bytes */
    size_t cache_bytes;  /* embedding cache; 0 = 64 MiB */
    bool no_cache;
    int max_jobs;         /* 0 = 1024 */
    int max_sessions;     /* clients, and as many workers; 0 = 256 */
    int batch;            /* pictures in one denoising task; 0 = 1 */
    int checkpoint_every; /* steps between saved latents; 0 = 1, -1 = none */
    bool keep_workers;    /* on shutdown workers are not told to leave, but to connect again */
} lw_hub_params;

/**
 * Bind both sockets and serve until SIGTERM, SIGINT or SIGHUP: no new job is accepted, those that
 * run may finish within drain_ms, the rest is cancelled. A second signal ends it at once. Takes
 * over these signals of the process; call it from the main thread before any other thread exists.
 * Errors: those of lw_sock_bind and lw_runtime_dir, LW_E_NOMEM, LW_E_INVALID.
 */
LW_MUST_USE lw_status lw_hub_run(const lw_hub_params *p, lw_err *err);

#endif
