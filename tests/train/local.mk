if HAVE_CMOCKA
train_units = tests/train/test_sampling tests/train/test_trackers
check_PROGRAMS += $(train_units)
TESTS += $(train_units)
tests_train_test_sampling_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_train_test_trackers_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif

overflow_tests = tests/train/overflow.np1 tests/train/overflow.np2
check_PROGRAMS += $(overflow_tests)
TESTS += $(overflow_tests)
tests_train_overflow_np1_SOURCES = tests/train/overflow.c
tests_train_overflow_np2_SOURCES = tests/train/overflow.c

train_scripts = tests/train/bench.sh tests/train/bad_input.sh tests/train/damage.sh tests/train/estimate.sh \
	tests/train/full_disk.sh tests/train/groups.sh tests/train/kill.sh \
	tests/train/parity.sh tests/train/published.sh tests/train/rounding.sh \
	tests/train/resume.sh tests/train/no_master.sh tests/train/schedule.sh tests/train/signals.sh \
	tests/train/stages.sh tests/train/transformers.sh
EXTRA_DIST += tests/train/lib.sh tests/train/transformers_loss.py $(train_scripts)
TESTS += $(train_scripts)
