/* Tables that can be read on a terminal and put into a page as they are. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrate/bench/bench.h"

#define CELL_BYTES 128

static int width_of(const lw_md_column *c)
{
    const int least = (int)strlen(c->title), wanted = abs(c->width);

    return wanted > least ? wanted : least;
}

void lw_md_head(const lw_md_column *columns, size_t n)
{
    for (size_t i = 0; i < n; i++)
        lw_md_text(&columns[i], columns[i].title);
    lw_md_end();
    for (size_t i = 0; i < n; i++) {
        printf("|%c", columns[i].width < 0 ? ':' : '-');
        for (int k = 0; k < width_of(&columns[i]); k++)
            putchar('-');
        putchar(columns[i].width < 0 ? '-' : ':');
    }
    lw_md_end();
}

/* Names come from other machines too. */
void lw_md_text(const lw_md_column *column, const char *text)
{
    const int width = width_of(column);
    char cell[CELL_BYTES];

    snprintf(cell, sizeof(cell), "%s", text);
    for (char *c = cell; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f || *c == '|')
            *c = ' ';
    printf("| %*s ", column->width < 0 ? -width : width, cell);
}

static void print_number(const lw_md_column *column, double v, int digits)
{
    char text[32];

    snprintf(text, sizeof(text), "%.*f", digits, v);
    lw_md_text(column, isnan(v) ? "-" : text);
}

void lw_md_number(const lw_md_column *column, double v)
{
    print_number(column, v, v < 10 ? 2 : v < 100 ? 1 : 0);
}

void lw_md_whole(const lw_md_column *column, double v)
{
    print_number(column, v, 0);
}

void lw_md_end(void)
{
    puts("|");
}
