/* Fuzzing the readers of files that come from outside.
 *
 * A target is one file, fuzz_NAME.c, with a LLVMFuzzerTestOneInput that hands its input to a reader. Any input may
 * be refused with a status; none may crash, hang, leak or break a property that the target asserts with
 * FUZZ_REQUIRE. Its seeds are the files of seeds/NAME/. To add a target, write the two and name it in local.mk.
 *
 * Built with libFuzzer (tests/fuzz/run), the compiler guides the search. Built without (make check), replay.c gives
 * the program a main that runs the seeds and then mutations of them for a second or two. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A property that holds for every input, in any build. */
#define FUZZ_REQUIRE(condition)                                                                                    \
    do {                                                                                                           \
        if (!(condition)) {                                                                                        \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                         \
            abort();                                                                                               \
        }                                                                                                          \
    } while (0)

/* Inputs that stand for several files: sections, each ended by a line of its own, "====" and a newline; the last
 * ends with the input. Fills at most n sections; those that are missing have data NULL and no bytes. */
typedef struct fuzz_section {
    const char *data;
    size_t bytes;
} fuzz_section;
void fuzz_cut(const uint8_t *data, size_t bytes, fuzz_section *sections, int n);

#endif
