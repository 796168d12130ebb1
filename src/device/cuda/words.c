/* Streams that set words of host memory and wait for them: the driver's stream memory operations, by which a stream
 * waits for what a host thread has yet to issue. A host function that blocks would do the same, but CUDA runs those of
 * all streams one after the other, so that one which waits would keep the others from running. */
#include <stdint.h>

#include "core/error.h"
#include "device/cuda/stream.h"

/* The runtime has loaded the driver; asking it leaves nothing to link with. */
static mz_status find(const char *name, mz_cuda_word_fn *fn)
{
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    void *address = NULL;
#if CUDART_VERSION >= 12050
    cudaError_t error = cudaGetDriverEntryPointByVersion(name, &address, 12000, cudaEnableDefault, &found);
#else
    cudaError_t error = cudaGetDriverEntryPoint(name, &address, cudaEnableDefault, &found);
#endif
    if (error == cudaSuccess && (found != cudaDriverEntryPointSuccess || !address))
        return mz_fail(MZ_ERR_UNSUPPORTED, "the GPU driver has no %s; mpizero needs one for CUDA 12 or later", name);
    *fn = (mz_cuda_word_fn)(uintptr_t)address;
    return mz_cuda_check(error, "cudaGetDriverEntryPoint");
}

mz_status mz_cuda_words_open(mz_cuda_device *cuda)
{
    mz_status status = find("cuStreamWriteValue32", &cuda->write_value);
    return status ? status : find("cuStreamWaitValue32", &cuda->wait_value);
}

static mz_status call(mz_cuda_word_fn fn, const char *name, mz_stream *stream, uint32_t *word, uint32_t value,
                      unsigned int flags)
{
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
