/*
 * A fixed set of threads that run the pieces of one operation at a time.
 *
 * A run publishes a job under the lock and opens it; threads that notice enter it, take items from
 * one shared counter until none is left, and leave. The caller works too, then closes the job and
 * waits for those who entered. A thread that wakes too late finds the job closed and sleeps again,
 * so nobody waits for a thread that had nothing to do. Between jobs a thread spins for a short
 * while, because a model's operations follow each other within microseconds.
 */
#include "common/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

/* About 20 microseconds of pause instructions: longer than the gap between two operations of a
 * step, shorter than a time slice that somebody else could use. */
#define SPIN_ROUNDS 1000
#define MAX_THREADS 1024

typedef struct worker {
    lw_pool *pool;
    pthread_t id;
    int index;
} worker;

struct lw_pool {
    int n_threads;
    int n_started;
    worker *workers; /* n_threads - 1 of them; the caller is thread 0 */

    pthread_mutex_t lock;
    pthread_cond_t job_open, all_left;

    _Atomic uint64_t job_number; /* written under the lock, read by spinners without it */
    /* the rest is guarded by the lock, except next_item while a job runs */
    bool open, stop;
    int n_inside, n_asleep;
    lw_pool_fn *fn;
    void *arg;
    int64_t n_items;
    _Atomic int64_t next_item;
};

static void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int cores_allowed(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    return 1;
}

static void take_items(lw_pool *p, int thread, lw_pool_fn *fn, void *arg, int64_t n_items)
{
    for (;;) {
        int64_t item = atomic_fetch_add_explicit(&p->next_item, 1, memory_order_relaxed);

        if (item >= n_items)
            return;
        fn(arg, thread, item);
    }
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    lw_pool *p = w->pool;
    uint64_t seen = 0;

    for (;;) {
        for (int i = 0; i < SPIN_ROUNDS; i++) {
            if (atomic_load_explicit(&p->job_number, memory_order_relaxed) != seen)
                break;
            cpu_pause();
        }
        pthread_mutex_lock(&p->lock);
        p->n_asleep++;
        while (atomic_load_explicit(&p->job_number, memory_order_relaxed) == seen && !p->stop)
            pthread_cond_wait(&p->job_open, &p->lock);
        p->n_asleep--;
        if (p->stop) {
            pthread_mutex_unlock(&p->lock);
            return NULL;
        }
        seen = atomic_load_explicit(&p->job_number, memory_order_relaxed);
        if (p->open) {
            lw_pool_fn *fn = p->fn;
            void *fn_arg = p->arg;
            int64_t n_items = p->n_items;

            p->n_inside++;
            pthread_mutex_unlock(&p->lock);
            take_items(p, w->index, fn, fn_arg, n_items);
            pthread_mutex_lock(&p->lock);
            if (--p->n_inside == 0)
                pthread_cond_signal(&p->all_left);
        }
        pthread_mutex_unlock(&p->lock);
    }
}

/* Signals are the business of the service's io thread: workers take none. */
static int start_worker(lw_pool *p, int index)
{
    worker *w = &p->workers[index - 1];
    sigset_t all, old;
    int rc;

    *w = (worker){ .pool = p, .index = index };
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&w->id, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

lw_status lw_pool_create(int n_threads, lw_pool **ret, lw_err *err)
{
    lw_pool *p;

    if (n_threads < 0 || n_threads > MAX_THREADS)
        return lw_fail(err, LW_E_INVALID, "threads: expected 0 (all cores) to %d, got %d",
                       MAX_THREADS, n_threads);
    if (n_threads == 0)
        n_threads = cores_allowed();
    p = calloc(1, sizeof(*p));
    if (!p)
        return lw_fail(err, LW_E_NOMEM, "no memory for a pool of %d threads", n_threads);
    p->n_threads = n_threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->job_open, NULL);
    pthread_cond_init(&p->all_left, NULL);
    p->workers = calloc((size_t)n_threads, sizeof(*p->workers));
    if (!p->workers) {
        lw_pool_destroy(&p);
        return lw_fail(err, LW_E_NOMEM, "no memory for a pool of %d threads", n_threads);
    }
    for (int i = 1; i < n_threads; i++) {
        if (start_worker(p, i) != 0) {
            lw_pool_destroy(&p);
            return lw_fail(err, LW_E_EXHAUSTED,
                           "the system refused thread %d of %d; ask for fewer with --threads",
                           i + 1, n_threads);
        }
        p->n_started++;
    }
    *ret = p;
    return LW_OK;
}

void lw_pool_destroy(lw_pool **pool)
{
    lw_pool *p = *pool;

    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    atomic_fetch_add_explicit(&p->job_number, 1, memory_order_relaxed);
    pthread_cond_broadcast(&p->job_open);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_started; i++)
        pthread_join(p->workers[i].id, NULL);
    pthread_cond_destroy(&p->all_left);
    pthread_cond_destroy(&p->job_open);
    pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p);
    *pool = NULL;
}

int lw_pool_threads(const lw_pool *p)
{
    return p ? p->n_threads : 1;
}

void lw_pool_run(lw_pool *p, int64_t n_items, lw_pool_fn *fn, void *arg)
{
    if (!p || p->n_threads == 1 || n_items <= 1) {
        for (int64_t i = 0; i < n_items; i++)
            fn(arg, 0, i);
        return;
    }

    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->arg = arg;
    p->n_items = n_items;
    atomic_store_explicit(&p->next_item, 0, memory_order_relaxed);
    p->open = true;
    atomic_fetch_add_explicit(&p->job_number, 1, memory_order_relaxed);
    if (p->n_asleep > 0)
        pthread_cond_broadcast(&p->job_open);
    pthread_mutex_unlock(&p->lock);

    take_items(p, 0, fn, arg, n_items);

    pthread_mutex_lock(&p->lock);
    p->open = false;
    while (p->n_inside > 0)
        pthread_cond_wait(&p->all_left, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
