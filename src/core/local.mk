# Sources
libmpizero_a_SOURCES += src/core/status.c src/core/error.h src/core/log.h src/core/memory.h src/core/rng.h \
	src/core/threads.h src/core/half.h src/core/clock.h src/core/file.h src/core/json.h \
	src/core/cgroup.c src/core/cgroup.h src/core/clock.c src/core/copy.c src/core/copy.h src/core/crc32c.c src/core/crc32c.h src/core/dtype.c \
	src/core/file.c src/core/half.c src/core/half_sets.c src/core/half_sets.h src/core/json.c src/core/log.c \
	src/core/memory.c src/core/rng.c src/core/rng_normal.c src/core/rng_normal.h src/core/threads.c

# Tests
EXTRA_DIST += tests/core/cmocka_all.h
if HAVE_CMOCKA
core_tests = tests/core/test_copy tests/core/test_file tests/core/test_half tests/core/test_json tests/core/test_memory \
	tests/core/test_rng tests/core/test_threads
check_PROGRAMS += $(core_tests)
TESTS += $(core_tests)
tests_core_test_copy_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_core_test_file_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_core_test_half_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_core_test_json_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_core_test_memory_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_core_test_rng_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_core_test_threads_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif

# The configuration reader
libmpizero_a_SOURCES += src/core/config.c src/core/config_batch.c src/core/config_dump.c src/core/config_flags.c \
	src/core/config_internal.h src/core/config_keys.c src/core/config_message.c src/core/config_optim.c \
	src/core/config_precision.c src/core/config_read.c src/core/config_table.c src/core/config_yaml.c \
	src/core/config_zero.c src/core/nearest.c src/core/nearest.h

EXTRA_DIST += docs/CONFIG.md

if HAVE_CMOCKA
config_tests = tests/config/test_bad tests/config/test_doc tests/config/test_good
check_PROGRAMS += $(config_tests)
TESTS += $(config_tests)
tests_config_test_bad_SOURCES = tests/config/test_bad.c tests/config/config_test.c tests/config/config_test.h
tests_config_test_bad_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_config_test_good_SOURCES = tests/config/test_good.c tests/config/config_test.c tests/config/config_test.h
tests_config_test_good_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_config_test_doc_SOURCES = tests/config/test_doc.c
endif
