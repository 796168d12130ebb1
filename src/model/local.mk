# Sources
libmpizero_a_SOURCES += src/model/model.h src/model/runner.h src/model/hf.h src/model/weights.h src/model/gpt2.h \
	src/model/model.c src/model/runner.c src/model/hf.c src/model/gpt2.c src/model/gpt2_config.c \
	src/model/gpt2_forward.c

# Examples
noinst_PROGRAMS += examples/mlp
examples_mlp_SOURCES = examples/mlp.c

# Tests
EXTRA_DIST += tests/fixtures/make_gpt2.py tests/fixtures/gpt2_odd tests/fixtures/gpt2_untied tests/fixtures/gpt2_left \
	tests/fixtures/gpt2_bytes
check_PROGRAMS += tests/model/test_fit.np1 tests/model/test_fit.np2
TESTS += tests/model/test_mlp.sh tests/model/test_fit.np1 tests/model/test_fit.np2
tests_model_test_fit_np1_SOURCES = tests/model/test_fit.c
tests_model_test_fit_np2_SOURCES = tests/model/test_fit.c
EXTRA_DIST += tests/model/test_mlp.sh
if HAVE_CMOCKA
model_tests = tests/model/test_config tests/model/test_gpt2_parity tests/model/test_half tests/model/test_peak tests/model/test_runner
check_PROGRAMS += $(model_tests)
TESTS += $(model_tests)
model_rig = tests/model/model_rig.c tests/model/model_rig.h tests/tensor/rig.c tests/tensor/rig.h
tests_model_test_config_SOURCES = tests/model/test_config.c tests/tensor/rig.c tests/tensor/rig.h
tests_model_test_config_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_model_test_gpt2_parity_SOURCES = tests/model/test_gpt2_parity.c $(model_rig)
tests_model_test_gpt2_parity_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_model_test_half_SOURCES = tests/model/test_half.c $(model_rig)
tests_model_test_half_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_model_test_peak_SOURCES = tests/model/test_peak.c $(model_rig)
tests_model_test_peak_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_model_test_runner_SOURCES = tests/model/test_runner.c $(model_rig)
tests_model_test_runner_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif
