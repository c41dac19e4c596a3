/* The earlier turns of a conversation, from JSON of anybody. */

#include "encoder-svc/messages.h"

#include <string.h>

#include <jansson.h>

static lw_status check_role(const char *role, size_t i, lw_err *err)
{
    static const char *const roles[] = { "system", "user", "assistant", "tool" };

    for (size_t k = 0; role && k < LW_ARRAY_LEN(roles); k++)
        if (!strcmp(role, roles[k]))
            return LW_OK;
    return lw_fail(err, LW_E_INVALID,
                   "messages[%zu]: the role is %s%.32s%s; expected system, user, assistant or tool",
                   i, role ? "\"" : "", role ? role : "missing or no text", role ? "\"" : "");
}

static lw_status check_keys(const json_t *o, size_t i, lw_err *err)
{
    static const char *const known[] = { "role", "content", "reasoning_content", "thinking" };
    const char *role = json_string_value(json_object_get(o, "role"));
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)o, key, v)
    {
        size_t k = 0;

        while (k < LW_ARRAY_LEN(known) && strcmp(key, known[k]) != 0)
            k++;
        if (k == LW_ARRAY_LEN(known))
            return lw_fail(err, LW_E_INVALID,
                           "messages[%zu]: \"%.32s\" is not supported; a message has role, content "
                           "and, of an assistant, reasoning_content",
                           i, key);
        if (!json_is_string(v) && !(k >= 2 && json_is_null(v)))
            return lw_fail(err, LW_E_INVALID, "messages[%zu]: \"%s\" is not a text", i, key);
        if (k >= 2 && strcmp(role, "assistant") != 0)
            return lw_fail(err, LW_E_INVALID,
                           "messages[%zu]: \"%s\" belongs to an assistant, not to the role %s", i,
                           key, role);
    }
    return LW_OK;
}

static lw_status read_message(const json_t *o, size_t i, lw_arena *a, lw_chat_message *ret,
                              lw_err *err)
{
    const char *reasoning = json_string_value(json_object_get(o, "reasoning_content"));
    const char *thinking = json_string_value(json_object_get(o, "thinking"));
    const char *content = json_string_value(json_object_get(o, "content"));
    const char *role = json_string_value(json_object_get(o, "role"));

    if (!json_is_object(o))
        return lw_fail(err, LW_E_INVALID, "messages[%zu] is not an object", i);
    LW_TRY(check_role(role, i, err));
    LW_TRY(check_keys(o, i, err));
    if (!content)
        return lw_fail(err, LW_E_INVALID, "messages[%zu]: \"content\" is missing", i);
    if (reasoning && thinking)
        return lw_fail(err, LW_E_INVALID,
                       "messages[%zu] has both reasoning_content and thinking; they are the same "
                       "thing",
                       i);
    reasoning = reasoning ? reasoning : thinking;
    ret->role = lw_arena_strndup(a, role, strlen(role), err);
    ret->content = lw_arena_strndup(a, content, strlen(content), err);
    ret->reasoning = reasoning ? lw_arena_strndup(a, reasoning, strlen(reasoning), err) : NULL;
    return ret->role && ret->content && (ret->reasoning || !reasoning) ? LW_OK : LW_E_NOMEM;
}

static lw_status read_array(const json_t *array, lw_arena *a, lw_chat_message **ret, size_t *ret_n,
                            lw_err *err)
{
    const size_t n = json_array_size(array);

    if (!json_is_array(array))
        return lw_fail(err, LW_E_INVALID, "messages: expected a JSON array of messages");
    if (n > LW_MESSAGES_MAX)
        return lw_fail(err, LW_E_INVALID, "messages: %zu of them; at most %d are taken", n,
                       LW_MESSAGES_MAX);
    *ret = lw_arena_calloc(a, n + 1, sizeof(**ret), err);
    if (!*ret)
        return LW_E_NOMEM;
    for (size_t i = 0; i < n; i++)
        LW_TRY(read_message(json_array_get(array, i), i, a, &(*ret)[i], err));
    *ret_n = n;
    return LW_OK;
}

lw_status lw_messages_parse(const char *json, lw_arena *a, lw_chat_message **ret, size_t *ret_n,
                            lw_err *err)
{
    json_error_t why;
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, &why);
    lw_status s;

    if (!root)
        return lw_fail(err, LW_E_INVALID, "messages: not JSON (line %d, column %d): %.100s",
                       why.line, why.column, why.text);
    s = read_array(root, a, ret, ret_n, err);
    json_decref(root);
    return s;
}
