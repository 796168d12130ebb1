/* Attention over the key-value cache, q, k and v side by side or apart, with padding: what whole sequences give. */
#include "tests/core/cmocka_all.h"

#include <math.h>
#include <string.h>

#include "tensor/kv_cache.h"
#include "tests/tensor/rig.h"

enum { B = 2, T = 6, D = 6, HEADS = 3 };

/* Positions first .. first + n of x [B, T, width] as a tensor of their own. */
static mz_tensor *slice(rig *r, const mz_tensor *x, int64_t first, int64_t n)
{
    mz_tensor *part;
    int64_t width = mz_tensor_dim(x, 2);
    rig_ok(mz_tensor_create(r->tape, MZ_F32, 3, (const int64_t[]){B, n, width}, &part), "slice");
    for (int64_t b = 0; b < B; b++)
        memcpy((float *)mz_tensor_data(part) + b * n * width,
               (const float *)mz_tensor_data(x) + (b * T + first) * width, (size_t)(n * width) * sizeof(float));
    return part;
}

static mz_tensor *attend(rig *r, mz_tensor *const x[3], bool fused, const mz_attention_options *options)
{
    mz_tensor *o;
    mz_status status = fused ? mz_attention_fused(r->tape, x[0], options, &o)
                             : mz_attention(r->tape, x[0], x[1], x[2], options, &o);
    rig_ok(status, "attention");
    return o;
}

static void check(bool fused, const int *pieces, const uint8_t *mask)
{
    rig r;
    mz_kv_cache *cache;
    mz_tensor *x[3] = {NULL}, *keys = NULL;
    int64_t done = 0;
    rig_open(&r, "cpu", 0);
    rig_ok(mz_kv_cache_create(r.device, 2, B, T, D, MZ_F32, &cache), "cache");
    for (int i = 0; i < (fused ? 1 : 3); i++)
        x[i] = rig_tensor(&r, 3, (const int64_t[]){B, T, fused ? 3 * D : D}, (uint64_t)i + 1);
    if (mask)
        rig_ok(mz_tensor_borrow(r.tape, MZ_U8, 2, (const int64_t[]){B, T}, (void *)mask, &keys), "mask");
    mz_attention_options options = {.heads = HEADS, .causal = true, .key_mask = keys};
    mz_tensor *whole = attend(&r, x, fused, &options);
    for (; *pieces > 0; pieces++) {
        mz_tensor *part[3] = {NULL}, *so_far = NULL;
        uint8_t seen[B * T];
        int64_t n = *pieces, length = done + n;
        for (int i = 0; i < 3 && x[i]; i++)
            part[i] = slice(&r, x[i], done, n);
        for (int64_t b = 0; mask && b < B; b++)
            memcpy(seen + b * length, mask + b * T, (size_t)length);
        if (mask)
            rig_ok(mz_tensor_borrow(r.tape, MZ_U8, 2, (const int64_t[]){B, length}, seen, &so_far), "mask");
        options =
            (mz_attention_options){.heads = HEADS, .causal = true, .key_mask = so_far, .cache = cache, .layer = 1};
        mz_tensor *got = attend(&r, part, fused, &options);
        mz_tensor *want = slice(&r, whole, done, n);
        for (int64_t i = 0; i < mz_tensor_numel(got); i++)
            assert_true(fabsf(((float *)mz_tensor_data(got))[i] - ((float *)mz_tensor_data(want))[i]) <= 1e-5f);
        mz_kv_cache_commit(cache);
        done += n;
        assert_int_equal(mz_kv_cache_length(cache), done);
    }
    mz_kv_cache_destroy(cache);
    rig_close(&r);
}

static void pieces_make_the_whole(void **state)
{
    (void)state;
    static const int by_one[] = {1, 1, 1, 1, 1, 1, 0}, prompt[] = {4, 1, 1, 0}, mixed[] = {2, 3, 1, 0};
    static const uint8_t left[] = {0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    for (int fused = 0; fused <= 1; fused++) {
        check(fused, by_one, NULL);
        check(fused, prompt, NULL);
        check(fused, mixed, left);
        check(fused, by_one, left);
    }
}

static void refused(void **state)
{
    (void)state;
    rig r;
    mz_kv_cache *cache = NULL;
    mz_tensor *o = NULL;
    rig_open(&r, "cpu", 0);
    assert_int_equal(mz_kv_cache_create(r.device, 1, 0, T, D, MZ_F32, &cache), MZ_ERR_ARGUMENT);
    rig_ok(mz_kv_cache_create(r.device, 1, B, T, D, MZ_F32, &cache), "cache");
    mz_attention_options options = {.heads = HEADS, .causal = true, .cache = cache};
    mz_tensor *other = rig_tensor(&r, 3, (const int64_t[]){B + 1, 1, 3 * D}, 1);
    assert_int_equal(mz_attention_fused(r.tape, other, &options, &o), MZ_ERR_ARGUMENT);
    assert_non_null(strstr(mz_last_error(), "expected a cache of [3, .., 6] f32"));
    mz_tensor *long_one = rig_tensor(&r, 3, (const int64_t[]){B, T + 1, 3 * D}, 1);
    assert_int_equal(mz_attention_fused(r.tape, long_one, &options, &o), MZ_ERR_ARGUMENT);
    assert_non_null(strstr(mz_last_error(), "7 positions do not fit"));
    options.layer = 1;
    mz_tensor *x = rig_tensor(&r, 3, (const int64_t[]){B, 1, 3 * D}, 1);
    assert_int_equal(mz_attention_fused(r.tape, x, &options, &o), MZ_ERR_ARGUMENT);
    assert_non_null(strstr(mz_last_error(), "layer 1 of 1"));
    mz_tape_set_mode(r.tape, true, true);
    options.layer = 0;
    assert_int_equal(mz_attention_fused(r.tape, x, &options, &o), MZ_ERR_ARGUMENT);
    assert_non_null(strstr(mz_last_error(), "no gradients"));
    assert_null(o);
    mz_kv_cache_destroy(cache);
    mz_kv_cache_destroy(NULL);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pieces_make_the_whole), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
