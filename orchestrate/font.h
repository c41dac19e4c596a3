#ifndef LW_ORCHESTRATE_FONT_H
#define LW_ORCHESTRATE_FONT_H

#include <stdint.h>

/* The letters of canvas.c, one picture each; orchestrate/font.c says where they come from. */

#define LW_GLYPH_WIDTH  6
#define LW_GLYPH_HEIGHT 13

typedef struct lw_glyph {
    uint16_t code;                 /* Unicode */
    uint8_t rows[LW_GLYPH_HEIGHT]; /* top to bottom; bit 7 is the leftmost pixel */
} lw_glyph;

/** Sorted by code. */
extern const lw_glyph lw_font[];
extern const int lw_font_n_glyphs;

#endif
