/*
 * NFC from utf8proc's tables. utf8proc_map() would do it in one call, but it puts combining marks
 * in order by swapping neighbours, which takes minutes on a megabyte of marks. So the three steps
 * are done here: decompose, order each run of marks by counting, compose (utf8proc, linear).
 */

#include "encoder-svc/nfc.h"

#include <stdint.h>
#include <string.h>

#include <utf8proc.h>

static const utf8proc_option_t NFC_OPTIONS = UTF8PROC_STABLE | UTF8PROC_COMPOSE;

/* No code point below U+0300 is changed by NFC on its own, and U+0300 is CC 80 in UTF-8: lead bytes
 * from CC on are the only ones that ask for work. */
static int is_plain(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)text[i] >= 0xcc)
            return 0;
    return 1;
}

static int combining_class(utf8proc_int32_t c)
{
    return utf8proc_get_property(c)->combining_class;
}

/* Stable order by combining class of one run of marks. */
static void order_run(utf8proc_int32_t *run, size_t n, utf8proc_int32_t *tmp)
{
    size_t start[257] = { 0 };

    for (size_t i = 0; i < n; i++)
        start[combining_class(run[i]) + 1]++;
    for (int c = 0; c < 256; c++)
        start[c + 1] += start[c];
    for (size_t i = 0; i < n; i++)
        tmp[start[combining_class(run[i])]++] = run[i];
    memcpy(run, tmp, n * sizeof *run);
}

static void order_marks(utf8proc_int32_t *cp, size_t n, utf8proc_int32_t *tmp)
{
    for (size_t i = 0; i < n;) {
        size_t end = i;

        while (end < n && combining_class(cp[end]) != 0)
            end++;
        if (end - i > 1)
            order_run(cp + i, end - i, tmp);
        i = end > i ? end : i + 1;
    }
}

/* Decompose into cp[cap], or only count when cp is NULL. */
static size_t decompose(const char *text, size_t n, utf8proc_int32_t *cp, size_t cap)
{
    size_t n_cp = 0;

    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c = 0;
        utf8proc_ssize_t len =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &c);

        if (len <= 0)
            break; /* not reached: the caller has checked the text */
        n_cp += (size_t)utf8proc_decompose_char(
            c, cp ? cp + n_cp : NULL, (utf8proc_ssize_t)(cp ? cap - n_cp : 0), NFC_OPTIONS, NULL);
        i += (size_t)len;
    }
    return n_cp;
}

lw_status lw_nfc(const char *text, size_t n, lw_arena *a, const char **ret, size_t *ret_n,
                 lw_err *err)
{
    utf8proc_int32_t *cp, *tmp;
    utf8proc_uint8_t *out;
    size_t n_cp, n_out = 0;

    if (is_plain(text, n)) {
        *ret = text;
        *ret_n = n;
        return LW_OK;
    }
    n_cp = decompose(text, n, NULL, 0);
    cp = lw_arena_calloc(a, n_cp, sizeof *cp, err);
    tmp = lw_arena_calloc(a, n_cp, sizeof *tmp, err);
    out = lw_arena_calloc(a, n_cp, 4, err);
    if (!cp || !tmp || !out)
        return LW_E_NOMEM;
    decompose(text, n, cp, n_cp);
    order_marks(cp, n_cp, tmp);
    n_cp = (size_t)utf8proc_normalize_utf32(cp, (utf8proc_ssize_t)n_cp, NFC_OPTIONS);
    for (size_t i = 0; i < n_cp; i++)
        n_out += (size_t)utf8proc_encode_char(cp[i], out + n_out);
    *ret = (const char *)out;
    *ret_n = n_out;
    return LW_OK;
}
