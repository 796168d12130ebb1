/* The collectives of comm.h: arguments are checked, then the call is issued. */
#include "comm/comm.h"

#include "comm/gpu.h"
#include "comm/issue.h"
#include "comm/predicted.h"
#include "core/error.h"

static bool is_floating(mz_dtype dtype)
{
    return dtype == MZ_F32 || dtype == MZ_F16 || dtype == MZ_BF16;
}

static mz_status check(const mz_comm *comm, const mz_collective *what)
{
    bool is_sum = what->kind == MZ_REDUCE_SCATTER || what->kind == MZ_ALL_REDUCE;
    bool has_blocks = what->kind == MZ_ALL_GATHER || what->kind == MZ_REDUCE_SCATTER || what->kind == MZ_ALL_TO_ALL;
    if (what->n_segments < 0 || (what->n_segments && !what->segments))
        return mz_fail(MZ_ERR_ARGUMENT, "collective (%s): %d segments", what->label, what->n_segments);
    if ((unsigned)what->dtype >= MZ_N_DTYPES ||
        (is_sum && (!is_floating(what->dtype) || !is_floating(what->recv_dtype))))
        return mz_fail(MZ_ERR_ARGUMENT, "collective (%s): expected f32, f16 or bf16 to add up, found type %d",
                       what->label, (int)what->dtype);
    if (what->bits && (!is_floating(what->dtype) || (what->bits != 8 && what->bits != 4)))
        return mz_fail(MZ_ERR_ARGUMENT, "collective (%s): %d bits of type %d: expected 8 or 4 of f32, f16 or bf16",
                       what->label, what->bits, (int)what->dtype);
    if (what->root < 0 || what->root >= mz_comm_size(comm))
        return mz_fail(MZ_ERR_ARGUMENT, "collective (%s): root %d of %d ranks", what->label, what->root,
                       mz_comm_size(comm));
    for (int i = 0; i < what->n_segments; i++) {
        const mz_segment *s = &what->segments[i];
        if (s->count < 0 || (has_blocks && mz_comm_size(comm) > 1 && s->stride < s->count))
            return mz_fail(MZ_ERR_ARGUMENT, "collective (%s): segment %d has count %lld and stride %lld",
                           what->label, i, (long long)s->count, (long long)s->stride);
    }
    if (what->kind == MZ_ALL_TO_ALL && comm && comm->hier && comm->layout.per_node > 1)
        return mz_fail(MZ_ERR_UNSUPPORTED,
                       "all_to_all (%s): expected ranks each on a node of its own, found %d per node", what->label,
                       comm->layout.per_node);
    return MZ_OK;
}

static mz_status collect(mz_comm *comm, const mz_collective *what, mz_stream *stream)
{
    mz_status status = check(comm, what);
    if (status)
        return status;
    if (!comm) {
        mz_comm_run_alone(what);
        return MZ_OK;
    }
    if (comm->predicted)
        return mz_comm_predict(comm, what, stream);
    if (comm->gpu)
        return mz_gpu_comm_issue(comm->gpu, what, stream);
    bool only_copies = what->kind != MZ_REDUCE_SCATTER && what->kind != MZ_ALL_REDUCE;
    if (comm->hier || !stream || !only_copies)
        return mz_comm_issue(comm, what, stream);
    for (int i = 0; i < what->n_segments && !status; i++) {
        const mz_segment *s = &what->segments[i];
        if (s->recv != s->send && s->count)
            status =
                comm->device->ops->copy(stream, s->recv, s->send, (size_t)s->count * mz_dtype_size(what->dtype));
    }
    return status;
}

mz_status mz_all_gather(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype,
                        const char *label, mz_stream *stream)
{
    const mz_collective what = {
        .kind = MZ_ALL_GATHER, .segments = segments, .n_segments = n_segments, .dtype = dtype, .label = label};
    return collect(comm, &what, stream);
}

mz_status mz_reduce_scatter(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype,
                            mz_dtype recv_dtype, float scale, bool accumulate, const char *label, mz_stream *stream)
{
    const mz_collective what = {.kind = MZ_REDUCE_SCATTER,
                                .segments = segments,
                                .n_segments = n_segments,
                                .dtype = dtype,
                                .recv_dtype = recv_dtype,
                                .scale = scale,
                                .accumulate = accumulate,
                                .label = label};
    return collect(comm, &what, stream);
}

mz_status mz_all_reduce(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype, float scale,
                        const char *label, mz_stream *stream)
{
    const mz_collective what = {.kind = MZ_ALL_REDUCE,
                                .segments = segments,
                                .n_segments = n_segments,
                                .dtype = dtype,
                                .recv_dtype = dtype,
                                .scale = scale,
                                .label = label};
    return collect(comm, &what, stream);
}

mz_status mz_broadcast(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype, int root,
                       const char *label, mz_stream *stream)
{
    const mz_collective what = {.kind = MZ_BROADCAST,
                                .segments = segments,
                                .n_segments = n_segments,
                                .dtype = dtype,
                                .root = root,
                                .label = label};
    return collect(comm, &what, stream);
}

mz_status mz_all_to_all(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype,
                        const char *label, mz_stream *stream)
{
    const mz_collective what = {
        .kind = MZ_ALL_TO_ALL, .segments = segments, .n_segments = n_segments, .dtype = dtype, .label = label};
    return collect(comm, &what, stream);
}

mz_status mz_all_gather_quantized(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype,
                                  int bits, const char *label, mz_stream *stream)
{
    const mz_collective what = {.kind = MZ_ALL_GATHER,
                                .segments = segments,
                                .n_segments = n_segments,
                                .dtype = dtype,
                                .bits = bits,
                                .label = label};
    return collect(comm, &what, stream);
}

mz_status mz_reduce_scatter_quantized(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype,
                                      mz_dtype recv_dtype, float scale, bool accumulate, int bits,
                                      const char *label, mz_stream *stream)
{
    const mz_collective what = {.kind = MZ_REDUCE_SCATTER,
                                .segments = segments,
                                .n_segments = n_segments,
                                .dtype = dtype,
                                .recv_dtype = recv_dtype,
                                .scale = scale,
                                .accumulate = accumulate,
                                .bits = bits,
                                .label = label};
    return collect(comm, &what, stream);
}

/* Of the hosts alone. Where GPUs have failed, the others will not come. */
static mz_status issue_on_hosts(mz_comm *comm, const mz_collective *what)
{
    mz_status status = comm->gpu ? mz_gpu_comm_status(comm->gpu) : MZ_OK;
    return status ? status : mz_comm_issue(comm, what, NULL);
}

mz_status mz_barrier(mz_comm *comm, const char *label)
{
    const mz_collective what = {.kind = MZ_BARRIER, .dtype = MZ_U8, .label = label};
    if (comm && comm->predicted)
        return mz_comm_predict(comm, &what, NULL);
    return comm && comm->hier ? issue_on_hosts(comm, &what) : MZ_OK;
}

mz_status mz_all_reduce_host(mz_comm *comm, double *values, int n, bool maximum, const char *label)
{
    if (n < 0 || n > MZ_HOST_VALUES_MAX)
        return mz_fail(MZ_ERR_ARGUMENT, "all_reduce_host (%s): %d values, at most %d", label, n,
                       MZ_HOST_VALUES_MAX);
    if (comm && comm->predicted)
        return mz_comm_predict(comm, &(mz_collective){.kind = MZ_HOST_REDUCE}, NULL);
    if (!comm || !comm->hier)
        return MZ_OK;
    const mz_segment segment = {values, comm->host_values, n, MZ_HOST_VALUES_MAX};
    const mz_collective what = {.kind = MZ_HOST_REDUCE,
                                .segments = &segment,
                                .n_segments = 1,
                                .dtype = MZ_F64,
                                .root = maximum,
                                .label = label};
    mz_status status = issue_on_hosts(comm, &what);
    for (int i = 0; i < n && !status; i++) {
        double result = comm->host_values[i];
        for (int r = 1; r < comm->layout.size; r++) {
            double value = comm->host_values[r * MZ_HOST_VALUES_MAX + i];
            if (!maximum)
                result += value;
            else if (!(result >= value) && result == result) /* a NaN stays */
                result = value;
        }
        values[i] = result;
    }
    return status;
}

mz_status mz_comm_share(mz_comm *comm, void *memory, size_t bytes)
{
    return comm && comm->gpu ? mz_gpu_comm_share(comm->gpu, memory, bytes) : MZ_OK;
}

mz_status mz_comm_publish(mz_comm *comm, const char *label, mz_stream *stream)
{
    return comm && comm->gpu ? mz_gpu_comm_publish(comm->gpu, label, stream) : MZ_OK;
}

void mz_comm_forget(mz_comm *comm, const void *memory)
{
    if (comm && comm->gpu)
        mz_gpu_comm_forget(comm->gpu, memory);
}
