/* On what machine, and with which build, something was measured. */

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "lw_version.h"
#include "orchestrate/bench/bench.h"

/* "AMD EPYC 9B14"; "" where the system does not say. */
static const char *cpu_name(char *buf, size_t size)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];

    buf[0] = 0;
    while (f && !buf[0] && fgets(line, sizeof(line), f)) {
        const char *colon = strchr(line, ':');

        line[strcspn(line, "\n")] = 0;
        if (colon && !strncmp(line, "model name", strlen("model name")))
            snprintf(buf, size, "%s", colon + 1 + strspn(colon + 1, " "));
    }
    if (f)
        fclose(f);
    return buf;
}

json_t *lw_bench_about(const char *what)
{
    char cpu[256];
    cpu_set_t set;
    const int cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return json_pack("{s:s, s:s, s:s, s:s, s:i}", "bench", what, "version", LW_VERSION, "build",
                     LW_BUILD, "cpu", cpu_name(cpu, sizeof(cpu)), "cores", cores);
}

void lw_bench_print_about(const json_t *about)
{
    const char *cpu = json_string_value(json_object_get(about, "cpu"));
    const int cores = (int)json_integer_value(json_object_get(about, "cores"));

    printf("latentwire %s (%s), %s%s%d core%s",
           json_string_value(json_object_get(about, "version")),
           json_string_value(json_object_get(about, "build")), cpu, cpu[0] ? ", " : "", cores,
           cores == 1 ? "" : "s");
}
