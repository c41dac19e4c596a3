#include "tests/unit/unit.h"

#include <dirent.h>
#include <ftw.h>
#include <limits.h>
#include <unistd.h>

static char folder[PATH_MAX];

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void remove_folder(void)
{
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static const char *own_folder(void)
{
    if (folder[0] == '\0') {
        const char *base = getenv("TMPDIR");

        snprintf(folder, sizeof(folder), "%s/latentwire-unit-XXXXXX", base ? base : "/tmp");
        if (mkdtemp(folder) == NULL) {
            perror(folder);
            exit(1);
        }
        atexit(remove_folder);
    }
    return folder;
}

const char *unit_data(const char *name)
{
    static char path[PATH_MAX];
    const char *base = getenv("LW_TEST_DATA");

    if (base == NULL) {
        fprintf(stderr, "LW_TEST_DATA is not set; run through meson test\n");
        exit(1);
    }
    snprintf(path, sizeof(path), "%s/%s", base, name);
    return path;
}

const char *unit_tmp(const char *name)
{
    static char paths[8][PATH_MAX];
    static int next;
    char *path = paths[next++ % 8];

    if (snprintf(path, PATH_MAX, "%s/%s", own_folder(), name) >= PATH_MAX)
        exit(1);
    return path;
}

const char *unit_write(const char *name, const void *data, size_t n)
{
    const char *path = unit_tmp(name);
    FILE *f = fopen(path, "wb");

    if (f == NULL || fwrite(data, 1, n, f) != n || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
    return path;
}

int unit_count_files(void)
{
    DIR *dir = opendir(own_folder());
    struct dirent *d;
    int n = 0;

    while (dir && (d = readdir(dir)) != NULL)
        n += d->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return n;
}
