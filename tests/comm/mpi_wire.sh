#!/bin/bash
# Where UCX is the wire between nodes, the same tests pass over MPI; and a name that is neither is refused.
builddir=${builddir:-.}
wrong=0
"$builddir/mpizero" env | grep -q '^wire  *ucx$' || { echo "skipped: built without UCX, so all tests run over MPI"; exit 77; }
# run TEST [ARGUMENT]
run() {
    # shellcheck disable=SC2086 # the flags are words
    MPIZERO_WIRE=mpi timeout 120 "${MPIRUN:-mpirun}" $MPIRUN_FLAGS -n "${1##*.np}" "$builddir/tests/comm/$1" ${2:-} ||
        { echo "$1 fails over MPI"; wrong=1; return 1; }
}

run groups.np4
run collectives.np3
for n in 0 1 2 3; do run failures.np4 $n & done # ranks per node; most of it is waiting
for _ in 0 1 2 3; do wait -n || wrong=1; done
text=$(MPIZERO_WIRE=pigeon "$builddir/mpizero" topo 2>&1) && wrong=1
grep -q 'expected ucx or mpi, found "pigeon"' <<<"$text" || { echo "MPIZERO_WIRE=pigeon: $text"; wrong=1; }
exit $wrong
