#include "train/peak.h"

#include <string.h>

#include "core/clock.h"
#include "core/half.h"
#include "core/memory.h"
#include "kernels/kernels.h"

/* Operands of a product, filled with numbers that are not zero. */
static mz_status fill_operand(mz_device *device, mz_stream *stream, void *operand, int64_t n, mz_dtype dtype)
{
    size_t bytes = (size_t)n * mz_dtype_size(dtype);
    void *host = mz_alloc(bytes);
    if (!host)
        return MZ_ERR_MEMORY;
    for (int64_t i = 0; i < n; i++)
        mz_store_f32(host, dtype, i, (float)(i % 31 - 15) / 16.0f);
    mz_status st = device->ops->copy(stream, operand, host, bytes);
    if (st == MZ_OK)
        st = device->ops->stream_sync(stream);
    mz_free(host);
    return st;
}

static double timed_product(mz_device *device, mz_stream *stream, const mz_matmul_args *args)
{
    double begin = mz_clock_seconds();
    if (device->ops->kernels->matmul(args, stream) != MZ_OK || device->ops->stream_sync(stream) != MZ_OK)
        return 0;
    return mz_clock_seconds() - begin;
}

double mz_peak_flops(mz_device *device, mz_stream *stream, mz_dtype dtype)
{
    const int64_t n = strcmp(device->ops->name, "cpu") == 0 ? 512 : 8192;
    const double most_seconds = 0.05;
    void *memory[3] = {NULL};
    mz_status st = MZ_OK;
    for (int i = 0; i < 3 && st == MZ_OK; i++) {
        st = device->ops->alloc(device, (size_t)(n * n) * mz_dtype_size(dtype), &memory[i]);
        if (st == MZ_OK)
            st = fill_operand(device, stream, memory[i], n * n, dtype);
    }
    const mz_matmul_args args = {.m = n,
                                 .n = n,
                                 .k = n,
                                 .batch = 1,
                                 .a = memory[0],
                                 .b = memory[1],
                                 .c = memory[2],
                                 .lda = n,
                                 .ldb = n,
                                 .ldc = n,
                                 .dtype = dtype,
                                 .dtype_c = dtype,
                                 .alpha = 1};
    double best = 0, spent = 0;
    if (st == MZ_OK && timed_product(device, stream, &args) == 0) /* an algorithm is chosen and loaded */
        st = MZ_ERR_DEVICE;
    for (int i = 0; i < 8 && spent < most_seconds && st == MZ_OK; i++) {
        double seconds = timed_product(device, stream, &args);
        spent += seconds;
        if (seconds > 0 && (best == 0 || seconds < best))
            best = seconds;
    }
    for (int i = 0; i < 3; i++)
        if (memory[i])
            device->ops->free(device, memory[i]);
    return best > 0 ? 2.0 * (double)n * (double)n * (double)n / best : 0;
}
