# Sources
libmpizero_a_SOURCES += src/device/device.h src/device/device.c src/device/backends.h src/device/arena.h \
	src/device/arena.c src/device/cpu.c src/device/cpu_stream.h src/device/cpu_queue.h src/device/cpu_queue.c \
	src/device/meta.h src/device/meta.c src/device/meta_kernels.c

# Tests
