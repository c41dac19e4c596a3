/*
 * main() of a service: options, signals, load, serve, unload.
 */
#include "proto/service.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

#include "proto/service_impl.h"

#define ENDPOINT_BYTES 512
#define NAME_BYTES     65

#define AT(member) offsetof(lw_service_config, member)

static const lw_opt options[] = {
    { .name = "model",
      .kind = LW_OPT_STR,
      .offset = AT(model),
      .value = "PATH",
      .help = "model folder, or a single weights file" },
    { .name = "hub",
      .kind = LW_OPT_STR,
      .offset = AT(hub),
      .value = "ENDPOINT",
      .help = "the hub's backend; without it, backend.sock in the runtime folder" },
    { .name = "threads",
      .kind = LW_OPT_INT,
      .offset = AT(threads),
      .dflt = "0",
      .min = 0,
      .max = 1024,
      .value = "N",
      .help = "threads that compute; 0 = all cores" },
    { .name = "device",
      .kind = LW_OPT_STR,
      .offset = AT(device),
      .dflt = "cpu",
      .value = "DEVICE",
      .help = "where to compute" },
    { .name = "weights",
      .kind = LW_OPT_CHOICE,
      .offset = AT(weights),
      .dflt = "auto",
      .choices = "auto|stored|bf16",
      .value = "FORM",
      .help = "form of matrices in memory" },
    { .name = "precision",
      .kind = LW_OPT_CHOICE,
      .offset = AT(precision),
      .dflt = "auto",
      .choices = "auto|f32|int8",
      .value = "P",
      .help = "arithmetic of the large products; auto: as the weights are stored" },
    { .name = "convert",
      .kind = LW_OPT_STR,
      .offset = AT(convert),
      .value = "FILE",
      .help = "write the weights in --precision int8 to FILE, and end" },
    { .name = "tokenizer",
      .kind = LW_OPT_STR,
      .offset = AT(tokenizer),
      .value = "DIR",
      .help = "encoder: tokenizer folder; without it, the model's own, else Qwen3's" },
    { .name = "memory-mb",
      .kind = LW_OPT_INT,
      .offset = AT(memory_mb),
      .dflt = "0",
      .min = 0,
      .max = 1 << 24,
      .value = "MB",
      .help = "memory for the activations of a request; 0 = half of what is free" },
    { .name = "name",
      .kind = LW_OPT_STR,
      .offset = AT(name),
      .value = "NAME",
      .help = "name in logs and answers; without it, host:role:pid" },
    { .name = "keys",
      .kind = LW_OPT_STR,
      .offset = AT(keys),
      .value = "DIR",
      .help = "CURVE keys, for a hub on tcp" },
    { .name = "key-name",
      .kind = LW_OPT_STR,
      .offset = AT(key_name),
      .value = "NAME",
      .help = "own key pair in DIR; without it, the role" },
    { .name = "insecure-loopback",
      .kind = LW_OPT_FLAG,
      .offset = AT(insecure_loopback),
      .help = "allow tcp://127.0.0.1 and tcp://[::1] without keys" },
    { .name = "drain-s",
      .kind = LW_OPT_INT,
      .offset = AT(drain_s),
      .dflt = "30",
      .min = 0,
      .max = 86400,
      .value = "S",
      .help = "seconds that SIGTERM leaves a running task" },
    { .name = "die-with-parent",
      .kind = LW_OPT_FLAG,
      .offset = AT(die_with_parent),
      .help = "end when the process that started this one does" },
    { .name = "log-level",
      .kind = LW_OPT_CHOICE,
      .offset = AT(log_level),
      .dflt = "info",
      .choices = "error|warn|info|debug",
      .value = "LEVEL",
      .help = "how much to log" },
    { .name = "log-json", .kind = LW_OPT_FLAG, .offset = AT(log_json), .help = "log JSON lines" },
    LW_OPT_END
};

static lw_status parse(const lw_service *s, int argc, char **argv, lw_service_config *c,
                       bool *ret_help, lw_err *err)
{
    char usage[128];
    int n_args = 0;

    snprintf(usage, sizeof(usage), "%s --model PATH [OPTION]...", s->program);
    lw_opt_describe(usage, s->about);
    LW_TRY(lw_opt_parse(options, argc, argv, c, NULL, 0, &n_args, ret_help, err));
    if (*ret_help)
        return LW_OK;
    if (!c->model)
        return lw_fail(err, LW_E_INVALID, "--model is missing: name the model's folder or file");
    if (strncmp(c->device, "cuda", 4) == 0)
        return lw_fail(err, LW_E_UNIMPLEMENTED, "--device %s: this build computes on \"cpu\" only",
                       c->device);
    if (strcmp(c->device, "cpu") != 0)
        return lw_fail(err, LW_E_INVALID, "--device %s: expected \"cpu\"", c->device);
    if (!s->convert && (c->convert || strcmp(c->precision, "int8") == 0))
        return lw_fail(err, LW_E_INVALID, "%s computes in f32 only", s->program);
    if (c->convert && strcmp(c->precision, "f32") == 0)
        return lw_fail(err, LW_E_INVALID, "--convert writes --precision int8");
    if (c->name && strlen(c->name) >= NAME_BYTES)
        return lw_fail(err, LW_E_INVALID, "--name: at most %d bytes", NAME_BYTES - 1);
    if (!c->key_name)
        c->key_name = lw_role_name(s->role);
    return LW_OK;
}

/* The parent may be gone before the kernel knows our wish. */
static void die_with_parent(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

static lw_status own_endpoint(const lw_service_config *c, char ret[ENDPOINT_BYTES], lw_err *err)
{
    char dir[ENDPOINT_BYTES - 32];

    if (c->hub) {
        snprintf(ret, ENDPOINT_BYTES, "%s", c->hub);
        return LW_OK;
    }
    LW_TRY(lw_runtime_dir(dir, sizeof(dir), err));
    snprintf(ret, ENDPOINT_BYTES, "ipc://%s/backend.sock", dir);
    return LW_OK;
}

static void own_name(const lw_service *s, const lw_service_config *c, char ret[NAME_BYTES])
{
    char host[32] = "";

    if (c->name) {
        snprintf(ret, NAME_BYTES, "%s", c->name);
        return;
    }
    if (gethostname(host, sizeof(host) - 1) != 0)
        snprintf(host, sizeof(host), "host");
    snprintf(ret, NAME_BYTES, "%s:%s:%ld", host, lw_role_name(s->role), (long)getpid());
}

/* SIGTERM and SIGINT arrive here and nowhere else: blocked before any thread exists. */
static int open_signals(lw_err *err)
{
    sigset_t set;
    int fd;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        lw_fail(err, LW_E_IO, "signalfd: %s", strerror(errno));
    return fd;
}

/* Loading may take a minute; a signal meanwhile ends the program at once, there is nothing to
 * save. */
static lw_worker_state wait_loaded(lw_worker *w, int signal_fd)
{
    struct pollfd p[2] = { { .fd = w->event_fd, .events = POLLIN },
                           { .fd = signal_fd, .events = POLLIN } };
    lw_worker_state state;

    while ((state = lw_worker_look(w)) == LW_WORKER_LOADING) {
        struct signalfd_siginfo info;
        uint64_t n;

        if (poll(p, 2, -1) < 0)
            continue;
        if (p[1].revents && read(signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
            pthread_detach(w->thread); /* it may be ending just now, and nobody will join it */
            _exit(128 + (int)info.ssi_signo);
        }
        if (p[0].revents)
            (void)!read(w->event_fd, &n, sizeof(n));
    }
    return state;
}

static size_t free_memory_bytes(void)
{
    unsigned long long kb = 0;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "re");

    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "MemAvailable: %llu kB", &kb) == 1)
            break;
    if (f)
        fclose(f);
    return (size_t)kb * 1024;
}

static void log_ready(const lw_worker *w)
{
    const lw_contract *c = &w->contract;

    lw_log(LW_INFO, "ready", LW_KV_STR("name", w->name),
           LW_KV_STR("role", lw_role_name(w->service->role)),
           LW_KV_STR("model", lw_contract_has(c, model_id) ? c->model_id : "unknown"),
           LW_KV_STR("backend", lw_contract_has(c, backend) ? c->backend : "unknown"),
           LW_KV_INT("threads",
                     w->config->threads ? w->config->threads : sysconf(_SC_NPROCESSORS_ONLN)),
           LW_KV_INT("load_ms", w->load_ms));
}

static lw_status serve(const lw_service *s, const lw_service_config *c, int *ret_exit, lw_err *err)
{
    static lw_worker w; /* outlives main when the worker hangs */
    char endpoint[ENDPOINT_BYTES], name[NAME_BYTES];
    lw_session_end end = { 0 };
    int signal_fd = open_signals(err);

    if (signal_fd < 0)
        return err->code;
    LW_TRY(own_endpoint(c, endpoint, err));
    own_name(s, c, name);
    LW_TRY(lw_worker_start(&w, s, c, name, err));
    if (wait_loaded(&w, signal_fd) == LW_WORKER_FAILED) {
        *err = w.error;
        lw_worker_stop(&w);
        close(signal_fd);
        return err->code;
    }
    w.arena.limit_bytes = c->memory_mb > 0 ? (size_t)c->memory_mb << 20 : free_memory_bytes() / 2;
    log_ready(&w);
    end = lw_session_run(&w, endpoint, signal_fd);
    if (end.worker_hangs)
        _exit(end.exit_code);
    lw_worker_stop(&w);
    close(signal_fd);
    if (end.exit_code == 0)
        lw_log_text(LW_INFO, "left");
    *ret_exit = end.exit_code;
    return LW_OK;
}

int lw_service_main(const lw_service *s, int argc, char **argv)
{
    pid_t parent = getppid();
    lw_service_config c = { 0 };
    lw_err err = { 0 };
    bool help = false;
    int exit_code = 0;

    lw_log_init(LW_INFO, false, s->program);
    if (parse(s, argc, argv, &c, &help, &err) != LW_OK)
        goto fail;
    if (help)
        return 0;
    lw_log_init((lw_log_level)lw_log_level_parse(c.log_level), c.log_json, s->program);
    if (c.die_with_parent)
        die_with_parent(parent);
    if (c.convert ? s->convert(&c, &err) == LW_OK : serve(s, &c, &exit_code, &err) == LW_OK)
        return exit_code;
fail:
    if (c.log_json) /* also for what is wrong with the options after it */
        lw_log_init(LW_INFO, true, s->program);
    lw_log(LW_ERROR, "cannot start", LW_KV_STR("code", lw_status_name(err.code)),
           LW_KV_STR("error", err.text));
    return lw_status_exit(err.code);
}
