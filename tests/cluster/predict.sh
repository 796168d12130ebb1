#!/bin/bash
# How well does mpizero estimate predict? Measures a small GPT-2's steps on nodes made of namespaces, 1 to 4 nodes of 1 or 2
# ranks, stages 0 to 3, and prints a table of measured and predicted milliseconds. Needs an idle machine.
#
#   tests/cluster/predict.sh [RATE [LAYOUT...]]      as in: tests/cluster/predict.sh 1gbit 2x1 4x2
#
# Rates come from: as many single ranks as the layout has, training at once with nobody to talk to (they share the cores
# as the layout's ranks do); collectives on one node of 2, and on 2 nodes of 1. QUIET is a command to put before what is
# timed, STAGES the stages.
set -u
here=$(cd "$(dirname "$0")" && pwd)
builddir=$(cd "${builddir:-.}" && pwd)
program=$builddir/mpizero
cluster=$here/cluster
rate=${1:-1gbit}
shift
layouts=("$@")
[ ${#layouts[@]} != 0 ] || layouts=(1x1 1x2 2x1 2x2 4x1 4x2)
folder=${FOLDER:-$(mktemp -d "${TMPDIR:-/tmp}/mpizero-predict.XXXXXX")}
export FOLDER=$folder CLUSTER=$folder/cluster builddir
train=(--model "$folder/model.json" --mixed-precision no --block-size 128 --per-device-train-batch-size 4)
stages=${STAGES:-0 1 2 3}

number() { # KEY FILE: the first such number
    awk -F'[:,]' -v key="\"$1\"" '{ gsub(/ /, "", $1) } $1 == key { print $2 + 0; exit }' "$2"
}

on_layout() { # LAYOUT COMMAND...
    local nodes=${1%x*} per_node=${1#*x} hosts
    shift
    hosts=$(for i in $(seq "$nodes"); do printf 'n%d:%d,' "$i" "$per_node"; done)
    timeout 60 "$cluster" mpirun -n $((nodes * per_node)) --host "${hosts%,}" "$@" 2>"$folder/errors"
}

# What is timed of one layout, in one piece.
if [ "$rate" = --measure ]; then
    layout=${layouts[0]} n=$((${layouts[0]%x*} * ${layouts[0]#*x}))
    for i in $(seq "$n"); do
        "$program" bench train "${train[@]}" --cpu-threads 1 --steps 3 --warmup 1 --json >"$folder/alone.$i" &
    done
    wait
    for stage in $stages; do
        on_layout "$layout" "$program" bench train "${train[@]}" --cpu-threads 1 --steps 5 --warmup 1 --json \
            --zero-stage "$stage" >"$folder/$layout.$stage" || cat "$folder/errors" >&2
    done
    exit
fi

trap '"$cluster" down; rm -rf "$folder"' EXIT
echo '{"model_type": "gpt2", "vocab_size": 512, "n_positions": 128, "n_embd": 256, "n_layer": 4, "n_head": 4}' \
    >"$folder/model.json"
"$cluster" up 4 && "$cluster" shape "$rate" || exit $?
for pair in inner:1x2 outer:2x1; do
    ${QUIET:-} "$BASH" -c "$(declare -f on_layout)"'
        folder=$1 cluster=$2; shift 2; on_layout "$@"' - "$folder" "$cluster" "${pair#*:}" \
        "$program" bench collectives --sizes 64K,8M --rounds 3 --json >"$folder/${pair%:*}.json"
done
echo "| nodes x ranks | stage | measured ms | predicted ms | error | not hidden: measured, predicted |"
echo "|---|---|---|---|---|---|"
for layout in "${layouts[@]}"; do
    ${QUIET:-} "$BASH" "$here/predict.sh" --measure "$layout"
    slowest=$(for file in "$folder"/alone.*; do echo "$(number median <(sed -n '/"step_ms"/,$p' "$file")) $file"; done |
        sort -g | tail -n 1 | cut -d' ' -f2)
    for stage in $stages; do
        "$program" estimate "${train[@]}" --json --zero-stage "$stage" --nodes "${layout%x*}" --ranks-per-node "${layout#*x}" \
            --rates "$slowest,$folder/inner.json,$folder/outer.json" >"$folder/predicted" || exit 1
        measured=$(number median <(sed -n '/"step_ms"/,$p' "$folder/$layout.$stage"))
        awk -v layout="$layout" -v stage="$stage" -v m="$measured" -v p="$(number step_seconds "$folder/predicted")" \
            -v me="$(number exposed_communication_ms "$folder/$layout.$stage")" \
            -v pe="$(number exposed_communication_seconds "$folder/predicted")" 'BEGIN {
                printf "| %s | %s | %.1f | %.1f | %+.0f %% | %.1f, %.1f |\n", layout, stage, m, 1e3 * p, 100 * (1e3 * p / m - 1), me, 1e3 * pe }'
    done
    rm -f "$folder"/alone.*
done
