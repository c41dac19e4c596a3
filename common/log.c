/*
 * One event, one line, one write(2). The line is built on the stack, so logging never allocates
 * and works while memory is short; a line that would exceed LINE_BYTES loses its tail, never its
 * newline. Values come from anywhere, so both formats escape what could break a line or a terminal.
 */

#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/err.h"
#include "common/utf8.h"

#define LINE_BYTES 4096

typedef struct line {
    char data[LINE_BYTES];
    size_t len;
    bool cut; /* a piece did not fit */
} line;

static const char *const level_names[] = { "error", "warn", "info", "debug" };

static struct {
    lw_log_level level;
    bool json;
    const char *program;
} settings = { .level = LW_INFO, .program = "latentwire" };

void lw_log_init(lw_log_level level, bool json, const char *program)
{
    settings.level = level;
    settings.json = json;
    settings.program = program;
}

int lw_log_level_parse(const char *s)
{
    for (size_t i = 0; i < LW_ARRAY_LEN(level_names); i++)
        if (strcmp(s, level_names[i]) == 0)
            return (int)i;
    return -1;
}

/* Room for the closing brace and the newline is always kept. */
static void put(line *l, const char *s, size_t n)
{
    size_t room = LINE_BYTES - 2 - l->len;

    if (n > room) { /* whole pieces only: half an escape is worse than none */
        l->cut = true;
        return;
    }
    memcpy(l->data + l->len, s, n);
    l->len += n;
}

static LW_PRINTF(2, 3) void putf(line *l, const char *fmt, ...)
{
    char piece[128];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(piece, sizeof(piece), fmt, ap);
    va_end(ap);
    if (n > 0)
        put(l, piece, (size_t)n < sizeof(piece) ? (size_t)n : sizeof(piece) - 1);
}

/* Quoted text. The same escapes serve JSON and logfmt. */
static void put_quoted(line *l, const char *s)
{
    size_t n = strlen(s);

    /* Text that does not fit as a whole is cut and stays quoted: an escape has at most 6 bytes. */
    put(l, "\"", 1);
    for (size_t i = 0; i < n && l->len + 16 < LINE_BYTES;) {
        unsigned char c = (unsigned char)s[i];
        size_t len = lw_utf8_len(s + i, n - i);

        if (len == 0) {
            put(l, "\xef\xbf\xbd", 3); /* U+FFFD for a byte that is not UTF-8 */
            i++;
            continue;
        }
        if (c == '"' || c == '\\')
            putf(l, "\\%c", c);
        else if (c == '\n')
            put(l, "\\n", 2);
        else if (c == '\t')
            put(l, "\\t", 2);
        else if (c < 0x20 || c == 0x7f)
            putf(l, "\\u%04x", c);
        else if (c == 0xc2 && (unsigned char)s[i + 1] < 0xa0)
            putf(l, "\\u%04x", (unsigned char)s[i + 1]); /* C1 control characters */
        else
            put(l, s + i, len);
        i += len;
    }
    put(l, "\"", 1);
}

/* logfmt leaves plain words bare. */
static bool is_bare(const char *s)
{
    if (*s == '\0')
        return false;
    for (; *s; s++)
        if ((unsigned char)*s <= ' ' || (unsigned char)*s >= 0x7f || *s == '"' || *s == '=' ||
            *s == '\\')
            return false;
    return true;
}

static void put_text(line *l, const char *s)
{
    if (s == NULL)
        s = "";
    if (!settings.json && is_bare(s) && strlen(s) < LINE_BYTES / 16)
        put(l, s, strlen(s));
    else
        put_quoted(l, s);
}

static void put_key(line *l, const char *key)
{
    if (settings.json)
        putf(l, "%s\"%s\":", l->len > 1 ? "," : "", key);
    else
        putf(l, "%s%s=", l->len ? " " : "", key);
}

static void put_value(line *l, const lw_kv *kv)
{
    switch (kv->kind) {
    case LW_KV_S:
        put_text(l, kv->s);
        break;
    case LW_KV_I:
        putf(l, "%" PRId64, kv->i);
        break;
    case LW_KV_F:
        if (isfinite(kv->f))
            putf(l, "%.6g", kv->f);
        else /* JSON has no such numbers */
            put_text(l, isnan(kv->f) ? "nan" : kv->f > 0 ? "inf" : "-inf");
        break;
    case LW_KV_ID:
        putf(l, settings.json ? "\"%02x%02x%02x%02x\"" : "%02x%02x%02x%02x", kv->id[0], kv->id[1],
             kv->id[2], kv->id[3]);
        break;
    case LW_KV_END:
        break;
    }
}

static void put_time(line *l)
{
    struct timespec now;
    struct tm tm;
    char text[32];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    putf(l, settings.json ? "\"%s.%03ldZ\"" : "%s.%03ldZ", text, now.tv_nsec / 1000000);
}

/*
 * A reader of stderr that has gone away must not take the process with it: SIGPIPE is held back for
 * the write and, when the write raised it, taken off the queue again.
 */
static void write_line(const char *data, size_t n)
{
    const struct timespec at_once = { 0 };
    sigset_t pipe_set, old, pending;
    bool was_pending;
    ssize_t r;

    sigemptyset(&pipe_set);
    sigaddset(&pipe_set, SIGPIPE);
    sigpending(&pending);
    was_pending = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_set, &old);
    do {
        r = write(STDERR_FILENO, data, n);
    } while (r < 0 && errno == EINTR);
    if (r < 0 && errno == EPIPE && !was_pending)
        while (sigtimedwait(&pipe_set, NULL, &at_once) < 0 && errno == EINTR)
            continue;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void lw_log_kv(lw_log_level level, const char *message, const lw_kv *fields)
{
    int saved_errno = errno;
    line l = { .len = 0 };

    if (level > settings.level)
        return;
    if (settings.json)
        put(&l, "{", 1);
    put_key(&l, "ts");
    put_time(&l);
    put_key(&l, "level");
    put_text(&l, level_names[level]);
    put_key(&l, "prog");
    put_text(&l, settings.program);
    put_key(&l, "msg");
    put_quoted(&l, message);
    for (; fields->kind != LW_KV_END; fields++) {
        size_t before = l.len;

        put_key(&l, fields->key);
        put_value(&l, fields);
        if (l.cut) { /* half a field would not parse */
            l.len = before;
            break;
        }
    }
    if (settings.json)
        l.data[l.len++] = '}';
    l.data[l.len++] = '\n';
    write_line(l.data, l.len);
    errno = saved_errno;
}
