/* All-gathers from memory that the ranks share: from slices into another place and in place, over and over with
 * other values, on a stream, and again after the memory was forgotten. With the argument "cuda" the memory is each
 * rank's GPU's (tests/gpu/run); then the time of a large one is printed, from shared memory and not. */
#include "check.h"
#include "comm/comm.h"
#include "core/memory.h"

enum { SLICE = 1 << 20, PADDING = 96, ROUNDS = 10, SEGMENTS = 2 }; /* elements of int32 */

typedef struct rig {
    mz_device *device;
    mz_comm *comm;
    mz_stream *stream;
    int rank, size;
    int32_t *slices, *pool, *whole, *host;
    size_t whole_bytes;
} rig;

static int32_t value(int round, int rank, int64_t i)
{
    return (int32_t)((uint32_t)i * 2654435761u + (uint32_t)rank * 40503u + (uint32_t)round);
}

static void write_slice(rig *r, int32_t *to, int round)
{
    for (int64_t i = 0; i < SLICE; i++)
        r->host[i] = value(round, r->rank, i);
    REQUIRE(mz_barrier(r->comm, "all have read"));
    REQUIRE(r->device->ops->copy(r->stream, to, r->host, (size_t)SLICE * sizeof *to));
    REQUIRE(mz_comm_publish(r->comm, "new values", r->stream));
}

static void read_all(rig *r, const int32_t *from, int round, int64_t stride, const char *what)
{
    int64_t wrong = 0;
    REQUIRE(r->device->ops->copy(r->stream, r->host, from, r->whole_bytes));
    REQUIRE(r->device->ops->stream_sync(r->stream));
    for (int k = 0; k < r->size; k++)
        for (int64_t i = 0; i < SLICE; i++)
            wrong += r->host[k * stride + i] != value(round, k, i);
    CHECK(wrong == 0, "rank %d, %s, round %d: %lld wrong values", r->rank, what, round, (long long)wrong);
}

/* Two segments of a slice into memory of this rank alone. */
static void from_slices(rig *r, int round)
{
    const int64_t first = 1000, stride = SLICE + PADDING;
    const mz_segment segments[SEGMENTS] = {{r->slices, r->pool, first, stride},
                                           {r->slices + first, r->pool + first, SLICE - first, stride}};
    write_slice(r, r->slices, round);
    REQUIRE(mz_all_gather(r->comm, segments, SEGMENTS, MZ_I32, "slices", r->stream));
    read_all(r, r->pool, round, stride, "slices");
}

static void in_place(rig *r, int round)
{
    const mz_segment segment = {r->whole + r->rank * (int64_t)SLICE, r->whole, SLICE, SLICE};
    write_slice(r, r->whole + r->rank * (int64_t)SLICE, round);
    REQUIRE(mz_all_gather(r->comm, &segment, 1, MZ_I32, "in place", r->stream));
    read_all(r, r->whole, round, SLICE, "in place");
}

static void run(rig *r)
{
    for (int round = 0; round < ROUNDS; round++) {
        from_slices(r, round);
        in_place(r, round);
    }
}

static void speed(rig *r, const char *what)
{
    enum { TIMES = 20, LARGE = 1 << 25 };
    void *memory = NULL;
    mz_event *begin = NULL, *end = NULL;
    const mz_device_ops *ops = r->device->ops;
    double seconds = 0, bytes = (double)LARGE * sizeof(int32_t) * r->size;
    bool shares = strcmp(what, "shared") == 0;
    REQUIRE(ops->alloc(r->device, (size_t)bytes, &memory));
    REQUIRE(ops->event_create(r->device, &begin));
    REQUIRE(ops->event_create(r->device, &end));
    REQUIRE(ops->fill(r->stream, memory, 1, (size_t)bytes));
    if (shares)
        REQUIRE(mz_comm_share(r->comm, memory, (size_t)bytes));
    const mz_segment segment = {(int32_t *)memory + r->rank * (int64_t)LARGE, memory, LARGE, LARGE};
    for (int i = 0; i < TIMES + 2; i++) {
        if (i == 2)
            REQUIRE(ops->event_record(begin, r->stream));
        REQUIRE(mz_all_gather(r->comm, &segment, 1, MZ_I32, what, r->stream));
    }
    REQUIRE(ops->event_record(end, r->stream));
    REQUIRE(ops->stream_sync(r->stream));
    REQUIRE(ops->event_elapsed(begin, end, &seconds));
    if (r->rank == 0)
        printf("all-gather of %.0f MiB, %s: bus bandwidth %.1f GB/s\n", bytes / (1 << 20), what,
               bytes * (r->size - 1) / r->size * TIMES / seconds / 1e9);
    REQUIRE(mz_barrier(r->comm, "timed"));
    mz_comm_forget(r->comm, memory);
    ops->free(r->device, memory);
    ops->event_destroy(begin);
    ops->event_destroy(end);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "cpu";
    bool on_gpu = strcmp(name, "cpu") != 0;
    const mz_world_options options = {.timeout_seconds = 60};
    mz_world *world = NULL;
    rig r = {0};
    void *slices, *pool, *whole;
    REQUIRE(mz_world_create(&options, &world));
    REQUIRE(mz_world_open_device(world, name, 1, &r.device));
    REQUIRE(mz_comm_create(world, r.device, 0, 0, &r.comm));
    REQUIRE(r.device->ops->stream_create(r.device, MZ_STREAM_COMM, &r.stream));
    r.rank = world->rank;
    r.size = world->size;
    r.whole_bytes = (size_t)r.size * (SLICE + PADDING) * sizeof(int32_t);
    r.host = mz_alloc(r.whole_bytes);
    REQUIRE(r.device->ops->alloc(r.device, (size_t)SLICE * sizeof(int32_t), &slices));
    REQUIRE(r.device->ops->alloc(r.device, r.whole_bytes, &pool));
    REQUIRE(r.device->ops->alloc(r.device, r.whole_bytes, &whole));
    r.slices = slices;
    r.pool = pool;
    r.whole = whole;
    run(&r);
    REQUIRE(mz_comm_share(r.comm, slices, (size_t)SLICE * sizeof(int32_t)));
    REQUIRE(mz_comm_share(r.comm, whole, r.whole_bytes));
    run(&r);
    REQUIRE(mz_barrier(r.comm, "forgetting"));
    mz_comm_forget(r.comm, slices);
    in_place(&r, ROUNDS);
    mz_comm_forget(r.comm, whole);
    run(&r);
    if (on_gpu) {
        speed(&r, "shared");
        speed(&r, "NCCL");
    }
    mz_free(r.host);
    r.device->ops->free(r.device, slices);
    r.device->ops->free(r.device, pool);
    r.device->ops->free(r.device, whole);
    r.device->ops->stream_destroy(r.stream);
    mz_comm_destroy(r.comm);
    mz_device_close(r.device);
    mz_world_destroy(world);
    return n_failures != 0;
}
