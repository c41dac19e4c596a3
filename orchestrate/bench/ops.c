/* The operations by themselves: a row each, or one document. */

#include <stdio.h>
#include <string.h>

#include "common/bench.h"
#include "orchestrate/bench/bench.h"

#define TEXT_BYTES 96

static const lw_md_column columns[] = {
    { "operation", -16 }, { "size", -32 },   { "ms", 7 },    { "fastest, ms", 0 },
    { "rate", 13 },       { "ceiling", 13 }, { "of it", 5 },
};

static const struct {
    const char *name, *unit, *key;
} bounds[] = {
    [LW_BENCH_MULTIPLY_ADD] = { "multiply_add", "GFLOP/s", "gflops" },
    [LW_BENCH_DOT_PRODUCT] = { "dot_product", "GOP/s", "gops" },
    [LW_BENCH_READ] = { "read", "GB/s", "gb_per_s" },
    [LW_BENCH_COPY] = { "copy", "GB/s", "gb_per_s" },
};

/* "linear int8 352 tokens, 3840 -> 3840" is what a filter looks at. */
static bool wanted(const lw_bench_ops *o, const lw_bench_case *c)
{
    char shape[TEXT_BYTES], text[2 * TEXT_BYTES];

    if ((lw_bench_is_f32_linear(c) && !strcmp(o->precision, "int8")) ||
        (lw_bench_is_int8_linear(c) && !strcmp(o->precision, "f32")))
        return false;
    snprintf(text, sizeof(text), "%s %s", lw_bench_name(c->op),
             lw_bench_shape(c, shape, sizeof(shape)));
    return !o->filter || strstr(text, o->filter);
}

static lw_status check_filter(const lw_bench_ops *o, lw_err *err)
{
    size_t n;
    const lw_bench_case *cases = lw_bench_cases(&n);

    for (size_t i = 0; i < n; i++)
        if (wanted(o, &cases[i]))
            return LW_OK;
    return lw_fail(
        err, LW_E_INVALID,
        "--filter %s: no operation with that in its name or size; try linear, attention, "
        "conv2d, norm, swiglu or 4160",
        o->filter);
}

static void print_rate(const lw_md_column *column, double rate, const char *unit)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof(text), "%.1f %s", rate, unit);
    lw_md_text(column, rate > 0 ? text : "-");
}

static void print_row(const lw_bench_case *c, const lw_bench_result *r)
{
    const char *unit = bounds[lw_bench_bound_of(c)].unit;
    char text[TEXT_BYTES];

    lw_md_text(&columns[0], lw_bench_name(c->op));
    lw_md_text(&columns[1], lw_bench_shape(c, text, sizeof(text)));
    lw_md_number(&columns[2], r->median_ms);
    lw_md_number(&columns[3], r->min_ms);
    print_rate(&columns[4], r->rate, unit);
    print_rate(&columns[5], r->ceiling, unit);
    snprintf(text, sizeof(text), "%.0f %%", 100 * r->rate / r->ceiling);
    lw_md_text(&columns[6], r->ceiling > 0 ? text : "-");
    lw_md_end();
    fflush(stdout);
}

static json_t *positive(double v)
{
    return v > 0 ? json_real(v) : json_null();
}

static json_t *describe_row(const lw_bench_case *c, const lw_bench_result *r)
{
    const char *key = bounds[lw_bench_bound_of(c)].key;
    char shape[TEXT_BYTES], rate_key[TEXT_BYTES], ceiling_key[TEXT_BYTES];

    snprintf(rate_key, sizeof(rate_key), "rate_%s", key);
    snprintf(ceiling_key, sizeof(ceiling_key), "ceiling_%s", key);
    return json_pack("{s:s, s:s, s:i, s:f, s:f, s:f, s:o, s:s, s:o}", "operation",
                     lw_bench_name(c->op), "size", lw_bench_shape(c, shape, sizeof(shape)), "runs",
                     r->n_runs, "median_ms", r->median_ms, "min_ms", r->min_ms, rate_key, r->rate,
                     ceiling_key, positive(r->ceiling), "ceiling",
                     bounds[lw_bench_bound_of(c)].name, "fraction",
                     positive(r->ceiling > 0 ? r->rate / r->ceiling : 0));
}

static lw_status measure(lw_bench *b, const lw_bench_ops *o, json_t *rows, lw_err *err)
{
    size_t n;
    const lw_bench_case *cases = lw_bench_cases(&n);

    if (!o->json)
        lw_md_head(columns, LW_ARRAY_LEN(columns));
    for (size_t i = 0; i < n; i++) {
        lw_bench_result r;

        if (!wanted(o, &cases[i]))
            continue;
        LW_TRY(lw_bench_run(b, &cases[i], &r, err));
        if (!o->json)
            print_row(&cases[i], &r);
        else if (json_array_append_new(rows, describe_row(&cases[i], &r)))
            return lw_fail(err, LW_E_NOMEM, "no memory for a measurement");
    }
    return LW_OK;
}

static lw_status run(lw_bench *b, const lw_bench_ops *o, json_t *report, lw_err *err)
{
    if (json_object_update_new(report, json_pack("{s:s, s:s, s:s, s:i, s:[]}", "backend",
                                                 lw_bench_backend(b), "isa_f32", lw_bench_isa_f32(),
                                                 "isa_int8", lw_bench_isa_int8(), "threads",
                                                 lw_bench_threads(b), "operations")))
        return lw_fail(err, LW_E_NOMEM, "no memory for a measurement");
    if (!o->json) {
        lw_bench_print_about(report);
        printf("; %d thread%s; %s, %s, %s\n\n", lw_bench_threads(b),
               lw_bench_threads(b) == 1 ? "" : "s", lw_bench_backend(b), lw_bench_isa_f32(),
               lw_bench_isa_int8());
    }
    LW_TRY(measure(b, o, json_object_get(report, "operations"), err));
    if (o->json && (json_dumpf(report, stdout, JSON_INDENT(1)) || putchar('\n') == EOF))
        return lw_fail(err, LW_E_IO, "cannot write to standard output");
    return LW_OK;
}

lw_status lw_bench_ops_run(const lw_bench_ops *o, lw_err *err)
{
    json_t *report;
    lw_bench *b = NULL;
    lw_status s;

    LW_TRY(check_filter(o, err));
    LW_TRY(lw_bench_open((int)o->threads, &b, err));
    report = lw_bench_about("ops");
    s = run(b, o, report, err);
    json_decref(report);
    lw_bench_close(&b);
    return s;
}
