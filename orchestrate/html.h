#ifndef LW_ORCHESTRATE_HTML_H
#define LW_ORCHESTRATE_HTML_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

/*
 * Pages that stand in one file and open without a server or a network: text escaped, pictures as
 * data URIs, data as JSON inside a script element. A failure is the buffer's sticky state.
 */

/** Everything up to the body: doctype, charset, a policy that forbids any network access, title,
 * our style sheet (light and dark). */
void lw_html_begin(lw_buf *out, const char *title);
void lw_html_end(lw_buf *out);

/** Text with & < > " ' escaped: for element content and for quoted attributes. */
void lw_html_text(lw_buf *out, const char *text);
/** data:image/png;base64,... of a file's bytes. */
void lw_html_png(lw_buf *out, const uint8_t *png, size_t size_bytes);
/** <script type="application/json" id="ID">...</script>; no "<" in it comes through as such. */
void lw_html_json(lw_buf *out, const char *id, const json_t *value);

#endif
