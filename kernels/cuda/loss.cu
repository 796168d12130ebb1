/* Losses with their gradients. */
#include <cuda_pipeline_primitives.h>

#include "kernels/cuda/common.cuh"

enum { THREADS = 512, MOST_THREADS = 1024, MAX_PARTIALS = 1024 };

/* ---- cross-entropy ---- */

/* What a launch works on; of mz_cross_entropy_args. */
template <typename T> struct loss_job {
    const T *logits;
    const int32_t *labels;
    int64_t rows, vocab, ld;
    int32_t ignore_index;
    const float *grad_scale;
    T *dlogits;
    float *row_loss;
    double *losses; /* [rows], in the workspace */
};

/* Exponentials of numbers that are not above `largest`: exp(x - largest) = 2^(x * RATE - reference(largest)). In
 * 16 bits the fast ones do: a multiply-add and an approximation whose error such numbers do not show. */
template <typename T> struct exponential {
    static __device__ __forceinline__ float reference(float largest)
    {
        return largest * CUDART_L2E_F;
    }
    static __device__ __forceinline__ float of(float x, float reference)
    {
        float y;
        asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(fmaf(x, CUDART_L2E_F, -reference)));
        return y;
    }
};
template <> struct exponential<float> {
    static __device__ __forceinline__ float reference(float largest)
    {
        return largest;
    }
    static __device__ __forceinline__ float of(float x, float reference)
    {
        return expf(x - reference);
    }
};

/* The largest of N numbers: 16-bit ones by pairs, and only the last goes to fp32. */
template <int N> __device__ __forceinline__ float largest_of(const pack<float, N> &x)
{
    float max = x.at[0];
#pragma unroll
    for (int j = 1; j < N; j++)
        max = fmaxf(max, x.at[j]);
    return max;
}
template <typename Pair, typename T, int N> __device__ __forceinline__ float largest_by_pairs(const pack<T, N> &x)
{
    if constexpr (N % 2 == 0) {
        Pair max = *(const Pair *)&x.at[0];
#pragma unroll
        for (int j = 2; j < N; j += 2)
            max = __hmax2(max, *(const Pair *)&x.at[j]);
        return fmaxf(to_float(max.x), to_float(max.y));
    } else {
        return to_float(x.at[0]);
    }
}
template <int N> __device__ __forceinline__ float largest_of(const pack<__half, N> &x)
{
    return largest_by_pairs<__half2>(x);
}
template <int N> __device__ __forceinline__ float largest_of(const pack<__nv_bfloat16, N> &x)
{
    return largest_by_pairs<__nv_bfloat162>(x);
}

/* One row by one block; `row` holds its logits, perhaps in shared memory, and each thread has to see only those
 * vectors that are its own. */
template <int N, typename T>
__device__ __forceinline__ void cross_entropy_row(const loss_job<T> &job, int64_t r, const pack<T, N> *row)
{
    typedef pack<T, N> vector;
    const int32_t label = job.labels[r];
    const bool counts = label != job.ignore_index && label >= 0 && label < job.vocab;
    /* Whole vectors, and the logits behind them, which the thread takes whose turn it is. */
    const int full = (int)(job.vocab / N), end = (int)((job.vocab + N - 1) / N);
    const int rest = (int)threadIdx.x == full % (int)blockDim.x ? (int)(job.vocab % N) : 0;
    const T *const last = (const T *)(row + full);
    vector *gradient = job.dlogits ? (vector *)(job.dlogits + r * job.ld) : nullptr;
    float loss = 0.0f;
    if (counts) {
        /* Read before the gradient overwrites it: barriers follow. */
        const float at_label = threadIdx.x == 0 ? to_float(job.logits[r * job.ld + label]) : 0.0f;
        float max = -CUDART_INF_F, sum = 0.0f;
#pragma unroll 4
        for (int v = threadIdx.x; v < full; v += blockDim.x)
            max = fmaxf(max, largest_of(row[v]));
        for (int j = 0; j < rest; j++)
            max = fmaxf(max, to_float(last[j]));
        max = block_max(max);
        const float top = exponential<T>::reference(max);
#pragma unroll 4
        for (int v = threadIdx.x; v < full; v += blockDim.x) {
            const vector x = row[v];
#pragma unroll
            for (int j = 0; j < N; j++)
                sum += exponential<T>::of(to_float(x.at[j]), top);
        }
        for (int j = 0; j < rest; j++)
            sum += exponential<T>::of(to_float(last[j]), top);
        sum = block_sum(sum);
        loss = logf(sum) + (max - at_label); /* in this order: exact where the label's logit is the largest */
        if (gradient) {
            const float scale = *job.grad_scale, share = scale / sum;
#pragma unroll 4
            for (int v = threadIdx.x; v < full; v += blockDim.x) {
                const vector x = row[v];
                float d[N];
                vector out;
#pragma unroll
                for (int j = 0; j < N; j++)
                    d[j] = exponential<T>::of(to_float(x.at[j]), top) * share;
                if (v == label / N)
#pragma unroll
                    for (int j = 0; j < N; j++)
                        d[j] -= j == label % N ? scale : 0.0f;
#pragma unroll
                for (int j = 0; j < N; j++)
                    out.at[j] = from_float<T>(d[j]);
                gradient[v] = out;
            }
            for (int j = 0; j < (rest ? N : 0); j++) {
                float d = 0.0f;
                if (j < rest)
                    d = exponential<T>::of(to_float(last[j]), top) * share - (full * N + j == label ? scale : 0.0f);
                ((T *)(gradient + full))[j] = from_float<T>(d);
            }
        }
    }
    if (gradient)
        for (int64_t v = (counts ? end : 0) + threadIdx.x; v < job.ld / N; v += blockDim.x)
            gradient[v] = {};
    if (threadIdx.x == 0) {
        job.losses[r] = (double)loss;
        if (job.row_loss)
            job.row_loss[r] = loss;
    }
}

/* Rows that no shared memory holds, or not made of vectors (N 1): read three times, by the second from the cache.
 */
template <int N, typename T>
__global__ void __launch_bounds__(THREADS) cross_entropy_kernel(const __grid_constant__ loss_job<T> job)
{
    const int64_t r = blockIdx.x;
    cross_entropy_row<N, T>(job, r, (const pack<T, N> *)(job.logits + r * job.ld));
}

/* ---- rows on their way to shared memory ---- */

/* Where the copy engine brings rows (sm_90), one thread asks for a row, and all wait for its bytes; elsewhere each
 * thread copies the vectors that it will read. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
__device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

struct row_copies {
    uint64_t *arrived; /* [2], in shared memory: a barrier for each buffer */
    uint32_t phases;   /* bit b: the phase that buffer b's next row completes */

    /* By all threads. */
    __device__ __forceinline__ void begin()
    {
        __shared__ uint64_t barriers[2];
        arrived = barriers;
        phases = 0;
        if (threadIdx.x == 0) {
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(arrived)));
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(arrived + 1)));
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        }
        __syncthreads();
    }
    /* By all threads, which have read what the buffer held. */
    __device__ __forceinline__ void fetch(int b, uint4 *buffer, const void *row, int n_vectors)
    {
        __syncthreads();
        if (threadIdx.x != 0)
            return;
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(arrived + b)),
                     "r"(n_vectors * 16)
                     : "memory");
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                shared_address(buffer)),
            "l"(row), "r"(n_vectors * 16), "r"(shared_address(arrived + b))
            : "memory");
    }
    __device__ __forceinline__ void skip()
    {
    }
    /* Until buffer b's row is there. */
    __device__ __forceinline__ void wait(int b, int)
    {
        asm volatile("{\n\t.reg .pred done;\n"
                     "again:\n\t"
                     "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
                     "@!done bra again;\n\t}" ::"r"(shared_address(arrived + b)),
                     "r"(phases >> b & 1)
                     : "memory");
        phases ^= 1u << b;
    }
};
#else
struct row_copies {
    __device__ __forceinline__ void begin()
    {
    }
    __device__ __forceinline__ void fetch(int, uint4 *buffer, const void *row, int n_vectors)
    {
        for (int v = threadIdx.x; v < n_vectors; v += blockDim.x)
            __pipeline_memcpy_async(buffer + v, (const uint4 *)row + v, 16);
        __pipeline_commit();
    }
    __device__ __forceinline__ void skip()
    {
        __pipeline_commit();
    }
    /* Until the oldest but `n_behind` of the rows asked for is there. */
    __device__ __forceinline__ void wait(int, int n_behind)
    {
        if (n_behind)
            __pipeline_wait_prior(1);
        else
            __pipeline_wait_prior(0);
    }
};
#endif

/* Rows pass through shared memory, read and written once. Where it holds two, a block's next row arrives while it
 * works on the present one. */
template <typename T>
__global__ void __launch_bounds__(MOST_THREADS, 1)
    staged_cross_entropy_kernel(const __grid_constant__ loss_job<T> job, int n_buffers)
{
    constexpr int N = lanes<T>();
    extern __shared__ uint4 buffers[];
    const int n_vectors = (int)((job.vocab + N - 1) / N);
    row_copies copies;
    copies.begin();
    int b = 0;
    copies.fetch(0, buffers, job.logits + blockIdx.x * job.ld, n_vectors);
    for (int64_t r = blockIdx.x; r < job.rows; r += gridDim.x) {
        const int64_t next = r + gridDim.x;
        const int other = n_buffers == 2 ? b ^ 1 : 0;
        if (n_buffers == 2 && next < job.rows)
            copies.fetch(other, buffers + other * n_vectors, job.logits + next * job.ld, n_vectors);
        else
            copies.skip();
        copies.wait(b, n_buffers == 2);
        cross_entropy_row<N, T>(job, r, (const pack<T, N> *)(buffers + b * n_vectors));
        if (n_buffers == 1 && next < job.rows)
            copies.fetch(0, buffers, job.logits + next * job.ld, n_vectors);
        b = other;
    }
}

/* *loss += scale * sum of losses; one block. */
__global__ void loss_total_kernel(int64_t n, const double *losses, const float *scale, float *loss)
{
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        sum += losses[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        *loss += (float)(sum * (double)*scale);
}

/* Rows of the vocabulary's size that a block's shared memory holds, two at most; 0 when not one. */
static mz_status rows_in_shared(size_t row_bytes, mz_stream *stream, int *n_rows)
{
    int most = 0;
    mz_status status = mz_cuda_check(
        cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, stream->device->ordinal),
        "cudaDeviceGetAttribute");
    const size_t room = most > 1024 ? (size_t)most - 1024 : 0; /* the sums over a block take some */
    *n_rows = row_bytes <= room / 2 ? 2 : row_bytes <= room ? 1 : 0;
    return status;
}

template <typename T> static mz_status cross_entropy(const loss_job<T> &job, mz_stream *stream)
{
    constexpr int N = lanes<T>();
    const int64_t n_vectors = div_up(job.vocab, N);
    const bool vectors = job.ld % N == 0 && is_aligned(job.logits, 16) && is_aligned(job.dlogits, 16);
    int n_buffers = 0;
    mz_status status = vectors ? rows_in_shared((size_t)n_vectors * 16, stream, &n_buffers) : MZ_OK;
    if (status)
        return status;
    if (n_buffers == 0) {
        if (vectors)
            cross_entropy_kernel<N, T><<<(unsigned)job.rows, THREADS, 0, stream->stream>>>(job);
        else
            cross_entropy_kernel<1, T><<<(unsigned)job.rows, THREADS, 0, stream->stream>>>(job);
        return MZ_OK;
    }
    const size_t shared = (size_t)n_buffers * (size_t)n_vectors * 16;
    /* Loops over a row take four vectors at a time: as many threads as make that even. */
    const int64_t rounds = 4 * div_up(n_vectors, 4 * (int64_t)MOST_THREADS);
    const int64_t threads = div_up(div_up(n_vectors, rounds), 32) * 32;
    int per_processor = 0;
    status = mz_cuda_check(cudaFuncSetAttribute(staged_cross_entropy_kernel<T>,
                                                cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
                           "cudaFuncSetAttribute");
    if (!status)
        status = mz_cuda_check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
                                   &per_processor, staged_cross_entropy_kernel<T>, (int)threads, shared),
                               "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    if (status)
        return status;
    const int64_t at_once = (int64_t)mz_cuda_of(stream)->n_processors * (per_processor > 0 ? per_processor : 1);
    staged_cross_entropy_kernel<T>
        <<<(unsigned)(job.rows < at_once ? job.rows : at_once), (unsigned)threads, shared, stream->stream>>>(
            job, n_buffers);
    return MZ_OK;
}

extern "C" mz_status mz_cuda_cross_entropy(const mz_cross_entropy_args *a, mz_stream *stream)
{
    mz_status status = mz_check_cross_entropy(a);
    if (status || a->rows == 0)
        return status;
    status = need_workspace(stream, "cross_entropy", (size_t)a->rows * sizeof(double));
    if (status)
        return status;
    double *losses = (double *)stream->workspace;
    FOR_DTYPE(a->dtype, T,
              const loss_job<T> job = {(const T *)a->logits, a->labels, a->rows, a->vocab, a->ld, a->ignore_index,
                                       a->grad_scale, (T *)a->dlogits, a->row_loss, losses};
              status = cross_entropy(job, stream));
    if (status)
        return status;
    loss_total_kernel<<<1, THREADS, 0, stream->stream>>>(a->rows, losses, a->loss_scale, a->loss);
    return mz_cuda_launched("cross_entropy");
}

/* ---- squared differences ---- */

template <typename T>
__global__ void mse_kernel(int64_t n, const T *x, const T *target, const float *grad_scale, T *dx, double *losses)
{
    const float slope = dx ? 2.0f * *grad_scale : 0.0f;
    double sum = 0.0;
    GRID_LOOP(i, n)
    {
        const float d = to_float(x[i]) - to_float(target[i]);
        sum += (double)d * (double)d;
        if (dx)
            dx[i] = from_float<T>(slope * d);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        losses[blockIdx.x] = sum;
}

extern "C" mz_status mz_cuda_mse(const mz_mse_args *a, mz_stream *stream)
{
    mz_status status = mz_check_mse(a);
    if (status || a->n == 0)
        return status;
    status = need_workspace(stream, "mse", MAX_PARTIALS * sizeof(double));
    if (status)
        return status;
    const int64_t wanted = div_up(a->n, THREADS * 4);
    const int n_blocks = (int)(wanted < MAX_PARTIALS ? wanted : (int64_t)MAX_PARTIALS);
    double *losses = (double *)stream->workspace;
    FOR_DTYPE(a->dtype, T,
              mse_kernel<T><<<n_blocks, THREADS, 0, stream->stream>>>(a->n, (const T *)a->x, (const T *)a->target,
                                                                      a->grad_scale, (T *)a->dx, losses));
    loss_total_kernel<<<1, THREADS, 0, stream->stream>>>(n_blocks, losses, a->loss_scale, a->loss);
    return mz_cuda_launched("mse");
}
