/* All measures of several files, and their JSON. */

#include "orchestrate/analysis/analysis.h"

#include <math.h>
#include <string.h>

/* ---- making ---- */

static lw_status measure_all(lw_analysis *an, lw_arena *a, lw_err *err)
{
    for (int f = 0; f < an->n_files; f++)
        LW_TRY(lw_embedding_measure(&an->files[f], an->options.times, a, &an->stats[f], err));
    return LW_OK;
}

/* Leave out what stands out in any of the files; a second look at them follows. */
static lw_status drop_outliers(lw_analysis *an, lw_arena *a, lw_err *err)
{
    const int64_t dim = an->files[0].dim;
    bool *drop = lw_arena_calloc(a, (size_t)dim, sizeof(*drop), err);

    an->dropped = lw_arena_calloc(a, (size_t)dim, sizeof(*an->dropped), err);
    if (!drop || !an->dropped)
        return LW_E_NOMEM;
    for (int f = 0; f < an->n_files; f++)
        for (int64_t k = 0; k < an->stats[f].n_outliers; k++)
            drop[an->stats[f].ranked[k]] = true;
    for (int64_t d = 0; d < dim; d++)
        if (drop[d])
            an->dropped[an->n_dropped++] = d;
    if (an->n_dropped == 0)
        return LW_OK;
    if (an->n_dropped == dim)
        return lw_fail(err, LW_E_INVALID,
                       "every one of the %lld dimensions stands out in one of the files; raise "
                       "--outliers",
                       (long long)dim);
    for (int f = 0; f < an->n_files; f++)
        LW_TRY(lw_embedding_drop(&an->files[f], drop, dim - an->n_dropped, a, err));
    return measure_all(an, a, err);
}

lw_status lw_analysis_make(const char *const *paths, int n_files,
                           const lw_analysis_options *options, lw_arena *a, lw_analysis *ret,
                           lw_err *err)
{
    *ret = (lw_analysis){ .options = *options, .n_files = n_files };
    for (int f = 0; f < n_files; f++) {
        LW_TRY(lw_embedding_read(paths[f], options->tensor, a, &ret->files[f], err));
        if (ret->files[f].dim != ret->files[0].dim)
            return lw_fail(err, LW_E_SHAPE,
                           "%s has %lld dimensions and %s %lld: they are of different encoders, "
                           "and no dimension of one means one of the other",
                           paths[0], (long long)ret->files[0].dim, paths[f],
                           (long long)ret->files[f].dim);
    }
    if (options->tokenizer)
        LW_TRY(lw_embedding_name_tokens(options->tokenizer, ret->files, n_files, a, err));
    LW_TRY(measure_all(ret, a, err));
    if (options->drop_outliers)
        LW_TRY(drop_outliers(ret, a, err));
    for (int f = 1; f < n_files; f++)
        LW_TRY(lw_embedding_compare(&ret->files[0], &ret->files[f], options->align, a,
                                    &ret->pairs[f], err));
    return lw_embedding_pca(ret->files, n_files, a, &ret->pca, err);
}

/* ---- JSON ---- */

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *integer(int64_t v)
{
    return json_integer((json_int_t)v);
}

static json_t *text_or_null(const char *s)
{
    json_t *text = s ? json_string(s) : NULL; /* NULL too for what is not UTF-8 */

    return text ? text : json_null();
}

static json_t *outliers_json(const lw_embedding *e, const lw_embedding_stats *s)
{
    json_t *list = json_array();

    for (int64_t k = 0; k < s->n_outliers; k++) {
        const int64_t d = s->ranked[k];

        json_array_append_new(
            list, json_pack("{s:o, s:o, s:o, s:o, s:o}", "dim", integer(e->of[d]), "mean",
                            number(s->dim_mean[d]), "std", number(s->dim_std[d]), "max_abs",
                            number(s->dim_max[d]), "times", number(s->dim_std[d] / s->std_median)));
    }
    return list;
}

static json_t *file_json(const lw_embedding *e, const lw_embedding_stats *s, char name)
{
    const char letter[] = { name, '\0' };
    json_t *left_out = json_array();

    for (int64_t i = 0; i < e->rows; i++)
        if (!e->finite[i])
            json_array_append_new(left_out, integer(i));
    return json_pack("{s:s, s:o, s:o, s:s, s:o, s:o, s:o, s:o,"
                     " s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "name", letter, "path", text_or_null(e->path), "tensor",
                     text_or_null(e->tensor), "dtype", e->dtype, "rows", integer(e->rows), "dim",
                     integer(e->dim), "prompt", text_or_null(e->prompt), "rows_left_out", left_out,
                     "mean", number(s->mean), "std", number(s->std), "min", number(s->min), "max",
                     number(s->max), "norm_mean", number(s->norm_mean), "norm_min",
                     number(s->norm_min), "norm_max", number(s->norm_max), "std_median",
                     number(s->std_median), "outlier_share", number(s->outlier_share), "outliers",
                     outliers_json(e, s));
}

static json_t *row_json(const lw_embedding *a, const lw_row_pair *r)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "a", integer(r->a), "b",
                     integer(r->b), "id", a->ids ? integer(a->ids[r->a]) : json_null(), "text",
                     text_or_null(a->texts ? a->texts[r->a] : NULL), "cosine", number(r->cosine),
                     "norm_a", number(r->norm_a), "norm_b", number(r->norm_b), "mean_abs",
                     number(r->mean_abs), "max_abs", number(r->max_abs), "max_dim",
                     integer(a->of[r->max_dim]));
}

static json_t *pair_json(const lw_embedding *a, const lw_embedding_pair *p, char name)
{
    const char letter[] = { name, '\0' };
    json_t *rows = json_array();

    for (int64_t k = 0; k < p->n; k++)
        json_array_append_new(rows, row_json(a, &p->rows[k]));
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "a", "A",
                     "b", letter, "align", lw_align_name(p->align), "pairs", integer(p->n),
                     "cosine_mean", number(p->cosine_mean), "cosine_min", number(p->cosine_min),
                     "pooled_cosine", number(p->pooled_cosine), "cka", number(p->cka), "mean_abs",
                     number(p->mean_abs), "rms_abs", number(p->rms_abs), "max_abs",
                     number(p->max_abs), "relative_frobenius", number(p->relative_frobenius),
                     "rows", rows);
}

static json_t *pca_json(const lw_analysis *an)
{
    const lw_pca *p = &an->pca;
    json_t *points = json_array();

    for (int64_t i = 0; i < p->n; i++) {
        const char letter[] = { (char)('A' + p->points[i].file), '\0' };

        json_array_append_new(points,
                              json_pack("[s, o, o, o]", letter, integer(p->points[i].row),
                                        number(p->points[i].at[0]), number(p->points[i].at[1])));
    }
    return json_pack("{s:[o, o], s:b, s:o}", "share", number(p->share[0]), number(p->share[1]),
                     "converged", p->converged, "points", points);
}

lw_status lw_analysis_json(const lw_analysis *an, json_t **ret, lw_err *err)
{
    json_t *files = json_array(), *pairs = json_array(), *dropped = json_array(), *o;

    for (int f = 0; f < an->n_files; f++) {
        json_array_append_new(files, file_json(&an->files[f], &an->stats[f], (char)('A' + f)));
        if (f > 0)
            json_array_append_new(pairs, pair_json(&an->files[0], &an->pairs[f], (char)('A' + f)));
    }
    for (int64_t k = 0; k < an->n_dropped; k++)
        json_array_append_new(dropped, integer(an->dropped[k]));
    o = json_pack("{s:s, s:f, s:o, s:o, s:o, s:o}", "kind", "embeddings", "outlier_times",
                  an->options.times, "dropped_dims", dropped, "files", files, "pairs", pairs, "pca",
                  pca_json(an));
    if (!o)
        return lw_fail(err, LW_E_NOMEM, "no memory for the measures as JSON");
    *ret = o;
    return LW_OK;
}
