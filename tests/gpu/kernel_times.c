/* Writes every kernel, copy and fill that a CUDA program runs to a file: "begin end name", nanoseconds. The driver
 * loads it into the program: CUDA_INJECTION64_PATH=.../kernel_times.so KERNEL_TIMES=FILE program... */
#include <cupti.h>
#include <stdio.h>
#include <stdlib.h>

enum { BUFFER_BYTES = 8 << 20, ALIGNMENT = 8 };

static FILE *out;

static void CUPTIAPI give_buffer(uint8_t **buffer, size_t *size, size_t *max_records)
{
    *buffer = aligned_alloc(ALIGNMENT, BUFFER_BYTES);
    *size = *buffer ? BUFFER_BYTES : 0;
    *max_records = 0;
}

static void put(uint64_t begin, uint64_t end, const char *name)
{
    fprintf(out, "%llu %llu %s\n", (unsigned long long)begin, (unsigned long long)end, name);
}

static void CUPTIAPI take_buffer(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
    CUpti_Activity *record = NULL;
    (void)context;
    (void)stream;
    (void)size;
    while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
        if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
            /* Later versions begin with the same fields. */
            const CUpti_ActivityKernel4 *kernel = (const CUpti_ActivityKernel4 *)record;
            put(kernel->start, kernel->end, kernel->name);
        } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
            const CUpti_ActivityMemcpy *copy = (const CUpti_ActivityMemcpy *)record;
            put(copy->start, copy->end, "copy");
        } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
            const CUpti_ActivityMemset *fill = (const CUpti_ActivityMemset *)record;
            put(fill->start, fill->end, "fill");
        }
    }
    free(buffer);
}

static void finish(void)
{
    cuptiActivityFlushAll(1);
    fflush(out); /* what still comes after this is the end's business */
}

int InitializeInjection(void);

int InitializeInjection(void)
{
    const char *path = getenv("KERNEL_TIMES");
    out = path ? fopen(path, "w") : NULL;
    if (!out)
        return 0;
    cuptiActivityRegisterCallbacks(give_buffer, take_buffer);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMSET);
    atexit(finish);
    return 1;
}
