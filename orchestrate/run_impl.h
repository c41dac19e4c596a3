#ifndef LW_ORCHESTRATE_RUN_IMPL_H
#define LW_ORCHESTRATE_RUN_IMPL_H

#include <signal.h>

#include "orchestrate/preview.h"
#include "orchestrate/progress.h"
#include "orchestrate/run.h"
#include "orchestrate/supervisor.h"

/* What run.c (a hub, ready) and run_jobs.c (its jobs) share. */

struct lw_run {
    const lw_settings *settings;
    lw_model_choice model;
    lw_cluster *cluster; /* NULL: somebody else's hub */
    lw_client *client;
    char endpoint[PATH_MAX + 64];
    int workers[LW_N_ROLES];
    json_t *report; /* of the hub, the last one that was read */
    int signal_fd;
    sigset_t old_mask;
    bool mask_set;
    int interrupts; /* SIGINT, SIGTERM, SIGHUP seen */
    lw_progress progress;
    lw_preview preview;
    int64_t opened_ms;
    double start_ms, ready_ms[LW_N_ROLES];
    int window; /* jobs with the hub at once; 0: all */
    uint64_t jobs_before;
};

/**
 * One wait on everything: the hub, signals, the children. `starting`: a child that dies is an error
 * whatever it died of. Errors: those of lw_client_wait and lw_cluster_check.
 */
LW_MUST_USE lw_status lw_run_wait(lw_run *s, int64_t timeout_ms, bool starting,
                                  lw_client_event *ret, lw_err *err);

#endif
