/*
 * A picture of latentwire from anywhere: a PNG, its manifest, the request that it makes. A fuzzer
 * cannot guess the CRC of a chunk, so an input that does not begin as a PNG is taken as the text of
 * a manifest. What is accepted makes a request that can be sent.
 */

#include <stdlib.h>
#include <string.h>

#include "orchestrate/manifest.h"
#include "orchestrate/picture.h"
#include "orchestrate/recipe.h"
#include "proto/packet.h"

#define ARENA_BYTES (64u << 20)
#define MAX_PIXELS  (1 << 20) /* larger ones cost the fuzzer its time */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A failure names its cause. */
static void check_failure(const lw_err *err)
{
    if (err->code == LW_OK || err->text[0] == '\0')
        abort();
}

static void send(const lw_msg *submit)
{
    lw_err err = { 0 };
    lw_msg m = *submit, back;
    lw_packet p;
    lw_arena a;

    m.has_id = true;
    if (lw_msg_encode(&m, &p, &err) != LW_OK) {
        if (err.code != LW_E_TOO_LARGE) /* several long texts together exceed a header */
            abort();
        return;
    }
    lw_arena_init(&a, "message", ARENA_BYTES);
    if (lw_msg_decode(&p, &a, &back, &err) != LW_OK)
        abort();
    lw_packet_clear(&p);
    lw_arena_deinit(&a);
}

static void take_recipe(const json_t *recipe)
{
    lw_recipe_numbers numbers;
    json_t *notes = json_array(), *now = lw_recipe_stages(recipe);
    lw_err err = { 0 };
    lw_msg submit;

    if (lw_recipe_submit(recipe, "input", &numbers, &submit, &err) == LW_OK)
        send(&submit);
    else
        check_failure(&err);
    /* Nothing has changed against itself. */
    if (lw_recipe_weights(recipe, json_object_get(recipe, "stages"), "input", &err) != LW_OK ||
        lw_recipe_compare(recipe, recipe, notes, &err) != LW_OK || json_array_size(notes))
        abort();
    if (lw_recipe_weights(recipe, now, "input", &err) != LW_OK)
        check_failure(&err);
    json_decref(notes);
    json_decref(now);
}

static void take_manifest(const char *text)
{
    json_t *recipe = NULL, *known = NULL;
    lw_err err = { 0 };

    if (lw_recipe_read(text, "input", &recipe, &err) == LW_OK)
        take_recipe(recipe);
    else
        check_failure(&err);
    if (lw_manifest_parse(text, "input", &known, &err) == LW_OK) {
        char *again = lw_manifest_text(known), *parameters = lw_manifest_parameters(known);

        if (!again || !parameters)
            abort();
        free(again);
        free(parameters);
    } else {
        check_failure(&err);
    }
    json_decref(recipe);
    json_decref(known);
}

static void take_picture(const uint8_t *data, size_t size)
{
    const uint8_t *rgb = NULL;
    lw_err err = { 0 };
    lw_picture p;
    lw_arena a;

    lw_arena_init(&a, "input", ARENA_BYTES);
    if (lw_picture_parse(data, size, "input", &a, &p, &err) == LW_OK) {
        if (p.manifest)
            take_manifest(p.manifest);
        if (p.width * p.height <= MAX_PIXELS && lw_picture_pixels(&p, &a, &rgb, &err) == LW_OK) {
            const uint64_t n = (uint64_t)p.width * (uint64_t)p.height;

            if (lw_pixels_compare(rgb, rgb, n).n_differ)
                abort();
        }
    } else {
        check_failure(&err);
    }
    lw_picture_deinit(&p);
    lw_arena_deinit(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text;

    if (size > 0 && data[0] == 0x89) {
        take_picture(data, size);
        return 0;
    }
    text = malloc(size + 1);
    if (!text)
        abort();
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    take_manifest(text);
    free(text);
    return 0;
}
