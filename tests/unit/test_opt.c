/* Option tables: where a value comes from, and what is said when it does not fit. */

#include "tests/unit/unit.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/opt.h"

typedef struct options {
    bool preview, json;
    int64_t steps, seed;
    double guidance;
    const char *size, *level, *model;
    lw_opt_list device;
} options;

static const lw_opt table[] = {
    { "size", 's', LW_OPT_STR, offsetof(options, size), "1024x1024", 0, 0, NULL, "WxH",
      "Size of the picture" },
    { "steps", 0, LW_OPT_INT, offsetof(options, steps), "8", 1, 1000, NULL, NULL,
      "Evaluations of the denoiser" },
    { "seed", 0, LW_OPT_INT, offsetof(options, seed), NULL, 0, 0, NULL, NULL, "Noise" },
    { "guidance", 'g', LW_OPT_DOUBLE, offsetof(options, guidance), "0", -1, 50, NULL, "G",
      "Strength" },
    { "preview", 'p', LW_OPT_FLAG, offsetof(options, preview), "true", 0, 0, NULL, NULL,
      "Leave out previews" },
    { "json", 0, LW_OPT_FLAG, offsetof(options, json), NULL, 0, 0, NULL, NULL, "For machines" },
    { "log-level", 0, LW_OPT_CHOICE, offsetof(options, level), "info", 0, 0,
      "error|warn|info|debug", "LEVEL", "How much is logged" },
    { "device", 0, LW_OPT_LIST, offsetof(options, device), NULL, 0, 0, NULL, "STAGE=DEVICE",
      "Device of a stage" },
    { "model", 0, LW_OPT_STR, offsetof(options, model), NULL, 0, 0, NULL, "DIR", "Model" },
    LW_OPT_END,
};

#define MAX_ARGS 2

typedef struct outcome {
    options o;
    const char *args[MAX_ARGS];
    int n_args;
    bool help;
    lw_err err;
    lw_status status;
} outcome;

static char line[4096];

/* Parse a command line given as words between '|'. */
static outcome parse(const char *words)
{
    static char *argv[600];
    outcome r = { .status = LW_OK };
    int argc = 0;

    snprintf(line, sizeof(line), "prog|%s", words);
    for (char *save, *w = strtok_r(line, "|", &save); w; w = strtok_r(NULL, "|", &save))
        argv[argc++] = w;
    argv[argc] = NULL;
    r.status = lw_opt_parse(table, argc, argv, &r.o, r.args, MAX_ARGS, &r.n_args, &r.help, &r.err);
    return r;
}

static void assert_refused(const char *words, const char *text)
{
    outcome r = parse(words);

    assert_int_equal(r.status, LW_E_INVALID);
    assert_int_equal(r.err.code, LW_E_INVALID);
    if (strcmp(r.err.text, text) != 0)
        fail_msg("%s: said \"%s\", expected \"%s\"", words, r.err.text, text);
}

static void defaults(void **state)
{
    outcome r = parse("");

    (void)state;
    assert_int_equal(r.status, LW_OK);
    assert_string_equal(r.o.size, "1024x1024");
    assert_int_equal(r.o.steps, 8);
    assert_int_equal(r.o.seed, 0);
    assert_true(r.o.preview);
    assert_false(r.o.json);
    assert_string_equal(r.o.level, "info");
    assert_null(r.o.model);
    assert_int_equal(r.n_args, 0);
    assert_false(r.help);
}

static void forms(void **state)
{
    outcome r = parse("--steps=3|a cat|-s|64x32|-g-1|--no-preview|--json|--device|a=b|--device=c=d|"
                      "--seed|-9223372036854775808|--log-level|warn|two");

    (void)state;
    assert_ok(r.status, &r.err);
    assert_int_equal(r.o.steps, 3);
    assert_string_equal(r.o.size, "64x32");
    assert_true(r.o.guidance == -1);
    assert_false(r.o.preview);
    assert_true(r.o.json);
    assert_int_equal(r.o.device.n, 2);
    assert_string_equal(r.o.device.items[0], "a=b");
    assert_string_equal(r.o.device.items[1], "c=d");
    assert_true(r.o.seed == INT64_MIN);
    assert_string_equal(r.o.level, "warn");
    assert_int_equal(r.n_args, 2);
    assert_string_equal(r.args[0], "a cat");
    assert_string_equal(r.args[1], "two");

    r = parse("--|-5 degrees|--json"); /* behind "--" nothing is an option */
    assert_ok(r.status, &r.err);
    assert_int_equal(r.n_args, 2);
    assert_string_equal(r.args[0], "-5 degrees");
    assert_false(r.o.json);
    r = parse("-pg2.5|--guidance|1e1"); /* letters together; the last one counts */
    assert_ok(r.status, &r.err);
    assert_true(r.o.guidance == 10);
    assert_true(r.o.preview);
    r = parse("--no-preview|--preview");
    assert_true(r.o.preview);
    r = parse("--model=--steps"); /* "=" makes any text a value */
    assert_string_equal(r.o.model, "--steps");
    r = parse("--mod|x"); /* as getopt_long: a unique beginning is enough */
    assert_string_equal(r.o.model, "x");
    r = parse("-"); /* a file called standard input */
    assert_int_equal(r.n_args, 1);
    assert_string_equal(r.args[0], "-");
}

static void faults_name_option_value_and_expectation(void **state)
{
    (void)state;
    assert_refused("--steps|x", "--steps: expected an integer from 1 to 1000, got \"x\"");
    assert_refused("--steps|0", "--steps: expected an integer from 1 to 1000, got \"0\"");
    assert_refused("--steps|1001", "--steps: expected an integer from 1 to 1000, got \"1001\"");
    assert_refused("--steps|-1", "--steps: expected an integer from 1 to 1000, got \"-1\"");
    assert_refused("--steps|8 ", "--steps: expected an integer from 1 to 1000, got \"8 \"");
    assert_refused("--steps| 8", "--steps: expected an integer from 1 to 1000, got \" 8\"");
    assert_refused("--steps=", "--steps: expected an integer from 1 to 1000, got \"\"");
    assert_refused("--steps|8.0", "--steps: expected an integer from 1 to 1000, got \"8.0\"");
    assert_refused("--seed|9223372036854775808",
                   "--seed: expected an integer, got \"9223372036854775808\"");
    assert_refused("--guidance|nan", "--guidance: expected a number from -1 to 50, got \"nan\"");
    assert_refused("--guidance|inf", "--guidance: expected a number from -1 to 50, got \"inf\"");
    assert_refused("-g|-1.5", "--guidance: expected a number from -1 to 50, got \"-1.5\"");
    assert_refused("--log-level|loud",
                   "--log-level: expected error, warn, info or debug, got \"loud\"");
    assert_refused("--log-level|warn|--log-level=",
                   "--log-level: expected error, warn, info or debug, got \"\"");
    assert_refused("--log-level|err",
                   "--log-level: expected error, warn, info or debug, got \"err\"");
    assert_refused("--size", "--size needs a value: WxH");
    assert_refused("-s", "--size needs a value: WxH");
    assert_refused("--size|--steps|4", "--size needs a value: WxH");
    assert_refused("--size|--steps=4", "--size needs a value: WxH");
    assert_refused("--stepz|4", "unknown option --stepz; did you mean --steps?");
    assert_refused("--no-steps", "unknown option --no-steps; see --help");
    assert_refused("--colour", "unknown option --colour; see --help");
    assert_refused("--colour=red", "unknown option --colour; see --help");
    assert_refused("--se=4|--s|4", "--s is short for several options; see --help");
    assert_refused("--json=yes", "--json takes no value, got \"yes\"");
    assert_refused("-x", "unknown option -x; see --help");
    assert_refused("-px", "unknown option -x; see --help");
    assert_refused("a|b|c",
                   "unexpected argument \"c\": at most 2 taken, and text with spaces needs "
                   "quotes; see --help");
}

static void a_list_has_an_end(void **state)
{
    char words[2000] = "--device=x";

    (void)state;
    for (int i = 1; i < 32; i++)
        strcat(words, "|--device=x");
    assert_int_equal(parse(words).o.device.n, 32);
    strcat(words, "|--device=x");
    assert_refused(words, "--device: given more than 32 times");
}

static void flag_beats_environment_beats_default(void **state)
{
    outcome r;

    (void)state;
    setenv("LATENTWIRE_STEPS", "20", 1);
    setenv("LATENTWIRE_LOG_LEVEL", "debug", 1);
    setenv("LATENTWIRE_PREVIEW", "off", 1);
    setenv("LATENTWIRE_DEVICE", "dit=cuda:0", 1);
    setenv("LATENTWIRE_SIZE", "", 1); /* empty counts as unset */
    r = parse("");
    assert_ok(r.status, &r.err);
    assert_int_equal(r.o.steps, 20);
    assert_string_equal(r.o.level, "debug");
    assert_false(r.o.preview);
    assert_int_equal(r.o.device.n, 1);
    assert_string_equal(r.o.size, "1024x1024");
    r = parse("--steps|3|--preview|--device|x");
    assert_int_equal(r.o.steps, 3);
    assert_true(r.o.preview);
    assert_int_equal(r.o.device.n, 1);
    assert_string_equal(r.o.device.items[0], "x");

    setenv("LATENTWIRE_STEPS", "lots", 1);
    assert_refused("", "LATENTWIRE_STEPS: expected an integer from 1 to 1000, got \"lots\"");
    assert_int_equal(parse("--steps|3").status, LW_OK); /* not used, so not in the way */
    setenv("LATENTWIRE_STEPS", "20", 1);
    setenv("LATENTWIRE_JSON", "perhaps", 1);
    assert_refused("", "LATENTWIRE_JSON: expected true or false, got \"perhaps\"");
    unsetenv("LATENTWIRE_STEPS");
    unsetenv("LATENTWIRE_LOG_LEVEL");
    unsetenv("LATENTWIRE_PREVIEW");
    unsetenv("LATENTWIRE_DEVICE");
    unsetenv("LATENTWIRE_SIZE");
    unsetenv("LATENTWIRE_JSON");
}

static void help_shows_every_option(void **state)
{
    static const char want[] =
        "Usage: latentwire generate [OPTIONS] PROMPT\n"
        "\n"
        "Make a picture from a prompt.\n"
        "\n"
        "Options:\n"
        "  -s, --size WxH             Size of the picture (default: 1024x1024)\n"
        "      --steps N              Evaluations of the denoiser (default: 8)\n"
        "      --seed N               Noise\n"
        "  -g, --guidance G           Strength (default: 0)\n"
        "  -p, --no-preview           Leave out previews\n"
        "      --json                 For machines\n"
        "      --log-level LEVEL      How much is logged: error, warn, info or debug\n"
        "                             (default: info)\n"
        "      --device STAGE=DEVICE  Device of a stage (may be repeated)\n"
        "      --model DIR            Model\n"
        "  -h, --help                 Show this text and exit\n"
        "\n"
        "Every option can be set in the environment too, as LATENTWIRE_NAME in upper case\n"
        "with '_' for '-' (LATENTWIRE_SIZE); a flag wins.\n";
    char text[4096] = "";
    FILE *f = fmemopen(text, sizeof(text), "w");

    (void)state;
    lw_opt_help(f, table, "latentwire generate [OPTIONS] PROMPT", "Make a picture from a prompt.");
    fclose(f);
    assert_string_equal(text, want);
}

/* Parse with standard output going into a file; *ret holds what it got. */
static outcome parse_to(const char *words, char *ret, size_t size)
{
    int saved = dup(STDOUT_FILENO), fd;
    outcome r;
    ssize_t n;

    fflush(stdout);
    fd = open(unit_tmp("stdout"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    dup2(fd, STDOUT_FILENO);
    r = parse(words);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    n = pread(fd, ret, size - 1, 0);
    ret[n > 0 ? n : 0] = '\0';
    close(fd);
    return r;
}

static void a_switch_that_nobody_says_stays_as_it_was(void **state)
{
    static const lw_opt one[] = { { .name = "think", .kind = LW_OPT_SWITCH, .help = "Think" },
                                  LW_OPT_END };
    static const struct {
        const char *word, *environment;
        int want;
    } cases[] = { { "", NULL, -1 },         { "--think", NULL, 1 }, { "--no-think", NULL, 0 },
                  { "", "yes", 1 },         { "", "0", 0 },         { "--no-think", "yes", 0 },
                  { "--think", "maybe", 1 } };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        char prog[] = "prog", word[16], *argv[] = { prog, word, NULL };
        int value = -1, n_args = 0;
        bool help = false;
        lw_err err = { 0 };

        snprintf(word, sizeof(word), "%s", cases[i].word);
        if (cases[i].environment)
            setenv("LATENTWIRE_THINK", cases[i].environment, 1);
        assert_ok(
            lw_opt_parse(one, *cases[i].word ? 2 : 1, argv, &value, NULL, 0, &n_args, &help, &err),
            &err);
        assert_int_equal(value, cases[i].want);
        unsetenv("LATENTWIRE_THINK");
    }
}

static void help_wins_over_a_bad_environment(void **state)
{
    char text[4096];
    outcome r;

    (void)state;
    setenv("LATENTWIRE_STEPS", "lots", 1);
    lw_opt_describe("prog [OPTIONS]", "About.");
    r = parse_to("--help", text, sizeof(text));
    assert_int_equal(r.status, LW_OK);
    assert_true(r.help);
    assert_contains(text, "Usage: prog [OPTIONS]\n\nAbout.\n\nOptions:\n  -s, --size WxH ");
    r = parse_to("-h", text, sizeof(text));
    assert_true(r.help);
    r = parse_to("--json", text, sizeof(text));
    assert_int_equal(r.status, LW_E_INVALID);
    assert_string_equal(text, "");
    unsetenv("LATENTWIRE_STEPS");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(forms),
        cmocka_unit_test(faults_name_option_value_and_expectation),
        cmocka_unit_test(a_list_has_an_end),
        cmocka_unit_test(flag_beats_environment_beats_default),
        cmocka_unit_test(help_shows_every_option),
        cmocka_unit_test(a_switch_that_nobody_says_stays_as_it_was),
        cmocka_unit_test(help_wins_over_a_bad_environment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
