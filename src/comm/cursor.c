#include "comm/cursor.h"

int64_t mz_segments_count(const mz_segment *segments, int n)
{
    int64_t count = 0;
    for (int i = 0; i < n; i++)
        count += segments[i].count;
    return count;
}

bool mz_cursor_next(mz_cursor *cursor, int64_t limit, mz_piece *piece)
{
    while (cursor->index < cursor->n && cursor->offset == cursor->segments[cursor->index].count) {
        cursor->index++;
        cursor->offset = 0;
    }
    if (cursor->index == cursor->n || limit <= 0)
        return false;
    const mz_segment *segment = &cursor->segments[cursor->index];
    int64_t left = segment->count - cursor->offset;
    *piece = (mz_piece){segment, cursor->offset, left < limit ? left : limit};
    cursor->offset += piece->count;
    return true;
}
