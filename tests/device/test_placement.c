#include "tests/core/cmocka_all.h"

#include "device/placement.h"

enum { MOST = 8 };

static void range(cpu_set_t *set, int first, int last)
{
    CPU_ZERO(set);
    for (int cpu = first; cpu <= last; cpu++)
        CPU_SET(cpu, set);
}

/* A machine of two sockets with 8 processors each: GPUs 0 and 1 near the first, 2 and 3 near the second. */
static void make_near(cpu_set_t near[4])
{
    for (int gpu = 0; gpu < 4; gpu++)
        range(&near[gpu], gpu / 2 * 8, gpu / 2 * 8 + 7);
}

static void check(const cpu_set_t *near, int n_devices, const cpu_set_t *own, int n, const int *expected)
{
    int found[MOST];
    mz_place(near, n_devices, own, n, found);
    for (int r = 0; r < n; r++)
        assert_int_equal(found[r], expected[r]);
}

static void nobody_is_bound(void **state)
{
    cpu_set_t near[4], own[MOST];
    (void)state;
    make_near(near);
    for (int r = 0; r < 6; r++)
        range(&own[r], 0, 15);
    check(near, 4, own, 4, (int[]){0, 1, 2, 3});
    check(near, 4, own, 6, (int[]){0, 1, 2, 3, 0, 1});
    check(near, 1, own, 2, (int[]){0, 0});
}

static void nothing_is_known_of_the_devices(void **state)
{
    cpu_set_t near[4], own[4];
    (void)state;
    for (int i = 0; i < 4; i++) {
        CPU_ZERO(&near[i]);
        range(&own[i], 4 * i, 4 * i + 3);
    }
    check(near, 4, own, 4, (int[]){0, 1, 2, 3});
}

/* As Open MPI does it with --map-by socket. */
static void ranks_take_turns_on_the_sockets(void **state)
{
    cpu_set_t near[4], own[4];
    (void)state;
    make_near(near);
    for (int r = 0; r < 4; r++)
        range(&own[r], r % 2 * 8, r % 2 * 8 + 7);
    check(near, 4, own, 4, (int[]){0, 2, 1, 3});
    check(near, 4, own, 2, (int[]){0, 2});
}

static void a_bound_rank_chooses_before_a_free_one(void **state)
{
    cpu_set_t near[4], own[2];
    (void)state;
    make_near(near);
    range(&own[0], 0, 15);
    range(&own[1], 2, 3);
    check(near, 4, own, 2, (int[]){1, 0});
}

static void devices_are_shared_only_when_all_are_taken(void **state)
{
    cpu_set_t near[4], own[5];
    (void)state;
    make_near(near);
    for (int r = 0; r < 5; r++)
        range(&own[r], 8, 15);
    check(near, 4, own, 5, (int[]){2, 3, 0, 1, 2});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_bound),
        cmocka_unit_test(nothing_is_known_of_the_devices),
        cmocka_unit_test(ranks_take_turns_on_the_sockets),
        cmocka_unit_test(a_bound_rank_chooses_before_a_free_one),
        cmocka_unit_test(devices_are_shared_only_when_all_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
