#include "tests/fuzz/use_tokenizer.h"

#include "core/memory.h"
#include "tests/fuzz/fuzz.h"

void use_tokenizer(const mz_tokenizer *tokenizer, const char *text, size_t bytes)
{
    for (int special = 0; special < 2; special++) {
        int32_t *ids = NULL;
        int64_t n = 0, capacity = 0;
        char *back;
        size_t back_bytes;
        if (mz_tokenizer_encode(tokenizer, text, bytes, special, &ids, &n, &capacity) == MZ_OK) {
            for (int64_t i = 0; i < n; i++)
                FUZZ_REQUIRE(ids[i] >= 0 && ids[i] < mz_tokenizer_vocab(tokenizer));
            FUZZ_REQUIRE(mz_tokenizer_decode(tokenizer, ids, n, &back, &back_bytes) == MZ_OK);
            mz_free(back);
        } else {
            FUZZ_REQUIRE(n == 0);
        }
        mz_free(ids);
    }
    (void)mz_tokenizer_fingerprint(tokenizer);
}
