#!/usr/bin/env bash
# Fifty steps through the program against transformers and torch.optim.AdamW in fp32, from the same weights: losses and
# gradient norms within 1e-4, with accumulation, clipping and weight-decay groups; on one rank and on two at each stage.
. "${srcdir:-.}/tests/train/lib.sh"
fixture=$srcdir/tests/fixtures/gpt2_bytes
cp "$fixture/train.txt" "$work/text"

# list KEY: an array of numbers in train.json, one a line.
list() { tr -d '\n ' <"$fixture/train.json" | sed 's/.*"'"$1"'":\[\([^]]*\)\].*/\1/' | tr ',' '\n'; echo; }
list losses | sed '/^$/d' >"$work/want.loss"
list grad_norms | sed '/^$/d' >"$work/want.grad_norm"
[ "$(wc -l <"$work/want.loss")" = 50 ] || fail "the fixture has $(wc -l <"$work/want.loss") losses, not 50"

# run NAME RANKS STAGE MICRO ACCUMULATION
run() {
    ranks "$2" "$mpizero" train --model "$fixture" --tokenizer byte --train-data "$work/text" --block-size 16 --no-shuffle \
        --zero-stage "$3" --per-device-train-batch-size "$4" --gradient-accumulation-steps "$5" --learning-rate 5e-3 \
        --weight-decay 0.1 --max-grad-norm 1 --max-steps 50 --save-steps 0 --no-save-weights --cpu-threads 1 \
        --output-dir "$work/$1" >"$work/log" 2>&1 || { fail "$1 ended with $?: $(tail -n 2 "$work/log")"; return; }
    for key in loss grad_norm; do
        column $key "$work/$1/metrics.jsonl" >"$work/have"
        same_values 1e-4 "$work/want.$key" "$work/have" "$key of $1"
    done
}
run one-rank 1 0 2 2
run two-ranks-stage1 2 1 2 1
run two-ranks-stage2 2 2 1 2
run two-ranks-stage3 2 3 1 2
finish
