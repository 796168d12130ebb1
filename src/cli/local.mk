# Sources
bin_PROGRAMS += mpizero
mpizero_SOURCES = src/cli/bench.c src/cli/bench_collectives.c src/cli/cli.h src/cli/commands.c src/cli/consolidate.c src/cli/env.c \
	src/cli/estimate.c src/cli/generate.c src/cli/groups.c src/cli/help.c src/cli/inspect.c src/cli/machine.c src/cli/machine.h src/cli/main.c \
	src/cli/options.c src/cli/options.h src/cli/program.c src/cli/topo.c src/cli/train.c
mpizero_CPPFLAGS = $(AM_CPPFLAGS) -DMZ_VERSION='"$(PACKAGE_VERSION)"'

# Tests
dist_man_MANS += doc/mpizero.1
cli_tests = tests/cli/manual.sh tests/cli/ranks.sh tests/cli/usage.sh
TESTS += $(cli_tests)
EXTRA_DIST += $(cli_tests)
