/*
 * `latentwire status`: what a hub says of itself, as tables for people or as the hub's own JSON.
 * The report comes over the wire, so whatever it lacks is shown as missing, not trusted to be
 * there.
 */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "orchestrate/cli.h"
#include "orchestrate/run.h"

#define TIMEOUT_MS 5000

static const lw_opt options[] = { LW_OPTS_HUB,
                                  { .name = "json",
                                    .kind = LW_OPT_FLAG,
                                    .offset = LW_SET(json),
                                    .help = "print the hub's report as JSON" },
                                  LW_OPT_END };

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s && s[0] ? s : "-";
}

static long long number(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static double mib(long long bytes)
{
    return (double)bytes / 1048576.0;
}

static void print_time(long long ms)
{
    const long long s = ms / 1000;

    if (s < 60)
        printf("%lld s", s);
    else if (s < 3600)
        printf("%lld min", s / 60);
    else if (s < 86400)
        printf("%lld h %02lld min", s / 3600, s / 60 % 60);
    else
        printf("%lld d %lld h", s / 86400, s / 3600 % 24);
}

static void print_summary(const json_t *r, const char *endpoint)
{
    const json_t *count = json_object_get(r, "counters"), *cache = json_object_get(r, "cache");
    const json_t *budget = json_object_get(r, "budget");

    printf("hub %s at %s, up ", text(r, "version"), endpoint);
    print_time(number(r, "uptime_ms"));
    printf("%s\n", json_is_true(json_object_get(r, "draining")) ? ", draining" : "");
    printf("jobs: %lld now; %lld done, %lld failed, %lld cancelled, %lld refused; %lld retries\n",
           number(r, "n_jobs"), number(count, "jobs_done"), number(count, "jobs_failed"),
           number(count, "jobs_cancelled"), number(count, "jobs_refused"),
           number(count, "retries"));
    printf("memory: %.1f of %.1f MiB for jobs; %lld prompts cached, %lld hits, %lld misses\n",
           mib(number(budget, "reserved_bytes")), mib(number(budget, "limit_bytes")),
           number(cache, "entries"), number(cache, "hits"), number(cache, "misses"));
}

static void print_workers(const json_t *r)
{
    const json_t *w;
    size_t i;

    printf("\n%-9s %-24s %-9s %-20s %6s %9s  %s\n", "ROLE", "WORKER", "STATE", "MODEL", "DONE",
           "MEMORY", "BACK END");
    json_array_foreach(json_object_get(r, "workers"), i, w)
        printf("%-9s %-24s %-9s %-20s %6lld %5.0f MiB  %s\n", text(w, "role"), text(w, "name"),
               text(w, "state"), text(w, "model"), number(w, "tasks_done"),
               mib(number(w, "rss_bytes")), text(w, "backend"));
    if (number(r, "n_workers") > (long long)i)
        printf("... and %lld more\n", number(r, "n_workers") - (long long)i);
    if (number(r, "n_workers") == 0)
        printf("no workers: start them with `encoder-svc`, `dit-svc` and `vae-svc --model DIR`\n");
}

static void print_jobs(const json_t *r)
{
    const json_t *list = json_object_get(r, "jobs"), *j;
    size_t i;

    if (json_array_size(list) == 0)
        return;
    printf("\n%-8s %-24s %-9s %-14s %8s %9s  %s\n", "JOB", "CLIENT", "STATE", "STAGE", "STEP",
           "PICTURES", "AGE");
    json_array_foreach(list, i, j)
    {
        char step[48], pictures[48];

        snprintf(step, sizeof(step), "%lld/%lld", number(j, "step"), number(j, "total"));
        snprintf(pictures, sizeof(pictures), "%lld/%lld", number(j, "pictures_done"),
                 number(j, "pictures"));
        printf("%-8.8s %-24s %-9s %-14s %8s %9s  ", text(j, "id"), text(j, "client"),
               text(j, "state"), text(j, "stage"), step, pictures);
        print_time(number(j, "age_ms"));
        putchar('\n');
    }
    if (number(r, "n_jobs") > (long long)i)
        printf("... and %lld more\n", number(r, "n_jobs") - (long long)i);
}

static void print_missing(const json_t *r)
{
    const json_t *role;
    size_t i;

    json_array_foreach(json_object_get(r, "waiting_for"), i, role) if (json_string_value(role))
        printf("\njobs wait for a worker of role %s, and there is none\n", json_string_value(role));
}

static lw_status print_report(const char *report, bool json, const char *endpoint, lw_err *err)
{
    json_error_t why;
    json_t *r = json_loads(report, JSON_REJECT_DUPLICATES, &why);

    if (!json_is_object(r)) {
        json_decref(r);
        return lw_fail(err, LW_E_FORMAT, "the report of the hub at %s is not a JSON object",
                       endpoint);
    }
    if (json) {
        puts(report);
    } else {
        print_summary(r, endpoint);
        print_workers(r);
        print_jobs(r);
        print_missing(r);
    }
    json_decref(r);
    if (fflush(stdout))
        return lw_fail(err, LW_E_IO, "cannot write to standard output: %s", strerror(errno));
    return LW_OK;
}

lw_status lw_cli_status(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    lw_settings o = { 0 };
    lw_client_params p = { 0 };
    char endpoint[PATH_MAX + 64];
    const char *report = NULL;
    lw_client *c = NULL;
    lw_arena arena;
    bool help = false, found = false;
    int n = 0;
    lw_status s;

    lw_opt_describe("latentwire status [OPTION]...",
                    "Show a running hub, its workers and its jobs.");
    LW_TRY(lw_opt_parse(options, argc, argv, &o, NULL, 0, &n, &help, err));
    if (help)
        return LW_OK;
    cli->json = o.json;
    LW_TRY(lw_find_hub(o.hub, endpoint, sizeof(endpoint), &found, err));
    if (!found)
        return lw_fail(err, LW_E_UNAVAILABLE,
                       "no hub is running here (%s); start one with `latentwire hub`, or name one "
                       "with --hub",
                       endpoint);
    p = (lw_client_params){ .endpoint = endpoint,
                            .net = { .key_dir = o.keys,
                                     .key_name = o.key_name,
                                     .insecure_loopback = o.insecure_loopback } };
    lw_arena_init(&arena, "status", 0);
    s = lw_client_create(&p, &c, err);
    if (s == LW_OK)
        s = lw_client_connect(c, TIMEOUT_MS, err);
    if (s == LW_OK)
        s = lw_client_status(c, TIMEOUT_MS, &arena, &report, err);
    if (s == LW_OK)
        s = print_report(report, o.json, endpoint, err);
    lw_client_destroy(&c);
    lw_arena_deinit(&arena);
    return s;
}
