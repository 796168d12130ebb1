/* What the wire transports tell each other beside data: who is in which collective, and that one has failed. */
#ifndef MZ_COMM_WIRE_CARD_H
#define MZ_COMM_WIRE_CARD_H

#include "comm/transport.h"

/* Goes ahead of a collective's first piece to a peer. */
typedef struct mz_wire_card {
    uint64_t sequence, signature;
    int64_t count;
    char kind[24], label[72];
} mz_wire_card;

typedef struct mz_wire_note {
    int32_t status;
    char message[1024];
} mz_wire_note;

/* What the other ranks are to fail with when rank `rank` failed with status: a failure that is about ranks as it
 * is, another as its rank's. text: as long as a note's. */
mz_status mz_wire_note_words(int rank, mz_status status, const char *reason, char *text);

void mz_wire_card_fill(mz_wire_card *card, const mz_op_info *op);
/* MZ_ERR_MISMATCH when the peer `from` (a member) is in another collective than this rank. */
mz_status mz_wire_card_compare(const mz_wire_card *card, const mz_op_info *op, const mz_members *members, int from);

/* MZ_ERR_TIMEOUT with the names of the members that kept this rank waiting. The list may name one several times in
 * a row. are_there: they came to the collective, but did not finish it. wait: what the first one waits for itself,
 * for which it was excused too long; or NULL. */
mz_status mz_wire_late(const mz_op_info *op, const mz_members *members, const int *late, int n, bool are_there,
                       const mz_wait *wait);
/* MZ_ERR_TIMEOUT of a member that does not even take messages. */
mz_status mz_wire_deaf(const mz_op_info *op, const mz_members *members, int peer);

#endif
