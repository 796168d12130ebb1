/* vocab.json, merges.txt, tokenizer_config.json, added_tokens.json and text to encode, as sections. */
#include <string.h>

#include "core/memory.h"
#include "data/tokenizer_files.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/use_tokenizer.h"

enum { VOCAB, MERGES, CONFIG, ADDED, TEXT, N_SECTIONS };

static mz_status parse(const fuzz_section *section, const char *name, mz_json *json)
{
    return section->bytes ? mz_json_parse(name, section->data, section->bytes, json) : MZ_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    fuzz_section sections[N_SECTIONS];
    mz_tokenizer_files files = {0};
    mz_tokenizer_parts parts;
    mz_tokenizer *tokenizer;
    fuzz_cut(data, bytes, sections, N_SECTIONS);
    mz_status status = parse(&sections[VOCAB], "vocab.json", &files.vocab);
    if (!status)
        status = parse(&sections[CONFIG], "tokenizer_config.json", &files.config);
    if (!status)
        status = parse(&sections[ADDED], "added_tokens.json", &files.added);
    if (!status && files.vocab.root) {
        const size_t n = sections[MERGES].bytes;
        files.merges_name = mz_strdup("merges.txt");
        files.merges = mz_alloc(n); /* no more than it has, so that reading past its end is found */
        files.merges_bytes = n;
        if (n)
            memcpy(files.merges, sections[MERGES].data, n);
        status = mz_tokenizer_parse_files(&files, &parts);
        if (!status)
            status = mz_tokenizer_from_parts("fuzz", NULL, &parts, &tokenizer);
        if (!status) {
            use_tokenizer(tokenizer, sections[TEXT].data ? sections[TEXT].data : "", sections[TEXT].bytes);
            mz_tokenizer_close(tokenizer);
        }
    }
    mz_tokenizer_files_free(&files);
    return 0;
}
