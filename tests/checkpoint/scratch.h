/* What the checkpoint tests share: a temporary folder, files with given bytes, places of fixtures. */
#ifndef MZ_TESTS_SCRATCH_H
#define MZ_TESTS_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>

/* A new folder under $TMPDIR (or /tmp); owned by the caller, to be given to scratch_remove. Ends the test on
 * failure. */
char *scratch_create(const char *name);
void scratch_remove(char *folder);
/* FOLDER/NAME in one of a few static buffers. */
const char *scratch_path(const char *folder, const char *name);
void scratch_write(const char *path, const void *data, size_t bytes);
/* Runs a python program (found as $PYTHON or python3) with two arguments. 0: it agreed; 77: a module that it needs
 * is missing; else it failed. */
int scratch_python(const char *program, const char *first, const char *second);
/* $srcdir/../shared/data/NAME, NULL when it is not there. Static buffer. */
const char *shared_data(const char *name);

/* Ends the test with the place and the library's last error. Serves programs that run on several ranks. */
#define CHECK(condition)                                                                                           \
    do {                                                                                                           \
        if (!(condition))                                                                                          \
            check_failed(__FILE__, __LINE__, #condition);                                                          \
    } while (0)
void check_failed(const char *file, int line, const char *condition);

#endif
