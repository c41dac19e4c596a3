#ifndef LW_COMMON_SAFETENSORS_H
#define LW_COMMON_SAFETENSORS_H

#include "common/tensor.h"

/*
 * safetensors files: u64 little-endian header length, JSON header, data. The reader maps the file
 * read-only and trusts nothing in it: header length, JSON shape, dtype, product(shape) x item
 * size, order, overlap, gaps and file end are all checked before a view is handed out. A hostile
 * file is an LW_E_FORMAT error that names the tensor; it is never a crash.
 *
 * One thing no check can prevent: a file that is made shorter while it is mapped ends the process
 * with SIGBUS when the lost part is read. Replace weights by renaming, as lw_st_write does; never
 * write into a file that a service has open.
 */

#define LW_ST_MAX_HEADER_BYTES (100u * 1000 * 1000)
#define LW_ST_MAX_TENSORS      65536
#define LW_ST_MAX_NAME_BYTES   512

typedef struct lw_st_entry {
    const char *name;
    lw_tensor t; /* view into the mapping; data may be unaligned; read-only */
} lw_st_entry;

typedef struct lw_st_meta {
    const char *key, *value;
} lw_st_meta;

/** An open file; entries are sorted by name (byte order). */
typedef struct lw_st_file {
    const char *path;
    lw_st_entry *entries;
    size_t n_entries;
    lw_st_meta *metadata; /* __metadata__, in file order */
    size_t n_metadata;
    void *map;
    size_t map_bytes;
    lw_arena arena; /* names and tables */
} lw_st_file;

/**
 * Map a file. On failure *ret is untouched and nothing is left open. Tensors of zero items are
 * allowed. dtypes outside lw_dtype (BOOL, F64, U16...) are refused as LW_E_UNIMPLEMENTED, naming
 * the tensor. Errors: LW_E_NOT_FOUND, LW_E_DENIED, LW_E_IO, LW_E_FORMAT, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_st_open(const char *path, lw_st_file **ret, lw_err *err);
/** The same over bytes already in memory (tests, fuzzing); they must outlive the file. */
LW_MUST_USE lw_status lw_st_open_memory(const void *data, size_t size_bytes, const char *label,
                                        lw_st_file **ret, lw_err *err);
void lw_st_close(lw_st_file **f);
/** The entry of that name, or NULL. */
const lw_st_entry *lw_st_find(const lw_st_file *f, const char *name);
/** Value of a metadata key, or NULL. */
const char *lw_st_metadata(const lw_st_file *f, const char *key);

/** What keeps a text from being a tensor's name, as a phrase, or NULL when it can be one. */
const char *lw_st_name_fault(const char *name);

/**
 * Write a file: header with sorted names, data aligned to its items (bytes of a multiple of 64 to
 * 64), optional string metadata
 * (n_metadata pairs). Written to a temporary name beside it and renamed, so a reader never sees
 * half a file. Tensors need not be contiguous. Errors: those of lw_outfile_open
 * (common/file.h), LW_E_INVALID (a bad or doubled name, a text that is not UTF-8, an absent
 * tensor).
 */
LW_MUST_USE lw_status lw_st_write(const char *path, const lw_st_entry *entries, size_t n_entries,
                                  const lw_st_meta *metadata, size_t n_metadata, lw_err *err);

/** Make the data of entry `index` in `data`, which is 64-byte aligned and has the entry's bytes. */
typedef lw_status lw_st_make(void *arg, size_t index, void *data, lw_err *err);
/**
 * The same, for more than fits into memory: entries whose data is NULL are made one after the other
 * while the file is written. Errors also: those of `make`; nothing is left behind then.
 */
LW_MUST_USE lw_status lw_st_write_made(const char *path, const lw_st_entry *entries,
                                       size_t n_entries, const lw_st_meta *metadata,
                                       size_t n_metadata, lw_st_make *make, void *arg, lw_err *err);

#endif
