/*
 * The 8-bit integer linear layer (common/cpu/int8.h): every level against the plain one bit for
 * bit, and that one against numbers worked out here from the documented layout, and against f64.
 * LW_SEED replays a run.
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
#include "common/cpu/int8.h"
#include "common/size.h"
#include "tests/kernels/harness.h"

#define D(...)   ((const int64_t[]){ __VA_ARGS__ })
#define GUARD    256
#define SENTINEL 0xa5
#define N_CASES  60

static uint64_t seed;

/* 64-byte aligned memory between sentinels. */
typedef struct block {
    unsigned char *base;
    void *p;
    size_t bytes;
} block;

static block block_new(size_t bytes)
{
    block b = { .bytes = bytes };

    b.base = aligned_alloc(64, lw_size_align(bytes + 2 * GUARD, 64));
    assert_non_null(b.base);
    memset(b.base, SENTINEL, bytes + 2 * GUARD);
    b.p = b.base + GUARD;
    return b;
}

static void block_free(block *b)
{
    for (size_t i = 0; i < GUARD; i++) {
        if (b->base[i] != SENTINEL || b->base[GUARD + b->bytes + i] != SENTINEL)
            fail_msg("written outside %zu bytes, %zu off", b->bytes, i);
    }
    free(b->base);
}

/* One layer with its inputs. */
typedef struct layer {
    kt_run run;
    int64_t n, in, out;
    lw_int8_form form;
    lw_tensor x, w, b;
    block packed;
} layer;

static const lw_dtype types[] = { LW_F32, LW_BF16, LW_F16 };

static void layer_shape(layer *l, uint64_t s, int64_t n, int64_t in, int64_t out)
{
    kt_run_begin(&l->run, NULL, s);
    l->n = n ? n : kt_int(&l->run.rng, 1, 40);
    l->in = in ? in : kt_int(&l->run.rng, 1, 700);
    l->out = out ? out : kt_int(&l->run.rng, 1, 100);
    /* half of the random widths are such that there is something to rotate */
    if (!in && kt_int(&l->run.rng, 0, 1))
        l->in = (l->in / 64 + 1) * 64;
    l->form.block = kt_int(&l->run.rng, 0, 2) ? lw_int8_block(l->in) : 0;
    l->form.bits = kt_int(&l->run.rng, 0, 1) ? LW_INT8_8BIT : LW_INT8_7BIT;
    l->form.balanced = kt_int(&l->run.rng, 0, 2) > 0;
    l->x = kt_input(&l->run, LW_F32, 2, D(l->n, l->in), 0, 1, true);
    l->w = kt_input(&l->run, types[kt_int(&l->run.rng, 0, 2)], 2, D(l->out, l->in), 0, 0.05f, true);
    l->b = kt_vector(&l->run, l->out, 0, 1);
    l->packed = block_new(lw_int8_packed_bytes(l->out, l->in));
    snprintf(l->run.shape, sizeof(l->run.shape), "n %d in %d out %d block %d bits %d%s", (int)l->n,
             (int)l->in, (int)l->out, l->form.block, (int)l->form.bits,
             l->form.balanced ? " balanced" : "");
}

static void layer_pack(layer *l)
{
    assert_int_equal(lw_int8_pack(l->packed.p, &l->w, l->form, NULL, NULL), LW_OK);
    assert_int_equal(lw_int8_check(l->packed.p, l->packed.bytes, l->out, l->in, NULL), LW_OK);
}

static void layer_end(layer *l)
{
    block_free(&l->packed);
    assert_true(kt_run_end(&l->run));
}

static float weight(const layer *l, int64_t o, int64_t i)
{
    float v;

    assert_true(lw_dtype_convert(
        &v, LW_F32, (const char *)lw_row_any(&l->w, o) + (size_t)i * lw_dtype_size(l->w.dtype),
        l->w.dtype, 1));
    return v;
}

/* Item j of H x over sqrt(block) in f64: the sign of H[j][i] is the parity of the bits of i & j. */
static double rotated(const double *x, int64_t i, int block_size)
{
    int64_t from = block_size ? i / block_size * block_size : i;
    double sum = 0;

    if (!block_size)
        return x[i];
    for (int64_t j = 0; j < block_size; j++)
        sum +=
            __builtin_parityll((unsigned long long)(j & (i - from))) ? -x[from + j] : x[from + j];
    return sum / sqrt((double)block_size);
}

static void test_block(void **state)
{
    static const int64_t cases[][2] = { { 3840, 256 }, { 10240, 256 }, { 2560, 256 }, { 1, 0 },
                                        { 7, 0 },      { 6, 2 },       { 4, 4 },      { 128, 128 },
                                        { 384, 128 },  { 512, 256 },   { 96, 32 } };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++)
        assert_int_equal(lw_int8_block(cases[i][0]), cases[i][1]);
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(lw_int8_packed_bytes(1, 1), 64 + 256 + 256 + 32 * 64);
    assert_int_equal(lw_int8_packed_bytes(33, 65), 64 + 512 + 2 * (256 + 32 * 128));
    assert_int_equal(lw_int8_packed_bytes(10240, 3840), 64 + 4 * 3840 + 320 * (256 + 32 * 3840));
    assert_int_equal(lw_int8_packed_bytes(0, 1), 0);
    assert_int_equal(lw_int8_packed_bytes(1, 0), 0);
    assert_int_equal(lw_int8_packed_bytes(-1, 4), 0);
    assert_int_equal(lw_int8_packed_bytes(1, LW_INT8_MAX_IN + 1), 0);
    assert_int_equal(lw_int8_packed_bytes(INT64_MAX, 4), 0);
    assert_int_equal(lw_int8_packed_bytes(INT64_MAX / 4, 65536), 0);
}

/* Against the matrix by definition, for every level and block; norms kept; twice is nothing. */
static void test_rotate(void **state)
{
    _Alignas(64) float x[768], y[768];
    double in[768];
    kt_rng rng = { seed };

    (void)state;
    for (int l = 0; l < lw_int8_levels(); l++) {
        const lw_int8_isa *isa = lw_int8_level(l);

        for (int size = 1; size <= LW_INT8_BLOCK; size *= 2) {
            double before = 0, after = 0;
            float top = 0, max;
            uint32_t bits;

            for (int i = 0; i < 768; i++) {
                in[i] = (double)(y[i] = x[i] = kt_normal(&rng));
                before += in[i] * in[i];
            }
            bits = isa->rotate(y, 768, size == 1 ? 0 : size);
            for (int i = 0; i < 768; i++) {
                /* eight roundings of a sum of at most 16 sqrt(256) / 16 */
                if (fabs((double)y[i] - rotated(in, i, size)) > 4e-6)
                    fail_msg("%s: block %d item %d: %g, expected %g", isa->name, size, i,
                             (double)y[i], rotated(in, i, size));
                after += (double)y[i] * (double)y[i];
                top = fabsf(y[i]) > top ? fabsf(y[i]) : top;
            }
            assert_true(fabs(after - before) < 1e-5 * before);
            memcpy(&max, &bits, sizeof(max));
            assert_true(max == top);
            isa->rotate(y, 768, size);
            for (int i = 0; i < 768; i++)
                assert_true(fabsf(y[i] - x[i]) < 4e-6f);
        }
        /* a value that is not finite is seen, wherever it is and whatever else there is */
        memset(x, 0, sizeof(x));
        x[700] = NAN;
        assert_true(isa->rotate(x, 768, 4) > 0x7f800000u);
        memset(x, 0, sizeof(x));
        x[1] = -INFINITY;
        assert_true(isa->rotate(x, 768, 0) == 0x7f800000u);
    }
}

/* r[i] as it is stored. */
static float balance(const layer *l, int64_t i)
{
    float r;

    memcpy(&r, (const char *)l->packed.p + 64 + 4 * i, sizeof(r));
    return r;
}

/* What is packed is what the header's picture says, within half a step of the rotated weights. */
static void test_pack(void **state)
{
    (void)state;
    for (int c = 0; c < N_CASES; c++) {
        layer l;
        int64_t k;

        layer_shape(&l, seed + (uint64_t)c, 0, 0, 0);
        layer_pack(&l);
        k = (l.in + 63) / 64 * 64;
        for (int64_t o = 0; o < (l.out + 31) / 32 * 32; o++) {
            const char *panel = (const char *)l.packed.p + 64 + 4 * k + o / 32 * (256 + 32 * k);
            const int8_t *q = (const int8_t *)panel + 256;
            double row[704], top = 0;
            float scale;
            int32_t offset, sum = 0;

            memcpy(&scale, panel + o % 32 * 4, 4);
            memcpy(&offset, panel + 128 + o % 32 * 4, 4);
            for (int64_t i = 0; i < l.in; i++)
                row[i] = o < l.out ? (double)(weight(&l, o, i) / balance(&l, i)) : 0;
            for (int64_t i = 0; i < k; i++) {
                int v = q[(i / 4 * 32 + o % 32) * 4 + i % 4];
                double want = i < l.in ? rotated(row, i, l.form.block) : 0;

                assert_true(abs(v) <= (int)l.form.bits);
                if (fabs((double)scale * v - want) > (double)scale * 0.501)
                    fail_msg("%s: weight [%d, %d] is %g, expected %g", l.run.shape, (int)o, (int)i,
                             (double)scale * v, want);
                if (o < l.out && i < l.in)
                    assert_true(lw_int8_weight(l.packed.p, o, i) == scale * (float)v);
                sum += v;
                top = fmax(top, fabs(want));
            }
            assert_int_equal(offset, -128 * sum);
            assert_true(fabs((double)scale - top / (int)l.form.bits) <= 1e-5 * (double)scale);
        }
        layer_end(&l);
    }
}

/* Rows of zeros, and of values whose inverse overflows, are zero. */
static void test_pack_zeros(void **state)
{
    static const float values[] = { 0, 1e-40f };
    layer l;

    (void)state;
    layer_shape(&l, seed, 1, 96, 40);
    l.w = kt_input(&l.run, LW_F32, 2, D(40, 96), 0, 1, false);
    for (int64_t o = 0; o < 40; o += 2) {
        for (int64_t i = 0; i < 96; i++)
            lw_row(&l.w, o)[i] = values[o / 2 % 2];
    }
    layer_pack(&l);
    for (int64_t o = 0; o < 40; o++) {
        const char *panel = (const char *)l.packed.p + 64 + 512 + o / 32 * (256 + 32 * 128);
        float scale;

        memcpy(&scale, panel + o % 32 * 4, 4);
        assert_true((scale == 0) == (o % 2 == 0));
        for (int64_t i = 0; o % 2 == 0 && i < 128; i++)
            assert_int_equal(panel[256 + (i / 4 * 32 + o % 32) * 4 + i % 4], 0);
    }
    layer_end(&l);
}

static void test_pack_refusals(void **state)
{
    const lw_int8_form form = lw_int8_usual(96),
                       wrong = { .block = 64, .bits = LW_INT8_8BIT, .balanced = true };
    layer l;
    lw_tensor bad;
    lw_err err = { 0 };

    (void)state;
    layer_shape(&l, seed, 1, 96, 40);
    assert_int_equal(lw_int8_pack(l.packed.p, &l.w, wrong, NULL, &err), LW_E_INVALID);
    bad = lw_tensor_nd(l.w.data, LW_F32, 1, D(96));
    assert_int_equal(lw_int8_pack(l.packed.p, &bad, form, NULL, &err), LW_E_SHAPE);
    bad = lw_tensor_nd(l.w.data, LW_I8, 2, D(40, 96));
    assert_int_equal(lw_int8_pack(l.packed.p, &bad, form, NULL, &err), LW_E_SHAPE);
    bad = lw_tensor_nd(l.w.data, LW_F32, 2, D(1, LW_INT8_MAX_IN + 1));
    assert_int_equal(lw_int8_pack(l.packed.p, &bad, form, NULL, &err), LW_E_SHAPE);
    bad = kt_input(&l.run, LW_F32, 2, D(40, 96), 0, 1, false);
    lw_f32(&bad)[33 * 96 + 95] = NAN;
    assert_int_equal(lw_int8_pack(l.packed.p, &bad, form, NULL, &err), LW_E_FORMAT);
    assert_non_null(strstr(err.text, "row 33"));
    lw_f32(&bad)[33 * 96 + 95] = INFINITY;
    assert_int_equal(lw_int8_pack(l.packed.p, &bad, form, NULL, &err), LW_E_FORMAT);
    layer_end(&l);
}

/* Through a file and back; every flipped bit of the header, every other size is refused. */
static void test_check(void **state)
{
    static const int64_t shapes[][2] = { { 39, 128 }, { 41, 128 }, { 40, 127 }, { 128, 40 },
                                         { 0, 128 },  { 40, -1 },  { 72, 128 } };
    layer l;
    block copy;
    unsigned char *p;
    FILE *f = tmpfile();
    lw_err err = { 0 };

    (void)state;
    assert_non_null(f);
    layer_shape(&l, seed, 1, 128, 40);
    layer_pack(&l);
    copy = block_new(l.packed.bytes + 1);
    p = copy.p;
    assert_int_equal(fwrite(l.packed.p, 1, l.packed.bytes, f), l.packed.bytes);
    rewind(f);
    assert_int_equal(fread(p, 1, l.packed.bytes, f), l.packed.bytes);
    fclose(f);
    assert_int_equal(lw_int8_check(p, l.packed.bytes, 40, 128, &err), LW_OK);
    assert_int_equal(lw_int8_check(p, l.packed.bytes + 1, 40, 128, &err), LW_OK);
    for (int bit = 0; bit < 512; bit++) {
        lw_status s;

        p[bit / 8] ^= (unsigned char)(1 << bit % 8);
        s = lw_int8_check(p, l.packed.bytes, 40, 128, &err);
        if (s != (bit / 32 == 2 ? LW_E_PRECONDITION : LW_E_FORMAT))
            fail_msg("bit %d flipped: %s", bit, lw_status_name(s));
        p[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    for (size_t i = 0; i < LW_ARRAY_LEN(shapes); i++)
        assert_int_equal(lw_int8_check(p, l.packed.bytes, shapes[i][0], shapes[i][1], &err),
                         LW_E_SHAPE);
    for (size_t n = 0; n < l.packed.bytes; n += 1 + n / 3)
        assert_int_equal(lw_int8_check(p, n, 40, 128, &err), LW_E_FORMAT);
    assert_int_equal(lw_int8_check(p, l.packed.bytes - 1, 40, 128, &err), LW_E_FORMAT);
    memmove(p + 1, p, l.packed.bytes);
    assert_int_equal(lw_int8_check(p + 1, l.packed.bytes, 40, 128, &err), LW_E_INVALID);
    block_free(&copy);
    layer_end(&l);
}

/* The whole layer on a level; y and the quantised rows are the caller's to free. */
static void run_layer(const layer *l, const lw_int8_isa *isa, lw_pool *pool, lw_tensor *y,
                      lw_int8_rows *rows, block *mem, bool bias)
{
    *mem = block_new(lw_int8_rows_bytes(l->n, l->in, lw_pool_threads(pool)));
    memset(mem->p, 0xff, mem->bytes); /* NaN in every row of scratch */
    lw_int8_quantise(isa, pool, rows, mem->p, &l->x, l->packed.p);
    lw_int8_product(isa, pool, y, rows, l->packed.p, bias ? lw_f32(&l->b) : NULL);
}

/* u of row i, item j, from the documented layout. */
static int u_at(const lw_int8_rows *rows, int64_t i, int64_t j)
{
    int64_t k = (rows->in + 63) / 64 * 64, first = i / LW_INT8_TILE * LW_INT8_TILE;
    int64_t height = rows->n - first < LW_INT8_TILE ? rows->n - first : LW_INT8_TILE;

    return rows->u[first * k + j / 4 * 4 * height + (i - first) * 4 + j % 4];
}

/* y item by item from u, q and scales with 64-bit sums: the same bits. */
static void check_product(const layer *l, const lw_int8_rows *rows, const lw_tensor *y, bool bias)
{
    int64_t k = (l->in + 63) / 64 * 64;

    for (int64_t o = 0; o < l->out; o++) {
        const char *panel = (const char *)l->packed.p + 64 + 4 * k + o / 32 * (256 + 32 * k);
        const int8_t *q = (const int8_t *)panel + 256;
        float scale;

        memcpy(&scale, panel + o % 32 * 4, 4);
        for (int64_t i = 0; i < l->n; i++) {
            int64_t sum = 0;
            float want, got = lw_row(y, i)[o];

            for (int64_t j = 0; j < k; j++)
                sum += (u_at(rows, i, j) - 128) * q[(j / 4 * 32 + o % 32) * 4 + j % 4];
            want = (float)sum * scale * rows->scale[i];
            if (bias)
                want = want + lw_f32(&l->b)[o];
            if (memcmp(&want, &got, sizeof(want)) != 0 || !isfinite(want))
                fail_msg("%s: y[%d, %d] is %.9g, expected %.9g", l->run.shape, (int)i, (int)o,
                         (double)got, (double)want);
        }
    }
}

static void check_levels(layer *l, bool bias)
{
    lw_tensor y0 = kt_output(&l->run, LW_F32, 2, D(l->n, l->out), true);
    lw_int8_rows rows0;
    block mem0;
    size_t u_bytes = (size_t)(l->n * ((l->in + 63) / 64 * 64));

    run_layer(l, &lw_int8_baseline, NULL, &y0, &rows0, &mem0, bias);
    check_product(l, &rows0, &y0, bias);
    for (int v = 1; v < lw_int8_levels(); v++) {
        const lw_int8_isa *isa = lw_int8_level(v);
        lw_tensor y = kt_output(&l->run, LW_F32, 2, D(l->n, l->out), true);
        lw_int8_rows rows;
        block mem;

        run_layer(l, isa, NULL, &y, &rows, &mem, bias);
        if (memcmp(rows.u, rows0.u, u_bytes) != 0 ||
            memcmp(rows.scale, rows0.scale, (size_t)l->n * sizeof(float)) != 0)
            fail_msg("%s: %s: quantised rows differ from baseline", isa->name, l->run.shape);
        for (int64_t i = 0; i < l->n; i++) {
            if (memcmp(lw_row(&y, i), lw_row(&y0, i), (size_t)l->out * sizeof(float)) != 0)
                fail_msg("%s: %s: row %d differs from baseline", isa->name, l->run.shape, (int)i);
        }
        block_free(&mem);
    }
    block_free(&mem0);
}

static void test_levels(void **state)
{
    (void)state;
    for (int c = 0; c < N_CASES; c++) {
        layer l;

        layer_shape(&l, seed + 1000 + (uint64_t)c, 0, 0, 0);
        layer_pack(&l);
        check_levels(&l, c % 2);
        layer_end(&l);
    }
}

/* Every height of a tile, and shapes of more than one block of rows. */
static void test_heights(void **state)
{
    static const int64_t many[][3] = { { 770, 64, 33 }, { 1, 4096, 1 }, { 1600, 5, 3 } };
    layer l;

    (void)state;
    for (int64_t n = 1; n <= 2 * LW_INT8_TILE + 1; n++) {
        layer_shape(&l, seed + 2000 + (uint64_t)n, n, 72, 37);
        layer_pack(&l);
        check_levels(&l, true);
        layer_end(&l);
    }
    for (size_t i = 0; i < LW_ARRAY_LEN(many); i++) {
        layer_shape(&l, seed + 3000 + i, many[i][0], many[i][1], many[i][2]);
        layer_pack(&l);
        check_levels(&l, false);
        layer_end(&l);
    }
}

/* The largest sums there can be: u and q at the ends of their ranges, where 16 bits saturate and
 * 32 bits nearly overflow. */
static void test_extremes(void **state)
{
    (void)state;
    for (int c = 0; c < 8; c++) {
        layer l;

        layer_shape(&l, seed + 4000 + (uint64_t)c, 13, c < 4 ? 640 : LW_INT8_MAX_IN, 33);
        l.form.block = 0;
        l.form.bits = c % 2 ? LW_INT8_8BIT : LW_INT8_7BIT;
        for (int64_t i = 0; i < l.n; i++) {
            for (int64_t j = 0; j < l.in; j++)
                lw_row(&l.x, i)[j] = i % 3 == 0 ? 3.0f : i % 3 == 1 ? -3.0f : j % 2 ? 3.0f : -3.0f;
        }
        for (int64_t o = 0; o < l.out; o++) {
            for (int64_t j = 0; j < l.in; j++) {
                float v = o % 3 == 0 ? 1.0f : o % 3 == 1 ? -1.0f : j % 4 < 2 ? 1.0f : -1.0f;
                char *at = (char *)lw_row_any(&l.w, o) + (size_t)j * lw_dtype_size(l.w.dtype);

                assert_true(lw_dtype_convert(at, l.w.dtype, &v, LW_F32, 1));
            }
        }
        layer_pack(&l);
        check_levels(&l, false);
        layer_end(&l);
    }
}

/* Values of a case of test_dot: anything; all at an end; one of both ends, each byte by itself. The
 * last two are what sums of pairs in 16 bits would lose. */
static int dot_value(kt_rng *rng, int c, int lo, int hi)
{
    switch (c) {
    case 0:
        return (int)kt_int(rng, lo, hi);
    case 1:
        return lo;
    case 2:
        return hi;
    default:
        return kt_int(rng, 0, 1) ? lo : hi;
    }
}

/* The sums by themselves, before they are scaled, written to guarded memory. */
static void test_dot(void **state)
{
    enum { GROUPS = 48 };
    block u = block_new(GROUPS * LW_INT8_TILE * 4), q = block_new(GROUPS * LW_INT8_PANEL * 4);
    kt_rng rng = { seed };

    (void)state;
    /* kinds of u, kinds of q, both widths, every height of a tile */
    for (int c = 0; c < 4 * 4 * 2 * LW_INT8_TILE; c++) {
        int rows = 1 + c / 32, q_max = c % 2 ? LW_INT8_8BIT : LW_INT8_7BIT;
        lw_int8_tile t = { .u = u.p,
                           .q = q.p,
                           .groups = 16 * kt_int(&rng, 1, 3),
                           .rows = rows,
                           .wide = c % 2,
                           .next = q.p,
                           .step = kt_int(&rng, 1, 128) };

        for (size_t i = 0; i < u.bytes; i++)
            ((uint8_t *)u.p)[i] = (uint8_t)dot_value(&rng, c / 2 % 4, 1, 255);
        for (size_t i = 0; i < q.bytes; i++)
            ((int8_t *)q.p)[i] = (int8_t)dot_value(&rng, c / 8 % 4, -q_max, q_max);
        for (int l = 0; l < lw_int8_levels(); l++) {
            block sums = block_new((size_t)rows * LW_INT8_PANEL * sizeof(int32_t));

            lw_int8_level(l)->dot(sums.p, &t);
            for (int r = 0; r < rows; r++) {
                for (int o = 0; o < LW_INT8_PANEL; o++) {
                    int32_t want = 0;

                    for (int64_t i = 0; i < 4 * t.groups; i++)
                        want += t.u[(i / 4 * rows + r) * 4 + i % 4] *
                                t.q[(i / 4 * LW_INT8_PANEL + o) * 4 + i % 4];
                    if (((int32_t *)sums.p)[r * LW_INT8_PANEL + o] != want)
                        fail_msg("%s: sum [%d, %d] of %d rows is %d, expected %d",
                                 lw_int8_level(l)->name, r, o, rows,
                                 ((int32_t *)sums.p)[r * LW_INT8_PANEL + o], want);
                }
            }
            block_free(&sums);
        }
    }
    block_free(&u);
    block_free(&q);
}

typedef struct accuracy {
    double rms;      /* of y - exact */
    double expected; /* by theory, from the steps that were used */
    double size;     /* rms of the exact y */
} accuracy;

/*
 * Against x W^T + b in f64. A rounding error is uniform over a step, of variance step^2 / 12, and
 * independent of the others, so y[i, o] is off by a variance of (sx^2 |w_o|^2 + sw^2 |x_i|^2) / 12
 * (w and x balanced); and by no more than the sum of half steps times the other side.
 */
static accuracy measure(layer *l)
{
    lw_tensor y = kt_output(&l->run, LW_F32, 2, D(l->n, l->out), true);
    int64_t k = (l->in + 63) / 64 * 64;
    lw_int8_rows rows;
    block mem;
    accuracy a = { 0 };

    layer_pack(l);
    run_layer(l, lw_int8_best(), NULL, &y, &rows, &mem, true);
    for (int64_t o = 0; o < l->out; o++) {
        const char *panel = (const char *)l->packed.p + 64 + 4 * k + o / 32 * (256 + 32 * k);
        float sw;

        memcpy(&sw, panel + o % 32 * 4, 4);
        for (int64_t i = 0; i < l->n; i++) {
            double exact = (double)lw_f32(&l->b)[o], ww = 0, xx = 0, w1 = 0, x1 = 0;
            double sx = (double)rows.scale[i], off;

            for (int64_t j = 0; j < l->in; j++) {
                double wv = (double)weight(l, o, j), xv = (double)lw_row(&l->x, i)[j];

                exact += wv * xv;
                wv /= (double)balance(l, j);
                xv *= (double)balance(l, j);
                ww += wv * wv;
                xx += xv * xv;
                w1 += fabs((double)lw_int8_weight(l->packed.p, o, j));
                x1 += fabs(sx * (u_at(&rows, i, j) - 128)) + sx / 2;
            }
            off = (double)lw_row(&y, i)[o] - exact;
            a.rms += off * off;
            a.expected += (sx * sx * ww + (double)sw * (double)sw * xx) / 12;
            a.size += exact * exact;
            if (fabs(off) > 1.001 * (w1 * sx / 2 + x1 * (double)sw / 2) + 1e-5)
                fail_msg("%s: y[%d, %d] is %g off", l->run.shape, (int)i, (int)o, off);
        }
    }
    block_free(&mem);
    a.rms = sqrt(a.rms / (double)(l->n * l->out));
    a.expected = sqrt(a.expected / (double)(l->n * l->out));
    a.size = sqrt(a.size / (double)(l->n * l->out));
    return a;
}

static void test_accuracy(void **state)
{
    (void)state;
    for (int c = 0; c < 4; c++) {
        layer l;
        accuracy a;

        layer_shape(&l, seed + 5000 + (uint64_t)c, 24, 768, 70);
        l.form.block = c / 2 ? 256 : 0;
        l.form.bits = c % 2 ? LW_INT8_7BIT : LW_INT8_8BIT;
        a = measure(&l);
        print_message("    block %3d, |q| <= %3d: %.2f %% off, %.2f %% expected\n", l.form.block,
                      (int)l.form.bits, 100 * a.rms / a.size, 100 * a.expected / a.size);
        /* 1680 outputs estimate it to 2 % */
        assert_true(a.rms < 1.1 * a.expected && a.rms > 0.9 * a.expected);
        assert_true(a.rms < 0.02 * a.size);
        layer_end(&l);
    }
}

/* Channels that are hundreds of times the rest, as the residual streams of such models have. */
static void test_outliers(void **state)
{
    (void)state;
    for (int c = 0; c < 3; c++) {
        accuracy a[2];

        for (int on = 0; on < 2; on++) {
            layer l;

            layer_shape(&l, seed + 6000 + (uint64_t)c, 16, 1280, 64);
            l.form = (lw_int8_form){ .bits = LW_INT8_8BIT };
            l.form.block = on ? lw_int8_block(l.in) : 0;
            for (int64_t i = 0; i < l.n; i++) {
                for (int j = 0; j <= c; j++)
                    lw_row(&l.x, i)[(97 + 311 * j) % l.in] *= 200.0f + 100.0f * (float)j;
            }
            a[on] = measure(&l);
            layer_end(&l);
        }
        print_message("    %d channels: error %.4f without, %.4f with rotation\n", c + 1, a[0].rms,
                      a[1].rms);
        assert_true(a[1].rms * 3 <= a[0].rms);
    }
}

/* The same where the weights of these channels are as much smaller: what the rotation leaves, the
 * rounding of weights that meet large values, is what balance takes. */
static void test_balanced_outliers(void **state)
{
    (void)state;
    for (int c = 0; c < 3; c++) {
        accuracy a[2];

        for (int on = 0; on < 2; on++) {
            layer l;

            layer_shape(&l, seed + 6500 + (uint64_t)c, 16, 1280, 64);
            l.form = lw_int8_usual(l.in);
            l.form.balanced = on;
            l.w = kt_input(&l.run, LW_F32, 2, D(64, 1280), 0, 0.05f, true);
            for (int j = 0; j <= c; j++) {
                int64_t channel = (97 + 311 * j) % l.in;

                for (int64_t i = 0; i < l.n; i++)
                    lw_row(&l.x, i)[channel] *= 200.0f + 100.0f * (float)j;
                for (int64_t o = 0; o < l.out; o++)
                    lw_row(&l.w, o)[channel] /= 200.0f + 100.0f * (float)j;
            }
            a[on] = measure(&l);
            layer_end(&l);
        }
        print_message("    %d channels: error %.4f without, %.4f with balance\n", c + 1, a[0].rms,
                      a[1].rms);
        assert_true(a[1].rms * 3 <= a[0].rms);
    }
}

/* r is the root of the column's rms, the rms of the whole being 1, and stays between 1/256 and 256;
 * layers of other weights are not alike. */
static void test_balance(void **state)
{
    layer l;
    lw_int8_form plain;
    block other;
    double mean = 0, sum[300] = { 0 };

    (void)state;
    layer_shape(&l, seed, 1, 300, 40);
    l.form = lw_int8_usual(300);
    l.w = kt_input(&l.run, LW_F32, 2, D(40, 300), 0, 1, true);
    for (int64_t o = 0; o < 40; o++) {
        lw_row(&l.w, o)[7] = 0;
        lw_row(&l.w, o)[8] *= 100;
        lw_row(&l.w, o)[299] *= 1e-3f;
        for (int64_t i = 0; i < 300; i++)
            sum[i] += (double)lw_row(&l.w, o)[i] * (double)lw_row(&l.w, o)[i] / 40;
    }
    layer_pack(&l);
    for (int64_t i = 0; i < 300; i++)
        mean += sum[i] / 300;
    for (int64_t i = 0; i < 320; i++) {
        double want = i >= 300 ? 1 : fmax(sqrt(sqrt(sum[i] / mean)), 1.0 / 256);

        if (fabs((double)balance(&l, i) - want) > 1e-6 * want)
            fail_msg("r[%d] is %g, expected %g", (int)i, (double)balance(&l, i), want);
    }
    assert_true(lw_int8_balance(l.packed.p)[8] == balance(&l, 8));

    other = block_new(l.packed.bytes);
    plain = l.form;
    plain.balanced = false;
    assert_int_equal(lw_int8_pack(other.p, &l.w, plain, NULL, NULL), LW_OK);
    for (int64_t i = 0; i < 320; i++)
        assert_true(lw_int8_balance(other.p)[i] == 1);
    assert_true(lw_int8_alike(l.packed.p, l.packed.p));
    assert_false(lw_int8_alike(l.packed.p, other.p));
    assert_int_equal(lw_int8_pack(other.p, &l.w, l.form, NULL, NULL), LW_OK);
    assert_true(lw_int8_alike(l.packed.p, other.p));
    plain.balanced = true;
    plain.block = 0;
    assert_int_equal(lw_int8_pack(other.p, &l.w, plain, NULL, NULL), LW_OK);
    assert_false(lw_int8_alike(l.packed.p, other.p));
    lw_row(&l.w, 39)[299] = 1;
    assert_int_equal(lw_int8_pack(other.p, &l.w, l.form, NULL, NULL), LW_OK);
    assert_false(lw_int8_alike(l.packed.p, other.p));
    /* almost everything is in one column */
    for (int64_t o = 0; o < 40; o++)
        lw_row(&l.w, o)[8] = 1e9f;
    assert_int_equal(lw_int8_pack(other.p, &l.w, l.form, NULL, NULL), LW_OK);
    assert_true(lw_int8_balance(other.p)[9] == 1.0f / 256);
    block_free(&other);
    layer_end(&l);
}

/* A value that is not finite spoils its row, and only that; a row of zeros gives the bias. */
static void test_special_rows(void **state)
{
    (void)state;
    for (int v = 0; v < lw_int8_levels(); v++) {
        layer l;
        lw_tensor y;
        lw_int8_rows rows;
        block mem;

        layer_shape(&l, seed + 7000, 7, 320, 45);
        layer_pack(&l);
        lw_row(&l.x, 1)[319] = NAN;
        lw_row(&l.x, 2)[0] = -INFINITY;
        lw_row(&l.x, 3)[7] = 3e38f;
        lw_row(&l.x, 3)[8] = 3e38f; /* overflows in the rotation */
        memset(lw_row(&l.x, 4), 0, 320 * sizeof(float));
        for (int j = 0; j < 320; j++)
            lw_row(&l.x, 5)[j] = 1e-40f;
        y = kt_output(&l.run, LW_F32, 2, D(7, 45), true);
        run_layer(&l, lw_int8_level(v), NULL, &y, &rows, &mem, true);
        for (int64_t o = 0; o < 45; o++) {
            assert_true(isfinite(lw_row(&y, 0)[o]) && isfinite(lw_row(&y, 6)[o]));
            assert_true(isnan(lw_row(&y, 1)[o]) && isnan(lw_row(&y, 2)[o]));
            assert_true(l.form.block == 0 || isnan(lw_row(&y, 3)[o]));
            assert_true(lw_row(&y, 4)[o] == lw_f32(&l.b)[o]);
            assert_true(lw_row(&y, 5)[o] == lw_f32(&l.b)[o]);
        }
        assert_true(rows.scale[4] == 0 && rows.scale[5] == 0);
        block_free(&mem);
        layer_end(&l);
    }
}

/* The same bytes packed and the same bits out with 1, 2, 3 and 7 threads. */
static void test_threads(void **state)
{
    static const int counts[] = { 2, 3, 7 };

    (void)state;
    for (int c = 0; c < 10; c++) {
        layer l;
        lw_tensor y0;
        lw_int8_rows rows;
        block mem;

        layer_shape(&l, seed + 8000 + (uint64_t)c, kt_int(&(kt_rng){ seed + (uint64_t)c }, 1, 150),
                    0, c % 2 ? 0 : 700);
        layer_pack(&l);
        y0 = kt_output(&l.run, LW_F32, 2, D(l.n, l.out), false);
        run_layer(&l, lw_int8_best(), NULL, &y0, &rows, &mem, true);
        block_free(&mem);
        for (size_t t = 0; t < LW_ARRAY_LEN(counts); t++) {
            block packed = block_new(l.packed.bytes);
            lw_tensor y = kt_output(&l.run, LW_F32, 2, D(l.n, l.out), false);
            lw_pool *pool = NULL;

            assert_int_equal(lw_pool_create(counts[t], &pool, NULL), LW_OK);
            assert_int_equal(lw_int8_pack(packed.p, &l.w, l.form, pool, NULL), LW_OK);
            assert_memory_equal(packed.p, l.packed.p, packed.bytes);
            run_layer(&l, lw_int8_best(), pool, &y, &rows, &mem, true);
            assert_memory_equal(y.data, y0.data, lw_tensor_bytes(&y));
            block_free(&mem);
            block_free(&packed);
            lw_pool_destroy(&pool);
        }
        layer_end(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block),      cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_rotate),     cmocka_unit_test(test_pack),
        cmocka_unit_test(test_pack_zeros), cmocka_unit_test(test_pack_refusals),
        cmocka_unit_test(test_check),      cmocka_unit_test(test_dot),
        cmocka_unit_test(test_levels),     cmocka_unit_test(test_heights),
        cmocka_unit_test(test_extremes),   cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_outliers),   cmocka_unit_test(test_balanced_outliers),
        cmocka_unit_test(test_balance),    cmocka_unit_test(test_special_rows),
        cmocka_unit_test(test_threads),
    };
    const char *env = getenv("LW_SEED");

    seed = env ? strtoull(env, NULL, 10) : (uint64_t)lw_now_ns() % 1000000000u;
    printf("LW_SEED=%llu, levels:", (unsigned long long)seed);
    for (int i = 0; i < lw_int8_levels(); i++)
        printf(" %s", lw_int8_level(i)->name);
    putchar('\n');
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
