#ifndef LW_ORCHESTRATE_MANIFEST_H
#define LW_ORCHESTRATE_MANIFEST_H

#include <jansson.h>

#include "common/opt.h"
#include "proto/schema.h"

/*
 * The manifest of a picture: everything that decides its pixels and nothing that does not, so that
 * the same request gives the same PNG bytes. No times, worker names, thread counts, paths or
 * dates. It grows along the pipeline: each stage adds its settings and who did it, and the stage
 * verbs carry it in the metadata of the safetensors files between them, so that a chain of stages
 * ends in the same file as `generate`.
 *
 * Keys: "manifest" (format version), "version" (of latentwire); template, template_digest,
 * variables {name: text}; prompt, negative_prompt, system_prompt, thinking, assistant, think_block,
 * raw, layer, max_tokens, n_tokens, truncated, text_digest; where they are not at their defaults
 * messages, layer_blend, long_prompt, weighting, noise, noise_seed, keep, blend_prompt,
 * blend_share, n_rows, row_loss; width, height, steps, seed, guidance, cfg_normalization,
 * cfg_truncation, shift, sigmas; tile; stages {op: {model_id, weights_digest, backend, precision}}.
 */

#define LW_MANIFEST_KEY           "latentwire" /* PNG text chunk and safetensors metadata */
#define LW_MANIFEST_VERSION       1
#define LW_MAX_MANIFEST           (512u * 1024)
#define LW_MANIFEST_MAX_VARIABLES 32
#define LW_MANIFEST_MAX_IDS       1024 /* more token ids than that are only told by their digest */

/** An empty manifest: versions only. NULL when memory runs out; json_decref() it. */
json_t *lw_manifest_new(void);

/**
 * The manifest in a file's metadata, cut down to the known keys; an empty one for NULL. The text is
 * not trusted. Errors: LW_E_FORMAT, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_manifest_parse(const char *text, const char *path, json_t **ret,
                                        lw_err *err);

/** Add what a request asked and what its result says (n_tokens, digest, token ids, sigmas, stages).
 */
LW_MUST_USE lw_status lw_manifest_add(json_t *manifest, const lw_msg *submit, const lw_msg *result,
                                      lw_err *err);

/** Add the template that a request was made with: its name, and a digest of what it gave (which is
 * in the request, unless an option replaced it). Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_manifest_set_template(json_t *manifest, const char *name,
                                               const char *digest, lw_err *err);

/** Add the values that --var gave to a template, "NAME=TEXT" each; none adds nothing. Errors:
 * LW_E_NOMEM. */
LW_MUST_USE lw_status lw_manifest_set_variables(json_t *manifest, const lw_opt_list *variables,
                                                lw_err *err);

/** The same manifest for picture i of a batch: its own seed. json_decref() it; NULL: no memory. */
json_t *lw_manifest_picture(const json_t *manifest, uint64_t index);

/** Compact text with sorted keys; free() it. NULL: no memory. */
char *lw_manifest_text(const json_t *manifest);

/**
 * The `parameters` text that other image tools read: prompt, "Negative prompt: ...", then
 * "Steps: 8, Sampler: Euler, CFG scale: 1, Seed: 42, Size: 1024x1024, Model: ...". free() it. NULL:
 * no memory.
 */
char *lw_manifest_parameters(const json_t *manifest);

#endif
