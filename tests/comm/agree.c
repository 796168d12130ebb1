/* Agreement on status and on data: all well, one or more failed, places differ, data differ, one is late. */
#include <unistd.h>

#include "check.h"
#include "comm/comm.h"
#include "core/error.h"

enum { N_GOOD = 100 };

static void check_failed_ranks(mz_world *world)
{
    mz_status mine = MZ_OK;
    if (world->rank == 1 || world->rank == 3)
        mine = mz_fail(world->rank == 1 ? MZ_ERR_IO : MZ_ERR_MEMORY, "rank %d has no cheese", world->rank);
    mz_status got = mz_agree(world, mine, "shopping");
    mz_status expected = mine ? mine : MZ_ERR_PEER;
    CHECK(got == expected, "%s", mz_status_text(got));
    if (mine)
        CHECK_MESSAGE(world->rank == 1 ? "rank 1 has no cheese" : "rank 3 has no cheese");
    else
        CHECK_MESSAGE("rank 1 failed at shopping: rank 1 has no cheese");

    mine = world->rank == 0 ? mz_fail(MZ_ERR_DATA, "bad egg") : MZ_OK;
    got = mz_agree(world, mine, "cooking");
    CHECK(got == (mine ? MZ_ERR_DATA : MZ_ERR_PEER), "%s", mz_status_text(got));
    CHECK_MESSAGE(mine ? "bad egg" : "rank 0 failed at cooking: bad egg");
}

static void check_same(mz_world *world)
{
    char text[] = "one and the same";
    CHECK(mz_agree_same(world, text, sizeof text, "the recipe") == MZ_OK, "%s", mz_last_error());
    CHECK(mz_agree_same(world, NULL, 0, "nothing") == MZ_OK, "%s", mz_last_error());
    if (world->rank == 2)
        text[3] = '-';
    CHECK(mz_agree_same(world, text, sizeof text, "the recipe") == MZ_ERR_MISMATCH, "difference not seen");
    CHECK_MESSAGE("the recipe must be the same on all ranks, but rank 2's");
    CHECK(mz_agree_same(world, "aa", world->rank == 3 ? 1 : 2, "the length") == MZ_ERR_MISMATCH, "length");
    CHECK_MESSAGE("rank 3's");
}

static void check_places(mz_world *world)
{
    mz_status got = mz_agree(world, MZ_OK, world->rank == 3 ? "saving" : "loading");
    CHECK(got == MZ_ERR_MISMATCH, "%s", mz_status_text(got));
    CHECK_MESSAGE("rank 0 at \"loading\", rank 3 at \"saving\"");
}

static void check_late(mz_world *world)
{
    world->timeout_seconds = 0.5;
    if (world->rank == 2)
        sleep(2);
    mz_status got = mz_agree(world, MZ_OK, "breakfast");
    CHECK(got == MZ_ERR_TIMEOUT, "%s", mz_status_text(got));
    CHECK_MESSAGE("agree #107 (breakfast): rank 2 did not arrive within 0.5 s");
}

int main(void)
{
    mz_world *world = NULL;
    REQUIRE(mz_world_create(NULL, &world));
    CHECK(world->owns_mpi, "MPI was not started");
    for (int i = 0; i < N_GOOD; i++)
        CHECK(mz_agree(world, MZ_OK, "waking") == MZ_OK, "%s", mz_last_error());
    check_failed_ranks(world);
    check_same(world);
    check_places(world);
    check_late(world);
    mz_world_destroy(world);
    return n_failures != 0;
}
