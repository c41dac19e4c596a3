/*
 * Principal components by subspace iteration: a block of vectors is multiplied by the covariance
 * (through the rows, X' (X V) / n), made orthonormal and turned to the eigenvectors of the small
 * matrix V' C V (Rayleigh and Ritz), until the first two no longer move. Real embeddings have a few
 * dimensions that outweigh the rest, so that this takes a handful of rounds.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrate/analysis/compare.h"
#include "orchestrate/analysis/dot.h"

#define BLOCK      12    /* vectors; those beyond two make the first two come faster */
#define MAX_ROUNDS 400   /* of data without any direction of its own, 100 are usual */
#define TOLERANCE  1e-12 /* |C v - l v| against the largest l */
#define SWEEPS     60    /* of Jacobi's method; a 12 by 12 matrix needs about 6 */

typedef struct work {
    const lw_embedding *files;
    int n_files;
    int64_t n, dim;
    int k;         /* vectors in the block, at most BLOCK */
    double *mean;  /* [dim] */
    double *row;   /* [dim] a row less the mean */
    double *v, *w; /* [k, dim] the block, and the covariance times it */
    double *turned;
} work;

static void add_scaled(double *to, const double *x, double factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += factor * x[i];
}

/* Row i of a file less the mean, into w->row; false for one that does not count. */
static bool load_row(work *w, const lw_embedding *e, int64_t i)
{
    if (!e->finite[i])
        return false;
    for (int64_t d = 0; d < w->dim; d++)
        w->row[d] = (double)e->x[i * w->dim + d] - w->mean[d];
    return true;
}

/* w->w = C w->v */
static void multiply(work *w)
{
    memset(w->w, 0, (size_t)w->k * (size_t)w->dim * sizeof(double));
    for (int f = 0; f < w->n_files; f++)
        for (int64_t i = 0; i < w->files[f].rows; i++) {
            if (!load_row(w, &w->files[f], i))
                continue;
            for (int j = 0; j < w->k; j++)
                add_scaled(w->w + j * w->dim, w->row,
                           lw_dot(w->row, w->v + j * w->dim, w->dim) / (double)w->n, w->dim);
        }
}

/* Gram and Schmidt, twice; a vector that the ones before it span becomes zero. */
static void orthonormalise(double *v, int k, int64_t dim)
{
    for (int j = 0; j < k; j++) {
        double *x = v + j * dim;
        const double before = sqrt(lw_dot(x, x, dim));
        double after;

        for (int twice = 0; twice < 2; twice++)
            for (int i = 0; i < j; i++)
                add_scaled(x, v + i * dim, -lw_dot(x, v + i * dim, dim), dim);
        after = sqrt(lw_dot(x, x, dim));
        for (int64_t d = 0; d < dim; d++)
            x[d] = after > 1e-10 * before ? x[d] / after : 0;
    }
}

/* Eigenvectors of a symmetric matrix by Jacobi's rotations, as the columns of q. */
static void jacobi(double t[BLOCK][BLOCK], double q[BLOCK][BLOCK], int k)
{
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++)
            q[i][j] = i == j;
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        double off = 0, diagonal = 0;

        for (int i = 0; i < k; i++)
            for (int j = 0; j < k; j++)
                *(i == j ? &diagonal : &off) += t[i][j] * t[i][j];
        if (off <= 1e-32 * diagonal)
            return;
        for (int a = 0; a < k; a++)
            for (int b = a + 1; b < k; b++) {
                double angle, c, s;

                if (t[a][b] == 0)
                    continue;
                angle = 0.5 * atan2(2 * t[a][b], t[b][b] - t[a][a]);
                c = cos(angle);
                s = sin(angle);
                for (int i = 0; i < k; i++) {
                    const double x = t[i][a], y = t[i][b];

                    t[i][a] = c * x - s * y;
                    t[i][b] = s * x + c * y;
                }
                for (int i = 0; i < k; i++) {
                    const double x = t[a][i], y = t[b][i];

                    t[a][i] = c * x - s * y;
                    t[b][i] = s * x + c * y;
                }
                for (int i = 0; i < k; i++) {
                    const double x = q[i][a], y = q[i][b];

                    q[i][a] = c * x - s * y;
                    q[i][b] = s * x + c * y;
                }
            }
    }
}

/* Replace the block by its combinations with the columns of q in that order. */
static void turn(work *w, double *block, double q[BLOCK][BLOCK], const int *order)
{
    memset(w->turned, 0, (size_t)w->k * (size_t)w->dim * sizeof(double));
    for (int j = 0; j < w->k; j++)
        for (int i = 0; i < w->k; i++)
            add_scaled(w->turned + j * w->dim, block + i * w->dim, q[i][order[j]], w->dim);
    memcpy(block, w->turned, (size_t)w->k * (size_t)w->dim * sizeof(double));
}

/* Turn v and w to the eigenvectors within the block; the variances along them fall. */
static void ritz(work *w, double variance[BLOCK])
{
    double t[BLOCK][BLOCK], q[BLOCK][BLOCK];
    int order[BLOCK];

    for (int i = 0; i < w->k; i++)
        for (int j = 0; j <= i; j++)
            t[i][j] = t[j][i] = lw_dot(w->v + i * w->dim, w->w + j * w->dim, w->dim);
    jacobi(t, q, w->k);
    for (int i = 0; i < w->k; i++) {
        int at = i;

        for (; at > 0 && t[order[at - 1]][order[at - 1]] < t[i][i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    for (int i = 0; i < w->k; i++)
        variance[i] = t[order[i]][order[i]];
    turn(w, w->v, q, order);
    turn(w, w->w, q, order);
}

/* How far the vector is from being an eigenvector: |C v - l v|. */
static double residual(const work *w, int j, double variance)
{
    double sum = 0;

    for (int64_t d = 0; d < w->dim; d++) {
        const double off = w->w[j * w->dim + d] - variance * w->v[j * w->dim + d];

        sum += off * off;
    }
    return sqrt(sum);
}

/* Any start will do that is not square to the answer; this one is the same every time. */
static void start(work *w)
{
    uint64_t state = 0x9e3779b97f4a7c15u;

    for (int64_t i = 0; i < w->k * w->dim; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        w->v[i] = (double)(state >> 11) / 9007199254740992.0 - 0.5;
    }
    orthonormalise(w->v, w->k, w->dim);
}

static bool iterate(work *w, double variance[BLOCK])
{
    const int wanted = w->k < 2 ? w->k : 2;

    start(w);
    for (int round = 0; round < MAX_ROUNDS; round++) {
        bool done = true;

        multiply(w);
        ritz(w, variance);
        for (int j = 0; j < wanted; j++)
            done = done && residual(w, j, variance[j]) <= TOLERANCE * variance[0];
        if (done)
            return true;
        memcpy(w->v, w->w, (size_t)w->k * (size_t)w->dim * sizeof(double));
        orthonormalise(w->v, w->k, w->dim);
    }
    return false;
}

static double total_variance(work *w)
{
    double total = 0;

    for (int f = 0; f < w->n_files; f++)
        for (int64_t i = 0; i < w->files[f].rows; i++)
            if (load_row(w, &w->files[f], i))
                total += lw_dot(w->row, w->row, w->dim) / (double)w->n;
    return total;
}

static void find_mean(work *w)
{
    for (int f = 0; f < w->n_files; f++)
        for (int64_t i = 0; i < w->files[f].rows; i++)
            for (int64_t d = 0; w->files[f].finite[i] && d < w->dim; d++)
                w->mean[d] += (double)w->files[f].x[i * w->dim + d] / (double)w->n;
}

/* Axes with their signs settled, and where each row is. */
static void project(work *w, lw_pca *p)
{
    int64_t n = 0;

    for (int j = 0; j < 2 && j < w->k; j++) {
        const double *v = w->v + j * w->dim;
        int64_t largest = 0;

        for (int64_t d = 1; d < w->dim; d++)
            largest = fabs(v[d]) > fabs(v[largest]) ? d : largest;
        for (int64_t d = 0; d < w->dim; d++)
            p->axis[j][d] = v[largest] < 0 ? -v[d] : v[d];
    }
    for (int f = 0; f < w->n_files; f++)
        for (int64_t i = 0; i < w->files[f].rows; i++)
            if (load_row(w, &w->files[f], i))
                p->points[n++] = (lw_pca_point){
                    .file = f,
                    .row = i,
                    .at = { lw_dot(w->row, p->axis[0], w->dim),
                            lw_dot(w->row, p->axis[1], w->dim) },
                };
}

lw_status lw_embedding_pca(const lw_embedding *files, int n_files, lw_arena *a, lw_pca *ret,
                           lw_err *err)
{
    work w = { .files = files, .n_files = n_files, .dim = files[0].dim };
    double variance[BLOCK] = { 0 }, total, squares;
    lw_pca p = { 0 };
    size_t dim;

    for (int f = 0; f < n_files; f++)
        w.n += files[f].n_finite;
    w.k = w.dim < BLOCK ? (int)w.dim : BLOCK;
    w.k = w.n < w.k ? (int)w.n : w.k;
    dim = (size_t)w.dim;
    w.mean = lw_arena_calloc(a, dim, sizeof(double), err);
    w.row = lw_arena_calloc(a, dim, sizeof(double), err);
    w.v = lw_arena_calloc(a, dim * BLOCK, sizeof(double), err);
    w.w = lw_arena_calloc(a, dim * BLOCK, sizeof(double), err);
    w.turned = lw_arena_calloc(a, dim * BLOCK, sizeof(double), err);
    p.axis[0] = lw_arena_calloc(a, dim, sizeof(double), err);
    p.axis[1] = lw_arena_calloc(a, dim, sizeof(double), err);
    p.points = lw_arena_calloc(a, (size_t)w.n, sizeof(*p.points), err);
    if (!w.mean || !w.row || !w.v || !w.w || !w.turned || !p.axis[0] || !p.axis[1] || !p.points)
        return LW_E_NOMEM;
    p.n = w.n;
    find_mean(&w);
    total = total_variance(&w);
    squares = lw_dot(w.mean, w.mean, w.dim);
    if (total <= 1e-26 * squares) /* the same row everywhere, but for the rounding of the mean */
        total = 0;
    p.converged = total > 0 ? iterate(&w, variance) : true;
    for (int j = 0; j < 2; j++)
        p.share[j] = total > 0 ? variance[j] / total : (double)NAN;
    project(&w, &p);
    *ret = p;
    return LW_OK;
}
