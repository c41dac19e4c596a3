/* Canvases: clipping is done per pixel or per row, in 64 bits, so that no coordinate is too odd. */

#include "orchestrate/canvas.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/png.h"
#include "common/utf8.h"
#include "orchestrate/font.h"

#define LINE_GAP 2 /* empty rows between lines of text, at scale 1 */

lw_status lw_canvas_init(lw_canvas *c, int width, int height, lw_colour background, lw_err *err)
{
    uint8_t *rgb;

    if (width < 1 || height < 1 || width > LW_PNG_MAX_SIDE || height > LW_PNG_MAX_SIDE)
        return lw_fail(err, LW_E_INVALID, "a picture of %dx%d pixels: each side must be 1 to %d",
                       width, height, LW_PNG_MAX_SIDE);
    rgb = malloc((size_t)width * (size_t)height * 3);
    if (!rgb)
        return lw_fail(err, LW_E_NOMEM, "no memory for a picture of %dx%d pixels", width, height);
    *c = (lw_canvas){ .width = width, .height = height, .rgb = rgb };
    lw_canvas_fill(c, 0, 0, width, height, background);
    return LW_OK;
}

void lw_canvas_deinit(lw_canvas *c)
{
    free(c->rgb);
    *c = (lw_canvas){ 0 };
}

/* ---- pixels ---- */

static void put(uint8_t *p, lw_colour colour)
{
    p[0] = (uint8_t)(colour >> 16);
    p[1] = (uint8_t)(colour >> 8);
    p[2] = (uint8_t)colour;
}

static void put_at(lw_canvas *c, int64_t x, int64_t y, lw_colour colour)
{
    if (x >= 0 && y >= 0 && x < c->width && y < c->height)
        put(c->rgb + (y * c->width + x) * 3, colour);
}

/* What is left of [from, from + n) inside [0, side). */
static void clip(int from, int64_t n, int side, int *ret_from, int *ret_to)
{
    const int64_t to = from + (n > 0 ? n : 0);

    *ret_from = from < 0 ? 0 : from > side ? side : from;
    *ret_to = to < 0 ? 0 : to > side ? side : (int)to;
}

void lw_canvas_fill(lw_canvas *c, int x, int y, int width, int height, lw_colour colour)
{
    int x0, x1, y0, y1;

    clip(x, width, c->width, &x0, &x1);
    clip(y, height, c->height, &y0, &y1);
    for (int i = y0; i < y1; i++)
        for (int j = x0; j < x1; j++)
            put(c->rgb + ((size_t)i * (size_t)c->width + (size_t)j) * 3, colour);
}

void lw_canvas_line(lw_canvas *c, int x0, int y0, int x1, int y1, lw_colour colour)
{
    const int64_t dx = (int64_t)x1 - x0, dy = (int64_t)y1 - y0;
    const int64_t n = llabs(dx) > llabs(dy) ? llabs(dx) : llabs(dy);

    /* Beyond this both ends are far outside any canvas; a plot has no use for such a line. */
    if (n > 8 * (int64_t)LW_PNG_MAX_SIDE)
        return;
    for (int64_t i = 0; i <= n; i++)
        put_at(c, x0 + (n ? (int64_t)floor((double)(dx * i) / (double)n + 0.5) : 0),
               y0 + (n ? (int64_t)floor((double)(dy * i) / (double)n + 0.5) : 0), colour);
}

/*
 * The source pixels of pixel d, when n_from pixels become n_to, and the weight of each. With
 * pixels of n_to units on one side and n_from on the other both pictures are equally long.
 */
typedef struct span {
    int64_t first, last; /* source pixels */
    int64_t start, stop; /* of pixel d in units; used when shrinking */
    int64_t unit;        /* units of a source pixel; 0: growing, the one source pixel counts 1 */
} span;

static span span_of(int64_t d, int64_t n_from, int64_t n_to)
{
    span s = { .first = d * n_from / n_to };

    s.last = s.first;
    if (n_to < n_from) {
        s.start = d * n_from;
        s.stop = s.start + n_from;
        s.unit = n_to;
        s.last = (s.stop - 1) / n_to;
    }
    return s;
}

static int64_t weight(const span *s, int64_t i)
{
    int64_t from, to;

    if (s->unit == 0)
        return 1;
    from = i * s->unit > s->start ? i * s->unit : s->start;
    to = (i + 1) * s->unit < s->stop ? (i + 1) * s->unit : s->stop;
    return to - from;
}

void lw_canvas_picture(lw_canvas *c, int x, int y, int box_width, int box_height,
                       const uint8_t *rgb, int width, int height)
{
    int x0, x1, y0, y1;

    if (box_width < 1 || box_height < 1 || width < 1 || height < 1)
        return;
    clip(x, box_width, c->width, &x0, &x1);
    clip(y, box_height, c->height, &y0, &y1);
    for (int i = y0; i < y1; i++) {
        const span v = span_of((int64_t)i - y, height, box_height);

        for (int j = x0; j < x1; j++) {
            const span h = span_of((int64_t)j - x, width, box_width);
            uint64_t sum[3] = { 0 }, total = 0;

            for (int64_t k = v.first; k <= v.last; k++)
                for (int64_t l = h.first; l <= h.last; l++) {
                    const uint8_t *p = rgb + (k * width + l) * 3;
                    const uint64_t w = (uint64_t)(weight(&v, k) * weight(&h, l));

                    for (int ch = 0; ch < 3; ch++)
                        sum[ch] += w * p[ch];
                    total += w;
                }
            for (int ch = 0; ch < 3; ch++)
                c->rgb[((size_t)i * (size_t)c->width + (size_t)j) * 3 + (size_t)ch] =
                    (uint8_t)((sum[ch] + total / 2) / total);
        }
    }
}

/* ---- text ---- */

static int at_least_1(int scale)
{
    return scale < 1 ? 1 : scale;
}

int lw_canvas_line_height(int scale)
{
    return (LW_GLYPH_HEIGHT + LINE_GAP) * at_least_1(scale);
}

/* Bytes of the character at p; what is not UTF-8 counts byte by byte. */
static size_t char_bytes(const char *p)
{
    const size_t n = lw_utf8_len(p, strnlen(p, 4));

    return n ? n : 1;
}

static const lw_glyph *glyph_of(const char *p, size_t n)
{
    static const uint8_t lead[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
    uint32_t code = (uint8_t)p[0] & lead[n];
    int low = 0, high = lw_font_n_glyphs - 1;

    if (n == 1 && (uint8_t)p[0] >= 0x80)
        return NULL;
    for (size_t i = 1; i < n; i++)
        code = code << 6 | ((uint8_t)p[i] & 0x3f);
    if (code == '\t')
        code = ' ';
    while (low <= high) {
        const int mid = low + (high - low) / 2;

        if (lw_font[mid].code == code)
            return &lw_font[mid];
        if (lw_font[mid].code < code)
            low = mid + 1;
        else
            high = mid - 1;
    }
    return NULL;
}

static void draw_glyph(lw_canvas *c, int64_t x, int64_t y, const lw_glyph *g, int scale,
                       lw_colour colour)
{
    /* An open box from the height of a capital to the base line. */
    static const lw_glyph box = {
        0, { 0, 0, 0xf8, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0xf8, 0, 0 }
    };

    if (!g)
        g = &box;
    for (int row = 0; row < LW_GLYPH_HEIGHT * scale; row++)
        for (int col = 0; col < LW_GLYPH_WIDTH * scale; col++)
            if (g->rows[row / scale] & (0x80 >> col / scale))
                put_at(c, x + col, y + row, colour);
}

/*
 * One line of text of at most max_chars characters (0: any number): where it ends, and where the
 * next begins. Breaks at a line feed, else at the last blank that fits, else within the word.
 */
static const char *break_line(const char *p, int64_t max_chars, const char **ret_next)
{
    const char *blank = NULL;
    int64_t n = 0;

    while (*p && *p != '\n') {
        if (max_chars > 0 && n == max_chars) {
            if (*p != ' ' && blank)
                p = blank;
            *ret_next = p;
            while (**ret_next == ' ')
                ++*ret_next;
            if (**ret_next == '\n') /* the blanks were the end of this line */
                ++*ret_next;
            return p;
        }
        if (*p == ' ')
            blank = p;
        p += char_bytes(p);
        n++;
    }
    *ret_next = *p ? p + 1 : p;
    return p;
}

static int64_t count_chars(const char *p, const char *end)
{
    int64_t n = 0;

    for (; p < end; p += char_bytes(p))
        n++;
    return n;
}

/* n characters further, at most at `end`. */
static const char *skip_chars(const char *p, const char *end, int64_t n)
{
    for (; p < end && n > 0; n--)
        p += char_bytes(p);
    return p;
}

int lw_canvas_text_width(const char *text, int scale)
{
    const int64_t advance = (int64_t)LW_GLYPH_WIDTH * at_least_1(scale);
    int64_t longest = 0;

    for (const char *next = text; *text; text = next) {
        const char *end = break_line(text, 0, &next);
        const int64_t n = count_chars(text, end);

        longest = n > longest ? n : longest;
    }
    return longest * advance > INT32_MAX ? INT32_MAX : (int)(longest * advance);
}

static void draw_line(lw_canvas *c, int64_t x, int64_t y, const char *p, const char *end, int scale,
                      lw_colour colour)
{
    while (p < end && x < c->width) {
        const size_t bytes = char_bytes(p);

        draw_glyph(c, x, y, glyph_of(p, bytes), scale, colour);
        p += bytes;
        x += (int64_t)LW_GLYPH_WIDTH * scale;
    }
}

int lw_canvas_text(lw_canvas *c, int x, int y, const char *text, int scale, lw_colour colour,
                   int max_width, int max_lines)
{
    int64_t max_chars = 0, top = y;
    const char *next = text;
    int n = 0;

    scale = at_least_1(scale);
    if (max_width > 0) {
        max_chars = max_width / (LW_GLYPH_WIDTH * scale);
        max_chars = max_chars > 0 ? max_chars : 1;
    }
    for (; *text; text = next) {
        const char *end = break_line(text, max_chars, &next);
        const bool cut = max_lines > 0 && n + 1 == max_lines && *next;

        if (cut && max_chars > 0)
            end = skip_chars(text, end, max_chars > 3 ? max_chars - 3 : 0);
        while (cut && end > text && end[-1] == ' ')
            end--;
        draw_line(c, x, top, text, end, scale, colour);
        n++;
        if (cut) {
            const int64_t shown = count_chars(text, end), left = max_chars - shown;
            const char *dots = max_chars > 0 && left < 3 ? &"..."[3 - left] : "...";

            draw_line(c, x + shown * LW_GLYPH_WIDTH * scale, top, dots, dots + strlen(dots), scale,
                      colour);
            break;
        }
        top += lw_canvas_line_height(scale);
    }
    return n;
}

/* ---- colours ---- */

/* A point of a scale between n given ones. t is in 0..1. */
static lw_colour between(const lw_colour *points, int n, double t)
{
    const double at = t * (n - 1);
    const int i = at >= n - 1 ? n - 2 : (int)at;
    lw_colour mixed = 0;

    for (int shift = 16; shift >= 0; shift -= 8) {
        const double a = points[i] >> shift & 0xff, b = points[i + 1] >> shift & 0xff;

        mixed |= (lw_colour)(a + (b - a) * (at - i) + 0.5) << shift;
    }
    return mixed;
}

#define GREY 0x808080u

lw_colour lw_colour_scale(double t)
{
    /* Every eighth part of "viridis" by van der Walt and Smith, which is in the public domain
     * (CC0). */
    static const lw_colour points[] = { 0x440154, 0x472d7b, 0x3b528b, 0x2c728e, 0x21918c,
                                        0x28ae80, 0x5ec962, 0xaddc30, 0xfde725 };

    if (isnan(t))
        return GREY;
    return between(points, (int)LW_ARRAY_LEN(points), t < 0 ? 0 : t > 1 ? 1 : t);
}

lw_colour lw_colour_signed(double t)
{
    static const lw_colour points[] = { 0x2166ac, 0x92c5de, 0xffffff, 0xf4a582, 0xb2182b };

    if (isnan(t))
        return GREY;
    return between(points, (int)LW_ARRAY_LEN(points), t < -1 ? 0 : t > 1 ? 1 : (t + 1) / 2);
}

/* ---- files ---- */

lw_status lw_canvas_write(const lw_canvas *c, const char *path, const char *key, const char *text,
                          lw_err *err)
{
    const lw_png_text chunk = { key, text };

    return lw_png_write(path, c->rgb, c->width, c->height, &chunk, key && text ? 1 : 0, err);
}
