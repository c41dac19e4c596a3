/*
 * From a template to what it gives to a request: the chain of parents, one body out of theirs, the
 * variables filled in.
 */

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "orchestrate/templates.h"

#define SLOT           "{{body}}"
#define MAX_NAME_BYTES 64

/* ---- chains ---- */

lw_status lw_template_chain(const lw_templates *r, const lw_template *t,
                            const lw_template *ret[LW_TEMPLATE_MAX_DEPTH], int *ret_n,
                            const lw_template **ret_at, lw_err *err)
{
    int n = 0;

    for (;;) {
        const lw_template *parent;

        ret[n++] = t;
        *ret_n = n;
        *ret_at = t;
        if (!t->extends)
            return LW_OK;
        if (lw_templates_find(r, t->extends, &parent, err) != LW_OK)
            return err ? err->code : LW_E_NOT_FOUND;
        for (int i = 0; i < n; i++)
            if (ret[i] == parent) {
                *ret_at = parent;
                return lw_fail(err, LW_E_FORMAT, "\"%s\" is its own parent%s%s", parent->name,
                               i + 1 < n ? " by way of " : "", i + 1 < n ? ret[i + 1]->name : "");
            }
        if (n == LW_TEMPLATE_MAX_DEPTH) {
            *ret_at = ret[0];
            return lw_fail(err, LW_E_FORMAT, "\"%s\" has more than %d parents, one over the other",
                           ret[0]->name, n - 1);
        }
        t = parent;
    }
}

json_t *lw_template_tags(const lw_templates *r, const lw_template *t)
{
    const lw_template *chain[LW_TEMPLATE_MAX_DEPTH], *at;
    json_t *seen = json_object(), *tags = json_array();
    bool ok = seen && tags;
    lw_err ignored = { 0 };
    int n = 0;

    /* Of a broken chain, what there is of it. */
    (void)!lw_template_chain(r, t, chain, &n, &at, &ignored);
    for (int i = 0; ok && i < n; i++)
        for (int j = 0; ok && chain[i]->tags && j < chain[i]->tags->n_items; j++) {
            const char *tag = chain[i]->tags->items[j].text;

            if (json_object_get(seen, tag))
                continue;
            ok = json_object_set_new(seen, tag, json_true()) == 0 &&
                 json_array_append_new(tags, json_string(tag)) == 0;
        }
    json_decref(seen);
    if (ok)
        return tags;
    json_decref(tags);
    return NULL;
}

/* ---- variables ---- */

static size_t variable_len(const char *s)
{
    size_t n = 0;

    if (*s >= 'a' && *s <= 'z')
        while ((s[n] >= 'a' && s[n] <= 'z') || (s[n] >= '0' && s[n] <= '9') || s[n] == '_')
            n++;
    return n;
}

bool lw_template_is_variable(const char *name, size_t len)
{
    return len > 0 && len <= MAX_NAME_BYTES && variable_len(name) == len;
}

const char *lw_template_reference(const char *s, const char **ret_name, size_t *ret_len)
{
    while ((s = strstr(s, "{{")) != NULL) {
        size_t n = variable_len(s + 2);

        if (n > 0 && n <= MAX_NAME_BYTES && s[2 + n] == '}' && s[3 + n] == '}') {
            *ret_name = s + 2;
            *ret_len = n;
            return s;
        }
        s++; /* "{{{x}}" holds one too */
    }
    return NULL;
}

/* One rendering. */
typedef struct renderer {
    const lw_templates *r;
    const lw_template *chain[LW_TEMPLATE_MAX_DEPTH];
    int n;
    const lw_template_value *values;
    int n_values;
    lw_arena *a;
    lw_err *err;
} renderer;

/* The default that the template, or else the nearest parent, gives; NULL: nobody declares it. */
static const char *default_of(const renderer *g, const char *name, size_t len)
{
    for (int i = 0; i < g->n; i++) {
        const lw_fm_entry *e = g->chain[i]->variables;

        for (int j = 0; e && j < e->n_items; j++)
            if (strlen(e->items[j].key) == len && !memcmp(e->items[j].key, name, len))
                return e->items[j].text;
    }
    return NULL;
}

static const char *value_of(const renderer *g, const char *name, size_t len)
{
    for (int i = 0; i < g->n_values; i++)
        if (strlen(g->values[i].name) == len && !memcmp(g->values[i].name, name, len))
            return g->values[i].text;
    return default_of(g, name, len);
}

static lw_status unknown_variable(const renderer *g, const char *name)
{
    char all[512] = "";
    size_t len = 0;

    for (int i = 0; i < g->n; i++) {
        const lw_fm_entry *e = g->chain[i]->variables;

        for (int j = 0; e && j < e->n_items && len < sizeof(all); j++)
            len += (size_t)snprintf(all + len, sizeof(all) - len, "%s%s", len ? ", " : "",
                                    e->items[j].key);
    }
    return lw_fail(g->err, LW_E_INVALID, "the template %s has no variable \"%.100s\"; it has %s",
                   g->chain[0]->name, name, len ? all : "none");
}

static lw_status check_values(const renderer *g)
{
    for (int i = 0; i < g->n_values; i++) {
        const char *name = g->values[i].name;

        if (!default_of(g, name, strlen(name)))
            return unknown_variable(g, name);
        for (int j = 0; j < i; j++)
            if (!strcmp(g->values[j].name, name))
                return lw_fail(g->err, LW_E_INVALID, "the variable \"%s\" is given twice", name);
    }
    return LW_OK;
}

static lw_status keep(const renderer *g, lw_buf *b, const char *what, const char **ret)
{
    if (b->failed)
        return lw_fail(g->err, LW_E_TOO_LARGE,
                       "the %s of the template %s has more than %d bytes (or memory ran out)", what,
                       g->chain[0]->name, LW_TEMPLATE_MAX_BYTES);
    *ret = lw_arena_strndup(g->a, lw_buf_cstr(b), b->len, g->err);
    return *ret ? LW_OK : LW_E_NOMEM;
}

/* Values are put in as they are: what looks like a variable in them is text. */
static lw_status fill_in(const renderer *g, const char *what, const char *text, const char **ret)
{
    const char *name, *at;
    lw_status s = LW_OK;
    size_t len;
    lw_buf b;

    if (!text || !*text)
        return LW_OK;
    lw_buf_init(&b, LW_TEMPLATE_MAX_BYTES);
    while (s == LW_OK && (at = lw_template_reference(text, &name, &len)) != NULL) {
        const char *value = value_of(g, name, len);

        if (!value)
            s = lw_fail(g->err, LW_E_FORMAT,
                        "%s: the %s uses {{%.*s}}, which no `variables` declares",
                        g->chain[0]->path, what, (int)len, name);
        lw_buf_put(&b, text, (size_t)(at - text));
        lw_buf_puts(&b, value ? value : "");
        text = name + len + 2;
    }
    lw_buf_puts(&b, text);
    if (s == LW_OK)
        s = keep(g, &b, what, ret);
    lw_buf_deinit(&b);
    if (s == LW_OK && !**ret)
        *ret = NULL; /* a value may have been all of it */
    return s;
}

/* ---- bodies ---- */

/* A child's text goes where the parent's body has its slot, else behind it. */
static void put_in(lw_buf *b, const char *parent, const char *child)
{
    const char *slot = strstr(parent, SLOT), *rest;
    size_t before;

    if (!slot) {
        lw_buf_printf(b, "%s%s%s", parent, *parent && *child ? "\n\n" : "", child);
        return;
    }
    before = (size_t)(slot - parent);
    rest = slot + strlen(SLOT);
    /* A slot that stays empty and has a line of its own goes with its line. */
    if (!*child && (!before || slot[-1] == '\n') && (!*rest || *rest == '\n')) {
        rest += strspn(rest, "\n");
        while (!*rest && before > 0 && parent[before - 1] == '\n')
            before--;
    }
    lw_buf_put(b, parent, before);
    lw_buf_printf(b, "%s%s", child, rest);
}

/* From the child outwards, so that a parent's text stands within the grandparent's. */
static lw_status compose(const renderer *g, const char **ret)
{
    const char *text = "";

    for (int i = 0; i < g->n; i++) {
        lw_status s;
        lw_buf b;

        lw_buf_init(&b, LW_TEMPLATE_MAX_BYTES);
        put_in(&b, g->chain[i]->fm.body, text);
        s = keep(g, &b, "body", &text);
        lw_buf_deinit(&b);
        LW_TRY(s);
    }
    *ret = text;
    return LW_OK;
}

/* ---- the whole ---- */

static lw_status copy(const renderer *g, const char **text)
{
    if (!*text)
        return LW_OK;
    *text = lw_arena_strndup(g->a, *text, strlen(*text), g->err);
    return *text ? LW_OK : LW_E_NOMEM;
}

static lw_status get_chain(renderer *g, const lw_template *t)
{
    const lw_template *at;
    lw_err why = { 0 };

    if (lw_template_chain(g->r, t, g->chain, &g->n, &at, &why) != LW_OK)
        return lw_fail(g->err, LW_E_FORMAT, "%s:%d: %s", at->path, lw_template_line(at, "extends"),
                       why.text);
    for (int i = 0; i < g->n; i++)
        if (g->chain[i]->broken)
            return lw_fail(g->err, LW_E_FORMAT, "%s:%d: %s", g->chain[i]->path,
                           g->chain[i]->broken->line, g->chain[i]->broken->reason);
    return LW_OK;
}

/* Texts of the nearest template that says something; "" says that there is none. */
#define NEAREST(g, ret, member, absent)                                                            \
    for (int i = 0; i < (g)->n && (ret) == (absent); i++)                                          \
        (ret) = (g)->chain[i]->member;

json_t *lw_rendered_json(const lw_rendered *r)
{
    json_t *o = json_object();
    bool ok = o != NULL;

#define TEXT(key, member)                                                                          \
    if (ok && r->member)                                                                           \
        ok = json_object_set_new(o, key, json_string(r->member)) == 0;
    TEXT("system_prompt", system)
    TEXT("thinking", thinking)
    TEXT("assistant", assistant)
    TEXT("negative_prompt", negative)
    TEXT("size", size)
#undef TEXT
    if (ok && r->think_block >= 0)
        ok = json_object_set_new(o, "think_block", json_boolean(r->think_block)) == 0;
    if (ok && r->steps >= 0)
        ok = json_object_set_new(o, "steps", json_integer(r->steps)) == 0;
    if (ok && r->guidance >= 0)
        ok = json_object_set_new(o, "guidance", json_real(r->guidance)) == 0;
    if (ok && r->seed)
        ok = json_object_set_new(o, "seed", json_integer(strtoll(r->seed, NULL, 10))) == 0;
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

static lw_status set_digest(lw_rendered *r, lw_err *err)
{
    unsigned char hash[32];
    json_t *o = lw_rendered_json(r);
    char *text = o ? json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

    json_decref(o);
    if (!text)
        return lw_fail(err, LW_E_NOMEM, "no memory for a template");
    crypto_generichash(hash, sizeof(hash), (const unsigned char *)text, strlen(text), NULL, 0);
    sodium_bin2hex(r->digest, sizeof(r->digest), hash, sizeof(hash));
    free(text);
    return LW_OK;
}

lw_status lw_template_render(const lw_templates *r, const lw_template *t,
                             const lw_template_value *values, int n_values, lw_arena *a,
                             lw_rendered *ret, lw_err *err)
{
    renderer g = { .r = r, .values = values, .n_values = n_values, .a = a, .err = err };
    lw_rendered out = { .name = t->name, .think_block = -1, .steps = -1, .guidance = -1 };
    const char *body = NULL, *thinking = NULL, *assistant = NULL, *negative = NULL;

    LW_TRY(get_chain(&g, t));
    LW_TRY(check_values(&g));
    NEAREST(&g, thinking, thinking, NULL)
    NEAREST(&g, assistant, assistant, NULL)
    NEAREST(&g, negative, negative, NULL)
    NEAREST(&g, out.size, size, NULL)
    NEAREST(&g, out.seed, seed, NULL)
    NEAREST(&g, out.think_block, think_block, -1)
    NEAREST(&g, out.steps, steps, -1)
    NEAREST(&g, out.guidance, guidance, -1)
    LW_TRY(compose(&g, &body));
    LW_TRY(fill_in(&g, "body", body, &out.system));
    LW_TRY(fill_in(&g, "thinking", thinking, &out.thinking));
    LW_TRY(fill_in(&g, "assistant", assistant, &out.assistant));
    LW_TRY(fill_in(&g, "negative", negative, &out.negative));
    LW_TRY(copy(&g, &out.name));
    LW_TRY(copy(&g, &out.size));
    LW_TRY(copy(&g, &out.seed));
    LW_TRY(set_digest(&out, err));
    *ret = out;
    return LW_OK;
}
