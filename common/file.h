#ifndef LW_COMMON_FILE_H
#define LW_COMMON_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/*
 * Whole files in, whole files out. Reading has a maximum; writing goes to a temporary name beside
 * the target and is renamed at the end, so a reader (or a full disk) never meets half a file.
 */

/** Record what errno `cause` means for `path`: LW_E_NOT_FOUND, LW_E_DENIED, LW_E_NOMEM or LW_E_IO.
 */
lw_status lw_fail_errno(lw_err *err, int cause, const char *path);

/**
 * Read a regular file into memory of its own (free()), with a zero byte behind the contents that is
 * not counted in *ret_len. Errors: LW_E_NOT_FOUND, LW_E_DENIED, LW_E_IO, LW_E_FORMAT (not a regular
 * file), LW_E_TOO_LARGE, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_file_read(const char *path, size_t max_bytes, char **ret, size_t *ret_len,
                                   lw_err *err);

/** A file being written. Zeroed = closed. Thread rule: one thread at a time. */
typedef struct lw_outfile {
    int fd;
    int failed;         /* errno of the first failed write; sticky */
    char *target, *tmp; /* tmp is NULL when the target is written directly */
} lw_outfile;

/**
 * Start writing `path`; "-" is standard output. A symbolic link is followed, and a target that is
 * no regular file (a pipe, /dev/stdout) is written directly. Errors: LW_E_NOT_FOUND (no such
 * folder), LW_E_DENIED, LW_E_IO, LW_E_INVALID (a folder), LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_outfile_open(lw_outfile *o, const char *path, lw_err *err);
/** Append; a failure is kept and reported by lw_outfile_commit. */
void lw_outfile_write(lw_outfile *o, const void *data, size_t n);
/** Close and put the file in its place; on failure the temporary file is removed. */
LW_MUST_USE lw_status lw_outfile_commit(lw_outfile *o, lw_err *err);
/** Give up: close and remove the temporary file. Does nothing after a commit. */
void lw_outfile_abort(lw_outfile *o);

#endif
