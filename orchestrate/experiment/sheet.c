/* The contact sheet of an experiment: blocks of a grid, each with its labels. */

#include "orchestrate/experiment/sheet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/png.h"
#include "common/utf8.h"
#include "orchestrate/canvas.h"
#include "orchestrate/experiment/outcome.h"

#define MARGIN      20
#define GAP         4  /* between pictures */
#define BLOCK_GAP   28 /* between blocks */
#define PAD         8  /* between a label and what it names */
#define LABEL_LINES 4
#define MAX_LABEL   200 /* width of the labels of rows */
#define MAX_CELL    512
#define MIN_CELL    8
#define GOOD_CELL   128 /* smaller pictures grow by a whole factor towards this */
#define MAX_PIXELS  ((int64_t)64 << 20)
#define MAX_ACROSS  64
#define GOOD_SHAPE  1.5 /* width by height, which blocks are set side by side for */
#define TITLE_SCALE 2

#define BACKGROUND 0xffffff
#define INK        0x1c2126
#define FAINT      0x5a646e
#define EMPTY      0xeef0f1
#define FAILED     0xfbe9e7
#define FAILED_INK 0xa8281f

/* Where everything goes. */
typedef struct layout {
    const lw_outcome *o;
    int row_axis, column_axis; /* -1: none */
    size_t n_rows, n_columns;
    size_t n_blocks;          /* combinations of the other axes */
    size_t *block_at;         /* place of each block on the sheet, SIZE_MAX: it has no cells */
    size_t n_shown, n_across; /* blocks with cells; how many of them side by side */
    int cell_width, cell_height;
    int row_label, column_label, block_label, title; /* room for text, in pixels */
    int64_t block_width, block_height, width, height;
} layout;

static int lines_of(const char *text, int width)
{
    lw_canvas nowhere = { 0 };
    const int n = lw_canvas_text(&nowhere, 0, 0, text, 1, 0, width, LABEL_LINES);

    return n > 0 ? n : 1;
}

/* ---- which block a cell belongs to ---- */

static bool is_block_axis(const layout *l, size_t axis)
{
    return (int)axis != l->row_axis && (int)axis != l->column_axis;
}

static size_t block_of(const layout *l, const json_t *cell)
{
    size_t block = 0;

    for (size_t i = 0; i < json_array_size(l->o->axes); i++)
        if (is_block_axis(l, i))
            block = block * lw_outcome_n_values(l->o, i) + lw_outcome_at(l->o, cell, i);
    return block;
}

/* "seed: 2 · size: 64x64"; the last axis counts fastest. */
static void block_label(const layout *l, size_t block, lw_buf *ret)
{
    size_t n = l->n_blocks;

    lw_buf_clear(ret);
    for (size_t i = 0; i < json_array_size(l->o->axes); i++) {
        if (!is_block_axis(l, i))
            continue;
        n /= lw_outcome_n_values(l->o, i);
        lw_buf_printf(ret, "%s%s: %s", ret->len ? "  \xc2\xb7  " : "",
                      lw_outcome_axis_title(l->o, i),
                      lw_outcome_value(l->o, i, block / n % lw_outcome_n_values(l->o, i)));
    }
}

/* ---- the layout ---- */

/* Number the blocks that have cells. */
static lw_status find_blocks(layout *l, lw_err *err)
{
    const json_t *cell;
    size_t i;

    l->n_blocks = 1;
    for (i = 0; i < json_array_size(l->o->axes); i++) {
        if (!is_block_axis(l, i))
            continue;
        l->n_blocks *= lw_outcome_n_values(l->o, i);
        if (l->n_blocks > 1000000)
            return lw_fail(err, LW_E_TOO_LARGE,
                           "%s: a contact sheet of more than a million blocks; the report "
                           "(report.html) shows one at a time",
                           l->o->dir);
    }
    l->block_at = calloc(l->n_blocks, sizeof(*l->block_at));
    if (!l->block_at)
        return lw_fail(err, LW_E_NOMEM, "no memory for a contact sheet");
    json_array_foreach(l->o->cells, i, cell) l->block_at[block_of(l, cell)] = 1;
    for (i = 0; i < l->n_blocks; i++)
        l->block_at[i] = l->block_at[i] ? l->n_shown++ : SIZE_MAX;
    return LW_OK;
}

/* Everything that follows from the size of a cell. */
static void arrange(layout *l)
{
    const int line = lw_canvas_line_height(1);
    double best = 0;

    l->row_label = 0;
    for (size_t i = 0; l->row_axis >= 0 && i < l->n_rows; i++) {
        const int w = lw_canvas_text_width(lw_outcome_value(l->o, (size_t)l->row_axis, i), 1) + PAD;

        l->row_label = w > l->row_label ? w : l->row_label;
    }
    l->row_label = l->row_label > MAX_LABEL ? MAX_LABEL : l->row_label;
    l->column_label = 0;
    for (size_t i = 0; l->column_axis >= 0 && i < l->n_columns; i++) {
        const int h =
            line * lines_of(lw_outcome_value(l->o, (size_t)l->column_axis, i), l->cell_width) +
            PAD / 2;

        l->column_label = h > l->column_label ? h : l->column_label;
    }
    l->block_label = l->n_blocks > 1 ? 2 * line + PAD : 0;
    l->title = lw_canvas_line_height(TITLE_SCALE) + line + 2 * PAD;
    l->block_width = l->row_label + (int64_t)l->n_columns * (l->cell_width + GAP);
    l->block_height =
        l->block_label + l->column_label + (int64_t)l->n_rows * (l->cell_height + GAP);
    l->width = 0;
    for (size_t n = 1; n == 1 || (n <= l->n_shown && n <= MAX_ACROSS); n++) {
        const int64_t down = (int64_t)((l->n_shown + n - 1) / n);
        const int64_t w = 2 * MARGIN + (int64_t)n * l->block_width + (int64_t)(n - 1) * BLOCK_GAP;
        const int64_t h = 2 * MARGIN + l->title + down * l->block_height + (down - 1) * BLOCK_GAP;
        const double shape = (double)w / (double)h;
        const double off = shape > GOOD_SHAPE ? shape / GOOD_SHAPE : GOOD_SHAPE / shape;

        if (l->width == 0 || off < best) {
            best = off;
            l->n_across = n;
            l->width = w;
            l->height = h;
        }
    }
    if (l->width < 480) /* room for a title */
        l->width = 480;
}

/* The largest picture decides the shape of a cell. */
static lw_status make_layout(layout *l, lw_err *err)
{
    const size_t n_axes = json_array_size(l->o->axes);
    int width = 0, height = 0, longest;
    const json_t *cell;
    size_t i;

    l->row_axis = n_axes > 1 ? 0 : -1;
    l->column_axis = n_axes > 1 ? 1 : 0;
    l->n_rows = l->row_axis >= 0 ? lw_outcome_n_values(l->o, (size_t)l->row_axis) : 1;
    l->n_columns = lw_outcome_n_values(l->o, (size_t)l->column_axis);
    LW_TRY(find_blocks(l, err));
    json_array_foreach(l->o->cells, i, cell)
    {
        const json_int_t w = json_integer_value(json_object_get(cell, "width")),
                         h = json_integer_value(json_object_get(cell, "height"));

        width = w > width && w <= LW_PNG_MAX_SIDE ? (int)w : width;
        height = h > height && h <= LW_PNG_MAX_SIDE ? (int)h : height;
    }
    width = width ? width : GOOD_CELL;
    height = height ? height : GOOD_CELL;
    longest = width > height ? width : height;
    if (longest < GOOD_CELL) {
        width *= GOOD_CELL / longest;
        height *= GOOD_CELL / longest;
        longest = width > height ? width : height;
    }
    for (int side = longest < MAX_CELL ? longest : MAX_CELL; side >= MIN_CELL; side--) {
        l->cell_width = (int)((int64_t)width * side / longest);
        l->cell_height = (int)((int64_t)height * side / longest);
        l->cell_width = l->cell_width > 0 ? l->cell_width : 1;
        l->cell_height = l->cell_height > 0 ? l->cell_height : 1;
        arrange(l);
        if (l->width <= LW_PNG_MAX_SIDE && l->height <= LW_PNG_MAX_SIDE &&
            l->width * l->height <= MAX_PIXELS)
            return LW_OK;
    }
    return lw_fail(err, LW_E_TOO_LARGE,
                   "%s: %zu cells do not fit a contact sheet of %d pixels on a side, each at "
                   "least %d wide; the report (report.html) shows them",
                   l->o->dir, json_array_size(l->o->cells), LW_PNG_MAX_SIDE, MIN_CELL);
}

/* ---- drawing ---- */

static void block_corner(const layout *l, size_t block, int *ret_x, int *ret_y)
{
    const size_t at = l->block_at[block];

    *ret_x = MARGIN + (int)((int64_t)(at % l->n_across) * (l->block_width + BLOCK_GAP));
    *ret_y = MARGIN + l->title + (int)((int64_t)(at / l->n_across) * (l->block_height + BLOCK_GAP));
}

static void draw_title(const layout *l, lw_canvas *c)
{
    const int room = c->width - 2 * MARGIN;
    int y = MARGIN, done = 0;
    const json_t *cell;
    char counts[200];
    size_t i;

    json_array_foreach(l->o->cells, i, cell) done += lw_outcome_done(cell);
    lw_canvas_text(c, MARGIN, y, l->o->title, TITLE_SCALE, INK, room, 1);
    y += lw_canvas_line_height(TITLE_SCALE);
    snprintf(
        counts, sizeof(counts), "%s%.60s%s%.60s, %d of %zu cells", l->row_axis >= 0 ? "rows: " : "",
        l->row_axis >= 0 ? lw_outcome_axis_title(l->o, (size_t)l->row_axis) : "",
        l->row_axis >= 0 ? ", columns: " : "columns: ",
        lw_outcome_axis_title(l->o, (size_t)l->column_axis), done, json_array_size(l->o->cells));
    counts[lw_utf8_trim(counts, strlen(counts))] = 0;
    lw_canvas_text(c, MARGIN, y, counts, 1, FAINT, room, 1);
}

static void draw_labels(const layout *l, size_t block, lw_canvas *c, lw_buf *text)
{
    const int line = lw_canvas_line_height(1);
    int x, y;

    block_corner(l, block, &x, &y);
    if (l->block_label) {
        block_label(l, block, text);
        lw_canvas_text(c, x, y, lw_buf_cstr(text), 1, INK, (int)l->block_width, 2);
        y += l->block_label;
    }
    for (size_t i = 0; i < l->n_columns; i++) {
        const char *label = lw_outcome_value(l->o, (size_t)l->column_axis, i);

        lw_canvas_text(c, x + l->row_label + (int)i * (l->cell_width + GAP), y, label, 1, INK,
                       l->cell_width, LABEL_LINES);
    }
    y += l->column_label;
    for (size_t i = 0; l->row_axis >= 0 && i < l->n_rows; i++) {
        int lines = l->cell_height / line;

        lines = lines < 1 ? 1 : lines > 2 * LABEL_LINES ? 2 * LABEL_LINES : lines;
        lw_canvas_text(c, x, y + (int)i * (l->cell_height + GAP),
                       lw_outcome_value(l->o, (size_t)l->row_axis, i), 1, INK, l->row_label - PAD,
                       lines);
    }
}

/* A picture in the middle of its box, in its own proportions. */
static void draw_picture(const layout *l, lw_canvas *c, int x, int y, const lw_picture *picture,
                         const uint8_t *rgb)
{
    int w = l->cell_width, h = (int)((int64_t)w * picture->height / picture->width);

    if (h > l->cell_height) {
        h = l->cell_height;
        w = (int)((int64_t)h * picture->width / picture->height);
    }
    w = w > 0 ? w : 1;
    h = h > 0 ? h : 1;
    lw_canvas_picture(c, x + (l->cell_width - w) / 2, y + (l->cell_height - h) / 2, w, h, rgb,
                      picture->width, picture->height);
}

static void draw_reason(const layout *l, lw_canvas *c, int x, int y, bool failed, const char *text)
{
    const int lines = (l->cell_height - 8) / lw_canvas_line_height(1);

    lw_canvas_fill(c, x, y, l->cell_width, l->cell_height, failed ? FAILED : EMPTY);
    if (lines > 0)
        lw_canvas_text(c, x + 4, y + 4, text, 1, failed ? FAILED_INK : FAINT, l->cell_width - 8,
                       lines);
}

static void draw_cell(const layout *l, const json_t *cell, lw_canvas *c, lw_arena *scratch)
{
    const size_t column = lw_outcome_at(l->o, cell, (size_t)l->column_axis);
    const size_t row = l->row_axis >= 0 ? lw_outcome_at(l->o, cell, (size_t)l->row_axis) : 0;
    const char *status = json_string_value(json_object_get(cell, "status"));
    const char *error = json_string_value(json_object_get(cell, "error"));
    lw_picture picture;
    const uint8_t *rgb = NULL;
    lw_err why = { 0 };
    int x, y;

    block_corner(l, block_of(l, cell), &x, &y);
    x += l->row_label + (int)column * (l->cell_width + GAP);
    y += l->block_label + l->column_label + (int)row * (l->cell_height + GAP);
    if (!lw_outcome_done(cell)) {
        draw_reason(l, c, x, y, !strcmp(status, "failed"), error && *error ? error : status);
        return;
    }
    lw_arena_reset(scratch);
    if (lw_outcome_picture(l->o, cell, scratch, &picture, &rgb, &why) == LW_OK)
        draw_picture(l, c, x, y, &picture, rgb);
    else
        draw_reason(l, c, x, y, true, why.text);
    lw_picture_deinit(&picture);
}

static void draw(const layout *l, lw_canvas *c, lw_buf *text)
{
    const json_t *cell;
    lw_arena scratch;
    size_t i;

    draw_title(l, c);
    for (i = 0; i < l->n_blocks; i++)
        if (l->block_at[i] != SIZE_MAX)
            draw_labels(l, i, c, text);
    lw_arena_init(&scratch, "sheet", 0);
    json_array_foreach(l->o->cells, i, cell) draw_cell(l, cell, c, &scratch);
    lw_arena_deinit(&scratch);
}

lw_status lw_experiment_sheet(const char *dir, lw_err *err)
{
    lw_outcome outcome;
    layout l = { .o = &outcome };
    lw_canvas canvas = { 0 };
    lw_buf text;
    char path[4096];
    lw_status s;

    LW_TRY(lw_outcome_load(dir, &outcome, err));
    lw_buf_init(&text, 1 << 20);
    snprintf(path, sizeof(path), "%s/contact.png", dir);
    s = make_layout(&l, err);
    if (s == LW_OK)
        s = lw_canvas_init(&canvas, (int)l.width, (int)l.height, BACKGROUND, err);
    if (s == LW_OK) {
        draw(&l, &canvas, &text);
        s = lw_canvas_write(&canvas, path, "latentwire_experiment", outcome.name, err);
    }
    lw_canvas_deinit(&canvas);
    lw_buf_deinit(&text);
    free(l.block_at);
    lw_outcome_deinit(&outcome);
    return s;
}
