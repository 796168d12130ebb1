# Sources
libmpizero_a_SOURCES += src/optim/loss_scale.c src/optim/loss_scale.h src/optim/schedule.c src/optim/schedule.h

# Tests
EXTRA_DIST += tests/optim/make_schedules.py tests/optim/schedules.json
if HAVE_CMOCKA
check_PROGRAMS += tests/optim/test_schedules
TESTS += tests/optim/test_schedules
tests_optim_test_schedules_SOURCES = tests/optim/test_schedules.c tests/config/config_test.c tests/config/config_test.h
tests_optim_test_schedules_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_optim_test_schedules_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif
