/* Noise against PyTorch's. */

#include "tests/unit/unit.h"

#include <math.h>

#include "common/rng.h"
#include "common/safetensors.h"

/* PyTorch's vector code and ours both round every f32 step; measured 4.8e-7, one f32 step at 4. */
#define TOLERANCE 1e-6

/* Every tensor "SEED_COUNT" or "SEED_COUNT_head|tail" of the vector file. */
static void equals_pytorch(void **state)
{
    lw_st_file *f = NULL;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_st_open(unit_data("common/rng.safetensors"), &f, &err), &err);
    assert_true(f->n_entries > 40);
    for (size_t e = 0; e < f->n_entries; e++) {
        const lw_tensor *want = &f->entries[e].t;
        unsigned long long seed;
        size_t count, stored = (size_t)lw_tensor_count(want), skip = 0;
        char part[8] = "";
        float *got;
        lw_rng r;

        assert_true(sscanf(f->entries[e].name, "%llu_%zu_%7s", &seed, &count, part) >= 2);
        if (strcmp(part, "tail") == 0)
            skip = count - stored;
        got = calloc(count, sizeof(*got));
        lw_rng_seed(&r, seed);
        lw_rng_normal(&r, got, count);
        for (size_t i = 0; i < stored; i++) {
            float w;

            memcpy(&w, (char *)want->data + 4 * i, 4);
            if (!(fabs((double)got[skip + i] - (double)w) <= TOLERANCE))
                fail_msg("%s: value %zu is %.9g, PyTorch says %.9g", f->entries[e].name, i,
                         (double)got[skip + i], (double)w);
        }
        free(got);
    }
    lw_st_close(&f);
}

/* Sums over the whole of a full-size noise: an error anywhere in the stream shows. */
static void full_size_noise(void **state)
{
    enum { N = 16 * 128 * 128 };
    float *v = calloc(N, sizeof(*v));
    double sum = 0, squares = 0;
    lw_rng r;

    (void)state;
    lw_rng_seed(&r, 42);
    lw_rng_normal(&r, v, N);
    for (int i = 0; i < N; i++) {
        sum += (double)v[i];
        squares += (double)v[i] * (double)v[i];
    }
    assert_true(fabs(sum - -62.9132823) < 1e-3);
    assert_true(fabs(squares - 263317.7336) < 1e-2);
    free(v);
}

static void the_generator_is_mt19937(void **state)
{
    lw_rng r;

    (void)state;
    /* The reference's default seed: the first output, and C++11's check of the 10000th. */
    lw_rng_seed(&r, 5489);
    assert_int_equal(lw_rng_u32(&r), 3499211612u);
    for (int i = 1; i < 9999; i++)
        lw_rng_u32(&r);
    assert_int_equal(lw_rng_u32(&r), 4123659995u);
}

static void one_picture_after_another_continues_the_stream(void **state)
{
    float once[64], twice[64];
    lw_rng r;

    (void)state;
    lw_rng_seed(&r, 7);
    lw_rng_normal(&r, once, 64);
    lw_rng_seed(&r, 7 + (5ULL << 32)); /* only the low 32 bits count */
    lw_rng_normal(&r, twice, 32);
    lw_rng_normal(&r, twice + 32, 32);
    assert_memory_equal(once, twice, sizeof(once));
}

static void small_counts_are_a_prefix_of_a_group(void **state)
{
    float group[16], few[5] = { 0 };
    lw_rng r;

    (void)state;
    lw_rng_seed(&r, 3);
    lw_rng_normal(&r, group, 16);
    lw_rng_seed(&r, 3);
    lw_rng_normal(&r, few, 4);
    assert_memory_equal(group, few, 4 * sizeof(float));
    assert_true(few[4] == 0);
    lw_rng_normal(&r, few, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_generator_is_mt19937),
        cmocka_unit_test(equals_pytorch),
        cmocka_unit_test(full_size_noise),
        cmocka_unit_test(one_picture_after_another_continues_the_stream),
        cmocka_unit_test(small_counts_are_a_prefix_of_a_group),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
