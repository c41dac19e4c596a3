/* Whole files in and out. */

#include "tests/unit/unit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"

static lw_status write_file(const char *path, const char *text, lw_err *err)
{
    lw_outfile o = { 0 };

    LW_TRY(lw_outfile_open(&o, path, err));
    lw_outfile_write(&o, text, strlen(text));
    return lw_outfile_commit(&o, err);
}

static void assert_file(const char *path, const char *want)
{
    lw_err err = { 0 };
    char *text = NULL;
    size_t n = 0;

    assert_ok(lw_file_read(path, 1000, &text, &n, &err), &err);
    assert_int_equal(n, strlen(want));
    assert_string_equal(text, want);
    free(text);
}

static void replacing_is_all_or_nothing(void **state)
{
    const char *path = unit_tmp("out.txt");
    lw_err err = { 0 };
    lw_outfile o = { 0 };
    struct stat st;
    int before;

    (void)state;
    umask(022);
    assert_ok(write_file(path, "old", &err), &err);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);
    before = unit_count_files();
    assert_ok(lw_outfile_open(&o, path, &err), &err);
    lw_outfile_write(&o, "new", 3);
    assert_file(path, "old");
    lw_outfile_abort(&o);
    lw_outfile_abort(&o); /* twice is harmless */
    assert_file(path, "old");
    assert_int_equal(unit_count_files(), before);
    assert_ok(write_file(path, "newer", &err), &err);
    assert_file(path, "newer");
    assert_int_equal(unit_count_files(), before);
}

static void a_link_stays_a_link(void **state)
{
    const char *target = unit_write("real.txt", "old", 3), *path = unit_tmp("link.txt");
    lw_err err = { 0 };
    struct stat st;

    (void)state;
    assert_int_equal(symlink(target, path), 0);
    assert_ok(write_file(path, "through", &err), &err);
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_file(target, "through");
}

static void special_files_are_written_directly(void **state)
{
    lw_err err = { 0 };
    struct stat st;

    (void)state;
    assert_ok(write_file("/dev/null", "gone", &err), &err);
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
    /* A disk that is full is reported at the end. */
    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(write_file("/dev/full", "more", &err), LW_E_IO);
        assert_contains(err.text, "No space left");
    }
}

static void bad_targets_are_named(void **state)
{
    lw_err err = { 0 };
    lw_outfile o = { 0 };

    (void)state;
    assert_int_equal(lw_outfile_open(&o, unit_tmp("no/such/x"), &err), LW_E_NOT_FOUND);
    assert_contains(err.text, "no/such/x");
    assert_int_equal(lw_outfile_open(&o, unit_tmp(""), &err), LW_E_INVALID);
    assert_contains(err.text, "folder");
    assert_int_equal(lw_outfile_open(&o, "", &err), LW_E_INVALID);
    assert_null(o.target);
}

static void standard_output_is_a_target(void **state)
{
    const char *path = unit_tmp("stdout.txt");
    int saved = dup(STDOUT_FILENO), fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    lw_err err = { 0 };
    lw_status status;

    (void)state;
    fflush(stdout);
    dup2(fd, STDOUT_FILENO);
    status = write_file("-", "hello", &err);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    close(fd);
    assert_int_equal(status, LW_OK);
    assert_file(path, "hello");
}

static void reading_has_limits(void **state)
{
    lw_err err = { 0 };
    char *text = NULL;
    size_t n;

    (void)state;
    assert_int_equal(lw_file_read(unit_write("big", "12345", 5), 4, &text, &n, &err),
                     LW_E_TOO_LARGE);
    assert_contains(err.text, "5 bytes, at most 4");
    assert_int_equal(lw_file_read("/dev/zero", 4, &text, &n, &err), LW_E_FORMAT);
    assert_int_equal(mkfifo(unit_tmp("pipe"), 0600), 0);
    assert_int_equal(lw_file_read(unit_tmp("pipe"), 4, &text, &n, &err), LW_E_FORMAT);
    assert_null(text);
    assert_file(unit_write("empty", "", 0), "");
    if (geteuid() != 0) { /* root may read everything */
        chmod(unit_tmp("big"), 0);
        assert_int_equal(lw_file_read(unit_tmp("big"), 9, &text, &n, &err), LW_E_DENIED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replacing_is_all_or_nothing),
        cmocka_unit_test(a_link_stays_a_link),
        cmocka_unit_test(special_files_are_written_directly),
        cmocka_unit_test(bad_targets_are_named),
        cmocka_unit_test(standard_output_is_a_target),
        cmocka_unit_test(reading_has_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
