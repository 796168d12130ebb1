/* The CUDA backend's streams and devices, for its own files and for the kernels in kernels/cuda. */
#ifndef MZ_DEVICE_CUDA_STREAM_H
#define MZ_DEVICE_CUDA_STREAM_H

/* One of its declarations says () for (void). */
#pragma GCC diagnostic push
#ifndef __cplusplus
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#endif
#include <cublasLt.h>
#pragma GCC diagnostic pop
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef CUresult(CUDAAPI *mz_cuda_word_fn)(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                           unsigned int flags);

typedef struct mz_cuda_device {
    cublasLtHandle_t blas;
    mz_cuda_word_fn write_value, wait_value; /* words.c */
    char name[128];
    int n_processors;              /* streaming multiprocessors */
    int capability;                /* 90 for Hopper */
    bool orders_writes;            /* of network cards to its memory before what is launched later, by itself */
    struct mz_matmul_plans *plans; /* kernels/cuda/matmul.cu: algorithms chosen per shape */
} mz_cuda_device;

struct mz_stream {
    mz_device *device;
    cudaStream_t stream;
    void *workspace; /* device memory for kernels of this stream: split sums, cuBLASLt */
    size_t workspace_bytes;
    bool recording;    /* between begin and end of a graph */
    mz_status failure; /* first failure of a host call; guarded by atomic access */
    char message[512];
};

struct mz_event {
    uint64_t behind; /* first: mz_event_mark */
    cudaEvent_t event;
};

static inline mz_cuda_device *mz_cuda_of(mz_stream *stream)
{
    return (mz_cuda_device *)stream->device->impl;
}

/* MZ_OK, or MZ_ERR_DEVICE (MZ_ERR_MEMORY) with CUDA's text: "cudaMalloc: out of memory". */
mz_status mz_cuda_check(cudaError_t error, const char *call);
/* The last launch's error, for launchers. */
mz_status mz_cuda_launched(const char *kernel);

/* words.c: the driver's functions behind post and await, and these. */
mz_status mz_cuda_words_open(mz_cuda_device *cuda, bool *loads_late);
mz_status mz_cuda_post(mz_stream *stream, uint32_t *word, uint32_t value);
mz_status mz_cuda_await(mz_stream *stream, uint32_t *word, uint32_t value);

/* graph.c */
extern const mz_graph_ops mz_cuda_graphs;
/* For what cannot be recorded: MZ_ERR_UNSUPPORTED while the stream records. */
mz_status mz_cuda_not_recording(const mz_stream *stream, const char *what);

/* kernels/cuda: released with the device. */
void mz_cuda_matmul_plans_destroy(struct mz_matmul_plans *plans);

#ifdef __cplusplus
}
#endif
#endif
