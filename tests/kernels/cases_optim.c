#include "tests/kernels/harness.h"

enum { N_CHUNKS = 3 };

typedef struct variant {
    const char *name;
    mz_optim_kind kind;
    mz_optim_hyper hyper;
} variant;

static const variant variants[] = {
    {"adamw",
     MZ_OPTIM_ADAMW,
     {.lr = 0.01f,
      .beta1 = 0.9f,
      .beta2 = 0.999f,
      .eps = 1e-8f,
      .bias_correction1 = 0.19f,
      .bias_correction2 = 0.002f}},
    {"adam",
     MZ_OPTIM_ADAM,
     {.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-6f, .bias_correction1 = 1, .bias_correction2 = 1}},
    {"sgd", MZ_OPTIM_SGD, {.lr = 0.1f}},
    {"sgd momentum", MZ_OPTIM_SGD, {.lr = 0.1f, .momentum = 0.9f, .dampening = 0.1f}},
    {"sgd first step", MZ_OPTIM_SGD, {.lr = 0.1f, .momentum = 0.9f, .dampening = 0.1f, .first_step = 1}},
    {"sgd nesterov", MZ_OPTIM_SGD, {.lr = 0.1f, .momentum = 0.9f, .nesterov = 1}},
    {"adagrad", MZ_OPTIM_ADAGRAD, {.lr = 0.1f, .eps = 1e-10f}},
    {"lion", MZ_OPTIM_LION, {.lr = 0.001f, .beta1 = 0.9f, .beta2 = 0.99f}},
};
enum { N_VARIANTS = sizeof variants / sizeof *variants };

/* What one chunk points to. */
typedef struct chunk {
    int64_t n;
    buffer *master, *state1, *state2, *grad, *param;
} chunk;

/* How weights and states are stored. */
typedef struct form {
    bool no_master, stochastic;
    mz_dtype state_dtype;
} form;

static const form with_master = {.state_dtype = MZ_F32};

static chunk make_chunk(harness *h, const variant *v, int64_t n, mz_dtype grad_dtype, mz_dtype param_dtype,
                        const form *f)
{
    bool moments = v->kind == MZ_OPTIM_ADAMW || v->kind == MZ_OPTIM_ADAM;
    bool stateless = v->kind == MZ_OPTIM_SGD && v->hyper.momentum == 0.0f;
    double low = v->kind == MZ_OPTIM_ADAGRAD ? 0.1 : -0.5;
    return (chunk){.n = n,
                   .master = f->no_master ? NULL : random_buffer(h, MZ_F32, n, -1, 1),
                   .state1 = stateless ? NULL : random_buffer(h, f->state_dtype, n, low, 0.5),
                   .state2 = moments ? random_buffer(h, f->state_dtype, n, 0.0, 0.2) : NULL,
                   .grad = random_buffer(h, grad_dtype, n, -2, 2),
                   .param = f->no_master            ? random_buffer(h, MZ_BF16, n, -1, 1)
                            : param_dtype == MZ_F32 ? NULL
                                                    : output_buffer(h, param_dtype, n)};
}

/* Where chunks lie among the model's elements: anywhere, and where vectors of draws begin. */
static const int64_t first_elements[N_CHUNKS] = {7, (INT64_C(1) << 34) + 4096, 1002};

/* The table of chunks as each side sees it. */
static buffer *chunk_table(harness *h, const chunk *c)
{
    static mz_optim_chunk tables[N_SIDES][N_CHUNKS];
    const void *data[N_SIDES];
    for (int side = 0; side < N_SIDES; side++) {
        for (int i = 0; i < N_CHUNKS; i++)
            tables[side][i] = (mz_optim_chunk){.master = at(c[i].master, side),
                                               .state1 = at(c[i].state1, side),
                                               .state2 = at(c[i].state2, side),
                                               .grad = at(c[i].grad, side),
                                               .param = at(c[i].param, side),
                                               .n = c[i].n,
                                               .first = first_elements[i],
                                               .weight_decay = i == 1 ? 0.0f : 0.1f,
                                               .lr_scale = i == 2 ? 0.5f : 1.0f};
        data[side] = tables[side];
    }
    return sided_buffer(h, data, sizeof tables[0]);
}

static void compare_state(harness *h, buffer *state, const char *what, const form *f)
{
    if (state && f->state_dtype == MZ_BF16)
        compare_rounded(h, state, what, 2.1 * unit(MZ_BF16), 2e-7);
    else if (state)
        compare(h, state, what, 4e-7, 2e-7);
}

/* Allowed: a few roundings of numbers within 2, and what a division by a small root makes of them. */
static void one_case(harness *h, const variant *v, mz_dtype grad_dtype, mz_dtype param_dtype, const form *f,
                     bool nonfinite)
{
    static const int64_t odd_sizes[N_CHUNKS] = {1, 257, 1003}, vector_sizes[N_CHUNKS] = {2048, 5000, 4096};
    const int64_t *sizes = h->aligned ? vector_sizes : odd_sizes;
    float grad_scale = 0.25f;
    uint64_t bad = nonfinite ? 2 : 0;
    const mz_rng_state rng = {.seed = 0x123456789abcdef, .step = (UINT64_C(1) << 32) + 5, .first_sample = 9};
    begin_case(h, "%s grad %s param %s nonfinite=%d%s%s state %s", v->name, mz_dtype_name(grad_dtype),
               mz_dtype_name(param_dtype), nonfinite, f->no_master ? " no master" : "",
               f->stochastic ? " stochastic" : "", mz_dtype_name(f->state_dtype));
    chunk c[N_CHUNKS];
    int64_t n_elements = 0;
    for (int i = 0; i < N_CHUNKS; i++) {
        c[i] = make_chunk(h, v, sizes[i], grad_dtype, param_dtype, f);
        n_elements += sizes[i];
    }
    set_element(h, c[1].grad, 5, 0.0f);
    if (c[1].state2)
        set_element(h, c[1].state2, 5, 0.0f);
    if (c[1].state1)
        set_element(h, c[1].state1, 5, 0.0f);
    buffer *table = chunk_table(h, c), *hyper = data_buffer(h, &v->hyper, sizeof v->hyper);
    buffer *scale = data_buffer(h, &grad_scale, sizeof grad_scale), *bads = data_buffer(h, &bad, sizeof bad);
    buffer *state = data_buffer(h, &rng, sizeof rng);
    for (int side = 0; side < N_SIDES; side++) {
        mz_optim_args args = {.kind = v->kind,
                              .chunks = at(table, side),
                              .n_chunks = N_CHUNKS,
                              .n_elements = n_elements,
                              .hyper = at(hyper, side),
                              .grad_scale = at(scale, side),
                              .nonfinite = at(bads, side),
                              .grad_dtype = grad_dtype,
                              .param_dtype = param_dtype,
                              .no_master = f->no_master,
                              .state_dtype = f->state_dtype,
                              .rounding = {.state = f->stochastic ? at(state, side) : NULL, .site = 77}};
        launched(h, h->kernels[side]->optim(&args, h->streams[side]));
    }
    for (int i = 0; !nonfinite && i < N_CHUNKS; i++) {
        if (c[i].master)
            compare(h, c[i].master, "master", 4e-7, 1e-6);
        compare_state(h, c[i].state1, "state1", f);
        compare_state(h, c[i].state2, "state2", f);
        if (f->no_master)
            compare_rounded(h, c[i].param, "param", 2.1 * unit(MZ_BF16), 1e-6);
        else if (c[i].param)
            compare(h, c[i].param, "param", 2.1 * unit(param_dtype), 1e-6);
    }
    end_case(h); /* sees that a step with infinities leaves everything as it is */
}

/* More chunks than a block looks at together, all of them parts of the same arrays; every fifth is empty. */
static void many_chunks_case(harness *h, const variant *v)
{
    enum { MANY = 700 };
    static mz_optim_chunk tables[N_SIDES][MANY];
    const void *data[N_SIDES];
    float grad_scale = 0.25f;
    uint64_t bad = 0;
    int64_t sizes[MANY], n = 0;
    begin_case(h, "%s, %d chunks", v->name, MANY);
    for (int i = 0; i < MANY; i++)
        n += sizes[i] = i % 5 == 0 ? 0 : i == 3 ? 5000 : random_below(h, 40);
    chunk all = make_chunk(h, v, n, MZ_BF16, MZ_BF16, &with_master);
    for (int side = 0; side < N_SIDES; side++) {
        int64_t begin = 0;
        for (int i = 0; i < MANY; begin += sizes[i++])
            tables[side][i] = (mz_optim_chunk){.master = (float *)at(all.master, side) + begin,
                                               .state1 = (float *)at(all.state1, side) + begin,
                                               .state2 = (float *)at(all.state2, side) + begin,
                                               .grad = (char *)at(all.grad, side) + 2 * begin,
                                               .param = (char *)at(all.param, side) + 2 * begin,
                                               .n = sizes[i],
                                               .weight_decay = 0.01f * (float)(i % 7),
                                               .lr_scale = 1.0f + (float)(i % 3)};
        data[side] = tables[side];
    }
    buffer *table = sided_buffer(h, data, sizeof tables[0]), *hyper = data_buffer(h, &v->hyper, sizeof v->hyper);
    buffer *scale = data_buffer(h, &grad_scale, sizeof grad_scale), *bads = data_buffer(h, &bad, sizeof bad);
    for (int side = 0; side < N_SIDES; side++) {
        mz_optim_args args = {.kind = v->kind,
                              .chunks = at(table, side),
                              .n_chunks = MANY,
                              .n_elements = n,
                              .hyper = at(hyper, side),
                              .grad_scale = at(scale, side),
                              .nonfinite = at(bads, side),
                              .grad_dtype = MZ_BF16,
                              .param_dtype = MZ_BF16};
        launched(h, h->kernels[side]->optim(&args, h->streams[side]));
    }
    compare(h, all.master, "master", 4e-7, 2e-6);
    compare(h, all.state1, "state1", 4e-7, 2e-7);
    compare(h, all.state2, "state2", 4e-7, 2e-7);
    compare(h, all.param, "param", 2.1 * unit(MZ_BF16), 2e-6);
    end_case(h);
}

static void cases_with_master(harness *h, const variant *v)
{
    for (int g = 0; g < N_STORAGE_DTYPES; g++)
        for (int p = 0; p < N_STORAGE_DTYPES; p++)
            for (int nonfinite = 0; nonfinite < 2; nonfinite++)
                for (int aligned = 0; aligned < 2; aligned++) {
                    h->aligned = aligned;
                    one_case(h, v, storage_dtypes[g], storage_dtypes[p], &with_master, nonfinite);
                }
}

static void cases_without_master(harness *h, const variant *v)
{
    static const mz_dtype dtypes[] = {MZ_F32, MZ_BF16};
    for (int g = 0; g < 2; g++)
        for (int s = 0; s < 2; s++)
            for (int stochastic = 0; stochastic < 2; stochastic++)
                for (int aligned = 0; aligned < 2; aligned++) {
                    const form f = {.no_master = true, .stochastic = stochastic, .state_dtype = dtypes[s]};
                    h->aligned = aligned;
                    one_case(h, v, dtypes[g], MZ_BF16, &f, false);
                    one_case(h, v, dtypes[g], MZ_BF16, &f, true);
                }
}

/* What a backend must not take. */
static void refusals(harness *h)
{
    static const mz_rng_state rng = {.seed = 1};
    static const mz_optim_args bad[] = {
        {.no_master = true, .grad_dtype = MZ_BF16, .param_dtype = MZ_F16},
        {.no_master = true, .grad_dtype = MZ_F16, .param_dtype = MZ_BF16},
        {.no_master = true, .grad_dtype = MZ_BF16, .param_dtype = MZ_BF16, .state_dtype = MZ_F16},
        {.grad_dtype = MZ_BF16, .param_dtype = MZ_BF16, .state_dtype = MZ_BF16},
        {.grad_dtype = MZ_BF16, .param_dtype = MZ_BF16, .rounding = {.state = &rng}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        begin_case(h, "refusal %zu", i);
        for (int side = 0; side < N_SIDES; side++)
            launched(h, h->kernels[side]->optim(&bad[i], h->streams[side]) == MZ_ERR_ARGUMENT ? MZ_OK
                                                                                              : MZ_ERR_INTERNAL);
        end_case(h);
    }
}

void test_optim(harness *h)
{
    begin_slot(h, "optim");
    many_chunks_case(h, &variants[0]);
    for (int i = 0; i < N_VARIANTS; i++) {
        cases_with_master(h, &variants[i]);
        cases_without_master(h, &variants[i]);
    }
    h->aligned = false;
    refusals(h);
    end_slot(h);
}
