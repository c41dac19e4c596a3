/*
 * Which workers fit together. The first worker of a role defines it while it or one like it is
 * there. Workers of one role must be interchangeable (a retry gives the same picture), and what one
 * stage gives must be what the next one takes.
 */

#include <string.h>

#include "orchestrate/hub_state.h"

const lw_contract *lw_hub_contract(const lw_hub *h, lw_role role)
{
    for (int i = 0; i < h->n_sessions[LW_BACKEND]; i++) {
        const lw_hub_session *s = h->sessions[LW_BACKEND][i];

        if (s->role == role && !s->gone)
            return &s->contract;
    }
    return NULL;
}

static lw_status lacks(lw_role role, const char *field, lw_err *err)
{
    return lw_fail(err, LW_E_PRECONDITION, "the contract of this %s lacks `%s`", lw_role_name(role),
                   field);
}

static lw_status differs_u(lw_role role, const char *field, uint64_t mine, uint64_t theirs,
                           lw_err *err)
{
    return lw_fail(
        err, LW_E_PRECONDITION,
        "this %s has %s %llu, those already connected have %llu; all workers of one role "
        "must run the same model",
        lw_role_name(role), field, (unsigned long long)mine, (unsigned long long)theirs);
}

static lw_status differs_s(lw_role role, const char *field, const char *mine, const char *theirs,
                           lw_err *err)
{
    return lw_fail(err, LW_E_PRECONDITION,
                   "this %s has %s \"%s\", those already connected have \"%s\"; all workers of one "
                   "role must run the same model",
                   lw_role_name(role), field, mine, theirs);
}

static lw_status differs_f(lw_role role, const char *field, double mine, double theirs, lw_err *err)
{
    return lw_fail(
        err, LW_E_PRECONDITION,
        "this %s has %s %g, those already connected have %g; all workers of one role must "
        "run the same model",
        lw_role_name(role), field, mine, theirs);
}

/* A field that one of the two leaves out is not compared: it said nothing about it. */
#define SAME_U(m)                                                                                  \
    if (lw_contract_has(c, m) && lw_contract_has(o, m) && c->m != o->m)                            \
    return differs_u(role, #m, c->m, o->m, err)
#define SAME_F(m)                                                                                  \
    if (lw_contract_has(c, m) && lw_contract_has(o, m) && c->m != o->m)                            \
    return differs_f(role, #m, c->m, o->m, err)
#define SAME_S(m)                                                                                  \
    if (lw_contract_has(c, m) && lw_contract_has(o, m) && strcmp(c->m, o->m))                      \
    return differs_s(role, #m, c->m, o->m, err)

/* Back end and precision may differ (a GPU beside a CPU): the manifest names them. */
static lw_status check_same_role(lw_role role, const lw_contract *c, const lw_contract *o,
                                 lw_err *err)
{
    SAME_U(dim);
    SAME_U(blocks);
    SAME_U(normed);
    SAME_S(scale);
    SAME_S(tokenizer_digest);
    SAME_U(cap_dim);
    SAME_U(latent_channels);
    SAME_U(patch);
    SAME_F(shift);
    SAME_U(width);
    SAME_U(height);
    SAME_U(steps);
    SAME_U(downscale);
    SAME_F(scaling_factor);
    SAME_F(shift_factor);
    SAME_S(weights_digest);
    return LW_OK;
}

static lw_status check_complete(lw_role role, const lw_contract *c, lw_err *err)
{
    if (role == LW_ROLE_ENCODER && (!lw_contract_has(c, dim) || !c->dim))
        return lacks(role, "dim", err);
    if (role == LW_ROLE_DENOISER && (!lw_contract_has(c, cap_dim) || !c->cap_dim))
        return lacks(role, "cap_dim", err);
    if (role != LW_ROLE_ENCODER && (!lw_contract_has(c, latent_channels) || !c->latent_channels))
        return lacks(role, "latent_channels", err);
    if (role == LW_ROLE_DECODER && (!lw_contract_has(c, downscale) || !c->downscale))
        return lacks(role, "downscale", err);
    return LW_OK;
}

static lw_status check_joint(lw_role role, const char *field, uint64_t value, lw_role other_role,
                             const char *other_field, const lw_contract *other,
                             uint64_t other_value, lw_err *err)
{
    if (!other || value == other_value)
        return LW_OK;
    return lw_fail(
        err, LW_E_PRECONDITION,
        "this %s has %s %llu, but the %s%s%s has %s %llu; they do not belong to the same "
        "model",
        lw_role_name(role), field, (unsigned long long)value, lw_role_name(other_role),
        lw_contract_has(other, model_id) ? " of " : "",
        lw_contract_has(other, model_id) ? other->model_id : "", other_field,
        (unsigned long long)other_value);
}

lw_status lw_hub_contract_check(const lw_hub *h, lw_role role, const lw_contract *c, lw_err *err)
{
    const lw_contract *same = lw_hub_contract(h, role);
    const lw_contract *enc = lw_hub_contract(h, LW_ROLE_ENCODER);
    const lw_contract *dit = lw_hub_contract(h, LW_ROLE_DENOISER);
    const lw_contract *vae = lw_hub_contract(h, LW_ROLE_DECODER);

    LW_TRY(check_complete(role, c, err));
    if (same)
        LW_TRY(check_same_role(role, c, same, err));
    switch (role) {
    case LW_ROLE_ENCODER:
        return check_joint(role, "dim", c->dim, LW_ROLE_DENOISER, "cap_dim", dit,
                           dit ? dit->cap_dim : 0, err);
    case LW_ROLE_DENOISER:
        LW_TRY(check_joint(role, "cap_dim", c->cap_dim, LW_ROLE_ENCODER, "dim", enc,
                           enc ? enc->dim : 0, err));
        return check_joint(role, "latent_channels", c->latent_channels, LW_ROLE_DECODER,
                           "latent_channels", vae, vae ? vae->latent_channels : 0, err);
    case LW_ROLE_DECODER:
        return check_joint(role, "latent_channels", c->latent_channels, LW_ROLE_DENOISER,
                           "latent_channels", dit, dit ? dit->latent_channels : 0, err);
    default:
        return LW_OK;
    }
}
