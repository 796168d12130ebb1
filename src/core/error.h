/* Reporting failures: the first place that knows the cause writes one message, callers propagate. */
#ifndef MZ_CORE_ERROR_H
#define MZ_CORE_ERROR_H

#include "mpizero/status.h"

/* Records a message for this thread (mz_last_error) and returns `code`, so that
 *     return mz_fail(MZ_ERR_CONFIG, "%s:%d: key \"%s\": expected ..., found ...; do ...", ...);
 * reads as one statement. Logs nothing: main prints the message once. */
mz_status mz_fail(mz_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with ": <strerror(errno)>" appended. */
mz_status mz_fail_errno(mz_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Takes over a failure of another thread: records `message` as this thread's last error. */
mz_status mz_fail_adopt(mz_status code, const char *message);

#endif
