/* A relay's beginning and end. */
#include <string.h>

#include "comm/mpi_check.h"
#include "comm/relay_impl.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/memory.h"
#include "kernels/kernels.h"

enum {
    MOST_PIECE_BYTES = 4 << 20,   /* copied over PCIe in 80 us, which is much more than a launch takes */
    LEAST_PIECE_BYTES = 64 << 10, /* a shorter message would pay more for its latency than for its bytes */
    FLIGHT_BYTES = 32 << 20,      /* of a flight's buffers, at most, in each direction */
    ALIGNMENT = 512
};

static mz_status open_streams(mz_relay *relay)
{
    mz_device *device = relay->options.device;
    const mz_device_ops *ops = device->ops;
    mz_status status = ops->stream_create(device, MZ_STREAM_COPY, &relay->out);
    if (!status)
        status = ops->stream_create(device, MZ_STREAM_COPY, &relay->in);
    if (!status)
        status = ops->stream_create(device, MZ_STREAM_COMM, &relay->inner);
    if (!status)
        status = ops->event_create(device, &relay->start);
    for (int i = 0; i < MZ_WATCH_FLIGHTS && !status; i++)
        status = ops->event_create(device, &relay->records[i].begin);
    for (int i = 0; i < MZ_VOYAGE_WINDOW && !status; i++) {
        mz_relay_slot *slot = &relay->slots[i];
        mz_event **events[] = {&slot->reduced, &slot->loaded, &slot->stored, &slot->finished};
        for (int k = 0; k < 4 && !status; k++)
            status = ops->event_create(device, events[k]);
    }
    return status;
}

/* A flight has a block in and one out for each node; on the GPU the sum, in fp32, of a piece of 16-bit values too.
 */
static size_t piece_bytes(const mz_relay *relay)
{
    size_t wanted = relay->options.piece_bytes, piece = wanted;
    if (!wanted)
        piece = FLIGHT_BYTES / (size_t)relay->hier.layout->n_nodes;
    piece = piece < MOST_PIECE_BYTES ? piece : MOST_PIECE_BYTES;
    if (!wanted && piece < LEAST_PIECE_BYTES)
        piece = LEAST_PIECE_BYTES;
    return (piece + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static mz_status take_memory(mz_relay *relay)
{
    mz_device *device = relay->options.device;
    mz_hier *hier = &relay->hier;
    size_t n_nodes = (size_t)hier->layout->n_nodes, piece = piece_bytes(relay);
    size_t side = n_nodes * piece, flight = 2 * side, slot = 2 * side + 2 * piece;
    hier->piece_bytes = piece;
    hier->node_segments = mz_calloc(n_nodes, sizeof *hier->node_segments);
    if (!hier->node_segments)
        return MZ_ERR_MEMORY;
    size_t words_bytes = MZ_WATCH_FLIGHTS * sizeof *relay->words;
    void *words = NULL;
    mz_status status = device->ops->alloc_pinned(device, words_bytes, &words);
    if (status)
        return status;
    relay->words = memset(words, 0, words_bytes);
    if (!relay->direct)
        status = device->ops->alloc_pinned(device, MZ_VOYAGE_WINDOW * flight, &relay->pinned);
    if (!status)
        status = device->ops->alloc(device, MZ_VOYAGE_WINDOW * slot, &relay->memory);
    for (size_t i = 0; i < MZ_VOYAGE_WINDOW && !status; i++) {
        relay->slots[i].partial = (char *)relay->memory + i * slot;
        relay->slots[i].inbox = relay->slots[i].partial + side;
        relay->slots[i].sum = (float *)(void *)(relay->slots[i].inbox + side);
        hier->flights[i].partial = relay->direct ? relay->slots[i].partial : (char *)relay->pinned + i * flight;
        hier->flights[i].inbox = hier->flights[i].partial + side;
    }
    return status;
}

static void bind_device(void *context)
{
    mz_relay *relay = context;
    relay->options.device->ops->check(relay->inner);
}

static mz_status pin(mz_relay *relay)
{
    mz_wire_transport *wire = relay->hier.wire;
    size_t side = (size_t)relay->hier.layout->n_nodes * relay->hier.piece_bytes;
    mz_wire_memory memory = {.memory = relay->pinned, .bytes = MZ_VOYAGE_WINDOW * 2 * side};
    if (relay->direct) {
        memory.memory = relay->memory;
        memory.bytes = MZ_VOYAGE_WINDOW * (2 * side + 2 * relay->hier.piece_bytes);
        memory.bind = relay->options.device->ops->see_writes ? bind_device : NULL;
        memory.context = relay;
    }
    return wire->ops->pin ? wire->ops->pin(wire, &memory) : MZ_OK;
}

/* Everything that a collective launches is launched once while no stream waits for it: what a device puts off until
 * the first launch of a kernel or copy of a kind is done then. */
static mz_status warm_up(mz_relay *relay)
{
    static const mz_dtype dtypes[] = {MZ_F32, MZ_F16, MZ_BF16};
    const mz_device_ops *ops = relay->options.device->ops;
    mz_relay_slot *slot = &relay->slots[0];
    const size_t n_blocks = 2 * (size_t)relay->hier.layout->n_nodes + 2;
    mz_status status = ops->fill(relay->inner, slot->partial, 0, n_blocks * relay->hier.piece_bytes);
    for (int i = 0; i < 2 * 2 * 3 && !status; i++) {
        const mz_dtype other = dtypes[i / 4];
        const mz_cast_args args = {.n = ALIGNMENT / 8,
                                   .src = slot->partial,
                                   .src_dtype = i & 1 ? other : MZ_F32,
                                   .dst = slot->sum,
                                   .dst_dtype = i & 1 ? MZ_F32 : other,
                                   .scale = 1,
                                   .accumulate = i & 2};
        status = ops->kernels->cast(&args, relay->inner);
    }
    for (int i = 0; i < 2 * 3 && !status; i++) {
        const int n = ALIGNMENT / 8, bits = i & 1 ? 8 : 4;
        const mz_quantize_args args = {n, bits, slot->partial, dtypes[i / 2], slot->sum};
        const mz_dequantize_args back = {n, bits, slot->sum, slot->partial, dtypes[i / 2]};
        status = ops->kernels->quantize(&args, relay->inner);
        if (!status)
            status = ops->kernels->dequantize(&back, relay->inner);
    }
    if (!status)
        status = ops->copy(relay->inner, slot->inbox, slot->partial, ALIGNMENT);
    if (!status && !relay->direct)
        status = ops->copy(relay->out, relay->hier.flights[0].partial, slot->partial, ALIGNMENT);
    if (!status && !relay->direct)
        status = ops->copy(relay->in, slot->inbox, relay->hier.flights[0].inbox, ALIGNMENT);
    if (!status && relay->direct && ops->see_writes)
        status = ops->see_writes(relay->options.device);
    if (!status)
        status = ops->stream_sync(relay->out);
    if (!status)
        status = ops->stream_sync(relay->in);
    return status ? status : ops->stream_sync(relay->inner);
}

static mz_status open_wire(mz_relay *relay)
{
    mz_status status = mz_mpi_check(MPI_Comm_dup(relay->options.group, &relay->group), "MPI_Comm_dup");
    if (status)
        return status;
    MPI_Comm_set_errhandler(relay->group, MPI_ERRORS_RETURN);
    return mz_hier_open_wire(&relay->hier, relay->group, relay->options.wire, relay->options.spin);
}

/* Everybody's wire must reach its GPU, or all go through pinned memory. */
static mz_status choose_buffers(mz_relay *relay)
{
    int reaches = relay->hier.wire->reaches_gpus, all = 0;
    mz_status status =
        mz_mpi_check(MPI_Allreduce(&reaches, &all, 1, MPI_INT, MPI_MIN, relay->group), "MPI_Allreduce");
    relay->direct = all;
    return status;
}

/* What UCX does with a GPU's memory for the first time may take memory or make streams: once with each peer now, a
 * short message and a long one. */
static mz_status try_wire(mz_relay *relay)
{
    mz_hier *hier = &relay->hier;
    const int n = hier->layout->n_nodes, node = hier->layout->node;
    const mz_op_info op = {.kind = "set-up",
                           .label = "GPU memory over the wire",
                           .sequence = UINT64_MAX - 1,
                           .seconds = relay->options.timeout_seconds,
                           .deadline = mz_clock_seconds() + relay->options.timeout_seconds};
    const size_t bytes[] = {ALIGNMENT, hier->piece_bytes};
    mz_status status = MZ_OK;
    for (int k = 1; k < n && relay->direct; k++)
        for (int i = 0; i < 2; i++) {
            mz_leg *leg = &hier->legs[0];
            *leg = (mz_leg){.k = k};
            if (!status)
                status = mz_leg_recv(hier, &op, leg, (node + n - k) % n, relay->slots[0].inbox, bytes[i]);
            if (!status)
                status = mz_leg_send(hier, &op, leg, (node + k) % n, relay->slots[0].partial, bytes[i]);
            mz_status landed = mz_leg_land(hier, &op, leg);
            status = status ? status : landed;
        }
    return status;
}

static mz_status start_courier(mz_relay *relay)
{
    int error = pthread_create(&relay->courier, NULL, mz_relay_run, relay);
    relay->has_courier = !error;
    return error ? mz_fail(MZ_ERR_MEMORY, "cannot start a thread: %s", strerror(error)) : MZ_OK;
}

static mz_status refuse_late_loading(const mz_device *device)
{
    if (!device->loads_late)
        return MZ_OK;
    return mz_fail(MZ_ERR_UNSUPPORTED,
                   "%s: CUDA loads kernels at their first launch, which may wait for streams that wait for that "
                   "launch; set CUDA_MODULE_LOADING=EAGER in the environment",
                   device->label);
}

static mz_status set_up(mz_relay *relay)
{
    mz_status status = take_memory(relay);
    if (!status)
        status = warm_up(relay);
    if (!status) /* can it be done at all? */
        status = relay->options.device->ops->await(relay->inner, relay->words, 0);
    return status ? status : pin(relay);
}

mz_status mz_relay_create(const mz_relay_options *options, mz_relay **out)
{
    static const char setting_up[] = "setting up collectives between nodes";
    mz_relay *relay = mz_calloc(1, sizeof *relay);
    mz_status status = relay ? MZ_OK : MZ_ERR_MEMORY;
    if (relay) {
        relay->options = *options;
        relay->group = MPI_COMM_NULL;
        relay->hier.layout = options->layout;
        relay->hier.node = options->node;
        pthread_mutex_init(&relay->lock, NULL);
        pthread_cond_init(&relay->changed, NULL);
        status = refuse_late_loading(options->device);
        if (!status)
            status = open_streams(relay);
    }
    status = mz_mpi_agree(options->group, status, setting_up);
    if (!status)
        status = mz_mpi_agree(options->group, open_wire(relay), setting_up);
    if (!status)
        status = mz_mpi_agree(options->group, choose_buffers(relay), setting_up);
    if (!status)
        status = mz_mpi_agree(options->group, set_up(relay), setting_up);
    if (!status)
        status = try_wire(relay);
    if (!status)
        status = start_courier(relay);
    status = mz_mpi_agree(options->group, status, setting_up);
    if (status) {
        mz_relay_destroy(relay);
        return status;
    }
    relay->settler = (mz_settler){.settle = mz_relay_settle, .context = relay};
    mz_device_add_settler(options->device, &relay->settler);
    *out = relay;
    return MZ_OK;
}

void mz_relay_stop(mz_relay *relay)
{
    if (!relay || !relay->has_courier)
        return;
    pthread_mutex_lock(&relay->lock);
    relay->stop = true;
    pthread_cond_broadcast(&relay->changed);
    pthread_mutex_unlock(&relay->lock);
    pthread_join(relay->courier, NULL);
    relay->has_courier = false;
}

static void free_events(mz_relay *relay)
{
    const mz_device_ops *ops = relay->options.device->ops;
    for (int i = 0; i < MZ_VOYAGE_WINDOW; i++) {
        mz_relay_slot *slot = &relay->slots[i];
        mz_event *events[] = {slot->reduced, slot->loaded, slot->stored, slot->finished};
        for (int k = 0; k < 4; k++)
            if (events[k])
                ops->event_destroy(events[k]);
    }
    for (int i = 0; i < MZ_WATCH_FLIGHTS; i++) {
        if (relay->records[i].begin)
            ops->event_destroy(relay->records[i].begin);
        mz_free(relay->records[i].segments);
    }
    if (relay->start)
        ops->event_destroy(relay->start);
}

void mz_relay_destroy(mz_relay *relay)
{
    if (!relay)
        return;
    mz_device *device = relay->options.device;
    mz_stream *streams[] = {relay->out, relay->in, relay->inner};
    mz_device_remove_settler(device, &relay->settler);
    mz_relay_stop(relay);
    if (relay->hier.wire) /* its thread may yet ask for a stream's device */
        relay->hier.wire->ops->destroy(relay->hier.wire);
    for (int i = 0; i < 3; i++)
        if (streams[i])
            device->ops->stream_destroy(streams[i]);
    free_events(relay);
    if (relay->group != MPI_COMM_NULL && !relay->failed) /* else others may be gone */
        MPI_Comm_free(&relay->group);
    if (relay->words)
        device->ops->free_pinned(device, relay->words);
    if (relay->pinned)
        device->ops->free_pinned(device, relay->pinned);
    if (relay->memory)
        device->ops->free(device, relay->memory);
    mz_free(relay->hier.node_segments);
    pthread_cond_destroy(&relay->changed);
    pthread_mutex_destroy(&relay->lock);
    mz_free(relay);
}
