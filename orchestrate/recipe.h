#ifndef LW_ORCHESTRATE_RECIPE_H
#define LW_ORCHESTRATE_RECIPE_H

#include <jansson.h>

#include "proto/schema.h"

/*
 * A manifest read as a recipe: from the text in a picture back to the request that makes it, and
 * what has changed since. The text comes from a file of anybody, so every value is checked before
 * it is used, and what is wrong is named.
 */

/**
 * Read and check the text of a manifest. The caller json_decref()s *ret, which has all its keys,
 * also those that are not known. Errors: LW_E_FORMAT (no JSON object, or a key with a value of a
 * wrong kind or out of range), LW_E_TOO_LARGE (a picture that no hub can send), LW_E_PRECONDITION
 * (a later format of manifests), LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_recipe_read(const char *text, const char *label, json_t **ret,
                                     lw_err *err);

/** The lists of numbers of a recipe. */
typedef struct lw_recipe_numbers {
    double sigmas[LW_MAX_SIGMAS];
    double layer_blend[2 * LW_MAX_BLEND];
} lw_recipe_numbers;

/**
 * Fill a request for the one picture of a checked recipe. Strings are borrowed from it; `numbers`
 * is where its lists go, and outlives the message. Errors: LW_E_PRECONDITION with all that is
 * missing, or that the picture was made from embeddings, latents or a picture, which are not in its
 * file.
 */
LW_MUST_USE lw_status lw_recipe_submit(const json_t *recipe, const char *label,
                                       lw_recipe_numbers *numbers, lw_msg *ret, lw_err *err);

/**
 * Who would do the work now, by a hub's report: an object as "stages" of a manifest. A stage whose
 * workers the report does not list is left out. NULL: no memory.
 */
json_t *lw_recipe_stages(const json_t *report);

/**
 * Check that the stages `now` have the weights of the recipe. One that does not say what it has
 * passes. Errors: LW_E_PRECONDITION naming every stage whose weights are others.
 */
LW_MUST_USE lw_status lw_recipe_weights(const json_t *recipe, const json_t *now, const char *label,
                                        lw_err *err);

/**
 * What is not as it was, a text for people each, in the array `notes`: `made` is the manifest of
 * the picture made now. Errors: LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_recipe_compare(const json_t *recipe, const json_t *made, json_t *notes,
                                        lw_err *err);

/** Append a formatted text, one clean line as an error's, to an array. Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_note(json_t *notes, lw_err *err, const char *fmt, ...) LW_PRINTF(3, 4);

#endif
