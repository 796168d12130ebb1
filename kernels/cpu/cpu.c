#include "config.h"

#include "kernels/cpu/cpu.h"

#ifdef HAVE_X86_KERNELS
#include <cpuid.h>
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct instruction_set {
    const char *name;
    const mz_kernels *kernels;
    bool (*is_present)(void);
    bool (*is_slow)(void); /* present, but the next one is faster; taken when it is asked for */
} instruction_set;

static bool always(void)
{
    return true;
}

static bool never(void)
{
    return false;
}

#ifdef HAVE_X86_KERNELS
/* clang's __builtin_cpu_supports does not know F16C. */
static bool has_f16c(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx512_bf16(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

/* A dot product of bf16 takes no longer than a multiply-add of fp32 on AMD's processors, and does twice as much. Intel's
 * begin two of these per cycle and one of those every other: 82 against 155 GFLOP/s on a core of the fifth Xeon
 * generation. */
static bool dots_slowly(void)
{
    return __builtin_cpu_is("intel");
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}
#endif

/* Best first. */
static const instruction_set sets[] = {
#ifdef HAVE_X86_KERNELS
    {"avx512_bf16", &mz_cpu_kernels_avx512_bf16, has_avx512_bf16, dots_slowly},
    {"avx512", &mz_cpu_kernels_avx512, has_avx512, never},
    {"avx2", &mz_cpu_kernels_avx2, has_avx2, never},
#endif
#ifdef WITH_OPENBLAS
    {"openblas", &mz_cpu_kernels_openblas, always, never},
#endif
    {"generic", &mz_cpu_kernels_generic, always, never},
};
enum { N_SETS = sizeof sets / sizeof *sets };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const instruction_set *chosen;

static void choose(void)
{
    const char *limit = getenv("MPIZERO_CPU_ISA");
    int first = 0;
    bool named = false;
    for (int i = 0; limit && i < N_SETS && !named; i++) {
        named = strcmp(limit, sets[i].name) == 0;
        first = named ? i : first;
    }
    while (!sets[first].is_present() || (!named && sets[first].is_slow()))
        first++;
    chosen = &sets[first];
}

static const instruction_set *choice(void)
{
    pthread_once(&once, choose);
    return chosen;
}

const char *mz_kernels_cpu_isa(void)
{
    return choice()->name;
}

const mz_kernels *mz_kernels_cpu_table(const char *isa)
{
    for (int i = 0; i < N_SETS; i++)
        if (strcmp(isa, sets[i].name) == 0 && sets[i].is_present())
            return sets[i].kernels;
    return NULL;
}

#define FORWARD(kernel)                                                                                            \
    static mz_status kernel(const mz_##kernel##_args *args, mz_stream *stream)                                     \
    {                                                                                                              \
        return choice()->kernels->kernel(args, stream);                                                            \
    }
FORWARD(matmul)
FORWARD(layer_norm)
FORWARD(layer_norm_grad)
FORWARD(embedding)
FORWARD(embedding_grad)
FORWARD(attention)
FORWARD(attention_grad)
FORWARD(activation)
FORWARD(activation_grad)
FORWARD(add)
FORWARD(mul)
FORWARD(dropout)
FORWARD(cast)
FORWARD(column_sum)
FORWARD(cross_entropy)
FORWARD(mse)
FORWARD(sum_squares)
FORWARD(clip)
FORWARD(sum)
FORWARD(optim)
FORWARD(quantize)
FORWARD(dequantize)

static size_t attention_grad_workspace(const mz_attention_shape *shape)
{
    return choice()->kernels->attention_grad_workspace(shape);
}

const mz_kernels mz_kernels_cpu = {
    .matmul = matmul,
    .layer_norm = layer_norm,
    .layer_norm_grad = layer_norm_grad,
    .embedding = embedding,
    .embedding_grad = embedding_grad,
    .attention = attention,
    .attention_grad = attention_grad,
    .attention_grad_workspace = attention_grad_workspace,
    .activation = activation,
    .activation_grad = activation_grad,
    .add = add,
    .mul = mul,
    .dropout = dropout,
    .cast = cast,
    .column_sum = column_sum,
    .cross_entropy = cross_entropy,
    .mse = mse,
    .sum_squares = sum_squares,
    .clip = clip,
    .sum = sum,
    .optim = optim,
    .quantize = quantize,
    .dequantize = dequantize,
};
