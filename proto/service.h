#ifndef LW_PROTO_SERVICE_H
#define LW_PROTO_SERVICE_H

#include "common/opt.h"
#include "proto/schema.h"

/*
 * The one service loop. A service is a role and four functions; everything else (options, sockets,
 * HELLO, credits, heartbeats both ways, reconnecting, cancel, drain, signals, logging) is written
 * once: service.c (options, start and end), service_session.c (io: all sockets and timers, in the
 * main thread) and service_worker.c (the model's thread). The two threads are joined by a queue of
 * one task and an eventfd.
 *
 * For tests only: LATENTWIRE_TEST_STEP_DELAY_MS in the environment makes lw_task_progress sleep, so
 * that a test can stop a service in the middle of a task of a tiny model.
 */

/** Options that every service has; parsed by lw_service_main. */
typedef struct lw_service_config {
    const char *model;     /* --model: folder or file */
    const char *hub;       /* --hub: backend endpoint */
    int64_t threads;       /* --threads: 0 = all cores */
    const char *device;    /* --device: "cpu"; "cuda:N" is refused by a build without CUDA */
    const char *weights;   /* --weights: auto | stored | bf16 */
    const char *precision; /* --precision: auto | f32 | int8 */
    const char *convert;   /* --convert: write the converted weights here, and end */
    int64_t
        memory_mb; /* --memory-mb: budget for one request's activations; 0 = half of what is free */
    const char *name, *keys, *key_name, *log_level;
    const char *tokenizer; /* --tokenizer (encoder): folder; NULL = the model's, else Qwen3's own */
    bool insecure_loopback, log_json;
    bool die_with_parent; /* --die-with-parent: for clusters that live as long as a command */
    int64_t drain_s;      /* --drain-s: how long SIGTERM lets a running task go on */
} lw_service_config;

/** A task while it runs, in the worker thread. */
typedef struct lw_task {
    const lw_msg *msg; /* the request; tensors are views of the packet, unaligned */
    lw_arena *arena;   /* request arena: inputs, outputs; reset after the answer is sent */
    lw_msg
        *result; /* set fields and tensors here; their memory from `arena` or the service's own */
    void *impl;
} lw_task;

/** True when the task was cancelled or the service is stopping hard: return LW_E_CANCELLED soon.
 * Also a sign of life, so ask between the pieces of a long step. Any thread. */
bool lw_task_cancelled(const lw_task *t);
/** `step` of `total` done. sigma: noise level now (0 where it means nothing). Cheap, never blocks.
 */
void lw_task_progress(lw_task *t, uint64_t step, uint64_t total, double sigma);
/** Picture index of the following progress and preview messages. */
void lw_task_picture(lw_task *t, uint64_t picture);
/** Send a preview: f32 latents [C, h, w] (x0 estimate; sent as [1, C, h, w]) or uint8 [h, w, 3];
 * copied. Droppable. */
void lw_task_preview(lw_task *t, uint64_t step, const lw_tensor *preview);
/** Hand the hub the state before step `step`, [C, h, w] or [n, C, h, w], so that a retry resumes
 * there; copied. */
void lw_task_checkpoint(lw_task *t, uint64_t step, const lw_tensor *latents);

/** Role and functions of a service. Thread rule: all four run in the worker thread, in the order
 * load, info, handle..., unload; signals are blocked there and in every thread it starts. */
typedef struct lw_service {
    lw_role role;
    const char *program; /* "encoder-svc" */
    const char *about;   /* one sentence for --help */
    /** Load the model. *ret_self on success. A failure ends the program with its exit code. */
    lw_status (*load)(const lw_service_config *c, void **ret_self, lw_err *err);
    /** Write the weights as c->convert, in c->precision. NULL: this service has no other form. */
    lw_status (*convert)(const lw_service_config *c, lw_err *err);
    /** Fill the contract; strings live as long as self. */
    void (*info)(void *self, lw_contract *ret);
    /**
     * Do one task. Everything wrong with the request is an error with a clear text; LW_E_CANCELLED
     * after lw_task_cancelled. On success the result is sent as it stands in t->result.
     */
    lw_status (*handle)(void *self, lw_task *t, lw_err *err);
    void (*unload)(void *self);
} lw_service;

/** main() of a service: parse options, load, serve until SIGTERM/SIGINT/DRAIN, unload. Returns the
 * exit code. */
int lw_service_main(const lw_service *s, int argc, char **argv);

/**
 * Run handle() once in this thread without sockets (tests of a service's model code). progress and
 * the rest go nowhere. `request` has type TASK.
 */
LW_MUST_USE lw_status lw_service_call(const lw_service *s, void *self, const lw_msg *request,
                                      lw_arena *arena, lw_msg *ret_result, lw_err *err);

#endif
