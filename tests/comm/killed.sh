#!/bin/bash
# A rank that is killed is noticed by the others at once, long before the deadline of 30 s.
probe=${builddir:-.}/tests/comm/killed_probe
mpirun=${MPIRUN:-mpirun}
if ! "$mpirun" --version 2>&1 | grep -q 'Open MPI'; then
    echo "skipped: needs Open MPI's mpirun, whose --enable-recovery keeps the other ranks alive"
    exit 77
fi
begin=$SECONDS
output=$(timeout 25 "$mpirun" --enable-recovery --oversubscribe --allow-run-as-root -n 3 "$probe" 2>&1)
if [ $((SECONDS - begin)) -gt 15 ]; then
    echo "took $((SECONDS - begin)) s"
    echo "$output"
    exit 1
fi
for rank in 0 2; do
    if ! grep -q "^rank $rank: another rank failed: barrier #1 (after the deed): rank 1 (process [0-9]*) has ended" \
        <<<"$output"; then
        echo "rank $rank did not name rank 1: $output"
        exit 1
    fi
done
