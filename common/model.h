#ifndef LW_COMMON_MODEL_H
#define LW_COMMON_MODEL_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

/* Where the parts of a model lie, what it is called, and what it says of itself. */

/**
 * Where one part of a model is: the first of `folders` (NULL at the end) that exists inside the
 * folder `path`, else `path` itself. So one --model serves all services with the folder as
 * published (transformer/), as ComfyUI has it (diffusion_models/), or a single file.
 * Errors: LW_E_INVALID (a path too long).
 */
LW_MUST_USE lw_status lw_model_part(const char *path, const char *const *folders, char *ret,
                                    size_t ret_bytes, lw_err *err);

/**
 * True when the folder holds an entry of that name, a broken link too: what a model names but lost
 * must fail when it is opened, and not be taken for something that the model never had.
 */
bool lw_model_names(const char *path);

/**
 * The config.json of a part: in the folder `path`, or beside the file `path`, where it may be that
 * of a neighbour. ret: "" when there is none. Errors: LW_E_INVALID (a path too long).
 */
LW_MUST_USE lw_status lw_model_config(const char *path, char *ret, size_t ret_bytes,
                                      bool *ret_is_folder, lw_err *err);

/** What pictures a model is made for; 0 where it does not say. */
typedef struct lw_picture_defaults {
    int width, height, steps;
} lw_picture_defaults;

/**
 * What the model_index.json of the folder `path` states under "latentwire": {"size": [w, h],
 * "steps": n}. All 0 when it, or the file, or the folder is not there. Errors: LW_E_FORMAT.
 */
LW_MUST_USE lw_status lw_model_defaults(const char *path, lw_picture_defaults *ret, lw_err *err);

/** Last part of a path, without slashes at its end: what a model is called. */
void lw_model_id(const char *path, char *ret, size_t ret_bytes);

#endif
