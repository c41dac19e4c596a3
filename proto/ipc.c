/*
 * What makes ipc:// safe: sockets live in a folder of mode 0700 that is ours, and one lock file a
 * socket decides who may bind, so that a socket file left by a killed hub can be told from a live
 * one and replaced without a race.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/transport_impl.h"

#define PATH_BYTES 4096

static lw_status check_folder(const char *folder, bool may_lack, lw_err *err)
{
    struct stat st;

    if (lstat(folder, &st) != 0) {
        if (errno == ENOENT && may_lack)
            return LW_OK;
        return lw_fail(err, errno == ENOENT ? LW_E_NOT_FOUND : LW_E_IO, "%s: %s", folder,
                       strerror(errno));
    }
    if (!S_ISDIR(st.st_mode))
        return lw_fail(err, LW_E_DENIED, "%s: is not a folder (links are not followed)", folder);
    if (st.st_uid != geteuid())
        return lw_fail(err, LW_E_DENIED, "%s: belongs to user %u, not to us (%u)", folder,
                       (unsigned)st.st_uid, (unsigned)geteuid());
    if (st.st_mode & 077)
        return lw_fail(err, LW_E_DENIED,
                       "%s: mode %03o lets others in; sockets need a private folder (chmod 700)",
                       folder, (unsigned)(st.st_mode & 0777));
    return LW_OK;
}

lw_status lw_ipc_check(const char *path, bool folder_may_lack, lw_err *err)
{
    const size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
    const char *slash = strrchr(path, '/');
    char folder[PATH_BYTES];

    if (path[0] == '\0' || path[0] == '@' || path[0] == '*' || (slash && slash[1] == '\0'))
        return lw_fail(err, LW_E_INVALID, "ipc://%s: expected the path of a socket file", path);
    if (strlen(path) > max)
        return lw_fail(err, LW_E_INVALID,
                       "ipc://%s: %zu bytes, a socket's path has at most %zu; use a shorter folder",
                       path, strlen(path), max);
    if (!slash)
        snprintf(folder, sizeof(folder), ".");
    else
        snprintf(folder, sizeof(folder), "%.*s", slash == path ? 1 : (int)(slash - path), path);
    return check_folder(folder, folder_may_lack, err);
}

/* The lock file is removed by its holder, so a lock counts only on the file that has the name. */
static lw_status lock_file(const char *path, int *ret_fd, lw_err *err)
{
    char lock[PATH_BYTES];

    snprintf(lock, sizeof(lock), "%s.lock", path);
    for (;;) {
        struct stat held, named;
        int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

        if (fd < 0)
            return lw_fail(err, errno == EACCES ? LW_E_DENIED : LW_E_IO, "%s: %s", lock,
                           strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int e = errno;

            close(fd);
            if (e == EWOULDBLOCK)
                return lw_fail(err, LW_E_UNAVAILABLE, "%s: another process is bound here", path);
            return lw_fail(err, LW_E_IO, "%s: %s", lock, strerror(e));
        }
        if (fstat(fd, &held) == 0 && stat(lock, &named) == 0 && held.st_ino == named.st_ino &&
            held.st_dev == named.st_dev) {
            *ret_fd = fd;
            return LW_OK;
        }
        close(fd);
    }
}

static void unlock_file(const char *path, int fd)
{
    char lock[PATH_BYTES];

    snprintf(lock, sizeof(lock), "%s.lock", path);
    (void)unlink(lock);
    close(fd);
}

/* With the lock held: a socket that still answers belongs to a program that does not lock. */
static lw_status remove_stale(const char *path, lw_err *err)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    struct stat st;
    int fd, rc, e;

    if (lstat(path, &st) != 0)
        return errno == ENOENT ? LW_OK : lw_fail(err, LW_E_IO, "%s: %s", path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return lw_fail(err, LW_E_INVALID, "%s: exists and is not a socket; remove it", path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return lw_fail(err, LW_E_IO, "socket: %s", strerror(errno));
    memcpy(addr.sun_path, path, strlen(path) + 1);
    rc = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
    e = errno;
    close(fd);
    if (rc == 0 || e == EAGAIN || e == EINPROGRESS)
        return lw_fail(err, LW_E_UNAVAILABLE, "%s: another process is bound here", path);
    if (unlink(path) != 0 && errno != ENOENT)
        return lw_fail(err, LW_E_IO, "%s: %s", path, strerror(errno));
    return LW_OK;
}

lw_status lw_ipc_claim(const char *path, int *ret_fd, lw_err *err)
{
    lw_status status;
    int fd = -1;

    LW_TRY(lock_file(path, &fd, err));
    status = remove_stale(path, err);
    if (status != LW_OK) {
        unlock_file(path, fd);
        return status;
    }
    *ret_fd = fd;
    return LW_OK;
}

void lw_ipc_release(const char *path, int fd)
{
    (void)unlink(path); /* libzmq leaves it */
    unlock_file(path, fd);
}

lw_status lw_runtime_dir(char *ret, size_t ret_bytes, lw_err *err)
{
    const char *own = getenv("LATENTWIRE_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
    struct stat st;
    int n;

    if (own && own[0])
        n = snprintf(ret, ret_bytes, "%s", own);
    else if (xdg && xdg[0] && stat(xdg, &st) == 0)
        n = snprintf(ret, ret_bytes, "%s/latentwire", xdg);
    else
        n = snprintf(ret, ret_bytes, "/tmp/latentwire-%u", (unsigned)geteuid());
    if (n < 0 || (size_t)n >= ret_bytes)
        return lw_fail(err, LW_E_INVALID, "the runtime folder's path is too long");
    if (mkdir(ret, 0700) != 0 && errno != EEXIST)
        return lw_fail(err, errno == EACCES ? LW_E_DENIED : LW_E_IO,
                       "%s: %s; set LATENTWIRE_RUNTIME_DIR to a folder of yours", ret,
                       strerror(errno));
    return check_folder(ret, false, err);
}
