#include "dit-svc/sampler.h"

#include <math.h>

/* Compiled with -ffp-contract=off: one rounding an operation, and fmaf where PyTorch has one. */

#define TRAIN_STEPS 1000.0f

/* Far beyond anything in use; within them every sigma is a normal number in f32. */
#define MIN_SHIFT 1e-3
#define MAX_SHIFT 1e6

/** s_i of torch.linspace(1, 1/n, n): counted from the start in the first half, from the end after.
 */
static float linspace(int n, int i)
{
    float end = (float)(1.0 / n), d;

    if (n == 1)
        return 1.0f;
    d = (end - 1.0f) / (float)(n - 1);
    return i < n / 2 ? fmaf(d, (float)i, 1.0f) : fmaf(-d, (float)(n - 1 - i), end);
}

/** Time that the network sees, by way of the timestep as the pipeline has it. */
static float time_of(float sigma)
{
    return (TRAIN_STEPS - sigma * TRAIN_STEPS) / TRAIN_STEPS;
}

lw_status lw_schedule_make(int64_t n_steps, double shift, lw_schedule *ret, lw_err *err)
{
    float a = (float)shift, b = (float)(shift - 1.0);

    if (n_steps < 1 || n_steps > LW_MAX_STEPS)
        return lw_fail(err, LW_E_INVALID, "steps %lld: expected 1 to %d", (long long)n_steps,
                       LW_MAX_STEPS);
    if (!(shift >= MIN_SHIFT && shift <= MAX_SHIFT))
        return lw_fail(err, LW_E_INVALID, "shift %g: expected %g to %g", shift, MIN_SHIFT,
                       MAX_SHIFT);
    ret->n_steps = (int)n_steps;
    for (int i = 0; i < n_steps; i++) {
        float s = linspace((int)n_steps, i);

        ret->sigma[i] = a * s / (1.0f + b * s);
        ret->t[i] = time_of(ret->sigma[i]);
    }
    ret->sigma[n_steps] = 0.0f;
    return LW_OK;
}

lw_status lw_schedule_given(const double *sigmas, size_t n_sigmas, lw_schedule *ret, lw_err *err)
{
    if (n_sigmas < 2 || n_sigmas > LW_MAX_STEPS + 1)
        return lw_fail(err, LW_E_INVALID, "sigmas: %zu values; expected 2 to %d", n_sigmas,
                       LW_MAX_STEPS + 1);
    ret->n_steps = (int)n_sigmas - 1;
    for (size_t i = 0; i < n_sigmas; i++) {
        if (!(sigmas[i] >= 0 && sigmas[i] <= 1) || (i > 0 && !(sigmas[i] < sigmas[i - 1])))
            return lw_fail(err, LW_E_INVALID,
                           "sigmas[%zu] is %g: expected falling numbers from 1 at most to 0 at "
                           "least",
                           i, sigmas[i]);
        ret->sigma[i] = (float)sigmas[i];
        if (i + 1 < n_sigmas)
            ret->t[i] = time_of(ret->sigma[i]);
    }
    return LW_OK;
}

bool lw_guidance_active(const lw_guidance *g, float t)
{
    return g->scale > 0 && !((double)t > g->truncation);
}

static double norm2(const float *x, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sqrt(sum);
}

void lw_guide(const lw_guidance *g, float *pos, const float *neg, int64_t n)
{
    float w = (float)g->scale, limit, norm, ratio;

    limit = (float)norm2(pos, n) * (float)g->normalization;
    for (int64_t i = 0; i < n; i++)
        pos[i] = pos[i] + w * (pos[i] - neg[i]);
    if (g->normalization <= 0)
        return;
    norm = (float)norm2(pos, n);
    if (norm <= limit)
        return;
    ratio = limit / norm;
    for (int64_t i = 0; i < n; i++)
        pos[i] *= ratio;
}

void lw_euler_step(float *x, const float *out, int64_t n, float sigma, float sigma_next)
{
    float dt = sigma_next - sigma;

    for (int64_t i = 0; i < n; i++)
        x[i] = x[i] + dt * -out[i];
}

void lw_predict_x0(float *x0, const float *x, const float *out, int64_t n, float sigma)
{
    for (int64_t i = 0; i < n; i++)
        x0[i] = x[i] + sigma * out[i];
}
