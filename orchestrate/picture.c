/* Pictures from anywhere. */

#include "orchestrate/picture.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/file.h"
#include "common/png.h"
#include "orchestrate/manifest.h"
#include "orchestrate/output.h"

#define READ_BYTES ((size_t)1 << 16)

static lw_status too_large(const char *label, lw_err *err)
{
    return lw_fail(err, LW_E_TOO_LARGE,
                   "%s: more than %u MiB; latentwire writes no picture so large", label,
                   LW_MAX_PICTURE_FILE >> 20);
}

static lw_status read_stdin(lw_buf *b, lw_err *err)
{
    uint8_t *part = malloc(READ_BYTES);
    lw_status s = LW_OK;

    if (!part)
        return lw_fail(err, LW_E_NOMEM, "no memory to read standard input");
    while (s == LW_OK && !b->failed) {
        const ssize_t n = read(STDIN_FILENO, part, READ_BYTES);

        if (n == 0)
            break;
        if (n > 0)
            lw_buf_put(b, part, (size_t)n);
        else if (errno != EINTR)
            s = lw_fail(err, LW_E_IO, "cannot read standard input: %s", strerror(errno));
    }
    free(part);
    return s == LW_OK && b->failed ? too_large("standard input", err) : s;
}

static lw_status read_file(const char *path, lw_buf *b, lw_err *err)
{
    char *data = NULL;
    size_t n = 0;

    LW_TRY(lw_file_read(path, LW_MAX_PICTURE_FILE, &data, &n, err));
    b->data = (uint8_t *)data;
    b->len = b->cap = n;
    return LW_OK;
}

/* Look for what latentwire writes into a file. */
static lw_status take_apart(lw_picture *p, lw_arena *a, lw_err *err)
{
    const uint8_t *data = p->file.data;
    const size_t n = p->file.len;

    LW_TRY(lw_png_size(data, n, p->label, &p->width, &p->height, err));
    LW_TRY(lw_png_find_text(data, n, p->label, LW_MANIFEST_KEY, LW_MAX_MANIFEST, a, &p->manifest,
                            err));
    return lw_png_find_text(data, n, p->label, "parameters", 4u * LW_MAX_MANIFEST, a,
                            &p->parameters, err);
}

lw_status lw_picture_read(const char *path, lw_arena *a, lw_picture *ret, lw_err *err)
{
    const bool from_stdin = !strcmp(path, "-");

    *ret = (lw_picture){ .label = from_stdin ? "standard input" : path };
    lw_buf_init(&ret->file, LW_MAX_PICTURE_FILE);
    LW_TRY(from_stdin ? read_stdin(&ret->file, err) : read_file(path, &ret->file, err));
    return take_apart(ret, a, err);
}

lw_status lw_picture_parse(const uint8_t *data, size_t size_bytes, const char *label, lw_arena *a,
                           lw_picture *ret, lw_err *err)
{
    *ret = (lw_picture){ .label = label };
    lw_buf_init(&ret->file, LW_MAX_PICTURE_FILE);
    lw_buf_put(&ret->file, data, size_bytes);
    if (ret->file.failed)
        return too_large(label, err);
    return take_apart(ret, a, err);
}

void lw_picture_deinit(lw_picture *p)
{
    lw_buf_deinit(&p->file);
    *p = (lw_picture){ 0 };
}

lw_status lw_picture_pixels(const lw_picture *p, lw_arena *a, const uint8_t **ret, lw_err *err)
{
    uint8_t *rgb = NULL;
    int width, height;

    LW_TRY(lw_png_parse(p->file.data, p->file.len, p->label, a, &rgb, &width, &height, err));
    *ret = rgb;
    return LW_OK;
}

lw_difference lw_pixels_compare(const uint8_t *a, const uint8_t *b, uint64_t n_pixels)
{
    lw_difference d = { .n_pixels = n_pixels };
    uint64_t squares = 0; /* at most 3 * 255^2 a pixel: room for 2^46 of them */

    for (uint64_t i = 0; i < n_pixels; i++) {
        bool differs = false;

        for (int c = 0; c < 3; c++) {
            const int e = abs(a[3 * i + (uint64_t)c] - b[3 * i + (uint64_t)c]);

            squares += (uint64_t)(e * e);
            differs = differs || e > 0;
            d.largest = e > d.largest ? e : d.largest;
        }
        d.n_differ += differs;
    }
    d.psnr_db = squares ? 10.0 * log10(255.0 * 255.0 * 3.0 * (double)n_pixels / (double)squares)
                        : (double)INFINITY;
    return d;
}
