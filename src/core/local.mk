# Sources
libmpizero_a_SOURCES += src/core/status.c src/core/error.h src/core/log.h src/core/memory.h src/core/rng.h \
	src/core/threads.h src/core/half.h src/core/clock.h src/core/file.h src/core/json.h

# Tests
