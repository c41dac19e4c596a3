/*
 * Front matter through libyaml's events. Its loader would build any document, follow aliases and
 * keep tags; the events let each of these be refused at the line where it stands.
 */

#include "common/frontmatter.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <yaml.h>

#include "common/utf8.h"

typedef struct reader {
    const char *label;
    lw_arena *a;
    yaml_parser_t yaml;
    const char *text; /* the front matter alone */
    size_t len;
    int first_line, last_line; /* of the file */
    lw_frontmatter *out;
    lw_err *err;
} reader;

/* ---- the file as a whole ---- */

/* U+2028 and U+2029 end a line for YAML and for nobody else, so line numbers would be wrong. */
static bool is_control(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;

    return (n == 1 && ((*u < 0x20 && *u != '\n' && *u != '\t') || *u == 0x7f)) ||
           (n == 2 && u[0] == 0xc2 && u[1] < 0xa0) ||
           (n == 3 && u[0] == 0xe2 && u[1] == 0x80 && (u[2] == 0xa8 || u[2] == 0xa9));
}

static const char *control_name(const char *s, size_t n)
{
    return n > 1        ? "a control character or line separator"
           : *s == '\r' ? "a carriage return; lines end with a line feed alone"
           : *s == 0    ? "a zero byte"
                        : "a control character";
}

static lw_status check_characters(const char *text, size_t len, const char *label, lw_err *err)
{
    int line = 1;

    if (len > LW_FM_MAX_FILE_BYTES)
        return lw_fail(err, LW_E_FORMAT, "%s:1: the file has %zu bytes; at most %u are read", label,
                       len, LW_FM_MAX_FILE_BYTES);
    if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
        return lw_fail(err, LW_E_FORMAT,
                       "%s:1: the file begins with a byte order mark; save it "
                       "as UTF-8 without one",
                       label);
    for (size_t i = 0; i < len;) {
        size_t n = lw_utf8_len(text + i, len - i);

        if (n == 0)
            return lw_fail(err, LW_E_FORMAT, "%s:%d: not UTF-8", label, line);
        if (is_control(text + i, n))
            return lw_fail(err, LW_E_FORMAT, "%s:%d: %s", label, line, control_name(text + i, n));
        line += text[i] == '\n';
        i += n;
    }
    return LW_OK;
}

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

/* ---- events ---- */

static lw_status wrong(const reader *r, int line, const char *fmt, ...) LW_PRINTF(3, 4);

static lw_status wrong(const reader *r, int line, const char *fmt, ...)
{
    char reason[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(reason, sizeof(reason), fmt, ap);
    va_end(ap);
    return lw_fail(r->err, LW_E_FORMAT, "%s:%d: %s", r->label, line, reason);
}

/* Line of the file; an error at the end of the text may be said of the line behind it. */
static int line_of(const reader *r, yaml_mark_t mark)
{
    size_t most = (size_t)(r->last_line - r->first_line);

    return r->first_line + (int)(mark.line < most ? mark.line : most);
}

static lw_status parser_failed(const reader *r)
{
    const yaml_parser_t *y = &r->yaml;
    yaml_mark_t mark = y->problem_mark;

    if (y->error == YAML_MEMORY_ERROR)
        return lw_fail(r->err, LW_E_NOMEM, "%s: no memory to parse the front matter", r->label);
    if (y->error == YAML_READER_ERROR) {
        mark.line = 0;
        for (size_t i = 0; i < y->problem_offset && i < r->len; i++)
            mark.line += r->text[i] == '\n';
    }
    return wrong(r, line_of(r, mark), "%s%s%s", y->context ? y->context : "",
                 y->context ? ": " : "", y->problem ? y->problem : "not YAML");
}

/* The next event that is neither an alias nor decorated; the caller deletes it. */
static lw_status next_event(reader *r, yaml_event_t *ret)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    const char *refused = NULL;
    lw_status s;

    if (!yaml_parser_parse(&r->yaml, ret))
        return parser_failed(r);
    if (ret->type == YAML_SCALAR_EVENT) {
        anchor = ret->data.scalar.anchor;
        tag = ret->data.scalar.tag;
    } else if (ret->type == YAML_SEQUENCE_START_EVENT) {
        anchor = ret->data.sequence_start.anchor;
        tag = ret->data.sequence_start.tag;
    } else if (ret->type == YAML_MAPPING_START_EVENT) {
        anchor = ret->data.mapping_start.anchor;
        tag = ret->data.mapping_start.tag;
    }
    if (ret->type == YAML_ALIAS_EVENT)
        refused = "aliases";
    else if (anchor)
        refused = "anchors";
    else if (tag)
        refused = "tags";
    if (!refused)
        return LW_OK;
    s = wrong(r, line_of(r, ret->start_mark),
              "YAML %s (a plain text that begins with * & or !) are not taken; quote the text",
              refused);
    yaml_event_delete(ret);
    return s;
}

/* An event of one type and nothing else; its contents are not wanted. */
static lw_status expect(reader *r, yaml_event_type_t type, const char *otherwise)
{
    yaml_event_t e;
    lw_status s;
    bool plain = true;

    LW_TRY(next_event(r, &e));
    if (e.type == YAML_DOCUMENT_START_EVENT)
        plain =
            e.data.document_start.implicit && !e.data.document_start.version_directive &&
            e.data.document_start.tag_directives.start == e.data.document_start.tag_directives.end;
    if (e.type == YAML_DOCUMENT_END_EVENT)
        plain = e.data.document_end.implicit;
    s = e.type == type && plain ? LW_OK : wrong(r, line_of(r, e.start_mark), "%s", otherwise);
    yaml_event_delete(&e);
    return s;
}

static lw_status take_text(reader *r, const yaml_event_t *e, const char **ret)
{
    const char *s = (const char *)e->data.scalar.value;
    const size_t len = e->data.scalar.length;
    char *copy;

    for (size_t i = 0; i < len;) {
        size_t n = lw_utf8_len(s + i, len - i);

        /* An escape such as "\0" or "\x07" can say what the file itself may not hold. */
        if (n == 0 || is_control(s + i, n))
            return wrong(r, line_of(r, e->start_mark), "the text holds a control character");
        i += n;
    }
    copy = lw_arena_strndup(r->a, s, len, r->err);
    if (!copy)
        return LW_E_NOMEM;
    *ret = copy;
    return LW_OK;
}

static lw_status take_key(reader *r, const yaml_event_t *e, const char **ret)
{
    const int line = line_of(r, e->start_mark);

    if (e->type != YAML_SCALAR_EVENT)
        return wrong(r, line, "a key must be a text");
    if (e->data.scalar.length == 0 || e->data.scalar.length > LW_FM_MAX_KEY_BYTES ||
        memchr(e->data.scalar.value, '\n', e->data.scalar.length))
        return wrong(r, line, "a key must be one line of 1 to %d bytes", LW_FM_MAX_KEY_BYTES);
    return take_text(r, e, ret);
}

/* The parts of a list or mapping whose start was just read. */
static lw_status take_items(reader *r, lw_fm_entry *entry)
{
    const bool map = entry->kind == LW_FM_MAP;

    entry->items = lw_arena_calloc(r->a, LW_FM_MAX_ENTRIES, sizeof(*entry->items), r->err);
    if (!entry->items)
        return LW_E_NOMEM;
    for (;;) {
        lw_fm_item item = { 0 };
        yaml_event_t e;
        lw_status s = LW_OK;

        LW_TRY(next_event(r, &e));
        if (e.type == YAML_SEQUENCE_END_EVENT || e.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&e);
            return LW_OK;
        }
        item.line = line_of(r, e.start_mark);
        if (entry->n_items == LW_FM_MAX_ENTRIES)
            s = wrong(r, item.line, "\"%s\" has more than %d parts", entry->key, LW_FM_MAX_ENTRIES);
        if (s == LW_OK && map) {
            s = take_key(r, &e, &item.key);
            for (int i = 0; s == LW_OK && i < entry->n_items; i++)
                if (!strcmp(entry->items[i].key, item.key))
                    s = wrong(r, item.line, "the key \"%s\" stands in \"%s\" twice", item.key,
                              entry->key);
            yaml_event_delete(&e);
            LW_TRY(s);
            LW_TRY(next_event(r, &e));
        }
        if (s == LW_OK && e.type != YAML_SCALAR_EVENT)
            s = wrong(r, line_of(r, e.start_mark), "\"%s\" is nested deeper than one level",
                      entry->key);
        if (s == LW_OK)
            s = take_text(r, &e, &item.text);
        yaml_event_delete(&e);
        LW_TRY(s);
        entry->items[entry->n_items++] = item;
    }
}

static lw_status take_value(reader *r, lw_fm_entry *entry)
{
    yaml_event_t e;
    lw_status s;

    LW_TRY(next_event(r, &e));
    if (e.type == YAML_SCALAR_EVENT) {
        entry->kind = LW_FM_TEXT;
        s = take_text(r, &e, &entry->text);
    } else {
        entry->kind = e.type == YAML_MAPPING_START_EVENT ? LW_FM_MAP : LW_FM_LIST;
        s = take_items(r, entry);
    }
    yaml_event_delete(&e);
    return s;
}

static lw_status take_entries(reader *r)
{
    lw_frontmatter *f = r->out;

    f->entries = lw_arena_calloc(r->a, LW_FM_MAX_ENTRIES, sizeof(*f->entries), r->err);
    if (!f->entries)
        return LW_E_NOMEM;
    for (;;) {
        lw_fm_entry entry = { 0 };
        yaml_event_t e;
        lw_status s;

        LW_TRY(next_event(r, &e));
        if (e.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&e);
            return LW_OK;
        }
        entry.line = line_of(r, e.start_mark);
        s = f->n_entries < LW_FM_MAX_ENTRIES
                ? take_key(r, &e, &entry.key)
                : wrong(r, entry.line, "more than %d keys", LW_FM_MAX_ENTRIES);
        yaml_event_delete(&e);
        LW_TRY(s);
        for (int i = 0; i < f->n_entries; i++)
            if (!strcmp(f->entries[i].key, entry.key))
                return wrong(r, entry.line, "the key \"%s\" stands here twice", entry.key);
        LW_TRY(take_value(r, &entry));
        f->entries[f->n_entries++] = entry;
    }
}

static lw_status take_document(reader *r)
{
    static const char one[] = "one YAML document without directives is taken";
    static const char mapping[] = "the front matter must be lines such as \"name: text\"";

    LW_TRY(expect(r, YAML_STREAM_START_EVENT, one));
    LW_TRY(expect(r, YAML_DOCUMENT_START_EVENT, one));
    LW_TRY(expect(r, YAML_MAPPING_START_EVENT, mapping));
    LW_TRY(take_entries(r));
    LW_TRY(expect(r, YAML_DOCUMENT_END_EVENT, one));
    return expect(r, YAML_STREAM_END_EVENT, one);
}

/* Front matter of blanks and comments is no document at all, and no error. */
static bool says_nothing(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '#')
            while (i < len && s[i] != '\n')
                i++;
        else if (s[i] != ' ' && s[i] != '\n')
            return false;
    }
    return true;
}

static lw_status parse_yaml(const char *text, size_t len, int last_line, const char *label,
                            lw_arena *a, lw_frontmatter *f, lw_err *err)
{
    reader r = { .label = label,
                 .a = a,
                 .text = text,
                 .len = len,
                 .first_line = 2,
                 .last_line = last_line,
                 .out = f,
                 .err = err };
    lw_status s;

    if (says_nothing(text, len))
        return LW_OK;
    if (!yaml_parser_initialize(&r.yaml))
        return lw_fail(err, LW_E_NOMEM, "%s: no memory to parse the front matter", label);
    yaml_parser_set_encoding(&r.yaml, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.yaml, (const unsigned char *)text, len);
    s = take_document(&r);
    yaml_parser_delete(&r.yaml);
    return s;
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

    LW_TRY(check_characters(text, len, label, err));
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
