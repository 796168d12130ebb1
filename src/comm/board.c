#include "comm/board.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "comm/mpi_check.h"
#include "comm/shm_segment.h"
#include "comm/transport.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/memory.h"

/* A shorter wait is not worth writing down; and so often a longer one is written again. */
static const double beat_seconds = 0.1;
static const double ask_again_seconds = 0.25;

enum { N_PLACES = 4 }; /* threads of a rank that wait at the same time */

/* One thread's wait. Others may read it while it changes: then its text is of two waits, for people to read. */
typedef struct place {
    _Alignas(64) _Atomic uint64_t beat; /* nanoseconds of the clock when it was written; 0: nobody's */
    _Atomic int32_t rank;
    uint64_t sequence;
    char kind[24], label[72];
} place;

struct mz_board {
    mz_shm_segment segment;
    place *places; /* [size][N_PLACES] in shared memory, of which a lone rank needs none */
    int *ranks;    /* [size] */
    int rank, size;
    pthread_mutex_t lock; /* of what follows */
    mz_board_listener *listeners;
};

static size_t whole_pages(size_t bytes)
{
    return (bytes + 4095) / 4096 * 4096;
}

mz_status mz_board_create(MPI_Comm group, const int *ranks, int rank, int size, mz_board **out)
{
    size_t bytes = whole_pages((size_t)size * N_PLACES * sizeof(place));
    mz_board *board = mz_calloc(1, sizeof *board);
    mz_status status = board ? MZ_OK : MZ_ERR_MEMORY;
    if (board) {
        pthread_mutex_init(&board->lock, NULL);
        board->segment.fd = -1;
        board->rank = rank;
        board->size = size;
        board->ranks = mz_calloc((size_t)size, sizeof *board->ranks);
        if (size == 1)
            board->places = mz_alloc_aligned(bytes);
        if (!board->ranks || (size == 1 && !board->places))
            status = MZ_ERR_MEMORY;
    }
    status = mz_mpi_agree(group, status, "finding the topology");
    if (!status && size == 1)
        memset(board->places, 0, bytes);
    else if (!status)
        status = mz_shm_segment_open(group, bytes, whole_pages(1), &board->segment);
    if (status) {
        mz_board_destroy(board);
        return status;
    }
    if (size > 1)
        board->places = (place *)(void *)board->segment.memory;
    memcpy(board->ranks, ranks, (size_t)size * sizeof *ranks);
    *out = board;
    return MZ_OK;
}

void mz_board_destroy(mz_board *board)
{
    if (!board)
        return;
    if (board->size == 1)
        mz_free(board->places);
    mz_shm_segment_close(&board->segment);
    pthread_mutex_destroy(&board->lock);
    mz_free(board->ranks);
    mz_free(board);
}

static uint64_t in_ns(double seconds)
{
    return (uint64_t)(seconds * 1e9);
}

static place *places_of(const mz_board *board, int local)
{
    return &board->places[local * N_PLACES];
}

static void take_place(mz_board *board, mz_waiter *waiter, double now)
{
    for (int i = 0; i < N_PLACES && !waiter->place; i++) {
        uint64_t nobody = 0;
        if (atomic_compare_exchange_strong(&places_of(board, board->rank)[i].beat, &nobody, in_ns(now)))
            waiter->place = i + 1;
    }
}

static void call_listeners(mz_board *board)
{
    pthread_mutex_lock(&board->lock);
    for (mz_board_listener *l = board->listeners; l; l = l->next)
        l->listen(l->context);
    pthread_mutex_unlock(&board->lock);
}

void mz_board_wait(mz_board *board, mz_waiter *waiter, const mz_op_info *op, int rank, double now)
{
    if (waiter->since == 0)
        waiter->since = waiter->told = now;
    if (!board || now - waiter->told < beat_seconds)
        return;
    waiter->told = now;
    if (!waiter->place)
        take_place(board, waiter, now);
    if (waiter->place) {
        place *p = &places_of(board, board->rank)[waiter->place - 1];
        p->sequence = op->sequence;
        snprintf(p->kind, sizeof p->kind, "%s", op->kind);
        snprintf(p->label, sizeof p->label, "%s", op->label);
        atomic_store(&p->rank, rank);
        atomic_store(&p->beat, in_ns(now));
    }
    call_listeners(board);
}

void mz_board_go_on(mz_board *board, mz_waiter *waiter)
{
    if (waiter->place)
        atomic_store(&places_of(board, board->rank)[waiter->place - 1].beat, 0);
    *waiter = (mz_waiter){0};
}

static bool read_local(const mz_board *board, int local, mz_wait *wait)
{
    const place *places = places_of(board, local);
    uint64_t now = in_ns(mz_clock_seconds());
    for (int i = 0; i < N_PLACES; i++) {
        const place *p = &places[i];
        uint64_t beat = atomic_load(&p->beat);
        if (!beat || now > beat + in_ns(MZ_BOARD_FRESH_SECONDS))
            continue;
        *wait = (mz_wait){.rank = atomic_load(&p->rank), .sequence = p->sequence};
        memcpy(wait->kind, p->kind, sizeof wait->kind);
        memcpy(wait->label, p->label, sizeof wait->label);
        wait->kind[sizeof wait->kind - 1] = wait->label[sizeof wait->label - 1] = '\0';
        return true;
    }
    *wait = (mz_wait){.rank = -1};
    return false;
}

bool mz_board_read(const mz_board *board, int rank, mz_wait *wait)
{
    for (int i = 0; board && i < board->size; i++)
        if (board->ranks[i] == rank)
            return read_local(board, i, wait);
    *wait = (mz_wait){.rank = -1};
    return false;
}

void mz_board_read_own(const mz_board *board, mz_wait *wait)
{
    *wait = (mz_wait){.rank = -1};
    if (board)
        read_local(board, board->rank, wait);
}

void mz_wait_describe(const mz_wait *wait, char *text, size_t bytes)
{
    snprintf(text, bytes, "waits for rank %d at %s #%" PRIu64 " (%s)", (int)wait->rank, wait->kind, wait->sequence,
             wait->label);
}

void mz_board_add(mz_board *board, mz_board_listener *listener)
{
    if (!board)
        return;
    pthread_mutex_lock(&board->lock);
    listener->next = board->listeners;
    board->listeners = listener;
    pthread_mutex_unlock(&board->lock);
}

void mz_board_remove(mz_board *board, mz_board_listener *listener)
{
    if (!board)
        return;
    pthread_mutex_lock(&board->lock);
    mz_board_listener **link = &board->listeners;
    while (*link && *link != listener)
        link = &(*link)->next;
    if (*link)
        *link = listener->next;
    pthread_mutex_unlock(&board->lock);
}

mz_opinion mz_inquiry_go_on(mz_inquiry *q, uint64_t sequence, double now)
{
    if (q->sequence != sequence + 1)
        *q = (mz_inquiry){.sequence = sequence + 1, .number = q->number};
    if (q->asked > 0)
        return now - q->asked > MZ_BOARD_FRESH_SECONDS ? MZ_BLAME : MZ_PATIENCE;
    if (q->doubted > 0 && q->answered - q->doubted > MZ_BOARD_DOUBT_SECONDS)
        return MZ_BLAME;
    if (q->answered > 0 && now - q->answered < ask_again_seconds)
        return MZ_PATIENCE;
    q->asked = now;
    q->number++;
    return MZ_ASK;
}

void mz_inquiry_answer(mz_inquiry *q, const mz_answer *answer, double now)
{
    if (answer->number != q->number || q->asked == 0)
        return; /* to an older question */
    q->asked = 0;
    q->answered = now;
    q->wait = answer->wait;
    if (answer->wait.rank >= 0)
        q->doubted = 0;
    else if (q->doubted == 0)
        q->doubted = now;
}
