#include "common/backend.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/size.h"

#define MAX_THREADS 1024

static lw_status parse_precision(const char *text, lw_precision *ret, lw_err *err)
{
    for (lw_precision p = LW_PRECISION_AUTO; p <= LW_PRECISION_INT8; p++) {
        if (text == NULL || strcmp(text, lw_precision_name(p)) == 0) {
            *ret = p;
            return LW_OK;
        }
    }
    return lw_fail(err, LW_E_INVALID, "--precision %s: expected auto, f32 or int8", text);
}

lw_status lw_backend_open(lw_backend *b, const char *device, const char *precision, int64_t threads,
                          int64_t memory_mb, lw_err *err)
{
    lw_precision p = LW_PRECISION_AUTO;
    lw_status s;

    *b = (lw_backend){ 0 };
    if (device != NULL && strcmp(device, "cpu") != 0)
        return lw_fail(err, LW_E_UNIMPLEMENTED, "--device %s: this build offers cpu", device);
    if (threads < 0 || threads > MAX_THREADS)
        return lw_fail(err, LW_E_INVALID, "--threads %lld: expected 0 (all cores) to %d",
                       (long long)threads, MAX_THREADS);
    if (memory_mb < 0 || !lw_size_mul((size_t)memory_mb, (size_t)1 << 20, &b->memory_bytes))
        return lw_fail(err, LW_E_INVALID, "--memory-mb %lld: out of range", (long long)memory_mb);
    LW_TRY(parse_precision(precision, &p, err));
    LW_TRY(lw_pool_create((int)threads, &b->pool, err));
    s = lw_kernels_init_cpu(&b->k, b->pool, err);
    if (s != LW_OK) {
        lw_pool_destroy(&b->pool);
        return s;
    }
    b->k.precision = p;
    s = lw_kernels_try(&b->k, err);
    if (s != LW_OK)
        lw_backend_close(b);
    return s;
}

void lw_backend_close(lw_backend *b)
{
    if (b->pool != NULL)
        lw_kernels_deinit(&b->k);
    lw_pool_destroy(&b->pool);
}

/** MemAvailable of the system in bytes, or the free pages where there is no /proc. */
static size_t available_bytes(void)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long long kib = 0;
    long pages, page_bytes;

    if (f != NULL) {
        while (fgets(line, sizeof(line), f) != NULL)
            if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
                break;
        fclose(f);
    }
    if (kib > 0)
        return (size_t)kib * 1024;
    pages = sysconf(_SC_AVPHYS_PAGES);
    page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? (size_t)pages * (size_t)page_bytes : SIZE_MAX;
}

size_t lw_backend_budget(const lw_backend *b)
{
    return b->memory_bytes > 0 ? b->memory_bytes : available_bytes() / 2;
}

lw_status lw_keep_parse(const char *text, lw_keep *ret, lw_err *err)
{
    if (text == NULL || strcmp(text, "auto") == 0)
        *ret = LW_KEEP_AUTO;
    else if (strcmp(text, "stored") == 0)
        *ret = LW_KEEP_STORED;
    else if (strcmp(text, "bf16") == 0)
        *ret = LW_KEEP_BF16;
    else
        return lw_fail(err, LW_E_INVALID, "--weights %s: expected auto, stored or bf16", text);
    return LW_OK;
}
