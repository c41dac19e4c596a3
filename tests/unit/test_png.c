/* Pictures: libpng reads what we write, we read what we write, damage is named. */

#include "tests/unit/unit.h"

#include <png.h>

#include "common/file.h"
#include "common/png.h"

#define W 37
#define H 21

static uint8_t picture[W * H * 3];

static const lw_png_text texts[] = {
    { "prompt", "a red circle\non blue" },
    { "parameters", "Gr\xc3\xbc\xc3\x9f"
                    "e \xe7\xbe\x8e" },
    { "Software", "" },
};

static int fill_picture(void **state)
{
    (void)state;
    for (int i = 0; i < W * H * 3; i++)
        picture[i] = (uint8_t)(i * 7 + i / 111);
    return 0;
}

static const char *write_picture(void)
{
    const char *path = unit_tmp("p.png");
    lw_err err = { 0 };

    assert_ok(lw_png_write(path, picture, W, H, texts, LW_ARRAY_LEN(texts), &err), &err);
    return path;
}

static void libpng_reads_pixels_and_texts(void **state)
{
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    FILE *f = fopen(write_picture(), "rb");
    png_textp found;
    png_bytepp rows;

    (void)state;
    if (setjmp(png_jmpbuf(png)))
        fail_msg("libpng refused the file");
    png_init_io(png, f);
    png_read_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
    assert_int_equal(png_get_image_width(png, info), W);
    assert_int_equal(png_get_image_height(png, info), H);
    assert_int_equal(png_get_color_type(png, info), PNG_COLOR_TYPE_RGB);
    assert_int_equal(png_get_bit_depth(png, info), 8);
    rows = png_get_rows(png, info);
    for (int y = 0; y < H; y++)
        assert_memory_equal(rows[y], picture + y * W * 3, W * 3);
    assert_int_equal(png_get_text(png, info, &found, NULL), LW_ARRAY_LEN(texts));
    for (size_t i = 0; i < LW_ARRAY_LEN(texts); i++) {
        assert_string_equal(found[i].key, texts[i].keyword);
        assert_string_equal(found[i].text, texts[i].text);
    }
    assert_int_equal(found[0].compression, PNG_TEXT_COMPRESSION_NONE);
    assert_int_equal(found[1].compression, PNG_ITXT_COMPRESSION_NONE);
    png_destroy_read_struct(&png, &info, NULL);
    fclose(f);
}

static void what_is_written_can_be_read(void **state)
{
    const char *path = write_picture();
    lw_png_text *found;
    lw_err err = { 0 };
    uint8_t *rgb;
    lw_arena a;
    int w, h, n;

    (void)state;
    lw_arena_init(&a, "test", 0);
    assert_ok(lw_png_read(path, &a, &rgb, &w, &h, &err), &err);
    assert_int_equal(w, W);
    assert_int_equal(h, H);
    assert_memory_equal(rgb, picture, sizeof(picture));
    assert_ok(lw_png_read_texts(path, &a, &found, &n, &err), &err);
    assert_int_equal(n, LW_ARRAY_LEN(texts));
    for (int i = 0; i < n; i++) {
        assert_string_equal(found[i].keyword, texts[i].keyword);
        assert_string_equal(found[i].text, texts[i].text);
    }
    lw_arena_deinit(&a);
}

static void the_same_input_gives_the_same_bytes(void **state)
{
    lw_err err = { 0 };
    lw_buf one, two;

    (void)state;
    lw_buf_init(&one, 1 << 20);
    lw_buf_init(&two, 1 << 20);
    assert_ok(lw_png_encode(&one, picture, W, H, texts, 3, &err), &err);
    assert_ok(lw_png_encode(&two, picture, W, H, texts, 3, &err), &err);
    assert_int_equal(one.len, two.len);
    assert_memory_equal(one.data, two.data, one.len);
    lw_buf_deinit(&two);
    lw_buf_init(&two, one.len - 1);
    assert_int_equal(lw_png_encode(&two, picture, W, H, texts, 3, &err), LW_E_TOO_LARGE);
    lw_buf_deinit(&two);
    lw_buf_deinit(&one);
}

static void bad_input_is_refused_and_leaves_no_file(void **state)
{
    static const char *const bad_keywords[] = { "", " x", "x ", "a  b", "a\nb", "\xc3\xa9" };
    char long_keyword[81];
    lw_err err = { 0 };
    int before = unit_count_files();

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(bad_keywords); i++)
        assert_int_equal(lw_png_write(unit_tmp("bad.png"), picture, W, H,
                                      &(lw_png_text){ bad_keywords[i], "t" }, 1, &err),
                         LW_E_INVALID);
    memset(long_keyword, 'k', 80);
    long_keyword[80] = '\0';
    assert_int_equal(lw_png_write(unit_tmp("bad.png"), picture, W, H,
                                  &(lw_png_text){ long_keyword, "t" }, 1, &err),
                     LW_E_INVALID);
    assert_int_equal(
        lw_png_write(unit_tmp("bad.png"), picture, W, H, &(lw_png_text){ "k", "\xff" }, 1, &err),
        LW_E_INVALID);
    assert_contains(err.text, "UTF-8");
    assert_int_equal(lw_png_write(unit_tmp("bad.png"), picture, 0, H, NULL, 0, &err), LW_E_INVALID);
    assert_int_equal(lw_png_write(unit_tmp("bad.png"), picture, 16385, 1, NULL, 0, &err),
                     LW_E_INVALID);
    assert_int_equal(lw_png_write(unit_tmp("no/x.png"), picture, W, H, NULL, 0, &err),
                     LW_E_NOT_FOUND);
    assert_int_equal(unit_count_files(), before);
}

/* Every prefix and every changed byte: an error or the right texts, never a crash. */
static void damage_is_an_error(void **state)
{
    char *file = NULL;
    size_t size = 0;
    lw_err err = { 0 };
    lw_png_text *found;
    uint8_t *copy;
    lw_arena a;
    int n;

    (void)state;
    assert_ok(lw_file_read(write_picture(), 1 << 20, &file, &size, &err), &err);
    lw_arena_init(&a, "test", 0);
    for (size_t cut = 0; cut < size; cut++) {
        copy = malloc(cut ? cut : 1); /* of the exact size, so that ASan sees a read behind it */
        memcpy(copy, file, cut);
        assert_int_equal(lw_png_parse_texts(copy, cut, "cut", &a, &found, &n, &err), LW_E_FORMAT);
        free(copy);
        lw_arena_reset(&a);
    }
    copy = malloc(size);
    for (size_t i = 0; i < size; i++) {
        memcpy(copy, file, size);
        copy[i] ^= 0x41;
        assert_int_not_equal(lw_png_parse_texts(copy, size, "flip", &a, &found, &n, &err), LW_OK);
        lw_arena_reset(&a);
    }
    free(copy);
    free(file);
    lw_arena_deinit(&a);
}

static void other_files_are_named(void **state)
{
    lw_err err = { 0 };
    lw_png_text *found;
    uint8_t *rgb = NULL;
    lw_arena a;
    int w, h, n;

    (void)state;
    lw_arena_init(&a, "test", 0);
    assert_int_equal(lw_png_read(unit_tmp("none.png"), &a, &rgb, &w, &h, &err), LW_E_NOT_FOUND);
    assert_int_equal(lw_png_read(unit_write("t.png", "hello", 5), &a, &rgb, &w, &h, &err),
                     LW_E_FORMAT);
    assert_contains(err.text, "not a PNG or JPEG");
    assert_int_equal(lw_png_read_texts(unit_tmp("t.png"), &a, &found, &n, &err), LW_E_FORMAT);
    assert_contains(err.text, "not a PNG");
    assert_null(rgb);
    lw_arena_deinit(&a);
    lw_arena_init(&a, "request", 100);
    assert_int_equal(lw_png_read(write_picture(), &a, &rgb, &w, &h, &err), LW_E_NOMEM);
    lw_arena_deinit(&a);
}

/* Where the chunk of a type begins (its length), in a file that has it. */
static size_t chunk_at(const lw_buf *b, const char *type)
{
    for (size_t i = 12; i + 4 <= b->len; i++)
        if (!memcmp(b->data + i, type, 4))
            return i - 4;
    fail_msg("no chunk %s", type);
    return 0;
}

/* A PNG of libpng's: rows of any kind, with or without Adam7. */
static void write_with_libpng(const char *path, int width, int height, int colour, int interlace)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    FILE *f = fopen(path, "wb");
    uint8_t row[4 * 64];

    if (setjmp(png_jmpbuf(png)))
        fail_msg("libpng cannot write %s", path);
    png_init_io(png, f);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, colour, interlace,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int pass = png_set_interlace_handling(png); pass > 0; pass--)
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < 4 * 64; x++)
                row[x] = (uint8_t)(31 * y + x);
            png_write_row(png, row);
        }
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    fclose(f);
}

/* The bound on what a picture inflates to is that of the format, whoever wrote it. */
static void pictures_of_other_writers_are_read(void **state)
{
    static const int colours[] = { PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_RGB,
                                   PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB_ALPHA };
    const char *path = unit_tmp("other.png");
    lw_err err = { 0 };
    uint8_t *rgb;
    lw_arena a;
    int w, h;

    (void)state;
    lw_arena_init(&a, "test", 0);
    for (int side = 1; side <= 17; side++)
        for (size_t i = 0; i < LW_ARRAY_LEN(colours); i++)
            for (int interlace = 0; interlace < 2; interlace++) {
                write_with_libpng(path, side, 18 - side, colours[i], interlace);
                assert_ok(lw_png_read(path, &a, &rgb, &w, &h, &err), &err);
                assert_int_equal(w, side);
                assert_int_equal(h, 18 - side);
            }
    lw_arena_deinit(&a);
}

static void pixels_beyond_the_size_are_refused(void **state)
{
    static uint8_t large[64 * 64 * 3];
    lw_err err = { 0 };
    lw_buf big, small, crossed;
    uint8_t *rgb;
    lw_arena a;
    int w, h;

    (void)state;
    lw_arena_init(&a, "test", 0);
    lw_buf_init(&big, 1 << 20);
    lw_buf_init(&small, 1 << 20);
    lw_buf_init(&crossed, 1 << 20);
    assert_ok(lw_png_encode(&big, large, 64, 64, NULL, 0, &err), &err);
    assert_ok(lw_png_encode(&small, large, 8, 8, NULL, 0, &err), &err);
    /* The head of the one with the pixels of the other, both ways. */
    for (int i = 0; i < 2; i++) {
        const lw_buf *head = i ? &big : &small, *rows = i ? &small : &big;

        lw_buf_clear(&crossed);
        lw_buf_put(&crossed, head->data, chunk_at(head, "IDAT"));
        lw_buf_put(&crossed, rows->data + chunk_at(rows, "IDAT"),
                   rows->len - chunk_at(rows, "IDAT"));
        assert_int_equal(lw_png_parse(crossed.data, crossed.len, "crossed", &a, &rgb, &w, &h, &err),
                         LW_E_FORMAT);
        assert_contains(err.text, "inflate");
    }
    assert_ok(lw_png_parse(big.data, big.len, "big", &a, &rgb, &w, &h, &err), &err);
    lw_buf_deinit(&big);
    lw_buf_deinit(&small);
    lw_buf_deinit(&crossed);
    lw_arena_deinit(&a);
}

static void one_text_is_found(void **state)
{
    static const lw_png_text twice[] = { { "k", "1" }, { "K", "2" }, { "k", "3" } };
    const char *found = "x";
    lw_err err = { 0 };
    lw_arena a;
    lw_buf png;
    size_t at;

    (void)state;
    lw_arena_init(&a, "test", 1 << 16);
    lw_buf_init(&png, 1 << 20);
    assert_ok(lw_png_encode(&png, picture, W, H, texts, LW_ARRAY_LEN(texts), &err), &err);
    for (size_t i = 0; i < LW_ARRAY_LEN(texts); i++) {
        assert_ok(lw_png_find_text(png.data, png.len, "p", texts[i].keyword, 100, &a, &found, &err),
                  &err);
        assert_string_equal(found, texts[i].text);
    }
    assert_ok(lw_png_find_text(png.data, png.len, "p", "param", 100, &a, &found, &err), &err);
    assert_null(found);
    assert_int_equal(lw_png_find_text(png.data, png.len, "p", "prompt", 10, &a, &found, &err),
                     LW_E_TOO_LARGE);
    /* Made a compressed one; its CRC no longer holds, and that is seen first. */
    at = chunk_at(&png, "tEXt");
    png.data[at + 4] = 'z';
    assert_int_equal(lw_png_find_text(png.data, png.len, "p", "prompt", 100, &a, &found, &err),
                     LW_E_FORMAT);
    assert_contains(err.text, "CRC");
    lw_buf_clear(&png);
    assert_ok(lw_png_encode(&png, picture, W, H, twice, LW_ARRAY_LEN(twice), &err), &err);
    assert_int_equal(lw_png_find_text(png.data, png.len, "p", "k", 100, &a, &found, &err),
                     LW_E_FORMAT);
    assert_contains(err.text, "more than one");
    assert_ok(lw_png_find_text(png.data, png.len, "p", "K", 100, &a, &found, &err), &err);
    assert_string_equal(found, "2");
    lw_buf_deinit(&png);
    lw_arena_deinit(&a);
}

static void the_size_is_read_alone(void **state)
{
    const char *path = unit_tmp("alpha.png");
    char *file = NULL;
    size_t n = 0;
    lw_err err = { 0 };
    int w, h;

    (void)state;
    assert_ok(lw_file_read(write_picture(), 1 << 20, &file, &n, &err), &err);
    assert_ok(lw_png_size((uint8_t *)file, n, "p", &w, &h, &err), &err);
    assert_int_equal(w, W);
    assert_int_equal(h, H);
    assert_int_equal(lw_png_size((uint8_t *)file, 20, "p", &w, &h, &err), LW_E_FORMAT);
    assert_int_equal(lw_png_size((uint8_t *)file, 3, "p", &w, &h, &err), LW_E_FORMAT);
    free(file);
    write_with_libpng(path, 4, 4, PNG_COLOR_TYPE_RGB_ALPHA, 0);
    assert_ok(lw_file_read(path, 1 << 20, &file, &n, &err), &err);
    assert_int_equal(lw_png_size((uint8_t *)file, n, "p", &w, &h, &err), LW_E_FORMAT);
    assert_contains(err.text, "alpha");
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(libpng_reads_pixels_and_texts),
        cmocka_unit_test(what_is_written_can_be_read),
        cmocka_unit_test(the_same_input_gives_the_same_bytes),
        cmocka_unit_test(bad_input_is_refused_and_leaves_no_file),
        cmocka_unit_test(damage_is_an_error),
        cmocka_unit_test(other_files_are_named),
        cmocka_unit_test(pictures_of_other_writers_are_read),
        cmocka_unit_test(pixels_beyond_the_size_are_refused),
        cmocka_unit_test(one_text_is_found),
        cmocka_unit_test(the_size_is_read_alone),
    };

    return cmocka_run_group_tests(tests, fill_picture, NULL);
}
