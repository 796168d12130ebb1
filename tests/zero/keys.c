/* Each key of zero_optimization does what it says, and none of them changes what is learned. */
#include "rig.h"

enum { STEPS = 6 };

typedef struct outcome {
    double loss[STEPS], norm;
    mz_zero_counters counters;
    mz_zero_memory memory;
    double bytes_sent, factor;
    bool apart; /* collectives have a stream of their own */
} outcome;

static mz_device *device;
static mz_comm *comm;
static mz_model *model;

static void run(const mz_config *config, outcome *o)
{
    rig *r = NULL;
    mz_comm_stats before, after;
    *o = (outcome){0};
    REQUIRE(rig_create(device, comm, config, model, &r));
    r->zero->counters.n_refreshes = r->zero->counters.n_broadcasts = r->zero->counters.max_refresh_elements = 0;
    mz_comm_get_stats(comm, &before);
    for (int step = 0; step < STEPS; step++) {
        mz_zero_step_info info = {0};
        rig_step(r, step, &o->loss[step], &info);
        o->norm = info.grad_norm;
    }
    o->counters = r->zero->counters;
    mz_zero_get_memory(r->zero, &o->memory);
    o->factor = mz_zero_grad_weight_factor(r->zero);
    o->apart = r->zero->transfer != r->zero->compute;
    REQUIRE(device->ops->stream_sync(r->zero->transfer));
    mz_comm_get_stats(comm, &after);
    o->bytes_sent =
        after.bytes_in_node + after.bytes_between_nodes - before.bytes_in_node - before.bytes_between_nodes;
    rig_destroy(r);
}

static void same(const outcome *a, const outcome *b, double tolerance, const char *what)
{
    for (int step = 0; step < STEPS; step++)
        CHECK(fabs(a->loss[step] - b->loss[step]) <= tolerance * b->loss[step], "%s: step %d: %.9g, and %.9g", what,
              step, a->loss[step], b->loss[step]);
    CHECK(fabs(a->norm - b->norm) <= 100 * tolerance * b->norm, "%s: norm %.9g, and %.9g", what, a->norm, b->norm);
}

static void check_buckets(int stage, const outcome *usual)
{
    mz_config c;
    outcome o;
    rig_config(&c);
    c.zero.stage = stage;
    c.zero.reduce_bucket_size = 1280;
    run(&c, &o);
    same(&o, usual, 1e-6, "reduce_bucket_size");
    CHECK(usual->counters.n_reduces == STEPS * (stage < 2 ? 1 : RIG_MICRO), "stage %d: %lld collectives", stage,
          (long long)usual->counters.n_reduces);
    CHECK(o.counters.n_reduces > 5 * usual->counters.n_reduces, "stage %d: %lld collectives", stage,
          (long long)o.counters.n_reduces);
    CHECK(o.counters.max_reduce_elements <= 1280, "stage %d: %lld elements", stage,
          (long long)o.counters.max_reduce_elements);
    CHECK(o.counters.reduced_elements == usual->counters.reduced_elements, "stage %d", stage);

    rig_config(&c);
    c.zero.stage = stage;
    c.zero.contiguous_gradients = false;
    run(&c, &o);
    same(&o, usual, 1e-6, "contiguous_gradients");
    CHECK(o.counters.n_reduces > usual->counters.n_reduces, "stage %d: %lld collectives", stage,
          (long long)o.counters.n_reduces);

    rig_config(&c);
    c.zero.stage = stage;
    c.zero.overlap_comm = true;
    run(&c, &o);
    same(&o, usual, 1e-6, "overlap_comm");
    CHECK(o.apart && !usual->apart, "stage %d: overlap_comm has no effect", stage);
    c.zero.reduce_bucket_size = 1280;
    run(&c, &o);
    same(&o, usual, 1e-6, "overlap_comm with small buckets");
    CHECK(stage < 2 || o.counters.n_bucket_switches > 0, "stage %d: buckets do not take turns", stage);
}

static void check_wire(int stage, const outcome *usual)
{
    mz_config c;
    outcome o;
    for (int overlap = 0; overlap <= 1; overlap++) {
        rig_config(&c);
        c.zero.stage = stage;
        c.zero.overlap_comm = overlap;
        c.zero.reduce_scatter = false;
        run(&c, &o);
        same(&o, usual, 1e-6, "reduce_scatter");
        CHECK(stage == 0 || o.bytes_sent > 1.2 * usual->bytes_sent,
              "stage %d: %.0f bytes all-reduced, %.0f scattered", stage, o.bytes_sent, usual->bytes_sent);
        c.zero.reduce_bucket_size = 1280;
        run(&c, &o);
        same(&o, usual, 1e-6, "reduce_scatter with small buckets");
        c.communication_data_type = MZ_BF16;
        run(&c, &o);
        same(&o, usual, 1e-3, "communication_data_type, all-reduced");
        c.zero.reduce_scatter = true;
        run(&c, &o);
        same(&o, usual, 1e-3, "communication_data_type, scattered");
        CHECK(o.norm != usual->norm, "stage %d: the wire's dtype has no effect", stage);
        CHECK(o.memory.reduce_buffers > usual->memory.reduce_buffers || stage >= 2, "stage %d", stage);
    }
}

static void check_scaling(int stage, const outcome *usual)
{
    mz_config c;
    outcome o;
    rig_config(&c);
    c.zero.stage = stage;
    c.prescale_gradients = true;
    run(&c, &o);
    same(&o, usual, 1e-5, "prescale_gradients");
    CHECK(o.factor == 1 && usual->factor == mz_comm_size(comm), "%g, %g on the wire", o.factor, usual->factor);
    rig_config(&c);
    c.zero.stage = stage;
    c.gradient_predivide_factor = 3;
    run(&c, &o);
    same(&o, usual, 1e-5, "gradient_predivide_factor");
    CHECK(o.factor == mz_comm_size(comm) / 3.0, "%g on the wire", o.factor);
    rig_config(&c);
    c.zero.stage = stage;
    c.gradient_allreduce_sum = true;
    c.gradient_clipping = 0;
    run(&c, &o);
    outcome mean;
    c.gradient_allreduce_sum = false;
    run(&c, &mean);
    CHECK(o.norm > 1.5 * mean.norm, "gradient_allreduce_op sum: norm %g, mean %g", o.norm, mean.norm);
}

static void check_refresh(int stage, const outcome *usual)
{
    mz_config c;
    outcome o;
    rig_config(&c);
    c.zero.stage = stage;
    c.zero.allgather_bucket_size = 1280;
    run(&c, &o);
    same(&o, usual, 0, "allgather_bucket_size");
    CHECK(usual->counters.n_refreshes == STEPS, "%lld all-gathers", (long long)usual->counters.n_refreshes);
    CHECK(o.counters.n_refreshes > 5 * STEPS && o.counters.max_refresh_elements <= 1280, "%lld of %lld elements",
          (long long)o.counters.n_refreshes, (long long)o.counters.max_refresh_elements);
    c.zero.allgather_partitions = false;
    run(&c, &o);
    same(&o, usual, 0, "allgather_partitions");
    CHECK(o.counters.n_broadcasts == o.counters.n_refreshes * mz_comm_size(comm) &&
              usual->counters.n_broadcasts == 0,
          "%lld broadcasts", (long long)o.counters.n_broadcasts);
}

static void check_sub_groups(int stage, const outcome *usual)
{
    mz_config c;
    outcome o;
    rig_config(&c);
    c.zero.stage = stage;
    c.zero.sub_group_size = 500;
    run(&c, &o);
    same(&o, usual, 0, "sub_group_size");
    CHECK(usual->counters.n_optim_launches == STEPS, "%lld launches", (long long)usual->counters.n_optim_launches);
    CHECK(o.counters.n_optim_launches > 5 * STEPS && o.counters.max_optim_elements <= 500, "%lld launches",
          (long long)o.counters.n_optim_launches);
}

static void check_stage3(const outcome *usual)
{
    mz_config c;
    outcome o;
    for (int overlap = 0; overlap <= 1; overlap++) {
        rig_config(&c);
        c.zero.stage = 3;
        c.zero.overlap_comm = overlap;
        c.zero.stage3_prefetch_bucket_size = 0;
        run(&c, &o);
        same(&o, usual, 0, "stage3_prefetch_bucket_size");
        CHECK(o.counters.prefetch_hits == 0 && usual->counters.prefetch_hits > 0, "%lld, %lld hits",
              (long long)o.counters.prefetch_hits, (long long)usual->counters.prefetch_hits);
        CHECK(o.counters.prefetch_misses > usual->counters.prefetch_misses, "misses");

        rig_config(&c);
        c.zero.stage = 3;
        c.zero.overlap_comm = overlap;
        c.zero.stage3_max_reuse_distance = 0;
        run(&c, &o);
        same(&o, usual, 0, "stage3_max_reuse_distance");
        CHECK(o.counters.gathered_elements > 1.5 * (double)usual->counters.gathered_elements, "gathered");

        rig_config(&c);
        c.zero.stage = 3;
        c.zero.overlap_comm = overlap;
        c.zero.stage3_max_live_parameters = 7000;
        c.zero.stage3_prefetch_bucket_size = 1;
        run(&c, &o);
        same(&o, usual, 0, "stage3_max_live_parameters");
        CHECK(o.counters.max_live_elements < usual->counters.max_live_elements, "%lld live",
              (long long)o.counters.max_live_elements);
        CHECK(o.memory.gather_buffers < usual->memory.gather_buffers, "pool");
    }
    rig_config(&c);
    c.zero.stage = 3;
    c.zero.stage3_param_persistence_threshold = 0;
    run(&c, &o);
    same(&o, usual, 1e-6, "stage3_param_persistence_threshold");
    CHECK(o.counters.n_refreshes == 0 && usual->counters.n_refreshes > 0, "refreshes");
    CHECK(o.memory.params < usual->memory.params, "persistent parameters");
    rig_config(&c);
    c.zero.stage = 3;
    c.zero.stage3_model_persistence_threshold = 48;
    mz_zero_memory none = o.memory;
    run(&c, &o);
    same(&o, usual, 1e-6, "stage3_model_persistence_threshold");
    CHECK(o.memory.params > none.params && o.memory.params < usual->memory.params, "persistent parameters");
}

/* Reduced gradients of 16-bit training kept in fp32 lose less. */
static void check_accumulation(int stage)
{
    mz_config c;
    outcome narrow, wide;
    rig_config(&c);
    c.zero.stage = stage;
    c.dtype = c.grad_accum_dtype = c.communication_data_type = MZ_BF16;
    run(&c, &narrow);
    c.grad_accum_dtype = MZ_F32;
    run(&c, &wide);
    CHECK(wide.memory.grads == 2 * narrow.memory.grads, "stage %d: %zu and %zu bytes", stage, wide.memory.grads,
          narrow.memory.grads);
    CHECK(wide.norm != narrow.norm, "stage %d: grad_accum_dtype has no effect", stage);
    same(&wide, &narrow, 2e-2, "grad_accum_dtype");
}

static void check_refusals(void)
{
    mz_config c;
    rig *r = NULL;
    rig_config(&c);
    c.zero.offload_optimizer.device = MZ_OFFLOAD_CPU;
    CHECK(rig_create(device, comm, &c, model, &r) == MZ_ERR_UNSUPPORTED, "offload_optimizer");
    CHECK(strstr(mz_last_error(), "zero_optimization.offload_optimizer"), "%s", mz_last_error());
    rig_config(&c);
    c.zero.offload_param.device = MZ_OFFLOAD_NVME;
    CHECK(rig_create(device, comm, &c, model, &r) == MZ_ERR_UNSUPPORTED, "offload_param");
    rig_config(&c);
    c.zero.stage = 4;
    CHECK(rig_create(device, comm, &c, model, &r) == MZ_ERR_CONFIG, "stage 4");
}

int main(void)
{
    mz_world *world = NULL;
    const mz_world_options options = {.timeout_seconds = 60};
    REQUIRE(mz_world_create(&options, &world));
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    rig_model("gpt2", 1, &model);
    for (int stage = 0; stage <= 3; stage++) {
        mz_config config;
        outcome usual;
        rig_config(&config);
        config.zero.stage = stage;
        run(&config, &usual);
        check_buckets(stage, &usual);
        check_wire(stage, &usual);
        check_scaling(stage, &usual);
        check_sub_groups(stage, &usual);
        check_accumulation(stage);
        if (stage == 1 || stage == 2)
            check_refresh(stage, &usual);
        if (stage == 3)
            check_stage3(&usual);
    }
    check_refusals();
    mz_model_destroy(model);
    mz_comm_destroy(comm);
    mz_device_close(device);
    mz_world_destroy(world);
    return rig_n_failures != 0;
}
