/* Any text through a tokenizer that has all bytes: well-formed text comes back as it was, other text is refused. */
#include <string.h>

#include "core/memory.h"
#include "data/tokenizer_files.h"
#include "data/utf8.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/use_tokenizer.h"

/* All bytes, a few merges and two added tokens; made once. */
static mz_tokenizer *make_tokenizer(void)
{
    static const char merges[] = "t h\nth e\n\xc4\xa0 the\n\xc4\xa0 \xc4\xa0\n\xc4\x8a \xc4\x8a\na a\naa aa\n' s\n";
    static const char *const whole[] = {"th", "the",  "\xc4\xa0the", "\xc4\xa0\xc4\xa0", "\xc4\x8a\xc4\x8a",
                                        "aa", "aaaa", "'s",          "<|endoftext|>",    "<|"};
    mz_tokenizer_files files = {0};
    mz_tokenizer_parts parts;
    mz_tokenizer *tokenizer;
    files.vocab = (mz_json){.root = json_object(), .name = mz_strdup("vocab.json"), .text = mz_strdup("{}")};
    for (int byte = 0, next = 0x100; byte < 256; byte++) {
        const int prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
        char character[5] = {0};
        mz_utf8_encode((uint32_t)(prints ? byte : next++), character);
        json_object_set_new(files.vocab.root, character, json_integer(byte));
    }
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        json_object_set_new(files.vocab.root, whole[i], json_integer((json_int_t)(256 + i)));
    files.merges_name = mz_strdup("merges.txt");
    files.merges = mz_strdup(merges);
    files.merges_bytes = sizeof merges - 1;
    FUZZ_REQUIRE(mz_tokenizer_parse_files(&files, &parts) == MZ_OK);
    FUZZ_REQUIRE(mz_tokenizer_from_parts("fuzz", NULL, &parts, &tokenizer) == MZ_OK);
    mz_tokenizer_files_free(&files);
    return tokenizer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static mz_tokenizer *tokenizer; /* lives as long as the process */
    const char *text = (const char *)data;
    int32_t *ids = NULL;
    int64_t n = 0, capacity = 0;
    if (!tokenizer)
        tokenizer = make_tokenizer();
    const bool well_formed = mz_utf8_valid_prefix(text, bytes) == bytes;
    const mz_status status = mz_tokenizer_encode(tokenizer, text, bytes, true, &ids, &n, &capacity);
    FUZZ_REQUIRE(status == (well_formed ? MZ_OK : MZ_ERR_DATA));
    if (!status) {
        char *back;
        size_t back_bytes;
        FUZZ_REQUIRE(mz_tokenizer_decode(tokenizer, ids, n, &back, &back_bytes) == MZ_OK);
        FUZZ_REQUIRE(back_bytes == bytes && (bytes == 0 || memcmp(back, text, bytes) == 0));
        mz_free(back);
    }
    mz_free(ids);
    return 0;
}
