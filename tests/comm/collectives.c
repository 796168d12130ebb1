/* Every collective against a serial computation: random kinds, types, counts, strides, segments, in place or not,
 * on streams with and without a worker, over every way of cutting the ranks into nodes. The values are small whole
 * numbers, so that sums are exact in every type and order, and results must agree to the last bit.
 *
 * With the argument "cuda" the buffers lie on each rank's GPU (tests/gpu/run); where there are fewer GPUs than
 * ranks, each rank is a node of its own, and they share them (MPIZERO_SHARE_GPU). Built with GPU_DOUBLE, the same
 * is done with CPU streams in place of a GPU's. */
#include "check.h"
#include "comm/comm.h"
#include "core/half.h"
#include "core/memory.h"
#include "core/rng.h"
#ifdef GPU_DOUBLE
#include "gpu_double.h"
#endif

enum { MAX_SEGMENTS = 5, JOBS_AT_ONCE = 4 };
enum { GATHER, SCATTER, REDUCE, BROADCAST, BARRIER, HOST, N_KINDS };

typedef struct job {
    int kind, n, root, index;
    mz_dtype dtype, recv_dtype;
    float scale;
    bool accumulate, in_place;
    mz_segment segments[MAX_SEGMENTS];
    size_t recv_bytes[MAX_SEGMENTS];
    char *send[MAX_SEGMENTS], *recv[MAX_SEGMENTS], *expected[MAX_SEGMENTS]; /* host memory */
    char *given[MAX_SEGMENTS], *got[MAX_SEGMENTS];                          /* send and recv on the device */
} job;

static mz_device *device;
static bool on_host; /* device memory is host memory */
static int rank, size;
static double limit_seconds = 60;
static uint64_t n_draws;

/* The same sequence of draws on all ranks. */
static int64_t draw(int64_t below)
{
    return (int64_t)(mz_rng_u32(7, 1, 0, n_draws++) % (uint64_t)below);
}

/* What rank `from` gives as element `i` of a job's segment. */
static int value(const job *j, int segment, int from, int64_t i)
{
    return (int)(mz_rng_u32((uint64_t)j->index, (uint32_t)segment, (uint64_t)from, (uint64_t)i) % 17u) - 8;
}

static void store(void *p, mz_dtype dtype, int64_t i, int v)
{
    if (dtype == MZ_F32 || dtype == MZ_F16 || dtype == MZ_BF16)
        mz_store_f32(p, dtype, i, (float)v);
    else if (dtype == MZ_F64)
        ((double *)p)[i] = v;
    else if (dtype == MZ_I64)
        ((int64_t *)p)[i] = v;
    else if (dtype == MZ_I32)
        ((int32_t *)p)[i] = v;
    else
        ((uint8_t *)p)[i] = (uint8_t)v;
}

static int64_t draw_count(void)
{
    switch (draw(8)) {
    case 0:
        return 0;
    case 1:
        return 1;
    case 2:
        return 2 * draw(40) + 1;
    case 3:
        return 20000 + draw(60000);
    default:
        return draw(3000);
    }
}

static void draw_job(job *j, int index)
{
    *j = (job){.kind = (int)draw(N_KINDS), .n = (int)draw(MAX_SEGMENTS) + 1, .index = index, .scale = 1};
    j->root = (int)draw(size);
    j->in_place = draw(2);
    bool is_sum = j->kind == SCATTER || j->kind == REDUCE;
    j->dtype = (mz_dtype)draw(is_sum ? 3 : MZ_N_DTYPES);
    j->recv_dtype = j->dtype;
    if (is_sum)
        j->scale = draw(2) ? 0.5f : 1.0f;
    if (j->kind == SCATTER && !j->in_place) {
        j->recv_dtype = draw(2) ? MZ_F32 : j->dtype;
        j->accumulate = draw(2);
    }
    for (int s = 0; s < j->n; s++) {
        j->segments[s].count = draw_count();
        j->segments[s].stride = j->segments[s].count + draw(5);
    }
}

static int64_t send_length(const job *j, int s)
{
    return j->kind == SCATTER ? size * j->segments[s].stride : j->segments[s].count;
}

static int64_t recv_length(const job *j, int s)
{
    return j->kind == GATHER ? size * j->segments[s].stride : j->segments[s].count;
}

static void expect_sum(job *j, int s, int64_t first)
{
    for (int64_t i = 0; i < j->segments[s].count; i++) {
        float sum = 0;
        for (int r = 0; r < size; r++)
            sum += (float)value(j, s, r, first + i);
        sum *= j->scale;
        if (j->accumulate)
            sum += mz_load_f32(j->expected[s], j->recv_dtype, i);
        mz_store_f32(j->expected[s], j->recv_dtype, i, sum);
    }
}

static void expect(job *j, int s)
{
    const mz_segment *segment = &j->segments[s];
    if (j->kind == GATHER)
        for (int r = 0; r < size; r++)
            for (int64_t i = 0; i < segment->count; i++)
                store(j->expected[s], j->dtype, r * segment->stride + i, value(j, s, r, i));
    else if (j->kind == BROADCAST)
        for (int64_t i = 0; i < segment->count; i++)
            store(j->expected[s], j->dtype, i, value(j, s, j->root, i));
    else if (j->kind == SCATTER)
        expect_sum(j, s, rank * segment->stride);
    else
        expect_sum(j, s, 0);
}

/* A copy in device memory. */
static char *put(char *host, size_t bytes)
{
    void *memory = host;
    mz_stream *stream = NULL;
    if (on_host)
        return host;
    REQUIRE(device->ops->alloc(device, bytes, &memory));
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COPY, &stream));
    REQUIRE(device->ops->copy(stream, memory, host, bytes));
    REQUIRE(device->ops->stream_sync(stream));
    device->ops->stream_destroy(stream);
    return memory;
}

/* The whole of what was put, back to where it came from. */
static void take_back(char *host, char *memory, size_t bytes)
{
    mz_stream *stream = NULL;
    if (on_host)
        return;
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COPY, &stream));
    REQUIRE(device->ops->copy(stream, host, memory, bytes));
    REQUIRE(device->ops->stream_sync(stream));
    device->ops->stream_destroy(stream);
    device->ops->free(device, memory);
}

static size_t send_bytes_of(const job *j, int s)
{
    return (size_t)send_length(j, s) * mz_dtype_size(j->dtype);
}

static void prepare(job *j)
{
    for (int s = 0; s < j->n; s++) {
        size_t send_bytes = send_bytes_of(j, s);
        j->recv_bytes[s] = (size_t)recv_length(j, s) * mz_dtype_size(j->recv_dtype);
        j->send[s] = mz_calloc(1, send_bytes + 1);
        j->recv[s] = mz_calloc(1, j->recv_bytes[s] + 1);
        j->expected[s] = mz_calloc(1, j->recv_bytes[s] + 1);
        for (int64_t i = 0; i < send_length(j, s); i++)
            store(j->send[s], j->dtype, i, value(j, s, rank, i));
        for (int64_t i = 0; i < recv_length(j, s); i++) {
            store(j->recv[s], j->recv_dtype, i, (int)(i % 5));
            store(j->expected[s], j->recv_dtype, i, (int)(i % 5));
        }
        expect(j, s);
        mz_segment *segment = &j->segments[s];
        size_t block = (size_t)(rank * segment->stride) * mz_dtype_size(j->dtype);
        if (j->in_place && j->kind != SCATTER)
            memcpy(j->recv[s] + (j->kind == GATHER ? block : 0), j->send[s], send_bytes);
        j->given[s] = put(j->send[s], send_bytes + 1);
        j->got[s] = put(j->recv[s], j->recv_bytes[s] + 1);
        segment->send = j->given[s];
        segment->recv = j->got[s];
        if (j->in_place && j->kind == SCATTER)
            segment->recv = j->given[s] + block;
        else if (j->in_place)
            segment->send = j->got[s] + (j->kind == GATHER ? block : 0);
    }
}

static mz_status issue(job *j, mz_comm *comm, mz_stream *stream)
{
    double values[3] = {rank + 1.0, -rank, 1.0 / (rank + 1)};
    mz_status status;
    switch (j->kind) {
    case GATHER:
        return mz_all_gather(comm, j->segments, j->n, j->dtype, "gather", stream);
    case SCATTER:
        return mz_reduce_scatter(comm, j->segments, j->n, j->dtype, j->recv_dtype, j->scale, j->accumulate,
                                 "scatter", stream);
    case REDUCE:
        return mz_all_reduce(comm, j->segments, j->n, j->dtype, j->scale, "reduce", stream);
    case BROADCAST:
        return mz_broadcast(comm, j->segments, j->n, j->dtype, j->root, "broadcast", stream);
    case BARRIER:
        return mz_barrier(comm, "barrier");
    default:
        status = mz_all_reduce_host(comm, values, 3, j->in_place, "host");
        if (j->in_place)
            CHECK(values[0] == size && values[1] == 0 && values[2] == 1, "maximum %g %g %g", values[0], values[1],
                  values[2]);
        else
            CHECK(values[0] == size * (size + 1) / 2 && values[1] == -size * (size - 1) / 2, "sum %g %g", values[0],
                  values[1]);
        return status;
    }
}

static void verify_and_free(job *j)
{
    for (int s = 0; s < j->n; s++) {
        size_t bytes = j->kind == SCATTER && j->in_place ? (size_t)j->segments[s].count * mz_dtype_size(j->dtype)
                                                         : j->recv_bytes[s];
        const char *found = j->recv[s];
        take_back(j->send[s], j->given[s], send_bytes_of(j, s) + 1);
        take_back(j->recv[s], j->got[s], j->recv_bytes[s] + 1);
        if (j->kind == SCATTER && j->in_place)
            found = j->send[s] + (size_t)(rank * j->segments[s].stride) * mz_dtype_size(j->dtype);
        if (j->kind < BARRIER)
            CHECK(!memcmp(found, j->expected[s], bytes),
                  "rank %d of %d: job %d: kind %d, segment %d of %d, %lld x %s to %s, stride %lld, scale %g, "
                  "accumulate %d, in place %d, root %d",
                  rank, size, j->index, j->kind, s, j->n, (long long)j->segments[s].count, mz_dtype_name(j->dtype),
                  mz_dtype_name(j->recv_dtype), (long long)j->segments[s].stride, (double)j->scale, j->accumulate,
                  j->in_place, j->root);
        mz_free(j->send[s]);
        mz_free(j->recv[s]);
        mz_free(j->expected[s]);
    }
}

static void run_jobs(mz_comm *comm, mz_comm *other, int n_rounds)
{
    mz_stream *streams[3] = {NULL};
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COMPUTE, &streams[1]));
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COMM, &streams[2]));
    for (int round = 0; round < n_rounds; round++) {
        job jobs[JOBS_AT_ONCE];
        for (int i = 0; i < JOBS_AT_ONCE; i++) { /* taking memory waits for what is under way */
            draw_job(&jobs[i], round * JOBS_AT_ONCE + i);
            prepare(&jobs[i]);
        }
        for (int i = 0; i < JOBS_AT_ONCE; i++) {
            int where = (int)draw(4);
            REQUIRE(issue(&jobs[i], draw(2) ? comm : other, streams[where > 2 ? 2 : where]));
        }
        REQUIRE(device->ops->stream_sync(streams[1]));
        REQUIRE(device->ops->stream_sync(streams[2]));
        for (int i = 0; i < JOBS_AT_ONCE; i++)
            verify_and_free(&jobs[i]);
    }
    device->ops->stream_destroy(streams[1]);
    device->ops->stream_destroy(streams[2]);
}

/* How the ranks lie on the nodes: side by side, dealt out in turn, or without any order. */
typedef enum placement { SIDE_BY_SIDE, IN_TURN, NO_ORDER } placement;

static void place(mz_world *world, placement how)
{
    for (int r = 0; r < world->size && how != SIDE_BY_SIDE; r++)
        world->node_of[r] = how == IN_TURN ? r % world->n_nodes : (r + 1) / 2 % 2;
}

static void run_cut(int ranks_per_node, placement how, size_t chunk_bytes)
{
    const mz_world_options options = {.ranks_per_node = ranks_per_node, .timeout_seconds = limit_seconds};
    mz_world *world = NULL;
    mz_comm *comm = NULL, *other = NULL;
    mz_comm_stats stats;
    REQUIRE(mz_world_create(&options, &world));
    place(world, how);
    rank = world->rank;
    size = world->size;
    REQUIRE(mz_comm_create(world, device, 0, chunk_bytes, &comm));
    REQUIRE(mz_comm_create(world, device, 0, chunk_bytes, &other));
    CHECK(mz_comm_rank(comm) == rank && mz_comm_size(comm) == size, "%d of %d", mz_comm_rank(comm),
          mz_comm_size(comm));
    run_jobs(comm, other, 12);
    mz_comm_get_stats(comm, &stats);
    CHECK(stats.n_calls > 0, "nothing counted");
    mz_comm_destroy(comm);
    mz_comm_destroy(other);
    mz_world_destroy(world);
}

static void run_on_host(int n_ranks)
{
    for (int cut = n_ranks > 4 ? 2 : 1; cut <= n_ranks && cut <= 4; cut++) {
        run_cut(cut, SIDE_BY_SIDE, 4096);
        if (n_ranks <= 4)
            run_cut(cut, SIDE_BY_SIDE, 0);
    }
    if (n_ranks >= 4) {
        run_cut(2, IN_TURN, 0);
        run_cut(2, NO_ORDER, 0);
    }
}

/* On one node; one rank per node; and nodes of two or, when the ranks do not divide, uneven ones. */
static void run_on_gpus(int n_ranks, int n_gpus)
{
    if (n_ranks > n_gpus) {
        run_cut(1, SIDE_BY_SIDE, 4096);
        run_cut(1, SIDE_BY_SIDE, 0);
        return;
    }
    run_cut(0, SIDE_BY_SIDE, 0);
    if (n_ranks < 2)
        return;
    run_cut(1, SIDE_BY_SIDE, 4096);
    run_cut(2, SIDE_BY_SIDE, 0);
    if (n_ranks < 4)
        return;
    run_cut(2, SIDE_BY_SIDE, 4096);
    run_cut(2, IN_TURN, 0);
    run_cut(3, SIDE_BY_SIDE, 0);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "cpu";
    int level = 0, n_ranks = 0;
    mz_device_expect_awaits(); /* before the world is there to do it */
    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    on_host = strcmp(name, "cpu") == 0;
    if (!on_host) /* nobody else is on those machines */
        limit_seconds = 20;
    int n_devices = mz_device_count(name);
    REQUIRE(mz_device_open(name, on_host || !n_devices ? 0 : rank % n_devices, 1, &device));
#ifdef GPU_DOUBLE
    gpu_double_become(device, rank);
    on_host = false;
    n_devices = n_ranks;
#endif
    if (on_host)
        run_on_host(n_ranks);
    else
        run_on_gpus(n_ranks, n_devices);
    mz_device_close(device);
    MPI_Finalize();
    return n_failures != 0;
}
