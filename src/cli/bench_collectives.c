/* bench collectives: how fast the job's collectives are, beside those of MPI (on CPUs) or NCCL (on GPUs) in the
 * same run. */
#include <config.h>

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "comm/issue.h"
#include "comm/mpi_check.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/memory.h"
#include "device/device.h"
#ifdef HAVE_NCCL
#include "comm/nccl.h"
#include "comm/nccl_plain.h"
#endif

#define N(table) ((int)(sizeof(table) / sizeof((table)[0])))

enum { MAX_SIZES = 32, MAX_ROUNDS = 101, ROUNDS = 7 };
static const double round_seconds = 0.05; /* what a round of calls is to take */

typedef struct bench_target {
    mz_cli_common common;
    const char *sizes, *least, *most, *interface, *device;
    double factor;
    int rounds;
    bool json;
} bench_target;

static const mz_option what[] = {
    MZ_TEXT("sizes", "LIST", "64KiB to 64MiB, on GPUs 1MiB to 512MiB", offsetof(bench_target, sizes),
            "sizes of the gathered or reduced whole, as in 1MiB,512MiB"),
    MZ_TEXT("min", "SIZE", "of a sweep: 64KiB, on GPUs 1MiB", offsetof(bench_target, least),
            "instead of --sizes: the smallest of a sweep"),
    MZ_TEXT("max", "SIZE", "of a sweep: 64MiB, on GPUs 512MiB", offsetof(bench_target, most),
            "the largest of a sweep"),
    MZ_DOUBLE("factor", "X", "2", 1.01, 1e6, offsetof(bench_target, factor),
              "from one size of a sweep to the next"),
    MZ_INT("rounds", "N", "7", 1, MAX_ROUNDS, offsetof(bench_target, rounds),
           "of calls, of which the median counts"),
    MZ_TEXT("interface", "NAME", NULL, offsetof(bench_target, interface),
            "also count the bytes that come in over this network interface of each node"),
    MZ_WORD("device", "NAME", "cuda where there is one, else cpu", "cpu|cuda", offsetof(bench_target, device),
            "cpu or cuda"),
    MZ_SWITCH("json", "off", offsetof(bench_target, json), "print a JSON object"),
};
static const mz_option_group what_group = {"Measurement", what, N(what)};

static const mz_command_group groups[] = {{&what_group, 0}, {&mz_group_launch, 0}, {&mz_group_common, 0}};

typedef struct operation {
    mz_collective_kind kind;
    const char *name;
    bool has_blocks; /* else a segment's count is the whole's */
} operation;

static const operation operations[] = {
    {MZ_ALL_GATHER, "all_gather", true},
    {MZ_REDUCE_SCATTER, "reduce_scatter", true},
    {MZ_ALL_REDUCE, "all_reduce", false},
    {MZ_BROADCAST, "broadcast", false},
};

typedef struct bench {
    mz_world *world;
    mz_device *device;
    mz_comm *comm;
    mz_stream *stream;
    void *in, *out;
    bool gpus;
#ifdef HAVE_NCCL
    mz_nccl_plain *nccl;
#endif
    char peer[96]; /* "NCCL 2.28.9" */
    const char *interface;
    int rounds;
} bench;

typedef struct result {
    double ours, theirs;            /* seconds of a call, the slowest rank's, median */
    double bytes_into_nodes;        /* of a call, sum over the nodes */
    double received, peer_received; /* the same at the nodes' interfaces, where one was named */
} result;

/* ---- one call ---- */

static mz_status call_ours(bench *b, const operation *op, int64_t count)
{
    const mz_segment segment = {b->in, b->out, count, count};
    mz_stream *stream = b->gpus ? b->stream : NULL; /* MPI's run in this thread, too */
    switch (op->kind) {
    case MZ_ALL_GATHER:
        return mz_all_gather(b->comm, &segment, 1, MZ_F32, "bench", stream);
    case MZ_REDUCE_SCATTER:
        return mz_reduce_scatter(b->comm, &segment, 1, MZ_F32, MZ_F32, 1, false, "bench", stream);
    case MZ_ALL_REDUCE:
        return mz_all_reduce(b->comm, &segment, 1, MZ_F32, 1, "bench", stream);
    default:
        return mz_broadcast(b->comm, &segment, 1, MZ_F32, 0, "bench", stream);
    }
}

static mz_status call_mpi(bench *b, const operation *op, int64_t count)
{
    const int n = (int)count;
    const MPI_Comm comm = b->world->comm;
    switch (op->kind) {
    case MZ_ALL_GATHER:
        return mz_mpi_check(MPI_Allgather(b->in, n, MPI_FLOAT, b->out, n, MPI_FLOAT, comm), "MPI_Allgather");
    case MZ_REDUCE_SCATTER:
        return mz_mpi_check(MPI_Reduce_scatter_block(b->in, b->out, n, MPI_FLOAT, MPI_SUM, comm),
                            "MPI_Reduce_scatter_block");
    case MZ_ALL_REDUCE:
        return mz_mpi_check(MPI_Allreduce(b->in, b->out, n, MPI_FLOAT, MPI_SUM, comm), "MPI_Allreduce");
    default:
        return mz_mpi_check(MPI_Bcast(b->world->rank == 0 ? b->in : b->out, n, MPI_FLOAT, 0, comm), "MPI_Bcast");
    }
}

static mz_status call_theirs(bench *b, const operation *op, int64_t count)
{
#ifdef HAVE_NCCL
    if (b->gpus)
        return mz_nccl_plain_run(b->nccl, op->kind, b->in, b->out, count, b->stream);
#endif
    return call_mpi(b, op, count);
}

/* ---- rounds ---- */

typedef mz_status (*call)(bench *b, const operation *op, int64_t count);

/* Seconds of a call, the slowest rank's. */
static mz_status time_calls(bench *b, call fn, const operation *op, int64_t count, int n_calls, double *seconds)
{
    mz_status status = MZ_OK;
    MPI_Barrier(b->world->comm);
    double begin = mz_clock_seconds();
    for (int i = 0; i < n_calls && !status; i++)
        status = fn(b, op, count);
    if (!status)
        status = b->device->ops->stream_sync(b->stream);
    *seconds = (mz_clock_seconds() - begin) / n_calls;
    MPI_Allreduce(MPI_IN_PLACE, seconds, 1, MPI_DOUBLE, MPI_MAX, b->world->comm);
    return mz_agree(b->world, status, "timing collectives");
}

static double median(double *values, int n)
{
    for (int i = 1; i < n; i++)
        for (int k = i; k > 0 && values[k] < values[k - 1]; k--) {
            double swap = values[k];
            values[k] = values[k - 1];
            values[k - 1] = swap;
        }
    return values[n / 2];
}

static double sent_between_nodes(const bench *b)
{
    mz_comm_stats stats;
    mz_comm_get_stats(b->comm, &stats);
    double sent = stats.bytes_between_nodes;
    MPI_Allreduce(MPI_IN_PLACE, &sent, 1, MPI_DOUBLE, MPI_SUM, b->world->comm);
    return sent;
}

/* Bytes that have come in over this node's interface so far; false: there is none of that name. */
static bool read_received(const char *interface, double *bytes)
{
    char line[512], name[64];
    double value;
    bool found = false;
    FILE *file = fopen("/proc/net/dev", "r");
    while (file && !found && fgets(line, sizeof line, file)) {
        found = sscanf(line, " %63[^:]: %lf", name, &value) == 2 && strcmp(name, interface) == 0;
        if (found)
            *bytes = value;
    }
    if (file)
        fclose(file);
    return found;
}

/* Collective: every node has the interface that was named. */
static mz_status check_interface(const bench *b)
{
    double bytes;
    mz_status status = MZ_OK;
    if (b->interface && !read_received(b->interface, &bytes))
        status = mz_fail(MZ_ERR_USAGE,
                         "--interface %s: expected a network interface of each node, as /proc/net/dev lists them; "
                         "rank %d's node has none of that name",
                         b->interface, b->world->rank);
    return mz_agree(b->world, status, "looking for the interface");
}

/* What has come in over the nodes' interface so far, all nodes together. */
static double received(const bench *b)
{
    double bytes = 0;
    MPI_Barrier(b->world->comm);
    if (b->interface && b->world->local_rank == 0)
        read_received(b->interface, &bytes);
    MPI_Allreduce(MPI_IN_PLACE, &bytes, 1, MPI_DOUBLE, MPI_SUM, b->world->comm);
    return bytes;
}

static mz_status measure(bench *b, const operation *op, int64_t count, result *r)
{
    double ours[MAX_ROUNDS], theirs[MAX_ROUNDS], first, before = sent_between_nodes(b);
    double at_start = received(b);
    mz_status status = time_calls(b, call_ours, op, count, 1, &first);
    double between = received(b);
    r->bytes_into_nodes = sent_between_nodes(b) - before;
    if (!status)
        status = time_calls(b, call_theirs, op, count, 1, &theirs[0]);
    r->received = between - at_start;
    r->peer_received = received(b) - between;
    if (!status)
        status = time_calls(b, call_ours, op, count, 3, &first);
    double n = first > 0 ? round_seconds / first : 1;
    int n_calls = n > 200 ? 200 : n < 1 ? 1 : (int)n;
    for (int i = 0; i < b->rounds && !status; i++) {
        status = time_calls(b, call_ours, op, count, n_calls, &ours[i]);
        if (!status)
            status = time_calls(b, call_theirs, op, count, n_calls, &theirs[i]);
    }
    if (status)
        return status;
    r->ours = median(ours, b->rounds);
    r->theirs = median(theirs, b->rounds);
    return MZ_OK;
}

/* ---- results ---- */

/* How many times its size a link carries, at least, for each byte of a collective over n ranks. */
static double bus_factor(const operation *op, int n)
{
    switch (op->kind) {
    case MZ_ALL_GATHER:
    case MZ_REDUCE_SCATTER:
        return (n - 1.0) / n;
    case MZ_ALL_REDUCE:
        return 2 * (n - 1.0) / n;
    default:
        return 1;
    }
}

static void print_row(const bench *b, const operation *op, double bytes, const result *r)
{
    double bus = bus_factor(op, b->world->size) * bytes * 1e-9;
    printf("%-14s %12.0f  %10.1f %8.2f %8.2f  %10.1f %8.2f %8.2f  %6.3f  %10.2f", op->name, bytes / 1024,
           r->ours * 1e6, bytes * 1e-9 / r->ours, bus / r->ours, r->theirs * 1e6, bytes * 1e-9 / r->theirs,
           bus / r->theirs, r->theirs / r->ours, r->bytes_into_nodes / b->world->n_nodes / 1048576);
    if (b->interface)
        printf(" %10.2f %10.2f", r->received / b->world->n_nodes / 1048576,
               r->peer_received / b->world->n_nodes / 1048576);
    putchar('\n');
    fflush(stdout);
}

static json_t *row_to_json(const bench *b, const operation *op, double bytes, const result *r)
{
    double bus = bus_factor(op, b->world->size) * bytes;
    json_t *row =
        json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "operation", op->name, "bytes", bytes, "seconds",
                  r->ours, "bytes_per_second", bytes / r->ours, "bus_bytes_per_second", bus / r->ours,
                  "peer_seconds", r->theirs, "peer_bus_bytes_per_second", bus / r->theirs, "ratio",
                  r->theirs / r->ours, "bytes_into_node", r->bytes_into_nodes / b->world->n_nodes);
    if (row && b->interface) {
        json_object_set_new(row, "interface_bytes_into_node", json_real(r->received / b->world->n_nodes));
        json_object_set_new(row, "peer_interface_bytes_into_node", json_real(r->peer_received / b->world->n_nodes));
    }
    return row;
}

static void print_head(const bench *b)
{
    printf("%d ranks on %d node%s, %s; beside %s\n", b->world->size, b->world->n_nodes,
           b->world->n_nodes == 1 ? "" : "s", b->device->label, b->peer);
    printf("%-14s %12s  %10s %8s %8s  %10s %8s %8s  %6s  %10s", "", "size KiB", "us", "GB/s", "bus GB/s",
           "theirs us", "GB/s", "bus GB/s", "ratio", "MiB/node");
    if (b->interface)
        printf(" %10s %10s", b->interface, "theirs");
    putchar('\n');
}

/* All ranks measure; rank 0 prints. */
static mz_status sweep(bench *b, const double *sizes, int n_sizes, bool json)
{
    json_t *rows = json_array();
    mz_status status = MZ_OK;
    bool prints = b->world->rank == 0;
    if (prints && !json)
        print_head(b);
    for (int k = 0; k < N(operations) && !status; k++)
        for (int i = 0; i < n_sizes && !status; i++) {
            result r = {0};
            int64_t block = (int64_t)(sizes[i] / sizeof(float)) / b->world->size;
            int64_t count = operations[k].has_blocks ? block : block * b->world->size;
            double bytes = (double)(block * b->world->size) * sizeof(float);
            status = measure(b, &operations[k], count, &r);
            if (!status && prints && json)
                json_array_append_new(rows, row_to_json(b, &operations[k], bytes, &r));
            else if (!status && prints)
                print_row(b, &operations[k], bytes, &r);
        }
    json_t *all = json_pack("{s:i, s:i, s:s, s:s, s:o}", "ranks", b->world->size, "nodes", b->world->n_nodes,
                            "device", b->device->label, "peer", b->peer, "results", rows);
    if (!status && prints && json && all) {
        json_dumpf(all, stdout, JSON_INDENT(1));
        putchar('\n');
    }
    json_decref(all);
    return status;
}

/* ---- set-up ---- */

static mz_status read_size(const char *flag, const char *text, const char *at, int n_ranks, const char **end,
                           double *size)
{
    static const char units[] = "KMG";
    char *after;
    *size = strtod(at, &after);
    const char *unit = *after ? strchr(units, *after) : NULL;
    for (int i = 0; unit && i <= unit - units; i++)
        *size *= 1024;
    after += unit ? (after[1] == 'i' && after[2] == 'B' ? 3 : 1) : 0;
    if (after == at || (*after && *after != ',') || *size < 4.0 * n_ranks || *size > 8e9)
        return mz_fail(MZ_ERR_USAGE, "%s %s: expected sizes from %d bytes to 7GiB as in 64KiB,1MiB; see \"%s\"",
                       flag, text, 4 * n_ranks, at);
    *end = after;
    return MZ_OK;
}

/* From --min to --max by --factor. */
static mz_status read_sweep(const bench_target *t, bool on_gpus, int n_ranks, double *sizes, int *n)
{
    const char *least = t->least ? t->least : on_gpus ? "1MiB" : "64KiB";
    const char *most = t->most ? t->most : on_gpus ? "512MiB" : "64MiB", *end = "";
    double size, last, factor = t->factor > 1 ? t->factor : 2;
    mz_status status = read_size("--min", least, least, n_ranks, &end, &size);
    if (!status && !*end)
        status = read_size("--max", most, most, n_ranks, &end, &last);
    if (!status && (*end || last < size))
        status =
            mz_fail(MZ_ERR_USAGE, "--min %s --max %s: expected one size each, the smaller one first", least, most);
    for (*n = 0; !status && size <= last * 1.0001; size *= factor) {
        if (*n == MAX_SIZES)
            return mz_fail(MZ_ERR_USAGE, "--factor %g: more than %d sizes from %s to %s", factor, MAX_SIZES, least,
                           most);
        sizes[(*n)++] = size;
    }
    return status;
}

/* "1MiB,512MiB": bytes with an optional K, M or G, which count in powers of 1024. */
static mz_status read_sizes(const char *text, int n_ranks, double *sizes, int *n)
{
    const char *at = text, *end = text;
    for (*n = 0; *at && *n < MAX_SIZES; (*n)++) {
        mz_status status = read_size("--sizes", text, at, n_ranks, &end, &sizes[*n]);
        if (status)
            return status;
        at = *end ? end + 1 : end;
    }
    return *at ? mz_fail(MZ_ERR_USAGE, "--sizes: more than %d", MAX_SIZES) : MZ_OK;
}

static mz_status name_peer(bench *b)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "MPI";
    int n = 0;
    MPI_Get_library_version(version, &n);
    version[strcspn(version, ",\n")] = '\0';
    snprintf(b->peer, sizeof b->peer, "%.90s", version);
#ifdef HAVE_NCCL
    if (b->gpus) {
        mz_nccl_version(version, sizeof version);
        snprintf(b->peer, sizeof b->peer, "NCCL %.80s", version);
        return mz_nccl_plain_create(b->world->comm, b->device, &b->nccl);
    }
#endif
    return MZ_OK;
}

/* The memory is written once, so that no page of it is the system's shared zero page. */
static mz_status take_memory(bench *b, size_t bytes)
{
    const mz_device_ops *ops = b->device->ops;
    mz_status status = ops->alloc(b->device, bytes, &b->in);
    if (!status)
        status = ops->alloc(b->device, bytes, &b->out);
    if (!status)
        status = ops->fill(b->stream, b->in, 1, bytes);
    if (!status)
        status = ops->fill(b->stream, b->out, 2, bytes);
    return status ? status : ops->stream_sync(b->stream);
}

static mz_status open_bench(bench *b, const char *device, size_t bytes)
{
    mz_status status = mz_world_open_device(b->world, device, 1, &b->device);
    if (!status) {
        b->gpus = strcmp(b->device->ops->name, "cuda") == 0;
        status = b->device->ops->stream_create(b->device, MZ_STREAM_COMM, &b->stream);
    }
    if (!status)
        status = take_memory(b, bytes);
    status = mz_agree(b->world, status, "opening the devices");
    if (!status)
        status = mz_comm_create(b->world, b->device, 0, 0, &b->comm);
    return status ? status : name_peer(b);
}

static void close_bench(bench *b)
{
#ifdef HAVE_NCCL
    mz_nccl_plain_destroy(b->nccl);
#endif
    mz_comm_destroy(b->comm);
    if (!b->device)
        return;
    if (b->stream)
        b->device->ops->stream_destroy(b->stream);
    if (b->in)
        b->device->ops->free(b->device, b->in);
    if (b->out)
        b->device->ops->free(b->device, b->out);
    mz_device_close(b->device);
}

static mz_status run(mz_world *world, const void *target)
{
    const bench_target *t = target;
    bool on_gpus = t->device ? strcmp(t->device, "cuda") == 0 : mz_device_count("cuda") > 0;
    const char *text = t->sizes ? t->sizes : on_gpus ? "1M,8M,64M,512M" : "64K,1M,8M,64M";
    double sizes[MAX_SIZES], largest = 0;
    int n_sizes = 0;
    bool sweeps = t->least || t->most || t->factor > 1;
    bench b = {.world = world, .interface = t->interface, .rounds = t->rounds > 0 ? t->rounds : ROUNDS};
    if (world->size == 1)
        return mz_fail(MZ_ERR_LAUNCH,
                       "bench collectives: one rank has nobody to talk to; start it as in mpirun -n 2");
    if (sweeps && t->sizes)
        return mz_fail(MZ_ERR_USAGE, "--sizes: expected without --min, --max and --factor");
    mz_status status = sweeps ? read_sweep(t, on_gpus, world->size, sizes, &n_sizes)
                              : read_sizes(text, world->size, sizes, &n_sizes);
    if (status)
        return status;
    for (int i = 0; i < n_sizes; i++)
        largest = sizes[i] > largest ? sizes[i] : largest;
    status = check_interface(&b);
    if (!status)
        status = open_bench(&b, t->device, (size_t)largest);
    if (!status)
        status = sweep(&b, sizes, n_sizes, t->json);
    close_bench(&b);
    return status;
}

const mz_command mz_command_bench_collectives = {
    .name = "bench collectives",
    .operands = "",
    .summary = "speed of collectives, beside MPI's or NCCL's own",
    .description =
        "Times all-gather, reduce-scatter, all-reduce and broadcast of fp32 values over the job's ranks, in turn "
        "with "
        "MPI's own on CPUs and with NCCL called directly on GPUs. GB/s are those of the whole, bus GB/s what a "
        "link "
        "carries at least; a ratio above 1 says that ours is faster. MiB/node is what enters a node in one call.",
    .groups = groups,
    .n_groups = N(groups),
    .target_bytes = sizeof(bench_target),
    .starts_mpi = true,
    .run = run,
};
