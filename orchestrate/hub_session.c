/*
 * Sessions: who is connected, since when (epoch), and whether it still lives. A session begins with
 * HELLO and ends with BYE, with silence, with a third malformed message, or when the connection is
 * found to be gone. A worker that says HELLO again starts over; a client that does (a lost
 * connection) finds its jobs as they were.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "lw_version.h"
#include "orchestrate/hub_state.h"

lw_hub_session *lw_hub_session_find(lw_hub *h, lw_hub_side side, const lw_peer *peer)
{
    for (int i = 0; i < h->n_sessions[side]; i++) {
        lw_hub_session *s = h->sessions[side][i];

        if (!s->gone && s->peer.len == peer->len && !memcmp(s->peer.id, peer->id, peer->len))
            return s;
    }
    return NULL;
}

static lw_hub_session *find_instance(lw_hub *h, lw_hub_side side, lw_role role,
                                     const uint8_t instance[16])
{
    for (int i = 0; i < h->n_sessions[side]; i++) {
        lw_hub_session *s = h->sessions[side][i];

        if (!s->gone && s->role == role && !memcmp(s->instance, instance, sizeof(s->instance)))
            return s;
    }
    return NULL;
}

bool lw_hub_worker_usable(const lw_hub_session *s)
{
    return !s->gone && !s->draining && !s->stuck;
}

/* ---- sending ---- */

lw_status lw_hub_send(lw_hub *h, lw_hub_session *s, const lw_msg *m)
{
    lw_err err = { 0 };
    lw_status st;

    if (s->gone || s->unreachable)
        return LW_E_UNAVAILABLE;
    st = h->io.send(h->io.ctx, s->side, &s->peer, m, &err);
    if (st == LW_OK || st == LW_E_EXHAUSTED)
        return st;
    if (st != LW_E_UNAVAILABLE) {
        lw_log(LW_ERROR, "cannot send", LW_KV_STR("type", lw_msg_type_name(m->type)),
               LW_KV_STR("to", s->name), LW_KV_STR("error", err.text));
        return st;
    }
    if (s->side == LW_BACKEND)
        lw_hub_session_lose(h, s, "its connection is gone");
    s->unreachable = true;
    return st;
}

/* To somebody who has no session; what becomes of it does not matter to us. */
static void send_stranger(lw_hub *h, lw_hub_side side, const lw_peer *peer, const lw_err *err)
{
    lw_msg m;

    lw_msg_error(&m, NULL, err);
    (void)!h->io.send(h->io.ctx, side, peer, &m, NULL);
}

static void keep_refusal(lw_hub *h, lw_hub_session *s, const uint8_t id[16], const lw_err *err)
{
    const size_t text_bytes = strlen(err->text) + 1;
    lw_hub_refusal *r = NULL, **end = &s->refusals;

    if (s->n_refusals < LW_HUB_MAX_REFUSALS)
        r = malloc(sizeof(*r) + text_bytes);
    if (!r) {
        lw_hub_session_lose(h, s, "it does not read its answers");
        return;
    }
    r->next = NULL;
    r->code = err->code;
    memcpy(r->id, id, sizeof(r->id));
    memcpy(r->text, err->text, text_bytes);
    while (*end)
        end = &(*end)->next;
    *end = r;
    s->n_refusals++;
}

void lw_hub_refuse(lw_hub *h, lw_hub_session *s, const uint8_t *id, const lw_err *err)
{
    lw_msg m;

    lw_msg_error(&m, id, err);
    if (lw_hub_send(h, s, &m) == LW_E_EXHAUSTED && id && s->side == LW_FRONTEND)
        keep_refusal(h, s, id, err);
}

bool lw_hub_refusals_flush(lw_hub *h, lw_hub_session *s)
{
    while (s->refusals) {
        lw_hub_refusal *r = s->refusals;
        lw_err err = { .code = r->code };
        lw_msg m;

        memcpy(err.text, r->text, strlen(r->text) + 1);
        lw_msg_error(&m, r->id, &err);
        if (lw_hub_send(h, s, &m) == LW_E_EXHAUSTED)
            return true;
        s->refusals = r->next;
        s->n_refusals--;
        free(r);
    }
    return false;
}

/* ---- the end of a session ---- */

void lw_hub_session_lose(lw_hub *h, lw_hub_session *s, const char *why)
{
    if (!s || s->gone)
        return;
    s->gone = true;
    snprintf(s->gone_why, sizeof(s->gone_why), "%s", why);
    if (s->side == LW_BACKEND) {
        h->count.workers_lost += !s->said_bye;
        lw_log(s->said_bye ? LW_INFO : LW_WARN, "worker left", LW_KV_STR("worker", s->name),
               LW_KV_STR("role", lw_role_name(s->role)), LW_KV_INT("tasks", s->n_tasks),
               LW_KV_STR("why", why));
    } else {
        h->count.clients_lost += !s->said_bye;
        lw_log(s->said_bye ? LW_DEBUG : LW_INFO, "client left", LW_KV_STR("client", s->name),
               LW_KV_STR("why", why));
    }
}

void lw_hub_session_free(lw_hub *h, lw_hub_session *s)
{
    lw_hub_session **list = h->sessions[s->side];
    int *n = &h->n_sessions[s->side];

    for (int i = 0; i < *n; i++)
        if (list[i] == s) {
            memmove(&list[i], &list[i + 1], (size_t)(*n - i - 1) * sizeof(*list));
            (*n)--;
            break;
        }
    while (s->refusals) {
        lw_hub_refusal *r = s->refusals;

        s->refusals = r->next;
        free(r);
    }
    free(s->contract_text);
    free(s);
}

/* ---- the beginning ---- */

static void say_welcome(lw_hub *h, lw_hub_session *s, uint64_t minor)
{
    lw_msg m;

    lw_msg_init(&m, LW_MSG_WELCOME, NULL);
    lw_msg_set(&m, minor, minor);
    lw_msg_set(&m, epoch, s->epoch);
    lw_msg_set(&m, hb_ms, (uint64_t)h->p.hb_ms);
    lw_msg_set(&m, hb_misses, (uint64_t)h->p.hb_misses);
    lw_msg_set(&m, build, "latentwire " LW_VERSION);
    lw_msg_set(&m, max_frame_bytes, LW_MAX_FRAME_BYTES);
    lw_msg_set(&m, max_message_bytes, LW_MAX_MESSAGE_BYTES);
    (void)!lw_hub_send(h, s, &m); /* who does not get it says HELLO again */
}

static lw_status check_hello(const lw_hub *h, lw_hub_side side, const lw_msg *m,
                             uint64_t *ret_minor, lw_err *err)
{
    const bool worker = m->role != LW_ROLE_CLIENT;
    const int64_t low = (int64_t)m->minor_min, high = (int64_t)m->minor_max;

    if (worker != (side == LW_BACKEND))
        return lw_fail(err, LW_E_PRECONDITION,
                       "this is the hub's %s; a peer of role %s connects to the %s",
                       side == LW_BACKEND ? "backend, for workers" : "frontend, for clients",
                       lw_role_name(m->role), worker ? "backend" : "frontend");
    if (h->io.role_allowed && !h->io.role_allowed(h->io.ctx, side, m->role))
        return lw_fail(err, LW_E_DENIED, "the key of this connection does not allow the role %s",
                       lw_role_name(m->role));
    if (low > LW_WIRE_MINOR_MAX || high < LW_WIRE_MINOR_MIN || low > high)
        return lw_fail(err, LW_E_PRECONDITION,
                       "this hub speaks wire version %d.%d to %d.%d, the peer %d.%lld to %d.%lld",
                       LW_WIRE_MAJOR, LW_WIRE_MINOR_MIN, LW_WIRE_MAJOR, LW_WIRE_MINOR_MAX,
                       LW_WIRE_MAJOR, (long long)low, LW_WIRE_MAJOR, (long long)high);
    *ret_minor = high < LW_WIRE_MINOR_MAX ? (uint64_t)high : LW_WIRE_MINOR_MAX;
    if (h->draining)
        return lw_fail(err, LW_E_UNAVAILABLE, "the hub is shutting down");
    if (worker)
        return lw_hub_contract_check(h, m->role, &m->contract, err);
    return LW_OK;
}

static lw_status add_session(lw_hub *h, lw_hub_side side, const lw_msg *m, lw_hub_session **ret,
                             lw_err *err)
{
    lw_hub_session *s;

    if (h->n_sessions[side] == h->p.max_sessions)
        return lw_fail(err, LW_E_EXHAUSTED, "the hub has %d %s and takes no more (--max-sessions)",
                       h->n_sessions[side], side == LW_BACKEND ? "workers" : "clients");
    s = calloc(1, sizeof(*s));
    if (!s || lw_contract_copy(&s->contract, &m->contract, &s->contract_text, NULL) != LW_OK) {
        free(s);
        return lw_fail(err, LW_E_NOMEM, "the hub has no memory for another session");
    }
    s->side = side;
    s->role = m->role;
    memcpy(s->instance, m->instance, sizeof(s->instance));
    s->slots = (int)lw_msg_get(m, slots, 1);
    if (s->slots < 1)
        s->slots = 1;
    h->sessions[side][h->n_sessions[side]++] = s;
    *ret = s;
    return LW_OK;
}

/* Names are for people and logs; a peer without one is called by its role and epoch. */
static void set_name(lw_hub_session *s, const lw_msg *m)
{
    if (lw_msg_has(m, name) && m->name[0])
        snprintf(s->name, sizeof(s->name), "%s", m->name);
    else
        snprintf(s->name, sizeof(s->name), "%s-%llu", lw_role_name(s->role),
                 (unsigned long long)s->epoch);
}

void lw_hub_hello(lw_hub *h, lw_hub_side side, const lw_peer *peer, const lw_msg *m)
{
    lw_hub_session *s = lw_hub_session_find(h, side, peer);
    uint64_t minor = 0;
    lw_err err = { 0 };
    lw_status st;

    if (!s || memcmp(s->instance, m->instance, sizeof(s->instance))) {
        lw_hub_session_lose(h, s, "its connection now belongs to another process");
        s = find_instance(h, side, m->role, m->instance);
    }
    if (s && side == LW_BACKEND) {
        s->said_bye = true; /* it lives; what it lost is its connection */
        lw_hub_session_lose(h, s, "it starts over");
        s = NULL;
    }
    st = check_hello(h, side, m, &minor, &err);
    if (st == LW_OK && !s)
        st = add_session(h, side, m, &s, &err);
    if (st != LW_OK) {
        h->count.workers_refused += side == LW_BACKEND;
        if (lw_hub_may_log(h))
            lw_log(LW_WARN, "refused a peer", LW_KV_STR("role", lw_role_name(m->role)),
                   LW_KV_STR("name", lw_msg_get(m, name, "")), LW_KV_STR("why", err.text));
        send_stranger(h, side, peer, &err);
        return;
    }
    s->peer = *peer;
    s->unreachable = false;
    s->malformed = 0;
    s->heard_ms = h->now_ms;
    s->epoch = h->next_epoch++;
    set_name(s, m);
    lw_log(side == LW_BACKEND ? LW_INFO : LW_DEBUG, "peer joined", LW_KV_STR("name", s->name),
           LW_KV_STR("role", lw_role_name(s->role)), LW_KV_INT("slots", s->slots),
           LW_KV_STR("model", lw_contract_has(&s->contract, model_id) ? s->contract.model_id : ""),
           LW_KV_STR("backend", lw_contract_has(&s->contract, backend) ? s->contract.backend : ""));
    say_welcome(h, s, minor);
}

/* ---- time ---- */

static void beat(lw_hub *h, lw_hub_session *s)
{
    lw_msg m;

    lw_msg_init(&m, LW_MSG_HEARTBEAT, NULL);
    lw_msg_set(&m, epoch, s->epoch);
    (void)!lw_hub_send(h, s, &m); /* a full queue will be read, or the peer fall silent */
}

void lw_hub_sessions_tick(lw_hub *h)
{
    const int64_t patience = h->p.hb_ms * h->p.hb_misses;
    const bool beat_now = h->now_ms - h->beat_ms >= h->p.hb_ms;
    char why[96];

    for (int side = LW_FRONTEND; side <= LW_BACKEND; side++)
        for (int i = 0; i < h->n_sessions[side]; i++) {
            lw_hub_session *s = h->sessions[side][i];

            if (h->now_ms - s->heard_ms >= patience) {
                snprintf(why, sizeof(why), "silent for %lld ms",
                         (long long)(h->now_ms - s->heard_ms));
                lw_hub_session_lose(h, s, why);
            } else if (beat_now) {
                beat(h, s);
            }
        }
    if (beat_now)
        h->beat_ms = h->now_ms;
}
