/* Comms of some of the ranks: by colour, with ranks in none, split from others; bytes between nodes are the least
 * possible; bad arguments. */
#include "check.h"
#include "comm/comm.h"

enum { N = 240 };

static void check_groups(mz_world *world, mz_device *device)
{
    mz_comm *comm = NULL;
    int color = world->rank == 3 ? -1 : world->rank % 2; /* {0, 2}, {1}, and 3 in none */
    float mine = (float)world->rank, all[4] = {-1, -1, -1, -1}, sum = -1;
    REQUIRE(mz_comm_create(world, device, color, 0, &comm));
    CHECK((comm == NULL) == (color < 0), "rank %d", world->rank);
    int size = world->rank % 2 ? 1 : 2;
    CHECK(mz_comm_size(comm) == size && mz_comm_rank(comm) == world->rank / 2 % 2 * (size > 1), "%d of %d",
          mz_comm_rank(comm), mz_comm_size(comm));
    const mz_segment gather = {&mine, all, 1, 1}, reduce = {&mine, &sum, 1, 1};
    REQUIRE(mz_all_gather(comm, &gather, 1, MZ_F32, "group", NULL));
    REQUIRE(mz_all_reduce(comm, &reduce, 1, MZ_F32, 0.5f, "group", NULL));
    CHECK(all[0] == (size > 1 ? 0 : mine) && all[1] == (size > 1 ? 2 : -1), "%g %g", (double)all[0],
          (double)all[1]);
    CHECK(sum == (size > 1 ? 1 : mine / 2), "%g", (double)sum);
    double value = 3;
    REQUIRE(mz_all_reduce_host(comm, &value, 1, false, "group"));
    CHECK(value == 3 * size, "%g", value);
    REQUIRE(mz_barrier(comm, "group"));
    mz_comm_destroy(comm);
}

/* What enters a node for S bytes over M nodes is S * (M - 1) / M, evenly over the rails. */
static void check_traffic(mz_device *device, int ranks_per_node)
{
    static float in[4 * N], out[4 * N];
    mz_world *world = NULL;
    mz_comm *comm = NULL;
    mz_comm_stats stats;
    const mz_world_options options = {.ranks_per_node = ranks_per_node, .timeout_seconds = 60};
    REQUIRE(mz_world_create(&options, &world));
    REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    const mz_segment segment = {in, out, N, N};
    double least = sizeof in * (double)(world->n_nodes - 1) / world->n_nodes / world->local_size;
    REQUIRE(mz_all_gather(comm, &segment, 1, MZ_F32, "bytes", NULL));
    mz_comm_get_stats(comm, &stats);
    CHECK(stats.bytes_between_nodes == least, "all_gather: %g bytes, expected %g", stats.bytes_between_nodes,
          least);
    REQUIRE(mz_reduce_scatter(comm, &segment, 1, MZ_F32, MZ_F32, 1, false, "bytes", NULL));
    mz_comm_get_stats(comm, &stats);
    CHECK(stats.bytes_between_nodes == 2 * least, "both: %g bytes, expected %g", stats.bytes_between_nodes,
          2 * least);
    CHECK(stats.n_calls == 2 && stats.seconds > 0, "%lld calls", (long long)stats.n_calls);
    mz_comm_destroy(comm);
    mz_world_destroy(world);
}

/* The two levels of a comm as groups of their own: sums inside the nodes, blocks exchanged between them. */
static void check_levels(mz_device *device, int ranks_per_node)
{
    static float in[4 * N], out[4 * N];
    mz_world *world = NULL;
    mz_comm *comm = NULL, *node = NULL, *rail = NULL;
    mz_comm_place place;
    mz_comm_stats stats;
    const mz_world_options options = {.ranks_per_node = ranks_per_node, .timeout_seconds = 60};
    REQUIRE(mz_world_create(&options, &world));
    REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    mz_comm_get_place(comm, &place);
    CHECK(place.n_nodes == world->n_nodes && place.per_node == world->local_size && place.node == world->node &&
              place.local == world->local_rank && mz_comm_rank_at(comm, place.node, place.local) == world->rank,
          "%d x %d, at %d, %d", place.n_nodes, place.per_node, place.node, place.local);
    REQUIRE(mz_comm_split(comm, mz_comm_rank_at(comm, place.node, 0), place.per_node, 1, &node));
    REQUIRE(mz_comm_split(comm, place.local, place.n_nodes, place.per_node, &rail));
    CHECK(mz_comm_size(node) == place.per_node && mz_comm_rank(node) == place.local, "rank %d of %d",
          mz_comm_rank(node), mz_comm_size(node));
    CHECK(mz_comm_size(rail) == place.n_nodes && mz_comm_rank(rail) == place.node, "rank %d of %d",
          mz_comm_rank(rail), mz_comm_size(rail));
    float mine = (float)world->rank, sum = 0, expected = 0;
    const mz_segment one = {&mine, &sum, 1, 1};
    REQUIRE(mz_all_reduce(node, &one, 1, MZ_F32, 1, "node", NULL));
    for (int l = 0; l < place.per_node; l++)
        expected += (float)mz_comm_rank_at(comm, place.node, l);
    CHECK(sum == expected, "%g, not %g", (double)sum, (double)expected);

    for (int i = 0; i < 4 * N; i++)
        in[i] = (float)(world->rank * 10000 + i);
    const mz_segment blocks[] = {{in, out, N / 2, N}, {in + N / 2, out + N / 2, N / 2, N}};
    REQUIRE(mz_all_to_all(rail, blocks, 2, MZ_F32, "rail", NULL));
    for (int m = 0; m < place.n_nodes; m++)
        for (int i = 0; i < N; i++)
            if (out[m * N + i] != (float)(mz_comm_rank_at(comm, m, place.local) * 10000 + place.node * N + i)) {
                CHECK(false, "from node %d, element %d: %g", m, i, (double)out[m * N + i]);
                break;
            }
    mz_comm_get_stats(rail, &stats);
    double sent = (place.n_nodes - 1) * (double)N * sizeof(float);
    CHECK(stats.bytes_between_nodes == sent, "%g bytes, expected %g", stats.bytes_between_nodes, sent);
    if (place.per_node > 1)
        CHECK(mz_all_to_all(comm, blocks, 2, MZ_F32, "both levels", NULL) == MZ_ERR_UNSUPPORTED, "two levels");
    mz_comm_destroy(rail);
    mz_comm_destroy(node);
    mz_comm_get_stats(comm, &stats); /* remembers what its groups sent */
    CHECK(stats.bytes_between_nodes == sent, "%g bytes, expected %g", stats.bytes_between_nodes, sent);
    mz_comm_destroy(comm);
    mz_world_destroy(world);
}

/* Groups with ranks in none, of uneven sizes, and of groups; of one rank alone; bad ones. */
static void check_splits(mz_world *world, mz_device *device)
{
    mz_comm *comm = NULL, *three = NULL, *pair = NULL, *none = NULL;
    mz_comm_place place;
    bool is_last = world->rank == 3;
    REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    REQUIRE(mz_comm_split(comm, 0, is_last ? 0 : 3, 1, &three));
    CHECK((three == NULL) == is_last, "rank %d", world->rank);
    if (three)
        REQUIRE(mz_comm_split(three, world->rank % 2, world->rank % 2 ? 1 : 2, 2, &pair));
    double value = world->rank;
    REQUIRE(mz_all_reduce_host(pair, &value, 1, false, "pair"));
    CHECK(value == (world->rank % 2 ? world->rank : 2), "%g", value);
    mz_comm_destroy(pair);
    mz_comm_destroy(three);
    mz_status status = mz_comm_split(comm, 0, is_last ? 2 : 3, is_last ? 2 : 1, &none);
    CHECK(status == (is_last ? MZ_ERR_ARGUMENT : MZ_ERR_PEER) && !none, "%s", mz_status_text(status));
    status = mz_comm_split(comm, world->rank, 2, 3, &none);
    CHECK(status == (world->rank == 0 ? MZ_ERR_PEER : MZ_ERR_ARGUMENT), "%s", mz_status_text(status));
    mz_comm_destroy(comm);
    REQUIRE(mz_comm_split(NULL, 0, 1, 1, &none));
    CHECK(!none, "a group of one rank alone");
    mz_comm_get_place(NULL, &place);
    CHECK(place.n_nodes == 1 && place.per_node == 1 && mz_comm_rank_at(NULL, 0, 0) == 0, "alone");
}

static void check_arguments(mz_world *world, mz_device *device)
{
    mz_comm *comm = NULL;
    float x[8];
    mz_segment segment = {x, x, 2, 1};
    REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    CHECK(mz_all_gather(comm, &segment, 1, MZ_F32, "bad", NULL) == MZ_ERR_ARGUMENT, "stride below count");
    CHECK_MESSAGE("count 2 and stride 1");
    segment.stride = 2;
    CHECK(mz_all_reduce(comm, &segment, 1, MZ_I32, 1, "bad", NULL) == MZ_ERR_ARGUMENT, "sum of integers");
    CHECK(mz_broadcast(comm, &segment, 1, MZ_F32, 4, "bad", NULL) == MZ_ERR_ARGUMENT, "root");
    segment.count = -1;
    CHECK(mz_all_reduce(comm, &segment, 1, MZ_F32, 1, "bad", NULL) == MZ_ERR_ARGUMENT, "negative count");
    double values[65] = {0};
    CHECK(mz_all_reduce_host(comm, values, 65, true, "bad") == MZ_ERR_ARGUMENT, "too many values");
    REQUIRE(mz_barrier(comm, "still well"));
    mz_comm_destroy(comm);
}

int main(void)
{
    int level = 0;
    mz_device *device = NULL;
    mz_world *world = NULL;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    REQUIRE(mz_world_create(NULL, &world));
    check_groups(world, device);
    check_arguments(world, device);
    check_splits(world, device);
    for (int ranks_per_node = 1; ranks_per_node <= 4; ranks_per_node *= 2) {
        check_traffic(device, ranks_per_node);
        check_levels(device, ranks_per_node);
    }
    mz_world_destroy(world);
    mz_device_close(device);
    MPI_Finalize();
    return n_failures != 0;
}
