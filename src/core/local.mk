# Sources
libmpizero_a_SOURCES += src/core/status.c src/core/error.h src/core/log.h src/core/memory.h src/core/rng.h \
	src/core/threads.h src/core/half.h src/core/clock.h src/core/file.h src/core/json.h \
	src/core/cgroup.c src/core/cgroup.h src/core/clock.c src/core/crc32c.c src/core/dtype.c src/core/file.c \
	src/core/half.c src/core/json.c src/core/log.c src/core/memory.c src/core/rng.c src/core/threads.c

# Tests
