/* Pages that stand in one file. */

#include "orchestrate/html.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "orchestrate/embedded.h"

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* ---- text ---- */

/* What stands for the character at s; NULL: it stands for itself. */
static const char *escape_of(const uint8_t *s, size_t n)
{
    switch (s[0]) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    case '\t':
    case '\n':
        return NULL;
    case '\r': /* as itself it would be read as a line feed */
        return "&#13;";
    default:
        if (n == 0 || s[0] < 0x20 || s[0] == 0x7f)
            return REPLACEMENT;
        /* U+0080 to U+009F: control characters too. */
        return s[0] == 0xc2 && s[1] < 0xa0 ? REPLACEMENT : NULL;
    }
}

void lw_html_text(lw_buf *out, const char *text)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t left = text ? strlen(text) : 0;

    while (left > 0) {
        const size_t n = lw_utf8_len((const char *)s, left);
        const char *escaped = escape_of(s, n);

        if (escaped)
            lw_buf_puts(out, escaped);
        else
            lw_buf_put(out, s, n);
        s += n ? n : 1;
        left -= n ? n : 1;
    }
}

/* ---- bytes ---- */

static void put_base64(lw_buf *out, const uint8_t *data, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char block[4096];
    size_t used = 0;

    for (size_t i = 0; i < n; i += 3) {
        const uint32_t b1 = i + 1 < n ? data[i + 1] : 0, b2 = i + 2 < n ? data[i + 2] : 0;
        const uint32_t v = (uint32_t)data[i] << 16 | b1 << 8 | b2;

        block[used++] = digits[v >> 18];
        block[used++] = digits[v >> 12 & 63];
        block[used++] = i + 1 < n ? digits[v >> 6 & 63] : '=';
        block[used++] = i + 2 < n ? digits[v & 63] : '=';
        if (used == sizeof(block)) {
            lw_buf_put(out, block, used);
            used = 0;
        }
    }
    lw_buf_put(out, block, used);
}

void lw_html_png(lw_buf *out, const uint8_t *png, size_t size_bytes)
{
    lw_buf_puts(out, "data:image/png;base64,");
    put_base64(out, png, size_bytes);
}

/* ---- data ---- */

void lw_html_json(lw_buf *out, const char *id, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

    if (!text) {
        out->failed = true;
        return;
    }
    lw_buf_puts(out, "<script type=\"application/json\" id=\"");
    lw_html_text(out, id);
    lw_buf_puts(out, "\">");
    /* These characters stand nowhere in JSON but inside strings, where an escape means the same. */
    for (const char *s = text; *s; s++) {
        if (*s == '<' || *s == '>' || *s == '&') {
            lw_buf_printf(out, "\\u%04x", (unsigned)*s);
        } else if (strncmp(s, "\xe2\x80\xa8", 3) == 0) {
            lw_buf_puts(out, "\\u2028");
            s += 2;
        } else if (strncmp(s, "\xe2\x80\xa9", 3) == 0) {
            lw_buf_puts(out, "\\u2029");
            s += 2;
        } else {
            lw_buf_putc(out, *s);
        }
    }
    lw_buf_puts(out, "</script>\n");
    free(text);
}

/* ---- the page around it ---- */

void lw_html_begin_page(lw_buf *out, const char *title, const lw_html_page *page)
{
    /* Styles may be inline: an attribute that sets a width cannot load or run anything here. */
    lw_buf_puts(out, "<!doctype html>\n"
                     "<html lang=\"en\">\n"
                     "<head>\n"
                     "<meta charset=\"utf-8\">\n"
                     "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                     "base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; img-src data:"
                     " blob:");
    if (page->files)
        lw_buf_puts(out, " 'self' file:");
    if (page->script) {
        uint8_t digest[crypto_hash_sha256_BYTES];

        crypto_hash_sha256(digest, (const uint8_t *)page->script, strlen(page->script));
        lw_buf_puts(out, "; script-src 'sha256-");
        put_base64(out, digest, sizeof(digest));
        lw_buf_putc(out, '\'');
    }
    lw_buf_puts(out, "\">\n"
                     "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                     "<meta name=\"color-scheme\" content=\"light dark\">\n"
                     "<link rel=\"icon\" href=\"data:,\">\n"
                     "<title>");
    lw_html_text(out, title);
    lw_buf_puts(out, "</title>\n<style>\n");
    lw_buf_puts(out, lw_embedded_html_css);
    if (page->css)
        lw_buf_puts(out, page->css);
    lw_buf_puts(out, "</style>\n</head>\n<body>\n");
}

void lw_html_begin(lw_buf *out, const char *title)
{
    lw_html_begin_page(out, title, &(lw_html_page){ 0 });
}

void lw_html_script(lw_buf *out, const char *script)
{
    lw_buf_puts(out, "<script>");
    lw_buf_puts(out, script);
    lw_buf_puts(out, "</script>\n");
}

void lw_html_end(lw_buf *out)
{
    lw_buf_puts(out, "</body>\n</html>\n");
}
