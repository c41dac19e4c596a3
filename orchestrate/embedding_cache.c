/*
 * A hash table with chains and one list through all entries in the order of their last use:
 *
 *     newest <-> entry <-> entry <-> oldest
 *
 * The digest is already random, so its first bytes are the bucket.
 */

#include "orchestrate/embedding_cache.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024

typedef struct entry {
    struct entry *chain; /* next in the bucket */
    struct entry *newer, *older;
    lw_embedding_key key;
    lw_embeds embeds;
    size_t bytes;
} entry;

struct lw_embedding_cache {
    size_t limit_bytes, bytes, n;
    uint64_t hits, misses;
    entry *newest, *oldest;
    entry *buckets[BUCKETS];
};

/* ---- embeddings ---- */

void lw_embeds_drop(lw_embeds *e)
{
    lw_held_drop(&e->rows);
    lw_held_drop(&e->ids);
    *e = (lw_embeds){ 0 };
}

void lw_embeds_copy(lw_embeds *dst, const lw_embeds *src)
{
    *dst = *src;
    lw_held_copy(&dst->rows, &src->rows);
    lw_held_copy(&dst->ids, &src->ids);
}

/* ---- keys ---- */

/* Length first, so that no two lists of texts run together to the same bytes. */
static void hash_text(crypto_generichash_state *st, bool present, const char *s)
{
    uint64_t head[2] = { present, present && s ? strlen(s) : 0 };

    crypto_generichash_update(st, (const unsigned char *)head, sizeof(head));
    if (head[1])
        crypto_generichash_update(st, (const unsigned char *)s, head[1]);
}

static void hash_number(crypto_generichash_state *st, bool present, uint64_t v)
{
    uint64_t both[2] = { present, present ? v : 0 };

    crypto_generichash_update(st, (const unsigned char *)both, sizeof(both));
}

static void hash_real(crypto_generichash_state *st, bool present, double v)
{
    uint64_t bits;

    memcpy(&bits, &v, sizeof(bits));
    hash_number(st, present, bits);
}

static void hash_list(crypto_generichash_state *st, bool present, const lw_f64s *list)
{
    hash_number(st, present, present ? list->n : 0);
    for (uint32_t i = 0; present && i < list->n; i++)
        hash_real(st, true, list->v[i]);
}

lw_embedding_key lw_embedding_key_of(const lw_contract *c, const lw_msg *task)
{
    lw_embedding_key key;
    crypto_generichash_state st;

    crypto_generichash_init(&st, NULL, 0, sizeof(key.digest));
#define HASH_CONTRACT_TEXT(m)   hash_text(&st, lw_contract_has(c, m), c->m)
#define HASH_CONTRACT_NUMBER(m) hash_number(&st, lw_contract_has(c, m), c->m)
    HASH_CONTRACT_TEXT(model_id);
    HASH_CONTRACT_TEXT(weights_digest);
    HASH_CONTRACT_TEXT(backend);
    HASH_CONTRACT_TEXT(precision);
    HASH_CONTRACT_TEXT(scale);
    HASH_CONTRACT_TEXT(tokenizer_digest);
    HASH_CONTRACT_NUMBER(dim);
    HASH_CONTRACT_NUMBER(blocks);
    HASH_CONTRACT_NUMBER(normed);
    HASH_CONTRACT_NUMBER(max_tokens);
#define HASH_TASK_TEXT(m)   hash_text(&st, lw_msg_has(task, m), task->m)
#define HASH_TASK_NUMBER(m) hash_number(&st, lw_msg_has(task, m), (uint64_t)task->m)
    HASH_TASK_TEXT(prompt);
    HASH_TASK_TEXT(system_prompt);
    HASH_TASK_TEXT(thinking);
    HASH_TASK_TEXT(assistant);
    HASH_TASK_NUMBER(think_block);
    HASH_TASK_NUMBER(raw);
    HASH_TASK_NUMBER(layer);
    HASH_TASK_NUMBER(max_tokens);
    HASH_TASK_TEXT(messages);
    hash_list(&st, lw_msg_has(task, layer_blend), &task->layer_blend);
    HASH_TASK_TEXT(long_prompt);
    HASH_TASK_NUMBER(weighting);
    hash_real(&st, lw_msg_has(task, noise), task->noise);
    HASH_TASK_NUMBER(noise_seed);
    HASH_TASK_TEXT(keep);
    HASH_TASK_TEXT(blend_prompt);
    hash_real(&st, lw_msg_has(task, blend_share), task->blend_share);
    crypto_generichash_final(&st, key.digest, sizeof(key.digest));
    return key;
}

/* ---- the table ---- */

lw_status lw_embedding_cache_create(size_t limit_bytes, lw_embedding_cache **ret, lw_err *err)
{
    lw_embedding_cache *c = calloc(1, sizeof(*c));

    if (!c)
        return lw_fail(err, LW_E_NOMEM, "no memory for the embedding cache");
    c->limit_bytes = limit_bytes;
    *ret = c;
    return LW_OK;
}

static entry **bucket_of(lw_embedding_cache *c, const lw_embedding_key *key)
{
    return &c->buckets[(key->digest[0] | key->digest[1] << 8) % BUCKETS];
}

static void unlink_age(lw_embedding_cache *c, entry *e)
{
    if (e->newer)
        e->newer->older = e->older;
    else
        c->newest = e->older;
    if (e->older)
        e->older->newer = e->newer;
    else
        c->oldest = e->newer;
}

static void make_newest(lw_embedding_cache *c, entry *e)
{
    e->newer = NULL;
    e->older = c->newest;
    if (c->newest)
        c->newest->newer = e;
    else
        c->oldest = e;
    c->newest = e;
}

static void evict(lw_embedding_cache *c, entry *e)
{
    entry **link = bucket_of(c, &e->key);

    while (*link != e)
        link = &(*link)->chain;
    *link = e->chain;
    unlink_age(c, e);
    c->bytes -= e->bytes;
    c->n--;
    lw_embeds_drop(&e->embeds);
    free(e);
}

void lw_embedding_cache_destroy(lw_embedding_cache **pc)
{
    lw_embedding_cache *c = *pc;

    if (!c)
        return;
    *pc = NULL;
    while (c->oldest)
        evict(c, c->oldest);
    free(c);
}

static entry *find(lw_embedding_cache *c, const lw_embedding_key *key)
{
    entry *e = *bucket_of(c, key);

    while (e && memcmp(e->key.digest, key->digest, sizeof(key->digest)))
        e = e->chain;
    return e;
}

bool lw_embedding_cache_get(lw_embedding_cache *c, const lw_embedding_key *key, lw_embeds *ret)
{
    entry *e = find(c, key);

    if (!e)
        return false;
    c->hits++;
    unlink_age(c, e);
    make_newest(c, e);
    lw_embeds_copy(ret, &e->embeds);
    ret->stage.cached = true;
    return true;
}

void lw_embedding_cache_put(lw_embedding_cache *c, const lw_embedding_key *key,
                            const lw_embeds *embeds)
{
    const size_t bytes = sizeof(entry) + lw_held_bytes(&embeds->rows) + lw_held_bytes(&embeds->ids);
    entry *e = find(c, key), **bucket = bucket_of(c, key);

    c->misses++;
    if (e)
        evict(c, e);
    if (bytes > c->limit_bytes)
        return;
    e = calloc(1, sizeof(*e));
    if (!e)
        return;
    while (c->bytes + bytes > c->limit_bytes)
        evict(c, c->oldest);
    e->key = *key;
    e->bytes = bytes;
    lw_embeds_copy(&e->embeds, embeds);
    e->chain = *bucket;
    *bucket = e;
    make_newest(c, e);
    c->bytes += bytes;
    c->n++;
}

void lw_embedding_cache_stats_get(const lw_embedding_cache *c, lw_embedding_cache_stats *ret)
{
    *ret = (lw_embedding_cache_stats){ .bytes = c->bytes,
                                       .limit_bytes = c->limit_bytes,
                                       .entries = c->n,
                                       .hits = c->hits,
                                       .misses = c->misses };
}
