# Sources
libmpizero_a_SOURCES += src/comm/comm.h src/comm/transport.h src/comm/mpi_check.h src/comm/mpi_check.c \
	src/comm/launch.h src/comm/launch.c src/comm/world.c src/comm/agree.c

# Tests
EXTRA_DIST += tests/comm/check.h tests/comm/launch.sh
check_PROGRAMS += tests/comm/world.np4 tests/comm/agree.np4 tests/comm/launch_probe
tests_comm_world_np4_SOURCES = tests/comm/world.c
tests_comm_agree_np4_SOURCES = tests/comm/agree.c
tests_comm_launch_probe_SOURCES = tests/comm/launch_probe.c
TESTS += tests/comm/world.np4 tests/comm/agree.np4 tests/comm/launch.sh
