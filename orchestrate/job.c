/* From options to a request, and from a result to a manifest. */

#include "orchestrate/job.h"

#include "orchestrate/manifest.h"

lw_status lw_picture_job_check(lw_picture_job *j, const char *prompt, lw_arena *a, lw_err *err)
{
    lw_msg trial;

    LW_TRY(lw_template_apply(&j->opt, a, &j->template, err));
    if (j->opt.size)
        LW_TRY(lw_parse_size(j->opt.size, &j->width, &j->height, err));
    LW_TRY(lw_parse_seed(j->opt.seed, &j->seed, err));
    if (j->opt.negative && j->opt.negative[0] && j->opt.guidance <= 0)
        return lw_fail(err, LW_E_INVALID,
                       "--negative has no effect without --guidance above 0 (Z-Image-Turbo is made "
                       "for 0; the base model for 3 to 5)");
    LW_TRY(lw_settings_resolve(&j->opt, prompt, a, &j->prompt, err));
    lw_msg_init(&trial, LW_MSG_SUBMIT, NULL);
    return lw_settings_prompt(&j->opt, j->prompt, &trial, err);
}

void lw_picture_job_size(lw_picture_job *j, const lw_model_choice *model)
{
    if (!j->opt.size || (j->opt.size_of_template && model->states_size)) {
        j->width = model->width;
        j->height = model->height;
    }
    j->steps = j->opt.steps ? (int)j->opt.steps : model->steps;
}

lw_status lw_picture_job_submit(const lw_picture_job *j, uint64_t first, uint64_t n, lw_msg *m,
                                lw_err *err)
{
    lw_msg_init(m, LW_MSG_SUBMIT, NULL);
    lw_msg_set(m, from, LW_ARTEFACT_PROMPT);
    lw_msg_set(m, to, LW_ARTEFACT_IMAGE);
    LW_TRY(lw_settings_prompt(&j->opt, j->prompt, m, err));
    lw_settings_sampling(&j->opt, j->width, j->height, j->steps, j->seed + first, m);
    lw_msg_set(m, n, n);
    if (j->opt.tile)
        lw_msg_set(m, tile, (uint64_t)j->opt.tile);
    return LW_OK;
}

lw_status lw_picture_job_manifest(const lw_picture_job *j, const lw_msg *submit,
                                  const lw_msg *result, json_t **ret, lw_err *err)
{
    json_t *m = lw_manifest_new();
    lw_msg none;
    lw_status s;

    lw_msg_init(&none, LW_MSG_RESULT, NULL);
    s = m ? lw_manifest_add(m, submit, result ? result : &none, err)
          : lw_fail(err, LW_E_NOMEM, "no memory for a manifest");
    if (s == LW_OK && j->template.name)
        s = lw_manifest_set_template(m, j->template.name, j->template.digest, err);
    if (s == LW_OK)
        s = lw_manifest_set_variables(m, &j->opt.variables, err);
    if (s == LW_OK)
        *ret = m;
    else
        json_decref(m);
    return s;
}
