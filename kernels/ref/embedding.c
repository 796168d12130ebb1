#include "core/half.h"
#include "kernels/check.h"
#include "kernels/ref/ref.h"

/* The table row of a token; the data layer has refused ids outside the vocabulary. */
static int64_t row_of(int32_t id, int64_t vocab)
{
    return id >= 0 && id < vocab ? id : 0;
}

static int64_t position_of(const int32_t *position_ids, int64_t i, int64_t period, int64_t offset)
{
    return position_ids ? position_ids[i] : i % period + offset;
}

mz_status mz_ref_embedding(const mz_embedding_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_embedding(a);
    if (status)
        return status;
    for (int64_t i = 0; i < a->n; i++) {
        int64_t row = row_of(a->ids[i], a->vocab);
        int64_t position = a->positions ? position_of(a->position_ids, i, a->period, a->position_offset) : 0;
        for (int64_t c = 0; c < a->cols; c++) {
            float y = mz_load_f32(a->table, a->dtype, row * a->cols + c);
            if (a->positions)
                y += mz_load_f32(a->positions, a->dtype, position * a->cols + c);
            mz_store_f32(a->y, a->dtype, i * a->cols + c, y);
        }
    }
    return MZ_OK;
}

typedef struct table_grad {
    void *out;
    int64_t n_rows;
    bool of_positions, accumulate;
} table_grad;

/* out[row] (+)= sum of dy[i] over the i that looked row up, in the order of i. */
static void sum_lookups(const mz_embedding_grad_args *a, const table_grad *g)
{
    for (int64_t row = 0; row < g->n_rows; row++)
        for (int64_t c = 0; c < a->cols; c++) {
            double sum = 0.0;
            for (int64_t i = 0; i < a->n; i++) {
                int64_t looked_up = g->of_positions ? position_of(a->position_ids, i, a->period, a->position_offset)
                                                    : row_of(a->ids[i], a->vocab);
                if (looked_up == row)
                    sum += (double)mz_load_f32(a->dy, a->dtype, i * a->cols + c);
            }
            mz_ref_store_sum(g->out, a->dtype_grad, row * a->cols + c, sum, g->accumulate);
        }
}

mz_status mz_ref_embedding_grad(const mz_embedding_grad_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_embedding_grad(a);
    if (status || a->n == 0)
        return status;
    if (a->dtable)
        sum_lookups(a, &(table_grad){a->dtable, a->vocab, false, a->accumulate_dtable});
    if (a->dpositions)
        sum_lookups(a, &(table_grad){a->dpositions, a->n_positions, true, a->accumulate_dpositions});
    return MZ_OK;
}
