#ifndef LW_COMMON_WEIGHTS_IMPL_H
#define LW_COMMON_WEIGHTS_IMPL_H

#include "common/weights.h"

/* Shared by weights.c (finding the files) and weights_get.c (turning tensors into operands). */

typedef struct lw_weights_entry {
    const char *name; /* without its prefix; points into the file's own name */
    const lw_st_entry *stored;
    bool used;
} lw_weights_entry;

struct lw_weights {
    char *path;
    lw_keep keep;
    bool round_f32; /* what `keep` came to */
    lw_st_file **files;
    size_t n_files;
    lw_weights_entry *entries; /* sorted by name */
    size_t n_entries;
};

/** The entry of that name, or NULL. */
lw_weights_entry *lw_weights_entry_find(const lw_weights *w, const char *name);

#endif
