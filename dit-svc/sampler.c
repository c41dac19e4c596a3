#include "dit-svc/sampler.h"

#include <math.h>

/* Compiled with -ffp-contract=off: one rounding an operation, and fmaf where PyTorch has one. */

#define TRAIN_STEPS 1000.0f

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

lw_status lw_schedule_make(int64_t n_steps, double shift, lw_schedule *ret, lw_err *err)
{
    float a = (float)shift, b = (float)(shift - 1.0);

    if (n_steps < 1 || n_steps > LW_MAX_STEPS)
        return lw_fail(err, LW_E_INVALID, "steps %lld: expected 1 to %d", (long long)n_steps,
                       LW_MAX_STEPS);
    if (!(shift > 0) || !isfinite(shift))
        return lw_fail(err, LW_E_INVALID, "shift %g: expected a number above 0", shift);
    ret->n_steps = (int)n_steps;
    for (int i = 0; i < n_steps; i++) {
        float s = linspace((int)n_steps, i);

        ret->sigma[i] = a * s / (1.0f + b * s);
        ret->t[i] = (TRAIN_STEPS - ret->sigma[i] * TRAIN_STEPS) / TRAIN_STEPS;
    }
    ret->sigma[n_steps] = 0.0f;
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
