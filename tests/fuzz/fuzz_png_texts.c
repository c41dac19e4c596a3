/* Text chunks of a PNG file from anywhere: what comes out is keyword and UTF-8 text. */

#include <stdlib.h>
#include <string.h>

#include "common/png.h"
#include "common/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lw_png_text *texts = NULL;
    lw_err err = { 0 };
    lw_arena a;
    int n = 0;

    lw_arena_init(&a, "fuzz", 16 << 20);
    if (lw_png_parse_texts(data, size, "input", &a, &texts, &n, &err) == LW_OK) {
        for (int i = 0; i < n; i++) {
            size_t keyword = strlen(texts[i].keyword), text = strlen(texts[i].text);

            if (keyword == 0 || !lw_utf8_valid(texts[i].keyword, keyword) ||
                !lw_utf8_valid(texts[i].text, text))
                abort();
        }
    } else if (err.code == LW_OK || err.text[0] == '\0') {
        abort();
    }
    lw_arena_deinit(&a);
    return 0;
}
