#!/usr/bin/env bash
# A checkpoint of 4 ranks at stage 3 goes on, with the same losses, learning rates and loss scales, on 2 ranks at stage 2,
# 1 rank at stage 0 and 3 ranks at stage 1; and so in fp16 with a dynamic loss scale.
. "${srcdir:-.}/tests/train/lib.sh"
DROPOUT=0.1 tiny_model "$work/model"
tiny_text "$work/text" 14000

# train NAME RANKS STAGE MICRO ACCUMULATION PRECISION [FLAG...]
train() {
    local name=$1 n=$2 precision=$6
    cat >"$work/$name.json" <<JSON
{"train_batch_size": 12, "train_micro_batch_size_per_gpu": $4, "gradient_accumulation_steps": $5,
 "optimizer": {"type": "AdamW", "params": {"lr": 0.002, "weight_decay": 0.1}},
 "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": 10, "total_num_steps": 60}},
 "fp16": {"enabled": $([ "$precision" = fp16 ] && echo true || echo false), "initial_scale_power": 12, "loss_scale_window": 8},
 "zero_optimization": {"stage": $3, "reduce_bucket_size": 3000, "stage3_param_persistence_threshold": 50}}
JSON
    shift 6
    ranks "$n" "$mpizero" train --model "$work/model" --tokenizer byte --train-data "$work/text" --block-size 32 \
        --deepspeed "$work/$name.json" --max-steps 40 --no-save-weights --output-dir "$work/$name" "$@" \
        >"$work/$name.log" 2>&1 || { fail "$name ended with $?"; tail -n 5 "$work/$name.log"; }
}

for precision in fp32 fp16; do
    # The text has about 437 blocks, so that 40 steps of 12 cross an epoch's end.
    train whole-$precision 4 3 3 1 $precision --save-steps 20
    for case in "2 2 3 2" "1 0 12 1" "3 1 4 1"; do
        set -- $case
        name=n$1-stage$2-$precision
        train "$name" "$@" $precision --save-steps 0 --resume "$work/whole-$precision/checkpoints/step-000020"
        for key in loss learning_rate loss_scale; do
            column $key "$work/whole-$precision/metrics.jsonl" | tail -n 20 >"$work/want"
            column $key "$work/$name/metrics.jsonl" >"$work/have"
            tolerance=1e-5
            [ $precision = fp32 ] || [ $key != loss ] || tolerance=2e-3
            same_values $tolerance "$work/want" "$work/have" "$key of $name"
        done
    done
done
finish
