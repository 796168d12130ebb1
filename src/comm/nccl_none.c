/* In builds without NCCL. */
#include <stdio.h>

#include "comm/nccl.h"
#include "core/error.h"

mz_status mz_nccl_create(MPI_Comm group, const mz_shm_sync *sync, mz_device *device, double timeout_seconds,
                         mz_node_transport **node)
{
    (void)group;
    (void)timeout_seconds;
    (void)node;
    return mz_fail(MZ_ERR_UNSUPPORTED,
                   "%d ranks on %s: this build has no NCCL, which collectives between the GPUs of a node need; "
                   "configure it --with-nccl, start one rank per node, or give --device cpu",
                   sync->members.size, device->label);
}

mz_status mz_nccl_check(mz_node_transport *node)
{
    (void)node;
    return MZ_OK;
}

void mz_nccl_version(char *text, size_t bytes)
{
    snprintf(text, bytes, "none");
}
