/* Every kernel of a device against the reference: test_kernels [DEVICE], "cpu" unless told. */
#include <stdio.h>

#include "tests/kernels/harness.h"

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "cpu";
    if (mz_device_count(name) == 0) {
        printf("SKIP: no device \"%s\" here\n", name);
        return 77;
    }
    harness h;
    if (!harness_open(&h, name))
        return 1;
    test_matmul(&h);
    test_layer_norm(&h);
    test_embedding(&h);
    test_attention(&h);
    test_activation(&h);
    test_elementwise(&h);
    test_loss(&h);
    test_reduce(&h);
    test_optim(&h);
    harness_close(&h);
    return h.n_failed_total ? 1 : 0;
}
