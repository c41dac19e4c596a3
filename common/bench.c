/* The cases of bench.h: their names, sizes, and how much work they are. */
#include "common/bench.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/cpu/int8.h"

/* Tokens: one; a short prompt; what a small picture has; 256x256 and 512x512 with a prompt. */
#define LINEAR(op, in, out)                                                                        \
    { op, 1, in, out }, { op, 32, in, out }, { op, 96, in, out }, { op, 352, in, out },            \
    {                                                                                              \
        op, 1120, in, out                                                                          \
    }
/* The denoiser's square and feed-forward layers, and the encoder's feed-forward layer. */
#define LINEARS(op)                                                                                \
    LINEAR(op, 3840, 3840), LINEAR(op, 3840, 10240), LINEAR(op, 10240, 3840), LINEAR(op, 2560, 9728)
#define ROWS(op, d)                                                                                \
    { op, 352, d, 0 },                                                                             \
    {                                                                                              \
        op, 4160, d, 0                                                                             \
    }

static const lw_bench_case cases[] = {
    LINEARS(LW_BENCH_LINEAR),
    LINEARS(LW_BENCH_LINEAR_INT8),
    { LW_BENCH_ATTENTION, 352, 30, 128 },
    { LW_BENCH_ATTENTION, 1120, 30, 128 },
    { LW_BENCH_ATTENTION, 4160, 30, 128 },
    { LW_BENCH_ATTENTION_CAUSAL, 96, 32, 128 },
    { LW_BENCH_ATTENTION_CAUSAL, 512, 32, 128 },
    { LW_BENCH_CONV2D, 64, 512, 512 },
    { LW_BENCH_CONV2D, 128, 512, 512 },
    { LW_BENCH_CONV2D, 256, 256, 256 },
    { LW_BENCH_CONV2D, 512, 128, 128 },
    { LW_BENCH_GROUP_FACTORS, 64, 512, 0 },
    { LW_BENCH_GROUP_FACTORS, 512, 128, 0 },
    ROWS(LW_BENCH_RMSNORM, 3840),
    ROWS(LW_BENCH_ADD_RMSNORM, 3840),
    ROWS(LW_BENCH_LAYERNORM, 3840),
    { LW_BENCH_QK_NORM_ROPE, 352, 30, 128 },
    { LW_BENCH_QK_NORM_ROPE, 4160, 30, 128 },
    ROWS(LW_BENCH_SWIGLU, 10240),
    ROWS(LW_BENCH_INT8_ROWS, 3840),
};

const lw_bench_case *lw_bench_cases(size_t *ret_n)
{
    *ret_n = LW_ARRAY_LEN(cases);
    return cases;
}

const char *lw_bench_name(lw_bench_op op)
{
    static const char *const names[LW_N_BENCH_OPS] = {
        [LW_BENCH_LINEAR] = "linear bf16",  [LW_BENCH_LINEAR_INT8] = "linear int8",
        [LW_BENCH_ATTENTION] = "attention", [LW_BENCH_ATTENTION_CAUSAL] = "attention causal",
        [LW_BENCH_CONV2D] = "conv2d 3x3",   [LW_BENCH_GROUP_FACTORS] = "group_factors",
        [LW_BENCH_RMSNORM] = "rmsnorm",     [LW_BENCH_ADD_RMSNORM] = "add_rmsnorm",
        [LW_BENCH_LAYERNORM] = "layernorm", [LW_BENCH_QK_NORM_ROPE] = "qk_norm_rope",
        [LW_BENCH_SWIGLU] = "swiglu",       [LW_BENCH_INT8_ROWS] = "int8 rows",
    };

    return names[op];
}

const char *lw_bench_shape(const lw_bench_case *c, char *buf, size_t buf_bytes)
{
    switch (c->op) {
    case LW_BENCH_LINEAR:
    case LW_BENCH_LINEAR_INT8:
        snprintf(buf, buf_bytes, "%" PRId64 " token%s, %" PRId64 " -> %" PRId64, c->n,
                 c->n == 1 ? "" : "s", c->a, c->b);
        break;
    case LW_BENCH_ATTENTION:
    case LW_BENCH_ATTENTION_CAUSAL:
    case LW_BENCH_QK_NORM_ROPE:
        snprintf(buf, buf_bytes, "%" PRId64 " tokens, %" PRId64 " heads of %" PRId64, c->n, c->a,
                 c->b);
        break;
    case LW_BENCH_CONV2D:
        snprintf(buf, buf_bytes, "%" PRId64 "x%" PRId64 ", %" PRId64 " -> %" PRId64, c->n, c->n,
                 c->a, c->b);
        break;
    case LW_BENCH_GROUP_FACTORS:
        snprintf(buf, buf_bytes, "%" PRId64 "x%" PRId64 ", %" PRId64 " channels", c->n, c->n, c->a);
        break;
    default:
        snprintf(buf, buf_bytes, "%" PRId64 " tokens of %" PRId64, c->n, c->a);
    }
    return buf;
}

bool lw_bench_is_f32_linear(const lw_bench_case *c)
{
    return c->op == LW_BENCH_LINEAR;
}

bool lw_bench_is_int8_linear(const lw_bench_case *c)
{
    return c->op == LW_BENCH_LINEAR_INT8 || c->op == LW_BENCH_INT8_ROWS;
}

lw_bench_bound lw_bench_bound_of(const lw_bench_case *c)
{
    switch (c->op) {
    case LW_BENCH_LINEAR:
        return c->n == 1 ? LW_BENCH_READ : LW_BENCH_MULTIPLY_ADD;
    case LW_BENCH_LINEAR_INT8:
        return c->n == 1 ? LW_BENCH_READ : LW_BENCH_DOT_PRODUCT;
    case LW_BENCH_ATTENTION:
    case LW_BENCH_ATTENTION_CAUSAL:
    case LW_BENCH_CONV2D:
        return LW_BENCH_MULTIPLY_ADD;
    case LW_BENCH_GROUP_FACTORS:
        return LW_BENCH_READ;
    default:
        return LW_BENCH_COPY;
    }
}

double lw_bench_work(const lw_bench_case *c)
{
    const double n = (double)c->n, a = (double)c->a, b = (double)c->b;

    switch (c->op) {
    case LW_BENCH_LINEAR:
        return c->n == 1 ? 2 * a * b : 2 * n * a * b;
    case LW_BENCH_LINEAR_INT8:
        return c->n == 1 ? (double)lw_int8_packed_bytes(c->b, c->a) : 2 * n * a * b;
    case LW_BENCH_ATTENTION: /* q k^T and p v */
        return 4 * n * n * a * b;
    case LW_BENCH_ATTENTION_CAUSAL: /* n (n + 1) / 2 pairs */
        return 2 * n * (n + 1) * a * b;
    case LW_BENCH_CONV2D:
        return 2 * 9 * n * n * a * b;
    case LW_BENCH_GROUP_FACTORS: /* x read */
        return 4 * n * n * a;
    case LW_BENCH_RMSNORM:
    case LW_BENCH_LAYERNORM: /* x read, y written */
        return 2 * 4 * n * a;
    case LW_BENCH_ADD_RMSNORM: /* x and y read, x written */
    case LW_BENCH_SWIGLU:      /* gate and up read, y written */
        return 3 * 4 * n * a;
    case LW_BENCH_QK_NORM_ROPE: /* q read and written; cos and sin of half a head */
        return 2 * 4 * n * a * b + 4 * n * b;
    default: /* INT8_ROWS: f32 read, bytes written */
        return (4 + 1) * n * a;
    }
}
