/* Tokenizer files: both forms give the same tokenizer, and damaged or foreign ones are refused. */

#include "encoder-svc/tokenizer.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"

#include "tests/golden/encoder/util.h"

#define TINY "spec/pipeline_tiny/model/tokenizer/"

static char *read_file(const char *path, size_t *ret_n)
{
    FILE *f = fopen(path, "rb");
    char *text = malloc(1 << 20);

    assert_non_null(f);
    assert_non_null(text);
    *ret_n = fread(text, 1, (1 << 20) - 1, f);
    text[*ret_n] = '\0';
    fclose(f);
    return text;
}

static lw_tokenizer *build(const lw_tokenizer_source *src)
{
    lw_tokenizer *t = NULL;
    lw_err err;

    assert_ok(lw_tokenizer_build(src, &t, &err), &err);
    return t;
}

/* tokenizer.json and vocab.json + merges.txt are two ways to say the same. */
static void test_forms_agree(void **state)
{
    size_t n;
    char *merges = read_file(data_path(TINY "merges.txt"), &n);
    lw_tokenizer_source parts = { .label = "parts",
                                  .vocab = load_json(data_path(TINY "vocab.json")),
                                  .config = load_json(data_path(TINY "tokenizer_config.json")),
                                  .merges = merges,
                                  .merges_len = n };
    lw_tokenizer_source whole = { .label = "whole",
                                  .whole = load_json(data_path(TINY "tokenizer.json")) };
    lw_tokenizer *a = build(&parts), *b = build(&whole), *c;

    (void)state;
    assert_int_equal(lw_tokenizer_n_ids(a), 605);
    assert_int_equal(lw_tokenizer_n_ids(b), 605);
    assert_string_equal(lw_tokenizer_digest(a), lw_tokenizer_digest(b));
    assert_int_equal(strlen(lw_tokenizer_digest(a)), 64);
    /* Another added token is another tokenizer. */
    json_array_append_new(json_object_get(whole.whole, "added_tokens"),
                          json_pack("{s:i, s:s}", "id", 605, "content", "<more>"));
    c = build(&whole);
    assert_string_not_equal(lw_tokenizer_digest(a), lw_tokenizer_digest(c));
    lw_tokenizer_destroy(&a);
    lw_tokenizer_destroy(&b);
    lw_tokenizer_destroy(&c);
    lw_tokenizer_destroy(&c);
    json_decref(parts.vocab);
    json_decref(parts.config);
    json_decref(whole.whole);
    free(merges);
}

/* ---- damaged tokenizer.json ------------------------------------------------------------------ */

typedef struct whole_case {
    const char *path; /* of the value to replace, parts divided by '/' */
    const char *json; /* what to put there; NULL = remove it */
    lw_status code;
    const char *names;
} whole_case;

static void replace(json_t *root, const char *path, const char *json)
{
    char part[64];
    const char *slash;

    while ((slash = strchr(path, '/')) != NULL) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        root = json_is_array(root) ? json_array_get(root, (size_t)atoi(part))
                                   : json_object_get(root, part);
        assert_non_null(root);
        path = slash + 1;
    }
    if (!json)
        json_object_del(root, path);
    else if (json_is_array(root))
        json_array_set_new(root, (size_t)atoi(path), json_loads(json, JSON_DECODE_ANY, NULL));
    else
        json_object_set_new(root, path, json_loads(json, JSON_DECODE_ANY, NULL));
}

static void test_damaged_whole(void **state)
{
    static const whole_case cases[] = {
        { "model", NULL, LW_E_FORMAT, "no `model`" },
        { "model", "[]", LW_E_FORMAT, "no `model`" },
        { "model/type", "\"Unigram\"", LW_E_UNIMPLEMENTED, "Unigram, expected BPE" },
        { "model/type", "7", LW_E_UNIMPLEMENTED, "missing, expected BPE" },
        { "model/byte_fallback", "true", LW_E_UNIMPLEMENTED, "byte_fallback" },
        { "model/ignore_merges", "true", LW_E_UNIMPLEMENTED, "ignore_merges" },
        { "normalizer", "null", LW_E_UNIMPLEMENTED, "expected NFC" },
        { "normalizer/type", "\"NFKC\"", LW_E_UNIMPLEMENTED, "NFKC, expected NFC" },
        { "pre_tokenizer", "null", LW_E_UNIMPLEMENTED, "splitting pattern" },
        { "pre_tokenizer/pretokenizers/0/pattern/Regex", "\"\\\\w+\"", LW_E_UNIMPLEMENTED,
          "found \\w+" },
        { "model/vocab", NULL, LW_E_FORMAT, "vocabulary is not an object" },
        { "model/vocab", "{}", LW_E_FORMAT, "vocabulary is not an object" },
        { "model/vocab", "[1, 2]", LW_E_FORMAT, "vocabulary is not an object" },
        { "model/vocab", "{\"a\": 0}", LW_E_FORMAT, "no symbol for byte 0x00" },
        { "model/vocab/a", NULL, LW_E_FORMAT, "no symbol for byte 0x61" },
        { "model/vocab/a", "65", LW_E_FORMAT, "two entries have id 65" },
        { "model/vocab/a", "\"64\"", LW_E_FORMAT, "id of 'a'" },
        { "model/vocab/a", "-1", LW_E_FORMAT, "id of 'a'" },
        { "model/vocab/a", "1048576", LW_E_FORMAT, "id of 'a'" },
        { "model/vocab/a", "99999999999999", LW_E_FORMAT, "id of 'a'" },
        { "model/vocab/a", "1.5", LW_E_FORMAT, "id of 'a'" },
        { "model/vocab/", "700", LW_E_FORMAT, "has 0 bytes" },
        { "model/vocab/unreachable", "700", LW_E_FORMAT, "the first is 'unreachable', 700" },
        { "model/merges", NULL, LW_E_FORMAT, "`merges` is not a list" },
        { "model/merges", "{}", LW_E_FORMAT, "`merges` is not a list" },
        { "model/merges", "[]", LW_E_FORMAT, "made by no merge" },
        { "model/merges/3", "\"ab\"", LW_E_FORMAT, "merge 3 is not two symbols" },
        { "model/merges/3", "\"a b c\"", LW_E_FORMAT, "merge 3 is not two symbols" },
        { "model/merges/3", "\" b\"", LW_E_FORMAT, "merge 3 is not two symbols" },
        { "model/merges/3", "[\"a\"]", LW_E_FORMAT, "merge 3 is not a pair" },
        { "model/merges/3", "[\"a\", 1]", LW_E_FORMAT, "merge 3 is not a pair" },
        { "model/merges/3", "17", LW_E_FORMAT, "merge 3 is not a pair" },
        { "model/merges/3", "[\"nobody\", \"a\"]", LW_E_FORMAT, "'nobody' is not in the vocab" },
        { "model/merges/3", "[\"a\", \"nobody\"]", LW_E_FORMAT, "'nobody' is not in the vocab" },
        { "model/merges/3", "[\"q\", \"q\"]", LW_E_FORMAT, "'qq' is not in the vocab" },
        { "added_tokens/0/content", "\"\"", LW_E_FORMAT, "added token 600" },
        { "added_tokens/0/content", "null", LW_E_FORMAT, "no `content`" },
        { "added_tokens/0/id", "-5", LW_E_FORMAT, "added token -5" },
        { "added_tokens/0/id", "1048576", LW_E_FORMAT, "added token 1048576" },
        { "added_tokens/0/id", "null", LW_E_FORMAT, "added token -1" },
        { "added_tokens/0/id", "602", LW_E_FORMAT, "contradict" },
        { "added_tokens/0/content", "\"<|im_end|>\"", LW_E_FORMAT, "contradict" },
        { "added_tokens/0/id", "7", LW_E_FORMAT, "id 7 of the vocabulary entry" },
        { "added_tokens/0/lstrip", "true", LW_E_UNIMPLEMENTED, "lstrip set" },
        { "added_tokens/0/normalized", "true", LW_E_UNIMPLEMENTED, "normalized set" },
        { "added_tokens/0", "\"x\"", LW_E_FORMAT, "no `content`" },
    };
    json_t *good = load_json(data_path(TINY "tokenizer.json"));

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        lw_tokenizer_source src = { .label = "damaged", .whole = json_deep_copy(good) };
        lw_tokenizer *t = NULL;
        lw_err err = { 0 };
        lw_status st;

        replace(src.whole, cases[i].path, cases[i].json);
        st = lw_tokenizer_build(&src, &t, &err);
        if (st != cases[i].code)
            print_error("case %zu: %s\n", i, cases[i].path);
        assert_error(st, &err, cases[i].code, cases[i].names);
        assert_null(t);
        json_decref(src.whole);
    }
    json_decref(good);
}

/* A token longer than any real one. */
static void test_huge_entries(void **state)
{
    lw_tokenizer_source src = { .label = "huge",
                                .whole = load_json(data_path(TINY "tokenizer.json")) };
    json_t *vocab = json_object_get(json_object_get(src.whole, "model"), "vocab");
    char name[LW_TOKENIZER_MAX_TOKEN_BYTES + 2];
    lw_tokenizer *t = NULL;
    lw_err err;

    (void)state;
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    json_object_set_new(vocab, name, json_integer(900));
    assert_error(lw_tokenizer_build(&src, &t, &err), &err, LW_E_FORMAT, "entry 900 has 1025 bytes");
    json_object_del(vocab, name);
    json_array_append_new(json_object_get(src.whole, "added_tokens"),
                          json_pack("{s:i, s:s}", "id", 900, "content", name));
    assert_error(lw_tokenizer_build(&src, &t, &err), &err, LW_E_FORMAT, "added token 900");
    json_decref(src.whole);
}

/* ---- folders --------------------------------------------------------------------------------- */

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/lw-tokenizer-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    static const char *const names[] = { "tokenizer.json", "vocab.json", "merges.txt",
                                         "tokenizer_config.json", "added_tokens.json" };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(names); i++) {
        char path[128];

        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        remove(path);
    }
    return rmdir(folder);
}

static void write_file(const char *name, const char *text, size_t n)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void copy_file(const char *name)
{
    char from[128];
    size_t n;
    char *text;

    snprintf(from, sizeof from, TINY "%s", name);
    text = read_file(data_path(from), &n);
    write_file(name, text, n);
    free(text);
}

static void check_folder_error(lw_status code, const char *names)
{
    lw_tokenizer *t = NULL;
    lw_err err;

    assert_error(lw_tokenizer_load(folder, &t, &err), &err, code, names);
    assert_null(t);
}

static void check_folder_digest(const char *digest)
{
    lw_tokenizer *t = NULL;
    lw_err err;

    assert_ok(lw_tokenizer_load(folder, &t, &err), &err);
    assert_string_equal(lw_tokenizer_digest(t), digest);
    lw_tokenizer_destroy(&t);
}

static void tiny_digest(char ret[65])
{
    lw_tokenizer *t = NULL;
    lw_err err;

    assert_ok(lw_tokenizer_load(data_path(TINY), &t, &err), &err);
    memcpy(ret, lw_tokenizer_digest(t), 65);
    lw_tokenizer_destroy(&t);
}

static void test_folder_forms(void **state)
{
    char digest[65];
    size_t n;
    char *merges = read_file(data_path(TINY "merges.txt"), &n), *crlf = malloc(2 * n + 1);
    size_t n_crlf = 0;

    (void)state;
    assert_non_null(crlf);
    tiny_digest(digest);
    check_folder_error(LW_E_NOT_FOUND, "looked for tokenizer.json");
    copy_file("vocab.json");
    check_folder_error(LW_E_NOT_FOUND, "looked for tokenizer.json");
    copy_file("merges.txt");
    /* Nothing says what the added tokens are: ids would be wrong without a word. */
    check_folder_error(LW_E_NOT_FOUND, "added_tokens.json");
    copy_file("tokenizer.json");
    check_folder_digest(digest);
    remove_folder(state);
    assert_non_null(mkdtemp(strcpy(folder, "/tmp/lw-tokenizer-XXXXXX")));

    copy_file("vocab.json");
    copy_file("merges.txt");
    write_file("added_tokens.json", "{\"<|endoftext|>\": 600, \"<|im_start|>\": 601, ", 42);
    check_folder_error(LW_E_FORMAT, "added_tokens.json");
    {
        const char *added = "{\"<|endoftext|>\": 600, \"<|im_start|>\": 601, \"<|im_end|>\": 602, "
                            "\"<think>\": 603, \"</think>\": 604}";

        write_file("added_tokens.json", added, strlen(added));
    }
    check_folder_digest(digest);
    copy_file("tokenizer_config.json"); /* the same tokens once more */
    check_folder_digest(digest);

    for (size_t i = 0; i < n; i++) {
        if (merges[i] == '\n')
            crlf[n_crlf++] = '\r';
        crlf[n_crlf++] = merges[i];
    }
    write_file("merges.txt", crlf, n_crlf);
    check_folder_digest(digest);
    free(crlf);
    free(merges);
}

static void test_folder_damaged(void **state)
{
    size_t n;
    char *merges = read_file(data_path(TINY "merges.txt"), &n);
    const char *other = "{\"tokenizer_class\": \"GPT2Tokenizer\", \"added_tokens_decoder\": {}}";
    const char *bad_id = "{\"added_tokens_decoder\": {\"6x\": {\"content\": \"<a>\"}}}";

    (void)state;
    copy_file("vocab.json");
    copy_file("tokenizer_config.json");
    write_file("merges.txt", merges, n / 2);
    check_folder_error(LW_E_FORMAT, ""); /* cut inside a line, or entries that nothing makes */
    write_file("merges.txt", "", 0);
    check_folder_error(LW_E_FORMAT, "are made by no merge");
    write_file("merges.txt", "#version: 0.2\nin g\n", 19);
    check_folder_error(LW_E_FORMAT, "are made by no merge");
    write_file("merges.txt", "\0\0\0\0", 4);
    check_folder_error(LW_E_FORMAT, "merge 0 is not two symbols");
    write_file("merges.txt", "i n\n\xff\xfe x\n", 9);
    check_folder_error(LW_E_FORMAT, "merge 1:");
    write_file("merges.txt", merges, n);
    write_file("vocab.json", "{\"a\": 0, ", 9);
    check_folder_error(LW_E_FORMAT, "vocab.json");
    copy_file("vocab.json");
    write_file("tokenizer_config.json", other, strlen(other));
    check_folder_error(LW_E_UNIMPLEMENTED, "GPT2Tokenizer");
    write_file("tokenizer_config.json", bad_id, strlen(bad_id));
    check_folder_error(LW_E_FORMAT, "added token -1");
    free(merges);
}

/* A file that claims 3 GiB (sparse) is refused by its size, not read. */
static void test_folder_huge(void **state)
{
    char path[128];

    (void)state;
    copy_file("vocab.json");
    copy_file("tokenizer_config.json");
    write_file("merges.txt", "", 0);
    snprintf(path, sizeof path, "%s/merges.txt", folder);
    assert_int_equal(truncate(path, (off_t)3 << 30), 0);
    check_folder_error(LW_E_TOO_LARGE, "merges.txt: 3221225472 bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms_agree),
        cmocka_unit_test(test_damaged_whole),
        cmocka_unit_test(test_huge_entries),
        cmocka_unit_test_setup_teardown(test_folder_forms, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_folder_damaged, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_folder_huge, make_folder, remove_folder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
