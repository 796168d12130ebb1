/* A pool of worker threads for one rank's CPU kernels. The calling thread works too. */
#ifndef MZ_CORE_THREADS_H
#define MZ_CORE_THREADS_H

#include <stdint.h>

#include "mpizero/status.h"

typedef struct mz_threads mz_threads;

/* A range [begin, end) of the index space, run by thread `thread` (0 is the caller). */
typedef void (*mz_range_fn)(void *arg, int64_t begin, int64_t end, int thread);

/* n_threads >= 1 counts the calling thread. The workers spin briefly, then sleep. */
mz_status mz_threads_create(int n_threads, mz_threads **pool);
void mz_threads_destroy(mz_threads *pool);
int mz_threads_count(const mz_threads *pool); /* 1 for NULL */

/* Splits [0, n) into at most one contiguous range per thread, each a multiple of `grain` elements but
 * the last, and returns when all are done. The split depends on n, grain and the thread count only, so
 * that results are the same bits each run. A NULL pool runs all in the caller. Not re-entrant: a
 * range function must not call it; one caller at a time per pool. */
void mz_threads_for(mz_threads *pool, int64_t n, int64_t grain, mz_range_fn fn, void *arg);

/* Cores this process may run on (its affinity mask, cut by a cgroup quota). */
int mz_cores_available(void);

#endif
