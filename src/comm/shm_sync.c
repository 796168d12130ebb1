#include "comm/shm_sync.h"

#include <inttypes.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"

/* A sleeper looks this often whether the one it waits for still lives. */
static const double nap_seconds = 0.1;
static const int n_active_looks = 1000;
static const double linger_seconds = 200e-6;

enum { MOST_NAMES = 16 }; /* in a message */

static size_t failure_bytes(void)
{
    return (sizeof(mz_shm_failure) + 63) / 64 * 64;
}

size_t mz_shm_sync_bytes(int size)
{
    return failure_bytes() + (size_t)size * sizeof(mz_shm_rank);
}

void mz_shm_sync_attach(mz_shm_sync *sync, void *memory)
{
    sync->failure = memory;
    sync->ranks = (mz_shm_rank *)((char *)memory + failure_bytes());
    sync->ranks[sync->members.rank].pid = (int32_t)getpid();
}

static void futex_sleep(_Atomic uint32_t *word, uint32_t value, double seconds)
{
    const struct timespec limit = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    syscall(SYS_futex, word, FUTEX_WAIT, value, &limit, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool reached(uint32_t value, uint32_t steps)
{
    return (int32_t)(value - steps) >= 0;
}

void mz_shm_sync_enter(mz_shm_sync *sync, const mz_op_info *op)
{
    mz_shm_rank *self = &sync->ranks[sync->members.rank];
    mz_shm_card *card = &self->cards[op->sequence % MZ_SHM_CARDS];
    card->sequence = op->sequence;
    card->signature = op->signature;
    card->count = op->count;
    snprintf(card->kind, sizeof card->kind, "%s", op->kind);
    snprintf(card->label, sizeof card->label, "%s", op->label);
    atomic_store_explicit(&self->entered, op->sequence + 1, memory_order_release);
}

void mz_shm_sync_post(mz_shm_sync *sync, mz_shm_word word, uint32_t steps)
{
    mz_shm_rank *self = &sync->ranks[sync->members.rank];
    _Atomic uint32_t *value = word == MZ_SHM_READY ? &self->ready : &self->done;
    _Atomic uint32_t *sleepers = word == MZ_SHM_READY ? &self->ready_sleepers : &self->done_sleepers;
    /* Sequentially consistent, as is the sleeper's side: either it sees the new value or we see it. */
    atomic_store(value, steps);
    if (atomic_load(sleepers))
        futex_wake_all(value);
}

void mz_shm_sync_abort(mz_shm_sync *sync, mz_status status, const char *message)
{
    uint32_t none = 0;
    if (atomic_compare_exchange_strong(&sync->failure->state, &none, 1)) {
        sync->failure->status = (int32_t)status;
        snprintf(sync->failure->message, sizeof sync->failure->message, "%s", message);
        atomic_store(&sync->failure->state, 2);
    }
    for (int i = 0; i < sync->members.size; i++) {
        futex_wake_all(&sync->ranks[i].ready);
        futex_wake_all(&sync->ranks[i].done);
    }
}

static mz_status fail_here(mz_shm_sync *sync, mz_status status)
{
    mz_shm_sync_abort(sync, status, mz_last_error());
    return status;
}

mz_status mz_shm_sync_failure(const mz_shm_sync *sync)
{
    if (atomic_load_explicit(&sync->failure->state, memory_order_acquire) != 2)
        return MZ_OK;
    return mz_fail_adopt((mz_status)sync->failure->status, sync->failure->message);
}

bool mz_shm_sync_entered(const mz_shm_sync *sync, int member, const mz_op_info *op)
{
    return atomic_load_explicit(&sync->ranks[member].entered, memory_order_acquire) > op->sequence;
}

/* Where a member was last seen: "all_gather #12 (unit h.3)". Its card may be changing: only for people to read. */
static void describe_place(const mz_shm_sync *sync, int member, char *text, size_t bytes)
{
    const mz_shm_rank *rank = &sync->ranks[member];
    uint64_t entered = atomic_load(&rank->entered);
    const mz_shm_card *card = &rank->cards[(entered - 1) % MZ_SHM_CARDS];
    if (entered)
        snprintf(text, bytes, "%s #%" PRIu64 " (%.*s)", card->kind, card->sequence, (int)sizeof card->label - 1,
                 card->label);
    else
        snprintf(text, bytes, "nowhere yet");
}

/* Does the member wait for another rank itself? */
static bool is_excused(const mz_shm_sync *sync, int member, mz_wait *wait)
{
    return mz_board_read(sync->members.board, sync->members.ranks[member], wait);
}

/* Names `missing`, members that are not in the collective yet, or, when there are none, the one that stays behind
 * inside it. wait: what the first one waits for, or NULL. */
static mz_status complain(mz_shm_sync *sync, const mz_op_info *op, const int *missing, int n_missing, int behind,
                          const mz_wait *wait)
{
    char names[256] = "", place[160], reason[200] = "";
    size_t used = 0;
    int first = n_missing ? missing[0] : behind;
    for (int i = 0; i < n_missing && i < MOST_NAMES; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%d", i ? ", " : "",
                                 sync->members.ranks[missing[i]]);
    describe_place(sync, first, place, sizeof place);
    if (wait) {
        memcpy(reason, "; it ", sizeof "; it ");
        mz_wait_describe(wait, reason + strlen(reason), sizeof reason - strlen(reason));
    }
    if (n_missing)
        mz_fail(MZ_ERR_TIMEOUT,
                "%s #%" PRIu64 " (%s): rank%s %s%s did not arrive within %g s; rank %d was last at %s%s", op->kind,
                op->sequence, op->label, n_missing > 1 ? "s" : "", names, n_missing > MOST_NAMES ? ", ..." : "",
                op->seconds, sync->members.ranks[first], place, reason);
    else
        mz_fail(MZ_ERR_TIMEOUT, "%s #%" PRIu64 " (%s): rank %d is in it, but got no further within %g s%s",
                op->kind, op->sequence, op->label, sync->members.ranks[first], op->seconds, reason);
    return fail_here(sync, MZ_ERR_TIMEOUT);
}

mz_status mz_shm_sync_overdue(mz_shm_sync *sync, const mz_op_info *op, int waited_for, double overdue,
                              double *doubted)
{
    int missing[MOST_NAMES + 1], n_missing = 0, n_here = 0, n_excused = 0;
    bool too_long = overdue > MZ_BOARD_EXCUSE_SECONDS;
    mz_wait wait, first = {.rank = -1};
    for (int i = 0; i < sync->members.size; i++) {
        if (mz_shm_sync_entered(sync, i, op)) {
            n_here++;
            continue;
        }
        bool excused = is_excused(sync, i, &wait);
        if (excused && n_excused++ == 0)
            first = wait;
        if ((too_long || !excused) && n_missing <= MOST_NAMES)
            missing[n_missing++] = i;
    }
    bool all_here = n_here == sync->members.size, excused = all_here && is_excused(sync, waited_for, &first);
    if (!too_long && (all_here ? excused : n_missing == 0)) {
        *doubted = 0;
        return MZ_OK;
    }
    if (*doubted == 0)
        *doubted = overdue;
    if (!too_long && overdue - *doubted < MZ_BOARD_DOUBT_SECONDS)
        return MZ_OK;
    return complain(sync, op, missing, n_missing, waited_for, first.rank >= 0 && too_long ? &first : NULL);
}

mz_status mz_shm_sync_gone(mz_shm_sync *sync, const mz_op_info *op, int member)
{
    char place[160];
    describe_place(sync, member, place, sizeof place);
    mz_fail(MZ_ERR_PEER, "%s #%" PRIu64 " (%s): rank %d (process %d) has ended; it was last at %s", op->kind,
            op->sequence, op->label, sync->members.ranks[member], (int)sync->ranks[member].pid, place);
    return fail_here(sync, MZ_ERR_PEER);
}

mz_status mz_shm_sync_compare(mz_shm_sync *sync, const mz_op_info *op, int member)
{
    const mz_shm_card *card = &sync->ranks[member].cards[op->sequence % MZ_SHM_CARDS];
    sync->checked[member] = op->sequence + 1;
    if (card->sequence == op->sequence && card->signature == op->signature)
        return MZ_OK;
    mz_fail(MZ_ERR_MISMATCH,
            "collective #%" PRIu64 ": rank %d is at %s of %" PRId64 " elements (%s), rank %d at %s of %" PRId64
            " elements (%s): all ranks must issue the same collectives in the same order",
            op->sequence, sync->members.ranks[sync->members.rank], op->kind, op->count, op->label,
            sync->members.ranks[member], card->kind, card->count, card->label);
    return fail_here(sync, MZ_ERR_MISMATCH);
}

/* Sleeps until the word has reached `steps` or something is wrong. */
static mz_status sleep_until(mz_shm_sync *sync, const mz_op_info *op, int member, _Atomic uint32_t *word,
                             _Atomic uint32_t *sleepers, uint32_t steps)
{
    mz_waiter waiter = {0};
    mz_status status = MZ_OK;
    double doubted = 0;
    while (!status) {
        atomic_fetch_add(sleepers, 1);
        uint32_t value = atomic_load(word);
        if (!reached(value, steps) && atomic_load(&sync->failure->state) != 2)
            futex_sleep(word, value, nap_seconds);
        atomic_fetch_sub(sleepers, 1);
        if (reached(atomic_load(word), steps))
            break;
        double now = mz_clock_seconds();
        mz_board_wait(sync->members.board, &waiter, op, sync->members.ranks[member], now);
        status = mz_shm_sync_failure(sync);
        if (!status && now > op->deadline)
            status = mz_shm_sync_overdue(sync, op, member, now - op->deadline, &doubted);
        if (!status && !mz_shm_segment_alive(sync->segment, member) && !reached(atomic_load(word), steps))
            status = mz_shm_sync_gone(sync, op, member);
    }
    mz_board_go_on(sync->members.board, &waiter);
    return status;
}

/* Waits for a moment without sleeping: a wake-up costs tens of microseconds. First actively, then letting others
 * have the core that want it, such as this rank's own compute thread. */
static bool linger(const mz_shm_sync *sync, _Atomic uint32_t *word, uint32_t steps)
{
    for (int i = 0; i < (sync->spin ? n_active_looks : 0); i++) {
        relax();
        if (reached(atomic_load_explicit(word, memory_order_acquire), steps))
            return true;
    }
    for (double until = mz_clock_seconds() + linger_seconds; mz_clock_seconds() < until;) {
        sched_yield();
        if (reached(atomic_load_explicit(word, memory_order_acquire), steps))
            return true;
    }
    return false;
}

mz_status mz_shm_sync_wait(mz_shm_sync *sync, const mz_op_info *op, int member, mz_shm_word which, uint32_t steps)
{
    mz_shm_rank *rank = &sync->ranks[member];
    _Atomic uint32_t *word = which == MZ_SHM_READY ? &rank->ready : &rank->done;
    bool there = reached(atomic_load_explicit(word, memory_order_acquire), steps) || linger(sync, word, steps);
    mz_status status = mz_shm_sync_failure(sync); /* a late rank finds all data there, and the others gone */
    if (!status && !there)
        status = sleep_until(sync, op, member, word,
                             which == MZ_SHM_READY ? &rank->ready_sleepers : &rank->done_sleepers, steps);
    if (!status && which == MZ_SHM_READY && sync->checked[member] != op->sequence + 1)
        status = mz_shm_sync_compare(sync, op, member);
    return status;
}
