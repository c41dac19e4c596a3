/*
 * Keys and the handler that decides about them. libzmq asks over inproc (ZAP, RFC 27) whether a
 * public key may connect; a thread answers from the folder authorized/ROLE/. Which roles a socket
 * lets in travels in the ZAP domain, and which of them a key holds comes back in the user id, so
 * that the hub can check a HELLO's role against the key that sent it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

#include "proto/transport_impl.h"

#define ZAP_ENDPOINT  "inproc://zeromq.zap.01"
#define DOMAIN_PREFIX "latentwire."
#define PATH_BYTES    4096
#define KEY_BYTES     32
#define LOG_WINDOW_MS 10000
#define LOG_LINES     20 /* about refused keys, in a window */

struct lw_zap {
    void *sock;
    pthread_t thread;
    char key_dir[PATH_BYTES];
    int64_t window_ms; /* when the log's window began */
    int n_lines, n_left_out;
};

/* ---- key files ---- */

/* Names become file names, and nothing else. */
static lw_status check_name(const char *name, lw_err *err)
{
    if (!lw_tensor_name_valid(name, strlen(name)) || name[0] == '.')
        return lw_fail(err, LW_E_INVALID, "key name \"%.60s\": use letters, digits, '-' and '_'",
                       name);
    return LW_OK;
}

static lw_status read_key(const char *path, bool secret, char ret[LW_KEY_TEXT], lw_err *err)
{
    uint8_t binary[KEY_BYTES];
    char text[128];
    struct stat st;
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return lw_fail(err, errno == ENOENT ? LW_E_NOT_FOUND : LW_E_IO, "%s: %s", path,
                       strerror(errno));
    if (secret && (fstat(fd, &st) != 0 || st.st_mode & 077)) {
        close(fd);
        return lw_fail(err, LW_E_DENIED, "%s: others may read this secret key (chmod 600)", path);
    }
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' '))
        n--;
    if (n < 0)
        return lw_fail(err, LW_E_IO, "%s: cannot be read", path);
    text[n] = '\0';
    if (n != LW_KEY_TEXT - 1 || !zmq_z85_decode(binary, text))
        return lw_fail(err, LW_E_FORMAT, "%s: expected a key of 40 Z85 characters", path);
    memcpy(ret, text, LW_KEY_TEXT);
    return LW_OK;
}

static lw_status read_key_of(const char *dir, const char *name, const char *suffix,
                             char ret[LW_KEY_TEXT], lw_err *err)
{
    char path[PATH_BYTES];

    snprintf(path, sizeof(path), "%s/%s.%s", dir, name, suffix);
    return read_key(path, strcmp(suffix, "secret") == 0, ret, err);
}

static lw_status write_key(const char *path, int flags, mode_t mode, const char *key, lw_err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, mode);
    bool ok;

    if (fd < 0)
        return lw_fail(err, errno == EEXIST || errno == EACCES ? LW_E_DENIED : LW_E_IO, "%s: %s",
                       path, strerror(errno));
    ok = dprintf(fd, "%s\n", key) == LW_KEY_TEXT;
    if (close(fd) != 0 || !ok)
        return lw_fail(err, LW_E_IO, "%s: cannot be written", path);
    return LW_OK;
}

static lw_status make_dir(const char *path, mode_t mode, lw_err *err)
{
    if (mkdir(path, mode) != 0 && errno != EEXIST)
        return lw_fail(err, errno == EACCES ? LW_E_DENIED : LW_E_IO, "%s: %s", path,
                       strerror(errno));
    return LW_OK;
}

lw_status lw_keys_generate(const char *dir, const char *name, lw_err *err)
{
    char path[PATH_BYTES], public_key[LW_KEY_TEXT], secret_key[LW_KEY_TEXT];

    LW_TRY(check_name(name, err));
    LW_TRY(make_dir(dir, 0700, err));
    if (zmq_curve_keypair(public_key, secret_key) != 0)
        return lw_fail(err, LW_E_UNIMPLEMENTED, "this libzmq was built without CURVE");
    snprintf(path, sizeof(path), "%s/%s.secret", dir, name);
    LW_TRY(write_key(path, O_EXCL, 0600, secret_key, err));
    snprintf(path, sizeof(path), "%s/%s.public", dir, name);
    return write_key(path, O_EXCL, 0644, public_key, err);
}

lw_status lw_keys_authorize(const char *dir, const char *name, lw_role role, lw_err *err)
{
    char path[PATH_BYTES], public_key[LW_KEY_TEXT];

    LW_TRY(check_name(name, err));
    if (role <= LW_ROLE_NONE || role >= LW_N_ROLES)
        return lw_fail(err, LW_E_INVALID, "a key is authorised for a role");
    LW_TRY(read_key_of(dir, name, "public", public_key, err));
    snprintf(path, sizeof(path), "%s/authorized", dir);
    LW_TRY(make_dir(path, 0755, err));
    snprintf(path, sizeof(path), "%s/authorized/%s", dir, lw_role_name(role));
    LW_TRY(make_dir(path, 0755, err));
    snprintf(path, sizeof(path), "%s/authorized/%s/%s.public", dir, lw_role_name(role), name);
    return write_key(path, O_TRUNC, 0644, public_key, err);
}

/* ---- sockets ---- */

static lw_status set_text(void *sock, int option, const char *text, lw_err *err)
{
    if (zmq_setsockopt(sock, option, text, strlen(text)) != 0)
        return lw_fail(err, LW_E_INTERNAL, "socket option %d: %s", option, zmq_strerror(errno));
    return LW_OK;
}

lw_status lw_auth_setup(void *sock, bool binding, unsigned roles, const lw_net_params *p,
                        lw_err *err)
{
    const char *name = p->key_name ? p->key_name : binding ? "hub" : "client";
    char own_secret[LW_KEY_TEXT], own_public[LW_KEY_TEXT], hub[LW_KEY_TEXT];
    char domain[sizeof(DOMAIN_PREFIX) + 8];
    int on = 1;

    LW_TRY(check_name(name, err));
    LW_TRY(read_key_of(p->key_dir, name, "secret", own_secret, err));
    LW_TRY(set_text(sock, ZMQ_CURVE_SECRETKEY, own_secret, err));
    if (binding) {
        snprintf(domain, sizeof(domain), DOMAIN_PREFIX "%x", roles);
        if (zmq_setsockopt(sock, ZMQ_CURVE_SERVER, &on, sizeof(on)) != 0)
            return lw_fail(err, LW_E_UNIMPLEMENTED, "this libzmq was built without CURVE");
        return set_text(sock, ZMQ_ZAP_DOMAIN, domain, err);
    }
    if (zmq_curve_public(own_public, own_secret) != 0)
        return lw_fail(err, LW_E_UNIMPLEMENTED, "this libzmq was built without CURVE");
    LW_TRY(read_key_of(p->key_dir, "hub", "public", hub, err));
    LW_TRY(set_text(sock, ZMQ_CURVE_PUBLICKEY, own_public, err));
    return set_text(sock, ZMQ_CURVE_SERVERKEY, hub, err);
}

unsigned lw_auth_roles_of(zmq_msg_t *msg)
{
    const char *user = zmq_msg_gets(msg, "User-Id");

    return user ? (unsigned)strtoul(user, NULL, 16) : 0;
}

/* ---- the handler ---- */

/* True when a file of authorized/ROLE/ holds the key; ret_name is the file's. */
static bool role_has_key(const char *key_dir, lw_role role, const char *key, char *ret_name,
                         size_t name_bytes)
{
    char folder[PATH_BYTES], path[PATH_BYTES + 256], text[LW_KEY_TEXT];
    struct dirent *e;
    bool found = false;
    DIR *d;

    snprintf(folder, sizeof(folder), "%.*s/authorized/%s", PATH_BYTES - 64, key_dir,
             lw_role_name(role));
    d = opendir(folder);
    while (!found && d && (e = readdir(d))) {
        const char *dot = strrchr(e->d_name, '.');

        if (!dot || strcmp(dot, ".public") != 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
        found = read_key(path, false, text, NULL) == LW_OK && strcmp(text, key) == 0;
        if (found)
            snprintf(ret_name, name_bytes, "%.*s", (int)(dot - e->d_name), e->d_name);
    }
    if (d)
        closedir(d);
    return found;
}

static unsigned roles_of_key(const char *key_dir, const char *key, char *ret_name,
                             size_t name_bytes)
{
    unsigned roles = 0;

    for (int r = 1; r < LW_N_ROLES; r++)
        if (role_has_key(key_dir, (lw_role)r, key, ret_name, name_bytes))
            roles |= 1u << r;
    return roles;
}

enum { ZAP_VERSION, ZAP_REQUEST, ZAP_DOMAIN, ZAP_ADDRESS, ZAP_IDENTITY, ZAP_MECHANISM, ZAP_KEY };
#define ZAP_PARTS 7

typedef struct zap_request {
    char part[ZAP_PARTS][256];
    size_t len[ZAP_PARTS];
    int n;
} zap_request;

/* False when the context ends. */
static bool zap_receive(void *sock, zap_request *q)
{
    int more = 1;

    memset(q, 0, sizeof(*q));
    while (more) {
        size_t more_bytes = sizeof(more);
        char scrap[256];
        char *into = q->n < ZAP_PARTS ? q->part[q->n] : scrap;
        int n = zmq_recv(sock, into, 255, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (q->n < ZAP_PARTS)
            q->len[q->n] = (size_t)(n > 255 ? 255 : n);
        q->n++;
        if (zmq_getsockopt(sock, ZMQ_RCVMORE, &more, &more_bytes) != 0)
            return false;
    }
    return true;
}

static void zap_reply(void *sock, const zap_request *q, const char *code, const char *text,
                      const char *user)
{
    const char *parts[] = { code, text, user, "" };

    zmq_send(sock, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(sock, q->part[ZAP_REQUEST], q->len[ZAP_REQUEST], ZMQ_SNDMORE);
    for (int i = 0; i < 4; i++)
        zmq_send(sock, parts[i], strlen(parts[i]), i < 3 ? ZMQ_SNDMORE : 0);
}

/* Anybody can be refused, so refusals must not fill the disk. */
static bool may_log(lw_zap *z)
{
    if (lw_now_ms() - z->window_ms >= LOG_WINDOW_MS) {
        if (z->n_left_out > 0)
            lw_log(LW_WARN, "more keys refused", LW_KV_INT("times", z->n_left_out));
        z->window_ms = lw_now_ms();
        z->n_lines = z->n_left_out = 0;
    }
    if (z->n_lines == LOG_LINES) {
        z->n_left_out++;
        return false;
    }
    z->n_lines++;
    return true;
}

static void zap_decide(lw_zap *z, const zap_request *q)
{
    const char *address = q->part[ZAP_ADDRESS];
    char key[LW_KEY_TEXT], name[128] = "", user[160];
    unsigned wanted, roles;

    if (q->n != ZAP_PARTS || strcmp(q->part[ZAP_MECHANISM], "CURVE") != 0 ||
        q->len[ZAP_KEY] != KEY_BYTES ||
        strncmp(q->part[ZAP_DOMAIN], DOMAIN_PREFIX, strlen(DOMAIN_PREFIX)) != 0) {
        zap_reply(z->sock, q, "400", "a CURVE key is needed", "");
        return;
    }
    zmq_z85_encode(key, (const uint8_t *)q->part[ZAP_KEY], KEY_BYTES);
    wanted = (unsigned)strtoul(q->part[ZAP_DOMAIN] + strlen(DOMAIN_PREFIX), NULL, 16);
    roles = roles_of_key(z->key_dir, key, name, sizeof(name));
    if ((roles & wanted) == 0) {
        if (may_log(z))
            lw_log(LW_WARN, "key refused", LW_KV_STR("address", address), LW_KV_STR("key", key),
                   LW_KV_STR("name", name[0] ? name : "unknown"));
        zap_reply(z->sock, q, "400", "this key is not authorised here", "");
        return;
    }
    lw_log(LW_INFO, "key accepted", LW_KV_STR("address", address), LW_KV_STR("name", name));
    snprintf(user, sizeof(user), "%x:%s", roles & wanted, name);
    zap_reply(z->sock, q, "200", "OK", user);
}

static void *zap_main(void *arg)
{
    lw_zap *z = arg;
    zap_request q;

    while (zap_receive(z->sock, &q))
        zap_decide(z, &q);
    zmq_close(z->sock);
    return NULL;
}

lw_status lw_zap_start(void *ctx, const char *key_dir, lw_zap **ret, lw_err *err)
{
    lw_zap *z = calloc(1, sizeof(*z));

    if (!z)
        return lw_fail(err, LW_E_NOMEM, "no memory for the key handler");
    snprintf(z->key_dir, sizeof(z->key_dir), "%s", key_dir);
    z->sock = zmq_socket(ctx, ZMQ_REP);
    if (!z->sock || zmq_bind(z->sock, ZAP_ENDPOINT) != 0 ||
        pthread_create(&z->thread, NULL, zap_main, z) != 0) {
        lw_fail(err, LW_E_IO, "the key handler cannot start: %s", zmq_strerror(errno));
        if (z->sock)
            zmq_close(z->sock);
        free(z);
        return LW_E_IO;
    }
    *ret = z;
    return LW_OK;
}

void lw_zap_join(lw_zap **z)
{
    if (!*z)
        return;
    pthread_join((*z)->thread, NULL);
    free(*z);
    *z = NULL;
}

const char *lw_zap_key_dir(const lw_zap *z)
{
    return z->key_dir;
}
