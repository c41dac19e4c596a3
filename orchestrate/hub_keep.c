/* The copying is generated from the field tables, so a new string field is kept without a change
 * here. All strings of a message share one allocation. */

#include "orchestrate/hub_keep.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "common/utf8.h"

/* ---- tensors ---- */

lw_status lw_held_take(lw_held *h, const lw_msg_tensor *mt, lw_err *err)
{
    lw_frame *f =
        mt->frame ? lw_frame_ref(mt->frame) : lw_frame_copy(mt->t.data, lw_tensor_bytes(&mt->t));

    if (!f)
        return lw_fail(err, LW_E_NOMEM, "no memory to keep tensor %s", mt->name);
    lw_held_drop(h);
    h->t = mt->t;
    h->frame = f;
    h->t.data = (void *)(uintptr_t)lw_frame_data(f);
    return LW_OK;
}

void lw_held_copy(lw_held *dst, const lw_held *src)
{
    *dst = *src;
    if (src->frame)
        dst->frame = lw_frame_ref(src->frame);
}

void lw_held_drop(lw_held *h)
{
    if (h->frame)
        lw_frame_unref(&h->frame);
    *h = (lw_held){ 0 };
}

size_t lw_held_bytes(const lw_held *h)
{
    return h->frame ? lw_frame_size(h->frame) : 0;
}

lw_status lw_held_item(lw_held *dst, const lw_held *src, int64_t index, lw_err *err)
{
    lw_tensor t = src->t;
    size_t item_bytes;
    lw_frame *f;

    if (src->t.shape[0] == 1) {
        lw_held_copy(dst, src);
        return LW_OK;
    }
    t.shape[0] = 1;
    item_bytes = lw_tensor_bytes(&t);
    f = lw_frame_copy((const uint8_t *)src->t.data + (size_t)index * item_bytes, item_bytes);
    if (!f)
        return lw_fail(err, LW_E_NOMEM, "no memory for a tensor of %zu bytes", item_bytes);
    t.data = (void *)(uintptr_t)lw_frame_data(f);
    *dst = (lw_held){ .t = t, .frame = f };
    return LW_OK;
}

static void free_bytes(void *data, void *hint)
{
    (void)hint;
    free(data);
}

lw_status lw_held_join(lw_held *dst, const lw_held *items, size_t stride, int n, lw_err *err)
{
    const lw_held *first = items;
    size_t item_bytes = lw_held_bytes(first), total;
    char was[96], is[96];
    lw_frame *f;
    uint8_t *p;

    if (n == 1) {
        lw_held_copy(dst, first);
        return LW_OK;
    }
    if (!lw_size_mul(item_bytes, (size_t)n, &total) || !(p = malloc(total ? total : 1)))
        return lw_fail(err, LW_E_NOMEM, "no memory to join %d tensors of %zu bytes", n, item_bytes);
    for (int i = 0; i < n; i++) {
        const lw_held *h = (const lw_held *)((const uint8_t *)items + (size_t)i * stride);

        if (h->t.dtype != first->t.dtype || lw_held_bytes(h) != item_bytes) {
            free(p);
            return lw_fail(err, LW_E_SHAPE,
                           "picture 0 is %s and picture %d is %s; do all workers run the same "
                           "model and back end?",
                           lw_tensor_describe(&first->t, was, sizeof(was)), i,
                           lw_tensor_describe(&h->t, is, sizeof(is)));
        }
        memcpy(p + (size_t)i * item_bytes, lw_frame_data(h->frame), item_bytes);
    }
    f = lw_frame_wrap(p, total, free_bytes, NULL);
    if (!f) {
        free(p);
        return lw_fail(err, LW_E_NOMEM, "no memory to join %d tensors", n);
    }
    *dst = (lw_held){ .t = first->t, .frame = f };
    dst->t.shape[0] = n;
    dst->t.data = p;
    return LW_OK;
}

lw_status lw_held_add(const lw_held *h, lw_msg *m, const char *name, lw_err *err)
{
    return lw_msg_tensor_add(m, name, &h->t, h->frame, err);
}

/* ---- deliveries ---- */

struct lw_delivery {
    atomic_int refs; /* the owner's one, and one for each frame that is not free yet */
};

/* What a tracked frame stands for. */
typedef struct tracked {
    lw_frame *frame;
    lw_delivery *delivery;
} tracked;

lw_delivery *lw_delivery_new(void)
{
    lw_delivery *d = malloc(sizeof(*d));

    if (d)
        atomic_init(&d->refs, 1);
    return d;
}

bool lw_delivery_done(const lw_delivery *d)
{
    return atomic_load_explicit(&d->refs, memory_order_acquire) == 1;
}

void lw_delivery_drop(lw_delivery **pd)
{
    lw_delivery *d = *pd;

    *pd = NULL;
    if (d && atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) == 1)
        free(d);
}

/* On any thread. */
static void tracked_free(void *data, void *hint)
{
    tracked *t = hint;

    (void)data;
    lw_frame_unref(&t->frame);
    lw_delivery_drop(&t->delivery);
    free(t);
}

lw_status lw_held_track(lw_held *h, lw_delivery *d, lw_err *err)
{
    tracked *t = malloc(sizeof(*t));
    lw_frame *f = NULL;

    if (t) {
        *t = (tracked){ .frame = h->frame, .delivery = d };
        f = lw_frame_wrap((void *)(uintptr_t)lw_frame_data(h->frame), lw_frame_size(h->frame),
                          tracked_free, t);
    }
    if (!f) {
        free(t);
        return lw_fail(err, LW_E_NOMEM, "no memory to send a tensor");
    }
    atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
    h->frame = f; /* the reference that h had is the tracked frame's now */
    return LW_OK;
}

/* ---- messages ---- */

/* What each kind of field needs beyond the struct's own copy: nothing, but for texts and lists. */
#define NOTHING(m)
#define SIZE_S(m)                                                                                  \
    if (lw_msg_has(src, m) && src->m)                                                              \
        n += strlen(src->m) + 1;
#define SIZE_FS(m)                                                                                 \
    if (lw_msg_has(src, m))                                                                        \
        n += (src->m.n + 1) * sizeof(double); /* one more for alignment */
#define SIZE_U        NOTHING
#define SIZE_I        NOTHING
#define SIZE_F        NOTHING
#define SIZE_B        NOTHING
#define SIZE_ID       NOTHING
#define SIZE_ROLE     NOTHING
#define SIZE_OP       NOTHING
#define SIZE_ART      NOTHING
#define SIZE_STATUS   NOTHING
#define SIZE_CONTRACT NOTHING
#define SIZE_STAGES   NOTHING

#define COPY_S(m)                                                                                  \
    if (lw_msg_has(src, m) && src->m) {                                                            \
        size_t len = strlen(src->m) + 1;                                                           \
                                                                                                   \
        dst->m = memcpy(p, src->m, len);                                                           \
        p += len;                                                                                  \
    }
#define COPY_FS(m)                                                                                 \
    if (lw_msg_has(src, m) && src->m.n) {                                                          \
        p = (char *)lw_size_align((uintptr_t)p, sizeof(double));                                   \
        dst->m.v = memcpy(p, src->m.v, src->m.n * sizeof(double));                                 \
        p += src->m.n * sizeof(double);                                                            \
    }
#define COPY_U        NOTHING
#define COPY_I        NOTHING
#define COPY_F        NOTHING
#define COPY_B        NOTHING
#define COPY_ID       NOTHING
#define COPY_ROLE     NOTHING
#define COPY_OP       NOTHING
#define COPY_ART      NOTHING
#define COPY_STATUS   NOTHING
#define COPY_CONTRACT NOTHING
#define COPY_STAGES   NOTHING

#define SIZE_FIELD(kind, m, max, doc) SIZE_##kind(m)
#define COPY_FIELD(kind, m, max, doc) COPY_##kind(m)

static size_t text_bytes(const lw_msg *src)
{
    size_t n = 0;

    LW_MSG_FIELDS(SIZE_FIELD)
    return n;
}

static lw_status copy_text(lw_msg *dst, const lw_msg *src, void **ret_text, lw_err *err)
{
    char *p = malloc(text_bytes(src) + 1);

    if (!p)
        return lw_fail(err, LW_E_NOMEM, "no memory to keep a message");
    *ret_text = p;
    LW_MSG_FIELDS(COPY_FIELD)
    return LW_OK;
}

lw_status lw_kept_take(lw_kept *k, const lw_msg *m, lw_err *err)
{
    *k = (lw_kept){ .msg = *m };
    k->msg.n_tensors = 0;
    memset(&k->msg.contract, 0, sizeof(k->msg.contract));
    memset(&k->msg.stages, 0, sizeof(k->msg.stages));
    LW_TRY(copy_text(&k->msg, m, &k->text, err));
    for (int i = 0; i < m->n_tensors; i++) {
        lw_status s = lw_held_take(&k->tensors[i].held, &m->tensors[i], err);

        if (s != LW_OK) {
            lw_kept_drop(k);
            return s;
        }
        memcpy(k->tensors[i].name, m->tensors[i].name, LW_MAX_TENSOR_NAME);
        k->n_tensors++;
    }
    return LW_OK;
}

void lw_kept_drop(lw_kept *k)
{
    free(k->text);
    for (int i = 0; i < k->n_tensors; i++)
        lw_held_drop(&k->tensors[i].held);
    *k = (lw_kept){ 0 };
}

size_t lw_kept_bytes(const lw_msg *m)
{
    size_t n = text_bytes(m);

    for (int i = 0; i < m->n_tensors; i++)
        n += lw_tensor_bytes(&m->tensors[i].t);
    return n;
}

const lw_held *lw_kept_find(const lw_kept *k, const char *name)
{
    for (int i = 0; i < k->n_tensors; i++)
        if (!strcmp(k->tensors[i].name, name))
            return &k->tensors[i].held;
    return NULL;
}

/* ---- contracts ---- */

#define CONTRACT_SIZE_S(m)                                                                         \
    if (lw_contract_has(src, m) && src->m)                                                         \
        n += strlen(src->m) + 1;
#define CONTRACT_COPY_S(m)                                                                         \
    if (lw_contract_has(src, m) && src->m) {                                                       \
        size_t len = strlen(src->m) + 1;                                                           \
                                                                                                   \
        dst->m = memcpy(p, src->m, len);                                                           \
        p += len;                                                                                  \
    }
#define CONTRACT_SIZE_U                  NOTHING
#define CONTRACT_SIZE_B                  NOTHING
#define CONTRACT_SIZE_F                  NOTHING
#define CONTRACT_COPY_U                  NOTHING
#define CONTRACT_COPY_B                  NOTHING
#define CONTRACT_COPY_F                  NOTHING
#define CONTRACT_SIZE(kind, m, max, doc) CONTRACT_SIZE_##kind(m)
#define CONTRACT_COPY(kind, m, max, doc) CONTRACT_COPY_##kind(m)

lw_status lw_contract_copy(lw_contract *dst, const lw_contract *src, void **ret_text, lw_err *err)
{
    size_t n = 1;
    char *p;

    LW_CONTRACT_FIELDS(CONTRACT_SIZE)
    p = malloc(n);
    if (!p)
        return lw_fail(err, LW_E_NOMEM, "no memory to keep a contract");
    *ret_text = p;
    *dst = *src;
    LW_CONTRACT_FIELDS(CONTRACT_COPY)
    return LW_OK;
}

/* ---- who did a stage ---- */

static const char *text_or_empty(const char *s)
{
    return s ? s : "";
}

/* The workers of one job share the weights (the hub sees to that), but not always the back end. */
static void note(char *field, size_t size, const char *value, bool first)
{
    if (first)
        snprintf(field, size, "%s", text_or_empty(value));
    else if (strcmp(field, text_or_empty(value)))
        snprintf(field, size, "mixed");
}

void lw_kept_stage_add(lw_kept_stage *k, const lw_contract *c, const char *worker, double t_ms)
{
    const bool first = !k->ran;

    note(k->model_id, sizeof(k->model_id), c->model_id, first);
    note(k->weights_digest, sizeof(k->weights_digest), c->weights_digest, first);
    note(k->backend, sizeof(k->backend), c->backend, first);
    note(k->precision, sizeof(k->precision), c->precision, first);
    if (first) {
        snprintf(k->first_worker, sizeof(k->first_worker), "%s", worker);
        snprintf(k->worker, sizeof(k->worker), "%s", worker);
    } else if (strcmp(k->first_worker, worker)) {
        const char others[] = " and others";
        size_t keep = lw_utf8_trim(k->first_worker,
                                   strnlen(k->first_worker, sizeof(k->worker) - sizeof(others)));

        snprintf(k->worker, sizeof(k->worker), "%.*s%s", (int)keep, k->first_worker, others);
    }
    k->t_ms += t_ms;
    k->ran = true;
}

void lw_kept_stage_get(const lw_kept_stage *k, lw_stage_info *ret)
{
    *ret = (lw_stage_info){ 0 };
    if (!k->ran)
        return;
    lw_stage_set(ret, model_id, k->model_id);
    lw_stage_set(ret, weights_digest, k->weights_digest);
    lw_stage_set(ret, backend, k->backend);
    lw_stage_set(ret, precision, k->precision);
    lw_stage_set(ret, worker, k->worker);
    lw_stage_set(ret, t_ms, k->t_ms);
    lw_stage_set(ret, cached, k->cached);
}
