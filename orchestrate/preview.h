#ifndef LW_ORCHESTRATE_PREVIEW_H
#define LW_ORCHESTRATE_PREVIEW_H

#include "orchestrate/client.h"

/*
 * Previews while a picture is denoised. A denoiser shows its estimate of the finished latents; this
 * has a decoder turn a shrunken copy of them into a small picture, one at a time, and writes it to
 * a file, replacing the one before. Decoders idle while denoisers work, so it costs the job little.
 * A preview is a courtesy: what goes wrong with one is dropped in silence.
 */
typedef struct lw_preview {
    const char *path; /* NULL: no previews are wanted */
    uint8_t id[16];   /* of the decode job that is under way */
    bool waiting;
} lw_preview;

#define LW_PREVIEW_LATENTS 32 /* longest side of what is decoded */

/** A PREVIEW message of a job: ask for its picture, unless the last one is still in the making. */
void lw_preview_show(lw_preview *p, lw_client *c, const lw_msg *m);

/** Look at any message of the hub; true when it answers a preview's decode job. */
bool lw_preview_answer(lw_preview *p, const lw_msg *m);

/**
 * Box-average latents [1, C, h, w] or [C, h, w] of any float type by the smallest factor that
 * brings both sides to at most `longest`, cutting what remains: *ret is f32 [1, C, h / k, w / k] in
 * `a`. Errors: LW_E_SHAPE, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_preview_shrink(const lw_msg_tensor *mt, int64_t longest, lw_arena *a,
                                        lw_tensor *ret, lw_err *err);

#endif
