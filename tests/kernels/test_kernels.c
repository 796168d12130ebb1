/* Every kernel of a device against the reference: test_kernels [-q] [DEVICE [FAMILY...]], "cpu" and all unless
 * told. -l lists the families. -q takes a few small cases of attention and of matrix products. */
#include <stdio.h>
#include <string.h>

#include "tests/kernels/harness.h"

static const struct {
    const char *name;
    void (*test)(harness *h);
} families[] = {
    {"matmul", test_matmul},
    {"layer_norm", test_layer_norm},
    {"embedding", test_embedding},
    {"attention", test_attention},
    {"attention_grad", test_attention_grad},
    {"activation", test_activation},
    {"elementwise", test_elementwise},
    {"loss", test_loss},
    {"reduce", test_reduce},
    {"optim", test_optim},
    {"quantize", test_quantize},
};

static bool wanted(const char *family, int n_names, char **names)
{
    for (int i = 0; i < n_names; i++)
        if (strcmp(names[i], family) == 0)
            return true;
    return n_names == 0;
}

int main(int argc, char **argv)
{
    const bool quick = argc > 1 && strcmp(argv[1], "-q") == 0;
    argc -= quick;
    argv += quick;
    const char *name = argc > 1 ? argv[1] : "cpu";
    if (strcmp(name, "-l") == 0) {
        for (size_t i = 0; i < sizeof families / sizeof *families; i++)
            puts(families[i].name);
        return 0;
    }
    if (mz_device_count(name) == 0) {
        printf("SKIP: no device \"%s\" here\n", name);
        return 77;
    }
    harness h;
    if (!harness_open(&h, name))
        return 1;
    h.quick = quick;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (wanted(families[i].name, argc > 2 ? argc - 2 : 0, argv + 2))
            families[i].test(&h);
    harness_close(&h);
    return h.n_failed_total ? 1 : 0;
}
