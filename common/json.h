#ifndef LW_COMMON_JSON_H
#define LW_COMMON_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

/*
 * Configuration files of models (config.json, scheduler_config.json, index files) through jansson,
 * with messages that name file, key, what was found and what was expected. The getters are sticky
 * in `err`: once it holds an error they do nothing, so a caller reads all fields and checks once.
 */

#define LW_JSON_MAX_FILE_BYTES (256u * 1024 * 1024)

/** Read and parse a whole file; the caller json_decref()s. Errors: those of lw_file_read
 * and LW_E_FORMAT with line and column; a key given twice is one. */
LW_MUST_USE lw_status lw_json_load(const char *path, json_t **ret, lw_err *err);

/** Parse text in memory; label stands for the file in messages. */
LW_MUST_USE lw_status lw_json_parse(const char *text, size_t len, const char *label, json_t **ret,
                                    lw_err *err);

/** Integer in [min, max]. A missing key is an error unless has_default. */
int64_t lw_json_int(const json_t *obj, const char *path, const char *key, int64_t min, int64_t max,
                    bool has_default, int64_t dflt, lw_err *err);
double lw_json_num(const json_t *obj, const char *path, const char *key, bool has_default,
                   double dflt, lw_err *err);
bool lw_json_bool(const json_t *obj, const char *path, const char *key, bool dflt, lw_err *err);
/** Borrowed string, or dflt when missing or null (dflt may be NULL). */
const char *lw_json_str(const json_t *obj, const char *path, const char *key, const char *dflt,
                        lw_err *err);
/** Array of integers in [min, max]; returns how many were stored; more than cap is an error. */
int lw_json_int_array(const json_t *obj, const char *path, const char *key, int64_t min,
                      int64_t max, int64_t *ret, int cap, lw_err *err);

#endif
