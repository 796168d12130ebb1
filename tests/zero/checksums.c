/* The CRCs that an update makes on its way are those of what it left in memory, however chunks, blocks, slices and
 * threads lie; they are withdrawn as soon as the values are not that update's any more. */
#include "core/file.h"
#include "rig.h"

static mz_device *device;
static mz_comm *comm;

/* Blocks shorter than the smallest tensor, so that there are many and some end anywhere. */
static int64_t short_blocks(int64_t count)
{
    return count > 700 ? 300 : 37;
}

static int64_t long_blocks(int64_t count)
{
    (void)count;
    return 65536;
}

static void check_crcs(const rig *r, int64_t (*block_of)(int64_t), const char *what)
{
    const mz_shard *shards;
    int64_t n_shards;
    const uint32_t *crc = mz_zero_checksums(r->zero);
    REQUIRE(mz_zero_shards(r->zero, &shards, &n_shards));
    CHECK(crc, "%s: none were made", what);
    for (int64_t i = 0; crc && i < n_shards; i++)
        for (int64_t done = 0, n; done < shards[i].count; done += n) {
            n = block_of(shards[i].count) < shards[i].count - done ? block_of(shards[i].count)
                                                                   : shards[i].count - done;
            CHECK(*crc == mz_crc32c(0, (char *)shards[i].data + mz_shard_bytes(&shards[i], done),
                                    mz_shard_bytes(&shards[i], n)),
                  "%s: %s, kind %d, from %lld", what, shards[i].name, shards[i].kind, (long long)done);
            crc++;
        }
}

static void check_model(const mz_model *model, mz_config *c, int64_t (*block_of)(int64_t), const char *what)
{
    rig *r = NULL;
    double loss;
    mz_zero_step_info info = {.checksums = true};
    REQUIRE(rig_create(device, comm, c, model, &r));
    CHECK(!mz_zero_checksums(r->zero), "%s: made before they were asked for", what);
    rig_step(r, 0, &loss, &info); /* not prepared yet: an update as usual */
    CHECK(!mz_zero_checksums(r->zero), "%s: made unprepared", what);
    REQUIRE(mz_zero_checksums_prepare(r->zero, block_of));
    for (int64_t step = 1; step < 3; step++) {
        info = (mz_zero_step_info){.checksums = true};
        rig_step(r, step, &loss, &info);
        check_crcs(r, block_of, what);
    }
    if (c->dtype == MZ_F16) { /* nothing is updated: what was right stays right */
        r->poison_step = 3;
        info = (mz_zero_step_info){.checksums = true};
        rig_step(r, 3, &loss, &info);
        CHECK(info.overflow, "%s: the overflow was not noticed", what);
        check_crcs(r, block_of, what);
    }
    info = (mz_zero_step_info){0};
    rig_step(r, 4, &loss, &info);
    CHECK(!mz_zero_checksums(r->zero), "%s: kept beyond an update", what);
    rig_destroy(r);
}

int main(void)
{
    static const mz_optim_kind kinds[] = {MZ_OPTIM_ADAMW, MZ_OPTIM_SGD};
    mz_world *world;
    mz_model *model;
    REQUIRE(mz_world_create(NULL, &world));
    REQUIRE(mz_device_open("cpu", 0, 2, &device));
    if (world->size > 1)
        REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    rig_model("gpt2", 2, &model);
    for (int stage = 0; stage <= 3; stage++)
        for (int k = 0; k < 2; k++)
            for (int variant = 0; variant < 5; variant++) {
                char what[64];
                mz_config c;
                rig_config(&c);
                c.zero.stage = stage;
                c.zero.stage3_param_persistence_threshold = 40;
                c.optimizer.kind = (int)kinds[k];
                c.optimizer.momentum = 0.9;
                if (variant == 1)
                    c.zero.sub_group_size = 1000;
                if (variant == 2)
                    c.dtype = c.grad_accum_dtype = c.communication_data_type = MZ_F16;
                if (variant >= 3) {
                    c.dtype = c.grad_accum_dtype = c.communication_data_type = MZ_BF16;
                    c.bf16_master_weights_and_grads = true;
                    c.bf16_optimizer_states = c.stochastic_rounding = variant == 4;
                }
                snprintf(what, sizeof what, "stage %d, optimiser %d, variant %d", stage, k, variant);
                check_model(model, &c, variant == 2 ? long_blocks : short_blocks, what);
            }
    mz_model_destroy(model);
    mz_comm_destroy(comm);
    mz_device_close(device);
    mz_world_destroy(world);
    return rig_n_failures > 0;
}
