/* Log lines by rank and level, to standard error. */
#ifndef MZ_CORE_LOG_H
#define MZ_CORE_LOG_H

#include <stdbool.h>

typedef enum mz_log_level { MZ_LOG_ERROR = 0, MZ_LOG_WARN, MZ_LOG_INFO, MZ_LOG_DEBUG } mz_log_level;

void mz_log_set_level(mz_log_level level);
/* From a name: "error", "warning", "info", "debug"; false when it is none of them. */
bool mz_log_level_from_name(const char *name, mz_log_level *level);
/* Rank shown in front of each line; lines of mz_log_root are dropped on ranks other than 0.
 * Before this call the process counts as rank 0 of 1. */
void mz_log_set_rank(int rank, int size);
/* A line from this rank. Ends with a newline of its own. Thread-safe: one write per line. */
void mz_log(mz_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A line from rank 0 only. */
void mz_log_root(mz_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A warning from rank 0 that is shown once for each distinct `key`. */
void mz_warn_once(const char *key, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
