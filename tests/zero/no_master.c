/* bf16 without master weights: these ranks, in every stage, round as one rank does. One step from the same weights
 * gives the same gradients but for the order of sums, so next to all weights must be the same bits; with stochastic
 * rounding that holds only if the draws follow the element, wherever it lies. */
#include "core/half.h"
#include "rig.h"

enum { STEPS = 20 };

typedef struct form {
    const char *name;
    bool small_states, stochastic;
} form;

static const form forms[] = {
    {"to the nearest", false, false},
    {"stochastically", false, true},
    {"stochastically, states in bf16", true, true},
};

static mz_world *world;
static mz_device *device;
static mz_comm *comm;
static mz_model *model;

static void configure(mz_config *c, const form *f)
{
    rig_config(c);
    c->dtype = MZ_BF16;
    c->bf16_master_weights_and_grads = true;
    c->bf16_optimizer_states = f->small_states;
    c->stochastic_rounding = f->stochastic;
    c->seed = 4;
}

typedef struct outcome {
    double loss[STEPS];
    float *weights;
} outcome;

/* The whole parameters are the same bits on all ranks that keep them whole. */
static void check_replicas(const rig *r, const char *what)
{
    for (int i = 0; r->size > 1 && r->zero->stage < 3 && i < r->zero->layout->n_segments; i++) {
        const mz_zero_segment *s = &r->zero->segments[i];
        const size_t bytes = (size_t)s->at.length * sizeof(uint16_t);
        uint8_t *first = mz_alloc(bytes);
        memcpy(first, s->full, bytes);
        MPI_Bcast(first, (int)bytes, MPI_BYTE, 0, world->comm);
        CHECK(memcmp(first, s->full, bytes) == 0, "%s: segment %d is not that of rank 0", what, i);
        mz_free(first);
    }
}

/* comm NULL: one rank alone, the others look on. */
static void run(mz_comm *on, const mz_config *c, int steps, const char *what, outcome *o)
{
    rig *r = NULL;
    mz_zero_memory memory;
    int *counts;
    if (on || world->rank == 0)
        REQUIRE(rig_create(device, on, c, model, &r));
    for (int step = 0; r && step < steps; step++) {
        mz_zero_step_info info = {0};
        rig_step(r, step, &o->loss[step], &info);
        CHECK(!info.overflow, "%s: step %d", what, step);
    }
    MPI_Bcast(o->loss, STEPS, MPI_DOUBLE, 0, world->comm);
    o->weights = rig_gather(r, model, MZ_SHARD_PARAM, &counts);
    for (int64_t i = 0; i < rig_elements(model); i++)
        CHECK(counts[i] == 1, "%s: element %lld is listed %d times", what, (long long)i, counts[i]);
    free(counts);
    if (r) {
        mz_zero_get_memory(r->zero, &memory);
        CHECK(memory.master == 0, "%s: %zu bytes of masters", what, memory.master);
        REQUIRE(mz_zero_refresh_wait_all(r->zero));
        REQUIRE(device->ops->stream_sync(r->zero->compute));
        check_replicas(r, what);
    }
    rig_destroy(r);
}

/* The share of weights whose bits differ. */
static double differing(const outcome *a, const outcome *b)
{
    int64_t n = 0;
    for (int64_t i = 0; i < rig_elements(model); i++)
        n += memcmp(&a->weights[i], &b->weights[i], sizeof(float)) != 0;
    return (double)n / (double)rig_elements(model);
}

static void check_stage(const mz_config *config, const outcome *first, const outcome *alone, const char *what)
{
    outcome o = {0};
    run(comm, config, 1, what, &o);
    CHECK(differing(&o, first) < 0.02, "%s: after a step %.2g of the weights differ from one rank's", what,
          differing(&o, first));
    free(o.weights);
    run(comm, config, STEPS, what, &o);
    for (int step = 0; step < STEPS; step++)
        CHECK(fabs(o.loss[step] - alone->loss[step]) < 2e-2 * alone->loss[step], "%s: step %d: %g, alone %g", what,
              step, o.loss[step], alone->loss[step]);
    outcome again = {0};
    run(comm, config, STEPS, what, &again);
    CHECK(differing(&o, &again) == 0, "%s: another run gave other bits", what);
    free(o.weights);
    free(again.weights);
}

static void check_form(const form *f)
{
    char what[96];
    mz_config c;
    outcome first = {0}, alone = {0}, other = {0};
    configure(&c, f);
    run(NULL, &c, 1, f->name, &first);
    run(NULL, &c, STEPS, f->name, &alone);
    CHECK(alone.loss[STEPS - 1] < 0.9 * alone.loss[0], "%s does not learn: %g, then %g", f->name, alone.loss[0],
          alone.loss[STEPS - 1]);
    c.seed = 5;
    run(NULL, &c, 1, f->name, &other);
    CHECK((differing(&other, &first) > 0.2) == f->stochastic, "%s: with another seed %.2g of the weights differ",
          f->name, differing(&other, &first));
    c.seed = 4;
    for (int stage = 0; world->size > 1 && stage <= 3; stage++) {
        c.zero.stage = stage;
        c.zero.overlap_comm = stage >= 2;
        c.zero.reduce_bucket_size = stage == 2 ? 2500 : 500000000;
        c.zero.sub_group_size = stage == 1 ? 1000 : 1000000000;
        snprintf(what, sizeof what, "%s, stage %d", f->name, stage);
        check_stage(&c, &first, &alone, what);
    }
    if (world->size == 4) {
        c.zero.zero_hpz_partition_size = 2;
        snprintf(what, sizeof what, "%s, hpZ", f->name);
        check_stage(&c, &first, &alone, what);
        c.zero.zero_hpz_partition_size = 1;
        c.zero.mics_shard_size = 2;
        snprintf(what, sizeof what, "%s, MiCS", f->name);
        check_stage(&c, &first, &alone, what);
    }
    free(first.weights);
    free(alone.weights);
    free(other.weights);
}

int main(void)
{
    const mz_world_options options = {.timeout_seconds = 60};
    REQUIRE(mz_world_create(&options, &world));
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    rig_model("gpt2", 1, &model);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        check_form(&forms[i]);
    mz_model_destroy(model);
    mz_comm_destroy(comm);
    mz_device_close(device);
    mz_world_destroy(world);
    return rig_n_failures != 0;
}
