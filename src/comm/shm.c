/* Collectives inside a node through staging slots in shared memory.
 *
 * A collective is cut into steps of what a slot holds. In each step a rank fills its slot of that step and posts
 * `ready`, then takes what it needs from the others' slots and posts `done`. Every rank has a few slots in turn, so
 * that it fills the next one while others still read the last.
 *
 * Large all-gathers, which only move data, read the others' memory directly where the kernel allows it. Sums do
 * not: there the staged copy is read from the cache as fast, measured up to 16 MiB. */
#include <string.h>
#include <unistd.h>

#include "comm/cursor.h"
#include "comm/mpi_check.h"
#include "comm/shm_direct.h"
#include "comm/shm_sync.h"
#include "comm/sum.h"
#include "core/error.h"
#include "core/memory.h"

enum {
    N_SLOTS = 3,
    ALIGNMENT = 64,
    DIRECT_LEAST_BYTES = 32 << 10 /* below this the system call costs more than a second copy */
};

typedef struct shm_node {
    mz_node_transport base;
    mz_shm_segment segment;
    mz_shm_sync sync;
    unsigned char *slots; /* of rank 0; N_SLOTS each */
    size_t slot_bytes, part_bytes;
    uint32_t n_steps;     /* of all collectives so far */
    bool direct;          /* ranks can read each other's memory */
    const void **sources; /* [size] */
} shm_node;

/* One call's way through its steps. */
typedef struct passage {
    shm_node *node;
    const mz_op_info *op;
    size_t element;
    int64_t step_count; /* elements of one rank's block in a step */
    uint32_t n_steps;
    mz_cursor write, read;
} passage;

static unsigned char *slot_of(const shm_node *node, int rank, uint32_t step)
{
    return node->slots + (size_t)rank * node->part_bytes + (size_t)(step % N_SLOTS) * node->slot_bytes;
}

static passage start(shm_node *node, const mz_op_info *op, const mz_segment *segments, int n, mz_dtype dtype,
                     size_t room)
{
    passage p = {.node = node,
                 .op = op,
                 .element = mz_dtype_size(dtype),
                 .write = {segments, n, 0, 0},
                 .read = {segments, n, 0, 0}};
    p.step_count = (int64_t)(room / p.element);
    int64_t count = mz_segments_count(segments, n);
    p.n_steps = count ? (uint32_t)((count + p.step_count - 1) / p.step_count) : 1; /* an empty one still meets */
    return p;
}

/* Waits until nobody reads the slot that step i is to use any more. */
static mz_status wait_for_slot(const passage *p, uint32_t i)
{
    mz_shm_sync *sync = &p->node->sync;
    mz_status status = MZ_OK;
    for (int r = 0; r < sync->members.size && !status; r++)
        if (r != sync->members.rank)
            status = mz_shm_sync_wait(sync, p->op, r, MZ_SHM_DONE, p->node->n_steps + i + 1 - N_SLOTS);
    return status;
}

static mz_status wait_for_data(const passage *p, uint32_t i, int rank)
{
    return mz_shm_sync_wait(&p->node->sync, p->op, rank, MZ_SHM_READY, p->node->n_steps + i + 1);
}

static void post(const passage *p, mz_shm_word word, uint32_t i)
{
    mz_shm_sync_post(&p->node->sync, word, p->node->n_steps + i + 1);
}

static mz_status gather_fill(passage *p, uint32_t i)
{
    shm_node *node = p->node;
    int me = node->base.rank;
    mz_status status = wait_for_slot(p, i);
    if (status)
        return status;
    unsigned char *slot = slot_of(node, me, node->n_steps + i);
    mz_piece piece;
    for (int64_t left = p->step_count; mz_cursor_next(&p->write, left, &piece); left -= piece.count) {
        size_t bytes = (size_t)piece.count * p->element;
        memcpy(slot, mz_piece_send(&piece, 0, p->element), bytes);
        slot += bytes;
        node->base.bytes_sent += (double)bytes;
    }
    post(p, MZ_SHM_READY, i);
    return MZ_OK;
}

static mz_status gather_take(passage *p, uint32_t i)
{
    shm_node *node = p->node;
    int me = node->base.rank, size = node->base.size;
    mz_cursor begin = p->read;
    for (int k = 1; k <= size; k++) {
        int r = (me + k) % size; /* each rank begins with another, so that not all read one */
        mz_status status = r == me ? MZ_OK : wait_for_data(p, i, r);
        if (status)
            return status;
        const unsigned char *slot = slot_of(node, r, node->n_steps + i);
        mz_piece piece;
        p->read = begin;
        for (int64_t left = p->step_count; mz_cursor_next(&p->read, left, &piece); left -= piece.count) {
            size_t bytes = (size_t)piece.count * p->element;
            char *to = mz_piece_recv(&piece, r, p->element);
            const char *own = mz_piece_send(&piece, 0, p->element);
            if (r != me)
                memcpy(to, slot, bytes);
            else if (to != own)
                memcpy(to, own, bytes);
            slot += bytes;
        }
    }
    post(p, MZ_SHM_DONE, i);
    return MZ_OK;
}

/* Everybody publishes where its blocks lie, reads the others' and waits until its own have been read. */
static mz_status gather_directly(shm_node *node, const mz_op_info *op, const mz_segment *segments, int n,
                                 mz_dtype dtype)
{
    int me = node->base.rank, size = node->base.size;
    passage p = start(node, op, NULL, 0, dtype, node->slot_bytes);
    const void **own = node->sync.ranks[me].addresses;
    for (int s = 0; s < n; s++)
        own[s] = segments[s].send;
    post(&p, MZ_SHM_READY, 0);
    mz_status status = MZ_OK;
    for (int k = 1; k <= size && !status; k++) {
        int r = (me + k) % size;
        const void **theirs = node->sync.ranks[r].addresses;
        if (r != me)
            status = wait_for_data(&p, 0, r);
        for (int s = 0; s < n && !status; s++) {
            size_t bytes = (size_t)segments[s].count * p.element;
            char *to = (char *)segments[s].recv + (size_t)(r * segments[s].stride) * p.element;
            if (r != me)
                status = mz_shm_direct_read(&node->sync, r, theirs[s], to, bytes);
            else if (to != segments[s].send && bytes)
                memcpy(to, segments[s].send, bytes);
            node->base.bytes_sent += r != me ? (double)bytes : 0;
        }
    }
    post(&p, MZ_SHM_DONE, 0);
    for (int r = 0; r < size && !status; r++)
        if (r != me)
            status = mz_shm_sync_wait(&node->sync, op, r, MZ_SHM_DONE, node->n_steps + 1);
    node->n_steps++;
    return status;
}

static mz_status shm_all_gather(mz_node_transport *base, const mz_op_info *op, const mz_segment *segments, int n,
                                mz_dtype dtype, mz_stream *stream)
{
    (void)stream;
    shm_node *node = (shm_node *)base;
    size_t bytes = (size_t)mz_segments_count(segments, n) * mz_dtype_size(dtype);
    if (node->direct && n <= MZ_SHM_ADDRESSES && bytes >= DIRECT_LEAST_BYTES)
        return gather_directly(node, op, segments, n, dtype);
    passage p = start(node, op, segments, n, dtype, node->slot_bytes);
    mz_status status = gather_fill(&p, 0);
    for (uint32_t i = 0; i < p.n_steps && !status; i++) {
        if (i + 1 < p.n_steps)
            status = gather_fill(&p, i + 1);
        if (!status)
            status = gather_take(&p, i);
    }
    node->n_steps += p.n_steps;
    return status;
}

/* A slot holds one part for each rank, `part` bytes apart. */
static mz_status scatter_fill(passage *p, uint32_t i, size_t part)
{
    shm_node *node = p->node;
    mz_status status = wait_for_slot(p, i);
    if (status)
        return status;
    unsigned char *slot = slot_of(node, node->base.rank, node->n_steps + i);
    size_t filled = 0;
    mz_piece piece;
    for (int64_t left = p->step_count; mz_cursor_next(&p->write, left, &piece); left -= piece.count) {
        size_t bytes = (size_t)piece.count * p->element;
        for (int r = 0; r < node->base.size; r++)
            if (r != node->base.rank)
                memcpy(slot + (size_t)r * part + filled, mz_piece_send(&piece, r, p->element), bytes);
        filled += bytes;
    }
    node->base.bytes_sent += (double)filled * (node->base.size - 1);
    post(p, MZ_SHM_READY, i);
    return MZ_OK;
}

typedef struct reduction {
    mz_dtype dtype, recv_dtype;
    float scale;
    bool accumulate;
} reduction;

static mz_status scatter_take(passage *p, uint32_t i, size_t part, const reduction *how)
{
    shm_node *node = p->node;
    int me = node->base.rank, size = node->base.size;
    for (int k = 1; k < size; k++) {
        mz_status status = wait_for_data(p, i, (me + k) % size);
        if (status)
            return status;
    }
    size_t taken = 0;
    mz_piece piece;
    for (int64_t left = p->step_count; mz_cursor_next(&p->read, left, &piece); left -= piece.count) {
        for (int r = 0; r < size; r++)
            node->sources[r] = r == me ? (const void *)mz_piece_send(&piece, me, p->element)
                                       : slot_of(node, r, node->n_steps + i) + (size_t)me * part + taken;
        mz_comm_sum(mz_piece_recv(&piece, 0, mz_dtype_size(how->recv_dtype)), how->recv_dtype, node->sources, size,
                    how->dtype, piece.count, how->scale, how->accumulate);
        taken += (size_t)piece.count * p->element;
    }
    post(p, MZ_SHM_DONE, i);
    return MZ_OK;
}

static mz_status shm_reduce_scatter(mz_node_transport *base, const mz_op_info *op, const mz_segment *segments,
                                    int n, mz_dtype dtype, mz_dtype recv_dtype, float scale, bool accumulate,
                                    mz_stream *stream)
{
    (void)stream;
    shm_node *node = (shm_node *)base;
    size_t part = node->slot_bytes / (size_t)base->size / ALIGNMENT * ALIGNMENT;
    reduction how = {dtype, recv_dtype, scale, accumulate};
    passage p = start(node, op, segments, n, dtype, part);
    mz_status status = scatter_fill(&p, 0, part);
    for (uint32_t i = 0; i < p.n_steps && !status; i++) {
        if (i + 1 < p.n_steps)
            status = scatter_fill(&p, i + 1, part);
        if (!status)
            status = scatter_take(&p, i, part, &how);
    }
    node->n_steps += p.n_steps;
    return status;
}

/* All meet, so that a mismatch is found by everybody before data is moved. */
static mz_status meet(const passage *p, uint32_t first_steps)
{
    mz_status status = MZ_OK;
    mz_shm_sync *sync = &p->node->sync;
    mz_shm_sync_post(sync, MZ_SHM_READY, p->node->n_steps + first_steps);
    for (int r = 0; r < sync->members.size && !status; r++)
        if (r != sync->members.rank)
            status = wait_for_data(p, 0, r);
    return status;
}

static mz_status shm_broadcast(mz_node_transport *base, const mz_op_info *op, const mz_segment *segments, int n,
                               mz_dtype dtype, int root, mz_stream *stream)
{
    (void)stream;
    shm_node *node = (shm_node *)base;
    passage p = start(node, op, segments, n, dtype, node->slot_bytes);
    bool is_root = base->rank == root;
    mz_status status = is_root ? gather_fill(&p, 0) : meet(&p, p.n_steps);
    if (is_root && !status)
        status = meet(&p, 1);
    for (uint32_t i = 0; i < p.n_steps && !status; i++) {
        if (is_root && i + 1 < p.n_steps)
            status = gather_fill(&p, i + 1);
        if (!is_root && !status)
            status = wait_for_data(&p, i, root);
        const unsigned char *slot = slot_of(node, root, node->n_steps + i);
        mz_piece piece;
        for (int64_t left = p.step_count; !status && mz_cursor_next(&p.read, left, &piece); left -= piece.count) {
            size_t bytes = (size_t)piece.count * p.element;
            char *to = mz_piece_recv(&piece, 0, p.element);
            if (!is_root || to != mz_piece_send(&piece, 0, p.element))
                memcpy(to, slot, bytes);
            slot += bytes;
        }
        post(&p, MZ_SHM_DONE, i);
    }
    node->n_steps += p.n_steps;
    return status;
}

static mz_status shm_barrier(mz_node_transport *base, const mz_op_info *op)
{
    shm_node *node = (shm_node *)base;
    passage p = start(node, op, NULL, 0, MZ_U8, node->slot_bytes);
    mz_status status = meet(&p, 1);
    post(&p, MZ_SHM_DONE, 0);
    node->n_steps++;
    return status;
}

static void shm_begin(mz_node_transport *base, const mz_op_info *op)
{
    mz_shm_sync_enter(&((shm_node *)base)->sync, op);
}

static void shm_abort(mz_node_transport *base, mz_status status, const char *message)
{
    mz_shm_sync_abort(&((shm_node *)base)->sync, status, message);
}

static mz_status shm_failure(mz_node_transport *base)
{
    return mz_shm_sync_failure(&((shm_node *)base)->sync);
}

static void shm_destroy(mz_node_transport *base)
{
    shm_node *node = (shm_node *)base;
    mz_shm_segment_close(&node->segment);
    mz_free(node->sync.checked);
    mz_free(node->sources);
    mz_free(node);
}

static const mz_node_ops shm_ops = {.name = "shared memory",
                                    .destroy = shm_destroy,
                                    .begin = shm_begin,
                                    .abort = shm_abort,
                                    .failure = shm_failure,
                                    .all_gather = shm_all_gather,
                                    .reduce_scatter = shm_reduce_scatter,
                                    .broadcast = shm_broadcast,
                                    .barrier = shm_barrier};

static size_t whole_pages(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

/* What this rank keeps for itself. */
static mz_status make_node(const mz_members *members, size_t slot_bytes, bool spin, shm_node **out)
{
    shm_node *node = mz_calloc(1, sizeof *node);
    if (!node)
        return MZ_ERR_MEMORY;
    node->base = (mz_node_transport){.ops = &shm_ops, .rank = members->rank, .size = members->size};
    node->segment.fd = -1;
    node->slot_bytes = slot_bytes;
    node->part_bytes = slot_bytes * N_SLOTS;
    node->sources = mz_calloc((size_t)members->size, sizeof *node->sources);
    node->sync.checked = mz_calloc((size_t)members->size, sizeof *node->sync.checked);
    node->sync.segment = &node->segment;
    node->sync.members = *members;
    node->sync.spin = spin;
    if (!node->sources || !node->sync.checked) {
        shm_destroy(&node->base);
        return MZ_ERR_MEMORY;
    }
    *out = node;
    return MZ_OK;
}

mz_status mz_shm_create(MPI_Comm group, const mz_members *members, size_t slot_bytes, bool spin,
                        mz_node_transport **out)
{
    size_t least = (size_t)members->size * ALIGNMENT, head_bytes = whole_pages(mz_shm_sync_bytes(members->size));
    shm_node *node = NULL;
    mz_status status = make_node(members, whole_pages(slot_bytes > least ? slot_bytes : least), spin, &node);
    status = mz_mpi_agree(group, status, "shared memory");
    if (!status)
        status = mz_shm_segment_open(group, head_bytes, node->part_bytes, &node->segment);
    if (!status) {
        node->slots = node->segment.memory + head_bytes;
        mz_shm_sync_attach(&node->sync, node->segment.memory);
        status = mz_shm_direct_probe(group, &node->sync, &node->direct);
    }
    if (status) {
        if (node)
            shm_destroy(&node->base);
        return status;
    }
    *out = &node->base;
    return MZ_OK;
}
