/* Front matter: what stands between the lines, read by common/yaml.c, and the body. */

#include "common/frontmatter.h"

#include <string.h>

/* Length of the line at s with its line feed; *ret_is_mark: it is "---", blanks behind allowed. */
static size_t next_line(const char *s, size_t len, bool *ret_is_mark)
{
    const char *end = memchr(s, '\n', len);
    size_t n = end ? (size_t)(end - s) : len, used = n;

    while (used > 0 && (s[used - 1] == ' ' || s[used - 1] == '\t'))
        used--;
    *ret_is_mark = used == 3 && !memcmp(s, "---", 3);
    return n + (end != NULL);
}

static lw_status copy_items(const lw_yaml *from, lw_arena *a, lw_fm_entry *to, lw_err *err)
{
    to->items = lw_arena_calloc(a, (size_t)from->n_items + 1, sizeof(*to->items), err);
    if (!to->items)
        return LW_E_NOMEM;
    for (int i = 0; i < from->n_items; i++)
        to->items[i] = (lw_fm_item){ .key = from->items[i].key,
                                     .text = from->items[i].text,
                                     .line = from->items[i].line };
    to->n_items = from->n_items;
    return LW_OK;
}

static lw_status parse_yaml(const char *text, size_t len, int last_line, const char *label,
                            lw_arena *a, lw_frontmatter *f, lw_err *err)
{
    const lw_yaml_limits limits = {
        .max_depth = 2, .max_items = LW_FM_MAX_ENTRIES, .first_line = 2, .last_line = last_line
    };
    lw_yaml map;

    LW_TRY(lw_yaml_parse(text, len, label, "the front matter", &limits, a, &map, err));
    f->entries = lw_arena_calloc(a, (size_t)map.n_items + 1, sizeof(*f->entries), err);
    if (!f->entries)
        return LW_E_NOMEM;
    for (int i = 0; i < map.n_items; i++) {
        const lw_yaml *v = &map.items[i];
        lw_fm_entry *e = &f->entries[i];

        *e = (lw_fm_entry){ .key = v->key, .text = v->text, .line = v->line };
        e->kind = v->kind == LW_YAML_TEXT  ? LW_FM_TEXT
                  : v->kind == LW_YAML_MAP ? LW_FM_MAP
                                           : LW_FM_LIST;
        if (v->kind != LW_YAML_TEXT)
            LW_TRY(copy_items(v, a, e, err));
    }
    f->n_entries = map.n_items;
    return LW_OK;
}

/* ---- the file ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n';
}

/* The body without the lines around it that have nothing on them. */
static lw_status take_body(const char *text, size_t len, int line, lw_arena *a, lw_frontmatter *f,
                           lw_err *err)
{
    size_t begin = 0;

    for (size_t i = 0; i < len && is_blank(text[i]); i++)
        if (text[i] == '\n') {
            begin = i + 1;
            line++;
        }
    while (len > begin && is_blank(text[len - 1]))
        len--;
    f->body_line = line;
    f->body = lw_arena_strndup(a, text + begin, len - begin, err);
    return f->body ? LW_OK : LW_E_NOMEM;
}

lw_status lw_frontmatter_parse(const char *text, size_t len, const char *label, lw_arena *a,
                               lw_frontmatter *ret, lw_err *err)
{
    lw_frontmatter f = { 0 };
    size_t begin, pos, n;
    int line = 2;

    LW_TRY(lw_yaml_check_text(text, len, LW_FM_MAX_FILE_BYTES, label, err));
    begin = pos = next_line(text, len, &f.present);
    if (!f.present) {
        LW_TRY(take_body(text, len, 1, a, &f, err));
        *ret = f;
        return LW_OK;
    }
    for (;; line++) {
        bool closed;

        if (pos == len)
            return lw_fail(err, LW_E_FORMAT,
                           "%s:1: the front matter is not closed by a second line \"---\"", label);
        n = next_line(text + pos, len - pos, &closed);
        if (closed)
            break;
        pos += n;
        if (pos - begin > LW_FM_MAX_BYTES)
            return lw_fail(err, LW_E_FORMAT, "%s:%d: the front matter has more than %u bytes",
                           label, line, LW_FM_MAX_BYTES);
    }
    LW_TRY(parse_yaml(text + begin, pos - begin, line, label, a, &f, err));
    LW_TRY(take_body(text + pos + n, len - pos - n, line + 1, a, &f, err));
    *ret = f;
    return LW_OK;
}

const lw_fm_entry *lw_frontmatter_find(const lw_frontmatter *f, const char *key)
{
    for (int i = 0; i < f->n_entries; i++)
        if (!strcmp(f->entries[i].key, key))
            return &f->entries[i];
    return NULL;
}
