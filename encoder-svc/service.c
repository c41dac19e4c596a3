/*
 * The encoder service: a request is checked, its text formatted and tokenized, memory planned, and
 * the model run. The network is in qwen3.c, the text in chat.c and tokenizer.c.
 */

#include "encoder-svc/service.h"

#include <inttypes.h>
#include <stdlib.h>

#include <sodium.h>

#include "common/backend.h"
#include "common/linears.h"
#include "common/log.h"
#include "common/model.h"

#include "encoder-svc/chat.h"
#include "encoder-svc/files.h"
#include "encoder-svc/qwen3.h"
#include "encoder-svc/tokenizer.h"

#define MAX_TEXT_BYTES (256u * 1024) /* four fields of 32 KiB and the template around them */
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

/* What a task asks for, with defaults filled in. */
typedef struct request {
    lw_chat_prompt prompt;
    bool raw;
    int64_t state; /* hidden state, counted from 0 */
    size_t max_tokens;
} request;

static lw_status read_request(const encoder *s, const lw_msg *m, request *r, lw_err *err)
{
    const int64_t n_layers = lw_qwen3_get_config(s->model)->n_layers;
    const int64_t layer = lw_msg_get(m, layer, LW_ENCODER_DEFAULT_LAYER);
    const uint64_t max_tokens = lw_msg_get(m, max_tokens, LW_ENCODER_DEFAULT_TOKENS);

    if (!lw_msg_has(m, prompt))
        return lw_fail(err, LW_E_INVALID, "prompt: the request has none");
    if (layer < -(n_layers + 1) || layer > n_layers)
        return lw_fail(err, LW_E_INVALID,
                       "layer %" PRId64 ": this model has hidden states 0 to %" PRId64
                       " (or -%" PRId64 " to -1)",
                       layer, n_layers, n_layers + 1);
    if (max_tokens < 1 || max_tokens > LW_ENCODER_MAX_TOKENS)
        return lw_fail(err, LW_E_INVALID, "max_tokens %" PRIu64 ": expected 1 to %d", max_tokens,
                       LW_ENCODER_MAX_TOKENS);
    r->state = layer < 0 ? layer + n_layers + 1 : layer;
    r->max_tokens = (size_t)max_tokens;
    r->raw = lw_msg_get(m, raw, false);
    r->prompt = (lw_chat_prompt){ .prompt = m->prompt,
                                  .system_prompt = lw_msg_get(m, system_prompt, ""),
                                  .thinking = lw_msg_get(m, thinking, ""),
                                  .assistant = lw_msg_get(m, assistant, ""),
                                  .think_block = lw_msg_get(m, think_block, false) };
    if (r->raw && (*r->prompt.system_prompt || *r->prompt.thinking || *r->prompt.assistant ||
                   r->prompt.think_block))
        return lw_fail(
            err, LW_E_INVALID,
            "raw: the prompt is the whole text, so system_prompt, thinking, assistant and "
            "think_block must be left out");
    return LW_OK;
}

/* Ids of the formatted text before any cut, and the text's digest (64 hex digits). */
static lw_status tokenize(const encoder *s, const request *r, lw_arena *a, lw_token_ids *ret,
                          char **ret_digest, lw_err *err)
{
    uint8_t hash[32];
    lw_status st;
    lw_buf text;

    lw_buf_init(&text, MAX_TEXT_BYTES);
    if (r->raw)
        lw_buf_puts(&text, r->prompt.prompt);
    else
        lw_chat_format(&r->prompt, &text);
    *ret_digest = lw_arena_alloc(a, 2 * sizeof hash + 1, err);
    if (!*ret_digest) {
        st = LW_E_NOMEM;
    } else if (text.failed) {
        st = lw_fail(err, LW_E_TOO_LARGE, "the formatted prompt has more than %u bytes",
                     MAX_TEXT_BYTES);
    } else {
        crypto_generichash(hash, sizeof hash, (const uint8_t *)lw_buf_cstr(&text), text.len, NULL,
                           0);
        sodium_bin2hex(*ret_digest, 2 * sizeof hash + 1, hash, sizeof hash);
        st = lw_tokenizer_encode(s->tokenizer, lw_buf_cstr(&text), text.len, a, ret, err);
        if (st == LW_E_INVALID)
            (void)lw_err_prefix(err, st, "the formatted prompt");
    }
    lw_buf_deinit(&text);
    return st;
}

/* Before any work: the rows must fit into a message, and the activations into the budget. */
static lw_status check_size(const encoder *s, size_t n, lw_err *err)
{
    const size_t result = n * (size_t)lw_qwen3_get_config(s->model)->d_model * sizeof(float);
    const size_t need = result + lw_qwen3_scratch_bytes(s->model, (int64_t)n);
    const size_t budget = lw_backend_budget(&s->backend);

    if (result > LW_MAX_FRAME_BYTES)
        return lw_fail(
            err, LW_E_TOO_LARGE,
            "%zu tokens make %.1f MiB of embeddings, and a message carries at most %.1f; "
            "lower max_tokens",
            n, (double)result / MIB, (double)LW_MAX_FRAME_BYTES / MIB);
    if (need > budget)
        return lw_fail(
            err, LW_E_TOO_LARGE,
            "encoding %zu tokens needs %.1f MiB, and the budget of a request is %.1f MiB; "
            "raise --memory-mb or lower max_tokens",
            n, (double)need / MIB, (double)budget / MIB);
    return LW_OK;
}

static bool before_layer(void *arg, int64_t layer, int64_t n_layers)
{
    lw_task *t = arg;

    /* The first call says that work has begun; each later one that it moves. */
    lw_task_progress(t, (uint64_t)layer, (uint64_t)n_layers, 0);
    return !lw_task_cancelled(t);
}

static lw_status handle(void *self, lw_task *t, lw_err *err)
{
    encoder *s = self;
    const int64_t D = lw_qwen3_get_config(s->model)->d_model;
    request r;
    lw_token_ids ids;
    lw_tensor embeds, tokens;
    char *digest;
    bool truncated;

    LW_TRY(read_request(s, t->msg, &r, err));
    LW_TRY(tokenize(s, &r, t->arena, &ids, &digest, err));
    if (ids.n == 0)
        return lw_fail(err, LW_E_INVALID, "prompt: a raw prompt must not be empty");
    truncated = ids.n > r.max_tokens;
    ids.n = truncated ? r.max_tokens : ids.n;
    LW_TRY(check_size(s, ids.n, err));

    LW_TRY(
        lw_tensor_alloc(t->arena, LW_F32, 2, (const int64_t[]){ (int64_t)ids.n, D }, &embeds, err));
    LW_TRY(lw_qwen3_forward(s->model, ids.ids, (int64_t)ids.n, r.state, before_layer, t, &embeds,
                            err));
    tokens = lw_tensor_1d(ids.ids, LW_I32, (int64_t)ids.n);
    LW_TRY(lw_msg_tensor_add(t->result, LW_T_PROMPT_EMBEDS, &embeds, NULL, err));
    LW_TRY(lw_msg_tensor_add(t->result, LW_T_TOKEN_IDS, &tokens, NULL, err));
    lw_msg_set(t->result, n_tokens, ids.n);
    lw_msg_set(t->result, truncated, truncated);
    lw_msg_set(t->result, text_digest, digest);
    return LW_OK;
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
