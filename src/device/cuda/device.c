/* The CUDA backend: device memory, streams and events over the runtime API. */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "device/backends.h"
#include "device/cuda/near.h"
#include "device/cuda/stream.h"
#include "kernels/cuda/cuda.h"

/* Scratch of a compute stream: what cuBLASLt asks for on Hopper, and room for split sums. */
#define WORKSPACE_BYTES ((size_t)64 << 20)

mz_status mz_cuda_check(cudaError_t error, const char *call)
{
    if (error == cudaSuccess)
        return MZ_OK;
    return mz_fail(error == cudaErrorMemoryAllocation ? MZ_ERR_MEMORY : MZ_ERR_DEVICE, "%s: %s", call,
                   cudaGetErrorString(error));
}

mz_status mz_cuda_launched(const char *kernel)
{
    return mz_cuda_check(cudaGetLastError(), kernel);
}

static int cuda_count(void)
{
    int n = 0;
    return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

static void cuda_near(cpu_set_t *cpus, int n)
{
    char addresses[MZ_MAX_NEAR][MZ_PCI_BYTES];
    for (int i = 0; i < n; i++)
        CPU_ZERO(&cpus[i]);
    n = n < MZ_MAX_NEAR ? n : MZ_MAX_NEAR;
    for (int i = 0; i < n; i++)
        if (cudaDeviceGetPCIBusId(addresses[i], MZ_PCI_BYTES, i) != cudaSuccess)
            addresses[i][0] = '\0';
    mz_cuda_find_near(addresses, n, cpus);
}

static void cuda_close(mz_device *device)
{
    mz_cuda_device *cuda = device->impl;
    if (!cuda)
        return;
    mz_cuda_matmul_plans_destroy(cuda->plans);
    if (cuda->blas)
        cublasLtDestroy(cuda->blas);
    mz_free(cuda);
}

static mz_status cuda_open(mz_device *device)
{
    struct cudaDeviceProp properties;
    mz_cuda_device *cuda = mz_calloc(1, sizeof *cuda);
    device->impl = cuda;
    if (!cuda)
        return MZ_ERR_MEMORY;
    mz_status st = mz_cuda_check(cudaSetDevice(device->ordinal), "cudaSetDevice");
    if (st == MZ_OK)
        st = mz_cuda_check(cudaGetDeviceProperties(&properties, device->ordinal), "cudaGetDeviceProperties");
    if (st != MZ_OK)
        return st;
    snprintf(cuda->name, sizeof cuda->name, "%.100s", properties.name);
    cuda->n_processors = properties.multiProcessorCount;
    cuda->capability = properties.major * 10 + properties.minor;
    if (cuda->capability < 80)
        return mz_fail(MZ_ERR_UNSUPPORTED, "GPU %d is a %s of compute capability %d.%d; mpizero needs 8.0 or later",
                       device->ordinal, properties.name, properties.major, properties.minor);
    if (cublasLtCreate(&cuda->blas) != CUBLAS_STATUS_SUCCESS)
        return mz_fail(MZ_ERR_DEVICE, "GPU %d: cublasLtCreate failed", device->ordinal);
    snprintf(device->label, sizeof device->label, "%.100s (GPU %d)", properties.name, device->ordinal);
    int ordering = 0;
    st = mz_cuda_check(cudaDeviceGetAttribute(&ordering, cudaDevAttrGPUDirectRDMAWritesOrdering, device->ordinal),
                       "cudaDeviceGetAttribute");
    if (st != MZ_OK)
        return st;
    cuda->orders_writes = ordering >= cudaGPUDirectRDMAWritesOrderingOwner;
    st = mz_cuda_words_open(cuda, &device->loads_late);
    if (st != MZ_OK)
        return st;
    st = mz_cuda_check(cudaDeviceGetPCIBusId(device->address, sizeof device->address, device->ordinal),
                       "cudaDeviceGetPCIBusId");
    if (st == MZ_OK)
        mz_cuda_stay_near(device->address);
    return st;
}

/* ---- memory ---- */

static mz_status cuda_alloc(mz_device *device, size_t bytes, void **memory)
{
    mz_device_settle(device);
    cudaError_t error = cudaMalloc(memory, bytes ? bytes : 1);
    if (error == cudaErrorMemoryAllocation) {
        size_t free_bytes = 0, total = 0;
        cudaGetLastError();
        cudaMemGetInfo(&free_bytes, &total);
        return mz_fail(MZ_ERR_MEMORY, "%s: %.2f GiB asked for, %.2f of %.2f GiB are free", device->label,
                       (double)bytes / (1 << 30), (double)free_bytes / (1 << 30), (double)total / (1 << 30));
    }
    return mz_cuda_check(error, "cudaMalloc");
}

static void cuda_free(mz_device *device, void *memory)
{
    if (!memory)
        return;
    mz_device_settle(device);
    cudaFree(memory);
}

/* Exactly the size asked for: no rounding to powers of two. */
static mz_status cuda_alloc_pinned(mz_device *device, size_t bytes, void **memory)
{
    mz_device_settle(device);
    return mz_cuda_check(cudaHostAlloc(memory, bytes ? bytes : 1, cudaHostAllocPortable), "cudaHostAlloc");
}

static void cuda_free_pinned(mz_device *device, void *memory)
{
    if (!memory)
        return;
    mz_device_settle(device);
    cudaFreeHost(memory);
}

static mz_status cuda_memory_info(mz_device *device, size_t *free_bytes, size_t *total_bytes)
{
    (void)device;
    return mz_cuda_check(cudaMemGetInfo(free_bytes, total_bytes), "cudaMemGetInfo");
}

/* ---- streams ---- */

static void cuda_stream_destroy(mz_stream *stream)
{
    if (!stream)
        return;
    mz_device_settle(stream->device);
    if (stream->stream) {
        cudaStreamSynchronize(stream->stream);
        cudaStreamDestroy(stream->stream);
    }
    cudaFree(stream->workspace);
    mz_free(stream);
}

static mz_status cuda_stream_create(mz_device *device, mz_stream_kind kind, mz_stream **stream)
{
    mz_stream *s = mz_calloc(1, sizeof *s);
    int least = 0, greatest = 0;
    if (!s)
        return MZ_ERR_MEMORY;
    s->device = device;
    mz_device_settle(device);
    mz_status st =
        mz_cuda_check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
    if (st == MZ_OK) /* communication goes first: its kernels are few and others wait for them */
        st = mz_cuda_check(cudaStreamCreateWithPriority(&s->stream, cudaStreamNonBlocking,
                                                        kind == MZ_STREAM_COMM ? greatest : least),
                           "cudaStreamCreateWithPriority");
    if (st == MZ_OK && kind == MZ_STREAM_COMPUTE) {
        s->workspace_bytes = WORKSPACE_BYTES;
        st = cuda_alloc(device, s->workspace_bytes, &s->workspace);
    }
    if (st != MZ_OK) {
        cuda_stream_destroy(s);
        return st;
    }
    *stream = s;
    return MZ_OK;
}

static mz_status host_failure(mz_stream *stream)
{
    mz_status failure = __atomic_load_n(&stream->failure, __ATOMIC_ACQUIRE);
    return failure == MZ_OK ? MZ_OK : mz_fail_adopt(failure, stream->message);
}

static mz_status cuda_stream_sync(mz_stream *stream)
{
    mz_status st = mz_cuda_check(cudaSetDevice(stream->device->ordinal), "cudaSetDevice"); /* in any thread */
    if (st == MZ_OK)
        st = mz_cuda_check(cudaStreamSynchronize(stream->stream), "cudaStreamSynchronize");
    return st == MZ_OK ? host_failure(stream) : st;
}

/* A capture in another thread is none of ours. */
static mz_status cuda_check(mz_stream *stream)
{
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaError_t error = cudaSetDevice(stream->device->ordinal);
    if (error == cudaSuccess)
        error = cudaThreadExchangeStreamCaptureMode(&mode);
    if (error == cudaSuccess)
        error = cudaStreamQuery(stream->stream);
    return error == cudaErrorNotReady ? MZ_OK : mz_cuda_check(error, "the GPU has failed");
}

static mz_status cuda_see_writes(mz_device *device)
{
    const mz_cuda_device *cuda = device->impl;
    if (cuda->orders_writes)
        return MZ_OK;
    return mz_cuda_check(cudaDeviceFlushGPUDirectRDMAWrites(cudaFlushGPUDirectRDMAWritesTargetCurrentDevice,
                                                            cudaFlushGPUDirectRDMAWritesToOwner),
                         "cudaDeviceFlushGPUDirectRDMAWrites");
}

/* ---- events ---- */

static mz_status cuda_event_create(mz_device *device, mz_event **event)
{
    (void)device;
    mz_event *e = mz_calloc(1, sizeof *e);
    if (!e)
        return MZ_ERR_MEMORY;
    mz_status st = mz_cuda_check(cudaEventCreate(&e->event), "cudaEventCreate");
    if (st != MZ_OK) {
        mz_free(e);
        return st;
    }
    *event = e;
    return MZ_OK;
}

static void cuda_event_destroy(mz_event *event)
{
    if (!event)
        return;
    cudaEventDestroy(event->event);
    mz_free(event);
}

static mz_status cuda_event_record(mz_event *event, mz_stream *stream)
{
    return mz_cuda_check(cudaEventRecord(event->event, stream->stream), "cudaEventRecord");
}

static mz_status cuda_event_sync(mz_event *event)
{
    return mz_cuda_check(cudaEventSynchronize(event->event), "cudaEventSynchronize");
}

static bool cuda_event_done(mz_event *event)
{
    return cudaEventQuery(event->event) == cudaSuccess;
}

static mz_status cuda_event_elapsed(mz_event *begin, mz_event *end, double *seconds)
{
    float milliseconds = 0;
    mz_status st =
        mz_cuda_check(cudaEventElapsedTime(&milliseconds, begin->event, end->event), "cudaEventElapsedTime");
    *seconds = 1e-3 * (double)milliseconds;
    return st;
}

static mz_status cuda_wait(mz_stream *stream, mz_event *event)
{
    return mz_cuda_check(cudaStreamWaitEvent(stream->stream, event->event, 0), "cudaStreamWaitEvent");
}

/* ---- stream-ordered work ---- */

static mz_status cuda_copy(mz_stream *stream, void *dst, const void *src, size_t bytes)
{
    if (bytes == 0 || dst == src)
        return MZ_OK;
    return mz_cuda_check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, stream->stream), "cudaMemcpyAsync");
}

static mz_status cuda_copy_2d(mz_stream *stream, void *dst, size_t dst_stride, const void *src, size_t src_stride,
                              size_t row_bytes, size_t n_rows)
{
    if (row_bytes == 0 || n_rows == 0)
        return MZ_OK;
    return mz_cuda_check(
        cudaMemcpy2DAsync(dst, dst_stride, src, src_stride, row_bytes, n_rows, cudaMemcpyDefault, stream->stream),
        "cudaMemcpy2DAsync");
}

static mz_status cuda_fill(mz_stream *stream, void *dst, uint8_t byte, size_t bytes)
{
    if (bytes == 0)
        return MZ_OK;
    return mz_cuda_check(cudaMemsetAsync(dst, byte, bytes, stream->stream), "cudaMemsetAsync");
}

typedef struct host_task {
    mz_stream *stream;
    mz_host_fn fn;
    void *arg;
} host_task;

static void run_host_task(void *data)
{
    host_task *task = data;
    if (__atomic_load_n(&task->stream->failure, __ATOMIC_ACQUIRE) == MZ_OK) {
        mz_status st = task->fn(task->arg);
        if (st != MZ_OK) {
            snprintf(task->stream->message, sizeof task->stream->message, "%s", mz_last_error());
            __atomic_store_n(&task->stream->failure, st, __ATOMIC_RELEASE);
        }
    }
    mz_free(task);
}

static mz_status cuda_host_call(mz_stream *stream, mz_host_fn fn, void *arg)
{
    mz_status st = mz_cuda_not_recording(stream, "a host call"); /* its task is gone after the first time */
    if (st != MZ_OK)
        return st;
    host_task *task = mz_alloc(sizeof *task);
    if (!task)
        return MZ_ERR_MEMORY;
    *task = (host_task){stream, fn, arg};
    st = mz_cuda_check(cudaLaunchHostFunc(stream->stream, run_host_task, task), "cudaLaunchHostFunc");
    if (st != MZ_OK)
        mz_free(task);
    return st;
}

const mz_device_ops mz_cuda_ops = {
    .name = "cuda",
    .count = cuda_count,
    .near = cuda_near,
    .open = cuda_open,
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .alloc_pinned = cuda_alloc_pinned,
    .free_pinned = cuda_free_pinned,
    .memory_info = cuda_memory_info,
    .stream_create = cuda_stream_create,
    .stream_destroy = cuda_stream_destroy,
    .stream_sync = cuda_stream_sync,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .event_record = cuda_event_record,
    .event_sync = cuda_event_sync,
    .event_done = cuda_event_done,
    .event_elapsed = cuda_event_elapsed,
    .wait = cuda_wait,
    .copy = cuda_copy,
    .copy_2d = cuda_copy_2d,
    .fill = cuda_fill,
    .host_call = cuda_host_call,
    .post = mz_cuda_post,
    .await = mz_cuda_await,
    .graphs = &mz_cuda_graphs,
    .check = cuda_check,
    .see_writes = cuda_see_writes,
    .kernels = &mz_kernels_cuda,
};
