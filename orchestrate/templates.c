/*
 * Registry of templates: files of a folder, what their front matter says, and who has which name.
 * Whatever can be wrong with a file is noted with its line and does not stop the others.
 */

#include "orchestrate/templates.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "orchestrate/settings.h"

lw_status lw_templates_create(lw_templates **ret, lw_err *err)
{
    lw_templates *r = calloc(1, sizeof(*r));

    if (!r)
        return lw_fail(err, LW_E_NOMEM, "no memory for templates");
    lw_arena_init(&r->arena, "templates", 0);
    *ret = r;
    return LW_OK;
}

void lw_templates_destroy(lw_templates **r)
{
    if (!*r)
        return;
    lw_arena_deinit(&(*r)->arena);
    free(*r);
    *r = NULL;
}

lw_status lw_template_note(lw_templates *r, lw_template *t, int line, bool broken, lw_err *err,
                           const char *fmt, ...)
{
    lw_template_problem *p = lw_arena_calloc(&r->arena, 1, sizeof(*p), err), **at = &t->problems;
    char reason[LW_ERR_TEXT_BYTES];
    va_list ap;

    if (!p)
        return LW_E_NOMEM;
    va_start(ap, fmt);
    vsnprintf(reason, sizeof(reason), fmt, ap);
    va_end(ap);
    p->line = line;
    p->reason = lw_arena_strndup(&r->arena, reason, strlen(reason), err);
    if (!p->reason)
        return LW_E_NOMEM;
    while (*at && (*at)->line <= line) /* in the order of lines */
        at = &(*at)->next;
    p->next = *at;
    *at = p;
    if (broken && !t->broken)
        t->broken = p;
    return LW_OK;
}

int lw_template_line(const lw_template *t, const char *key)
{
    const lw_fm_entry *e = lw_frontmatter_find(&t->fm, key);

    return e ? e->line : 1;
}

/* ---- what the front matter says ---- */

/* Reading the keys of one template; `status` is sticky and only about memory. */
typedef struct keys {
    lw_templates *r;
    lw_template *t;
    lw_status status;
    lw_err *err;
} keys;

#define NOTE(k, line, ...)                                                                         \
    ((k)->status = (k)->status == LW_OK                                                            \
                       ? lw_template_note((k)->r, (k)->t, line, true, (k)->err, __VA_ARGS__)       \
                       : (k)->status)

/* An entry of a kind; another kind is a problem and counts as absent. */
static const lw_fm_entry *entry(keys *k, const char *key, lw_fm_kind kind, const char *like)
{
    const lw_fm_entry *e = lw_frontmatter_find(&k->t->fm, key);

    if (!e || e->kind == kind)
        return e;
    NOTE(k, e->line, "%s must be %s", key, like);
    return NULL;
}

static const char *text_of(keys *k, const char *key)
{
    const lw_fm_entry *e = entry(k, key, LW_FM_TEXT, "a text");

    return e ? e->text : NULL;
}

/* A block's text ends with the line feed of its last line, which is no part of what is said. */
static const char *prose_of(keys *k, const char *key)
{
    const char *s = text_of(k, key);
    size_t n = s ? strlen(s) : 0, used = n;
    char *copy;

    while (used > 0 && (s[used - 1] == '\n' || s[used - 1] == ' '))
        used--;
    if (used == n)
        return s;
    copy = lw_arena_strndup(&k->r->arena, s, used, k->err);
    if (!copy)
        k->status = LW_E_NOMEM;
    return copy;
}

/* A number in [min, max], or -1. */
static double number_of(keys *k, const char *key, double min, double max, bool whole)
{
    const char *s = text_of(k, key);
    char *end;
    double v;

    if (!s)
        return -1;
    v = strtod(s, &end);
    if (s[0] >= '0' && s[0] <= '9' && *end == '\0' && strspn(s, "0123456789.") == strlen(s) &&
        v >= min && v <= max && (!whole || v == (double)(int64_t)v))
        return v;
    NOTE(k, lw_template_line(k->t, key), "%s: \"%s\" is not a %snumber from %g to %g", key, s,
         whole ? "whole " : "", min, max);
    return -1;
}

static void read_size(keys *k)
{
    const char *s = text_of(k, "size");
    int w, h;

    if (s && lw_parse_size(s, &w, &h, NULL) == LW_OK)
        k->t->size = s;
    else if (s)
        NOTE(k, lw_template_line(k->t, "size"),
             "size: \"%s\" is not WIDTHxHEIGHT in multiples of 16, such as 1024x768", s);
}

static void read_seed(keys *k)
{
    const char *s = text_of(k, "seed");
    uint64_t v;

    if (s && lw_parse_seed(s, &v, NULL) == LW_OK)
        k->t->seed = s;
    else if (s)
        NOTE(k, lw_template_line(k->t, "seed"),
             "seed: \"%s\" is not a whole number from 0 to 2^63 - 1", s);
}

static void read_think_block(keys *k)
{
    const char *s = text_of(k, "add_think_block");

    k->t->think_block = !s ? -1 : !strcmp(s, "true");
    if (s && strcmp(s, "true") && strcmp(s, "false"))
        NOTE(k, lw_template_line(k->t, "add_think_block"),
             "add_think_block: \"%s\" is neither true nor false", s);
}

static void read_variables(keys *k)
{
    const lw_fm_entry *e =
        entry(k, "variables", LW_FM_MAP, "lines of a name and its default, indented");

    k->t->variables = e;
    for (int i = 0; e && i < e->n_items; i++) {
        const char *name = e->items[i].key;

        if (!strcmp(name, "body"))
            NOTE(k, e->items[i].line,
                 "a variable cannot be called body: {{body}} is where a child's text goes");
        else if (!lw_template_is_variable(name, strlen(name)))
            NOTE(k, e->items[i].line, "the variable \"%s\" is not lower_snake_case", name);
    }
}

static lw_status read_keys(lw_templates *r, lw_template *t, lw_err *err)
{
    keys k = { .r = r, .t = t, .err = err };
    const char *name = text_of(&k, "name");

    if (name && *name)
        t->name = name;
    t->description = text_of(&k, "description");
    t->model = text_of(&k, "model");
    t->category = text_of(&k, "category");
    t->extends = text_of(&k, "extends");
    t->tags = entry(&k, "tags", LW_FM_LIST, "a list such as [light, portrait]");
    t->thinking = prose_of(&k, "thinking");
    t->assistant = prose_of(&k, "assistant");
    t->negative = prose_of(&k, "negative");
    t->steps = (int64_t)number_of(&k, "steps", 1, 256, true);
    t->guidance = number_of(&k, "guidance", 0, 1000, false);
    read_size(&k);
    read_seed(&k);
    read_think_block(&k);
    read_variables(&k);
    return k.status;
}

/* ---- files ---- */

/* The reason of an error that begins with "path:" and perhaps a line; messages of the file's own
 * begin so. */
static lw_status note_error(lw_templates *r, lw_template *t, const lw_err *why, lw_err *err)
{
    const char *reason = why->text;
    const size_t n = strlen(t->path);
    int line = 1;

    if (!strncmp(reason, t->path, n) && reason[n] == ':') {
        char *end;
        long v = strtol(reason + n + 1, &end, 10);

        if (end > reason + n + 1 && *end == ':' && v > 0) {
            line = (int)v;
            reason = end + 1;
        } else {
            reason += n + 1;
        }
        reason += strspn(reason, " ");
    }
    return lw_template_note(r, t, line, true, err, "%s", reason);
}

static lw_status read_content(lw_templates *r, lw_template *t, lw_err *err)
{
    char *text = NULL;
    size_t n = 0;

    LW_TRY(lw_file_read(t->path, LW_FM_MAX_FILE_BYTES, &text, &n, err));
    t->content = lw_arena_strndup(&r->arena, text, n, err);
    t->n_content = n;
    free(text);
    if (!t->content)
        return LW_E_NOMEM;
    return lw_frontmatter_parse(t->content, n, t->path, &r->arena, &t->fm, err);
}

static lw_status append(lw_templates *r, lw_template *t, lw_err *err)
{
    if (r->n == LW_TEMPLATE_MAX_FILES)
        return lw_fail(err, LW_E_TOO_LARGE, "%s: more than %d templates; name a smaller folder",
                       t->path, r->n);
    if (r->n == r->cap) {
        int cap = r->cap ? 2 * r->cap : 64;
        lw_template **v = lw_arena_calloc(&r->arena, (size_t)cap, sizeof(*v), err);

        if (!v)
            return LW_E_NOMEM;
        if (r->n)
            memcpy(v, r->v, (size_t)r->n * sizeof(*v));
        r->v = v;
        r->cap = cap;
    }
    r->v[r->n++] = t;
    return LW_OK;
}

/* Read a file and add it. `folder` is the name of the folder it lies in, or NULL. */
static lw_status load(lw_templates *r, const char *path, const struct stat *st, const char *folder,
                      lw_template **ret, lw_err *err)
{
    lw_template *t = lw_arena_calloc(&r->arena, 1, sizeof(*t), err);
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size_t n = strlen(base);
    lw_err why = { 0 };
    lw_status s;

    if (!t)
        return LW_E_NOMEM;
    *t = (lw_template){ .dev = st->st_dev, .ino = st->st_ino, .think_block = -1 };
    t->steps = -1;
    t->guidance = -1;
    if (n > 3 && !strcmp(base + n - 3, ".md"))
        n -= 3;
    t->path = lw_arena_strndup(&r->arena, path, strlen(path), err);
    t->stem = lw_arena_strndup(&r->arena, base, n, err);
    t->folder = folder ? lw_arena_strndup(&r->arena, folder, strlen(folder), err) : NULL;
    if (!t->path || !t->stem || (folder && !t->folder))
        return LW_E_NOMEM;
    t->name = t->stem;
    t->fm.body = "";
    s = read_content(r, t, &why);
    if (s == LW_E_NOMEM)
        return lw_fail(err, s, "%s", why.text);
    LW_TRY(s == LW_OK ? read_keys(r, t, err) : note_error(r, t, &why, err));
    LW_TRY(append(r, t, err));
    *ret = t;
    return LW_OK;
}

static lw_template *known(const lw_templates *r, const struct stat *st)
{
    for (int i = 0; i < r->n; i++)
        if (r->v[i]->ino == st->st_ino && r->v[i]->dev == st->st_dev)
            return r->v[i];
    return NULL;
}

lw_status lw_templates_add_file(lw_templates *r, const char *path, lw_template **ret, lw_err *err)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return lw_fail_errno(err, errno, path);
    if (!S_ISREG(st.st_mode))
        return lw_fail(err, LW_E_FORMAT, "%s: expected a file with a template, found %s", path,
                       S_ISDIR(st.st_mode) ? "a folder" : "a special file");
    *ret = known(r, &st);
    return *ret ? LW_OK : load(r, path, &st, NULL, ret, err);
}

static bool is_template_file(const char *name)
{
    const size_t n = strlen(name);

    return n > 3 && !strcmp(name + n - 3, ".md") && strcmp(name, "README.md") != 0;
}

/* A file that was added alone becomes one of the folder. */
static lw_status add_of_folder(lw_templates *r, const char *path, const struct stat *st,
                               const char *folder, lw_err *err)
{
    lw_template *t = known(r, st);

    if (!t)
        return load(r, path, st, folder, &t, err);
    if (!t->folder)
        t->folder = lw_arena_strndup(&r->arena, folder, strlen(folder), err);
    return t->folder ? LW_OK : LW_E_NOMEM;
}

static lw_status walk(lw_templates *r, const char *path, const char *folder, int depth, lw_err *err)
{
    DIR *dir = opendir(path);
    lw_status s = LW_OK;
    struct dirent *d;

    if (!dir)
        return lw_fail_errno(err, errno, path);
    while (s == LW_OK && (d = readdir(dir)) != NULL) {
        char sub[PATH_MAX];
        struct stat st;

        if (d->d_name[0] == '.')
            continue;
        if (snprintf(sub, sizeof(sub), "%s/%s", path, d->d_name) >= (int)sizeof(sub))
            s = lw_fail(err, LW_E_TOO_LARGE, "%s: the path below it is too long", path);
        else if (lstat(sub, &st) != 0) /* gone since */
            continue;
        else if (S_ISDIR(st.st_mode) && depth == LW_TEMPLATE_MAX_DEPTH)
            s = lw_fail(err, LW_E_TOO_LARGE, "%s: folders are nested deeper than %d", sub, depth);
        else if (S_ISDIR(st.st_mode))
            s = walk(r, sub, d->d_name, depth + 1, err);
        else if (S_ISREG(st.st_mode) && is_template_file(d->d_name))
            s = add_of_folder(r, sub, &st, folder, err);
    }
    closedir(dir);
    return s;
}

static int by_path(const void *a, const void *b)
{
    return strcmp((*(lw_template *const *)a)->path, (*(lw_template *const *)b)->path);
}

lw_status lw_templates_add_folder(lw_templates *r, const char *folder, lw_err *err)
{
    char path[PATH_MAX], real[PATH_MAX];
    size_t n = strlen(folder);

    if (!realpath(folder, real))
        return lw_fail_errno(err, errno, folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    snprintf(path, sizeof(path), "%.*s", (int)n, folder);
    LW_TRY(walk(r, path, strrchr(real, '/') + 1, 1, err));
    if (r->n)
        qsort(r->v, (size_t)r->n, sizeof(*r->v), by_path);
    return LW_OK;
}

/* ---- names ---- */

bool lw_template_is_name(const char *s)
{
    for (size_t i = 0; s[i]; i++) {
        if (s[i] == '-' ? i == 0 || s[i - 1] == '-' || !s[i + 1]
                        : !(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= '0' && s[i] <= '9'))
            return false;
    }
    return *s != '\0';
}

/* Some names that have the text in them, for "did you mean". */
static void similar(const lw_templates *r, const char *name, char *ret, size_t size)
{
    size_t len = 0;
    int n = 0;

    ret[0] = '\0';
    for (int i = 0; i < r->n && n < 5; i++) {
        const char *other = r->v[i]->name;

        if (!*name || !r->v[i]->folder || (!strstr(other, name) && !strstr(name, other)))
            continue;
        len += (size_t)snprintf(ret + len, size - len, "%s%s", n++ ? ", " : "; there is ", other);
        if (len >= size)
            return;
    }
}

lw_status lw_templates_find(const lw_templates *r, const char *name, const lw_template **ret,
                            lw_err *err)
{
    const lw_template *found = NULL;
    char others[256];

    for (int i = 0; i < r->n; i++) {
        if (!r->v[i]->folder || strcmp(r->v[i]->name, name) != 0)
            continue;
        if (found)
            return lw_fail(err, LW_E_PRECONDITION, "two templates are called \"%s\": %s and %s",
                           name, found->path, r->v[i]->path);
        found = r->v[i];
    }
    if (!found) {
        similar(r, name, others, sizeof(others));
        return lw_fail(err, LW_E_NOT_FOUND,
                       "no template is called \"%.200s\"%s; `latentwire templates list` shows all",
                       name, others);
    }
    *ret = found;
    return LW_OK;
}
