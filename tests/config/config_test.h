/* Loading a configuration from text, for the tests. */
#ifndef TESTS_CONFIG_TEST_H
#define TESTS_CONFIG_TEST_H

#include "mpizero/config.h"

/* Writes `text` to a temporary file named like `name` (its extension counts), loads it and removes it. The
 * standard error of the call goes to `log` (log_bytes) when that is not NULL. */
mz_status load_text(const char *name, const char *text, const mz_config_defaults *flags, int world_size,
                    mz_config *config, char *log, size_t log_bytes);

#endif
