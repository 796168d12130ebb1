#include "train/event_file.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"

/* A record under construction; one step's scalars fit many times over. */
typedef struct buffer {
    uint8_t data[4096];
    size_t n;
} buffer;

static void put_bytes(buffer *b, const void *data, size_t n)
{
    if (b->n + n > sizeof b->data)
        return;
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void put_varint(buffer *b, uint64_t value)
{
    do {
        uint8_t byte = (uint8_t)(value & 0x7f);
        value >>= 7;
        byte |= value ? 0x80 : 0;
        put_bytes(b, &byte, 1);
    } while (value);
}

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static void put_key(buffer *b, int field, int wire)
{
    put_varint(b, (uint64_t)(field << 3 | wire));
}

static void put_string(buffer *b, int field, const void *data, size_t n)
{
    put_key(b, field, WIRE_BYTES);
    put_varint(b, n);
    put_bytes(b, data, n);
}

static double wall_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The format's own disguise of CRC-32C, so that a checksum of checksums does not degenerate. */
static uint32_t masked_crc(const void *data, size_t n)
{
    uint32_t crc = mz_crc32c(0, data, n);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static int write_record(FILE *file, const buffer *record)
{
    uint64_t length = record->n;
    uint32_t length_crc = masked_crc(&length, sizeof length), data_crc = masked_crc(record->data, record->n);
    return fwrite(&length, sizeof length, 1, file) == 1 && fwrite(&length_crc, sizeof length_crc, 1, file) == 1 &&
           fwrite(record->data, 1, record->n, file) == record->n &&
           fwrite(&data_crc, sizeof data_crc, 1, file) == 1 && fflush(file) == 0;
}

/* Event: wall_time = 1 (double), step = 2 (int64). */
static void begin_event(buffer *event, int64_t step)
{
    double now = wall_time();
    event->n = 0;
    put_key(event, 1, WIRE_FIXED64);
    put_bytes(event, &now, sizeof now);
    put_key(event, 2, WIRE_VARINT);
    put_varint(event, (uint64_t)step);
}

mz_status mz_event_file_open(const char *folder, FILE **file)
{
    char host[128] = "localhost";
    gethostname(host, sizeof host - 1);
    mz_status st = mz_make_directories(folder);
    char *path =
        mz_strprintf("%s/events.out.tfevents.%lld.%s.%ld", folder, (long long)wall_time(), host, (long)getpid());
    FILE *f = st == MZ_OK && path ? fopen(path, "wb") : NULL;
    if (st == MZ_OK && !f)
        st = mz_fail_errno(MZ_ERR_IO, "%s", path ? path : folder);
    mz_free(path);
    if (st != MZ_OK)
        return st;
    static const char version[] = "brain.Event:2";
    buffer event;
    begin_event(&event, 0);
    put_string(&event, 3, version, sizeof version - 1); /* file_version = 3 */
    if (!write_record(f, &event)) {
        st = mz_fail_errno(MZ_ERR_IO, "%s: writing an event file", folder);
        fclose(f);
        return st;
    }
    *file = f;
    return MZ_OK;
}

int mz_event_file_put(FILE *file, int64_t step, const mz_event_scalar *scalars, int n)
{
    buffer event, summary = {.n = 0};
    for (int i = 0; i < n; i++) { /* Summary: value = 1 {tag = 1, simple_value = 2} */
        buffer value = {.n = 0};
        float x = (float)scalars[i].value;
        put_string(&value, 1, scalars[i].tag, strlen(scalars[i].tag));
        put_key(&value, 2, WIRE_FIXED32);
        put_bytes(&value, &x, sizeof x);
        put_string(&summary, 1, value.data, value.n);
    }
    begin_event(&event, step);
    put_string(&event, 5, summary.data, summary.n); /* summary = 5 */
    return write_record(file, &event);
}
