/* What goes wrong between ranks is found within the deadline, on all ranks, and the message says who and where: a
 * late rank, another collective, another count, one rank more; on one node, on several, on one per rank. */
#include "check.h"
#include "comm/comm.h"
#include "core/clock.h"
#include "core/error.h"

enum { N = 1000 };
static const double limit_seconds = 0.5;

typedef struct stage {
    mz_world *world;
    mz_device *device;
    mz_comm *comm;
    mz_stream *stream;
    float in[N], out[4 * N];
} stage;

static mz_status gather(stage *s, int64_t count, const char *label)
{
    const mz_segment segment = {s->in, s->out, count, N};
    mz_status status = mz_all_gather(s->comm, &segment, 1, MZ_F32, label, s->stream);
    mz_status synced = s->device->ops->stream_sync(s->stream);
    return status ? status : synced;
}

static void check_late(stage *s, int culprit)
{
    char names[64];
    CHECK(gather(s, N, "warm up") == MZ_OK, "%s", mz_last_error());
    if (s->world->rank == culprit)
        mz_comm_set_delay(s->comm, 4);
    double begin = mz_clock_seconds();
    mz_status status = gather(s, N, "unit h.3");
    double seconds = mz_clock_seconds() - begin;
    CHECK(status == MZ_ERR_TIMEOUT, "rank %d: %s: %s", s->world->rank, mz_status_text(status), mz_last_error());
    CHECK(seconds < (s->world->rank == culprit ? 8 : 3.8), "took %g s", seconds);
    snprintf(names, sizeof names, "all_gather #1 (unit h.3): rank %d did not arrive within 0.5 s", culprit);
    CHECK_MESSAGE(names);
    mz_comm_set_delay(s->comm, 0);
    begin = mz_clock_seconds();
    CHECK(gather(s, N, "again") == MZ_ERR_TIMEOUT && mz_clock_seconds() - begin < 0.5, "the failure did not stay");
    CHECK_MESSAGE(names);
}

static void check_other_kind(stage *s, int culprit)
{
    mz_status status;
    CHECK(gather(s, 0, "warm up") == MZ_OK, "%s", mz_last_error());
    MPI_Barrier(MPI_COMM_WORLD); /* the failure may overtake the warming up of others */
    if (s->world->rank == culprit) {
        const mz_segment segment = {s->in, s->in, N, N};
        status = mz_all_reduce(s->comm, &segment, 1, MZ_F32, 1, "gradients", NULL);
    } else {
        status = gather(s, N, "weights");
    }
    CHECK(status == MZ_ERR_MISMATCH, "rank %d: %s: %s", s->world->rank, mz_status_text(status), mz_last_error());
    CHECK_MESSAGE("all_gather of 1000 elements (weights)");
    CHECK_MESSAGE("all_reduce of 1000 elements (gradients)");
    CHECK_MESSAGE("collective #1");
}

static void check_other_count(stage *s, int culprit)
{
    char names[64];
    mz_status status = gather(s, s->world->rank == culprit ? 20 : 30, "weights");
    CHECK(status == MZ_ERR_MISMATCH, "rank %d: %s: %s", s->world->rank, mz_status_text(status), mz_last_error());
    snprintf(names, sizeof names, "rank %d at all_gather of 20 elements", culprit);
    if (s->world->rank != culprit)
        CHECK(strstr(mz_last_error(), names) || strstr(mz_last_error(), "is at all_gather of 20"), "%s",
              mz_last_error());
    CHECK_MESSAGE("of 30 elements (weights)");
}

/* One rank's own trouble reaches the others: its stream fails before the collective is run. */
static mz_status broken(void *arg)
{
    return mz_fail(MZ_ERR_DEVICE, "%s", (const char *)arg);
}

static void check_stream_failure(stage *s, int culprit)
{
    if (s->world->rank == culprit)
        REQUIRE(s->device->ops->host_call(s->stream, broken, "out of smoke"));
    mz_status status = gather(s, N, "weights");
    CHECK(status == (s->world->rank == culprit ? MZ_ERR_DEVICE : MZ_ERR_TIMEOUT), "rank %d: %s: %s", s->world->rank,
          mz_status_text(status), mz_last_error());
    CHECK(status == MZ_ERR_DEVICE || strstr(mz_last_error(), "did not arrive"), "%s", mz_last_error());
    if (s->world->rank != culprit)
        return;
    CHECK(gather(s, N, "later") == MZ_ERR_TIMEOUT, "%s", mz_last_error());
    CHECK_MESSAGE("this rank's own collective #0 did not run");
}

typedef void (*scenario)(stage *s, int culprit);

static void play(scenario act, int ranks_per_node, int culprit, mz_device *device)
{
    static stage s;
    const mz_world_options options = {.ranks_per_node = ranks_per_node, .timeout_seconds = limit_seconds};
    s.device = device;
    REQUIRE(mz_world_create(&options, &s.world));
    REQUIRE(mz_comm_create(s.world, device, 0, 0, &s.comm));
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COMM, &s.stream));
    act(&s, culprit);
    MPI_Barrier(MPI_COMM_WORLD);
    device->ops->stream_destroy(s.stream);
    mz_comm_destroy(s.comm);
    mz_world_destroy(s.world);
}

int main(int argc, char **argv)
{
    static const scenario scenarios[] = {check_late, check_other_kind, check_other_count, check_stream_failure};
    int level = 0;
    mz_device *device = NULL;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    const int only = argc > 1 ? atoi(argv[1]) : -1; /* ranks per node */
    for (int cut = only < 0 ? 0 : only; cut < (only < 0 ? 4 : only + 1); cut++)
        for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
            play(scenarios[i], cut, (cut + (int)i) % 4, device);
    mz_device_close(device);
    MPI_Finalize();
    return n_failures != 0;
}
