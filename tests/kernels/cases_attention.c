#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "tests/kernels/harness.h"

/* fused: q, k, v side by side in one [b][t][3][heads][head_size]. apart: [b][t][heads][head_size] each.
 * headed: [b][heads][t][head_size], as a key-value cache may have it. */
typedef enum layout { FUSED, APART, HEADED } layout;

typedef struct setting {
    int64_t batch, heads, t_q, t_k, head_size;
    layout layout;
    bool causal, masked;
    float p;
    mz_dtype dtype;
} setting;

static mz_attention_shape shape_of(const setting *s)
{
    int64_t width = s->heads * s->head_size, token = s->layout == FUSED ? 3 * width : width;
    mz_attention_shape a = {
        .batch = s->batch,
        .heads = s->heads,
        .t_q = s->t_q,
        .t_k = s->t_k,
        .head_size = s->head_size,
        .q_batch = s->t_q * token,
        .q_token = token,
        .q_head = s->head_size,
        .k_batch = s->t_k * token,
        .k_token = token,
        .k_head = s->head_size,
        .o_batch = s->t_q * width,
        .o_token = width,
        .o_head = s->head_size,
        .scale = 1.0f / sqrtf((float)s->head_size),
        .causal = s->causal,
        .dtype = s->dtype,
        .dropout = {.p = s->p, .site = 77, .sample_elements = s->heads * s->t_q * s->t_k},
    };
    if (s->layout == HEADED) {
        a.k_head = s->t_k * s->head_size;
        a.k_token = s->head_size;
        a.q_head = s->t_q * s->head_size;
        a.q_token = s->head_size;
    }
    a.v_batch = a.k_batch;
    a.v_token = a.k_token;
    a.v_head = a.k_head;
    return a;
}

/* One tensor of q, k, v: its own buffer, or a place within the fused one. */
typedef struct operand {
    buffer *memory;
    int64_t offset; /* elements */
} operand;

static void *place(const operand *x, int side, mz_dtype dtype)
{
    return (char *)at(x->memory, side) + (size_t)x->offset * mz_dtype_size(dtype);
}

typedef buffer *(*make_fn)(harness *h, mz_dtype dtype, int64_t n);

static buffer *make_input(harness *h, mz_dtype dtype, int64_t n)
{
    return random_buffer(h, dtype, n, -1.5, 1.5);
}

static void make_qkv(harness *h, const setting *s, make_fn make, operand qkv[3])
{
    int64_t width = s->heads * s->head_size, n_q = s->batch * s->t_q * width, n_k = s->batch * s->t_k * width;
    if (s->layout == FUSED) {
        buffer *all = make(h, s->dtype, 3 * n_q);
        for (int i = 0; i < 3; i++)
            qkv[i] = (operand){all, i * width};
    } else {
        for (int i = 0; i < 3; i++)
            qkv[i] = (operand){make(h, s->dtype, i == 0 ? n_q : n_k), 0};
    }
}

/* About a quarter of the keys is padding, and in long rows all of keys 64..127; the last sample has no key at all.
 */
static buffer *make_mask(harness *h, const setting *s)
{
    int64_t n = s->batch * s->t_k;
    uint8_t *mask = mz_alloc((size_t)n);
    for (int64_t i = 0; i < n; i++)
        mask[i] = i / s->t_k < s->batch - 1 || s->batch == 1 ? random_below(h, 4) != 0 : 0;
    for (int64_t i = 0; i < n; i++)
        if (s->t_k >= 192 && i % s->t_k / 64 == 1)
            mask[i] = 0;
    buffer *b = data_buffer(h, mask, (size_t)n);
    mz_free(mask);
    return b;
}

static void describe(harness *h, const setting *s)
{
    begin_case(h, "batch=%ld heads=%ld t=%ldx%ld head_size=%ld layout=%d causal=%d masked=%d p=%g %s",
               (long)s->batch, (long)s->heads, (long)s->t_q, (long)s->t_k, (long)s->head_size, s->layout, s->causal,
               s->masked, (double)s->p, mz_dtype_name(s->dtype));
}

static const mz_rng_state rng = {.seed = 0x123456789abcdefull, .step = 7, .first_sample = 3};

/* Allowed: rounding of the store and of the probabilities to the storage type. */
static void forward_case(harness *h, const setting *s, bool keep_lse)
{
    describe(h, s);
    mz_attention_shape shape = shape_of(s);
    operand qkv[3];
    make_qkv(h, s, make_input, qkv);
    buffer *mask = s->masked ? make_mask(h, s) : NULL, *state = data_buffer(h, &rng, sizeof rng);
    int64_t rows = s->batch * s->heads * s->t_q;
    buffer *o = output_buffer(h, s->dtype, rows * s->head_size),
           *lse = keep_lse ? output_buffer(h, MZ_F32, rows) : NULL;
    for (int side = 0; side < N_SIDES; side++) {
        shape.key_mask = at(mask, side);
        shape.dropout.state = s->p > 0.0f ? at(state, side) : NULL;
        mz_attention_args args = {.shape = shape,
                                  .q = place(&qkv[0], side, s->dtype),
                                  .k = place(&qkv[1], side, s->dtype),
                                  .v = place(&qkv[2], side, s->dtype),
                                  .o = at(o, side),
                                  .lse = at(lse, side)};
        launched(h, h->kernels[side]->attention(&args, h->streams[side]));
    }
    double u = s->dtype == MZ_F32 ? 16.0 * unit(MZ_F32) : unit(s->dtype);
    compare(h, o, "o", 4.0 * u, 4.0 * u);
    if (lse)
        compare(h, lse, "lse", 4e-6, 1e-5);
    end_case(h);
}

/* The gradient takes o and lse as the reference's forward pass leaves them, the same on all sides. */
static void forward_values(harness *h, const setting *s, const operand qkv[3], buffer *mask, void *o, float *lse)
{
    mz_attention_shape shape = shape_of(s);
    shape.key_mask = at(mask, REFERENCE);
    shape.dropout.state = &rng;
    mz_attention_args args = {.shape = shape,
                              .q = place(&qkv[0], REFERENCE, s->dtype),
                              .k = place(&qkv[1], REFERENCE, s->dtype),
                              .v = place(&qkv[2], REFERENCE, s->dtype),
                              .o = o,
                              .lse = lse};
    launched(h, mz_kernels_ref.attention(&args, NULL));
}

static void backward_case(harness *h, const setting *s)
{
    describe(h, s);
    mz_attention_shape shape = shape_of(s);
    operand qkv[3], grads[3];
    make_qkv(h, s, make_input, qkv);
    make_qkv(h, s, output_buffer, grads);
    buffer *mask = s->masked ? make_mask(h, s) : NULL, *state = data_buffer(h, &rng, sizeof rng);
    int64_t rows = s->batch * s->heads * s->t_q;
    size_t o_bytes = (size_t)(rows * s->head_size) * mz_dtype_size(s->dtype);
    void *o_values = mz_alloc(o_bytes);
    float *lse_values = mz_alloc((size_t)rows * sizeof *lse_values);
    forward_values(h, s, qkv, mask, o_values, lse_values);
    buffer *o = data_buffer(h, o_values, o_bytes),
           *lse = data_buffer(h, lse_values, (size_t)rows * sizeof *lse_values);
    buffer *d_o = make_input(h, s->dtype, rows * s->head_size);
    mz_free(o_values);
    mz_free(lse_values);
    size_t workspace_bytes = h->kernels[DEVICE]->attention_grad_workspace(&shape);
    buffer *workspace = workspace_buffer(h, workspace_bytes);
    for (int side = 0; side < N_SIDES; side++) {
        shape.key_mask = at(mask, side);
        shape.dropout.state = s->p > 0.0f ? at(state, side) : NULL;
        mz_attention_grad_args args = {.shape = shape,
                                       .q = place(&qkv[0], side, s->dtype),
                                       .k = place(&qkv[1], side, s->dtype),
                                       .v = place(&qkv[2], side, s->dtype),
                                       .o = at(o, side),
                                       .d_o = at(d_o, side),
                                       .lse = at(lse, side),
                                       .dq = place(&grads[0], side, s->dtype),
                                       .dk = place(&grads[1], side, s->dtype),
                                       .dv = place(&grads[2], side, s->dtype),
                                       .workspace = at(workspace, side),
                                       .workspace_bytes = workspace_bytes};
        launched(h, h->kernels[side]->attention_grad(&args, h->streams[side]));
    }
    double u = s->dtype == MZ_F32 ? 16.0 * unit(MZ_F32) : unit(s->dtype);
    double absolute = 4.0 * u * sqrt((double)(s->t_q > s->t_k ? s->t_q : s->t_k));
    static const char *const names[] = {"dq", "dk", "dv"};
    for (int i = 0; i < (s->layout == FUSED ? 1 : 3); i++)
        compare(h, grads[i].memory, s->layout == FUSED ? "dqkv" : names[i], 4.0 * u, absolute);
    end_case(h);
}

/* Every layout, mask, dropout and dtype of one size. Fused tensors have t_q == t_k. */
static void each_setting(harness *h, setting s, bool backward)
{
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int flags = 0; flags < 8; flags++)
            for (s.layout = s.t_q == s.t_k ? FUSED : APART; s.layout <= HEADED; s.layout++) {
                s.dtype = storage_dtypes[d];
                s.causal = flags & 1;
                s.masked = flags & 2;
                s.p = flags & 4 ? 0.3f : 0.0f;
                if (backward)
                    backward_case(h, &s);
                else
                    forward_case(h, &s, flags % 3 != 0);
            }
}

/* Tensors aligned as kernels with tiles want them, in 16 bits: the edges of tiles of 64 and 128, and the layouts.
 */
static const setting tiled[] = {
    {2, 2, 1, 1, 64, FUSED, true, false, 0.0f, MZ_BF16},
    {1, 2, 63, 63, 64, FUSED, true, false, 0.0f, MZ_BF16},
    {2, 1, 64, 64, 64, FUSED, true, true, 0.3f, MZ_BF16},
    {1, 2, 65, 65, 128, FUSED, true, false, 0.0f, MZ_BF16},
    {1, 1, 127, 127, 96, APART, false, false, 0.0f, MZ_BF16},
    {2, 1, 129, 129, 80, FUSED, true, true, 0.0f, MZ_BF16},
    {1, 2, 130, 130, 32, HEADED, true, false, 0.3f, MZ_BF16},
    {1, 1, 200, 200, 64, FUSED, false, false, 0.3f, MZ_BF16},
    {2, 1, 210, 210, 64, FUSED, true, true, 0.0f, MZ_BF16},
    {1, 1, 1, 130, 64, APART, true, false, 0.0f, MZ_BF16},
    {1, 2, 70, 200, 64, APART, true, false, 0.0f, MZ_BF16},
    {1, 2, 200, 70, 64, APART, true, false, 0.0f, MZ_BF16},
    {1, 1, 129, 257, 128, HEADED, true, true, 0.3f, MZ_BF16},
    {1, 1, 65, 131, 8, APART, false, true, 0.3f, MZ_BF16},
    {1, 1, 100, 61, 24, APART, true, false, 0.3f, MZ_BF16},
    {2, 2, 150, 150, 40, FUSED, false, true, 0.0f, MZ_BF16},
    {2, 1, 320, 320, 128, FUSED, false, false, 0.0f, MZ_BF16},
    {1, 1, 1000, 1000, 64, FUSED, true, false, 0.0f, MZ_BF16},
    {1, 1, 1024, 1024, 64, FUSED, true, false, 0.0f, MZ_BF16},
};

/* The longest take the reference seconds and have no edge that the CPU's tiles know. */
enum { LONGEST_ON_CPU = 512 };

static void each_tiled(harness *h, bool backward)
{
    const bool on_cpu = strcmp(h->device->ops->name, "cpu") == 0;
    h->aligned = true;
    for (size_t i = 0; i < sizeof tiled / sizeof *tiled; i++)
        for (int half = 0; half < 2; half++) {
            setting s = tiled[i];
            if (on_cpu && s.t_q > LONGEST_ON_CPU)
                continue;
            s.dtype = half ? MZ_F16 : MZ_BF16;
            if (backward)
                backward_case(h, &s);
            else
                forward_case(h, &s, true);
        }
    h->aligned = false;
}

/* One or two tiles of each kernel that is compiled apart: by type, by the size that heads are padded to, and on
 * tensor cores without and with a mask or dropout. */
static void each_kernel(harness *h, bool backward)
{
    static const int64_t on_tensor_cores[] = {24, 64, 80, 128}, elsewhere[] = {5, 72, 192, 300};
    for (int i = 0; i < 4; i++)
        for (int d = 0; d < N_STORAGE_DTYPES; d++)
            for (int plain = 0; plain < 2; plain++) {
                h->aligned = storage_dtypes[d] != MZ_F32;
                if (!h->aligned && plain)
                    continue;
                setting s = {
                    .batch = 1, .heads = 1, .t_q = 70, .t_k = 70, .layout = FUSED, .dtype = storage_dtypes[d]};
                s.head_size = h->aligned ? on_tensor_cores[i] : elsewhere[i];
                s.causal = (i + d) % 2;
                s.masked = !plain && i % 2 == 0;
                s.p = !plain && (i % 2 || i == 2) ? 0.3f : 0.0f;
                if (backward)
                    backward_case(h, &s);
                else
                    forward_case(h, &s, true);
            }
    h->aligned = false;
    for (int i = 0; i < 4; i++)
        for (int half = 0; half < 2; half++) { /* 16 bits away from tensor cores: too wide, or not in eights */
            const setting s = {.batch = 1,
                               .heads = 1,
                               .t_q = 20,
                               .t_k = 40,
                               .head_size = elsewhere[i] + (elsewhere[i] == 72),
                               .layout = APART,
                               .causal = i % 2,
                               .masked = i > 1,
                               .p = half ? 0.3f : 0.0f,
                               .dtype = half ? MZ_F16 : MZ_BF16};
            if (backward)
                backward_case(h, &s);
            else
                forward_case(h, &s, true);
        }
}

static void test(harness *h, bool backward)
{
    static const setting sizes[] = {
        {.batch = 1, .heads = 1, .t_q = 1, .t_k = 1, .head_size = 1},
        {.batch = 2, .heads = 3, .t_q = 7, .t_k = 7, .head_size = 5},
        {.batch = 2, .heads = 2, .t_q = 1, .t_k = 19, .head_size = 16},
        {.batch = 2, .heads = 2, .t_q = 9, .t_k = 4, .head_size = 8},
        {.batch = 1, .heads = 2, .t_q = 37, .t_k = 37, .head_size = 32},
        {.batch = 2, .heads = 1, .t_q = 5, .t_k = 70, .head_size = 64},
        {.batch = 1, .heads = 1, .t_q = 67, .t_k = 67, .head_size = 80},
        {.batch = 1, .heads = 2, .t_q = 33, .t_k = 33, .head_size = 192},
        {.batch = 1, .heads = 1, .t_q = 17, .t_k = 40, .head_size = 256},
        {.batch = 1, .heads = 2, .t_q = 19, .t_k = 19, .head_size = 300},
        {.batch = 0, .heads = 2, .t_q = 3, .t_k = 3, .head_size = 8},
    };
    begin_slot(h, backward ? "attention_grad" : "attention");
    if (h->quick) {
        each_kernel(h, backward);
    } else {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            each_setting(h, sizes[i], backward);
        each_tiled(h, backward);
    }
    end_slot(h);
}

void test_attention(harness *h)
{
    test(h, false);
}

void test_attention_grad(harness *h)
{
    test(h, true);
}
