/* topo: the nodes and ranks of this job, as the collectives see them. */
#include <config.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/machine.h"
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
    int n_cores, n_gpus;
    double memory_bytes;
    char gpu[192];             /* the one that the rank would compute on; empty: none */
    char cpus[128], numa[128]; /* where it may run */
    char rail[256];            /* what its messages to other nodes go over; empty: there are none */
} rank_facts;

/* ---- what a rank finds ---- */

static json_t *networks_of_ucx(mz_status *status)
{
#ifdef HAVE_UCX
    char *found = NULL;
    *status = mz_ucx_devices(&found);
    json_t *text = *status == MZ_OK ? json_string(found) : NULL;
    mz_free(found);
    return text;
#else
    *status = MZ_OK;
    return json_string("");
#endif
}

/* Opens it, as a training job does: that also keeps the rank to the cores near it. */
static mz_status find_gpu(const mz_world *world, rank_facts *facts)
{
    mz_device *device = NULL;
    if (facts->n_gpus == 0)
        return MZ_OK;
    mz_status status = mz_world_open_device(world, "cuda", 1, &device);
    if (status == MZ_OK) {
        snprintf(facts->gpu, sizeof facts->gpu, "%s at %s", device->label, device->address);
        facts->n_cores = mz_cores_available();
    }
    mz_device_close(device);
    return status;
}

/* Collective. Connects the ranks as a training job on CPUs does, and looks what was taken. */
static mz_status find_rail(mz_world *world, rank_facts *facts)
{
    mz_device *device = NULL;
    mz_comm *comm = NULL;
    if (world->n_nodes == 1)
        return MZ_OK;
    mz_status status = mz_agree(world, mz_device_open("cpu", 0, 1, &device), "opening the devices");
    if (status == MZ_OK)
        status = mz_comm_create(world, device, 0, 0, &comm);
    if (status == MZ_OK)
        mz_comm_describe_rail(comm, facts->rail, sizeof facts->rail);
    mz_comm_destroy(comm);
    mz_device_close(device);
    return status;
}

/* The first rank of a node describes it, as JSON in text; the others have "". */
static mz_status describe_node(const mz_world *world, const rank_facts *mine, char **text)
{
    *text = NULL;
    if (world->local_rank != 0)
        return (*text = mz_strdup("")) ? MZ_OK : MZ_ERR_MEMORY;
    mz_status status;
    json_t *node = mz_machine_json(), *ucx = networks_of_ucx(&status);
    if (status == MZ_OK && node && ucx) {
        json_object_set(node, "ucx", ucx);
        json_object_set_new(node, "host", json_string(mine->host));
        json_object_set_new(node, "memory_bytes", json_real(mine->memory_bytes));
        char *dumped = json_dumps(node, JSON_COMPACT);
        *text = dumped ? mz_strdup(dumped) : NULL;
        free(dumped);
    }
    json_decref(node);
    json_decref(ucx);
    return status == MZ_OK && !*text ? mz_fail(MZ_ERR_MEMORY, "no memory for the topology") : status;
}

/* ---- what rank 0 makes of it ---- */

/* Collective. On rank 0: an array of the nodes' objects. */
static mz_status gather_nodes(mz_world *world, const char *text, json_t **nodes)
{
    int length = (int)strlen(text), total = 0;
    int *lengths = mz_calloc((size_t)world->size, sizeof *lengths);
    int *offsets = mz_calloc((size_t)world->size, sizeof *offsets);
    char *all = NULL;
    mz_status status = mz_agree(world, lengths && offsets ? MZ_OK : MZ_ERR_MEMORY, "gathering the topology");
    if (status == MZ_OK) {
        MPI_Gather(&length, 1, MPI_INT, lengths, 1, MPI_INT, 0, world->comm);
        for (int r = 0; r < world->size; total += lengths[r++])
            offsets[r] = total;
        all = mz_alloc((size_t)total + 1);
        status = mz_agree(world, all ? MZ_OK : MZ_ERR_MEMORY, "gathering the topology");
    }
    if (status == MZ_OK)
        MPI_Gatherv(text, length, MPI_CHAR, all, lengths, offsets, MPI_CHAR, 0, world->comm);
    *nodes = json_array();
    for (int r = 0; r < world->size && status == MZ_OK && world->rank == 0; r++)
        if (lengths[r])
            json_array_append_new(*nodes, json_loadb(all + offsets[r], (size_t)lengths[r], 0, NULL));
    mz_free(all);
    mz_free(lengths);
    mz_free(offsets);
    return status;
}

static json_t *to_json(const mz_world *world, const rank_facts *facts, json_t *nodes)
{
    json_t *ranks = json_array();
    for (int r = 0; r < world->size; r++) {
        const rank_facts *f = &facts[r];
        json_array_append_new(ranks, json_pack("{s:i, s:i, s:i, s:s, s:i, s:s, s:s, s:i, s:s, s:f, s:s}", "rank", r,
                                               "node", world->node_of[r], "local_rank", world->local_rank_of[r],
                                               "host", f->host, "cores", f->n_cores, "cpus", f->cpus, "numa",
                                               f->numa, "gpus", f->n_gpus, "gpu", f->gpu, "memory_bytes",
                                               f->memory_bytes, "rail", f->rail));
    }
    return json_pack("{s:i, s:i, s:s, s:o, s:O}", "ranks", world->size, "nodes", world->n_nodes, "wire",
                     world->wire, "layout", ranks, "machines", nodes);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static void print_near(const json_t *device)
{
    json_int_t numa = json_integer_value(json_object_get(device, "numa"));
    if (*text_of(device, "address"))
        printf(" at %s", text_of(device, "address"));
    if (numa >= 0)
        printf(", near NUMA node %d", (int)numa);
    putchar('\n');
}

static void print_machine(const json_t *node)
{
    const double gib = 1024.0 * 1024 * 1024;
    size_t i;
    json_t *part;
    json_array_foreach(json_object_get(node, "numa"), i, part)
    {
        printf("  NUMA node %d: processors %s, %.1f GiB\n", (int)json_integer_value(json_object_get(part, "numa")),
               text_of(part, "cpus"), json_real_value(json_object_get(part, "memory_bytes")) / gib);
    }
    json_array_foreach(json_object_get(node, "gpus"), i, part)
    {
        printf("  GPU: %s", text_of(part, "name"));
        print_near(part);
    }
    json_array_foreach(json_object_get(node, "networks"), i, part)
    {
        printf("  network: %s (%s)", text_of(part, "name"), text_of(part, "kind"));
        print_near(part);
    }
}

static void print_rank(int rank, const rank_facts *f)
{
    printf("  rank %d: processors %s", rank, f->cpus);
    if (*f->numa)
        printf(" of NUMA node %s", f->numa);
    if (*f->gpu)
        printf("; %s", f->gpu);
    if (*f->rail)
        printf("; to other nodes by %s", f->rail);
    putchar('\n');
}

static void print_text(const mz_world *world, const rank_facts *facts, const json_t *nodes)
{
    printf("%d rank%s on %d node%s, wire between nodes: %s\n", world->size, world->size == 1 ? "" : "s",
           world->n_nodes, world->n_nodes == 1 ? "" : "s", world->wire);
    for (int node = 0; node < world->n_nodes; node++) {
        const json_t *machine = json_array_get(nodes, (size_t)node);
        bool is_first = true;
        for (int r = 0; r < world->size; r++) {
            const rank_facts *f = &facts[r];
            if (world->node_of[r] != node)
                continue;
            if (is_first)
                printf("node %d: %s, %d cores for each rank, %d GPUs, %.1f GiB, ranks", node, f->host, f->n_cores,
                       f->n_gpus, f->memory_bytes / (1024.0 * 1024 * 1024));
            is_first = false;
            printf(" %d", r);
        }
        printf("%s%s\n", *text_of(machine, "ucx") ? "; networks: " : "", text_of(machine, "ucx"));
        print_machine(machine);
        for (int r = 0; r < world->size; r++)
            if (world->node_of[r] == node)
                print_rank(r, &facts[r]);
    }
}

static mz_status print_json(const mz_world *world, const rank_facts *facts, json_t *nodes)
{
    json_t *json = to_json(world, facts, nodes);
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
    rank_facts mine = {.n_cores = mz_cores_available(),
                       .n_gpus = mz_device_count("cuda"),
                       .memory_bytes = (double)mz_memory_total()};
    char *text = NULL;
    json_t *nodes = NULL;
    memcpy(mine.host, world->host, sizeof mine.host);
    rank_facts *all = mz_calloc((size_t)world->size, sizeof *all);
    mz_status status = all ? find_gpu(world, &mine) : MZ_ERR_MEMORY;
    mz_machine_place(mine.cpus, sizeof mine.cpus, mine.numa, sizeof mine.numa);
    if (status == MZ_OK)
        status = describe_node(world, &mine, &text);
    status = mz_agree(world, status, "looking at the machine");
    if (status == MZ_OK)
        status = find_rail(world, &mine);
    if (status == MZ_OK)
        status = gather_nodes(world, text, &nodes);
    if (status == MZ_OK) {
        MPI_Gather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, 0, world->comm);
        if (world->rank == 0 && t->json)
            status = print_json(world, all, nodes);
        else if (world->rank == 0)
            print_text(world, all, nodes);
    }
    json_decref(nodes);
    mz_free(text);
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
