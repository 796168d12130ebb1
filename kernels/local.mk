# Sources
libmpizero_a_SOURCES += kernels/kernels.h kernels/check.h kernels/check.c kernels/dropout.h kernels/ref/ref.h \
	kernels/ref/table.c kernels/ref/matmul.c kernels/ref/layer_norm.c kernels/ref/embedding.c \
	kernels/ref/attention.c kernels/ref/activation.c kernels/ref/elementwise.c kernels/ref/loss.c \
	kernels/ref/reduce.c kernels/ref/optim.c

# The vectorised kernels: the same sources for each instruction set. libmpizero.a takes the objects.
libmpizero_a_SOURCES += kernels/cpu/cpu.c kernels/cpu/cpu.h
cpu_kernel_sources = kernels/cpu/activation.c kernels/cpu/attention.c kernels/cpu/attention.h \
	kernels/cpu/attention_grad.c kernels/cpu/attention_pack.c kernels/cpu/cross_entropy.c \
	kernels/cpu/elementwise.c kernels/cpu/embedding.c kernels/cpu/family.h kernels/cpu/gemm.c \
	kernels/cpu/gemm.h kernels/cpu/gemm_finish.c kernels/cpu/gemm_micro.c kernels/cpu/gemm_micro.h \
	kernels/cpu/gemm_pack.c kernels/cpu/layer_norm.c kernels/cpu/matmul.c kernels/cpu/optim.c kernels/cpu/philox.h \
	kernels/cpu/reduce.c kernels/cpu/simd.h kernels/cpu/simd_avx2.h kernels/cpu/simd_avx512.h \
	kernels/cpu/simd_generic.h kernels/cpu/storage.h kernels/cpu/table.c kernels/cpu/vmath.h
noinst_LIBRARIES = libcpu_generic.a
libcpu_generic_a_SOURCES = $(cpu_kernel_sources)
libcpu_generic_a_CFLAGS = $(AM_CFLAGS)
libmpizero_a_LIBADD = $(libcpu_generic_a_OBJECTS)
if HAVE_X86_KERNELS
noinst_LIBRARIES += libcpu_avx2.a libcpu_avx512.a
libcpu_avx2_a_SOURCES = $(cpu_kernel_sources)
libcpu_avx2_a_CFLAGS = $(AM_CFLAGS) -mavx2 -mfma -mf16c
libcpu_avx512_a_SOURCES = $(cpu_kernel_sources)
libcpu_avx512_a_CFLAGS = $(AM_CFLAGS) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c
libmpizero_a_LIBADD += $(libcpu_avx2_a_OBJECTS) $(libcpu_avx512_a_OBJECTS)
endif

# Tests
check_PROGRAMS += tests/kernels/test_kernels
TESTS += tests/kernels/test_kernels
tests_kernels_test_kernels_SOURCES = tests/kernels/test_kernels.c tests/kernels/harness.c tests/kernels/harness.h \
	tests/kernels/cases_attention.c tests/kernels/cases_elementwise.c tests/kernels/cases_loss.c \
	tests/kernels/cases_matmul.c tests/kernels/cases_optim.c tests/kernels/cases_reduce.c \
	tests/kernels/cases_rows.c
noinst_PROGRAMS += tests/kernels/bench_kernels
TESTS += tests/kernels/instruction_sets.sh
EXTRA_DIST += tests/kernels/instruction_sets.sh tests/bench/torch_step.py
if HAVE_CMOCKA
check_PROGRAMS += tests/kernels/test_ref_grad tests/kernels/test_ref_optim
TESTS += tests/kernels/test_ref_grad tests/kernels/test_ref_optim
tests_kernels_test_ref_grad_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_kernels_test_ref_optim_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif
