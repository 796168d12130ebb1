/* Micro-batches on their way to the device. */
#include <string.h>

#include "core/error.h"
#include "core/half.h"
#include "core/memory.h"
#include "train/engine_impl.h"

enum { ALIGN = 256 };

static size_t round_up(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static int64_t input_numel(const mz_host_input *input)
{
    int64_t n = 1;
    for (int i = 0; i < input->n_dims; i++)
        n *= input->shape[i];
    return n;
}

static mz_dtype input_dtype(const mz_host_input *input, mz_dtype dtype)
{
    return input->dtype == MZ_F32 ? dtype : input->dtype;
}

size_t mz_staging_bytes(const mz_batch *batch, mz_dtype dtype)
{
    size_t bytes = round_up(sizeof(mz_step_scalars));
    for (int i = 0; i < batch->n_inputs; i++) {
        const mz_host_input *input = &batch->inputs[i];
        bytes += round_up((size_t)input_numel(input) * mz_dtype_size(input_dtype(input, dtype)));
    }
    return bytes;
}

void mz_staging_free(mz_staging *staging)
{
    mz_device *device = staging->device;
    if (!device)
        return;
    for (int i = 0; i < 2; i++) {
        if (staging->read[i]) {
            device->ops->event_sync(staging->read[i]);
            device->ops->event_destroy(staging->read[i]);
        }
        if (staging->pinned[i])
            device->ops->free_pinned(device, staging->pinned[i]);
    }
    if (staging->on_device)
        device->ops->free(device, staging->on_device);
    memset(staging, 0, sizeof *staging);
}

mz_status mz_staging_reserve(mz_staging *staging, mz_device *device, size_t bytes)
{
    if (bytes <= staging->bytes)
        return MZ_OK;
    mz_staging_free(staging);
    staging->device = device;
    mz_status st = device->ops->alloc(device, bytes, (void **)&staging->on_device);
    for (int i = 0; i < 2 && st == MZ_OK; i++) {
        st = device->ops->alloc_pinned(device, bytes, (void **)&staging->pinned[i]);
        if (st == MZ_OK)
            st = device->ops->event_create(device, &staging->read[i]);
    }
    if (st != MZ_OK) {
        mz_staging_free(staging);
        return st;
    }
    staging->bytes = bytes;
    return MZ_OK;
}

mz_step_scalars *mz_staging_scalars(const mz_staging *staging)
{
    return (mz_step_scalars *)staging->on_device;
}

mz_status mz_staging_put(mz_staging *staging, mz_tape *tape, mz_stream *stream, const mz_step_scalars *scalars,
                         const mz_batch *batch, mz_dtype dtype, mz_tensor **inputs)
{
    const mz_device_ops *ops = staging->device->ops;
    int slot = staging->next;
    staging->next ^= 1;
    mz_status st = ops->event_sync(staging->read[slot]);
    if (st != MZ_OK)
        return st;

    uint8_t *host = staging->pinned[slot];
    memcpy(host, scalars, sizeof *scalars);
    size_t at = round_up(sizeof *scalars);
    for (int i = 0; i < batch->n_inputs && st == MZ_OK; i++) {
        const mz_host_input *input = &batch->inputs[i];
        mz_dtype to = input_dtype(input, dtype);
        int64_t n = input_numel(input);
        size_t bytes = (size_t)n * mz_dtype_size(to);
        if (at + bytes > staging->bytes)
            return mz_fail(MZ_ERR_ARGUMENT, "a micro-batch larger than the one planned for");
        if (to == input->dtype)
            memcpy(host + at, input->data, bytes);
        else
            mz_convert(host + at, to, input->data, input->dtype, n);
        st = mz_tensor_borrow(tape, to, input->n_dims, input->shape, staging->on_device + at, &inputs[input->role]);
        at += round_up(bytes);
    }
    if (st == MZ_OK)
        st = ops->copy(stream, staging->on_device, host, at);
    if (st == MZ_OK)
        st = ops->event_record(staging->read[slot], stream);
    return st;
}

int64_t mz_batch_targets(const mz_batch *batch)
{
    if (batch->n_targets > 0)
        return batch->n_targets;
    for (int i = 0; i < batch->n_inputs; i++) {
        const mz_host_input *input = &batch->inputs[i];
        int64_t n = input_numel(input);
        if (input->role == MZ_INPUT_TARGETS)
            return n;
        if (input->role != MZ_INPUT_LABELS || !input->data)
            continue;
        const int32_t *labels = input->data;
        int64_t count = 0;
        for (int64_t j = 0; j < n; j++)
            count += labels[j] != -100;
        return count;
    }
    return batch->n_samples;
}
