/* The progress line. Plain ASCII: it must not break a terminal whose locale is unknown. */

#include "orchestrate/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/clock.h"

#define REDRAW_MS 100
#define BAR_CHARS 24

void lw_progress_init(lw_progress *p, bool quiet)
{
    *p = (lw_progress){ .on = !quiet && isatty(STDERR_FILENO) == 1 };
}

int64_t lw_progress_left_ms(uint64_t first_done, int64_t first_ms, uint64_t done, uint64_t total,
                            int64_t now_ms)
{
    /*
     * The first step includes queueing, loading pages and refining the prompt, so it says little
     * about the others: measure from its end as soon as there is a second one.
     */
    if (done <= first_done || done > total || now_ms < first_ms)
        return -1;
    return (int64_t)((double)(now_ms - first_ms) / (double)(done - first_done) *
                     (double)(total - done));
}

static void format_time(int64_t ms, char *buf, size_t n)
{
    int64_t s = (ms + 500) / 1000;

    if (s < 60)
        snprintf(buf, n, "%lld s", (long long)s);
    else if (s < 3600)
        snprintf(buf, n, "%lld min %02lld s", (long long)(s / 60), (long long)(s % 60));
    else
        snprintf(buf, n, "%lld h %02lld min", (long long)(s / 3600), (long long)(s / 60 % 60));
}

static void draw(lw_progress *p, int64_t now)
{
    char line[256], bar[BAR_CHARS + 1], when[32];
    struct winsize size;
    int columns = 80;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        columns = size.ws_col;
    if (p->total == 0) {
        format_time(now - p->phase_start_ms, when, sizeof(when));
        snprintf(line, sizeof(line), "%s, %s", p->phase, when);
    } else {
        int64_t left = lw_progress_left_ms(p->first_done, p->first_step_ms, p->done, p->total, now);
        uint64_t full = p->done * BAR_CHARS / p->total;

        for (uint64_t i = 0; i < BAR_CHARS; i++)
            bar[i] = i < full ? '#' : '.';
        bar[BAR_CHARS] = 0;
        format_time(left, when, sizeof(when));
        snprintf(line, sizeof(line), "%s [%s] %llu/%llu%s%s%s", p->phase, bar,
                 (unsigned long long)p->done, (unsigned long long)p->total, left < 0 ? "" : ", ",
                 left < 0 ? "" : when, left < 0 ? "" : " left");
    }
    /* A line that wraps could not be erased by a carriage return. */
    fprintf(stderr, "\r%.*s\033[K", columns - 1, line);
    fflush(stderr);
    p->drawn = true;
    p->drawn_ms = now;
}

void lw_progress_update(lw_progress *p, const char *phase, uint64_t done, uint64_t total)
{
    const int64_t now = lw_now_ms();

    if (!p->on)
        return;
    if (!p->phase || strcmp(p->phase, phase)) {
        p->phase = phase;
        p->phase_start_ms = p->first_step_ms = now;
        p->first_done = done;
        p->drawn_ms = 0;
    } else if (p->first_done == 0 && done > 0) {
        p->first_done = done;
        p->first_step_ms = now;
    }
    p->done = done;
    p->total = total;
    if (now - p->drawn_ms >= REDRAW_MS || done == total)
        draw(p, now);
}

void lw_progress_tick(lw_progress *p)
{
    const int64_t now = lw_now_ms();

    if (p->on && p->phase && now - p->drawn_ms >= 5 * REDRAW_MS)
        draw(p, now);
}

void lw_progress_clear(lw_progress *p)
{
    if (p->drawn)
        fprintf(stderr, "\r\033[K");
    p->drawn = false;
    p->phase = NULL;
}
