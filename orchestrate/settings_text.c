/* Texts of the prompt group: from arguments, standard input and files to what is sent. */

#include "orchestrate/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "common/buf.h"
#include "common/file.h"
#include "common/utf8.h"

#define MAX_PROMPT_BYTES 32768 /* the wire's limit of the field */
#define MAX_FILE_BYTES   (4u << 20)

/* ---- reading ---- */

/* All of standard input; `what` is for messages. */
static lw_status read_stdin(const char *what, size_t max, lw_buf *ret, lw_err *err)
{
    char part[4096];

    lw_buf_init(ret, max + sizeof(part) + 1);
    for (;;) {
        ssize_t got = read(STDIN_FILENO, part, sizeof(part));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return lw_fail(err, LW_E_IO, "cannot read %s from standard input: %s", what,
                           strerror(errno));
        if (got == 0)
            break;
        lw_buf_put(ret, part, (size_t)got);
        if (ret->len > max)
            return lw_fail(err, LW_E_TOO_LARGE, "%s on standard input is longer than %zu bytes",
                           what, max);
    }
    return ret->failed ? lw_fail(err, LW_E_NOMEM, "no memory for %s", what) : LW_OK;
}

lw_status lw_read_prompt(const char *arg, lw_arena *a, const char **ret, lw_err *err)
{
    lw_buf text;
    lw_status s;
    size_t n;

    if (strcmp(arg, "-")) {
        *ret = arg;
        return LW_OK;
    }
    s = read_stdin("the prompt", MAX_PROMPT_BYTES, &text, err);
    n = text.len;
    if (s == LW_OK && n > 0 && text.data[n - 1] == '\n')
        n--; /* the line end that `echo` adds is not part of a prompt */
    if (s == LW_OK && n > 0 && memchr(text.data, 0, n) != NULL)
        s = lw_fail(err, LW_E_INVALID, "the prompt on standard input has a zero byte in it");
    if (s == LW_OK && !(*ret = lw_arena_strndup(a, lw_buf_cstr(&text), n, err)))
        s = LW_E_NOMEM;
    lw_buf_deinit(&text);
    return s;
}

static lw_status check_line(const char *path, size_t number, const char *line, size_t n,
                            lw_err *err)
{
    if (n > MAX_PROMPT_BYTES)
        return lw_fail(err, LW_E_TOO_LARGE, "%s:%zu: the prompt is longer than %d bytes", path,
                       number, MAX_PROMPT_BYTES);
    if (memchr(line, 0, n))
        return lw_fail(err, LW_E_INVALID, "%s:%zu: the prompt has a zero byte in it", path, number);
    if (!lw_utf8_valid(line, n))
        return lw_fail(err, LW_E_INVALID, "%s:%zu: the prompt is not valid UTF-8", path, number);
    return LW_OK;
}

static bool is_left_out(const char *line, size_t n)
{
    size_t i = 0;

    while (i < n && strchr(" \t\r", line[i]) && line[i])
        i++;
    return i == n || line[0] == '#';
}

static lw_status split_lines(const char *path, const char *text, size_t n, lw_arena *a,
                             const char *const **ret, size_t *ret_n, lw_err *err)
{
    size_t lines = 1, found = 0;
    const char **list;

    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    list = lw_arena_calloc(a, lines, sizeof(*list), err);
    if (!list)
        return LW_E_NOMEM;
    for (size_t i = 0, number = 1; i < n; number++) {
        const char *line = text + i, *end = memchr(line, '\n', n - i);
        size_t len = end ? (size_t)(end - line) : n - i;

        i += len + 1;
        if (len > 0 && line[len - 1] == '\r')
            len--;
        if (is_left_out(line, len))
            continue;
        LW_TRY(check_line(path, number, line, len, err));
        list[found] = lw_arena_strndup(a, line, len, err);
        if (!list[found++])
            return LW_E_NOMEM;
    }
    if (!found)
        return lw_fail(err, LW_E_INVALID, "%s has no prompt: write one a line", path);
    *ret = list;
    *ret_n = found;
    return LW_OK;
}

lw_status lw_read_prompts(const char *path, lw_arena *a, const char *const **ret, size_t *ret_n,
                          lw_err *err)
{
    lw_buf text = { 0 };
    char *file = NULL;
    size_t n = 0;
    lw_status s;

    if (!strcmp(path, "-")) {
        s = read_stdin("the prompts", MAX_FILE_BYTES, &text, err);
        if (s == LW_OK)
            s = split_lines("standard input", lw_buf_cstr(&text), text.len, a, ret, ret_n, err);
        lw_buf_deinit(&text);
        return s;
    }
    s = lw_file_read(path, MAX_FILE_BYTES, &file, &n, err);
    if (s == LW_OK)
        s = split_lines(path, file, n, a, ret, ret_n, err);
    free(file);
    return s;
}

/* ---- cleaning ---- */

static bool is_white(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

/* Outer white space goes; of three and more line feeds two stay; of other white space one blank. */
static size_t clean(char *s, size_t n)
{
    size_t begin = 0, out = 0, feeds = 0;

    while (begin < n && (is_white(s[begin]) || s[begin] == '\n'))
        begin++;
    while (n > begin && (is_white(s[n - 1]) || s[n - 1] == '\n'))
        n--;
    for (size_t i = begin; i < n; i++) {
        feeds = s[i] == '\n' ? feeds + 1 : 0;
        if (feeds > 2 || (is_white(s[i]) && out > 0 && s[out - 1] == ' ' && is_white(s[i - 1])))
            continue;
        s[out++] = is_white(s[i]) ? ' ' : s[i];
    }
    return out;
}

const char *lw_settings_clean(const lw_settings *s, const char *text, lw_arena *a, lw_err *err)
{
    size_t n = 0;
    char *copy;

    if (!s->strip_quotes && !s->clean)
        return text;
    copy = lw_arena_strndup(a, text, strlen(text), err);
    if (!copy)
        return NULL;
    for (const char *c = copy; *c; c++)
        if (!s->strip_quotes || *c != '"')
            copy[n++] = *c;
    if (s->clean)
        n = clean(copy, n);
    copy[n] = '\0';
    return copy;
}

static lw_status clean_field(const lw_settings *s, const char **text, lw_arena *a, lw_err *err)
{
    if (!*text)
        return LW_OK;
    *text = lw_settings_clean(s, *text, a, err);
    return *text ? LW_OK : LW_E_NOMEM;
}

static lw_status clean_all(lw_settings *s, const char **prompt, lw_arena *a, lw_err *err)
{
    const char **const fields[] = { prompt,       &s->negative,  &s->system,
                                    &s->thinking, &s->assistant, &s->blend };

    for (size_t i = 0; i < LW_ARRAY_LEN(fields); i++)
        LW_TRY(clean_field(s, fields[i], a, err));
    return LW_OK;
}

static lw_status clean_turns(const lw_settings *s, json_t *turns, lw_arena *a, lw_err *err)
{
    static const char *const keys[] = { "content", "reasoning_content", "thinking" };

    for (size_t i = 0; i < json_array_size(turns); i++)
        for (size_t k = 0; k < LW_ARRAY_LEN(keys); k++) {
            json_t *turn = json_array_get(turns, i);
            const char *text = json_string_value(json_object_get(turn, keys[k]));

            LW_TRY(clean_field(s, &text, a, err));
            if (text && json_object_set_new(turn, keys[k], json_string(text)))
                return lw_fail(err, LW_E_NOMEM, "no memory for a conversation");
        }
    return LW_OK;
}

/* ---- a conversation ---- */

/* Take the last turn off the list as the prompt. */
static lw_status take_prompt(const char *path, json_t *turns, lw_arena *a, const char **ret,
                             lw_err *err)
{
    const size_t n = json_array_size(turns);
    const json_t *last = json_array_get(turns, n - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    const char *content = json_string_value(json_object_get(last, "content"));

    if (n == 0 || !role || strcmp(role, "user") != 0 || !content)
        return lw_fail(err, LW_E_INVALID,
                       "%s: the last message is not one of the user, so a prompt is needed as well",
                       path);
    *ret = lw_arena_strndup(a, content, strlen(content), err);
    return *ret && json_array_remove(turns, n - 1) == 0 ? LW_OK : LW_E_NOMEM;
}

static lw_status set_turns(lw_settings *s, const json_t *turns, lw_arena *a, lw_err *err)
{
    char *text;

    if (json_array_size(turns) == 0)
        return LW_OK;
    text = json_dumps(turns, JSON_COMPACT);
    s->turns = text ? lw_arena_strndup(a, text, strlen(text), err) : NULL;
    free(text);
    return s->turns ? LW_OK : lw_fail(err, LW_E_NOMEM, "no memory for a conversation");
}

/* The array itself, or the member "messages" of an object, as requests of chat services have it.
 * What the messages say is checked by the encoder. */
static lw_status read_messages(lw_settings *s, lw_arena *a, bool last_is_prompt,
                               const char **prompt, lw_err *err)
{
    json_error_t why;
    char *file = NULL;
    json_t *root, *turns;
    size_t n = 0;
    lw_status st;

    LW_TRY(lw_file_read(s->messages, MAX_FILE_BYTES, &file, &n, err));
    root = json_loadb(file, n, JSON_REJECT_DUPLICATES, &why);
    free(file);
    if (!root)
        return lw_fail(err, LW_E_INVALID, "%s:%d: not JSON: %.100s", s->messages, why.line,
                       why.text);
    turns = json_is_object(root) ? json_object_get(root, "messages") : root;
    st = json_is_array(turns) ? LW_OK
                              : lw_fail(err, LW_E_INVALID,
                                        "%s: expected a JSON array of messages, each with role and "
                                        "content",
                                        s->messages);
    if (st == LW_OK && last_is_prompt)
        st = take_prompt(s->messages, turns, a, prompt, err);
    if (st == LW_OK)
        st = clean_turns(s, turns, a, err);
    if (st == LW_OK)
        st = set_turns(s, turns, a, err);
    json_decref(root);
    return st;
}

/* ---- all of it ---- */

static lw_status bad_layers(const char *text, lw_err *err)
{
    return lw_fail(err, LW_E_INVALID,
                   "--layers: \"%.64s\" is not a list of 1 to %d layers with weights, such as "
                   "\"-2:0.7,-6:0.3\"",
                   text, LW_MAX_BLEND);
}

lw_status lw_parse_layers(const char *text, lw_arena *a, lw_f64s *ret, lw_err *err)
{
    double *v = lw_arena_calloc(a, 2 * LW_MAX_BLEND, sizeof(*v), err);
    uint32_t n = 0;

    if (!v)
        return LW_E_NOMEM;
    for (const char *at = text;; at++) {
        char *end;
        long layer = strtol(at, &end, 10);

        if (end == at || n == LW_MAX_BLEND || layer < -1024 || layer > 1024)
            return bad_layers(text, err);
        v[2 * n] = (double)layer;
        v[2 * n + 1] = 1;
        at = end;
        if (*at == ':') {
            v[2 * n + 1] = strtod(at + 1, &end);
            if (end == at + 1 || !(v[2 * n + 1] >= -1000 && v[2 * n + 1] <= 1000))
                return bad_layers(text, err);
            at = end;
        }
        n++;
        if (!*at)
            break;
        if (*at != ',')
            return bad_layers(text, err);
    }
    *ret = (lw_f64s){ .v = v, .n = 2 * n };
    return LW_OK;
}

static lw_status check_together(const lw_settings *s, lw_err *err)
{
    if (s->layers && s->layer != -2)
        return lw_fail(err, LW_E_INVALID, "--layer and --layers exclude each other");
    if (s->raw && s->messages)
        return lw_fail(err, LW_E_INVALID,
                       "--messages and --raw exclude each other: a raw prompt is the whole text");
    if (s->raw && s->keep && strcmp(s->keep, "all") != 0)
        return lw_fail(err, LW_E_INVALID,
                       "--keep and --raw exclude each other: a raw prompt is the whole text");
    if (s->noise_seed && s->noise == 0)
        return lw_fail(err, LW_E_INVALID, "--noise-seed has no effect without --noise");
    return LW_OK;
}

lw_status lw_settings_resolve(lw_settings *s, const char *arg, lw_arena *a, const char **ret_prompt,
                              lw_err *err)
{
    *ret_prompt = NULL;
    LW_TRY(check_together(s, err));
    if (!arg && !s->messages)
        return lw_fail(err, LW_E_INVALID, "a prompt is missing; put it in quotes");
    if (s->layers)
        LW_TRY(lw_parse_layers(s->layers, a, &s->layer_blend, err));
    if (s->noise_seed && lw_parse_seed(s->noise_seed, &s->noise_seed_value, NULL) != LW_OK)
        return lw_fail(err, LW_E_INVALID, "--noise-seed: \"%s\" is not a number from 0 to 2^63 - 1",
                       s->noise_seed);
    if (arg)
        LW_TRY(lw_read_prompt(arg, a, ret_prompt, err));
    if (s->messages)
        LW_TRY(read_messages(s, a, !arg, ret_prompt, err));
    s->resolved = true;
    return clean_all(s, ret_prompt, a, err);
}
