/* Streams and events of the CPU device: order, failures, time. */
#include "tests/core/cmocka_all.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "core/error.h"
#include "device/cpu_stream.h"
#include "device/device.h"

typedef struct fixture {
    mz_device *device;
    const mz_device_ops *ops;
    mz_stream *compute, *comm, *copy;
    mz_event *event, *other;
} fixture;

static int open_device(void **state)
{
    static fixture f;
    memset(&f, 0, sizeof f);
    assert_int_equal(mz_device_open("cpu", 0, 2, &f.device), MZ_OK);
    f.ops = f.device->ops;
    assert_int_equal(f.ops->stream_create(f.device, MZ_STREAM_COMPUTE, &f.compute), MZ_OK);
    assert_int_equal(f.ops->stream_create(f.device, MZ_STREAM_COMM, &f.comm), MZ_OK);
    assert_int_equal(f.ops->stream_create(f.device, MZ_STREAM_COPY, &f.copy), MZ_OK);
    assert_int_equal(f.ops->event_create(f.device, &f.event), MZ_OK);
    assert_int_equal(f.ops->event_create(f.device, &f.other), MZ_OK);
    *state = &f;
    return 0;
}

static int close_device(void **state)
{
    fixture *f = *state;
    f->ops->event_destroy(f->other);
    f->ops->event_destroy(f->event);
    f->ops->stream_destroy(f->copy);
    f->ops->stream_destroy(f->comm);
    f->ops->stream_destroy(f->compute);
    mz_device_close(f->device);
    return 0;
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* ---- host functions ---- */

typedef struct journal {
    atomic_int n;
    int entries[4096];
} journal;

typedef struct note {
    journal *journal;
    int value;
    long pause;
} note;

static mz_status write_note(void *arg)
{
    note *x = arg;
    if (x->pause)
        pause_ms(x->pause);
    int at = atomic_fetch_add(&x->journal->n, 1);
    x->journal->entries[at] = x->value;
    return MZ_OK;
}

static mz_status wait_for_gate(void *arg)
{
    atomic_bool *gate = arg;
    while (!atomic_load(gate))
        pause_ms(1);
    return MZ_OK;
}

static mz_status fail_here(void *arg)
{
    (void)arg;
    return mz_fail(MZ_ERR_COMM, "the wire is cut");
}

/* ---- tests ---- */

static void work_of_a_stream_runs_in_order(void **state)
{
    fixture *f = *state;
    journal j = {0};
    static note notes[1000];
    for (int i = 0; i < 1000; i++) {
        notes[i] = (note){.journal = &j, .value = i};
        assert_int_equal(f->ops->host_call(f->comm, write_note, &notes[i]), MZ_OK);
    }
    assert_int_equal(f->ops->stream_sync(f->comm), MZ_OK);
    assert_int_equal(j.n, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(j.entries[i], i);
}

static void workers_run_beside_the_caller(void **state)
{
    fixture *f = *state;
    atomic_bool gate = false;
    assert_int_equal(f->ops->host_call(f->comm, wait_for_gate, &gate), MZ_OK);
    assert_int_equal(f->ops->event_record(f->event, f->comm), MZ_OK);
    assert_false(f->ops->event_done(f->event));
    /* The other worker and the compute stream are not held up. */
    assert_int_equal(f->ops->event_record(f->other, f->copy), MZ_OK);
    assert_int_equal(f->ops->event_sync(f->other), MZ_OK);
    assert_int_equal(f->ops->event_record(f->other, f->compute), MZ_OK);
    assert_true(f->ops->event_done(f->other));
    assert_false(f->ops->event_done(f->event));
    atomic_store(&gate, true);
    assert_int_equal(f->ops->event_sync(f->event), MZ_OK);
    assert_true(f->ops->event_done(f->event));
}

/* Two workers and the caller take turns by events: a counter passes through all three. */
static void events_order_streams(void **state)
{
    fixture *f = *state;
    journal j = {0};
    static note notes[300];
    for (int i = 0; i < 300; i += 3) {
        for (int k = 0; k < 3; k++)
            notes[i + k] = (note){.journal = &j, .value = i + k, .pause = i % 50 == k ? 2 : 0};
        assert_int_equal(f->ops->host_call(f->comm, write_note, &notes[i]), MZ_OK);
        assert_int_equal(f->ops->event_record(f->event, f->comm), MZ_OK);
        assert_int_equal(f->ops->wait(f->copy, f->event), MZ_OK);
        assert_int_equal(f->ops->host_call(f->copy, write_note, &notes[i + 1]), MZ_OK);
        assert_int_equal(f->ops->event_record(f->other, f->copy), MZ_OK);
        assert_int_equal(f->ops->wait(f->compute, f->other), MZ_OK);
        assert_int_equal(f->ops->host_call(f->compute, write_note, &notes[i + 2]), MZ_OK);
    }
    assert_int_equal(j.n, 300);
    for (int i = 0; i < 300; i++)
        assert_int_equal(j.entries[i], i);
}

/* A wait means the last recording before it, whatever is recorded later. */
static void a_wait_means_the_recording_before_it(void **state)
{
    fixture *f = *state;
    journal j = {0};
    atomic_bool gate = false;
    note first = {.journal = &j, .value = 1, .pause = 5};
    assert_int_equal(f->ops->host_call(f->comm, write_note, &first), MZ_OK);
    assert_int_equal(f->ops->event_record(f->event, f->comm), MZ_OK);
    assert_int_equal(f->ops->wait(f->copy, f->event), MZ_OK);
    assert_int_equal(f->ops->host_call(f->comm, wait_for_gate, &gate), MZ_OK);
    assert_int_equal(f->ops->event_record(f->event, f->comm), MZ_OK);
    note second = {.journal = &j, .value = 2};
    assert_int_equal(f->ops->host_call(f->copy, write_note, &second), MZ_OK);
    assert_int_equal(f->ops->stream_sync(f->copy), MZ_OK); /* though the gate is shut */
    assert_int_equal(j.entries[0], 1);
    assert_int_equal(j.entries[1], 2);
    assert_false(f->ops->event_done(f->event));
    atomic_store(&gate, true);
    assert_int_equal(f->ops->stream_sync(f->comm), MZ_OK);
}

static void an_event_may_move_to_another_stream(void **state)
{
    fixture *f = *state;
    journal j = {0};
    note slow = {.journal = &j, .value = 1, .pause = 20};
    assert_int_equal(f->ops->host_call(f->comm, write_note, &slow), MZ_OK);
    assert_int_equal(f->ops->event_record(f->event, f->comm), MZ_OK);
    assert_int_equal(f->ops->event_record(f->event, f->copy), MZ_OK);
    assert_int_equal(f->ops->event_sync(f->event), MZ_OK);
    assert_int_equal(j.n, 1);
}

static void an_event_not_recorded_is_complete(void **state)
{
    fixture *f = *state;
    double seconds;
    assert_true(f->ops->event_done(f->event));
    assert_int_equal(f->ops->event_sync(f->event), MZ_OK);
    assert_int_equal(f->ops->wait(f->compute, f->event), MZ_OK);
    assert_int_equal(f->ops->wait(f->comm, f->event), MZ_OK);
    assert_int_equal(f->ops->stream_sync(f->comm), MZ_OK);
    assert_int_equal(f->ops->event_elapsed(f->event, f->event, &seconds), MZ_ERR_ARGUMENT);
}

static void a_failure_waits_for_the_sync_and_stops_the_stream(void **state)
{
    fixture *f = *state;
    journal j = {0};
    note after = {.journal = &j, .value = 1};
    assert_int_equal(f->ops->host_call(f->comm, fail_here, NULL), MZ_OK);
    assert_int_equal(f->ops->host_call(f->comm, write_note, &after), MZ_OK);
    assert_int_equal(f->ops->stream_sync(f->comm), MZ_ERR_COMM);
    assert_string_equal(mz_last_error(), "the wire is cut");
    assert_int_equal(j.n, 0);
    /* Reported, it is over. */
    assert_int_equal(f->ops->host_call(f->comm, write_note, &after), MZ_OK);
    assert_int_equal(f->ops->stream_sync(f->comm), MZ_OK);
    assert_int_equal(j.n, 1);
}

static void a_failure_passes_through_events(void **state)
{
    fixture *f = *state;
    assert_int_equal(f->ops->host_call(f->comm, fail_here, NULL), MZ_OK);
    assert_int_equal(f->ops->event_record(f->event, f->comm), MZ_OK);
    assert_int_equal(f->ops->wait(f->copy, f->event), MZ_OK); /* known to the worker only */
    mz_fail(MZ_ERR_ARGUMENT, "something older");
    assert_int_equal(f->ops->wait(f->compute, f->event), MZ_ERR_COMM);
    assert_string_equal(mz_last_error(), "the wire is cut");
    assert_int_equal(f->ops->event_sync(f->event), MZ_ERR_COMM);
    assert_int_equal(f->ops->stream_sync(f->copy), MZ_ERR_COMM);
    assert_string_equal(mz_last_error(), "the wire is cut");
    assert_int_equal(f->ops->stream_sync(f->comm), MZ_ERR_COMM);
    /* Recorded anew, the event is good again. */
    assert_int_equal(f->ops->event_record(f->event, f->comm), MZ_OK);
    assert_int_equal(f->ops->event_sync(f->event), MZ_OK);
}

static void a_compute_stream_fails_at_once(void **state)
{
    fixture *f = *state;
    assert_int_equal(f->ops->host_call(f->compute, fail_here, NULL), MZ_ERR_COMM);
    assert_int_equal(f->ops->stream_sync(f->compute), MZ_OK);
}

static void words_hold_a_stream_for_what_comes_later(void **state)
{
    fixture *f = *state;
    void *memory = NULL;
    assert_int_equal(f->ops->alloc_pinned(f->device, 2 * sizeof(uint32_t), &memory), MZ_OK);
    uint32_t *words = memory;
    journal j = {0};
    note after = {.journal = &j, .value = 1}, last = {.journal = &j, .value = 2};
    words[0] = words[1] = UINT32_MAX; /* they wrap */
    assert_int_equal(f->ops->await(f->comm, &words[0], 1), MZ_OK);
    assert_int_equal(f->ops->host_call(f->comm, write_note, &after), MZ_OK);
    assert_int_equal(f->ops->await(f->comm, &words[1], 0), MZ_OK);
    assert_int_equal(f->ops->host_call(f->comm, write_note, &last), MZ_OK);
    pause_ms(10);
    assert_int_equal(atomic_load(&j.n), 0);
    assert_int_equal(f->ops->post(f->copy, &words[0], 0), MZ_OK);
    pause_ms(10);
    assert_int_equal(atomic_load(&j.n), 0); /* not enough yet */
    assert_int_equal(f->ops->host_call(f->copy, fail_here, NULL), MZ_OK);
    assert_int_equal(f->ops->post(f->copy, &words[0], 1), MZ_OK); /* after a failure, too */
    while (atomic_load(&j.n) < 1)
        pause_ms(1);
    __atomic_store_n(&words[1], 0, __ATOMIC_RELEASE); /* by the host */
    assert_int_equal(f->ops->stream_sync(f->comm), MZ_OK);
    assert_int_equal(atomic_load(&j.n), 2);
    assert_int_equal(f->ops->stream_sync(f->copy), MZ_ERR_COMM);
    assert_int_equal(f->ops->await(f->compute, &words[0], 1), MZ_OK); /* there already */
    f->ops->free_pinned(f->device, memory);
}

static void elapsed_time_is_that_between_the_events(void **state)
{
    fixture *f = *state;
    journal j = {0};
    note slow = {.journal = &j, .pause = 30};
    double seconds = -1.0;
    assert_int_equal(f->ops->event_record(f->event, f->comm), MZ_OK);
    assert_int_equal(f->ops->host_call(f->comm, write_note, &slow), MZ_OK);
    assert_int_equal(f->ops->event_record(f->other, f->comm), MZ_OK);
    assert_int_equal(f->ops->stream_sync(f->comm), MZ_OK);
    assert_int_equal(f->ops->event_elapsed(f->event, f->other, &seconds), MZ_OK);
    assert_true(seconds >= 0.029);
    assert_true(seconds < 10.0);
}

static void copies_and_fills_on_each_kind_of_stream(void **state)
{
    fixture *f = *state;
    mz_stream *streams[] = {f->compute, f->comm, f->copy};
    for (int s = 0; s < 3; s++) {
        unsigned char a[64], b[64], rows[64];
        for (int i = 0; i < 64; i++)
            a[i] = (unsigned char)i;
        memset(b, 0xee, sizeof b);
        assert_int_equal(f->ops->fill(streams[s], rows, 0x55, sizeof rows), MZ_OK);
        assert_int_equal(f->ops->copy(streams[s], b, a, 10), MZ_OK);
        assert_int_equal(f->ops->copy_2d(streams[s], rows, 16, a, 8, 5, 3), MZ_OK);
        assert_int_equal(f->ops->copy(streams[s], NULL, NULL, 0), MZ_OK);
        assert_int_equal(f->ops->fill(streams[s], NULL, 1, 0), MZ_OK);
        assert_int_equal(f->ops->stream_sync(streams[s]), MZ_OK);
        for (int i = 0; i < 64; i++) {
            assert_int_equal(b[i], i < 10 ? i : 0xee);
            assert_int_equal(rows[i], i < 48 && i % 16 < 5 ? i / 16 * 8 + i % 16 : 0x55);
        }
    }
}

static void destroying_finishes_what_was_given(void **state)
{
    fixture *f = *state;
    journal j = {0};
    note slow = {.journal = &j, .pause = 10};
    mz_stream *stream;
    mz_event *event;
    assert_int_equal(f->ops->stream_create(f->device, MZ_STREAM_COPY, &stream), MZ_OK);
    assert_int_equal(f->ops->event_create(f->device, &event), MZ_OK);
    assert_int_equal(f->ops->host_call(stream, write_note, &slow), MZ_OK);
    assert_int_equal(f->ops->event_record(event, stream), MZ_OK);
    assert_int_equal(f->ops->wait(f->comm, event), MZ_OK);
    f->ops->event_destroy(event);
    f->ops->stream_destroy(stream);
    assert_int_equal(j.n, 1);
    f->ops->event_destroy(NULL);
    f->ops->stream_destroy(NULL);
}

static void only_compute_streams_have_the_pool(void **state)
{
    fixture *f = *state;
    assert_int_equal(mz_threads_count(mz_cpu_stream_threads(f->compute)), 2);
    assert_null(mz_cpu_stream_threads(f->comm));
    assert_null(mz_cpu_stream_threads(f->copy));
    assert_null(mz_cpu_stream_threads(NULL));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_device, close_device)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(work_of_a_stream_runs_in_order),
        TEST(workers_run_beside_the_caller),
        TEST(events_order_streams),
        TEST(a_wait_means_the_recording_before_it),
        TEST(an_event_may_move_to_another_stream),
        TEST(an_event_not_recorded_is_complete),
        TEST(a_failure_waits_for_the_sync_and_stops_the_stream),
        TEST(a_failure_passes_through_events),
        TEST(a_compute_stream_fails_at_once),
        TEST(words_hold_a_stream_for_what_comes_later),
        TEST(elapsed_time_is_that_between_the_events),
        TEST(copies_and_fills_on_each_kind_of_stream),
        TEST(destroying_finishes_what_was_given),
        TEST(only_compute_streams_have_the_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
