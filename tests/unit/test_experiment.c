/* Experiments: what a file declares, in which order its cells come, and what is refused where. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "orchestrate/experiment/grid.h"
#include "tests/unit/unit.h"

#define HEAD "name: test\n"

typedef struct file {
    lw_arena a;
    char path[64];
    lw_grid g;
    lw_err err;
} file;

static lw_status load(file *f, const char *text, const lw_opt_list *set)
{
    FILE *out;

    *f = (file){ 0 };
    lw_arena_init(&f->a, "test", 0);
    snprintf(f->path, sizeof(f->path), "/tmp/lw-experiment-%ld.yaml", (long)getpid());
    out = fopen(f->path, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
    return lw_grid_load(f->path, set, &f->a, &f->g, &f->err);
}

static void drop(file *f)
{
    unlink(f->path);
    lw_arena_deinit(&f->a);
}

static void cells_in_order(void **state)
{
    static const char text[] = HEAD "settings: {steps: 4}\n"
                                    "axes:\n"
                                    "  think: [off, on]\n"
                                    "  both:\n"
                                    "    - {label: a, shift: 2}\n"
                                    "    - {label: b, shift: 3, layer: -1}\n"
                                    "prompts: [{id: one, text: a red circle}, a blue square]\n"
                                    "seeds: 5..6\n"
                                    "baseline: {both: a}\n";
    lw_grid_cell *cells = NULL;
    int at[LW_GRID_MAX_AXES];
    file f;

    (void)state;
    assert_int_equal(load(&f, text, NULL), LW_OK);
    assert_int_equal(f.g.n_axes, 4);
    assert_int_equal(f.g.n_cells, 16);
    assert_string_equal(f.g.axes[2].name, "prompt");
    assert_string_equal(f.g.axes[3].name, "seed");
    assert_int_equal(f.g.baseline[0], -1);
    assert_int_equal(f.g.baseline[1], 0);
    for (int i = 0; i < 16; i++) {
        lw_grid_at(&f.g, i, at);
        assert_int_equal(lw_grid_index(&f.g, at), i);
    }
    assert_int_equal(lw_grid_expand(&f.g, NULL, &f.a, &cells, &f.err), LW_OK);
    assert_string_equal(lw_grid_describe(&f.g, cells[13].at, &f.a, NULL),
                        "think=on, both=b, prompt=one, seed=6");
    assert_int_equal(cells[13].job.seed, 6);
    assert_int_equal(cells[13].job.opt.steps, 4);
    assert_int_equal(cells[13].job.opt.layer, -1);
    assert_int_equal(cells[13].job.opt.think, 1);
    assert_string_equal(cells[13].job.prompt, "a red circle");
    assert_int_equal(cells[0].job.opt.think, 0);
    assert_int_equal(cells[0].job.opt.layer, -2);
    assert_true(json_is_true(json_object_get(cells[13].settings, "think")));
    assert_int_equal(strlen(cells[13].id), LW_GRID_ID_CHARS);
    lw_grid_drop_cells(cells, f.g.n_cells);
    drop(&f);
}

static void an_id_is_of_the_settings(void **state)
{
    lw_grid_cell *cells = NULL;
    char id[LW_GRID_ID_CHARS + 1];
    file f;

    (void)state;
    assert_int_equal(load(&f, HEAD "settings: {steps: 4, shift: 2}\nprompts: [x]\n", NULL), LW_OK);
    assert_int_equal(lw_grid_expand(&f.g, NULL, &f.a, &cells, &f.err), LW_OK);
    memcpy(id, cells[0].id, sizeof(id));
    lw_grid_drop_cells(cells, 1);
    drop(&f);
    /* The same by other means. */
    assert_int_equal(
        load(&f, HEAD "axes: {shift: [2]}\nsettings: {steps: 4}\nprompts: [x]\nseeds: [1]\n", NULL),
        LW_OK);
    assert_int_equal(lw_grid_expand(&f.g, NULL, &f.a, &cells, &f.err), LW_OK);
    assert_string_equal(cells[0].id, id);
    lw_grid_drop_cells(cells, 1);
    drop(&f);
}

static void settings_from_the_command_line(void **state)
{
    static const char text[] = HEAD "settings: {steps: 4}\naxes: {shift: [2]}\nprompts: [x]\n";
    static const struct {
        const char *set, *reason;
    } bad[] = { { "steps", "not of the form OPTION=VALUE" },
                { "steps=many", "--steps" },
                { "shift=3", "is what an axis" },
                { "colour=red", "no option \"colour\"" } };
    lw_opt_list set = { .items = { "steps=6" }, .n = 1 };
    lw_grid_cell *cells = NULL;
    file f;

    (void)state;
    assert_int_equal(load(&f, text, &set), LW_OK);
    assert_int_equal(lw_grid_expand(&f.g, NULL, &f.a, &cells, &f.err), LW_OK);
    assert_int_equal(cells[0].job.opt.steps, 6);
    lw_grid_drop_cells(cells, 1);
    drop(&f);
    for (size_t i = 0; i < LW_ARRAY_LEN(bad); i++) {
        set.items[0] = bad[i].set;
        assert_int_equal(load(&f, text, &set), LW_E_INVALID);
        if (!strstr(f.err.text, bad[i].reason))
            fail_msg("%s: %s", bad[i].set, f.err.text);
        drop(&f);
    }
}

static void refused_at_its_line(void **state)
{
    static const struct {
        const char *text, *reason;
    } bad[] = {
        { "title: x\n", ":1: the experiment has no name" },
        { "name: A b\n", ":1: the name \"A b\"" },
        { HEAD, ":1: the experiment has no prompts" },
        { HEAD "promts: [x]\n", ":2: an experiment has no key \"promts\"" },
        { HEAD "prompts: [x]\nsettings: {colour: red}\n", ":3: there is no option \"colour\"" },
        { HEAD "prompts: [x]\nsettings:\n  steps: many\n", ":4: --steps" },
        { HEAD "prompts: [x]\nsettings:\n  think: perhaps\n", ":4: --think: \"perhaps\"" },
        { HEAD "prompts: [x]\nsettings:\n  steps: [1, 2]\n", ":4: \"steps\" takes one text" },
        { HEAD "prompts: [x]\nsettings: {count: 4}\n", ":3: \"count\" cannot be set here" },
        { HEAD "prompts: [x]\nsettings: {seed: 4}\n", ":3: \"seed\" cannot be set here" },
        { HEAD "prompts: [x]\naxes:\n  steps: 4\n", ":4: the axis \"steps\" needs a list" },
        { HEAD "prompts: [x]\naxes:\n  steps: []\n", ":4: \"steps\" has no values" },
        { HEAD "prompts: [x]\naxes:\n  steps:\n    - 4\n    - 4\n", ":6: \"steps\" has the value" },
        { HEAD "prompts: [x]\naxes:\n  a: [{steps: 4}]\n",
          ":4: a value of \"a\" that is a mapping" },
        { HEAD "prompts: [x]\naxes:\n  seed: [4]\n", ":4: \"seed\" is no axis" },
        { HEAD "prompts: [x]\naxes:\n  a: [{label: b, steps: 2}]\n  steps: [1]\n",
          ":5: the axes \"a\" and \"steps\" both set \"steps\"" },
        { HEAD "prompts: [x]\nseeds: few\n", ":3: `seeds` is a list" },
        { HEAD "prompts: [x]\nseeds: [-1]\n", ":3: seeds: \"-1\"" },
        { HEAD "prompts: {category: none}\n", ":2: no standard prompt" },
        { HEAD "prompts:\n  ids:\n    - nobody-01\n", "no standard prompt" },
        { HEAD "prompts: [x]\nbaseline: {steps: 4}\n", ":3: there is no axis \"steps\"" },
        { HEAD "prompts: [x]\nbaseline: {seed: 4}\n", ":3: the axis \"seed\" has no value \"4\"" },
        { HEAD "prompts: [x]\naxes: {steps: [1, 2, 3, 4, 5, 6, 7, 8]}\nseeds: 1000\n",
          "the grid has more than 4096 cells" },
        { HEAD "prompts: &a [x]\n", ":2: YAML anchors" },
        { HEAD "prompts: *a\n", ":2: YAML aliases" },
        { HEAD "prompts: [[[[[[[x]]]]]]]\n", ":2: " },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(bad); i++) {
        file f;

        assert_int_equal(load(&f, bad[i].text, NULL), LW_E_FORMAT);
        if (!strstr(f.err.text, bad[i].reason))
            fail_msg("expected \"%s\", got \"%s\"", bad[i].reason, f.err.text);
        drop(&f);
    }
}

static void cells_that_cannot_be(void **state)
{
    static const struct {
        const char *text, *reason;
    } bad[] = {
        { HEAD "prompts: [x]\naxes: {negative: [dark]}\n",
          "negative=dark, prompt=x, seed=1: --negative has no effect" },
        { HEAD "prompts: [x]\naxes:\n  a: [{label: b}, {label: c}]\n", "the same settings" },
        { HEAD "prompts: ['-']\n", "standard input" },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(bad); i++) {
        lw_grid_cell *cells = NULL;
        file f;

        assert_int_equal(load(&f, bad[i].text, NULL), LW_OK);
        assert_int_not_equal(lw_grid_expand(&f.g, NULL, &f.a, &cells, &f.err), LW_OK);
        if (!strstr(f.err.text, bad[i].reason))
            fail_msg("expected \"%s\", got \"%s\"", bad[i].reason, f.err.text);
        drop(&f);
    }
}

int main(void)
{
    const char *root = getenv("LW_SOURCE_ROOT"); /* where the standard prompts are */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_in_order),       cmocka_unit_test(an_id_is_of_the_settings),
        cmocka_unit_test(refused_at_its_line),  cmocka_unit_test(settings_from_the_command_line),
        cmocka_unit_test(cells_that_cannot_be),
    };

    assert_int_equal(root ? setenv("LATENTWIRE_DATA_DIR", root, 1) : 0, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
