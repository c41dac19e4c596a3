#ifndef LW_COMMON_POOL_H
#define LW_COMMON_POOL_H

#include <stdint.h>

#include "common/err.h"

/**
 * The threads of one service's back end. Work is given as n_items independent pieces whose cut does
 * not depend on the number of threads; which thread takes which piece never changes a result, so
 * the same request gives the same bits with any `--threads`.
 */
typedef struct lw_pool lw_pool;

/** thread: 0 .. n_threads-1, for per-thread scratch; item: 0 .. n_items-1. */
typedef void lw_pool_fn(void *arg, int thread, int64_t item);

/** n_threads 0: as many as the cores this process may run on. The caller's thread is thread 0. */
LW_MUST_USE lw_status lw_pool_create(int n_threads, lw_pool **ret, lw_err *err);
void lw_pool_destroy(lw_pool **p);
int lw_pool_threads(const lw_pool *p);
/** Run fn for every item; returns when all are done. Not reentrant; one caller thread at a time. */
void lw_pool_run(lw_pool *p, int64_t n_items, lw_pool_fn *fn, void *arg);

#endif
