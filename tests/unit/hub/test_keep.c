/* Kept messages and tensors, deliveries, and the embedding cache. */

#include "orchestrate/embedding_cache.h"
#include "tests/unit/unit.h"

static lw_msg_tensor tensor_of(const char *name, float *v, int64_t n, int64_t d)
{
    lw_msg_tensor mt = { .t = lw_tensor_2d(v, LW_F32, n, d) };

    snprintf(mt.name, sizeof(mt.name), "%s", name);
    return mt;
}

static void test_message_outlives_its_packet(void **state)
{
    char prompt[] = "blue", worker[] = "w";
    double sigmas[] = { 1, 0.5, 0 };
    float v[2] = { 3, 4 };
    lw_msg m;
    lw_kept k;
    lw_err err = { 0 };

    (void)state;
    lw_msg_init(&m, LW_MSG_SUBMIT, (const uint8_t *)"0123456789abcdef");
    lw_msg_set(&m, worker, worker); /* of odd length: the list after it must be aligned again */
    lw_msg_set(&m, prompt, prompt);
    lw_msg_set(&m, sigmas, ((lw_f64s){ .v = sigmas, .n = 3 }));
    lw_msg_set(&m, steps, 2);
    m.tensors[m.n_tensors++] = tensor_of("x", v, 1, 2);
    assert_int_equal(lw_kept_bytes(&m) >= strlen(prompt) + sizeof(sigmas) + sizeof(v), 1);
    assert_ok(lw_kept_take(&k, &m, &err), &err);
    prompt[0] = '?';
    sigmas[1] = -1;
    v[1] = -1;
    assert_string_equal(k.msg.prompt, "blue");
    assert_true(k.msg.sigmas.v[1] == 0.5);
    assert_int_equal(k.msg.steps, 2);
    assert_int_equal(k.msg.n_tensors, 0);
    assert_true(lw_f32(&lw_kept_find(&k, "x")->t)[1] == 4);
    assert_null(lw_kept_find(&k, "y"));
    lw_kept_drop(&k);
}

static void test_join_and_split(void **state)
{
    lw_held items[3] = { 0 }, all, one;
    lw_err err = { 0 };

    (void)state;
    for (int i = 0; i < 3; i++) {
        float v[2] = { (float)i, (float)-i };
        lw_msg_tensor mt = tensor_of("x", v, 1, 2);

        assert_ok(lw_held_take(&items[i], &mt, &err), &err);
    }
    assert_ok(lw_held_join(&all, items, sizeof(items[0]), 3, &err), &err);
    assert_int_equal(all.t.shape[0], 3);
    assert_int_equal(lw_held_bytes(&all), 24);
    assert_true(lw_f32(&all.t)[4] == 2 && lw_f32(&all.t)[5] == -2);
    assert_ok(lw_held_item(&one, &all, 1, &err), &err);
    assert_int_equal(one.t.shape[0], 1);
    assert_true(lw_f32(&one.t)[1] == -1);
    lw_held_drop(&one);
    lw_held_drop(&all);
    /* A single one is shared. */
    assert_ok(lw_held_join(&all, items, sizeof(items[0]), 1, &err), &err);
    assert_ptr_equal(all.frame, items[0].frame);
    lw_held_drop(&all);
    items[1].t.dtype = LW_I32;
    assert_int_equal(lw_held_join(&all, items, sizeof(items[0]), 3, &err), LW_E_SHAPE);
    assert_contains(err.text, "picture 1");
    for (int i = 0; i < 3; i++)
        lw_held_drop(&items[i]);
}

static void test_delivery(void **state)
{
    float v[64] = { 1 };
    lw_msg_tensor mt = tensor_of("x", v, 1, 64);
    lw_delivery *d = lw_delivery_new();
    lw_held h = { 0 }, sent;
    lw_err err = { 0 };

    (void)state;
    assert_true(lw_delivery_done(d));
    assert_ok(lw_held_take(&h, &mt, &err), &err);
    assert_ok(lw_held_track(&h, d, &err), &err);
    assert_false(lw_delivery_done(d));
    assert_true(lw_f32(&h.t)[0] == 1);
    lw_held_copy(&sent, &h); /* as a queue of libzmq would */
    lw_held_drop(&h);
    assert_false(lw_delivery_done(d));
    lw_held_drop(&sent);
    assert_true(lw_delivery_done(d));
    /* The owner may go first. */
    assert_ok(lw_held_take(&h, &mt, &err), &err);
    assert_ok(lw_held_track(&h, d, &err), &err);
    lw_delivery_drop(&d);
    assert_null(d);
    lw_held_drop(&h);
}

static void test_stage_of_several_workers(void **state)
{
    lw_contract a = { 0 }, b = { 0 };
    lw_kept_stage k = { 0 };
    lw_stage_info info;
    char name[65];

    (void)state;
    lw_kept_stage_get(&k, &info);
    assert_true(info.has == 0);
    lw_contract_set(&a, backend, "onednn");
    lw_contract_set(&b, backend, "cuda");
    memset(name, 'n', 64);
    name[64] = 0;
    lw_kept_stage_add(&k, &a, name, 5);
    lw_kept_stage_get(&k, &info);
    assert_string_equal(info.worker, name);
    assert_string_equal(info.backend, "onednn");
    lw_kept_stage_add(&k, &b, "other", 7);
    lw_kept_stage_get(&k, &info);
    assert_true(info.t_ms == 12);
    assert_string_equal(info.backend, "mixed");
    assert_contains(info.worker, "nnn and others");
    assert_int_equal(strlen(info.worker), 64);
}

/* ---- the cache ---- */

static lw_embeds embeds_of(float value, int64_t rows)
{
    float *v = calloc((size_t)rows, sizeof(*v));
    lw_msg_tensor mt = tensor_of("rows", v, rows, 1);
    lw_embeds e = { 0 };
    lw_err err = { 0 };

    v[0] = value;
    assert_ok(lw_held_take(&e.rows, &mt, &err), &err);
    e.n_tokens = (uint64_t)rows;
    free(v);
    return e;
}

static lw_embedding_key key_of(const char *prompt)
{
    lw_contract c = { 0 };
    lw_msg m;

    lw_contract_set(&c, weights_digest, "w");
    lw_msg_init(&m, LW_MSG_TASK, NULL);
    lw_msg_set(&m, prompt, prompt);
    return lw_embedding_key_of(&c, &m);
}

static void test_key_covers_everything(void **state)
{
    lw_contract c = { 0 };
    const double blends[][2] = { { -2, 1 }, { -2, 0.5 }, { -3, 1 } };
    lw_embedding_key seen[40];
    int n = 0;
    lw_msg m, base;

    (void)state;
    lw_contract_set(&c, weights_digest, "w");
    lw_msg_init(&base, LW_MSG_TASK, NULL);
    lw_msg_set(&base, prompt, "ab");
    seen[n++] = lw_embedding_key_of(&c, &base);
#define VARIANT(field, value)                                                                      \
    m = base;                                                                                      \
    lw_msg_set(&m, field, value);                                                                  \
    seen[n++] = lw_embedding_key_of(&c, &m)
    VARIANT(prompt, "abc");
    VARIANT(system_prompt, "");
    VARIANT(system_prompt, "b");
    VARIANT(thinking, "b");
    VARIANT(assistant, "b");
    VARIANT(think_block, true);
    VARIANT(raw, true);
    VARIANT(layer, -3);
    VARIANT(max_tokens, 77);
    VARIANT(messages, "b");
    for (size_t i = 0; i < LW_ARRAY_LEN(blends); i++) {
        VARIANT(layer_blend, ((lw_f64s){ .v = blends[i], .n = 2 }));
    }
    VARIANT(layer_blend, ((lw_f64s){ .v = blends[0], .n = 1 }));
    VARIANT(long_prompt, "pool");
    VARIANT(long_prompt, "interpolate");
    VARIANT(weighting, true);
    VARIANT(noise, 0.5);
    VARIANT(noise, 0.25);
    VARIANT(noise_seed, 5);
    VARIANT(noise_seed, 6);
    VARIANT(keep, "prompt");
    VARIANT(blend_prompt, "b");
    VARIANT(blend_share, 0.5);
    VARIANT(blend_share, 0.25);
    m = base; /* the same letters, cut elsewhere */
    lw_msg_set(&m, prompt, "a");
    lw_msg_set(&m, system_prompt, "b");
    seen[n++] = lw_embedding_key_of(&c, &m);
    lw_contract_set(&c, weights_digest, "v");
    seen[n++] = lw_embedding_key_of(&c, &base);
    lw_contract_set(&c, weights_digest, "w");
    lw_contract_set(&c, backend, "b");
    seen[n++] = lw_embedding_key_of(&c, &base);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++)
            if (!memcmp(&seen[i], &seen[k], sizeof(seen[i])))
                fail_msg("variants %d and %d have the same key", i, k);
    /* Fields that do not matter do not count. */
    m = base;
    lw_msg_set(&m, attempt, 2);
    lw_msg_set(&m, seed, 9);
    c = (lw_contract){ 0 };
    lw_contract_set(&c, weights_digest, "w");
    seen[1] = lw_embedding_key_of(&c, &m);
    assert_memory_equal(&seen[0], &seen[1], sizeof(seen[0]));
}

static void test_cache_keeps_the_last_used(void **state)
{
    lw_embedding_key a = key_of("a"), b = key_of("b"), c = key_of("c");
    lw_embedding_cache *cache;
    lw_embedding_cache_stats st;
    lw_embeds e, got;
    lw_err err = { 0 };
    size_t each;

    (void)state;
    assert_ok(lw_embedding_cache_create(1 << 20, &cache, &err), &err);
    e = embeds_of(1, 1000);
    lw_embedding_cache_put(cache, &a, &e);
    lw_embedding_cache_stats_get(cache, &st);
    each = st.bytes;
    assert_int_equal(st.entries, 1);
    assert_true(each > 4000);
    lw_embedding_cache_destroy(&cache);

    assert_ok(lw_embedding_cache_create(2 * each, &cache, &err), &err);
    lw_embedding_cache_put(cache, &a, &e);
    lw_embeds_drop(&e);
    e = embeds_of(2, 1000);
    lw_embedding_cache_put(cache, &b, &e);
    assert_true(lw_embedding_cache_get(cache, &a, &got)); /* b is now the oldest */
    assert_true(lw_f32(&got.rows.t)[0] == 1);
    assert_true(got.stage.cached);
    assert_int_equal(got.n_tokens, 1000);
    lw_embeds_drop(&got);
    lw_embedding_cache_put(cache, &c, &e);
    assert_false(lw_embedding_cache_get(cache, &b, &got));
    assert_true(lw_embedding_cache_get(cache, &a, &got));
    lw_embeds_drop(&got);
    assert_true(lw_embedding_cache_get(cache, &c, &got));
    lw_embeds_drop(&got);
    lw_embedding_cache_put(cache, &c, &e); /* again: replaced, not counted twice */
    lw_embedding_cache_stats_get(cache, &st);
    assert_int_equal(st.entries, 2);
    assert_int_equal(st.bytes, 2 * each);
    assert_int_equal(st.hits, 3);
    assert_int_equal(st.misses, 4);
    lw_embeds_drop(&e);
    e = embeds_of(3, 100000); /* larger than the cache: passes by */
    lw_embedding_cache_put(cache, &b, &e);
    lw_embedding_cache_stats_get(cache, &st);
    assert_int_equal(st.entries, 2);
    lw_embeds_drop(&e);
    lw_embedding_cache_destroy(&cache);
}

static void test_cache_of_nothing(void **state)
{
    lw_embedding_key a = key_of("a");
    lw_embedding_cache *cache;
    lw_embeds e = embeds_of(1, 1), got;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_embedding_cache_create(0, &cache, &err), &err);
    lw_embedding_cache_put(cache, &a, &e);
    assert_false(lw_embedding_cache_get(cache, &a, &got));
    lw_embeds_drop(&e);
    lw_embedding_cache_destroy(&cache);
    lw_embedding_cache_destroy(&cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_outlives_its_packet),
        cmocka_unit_test(test_join_and_split),
        cmocka_unit_test(test_delivery),
        cmocka_unit_test(test_stage_of_several_workers),
        cmocka_unit_test(test_key_covers_everything),
        cmocka_unit_test(test_cache_keeps_the_last_used),
        cmocka_unit_test(test_cache_of_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
