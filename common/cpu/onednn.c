/*
 * The one file that knows oneDNN (C API, major version 2). See onednn.h.
 *
 * The library is built with OpenMP in Debian and would split every call over all cores. Each thread
 * that enters it first sets its own OpenMP team to one, so a call runs where it was made and its
 * result cannot depend on the number of threads.
 */
#include "common/cpu/onednn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>

#include "common/cpu/vec.h"
#include "common/size.h"

/* Strips of a picture need up to four primitives for each convolution; a VAE has about 30 kinds. */
#define MAX_CONVS    256
#define WEIGHT_ALIGN 64

/* From libgomp; its header comes with gcc only. */
extern void omp_set_num_threads(int n);

struct lw_onednn_weights {
    dnnl_memory_desc_t md;
    void *data;
};

struct lw_onednn_conv {
    lw_onednn_shape shape;
    dnnl_memory_desc_t x_md, w_md, b_md, y_md, scratch_md;
    dnnl_primitive_t prim; /* NULL: the library has no fast one */
    size_t scratch_bytes;
    uint64_t last_use; /* 0: free entry */
};

struct lw_onednn {
    dnnl_engine_t engine;
    dnnl_stream_t *streams; /* one per thread of the pool */
    int n_threads;
    uint64_t clock;
    lw_onednn_conv convs[MAX_CONVS];
};

static void enter(void)
{
    static _Thread_local bool entered;

    if (!entered)
        omp_set_num_threads(1);
    entered = true;
}

void lw_onednn_name(char *buf, size_t buf_bytes)
{
    const dnnl_version_t *v = dnnl_version();
    const char *isa;

    switch (dnnl_get_effective_cpu_isa()) {
    case dnnl_cpu_isa_sse41:
        isa = "sse41";
        break;
    case dnnl_cpu_isa_avx:
        isa = "avx";
        break;
    case dnnl_cpu_isa_avx2:
        isa = "avx2";
        break;
    case dnnl_cpu_isa_avx2_vnni:
        isa = "avx2_vnni";
        break;
    case dnnl_cpu_isa_avx512_core:
        isa = "avx512_core";
        break;
    case dnnl_cpu_isa_avx512_core_vnni:
        isa = "avx512_core_vnni";
        break;
    case dnnl_cpu_isa_avx512_core_bf16:
        isa = "avx512_core_bf16";
        break;
    case dnnl_cpu_isa_avx512_core_amx:
        isa = "avx512_core_amx";
        break;
    default:
        isa = "generic";
        break;
    }
    snprintf(buf, buf_bytes, "onednn %d.%d.%d %s", v->major, v->minor, v->patch, isa);
}

/* The library chooses once for the whole process, so a second call changes nothing. */
static void cap_isa(void)
{
    static const dnnl_cpu_isa_t caps[LW_N_ISAS] = { dnnl_cpu_isa_sse41, dnnl_cpu_isa_avx2,
                                                    dnnl_cpu_isa_avx2_vnni,
                                                    dnnl_cpu_isa_avx512_core };

    if (lw_isa_cap() < LW_ISA_AVX512)
        (void)dnnl_set_max_cpu_isa(caps[lw_isa_cap()]);
}

lw_status lw_onednn_create(int n_threads, lw_onednn **ret, lw_err *err)
{
    lw_onednn *d = calloc(1, sizeof(*d));

    if (d)
        d->streams = calloc((size_t)n_threads, sizeof(*d->streams));
    if (!d || !d->streams) {
        lw_onednn_destroy(&d);
        return lw_fail(err, LW_E_NOMEM, "no memory for oneDNN on %d threads", n_threads);
    }
    enter();
    cap_isa();
    if (dnnl_engine_create(&d->engine, dnnl_cpu, 0) != dnnl_success) {
        lw_onednn_destroy(&d);
        return lw_fail(err, LW_E_UNIMPLEMENTED,
                       "oneDNN cannot use this processor; set LATENTWIRE_BACKEND=ref");
    }
    for (; d->n_threads < n_threads; d->n_threads++) {
        if (dnnl_stream_create(&d->streams[d->n_threads], d->engine, dnnl_stream_default_flags) !=
            dnnl_success) {
            lw_onednn_destroy(&d);
            return lw_fail(err, LW_E_NOMEM, "no memory for oneDNN on %d threads", n_threads);
        }
    }
    *ret = d;
    return LW_OK;
}

void lw_onednn_destroy(lw_onednn **ret)
{
    lw_onednn *d = *ret;

    if (!d)
        return;
    for (int i = 0; i < MAX_CONVS; i++) {
        if (d->convs[i].prim)
            dnnl_primitive_destroy(d->convs[i].prim);
    }
    for (int i = 0; i < d->n_threads; i++)
        dnnl_stream_destroy(d->streams[i]);
    if (d->engine)
        dnnl_engine_destroy(d->engine);
    free(d->streams);
    free(d);
    *ret = NULL;
}

bool lw_onednn_sgemm(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                     int64_t ldb, bool b_transposed, float beta, float *c, int64_t ldc)
{
    enter();
    return dnnl_sgemm('N', b_transposed ? 'T' : 'N', m, n, k, 1.0f, a, lda, b, ldb, beta, c, ldc) ==
           dnnl_success;
}

static bool same_shape(const lw_onednn_shape *a, const lw_onednn_shape *b)
{
    return a->h == b->h && a->w == b->w && a->c_in == b->c_in && a->ho == b->ho && a->wo == b->wo &&
           a->c_out == b->c_out && a->k == b->k && a->stride == b->stride &&
           a->pad_top == b->pad_top && a->pad_left == b->pad_left &&
           a->pad_bottom == b->pad_bottom && a->pad_right == b->pad_right && a->bias == b->bias &&
           a->accumulate == b->accumulate;
}

/* The filters as we store them: [c_out, k, k, c_in]. */
static dnnl_status_t plain_weights_md(const lw_onednn_shape *s, dnnl_format_tag_t tag,
                                      dnnl_memory_desc_t *ret)
{
    dnnl_dims_t dims = { s->c_out, s->c_in, s->k, s->k };

    return dnnl_memory_desc_init_by_tag(ret, 4, dims, dnnl_f32, tag);
}

/*
 * Describe the convolution with the given layout of filters (or "any" in it). NULL when the library
 * has none but a reference implementation, which is thousands of times slower than ours.
 */
static dnnl_primitive_desc_t describe(lw_onednn *d, const lw_onednn_shape *s,
                                      const dnnl_memory_desc_t *w_md, dnnl_status_t *ret_status)
{
    dnnl_dims_t x_dims = { 1, s->c_in, s->h, s->w }, y_dims = { 1, s->c_out, s->ho, s->wo };
    dnnl_dims_t b_dims = { s->c_out }, strides = { s->stride, s->stride };
    dnnl_dims_t pad_begin = { s->pad_top, s->pad_left }, pad_end = { s->pad_bottom, s->pad_right };
    dnnl_memory_desc_t x_md, y_md, b_md;
    dnnl_convolution_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const char *impl = "";
    dnnl_status_t st;

    enter();
    st = dnnl_memory_desc_init_by_tag(&x_md, 4, x_dims, dnnl_f32, dnnl_nhwc);
    if (st == dnnl_success)
        st = dnnl_memory_desc_init_by_tag(&y_md, 4, y_dims, dnnl_f32, dnnl_nhwc);
    if (st == dnnl_success)
        st = dnnl_memory_desc_init_by_tag(&b_md, 1, b_dims, dnnl_f32, dnnl_a);
    if (st == dnnl_success)
        st = dnnl_convolution_forward_desc_init(
            &desc, dnnl_forward_inference, dnnl_convolution_direct, &x_md, w_md,
            s->bias ? &b_md : NULL, &y_md, strides, pad_begin, pad_end);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_create(&attr);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (st == dnnl_success)
        st = dnnl_post_ops_create(&post);
    if (st == dnnl_success && s->accumulate)
        st = dnnl_post_ops_append_sum(post, 1.0f);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_post_ops(attr, post);
    if (st == dnnl_success)
        st = dnnl_primitive_desc_create(&pd, &desc, attr, d->engine, NULL);
    if (st == dnnl_success)
        st = dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &impl);
    if (pd && (st != dnnl_success || strstr(impl, "ref"))) {
        dnnl_primitive_desc_destroy(pd);
        pd = NULL;
    }
    if (post)
        dnnl_post_ops_destroy(post);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    *ret_status = st;
    return pd;
}

/* The layout of filters that the library would choose; false when it has no fast convolution. */
static bool preferred_weights_md(lw_onednn *d, const lw_onednn_shape *s, dnnl_memory_desc_t *ret)
{
    dnnl_memory_desc_t any;
    dnnl_primitive_desc_t pd;
    dnnl_status_t st;

    /* The SSE4.1 convolutions read with aligned instructions; rows of a picture are not aligned. */
    if (dnnl_get_effective_cpu_isa() == dnnl_cpu_isa_sse41 ||
        plain_weights_md(s, dnnl_format_tag_any, &any) != dnnl_success)
        return false;
    pd = describe(d, s, &any, &st);
    if (!pd)
        return false;
    *ret = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    dnnl_primitive_desc_destroy(pd);
    return true;
}

size_t lw_onednn_weights_bytes(lw_onednn *d, const lw_onednn_shape *s)
{
    dnnl_memory_desc_t md;

    if (!preferred_weights_md(d, s, &md))
        return 0;
    return lw_size_align(sizeof(lw_onednn_weights), WEIGHT_ALIGN) + dnnl_memory_desc_get_size(&md);
}

bool lw_onednn_weights_pack(lw_onednn *d, const lw_onednn_shape *s, const float *w, void *mem,
                            lw_onednn_weights **ret)
{
    lw_onednn_weights *packed = mem;
    dnnl_memory_desc_t plain;
    dnnl_memory_t from = NULL, to = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_exec_arg_t args[2] = { { DNNL_ARG_FROM, NULL }, { DNNL_ARG_TO, NULL } };
    dnnl_status_t st;

    if (!preferred_weights_md(d, s, &packed->md))
        return false;
    packed->data = (char *)mem + lw_size_align(sizeof(*packed), WEIGHT_ALIGN);
    st = plain_weights_md(s, dnnl_ohwi, &plain);
    if (st == dnnl_success)
        st = dnnl_memory_create(&from, &plain, d->engine, (void *)(uintptr_t)w);
    if (st == dnnl_success)
        st = dnnl_memory_create(&to, &packed->md, d->engine, packed->data);
    if (st == dnnl_success)
        st = dnnl_reorder_primitive_desc_create(&pd, &plain, d->engine, &packed->md, d->engine,
                                                NULL);
    if (st == dnnl_success)
        st = dnnl_primitive_create(&reorder, pd);
    args[0].memory = from;
    args[1].memory = to;
    if (st == dnnl_success)
        st = dnnl_primitive_execute(reorder, d->streams[0], 2, args);
    if (st == dnnl_success)
        st = dnnl_stream_wait(d->streams[0]);
    if (reorder)
        dnnl_primitive_destroy(reorder);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    if (to)
        dnnl_memory_destroy(to);
    if (from)
        dnnl_memory_destroy(from);
    *ret = packed;
    return st == dnnl_success;
}

/* Fill a free cache entry. A shape without a fast convolution is remembered as well. */
static bool conv_make(lw_onednn *d, lw_onednn_conv *c, const lw_onednn_shape *s,
                      const lw_onednn_weights *w)
{
    dnnl_status_t st;
    dnnl_primitive_desc_t pd = describe(d, s, &w->md, &st);

    c->shape = *s;
    c->w_md = w->md;
    if (!pd)
        return st != dnnl_out_of_memory;
    c->x_md = *dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
    c->y_md = *dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
    if (s->bias)
        c->b_md = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 1);
    c->scratch_md = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    c->scratch_bytes = dnnl_memory_desc_get_size(&c->scratch_md);
    st = dnnl_primitive_create(&c->prim, pd);
    dnnl_primitive_desc_destroy(pd);
    return st == dnnl_success;
}

const lw_onednn_conv *lw_onednn_conv_get(lw_onednn *d, const lw_onednn_shape *s,
                                         const lw_onednn_weights *w, bool *out_of_memory)
{
    lw_onednn_conv *oldest = &d->convs[0];

    *out_of_memory = false;
    d->clock++;
    for (int i = 0; i < MAX_CONVS; i++) {
        lw_onednn_conv *c = &d->convs[i];

        if (c->last_use && same_shape(&c->shape, s) && dnnl_memory_desc_equal(&c->w_md, &w->md)) {
            c->last_use = d->clock;
            return c->prim ? c : NULL;
        }
        if (c->last_use < oldest->last_use)
            oldest = c;
    }
    if (oldest->prim)
        dnnl_primitive_destroy(oldest->prim);
    memset(oldest, 0, sizeof(*oldest));
    if (!conv_make(d, oldest, s, w)) {
        memset(oldest, 0, sizeof(*oldest));
        *out_of_memory = true;
        return NULL;
    }
    oldest->last_use = d->clock;
    return oldest->prim ? oldest : NULL;
}

size_t lw_onednn_conv_scratch_bytes(const lw_onednn_conv *c)
{
    return c->scratch_bytes;
}

bool lw_onednn_conv_run(const lw_onednn *d, const lw_onednn_conv *c, int thread,
                        const lw_onednn_weights *w, const float *b, const float *x, float *y,
                        void *scratch)
{
    const struct {
        int arg;
        const dnnl_memory_desc_t *md;
        const void *data;
    } in[] = {
        { DNNL_ARG_SRC, &c->x_md, x },  { DNNL_ARG_WEIGHTS, &c->w_md, w->data },
        { DNNL_ARG_DST, &c->y_md, y },  { DNNL_ARG_SCRATCHPAD, &c->scratch_md, scratch },
        { DNNL_ARG_BIAS, &c->b_md, b },
    };
    int n = c->shape.bias ? 5 : 4;
    dnnl_exec_arg_t args[5] = { 0 };
    dnnl_status_t st = dnnl_success;

    enter();
    for (int i = 0; i < n && st == dnnl_success; i++) {
        args[i].arg = in[i].arg;
        st =
            dnnl_memory_create(&args[i].memory, in[i].md, d->engine, (void *)(uintptr_t)in[i].data);
    }
    if (st == dnnl_success)
        st = dnnl_primitive_execute(c->prim, d->streams[thread], n, args);
    if (st == dnnl_success)
        st = dnnl_stream_wait(d->streams[thread]);
    for (int i = 0; i < n; i++) {
        if (args[i].memory)
            dnnl_memory_destroy(args[i].memory);
    }
    return st == dnnl_success;
}
