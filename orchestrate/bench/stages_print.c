/* The measurement of the stages as tables. */

#include <math.h>
#include <stdio.h>

#include "orchestrate/bench/bench.h"

#define MIB 1048576.0

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : "";
}

static void print_size(const lw_md_column *c, const json_t *run, const json_t *size)
{
    static const char *const keys[] = { "encode_ms",       "denoise_first_step_ms",
                                        "denoise_step_ms", "denoise_ms",
                                        "decode_ms",       "picture_ms" };
    char size_text[64];

    snprintf(size_text, sizeof(size_text), "%.0fx%.0f", number(size, "width"),
             number(size, "height"));
    lw_md_text(c++, text(run, "precision"));
    lw_md_text(c++, size_text);
    lw_md_whole(c++, number(size, "steps"));
    lw_md_whole(c++, number(size, "n_tokens"));
    for (size_t i = 0; i < LW_ARRAY_LEN(keys); i++)
        lw_md_number(c++, number(size, keys[i]));
    lw_md_end();
}

static void print_times(const json_t *runs)
{
    static const lw_md_column columns[] = {
        { "asked for", -4 }, { "size", -9 },          { "steps", 0 },      { "tokens", 0 },
        { "encode, ms", 0 }, { "first step, ms", 0 }, { "a step, ms", 0 }, { "all steps, ms", 0 },
        { "decode, ms", 0 }, { "picture, ms", 0 },
    };
    const json_t *run, *size;
    size_t i, k;

    lw_md_head(columns, LW_ARRAY_LEN(columns));
    json_array_foreach(runs, i, run)
    {
        json_array_foreach(json_object_get(run, "sizes"), k, size)
        {
            print_size(columns, run, size);
        }
    }
}

static void print_service(const lw_md_column *c, const json_t *run, const json_t *service)
{
    static const char *const names[] = { "service", "model_id", "precision", "backend" };
    static const struct {
        const char *key;
        double unit;
    } numbers[] = { { "weights_bytes", MIB },       { "start_to_ready_ms", 1 },
                    { "first_result_ms", 1 },       { "start_to_first_ms", 1 },
                    { "peak_resident_bytes", MIB }, { "peak_own_bytes", MIB } };

    lw_md_text(c++, text(run, "precision"));
    for (size_t i = 0; i < LW_ARRAY_LEN(names); i++)
        lw_md_text(c++, text(service, names[i]));
    lw_md_whole(c++, number(service, "threads"));
    for (size_t i = 0; i < LW_ARRAY_LEN(numbers); i++)
        lw_md_number(c++, number(service, numbers[i].key) / numbers[i].unit);
    lw_md_end();
}

static void print_services(const json_t *runs)
{
    static const lw_md_column columns[] = {
        { "asked for", -4 },         { "service", -11 },          { "model", -6 },
        { "computes in", -4 },       { "back end", -29 },         { "threads", 0 },
        { "weights, MiB", 0 },       { "ready, ms", 0 },          { "first result, ms", 0 },
        { "start to first, ms", 0 }, { "peak resident, MiB", 0 }, { "of it own, MiB", 0 },
    };
    const json_t *run, *service;
    size_t i, k;

    lw_md_head(columns, LW_ARRAY_LEN(columns));
    json_array_foreach(runs, i, run)
    {
        json_array_foreach(json_object_get(run, "services"), k, service)
        {
            print_service(columns, run, service);
        }
    }
}

void lw_bench_stages_print(const json_t *report)
{
    const json_t *runs = json_object_get(report, "runs");

    lw_bench_print_about(report);
    printf("; medians of %.0f pictures; hub: %s\n\n", number(report, "repeat"),
           text(json_array_get(runs, 0), "hub"));
    print_times(runs);
    putchar('\n');
    print_services(runs);
}
