/* The known name that somebody probably meant. */
#ifndef MZ_CORE_NEAREST_H
#define MZ_CORE_NEAREST_H

#include <stddef.h>

/* Edit distance (insert, delete, replace, swap of neighbours), letter case ignored; names longer than 127
 * characters are compared by their first 127. Wagner and Fischer 1974; Damerau 1964. */
int mz_edit_distance(const char *a, const char *b);

/* Keeps the best of several candidates. */
typedef struct mz_nearest {
    const char *word; /* asked for */
    const char *best; /* borrowed; NULL: none near enough */
    int distance;
} mz_nearest;
/* Candidates farther than a third of the word's length (at least 2 edits) do not count. */
void mz_nearest_init(mz_nearest *nearest, const char *word);
void mz_nearest_offer(mz_nearest *nearest, const char *candidate);

#endif
