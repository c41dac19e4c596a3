/*
 * Frames: a reference count around a zmq_msg_t, so that a tensor received from one peer is kept and
 * sent to others without a copy. libzmq counts its own references to the bytes too, because an I/O
 * thread may still be sending when the last lw_frame_unref happens.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/transport_impl.h"

/* The owner's side of lw_frame_wrap. libzmq runs the free function on whichever thread drops the
 * bytes last and orders that itself; `handed` repeats the order in terms that a race detector can
 * see. */
typedef struct wrapped {
    lw_frame_free_fn *free_fn;
    void *hint;
    atomic_bool handed;
} wrapped;

struct lw_frame {
    atomic_int refs;
    wrapped *wrapped; /* NULL unless made by lw_frame_wrap; lives as long as libzmq's bytes */
    zmq_msg_t msg;
};

static void wrapped_free(void *data, void *arg)
{
    wrapped *w = arg;

    (void)atomic_load_explicit(&w->handed, memory_order_acquire);
    w->free_fn(data, w->hint);
    free(w);
}

static lw_frame *frame_new(void)
{
    lw_frame *f = malloc(sizeof(*f));

    if (f) {
        atomic_init(&f->refs, 1);
        f->wrapped = NULL;
    }
    return f;
}

lw_frame *lw_frame_copy(const void *data, size_t size_bytes)
{
    lw_frame *f = frame_new();

    if (!f)
        return NULL;
    if (zmq_msg_init_size(&f->msg, size_bytes) != 0) {
        free(f);
        return NULL;
    }
    if (size_bytes > 0)
        memcpy(zmq_msg_data(&f->msg), data, size_bytes);
    return f;
}

lw_frame *lw_frame_wrap(void *data, size_t size_bytes, lw_frame_free_fn *free_fn, void *hint)
{
    wrapped *w = malloc(sizeof(*w));
    lw_frame *f = frame_new();

    if (!w || !f)
        goto fail;
    w->free_fn = free_fn;
    w->hint = hint;
    atomic_init(&w->handed, false);
    if (zmq_msg_init_data(&f->msg, data, size_bytes, wrapped_free, w) != 0)
        goto fail;
    f->wrapped = w;
    return f;
fail:
    free(w);
    free(f);
    return NULL;
}

lw_frame *lw_frame_take(zmq_msg_t *msg)
{
    lw_frame *f = frame_new();

    if (!f) {
        zmq_msg_close(msg);
        return NULL;
    }
    zmq_msg_init(&f->msg);
    zmq_msg_move(&f->msg, msg);
    zmq_msg_close(msg);
    return f;
}

bool lw_frame_share(lw_frame *f, zmq_msg_t *ret)
{
    zmq_msg_init(ret);
    return zmq_msg_copy(ret, &f->msg) == 0;
}

lw_frame *lw_frame_ref(lw_frame *f)
{
    atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
    return f;
}

void lw_frame_unref(lw_frame **f)
{
    lw_frame *frame = *f;

    *f = NULL;
    if (!frame || atomic_fetch_sub_explicit(&frame->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (frame->wrapped)
        atomic_store_explicit(&frame->wrapped->handed, true, memory_order_release);
    zmq_msg_close(&frame->msg);
    free(frame);
}

/* libzmq's accessors take a plain pointer but do not change the message. */
const void *lw_frame_data(const lw_frame *f)
{
    return zmq_msg_data((zmq_msg_t *)&f->msg);
}

size_t lw_frame_size(const lw_frame *f)
{
    return zmq_msg_size(&f->msg);
}

void lw_packet_clear(lw_packet *p)
{
    for (int i = 0; i < p->n_frames; i++)
        lw_frame_unref(&p->frames[i]);
    p->n_frames = 0;
}

size_t lw_packet_bytes(const lw_packet *p)
{
    size_t n = 0;

    for (int i = 0; i < p->n_frames; i++)
        n += p->frames[i] ? lw_frame_size(p->frames[i]) : 0;
    return n;
}
