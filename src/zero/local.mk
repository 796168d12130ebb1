# Sources
libmpizero_a_SOURCES += src/zero/zero.h src/zero/internal.h src/zero/zero.c src/zero/groups.c src/zero/layout.h src/zero/layout.c \
	src/zero/checksums.c \
	src/zero/fetch_plan.h src/zero/fetch_plan.c src/zero/fetch.c src/zero/reduce.c src/zero/buckets.c \
	src/zero/update.c src/zero/refresh.c src/zero/state.c src/zero/memory.c src/zero/stall.h src/zero/stall.c

# Tests
zero_rig = tests/zero/rig.c tests/zero/rig.h
zero_tests = tests/zero/agree.np1 tests/zero/agree.np2 tests/zero/agree.np3 tests/zero/agree.np4 \
	tests/zero/keys.np2 tests/zero/keys.np3 tests/zero/memory tests/zero/odd_models.np2 tests/zero/overflow.np2 tests/zero/overflow.np3 \
	tests/zero/state.np4 tests/zero/groups.np4 tests/zero/groups.np8 tests/zero/checksums.np1 \
	tests/zero/checksums.np3 tests/zero/no_master.np1 tests/zero/no_master.np2 tests/zero/no_master.np4
check_PROGRAMS += $(zero_tests)
TESTS += $(zero_tests)
tests_zero_agree_np1_SOURCES = tests/zero/agree.c $(zero_rig)
tests_zero_agree_np2_SOURCES = tests/zero/agree.c $(zero_rig)
tests_zero_agree_np3_SOURCES = tests/zero/agree.c $(zero_rig)
tests_zero_agree_np4_SOURCES = tests/zero/agree.c $(zero_rig)
tests_zero_keys_np2_SOURCES = tests/zero/keys.c $(zero_rig)
tests_zero_keys_np3_SOURCES = tests/zero/keys.c $(zero_rig)
tests_zero_memory_SOURCES = tests/zero/memory.c $(zero_rig)
tests_zero_odd_models_np2_SOURCES = tests/zero/odd_models.c $(zero_rig)
tests_zero_overflow_np2_SOURCES = tests/zero/overflow.c $(zero_rig)
tests_zero_overflow_np3_SOURCES = tests/zero/overflow.c $(zero_rig)
tests_zero_state_np4_SOURCES = tests/zero/state.c $(zero_rig)
tests_zero_checksums_np1_SOURCES = tests/zero/checksums.c $(zero_rig)
tests_zero_checksums_np3_SOURCES = tests/zero/checksums.c $(zero_rig)
tests_zero_no_master_np1_SOURCES = tests/zero/no_master.c $(zero_rig)
tests_zero_no_master_np2_SOURCES = tests/zero/no_master.c $(zero_rig)
tests_zero_no_master_np4_SOURCES = tests/zero/no_master.c $(zero_rig)
tests_zero_groups_np4_SOURCES = tests/zero/groups.c $(zero_rig)
tests_zero_groups_np8_SOURCES = tests/zero/groups.c $(zero_rig)
if HAVE_CMOCKA
zero_unit_tests = tests/zero/test_layout tests/zero/test_fetch_plan
check_PROGRAMS += $(zero_unit_tests)
TESTS += $(zero_unit_tests)
tests_zero_test_layout_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_zero_test_fetch_plan_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif
