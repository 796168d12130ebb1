/* Builds without NCCL, and so without collectives between GPUs: nothing is shared. */
#include "comm/peers.h"

mz_status mz_peers_create(MPI_Comm group, const mz_members *members, mz_device *device, mz_peers **peers)
{
    (void)group, (void)members, (void)device;
    *peers = NULL;
    return MZ_OK;
}

void mz_peers_destroy(mz_peers *peers)
{
    (void)peers;
}

mz_status mz_peers_share(mz_peers *peers, void *memory, size_t bytes)
{
    (void)peers, (void)memory, (void)bytes;
    return MZ_OK;
}

void mz_peers_forget(mz_peers *peers, const void *memory)
{
    (void)peers, (void)memory;
}

bool mz_peers_can_gather(const mz_peers *peers, const mz_segment *segments, int n, mz_dtype dtype)
{
    (void)peers, (void)segments, (void)n, (void)dtype;
    return false;
}

mz_status mz_peers_all_gather(mz_peers *peers, const mz_segment *segments, int n, mz_dtype dtype, mz_stream *stream)
{
    (void)peers, (void)segments, (void)n, (void)dtype, (void)stream;
    return MZ_OK;
}

mz_status mz_peers_meet(mz_peers *peers, mz_stream *stream)
{
    (void)peers, (void)stream;
    return MZ_OK;
}

void mz_peers_abort(mz_peers *peers)
{
    (void)peers;
}
