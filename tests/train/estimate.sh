#!/bin/bash
# mpizero estimate: bytes per step are those of the formulas; the predicted step is that of arithmetic where that is
# easy; flags, files and bad requests.
set -u
builddir=$(cd "${builddir:-.}" && pwd)
program=$builddir/mpizero
folder=$(mktemp -d "${TMPDIR:-/tmp}/mpizero-estimate.XXXXXX")
trap 'rm -rf "$folder"' EXIT
wrong=0

fail() {
    echo "$*"
    wrong=1
}

# 12 blocks of 512: 39.0 M parameters
echo '{"model_type": "gpt2", "vocab_size": 1000, "n_positions": 128, "n_embd": 512, "n_layer": 12, "n_head": 8}' \
    >"$folder/config.json"
# estimate ARGS...: its JSON in $json
estimate() {
    json=$("$program" estimate --model "$folder" --json --mixed-precision no --per-device-train-batch-size 2 "$@") ||
        fail "estimate $*: ended with $?"
}

value() { # KEY: the first such number
    awk -F'[:,]' -v key="\"$1\"" '{ gsub(/ /, "", $1) } $1 == key { print $2 + 0; exit }' <<<"$json"
}

near() { # WHAT FOUND EXPECTED PERCENT
    awk -v a="$2" -v b="$3" -v p="$4" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(d <= p / 100 * b) }' ||
        fail "$1: found $2, expected $3 within $4 %"
}

## Bytes: 4 nodes of 2, fp32. Stage 3 gathers twice where the limits on live parameters do not let it keep them.
params=$(estimate --ranks 1 && value parameters)
echo '{"zero_optimization": {"stage": 3, "stage3_max_live_parameters": 8000000, "stage3_max_reuse_distance": 1000000,
    "stage3_prefetch_bucket_size": 4000000}}' >"$folder/tight.json"
for row in "0 2" "1 2" "2 2" "3 2" "tight 3"; do
    read -r stage passes <<<"$row"
    config=(--zero-stage "$stage")
    [ "$stage" != tight ] || config=(--deepspeed "$folder/tight.json")
    estimate "${config[@]}" --nodes 4 --ranks-per-node 2
    near "stage $stage: bytes into a node" "$(value bytes_into_node_per_step)" "$((params * 4 * passes * 3 / 4))" 1.5
    near "stage $stage: bytes sent" "$(value bytes_sent_per_rank_per_step)" "$((params * 4 * passes * 7 / 8))" 1.5
done
# hpZ keeps the backward pass's gathers inside the node; MiCS gathers inside, and adds up shards across
sed 's/"stage": 3/"stage": 3, "zero_hpz_partition_size": 2/' "$folder/tight.json" >"$folder/hpz.json"
estimate --deepspeed "$folder/hpz.json" --nodes 4 --ranks-per-node 2
near "hpZ: bytes into a node" "$(value bytes_into_node_per_step)" "$((params * 4 * 2 * 3 / 4))" 1.5
sed 's/"stage": 3/"stage": 3, "mics_shard_size": 2/' "$folder/tight.json" >"$folder/mics.json"
estimate --deepspeed "$folder/mics.json" --nodes 4 --ranks-per-node 2
near "MiCS: bytes into a node" "$(value bytes_into_node_per_step)" "$((params * 4 * 2 * 3 / 4))" 1.5
estimate --zero-stage 2 --nodes 2 --gradient-accumulation-steps 3
near "stage 2, 3 micro-batches" "$(value bytes_into_node_per_step)" "$((params * 4 * 4 / 2))" 1.5

## Time
rates=(--tokens-per-second 1000 --outer-bandwidth 0.1 --outer-latency 50)
estimate "${rates[@]}" --ranks 1
near "one rank" "$(value step_seconds)" 0.256 0.1
# Links so slow that all waits for them: reduce-scatter and all-gather of 156 MB over 4 nodes
estimate "${rates[@]}" --nodes 4 --zero-stage 1 --outer-bandwidth 0.001
near "slow links" "$(value step_seconds)" "$(awk -v p="$params" 'BEGIN { print 0.256 + 2 * p * 4 * 3 / 4 / 1e6 }')" 2
# 10,000 ranks, all stages
for stage in 0 1 2 3; do
    estimate "${rates[@]}" --nodes 1250 --ranks-per-node 8 --zero-stage "$stage" --inner-bandwidth 100 --inner-latency 10
    near "stage $stage: tokens" "$(value tokens_per_second)" \
        "$(awk -v s="$(value step_seconds)" 'BEGIN { print 10000 * 256 / s }')" 0.1
done

## Rates from files: a step of 100 ms of which 8 are the update, 2 exposed; 1 GB/s and 100 us
cat >"$folder/train.json" <<'JSON'
{"tokens_per_second": {"median": 2560}, "step_ms": {"median": 100}, "exposed_communication_ms": 2, "flops_per_token": 1e9,
 "micro_batch_size": 2, "gradient_accumulation_steps": 1, "block_size": 128, "ranks": 1, "zero_stage": 3,
 "parameters": 8000000, "profile": {"families": {"optimiser": {"ms": 8}}}}
JSON
cat >"$folder/links.json" <<'JSON'
{"nodes": 2, "ranks": 2, "results": [
 {"operation": "all_gather", "bytes": 2000, "seconds": 101e-6}, {"operation": "all_gather", "bytes": 2e6, "seconds": 1.1e-3},
 {"operation": "reduce_scatter", "bytes": 2000, "seconds": 101e-6},
 {"operation": "reduce_scatter", "bytes": 2e6, "seconds": 1.1e-3}, {"operation": "broadcast", "bytes": 5, "seconds": 1}]}
JSON
estimate --rates "$folder/train.json,$folder/links.json" --nodes 2
near "compute from a file" "$(value flops)" "$(awk 'BEGIN { print 256e9 / 0.09 }')" 0.1
near "updates from a file" "$(value updates)" 1e9 0.1
near "bandwidth from a file" "$(value outer_bandwidth)" 1e9 0.1
near "latency from a file" "$(value outer_latency)" 1e-4 0.1
estimate --rates "$folder/train.json,$folder/links.json" --nodes 2 --outer-bandwidth 3
near "a flag before a file" "$(value outer_bandwidth)" 3e9 0.1

## What is refused
refused() { # WORDS ARGS...
    local words=$1
    shift
    "$program" estimate --model "$folder" "$@" >"$folder/out" 2>&1 && fail "estimate $*: went well"
    grep -qe "$words" "$folder/out" || fail "estimate $*: expected \"$words\" in $(cat "$folder/out")"
}
refused "expected nodes with equally many ranks" --ranks 7 --nodes 2
refused "--inner-bandwidth" --ranks 2 --tokens-per-second 5
refused "--outer-bandwidth" --nodes 2 --tokens-per-second 5
refused "bench collectives --json" --rates "$folder/config.json"
exit $wrong
