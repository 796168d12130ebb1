#include "kernels/check.h"
#include "kernels/cpu/family.h"
#include "kernels/cpu/storage.h"

/* The table row of a token; the data layer has refused ids outside the vocabulary. */
MZ_INLINE int64_t row_of(int32_t id, int64_t vocab)
{
    return id >= 0 && id < vocab ? id : 0;
}

MZ_INLINE int64_t position_of(const int32_t *position_ids, int64_t i, int64_t period, int64_t offset)
{
    return position_ids ? position_ids[i] : i % period + offset;
}

MZ_INLINE void look_up(const mz_embedding_args *a, mz_dtype dtype, int64_t i)
{
    const int64_t row = row_of(a->ids[i], a->vocab) * a->cols;
    const int64_t at = a->positions ? position_of(a->position_ids, i, a->period, a->position_offset) * a->cols : 0;
    for (int64_t c = 0; c < a->cols; c += VF_N) {
        vf y = mz_load_n(a->table, dtype, row + c, a->cols - c);
        if (a->positions)
            y += mz_load_n(a->positions, dtype, at + c, a->cols - c);
        mz_store_n(a->y, dtype, i * a->cols + c, y, a->cols - c);
    }
}

static void look_up_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_embedding_args *a = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        MZ_FOR_DTYPE(a->dtype, look_up(a, D, i));
}

mz_status MZ_CPU(embedding)(const mz_embedding_args *args, mz_stream *stream)
{
    mz_embedding_args a = *args;
    mz_status status = mz_check_embedding(args);
    if (!status)
        mz_threads_for(mz_threads_if_worth(stream, a.n * a.cols), a.n, 1, look_up_part, &a);
    return status;
}

/* One gradient table. The lookups of each row are chained in order: first[row], then next[i]; -1 ends. */
typedef struct table_grad {
    const mz_embedding_grad_args *args;
    void *out;
    int64_t n_rows;
    bool accumulate;
    int32_t *first, *next;
} table_grad;

MZ_INLINE void sum_row(const table_grad *g, mz_dtype dtype, int64_t row)
{
    const mz_embedding_grad_args *a = g->args;
    if (g->first[row] < 0 && g->accumulate)
        return;
    for (int64_t c = 0; c < a->cols; c += VF_N) {
        const int64_t left = a->cols - c;
        vf sum = vf_set1(0.0f);
        for (int64_t i = g->first[row]; i >= 0; i = g->next[i])
            sum += mz_load_n(a->dy, dtype, i * a->cols + c, left);
        if (g->accumulate)
            sum += mz_load_n(g->out, a->dtype_grad, row * a->cols + c, left);
        mz_store_n(g->out, a->dtype_grad, row * a->cols + c, sum, left);
    }
}

static void sum_rows_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const table_grad *g = arg;
    (void)thread;
    for (int64_t row = begin; row < end; row++)
        MZ_FOR_DTYPE(g->args->dtype, sum_row(g, D, row));
}

static void chain_lookups(const table_grad *g, bool positions)
{
    const mz_embedding_grad_args *a = g->args;
    for (int64_t row = 0; row < g->n_rows; row++)
        g->first[row] = -1;
    for (int64_t i = a->n - 1; i >= 0; i--) {
        const int64_t row = positions ? position_of(a->position_ids, i, a->period, a->position_offset)
                                      : row_of(a->ids[i], a->vocab);
        if (row < 0 || row >= g->n_rows)
            continue;
        g->next[i] = g->first[row];
        g->first[row] = (int32_t)i;
    }
}

mz_status MZ_CPU(embedding_grad)(const mz_embedding_grad_args *args, mz_stream *stream)
{
    mz_status status = mz_check_embedding_grad(args);
    if (status || args->n == 0)
        return status;
    const int64_t most_rows = args->vocab > args->n_positions ? args->vocab : args->n_positions;
    void *scratch;
    status = mz_cpu_scratch_take(stream, (size_t)(args->n + most_rows) * sizeof(int32_t), &scratch);
    if (status)
        return status;
    mz_threads *threads = mz_cpu_stream_threads(stream);
    table_grad g = {.args = args, .next = scratch, .first = (int32_t *)scratch + args->n};
    if (args->dtable) {
        g.out = args->dtable;
        g.n_rows = args->vocab;
        g.accumulate = args->accumulate_dtable;
        chain_lookups(&g, false);
        mz_threads_for(threads, g.n_rows, 1, sum_rows_part, &g);
    }
    if (args->dpositions) {
        g.out = args->dpositions;
        g.n_rows = args->n_positions;
        g.accumulate = args->accumulate_dpositions;
        chain_lookups(&g, true);
        mz_threads_for(threads, g.n_rows, 1, sum_rows_part, &g);
    }
    mz_cpu_scratch_give(stream, scratch);
    return MZ_OK;
}
