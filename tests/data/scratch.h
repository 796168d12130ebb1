/* A temporary folder for a test, and small helpers around it. */
#ifndef TESTS_DATA_SCRATCH_H
#define TESTS_DATA_SCRATCH_H

#include <stddef.h>

/* cmocka's group fixtures: make the folder, remove it with all it holds. */
int scratch_make(void **state);
int scratch_remove(void **state);

/* The folder; a path in it, owned by the caller. */
const char *scratch_folder(void);
char *scratch_path(const char *name);

/* Writes bytes to a file of that name in the folder; returns its path, owned by the caller. */
char *scratch_write(const char *name, const void *data, size_t bytes);
char *scratch_write_text(const char *name, const char *text);

/* "$srcdir/NAME", owned by the caller. */
char *source_path(const char *name);

#endif
