/*
 * The inner loops of winograd.h. Meson compiles this file once per instruction set, with
 * LW_WINO_TABLE and LW_WINO_ISA naming the result; as in vec.c nothing outside may be inlined into
 * here except static functions. Vectors are those of gcc and clang: channels beside each other.
 */
#include "common/cpu/winograd.h"

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
#define PANEL (2 * LANES)

/* In memory: aligned as a float. */
typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float stored __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#define ROOT2     1.41421356237309505f
#define HALF_ROOT 0.70710678118654752f

static inline vec load(const float *p)
{
    return *(const stored *)p;
}

static inline void store(float *p, vec v)
{
    *(stored *)p = v;
}

/* One side of B^T d B: six values, `step` apart, become six. */
static inline void input_side(vec *t, int step)
{
    vec d0 = t[0], d1 = t[step], d2 = t[2 * step], d3 = t[3 * step], d4 = t[4 * step],
        d5 = t[5 * step];
    vec even = d4 - 2.0f * d2, odd = HALF_ROOT * d3 - ROOT2 * d1;

    t[0] = d0 - 2.5f * d2 + d4;
    t[step] = even + odd;
    t[2 * step] = even - odd;
    even = d4 - 0.5f * d2;
    odd = ROOT2 * d3 - HALF_ROOT * d1;
    t[3 * step] = even + odd;
    t[4 * step] = even - odd;
    t[5 * step] = d1 - 2.5f * d3 + d5;
}

/* One side of G g G^T: three values become six. */
static inline void filter_side(vec *u, int step, vec g0, vec g1, vec g2)
{
    vec even = (g0 + 0.5f * g2) * (-2.0f / 3.0f), odd = g1 * (-2.0f / 3.0f * HALF_ROOT);

    u[0] = g0;
    u[step] = even + odd;
    u[2 * step] = even - odd;
    even = (g0 + 2.0f * g2) * (1.0f / 6.0f);
    odd = g1 * (1.0f / 6.0f * ROOT2);
    u[3 * step] = even + odd;
    u[4 * step] = even - odd;
    u[5 * step] = g2;
}

/* One side of A^T m A: six values become four. */
static inline void output_side(vec *y, int y_step, const vec *m, int step)
{
    vec sum1 = m[step] + m[2 * step], dif1 = m[step] - m[2 * step];
    vec sum2 = m[3 * step] + m[4 * step], dif2 = m[3 * step] - m[4 * step];

    y[0] = m[0] + sum1 + sum2;
    y[y_step] = HALF_ROOT * dif1 + ROOT2 * dif2;
    y[2 * y_step] = 0.5f * sum1 + 2.0f * sum2;
    y[3 * y_step] = 0.5f * HALF_ROOT * dif1 + 2.0f * ROOT2 * dif2 + m[5 * step];
}

static void isa_filters(float *u, int64_t place, const float *g, int64_t n_in)
{
    for (int64_t i = 0; i < n_in * PANEL; i += LANES) {
        vec half[6][3], t[6][6];

        for (int c = 0; c < 3; c++)
            filter_side(&half[0][c], 3, load(g + c * n_in * PANEL + i),
                        load(g + (3 + c) * n_in * PANEL + i), load(g + (6 + c) * n_in * PANEL + i));
        for (int r = 0; r < 6; r++)
            filter_side(t[r], 1, half[r][0], half[r][1], half[r][2]);
        for (int p = 0; p < LW_WINO_PLACES; p++)
            store(u + p * place + i, t[p / 6][p % 6]);
    }
}

static void isa_input(float *v, int64_t place, const float *const px[LW_WINO_PLACES], int64_t n_in)
{
    for (int64_t i = 0; i < n_in; i += LANES) {
        vec t[6][6];

        for (int p = 0; p < LW_WINO_PLACES; p++)
            t[p / 6][p % 6] = load(px[p] + i);
        for (int c = 0; c < 6; c++)
            input_side(&t[0][c], 6);
        for (int r = 0; r < 6; r++)
            input_side(t[r], 1);
        for (int p = 0; p < LW_WINO_PLACES; p++)
            store(v + p * place + i, t[p / 6][p % 6]);
    }
}

static void isa_output(float *const py[LW_WINO_OUT * LW_WINO_OUT],
                       const float *const pr[LW_WINO_OUT * LW_WINO_OUT], const float *m,
                       int64_t place, const float *b, int64_t n_out)
{
    for (int64_t i = 0; i < n_out; i += LANES) {
        vec t[6][6], half[4][6], y[4][4], bias = b ? load(b + i) : (vec){ 0 };

        for (int p = 0; p < LW_WINO_PLACES; p++)
            t[p / 6][p % 6] = load(m + p * place + i);
        for (int c = 0; c < 6; c++)
            output_side(&half[0][c], 6, &t[0][c], 6);
        for (int r = 0; r < 4; r++)
            output_side(y[r], 1, half[r], 1);
        for (int p = 0; p < LW_WINO_OUT * LW_WINO_OUT; p++) {
            vec sum = y[p / 4][p % 4] + bias;

            if (py[p])
                store(py[p] + i, pr[0] ? sum + load(pr[p] + i) : sum);
        }
    }
}

const lw_wino_isa LW_WINO_TABLE = {
    .name = LW_WINO_ISA,
    .panel = PANEL,
    .filters = isa_filters,
    .input = isa_input,
    .output = isa_output,
};
