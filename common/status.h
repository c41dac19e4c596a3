#ifndef LW_COMMON_STATUS_H
#define LW_COMMON_STATUS_H

/*
 * The one error table of the project. Every failure that crosses a function, a process or a
 * machine is one of these codes; the wire name, the HTTP status, the exit code of the command
 * line and docs/errors.md all come from this list.
 */

/*
 * X(symbol, wire name, HTTP status, exit code, retryable on another worker, text)
 *
 * Exit code 2 is usage, as in other command-line programs; 128 and above belong to signals.
 */
#define LW_STATUS_TABLE(X)                                                                         \
    X(OK, "ok", 200, 0, 0, "success")                                                              \
    X(E_INVALID, "invalid_argument", 400, 2, 0, "a value is malformed or out of range")            \
    X(E_SHAPE, "shape_mismatch", 400, 3, 0, "a tensor has another shape or dtype than needed")     \
    X(E_FORMAT, "bad_format", 400, 4, 0, "a file or message is damaged or not of its format")      \
    X(E_UNAUTHENTICATED, "unauthenticated", 401, 5, 0, "no valid key was shown")                   \
    X(E_DENIED, "permission_denied", 403, 6, 0, "the key or file mode does not allow this")        \
    X(E_NOT_FOUND, "not_found", 404, 7, 0, "a file, tensor, job or peer does not exist")           \
    X(E_PRECONDITION, "failed_precondition", 409, 8, 0, "stages or versions do not fit together")  \
    X(E_TOO_LARGE, "payload_too_large", 413, 9, 0, "a request or message exceeds a limit")         \
    X(E_EXHAUSTED, "resource_exhausted", 429, 10, 1, "a budget or queue is full")                  \
    X(E_CANCELLED, "cancelled", 499, 11, 0, "the job was cancelled")                               \
    X(E_INTERNAL, "internal", 500, 12, 0, "a defect of latentwire, or NaN in a result")            \
    X(E_UNIMPLEMENTED, "unimplemented", 501, 13, 0, "known, but not offered by this build")        \
    X(E_IO, "io_error", 500, 14, 1, "the operating system refused a read or write")                \
    X(E_UNAVAILABLE, "unavailable", 503, 15, 1, "no worker or hub can take this now")              \
    X(E_DEADLINE, "deadline_exceeded", 504, 16, 1, "the time allowed has passed")                  \
    X(E_NOMEM, "out_of_memory", 507, 17, 1, "not enough host or device memory")                    \
    X(E_MISMATCH, "mismatch", 409, 18, 0, "a result is not the one that was expected")

typedef enum lw_status {
#define LW_STATUS_ENUM(sym, wire, http, exitcode, retry, text) LW_##sym,
    LW_STATUS_TABLE(LW_STATUS_ENUM)
#undef LW_STATUS_ENUM
        LW_N_STATUS
} lw_status;

/** Wire name of a code ("invalid_argument"); "internal" for a value outside the table. */
const char *lw_status_name(lw_status s);
/** One-line description of a code. */
const char *lw_status_text(lw_status s);
/** HTTP status that a gateway answers with. */
int lw_status_http(lw_status s);
/** Exit code of the command line. */
int lw_status_exit(lw_status s);
/** Non-zero when another worker, or the same one later, may succeed. */
int lw_status_retryable(lw_status s);
/** Code of a wire name; LW_E_INTERNAL for a name that is not in the table. */
lw_status lw_status_from_name(const char *name, unsigned long len);

#endif
