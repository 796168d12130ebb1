#!/bin/sh
# Runs a test under as many MPI ranks as its name's end says (agree.np4), and without MPI's launcher where it says none.
case $1 in
*.np[1-9])
    [ -n "$MPIRUN" ] || { echo "mpirun is missing"; exit 77; }
    # shellcheck disable=SC2086 # the flags are words
    exec "$MPIRUN" $MPIRUN_FLAGS -n "${1##*.np}" "$@"
    ;;
esac
exec "$@"
