# Sources
libmpizero_a_SOURCES += src/zero/zero.h src/zero/internal.h src/zero/zero.c src/zero/layout.h src/zero/layout.c \
	src/zero/fetch_plan.h src/zero/fetch_plan.c src/zero/fetch.c src/zero/reduce.c src/zero/buckets.c \
	src/zero/update.c src/zero/refresh.c src/zero/state.c src/zero/memory.c src/zero/stall.h src/zero/stall.c

# Tests
if HAVE_CMOCKA
zero_tests = tests/zero/test_layout tests/zero/test_fetch_plan
check_PROGRAMS += $(zero_tests)
TESTS += $(zero_tests)
tests_zero_test_layout_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_zero_test_fetch_plan_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif
