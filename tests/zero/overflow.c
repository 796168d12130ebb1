/* A gradient that is not finite on one rank: nobody updates, and all name the same tensor. */
#include "rig.h"

static mz_device *device;
static mz_comm *comm;

static void check_skip(const mz_model *model, int stage, bool overlap, mz_dtype dtype)
{
    mz_config c;
    rig *r = NULL;
    double loss, first;
    mz_zero_step_info info = {0};
    rig_config(&c);
    c.zero.stage = stage;
    c.zero.overlap_comm = overlap;
    c.dtype = c.grad_accum_dtype = c.communication_data_type = dtype;
    REQUIRE(rig_create(device, comm, &c, model, &r));
    r->loss_scale = dtype == MZ_F16 ? 1024 : 1;
    r->poison_step = 1;
    rig_step(r, 0, &loss, &info);
    CHECK(!info.overflow && info.nonfinite_name[0] == '\0', "stage %d", stage);
    double norm = info.grad_norm;
    first = rig_eval(r, 9);
    float *before = rig_gather(r, model, MZ_SHARD_PARAM, NULL);
    rig_step(r, 1, &loss, &info);
    CHECK(info.overflow, "stage %d: not noticed", stage);
    CHECK(strcmp(info.nonfinite_name, mz_runner_param(r->runner, 0)->spec.name) == 0, "stage %d: named \"%s\"",
          stage, info.nonfinite_name);
    float *after = rig_gather(r, model, MZ_SHARD_PARAM, NULL);
    CHECK(memcmp(before, after, (size_t)rig_elements(model) * sizeof *after) == 0, "stage %d: updated", stage);
    CHECK(rig_eval(r, 9) == first, "stage %d: parameters moved", stage);
    rig_step(r, 2, &loss, &info); /* and the next step is as usual */
    CHECK(!info.overflow && isfinite(info.grad_norm) && isfinite(loss), "stage %d: norm %g", stage, info.grad_norm);
    CHECK(info.grad_norm < 10 * norm, "stage %d: norm %g after %g: the loss scale is still in it", stage,
          info.grad_norm, norm);
    free(before);
    free(after);
    rig_destroy(r);
}

/* Sums over the ranks are divided before they are stored: more ranks do not overflow sooner. Gradients that just
 * fit into fp16 on one rank do so on all, where plain sums would not. */
static void check_head_room(const mz_model *model, int stage)
{
    mz_config c;
    rig *r = NULL;
    double loss, largest = 0;
    mz_zero_step_info info = {0};
    rig_config(&c);
    REQUIRE(rig_create(device, NULL, &c, model, &r));
    rig_step(r, 0, &loss, &info);
    for (int i = 0; i < r->zero->layout->n_segments; i++)
        for (int64_t k = 0; k < r->zero->segments[i].own_count; k++)
            largest = fmax(largest, fabs((double)((float *)(void *)r->zero->segments[i].grad_own)[k]));
    rig_destroy(r);
    c.zero.stage = stage;
    c.dtype = c.grad_accum_dtype = c.communication_data_type = MZ_F16;
    REQUIRE(rig_create(device, comm, &c, model, &r));
    r->loss_scale = 35000 / largest; /* a mean below 65504; the sum of two is above */
    rig_step(r, 0, &loss, &info);
    CHECK(!info.overflow, "stage %d: overflow in %s", stage, info.nonfinite_name);
    rig_destroy(r);
}

/* bf16.check_grad_overflow false: the update goes ahead. */
static void check_unchecked(const mz_model *model)
{
    mz_config c;
    rig *r = NULL;
    double loss;
    mz_zero_step_info info = {0};
    rig_config(&c);
    c.dtype = c.grad_accum_dtype = c.communication_data_type = MZ_BF16;
    c.bf16_check_grad_overflow = false;
    REQUIRE(rig_create(device, comm, &c, model, &r));
    r->poison_step = 0;
    rig_step(r, 0, &loss, &info);
    CHECK(!info.overflow && !isfinite(info.grad_norm), "norm %g", info.grad_norm);
    rig_destroy(r);
}

int main(void)
{
    mz_world *world = NULL;
    mz_model *model = NULL;
    const mz_world_options options = {.timeout_seconds = 60};
    REQUIRE(mz_world_create(&options, &world));
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    rig_model("gpt2", 1, &model);
    for (int stage = 0; stage <= 3; stage++) {
        check_skip(model, stage, false, MZ_F32);
        check_skip(model, stage, true, MZ_F16);
        check_head_room(model, stage);
    }
    check_unchecked(model);
    mz_model_destroy(model);
    mz_comm_destroy(comm);
    mz_device_close(device);
    mz_world_destroy(world);
    return rig_n_failures != 0;
}
