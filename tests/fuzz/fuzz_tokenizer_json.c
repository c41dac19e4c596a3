/* tokenizer.json: any JSON is either refused with a message or makes a tokenizer that works. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "encoder-svc/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "<|im_start|>user\na caf\xc3\xa9, 42!<|im_end|>\n";
    lw_tokenizer_source src = { .label = "fuzz" };
    lw_tokenizer *t = NULL;
    lw_token_ids ids;
    lw_arena arena;
    lw_err err = { 0 };

    src.whole = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (!src.whole)
        return 0;
    lw_arena_init(&arena, "fuzz", (size_t)64 << 20);
    if (lw_tokenizer_build(&src, &t, &err) == LW_OK) {
        if (lw_tokenizer_encode(t, text, sizeof text - 1, &arena, &ids, &err) != LW_OK) {
            fprintf(stderr, "fuzz_tokenizer_json: %s\n", err.text);
            abort();
        }
        for (size_t i = 0; i < ids.n; i++)
            if (ids.ids[i] < 0 || ids.ids[i] >= lw_tokenizer_n_ids(t))
                abort();
    } else if (!err.text[0] || t) {
        abort();
    }
    lw_tokenizer_destroy(&t);
    lw_arena_deinit(&arena);
    json_decref(src.whole);
    return 0;
}
