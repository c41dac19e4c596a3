#ifndef LW_ORCHESTRATE_PROGRESS_H
#define LW_ORCHESTRATE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/**
 * One line on standard error that says what is going on, how far it is and how long it will take.
 * Silent when standard error is not a terminal, so logs and pipes stay clean. Zeroed = silent.
 */
typedef struct lw_progress {
    bool on, drawn;
    const char *phase; /* text of the current phase; static */
    uint64_t done, total;
    int64_t phase_start_ms, first_step_ms, drawn_ms;
    uint64_t first_done;
} lw_progress;

void lw_progress_init(lw_progress *p, bool quiet);
/** `done` of `total` in this phase; total 0: only the phase is shown, with the time it takes. */
void lw_progress_update(lw_progress *p, const char *phase, uint64_t done, uint64_t total);
/** Draw again if it is time to: clocks move between events. */
void lw_progress_tick(lw_progress *p);
/** Take the line off the screen, before other output. */
void lw_progress_clear(lw_progress *p);

/**
 * Milliseconds left, judged by the steps since the first that was seen done; -1 when nothing can be
 * said yet. Split off for the tests.
 */
int64_t lw_progress_left_ms(uint64_t first_done, int64_t first_ms, uint64_t done, uint64_t total,
                            int64_t now_ms);

#endif
