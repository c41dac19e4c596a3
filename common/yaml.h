#ifndef LW_COMMON_YAML_H
#define LW_COMMON_YAML_H

#include <stdbool.h>
#include <stddef.h>

#include "common/arena.h"

/*
 * A bounded subset of YAML: texts, lists and mappings, and no more. Anchors, aliases, tags,
 * directives and further documents are refused, and so is nesting beyond a limit, so what a text
 * costs to read is bounded by its size. All values are text; "yes", 8 and null mean what they look
 * like. Text is UTF-8 without control characters but \n and \t.
 */

#define LW_YAML_MAX_KEY_BYTES 64

typedef enum lw_yaml_kind { LW_YAML_TEXT, LW_YAML_LIST, LW_YAML_MAP } lw_yaml_kind;

typedef struct lw_yaml lw_yaml;
struct lw_yaml {
    const char *key; /* in a mapping, else NULL */
    lw_yaml_kind kind;
    const char *text; /* of a TEXT, else NULL */
    lw_yaml *items;   /* of a LIST or MAP, in the order of the file; no key twice */
    int n_items;
    int line; /* of the key, or of a value that has none; from 1 */
};

typedef struct lw_yaml_limits {
    int max_depth;             /* of lists and mappings, the outermost counted */
    int max_items;             /* of one list or mapping */
    int first_line, last_line; /* of the text, in its file; 0: it is the file */
} lw_yaml_limits;

/** Check that a file is UTF-8 of at most max_bytes without control characters, carriage returns or
 * byte order mark. Errors: LW_E_FORMAT with "label:line: reason". */
LW_MUST_USE lw_status lw_yaml_check_text(const char *text, size_t len, size_t max_bytes,
                                         const char *label, lw_err *err);

/**
 * Read a text that lw_yaml_check_text has passed. Its outermost value is a mapping, or it is blanks
 * and comments alone: then the mapping is empty. `label` stands for the file in messages, `what`
 * for the text. Everything lies in `a`. Errors: LW_E_FORMAT with "label:line: reason", LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_yaml_parse(const char *text, size_t len, const char *label,
                                    const char *what, const lw_yaml_limits *limits, lw_arena *a,
                                    lw_yaml *ret, lw_err *err);

/** Value of a key of a mapping, or NULL. */
const lw_yaml *lw_yaml_find(const lw_yaml *map, const char *key);

#endif
