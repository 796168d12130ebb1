/* Who waits for whom: what a rank writes down is read by the other rank of its node while it is fresh; and what is
 * thought of a rank elsewhere, by what it answers and when. */
#include "comm/board.h"

#include <unistd.h>

#include "check.h"
#include "comm/comm.h"
#include "comm/transport.h"
#include "core/clock.h"

static const mz_op_info op = {.sequence = 7, .kind = "all_gather", .label = "unit h.3"};

static void meet(const mz_world *world)
{
    MPI_Barrier(world->comm);
}

static bool waits(const mz_world *world, int rank)
{
    mz_wait wait;
    bool does = mz_board_read(world->board, rank, &wait);
    char text[160];
    mz_wait_describe(&wait, text, sizeof text);
    CHECK(!does || strcmp(text, "waits for rank 0 at all_gather #7 (unit h.3)") == 0, "%s", text);
    CHECK(does || wait.rank == -1, "waits for nobody, but rank is %d", wait.rank);
    return does;
}

static void check_board(const mz_world *world)
{
    mz_waiter waiter = {0};
    double now = mz_clock_seconds();
    if (world->rank == 1)
        mz_board_wait(world->board, &waiter, &op, 0, now);
    meet(world);
    CHECK(!waits(world, 1), "a wait that has just begun is on the board");
    meet(world);
    if (world->rank == 1)
        mz_board_wait(world->board, &waiter, &op, 0, now = mz_clock_seconds() + 0.11);
    meet(world);
    CHECK(waits(world, 1) && !waits(world, 0) && !waits(world, 5), "who waits");
    usleep(2300000);
    CHECK(!waits(world, 1), "what was written long ago counts");
    meet(world);
    if (world->rank == 1)
        mz_board_wait(world->board, &waiter, &op, 0, mz_clock_seconds());
    meet(world);
    CHECK(waits(world, 1), "written again, but not seen");
    meet(world);
    mz_board_go_on(world->board, &waiter);
    meet(world);
    CHECK(!waits(world, 1), "a wait that is over is on the board");
}

/* More threads wait than there are places; all places are free in the end. */
static void check_places(const mz_world *world)
{
    enum { N_WAITERS = 9 };
    mz_waiter waiters[N_WAITERS] = {0};
    for (int round = 0; round < 3; round++) {
        double now = mz_clock_seconds();
        for (int i = 0; i < N_WAITERS; i++) {
            mz_board_wait(world->board, &waiters[i], &op, 0, now);
            mz_board_wait(world->board, &waiters[i], &op, 0, now + 0.2);
        }
        CHECK(waits(world, world->rank), "none of many is on the board");
        for (int i = 0; i < N_WAITERS; i++)
            mz_board_go_on(world->board, &waiters[i]);
        CHECK(!waits(world, world->rank), "a place is still taken");
    }
    mz_board_wait(NULL, &waiters[0], &op, 0, 1);
    mz_board_wait(NULL, &waiters[0], &op, 0, 2);
    mz_board_go_on(NULL, &waiters[0]);
    mz_wait wait;
    CHECK(!mz_board_read(NULL, 0, &wait) && wait.rank == -1, "no board, but a wait");
    mz_board_read_own(NULL, &wait);
    CHECK(wait.rank == -1, "no board, but a wait");
}

static void count(void *context)
{
    ++*(int *)context;
}

static void check_listeners(const mz_world *world)
{
    int n[2] = {0, 0};
    mz_board_listener a = {.listen = count, .context = &n[0]}, b = {.listen = count, .context = &n[1]};
    mz_waiter waiter = {0};
    mz_board_add(world->board, &a);
    mz_board_add(world->board, &b);
    mz_board_wait(world->board, &waiter, &op, 0, 1);
    mz_board_wait(world->board, &waiter, &op, 0, 1.2);
    mz_board_remove(world->board, &a);
    mz_board_wait(world->board, &waiter, &op, 0, 1.25);
    mz_board_wait(world->board, &waiter, &op, 0, 1.4);
    mz_board_remove(world->board, &b);
    mz_board_wait(world->board, &waiter, &op, 0, 1.6);
    mz_board_go_on(world->board, &waiter);
    CHECK(n[0] == 1 && n[1] == 2, "%d and %d calls", n[0], n[1]);
}

static void check_inquiry(void)
{
    mz_inquiry q = {0};
    mz_answer answer = {.wait = {.rank = 4}};
    CHECK(mz_inquiry_go_on(&q, 3, 100) == MZ_ASK, "it is not asked");
    CHECK(mz_inquiry_go_on(&q, 3, 101.9) == MZ_PATIENCE && mz_inquiry_go_on(&q, 3, 102.1) == MZ_BLAME, "no answer");

    CHECK(mz_inquiry_go_on(&q, 4, 200) == MZ_ASK, "another collective is not another case");
    answer.number = q.number - 1;
    mz_inquiry_answer(&q, &answer, 200.1);
    CHECK(q.asked > 0, "an answer to an older question counts");
    for (int i = 0; i < 100; i++) { /* it waits, and is excused as long as it does */
        answer.number = q.number;
        mz_inquiry_answer(&q, &answer, 200.1 + i);
        CHECK(mz_inquiry_go_on(&q, 4, 200.2 + i) == MZ_PATIENCE, "it waits, but is blamed");
        CHECK(mz_inquiry_go_on(&q, 4, 200.9 + i) == MZ_ASK, "it is not asked again");
    }
    answer = (mz_answer){.number = q.number, .wait.rank = -1};
    mz_inquiry_answer(&q, &answer, 301);
    CHECK(mz_inquiry_go_on(&q, 4, 301.3) == MZ_ASK, "blamed after one look");
    answer.number = q.number;
    mz_inquiry_answer(&q, &answer, 301.6);
    CHECK(mz_inquiry_go_on(&q, 4, 301.6) == MZ_BLAME, "not blamed");
    CHECK(mz_inquiry_go_on(&q, 5, 400) == MZ_ASK, "what was is not forgotten");
}

int main(void)
{
    mz_world *world = NULL;
    REQUIRE(mz_world_create(NULL, &world));
    for (int i = 0; i < 2; i++) {
        check_board(world);
        meet(world);
    }
    check_places(world);
    check_listeners(world);
    check_inquiry();
    mz_world_destroy(world);
    return n_failures != 0;
}
