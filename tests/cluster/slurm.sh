#!/bin/bash
# Two minutes of Slurm on four nodes made of namespaces: a job comes back after a rank was killed, a job that is cancelled
# does not, a rank that does something else than all others is named, and the scaling study has its table.
# tests/cluster/survive and tests/cluster/hang have more, at length.
here=${srcdir:-.}/tests/cluster
STEPS=150 bash "$here/survive" killed cancelled
rc=$?
[ $rc = 0 ] || exit $rc
bash "$here/hang" mismatch && exec bash "$here/scaling"
