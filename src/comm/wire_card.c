#include "comm/wire_card.h"

#include <inttypes.h>
#include <stdio.h>

#include "core/error.h"

mz_status mz_wire_note_words(int rank, mz_status status, const char *reason, char *text)
{
    bool is_about_ranks = status == MZ_ERR_TIMEOUT || status == MZ_ERR_MISMATCH || status == MZ_ERR_PEER;
    size_t bytes = sizeof((mz_wire_note *)NULL)->message;
    if (is_about_ranks)
        snprintf(text, bytes, "%s", reason);
    else
        snprintf(text, bytes, "rank %d failed: %.900s", rank, reason);
    return is_about_ranks ? status : MZ_ERR_PEER;
}

void mz_wire_card_fill(mz_wire_card *card, const mz_op_info *op)
{
    card->sequence = op->sequence;
    card->signature = op->signature;
    card->count = op->count;
    snprintf(card->kind, sizeof card->kind, "%s", op->kind);
    snprintf(card->label, sizeof card->label, "%s", op->label);
}

mz_status mz_wire_card_compare(const mz_wire_card *card, const mz_op_info *op, const mz_members *members, int from)
{
    if (card->sequence == op->sequence && card->signature == op->signature)
        return MZ_OK;
    return mz_fail(MZ_ERR_MISMATCH,
                   "collective #%" PRIu64 ": rank %d is at %s of %" PRId64
                   " elements (%s), rank %d at %s of %" PRId64
                   " elements (%s): all ranks must issue the same collectives in the same order",
                   op->sequence, members->ranks[members->rank], op->kind, op->count, op->label,
                   members->ranks[from], card->kind, card->count, card->label);
}

mz_status mz_wire_late(const mz_op_info *op, const mz_members *members, const int *late, int n, bool are_there,
                       const mz_wait *wait)
{
    char names[256] = "", reason[200] = "";
    size_t used = 0;
    int n_late = 0;
    for (int i = 0; i < n; i++) {
        if (i && late[i] == late[i - 1])
            continue;
        if (n_late++ < 16)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%d", n_late > 1 ? ", " : "",
                                     members->ranks[late[i]]);
    }
    if (wait) {
        int begin = snprintf(reason, sizeof reason, "; rank %d ", members->ranks[late[0]]);
        mz_wait_describe(wait, reason + begin, sizeof reason - (size_t)begin);
    }
    return mz_fail(MZ_ERR_TIMEOUT, "%s #%" PRIu64 " (%s): rank%s %s%s %s within %g s%s", op->kind, op->sequence,
                   op->label, n_late > 1 ? "s" : "", names, n_late > 16 ? ", ..." : "",
                   are_there ? "arrived, but got no further" : "did not arrive", op->seconds, reason);
}

mz_status mz_wire_deaf(const mz_op_info *op, const mz_members *members, int peer)
{
    return mz_fail(MZ_ERR_TIMEOUT, "%s #%" PRIu64 " (%s): rank %d takes no messages for %g s", op->kind,
                   op->sequence, op->label, members->ranks[peer], op->seconds);
}
