#include "tests/kernels/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD_BYTES   256
#define SENTINEL      0xa5
#define ARENA_LIMIT   ((size_t)64 << 20)
#define MAX_GAP_ITEMS 9

uint64_t kt_u64(kt_rng *r)
{
    uint64_t z = r->s += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int64_t kt_int(kt_rng *r, int64_t lo, int64_t hi)
{
    return lo + (int64_t)(kt_u64(r) % (uint64_t)(hi - lo + 1));
}

float kt_normal(kt_rng *r)
{
    uint64_t u = kt_u64(r);
    float sum = 0;

    for (int i = 0; i < 4; i++, u >>= 16)
        sum += (float)(u & 0xffff) / 65536.0f - 0.5f;
    return sum * 1.7320508f;
}

void kt_run_begin(kt_run *r, lw_kernels *k, uint64_t seed)
{
    memset(r, 0, sizeof(*r));
    r->k = k;
    r->rng.s = seed;
    lw_arena_init(&r->arena, "test", ARENA_LIMIT);
}

/* True when byte `at` of the buffer belongs to the view. */
static bool inside_view(const lw_tensor *t, const char *base, size_t at)
{
    size_t item = lw_dtype_size(t->dtype), begin = (size_t)((const char *)t->data - base);
    size_t rows = t->rank < 2 ? 1 : (size_t)t->shape[0];
    size_t row_bytes = rows ? lw_tensor_bytes(t) / rows : 0;
    size_t stride = t->rank < 2 ? row_bytes : (size_t)t->stride0 * item;

    if (at < begin || !stride)
        return false;
    at -= begin;
    return at / stride < rows && at % stride < row_bytes;
}

bool kt_run_end(kt_run *r)
{
    bool clean = true;

    for (int i = 0; i < r->n_buf; i++) {
        for (size_t j = 0; r->buf[i].guarded && j < r->buf[i].bytes; j++) {
            if ((unsigned char)r->buf[i].base[j] != SENTINEL &&
                !inside_view(&r->buf[i].view, r->buf[i].base, j)) {
                fprintf(stderr, "byte %zu of %zu outside the view was written (%s)\n", j,
                        r->buf[i].bytes, r->shape);
                clean = false;
                break;
            }
        }
        free(r->buf[i].base);
    }
    lw_arena_deinit(&r->arena);
    return clean;
}

/* Guarded memory with a view in it that starts at a random multiple of its item size. */
static lw_tensor make(kt_run *r, lw_dtype dtype, int rank, const int64_t *shape, bool strided)
{
    size_t item = lw_dtype_size(dtype), rows, bytes;
    lw_tensor t = lw_tensor_nd(NULL, dtype, rank, shape);
    int64_t gap = strided && rank >= 2 ? kt_int(&r->rng, 0, MAX_GAP_ITEMS) : 0;
    int64_t shift = kt_int(&r->rng, 0, 3);

    rows = rank < 2 ? 1 : (size_t)shape[0];
    if (rank >= 2)
        t.stride0 += gap;
    bytes = 2 * GUARD_BYTES + lw_tensor_bytes(&t) + (rows * (size_t)gap + (size_t)shift) * item;
    if (r->n_buf == KT_MAX_BUFFERS)
        abort();
    r->buf[r->n_buf].base = malloc(bytes);
    if (!r->buf[r->n_buf].base)
        abort();
    memset(r->buf[r->n_buf].base, SENTINEL, bytes);
    r->buf[r->n_buf].bytes = bytes;
    t.data = r->buf[r->n_buf].base + GUARD_BYTES + (size_t)shift * item;
    r->buf[r->n_buf].view = t;
    r->buf[r->n_buf].guarded = true;
    r->n_buf++;
    return t;
}

static void fill(kt_run *r, lw_tensor *t, float mean, float sd)
{
    int64_t rows = t->rank < 2 ? 1 : t->shape[0];
    int64_t cols = rows ? lw_tensor_count(t) / rows : 0;
    size_t item = lw_dtype_size(t->dtype);

    for (int64_t i = 0; i < rows; i++) {
        char *row = (char *)t->data + (size_t)(i * t->stride0) * item;

        for (int64_t j = 0; j < cols; j++) {
            float v = mean + sd * kt_normal(&r->rng);

            if (!lw_dtype_convert(row + (size_t)j * item, t->dtype, &v, LW_F32, 1))
                abort();
        }
    }
}

lw_tensor kt_input(kt_run *r, lw_dtype dtype, int rank, const int64_t *shape, float mean, float sd,
                   bool strided)
{
    lw_tensor t = make(r, dtype, rank, shape, strided);

    fill(r, &t, mean, sd);
    return t;
}

lw_tensor kt_vector(kt_run *r, int64_t n, float mean, float sd)
{
    return kt_input(r, LW_F32, 1, &n, mean, sd, false);
}

lw_tensor kt_output(kt_run *r, lw_dtype dtype, int rank, const int64_t *shape, bool strided)
{
    lw_tensor t = make(r, dtype, rank, shape, strided);
    int64_t rows = rank < 2 ? 1 : shape[0], cols = rows ? lw_tensor_count(&t) / rows : 0;

    for (int64_t i = 0; i < rows && dtype == LW_F32; i++) {
        for (int64_t j = 0; j < cols; j++)
            lw_f32(&t)[i * t.stride0 + j] = NAN;
    }
    return t;
}

lw_tensor kt_inout(kt_run *r, int rank, const int64_t *shape, float mean, float sd, bool strided)
{
    return kt_input(r, LW_F32, rank, shape, mean, sd, strided);
}
