/*
 * The linter of templates: what a file must look like so that people find it, read it and can build
 * upon it. What makes a template unusable is found when it is read (templates.c); here is the rest.
 */

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "orchestrate/settings.h"
#include "orchestrate/templates.h"

#define MAX_DESCRIPTION 100 /* characters */
#define MAX_TAGS        6
#define MIN_SIDE        512
#define MAX_SIDE        2048
#define MIN_WORDS       6 /* of a sentence that two bodies may not share... */
#define MAX_SHARED      1 /* ...more often than this */

/* A run of the linter; `status` is sticky and only about memory. */
typedef struct linter {
    lw_templates *r;
    lw_status status;
    lw_err *err;
} linter;

#define NOTE(l, t, line, ...)                                                                      \
    ((l)->status = (l)->status == LW_OK                                                            \
                       ? lw_template_note((l)->r, t, line, false, (l)->err, __VA_ARGS__)           \
                       : (l)->status)

static size_t characters(const char *s)
{
    size_t n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

/* ---- the text of the file ---- */

static void check_lines(linter *l, lw_template *t)
{
    const char *s = t->content, *end = s + t->n_content;
    int line = 1, marks = 0, mark_line = 0;

    if (s == end)
        return;
    for (; s < end; line++) {
        const char *stop = memchr(s, '\n', (size_t)(end - s));
        const char *eol = stop ? stop : end, *next = stop ? stop + 1 : end;

        if (memchr(s, '\t', (size_t)(eol - s)))
            NOTE(l, t, line, "a tab; write spaces");
        if (eol > s && (eol[-1] == ' ' || eol[-1] == '\t'))
            NOTE(l, t, line, "blanks at the end of the line");
        if (t->fm.present && marks < 2 && eol - s == 3 && !memcmp(s, "---", 3) && ++marks == 2)
            mark_line = line;
        if (!stop)
            NOTE(l, t, line, "the last line has no line feed");
        else if (next == end && eol == s && line > 1)
            NOTE(l, t, line, "an empty line at the end of the file");
        s = next;
    }
    if (mark_line && *t->fm.body && t->fm.body_line != mark_line + 2)
        NOTE(l, t, mark_line + 1, "the body must follow the front matter after one empty line");
}

/* ---- fields ---- */

static bool missing(linter *l, lw_template *t, const char *key, const char *value)
{
    if (value && *value)
        return false;
    if (!value && lw_frontmatter_find(&t->fm, key))
        return true; /* of another kind, which is noted already */
    NOTE(l, t, lw_template_line(t, key), "%s is %s", key, value ? "empty" : "missing");
    return true;
}

static void check_name(linter *l, lw_template *t)
{
    const lw_fm_entry *e = lw_frontmatter_find(&t->fm, "name");
    const int line = lw_template_line(t, "name");

    if (missing(l, t, "name", e ? e->text : NULL))
        return;
    if (!lw_template_is_name(t->name))
        NOTE(l, t, line, "the name \"%s\" is not of lower-case words joined by hyphens", t->name);
    if (strcmp(t->name, t->stem) != 0)
        NOTE(l, t, line, "the name \"%s\" is not that of the file, \"%s\"", t->name, t->stem);
    for (int i = 0; i < l->r->n; i++) {
        const lw_template *other = l->r->v[i];

        if (other != t && !strcmp(other->name, t->name))
            NOTE(l, t, line, "the name \"%s\" is that of %s too", t->name, other->path);
    }
}

static void check_description(linter *l, lw_template *t)
{
    const int line = lw_template_line(t, "description");

    if (missing(l, t, "description", t->description))
        return;
    if (characters(t->description) > MAX_DESCRIPTION)
        NOTE(l, t, line, "the description has %zu characters; at most %d fit a list",
             characters(t->description), MAX_DESCRIPTION);
    if (strchr(t->description, '\n'))
        NOTE(l, t, line, "the description has more than one line");
}

static void check_place(linter *l, lw_template *t)
{
    if (!missing(l, t, "model", t->model) && strcmp(t->model, "z-image") != 0)
        NOTE(l, t, lw_template_line(t, "model"), "the model \"%s\" is not known; write z-image",
             t->model);
    if (missing(l, t, "category", t->category))
        return;
    if (!lw_template_is_name(t->category))
        NOTE(l, t, lw_template_line(t, "category"), "the category \"%s\" is not a lower-case word",
             t->category);
    else if (t->folder && strcmp(t->category, t->folder) != 0)
        NOTE(l, t, lw_template_line(t, "category"),
             "the category \"%s\" is not that of the folder, \"%s\"", t->category, t->folder);
}

static void check_tags(linter *l, lw_template *t)
{
    const lw_fm_entry *e = t->tags;

    if (!e) {
        missing(l, t, "tags", NULL);
        return;
    }
    if (e->n_items < 1 || e->n_items > MAX_TAGS)
        NOTE(l, t, e->line, "%d tags; a template has 1 to %d", e->n_items, MAX_TAGS);
    for (int i = 0; i < e->n_items; i++) {
        if (!lw_template_is_name(e->items[i].text))
            NOTE(l, t, e->items[i].line, "the tag \"%s\" is not a lower-case word",
                 e->items[i].text);
        for (int j = 0; j < i; j++)
            if (!strcmp(e->items[i].text, e->items[j].text))
                NOTE(l, t, e->items[i].line, "the tag \"%s\" stands here twice", e->items[i].text);
    }
}

static void check_values(linter *l, lw_template *t)
{
    int w, h;

    if (t->size && lw_parse_size(t->size, &w, &h, NULL) == LW_OK &&
        (w < MIN_SIDE || h < MIN_SIDE || w > MAX_SIDE || h > MAX_SIDE))
        NOTE(l, t, lw_template_line(t, "size"), "size: each side of %s must be from %d to %d",
             t->size, MIN_SIDE, MAX_SIDE);
    if (t->negative && strchr(t->negative, '\n'))
        NOTE(l, t, lw_template_line(t, "negative"), "negative has more than one line");
    if (t->extends && !*t->extends)
        NOTE(l, t, lw_template_line(t, "extends"), "extends is empty");
}

/* ---- parents and variables ---- */

static bool declares(const lw_template *t, const char *name, size_t len)
{
    const lw_fm_entry *e = t->variables;

    for (int i = 0; e && i < e->n_items; i++)
        if (strlen(e->items[i].key) == len && !memcmp(e->items[i].key, name, len))
            return true;
    return false;
}

static bool uses(const char *text, const char *variable)
{
    const char *name;
    size_t len;

    while (text && (text = lw_template_reference(text, &name, &len)) != NULL) {
        if (strlen(variable) == len && !memcmp(name, variable, len))
            return true;
        text = name + len;
    }
    return false;
}

/* Lines of `text` before `at`, for texts that stand in the file as they are. */
static int lines_before(const char *text, const char *at)
{
    int n = 0;

    for (; text < at; text++)
        n += *text == '\n';
    return n;
}

/* What stands between braces in one text of a template. `is_body`: lines can be counted. */
static void check_references(linter *l, lw_template *t, const lw_template *const *chain, int n,
                             const char *what, const char *text, int line, bool is_body)
{
    const char *at = text, *name, *open = text;
    int slots = 0;
    size_t len;

    while (at && (at = lw_template_reference(at, &name, &len)) != NULL) {
        const int here = is_body ? line + lines_before(text, at) : line;
        bool known = false;

        if (len == 4 && !memcmp(name, "body", 4)) {
            if (!is_body)
                NOTE(l, t, here, "{{body}} in the %s; it belongs in a body", what);
            else if (++slots == 2)
                NOTE(l, t, here, "{{body}} stands here twice");
        } else {
            for (int i = 0; i < n && !known; i++)
                known = declares(chain[i], name, len);
            if (!known)
                NOTE(l, t, here, "{{%.*s}} in the %s is declared by no `variables`", (int)len, name,
                     what);
        }
        at = name + len;
    }
    while (open && (open = strstr(open, "{{")) != NULL) {
        const int here = is_body ? line + lines_before(text, open) : line;

        if (lw_template_reference(open, &name, &len) != open)
            NOTE(l, t, here, "\"{{\" in the %s begins no {{lower_snake_case}}", what);
        open += 2;
    }
}

static void check_variables(linter *l, lw_template *t, const lw_template *const *chain, int n)
{
    const lw_fm_entry *e = t->variables;

    check_references(l, t, chain, n, "body", t->fm.body, t->fm.body_line, true);
    check_references(l, t, chain, n, "thinking", t->thinking, lw_template_line(t, "thinking"),
                     false);
    check_references(l, t, chain, n, "assistant", t->assistant, lw_template_line(t, "assistant"),
                     false);
    check_references(l, t, chain, n, "negative", t->negative, lw_template_line(t, "negative"),
                     false);
    for (int i = 0; e && i < e->n_items; i++) {
        bool used = false;

        for (int j = 0; j < n && !used; j++)
            used = uses(chain[j]->fm.body, e->items[i].key) ||
                   uses(chain[j]->thinking, e->items[i].key) ||
                   uses(chain[j]->assistant, e->items[i].key) ||
                   uses(chain[j]->negative, e->items[i].key);
        if (!used && lw_template_is_variable(e->items[i].key, strlen(e->items[i].key)))
            NOTE(l, t, e->items[i].line, "the variable \"%s\" is used nowhere", e->items[i].key);
        if (strstr(e->items[i].text, "{{"))
            NOTE(l, t, e->items[i].line, "\"{{\" in the default of \"%s\" stays as it is",
                 e->items[i].key);
    }
}

static void check_chain(linter *l, lw_template *t)
{
    const lw_template *chain[LW_TEMPLATE_MAX_DEPTH], *at;
    lw_err why = { 0 };
    int n = 0;

    /* A fault further up is noted where it is, and what those parents declare is not known. */
    if (!t->extends || !*t->extends) {
        chain[0] = t;
        n = 1;
    } else if (lw_template_chain(l->r, t, chain, &n, &at, &why) != LW_OK) {
        if (at == t)
            NOTE(l, t, lw_template_line(t, "extends"), "%s", why.text);
        return;
    }
    for (int i = 1; i < n; i++)
        if (chain[i]->broken)
            return;
    check_variables(l, t, chain, n);
}

/* ---- sentences that bodies share ---- */

typedef struct sentence {
    const char *text; /* lower case, single blanks */
    int owner, line;
} sentence;

typedef struct sentences {
    linter *l;
    sentence *v;
    size_t n, cap;
} sentences;

/* Chinese, Japanese and Korean are written without blanks; each character counts as a word. */
static int words_in(const char *s)
{
    bool inside = false;
    int n = 0;

    for (size_t left = strlen(s), len; left > 0; s += len, left -= len) {
        const unsigned char first = (unsigned char)*s;

        len = lw_utf8_len(s, left);
        n += first >= 0xe3 || (*s != ' ' && !inside);
        inside = *s != ' ' && first < 0xe3;
    }
    return n;
}

static void add_sentence(sentences *all, int owner, int line, const char *s, size_t n)
{
    char *copy = lw_arena_alloc(&all->l->r->arena, n + 1, all->l->err);
    size_t len = 0;

    if (!copy) {
        all->l->status = LW_E_NOMEM;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (s[i] != ' ' && s[i] != '\n')
            copy[len++] = (char)tolower((unsigned char)s[i]);
        else if (len && copy[len - 1] != ' ')
            copy[len++] = ' ';
    }
    while (len && strchr(" .!?", copy[len - 1]))
        len--;
    copy[len] = '\0';
    if (words_in(copy) < MIN_WORDS)
        return;
    if (all->n == all->cap) {
        size_t cap = all->cap ? 2 * all->cap : 256;
        sentence *v = realloc(all->v, cap * sizeof(*v));

        if (!v) {
            all->l->status = lw_fail(all->l->err, LW_E_NOMEM, "no memory for the linter");
            return;
        }
        all->v = v;
        all->cap = cap;
    }
    all->v[all->n++] = (sentence){ .text = copy, .owner = owner, .line = line };
}

/* Length of the end of a sentence at s: a mark with a blank behind it, a Chinese mark, an empty
 * line, or a line feed before a list item. */
static size_t end_of_sentence(const char *s)
{
    static const char *const wide[] = { "\xe3\x80\x82", "\xef\xbc\x81", "\xef\xbc\x9f" };

    if (strchr(".!?", *s) && (!s[1] || s[1] == ' ' || s[1] == '\n'))
        return 1;
    if (*s == '\n' && (s[1] == '\n' || s[1] == '-' || s[1] == '*' || isdigit((unsigned char)s[1])))
        return 1;
    for (size_t i = 0; i < LW_ARRAY_LEN(wide); i++)
        if (!strncmp(s, wide[i], 3))
            return 3;
    return 0;
}

static void split(sentences *all, int owner)
{
    const lw_template *t = all->l->r->v[owner];
    const char *begin = t->fm.body, *s = begin;
    int line = t->fm.body_line;

    while (*s && all->l->status == LW_OK) {
        size_t end = end_of_sentence(s);

        if (!end && s[1]) {
            s++;
            continue;
        }
        s += end ? end : 1;
        while (*begin == ' ' || *begin == '\n')
            line += *begin++ == '\n';
        if (begin < s)
            add_sentence(all, owner, line, begin, (size_t)(s - begin));
        for (; begin < s; begin++)
            line += *begin == '\n';
    }
}

static int by_text(const void *a, const void *b)
{
    const sentence *x = a, *y = b;
    int order = strcmp(x->text, y->text);

    return order ? order : x->owner - y->owner;
}

/* A child has its parent's text in front of it, and may take up its words. */
static bool related(const lw_templates *r, const lw_template *a, const lw_template *b)
{
    for (int turn = 0; turn < 2; turn++) {
        const lw_template *chain[LW_TEMPLATE_MAX_DEPTH], *at, *of = turn ? b : a;
        lw_err ignored = { 0 };
        int n = 0;

        (void)!lw_template_chain(r, of, chain, &n, &at, &ignored);
        for (int i = 1; i < n; i++)
            if (chain[i] == (turn ? a : b))
                return true;
    }
    return false;
}

typedef struct pair {
    uint16_t shared;
    uint16_t line; /* of the first of them in the later template */
} pair;

static void count_shared(const sentences *all, pair *pairs, int n)
{
    for (size_t i = 0; i < all->n; i++)
        for (size_t j = i + 1; j < all->n && !strcmp(all->v[i].text, all->v[j].text); j++) {
            pair *p = &pairs[(size_t)all->v[i].owner * (size_t)n + (size_t)all->v[j].owner];

            /* A body that says it twice shares it once. */
            if (all->v[i].owner == all->v[j].owner || all->v[j].owner == all->v[j - 1].owner ||
                (i > 0 && all->v[i - 1].owner == all->v[i].owner &&
                 !strcmp(all->v[i - 1].text, all->v[i].text)))
                continue;
            p->shared++;
            if (!p->line || all->v[j].line < p->line)
                p->line = (uint16_t)all->v[j].line;
        }
}

static void check_shared(linter *l, const bool *which)
{
    const int n = l->r->n;
    pair *pairs = calloc((size_t)n ? (size_t)n * (size_t)n : 1, sizeof(*pairs));
    sentences all = { .l = l };

    if (!pairs) {
        l->status = lw_fail(l->err, LW_E_NOMEM, "no memory for the linter");
        return;
    }
    for (int i = 0; i < n; i++)
        split(&all, i);
    if (all.n)
        qsort(all.v, all.n, sizeof(*all.v), by_text);
    if (l->status == LW_OK)
        count_shared(&all, pairs, n);
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++) {
            const pair *p = &pairs[(size_t)i * (size_t)n + (size_t)j];
            lw_template *a = l->r->v[i], *b = l->r->v[j];

            if (p->shared <= MAX_SHARED || related(l->r, a, b))
                continue;
            if (!which || which[j])
                NOTE(l, b, p->line, "the body shares %d sentences with %s", p->shared, a->path);
            else if (which[i])
                NOTE(l, a, a->fm.body_line, "the body shares %d sentences with %s", p->shared,
                     b->path);
        }
    free(all.v);
    free(pairs);
}

/* ---- all of it ---- */

static void check_one(linter *l, lw_template *t)
{
    if (!t->content)
        return;
    check_lines(l, t);
    if (!t->fm.present) {
        /* A file that could not be taken apart says why already. */
        if (!t->broken)
            NOTE(l, t, 1, "no front matter: the file does not begin with a line \"---\"");
        if (!t->broken && !*t->fm.body)
            NOTE(l, t, 1, "the body is empty");
        return;
    }
    check_name(l, t);
    check_description(l, t);
    check_place(l, t);
    check_tags(l, t);
    check_values(l, t);
    if (!*t->fm.body)
        NOTE(l, t, t->fm.body_line, "the body is empty");
    check_chain(l, t);
}

lw_status lw_templates_check(lw_templates *r, const bool *which, lw_err *err)
{
    linter l = { .r = r, .err = err };

    for (int i = 0; i < r->n && l.status == LW_OK; i++)
        if (!which || which[i])
            check_one(&l, r->v[i]);
    if (l.status == LW_OK)
        check_shared(&l, which);
    return l.status;
}
