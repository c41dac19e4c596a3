/*
 * What the integration tests ask of pictures:
 *
 *     pngtool diff A.png B.png N    exit 0 when no channel of any pixel differs by more than N of
 * 255 pngtool text A.png KEYWORD    print the text chunk of that keyword pngtool make A.png WxH
 * write a picture of gradients
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/png.h"

static int fail(const lw_err *err)
{
    fprintf(stderr, "pngtool: %s\n", err->text);
    return 2;
}

static int diff(const char *a_path, const char *b_path, int most, lw_arena *arena)
{
    uint8_t *a, *b;
    int wa, ha, wb, hb, worst = 0;
    size_t n_differ = 0, n;
    lw_err err = { 0 };

    if (lw_png_read(a_path, arena, &a, &wa, &ha, &err) != LW_OK ||
        lw_png_read(b_path, arena, &b, &wb, &hb, &err) != LW_OK)
        return fail(&err);
    if (wa != wb || ha != hb) {
        printf("%s is %dx%d, %s is %dx%d\n", a_path, wa, ha, b_path, wb, hb);
        return 1;
    }
    n = (size_t)wa * (size_t)ha * 3;
    for (size_t i = 0; i < n; i++) {
        int d = abs(a[i] - b[i]);

        n_differ += d > 0;
        worst = d > worst ? d : worst;
    }
    printf("%s and %s: at most %d of 255, %zu of %zu values differ\n", a_path, b_path, worst,
           n_differ, n);
    return worst > most;
}

static int text(const char *path, const char *keyword, lw_arena *arena)
{
    lw_png_text *texts;
    lw_err err = { 0 };
    int n;

    if (lw_png_read_texts(path, arena, &texts, &n, &err) != LW_OK)
        return fail(&err);
    for (int i = 0; i < n; i++)
        if (!strcmp(texts[i].keyword, keyword)) {
            puts(texts[i].text);
            return 0;
        }
    fprintf(stderr, "pngtool: %s has no text \"%s\"\n", path, keyword);
    return 1;
}

static int make(const char *path, const char *size, lw_arena *arena)
{
    lw_err err = { 0 };
    int w, h;
    uint8_t *rgb;

    if (sscanf(size, "%dx%d", &w, &h) != 2 || w < 1 || h < 1 || w > 4096 || h > 4096)
        return 2;
    rgb = lw_arena_calloc(arena, (size_t)w * (size_t)h, 3, &err);
    for (int y = 0; rgb && y < h; y++)
        for (int x = 0; x < w; x++) {
            uint8_t *p = rgb + 3 * ((size_t)y * (size_t)w + (size_t)x);

            p[0] = (uint8_t)(255 * x / w);
            p[1] = (uint8_t)(255 * y / h);
            p[2] = (uint8_t)(x * y);
        }
    if (!rgb || lw_png_write(path, rgb, w, h, NULL, 0, &err) != LW_OK)
        return fail(&err);
    return 0;
}

int main(int argc, char **argv)
{
    lw_arena arena;
    int rc = 2;

    lw_arena_init(&arena, "pngtool", 0);
    if (argc == 5 && !strcmp(argv[1], "diff"))
        rc = diff(argv[2], argv[3], atoi(argv[4]), &arena);
    else if (argc == 4 && !strcmp(argv[1], "text"))
        rc = text(argv[2], argv[3], &arena);
    else if (argc == 4 && !strcmp(argv[1], "make"))
        rc = make(argv[2], argv[3], &arena);
    else
        fprintf(stderr, "usage: pngtool diff A B N | text FILE KEYWORD | make FILE WxH\n");
    lw_arena_deinit(&arena);
    return rc;
}
