#!/bin/bash
# A minute of Slurm on four nodes made of namespaces: a job comes back after a rank was killed, and a rank that does
# something else than all others is named. tests/cluster/survive and tests/cluster/hang have more, at length.
here=${srcdir:-.}/tests/cluster
STEPS=150 bash "$here/survive" killed
rc=$?
[ $rc = 0 ] || exit $rc
exec bash "$here/hang" mismatch
