/* Saved by these ranks in this stage, loaded by those in that one: training goes on as if nothing had happened. */
#include "rig.h"

enum { BEFORE = 4, AFTER = 4 };

static mz_world *world;
static mz_device *device;
static mz_model *model;

/* Masters and states of all elements. */
typedef struct snapshot {
    float *values[MZ_N_SHARD_KINDS];
} snapshot;

static void take(const rig *r, int n_kinds, snapshot *s)
{
    *s = (snapshot){{NULL}};
    for (int kind = 0; kind < n_kinds; kind++) {
        int *counts;
        s->values[kind] = rig_gather(r, model, (mz_shard_kind)kind, &counts);
        for (int64_t i = 0; i < rig_elements(model); i++)
            if (counts[i] != 1) {
                CHECK(false, "%s: element %lld is listed %d times", mz_shard_kind_name((mz_shard_kind)kind),
                      (long long)i, counts[i]);
                break;
            }
        free(counts);
    }
}

static void drop(snapshot *s)
{
    for (int kind = 0; kind < MZ_N_SHARD_KINDS; kind++)
        free(s->values[kind]);
}

static void put(rig *r, int n_kinds, const snapshot *s)
{
    for (int kind = 0; kind < n_kinds; kind++) {
        rig_values values = {model, s->values[kind]};
        if (kind == MZ_SHARD_PARAM)
            REQUIRE(mz_zero_load_params(r->zero, rig_source, &values));
        else
            REQUIRE(mz_zero_load_state(r->zero, (mz_shard_kind)kind, rig_source, &values));
    }
}

/* A rig on the first n ranks; NULL on the others. */
static rig *start(int n, const mz_config *config, mz_comm **comm)
{
    rig *r = NULL;
    REQUIRE(mz_comm_create(world, device, world->rank < n ? 0 : -1, 0, comm));
    if (world->rank < n)
        REQUIRE(rig_create(device, *comm, config, model, &r));
    return r;
}

static void steps(rig *r, int from, int to, double *losses)
{
    for (int step = from; r && step < to; step++) {
        mz_zero_step_info info = {0};
        rig_step(r, step, &losses[step], &info);
    }
    MPI_Bcast(losses + from, to - from, MPI_DOUBLE, 0, MPI_COMM_WORLD);
}

/* Trains on, once without a break and once over a snapshot taken by `n` ranks in `stage` and put into others. */
static void check_from(int n, int stage, const mz_config *config, int n_kinds, double tolerance)
{
    static const int targets[][2] = {{1, 0}, {2, 2}, {3, 1}, {4, 3}, {2, 3}, {4, 0}};
    double whole[BEFORE + AFTER];
    mz_comm *comm = NULL;
    mz_config c = *config;
    snapshot saved, again;
    c.zero.stage = stage;
    rig *r = start(n, &c, &comm);
    steps(r, 0, BEFORE, whole);
    take(r, n_kinds, &saved);
    steps(r, BEFORE, BEFORE + AFTER, whole);
    rig_destroy(r);
    mz_comm_destroy(comm);
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        double losses[BEFORE + AFTER];
        if (targets[i][0] > world->size)
            continue;
        c.zero.stage = targets[i][1];
        r = start(targets[i][0], &c, &comm);
        if (r)
            put(r, n_kinds, &saved);
        take(r, n_kinds, &again);
        for (int kind = 0; kind < n_kinds; kind++)
            CHECK(memcmp(saved.values[kind], again.values[kind], (size_t)rig_elements(model) * sizeof(float)) == 0,
                  "%s of %d ranks, stage %d: not the same in %d ranks, stage %d",
                  mz_shard_kind_name((mz_shard_kind)kind), n, stage, targets[i][0], targets[i][1]);
        drop(&again);
        steps(r, BEFORE, BEFORE + AFTER, losses);
        for (int step = BEFORE; step < BEFORE + AFTER; step++)
            CHECK(fabs(losses[step] - whole[step]) <= tolerance * whole[step], "%d ranks, stage %d: %.9g, not %.9g",
                  targets[i][0], targets[i][1], losses[step], whole[step]);
        rig_destroy(r);
        mz_comm_destroy(comm);
    }
    drop(&saved);
}

static mz_status broken_source(void *context, const mz_param_spec *spec, int64_t offset, int64_t count, float *dst)
{
    const rig_values *v = context;
    if (world->rank == 1)
        return MZ_ERR_IO;
    return rig_source((void *)v, spec, offset, count, dst);
}

/* One rank's source fails: all ranks hear of it. */
static void check_failure(const mz_config *config)
{
    mz_comm *comm = NULL;
    rig *r = start(world->size, config, &comm);
    snapshot s;
    take(r, 1, &s);
    rig_values values = {model, s.values[0]};
    mz_status status = mz_zero_load_params(r->zero, broken_source, &values);
    CHECK(status == (world->rank == 1 ? MZ_ERR_IO : MZ_ERR_PEER), "%s", mz_status_text(status));
    drop(&s);
    rig_destroy(r);
    mz_comm_destroy(comm);
}

int main(void)
{
    const mz_world_options options = {.timeout_seconds = 60};
    mz_config config;
    REQUIRE(mz_world_create(&options, &world));
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    rig_model("gpt2", 1, &model);
    rig_config(&config);
    check_from(world->size, 3, &config, 3, 1e-5);
    check_from(world->size, 0, &config, 3, 1e-5);
    config.optimizer.kind = MZ_OPTIM_LION;
    config.optimizer.lr = 1e-4;
    check_from(2, 2, &config, 2, 1e-4);
    config.optimizer.kind = MZ_OPTIM_SGD;
    config.optimizer.momentum = 0;
    check_from(3, 1, &config, 1, 1e-5);
    config.optimizer.momentum = 0.9;
    check_from(3, 3, &config, 2, 1e-5);
    rig_config(&config);
    config.dtype = config.grad_accum_dtype = config.communication_data_type = MZ_BF16;
    check_from(world->size, 3, &config, 3, 2e-2);
    config.bf16_master_weights_and_grads = true;
    check_from(world->size, 1, &config, 3, 2e-2);
    config.bf16_optimizer_states = config.stochastic_rounding = true;
    check_from(world->size, 3, &config, 3, 2e-2);
    config.zero.stage = 1;
    check_failure(&config);
    mz_model_destroy(model);
    mz_device_close(device);
    mz_world_destroy(world);
    return rig_n_failures != 0;
}
