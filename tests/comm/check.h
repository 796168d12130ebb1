/* Plain checks for programs that run on several ranks: each rank counts its failures and exits with them. */
#ifndef MZ_TESTS_COMM_CHECK_H
#define MZ_TESTS_COMM_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpizero/status.h"

static int n_failures __attribute__((unused));

#define CHECK(condition, ...)                                                                                      \
    do {                                                                                                           \
        if (!(condition)) {                                                                                        \
            n_failures++;                                                                                          \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                        \
            fprintf(stderr, __VA_ARGS__);                                                                          \
            fputc('\n', stderr);                                                                                   \
        }                                                                                                          \
    } while (0)

/* For what the test cannot go on without. */
#define REQUIRE(call)                                                                                              \
    do {                                                                                                           \
        mz_status require_status = (call);                                                                         \
        if (require_status) {                                                                                      \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, mz_status_text(require_status),      \
                    mz_last_error());                                                                              \
            exit(1);                                                                                               \
        }                                                                                                          \
    } while (0)

#define CHECK_MESSAGE(text)                                                                                        \
    CHECK(strstr(mz_last_error(), text), "expected \"%s\" in the message, found \"%s\"", text, mz_last_error())

#endif
