#include "tests/core/cmocka_all.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "core/memory.h"
#include "core/threads.h"

enum { N_MAX = 10000 };

typedef struct work {
    atomic_int visits[N_MAX];
    int thread_of[N_MAX];
    int64_t n, grain;
    atomic_int n_ranges;
} work;

static void visit(void *arg, int64_t begin, int64_t end, int thread)
{
    work *w = arg;
    atomic_fetch_add(&w->n_ranges, 1);
    if (begin % w->grain != 0 || (end != w->n && (end - begin) % w->grain != 0) || begin >= end)
        atomic_fetch_add(&w->visits[0], 1000); /* seen by the caller's check */
    for (int64_t i = begin; i < end; i++) {
        atomic_fetch_add(&w->visits[i], 1);
        w->thread_of[i] = thread;
    }
}

static void every_element_once(void **state)
{
    static const int64_t sizes[] = {0, 1, 2, 7, 64, 1000, N_MAX}, grains[] = {1, 3, 64, 20000};
    (void)state;
    for (int n_threads = 1; n_threads <= 5; n_threads++) {
        mz_threads *pool;
        assert_int_equal(mz_threads_create(n_threads, &pool), MZ_OK);
        assert_int_equal(mz_threads_count(pool), n_threads);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++) {
                work *w = calloc(1, sizeof *w);
                w->n = sizes[s];
                w->grain = grains[g];
                mz_threads_for(pool, w->n, w->grain, visit, w);
                for (int64_t i = 0; i < w->n; i++) {
                    assert_int_equal(w->visits[i], 1);
                    assert_true(i == 0 || w->thread_of[i] >= w->thread_of[i - 1]);
                }
                assert_true(w->n_ranges <= n_threads);
                free(w);
            }
        }
        mz_threads_destroy(pool);
    }
}

static void add_one(void *arg, int64_t begin, int64_t end, int thread)
{
    int *x = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        x[i]++;
}

/* Back to back, so that workers are caught spinning; with pauses, so that they are caught asleep. */
static void many_dispatches(void **state)
{
    (void)state;
    for (int n_threads = 2; n_threads <= 4; n_threads++) {
        int x[8] = {0};
        mz_threads *pool;
        assert_int_equal(mz_threads_create(n_threads, &pool), MZ_OK);
        for (int i = 0; i < 3000; i++)
            mz_threads_for(pool, 8, 1, add_one, x);
        for (int i = 0; i < 50; i++) {
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
            mz_threads_for(pool, 8, 1, add_one, x);
        }
        mz_threads_destroy(pool);
        for (int i = 0; i < 8; i++)
            assert_int_equal(x[i], 3050);
    }
}

static void without_a_pool(void **state)
{
    int x[3] = {0};
    (void)state;
    mz_threads_for(NULL, 3, 1, add_one, x);
    assert_int_equal(x[2], 1);
    assert_int_equal(mz_threads_count(NULL), 1);
    mz_threads_destroy(NULL);
    assert_true(mz_cores_available() >= 1);
}

static void creation_errors(void **state)
{
    mz_threads *pool;
    (void)state;
    assert_int_equal(mz_threads_create(0, &pool), MZ_ERR_ARGUMENT);
    for (long n = 1;; n++) {
        mz_memory_fail_at(n);
        const mz_status status = mz_threads_create(3, &pool);
        mz_memory_fail_at(0);
        if (status == MZ_OK) {
            assert_true(n > 1);
            mz_threads_destroy(pool);
            return;
        }
        assert_int_equal(status, MZ_ERR_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_element_once),
        cmocka_unit_test(many_dispatches),
        cmocka_unit_test(without_a_pool),
        cmocka_unit_test(creation_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
