#ifndef LW_TESTS_MKMODEL_H
#define LW_TESTS_MKMODEL_H

#include "common/dtype.h"
#include "common/err.h"
#include "common/pool.h"

/*
 * Random models of the Z-Image architecture, for tests and for measuring. mkmodel_tensors.c knows
 * which tensors a model has, mkmodel_file.c makes their values and files, mkmodel.c is the command.
 */

#define MK_NAME_BYTES 96
#define MK_MAX_PARTS  3

/**
 * One tensor of a file. Its values depend only on the seed and on the names of its parts, which are
 * the tensors' names in the Hugging Face layout, so a fused qkv holds the very numbers of the three
 * tensors that it replaces, whatever the layout and dtype.
 */
typedef struct mk_tensor {
    char name[MK_NAME_BYTES]; /* in the file */
    char part[MK_MAX_PARTS][MK_NAME_BYTES];
    int n_parts; /* equal pieces along the first axis */
    int rank;
    int64_t shape[4];
    float mean, spread; /* value = mean + spread * normal */
} mk_tensor;

/** Growing list; `failed` when memory ran out. */
typedef struct mk_list {
    mk_tensor *v;
    size_t n, cap;
    bool failed;
} mk_list;

int64_t mk_count(const mk_tensor *t);

typedef struct mk_text {
    int64_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn;
} mk_text;

typedef struct mk_dit {
    int64_t dim, layers, refiners, heads, cap_dim;
} mk_dit;

typedef struct mk_vae {
    int64_t channels[4], layers, groups;
} mk_vae;

#define MK_LATENT 16 /* channels of a latent: fixed by the patch embedder's shape */

/* Each fills a list in the order in which the reference's module keeps its tensors (shards are cut
 * in that order). single_file: the names of ComfyUI's files. */
void mk_list_text(mk_list *l, const mk_text *m);
void mk_list_dit(mk_list *l, const mk_dit *m, bool single_file);
void mk_list_vae(mk_list *l, const mk_vae *m, bool single_file);

/** How files are made. */
typedef struct mk_params {
    uint64_t seed;
    lw_pool *pool;
    bool sparse; /* real headers and sizes, but no data: the files are holes of zeros */
} mk_params;

/** Write tensors [0, n) into one safetensors file, sorted by name. hf: metadata format=pt. */
LW_MUST_USE lw_status mk_write_file(const char *path, const mk_tensor *t, size_t n, lw_dtype dtype,
                                    bool hf, const mk_params *p, lw_err *err);

/**
 * Write a list as the Hugging Face libraries do: one file STEM.safetensors, or shards of at most
 * max_bytes and STEM.safetensors.index.json.
 */
LW_MUST_USE lw_status mk_write_shards(const char *dir, const char *stem, const mk_list *l,
                                      lw_dtype dtype, int64_t max_bytes, const mk_params *p,
                                      lw_err *err);

#endif
