#!/usr/bin/env bash
# nanoGPT's small character model on tinyshakespeare (4 layers, 4 heads, 128 wide, context 64, batch 12, 2000 iterations, no
# dropout): its README reports a validation loss of 1.88; at most 1.90 here.
. "${srcdir:-.}/tests/train/lib.sh"
text=$srcdir/../shared/data/tinyshakespeare/input.txt
[ -e "$text" ] || { echo "skipped: ../shared/data/tinyshakespeare/input.txt is not there"; exit 77; }
head -c 1003854 "$text" >"$work/train"
tail -c 111540 "$text" >"$work/val"
mkdir -p "$work/model"
cat >"$work/model/config.json" <<JSON
{"model_type": "gpt2", "vocab_size": 257, "n_positions": 64, "n_embd": 128, "n_layer": 4, "n_head": 4,
 "activation_function": "gelu_new", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
JSON
cat >"$work/config.json" <<JSON
{"train_batch_size": 12, "gradient_clipping": 1.0,
 "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.1}},
 "scheduler": {"type": "WarmupCosineLR", "params": {"warmup_num_steps": 100, "total_num_steps": 2000,
    "warmup_type": "linear", "cos_min_ratio": 0.1}}}
JSON
timeout 900 "$mpizero" train --model "$work/model" --tokenizer byte --train-data "$work/train" --validation-data "$work/val" \
    --block-size 64 --deepspeed "$work/config.json" --max-steps 2000 --save-steps 0 --no-save-weights \
    --per-device-eval-batch-size 64 --output-dir "$work/run" >"$work/log" 2>&1 || fail "training ended with $?"
loss=$(sed -n 's/.*"eval_loss":\([^,}]*\).*/\1/p' "$work/run/metrics.jsonl" | tail -n 1)
echo "validation loss ${loss:-missing}, training took $(awk -F'"step_seconds":' 'NF > 1 { split($2, x, ","); s += x[1] } END { print s }' "$work/run/metrics.jsonl") s"
awk -v loss="${loss:-9}" 'BEGIN { exit !(loss <= 1.90) }' || fail "validation loss $loss is above 1.90"
finish
