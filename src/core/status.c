#include "core/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char last_error[4096];

const char *mz_status_text(mz_status status)
{
    switch (status) {
#define X(name, value, text)                                                                                       \
    case name:                                                                                                     \
        return text;
        MZ_STATUS_LIST(X)
#undef X
    }
    return "unknown status";
}

const char *mz_last_error(void)
{
    return last_error;
}

/* Formats beside the old message first: the new one may quote it. */
mz_status mz_fail(mz_status code, const char *format, ...)
{
    char message[sizeof last_error];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    strcpy(last_error, message);
    return code;
}

mz_status mz_fail_errno(mz_status code, const char *format, ...)
{
    const char *reason = strerror(errno);
    va_list args;
    char message[sizeof last_error];
    va_start(args, format);
    int n = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof message)
        snprintf(message + n, sizeof message - (size_t)n, ": %s", reason);
    strcpy(last_error, message);
    return code;
}

mz_status mz_fail_adopt(mz_status code, const char *message)
{
    if (message != last_error)
        snprintf(last_error, sizeof last_error, "%s", message);
    return code;
}
