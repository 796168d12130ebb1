#!/usr/bin/env bash
# Stage 3 over two nodes of two ranks (one machine standing for both), plain, in MiCS's groups and with hpZ's second copy:
# the same losses; checkpoints of each go on in the others and on other ranks; hpZ halves what gathers send between the
# nodes, in the program's own count; sizes that do not divide are refused.
. "${srcdir:-.}/tests/train/lib.sh"
DROPOUT=0.1 tiny_model "$work/model"
tiny_text "$work/text" 14000

# config NAME MICRO KEYS: more keys for zero_optimization, each with a comma before it
config() {
    cat >"$work/$1.json" <<JSON
{"train_batch_size": 12, "train_micro_batch_size_per_gpu": $2,
 "optimizer": {"type": "AdamW", "params": {"lr": 0.002, "weight_decay": 0.1}}, "comms_logger": {"enabled": true},
 "zero_optimization": {"stage": 3, "reduce_bucket_size": 3000, "stage3_prefetch_bucket_size": 20000,
    "stage3_param_persistence_threshold": 50, "stage3_max_reuse_distance": 0 $3}}
JSON
}

# train NAME RANKS MICRO KEYS [FLAG...]
train() {
    local name=$1 n=$2
    config "$1" "$3" "$4"
    shift 4
    ranks "$n" "$mpizero" train --model "$work/model" --tokenizer byte --train-data "$work/text" --block-size 32 \
        --ranks-per-node 2 --cpu-threads 1 --deepspeed "$work/$name.json" --max-steps 12 --no-save-weights \
        --output-dir "$work/$name" "$@" >"$work/$name.log" 2>&1 || { fail "$name ended with $?"; tail -n 5 "$work/$name.log"; }
    column loss "$work/$name/metrics.jsonl" >"$work/$name.loss"
}

# between NAME: GB that rank 0 sent to other nodes
between() {
    sed -n 's/.*inside the node, \([0-9.]*\) GB between nodes.*/\1/p' "$work/$1.log"
}

mics=', "mics_shard_size": 2' hpz=', "zero_hpz_partition_size": 2'
train plain 4 3 "" --save-steps 6
train mics 4 3 "$mics" --save-steps 6
train hpz 4 3 "$hpz" --save-steps 6
same_values 1e-5 "$work/plain.loss" "$work/mics.loss" "losses of MiCS"
cmp -s "$work/plain.loss" "$work/hpz.loss" || fail "hpZ: not plain stage 3's bits"
echo "GB sent between nodes by rank 0 in 12 steps: plain $(between plain), MiCS $(between mics), hpZ $(between hpz)"
awk -v p="$(between plain)" -v h="$(between hpz)" -v m="$(between mics)" \
    'BEGIN { exit !(p > 0 && h > 0.6 * p && h < 0.72 * p && m < 0.72 * p) }' || fail "bytes between nodes"

# resume NAME FROM RANKS MICRO KEYS
resume() {
    train "$1" "$3" "$4" "$5" --save-steps 0 --resume "$work/$2/checkpoints/step-000006"
    tail -n 6 "$work/plain.loss" >"$work/want"
    same_values 1e-5 "$work/want" "$work/$1.loss" "losses of $1"
}
resume mics-to-hpz mics 4 3 "$hpz"
resume hpz-to-mics hpz 4 3 "$mics"
resume mics-to-plain mics 2 6 ""
resume plain-to-mics plain 4 3 "$mics"
resume mics-to-one mics 1 12 ""

for keys in ', "mics_shard_size": 3' ', "zero_hpz_partition_size": 3'; do
    config refused 3 "$keys"
    output=$(ranks 4 "$mpizero" train --model "$work/model" --tokenizer byte --train-data "$work/text" --block-size 32 \
        --deepspeed "$work/refused.json" --max-steps 1 --output-dir "$work/refused" 2>&1) && fail "not refused: $keys"
    grep -q "expected a divisor of the number of ranks, 4, found 3" <<<"$output" || fail "no reason for $keys: $output"
done
finish
