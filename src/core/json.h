/* JSON for people: DeepSpeed's files are read as hjson, so comments and trailing commas are legal, and
 * every complaint names the file, the line and the key. jansson holds the values. */
#ifndef MZ_CORE_JSON_H
#define MZ_CORE_JSON_H

#include <jansson.h>

#include "mpizero/status.h"

typedef struct mz_json {
    json_t *root; /* owned */
    char *name;   /* file name for messages, owned */
    char *text;   /* the source, owned; for line numbers */
} mz_json;

/* Reads a file: comments (//, #, block), trailing commas allowed; duplicate keys refused; nesting depth
 * limited. Errors: MZ_ERR_IO, MZ_ERR_CONFIG with file:line. */
mz_status mz_json_read(const char *path, mz_json *json);
mz_status mz_json_parse(const char *name, const char *text, size_t bytes, mz_json *json);
void mz_json_free(mz_json *json);

/* The line (from 1) on which the value of a dotted key path ("zero_optimization.stage") stands; 0 when
 * it is not in the file. */
int mz_json_line(const mz_json *json, const char *path);

#endif
