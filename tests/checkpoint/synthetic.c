#include "tests/checkpoint/synthetic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"
#include "core/rng.h"
#include "tests/checkpoint/scratch.h"

mz_world synthetic_world = {.comm = MPI_COMM_NULL, .size = 1, .n_nodes = 1, .local_size = 1};

/* Names as models have them, and some that HDF5 would take for paths. */
static const char *const names[SYNTHETIC_TENSORS] = {"wte.weight",
                                                     "h.0.attn.c_attn.weight",
                                                     "h.0.attn.c_attn.bias",
                                                     "ln_f.weight",
                                                     "a/b",
                                                     "..",
                                                     "100%",
                                                     "tête",
                                                     "h.10.mlp.c_fc.weight",
                                                     "scalar"};

static int64_t draw(const synthetic *s, uint32_t site, int64_t i, int64_t below)
{
    return (int64_t)(mz_rng_u32(s->seed, site, 0, (uint64_t)i) % (uint64_t)below);
}

static void make_tensors(synthetic *s, int64_t scale)
{
    s->n_tensors = SYNTHETIC_TENSORS;
    for (int t = 0; t < s->n_tensors; t++) {
        snprintf(s->names[t], sizeof s->names[t], "%s", names[t]);
        s->n_dims[t] = t == SYNTHETIC_TENSORS - 1 ? 0 : 1 + (int)draw(s, 1, t, 3);
        s->numel[t] = 1;
        for (int d = 0; d < s->n_dims[t]; d++) {
            s->shapes[t][d] = 1 + draw(s, 2, t * 4 + d, d ? 9 : t % 3 ? 60 : scale / 20);
            s->numel[t] *= s->shapes[t][d];
        }
    }
}

mz_dtype synthetic_dtype(int tensor, mz_shard_kind kind)
{
    return (tensor + (int)kind) % 3 == 1 ? MZ_BF16 : MZ_F32;
}

static void add_shard(synthetic *s, int tensor, mz_shard_kind kind, int64_t offset, int64_t count)
{
    s->shards = realloc(s->shards, (size_t)(s->n_shards + 1) * sizeof *s->shards);
    CHECK(s->shards);
    mz_shard *shard = &s->shards[s->n_shards++];
    *shard = (mz_shard){.name = s->names[tensor],
                        .kind = kind,
                        .n_dims = s->n_dims[tensor],
                        .offset = offset,
                        .count = count,
                        .dtype = synthetic_dtype(tensor, kind),
                        .data = malloc((size_t)count * sizeof(float) + 1)};
    memcpy(shard->shape, s->shapes[tensor], sizeof shard->shape);
    CHECK(shard->data);
}

void synthetic_create(synthetic *s, uint64_t seed, int rank, int size, int64_t scale)
{
    *s = (synthetic){.seed = seed};
    make_tensors(s, scale);
    for (int t = 0; t < s->n_tensors; t++) {
        for (int k = 0; k < MZ_N_SHARD_KINDS; k++) {
            int64_t offset = 0;
            for (int piece = 0; offset < s->numel[t]; piece++) {
                const int64_t i = ((int64_t)t * MZ_N_SHARD_KINDS + k) * 1000 + piece;
                int64_t count = draw(s, 3, i, s->numel[t] / 2 + 2); /* may be none */
                if (count > s->numel[t] - offset || piece > 20)
                    count = s->numel[t] - offset;
                if (draw(s, 4, i, size) == rank)
                    add_shard(s, t, (mz_shard_kind)k, offset, count);
                offset += count;
            }
        }
    }
}

void synthetic_destroy(synthetic *s)
{
    for (int64_t i = 0; i < s->n_shards; i++)
        free(s->shards[i].data);
    free(s->shards);
}

float synthetic_value(const synthetic *s, int tensor, mz_shard_kind kind, int64_t element, int64_t step)
{
    const uint64_t x = ((uint64_t)element * 31 + (uint64_t)step * 7 + (uint64_t)tensor * 131 + kind + s->seed);
    const float value = (float)(x * 2654435761u % 16777213u) * 0.001f;
    return synthetic_dtype(tensor, kind) == MZ_BF16 ? mz_bf16_to_f32(mz_f32_to_bf16(value)) : value;
}

void synthetic_fill(synthetic *s, int64_t step)
{
    for (int64_t i = 0; i < s->n_shards; i++) {
        mz_shard *shard = &s->shards[i];
        const int tensor = (int)((shard->name - s->names[0]) / (ptrdiff_t)sizeof s->names[0]);
        for (int64_t e = 0; e < shard->count; e++)
            mz_store_f32(shard->data, shard->dtype, e,
                         synthetic_value(s, tensor, shard->kind, shard->offset + e, step));
    }
}

mz_status synthetic_check_range(const synthetic *s, mz_checkpoint *checkpoint, int tensor, mz_shard_kind kind,
                                int64_t offset, int64_t count)
{
    float *got = malloc((size_t)count * sizeof *got + 1);
    CHECK(got);
    mz_status status = mz_checkpoint_read(checkpoint, s->names[tensor], kind, offset, count, got);
    for (int64_t e = 0; e < count && !status; e++)
        CHECK(got[e] == synthetic_value(s, tensor, kind, offset + e, mz_checkpoint_step(checkpoint)));
    free(got);
    return status;
}

mz_status synthetic_check(const synthetic *s, mz_checkpoint *checkpoint, int parts)
{
    mz_status status = MZ_OK;
    CHECK(mz_checkpoint_n_tensors(checkpoint) == s->n_tensors);
    for (int t = 0; t < s->n_tensors; t++)
        for (int k = 0; k < MZ_N_SHARD_KINDS; k++)
            for (int p = 0; p < parts && !status; p++) {
                const int64_t begin = s->numel[t] * p / parts, end = s->numel[t] * (p + 1) / parts;
                status = synthetic_check_range(s, checkpoint, t, (mz_shard_kind)k, begin, end - begin);
            }
    return status;
}
