/* Canvases: what is drawn, what is cut off, and how text is broken. */

#include "tests/unit/unit.h"

#include <limits.h>
#include <math.h>

#include "common/png.h"
#include "orchestrate/canvas.h"

#define INK   0x102030u
#define PAPER 0xfefdfcu

static lw_colour at(const lw_canvas *c, int x, int y)
{
    const uint8_t *p = c->rgb + (y * c->width + x) * 3;

    return (lw_colour)p[0] << 16 | (lw_colour)p[1] << 8 | p[2];
}

static lw_canvas paper(int width, int height)
{
    lw_canvas c = { 0 };
    lw_err err = { 0 };

    assert_ok(lw_canvas_init(&c, width, height, PAPER, &err), &err);
    return c;
}

/* How many pixels of a box are not paper. */
static int inked(const lw_canvas *c, int x, int y, int width, int height)
{
    int n = 0;

    for (int i = y; i < y + height; i++)
        for (int j = x; j < x + width; j++)
            n += at(c, j, i) != PAPER;
    return n;
}

static void sides_have_limits(void **state)
{
    const int bad[][2] = { { 0, 1 }, { 1, 0 }, { -1, 4 }, { LW_PNG_MAX_SIDE + 1, 1 } };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(bad); i++) {
        lw_canvas c = { 0 };
        lw_err err = { 0 };

        assert_int_equal(lw_canvas_init(&c, bad[i][0], bad[i][1], 0, &err), LW_E_INVALID);
        assert_null(c.rgb);
        lw_canvas_deinit(&c);
    }
}

static void boxes_are_cut_at_the_edges(void **state)
{
    lw_canvas c = paper(8, 6);

    (void)state;
    lw_canvas_fill(&c, 2, 1, 3, 2, INK);
    assert_int_equal(inked(&c, 0, 0, 8, 6), 6);
    assert_int_equal(inked(&c, 2, 1, 3, 2), 6);
    lw_canvas_fill(&c, -5, -5, 6, 6, INK);
    assert_int_equal(at(&c, 0, 0), INK);
    assert_int_equal(inked(&c, 0, 0, 8, 6), 7);
    lw_canvas_fill(&c, 7, 5, INT_MAX, INT_MAX, INK);
    assert_int_equal(inked(&c, 0, 0, 8, 6), 8);
    lw_canvas_fill(&c, INT_MAX, INT_MIN, INT_MAX, INT_MAX, INK);
    lw_canvas_fill(&c, 0, 0, -3, 4, INK);
    lw_canvas_fill(&c, 8, 6, 1, 1, INK);
    assert_int_equal(inked(&c, 0, 0, 8, 6), 8);
    lw_canvas_deinit(&c);
}

static void lines_have_both_ends(void **state)
{
    lw_canvas c = paper(10, 10);

    (void)state;
    lw_canvas_line(&c, 1, 8, 8, 1, INK);
    assert_int_equal(inked(&c, 0, 0, 10, 10), 8);
    for (int i = 1; i < 9; i++)
        assert_int_equal(at(&c, i, 9 - i), INK);
    lw_canvas_line(&c, 0, 0, 0, 0, INK);
    assert_int_equal(at(&c, 0, 0), INK);
    lw_canvas_line(&c, -100, 5, 100, 5, INK);
    assert_int_equal(inked(&c, 0, 5, 10, 1), 10);
    lw_canvas_line(&c, INT_MIN, INT_MIN, INT_MAX, INT_MAX, INK);
    lw_canvas_deinit(&c);
}

static void pictures_shrink_by_averaging(void **state)
{
    /* 3 x 2 to 2 x 1: each pixel is one and a half columns of both rows. */
    const uint8_t rgb[] = {
        0, 90, 255, 60, 90, 255, 240, 90, 255, 0, 90, 0, 60, 90, 0, 240, 90, 0
    };
    lw_canvas c = paper(4, 3);

    (void)state;
    lw_canvas_picture(&c, 1, 1, 2, 1, rgb, 3, 2);
    /* (0 + 60 / 2) / 1.5 = 20; (60 / 2 + 240) / 1.5 = 180; 127.5 is rounded up */
    assert_int_equal(at(&c, 1, 1), 20 << 16 | 90 << 8 | 128);
    assert_int_equal(at(&c, 2, 1), 180 << 16 | 90 << 8 | 128);
    assert_int_equal(inked(&c, 0, 0, 4, 3), 2);
    lw_canvas_deinit(&c);
}

static void pictures_grow_by_repeating(void **state)
{
    const uint8_t rgb[] = { 1, 2, 3, 4, 5, 6 };
    lw_canvas c = paper(6, 4);

    (void)state;
    lw_canvas_picture(&c, -1, 0, 6, 3, rgb, 2, 1); /* the first column is outside */
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 5; x++)
            assert_int_equal(at(&c, x, y), x < 2 ? 0x010203 : 0x040506);
    assert_int_equal(inked(&c, 0, 0, 6, 4), 15);
    lw_canvas_picture(&c, 0, 0, 0, 5, rgb, 2, 1);
    lw_canvas_picture(&c, INT_MAX, INT_MIN, 5, 5, rgb, 2, 1);
    assert_int_equal(inked(&c, 0, 0, 6, 4), 15);
    lw_canvas_deinit(&c);
}

static void letters_are_drawn(void **state)
{
    lw_canvas c = paper(60, 20), twice = paper(60, 40);

    (void)state;
    assert_int_equal(lw_canvas_text_width("ab", 1), 12);
    assert_int_equal(lw_canvas_text_width("a\xc3\xa4\nabc", 2), 36); /* the longest line */
    assert_int_equal(lw_canvas_text_width("", 1), 0);
    assert_int_equal(lw_canvas_text(&c, 3, 2, "L", 1, INK, 0, 0), 1);
    assert_int_equal(inked(&c, 0, 0, 60, 20), 9 + 4); /* a stem of 9, a foot of 4 more */
    for (int y = 0; y < 9; y++)
        assert_int_equal(at(&c, 3, 4 + y), INK);
    assert_int_equal(lw_canvas_text(&twice, 3, 2, "L", 2, INK, 0, 0), 1);
    assert_int_equal(inked(&twice, 0, 0, 60, 40), 4 * 13);
    assert_int_equal(lw_canvas_text(&c, 0, 0, "", 1, INK, 0, 0), 0);
    lw_canvas_deinit(&c);
    lw_canvas_deinit(&twice);
}

static void unknown_characters_are_boxes(void **state)
{
    /* CJK, a lone continuation byte, a cut sequence, a control character. */
    static const char *const texts[] = { "\xe7\xbe\x8e", "\x80", "\xe7\xbe", "\x01",
                                         "\xf0\x9f\x98\x80" };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(texts); i++) {
        lw_canvas c = paper(24, 16);

        lw_canvas_text(&c, 0, 0, texts[i], 1, INK, 0, 0);
        assert_int_equal(inked(&c, 0, 0, 6, 16), 2 * 5 + 2 * 7);
        lw_canvas_deinit(&c);
    }
}

static void text_breaks_between_words(void **state)
{
    lw_canvas c = paper(60, 80);

    (void)state;
    assert_int_equal(lw_canvas_text(&c, 0, 0, "one two six", 1, INK, 42, 0), 2);
    assert_int_equal(inked(&c, 42, 0, 18, 80), 0);
    assert_true(inked(&c, 24, 0, 18, 13) > 0);                       /* "two" on line 1 */
    assert_true(inked(&c, 0, lw_canvas_line_height(1), 18, 13) > 0); /* "six" on line 2 */
    assert_int_equal(inked(&c, 18, lw_canvas_line_height(1), 42, 60), 0);
    assert_int_equal(lw_canvas_text(&c, 0, 0, "one\n\ntwo", 1, INK, 0, 0), 3);
    assert_int_equal(lw_canvas_text(&c, 0, 0, "abcdefghij", 1, INK, 24, 0), 3); /* 4, 4, 2 */
    assert_int_equal(lw_canvas_text(&c, 0, 0, "abcd efgh", 1, INK, 24, 0), 2);
    assert_int_equal(lw_canvas_text(&c, 0, 0, "abcd \nefgh", 1, INK, 24, 0), 2);
    assert_int_equal(lw_canvas_text(&c, 0, 0, "ab", 1, INK, 1, 0), 2); /* a character at least */
    lw_canvas_deinit(&c);
}

/* Both canvases have the same ink. */
static bool same(const lw_canvas *a, const lw_canvas *b)
{
    return memcmp(a->rgb, b->rgb, (size_t)a->width * (size_t)a->height * 3) == 0;
}

static void cut_text_ends_in_dots(void **state)
{
    static const struct {
        const char *text, *shown;
        int max_width, max_lines;
    } cases[] = {
        { "one two six", "one...", 42, 1 },       /* "one two" loses three letters and the blank */
        { "one two six", "one two\nsix", 42, 2 }, /* nothing is cut */
        { "a b c d e f", "a b\nc...", 24, 2 },
        { "one\ntwo", "one...", 0, 1 },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        lw_canvas a = paper(60, 40), b = paper(60, 40);

        lw_canvas_text(&a, 0, 0, cases[i].text, 1, INK, cases[i].max_width, cases[i].max_lines);
        lw_canvas_text(&b, 0, 0, cases[i].shown, 1, INK, 0, 0);
        if (!same(&a, &b))
            fail_msg("\"%s\" in %d is not shown as \"%s\"", cases[i].text, cases[i].max_width,
                     cases[i].shown);
        lw_canvas_deinit(&a);
        lw_canvas_deinit(&b);
    }
}

static void scales_have_ends_and_a_middle(void **state)
{
    (void)state;
    assert_int_equal(lw_colour_scale(0), 0x440154);
    assert_int_equal(lw_colour_scale(-3), 0x440154);
    assert_int_equal(lw_colour_scale(0.5), 0x21918c);
    assert_int_equal(lw_colour_scale(1), 0xfde725);
    assert_int_equal(lw_colour_scale((double)INFINITY), 0xfde725);
    assert_int_equal(lw_colour_scale((double)NAN), 0x808080);
    assert_int_equal(lw_colour_signed(0), 0xffffff);
    assert_int_equal(lw_colour_signed(-2), 0x2166ac);
    assert_int_equal(lw_colour_signed(1), 0xb2182b);
    assert_int_equal(lw_colour_signed((double)NAN), 0x808080);
}

static void written_as_png(void **state)
{
    const char *path = unit_tmp("c.png");
    lw_canvas c = paper(5, 4);
    lw_err err = { 0 };
    lw_png_text *texts;
    lw_arena a;
    uint8_t *rgb;
    int width, height, n;

    (void)state;
    lw_canvas_fill(&c, 1, 1, 2, 2, INK);
    assert_ok(lw_canvas_write(&c, path, "title", "a plot", &err), &err);
    lw_arena_init(&a, "test", 0);
    assert_ok(lw_png_read(path, &a, &rgb, &width, &height, &err), &err);
    assert_int_equal(width, 5);
    assert_int_equal(height, 4);
    assert_memory_equal(rgb, c.rgb, 60);
    assert_ok(lw_png_read_texts(path, &a, &texts, &n, &err), &err);
    assert_int_equal(n, 1);
    assert_string_equal(texts[0].text, "a plot");
    assert_ok(lw_canvas_write(&c, path, NULL, NULL, &err), &err);
    assert_ok(lw_png_read_texts(path, &a, &texts, &n, &err), &err);
    assert_int_equal(n, 0);
    lw_arena_deinit(&a);
    lw_canvas_deinit(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sides_have_limits),
        cmocka_unit_test(boxes_are_cut_at_the_edges),
        cmocka_unit_test(lines_have_both_ends),
        cmocka_unit_test(pictures_shrink_by_averaging),
        cmocka_unit_test(pictures_grow_by_repeating),
        cmocka_unit_test(letters_are_drawn),
        cmocka_unit_test(unknown_characters_are_boxes),
        cmocka_unit_test(text_breaks_between_words),
        cmocka_unit_test(cut_text_ends_in_dots),
        cmocka_unit_test(scales_have_ends_and_a_middle),
        cmocka_unit_test(written_as_png),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
