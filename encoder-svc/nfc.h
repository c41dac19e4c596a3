#ifndef LW_ENCODER_NFC_H
#define LW_ENCODER_NFC_H

#include <stddef.h>

#include "common/arena.h"

/**
 * Unicode normal form C of well-formed UTF-8. *ret is the text itself when nothing can change, else
 * a new text in `a`; it is not zero-terminated. Takes linear time, also for long runs of combining
 * marks. Tables: utf8proc's. The tokenizers library has
 * those of Unicode 9, so it leaves marks that were added later (98 up to Unicode 14, all of rare
 * scripts) in the order in which they come. Errors: LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_nfc(const char *text, size_t n, lw_arena *a, const char **ret,
                             size_t *ret_n, lw_err *err);

#endif
