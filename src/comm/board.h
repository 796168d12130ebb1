/* Who waits for whom. When a collective is overdue, the rank that is missing may itself only be waiting for another
 * one; the complaint is then left to whoever waits for somebody that waits for nobody. So a rank that has waited
 * for a moment writes down for whom, and writes it again as long as it does: one that is stopped does not, and what
 * it wrote grows old. Ranks of the same node read it (shared memory); those of other nodes ask over the wire. */
#ifndef MZ_COMM_BOARD_H
#define MZ_COMM_BOARD_H

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

#include "mpizero/status.h"

struct mz_op_info;

/* A rank is seen not to wait for so long before it is blamed: it may be on its way from one wait to the next. */
#define MZ_BOARD_DOUBT_SECONDS 0.5
/* What was written longer ago, or a question that is not answered in this time, is that of a rank that is stopped
 * or cannot be reached. */
#define MZ_BOARD_FRESH_SECONDS 2.0
/* Ranks that all wait for others are excused for so long behind the deadline. */
#define MZ_BOARD_EXCUSE_SECONDS 5.0

typedef struct mz_board mz_board;

/* For whom a rank waits, and where. */
typedef struct mz_wait {
    int32_t rank; /* in the world; -1: it waits for nobody */
    uint64_t sequence;
    char kind[24], label[72];
} mz_wait;

/* Collective over `group`, the ranks of a node: `ranks` are their numbers in the world, copied. */
mz_status mz_board_create(MPI_Comm group, const int *ranks, int rank, int size, mz_board **board);
void mz_board_destroy(mz_board *board);

/* One wait of a thread, {0} when it begins. */
typedef struct mz_waiter {
    int place; /* on the board, plus one; 0: none */
    double since, told;
} mz_waiter;

/* Says at time `now` that this thread waits for world rank `rank`; comes with every turn of the wait's loop, and is
 * cheap as long as there is nothing new to write. board may be NULL, here and below. */
void mz_board_wait(mz_board *board, mz_waiter *waiter, const struct mz_op_info *op, int rank, double now);
/* The wait is over. */
void mz_board_go_on(mz_board *board, mz_waiter *waiter);

/* What a world rank waits for; false: for nobody, or it is not on this node. */
bool mz_board_read(const mz_board *board, int rank, mz_wait *wait);
/* The same of this rank, as the answer to a question. */
void mz_board_read_own(const mz_board *board, mz_wait *wait);
/* For messages: "waits for rank 4 at all_gather #12 (unit h.3)". */
void mz_wait_describe(const mz_wait *wait, char *text, size_t bytes);

/* Whoever waits calls all of these ten times a second, so that a wire which nobody drives otherwise can answer.
 * Both are called by the thread that makes and ends comms. */
typedef struct mz_board_listener {
    struct mz_board_listener *next;
    void (*listen)(void *context);
    void *context;
} mz_board_listener;
void mz_board_add(mz_board *board, mz_board_listener *listener);
void mz_board_remove(mz_board *board, mz_board_listener *listener);

/* One peer on another node that keeps this rank waiting: what it is asked, and what is known of it. */
typedef struct mz_inquiry {
    uint64_t sequence; /* of the collective that is overdue, plus one */
    uint32_t number;   /* of the newest question, which the answer repeats */
    double asked;      /* when; 0: no question is open */
    double answered;   /* when it last said what it waits for; 0: never */
    double doubted;    /* since when it has said that it waits for nobody; 0: it does not */
    mz_wait wait;      /* its last answer */
} mz_inquiry;

typedef struct mz_question {
    int32_t from; /* place among the wire's peers */
    uint32_t number;
} mz_question;

typedef struct mz_answer {
    uint32_t number;
    mz_wait wait;
} mz_answer;

typedef enum mz_opinion {
    MZ_PATIENCE, /* it may only be waiting, or has not answered yet */
    MZ_ASK,      /* a question with inquiry->number is to be sent, after which the opinion is the one above */
    MZ_BLAME     /* it waits for nobody, or does not answer */
} mz_opinion;
mz_opinion mz_inquiry_go_on(mz_inquiry *inquiry, uint64_t sequence, double now);
void mz_inquiry_answer(mz_inquiry *inquiry, const mz_answer *answer, double now);

#endif
