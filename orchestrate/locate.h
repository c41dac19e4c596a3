#ifndef LW_ORCHESTRATE_LOCATE_H
#define LW_ORCHESTRATE_LOCATE_H

#include <limits.h>

#include "proto/schema.h"

/*
 * Where things are: the programs of this build or installation, the model that a request uses when
 * it names none, and the prompt templates.
 */

/**
 * Path of a program of the project: beside this executable, in the build tree, or in libexec.
 * Errors: LW_E_NOT_FOUND, naming the places looked at.
 */
LW_MUST_USE lw_status lw_locate_program(const char *name, char ret[PATH_MAX], lw_err *err);

#define LW_DEFAULT_SIDE  1024
#define LW_DEFAULT_STEPS 8

/** The model of each role and what pictures it is made for. */
typedef struct lw_model_choice {
    char path[LW_N_ROLES][PATH_MAX]; /* "" = none for this role */
    bool is_default;                 /* no option and no environment variable named it */
    int width, height, steps;        /* the model's own defaults */
    bool states_size;                /* it says so, and it is not just what is usual */
} lw_model_choice;

/** What the user named; NULL where nothing was. */
typedef struct lw_model_options {
    const char *model, *encoder, *dit, *vae;
} lw_model_options;

/**
 * Choose the model: `model` is a Hugging Face folder for all roles; encoder, dit and vae replace it
 * for one role each (a file or folder). With nothing named, the demo model that comes with the
 * project is taken. `roles` (1 << lw_role) are those that must have one. A folder's
 * model_index.json may state defaults under "latentwire": {"size": [w, h], "steps": n}.
 * Errors: LW_E_NOT_FOUND with what to do, LW_E_FORMAT for a damaged model_index.json.
 */
LW_MUST_USE lw_status lw_locate_model(const lw_model_options *o, unsigned roles,
                                      lw_model_choice *ret, lw_err *err);

/**
 * Where the weights of a role are in `model` (a path of lw_model_choice): the folder of that part,
 * as published or as ComfyUI has it, else the path itself. Errors: LW_E_NOT_FOUND (the model is a
 * whole one, and lacks this part), LW_E_INVALID (a path too long).
 */
LW_MUST_USE lw_status lw_locate_part(const char *model, lw_role role, char ret[PATH_MAX],
                                     lw_err *err);
/** Bytes of a file, or of all safetensors files of a folder; 0 when there are none. */
uint64_t lw_weights_file_bytes(const char *path);

/**
 * The folder of prompt templates: `named`, else that of LATENTWIRE_DATA_DIR, of the installation or
 * of the source tree around the build folder. Errors: LW_E_NOT_FOUND with what to do.
 */
LW_MUST_USE lw_status lw_locate_templates(const char *named, char ret[PATH_MAX], lw_err *err);

/** The folder of the project's experiments and standard prompts. Errors: LW_E_NOT_FOUND. */
LW_MUST_USE lw_status lw_locate_experiments(char ret[PATH_MAX], lw_err *err);

#endif
