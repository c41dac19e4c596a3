/* Configuration files: what is accepted, and what is said about the rest. */

#include "tests/unit/unit.h"

#include "common/json.h"

static json_t *load(const char *text)
{
    lw_err err = { 0 };
    json_t *root = NULL;

    assert_ok(lw_json_load(unit_write("c.json", text, strlen(text)), &root, &err), &err);
    return root;
}

static lw_status load_bad(const void *text, size_t n, lw_err *err)
{
    json_t *root = (json_t *)0x1;
    lw_status status = lw_json_load(unit_write("bad.json", text, n), &root, err);

    assert_ptr_equal(root, (json_t *)0x1); /* untouched on failure */
    return status;
}

static void values_are_read(void **state)
{
    json_t *o = load("{\"n\": 36, \"eps\": 1e-06, \"theta\": 1000000, \"on\": true, \"s\": \"x\","
                     " \"none\": null, \"a\": [32, 48, 48]}");
    int64_t axes[4] = { 0 };
    lw_err err = { 0 };

    (void)state;
    assert_int_equal(lw_json_int(o, "f", "n", 1, 100, false, 0, &err), 36);
    assert_int_equal(lw_json_int(o, "f", "absent", 1, 100, true, 7, &err), 7);
    assert_int_equal(lw_json_int(o, "f", "none", 1, 100, true, 8, &err), 8);
    assert_true(lw_json_num(o, "f", "eps", false, 0, &err) == 1e-6);
    assert_true(lw_json_num(o, "f", "theta", false, 0, &err) == 1e6);
    assert_true(lw_json_num(o, "f", "absent", true, 2.5, &err) == 2.5);
    assert_true(lw_json_bool(o, "f", "on", false, &err));
    assert_true(lw_json_bool(o, "f", "absent", true, &err));
    assert_string_equal(lw_json_str(o, "f", "s", NULL, &err), "x");
    assert_null(lw_json_str(o, "f", "none", NULL, &err));
    assert_int_equal(lw_json_int_array(o, "f", "a", 1, 1000, axes, 4, &err), 3);
    assert_int_equal(axes[2], 48);
    assert_int_equal(err.code, LW_OK);
    json_decref(o);
}

static void misfits_name_file_key_and_expectation(void **state)
{
    json_t *o = load("{\"n\": \"many\", \"big\": 1000, \"half\": 2.5, \"a\": [1, -2], \"o\": {}}");
    int64_t axes[4] = { 9, 9, 9, 9 };
    lw_err err = { 0 };

    (void)state;
    lw_json_int(o, "c.json", "n", 1, 100, false, 0, &err);
    assert_int_equal(err.code, LW_E_FORMAT);
    assert_string_equal(err.text,
                        "c.json: \"n\": expected an integer from 1 to 100, found \"many\"");
    /* Sticky: later calls keep the first error. */
    lw_json_num(o, "c.json", "absent", false, 0, &err);
    assert_contains(err.text, "many");

    err = (lw_err){ 0 };
    lw_json_int(o, "c.json", "big", 1, 100, true, 0, &err);
    assert_contains(err.text, "found 1000");
    err = (lw_err){ 0 };
    lw_json_int(o, "c.json", "half", 1, 100, true, 0, &err);
    assert_contains(err.text, "found 2.5");
    err = (lw_err){ 0 };
    lw_json_int(o, "c.json", "gone", 1, 100, false, 0, &err);
    assert_contains(err.text, "\"gone\" is missing");
    err = (lw_err){ 0 };
    lw_json_num(o, "c.json", "o", true, 0, &err);
    assert_contains(err.text, "found an object");
    err = (lw_err){ 0 };
    lw_json_bool(o, "c.json", "n", true, &err);
    assert_int_equal(err.code, LW_E_FORMAT);
    err = (lw_err){ 0 };
    lw_json_str(o, "c.json", "big", "", &err);
    assert_int_equal(err.code, LW_E_FORMAT);
    err = (lw_err){ 0 };
    assert_int_equal(lw_json_int_array(o, "c.json", "a", 1, 9, axes, 4, &err), 0);
    assert_contains(err.text, "found -2");
    err = (lw_err){ 0 };
    assert_int_equal(lw_json_int_array(o, "c.json", "a", -9, 9, axes, 1, &err), 0);
    assert_contains(err.text, "found an array of 2");
    /* NULL instead of an error holder is allowed. */
    assert_int_equal(lw_json_int(o, "c.json", "n", 1, 100, false, 5, NULL), 5);
    json_decref(o);
}

static void bad_files_are_refused(void **state)
{
    static const char deep_open = '[';
    char deep[5000];
    lw_err err = { 0 };
    json_t *root = NULL;

    (void)state;
    assert_int_equal(load_bad("", 0, &err), LW_E_FORMAT);
    assert_int_equal(load_bad("{\"a\": 1,\n \"a\": 2}", 18, &err), LW_E_FORMAT);
    assert_contains(err.text, "line 2");
    assert_contains(err.text, "duplicate");
    assert_int_equal(load_bad("{} {}", 5, &err), LW_E_FORMAT);
    assert_int_equal(load_bad("{\"a\": \"\xff\"}", 10, &err), LW_E_FORMAT);
    assert_int_equal(load_bad("{\"a\\u0000\": 1}", 14, &err), LW_E_FORMAT);
    memset(deep, deep_open, sizeof(deep));
    assert_int_equal(load_bad(deep, sizeof(deep), &err), LW_E_FORMAT);
    assert_int_equal(lw_json_load(unit_tmp("nowhere.json"), &root, &err), LW_E_NOT_FOUND);
    assert_int_equal(lw_json_load(unit_tmp(""), &root, &err), LW_E_FORMAT);
    assert_contains(err.text, "a folder");
    assert_int_equal(lw_json_load("/dev/zero", &root, &err), LW_E_FORMAT);
    assert_null(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_read),
        cmocka_unit_test(misfits_name_file_key_and_expectation),
        cmocka_unit_test(bad_files_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
