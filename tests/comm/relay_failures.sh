#!/bin/bash
# What goes wrong in a collective between GPUs of two nodes, with CPU streams in their place: every rank is told who was
# late, gone or elsewhere, on the culprit's node and on the other one. With PROBE=tests/comm/gpu_probe on GPUs; CUTS: ranks
# per node (2, and each a node of its own).
builddir=${builddir:-.}
probe=${PROBE:-$builddir/tests/comm/relay_probe}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
wrong=0
if ! "${MPIRUN:-mpirun}" --version 2>&1 | grep -q 'Open MPI'; then
    echo "skipped: needs Open MPI's mpirun, whose --enable-recovery keeps the other ranks alive"
    exit 77
fi

# probe DEED PATTERN: ranks 0, 2 and 3 say it of rank 1 within 30 s.
probe() {
    local begin=$SECONDS rank
    # shellcheck disable=SC2086 # the flags are words
    timeout 60 "${MPIRUN:-mpirun}" $MPIRUN_FLAGS --enable-recovery -n 4 "$probe" "$1" "$cut" \
        >"$log" 2>&1
    for rank in 0 2 3; do
        grep -q "^rank $rank after .*$2" "$log" ||
            { echo "$1: rank $rank did not say \"$2\" ($cut per node):"; grep '^rank\|stands still' "$log"; wrong=1; }
    done
    [ $((SECONDS - begin)) -le 30 ] || { echo "$1: took $((SECONDS - begin)) s"; wrong=1; }
}

for cut in ${CUTS:-2 1}; do
    probe late 'all_gather #1 (unit h.1): rank 1 did not arrive within 2 s'
    probe mismatch 'collective #1: rank .* elements (unit h.*all ranks must issue the same'
    probe kill '(unit h.1): rank 1 .*has ended'
done
exit $wrong
