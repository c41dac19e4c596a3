/*
 * `latentwire templates`: what templates there are, what one says and gives, whether files are
 * as they should be, and a new one to begin with.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "orchestrate/cli.h"
#include "orchestrate/locate.h"
#include "orchestrate/template_use.h"

#define MODEL_FOLDER "z_image"

typedef struct template_options {
    const char *templates, *category, *tag;
    lw_opt_list variables;
    bool json;
} template_options;

#define SET(m) offsetof(template_options, m)

/* clang-format off */
static const lw_opt options[] = {
    { .name = "templates", .kind = LW_OPT_STR, .offset = SET(templates), .value = "DIR",
      .help = "folder of templates (default: those of the project)" },
    { .name = "category", .letter = 'c', .kind = LW_OPT_STR, .offset = SET(category), .value = "C",
      .help = "list: only this category; new: the one it is for" },
    { .name = "tag", .kind = LW_OPT_STR, .offset = SET(tag), .value = "T",
      .help = "list: only those with this tag" },
    { .name = "var", .kind = LW_OPT_LIST, .offset = SET(variables), .value = "NAME=TEXT",
      .help = "render: value of a variable" },
    { .name = "json", .kind = LW_OPT_FLAG, .offset = SET(json), .help = "print JSON" },
    LW_OPT_END
};
/* clang-format on */

/* One run of the verb. */
typedef struct run {
    lw_cli *cli;
    template_options opt;
    const char **args; /* behind the word that says what to do */
    int n_args;
    lw_templates *r;
    lw_arena arena;
    lw_err *err;
} run;

static lw_status no_memory(lw_err *err)
{
    return lw_fail(err, LW_E_NOMEM, "no memory for templates");
}

static lw_status flushed(lw_err *err)
{
    if (fflush(stdout))
        return lw_fail(err, LW_E_IO, "cannot write to standard output: %s", strerror(errno));
    return LW_OK;
}

/* Print an object, which is used up. */
static lw_status print_json(json_t *o, lw_err *err)
{
    if (!o)
        return no_memory(err);
    if (json_dumpf(o, stdout, JSON_COMPACT | JSON_SORT_KEYS) == 0)
        putchar('\n');
    json_decref(o);
    return flushed(err);
}

/* Set a member; NULL values are left out. False: no memory. */
static bool set_text(json_t *o, const char *key, const char *text)
{
    return !text || json_object_set_new(o, key, json_string(text)) == 0;
}

static json_t *value_json(const lw_fm_entry *e)
{
    json_t *v;
    bool ok;

    if (e->kind == LW_FM_TEXT)
        return json_string(e->text);
    v = e->kind == LW_FM_LIST ? json_array() : json_object();
    ok = v != NULL;
    for (int i = 0; ok && i < e->n_items; i++) {
        json_t *text = json_string(e->items[i].text);

        ok = e->kind == LW_FM_LIST ? json_array_append_new(v, text) == 0
                                   : json_object_set_new(v, e->items[i].key, text) == 0;
    }
    if (ok)
        return v;
    json_decref(v);
    return NULL;
}

static lw_status load_all(run *g)
{
    char dir[PATH_MAX];

    LW_TRY(lw_locate_templates(g->opt.templates, dir, g->err));
    LW_TRY(lw_templates_create(&g->r, g->err));
    return lw_templates_add_folder(g->r, dir, g->err);
}

/* ---- list ---- */

static const char *category_of(const lw_template *t)
{
    return t->category && *t->category ? t->category : t->folder;
}

/* Whether the options ask for it; *ret_tags are its tags, the caller's. */
static bool wanted(const run *g, const lw_template *t, json_t **ret_tags)
{
    const json_t *tag;
    bool found = !g->opt.tag;
    size_t i;

    *ret_tags = NULL;
    if (t->broken || (g->opt.category && strcmp(category_of(t), g->opt.category) != 0))
        return false;
    *ret_tags = lw_template_tags(g->r, t);
    json_array_foreach(*ret_tags, i, tag) found =
        found || !strcmp(json_string_value(tag), g->opt.tag);
    return found;
}

static json_t *listed(const lw_template *t, json_t *tags)
{
    json_t *o = json_object();
    bool ok = o != NULL;

    ok = ok && set_text(o, "name", t->name) && set_text(o, "category", category_of(t)) &&
         set_text(o, "model", t->model) && set_text(o, "description", t->description) &&
         set_text(o, "extends", t->extends) && set_text(o, "file", t->path);
    ok = ok && json_object_set(o, "tags", tags) == 0;
    ok = ok && (!t->variables || !json_object_set_new(o, "variables", value_json(t->variables)));
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

static lw_status list(run *g)
{
    int name_width = 4, category_width = 8, n = 0, n_broken = 0;
    json_t *all;
    bool ok;

    LW_TRY(load_all(g));
    all = json_array();
    ok = all != NULL;
    for (int i = 0; i < g->r->n; i++) {
        const int name = (int)strlen(g->r->v[i]->name);
        const int category = (int)strlen(category_of(g->r->v[i]));

        name_width = name > name_width && name <= 40 ? name : name_width;
        category_width = category > category_width && category <= 20 ? category : category_width;
        n_broken += g->r->v[i]->broken != NULL;
    }
    for (int i = 0; ok && i < g->r->n; i++) {
        const lw_template *t = g->r->v[i];
        json_t *tags;

        if (wanted(g, t, &tags)) {
            if (!n++ && !g->opt.json)
                printf("%-*s  %-*s  %s\n", name_width, "NAME", category_width, "CATEGORY",
                       "DESCRIPTION");
            if (g->opt.json)
                ok = json_array_append_new(all, listed(t, tags)) == 0;
            else
                printf("%-*s  %-*s  %s\n", name_width, t->name, category_width, category_of(t),
                       t->description ? t->description : "");
        }
        json_decref(tags);
    }
    if (n_broken)
        fprintf(stderr,
                "latentwire: note: %d file%s cannot be used; `latentwire templates check` says "
                "why\n",
                n_broken, n_broken == 1 ? "" : "s");
    if (!ok || n == 0 || !g->opt.json) {
        json_decref(all);
        if (!ok)
            return no_memory(g->err);
        return n ? flushed(g->err)
                 : lw_fail(g->err, LW_E_NOT_FOUND,
                           "there is no such template; without --category and --tag, "
                           "`latentwire templates list` shows all");
    }
    return print_json(all, g->err);
}

/* ---- show ---- */

static void print_indented(const char *text)
{
    while (*text) {
        const size_t n = strcspn(text, "\n");

        printf(n ? "  %.*s\n" : "\n", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

static void print_entry(const lw_fm_entry *e)
{
    printf("%s:", e->key);
    if (e->kind == LW_FM_TEXT && !strchr(e->text, '\n')) {
        printf(" %s\n", e->text);
    } else if (e->kind == LW_FM_TEXT) {
        putchar('\n');
        print_indented(e->text);
    } else if (e->kind == LW_FM_LIST) {
        for (int i = 0; i < e->n_items; i++)
            printf("%s %s", i ? "," : "", e->items[i].text);
        putchar('\n');
    } else {
        putchar('\n');
        for (int i = 0; i < e->n_items; i++)
            printf("  %s: %s\n", e->items[i].key, e->items[i].text);
    }
}

static json_t *shown(const run *g, const lw_template *t)
{
    json_t *o = json_object(), *fields = json_object();
    bool ok = o && fields;

    for (int i = 0; ok && i < t->fm.n_entries; i++)
        ok = json_object_set_new(fields, t->fm.entries[i].key, value_json(&t->fm.entries[i])) == 0;
    ok = ok && set_text(o, "name", t->name) && set_text(o, "file", t->path) &&
         set_text(o, "body", t->fm.body);
    ok = ok && json_object_set(o, "fields", fields) == 0;
    ok = ok && json_object_set_new(o, "tags", lw_template_tags(g->r, t)) == 0;
    json_decref(fields);
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

static lw_status show(run *g)
{
    const lw_template *t;

    if (g->n_args != 1)
        return lw_fail(g->err, LW_E_INVALID, "templates show takes one name or file");
    LW_TRY(lw_template_open(g->opt.templates, g->args[0], &g->r, &t, g->err));
    if (t->broken)
        return lw_fail(g->err, LW_E_FORMAT, "%s:%d: %s", t->path, t->broken->line,
                       t->broken->reason);
    if (g->opt.json)
        return print_json(shown(g, t), g->err);
    printf("file: %s\n", t->path);
    for (int i = 0; i < t->fm.n_entries; i++)
        print_entry(&t->fm.entries[i]);
    printf("\n%s\n", t->fm.body);
    return flushed(g->err);
}

/* ---- render ---- */

static void print_part(const char *what, const char *text)
{
    if (text)
        printf("\n%s:\n%s\n", what, text);
}

static lw_status render(run *g)
{
    lw_template_value values[LW_TEMPLATE_MAX_VALUES];
    const lw_template *t;
    lw_rendered out;
    json_t *o;

    if (g->n_args != 1)
        return lw_fail(g->err, LW_E_INVALID, "templates render takes one name or file");
    LW_TRY(lw_template_values(&g->opt.variables, &g->arena, values, g->err));
    LW_TRY(lw_template_open(g->opt.templates, g->args[0], &g->r, &t, g->err));
    LW_TRY(lw_template_render(g->r, t, values, g->opt.variables.n, &g->arena, &out, g->err));
    if (g->opt.json) {
        o = lw_rendered_json(&out);
        if (o && (!set_text(o, "template", out.name) || !set_text(o, "digest", out.digest))) {
            json_decref(o);
            o = NULL;
        }
        return print_json(o, g->err);
    }
    puts(out.system ? out.system : "");
    print_part("thinking", out.thinking);
    print_part("assistant", out.assistant);
    print_part("negative", out.negative);
    return flushed(g->err);
}

/* ---- check ---- */

static bool lies_in(const char *path, const char *folder)
{
    const size_t n = strlen(folder);

    return !strncmp(path, folder, n) && (path[n] == '/' || path[n] == '\0');
}

/* Add what was named; files, and folders of the project's templates, have their parents there. */
static lw_status add_named(run *g)
{
    char dir[PATH_MAX], root[PATH_MAX] = "", real[PATH_MAX];
    bool context = false;

    if (lw_locate_templates(g->opt.templates, dir, g->opt.templates ? g->err : NULL) == LW_OK) {
        if (!realpath(dir, root))
            root[0] = '\0';
    } else if (g->opt.templates) {
        return LW_E_NOT_FOUND;
    }
    for (int i = 0; i < g->n_args; i++) {
        lw_template *t;
        struct stat st;

        if (stat(g->args[i], &st) != 0 || !realpath(g->args[i], real))
            return lw_fail_errno(g->err, errno, g->args[i]);
        if (S_ISDIR(st.st_mode))
            LW_TRY(lw_templates_add_folder(g->r, g->args[i], g->err));
        else
            LW_TRY(lw_templates_add_file(g->r, g->args[i], &t, g->err));
        context = context || !S_ISDIR(st.st_mode) || lies_in(real, root);
    }
    return context && root[0] ? lw_templates_add_folder(g->r, dir, g->err) : LW_OK;
}

/* Which templates were named; the others are there for their parents and names. */
static lw_status find_named(const run *g, bool *which)
{
    char(*named)[PATH_MAX] = calloc((size_t)g->n_args + 1, sizeof(*named)), real[PATH_MAX];

    if (!named)
        return no_memory(g->err);
    for (int j = 0; j < g->n_args; j++)
        if (!realpath(g->args[j], named[j]))
            named[j][0] = '\0';
    for (int i = 0; i < g->r->n; i++) {
        which[i] = g->n_args == 0;
        for (int j = 0; j < g->n_args && !which[i] && realpath(g->r->v[i]->path, real); j++)
            which[i] = named[j][0] && lies_in(real, named[j]);
    }
    free(named);
    return LW_OK;
}

static json_t *problem_json(const lw_template *t, const lw_template_problem *p)
{
    return json_pack("{s:s, s:i, s:s}", "file", t->path, "line", p->line, "reason", p->reason);
}

static lw_status check(run *g)
{
    bool which[LW_TEMPLATE_MAX_FILES] = { false };
    int n = 0, n_bad = 0, n_problems = 0;
    json_t *problems;
    bool ok = true;

    if (g->n_args == 0) {
        LW_TRY(load_all(g));
    } else {
        LW_TRY(lw_templates_create(&g->r, g->err));
        LW_TRY(add_named(g));
    }
    LW_TRY(find_named(g, which));
    LW_TRY(lw_templates_check(g->r, which, g->err));
    problems = json_array();
    for (int i = 0; i < g->r->n; i++) {
        const lw_template *t = g->r->v[i];

        n += which[i];
        n_bad += which[i] && t->problems;
        for (const lw_template_problem *p = which[i] ? t->problems : NULL; p; p = p->next) {
            n_problems++;
            if (!g->opt.json)
                printf("%s:%d: %s\n", t->path, p->line, p->reason);
            else
                ok = ok && json_array_append_new(problems, problem_json(t, p)) == 0;
        }
    }
    if (!ok || n == 0 || !g->opt.json)
        json_decref(problems);
    if (!ok)
        return no_memory(g->err);
    if (n == 0)
        return lw_fail(g->err, LW_E_NOT_FOUND, "there are no templates (*.md) there");
    if (g->opt.json)
        LW_TRY(print_json(json_pack("{s:i, s:o}", "checked", n, "problems", problems), g->err));
    g->cli->json = false; /* the object above says it all */
    if (n_problems)
        return lw_fail(g->err, LW_E_FORMAT, "%d problem%s in %d of %d template%s", n_problems,
                       n_problems == 1 ? "" : "s", n_bad, n, n == 1 ? "" : "s");
    if (!g->opt.json)
        printf("%d template%s, no problems\n", n, n == 1 ? "" : "s");
    return flushed(g->err);
}

/* ---- new ---- */

static const char scaffold[] =
    "---\n"
    "name: %s\n"
    "description: What it does for a picture, in one line.\n"
    "model: z-image\n"
    "category: %s\n"
    "tags: [new]\n"
    "---\n"
    "\n"
    "Render the user's subject as... Say where the light comes from and what it is like, which "
    "colours there are, how the picture is composed, of what things are made, and what to leave "
    "out. 60 to 160 words serve most templates.\n";

static lw_status make_folder(const char *path, lw_err *err)
{
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        return lw_fail_errno(err, errno, path);
    return LW_OK;
}

static lw_status new_one(run *g)
{
    char dir[PATH_MAX], folder[PATH_MAX + 64], path[PATH_MAX + 512];
    const char *name = g->n_args == 1 ? g->args[0] : NULL, *category = g->opt.category;
    FILE *f;
    int fd;

    if (!name || !category)
        return lw_fail(g->err, LW_E_INVALID, "templates new takes NAME --category CATEGORY");
    if (!lw_template_is_name(name) || !lw_template_is_name(category) || strlen(name) > 64 ||
        strlen(category) > 32)
        return lw_fail(g->err, LW_E_INVALID,
                       "\"%s\": a name and a category are lower-case words joined by hyphens",
                       lw_template_is_name(name) ? category : name);
    LW_TRY(load_all(g));
    for (int i = 0; i < g->r->n; i++)
        if (!strcmp(g->r->v[i]->name, name))
            return lw_fail(g->err, LW_E_PRECONDITION, "the template \"%s\" exists: %s", name,
                           g->r->v[i]->path);
    LW_TRY(lw_locate_templates(g->opt.templates, dir, g->err));
    snprintf(folder, sizeof(folder), "%s/" MODEL_FOLDER, dir);
    LW_TRY(make_folder(folder, g->err));
    snprintf(folder, sizeof(folder), "%s/" MODEL_FOLDER "/%s", dir, category);
    LW_TRY(make_folder(folder, g->err));
    snprintf(path, sizeof(path), "%s/%s.md", folder, name);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    f = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!f)
        return lw_fail_errno(g->err, errno, path);
    fprintf(f, scaffold, name, category);
    if (fclose(f) != 0)
        return lw_fail_errno(g->err, errno, path);
    puts(path);
    return flushed(g->err);
}

/* ---- the verb ---- */

lw_status lw_cli_templates(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    static const struct {
        const char *name;
        lw_status (*run)(run *g);
    } actions[] = { { "list", list },
                    { "show", show },
                    { "render", render },
                    { "check", check },
                    { "new", new_one } };
    const char *args[LW_TEMPLATE_MAX_FILES + 1];
    run g = { .cli = cli, .err = err };
    bool help = false;
    int n = 0;

    lw_opt_describe("latentwire templates list | show NAME | render NAME | check [PATH]... | new "
                    "NAME --category C",
                    "Prompt templates: list them, show one, print what one gives to a request, "
                    "check files, begin a new one. NAME is a name or a file.");
    LW_TRY(lw_opt_parse(options, argc, argv, &g.opt, args, LW_ARRAY_LEN(args), &n, &help, err));
    if (help)
        return LW_OK;
    cli->json = g.opt.json;
    for (size_t i = 0; n > 0 && i < LW_ARRAY_LEN(actions); i++) {
        lw_status s;

        if (strcmp(args[0], actions[i].name) != 0)
            continue;
        g.args = args + 1;
        g.n_args = n - 1;
        lw_arena_init(&g.arena, "templates", 0);
        s = actions[i].run(&g);
        lw_templates_destroy(&g.r);
        lw_arena_deinit(&g.arena);
        return s;
    }
    return lw_fail(err, LW_E_INVALID,
                   "templates takes list, show, render, check or new; `latentwire templates "
                   "--help` says more");
}
