#include "tests/core/cmocka_all.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"
#include "core/half_sets.h"
#include "core/rng.h"

static uint32_t bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* The value of a binary16 pattern by the text of IEEE 754. */
static double f16_value(uint16_t h)
{
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const double sign = h & 0x8000 ? -1 : 1;
    if (exponent == 31)
        return fraction ? NAN : sign * INFINITY;
    return exponent == 0 ? sign * ldexp(fraction, -24) : sign * ldexp(1024 + fraction, exponent - 25);
}

static void f16_every_pattern(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = mz_f16_to_f32((uint16_t)h);
        const double expected = f16_value((uint16_t)h);
        if (isnan(expected)) {
            assert_true(isnan(f) && isnan(mz_f16_to_f32(mz_f32_to_f16(f))));
            continue;
        }
        assert_true((double)f == expected && !signbit(f) == !signbit(expected));
        assert_int_equal(mz_f32_to_f16(f), h);
    }
}

static void bf16_every_pattern(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = mz_bf16_to_f32((uint16_t)h);
        assert_int_equal(bits(f), h << 16);
        if (isnan(f))
            assert_true(isnan(mz_bf16_to_f32(mz_f32_to_bf16(f))));
        else
            assert_int_equal(mz_f32_to_bf16(f), h);
    }
}

/* Between neighbours h and h+1: the middle goes to the even one, a hair beside it to the nearer one. */
static void rounding_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
        for (uint32_t h = 0; h < 0x7c00; h++) {
            const float low = mz_f16_to_f32((uint16_t)h);
            const float high = h == 0x7bff ? 65536.0f : mz_f16_to_f32((uint16_t)(h + 1));
            const float middle = copysignf((low + high) / 2, sign ? -1.0f : 1.0f);
            const uint32_t even = h & 1 ? h + 1 : h;
            assert_int_equal(mz_f32_to_f16(middle), sign | even);
            assert_int_equal(mz_f32_to_f16(nextafterf(middle, 0)), sign | h);
            assert_int_equal(mz_f32_to_f16(nextafterf(middle, middle * 2)), sign | (h + 1));
        }
        for (uint32_t h = 0; h < 0x7f80; h++) {
            const uint32_t middle = sign << 16 | h << 16 | 0x8000u;
            assert_int_equal(mz_f32_to_bf16(from_bits(middle)), sign | (h & 1 ? h + 1 : h));
            assert_int_equal(mz_f32_to_bf16(from_bits(middle - 1)), sign | h);
            assert_int_equal(mz_f32_to_bf16(from_bits(middle + 1)), sign | (h + 1));
        }
    }
}

/* Every instruction set gives the plain set's bits, at lengths that leave a remainder. */
static void sets_agree(void **state)
{
    enum { N = 65536 + 13 };
    float *wide = malloc(N * sizeof *wide), *wide2 = malloc(N * sizeof *wide);
    uint16_t *narrow = malloc(N * sizeof *narrow), *narrow2 = malloc(N * sizeof *narrow);
    const mz_half_set *plain = &mz_half_plain;
    (void)state;
    for (int s = 0; mz_half_set_at(s); s++) {
        const mz_half_set *set = mz_half_set_at(s);
        print_message("  %s\n", set->name);
        for (uint64_t step = 0; step < 40; step++) {
            /* any bits, then values near the limits of binary16 */
            for (int i = 0; i < N; i++) {
                const uint32_t u = mz_rng_u32(1, 2, step, (uint64_t)i);
                wide[i] = from_bits(step % 2 ? u : (u & 0x8fffffffu) | 0x30000000u);
                narrow[i] = (uint16_t)i;
            }
            plain->f32_to_f16(narrow, wide, N);
            set->f32_to_f16(narrow2, wide, N);
            assert_memory_equal(narrow, narrow2, N * sizeof *narrow);
            plain->f32_to_bf16(narrow, wide, N);
            set->f32_to_bf16(narrow2, wide, N);
            assert_memory_equal(narrow, narrow2, N * sizeof *narrow);
        }
        for (int i = 0; i < N; i++)
            narrow[i] = (uint16_t)i;
        plain->f16_to_f32(wide, narrow, N);
        set->f16_to_f32(wide2, narrow, N);
        assert_memory_equal(wide, wide2, N * sizeof *wide);
        plain->bf16_to_f32(wide, narrow, N);
        set->bf16_to_f32(wide2, narrow, N);
        assert_memory_equal(wide, wide2, N * sizeof *wide);
    }
    free(wide);
    free(wide2);
    free(narrow);
    free(narrow2);
}

static void convert_between_all(void **state)
{
    static const mz_dtype dtypes[] = {MZ_F32, MZ_F16, MZ_BF16, MZ_F64};
    enum { N = 1111 };
    double src[N], dst[N + 1];
    (void)state;
    for (int a = 0; a < 4; a++) {
        for (int b = 0; b < 4; b++) {
            const size_t size = mz_dtype_size(dtypes[b]);
            for (int i = 0; i < N; i++)
                mz_store_f32(src, dtypes[a], i, (float)(i - 500) * 0.37f);
            memset(dst, 0xa5, sizeof dst);
            mz_convert(dst, dtypes[b], src, dtypes[a], N);
            for (int i = 0; i < N; i++) {
                double expected;
                mz_store_f32(&expected, dtypes[b], 0, mz_load_f32(src, dtypes[a], i));
                assert_memory_equal((char *)dst + (size_t)i * size, &expected, size);
            }
            assert_int_equal(((unsigned char *)dst)[N * size], 0xa5);
        }
    }
}

static void dtype_names(void **state)
{
    (void)state;
    assert_string_equal(mz_dtype_name(MZ_BF16), "bf16");
    assert_string_equal(mz_dtype_name(MZ_U8), "u8");
    assert_int_equal(mz_dtype_size(MZ_F64), 8);
    assert_int_equal(mz_dtype_size(MZ_F16), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_every_pattern),        cmocka_unit_test(bf16_every_pattern),
        cmocka_unit_test(rounding_to_nearest_even), cmocka_unit_test(sets_agree),
        cmocka_unit_test(convert_between_all),      cmocka_unit_test(dtype_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
