/* What was measured on this machine and is to stay as it is: a line of text per choice, in a file of the user's
 * cache, $MPIZERO_CACHE or $XDG_CACHE_HOME/mpizero or ~/.cache/mpizero. The first line with a key counts, so that
 * processes which measure the same at the same time end with the same choice. A cache that cannot be read or
 * written is none: nothing here fails. */
#ifndef MZ_DEVICE_CUDA_CHOICES_H
#define MZ_DEVICE_CUDA_CHOICES_H

#include <stdbool.h>
#include <stddef.h>

/* The value of `key` in the file `name`, of up to `bytes` with its 0. Characters of the name that no file should
 * have become '-'. Keys and values are words. */
bool mz_choice_get(const char *name, const char *key, char *value, size_t bytes);

/* Appends the choice; *value becomes the one that counts. */
void mz_choice_put(const char *name, const char *key, char *value, size_t bytes);

#endif
