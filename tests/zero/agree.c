/* The same global batch on these ranks, in every stage, gives one rank's losses and weights; twice, the same bits.
 */
#include "core/half.h"
#include "rig.h"

enum { STEPS = 50, AGAIN = 5 };

typedef struct history {
    double loss[STEPS], norm[STEPS];
    float *weights;
} history;

static void train(mz_device *device, mz_comm *comm, const mz_config *config, const mz_model *model, int steps,
                  history *h)
{
    rig *r = NULL;
    REQUIRE(rig_create(device, comm, config, model, &r));
    mz_runner_set_checkpointing(r->runner, config->zero.overlap_comm);
    for (int step = 0; step < steps; step++) {
        mz_zero_step_info info = {0};
        rig_step(r, step, &h->loss[step], &info);
        h->norm[step] = info.grad_norm;
        CHECK(!info.overflow, "step %d", step);
        if (step % 10 == 9) /* evaluation between steps changes nothing */
            rig_eval(r, step);
    }
    h->weights = rig_gather(r, model, MZ_SHARD_PARAM, NULL);
    rig_destroy(r);
}

/* One rank, which does all the work. */
static void train_alone(mz_device *device, const mz_config *config, const mz_model *model, history *h)
{
    const mz_shard *shards;
    int64_t n_shards, at = 0;
    rig *r = NULL;
    REQUIRE(rig_create(device, NULL, config, model, &r));
    for (int step = 0; step < STEPS; step++) {
        mz_zero_step_info info = {0};
        rig_step(r, step, &h->loss[step], &info);
        h->norm[step] = info.grad_norm;
    }
    REQUIRE(mz_zero_shards(r->zero, &shards, &n_shards));
    for (int64_t i = 0; i < n_shards && shards[i].kind == MZ_SHARD_PARAM; at += shards[i++].count)
        mz_convert(h->weights + at, MZ_F32, shards[i].data, shards[i].dtype, shards[i].count);
    rig_destroy(r);
}

static double relative(double a, double b)
{
    return fabs(a - b) / fabs(b);
}

static void compare(const history *a, const history *b, const mz_model *model, const char *what)
{
    double worst = 0, worst_norm = 0, worst_weight = 0;
    for (int step = 0; step < STEPS; step++) {
        worst = fmax(worst, relative(a->loss[step], b->loss[step]));
        worst_norm = fmax(worst_norm, relative(a->norm[step], b->norm[step]));
    }
    for (int64_t i = 0; i < rig_elements(model); i++)
        worst_weight = fmax(worst_weight, fabs((double)a->weights[i] - (double)b->weights[i]));
    CHECK(worst < 1e-5, "%s: losses differ by %g", what, worst);
    CHECK(worst_norm < 1e-3, "%s: norms differ by %g", what, worst_norm);
    CHECK(worst_weight < 2e-3, "%s: weights differ by %g", what, worst_weight);
}

static void check_model(mz_world *world, mz_device *device, mz_comm *comm, const char *kind)
{
    mz_model *model = NULL;
    mz_config config;
    history serial = {0}, first = {0}, again = {0};
    rig_model(kind, 1, &model);
    rig_config(&config);
    serial.weights = calloc((size_t)rig_elements(model), sizeof *serial.weights);
    if (world->rank == 0)
        train_alone(device, &config, model, &serial);
    MPI_Bcast(serial.loss, STEPS, MPI_DOUBLE, 0, world->comm);
    MPI_Bcast(serial.norm, STEPS, MPI_DOUBLE, 0, world->comm);
    MPI_Bcast(serial.weights, (int)rig_elements(model), MPI_FLOAT, 0, world->comm);
    CHECK(serial.loss[STEPS - 1] < 0.8 * serial.loss[0], "%s does not learn: %g, then %g", kind, serial.loss[0],
          serial.loss[STEPS - 1]);

    int n_stages = world->size > 1 ? 4 : 1; /* with one rank they are all the same */
    for (int stage = 0; stage < n_stages; stage++)
        for (int overlap = 0; overlap <= 1; overlap++) {
            if (strcmp(kind, "gpt2") == 0 && overlap != (stage >= 2))
                continue; /* the small model sees all combinations */
            char what[64];
            snprintf(what, sizeof what, "%s, stage %d, overlap %d", kind, stage, overlap);
            config.zero.stage = stage;
            config.zero.overlap_comm = overlap;
            config.zero.reduce_bucket_size = overlap ? 2500 : 500000000;
            train(device, comm, &config, model, STEPS, &first);
            compare(&first, &serial, model, what);
            train(device, comm, &config, model, AGAIN, &again);
            for (int step = 0; step < AGAIN; step++)
                CHECK(first.loss[step] == again.loss[step], "%s: step %d is not the same bits", what, step);
            free(first.weights);
            free(again.weights);
        }
    free(serial.weights);
    mz_model_destroy(model);
}

int main(void)
{
    mz_world *world = NULL;
    mz_device *device = NULL;
    mz_comm *comm = NULL;
    const mz_world_options options = {.timeout_seconds = 60};
    REQUIRE(mz_world_create(&options, &world));
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    check_model(world, device, comm, "mlp");
    check_model(world, device, comm, "gpt2");
    mz_comm_destroy(comm);
    mz_device_close(device);
    mz_world_destroy(world);
    return rig_n_failures != 0;
}
