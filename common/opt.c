/*
 * Option tables. getopt_long does the cutting into options and arguments; what a value means, where
 * it may come from (flag, environment, default) and what is said when it does not fit is here.
 */

#include "common/opt.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"

#define MAX_OPTIONS 64
#define ENV_PREFIX  "LATENTWIRE_"
#define NAME_BYTES  64

/* Values of getopt_long for long options; letters lie below. */
enum { VAL_SET = 1000, VAL_CLEAR = 2000, VAL_HELP = 3000 };

static const char *usage_line = "[OPTIONS]", *about_line;

void lw_opt_describe(const char *usage, const char *about)
{
    usage_line = usage;
    about_line = about;
}

static int table_len(const lw_opt *table)
{
    int n = 0;

    while (table[n].name)
        n++;
    assert(n <= MAX_OPTIONS);
    return n;
}

static bool is_flag(const lw_opt *o)
{
    return o->kind == LW_OPT_FLAG || o->kind == LW_OPT_SWITCH;
}

static bool bounded(const lw_opt *o)
{
    return o->min < o->max; /* both 0 = any */
}

/* "an integer from 1 to 100", for messages. */
static const char *expectation(const lw_opt *o, char *buf, size_t size)
{
    const char *kind = o->kind == LW_OPT_INT ? "an integer" : "a number";

    switch (o->kind) {
    case LW_OPT_FLAG:
    case LW_OPT_SWITCH:
        snprintf(buf, size, "true or false");
        break;
    case LW_OPT_INT:
    case LW_OPT_DOUBLE:
        if (bounded(o))
            snprintf(buf, size, "%s from %.15g to %.15g", kind, o->min, o->max);
        else
            snprintf(buf, size, "%s", kind);
        break;
    case LW_OPT_CHOICE: {
        size_t len = 0;

        for (const char *c = o->choices; *c && len + 8 < size; c++) {
            if (*c == '|') {
                const char *word = strchr(c + 1, '|') ? ", " : " or ";

                len += (size_t)snprintf(buf + len, size - len, "%s", word);
            } else {
                buf[len++] = *c;
            }
        }
        buf[len] = '\0';
        break;
    }
    case LW_OPT_STR:
    case LW_OPT_LIST:
        snprintf(buf, size, "%s", o->value ? o->value : "a text");
        break;
    }
    return buf;
}

/* `source` is how the user wrote it: "--steps", "LATENTWIRE_STEPS" or "default of --steps". */
static lw_status bad_value(const lw_opt *o, const char *source, const char *text, lw_err *err)
{
    char expected[256];

    return lw_fail(err, LW_E_INVALID, "%s: expected %s, got \"%s\"", source,
                   expectation(o, expected, sizeof(expected)), text);
}

static bool is_choice(const char *choices, const char *text)
{
    size_t n = strlen(text);

    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
        if (n && strncmp(c, text, n) == 0 && (c[n] == '|' || c[n] == '\0'))
            return true;
    return false;
}

static bool parse_int(const char *text, int64_t *ret)
{
    char *end;

    if (*text == '\0' || isspace((unsigned char)*text))
        return false;
    errno = 0;
    *ret = strtoll(text, &end, 10);
    return *end == '\0' && errno == 0;
}

static bool parse_double(const char *text, double *ret)
{
    char *end;

    if (*text == '\0' || isspace((unsigned char)*text))
        return false;
    *ret = strtod(text, &end);
    return *end == '\0' && isfinite(*ret);
}

static bool parse_bool(const char *text, bool *ret)
{
    static const char *const yes[] = { "1", "true", "yes", "on" };
    static const char *const no[] = { "0", "false", "no", "off" };

    for (size_t i = 0; i < LW_ARRAY_LEN(yes); i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *ret = strcasecmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static lw_status assign(const lw_opt *o, void *target, const char *source, const char *text,
                        lw_err *err)
{
    void *field = (char *)target + o->offset;

    switch (o->kind) {
    case LW_OPT_FLAG:
    case LW_OPT_SWITCH: {
        bool v;

        if (!parse_bool(text, &v))
            return bad_value(o, source, text, err);
        if (o->kind == LW_OPT_FLAG)
            *(bool *)field = v;
        else
            *(int *)field = v;
        break;
    }
    case LW_OPT_INT: {
        int64_t v;

        if (!parse_int(text, &v) || (bounded(o) && ((double)v < o->min || (double)v > o->max)))
            return bad_value(o, source, text, err);
        *(int64_t *)field = v;
        break;
    }
    case LW_OPT_DOUBLE: {
        double v;

        if (!parse_double(text, &v) || (bounded(o) && (v < o->min || v > o->max)))
            return bad_value(o, source, text, err);
        *(double *)field = v;
        break;
    }
    case LW_OPT_CHOICE:
        if (!is_choice(o->choices, text))
            return bad_value(o, source, text, err);
        *(const char **)field = text;
        break;
    case LW_OPT_STR:
        *(const char **)field = text;
        break;
    case LW_OPT_LIST: {
        lw_opt_list *list = field;

        if (list->n == (int)LW_ARRAY_LEN(list->items))
            return lw_fail(err, LW_E_INVALID, "%s: given more than %d times", source, list->n);
        list->items[list->n++] = text;
        break;
    }
    }
    return LW_OK;
}

static void env_name(const lw_opt *o, char buf[NAME_BYTES])
{
    int n = snprintf(buf, NAME_BYTES, ENV_PREFIX "%s", o->name);

    assert(n < NAME_BYTES);
    for (int i = (int)strlen(ENV_PREFIX); i < n; i++)
        buf[i] = buf[i] == '-' ? '_' : (char)toupper((unsigned char)buf[i]);
}

/* Options that no flag has set: environment, then default. An empty variable counts as unset. */
static lw_status fill_rest(const lw_opt *table, const bool *given, void *target, lw_err *err)
{
    for (int i = 0; table[i].name; i++) {
        char source[NAME_BYTES + 16];
        const char *text;

        if (given[i])
            continue;
        env_name(&table[i], source);
        text = getenv(source);
        if (text == NULL || *text == '\0') {
            text = table[i].dflt;
            snprintf(source, sizeof(source), "default of --%s", table[i].name);
        }
        if (text)
            LW_TRY(assign(&table[i], target, source, text, err));
    }
    return LW_OK;
}

/* Edit distance, for "did you mean"; names longer than the rows are far from everything. */
static int distance(const char *a, const char *b)
{
    int row[NAME_BYTES], n = (int)strlen(b);

    if (n >= NAME_BYTES)
        return INT_MAX;
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];

        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);

            best = best < row[j] + 1 ? best : row[j] + 1;
            best = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

static lw_status unknown_long(const struct option *longs, const char *arg, lw_err *err)
{
    char name[NAME_BYTES];
    const char *nearest = NULL;
    size_t len = strcspn(arg + 2, "=");
    int best = 3, n_prefix = 0; /* more than two slips are another word */

    if (len >= sizeof(name))
        return lw_fail(err, LW_E_INVALID, "unknown option \"%.60s...\"; see --help", arg);
    memcpy(name, arg + 2, len);
    name[len] = '\0';
    for (const struct option *o = longs; o->name; o++) {
        int d = distance(name, o->name);

        if (strcmp(name, o->name) == 0) /* known, so only its value can be wrong */
            return lw_fail(err, LW_E_INVALID, "--%s takes no value, got \"%s\"", name,
                           arg + 2 + len + 1);
        n_prefix += len && strncmp(o->name, name, len) == 0;
        if (d < best) {
            best = d;
            nearest = o->name;
        }
    }
    if (n_prefix > 1)
        return lw_fail(err, LW_E_INVALID, "--%s is short for several options; see --help", name);
    if (nearest)
        return lw_fail(err, LW_E_INVALID, "unknown option --%s; did you mean --%s?", name, nearest);
    return lw_fail(err, LW_E_INVALID, "unknown option --%s; see --help", name);
}

/* "--size --steps 4" means that the size was forgotten, not that it is "--steps". */
static bool looks_like_option(const struct option *longs, const char *text)
{
    if (strncmp(text, "--", 2) != 0)
        return false;
    for (const struct option *o = longs; o->name; o++) {
        size_t n = strlen(o->name);

        if (strncmp(text + 2, o->name, n) == 0 && (text[2 + n] == '\0' || text[2 + n] == '='))
            return true;
    }
    return false;
}

/* The forms that getopt_long wants. longs has room for every "--no-" form, help and the end. */
static void build_getopt(const lw_opt *table, struct option *longs, char *names, char *shorts)
{
    bool has_h = false;
    int n = 0;

    *shorts++ = ':'; /* tells a missing value from an unknown option */
    for (int i = 0; table[i].name; i++) {
        const lw_opt *o = &table[i];
        bool flag = is_flag(o);

        longs[n++] =
            (struct option){ o->name, flag ? no_argument : required_argument, NULL, VAL_SET + i };
        if (flag) {
            snprintf(names, NAME_BYTES, "no-%s", o->name);
            longs[n++] = (struct option){ names, no_argument, NULL, VAL_CLEAR + i };
            names += NAME_BYTES;
        }
        if (o->letter) {
            *shorts++ = o->letter;
            if (!flag)
                *shorts++ = ':';
            has_h = has_h || o->letter == 'h';
        }
    }
    longs[n++] = (struct option){ "help", no_argument, NULL, VAL_HELP };
    longs[n] = (struct option){ 0 };
    if (!has_h)
        *shorts++ = 'h';
    *shorts = '\0';
}

static int index_of_letter(const lw_opt *table, int letter)
{
    for (int i = 0; table[i].name; i++)
        if (table[i].letter == letter)
            return i;
    return -1;
}

lw_status lw_opt_parse(const lw_opt *table, int argc, char **argv, void *target,
                       const char **ret_args, int max_args, int *ret_n_args, bool *ret_help,
                       lw_err *err)
{
    struct option longs[2 * MAX_OPTIONS + 2];
    char names[MAX_OPTIONS * NAME_BYTES], shorts[2 * MAX_OPTIONS + 3];
    bool given[MAX_OPTIONS] = { false };
    int c;

    build_getopt(table, longs, names, shorts);
    *ret_help = false;
    *ret_n_args = 0;
    opterr = 0;
    optind = 0; /* GNU: start afresh */
    while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        char source[NAME_BYTES + 4];
        bool clear = c >= VAL_CLEAR && c < VAL_HELP;
        int i;

        if (c == '?' && optopt > 0 && optopt < VAL_SET)
            return lw_fail(err, LW_E_INVALID, "unknown option -%c; see --help", optopt);
        if (c == '?')
            return unknown_long(longs, argv[optind - 1], err);
        if (c == ':' && optopt < VAL_SET)
            i = index_of_letter(table, optopt);
        else if (c == ':')
            i = optopt - VAL_SET;
        else if (c == VAL_HELP || (c == 'h' && index_of_letter(table, 'h') < 0)) {
            lw_opt_help(stdout, table, usage_line, about_line);
            *ret_help = true;
            return LW_OK;
        } else {
            i = clear ? c - VAL_CLEAR : c >= VAL_SET ? c - VAL_SET : index_of_letter(table, c);
        }
        assert(i >= 0);
        snprintf(source, sizeof(source), "--%s", table[i].name);
        if (c == ':' ||
            (optarg && optarg == argv[optind - 1] && looks_like_option(longs, optarg))) {
            char expected[256];

            return lw_fail(err, LW_E_INVALID, "%s needs a value: %s", source,
                           expectation(&table[i], expected, sizeof(expected)));
        }
        if (table[i].kind == LW_OPT_LIST && !given[i])
            ((lw_opt_list *)((char *)target + table[i].offset))->n = 0;
        given[i] = true;
        LW_TRY(assign(&table[i], target, source, optarg ? optarg : clear ? "false" : "true", err));
    }
    LW_TRY(fill_rest(table, given, target, err));
    for (; optind < argc; optind++) {
        if (*ret_n_args == max_args)
            return lw_fail(
                err, LW_E_INVALID,
                max_args ? "unexpected argument \"%s\": at most %d taken, and text with spaces "
                           "needs quotes; see --help"
                         : "unexpected argument \"%s\"; see --help",
                argv[optind], max_args);
        ret_args[(*ret_n_args)++] = argv[optind];
    }
    return LW_OK;
}

#define HELP_WIDTH  80
#define HELP_INDENT 6  /* "  -s, " */
#define HELP_MAX    30 /* a longer left column gets a line of its own */

/* Terminal columns of a text, taking every character as one wide. */
static int columns(const char *s)
{
    int n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void left_column(const lw_opt *o, char *buf, size_t size)
{
    const char *dflt = o->dflt ? o->dflt : "";
    bool on = false;

    if (is_flag(o))
        snprintf(buf, size, "--%s%s", parse_bool(dflt, &on) && on ? "no-" : "", o->name);
    else
        snprintf(buf, size, "--%s %s", o->name,
                 o->value                   ? o->value
                 : o->kind == LW_OPT_INT    ? "N"
                 : o->kind == LW_OPT_DOUBLE ? "X"
                                            : "TEXT");
}

/* Words from `column` on, continued at `indent`. */
static void wrap(FILE *out, const char *text, int column, int indent)
{
    bool first = true;

    while (*text) {
        size_t n = strcspn(text, " ");
        char word[256];
        int w;

        n = n < sizeof(word) ? n : lw_utf8_trim(text, sizeof(word) - 1);
        memcpy(word, text, n);
        word[n] = '\0';
        w = columns(word);
        if (!first && column + 1 + w > HELP_WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
            first = true;
        }
        fprintf(out, "%s%s", first ? "" : " ", word);
        column += w + !first;
        first = false;
        text += n;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void help_line(FILE *out, const char *left, char letter, const char *text, int width)
{
    int indent = HELP_INDENT + width + 2, column = HELP_INDENT + columns(left);

    if (letter)
        fprintf(out, "  -%c, %s", letter, left);
    else
        fprintf(out, "      %s", left);
    if (column + 2 > indent) {
        fputc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", indent - column, "");
    wrap(out, text, indent, indent);
}

void lw_opt_help(FILE *out, const lw_opt *table, const char *usage, const char *about)
{
    char left[128], text[512];
    int width = (int)strlen("--help"), n = table_len(table);

    for (int i = 0; i < n; i++) {
        int w;

        left_column(&table[i], left, sizeof(left));
        w = columns(left);
        if (w > width && w <= HELP_MAX)
            width = w;
    }
    fprintf(out, "Usage: %s\n", usage);
    if (about && *about) {
        fputc('\n', out);
        wrap(out, about, 0, 0);
    }
    fputs("\nOptions:\n", out);
    for (int i = 0; i < n; i++) {
        const lw_opt *o = &table[i];
        char extra[256] = "", expected[192];
        bool flag = is_flag(o);

        if (o->kind == LW_OPT_CHOICE)
            snprintf(extra, sizeof(extra), ": %s", expectation(o, expected, sizeof(expected)));
        if (o->kind == LW_OPT_LIST)
            snprintf(extra, sizeof(extra), " (may be repeated)");
        snprintf(text, sizeof(text), "%s%s%s%s%s", o->help ? o->help : "", extra,
                 o->dflt && *o->dflt && !flag ? " (default: " : "",
                 o->dflt && *o->dflt && !flag ? o->dflt : "",
                 o->dflt && *o->dflt && !flag ? ")" : "");
        left_column(o, left, sizeof(left));
        help_line(out, left, o->letter, text, width);
    }
    help_line(out, "--help", index_of_letter(table, 'h') < 0 ? 'h' : 0, "Show this text and exit",
              width);
    if (n) {
        char name[NAME_BYTES];

        env_name(&table[0], name);
        fputc('\n', out);
        snprintf(text, sizeof(text),
                 "Every option can be set in the environment too, as " ENV_PREFIX
                 "NAME in upper case with '_' for '-' (%s); a flag wins.",
                 name);
        wrap(out, text, 0, 0);
    }
}
