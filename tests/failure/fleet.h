#ifndef LW_TESTS_FAILURE_FLEET_H
#define LW_TESTS_FAILURE_FLEET_H

#include <jansson.h>
#include <sys/types.h>

#include "orchestrate/client.h"
#include "orchestrate/hub_keep.h"
#include "tests/unit/unit.h"

/*
 * A hub and workers as real processes, in a private folder that goes when the test ends. Workers
 * are the model-less ones (latentwire-fakesvc), whose every byte follows from the request, so "the
 * same picture" is a comparison of bytes. Everything has a deadline: a test that hangs fails.
 */

#define FLEET_MAX_PROCESSES 64
#define DEADLINE_MS         20000

typedef struct fleet {
    char dir[64];
    char frontend[128], backend[128];
    pid_t hub;
    pid_t pids[FLEET_MAX_PROCESSES]; /* workers; 0 when reaped */
    int n_pids;
} fleet;

/** Start a hub. `options`: NULL-terminated, further options of `latentwire hub`; NULL: none. On
 * tcp: both endpoints are loopback ports chosen by the system. */
void fleet_start(fleet *f, bool tcp, const char *const *options);
/** Start a hub again, at the endpoints of one that is gone. */
void fleet_restart_hub(fleet *f, const char *const *options);
/** Kill everything, remove the folder. */
void fleet_stop(fleet *f);

/** Start a worker of a role. `env`: NULL-terminated "LATENTWIRE_FAKE_...=" settings; NULL: none. */
pid_t fleet_worker(fleet *f, const char *role, const char *name, const char *const *env);
/** One encoder, n_denoisers ("dit-1"...), one decoder; `env` is for the denoisers. Waits for them.
 */
void fleet_trio(fleet *f, int n_denoisers, const char *const *env);
/** Until so many workers are connected. */
void fleet_await_workers(fleet *f, int n);
/** Until an integer of the report, "counters.retries" or "n_jobs", has this value. */
void fleet_await(fleet *f, const char *path, int64_t value);
/** That integer now. */
int64_t fleet_number(fleet *f, const char *path);
/** Wait for a process to end; its wait status. */
int fleet_reap(fleet *f, pid_t pid);
/** Resident memory of the hub, bytes; 0 where a sanitizer makes it meaningless. */
size_t fleet_hub_rss(const fleet *f);

/** A connected client. */
lw_client *fleet_client(fleet *f);
/** A client without manners: a bare connection that has said HELLO and read WELCOME. Close it with
 * lw_net_destroy(net, 0). */
lw_sock *fleet_raw_client(fleet *f, lw_net **ret_net);
/** Say HELLO as a client. False: the connection does not stand yet. */
bool fleet_say_hello(lw_sock *s);

/** A job of the usual size from prompt to image. */
lw_msg fleet_job(const char *prompt, uint64_t seed, int n, int steps);
/** The next message of the client that is no progress; fails after DEADLINE_MS. */
const lw_msg *fleet_answer(lw_client *c);
/** Until the job has made progress in `op`: then the worker has it for certain. */
void fleet_await_progress(lw_client *c, lw_op op);
/** Submit and wait for RESULT; the picture is kept. Fails on any other answer. */
void fleet_picture(lw_client *c, const lw_msg *job, lw_kept *ret);
/** Both have the same picture. */
void assert_same_picture(const lw_kept *a, const lw_kept *b);

/** Call in main(): no test of this program may take longer, whatever hangs. */
void fleet_deadline(unsigned seconds);

#endif
