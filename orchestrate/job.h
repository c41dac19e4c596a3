#ifndef LW_ORCHESTRATE_JOB_H
#define LW_ORCHESTRATE_JOB_H

#include <jansson.h>

#include "orchestrate/locate.h"
#include "orchestrate/settings.h"
#include "orchestrate/template_use.h"

/*
 * From options to pictures, for `generate` and for experiments: a prompt, a template and settings
 * become a request, and a result becomes a manifest.
 */

/** Set `opt` (think and guidance below 0 where nobody says), then lw_picture_job_check, then
 * lw_picture_job_size. The rest is filled in by them. */
typedef struct lw_picture_job {
    lw_settings opt;
    lw_rendered template; /* name NULL: none */
    const char *prompt;
    int width, height, steps;
    uint64_t seed;
} lw_picture_job;

/**
 * Everything that can be wrong with the options before a model is there; `prompt` as
 * lw_settings_resolve takes it. Texts lie in `a`. Errors: those of lw_template_apply,
 * lw_parse_size, lw_parse_seed, lw_settings_resolve and lw_settings_prompt; LW_E_INVALID (a
 * negative prompt without guidance).
 */
LW_MUST_USE lw_status lw_picture_job_check(lw_picture_job *j, const char *prompt, lw_arena *a,
                                           lw_err *err);

/** Size and steps where nobody said them: the model's. */
void lw_picture_job_size(lw_picture_job *j, const lw_model_choice *model);

/** The request for pictures [first, first + n), seeds seed + first and on. Strings are borrowed.
 * Errors: those of lw_settings_prompt. */
LW_MUST_USE lw_status lw_picture_job_submit(const lw_picture_job *j, uint64_t first, uint64_t n,
                                            lw_msg *ret, lw_err *err);

/** The manifest of the first picture of a result; without a result (NULL), what is known of it
 * before. json_decref() it. Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_picture_job_manifest(const lw_picture_job *j, const lw_msg *submit,
                                              const lw_msg *result, json_t **ret, lw_err *err);

#endif
