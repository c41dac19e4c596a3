#include "tests/failure/fleet.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

#define MAX_ARGS 32
#define PAUSE_US 5000

/* ---- processes ---- */

static const char *build_path(const char *name, char *buf, size_t size)
{
    const char *root = getenv("LW_BUILD_ROOT");

    snprintf(buf, size, "%s/%s", root ? root : ".", name);
    return buf;
}

static pid_t spawn(const char *path, const char *const *argv, const char *const *env,
                   const char *log)
{
    pid_t parent = getpid(), pid = fork();
    int fd;

    assert_true(pid >= 0);
    if (pid)
        return pid;
    /* In the child; it must not outlive a test that crashes. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
        _exit(126);
    fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
        _exit(126);
    for (int i = 0; env && env[i]; i++)
        putenv((char *)(uintptr_t)env[i]);
    execv(path, (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* When LW_TEST_KEEP is set, folders are left for a person to look at. */
static bool keep_files(void)
{
    return getenv("LW_TEST_KEEP") != NULL;
}

static void show_log(const char *path)
{
    char line[512];
    FILE *in = fopen(path, "r");

    while (in && fgets(line, sizeof(line), in))
        fprintf(stderr, "# hub: %s", line);
    if (in)
        fclose(in);
}

/* The hub says where it listens; on tcp the system has chosen the ports. */
static bool read_endpoint(const char *log, const char *key, char *ret, size_t size)
{
    FILE *in = fopen(log, "r");
    char line[1024];
    bool found = false;

    while (in && !found && fgets(line, sizeof(line), in)) {
        char *at = strstr(line, "hub is listening") ? strstr(line, key) : NULL;

        if (!at)
            continue;
        at += strlen(key);
        at += *at == '"';
        at[strcspn(at, " \"\n")] = 0;
        snprintf(ret, size, "%s", at);
        found = true;
    }
    if (in)
        fclose(in);
    return found;
}

static void start_hub(fleet *f, const char *frontend, const char *backend, bool tcp,
                      const char *const *options)
{
    char path[512], log[128], frontend_option[160], backend_option[160];
    const char *argv[MAX_ARGS] = { "latentwire", "hub", frontend_option, backend_option };
    const int64_t deadline = lw_now_ms() + DEADLINE_MS;
    int n = 4;

    snprintf(log, sizeof(log), "%s/hub.log", f->dir);
    snprintf(frontend_option, sizeof(frontend_option), "--frontend=%s", frontend);
    snprintf(backend_option, sizeof(backend_option), "--backend=%s", backend);
    if (tcp)
        argv[n++] = "--insecure-loopback";
    for (int i = 0; options && options[i]; i++)
        argv[n++] = options[i];
    f->hub = spawn(build_path("orchestrate/latentwire", path, sizeof(path)), argv, NULL, log);
    while (!read_endpoint(log, "frontend=", f->frontend, sizeof(f->frontend)) ||
           !read_endpoint(log, "backend=", f->backend, sizeof(f->backend))) {
        if (waitpid(f->hub, NULL, WNOHANG) != 0 || lw_now_ms() > deadline) {
            show_log(log);
            fail_msg("the hub does not start");
        }
        usleep(PAUSE_US);
    }
}

void fleet_start(fleet *f, bool tcp, const char *const *options)
{
    char frontend[128], backend[128];

    *f = (fleet){ 0 };
    snprintf(f->dir, sizeof(f->dir), "/tmp/lwf-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    setenv("LATENTWIRE_RUNTIME_DIR", f->dir, 1);
    snprintf(frontend, sizeof(frontend), "ipc://%s/f", f->dir);
    snprintf(backend, sizeof(backend), "ipc://%s/b", f->dir);
    if (tcp)
        start_hub(f, "tcp://127.0.0.1:*", "tcp://127.0.0.1:*", true, options);
    else
        start_hub(f, frontend, backend, false, options);
}

void fleet_restart_hub(fleet *f, const char *const *options)
{
    char log[128], frontend[128], backend[128];

    snprintf(log, sizeof(log), "%s/hub.log", f->dir);
    unlink(log);
    memcpy(frontend, f->frontend, sizeof(frontend));
    memcpy(backend, f->backend, sizeof(backend));
    start_hub(f, frontend, backend, !strncmp(frontend, "tcp:", 4), options);
}

static void remove_files(const char *dir)
{
    DIR *d = opendir(dir);
    const struct dirent *e;

    while (d && (e = readdir(d)))
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(dir);
}

/* In order, at once: so that a sanitizer can have its say about what was leaked. */
static void stop_hub(fleet *f)
{
    int status;

    kill(f->hub, SIGTERM);
    kill(f->hub, SIGINT);
    status = fleet_reap(f, f->hub);
    if (!WIFEXITED(status) || (WEXITSTATUS(status) != lw_status_exit(LW_E_CANCELLED) &&
                               WEXITSTATUS(status) != lw_status_exit(LW_OK)))
        fail_msg("the hub ended with wait status %#x; LW_TEST_KEEP=1 keeps its log", status);
}

void fleet_stop(fleet *f)
{
    for (int i = 0; i < f->n_pids; i++)
        if (f->pids[i] > 0) {
            kill(f->pids[i], SIGKILL);
            waitpid(f->pids[i], NULL, 0);
        }
    if (f->hub > 0)
        stop_hub(f);
    if (!keep_files())
        remove_files(f->dir);
}

pid_t fleet_worker(fleet *f, const char *role, const char *name, const char *const *env)
{
    char path[512], log[192], hub[160], name_option[96];
    const char *argv[] = {
        "latentwire-fakesvc", role, hub, name_option, "--die-with-parent", "--insecure-loopback",
        "--log-level=warn",   NULL
    };
    pid_t pid;

    assert_in_range(f->n_pids, 0, FLEET_MAX_PROCESSES - 1);
    snprintf(hub, sizeof(hub), "--hub=%s", f->backend);
    snprintf(name_option, sizeof(name_option), "--name=%s", name);
    snprintf(log, sizeof(log), "%s/%s.log", f->dir, name);
    pid = spawn(build_path("tests/interop/latentwire-fakesvc", path, sizeof(path)), argv, env, log);
    f->pids[f->n_pids++] = pid;
    return pid;
}

void fleet_trio(fleet *f, int n_denoisers, const char *const *env)
{
    fleet_worker(f, "encoder", "encoder", NULL);
    fleet_worker(f, "decoder", "vae", NULL);
    for (int i = 0; i < n_denoisers; i++) {
        char name[32];

        snprintf(name, sizeof(name), "dit-%d", i + 1);
        fleet_worker(f, "denoiser", name, env);
    }
    fleet_await_workers(f, 2 + n_denoisers);
}

int fleet_reap(fleet *f, pid_t pid)
{
    const int64_t deadline = lw_now_ms() + DEADLINE_MS;
    int status = 0;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (lw_now_ms() > deadline)
            fail_msg("process %d does not end", (int)pid);
        usleep(PAUSE_US);
    }
    if (pid == f->hub)
        f->hub = 0;
    for (int i = 0; i < f->n_pids; i++)
        if (f->pids[i] == pid)
            f->pids[i] = 0;
    return status;
}

/* A sanitizer keeps freed memory and shadows the rest: what it makes of a process says nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

size_t fleet_hub_rss(const fleet *f)
{
#ifdef SANITIZED
    (void)f;
    return 0;
#else
    char path[64];
    unsigned long pages = 0;
    FILE *in;

    snprintf(path, sizeof(path), "/proc/%d/statm", (int)f->hub);
    in = fopen(path, "r");
    assert_non_null(in);
    assert_int_equal(fscanf(in, "%*u %lu", &pages), 1);
    fclose(in);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
#endif
}

/* ---- what the hub says of itself ---- */

static json_t *get_report(fleet *f)
{
    lw_client *c = fleet_client(f);
    const char *text;
    lw_err err = { 0 };
    lw_arena a;
    json_t *r;

    lw_arena_init(&a, "report", 0);
    assert_ok(lw_client_status(c, DEADLINE_MS, &a, &text, &err), &err);
    r = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(r);
    lw_arena_deinit(&a);
    lw_client_destroy(&c);
    return r;
}

int64_t fleet_number(fleet *f, const char *path)
{
    json_t *r = get_report(f);
    const json_t *at = r;
    char key[64];
    int64_t v;

    while (at && *path) {
        size_t n = strcspn(path, ".");

        snprintf(key, sizeof(key), "%.*s", (int)n, path);
        at = json_object_get(at, key);
        path += n + (path[n] == '.');
    }
    if (!json_is_integer(at))
        fail_msg("the report has no number %s", key);
    v = json_integer_value(at);
    json_decref(r);
    return v;
}

void fleet_await(fleet *f, const char *path, int64_t value)
{
    const int64_t deadline = lw_now_ms() + DEADLINE_MS;
    int64_t is;

    while ((is = fleet_number(f, path)) != value) {
        if (lw_now_ms() > deadline)
            fail_msg("%s is %lld, expected %lld", path, (long long)is, (long long)value);
        usleep(4 * PAUSE_US);
    }
}

void fleet_await_workers(fleet *f, int n)
{
    fleet_await(f, "n_workers", n);
}

/* ---- clients and jobs ---- */

lw_client *fleet_client(fleet *f)
{
    const lw_client_params p = { .endpoint = f->frontend, .net = { .insecure_loopback = true } };
    lw_client *c;
    lw_err err = { 0 };

    assert_ok(lw_client_create(&p, &c, &err), &err);
    assert_ok(lw_client_connect(c, DEADLINE_MS, &err), &err);
    return c;
}

bool fleet_say_hello(lw_sock *s)
{
    lw_msg m;

    lw_msg_init(&m, LW_MSG_HELLO, NULL);
    lw_msg_set(&m, minor_min, LW_WIRE_MINOR_MIN);
    lw_msg_set(&m, minor_max, LW_WIRE_MINOR_MAX);
    lw_msg_set(&m, role, LW_ROLE_CLIENT);
    lw_client_new_id(m.instance);
    lw_msg_mark(&m, instance);
    return lw_sock_send_msg(s, NULL, &m, NULL) == LW_OK;
}

lw_sock *fleet_raw_client(fleet *f, lw_net **ret_net)
{
    const lw_net_params p = { .insecure_loopback = true };
    const int64_t deadline = lw_now_ms() + DEADLINE_MS;
    lw_packet packet = { 0 };
    bool got = false;
    lw_err err = { 0 };
    lw_sock *s;

    assert_ok(lw_net_create(ret_net, &err), &err);
    assert_ok(lw_sock_connect(*ret_net, f->frontend, &p, &s, &err), &err);
    while (!fleet_say_hello(s) && lw_now_ms() < deadline)
        usleep(PAUSE_US);
    while (!got && lw_now_ms() < deadline) {
        assert_ok(lw_sock_recv(s, NULL, &packet, &got, &err), &err);
        usleep(PAUSE_US);
    }
    assert_true(got);
    lw_packet_clear(&packet);
    return s;
}

lw_msg fleet_job(const char *prompt, uint64_t seed, int n, int steps)
{
    uint8_t id[16];
    lw_msg m;

    lw_client_new_id(id);
    lw_msg_init(&m, LW_MSG_SUBMIT, id);
    lw_msg_set(&m, from, LW_ARTEFACT_PROMPT);
    lw_msg_set(&m, to, LW_ARTEFACT_IMAGE);
    lw_msg_set(&m, prompt, prompt);
    lw_msg_set(&m, width, 64);
    lw_msg_set(&m, height, 48);
    lw_msg_set(&m, steps, (uint64_t)steps);
    lw_msg_set(&m, seed, seed);
    lw_msg_set(&m, n, (uint64_t)n);
    return m;
}

/* The next message at all. */
static const lw_msg *next_message(lw_client *c, int64_t deadline)
{
    lw_client_event ev;
    lw_err err = { 0 };

    do {
        int64_t left = deadline - lw_now_ms();

        if (left <= 0)
            fail_msg("no answer within %d ms", DEADLINE_MS);
        assert_ok(lw_client_wait(c, -1, left, &ev, &err), &err);
    } while (!ev.msg);
    return ev.msg;
}

const lw_msg *fleet_answer(lw_client *c)
{
    const int64_t deadline = lw_now_ms() + DEADLINE_MS;
    const lw_msg *m;

    do
        m = next_message(c, deadline);
    while (m->type == LW_MSG_PROGRESS || m->type == LW_MSG_PREVIEW);
    return m;
}

void fleet_await_progress(lw_client *c, lw_op op)
{
    const int64_t deadline = lw_now_ms() + DEADLINE_MS;
    const lw_msg *m;

    do {
        m = next_message(c, deadline);
        if (m->type == LW_MSG_RESULT || m->type == LW_MSG_ERROR)
            fail_msg("the job is over: %s", lw_msg_get(m, message, "a result"));
    } while (m->type != LW_MSG_PROGRESS || m->op != op);
}

void fleet_picture(lw_client *c, const lw_msg *job, lw_kept *ret)
{
    lw_err err = { 0 };
    const lw_msg *m;

    assert_ok(lw_client_send(c, job, &err), &err);
    do
        m = fleet_answer(c);
    while (m->type == LW_MSG_ACCEPTED);
    if (m->type != LW_MSG_RESULT)
        fail_msg("%s: %s", lw_msg_type_name(m->type), lw_msg_get(m, message, ""));
    assert_memory_equal(m->id, job->id, 16);
    assert_ok(lw_kept_take(ret, m, &err), &err);
}

void assert_same_picture(const lw_kept *a, const lw_kept *b)
{
    const lw_held *x = lw_kept_find(a, LW_T_IMAGE), *y = lw_kept_find(b, LW_T_IMAGE);

    assert_non_null(x);
    assert_non_null(y);
    assert_int_equal(lw_held_bytes(x), lw_held_bytes(y));
    if (memcmp(x->t.data, y->t.data, lw_held_bytes(x)))
        fail_msg("the pictures differ");
}

static void on_alarm(int signo)
{
    static const char text[] = "a test hangs\n";

    (void)signo;
    (void)!write(2, text, sizeof(text) - 1);
    _exit(3);
}

void fleet_deadline(unsigned seconds)
{
    signal(SIGALRM, on_alarm);
    signal(SIGPIPE, SIG_IGN);
    alarm(seconds);
}
