/* env: versions of what the program was built with and runs on. */
#include <config.h>
#include <hdf5.h>
#include <jansson.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <sys/utsname.h>

#include "cli/cli.h"
#include "comm/transport.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/threads.h"
#include "device/device.h"
#ifdef HAVE_HWLOC
#include <hwloc.h>
#endif
#ifdef HAVE_NCCL
#include "comm/nccl.h"
#endif

#define N(table) ((int)(sizeof(table) / sizeof((table)[0])))

typedef struct env_target {
    mz_cli_common common;
    bool json;
} env_target;

static const mz_option what[] = {
    MZ_SWITCH("json", "off", offsetof(env_target, json), "print a JSON object"),
};
static const mz_option_group what_group = {"Output", what, N(what)};

static const mz_command_group groups[] = {{&what_group, 0}, {&mz_group_common, 0}};

static json_t *cpu_features(void)
{
    json_t *list = json_array();
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        json_array_append_new(list, json_string("avx2"));
    if (__builtin_cpu_supports("fma"))
        json_array_append_new(list, json_string("fma"));
    if (__builtin_cpu_supports("avx512f"))
        json_array_append_new(list, json_string("avx512f"));
    if (__builtin_cpu_supports("avx512bf16"))
        json_array_append_new(list, json_string("avx512bf16"));
#endif
    return list;
}

/* The first line of MPI's own text. */
static json_t *mpi_version(void)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int n = 0;
    if (MPI_Get_library_version(text, &n) != MPI_SUCCESS)
        return json_string("unknown");
    text[strcspn(text, "\n")] = '\0';
    return json_string(text);
}

static json_t *hdf5_version(void)
{
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    return json_sprintf("%u.%u.%u", major, minor, release);
}

static json_t *pcre2_version(void)
{
    char text[64] = "unknown";
    if (pcre2_config(PCRE2_CONFIG_VERSION, NULL) <= (int)sizeof text)
        pcre2_config(PCRE2_CONFIG_VERSION, text);
    return json_string(text);
}

#ifdef HAVE_UCX
static json_t *ucx_networks(void)
{
    char *text = NULL;
    json_t *networks = json_string(mz_ucx_devices(&text) == MZ_OK ? text : "unknown");
    mz_free(text);
    return networks;
}
#endif

static json_t *system_name(void)
{
    struct utsname name;
    if (uname(&name) != 0)
        return json_string("unknown");
    return json_sprintf("%s %s %s", name.sysname, name.release, name.machine);
}

static json_t *nccl_version(void)
{
#ifdef HAVE_NCCL
    char text[32];
    mz_nccl_version(text, sizeof text);
    return json_string(text);
#else
    return json_string("no");
#endif
}

static json_t *hwloc_version(void)
{
#ifdef HAVE_HWLOC
    unsigned version = hwloc_get_api_version();
    return json_sprintf("%u.%u.%u", version >> 16, version >> 8 & 255, version & 255);
#else
    return json_string("no");
#endif
}

static json_t *gather(void)
{
    json_t *env = json_object();
    json_object_set_new(env, "mpizero", json_string(MZ_VERSION));
    json_object_set_new(env, "compiler", json_string("gcc " __VERSION__));
    json_object_set_new(env, "system", system_name());
    json_object_set_new(env, "mpi", mpi_version());
    json_object_set_new(env, "hdf5", hdf5_version());
    json_object_set_new(env, "jansson", json_string(JANSSON_VERSION));
    json_object_set_new(env, "libyaml", json_string(yaml_get_version_string()));
    json_object_set_new(env, "pcre2", pcre2_version());
#ifdef HAVE_UCX
    json_object_set_new(env, "wire", json_string("ucx"));
    json_object_set_new(env, "ucx", json_string(mz_ucx_version()));
    json_object_set_new(env, "networks", ucx_networks());
#else
    json_object_set_new(env, "wire", json_string("mpi"));
#endif
    json_object_set_new(env, "nccl", nccl_version());
    json_object_set_new(env, "hwloc", hwloc_version());
    json_object_set_new(env, "cuda_devices", json_integer(mz_device_count("cuda")));
    json_object_set_new(env, "cores", json_integer(mz_cores_available()));
    json_object_set_new(env, "memory_bytes", json_integer((json_int_t)mz_memory_total()));
    json_object_set_new(env, "cpu_features", cpu_features());
    return env;
}

static void print_text(const json_t *env)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)env, name, value)
    {
        size_t i;
        json_t *item;
        printf("%-14s", name);
        if (json_is_string(value))
            printf("%s", json_string_value(value));
        else if (json_is_integer(value))
            printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
        json_array_foreach(value, i, item) printf("%s%s", i ? " " : "", json_string_value(item));
        putchar('\n');
    }
}

static mz_status run(mz_world *world, const void *target)
{
    const env_target *t = target;
    (void)world;
    json_t *env = gather();
    if (!env)
        return mz_fail(MZ_ERR_MEMORY, "no memory for the list of versions");
    if (t->json) {
        json_dumpf(env, stdout, JSON_INDENT(1));
        putchar('\n');
    } else {
        print_text(env);
    }
    json_decref(env);
    return MZ_OK;
}

const mz_command mz_command_env = {
    .name = "env",
    .operands = "",
    .summary = "versions of libraries, and what this machine has",
    .description = "Shows the versions of the program and its libraries, the processor's features, cores, memory, "
                   "GPUs and networks.",
    .groups = groups,
    .n_groups = N(groups),
    .target_bytes = sizeof(env_target),
    .run = run,
};
