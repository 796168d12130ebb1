/* Schedules and the loss scale, step by step against what DeepSpeed did (make_schedules.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "config/config_test.h"
#include "core/log.h"
#include "optim/loss_scale.h"
#include "optim/schedule.h"

static json_t *expected;

static int read_expected(void **state)
{
    char path[1024];
    (void)state;
    const char *folder = getenv("srcdir");
    snprintf(path, sizeof path, "%s/tests/optim/schedules.json", folder ? folder : ".");
    expected = json_load_file(path, 0, NULL);
    return expected ? 0 : -1;
}

static int free_expected(void **state)
{
    (void)state;
    json_decref(expected);
    return 0;
}

/* The schedule's configuration by way of a file, as a user would write it. */
static void load(const json_t *schedule, double lr, mz_config *config)
{
    json_t *root = json_pack("{s:i, s:{s:s, s:{s:f}}, s:{s:O, s:O}}", "train_batch_size", 1, "optimizer", "type",
                             "AdamW", "params", "lr", lr, "scheduler", "type", json_object_get(schedule, "type"),
                             "params", json_object_get(schedule, "params"));
    assert_non_null(root);
    char *text = json_dumps(root, 0);
    mz_config_defaults flags;
    mz_config_defaults_init(&flags);
    mz_status status = load_text("ds.json", text, &flags, 1, config, NULL, 0);
    if (status != MZ_OK)
        print_error("%s\n", mz_last_error());
    assert_int_equal(status, MZ_OK);
    free(text);
    json_decref(root);
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-12 * fmax(fabs(a), fabs(b)) + 1e-18;
}

static void schedules(void **state)
{
    size_t i, k;
    json_t *schedule, *value;
    (void)state;
    double base_lr = json_number_value(json_object_get(expected, "base_lr"));
    json_array_foreach(json_object_get(expected, "schedules"), i, schedule)
    {
        mz_config config;
        load(schedule, base_lr, &config);
        json_array_foreach(json_object_get(schedule, "lr"), k, value)
        {
            double lr, momentum = 0.9;
            double right_lr = json_number_value(value);
            double right_momentum = json_number_value(json_array_get(json_object_get(schedule, "momentum"), k));
            mz_schedule_at(&config.scheduler, config.optimizer.lr, (int64_t)k, &lr, &momentum);
            if (!near(lr, right_lr) || !near(momentum, right_momentum))
                print_error("schedule %zu (%s), step %zu: lr %.17g for %.17g, momentum %.17g for %.17g\n", i,
                            json_string_value(json_object_get(schedule, "type")), k, lr, right_lr, momentum,
                            right_momentum);
            assert_true(near(lr, right_lr) && near(momentum, right_momentum));
        }
    }
    assert_true(i >= 15);
}

static void scalers(void **state)
{
    size_t i;
    json_t *run;
    (void)state;
    mz_log_set_level(MZ_LOG_WARN);
    json_array_foreach(json_object_get(expected, "scalers"), i, run)
    {
        const json_t *fp16 = json_object_get(run, "fp16"), *scales = json_object_get(run, "scale");
        const char *overflow = json_string_value(json_object_get(run, "overflow"));
        mz_config config = {.dtype = MZ_F16};
        config.fp16.initial_scale_power = (int)json_integer_value(json_object_get(fp16, "initial_scale_power"));
        config.fp16.loss_scale_window = (int)json_integer_value(json_object_get(fp16, "loss_scale_window"));
        config.fp16.hysteresis = (int)json_integer_value(json_object_get(fp16, "hysteresis"));
        config.fp16.consecutive_hysteresis = json_is_true(json_object_get(fp16, "consecutive_hysteresis"));
        config.fp16.min_loss_scale = json_number_value(json_object_get(fp16, "min_loss_scale"));
        mz_loss_scaler scaler;
        mz_loss_scaler_init(&scaler, &config);
        for (size_t k = 0; k < json_array_size(scales); k++) {
            const json_t *right = json_array_get(scales, k);
            mz_status status = mz_loss_scaler_update(&scaler, overflow[k] == 'X');
            bool good = json_is_null(right) ? status == MZ_ERR_NONFINITE
                                            : status == MZ_OK && scaler.scale == json_number_value(right);
            if (!good)
                print_error("%s, step %zu: scale %g\n", json_string_value(json_object_get(run, "name")), k,
                            scaler.scale);
            assert_true(good);
        }
    }
    assert_true(i >= 10);
}

static void constant_and_static(void **state)
{
    (void)state;
    mz_config config = {.dtype = MZ_BF16, .scheduler = {.kind = MZ_SCHED_CONSTANT, .last_batch_iteration = -1}};
    mz_loss_scaler scaler;
    double lr, momentum = 0.5;
    mz_schedule_at(&config.scheduler, 3e-4, 100, &lr, &momentum);
    assert_true(lr == 3e-4 && momentum == 0.5);
    config.fp16.loss_scale = 128;
    mz_loss_scaler_init(&scaler, &config);
    assert_true(scaler.scale == 1 && !scaler.dynamic);
    config.dtype = MZ_F16;
    mz_loss_scaler_init(&scaler, &config);
    assert_true(scaler.scale == 128 && !scaler.dynamic);
    assert_int_equal(mz_loss_scaler_update(&scaler, true), MZ_OK);
    assert_true(scaler.scale == 128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules),
        cmocka_unit_test(scalers),
        cmocka_unit_test(constant_and_static),
    };
    return cmocka_run_group_tests(tests, read_expected, free_expected);
}
