#ifndef LW_ORCHESTRATE_CLI_H
#define LW_ORCHESTRATE_CLI_H

#include <stdbool.h>

#include "common/err.h"

/*
 * The verbs of `latentwire`. argv[0] is the verb. A verb prints its result on standard output and
 * returns what went wrong; main() prints the error, once, and turns it into the exit code.
 */

/** What main() must know of a verb that failed. */
typedef struct lw_cli {
    bool json; /* --json was given: the error goes to standard output too, as an object */
    bool told; /* the failure is the verb's result, and printed: there is only the exit code left */
} lw_cli;

typedef lw_status lw_verb_fn(lw_cli *cli, int argc, char **argv, lw_err *err);

lw_verb_fn lw_cli_generate;
lw_verb_fn lw_cli_prompt;
lw_verb_fn lw_cli_encode;
lw_verb_fn lw_cli_denoise;
lw_verb_fn lw_cli_decode;
lw_verb_fn lw_cli_encode_image;
lw_verb_fn lw_cli_compare;
lw_verb_fn lw_cli_experiment;
lw_verb_fn lw_cli_show;
lw_verb_fn lw_cli_replay;
lw_verb_fn lw_cli_status;
lw_verb_fn lw_cli_doctor;
lw_verb_fn lw_cli_keys;
lw_verb_fn lw_cli_convert;
lw_verb_fn lw_cli_bench;
lw_verb_fn lw_cli_templates;

/** `latentwire hub`: parses its own options and serves until SIGTERM; returns the exit code. */
int lw_cli_hub(int argc, char **argv);

#endif
