# Sources
libmpizero_a_SOURCES += kernels/kernels.h kernels/check.h kernels/check.c kernels/dropout.h kernels/ref/ref.h \
	kernels/ref/table.c kernels/ref/matmul.c kernels/ref/layer_norm.c kernels/ref/embedding.c \
	kernels/ref/attention.c kernels/ref/activation.c kernels/ref/elementwise.c kernels/ref/loss.c \
	kernels/ref/reduce.c kernels/ref/optim.c kernels/ref/quantize.c

# The vectorised kernels: the same sources for each instruction set. libmpizero.a takes the objects.
libmpizero_a_SOURCES += kernels/cpu/cpu.c kernels/cpu/cpu.h
cpu_kernel_sources = kernels/cpu/activation.c kernels/cpu/attention.c kernels/cpu/attention.h \
	kernels/cpu/attention_grad.c kernels/cpu/attention_pack.c kernels/cpu/cross_entropy.c \
	kernels/cpu/elementwise.c kernels/cpu/embedding.c kernels/cpu/family.h kernels/cpu/gemm.c \
	kernels/cpu/gemm.h kernels/cpu/gemm_finish.c kernels/cpu/gemm_micro.c kernels/cpu/gemm_micro.h \
	kernels/cpu/gemm_pack.c kernels/cpu/layer_norm.c kernels/cpu/matmul.c kernels/cpu/optim.c kernels/cpu/philox.h \
	kernels/cpu/quantize.c kernels/cpu/reduce.c kernels/cpu/simd.h kernels/cpu/simd_avx2.h kernels/cpu/simd_avx512.h \
	kernels/cpu/simd_generic.h kernels/cpu/storage.h kernels/cpu/table.c kernels/cpu/vmath.h
noinst_LIBRARIES = libcpu_generic.a
libcpu_generic_a_SOURCES = $(cpu_kernel_sources)
libcpu_generic_a_CFLAGS = $(AM_CFLAGS)
EXTRA_DIST += kernels/cpu/matmul_blas.c
if WITH_OPENBLAS
libcpu_generic_a_SOURCES += kernels/cpu/matmul_blas.c
libcpu_generic_a_CFLAGS += $(OPENBLAS_CFLAGS)
endif
libmpizero_a_LIBADD = $(libcpu_generic_a_OBJECTS)
if HAVE_X86_KERNELS
noinst_LIBRARIES += libcpu_avx2.a libcpu_avx512.a libcpu_avx512_bf16.a
libcpu_avx2_a_SOURCES = $(cpu_kernel_sources)
libcpu_avx2_a_CFLAGS = $(AM_CFLAGS) -mavx2 -mfma -mf16c
libcpu_avx512_a_SOURCES = $(cpu_kernel_sources)
libcpu_avx512_a_CFLAGS = $(AM_CFLAGS) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c
libcpu_avx512_bf16_a_SOURCES = $(cpu_kernel_sources) kernels/cpu/attention_pairs.c \
	kernels/cpu/gemm_pairs.c kernels/cpu/simd_pairs.h
libcpu_avx512_bf16_a_CFLAGS = $(libcpu_avx512_a_CFLAGS) -mavx512bf16
libmpizero_a_LIBADD += $(libcpu_avx2_a_OBJECTS) $(libcpu_avx512_a_OBJECTS) $(libcpu_avx512_bf16_a_OBJECTS)
endif

# The CUDA kernels, and the backend that runs them.
EXTRA_DIST += $(cuda_sources)
cuda_sources = kernels/cuda/attention.cu kernels/cuda/attention_grad.cu kernels/cuda/elementwise.cu \
	kernels/cuda/embedding.cu kernels/cuda/layer_norm.cu kernels/cuda/loss.cu kernels/cuda/matmul.cu \
	kernels/cuda/matmul_blas.cu kernels/cuda/matmul_choice.cu kernels/cuda/matmul_plain.cu kernels/cuda/optim.cu \
	kernels/cuda/quantize.cu kernels/cuda/reduce.cu kernels/cuda/act.cuh kernels/cuda/attention.cuh kernels/cuda/common.cuh kernels/cuda/draws.cuh \
	kernels/cuda/matmul.cuh kernels/cuda/matmul_plan.cuh kernels/cuda/sums.cuh
cuda_sources += kernels/cuda/attention_tensor.cu kernels/cuda/attention_tensor_query_grad.cu \
	kernels/cuda/attention_tensor_key_grad.cu kernels/cuda/attention_tensor.cuh \
	kernels/cuda/attention_tensor_grad.cuh kernels/cuda/tensor_core.cuh kernels/cuda/wgmma.cuh
if HAVE_CUDA
libmpizero_a_SOURCES += kernels/cuda/cuda.h kernels/cuda/table.c src/device/cuda/device.c src/device/cuda/stream.h \
	src/device/cuda/choices.h src/device/cuda/choices.c src/device/cuda/near.h src/device/cuda/near.c \
	src/device/cuda/graph.c src/device/cuda/words.c
cuda_objects = kernels/cuda/attention.o kernels/cuda/attention_grad.o kernels/cuda/elementwise.o \
	kernels/cuda/embedding.o kernels/cuda/layer_norm.o kernels/cuda/loss.o kernels/cuda/matmul.o \
	kernels/cuda/matmul_blas.o kernels/cuda/matmul_choice.o kernels/cuda/matmul_plain.o kernels/cuda/optim.o \
	kernels/cuda/quantize.o kernels/cuda/reduce.o
cuda_objects += kernels/cuda/attention_tensor.o kernels/cuda/attention_tensor_query_grad.o \
	kernels/cuda/attention_tensor_key_grad.o
libmpizero_a_LIBADD += $(cuda_objects)
CLEANFILES += $(cuda_objects)
endif

# Tests
check_PROGRAMS += tests/kernels/test_kernels
TESTS += tests/kernels/test_kernels
tests_kernels_test_kernels_SOURCES = tests/kernels/test_kernels.c tests/kernels/harness.c tests/kernels/harness.h \
	tests/kernels/cases_attention.c tests/kernels/cases_elementwise.c tests/kernels/cases_loss.c \
	tests/kernels/cases_matmul.c tests/kernels/cases_optim.c tests/kernels/cases_quantize.c tests/kernels/cases_reduce.c \
	tests/kernels/cases_rows.c
noinst_PROGRAMS += tests/kernels/bench_kernels tests/kernels/bench_device
TESTS += tests/kernels/instruction_sets.sh
EXTRA_DIST += tests/kernels/instruction_sets.sh tests/bench/save_ratio.sh tests/bench/step_ratio.sh tests/bench/torch_step.py \
	tests/gpu/run tests/gpu/nodes.sh tests/gpu/shared.sh \
	tests/gpu/profile.py tests/gpu/kernel_times.c
EXTRA_DIST += tests/gpu/bench_attention.py tests/gpu/curve.py tests/gpu/fault.c tests/gpu/faults.sh
if HAVE_CUDA
EXTRA_PROGRAMS = tests/gpu/bench_attention
CLEANFILES += tests/gpu/bench_attention
endif
if HAVE_CMOCKA
check_PROGRAMS += tests/kernels/test_ref_grad tests/kernels/test_ref_optim
TESTS += tests/kernels/test_ref_grad tests/kernels/test_ref_optim
tests_kernels_test_ref_grad_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_kernels_test_ref_optim_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif
