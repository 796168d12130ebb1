/* The reference's gradients, by finite differences. */
#include "tests/core/cmocka_all.h"

#include <math.h>
#include <stdbool.h>

#include "kernels/kernels.h"

static uint32_t seed = 88172645u;
static uint32_t random_u32(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static void randomise(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((double)random_u32() / 2147483648.0 - 1.0);
}

/* A scalar function of whatever the case perturbs. */
typedef double (*loss_fn)(void *context);

static double weighted(const float *y, const float *w, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)y[i] * (double)w[i];
    return sum;
}

/* Central differences of fourth order with a step of 1/64: about 1e-7 of truncation, and the rounding of fp32
 * values near 1 over the step. Allowed: 2e-4 of the largest element. */
static void check_gradient(const char *what, float *x, int64_t n, const float *gradient, loss_fn loss,
                           void *context)
{
    const float step = 0x1p-6f;
    double largest = 1e-2;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)gradient[i]));
    for (int64_t i = 0; i < n; i++) {
        float kept = x[i];
        double at[4];
        static const float offsets[4] = {-2, -1, 1, 2};
        for (int k = 0; k < 4; k++) {
            x[i] = kept + offsets[k] * step;
            at[k] = loss(context);
        }
        x[i] = kept;
        double slope = (8.0 * (at[2] - at[1]) - (at[3] - at[0])) / (12.0 * (double)step);
        if (!(fabs(slope - (double)gradient[i]) <= 2e-4 * largest))
            fail_msg("%s[%d]: gradient %.7g, by differences %.7g", what, (int)i, (double)gradient[i], slope);
    }
}

/* ---- layer norm ---- */

enum { LN_ROWS = 5, LN_COLS = 11, LN_N = LN_ROWS * LN_COLS };

typedef struct norm {
    float x[LN_N], residual[LN_N], weight[LN_COLS], bias[LN_COLS], sum[LN_N], y[LN_N], mean[LN_ROWS], rstd[LN_ROWS];
    float dy[LN_N], dsum[LN_N];
} norm;

static double norm_loss(void *context)
{
    norm *c = context;
    mz_layer_norm_args args = {.rows = LN_ROWS,
                               .cols = LN_COLS,
                               .eps = 1e-5f,
                               .x = c->x,
                               .residual = c->residual,
                               .weight = c->weight,
                               .bias = c->bias,
                               .sum = c->sum,
                               .y = c->y,
                               .mean = c->mean,
                               .rstd = c->rstd,
                               .dtype = MZ_F32};
    assert_int_equal(mz_kernels_ref.layer_norm(&args, NULL), MZ_OK);
    return weighted(c->y, c->dy, LN_N) + weighted(c->sum, c->dsum, LN_N);
}

static void layer_norm_gradient(void **state)
{
    (void)state;
    static norm c;
    float dx[LN_N], dweight[LN_COLS], dbias[LN_COLS];
    randomise(c.x, LN_N);
    randomise(c.residual, LN_N);
    randomise(c.weight, LN_COLS);
    randomise(c.bias, LN_COLS);
    randomise(c.dy, LN_N);
    randomise(c.dsum, LN_N);
    norm_loss(&c);
    mz_layer_norm_grad_args args = {.rows = LN_ROWS,
                                    .cols = LN_COLS,
                                    .dy = c.dy,
                                    .x = c.sum,
                                    .weight = c.weight,
                                    .dresidual = c.dsum,
                                    .mean = c.mean,
                                    .rstd = c.rstd,
                                    .dx = dx,
                                    .dweight = dweight,
                                    .dbias = dbias,
                                    .dtype = MZ_F32,
                                    .dtype_grad = MZ_F32};
    assert_int_equal(mz_kernels_ref.layer_norm_grad(&args, NULL), MZ_OK);
    check_gradient("dx", c.x, LN_N, dx, norm_loss, &c);
    check_gradient("dresidual", c.residual, LN_N, dx, norm_loss, &c);
    check_gradient("dweight", c.weight, LN_COLS, dweight, norm_loss, &c);
    check_gradient("dbias", c.bias, LN_COLS, dbias, norm_loss, &c);
}

/* ---- activations ---- */

typedef struct curve {
    mz_activation activation;
    float x[64], y[64], dy[64];
} curve;

static double curve_loss(void *context)
{
    curve *c = context;
    mz_activation_args args = {.n = 64, .activation = c->activation, .x = c->x, .y = c->y, .dtype = MZ_F32};
    assert_int_equal(mz_kernels_ref.activation(&args, NULL), MZ_OK);
    return weighted(c->y, c->dy, 64);
}

static void activation_gradients(void **state)
{
    (void)state;
    for (int a = 0; a < MZ_N_ACTIVATIONS; a++) {
        static curve c;
        float dx[64];
        c.activation = (mz_activation)a;
        for (int i = 0; i < 64; i++) /* away from relu's kink */
            c.x[i] = (float)(i - 32) / 8.0f + 0.0625f;
        randomise(c.dy, 64);
        mz_activation_grad_args args = {
            .n = 64, .activation = c.activation, .dy = c.dy, .x = c.x, .dx = dx, .dtype = MZ_F32};
        assert_int_equal(mz_kernels_ref.activation_grad(&args, NULL), MZ_OK);
        check_gradient("dx", c.x, 64, dx, curve_loss, &c);
    }
}

/* ---- attention ---- */

enum { HEADS = 2, HEAD_SIZE = 5, T_Q = 4, T_K = 6, BATCH = 2 };
enum { N_Q = BATCH * T_Q * HEADS * HEAD_SIZE, N_K = BATCH * T_K * HEADS * HEAD_SIZE };

typedef struct attend {
    mz_attention_shape shape;
    float q[N_Q], k[N_K], v[N_K], o[N_Q], d_o[N_Q], lse[BATCH * HEADS * T_Q];
} attend;

static double attend_loss(void *context)
{
    attend *c = context;
    mz_attention_args args = {.shape = c->shape, .q = c->q, .k = c->k, .v = c->v, .o = c->o, .lse = c->lse};
    assert_int_equal(mz_kernels_ref.attention(&args, NULL), MZ_OK);
    return weighted(c->o, c->d_o, N_Q);
}

static void attention_gradient(void **state)
{
    (void)state;
    static const uint8_t mask[BATCH * T_K] = {1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1};
    static const mz_rng_state rng = {.seed = 5, .step = 2, .first_sample = 1};
    for (int flags = 0; flags < 8; flags++) {
        static attend c;
        int64_t width = HEADS * HEAD_SIZE;
        c.shape = (mz_attention_shape){
            .batch = BATCH,
            .heads = HEADS,
            .t_q = T_Q,
            .t_k = T_K,
            .head_size = HEAD_SIZE,
            .q_batch = T_Q * width,
            .q_token = width,
            .q_head = HEAD_SIZE,
            .k_batch = T_K * width,
            .k_token = width,
            .k_head = HEAD_SIZE,
            .v_batch = T_K * width,
            .v_token = width,
            .v_head = HEAD_SIZE,
            .o_batch = T_Q * width,
            .o_token = width,
            .o_head = HEAD_SIZE,
            .scale = 0.7f,
            .causal = flags & 1,
            .key_mask = flags & 2 ? mask : NULL,
            .dropout = {.p = flags & 4 ? 0.25f : 0.0f,
                        .site = 3,
                        .sample_elements = HEADS * T_Q * T_K,
                        .state = &rng},
            .dtype = MZ_F32,
        };
        randomise(c.q, N_Q);
        randomise(c.k, N_K);
        randomise(c.v, N_K);
        randomise(c.d_o, N_Q);
        attend_loss(&c);
        static float dq[N_Q], dk[N_K], dv[N_K];
        mz_attention_grad_args args = {.shape = c.shape,
                                       .q = c.q,
                                       .k = c.k,
                                       .v = c.v,
                                       .o = c.o,
                                       .d_o = c.d_o,
                                       .lse = c.lse,
                                       .dq = dq,
                                       .dk = dk,
                                       .dv = dv};
        assert_int_equal(mz_kernels_ref.attention_grad_workspace(&c.shape), 0);
        assert_int_equal(mz_kernels_ref.attention_grad(&args, NULL), MZ_OK);
        check_gradient("dq", c.q, N_Q, dq, attend_loss, &c);
        check_gradient("dk", c.k, N_K, dk, attend_loss, &c);
        check_gradient("dv", c.v, N_K, dv, attend_loss, &c);
    }
}

/* A softmax over equal scores is the mean; a row without keys is 0. */
static void attention_of_equal_scores_is_the_mean(void **state)
{
    (void)state;
    static attend c;
    static const uint8_t mask[BATCH * T_K] = {1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0};
    int64_t width = HEADS * HEAD_SIZE;
    c.shape = (mz_attention_shape){
        .batch = BATCH,
        .heads = HEADS,
        .t_q = T_Q,
        .t_k = T_K,
        .head_size = HEAD_SIZE,
        .q_batch = T_Q * width,
        .q_token = width,
        .q_head = HEAD_SIZE,
        .k_batch = T_K * width,
        .k_token = width,
        .k_head = HEAD_SIZE,
        .v_batch = T_K * width,
        .v_token = width,
        .v_head = HEAD_SIZE,
        .o_batch = T_Q * width,
        .o_token = width,
        .o_head = HEAD_SIZE,
        .scale = 0.0f,
        .causal = true,
        .key_mask = mask,
        .dtype = MZ_F32,
    };
    randomise(c.v, N_K);
    randomise(c.d_o, N_Q);
    attend_loss(&c);
    for (int t = 0; t < T_Q; t++)
        for (int d = 0; d < width; d++) {
            double mean = 0.0;
            int n_keys = t + T_K - T_Q + 1;
            for (int j = 0; j < n_keys; j++)
                mean += (double)c.v[j * width + d] / n_keys;
            assert_true(fabs((double)c.o[t * width + d] - mean) < 1e-6);
            assert_true(c.o[(T_Q + t) * width + d] == 0.0f);
        }
}

/* ---- embedding ---- */

enum { TOKENS = 12, WIDTH = 3, VOCAB = 5, PLACES = 8 };

typedef struct lookup {
    float table[VOCAB * WIDTH], positions[PLACES * WIDTH], y[TOKENS * WIDTH], dy[TOKENS * WIDTH];
    int32_t ids[TOKENS], position_ids[TOKENS];
    bool by_ids;
} lookup;

static double lookup_loss(void *context)
{
    lookup *c = context;
    mz_embedding_args args = {.n = TOKENS,
                              .cols = WIDTH,
                              .vocab = VOCAB,
                              .ids = c->ids,
                              .table = c->table,
                              .position_ids = c->by_ids ? c->position_ids : NULL,
                              .period = 4,
                              .position_offset = 2,
                              .positions = c->positions,
                              .y = c->y,
                              .dtype = MZ_F32};
    assert_int_equal(mz_kernels_ref.embedding(&args, NULL), MZ_OK);
    return weighted(c->y, c->dy, TOKENS * WIDTH);
}

static void embedding_gradient(void **state)
{
    (void)state;
    for (int by_ids = 0; by_ids < 2; by_ids++) {
        static lookup c;
        float dtable[VOCAB * WIDTH], dpositions[PLACES * WIDTH];
        c.by_ids = by_ids;
        randomise(c.table, VOCAB * WIDTH);
        randomise(c.positions, PLACES * WIDTH);
        randomise(c.dy, TOKENS * WIDTH);
        for (int i = 0; i < TOKENS; i++) {
            c.ids[i] = (int32_t)(random_u32() % (VOCAB - 1)); /* the last row is never looked up */
            c.position_ids[i] = (int32_t)(random_u32() % PLACES);
        }
        mz_embedding_grad_args args = {.n = TOKENS,
                                       .cols = WIDTH,
                                       .vocab = VOCAB,
                                       .n_positions = PLACES,
                                       .ids = c.ids,
                                       .position_ids = by_ids ? c.position_ids : NULL,
                                       .period = 4,
                                       .position_offset = 2,
                                       .dy = c.dy,
                                       .dtable = dtable,
                                       .dpositions = dpositions,
                                       .dtype = MZ_F32,
                                       .dtype_grad = MZ_F32};
        assert_int_equal(mz_kernels_ref.embedding_grad(&args, NULL), MZ_OK);
        check_gradient("dtable", c.table, VOCAB * WIDTH, dtable, lookup_loss, &c);
        check_gradient("dpositions", c.positions, PLACES * WIDTH, dpositions, lookup_loss, &c);
    }
}

/* ---- losses ---- */

enum { CE_ROWS = 6, CE_VOCAB = 9, CE_LD = 11 };

typedef struct entropy {
    float logits[CE_ROWS * CE_LD], row_loss[CE_ROWS], loss;
    int32_t labels[CE_ROWS];
} entropy;

static const float loss_scale = 0.5f, grad_scale = 3.0f;

static double entropy_loss(void *context)
{
    entropy *c = context;
    c->loss = 1.0f;
    mz_cross_entropy_args args = {.rows = CE_ROWS,
                                  .vocab = CE_VOCAB,
                                  .ld = CE_LD,
                                  .logits = c->logits,
                                  .labels = c->labels,
                                  .ignore_index = -100,
                                  .loss_scale = &loss_scale,
                                  .grad_scale = &grad_scale,
                                  .loss = &c->loss,
                                  .row_loss = c->row_loss,
                                  .dtype = MZ_F32};
    assert_int_equal(mz_kernels_ref.cross_entropy(&args, NULL), MZ_OK);
    double sum = 0.0;
    for (int r = 0; r < CE_ROWS; r++)
        sum += (double)c->row_loss[r];
    assert_true(fabs((double)c->loss - 1.0 - 0.5 * sum) < 1e-5);
    return sum * (double)grad_scale;
}

static void cross_entropy_gradient(void **state)
{
    (void)state;
    static entropy c = {.labels = {3, -100, 0, 8, 8, -100}};
    float dlogits[CE_ROWS * CE_LD], loss = 0.0f;
    randomise(c.logits, CE_ROWS * CE_LD);
    mz_cross_entropy_args args = {.rows = CE_ROWS,
                                  .vocab = CE_VOCAB,
                                  .ld = CE_LD,
                                  .logits = c.logits,
                                  .labels = c.labels,
                                  .ignore_index = -100,
                                  .loss_scale = &loss_scale,
                                  .grad_scale = &grad_scale,
                                  .dlogits = dlogits,
                                  .loss = &loss,
                                  .dtype = MZ_F32};
    assert_int_equal(mz_kernels_ref.cross_entropy(&args, NULL), MZ_OK);
    check_gradient("dlogits", c.logits, CE_ROWS * CE_LD, dlogits, entropy_loss, &c);
}

typedef struct squares {
    float x[20], target[20], loss;
} squares;

static double squares_loss(void *context)
{
    squares *c = context;
    double sum = 0.0;
    for (int i = 0; i < 20; i++)
        sum += ((double)c->x[i] - (double)c->target[i]) * ((double)c->x[i] - (double)c->target[i]);
    return sum * (double)grad_scale;
}

static void mse_gradient(void **state)
{
    (void)state;
    static squares c = {.loss = 2.0f};
    float dx[20];
    randomise(c.x, 20);
    randomise(c.target, 20);
    mz_mse_args args = {.n = 20,
                        .x = c.x,
                        .target = c.target,
                        .loss_scale = &loss_scale,
                        .grad_scale = &grad_scale,
                        .dx = dx,
                        .loss = &c.loss,
                        .dtype = MZ_F32};
    assert_int_equal(mz_kernels_ref.mse(&args, NULL), MZ_OK);
    assert_true(fabs((double)c.loss - 2.0 - squares_loss(&c) / 3.0 * 0.5) < 1e-5);
    check_gradient("dx", c.x, 20, dx, squares_loss, &c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layer_norm_gradient), cmocka_unit_test(activation_gradients),
        cmocka_unit_test(attention_gradient),  cmocka_unit_test(attention_of_equal_scores_is_the_mean),
        cmocka_unit_test(embedding_gradient),  cmocka_unit_test(cross_entropy_gradient),
        cmocka_unit_test(mse_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
