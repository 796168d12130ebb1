#!/usr/bin/env bash
# What a run writes, transformers' from_pretrained loads unchanged: the same loss over a text as mpizero eval, for fp32 and
# for 16-bit weights, in one file and in several. PYTHON names an interpreter with torch and transformers.
. "${srcdir:-.}/tests/train/lib.sh"
python=${PYTHON:-python3}
"$python" -c 'import torch, transformers' 2>/dev/null || { echo "skipped: $python has no torch and transformers"; exit 77; }
export HF_HUB_OFFLINE=1
tiny_model "$work/model"
tiny_text "$work/text" 9000
for dtype in fp32 bf16 fp16; do
    ranks 2 "$mpizero" train --model "$work/model" --tokenizer byte --train-data "$work/text" --block-size 32 --max-steps 6 \
        --per-device-train-batch-size 4 --gradient-accumulation-steps 1 --learning-rate 3e-3 --save-steps 0 --zero-stage 2 \
        --weights-dtype $dtype --output-dir "$work/$dtype" >"$work/log" 2>&1 || fail "training for $dtype weights: $?"
    ours=$("$mpizero" eval --model "$work/$dtype/weights" --tokenizer byte --validation-data "$work/text" --block-size 32 \
        --per-device-eval-batch-size 8 --json 2>"$work/log" | sed -n 's/.*"eval_loss": *\([0-9.e+-]*\).*/\1/p')
    theirs=$("$python" "$srcdir/tests/train/transformers_loss.py" "$work/$dtype/weights" "$work/text" 32 2>"$work/log" | tail -n 1)
    echo "$dtype: mpizero $ours, transformers $theirs"
    echo "$ours" >"$work/ours"
    echo "$theirs" >"$work/theirs"
    same_values 1e-5 "$work/theirs" "$work/ours" "loss of $dtype weights"
done
finish
