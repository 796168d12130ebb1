/* An Accelerate configuration: reading, resolving, and resolving again what came out. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/use_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    use_config("accelerate.yaml", data, bytes);
    return 0;
}
