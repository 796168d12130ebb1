/* Preloaded into mpizero, makes NCCL or the GPU of one rank fail in the midst of training, as they do when a link
 * or memory breaks. tests/gpu/run builds it and reads what the job then says.
 *
 *     FAULT       call: a collective of NCCL's returns an error; async: NCCL reports one of its own threads'; gpu:
 *                 the GPU has failed, as cudaStreamSynchronize, cudaStreamQuery and cudaEventSynchronize tell
 *     FAULT_RANK  the rank (1)
 *     FAULT_AFTER how many calls go well before (200)
 *
 * The functions' arguments are written as plain C has them, so that this needs no header of NVIDIA's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { NCCL_SYSTEM_ERROR = 2, NCCL_REMOTE_ERROR = 6, CUDA_UNCORRECTABLE_ECC = 214 };

static int number(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static bool is_due(const char *fault)
{
    static atomic_int calls;
    const char *wanted = getenv("FAULT");
    if (!wanted || strcmp(wanted, fault) != 0 || number("OMPI_COMM_WORLD_RANK", 0) != number("FAULT_RANK", 1))
        return false;
    return atomic_fetch_add(&calls, 1) >= number("FAULT_AFTER", 200);
}

int ncclAllGather(const void *send, void *recv, size_t count, int type, void *comm, void *stream)
{
    int (*real)(const void *, void *, size_t, int, void *, void *) = dlsym(RTLD_NEXT, "ncclAllGather");
    return is_due("call") ? NCCL_SYSTEM_ERROR : real(send, recv, count, type, comm, stream);
}

int ncclReduceScatter(const void *send, void *recv, size_t count, int type, int op, void *comm, void *stream)
{
    int (*real)(const void *, void *, size_t, int, int, void *, void *) = dlsym(RTLD_NEXT, "ncclReduceScatter");
    return is_due("call") ? NCCL_SYSTEM_ERROR : real(send, recv, count, type, op, comm, stream);
}

int ncclAllReduce(const void *send, void *recv, size_t count, int type, int op, void *comm, void *stream)
{
    int (*real)(const void *, void *, size_t, int, int, void *, void *) = dlsym(RTLD_NEXT, "ncclAllReduce");
    return is_due("call") ? NCCL_SYSTEM_ERROR : real(send, recv, count, type, op, comm, stream);
}

int ncclCommGetAsyncError(void *comm, int *error)
{
    int (*real)(void *, int *) = dlsym(RTLD_NEXT, "ncclCommGetAsyncError");
    int result = real(comm, error);
    if (is_due("async"))
        *error = NCCL_REMOTE_ERROR;
    return result;
}

int cudaStreamSynchronize(void *stream)
{
    int (*real)(void *) = dlsym(RTLD_NEXT, "cudaStreamSynchronize");
    return is_due("gpu") ? CUDA_UNCORRECTABLE_ECC : real(stream);
}

int cudaStreamQuery(void *stream)
{
    int (*real)(void *) = dlsym(RTLD_NEXT, "cudaStreamQuery");
    return is_due("gpu") ? CUDA_UNCORRECTABLE_ECC : real(stream);
}

int cudaEventSynchronize(void *event)
{
    int (*real)(void *) = dlsym(RTLD_NEXT, "cudaEventSynchronize");
    return is_due("gpu") ? CUDA_UNCORRECTABLE_ECC : real(event);
}
