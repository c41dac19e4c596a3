/* Report and contact sheet of the folder in tests/data/report (make_report.py). */

#include <sys/stat.h>

#include "common/file.h"
#include "common/png.h"
#include "orchestrate/experiment/report.h"
#include "orchestrate/experiment/sheet.h"
#include "tests/unit/unit.h"

static char dir[512];

/* A copy of the folder that a test may damage. */
static int setup(void **state)
{
    char command[2048];

    (void)state;
    snprintf(dir, sizeof(dir), "%s", unit_tmp("experiment"));
    snprintf(command, sizeof(command), "rm -rf '%s' && cp -r '%s' '%s'", dir, unit_data("report"),
             dir);
    return system(command) != 0;
}

static int teardown(void **state)
{
    char command[1024];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command) != 0;
}

/* Inlined, gcc 12 takes its local variable for what it returns. */
__attribute__((noinline)) static char *content(const char *name)
{
    char path[1024], *text = NULL;
    size_t n;
    lw_err err = { 0 };

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_ok(lw_file_read(path, (size_t)1 << 24, &text, &n, &err), &err);
    return text;
}

static void put(const char *name, const char *text)
{
    char path[1024];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int count(const char *text, const char *part)
{
    int n = 0;

    for (const char *s = text; (s = strstr(s, part)) != NULL; s++)
        n++;
    return n;
}

static void test_whole(void **state)
{
    lw_err err = { 0 };
    char *page;

    (void)state;
    assert_ok(lw_experiment_report(dir, &err), &err);
    page = content("report.html");
    assert_int_equal(count(page, "src=\"data:image/png;base64,"), 10);
    assert_contains(page, "<h1>Does an empty think block matter?</h1>");
    assert_contains(page, "\"thumbnail\":0");
    assert_contains(page, "demo/transformer");
    assert_contains(page, "id,think,prompt,seed,status"); /* the CSV */
    free(page);
}

static void test_small_pictures(void **state)
{
    lw_err err = { 0 };
    char *page;

    (void)state;
    assert_ok(lw_experiment_report_within(dir, 3000, &err), &err);
    page = content("report.html");
    assert_int_equal(count(page, "src=\"data:image/png;base64,"), 10);
    assert_null(strstr(page, "\"thumbnail\":0"));
    free(page);
}

static void test_damaged_picture(void **state)
{
    lw_err err = { 0 };
    char *page;

    (void)state;
    put("cells/06b5cc67a9508b87.png", "no picture");
    assert_ok(lw_experiment_report(dir, &err), &err);
    assert_ok(lw_experiment_sheet(dir, &err), &err);
    page = content("report.html");
    assert_int_equal(count(page, "src=\"data:image/png;base64,"), 9);
    assert_int_equal(count(page, "\"status\":\"failed\""), 2);
    free(page);
}

/* The text of results.json with one part replaced is refused, and the error names it. */
static void refused(const char *part, const char *by, const char *named)
{
    char *text = content("results.json"), *changed;
    const char *found = strstr(text, part);
    size_t at = found ? (size_t)(found - text) : 0;
    lw_err err = { 0 };

    assert_non_null(found);
    changed = malloc(strlen(text) + strlen(by) + 1);
    sprintf(changed, "%.*s%s%s", (int)at, text, by, text + at + strlen(part));
    put("results.json", changed);
    assert_int_equal(lw_experiment_report(dir, &err), LW_E_FORMAT);
    assert_contains(err.text, named);
    assert_int_equal(lw_experiment_sheet(dir, &err), LW_E_FORMAT);
    put("results.json", text);
    free(changed);
    free(text);
}

static void test_refused(void **state)
{
    (void)state;
    refused("\"cells/", "\"../cells/", "../cells/");
    refused("\"id\": \"", "\"id\": \"../", "hexadecimal");
    refused("\"latentwire_experiment\": 1", "\"latentwire_experiment\": 2", "format 1");
    refused("\"think\": \"off\",\n    \"prompt\"", "\"think\": \"maybe\",\n    \"prompt\"",
            "maybe");
}

static void test_sheet(void **state)
{
    lw_err err = { 0 };
    lw_arena a;
    lw_png_text *texts;
    uint8_t *rgb;
    int n, width, height;
    char path[1024];

    (void)state;
    lw_arena_init(&a, "test", 0);
    assert_ok(lw_experiment_sheet(dir, &err), &err);
    snprintf(path, sizeof(path), "%s/contact.png", dir);
    assert_ok(lw_png_read_texts(path, &a, &texts, &n, &err), &err);
    assert_int_equal(n, 1);
    assert_string_equal(texts[0].keyword, "latentwire_experiment");
    assert_string_equal(texts[0].text, "000-fixture");
    assert_ok(lw_png_read(path, &a, &rgb, &width, &height, &err), &err);
    /* Two blocks of three columns, each cell twice 48 pixels wide. */
    assert_true(width > 6 * 96 && width < 1000 && height > 2 * 80);
    lw_arena_deinit(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_small_pictures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_picture, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sheet, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
