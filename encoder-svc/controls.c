/* Rows of embeddings on their way to the denoiser. */

#include "encoder-svc/controls.h"

#include <math.h>
#include <string.h>

#include "common/rng.h"

static const char *const names[] = { "truncate", "interpolate", "pool", "attention_pool" };

int lw_reduction_from_name(const char *name)
{
    for (int i = 0; i < (int)LW_ARRAY_LEN(names); i++)
        if (!strcmp(names[i], name))
            return i;
    return -1;
}

const char *lw_reduction_name(lw_reduction r)
{
    return names[r];
}

void lw_rows_sum(float *out, const float *const *states, const double *weights, int n_states,
                 size_t count)
{
    for (size_t i = 0; i < count; i++) {
        double sum = 0;

        for (int k = 0; k < n_states; k++)
            sum += weights[k] * (double)states[k][i];
        out[i] = (float)sum;
    }
}

static void mean_row(const float *rows, int64_t n, int64_t d, double *ret)
{
    memset(ret, 0, (size_t)d * sizeof(*ret));
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++)
            ret[j] += (double)rows[i * d + j];
    for (int64_t j = 0; j < d; j++)
        ret[j] /= (double)n;
}

void lw_rows_weigh(float *rows, int64_t n, int64_t d, const float *weights, double *scratch)
{
    mean_row(rows, n, d, scratch);
    for (int64_t i = 0; i < n; i++) {
        float *row = rows + i * d;

        if (weights[i] == 1)
            continue;
        for (int64_t j = 0; j < d; j++)
            row[j] = (float)(scratch[j] + (double)weights[i] * ((double)row[j] - scratch[j]));
    }
}

/* Mean square of row - mean. */
static double deviation(const float *row, const double *mean, int64_t d)
{
    double sum = 0;

    for (int64_t j = 0; j < d; j++)
        sum += ((double)row[j] - mean[j]) * ((double)row[j] - mean[j]);
    return sum / (double)d;
}

lw_status lw_rows_noise(float *rows, int64_t n, int64_t d, double amount, uint64_t seed,
                        lw_arena *a, lw_err *err)
{
    double *mean;
    float *noise;
    lw_rng rng;

    if (amount == 0 || n < 2)
        return LW_OK;
    mean = lw_arena_alloc(a, (size_t)d * sizeof(*mean), err);
    noise = lw_arena_alloc(a, (size_t)(n * d) * sizeof(*noise), err);
    if (!mean || !noise)
        return LW_E_NOMEM;
    lw_rng_seed(&rng, seed);
    lw_rng_normal(&rng, noise, (size_t)(n * d));
    mean_row(rows, n, d, mean);
    for (int64_t i = 0; i < n; i++) {
        const double scale = amount * sqrt(deviation(rows + i * d, mean, d));

        for (int64_t j = 0; j < d; j++)
            rows[i * d + j] = (float)((double)rows[i * d + j] + scale * (double)noise[i * d + j]);
    }
    return LW_OK;
}

/* ---- another number of rows ---- */

/* Where row i of m lies among n rows: the first on the first, the last on the last. */
static double place(int64_t i, int64_t m, int64_t n)
{
    return m > 1 ? (double)i * (double)(n - 1) / (double)(m - 1) : (double)(n - 1) / 2;
}

/* Value j at a place between two rows. */
static double between(const float *rows, int64_t n, int64_t d, double at, int64_t j)
{
    const int64_t low = (int64_t)at, high = low + 1 < n ? low + 1 : low;
    const double part = at - (double)low;

    return (1 - part) * (double)rows[low * d + j] + part * (double)rows[high * d + j];
}

/* Cosine of a row and the mean row; 0 when one of them is zero. */
static double likeness(const float *row, const double *mean, int64_t d)
{
    double dot = 0, a = 0, b = 0;

    for (int64_t j = 0; j < d; j++) {
        dot += (double)row[j] * mean[j];
        a += (double)row[j] * (double)row[j];
        b += mean[j] * mean[j];
    }
    return a > 0 && b > 0 ? dot / sqrt(a * b) : 0;
}

/* Windows [floor(i n / m), ceil((i + 1) n / m)), each row of them with its weight. */
static void pool(float *out, int64_t m, const float *rows, int64_t n, int64_t d,
                 const double *weights)
{
    for (int64_t i = 0; i < m; i++) {
        const int64_t begin = i * n / m, end = ((i + 1) * n + m - 1) / m;

        for (int64_t j = 0; j < d; j++) {
            double sum = 0, all = 0;

            for (int64_t t = begin; t < end; t++) {
                sum += weights[t] * (double)rows[t * d + j];
                all += weights[t];
            }
            out[i * d + j] = (float)(sum / all);
        }
    }
}

lw_status lw_rows_resample(float *out, int64_t m, const float *rows, int64_t n, int64_t d,
                           lw_reduction how, lw_arena *a, lw_err *err)
{
    double *weights, *mean;

    if (how != LW_REDUCE_POOL && how != LW_REDUCE_ATTENTION) {
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < d; j++)
                out[i * d + j] = (float)between(rows, n, d, place(i, m, n), j);
        return LW_OK;
    }
    weights = lw_arena_alloc(a, (size_t)n * sizeof(*weights), err);
    mean = lw_arena_alloc(a, (size_t)d * sizeof(*mean), err);
    if (!weights || !mean)
        return LW_E_NOMEM;
    mean_row(rows, n, d, mean);
    for (int64_t t = 0; t < n; t++)
        weights[t] = how == LW_REDUCE_ATTENTION ? exp(likeness(rows + t * d, mean, d)) : 1;
    pool(out, m, rows, n, d, weights);
    return LW_OK;
}

double lw_rows_loss(const float *rows, int64_t n, const float *reduced, int64_t m, int64_t d,
                    double *scratch)
{
    double lost = 0, all = 0;

    mean_row(rows, n, d, scratch);
    for (int64_t i = 0; i < n; i++) {
        all += deviation(rows + i * d, scratch, d);
        for (int64_t j = 0; j < d; j++) {
            double e = (double)rows[i * d + j] - between(reduced, m, d, place(i, n, m), j);

            lost += e * e / (double)d;
        }
    }
    return all > 0 ? fmin(lost / all, 1) : 0;
}

void lw_rows_blend(float *rows, const float *other, double share, size_t count)
{
    if (share == 0)
        return;
    for (size_t i = 0; i < count; i++)
        rows[i] = (float)((1 - share) * (double)rows[i] + share * (double)other[i]);
}
