#include "core/threads.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cgroup.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/memory.h"

/* Longer than what the calling thread does alone within a training step of a small model. */
static const double spin_seconds = 100e-6;

typedef struct worker {
    pthread_t thread;
    struct mz_threads *pool;
    int index;
} worker;

struct mz_threads {
    int n_threads;
    bool spins; /* each thread has a core of its own */
    int n_started;
    worker *workers; /* [n_threads - 1]; worker i runs range i + 1 */

    /* The work in hand; written by the caller before `generation` moves on. */
    mz_range_fn fn;
    void *arg;
    int64_t n, chunk;
    bool quit;

    _Alignas(64) atomic_uint generation; /* one per dispatch; the workers wait for it to change */
    atomic_int n_sleeping;               /* workers in futex_wait on generation */
    _Alignas(64) atomic_uint n_pending;  /* workers not yet done; the caller waits for 0 */
    atomic_int caller_sleeps;
};

static void futex_wait(atomic_uint *word, unsigned expected)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake_all(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Watches `word` for a while; true as soon as it differs from (until_equal: is equal to) value. */
static bool spin(const mz_threads *pool, atomic_uint *word, unsigned value, bool until_equal)
{
    if ((atomic_load_explicit(word, memory_order_acquire) == value) == until_equal)
        return true;
    if (!pool->spins)
        return false;
    const double end = mz_clock_seconds() + spin_seconds;
    do {
        for (int i = 0; i < 32; i++) {
            relax();
            if ((atomic_load_explicit(word, memory_order_acquire) == value) == until_equal)
                return true;
        }
    } while (mz_clock_seconds() < end);
    return false;
}

static void run_range(const mz_threads *pool, int thread)
{
    const int64_t begin = pool->chunk * thread;
    const int64_t end = begin + pool->chunk < pool->n ? begin + pool->chunk : pool->n;
    if (begin < end)
        pool->fn(pool->arg, begin, end, thread);
}

static void *worker_main(void *arg)
{
    const worker *me = arg;
    mz_threads *pool = me->pool;
    unsigned seen = 0;
    for (;;) {
        while (!spin(pool, &pool->generation, seen, false)) {
            atomic_fetch_add(&pool->n_sleeping, 1);
            futex_wait(&pool->generation, seen);
            atomic_fetch_sub(&pool->n_sleeping, 1);
        }
        seen++;
        if (pool->quit)
            return NULL;
        run_range(pool, me->index + 1);
        if (atomic_fetch_sub(&pool->n_pending, 1) == 1 && atomic_load(&pool->caller_sleeps))
            futex_wake_all(&pool->n_pending);
    }
}

static void wake_workers(mz_threads *pool)
{
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->n_sleeping) > 0)
        futex_wake_all(&pool->generation);
}

static void wait_for_workers(mz_threads *pool)
{
    if (spin(pool, &pool->n_pending, 0, true))
        return;
    atomic_store(&pool->caller_sleeps, 1);
    for (unsigned left; (left = atomic_load(&pool->n_pending)) != 0;)
        futex_wait(&pool->n_pending, left);
    atomic_store(&pool->caller_sleeps, 0);
}

void mz_threads_for(mz_threads *pool, int64_t n, int64_t grain, mz_range_fn fn, void *arg)
{
    if (n <= 0)
        return;
    if (grain < 1)
        grain = 1;
    if (!pool || pool->n_threads == 1 || n <= grain) {
        fn(arg, 0, n, 0);
        return;
    }
    const int64_t n_grains = (n - 1) / grain + 1;
    pool->chunk = ((n_grains - 1) / pool->n_threads + 1) * grain;
    pool->n = n;
    pool->fn = fn;
    pool->arg = arg;
    atomic_store(&pool->n_pending, (unsigned)pool->n_threads - 1);
    wake_workers(pool);
    run_range(pool, 0);
    wait_for_workers(pool);
}

int mz_threads_count(const mz_threads *pool)
{
    return pool ? pool->n_threads : 1;
}

/* Cores in the affinity mask of a process (0: this one); 0 when the system does not say. */
static int cores_in_mask(pid_t pid)
{
    for (int n_cpus = 1024; n_cpus <= 1 << 20; n_cpus *= 4) {
        cpu_set_t *set = CPU_ALLOC((size_t)n_cpus);
        if (!set)
            return 0;
        const size_t bytes = CPU_ALLOC_SIZE((size_t)n_cpus);
        const int count = sched_getaffinity(pid, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (count > 0)
            return count;
    }
    return 0;
}

int mz_cores_available(void)
{
    int cores = cores_in_mask(0);
    if (cores < 1)
        cores = 1;
    const double quota = mz_cgroup_cpu_limit();
    if (quota > 0 && quota < cores)
        cores = quota < 1 ? 1 : (int)quota;
    return cores;
}

/* Ranks that the launcher put on this machine; 1 when no launcher says. */
static int local_ranks(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "PMI_LOCAL_SIZE",
                                        "SLURM_NTASKS_PER_NODE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value && atoi(value) > 0)
            return atoi(value);
    }
    return 1;
}

/* Spinning helps only while every runnable thread has a core. A rank whose mask is smaller than its
 * launcher's was bound: its cores are its own. Else all ranks of the machine share the mask. */
static bool has_cores_for(int n_threads)
{
    const int cores = mz_cores_available();
    const bool bound = cores_in_mask(0) < cores_in_mask(getppid());
    return (int64_t)n_threads * (bound ? 1 : local_ranks()) <= cores;
}

/* Signals stay with the thread that had them: workers start with all of them blocked. */
static int start_worker(mz_threads *pool, int index)
{
    sigset_t all, before;
    worker *w = &pool->workers[index];
    *w = (worker){.pool = pool, .index = index};
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&w->thread, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

mz_status mz_threads_create(int n_threads, mz_threads **out)
{
    if (n_threads < 1)
        return mz_fail(MZ_ERR_ARGUMENT, "thread pool: expected at least 1 thread, found %d", n_threads);
    mz_threads *pool = mz_alloc_aligned(sizeof *pool);
    if (!pool)
        return MZ_ERR_MEMORY;
    *pool = (mz_threads){.n_threads = n_threads, .spins = has_cores_for(n_threads)};
    pool->workers = mz_calloc((size_t)n_threads, sizeof *pool->workers);
    if (!pool->workers) {
        mz_threads_destroy(pool);
        return MZ_ERR_MEMORY;
    }
    for (int i = 0; i < n_threads - 1; i++) {
        const int error = start_worker(pool, i);
        if (error) {
            mz_threads_destroy(pool);
            return mz_fail(MZ_ERR_IO,
                           "thread pool: thread %d of %d could not be started (error %d); "
                           "use fewer threads or raise the limit on processes (ulimit -u)",
                           i + 1, n_threads, error);
        }
        pool->n_started++;
    }
    *out = pool;
    return MZ_OK;
}

void mz_threads_destroy(mz_threads *pool)
{
    if (!pool)
        return;
    pool->quit = true;
    wake_workers(pool);
    for (int i = 0; i < pool->n_started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    mz_free(pool->workers);
    mz_free(pool);
}
