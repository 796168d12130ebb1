# Sources
libmpizero_a_SOURCES += kernels/kernels.h kernels/check.h kernels/check.c kernels/dropout.h kernels/ref/ref.h \
	kernels/ref/table.c kernels/ref/matmul.c kernels/ref/layer_norm.c kernels/ref/embedding.c \
	kernels/ref/attention.c kernels/ref/activation.c kernels/ref/elementwise.c kernels/ref/loss.c \
	kernels/ref/reduce.c kernels/ref/optim.c

# Tests
