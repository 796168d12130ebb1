/* Collectives with fewer bits between nodes: within what rounding to blocks costs of the exact ones, the same
 * values on all ranks, nothing rounded inside a node, and the bytes that the bits say.
 *
 *     mpirun -n 4 quantized [DEVICE [RANKS_PER_NODE]]
 *
 * Built with GPU_DOUBLE, CPU streams take a GPU's place. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "comm/comm.h"
#include "core/half.h"
#include "core/rng.h"
#include "kernels/kernels.h"
#ifdef GPU_DOUBLE
#include "gpu_double.h"
#endif

enum { COUNT = 40000, ODD = 1234, STRIDE = COUNT + ODD + 30, SIZE = 4, N = SIZE * STRIDE };

static float in[N], sums[N], out[N], wide[N];
static uint16_t in16[N], out16[N];
static mz_device *device;
static void *given, *got; /* [N] floats each in the device's memory */

static double limit_of(int bits)
{
    return bits == 8 ? 127 : 7;
}

/* Element i of rank r's buffer: a normal number, growing over the blocks so that each has a scale of its own. */
static void fill(float *x, int r)
{
    mz_rng_fill_normal(3, (uint32_t)r, 0, N, x);
    for (int i = 0; i < N; i++)
        x[i] *= (float)(1 + i % STRIDE / MZ_QUANT_BLOCK);
}

static void move(void *to, const void *from, size_t bytes)
{
    mz_stream *stream = NULL;
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COPY, &stream));
    REQUIRE(device->ops->copy(stream, to, from, bytes));
    REQUIRE(device->ops->stream_sync(stream));
    device->ops->stream_destroy(stream);
}

static double sent(const mz_comm *comm)
{
    mz_comm_stats stats;
    mz_comm_get_stats(comm, &stats);
    return stats.bytes_between_nodes;
}

static double bytes_of(int bits)
{
    return (double)(mz_quantized_bytes(COUNT, bits) + mz_quantized_bytes(ODD, bits));
}

/* Blocks of two segments, the second of an odd length. */
static void check_gather(mz_comm *comm, int n_nodes, mz_dtype dtype, int bits)
{
    int rank = mz_comm_rank(comm);
    bool is_wide = dtype == MZ_F32;
    size_t size = mz_dtype_size(dtype);
    char *result = is_wide ? (char *)out : (char *)out16, *all = got;
    const char *mine = (const char *)given + (size_t)rank * STRIDE * size;
    fill(in, 0);
    mz_convert(in16, dtype, in, MZ_F32, is_wide ? 0 : N);
    mz_convert(wide, MZ_F32, in16, dtype, is_wide ? 0 : N);
    memset(out, 0, sizeof out);
    memset(out16, 0, sizeof out16);
    move(given, is_wide ? (void *)in : in16, N * size);
    move(got, result, N * size); /* between blocks it stays so */
    const mz_segment segments[] = {{mine, all, COUNT, STRIDE},
                                   {mine + COUNT * size, all + COUNT * size, ODD, STRIDE}};
    double before = sent(comm);
    REQUIRE(mz_all_gather_quantized(comm, segments, 2, dtype, bits, "gather", NULL));
    double expected = (n_nodes - 1) * bytes_of(bits);
    CHECK(sent(comm) - before == expected, "%g bytes, expected %g", sent(comm) - before, expected);
    move(result, got, N * size);
    if (!is_wide)
        mz_convert(out, MZ_F32, out16, dtype, N);
    else
        memcpy(wide, in, sizeof in);
    double worst = 0;
    for (int i = 0; i < N; i++) {
        int at = i % STRIDE;
        if (at >= COUNT + ODD)
            continue;
        /* a block's largest magnitude is below 5 of its standard deviations */
        double step = 5.0 * (1 + at / MZ_QUANT_BLOCK + 1) / limit_of(bits);
        worst = fmax(worst, fabs((double)out[i] - (double)wide[i]) / step);
    }
    CHECK(n_nodes == 1 ? worst == 0 : worst > 0.1 && worst < 0.6, "%s, %d bits: differs by %g steps",
          mz_dtype_name(dtype), bits, worst);
    static uint8_t of_first[sizeof out];
    memcpy(of_first, result, N * size);
    MPI_Bcast(of_first, (int)(N * size), MPI_BYTE, 0, MPI_COMM_WORLD);
    CHECK(memcmp(of_first, result, N * size) == 0, "%s, %d bits: other values than on rank 0", mz_dtype_name(dtype),
          bits);
}

static void check_scatter(mz_comm *comm, int n_nodes, mz_dtype dtype, int bits, bool accumulate)
{
    int rank = mz_comm_rank(comm);
    bool is_wide = dtype == MZ_F32;
    size_t size = mz_dtype_size(dtype);
    memset(sums, 0, sizeof sums);
    for (int r = 0; r < SIZE; r++) {
        fill(wide, r + 1);
        for (int i = 0; i < N; i++)
            sums[i] += wide[i];
        if (r == rank) {
            memcpy(in, wide, sizeof in);
            mz_convert(in16, dtype, in, MZ_F32, is_wide ? 0 : N);
        }
    }
    for (int i = 0; i < N; i++)
        out[i] = 1;
    const char *from = given;
    float *to = got;
    move(given, is_wide ? (void *)in : in16, N * size);
    move(got, out, sizeof out);
    const mz_segment segments[] = {{from, to, COUNT, STRIDE}, {from + COUNT * size, to + COUNT, ODD, STRIDE}};
    double before = sent(comm);
    REQUIRE(mz_reduce_scatter_quantized(comm, segments, 2, dtype, MZ_F32, 0.5f, accumulate, bits, "scatter", NULL));
    double expected = (n_nodes - 1) * bytes_of(bits);
    CHECK(sent(comm) - before == expected, "%g bytes, expected %g", sent(comm) - before, expected);
    move(out, got, sizeof out);
    double worst = 0;
    for (int i = 0; i < COUNT + ODD; i++) {
        double exact = 0.5 * (double)sums[rank * STRIDE + i] + accumulate;
        double step = 0.5 * 5.0 * sqrt(SIZE) * (1 + i / MZ_QUANT_BLOCK + 1) / limit_of(bits);
        worst = fmax(worst, fabs((double)out[i] - exact) / step);
    }
    double rounding = dtype == MZ_F32 ? 1e-4 : 0.3; /* of 16 bits, beside steps of 8 */
    CHECK(n_nodes == 1 ? worst < rounding : worst > 0.1 && worst < 1.5,
          "%s, %d bits, %d nodes: differs by %g steps", mz_dtype_name(dtype), bits, n_nodes, worst);
}

/* An infinity on one rank is seen by who gets the block. */
static void check_nonfinite(mz_comm *comm, int n_nodes)
{
    int rank = mz_comm_rank(comm);
    fill(in, rank);
    for (int r = 0; r < SIZE; r++)
        if (rank == 1)
            in[r * STRIDE + 300] = INFINITY;
    move(given, in, sizeof in);
    const mz_segment segment = {given, got, COUNT, STRIDE};
    REQUIRE(mz_reduce_scatter_quantized(comm, &segment, 1, MZ_F32, MZ_F32, 1, false, 4, "infinite", NULL));
    move(out, got, sizeof out);
    CHECK(!isfinite(out[300]), "%g", (double)out[300]);
    CHECK(n_nodes > 1 || isfinite(out[301]), "%g", (double)out[301]);
    CHECK(isfinite(out[0]) && isfinite(out[600]), "%g %g", (double)out[0], (double)out[600]);
}

static void run(int ranks_per_node)
{
    mz_world *world = NULL;
    mz_comm *comm = NULL;
    const mz_world_options options = {.ranks_per_node = ranks_per_node, .timeout_seconds = 60};
    REQUIRE(mz_world_create(&options, &world));
    REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    mz_comm_place place;
    mz_comm_get_place(comm, &place);
    for (int bits = 4; bits <= 8; bits += 4)
        for (mz_dtype dtype = MZ_F32; dtype <= MZ_BF16; dtype++) {
            check_gather(comm, place.n_nodes, dtype, bits);
            check_scatter(comm, place.n_nodes, dtype, bits, false);
            check_scatter(comm, place.n_nodes, dtype, bits, true);
        }
    check_nonfinite(comm, place.n_nodes);
    const mz_segment segment = {given, got, 4, 4};
    CHECK(mz_all_gather_quantized(comm, &segment, 1, MZ_F32, 5, "5 bits", NULL) == MZ_ERR_ARGUMENT, "5 bits");
    CHECK(mz_all_gather_quantized(comm, &segment, 1, MZ_I32, 8, "i32", NULL) == MZ_ERR_ARGUMENT, "i32");
    mz_comm_destroy(comm);
    mz_world_destroy(world);
}

int main(int argc, char **argv)
{
    int level = 0, rank = 0;
    const char *name = argc > 1 ? argv[1] : "cpu";
    mz_device_expect_awaits(); /* before the world is there to do it */
    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    int n_devices = mz_device_count(name);
    REQUIRE(mz_device_open(name, n_devices ? rank % n_devices : 0, 1, &device));
#ifdef GPU_DOUBLE
    gpu_double_become(device, rank);
#endif
    REQUIRE(device->ops->alloc(device, sizeof in, &given));
    REQUIRE(device->ops->alloc(device, sizeof out, &got));
    for (int n = argc > 2 ? atoi(argv[2]) : 1; n <= (argc > 2 ? atoi(argv[2]) : SIZE); n++)
        run(n); /* with 3, the nodes have 3 and 1 */
    device->ops->free(device, given);
    device->ops->free(device, got);
    mz_device_close(device);
    MPI_Finalize();
    return n_failures != 0;
}
