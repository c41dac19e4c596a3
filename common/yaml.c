/*
 * YAML through libyaml's events. Its loader would build any document, follow aliases and keep tags;
 * the events let each of these be refused at the line where it stands.
 */

#include "common/yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <yaml.h>

#include "common/utf8.h"

typedef struct reader {
    const char *label, *what;
    lw_arena *a;
    yaml_parser_t yaml;
    const char *text;
    size_t len;
    int first_line, last_line; /* of the file */
    int max_depth, max_items;
    lw_err *err;
} reader;

/* ---- characters ---- */

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

lw_status lw_yaml_check_text(const char *text, size_t len, size_t max_bytes, const char *label,
                             lw_err *err)
{
    int line = 1;

    if (len > max_bytes)
        return lw_fail(err, LW_E_FORMAT, "%s:1: the file has %zu bytes; at most %zu are read",
                       label, len, max_bytes);
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
        return lw_fail(r->err, LW_E_NOMEM, "%s: no memory to parse %s", r->label, r->what);
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
    if (e->data.scalar.length == 0 || e->data.scalar.length > LW_YAML_MAX_KEY_BYTES ||
        memchr(e->data.scalar.value, '\n', e->data.scalar.length))
        return wrong(r, line, "a key must be one line of 1 to %d bytes", LW_YAML_MAX_KEY_BYTES);
    return take_text(r, e, ret);
}

/* ---- values ---- */

static lw_status take_value(reader *r, const yaml_event_t *e, int depth, lw_yaml *v);

/* Room for one more; what is given up stays in the arena, at most as much as is used. */
static lw_status grow(reader *r, lw_yaml *list, int *cap)
{
    const int more = *cap ? *cap * 2 : 8;
    lw_yaml *items;

    if (list->n_items < *cap)
        return LW_OK;
    items = lw_arena_calloc(r->a, (size_t)more, sizeof(*items), r->err);
    if (!items)
        return LW_E_NOMEM;
    if (list->n_items)
        memcpy(items, list->items, (size_t)list->n_items * sizeof(*items));
    list->items = items;
    *cap = more;
    return LW_OK;
}

static lw_status too_many(const reader *r, const lw_yaml *list, int line)
{
    if (!list->key)
        return wrong(r, line, "more than %d %s", r->max_items,
                     list->kind == LW_YAML_MAP ? "keys" : "parts");
    return wrong(r, line, "\"%s\" has more than %d parts", list->key, r->max_items);
}

static lw_status check_twice(const reader *r, const lw_yaml *map, const lw_yaml *item)
{
    if (!lw_yaml_find(map, item->key))
        return LW_OK;
    if (!map->key)
        return wrong(r, item->line, "the key \"%s\" stands here twice", item->key);
    return wrong(r, item->line, "the key \"%s\" stands in \"%s\" twice", item->key, map->key);
}

/* The parts of a list or mapping whose start was just read, at `depth`. */
static lw_status take_items(reader *r, int depth, lw_yaml *list)
{
    int cap = 0;

    for (;;) {
        lw_yaml item = { 0 };
        yaml_event_t e;
        lw_status s = LW_OK;

        LW_TRY(next_event(r, &e));
        if (e.type == YAML_SEQUENCE_END_EVENT || e.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&e);
            return LW_OK;
        }
        item.line = line_of(r, e.start_mark);
        if (list->n_items == r->max_items)
            s = too_many(r, list, item.line);
        if (s == LW_OK && list->kind == LW_YAML_MAP) {
            s = take_key(r, &e, &item.key);
            yaml_event_delete(&e);
            LW_TRY(s);
            LW_TRY(check_twice(r, list, &item));
            LW_TRY(next_event(r, &e));
        }
        if (s == LW_OK && e.type != YAML_SCALAR_EVENT && depth == r->max_depth)
            s = wrong(r, line_of(r, e.start_mark), "\"%s\" is nested deeper than %s",
                      list->key ? list->key : r->what, depth == 2 ? "one level" : "is taken");
        if (s == LW_OK)
            s = grow(r, list, &cap);
        if (s == LW_OK)
            s = take_value(r, &e, depth + 1, &item);
        yaml_event_delete(&e);
        LW_TRY(s);
        list->items[list->n_items++] = item;
    }
}

static lw_status take_value(reader *r, const yaml_event_t *e, int depth, lw_yaml *v)
{
    if (e->type == YAML_SCALAR_EVENT)
        return take_text(r, e, &v->text);
    v->kind = e->type == YAML_MAPPING_START_EVENT ? LW_YAML_MAP : LW_YAML_LIST;
    return take_items(r, depth, v);
}

static lw_status take_document(reader *r, lw_yaml *ret)
{
    static const char one[] = "one YAML document without directives is taken";
    char mapping[128];

    snprintf(mapping, sizeof(mapping), "%s must be lines such as \"name: text\"", r->what);
    LW_TRY(expect(r, YAML_STREAM_START_EVENT, one));
    LW_TRY(expect(r, YAML_DOCUMENT_START_EVENT, one));
    LW_TRY(expect(r, YAML_MAPPING_START_EVENT, mapping));
    LW_TRY(take_items(r, 1, ret));
    LW_TRY(expect(r, YAML_DOCUMENT_END_EVENT, one));
    return expect(r, YAML_STREAM_END_EVENT, one);
}

/* Blanks and comments are no document at all, and no error. */
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

static int count_lines(const char *text, size_t len)
{
    int lines = 1;

    for (size_t i = 0; i + 1 < len; i++)
        lines += text[i] == '\n';
    return lines;
}

lw_status lw_yaml_parse(const char *text, size_t len, const char *label, const char *what,
                        const lw_yaml_limits *limits, lw_arena *a, lw_yaml *ret, lw_err *err)
{
    const bool whole = limits->first_line == 0;
    reader r = { .label = label,
                 .what = what,
                 .a = a,
                 .text = text,
                 .len = len,
                 .first_line = whole ? 1 : limits->first_line,
                 .last_line = whole ? count_lines(text, len) : limits->last_line,
                 .max_depth = limits->max_depth,
                 .max_items = limits->max_items,
                 .err = err };
    lw_status s;

    *ret = (lw_yaml){ .kind = LW_YAML_MAP, .line = r.first_line };
    if (says_nothing(text, len))
        return LW_OK;
    if (!yaml_parser_initialize(&r.yaml))
        return lw_fail(err, LW_E_NOMEM, "%s: no memory to parse %s", label, what);
    yaml_parser_set_encoding(&r.yaml, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.yaml, (const unsigned char *)text, len);
    s = take_document(&r, ret);
    yaml_parser_delete(&r.yaml);
    return s;
}

const lw_yaml *lw_yaml_find(const lw_yaml *map, const char *key)
{
    for (int i = 0; map->kind == LW_YAML_MAP && i < map->n_items; i++)
        if (!strcmp(map->items[i].key, key))
            return &map->items[i];
    return NULL;
}
