/*
 * A message from anywhere. Input: u32 number of frames, then u32 length and bytes of each,
 * little-endian, as the golden messages in tests/data/wire (a good second corpus); numbers beyond
 * the input are cut to it. What is accepted must be encodable, and stay the same from then on.
 */

#include <stdlib.h>
#include <string.h>

#include "proto/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t take_u32(const uint8_t **p, size_t *left)
{
    uint32_t v = 0;

    for (int i = 0; i < 4 && *left > 0; i++, (*p)++, (*left)--)
        v |= (uint32_t) * *p << (8 * i);
    return v;
}

static void read_packet(const uint8_t *data, size_t size, lw_packet *ret)
{
    uint32_t n = take_u32(&data, &size);

    memset(ret, 0, sizeof(*ret));
    do {
        uint32_t len = take_u32(&data, &size);

        if (len > size)
            len = (uint32_t)size;
        ret->frames[ret->n_frames] = lw_frame_copy(data, len);
        if (!ret->frames[ret->n_frames])
            abort();
        ret->n_frames++;
        data += len;
        size -= len;
    } while ((uint32_t)ret->n_frames < n && ret->n_frames <= LW_MAX_TENSORS && size > 0);
}

static bool same(const lw_packet *a, const lw_packet *b)
{
    if (a->n_frames != b->n_frames)
        return false;
    for (int i = 0; i < a->n_frames; i++)
        if (lw_frame_size(a->frames[i]) != lw_frame_size(b->frames[i]) ||
            memcmp(lw_frame_data(a->frames[i]), lw_frame_data(b->frames[i]),
                   lw_frame_size(a->frames[i])) != 0)
            return false;
    return true;
}

/* Every byte of every tensor can be read, converted and counted. */
static void touch_tensors(const lw_msg *m, lw_arena *a)
{
    for (int i = 0; i < m->n_tensors; i++) {
        lw_tensor t;

        if (lw_msg_tensor_copy(&m->tensors[i], a, true, &t, NULL) != LW_OK)
            abort();
    }
}

static void check_accepted(const lw_msg *m, lw_arena *a)
{
    lw_packet first, second;
    lw_err err = { 0 };
    lw_msg again;

    touch_tensors(m, a);
    if (lw_msg_encode(m, &first, &err) != LW_OK) {
        /* Short integers where floats are meant grow to nine bytes each. */
        if (err.code != LW_E_TOO_LARGE)
            abort();
        return;
    }
    if (lw_msg_decode(&first, a, &again, &err) != LW_OK || again.type != m->type ||
        memcmp(again.has, m->has, sizeof(m->has)) != 0 || again.n_tensors != m->n_tensors ||
        lw_msg_encode(&again, &second, &err) != LW_OK || !same(&first, &second))
        abort();
    lw_packet_clear(&first);
    lw_packet_clear(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lw_packet p;
    lw_arena a;
    lw_err err = { 0 };
    lw_msg m;

    read_packet(data, size, &p);
    lw_arena_init(&a, "input", 64u << 20);
    if (lw_msg_decode(&p, &a, &m, &err) == LW_OK)
        check_accepted(&m, &a);
    else if (err.code == LW_OK || err.text[0] == '\0')
        abort();
    lw_arena_deinit(&a);
    lw_packet_clear(&p);
    return 0;
}
