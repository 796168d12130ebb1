/* Questions about paths that cannot fail for lack of memory. */
#ifndef MZ_CHECKPOINT_PATHS_H
#define MZ_CHECKPOINT_PATHS_H

#include <stdbool.h>
#include <stddef.h>

/* Is there FOLDER/NAME? */
bool mz_exists_in(const char *folder, const char *name);
/* The first line of FOLDER/NAME, when it is shorter than `room`; false otherwise. */
bool mz_read_line_in(const char *folder, const char *name, char *line, size_t room);

#endif
