# Sources
libmpizero_a_SOURCES += checkpoint/safetensors.h checkpoint/safetensors_header.h checkpoint/safetensors_header.c \
	checkpoint/safetensors.c checkpoint/safetensors_write.c checkpoint/checkpoint.h

# Tests
CKPT_SCRATCH = tests/checkpoint/scratch.c tests/checkpoint/scratch.h

if HAVE_CMOCKA
check_PROGRAMS += tests/checkpoint/test_safetensors
TESTS += tests/checkpoint/test_safetensors
tests_checkpoint_test_safetensors_SOURCES = tests/checkpoint/test_safetensors.c $(CKPT_SCRATCH)
tests_checkpoint_test_safetensors_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif
