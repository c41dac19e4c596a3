#ifndef LW_PROTO_SCHEMA_H
#define LW_PROTO_SCHEMA_H

#include "common/tensor.h"

/*
 * Wire protocol, version 1: the messages and their fields. One message = one header frame (a
 * msgpack map with string keys) and up to LW_MAX_TENSORS tensor frames. The structs below are
 * generated from the same tables that the codec walks, so what is documented, encoded and decoded
 * cannot differ. docs/protocol.md is the page for people.
 */

#define LW_WIRE_MAJOR        1
#define LW_WIRE_MINOR_MIN    0
#define LW_WIRE_MINOR_MAX    0
#define LW_MAX_HEADER_BYTES  (64u * 1024)
#define LW_MAX_HEADER_DEPTH  8
#define LW_MAX_HEADER_ITEMS  1024
#define LW_MAX_TENSORS       16
#define LW_MAX_TENSOR_NAME   48
#define LW_MAX_FRAME_BYTES   (64u * 1024 * 1024)
#define LW_MAX_MESSAGE_BYTES (128u * 1024 * 1024)
#define LW_INLINE_BYTES      256 /* a tensor below this may travel as ext type 3 in the header */
#define LW_EXT_TENSOR        3
#define LW_MAX_SIGMAS        257
#define LW_MAX_BLEND         8 /* hidden states of a layer_blend */

/* X(symbol, wire name, direction for the docs) */
#define LW_MSG_TABLE(X)                                                                            \
    X(HELLO, "hello", "worker>hub, client>hub")                                                    \
    X(WELCOME, "welcome", "hub>worker, hub>client")                                                \
    X(CREDIT, "credit", "worker>hub")                                                              \
    X(HEARTBEAT, "heartbeat", "both ways")                                                         \
    X(DRAIN, "drain", "hub>worker")                                                                \
    X(BYE, "bye", "worker>hub, client>hub, hub>both")                                              \
    X(TASK, "task", "hub>worker")                                                                  \
    X(PROGRESS, "progress", "worker>hub>client")                                                   \
    X(PREVIEW, "preview", "worker>hub>client")                                                     \
    X(RESULT, "result", "worker>hub, hub>client")                                                  \
    X(ERROR, "error", "any")                                                                       \
    X(CANCEL, "cancel", "client>hub, hub>worker")                                                  \
    X(CANCELLED, "cancelled", "worker>hub, hub>client")                                            \
    X(SUBMIT, "submit", "client>hub")                                                              \
    X(ACCEPTED, "accepted", "hub>client")                                                          \
    X(STATUS, "status", "client>hub, hub>client")

typedef enum lw_msg_type {
    LW_MSG_NONE = 0,
#define LW_MSG_ENUM(sym, wire, dir) LW_MSG_##sym,
    LW_MSG_TABLE(LW_MSG_ENUM)
#undef LW_MSG_ENUM
        LW_N_MSG_TYPES
} lw_msg_type;

/** What a peer is. */
#define LW_ROLE_TABLE(X)                                                                           \
    X(ENCODER, "encoder") X(DENOISER, "denoiser") X(DECODER, "decoder") X(CLIENT, "client")
typedef enum lw_role {
    LW_ROLE_NONE = 0,
#define LW_ROLE_ENUM(sym, wire) LW_ROLE_##sym,
    LW_ROLE_TABLE(LW_ROLE_ENUM)
#undef LW_ROLE_ENUM
        LW_N_ROLES
} lw_role;

/** What a task asks of a worker. encode and tokenize: encoder; denoise: denoiser; decode and
 * encode_image: decoder. */
#define LW_OP_TABLE(X)                                                                             \
    X(ENCODE, "encode")                                                                            \
    X(DENOISE, "denoise")                                                                          \
    X(DECODE, "decode")                                                                            \
    X(ENCODE_IMAGE, "encode_image")                                                                \
    X(TOKENIZE, "tokenize")
typedef enum lw_op {
    LW_OP_NONE = 0,
#define LW_OP_ENUM(sym, wire) LW_OP_##sym,
    LW_OP_TABLE(LW_OP_ENUM)
#undef LW_OP_ENUM
        LW_N_OPS
} lw_op;

/** Where a job enters (`from`) and leaves (`to`) the pipeline. token_ids is a way out only, from
 * prompt: the text and its tokens, without running a network. */
#define LW_ARTEFACT_TABLE(X)                                                                       \
    X(PROMPT, "prompt")                                                                            \
    X(EMBEDS, "prompt_embeds")                                                                     \
    X(LATENTS, "latents")                                                                          \
    X(IMAGE, "image")                                                                              \
    X(TOKEN_IDS, "token_ids")
typedef enum lw_artefact {
    LW_ARTEFACT_NONE = 0,
#define LW_ARTEFACT_ENUM(sym, wire) LW_ARTEFACT_##sym,
    LW_ARTEFACT_TABLE(LW_ARTEFACT_ENUM)
#undef LW_ARTEFACT_ENUM
        LW_N_ARTEFACTS
} lw_artefact;

/* Tensor names on the wire. */
#define LW_T_PROMPT_EMBEDS   "prompt_embeds"          /* [tokens, dim] float */
#define LW_T_NEGATIVE_EMBEDS "negative_prompt_embeds" /* [tokens, dim] float */
#define LW_T_TOKEN_IDS       "token_ids"              /* [tokens] int32 */
#define LW_T_TEXT            "text"                   /* [bytes] uint8: the formatted prompt */
#define LW_T_TOKEN_BYTES     "token_bytes"            /* [tokens] int32: its bytes of that text */
#define LW_T_TOKEN_WEIGHTS   "token_weights"          /* [tokens] float: prompt weighting */
#define LW_T_TOKEN_KEPT      "token_kept"             /* [tokens] uint8: 1 = `keep` keeps it */
#define LW_T_LATENTS         "latents"                /* [n, 16, H/8, W/8] float, diffusion space */
#define LW_T_IMAGE           "image"                  /* [n, H, W, 3] uint8 */
#define LW_T_PREVIEW         "preview"                /* [h, w, 3] uint8 */

/*
 * Field kinds: U unsigned integer, I signed integer, F float64, B bool, S string (UTF-8, no NUL),
 * ID 16 bytes (bin), FS array of float64, ROLE/OP/ART/STATUS enumerations by wire name, CONTRACT
 * and STAGES nested maps.
 *
 * X(kind, member and wire key, largest value or length, meaning)
 */
#define LW_CONTRACT_FIELDS(X)                                                                      \
    X(S, model_id, 256, "name of the model folder or file")                                        \
    X(S, weights_digest, 64, "fingerprint of the weights, hex")                                    \
    X(S, backend, 128, "what computes: \"onednn 2.6.3\", \"ref\"")                                 \
    X(S, precision, 32, "arithmetic: \"f32\"")                                                     \
    X(U, dim, 65536, "encoder: width of an embedding row")                                         \
    X(U, blocks, 1024, "encoder: transformer blocks that make the default output")                 \
    X(B, normed, 1, "encoder: the final norm was applied")                                         \
    X(S, scale, 16, "encoder: \"raw\" or \"unit-rms\"")                                            \
    X(S, tokenizer_digest, 64, "encoder: fingerprint of vocabulary and merges, hex")               \
    X(U, max_tokens, 65536,                                                                        \
      "encoder: rows after which a prompt is cut; denoiser: most rows taken")                      \
    X(U, cap_dim, 65536, "denoiser: width of the rows it takes")                                   \
    X(U, latent_channels, 4096, "denoiser, decoder")                                               \
    X(U, patch, 64, "denoiser: latent pixels on a side of a token")                                \
    X(F, shift, 1e6, "denoiser: the scheduler's shift")                                            \
    X(U, width, 65536, "denoiser: of a picture whose request does not say it")                     \
    X(U, height, 65536, "denoiser: the same")                                                      \
    X(U, steps, 256, "denoiser: the same")                                                         \
    X(U, downscale, 1024, "decoder: picture pixels per latent pixel")                              \
    X(F, scaling_factor, 1e6, "decoder")                                                           \
    X(F, shift_factor, 1e6, "decoder")

/** Who did a stage of a job, for the manifest. */
#define LW_STAGE_FIELDS(X)                                                                         \
    X(S, model_id, 256, "as in the worker's contract")                                             \
    X(S, weights_digest, 64, "as in the worker's contract")                                        \
    X(S, backend, 128, "as in the worker's contract")                                              \
    X(S, precision, 32, "as in the worker's contract")                                             \
    X(S, worker, 64, "the worker's name")                                                          \
    X(F, t_ms, 1e15, "time in the worker")                                                         \
    X(B, cached, 1, "taken from the hub's embedding cache")

#define LW_MSG_FIELDS(X)                                                                           \
    /* session */                                                                                  \
    X(U, minor_min, 65535, "lowest minor version spoken")                                          \
    X(U, minor_max, 65535, "highest minor version spoken")                                         \
    X(U, minor, 65535, "minor version chosen by the hub")                                          \
    X(ROLE, role, 0, "what the sender is")                                                         \
    X(ID, instance, 16, "random id of this process, new at every start")                           \
    X(S, name, 64, "name for logs: host:role:pid")                                                 \
    X(S, build, 64, "program and version")                                                         \
    X(U, slots, 64, "tasks a worker holds at once")                                                \
    X(U, epoch, UINT64_MAX, "generation of the session, given by the hub; echoed in CREDIT")       \
    X(U, hb_ms, 3600000, "heartbeat interval")                                                     \
    X(U, hb_misses, 1000, "silent intervals after which a peer is dead")                           \
    X(U, max_frame_bytes, UINT64_MAX, "limit of one frame")                                        \
    X(U, max_message_bytes, UINT64_MAX, "limit of one message")                                    \
    X(CONTRACT, contract, 0, "what a worker is; to a client: unused")                              \
    X(U, credits, 64, "tasks the worker can take now, absolute")                                   \
    X(S, state, 16, "\"idle\", \"busy\", \"draining\"")                                            \
    X(ID, in_flight, 16, "task being worked on")                                                   \
    X(U, step_age_ms, UINT64_MAX,                                                                  \
      "time since the task showed life: progress, or asking for cancel")                           \
    X(U, rss_bytes, UINT64_MAX, "resident memory of the worker")                                   \
    X(S, reason, 256, "why: DRAIN, BYE, CANCEL")                                                   \
    /* work */                                                                                     \
    X(OP, op, 0, "what a TASK asks; the stage of PROGRESS, PREVIEW, ERROR, CANCELLED")             \
    X(ART, from, 0, "where a job enters")                                                          \
    X(ART, to, 0, "where a job leaves")                                                            \
    X(U, attempt, 1000, "0 at first, +1 at each retry")                                            \
    X(S, prompt, 32768, "user text")                                                               \
    X(S, negative_prompt, 32768, "text for the negative branch; absent = empty")                   \
    X(S, system_prompt, 32768, "system block before the user's")                                   \
    X(S, thinking, 32768, "text inside the think block")                                           \
    X(S, assistant, 32768, "start of the assistant's answer")                                      \
    X(B, think_block, 1, "write a think block even when `thinking` is empty")                      \
    X(B, raw, 1, "the prompt is the whole formatted text")                                         \
    X(I, layer, 1024, "which hidden state; negative counts from the last; absent = -2")            \
    X(U, max_tokens, 65536, "cut the formatted prompt to so many tokens; absent = 512")            \
    X(S, messages, 32768, "earlier turns of the conversation: a JSON array of messages")           \
    X(FS, layer_blend, 2 * LW_MAX_BLEND, "weighted sum of hidden states: layer, weight, layer...") \
    X(S, long_prompt, 16, "beyond max_tokens: truncate, interpolate, pool or attention_pool")      \
    X(B, weighting, 1, "read (words:1.3) in the prompt")                                           \
    X(F, noise, 100, "noise on the rows, a multiple of each row's rms deviation; 0 = none")        \
    X(U, noise_seed, UINT64_MAX, "seed of that noise; absent = the request's seed")                \
    X(S, keep, 16, "rows that go on: all, prompt or no_system")                                    \
    X(S, blend_prompt, 32768, "second user text, mixed into the rows of the first")                \
    X(F, blend_share, 1, "share of the second text, 0 to 1; absent = 0.5")                         \
    X(U, width, 65536, "picture width in pixels, multiple of 16")                                  \
    X(U, height, 65536, "picture height in pixels, multiple of 16")                                \
    X(U, steps, 256, "network evaluations of the positive branch")                                 \
    X(U, seed, UINT64_MAX, "seed of the first picture; picture i has seed + i")                    \
    X(U, n, 64, "number of pictures")                                                              \
    X(F, guidance, 1000, "w in pos + w (pos - neg); 0 = off")                                      \
    X(F, cfg_normalization, 1000,                                                                  \
      "limit of the guided norm as a multiple of the positive; 0 = off")                           \
    X(F, cfg_truncation, 1000, "no guidance at steps with t above this; absent = 1")               \
    X(F, shift, 1e6, "overrides the scheduler's shift")                                            \
    X(U, preview_every, 256, "steps between previews; 0 = none")                                   \
    X(U, checkpoint_every, 256, "steps between latents handed to the hub; 0 = none")               \
    X(U, start_step, 256, "resume: `latents` are the state before this step")                      \
    X(U, tile, 65536, "decoder: tile side in latent pixels; 0 = the worker decides")               \
    /* answers */                                                                                  \
    X(U, step, 65536, "steps done")                                                                \
    X(U, total, 65536, "steps in all")                                                             \
    X(U, picture, 64, "which picture of the job, from 0")                                          \
    X(F, sigma, 1e6, "noise level after the step")                                                 \
    X(F, t_ms, 1e15, "time spent")                                                                 \
    X(U, queue_pos, UINT64_MAX, "jobs ahead")                                                      \
    X(U, n_tokens, 65536, "tokens encoded")                                                        \
    X(B, truncated, 1, "the prompt was cut to max_tokens")                                         \
    X(S, text_digest, 64, "BLAKE2b-256 of the formatted prompt, hex")                              \
    X(U, n_text_tokens, 1 << 20, "tokens of the formatted prompt before anything was cut")         \
    X(U, n_rows, 65536, "rows that go on, when they are not n_tokens")                             \
    X(F, row_loss, 1, "share of the rows' variance that a reduction of long prompts lost")         \
    X(S, cut_text, 160, "the text from which the prompt was cut, its beginning")                   \
    X(FS, sigmas, LW_MAX_SIGMAS, "noise levels used, steps + 1 values")                            \
    X(STAGES, stages, 0, "op -> who did it")                                                       \
    X(STATUS, code, 0, "error code by name")                                                       \
    X(B, retryable, 1, "another try may succeed")                                                  \
    X(S, message, 1024, "error text for people")                                                   \
    X(S, worker, 64, "name of the worker concerned")                                               \
    X(S, report, 60000, "STATUS: the cluster's state as JSON")

/*
 * Which fields belong to which type. X(type, need, field): R = required, a message without it is
 * refused; O = optional. Fields that a type does not list are read and have no meaning in it.
 * LW_MSG_NEEDS_ID lists the types that concern one task or job and therefore carry `id`.
 */
#define LW_MSG_NEEDS_ID(X)                                                                         \
    X(TASK) X(PROGRESS) X(PREVIEW) X(RESULT) X(CANCEL) X(CANCELLED) X(SUBMIT) X(ACCEPTED)

/* What a picture is made from; the same in SUBMIT (client to hub) and TASK (hub to worker). */
#define LW_REQUEST_LAYOUT(X, type)                                                                 \
    X(type, O, prompt)                                                                             \
    X(type, O, negative_prompt)                                                                    \
    X(type, O, system_prompt)                                                                      \
    X(type, O, thinking)                                                                           \
    X(type, O, assistant)                                                                          \
    X(type, O, think_block)                                                                        \
    X(type, O, raw)                                                                                \
    X(type, O, layer)                                                                              \
    X(type, O, max_tokens)                                                                         \
    X(type, O, messages)                                                                           \
    X(type, O, layer_blend)                                                                        \
    X(type, O, long_prompt)                                                                        \
    X(type, O, weighting)                                                                          \
    X(type, O, noise)                                                                              \
    X(type, O, noise_seed)                                                                         \
    X(type, O, keep)                                                                               \
    X(type, O, blend_prompt)                                                                       \
    X(type, O, blend_share)                                                                        \
    X(type, O, width)                                                                              \
    X(type, O, height)                                                                             \
    X(type, O, steps)                                                                              \
    X(type, O, seed)                                                                               \
    X(type, O, n)                                                                                  \
    X(type, O, guidance)                                                                           \
    X(type, O, cfg_normalization)                                                                  \
    X(type, O, cfg_truncation)                                                                     \
    X(type, O, shift)                                                                              \
    X(type, O, sigmas)                                                                             \
    X(type, O, preview_every)                                                                      \
    X(type, O, checkpoint_every)                                                                   \
    X(type, O, start_step)                                                                         \
    X(type, O, tile)

#define LW_MSG_LAYOUT(X)                                                                           \
    X(HELLO, R, minor_min)                                                                         \
    X(HELLO, R, minor_max)                                                                         \
    X(HELLO, R, role)                                                                              \
    X(HELLO, R, instance)                                                                          \
    X(HELLO, O, name)                                                                              \
    X(HELLO, O, build)                                                                             \
    X(HELLO, O, slots)                                                                             \
    X(HELLO, O, max_frame_bytes)                                                                   \
    X(HELLO, O, max_message_bytes)                                                                 \
    X(HELLO, O, contract)                                                                          \
    X(WELCOME, R, minor)                                                                           \
    X(WELCOME, R, epoch)                                                                           \
    X(WELCOME, R, hb_ms)                                                                           \
    X(WELCOME, R, hb_misses)                                                                       \
    X(WELCOME, O, name)                                                                            \
    X(WELCOME, O, build)                                                                           \
    X(WELCOME, O, max_frame_bytes)                                                                 \
    X(WELCOME, O, max_message_bytes)                                                               \
    X(CREDIT, R, epoch)                                                                            \
    X(CREDIT, R, credits)                                                                          \
    X(HEARTBEAT, O, epoch)                                                                         \
    X(HEARTBEAT, O, credits)                                                                       \
    X(HEARTBEAT, O, state)                                                                         \
    X(HEARTBEAT, O, in_flight)                                                                     \
    X(HEARTBEAT, O, step)                                                                          \
    X(HEARTBEAT, O, step_age_ms)                                                                   \
    X(HEARTBEAT, O, rss_bytes)                                                                     \
    X(DRAIN, O, reason)                                                                            \
    X(BYE, O, reason)                                                                              \
    X(TASK, R, op)                                                                                 \
    X(TASK, O, attempt)                                                                            \
    LW_REQUEST_LAYOUT(X, TASK)                                                                     \
    X(PROGRESS, O, op)                                                                             \
    X(PROGRESS, O, attempt)                                                                        \
    X(PROGRESS, O, start_step)                                                                     \
    X(PROGRESS, O, step)                                                                           \
    X(PROGRESS, O, total)                                                                          \
    X(PROGRESS, O, picture)                                                                        \
    X(PROGRESS, O, sigma)                                                                          \
    X(PROGRESS, O, t_ms)                                                                           \
    X(PROGRESS, O, queue_pos)                                                                      \
    X(PROGRESS, O, worker)                                                                         \
    X(PREVIEW, O, op)                                                                              \
    X(PREVIEW, O, attempt)                                                                         \
    X(PREVIEW, O, step)                                                                            \
    X(PREVIEW, O, total)                                                                           \
    X(PREVIEW, O, picture)                                                                         \
    X(RESULT, O, op)                                                                               \
    X(RESULT, O, to)                                                                               \
    X(RESULT, O, attempt)                                                                          \
    X(RESULT, O, width)                                                                            \
    X(RESULT, O, height)                                                                           \
    X(RESULT, O, steps)                                                                            \
    X(RESULT, O, seed)                                                                             \
    X(RESULT, O, n)                                                                                \
    X(RESULT, O, guidance)                                                                         \
    X(RESULT, O, shift)                                                                            \
    X(RESULT, O, t_ms)                                                                             \
    X(RESULT, O, n_tokens)                                                                         \
    X(RESULT, O, truncated)                                                                        \
    X(RESULT, O, text_digest)                                                                      \
    X(RESULT, O, n_text_tokens)                                                                    \
    X(RESULT, O, n_rows)                                                                           \
    X(RESULT, O, row_loss)                                                                         \
    X(RESULT, O, cut_text)                                                                         \
    X(RESULT, O, sigmas)                                                                           \
    X(RESULT, O, stages)                                                                           \
    X(RESULT, O, worker)                                                                           \
    X(ERROR, R, code)                                                                              \
    X(ERROR, R, message)                                                                           \
    X(ERROR, O, retryable)                                                                         \
    X(ERROR, O, op)                                                                                \
    X(ERROR, O, attempt)                                                                           \
    X(ERROR, O, worker)                                                                            \
    X(CANCEL, O, reason)                                                                           \
    X(CANCELLED, O, op)                                                                            \
    X(CANCELLED, O, attempt)                                                                       \
    X(CANCELLED, O, step)                                                                          \
    X(CANCELLED, O, worker)                                                                        \
    X(CANCELLED, O, reason)                                                                        \
    X(SUBMIT, R, from)                                                                             \
    X(SUBMIT, R, to)                                                                               \
    LW_REQUEST_LAYOUT(X, SUBMIT)                                                                   \
    X(ACCEPTED, O, queue_pos)                                                                      \
    X(ACCEPTED, O, seed)                                                                           \
    X(STATUS, O, report)

typedef struct lw_f64s {
    const double *v;
    uint32_t n;
} lw_f64s;

#define LW_C_U(m)                           uint64_t m;
#define LW_C_I(m)                           int64_t m;
#define LW_C_F(m)                           double m;
#define LW_C_B(m)                           bool m;
#define LW_C_S(m)                           const char *m;
#define LW_C_ID(m)                          uint8_t m[16];
#define LW_C_FS(m)                          lw_f64s m;
#define LW_C_ROLE(m)                        lw_role m;
#define LW_C_OP(m)                          lw_op m;
#define LW_C_ART(m)                         lw_artefact m;
#define LW_C_STATUS(m)                      lw_status m;
#define LW_MEMBER(kind, m, max, doc)        LW_C_##kind(m)
#define LW_FIELD_INDEX_C(kind, m, max, doc) LW_CF_##m,
#define LW_FIELD_INDEX_S(kind, m, max, doc) LW_SF_##m,
#define LW_FIELD_INDEX_M(kind, m, max, doc) LW_F_##m,

enum { LW_CONTRACT_FIELDS(LW_FIELD_INDEX_C) LW_N_CONTRACT_FIELDS };
enum { LW_STAGE_FIELDS(LW_FIELD_INDEX_S) LW_N_STAGE_FIELDS };
typedef enum lw_field { LW_MSG_FIELDS(LW_FIELD_INDEX_M) LW_N_FIELDS } lw_field;

/** `has` holds one bit a field: 1 << LW_CF_<member>. Strings belong to whoever filled the struct.
 */
typedef struct lw_contract {
    uint64_t has;
    LW_CONTRACT_FIELDS(LW_MEMBER)
} lw_contract;

typedef struct lw_stage_info {
    uint64_t has; /* 1 << LW_SF_<member>; 0 = this stage did not run */
    LW_STAGE_FIELDS(LW_MEMBER)
} lw_stage_info;

typedef struct lw_stages {
    lw_stage_info by_op[LW_N_OPS];
} lw_stages;
#define LW_C_CONTRACT(m) lw_contract m;
#define LW_C_STAGES(m)   lw_stages m;

typedef struct lw_frame lw_frame; /* proto/packet.h */

/**
 * A named tensor of a message. After decoding, `t.data` points into the frame (or the header) and
 * may be unaligned; `frame` is a borrowed reference, NULL for an inline tensor. For sending: when
 * `frame` is set its bytes are sent by reference (t gives dtype and shape), else t's data
 * (contiguous) is copied.
 */
typedef struct lw_msg_tensor {
    char name[LW_MAX_TENSOR_NAME];
    lw_tensor t;
    lw_frame *frame;
} lw_msg_tensor;

/** One message. Zero it, set type and fields with lw_msg_set, add tensors, encode. */
typedef struct lw_msg {
    lw_msg_type type;
    bool has_id;
    uint8_t id[16];  /* of the task or job; session messages have none */
    uint64_t has[2]; /* one bit a field, by lw_field */
    LW_MSG_FIELDS(LW_MEMBER)
    int n_tensors;
    lw_msg_tensor tensors[LW_MAX_TENSORS];
} lw_msg;

_Static_assert(LW_N_FIELDS <= 128, "lw_msg.has holds 128 fields");

#define lw_msg_has(msg, m) (((msg)->has[LW_F_##m / 64] >> (LW_F_##m % 64)) & 1)
#define lw_msg_set(msg, m, v)                                                                      \
    ((msg)->m = (v), (void)((msg)->has[LW_F_##m / 64] |= UINT64_C(1) << (LW_F_##m % 64)))
/** For members that are filled in place (ids, contract, stages). */
#define lw_msg_mark(msg, m)      ((void)((msg)->has[LW_F_##m / 64] |= UINT64_C(1) << (LW_F_##m % 64)))
#define lw_msg_get(msg, m, dflt) (lw_msg_has(msg, m) ? (msg)->m : (dflt))
#define lw_contract_set(c, m, v) ((c)->m = (v), (void)((c)->has |= UINT64_C(1) << LW_CF_##m))
#define lw_contract_has(c, m)    (((c)->has >> LW_CF_##m) & 1)
#define lw_stage_set(c, m, v)    ((c)->m = (v), (void)((c)->has |= UINT64_C(1) << LW_SF_##m))

/** Wire names of the enumerations; "?" outside the tables. */
const char *lw_msg_type_name(lw_msg_type t);
const char *lw_role_name(lw_role r);
const char *lw_op_name(lw_op o);
const char *lw_artefact_name(lw_artefact a);
/** The value of a wire name; the NONE value when it is not in the table. */
lw_msg_type lw_msg_type_from_name(const char *s, size_t len);
lw_role lw_role_from_name(const char *s, size_t len);
lw_op lw_op_from_name(const char *s, size_t len);
lw_artefact lw_artefact_from_name(const char *s, size_t len);
/** The role that does an op. */
lw_role lw_op_role(lw_op o);

/** Start a message: zero it, set type, and the id when not NULL. */
void lw_msg_init(lw_msg *m, lw_msg_type type, const uint8_t *id);
/** True for 1 to LW_MAX_TENSOR_NAME - 1 characters of [A-Za-z0-9_.-]. */
bool lw_tensor_name_valid(const char *s, size_t len);
/** The tensor of that name, or NULL. */
const lw_msg_tensor *lw_msg_tensor_find(const lw_msg *m, const char *name);
/**
 * Add a tensor; its data (or frame) must live until the message is encoded. Errors: LW_E_TOO_LARGE
 * when full, LW_E_INVALID for a name that is empty, too long, given twice or not of
 * [A-Za-z0-9_.-].
 */
LW_MUST_USE lw_status lw_msg_tensor_add(lw_msg *m, const char *name, const lw_tensor *t,
                                        lw_frame *frame, lw_err *err);
/** Fill a message of type ERROR from an error; strings point into err. */
void lw_msg_error(lw_msg *m, const uint8_t *id, const lw_err *err);

#endif
