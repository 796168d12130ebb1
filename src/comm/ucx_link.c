#include "comm/ucx_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "comm/mpi_check.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/memory.h"

static const double connect_seconds = 60;

mz_status mz_ucx_check(ucs_status_t status, const char *call)
{
    if (status == UCS_OK)
        return MZ_OK;
    return mz_fail(MZ_ERR_COMM,
                   "%s failed: %s (UCX_TLS and UCX_NET_DEVICES say what UCX may use; --wire mpi does "
                   "without it)",
                   call, ucs_status_string(status));
}

static mz_status start_thread(mz_ucx_link *link)
{
    int error = pthread_create(&link->thread, NULL, mz_ucx_progress_thread, link);
    if (error)
        return mz_fail(MZ_ERR_MEMORY, "starting UCX's progress thread: %s", strerror(error));
    link->has_thread = true;
    return MZ_OK;
}

static void stop_thread(mz_ucx_link *link)
{
    const uint64_t one = 1;
    if (!link->has_thread)
        return;
    while (write(link->stop_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
    pthread_join(link->thread, NULL);
}

/* Over TCP every byte passes the host in any case, and goes there faster by our own copies. MPIZERO_GPU_DIRECT
 * overrides. */
static void choose_reach(mz_ucx_link *link, bool only_tcp, uint64_t memory_types)
{
    const char *wish = getenv("MPIZERO_GPU_DIRECT");
    link->knows_gpus = memory_types & UCS_BIT(UCS_MEMORY_TYPE_CUDA);
    link->reaches_gpus = wish ? strcmp(wish, "1") == 0 : link->knows_gpus && !only_tcp;
}

static mz_status open_worker(mz_ucx_link *link)
{
    const ucp_params_t parameters = {.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS |
                                                   UCP_PARAM_FIELD_NAME,
                                     .features = UCP_FEATURE_TAG | UCP_FEATURE_WAKEUP,
                                     .estimated_num_eps = (size_t)link->n_peers,
                                     .name = "mpizero"};
    ucp_context_attr_t found = {.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES};
    const ucp_worker_params_t serial = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                        .thread_mode = UCS_THREAD_MODE_SERIALIZED};
    ucp_config_t *config = NULL;
    bool only_tcp = false;
    mz_status status = mz_ucx_only_tcp(&only_tcp);
    if (!status)
        status = mz_ucx_check(ucp_config_read(NULL, NULL, &config), "ucp_config_read");
    if (status)
        return status;
    /* A rendezvous' handshake would queue on the link behind the data of the pieces before. Networks that copy by
     * themselves are worth it; over TCP pieces go at once. */
    if (only_tcp && !getenv("UCX_RNDV_THRESH"))
        ucp_config_modify(config, "RNDV_THRESH", "inf");
    /* A GPU's memory is registered as it is given. UCX would take the whole allocation that it lies in, which it
     * finds only where it saw that being made; no AMD GPU's is ever given. */
    if (!getenv("UCX_MEMTYPE_REG_WHOLE_ALLOC_TYPES"))
        ucp_config_modify(config, "MEMTYPE_REG_WHOLE_ALLOC_TYPES", "rocm");
    status = mz_ucx_check(ucp_init(&parameters, config, &link->context), "ucp_init");
    ucp_config_release(config);
    if (!status)
        status = mz_ucx_check(ucp_context_query(link->context, &found), "ucp_context_query");
    choose_reach(link, only_tcp, found.memory_types);
    if (!status)
        status = mz_ucx_check(ucp_worker_create(link->context, &serial, &link->worker), "ucp_worker_create");
    if (!status)
        status = mz_ucx_check(ucp_worker_get_efd(link->worker, &link->event_fd), "ucp_worker_get_efd");
    if (!status && (link->stop_fd = eventfd(0, EFD_CLOEXEC)) < 0)
        status = mz_fail_errno(MZ_ERR_MEMORY, "eventfd");
    return status;
}

static void peer_broken(void *arg, ucp_ep_h endpoint, ucs_status_t status)
{
    mz_ucx_peer *peer = arg;
    (void)endpoint;
    if (peer->broken == UCS_OK)
        peer->broken = status;
}

static mz_status open_endpoint(mz_ucx_link *link, int to, const void *address)
{
    const ucp_ep_params_t p = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
                                             UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER,
                               .address = address,
                               .err_mode = UCP_ERR_HANDLING_MODE_PEER,
                               .err_handler = {.cb = peer_broken, .arg = &link->peers[to]}};
    return mz_ucx_check(ucp_ep_create(link->worker, &p, &link->peers[to].endpoint), "ucp_ep_create");
}

/* Everybody's worker address: addresses is [sum of lengths], *offsets [n_peers + 1]. */
static mz_status exchange_addresses(mz_ucx_link *link, MPI_Comm rail, int *offsets, char **addresses)
{
    ucp_address_t *mine = NULL;
    size_t bytes = 0;
    int *lengths = mz_calloc((size_t)link->n_peers, sizeof *lengths);
    mz_status status = lengths ? MZ_OK : MZ_ERR_MEMORY;
    if (!status)
        status = mz_ucx_check(ucp_worker_get_address(link->worker, &mine, &bytes), "ucp_worker_get_address");
    status = mz_mpi_agree(rail, status, "connecting over UCX");
    int length = (int)bytes;
    if (!status)
        status = mz_mpi_check(MPI_Allgather(&length, 1, MPI_INT, lengths, 1, MPI_INT, rail), "MPI_Allgather");
    for (int r = 0; r < link->n_peers && !status; r++)
        offsets[r + 1] = offsets[r] + lengths[r];
    if (!status && !(*addresses = mz_alloc((size_t)offsets[link->n_peers])))
        status = MZ_ERR_MEMORY;
    status = mz_mpi_agree(rail, status, "connecting over UCX");
    if (!status)
        status = mz_mpi_check(MPI_Allgatherv(mine, length, MPI_BYTE, *addresses, lengths, offsets, MPI_BYTE, rail),
                              "MPI_Allgatherv");
    if (mine)
        ucp_worker_release_address(link->worker, mine);
    mz_free(lengths);
    return status;
}

/* A message to and from every peer; they may be slow to come to life, but not for ever. */
static mz_status greet(mz_ucx_link *link)
{
    mz_ucx_message *messages = link->hellos;
    double begin = mz_clock_seconds();
    int n = 2 * link->n_peers;
    mz_ucx_link_enter(link);
    for (int r = 0; r < link->n_peers; r++) {
        if (r == link->me)
            continue;
        mz_ucx_recv(link, MZ_UCX_HELLO, r, NULL, 0, &messages[2 * r]);
        mz_ucx_send(link, MZ_UCX_HELLO, r, NULL, 0, &messages[2 * r + 1]);
    }
    mz_status status = MZ_OK;
    for (int i = 0; i < n && !status; i++) {
        const mz_ucx_peer *peer = &link->peers[i / 2];
        while (messages[i].open && !peer->broken && mz_clock_seconds() - begin < connect_seconds)
            mz_ucx_link_turn(link, mz_clock_seconds());
        ucs_status_t bad = messages[i].open ? UCS_ERR_TIMED_OUT : messages[i].status;
        bad = peer->broken ? peer->broken : bad;
        if (bad)
            status = mz_ucx_check(bad, "connecting the ranks over UCX");
    }
    for (int i = 0; i < n; i += 2)
        mz_ucx_cancel(link, &messages[i]);
    mz_ucx_link_leave(link);
    return status;
}

/* All ranks of the rail go the same way through this. */
static mz_status connect_peers(mz_ucx_link *link, MPI_Comm rail)
{
    char *addresses = NULL;
    size_t n = (size_t)link->n_peers;
    int *offsets = mz_calloc(n + 1, sizeof *offsets);
    link->hellos = mz_calloc(2 * n, sizeof *link->hellos);
    mz_status status = offsets && link->hellos ? MZ_OK : MZ_ERR_MEMORY;
    status = mz_mpi_agree(rail, status, "connecting over UCX");
    if (!status)
        status = exchange_addresses(link, rail, offsets, &addresses);
    for (int r = 0; r < link->n_peers && !status; r++)
        if (r != link->me)
            status = open_endpoint(link, r, addresses + offsets[r]);
    if (!status)
        status = start_thread(link);
    status = mz_mpi_agree(rail, status, "connecting over UCX");
    if (!status)
        status = greet(link);
    status = mz_mpi_agree(rail, status, "connecting over UCX");
    mz_free(addresses);
    mz_free(offsets);
    return status;
}

mz_status mz_ucx_link_open(MPI_Comm group, int color, const mz_board *board, bool spin, mz_ucx_link **out)
{
    MPI_Comm rail = MPI_COMM_NULL;
    mz_ucx_link *link = mz_calloc(1, sizeof *link);
    mz_status status = mz_mpi_agree(group, link ? MZ_OK : MZ_ERR_MEMORY, "connecting over UCX");
    if (!status)
        status = mz_mpi_check(MPI_Comm_split(group, color, 0, &rail), "MPI_Comm_split");
    if (status) {
        mz_free(link);
        return status;
    }
    link->event_fd = link->stop_fd = -1;
    link->spin = spin;
    link->board = board;
    pthread_mutex_init(&link->lock, NULL);
    MPI_Comm_set_errhandler(rail, MPI_ERRORS_RETURN);
    MPI_Comm_rank(rail, &link->me);
    MPI_Comm_size(rail, &link->n_peers);
    link->peers = mz_calloc((size_t)link->n_peers, sizeof *link->peers);
    link->replies = mz_calloc((size_t)link->n_peers, sizeof *link->replies);
    status = link->peers && link->replies ? open_worker(link) : MZ_ERR_MEMORY;
    status = mz_mpi_agree(rail, status, "connecting over UCX");
    if (!status)
        status = connect_peers(link, rail);
    MPI_Comm_free(&rail);
    if (status) {
        mz_ucx_link_close(link);
        return status;
    }
    mz_ucx_link_enter(link);
    mz_ucx_link_listen(link);
    mz_ucx_link_leave(link);
    *out = link;
    return MZ_OK;
}

mz_status mz_ucx_link_register(mz_ucx_link *link, const mz_wire_memory *memory)
{
    mz_ucx_region *region = &link->region;
    const ucs_memory_type_t type = memory->bind ? UCS_MEMORY_TYPE_CUDA : UCS_MEMORY_TYPE_HOST;
    const ucp_mem_map_params_t p = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                                                  UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE,
                                    .address = memory->memory,
                                    .length = memory->bytes,
                                    .memory_type = type};
    if (memory->bind && !link->knows_gpus)
        return mz_fail(
            MZ_ERR_UNSUPPORTED,
            "MPIZERO_GPU_DIRECT: UCX %s finds no CUDA here: unset it, or see what UCX_TLS allows and what "
            "`ucx_info -d` says of cuda_copy",
            ucp_get_version_string());
    mz_ucx_link_enter(link);
    mz_status status = mz_ucx_check(ucp_mem_map(link->context, &p, &region->handle), "ucp_mem_map");
    region->of = *memory;
    region->type = type;
    mz_ucx_link_leave(link);
    return status;
}

static void close_endpoints(mz_ucx_link *link)
{
    const ucp_request_param_t now = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = UCP_EP_CLOSE_FLAG_FORCE};
    for (int r = 0; r < link->n_peers; r++) {
        if (!link->peers[r].endpoint)
            continue;
        ucs_status_ptr_t closing = ucp_ep_close_nbx(link->peers[r].endpoint, &now);
        if (!UCS_PTR_IS_PTR(closing))
            continue;
        while (ucp_request_check_status(closing) == UCS_INPROGRESS)
            ucp_worker_progress(link->worker);
        ucp_request_free(closing);
    }
}

void mz_ucx_link_close(mz_ucx_link *link)
{
    if (!link)
        return;
    stop_thread(link);
    if (link->worker)
        mz_ucx_discard_all(link);
    if (link->peers)
        close_endpoints(link);
    if (link->region.handle)
        ucp_mem_unmap(link->context, link->region.handle);
    if (link->worker)
        ucp_worker_destroy(link->worker);
    if (link->context)
        ucp_cleanup(link->context);
    if (link->stop_fd >= 0)
        close(link->stop_fd);
    pthread_mutex_destroy(&link->lock);
    mz_free(link->peers);
    mz_free(link->replies);
    mz_free(link->hellos);
    mz_free(link);
}
