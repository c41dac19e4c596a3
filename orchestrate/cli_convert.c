/*
 * `latentwire convert`: a model folder written again with the large layers of text encoder and
 * denoiser in 8 bits. The services do the work, each for the part it knows; the rest is copied.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file.h"
#include "orchestrate/cli.h"
#include "orchestrate/locate.h"
#include "orchestrate/settings.h"

#define MAX_DEPTH  4 /* of folders inside a model */
#define COPY_BYTES (1u << 20)

/* Folders whose weights have another form, by who knows it. */
static const struct {
    const char *folder, *program, *file;
} parts[] = {
    { "text_encoder", "encoder-svc", "model.safetensors" },
    { "text_encoders", "encoder-svc", "model.safetensors" },
    { "transformer", "dit-svc", "diffusion_pytorch_model.safetensors" },
    { "diffusion_models", "dit-svc", "diffusion_pytorch_model.safetensors" },
};

typedef struct options {
    const char *precision;
    int64_t threads;
    bool quiet;
} options;

static const lw_opt table[] = { { .name = "precision",
                                  .kind = LW_OPT_CHOICE,
                                  .offset = offsetof(options, precision),
                                  .dflt = "int8",
                                  .choices = "int8",
                                  .value = "P",
                                  .help = "form of the large layers" },
                                { .name = "threads",
                                  .kind = LW_OPT_INT,
                                  .offset = offsetof(options, threads),
                                  .dflt = "0",
                                  .min = 0,
                                  .max = 1024,
                                  .value = "N",
                                  .help = "threads; 0 = all cores" },
                                { .name = "quiet",
                                  .letter = 'q',
                                  .kind = LW_OPT_FLAG,
                                  .offset = offsetof(options, quiet),
                                  .help = "print nothing but errors" },
                                LW_OPT_END };

typedef struct convert {
    options o;
    uint64_t bytes_in, bytes_out; /* of weights that were converted */
    int n_converted;
} convert;

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);

    return n >= m && strcmp(s + n - m, tail) == 0;
}

static lw_status join(char ret[PATH_MAX], const char *folder, const char *name, lw_err *err)
{
    if (snprintf(ret, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
        return lw_fail(err, LW_E_INVALID, "%s/%s: the path is too long", folder, name);
    return LW_OK;
}

static lw_status copy_file(const char *from, const char *to, lw_err *err)
{
    lw_outfile out = { 0 };
    char *buf = malloc(COPY_BYTES);
    int fd = buf ? open(from, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = 0;
    lw_status s;

    if (fd < 0) {
        free(buf);
        return lw_fail_errno(err, buf ? errno : ENOMEM, from);
    }
    s = lw_outfile_open(&out, to, err);
    while (s == LW_OK && (n = read(fd, buf, COPY_BYTES)) != 0) {
        if (n > 0)
            lw_outfile_write(&out, buf, (size_t)n);
        else if (errno != EINTR)
            s = lw_fail_errno(err, errno, from);
    }
    if (s == LW_OK)
        s = lw_outfile_commit(&out, err);
    else
        lw_outfile_abort(&out);
    close(fd);
    free(buf);
    return s;
}

static lw_status status_of_exit(int code)
{
    for (lw_status s = LW_OK; s < LW_N_STATUS; s++)
        if (s != LW_OK && lw_status_exit(s) == code)
            return s;
    return LW_E_INTERNAL;
}

/* Run a service's conversion of `from` and wait for it; it says itself what goes wrong. */
static lw_status run_service(const convert *c, const char *program, const char *from,
                             const char *to, lw_err *err)
{
    char path[PATH_MAX], model[PATH_MAX + 16], file[PATH_MAX + 16], threads[32];
    char *level = c->o.quiet ? (char *)"--log-level=warn" : (char *)"--log-level=info";
    char *argv[] = { path, model, file, threads, (char *)"--precision=int8", level, NULL };
    int wait_status = 0, failed;
    pid_t pid;

    LW_TRY(lw_locate_program(program, path, err));
    snprintf(model, sizeof(model), "--model=%s", from);
    snprintf(file, sizeof(file), "--convert=%s", to);
    snprintf(threads, sizeof(threads), "--threads=%lld", (long long)c->o.threads);
    failed = posix_spawn(&pid, path, NULL, NULL, argv, environ);
    if (failed)
        return lw_fail_errno(err, failed, path);
    while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(wait_status))
        return lw_fail(err, LW_E_INTERNAL, "%s was killed by signal %d", program,
                       WTERMSIG(wait_status));
    if (WEXITSTATUS(wait_status) != 0)
        return lw_fail(err, status_of_exit(WEXITSTATUS(wait_status)),
                       "%s could not convert %s; see what it said above", program, from);
    return LW_OK;
}

static lw_status convert_part(convert *c, size_t i, const char *from, const char *to, lw_err *err)
{
    char file[PATH_MAX];
    uint64_t before = lw_weights_file_bytes(from), after;

    LW_TRY(join(file, to, parts[i].file, err));
    LW_TRY(run_service(c, parts[i].program, from, file, err));
    after = lw_weights_file_bytes(to);
    c->bytes_in += before;
    c->bytes_out += after;
    c->n_converted++;
    if (!c->o.quiet)
        printf("%-16s %8.1f MB -> %8.1f MB\n", parts[i].folder, (double)before / 1e6,
               (double)after / 1e6);
    return LW_OK;
}

static lw_status copy_folder(convert *c, const char *from, const char *to, int depth,
                             bool but_weights, lw_err *err);

/* One entry of a folder. Links are followed: the hub's cache consists of them. */
static lw_status copy_entry(convert *c, const char *from, const char *to, const char *name,
                            int depth, bool but_weights, lw_err *err)
{
    char source[PATH_MAX], target[PATH_MAX];
    struct stat st;
    size_t part = 0;

    if (but_weights && (ends_with(name, ".safetensors") || ends_with(name, ".index.json")))
        return LW_OK;
    LW_TRY(join(source, from, name, err));
    LW_TRY(join(target, to, name, err));
    if (stat(source, &st) != 0)
        return lw_fail_errno(err, errno, source);
    if (S_ISREG(st.st_mode))
        return copy_file(source, target, err);
    if (!S_ISDIR(st.st_mode))
        return LW_OK;
    if (depth == MAX_DEPTH)
        return lw_fail(err, LW_E_INVALID, "%s: more than %d folders deep; is it a model?", source,
                       MAX_DEPTH);
    while (depth == 0 && part < LW_ARRAY_LEN(parts) && strcmp(name, parts[part].folder) != 0)
        part++;
    if (depth > 0 || part == LW_ARRAY_LEN(parts))
        return copy_folder(c, source, target, depth + 1, false, err);
    LW_TRY(copy_folder(c, source, target, depth + 1, true, err));
    return convert_part(c, part, source, target, err);
}

static lw_status copy_folder(convert *c, const char *from, const char *to, int depth,
                             bool but_weights, lw_err *err)
{
    lw_status s = LW_OK;
    struct dirent *d;
    DIR *dir = opendir(from);

    if (!dir)
        return lw_fail_errno(err, errno, from);
    if (mkdir(to, 0777) != 0)
        s = lw_fail_errno(err, errno, to);
    while (s == LW_OK && (d = readdir(dir)) != NULL)
        if (d->d_name[0] != '.')
            s = copy_entry(c, from, to, d->d_name, depth, but_weights, err);
    closedir(dir);
    return s;
}

/* That something will be converted is known before gigabytes are copied. */
static lw_status check_model(const char *model, lw_err *err)
{
    char path[PATH_MAX];
    struct stat st;

    if (stat(model, &st) != 0)
        return lw_fail_errno(err, errno, model);
    for (size_t i = 0; S_ISDIR(st.st_mode) && i < LW_ARRAY_LEN(parts); i++) {
        LW_TRY(join(path, model, parts[i].folder, err));
        if (access(path, F_OK) == 0)
            return LW_OK;
    }
    return lw_fail(err, LW_E_INVALID,
                   "%s: expected a model folder with text_encoder/ or transformer/ in it; a single "
                   "file is converted by `encoder-svc` or `dit-svc` with --convert",
                   model);
}

lw_status lw_cli_convert(lw_cli *cli, int argc, char **argv, lw_err *err)
{
    convert c = { 0 };
    const char *args[2];
    int n = 0;
    bool help = false;

    (void)cli;
    lw_opt_describe("latentwire convert MODEL OUT [OPTION]...",
                    "Write the model folder MODEL again as OUT, with the large layers of text "
                    "encoder and denoiser in 8 bits: half the size, mapped as it is, and several "
                    "times faster on a CPU.");
    LW_TRY(lw_opt_parse(table, argc, argv, &c.o, args, LW_ARRAY_LEN(args), &n, &help, err));
    if (help)
        return LW_OK;
    if (n != 2)
        return lw_fail(err, LW_E_INVALID, "convert takes MODEL and OUT");
    LW_TRY(check_model(args[0], err));
    if (access(args[1], F_OK) == 0)
        return lw_fail(err, LW_E_INVALID, "%s exists; name a folder that does not", args[1]);
    LW_TRY(copy_folder(&c, args[0], args[1], 0, false, err));
    if (!c.o.quiet)
        printf("%s: %.1f of %.1f MB\n", args[1], (double)c.bytes_out / 1e6,
               (double)c.bytes_in / 1e6);
    return LW_OK;
}
