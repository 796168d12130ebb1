#include "data/bpe_words.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdbool.h>

#include "core/error.h"
#include "core/memory.h"

/* Unicode's White_Space property, spelled out: PCRE2's own \s counts U+180E too, which is none since Unicode 6.3.
 */
#define BLANK "\\x09-\\x0d \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

/* The alternatives of OpenAI's encoder.py: English contractions, then letters, digits or other signs with at most
 * one space in front, then white space, which leaves its last character to the word that follows. */
static const char words[] = "'s|'t|'re|'ve|'m|'ll|'d"
                            "| ?\\p{L}+| ?\\p{N}+| ?[^" BLANK "\\p{L}\\p{N}]+"
                            "|[" BLANK "]+(?![^" BLANK "])|[" BLANK "]+";

struct mz_word_pattern {
    pcre2_code *code;
    bool jit;
};

struct mz_word_matcher {
    const mz_word_pattern *pattern; /* borrowed */
    pcre2_match_data *match;
};

mz_status mz_word_pattern_create(mz_word_pattern **out)
{
    mz_word_pattern *pattern = mz_calloc(1, sizeof *pattern);
    int error;
    PCRE2_SIZE offset;
    if (!pattern)
        return MZ_ERR_MEMORY;
    pattern->code = pcre2_compile((PCRE2_SPTR)words, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &offset, NULL);
    if (!pattern->code) {
        mz_word_pattern_destroy(pattern);
        return mz_fail(MZ_ERR_INTERNAL, "the pattern of words does not compile (PCRE2 error %d at %zu)", error,
                       offset);
    }
    pattern->jit = pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE) == 0; /* else it is interpreted */
    *out = pattern;
    return MZ_OK;
}

void mz_word_pattern_destroy(mz_word_pattern *pattern)
{
    if (!pattern)
        return;
    pcre2_code_free(pattern->code);
    mz_free(pattern);
}

mz_status mz_word_matcher_create(const mz_word_pattern *pattern, mz_word_matcher **out)
{
    mz_word_matcher *matcher = mz_calloc(1, sizeof *matcher);
    if (!matcher)
        return MZ_ERR_MEMORY;
    matcher->pattern = pattern;
    matcher->match = pcre2_match_data_create(1, NULL);
    if (!matcher->match) {
        mz_word_matcher_destroy(matcher);
        return mz_fail(MZ_ERR_MEMORY, "out of memory: PCRE2 match data");
    }
    *out = matcher;
    return MZ_OK;
}

void mz_word_matcher_destroy(mz_word_matcher *matcher)
{
    if (!matcher)
        return;
    pcre2_match_data_free(matcher->match);
    mz_free(matcher);
}

mz_status mz_word_end(mz_word_matcher *matcher, const char *text, size_t bytes, size_t begin, size_t *end)
{
    const mz_word_pattern *pattern = matcher->pattern;
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    const int n = pattern->jit
                      ? pcre2_jit_match(pattern->code, subject, bytes, begin, 0, matcher->match, NULL)
                      : pcre2_match(pattern->code, subject, bytes, begin, PCRE2_NO_UTF_CHECK, matcher->match, NULL);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(matcher->match);
    if (n < 1 || span[0] != begin || span[1] <= begin)
        return mz_fail(MZ_ERR_INTERNAL, "PCRE2 finds no word at byte %zu of %zu (result %d)", begin, bytes, n);
    *end = span[1];
    return MZ_OK;
}
