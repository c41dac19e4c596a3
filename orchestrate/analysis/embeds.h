#ifndef LW_ORCHESTRATE_ANALYSIS_EMBEDS_H
#define LW_ORCHESTRATE_ANALYSIS_EMBEDS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/arena.h"

/*
 * Embeddings as they are looked at: a row a token, and what the file says about them. The file may
 * come from anybody.
 */

#define LW_EMBEDDING_MAX_ROWS 2048
#define LW_EMBEDDING_MAX_DIM  16384
#define LW_EMBEDDING_TEXT     32 /* bytes of a token's text that are kept, with the zero at the end */

/** Embeddings of one file; everything lies in the arena they were read into. */
typedef struct lw_embedding {
    const char *path;
    const char *tensor, *dtype; /* its name and type in the file */
    int64_t rows, dim;
    float *x;           /* [rows, dim] */
    bool *finite;       /* [rows]: no NaN and no infinity in it. Other rows are in no measure. */
    int64_t n_finite;   /* rows that are */
    const int64_t *of;  /* [dim] the dimension of the file that each is, after lw_embedding_drop */
    const char *prompt; /* of the manifest in its metadata; NULL: it has none */
    const int64_t *ids; /* [rows] token ids of the same; NULL: not known, or not one a row */
    const char (*texts)[LW_EMBEDDING_TEXT]; /* [rows] after lw_embedding_name_tokens, else NULL */
} lw_embedding;

/**
 * Read tensor `name` of a safetensors file: floats [rows, dim], or [1, rows, dim]. NULL takes
 * "prompt_embeds", else the only such tensor. Errors: those of lw_st_open, LW_E_NOT_FOUND (no such
 * tensor), LW_E_SHAPE (another shape or dtype, none at all, several to choose from, no row that
 * is finite), LW_E_TOO_LARGE, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_embedding_read(const char *path, const char *name, lw_arena *a,
                                        lw_embedding *ret, lw_err *err);

/**
 * Put the texts of tokens beside their ids, from a folder with vocab.json or tokenizer.json, and
 * tokenizer_config.json; of several files together. An id that is not there has an empty text.
 * Errors: those of lw_json_load, LW_E_FORMAT.
 */
LW_MUST_USE lw_status lw_embedding_name_tokens(const char *folder, lw_embedding *files, int n_files,
                                               lw_arena *a, lw_err *err);

/** Keep only the dimensions with drop[i] false, of `dim` as they are now. `n_left`: how many those
 * are, at least 1. Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_embedding_drop(lw_embedding *e, const bool *drop, int64_t n_left,
                                        lw_arena *a, lw_err *err);

#endif
