if HAVE_CMOCKA
train_units = tests/train/test_sampling tests/train/test_trackers
check_PROGRAMS += $(train_units)
TESTS += $(train_units)
tests_train_test_sampling_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_train_test_trackers_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif
