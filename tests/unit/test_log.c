/* Log lines: what is quoted, that JSON parses, that nothing but a line ever comes out. */

#include "tests/unit/unit.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "common/log.h"
#include "common/utf8.h"

static int saved_stderr;

static void redirect(int fd)
{
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    if (fd >= 0)
        dup2(fd, STDERR_FILENO);
    else
        close(STDERR_FILENO);
}

static void restore(void)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
}

/* What one call writes to standard error; free() it. */
static char *captured(lw_log_level level, const char *message, const lw_kv *fields)
{
    int fds[2];
    char *text = calloc(1, 1 << 16);
    ssize_t n;

    assert_int_equal(pipe(fds), 0);
    redirect(fds[1]);
    close(fds[1]);
    lw_log_kv(level, message, fields);
    restore();
    n = read(fds[0], text, (1 << 16) - 1);
    assert_true(n >= 0);
    close(fds[0]);
    return text;
}

static const uint8_t id[16] = { 0x12, 0xab, 0, 0xff, 1 };

static void logfmt_quotes_what_needs_it(void **state)
{
    const lw_kv fields[] = { LW_KV_STR("word", "plain"),
                             LW_KV_STR("text", "two words"),
                             LW_KV_STR("sign", "a=b"),
                             LW_KV_STR("empty", ""),
                             LW_KV_STR("null", NULL),
                             LW_KV_STR("evil", "x\ny\"z\\\x1b[2J\xff\xc2\x9b"),
                             LW_KV_STR("utf8", "gr\xc3\xbcn"),
                             LW_KV_INT("n", INT64_MIN),
                             LW_KV_F64("ms", 12.5),
                             LW_KV_F64("bad", NAN),
                             LW_KV_REQ("req", id),
                             { .kind = LW_KV_END } };
    char *line;

    (void)state;
    lw_log_init(LW_INFO, false, "dit-svc");
    line = captured(LW_WARN, "step done", fields);
    assert_contains(line,
                    "Z level=warn prog=dit-svc msg=\"step done\" word=plain text=\"two words\" "
                    "sign=\"a=b\" empty=\"\" null=\"\" "
                    "evil=\"x\\ny\\\"z\\\\\\u001b[2J\xef\xbf\xbd\\u009b\" "
                    "utf8=\"gr\xc3\xbcn\" n=-9223372036854775808 ms=12.5 bad=nan "
                    "req=12ab00ff\n");
    assert_memory_equal(line, "ts=2", 4);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    free(line);
}

static void json_lines_parse(void **state)
{
    const lw_kv fields[] = { LW_KV_STR("evil", "x\n\"\\\x01\xff\xc2\x9b\x7f"),
                             LW_KV_INT("n", -5),
                             LW_KV_F64("inf", -INFINITY),
                             LW_KV_F64("x", 1e300),
                             LW_KV_REQ("req", id),
                             { .kind = LW_KV_END } };
    char *line;
    json_t *o;

    (void)state;
    lw_log_init(LW_DEBUG, true, "hub");
    line = captured(LW_DEBUG, "a \"message\"", fields);
    o = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(o);
    assert_string_equal(json_string_value(json_object_get(o, "msg")), "a \"message\"");
    assert_string_equal(json_string_value(json_object_get(o, "evil")),
                        "x\n\"\\\x01\xef\xbf\xbd\xc2\x9b\x7f");
    assert_int_equal(json_integer_value(json_object_get(o, "n")), -5);
    assert_string_equal(json_string_value(json_object_get(o, "inf")), "-inf");
    assert_string_equal(json_string_value(json_object_get(o, "req")), "12ab00ff");
    assert_string_equal(json_string_value(json_object_get(o, "level")), "debug");
    json_decref(o);
    free(line);
}

/* A line may lose its tail, never its form: every length around the limit is tried. */
static void long_values_are_cut_cleanly(void **state)
{
    char *value = malloc(10001);

    (void)state;
    for (int json = 0; json < 2; json++) {
        lw_log_init(LW_INFO, json, "hub");
        for (size_t n = 3800; n < 4300; n++) {
            const lw_kv fields[] = { LW_KV_STR("v", value),
                                     LW_KV_STR("after", "it"),
                                     LW_KV_INT("n", n),
                                     { .kind = LW_KV_END } };
            char *line;
            size_t len;

            for (size_t i = 0; i < n; i++)
                value[i] = i % 7 == 3 ? '\x01' : i % 5 == 2 ? '"' : 'a';
            value[n / 2] = '\0';
            if (n % 2)
                memset(value, 'b', n), value[n] = '\0';
            line = captured(LW_INFO, "long", fields);
            len = strlen(line);
            assert_true(len > 1000 && len <= 4096);
            assert_ptr_equal(strchr(line, '\n'), line + len - 1);
            if (json) {
                json_t *o = json_loads(line, 0, NULL);

                assert_non_null(o);
                assert_non_null(json_object_get(o, "v"));
                json_decref(o);
            } else {
                assert_true(line[len - 2] == '"' || line[len - 2] == 't' ||
                            (line[len - 2] >= '0' && line[len - 2] <= '9'));
            }
            free(line);
        }
    }
    free(value);
}

static void levels_filter(void **state)
{
    const lw_kv none[] = { { .kind = LW_KV_END } };
    char *line;

    (void)state;
    lw_log_init(LW_WARN, false, "x");
    line = captured(LW_INFO, "unseen", none);
    assert_string_equal(line, "");
    free(line);
    line = captured(LW_ERROR, "seen", none);
    assert_contains(line, "level=error prog=x msg=\"seen\"\n");
    free(line);
    assert_int_equal(lw_log_level_parse("debug"), LW_DEBUG);
    assert_int_equal(lw_log_level_parse("error"), LW_ERROR);
    assert_int_equal(lw_log_level_parse("loud"), -1);
    assert_int_equal(lw_log_level_parse(""), -1);
}

/* No reader, and no descriptor at all: the program goes on, its signal mask unchanged. */
static void lost_stderr_is_survived(void **state)
{
    sigset_t mask, pending;
    int fds[2];

    (void)state;
    lw_log_init(LW_INFO, false, "x");
    assert_int_equal(pipe(fds), 0);
    close(fds[0]);
    redirect(fds[1]);
    close(fds[1]);
    lw_log(LW_ERROR, "into a pipe without a reader", LW_KV_INT("n", 1));
    lw_log_text(LW_ERROR, "again");
    restore();
    redirect(-1);
    lw_log_text(LW_ERROR, "nowhere");
    restore();
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    assert_false(sigismember(&mask, SIGPIPE));
    sigpending(&pending);
    assert_false(sigismember(&pending, SIGPIPE));
}

static void *log_many(void *arg)
{
    for (int i = 0; i < 200; i++)
        lw_log(LW_INFO, "from a thread", LW_KV_STR("who", (const char *)arg), LW_KV_INT("i", i));
    return NULL;
}

static void threads_do_not_mix_lines(void **state)
{
    static const char *const names[] = { "alpha", "beta", "gamma", "delta" };
    const char *path = unit_tmp("log.txt");
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600), n = 0;
    pthread_t threads[4];
    char line[512];
    FILE *f;

    (void)state;
    lw_log_init(LW_INFO, false, "x");
    redirect(fd);
    close(fd);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, log_many, (void *)(uintptr_t)names[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    restore();
    f = fopen(path, "r");
    while (fgets(line, sizeof(line), f)) {
        assert_memory_equal(line, "ts=", 3);
        assert_non_null(strstr(line, " i="));
        assert_null(strstr(line + 3, "ts="));
        n++;
    }
    fclose(f);
    assert_int_equal(n, 800);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logfmt_quotes_what_needs_it), cmocka_unit_test(json_lines_parse),
        cmocka_unit_test(long_values_are_cut_cleanly), cmocka_unit_test(levels_filter),
        cmocka_unit_test(lost_stderr_is_survived),     cmocka_unit_test(threads_do_not_mix_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
