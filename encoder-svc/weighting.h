#ifndef LW_ENCODER_WEIGHTING_H
#define LW_ENCODER_WEIGHTING_H

#include <stddef.h>

#include "common/arena.h"

#define LW_WEIGHTING_MAX_DEPTH 16
#define LW_WEIGHTING_MAX       10 /* largest weight of a pair of brackets */

/** A text without its markup, and the weight of each of its bytes. */
typedef struct lw_weighted_text {
    const char *text; /* zero-terminated */
    size_t len;
    const float *weights; /* [len]; 1 outside all brackets */
} lw_weighted_text;

/**
 * Read "(words:1.3)": the words have the weight 1.3, from 0 to LW_WEIGHTING_MAX. Brackets inside
 * each other multiply. "\(", "\)" and "\\" are the characters themselves. The weight is what stands
 * between the last colon and the closing bracket, so words may have colons. `text` is UTF-8.
 * Errors: LW_E_INVALID naming the character (from 1) where a bracket has no weight, is not closed
 * or was not opened, or a weight is not a number in range; LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_weighting_parse(const char *text, lw_arena *a, lw_weighted_text *ret,
                                         lw_err *err);

#endif
