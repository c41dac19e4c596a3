/* The error table of status.h as arrays, one for each column. */

#include "common/status.h"

#include <string.h>

typedef struct status_row {
    const char *name, *text;
    int http, exit_code, retryable;
} status_row;

static const status_row rows[LW_N_STATUS] = {
#define STATUS_ROW(sym, wire, http, exitcode, retry, text)                                         \
    [LW_##sym] = { wire, text, http, exitcode, retry },
    LW_STATUS_TABLE(STATUS_ROW)
#undef STATUS_ROW
};

/* A code from outside the table is a defect of ours, and is reported as one. */
static const status_row *row_of(lw_status s)
{
    return (unsigned)s < LW_N_STATUS ? &rows[s] : &rows[LW_E_INTERNAL];
}

const char *lw_status_name(lw_status s)
{
    return row_of(s)->name;
}

const char *lw_status_text(lw_status s)
{
    return row_of(s)->text;
}

int lw_status_http(lw_status s)
{
    return row_of(s)->http;
}

int lw_status_exit(lw_status s)
{
    return row_of(s)->exit_code;
}

int lw_status_retryable(lw_status s)
{
    return row_of(s)->retryable;
}

lw_status lw_status_from_name(const char *name, unsigned long len)
{
    for (int i = 0; i < LW_N_STATUS; i++)
        if (strlen(rows[i].name) == len && memcmp(rows[i].name, name, len) == 0)
            return (lw_status)i;
    return LW_E_INTERNAL;
}
