libmpizero_a_SOURCES += src/train/bench.c src/train/bench.h src/train/profile.c src/train/profile.h src/train/engine.c src/train/engine_impl.h src/train/engine_infer.c src/train/engine_memory.c \
	src/train/engine_state.c src/train/estimate.c src/train/eval_loop.c src/train/eval_loop.h src/train/evaluate.c \
	src/train/event_file.c src/train/event_file.h src/train/generate.c src/train/loop.c src/train/peak.c \
	src/train/peak.h src/train/plan.c src/train/predict.c src/train/predict.h src/train/rates.c src/train/rates.h src/train/replay.c src/train/replay.h src/train/progress.c src/train/progress.h src/train/report.c src/train/report.h src/train/resume_check.c \
	src/train/resume_check.h src/train/sampling.c src/train/sampling.h src/train/setup.c src/train/setup.h \
	src/train/signals.c src/train/signals.h src/train/sources.c src/train/sources.h src/train/staging.c \
	src/train/trackers.c src/train/trackers.h src/train/train.h src/train/weights_folder.c src/train/weights_folder.h
include tests/train/local.mk
