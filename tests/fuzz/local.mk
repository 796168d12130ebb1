# Fuzz targets: tests/fuzz/fuzz_NAME.c with seeds in tests/fuzz/seeds/NAME. `make check` replays the seeds and mutates them
# for a second; tests/fuzz/run searches for longer, guided by the compiler.
fuzz_main = tests/fuzz/replay.c tests/fuzz/sections.c tests/fuzz/fuzz.h
fuzz_tokenizer = tests/fuzz/use_tokenizer.c tests/fuzz/use_tokenizer.h
fuzz_config = tests/fuzz/use_config.c tests/fuzz/use_config.h
fuzz_targets = tests/fuzz/fuzz_accelerate tests/fuzz/fuzz_config tests/fuzz/fuzz_encode tests/fuzz/fuzz_index \
	tests/fuzz/fuzz_json tests/fuzz/fuzz_manifest tests/fuzz/fuzz_safetensors tests/fuzz/fuzz_tokenizer_json tests/fuzz/fuzz_vocab
check_PROGRAMS += $(fuzz_targets)
TESTS += $(fuzz_targets)
tests_fuzz_fuzz_accelerate_SOURCES = tests/fuzz/fuzz_accelerate.c $(fuzz_main) $(fuzz_config)
tests_fuzz_fuzz_config_SOURCES = tests/fuzz/fuzz_config.c $(fuzz_main) $(fuzz_config)
tests_fuzz_fuzz_encode_SOURCES = tests/fuzz/fuzz_encode.c $(fuzz_main) $(fuzz_tokenizer)
tests_fuzz_fuzz_index_SOURCES = tests/fuzz/fuzz_index.c $(fuzz_main)
tests_fuzz_fuzz_json_SOURCES = tests/fuzz/fuzz_json.c $(fuzz_main)
tests_fuzz_fuzz_manifest_SOURCES = tests/fuzz/fuzz_manifest.c $(fuzz_main)
tests_fuzz_fuzz_safetensors_SOURCES = tests/fuzz/fuzz_safetensors.c $(fuzz_main)
tests_fuzz_fuzz_tokenizer_json_SOURCES = tests/fuzz/fuzz_tokenizer_json.c $(fuzz_main) $(fuzz_tokenizer)
tests_fuzz_fuzz_vocab_SOURCES = tests/fuzz/fuzz_vocab.c $(fuzz_main) $(fuzz_tokenizer)
EXTRA_DIST += tests/fuzz/run tests/fuzz/json.dict tests/fuzz/seeds
