#ifndef LW_ORCHESTRATE_TEMPLATE_USE_H
#define LW_ORCHESTRATE_TEMPLATE_USE_H

#include "orchestrate/settings.h"
#include "orchestrate/templates.h"

/* How the verbs use templates: from options to a template, and from a template to options. */

/** True when `what` means a file: it has a slash or ends in ".md"; else it is a name. */
bool lw_template_is_path(const char *what);

/**
 * The template that `what` means, in a registry of the folder --templates (NULL: of the project). A
 * file's parents come from there too; it may stand alone where there is no such folder. The caller
 * destroys the registry, which holds the template. Errors: those of lw_locate_templates and
 * lw_templates_find.
 */
LW_MUST_USE lw_status lw_template_open(const char *folder, const char *what, lw_templates **ret,
                                       const lw_template **ret_template, lw_err *err);

/** Cut "name=text" apart; names lie in `a`. Errors: LW_E_INVALID (not that form, not UTF-8). */
LW_MUST_USE lw_status lw_template_values(const lw_opt_list *list, lw_arena *a,
                                         lw_template_value ret[LW_TEMPLATE_MAX_VALUES],
                                         lw_err *err);

/**
 * Put what --template gives into the options that nobody set, and give those that still have none
 * their defaults; `think` and `guidance` must have been below 0 before the options were parsed. A
 * negative prompt is taken only where there is guidance. ret->name is NULL when no template was
 * asked for. Texts lie in `a`. Errors: LW_E_INVALID (--var without --template, --raw with it), and
 * those of lw_template_open and lw_template_render.
 */
LW_MUST_USE lw_status lw_template_apply(lw_settings *s, lw_arena *a, lw_rendered *ret, lw_err *err);

#endif
