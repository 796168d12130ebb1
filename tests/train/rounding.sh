#!/usr/bin/env bash
# What rounding costs in learning where no fp32 master weights are kept: nanoGPT's small character model on tinyshakespeare
# in bf16 at a small constant learning rate. Rounded to the nearest, most updates are lost; rounded stochastically, the
# losses are those with master weights. STEPS, RATE: other runs than the test's; from 800 steps on, which
# docs/PERFORMANCE.md has, also with moments in bf16.
. "${srcdir:-.}/tests/train/lib.sh"
text=$srcdir/../shared/data/tinyshakespeare/input.txt
[ -e "$text" ] || { echo "skipped: ../shared/data/tinyshakespeare/input.txt is not there"; exit 77; }
steps=${STEPS:-200} rate=${RATE:-1e-4}
mkdir -p "$work/model"
cat >"$work/model/config.json" <<JSON
{"model_type": "gpt2", "vocab_size": 257, "n_positions": 64, "n_embd": 128, "n_layer": 4, "n_head": 4,
 "activation_function": "gelu_new", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
JSON

# run NAME BF16-KEYS [FLAG...]: sets $loss, the mean of the last 100 steps.
run() {
    local name=$1
    cat >"$work/$name.json" <<JSON
{"train_batch_size": 16, "gradient_clipping": 1.0, "bf16": {"enabled": true$2},
 "optimizer": {"type": "AdamW", "params": {"lr": $rate, "betas": [0.9, 0.99], "weight_decay": 0.1}}}
JSON
    shift 2
    timeout 600 "$mpizero" train --model "$work/model" --tokenizer byte --train-data "$text" --block-size 64 \
        --deepspeed "$work/$name.json" --max-steps "$steps" --save-steps 0 --no-save-weights \
        --output-dir "$work/$name" "$@" >"$work/$name.log" 2>&1 || { fail "$name ended with $?"; tail -n 5 "$work/$name.log"; }
    loss=$(column loss "$work/$name/metrics.jsonl" | tail -n 100 | awk '{ s += $1 } END { printf "%.4f", s / NR }')
    echo "$name: mean loss of the last 100 of $steps steps $loss"
}

none=', "bf16_master_weights_and_grads": true'
all=$none', "bf16_optimizer_states": true'
run masters "" && masters=$loss
run stochastic "$none" --stochastic-rounding && stochastic=$loss
run nearest "$none" && nearest=$loss
all_stochastic=$stochastic all_nearest=$nearest
if [ "$steps" -ge 800 ]; then
    run all-bf16-stochastic "$all" --stochastic-rounding && all_stochastic=$loss
    run all-bf16-nearest "$all" && all_nearest=$loss
fi
awk -v m="$masters" -v s="$stochastic" -v n="$nearest" -v as="$all_stochastic" -v an="$all_nearest" 'BEGIN {
    if (s / m > 1.01 || as / m > 1.01) { print "stochastic rounding loses more than 1 %"; exit 1 }
    if (n / m < 1.02 || an / m < 1.02) { print "rounding to the nearest loses nothing: the test shows nothing"; exit 1 } }' ||
    fail "losses"
finish
