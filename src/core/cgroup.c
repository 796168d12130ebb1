#include "core/cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* First line of a small file of the kernel's. */
static bool read_line(const char *path, char *line, size_t room)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    bool found = fgets(line, (int)room, f) != NULL;
    fclose(f);
    return found;
}

/* One file's limit; 0 for none ("max", -1, absent). The two versions write a quota differently. */
static double memory_v2(const char *group)
{
    char path[1200], line[128];
    snprintf(path, sizeof path, "%s/memory.max", group);
    return read_line(path, line, sizeof line) ? strtod(line, NULL) : 0;
}

static double memory_v1(const char *group)
{
    char path[1200], line[128];
    snprintf(path, sizeof path, "%s/memory.limit_in_bytes", group);
    double bytes = read_line(path, line, sizeof line) ? strtod(line, NULL) : 0;
    return bytes < 0x1p60 ? bytes : 0; /* unlimited is written as a huge number */
}

static double cpu_v2(const char *group)
{
    char path[1200], line[128];
    double quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", group);
    if (!read_line(path, line, sizeof line) || sscanf(line, "%lf %lf", &quota, &period) != 2 || period <= 0)
        return 0;
    return quota / period;
}

static double cpu_v1(const char *group)
{
    char path[1200], line[128];
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", group);
    double quota = read_line(path, line, sizeof line) ? strtod(line, NULL) : 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", group);
    double period = read_line(path, line, sizeof line) ? strtod(line, NULL) : 0;
    return quota > 0 && period > 0 ? quota / period : 0;
}

/* The path of this process's group under `controller` ("" for version 2), without a trailing '/'. */
static bool own_group(const char *controller, char *path, size_t room)
{
    FILE *f = fopen("/proc/self/cgroup", "r");
    if (!f)
        return false;
    char line[1024];
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        char *names = strchr(line, ':');
        char *group = names ? strchr(names + 1, ':') : NULL;
        if (!group)
            continue;
        names++;
        *group++ = '\0';
        if (*controller == '\0') {
            found = *names == '\0';
        } else {
            char *rest = names;
            for (char *name; !found && (name = strsep(&rest, ",")) != NULL;)
                found = strcmp(name, controller) == 0;
        }
        if (found) {
            group[strcspn(group, "\n")] = '\0';
            snprintf(path, room, "%s", strcmp(group, "/") == 0 ? "" : group);
        }
    }
    fclose(f);
    return found;
}

/* Walks from the process's group up to the root of the hierarchy. Inside a container the path may not
 * exist below the mount point; then only the root is seen, which is the container's own group. */
static double smallest(const char *mount, const char *controller, double (*limit)(const char *group))
{
    char group[1024], path[1100];
    double least = 0;
    if (!own_group(controller, group, sizeof group))
        return 0;
    for (;;) {
        snprintf(path, sizeof path, "%s%s", mount, group);
        double value = limit(path);
        if (value > 0 && (least == 0 || value < least))
            least = value;
        char *slash = strrchr(group, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

double mz_cgroup_memory_limit(void)
{
    double v2 = smallest("/sys/fs/cgroup", "", memory_v2);
    return v2 > 0 ? v2 : smallest("/sys/fs/cgroup/memory", "memory", memory_v1);
}

double mz_cgroup_cpu_limit(void)
{
    double v2 = smallest("/sys/fs/cgroup", "", cpu_v2);
    return v2 > 0 ? v2 : smallest("/sys/fs/cgroup/cpu", "cpu", cpu_v1);
}
