/* An arena: one block of device memory taken before the first step, from which activations and work
 * space are cut. A training step makes the same sequence of requests each time, so a step played on the
 * meta device tells the arena's exact peak; nothing is asked of the device after that.
 *
 * Best fit over an address-ordered free list, merged on free: O(live blocks), deterministic. */
#ifndef MZ_DEVICE_ARENA_H
#define MZ_DEVICE_ARENA_H

#include "device/device.h"

typedef struct mz_arena mz_arena;

/* bytes == 0 makes a growing arena: it takes slabs from the device as needed (for user programs that
 * have not planned). Otherwise exactly one device allocation of `bytes`. `device` is borrowed. */
mz_status mz_arena_create(mz_device *device, size_t bytes, mz_arena **arena);
void mz_arena_destroy(mz_arena *arena);

/* 256-byte aligned. MZ_ERR_MEMORY names the size asked for, in use and available. */
mz_status mz_arena_alloc(mz_arena *arena, size_t bytes, void **memory);
void mz_arena_free(mz_arena *arena, void *memory); /* NULL is legal */
/* Frees every block. */
void mz_arena_reset(mz_arena *arena);

/* Bytes in live blocks; the highest address ever used, as an offset (what a fixed arena must have). */
size_t mz_arena_used(const mz_arena *arena);
size_t mz_arena_peak(const mz_arena *arena);

#endif
