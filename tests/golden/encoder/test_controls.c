/* What is done to rows of embeddings, against NumPy (tests/tools/make_control_vectors.py), and at
 * the edges. */

#include "encoder-svc/controls.h"

#include <math.h>

#include "common/safetensors.h"

#include "tests/golden/encoder/util.h"

#define N_CASES 7
#define AMOUNT  0.3
#define SEED    1234
#define SHARE   0.35

static lw_st_file *file;
static lw_arena arena;

static int setup(void **state)
{
    lw_err err;

    (void)state;
    lw_arena_init(&arena, "rows", 0);
    return lw_st_open(data_path("controls/rows.safetensors"), &file, &err) == LW_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    lw_st_close(&file);
    lw_arena_deinit(&arena);
    return 0;
}

static const lw_tensor *vector(int i, const char *name)
{
    char key[64];
    const lw_st_entry *e;

    snprintf(key, sizeof key, "%d.%s", i, name);
    e = lw_st_find(file, key);
    if (!e)
        fail_msg("no vector %s", key);
    return &e->t;
}

static float *copy(const lw_tensor *t)
{
    lw_err err;
    float *p = lw_arena_alloc(&arena, lw_tensor_bytes(t), &err);

    assert_non_null(p);
    return memcpy(p, t->data, lw_tensor_bytes(t));
}

static float *room(const lw_tensor *like)
{
    return copy(like);
}

/* Both sides compute in f64 and round once, so a difference is a unit in the last place. Noise is
 * what its generator gives (1e-6 of PyTorch's), times an amount. */
static void check_same(const float *got, const lw_tensor *expected, double bound, const char *name)
{
    const int64_t n = lw_tensor_count(expected);
    double worst = 0, largest = 0;

    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)got[i] - (double)lw_f32(expected)[i]));
        largest = fmax(largest, fabs((double)lw_f32(expected)[i]));
    }
    print_message("           %s: largest error %.1e of %.3g\n", name, worst, largest);
    assert_true(worst <= bound * fmax(largest, 1));
}

static void test_vectors(void **state)
{
    static const char *const reductions[] = { "interpolate", "pool", "attention_pool" };

    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        const lw_tensor *rows = vector(i, "rows"), *other = vector(i, "other");
        const int64_t n = rows->shape[0], d = rows->shape[1];
        const float *states[3];
        double *scratch;
        float *x;
        lw_err err;

        lw_arena_reset(&arena);
        scratch = lw_arena_alloc(&arena, (size_t)d * sizeof *scratch, &err);
        x = copy(rows);
        lw_rows_weigh(x, n, d, lw_f32(vector(i, "weights")), scratch);
        check_same(x, vector(i, "weighed"), 1e-6, "weighed");
        states[0] = lw_f32(rows);
        states[1] = lw_f32(vector(i, "squares"));
        states[2] = lw_f32(vector(i, "weighed"));
        x = room(rows);
        lw_rows_sum(x, states, (const double[]){ 0.75, -0.5, 2 }, 3, (size_t)(n * d));
        check_same(x, vector(i, "sum"), 1e-6, "sum");
        x = copy(rows);
        assert_ok(lw_rows_noise(x, n, d, AMOUNT, SEED, &arena, &err), &err);
        check_same(x, vector(i, "noisy"), 1e-5, "noisy");
        for (int r = 0; r < 3; r++) {
            const lw_tensor *reduced = vector(i, reductions[r]);
            const int64_t m = reduced->shape[0];

            x = room(reduced);
            memset(x, 0, lw_tensor_bytes(reduced));
            assert_int_equal(lw_reduction_from_name(reductions[r]), r + 1);
            assert_string_equal(lw_reduction_name((lw_reduction)(r + 1)), reductions[r]);
            assert_ok(
                lw_rows_resample(x, m, lw_f32(rows), n, d, (lw_reduction)(r + 1), &arena, &err),
                &err);
            check_same(x, reduced, 1e-6, reductions[r]);
            assert_true(fabs(lw_rows_loss(lw_f32(rows), n, x, m, d, scratch) -
                             (double)lw_f32(vector(i, "loss"))[r]) < 1e-5);
        }
        x = room(rows);
        assert_ok(lw_rows_resample(x, n, lw_f32(other), other->shape[0], d, LW_REDUCE_INTERPOLATE,
                                   &arena, &err),
                  &err);
        {
            float *mixed = copy(rows);

            lw_rows_blend(mixed, x, SHARE, (size_t)(n * d));
            check_same(mixed, vector(i, "blended"), 1e-6, "blended");
        }
    }
}

/* What changes nothing changes no bit. */
static void test_nothing(void **state)
{
    const lw_tensor *rows = vector(3, "rows");
    const int64_t n = rows->shape[0], d = rows->shape[1];
    const size_t bytes = lw_tensor_bytes(rows);
    float ones[64], *x = copy(rows), *y = copy(rows);
    double scratch[64];
    lw_err err;

    (void)state;
    for (int i = 0; i < 64; i++)
        ones[i] = 1;
    lw_rows_weigh(x, n, d, ones, scratch);
    assert_ok(lw_rows_noise(x, n, d, 0, SEED, &arena, &err), &err);
    lw_rows_blend(x, lw_f32(vector(3, "noisy")), 0, (size_t)(n * d));
    assert_memory_equal(x, lw_f32(rows), bytes);
    for (int how = LW_REDUCE_NONE; how <= LW_REDUCE_POOL; how++) {
        assert_ok(lw_rows_resample(y, n, x, n, d, (lw_reduction)how, &arena, &err), &err);
        assert_memory_equal(y, x, bytes);
    }
    assert_true(lw_rows_loss(x, n, y, n, d, scratch) == 0);
    /* All of the other. */
    lw_rows_blend(y, lw_f32(vector(3, "noisy")), 1, (size_t)(n * d));
    assert_memory_equal(y, lw_f32(vector(3, "noisy")), bytes);
}

static void test_edges(void **state)
{
    const float one[3] = { 1, -2, 3 }, equal[6] = { 1, 2, 3, 1, 2, 3 }, zero[6] = { 0 };
    const float weights[2] = { 0, 3 };
    double scratch[3];
    float x[12];
    lw_err err;

    (void)state;
    /* A single row is its own mean: no weight moves it, and it has no deviation to scale noise. */
    memcpy(x, one, sizeof one);
    lw_rows_weigh(x, 1, 3, weights, scratch);
    assert_ok(lw_rows_noise(x, 1, 3, 5, SEED, &arena, &err), &err);
    assert_memory_equal(x, one, sizeof one);
    for (int how = LW_REDUCE_INTERPOLATE; how <= LW_REDUCE_ATTENTION; how++) {
        assert_ok(lw_rows_resample(x, 4, one, 1, 3, (lw_reduction)how, &arena, &err), &err);
        for (int i = 0; i < 12; i++)
            assert_true(x[i] == one[i % 3]);
    }
    /* Rows that do not differ lose nothing, and get no noise. */
    assert_ok(lw_rows_resample(x, 1, equal, 2, 3, LW_REDUCE_POOL, &arena, &err), &err);
    assert_true(lw_rows_loss(equal, 2, x, 1, 3, scratch) == 0);
    memcpy(x, equal, sizeof equal);
    assert_ok(lw_rows_noise(x, 2, 3, 5, SEED, &arena, &err), &err);
    assert_memory_equal(x, equal, sizeof equal);
    /* Rows of zeros have no direction. */
    assert_ok(lw_rows_resample(x, 1, zero, 2, 3, LW_REDUCE_ATTENTION, &arena, &err), &err);
    for (int i = 0; i < 3; i++)
        assert_true(x[i] == 0);
    /* Weight 0 gives the mean row. */
    memcpy(x, (const float[]){ 1, 2, 3, 3, 2, 1 }, 6 * sizeof(float));
    lw_rows_weigh(x, 2, 3, weights, scratch);
    assert_true(x[0] == 2 && x[1] == 2 && x[2] == 2);
    assert_true(x[3] == 5 && x[4] == 2 && x[5] == -1);
    assert_int_equal(lw_reduction_from_name("cut"), -1);
    assert_int_equal(lw_reduction_from_name("truncate"), LW_REDUCE_NONE);
}

/* The seed decides the noise, and nothing else does. */
static void test_noise_by_seed(void **state)
{
    const lw_tensor *rows = vector(3, "rows");
    const int64_t n = rows->shape[0], d = rows->shape[1];
    float *a = copy(rows), *b = copy(rows), *c = copy(rows);
    lw_err err;

    (void)state;
    assert_ok(lw_rows_noise(a, n, d, 0.1, 7, &arena, &err), &err);
    assert_ok(lw_rows_noise(b, n, d, 0.1, 7, &arena, &err), &err);
    assert_ok(lw_rows_noise(c, n, d, 0.1, 8, &arena, &err), &err);
    assert_memory_equal(a, b, lw_tensor_bytes(rows));
    assert_memory_not_equal(a, c, lw_tensor_bytes(rows));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_noise_by_seed),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
