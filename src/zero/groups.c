/* The groups that the ranks form, each of consecutive ranks.
 *
 * MiCS (Zhang et al., VLDB 2022; mics_shard_size): a group holds one whole copy of the model state, sharded inside.
 * Parameters are gathered and gradients reduced inside; what a group has summed over a step's micro-batches is then
 * added up over the groups, between the ranks of equal slices.
 *
 * hpZ (ZeRO++, Wang et al., 2023; zero_hpz_partition_size): a group, meant to be a node, keeps a second copy of the
 * parameters, sharded inside. The first gather of a unit after an update fills it, and later ones stay in the
 * group: the backward pass's, and those of the step's other micro-batches, since nothing has changed in between. */
#include <string.h>

#include "core/error.h"
#include "core/log.h"

#include "zero/internal.h"

static mz_status check_sizes(const mz_zero *z)
{
    const mz_zero_config *c = &z->config.zero;
    if (z->stage == 3 && c->mics_shard_size > 0 && z->size % c->mics_shard_size != 0)
        return mz_fail(MZ_ERR_CONFIG,
                       "zero_optimization.mics_shard_size: expected a divisor of the number of ranks, %d, found %d",
                       z->size, c->mics_shard_size);
    if (z->stage == 3 && c->zero_hpz_partition_size > 1 && z->shard_size % c->zero_hpz_partition_size != 0)
        return mz_fail(MZ_ERR_CONFIG,
                       "zero_optimization.zero_hpz_partition_size: expected a divisor of the %d ranks that share "
                       "the parameters, found %d",
                       z->shard_size, c->zero_hpz_partition_size);
    return MZ_OK;
}

mz_status mz_zero_groups_choose(mz_zero *z)
{
    const mz_zero_config *c = &z->config.zero;
    z->shard_size = z->stage == 3 && c->mics_shard_size > 0 ? c->mics_shard_size : z->size;
    mz_status status = check_sizes(z);
    if (status)
        return status;
    z->shard_rank = z->rank % z->shard_size;
    z->n_replicas = z->size / z->shard_size;
    z->replica = z->rank / z->shard_size;
    if (z->stage == 3 && c->zero_hpz_partition_size > 1 && c->zero_hpz_partition_size < z->shard_size)
        z->second_size = c->zero_hpz_partition_size;
    z->second_rank = z->second_size ? z->rank % z->second_size : 0;
    return MZ_OK;
}

/* A second copy on several nodes costs its memory and saves few bytes, if any. */
static mz_status warn_of_distance(mz_zero *z)
{
    mz_comm_place place;
    mz_comm_get_place(z->second_comm, &place);
    double n_nodes = place.n_nodes;
    mz_status status = mz_all_reduce_host(z->comm, &n_nodes, 1, true, "nodes of hpZ's groups");
    if (!status && n_nodes > 1)
        mz_log_root(
            MZ_LOG_WARN,
            "zero_optimization.zero_hpz_partition_size: groups of %d ranks reach over %g nodes, so that gathers "
            "in the backward pass do too; best is the number of ranks per node",
            z->second_size, n_nodes);
    return status;
}

mz_status mz_zero_groups_create(mz_zero *z)
{
    mz_status status = MZ_OK;
    z->shard_comm = z->comm;
    if (!z->comm)
        return MZ_OK;
    if (z->n_replicas > 1) {
        status = mz_comm_split(z->comm, z->rank - z->shard_rank, z->shard_size, 1, &z->shard_comm);
        if (!status)
            status = mz_comm_split(z->comm, z->shard_rank, z->n_replicas, z->shard_size, &z->replica_comm);
    }
    if (!status && z->second_size)
        status = mz_comm_split(z->comm, z->rank - z->second_rank, z->second_size, 1, &z->second_comm);
    return status || !z->second_size ? status : warn_of_distance(z);
}

void mz_zero_groups_free(mz_zero *z)
{
    mz_comm_destroy(z->second_comm);
    mz_comm_destroy(z->replica_comm);
    if (z->shard_comm != z->comm)
        mz_comm_destroy(z->shard_comm);
}
