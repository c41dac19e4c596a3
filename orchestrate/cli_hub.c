/* `latentwire hub`: options and the hub. */

#include <stddef.h>
#include <stdio.h>

#include "common/log.h"
#include "common/opt.h"
#include "orchestrate/cli.h"
#include "orchestrate/hub.h"

typedef struct hub_options {
    const char *frontend, *backend, *keys, *key_name, *log_level;
    int64_t budget_mb, client_mb, cache_mb;
    int64_t max_jobs, max_sessions, batch, checkpoint_every;
    int64_t hb_ms, hb_misses, stuck_ms, wait_ms, drain_ms;
    bool insecure_loopback, keep_workers, log_json;
} hub_options;

#define AT(m) offsetof(hub_options, m)

/* A table reads better with one option in a paragraph of its own. */
/* clang-format off */
static const lw_opt options[] = {
    { .name = "frontend", .kind = LW_OPT_STR, .offset = AT(frontend), .value = "ENDPOINT",
      .help = "for clients (default: ipc, frontend.sock in the runtime folder)" },
    { .name = "backend", .kind = LW_OPT_STR, .offset = AT(backend), .value = "ENDPOINT",
      .help = "for workers (default: ipc, backend.sock in the runtime folder)" },
    { .name = "keys", .kind = LW_OPT_STR, .offset = AT(keys), .value = "DIR",
      .help = "CURVE keys, for tcp:// endpoints (latentwire keys)" },
    { .name = "key-name", .kind = LW_OPT_STR, .offset = AT(key_name), .value = "NAME",
      .help = "which own key pair in --keys (default: hub)" },
    { .name = "insecure-loopback", .kind = LW_OPT_FLAG, .offset = AT(insecure_loopback),
      .help = "allow tcp://127.0.0.1 without keys" },
    { .name = "budget-mb", .kind = LW_OPT_INT, .offset = AT(budget_mb), .dflt = "512", .min = 1,
      .max = 1 << 24, .value = "N", .help = "memory for all jobs, MiB; more are refused" },
    { .name = "client-mb", .kind = LW_OPT_INT, .offset = AT(client_mb), .min = 0, .max = 1 << 24,
      .value = "N", .help = "memory for the jobs of one client, MiB (default: half of that)" },
    { .name = "cache-mb", .kind = LW_OPT_INT, .offset = AT(cache_mb), .dflt = "64", .min = 0,
      .max = 1 << 24, .value = "N",
      .help = "memory for embeddings of earlier prompts, MiB; 0 = none" },
    { .name = "max-jobs", .kind = LW_OPT_INT, .offset = AT(max_jobs), .dflt = "1024", .min = 1,
      .max = 65536, .value = "N", .help = "jobs accepted at a time" },
    { .name = "max-sessions", .kind = LW_OPT_INT, .offset = AT(max_sessions), .dflt = "256",
      .min = 1, .max = 4096, .value = "N",
      .help = "clients connected at a time, and as many workers" },
    { .name = "batch", .kind = LW_OPT_INT, .offset = AT(batch), .dflt = "1", .min = 1, .max = 64,
      .value = "N", .help = "pictures of a job that one denoiser gets at a time" },
    { .name = "checkpoint-every", .kind = LW_OPT_INT, .offset = AT(checkpoint_every), .dflt = "1",
      .min = 0, .max = 256, .value = "N",
      .help = "steps between latents saved for a retry; 0 = a retry starts over" },
    { .name = "heartbeat-ms", .kind = LW_OPT_INT, .offset = AT(hb_ms), .dflt = "1000", .min = 10,
      .max = 3600000, .value = "N", .help = "interval of heartbeats" },
    { .name = "heartbeat-misses", .kind = LW_OPT_INT, .offset = AT(hb_misses), .dflt = "3",
      .min = 1, .max = 1000, .value = "N",
      .help = "silent intervals after which a peer is dead" },
    { .name = "stuck-ms", .kind = LW_OPT_INT, .offset = AT(stuck_ms), .dflt = "0", .min = 0,
      .max = 86400000, .value = "N",
      .help = "a task that did not move for so long is given to another; 0 = ten of its longest "
              "steps, at least 30 s" },
    { .name = "wait-ms", .kind = LW_OPT_INT, .offset = AT(wait_ms), .dflt = "60000", .min = 1,
      .max = 86400000, .value = "N",
      .help = "how long a job waits for a worker of a missing kind" },
    { .name = "drain-ms", .kind = LW_OPT_INT, .offset = AT(drain_ms), .dflt = "30000", .min = 1,
      .max = 86400000, .value = "N", .help = "how long jobs may finish after SIGTERM" },
    { .name = "keep-workers", .kind = LW_OPT_FLAG, .offset = AT(keep_workers),
      .help = "on shutdown let workers wait for the next hub instead of stopping them" },
    { .name = "log-level", .kind = LW_OPT_CHOICE, .offset = AT(log_level), .dflt = "info",
      .choices = "error|warn|info|debug", .value = "L", .help = "what is logged to stderr" },
    { .name = "log-json", .kind = LW_OPT_FLAG, .offset = AT(log_json), .help = "log JSON lines" },
    LW_OPT_END
};
/* clang-format on */

static lw_hub_params params_of(const hub_options *o)
{
    const int64_t mib = 1024 * 1024;

    return (lw_hub_params){
        .frontend = o->frontend,
        .backend = o->backend,
        .net = { .key_dir = o->keys,
                 .key_name = o->key_name,
                 .insecure_loopback = o->insecure_loopback },
        .hb_ms = o->hb_ms,
        .hb_misses = o->hb_misses,
        .stuck_ms = o->stuck_ms,
        .wait_ms = o->wait_ms,
        .drain_ms = o->drain_ms,
        .budget_bytes = (size_t)(o->budget_mb * mib),
        .client_bytes = (size_t)(o->client_mb * mib),
        .cache_bytes = (size_t)(o->cache_mb * mib),
        .no_cache = o->cache_mb == 0,
        .max_jobs = (int)o->max_jobs,
        .max_sessions = (int)o->max_sessions,
        .batch = (int)o->batch,
        .checkpoint_every = o->checkpoint_every ? (int)o->checkpoint_every : -1,
        .keep_workers = o->keep_workers,
    };
}

static lw_status run(int argc, char **argv, lw_err *err)
{
    hub_options o = { 0 };
    lw_hub_params p;
    bool help = false;
    int n_args = 0;

    lw_opt_describe("latentwire hub [OPTION]...",
                    "Run a hub: workers connect to its backend, clients to its frontend. Stops on "
                    "SIGTERM or Ctrl-C when the jobs are done; a second one stops it at once.");
    LW_TRY(lw_opt_parse(options, argc, argv, &o, NULL, 0, &n_args, &help, err));
    if (help)
        return LW_OK;
    lw_log_init((lw_log_level)lw_log_level_parse(o.log_level), o.log_json, "hub");
    p = params_of(&o);
    return lw_hub_run(&p, err);
}

int lw_cli_hub(int argc, char **argv)
{
    lw_err err = { 0 };

    if (run(argc, argv, &err) == LW_OK)
        return 0;
    fprintf(stderr, "latentwire hub: error: %s\n",
            err.text[0] ? err.text : lw_status_text(err.code));
    return lw_status_exit(err.code);
}
