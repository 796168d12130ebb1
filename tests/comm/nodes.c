/* Collectives between GPUs of two nodes against those of one node, on the same ranks and values: what is moved is
 * the same to the last bit, sums are within their types' rounding, and the same bits when repeated. Built with
 * GPU_DOUBLE, CPU streams take a GPU's place; else `nodes RANKS_PER_NODE` runs on GPUs (tests/gpu/run). */
#include <math.h>

#include "check.h"
#include "comm/comm.h"
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
    mz_comm *comm;
    void *out;
    void *host;
} side;

static mz_device *device;
static mz_stream *stream;
static int rank, size;

static void open_side(side *s, int ranks_per_node, size_t bytes)
{
    const mz_world_options options = {.ranks_per_node = ranks_per_node, .timeout_seconds = limit_seconds};
    REQUIRE(mz_world_create(&options, &s->world));
    REQUIRE(mz_comm_create(s->world, device, 0, 0, &s->comm));
    REQUIRE(device->ops->alloc(device, bytes, &s->out));
    REQUIRE(device->ops->alloc_pinned(device, bytes, &s->host));
}

static void close_side(side *s)
{
    mz_comm_destroy(s->comm);
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
static int64_t run(side *s, int kind, const void *in, int64_t count, mz_dtype dtype)
{
    const mz_segment segment = {in, s->out, count, count};
    int64_t n = kind == GATHER ? count * size : count;
    size_t bytes = (size_t)n * mz_dtype_size(dtype);
    REQUIRE(device->ops->fill(stream, s->out, 0x7b, bytes));
    if (kind == GATHER)
        REQUIRE(mz_all_gather(s->comm, &segment, 1, dtype, "nodes", stream));
    else if (kind == SCATTER)
        REQUIRE(mz_reduce_scatter(s->comm, &segment, 1, dtype, dtype, 0.25f, false, "nodes", stream));
    else if (kind == REDUCE)
        REQUIRE(mz_all_reduce(s->comm, &segment, 1, dtype, 0.25f, "nodes", stream));
    else
        REQUIRE(mz_broadcast(s->comm, &segment, 1, dtype, size - 1, "nodes", stream));
    REQUIRE(device->ops->copy(stream, s->host, s->out, bytes));
    REQUIRE(device->ops->stream_sync(stream));
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

static void compare(side *one, side *several, int kind, const void *in, int64_t count, mz_dtype dtype)
{
    int64_t n = run(one, kind, in, count, dtype);
    run(several, kind, in, count, dtype);
    size_t bytes = (size_t)n * mz_dtype_size(dtype);
    bool is_sum = kind == SCATTER || kind == REDUCE;
    double found = is_sum ? difference(one, several, dtype, n) : memcmp(one->host, several->host, bytes) != 0;
    /* the sums of a few values of at most 8, after scaling, are rounded at most once per rank on either side */
    CHECK(found <= (is_sum ? 16 * size : 0), "rank %d: %s of %lld x %s: %g units", rank, kind_names[kind],
          (long long)count, mz_dtype_name(dtype), found);
    memcpy(one->host, several->host, bytes);
    for (int i = 0; i < N_REPEATS; i++) {
        run(several, kind, in, count, dtype);
        CHECK(!memcmp(one->host, several->host, bytes), "rank %d: %s of %lld x %s: other bits in repetition %d",
              rank, kind_names[kind], (long long)count, mz_dtype_name(dtype), i);
    }
    if (rank == 0 && is_sum)
        printf("%-14s %9lld x %-4s  largest difference %.2f units of rounding\n", kind_names[kind],
               (long long)count, mz_dtype_name(dtype), found);
}

int main(int argc, char **argv)
{
    static const mz_dtype dtypes[] = {MZ_F32, MZ_BF16, MZ_F16};
    const int ranks_per_node = argc > 1 ? atoi(argv[1]) : 2;
    int level = 0;
    side one = {0}, several = {0};
    void *in = NULL;
    mz_device_expect_awaits(); /* before the world is there to do it */
    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
#ifdef GPU_DOUBLE
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    gpu_double_become(device, rank);
#else
    REQUIRE(mz_device_open("cuda", rank, 1, &device));
#endif
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COMM, &stream));
    size_t bytes = (size_t)counts[N_COUNTS - 1] * sizeof(float);
    open_side(&one, 0, bytes);
    open_side(&several, ranks_per_node, bytes);
    REQUIRE(device->ops->alloc(device, bytes, &in));
    char *host = mz_alloc(bytes);
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++)
        for (int c = 0; c < N_COUNTS; c++) {
            fill(host, dtypes[d], counts[c]);
            REQUIRE(device->ops->copy(stream, in, host, (size_t)counts[c] * mz_dtype_size(dtypes[d])));
            for (int kind = 0; kind < N_KINDS; kind++) {
                /* a count is the whole's */
                int64_t count = kind == GATHER || kind == SCATTER ? counts[c] / size : counts[c];
                compare(&one, &several, kind, in, count, dtypes[d]);
            }
        }
    close_side(&several);
    close_side(&one);
    device->ops->free(device, in);
    device->ops->stream_destroy(stream);
    mz_device_close(device);
    mz_free(host);
    MPI_Finalize();
    return n_failures != 0;
}
