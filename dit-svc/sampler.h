#ifndef LW_DIT_SAMPLER_H
#define LW_DIT_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define LW_MAX_STEPS 256

/**
 * The noise levels of a run: FlowMatchEulerDiscreteScheduler without dynamic shifting, bit for bit
 * (docs/numerics.md, "Schedule and step").
 */
typedef struct lw_schedule {
    int n_steps;
    float sigma[LW_MAX_STEPS + 1]; /* falling; sigma[n_steps] is where the run ends, 0 */
    float t[LW_MAX_STEPS];         /* time that the network sees, 1 - sigma by the f32 rule */
} lw_schedule;

/** n_steps in 1..LW_MAX_STEPS network evaluations; shift > 0. Errors: LW_E_INVALID. */
LW_MUST_USE lw_status lw_schedule_make(int64_t n_steps, double shift, lw_schedule *ret,
                                       lw_err *err);

/**
 * A schedule with the noise levels given, shifted already: n_sigmas = steps + 1 falling values in
 * 0..1 (rounded to f32), of which the last, 0 in a whole run, ends the last step.
 * Errors: LW_E_INVALID.
 */
LW_MUST_USE lw_status lw_schedule_given(const double *sigmas, size_t n_sigmas, lw_schedule *ret,
                                        lw_err *err);

/** Guidance settings; zero is "off" but for truncation, where 1 is. */
typedef struct lw_guidance {
    double scale;         /* w in pos + w (pos - neg) */
    double normalization; /* limit of |pred| as a multiple of |pos|; 0 = none */
    double truncation;    /* no guidance at steps whose t is above */
} lw_guidance;

/** True when the negative branch runs at time t. The f32 t is compared in f64, as the pipeline
 * does. */
bool lw_guidance_active(const lw_guidance *g, float t);

/** pos [n] becomes the guided prediction, with neg [n]; raw network outputs, before negation. */
void lw_guide(const lw_guidance *g, float *pos, const float *neg, int64_t n);

/** x += (sigma_next - sigma) * -out. */
void lw_euler_step(float *x, const float *out, int64_t n, float sigma, float sigma_next);

/** x0 = x + sigma * out: the estimate of the clean latents. */
void lw_predict_x0(float *x0, const float *x, const float *out, int64_t n, float sigma);

#endif
