#ifndef LW_COMMON_OPT_H
#define LW_COMMON_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"

/*
 * One option table per program or verb: parses (getopt_long), validates, sets defaults and prints
 * the help, so these never drift apart. Precedence: flag, then environment
 * (LATENTWIRE_<NAME>, upper case, '-' as '_'), then the default in the table. An empty variable
 * counts as unset; a flag's is 1/0, true/false, yes/no or on/off; a list's is one item. A variable
 * that a flag overrides is not looked at.
 */

typedef enum lw_opt_kind {
    LW_OPT_FLAG,   /* bool: --name / --no-name; the help shows the one that changes the default */
    LW_OPT_SWITCH, /* int: as FLAG, 1 or 0; stays what it was when nobody says either */
    LW_OPT_INT,    /* int64_t in [min, max] */
    LW_OPT_DOUBLE, /* double in [min, max] */
    LW_OPT_STR,    /* const char * */
    LW_OPT_CHOICE, /* const char *, one of `choices` ("a|b|c") */
    LW_OPT_LIST    /* lw_opt_list: may be given several times */
} lw_opt_kind;

typedef struct lw_opt_list {
    const char *items[32];
    int n;
} lw_opt_list;

typedef struct lw_opt {
    const char *name; /* "size"; long name without dashes */
    char letter;      /* short form or 0 */
    lw_opt_kind kind;
    size_t offset;    /* of the target field in the caller's struct */
    const char *dflt; /* default as text, NULL = leave the field zero */
    double min, max;  /* of INT and DOUBLE; both 0 = any */
    const char *choices;
    const char *value; /* placeholder in the help: "WxH" */
    const char *help;  /* one line */
} lw_opt;

#define LW_OPT_END                                                                                 \
    {                                                                                              \
        .name = NULL                                                                               \
    }

/**
 * Parse argv (argv[0] is skipped) into *target. Positional arguments are returned in
 * order, pointing into argv. "--help" prints the help to stdout and gives LW_OK with *ret_help
 * true. Errors: LW_E_INVALID, naming the option, the value and what it should have been. Strings
 * point into argv, the environment or the table and live as long as the process.
 */
LW_MUST_USE lw_status lw_opt_parse(const lw_opt *table, int argc, char **argv, void *target,
                                   const char **ret_args, int max_args, int *ret_n_args,
                                   bool *ret_help, lw_err *err);

/** Print "usage", a sentence, and one line an option with its default. */
void lw_opt_help(FILE *out, const lw_opt *table, const char *usage, const char *about);

/** The usage and about lines that --help prints; set before lw_opt_parse. */
void lw_opt_describe(const char *usage, const char *about);

#endif
