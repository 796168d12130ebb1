# Sources
libmpizero_a_SOURCES += src/model/model.h src/model/runner.h src/model/hf.h src/model/weights.h src/model/gpt2.h \
	src/model/model.c src/model/runner.c src/model/hf.c src/model/gpt2.c src/model/gpt2_config.c \
	src/model/gpt2_forward.c

# Tests
