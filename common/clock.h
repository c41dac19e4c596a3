#ifndef LW_COMMON_CLOCK_H
#define LW_COMMON_CLOCK_H

#include <stdint.h>
#include <time.h>

/** Monotonic time in milliseconds / nanoseconds since an arbitrary start. */
static inline int64_t lw_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline int64_t lw_now_ms(void)
{
    return lw_now_ns() / 1000000;
}

#endif
