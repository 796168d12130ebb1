/* Runs a kernel of a device and the reference on the same random data and compares what they leave.
 *
 * A case makes its buffers, launches the kernel on each side with the pointers of that side, and compares outputs:
 *
 *     begin_case(h, "n=%d", n);
 *     buffer *x = random_buffer(h, dtype, n, -1, 1), *y = output_buffer(h, dtype, n);
 *     for (int side = 0; side < N_SIDES; side++) {
 *         mz_activation_args args = {..., .x = at(x, side), .y = at(y, side)};
 *         launched(h, h->kernels[side]->activation(&args, h->streams[side]));
 *     }
 *     compare(h, y, "y", relative, absolute);
 *     end_case(h);
 *
 * The device runs twice, so that end_case can see that it gives the same bits. end_case also sees that
 * nothing outside the outputs was written: neither inputs, nor the bytes behind any buffer. */
#ifndef TESTS_KERNELS_HARNESS_H
#define TESTS_KERNELS_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device/device.h"
#include "kernels/kernels.h"

enum side { REFERENCE = 0, DEVICE, DEVICE_AGAIN, N_SIDES };

typedef struct buffer buffer;

typedef struct harness {
    mz_device *device;
    const mz_kernels *kernels[N_SIDES];
    mz_stream *streams[N_SIDES];
    buffer *buffers; /* of the running case */
    const char *slot;
    char name[256];
    uint32_t seed;
    bool aligned; /* buffers start as device memory does; set by a case that wants it so */
    bool case_failed;
    double worst; /* largest difference of the running slot, as a share of what is allowed */
    int n_cases, n_failed, n_failed_total;
} harness;

bool harness_open(harness *h, const char *device_name);
void harness_close(harness *h);

/* Cases between these two count for a slot of the table; end_slot prints one line. */
void begin_slot(harness *h, const char *slot);
void end_slot(harness *h);

void begin_case(harness *h, const char *format, ...) __attribute__((format(printf, 2, 3)));
void end_case(harness *h);

/* n elements, uniform in [low, high), rounded to dtype. About every other buffer starts one element
 * off its alignment, unless h->aligned. */
buffer *random_buffer(harness *h, mz_dtype dtype, int64_t n, double low, double high);
/* n elements of what must not be read: NaNs. */
buffer *output_buffer(harness *h, mz_dtype dtype, int64_t n);
/* A copy of `data`: ids, masks, scalars, states. */
buffer *data_buffer(harness *h, const void *data, size_t bytes);
/* The same, with other bytes on each side (pointers). */
buffer *sided_buffer(harness *h, const void *const data[N_SIDES], size_t bytes);
/* A work space: aligned as device memory is, may hold anything before and after. */
buffer *workspace_buffer(harness *h, size_t bytes);
/* Overwrites element i on all sides. */
void set_element(harness *h, buffer *b, int64_t i, float value);

/* Where the buffer lies on a side; NULL for a NULL buffer. */
void *at(const buffer *b, int side);

/* The elements that a kernel leaves in place of others of the same size are compared as `dtype`. */
void set_dtype(buffer *b, mz_dtype dtype);

void launched(harness *h, mz_status status);

/* Every element of the device's buffer is within relative * |reference| + absolute of the reference's;
 * infinities and NaNs are the same. */
void compare(harness *h, buffer *b, const char *what, double relative, double absolute);
/* The same, and all but one in a hundred and two are the reference's own bits: where rounding decides, next to all
 * decisions are the same. */
void compare_rounded(harness *h, buffer *b, const char *what, double relative, double absolute);
void compare_f64(harness *h, buffer *b, const char *what, double relative);
void compare_bytes(harness *h, buffer *b, const char *what);

int64_t random_below(harness *h, int64_t n);

/* Half the distance between neighbours at 1: what rounding to a dtype costs. */
double unit(mz_dtype dtype);

static const mz_dtype storage_dtypes[] = {MZ_F32, MZ_F16, MZ_BF16};
enum { N_STORAGE_DTYPES = 3 };

/* The cases, one file per family. */
void test_matmul(harness *h);
void test_layer_norm(harness *h);
void test_embedding(harness *h);
void test_attention(harness *h);
void test_activation(harness *h);
void test_elementwise(harness *h);
void test_loss(harness *h);
void test_reduce(harness *h);
void test_optim(harness *h);
void test_quantize(harness *h);

#endif
