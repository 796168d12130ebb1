# Sources
libmpizero_a_SOURCES += src/tensor/tape.h src/tensor/node.h src/tensor/slab.h src/tensor/select.h \
	src/tensor/scalar.h src/tensor/kv_cache.h src/tensor/tape.c src/tensor/tensor.c src/tensor/slab.c \
	src/tensor/linear.c src/tensor/norm.c src/tensor/embedding.c src/tensor/attention.c \
	src/tensor/elementwise.c src/tensor/dropout.c src/tensor/reshape.c src/tensor/loss.c \
	src/tensor/fused_loss.c src/tensor/kv_cache.c

# Tests
if HAVE_CMOCKA
tensor_tests = tests/tensor/test_cache tests/tensor/test_errors tests/tensor/test_gradients
check_PROGRAMS += $(tensor_tests)
TESTS += $(tensor_tests)
tests_tensor_test_cache_SOURCES = tests/tensor/test_cache.c tests/tensor/rig.c tests/tensor/rig.h
tests_tensor_test_cache_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_tensor_test_errors_SOURCES = tests/tensor/test_errors.c tests/tensor/rig.c tests/tensor/rig.h
tests_tensor_test_errors_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_tensor_test_gradients_SOURCES = tests/tensor/test_gradients.c tests/tensor/gradient_cases.c \
	tests/tensor/gradient_cases.h tests/tensor/rig.c tests/tensor/rig.h
tests_tensor_test_gradients_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif
