/*
 * The stage verbs: encode, denoise, decode, encode-image. Each does one stage and reads or writes a
 * safetensors file with the tensor names of the wire, so that other tools can make or look at what
 * goes between the stages. The manifest travels in the metadata: a chain of stages ends in the same
 * PNG as `generate`.
 */

#include <stdlib.h>
#include <string.h>

#include "common/png.h"
#include "common/safetensors.h"
#include "orchestrate/cli.h"
#include "orchestrate/manifest.h"
#include "orchestrate/output.h"
#include "orchestrate/report.h"
#include "orchestrate/template_use.h"

#define OUT_TENSORS "safetensors file"

static const lw_opt encode_options[] = {
    LW_OPTS_PROMPT,
    LW_OPTS_TEMPLATE,
    { .name = "guidance",
      .kind = LW_OPT_DOUBLE,
      .offset = LW_SET(guidance),
      .min = 0,
      .max = 1000,
      .value = "G",
      .help = "above 0: encode the negative prompt too, even an empty one (default: 0)" },
    LW_OPTS_OUTPUT(OUT_TENSORS " (default: prompt_embeds.safetensors)"),
    LW_OPTS_MODEL,
    LW_OPTS_CLUSTER,
    LW_OPT_END
};

static const lw_opt denoise_options[] = {
    LW_OPTS_SAMPLING, LW_OPTS_OUTPUT(OUT_TENSORS " (default: latents.safetensors)"),
    LW_OPTS_PREVIEW,  LW_OPTS_MODEL,
    LW_OPTS_CLUSTER,  LW_OPT_END
};

static const lw_opt decode_options[] = { LW_OPTS_TILE,
                                         LW_OPTS_OUTPUT("PNG file, pattern or folder"),
                                         LW_OPTS_MODEL, LW_OPTS_CLUSTER, LW_OPT_END };

static const lw_opt encode_image_options[] = { LW_OPTS_OUTPUT(OUT_TENSORS
                                                              " (default: latents.safetensors)"),
                                               LW_OPTS_MODEL, LW_OPTS_CLUSTER, LW_OPT_END };

/* One run of a verb. */
typedef struct stage {
    const char *verb, *argument_is;
    lw_artefact from, to;
    const char *default_output;
    lw_settings opt;
    lw_output output; /* of decode */
    lw_kept_pictures *kept;
    lw_run *run;
    lw_report report;
    json_t *manifest;
    lw_arena arena;
    lw_st_file *input;
    lw_msg submit;
    uint64_t first; /* picture of the job that runs */
    int width, height;
} stage;

static const char *output_of(const stage *g)
{
    return g->opt.output ? g->opt.output : g->default_output;
}

/* ---- results ---- */

static lw_status write_tensors(stage *g, const lw_msg *result, lw_err *err)
{
    static const char *const names[] = { LW_T_PROMPT_EMBEDS, LW_T_NEGATIVE_EMBEDS, LW_T_LATENTS };
    lw_st_entry entries[LW_ARRAY_LEN(names)];
    char *text = lw_manifest_text(g->manifest);
    const lw_st_meta meta = { LW_MANIFEST_KEY, text };
    size_t n = 0;
    lw_status s;

    for (size_t i = 0; i < LW_ARRAY_LEN(names); i++) {
        const lw_msg_tensor *mt = lw_msg_tensor_find(result, names[i]);

        if (mt)
            entries[n++] = (lw_st_entry){ .name = names[i], .t = mt->t };
    }
    if (!text)
        s = lw_fail(err, LW_E_NOMEM, "no memory for the manifest");
    else if (n == 0)
        s = lw_fail(err, LW_E_INTERNAL, "the result of %s has no tensor that could be written",
                    g->verb);
    else
        s = lw_st_write(output_of(g), entries, n, &meta, 1, err);
    free(text);
    return s == LW_OK ? lw_report_file(&g->report, 0, output_of(g), false, 0, err) : s;
}

static lw_status on_tensors(void *arg, const lw_msg *submit, const lw_msg *result, lw_err *err)
{
    stage *g = arg;

    LW_TRY(lw_manifest_add(g->manifest, submit, result, err));
    LW_TRY(write_tensors(g, result, err));
    return lw_report_result(&g->report, result, err);
}

static lw_status on_picture(void *arg, uint64_t index, uint64_t seed, const char *path, lw_err *err)
{
    stage *g = arg;

    return lw_report_file(&g->report, index, path, json_object_get(g->manifest, "seed") != NULL,
                          seed, err);
}

/* The manifest is that of the first picture of the file; a later job starts at its own seed. */
static lw_status on_image(void *arg, const lw_msg *submit, const lw_msg *result, lw_err *err)
{
    stage *g = arg;
    json_t *own = lw_manifest_picture(g->manifest, g->first);
    lw_status s = own ? lw_manifest_add(own, submit, result, err)
                      : lw_fail(err, LW_E_NOMEM, "no memory for a manifest");

    if (s == LW_OK)
        s = lw_output_keep(&g->kept, &g->arena, result, own, g->first, err);
    json_decref(own);
    if (s == LW_OK && g->first == 0)
        s = lw_manifest_add(g->manifest, submit, result, err); /* for --json */
    return s == LW_OK ? lw_report_result(&g->report, result, err) : s;
}

/* ---- inputs ---- */

static lw_status bad_tensor(const stage *g, const char *path, const char *name, const char *want,
                            lw_err *err)
{
    const lw_st_entry *e = lw_st_find(g->input, name);
    char found[128] = "no tensor of that name";

    if (e)
        lw_tensor_describe(&e->t, found, sizeof(found));
    return lw_fail(err, e ? LW_E_SHAPE : LW_E_NOT_FOUND, "%s: %s: expected %s, found %s", path,
                   name, want, found);
}

static lw_status open_input(stage *g, const char *path, lw_err *err)
{
    LW_TRY(lw_st_open(path, &g->input, err));
    return lw_manifest_parse(lw_st_metadata(g->input, LW_MANIFEST_KEY), path, &g->manifest, err);
}

static lw_status add_embeds(stage *g, const char *path, lw_err *err)
{
    static const char *const names[] = { LW_T_PROMPT_EMBEDS, LW_T_NEGATIVE_EMBEDS };

    for (size_t i = 0; i < LW_ARRAY_LEN(names); i++) {
        const lw_st_entry *e = lw_st_find(g->input, names[i]);

        if (!e && i > 0)
            break; /* only guidance needs the negative */
        if (!e || e->t.rank != 2 || e->t.shape[0] < 1 || !lw_dtype_is_float(e->t.dtype))
            return bad_tensor(g, path, names[i], "floats [tokens, width]", err);
        LW_TRY(lw_msg_tensor_add(&g->submit, names[i], &e->t, NULL, err));
    }
    if (g->opt.guidance > 0 && g->submit.n_tensors < 2)
        return lw_fail(err, LW_E_PRECONDITION,
                       "--guidance needs negative embeddings, which %s has not; make it with "
                       "`latentwire encode --guidance %g --negative TEXT PROMPT`",
                       path, g->opt.guidance);
    return LW_OK;
}

static lw_status find_latents(const stage *g, const char *path, lw_tensor *ret, lw_err *err)
{
    const lw_st_entry *e = lw_st_find(g->input, LW_T_LATENTS);
    const int r = e ? e->t.rank : 0;

    if ((r != 3 && r != 4) || e->t.shape[0] < 1 || e->t.shape[r - 1] < 1 || e->t.shape[r - 2] < 1 ||
        !lw_dtype_is_float(e->t.dtype))
        return bad_tensor(g, path, LW_T_LATENTS, "floats [pictures, channels, height/8, width/8]",
                          err);
    *ret = e->t;
    if (r == 3) {
        const int64_t shape[4] = { 1, e->t.shape[0], e->t.shape[1], e->t.shape[2] };

        *ret = lw_tensor_nd(e->t.data, e->t.dtype, 4, shape);
    }
    return LW_OK;
}

static lw_status add_picture(stage *g, const char *path, lw_err *err)
{
    int64_t shape[4] = { 1, 0, 0, 3 };
    lw_tensor t;
    uint8_t *rgb;
    int w, h;

    LW_TRY(lw_png_read(path, &g->arena, &rgb, &w, &h, err));
    if (w % 16 || h % 16)
        return lw_fail(err, LW_E_SHAPE,
                       "%s is %dx%d; both sides must be multiples of 16: cut or scale it first",
                       path, w, h);
    shape[1] = h;
    shape[2] = w;
    t = lw_tensor_nd(rgb, LW_U8, 4, shape);
    g->width = w;
    g->height = h;
    return lw_msg_tensor_add(&g->submit, LW_T_IMAGE, &t, NULL, err);
}

/* ---- running ---- */

static lw_status open_run(stage *g, unsigned roles, lw_err *err)
{
    return lw_run_open(&g->opt, roles, &g->run, err);
}

static lw_status run_one(stage *g,
                         lw_status (*on_result)(void *, const lw_msg *, const lw_msg *, lw_err *),
                         lw_err *err)
{
    lw_job job = { .submit = &g->submit, .on_result = on_result, .arg = g };

    return lw_run_jobs(g->run, &job, 1, err);
}

static void start_submit(stage *g)
{
    lw_msg_init(&g->submit, LW_MSG_SUBMIT, NULL);
    lw_msg_set(&g->submit, from, g->from);
    lw_msg_set(&g->submit, to, g->to);
}

static lw_status run_encode(stage *g, const char *arg, lw_err *err)
{
    const char *prompt;
    lw_rendered template;

    LW_TRY(lw_template_apply(&g->opt, &g->arena, &template, err));
    LW_TRY(lw_output_check_file(output_of(g), err));
    LW_TRY(lw_settings_resolve(&g->opt, arg, &g->arena, &prompt, err));
    LW_TRY(lw_manifest_parse(NULL, NULL, &g->manifest, err));
    if (template.name)
        LW_TRY(lw_manifest_set_template(g->manifest, template.name, template.digest, err));
    LW_TRY(lw_manifest_set_variables(g->manifest, &g->opt.variables, err));
    start_submit(g);
    LW_TRY(lw_settings_prompt(&g->opt, prompt, &g->submit, err));
    /* A negative prompt is only encoded for guidance; one that was typed is meant to be used. */
    if (g->opt.guidance > 0 || g->opt.negative)
        lw_msg_set(&g->submit, guidance, g->opt.guidance > 0 ? g->opt.guidance : 1.0);
    LW_TRY(open_run(g, 1u << LW_ROLE_ENCODER, err));
    return run_one(g, on_tensors, err);
}

static lw_status run_denoise(stage *g, const char *path, lw_err *err)
{
    unsigned roles = 1u << LW_ROLE_DENOISER;
    uint64_t seed;

    if (g->opt.size)
        LW_TRY(lw_parse_size(g->opt.size, &g->width, &g->height, err));
    LW_TRY(lw_parse_seed(g->opt.seed, &seed, err));
    LW_TRY(lw_output_check_file(output_of(g), err));
    if (g->opt.preview)
        LW_TRY(lw_output_check_file(g->opt.preview, err));
    LW_TRY(open_input(g, path, err));
    start_submit(g);
    LW_TRY(add_embeds(g, path, err));
    if (g->opt.preview)
        roles |= 1u << LW_ROLE_DECODER;
    LW_TRY(open_run(g, roles, err));
    if (!g->opt.size) {
        g->width = lw_run_model(g->run)->width;
        g->height = lw_run_model(g->run)->height;
    }
    lw_settings_sampling(&g->opt, g->width, g->height,
                         g->opt.steps ? (int)g->opt.steps : lw_run_model(g->run)->steps, seed,
                         &g->submit);
    if (g->opt.preview)
        lw_msg_set(&g->submit, preview_every, (uint64_t)g->opt.preview_every);
    return run_one(g, on_tensors, err);
}

/* As many latents a job as have a chance to fit one answer (8 x 8 x 3 bytes a latent pixel). */
static lw_status run_decode(stage *g, const char *path, lw_err *err)
{
    lw_tensor all;
    size_t most, picture;
    int64_t n;

    g->output = (lw_output){ .pattern = g->opt.output };
    if (g->opt.json && g->opt.output && !strcmp(g->opt.output, "-"))
        return lw_fail(err, LW_E_INVALID, "--json and -o - both want standard output");
    LW_TRY(open_input(g, path, err));
    LW_TRY(find_latents(g, path, &all, err));
    n = all.shape[0];
    g->output.count = (uint64_t)n;
    LW_TRY(lw_output_check(&g->output, err));
    LW_TRY(open_run(g, 1u << LW_ROLE_DECODER, err));
    picture = (size_t)all.shape[2] * (size_t)all.shape[3] * 64 * 3;
    most = lw_run_max_tensor_bytes(g->run) / picture;
    if (most < 1)
        most = 1;
    if (most > LW_MAX_PICTURES)
        most = LW_MAX_PICTURES;
    for (int64_t i = 0; i < n; i += (int64_t)most) {
        lw_tensor some = lw_tensor_rows(&all, i, n - i < (int64_t)most ? n - i : (int64_t)most);

        start_submit(g);
        if (g->opt.tile)
            lw_msg_set(&g->submit, tile, (uint64_t)g->opt.tile);
        LW_TRY(lw_msg_tensor_add(&g->submit, LW_T_LATENTS, &some, NULL, err));
        g->first = (uint64_t)i;
        LW_TRY(run_one(g, on_image, err));
    }
    return lw_output_write(&g->output, g->kept, on_picture, g, err);
}

static lw_status run_encode_image(stage *g, const char *path, lw_err *err)
{
    LW_TRY(lw_output_check_file(output_of(g), err));
    LW_TRY(lw_manifest_parse(NULL, NULL, &g->manifest, err));
    start_submit(g);
    LW_TRY(add_picture(g, path, err));
    LW_TRY(open_run(g, 1u << LW_ROLE_DECODER, err));
    return run_one(g, on_tensors, err);
}

static lw_status run_verb(lw_cli *cli, stage *g, const lw_opt *options, int argc, char **argv,
                          lw_status (*run)(stage *, const char *, lw_err *), lw_err *err)
{
    const char *args[2];
    int n_args = 0;
    bool help = false;
    lw_status s;

    args[0] = NULL;
    LW_TRY(
        lw_opt_parse(options, argc, argv, &g->opt, args, LW_ARRAY_LEN(args), &n_args, &help, err));
    if (help)
        return LW_OK;
    cli->json = g->opt.json;
    if (n_args != 1 && !(n_args == 0 && g->opt.messages))
        return lw_fail(err, LW_E_INVALID, "%s takes one argument, %s, not %d", g->verb,
                       g->argument_is, n_args);
    lw_arena_init(&g->arena, "stage", 0);
    s = lw_report_init(&g->report, err);
    if (s == LW_OK)
        s = run(g, args[0], err);
    if (s == LW_OK)
        s = lw_report_print(&g->report, g->opt.json, g->manifest, g->run, err);
    lw_run_close(&g->run);
    lw_output_drop(&g->kept);
    json_decref(g->manifest);
    lw_report_deinit(&g->report);
    lw_st_close(&g->input);
    lw_arena_deinit(&g->arena);
    return s;
}

/* ---- the verbs ---- */

lw_status lw_cli_encode(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    stage g = { .verb = "encode",
                .argument_is = "the prompt in quotes",
                .from = LW_ARTEFACT_PROMPT,
                .to = LW_ARTEFACT_EMBEDS,
                .default_output = "prompt_embeds.safetensors",
                .opt = { .think = -1, .guidance = -1 } };

    lw_opt_describe("latentwire encode [OPTION]... [PROMPT]",
                    "Turn a prompt into embeddings and print the path of the file they are in.");
    return run_verb(cli, &g, encode_options, argc, argv, run_encode, err);
}

lw_status lw_cli_denoise(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    stage g = { .verb = "denoise",
                .argument_is = "the file with prompt_embeds",
                .from = LW_ARTEFACT_EMBEDS,
                .to = LW_ARTEFACT_LATENTS,
                .default_output = "latents.safetensors" };

    lw_opt_describe("latentwire denoise [OPTION]... EMBEDS.safetensors",
                    "Turn embeddings into latents and print the path of the file they are in.");
    return run_verb(cli, &g, denoise_options, argc, argv, run_denoise, err);
}

lw_status lw_cli_decode(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    stage g = { .verb = "decode",
                .argument_is = "the file with latents",
                .from = LW_ARTEFACT_LATENTS,
                .to = LW_ARTEFACT_IMAGE };

    lw_opt_describe("latentwire decode [OPTION]... LATENTS.safetensors",
                    "Turn latents into pictures and print their paths.");
    return run_verb(cli, &g, decode_options, argc, argv, run_decode, err);
}

lw_status lw_cli_encode_image(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    stage g = { .verb = "encode-image",
                .argument_is = "a PNG or JPEG file",
                .from = LW_ARTEFACT_IMAGE,
                .to = LW_ARTEFACT_LATENTS,
                .default_output = "latents.safetensors" };

    lw_opt_describe("latentwire encode-image [OPTION]... PICTURE",
                    "Turn a picture into latents and print the path of the file they are in.");
    return run_verb(cli, &g, encode_image_options, argc, argv, run_encode_image, err);
}
