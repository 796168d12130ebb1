/* topo: the nodes and ranks of this job, as the collectives see them. */
#include <config.h>
#include <jansson.h>
#include <string.h>

#include "cli/cli.h"
#include "comm/transport.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/threads.h"
#include "device/device.h"

#define N(table) ((int)(sizeof(table) / sizeof((table)[0])))

typedef struct topo_target {
    mz_cli_common common;
    bool json;
} topo_target;

static const mz_option what[] = {
    MZ_SWITCH("json", "off", offsetof(topo_target, json), "print a JSON object"),
};
static const mz_option_group what_group = {"Output", what, N(what)};

static const mz_command_group groups[] = {{&what_group, 0}, {&mz_group_launch, 0}, {&mz_group_common, 0}};

/* What each rank tells rank 0. */
typedef struct rank_facts {
    char host[256];
    int cores, gpus;
    double memory_bytes;
    char gpu[192];      /* the one that the rank would compute on; empty: none */
    char networks[256]; /* as UCX sees them; empty: none, or not built with it */
} rank_facts;

static mz_status find_networks(char *text, size_t bytes)
{
#ifdef HAVE_UCX
    char *found = NULL;
    mz_status status = mz_ucx_devices(&found);
    if (status == MZ_OK)
        snprintf(text, bytes, "%s", found);
    mz_free(found);
    return status;
#else
    snprintf(text, bytes, "%s", "");
    return MZ_OK;
#endif
}

/* Opens it, as a training job does: that also keeps the rank to the cores near it. */
static mz_status find_gpu(const mz_world *world, rank_facts *facts)
{
    mz_device *device = NULL;
    if (facts->gpus == 0)
        return MZ_OK;
    mz_status status = mz_world_open_device(world, "cuda", 1, &device);
    if (status == MZ_OK) {
        snprintf(facts->gpu, sizeof facts->gpu, "%s at %s", device->label, device->address);
        facts->cores = mz_cores_available();
    }
    mz_device_close(device);
    return status;
}

static json_t *to_json(const mz_world *world, const rank_facts *facts)
{
    json_t *ranks = json_array();
    for (int r = 0; r < world->size; r++)
        json_array_append_new(ranks, json_pack("{s:i, s:i, s:i, s:s, s:i, s:i, s:s, s:f, s:s}", "rank", r, "node",
                                               world->node_of[r], "local_rank", world->local_rank_of[r], "host",
                                               facts[r].host, "cores", facts[r].cores, "gpus", facts[r].gpus, "gpu",
                                               facts[r].gpu, "memory_bytes", facts[r].memory_bytes, "networks",
                                               facts[r].networks));
    return json_pack("{s:i, s:i, s:s, s:o}", "ranks", world->size, "nodes", world->n_nodes, "wire", world->wire,
                     "layout", ranks);
}

static void print_text(const mz_world *world, const rank_facts *facts)
{
    printf("%d rank%s on %d node%s, wire between nodes: %s\n", world->size, world->size == 1 ? "" : "s",
           world->n_nodes, world->n_nodes == 1 ? "" : "s", world->wire);
    for (int node = 0; node < world->n_nodes; node++) {
        const rank_facts *lead = NULL;
        for (int r = 0; r < world->size; r++) {
            if (world->node_of[r] != node)
                continue;
            if (!lead) {
                lead = &facts[r];
                printf("node %d: %s, %d cores for each rank, %d GPUs, %.1f GiB, ranks", node, lead->host,
                       lead->cores, lead->gpus, lead->memory_bytes / (1024.0 * 1024 * 1024));
            }
            printf(" %d", r);
        }
        printf("%s%s\n", lead && *lead->networks ? "; networks: " : "", lead ? lead->networks : "");
        for (int r = 0; r < world->size; r++)
            if (world->node_of[r] == node && *facts[r].gpu)
                printf("  rank %d: %s, %d cores near it\n", r, facts[r].gpu, facts[r].cores);
    }
}

static mz_status print_json(const mz_world *world, const rank_facts *facts)
{
    json_t *json = to_json(world, facts);
    if (!json)
        return mz_fail(MZ_ERR_MEMORY, "no memory for the topology");
    json_dumpf(json, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(json);
    return MZ_OK;
}

static mz_status run(mz_world *world, const void *target)
{
    const topo_target *t = target;
    rank_facts mine = {
        .cores = mz_cores_available(), .gpus = mz_device_count("cuda"), .memory_bytes = (double)mz_memory_total()};
    memcpy(mine.host, world->host, sizeof mine.host);
    rank_facts *all = mz_calloc((size_t)world->size, sizeof *all);
    mz_status status = all ? find_networks(mine.networks, sizeof mine.networks) : MZ_ERR_MEMORY;
    if (status == MZ_OK)
        status = find_gpu(world, &mine);
    status = mz_agree(world, status, "gathering the topology");
    if (status == MZ_OK) {
        MPI_Gather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, 0, world->comm);
        if (world->rank == 0 && t->json)
            status = print_json(world, all);
        else if (world->rank == 0)
            print_text(world, all);
    }
    mz_free(all);
    return status;
}

const mz_command mz_command_topo = {
    .name = "topo",
    .operands = "",
    .summary = "the job's nodes and ranks",
    .description = "Shows how the ranks of this job lie on nodes, what each has (cores, memory, GPUs, networks "
                   "that UCX can use), "
                   "and what moves data between nodes.",
    .groups = groups,
    .n_groups = N(groups),
    .target_bytes = sizeof(topo_target),
    .starts_mpi = true,
    .run = run,
};
