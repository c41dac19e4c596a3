#ifndef LW_COMMON_LOG_H
#define LW_COMMON_LOG_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Structured logging to stderr: one line an event, a fixed message and typed fields, logfmt by
 * default and JSON lines on request. Only programs log; library code returns errors. Prompts and
 * users' paths never appear above debug.
 */

/** What the reader should do: act (error), look (warn), know (info), trace (debug). */
typedef enum lw_log_level { LW_ERROR = 0, LW_WARN, LW_INFO, LW_DEBUG } lw_log_level;

typedef enum lw_kv_kind { LW_KV_END = 0, LW_KV_S, LW_KV_I, LW_KV_F, LW_KV_ID } lw_kv_kind;

typedef struct lw_kv {
    lw_kv_kind kind;
    const char *key;
    union {
        const char *s;
        int64_t i;
        double f;
        const uint8_t *id; /* 16 bytes, shown as 8 hex digits */
    };
} lw_kv;

#define LW_KV_STR(k, v) ((lw_kv){ .kind = LW_KV_S, .key = (k), .s = (v) })
#define LW_KV_INT(k, v) ((lw_kv){ .kind = LW_KV_I, .key = (k), .i = (int64_t)(v) })
#define LW_KV_F64(k, v) ((lw_kv){ .kind = LW_KV_F, .key = (k), .f = (v) })
#define LW_KV_REQ(k, v) ((lw_kv){ .kind = LW_KV_ID, .key = (k), .id = (v) })

/** Set once at start-up, before threads: level, JSON or logfmt, and the program's name in each
 * line. */
void lw_log_init(lw_log_level level, bool json, const char *program);
/** Level of "error" | "warn" | "info" | "debug"; -1 when unknown. */
int lw_log_level_parse(const char *s);

/** Use through lw_log(). Thread-safe: one write(2) a line. */
void lw_log_kv(lw_log_level level, const char *message, const lw_kv *fields);
#define lw_log(level, message, ...)                                                                \
    lw_log_kv(level, message, (const lw_kv[]){ __VA_ARGS__, { .kind = LW_KV_END } })
/** The same without fields. */
#define lw_log_text(level, message)                                                                \
    lw_log_kv(level, message, (const lw_kv[]){ { .kind = LW_KV_END } })

#endif
