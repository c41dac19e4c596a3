/* Prompt weighting: "(words:1.3)". */

#include "encoder-svc/weighting.h"

#include <string.h>

typedef struct parser {
    const char *text, *at;
    char *out; /* as long as text at most */
    size_t len;
    float *weights;
    struct {
        size_t begin; /* in `out` */
        const char *bracket;
    } open[LW_WEIGHTING_MAX_DEPTH];
    int depth;
    lw_err *err;
} parser;

/* Characters up to `at`, counted from 1. */
static size_t character(const parser *p, const char *at)
{
    size_t n = 1;

    for (const char *s = p->text; s < at; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static lw_status bad(const parser *p, const char *at, const char *what)
{
    return lw_fail(p->err, LW_E_INVALID, "weighting: character %zu of the prompt, \"%.24s\": %s",
                   character(p, at), at, what);
}

/*
 * The weight that ends a group, at a colon: digits, perhaps a point and digits, then the bracket.
 * NULL: it is a colon of the words.
 */
static const char *read_weight(const char *at, double *ret)
{
    double v = 0, unit = 1;
    int digits = 0;

    for (at++; *at == ' '; at++)
        ;
    for (; *at >= '0' && *at <= '9'; at++, digits++)
        v = v < 1e6 ? 10 * v + (*at - '0') : v;
    if (*at == '.')
        for (at++; *at >= '0' && *at <= '9'; at++, digits++)
            v += (*at - '0') * (unit /= 10);
    for (; *at == ' '; at++)
        ;
    *ret = v;
    return digits && *at == ')' ? at : NULL;
}

static lw_status open_group(parser *p)
{
    if (p->depth == LW_WEIGHTING_MAX_DEPTH)
        return bad(p, p->at, "more than 16 brackets inside each other");
    p->open[p->depth].begin = p->len;
    p->open[p->depth++].bracket = p->at++;
    return LW_OK;
}

static lw_status close_group(parser *p, const char *end, double weight)
{
    if (weight > LW_WEIGHTING_MAX)
        return bad(p, p->at, "the weight is above 10");
    for (size_t i = p->open[--p->depth].begin; i < p->len; i++)
        p->weights[i] *= (float)weight;
    p->at = end + 1;
    return LW_OK;
}

static lw_status step(parser *p)
{
    const char c = *p->at;
    const char *end;
    double weight;

    if (c == '(')
        return open_group(p);
    if (c == ':' && p->depth && (end = read_weight(p->at, &weight)) != NULL)
        return close_group(p, end, weight);
    if (c == ')')
        return bad(p, p->depth ? p->open[p->depth - 1].bracket : p->at,
                   p->depth ? "the bracket has no weight; write (words:1.3), or \\( and \\) for "
                              "brackets that are text"
                            : "nothing is open that could be closed; write \\) for a bracket that "
                              "is text");
    if (c == '\\' && p->at[1] && strchr("()\\", p->at[1]))
        p->at++;
    p->weights[p->len] = 1;
    p->out[p->len++] = *p->at++;
    return LW_OK;
}

lw_status lw_weighting_parse(const char *text, lw_arena *a, lw_weighted_text *ret, lw_err *err)
{
    const size_t n = strlen(text);
    parser p = { .text = text, .at = text, .err = err };

    p.out = lw_arena_alloc(a, n + 1, err);
    p.weights = lw_arena_alloc(a, (n + 1) * sizeof(*p.weights), err);
    if (!p.out || !p.weights)
        return LW_E_NOMEM;
    while (*p.at)
        LW_TRY(step(&p));
    if (p.depth)
        return bad(&p, p.open[p.depth - 1].bracket, "the bracket is not closed");
    p.out[p.len] = '\0';
    *ret = (lw_weighted_text){ .text = p.out, .len = p.len, .weights = p.weights };
    return LW_OK;
}
