/*
 * Packing, quantising and the cut of the work of int8.h; the inner loops are in int8_isa.c. This
 * file is compiled without any ISA flag.
 */
#include "common/cpu/int8.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef LW_HAVE_X86_LEVELS
#include <cpuid.h>
#endif

#include "common/cpu/cpu.h"
#include "common/cpu/vec.h"
#include "common/size.h"

#define MAGIC      "LWINT8W"
#define K_ALIGN    64 /* whole registers of every level */
#define PANEL_HEAD (LW_INT8_PANEL * (sizeof(float) + sizeof(int32_t)))
#define INF_BITS   0x7f800000u
/* Columns that are summed at a time: 1 KB of a row in f32. */
#define COLUMNS 256
/* A column of zeros or of almost all that there is must not make 0 or infinity. */
#define BALANCE_MAX 256.0
/* Below this a row is zero: 127 / max must not overflow. */
#define TINY 0x1p-100f
/* A block of rows that is multiplied with a panel before the next panel comes: 3 to 8 MB, which
 * the last cache holds while the weights go by once. */
#define ROW_BLOCK (64 * LW_INT8_TILE)
/* So many pieces, if there are rows to cut, that the last round of 16 threads is a small part. */
#define MIN_PIECES 240

_Static_assert(sizeof(lw_int8_header) == LW_INT8_ALIGN, "panels begin at a multiple of 64");
_Static_assert(PANEL_HEAD % LW_INT8_ALIGN == 0, "groups begin at a multiple of 64");

#ifdef LW_HAVE_X86_LEVELS
static bool has_avx2(void)
{
    return lw_isa_cap() >= LW_ISA_AVX2 && __builtin_cpu_supports("avx2") &&
           __builtin_cpu_supports("fma");
}

#ifdef LW_HAVE_AVXVNNI
/* clang 14's __builtin_cpu_supports does not know this one. */
static bool has_avxvnni(void)
{
    unsigned eax, ebx, ecx, edx;

    return lw_isa_cap() >= LW_ISA_AVXVNNI && has_avx2() &&
           __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & 1u << 4);
}
#endif

static bool has_avx512vnni(void)
{
    return lw_isa_cap() >= LW_ISA_AVX512 && has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
#endif

/* The i-th level that this machine can run, or NULL. They are no ladder: a machine may have either
 * kind of VNNI without the other. */
static const lw_int8_isa *find_level(int i)
{
    if (i-- == 0)
        return &lw_int8_baseline;
#ifdef LW_HAVE_X86_LEVELS
    if (has_avx2() && i-- == 0)
        return &lw_int8_avx2;
#ifdef LW_HAVE_AVXVNNI
    if (has_avxvnni() && i-- == 0)
        return &lw_int8_avxvnni;
#endif
    if (has_avx512vnni() && i-- == 0)
        return &lw_int8_avx512vnni;
#endif
    return NULL;
}

int lw_int8_levels(void)
{
    int n = 0;

    while (find_level(n))
        n++;
    return n;
}

const lw_int8_isa *lw_int8_level(int i)
{
    return find_level(i);
}

const lw_int8_isa *lw_int8_best(void)
{
    return find_level(lw_int8_levels() - 1);
}

static int64_t padded(int64_t in)
{
    return lw_ceil_div(in, K_ALIGN) * K_ALIGN;
}

static size_t panel_bytes(int64_t in)
{
    return PANEL_HEAD + LW_INT8_PANEL * (size_t)padded(in);
}

int lw_int8_block(int64_t in)
{
    int block = 1;

    while (block < LW_INT8_BLOCK && in % (2 * block) == 0)
        block *= 2;
    return block > 1 ? block : 0;
}

lw_int8_form lw_int8_usual(int64_t in)
{
    return (lw_int8_form){ .block = lw_int8_block(in), .bits = LW_INT8_8BIT, .balanced = true };
}

static size_t head_bytes(int64_t in)
{
    return sizeof(lw_int8_header) + (size_t)padded(in) * sizeof(float);
}

size_t lw_int8_packed_bytes(int64_t out, int64_t in)
{
    size_t bytes;

    if (out < 1 || in < 1 || in > LW_INT8_MAX_IN || out > INT64_MAX - LW_INT8_PANEL ||
        !lw_size_mul((size_t)lw_ceil_div(out, LW_INT8_PANEL), panel_bytes(in), &bytes) ||
        !lw_size_add(bytes, head_bytes(in), &bytes))
        return 0;
    return bytes;
}

/* A panel, taken apart. */
typedef struct panel {
    float *scale;
    int32_t *offset;
    int8_t *q;
} panel;

static panel panel_at(const void *packed, int64_t in, int64_t i)
{
    char *p = (char *)packed + head_bytes(in) + (size_t)i * panel_bytes(in);

    return (panel){ .scale = (float *)p,
                    .offset = (int32_t *)(p + LW_INT8_PANEL * sizeof(float)),
                    .q = (int8_t *)(p + PANEL_HEAD) };
}

static int64_t q_index(int64_t o, int64_t i)
{
    return (i / 4 * LW_INT8_PANEL + o) * 4 + i % 4;
}

typedef struct pack_args {
    const lw_int8_isa *isa;
    void *dst;
    const lw_tensor *w;
    float *work; /* a row for each thread */
    float *balance;
    int block, q_max;
    int64_t bad_row; /* one that has a value that is not finite, or -1 */
} pack_args;

/* The mean square of each of a few columns; every column is summed by one thread from the top. */
static void square_columns(void *arg, int thread, int64_t item)
{
    const pack_args *a = arg;
    int64_t first = item * COLUMNS, n = lw_min64(COLUMNS, a->w->shape[1] - first);
    size_t skip = (size_t)first * lw_dtype_size(a->w->dtype);
    double sum[COLUMNS] = { 0 };
    float row[COLUMNS];

    (void)thread;
    for (int64_t o = 0; o < a->w->shape[0]; o++) {
        lw_dtype_convert(row, LW_F32, (const char *)lw_row_any(a->w, o) + skip, a->w->dtype,
                         (size_t)n);
        for (int64_t i = 0; i < n; i++)
            sum[i] += (double)row[i] * (double)row[i];
    }
    for (int64_t i = 0; i < n; i++)
        a->balance[first + i] = (float)(sum[i] / (double)a->w->shape[0]);
}

/* r of every column, from their mean squares in its place: the root of the column's rms, where the
 * rms of the whole is 1. */
static void balance_columns(float *r, int64_t in)
{
    double sum = 0, mean;

    for (int64_t i = 0; i < in; i++)
        sum += isfinite(r[i]) ? (double)r[i] : 0; /* what is not is found by pack_panel */
    mean = sum / (double)in;
    for (int64_t i = 0; i < in; i++) {
        double v = mean > 0 && isfinite(r[i]) ? sqrt(sqrt((double)r[i] / mean)) : 1;

        r[i] = (float)fmin(fmax(v, 1 / BALANCE_MAX), BALANCE_MAX);
    }
}

static void pack_panel(void *arg, int thread, int64_t item)
{
    pack_args *a = arg;
    int64_t out = a->w->shape[0], in = a->w->shape[1], k = padded(in);
    int64_t first = item * LW_INT8_PANEL, width = lw_min64(LW_INT8_PANEL, out - first);
    float *row = a->work + thread * k;
    panel p = panel_at(a->dst, in, item);

    memset(p.scale, 0, panel_bytes(in));
    for (int64_t o = 0; o < width; o++) {
        const void *w = lw_row_any(a->w, first + o);
        uint32_t bits;
        float max;
        int32_t sum = 0;

        memset(row + in, 0, (size_t)(k - in) * sizeof(*row));
        lw_dtype_convert(row, LW_F32, w, a->w->dtype, (size_t)in);
        for (int64_t i = 0; i < in; i++)
            row[i] /= a->balance[i];
        bits = a->isa->rotate(row, k, a->block);
        memcpy(&max, &bits, sizeof(max));
        if (bits >= INF_BITS) {
            __atomic_store_n(&a->bad_row, first + o, __ATOMIC_RELAXED);
            return;
        }
        if (max < TINY)
            continue;
        p.scale[o] = max / (float)a->q_max;
        for (int64_t i = 0; i < in; i++) {
            long q = lrintf(row[i] * ((float)a->q_max / max));

            p.q[q_index(o, i)] = (int8_t)q;
            sum += (int32_t)q;
        }
        p.offset[o] = -128 * sum;
    }
}

static uint64_t fnv1a(const void *p, size_t n)
{
    const unsigned char *c = p;
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < n; i++)
        h = (h ^ c[i]) * 0x100000001b3u;
    return h;
}

static uint64_t header_hash(const lw_int8_header *h)
{
    return fnv1a(h, offsetof(lw_int8_header, hash));
}

lw_status lw_int8_pack(void *dst, const lw_tensor *w, lw_int8_form form, lw_pool *pool, lw_err *err)
{
    lw_int8_header h = { .magic = MAGIC, .version = LW_INT8_VERSION };
    pack_args a = { .isa = lw_int8_best(), .dst = dst, .w = w, .block = form.block, .bad_row = -1 };
    int64_t in;
    size_t bytes;

    if (w->rank != 2 || !(bytes = lw_int8_packed_bytes(w->shape[0], w->shape[1])))
        return lw_fail(err, LW_E_SHAPE, "int8: a matrix of 1 to %d columns is expected",
                       LW_INT8_MAX_IN);
    if (w->dtype != LW_F32 && w->dtype != LW_BF16 && w->dtype != LW_F16)
        return lw_fail(err, LW_E_SHAPE, "int8: weights are float32, bfloat16 or float16, not %s",
                       lw_dtype_name(w->dtype));
    in = w->shape[1];
    if (form.block != 0 && form.block != lw_int8_block(in))
        return lw_fail(err, LW_E_INVALID, "int8: rotation by %d of %lld columns: expected 0 or %d",
                       form.block, (long long)in, lw_int8_block(in));
    a.q_max = (int)form.bits;
    a.balance = (float *)((char *)dst + sizeof(h));
    a.work = aligned_alloc(LW_INT8_ALIGN,
                           (size_t)lw_pool_threads(pool) * (size_t)padded(in) * sizeof(float));
    if (!a.work)
        return lw_fail(err, LW_E_NOMEM, "int8: no memory to pack %lld columns", (long long)in);
    for (int64_t i = 0; i < padded(in); i++)
        a.balance[i] = 1;
    if (form.balanced) {
        lw_pool_run(pool, lw_ceil_div(in, COLUMNS), square_columns, &a);
        balance_columns(a.balance, in);
    }
    lw_pool_run(pool, lw_ceil_div(w->shape[0], LW_INT8_PANEL), pack_panel, &a);
    free(a.work);
    if (a.bad_row >= 0)
        return lw_fail(err, LW_E_FORMAT, "int8: row %lld of the weights is not finite",
                       (long long)a.bad_row);
    h.q_max = (uint32_t)form.bits;
    h.block = (uint32_t)form.block;
    h.balanced = form.balanced;
    h.out = w->shape[0];
    h.in = in;
    h.bytes = bytes;
    h.hash = header_hash(&h);
    memcpy(dst, &h, sizeof(h));
    return LW_OK;
}

lw_status lw_int8_check(const void *p, size_t bytes, int64_t out, int64_t in, lw_err *err)
{
    size_t want = lw_int8_packed_bytes(out, in);
    lw_int8_header h;

    if ((uintptr_t)p % LW_INT8_ALIGN != 0)
        return lw_fail(err, LW_E_INVALID, "int8 weights: not aligned to %d bytes", LW_INT8_ALIGN);
    if (!want)
        return lw_fail(err, LW_E_SHAPE, "int8 weights: no such matrix: [%lld, %lld]",
                       (long long)out, (long long)in);
    if (bytes < sizeof(h))
        return lw_fail(err, LW_E_FORMAT, "int8 weights: %zu bytes are no header", bytes);
    memcpy(&h, p, sizeof(h));
    if (memcmp(h.magic, MAGIC, sizeof(h.magic)) != 0)
        return lw_fail(err, LW_E_FORMAT, "int8 weights: the header does not begin with " MAGIC);
    if (h.version != LW_INT8_VERSION)
        return lw_fail(err, LW_E_PRECONDITION,
                       "int8 weights: layout version %lu, this build reads %d; pack them again",
                       (unsigned long)h.version, LW_INT8_VERSION);
    if (h.hash != header_hash(&h) || h.zero != 0)
        return lw_fail(err, LW_E_FORMAT, "int8 weights: the header is damaged");
    if (h.out != out || h.in != in)
        return lw_fail(err, LW_E_SHAPE, "int8 weights: expected [%lld, %lld], got [%lld, %lld]",
                       (long long)out, (long long)in, (long long)h.out, (long long)h.in);
    if ((h.q_max != LW_INT8_8BIT && h.q_max != LW_INT8_7BIT) ||
        (h.block != 0 && h.block != (uint32_t)lw_int8_block(in)) || h.balanced > 1 ||
        h.bytes != want)
        return lw_fail(err, LW_E_FORMAT, "int8 weights: the header contradicts itself");
    if (bytes < want)
        return lw_fail(err, LW_E_FORMAT, "int8 weights: %zu bytes of %zu are here", bytes, want);
    return LW_OK;
}

float lw_int8_weight(const void *packed, int64_t o, int64_t i)
{
    const lw_int8_header *h = packed;
    panel p = panel_at(packed, h->in, o / LW_INT8_PANEL);

    o %= LW_INT8_PANEL;
    return p.scale[o] * (float)p.q[q_index(o, i)];
}

const float *lw_int8_balance(const void *packed)
{
    return (const float *)((const char *)packed + sizeof(lw_int8_header));
}

bool lw_int8_alike(const void *a, const void *b)
{
    const lw_int8_header *p = a, *q = b;

    return a == b || (p->in == q->in && p->block == q->block &&
                      memcmp(lw_int8_balance(a), lw_int8_balance(b),
                             (size_t)padded(p->in) * sizeof(float)) == 0);
}

size_t lw_int8_rows_bytes(int64_t n, int64_t in, int n_threads)
{
    size_t k = (size_t)padded(in), u, scale, work, total;

    if (!lw_size_mul((size_t)n, k, &u) || !lw_size_mul((size_t)n, sizeof(float), &scale) ||
        !lw_size_mul(k * sizeof(float), (size_t)n_threads, &work) ||
        !lw_size_add(u, work, &total) || !lw_size_add(total, scale, &total))
        return SIZE_MAX;
    return lw_size_align(total, LW_INT8_ALIGN);
}

typedef struct quantise_args {
    const lw_int8_isa *isa;
    const lw_int8_rows *rows;
    const lw_tensor *x;
} quantise_args;

static void quantise_tile(void *arg, int thread, int64_t item)
{
    const quantise_args *a = arg;
    const lw_int8_rows *rows = a->rows;
    const float *r = lw_int8_balance(rows->packed);
    int block = (int)((const lw_int8_header *)rows->packed)->block;
    int64_t k = padded(rows->in), first = item * LW_INT8_TILE;
    int64_t height = lw_min64(LW_INT8_TILE, rows->n - first);
    float *row = rows->work + thread * k;

    for (int64_t i = 0; i < height; i++) {
        const float *x = lw_row(a->x, first + i);
        float max, inv = 0, *scale = &rows->scale[first + i];
        uint32_t bits;

        for (int64_t j = 0; j < rows->in; j++)
            row[j] = x[j] * r[j];
        memset(row + rows->in, 0, (size_t)(k - rows->in) * sizeof(*row));
        bits = a->isa->rotate(row, k, block);
        memcpy(&max, &bits, sizeof(max));
        *scale = 0;
        if (bits < INF_BITS && max >= TINY) {
            *scale = max / 127;
            inv = 127 / max;
        } else {
            *scale = bits < INF_BITS ? 0 : NAN;
            memset(row, 0, (size_t)k * sizeof(*row));
        }
        a->isa->quantise(rows->u + first * k + 4 * i, height, row, k, inv);
    }
}

void lw_int8_quantise(const lw_int8_isa *isa, lw_pool *pool, lw_int8_rows *ret, void *mem,
                      const lw_tensor *x, const void *packed)
{
    int64_t n = lw_rows(x), in = lw_cols(x), k = padded(in);
    quantise_args a = { .isa = isa, .rows = ret, .x = x };

    ret->n = n;
    ret->in = in;
    ret->packed = packed;
    ret->work = mem;
    ret->u = (uint8_t *)(ret->work + lw_pool_threads(pool) * k);
    ret->scale = (float *)(ret->u + n * k);
    lw_pool_run(pool, lw_ceil_div(n, LW_INT8_TILE), quantise_tile, &a);
}

typedef struct product_args {
    const lw_int8_isa *isa;
    const lw_int8_rows *rows;
    lw_tensor *y;
    const void *packed;
    const float *b;
    int64_t out, n_panels, n_pieces, block_rows;
    int n_threads;
    bool wide;
} product_args;

/* A panel times a block of rows, a tile at a time. Panels change faster than blocks. */
static void product_piece(void *arg, int thread, int64_t piece)
{
    const product_args *a = arg;
    const lw_int8_rows *rows = a->rows;
    int64_t k = padded(rows->in), n_panel = piece % a->n_panels, o = n_panel * LW_INT8_PANEL;
    int64_t width = lw_min64(LW_INT8_PANEL, a->out - o);
    int64_t begin = piece / a->n_panels * a->block_rows;
    int64_t end = lw_min64(begin + a->block_rows, rows->n);
    /* This thread's next piece is likely the one that comes after each thread has had one. Its
     * weights are called while we multiply here, a part with each tile. */
    int64_t next = lw_min64(piece + a->n_threads, a->n_pieces - 1) % a->n_panels;
    panel p = panel_at(a->packed, rows->in, n_panel);
    lw_int8_tile t = {
        .q = p.q,
        .groups = k / 4,
        .wide = a->wide,
        .next = (const char *)panel_at(a->packed, rows->in, next).q,
        .step = lw_ceil_div(LW_INT8_PANEL * 4, lw_ceil_div(end - begin, LW_INT8_TILE)),
    };
    _Alignas(LW_INT8_ALIGN) int32_t sums[LW_INT8_TILE * LW_INT8_PANEL];

    (void)thread;
    for (int64_t i = begin; i < end; i += LW_INT8_TILE, t.next += t.groups * t.step) {
        t.rows = (int)lw_min64(LW_INT8_TILE, end - i);
        t.u = rows->u + i * k;
        /* y is on its way here while we multiply */
        for (int r = 0; r < t.rows; r++) {
            __builtin_prefetch(lw_row(a->y, i + r) + o, 1, 2);
            __builtin_prefetch(lw_row(a->y, i + r) + o + width - 1, 1, 2);
        }
        a->isa->dot(sums, &t);
        for (int r = 0; r < t.rows; r++)
            a->isa->finish(lw_row(a->y, i + r) + o, sums + r * LW_INT8_PANEL, p.offset, p.scale,
                           rows->scale[i + r], a->b ? a->b + o : NULL, width);
    }
}

void lw_int8_product(const lw_int8_isa *isa, lw_pool *pool, lw_tensor *y, const lw_int8_rows *rows,
                     const void *packed, const float *b)
{
    const lw_int8_header *h = packed;
    int64_t n_tiles = lw_ceil_div(rows->n, LW_INT8_TILE), n_blocks;
    product_args a = { .isa = isa,
                       .rows = rows,
                       .y = y,
                       .packed = packed,
                       .b = b,
                       .out = h->out,
                       .n_panels = lw_ceil_div(h->out, LW_INT8_PANEL),
                       .n_threads = lw_pool_threads(pool),
                       .wide = h->q_max > LW_INT8_7BIT };

    assert(lw_int8_alike(packed, rows->packed));
    if (n_tiles == 0)
        return;
    n_blocks = lw_ceil_div(rows->n, ROW_BLOCK);
    if (n_blocks * a.n_panels < MIN_PIECES)
        n_blocks = lw_min64(n_tiles, lw_ceil_div(MIN_PIECES, a.n_panels));
    a.block_rows = lw_ceil_div(n_tiles, n_blocks) * LW_INT8_TILE;
    a.n_pieces = lw_ceil_div(rows->n, a.block_rows) * a.n_panels;
    lw_pool_run(pool, a.n_pieces, product_piece, &a);
}
