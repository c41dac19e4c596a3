/* Front matter of a file from anywhere: what comes out is within the limits and printable. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/frontmatter.h"
#include "common/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *s, size_t most)
{
    const size_t n = strlen(s);

    if (n > most || !lw_utf8_valid(s, n))
        abort();
    for (size_t i = 0; i < n; i++)
        if (((unsigned char)s[i] < 0x20 && s[i] != '\n' && s[i] != '\t') || s[i] == 0x7f)
            abort();
}

static void check_line(int line, size_t size)
{
    if (line < 1 || (size_t)line > size + 1)
        abort();
}

static void check_entry(const lw_frontmatter *f, const lw_fm_entry *e, size_t size)
{
    check_text(e->key, LW_FM_MAX_KEY_BYTES);
    check_line(e->line, size);
    if (lw_frontmatter_find(f, e->key) != e) /* no key twice */
        abort();
    if ((e->kind == LW_FM_TEXT) != (e->text != NULL) || e->n_items > LW_FM_MAX_ENTRIES)
        abort();
    if (e->text)
        check_text(e->text, LW_FM_MAX_BYTES);
    for (int i = 0; i < e->n_items; i++) {
        check_text(e->items[i].text, LW_FM_MAX_BYTES);
        check_line(e->items[i].line, size);
        if ((e->kind == LW_FM_MAP) != (e->items[i].key != NULL))
            abort();
        if (e->items[i].key)
            check_text(e->items[i].key, LW_FM_MAX_KEY_BYTES);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lw_frontmatter f = { 0 };
    lw_err err = { 0 };
    lw_arena a;

    lw_arena_init(&a, "fuzz", 16 << 20);
    if (lw_frontmatter_parse((const char *)data, size, "input", &a, &f, &err) == LW_OK) {
        if (f.n_entries > LW_FM_MAX_ENTRIES || (!f.present && f.n_entries))
            abort();
        for (int i = 0; i < f.n_entries; i++)
            check_entry(&f, &f.entries[i], size);
        check_text(f.body, size);
        check_line(f.body_line, size);
    } else if (err.code == LW_E_FORMAT) {
        if (strncmp(err.text, "input:", 6) || atoi(err.text + 6) < 1)
            abort();
    } else if (err.code == LW_OK || err.text[0] == '\0') {
        abort();
    }
    lw_arena_deinit(&a);
    return 0;
}
