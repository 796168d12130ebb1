/* A walk over the segments of a collective as if they were one stretch of elements: rank r's block of that stretch
 * is the blocks of all segments one after the other. */
#ifndef MZ_COMM_CURSOR_H
#define MZ_COMM_CURSOR_H

#include "comm/comm.h"

typedef struct mz_cursor {
    const mz_segment *segments;
    int n, index;
    int64_t offset; /* within segments[index] */
} mz_cursor;

/* Elements `offset` .. offset + count of a segment's block. */
typedef struct mz_piece {
    const mz_segment *segment;
    int64_t offset, count;
} mz_piece;

int64_t mz_segments_count(const mz_segment *segments, int n);
/* The next piece, of at most `limit` elements of one segment. False at the end, or when limit is 0. */
bool mz_cursor_next(mz_cursor *cursor, int64_t limit, mz_piece *piece);

/* Addresses of a piece in the block of `rank`; in a buffer of one block, rank 0. */
static inline const char *mz_piece_send(const mz_piece *piece, int rank, size_t element)
{
    return (const char *)piece->segment->send +
           ((int64_t)rank * piece->segment->stride + piece->offset) * (int64_t)element;
}

static inline char *mz_piece_recv(const mz_piece *piece, int rank, size_t element)
{
    return (char *)piece->segment->recv +
           ((int64_t)rank * piece->segment->stride + piece->offset) * (int64_t)element;
}

#endif
