/* Measures of pictures. SSIM is computed with rows in a ring, so a large picture costs no planes.
 */

#include "orchestrate/measure.h"

#include <math.h>
#include <stdlib.h>

#include "orchestrate/picture.h"

/* ---- one picture ---- */

/* A thousand times the luminance: an integer, so that sums of it are exact. */
static int64_t luminance_1000(const uint8_t *p)
{
    return 299 * p[0] + 587 * p[1] + 114 * p[2];
}

/* What a variance is taken of, at pixel (x, y). */
typedef int64_t value_fn(const uint8_t *rgb, int64_t width, int64_t x, int64_t y);

static int64_t luminance_at(const uint8_t *rgb, int64_t width, int64_t x, int64_t y)
{
    return luminance_1000(rgb + (y * width + x) * 3);
}

static int64_t red_green_at(const uint8_t *rgb, int64_t width, int64_t x, int64_t y)
{
    const uint8_t *p = rgb + (y * width + x) * 3;

    return p[0] - p[1];
}

/* Twice (R + G) / 2 - B. */
static int64_t yellow_blue_at(const uint8_t *rgb, int64_t width, int64_t x, int64_t y)
{
    const uint8_t *p = rgb + (y * width + x) * 3;

    return p[0] + p[1] - 2 * p[2];
}

static int64_t laplacian_at(const uint8_t *rgb, int64_t width, int64_t x, int64_t y)
{
    return luminance_at(rgb, width, x, y - 1) + luminance_at(rgb, width, x, y + 1) +
           luminance_at(rgb, width, x - 1, y) + luminance_at(rgb, width, x + 1, y) -
           4 * luminance_at(rgb, width, x, y);
}

typedef struct moments {
    double mean, variance;
} moments;

/* Mean and variance of `value` / unit over the pixels that are `border` from the edges. */
static moments moments_of(value_fn *value, double unit, const uint8_t *rgb, int width, int height,
                          int border)
{
    const double n = (double)(width - 2 * border) * (double)(height - 2 * border);
    int64_t sum = 0; /* at most 2.1e6 * 2^28 */
    moments m = { 0 };

    if (width <= 2 * border || height <= 2 * border)
        return m;
    for (int y = border; y < height - border; y++)
        for (int x = border; x < width - border; x++)
            sum += value(rgb, width, x, y);
    m.mean = (double)sum / n;
    for (int y = border; y < height - border; y++) {
        double row = 0;

        for (int x = border; x < width - border; x++) {
            const double d = (double)value(rgb, width, x, y) - m.mean;

            row += d * d;
        }
        m.variance += row;
    }
    m.variance /= n * unit * unit;
    m.mean /= unit;
    return m;
}

lw_picture_measures lw_measure_picture(const uint8_t *rgb, int width, int height)
{
    const moments y = moments_of(luminance_at, 1000, rgb, width, height, 0);
    const moments rg = moments_of(red_green_at, 1, rgb, width, height, 0);
    const moments yb = moments_of(yellow_blue_at, 2, rgb, width, height, 0);
    const moments edges = moments_of(laplacian_at, 1000, rgb, width, height, 1);

    return (lw_picture_measures){
        .luminance = y.mean / 255,
        .contrast = sqrt(y.variance) / 255,
        .colourfulness =
            sqrt(rg.variance + yb.variance) + 0.3 * sqrt(rg.mean * rg.mean + yb.mean * yb.mean),
        .sharpness = edges.variance,
    };
}

/* ---- two pictures ---- */

#define RADIUS 5 /* scipy's truncate 3.5 times sigma 1.5, rounded */
#define WINDOW (2 * RADIUS + 1)
#define SIGMA  1.5
#define N_SUMS 5 /* of a, b, a^2, b^2, a b */

/* Rows of the sums, weighted across, of the WINDOW rows that were read last. */
typedef struct ring {
    double weights[WINDOW];
    double *a, *b;    /* [width] luminance of the row that was read last */
    double *sums;     /* [WINDOW, n, N_SUMS] */
    int64_t width, n; /* n = width - 2 RADIUS */
} ring;

static lw_status ring_init(ring *r, int width, lw_err *err)
{
    double total = 0;

    *r = (ring){ .width = width, .n = width - 2 * RADIUS };
    r->a = calloc((size_t)width, sizeof(double));
    r->b = calloc((size_t)width, sizeof(double));
    r->sums = calloc((size_t)r->n * WINDOW * N_SUMS, sizeof(double));
    if (!r->a || !r->b || !r->sums)
        return lw_fail(err, LW_E_NOMEM, "no memory to compare pictures that are %d wide", width);
    for (int i = 0; i < WINDOW; i++) {
        r->weights[i] = exp(-(i - RADIUS) * (i - RADIUS) / (2 * SIGMA * SIGMA));
        total += r->weights[i];
    }
    for (int i = 0; i < WINDOW; i++)
        r->weights[i] /= total;
    return LW_OK;
}

static void ring_deinit(ring *r)
{
    free(r->a);
    free(r->b);
    free(r->sums);
}

static void ring_read(ring *r, const uint8_t *a, const uint8_t *b, int64_t y)
{
    double *to = r->sums + y % WINDOW * r->n * N_SUMS;

    for (int64_t x = 0; x < r->width; x++) {
        r->a[x] = (double)luminance_at(a, r->width, x, y) / 1000;
        r->b[x] = (double)luminance_at(b, r->width, x, y) / 1000;
    }
    for (int64_t x = 0; x < r->n; x++, to += N_SUMS) {
        double sum[N_SUMS] = { 0 };

        for (int i = 0; i < WINDOW; i++) {
            const double w = r->weights[i], p = r->a[x + i], q = r->b[x + i];

            sum[0] += w * p;
            sum[1] += w * q;
            sum[2] += w * p * p;
            sum[3] += w * q * q;
            sum[4] += w * p * q;
        }
        for (int k = 0; k < N_SUMS; k++)
            to[k] = sum[k];
    }
}

/* SSIM of the window whose last row is y and whose first column is x. */
static double ssim_at(const ring *r, int64_t x, int64_t y)
{
    const double c1 = (0.01 * 255) * (0.01 * 255), c2 = (0.03 * 255) * (0.03 * 255);
    double m[N_SUMS] = { 0 }, var_a, var_b, cov;

    for (int i = 0; i < WINDOW; i++) {
        const int64_t row = (y - 2 * RADIUS + i) % WINDOW;
        const double *from = r->sums + (row * r->n + x) * N_SUMS;

        for (int k = 0; k < N_SUMS; k++)
            m[k] += r->weights[i] * from[k];
    }
    var_a = m[2] - m[0] * m[0];
    var_b = m[3] - m[1] * m[1];
    cov = m[4] - m[0] * m[1];
    return (2 * m[0] * m[1] + c1) * (2 * cov + c2) /
           ((m[0] * m[0] + m[1] * m[1] + c1) * (var_a + var_b + c2));
}

static lw_status ssim(const uint8_t *a, const uint8_t *b, int width, int height, double *ret,
                      lw_err *err)
{
    double total = 0;
    lw_status s;
    ring r;

    if (width < WINDOW || height < WINDOW) {
        *ret = (double)NAN;
        return LW_OK;
    }
    s = ring_init(&r, width, err);
    for (int y = 0; y < height && s == LW_OK; y++) {
        double row = 0;

        ring_read(&r, a, b, y);
        for (int64_t x = 0; y >= 2 * RADIUS && x < r.n; x++)
            row += ssim_at(&r, x, y);
        total += row;
    }
    if (s == LW_OK)
        *ret = total / ((double)r.n * (double)(height - 2 * RADIUS));
    ring_deinit(&r);
    return s;
}

lw_status lw_measure_pair(const uint8_t *a, const uint8_t *b, int width, int height,
                          lw_pair_measures *ret, lw_err *err)
{
    const uint64_t n_pixels = (uint64_t)width * (uint64_t)height;
    const lw_difference d = lw_pixels_compare(a, b, n_pixels);
    uint64_t sum = 0;
    double similarity;

    LW_TRY(ssim(a, b, width, height, &similarity, err));
    for (uint64_t i = 0; i < n_pixels * 3; i++)
        sum += (uint64_t)abs(a[i] - b[i]);
    *ret = (lw_pair_measures){
        .psnr_db = d.psnr_db,
        .ssim = d.largest == 0 && !isnan(similarity) ? 1 : similarity,
        .mean_abs = (double)sum / ((double)n_pixels * 3),
        .largest = d.largest,
        .n_pixels = n_pixels,
        .n_differ = d.n_differ,
    };
    return LW_OK;
}
