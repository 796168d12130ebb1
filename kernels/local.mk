# Sources
libmpizero_a_SOURCES += kernels/kernels.h kernels/check.h kernels/check.c kernels/dropout.h kernels/ref/ref.h \
	kernels/ref/table.c kernels/ref/matmul.c kernels/ref/layer_norm.c kernels/ref/embedding.c \
	kernels/ref/attention.c kernels/ref/activation.c kernels/ref/elementwise.c kernels/ref/loss.c \
	kernels/ref/reduce.c kernels/ref/optim.c

# Tests
check_PROGRAMS += tests/kernels/test_kernels
TESTS += tests/kernels/test_kernels
tests_kernels_test_kernels_SOURCES = tests/kernels/test_kernels.c tests/kernels/harness.c tests/kernels/harness.h \
	tests/kernels/cases_attention.c tests/kernels/cases_elementwise.c tests/kernels/cases_loss.c \
	tests/kernels/cases_matmul.c tests/kernels/cases_optim.c tests/kernels/cases_reduce.c \
	tests/kernels/cases_rows.c
if HAVE_CMOCKA
check_PROGRAMS += tests/kernels/test_ref_grad tests/kernels/test_ref_optim
TESTS += tests/kernels/test_ref_grad tests/kernels/test_ref_optim
tests_kernels_test_ref_grad_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_kernels_test_ref_optim_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif
