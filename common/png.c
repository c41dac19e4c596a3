/*
 * Pictures. stb writes and reads the pixels; the text chunks, which carry what a picture was made
 * from, are ours:
 *
 *     signature | IHDR | text chunk ... | IDAT | IEND        chunk: length, type, data, CRC
 *
 * This is the only file that includes stb.
 */

#include "common/png.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Hidden rather than static: stb declares functions that these options leave undefined, which
 * compilers rightly warn about when they are static. */
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#include <stb/stb_image_write.h>

#define STB_IMAGE_IMPLEMENTATION
#define STBI_NO_STDIO
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_MAX_DIMENSIONS LW_PNG_MAX_SIDE
#include <stb/stb_image.h>

#include "common/file.h"
#include "common/utf8.h"

#define MAX_FILE_BYTES    ((size_t)1 << 30)
#define MAX_KEYWORD_BYTES 79
#define SIGNATURE_BYTES   8
#define CHUNK_OVERHEAD    12
#define AFTER_IHDR        (SIGNATURE_BYTES + CHUNK_OVERHEAD + 13)

static const uint8_t signature[SIGNATURE_BYTES] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };

static bool is_png(const uint8_t *data, size_t size)
{
    return size >= SIGNATURE_BYTES && memcmp(data, signature, SIGNATURE_BYTES) == 0;
}

/* CRC-32 of the PNG standard, a nibble at a time: a table small enough to be checked by eye. */
static uint32_t crc32_add(uint32_t crc, const void *data, size_t n)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    const uint8_t *p = data;

    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static void put_u32(lw_buf *b, uint32_t v)
{
    const uint8_t bytes[4] = { (uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8),
                               (uint8_t)v };

    lw_buf_put(b, bytes, sizeof(bytes));
}

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool good_keyword(const char *s)
{
    size_t n = strlen(s);

    if (n < 1 || n > MAX_KEYWORD_BYTES || s[0] == ' ' || s[n - 1] == ' ' || strstr(s, "  "))
        return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] < 0x20 || s[i] > 0x7e)
            return false;
    return true;
}

/* What a tEXt chunk may hold as it is. */
static bool is_plain(const char *s)
{
    for (; *s; s++)
        if (*s != '\n' && (*s < 0x20 || *s > 0x7e))
            return false;
    return true;
}

static lw_status put_text(lw_buf *b, const lw_png_text *t, lw_err *err)
{
    /* After the keyword's zero: not compressed, method 0, no language, no translated keyword. */
    static const uint8_t itxt_fields[4] = { 0, 0, 0, 0 };
    bool plain = is_plain(t->text);
    size_t keyword = strlen(t->keyword), text = strlen(t->text), start;
    size_t len = keyword + 1 + (plain ? 0 : sizeof(itxt_fields)) + text;

    if (!good_keyword(t->keyword))
        return lw_fail(err, LW_E_INVALID, "\"%.100s\" cannot be the keyword of a PNG text",
                       t->keyword);
    if (!lw_utf8_valid(t->text, text))
        return lw_fail(err, LW_E_INVALID, "PNG text \"%s\" is not UTF-8", t->keyword);
    if (len > INT32_MAX)
        return lw_fail(err, LW_E_TOO_LARGE, "PNG text \"%s\" has %zu bytes", t->keyword, text);
    put_u32(b, (uint32_t)len);
    start = b->len;
    lw_buf_puts(b, plain ? "tEXt" : "iTXt");
    lw_buf_put(b, t->keyword, keyword + 1);
    if (!plain)
        lw_buf_put(b, itxt_fields, sizeof(itxt_fields));
    lw_buf_put(b, t->text, text);
    if (!b->failed)
        put_u32(b, crc32_add(0, b->data + start, b->len - start));
    return LW_OK;
}

lw_status lw_png_encode(lw_buf *out, const uint8_t *rgb, int width, int height,
                        const lw_png_text *texts, int n_texts, lw_err *err)
{
    lw_status status = LW_OK;
    unsigned char *png;
    int len = 0;

    if (width < 1 || height < 1 || width > LW_PNG_MAX_SIDE || height > LW_PNG_MAX_SIDE)
        return lw_fail(err, LW_E_INVALID, "a picture of %d x %d cannot be written (1 to %d a side)",
                       width, height, LW_PNG_MAX_SIDE);
    png = stbi_write_png_to_mem(rgb, 3 * width, width, height, 3, &len);
    if (png == NULL)
        return lw_fail(err, LW_E_NOMEM, "no memory to write a picture of %d x %d", width, height);
    lw_buf_put(out, png, AFTER_IHDR);
    for (int i = 0; i < n_texts && status == LW_OK; i++)
        status = put_text(out, &texts[i], err);
    lw_buf_put(out, png + AFTER_IHDR, (size_t)len - AFTER_IHDR);
    STBIW_FREE(png);
    if (status == LW_OK && out->failed)
        status = lw_fail(err, LW_E_TOO_LARGE, "a picture of %d x %d exceeds %zu bytes as PNG",
                         width, height, out->max_bytes);
    return status;
}

lw_status lw_png_write(const char *path, const uint8_t *rgb, int width, int height,
                       const lw_png_text *texts, int n_texts, lw_err *err)
{
    lw_outfile file = { 0 };
    lw_status status;
    lw_buf out;

    lw_buf_init(&out, MAX_FILE_BYTES);
    status = lw_png_encode(&out, rgb, width, height, texts, n_texts, err);
    if (status == LW_OK)
        status = lw_outfile_open(&file, path, err);
    if (status == LW_OK) {
        lw_outfile_write(&file, out.data, out.len);
        status = lw_outfile_commit(&file, err);
    }
    lw_buf_deinit(&out);
    return status;
}

typedef struct chunk {
    const uint8_t *type, *data;
    size_t len;
} chunk;

static bool is_type(const chunk *c, const char *type)
{
    return memcmp(c->type, type, 4) == 0;
}

/* The chunk at *at, and *at behind it; NULL, or what is wrong with it. */
static const char *next_chunk(const uint8_t *data, size_t size, size_t *at, chunk *ret)
{
    const uint8_t *p = data + *at;
    size_t left = size - *at;

    if (left < CHUNK_OVERHEAD)
        return "it ends before its IEND chunk";
    *ret = (chunk){ .type = p + 4, .data = p + 8, .len = get_u32(p) };
    if (ret->len > left - CHUNK_OVERHEAD)
        return "a chunk is longer than the file";
    if (crc32_add(0, ret->type, 4 + ret->len) != get_u32(ret->data + ret->len))
        return "a chunk's CRC is wrong";
    *at += CHUNK_OVERHEAD + ret->len;
    return NULL;
}

/* Bytes of the rows of one pass, a filter byte before each; an empty pass has none. */
static size_t pass_bytes(size_t width, size_t height, size_t bits)
{
    return width && height ? height * (1 + (width * bits + 7) / 8) : 0;
}

/* What the IDAT chunks of a picture must inflate to. */
static size_t inflated_bytes(const uint8_t *ihdr, size_t width, size_t height)
{
    static const uint8_t first[7][2] = { { 0, 0 }, { 4, 0 }, { 0, 4 }, { 2, 0 },
                                         { 0, 2 }, { 1, 0 }, { 0, 1 } };
    static const uint8_t step[7][2] = { { 8, 8 }, { 8, 8 }, { 4, 8 }, { 4, 4 },
                                        { 2, 4 }, { 2, 2 }, { 1, 2 } };
    static const uint8_t channels[7] = { 1, 0, 3, 1, 2, 0, 4 };
    const size_t bits = (size_t)ihdr[8] * (ihdr[9] < 7 ? channels[ihdr[9]] : 0);
    size_t sum = 0;

    if (ihdr[12] == 0)
        return pass_bytes(width, height, bits);
    for (int i = 0; i < 7; i++) {
        const size_t w = (width + step[i][0] - 1 - first[i][0]) / step[i][0];
        const size_t h = (height + step[i][1] - 1 - first[i][1]) / step[i][1];

        sum += pass_bytes(w, h, bits);
    }
    return sum;
}

/*
 * stb_image inflates a PNG as far as its stream goes, up to 4 GiB. So inflate it here first, into a
 * buffer of the size that the head promises and not a byte more.
 */
static lw_status check_inflated(const uint8_t *data, size_t size, const char *label, int width,
                                int height, lw_err *err)
{
    const size_t expected =
        inflated_bytes(data + SIGNATURE_BYTES + 8, (size_t)width, (size_t)height);
    char *packed = malloc(size), *rows;
    size_t at = SIGNATURE_BYTES, n = 0;
    const char *fault = NULL;
    chunk c = { 0 };
    int got;

    if (expected > INT_MAX) {
        free(packed);
        return lw_fail(err, LW_E_TOO_LARGE, "%s: %zu bytes of pixels are more than are read", label,
                       expected);
    }
    rows = malloc(expected + 1);
    if (packed == NULL || rows == NULL) {
        free(packed);
        free(rows);
        return lw_fail(err, LW_E_NOMEM, "%s: no memory for its pixels", label);
    }
    while (fault == NULL && (c.type == NULL || !is_type(&c, "IEND"))) {
        fault = next_chunk(data, size, &at, &c);
        if (fault == NULL && is_type(&c, "IDAT")) {
            memcpy(packed + n, c.data, c.len);
            n += c.len;
        }
    }
    got = fault ? -1 : stbi_zlib_decode_buffer(rows, (int)expected, packed, (int)n);
    if (fault == NULL && got != (int)expected)
        fault = "its pixels do not inflate to what its size needs";
    free(packed);
    free(rows);
    return fault ? lw_fail(err, LW_E_FORMAT, "%s: damaged PNG: %s", label, fault) : LW_OK;
}

lw_status lw_png_parse(const uint8_t *data, size_t size, const char *path, lw_arena *a,
                       uint8_t **ret_rgb, int *ret_width, int *ret_height, lw_err *err)
{
    int width, height, channels;
    uint8_t *pixels, *copy;
    size_t bytes;

    if (size > MAX_FILE_BYTES)
        return lw_fail(err, LW_E_TOO_LARGE, "%s: %zu bytes, at most %zu are read", path, size,
                       MAX_FILE_BYTES);
    if (!stbi_info_from_memory(data, (int)size, &width, &height, &channels))
        return lw_fail(err, LW_E_FORMAT, "%s: not a PNG or JPEG picture (%s)", path,
                       stbi_failure_reason());
    if (width > LW_PNG_MAX_SIDE || height > LW_PNG_MAX_SIDE)
        return lw_fail(err, LW_E_TOO_LARGE, "%s: %d x %d pixels, at most %d a side are read", path,
                       width, height, LW_PNG_MAX_SIDE);
    if (is_png(data, size))
        LW_TRY(check_inflated(data, size, path, width, height, err));
    pixels = stbi_load_from_memory(data, (int)size, &width, &height, &channels, 3);
    if (pixels == NULL)
        return lw_fail(err, LW_E_FORMAT, "%s: damaged picture (%s)", path, stbi_failure_reason());
    bytes = 3 * (size_t)width * (size_t)height;
    copy = lw_arena_alloc(a, bytes, err);
    if (copy)
        memcpy(copy, pixels, bytes);
    stbi_image_free(pixels);
    if (copy == NULL)
        return LW_E_NOMEM;
    *ret_rgb = copy;
    *ret_width = width;
    *ret_height = height;
    return LW_OK;
}

lw_status lw_png_read(const char *path, lw_arena *a, uint8_t **ret_rgb, int *ret_width,
                      int *ret_height, lw_err *err)
{
    char *data = NULL;
    size_t size = 0;
    lw_status status;

    LW_TRY(lw_file_read(path, MAX_FILE_BYTES, &data, &size, err));
    status =
        lw_png_parse((const uint8_t *)data, size, path, a, ret_rgb, ret_width, ret_height, err);
    free(data);
    return status;
}

/* The bytes up to a zero; *p moves behind it. NULL when there is none. */
static const uint8_t *take_field(const uint8_t **p, const uint8_t *end)
{
    const uint8_t *start = *p, *zero = *p < end ? memchr(*p, 0, (size_t)(end - *p)) : NULL;

    if (zero == NULL)
        return NULL;
    *p = zero + 1;
    return start;
}

/* Latin-1 as UTF-8. A zero byte ends a C string, so it must not occur; the caller has checked. */
static char *from_latin1(lw_arena *a, const uint8_t *s, size_t n, lw_err *err)
{
    char *out, *q;

    out = q = lw_arena_alloc(a, 2 * n + 1, err);
    if (out == NULL)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < 0x80) {
            *q++ = (char)s[i];
        } else {
            *q++ = (char)(0xc0 | s[i] >> 6);
            *q++ = (char)(0x80 | (s[i] & 0x3f));
        }
    }
    *q = '\0';
    return out;
}

/* Read a text chunk into *ret; *ret_known is false for a compressed one, which is passed over. */
static lw_status parse_text(const chunk *c, const char *label, lw_arena *a, lw_png_text *ret,
                            bool *ret_known, lw_err *err)
{
    const uint8_t *p = c->data, *end = c->data + c->len;
    const uint8_t *keyword = take_field(&p, end);
    size_t keyword_len = keyword ? (size_t)(p - keyword) - 1 : 0, n;
    bool utf8 = is_type(c, "iTXt");

    *ret_known = false;
    if (keyword == NULL || keyword_len < 1 || keyword_len > MAX_KEYWORD_BYTES)
        return lw_fail(err, LW_E_FORMAT, "%s: a text chunk has no proper keyword", label);
    if (utf8) {
        bool compressed;

        if (end - p < 2)
            return lw_fail(err, LW_E_FORMAT, "%s: an iTXt chunk is cut short", label);
        compressed = p[0] != 0;
        p += 2;
        if (take_field(&p, end) == NULL || take_field(&p, end) == NULL)
            return lw_fail(err, LW_E_FORMAT, "%s: an iTXt chunk is cut short", label);
        if (compressed)
            return LW_OK;
    }
    n = (size_t)(end - p);
    if (memchr(p, 0, n) || (utf8 && !lw_utf8_valid((const char *)p, n)))
        return lw_fail(err, LW_E_FORMAT, "%s: a text chunk holds no proper text", label);
    ret->keyword = from_latin1(a, keyword, keyword_len, err);
    ret->text = utf8 ? lw_arena_strndup(a, (const char *)p, n, err) : from_latin1(a, p, n, err);
    if (ret->keyword == NULL || ret->text == NULL)
        return LW_E_NOMEM;
    *ret_known = true;
    return LW_OK;
}

lw_status lw_png_parse_texts(const uint8_t *data, size_t size_bytes, const char *label, lw_arena *a,
                             lw_png_text **ret_texts, int *ret_n_texts, lw_err *err)
{
    size_t at = SIGNATURE_BYTES;
    lw_png_text *texts;
    int n = 0;

    if (!is_png(data, size_bytes))
        return lw_fail(err, LW_E_FORMAT, "%s: not a PNG file", label);
    texts = lw_arena_calloc(a, LW_PNG_MAX_TEXTS, sizeof(*texts), err);
    if (texts == NULL)
        return LW_E_NOMEM;
    for (;;) {
        const char *fault;
        bool known = false;
        chunk c;

        fault = next_chunk(data, size_bytes, &at, &c);
        if (fault)
            return lw_fail(err, LW_E_FORMAT, "%s: damaged PNG: %s", label, fault);
        if (is_type(&c, "IEND"))
            break;
        if (!is_type(&c, "tEXt") && !is_type(&c, "iTXt"))
            continue;
        if (n == LW_PNG_MAX_TEXTS)
            return lw_fail(err, LW_E_TOO_LARGE, "%s: more than %d text chunks", label, n);
        LW_TRY(parse_text(&c, label, a, &texts[n], &known, err));
        n += known;
    }
    *ret_texts = texts;
    *ret_n_texts = n;
    return LW_OK;
}

static bool has_keyword(const chunk *c, const char *keyword)
{
    const size_t n = strlen(keyword) + 1;

    return c->len >= n && memcmp(c->data, keyword, n) == 0;
}

lw_status lw_png_find_text(const uint8_t *data, size_t size_bytes, const char *label,
                           const char *keyword, size_t max_bytes, lw_arena *a, const char **ret,
                           lw_err *err)
{
    lw_png_text found = { 0 };
    size_t at = SIGNATURE_BYTES;
    bool known = false;
    chunk c = { 0 };

    if (!is_png(data, size_bytes))
        return lw_fail(err, LW_E_FORMAT, "%s: not a PNG file", label);
    while (c.type == NULL || !is_type(&c, "IEND")) {
        const char *fault = next_chunk(data, size_bytes, &at, &c);
        const bool packed = fault == NULL && is_type(&c, "zTXt");

        if (fault)
            return lw_fail(err, LW_E_FORMAT, "%s: damaged PNG: %s", label, fault);
        if (!packed && !is_type(&c, "tEXt") && !is_type(&c, "iTXt"))
            continue;
        if (!has_keyword(&c, keyword))
            continue;
        if (known)
            return lw_fail(err, LW_E_FORMAT, "%s: more than one text \"%s\"", label, keyword);
        if (c.len > max_bytes)
            return lw_fail(err, LW_E_TOO_LARGE, "%s: the text \"%s\" has %zu bytes, at most %zu",
                           label, keyword, c.len, max_bytes);
        if (!packed)
            LW_TRY(parse_text(&c, label, a, &found, &known, err));
        if (!known)
            return lw_fail(err, LW_E_FORMAT,
                           "%s: the text \"%s\" is compressed, as latentwire never writes it",
                           label, keyword);
    }
    *ret = found.text;
    return LW_OK;
}

lw_status lw_png_size(const uint8_t *data, size_t size_bytes, const char *label, int *ret_width,
                      int *ret_height, lw_err *err)
{
    int width, height, channels;

    if (!is_png(data, size_bytes))
        return lw_fail(err, LW_E_FORMAT, "%s: not a PNG file", label);
    if (size_bytes > MAX_FILE_BYTES ||
        !stbi_info_from_memory(data, (int)size_bytes, &width, &height, &channels))
        return lw_fail(err, LW_E_FORMAT, "%s: damaged PNG: its head says no size", label);
    if (width > LW_PNG_MAX_SIDE || height > LW_PNG_MAX_SIDE)
        return lw_fail(err, LW_E_TOO_LARGE, "%s: %d x %d pixels, at most %d a side are read", label,
                       width, height, LW_PNG_MAX_SIDE);
    if (channels == 2 || channels == 4)
        return lw_fail(err, LW_E_FORMAT,
                       "%s: the picture has an alpha channel, as latentwire never writes it",
                       label);
    *ret_width = width;
    *ret_height = height;
    return LW_OK;
}

lw_status lw_png_read_texts(const char *path, lw_arena *a, lw_png_text **ret_texts,
                            int *ret_n_texts, lw_err *err)
{
    char *data = NULL;
    size_t size = 0;
    lw_status status;

    LW_TRY(lw_file_read(path, MAX_FILE_BYTES, &data, &size, err));
    status = lw_png_parse_texts((const uint8_t *)data, size, path, a, ret_texts, ret_n_texts, err);
    free(data);
    return status;
}
