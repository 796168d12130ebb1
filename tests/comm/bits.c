/* Sums have the same bits each time, whatever else the machine does, and inside one node they are the fp32 sums in
 * the order of ranks, rounded once. */
#include "check.h"
#include "comm/comm.h"
#include "core/half.h"
#include "core/memory.h"
#include "core/rng.h"

enum { N = 30011, REPEATS = 8 };

static float given(int rank, int64_t i)
{
    return mz_rng_uniform(mz_rng_u32(3, 5, (uint64_t)rank, (uint64_t)i)) * (i % 7 ? 1.0f : 1e4f) - 0.3f;
}

static void fill(void *p, mz_dtype dtype, int rank)
{
    for (int64_t i = 0; i < N; i++)
        mz_store_f32(p, dtype, i, given(rank, i));
}

static void check_order(const void *got, mz_dtype dtype, int size, float scale)
{
    uint16_t one[1];
    float rounded;
    for (int64_t i = 0; i < N; i++) {
        float sum = 0;
        for (int r = 0; r < size; r++) {
            void *p = dtype == MZ_F32 ? (void *)&rounded : one;
            mz_store_f32(p, dtype, 0, given(r, i));
            sum = r ? sum + mz_load_f32(p, dtype, 0) : mz_load_f32(p, dtype, 0);
        }
        void *p = dtype == MZ_F32 ? (void *)&rounded : one;
        mz_store_f32(p, dtype, 0, scale * sum);
        float expected = mz_load_f32(p, dtype, 0), found = mz_load_f32(got, dtype, i);
        CHECK(expected == found, "%s, element %lld: expected %.9g, found %.9g", mz_dtype_name(dtype), (long long)i,
              (double)expected, (double)found);
        if (expected != found)
            return;
    }
}

static void check_type(const mz_world *world, mz_comm *comm, mz_dtype dtype, char *send, char *first, char *again)
{
    size_t bytes = N * mz_dtype_size(dtype);
    const mz_segment segment = {send, again, N, N};
    fill(send, dtype, world->rank);
    for (int i = 0; i < REPEATS; i++) {
        REQUIRE(mz_all_reduce(comm, &segment, 1, dtype, 1.0f / 3, "bits", NULL));
        if (i == 0)
            memcpy(first, again, bytes);
        CHECK(!memcmp(first, again, bytes), "%s: other bits in repetition %d", mz_dtype_name(dtype), i);
    }
    if (world->n_nodes == 1)
        check_order(first, dtype, world->size, 1.0f / 3);
    /* The same on all ranks. */
    memcpy(again, first, bytes);
    MPI_Bcast(again, (int)bytes, MPI_BYTE, 0, world->comm);
    CHECK(!memcmp(first, again, bytes), "%s: other bits than on rank 0", mz_dtype_name(dtype));
}

int main(void)
{
    int level = 0;
    mz_device *device = NULL;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    char *send = mz_alloc(N * sizeof(float)), *first = mz_alloc(N * sizeof(float)),
         *again = mz_alloc(N * sizeof(float));
    for (int cut = 1; cut <= 4; cut++) {
        mz_world *world = NULL;
        mz_comm *comm = NULL;
        const mz_world_options options = {.ranks_per_node = cut, .timeout_seconds = 60};
        REQUIRE(mz_world_create(&options, &world));
        REQUIRE(mz_comm_create(world, device, 0, 16384, &comm));
        check_type(world, comm, MZ_F32, send, first, again);
        check_type(world, comm, MZ_BF16, send, first, again);
        check_type(world, comm, MZ_F16, send, first, again);
        mz_comm_destroy(comm);
        mz_world_destroy(world);
    }
    mz_free(send);
    mz_free(first);
    mz_free(again);
    mz_device_close(device);
    MPI_Finalize();
    return n_failures != 0;
}
