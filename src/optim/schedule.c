/* DeepSpeed calls its scheduler after each optimiser step, so that step `iteration` is taken with the rate
 * of index iteration - 1 (plus where the schedule was told to begin); the first one with the rate that the
 * scheduler's constructor sets. */
#include "optim/schedule.h"

#include <math.h>

static const double PI = 3.14159265358979323846;

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* Steps of warm-up, as DeepSpeed counts them: the logarithm needs two. */
static int64_t warmup_steps(const mz_scheduler_config *s)
{
    return s->warmup_num_steps > 2 ? s->warmup_num_steps : 2;
}

/* How far the warm-up has come at index it < warmup_steps: from 0 to 1. */
static double warmup_share(const mz_scheduler_config *s, int64_t it)
{
    double steps = (double)warmup_steps(s);
    return s->warmup_linear ? (double)it / steps : log((double)it + 1) / log(steps);
}

static double warmup_lr(const mz_scheduler_config *s, double base_lr, int64_t it)
{
    double highest = s->warmup_max_lr < 0 ? base_lr : s->warmup_max_lr;
    double share = 1;
    if (it < 0)
        return s->warmup_min_lr;
    if (it < warmup_steps(s))
        share = warmup_share(s, it);
    else if (s->kind == MZ_SCHED_WARMUP_DECAY)
        share = larger(0, (double)(s->total_num_steps - it) /
                              larger(1, (double)(s->total_num_steps - warmup_steps(s))));
    return s->warmup_min_lr + (highest - s->warmup_min_lr) * share;
}

static double cosine_lr(const mz_scheduler_config *s, double base_lr, int64_t it)
{
    if (it < 0)
        return 0;
    if (it < warmup_steps(s))
        return base_lr * (s->warmup_min_ratio + (1 - s->warmup_min_ratio) * warmup_share(s, it));
    double done = (double)(it - warmup_steps(s) + 1) / larger(1, (double)(s->total_num_steps - warmup_steps(s)));
    double share = (1 + cos(PI * (done < 1 ? done : 1))) / 2;
    return base_lr * larger(0, s->cos_min_ratio + (1 - s->cos_min_ratio) * share);
}

static double range_test_lr(const mz_scheduler_config *s, int64_t it)
{
    double intervals = (double)(it + 1) / (double)s->lr_range_test_step_size;
    if (it < 0)
        return s->lr_range_test_min_lr;
    if (s->lr_range_test_staircase)
        intervals = floor(intervals);
    return s->lr_range_test_min_lr * (1 + s->lr_range_test_step_rate * intervals);
}

/* Place in the cycle, 0 at its ends and 1 at its peak; in stairs where asked for. */
static double cycle_share(const mz_scheduler_config *s, int64_t it, double first, double second)
{
    double total = first + second;
    int64_t first_stairs = s->cycle_first_stair_count;
    int64_t second_stairs = s->cycle_second_stair_count < 0 ? first_stairs : s->cycle_second_stair_count;
    double place = fmod((double)(it + 1), total);
    bool rising = place <= first;
    double share = rising ? place / first : (total - place) / second;
    int64_t stairs = rising ? first_stairs : second_stairs;
    return stairs > 0 ? floor(share * (double)stairs) / (double)stairs : share;
}

static void one_cycle(const mz_scheduler_config *s, int64_t it, double *lr, double *momentum)
{
    double first = (double)s->cycle_first_step_size;
    double second = s->cycle_second_step_size < 0 ? first : (double)s->cycle_second_step_size;
    double new_lr = s->cycle_min_lr, new_momentum = s->cycle_max_mom;
    if (it < 0) {
        new_momentum = s->cycle_min_mom; /* as its constructor sets it */
    } else if ((double)it < first + second) {
        double share = cycle_share(s, it, first, second);
        new_lr += (s->cycle_max_lr - s->cycle_min_lr) * share;
        new_momentum -= (s->cycle_max_mom - s->cycle_min_mom) * share;
    } else if (s->decay_step_size > 0) {
        double intervals = ((double)it - first - second + 1) / (double)s->decay_step_size;
        new_lr /= 1 + s->decay_lr_rate * intervals;
        new_momentum *= 1 + s->decay_mom_rate * intervals;
    }
    *lr = new_lr;
    if (s->cycle_momentum)
        *momentum = new_momentum;
}

void mz_schedule_at(const mz_scheduler_config *schedule, double base_lr, int64_t iteration, double *lr,
                    double *momentum)
{
    int64_t it = schedule->last_batch_iteration + iteration;
    *lr = base_lr;
    if (iteration == 0 && it >= 0)
        return; /* a schedule that begins later touches the rate after the first step only */
    switch (schedule->kind) {
    case MZ_SCHED_CONSTANT:
        break;
    case MZ_SCHED_WARMUP:
    case MZ_SCHED_WARMUP_DECAY:
        *lr = warmup_lr(schedule, base_lr, it);
        break;
    case MZ_SCHED_WARMUP_COSINE:
        *lr = cosine_lr(schedule, base_lr, it);
        break;
    case MZ_SCHED_ONE_CYCLE:
        one_cycle(schedule, it, lr, momentum);
        break;
    case MZ_SCHED_LR_RANGE_TEST:
        *lr = range_test_lr(schedule, it);
        break;
    }
}
