/* Pages: whatever text comes in, it stays text; bytes and data come out as they went in. */

#include <sodium.h>

#include "orchestrate/embedded.h"
#include "orchestrate/html.h"
#include "tests/unit/unit.h"

static lw_buf out;

static int setup(void **state)
{
    (void)state;
    lw_buf_init(&out, 1 << 24);
    return sodium_init() < 0;
}

static int teardown(void **state)
{
    (void)state;
    lw_buf_deinit(&out);
    return 0;
}

static const char *escaped(const char *text)
{
    lw_buf_clear(&out);
    lw_html_text(&out, text);
    return lw_buf_cstr(&out);
}

static void test_text(void **state)
{
    (void)state;
    assert_string_equal(escaped(""), "");
    assert_string_equal(escaped(NULL), "");
    assert_string_equal(escaped("a\n\tb"), "a\n\tb");
    assert_string_equal(escaped("a\r\n"), "a&#13;\n");
    assert_string_equal(escaped("<b>&amp;\"'"), "&lt;b&gt;&amp;amp;&quot;&#39;");
    assert_string_equal(escaped("\" onerror='x' <!-- --> </script>"),
                        "&quot; onerror=&#39;x&#39; &lt;!-- --&gt; &lt;/script&gt;");
    assert_string_equal(escaped("\xe6\x97\xa5 \xc3\xa9 \xf0\x9f\x98\x80 \xe2\x80\xa8"),
                        "\xe6\x97\xa5 \xc3\xa9 \xf0\x9f\x98\x80 \xe2\x80\xa8");
}

#define BAD "\xef\xbf\xbd"

static void test_text_not_utf8(void **state)
{
    (void)state;
    assert_string_equal(escaped("\x01\x1b\x7f"), BAD BAD BAD);
    assert_string_equal(escaped("\xc2\x85"), BAD);        /* a C1 control */
    assert_string_equal(escaped("\xc2\xa0"), "\xc2\xa0"); /* no-break space */
    assert_string_equal(escaped("\x80<\xff"), BAD "&lt;" BAD);
    assert_string_equal(escaped("\xc0\xbc"), BAD BAD); /* an overlong "<" */
    assert_string_equal(escaped("\xe0\x80\xbc"), BAD BAD BAD);
    assert_string_equal(escaped("\xed\xa0\x80"), BAD BAD BAD); /* a surrogate */
    assert_string_equal(escaped("\xf4\x90\x80\x80"), BAD BAD BAD BAD);
    /* A character cut short must not swallow what follows, nor read beyond the end. */
    assert_string_equal(escaped("\xe6\x97\"x"), BAD BAD "&quot;x");
    assert_string_equal(escaped("\xf0\x9f\x98"), BAD BAD BAD);
    assert_string_equal(escaped("\xe6"), BAD);
}

/* Nothing of any two bytes leaves an attribute or opens an element. */
static void test_text_any_bytes(void **state)
{
    (void)state;
    for (int a = 1; a < 256; a++) {
        for (int b = 1; b < 256; b++) {
            const char text[] = { (char)a, (char)b, 0 };

            assert_null(strpbrk(escaped(text), "<>\"'"));
        }
    }
}

/* Base64 against libsodium's, for every length modulo 3 and across the block that is written. */
static void test_png(void **state)
{
    static uint8_t data[20000];
    static char expected[30000];
    static const size_t lengths[] = { 0,    1,    2,    3,    4,    5,    6,     7,
                                      3071, 3072, 3073, 3074, 3075, 6144, 19999, 20000 };
    const size_t head = strlen("data:image/png;base64,");

    (void)state;
    randombytes_buf_deterministic(data, sizeof(data), (const uint8_t[randombytes_SEEDBYTES]){ 5 });
    for (size_t i = 0; i < LW_ARRAY_LEN(lengths); i++) {
        lw_buf_clear(&out);
        lw_html_png(&out, data, lengths[i]);
        assert_non_null(sodium_bin2base64(expected, sizeof(expected), data, lengths[i],
                                          sodium_base64_VARIANT_ORIGINAL));
        assert_memory_equal(lw_buf_cstr(&out), "data:image/png;base64,", head);
        assert_string_equal(lw_buf_cstr(&out) + head, expected);
    }
}

static void test_json(void **state)
{
    static const char *const texts[] = { "</script><img src=x onerror=alert(1)>",
                                         "<!-- <script>",
                                         "]]> & &lt; '\" \\ \\u003c",
                                         "a\xe2\x80\xa8"
                                         "b\xe2\x80\xa9"
                                         "c\xe2\x80\xaa",
                                         "\xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x98\x80",
                                         "\x01\x7f\n" };
    json_t *value = json_object(), *back;
    json_error_t why;
    char *text, *end;

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(texts); i++) /* as a key and as a value */
        assert_int_equal(json_object_set_new(value, texts[i], json_string(texts[i])), 0);
    lw_buf_clear(&out);
    lw_html_json(&out, "a\"><b", value);
    assert_false(out.failed);
    text = (char *)(uintptr_t)lw_buf_cstr(&out);
    assert_non_null(strstr(text, "<script type=\"application/json\" id=\"a&quot;&gt;&lt;b\">"));
    text = strchr(text, '>') + 1;
    end = strstr(text, "</script>\n");
    assert_non_null(end);
    assert_string_equal(end, "</script>\n"); /* the first is the last */
    *end = 0;
    assert_null(strpbrk(text, "<>&"));
    assert_null(strstr(text, "\xe2\x80\xa8"));
    assert_null(strstr(text, "\xe2\x80\xa9"));
    assert_non_null(strstr(text, "\xe2\x80\xaa"));
    back = json_loads(text, 0, &why);
    assert_true(json_equal(value, back));
    json_decref(back);
    json_decref(value);
}

static void test_json_scalar(void **state)
{
    json_t *value = json_string("x");

    (void)state;
    lw_buf_clear(&out);
    lw_html_json(&out, "d", value);
    assert_string_equal(lw_buf_cstr(&out),
                        "<script type=\"application/json\" id=\"d\">\"x\"</script>\n");
    json_decref(value);
}

/* Where the text between two marks begins; its length. */
static const char *between(const char *text, const char *from, const char *to, size_t *n)
{
    const char *begin = strstr(text, from), *end;

    if (!begin)
        fail_msg("no %s", from);
    begin += strlen(from);
    end = strstr(begin, to);
    if (!end)
        fail_msg("no %s", to);
    *n = (size_t)(end - begin);
    return begin;
}

/* The policy lets that script run and no other; without a script, none. */
static void test_page(void **state)
{
    static const char script[] = "'use strict'; document.title = 'a && b';\n";
    uint8_t digest[crypto_hash_sha256_BYTES];
    char expected[100];
    size_t n;
    const char *s;

    (void)state;
    lw_buf_clear(&out);
    lw_html_begin(&out, "a</title><script>alert(1)</script>");
    lw_html_end(&out);
    s = lw_buf_cstr(&out);
    assert_contains(s, "<title>a&lt;/title&gt;&lt;script&gt;");
    assert_contains(s, "default-src 'none'");
    assert_null(strstr(s, "script-src"));
    assert_null(strstr(s, "<script"));
    assert_null(strstr(s, "file:"));
    assert_contains(s, lw_embedded_html_css);
    assert_contains(s, "</body>\n</html>\n");

    lw_buf_clear(&out);
    lw_html_begin_page(&out, "t", &(lw_html_page){ .css = "p{}", .script = script, .files = true });
    lw_html_script(&out, script);
    lw_html_end(&out);
    s = between(lw_buf_cstr(&out), "<script>", "</script>", &n);
    crypto_hash_sha256(digest, (const uint8_t *)s, n);
    sodium_bin2base64(expected, sizeof(expected), digest, sizeof(digest),
                      sodium_base64_VARIANT_ORIGINAL);
    s = between(lw_buf_cstr(&out), "script-src 'sha256-", "'", &n);
    assert_int_equal(n, strlen(expected));
    assert_memory_equal(s, expected, n);
    assert_contains(lw_buf_cstr(&out), "file:");
    assert_contains(lw_buf_cstr(&out), "p{}</style>");
}

/* What the program carries is the file, byte for byte, and can stand in an element. */
static void test_embedded(void **state)
{
    static const struct {
        const char *file, *text, *forbidden;
    } files[] = {
        { "orchestrate/html.css", lw_embedded_html_css, "</style" },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(files); i++) {
        const char *root = getenv("LW_SOURCE_ROOT");
        char path[1024];
        char *bytes;
        FILE *f;
        size_t n;

        assert_non_null(root);
        snprintf(path, sizeof(path), "%s/%s", root, files[i].file);
        bytes = malloc(1 << 20);
        f = fopen(path, "rb");
        assert_non_null(f);
        n = fread(bytes, 1, 1 << 20, f);
        fclose(f);
        assert_int_equal(n, strlen(files[i].text));
        assert_memory_equal(bytes, files[i].text, n);
        assert_null(strstr(files[i].text, files[i].forbidden));
        free(bytes);
    }
}

/* A full buffer is a failure that is seen, not a page cut short. */
static void test_full(void **state)
{
    lw_buf small;

    (void)state;
    lw_buf_init(&small, 100);
    lw_html_begin(&small, "t");
    assert_true(small.failed);
    lw_buf_deinit(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),           cmocka_unit_test(test_text_not_utf8),
        cmocka_unit_test(test_text_any_bytes), cmocka_unit_test(test_png),
        cmocka_unit_test(test_json),           cmocka_unit_test(test_json_scalar),
        cmocka_unit_test(test_page),           cmocka_unit_test(test_embedded),
        cmocka_unit_test(test_full),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
