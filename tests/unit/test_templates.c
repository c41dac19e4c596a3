/*
 * Templates: which files of a folder are read, what a template gives with its parents and
 * variables, and every problem that the linter knows, each with its line.
 */

#include "tests/unit/unit.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "orchestrate/locate.h"
#include "orchestrate/manifest.h"
#include "orchestrate/template_use.h"

static lw_arena arena;

/* Write a file below the folder of one case, with its folders. Returns its path. */
static const char *put_n(const char *folder, const char *name, const char *text, size_t n)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(unit_tmp(path), 0700);
        *slash = '/';
    }
    return unit_write(path, text, n);
}

static const char *put(const char *folder, const char *name, const char *text)
{
    return put_n(folder, name, text, strlen(text));
}

/* A sound template of category "art" with these lines in its front matter, and a body. */
static void put_art(const char *folder, const char *name, const char *lines, const char *body)
{
    char file[128], text[4096];

    snprintf(file, sizeof(file), "z_image/art/%s.md", name);
    snprintf(text, sizeof(text),
             "---\nname: %s\ndescription: For a test.\nmodel: z-image\ncategory: art\n"
             "tags: [test]\n%s---\n\n%s\n",
             name, lines, body);
    put(folder, file, text);
}

static lw_templates *load(const char *folder)
{
    lw_templates *r = NULL;
    lw_err err = { 0 };

    assert_ok(lw_templates_create(&r, &err), &err);
    assert_ok(lw_templates_add_folder(r, unit_tmp(folder), &err), &err);
    return r;
}

static lw_status render_with(lw_templates *r, const char *name, const lw_template_value *values,
                             int n, lw_rendered *ret, lw_err *err)
{
    const lw_template *t;

    LW_TRY(lw_templates_find(r, name, &t, err));
    return lw_template_render(r, t, values, n, &arena, ret, err);
}

static lw_rendered render(lw_templates *r, const char *name)
{
    lw_rendered out = { 0 };
    lw_err err = { 0 };

    assert_ok(render_with(r, name, NULL, 0, &out, &err), &err);
    return out;
}

/* ---- which files ---- */

static void a_folder_is_read_with_what_is_below_it(void **state)
{
    const lw_template *t;
    lw_templates *r;
    lw_err err = { 0 };

    (void)state;
    put_art("walk", "b", "", "B.");
    put_art("walk", "a", "", "A.");
    put("walk", "z_image/art/README.md", "Not a template.\n");
    put("walk", "z_image/art/notes.txt", "Not a template.\n");
    put("walk", "z_image/.hidden/c.md", "Not a template.\n");
    put("walk", "z_image/art/.d.md", "Not a template.\n");
    put("walk", "loose.md", "Just a body.\n");
    put("elsewhere", "outside.md", "Not of this folder.\n");
    assert_int_equal(symlink(unit_tmp("elsewhere"), unit_tmp("walk/link")), 0);
    assert_int_equal(symlink(unit_tmp("elsewhere/outside.md"), unit_tmp("walk/outside.md")), 0);
    assert_int_equal(symlink(".", unit_tmp("walk/z_image/loop")), 0);
    r = load("walk");
    assert_int_equal(r->n, 3);
    assert_string_equal(r->v[0]->name, "loose"); /* in the order of paths */
    assert_string_equal(r->v[1]->name, "a");
    assert_string_equal(r->v[2]->name, "b");
    assert_string_equal(r->v[0]->fm.body, "Just a body.");
    assert_string_equal(r->v[0]->folder, "walk");
    assert_ok(lw_templates_find(r, "b", &t, &err), &err);
    assert_string_equal(t->category, "art");
    assert_string_equal(t->folder, "art");
    assert_ok(lw_templates_add_folder(r, unit_tmp("walk/z_image"), &err), &err);
    assert_int_equal(r->n, 3); /* nothing twice */
    lw_templates_destroy(&r);
    assert_null(r);
    lw_templates_destroy(&r);
}

static void folders_have_an_end(void **state)
{
    lw_templates *r = NULL;
    lw_err err = { 0 };

    (void)state;
    put("deep", "1/2/3/4/5/6/7/ok.md", "Body.\n");
    r = load("deep");
    assert_int_equal(r->n, 1);
    lw_templates_destroy(&r);
    put("deep", "1/2/3/4/5/6/7/8/far.md", "Body.\n");
    assert_ok(lw_templates_create(&r, &err), &err);
    assert_int_equal(lw_templates_add_folder(r, unit_tmp("deep"), &err), LW_E_TOO_LARGE);
    assert_contains(err.text, "1/2/3/4/5/6/7/8: folders are nested deeper than 8");
    assert_int_equal(lw_templates_add_folder(r, unit_tmp("nowhere"), &err), LW_E_NOT_FOUND);
    lw_templates_destroy(&r);
}

static void names(void **state)
{
    const lw_template *t;
    lw_templates *r;
    lw_err err = { 0 };

    (void)state;
    put_art("names", "oil-classical", "", "A.");
    put_art("names", "oil", "", "B.");
    put("names", "z_image/other/oil-classical.md", "C.\n");
    r = load("names");
    assert_int_equal(lw_templates_find(r, "oil-class", &t, &err), LW_E_NOT_FOUND);
    assert_contains(err.text, "no template is called \"oil-class\"");
    assert_contains(err.text, "oil-classical");
    assert_int_equal(lw_templates_find(r, "oil-classical", &t, &err), LW_E_PRECONDITION);
    assert_contains(err.text, "z_image/other/oil-classical.md");
    assert_ok(lw_templates_find(r, "oil", &t, &err), &err);
    lw_templates_destroy(&r);
}

static void a_file_has_its_parents_in_the_folder(void **state)
{
    lw_rendered out = { 0 };
    lw_template *t;
    lw_templates *r;
    lw_err err = { 0 };

    (void)state;
    put_art("shared", "base", "", "Base.");
    r = load("shared");
    assert_ok(
        lw_templates_add_file(
            r, put("alone", "base.md", "---\nname: base\nextends: base\n---\n\nOwn.\n"), &t, &err),
        &err);
    assert_null(t->folder);
    /* Its name is not taken by the file, which may build upon its namesake. */
    assert_ok(lw_template_render(r, t, NULL, 0, &arena, &out, &err), &err);
    assert_string_equal(out.system, "Base.\n\nOwn.");
    assert_string_equal(render(r, "base").system, "Base.");
    assert_int_equal(lw_templates_add_file(r, unit_tmp("shared"), &t, &err), LW_E_FORMAT);
    assert_int_equal(lw_templates_add_file(r, unit_tmp("no.md"), &t, &err), LW_E_NOT_FOUND);
    lw_templates_destroy(&r);
}

/* ---- what it gives ---- */

static void parts(void **state)
{
    lw_templates *r;
    lw_rendered out;

    (void)state;
    put_art("parts", "all",
            "thinking: |\n  I think.\n\n  Twice.\nassistant: Here\nnegative: blur, \"noise\"\n"
            "add_think_block: true\nsize: 1024x1536\nsteps: 12\nguidance: 3.5\n"
            "seed: 9223372036854775807\nunknown: [kept, as, metadata]\n",
            "Two lines\nof a body.\n\nAnd more.\n");
    put("parts", "plain.md", "  Only {a body}.\n\n");
    put("parts", "empty.md", "---\nname: empty\n---\n");
    r = load("parts");
    out = render(r, "all");
    assert_string_equal(out.name, "all");
    assert_string_equal(out.system, "Two lines\nof a body.\n\nAnd more.");
    assert_string_equal(out.thinking, "I think.\n\nTwice.");
    assert_string_equal(out.assistant, "Here");
    assert_string_equal(out.negative, "blur, \"noise\"");
    assert_int_equal(out.think_block, 1);
    assert_string_equal(out.size, "1024x1536");
    assert_string_equal(out.seed, "9223372036854775807");
    assert_int_equal(out.steps, 12);
    assert_true(out.guidance == 3.5);
    out = render(r, "plain");
    assert_string_equal(out.name, "plain");
    assert_string_equal(out.system, "  Only {a body}.");
    assert_null(out.thinking);
    assert_null(out.size);
    assert_int_equal(out.think_block, -1);
    assert_int_equal(out.steps, -1);
    assert_true(out.guidance < 0);
    out = render(r, "empty");
    assert_null(out.system);
    lw_templates_destroy(&r);
}

static void parents(void **state)
{
    lw_templates *r;
    lw_rendered out;

    (void)state;
    put_art("parents", "top", "thinking: Top thinks.\nsteps: 4\nsize: 512x512\nguidance: 0\n",
            "Top.\n\n{{body}}\n\nEnd.");
    put_art("parents", "middle", "extends: top\nthinking: Middle thinks.\nnegative: grey\n",
            "Middle.");
    put_art("parents", "low", "extends: middle\nthinking: \"\"\nsteps: 9\n", "Low.");
    put_art("parents", "inline", "", "Before {{body}} after.");
    put_art("parents", "inline-child", "extends: inline\n", "and");
    put_art("parents", "slot-last", "", "Text.\n\n{{body}}");
    put_art("parents", "slot-first", "", "{{body}}\n\nText.");
    r = load("parents");
    /* Below its own slot, a template stands alone. */
    assert_string_equal(render(r, "top").system, "Top.\n\nEnd.");
    assert_string_equal(render(r, "middle").system, "Top.\n\nMiddle.\n\nEnd.");
    out = render(r, "low");
    assert_string_equal(out.system, "Top.\n\nMiddle.\n\nLow.\n\nEnd.");
    assert_null(out.thinking); /* "" takes the parent's away */
    assert_int_equal(out.steps, 9);
    assert_string_equal(out.size, "512x512");
    assert_string_equal(out.negative, "grey");
    assert_true(out.guidance == 0);
    assert_string_equal(render(r, "middle").thinking, "Middle thinks.");
    assert_string_equal(render(r, "inline").system, "Before  after.");
    assert_string_equal(render(r, "inline-child").system, "Before and after.");
    assert_string_equal(render(r, "slot-last").system, "Text.");
    assert_string_equal(render(r, "slot-first").system, "Text.");
    lw_templates_destroy(&r);
}

static void tags_are_joined(void **state)
{
    const lw_template *t;
    lw_templates *r;
    lw_err err = { 0 };
    json_t *tags;
    char *text;

    (void)state;
    put("tags", "a/base.md", "---\nname: base\ntags: [light, portrait]\n---\n\nBase.\n");
    put("tags", "a/child.md", "---\nname: child\nextends: base\ntags: [dark, light]\n---\n\nC.\n");
    r = load("tags");
    assert_ok(lw_templates_find(r, "child", &t, &err), &err);
    tags = lw_template_tags(r, t);
    text = json_dumps(tags, JSON_COMPACT);
    assert_string_equal(text, "[\"dark\",\"light\",\"portrait\"]");
    free(text);
    json_decref(tags);
    lw_templates_destroy(&r);
}

static void variables(void **state)
{
    static const lw_template_value red[] = { { "colour", "red" } };
    static const lw_template_value braces[] = { { "colour", "{{lamp}}" }, { "lamp", "" } };
    static const lw_template_value twice[] = { { "lamp", "a" }, { "lamp", "b" } };
    static const lw_template_value wrong[] = { { "color", "red" } };
    lw_templates *r;
    lw_rendered out;
    lw_err err = { 0 };

    (void)state;
    put_art("vars", "base", "variables:\n  colour: grey\n  lamp: a lamp\n",
            "In {{colour}} under {{lamp}}, {{colour}}.");
    put_art("vars", "child",
            "extends: base\nvariables:\n  colour: blue\n  mood: \"\"\n"
            "thinking: I see {{colour}}{{mood}}.\nnegative: \"{{mood}}\"\n",
            "{{mood}}Left as it is: {{Colour}} {{ colour }} {{colour} {{{colour}}}.");
    put_art("vars", "undeclared", "", "{{what}}");
    r = load("vars");
    assert_string_equal(render(r, "base").system, "In grey under a lamp, grey.");
    out = render(r, "child");
    assert_string_equal(out.system, "In blue under a lamp, blue.\n\n"
                                    "Left as it is: {{Colour}} {{ colour }} {{colour} {blue}.");
    assert_string_equal(out.thinking, "I see blue.");
    assert_null(out.negative); /* nothing is left of it */
    assert_ok(render_with(r, "child", red, 1, &out, &err), &err);
    assert_contains(out.system, "In red under a lamp, red.");
    assert_ok(render_with(r, "base", braces, 2, &out, &err), &err);
    assert_string_equal(out.system, "In {{lamp}} under , {{lamp}}.");
    assert_int_equal(render_with(r, "base", wrong, 1, &out, &err), LW_E_INVALID);
    assert_contains(err.text, "base has no variable \"color\"; it has colour, lamp");
    assert_int_equal(render_with(r, "base", twice, 2, &out, &err), LW_E_INVALID);
    assert_contains(err.text, "\"lamp\" is given twice");
    assert_int_equal(render_with(r, "undeclared", NULL, 0, &out, &err), LW_E_FORMAT);
    assert_contains(err.text, "undeclared.md: the body uses {{what}}");
    lw_templates_destroy(&r);
}

static void the_digest_is_of_what_it_gives(void **state)
{
    static const lw_template_value red[] = { { "colour", "red" } };
    lw_templates *r;
    lw_rendered out;
    lw_err err = { 0 };
    char first[65];

    (void)state;
    put_art("digest", "a", "variables:\n  colour: red\nseed: 7\n", "In {{colour}}.");
    put_art("digest", "b", "seed: 7\n", "In red.");
    put_art("digest", "c", "seed: 8\n", "In red.");
    r = load("digest");
    out = render(r, "a");
    memcpy(first, out.digest, sizeof(first));
    /* python3: hashlib.blake2b(b'{"seed":7,"system_prompt":"In red."}', digest_size=32) */
    assert_string_equal(first, "ae595a5b67d09dab12a8569e8d3da2639d86f93670482e6cea2f1affc8511fc9");
    assert_ok(render_with(r, "a", red, 1, &out, &err), &err);
    assert_string_equal(out.digest, first);
    assert_string_equal(render(r, "b").digest, first);
    out = render(r, "c");
    assert_string_not_equal(out.digest, first);
    lw_templates_destroy(&r);
}

static void chains_that_do_not_hold(void **state)
{
    char lines[64], name[16];
    lw_templates *r;
    lw_rendered out;
    lw_err err = { 0 };

    (void)state;
    put_art("chains", "lost", "extends: nobody\n", "A.");
    put_art("chains", "self", "extends: self\n", "B.");
    put_art("chains", "one", "extends: two\n", "C.");
    put_art("chains", "two", "extends: three\n", "D.");
    put_art("chains", "three", "extends: two\n", "E.");
    put_art("chains", "wrong", "size: 100\n", "F.");
    put_art("chains", "of-wrong", "extends: wrong\n", "G.");
    for (int i = 1; i <= 9; i++) {
        snprintf(name, sizeof(name), "n%d", i);
        snprintf(lines, sizeof(lines), "extends: n%d\n", i - 1);
        put_art("chains", name, i > 1 ? lines : "", "H.");
    }
    r = load("chains");
    assert_int_equal(render_with(r, "lost", NULL, 0, &out, &err), LW_E_FORMAT);
    assert_contains(err.text, "lost.md:7: no template is called \"nobody\"");
    assert_int_equal(render_with(r, "self", NULL, 0, &out, &err), LW_E_FORMAT);
    assert_contains(err.text, "self.md:7: \"self\" is its own parent");
    assert_int_equal(render_with(r, "one", NULL, 0, &out, &err), LW_E_FORMAT);
    assert_contains(err.text, "two.md:7: \"two\" is its own parent by way of three");
    assert_int_equal(render_with(r, "of-wrong", NULL, 0, &out, &err), LW_E_FORMAT);
    assert_contains(err.text, "/wrong.md:7: size: \"100\" is not WIDTHxHEIGHT");
    assert_ok(render_with(r, "n8", NULL, 0, &out, &err), &err);
    assert_string_equal(out.system, "H.\n\nH.\n\nH.\n\nH.\n\nH.\n\nH.\n\nH.\n\nH.");
    assert_int_equal(render_with(r, "n9", NULL, 0, &out, &err), LW_E_FORMAT);
    assert_contains(err.text, "n9.md:7: \"n9\" has more than 7 parents");
    lw_templates_destroy(&r);
}

static void what_comes_out_has_a_limit(void **state)
{
    char *value = malloc(LW_TEMPLATE_MAX_BYTES + 1);
    lw_template_value v = { "v", value };
    lw_templates *r;
    lw_rendered out;
    lw_err err = { 0 };

    (void)state;
    assert_non_null(value);
    memset(value, 'x', LW_TEMPLATE_MAX_BYTES);
    value[LW_TEMPLATE_MAX_BYTES] = '\0';
    put_art("large", "a", "variables:\n  v: x\n", "{{v}}");
    r = load("large");
    assert_ok(render_with(r, "a", &v, 1, &out, &err), &err);
    put_art("larger", "a", "variables:\n  v: x\n", "{{v}}.");
    lw_templates_destroy(&r);
    r = load("larger");
    assert_int_equal(render_with(r, "a", &v, 1, &out, &err), LW_E_TOO_LARGE);
    assert_contains(err.text, "the body of the template a has more than 32768 bytes");
    lw_templates_destroy(&r);
    free(value);
}

/* ---- the linter ---- */

#define HEAD "---\nname: x\ndescription: For a test.\nmodel: z-image\ncategory: art\n"
#define GOOD HEAD "tags: [test]\n"
#define TEN  "aaaaaaaaaa"
#define BODY "---\n\nBody.\n"

/* All problems of a file z_image/art/x.md, "line: reason" each, joined by " | ". */
static const char *problems_of(const char *folder, const char *name)
{
    static char text[4096];
    lw_templates *r = load(folder);
    const lw_template *t = NULL;
    lw_err err = { 0 };
    size_t n = 0;

    assert_ok(lw_templates_check(r, NULL, &err), &err);
    for (int i = 0; i < r->n; i++)
        if (strstr(r->v[i]->path, name))
            t = r->v[i];
    assert_non_null(t);
    text[0] = '\0';
    for (const lw_template_problem *p = t->problems; p; p = p->next)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%d: %s", n ? " | " : "", p->line,
                              p->reason);
    lw_templates_destroy(&r);
    return text;
}

static void each_problem_has_its_line(void **state)
{
    static const struct {
        const char *text, *want; /* the want is all there is, or its beginning when it ends in * */
    } cases[] = {
        { GOOD BODY, "" },
        { GOOD "size: 512x2048\nsteps: 1\nguidance: 1000\nseed: 0\nadd_think_block: false\n" BODY,
          "" },
        { GOOD "another-key: of: no concern\n" BODY, "7: mapping values are not allowed*" },
        { GOOD "another-key: of no concern\n" BODY, "" },
        { "Body.\n", "1: no front matter*" },
        { "", "1: no front matter*" },
        { "---\nname: x\n", "1: the front matter is not closed*" },
        { GOOD "name: y\n" BODY, "7: the key \"name\" stands here twice" },
        { GOOD BODY "\xff\n", "10: not UTF-8" },
        /* what must be there */
        { "---\nsteps: 8\n" BODY, "1: name is missing | 1: description is missing | 1: model is "
                                  "missing | 1: category is missing | 1: tags is missing" },
        { HEAD BODY, "1: tags is missing" },
        { "---\nname: x\ndescription:\nmodel: z-image\ncategory: art\ntags: [a]\n" BODY,
          "3: description is empty" },
        /* what it must be */
        { "---\nname: y\ndescription: D.\nmodel: z-image\ncategory: art\ntags: [a]\n" BODY,
          "2: the name \"y\" is not that of the file, \"x\"" },
        { "---\nname: X_y\ndescription: D.\nmodel: z-image\ncategory: art\ntags: [a]\n" BODY,
          "2: the name \"X_y\" is not of lower-case words joined by hyphens | 2: the name*" },
        { "---\nname: [x]\ndescription: D.\nmodel: z-image\ncategory: art\ntags: [a]\n" BODY,
          "2: name must be a text" },
        { "---\nname: x\ndescription: " TEN TEN TEN TEN TEN TEN TEN TEN TEN "\xc3\xa9"
          "aaaaaaaaa\nmodel: z-image\ncategory: art\ntags: [a]\n" BODY,
          "" },
        { "---\nname: x\ndescription: " TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN
          ".\nmodel: z-image\ncategory: art\ntags: [a]\n" BODY,
          "3: the description has 101 characters; at most 100 fit a list" },
        { "---\nname: x\ndescription: \"a\\nb\"\nmodel: z-image\ncategory: art\ntags: [a]\n" BODY,
          "3: the description has more than one line" },
        { "---\nname: x\ndescription: D.\nmodel: sdxl\ncategory: art\ntags: [a]\n" BODY,
          "4: the model \"sdxl\" is not known*" },
        { "---\nname: x\ndescription: D.\nmodel: z-image\ncategory: style\ntags: [a]\n" BODY,
          "5: the category \"style\" is not that of the folder, \"art\"" },
        { "---\nname: x\ndescription: D.\nmodel: z-image\ncategory: Art\ntags: [a]\n" BODY,
          "5: the category \"Art\" is not a lower-case word" },
        { HEAD "tags: light\n" BODY, "6: tags must be a list such as [light, portrait]" },
        { HEAD "tags: []\n" BODY, "6: 0 tags; a template has 1 to 6" },
        { HEAD "tags: [a, b, c, d, e, f, g]\n" BODY, "6: 7 tags; a template has 1 to 6" },
        { HEAD "tags:\n  - a\n  - B\n  - a\n" BODY,
          "8: the tag \"B\" is not a lower-case word | 9: the tag \"a\" stands here twice" },
        /* values */
        { GOOD "size: big\n" BODY, "7: size: \"big\" is not WIDTHxHEIGHT*" },
        { GOOD "size: 1000x1000\n" BODY, "7: size: \"1000x1000\" is not WIDTHxHEIGHT*" },
        { GOOD "size: 256x512\n" BODY, "7: size: each side of 256x512 must be from 512 to 2048" },
        { GOOD "size: 2064x512\n" BODY, "7: size: each side of 2064x512 must be*" },
        { GOOD "steps: 0\n" BODY, "7: steps: \"0\" is not a whole number from 1 to 256" },
        { GOOD "steps: 257\n" BODY, "7: steps*" },
        { GOOD "steps: 8.5\n" BODY, "7: steps*" },
        { GOOD "steps: [8]\n" BODY, "7: steps must be a text" },
        { GOOD "guidance: -1\n" BODY, "7: guidance: \"-1\" is not a number from 0 to 1000" },
        { GOOD "guidance: nan\n" BODY, "7: guidance*" },
        { GOOD "seed: x\n" BODY, "7: seed: \"x\" is not a whole number*" },
        { GOOD "add_think_block: yes\n" BODY, "7: add_think_block: \"yes\" is neither*" },
        { GOOD "negative: |\n  a\n  b\n" BODY, "7: negative has more than one line" },
        /* parents */
        { GOOD "extends: nobody\n" BODY, "7: no template is called \"nobody\"*" },
        { GOOD "extends: x\n" BODY, "7: \"x\" is its own parent" },
        { GOOD "extends:\n" BODY, "7: extends is empty" },
        /* variables */
        { GOOD "---\n\nOne.\n\nTwo {{a}}.\n",
          "11: {{a}} in the body is declared by no `variables`" },
        { GOOD "thinking: I {{a}}.\n" BODY,
          "7: {{a}} in the thinking is declared by no `variables`" },
        { GOOD "negative: \"{{a}}\"\n" BODY, "7: {{a}} in the negative*" },
        { GOOD "assistant: \"{{a}}\"\n" BODY, "7: {{a}} in the assistant*" },
        { GOOD "variables:\n  a: b\n  c: d\n---\n\n{{a}}\n",
          "9: the variable \"c\" is used nowhere" },
        { GOOD "variables:\n  a: b\n---\n\n{{a}} {{ a }}\n",
          "11: \"{{\" in the body begins no {{lower_snake_case}}" },
        { GOOD "variables:\n  a: \"{{b}}\"\n---\n\n{{a}}\n",
          "8: \"{{\" in the default of \"a\" stays as it is" },
        { GOOD "variables:\n  Aa: b\n" BODY, "8: the variable \"Aa\" is not lower_snake_case" },
        { GOOD "variables:\n  body: b\n---\n\n{{body}}\n", "8: a variable cannot be called body*" },
        { GOOD "variables: a\n" BODY, "7: variables must be lines of a name and its default*" },
        { GOOD "variables:\n  a: [b]\n" BODY, "8: \"variables\" is nested deeper*" },
        { GOOD "---\n\n{{body}}\n\n{{body}}\n", "11: {{body}} stands here twice" },
        { GOOD "thinking: \"{{body}}\"\n" BODY, "7: {{body}} in the thinking; it belongs*" },
        /* form */
        { GOOD "---\n\n\n", "9: an empty line at the end of the file | 10: the body is empty" },
        { GOOD "---\n", "8: the body is empty" },
        { GOOD "---\nBody.\n", "8: the body must follow the front matter after one empty line" },
        { GOOD "---\n\n\nBody.\n",
          "8: the body must follow the front matter after one empty line" },
        { GOOD "---\n\nBody.", "9: the last line has no line feed" },
        { GOOD "---\n\nBody.\n\n", "10: an empty line at the end of the file" },
        { GOOD "---\n\nBody. \nMore.\n", "9: blanks at the end of the line" },
        { GOOD "---\n\nBody.\tMore.\n", "9: a tab; write spaces" },
        { HEAD "tags: [test] \n" BODY, "6: blanks at the end of the line" },
        { GOOD "---\r\n\r\nBody.\r\n", "7: a carriage return*" },
    };

    (void)state;
    for (size_t i = 0; i < LW_ARRAY_LEN(cases); i++) {
        const size_t n = strlen(cases[i].want);
        const bool begins = n && cases[i].want[n - 1] == '*';
        const char *got;

        put("lint", "z_image/art/x.md", cases[i].text);
        got = problems_of("lint", "x.md");
        if (begins ? strncmp(got, cases[i].want, n - 1) != 0 : strcmp(got, cases[i].want) != 0)
            fail_msg("%s\ngave \"%s\"\nnot  \"%s\"", cases[i].text, got, cases[i].want);
    }
}

static void problems_between_files(void **state)
{
    (void)state;
    put_art("between", "base", "variables:\n  a: b\n", "In {{a}}.");
    put_art("between", "child", "extends: base\nvariables:\n  a: c\n", "Of {{a}}.");
    put_art("between", "odd", "extends: base\nvariables:\n  other: c\n", "Of {{a}}.");
    put_art("between", "one", "extends: two\n", "One.");
    put_art("between", "two", "extends: one\n", "Two.");
    put_art("between", "under", "extends: two\n", "Under.");
    put_art("between", "of-broken", "extends: broken\n", "{{what}}");
    put_art("between", "broken", "size: no\n", "Broken.");
    put("between", "z_image/style/base.md",
        "---\nname: base\ndescription: D.\nmodel: z-image\ncategory: style\ntags: [a]\n" BODY);
    assert_contains(problems_of("between", "art/base.md"), "2: the name \"base\" is that of ");
    assert_contains(problems_of("between", "style/base.md"), "z_image/art/base.md too");
    unlink(unit_tmp("between/z_image/style/base.md"));
    assert_string_equal(problems_of("between", "art/base.md"), "");
    assert_string_equal(problems_of("between", "child.md"), "");
    assert_string_equal(problems_of("between", "odd.md"),
                        "9: the variable \"other\" is used nowhere");
    assert_string_equal(problems_of("between", "one.md"),
                        "7: \"one\" is its own parent by way of two");
    assert_string_equal(problems_of("between", "two.md"),
                        "7: \"two\" is its own parent by way of one");
    /* What is wrong elsewhere is noted there. */
    assert_string_equal(problems_of("between", "under.md"), "");
    assert_string_equal(problems_of("between", "of-broken.md"), "");
    assert_contains(problems_of("between", "/broken.md"), "7: size");
}

static void bodies_that_share_sentences(void **state)
{
    static const char one[] = "The light comes from the left side.";
    static const char two[] = "Keep all of the shadows soft and blue.";
    char body[512];

    (void)state;
    snprintf(body, sizeof(body), "%s Then something else. %s", one, two);
    put_art("share", "a", "", body);
    snprintf(body, sizeof(body), "Own words.\n\nthe LIGHT comes\nfrom the left side! %s", one);
    put_art("share", "b", "", body); /* one, though it says it twice */
    assert_string_equal(problems_of("share", "b.md"), "");
    snprintf(body, sizeof(body), "Own words.\n\nNo. Too short a thing.\n\n%s %s", two, one);
    put_art("share", "c", "", body);
    assert_string_equal(problems_of("share", "b.md"), "");
    assert_contains(problems_of("share", "c.md"), "13: the body shares 2 sentences with ");
    assert_contains(problems_of("share", "c.md"), "/a.md");
    assert_string_equal(problems_of("share", "a.md"), "");
    put_art("share", "c", "extends: a\n", body); /* a child may take up its parent's words */
    assert_string_equal(problems_of("share", "c.md"), "");
    /* Without blanks between words, characters count. */
    put_art("share", "e", "",
            "\xe5\x85\x88\xe5\x86\x99\xe4\xb8\xbb\xe4\xbd\x93\xe5\x86\x8d\xe5\x86\x99\xe3\x80\x82"
            "\xe6\x9c\x80\xe5\x90\x8e\xe5\x86\x99\xe5\x85\x89\xe7\xba\xbf\xe3\x80\x82");
    put_art("share", "f", "",
            "\xe5\x85\x88\xe5\x86\x99\xe4\xb8\xbb\xe4\xbd\x93\xe5\x86\x8d\xe5\x86\x99\xe3\x80\x82"
            "\xe6\x9c\x80\xe5\x90\x8e\xe5\x86\x99\xe5\x85\x89\xe7\xba\xbf\xe3\x80\x82");
    assert_contains(problems_of("share", "f.md"), "9: the body shares 2 sentences with ");
}

static void the_templates_of_the_project_are_sound(void **state)
{
    const char *root = getenv("LW_SOURCE_ROOT");
    char folder[PATH_MAX];
    lw_templates *r = NULL;
    lw_err err = { 0 };
    int n = 0;

    (void)state;
    assert_non_null(root);
    snprintf(folder, sizeof(folder), "%s/templates/z_image", root);
    assert_ok(lw_templates_create(&r, &err), &err);
    assert_ok(lw_templates_add_folder(r, folder, &err), &err);
    assert_ok(lw_templates_check(r, NULL, &err), &err);
    for (int i = 0; i < r->n; i++) {
        lw_rendered out;

        for (const lw_template_problem *p = r->v[i]->problems; p; p = p->next, n++)
            fprintf(stderr, "%s:%d: %s\n", r->v[i]->path, p->line, p->reason);
        assert_ok(lw_template_render(r, r->v[i], NULL, 0, &arena, &out, &err), &err);
        if (!out.system || strstr(out.system, "{{"))
            fail_msg("%s: \"%s\"", r->v[i]->path, out.system ? out.system : "");
    }
    assert_int_equal(n, 0);
    assert_true(r->n >= 100);
    lw_templates_destroy(&r);
}

/* ---- options ---- */

static lw_settings asked_for(const char *folder, const char *name)
{
    return (lw_settings){ .template_name = name, .templates = folder, .think = -1, .guidance = -1 };
}

static void options_win(void **state)
{
    const char *folder = unit_tmp("apply");
    lw_settings s;
    lw_rendered out;
    lw_err err = { 0 };

    (void)state;
    put_art("apply", "t",
            "thinking: T thinks.\nassistant: T says\nnegative: blur\nadd_think_block: true\n"
            "size: 1024x1536\nsteps: 12\nguidance: 3.5\nseed: 7\n",
            "T.");
    s = asked_for(folder, "t");
    assert_ok(lw_template_apply(&s, &arena, &out, &err), &err);
    assert_string_equal(out.name, "t");
    assert_string_equal(s.system, "T.");
    assert_string_equal(s.thinking, "T thinks.");
    assert_string_equal(s.assistant, "T says");
    assert_string_equal(s.negative, "blur");
    assert_string_equal(s.size, "1024x1536");
    assert_string_equal(s.seed, "7");
    assert_int_equal(s.think, 1);
    assert_int_equal(s.steps, 12);
    assert_true(s.guidance == 3.5);

    s = asked_for(folder, "t");
    s.system = "";
    s.thinking = "Own.";
    s.assistant = "Own.";
    s.size = "512";
    s.seed = "1";
    s.think = 0;
    s.steps = 2;
    s.guidance = 0;
    assert_ok(lw_template_apply(&s, &arena, &out, &err), &err);
    assert_string_equal(s.system, "");
    assert_string_equal(s.thinking, "Own.");
    assert_string_equal(s.assistant, "Own.");
    assert_string_equal(s.size, "512");
    assert_string_equal(s.seed, "1");
    assert_int_equal(s.think, 0);
    assert_int_equal(s.steps, 2);
    assert_true(s.guidance == 0);
    assert_null(s.negative); /* of use only with guidance */

    s = asked_for(folder, "t");
    s.negative = "own";
    assert_ok(lw_template_apply(&s, &arena, &out, &err), &err);
    assert_string_equal(s.negative, "own");
}

static void without_a_template_there_are_defaults(void **state)
{
    lw_settings s = asked_for(NULL, NULL);
    lw_rendered out;
    lw_err err = { 0 };

    (void)state;
    assert_ok(lw_template_apply(&s, &arena, &out, &err), &err);
    assert_null(out.name);
    assert_null(s.system);
    assert_true(s.guidance == 0);
    assert_true(s.think <= 0);
    s.variables = (lw_opt_list){ .items = { "a=b" }, .n = 1 };
    assert_int_equal(lw_template_apply(&s, &arena, &out, &err), LW_E_INVALID);
    assert_contains(err.text, "--var needs a --template");
}

static void what_cannot_be_asked_for(void **state)
{
    const char *folder = unit_tmp("ask");
    lw_settings s;
    lw_rendered out;
    lw_err err = { 0 };

    (void)state;
    put_art("ask", "t", "variables:\n  a: b\n", "{{a}}");
    s = asked_for(folder, "t");
    s.raw = true;
    assert_int_equal(lw_template_apply(&s, &arena, &out, &err), LW_E_INVALID);
    assert_contains(err.text, "--raw");
    s = asked_for(folder, "nobody");
    assert_int_equal(lw_template_apply(&s, &arena, &out, &err), LW_E_NOT_FOUND);
    s = asked_for(unit_tmp("nowhere"), "t");
    assert_int_equal(lw_template_apply(&s, &arena, &out, &err), LW_E_NOT_FOUND);
    s = asked_for(folder, unit_tmp("ask/z_image/art/none.md"));
    assert_int_equal(lw_template_apply(&s, &arena, &out, &err), LW_E_NOT_FOUND);
    s = asked_for(folder, unit_tmp("ask/z_image/art/t.md"));
    s.variables = (lw_opt_list){ .items = { "a=1=2" }, .n = 1 };
    assert_ok(lw_template_apply(&s, &arena, &out, &err), &err);
    assert_string_equal(s.system, "1=2");
    for (const char *const *bad = (const char *const[]){ "a", "=b", "", NULL }; *bad; bad++) {
        s.variables.items[0] = *bad;
        assert_int_equal(lw_template_apply(&s, &arena, &out, &err), LW_E_INVALID);
        assert_contains(err.text, "NAME=TEXT");
    }
    s.variables.items[0] = "a=\xff";
    assert_int_equal(lw_template_apply(&s, &arena, &out, &err), LW_E_INVALID);
}

static void the_manifest_names_it(void **state)
{
    json_t *m = lw_manifest_new(), *back = NULL;
    lw_err err = { 0 };
    char *text;

    (void)state;
    assert_non_null(m);
    assert_ok(lw_manifest_set_template(m, "rim-light", "0123", &err), &err);
    text = lw_manifest_text(m);
    assert_ok(lw_manifest_parse(text, "f", &back, &err), &err); /* through a file and back */
    free(text);
    text = lw_manifest_text(back);
    assert_contains(text, "\"template\":\"rim-light\",\"template_digest\":\"0123\"");
    free(text);
    json_decref(m);
    json_decref(back);
}

static void the_folder_of_the_data_is_found(void **state)
{
    char dir[PATH_MAX];
    lw_err err = { 0 };

    (void)state;
    put("data", "templates/a.md", "A.\n");
    setenv("LATENTWIRE_DATA_DIR", unit_tmp("data"), 1);
    assert_ok(lw_locate_templates(NULL, dir, &err), &err);
    assert_string_equal(dir, unit_tmp("data/templates"));
    unsetenv("LATENTWIRE_DATA_DIR");
    assert_int_equal(lw_locate_templates(unit_tmp("data/templates/a.md"), dir, &err),
                     LW_E_NOT_FOUND);
}

static int setup(void **state)
{
    (void)state;
    lw_arena_init(&arena, "test", 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lw_arena_deinit(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_is_read_with_what_is_below_it),
        cmocka_unit_test(folders_have_an_end),
        cmocka_unit_test(names),
        cmocka_unit_test(a_file_has_its_parents_in_the_folder),
        cmocka_unit_test(parts),
        cmocka_unit_test(parents),
        cmocka_unit_test(tags_are_joined),
        cmocka_unit_test(variables),
        cmocka_unit_test(the_digest_is_of_what_it_gives),
        cmocka_unit_test(chains_that_do_not_hold),
        cmocka_unit_test(what_comes_out_has_a_limit),
        cmocka_unit_test(each_problem_has_its_line),
        cmocka_unit_test(problems_between_files),
        cmocka_unit_test(bodies_that_share_sentences),
        cmocka_unit_test(the_templates_of_the_project_are_sound),
        cmocka_unit_test(options_win),
        cmocka_unit_test(without_a_template_there_are_defaults),
        cmocka_unit_test(what_cannot_be_asked_for),
        cmocka_unit_test(the_manifest_names_it),
        cmocka_unit_test(the_folder_of_the_data_is_found),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
