#!/bin/bash
# Collectives between GPUs of several nodes where UCX takes pieces from GPU memory itself, with CPU streams in a GPU's
# place: the same tests as through pinned memory.
builddir=${builddir:-.}
wrong=0
"$builddir/mpizero" env | grep -q '^wire  *ucx$' || { echo "skipped: built without UCX"; exit 77; }
for test in relay.np4 relay_nodes.np4 relay_quantized.np4; do
    # shellcheck disable=SC2086 # the flags are words
    MPIZERO_GPU_DIRECT=1 timeout 120 "${MPIRUN:-mpirun}" $MPIRUN_FLAGS -n 4 "$builddir/tests/comm/$test" ||
        { echo "$test fails with pieces in GPU memory"; wrong=1; }
done
exit $wrong
