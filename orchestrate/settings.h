#ifndef LW_ORCHESTRATE_SETTINGS_H
#define LW_ORCHESTRATE_SETTINGS_H

#include "common/opt.h"
#include "proto/schema.h"

/*
 * The options of the verbs that run a job, in groups that each verb's table is put together from,
 * so that `--seed` is the same option in `generate` and in `denoise`; and what turns their text
 * into fields of a request.
 */

typedef struct lw_settings {
    /* prompt */
    const char *negative, *system, *thinking, *assistant;
    int think; /* below 0: not said */
    bool raw;
    int64_t layer, max_tokens;
    const char *messages, *prompts; /* files */
    bool strip_quotes, clean;
    const char *layers, *long_prompt, *noise_seed, *keep, *blend;
    bool weighting;
    double noise, blend_share;
    /* prompt: what lw_settings_resolve made of it */
    bool resolved;
    const char *turns; /* of --messages, as on the wire */
    lw_f64s layer_blend;
    uint64_t noise_seed_value;
    /* template */
    const char *template_name, *templates;
    lw_opt_list variables;
    /* sampling; guidance below 0: not said */
    const char *size, *seed;
    bool size_of_template; /* which a model that states its own overrules */
    int64_t steps, count;
    double guidance, cfg_normalization, cfg_truncation, shift;
    /* decoding */
    int64_t tile;
    /* result */
    const char *output, *preview;
    int64_t preview_every;
    bool json, quiet;
    /* where it runs */
    const char *model, *encoder, *dit, *vae, *tokenizer;
    const char *hub, *keys, *key_name;
    const char *device, *precision, *threads, *workers, *weights, *log_level;
    int64_t memory_mb, start_timeout;
    bool insecure_loopback;
    bool watch_memory; /* of a private hub's workers, for lw_run_memory */
} lw_settings;

#define LW_SET(m) offsetof(lw_settings, m)

/* A table reads better with one option a line. */
/* clang-format off */
#define LW_OPTS_PROMPT                                                                             \
    { .name = "negative", .kind = LW_OPT_STR, .offset = LW_SET(negative), .value = "TEXT",         \
      .help = "negative prompt (needs --guidance above 0)" },                                      \
    { .name = "system", .kind = LW_OPT_STR, .offset = LW_SET(system), .value = "TEXT",             \
      .help = "system prompt before the prompt" },                                                 \
    { .name = "thinking", .kind = LW_OPT_STR, .offset = LW_SET(thinking), .value = "TEXT",         \
      .help = "text inside the think block" },                                                     \
    { .name = "assistant", .kind = LW_OPT_STR, .offset = LW_SET(assistant), .value = "TEXT",       \
      .help = "start of the assistant's answer" },                                                 \
    { .name = "think", .kind = LW_OPT_SWITCH, .offset = LW_SET(think),                             \
      .help = "write a think block even when --thinking is empty" },                               \
    { .name = "raw", .kind = LW_OPT_FLAG, .offset = LW_SET(raw),                                   \
      .help = "the prompt is the whole formatted text" },                                          \
    { .name = "layer", .kind = LW_OPT_INT, .offset = LW_SET(layer), .dflt = "-2", .min = -1024,    \
      .max = 1024, .value = "N", .help = "which hidden state of the encoder" },                    \
    { .name = "max-tokens", .kind = LW_OPT_INT, .offset = LW_SET(max_tokens), .dflt = "512",       \
      .min = 1, .max = 65536, .value = "N", .help = "tokens after which the prompt is cut" },      \
    { .name = "messages", .kind = LW_OPT_STR, .offset = LW_SET(messages), .value = "FILE",         \
      .help = "a conversation (JSON); its last user turn is the prompt when none is given" },      \
    { .name = "strip-quotes", .kind = LW_OPT_FLAG, .offset = LW_SET(strip_quotes),                 \
      .help = "delete all double quotes from the texts" },                                         \
    { .name = "clean", .kind = LW_OPT_FLAG, .offset = LW_SET(clean),                               \
      .help = "trim the texts and shorten runs of white space" },                                  \
    { .name = "layers", .kind = LW_OPT_STR, .offset = LW_SET(layers), .value = "SPEC",             \
      .help = "weighted sum of hidden states instead of --layer: \"-2:0.7,-6:0.3\"" },             \
    { .name = "long-prompt", .kind = LW_OPT_CHOICE, .offset = LW_SET(long_prompt),                 \
      .dflt = "truncate", .choices = "truncate|interpolate|pool|attention_pool", .value = "HOW",   \
      .help = "what becomes of more than --max-tokens tokens" },                                   \
    { .name = "weighting", .kind = LW_OPT_FLAG, .offset = LW_SET(weighting),                       \
      .help = "read (words:1.3) in the prompt" },                                                  \
    { .name = "noise", .kind = LW_OPT_DOUBLE, .offset = LW_SET(noise), .min = 0, .max = 100,       \
      .value = "F", .help = "gaussian noise on the embedding, F times each row's deviation" },     \
    { .name = "noise-seed", .kind = LW_OPT_STR, .offset = LW_SET(noise_seed), .value = "S",        \
      .help = "seed of that noise (default: the picture's seed)" },                                \
    { .name = "keep", .kind = LW_OPT_CHOICE, .offset = LW_SET(keep), .dflt = "all",                \
      .choices = "all|prompt|no_system", .value = "ROWS",                                          \
      .help = "which rows of the embedding go on to the denoiser" },                               \
    { .name = "blend", .kind = LW_OPT_STR, .offset = LW_SET(blend), .value = "TEXT",               \
      .help = "a second prompt, mixed into the first" },                                           \
    { .name = "blend-share", .kind = LW_OPT_DOUBLE, .offset = LW_SET(blend_share), .dflt = "0.5",  \
      .min = 0, .max = 1, .value = "F", .help = "share of the second prompt" }

#define LW_OPTS_PROMPTS                                                                            \
    { .name = "prompts", .kind = LW_OPT_STR, .offset = LW_SET(prompts), .value = "FILE",           \
      .help = "prompts, one a line; blank lines and those with # in front are left out" }

#define LW_OPTS_TEMPLATE                                                                           \
    { .name = "template", .letter = 't', .kind = LW_OPT_STR, .offset = LW_SET(template_name),      \
      .value = "NAME", .help = "prompt template: a name, or a file (latentwire templates)" },      \
    { .name = "var", .kind = LW_OPT_LIST, .offset = LW_SET(variables), .value = "NAME=TEXT",       \
      .help = "value of a variable of the template" },                                             \
    { .name = "templates", .kind = LW_OPT_STR, .offset = LW_SET(templates), .value = "DIR",        \
      .help = "folder of templates (default: those of the project)" }

#define LW_OPTS_SAMPLING                                                                           \
    { .name = "size", .letter = 's', .kind = LW_OPT_STR, .offset = LW_SET(size), .value = "WxH",   \
      .help = "picture size, multiples of 16 (default: the model's, 1024x1024)" },                 \
    { .name = "steps", .kind = LW_OPT_INT, .offset = LW_SET(steps), .min = 1, .max = 256,          \
      .value = "N", .help = "denoising steps (default: the model's, 8)" },                         \
    { .name = "seed", .kind = LW_OPT_STR, .offset = LW_SET(seed), .value = "S",                    \
      .help = "seed of the first picture; picture i has seed S + i (default: random)" },           \
    { .name = "count", .letter = 'n', .kind = LW_OPT_INT, .offset = LW_SET(count), .dflt = "1",    \
      .min = 1, .max = 64, .value = "N", .help = "number of pictures" },                           \
    { .name = "guidance", .kind = LW_OPT_DOUBLE, .offset = LW_SET(guidance), .min = 0,             \
      .max = 1000, .value = "G",                                                                   \
      .help = "w in pos + w (pos - neg); 0 = off, as Z-Image-Turbo wants it (default: 0)" },       \
    { .name = "cfg-normalization", .kind = LW_OPT_DOUBLE, .offset = LW_SET(cfg_normalization),     \
      .dflt = "0", .min = 0, .max = 1000, .value = "C",                                            \
      .help = "limit of the guided norm as a multiple of the positive; 0 = off" },                 \
    { .name = "cfg-truncation", .kind = LW_OPT_DOUBLE, .offset = LW_SET(cfg_truncation),           \
      .dflt = "1", .min = 0, .max = 1000, .value = "T",                                            \
      .help = "no guidance at steps whose t = 1 - sigma is above this" },                          \
    { .name = "shift", .kind = LW_OPT_DOUBLE, .offset = LW_SET(shift), .min = 0, .max = 1000000,   \
      .value = "F", .help = "shift of the noise schedule (default: the model's, 3)" }

#define LW_OPTS_PREVIEW                                                                            \
    { .name = "preview", .kind = LW_OPT_STR, .offset = LW_SET(preview), .value = "FILE",           \
      .help = "write a small preview PNG here while denoising" },                                  \
    { .name = "preview-every", .kind = LW_OPT_INT, .offset = LW_SET(preview_every), .dflt = "1",   \
      .min = 1, .max = 256, .value = "N", .help = "steps between previews" }

#define LW_OPTS_TILE                                                                               \
    { .name = "tile", .kind = LW_OPT_INT, .offset = LW_SET(tile), .min = 0, .max = 65536,          \
      .value = "N", .help = "decode in tiles of N latent pixels; 0 = the worker decides" }

#define LW_OPTS_OUTPUT(what)                                                                       \
    { .name = "output", .letter = 'o', .kind = LW_OPT_STR, .offset = LW_SET(output),               \
      .value = "FILE", .help = what },                                                             \
    { .name = "json", .kind = LW_OPT_FLAG, .offset = LW_SET(json),                                 \
      .help = "print one JSON object instead of paths" },                                          \
    { .name = "quiet", .letter = 'q', .kind = LW_OPT_FLAG, .offset = LW_SET(quiet),                \
      .help = "no progress bar" }

#define LW_OPTS_MODEL                                                                              \
    { .name = "model", .letter = 'm', .kind = LW_OPT_STR, .offset = LW_SET(model),                 \
      .value = "DIR", .help = "model folder (Hugging Face layout; default: models/demo)" },        \
    { .name = "encoder", .kind = LW_OPT_STR, .offset = LW_SET(encoder), .value = "PATH",           \
      .help = "text encoder: a folder or a single file" },                                         \
    { .name = "dit", .kind = LW_OPT_STR, .offset = LW_SET(dit), .value = "PATH",                   \
      .help = "denoiser: a folder or a single file" },                                             \
    { .name = "vae", .kind = LW_OPT_STR, .offset = LW_SET(vae), .value = "PATH",                   \
      .help = "picture decoder: a folder or a single file" },                                      \
    { .name = "tokenizer", .kind = LW_OPT_STR, .offset = LW_SET(tokenizer), .value = "DIR",        \
      .help = "tokenizer folder (default: the model's own, else Qwen3's)" }

#define LW_OPTS_HUB                                                                                \
    { .name = "hub", .kind = LW_OPT_STR, .offset = LW_SET(hub), .value = "ENDPOINT",               \
      .help = "use this hub (default: one that runs here, else a private one)" },                  \
    { .name = "keys", .kind = LW_OPT_STR, .offset = LW_SET(keys), .value = "DIR",                  \
      .help = "CURVE keys for a tcp:// hub (latentwire keys)" },                                   \
    { .name = "key-name", .kind = LW_OPT_STR, .offset = LW_SET(key_name), .value = "NAME",         \
      .help = "which own key pair in --keys (default: client)" },                                  \
    { .name = "insecure-loopback", .kind = LW_OPT_FLAG, .offset = LW_SET(insecure_loopback),       \
      .help = "allow tcp://127.0.0.1 without keys" }

#define LW_OPTS_CLUSTER                                                                            \
    LW_OPTS_HUB,                                                                                   \
    { .name = "precision", .kind = LW_OPT_STR, .offset = LW_SET(precision), .value = "P",          \
      .help = "arithmetic of a private hub's workers: \"f32\", \"int8\", \"dit=int8,encoder=f32\"" }, \
    { .name = "workers", .kind = LW_OPT_STR, .offset = LW_SET(workers), .value = "N",              \
      .help = "how many of each: \"1\", \"dit=3\"" },                                              \
    LW_OPTS_WORKER

/* How each worker of a private hub is started. */
#define LW_OPTS_WORKER                                                                             \
    { .name = "device", .kind = LW_OPT_STR, .offset = LW_SET(device), .value = "D",                \
      .help = "device of a private hub's workers: \"cpu\", \"dit=cpu,encoder=cpu\"" },             \
    { .name = "threads", .kind = LW_OPT_STR, .offset = LW_SET(threads), .value = "N",              \
      .help = "threads of each: \"2\", \"dit=2,encoder=1\"; 0 = all cores" },                      \
    { .name = "weights", .kind = LW_OPT_CHOICE, .offset = LW_SET(weights), .dflt = "auto",         \
      .choices = "auto|stored|bf16", .value = "HOW",                                               \
      .help = "what matrices are kept as in memory" },                                             \
    { .name = "memory-mb", .kind = LW_OPT_INT, .offset = LW_SET(memory_mb), .min = 0,              \
      .max = 1 << 30, .value = "N",                                                                \
      .help = "a worker's memory for one request; 0 = it decides" },                               \
    { .name = "log-level", .kind = LW_OPT_CHOICE, .offset = LW_SET(log_level), .dflt = "info",     \
      .choices = "error|warn|info|debug", .value = "L", .help = "what a private hub logs" },       \
    { .name = "start-timeout", .kind = LW_OPT_INT, .offset = LW_SET(start_timeout),                \
      .dflt = "900", .min = 1, .max = 86400, .value = "S",                                         \
      .help = "seconds that a private hub may take to load the model" }
/* clang-format on */

/** "1024x768", or "512" for a square; multiples of 16, 16 to 16384. Errors: LW_E_INVALID. */
LW_MUST_USE lw_status lw_parse_size(const char *text, int *ret_width, int *ret_height, lw_err *err);

/** A decimal number below 2^63 (JSON and PyTorch agree on those), or NULL for a random one below
 * 2^32. Errors: LW_E_INVALID. */
LW_MUST_USE lw_status lw_parse_seed(const char *text, uint64_t *ret, lw_err *err);

/**
 * "3" for all stages or "dit=3,encoder=1" for some; stages not named keep what `ret` holds.
 * `option` is for the message. Errors: LW_E_INVALID.
 */
LW_MUST_USE lw_status lw_parse_stage_ints(const char *option, const char *text, int min, int max,
                                          int ret[LW_N_ROLES], lw_err *err);
/** The same for words. The words are copied into `a`. */
LW_MUST_USE lw_status lw_parse_stage_words(const char *option, const char *text, lw_arena *a,
                                           const char *ret[LW_N_ROLES], lw_err *err);

/** "-2:0.7,-6:0.3" as pairs layer, weight for the wire (1 when no weight is given); 1 to
 * LW_MAX_BLEND pairs. The numbers lie in `a`. Errors: LW_E_INVALID, LW_E_NOMEM. */
LW_MUST_USE lw_status lw_parse_layers(const char *text, lw_arena *a, lw_f64s *ret, lw_err *err);

/** Text of a prompt argument: itself, or standard input for "-". Lies in `a` or in argv. Errors:
 * LW_E_IO, LW_E_TOO_LARGE. */
LW_MUST_USE lw_status lw_read_prompt(const char *arg, lw_arena *a, const char **ret, lw_err *err);

/** The prompts of a file ("-": standard input), one a line, without blank lines and those that
 * begin with #; at least one. Lies in `a`. Errors: those of lw_file_read, LW_E_INVALID (none, or
 * a line that is not UTF-8 or has a zero byte), LW_E_TOO_LARGE (naming the line). */
LW_MUST_USE lw_status lw_read_prompts(const char *path, lw_arena *a, const char *const **ret,
                                      size_t *ret_n, lw_err *err);

/** --strip-quotes and --clean on a text; itself when neither is set. Lies in `a`, or is `text`.
 * NULL: no memory. */
const char *lw_settings_clean(const lw_settings *s, const char *text, lw_arena *a, lw_err *err);

/**
 * Read what the prompt group names and check what can be checked without a model: the conversation
 * of --messages, the prompt (`arg`, "-" for standard input, or NULL for the last turn of the
 * conversation), --layers, --noise-seed; and clean the texts, if asked for, in place. Call it once,
 * after the template was applied and before lw_settings_prompt. With several prompts it is called
 * with one of them as `arg`, and lw_settings_clean does the others. Errors: LW_E_INVALID, those of
 * lw_read_prompt and lw_file_read.
 */
LW_MUST_USE lw_status lw_settings_resolve(lw_settings *s, const char *arg, lw_arena *a,
                                          const char **ret_prompt, lw_err *err);

/** Put the prompt group into a request. Strings are borrowed. Errors: LW_E_INVALID (not UTF-8),
 * LW_E_TOO_LARGE. */
LW_MUST_USE lw_status lw_settings_prompt(const lw_settings *s, const char *prompt, lw_msg *m,
                                         lw_err *err);
/** True when each picture has an embedding of its own, because noise has the picture's seed; then a
 * job makes one picture. */
bool lw_settings_noise_varies(const lw_settings *s);
/** Put the sampling group into a request, with size, steps and seed already resolved. The seed is
 * also the noise's unless --noise-seed says another. */
void lw_settings_sampling(const lw_settings *s, int width, int height, int steps, uint64_t seed,
                          lw_msg *m);

#endif
