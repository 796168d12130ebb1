# Sources
libmpizero_a_SOURCES += src/device/device.h src/device/device.c src/device/backends.h src/device/arena.h \
	src/device/arena.c src/device/cpu.c src/device/cpu_stream.h src/device/cpu_queue.h src/device/cpu_queue.c \
	src/device/placement.h src/device/placement.c src/device/meta.h src/device/meta.c src/device/meta_kernels.c

# Tests
check_PROGRAMS += tests/device/awaits
TESTS += tests/device/awaits
if HAVE_CMOCKA
device_tests = tests/device/test_arena tests/device/test_device tests/device/test_placement \
	tests/device/test_stream
check_PROGRAMS += $(device_tests)
TESTS += $(device_tests)
tests_device_test_arena_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_device_test_device_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_device_test_placement_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_device_test_stream_LDADD = $(LDADD) $(CMOCKA_LIBS)
if HAVE_CUDA
check_PROGRAMS += tests/device/test_choices
TESTS += tests/device/test_choices
tests_device_test_choices_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif
endif
