/*
 * Writes docs/errors.md from the status table, so that the page cannot say something else than the
 * code:
 *
 *     errors_page > docs/errors.md       after a change of common/status.h or of the texts below
 *     errors_page --check FILE           what the test runs
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/file.h"

/* What a user does about it; the rest of a row comes from the table. */
static const char *const advice[LW_N_STATUS] = {
    [LW_OK] = "",
    [LW_E_INVALID] = "Correct the option or field that the message names.",
    [LW_E_SHAPE] = "Check that file and model belong together; the message gives both shapes.",
    [LW_E_FORMAT] =
        "Fetch the file again, or look at the sender: the message says where it breaks.",
    [LW_E_UNAUTHENTICATED] = "Give the client the hub's public key and a key of its own.",
    [LW_E_DENIED] = "Allow the key in the hub's list, or correct the file's mode.",
    [LW_E_NOT_FOUND] = "Check the path or name in the message; start the hub if that is missing.",
    [LW_E_PRECONDITION] = "Run stages that fit: the message names what differs.",
    [LW_E_TOO_LARGE] = "Ask for less, or raise the limit that the message names.",
    [LW_E_EXHAUSTED] = "Try again later, or raise the budget that the message names.",
    [LW_E_CANCELLED] = "Nothing: somebody asked for it.",
    [LW_E_INTERNAL] = "Report it with the log; NaN means damaged weights or a defect.",
    [LW_E_UNIMPLEMENTED] =
        "Convert the file, or use a build that has it; `latentwire doctor` lists "
        "what this one has.",
    [LW_E_IO] = "Look at the disk or the connection; trying again may help.",
    [LW_E_UNAVAILABLE] = "Start a worker of the stage that the message names; `latentwire status` "
                         "shows what runs.",
    [LW_E_DEADLINE] = "Allow more time, fewer steps or a smaller picture.",
    [LW_E_NOMEM] = "Ask for a smaller picture or batch, or raise `--memory`.",
    [LW_E_MISMATCH] = "Look at the notes beside it: they name what has changed since.",
};

static void write_page(lw_buf *b)
{
    lw_buf_puts(
        b, "# Errors\n"
           "\n"
           "<!-- Written by tests/unit/errors_page.c from common/status.h; a test compares. -->\n"
           "\n"
           "Every failure has one of these codes, wherever it shows: in a C function's result, in "
           "an ERROR message on the\nwire, in `--json` output, as the exit code of the command "
           "line. The text beside it names the thing, what it\nwas, what it should have been, and "
           "what to do. Codes keep their names and numbers; new ones are added at the\nend of "
           "the list.\n"
           "\n"
           "The exit codes 128 and above are those of signals. A *retryable* failure is tried "
           "again by the hub on another\nworker, at most twice.\n"
           "\n"
           "| code | exit | HTTP | retryable | meaning | what to do |\n"
           "|---|---|---|---|---|---|\n");
    for (int i = 0; i < LW_N_STATUS; i++) {
        lw_status s = (lw_status)i;

        lw_buf_printf(b, "| `%s` | %d | %d | %s | %s | %s |\n", lw_status_name(s),
                      lw_status_exit(s), lw_status_http(s), lw_status_retryable(s) ? "yes" : "no",
                      lw_status_text(s), advice[i]);
    }
    lw_buf_puts(b,
                "\n"
                "In C: `lw_status` (`common/status.h`) with the text in an `lw_err` "
                "(`common/err.h`). A text is one line of UTF-8\nwithout control characters and at "
                "most 1023 bytes long, so it can be shown anywhere.\n");
}

static int check(const char *path, const lw_buf *page)
{
    char *found = NULL;
    size_t n = 0;
    lw_err err = { 0 };

    if (lw_file_read(path, 1 << 20, &found, &n, &err) != LW_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    if (n != page->len || memcmp(found, page->data, n) != 0) {
        fprintf(stderr,
                "%s differs from the status table; write it again with\n"
                "    errors_page > docs/errors.md\n",
                path);
        free(found);
        return 1;
    }
    free(found);
    return 0;
}

int main(int argc, char **argv)
{
    int status = 0;
    lw_buf page;

    for (int i = 0; i < LW_N_STATUS; i++) {
        if (advice[i] == NULL) {
            fprintf(stderr, "no advice for %s: add a line to advice[]\n",
                    lw_status_name((lw_status)i));
            return 1;
        }
    }
    lw_buf_init(&page, 1 << 20);
    write_page(&page);
    if (page.failed)
        status = 1;
    else if (argc == 3 && strcmp(argv[1], "--check") == 0)
        status = check(argv[2], &page);
    else
        fwrite(page.data, 1, page.len, stdout);
    lw_buf_deinit(&page);
    return status;
}
