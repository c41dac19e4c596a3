#ifndef LW_ORCHESTRATE_HTML_H
#define LW_ORCHESTRATE_HTML_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

/*
 * Pages that stand in one file and open without a server or a network: text escaped, pictures as
 * data URIs, data as JSON inside a script element. A failure is the buffer's sticky state.
 *
 * Two walls keep text of strangers (prompts, error messages) from becoming part of a page: it is
 * escaped here, and the page's own content security policy forbids all requests and every script
 * but the one whose digest it names.
 */

/** Everything up to the body's start tag, included: doctype, charset, a policy that forbids any
 * network access and any script, title, our style sheet (html.css: light and dark). */
void lw_html_begin(lw_buf *out, const char *title);

/** What a page has beyond the plain one. */
typedef struct lw_html_page {
    const char *css;    /* a style sheet after ours, or NULL; not escaped, so ours only */
    const char *script; /* the only script that the page may run, or NULL; see lw_html_script */
    bool files;         /* pictures may also come from files beside the page */
} lw_html_page;

/** lw_html_begin for such a page. */
void lw_html_begin_page(lw_buf *out, const char *title, const lw_html_page *page);
/** <script> with the page's script, which is not escaped: ours, without "</script" in it. A browser
 * runs it when it is, byte for byte, what lw_html_begin_page was given. */
void lw_html_script(lw_buf *out, const char *script);
/** End of the body and of the page. */
void lw_html_end(lw_buf *out);

/**
 * Text with & < > " ' escaped: for element content and for quoted attributes, whose value it cannot
 * leave. What no HTML may hold (control characters, bytes that are not UTF-8) becomes U+FFFD. NULL
 * writes nothing.
 */
void lw_html_text(lw_buf *out, const char *text);
/** data:image/png;base64,... of a file's bytes. */
void lw_html_png(lw_buf *out, const uint8_t *png, size_t size_bytes);
/** <script type="application/json" id="ID">...</script>; no "<" in it comes through as such, nor
 * U+2028 and U+2029. */
void lw_html_json(lw_buf *out, const char *id, const json_t *value);

#endif
