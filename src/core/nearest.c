#include "core/nearest.h"

#include <ctype.h>
#include <string.h>

enum { LONGEST = 127 };

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

int mz_edit_distance(const char *a, const char *b)
{
    int rows[3][LONGEST + 1];
    int n_a = (int)strnlen(a, LONGEST), n_b = (int)strnlen(b, LONGEST);
    int *before = rows[0], *previous = rows[1], *current = rows[2];
    for (int j = 0; j <= n_b; j++)
        previous[j] = j;
    for (int i = 1; i <= n_a; i++) {
        current[0] = i;
        int ca = tolower((unsigned char)a[i - 1]);
        for (int j = 1; j <= n_b; j++) {
            int cb = tolower((unsigned char)b[j - 1]);
            int best = previous[j - 1] + (ca != cb);
            best = smaller(best, smaller(previous[j], current[j - 1]) + 1);
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) && cb == tolower((unsigned char)a[i - 2]))
                best = smaller(best, before[j - 2] + 1);
            current[j] = best;
        }
        int *oldest = before;
        before = previous;
        previous = current;
        current = oldest;
    }
    return previous[n_b];
}

void mz_nearest_init(mz_nearest *nearest, const char *word)
{
    int third = (int)strlen(word) / 3;
    *nearest = (mz_nearest){.word = word, .best = NULL, .distance = (third > 2 ? third : 2) + 1};
}

void mz_nearest_offer(mz_nearest *nearest, const char *candidate)
{
    int distance = mz_edit_distance(nearest->word, candidate);
    if (distance < nearest->distance) {
        nearest->distance = distance;
        nearest->best = candidate;
    }
}
