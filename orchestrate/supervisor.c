/*
 * A private cluster. Three things are worth their care here: nothing outlives the command (children
 * get SIGKILL from the kernel when this process is gone), the user sees the reason when a child
 * fails (not "connection lost"), and Ctrl-C reaches this process alone (children have process
 * groups of their own), so that the job can be cancelled in order.
 */

#include "orchestrate/supervisor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "proto/transport.h"

#define DIR_PREFIX    "private-"
#define LOCK_NAME     "lock"
#define STALE_AGE_S   60
#define MAX_RESTARTS  2
#define HUB_BUDGET_MB 1024
#define MAX_CHILDREN  (1 + 3 * LW_MAX_WORKERS)
#define MAX_ARGS      32
#define LOG_TAIL      4096
#define MAX_IPC_PATH  107 /* sun_path without its zero */

/* One child: how to start it, and what became of it. Its strings live in the cluster's arena. */
typedef struct child {
    const char *what; /* "hub", "dit-svc" */
    char *argv[MAX_ARGS];
    const char *log_path;
    pid_t pid; /* 0 = not running */
    int restarts;
    lw_role role; /* LW_ROLE_NONE: the hub */
    lw_procmem memory;
} child;

struct lw_cluster {
    lw_arena arena;
    char dir[PATH_MAX];
    char frontend[PATH_MAX + 64], backend[PATH_MAX + 64];
    int lock_fd;
    char **env;
    int workers[LW_N_ROLES];
    child children[MAX_CHILDREN];
    int n_children;
};

static const struct {
    lw_role role;
    const char *program;
} services[] = {
    { LW_ROLE_ENCODER, "encoder-svc" },
    { LW_ROLE_DENOISER, "dit-svc" },
    { LW_ROLE_DECODER, "vae-svc" },
};

/* ---- the folder ---- */

/* Remove a private folder: it holds plain files and sockets only. */
static void remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    if (!d)
        return;
    while ((e = readdir(d)))
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            (void)unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    (void)rmdir(dir);
}

/*
 * A command that was killed with SIGKILL leaves its folder. The owner of a living one holds a lock
 * on a file in it; a folder whose lock is free, and which is too old to be one that is just being
 * made, belongs to nobody.
 */
static void remove_stale_dirs(const char *runtime)
{
    DIR *d = opendir(runtime);
    struct dirent *e;

    if (!d)
        return;
    while ((e = readdir(d))) {
        char dir[PATH_MAX], lock[PATH_MAX];
        struct stat st;
        int fd;

        if (strncmp(e->d_name, DIR_PREFIX, strlen(DIR_PREFIX)))
            continue;
        if (snprintf(dir, sizeof(dir), "%s/%s", runtime, e->d_name) >= (int)sizeof(dir) ||
            snprintf(lock, sizeof(lock), "%s/%s/" LOCK_NAME, runtime, e->d_name) >=
                (int)sizeof(lock))
            continue;
        if (lstat(dir, &st) || !S_ISDIR(st.st_mode) || time(NULL) - st.st_mtime < STALE_AGE_S)
            continue;
        fd = open(lock, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 && errno != ENOENT)
            continue;
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
            remove_dir(dir);
        if (fd >= 0)
            close(fd);
    }
    closedir(d);
}

static lw_status make_dir(lw_cluster *c, lw_err *err)
{
    char runtime[PATH_MAX], lock[PATH_MAX + 8];
    int n;

    LW_TRY(lw_runtime_dir(runtime, sizeof(runtime), err));
    remove_stale_dirs(runtime);
    n = snprintf(c->dir, sizeof(c->dir), "%s/" DIR_PREFIX "XXXXXX", runtime);
    if (n + (int)strlen("/frontend.sock") > MAX_IPC_PATH) {
        c->dir[0] = 0;
        return lw_fail(err, LW_E_INVALID,
                       "the runtime folder %s has too long a name for sockets (%d bytes at most); "
                       "set LATENTWIRE_RUNTIME_DIR to a shorter one",
                       runtime, MAX_IPC_PATH - (int)strlen("/" DIR_PREFIX "XXXXXX/frontend.sock"));
    }
    if (!mkdtemp(c->dir)) {
        c->dir[0] = 0;
        return lw_fail(err, LW_E_IO, "cannot make a folder in %s: %s", runtime, strerror(errno));
    }
    snprintf(lock, sizeof(lock), "%s/" LOCK_NAME, c->dir);
    c->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (c->lock_fd < 0 || flock(c->lock_fd, LOCK_EX | LOCK_NB))
        return lw_fail(err, LW_E_IO, "cannot lock %s: %s", lock, strerror(errno));
    snprintf(c->frontend, sizeof(c->frontend), "ipc://%s/frontend.sock", c->dir);
    snprintf(c->backend, sizeof(c->backend), "ipc://%s/backend.sock", c->dir);
    return LW_OK;
}

/* ---- one child ---- */

/*
 * The environment of the children: ours, without the settings that mean something else to them (a
 * client's LATENTWIRE_HUB is not a worker's). Everything they need is on their command line.
 */
static lw_status make_env(lw_cluster *c, lw_err *err)
{
    extern char **environ;
    static const char *const keep[] = { "LATENTWIRE_BACKEND=", "LATENTWIRE_DATA_DIR=",
                                        "LATENTWIRE_ISA=", "LATENTWIRE_RUNTIME_DIR=",
                                        "LATENTWIRE_TEST_" };
    size_t n = 0, out = 0;

    while (environ[n])
        n++;
    c->env = lw_arena_calloc(&c->arena, n + 1, sizeof(*c->env), err);
    if (!c->env)
        return LW_E_NOMEM;
    for (size_t i = 0; i < n; i++) {
        bool ours = !strncmp(environ[i], "LATENTWIRE_", strlen("LATENTWIRE_"));

        for (size_t k = 0; ours && k < LW_ARRAY_LEN(keep); k++)
            if (!strncmp(environ[i], keep[k], strlen(keep[k])))
                ours = false;
        if (!ours)
            c->env[out++] = environ[i];
    }
    return LW_OK;
}

/* In the child, between fork and exec: async-signal-safe calls only. */
_Noreturn static void become(const child *ch, char **env, pid_t parent)
{
    static const char failed[] = "cannot start this program\n";
    sigset_t none;
    int null_fd, log_fd;

    /* The parent may have died before this was asked for. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
        _exit(127);
    (void)setpgid(0, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    null_fd = open("/dev/null", O_RDONLY);
    log_fd = open(ch->log_path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
    if (null_fd < 0 || log_fd < 0)
        _exit(127);
    if (dup2(null_fd, 0) < 0 || dup2(log_fd, 1) < 0 || dup2(log_fd, 2) < 0)
        _exit(127);
    (void)close_range(3, ~0u, 0);
    execve(ch->argv[0], ch->argv, env);
    (void)!write(2, failed, sizeof(failed) - 1);
    _exit(127);
}

static lw_status spawn(lw_cluster *c, child *ch, lw_err *err)
{
    pid_t parent = getpid(), pid = fork();

    if (pid < 0)
        return lw_fail(err, LW_E_IO, "cannot start %s: %s", ch->what, strerror(errno));
    if (pid == 0)
        become(ch, c->env, parent);
    ch->pid = pid;
    return LW_OK;
}

/* ---- the children of a cluster ---- */

static lw_status add_arg(lw_cluster *c, child *ch, int *n, lw_err *err, const char *fmt, ...)
    LW_PRINTF(5, 6);

static lw_status add_arg(lw_cluster *c, child *ch, int *n, lw_err *err, const char *fmt, ...)
{
    char text[PATH_MAX + 64];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (*n + 1 >= MAX_ARGS)
        return lw_fail(err, LW_E_INTERNAL, "too many arguments for %s", ch->what);
    ch->argv[*n] = lw_arena_strndup(&c->arena, text, strlen(text), err);
    if (!ch->argv[*n])
        return LW_E_NOMEM;
    (*n)++;
    return LW_OK;
}

static lw_status new_child(lw_cluster *c, const char *what, const char *log_name, child **ret,
                           lw_err *err)
{
    child *ch = &c->children[c->n_children];

    *ch = (child){ .what = what };
    ch->log_path = lw_arena_printf(&c->arena, err, "%s/%s.log", c->dir, log_name);
    if (!ch->log_path)
        return LW_E_NOMEM;
    c->n_children++;
    *ret = ch;
    return LW_OK;
}

static lw_status start_hub(lw_cluster *c, const lw_cluster_params *p, lw_err *err)
{
    char program[PATH_MAX];
    child *ch;
    int n = 0;

    LW_TRY(lw_locate_program("latentwire", program, err));
    LW_TRY(new_child(c, "hub", "hub", &ch, err));
    LW_TRY(add_arg(c, ch, &n, err, "%s", program));
    LW_TRY(add_arg(c, ch, &n, err, "hub"));
    LW_TRY(add_arg(c, ch, &n, err, "--frontend=%s", c->frontend));
    LW_TRY(add_arg(c, ch, &n, err, "--backend=%s", c->backend));
    /* One client, and a worker that is started again may take as long as it did at first. */
    LW_TRY(add_arg(c, ch, &n, err, "--client-mb=%d", HUB_BUDGET_MB));
    LW_TRY(add_arg(c, ch, &n, err, "--budget-mb=%d", HUB_BUDGET_MB));
    LW_TRY(add_arg(c, ch, &n, err, "--wait-ms=%lld", (long long)p->start_timeout_ms));
    LW_TRY(add_arg(c, ch, &n, err, "--log-level=%s", p->log_level ? p->log_level : "info"));
    LW_TRY(add_arg(c, ch, &n, err, "--log-json"));
    return spawn(c, ch, err);
}

/* Cores for one worker of several: they compute at the same time. */
static int default_threads(int workers)
{
    cpu_set_t set;
    int cores = 1;

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        cores = CPU_COUNT(&set);
    return workers <= 1 ? 0 : cores / workers > 0 ? cores / workers : 1;
}

static lw_status start_worker(lw_cluster *c, const lw_cluster_params *p, size_t service, int index,
                              lw_err *err)
{
    const lw_role role = services[service].role;
    const char *what = services[service].program;
    int threads = p->threads[role], n = 0;
    char program[PATH_MAX], log_name[64];
    child *ch;

    if (threads == 0)
        threads = default_threads(c->workers[role]);
    snprintf(log_name, sizeof(log_name), "%s-%d", what, index + 1);
    LW_TRY(lw_locate_program(what, program, err));
    LW_TRY(new_child(c, what, log_name, &ch, err));
    ch->role = role;
    LW_TRY(add_arg(c, ch, &n, err, "%s", program));
    LW_TRY(
        add_arg(c, ch, &n, err, "--log-json")); /* first: it holds for what is wrong with others */
    LW_TRY(add_arg(c, ch, &n, err, "--model=%s", p->model->path[role]));
    LW_TRY(add_arg(c, ch, &n, err, "--hub=%s", c->backend));
    LW_TRY(add_arg(c, ch, &n, err, "--name=%s", log_name));
    LW_TRY(add_arg(c, ch, &n, err, "--threads=%d", threads));
    LW_TRY(add_arg(c, ch, &n, err, "--device=%s", p->device[role] ? p->device[role] : "cpu"));
    LW_TRY(add_arg(c, ch, &n, err, "--precision=%s",
                   p->precision[role] ? p->precision[role] : "auto"));
    LW_TRY(add_arg(c, ch, &n, err, "--weights=%s", p->weights ? p->weights : "auto"));
    if (role == LW_ROLE_ENCODER && p->tokenizer)
        LW_TRY(add_arg(c, ch, &n, err, "--tokenizer=%s", p->tokenizer));
    LW_TRY(add_arg(c, ch, &n, err, "--memory-mb=%lld", (long long)p->memory_mb));
    LW_TRY(add_arg(c, ch, &n, err, "--log-level=%s", p->log_level ? p->log_level : "info"));
    return spawn(c, ch, err);
}

static lw_status start_all(lw_cluster *c, const lw_cluster_params *p, lw_err *err)
{
    LW_TRY(make_dir(c, err));
    LW_TRY(make_env(c, err));
    LW_TRY(start_hub(c, p, err));
    for (size_t i = 0; i < LW_ARRAY_LEN(services); i++) {
        const lw_role role = services[i].role;

        if (!p->model->path[role][0])
            continue;
        c->workers[role] = p->workers[role] > 0 ? p->workers[role] : 1;
        if (c->workers[role] > LW_MAX_WORKERS)
            return lw_fail(err, LW_E_INVALID, "%d workers of one kind; at most %d are started",
                           c->workers[role], LW_MAX_WORKERS);
        for (int k = 0; k < c->workers[role]; k++)
            LW_TRY(start_worker(c, p, i, k, err));
    }
    return LW_OK;
}

lw_status lw_cluster_start(const lw_cluster_params *p, lw_cluster **ret, lw_err *err)
{
    lw_cluster *c = calloc(1, sizeof(*c));
    lw_status s;

    if (!c)
        return lw_fail(err, LW_E_NOMEM, "no memory for a private cluster");
    lw_arena_init(&c->arena, "cluster", 0);
    c->lock_fd = -1;
    s = start_all(c, p, err);
    if (s != LW_OK) {
        lw_cluster_stop(&c, 0);
        return s;
    }
    *ret = c;
    return LW_OK;
}

const char *lw_cluster_endpoint(const lw_cluster *c)
{
    return c->frontend;
}

int lw_cluster_workers(const lw_cluster *c, lw_role role)
{
    return c->workers[role];
}

void lw_cluster_look(lw_cluster *c)
{
    for (int i = 0; i < c->n_children; i++)
        if (c->children[i].role != LW_ROLE_NONE && c->children[i].pid > 0)
            lw_procmem_look(c->children[i].pid, &c->children[i].memory);
}

lw_procmem lw_cluster_memory(const lw_cluster *c, lw_role role)
{
    lw_procmem most = { 0 };

    for (int i = 0; i < c->n_children; i++) {
        const lw_procmem *m = &c->children[i].memory;

        if (c->children[i].role != role)
            continue;
        if (m->peak_bytes > most.peak_bytes)
            most.peak_bytes = m->peak_bytes;
        if (m->own_peak_bytes > most.own_peak_bytes)
            most.own_peak_bytes = m->own_peak_bytes;
    }
    return most;
}

/* ---- stopping ---- */

static int signal_all(lw_cluster *c, int signo)
{
    int alive = 0;

    for (int i = 0; i < c->n_children; i++) {
        child *ch = &c->children[i];

        if (ch->pid > 0 && waitpid(ch->pid, NULL, WNOHANG) != 0)
            ch->pid = 0; /* gone (or not ours any more) */
        if (ch->pid > 0) {
            alive++;
            if (signo)
                kill(ch->pid, signo);
        }
    }
    return alive;
}

void lw_cluster_stop(lw_cluster **pc, int64_t grace_ms)
{
    lw_cluster *c = *pc;
    const int64_t deadline = lw_now_ms() + grace_ms;

    if (!c)
        return;
    *pc = NULL;
    if (grace_ms > 0 && signal_all(c, SIGTERM) > 0)
        while (lw_now_ms() < deadline && signal_all(c, 0) > 0)
            poll(NULL, 0, 5);
    signal_all(c, SIGKILL);
    for (int i = 0; i < c->n_children; i++)
        if (c->children[i].pid > 0)
            while (waitpid(c->children[i].pid, NULL, 0) < 0 && errno == EINTR)
                ;
    if (c->dir[0])
        remove_dir(c->dir);
    if (c->lock_fd >= 0)
        close(c->lock_fd);
    lw_arena_deinit(&c->arena);
    free(c);
}

/* ---- what became of a child ---- */

/* The last lines of a child's log, at most `lines`, into buf; "" when there is nothing. */
static const char *log_tail(const char *path, int lines, char buf[LOG_TAIL + 1])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = 0;
    char *p;

    buf[0] = 0;
    if (fd < 0)
        return buf;
    if (lseek(fd, -LOG_TAIL, SEEK_END) < 0)
        (void)lseek(fd, 0, SEEK_SET);
    n = read(fd, buf, LOG_TAIL);
    close(fd);
    buf[n > 0 ? n : 0] = 0;
    while (n > 0 && buf[n - 1] == '\n')
        buf[--n] = 0;
    for (p = buf + (n > 0 ? n : 0); p > buf; p--)
        if (p[-1] == '\n' && --lines == 0)
            break;
    return p;
}

/*
 * What a child said about its end: the last line of its log at level error. Its text goes to `buf`.
 * LW_OK when there is none.
 */
static lw_status last_error(const char *path, char *buf, size_t n)
{
    char tail[LOG_TAIL + 1];
    lw_status found = LW_OK;

    (void)log_tail(path, INT_MAX, tail);
    for (char *line = strtok(tail, "\n"); line; line = strtok(NULL, "\n")) {
        json_error_t why;
        json_t *o = json_loads(line, 0, &why);
        const char *code = json_string_value(json_object_get(o, "code"));
        const char *text = json_string_value(json_object_get(o, "error"));

        if (code && text) {
            found = lw_status_from_name(code, strlen(code));
            snprintf(buf, n, "%s", text);
        }
        json_decref(o);
    }
    return found;
}

static lw_status report_death(const child *ch, int wait_status, bool starting, lw_err *err)
{
    char buf[LOG_TAIL + 1], text[LW_ERR_TEXT_BYTES];
    lw_status code;
    const char *tail;

    if (WIFSIGNALED(wait_status)) {
        int signo = WTERMSIG(wait_status);

        tail = log_tail(ch->log_path, 1, buf);
        return lw_fail(err, signo == SIGKILL ? LW_E_NOMEM : LW_E_INTERNAL,
                       "%s was killed by signal %d (%s)%s%s%s%s", ch->what, signo, strsignal(signo),
                       starting ? " while it started" : "",
                       signo == SIGKILL ? "; if nobody did that, the machine ran out of memory "
                                          "(latentwire doctor says what the model needs)"
                                        : "",
                       tail[0] ? "; it last said: " : "", tail);
    }
    code = last_error(ch->log_path, text, sizeof(text));
    if (code != LW_OK)
        return lw_fail(err, code, "%s: %s", ch->what, text);
    tail = log_tail(ch->log_path, 1, buf);
    return lw_fail(err, LW_E_INTERNAL, "%s stopped with exit code %d%s%s", ch->what,
                   WEXITSTATUS(wait_status), tail[0] ? "; it last said: " : "", tail);
}

lw_status lw_cluster_check(lw_cluster *c, bool starting, lw_err *err)
{
    for (int i = 0; i < c->n_children; i++) {
        child *ch = &c->children[i];
        int status;

        if (ch->pid <= 0 || waitpid(ch->pid, &status, WNOHANG) != ch->pid)
            continue;
        ch->pid = 0;
        if (starting || ch->role == LW_ROLE_NONE || !WIFSIGNALED(status) ||
            ch->restarts == MAX_RESTARTS)
            return report_death(ch, status, starting, err);
        ch->restarts++;
        LW_TRY(spawn(c, ch, err));
    }
    return LW_OK;
}
