# Sources
libmpizero_a_SOURCES += src/data/bpe.c src/data/bpe.h src/data/bpe_encode.c src/data/bpe_internal.h \
	src/data/bpe_words.c src/data/bpe_words.h src/data/dataset.c src/data/dataset.h src/data/hash.c \
	src/data/hash.h src/data/sampler.c src/data/sampler.h src/data/token_cache.c src/data/token_cache.h \
	src/data/tokenize.c src/data/tokenize.h src/data/tokenizer.c src/data/tokenizer.h \
	src/data/tokenizer_files.c src/data/tokenizer_files.h src/data/tokenizer_pieces.h src/data/utf8.c \
	src/data/utf8.h

# Tests
EXTRA_DIST += tests/data/make_tiny_bpe.py tests/data/tiny_bpe/added_tokens.json tests/data/tiny_bpe/merges.txt \
	tests/data/tiny_bpe/special_tokens_map.json tests/data/tiny_bpe/vectors.json tests/data/tiny_bpe/vocab.json
check_PROGRAMS += tests/data/dataset_ranks.np3 tests/data/test_gpt2_vectors
TESTS += tests/data/dataset_ranks.np3 tests/data/test_gpt2_vectors
tests_data_dataset_ranks_np3_SOURCES = tests/data/dataset_ranks.c tests/data/scratch.c tests/data/scratch.h
tests_data_test_gpt2_vectors_SOURCES = tests/data/test_gpt2_vectors.c tests/data/scratch.c tests/data/scratch.h
if HAVE_CMOCKA
data_tests = tests/data/test_dataset tests/data/test_sampler tests/data/test_tokenizer
check_PROGRAMS += $(data_tests)
TESTS += $(data_tests)
tests_data_test_dataset_SOURCES = tests/data/test_dataset.c tests/data/scratch.c tests/data/scratch.h
tests_data_test_dataset_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_data_test_sampler_LDADD = $(LDADD) $(CMOCKA_LIBS)
tests_data_test_tokenizer_SOURCES = tests/data/test_tokenizer.c tests/data/scratch.c tests/data/scratch.h
tests_data_test_tokenizer_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif
