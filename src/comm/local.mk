# Sources
libmpizero_a_SOURCES += src/comm/comm.h src/comm/transport.h src/comm/mpi_check.h src/comm/mpi_check.c \
	src/comm/launch.h src/comm/launch.c src/comm/world.c src/comm/agree.c src/comm/conclude.h src/comm/conclude.c src/comm/sum.h src/comm/sum.c \
	src/comm/cursor.h src/comm/cursor.c src/comm/shm_segment.h src/comm/shm_segment.c src/comm/board.h src/comm/board.c src/comm/shm_sync.h \
	src/comm/shm_sync.c src/comm/shm_direct.h src/comm/shm_direct.c src/comm/shm.c src/comm/mpi_wire.c \
	src/comm/wire_card.h src/comm/wire_card.c \
	src/comm/layout.h src/comm/layout.c src/comm/hier.h src/comm/hier.c src/comm/hier_collectives.c \
	src/comm/hier_quantized.c src/comm/voyage.h src/comm/voyage.c src/comm/uneven.h src/comm/uneven.c \
	src/comm/all_reduce.h src/comm/all_reduce.c src/comm/issue.h \
	src/comm/issue.c src/comm/watch.h src/comm/watch.c src/comm/gpu.h src/comm/gpu.c src/comm/nccl.h \
	src/comm/relay.h src/comm/relay_impl.h src/comm/relay.c src/comm/relay_setup.c src/comm/relay_stages.h src/comm/relay_sums.c src/comm/relay_collectives.c \
	src/comm/nccl_plain.h src/comm/peers.h \
	src/comm/predicted.h src/comm/predicted.c src/comm/collectives.c src/comm/comm.c
if HAVE_NCCL
libmpizero_a_SOURCES += src/comm/nccl_impl.h src/comm/nccl.c src/comm/nccl_collectives.c src/comm/nccl_plain.c src/comm/peers.c
else
libmpizero_a_SOURCES += src/comm/nccl_none.c src/comm/peers_none.c
endif
if HAVE_UCX
libmpizero_a_SOURCES += src/comm/ucx_link.h src/comm/ucx_link.c src/comm/ucx_progress.c src/comm/ucx_wire.c \
	src/comm/ucx_devices.c
endif

# Tests
EXTRA_DIST += tests/comm/check.h tests/comm/launch.sh tests/comm/killed.sh tests/comm/mpi_wire.sh tests/comm/direct.sh tests/comm/relay_failures.sh tests/comm/blame.sh
check_PROGRAMS += tests/comm/world.np4 tests/comm/agree.np4 tests/comm/conclude.np3 tests/comm/launch_probe tests/comm/killed_probe tests/comm/blame_probe tests/comm/gpu_probe \
	tests/comm/watch.np3 tests/comm/board.np2 \
	tests/comm/shared.np2 tests/comm/shared.np4 tests/comm/failures.np4 tests/comm/bits.np4 tests/comm/groups.np4 tests/comm/quantized.np4 tests/comm/setup.np3 \
	tests/comm/collectives.np1 tests/comm/collectives.np2 tests/comm/collectives.np3 tests/comm/collectives.np4 \
	tests/comm/collectives.np6 tests/comm/relay.np2 tests/comm/relay.np3 tests/comm/relay.np4 \
	tests/comm/relay_probe tests/comm/nodes tests/comm/relay_nodes.np4 tests/comm/relay_quantized.np4 tests/comm/relay_setup.np3
noinst_PROGRAMS += tests/comm/bench_collectives
tests_comm_bench_collectives_SOURCES = tests/comm/bench_collectives.c
tests_comm_world_np4_SOURCES = tests/comm/world.c
tests_comm_agree_np4_SOURCES = tests/comm/agree.c
tests_comm_conclude_np3_SOURCES = tests/comm/conclude.c
tests_comm_launch_probe_SOURCES = tests/comm/launch_probe.c
tests_comm_killed_probe_SOURCES = tests/comm/killed_probe.c
tests_comm_blame_probe_SOURCES = tests/comm/blame_probe.c
tests_comm_gpu_probe_SOURCES = tests/comm/gpu_probe.c
tests_comm_watch_np3_SOURCES = tests/comm/watch.c
tests_comm_board_np2_SOURCES = tests/comm/board.c
tests_comm_shared_np2_SOURCES = tests/comm/shared.c
tests_comm_shared_np4_SOURCES = tests/comm/shared.c
tests_comm_bits_np4_SOURCES = tests/comm/bits.c
tests_comm_groups_np4_SOURCES = tests/comm/groups.c
tests_comm_quantized_np4_SOURCES = tests/comm/quantized.c
tests_comm_setup_np3_SOURCES = tests/comm/setup.c
tests_comm_failures_np4_SOURCES = tests/comm/failures.c
tests_comm_collectives_np1_SOURCES = tests/comm/collectives.c
tests_comm_collectives_np2_SOURCES = tests/comm/collectives.c
tests_comm_collectives_np3_SOURCES = tests/comm/collectives.c
tests_comm_collectives_np4_SOURCES = tests/comm/collectives.c
tests_comm_collectives_np6_SOURCES = tests/comm/collectives.c
gpu_double = tests/comm/gpu_double.h tests/comm/gpu_double.c
tests_comm_nodes_SOURCES = tests/comm/nodes.c
tests_comm_relay_nodes_np4_SOURCES = tests/comm/nodes.c $(gpu_double)
tests_comm_relay_nodes_np4_CPPFLAGS = $(AM_CPPFLAGS) -DGPU_DOUBLE
tests_comm_relay_quantized_np4_SOURCES = tests/comm/quantized.c $(gpu_double)
tests_comm_relay_quantized_np4_CPPFLAGS = $(AM_CPPFLAGS) -DGPU_DOUBLE
tests_comm_relay_setup_np3_SOURCES = tests/comm/setup.c $(gpu_double)
tests_comm_relay_setup_np3_CPPFLAGS = $(AM_CPPFLAGS) -DGPU_DOUBLE
tests_comm_relay_probe_SOURCES = tests/comm/gpu_probe.c $(gpu_double)
tests_comm_relay_probe_CPPFLAGS = $(AM_CPPFLAGS) -DGPU_DOUBLE
tests_comm_relay_np2_SOURCES = tests/comm/collectives.c $(gpu_double)
tests_comm_relay_np3_SOURCES = tests/comm/collectives.c $(gpu_double)
tests_comm_relay_np4_SOURCES = tests/comm/collectives.c $(gpu_double)
tests_comm_relay_np2_CPPFLAGS = $(AM_CPPFLAGS) -DGPU_DOUBLE
tests_comm_relay_np3_CPPFLAGS = $(AM_CPPFLAGS) -DGPU_DOUBLE
tests_comm_relay_np4_CPPFLAGS = $(AM_CPPFLAGS) -DGPU_DOUBLE
TESTS += tests/comm/watch.np3 tests/comm/board.np2 tests/comm/shared.np2 tests/comm/world.np4 tests/comm/agree.np4 tests/comm/conclude.np3 tests/comm/launch.sh tests/comm/killed.sh tests/comm/blame.sh tests/comm/mpi_wire.sh tests/comm/direct.sh \
	tests/comm/failures.np4 \
	tests/comm/bits.np4 tests/comm/groups.np4 tests/comm/quantized.np4 tests/comm/setup.np3 \
	tests/comm/collectives.np1 tests/comm/collectives.np2 tests/comm/collectives.np3 tests/comm/collectives.np4 \
	tests/comm/collectives.np6 tests/comm/relay.np2 tests/comm/relay.np3 tests/comm/relay.np4 \
	tests/comm/relay_failures.sh tests/comm/relay_nodes.np4 tests/comm/relay_quantized.np4 tests/comm/relay_setup.np3

# Several nodes on one machine
EXTRA_DIST += tests/cluster/cluster tests/cluster/cluster.sh tests/cluster/predict.sh tests/cluster/slurm \
	tests/cluster/slurm-lib.sh tests/cluster/survive tests/cluster/hang tests/cluster/scaling tests/cluster/slurm.sh
TESTS += tests/cluster/cluster.sh tests/cluster/slurm.sh

# Make has a rule of its own by which it would make the one of the other.
tests/cluster/cluster: ;
tests/cluster/slurm: ;
check_PROGRAMS += tests/cluster/traffic tests/cluster/misfit
tests_cluster_misfit_SOURCES = tests/cluster/misfit.c
tests_cluster_traffic_SOURCES = tests/cluster/traffic.c
