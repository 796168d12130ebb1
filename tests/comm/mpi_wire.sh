#!/bin/bash
# Where UCX is the wire between nodes, the same tests pass over MPI; and a name that is neither is refused.
builddir=${builddir:-.}
wrong=0
"$builddir/mpizero" env | grep -q '^wire  *ucx$' || { echo "skipped: built without UCX, so all tests run over MPI"; exit 77; }
for test in groups.np4 collectives.np3 failures.np4; do
    # shellcheck disable=SC2086 # the flags are words
    MPIZERO_WIRE=mpi timeout 120 "${MPIRUN:-mpirun}" $MPIRUN_FLAGS -n "${test##*.np}" "$builddir/tests/comm/$test" ||
        { echo "$test fails over MPI"; wrong=1; }
done
text=$(MPIZERO_WIRE=pigeon "$builddir/mpizero" topo 2>&1) && wrong=1
grep -q 'expected ucx or mpi, found "pigeon"' <<<"$text" || { echo "MPIZERO_WIRE=pigeon: $text"; wrong=1; }
exit $wrong
