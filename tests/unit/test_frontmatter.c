/* Front matter: what is read, and each way in which a file can be wrong, with its line. */

#include "tests/unit/unit.h"

#include "common/frontmatter.h"

static lw_arena arena;

static lw_status parse_n(const char *text, size_t n, lw_frontmatter *ret, lw_err *err)
{
    return lw_frontmatter_parse(text, n, "f.md", &arena, ret, err);
}

static lw_frontmatter parse(const char *text)
{
    lw_frontmatter f = { 0 };
    lw_err err = { 0 };

    assert_ok(parse_n(text, strlen(text), &f, &err), &err);
    return f;
}

static const char *text_of(const lw_frontmatter *f, const char *key)
{
    const lw_fm_entry *e = lw_frontmatter_find(f, key);

    if (e == NULL || e->kind != LW_FM_TEXT)
        fail_msg("no text \"%s\"", key);
    return e->text;
}

static void reads_texts_lists_and_mappings(void **state)
{
    lw_frontmatter f = parse("---\n"
                             "name: rim-light   # a remark\n"
                             "description: \"Light: from behind, \\u00e9dge #1\"\n"
                             "tags: [light, 'two words']\n"
                             "steps: 8\n"
                             "empty:\n"
                             "thinking: |\n"
                             "  First line.\n"
                             "\n"
                             "  Second \"line\".\n"
                             "variables:\n"
                             "  lamp: a bare bulb\n"
                             "  colour: \"\"\n"
                             "list:\n"
                             "  - a\n"
                             "  - b\n"
                             "---\n"
                             "\n"
                             "Body, first.\n"
                             "---\n"
                             "Last.\n"
                             "\n");
    const lw_fm_entry *e;

    (void)state;
    assert_true(f.present);
    assert_int_equal(f.n_entries, 8);
    assert_string_equal(text_of(&f, "name"), "rim-light");
    assert_string_equal(text_of(&f, "description"), "Light: from behind, \xc3\xa9"
                                                    "dge #1");
    assert_string_equal(text_of(&f, "steps"), "8");
    assert_string_equal(text_of(&f, "empty"), "");
    assert_string_equal(text_of(&f, "thinking"), "First line.\n\nSecond \"line\".\n");
    e = lw_frontmatter_find(&f, "tags");
    assert_int_equal(e->kind, LW_FM_LIST);
    assert_int_equal(e->line, 4);
    assert_int_equal(e->n_items, 2);
    assert_string_equal(e->items[1].text, "two words");
    assert_null(e->items[1].key);
    e = lw_frontmatter_find(&f, "variables");
    assert_int_equal(e->kind, LW_FM_MAP);
    assert_int_equal(e->line, 11);
    assert_int_equal(e->n_items, 2);
    assert_string_equal(e->items[0].key, "lamp");
    assert_string_equal(e->items[0].text, "a bare bulb");
    assert_string_equal(e->items[1].text, "");
    assert_int_equal(e->items[1].line, 13);
    e = lw_frontmatter_find(&f, "list");
    assert_int_equal(e->kind, LW_FM_LIST);
    assert_int_equal(e->items[1].line, 16);
    assert_null(lw_frontmatter_find(&f, "Name"));
    assert_string_equal(f.body, "Body, first.\n---\nLast.");
    assert_int_equal(f.body_line, 19);
}

static void a_file_without_front_matter_is_all_body(void **state)
{
    static const char *const texts[] = { "Two lines\n--- here\n", "Two lines\n--- here",
                                         "\n \nTwo lines\n--- here\n\n \n" };
    lw_frontmatter f;

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(texts); i++) {
        f = parse(texts[i]);
        assert_false(f.present);
        assert_int_equal(f.n_entries, 0);
        assert_string_equal(f.body, "Two lines\n--- here");
        assert_int_equal(f.body_line, i < 2 ? 1 : 3);
    }
    f = parse("");
    assert_string_equal(f.body, "");
    f = parse("----\nname: x\n---\n");
    assert_false(f.present);
}

static void edges_of_the_front_matter(void **state)
{
    lw_frontmatter f = parse("---\n---\n");

    (void)state;
    assert_true(f.present);
    assert_int_equal(f.n_entries, 0);
    assert_string_equal(f.body, "");
    f = parse("---\n# nothing but a remark\n\n---\nx");
    assert_int_equal(f.n_entries, 0);
    assert_string_equal(f.body, "x");
    assert_int_equal(f.body_line, 5);
    f = parse("---  \na: b\n--- \t\n\n\nx"); /* blanks behind the marks are for the linter */
    assert_true(f.present);
    assert_string_equal(text_of(&f, "a"), "b");
    assert_int_equal(f.body_line, 6);
    f = parse("---\na: b\n---"); /* no final line feed */
    assert_string_equal(text_of(&f, "a"), "b");
    f = parse("---\na: b\n---\n  indented\n");
    assert_string_equal(f.body, "  indented");
}

static void each_fault_has_its_line(void **state)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        { "---\na: b\n", "f.md:1: the front matter is not closed" },
        { "---", "f.md:1: the front matter is not closed" },
        { "---\na: b\nc: *x\n---\n", "f.md:3: YAML aliases" },
        { "---\na: b\nc: &x d\n---\n", "f.md:3: YAML anchors" },
        { "---\na: b\nc: !!str d\n---\n", "f.md:3: YAML tags" },
        { "---\na: &x [b]\n---\n", "f.md:2: YAML anchors" },
        { "---\na: !x {b: c}\n---\n", "f.md:2: YAML tags" },
        { "---\n%YAML 1.1\na: b\n---\n", "f.md:" },
        { "---\na: b\n...\nc: d\n---\n", "f.md:3: one YAML document" },
        { "---\n--- {a: b}\n---\n", "f.md:2: one YAML document" },
        { "---\na: b\n--- {c: d}\n---\n", "f.md:3: one YAML document" },
        { "---\na: [b, [c]]\n---\n", "f.md:2: \"a\" is nested deeper than one level" },
        { "---\na:\n  b: c\n  d:\n    e: f\n---\n", "f.md:5: \"a\" is nested deeper" },
        { "---\na:\n  b: [c]\n---\n", "f.md:3: \"a\" is nested deeper" },
        { "---\na:\n  - b: c\n---\n", "f.md:3: \"a\" is nested deeper" },
        { "---\na: b\nc: d\na: e\n---\n", "f.md:4: the key \"a\" stands here twice" },
        { "---\na:\n  b: c\n  b: d\n---\n", "f.md:4: the key \"b\" stands in \"a\" twice" },
        { "---\n- a\n---\n", "f.md:2: the front matter must be lines such as" },
        { "---\njust text\n---\n", "f.md:2: the front matter must be lines such as" },
        { "---\n? [a]\n: b\n---\n", "f.md:2: a key must be a text" },
        { "---\n\"\": b\n---\n", "f.md:2: a key must be one line" },
        { "---\na: b: c\n---\n", "f.md:2: mapping values are not allowed" },
        { "---\na: [b, c\nd: e\n---\n", "f.md:" },
        { "---\na: \"b\n---\n", "f.md:" },
        { "---\na: b\n\tc: d\n---\n", "f.md:3: " },
        { "---\na: b\nc: \"d\\0e\"\n---\n", "f.md:3: the text holds a control character" },
        { "---\na: b\nc: \"\\e[2J\"\n---\n", "f.md:3: the text holds a control character" },
        { "---\na: b\n---\n\nx\xff\n", "f.md:5: not UTF-8" },
        { "---\na: b\xc3\n---\n", "f.md:2: not UTF-8" },
        { "---\na: b\n---\n\nx\x1b[2J\n", "f.md:5: a control character" },
        { "---\na: b\n---\n\nx\xc2\x85\n", "f.md:5: a control character" },
        { "---\na: b\n---\n\nx\xe2\x80\xa8\n", "f.md:5: a control character or line separator" },
        { "---\r\na: b\r\n---\r\n", "f.md:1: a carriage return" },
        { "\xef\xbb\xbf---\na: b\n---\n", "f.md:1: the file begins with a byte order mark" },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        lw_frontmatter f = { 0 };
        lw_err err = { 0 };

        if (parse_n(cases[i].text, strlen(cases[i].text), &f, &err) != LW_E_FORMAT)
            fail_msg("taken: %s", cases[i].text);
        if (strncmp(err.text, cases[i].want, strlen(cases[i].want)) != 0)
            fail_msg("case %zu: \"%s\" does not begin with \"%s\"", i, err.text, cases[i].want);
        assert_false(f.present); /* untouched */
    }
}

static void a_zero_byte_is_refused(void **state)
{
    static const char text[] = "---\na: b\n---\n\nx\0y\n";
    lw_frontmatter f;
    lw_err err = { 0 };

    (void)state;
    assert_int_equal(parse_n(text, sizeof(text) - 1, &f, &err), LW_E_FORMAT);
    assert_string_equal(err.text, "f.md:5: a zero byte");
}

/* "---\n", then `line` n times, then "---\n" and as much body as makes total_bytes (or none). */
static char *repeated(const char *fmt, int n, size_t total_bytes)
{
    const size_t size = LW_FM_MAX_FILE_BYTES * 2;
    char *text = malloc(size);
    size_t len;

    assert_non_null(text);
    len = (size_t)snprintf(text, size, "---\n");
    for (int i = 0; i < n; i++)
        len += (size_t)snprintf(text + len, size - len, fmt, i);
    len += (size_t)snprintf(text + len, size - len, "---\n");
    while (len < total_bytes)
        text[len++] = 'x';
    text[len] = '\0';
    return text;
}

static void limits(void **state)
{
    static const struct {
        const char *fmt;
        int n;
        size_t total_bytes;
        const char *want; /* NULL: taken */
    } cases[] = {
        { "k%d: v\n", 64, 0, NULL },
        { "k%d: v\n", 65, 0, "f.md:66: more than 64 keys" },
        { "# %05d\n", 2048, 0, NULL }, /* 16 KiB */
        { "# %05d\n", 2049, 0, "f.md:2050: the front matter has more than 16384 bytes" },
        { "k%d: v\n", 1, 65536, NULL },
        { "k%d: v\n", 1, 65537, "f.md:1: the file has 65537 bytes" },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        char *text = repeated(cases[i].fmt, cases[i].n, cases[i].total_bytes);
        lw_frontmatter f;
        lw_err err = { 0 };
        lw_status s = parse_n(text, strlen(text), &f, &err);

        free(text);
        if (s != (cases[i].want ? LW_E_FORMAT : LW_OK))
            fail_msg("case %zu: %s", i, err.text);
        if (cases[i].want)
            assert_contains(err.text, cases[i].want);
    }
}

static void a_long_key_is_refused(void **state)
{
    char text[128];
    lw_frontmatter f;
    lw_err err = { 0 };

    (void)state;
    for (int n = 64; n <= 65; n++) {
        int len = snprintf(text, sizeof(text), "---\n%0*d: v\n---\n", n, 0);

        assert_int_equal(parse_n(text, (size_t)len, &f, &err), n == 64 ? LW_OK : LW_E_FORMAT);
    }
    assert_contains(err.text, "f.md:2: a key must be one line of 1 to 64 bytes");
}

static void a_long_list_is_refused(void **state)
{
    char text[1024] = "---\na: [0";
    lw_frontmatter f;
    lw_err err = { 0 };

    (void)state;
    for (int i = 1; i <= 64; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), ", %d", i);
    strcat(text, "]\n---\n");
    assert_int_equal(parse_n(text, strlen(text), &f, &err), LW_E_FORMAT);
    assert_contains(err.text, "f.md:2: \"a\" has more than 64 parts");
}

static int setup(void **state)
{
    (void)state;
    lw_arena_init(&arena, "test", 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lw_arena_deinit(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_texts_lists_and_mappings),
        cmocka_unit_test(a_file_without_front_matter_is_all_body),
        cmocka_unit_test(edges_of_the_front_matter),
        cmocka_unit_test(each_fault_has_its_line),
        cmocka_unit_test(a_zero_byte_is_refused),
        cmocka_unit_test(limits),
        cmocka_unit_test(a_long_key_is_refused),
        cmocka_unit_test(a_long_list_is_refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
