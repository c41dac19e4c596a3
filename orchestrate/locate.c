/*
 * Paths of programs, models and templates. The same binaries must run from a build tree and from an
 * installation, so everything is found relative to this executable and never compiled in.
 */

#include "orchestrate/locate.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/model.h"

/* Folder of the running executable. */
static lw_status exe_dir(char ret[PATH_MAX], lw_err *err)
{
    ssize_t n = readlink("/proc/self/exe", ret, PATH_MAX - 1);
    char *slash;

    if (n <= 0)
        return lw_fail(err, LW_E_IO, "cannot read /proc/self/exe; is /proc mounted?");
    ret[n] = 0;
    slash = strrchr(ret, '/');
    if (slash)
        *slash = 0;
    return LW_OK;
}

static bool is_program(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* a and b are printed into `ret` by fmt; a path that does not fit counts as absent. */
static bool join(char ret[PATH_MAX], const char *a, const char *middle, const char *b)
{
    int n = snprintf(ret, PATH_MAX, "%s%s%s", a, middle, b);

    if (n < 0 || n >= PATH_MAX)
        ret[0] = 0;
    return ret[0] != 0;
}

lw_status lw_locate_program(const char *name, char ret[PATH_MAX], lw_err *err)
{
    char dir[PATH_MAX], tree[64];

    LW_TRY(exe_dir(dir, err));
    if (join(ret, dir, "/", name) && is_program(ret))
        return LW_OK;
    snprintf(tree, sizeof(tree), "/../%s/", name);
    if (join(ret, dir, tree, name) && is_program(ret))
        return LW_OK;
    if (join(ret, dir, "/../libexec/latentwire/", name) && is_program(ret))
        return LW_OK;
    return lw_fail(
        err, LW_E_NOT_FOUND,
        "the program %s was not found in %s, %s/../%s or %s/../libexec/latentwire; build "
        "the project (ninja -C build) or install it completely",
        name, dir, dir, name, dir);
}

static bool is_model(const char *folder)
{
    char probe[PATH_MAX];

    return join(probe, folder, "/model_index.json", "") && exists(probe);
}

/* The demo model of an installation or of the source tree around the build folder. */
static bool find_demo(char ret[PATH_MAX])
{
    static const char *const places[] = { "/../share/latentwire/models/demo", "/../../models/demo",
                                          "/../../../models/demo" };
    const char *data = getenv("LATENTWIRE_DATA_DIR");
    char dir[PATH_MAX];

    if (data && data[0] && join(ret, data, "/models/demo", "") && is_model(ret))
        return true;
    if (exe_dir(dir, NULL) != LW_OK)
        return false;
    for (size_t i = 0; i < LW_ARRAY_LEN(places); i++)
        if (join(ret, dir, places[i], "") && is_model(ret))
            return true;
    return false;
}

static lw_status set_path(lw_model_choice *c, lw_role role, const char *path, lw_err *err)
{
    if (!exists(path))
        return lw_fail(err, LW_E_NOT_FOUND,
                       "%s: no such file or folder (the model of the %s); name a Hugging Face "
                       "folder with --model, or single files with --encoder, --dit and --vae",
                       path, lw_role_name(role));
    if (!join(c->path[role], path, "", ""))
        return lw_fail(err, LW_E_INVALID, "the path of the %s's model is too long",
                       lw_role_name(role));
    return LW_OK;
}

static lw_status read_defaults(const char *model, lw_model_choice *ret, lw_err *err)
{
    lw_picture_defaults own;

    LW_TRY(lw_model_defaults(model, &own, err));
    if (own.width) {
        ret->width = own.width;
        ret->height = own.height;
        ret->states_size = true;
    }
    if (own.steps)
        ret->steps = own.steps;
    return LW_OK;
}

lw_status lw_locate_model(const lw_model_options *o, unsigned roles, lw_model_choice *ret,
                          lw_err *err)
{
    static const lw_role all[] = { LW_ROLE_ENCODER, LW_ROLE_DENOISER, LW_ROLE_DECODER };
    const char *own[LW_N_ROLES] = {
        [LW_ROLE_ENCODER] = o->encoder, [LW_ROLE_DENOISER] = o->dit, [LW_ROLE_DECODER] = o->vae
    };
    char demo[PATH_MAX];
    const char *model = o->model;

    *ret = (lw_model_choice){ .width = LW_DEFAULT_SIDE,
                              .height = LW_DEFAULT_SIDE,
                              .steps = LW_DEFAULT_STEPS };
    if (!model && !o->encoder && !o->dit && !o->vae && find_demo(demo)) {
        model = demo;
        ret->is_default = true;
    }
    for (size_t i = 0; i < LW_ARRAY_LEN(all); i++) {
        const char *path = own[all[i]] ? own[all[i]] : model;

        if (!(roles & 1u << all[i]))
            continue;
        if (!path)
            return lw_fail(err, LW_E_NOT_FOUND,
                           "no model for the %s: name a Hugging Face folder of Z-Image-Turbo with "
                           "--model DIR (or LATENTWIRE_MODEL), or single files with --encoder, "
                           "--dit and --vae; the demo model (models/demo) is not here either",
                           lw_role_name(all[i]));
        LW_TRY(set_path(ret, all[i], path, err));
    }
    return model ? read_defaults(model, ret, err) : LW_OK;
}

static bool is_folder(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

lw_status lw_locate_part(const char *model, lw_role role, char ret[PATH_MAX], lw_err *err)
{
    static const char *const folders[LW_N_ROLES][4] = {
        [LW_ROLE_ENCODER] = { "text_encoder", "text_encoders", "split_files/text_encoders" },
        [LW_ROLE_DENOISER] = { "transformer", "diffusion_models", "split_files/diffusion_models" },
        [LW_ROLE_DECODER] = { "vae", "split_files/vae" },
    };

    LW_TRY(lw_model_part(model, folders[role], ret, PATH_MAX, err));
    if (strcmp(ret, model) == 0 && is_model(model))
        return lw_fail(err, LW_E_NOT_FOUND, "%s has no folder %s; download the whole model", model,
                       folders[role][0]);
    return LW_OK;
}

static uint64_t file_bytes(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

uint64_t lw_weights_file_bytes(const char *path)
{
    DIR *dir = is_folder(path) ? opendir(path) : NULL;
    uint64_t sum = 0;
    struct dirent *e;

    if (!dir)
        return file_bytes(path);
    while ((e = readdir(dir))) {
        const char *dot = strrchr(e->d_name, '.');
        char file[PATH_MAX];

        if (dot && strcmp(dot, ".safetensors") == 0 && join(file, path, "/", e->d_name))
            sum += file_bytes(file);
    }
    closedir(dir);
    return sum;
}

/* A folder of data that comes with the project: in LATENTWIRE_DATA_DIR, of the installation, or of
 * the source tree around the build folder, where it may lie elsewhere. */
static lw_status locate_folder(const char *name, const char *in_tree, char ret[PATH_MAX],
                               bool *ret_found, lw_err *err)
{
    const char *data = getenv("LATENTWIRE_DATA_DIR");
    const struct {
        const char *before, *name;
    } places[] = { { "/../share/latentwire/", name },
                   { "/../../", in_tree },
                   { "/../../../", in_tree } };
    char dir[PATH_MAX], real[PATH_MAX];

    *ret_found = true;
    if (data && data[0] &&
        ((join(ret, data, "/", name) && is_folder(ret)) ||
         (join(ret, data, "/", in_tree) && is_folder(ret))))
        return LW_OK;
    LW_TRY(exe_dir(dir, err));
    for (size_t i = 0; i < LW_ARRAY_LEN(places); i++)
        if (join(ret, dir, places[i].before, places[i].name) && is_folder(ret) &&
            realpath(ret, real))
            return join(ret, real, "", "") ? LW_OK : LW_E_INVALID;
    *ret_found = false;
    return LW_OK;
}

lw_status lw_locate_templates(const char *named, char ret[PATH_MAX], lw_err *err)
{
    bool found;

    if (named) {
        if (!join(ret, named, "", "") || !is_folder(ret))
            return lw_fail(err, LW_E_NOT_FOUND, "%s: no such folder of templates", named);
        return LW_OK;
    }
    LW_TRY(locate_folder("templates", "templates", ret, &found, err));
    if (found)
        return LW_OK;
    return lw_fail(err, LW_E_NOT_FOUND,
                   "there is no folder of templates here; name one with --templates DIR (or "
                   "LATENTWIRE_TEMPLATES)");
}

lw_status lw_locate_experiments(char ret[PATH_MAX], lw_err *err)
{
    bool found;

    LW_TRY(locate_folder("experiments", "orchestrate/experiment", ret, &found, err));
    if (found)
        return LW_OK;
    return lw_fail(err, LW_E_NOT_FOUND,
                   "the project's experiments are not here; LATENTWIRE_DATA_DIR names the folder "
                   "that has experiments/ in it");
}
