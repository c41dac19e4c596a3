/*
 * Runs a fuzz target over saved inputs: the corpus as an ordinary test, and the way to repeat a
 * crash that a fuzzer found. Arguments are files, or folders of which every file is taken. Each
 * input is handed over in memory of its exact size, so that a sanitizer sees a read beside it.
 */

#include <dirent.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int n_inputs;

static void run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    uint8_t *data;
    size_t size;

    if (f == NULL || fstat(fileno(f), &st) != 0) {
        perror(path);
        exit(1);
    }
    size = (size_t)st.st_size;
    data = malloc(size ? size : 1);
    if (data == NULL || fread(data, 1, size, f) != size) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(1);
    }
    fclose(f);
    printf("%s (%zu bytes)\n", path, size);
    fflush(stdout); /* the last line before a crash names the input */
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    n_inputs++;
}

static int is_visible(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static void run_path(const char *path)
{
    struct dirent **list;
    struct stat st;
    int n;

    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        run_file(path);
        return;
    }
    n = scandir(path, &list, is_visible, alphasort);
    if (n < 0) {
        perror(path);
        exit(1);
    }
    for (int i = 0; i < n; i++) {
        char name[PATH_MAX];

        snprintf(name, sizeof(name), "%s/%s", path, list[i]->d_name);
        run_file(name);
        free(list[i]);
    }
    free(list);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        run_path(argv[i]);
    printf("%d inputs\n", n_inputs);
    if (n_inputs == 0) {
        fprintf(stderr, "no inputs: a corpus that is not there proves nothing\n");
        return 1;
    }
    return 0;
}
