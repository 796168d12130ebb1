# Sources
libmpizero_a_SOURCES += src/optim/loss_scale.c src/optim/loss_scale.h src/optim/schedule.c src/optim/schedule.h

# Tests
