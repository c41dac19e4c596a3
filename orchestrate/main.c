/*
 * `latentwire`: a table of verbs. Here alone errors are printed and become exit codes.
 */

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lw_version.h"
#include "orchestrate/cli.h"

static const struct {
    const char *name;
    lw_verb_fn *run;
    const char *help;
} verbs[] = {
    { "generate", lw_cli_generate, "make pictures from a prompt" },
    { "prompt", lw_cli_prompt, "what becomes of a prompt: its text and its tokens" },
    { "encode", lw_cli_encode, "one stage: prompt to embeddings (safetensors)" },
    { "denoise", lw_cli_denoise, "one stage: embeddings to latents (safetensors)" },
    { "decode", lw_cli_decode, "one stage: latents to pictures" },
    { "encode-image", lw_cli_encode_image, "the way back: a picture to latents" },
    { "show", lw_cli_show, "what a picture was made from" },
    { "replay", lw_cli_replay, "make a picture again and compare" },
    { "compare", lw_cli_compare, "embeddings or pictures against each other" },
    { "experiment", lw_cli_experiment, "a grid of pictures from a YAML file, and its report" },
    { "hub", NULL, "run a hub that workers and clients connect to" },
    { "status", lw_cli_status, "show a running hub, its workers and jobs" },
    { "doctor", lw_cli_doctor, "check this machine, the programs and the model" },
    { "convert", lw_cli_convert, "write a model with its large layers in 8 bits" },
    { "bench", lw_cli_bench, "how fast operations and stages are on this machine" },
    { "keys", lw_cli_keys, "make keys for a hub on tcp" },
    { "templates", lw_cli_templates, "list, show, render, check or begin prompt templates" },
    { "version", NULL, "print the version" },
    { "help", NULL, "print this" },
};

static void print_help(FILE *out)
{
    fprintf(out, "usage: latentwire VERB [OPTION]... [ARGUMENT]...\n"
                 "Turn a prompt into a picture with three processes.\n\n");
    for (size_t i = 0; i < LW_ARRAY_LEN(verbs); i++)
        fprintf(out, "  %-14s %s\n", verbs[i].name, verbs[i].help);
    fprintf(out,
            "\n`latentwire VERB --help` lists the options of a verb. Each option may also come "
            "from the\nenvironment: --model is LATENTWIRE_MODEL. Exit codes: docs/errors.md.\n");
}

/* For people on standard error; for programs, when they asked for JSON, on standard output. */
static int report(const lw_cli *cli, const lw_err *err)
{
    if (cli->told)
        return lw_status_exit(err->code);
    fprintf(stderr, "latentwire: error: %s\n",
            err->text[0] ? err->text : lw_status_text(err->code));
    if (cli->json) {
        json_t *o = json_pack("{s:{s:s, s:s, s:i}}", "error", "code", lw_status_name(err->code),
                              "message", err->text, "exit_code", lw_status_exit(err->code));

        if (o)
            json_dumpf(o, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(o);
    }
    return lw_status_exit(err->code);
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    lw_cli cli = { 0 };
    lw_err err = { 0 };

    if (!strcmp(verb, "help") || !strcmp(verb, "--help") || !strcmp(verb, "-h")) {
        print_help(stdout);
        return 0;
    }
    if (!strcmp(verb, "version") || !strcmp(verb, "--version")) {
        puts("latentwire " LW_VERSION);
        return 0;
    }
    if (!strcmp(verb, "hub"))
        return lw_cli_hub(argc - 1, argv + 1);
    for (size_t i = 0; i < LW_ARRAY_LEN(verbs); i++) {
        if (!verbs[i].run || strcmp(verb, verbs[i].name))
            continue;
        if (verbs[i].run(&cli, argc - 1, argv + 1, &err) != LW_OK)
            return report(&cli, &err);
        return 0;
    }
    if (verb[0])
        lw_fail(&err, LW_E_INVALID, "there is no verb \"%s\"; `latentwire help` lists them", verb);
    else
        lw_fail(&err, LW_E_INVALID, "a verb is missing; `latentwire help` lists them");
    return report(&cli, &err);
}
