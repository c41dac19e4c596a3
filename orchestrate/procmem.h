#ifndef LW_ORCHESTRATE_PROCMEM_H
#define LW_ORCHESTRATE_PROCMEM_H

#include <stdint.h>
#include <sys/types.h>

/** Memory of a process so far; zero when it was never seen. */
typedef struct lw_procmem {
    uint64_t peak_bytes;     /* resident at most, by the kernel's count; mapped files count */
    uint64_t own_peak_bytes; /* of it not from files: the most that was there at a look */
} lw_procmem;

/** Look at a process and keep the larger numbers. One that is gone changes nothing. */
void lw_procmem_look(pid_t pid, lw_procmem *m);

#endif
