#ifndef LW_COMMON_FRONTMATTER_H
#define LW_COMMON_FRONTMATTER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/arena.h"
#include "common/yaml.h"

/*
 * Text files with YAML front matter: fields between two lines "---", then a body.
 *
 * Of YAML there is a mapping of names to texts, lists of texts, or mappings of names to texts, and
 * no more: anchors, aliases, tags, directives, further documents and deeper nesting are refused, so
 * what a file costs to read is bounded by its size. All values are text; "yes", 8 and null mean
 * what they look like. A file that does not begin with a line "---" is all body.
 */

#define LW_FM_MAX_FILE_BYTES (64u * 1024)
#define LW_FM_MAX_BYTES      (16u * 1024) /* of front matter */
#define LW_FM_MAX_ENTRIES    64           /* keys of the front matter, and parts of one value */
#define LW_FM_MAX_KEY_BYTES  LW_YAML_MAX_KEY_BYTES

typedef enum lw_fm_kind { LW_FM_TEXT, LW_FM_LIST, LW_FM_MAP } lw_fm_kind;

/** One part of a list or of a mapping. Text is UTF-8 without control characters but \n and \t. */
typedef struct lw_fm_item {
    const char *key; /* NULL in a list */
    const char *text;
    int line; /* of the file, from 1 */
} lw_fm_item;

typedef struct lw_fm_entry {
    const char *key;
    lw_fm_kind kind;
    const char *text;  /* of a TEXT, else NULL */
    lw_fm_item *items; /* of a LIST or MAP */
    int n_items;
    int line; /* of the key */
} lw_fm_entry;

typedef struct lw_frontmatter {
    bool present;         /* the file begins with a line "---" */
    lw_fm_entry *entries; /* in the order of the file; no key twice */
    int n_entries;
    const char *body; /* without the empty lines around it */
    int body_line;    /* where the body begins, or would begin */
} lw_frontmatter;

/**
 * Take a file apart. `label` stands for the file in messages. Everything lies in `a`; `text` is not
 * needed afterwards. Errors: LW_E_FORMAT with "label:line: reason" (also for text that is not
 * UTF-8, a zero byte or another control character, and more than the limits), LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_frontmatter_parse(const char *text, size_t len, const char *label,
                                           lw_arena *a, lw_frontmatter *ret, lw_err *err);

/** Entry of that name, or NULL. */
const lw_fm_entry *lw_frontmatter_find(const lw_frontmatter *f, const char *key);

#endif
