/* Options of the job verbs: from text to fields of a request. */

#include "orchestrate/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/utf8.h"

#define MAX_SIDE         16384
#define MAX_PROMPT_BYTES 32768 /* the wire's limit of the field */

/* The whole of `text` as a decimal number in [min, max]. */
static bool parse_u64(const char *text, size_t len, uint64_t max, uint64_t *ret)
{
    uint64_t v = 0;

    if (len == 0 || len > 20)
        return false;
    for (size_t i = 0; i < len; i++) {
        uint64_t digit = (uint64_t)(text[i] - '0');

        if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, digit, &v))
            return false;
    }
    *ret = v;
    return v <= max;
}

lw_status lw_parse_size(const char *text, int *ret_width, int *ret_height, lw_err *err)
{
    const char *x = strchr(text, 'x');
    uint64_t w, h;
    bool good;

    if (x)
        good = parse_u64(text, (size_t)(x - text), MAX_SIDE, &w) &&
               parse_u64(x + 1, strlen(x + 1), MAX_SIDE, &h);
    else
        good = parse_u64(text, strlen(text), MAX_SIDE, &w) && ((h = w), true);
    if (!good || w < 16 || h < 16)
        return lw_fail(err, LW_E_INVALID,
                       "--size: \"%s\" is not a size; write WIDTHxHEIGHT such as 1024x768, each 16 "
                       "to %d",
                       text, MAX_SIDE);
    if (w % 16 || h % 16) {
        uint64_t near_w = (w + 8) / 16 * 16, near_h = (h + 8) / 16 * 16;

        return lw_fail(
            err, LW_E_INVALID,
            "--size: %llux%llu is not a multiple of 16 on both sides; the nearest that is: "
            "%llux%llu",
            (unsigned long long)w, (unsigned long long)h, (unsigned long long)near_w,
            (unsigned long long)near_h);
    }
    *ret_width = (int)w;
    *ret_height = (int)h;
    return LW_OK;
}

lw_status lw_parse_seed(const char *text, uint64_t *ret, lw_err *err)
{
    uint32_t random;

    if (text && parse_u64(text, strlen(text), INT64_MAX, ret))
        return LW_OK;
    if (text)
        return lw_fail(err, LW_E_INVALID, "--seed: \"%s\" is not a number from 0 to 2^63 - 1",
                       text);
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return lw_fail(err, LW_E_IO, "the system gives no random numbers: %s", strerror(errno));
    *ret = random;
    return LW_OK;
}

static lw_role role_of_stage(const char *name, size_t len)
{
    static const struct {
        const char *name;
        lw_role role;
    } stages[] = { { "encoder", LW_ROLE_ENCODER },
                   { "dit", LW_ROLE_DENOISER },
                   { "vae", LW_ROLE_DECODER } };

    for (size_t i = 0; i < LW_ARRAY_LEN(stages); i++)
        if (strlen(stages[i].name) == len && !memcmp(stages[i].name, name, len))
            return stages[i].role;
    return LW_ROLE_NONE;
}

/* Take one "stage=value" or "value" off the list at *text; *ret_role NONE means all stages. */
static lw_status next_stage(const char *option, const char *whole, const char **text,
                            lw_role *ret_role, const char **ret_value, size_t *ret_len, lw_err *err)
{
    const char *item = *text;
    size_t len = strcspn(item, ",");
    const char *eq = memchr(item, '=', len);

    *text = item + len + (item[len] == ',');
    *ret_role = LW_ROLE_NONE;
    *ret_value = eq ? eq + 1 : item;
    *ret_len = eq ? len - (size_t)(eq + 1 - item) : len;
    if (eq)
        *ret_role = role_of_stage(item, (size_t)(eq - item));
    if (*ret_len == 0 || (eq && *ret_role == LW_ROLE_NONE) || (!eq && strchr(whole, ',')))
        return lw_fail(err, LW_E_INVALID,
                       "--%s: \"%s\" is neither one value nor a list such as \"dit=%s,encoder=%s\" "
                       "(stages: encoder, dit, vae)",
                       option, whole, !strcmp(option, "device") ? "cpu" : "2",
                       !strcmp(option, "device") ? "cpu" : "1");
    return LW_OK;
}

lw_status lw_parse_stage_ints(const char *option, const char *text, int min, int max,
                              int ret[LW_N_ROLES], lw_err *err)
{
    const char *rest = text;

    while (rest && *rest) {
        const char *value;
        uint64_t v = 0;
        lw_role role;
        size_t len;

        LW_TRY(next_stage(option, text, &rest, &role, &value, &len, err));
        if (!parse_u64(value, len, (uint64_t)max, &v) || v < (uint64_t)min)
            return lw_fail(err, LW_E_INVALID, "--%s: \"%.*s\" is not a number from %d to %d",
                           option, (int)len, value, min, max);
        for (int r = 0; r < LW_N_ROLES; r++)
            if (role == LW_ROLE_NONE || role == (lw_role)r)
                ret[r] = (int)v;
    }
    return LW_OK;
}

lw_status lw_parse_stage_words(const char *option, const char *text, lw_arena *a,
                               const char *ret[LW_N_ROLES], lw_err *err)
{
    const char *rest = text;

    while (rest && *rest) {
        const char *value;
        lw_role role;
        size_t len;
        char *copy;

        LW_TRY(next_stage(option, text, &rest, &role, &value, &len, err));
        copy = lw_arena_strndup(a, value, len, err);
        if (!copy)
            return LW_E_NOMEM;
        for (int r = 0; r < LW_N_ROLES; r++)
            if (role == LW_ROLE_NONE || role == (lw_role)r)
                ret[r] = copy;
    }
    return LW_OK;
}

/* The hub would refuse these too, but only after a private one has loaded gigabytes. */
static lw_status check_text(const char *what, const char *text, lw_err *err)
{
    const size_t n = text ? strlen(text) : 0;

    if (n > MAX_PROMPT_BYTES)
        return lw_fail(err, LW_E_TOO_LARGE, "%s is %zu bytes long; at most %d are taken", what, n,
                       MAX_PROMPT_BYTES);
    if (text && !lw_utf8_valid(text, n))
        return lw_fail(err, LW_E_INVALID, "%s is not valid UTF-8; what is the terminal's encoding?",
                       what);
    return LW_OK;
}

/* What is at its default stays out, and so out of the manifest. */
static void set_controls(const lw_settings *s, lw_msg *m)
{
    if (s->turns)
        lw_msg_set(m, messages, s->turns);
    if (s->long_prompt && strcmp(s->long_prompt, "truncate") != 0)
        lw_msg_set(m, long_prompt, s->long_prompt);
    if (s->weighting)
        lw_msg_set(m, weighting, true);
    if (s->keep && strcmp(s->keep, "all") != 0)
        lw_msg_set(m, keep, s->keep);
    if (s->blend) {
        lw_msg_set(m, blend_prompt, s->blend);
        lw_msg_set(m, blend_share, s->blend_share);
    }
    if (s->noise > 0) {
        lw_msg_set(m, noise, s->noise);
        lw_msg_set(m, noise_seed, s->noise_seed_value);
    }
}

lw_status lw_settings_prompt(const lw_settings *s, const char *prompt, lw_msg *m, lw_err *err)
{
    LW_TRY(check_text("the prompt", prompt, err));
    LW_TRY(check_text("--negative", s->negative, err));
    LW_TRY(check_text("--system", s->system, err));
    LW_TRY(check_text("--thinking", s->thinking, err));
    LW_TRY(check_text("--assistant", s->assistant, err));
    LW_TRY(check_text("--blend", s->blend, err));
    LW_TRY(check_text("the conversation of --messages, without its last turn,", s->turns, err));
    if (!s->resolved && (s->layers || s->messages || s->noise_seed || s->clean || s->strip_quotes))
        return lw_fail(err, LW_E_INTERNAL, "the settings were used before they were resolved");
    lw_msg_set(m, prompt, prompt);
    if (s->negative)
        lw_msg_set(m, negative_prompt, s->negative);
    if (s->system && s->system[0])
        lw_msg_set(m, system_prompt, s->system);
    if (s->thinking && s->thinking[0])
        lw_msg_set(m, thinking, s->thinking);
    if (s->assistant && s->assistant[0])
        lw_msg_set(m, assistant, s->assistant);
    if (s->think > 0)
        lw_msg_set(m, think_block, true);
    if (s->raw)
        lw_msg_set(m, raw, true);
    if (s->layer_blend.n)
        lw_msg_set(m, layer_blend, s->layer_blend);
    else
        lw_msg_set(m, layer, s->layer);
    lw_msg_set(m, max_tokens, (uint64_t)s->max_tokens);
    set_controls(s, m);
    return LW_OK;
}

bool lw_settings_noise_varies(const lw_settings *s)
{
    return s->noise > 0 && !s->noise_seed;
}

void lw_settings_sampling(const lw_settings *s, int width, int height, int steps, uint64_t seed,
                          lw_msg *m)
{
    lw_msg_set(m, width, (uint64_t)width);
    lw_msg_set(m, height, (uint64_t)height);
    lw_msg_set(m, steps, (uint64_t)steps);
    lw_msg_set(m, seed, seed);
    if (lw_settings_noise_varies(s) && lw_msg_has(m, noise))
        lw_msg_set(m, noise_seed, seed);
    lw_msg_set(m, n, (uint64_t)s->count);
    lw_msg_set(m, guidance, s->guidance);
    lw_msg_set(m, cfg_normalization, s->cfg_normalization);
    lw_msg_set(m, cfg_truncation, s->cfg_truncation);
    if (s->shift > 0)
        lw_msg_set(m, shift, s->shift);
}
