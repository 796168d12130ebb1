# Sources
libmpizero_a_SOURCES += src/data/bpe.c src/data/bpe.h src/data/bpe_encode.c src/data/bpe_internal.h \
	src/data/bpe_words.c src/data/bpe_words.h src/data/dataset.c src/data/dataset.h src/data/hash.c \
	src/data/hash.h src/data/sampler.c src/data/sampler.h src/data/token_cache.c src/data/token_cache.h \
	src/data/tokenize.c src/data/tokenize.h src/data/tokenizer.c src/data/tokenizer.h \
	src/data/tokenizer_files.c src/data/tokenizer_files.h src/data/tokenizer_pieces.h src/data/utf8.c \
	src/data/utf8.h

# Tests
