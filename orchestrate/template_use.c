/* Templates for the verbs that make something: --template, --var, --templates. */

#include "orchestrate/template_use.h"

#include <string.h>

#include "common/utf8.h"
#include "orchestrate/locate.h"

bool lw_template_is_path(const char *what)
{
    const size_t n = strlen(what);

    return strchr(what, '/') || (n > 3 && !strcmp(what + n - 3, ".md"));
}

static lw_status open_in(lw_templates *r, const char *folder, const char *what,
                         const lw_template **ret, lw_err *err)
{
    const bool is_path = lw_template_is_path(what);
    char dir[PATH_MAX];
    lw_template *t;

    if (lw_locate_templates(folder, dir, is_path && !folder ? NULL : err) == LW_OK)
        LW_TRY(lw_templates_add_folder(r, dir, err));
    else if (!is_path || folder)
        return LW_E_NOT_FOUND;
    if (!is_path)
        return lw_templates_find(r, what, ret, err);
    LW_TRY(lw_templates_add_file(r, what, &t, err));
    *ret = t;
    return LW_OK;
}

lw_status lw_template_open(const char *folder, const char *what, lw_templates **ret,
                           const lw_template **ret_template, lw_err *err)
{
    lw_templates *r = NULL;
    lw_status s;

    LW_TRY(lw_templates_create(&r, err));
    s = open_in(r, folder, what, ret_template, err);
    if (s == LW_OK)
        *ret = r;
    else
        lw_templates_destroy(&r);
    return s;
}

lw_status lw_template_values(const lw_opt_list *list, lw_arena *a,
                             lw_template_value ret[LW_TEMPLATE_MAX_VALUES], lw_err *err)
{
    for (int i = 0; i < list->n; i++) {
        const char *item = list->items[i], *eq = strchr(item, '=');
        char *name;

        if (!eq || eq == item)
            return lw_fail(err, LW_E_INVALID, "--var: \"%.100s\" is not of the form NAME=TEXT",
                           item);
        if (!lw_utf8_valid(item, strlen(item)))
            return lw_fail(err, LW_E_INVALID,
                           "--var is not valid UTF-8; what is the terminal's encoding?");
        name = lw_arena_strndup(a, item, (size_t)(eq - item), err);
        if (!name)
            return LW_E_NOMEM;
        ret[i] = (lw_template_value){ .name = name, .text = eq + 1 };
    }
    return LW_OK;
}

static lw_status render(const lw_settings *s, lw_arena *a, lw_rendered *ret, lw_err *err)
{
    lw_template_value values[LW_TEMPLATE_MAX_VALUES];
    const lw_template *t;
    lw_templates *r = NULL;
    lw_status status;

    LW_TRY(lw_template_values(&s->variables, a, values, err));
    LW_TRY(lw_template_open(s->templates, s->template_name, &r, &t, err));
    status = lw_template_render(r, t, values, s->variables.n, a, ret, err);
    lw_templates_destroy(&r);
    return status;
}

static void fill(lw_settings *s, const lw_rendered *t)
{
    if (!s->system)
        s->system = t->system;
    if (!s->thinking)
        s->thinking = t->thinking;
    if (!s->assistant)
        s->assistant = t->assistant;
    if (s->think < 0)
        s->think = t->think_block;
    if (!s->size && t->size) {
        s->size = t->size;
        s->size_of_template = true;
    }
    if (!s->seed)
        s->seed = t->seed;
    if (!s->steps && t->steps > 0)
        s->steps = t->steps;
    if (s->guidance < 0)
        s->guidance = t->guidance;
    if (!s->negative && s->guidance > 0)
        s->negative = t->negative;
}

lw_status lw_template_apply(lw_settings *s, lw_arena *a, lw_rendered *ret, lw_err *err)
{
    *ret = (lw_rendered){ 0 };
    if (!s->template_name && s->variables.n)
        return lw_fail(err, LW_E_INVALID, "--var needs a --template whose variable it sets");
    if (s->template_name && s->raw)
        return lw_fail(err, LW_E_INVALID,
                       "--template and --raw exclude each other: a raw prompt is the whole text");
    if (s->template_name) {
        LW_TRY(render(s, a, ret, err));
        fill(s, ret);
    }
    if (s->guidance < 0)
        s->guidance = 0;
    return LW_OK;
}
