/* Monotonic time in seconds. */
#ifndef MZ_CORE_CLOCK_H
#define MZ_CORE_CLOCK_H

double mz_clock_seconds(void);

#endif
