/* Topology with every way of cutting four ranks of one machine into nodes. */
#include "check.h"
#include "comm/comm.h"

static void check_cut(int ranks_per_node)
{
    mz_world *world = NULL;
    const mz_world_options options = {.ranks_per_node = ranks_per_node, .timeout_seconds = 20};
    REQUIRE(mz_world_create(&options, &world));
    int cut = ranks_per_node ? ranks_per_node : world->size;
    int n_nodes = (world->size + cut - 1) / cut;
    CHECK(world->n_nodes == n_nodes, "%d per node: %d nodes", cut, world->n_nodes);
    CHECK(world->timeout_seconds == 20, "%g", world->timeout_seconds);
    for (int r = 0; r < world->size; r++) {
        CHECK(world->node_of[r] == r / cut, "%d per node: rank %d on node %d", cut, r, world->node_of[r]);
        CHECK(world->local_rank_of[r] == r % cut, "%d per node: rank %d is local %d", cut, r,
              world->local_rank_of[r]);
    }
    int last = world->size - (n_nodes - 1) * cut;
    CHECK(world->node == world->rank / cut && world->local_rank == world->rank % cut, "%d.%d", world->node,
          world->local_rank);
    CHECK(world->local_size == (world->node == n_nodes - 1 ? last : cut), "%d", world->local_size);
    CHECK(world->host[0], "no host name");
    CHECK(!world->owns_mpi, "took over MPI");
    mz_world_destroy(world);
}

static void check_refusals(int rank)
{
    mz_world *world = NULL;
    mz_world_options options = {.ranks_per_node = -1};
    CHECK(mz_world_create(&options, &world) == MZ_ERR_ARGUMENT && !world, "negative ranks per node");
    options.ranks_per_node = rank == 2 ? 2 : 4;
    CHECK(mz_world_create(&options, &world) == MZ_ERR_MISMATCH && !world, "unlike ranks per node");
    CHECK_MESSAGE("2 on one rank, 4 on another");
}

int main(void)
{
    int level = 0, rank = 0;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    for (int cut = 0; cut <= 5; cut++)
        check_cut(cut);
    check_refusals(rank);
    MPI_Finalize();
    return n_failures != 0;
}
