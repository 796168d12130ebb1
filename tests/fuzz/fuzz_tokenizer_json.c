/* tokenizer.json; after a section mark, text to encode with what it gives. */
#include <string.h>

#include "core/memory.h"
#include "data/tokenizer_files.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/use_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    fuzz_section sections[2];
    mz_tokenizer_files files = {0};
    mz_tokenizer_parts parts;
    mz_tokenizer *tokenizer;
    fuzz_cut(data, bytes, sections, 2);
    mz_status status = mz_json_parse("tokenizer.json", sections[0].data, sections[0].bytes, &files.tokenizer);
    if (!status)
        status = mz_tokenizer_parse_files(&files, &parts);
    if (!status)
        status = mz_tokenizer_from_parts("fuzz", NULL, &parts, &tokenizer);
    if (!status) {
        use_tokenizer(tokenizer, sections[1].data ? sections[1].data : "", sections[1].bytes);
        mz_tokenizer_close(tokenizer);
    } else {
        FUZZ_REQUIRE(strncmp(mz_last_error(), "tokenizer.json", 14) == 0);
    }
    mz_tokenizer_files_free(&files);
    return 0;
}
