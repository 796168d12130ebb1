/* Status codes. Every function of mpizero that can fail returns an mz_status; 0 is success. */
#ifndef MPIZERO_STATUS_H
#define MPIZERO_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* One list, so that codes and texts cannot drift apart: name, value, text. */
#define MZ_STATUS_LIST(X)                                                                  \
    X(MZ_OK, 0, "success")                                                                 \
    X(MZ_ERR_ARGUMENT, 1, "invalid argument")                                              \
    X(MZ_ERR_USAGE, 2, "wrong command line")                                               \
    X(MZ_ERR_CONFIG, 3, "invalid configuration")                                           \
    X(MZ_ERR_MODEL, 4, "invalid model folder or weights")                                  \
    X(MZ_ERR_DATA, 5, "invalid data")                                                      \
    X(MZ_ERR_CHECKPOINT, 6, "invalid or damaged checkpoint")                               \
    X(MZ_ERR_LAUNCH, 7, "wrong launch")                                                    \
    X(MZ_ERR_IO, 8, "input or output failed")                                              \
    X(MZ_ERR_MEMORY, 9, "out of memory")                                                   \
    X(MZ_ERR_DEVICE, 10, "device failed")                                                  \
    X(MZ_ERR_COMM, 11, "communication failed")                                             \
    X(MZ_ERR_TIMEOUT, 12, "a rank did not arrive in time")                                 \
    X(MZ_ERR_MISMATCH, 13, "ranks disagree")                                               \
    X(MZ_ERR_NONFINITE, 14, "a value is infinite or not a number")                         \
    X(MZ_ERR_UNSUPPORTED, 15, "not supported")                                             \
    X(MZ_ERR_INTERNAL, 16, "internal error")                                               \
    X(MZ_STOPPED, 17, "stopped by a signal after saving")                                  \
    X(MZ_ERR_PEER, 18, "another rank failed")

typedef enum mz_status {
#define X(name, value, text) name = value,
    MZ_STATUS_LIST(X)
#undef X
} mz_status;

/* The fixed English text of a status code; "unknown status" for any other value. Never NULL. */
const char *mz_status_text(mz_status status);

/* The message that the first failing function of this thread wrote: what was expected, what was
 * found and what to do. "" when nothing failed yet. Borrowed; valid until this thread's next failure. */
const char *mz_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
