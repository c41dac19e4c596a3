/* Experiments: from YAML to a grid, and from a grid to its cells. */

#include "orchestrate/experiment/grid.h"

#include <ctype.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/file.h"
#include "common/yaml.h"

#define MAX_DEPTH    5
#define MAX_ITEMS    1024
#define MAX_SETTINGS 128 /* of one cell */
#define DIGEST_BYTES 32

/* What decides a picture. */
static const lw_opt options[] = { LW_OPTS_PROMPT, LW_OPTS_TEMPLATE, LW_OPTS_SAMPLING, LW_OPTS_TILE,
                                  LW_OPT_END };

typedef struct loader {
    lw_grid *g;
    lw_arena *a;
    lw_err *err;
} loader;

static lw_status wrong(const loader *l, int line, const char *fmt, ...) LW_PRINTF(3, 4);

static lw_status wrong(const loader *l, int line, const char *fmt, ...)
{
    char reason[384];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(reason, sizeof(reason), fmt, ap);
    va_end(ap);
    return lw_fail(l->err, LW_E_FORMAT, "%s:%d: %s", l->g->path, line, reason);
}

/* ---- one option ---- */

static const lw_opt *find_option(const char *name)
{
    for (const lw_opt *o = options; o->name; o++)
        if (!strcmp(o->name, name))
            return o;
    return NULL;
}

/* The argument that sets an option; NULL with an error when the text is no value of a switch. */
static const char *argument_of(const lw_opt *o, const char *text, lw_arena *a, lw_err *err)
{
    static const char *const yes[] = { "true", "yes", "on", "1" };
    static const char *const no[] = { "false", "no", "off", "0" };

    if (o->kind != LW_OPT_FLAG && o->kind != LW_OPT_SWITCH)
        return lw_arena_printf(a, err, "--%s=%s", o->name, text);
    for (size_t i = 0; i < LW_ARRAY_LEN(yes); i++)
        if (!strcasecmp(text, yes[i]) || !strcasecmp(text, no[i]))
            return lw_arena_printf(a, err, "--%s%s", strcasecmp(text, yes[i]) ? "no-" : "",
                                   o->name);
    lw_fail(err, LW_E_INVALID, "--%s: \"%.60s\" is not true or false", o->name, text);
    return NULL;
}

static lw_status parse_settings(const lw_grid_setting *const *list, int n, lw_arena *a,
                                lw_settings *ret, lw_err *err)
{
    char *argv[MAX_SETTINGS + 2] = { (char *)"experiment" };
    const char *rest[1];
    int argc = 1, n_rest;
    bool help;

    for (int i = 0; i < n; i++) {
        const lw_opt *o = find_option(list[i]->name);

        if (!o)
            continue; /* the prompt */
        argv[argc] = (char *)argument_of(o, list[i]->text, a, err);
        if (!argv[argc++])
            return err ? err->code : LW_E_INVALID;
    }
    *ret = (lw_settings){ .think = -1, .guidance = -1 };
    return lw_opt_parse(options, argc, argv, ret, rest, 0, &n_rest, &help, err);
}

static lw_status check_name(const char *name, lw_err *err)
{
    static const struct {
        const char *name, *instead;
    } others[] = { { "count", "list `seeds`" },
                   { "templates", "name the folder on the command line" } };

    for (size_t i = 0; i < LW_ARRAY_LEN(others); i++)
        if (!strcmp(name, others[i].name))
            return lw_fail(err, LW_E_INVALID, "\"%s\" cannot be set here; %s", name,
                           others[i].instead);
    if (!find_option(name))
        return lw_fail(err, LW_E_INVALID,
                       "there is no option \"%.60s\" that decides a picture (latentwire generate "
                       "--help lists them)",
                       name);
    return LW_OK;
}

/* A name that is known and a value that it takes. */
static lw_status check_setting(const lw_grid_setting *s, bool may_prompt, lw_arena *a, lw_err *err)
{
    lw_settings trial;

    if (!strcmp(s->name, "prompt") && may_prompt)
        return LW_OK;
    if (!strcmp(s->name, "prompt") || !strcmp(s->name, "seed"))
        return lw_fail(err, LW_E_INVALID, "\"%s\" cannot be set here; list `%ss`", s->name,
                       s->name);
    LW_TRY(check_name(s->name, err));
    return parse_settings(&s, 1, a, &trial, err);
}

static lw_status add_setting(loader *l, lw_grid_value *v, lw_grid_setting s, bool may_prompt)
{
    lw_grid_setting *more;
    lw_err why = { 0 };

    if (check_setting(&s, may_prompt, l->a, &why) != LW_OK)
        return wrong(l, s.line, "%s", why.text);
    if (v->n == MAX_SETTINGS / 4)
        return wrong(l, s.line, "more than %d settings", MAX_SETTINGS / 4);
    more = lw_arena_calloc(l->a, (size_t)v->n + 1, sizeof(*more), l->err);
    if (!more)
        return LW_E_NOMEM;
    if (v->n)
        memcpy(more, v->settings, (size_t)v->n * sizeof(*more));
    more[v->n++] = s;
    v->settings = more;
    return LW_OK;
}

/* A setting from YAML: text, or for `var` a list or a mapping of texts. */
static lw_status take_setting(loader *l, const lw_yaml *y, bool may_prompt, lw_grid_value *v)
{
    const lw_opt *o = find_option(y->key);

    if (y->kind == LW_YAML_TEXT)
        return add_setting(l, v, (lw_grid_setting){ y->key, y->text, y->line }, may_prompt);
    if (!o || o->kind != LW_OPT_LIST)
        return wrong(l, y->line, "\"%s\" takes one text, not a %s", y->key,
                     y->kind == LW_YAML_LIST ? "list" : "mapping");
    for (int i = 0; i < y->n_items; i++) {
        const lw_yaml *item = &y->items[i];
        const char *text = item->text;

        if (item->kind != LW_YAML_TEXT)
            return wrong(l, item->line, "\"%s\" takes texts", y->key);
        if (y->kind == LW_YAML_MAP)
            text = lw_arena_printf(l->a, l->err, "%s=%s", item->key, item->text);
        if (!text)
            return LW_E_NOMEM;
        LW_TRY(add_setting(l, v, (lw_grid_setting){ y->key, text, item->line }, may_prompt));
    }
    return LW_OK;
}

/* ---- axes ---- */

static lw_status check_label(const loader *l, const lw_grid_axis *axis, const char *label, int line)
{
    if (!*label || strlen(label) > LW_GRID_MAX_LABEL_BYTES || strchr(label, '\n'))
        return wrong(l, line, "\"%.40s\" of \"%s\" needs a label, one line of 1 to %d bytes", label,
                     axis->name, LW_GRID_MAX_LABEL_BYTES);
    for (int i = 0; i < axis->n; i++)
        if (!strcmp(axis->values[i].label, label))
            return wrong(l, line, "\"%s\" has the value \"%s\" twice", axis->name, label);
    return LW_OK;
}

static lw_status take_value(loader *l, const lw_yaml *y, lw_grid_axis *axis)
{
    lw_grid_value *v = &axis->values[axis->n];
    const lw_yaml *label = lw_yaml_find(y, "label");

    v->line = y->line;
    if (y->kind == LW_YAML_LIST)
        return wrong(l, y->line, "a value of \"%s\" is a text or a mapping with a label",
                     axis->name);
    if (y->kind == LW_YAML_TEXT) {
        v->label = y->text;
        LW_TRY(check_label(l, axis, v->label, y->line));
        LW_TRY(add_setting(l, v, (lw_grid_setting){ axis->name, y->text, y->line }, true));
        axis->n++;
        return LW_OK;
    }
    if (!label || label->kind != LW_YAML_TEXT)
        return wrong(l, y->line, "a value of \"%s\" that is a mapping needs a label", axis->name);
    v->label = label->text;
    LW_TRY(check_label(l, axis, v->label, label->line));
    for (int i = 0; i < y->n_items; i++)
        if (&y->items[i] != label)
            LW_TRY(take_setting(l, &y->items[i], true, v));
    axis->n++;
    return LW_OK;
}

static lw_status new_axis(loader *l, const char *name, int line, int n, lw_grid_axis **ret)
{
    lw_grid *g = l->g;
    lw_grid_axis *axis = &g->axes[g->n_axes];

    for (int i = 0; i < g->n_axes; i++)
        if (!strcmp(g->axes[i].name, name))
            return wrong(l, line, "there are two axes \"%s\"", name);
    if (g->n_axes == LW_GRID_MAX_AXES)
        return wrong(l, line, "more than %d axes", LW_GRID_MAX_AXES);
    if (n == 0)
        return wrong(l, line, "\"%s\" has no values", name);
    *axis = (lw_grid_axis){ .name = name, .line = line };
    axis->values = lw_arena_calloc(l->a, (size_t)n, sizeof(*axis->values), l->err);
    if (!axis->values)
        return LW_E_NOMEM;
    g->n_axes++;
    *ret = axis;
    return LW_OK;
}

static lw_status take_axis(loader *l, const char *name, int line, const lw_yaml *title,
                           const lw_yaml *values)
{
    lw_grid_axis *axis;

    if (!strcmp(name, "prompt") || !strcmp(name, "seed"))
        return wrong(l, line, "\"%s\" is no axis of `axes`; list `%ss`", name, name);
    if (!values || values->kind != LW_YAML_LIST)
        return wrong(l, line, "the axis \"%s\" needs a list of values", name);
    if (title && title->kind != LW_YAML_TEXT)
        return wrong(l, title->line, "a title is one text");
    LW_TRY(new_axis(l, name, line, values->n_items, &axis));
    axis->title = title ? title->text : NULL;
    for (int i = 0; i < values->n_items; i++)
        LW_TRY(take_value(l, &values->items[i], axis));
    return LW_OK;
}

static lw_status check_keys(const loader *l, const lw_yaml *map, const char *const *known,
                            const char *what)
{
    for (int i = 0; i < map->n_items; i++) {
        const char *const *k = known;

        while (*k && strcmp(*k, map->items[i].key) != 0)
            k++;
        if (!*k)
            return wrong(l, map->items[i].line, "%s has no key \"%s\"", what, map->items[i].key);
    }
    return LW_OK;
}

static lw_status take_axes(loader *l, const lw_yaml *y)
{
    static const char *const keys[] = { "name", "title", "values", NULL };

    if (y->kind == LW_YAML_TEXT)
        return wrong(l, y->line, "`axes` is a mapping of names to lists of values");
    for (int i = 0; i < y->n_items; i++) {
        const lw_yaml *v = &y->items[i], *name = lw_yaml_find(v, "name");
        const char *text = v->key;

        if (v->kind == LW_YAML_MAP)
            LW_TRY(check_keys(l, v, keys, "an axis"));
        if (y->kind == LW_YAML_LIST) {
            if (!name || name->kind != LW_YAML_TEXT)
                return wrong(l, v->line, "an axis of a list needs a name");
            text = name->text;
        } else if (name) {
            return wrong(l, name->line, "the axis \"%s\" has a name already", v->key);
        }
        LW_TRY(take_axis(l, text, v->line, lw_yaml_find(v, "title"),
                         v->kind == LW_YAML_MAP ? lw_yaml_find(v, "values") : v));
    }
    return LW_OK;
}

/* ---- prompts ---- */

static lw_status add_prompt(loader *l, lw_grid_axis *axis, const char *id, const char *text,
                            int line)
{
    lw_grid_value *v = &axis->values[axis->n];

    LW_TRY(check_label(l, axis, id, line));
    *v = (lw_grid_value){ .label = id, .line = line };
    LW_TRY(add_setting(l, v, (lw_grid_setting){ "prompt", text, line }, true));
    axis->n++;
    return LW_OK;
}

static lw_status take_prompt_list(loader *l, const lw_yaml *y)
{
    static const char *const keys[] = { "id", "text", NULL };
    lw_grid_axis *axis;

    LW_TRY(new_axis(l, "prompt", y->line, y->n_items, &axis));
    for (int i = 0; i < y->n_items; i++) {
        const lw_yaml *v = &y->items[i], *id = lw_yaml_find(v, "id"),
                      *text = v->kind == LW_YAML_TEXT ? v : lw_yaml_find(v, "text");
        const char *label;

        if (v->kind == LW_YAML_MAP)
            LW_TRY(check_keys(l, v, keys, "a prompt"));
        if (!text || text->kind != LW_YAML_TEXT || (id && id->kind != LW_YAML_TEXT))
            return wrong(l, v->line, "a prompt is a text, or a mapping with id and text");
        label = id ? id->text : text->text;
        if (!id && (strlen(label) > LW_GRID_MAX_LABEL_BYTES || strchr(label, '\n')))
            label = lw_arena_printf(l->a, l->err, "prompt-%d", i + 1);
        if (!label)
            return LW_E_NOMEM;
        LW_TRY(add_prompt(l, axis, label, text->text, v->line));
    }
    return LW_OK;
}

static bool lists(const lw_yaml *y, const char *text)
{
    if (!y)
        return true;
    if (y->kind == LW_YAML_TEXT)
        return !strcmp(y->text, text);
    for (int i = 0; i < y->n_items; i++)
        if (y->items[i].text && !strcmp(y->items[i].text, text))
            return true;
    return false;
}

static const char *text_of(const lw_yaml *map, const char *key)
{
    const lw_yaml *v = lw_yaml_find(map, key);

    return v && v->text ? v->text : "";
}

static lw_status read_yaml(const char *path, lw_arena *a, lw_yaml *ret, const char **ret_text,
                           size_t *ret_n, lw_err *err)
{
    const lw_yaml_limits limits = { .max_depth = MAX_DEPTH, .max_items = MAX_ITEMS };
    char *text = NULL, *copy = NULL;
    size_t n = 0;
    lw_status s = lw_file_read(path, LW_GRID_MAX_FILE_BYTES, &text, &n, err);

    if (s == LW_OK)
        s = lw_yaml_check_text(text, n, LW_GRID_MAX_FILE_BYTES, path, err);
    if (s == LW_OK && !(copy = lw_arena_strndup(a, text, n, err)))
        s = LW_E_NOMEM;
    free(text);
    LW_TRY(s);
    *ret_text = copy;
    *ret_n = n;
    return lw_yaml_parse(copy, n, path, "the file", &limits, a, ret, err);
}

/* Every id that was asked for must be there. */
static lw_status check_ids(loader *l, const lw_yaml *ids, const lw_grid_axis *axis)
{
    for (int i = 0; ids && i < ids->n_items; i++) {
        bool found = false;

        for (int k = 0; k < axis->n; k++)
            found =
                found || (ids->items[i].text && !strcmp(axis->values[k].label, ids->items[i].text));
        if (!found)
            return wrong(l, ids->items[i].line, "no standard prompt of these has the id \"%.60s\"",
                         ids->items[i].text ? ids->items[i].text : "");
    }
    return LW_OK;
}

/* Out of the standard prompts: those that all of category, difficulty and ids name. */
static lw_status take_standard_prompts(loader *l, const lw_yaml *y)
{
    static const char *const keys[] = { "category", "difficulty", "ids", NULL };
    const lw_yaml *category = lw_yaml_find(y, "category"), *ids = lw_yaml_find(y, "ids"),
                  *difficulty = lw_yaml_find(y, "difficulty"), *all;
    char dir[PATH_MAX];
    lw_grid_axis *axis;
    const char *text, *path;
    lw_yaml standard;
    size_t n;

    LW_TRY(check_keys(l, y, keys, "a choice of standard prompts"));
    if (ids && ids->kind != LW_YAML_LIST)
        return wrong(l, ids->line, "`ids` is a list");
    LW_TRY(lw_locate_experiments(dir, l->err));
    path = lw_arena_printf(l->a, l->err, "%s/prompts.yaml", dir);
    if (!path)
        return LW_E_NOMEM;
    LW_TRY(read_yaml(path, l->a, &standard, &text, &n, l->err));
    all = lw_yaml_find(&standard, "prompts");
    if (!all || all->kind != LW_YAML_LIST)
        return lw_fail(l->err, LW_E_FORMAT, "%s:1: no list `prompts`", path);
    LW_TRY(new_axis(l, "prompt", y->line, all->n_items, &axis));
    for (int i = 0; i < all->n_items; i++) {
        const lw_yaml *p = &all->items[i];
        const char *id = text_of(p, "id");

        if (lists(category, text_of(p, "category")) && lists(ids, id) &&
            lists(difficulty, text_of(p, "difficulty")))
            LW_TRY(add_prompt(l, axis, id, text_of(p, "prompt"), y->line));
    }
    if (axis->n == 0)
        return wrong(l, y->line, "no standard prompt is of that category, difficulty and ids");
    return check_ids(l, ids, axis);
}

/* ---- seeds ---- */

static lw_status add_seed(loader *l, lw_grid_axis *axis, const char *text, int line)
{
    lw_grid_value *v = &axis->values[axis->n];
    lw_err why = { 0 };
    uint64_t seed;

    if (lw_parse_seed(text, &seed, &why) != LW_OK)
        return wrong(l, line, "seeds: \"%.60s\" is not a number from 0 to 2^63 - 1", text);
    LW_TRY(check_label(l, axis, text, line));
    *v = (lw_grid_value){ .label = text, .line = line, .n = 1 };
    v->settings = lw_arena_calloc(l->a, 1, sizeof(*v->settings), l->err);
    if (!v->settings)
        return LW_E_NOMEM;
    v->settings[0] = (lw_grid_setting){ "seed", text, line };
    axis->n++;
    return LW_OK;
}

/* "3" is seeds 1 to 3, "5..8" those. */
static lw_status take_seed_range(loader *l, const lw_yaml *y)
{
    const char *dots = strstr(y->text, "..");
    char head[24] = "1";
    uint64_t first = 1, last = 0;
    lw_grid_axis *axis;
    bool good = true;

    if (dots && dots - y->text < (ptrdiff_t)sizeof(head)) {
        snprintf(head, sizeof(head), "%.*s", (int)(dots - y->text), y->text);
        good = lw_parse_seed(head, &first, NULL) == LW_OK;
    }
    good = good && lw_parse_seed(dots ? dots + 2 : y->text, &last, NULL) == LW_OK;
    if (!good || last < first || last - first >= MAX_ITEMS)
        return wrong(l, y->line, "`seeds` is a list, a number of seeds, or a range such as 5..8");
    LW_TRY(new_axis(l, "seed", y->line, (int)(last - first + 1), &axis));
    for (uint64_t s = first; s <= last; s++) {
        const char *text = lw_arena_printf(l->a, l->err, "%llu", (unsigned long long)s);

        if (!text)
            return LW_E_NOMEM;
        LW_TRY(add_seed(l, axis, text, y->line));
    }
    return LW_OK;
}

static lw_status take_seeds(loader *l, const lw_yaml *y)
{
    static const lw_yaml one = { .kind = LW_YAML_TEXT, .text = "1", .line = 1 };
    lw_grid_axis *axis;

    if (!y)
        y = &one;
    if (y->kind == LW_YAML_TEXT)
        return take_seed_range(l, y);
    if (y->kind == LW_YAML_MAP)
        return wrong(l, y->line, "`seeds` is a list, a number of seeds, or a range such as 5..8");
    LW_TRY(new_axis(l, "seed", y->line, y->n_items, &axis));
    for (int i = 0; i < y->n_items; i++) {
        if (y->items[i].kind != LW_YAML_TEXT)
            return wrong(l, y->items[i].line, "a seed is a number");
        LW_TRY(add_seed(l, axis, y->items[i].text, y->items[i].line));
    }
    return LW_OK;
}

/* ---- the whole ---- */

static lw_status take_baseline(loader *l, const lw_yaml *y)
{
    lw_grid *g = l->g;

    for (int i = 0; i < LW_GRID_MAX_AXES; i++)
        g->baseline[i] = -1;
    if (!y)
        return LW_OK;
    if (y->kind != LW_YAML_MAP)
        return wrong(l, y->line, "`baseline` is a mapping of axes to values");
    for (int i = 0; i < y->n_items; i++) {
        const lw_yaml *v = &y->items[i];
        int axis = 0, value = 0;

        while (axis < g->n_axes && strcmp(g->axes[axis].name, v->key) != 0)
            axis++;
        if (axis == g->n_axes)
            return wrong(l, v->line, "there is no axis \"%s\"", v->key);
        while (v->text && value < g->axes[axis].n &&
               strcmp(g->axes[axis].values[value].label, v->text) != 0)
            value++;
        if (!v->text || value == g->axes[axis].n)
            return wrong(l, v->line, "the axis \"%s\" has no value \"%.60s\"", v->key,
                         v->text ? v->text : "");
        g->baseline[axis] = value;
        g->has_baseline = true;
    }
    return LW_OK;
}

/* An option that two axes set would be that of the later one alone. */
static lw_status check_conflicts(const loader *l, const lw_grid_axis *a, const lw_grid_axis *b)
{
    for (int i = 0; i < a->n; i++)
        for (int k = 0; k < a->values[i].n; k++)
            for (int j = 0; j < b->n; j++)
                for (int m = 0; m < b->values[j].n; m++) {
                    const lw_grid_setting *s = &b->values[j].settings[m];

                    if (strcmp(s->name, a->values[i].settings[k].name) != 0 ||
                        !strcmp(s->name, "var"))
                        continue;
                    return wrong(l, s->line, "the axes \"%s\" and \"%s\" both set \"%s\"", a->name,
                                 b->name, s->name);
                }
    return LW_OK;
}

static lw_status count_cells(const loader *l)
{
    lw_grid *g = l->g;
    int64_t n = 1;

    for (int i = 0; i < g->n_axes; i++) {
        for (int k = 0; k < i; k++)
            LW_TRY(check_conflicts(l, &g->axes[k], &g->axes[i]));
        n *= g->axes[i].n;
        if (n > LW_GRID_MAX_CELLS)
            return wrong(l, g->axes[i].line, "the grid has more than %d cells", LW_GRID_MAX_CELLS);
    }
    g->n_cells = (int)n;
    return LW_OK;
}

static lw_status take_text(const loader *l, const lw_yaml *root, const char *key, const char **ret)
{
    const lw_yaml *v = lw_yaml_find(root, key);

    if (v && v->kind != LW_YAML_TEXT)
        return wrong(l, v->line, "`%s` is one text", key);
    *ret = v ? v->text : NULL;
    return LW_OK;
}

static lw_status take_name(const loader *l, const lw_yaml *root)
{
    const lw_yaml *v = lw_yaml_find(root, "name");
    const char *name = l->g->name;

    if (!name)
        return wrong(l, 1, "the experiment has no name");
    for (const char *c = name; *c; c++)
        if (!islower((unsigned char)*c) && !isdigit((unsigned char)*c) && (*c != '-' || c == name))
            return wrong(l, v->line,
                         "the name \"%.60s\" is not of lower-case words and digits "
                         "joined by hyphens",
                         name);
    if (!*name || strlen(name) > LW_GRID_MAX_LABEL_BYTES)
        return wrong(l, v->line, "the name is not of 1 to %d bytes", LW_GRID_MAX_LABEL_BYTES);
    return LW_OK;
}

static bool axes_set(const lw_grid *g, const char *name)
{
    for (int i = 0; i < g->n_axes; i++)
        for (int k = 0; k < g->axes[i].n; k++)
            for (int m = 0; m < g->axes[i].values[k].n; m++)
                if (!strcmp(g->axes[i].values[k].settings[m].name, name))
                    return true;
    return false;
}

static lw_status take_prompts(loader *l, const lw_yaml *y)
{
    if (!y && axes_set(l->g, "prompt"))
        return LW_OK;
    if (!y)
        return wrong(l, 1, "the experiment has no prompts");
    if (y->kind == LW_YAML_LIST)
        return take_prompt_list(l, y);
    if (y->kind == LW_YAML_MAP)
        return take_standard_prompts(l, y);
    return wrong(l, y->line, "`prompts` is a list, or a mapping with category, difficulty or ids");
}

static lw_status take_root(loader *l, const lw_yaml *root)
{
    static const char *const keys[] = { "name", "title",   "description", "question", "settings",
                                        "axes", "prompts", "seeds",       "baseline", NULL };
    const lw_yaml *settings = lw_yaml_find(root, "settings"), *axes = lw_yaml_find(root, "axes");
    lw_grid *g = l->g;

    LW_TRY(check_keys(l, root, keys, "an experiment"));
    LW_TRY(take_text(l, root, "name", &g->name));
    LW_TRY(take_text(l, root, "title", &g->title));
    LW_TRY(take_text(l, root, "description", &g->description));
    LW_TRY(take_text(l, root, "question", &g->question));
    LW_TRY(take_name(l, root));
    if (!g->title)
        g->title = g->name;
    if (settings && settings->kind != LW_YAML_MAP)
        return wrong(l, settings->line, "`settings` is a mapping of options to values");
    for (int i = 0; settings && i < settings->n_items; i++)
        LW_TRY(take_setting(l, &settings->items[i], false, &g->base));
    if (axes)
        LW_TRY(take_axes(l, axes));
    LW_TRY(take_prompts(l, lw_yaml_find(root, "prompts")));
    LW_TRY(take_seeds(l, lw_yaml_find(root, "seeds")));
    LW_TRY(take_baseline(l, lw_yaml_find(root, "baseline")));
    return count_cells(l);
}

/* --set, which replaces what `settings` has. */
static lw_status apply_set(loader *l, const lw_opt_list *set)
{
    for (int i = 0; set && i < set->n; i++) {
        const char *eq = strchr(set->items[i], '=');
        lw_grid_setting s = { .text = eq ? eq + 1 : "", .line = 1 };
        lw_err why = { 0 };

        if (!eq)
            return lw_fail(l->err, LW_E_INVALID,
                           "--set: \"%.100s\" is not of the form OPTION=VALUE", set->items[i]);
        s.name = lw_arena_strndup(l->a, set->items[i], (size_t)(eq - set->items[i]), l->err);
        if (!s.name)
            return LW_E_NOMEM;
        if (check_setting(&s, false, l->a, &why) != LW_OK)
            return lw_fail(l->err, LW_E_INVALID, "--set: %s", why.text);
        if (axes_set(l->g, s.name) && strcmp(s.name, "var") != 0)
            return lw_fail(l->err, LW_E_INVALID, "--set: \"%s\" is what an axis of %s varies",
                           s.name, l->g->path);
        LW_TRY(add_setting(l, &l->g->base, s, false));
    }
    return LW_OK;
}

lw_status lw_grid_load(const char *path, const lw_opt_list *set, lw_arena *a, lw_grid *ret,
                       lw_err *err)
{
    loader l = { .g = ret, .a = a, .err = err };
    lw_yaml root;

    *ret = (lw_grid){ .path = path };
    LW_TRY(read_yaml(path, a, &root, &ret->text, &ret->n_text, err));
    LW_TRY(take_root(&l, &root));
    return apply_set(&l, set);
}

/* ---- cells ---- */

void lw_grid_at(const lw_grid *g, int i, int at[LW_GRID_MAX_AXES])
{
    for (int k = g->n_axes - 1; k >= 0; k--) {
        at[k] = i % g->axes[k].n;
        i /= g->axes[k].n;
    }
}

int lw_grid_index(const lw_grid *g, const int at[LW_GRID_MAX_AXES])
{
    int i = 0;

    for (int k = 0; k < g->n_axes; k++)
        i = i * g->axes[k].n + at[k];
    return i;
}

const char *lw_grid_describe(const lw_grid *g, const int at[LW_GRID_MAX_AXES], lw_arena *a,
                             lw_err *err)
{
    const char *text = "";

    for (int k = 0; text && k < g->n_axes; k++)
        text = lw_arena_printf(a, err, "%s%s%s=%s", text, k ? ", " : "", g->axes[k].name,
                               g->axes[k].values[at[k]].label);
    return text;
}

static json_t *typed(const lw_opt *o, const char *text)
{
    if (o && (o->kind == LW_OPT_FLAG || o->kind == LW_OPT_SWITCH))
        return json_boolean(strchr("tTyY1", text[0]) || !strcasecmp(text, "on"));
    if (o && o->kind == LW_OPT_INT)
        return json_integer(strtoll(text, NULL, 10));
    if (o && o->kind == LW_OPT_DOUBLE)
        return json_real(strtod(text, NULL));
    return json_string(text);
}

static lw_status note_setting(json_t *to, const lw_grid_setting *s, lw_err *err)
{
    const lw_opt *o = find_option(s->name);
    json_t *list;

    if (!o || o->kind != LW_OPT_LIST) {
        if (json_object_set_new(to, s->name, typed(o, s->text)) == 0)
            return LW_OK;
        return lw_fail(err, LW_E_NOMEM, "no memory for the settings of a cell");
    }
    list = json_object_get(to, s->name);
    if (!list && json_object_set_new(to, s->name, list = json_array()))
        list = NULL;
    if (json_array_append_new(list, json_string(s->text)) == 0)
        return LW_OK;
    return lw_fail(err, LW_E_NOMEM, "no memory for the settings of a cell");
}

static lw_status set_id(lw_grid_cell *c, lw_err *err)
{
    char *text = json_dumps(c->settings, JSON_COMPACT | JSON_SORT_KEYS);
    uint8_t digest[DIGEST_BYTES];

    if (!text || sodium_init() < 0)
        return lw_fail(err, LW_E_NOMEM, "no memory for the settings of a cell");
    crypto_generichash(digest, sizeof(digest), (const uint8_t *)text, strlen(text), NULL, 0);
    free(text);
    sodium_bin2hex(c->id, sizeof(c->id), digest, LW_GRID_ID_CHARS / 2);
    return LW_OK;
}

static lw_status make_cell(const lw_grid *g, int index, const char *templates, lw_arena *a,
                           lw_grid_cell *c, lw_err *err)
{
    const lw_grid_setting *all[MAX_SETTINGS];
    const char *prompt = NULL;
    int n = 0;

    lw_grid_at(g, index, c->at);
    c->settings = json_object();
    for (int k = -1; k < g->n_axes; k++) {
        const lw_grid_value *v = k < 0 ? &g->base : &g->axes[k].values[c->at[k]];

        for (int i = 0; i < v->n; i++) {
            if (n == MAX_SETTINGS)
                return lw_fail(err, LW_E_INVALID, "more than %d settings", MAX_SETTINGS);
            all[n++] = &v->settings[i];
            LW_TRY(note_setting(c->settings, &v->settings[i], err));
            if (!strcmp(v->settings[i].name, "prompt"))
                prompt = v->settings[i].text;
        }
    }
    LW_TRY(parse_settings(all, n, a, &c->job.opt, err));
    c->job.opt.count = 1;
    if (templates)
        c->job.opt.templates = templates;
    if (prompt && !strcmp(prompt, "-"))
        return lw_fail(err, LW_E_INVALID, "an experiment reads no prompt from standard input");
    LW_TRY(lw_picture_job_check(&c->job, prompt, a, err));
    return set_id(c, err);
}

static int compare_ids(const void *a, const void *b)
{
    const lw_grid_cell *const *x = a, *const *y = b;

    return strcmp((*x)->id, (*y)->id);
}

static lw_status check_unique(const lw_grid *g, const lw_grid_cell *cells, lw_arena *a, lw_err *err)
{
    const lw_grid_cell **sorted = lw_arena_calloc(a, (size_t)g->n_cells, sizeof(*sorted), err);

    if (!sorted)
        return LW_E_NOMEM;
    for (int i = 0; i < g->n_cells; i++)
        sorted[i] = &cells[i];
    qsort(sorted, (size_t)g->n_cells, sizeof(*sorted), compare_ids);
    for (int i = 1; i < g->n_cells; i++)
        if (!strcmp(sorted[i]->id, sorted[i - 1]->id)) {
            const char *one = lw_grid_describe(g, sorted[i - 1]->at, a, NULL);
            const char *two = lw_grid_describe(g, sorted[i]->at, a, NULL);

            return lw_fail(err, LW_E_FORMAT, "%s: two cells have the same settings: %s; %s",
                           g->path, one ? one : "", two ? two : "");
        }
    return LW_OK;
}

lw_status lw_grid_expand(const lw_grid *g, const char *templates, lw_arena *a, lw_grid_cell **ret,
                         lw_err *err)
{
    lw_grid_cell *cells = lw_arena_calloc(a, (size_t)g->n_cells, sizeof(*cells), err);
    lw_status s = cells ? LW_OK : LW_E_NOMEM;

    for (int i = 0; s == LW_OK && i < g->n_cells; i++) {
        lw_err why = { 0 };

        s = make_cell(g, i, templates, a, &cells[i], &why);
        if (s != LW_OK) {
            const char *what = lw_grid_describe(g, cells[i].at, a, NULL);

            s = lw_fail(err, s, "%s: %s: %s", g->path, what ? what : "", why.text);
        }
    }
    if (s == LW_OK)
        s = check_unique(g, cells, a, err);
    if (s == LW_OK)
        *ret = cells;
    else
        lw_grid_drop_cells(cells, cells ? g->n_cells : 0);
    return s;
}

void lw_grid_drop_cells(lw_grid_cell *cells, int n)
{
    for (int i = 0; i < n; i++)
        json_decref(cells[i].settings);
}
