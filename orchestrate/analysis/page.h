#ifndef LW_ORCHESTRATE_ANALYSIS_PAGE_H
#define LW_ORCHESTRATE_ANALYSIS_PAGE_H

#include "orchestrate/canvas.h"
#include "orchestrate/html.h"

/* What the pages of an analysis have in common. */

/** Start a page that stands in one file, with its title as heading, in a new buffer. */
void lw_page_begin(lw_buf *b, const char *title);
/** A cell of a table; "-" for NaN. */
void lw_page_number(lw_buf *b, double v);
/** A picture with a line below it. Errors: those of lw_png_encode. */
LW_MUST_USE lw_status lw_page_plot(lw_buf *b, const char *id, const char *about, const lw_canvas *c,
                                   lw_err *err);
/** End the page with `json` as its element "data", write it unless `s` is an error, and give the
 * buffer back. Gives `s` or what writing gave: errors of lw_outfile_open and lw_outfile_commit,
 * LW_E_TOO_LARGE. */
LW_MUST_USE lw_status lw_page_end(lw_buf *b, const json_t *json, const char *path, lw_status s,
                                  lw_err *err);

#endif
