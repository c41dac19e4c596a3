#include "tests/unit/hub/world.h"

#include "common/log.h"

/* ---- the world outside the hub ---- */

static peer *peer_of(world *w, lw_hub_side side, const lw_peer *id)
{
    for (int i = 0; i < w->n_peers; i++)
        if (w->peers[i]->side == side && w->peers[i]->id.len == id->len &&
            !memcmp(w->peers[i]->id.id, id->id, id->len))
            return w->peers[i];
    return NULL;
}

/* What crossed a wire is no longer the sender's memory. */
static void copy_frames(lw_kept *k)
{
    for (int i = 0; i < k->n_tensors; i++) {
        lw_held *h = &k->tensors[i].held;
        lw_frame *f = lw_frame_copy(lw_frame_data(h->frame), lw_frame_size(h->frame));

        assert_non_null(f);
        lw_frame_unref(&h->frame);
        h->frame = f;
        h->t.data = (void *)(uintptr_t)lw_frame_data(f);
    }
}

static lw_status take_message(void *ctx, lw_hub_side side, const lw_peer *to, const lw_msg *m,
                              lw_err *err)
{
    world *w = ctx;
    peer *p = peer_of(w, side, to);

    if (!p || p->link == LW_E_UNAVAILABLE)
        return lw_fail(err, LW_E_UNAVAILABLE, "no such peer");
    if (p->link != LW_OK)
        return lw_fail(err, p->link, "the link fails");
    if (m->type == LW_MSG_HEARTBEAT)
        return LW_OK;
    assert_in_range(p->n_mail, 0, MAX_MAIL - 1);
    assert_int_equal(lw_kept_take(&p->mail[p->n_mail], m, err), LW_OK);
    if (!p->hoards)
        copy_frames(&p->mail[p->n_mail]);
    p->n_mail++;
    return LW_OK;
}

static void make_random(void *ctx, void *buf, size_t n)
{
    world *w = ctx;
    uint8_t *p = buf;

    for (size_t i = 0; i < n; i++) {
        w->random = w->random * UINT64_C(6364136223846793005) + 1442695040888963407;
        p[i] = (uint8_t)(w->random >> 56);
    }
}

void world_init(world *w, const lw_hub_params *p)
{
    const lw_hub_io io = { .ctx = w, .send = take_message, .random = make_random };
    const lw_hub_params none = { 0 };
    lw_err err = { 0 };

    lw_log_init(LW_ERROR, false, "test");
    *w = (world){ .now = 1000000, .random = 1 };
    assert_ok(lw_hub_create(p ? p : &none, &io, w->now, &w->hub, &err), &err);
}

void world_deinit(world *w)
{
    lw_hub_destroy(&w->hub);
    for (int i = 0; i < w->n_peers; i++) {
        for (int k = 0; k < w->peers[i]->n_mail; k++)
            lw_kept_drop(&w->peers[i]->mail[k]);
        free(w->peers[i]);
    }
    w->n_peers = 0;
}

/* ---- peers ---- */

static void make_contract(lw_role role, lw_contract *c)
{
    lw_contract_set(c, model_id, "toy");
    lw_contract_set(c, weights_digest, lw_role_name(role));
    lw_contract_set(c, backend, "ref");
    lw_contract_set(c, precision, "f32");
    switch (role) {
    case LW_ROLE_ENCODER:
        lw_contract_set(c, dim, DIM);
        break;
    case LW_ROLE_DENOISER:
        lw_contract_set(c, cap_dim, DIM);
        lw_contract_set(c, latent_channels, CHANNELS);
        lw_contract_set(c, patch, 2);
        break;
    case LW_ROLE_DECODER:
        lw_contract_set(c, latent_channels, CHANNELS);
        lw_contract_set(c, downscale, DOWN);
        break;
    default:
        c->has = 0;
        break;
    }
}

peer *world_peer(world *w, lw_role role, const char *name)
{
    peer *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    assert_in_range(w->n_peers, 0, MAX_PEERS - 1);
    p->side = role == LW_ROLE_CLIENT ? LW_FRONTEND : LW_BACKEND;
    p->role = role;
    p->slots = 1;
    snprintf(p->name, sizeof(p->name), "%s", name);
    p->id.len = 5;
    p->id.id[4] = (uint8_t)(w->n_peers + 1);
    p->instance[0] = (uint8_t)(w->n_peers + 1);
    make_contract(role, &p->contract);
    w->peers[w->n_peers++] = p;
    return p;
}

void world_send(world *w, peer *p, const lw_msg *m)
{
    lw_hub_receive(w->hub, p->side, &p->id, m, w->now);
}

void world_hello(world *w, peer *p)
{
    lw_msg m;

    lw_msg_init(&m, LW_MSG_HELLO, NULL);
    lw_msg_set(&m, minor_min, LW_WIRE_MINOR_MIN);
    lw_msg_set(&m, minor_max, LW_WIRE_MINOR_MAX);
    lw_msg_set(&m, role, p->role);
    lw_msg_set(&m, name, p->name);
    lw_msg_set(&m, slots, (uint64_t)p->slots);
    memcpy(m.instance, p->instance, sizeof(m.instance));
    lw_msg_mark(&m, instance);
    m.contract = p->contract;
    lw_msg_mark(&m, contract);
    world_send(w, p, &m);
}

void world_credit(world *w, peer *p, int credits)
{
    lw_msg m;

    lw_msg_init(&m, LW_MSG_CREDIT, NULL);
    lw_msg_set(&m, epoch, p->epoch);
    lw_msg_set(&m, credits, (uint64_t)credits);
    world_send(w, p, &m);
}

void world_join(world *w, peer *p)
{
    const lw_kept *k;

    world_hello(w, p);
    k = mail_expect(p, LW_MSG_WELCOME);
    p->epoch = k->msg.epoch;
    if (p->side == LW_BACKEND)
        world_credit(w, p, p->slots);
}

peer *world_client(world *w, const char *name)
{
    peer *p = world_peer(w, LW_ROLE_CLIENT, name);

    world_join(w, p);
    return p;
}

peer *world_worker(world *w, lw_role role, const char *name)
{
    peer *p = world_peer(w, role, name);

    world_join(w, p);
    return p;
}

trio world_trio(world *w)
{
    return (trio){ .encoder = world_worker(w, LW_ROLE_ENCODER, "encoder"),
                   .denoiser = world_worker(w, LW_ROLE_DENOISER, "denoiser"),
                   .decoder = world_worker(w, LW_ROLE_DECODER, "decoder") };
}

/* ---- time ---- */

void world_beat(world *w, peer *p)
{
    lw_msg m;

    lw_msg_init(&m, LW_MSG_HEARTBEAT, NULL);
    if (p->side == LW_BACKEND) {
        lw_msg_set(&m, epoch, p->epoch);
        lw_msg_set(&m, state, p->busy ? "busy" : "idle");
        lw_msg_set(&m, credits, (uint64_t)(p->busy ? 0 : p->slots));
        if (p->busy) {
            memcpy(m.in_flight, p->in_flight, sizeof(m.in_flight));
            lw_msg_mark(&m, in_flight);
            lw_msg_set(&m, step_age_ms, p->step_age_ms);
        }
    }
    world_send(w, p, &m);
}

void world_wait(world *w, int64_t ms)
{
    const int64_t end = w->now + ms;

    while (w->now < end) {
        w->now += 250;
        for (int i = 0; w->now % 1000 == 0 && i < w->n_peers; i++)
            if (w->peers[i]->epoch && !w->peers[i]->silent)
                world_beat(w, w->peers[i]);
        lw_hub_tick(w->hub, w->now);
    }
}

/* ---- mail ---- */

const lw_kept *mail_next(peer *p)
{
    return p->n_read < p->n_mail ? &p->mail[p->n_read++] : NULL;
}

const lw_kept *mail_expect(peer *p, lw_msg_type type)
{
    const lw_kept *k = mail_next(p);

    if (!k)
        fail_msg("%s has no mail, expected %s", p->name, lw_msg_type_name(type));
    if (k->msg.type != type)
        fail_msg("%s got %s (%s), expected %s", p->name, lw_msg_type_name(k->msg.type),
                 lw_msg_get(&k->msg, message, ""), lw_msg_type_name(type));
    return k;
}

const lw_kept *mail_find(peer *p, lw_msg_type type)
{
    const lw_kept *k;

    while ((k = mail_next(p)))
        if (k->msg.type == type)
            return k;
    fail_msg("%s got no %s", p->name, lw_msg_type_name(type));
    return NULL;
}

int mail_count(const peer *p, lw_msg_type type, const uint8_t *id)
{
    int n = 0;

    for (int i = 0; i < p->n_mail; i++)
        n += p->mail[i].msg.type == type && (!id || !memcmp(p->mail[i].msg.id, id, 16));
    return n;
}

void mail_none(peer *p)
{
    const lw_kept *k = mail_next(p);

    if (k)
        fail_msg("%s got %s, expected nothing", p->name, lw_msg_type_name(k->msg.type));
}

/* ---- jobs ---- */

const uint8_t *job_id(int n)
{
    static uint8_t ids[8][16];
    static int turn;
    uint8_t *id = ids[turn++ % 8];

    memset(id, 0, 16);
    id[0] = (uint8_t)n;
    id[1] = (uint8_t)(n >> 8);
    id[15] = 'j';
    return id;
}

lw_msg job_prompt(int n, lw_artefact to)
{
    lw_msg m;

    lw_msg_init(&m, LW_MSG_SUBMIT, job_id(n));
    lw_msg_set(&m, from, LW_ARTEFACT_PROMPT);
    lw_msg_set(&m, to, to);
    lw_msg_set(&m, prompt, "a red circle");
    lw_msg_set(&m, width, WIDTH);
    lw_msg_set(&m, height, HEIGHT);
    lw_msg_set(&m, steps, STEPS);
    lw_msg_set(&m, seed, 7);
    return m;
}

/* ---- work ---- */

/* Values small enough to be exact; a picture's bytes hold them modulo 256. */
static float text_value(const char *prompt)
{
    float sum = 1;

    for (size_t i = 0; prompt[i]; i++)
        sum += (float)((unsigned char)prompt[i] * (int)(i % 3 + 1));
    return sum;
}

static float latent_value(float positive, float negative, uint64_t seed)
{
    return positive + 3 * negative + 5 * (float)(seed % 1000);
}

uint8_t right_pixel(const char *prompt, const char *negative, uint64_t seed)
{
    float v = latent_value(text_value(prompt), negative ? text_value(negative) : 0, seed);

    return (uint8_t)(unsigned)v;
}

const lw_kept *work_take(peer *worker)
{
    const lw_kept *task = mail_find(worker, LW_MSG_TASK);

    worker->busy = true;
    worker->step_age_ms = 0;
    memcpy(worker->in_flight, task->msg.id, sizeof(worker->in_flight));
    return task;
}

static void send_done(world *w, peer *worker, lw_msg *m)
{
    worker->busy = false;
    world_send(w, worker, m);
    world_credit(w, worker, worker->slots);
}

static float first_value(const lw_kept *task, const char *name)
{
    const lw_held *h = lw_kept_find(task, name);
    float v;

    if (!h)
        return 0;
    assert_int_equal(h->t.dtype, LW_F32);
    memcpy(&v, h->t.data, sizeof(v));
    return v;
}

static lw_tensor make_tensor(lw_dtype dtype, int rank, const int64_t *shape)
{
    lw_tensor t = lw_tensor_nd(NULL, dtype, rank, shape);

    t.data = calloc(1, lw_tensor_bytes(&t));
    assert_non_null(t.data);
    return t;
}

static void answer_encode(const lw_kept *task, lw_msg *m)
{
    const char *prompt = task->msg.prompt;
    int64_t shape[2] = { (int64_t)strlen(prompt) + 1, DIM };
    lw_tensor rows = make_tensor(LW_F32, 2, shape), ids = make_tensor(LW_I32, 1, shape);

    for (int64_t i = 0; i < lw_tensor_count(&rows); i++)
        lw_f32(&rows)[i] = text_value(prompt);
    lw_msg_set(m, n_tokens, (uint64_t)shape[0]);
    lw_msg_set(m, truncated, false);
    lw_msg_set(m, text_digest, "d1");
    assert_int_equal(lw_msg_tensor_add(m, LW_T_PROMPT_EMBEDS, &rows, NULL, NULL), LW_OK);
    assert_int_equal(lw_msg_tensor_add(m, LW_T_TOKEN_IDS, &ids, NULL, NULL), LW_OK);
}

static void answer_tokenize(const lw_kept *task, lw_msg *m)
{
    const char *prompt = task->msg.prompt;
    int64_t n = (int64_t)strlen(prompt);
    lw_tensor text = make_tensor(LW_U8, 1, &n), ids = make_tensor(LW_I32, 1, &n);

    memcpy(text.data, prompt, (size_t)n);
    lw_msg_set(m, n_tokens, (uint64_t)n);
    lw_msg_set(m, n_text_tokens, (uint64_t)n);
    lw_msg_set(m, text_digest, "d2");
    assert_int_equal(lw_msg_tensor_add(m, LW_T_TOKEN_IDS, &ids, NULL, NULL), LW_OK);
    assert_int_equal(lw_msg_tensor_add(m, LW_T_TEXT, &text, NULL, NULL), LW_OK);
}

static void answer_denoise(const lw_kept *task, lw_msg *m)
{
    static const double sigmas[STEPS + 1] = { 1, 0.75, 0.5, 0.25, 0 };
    const lw_msg *t = &task->msg;
    int64_t n = (int64_t)lw_msg_get(t, n, 1);
    int64_t shape[4] = { n, CHANNELS, (int64_t)t->height / DOWN, (int64_t)t->width / DOWN };
    int64_t each = shape[1] * shape[2] * shape[3];
    lw_tensor x = make_tensor(LW_F32, 4, shape);

    assert_non_null(lw_kept_find(task, LW_T_PROMPT_EMBEDS));
    for (int64_t i = 0; i < n * each; i++)
        lw_f32(&x)[i] =
            latent_value(first_value(task, LW_T_PROMPT_EMBEDS),
                         first_value(task, LW_T_NEGATIVE_EMBEDS), t->seed + (uint64_t)(i / each));
    lw_msg_set(m, sigmas, ((lw_f64s){ .v = sigmas, .n = STEPS + 1 }));
    assert_int_equal(lw_msg_tensor_add(m, LW_T_LATENTS, &x, NULL, NULL), LW_OK);
}

static void answer_decode(const lw_kept *task, lw_msg *m)
{
    const lw_held *z = lw_kept_find(task, LW_T_LATENTS);
    int64_t shape[4] = { z->t.shape[0], z->t.shape[2] * DOWN, z->t.shape[3] * DOWN, 3 };
    lw_tensor image = make_tensor(LW_U8, 4, shape);

    memset(image.data, (uint8_t)(unsigned)first_value(task, LW_T_LATENTS), lw_tensor_bytes(&image));
    assert_int_equal(lw_msg_tensor_add(m, LW_T_IMAGE, &image, NULL, NULL), LW_OK);
}

static void answer_encode_image(const lw_kept *task, lw_msg *m)
{
    const lw_held *image = lw_kept_find(task, LW_T_IMAGE);
    int64_t shape[4] = { image->t.shape[0], CHANNELS, image->t.shape[1] / DOWN,
                         image->t.shape[2] / DOWN };
    lw_tensor z = make_tensor(LW_F32, 4, shape);

    for (int64_t i = 0; i < lw_tensor_count(&z); i++)
        lw_f32(&z)[i] = *(const uint8_t *)image->t.data;
    assert_int_equal(lw_msg_tensor_add(m, LW_T_LATENTS, &z, NULL, NULL), LW_OK);
}

void work_answer(world *w, peer *worker, const lw_kept *task)
{
    lw_msg m;

    lw_msg_init(&m, LW_MSG_RESULT, task->msg.id);
    lw_msg_set(&m, op, task->msg.op);
    lw_msg_set(&m, t_ms, 10);
    switch (task->msg.op) {
    case LW_OP_ENCODE:
        answer_encode(task, &m);
        break;
    case LW_OP_TOKENIZE:
        answer_tokenize(task, &m);
        break;
    case LW_OP_DENOISE:
        answer_denoise(task, &m);
        break;
    case LW_OP_DECODE:
        answer_decode(task, &m);
        break;
    default:
        answer_encode_image(task, &m);
        break;
    }
    send_done(w, worker, &m);
    for (int i = 0; i < m.n_tensors; i++)
        free(m.tensors[i].t.data);
}

const lw_kept *work_one(world *w, peer *worker)
{
    const lw_kept *task = work_take(worker);

    work_answer(w, worker, task);
    return task;
}

void work_error(world *w, peer *worker, const lw_kept *task, lw_status code, bool retryable)
{
    lw_err err = { 0 };
    lw_msg m;

    lw_fail(&err, code, "told to fail");
    lw_msg_error(&m, task->msg.id, &err);
    lw_msg_set(&m, retryable, retryable);
    send_done(w, worker, &m);
}

void work_progress(world *w, peer *worker, const lw_kept *task, uint64_t step, bool checkpoint)
{
    int64_t shape[4] = { 1, CHANNELS, HEIGHT / DOWN, WIDTH / DOWN };
    lw_tensor x = make_tensor(LW_F32, 4, shape);
    lw_msg m;

    lw_msg_init(&m, LW_MSG_PROGRESS, task->msg.id);
    lw_msg_set(&m, op, task->msg.op);
    lw_msg_set(&m, step, step);
    if (checkpoint) {
        lw_f32(&x)[0] = (float)step;
        lw_msg_set(&m, start_step, step);
        assert_int_equal(lw_msg_tensor_add(&m, LW_T_LATENTS, &x, NULL, NULL), LW_OK);
    } else {
        lw_msg_set(&m, total, STEPS);
        lw_msg_set(&m, sigma, 0.5);
    }
    world_send(w, worker, &m);
    free(x.data);
}

void work_all(world *w)
{
    bool any = true;

    while (any) {
        any = false;
        for (int i = 0; i < w->n_peers; i++) {
            peer *p = w->peers[i];

            while (p->side == LW_BACKEND && p->n_read < p->n_mail) {
                const lw_kept *k = mail_next(p);

                if (k->msg.type != LW_MSG_TASK)
                    continue;
                any = true;
                work_answer(w, p, k);
            }
        }
    }
}
