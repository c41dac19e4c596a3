/* Embeddings of a safetensors file, and what its metadata says of them. */

#include "orchestrate/analysis/embeds.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "common/safetensors.h"
#include "orchestrate/manifest.h"
#include "proto/schema.h"

static bool is_embeds(const lw_tensor *t)
{
    return lw_dtype_is_float(t->dtype) && (t->rank == 2 || (t->rank == 3 && t->shape[0] == 1));
}

/* The tensor that is meant, or a message that says what there is. */
static lw_status choose(const lw_st_file *f, const char *name, const lw_st_entry **ret, lw_err *err)
{
    const lw_st_entry *only = NULL;
    char shape[96];
    int n = 0;

    if (name || lw_st_find(f, LW_T_PROMPT_EMBEDS)) {
        *ret = lw_st_find(f, name ? name : LW_T_PROMPT_EMBEDS);
        if (!*ret)
            return lw_fail(err, LW_E_NOT_FOUND, "%s has no tensor \"%s\"", f->path, name);
        if (!is_embeds(&(*ret)->t))
            return lw_fail(err, LW_E_SHAPE, "%s: \"%s\" is %s, not floats [tokens, dim]", f->path,
                           (*ret)->name, lw_tensor_describe(&(*ret)->t, shape, sizeof(shape)));
        return LW_OK;
    }
    for (size_t i = 0; i < f->n_entries; i++)
        if (is_embeds(&f->entries[i].t)) {
            if (n++)
                return lw_fail(err, LW_E_SHAPE,
                               "%s: \"%s\" and \"%s\" both look like embeddings; choose one with "
                               "--tensor",
                               f->path, only->name, f->entries[i].name);
            only = &f->entries[i];
        }
    if (!only)
        return lw_fail(err, LW_E_SHAPE,
                       "%s has no embeddings: none of its %zu tensors is floats [tokens, dim]",
                       f->path, f->n_entries);
    *ret = only;
    return LW_OK;
}

static lw_status read_rows(const lw_st_entry *from, lw_arena *a, lw_embedding *e, lw_err *err)
{
    const lw_tensor *t = &from->t;
    int64_t *of;
    size_t n;

    e->rows = t->shape[t->rank - 2];
    e->dim = t->shape[t->rank - 1];
    if (e->rows < 1 || e->dim < 1)
        return lw_fail(err, LW_E_SHAPE, "%s: \"%s\" is empty: [%lld, %lld]", e->path, e->tensor,
                       (long long)e->rows, (long long)e->dim);
    if (e->rows > LW_EMBEDDING_MAX_ROWS || e->dim > LW_EMBEDDING_MAX_DIM)
        return lw_fail(err, LW_E_TOO_LARGE, "%s: \"%s\" is [%lld, %lld]; at most [%d, %d] is read",
                       e->path, e->tensor, (long long)e->rows, (long long)e->dim,
                       LW_EMBEDDING_MAX_ROWS, LW_EMBEDDING_MAX_DIM);
    n = (size_t)e->rows * (size_t)e->dim;
    e->x = lw_arena_calloc(a, n, sizeof(*e->x), err);
    e->finite = lw_arena_calloc(a, (size_t)e->rows, sizeof(*e->finite), err);
    of = lw_arena_calloc(a, (size_t)e->dim, sizeof(*of), err);
    if (!e->x || !e->finite || !of)
        return LW_E_NOMEM;
    if (!lw_dtype_convert(e->x, LW_F32, t->data, t->dtype, n))
        return lw_fail(err, LW_E_SHAPE, "%s: \"%s\" is %s, which is not read", e->path, e->tensor,
                       e->dtype);
    for (int64_t d = 0; d < e->dim; d++)
        of[d] = d;
    e->of = of;
    for (int64_t i = 0; i < e->rows; i++) {
        e->finite[i] = true;
        for (int64_t d = 0; d < e->dim; d++)
            e->finite[i] = e->finite[i] && isfinite(e->x[i * e->dim + d]);
        e->n_finite += e->finite[i];
    }
    if (e->n_finite == 0)
        return lw_fail(err, LW_E_SHAPE,
                       "%s: there is a NaN or an infinity in every row of \"%s\", so there is "
                       "nothing to compare",
                       e->path, e->tensor);
    return LW_OK;
}

/* The key is absent, or has the value that changes nothing. */
static bool is_plain(const json_t *m, const char *key, const char *plain)
{
    const json_t *v = json_object_get(m, key);

    return !v || (json_is_string(v) && !strcmp(json_string_value(v), plain));
}

/* Prompt and token ids, as far as the metadata has them in the form of a manifest. */
static lw_status read_manifest(const lw_st_file *f, lw_arena *a, lw_embedding *e, lw_err *err)
{
    const char *text = lw_st_metadata(f, LW_MANIFEST_KEY);
    const json_t *ids, *prompt;
    lw_status s = LW_OK;
    int64_t *copy;
    json_t *m;

    if (!text || strlen(text) > LW_MAX_MANIFEST)
        return LW_OK;
    m = json_loads(text, 0, NULL);
    prompt = json_object_get(m, "prompt");
    ids = json_object_get(m, "token_ids");
    if (json_is_string(prompt)) {
        e->prompt = lw_arena_strndup(a, json_string_value(prompt), json_string_length(prompt), err);
        s = e->prompt ? LW_OK : LW_E_NOMEM;
    }
    /* Only the rows of the prompt itself are known by these ids, one each. */
    if (s == LW_OK && json_is_array(ids) && (int64_t)json_array_size(ids) == e->rows &&
        is_plain(m, "long_prompt", "truncate") && is_plain(m, "keep", "all") &&
        !strcmp(e->tensor, LW_T_PROMPT_EMBEDS)) {
        copy = lw_arena_calloc(a, (size_t)e->rows, sizeof(*copy), err);
        s = copy ? LW_OK : LW_E_NOMEM;
        e->ids = copy;
        for (int64_t i = 0; e->ids && i < e->rows; i++) {
            const json_t *id = json_array_get(ids, (size_t)i);

            if (json_is_integer(id))
                copy[i] = json_integer_value(id);
            else
                e->ids = NULL;
        }
    }
    json_decref(m);
    return s;
}

static lw_status read_file(const lw_st_file *f, const char *name, lw_arena *a, lw_embedding *e,
                           lw_err *err)
{
    const lw_st_entry *from = NULL;

    LW_TRY(choose(f, name, &from, err));
    e->tensor = lw_arena_strndup(a, from->name, strlen(from->name), err);
    if (!e->tensor)
        return LW_E_NOMEM;
    e->dtype = lw_dtype_name(from->t.dtype);
    LW_TRY(read_rows(from, a, e, err));
    return read_manifest(f, a, e, err);
}

lw_status lw_embedding_read(const char *path, const char *name, lw_arena *a, lw_embedding *ret,
                            lw_err *err)
{
    lw_embedding e = { .path = path };
    lw_st_file *f = NULL;
    lw_status s;

    LW_TRY(lw_st_open(path, &f, err));
    s = read_file(f, name, a, &e, err);
    lw_st_close(&f);
    if (s == LW_OK)
        *ret = e;
    return s;
}

lw_status lw_embedding_drop(lw_embedding *e, const bool *drop, int64_t n_left, lw_arena *a,
                            lw_err *err)
{
    int64_t *of = lw_arena_calloc(a, (size_t)n_left, sizeof(*of), err);
    float *to = e->x; /* never ahead of what is read */
    int64_t n = 0;

    if (!of)
        return LW_E_NOMEM;
    for (int64_t d = 0; d < e->dim; d++)
        if (!drop[d])
            of[n++] = e->of[d];
    for (int64_t i = 0; i < e->rows; i++)
        for (int64_t d = 0; d < e->dim; d++)
            if (!drop[d])
                *to++ = e->x[i * e->dim + d];
    e->of = of;
    e->dim = n;
    return LW_OK;
}
