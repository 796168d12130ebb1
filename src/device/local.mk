# Sources
libmpizero_a_SOURCES += src/device/device.h src/device/arena.h src/device/cpu_stream.h

# Tests
