/* Collectives between nodes, measured where it counts: the slowest rank's seconds, and the bytes that entered each
 * node's interface, against the least possible and against MPI's own in the same run. Results are checked.
 *
 *     traffic MIB ROUNDS MEGABYTES_PER_SECOND LIMIT_PERCENT [ours] [all-gather] [reduce-scatter] [all-reduce]
 *
 * The size is that of the whole: of the gathered buffer, of each rank's input to the reductions. Fails when a
 * result is wrong, when more than 3 % above the least bytes enter a node, or when the median time of an all-gather
 * or a reduce-scatter is more than LIMIT_PERCENT above that of the least bytes at MEGABYTES_PER_SECOND (0: any
 * time). "ours" leaves MPI's out; without names of collectives all three are run. */
#include "../comm/check.h"
#include "comm/comm.h"
#include "core/clock.h"
#include "core/memory.h"

enum { MAX_ROUNDS = 50 };
static const double most_bytes_over = 0.03;

typedef struct traffic {
    mz_world *world;
    mz_comm *comm;
    float *in, *out;
    int64_t count; /* of one rank's block */
    int size;
} traffic;

typedef struct result {
    double seconds[MAX_ROUNDS], bytes[MAX_ROUNDS];
} result;

/* What came in over this node's interface so far. */
static double received_bytes(void)
{
    char line[512];
    double bytes = -1;
    FILE *file = fopen("/proc/net/dev", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, " eth0: %lf", &bytes) == 1)
            break;
    if (file)
        fclose(file);
    return bytes;
}

/* Small whole numbers, other ones in every block and on every rank, so that sums are exact. */
static float value_of(int rank, int64_t i)
{
    return (float)((i * 7 + rank * 13) % 64);
}

static float sum_of(int size, int64_t i)
{
    float sum = 0;
    for (int r = 0; r < size; r++)
        sum += value_of(r, i);
    return sum;
}

static void our_gather(traffic *t)
{
    const mz_segment segment = {t->in, t->out, t->count, t->count};
    REQUIRE(mz_all_gather(t->comm, &segment, 1, MZ_F32, "traffic", NULL));
}

static void mpi_gather(traffic *t)
{
    MPI_Allgather(t->in, (int)t->count, MPI_FLOAT, t->out, (int)t->count, MPI_FLOAT, t->world->comm);
}

static void check_gather(const traffic *t)
{
    int64_t n_wrong = 0;
    for (int r = 0; r < t->size; r++)
        for (int64_t i = 0; i < t->count; i++)
            n_wrong += t->out[r * t->count + i] != value_of(r, i);
    CHECK(!n_wrong, "rank %d: all-gather: %lld wrong elements", t->world->rank, (long long)n_wrong);
}

static void our_scatter(traffic *t)
{
    const mz_segment segment = {t->in, t->out, t->count, t->count};
    REQUIRE(mz_reduce_scatter(t->comm, &segment, 1, MZ_F32, MZ_F32, 1, false, "traffic", NULL));
}

static void mpi_scatter(traffic *t)
{
    MPI_Reduce_scatter_block(t->in, t->out, (int)t->count, MPI_FLOAT, MPI_SUM, t->world->comm);
}

static void check_scatter(const traffic *t)
{
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < t->count; i++)
        n_wrong += t->out[i] != sum_of(t->size, t->world->rank * t->count + i);
    CHECK(!n_wrong, "rank %d: reduce-scatter: %lld wrong elements", t->world->rank, (long long)n_wrong);
}

static void our_reduce(traffic *t)
{
    const mz_segment segment = {t->in, t->out, t->count * t->size, 0};
    REQUIRE(mz_all_reduce(t->comm, &segment, 1, MZ_F32, 1, "traffic", NULL));
}

static void mpi_reduce(traffic *t)
{
    MPI_Allreduce(t->in, t->out, (int)(t->count * t->size), MPI_FLOAT, MPI_SUM, t->world->comm);
}

static void check_reduce(const traffic *t)
{
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < t->count * t->size; i++)
        n_wrong += t->out[i] != sum_of(t->size, i);
    CHECK(!n_wrong, "rank %d: all-reduce: %lld wrong elements", t->world->rank, (long long)n_wrong);
}

/* One round: the slowest rank's seconds, and the most bytes that entered a node. */
static void run_once(traffic *t, void (*call)(traffic *), double *seconds, double *bytes)
{
    double values[2];
    MPI_Barrier(t->world->comm);
    values[1] = received_bytes();
    MPI_Barrier(t->world->comm);
    values[0] = mz_clock_seconds();
    call(t);
    values[0] = mz_clock_seconds() - values[0];
    MPI_Barrier(t->world->comm);
    values[1] = received_bytes() - values[1];
    MPI_Allreduce(MPI_IN_PLACE, values, 2, MPI_DOUBLE, MPI_MAX, t->world->comm);
    *seconds = values[0];
    *bytes = values[1];
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void sort(result *r, int rounds)
{
    qsort(r->seconds, (size_t)rounds, sizeof(double), ascending);
    qsort(r->bytes, (size_t)rounds, sizeof(double), ascending);
}

typedef struct contest {
    const char *name;
    void (*ours)(traffic *), (*mpis)(traffic *), (*check)(const traffic *);
    bool gathers, reduces;
} contest;

typedef struct limits {
    int rounds;
    double rate, percent; /* bytes per second; above the time that the bytes take at that rate */
    bool beside_mpi;
} limits;

/* What has to enter the node that most has to enter: all blocks of ranks elsewhere; every other node's sums of the
 * blocks of ranks here. */
static double least_bytes(const traffic *t, bool gathers, bool reduces)
{
    double here = t->world->local_size, blocks = 0;
    blocks += gathers ? t->size - here : 0;
    blocks += reduces ? (t->world->n_nodes - 1) * here : 0;
    MPI_Allreduce(MPI_IN_PLACE, &blocks, 1, MPI_DOUBLE, MPI_MAX, t->world->comm);
    return blocks * (double)t->count * sizeof(float);
}

static void compare(traffic *t, const contest *c, const limits *limit)
{
    result ours, mpis = {{0}, {0}};
    int n = limit->rounds;
    double least = least_bytes(t, c->gathers, c->reduces);
    for (int i = 0; i < n; i++) {
        memset(t->out, 0xff, (size_t)(t->count * t->size) * sizeof(float));
        run_once(t, c->ours, &ours.seconds[i], &ours.bytes[i]);
        if (i == 0)
            c->check(t);
        if (limit->beside_mpi)
            run_once(t, c->mpis, &mpis.seconds[i], &mpis.bytes[i]);
    }
    sort(&ours, n);
    sort(&mpis, n);
    double seconds = ours.seconds[n / 2], bytes = ours.bytes[n / 2],
           at_rate = limit->rate ? least / limit->rate : 0;
    if (t->world->rank == 0) {
        printf("%-14s %6.3f s, %6.1f MB into a node (least %.1f, %+.1f %%)", c->name, seconds, bytes * 1e-6,
               least * 1e-6, 100 * (bytes / least - 1));
        if (at_rate)
            printf("; bytes at line rate %.3f s (%+.1f %%)", at_rate, 100 * (seconds / at_rate - 1));
        if (limit->beside_mpi)
            printf("; MPI %.3f s, %.1f MB: ours %.2f times as fast", mpis.seconds[n / 2], mpis.bytes[n / 2] * 1e-6,
                   mpis.seconds[n / 2] / seconds);
        putchar('\n');
        fflush(stdout);
    }
    CHECK(bytes <= least * (1 + most_bytes_over), "rank %d: %s: %.0f bytes entered a node, the least is %.0f",
          t->world->rank, c->name, bytes, least);
    CHECK(!limit->percent || seconds <= at_rate * (1 + limit->percent / 100),
          "rank %d: %s took %.3f s; the bytes take %.3f s at line rate", t->world->rank, c->name, seconds, at_rate);
}

static bool has_word(char **words, const char *word)
{
    while (*words && strcmp(*words, word) != 0)
        words++;
    return *words;
}

int main(int argc, char **argv)
{
    static const contest contests[] = {{"all-gather", our_gather, mpi_gather, check_gather, true, false},
                                       {"reduce-scatter", our_scatter, mpi_scatter, check_scatter, false, true},
                                       {"all-reduce", our_reduce, mpi_reduce, check_reduce, true, true}};
    const mz_world_options options = {.timeout_seconds = 60};
    traffic t = {NULL};
    mz_device *device = NULL;
    if (argc < 5) {
        fprintf(stderr, "usage: traffic MIB ROUNDS MEGABYTES_PER_SECOND LIMIT_PERCENT [ours] [COLLECTIVE ...]\n");
        return 2;
    }
    limits limit = {.rounds = atoi(argv[2]),
                    .rate = atof(argv[3]) * 1e6,
                    .percent = atof(argv[4]),
                    .beside_mpi = !has_word(argv + 5, "ours")};
    bool all = !argv[5] || (!limit.beside_mpi && !argv[6]);
    limit.rounds = limit.rounds > MAX_ROUNDS ? MAX_ROUNDS : limit.rounds < 1 ? 1 : limit.rounds;
    size_t bytes = (size_t)atol(argv[1]) << 20;
    REQUIRE(mz_world_create(&options, &t.world));
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    REQUIRE(mz_comm_create(t.world, device, 0, 0, &t.comm));
    t.size = t.world->size;
    t.count = (int64_t)(bytes / sizeof(float)) / t.size;
    t.in = mz_alloc_aligned(bytes);
    t.out = mz_alloc_aligned(bytes);
    for (int64_t i = 0; i < t.count * t.size; i++)
        t.in[i] = value_of(t.world->rank, i);
    if (t.world->rank == 0)
        printf("%d nodes, %d ranks, %s MiB, wire %s\n", t.world->n_nodes, t.size, argv[1], t.world->wire);
    for (size_t i = 0; i < sizeof contests / sizeof contests[0]; i++)
        if (all || has_word(argv + 5, contests[i].name))
            compare(&t, &contests[i], &limit);
    mz_free(t.in);
    mz_free(t.out);
    mz_comm_destroy(t.comm);
    mz_device_close(device);
    mz_world_destroy(t.world);
    return n_failures != 0;
}
