#ifndef LW_COMMON_STATS_H
#define LW_COMMON_STATS_H

#include <stddef.h>

/** The middle one of v [n], or the mean of the two in the middle; NaN when n is 0. Sorts v. */
double lw_median(double *v, size_t n);

#endif
