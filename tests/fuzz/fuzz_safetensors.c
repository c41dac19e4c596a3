/* A safetensors file from anywhere: what is accepted can be read to the last byte. */

#include <stdlib.h>
#include <string.h>

#include "common/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    volatile uint8_t sink = 0;
    lw_st_file *f = NULL;
    lw_err err = { 0 };

    if (lw_st_open_memory(data, size, "input", &f, &err) != LW_OK) {
        if (err.code == LW_OK || err.text[0] == '\0')
            abort();
        return 0;
    }
    for (size_t i = 0; i < f->n_entries; i++) {
        const lw_tensor *t = &f->entries[i].t;
        const uint8_t *p = t->data;
        size_t n = lw_tensor_bytes(t);

        if (p < data || n > size || (size_t)(p - data) > size - n)
            abort();
        for (size_t j = 0; j < n; j++)
            sink = (uint8_t)(sink + p[j]);
        if (lw_st_find(f, f->entries[i].name) != &f->entries[i])
            abort();
    }
    for (size_t i = 0; i < f->n_metadata; i++)
        if (lw_st_metadata(f, f->metadata[i].key) == NULL)
            abort();
    lw_st_close(&f);
    return 0;
}
