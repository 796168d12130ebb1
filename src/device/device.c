#include <config.h>

#include "device/device.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/threads.h"
#include "device/backends.h"
#include "kernels/kernels.h"

/* ---- tables have no holes ---- */

typedef void (*any_function)(void);

typedef struct slot {
    const char *name;
    size_t offset;
} slot;

#define OP(field)                                                                                                  \
    {                                                                                                              \
#field, offsetof(mz_device_ops, field)                                                                     \
    }
static const slot op_slots[] = {
    OP(count),        OP(near),          OP(open),         OP(close),         OP(alloc),          OP(free),
    OP(alloc_pinned), OP(free_pinned),   OP(memory_info),  OP(stream_create), OP(stream_destroy), OP(stream_sync),
    OP(event_create), OP(event_destroy), OP(event_record), OP(event_sync),    OP(event_done),     OP(event_elapsed),
    OP(wait),         OP(copy),          OP(copy_2d),      OP(fill),          OP(host_call),      OP(post),
    OP(await),        OP(check),
};
#undef OP

#define KERNEL(field)                                                                                              \
    {                                                                                                              \
#field, offsetof(mz_kernels, field)                                                                        \
    }
static const slot kernel_slots[] = {
    KERNEL(matmul),
    KERNEL(layer_norm),
    KERNEL(layer_norm_grad),
    KERNEL(embedding),
    KERNEL(embedding_grad),
    KERNEL(attention),
    KERNEL(attention_grad),
    KERNEL(attention_grad_workspace),
    KERNEL(activation),
    KERNEL(activation_grad),
    KERNEL(add),
    KERNEL(mul),
    KERNEL(dropout),
    KERNEL(cast),
    KERNEL(column_sum),
    KERNEL(cross_entropy),
    KERNEL(mse),
    KERNEL(sum_squares),
    KERNEL(clip),
    KERNEL(sum),
    KERNEL(optim),
    KERNEL(quantize),
    KERNEL(dequantize),
};
#undef KERNEL

#define N_OP_SLOTS     (sizeof op_slots / sizeof op_slots[0])
#define N_KERNEL_SLOTS (sizeof kernel_slots / sizeof kernel_slots[0])
_Static_assert(sizeof(mz_kernels) == N_KERNEL_SLOTS * sizeof(any_function), "kernel_slots misses a kernel");
/* beside the operations that all have: name, graphs, kernels, see_writes */
_Static_assert(sizeof(mz_device_ops) == (N_OP_SLOTS + 4) * sizeof(any_function), "op_slots misses an operation");

static const char *empty_slot(const void *table, const slot *slots, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        any_function function;
        memcpy(&function, (const char *)table + slots[i].offset, sizeof function);
        if (!function)
            return slots[i].name;
    }
    return NULL;
}

const char *mz_device_ops_empty_slot(const mz_device_ops *ops)
{
    return ops->kernels ? empty_slot(ops, op_slots, N_OP_SLOTS) : "kernels";
}

const char *mz_kernels_empty_slot(const mz_kernels *kernels)
{
    return empty_slot(kernels, kernel_slots, N_KERNEL_SLOTS);
}

/* ---- registry ---- */

static const mz_device_ops *const backends[] = {
    &mz_cpu_ops,
    &mz_meta_ops,
#ifdef HAVE_CUDA
    &mz_cuda_ops,
#endif
};
#define N_BACKENDS (sizeof backends / sizeof backends[0])

static const mz_device_ops *find_backend(const char *name)
{
    for (size_t i = 0; i < N_BACKENDS; i++)
        if (!strcmp(backends[i]->name, name))
            return backends[i];
    return NULL;
}

static mz_status check_tables(const mz_device_ops *ops)
{
    const char *missing = mz_device_ops_empty_slot(ops);
    if (missing)
        return mz_fail(MZ_ERR_INTERNAL, "device \"%s\": its table has no \"%s\"", ops->name, missing);
    missing = mz_kernels_empty_slot(ops->kernels);
    if (missing)
        return mz_fail(MZ_ERR_INTERNAL, "device \"%s\": its kernel table has no \"%s\"", ops->name, missing);
    return MZ_OK;
}

void mz_device_expect_awaits(void)
{
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
    /* Whoever asked for fewer (1 is common) did so for the sake of order, which events see to here. */
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1);
    setenv("CUDA_DEVICE_MAX_COPY_CONNECTIONS", "32", 1);
    setenv("NCCL_RUNTIME_CONNECT", "0", 0);
}

void mz_device_add_settler(mz_device *device, mz_settler *settler)
{
    pthread_mutex_lock(&device->lock);
    settler->next = device->settlers;
    device->settlers = settler;
    pthread_mutex_unlock(&device->lock);
}

void mz_device_remove_settler(mz_device *device, mz_settler *settler)
{
    pthread_mutex_lock(&device->lock);
    mz_settler **link = &device->settlers;
    while (*link && *link != settler)
        link = &(*link)->next;
    if (*link)
        *link = settler->next;
    pthread_mutex_unlock(&device->lock);
}

static void settle(mz_device *device, uint64_t ticket)
{
    pthread_mutex_lock(&device->lock);
    for (mz_settler *s = device->settlers; s; s = s->next)
        s->settle(s->context, ticket);
    pthread_mutex_unlock(&device->lock);
}

void mz_device_settle(mz_device *device)
{
    settle(device, UINT64_MAX);
}

uint64_t mz_device_take_ticket(mz_device *device)
{
    return __atomic_add_fetch(&device->n_tickets, 1, __ATOMIC_RELAXED);
}

/* Every backend's event begins with the ticket. */
void mz_event_mark(mz_device *device, mz_event *event)
{
    *(uint64_t *)(void *)event = __atomic_load_n(&device->n_tickets, __ATOMIC_RELAXED);
}

void mz_event_settle(mz_device *device, const mz_event *event)
{
    uint64_t ticket = *(const uint64_t *)(const void *)event;
    if (ticket)
        settle(device, ticket);
}

mz_status mz_device_open(const char *name, int ordinal, int n_threads, mz_device **device)
{
    const mz_device_ops *ops = find_backend(name);
    if (!ops)
        return mz_fail(MZ_ERR_UNSUPPORTED, "device \"%s\" is not part of this build, which has cpu and meta%s",
                       name, N_BACKENDS > 2 ? " and cuda" : "");
    if (ordinal < 0 || ordinal >= mz_device_count(name))
        return mz_fail(MZ_ERR_DEVICE, "device \"%s\": number %d asked for, %d visible", name, ordinal,
                       mz_device_count(name));
    if (n_threads < 0)
        return mz_fail(MZ_ERR_ARGUMENT, "device \"%s\": %d threads asked for, expected 0 (all cores) or more", name,
                       n_threads);
    mz_status status = check_tables(ops);
    if (status)
        return status;

    mz_device *d = mz_calloc(1, sizeof *d);
    if (!d)
        return MZ_ERR_MEMORY;
    d->ops = ops;
    d->ordinal = ordinal;
    d->n_sharing = 1;
    pthread_mutex_init(&d->lock, NULL);
    d->n_threads = n_threads ? n_threads : mz_cores_available();
    status = ops->open(d);
    if (status) {
        mz_device_close(d);
        return status;
    }
    *device = d;
    return MZ_OK;
}

void mz_device_close(mz_device *device)
{
    if (!device)
        return;
    device->ops->close(device);
    pthread_mutex_destroy(&device->lock);
    mz_free(device);
}

void mz_device_near(const char *name, cpu_set_t *cpus, int n)
{
    const mz_device_ops *ops = find_backend(name);
    if (ops)
        ops->near(cpus, n);
    for (int i = 0; i < n && !ops; i++)
        CPU_ZERO(&cpus[i]);
}

int mz_device_count(const char *name)
{
    const mz_device_ops *ops = find_backend(name);
    return ops && ops->count ? ops->count() : 0;
}
