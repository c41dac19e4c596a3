#ifndef LW_ORCHESTRATE_CANVAS_H
#define LW_ORCHESTRATE_CANVAS_H

#include <stdint.h>

#include "common/err.h"

/*
 * A picture being put together: filled boxes, other pictures, text, heat maps. For contact sheets
 * and the plots of an analysis; nothing here is about a model. Whatever lies outside is cut off.
 */

typedef struct lw_canvas {
    int width, height;
    uint8_t *rgb; /* [height, width, 3] */
} lw_canvas;

/** 0xRRGGBB. */
typedef uint32_t lw_colour;

/** A canvas filled with one colour. lw_canvas_deinit afterwards. Errors: LW_E_INVALID (a side below
 * 1 or above 16384), LW_E_NOMEM. */
LW_MUST_USE lw_status lw_canvas_init(lw_canvas *c, int width, int height, lw_colour background,
                                     lw_err *err);
/** Safe on a zeroed canvas. */
void lw_canvas_deinit(lw_canvas *c);

void lw_canvas_fill(lw_canvas *c, int x, int y, int width, int height, lw_colour colour);
void lw_canvas_line(lw_canvas *c, int x0, int y0, int x1, int y1, lw_colour colour);

/** Put a picture [height, width, 3] into the box, scaled to fill it: by averaging when it shrinks,
 * by repeating pixels when it grows. */
void lw_canvas_picture(lw_canvas *c, int x, int y, int box_width, int box_height,
                       const uint8_t *rgb, int width, int height);

/** Height of a line of text in pixels at a scale of 1, 2... */
int lw_canvas_line_height(int scale);
/** Width in pixels that a text takes, without wrapping. */
int lw_canvas_text_width(const char *text, int scale);
/**
 * Write text with its upper left corner at (x, y), breaking lines between words where they would
 * be wider than max_width (0: never), at most max_lines (0: any number) with "..." when cut. A
 * character the font lacks becomes a box. Gives the number of lines.
 */
int lw_canvas_text(lw_canvas *c, int x, int y, const char *text, int scale, lw_colour colour,
                   int max_width, int max_lines);

/** A perceptually even colour scale for t in 0..1 (dark blue to yellow); other values are clamped,
 * NaN is grey. */
lw_colour lw_colour_scale(double t);
/** The same for signed values in -1..1: blue, white at 0, red. */
lw_colour lw_colour_signed(double t);

/** Write as PNG with one optional text chunk (`key`, `text`), atomically. Errors: as lw_png_write.
 */
LW_MUST_USE lw_status lw_canvas_write(const lw_canvas *c, const char *path, const char *key,
                                      const char *text, lw_err *err);

#endif
