/* Reading and replacing whole files. */

#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

lw_status lw_fail_errno(lw_err *err, int cause, const char *path)
{
    lw_status code = LW_E_IO;

    if (cause == ENOENT || cause == ENOTDIR)
        code = LW_E_NOT_FOUND;
    else if (cause == EACCES || cause == EPERM || cause == EROFS)
        code = LW_E_DENIED;
    else if (cause == ENOMEM)
        code = LW_E_NOMEM;
    return lw_fail(err, code, "%s: %s", path, strerror(cause));
}

static lw_status read_all(int fd, const char *path, size_t max_bytes, char **ret, size_t *ret_len,
                          lw_err *err)
{
    struct stat st;
    size_t size, len = 0;
    char *text;

    if (fstat(fd, &st) != 0)
        return lw_fail_errno(err, errno, path);
    if (!S_ISREG(st.st_mode))
        return lw_fail(err, LW_E_FORMAT, "%s: expected a file, found %s", path,
                       S_ISDIR(st.st_mode) ? "a folder" : "a special file");
    if (st.st_size < 0 || (uintmax_t)st.st_size > max_bytes)
        return lw_fail(err, LW_E_TOO_LARGE, "%s: %" PRId64 " bytes, at most %zu are read", path,
                       (int64_t)st.st_size, max_bytes);
    size = (size_t)st.st_size;
    text = malloc(size + 1);
    if (text == NULL)
        return lw_fail(err, LW_E_NOMEM, "%s: no memory for %zu bytes", path, size);
    while (len < size) {
        ssize_t n = read(fd, text + len, size - len);

        if (n == 0) /* made shorter since */
            break;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int cause = errno;

            free(text);
            return lw_fail_errno(err, cause, path);
        }
        len += (size_t)n;
    }
    text[len] = '\0';
    *ret = text;
    *ret_len = len;
    return LW_OK;
}

lw_status lw_file_read(const char *path, size_t max_bytes, char **ret, size_t *ret_len, lw_err *err)
{
    /* Non-blocking, or a pipe without a writer would hold us before fstat can refuse it. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    lw_status status;

    if (fd < 0)
        return lw_fail_errno(err, errno, path);
    status = read_all(fd, path, max_bytes, ret, ret_len, err);
    close(fd);
    return status;
}

/* The file behind a symbolic link, so that the link stays one; a dangling link or a plain name is
 * taken as it is. NULL: no memory. */
static char *resolve(const char *path)
{
    struct stat st;

    if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode)) {
        char *real = realpath(path, NULL);

        if (real)
            return real;
    }
    return strdup(path);
}

lw_status lw_outfile_open(lw_outfile *o, const char *path, lw_err *err)
{
    static atomic_uint counter;
    lw_outfile f = { .fd = -1 };
    struct stat st;
    bool exists;

    if (*path == '\0')
        return lw_fail(err, LW_E_INVALID, "an empty text is no file name");
    f.target = resolve(path);
    if (f.target == NULL)
        return lw_fail_errno(err, ENOMEM, path);
    if (strcmp(path, "-") == 0) {
        f.fd = STDOUT_FILENO;
        *o = f;
        return LW_OK;
    }
    exists = stat(f.target, &st) == 0;
    if (exists && S_ISDIR(st.st_mode)) {
        free(f.target);
        return lw_fail(err, LW_E_INVALID, "%s: is a folder; expected the name of a file", path);
    }
    if (exists && !S_ISREG(st.st_mode)) {
        f.fd = open(f.target, O_WRONLY | O_CLOEXEC);
    } else {
        /* The process and a counter make the name unique; O_EXCL makes sure. */
        if (asprintf(&f.tmp, "%s.tmp-%ld-%u", f.target, (long)getpid(),
                     atomic_fetch_add(&counter, 1)) < 0) {
            free(f.target);
            return lw_fail_errno(err, ENOMEM, path);
        }
        f.fd = open(f.tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    }
    if (f.fd < 0) {
        int cause = errno;

        free(f.tmp);
        free(f.target);
        return lw_fail_errno(err, cause, path);
    }
    *o = f;
    return LW_OK;
}

void lw_outfile_write(lw_outfile *o, const void *data, size_t n)
{
    const char *p = data;

    while (n && !o->failed) {
        ssize_t r = write(o->fd, p, n);

        if (r < 0 && errno != EINTR)
            o->failed = errno;
        if (r > 0) {
            p += r;
            n -= (size_t)r;
        }
    }
}

static void release(lw_outfile *o)
{
    free(o->tmp);
    free(o->target);
    *o = (lw_outfile){ .fd = -1 };
}

lw_status lw_outfile_commit(lw_outfile *o, lw_err *err)
{
    int cause = o->failed;
    lw_status status = LW_OK;

    if (o->fd != STDOUT_FILENO && close(o->fd) != 0 && !cause)
        cause = errno;
    if (o->tmp && !cause && rename(o->tmp, o->target) != 0)
        cause = errno;
    if (cause)
        status = lw_fail_errno(err, cause, o->target);
    if (o->tmp && cause)
        (void)unlink(o->tmp);
    release(o);
    return status;
}

void lw_outfile_abort(lw_outfile *o)
{
    if (o->target == NULL)
        return;
    if (o->fd != STDOUT_FILENO)
        close(o->fd);
    if (o->tmp)
        (void)unlink(o->tmp);
    release(o);
}
