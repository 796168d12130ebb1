/* What a fuzzed configuration has to keep to. */
#ifndef TESTS_FUZZ_USE_CONFIG_H
#define TESTS_FUZZ_USE_CONFIG_H

#include <stddef.h>
#include <stdint.h>

/* Loads the input as a file of this name (its extension counts): a refusal names a place; what is accepted adds
 * up, and resolves to itself when written as JSON. */
void use_config(const char *name, const uint8_t *data, size_t bytes);

#endif
