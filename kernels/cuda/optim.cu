/* Optimiser steps over many chunks in one launch. */
#include "kernels/cuda/common.cuh"

enum { THREADS = 256 };

/* The step of Adam from the moments, after both are updated with g. */
__device__ __forceinline__ float adam_step(const mz_optim_hyper &h, float g, float *state1, float *state2)
{
    const float m = h.beta1 * *state1 + (1.0f - h.beta1) * g;
    const float v = h.beta2 * *state2 + (1.0f - h.beta2) * g * g;
    *state1 = m;
    *state2 = v;
    return m / h.bias_correction1 / (sqrtf(v / h.bias_correction2) + h.eps);
}

/* One element: the new weight; the states, those that the optimiser has, are updated in place. */
template <mz_optim_kind KIND>
__device__ __forceinline__ float update(const mz_optim_hyper &h, float lr, float decay, float w, float g,
                                        float *state1, float *state2)
{
    if (KIND == MZ_OPTIM_ADAMW)
        return w * (1.0f - lr * decay) - lr * adam_step(h, g, state1, state2);
    if (KIND == MZ_OPTIM_LION) {
        const float m = *state1, direction = h.beta1 * m + (1.0f - h.beta1) * g;
        *state1 = h.beta2 * m + (1.0f - h.beta2) * g;
        return w * (1.0f - lr * decay) - lr * (float)((direction > 0.0f) - (direction < 0.0f));
    }
    g += decay * w;
    if (KIND == MZ_OPTIM_ADAM)
        return w - lr * adam_step(h, g, state1, state2);
    if (KIND == MZ_OPTIM_ADAGRAD) {
        const float sum = *state1 + g * g;
        *state1 = sum;
        return w - lr * g / (sqrtf(sum) + h.eps);
    }
    if (h.momentum != 0.0f) {
        const float buffer = h.first_step ? g : h.momentum * *state1 + (1.0f - h.dampening) * g;
        *state1 = buffer;
        g = h.nesterov ? g + h.momentum * buffer : buffer;
    }
    return w - lr * g;
}

/* blockIdx.y strides over the chunks, the rest over a chunk's elements. */
template <mz_optim_kind KIND, typename TG, typename TP>
__global__ void optim_kernel(int n_chunks, const mz_optim_chunk *chunks, const mz_optim_hyper *hyper,
                             const float *grad_scale, const uint64_t *nonfinite)
{
    if (*nonfinite != 0)
        return;
    const mz_optim_hyper h = *hyper;
    const float scale = *grad_scale;
    for (int k = blockIdx.y; k < n_chunks; k += gridDim.y) {
        const mz_optim_chunk c = chunks[k];
        const float lr = h.lr * c.lr_scale;
        GRID_LOOP(i, c.n)
        {
            const float g = to_float(((const TG *)c.grad)[i]) * scale;
            const float w = update<KIND>(h, lr, c.weight_decay, c.master[i], g, c.state1 ? c.state1 + i : nullptr,
                                         c.state2 ? c.state2 + i : nullptr);
            c.master[i] = w;
            if (c.param)
                ((TP *)c.param)[i] = from_float<TP>(w);
        }
    }
}

template <mz_optim_kind KIND> static mz_status step(const mz_optim_args *a, mz_stream *stream)
{
    const int64_t rows = a->n_chunks < 65535 ? a->n_chunks : 65535;
    const dim3 grid(grid_for(stream, 2 * div_up(a->n_elements, rows), THREADS), (unsigned)rows);
    FOR_DTYPE(a->grad_dtype, TG,
              FOR_DTYPE(a->param_dtype, TP,
                        optim_kernel<KIND, TG, TP><<<grid, THREADS, 0, stream->stream>>>(
                            a->n_chunks, a->chunks, a->hyper, a->grad_scale, a->nonfinite)));
    return mz_cuda_launched("optim");
}

extern "C" mz_status mz_cuda_optim(const mz_optim_args *a, mz_stream *stream)
{
    mz_status status = mz_check_optim(a);
    if (status || a->n_chunks == 0)
        return status;
    switch (a->kind) {
    case MZ_OPTIM_ADAMW:
        return step<MZ_OPTIM_ADAMW>(a, stream);
    case MZ_OPTIM_ADAM:
        return step<MZ_OPTIM_ADAM>(a, stream);
    case MZ_OPTIM_SGD:
        return step<MZ_OPTIM_SGD>(a, stream);
    case MZ_OPTIM_ADAGRAD:
        return step<MZ_OPTIM_ADAGRAD>(a, stream);
    default:
        return step<MZ_OPTIM_LION>(a, stream);
    }
}
