/* Previews: shrink, decode, write. */

#include "orchestrate/preview.h"

#include <string.h>

#include "common/png.h"
#include "proto/packet.h"

#define ARENA_BYTES ((size_t)256 << 20)

lw_status lw_preview_shrink(const lw_msg_tensor *mt, int64_t longest, lw_arena *a, lw_tensor *ret,
                            lw_err *err)
{
    const int lead = mt->t.rank - 3; /* 1: a batch axis */
    const int64_t *in = mt->t.shape + (lead == 1);
    int64_t k = 1, C, h, w;
    lw_tensor z;
    float *y;

    if (lead < 0 || lead > 1 || (lead == 1 && mt->t.shape[0] != 1) ||
        !lw_dtype_is_float(mt->t.dtype) || in[0] < 1 || in[1] < 1 || in[2] < 1)
        return lw_fail(err, LW_E_SHAPE, "a preview is not latents [1, C, h, w]");
    while (in[1] / k > longest || in[2] / k > longest)
        k++;
    C = in[0];
    h = in[1] / k > 0 ? in[1] / k : 1;
    w = in[2] / k > 0 ? in[2] / k : 1;
    LW_TRY(lw_msg_tensor_copy(mt, a, true, &z, err));
    LW_TRY(lw_tensor_alloc(a, LW_F32, 4, (int64_t[]){ 1, C, h, w }, ret, err));
    y = lw_f32(ret);
    for (int64_t c = 0; c < C; c++)
        for (int64_t i = 0; i < h; i++)
            for (int64_t j = 0; j < w; j++) {
                /* A very long, thin picture may have fewer rows than a box. */
                const int64_t rows = in[1] < k ? in[1] : k, cols = in[2] < k ? in[2] : k;
                const float *box = lw_f32(&z) + (c * in[1] + i * k) * in[2] + j * k;
                double sum = 0;

                for (int64_t r = 0; r < rows; r++)
                    for (int64_t s = 0; s < cols; s++)
                        sum += (double)box[r * in[2] + s];
                *y++ = (float)(sum / (double)(rows * cols));
            }
    return LW_OK;
}

static bool is_rgb(const lw_tensor *t, int rank)
{
    return t->dtype == LW_U8 && t->rank == rank && t->shape[rank - 1] == 3 &&
           t->shape[rank - 2] > 0 && t->shape[rank - 3] > 0 && t->shape[0] > 0;
}

static void write_rgb(const lw_preview *p, const lw_tensor *t)
{
    const int64_t *side = &t->shape[t->rank - 3];

    (void)!lw_png_write(p->path, t->data, (int)side[1], (int)side[0], NULL, 0, NULL);
}

void lw_preview_show(lw_preview *p, lw_client *c, const lw_msg *m)
{
    const lw_msg_tensor *rgb = lw_msg_tensor_find(m, LW_T_PREVIEW);
    const lw_msg_tensor *latents = lw_msg_tensor_find(m, LW_T_LATENTS);
    lw_arena a;
    lw_tensor z;
    lw_msg ask;

    if (!p->path)
        return;
    if (rgb && is_rgb(&rgb->t, 3)) { /* a denoiser that makes its own */
        write_rgb(p, &rgb->t);
        return;
    }
    if (!latents || p->waiting)
        return;
    lw_arena_init(&a, "preview", ARENA_BYTES);
    lw_client_new_id(p->id);
    lw_msg_init(&ask, LW_MSG_SUBMIT, p->id);
    lw_msg_set(&ask, from, LW_ARTEFACT_LATENTS);
    lw_msg_set(&ask, to, LW_ARTEFACT_IMAGE);
    if (lw_preview_shrink(latents, LW_PREVIEW_LATENTS, &a, &z, NULL) == LW_OK &&
        lw_msg_tensor_add(&ask, LW_T_LATENTS, &z, NULL, NULL) == LW_OK)
        p->waiting = lw_client_send(c, &ask, NULL) == LW_OK;
    lw_arena_deinit(&a);
}

bool lw_preview_answer(lw_preview *p, const lw_msg *m)
{
    const lw_msg_tensor *mt;

    if (!p->waiting || !m->has_id || memcmp(m->id, p->id, sizeof(p->id)) != 0)
        return false;
    if (m->type == LW_MSG_RESULT) {
        mt = lw_msg_tensor_find(m, LW_T_IMAGE);
        if (mt && is_rgb(&mt->t, 4))
            write_rgb(p, &mt->t);
    }
    if (m->type == LW_MSG_RESULT || m->type == LW_MSG_ERROR || m->type == LW_MSG_CANCELLED)
        p->waiting = false;
    return true;
}
