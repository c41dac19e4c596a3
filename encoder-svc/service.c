/*
 * The encoder service: a request is checked, its text formatted and tokenized, memory planned, the
 * model run, and its rows worked on as the request says. The network is in qwen3.c, the text in
 * chat.c, messages.c, weighting.c and tokenizer.c, what is done to rows in controls.c.
 */

#include "encoder-svc/service.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "common/backend.h"
#include "common/linears.h"
#include "common/log.h"
#include "common/model.h"

#include "encoder-svc/chat.h"
#include "encoder-svc/controls.h"
#include "encoder-svc/files.h"
#include "encoder-svc/messages.h"
#include "encoder-svc/qwen3.h"
#include "encoder-svc/tokenizer.h"
#include "encoder-svc/weighting.h"

#define MAX_TEXT_BYTES (256u * 1024) /* five fields of 32 KiB and the template around them */
#define CUT_TEXT_BYTES 120           /* of the text that is cut, for a message */
#define MIB            1048576.0

typedef struct encoder {
    lw_backend backend;
    lw_qwen3 *model;
    lw_tokenizer *tokenizer;
    char model_id[256], digest[65];
} encoder;

/* ---- load, info, unload ---------------------------------------------------------------------- */

static void unload(void *self)
{
    encoder *s = self;

    if (!s)
        return;
    lw_tokenizer_destroy(&s->tokenizer);
    lw_qwen3_destroy(&s->model);
    lw_backend_close(&s->backend);
    free(s);
}

/* Ids must lie in the embedding table, and the chat format needs its two tokens. */
static lw_status check_fit(const encoder *s, const lw_encoder_files *files, lw_err *err)
{
    static const char *const needed[] = { "<|im_start|>", "<|im_end|>" };
    const int64_t vocab = lw_qwen3_get_config(s->model)->vocab;

    for (size_t i = 0; i < LW_ARRAY_LEN(needed); i++)
        if (lw_tokenizer_added_id(s->tokenizer, needed[i]) < 0)
            return lw_fail(err, LW_E_PRECONDITION,
                           "%s: no added token %s; expected a tokenizer of Qwen3", files->tokenizer,
                           needed[i]);
    if (lw_tokenizer_n_ids(s->tokenizer) > vocab)
        return lw_fail(err, LW_E_PRECONDITION,
                       "the tokenizer %s has %" PRId32 " ids, but %s embeds only %" PRId64
                       "; name the tokenizer of this model with --tokenizer",
                       files->tokenizer, lw_tokenizer_n_ids(s->tokenizer), files->weights, vocab);
    return LW_OK;
}

static lw_status load_parts(encoder *s, const lw_service_config *c, lw_err *err)
{
    lw_encoder_files files;
    lw_keep keep;

    LW_TRY(lw_keep_parse(c->weights, &keep, err));
    LW_TRY(lw_encoder_find(c->model, c->tokenizer, &files, err));
    LW_TRY(lw_tokenizer_load(files.tokenizer, &s->tokenizer, err));
    LW_TRY(lw_backend_open(&s->backend, c->device, c->precision, c->threads, c->memory_mb, err));
    LW_TRY(lw_qwen3_load(files.weights, keep, &s->backend.k, &s->model, err));
    LW_TRY(check_fit(s, &files, err));
    lw_model_id(c->model, s->model_id, sizeof s->model_id);
    return lw_qwen3_digest(s->model, s->digest, err);
}

static lw_status load(const lw_service_config *c, void **ret_self, lw_err *err)
{
    encoder *s = calloc(1, sizeof *s);
    lw_status st;

    if (!s)
        return lw_fail(err, LW_E_NOMEM, "no memory for the service");
    st = load_parts(s, c, err);
    if (st != LW_OK) {
        unload(s);
        return st;
    }
    *ret_self = s;
    return LW_OK;
}

/* Every tenth of the way. */
static void converted(size_t done, size_t total)
{
    if (done * 10 / total == (done - 1) * 10 / total)
        return;
    lw_log(LW_INFO, "converting", LW_KV_INT("tensor", done), LW_KV_INT("of", total));
}

static lw_status convert(const lw_service_config *c, lw_err *err)
{
    lw_encoder_files files;
    lw_backend b;
    lw_status s;

    LW_TRY(lw_encoder_find(c->model, c->tokenizer, &files, err));
    LW_TRY(lw_backend_open(&b, c->device, "int8", c->threads, c->memory_mb, err));
    s = lw_convert(files.weights, c->convert, lw_qwen3_bulk_parts, b.pool, converted, err);
    lw_backend_close(&b);
    return s;
}

static void info(void *self, lw_contract *ret)
{
    const encoder *s = self;
    const lw_qwen3_config *c = lw_qwen3_get_config(s->model);

    lw_contract_set(ret, model_id, s->model_id);
    lw_contract_set(ret, weights_digest, s->digest);
    lw_contract_set(ret, backend, s->backend.k.name);
    lw_contract_set(ret, precision,
                    lw_qwen3_is_int8(s->model)      ? "int8"
                    : lw_qwen3_is_rounded(s->model) ? "f32, bf16 weights"
                                                    : "f32");
    lw_contract_set(ret, dim, (uint64_t)c->d_model);
    lw_contract_set(ret, blocks, (uint64_t)(c->n_layers + 1 + LW_ENCODER_DEFAULT_LAYER));
    lw_contract_set(ret, normed, false);
    lw_contract_set(ret, scale, "raw");
    lw_contract_set(ret, tokenizer_digest, lw_tokenizer_digest(s->tokenizer));
    lw_contract_set(ret, max_tokens, LW_ENCODER_DEFAULT_TOKENS);
}

/* ---- a request ------------------------------------------------------------------------------- */

typedef enum keep_rows { KEEP_ALL, KEEP_PROMPT, KEEP_NO_SYSTEM } keep_rows;
static const char *const keep_names[] = { "all", "prompt", "no_system" };

/* What a task asks for, with defaults filled in. */
typedef struct request {
    lw_chat_prompt prompt; /* as it was given, with markup */
    const char *blend;     /* second prompt, or NULL */
    double blend_share;
    bool raw, weighting;
    int64_t states[LW_MAX_BLEND]; /* hidden states, counted from 0 */
    double weights[LW_MAX_BLEND]; /* of them; sum 1 */
    int n_states;
    size_t max_tokens;
    lw_reduction reduction;
    keep_rows keep;
    double noise;
    uint64_t noise_seed;
} request;

static lw_status find_state(const encoder *s, const char *field, int64_t layer, int64_t *ret,
                            lw_err *err)
{
    const int64_t n_layers = lw_qwen3_get_config(s->model)->n_layers;

    if (layer < -(n_layers + 1) || layer > n_layers)
        return lw_fail(err, LW_E_INVALID,
                       "%s %" PRId64 ": this model has hidden states 0 to %" PRId64 " (or -%" PRId64
                       " to -1)",
                       field, layer, n_layers, n_layers + 1);
    *ret = layer < 0 ? layer + n_layers + 1 : layer;
    return LW_OK;
}

/* One state, or a list of pairs layer, weight; weights are divided by their sum. */
static lw_status read_layers(const encoder *s, const lw_msg *m, request *r, lw_err *err)
{
    const lw_f64s list = lw_msg_get(m, layer_blend, ((lw_f64s){ 0 }));
    double sum = 0;

    r->n_states = 1;
    r->weights[0] = 1;
    if (!lw_msg_has(m, layer_blend))
        return find_state(s, "layer", lw_msg_get(m, layer, LW_ENCODER_DEFAULT_LAYER), &r->states[0],
                          err);
    if (lw_msg_has(m, layer))
        return lw_fail(err, LW_E_INVALID, "layer and layer_blend exclude each other");
    if (list.n < 2 || list.n % 2 || list.n > 2 * LW_MAX_BLEND)
        return lw_fail(err, LW_E_INVALID,
                       "layer_blend has %" PRIu32 " numbers; expected 1 to %d pairs of layer and "
                       "weight",
                       list.n, LW_MAX_BLEND);
    r->n_states = (int)(list.n / 2);
    for (int i = 0; i < r->n_states; i++) {
        const double layer = list.v[2 * i];

        if (layer != floor(layer) || fabs(layer) > 1024)
            return lw_fail(err, LW_E_INVALID, "layer_blend: %g is not the number of a layer",
                           layer);
        LW_TRY(find_state(s, "layer_blend", (int64_t)layer, &r->states[i], err));
        r->weights[i] = list.v[2 * i + 1];
        sum += r->weights[i];
    }
    if (!(fabs(sum) >= 1e-6))
        return lw_fail(err, LW_E_INVALID,
                       "layer_blend: the weights add up to %g; they are divided by their sum, "
                       "which must not be 0",
                       sum);
    for (int i = 0; i < r->n_states; i++)
        r->weights[i] /= sum;
    return LW_OK;
}

static lw_status read_controls(const lw_msg *m, request *r, lw_err *err)
{
    const char *how = lw_msg_get(m, long_prompt, lw_reduction_name(LW_REDUCE_NONE));
    const char *keep = lw_msg_get(m, keep, keep_names[KEEP_ALL]);
    const int reduction = lw_reduction_from_name(how);
    size_t k = 0;

    if (reduction < 0)
        return lw_fail(err, LW_E_INVALID,
                       "long_prompt is \"%.32s\"; expected truncate, interpolate, pool or "
                       "attention_pool",
                       how);
    while (k < LW_ARRAY_LEN(keep_names) && strcmp(keep, keep_names[k]) != 0)
        k++;
    if (k == LW_ARRAY_LEN(keep_names))
        return lw_fail(err, LW_E_INVALID, "keep is \"%.32s\"; expected all, prompt or no_system",
                       keep);
    r->reduction = (lw_reduction)reduction;
    r->keep = (keep_rows)k;
    r->weighting = lw_msg_get(m, weighting, false);
    r->noise = lw_msg_get(m, noise, 0);
    r->noise_seed = lw_msg_get(m, noise_seed, lw_msg_get(m, seed, 0));
    r->blend = lw_msg_get(m, blend_prompt, NULL);
    r->blend_share = lw_msg_get(m, blend_share, 0.5);
    if (r->noise < 0)
        return lw_fail(err, LW_E_INVALID, "noise is %g; it must not be negative", r->noise);
    if (lw_msg_has(m, blend_share) && !r->blend)
        return lw_fail(err, LW_E_INVALID, "blend_share needs a blend_prompt");
    if (r->blend_share < 0)
        return lw_fail(err, LW_E_INVALID, "blend_share is %g; expected 0 to 1", r->blend_share);
    if (r->raw && r->keep != KEEP_ALL)
        return lw_fail(err, LW_E_INVALID,
                       "keep: a raw prompt is the whole text, so nothing in it can be told from "
                       "the prompt");
    return LW_OK;
}

static lw_status read_turns(const lw_msg *m, request *r, lw_arena *a, lw_err *err)
{
    lw_chat_message *turns = NULL;

    if (!lw_msg_has(m, messages))
        return LW_OK;
    LW_TRY(lw_messages_parse(m->messages, a, &turns, &r->prompt.n_turns, err));
    r->prompt.turns = turns;
    for (size_t i = 0; i < r->prompt.n_turns && *r->prompt.system_prompt; i++)
        if (!strcmp(turns[i].role, "system"))
            return lw_fail(err, LW_E_INVALID,
                           "messages[%zu] is a system message, and there is a system_prompt too; "
                           "leave one of them out",
                           i);
    return LW_OK;
}

static lw_status read_request(const encoder *s, const lw_msg *m, lw_arena *a, request *r,
                              lw_err *err)
{
    const uint64_t max_tokens = lw_msg_get(m, max_tokens, LW_ENCODER_DEFAULT_TOKENS);

    *r = (request){ 0 };
    if (!lw_msg_has(m, prompt))
        return lw_fail(err, LW_E_INVALID, "prompt: the request has none");
    LW_TRY(read_layers(s, m, r, err));
    if (max_tokens < 1 || max_tokens > LW_ENCODER_MAX_TOKENS)
        return lw_fail(err, LW_E_INVALID, "max_tokens %" PRIu64 ": expected 1 to %d", max_tokens,
                       LW_ENCODER_MAX_TOKENS);
    r->max_tokens = (size_t)max_tokens;
    r->raw = lw_msg_get(m, raw, false);
    r->prompt = (lw_chat_prompt){ .prompt = m->prompt,
                                  .system_prompt = lw_msg_get(m, system_prompt, ""),
                                  .thinking = lw_msg_get(m, thinking, ""),
                                  .assistant = lw_msg_get(m, assistant, ""),
                                  .think_block = lw_msg_get(m, think_block, false) };
    LW_TRY(read_turns(m, r, a, err));
    if (r->raw && (*r->prompt.system_prompt || *r->prompt.thinking || *r->prompt.assistant ||
                   r->prompt.think_block || r->prompt.n_turns))
        return lw_fail(
            err, LW_E_INVALID,
            "raw: the prompt is the whole text, so system_prompt, messages, thinking, assistant "
            "and think_block must be left out");
    return read_controls(m, r, err);
}

/* ---- text and tokens ------------------------------------------------------------------------- */

/* One formatted text. */
typedef struct tokens {
    const char *text;
    size_t n_text;
    lw_chat_spans at;
    lw_token_ids all; /* before any cut */
    float *weights;   /* [all.n]; NULL: no weighting */
    char digest[65];  /* of the text */
    size_t n;         /* tokens that the network sees: those before the cut */
} tokens;

/* A token's weight is that of its first character that is no white space, because most tokens bring
 * along the blank before their word. */
static float weight_of(const tokens *x, const lw_weighted_text *w, size_t i)
{
    const size_t end = x->all.begins[i + 1];
    size_t at = x->all.begins[i];

    while (at + 1 < end && strchr(" \t\r\n", x->text[at]))
        at++;
    return at >= x->at.content && at < x->at.content_end ? w->weights[at - x->at.content] : 1;
}

static lw_status weigh_tokens(tokens *x, const lw_weighted_text *w, lw_arena *a, lw_err *err)
{
    x->weights = lw_arena_alloc(a, (x->all.n + 1) * sizeof(*x->weights), err);
    if (!x->weights)
        return LW_E_NOMEM;
    for (size_t i = 0; i < x->all.n; i++)
        x->weights[i] = weight_of(x, w, i);
    return LW_OK;
}

/* Format into the arena. */
static lw_status format(const request *r, const char *prompt, lw_arena *a, tokens *x, lw_err *err)
{
    lw_chat_prompt whole = r->prompt;
    lw_status st = LW_OK;
    lw_buf text;

    whole.prompt = prompt;
    lw_buf_init(&text, MAX_TEXT_BYTES);
    if (r->raw) {
        lw_buf_puts(&text, prompt);
        x->at = (lw_chat_spans){ .content_end = text.len };
    } else {
        lw_chat_format(&whole, &text, &x->at);
    }
    x->n_text = text.len;
    x->text = text.failed ? NULL : lw_arena_strndup(a, lw_buf_cstr(&text), text.len, err);
    if (text.failed)
        st = lw_fail(err, LW_E_TOO_LARGE, "the formatted prompt has more than %u bytes",
                     MAX_TEXT_BYTES);
    else if (!x->text)
        st = LW_E_NOMEM;
    lw_buf_deinit(&text);
    return st;
}

/* A prompt formatted and cut into tokens, with the text's digest (64 hex digits). */
static lw_status tokenize(const encoder *s, const request *r, const char *prompt, lw_arena *a,
                          tokens *x, lw_err *err)
{
    lw_weighted_text plain = { .text = prompt };
    uint8_t hash[32];
    lw_status st;

    *x = (tokens){ 0 };
    if (r->weighting)
        LW_TRY(lw_weighting_parse(prompt, a, &plain, err));
    LW_TRY(format(r, plain.text, a, x, err));
    crypto_generichash(hash, sizeof hash, (const uint8_t *)x->text, x->n_text, NULL, 0);
    sodium_bin2hex(x->digest, sizeof x->digest, hash, sizeof hash);
    st = lw_tokenizer_encode(s->tokenizer, x->text, x->n_text, a, &x->all, err);
    if (st == LW_E_INVALID)
        (void)lw_err_prefix(err, st, "the formatted prompt");
    LW_TRY(st);
    if (x->all.n == 0)
        return lw_fail(err, LW_E_INVALID, "prompt: a raw prompt must not be empty");
    x->n = x->all.n;
    if (r->reduction == LW_REDUCE_NONE && x->n > r->max_tokens)
        x->n = r->max_tokens;
    if (r->reduction != LW_REDUCE_NONE && x->n > LW_ENCODER_MAX_TOKENS)
        return lw_fail(err, LW_E_TOO_LARGE,
                       "the formatted prompt has %zu tokens; long_prompt \"%s\" takes at most %d, "
                       "and only truncate takes more",
                       x->n, lw_reduction_name(r->reduction), LW_ENCODER_MAX_TOKENS);
    return r->weighting ? weigh_tokens(x, &plain, a, err) : LW_OK;
}

/* Whether `keep` lets the row of token i go on. */
static bool is_kept(const request *r, const tokens *x, size_t i)
{
    const size_t at = x->all.begins[i];

    return r->keep == KEEP_ALL || (r->keep == KEEP_NO_SYSTEM && at >= x->at.turn) ||
           (r->keep == KEEP_PROMPT && at >= x->at.content && at < x->at.content_end);
}

/* The beginning of the text from which it was cut, in whole characters. */
static lw_status set_cut_text(const tokens *x, lw_task *t, lw_err *err)
{
    size_t begin = x->all.begins[x->n], end;
    char *copy;

    while (begin < x->n_text && (x->text[begin] & 0xc0) == 0x80)
        begin++;
    end = x->n_text - begin > CUT_TEXT_BYTES ? begin + CUT_TEXT_BYTES : x->n_text;
    while (end < x->n_text && end > begin && (x->text[end] & 0xc0) == 0x80)
        end--;
    copy = lw_arena_strndup(t->arena, x->text + begin, end - begin, err);
    if (!copy)
        return LW_E_NOMEM;
    lw_msg_set(t->result, cut_text, copy);
    return LW_OK;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* One prompt's rows after weighting, keep and reduction. */
typedef struct rows {
    lw_tensor t; /* [n, D] f32 */
    double loss; /* of the reduction; 0 when there was none */
    bool reduced;
} rows;

/* Progress over one or two passes. */
typedef struct watch {
    lw_task *task;
    uint64_t pass, n_passes;
} watch;

static bool before_layer(void *arg, int64_t layer, int64_t n_layers)
{
    const watch *w = arg;

    /* The first call says that work has begun; each later one that it moves. */
    lw_task_progress(w->task, w->pass * (uint64_t)n_layers + (uint64_t)layer,
                     w->n_passes * (uint64_t)n_layers, 0);
    return !lw_task_cancelled(w->task);
}

/* Before any work: the rows must fit into a message, and the activations into the budget. */
static lw_status check_size(const encoder *s, const request *r, size_t n, lw_err *err)
{
    const size_t row = (size_t)lw_qwen3_get_config(s->model)->d_model * sizeof(float);
    const size_t n_out = n < r->max_tokens ? n : r->max_tokens;
    /* Each state, and behind them a copy for the sum, for kept rows, or noise. */
    const size_t copies = (size_t)r->n_states + (r->n_states > 1) + (r->keep != KEEP_ALL) +
                          (r->noise > 0) + (r->blend != NULL) + (n > n_out);
    const size_t need = copies * n * row + lw_qwen3_scratch_bytes(s->model, (int64_t)n);
    const size_t budget = lw_backend_budget(&s->backend);

    if (n_out * row > LW_MAX_FRAME_BYTES)
        return lw_fail(
            err, LW_E_TOO_LARGE,
            "%zu tokens make %.1f MiB of embeddings, and a message carries at most %.1f; "
            "lower max_tokens",
            n_out, (double)(n_out * row) / MIB, (double)LW_MAX_FRAME_BYTES / MIB);
    if (need > budget)
        return lw_fail(
            err, LW_E_TOO_LARGE,
            "encoding %zu tokens needs %.1f MiB, and the budget of a request is %.1f MiB; "
            "raise --memory-mb or lower max_tokens",
            n, (double)need / MIB, (double)budget / MIB);
    return LW_OK;
}

static lw_status new_rows(lw_arena *a, size_t n, int64_t d, lw_tensor *ret, lw_err *err)
{
    return lw_tensor_alloc(a, LW_F32, 2, (const int64_t[]){ (int64_t)n, d }, ret, err);
}

/* The wanted hidden states in one pass, added up. */
static lw_status run_network(encoder *s, const request *r, const tokens *x, watch *w,
                             lw_tensor *ret, lw_err *err)
{
    const int64_t D = lw_qwen3_get_config(s->model)->d_model;
    lw_tensor states[LW_MAX_BLEND];
    const float *data[LW_MAX_BLEND];

    for (int i = 0; i < r->n_states; i++) {
        LW_TRY(new_rows(w->task->arena, x->n, D, &states[i], err));
        data[i] = lw_f32(&states[i]);
    }
    LW_TRY(lw_qwen3_forward_states(s->model, x->all.ids, (int64_t)x->n, r->states, r->n_states,
                                   before_layer, w, states, err));
    w->pass++;
    *ret = states[0];
    if (r->n_states == 1)
        return LW_OK;
    LW_TRY(new_rows(w->task->arena, x->n, D, ret, err));
    lw_rows_sum(lw_f32(ret), data, r->weights, r->n_states, x->n * (size_t)D);
    return LW_OK;
}

/* Move the rows that are kept to the front. */
static lw_status keep_some(const request *r, const tokens *x, lw_tensor *t, lw_err *err)
{
    const int64_t D = t->shape[1];
    int64_t n = 0;

    for (size_t i = 0; i < x->n; i++)
        if (is_kept(r, x, i))
            memmove(lw_f32(t) + D * n++, lw_f32(t) + D * (int64_t)i, (size_t)D * sizeof(float));
    if (n == 0)
        return lw_fail(err, LW_E_INVALID,
                       "keep: no row of the %zu tokens is left (is the prompt empty, or was it "
                       "cut off?)",
                       x->n);
    *t = lw_tensor_2d(t->data, LW_F32, n, D);
    return LW_OK;
}

static lw_status reduce(const request *r, lw_arena *a, rows *x, lw_err *err)
{
    const int64_t n = x->t.shape[0], D = x->t.shape[1];
    double *scratch = lw_arena_alloc(a, (size_t)D * sizeof(*scratch), err);
    lw_tensor out;

    if (!scratch)
        return LW_E_NOMEM;
    LW_TRY(new_rows(a, r->max_tokens, D, &out, err));
    LW_TRY(lw_rows_resample(lw_f32(&out), out.shape[0], lw_f32(&x->t), n, D, r->reduction, a, err));
    x->loss = lw_rows_loss(lw_f32(&x->t), n, lw_f32(&out), out.shape[0], D, scratch);
    x->reduced = true;
    x->t = out;
    return LW_OK;
}

/* Network, weighting, keep, reduction: docs/numerics.md, "What reaches the denoiser". */
static lw_status make_rows(encoder *s, const request *r, const tokens *x, watch *w, rows *ret,
                           lw_err *err)
{
    lw_arena *a = w->task->arena;
    double *scratch;

    *ret = (rows){ 0 };
    LW_TRY(run_network(s, r, x, w, &ret->t, err));
    if (x->weights) {
        scratch = lw_arena_alloc(a, (size_t)ret->t.shape[1] * sizeof(*scratch), err);
        if (!scratch)
            return LW_E_NOMEM;
        lw_rows_weigh(lw_f32(&ret->t), ret->t.shape[0], ret->t.shape[1], x->weights, scratch);
    }
    if (r->keep != KEEP_ALL)
        LW_TRY(keep_some(r, x, &ret->t, err));
    return ret->t.shape[0] > (int64_t)r->max_tokens ? reduce(r, a, ret, err) : LW_OK;
}

static lw_status blend(encoder *s, const request *r, const tokens *second, watch *w, rows *first,
                       lw_err *err)
{
    lw_tensor *t = &first->t, like;
    rows other;

    LW_TRY(make_rows(s, r, second, w, &other, err));
    LW_TRY(new_rows(w->task->arena, (size_t)t->shape[0], t->shape[1], &like, err));
    LW_TRY(lw_rows_resample(lw_f32(&like), t->shape[0], lw_f32(&other.t), other.t.shape[0],
                            t->shape[1], LW_REDUCE_INTERPOLATE, w->task->arena, err));
    lw_rows_blend(lw_f32(t), lw_f32(&like), r->blend_share, (size_t)(t->shape[0] * t->shape[1]));
    return LW_OK;
}

/* ---- answers --------------------------------------------------------------------------------- */

static lw_status describe(const request *r, const tokens *x, lw_task *t, lw_err *err)
{
    char *digest = lw_arena_strndup(t->arena, x->digest, 64, err);

    if (!digest)
        return LW_E_NOMEM;
    lw_msg_set(t->result, truncated, r->reduction == LW_REDUCE_NONE && x->all.n > r->max_tokens);
    lw_msg_set(t->result, text_digest, digest);
    lw_msg_set(t->result, n_text_tokens, x->all.n);
    return t->result->truncated && x->all.n > r->max_tokens ? set_cut_text(x, t, err) : LW_OK;
}

static lw_status encode(encoder *s, const request *r, lw_task *t, lw_err *err)
{
    watch w = { .task = t, .n_passes = r->blend ? 2 : 1 };
    tokens first, second = { 0 };
    lw_tensor ids;
    rows out;

    LW_TRY(tokenize(s, r, r->prompt.prompt, t->arena, &first, err));
    if (r->blend) {
        lw_status st = tokenize(s, r, r->blend, t->arena, &second, err);

        if (st != LW_OK)
            return lw_err_prefix(err, st, "blend_prompt");
    }
    LW_TRY(check_size(s, r, first.n > second.n ? first.n : second.n, err));
    LW_TRY(make_rows(s, r, &first, &w, &out, err));
    if (r->blend)
        LW_TRY(blend(s, r, &second, &w, &out, err));
    LW_TRY(lw_rows_noise(lw_f32(&out.t), out.t.shape[0], out.t.shape[1], r->noise, r->noise_seed,
                         t->arena, err));
    if (!lw_tensor_all_finite(&out.t))
        return lw_fail(err, LW_E_INVALID,
                       "the rows are beyond what f32 holds; use smaller weights or less noise");
    ids = lw_tensor_1d(first.all.ids, LW_I32, (int64_t)first.n);
    LW_TRY(lw_msg_tensor_add(t->result, LW_T_PROMPT_EMBEDS, &out.t, NULL, err));
    LW_TRY(lw_msg_tensor_add(t->result, LW_T_TOKEN_IDS, &ids, NULL, err));
    lw_msg_set(t->result, n_tokens, first.n);
    if ((size_t)out.t.shape[0] != first.n)
        lw_msg_set(t->result, n_rows, (uint64_t)out.t.shape[0]);
    if (out.reduced)
        lw_msg_set(t->result, row_loss, out.loss);
    return describe(r, &first, t, err);
}

static lw_status add_1d(lw_task *t, const char *name, void *data, lw_dtype dtype, size_t n,
                        lw_err *err)
{
    const lw_tensor x = lw_tensor_1d(data, dtype, (int64_t)n);

    return lw_msg_tensor_add(t->result, name, &x, NULL, err);
}

/* The text and all its tokens; no network runs. */
static lw_status show_tokens(const encoder *s, const request *r, lw_task *t, lw_err *err)
{
    int32_t *lengths;
    uint8_t *kept;
    tokens x;

    LW_TRY(tokenize(s, r, r->prompt.prompt, t->arena, &x, err));
    lengths = lw_arena_alloc(t->arena, x.all.n * sizeof(*lengths), err);
    kept = lw_arena_alloc(t->arena, x.all.n, err);
    if (!lengths || !kept)
        return LW_E_NOMEM;
    for (size_t i = 0; i < x.all.n; i++) {
        lengths[i] = (int32_t)(x.all.begins[i + 1] - x.all.begins[i]);
        kept[i] = is_kept(r, &x, i);
    }
    LW_TRY(add_1d(t, LW_T_TOKEN_IDS, x.all.ids, LW_I32, x.all.n, err));
    LW_TRY(add_1d(t, LW_T_TOKEN_BYTES, lengths, LW_I32, x.all.n, err));
    LW_TRY(add_1d(t, LW_T_TEXT, (void *)(uintptr_t)x.text, LW_U8, x.n_text, err));
    if (x.weights)
        LW_TRY(add_1d(t, LW_T_TOKEN_WEIGHTS, x.weights, LW_F32, x.all.n, err));
    if (r->keep != KEEP_ALL)
        LW_TRY(add_1d(t, LW_T_TOKEN_KEPT, kept, LW_U8, x.all.n, err));
    lw_msg_set(t->result, n_tokens, x.all.n);
    return describe(r, &x, t, err);
}

static lw_status handle(void *self, lw_task *t, lw_err *err)
{
    encoder *s = self;
    request r;

    LW_TRY(read_request(s, t->msg, t->arena, &r, err));
    return lw_msg_get(t->msg, op, LW_OP_ENCODE) == LW_OP_TOKENIZE ? show_tokens(s, &r, t, err)
                                                                  : encode(s, &r, t, err);
}

const lw_service lw_encoder_service = {
    .role = LW_ROLE_ENCODER,
    .program = "encoder-svc",
    .about = "Turns prompts into embeddings with a Qwen3 text encoder.",
    .load = load,
    .convert = convert,
    .info = info,
    .handle = handle,
    .unload = unload,
};
