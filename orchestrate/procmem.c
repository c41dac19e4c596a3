/* What /proc/PID/status says of a process's memory. */

#include "orchestrate/procmem.h"

#include <stdio.h>

static uint64_t larger(uint64_t bytes, unsigned long long kib)
{
    return kib * 1024 > bytes ? kib * 1024 : bytes;
}

void lw_procmem_look(pid_t pid, lw_procmem *m)
{
    char path[64], line[128];
    unsigned long long kib;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%ld/status", (long)pid);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "VmHWM: %llu kB", &kib) == 1)
            m->peak_bytes = larger(m->peak_bytes, kib);
        else if (sscanf(line, "RssAnon: %llu kB", &kib) == 1)
            m->own_peak_bytes = larger(m->own_peak_bytes, kib);
    }
    if (f)
        fclose(f);
}
