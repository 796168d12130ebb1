# Sources
libmpizero_a_SOURCES += checkpoint/safetensors.h checkpoint/safetensors_header.h checkpoint/safetensors_header.c \
	checkpoint/safetensors.c checkpoint/safetensors_write.c checkpoint/checkpoint.h checkpoint/hdf5_frame.c \
	checkpoint/hdf5_frame.h checkpoint/manifest.c checkpoint/manifest.h checkpoint/manifest_build.c \
	checkpoint/publish.c checkpoint/publish.h checkpoint/reader.c checkpoint/reader.h checkpoint/save.c \
	checkpoint/save.h checkpoint/gather.c checkpoint/gather.h checkpoint/shard_file.c checkpoint/shard_file.h \
	checkpoint/shard_source.c checkpoint/shard_source.h checkpoint/steps.c checkpoint/steps.h \
	checkpoint/verify.c checkpoint/writer.c checkpoint/consolidate.c \
	checkpoint/inspect.c checkpoint/inspect_text.c checkpoint/model_folder.c checkpoint/model_folder.h checkpoint/tools.h \
	checkpoint/paths.c checkpoint/paths.h checkpoint/hdf5_memory.c checkpoint/hdf5_memory.h \
	checkpoint/hdf5_patch.c checkpoint/hdf5_patch.h

# Tests
CKPT_SCRATCH = tests/checkpoint/scratch.c tests/checkpoint/scratch.h
CKPT_SYNTHETIC = $(CKPT_SCRATCH) tests/checkpoint/synthetic.c tests/checkpoint/synthetic.h

check_PROGRAMS += tests/checkpoint/reshard.np1 tests/checkpoint/reshard.np2 tests/checkpoint/reshard.np3 \
	tests/checkpoint/reshard.np4
TESTS += tests/checkpoint/reshard.np1 tests/checkpoint/reshard.np2 tests/checkpoint/reshard.np3 \
	tests/checkpoint/reshard.np4
tests_checkpoint_reshard_np1_SOURCES = tests/checkpoint/reshard.c $(CKPT_SYNTHETIC)
tests_checkpoint_reshard_np2_SOURCES = $(tests_checkpoint_reshard_np1_SOURCES)
tests_checkpoint_reshard_np3_SOURCES = $(tests_checkpoint_reshard_np1_SOURCES)
tests_checkpoint_reshard_np4_SOURCES = $(tests_checkpoint_reshard_np1_SOURCES)

check_PROGRAMS += tests/checkpoint/consolidate.np1 tests/checkpoint/consolidate.np3
TESTS += tests/checkpoint/consolidate.np1 tests/checkpoint/consolidate.np3
tests_checkpoint_consolidate_np1_SOURCES = tests/checkpoint/consolidate.c $(CKPT_SYNTHETIC)
tests_checkpoint_consolidate_np3_SOURCES = $(tests_checkpoint_consolidate_np1_SOURCES)

check_PROGRAMS += tests/checkpoint/damage.np2
TESTS += tests/checkpoint/damage.np2
tests_checkpoint_damage_np2_SOURCES = tests/checkpoint/damage.c $(CKPT_SYNTHETIC)

check_PROGRAMS += tests/checkpoint/test_kill tests/checkpoint/test_failures
TESTS += tests/checkpoint/test_kill tests/checkpoint/test_failures
tests_checkpoint_test_kill_SOURCES = tests/checkpoint/test_kill.c $(CKPT_SYNTHETIC)
tests_checkpoint_test_failures_SOURCES = tests/checkpoint/test_failures.c $(CKPT_SYNTHETIC)

check_PROGRAMS += tests/checkpoint/write_samples
TESTS += tests/checkpoint/readers.sh
EXTRA_DIST += tests/checkpoint/readers.sh tests/checkpoint/read_samples.py
tests_checkpoint_write_samples_SOURCES = tests/checkpoint/write_samples.c $(CKPT_SYNTHETIC)

check_PROGRAMS += tests/checkpoint/settle
TESTS += tests/checkpoint/settle
tests_checkpoint_settle_SOURCES = tests/checkpoint/settle.c $(CKPT_SYNTHETIC)

check_PROGRAMS += tests/checkpoint/overlap.np2
TESTS += tests/checkpoint/overlap.np2
tests_checkpoint_overlap_np2_SOURCES = tests/checkpoint/overlap.c $(CKPT_SCRATCH)

check_PROGRAMS += tests/checkpoint/save_or_check
TESTS += tests/checkpoint/kill_ranks.sh
EXTRA_DIST += tests/checkpoint/kill_ranks.sh
tests_checkpoint_save_or_check_SOURCES = tests/checkpoint/save_or_check.c $(CKPT_SYNTHETIC)

if HAVE_CMOCKA
check_PROGRAMS += tests/checkpoint/test_safetensors
TESTS += tests/checkpoint/test_safetensors
tests_checkpoint_test_safetensors_SOURCES = tests/checkpoint/test_safetensors.c $(CKPT_SCRATCH)
tests_checkpoint_test_safetensors_LDADD = $(LDADD) $(CMOCKA_LIBS)
endif
