#!/usr/bin/env bash
# ZeRO stages 0-3 on 1, 2, 3 and 4 ranks with the same global batch give the same losses, and the same run twice the
# same bits.
. "${srcdir:-.}/tests/train/lib.sh"
DROPOUT=0.1 tiny_model "$work/model"
tiny_text "$work/text"

# train NAME RANKS STAGE MICRO ACCUMULATION
train() {
    cat >"$work/$1.json" <<JSON
{"train_batch_size": 12, "train_micro_batch_size_per_gpu": $4, "gradient_accumulation_steps": $5, "gradient_clipping": 0.5,
 "optimizer": {"type": "AdamW", "params": {"lr": 0.002, "weight_decay": 0.1}},
 "zero_optimization": {"stage": $3, "reduce_bucket_size": 3000, "allgather_bucket_size": 5000,
    "stage3_prefetch_bucket_size": 20000, "stage3_param_persistence_threshold": 50, "sub_group_size": 7000}}
JSON
    ranks "$2" "$mpizero" train --model "$work/model" --tokenizer byte --train-data "$work/text" --block-size 32 \
        --deepspeed "$work/$1.json" --max-steps 50 --save-steps 0 --no-save-weights --output-dir "$work/$1" \
        >"$work/$1.log" 2>&1 || { fail "$1 ended with $?"; tail -n 5 "$work/$1.log"; return; }
    column loss "$work/$1/metrics.jsonl" >"$work/$1.loss"
    column grad_norm "$work/$1/metrics.jsonl" >"$work/$1.norm"
}

train reference 1 0 12 1
[ "$(wc -l <"$work/reference.loss")" = 50 ] || fail "the reference has $(wc -l <"$work/reference.loss") steps, not 50"
first=$(head -n 1 "$work/reference.loss") last=$(tail -n 1 "$work/reference.loss")
awk -v a="$first" -v b="$last" 'BEGIN { exit !(b < 0.75 * a) }' || fail "it does not learn: loss $first to $last"
for case in "1 1 4 3" "1 2 6 2" "1 3 12 1" "2 0 6 1" "2 1 2 3" "2 2 3 2" "2 3 6 1" "3 0 2 2" "3 1 4 1" "3 2 4 1" \
    "3 3 2 2" "4 0 3 1" "4 1 3 1" "4 2 1 3" "4 3 3 1"; do
    set -- $case
    name=n$1-stage$2
    train "$name" "$@"
    [ -s "$work/$name.loss" ] || continue
    same_values 1e-5 "$work/reference.loss" "$work/$name.loss" "losses of $1 ranks at stage $2 against one rank"
    same_values 1e-4 "$work/reference.norm" "$work/$name.norm" "gradient norms of $1 ranks at stage $2"
done
train again 2 3 6 1
for key in loss norm; do
    cmp -s "$work/again.$key" "$work/n2-stage3.$key" || fail "the same run twice: other bits in $key"
done
finish
