#include "tests/kernels/harness.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/half.h"
#include "core/memory.h"

enum { GUARD_BYTES = 64, GUARD = 0xa5 };

struct buffer {
    mz_dtype dtype;
    size_t bytes, lead;    /* payload, and what lies before it */
    char *host[N_SIDES];   /* as made; for the reference, as it is */
    char *device[N_SIDES]; /* NULL for the reference */
    char *back;            /* room to read the device into */
    bool is_output, is_scratch;
    buffer *next;
};

bool harness_open(harness *h, const char *device_name)
{
    memset(h, 0, sizeof *h);
    if (mz_device_open(device_name, 0, 0, &h->device) ||
        h->device->ops->stream_create(h->device, MZ_STREAM_COMPUTE, &h->streams[DEVICE])) {
        fprintf(stderr, "%s\n", mz_last_error());
        return false;
    }
    h->streams[DEVICE_AGAIN] = h->streams[DEVICE];
    h->kernels[REFERENCE] = &mz_kernels_ref;
    h->kernels[DEVICE] = h->kernels[DEVICE_AGAIN] = h->device->ops->kernels;
    h->seed = 2463534242u;
    printf("device: %s\n", h->device->label);
    return true;
}

void harness_close(harness *h)
{
    if (h->streams[DEVICE])
        h->device->ops->stream_destroy(h->streams[DEVICE]);
    mz_device_close(h->device);
}

void begin_slot(harness *h, const char *slot)
{
    h->slot = slot;
    h->worst = 0.0;
    h->n_cases = h->n_failed = 0;
}

void end_slot(harness *h)
{
    printf("%-16s %4d cases, %d failed, largest difference %.2f of the allowed\n", h->slot, h->n_cases, h->n_failed,
           h->worst);
    h->n_failed_total += h->n_failed;
}

static void fail_case(harness *h, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail_case(harness *h, const char *format, ...)
{
    if (h->case_failed)
        return;
    h->case_failed = true;
    printf("FAILED %s %s: ", h->slot, h->name);
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

void begin_case(harness *h, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(h->name, sizeof h->name, format, args);
    va_end(args);
    h->case_failed = false;
    h->n_cases++;
}

/* ---- buffers ---- */

static uint32_t random_u32(harness *h)
{
    h->seed ^= h->seed << 13;
    h->seed ^= h->seed >> 17;
    h->seed ^= h->seed << 5;
    return h->seed;
}

int64_t random_below(harness *h, int64_t n)
{
    return (int64_t)(random_u32(h) % (uint32_t)n);
}

double unit(mz_dtype dtype)
{
    return dtype == MZ_F16 ? 0x1p-11 : dtype == MZ_BF16 ? 0x1p-8 : 0x1p-24;
}

static size_t whole(const buffer *b)
{
    return b->lead + b->bytes + GUARD_BYTES;
}

static void transfer(harness *h, void *dst, const void *src, size_t bytes)
{
    launched(h, h->device->ops->copy(h->streams[DEVICE], dst, src, bytes));
    launched(h, h->device->ops->stream_sync(h->streams[DEVICE]));
}

static void upload(harness *h, buffer *b, int side)
{
    if (side != REFERENCE)
        transfer(h, b->device[side], b->host[side], whole(b));
}

/* A buffer full of guard bytes. */
static buffer *new_buffer(harness *h, mz_dtype dtype, size_t bytes, size_t lead)
{
    buffer *b = mz_calloc(1, sizeof *b);
    b->dtype = dtype;
    b->bytes = bytes;
    b->lead = lead;
    b->back = mz_alloc(whole(b));
    for (int side = 0; side < N_SIDES; side++) {
        b->host[side] = mz_alloc_aligned(whole(b));
        memset(b->host[side], GUARD, whole(b));
        void *memory;
        if (side != REFERENCE) {
            launched(h, h->device->ops->alloc(h->device, whole(b), &memory));
            b->device[side] = memory;
        }
    }
    b->next = h->buffers;
    h->buffers = b;
    return b;
}

buffer *sided_buffer(harness *h, const void *const data[N_SIDES], size_t bytes)
{
    buffer *b = new_buffer(h, MZ_U8, bytes, 0);
    for (int side = 0; side < N_SIDES; side++) {
        if (bytes)
            memcpy(b->host[side], data[side], bytes);
        upload(h, b, side);
    }
    return b;
}

buffer *data_buffer(harness *h, const void *data, size_t bytes)
{
    return sided_buffer(h, (const void *const[N_SIDES]){data, data, data}, bytes);
}

buffer *random_buffer(harness *h, mz_dtype dtype, int64_t n, double low, double high)
{
    size_t size = mz_dtype_size(dtype), lead = random_u32(h) % 2 * (h->aligned ? 0 : size);
    buffer *b = new_buffer(h, dtype, (size_t)n * size, lead);
    for (int64_t i = 0; i < n; i++) {
        double x = low + (high - low) * (double)random_u32(h) / 4294967296.0;
        mz_store_f32(b->host[REFERENCE] + lead, dtype, i, (float)x);
    }
    for (int side = 1; side < N_SIDES; side++) {
        memcpy(b->host[side], b->host[REFERENCE], whole(b));
        upload(h, b, side);
    }
    return b;
}

buffer *output_buffer(harness *h, mz_dtype dtype, int64_t n)
{
    buffer *b = random_buffer(h, dtype, n, 0.0, 1.0);
    for (int side = 0; side < N_SIDES; side++) {
        memset(b->host[side] + b->lead, 0xff, b->bytes);
        upload(h, b, side);
    }
    return b;
}

buffer *workspace_buffer(harness *h, size_t bytes)
{
    buffer *b = new_buffer(h, MZ_U8, bytes, 0);
    b->is_output = b->is_scratch = true;
    for (int side = 1; side < N_SIDES; side++)
        upload(h, b, side);
    return b;
}

void set_element(harness *h, buffer *b, int64_t i, float value)
{
    for (int side = 0; side < N_SIDES; side++) {
        mz_store_f32(b->host[side] + b->lead, b->dtype, i, value);
        upload(h, b, side);
    }
}

void *at(const buffer *b, int side)
{
    if (!b)
        return NULL;
    return (side == REFERENCE ? b->host[REFERENCE] : b->device[side]) + b->lead;
}

void set_dtype(buffer *b, mz_dtype dtype)
{
    b->dtype = dtype;
}

void launched(harness *h, mz_status status)
{
    if (status)
        fail_case(h, "%s: %s", mz_status_text(status), mz_last_error());
}

/* ---- comparing ---- */

static const void *read_back(harness *h, buffer *b, int side)
{
    transfer(h, b->back, b->device[side], whole(b));
    return b->back + b->lead;
}

/* The share of the allowed difference that is used; above 1 is wrong. */
static double share(double expected, double found, double relative, double absolute)
{
    if (isnan(expected) || isinf(expected))
        return (isnan(expected) && isnan(found)) || expected == found ? 0.0 : INFINITY;
    double difference = fabs(found - expected);
    if (difference == 0.0)
        return 0.0;
    return isfinite(difference) ? difference / (relative * fabs(expected) + absolute) : INFINITY;
}

static void judge(harness *h, const char *what, int64_t i, double expected, double found, double relative,
                  double absolute)
{
    double s = share(expected, found, relative, absolute);
    if (s > h->worst)
        h->worst = s;
    if (!(s <= 1.0))
        fail_case(h, "%s[%lld]: expected %.9g, found %.9g, allowed difference %.3g", what, (long long)i, expected,
                  found, relative * fabs(expected) + absolute);
}

void compare(harness *h, buffer *b, const char *what, double relative, double absolute)
{
    const void *expected = b->host[REFERENCE] + b->lead, *found = read_back(h, b, DEVICE);
    b->is_output = true;
    for (int64_t i = 0; i < (int64_t)(b->bytes / mz_dtype_size(b->dtype)); i++)
        judge(h, what, i, (double)mz_load_f32(expected, b->dtype, i), (double)mz_load_f32(found, b->dtype, i),
              relative, absolute);
}

void compare_rounded(harness *h, buffer *b, const char *what, double relative, double absolute)
{
    const size_t size = mz_dtype_size(b->dtype), n = b->bytes / size;
    size_t n_other = 0;
    compare(h, b, what, relative, absolute); /* leaves the device's in b->back */
    for (size_t i = 0; i < n; i++)
        n_other += memcmp(b->host[REFERENCE] + b->lead + i * size, b->back + b->lead + i * size, size) != 0;
    if (n_other > n / 100 + 2)
        fail_case(h, "%s: %zu of %zu elements are rounded otherwise", what, n_other, n);
}

void compare_f64(harness *h, buffer *b, const char *what, double relative)
{
    double expected, found;
    b->is_output = true;
    memcpy(&expected, b->host[REFERENCE], sizeof expected);
    memcpy(&found, read_back(h, b, DEVICE), sizeof found);
    judge(h, what, 0, expected, found, relative, 0.0);
}

void compare_bytes(harness *h, buffer *b, const char *what)
{
    b->is_output = true;
    if (memcmp(read_back(h, b, DEVICE), b->host[REFERENCE] + b->lead, b->bytes))
        fail_case(h, "%s differs", what);
}

/* Inputs and what lies around a buffer hold what they held, and both device runs left the same. */
static void check_untouched(harness *h, buffer *b)
{
    char *first = mz_alloc(whole(b));
    memcpy(first, (const char *)read_back(h, b, DEVICE) - b->lead, whole(b));
    size_t written = b->is_output ? b->bytes : 0, tail = b->lead + written;
    if (memcmp(first, b->host[DEVICE], b->lead) || memcmp(first + tail, b->host[DEVICE] + tail, whole(b) - tail))
        fail_case(h, "%s was written", b->is_output ? "memory around an output" : "an input");
    read_back(h, b, DEVICE_AGAIN);
    if (b->is_output && !b->is_scratch && memcmp(first, b->back, whole(b)))
        fail_case(h, "a second run gave other bits");
    mz_free(first);
}

void end_case(harness *h)
{
    while (h->buffers) {
        buffer *b = h->buffers;
        if (!h->case_failed)
            check_untouched(h, b);
        h->buffers = b->next;
        for (int side = 0; side < N_SIDES; side++) {
            mz_free(b->host[side]);
            if (b->device[side])
                h->device->ops->free(h->device, b->device[side]);
        }
        mz_free(b->back);
        mz_free(b);
    }
    h->n_failed += h->case_failed;
}
