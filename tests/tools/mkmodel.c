/*
 * latentwire-mkmodel: random models of the Z-Image architecture.
 *
 *     latentwire-mkmodel tiny OUTDIR    a few MB; a picture in a second, for tests
 *     latentwire-mkmodel full OUTDIR    the names, shapes and sizes of Z-Image-Turbo, for measuring
 *
 * The layout is a Hugging Face model folder, or ComfyUI's three single files. The same seed gives
 * the same model in either layout. Configurations and shard indices of the full model are the
 * published files byte for byte.
 */
#include "tests/tools/mkmodel.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/opt.h"

#define PATH_BYTES 4096
#define GB         INT64_C(1000000000)

typedef struct options {
    const char *layout, *parts, *dtype, *tokenizer;
    int64_t seed, threads;
    bool sparse;
} options;

static const lw_opt table[] = {
    { .name = "layout",
      .kind = LW_OPT_CHOICE,
      .offset = offsetof(options, layout),
      .dflt = "hf",
      .choices = "hf|comfy",
      .help = "Hugging Face model folder, or ComfyUI's three files" },
    { .name = "parts",
      .kind = LW_OPT_STR,
      .offset = offsetof(options, parts),
      .dflt = "encoder,dit,vae",
      .value = "LIST",
      .help = "which models to write" },
    { .name = "dtype",
      .kind = LW_OPT_CHOICE,
      .offset = offsetof(options, dtype),
      .choices = "bf16|f32",
      .help = "of the transformer in the hf layout (default: full bf16, tiny f32)" },
    { .name = "seed",
      .kind = LW_OPT_INT,
      .offset = offsetof(options, seed),
      .dflt = "1",
      .min = 0,
      .max = 4294967295.0,
      .help = "of the weights" },
    { .name = "tokenizer",
      .kind = LW_OPT_STR,
      .offset = offsetof(options, tokenizer),
      .dflt = MK_TOKENIZER_DIR,
      .value = "DIR",
      .help = "tokenizer files to copy into an hf folder" },
    { .name = "sparse",
      .kind = LW_OPT_FLAG,
      .offset = offsetof(options, sparse),
      .help = "real names and sizes without data: files of zeros that take no disk" },
    { .name = "threads",
      .kind = LW_OPT_INT,
      .offset = offsetof(options, threads),
      .dflt = "0",
      .min = 0,
      .max = 1024,
      .help = "0 = all cores" },
    LW_OPT_END,
};

/** Dimensions of a whole model, and how its files are typed and cut. */
typedef struct model {
    mk_text text;
    mk_dit dit;
    mk_vae vae;
    lw_dtype dit_dtype;
} model;

static const model tiny = {
    .text = { .vocab = 151936,
              .hidden = 64,
              .layers = 3,
              .heads = 4,
              .kv_heads = 2,
              .head_dim = 16,
              .ffn = 160 },
    .dit = { .dim = 96, .layers = 2, .refiners = 1, .heads = 6, .cap_dim = 64 },
    /* 32 groups everywhere, which a reader assumes for a single file without configuration. */
    .vae = { .channels = { 32, 32, 32, 64 }, .layers = 1, .groups = 32 },
    .dit_dtype = LW_F32, /* as the published folder has it */
};

static const model full = {
    .text = { .vocab = 151936,
              .hidden = 2560,
              .layers = 36,
              .heads = 32,
              .kv_heads = 8,
              .head_dim = 128,
              .ffn = 9728 },
    .dit = { .dim = 3840, .layers = 30, .refiners = 2, .heads = 30, .cap_dim = 2560 },
    .vae = { .channels = { 128, 256, 512, 512 }, .layers = 2, .groups = 32 },
    .dit_dtype = LW_BF16,
};

/* ---- small files ----------------------------------------------------------------------------- */

static lw_status join(char ret[PATH_BYTES], const char *dir, const char *name, lw_err *err)
{
    int n = snprintf(ret, PATH_BYTES, "%s/%s", dir, name);

    if (n < 0 || n >= PATH_BYTES)
        return lw_fail(err, LW_E_INVALID, "%.200s...: path too long", dir);
    return LW_OK;
}

static lw_status make_dir(char ret[PATH_BYTES], const char *out, const char *name, lw_err *err)
{
    LW_TRY(join(ret, out, name, err));
    if (mkdir(ret, 0755) != 0 && errno != EEXIST)
        return lw_fail_errno(err, errno, ret);
    return LW_OK;
}

static LW_PRINTF(4, 5) lw_status
    write_text(const char *dir, const char *name, lw_err *err, const char *fmt, ...)
{
    char path[PATH_BYTES], text[4096];
    lw_outfile o = { 0 };
    va_list ap;
    int n;

    LW_TRY(join(path, dir, name, err));
    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(text))
        return lw_fail(err, LW_E_INTERNAL, "%s: text does not fit", path);
    LW_TRY(lw_outfile_open(&o, path, err));
    lw_outfile_write(&o, text, (size_t)n);
    return lw_outfile_commit(&o, err);
}

static lw_status copy_file(const char *from_dir, const char *to_dir, const char *name, lw_err *err)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    lw_outfile o = { 0 };
    char *data = NULL;
    size_t n;
    lw_status s;

    LW_TRY(join(from, from_dir, name, err));
    LW_TRY(join(to, to_dir, name, err));
    LW_TRY(lw_file_read(from, 64u << 20, &data, &n, err));
    s = lw_outfile_open(&o, to, err);
    if (s == LW_OK) {
        lw_outfile_write(&o, data, n);
        s = lw_outfile_commit(&o, err);
    }
    free(data);
    return s;
}

static lw_status write_tokenizer(const char *out, const char *from, lw_err *err)
{
    static const char *const files[] = { "vocab.json", "merges.txt", "tokenizer_config.json" };
    char dir[PATH_BYTES];

    LW_TRY(make_dir(dir, out, "tokenizer", err));
    for (size_t i = 0; i < LW_ARRAY_LEN(files); i++)
        LW_TRY(copy_file(from, dir, files[i], err));
    return LW_OK;
}

/* ---- configurations: keys sorted, indent 2, as the libraries write them ------------------------
 */

static lw_status write_index_files(const char *out, const model *m, lw_err *err)
{
    /* The tiny model's own defaults, which the command line reads: it is slow work for nothing to
     * draw its noise at the published size. */
    const char *own = m == &tiny ? "  \"latentwire\": {\n    \"size\": [256, 256],\n"
                                   "    \"steps\": 8\n  },\n"
                                 : "";
    char dir[PATH_BYTES];

    LW_TRY(write_text(out, "model_index.json", err,
                      "{\n"
                      "  \"_class_name\": \"ZImagePipeline\",\n"
                      "  \"_diffusers_version\": \"0.36.0.dev0\",\n"
                      "%s"
                      "  \"scheduler\": [\n    \"diffusers\",\n"
                      "    \"FlowMatchEulerDiscreteScheduler\"\n  ],\n"
                      "  \"text_encoder\": [\n    \"transformers\",\n    \"Qwen3Model\"\n  ],\n"
                      "  \"tokenizer\": [\n    \"transformers\",\n    \"Qwen2Tokenizer\"\n  ],\n"
                      "  \"transformer\": [\n    \"diffusers\",\n"
                      "    \"ZImageTransformer2DModel\"\n  ],\n"
                      "  \"vae\": [\n    \"diffusers\",\n    \"AutoencoderKL\"\n  ]\n"
                      "}\n",
                      own));
    LW_TRY(make_dir(dir, out, "scheduler", err));
    return write_text(dir, "scheduler_config.json", err,
                      "{\n"
                      "  \"_class_name\": \"FlowMatchEulerDiscreteScheduler\",\n"
                      "  \"_diffusers_version\": \"0.36.0.dev0\",\n"
                      "  \"num_train_timesteps\": 1000,\n"
                      "  \"use_dynamic_shifting\": false,\n"
                      "  \"shift\": 3.0\n"
                      "}");
}

static lw_status write_text_config(const char *dir, const mk_text *m, lw_err *err)
{
    return write_text(dir, "config.json", err,
                      "{\n"
                      "  \"architectures\": [\n    \"Qwen3ForCausalLM\"\n  ],\n"
                      "  \"attention_bias\": false,\n"
                      "  \"attention_dropout\": 0.0,\n"
                      "  \"bos_token_id\": 151643,\n"
                      "  \"eos_token_id\": 151645,\n"
                      "  \"head_dim\": %" PRId64 ",\n"
                      "  \"hidden_act\": \"silu\",\n"
                      "  \"hidden_size\": %" PRId64 ",\n"
                      "  \"initializer_range\": 0.02,\n"
                      "  \"intermediate_size\": %" PRId64 ",\n"
                      "  \"max_position_embeddings\": 40960,\n"
                      "  \"max_window_layers\": %" PRId64 ",\n"
                      "  \"model_type\": \"qwen3\",\n"
                      "  \"num_attention_heads\": %" PRId64 ",\n"
                      "  \"num_hidden_layers\": %" PRId64 ",\n"
                      "  \"num_key_value_heads\": %" PRId64 ",\n"
                      "  \"rms_norm_eps\": 1e-06,\n"
                      "  \"rope_scaling\": null,\n"
                      "  \"rope_theta\": 1000000,\n"
                      "  \"sliding_window\": null,\n"
                      "  \"tie_word_embeddings\": true,\n"
                      "  \"torch_dtype\": \"bfloat16\",\n"
                      "  \"transformers_version\": \"4.51.0\",\n"
                      "  \"use_cache\": true,\n"
                      "  \"use_sliding_window\": false,\n"
                      "  \"vocab_size\": %" PRId64 "\n"
                      "}",
                      m->head_dim, m->hidden, m->ffn, m->layers, m->heads, m->layers, m->kv_heads,
                      m->vocab);
}

static lw_status write_dit_config(const char *dir, const mk_dit *m, lw_err *err)
{
    int64_t head = m->dim / m->heads;

    return write_text(dir, "config.json", err,
                      "{\n"
                      "  \"_class_name\": \"ZImageTransformer2DModel\",\n"
                      "  \"_diffusers_version\": \"0.36.0.dev0\",\n"
                      "  \"all_f_patch_size\": [\n    1\n  ],\n"
                      "  \"all_patch_size\": [\n    2\n  ],\n"
                      "  \"axes_dims\": [\n    %" PRId64 ",\n    %" PRId64 ",\n    %" PRId64
                      "\n  ],\n"
                      "  \"axes_lens\": [\n    1536,\n    512,\n    512\n  ],\n"
                      "  \"cap_feat_dim\": %" PRId64 ",\n"
                      "  \"dim\": %" PRId64 ",\n"
                      "  \"in_channels\": %d,\n"
                      "  \"n_heads\": %" PRId64 ",\n"
                      "  \"n_kv_heads\": %" PRId64 ",\n"
                      "  \"n_layers\": %" PRId64 ",\n"
                      "  \"n_refiner_layers\": %" PRId64 ",\n"
                      "  \"norm_eps\": 1e-05,\n"
                      "  \"qk_norm\": true,\n"
                      "  \"rope_theta\": 256.0,\n"
                      "  \"t_scale\": 1000.0\n"
                      "}\n",
                      head / 4, head * 3 / 8, head * 3 / 8, m->cap_dim, m->dim, MK_LATENT, m->heads,
                      m->heads, m->layers, m->refiners);
}

static lw_status write_vae_config(const char *dir, const mk_vae *m, lw_err *err)
{
#define FOUR(s) "[\n    \"" s "\",\n    \"" s "\",\n    \"" s "\",\n    \"" s "\"\n  ]"
    return write_text(
        dir, "config.json", err,
        "{\n"
        "  \"_class_name\": \"AutoencoderKL\",\n"
        "  \"_diffusers_version\": \"0.36.0.dev0\",\n"
        "  \"_name_or_path\": \"flux-dev\",\n"
        "  \"act_fn\": \"silu\",\n"
        "  \"block_out_channels\": [\n    %" PRId64 ",\n    %" PRId64 ",\n    %" PRId64
        ",\n    %" PRId64 "\n  ],\n"
        "  \"down_block_types\": " FOUR(
            "DownEncoderBlock2D") ",\n"
                                  "  \"force_upcast\": true,\n"
                                  "  \"in_channels\": 3,\n"
                                  "  \"latent_channels\": %d,\n"
                                  "  \"latents_mean\": null,\n"
                                  "  \"latents_std\": null,\n"
                                  "  \"layers_per_block\": %" PRId64 ",\n"
                                  "  \"mid_block_add_attention\": true,\n"
                                  "  \"norm_num_groups\": %" PRId64 ",\n"
                                  "  \"out_channels\": 3,\n"
                                  "  \"sample_size\": 1024,\n"
                                  "  \"scaling_factor\": 0.3611,\n"
                                  "  \"shift_factor\": 0.1159,\n"
                                  "  \"up_block_types\": " FOUR(
                                      "UpDecoderBlock2D") ",\n"
                                                          "  \"use_post_quant_conv\": false,\n"
                                                          "  \"use_quant_conv\": false\n"
                                                          "}\n",
        m->channels[0], m->channels[1], m->channels[2], m->channels[3], MK_LATENT, m->layers,
        m->groups);
#undef FOUR
}

/* ---- models ---------------------------------------------------------------------------------- */

enum { ENCODER = 1, DIT = 2, VAE = 4 };

/** --parts as a bit set. */
static lw_status parse_parts(const char *list, unsigned *ret, lw_err *err)
{
    static const struct {
        const char *name;
        unsigned bit;
    } known[] = { { "encoder", ENCODER }, { "dit", DIT }, { "vae", VAE } };
    unsigned parts = 0;

    for (const char *p = list; *p != '\0';) {
        size_t n = strcspn(p, ","), i = 0;

        while (i < LW_ARRAY_LEN(known) &&
               (strlen(known[i].name) != n || memcmp(known[i].name, p, n) != 0))
            i++;
        if (i == LW_ARRAY_LEN(known))
            return lw_fail(err, LW_E_INVALID,
                           "--parts %s: expected encoder, dit, vae, with commas between", list);
        parts |= known[i].bit;
        p += n + (p[n] == ',');
    }
    *ret = parts;
    return LW_OK;
}

static lw_status write_list(mk_list *l, bool comfy, const char *dir, const char *stem,
                            lw_dtype dtype, int64_t max_bytes, const mk_params *p, lw_err *err)
{
    char name[64], path[PATH_BYTES];
    lw_status s;

    snprintf(name, sizeof(name), "%s.safetensors", stem);
    s = join(path, dir, name, err);
    if (s == LW_OK && l->failed)
        s = lw_fail(err, LW_E_NOMEM, "no memory for the list of tensors");
    if (s == LW_OK && comfy)
        s = mk_write_file(path, l->v, l->n, dtype, false, p, err);
    else if (s == LW_OK)
        s = mk_write_shards(dir, stem, l, dtype, max_bytes, p, err);
    free(l->v);
    return s;
}

static lw_status write_encoder(const model *m, bool comfy, const char *out, const mk_params *p,
                               lw_err *err)
{
    char dir[PATH_BYTES];
    mk_list l = { 0 };

    LW_TRY(make_dir(dir, out, comfy ? "text_encoders" : "text_encoder", err));
    if (!comfy)
        LW_TRY(write_text_config(dir, &m->text, err));
    mk_list_text(&l, &m->text);
    return write_list(&l, comfy, dir, comfy ? "qwen_3_4b" : "model", LW_BF16, 4 * GB, p, err);
}

static lw_status write_dit(const model *m, bool comfy, lw_dtype dtype, const char *out,
                           const mk_params *p, lw_err *err)
{
    char dir[PATH_BYTES];
    mk_list l = { 0 };

    LW_TRY(make_dir(dir, out, comfy ? "diffusion_models" : "transformer", err));
    if (!comfy)
        LW_TRY(write_dit_config(dir, &m->dit, err));
    mk_list_dit(&l, &m->dit, comfy);
    return write_list(&l, comfy, dir, comfy ? "z_image_turbo_bf16" : "diffusion_pytorch_model",
                      comfy ? LW_BF16 : dtype, 10 * GB, p, err);
}

static lw_status write_vae(const model *m, bool comfy, const char *out, const mk_params *p,
                           lw_err *err)
{
    char dir[PATH_BYTES];
    mk_list l = { 0 };

    LW_TRY(make_dir(dir, out, "vae", err));
    if (!comfy)
        LW_TRY(write_vae_config(dir, &m->vae, err));
    mk_list_vae(&l, &m->vae, comfy);
    /* Published as F32 in the one layout and BF16 in the other. */
    return write_list(&l, comfy, dir, comfy ? "ae" : "diffusion_pytorch_model",
                      comfy ? LW_F32 : LW_BF16, 10 * GB, p, err);
}

static lw_status write_model(const model *m, const options *o, const char *out, lw_pool *pool,
                             lw_err *err)
{
    mk_params p = { .seed = (uint64_t)o->seed, .pool = pool, .sparse = o->sparse };
    bool comfy = strcmp(o->layout, "comfy") == 0;
    lw_dtype dtype = o->dtype == NULL               ? m->dit_dtype
                     : strcmp(o->dtype, "f32") == 0 ? LW_F32
                                                    : LW_BF16;

    unsigned parts = 0;

    LW_TRY(parse_parts(o->parts, &parts, err));
    if (mkdir(out, 0755) != 0 && errno != EEXIST)
        return lw_fail_errno(err, errno, out);
    if (!comfy)
        LW_TRY(write_index_files(out, m, err));
    if (!comfy && (parts & ENCODER))
        LW_TRY(write_tokenizer(out, o->tokenizer, err));
    if (parts & ENCODER)
        LW_TRY(write_encoder(m, comfy, out, &p, err));
    if (parts & DIT)
        LW_TRY(write_dit(m, comfy, dtype, out, &p, err));
    if (parts & VAE)
        LW_TRY(write_vae(m, comfy, out, &p, err));
    return LW_OK;
}

static lw_status run(int argc, char **argv, lw_err *err)
{
    const char *args[2];
    options o = { 0 };
    lw_pool *pool = NULL;
    bool help = false;
    int n_args = 0;
    lw_status s;

    lw_opt_describe("latentwire-mkmodel tiny|full OUTDIR [OPTIONS]",
                    "Writes a random model of the Z-Image architecture.");
    LW_TRY(lw_opt_parse(table, argc, argv, &o, args, 2, &n_args, &help, err));
    if (help)
        return LW_OK;
    if (n_args != 2 || (strcmp(args[0], "tiny") != 0 && strcmp(args[0], "full") != 0))
        return lw_fail(err, LW_E_INVALID, "expected: tiny OUTDIR, or full OUTDIR (see --help)");
    LW_TRY(lw_pool_create((int)o.threads, &pool, err));
    s = write_model(strcmp(args[0], "tiny") == 0 ? &tiny : &full, &o, args[1], pool, err);
    lw_pool_destroy(&pool);
    return s;
}

int main(int argc, char **argv)
{
    lw_err err = { 0 };
    lw_status s = run(argc, argv, &err);

    if (s != LW_OK)
        fprintf(stderr, "latentwire-mkmodel: %s\n", err.text);
    return lw_status_exit(s);
}
