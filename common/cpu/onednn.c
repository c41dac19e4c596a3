/*
 * The one file that knows oneDNN (C API, major versions 2 and 3). See onednn.h.
 *
 * The library is built with OpenMP in Debian and would split every call over all cores. Each thread
 * that enters it first sets its own OpenMP team to one, so a call runs where it was made and its
 * result cannot depend on the number of threads.
 */
#include "common/cpu/onednn.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>

#include "common/cpu/vec.h"
#include "common/size.h"

/* Strips of a picture need up to four primitives for each convolution; a VAE has about 30 kinds. */
#define MAX_CONVS    256
#define WEIGHT_ALIGN 64

#if (DNNL_CPU_THREADING_RUNTIME & ~(DNNL_RUNTIME_SEQ | DNNL_RUNTIME_OMP)) != 0
#error "this oneDNN has threads that are not OpenMP's; build with another, or -Donednn=disabled"
#endif

/*
 * What differs between the major versions, in the manner of version 3: descriptions of memory are
 * objects behind a pointer, and a convolution is described in one call. md_destroy takes NULL.
 */
#if DNNL_VERSION_MAJOR == 3

typedef dnnl_memory_desc_t md;
typedef const_dnnl_memory_desc_t const_md;

static dnnl_status_t md_create(md *ret, int n_dims, const dnnl_dims_t dims, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(ret, n_dims, dims, dnnl_f32, tag);
}

static void md_destroy(md m)
{
    if (m)
        dnnl_memory_desc_destroy(m);
}

static dnnl_status_t append_sum(dnnl_post_ops_t post)
{
    return dnnl_post_ops_append_sum(post, 1.0f, 0, dnnl_data_type_undef);
}

static dnnl_status_t conv_pd_create(dnnl_primitive_desc_t *ret, dnnl_engine_t engine, const_md x,
                                    const_md w, const_md b, const_md y, const dnnl_dims_t strides,
                                    const dnnl_dims_t pad_begin, const dnnl_dims_t pad_end,
                                    const_dnnl_primitive_attr_t attr)
{
    const dnnl_dims_t dilation = { 0 };

    return dnnl_convolution_forward_primitive_desc_create(
        ret, engine, dnnl_forward_inference, dnnl_convolution_direct, x, w, b, y, strides, dilation,
        pad_begin, pad_end, attr);
}

#elif DNNL_VERSION_MAJOR == 2

typedef dnnl_memory_desc_t *md;
typedef const dnnl_memory_desc_t *const_md;

static dnnl_status_t md_create(md *ret, int n_dims, const dnnl_dims_t dims, dnnl_format_tag_t tag)
{
    *ret = malloc(sizeof(**ret));
    if (!*ret)
        return dnnl_out_of_memory;
    return dnnl_memory_desc_init_by_tag(*ret, n_dims, dims, dnnl_f32, tag);
}

static void md_destroy(md m)
{
    free(m);
}

static dnnl_status_t append_sum(dnnl_post_ops_t post)
{
    return dnnl_post_ops_append_sum(post, 1.0f);
}

static dnnl_status_t conv_pd_create(dnnl_primitive_desc_t *ret, dnnl_engine_t engine, const_md x,
                                    const_md w, const_md b, const_md y, const dnnl_dims_t strides,
                                    const dnnl_dims_t pad_begin, const dnnl_dims_t pad_end,
                                    const_dnnl_primitive_attr_t attr)
{
    dnnl_convolution_desc_t desc;
    dnnl_status_t st =
        dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference, dnnl_convolution_direct,
                                           x, w, b, y, strides, pad_begin, pad_end);

    return st == dnnl_success ? dnnl_primitive_desc_create(ret, &desc, attr, engine, NULL) : st;
}

#else
#error "expected oneDNN 2 or 3"
#endif

/* The layout itself is the library's answer for `shape`, the same whenever it is asked. */
struct lw_onednn_weights {
    lw_onednn_shape shape;
    void *data;
};

struct lw_onednn_conv {
    lw_onednn_shape shape, w_shape;
    dnnl_primitive_t prim;          /* NULL: the library has no fast one */
    const_dnnl_primitive_desc_t pd; /* of prim, which owns it */
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

/* Of whichever OpenMP the library brought along: linking with one could make it the second. */
static void enter(void)
{
    static _Thread_local bool entered;
    void (*set_threads)(int);
    void *found;

    if (entered)
        return;
    entered = true;
    found = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    memcpy(&set_threads, &found, sizeof(found));
    if (set_threads)
        set_threads(1);
}

void lw_onednn_name(char *buf, size_t buf_bytes)
{
    /* Sets of bits. Each version adds some at the end, so name the last one that is contained. */
    static const struct {
        unsigned bits;
        const char *name;
    } isas[] = {
        { dnnl_cpu_isa_sse41, "sse41" },
        { dnnl_cpu_isa_avx, "avx" },
        { dnnl_cpu_isa_avx2, "avx2" },
        { dnnl_cpu_isa_avx2_vnni, "avx2_vnni" },
        { dnnl_cpu_isa_avx512_core, "avx512_core" },
        { dnnl_cpu_isa_avx512_core_vnni, "avx512_core_vnni" },
        { dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16" },
        { dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx" },
    };
    const dnnl_version_t *v = dnnl_version();
    unsigned isa = dnnl_get_effective_cpu_isa();
    const char *name = "generic";

    for (size_t i = 0; i < sizeof(isas) / sizeof(isas[0]); i++) {
        if ((isa & isas[i].bits) == isas[i].bits)
            name = isas[i].name;
    }
    snprintf(buf, buf_bytes, "onednn %d.%d.%d %s", v->major, v->minor, v->patch, name);
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

static void conv_drop(lw_onednn_conv *c)
{
    if (c->prim)
        dnnl_primitive_destroy(c->prim);
    memset(c, 0, sizeof(*c));
}

void lw_onednn_destroy(lw_onednn **ret)
{
    lw_onednn *d = *ret;

    if (!d)
        return;
    for (int i = 0; i < MAX_CONVS; i++)
        conv_drop(&d->convs[i]);
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

/*
 * Describe the convolution with filters laid out as `w`, or as the library likes best when that is
 * NULL. NULL when it has none but a reference implementation, which is thousands of times slower
 * than ours.
 */
static dnnl_primitive_desc_t describe(lw_onednn *d, const lw_onednn_shape *s, const_md w,
                                      dnnl_status_t *ret_status)
{
    dnnl_dims_t x_dims = { 1, s->c_in, s->h, s->w }, y_dims = { 1, s->c_out, s->ho, s->wo };
    dnnl_dims_t w_dims = { s->c_out, s->c_in, s->k, s->k }, b_dims = { s->c_out };
    dnnl_dims_t strides = { s->stride, s->stride };
    dnnl_dims_t pad_begin = { s->pad_top, s->pad_left }, pad_end = { s->pad_bottom, s->pad_right };
    md x = NULL, y = NULL, b = NULL, w_any = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const char *impl = "";
    dnnl_status_t st;

    enter();
    st = md_create(&x, 4, x_dims, dnnl_nhwc);
    if (st == dnnl_success)
        st = md_create(&y, 4, y_dims, dnnl_nhwc);
    if (st == dnnl_success && s->bias)
        st = md_create(&b, 1, b_dims, dnnl_a);
    if (st == dnnl_success && !w)
        st = md_create(&w_any, 4, w_dims, dnnl_format_tag_any);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_create(&attr);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (st == dnnl_success)
        st = dnnl_post_ops_create(&post);
    if (st == dnnl_success && s->accumulate)
        st = append_sum(post);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_post_ops(attr, post);
    if (st == dnnl_success)
        st = conv_pd_create(&pd, d->engine, x, w ? w : w_any, b, y, strides, pad_begin, pad_end,
                            attr);
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
    md_destroy(w_any);
    md_destroy(b);
    md_destroy(y);
    md_destroy(x);
    *ret_status = st;
    return pd;
}

/* The convolution that decides how filters are laid out; NULL when there is no fast one. */
static dnnl_primitive_desc_t describe_freely(lw_onednn *d, const lw_onednn_shape *s,
                                             dnnl_status_t *ret_status)
{
    /* The SSE4.1 convolutions read with aligned instructions; rows of a picture are not aligned. */
    if (dnnl_get_effective_cpu_isa() == dnnl_cpu_isa_sse41) {
        *ret_status = dnnl_unimplemented;
        return NULL;
    }
    return describe(d, s, NULL, ret_status);
}

static const_md weights_md(const_dnnl_primitive_desc_t pd)
{
    return dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
}

size_t lw_onednn_weights_bytes(lw_onednn *d, const lw_onednn_shape *s)
{
    dnnl_status_t st;
    dnnl_primitive_desc_t pd = describe_freely(d, s, &st);
    size_t bytes;

    if (!pd)
        return 0;
    bytes = dnnl_memory_desc_get_size(weights_md(pd));
    dnnl_primitive_desc_destroy(pd);
    return lw_size_align(sizeof(lw_onednn_weights), WEIGHT_ALIGN) + bytes;
}

bool lw_onednn_weights_pack(lw_onednn *d, const lw_onednn_shape *s, const float *w, void *mem,
                            lw_onednn_weights **ret)
{
    lw_onednn_weights *packed = mem;
    dnnl_dims_t dims = { s->c_out, s->c_in, s->k, s->k };
    md plain = NULL;
    dnnl_memory_t from = NULL, to = NULL;
    dnnl_primitive_desc_t conv, pd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_exec_arg_t args[2] = { { DNNL_ARG_FROM, NULL }, { DNNL_ARG_TO, NULL } };
    dnnl_status_t st;

    conv = describe_freely(d, s, &st);
    if (!conv)
        return false;
    packed->shape = *s;
    packed->data = (char *)mem + lw_size_align(sizeof(*packed), WEIGHT_ALIGN);
    st = md_create(&plain, 4, dims, dnnl_ohwi);
    if (st == dnnl_success)
        st = dnnl_memory_create(&from, plain, d->engine, (void *)(uintptr_t)w);
    if (st == dnnl_success)
        st = dnnl_memory_create(&to, weights_md(conv), d->engine, packed->data);
    if (st == dnnl_success)
        st = dnnl_reorder_primitive_desc_create(&pd, plain, d->engine, weights_md(conv), d->engine,
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
    md_destroy(plain);
    dnnl_primitive_desc_destroy(conv);
    *ret = packed;
    return st == dnnl_success;
}

/* Fill a free cache entry. A shape without a fast convolution is remembered as well. */
static bool conv_make(lw_onednn *d, lw_onednn_conv *c, const lw_onednn_shape *s,
                      const lw_onednn_weights *w)
{
    dnnl_status_t st;
    dnnl_primitive_desc_t layout = describe_freely(d, &w->shape, &st), pd = NULL;

    c->shape = *s;
    c->w_shape = w->shape;
    if (layout) {
        pd = describe(d, s, weights_md(layout), &st);
        dnnl_primitive_desc_destroy(layout);
    }
    if (!pd)
        return st != dnnl_out_of_memory;
    st = dnnl_primitive_create(&c->prim, pd);
    dnnl_primitive_desc_destroy(pd);
    if (st == dnnl_success)
        st = dnnl_primitive_get_primitive_desc(c->prim, &c->pd);
    if (st == dnnl_success)
        c->scratch_bytes = dnnl_memory_desc_get_size(
            dnnl_primitive_desc_query_md(c->pd, dnnl_query_scratchpad_md, 0));
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

        if (c->last_use && same_shape(&c->shape, s) && same_shape(&c->w_shape, &w->shape)) {
            c->last_use = d->clock;
            return c->prim ? c : NULL;
        }
        if (c->last_use < oldest->last_use)
            oldest = c;
    }
    conv_drop(oldest);
    if (!conv_make(d, oldest, s, w)) {
        conv_drop(oldest);
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
        dnnl_query_t what;
        int index;
        const void *data;
    } in[] = {
        { DNNL_ARG_SRC, dnnl_query_src_md, 0, x },
        { DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0, w->data },
        { DNNL_ARG_DST, dnnl_query_dst_md, 0, y },
        { DNNL_ARG_SCRATCHPAD, dnnl_query_scratchpad_md, 0, scratch },
        { DNNL_ARG_BIAS, dnnl_query_weights_md, 1, b },
    };
    int n = c->shape.bias ? 5 : 4;
    dnnl_exec_arg_t args[5] = { 0 };
    dnnl_status_t st = dnnl_success;

    enter();
    for (int i = 0; i < n && st == dnnl_success; i++) {
        args[i].arg = in[i].arg;
        st = dnnl_memory_create(&args[i].memory,
                                dnnl_primitive_desc_query_md(c->pd, in[i].what, in[i].index),
                                d->engine, (void *)(uintptr_t)in[i].data);
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
