#include "comm/peers.h"

#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "comm/mpi_check.h"
#include "core/error.h"
#include "core/log.h"
#include "core/memory.h"

/* CUDA takes smaller blocks from a common piece, and an opened handle would begin at that piece. */
#define LEAST_BYTES ((size_t)2 << 20)

enum { MAX_BLOCKS = 16, LINE_BYTES = 64, PAGE_BYTES = 4096 };
/* What is set beside a rank that has failed may be set back by one that has not noticed yet: so often and long. */
enum { ABORT_ROUNDS = 250 };
static const struct timespec abort_pause = {0, 2000000};

/* Memory that lies alike on all ranks. */
typedef struct shared_block {
    char *memory;
    size_t bytes;
    void **at; /* [size] every rank's, as this GPU sees it */
} shared_block;

/* A rank's place in shared memory, which all GPUs see. */
typedef struct place {
    _Alignas(LINE_BYTES) _Atomic uint32_t steps; /* meetings that the rank's stream has come to */
} place;

struct mz_peers {
    MPI_Comm group;
    mz_members members;
    mz_device *device;
    mz_shm_segment segment;
    place *places; /* [size] */
    bool registered;
    _Atomic uint32_t steps;
    shared_block blocks[MAX_BLOCKS];
    int n_blocks;
};

/* ---- set-up ---- */

/* What does not work on one rank is done without on all. */
static mz_status all_can(MPI_Comm group, bool *can)
{
    int all = *can;
    mz_status status = mz_mpi_check(MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, group), "MPI_Allreduce");
    *can = all;
    return status;
}

/* True, or the reason in the log. */
static bool works(cudaError_t error, const char *call)
{
    if (error == cudaSuccess)
        return true;
    cudaGetLastError();
    mz_log(MZ_LOG_DEBUG, "all-gathers take NCCL instead of copies: %s: %s", call,
           cudaGetErrorString(error));
    return false;
}

mz_status mz_peers_create(MPI_Comm group, const mz_members *members, mz_device *device, mz_peers **out)
{
    size_t bytes = ((size_t)members->size * sizeof(place) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    mz_peers *p = mz_calloc(1, sizeof *p);
    *out = NULL;
    mz_status status = mz_mpi_agree(group, p ? MZ_OK : MZ_ERR_MEMORY, "sharing memory between GPUs");
    if (status) {
        mz_free(p);
        return status;
    }
    *p = (mz_peers){.group = group, .members = *members, .device = device};
    status = mz_shm_segment_open(group, bytes, PAGE_BYTES, &p->segment);
    if (!status) {
        void *seen = NULL;
        p->places = (void *)p->segment.memory;
        p->registered = works(cudaHostRegister(p->places, bytes, cudaHostRegisterMapped), "cudaHostRegister");
        bool can = p->registered &&
                   works(cudaHostGetDevicePointer(&seen, p->places, 0), "cudaHostGetDevicePointer") &&
                   seen == (void *)p->places;
        status = all_can(group, &can);
        if (!status && can) {
            *out = p;
            return MZ_OK;
        }
    }
    mz_peers_destroy(p);
    return status;
}

static void close_block(const mz_peers *p, shared_block *b)
{
    for (int r = 0; b->at && r < p->members.size; r++)
        if (r != p->members.rank && b->at[r])
            cudaIpcCloseMemHandle(b->at[r]);
    mz_free(b->at);
    *b = (shared_block){0};
}

void mz_peers_destroy(mz_peers *p)
{
    if (!p)
        return;
    for (int i = 0; i < p->n_blocks; i++)
        close_block(p, &p->blocks[i]);
    if (p->registered)
        cudaHostUnregister(p->places);
    mz_shm_segment_close(&p->segment);
    mz_free(p);
}

/* ---- memory ---- */

typedef struct block_card {
    cudaIpcMemHandle_t handle;
    uint64_t bytes;
    int can;
} block_card;

static bool open_block(const mz_peers *p, const block_card *cards, shared_block *b)
{
    bool can = true;
    for (int r = 0; r < p->members.size && can; r++) {
        can = cards[r].can && cards[r].bytes == b->bytes;
        if (r == p->members.rank)
            b->at[r] = b->memory;
        else if (can)
            can = works(cudaIpcOpenMemHandle(&b->at[r], cards[r].handle, cudaIpcMemLazyEnablePeerAccess),
                        "cudaIpcOpenMemHandle");
    }
    return can;
}

mz_status mz_peers_share(mz_peers *p, void *memory, size_t bytes)
{
    if (!p || bytes < LEAST_BYTES || p->n_blocks == MAX_BLOCKS)
        return MZ_OK;
    size_t size = (size_t)p->members.size;
    shared_block *b = &p->blocks[p->n_blocks];
    *b = (shared_block){.memory = memory, .bytes = bytes, .at = mz_calloc(size, sizeof *b->at)};
    block_card mine = {.bytes = bytes}, *cards = mz_calloc(size, sizeof *cards);
    mz_status status =
        mz_mpi_agree(p->group, b->at && cards ? MZ_OK : MZ_ERR_MEMORY, "sharing memory between GPUs");
    if (!status) {
        mine.can = works(cudaIpcGetMemHandle(&mine.handle, memory), "cudaIpcGetMemHandle");
        status = mz_mpi_check(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, cards, sizeof mine, MPI_BYTE, p->group),
                              "MPI_Allgather");
    }
    bool can = !status && open_block(p, cards, b);
    if (!status)
        status = all_can(p->group, &can);
    mz_free(cards);
    if (status || !can)
        close_block(p, b);
    else
        p->n_blocks++;
    return status;
}

void mz_peers_forget(mz_peers *p, const void *memory)
{
    for (int i = 0; p && i < p->n_blocks; i++) {
        if (p->blocks[i].memory != memory)
            continue;
        close_block(p, &p->blocks[i]);
        memmove(&p->blocks[i], &p->blocks[i + 1], (size_t)(p->n_blocks - i - 1) * sizeof p->blocks[i]);
        p->n_blocks--;
        return;
    }
}

/* ---- gathering ---- */

static char *block_of(const mz_segment *s, int rank, mz_dtype dtype)
{
    return (char *)s->recv + (size_t)(s->stride * rank) * mz_dtype_size(dtype);
}

static const shared_block *find_block(const mz_peers *p, const char *memory, size_t bytes, size_t *offset)
{
    for (int i = 0; i < p->n_blocks; i++) {
        const shared_block *b = &p->blocks[i];
        if (memory < b->memory || memory + bytes > b->memory + b->bytes)
            continue;
        *offset = (size_t)(memory - b->memory);
        return b;
    }
    return NULL;
}

/* The block that member r's source lies in, and where in it. Sources are at the same place of the ranks' blocks, or
 * each where it belongs in its receiver's. */
static const shared_block *find_source(const mz_peers *p, const mz_segment *s, int r, mz_dtype dtype,
                                       size_t *offset)
{
    bool in_place = s->send == block_of(s, p->members.rank, dtype);
    return find_block(p, in_place ? block_of(s, r, dtype) : s->send, (size_t)s->count * mz_dtype_size(dtype),
                      offset);
}

bool mz_peers_can_gather(const mz_peers *p, const mz_segment *segments, int n, mz_dtype dtype)
{
    size_t offset;
    if (!p || p->n_blocks == 0)
        return false;
    for (int i = 0; i < n; i++)
        for (int r = 0; r < p->members.size; r++)
            if (!find_source(p, &segments[i], r, dtype, &offset))
                return false;
    return true;
}

mz_status mz_peers_meet(mz_peers *p, mz_stream *stream)
{
    const mz_device_ops *ops = p->device->ops;
    uint32_t steps = atomic_fetch_add(&p->steps, 1) + 1;
    mz_status status = ops->post(stream, (uint32_t *)&p->places[p->members.rank].steps, steps);
    for (int r = 0; r < p->members.size && !status; r++)
        if (r != p->members.rank)
            status = ops->await(stream, (uint32_t *)&p->places[r].steps, steps);
    return status;
}

/* Each GPU begins with another, its neighbour, and ends with itself. */
mz_status mz_peers_all_gather(mz_peers *p, const mz_segment *segments, int n, mz_dtype dtype, mz_stream *stream)
{
    mz_status status = MZ_OK;
    for (int k = 1; k <= p->members.size && !status; k++) {
        int r = (p->members.rank + k) % p->members.size;
        for (int i = 0; i < n && !status; i++) {
            size_t offset = 0;
            const shared_block *b = find_source(p, &segments[i], r, dtype, &offset);
            status = p->device->ops->copy(stream, block_of(&segments[i], r, dtype), (const char *)b->at[r] + offset,
                                          (size_t)segments[i].count * mz_dtype_size(dtype));
        }
    }
    return status;
}

void mz_peers_abort(mz_peers *p)
{
    for (int round = 0; p && round < ABORT_ROUNDS; round++) {
        uint32_t far = atomic_load(&p->steps) + (UINT32_C(1) << 30);
        for (int r = 0; r < p->members.size; r++)
            atomic_store(&p->places[r].steps, far);
        nanosleep(&abort_pause, NULL);
    }
}
