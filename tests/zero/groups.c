/* Ranks in groups, over nodes that one machine stands for: MiCS and hpZ train as plain stage 3 does, with fewer
 * bytes between the nodes; what they save, others load, and the other way round; sizes that do not divide are
 * refused. Fewer bits between nodes cost little of what is learnt, and nothing on one node. */
#include "rig.h"

enum { STEPS = 6 };

static mz_device *device;
static mz_model *model;

typedef struct outcome {
    double loss[STEPS], norm[STEPS];
    double sent; /* between nodes, by all ranks, in the last step */
    mz_zero_counters counters;
    int64_t elements, persistent, shard_elements;
    float *state[MZ_N_SHARD_KINDS];
} outcome;

static double sent_between_nodes(const mz_comm *comm)
{
    mz_comm_stats stats;
    mz_comm_get_stats(comm, &stats);
    double sent = stats.bytes_between_nodes;
    MPI_Allreduce(MPI_IN_PLACE, &sent, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return sent;
}

/* from: state to begin with; NULL: none. */
static void train(mz_comm *comm, const mz_config *config, int64_t n_micro, const outcome *from, outcome *o)
{
    rig *r = NULL;
    REQUIRE(rig_create(device, comm, config, model, &r));
    r->n_micro = n_micro;
    for (int kind = 0; from && kind < MZ_N_SHARD_KINDS; kind++) {
        rig_values values = {model, from->state[kind]};
        if (kind == MZ_SHARD_PARAM)
            REQUIRE(mz_zero_load_params(r->zero, rig_source, &values));
        else
            REQUIRE(mz_zero_load_state(r->zero, (mz_shard_kind)kind, rig_source, &values));
    }
    for (int step = 0; step < STEPS; step++) {
        mz_zero_step_info info = {0};
        double before = sent_between_nodes(comm);
        mz_zero_counters counted = r->zero->counters;
        rig_step(r, step, &o->loss[step], &info);
        o->norm[step] = info.grad_norm;
        REQUIRE(mz_barrier(comm, "step"));
        o->sent = sent_between_nodes(comm) - before;
        o->counters = r->zero->counters;
        o->counters.gathered_elements -= counted.gathered_elements;
        o->counters.second_elements -= counted.second_elements;
        if (step == 2)
            rig_eval(r, step); /* changes nothing */
    }
    o->elements = r->zero->layout->elements;
    o->persistent = r->zero->layout->persistent_elements;
    o->shard_elements = o->elements / r->zero->shard_size;
    for (int kind = 0; kind < MZ_N_SHARD_KINDS; kind++) {
        int *counts;
        o->state[kind] = rig_gather(r, model, (mz_shard_kind)kind, &counts);
        for (int64_t i = 0; i < rig_elements(model); i++)
            if (counts[i] != 1) {
                CHECK(false, "element %lld is listed %d times", (long long)i, counts[i]);
                break;
            }
        free(counts);
    }
    rig_destroy(r);
}

static void drop(outcome *o)
{
    for (int kind = 0; kind < MZ_N_SHARD_KINDS; kind++)
        free(o->state[kind]);
}

/* tolerance 0: the same bits. */
static void compare(const outcome *a, const outcome *b, double tolerance, const char *what)
{
    for (int step = 0; step < STEPS; step++) {
        CHECK(fabs(a->loss[step] - b->loss[step]) <= tolerance * b->loss[step], "%s, step %d: loss %.9g, not %.9g",
              what, step, a->loss[step], b->loss[step]);
        CHECK(fabs(a->norm[step] - b->norm[step]) <= 100 * tolerance * b->norm[step],
              "%s, step %d: norm %.9g, not %.9g", what, step, a->norm[step], b->norm[step]);
    }
    if (tolerance == 0)
        for (int kind = 0; kind < MZ_N_SHARD_KINDS; kind++)
            CHECK(memcmp(a->state[kind], b->state[kind], (size_t)rig_elements(model) * sizeof(float)) == 0,
                  "%s: other %s", what, mz_shard_kind_name((mz_shard_kind)kind));
}

typedef struct setting {
    int ranks_per_node;
    mz_comm *comm;
    mz_config config;
    int64_t n_micro;
    outcome plain;
    char what[96];
} setting;

/* Without a second copy every gather crosses the nodes; with one, only the first of each unit does. */
static void check_hpz(const setting *s, int size, int n_nodes)
{
    mz_config c = s->config;
    outcome o;
    char what[128];
    snprintf(what, sizeof what, "%s, hpZ %d", s->what, size);
    c.zero.zero_hpz_partition_size = size;
    train(s->comm, &c, s->n_micro, NULL, &o);
    compare(&o, &s->plain, 0, what);
    bool inside = size <= s->ranks_per_node, used = size > 1 && size < mz_comm_size(s->comm);
    CHECK(o.counters.gathered_elements == s->plain.counters.gathered_elements, "%s: gathered", what);
    int64_t once = o.elements - o.persistent;
    int64_t again = used ? o.counters.gathered_elements - once : 0;
    CHECK(o.counters.second_elements == again, "%s: %lld of %lld elements from the second copy", what,
          (long long)o.counters.second_elements, (long long)o.counters.gathered_elements);
    double saved = (double)again * (double)mz_dtype_size(c.dtype) * (n_nodes - 1);
    if (inside)
        CHECK(s->plain.sent - o.sent == saved, "%s: %g bytes between nodes, %g without, expected %g less", what,
              o.sent, s->plain.sent, saved);
    if (inside && s->ranks_per_node > 1 && mz_comm_rank(s->comm) == 0)
        printf("%s: %.0f bytes between nodes in a step, %.0f without\n", what, o.sent, s->plain.sent);
    drop(&o);
}

/* Gathers and reduce-scatters stay in the group; each slice is added up over the groups once a step. */
static void check_mics(const setting *s, int size)
{
    mz_config c = s->config;
    outcome o, again;
    char what[128];
    snprintf(what, sizeof what, "%s, MiCS %d", s->what, size);
    c.zero.mics_shard_size = size;
    train(s->comm, &c, s->n_micro, NULL, &o);
    double tolerance = c.dtype == MZ_F32 ? 1e-5 : 1e-2;
    compare(&o, &s->plain, tolerance, what);
    train(s->comm, &c, s->n_micro, NULL, &again);
    compare(&again, &o, 0, what);
    drop(&again);
    int n_replicas = mz_comm_size(s->comm) / size;
    if (size <= s->ranks_per_node) {
        double least = 2.0 * (n_replicas - 1) * size * (double)o.shard_elements * (double)mz_dtype_size(c.dtype);
        if (s->ranks_per_node > size) /* some groups share a node */
            least = 0;
        double most = n_replicas > 2 ? least * n_replicas / 2 : least; /* small sums go to everybody at once */
        CHECK(o.sent >= 0.9 * least && (least == 0 || o.sent <= 1.2 * most), "%s: %g bytes between nodes, not %g",
              what, o.sent, least);
        if (mz_comm_rank(s->comm) == 0)
            printf("%s: %.0f bytes between nodes in a step, %.0f without\n", what, o.sent, s->plain.sent);
    }
    /* What it holds goes on in plain stage 3, and back. */
    outcome plain, back;
    train(s->comm, &s->config, s->n_micro, &o, &plain);
    train(s->comm, &c, s->n_micro, &o, &back);
    compare(&back, &plain, tolerance, what);
    drop(&plain);
    drop(&back);
    if (size % 2 == 0 && size > 2) { /* a second copy inside the group */
        c.zero.zero_hpz_partition_size = 2;
        train(s->comm, &c, s->n_micro, NULL, &again);
        compare(&again, &o, 0, "MiCS with hpZ");
        CHECK(again.counters.second_elements > 0, "MiCS with hpZ: no second copy");
        drop(&again);
    }
    drop(&o);
}

/* Fewer bits for parameters, gradients, both, and parameters with a second copy. */
static void check_quantized(const setting *s, int n_nodes)
{
    static const double packed[] = {
        [MZ_ZERO_WEIGHT_BITS] = 260, [MZ_ZERO_GRADIENT_BITS] = 132}; /* of 256 elements */
    double block = 256.0 * (double)mz_dtype_size(s->config.dtype);
    double gathers = (double)s->plain.counters.gathered_elements * (double)mz_dtype_size(s->config.dtype);
    double scatters = (double)s->plain.elements * (double)s->n_micro * (double)mz_dtype_size(s->config.dtype);
    for (int which = 1; which <= 4; which++) {
        mz_config c = s->config;
        outcome o, again;
        char what[160];
        bool weights = which & 1 || which == 4, gradients = which & 2;
        snprintf(what, sizeof what, "%s, quantised%s%s%s", s->what, weights ? " weights" : "",
                 gradients ? " gradients" : "", which == 4 ? " with hpZ" : "");
        c.zero.zero_quantized_weights = weights;
        c.zero.zero_quantized_gradients = gradients;
        c.zero.zero_hpz_partition_size = which == 4 ? 2 : 1;
        train(s->comm, &c, s->n_micro, NULL, &o);
        double worst = 0;
        for (int step = 0; step < STEPS; step++)
            worst = fmax(worst, fabs(o.loss[step] - s->plain.loss[step]) / s->plain.loss[step]);
        CHECK(n_nodes == 1 ? worst == 0 : worst > 0 && worst < 2e-2, "%s: losses differ by %g", what, worst);
        if (which == 3) {
            train(s->comm, &c, s->n_micro, NULL, &again);
            compare(&again, &o, 0, what);
            drop(&again);
        }
        double saved = weights ? gathers * (1 - packed[MZ_ZERO_WEIGHT_BITS] / block) : 0;
        saved += gradients ? scatters * (1 - packed[MZ_ZERO_GRADIENT_BITS] / block) : 0;
        double expected = s->plain.sent - saved * (n_nodes - 1);
        if (which < 4) /* short blocks have scales, too */
            CHECK(o.sent >= 0.99 * expected && o.sent <= 1.05 * expected, "%s: %g bytes between nodes, expected %g",
                  what, o.sent, expected);
        if (n_nodes > 1 && mz_comm_rank(s->comm) == 0)
            printf("%s: %.0f bytes between nodes in a step, %.0f without; losses differ by %.2g\n", what, o.sent,
                   s->plain.sent, worst);
        drop(&o);
    }
}

static void check_nodes(int ranks_per_node, mz_dtype dtype, bool overlap, int64_t n_micro)
{
    mz_world *world = NULL;
    setting s = {.ranks_per_node = ranks_per_node, .n_micro = n_micro};
    const mz_world_options options = {.ranks_per_node = ranks_per_node, .timeout_seconds = 60};
    REQUIRE(mz_world_create(&options, &world));
    REQUIRE(mz_comm_create(world, device, 0, 0, &s.comm));
    snprintf(s.what, sizeof s.what, "%d nodes x %d, %s, %s, %lld micro-batches", world->n_nodes, ranks_per_node,
             mz_dtype_name(dtype), overlap ? "overlap" : "no overlap", (long long)n_micro);
    rig_config(&s.config);
    s.config.dtype = s.config.grad_accum_dtype = s.config.communication_data_type = dtype;
    s.config.zero.stage = 3;
    s.config.zero.overlap_comm = overlap;
    s.config.zero.reduce_bucket_size = overlap ? 2500 : 500000000;
    s.config.zero.stage3_max_reuse_distance = 0;
    train(s.comm, &s.config, n_micro, NULL, &s.plain);
    for (int size = 2; size <= world->size; size *= 2) {
        check_hpz(&s, size, world->n_nodes);
        check_mics(&s, size);
    }
    check_mics(&s, 1);
    check_quantized(&s, world->n_nodes);
    s.config.zero.reduce_scatter = false; /* all ranks' sums come at once */
    drop(&s.plain);
    train(s.comm, &s.config, n_micro, NULL, &s.plain);
    s.config.zero.mics_shard_size = 2;
    outcome whole;
    train(s.comm, &s.config, n_micro, NULL, &whole);
    compare(&whole, &s.plain, dtype == MZ_F32 ? 1e-5 : 1e-2, "MiCS without reduce_scatter");
    drop(&whole);
    drop(&s.plain);
    mz_comm_destroy(s.comm);
    mz_world_destroy(world);
}

static void check_refusals(mz_world *world)
{
    mz_comm *comm = NULL;
    mz_config c;
    rig *r = NULL;
    REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    rig_config(&c);
    c.zero.stage = 3;
    c.zero.mics_shard_size = 3;
    CHECK(rig_create(device, comm, &c, model, &r) == MZ_ERR_CONFIG, "mics_shard_size");
    CHECK(strstr(mz_last_error(), "mics_shard_size: expected a divisor of the number of ranks"), "%s",
          mz_last_error());
    c.zero.mics_shard_size = 2;
    c.zero.zero_hpz_partition_size = 4;
    CHECK(rig_create(device, comm, &c, model, &r) == MZ_ERR_CONFIG, "zero_hpz_partition_size");
    CHECK(strstr(mz_last_error(), "zero_hpz_partition_size: expected a divisor of the 2 ranks"), "%s",
          mz_last_error());
    mz_comm_destroy(comm);
}

int main(void)
{
    mz_world *world = NULL;
    const mz_world_options options = {.timeout_seconds = 60};
    REQUIRE(mz_world_create(&options, &world));
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    rig_model("gpt2", 2, &model);
    if (world->size == 4) {
        check_nodes(2, MZ_F32, true, 1);
        check_nodes(2, MZ_BF16, true, 2);
        check_nodes(1, MZ_F32, false, 2);
        check_nodes(4, MZ_BF16, false, 1);
        check_refusals(world);
    } else {
        check_nodes(2, MZ_F32, true, 1);
    }
    mz_model_destroy(model);
    mz_device_close(device);
    mz_world_destroy(world);
    return rig_n_failures != 0;
}
