#!/usr/bin/env bash
# A schedule whose end the file leaves open ends with the run: by epochs as by --max-steps, and as if the file gave it.
. "${srcdir:-.}/tests/train/lib.sh"
tiny_model "$work/model"
tiny_text "$work/text" 3400

# rates NAME SCHEDULER PARAMS FLAG...: the learning rates of a run
rates() {
    local name=$1
    cat >"$work/$name.json" <<JSON
{"train_batch_size": 8, "optimizer": {"type": "AdamW", "params": {"lr": 0.002}},
 "scheduler": {"type": "$2", "params": {"warmup_num_steps": 4$3}}}
JSON
    shift 3
    ranks 1 "$mpizero" train --model "$work/model" --tokenizer byte --train-data "$work/text" --block-size 32 \
        --deepspeed "$work/$name.json" --save-steps 0 --no-save-weights --output-dir "$work/$name" "$@" \
        >"$work/$name.log" 2>&1 || { fail "$name ended with $?: $(tail -n 2 "$work/$name.log")"; return; }
    column learning_rate "$work/$name/metrics.jsonl" >"$work/$name.rates"
}

for schedule in WarmupDecayLR WarmupCosineLR; do
    # 106 blocks are 14 batches of 8, the last one filled up: 28 steps in two epochs
    rates given $schedule ', "total_num_steps": 28' --num-train-epochs 2
    [ "$(wc -l <"$work/given.rates")" = 28 ] || fail "two epochs have $(wc -l <"$work/given.rates") steps, not 28"
    rates auto $schedule ', "total_num_steps": "auto"' --num-train-epochs 2
    rates absent $schedule '' --num-train-epochs 2
    rates steps $schedule '' --max-steps 28
    for name in auto absent steps; do
        same_values 1e-12 "$work/given.rates" "$work/$name.rates" "$schedule, $name: learning rates"
    done
    timeout 60 "$mpizero" eval --model "$work/model" --tokenizer byte --validation-data "$work/text" --block-size 32 \
        --deepspeed "$work/absent.json" --resume "$work/absent" >"$work/log" 2>&1 || fail "eval: $(tail -n 1 "$work/log")"
done
finish
