/* Opening devices, complete tables, failing allocations, and what the meta device counts. */
#include "tests/core/cmocka_all.h"

#include <stdbool.h>
#include <string.h>

#include "core/memory.h"
#include "device/arena.h"
#include "device/backends.h"
#include "device/device.h"
#include "kernels/kernels.h"

static void every_backend_opens(void **state)
{
    static const char *const names[] = {"cpu", "meta"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        mz_device *device;
        size_t free_bytes = 0, total_bytes = 0;
        assert_int_equal(mz_device_count(names[i]), 1);
        assert_int_equal(mz_device_open(names[i], 0, 0, &device), MZ_OK);
        assert_string_equal(device->ops->name, names[i]);
        assert_true(device->n_threads >= 1);
        assert_true(strlen(device->label) > 0);
        assert_int_equal(device->ops->memory_info(device, &free_bytes, &total_bytes), MZ_OK);
        assert_true(free_bytes > 0 && free_bytes <= total_bytes);
        mz_device_close(device);
    }
    mz_device_close(NULL);
}

static void what_cannot_be_opened_is_said(void **state)
{
    (void)state;
    mz_device *device;
    assert_int_equal(mz_device_count("abacus"), 0);
    assert_int_equal(mz_device_open("abacus", 0, 0, &device), MZ_ERR_UNSUPPORTED);
    assert_non_null(strstr(mz_last_error(), "abacus"));
    assert_int_equal(mz_device_open("cpu", 1, 0, &device), MZ_ERR_DEVICE);
    assert_int_equal(mz_device_open("cpu", 0, -1, &device), MZ_ERR_ARGUMENT);
}

static void a_table_with_a_hole_is_found(void **state)
{
    (void)state;
    mz_kernels kernels = mz_kernels_ref;
    mz_device_ops ops = mz_cpu_ops;
    assert_null(mz_kernels_empty_slot(&kernels));
    assert_null(mz_device_ops_empty_slot(&ops));
    kernels.sum_squares = NULL;
    assert_string_equal(mz_kernels_empty_slot(&kernels), "sum_squares");
    ops.copy_2d = NULL;
    assert_string_equal(mz_device_ops_empty_slot(&ops), "copy_2d");
    ops = mz_cpu_ops;
    ops.kernels = NULL;
    assert_string_equal(mz_device_ops_empty_slot(&ops), "kernels");
}

static void device_memory_is_aligned(void **state)
{
    static const size_t sizes[] = {0, 1, 255, 256, 257, 100000, (size_t)9 << 20};
    (void)state;
    mz_device *device;
    assert_int_equal(mz_device_open("cpu", 0, 1, &device), MZ_OK);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *p, *q;
        assert_int_equal(device->ops->alloc(device, sizes[i], &p), MZ_OK);
        assert_int_equal(device->ops->alloc_pinned(device, sizes[i], &q), MZ_OK);
        assert_int_equal((uintptr_t)p % 256, 0);
        memset(p, 1, sizes[i]);
        memset(q, 2, sizes[i]);
        device->ops->free(device, p);
        device->ops->free_pinned(device, q);
    }
    device->ops->free(device, NULL);
    void *p;
    assert_int_equal(device->ops->alloc(device, SIZE_MAX, &p), MZ_ERR_MEMORY);
    mz_device_close(device);
}

/* Makes all that this layer can create; the first failure ends it. */
static mz_status create_all(const char *name)
{
    mz_device *device = NULL;
    mz_stream *stream = NULL;
    mz_event *event = NULL;
    mz_arena *arena = NULL, *growing = NULL;
    void *memory = NULL, *block;
    mz_status status = mz_device_open(name, 0, 2, &device);
    if (status)
        return status;
    const mz_device_ops *ops = device->ops;
    status = ops->stream_create(device, MZ_STREAM_COMM, &stream);
    if (!status)
        status = ops->event_create(device, &event);
    if (!status)
        status = ops->event_record(event, stream);
    if (!status)
        status = ops->wait(stream, event);
    if (!status)
        status = ops->alloc_pinned(device, 1000, &memory);
    if (!status)
        status = mz_arena_create(device, 4096, &arena);
    if (!status)
        status = mz_arena_alloc(arena, 100, &block);
    if (!status)
        status = mz_arena_create(device, 0, &growing);
    if (!status)
        status = mz_arena_alloc(growing, 100, &block);
    mz_arena_destroy(growing);
    mz_arena_destroy(arena);
    ops->free_pinned(device, memory);
    ops->event_destroy(event);
    ops->stream_destroy(stream);
    mz_device_close(device);
    return status;
}

static void each_allocation_may_fail(void **state)
{
    static const char *const names[] = {"cpu", "meta"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        int n_failures = 0;
        for (long n = 1;; n++) {
            mz_memory_fail_at(n);
            mz_status status = create_all(names[i]);
            mz_memory_fail_at(0);
            if (!status)
                break;
            assert_int_equal(status, MZ_ERR_MEMORY);
            n_failures++;
        }
        assert_true(n_failures >= 8);
    }
}

typedef struct meta {
    mz_device *device;
    mz_stream *stream;
    mz_meta_counts before;
} meta;

static mz_meta_counts counted(meta *m)
{
    mz_meta_counts now, before = m->before;
    assert_int_equal(mz_device_meta_counts(m->device, &now), MZ_OK);
    m->before = now;
    now.matmul_flops -= before.matmul_flops;
    now.attention_flops -= before.attention_flops;
    now.other_flops -= before.other_flops;
    now.bytes -= before.bytes;
    now.n_launches -= before.n_launches;
    return now;
}

static bool called;
static mz_status note_call(void *arg)
{
    (void)arg;
    called = true;
    return MZ_OK;
}

static void meta_counts_work_and_touches_nothing(void **state)
{
    (void)state;
    meta m = {0};
    assert_int_equal(mz_device_open("meta", 0, 1, &m.device), MZ_OK);
    const mz_device_ops *ops = m.device->ops;
    assert_int_equal(ops->stream_create(m.device, MZ_STREAM_COMPUTE, &m.stream), MZ_OK);
    void *a, *b, *c;
    assert_int_equal(ops->alloc(m.device, 0, &a), MZ_OK);
    assert_int_equal(ops->alloc(m.device, (size_t)1 << 45, &b), MZ_OK);
    assert_int_equal(ops->alloc(m.device, 1, &c), MZ_OK);
    assert_true(a != b && b != c);
    assert_true((char *)c - (char *)b >= (ptrdiff_t)1 << 45);

    mz_matmul_args matmul = {.m = 3,
                             .n = 5,
                             .k = 7,
                             .batch = 2,
                             .a = a,
                             .b = b,
                             .c = c,
                             .lda = 7,
                             .ldb = 5,
                             .ldc = 5,
                             .stride_a = 21,
                             .stride_b = 35,
                             .stride_c = 15,
                             .dtype = MZ_BF16,
                             .dtype_c = MZ_F32,
                             .alpha = 1.0f};
    assert_int_equal(ops->kernels->matmul(&matmul, m.stream), MZ_OK);
    mz_meta_counts n = counted(&m);
    assert_true(n.matmul_flops == 2.0 * 3 * 5 * 7 * 2 && n.attention_flops == 0.0);
    assert_true(n.bytes == 2.0 * ((3 * 7 + 7 * 5) * 2 + 3 * 5 * 4));
    assert_int_equal(n.n_launches, 1);

    matmul.lda = 6;
    assert_int_equal(ops->kernels->matmul(&matmul, m.stream), MZ_ERR_ARGUMENT);
    assert_int_equal(counted(&m).n_launches, 0);

    mz_attention_args attention = {
        .shape = {.batch = 2, .heads = 3, .t_q = 4, .t_k = 4, .head_size = 8, .causal = true, .dtype = MZ_F32},
        .q = a,
        .k = b,
        .v = c,
        .o = a};
    assert_int_equal(ops->kernels->attention(&attention, m.stream), MZ_OK);
    assert_true(counted(&m).attention_flops == 4.0 * (1 + 2 + 3 + 4) * 6 * 8);
    attention.shape.causal = false;
    assert_int_equal(ops->kernels->attention(&attention, m.stream), MZ_OK);
    assert_true(counted(&m).attention_flops == 4.0 * 16 * 6 * 8);

    mz_add_args add = {.n = 10, .alpha = 1, .beta = 1, .a = a, .b = b, .y = c, .dtype = MZ_F16};
    assert_int_equal(ops->kernels->add(&add, m.stream), MZ_OK);
    n = counted(&m);
    assert_true(n.other_flops == 30.0 && n.bytes == 60.0);
    assert_int_equal(ops->kernels->add(&add, NULL), MZ_OK);
    assert_int_equal(counted(&m).n_launches, 0);

    assert_int_equal(ops->copy(m.stream, a, b, 100), MZ_OK);
    assert_int_equal(ops->fill(m.stream, a, 0, 100), MZ_OK);
    n = counted(&m);
    assert_true(n.bytes == 300.0 && n.n_launches == 2);

    assert_int_equal(ops->host_call(m.stream, note_call, NULL), MZ_OK);
    assert_false(called);
    assert_int_equal(ops->stream_sync(m.stream), MZ_OK);
    ops->stream_destroy(m.stream);
    mz_device_close(m.device);

    assert_int_equal(mz_device_open("cpu", 0, 1, &m.device), MZ_OK);
    assert_int_equal(mz_device_meta_counts(m.device, &n), MZ_ERR_ARGUMENT);
    mz_device_close(m.device);
}

/* Two streams and the host, with a second for a FLOP: work waits for its stream, for events, and for a host that
 * waits. */
static void meta_keeps_time(void **state)
{
    (void)state;
    mz_device *device;
    mz_stream *compute, *other;
    mz_event *event;
    void *memory;
    double now;
    assert_int_equal(mz_device_open("meta", 0, 1, &device), MZ_OK);
    const mz_device_ops *ops = device->ops;
    assert_int_equal(ops->stream_create(device, MZ_STREAM_COMPUTE, &compute), MZ_OK);
    assert_int_equal(ops->stream_create(device, MZ_STREAM_COMM, &other), MZ_OK);
    assert_int_equal(ops->event_create(device, &event), MZ_OK);
    assert_int_equal(ops->alloc(device, 1 << 10, &memory), MZ_OK);
    const mz_meta_pace pace = {.seconds_per_flop = 1};
    assert_int_equal(mz_device_meta_set_pace(device, &pace), MZ_OK);
    const mz_matmul_args matmul = {.m = 1,
                                   .n = 1,
                                   .k = 5,
                                   .batch = 1,
                                   .a = memory,
                                   .b = memory,
                                   .c = memory,
                                   .lda = 5,
                                   .ldb = 1,
                                   .ldc = 1,
                                   .dtype = MZ_F32,
                                   .dtype_c = MZ_F32,
                                   .alpha = 1.0f};
    assert_int_equal(ops->kernels->matmul(&matmul, compute), MZ_OK);
    assert_int_equal(ops->event_record(event, compute), MZ_OK);
    assert_int_equal(mz_device_meta_pass(device, other, 4), MZ_OK);
    assert_int_equal(mz_device_meta_now(device, other, &now), MZ_OK);
    assert_true(now == 4);
    assert_int_equal(ops->wait(other, event), MZ_OK);
    assert_int_equal(mz_device_meta_pass(device, other, 3), MZ_OK);
    assert_int_equal(mz_device_meta_now(device, other, &now), MZ_OK);
    assert_true(now == 13); /* the product's 10, then 3 */
    assert_int_equal(ops->fill(compute, memory, 0, 64), MZ_OK);
    assert_int_equal(mz_device_meta_now(device, compute, &now), MZ_OK);
    assert_true(now == 10);
    assert_int_equal(ops->stream_sync(other), MZ_OK);
    assert_int_equal(mz_device_meta_pass(device, NULL, 1), MZ_OK);
    assert_int_equal(mz_device_meta_now(device, compute, &now), MZ_OK);
    assert_true(now == 14);
    ops->event_destroy(event);
    ops->stream_destroy(other);
    ops->stream_destroy(compute);
    mz_device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_backend_opens),
        cmocka_unit_test(what_cannot_be_opened_is_said),
        cmocka_unit_test(a_table_with_a_hole_is_found),
        cmocka_unit_test(device_memory_is_aligned),
        cmocka_unit_test(each_allocation_may_fail),
        cmocka_unit_test(meta_counts_work_and_touches_nothing),
        cmocka_unit_test(meta_keeps_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
