#ifndef LW_ENCODER_FILES_H
#define LW_ENCODER_FILES_H

#include <limits.h>

#include "common/err.h"

/** Where the parts of an encoder are. */
typedef struct lw_encoder_files {
    char weights[PATH_MAX];   /* folder with config.json, or one .safetensors file */
    char tokenizer[PATH_MAX]; /* folder */
} lw_encoder_files;

/**
 * Find the parts of `model`: a pipeline folder (text_encoder/ and tokenizer/ in it), a folder as
 * ComfyUI has it (text_encoders/), the
 * text_encoder folder of one, a model folder that holds its tokenizer itself, or a single file.
 * `tokenizer` names the tokenizer's folder; NULL or "" looks for it in the model folder, and then
 * takes the Qwen3 tokenizer that comes with the project:
 * $LATENTWIRE_DATA_DIR/models/qwen3-tokenizer, or that of the installation or build tree around
 * this executable. Errors: LW_E_NOT_FOUND, with the places looked at; LW_E_INVALID (a path too
 * long).
 */
LW_MUST_USE lw_status lw_encoder_find(const char *model, const char *tokenizer,
                                      lw_encoder_files *ret, lw_err *err);

#endif
