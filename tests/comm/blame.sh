#!/bin/bash
# A stopped rank is named by all that wait, also by those that wait for it only by way of another rank, which is late
# through no fault of its own and whose deadline comes later.
probe=${builddir:-.}/tests/comm/blame_probe
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! "${MPIRUN:-mpirun}" --version 2>&1 | grep -q 'Open MPI'; then
    echo "skipped: needs Open MPI's mpirun, whose --enable-recovery keeps the other ranks alive"
    exit 77
fi

# blame SCENE RANKS [NUMBER]: they, and nobody else, say of rank 3 and nobody else that it is late; else there is a wrong-*
blame() {
    local told log=$work/$MPIZERO_WIRE-$1${3:-}
    # shellcheck disable=SC2086 # the flags are words
    timeout 60 "${MPIRUN:-mpirun}" $MPIRUN_FLAGS --enable-recovery -n 4 "$probe" "$1" >"$log" 2>&1
    told=$(sed -nE 's/^rank ([0-9]): .*: [a-z_]+ #[0-9]+ \(.*\): rank 3 (did not|is in it, but|arrived, but|takes no).*/\1/p' "$log" |
        sort | tr '\n' ' ')
    [ "$told" = "$2 " ] && return
    { echo "$1, wire $MPIZERO_WIRE: not ranks $2 named rank 3:"; cat "$log"; } >"$work/wrong-${log##*/}"
}

for wire in ucx mpi; do
    [ $wire = mpi ] || "${builddir:-.}/mpizero" env | grep -q '^wire  *ucx$' || continue
    export MPIZERO_WIRE=$wire
    # most of it is waiting
    blame node "0 1" &
    blame wire "0 2" &
    blame agree "0 1" &
    wait
    for i in 1 2 3; do blame all "0 1 2" $i & done
    wait
done
! cat "$work"/wrong-* 2>/dev/null
