/* Streams that set words of host memory and wait for them: the driver's stream memory operations, by which a stream
 * waits for what a host thread has yet to issue. A host function that blocks would do the same, but CUDA runs those
 * of all streams one after the other, so that one which waits would keep the others from running. */
#include <stdint.h>

#include "core/error.h"
#include "device/cuda/stream.h"

typedef CUresult(CUDAAPI *loading_mode_fn)(CUmoduleLoadingMode *mode);

/* The runtime has loaded the driver; asking it leaves nothing to link with. */
static mz_status find(const char *name, void **fn)
{
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    cudaError_t error = cudaGetDriverEntryPointByVersion(name, fn, 12000, cudaEnableDefault, &found);
#else
    cudaError_t error = cudaGetDriverEntryPoint(name, fn, cudaEnableDefault, &found);
#endif
    if (error == cudaSuccess && (found != cudaDriverEntryPointSuccess || !*fn))
        return mz_fail(MZ_ERR_UNSUPPORTED, "the GPU driver has no %s; mpizero needs one for CUDA 12 or later",
                       name);
    return mz_cuda_check(error, "cudaGetDriverEntryPoint");
}

mz_status mz_cuda_words_open(mz_cuda_device *cuda, bool *loads_late)
{
    void *write_value = NULL, *wait_value = NULL, *loading_mode = NULL;
    CUmoduleLoadingMode mode = CU_MODULE_LAZY_LOADING;
    mz_status status = find("cuStreamWriteValue32", &write_value);
    if (!status)
        status = find("cuStreamWaitValue32", &wait_value);
    if (!status)
        status = find("cuModuleGetLoadingMode", &loading_mode);
    if (status)
        return status;
    cuda->write_value = (mz_cuda_word_fn)(uintptr_t)write_value;
    cuda->wait_value = (mz_cuda_word_fn)(uintptr_t)wait_value;
    *loads_late =
        ((loading_mode_fn)(uintptr_t)loading_mode)(&mode) != CUDA_SUCCESS || mode != CU_MODULE_EAGER_LOADING;
    return MZ_OK;
}

static mz_status call(mz_cuda_word_fn fn, const char *name, mz_stream *stream, uint32_t *word, uint32_t value,
                      unsigned int flags)
{
    mz_status status = mz_cuda_not_recording(stream, name);
    if (status)
        return status;
    CUresult result = fn(stream->stream, (CUdeviceptr)(uintptr_t)word, value, flags);
    return result == CUDA_SUCCESS ? MZ_OK : mz_fail(MZ_ERR_DEVICE, "%s: CUDA error %d", name, (int)result);
}

mz_status mz_cuda_post(mz_stream *stream, uint32_t *word, uint32_t value)
{
    return call(mz_cuda_of(stream)->write_value, "cuStreamWriteValue32", stream, word, value,
                CU_STREAM_WRITE_VALUE_DEFAULT);
}

mz_status mz_cuda_await(mz_stream *stream, uint32_t *word, uint32_t value)
{
    return call(mz_cuda_of(stream)->wait_value, "cuStreamWaitValue32", stream, word, value,
                CU_STREAM_WAIT_VALUE_GEQ);
}
