/* The four conversions between fp32 and 16 bits over a range, by instruction set. All give the same bits. */
#ifndef MZ_CORE_HALF_SETS_H
#define MZ_CORE_HALF_SETS_H

#include <stdint.h>

typedef struct mz_half_set {
    const char *name;
    void (*f16_to_f32)(float *dst, const uint16_t *src, int64_t n);
    void (*f32_to_f16)(uint16_t *dst, const float *src, int64_t n);
    void (*bf16_to_f32)(float *dst, const uint16_t *src, int64_t n);
    void (*f32_to_bf16)(uint16_t *dst, const float *src, int64_t n);
} mz_half_set;

/* Plain C: the definition, and what the vectorised sets use for the last few elements. */
extern const mz_half_set mz_half_plain;

/* Sets that this processor can run, the best first, mz_half_plain last; NULL when i is past the end. */
const mz_half_set *mz_half_set_at(int i);

#endif
