#ifndef LW_ORCHESTRATE_TEMPLATES_H
#define LW_ORCHESTRATE_TEMPLATES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/frontmatter.h"

/*
 * Prompt templates (docs/templates.md): Markdown files whose body is a system prompt and whose
 * front matter says what it is for and what else goes with it. A registry holds those of a folder
 * by name; a template is composed with its parents, its variables are filled in, and what comes out
 * is parts of a request.
 */

#define LW_TEMPLATE_MAX_FILES  2048
#define LW_TEMPLATE_MAX_DEPTH  8     /* templates in a chain of parents, and folders in folders */
#define LW_TEMPLATE_MAX_BYTES  32768 /* of a rendered part: the wire's limit of the field */
#define LW_TEMPLATE_MAX_VALUES 32    /* of variables given */

/** Something wrong with a file, for `latentwire templates check`. */
typedef struct lw_template_problem {
    struct lw_template_problem *next;
    int line;
    const char *reason;
} lw_template_problem;

/** One file. Texts are NULL, numbers negative where it says nothing. */
typedef struct lw_template {
    const char *path;    /* as it was opened */
    const char *stem;    /* file name without ".md" */
    const char *folder;  /* name of the folder that it lies in; NULL: it was named alone */
    const char *content; /* the whole file, for the linter; NULL when it could not be read */
    size_t n_content;
    lw_frontmatter fm;
    const char *name; /* else the stem */
    const char *description, *model, *category, *extends;
    const char *thinking, *assistant, *negative;
    const lw_fm_entry *tags, *variables;
    int think_block; /* 1, 0 */
    const char *size, *seed;
    int64_t steps;
    double guidance;
    lw_template_problem *problems;
    const lw_template_problem *broken; /* why it cannot be used, or NULL */
    dev_t dev;
    ino_t ino;
} lw_template;

typedef struct lw_templates {
    lw_arena arena; /* holds everything */
    lw_template **v;
    int n, cap;
} lw_templates;

/** An empty registry. Errors: LW_E_NOMEM. Thread rule: one thread at a time. */
LW_MUST_USE lw_status lw_templates_create(lw_templates **ret, lw_err *err);
/** NULL-safe. */
void lw_templates_destroy(lw_templates **r);

/**
 * Add every *.md file below a folder but README.md, in the order of their paths. Symbolic links
 * below it are not followed; hidden names are passed over; a file that is there already is not
 * added twice. A file that is wrong is added too, with its problems. Errors: LW_E_NOT_FOUND,
 * LW_E_DENIED, LW_E_IO, LW_E_TOO_LARGE (files or depth), LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_templates_add_folder(lw_templates *r, const char *folder, lw_err *err);

/** Add one file, or find it when it is there already. Errors: as above. */
LW_MUST_USE lw_status lw_templates_add_file(lw_templates *r, const char *path, lw_template **ret,
                                            lw_err *err);

/** The template of a folder by name; one that was added alone has none. Errors: LW_E_NOT_FOUND with
 * names that are similar, LW_E_PRECONDITION when two have it. */
LW_MUST_USE lw_status lw_templates_find(const lw_templates *r, const char *name,
                                        const lw_template **ret, lw_err *err);

/** Note a problem of a template. `broken`: it cannot be used. Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_template_note(lw_templates *r, lw_template *t, int line, bool broken,
                                       lw_err *err, const char *fmt, ...) LW_PRINTF(6, 7);

/**
 * A template and its parents, itself first. *ret_at: where it went wrong, the template whose
 * `extends` names nobody, or is part of a circle, or the first of a chain that is too long.
 * Errors: LW_E_FORMAT, the text without file and line.
 */
LW_MUST_USE lw_status lw_template_chain(const lw_templates *r, const lw_template *t,
                                        const lw_template *ret[LW_TEMPLATE_MAX_DEPTH], int *ret_n,
                                        const lw_template **ret_at, lw_err *err);

/** Its own tags and those of its parents, each once, as an array; NULL: no memory. */
json_t *lw_template_tags(const lw_templates *r, const lw_template *t);

/** Line of the file on which a key stands, 1 when it is not there. */
int lw_template_line(const lw_template *t, const char *key);

/**
 * The next "{{name}}" at or behind s: its first byte, and its name, which is not terminated. NULL:
 * there is none. A name is lower_snake_case; other braces are text.
 */
const char *lw_template_reference(const char *s, const char **ret_name, size_t *ret_len);

/** True for lower-case words joined by hyphens: names, categories, tags. */
bool lw_template_is_name(const char *s);
/** True for lower_snake_case of at most 64 bytes. */
bool lw_template_is_variable(const char *name, size_t len);

/** A variable and the text that it gets. */
typedef struct lw_template_value {
    const char *name, *text;
} lw_template_value;

/** What a template gives to a request. Texts are NULL, numbers negative where it says nothing. */
typedef struct lw_rendered {
    const char *name;
    const char *system, *thinking, *assistant, *negative;
    int think_block;
    const char *size, *seed;
    int64_t steps;
    double guidance;
    char digest[65]; /* BLAKE2b-256, hex, of lw_rendered_json's text, compact with sorted keys */
} lw_rendered;

/**
 * Compose a template with its parents and fill in its variables. `values` must name declared
 * variables; the others get their defaults. All texts lie in `a`. Errors:
 * LW_E_INVALID (no such variable, or one twice), LW_E_FORMAT (a damaged template or chain, with
 * file and line), LW_E_TOO_LARGE, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_template_render(const lw_templates *r, const lw_template *t,
                                         const lw_template_value *values, int n_values, lw_arena *a,
                                         lw_rendered *ret, lw_err *err);

/** What it gives, under the names of a request; what it says nothing about is left out. The digest
 * is of this and not in it. NULL: no memory. */
json_t *lw_rendered_json(const lw_rendered *r);

/**
 * The linter: note every problem of the templates for which `which` (by index; NULL: all) is true.
 * Errors: LW_E_NOMEM; problems are none.
 */
LW_MUST_USE lw_status lw_templates_check(lw_templates *r, const bool *which, lw_err *err);

#endif
