/* The watch over collectives that run without a host thread, with collectives that a CPU stream only pretends to
 * run: what is wrong on one rank ends the waiting on all of them, and the message says what, where and who. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "check.h"
#include "comm/comm.h"
#include "comm/watch.h"
#include "core/clock.h"
#include "core/error.h"

static const double limit_seconds = 0.6;

typedef struct stage {
    mz_world *world;
    mz_device *device;
    mz_stream *stream;
    mz_shm_segment segment;
    mz_shm_sync sync;
    uint64_t checked[8];
    int ranks[8];
    mz_watch *watch;
    _Atomic int release;  /* what the stream waits for */
    _Atomic int n_aborts; /* of the watch */
    _Atomic int n_marks;
    _Atomic bool broken; /* the library would report an error */
    uint64_t n;
} stage;

/* A collective that ends when it is let go, as a kernel that waits for another GPU. */
static mz_status wait_for_release(void *arg)
{
    stage *s = arg;
    while (!atomic_load(&s->release))
        usleep(1000);
    return MZ_OK;
}

static mz_status check_library(void *context)
{
    stage *s = context;
    return atomic_load(&s->broken) ? mz_fail(MZ_ERR_COMM, "the library broke") : MZ_OK;
}

/* Takes a moment, as telling others does. */
static void mark_failed(void *context, mz_status status, const char *message)
{
    stage *s = context;
    (void)status;
    (void)message;
    usleep(100000);
    atomic_fetch_add(&s->n_marks, 1);
}

static void abort_waiting(void *context, mz_status status, const char *message)
{
    stage *s = context;
    CHECK(status && *message, "an abort without a reason");
    atomic_fetch_add(&s->n_aborts, 1);
    atomic_store(&s->release, 1);
}

static void open_stage(stage *s, mz_world *world, mz_device *device)
{
    *s = (stage){.world = world, .device = device};
    for (int r = 0; r < world->size; r++)
        s->ranks[r] = r;
    size_t bytes = (mz_shm_sync_bytes(world->size) + 4095) / 4096 * 4096;
    REQUIRE(mz_shm_segment_open(world->comm, bytes, 4096, &s->segment));
    s->sync.segment = &s->segment;
    s->sync.members = (mz_members){s->ranks, world->rank, world->size, world->board};
    s->sync.checked = s->checked;
    mz_shm_sync_attach(&s->sync, s->segment.memory);
    const mz_watch_options options = {.device = device,
                                      .sync = &s->sync,
                                      .timeout_seconds = limit_seconds,
                                      .context = s,
                                      .check = check_library,
                                      .mark = mark_failed,
                                      .abort = abort_waiting};
    REQUIRE(mz_watch_create(&options, &s->watch));
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COMM, &s->stream));
    MPI_Barrier(world->comm);
}

static void close_stage(stage *s)
{
    atomic_store(&s->release, 1);
    s->device->ops->stream_destroy(s->stream);
    mz_watch_destroy(s->watch);
    MPI_Barrier(s->world->comm);
    mz_shm_segment_close(&s->segment);
}

/* Launches a collective and waits for it. */
static mz_status take_part(stage *s, uint64_t signature, const char *label)
{
    const mz_op_info op = {.sequence = s->n++,
                           .kind = "all_gather",
                           .label = label,
                           .count = 10,
                           .signature = signature,
                           .seconds = limit_seconds};
    mz_status status = mz_watch_begin(s->watch, &op, s->stream);
    if (!status) {
        status = s->device->ops->host_call(s->stream, wait_for_release, s);
        status = mz_watch_end(s->watch, status, s->stream);
    }
    mz_status synced = s->device->ops->stream_sync(s->stream);
    if (!status)
        status = synced ? synced : mz_watch_status(s->watch);
    return status;
}

/* More collectives than fit under way at once go through, and their seconds are counted. */
static void check_good(stage *s)
{
    atomic_store(&s->release, 1);
    for (int i = 0; i < 3 * MZ_WATCH_FLIGHTS; i++)
        CHECK(take_part(s, 1, "good") == MZ_OK, "%s", mz_last_error());
    CHECK(mz_watch_seconds(s->watch) > 0 && s->n_aborts == 0, "%g s, %d aborts", mz_watch_seconds(s->watch),
          s->n_aborts);
}

static void check_late(stage *s)
{
    if (s->world->rank == 1)
        usleep(2500000);
    double begin = mz_clock_seconds();
    mz_status status = take_part(s, 1, "unit h.3");
    CHECK(status == MZ_ERR_TIMEOUT, "rank %d: %s: %s", s->world->rank, mz_status_text(status), mz_last_error());
    CHECK_MESSAGE("all_gather #0 (unit h.3): rank 1 did not arrive within 0.6 s");
    CHECK(mz_clock_seconds() - begin < 2.4, "took %g s", mz_clock_seconds() - begin);
    CHECK(take_part(s, 1, "again") == MZ_ERR_TIMEOUT && s->n_aborts == 1, "the failure did not stay");
}

/* All arrive, and still it does not end. */
static void check_stuck(stage *s)
{
    mz_status status = take_part(s, 1, "unit h.4");
    CHECK(status == MZ_ERR_TIMEOUT, "rank %d: %s: %s", s->world->rank, mz_status_text(status), mz_last_error());
    CHECK_MESSAGE("got no further within 0.6 s");
}

static void check_mismatch(stage *s)
{
    mz_status status = take_part(s, s->world->rank == 2 ? 7 : 8, s->world->rank == 2 ? "other" : "weights");
    CHECK(status == MZ_ERR_MISMATCH, "rank %d: %s: %s", s->world->rank, mz_status_text(status), mz_last_error());
    CHECK_MESSAGE("(weights)");
    CHECK_MESSAGE("(other)");
}

static void check_broken(stage *s)
{
    atomic_store(&s->broken, s->world->rank == 1);
    mz_status status = take_part(s, 1, "unit h.5");
    CHECK(status == (s->world->rank == 1 ? MZ_ERR_COMM : MZ_ERR_PEER), "rank %d: %s", s->world->rank,
          mz_status_text(status));
    CHECK_MESSAGE("the library broke");
    if (s->world->rank != 1)
        CHECK_MESSAGE("rank 1 failed: ");
}

static void *fail_too(void *arg)
{
    stage *s = arg;
    mz_watch_fail(s->watch, mz_fail(MZ_ERR_DEVICE, "one of two failures"));
    CHECK(s->n_marks == 1, "failing returned before the failure was marked");
    return NULL;
}

/* Two threads fail at once, as the courier of collectives between nodes and one that launches may: neither goes on
 * before the comm has been marked, nor does who asks. */
static void check_two_failures(stage *s)
{
    pthread_t threads[2];
    if (s->world->rank != 0) {
        CHECK(take_part(s, 1, "unit h.7") == MZ_ERR_PEER, "%s", mz_last_error());
        CHECK_MESSAGE("rank 0 failed: one of two failures");
        return;
    }
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, fail_too, s);
    while (mz_watch_status(s->watch) == MZ_OK)
        usleep(100);
    CHECK(s->n_marks == 1, "the failure was told of before it was marked");
    CHECK(take_part(s, 1, "unit h.7") == MZ_ERR_DEVICE, "%s", mz_last_error());
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    CHECK(s->n_aborts == 1, "%d aborts", s->n_aborts);
}

/* A rank whose segment is closed counts as ended, whether it left or was killed. */
static void check_gone(stage *s)
{
    if (s->world->rank == 1) {
        mz_watch_destroy(s->watch); /* which looks at the segment */
        s->watch = NULL;
        mz_shm_segment_close(&s->segment);
        return;
    }
    double begin = mz_clock_seconds();
    mz_status status = take_part(s, 1, "unit h.6");
    CHECK(status == MZ_ERR_PEER, "rank %d: %s: %s", s->world->rank, mz_status_text(status), mz_last_error());
    CHECK_MESSAGE("all_gather #0 (unit h.6): rank 1 (process ");
    CHECK_MESSAGE("has ended; it was last at nowhere yet");
    CHECK(mz_clock_seconds() - begin < 0.5, "took %g s", mz_clock_seconds() - begin);
}

int main(void)
{
    static void (*const checks[])(stage *) = {check_good,   check_late,         check_stuck, check_mismatch,
                                              check_broken, check_two_failures, check_gone};
    mz_world *world = NULL;
    mz_device *device = NULL;
    REQUIRE(mz_world_create(NULL, &world));
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        stage s;
        open_stage(&s, world, device);
        checks[i](&s);
        close_stage(&s);
    }
    mz_device_close(device);
    mz_world_destroy(world);
    return n_failures != 0;
}
