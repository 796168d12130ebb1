/* From a call of comm.h to its run: each collective becomes a numbered record that its stream runs when its
 * number's turn has come, so that the order is the same on all ranks even over several streams. */
#ifndef MZ_COMM_ISSUE_H
#define MZ_COMM_ISSUE_H

#include <pthread.h>

#include "comm/all_reduce.h"
#include "comm/hier.h"

enum { MZ_HOST_VALUES_MAX = 64 };

typedef enum mz_collective_kind {
    MZ_ALL_GATHER,
    MZ_REDUCE_SCATTER,
    MZ_ALL_REDUCE,
    MZ_BROADCAST,
    MZ_ALL_TO_ALL,
    MZ_BARRIER,
    MZ_HOST_REDUCE,
    MZ_N_COLLECTIVES
} mz_collective_kind;

/* What is asked for; segments are borrowed for the call that issues it. */
typedef struct mz_collective {
    mz_collective_kind kind;
    const mz_segment *segments;
    int n_segments;
    mz_dtype dtype, recv_dtype;
    float scale;
    bool accumulate;
    int root;
    int bits; /* between nodes, of all_gather and reduce_scatter; 0: as dtype has them */
    const char *label;
} mz_collective;

typedef struct mz_issued mz_issued; /* the record */
struct mz_gpu_comm;
struct mz_links;

struct mz_comm {
    mz_world *world;
    mz_comm *parent, *groups, *next_group; /* what it was split from, was split into, and its parent's next */
    mz_comm *next_in_world;
    mz_comm_stats past; /* of groups that are no more */
    mz_device *device;
    MPI_Comm group;
    mz_layout layout;
    mz_hier *hier;              /* host memory; NULL: one rank */
    struct mz_gpu_comm *gpu;    /* device memory of GPUs; NULL: the device is a CPU */
    struct mz_links *predicted; /* the ranks are not there (predicted.h); NULL: they are */
    mz_all_reduce_plan plan;
    double *host_values; /* [size][MZ_HOST_VALUES_MAX] */
    double delay;
    uint64_t n_issued;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t turn_changed;
    uint64_t turn;               /* number of the collective that may run */
    mz_issued *spares, *records; /* free for use; all, since one whose stream has failed never comes back */
    mz_status failed;            /* the first failure, which all later collectives return */
    char failed_message[1024];
    mz_comm_stats stats;
};

/* All of *op but its number and time limit. */
void mz_collective_describe(const mz_collective *what, mz_op_info *op);
/* Issues on a stream; NULL runs at once in the calling thread. */
mz_status mz_comm_issue(mz_comm *comm, const mz_collective *collective, mz_stream *stream);
/* What one rank alone has to do, on host memory. */
void mz_comm_run_alone(const mz_collective *collective);
void mz_comm_free_records(mz_comm *comm);
/* The failure of some comm of the world, heard of from another rank or found here, or MZ_OK. Called by the thread
 * that makes and ends comms; does not wait. */
mz_status mz_comms_failure(mz_world *world);
/* The test hook mz_comm_set_delay. */
void mz_comm_delay(const mz_comm *comm);

#endif
