/* Cross-entropy of x W^T, chunk by chunk: the logits of one chunk of rows exist at a time. While the tape records,
 * the chunk's gradients are formed at once, so that the backward pass only hands them on (Hsu et al., "Liger
 * kernel", 2024). */
#include "tensor/node.h"

#include <inttypes.h>

#include "core/error.h"
#include "tensor/scalar.h"

enum { DX = 0 }; /* saved */

/* Rows of logits are padded to whole cache lines; matrix products want aligned rows. */
#define LOGITS_ALIGN 64

typedef struct fused_job {
    mz_tape *tape;
    const mz_tensor *x, *labels;
    mz_param *weight;
    int32_t ignore_index;
    int64_t chunk, ld;
    int64_t vocab;     /* rows of the weight that products take: with those of zeros beyond its shape */
    mz_tensor *logits; /* [chunk, ld] */
    mz_tensor *dx;     /* NULL: not wanted */
    bool want_dw;
    mz_tensor *loss;
} fused_job;

static mz_status chunk_logits(const fused_job *job, const void *x, int64_t rows)
{
    int64_t cols = job->weight->spec.shape[1];
    mz_matmul_args args = {.m = rows,
                           .n = job->vocab,
                           .k = cols,
                           .batch = 1,
                           .trans_b = true,
                           .a = x,
                           .b = job->weight->data,
                           .c = job->logits->data,
                           .lda = cols,
                           .ldb = cols,
                           .ldc = job->ld,
                           .dtype = job->x->dtype,
                           .dtype_c = job->x->dtype,
                           .alpha = 1.0f};
    return mz_tape_kernels(job->tape)->matmul(&args, job->tape->options.stream);
}

/* The logits become their own gradient where one is wanted. */
static mz_status chunk_loss(const fused_job *job, int64_t first, int64_t rows)
{
    bool grad = job->dx || job->want_dw;
    mz_cross_entropy_args args = {.rows = rows,
                                  .vocab = job->weight->spec.shape[0],
                                  .ld = job->ld,
                                  .logits = job->logits->data,
                                  .labels = (const int32_t *)job->labels->data + first,
                                  .ignore_index = job->ignore_index,
                                  .loss_scale = mz_tape_loss_weight(job->tape),
                                  .grad_scale = mz_tape_grad_weight(job->tape),
                                  .dlogits = grad ? job->logits->data : NULL,
                                  .loss = job->loss->data,
                                  .dtype = job->x->dtype};
    return mz_tape_kernels(job->tape)->cross_entropy(&args, job->tape->options.stream);
}

static mz_status chunk_dx(const fused_job *job, void *dx, int64_t rows)
{
    int64_t cols = job->weight->spec.shape[1];
    mz_matmul_args args = {.m = rows,
                           .n = cols,
                           .k = job->vocab,
                           .batch = 1,
                           .a = job->logits->data,
                           .b = job->weight->data,
                           .c = dx,
                           .lda = job->ld,
                           .ldb = cols,
                           .ldc = cols,
                           .dtype = job->x->dtype,
                           .dtype_c = job->x->dtype,
                           .alpha = 1.0f};
    return mz_tape_kernels(job->tape)->matmul(&args, job->tape->options.stream);
}

static mz_status chunk_dw(const fused_job *job, const void *x, int64_t rows)
{
    int64_t cols = job->weight->spec.shape[1];
    mz_matmul_args args = {.m = job->vocab,
                           .n = cols,
                           .k = rows,
                           .batch = 1,
                           .trans_a = true,
                           .a = job->logits->data,
                           .b = x,
                           .lda = job->ld,
                           .ldb = cols,
                           .ldc = cols,
                           .dtype = job->x->dtype,
                           .dtype_c = job->weight->grad_dtype,
                           .alpha = 1.0f};
    mz_status status = mz_param_want_grad(job->tape, job->weight, &args.accumulate);
    if (status != MZ_OK)
        return status;
    args.c = job->weight->grad;
    status = mz_tape_kernels(job->tape)->matmul(&args, job->tape->options.stream);
    if (status == MZ_OK)
        job->weight->grad_written = true;
    return status;
}

static mz_status run_chunks(const fused_job *job)
{
    int64_t rows = mz_tensor_rows(job->x);
    size_t row_bytes = (size_t)mz_tensor_dim(job->x, -1) * mz_dtype_size(job->x->dtype);
    mz_status status = MZ_OK;
    for (int64_t first = 0; first < rows && status == MZ_OK; first += job->chunk) {
        int64_t n = rows - first < job->chunk ? rows - first : job->chunk;
        const char *x = (const char *)job->x->data + (size_t)first * row_bytes;
        status = chunk_logits(job, x, n);
        if (status == MZ_OK)
            status = chunk_loss(job, first, n);
        if (status == MZ_OK && job->dx)
            status = chunk_dx(job, (char *)job->dx->data + (size_t)first * row_bytes, n);
        if (status == MZ_OK && job->want_dw)
            status = chunk_dw(job, x, n);
    }
    return status;
}

static mz_status fused_loss_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *dx = node->saved[DX];
    node->saved[DX] = NULL;
    return dx ? mz_grad_give(tape, node->inputs[0], dx) : MZ_OK;
}

/* Chunks of equal size, none above logits_bytes unless a single row is. */
static int64_t rows_per_chunk(int64_t rows, int64_t ld, mz_dtype dtype, size_t logits_bytes)
{
    int64_t limit = (int64_t)(logits_bytes / ((size_t)ld * mz_dtype_size(dtype)));
    if (limit < 1)
        limit = 1;
    int64_t n_chunks = (rows + limit - 1) / limit;
    return n_chunks > 0 ? (rows + n_chunks - 1) / n_chunks : 1;
}

static mz_status check(const mz_tape *tape, mz_tensor *x, const mz_param *weight, mz_tensor *labels)
{
    mz_status status = mz_tensor_need(x, "linear_cross_entropy: x", tape->options.dtype);
    if (status == MZ_OK && x->n_dims < 1)
        status = mz_fail(MZ_ERR_ARGUMENT,
                         "linear_cross_entropy: expected x with at least one dimension, found a scalar");
    if (status == MZ_OK)
        status = mz_param_check(tape, weight, "linear_cross_entropy: weight", 2, -1, mz_tensor_dim(x, -1));
    if (status == MZ_OK)
        status = mz_tensor_need(labels, "linear_cross_entropy: labels", MZ_I32);
    if (status == MZ_OK && labels->numel != mz_tensor_rows(x))
        status = mz_fail(MZ_ERR_ARGUMENT, "linear_cross_entropy: expected one label per row of x, found %s and %s",
                         mz_tensor_shape(labels).s, mz_tensor_shape(x).s);
    return status;
}

mz_status mz_linear_cross_entropy(mz_tape *tape, mz_tensor *x, mz_param *weight, mz_tensor *labels,
                                  int32_t ignore_index, size_t logits_bytes, mz_tensor **out)
{
    mz_status status = check(tape, x, weight, labels);
    if (status != MZ_OK)
        return status;
    bool tracks = mz_tape_tracks(tape, (const mz_tensor *const[]){x}, 1, (mz_param *[]){weight}, 1);
    int64_t ld = (weight->spec.shape[0] + LOGITS_ALIGN - 1) / LOGITS_ALIGN * LOGITS_ALIGN;
    fused_job job = {.tape = tape,
                     .x = x,
                     .labels = labels,
                     .weight = weight,
                     .ignore_index = ignore_index,
                     .chunk = rows_per_chunk(mz_tensor_rows(x), ld, x->dtype, logits_bytes),
                     .ld = ld,
                     .vocab = weight->rows > weight->spec.shape[0] ? weight->rows : weight->spec.shape[0],
                     .want_dw = tracks && weight->trainable};
    if (tracks)
        status = mz_tape_reserve(tape);
    if (status == MZ_OK)
        status = mz_scalar_zero(tape, &job.loss);
    if (status == MZ_OK && tracks && x->needs_grad)
        status = mz_tensor_like(tape, x, -1, &job.dx);
    if (status == MZ_OK)
        status = mz_tensor_create(tape, x->dtype, 2, (const int64_t[]){job.chunk, ld}, &job.logits);
    if (status == MZ_OK)
        status = run_chunks(&job);
    mz_tensor_release(job.logits);
    if (status == MZ_OK) {
        job.loss->is_loss = true;
        if (tracks)
            mz_tape_push(tape, &(mz_node){.backward = fused_loss_backward,
                                          .inputs = {x},
                                          .outputs = {job.loss},
                                          .saved = {[DX] = job.dx}});
        *out = job.loss;
        job.loss = NULL;
    }
    mz_tensor_release(job.dx);
    mz_tensor_release(job.loss);
    return status;
}
