/*
 * Every operation of every back end against the reference, on random shapes.
 *
 *   test_kernels                      all back ends
 *   test_kernels --backend=onednn     one of: ref baseline avx2 avx512 onednn
 *   test_kernels --function=linear    one operation
 *   test_kernels --list               names of operations
 *   test_kernels --repeat=N           N times as many cases
 *
 * The seed is printed; LW_SEED=... runs the same cases again. A back end that this machine or this
 * build lacks is skipped with exit code 77 when it was asked for by name.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/cpu/cpu.h"
#include "common/cpu/vec.h"
#include "tests/kernels/harness.h"

#define EXIT_SKIPPED 77
#define MAX_VARIANTS 8

/* A back end on a pool of its own. `same_as` >= 0: its bits must equal those of that variant. */
typedef struct variant {
    char name[80];
    lw_pool *pool;
    lw_kernels k;
    int same_as;
} variant;

static variant reference, variants[MAX_VARIANTS];
static int n_variants;
static uint64_t seed;
static int repeat = 1;

static variant *add_variant(const char *backend, int threads, int same_as)
{
    variant *v = &variants[n_variants++];

    assert_true(n_variants <= MAX_VARIANTS);
    snprintf(v->name, sizeof(v->name), "%s, %d threads", backend, threads);
    v->same_as = same_as;
    assert_int_equal(lw_pool_create(threads, &v->pool, NULL), LW_OK);
    lw_kernels_init_ref(&v->k, v->pool);
    return v;
}

/* Fill `variants` with those of a back end; false when it cannot run here. */
static bool add_backend(const char *name)
{
    static const int threads[] = { 1, 2, 3, 5 };
    int first = n_variants, level = -1;

    for (int i = 0; i < lw_vec_levels(); i++) {
        if (strcmp(lw_vec_level(i)->isa, name) == 0)
            level = i;
    }
    if (strcmp(name, "ref") == 0) {
        add_variant(name, 1, -1);
        add_variant(name, 3, first);
        return true;
    }
    if (level >= 0) {
        for (int t = 1; t <= 3; t += 2)
            lw_cpu_add_native(&add_variant(name, t, t == 1 ? -1 : first)->k, lw_vec_level(level));
        return true;
    }
    if (strcmp(name, "onednn") != 0)
        return false;
    for (size_t i = 0; i < LW_ARRAY_LEN(threads); i++) {
        variant *v = add_variant(name, threads[i], i == 0 ? -1 : first);

        lw_cpu_add_native(&v->k, lw_vec_best());
        if (lw_cpu_add_onednn(&v->k, NULL) != LW_OK) {
            lw_kernels_deinit(&v->k);
            lw_pool_destroy(&v->pool);
            n_variants--;
            return false;
        }
    }
    return true;
}

static void remove_variants(void)
{
    for (int i = 0; i < n_variants; i++) {
        lw_kernels_deinit(&variants[i].k);
        lw_pool_destroy(&variants[i].pool);
    }
    n_variants = 0;
}

/* The view's items, packed, as f64 (uint8 by value). The caller frees. */
static double *copy_items(const lw_tensor *t, int64_t *ret_n)
{
    int64_t n = lw_tensor_count(t), rows = lw_rows(t), cols = lw_cols(t);
    double *out = calloc((size_t)n + 1, sizeof(*out));

    assert_non_null(out);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++)
            out[i * cols + j] = t->dtype == LW_U8 ? (double)((uint8_t *)t->data)[i * t->stride0 + j]
                                                  : (double)lw_row(t, i)[j];
    }
    *ret_n = n;
    return out;
}

/* Run one case; the output is a copy that the caller frees. */
static double *run_case(const kt_op *op, lw_kernels *k, uint64_t case_seed, int64_t *ret_n,
                        char *shape, size_t shape_bytes)
{
    kt_run run;
    lw_tensor y;
    double *out;

    kt_run_begin(&run, k, case_seed);
    y = op->run(&run);
    out = copy_items(&y, ret_n);
    snprintf(shape, shape_bytes, "%s", run.shape);
    if (!kt_run_end(&run))
        fail_msg("%s (%s): wrote outside its output, seed %llu", op->name, k->name,
                 (unsigned long long)seed);
    assert_int_equal(lw_kernels_check(k, NULL), LW_OK);
    return out;
}

static void compare(const kt_op *op, const variant *v, double bound, const double *got,
                    const double *want, int64_t n, const char *shape, double *worst)
{
    double rms = 0;

    for (int64_t i = 0; i < n; i++)
        rms += want[i] * want[i] / (double)n;
    rms = sqrt(rms);
    for (int64_t i = 0; i < n; i++) {
        double err = fabs(got[i] - want[i]), scale = fabs(want[i]) + rms;

        if (err == 0)
            continue;
        if (!(err <= bound * scale))
            fail_msg("%s, %s, %s: item %lld is %.9g, expected %.9g: off by %.3g of its scale, "
                     "bound %.3g (%s); LW_SEED=%llu replays",
                     op->name, v->name, shape, (long long)i, got[i], want[i], err / scale, bound,
                     op->reason, (unsigned long long)seed);
        *worst = fmax(*worst, err / scale);
    }
}

/* Neighbouring seeds must not share cases. */
static uint64_t seed_of_case(const kt_op *op, int i)
{
    kt_rng r = { seed };

    r.s = kt_u64(&r) ^ (uint64_t)(op - kt_ops);
    r.s = kt_u64(&r) ^ (uint64_t)i;
    return kt_u64(&r);
}

/* True when a back end has the reference's own function there: nothing to compare. */
static bool inherited(const kt_op *op, const lw_kernels *k)
{
    return strcmp(k->name, "ref") != 0 &&
           memcmp((const char *)k + op->slot, (const char *)&reference.k + op->slot,
                  sizeof(void (*)(void))) == 0;
}

static void test_op(void **state)
{
    const kt_op *op = *state;
    double worst = 0;
    char shape[160];

    if (inherited(op, &variants[0].k)) {
        print_message("    %-14s is the reference's\n", op->name);
        return;
    }
    for (int i = 0; i < op->n_cases * repeat; i++) {
        uint64_t case_seed = seed_of_case(op, i);
        double *got[MAX_VARIANTS] = { 0 }, *want;
        int64_t n, n_got;

        want = run_case(op, &reference.k, case_seed, &n, shape, sizeof(shape));
        for (int j = 0; j < n_variants; j++) {
            variant *v = &variants[j];

            got[j] = run_case(op, &v->k, case_seed, &n_got, shape, sizeof(shape));
            assert_int_equal(n_got, n);
            compare(op, v, op->bound, got[j], want, n, shape, &worst);
            if (v->same_as >= 0)
                compare(op, v, 0, got[j], got[v->same_as], n, shape, &worst);
        }
        for (int j = 0; j < n_variants; j++)
            free(got[j]);
        free(want);
    }
    print_message("    %-14s worst %.2e, bound %.2e (%s)\n", op->name, worst, op->bound,
                  op->reason);
}

/* The second run of the same cases asks the system for no memory. */
static void test_no_steady_state_allocation(void **state)
{
    (void)state;
    for (int j = 0; j < n_variants; j++) {
        const lw_cpu *cpu = variants[j].k.impl;
        size_t n_allocs = 0, bytes = 0;
        char shape[160];

        for (int pass = 0; pass < 2; pass++) {
            n_allocs = cpu->n_allocs;
            bytes = lw_kernels_scratch_bytes(&variants[j].k);
            for (int i = 0; i < kt_n_ops; i++) {
                int64_t n;

                free(run_case(&kt_ops[i], &variants[j].k, seed_of_case(&kt_ops[i], 0), &n, shape,
                              sizeof(shape)));
            }
        }
        assert_int_equal(cpu->n_allocs, n_allocs);
        assert_int_equal(lw_kernels_scratch_bytes(&variants[j].k), bytes);
        assert_true(bytes > 0);
    }
}

/* A request that no machine can hold is reported once, and the table is usable after it. */
static void test_out_of_scratch(void **state)
{
    (void)state;
    for (int j = 0; j < n_variants; j++) {
        lw_kernels *k = &variants[j].k;
        lw_err err = { 0 };

        assert_false(lw_cpu_reserve(k, SIZE_MAX));
        assert_int_equal(lw_kernels_check(k, &err), LW_E_NOMEM);
        assert_non_null(strstr(err.text, k->name));
        assert_int_equal(lw_kernels_check(k, NULL), LW_OK);
        assert_null(lw_cpu_shared(k, SIZE_MAX));
        assert_int_equal(lw_kernels_check(k, NULL), LW_E_NOMEM);
        assert_true(lw_cpu_reserve(k, 1000));
    }
}

static int run_backend_tests(const char *function)
{
    struct CMUnitTest tests[64];
    size_t n = 0;

    for (int i = 0; i < kt_n_ops; i++) {
        if (!function || strcmp(function, kt_ops[i].name) == 0)
            tests[n++] = (struct CMUnitTest){ .name = kt_ops[i].name,
                                              .test_func = test_op,
                                              .initial_state = (void *)(uintptr_t)&kt_ops[i] };
    }
    if (!function) {
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_no_steady_state_allocation);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_out_of_scratch);
    }
    if (n == 0) {
        fprintf(stderr, "--function=%s: no such operation; --list names them\n", function);
        return 2;
    }
    return _cmocka_run_group_tests("kernels", tests, n, NULL, NULL) ? 1 : 0;
}

static const char *option(const char *arg, const char *name)
{
    size_t n = strlen(name);

    return strncmp(arg, name, n) == 0 ? arg + n : NULL;
}

int main(int argc, char **argv)
{
    static const char *const all[] = { "ref", "baseline", "avx2", "avx512", "onednn" };
    const char *backend = NULL, *function = NULL, *env = getenv("LW_SEED"), *value;
    int rc;

    for (int i = 1; i < argc; i++) {
        if ((value = option(argv[i], "--backend="))) {
            backend = value;
        } else if ((value = option(argv[i], "--function="))) {
            function = value;
        } else if ((value = option(argv[i], "--repeat="))) {
            repeat = atoi(value);
        } else if (strcmp(argv[i], "--list") == 0) {
            for (int j = 0; j < kt_n_ops; j++)
                puts(kt_ops[j].name);
            return 0;
        } else {
            fprintf(stderr, "%s: unknown option; see the head of test_kernels.c\n", argv[i]);
            return 2;
        }
    }
    seed = env ? strtoull(env, NULL, 10) : (uint64_t)lw_now_ns() % 1000000000u;
    printf("LW_SEED=%llu\n", (unsigned long long)seed);
    lw_kernels_init_ref(&reference.k, NULL);
    for (size_t i = 0; i < LW_ARRAY_LEN(all); i++) {
        if (backend && strcmp(backend, all[i]) != 0)
            continue;
        if (!add_backend(all[i])) {
            printf("%s: not on this machine or not in this build\n", all[i]);
            if (backend)
                return EXIT_SKIPPED;
            continue;
        }
        printf("== %s: %s\n", all[i], variants[0].k.name);
        rc = run_backend_tests(function);
        remove_variants();
        if (rc)
            return rc;
    }
    lw_kernels_deinit(&reference.k);
    return 0;
}
