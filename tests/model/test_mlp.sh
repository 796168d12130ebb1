#!/bin/bash
# The example of a model of one's own: it learns, and gives the same losses on one rank and on two, with everything
# sharded or nothing.
mlp=${builddir:-.}/examples/mlp
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
if ! command -v mpirun >/dev/null; then
    echo "skipped: there is no mpirun"
    exit 77
fi
cat >"$work/zero3.json" <<'JSON'
{
    "train_micro_batch_size_per_gpu": "auto",
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 64}
}
JSON

run()
{
    timeout 120 mpirun --oversubscribe --allow-run-as-root -n "$1" "$mlp" "${@:2}"
}

run 1 >"$work/one" || exit 1
run 2 "$work/zero3.json" >"$work/two" || exit 1
cat "$work/one"
awk '/told apart/ { share = $1 } END { exit !(share >= 99) }' "$work/one" || { echo "it did not learn"; exit 1; }
# Losses of both runs side by side, relative difference at most 1e-4 (six digits are printed).
paste "$work/one" "$work/two" | awk '
    /^step/ { d = $4 - $8; if (d < 0) d = -d; n++; if (d > 1e-4 * $4 + 2e-6) { print "differs: " $0; bad = 1 } }
    END { exit bad || n != 6 }' || { cat "$work/two"; exit 1; }
