/* The safetensors reader against good, damaged and hostile files; the writer against the reader. */

#include "tests/unit/unit.h"

#include "common/file.h"
#include "common/safetensors.h"

/* A file of its exact size on the heap, so that the sanitizer sees any read beside it. */
typedef struct image {
    uint8_t *bytes;
    size_t size;
} image;

static image make(const char *header, size_t header_bytes, size_t data_bytes)
{
    image m = { malloc(8 + header_bytes + data_bytes), 8 + header_bytes + data_bytes };

    for (int i = 0; i < 8; i++)
        m.bytes[i] = (uint8_t)((uint64_t)header_bytes >> (8 * i));
    memcpy(m.bytes + 8, header, header_bytes);
    for (size_t i = 0; i < data_bytes; i++)
        m.bytes[8 + header_bytes + i] = (uint8_t)i;
    return m;
}

static lw_status open_image(image m, lw_st_file **ret, lw_err *err)
{
    return lw_st_open_memory(m.bytes, m.size, "test.safetensors", ret, err);
}

/* Touch everything that a view promises. */
static void read_everything(const lw_st_file *f)
{
    volatile uint8_t sink = 0;

    for (size_t i = 0; i < f->n_entries; i++) {
        const uint8_t *p = f->entries[i].t.data;
        size_t n = lw_tensor_bytes(&f->entries[i].t);

        assert_ptr_equal(lw_st_find(f, f->entries[i].name), &f->entries[i]);
        for (size_t j = 0; j < n; j++)
            sink = (uint8_t)(sink + p[j]);
    }
    for (size_t i = 0; i < f->n_metadata; i++)
        assert_non_null(lw_st_metadata(f, f->metadata[i].key));
}

/* The header must be refused with this status and a message that holds `text`. */
static void assert_refused_as(lw_status want, const char *header, size_t n, size_t data_bytes,
                              const char *text)
{
    image m = make(header, n, data_bytes);
    lw_st_file *f = NULL;
    lw_err err = { 0 };
    lw_status status = open_image(m, &f, &err);

    if (status != want || err.code != want || strstr(err.text, text) == NULL)
        fail_msg("%.200s: got %s \"%s\", expected %s \"%s\"", header, lw_status_name(status),
                 err.text, lw_status_name(want), text);
    assert_contains(err.text, "test.safetensors");
    assert_null(f);
    free(m.bytes);
}

static void assert_refused(const char *header, size_t data_bytes, const char *text)
{
    assert_refused_as(LW_E_FORMAT, header, strlen(header), data_bytes, text);
}

#define T(name, dtype, shape, begin, end)                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" begin "," end \
    "]}"

static const char good[] =
    "{\"__metadata__\":{\"format\":\"pt\",\"b\":\"\"}," T("b", "F32", "2,3", "0", "24") "," T(
        "a", "BF16", "5", "24", "34") "," T("none", "I64", "0,7", "24",
                                            "24") "," T("scalar", "U8", "", "34", "35") "}   ";

static void a_good_file_is_read(void **state)
{
    image m = make(good, strlen(good), 35);
    lw_st_file *f = NULL;
    lw_err err = { 0 };

    (void)state;
    assert_ok(open_image(m, &f, &err), &err);
    assert_int_equal(f->n_entries, 4);
    assert_string_equal(f->entries[0].name, "a");
    assert_string_equal(f->entries[3].name, "scalar");
    assert_int_equal(f->entries[0].t.dtype, LW_BF16);
    assert_int_equal(f->entries[1].t.shape[1], 3);
    assert_int_equal(((uint8_t *)f->entries[0].t.data)[0], 24);
    assert_int_equal(f->entries[3].t.rank, 0);
    assert_int_equal(lw_tensor_bytes(&lw_st_find(f, "none")->t), 0);
    assert_string_equal(lw_st_metadata(f, "format"), "pt");
    assert_string_equal(f->metadata[0].key, "format");
    assert_string_equal(lw_st_metadata(f, "b"), "");
    assert_null(lw_st_metadata(f, "c"));
    assert_null(lw_st_find(f, "missing"));
    read_everything(f);
    lw_st_close(&f);
    assert_null(f);
    lw_st_close(&f); /* safe on NULL */
    free(m.bytes);

    m = make("{}", 2, 0);
    assert_ok(open_image(m, &f, &err), &err);
    assert_int_equal(f->n_entries, 0);
    assert_null(lw_st_find(f, "a"));
    lw_st_close(&f);
    free(m.bytes);
}

static void lying_headers_are_refused(void **state)
{
    (void)state;
    assert_refused("", 0, "does not start with '{'");
    assert_refused("[]", 0, "does not start with '{'");
    assert_refused(" {}", 0, "does not start with '{'");
    assert_refused("{} x", 0, "header: line 1");
    assert_refused("{\"a\":1}", 0, "\"a\" is not described by an object");
    assert_refused("{\"a\":{}}", 0, "no dtype");
    assert_refused("{\"a\":{\"dtype\":7,\"shape\":[],\"data_offsets\":[0,0]}}", 0, "no dtype");
    assert_refused("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,0]}}", 0, "no shape");
    assert_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":{},\"data_offsets\":[0,0]}}", 0,
                   "no shape");
    assert_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[0]}}", 0, "not two integers");
    assert_refused("{" T("a", "Q4_K", "1", "0", "4") "}", 4, "unknown dtype \"Q4_K\"");
    assert_refused("{" T("a", "f32", "1", "0", "4") "}", 4, "unknown dtype");
    assert_refused("{" T("a", "F32", "-1", "0", "4") "}", 4, "negative");
    assert_refused("{" T("a", "F32", "1.0", "0", "4") "}", 4, "no integer");
    assert_refused("{" T("a", "F32", "\"1\"", "0", "4") "}", 4, "no integer");
    assert_refused("{" T("a", "F32", "99999999999999999999", "0", "4") "}", 4, "too big");
    assert_refused("{" T("a", "F32", "4294967296,4294967296", "0", "4") "}", 4, "more bytes");
    assert_refused("{" T("a", "F32", "9223372036854775807,9223372036854775807,0", "0", "0") "}", 0,
                   "more bytes");
    assert_refused("{" T("a", "F32", "1,1,1,1,1,1,1,1,1", "0", "4") "}", 4, "9 dimensions");
    assert_refused("{" T("a", "F32", "1", "0", "4,4") "}", 4, "not two integers");
    assert_refused("{" T("a", "F32", "1", "0.0", "4") "}", 4, "not two integers");
    assert_refused("{" T("a", "F32", "1", "-4", "0") "}", 4, "outside");
    assert_refused("{" T("a", "F32", "1", "4", "0") "}", 4, "outside");
    assert_refused("{" T("a", "F32", "1", "4", "8") "}", 4, "outside");
    assert_refused("{" T("a", "F32", "1073741824", "0", "4294967296") "}", 4, "outside");
    assert_refused("{" T("a", "F32", "1", "0", "9223372036854775807") "}", 4, "outside");
    assert_refused("{" T("a", "F32", "2", "0", "4") "}", 4, "need 8");
    assert_refused("{" T("a", "F32", "1", "0", "4") "," T("b", "F32", "1", "2", "6") "}", 6,
                   "\"a\" and \"b\" overlap");
    assert_refused("{" T("a", "F32", "1", "0", "4") "," T("b", "F32", "1", "0", "4") "}", 4,
                   "overlap");
    assert_refused("{" T("a", "F32", "1", "4", "8") "}", 8, "4 bytes before tensor \"a\"");
    assert_refused("{" T("a", "F32", "1", "0", "4") "," T("b", "F32", "1", "6", "10") "}", 10,
                   "2 bytes before tensor \"b\"");
    assert_refused("{" T("a", "F32", "1", "0", "4") "}", 7, "3 bytes at its end");
    assert_refused("{}", 1, "1 bytes at its end");
    assert_refused("{" T("a", "F32", "1", "0", "4") "," T("a", "F32", "1", "4", "8") "}", 8,
                   "duplicate");
    assert_refused("{" T("a", "F32", "0", "0", "0") "," T("a", "F32", "0", "0", "0") "}", 0,
                   "duplicate");
    assert_refused("{" T("", "F32", "1", "0", "4") "}", 4, "empty name");
    assert_refused("{" T("a\\n", "F32", "1", "0", "4") "}", 4, "control characters");
    assert_refused("{" T("a\\u0000", "F32", "1", "0", "4") "}", 4, "header: line 1");
    assert_refused("{" T("a\xff", "F32", "1", "0", "4") "}", 4, "header: line 1");
    assert_refused("{" T("\xed\xa0\x80", "F32", "1", "0", "4") "}", 4, "header: line 1");
    assert_refused("{\"__metadata__\":[]}", 0, "__metadata__ is not an object");
    assert_refused("{\"__metadata__\":{\"a\":1}}", 0, "no text");
    assert_refused("{\"a\":[[[1]]]}", 0, "too deeply");
}

static void types_without_use_are_told_apart(void **state)
{
    static const char *const names[] = { "BOOL", "F64", "U16", "U32", "U64", "I16", "F8_E8M0" };
    char header[200];

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(names); i++) {
        snprintf(header, sizeof(header), "{" T("x.weight", "%s", "1", "0", "8") "}", names[i]);
        assert_refused_as(LW_E_UNIMPLEMENTED, header, strlen(header), 8, "\"x.weight\"");
    }
}

static void header_lengths_are_checked(void **state)
{
    static const uint64_t lengths[] = {
        3,         100,        LW_ST_MAX_HEADER_BYTES, 1ull << 32, (1ull << 32) + 2,
        INT64_MAX, UINT64_MAX, UINT64_MAX - 7
    };
    image m = make("{}", 2, 0);
    lw_st_file *f = NULL;
    lw_err err = { 0 };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(lengths); i++) {
        for (int b = 0; b < 8; b++)
            m.bytes[b] = (uint8_t)(lengths[i] >> (8 * b));
        assert_int_equal(open_image(m, &f, &err), LW_E_FORMAT);
    }
    for (size_t n = 0; n < 8; n++) {
        m.size = n;
        assert_int_equal(open_image(m, &f, &err), LW_E_FORMAT);
        assert_contains(err.text, "too few");
    }
    assert_int_equal(lw_st_open_memory(NULL, 0, "x", &f, &err), LW_E_FORMAT);
    free(m.bytes);
}

static void bombs_are_cheap_to_refuse(void **state)
{
    const size_t n = 8u << 20;
    char *text = malloc(n), name[LW_ST_MAX_NAME_BYTES + 2], header[1200];
    lw_st_file *f = NULL;
    lw_err err = { 0 };
    image m;

    (void)state;
    memset(text, '[', n);
    text[0] = '{';
    assert_refused_as(LW_E_FORMAT, text, n, 0, "too deeply");
    memset(text, ',', n); /* eight million values would be hundreds of megabytes of tree */
    memcpy(text, "{\"a\":[0", 7);
    assert_refused_as(LW_E_FORMAT, text, n, 0, "more values");
    memset(text, 'x', n); /* an endless string is no structure */
    memcpy(text, "{\"", 2);
    assert_refused_as(LW_E_FORMAT, text, n, 0, "header: line 1");
    text[n - 1] = '\\'; /* an escape at the very end must not be looked behind */
    assert_refused_as(LW_E_FORMAT, text, n, 0, "header: line 1");
    free(text);

    memset(name, 'n', sizeof(name));
    name[LW_ST_MAX_NAME_BYTES + 1] = '\0';
    snprintf(header, sizeof(header), "{" T("%s", "F32", "1", "0", "4") "}", name);
    assert_refused(header, 4, "too long");
    name[LW_ST_MAX_NAME_BYTES] = '\0';
    snprintf(header, sizeof(header), "{" T("%s", "F32", "1", "0", "4") "}", name);
    m = make(header, strlen(header), 4);
    assert_ok(open_image(m, &f, &err), &err);
    assert_non_null(lw_st_find(f, name));
    lw_st_close(&f);
    free(m.bytes);
}

static void every_truncation_is_refused(void **state)
{
    image whole = make(good, strlen(good), 35);
    lw_st_file *f = NULL;
    lw_err err = { 0 };

    (void)state;
    for (size_t n = 0; n < whole.size; n++) {
        image cut = { malloc(n ? n : 1), n };

        memcpy(cut.bytes, whole.bytes, n);
        assert_int_equal(open_image(cut, &f, &err), LW_E_FORMAT);
        assert_null(f);
        free(cut.bytes);
    }
    free(whole.bytes);
}

/* Seeded mutations: bytes changed, removed, doubled, numbers replaced by interesting ones. Whatever
 * is accepted must be readable to the last byte. */
static void mutations_never_crash(void **state)
{
    static const char *const numbers[] = {
        "0", "-1", "1", "34", "4294967296", "9223372036854775807", "1e9", "null", "[]", "\"\"", "{}"
    };
    const size_t n = strlen(good);
    uint32_t x = 2024;
    int accepted = 0;

    (void)state;
    for (int round = 0; round < 6000; round++) {
        char text[600];
        size_t len = n;
        lw_st_file *f = NULL;
        lw_err err = { 0 };
        lw_status status;
        image m;

        memcpy(text, good, n + 1);
        for (int edits = 1 + round % 3; edits > 0; edits--) {
            size_t at;

            x = x * 1664525 + 1013904223;
            at = (x >> 8) % len;
            switch (x >> 30) {
            case 0:
                text[at] = (char)(x >> 16);
                break;
            case 1:
                memmove(text + at, text + at + 1, len - at);
                len--;
                break;
            case 2:
                text[at] ^= (char)(1 << ((x >> 20) & 7));
                break;
            default: {
                const char *number = numbers[(x >> 20) % LW_ARRAY_LEN(numbers)];
                size_t k = strlen(number);

                while (at < len && (text[at] < '0' || text[at] > '9'))
                    at++;
                if (at == len || len + k >= sizeof(text))
                    break;
                memmove(text + at + k, text + at + 1, len - at);
                memcpy(text + at, number, k);
                len += k - 1;
            }
            }
        }
        m = make(text, len, 35);
        status = open_image(m, &f, &err);
        if (status == LW_OK) {
            read_everything(f);
            accepted++;
        } else {
            assert_true(status == LW_E_FORMAT || status == LW_E_UNIMPLEMENTED);
            assert_null(f);
            assert_true(strlen(err.text) > 10);
        }
        lw_st_close(&f);
        free(m.bytes);
    }
    assert_in_range(accepted, 1, 5000); /* both outcomes occur, so the mutations mean something */
}

static void files_are_mapped(void **state)
{
    image m = make(good, strlen(good), 35);
    const char *path = unit_write("good.safetensors", m.bytes, m.size);
    lw_st_file *f = NULL;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_st_open(path, &f, &err), &err);
    assert_string_equal(f->path, path);
    read_everything(f);
    lw_st_close(&f);
    assert_int_equal(lw_st_open(unit_tmp("none"), &f, &err), LW_E_NOT_FOUND);
    assert_int_equal(lw_st_open(unit_tmp(""), &f, &err), LW_E_FORMAT);
    assert_contains(err.text, "a folder");
    assert_int_equal(lw_st_open("/dev/zero", &f, &err), LW_E_FORMAT);
    assert_int_equal(lw_st_open(unit_write("e", "", 0), &f, &err), LW_E_FORMAT);
    assert_null(f);
    free(m.bytes);
}

static void what_is_written_can_be_read(void **state)
{
    float m[3][4] = { { 1, 2, 3, 4 }, { 5, 6, 7, 8 }, { 9, 10, 11, 12 } };
    uint8_t bytes[3] = { 7, 8, 9 };
    uint16_t half[5] = { 1, 2, 3, 4, 5 };
    lw_tensor whole = lw_tensor_2d(m, LW_F32, 3, 4);
    const lw_st_entry entries[] = {
        { "z.bytes", lw_tensor_1d(bytes, LW_U8, 3) },
        { "columns", lw_tensor_cols(&whole, 1, 2) },
        { "half \xc3\xa9 \"q\"", lw_tensor_1d(half, LW_F16, 5) },
        { "a.none", lw_tensor_2d(NULL, LW_F32, 0, 4) },
        { "whole", whole },
        { "scalar", lw_tensor_nd(m, LW_F32, 0, NULL) },
    };
    const lw_st_meta meta[] = { { "format", "pt" }, { "note", "line\n\"two\"" } };
    static const float want[] = { 2, 3, 6, 7, 10, 11 };
    const char *path = unit_tmp("w.safetensors"), *again = unit_tmp("w2.safetensors");
    char *one = NULL, *two = NULL;
    size_t n_one = 0, n_two = 0;
    lw_st_file *f = NULL;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_st_write(path, entries, LW_ARRAY_LEN(entries), meta, 2, &err), &err);
    assert_ok(lw_st_open(path, &f, &err), &err);
    assert_int_equal(f->n_entries, LW_ARRAY_LEN(entries));
    assert_string_equal(lw_st_metadata(f, "note"), "line\n\"two\"");
    assert_memory_equal(lw_st_find(f, "columns")->t.data, want, sizeof(want));
    assert_memory_equal(lw_st_find(f, "z.bytes")->t.data, bytes, 3);
    assert_memory_equal(lw_st_find(f, "half \xc3\xa9 \"q\"")->t.data, half, 10);
    assert_int_equal(lw_st_find(f, "a.none")->t.shape[1], 4);
    assert_int_equal(lw_st_find(f, "scalar")->t.rank, 0);
    for (size_t i = 0; i < f->n_entries; i++) /* ready to be used as it is mapped */
        assert_int_equal((uintptr_t)f->entries[i].t.data % lw_dtype_size(f->entries[i].t.dtype), 0);
    /* Written again from the views, in another order: the same bytes. */
    assert_ok(lw_st_write(again, f->entries, f->n_entries, meta, 2, &err), &err);
    lw_st_close(&f);
    assert_ok(lw_file_read(path, 1 << 20, &one, &n_one, &err), &err);
    assert_ok(lw_file_read(again, 1 << 20, &two, &n_two, &err), &err);
    assert_int_equal(n_one, n_two);
    assert_memory_equal(one, two, n_one);
    free(one);
    free(two);
}

/* Fills with the index; fails at the index in *arg. */
static lw_status make_bytes(void *arg, size_t index, void *data, lw_err *err)
{
    assert_int_equal((uintptr_t)data % 64, 0);
    if (index == *(size_t *)arg)
        return lw_fail(err, LW_E_FORMAT, "number %zu cannot be made", index);
    memset(data, (int)index, index == 1 ? 128 : 192);
    return LW_OK;
}

/* Packed weights are used where they are mapped, which asks for more than the alignment of a byte;
 * and they are made one by one. */
static void packed_bytes_are_aligned_and_made(void **state)
{
    float v[3] = { 1, 2, 3 };
    const lw_st_entry entries[] = { { "a.vector", lw_tensor_1d(v, LW_F32, 3) },
                                    { "b.packed", lw_tensor_1d(NULL, LW_U8, 128) },
                                    { "c.vector", lw_tensor_1d(v, LW_F32, 1) },
                                    { "d.packed", lw_tensor_1d(NULL, LW_U8, 192) } };
    const char *path = unit_tmp("packed.safetensors"), *other = unit_tmp("failed.safetensors");
    size_t fails_at = SIZE_MAX;
    lw_st_file *f = NULL;
    lw_err err = { 0 };
    int files;

    (void)state;
    assert_ok(lw_st_write_made(path, entries, 4, NULL, 0, make_bytes, &fails_at, &err), &err);
    assert_ok(lw_st_open(path, &f, &err), &err);
    for (size_t i = 0; i < 4; i++) {
        const lw_tensor *t = &lw_st_find(f, entries[i].name)->t;

        if (t->dtype == LW_F32) {
            assert_memory_equal(t->data, v, lw_tensor_bytes(t));
            continue;
        }
        assert_int_equal((uintptr_t)t->data % 64, 0);
        for (int64_t k = 0; k < t->shape[0]; k++)
            assert_int_equal(((const uint8_t *)t->data)[k], i);
    }
    lw_st_close(&f);
    files = unit_count_files();
    fails_at = 3;
    assert_int_equal(lw_st_write_made(other, entries, 4, NULL, 0, make_bytes, &fails_at, &err),
                     LW_E_FORMAT);
    assert_int_equal(unit_count_files(), files);
}

static void what_cannot_be_written_is_named(void **state)
{
    float v[4] = { 0 };
    lw_tensor t = lw_tensor_1d(v, LW_F32, 4);
    const char *path = unit_tmp("x.safetensors");
    int before = unit_count_files();
    lw_st_entry twice[] = { { "a", t }, { "b", t }, { "a", t } };
    lw_err err = { 0 };

    (void)state;
    assert_int_equal(lw_st_write(path, twice, 3, NULL, 0, &err), LW_E_INVALID);
    assert_contains(err.text, "\"a\" is given twice");
    static const char *const names[] = { "", "__metadata__", "a\n", "\xff" };
    for (size_t i = 0; i < LW_ARRAY_LEN(names); i++)
        assert_int_equal(lw_st_write(path, &(lw_st_entry){ names[i], t }, 1, NULL, 0, &err),
                         LW_E_INVALID);
    assert_int_equal(lw_st_write(path, &(lw_st_entry){ "absent", { 0 } }, 1, NULL, 0, &err),
                     LW_E_INVALID);
    assert_contains(err.text, "\"absent\"");
    assert_int_equal(lw_st_write(path, twice, 1, &(lw_st_meta){ "k", "\xff" }, 1, &err),
                     LW_E_INVALID);
    assert_int_equal(lw_st_write(unit_tmp("no/x"), twice, 1, NULL, 0, &err), LW_E_NOT_FOUND);
    assert_int_equal(unit_count_files(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file_is_read),
        cmocka_unit_test(lying_headers_are_refused),
        cmocka_unit_test(types_without_use_are_told_apart),
        cmocka_unit_test(header_lengths_are_checked),
        cmocka_unit_test(bombs_are_cheap_to_refuse),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(mutations_never_crash),
        cmocka_unit_test(files_are_mapped),
        cmocka_unit_test(what_is_written_can_be_read),
        cmocka_unit_test(packed_bytes_are_aligned_and_made),
        cmocka_unit_test(what_cannot_be_written_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
