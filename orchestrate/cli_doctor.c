/*
 * `latentwire doctor`: one line a check, each ok, warn or fail, each that is not ok with what to
 * do. It opens what a run would open (folders, programs, headers of weights) and changes nothing.
 */

#include <errno.h>
#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "common/weights.h"
#include "lw_version.h"
#include "orchestrate/cli.h"
#include "orchestrate/run.h"

/* What a run needs beside the weights: activations, the hub, the tokenizer's tables. */
#define EXTRA_BYTES    (UINT64_C(1) << 30)
#define HUB_TIMEOUT_MS 3000

typedef enum verdict { OK, WARN, FAIL } verdict;

typedef struct doctor {
    lw_settings opt;
    lw_status first_failure;
    int n_failed, n_warned;
    json_t *checks;
    uint64_t weight_bytes; /* of all parts of the model, as stored */
    uint64_t kept_bytes;   /* as they will be kept in memory at least */
} doctor;

static const lw_opt options[] = { LW_OPTS_MODEL,
                                  LW_OPTS_HUB,
                                  { .name = "json",
                                    .kind = LW_OPT_FLAG,
                                    .offset = LW_SET(json),
                                    .help = "print one JSON object" },
                                  LW_OPT_END };

static void check(doctor *d, verdict v, lw_status code, const char *what, const char *fmt, ...)
    LW_PRINTF(5, 6);

static void check(doctor *d, verdict v, lw_status code, const char *what, const char *fmt, ...)
{
    static const char *const names[] = { "ok", "warn", "fail" };
    char text[LW_ERR_TEXT_BYTES + 256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (v == FAIL && d->n_failed++ == 0)
        d->first_failure = code;
    d->n_warned += v == WARN;
    if (d->opt.json)
        (void)json_array_append_new(d->checks, json_pack("{s:s, s:s, s:s}", "check", what,
                                                         "verdict", names[v], "text", text));
    else
        printf("%-4s  %-12s %s\n", names[v], what, text);
}

static double gib(uint64_t bytes)
{
    return (double)bytes / (double)(1u << 30);
}

/* ---- the machine ---- */

static void check_runtime(doctor *d)
{
    char dir[PATH_MAX];
    lw_err err = { 0 };

    if (lw_runtime_dir(dir, sizeof(dir), &err) == LW_OK)
        check(d, OK, LW_OK, "runtime", "%s is private", dir);
    else
        check(d, FAIL, err.code, "runtime", "%s", err.text);
}

static void check_programs(doctor *d)
{
    static const char *const names[] = { "encoder-svc", "dit-svc", "vae-svc" };

    for (size_t i = 0; i < LW_ARRAY_LEN(names); i++) {
        char path[PATH_MAX];
        lw_err err = { 0 };

        if (lw_locate_program(names[i], path, &err) == LW_OK)
            check(d, OK, LW_OK, names[i], "%s", path);
        else
            check(d, FAIL, err.code, names[i], "%s", err.text);
    }
}

static void check_cpu(doctor *d)
{
    const char *isa = "no AVX2";
    const char *backend = getenv("LATENTWIRE_BACKEND");
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        isa = "AVX-512";
    else if (__builtin_cpu_supports("avx2"))
        isa = "AVX2";
#else
    isa = "not x86";
#endif
    check(d, OK, LW_OK, "cpu", "%d core%s, %s", cores, cores == 1 ? "" : "s", isa);
    if (backend && !strcmp(backend, "ref"))
        check(d, WARN, LW_OK, "back end",
              "LATENTWIRE_BACKEND=ref asks for the plain reference, which is very slow; unset it");
    else if (LW_HAVE_ONEDNN)
        check(d, OK, LW_OK, "back end", "oneDNN");
    else
        check(d, WARN, LW_OK, "back end",
              "built without oneDNN: correct, but very slow; install libdnnl-dev and build again");
}

static uint64_t meminfo(const char *key)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long long kb = 0;

    while (f && fgets(line, sizeof(line), f))
        if (!strncmp(line, key, strlen(key)) && sscanf(line + strlen(key), ": %llu", &kb) == 1)
            break;
    if (f)
        fclose(f);
    return (uint64_t)kb * 1024;
}

static void check_memory(doctor *d)
{
    const uint64_t have = meminfo("MemAvailable"), need = d->kept_bytes + EXTRA_BYTES;

    if (d->kept_bytes == 0)
        return;
    if (have == 0)
        check(d, WARN, LW_OK, "memory", "cannot read /proc/meminfo; the model needs about %.1f GiB",
              gib(need));
    else if (have < need)
        check(d, WARN, LW_OK, "memory",
              "%.1f GiB available, and the model needs about %.1f GiB at once; put stages on other "
              "machines (docs/architecture.md), or run them one after the other: encode, denoise, "
              "decode",
              gib(have), gib(need));
    else
        check(d, OK, LW_OK, "memory", "%.1f GiB available, about %.1f GiB needed", gib(have),
              gib(need));
}

/* ---- the model ---- */

static bool is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_file_in(const char *dir, const char *name)
{
    char path[PATH_MAX];

    return snprintf(path, sizeof(path), "%s/%s", dir, name) < (int)sizeof(path) &&
           access(path, R_OK) == 0;
}

static bool is_dir_in(const char *dir, const char *name)
{
    char path[PATH_MAX];

    return snprintf(path, sizeof(path), "%s/%s", dir, name) < (int)sizeof(path) && is_dir(path);
}

static void check_json(doctor *d, const char *what, const char *dir, const char *name, bool needed)
{
    char path[PATH_MAX];
    json_t *j = NULL;
    lw_err err = { 0 };

    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
        return;
    if (lw_json_load(path, &j, &err) != LW_OK && (needed || err.code != LW_E_NOT_FOUND))
        check(d, FAIL, err.code, what, "%s", err.text);
    json_decref(j);
}

/* One component: where its weights are, how they are called, how big they are. */
static void check_weights(doctor *d, const char *what, const char *path, const char *probe)
{
    const uint64_t bytes = lw_weights_file_bytes(path);
    lw_weights *w = NULL;
    const lw_tensor *t;
    size_t used, total;
    lw_err err = { 0 };

    if (lw_weights_open(path, LW_KEEP_STORED, &w, &err) != LW_OK) {
        check(d, FAIL, err.code, what, "%s", err.text);
        return;
    }
    lw_weights_usage(w, &used, &total);
    t = lw_weights_find(w, probe);
    d->weight_bytes += bytes;
    /* Matrices of f32 are kept as bf16 when they would take most of the memory. */
    d->kept_bytes += t && t->dtype == LW_F32 && bytes > meminfo("MemTotal") / 2 ? bytes / 2 : bytes;
    check(d, OK, LW_OK, what, "%s: %zu tensors, %.1f MiB%s%s", path, total, gib(bytes) * 1024,
          t ? " of " : "", t ? lw_dtype_name(t->dtype) : "");
    lw_weights_close(&w);
}

/* A component, and a tensor that its weights have. */
typedef struct part {
    const char *what, *probe;
} part;

static const part parts[LW_N_ROLES] = {
    [LW_ROLE_ENCODER] = { "encoder", "model.embed_tokens.weight" },
    [LW_ROLE_DENOISER] = { "dit", "cap_embedder.1.weight" },
    [LW_ROLE_DECODER] = { "vae", "decoder.conv_in.weight" },
};

static void check_component(doctor *d, lw_role role, const char *model)
{
    const part *p = &parts[role];
    const bool published = is_file_in(model, "model_index.json");
    char path[PATH_MAX];
    lw_err err = { 0 };

    if (lw_locate_part(model, role, path, &err) != LW_OK) {
        check(d, FAIL, err.code, p->what, "%s", err.text);
        return;
    }
    if (published)
        check_json(d, p->what, path, "config.json", true);
    check_weights(d, p->what, path, p->probe);
    if (!published)
        return;
    if (role == LW_ROLE_ENCODER && !is_dir_in(model, "tokenizer"))
        check(d, WARN, LW_OK, p->what,
              "%s has no folder tokenizer; that of Qwen3, which comes with latentwire, is used: it "
              "fits the published model only",
              model);
    if (role == LW_ROLE_DENOISER)
        check_json(d, p->what, model, "scheduler/scheduler_config.json", true);
}

static void check_model(doctor *d)
{
    static const lw_role roles[] = { LW_ROLE_ENCODER, LW_ROLE_DENOISER, LW_ROLE_DECODER };
    const lw_model_options o = {
        .model = d->opt.model, .encoder = d->opt.encoder, .dit = d->opt.dit, .vae = d->opt.vae
    };
    lw_model_choice c;
    lw_err err = { 0 };

    if (lw_locate_model(&o, 1u << LW_ROLE_ENCODER | 1u << LW_ROLE_DENOISER | 1u << LW_ROLE_DECODER,
                        &c, &err) != LW_OK) {
        check(d, FAIL, err.code, "model", "%s", err.text);
        return;
    }
    if (c.is_default)
        check(d, OK, LW_OK, "model", "the demo model: %s", c.path[LW_ROLE_DENOISER]);
    for (size_t i = 0; i < LW_ARRAY_LEN(roles); i++)
        check_component(d, roles[i], c.path[roles[i]]);
}

/* ---- the hub ---- */

static void check_hub(doctor *d)
{
    lw_client_params p = { .net = { .key_dir = d->opt.keys,
                                    .key_name = d->opt.key_name,
                                    .insecure_loopback = d->opt.insecure_loopback } };
    char endpoint[PATH_MAX + 64];
    bool found = false;
    lw_client *c = NULL;
    lw_err err = { 0 };
    lw_status s = lw_find_hub(d->opt.hub, endpoint, sizeof(endpoint), &found, &err);

    if (s == LW_OK && !found) {
        check(d, OK, LW_OK, "hub", "none is running; `latentwire generate` starts a private one");
        return;
    }
    p.endpoint = endpoint;
    if (s == LW_OK)
        s = lw_client_create(&p, &c, &err);
    if (s == LW_OK)
        s = lw_client_connect(c, HUB_TIMEOUT_MS, &err);
    if (s == LW_OK)
        check(d, OK, LW_OK, "hub", "answers at %s", endpoint);
    else
        check(d, FAIL, s, "hub", "%s", err.text);
    lw_client_destroy(&c);
}

static lw_status finish(doctor *d, lw_err *err)
{
    if (d->opt.json) {
        json_t *root = json_pack("{s:s, s:O, s:i, s:i}", "version", LW_VERSION, "checks", d->checks,
                                 "failed", d->n_failed, "warnings", d->n_warned);
        bool failed = !root || json_dumpf(root, stdout, JSON_INDENT(1)) || putchar('\n') == EOF;

        json_decref(root);
        if (failed)
            return lw_fail(err, LW_E_IO, "cannot write the report");
    }
    if (fflush(stdout))
        return lw_fail(err, LW_E_IO, "cannot write to standard output: %s", strerror(errno));
    if (d->n_failed)
        return lw_fail(err, d->first_failure, "%d check%s failed", d->n_failed,
                       d->n_failed == 1 ? "" : "s");
    return LW_OK;
}

lw_status lw_cli_doctor(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    doctor d = { 0 };
    const char *args[1];
    int n = 0;
    bool help = false;
    lw_status s;

    (void)cli; /* a failed check is part of the report, not an error object beside it */
    lw_opt_describe("latentwire doctor [OPTION]...",
                    "Check this machine, the programs, the model and the hub.");
    LW_TRY(lw_opt_parse(options, argc, argv, &d.opt, args, LW_ARRAY_LEN(args), &n, &help, err));
    if (help)
        return LW_OK;
    d.checks = json_array();
    if (!d.checks)
        return lw_fail(err, LW_E_NOMEM, "no memory for the report");
    check(&d, OK, LW_OK, "version", "latentwire %s", LW_VERSION);
    check_runtime(&d);
    check_programs(&d);
    check_cpu(&d);
    check_model(&d);
    check_memory(&d);
    check_hub(&d);
    s = finish(&d, err);
    json_decref(d.checks);
    return s;
}
