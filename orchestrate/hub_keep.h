#ifndef LW_ORCHESTRATE_HUB_KEEP_H
#define LW_ORCHESTRATE_HUB_KEEP_H

#include "proto/packet.h"

/*
 * Keeping what a message said after its packet is gone. Strings are copied; tensor bytes are kept
 * by reference to their frame. Thread rule: one thread.
 */

/** A tensor with a reference to the frame that holds its bytes. Zero is "none". */
typedef struct lw_held {
    lw_tensor t; /* its data is the frame's */
    lw_frame *frame;
} lw_held;

/** Keep a tensor of a message; an inline one is copied. Drops what *h held. Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_held_take(lw_held *h, const lw_msg_tensor *mt, lw_err *err);
/** Another reference to the same tensor; dst is overwritten. */
void lw_held_copy(lw_held *dst, const lw_held *src);
void lw_held_drop(lw_held *h);
static inline bool lw_held_present(const lw_held *h)
{
    return h->frame != NULL;
}
size_t lw_held_bytes(const lw_held *h);
/** Item `index` of axis 0 as a tensor of its own with axis 0 = 1; copied unless it is the only one.
 * dst is overwritten. Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_held_item(lw_held *dst, const lw_held *src, int64_t index, lw_err *err);
/**
 * The items [1, ...] one after another as one tensor [n, ...]; a single one is shared, not copied.
 * dst is overwritten. Errors: LW_E_SHAPE when they differ, LW_E_NOMEM.
 */
LW_MUST_USE lw_status lw_held_join(lw_held *dst, const lw_held *items, size_t stride, int n,
                                   lw_err *err);
/** Add it to a message under a name; the message borrows. */
LW_MUST_USE lw_status lw_held_add(const lw_held *h, lw_msg *m, const char *name, lw_err *err);

/**
 * Knows when tensors that were sent have left: libzmq keeps what a slow peer has not taken, and
 * that memory is still somebody's budget.
 */
typedef struct lw_delivery lw_delivery;

/** NULL when memory runs out. */
lw_delivery *lw_delivery_new(void);
/** True when no tracked frame is referenced any more, by us or by libzmq. */
bool lw_delivery_done(const lw_delivery *d);
/** NULL-safe; sets *d to NULL. Frames on their way do not mind. */
void lw_delivery_drop(lw_delivery **d);
/** From here on the frame of *h is tracked by d. Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_held_track(lw_held *h, lw_delivery *d, lw_err *err);

/** A whole message, kept. `msg` has no tensors; they are in `tensors`, in the message's order. */
typedef struct lw_kept {
    lw_msg msg;
    void *text; /* strings and lists of msg */
    int n_tensors;
    struct {
        char name[LW_MAX_TENSOR_NAME];
        lw_held held;
    } tensors[LW_MAX_TENSORS];
} lw_kept;

/** Overwrites *k. contract and stages are not kept. Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_kept_take(lw_kept *k, const lw_msg *m, lw_err *err);
void lw_kept_drop(lw_kept *k);
/** Bytes of strings and tensors. */
size_t lw_kept_bytes(const lw_msg *m);
/** The kept tensor of that name, or NULL. */
const lw_held *lw_kept_find(const lw_kept *k, const char *name);

/** Who did a stage, with its strings. Zero is "nobody yet". */
typedef struct lw_kept_stage {
    bool ran, cached;
    char model_id[257], weights_digest[65], backend[129], precision[33], worker[65];
    char first_worker[65]; /* `worker` may have become "NAME and others" */
    double t_ms;
} lw_kept_stage;

/** Add one task's share of a stage: times add up; workers that differ are said to differ. */
void lw_kept_stage_add(lw_kept_stage *k, const lw_contract *c, const char *worker, double t_ms);
/** As it goes on the wire; strings are borrowed from k. */
void lw_kept_stage_get(const lw_kept_stage *k, lw_stage_info *ret);

/** Copy a contract with its strings; *ret_text is to be freed. Errors: LW_E_NOMEM. */
LW_MUST_USE lw_status lw_contract_copy(lw_contract *dst, const lw_contract *src, void **ret_text,
                                       lw_err *err);

#endif
