/* Collectives between GPUs of two nodes against those of one node, on the same ranks and values: what is moved is
 * the same to the last bit, sums are within their types' rounding, and the same bits when repeated. Built with
 * GPU_DOUBLE, CPU streams take a GPU's place; else `nodes RANKS_PER_NODE` runs on GPUs (tests/gpu/run). Where there
 * are fewer GPUs than ranks, they are shared by nodes of one rank (MPIZERO_SHARE_GPU), and compared with CPUs of
 * one node. Also: who settles the device goes on when all that was issued is launched. */
#include <math.h>

#include "check.h"
#include "comm/comm.h"
#include "core/clock.h"
#include "core/half.h"
#include "core/memory.h"
#include "core/rng.h"
#ifdef GPU_DOUBLE
#include "gpu_double.h"
static const int64_t counts[] = {1, 1001, 300007};
static const double limit_seconds = 60;
#else
static const int64_t counts[] = {1, 1001, 3000017, 16777259};
static const double limit_seconds = 20;
#endif

enum { N_COUNTS = sizeof counts / sizeof counts[0], N_REPEATS = 3 };
enum { GATHER, SCATTER, REDUCE, BROADCAST, N_KINDS };
static const char *const kind_names[N_KINDS] = {"all_gather", "reduce_scatter", "all_reduce", "broadcast"};

typedef struct side {
    mz_world *world;
    mz_device *device;
    mz_stream *stream;
    mz_comm *comm;
    void *in, *out;
    void *host;
} side;

static int rank, size;

static void open_side(side *s, mz_device *device, int ranks_per_node, size_t bytes)
{
    const mz_world_options options = {.ranks_per_node = ranks_per_node, .timeout_seconds = limit_seconds};
    s->device = device;
    REQUIRE(mz_world_create(&options, &s->world));
    REQUIRE(mz_comm_create(s->world, device, 0, 0, &s->comm));
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COMM, &s->stream));
    REQUIRE(device->ops->alloc(device, bytes, &s->in));
    REQUIRE(device->ops->alloc(device, bytes, &s->out));
    REQUIRE(device->ops->alloc_pinned(device, bytes, &s->host));
}

static void close_side(side *s)
{
    mz_device *device = s->device;
    device->ops->stream_destroy(s->stream);
    mz_comm_destroy(s->comm);
    device->ops->free(device, s->in);
    device->ops->free(device, s->out);
    device->ops->free_pinned(device, s->host);
    mz_world_destroy(s->world);
}

/* Values of either sign and of several magnitudes. */
static void fill(char *host, mz_dtype dtype, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float x = mz_rng_uniform(mz_rng_u32(11, 3, (uint64_t)rank, (uint64_t)i)) - 0.5f;
        mz_store_f32(host, dtype, i, i % 5 ? x : 64 * x);
    }
}

/* Into the side's host memory; the result's elements. */
static int64_t run(side *s, int kind, int64_t count, mz_dtype dtype)
{
    const mz_device_ops *ops = s->device->ops;
    const mz_segment segment = {s->in, s->out, count, count};
    int64_t n = kind == GATHER ? count * size : count;
    size_t bytes = (size_t)n * mz_dtype_size(dtype);
    REQUIRE(ops->fill(s->stream, s->out, 0x7b, bytes));
    if (kind == GATHER)
        REQUIRE(mz_all_gather(s->comm, &segment, 1, dtype, "nodes", s->stream));
    else if (kind == SCATTER)
        REQUIRE(mz_reduce_scatter(s->comm, &segment, 1, dtype, dtype, 0.25f, false, "nodes", s->stream));
    else if (kind == REDUCE)
        REQUIRE(mz_all_reduce(s->comm, &segment, 1, dtype, 0.25f, "nodes", s->stream));
    else
        REQUIRE(mz_broadcast(s->comm, &segment, 1, dtype, size - 1, "nodes", s->stream));
    REQUIRE(ops->copy(s->stream, s->host, s->out, bytes));
    REQUIRE(ops->stream_sync(s->stream));
    return n;
}

/* The largest difference, in units of the type's rounding of the largest values there are. */
static double difference(const side *a, const side *b, mz_dtype dtype, int64_t n)
{
    double worst = 0, unit = dtype == MZ_F32 ? 0x1p-24 : dtype == MZ_F16 ? 0x1p-11 : 0x1p-8;
    for (int64_t i = 0; i < n; i++) {
        double x = (double)mz_load_f32(a->host, dtype, i), y = (double)mz_load_f32(b->host, dtype, i);
        double scale = fmax(fmax(fabs(x), fabs(y)), 1);
        worst = fmax(worst, fabs(x - y) / (scale * unit));
    }
    return worst;
}

static void compare(side *one, side *several, int kind, int64_t count, mz_dtype dtype)
{
    int64_t n = run(one, kind, count, dtype);
    run(several, kind, count, dtype);
    size_t bytes = (size_t)n * mz_dtype_size(dtype);
    bool is_sum = kind == SCATTER || kind == REDUCE;
    double found = is_sum ? difference(one, several, dtype, n) : memcmp(one->host, several->host, bytes) != 0;
    /* the sums of a few values of at most 8, after scaling, are rounded at most once per rank on either side */
    CHECK(found <= (is_sum ? 16 * size : 0), "rank %d: %s of %lld x %s: %g units", rank, kind_names[kind],
          (long long)count, mz_dtype_name(dtype), found);
    memcpy(one->host, several->host, bytes);
    for (int i = 0; i < N_REPEATS; i++) {
        run(several, kind, count, dtype);
        CHECK(!memcmp(one->host, several->host, bytes), "rank %d: %s of %lld x %s: other bits in repetition %d",
              rank, kind_names[kind], (long long)count, mz_dtype_name(dtype), i);
    }
    if (rank == 0 && is_sum)
        printf("%-14s %9lld x %-4s  largest difference %.2f units of rounding\n", kind_names[kind],
               (long long)count, mz_dtype_name(dtype), found);
}

/* The last rank comes late. Who exchanges with it on the wire has something to launch until it has come. */
static void settle(side *s)
{
    const double late_seconds = 0.3;
    const mz_segment segment = {s->in, s->out, 1001, 1001};
    mz_comm_place place;
    mz_comm_get_place(s->comm, &place);
    bool waits = rank < size - 1 && mz_comm_rank_at(s->comm, place.n_nodes - 1, place.local) == size - 1;
    REQUIRE(mz_barrier(s->comm, "before settling"));
    mz_comm_set_delay(s->comm, rank == size - 1 ? late_seconds : 0);
    double begin = mz_clock_seconds();
    REQUIRE(mz_all_gather(s->comm, &segment, 1, MZ_F32, "settling", s->stream));
    double issued = mz_clock_seconds() - begin;
    mz_device_settle(s->device);
    double settled = mz_clock_seconds() - begin;
    if (waits)
        CHECK(issued < late_seconds / 2 && settled > late_seconds / 2,
              "rank %d: issued after %g s, settled after %g s", rank, issued, settled);
    REQUIRE(s->device->ops->stream_sync(s->stream));

    /* an event before the late one is behind what is launched */
    mz_event *event = NULL;
    REQUIRE(s->device->ops->event_create(s->device, &event));
    REQUIRE(mz_barrier(s->comm, "before settling again"));
    mz_comm_set_delay(s->comm, 0);
    REQUIRE(mz_all_gather(s->comm, &segment, 1, MZ_F32, "in time", s->stream));
    mz_event_mark(s->device, event);
    REQUIRE(s->device->ops->event_record(event, s->stream));
    mz_comm_set_delay(s->comm, rank == size - 1 ? late_seconds : 0);
    begin = mz_clock_seconds();
    REQUIRE(mz_all_gather(s->comm, &segment, 1, MZ_F32, "late", s->stream));
    mz_event_settle(s->device, event);
    settled = mz_clock_seconds() - begin;
    mz_device_settle(s->device);
    double all = mz_clock_seconds() - begin;
    if (waits)
        CHECK(settled < late_seconds / 2 && all > late_seconds / 2, "rank %d: settled after %g s, all after %g s",
              rank, settled, all);
    s->device->ops->event_destroy(event);
    mz_comm_set_delay(s->comm, 0);
    REQUIRE(s->device->ops->stream_sync(s->stream));
}

static void put(side *s, const void *host, size_t bytes)
{
    REQUIRE(s->device->ops->copy(s->stream, s->in, host, bytes));
    REQUIRE(s->device->ops->stream_sync(s->stream));
}

int main(int argc, char **argv)
{
    static const mz_dtype dtypes[] = {MZ_F32, MZ_BF16, MZ_F16};
    const int ranks_per_node = argc > 1 ? atoi(argv[1]) : 2;
    int level = 0;
    side one = {0}, several = {0};
    mz_device *device = NULL, *reference = NULL;
    mz_device_expect_awaits(); /* before the world is there to do it */
    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
#ifdef GPU_DOUBLE
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    gpu_double_become(device, rank);
#else
    int n_gpus = mz_device_count("cuda");
    REQUIRE(mz_device_open("cuda", n_gpus ? rank % n_gpus : 0, 1, &device));
    if (size > n_gpus)
        REQUIRE(mz_device_open("cpu", 0, 1, &reference));
#endif
    size_t bytes = (size_t)counts[N_COUNTS - 1] * sizeof(float);
    open_side(&one, reference ? reference : device, 0, bytes);
    open_side(&several, device, ranks_per_node, bytes);
    char *host = mz_alloc(bytes);
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++)
        for (int c = 0; c < N_COUNTS; c++) {
            fill(host, dtypes[d], counts[c]);
            put(&one, host, (size_t)counts[c] * mz_dtype_size(dtypes[d]));
            put(&several, host, (size_t)counts[c] * mz_dtype_size(dtypes[d]));
            for (int kind = 0; kind < N_KINDS; kind++) {
                /* a count is the whole's */
                int64_t count = kind == GATHER || kind == SCATTER ? counts[c] / size : counts[c];
                compare(&one, &several, kind, count, dtypes[d]);
            }
        }
    settle(&several);
    close_side(&several);
    close_side(&one);
    mz_device_close(reference);
    mz_device_close(device);
    mz_free(host);
    MPI_Finalize();
    return n_failures != 0;
}
