/* Collectives side by side with MPI's own: median seconds and the ratio (above 1: ours is faster).
 *
 *     mpirun -n 2 tests/comm/bench_collectives [ranks per node [chunk bytes [largest MiB]]]
 *
 * The size is that of the whole: of the gathered buffer, of each rank's input to the reductions. */
#include "check.h"
#include "comm/comm.h"
#include "core/clock.h"
#include "core/memory.h"

enum { MAX_ROUNDS = 200 };

typedef struct bench {
    mz_world *world;
    mz_comm *comm;
    float *in, *out;
    int64_t count; /* of one rank's block */
    int size;
} bench;

static void our_gather(bench *b)
{
    const mz_segment segment = {b->in, b->out, b->count, b->count};
    REQUIRE(mz_all_gather(b->comm, &segment, 1, MZ_F32, "bench", NULL));
}

static void mpi_gather(bench *b)
{
    MPI_Allgather(b->in, (int)b->count, MPI_FLOAT, b->out, (int)b->count, MPI_FLOAT, b->world->comm);
}

static void our_scatter(bench *b)
{
    const mz_segment segment = {b->in, b->out, b->count, b->count};
    REQUIRE(mz_reduce_scatter(b->comm, &segment, 1, MZ_F32, MZ_F32, 1, false, "bench", NULL));
}

static void mpi_scatter(bench *b)
{
    MPI_Reduce_scatter_block(b->in, b->out, (int)b->count, MPI_FLOAT, MPI_SUM, b->world->comm);
}

static void our_reduce(bench *b)
{
    const mz_segment segment = {b->in, b->out, b->count * b->size, 0};
    REQUIRE(mz_all_reduce(b->comm, &segment, 1, MZ_F32, 1, "bench", NULL));
}

static void mpi_reduce(bench *b)
{
    MPI_Allreduce(b->in, b->out, (int)(b->count * b->size), MPI_FLOAT, MPI_SUM, b->world->comm);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of one call, the slowest rank's. The input is written afresh, as it is in training, so that no rank has a
 * clean copy of another's in its cache. */
static double time_once(bench *b, size_t bytes, void (*call)(bench *))
{
    for (size_t i = 0; i < bytes / sizeof(float); i++)
        b->in[i] += 1;
    MPI_Barrier(b->world->comm);
    double seconds = mz_clock_seconds();
    call(b);
    seconds = mz_clock_seconds() - seconds;
    MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, b->world->comm);
    return seconds;
}

static void compare(bench *b, const char *name, size_t bytes, void (*ours)(bench *), void (*mpis)(bench *))
{
    double our_seconds[MAX_ROUNDS], mpi_seconds[MAX_ROUNDS];
    int rounds = (int)(((size_t)512 << 20) / bytes);
    rounds = rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds < 11 ? 11 : rounds;
    for (int i = -2; i < rounds; i++) {
        double o = time_once(b, bytes, ours), m = time_once(b, bytes, mpis);
        if (i >= 0) {
            our_seconds[i] = o;
            mpi_seconds[i] = m;
        }
    }
    qsort(our_seconds, (size_t)rounds, sizeof(double), ascending);
    qsort(mpi_seconds, (size_t)rounds, sizeof(double), ascending);
    double o = our_seconds[rounds / 2], m = mpi_seconds[rounds / 2];
    if (b->world->rank == 0)
        printf("%-14s %9.0f KiB  ours %10.1f us (%6.2f GB/s)  MPI %10.1f us  ratio %.2f\n", name,
               (double)bytes / 1024, o * 1e6, (double)bytes / o * 1e-9, m * 1e6, m / o);
}

int main(int argc, char **argv)
{
    const mz_world_options options = {.ranks_per_node = argc > 1 ? atoi(argv[1]) : 0};
    size_t chunk_bytes = argc > 2 ? (size_t)atol(argv[2]) : 0;
    size_t most = (argc > 3 ? (size_t)atol(argv[3]) : 64) << 20;
    bench b = {NULL};
    mz_device *device = NULL;
    REQUIRE(mz_world_create(&options, &b.world));
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    REQUIRE(mz_comm_create(b.world, device, 0, chunk_bytes, &b.comm));
    b.size = b.world->size;
    b.in = mz_alloc_aligned(most);
    b.out = mz_alloc_aligned(most);
    for (size_t i = 0; i < most / sizeof(float); i++)
        b.in[i] = b.out[i] = (float)(i % 1000);
    for (size_t bytes = 4 << 10; bytes <= most; bytes *= 4) {
        b.count = (int64_t)(bytes / sizeof(float)) / b.size;
        compare(&b, "all_gather", bytes, our_gather, mpi_gather);
        compare(&b, "reduce_scatter", bytes, our_scatter, mpi_scatter);
        compare(&b, "all_reduce", bytes, our_reduce, mpi_reduce);
    }
    mz_free(b.in);
    mz_free(b.out);
    mz_comm_destroy(b.comm);
    mz_device_close(device);
    mz_world_destroy(b.world);
    return 0;
}
